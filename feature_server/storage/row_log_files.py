"""Segment files of a row log: their names and heads, and whole records read from them."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from core_ext.hashing import crc32c
from core_ext.row_log import RECORD_BYTES_MAX, RECORD_HEAD_BYTES, RECORD_MAGIC, CorruptRecordError, Record, read_record
from feature_server.domain.row_log import LogPosition
from headrace.errors import Unavailable

SEGMENT_SUFFIX: Final = ".rows"
BLOCK_BYTES: Final = 1 << 20  # read at once
BEFORE_ALL: Final = LogPosition(-1, -1)

_MAGIC: Final = b"HRLS"
_LAYOUT: Final = 1
_BODY: Final = struct.Struct("<4sIq")  # magic, layout, segment number
_CHECKSUM: Final = struct.Struct("<I")
SEGMENT_HEAD_BYTES: Final = _BODY.size + _CHECKSUM.size


class Segment(NamedTuple):
    """One file: its number, where its first record begins in the log, and its bytes."""

    number: int
    first: LogPosition
    byte_count: int


def segment_path(folder: Path, number: int) -> Path:
    """File of a segment."""
    return folder / f"{number:016}{SEGMENT_SUFFIX}"


def segment_head(number: int) -> bytes:
    """First bytes of a segment."""
    body = _BODY.pack(_MAGIC, _LAYOUT, number)
    return body + _CHECKSUM.pack(crc32c(body))


def read_segments(folder: Path) -> list[Segment]:
    """Segments in order; raises Unavailable where one is missing, or one that others follow does not begin whole.

    Where the last one begins is told by its first whole record, BEFORE_ALL where it has none.
    """
    numbers = sorted(int(path.stem) for path in folder.glob(f"*{SEGMENT_SUFFIX}") if path.stem.isdecimal())
    found: list[Segment] = []
    for number in numbers:
        if found and number != found[-1].number + 1:
            raise damaged(folder, f"segment {found[-1].number + 1} is missing")
        path = segment_path(folder, number)
        first = _first_position(path, number)
        if first is None and number != numbers[-1]:
            raise damaged(folder, f"{path.name} does not begin with a whole record and others follow")
        found.append(Segment(number, first or BEFORE_ALL, path.stat().st_size))
    return found


def _first_position(path: Path, number: int) -> LogPosition | None:
    with path.open("rb") as file:
        if file.read(SEGMENT_HEAD_BYTES) != segment_head(number):
            return None
        record = next(iter(records_of(file.fileno(), SEGMENT_HEAD_BYTES, path.stat().st_size)), None)
    return None if record is None else LogPosition(record[0].epoch, record[0].first_offset)


def records_of(descriptor: int, start: int, end: int) -> Iterator[tuple[Record, bytes]]:
    """Whole records of a file between two places, each with its bytes; ends before a broken or cut one.

    `start` of a record is its place in the file.
    """
    at = block_at = start
    block = b""
    while at < end:
        try:
            record = read_record(block, at - block_at)
        except CorruptRecordError:
            return
        if record is not None:
            yield record._replace(start=at), block[record.start : record.start + record.size]
            at += record.size
            continue
        held = len(block) - (at - block_at)
        wanted = max(BLOCK_BYTES, _size_at(block, at - block_at))
        block, block_at = _read(descriptor, at, min(wanted, end - at)), at
        if len(block) <= held:
            return


def _size_at(block: bytes, at: int) -> int:
    if len(block) - at < RECORD_HEAD_BYTES:
        return 0
    return min(int.from_bytes(block[at + 4 : at + 8], "little"), RECORD_BYTES_MAX)


def _read(descriptor: int, at: int, byte_count: int) -> bytes:
    parts = []
    while byte_count > 0:
        part = os.pread(descriptor, byte_count, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
        byte_count -= len(part)
    return b"".join(parts)


def records_after(descriptor: int, broken: int, end: int) -> Iterator[Record]:
    """Whole records behind a broken one, wherever they begin."""
    data = _read(descriptor, broken, end - broken)
    at = data.find(RECORD_MAGIC, 1)
    while at >= 0:
        try:
            record = read_record(data, at)
        except CorruptRecordError:
            record = None
        if record is not None:
            yield record
        at = data.find(RECORD_MAGIC, at + 1)


def damaged(folder: Path, what: str) -> Unavailable:
    """The error of a row log that cannot be trusted."""
    return Unavailable(
        f"row log {folder.name} is damaged: {what}; restore it, or move the folder away and restart: rows in it that "
        "were not drained are then missing from the offline store",
        reason="ROW_LOG_CORRUPT",
        metadata={"folder": folder.name},
    )
