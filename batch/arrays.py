"""Columns as one Arrow array each."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


# numpy.asarray(array) and pyarrow.array(numbers) load pandas where it is installed: a quarter of a second of a process.


def numbers_of(array: pa.Array) -> NDArray[Any]:  # Any: of the type of the array
    """Values of an array of numbers or times without nulls, without a copy."""
    kind = (
        np.dtype(f"i{array.type.bit_width // 8}") if pa.types.is_temporal(array.type) else array.type.to_pandas_dtype()
    )
    if len(array) == 0:
        return np.empty(0, kind)
    return np.frombuffer(array.buffers()[1], kind, len(array), array.offset * np.dtype(kind).itemsize)


def arrow_numbers(values: NDArray[Any], kind: pa.DataType) -> pa.Array:  # Any: of the type of the array
    """Numbers as an array, without a copy."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)], 0)
