"""Records of a row log, layout of native/hr_row_log.h: written, scanned, and taken apart."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RECORD_HEAD_BYTES: int
RECORD_BYTES_MAX: int
RECORD_MAGIC: bytes

class CorruptRecordError(ValueError):
    """Bytes that are no whole record: the message says which check failed."""

class Record(NamedTuple):
    """Place of one whole record, and what it covers."""

    start: int
    size: int
    epoch: int
    first_offset: int
    next_offset: int

class LoggedRows(NamedTuple):
    """Rows of a chunk by their places in it, in the order of the log. A storage key ends where its row starts."""

    view_ids: NDArray[np.uint32]
    key_starts: NDArray[np.int64]
    row_starts: NDArray[np.int64]
    row_ends: NDArray[np.int64]

def record_bytes(keys: list[bytes], rows: list[bytes]) -> int:
    """Size of the record that holds these rows."""

def encode_record(epoch: int, first_offset: int, next_offset: int, keys: list[bytes], rows: list[bytes]) -> bytes:
    """One record. Raises ValueError for a key or a record that no record can hold."""

def read_record(data: bytes | memoryview, at: int = 0) -> Record | None:
    """The whole record at a place, None where the bytes end before it does. Raises CorruptRecordError."""

def split_records(data: bytes | memoryview) -> LoggedRows:
    """Rows of a chunk of whole records. Raises CorruptRecordError."""
