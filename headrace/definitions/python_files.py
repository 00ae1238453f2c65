"""Loads definitions from Python files."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import invalid
from headrace.definitions.sets import KINDS, DefinitionSet
from headrace.errors import InvalidArgument

_MODULE: Final = "_headrace_definitions"


def load_python(path: Path | str, root: Path | str | None = None) -> DefinitionSet:
    """Definitions that stand at the module level of a file, alone, in lists and tuples, or as a DefinitionSet.

    The file runs as a module of its own; it may import its neighbours below `root` (default: its folder), and leaves
    no module behind. For command lines: it changes the import path while it runs.
    """
    file = Path(path).resolve()
    with imports_below(Path(root).resolve() if root else file.parent):
        module = _run(file)
    found: dict[int, Definition] = {}
    for value in vars(module).values():
        for definition in _definitions(value):
            found.setdefault(id(definition), definition)
    kinds = {field: [item for item in found.values() if isinstance(item, kind)] for field, kind in KINDS.items()}
    try:
        return DefinitionSet(**kinds)  # type: ignore[arg-type]  # each list holds the kind of its field
    except InvalidArgument as error:
        raise _located_error(file, 0, error) from error


def _definitions(value: object) -> Iterator[Definition]:
    if isinstance(value, Definition):
        yield value
    elif isinstance(value, DefinitionSet):
        for _, definition in value.located():
            yield definition
    elif isinstance(value, list | tuple):
        yield from (item for item in value if isinstance(item, Definition))


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise invalid(f"{file} is no Python file that can be read", "FILE_NOT_READABLE", "", file=file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses and annotations look their module up by name
    try:
        spec.loader.exec_module(module)
    except InvalidArgument as error:
        raise _located_error(file, _line(error, file), error) from error
    except Exception as error:
        raise invalid(
            f"{file}:{_line(error, file)}: the definition file failed: {type(error).__name__}: {error}",
            "DEFINITION_FILE_FAILED",
            "",
            file=file,
        ) from error
    return module


def _line(error: BaseException, file: Path) -> int:
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == str(file)), 0)


def _located_error(file: Path, line: int, error: InvalidArgument) -> InvalidArgument:
    place = f"{file}:{line}" if line else str(file)
    return InvalidArgument(
        f"{place}: {error.field or 'file'}: {error.message}",
        reason=error.reason,
        field=error.field,
        metadata={**error.metadata, "file": str(file)},
    )


@contextmanager
def imports_below(root: Path) -> Iterator[None]:
    """Lets modules below a folder be imported, and forgets them afterwards."""
    before = set(sys.modules)
    kept_flag = sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True  # loading writes nothing beside the files
    try:
        yield
    finally:
        sys.dont_write_bytecode = kept_flag
        sys.path.remove(str(root))
        for name in set(sys.modules) - before:
            if name == _MODULE or _is_neighbour(name, root, before):
                del sys.modules[name]


def _is_neighbour(name: str, root: Path, before: set[str]) -> bool:
    # Installed packages stay, even where their environment lies below the folder: compiled ones load only once.
    origin = getattr(sys.modules[name], "__file__", None)
    if not origin or name.partition(".")[0] in before:
        return False
    path = Path(origin).resolve()
    return path.is_relative_to(root) and "site-packages" not in path.parts
