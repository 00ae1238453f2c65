"""Source of Python functions that views use: what of it decides their values, and its digest."""

import dis
import hashlib
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from headrace.errors import FailedPrecondition, InvalidArgument

_FIELD: Final = "function"
_SCALARS: Final = (bool, int, float, complex, str, bytes, type(None))


def function_path(function: object) -> str:
    """`module:function` of a function at the top of a module that others can import. Raises InvalidArgument."""
    if not isinstance(function, FunctionType):
        what = f"a {type(function).__name__} is no Python function whose source can be pinned"
        raise _refused(f"{what}; write `def name(batch): …` at the top of a module", "NOT_A_FUNCTION")
    name = function.__qualname__
    if not name.isidentifier() or name == "<lambda>":
        raise _refused(
            f"function {name!r} does not stand at the top of a module; move it there", "NOT_A_FUNCTION", name
        )
    if function.__module__ in ("__main__", "_headrace_definitions"):
        raise _refused(
            f"function {name!r} stands in a script or a definition file, which servers do not import; move it into a "
            "module of its own and import it",
            "NOT_IMPORTABLE",
            name,
        )
    return f"{function.__module__}:{name}"


def source_digest(function: object) -> str:
    """SHA-256, as hexadecimal digits, of the source of a function and of all that it names in its module.

    Raises InvalidArgument where the source cannot be had, or where a value could change behind it.
    """
    path = function_path(function)
    assert isinstance(function, FunctionType), "the path was asked for"
    parts = sorted(_parts(function, path, {}).items())
    return hashlib.sha256("\0".join(f"{name}\n{text}" for name, text in parts).encode()).hexdigest()


def load_function(path: str, digest: str, allowed: "frozenset[str] | None" = frozenset()) -> Callable[[Any], Any]:
    """The function of a path whose source has a digest, from a module that may be imported; None allows every one.

    Raises FailedPrecondition: FUNCTION_NOT_ALLOWED, FUNCTION_NOT_FOUND, FUNCTION_CHANGED.
    """
    module_name = path.partition(":")[0]
    if allowed is not None and not any(module_name == one or module_name.startswith(f"{one}.") for one in allowed):
        raise _failed(
            f"function {path!r} may not be imported here; start the server with --function-module "
            f"{module_name.partition('.')[0]}",
            "FUNCTION_NOT_ALLOWED",
            path,
        )
    function = function_of_path(path)
    found = source_digest(function)
    if found != digest:
        raise _failed(
            f"function {path!r} has another source here than when it was registered: install that one, or apply the "
            "definition again for a new version",
            "FUNCTION_CHANGED",
            path,
        )
    return function


def function_of_path(path: str) -> Callable[[Any], Any]:
    """The function of `module:function`, imported. Raises FailedPrecondition."""
    module_name, _, name = path.partition(":")
    try:
        function: Callable[[Any], Any] = getattr(import_module(module_name), name)
    except Exception as error:  # whatever a module does when it is imported
        message = f"function {path!r} cannot be imported: {type(error).__name__}: {error}; install its module here"
        raise _failed(message, "FUNCTION_NOT_FOUND", path) from error
    return function


def _parts(function: FunctionType, path: str, found: dict[str, str]) -> dict[str, str]:
    """Source by name: of the function, of what of its module it names, and of what those name."""
    name = function.__qualname__
    if name in found:
        return found
    if function.__closure__:
        raise _refused(
            f"function {path!r} reads variables of a function around it; pass what it needs", "NOT_PURE", path
        )
    if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
        raise _refused(f"function {path!r} does not return its array; write a plain function", "NOT_A_FUNCTION", path)
    try:
        found[name] = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise _refused(
            f"the source of function {path!r} cannot be had ({error}), so that nothing pins it; put it into a .py file",
            "SOURCE_NOT_HAD",
            path,
        ) from error
    for used in sorted(set(_names(function.__code__, path))):
        if used in function.__globals__:
            _add(used, function.__globals__[used], function, path, found)
    return found


def _add(used: str, value: object, function: FunctionType, path: str, found: dict[str, str]) -> None:
    if isinstance(value, FunctionType) and value.__module__ == function.__module__:
        _parts(value, path, found)
    elif isinstance(value, ModuleType):
        found[used] = f"module {value.__name__}"
    elif _is_constant(value):
        found[used] = repr(value)
    elif _home_of(value) not in (None, function.__module__):
        found[used] = f"from {_home_of(value)} {getattr(value, '__qualname__', '')}"
    else:
        raise _refused(
            f"function {path!r} reads {used!r}, a {type(value).__name__} that may change behind it; make it a constant "
            "(number, text, tuple) or a function",
            "NOT_PURE",
            path,
        )


def _names(code: CodeType, path: str) -> Iterator[str]:
    """Global names that code and the code inside it may read."""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            message = f"function {path!r} writes the global {step.argval!r}, so that its values depend on calls before"
            raise _refused(f"{message}; return what it computes", "NOT_PURE", path)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, path)


def _home_of(value: object) -> str | None:
    """Module of a function or class, None of what has none."""
    home = getattr(value, "__module__", None) if hasattr(value, "__qualname__") else None
    return home if isinstance(home, str) else None


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, _SCALARS)


def _refused(message: str, reason: str, function: str = "") -> InvalidArgument:
    return InvalidArgument(message, reason=reason, field=_FIELD, metadata={"function": function})


def _failed(message: str, reason: str, function: str) -> FailedPrecondition:
    return FailedPrecondition(message, reason=reason, field=_FIELD, metadata={"function": function})
