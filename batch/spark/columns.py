"""Types of columns as the kernels take them, and columns of files in those types."""

from typing import Final

import pyarrow as pa

from batch.historical.inputs import HistoryInput
from headrace.types import Scalar, ValueType

TIME: Final = ValueType(Scalar.TIMESTAMP_US).arrow
VARIABLE_BYTES: Final = 32  # what a text of a key is taken to need

Types = tuple[tuple[str, pa.DataType], ...]


def match_types(view: HistoryInput) -> Types:
    """Columns of a history that decide which rows match, each once."""
    found = {key.history: ValueType(key.scalar).arrow for key in view.keys}
    found |= dict.fromkeys(view.times(), TIME)
    found |= dict(view.order().values())
    return tuple(found.items())


def history_types(view: HistoryInput) -> Types:
    """The same, and the columns that values come from."""
    values = {name: kind.arrow for name, kind in view.value_columns().items()}
    return tuple((values | dict(match_types(view))).items())


def row_bytes(types: Types) -> int:
    """About what a row takes."""
    return sum(_width(kind) for _, kind in types)


def converted(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """An array in the type of the kernels: Iceberg has no lists of fixed size and no unsigned integers."""
    if column.type == wanted:
        return column
    if pa.types.is_fixed_size_list(wanted):
        return column.cast(pa.list_(wanted.value_type, wanted.list_size)).cast(wanted)
    return column.cast(wanted)


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return VARIABLE_BYTES
