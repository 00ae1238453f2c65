"""Columns as Spark carries them: the types that both sides of a worker's Arrow stream agree on, and the way back."""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from batch.historical.inputs import HistoryInput
from headrace.types import Scalar, Shape, ValueType

# Spark has no unsigned and no small types of its own worth the name: what fits into its integers goes there.
_SPARK: Final = {
    Scalar.BOOL: "boolean",
    Scalar.I32: "int",
    Scalar.I64: "bigint",
    Scalar.F32: "float",
    Scalar.F64: "double",
    Scalar.STRING: "string",
    Scalar.BYTES: "binary",
    Scalar.TIMESTAMP_US: "timestamp",
    Scalar.DATE: "date",
}
_ORDER_SPARK: Final = {pa.uint32(): "bigint", pa.int32(): "int", pa.int64(): "bigint", pa.bool_(): "boolean"}
TIME: Final = ValueType(Scalar.TIMESTAMP_US)
STATUS_SPARK: Final = "smallint"


def spark_type(kind: ValueType) -> str:
    """A value's type in the words of Spark's SQL; a fixed list becomes an array, whose size the way back checks."""
    element = _SPARK[kind.scalar]
    return element if kind.shape is Shape.SINGLE else f"array<{element}>"


def carried_arrow(kind: ValueType) -> pa.DataType:
    """The Arrow type in which a value crosses to Spark."""
    element = ValueType(kind.scalar).arrow
    return element if kind.shape is Shape.SINGLE else pa.list_(element)


def ddl(columns: Sequence[tuple[str, str]]) -> str:
    """A schema in Spark's own words; names are quoted."""
    return ", ".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in columns)


def history_types(view: HistoryInput) -> dict[str, tuple[pa.DataType, pa.DataType, str]]:
    """Column of a history -> its type for the kernel, on the way through Spark, and in Spark."""
    found: dict[str, tuple[pa.DataType, pa.DataType, str]] = {}
    for name, kind in view.value_columns().items():
        found[name] = (kind.arrow, carried_arrow(kind), spark_type(kind))
    for name, stored in view.order().values():
        carried = pa.int64() if stored == pa.uint32() else stored
        found[name] = (stored, carried, _ORDER_SPARK[stored])
    for name in view.times():
        found[name] = (TIME.arrow, TIME.arrow, spark_type(TIME))
    for key in view.keys:
        kind = ValueType(key.scalar)
        found[key.history] = (kind.arrow, kind.arrow, spark_type(kind))
    return found


def back(values: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> pa.Array:
    """An array that Spark carried, in its own type again; lists keep their buffers."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        array = pa.array([], array.type)
    if array.type == wanted:
        return array
    if pa.types.is_fixed_size_list(wanted):
        return array.cast(pa.list_(wanted.value_type, wanted.list_size)).cast(wanted)
    if pa.types.is_list(wanted):
        items = array.values.cast(wanted.value_type)
        validity, offsets = array.buffers()[:2]
        buffers = [validity, offsets]
        return pa.Array.from_buffers(wanted, len(array), buffers, array.null_count, array.offset, children=[items])
    return array.cast(wanted)
