"""Tells a torn end of a write-ahead log from damage in its middle, which RocksDB's recovery cuts off in silence.

A crash leaves a log whose last record is cut; nothing whole follows it. Where whole records follow a broken one, bytes
that were once stored have changed, and opening the log would drop acknowledged writes.

A log is blocks of 32 KiB of records: u32 masked CRC-32C of all that follows the length, u16 length, u8 type, in
recycled logs u32 log number, then bytes. A record never crosses a block; a batch that does is several records. A batch
starts with its u64 sequence number and u32 count. All are little-endian.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core_ext.hashing import crc32c
from headrace.errors import DataLoss

BLOCK_BYTES: Final = 32_768

_HEADER: Final = struct.Struct("<IHB")
_BATCH: Final = struct.Struct("<QI")
_LOG_NUMBER_BYTES: Final = 4
_WHOLE: Final = frozenset({1, 5})
_FIRST: Final = frozenset({2, 6})
_LAST: Final = frozenset({4, 8})
_MIDDLE: Final = frozenset({3, 7})
_RECYCLED: Final = frozenset({5, 6, 7, 8})
_TYPES: Final = _WHOLE | _FIRST | _MIDDLE | _LAST
_MASK_DELTA: Final = 0xA282EAD8
_U32: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LogEnd:
    """How far a log is whole, and the sequence numbers of its first batch and after its last one."""

    whole_bytes: int
    first_sequence: int | None
    next_sequence: int | None


def check_logs(folder: Path) -> LogEnd | None:
    """Sequence numbers that the logs of a RocksDB folder hold, None where they hold no batch.

    Raises DataLoss where a log is broken and what follows was once stored after it, or where a log is missing between
    two others.
    """
    held: LogEnd | None = None
    held_path = folder
    for path in sorted(path for path in folder.glob("*.log") if path.stem.isdecimal()):
        data = path.read_bytes()
        end = read_log(data)
        if end.whole_bytes < len(data) and has_record_after(data, end.whole_bytes):
            raise damaged(path, end.whole_bytes)
        if end.first_sequence is None:
            continue
        # A log that a crash has torn may still lie there: the next one goes on where it ends.
        if held is not None and held.next_sequence != end.first_sequence:
            raise damaged(held_path, held.whole_bytes)
        first = end.first_sequence if held is None else held.first_sequence
        held, held_path = LogEnd(end.whole_bytes, first, end.next_sequence), path
    return held


def check_manifest(path: Path) -> None:
    """Raises DataLoss where a manifest, which has the form of a log, is broken and whole records follow."""
    data = path.read_bytes()
    end = read_log(data).whole_bytes
    if end < len(data) and has_record_after(data, end):
        raise damaged(path, end)


def read_log(data: bytes) -> LogEnd:
    """Reads a log up to its end or its first broken record."""
    at = 0
    first = following = None
    begun = None
    while at < len(data):
        room = BLOCK_BYTES - at % BLOCK_BYTES
        if room < _HEADER.size:
            at = min(at + room, len(data))
            continue
        size = _record_bytes(data, at, room)
        if size == 0:
            break
        kind = data[at + _HEADER.size - 1]
        if kind in _WHOLE or kind in _FIRST:
            begun = _sequences(data, at, size, kind)
        if begun is not None and (kind in _WHOLE or kind in _LAST):
            first = begun[0] if first is None else first
            following = begun[1]
        at += size
    return LogEnd(at, first, following)


def _sequences(data: bytes, at: int, size: int, kind: int) -> tuple[int, int] | None:
    """Sequence number of a batch and of the one after it."""
    start = at + _HEADER.size + (_LOG_NUMBER_BYTES if kind in _RECYCLED else 0)
    if start + _BATCH.size > at + size:
        return None
    sequence, count = _BATCH.unpack_from(data, start)
    return sequence, sequence + count


def has_record_after(data: bytes, broken: int) -> bool:
    """Whether whole records follow a broken one."""
    # A broken length hides where the next record of its block starts, so every place of the block is tried.
    block_end = (broken // BLOCK_BYTES + 1) * BLOCK_BYTES
    starts: Iterator[int] = iter(range(broken + 1, min(block_end, len(data))))
    if any(_record_bytes(data, at, block_end - at) for at in starts):
        return True
    return any(_record_bytes(data, at, BLOCK_BYTES) for at in range(block_end, len(data), BLOCK_BYTES))


def _record_bytes(data: bytes, at: int, room: int) -> int:
    """Size of the whole record at a place, 0 where there is none."""
    if room < _HEADER.size or len(data) - at < _HEADER.size:
        return 0
    checksum, length, kind = _HEADER.unpack_from(data, at)
    if kind not in _TYPES:
        return 0
    size = _HEADER.size + length + (_LOG_NUMBER_BYTES if kind in _RECYCLED else 0)
    if size > room or size > len(data) - at:
        return 0
    return size if _masked(crc32c(data[at + _HEADER.size - 1 : at + size])) == checksum else 0


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & _U32


def damaged(path: Path, at: int) -> DataLoss:
    """The error of a file that is broken at a byte and not at its end."""
    return DataLoss(
        f"{path.name} is damaged at byte {at} and what was stored after it follows; opening it would drop that: "
        "restore the shard",
        reason="LOG_CORRUPT",
        metadata={"file": path.name, "byte": str(at)},
    )
