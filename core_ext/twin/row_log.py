"""Twin of core_ext.row_log."""

import struct
from collections.abc import Sequence
from typing import Final

from core_ext.twin.hashing import crc32c

_MAGIC: Final = 0x31525248
_HEAD: Final = struct.Struct("<IIIIqqq")
_BODY_START: Final = 12  # of what the checksum covers
_ENTRY: Final = struct.Struct("<HHI")
_VIEW_ID_BYTES: Final = 4


def encode_record(
    epoch: int, first_offset: int, next_offset: int, keys: Sequence[bytes], rows: Sequence[bytes]
) -> bytes:
    """One record."""
    entries = b"".join(_ENTRY.pack(len(key), 0, len(row)) + key + row for key, row in zip(keys, rows, strict=True))
    size = _HEAD.size + len(entries)
    head = _HEAD.pack(_MAGIC, size, 0, len(keys), epoch, first_offset, next_offset)
    body = head[_BODY_START:] + entries
    return _HEAD.pack(_MAGIC, size, crc32c(body), len(keys), epoch, first_offset, next_offset) + entries


def split_records(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """View id, storage key and row of every row of whole records; raises ValueError for anything else."""
    found = []
    at = 0
    while at < len(data):
        magic, size, checksum, row_count, *_ = _HEAD.unpack_from(data, at)
        if magic != _MAGIC or at + size > len(data) or crc32c(data[at + _BODY_START : at + size]) != checksum:
            raise ValueError("no whole record")
        end, at = at + size, at + _HEAD.size
        for _ in range(row_count):
            key_bytes, _, row_bytes = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            key, row = data[at : at + key_bytes], data[at + key_bytes : at + key_bytes + row_bytes]
            at += key_bytes + row_bytes
            found.append((int.from_bytes(key[-_VIEW_ID_BYTES:], "big"), key, row))
        if at != end:
            raise ValueError("a row does not fit")
    return found
