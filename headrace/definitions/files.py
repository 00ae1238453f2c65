"""Loads definition files, Python and YAML, and writes YAML."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from headrace.definitions.base import Definition
from headrace.definitions.checks import invalid
from headrace.definitions.document_reading import set_from_document
from headrace.definitions.documents import set_document
from headrace.definitions.python_files import load_python
from headrace.definitions.sets import KINDS, DefinitionSet
from headrace.errors import InvalidArgument

FILE_BYTES_MAX: Final = 16 * 1024 * 1024  # of one definition file; a thousand wide views fit
FILE_COUNT_MAX: Final = 1_000  # of one folder
_SUFFIXES: Final = (".py", ".yaml", ".yml")
_OTHER_BREAKS: Final = frozenset("\r\x85\u2028\u2029")


def load(path: Path | str) -> DefinitionSet:
    """Definitions of a file, or of every .py, .yaml and .yml file below a folder, hidden ones left out."""
    root = Path(path)
    if not root.is_dir():
        return _load_file(root, root.parent)
    files = [file for file in sorted(root.rglob("*")) if _is_definition_file(file.relative_to(root), file)]
    if not files:
        raise _failed(root, "holds no definition file (.py, .yaml, .yml)", "NO_DEFINITIONS")
    if len(files) > FILE_COUNT_MAX:
        raise _failed(root, f"holds {len(files)} definition files; at most {FILE_COUNT_MAX} are allowed", "TOO_MANY")
    return merge((file, _load_file(file, root)) for file in files)


def load_yaml(path: Path | str) -> DefinitionSet:
    """Definitions of one YAML file; docs/definitions.md gives its fields."""
    file = Path(path)
    text = _read(file)
    try:
        document = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that also refuses double keys
        return set_from_document({} if document is None else document)
    except yaml.YAMLError as error:
        raise _failed(file, f"is not YAML: {' '.join(str(error).split())}", "INVALID_YAML") from error
    except RecursionError as error:
        raise _failed(file, "is nested too deeply", "INVALID_YAML") from error
    except InvalidArgument as error:
        raise _in_file(file, error) from error


def to_yaml(definitions: DefinitionSet) -> str:
    """YAML text that `load_yaml` reads back to an equal set."""
    document = set_document(definitions)
    return str(yaml.dump(document, Dumper=_ExactDumper, sort_keys=False, allow_unicode=True, width=120))


def merge(parts: Iterable[tuple[Path, DefinitionSet]]) -> DefinitionSet:
    """One set of the sets of several files; an equal definition that several files import counts once."""
    origins: dict[str, tuple[Path, Definition]] = {}
    kinds: dict[str, list[Definition]] = {field: [] for field in KINDS}
    for file, part in parts:
        for path, definition in part.located():
            first = origins.get(definition.name)
            if first is None:
                origins[definition.name] = (file, definition)
                kinds[path.partition("[")[0]].append(definition)
            elif first[1] != definition:
                raise invalid(
                    f"{definition.name!r} is defined in {first[0]} and again, differently, in {file} at {path}; "
                    "keep one of them",
                    "DUPLICATE_NAME",
                    f"{path}.name",
                    name=definition.name,
                    file=file,
                )
    return DefinitionSet(**kinds)  # type: ignore[arg-type]  # each list holds the kind of its field


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error instead of losing the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # Any: as its base
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value if isinstance(key.value, str) else repr(key.start_mark))
        return super().construct_mapping(node, deep)


class _ExactDumper(yaml.SafeDumper):
    """Safe YAML whose text comes back as it is: of line breaks other than a newline readers make newlines."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Text with such a break stands in double quotes, where the emitter escapes it."""
        style = '"' if _OTHER_BREAKS.intersection(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_ExactDumper.add_representer(str, _ExactDumper.represent_text)


def _load_file(file: Path, root: Path) -> DefinitionSet:
    if file.suffix == ".py":
        _read(file)
        return load_python(file, root)
    if file.suffix in _SUFFIXES:
        return load_yaml(file)
    raise _failed(file, "is neither .py, .yaml nor .yml", "UNKNOWN_FILE_TYPE")


def _is_definition_file(relative: Path, file: Path) -> bool:
    hidden = any(part.startswith((".", "__")) for part in relative.parts)
    return file.suffix in _SUFFIXES and not hidden and file.is_file()


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise _failed(file, f"is larger than {FILE_BYTES_MAX} bytes", "TOO_LONG")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _failed(file, "is not UTF-8 text", "INVALID_TEXT") from error
    except OSError as error:
        raise _failed(file, f"cannot be read: {error.strerror or error}", "FILE_NOT_READABLE") from error


def _failed(path: Path, what: str, reason: str) -> InvalidArgument:
    return invalid(f"{path} {what}", reason, "", file=path)


def _in_file(file: Path, error: InvalidArgument) -> InvalidArgument:
    return InvalidArgument(
        f"{file}: {error.field or 'file'}: {error.message}",
        reason=error.reason,
        field=error.field,
        metadata={**error.metadata, "file": str(file)},
    )
