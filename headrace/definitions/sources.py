"""Sources: event streams and tables that views read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Final

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_duration, check_items, check_text, check_type, check_unique, invalid
from headrace.names import NAME_LENGTH_MAX, check_word, parse_pinned_ref
from headrace.types import Scalar, ValueType

COLUMN_COUNT_MAX: Final = 10_000  # of one source; wide exports have thousands, and each is only a name here
QUERY_LENGTH_MAX: Final = 65_536  # of one SELECT; longer ones are made by a program, which may make a table
INPUT_COUNT_MAX: Final = 64
LAKE_SCHEME: Final = "lake:"
URI_LENGTH_MAX: Final = 2_048  # what common clients accept


class SourceKind(IntEnum):
    """What a source is; the numbers are those of the contracts."""

    PUSH = 1
    FILE = 2
    STREAM = 3
    TABLE = 4
    SQL = 5


@dataclass(frozen=True, slots=True, init=False)
class Column:
    """One column of a source: `Column("dep_delay", "f32")`."""

    name: str
    type: ValueType

    def __init__(self, name: str, type: ValueType | str) -> None:  # noqa: A002 - the word of the glossary
        check_text(name, "name", NAME_LENGTH_MAX, required=True)
        if not name.isprintable():
            raise invalid(f"column name {name!r} holds characters that cannot be printed", "INVALID_NAME", "name")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "type", check_type(type))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Definition):
    """Event stream or table. `uri` says where it lies and is empty for PUSH and SQL alone.

    A source of kind SQL is the result of `query`, one SELECT over its `inputs`: Parquet files by path, `*` allowed, or
    views in the lake, `lake:team.domain.view@v1`, by the names that the SELECT reads. It has rows for batch alone.

    `availability_delay` is how long after its event time a row of a backfill counts as available.
    """

    columns: Sequence[Column]
    kind: SourceKind = SourceKind.PUSH
    event_time_column: str = "event_time"
    uri: str = ""
    availability_delay: timedelta = timedelta(0)
    query: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        Definition.__post_init__(self)
        if not isinstance(self.kind, SourceKind):
            raise invalid(f"kind must be a SourceKind, not {type(self.kind).__name__}", "WRONG_TYPE", "kind")
        columns = check_items(self.columns, Column, "columns", COLUMN_COUNT_MAX, count_min=1)
        check_unique((column.name for column in columns), "columns", ".name", "column")
        object.__setattr__(self, "columns", columns)
        check_duration(self.availability_delay, "availability_delay", zero=True)
        _check_place(self.kind, check_text(self.uri, "uri", URI_LENGTH_MAX))
        self._check_event_time()
        object.__setattr__(self, "inputs", _checked_inputs(self.kind, self.query, self.inputs))

    def column(self, name: str) -> Column | None:
        """The column of a name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    def _check_event_time(self) -> None:
        check_text(self.event_time_column, "event_time_column", NAME_LENGTH_MAX, required=True)
        column = self.column(self.event_time_column)
        if column is None:
            raise invalid(
                f"event time column {self.event_time_column!r} is not among the columns of {self.name!r}; add it",
                "UNKNOWN_COLUMN",
                "event_time_column",
                column=self.event_time_column,
            )
        if column.type != ValueType(Scalar.TIMESTAMP_US):
            raise invalid(
                f"event time column {column.name!r} is {column.type}; it must be timestamp_us",
                "WRONG_TYPE",
                "event_time_column",
                column=column.name,
                type=column.type,
            )


def _checked_inputs(kind: SourceKind, query: object, inputs: object) -> dict[str, str]:
    text = check_text(query, "query", QUERY_LENGTH_MAX, required=kind is SourceKind.SQL)
    if not isinstance(inputs, Mapping):
        raise invalid("inputs must map names to files or views", "WRONG_TYPE", "inputs")
    if kind is not SourceKind.SQL:
        for name, value in (("query", text), ("inputs", inputs)):
            if value:
                message = f"{name} is set, and only a source of kind SQL has one; set the kind or leave it out"
                raise invalid(message, "UNEXPECTED", name)
        return {}
    if not 1 <= len(inputs) <= INPUT_COUNT_MAX:
        message = f"inputs has {len(inputs)} entries; 1 to {INPUT_COUNT_MAX} are allowed"
        raise invalid(message, "TOO_MANY" if inputs else "REQUIRED", "inputs")
    for name, place in inputs.items():
        check_word(check_text(name, "inputs", NAME_LENGTH_MAX), "inputs", "input")
        where = f"inputs.{name}"
        check_text(place, where, URI_LENGTH_MAX, required=True)
        if place.startswith(LAKE_SCHEME):
            parse_pinned_ref(place.removeprefix(LAKE_SCHEME), where)
    return dict(sorted(inputs.items()))


def _check_place(kind: SourceKind, uri: str) -> None:
    has_place = kind not in (SourceKind.PUSH, SourceKind.SQL)
    if uri and not has_place:
        message = f"uri is set, and a {kind.name} source has no place; leave it empty"
        raise invalid(message, "UNEXPECTED", "uri", uri=uri)
    if has_place and not uri:
        raise invalid(f"uri is required for a source of kind {kind.name}", "REQUIRED", "uri")
