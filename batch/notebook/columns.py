"""Columns of the events that a person brings, in the types that definitions declare."""

import pyarrow as pa

from batch.historical.checks import plain
from batch.historical.failures import refused
from headrace.types import ValueType


def column_of(rows: pa.Table, name: str, wanted: ValueType) -> pa.ChunkedArray:
    """A column in its type; whole numbers change their width where they fit, nothing else is cast."""
    column = present(rows, name)
    kind = column.type
    if plain(kind) == plain(wanted.arrow):
        return column
    target = wanted.arrow
    if pa.types.is_null(kind) or (pa.types.is_integer(kind) and pa.types.is_integer(target)):
        try:
            return column.cast(target)
        except pa.ArrowInvalid as error:
            raise refused("WRONG_TYPE", "events", f"column {name!r} does not fit {wanted}: {error}") from error
    raise refused("WRONG_TYPE", "events", f"column {name!r} is {kind}, and {wanted} is wanted; cast it first")


def present(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as it is."""
    if name not in rows.column_names:
        known = ", ".join(rows.column_names[:50])
        raise refused("MISSING_COLUMN", "events", f"have no column {name!r}; they have {known}")
    return rows[name]
