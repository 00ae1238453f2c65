"""Checks of the columns of spine and histories before a row is read, and of their values while they are."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.arrays import numbers_of
from batch.historical.failures import refused
from batch.historical.inputs import HistoryInput, KeyColumn
from core_ext.arrow import arrow_column
from core_ext.keys import KeyBatch, encode_keys
from headrace.types import ValueType

_UTC: Final = {"UTC", "Etc/UTC", "Z", "+00:00"}


def check_spine(
    schema: pa.Schema,
    time_column: str,
    views: Sequence[HistoryInput],
    fields: Sequence[tuple[str, ValueType]] = (),
    computed: Sequence[str] = (),
) -> None:
    """Refuses a spine that lacks a key, its time or a request field, or that clashes with the names of the result.

    `fields` are request data that on-demand features take, `computed` the names of those features.
    """
    _check_time(schema, time_column, "spine")
    for key in {key.spine: key for view in views for key in view.keys}.values():
        _check_type(schema, key.spine, ValueType(key.scalar), "spine")
    for name, kind in fields:
        _check_type(schema, name, kind, "spine")
    outputs = [name for view in views for column in view.columns for name in names_of(view.output_of(column))]
    outputs += [name for output in computed for name in names_of(output)]
    taken = set(schema.names)
    for name in outputs:
        if name in taken:
            raise refused("NAME_TAKEN", "spine", f"column {name!r} of the result has its name twice; rename it")
        taken.add(name)


def names_of(output: str) -> tuple[str, str]:
    """Columns of one feature in the result: its value and its status."""
    return output, f"{output}__status"


def check_history(schema: pa.Schema, view: HistoryInput) -> None:
    """Refuses a history that lacks a column, or holds one of another type."""
    what = f"history {view.name}"
    for key in view.keys:
        _check_type(schema, key.history, ValueType(key.scalar), what)
    for name in view.times():
        _check_time(schema, name, what)
    for name, kind in view.order().values():
        if _field(schema, name, what).type != kind:
            raise refused("WRONG_TYPE", what, f"column {name!r} is {schema.field(name).type}; cast it to {kind}")
    for name, wanted in view.value_columns().items():
        _check_type(schema, name, wanted, what)


def _field(schema: pa.Schema, name: str, what: str) -> pa.Field:
    if schema.get_all_field_indices(name) == []:
        raise refused("MISSING_COLUMN", what, f"has no column {name!r}; it has {', '.join(schema.names[:50])}")
    return schema.field(name)


def _check_time(schema: pa.Schema, name: str, what: str) -> None:
    kind = _field(schema, name, what).type
    if not pa.types.is_timestamp(kind):
        raise refused("WRONG_TYPE", what, f"column {name!r} is {kind}; times are timestamps in UTC")
    if kind.tz is None:
        raise refused("NAIVE_TIME", what, f"column {name!r} has no time zone; say which, and convert it to UTC")
    if kind.tz not in _UTC:
        raise refused("MIXED_TIME_ZONES", what, f"column {name!r} is in {kind.tz}; convert it to UTC")


def _check_type(schema: pa.Schema, name: str, wanted: ValueType, what: str) -> None:
    kind = _field(schema, name, what).type
    if plain(kind) != plain(wanted.arrow):
        raise refused("WRONG_TYPE", what, f"column {name!r} is {kind}; {wanted} is {wanted.arrow}, so cast it first")


def plain(kind: pa.DataType) -> pa.DataType:
    """The type without what does not change its values: dictionaries, wide offsets, names of list items."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz in _UTC:
        return pa.timestamp("us", "UTC")
    return kind


def times_of(batch: pa.RecordBatch, name: str, what: str) -> NDArray[np.int64]:
    """Microseconds of a time column."""
    column = batch.column(name)
    if column.null_count:
        raise refused("NULL_TIME", what, f"column {name!r} holds a null; every row has its time")
    if column.type.unit != "us":
        try:
            column = column.cast(pa.timestamp("us", column.type.tz))
        except pa.ArrowInvalid as error:
            message = f"column {name!r} holds a time that is no whole microsecond of 64 bits; round it first"
            raise refused("TIME_TOO_FINE", what, message) from error
    return numbers_of(column)


def keys_of(batch: pa.RecordBatch, names: Sequence[str], keys: Sequence[KeyColumn], what: str) -> KeyBatch:
    """Canonical keys of the rows of a batch."""
    columns = [cast(batch.column(name), ValueType(key.scalar)) for name, key in zip(names, keys, strict=True)]
    for name, column in zip(names, columns, strict=True):
        if column.null_count:
            raise refused("NULL_KEY", what, f"key column {name!r} holds a null; leave such rows out")
    try:
        return encode_keys([int(key.scalar) for key in keys], [arrow_column(column) for column in columns])
    except ValueError as error:
        raise refused("BAD_KEY", what, f"a key of {', '.join(names)} is refused: {error}") from error


def match_keys(
    batch: pa.RecordBatch, names: Sequence[str], keys: Sequence[KeyColumn], what: str
) -> KeyBatch | NDArray[np.int64]:
    """Keys of the rows of a batch as the as-of kernel takes them: those of one integer as they are."""
    column = batch.column(names[0])
    if len(names) == 1 and column.type == pa.int64() and column.null_count == 0:
        return numbers_of(column)
    return keys_of(batch, names, keys, what)


def cast(column: pa.Array, wanted: ValueType) -> pa.Array:
    """The column in the very type of the table; its values stay."""
    return column if column.type == wanted.arrow else column.cast(wanted.arrow)


def order_of(batch: pa.RecordBatch, view: HistoryInput) -> dict[str, Any]:  # arrays of several types
    """What else decides between rows, as the kernel takes it."""
    what = f"history {view.name}"
    times = {"write_us": view.write_time, "available_us": view.available_time}
    out: dict[str, Any] = {parameter: times_of(batch, name, what) for parameter, name in times.items() if name}
    for parameter, (name, _) in view.order().items():
        column = batch.column(name)
        if parameter == "tombstones":
            column = pc.fill_null(column, False).cast(pa.uint8())
        elif column.null_count:
            raise refused("NULL_ORDER", what, f"column {name!r} holds a null; every row has its source order")
        out[parameter] = numbers_of(column)
    return out
