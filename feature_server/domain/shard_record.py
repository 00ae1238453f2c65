"""The record that a shard keeps beside its rows, written in the same batch as them.

Layout, little-endian: u8 magic 0xD8, u8 layout 1, u16 flags (1 = closed cleanly), u32 length of all bytes, i64 epoch,
i64 first offset of the epoch, i64 next offset, u64 content hash, i64 highest registry id, i64 last write time in us,
u32 CRC-32C of the bytes before it.
"""

import struct
from dataclasses import dataclass
from typing import Final

from core_ext.hashing import crc32c
from headrace.errors import DataLoss

# Entity id 0 is reserved for records like this one, so that no row can have the key.
RECORD_KEY: Final = b"\0\0\0\0shard\0\0\0\0"
HASH_MASK: Final = (1 << 64) - 1  # of the content hash, a sum of the hashes of rows
FIRST_EPOCH: Final = 1

_MAGIC: Final = 0xD8
_LAYOUT: Final = 1
_CLEAN: Final = 1
_BODY: Final = struct.Struct("<BBHIqqqQqq")
_CHECKSUM: Final = struct.Struct("<I")
_LENGTH: Final = _BODY.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """Position and content of a shard. Offsets count rows from 0 and never start again."""

    epoch: int = FIRST_EPOCH
    epoch_offset: int = 0
    next_offset: int = 0
    content_hash: int = 0
    highest_id: int = 0
    write_time_us: int = 0
    is_clean: bool = True

    def encode(self) -> bytes:
        """Stored form."""
        body = _BODY.pack(
            _MAGIC,
            _LAYOUT,
            _CLEAN if self.is_clean else 0,
            _LENGTH,
            self.epoch,
            self.epoch_offset,
            self.next_offset,
            self.content_hash,
            self.highest_id,
            self.write_time_us,
        )
        return body + _CHECKSUM.pack(crc32c(body))


def decode_record(data: bytes) -> ShardRecord:
    """Record of stored bytes; raises DataLoss where they are none."""
    if len(data) != _LENGTH or _CHECKSUM.unpack(data[_BODY.size :])[0] != crc32c(data[: _BODY.size]):
        raise _corrupt("its length or checksum is wrong")
    magic, layout, flags, length, *numbers = _BODY.unpack(data[: _BODY.size])
    if (magic, layout, length) != (_MAGIC, _LAYOUT, _LENGTH):
        raise _corrupt(f"its layout {layout} is unknown; it was written by another version")
    epoch, epoch_offset, next_offset, content_hash, highest_id, write_time_us = numbers
    is_clean = bool(flags & _CLEAN)
    return ShardRecord(epoch, epoch_offset, next_offset, content_hash, highest_id, write_time_us, is_clean)


def _corrupt(problem: str) -> DataLoss:
    return DataLoss(f"the record of the shard is damaged: {problem}", reason="SHARD_RECORD_CORRUPT")
