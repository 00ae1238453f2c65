"""Rows from columns and back, layout 1 of native/hr_layout.h."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn as ArrowColumn

ROW_BYTES_MAX: int

class CorruptRowError(ValueError):
    """Bytes that are no row: the message says which check failed."""

class RowHeader(NamedTuple):
    """Header fields of a row; times in microseconds since the epoch."""

    flags: int
    schema_id: int
    source_id: int
    event_time_us: int
    write_time_us: int
    available_time_us: int
    offset: int
    partition: int

@final
class Schema:
    """Physical layout of the rows of one view version.

    columns: (element type, shape, list size) as in headrace.types. Raises ValueError for an unknown type or a
    fixed part over ROW_BYTES_MAX.
    """

    schema_id: int
    column_count: int
    fixed_bytes: int
    def __init__(self, schema_id: int, columns: Sequence[tuple[int, int, int]]) -> None: ...
    def offsets(self) -> list[int]:
        """Byte offset of each column's fixed slot from row start."""

@final
class RowBatch:
    """Encoded rows in one buffer, without order fields and checksum until stamped."""

    def __len__(self) -> int: ...
    def stamp(
        self,
        indexes: NDArray[np.int64],
        write_time_us: int,
        available_time_us: NDArray[np.int64] | None,
        source_id: int,
        partition: int,
        first_offset: int,
    ) -> list[bytes]:
        """Finished rows for `indexes`, with offsets counting up from first_offset.

        The available time is the write time unless given, one per batch row.
        """

    def stamp_each(
        self,
        indexes: NDArray[np.int64],
        write_times_us: NDArray[np.int64],
        available_times_us: NDArray[np.int64],
        source_ids: NDArray[np.uint32],
        partitions: NDArray[np.int32],
        offsets: NDArray[np.int64],
    ) -> list[bytes]:
        """Finished rows for `indexes`, each with the order that it was given before; one per batch row."""

def encode_rows(schema: Schema, columns: Sequence[ArrowColumn], event_times_us: NDArray[np.int64]) -> RowBatch:
    """Rows of `len(event_times_us)` entities; columns in schema order. GIL released.

    Raises ValueError naming the column when a buffer is too short, an offset runs backwards or a list has the
    wrong size or a null element, or when a row would exceed ROW_BYTES_MAX.
    """

def encode_tombstone(
    schema_id: int, event_time_us: int, write_time_us: int, source_id: int, partition: int, offset: int
) -> bytes:
    """Row that says: erased."""

def check_row(row: bytes, schema: Schema | None = None) -> RowHeader:
    """Header after every check: magic, layout, length, checksum, flags and, with a schema, id and bounds of all values.

    Raises CorruptRowError.
    """

def decode_row(schema: Schema, row: bytes) -> tuple[RowHeader, list[Any]]:
    """Header and Python values (None for null); lists as lists, timestamps and dates as integers.

    A tombstone has no values. Raises CorruptRowError.
    """
