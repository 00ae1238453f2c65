"""Columns of the cores as Arrow arrays, without a copy."""

from typing import Any

import pyarrow as pa

from core_ext.arrow import ArrowColumn


def array_of(column: ArrowColumn, kind: pa.DataType) -> pa.Array:
    """The column without a copy."""
    if column.child is None:
        parts = [column.validity, *([] if column.offsets is None else [column.offsets]), column.values]
        return pa.Array.from_buffers(kind, column.length, [_buffer(part) for part in parts], offset=column.offset)
    parts = [column.validity, *([] if column.offsets is None else [column.offsets])]
    child = array_of(column.child, kind.value_type)
    buffers = [_buffer(part) for part in parts]
    return pa.Array.from_buffers(kind, column.length, buffers, offset=column.offset, children=[child])


def _buffer(part: Any) -> pa.Buffer | None:  # Any: what has a buffer
    return None if part is None else pa.py_buffer(part)
