"""Python functions that give events a column: what expressions cannot say, pinned by its source."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import pyarrow as pa

from headrace.definitions.checks import check_items, check_text, check_type, check_unique, invalid
from headrace.definitions.entities import check_not_reserved
from headrace.function_source import function_path, source_digest
from headrace.names import NAME_LENGTH_MAX, check_word
from headrace.types import ValueType

FUNCTION_COUNT_MAX: Final = 64  # of one view; each runs in the interpreter for every write
INPUT_COUNT_MAX: Final = 256  # columns of one function

ArrayFunction: TypeAlias = Callable[[pa.RecordBatch], pa.Array]

_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True, init=False)
class Function:
    """A column of events that a Python function computes: `Function("host", "string", host_of, ["url"])`.

    The function takes a RecordBatch of `columns` and gives an array of `type`, one value per row, each from its own row
    alone and always the same. It stands at the top of a module, which servers import by its path; `digest` is that of
    its source, and another source there is refused. Given as a path, `module:function`, it comes with its digest.
    """

    name: str
    type: ValueType
    path: str
    columns: Sequence[str]
    digest: str

    def __init__(
        self,
        name: str,
        type: ValueType | str,  # noqa: A002 - the word of the glossary
        function: ArrayFunction | str,
        columns: Sequence[str],
        *,
        digest: str = "",
    ) -> None:
        check_word(check_text(name, "name", 2 * NAME_LENGTH_MAX, required=True), "name", "function column")
        check_not_reserved(name, "function column")
        checked = check_items(columns, str, "columns", INPUT_COUNT_MAX, count_min=1)
        check_unique(checked, "columns", "", "column")
        if not isinstance(function, str):
            path, digest = function_path(function), source_digest(function)
        else:
            path = function
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "type", check_type(type))
        object.__setattr__(self, "path", _checked_path(path))
        object.__setattr__(self, "columns", checked)
        object.__setattr__(self, "digest", _checked_digest(digest, path))


def _checked_path(path: str) -> str:
    check_text(path, "function", 4 * NAME_LENGTH_MAX, required=True)
    if not _PATH.match(path):
        message = f"function {path!r} is no module:function, such as 'shop.text:host_of'"
        raise invalid(message, "INVALID_NAME", "function", function=path)
    return path


def _checked_digest(digest: object, path: str) -> str:
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        what = f"is {digest!r}" if digest else "is missing"
        message = f"digest {what}; write the 64 digits that `headrace function {path}` prints"
        raise invalid(message, "REQUIRED" if not digest else "INVALID_TEXT", "digest", function=path)
    return digest
