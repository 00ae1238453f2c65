"""Stored rows and keys to Arrow buffers, column by column."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn
from core_ext.row_codec import Schema

class DecodedRows(NamedTuple):
    """Header fields and columns of rows. A tombstone has nulls in every column."""

    event_times_us: NDArray[np.int64]
    write_times_us: NDArray[np.int64]
    available_times_us: NDArray[np.int64]
    source_ids: NDArray[np.uint32]
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    tombstones: NDArray[np.bool_]
    columns: list[ArrowColumn]

def decode_rows(
    schema: Schema, data: bytes | memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> DecodedRows:
    """Rows of one schema by their places. GIL released. Raises CorruptRowError naming the row."""

def decode_keys(
    types: Sequence[int], data: bytes | memoryview, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[ArrowColumn]:
    """Entity keys inside storage keys by their places, a column per part. Raises ValueError naming the row."""
