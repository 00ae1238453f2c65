"""Writes on their way into a shard: what one is, and what is left of a group of them when it is committed."""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from core_ext.computed import MergedRow
from core_ext.hashing import xxh3_64
from core_ext.row_codec import CorruptRowError, check_row
from core_ext.rules import order_compare
from core_ext.windows import CorruptMapError
from feature_server.domain.row_log import LogEntry
from headrace.errors import DataLoss, HeadraceError, ResourceExhausted

Stamp = Callable[[int, int], list[bytes]]
"""Finished rows from a write time in us and the offset of the first."""


class Deltas(NamedTuple):
    """What makes rows deltas: how one is merged with what is stored, and the events behind them.

    Every event takes an offset; `logged` gives their keys and rows from a write time in us and the first offset.
    """

    merge: Callable[[bytes | None, bytes, int], MergedRow]
    offset_count: int
    logged: Callable[[int, int], tuple[Sequence[bytes], Sequence[bytes]]]


class Durability(IntEnum):
    """When a write is acknowledged; the numbers are those of the contracts."""

    MEMORY = 1
    LOG = 2
    FSYNC = 3


class Entry:
    """One write in the queue of a shard."""

    __slots__ = (
        "byte_count",
        "deltas",
        "durability",
        "error",
        "is_done",
        "is_logged",
        "keys",
        "next_offset",
        "records",
        "rows",
        "stale_count",
        "time_us",
    )

    def __init__(  # noqa: PLR0917 - every one is a different thing that a write has
        self,
        keys: Sequence[bytes],
        rows: Sequence[bytes],
        durability: Durability,
        next_offset: int,
        time_us: int,
        deltas: Deltas | None,
    ) -> None:
        self.is_logged = True
        self.records: Mapping[bytes, bytes] = {}
        self.keys = keys
        self.rows = rows
        self.deltas = deltas
        self.durability = durability
        self.next_offset = next_offset
        self.time_us = time_us
        self.byte_count = sum(map(len, rows))
        self.stale_count = 0
        self.error: HeadraceError | None = None
        self.is_done = False


def logged(entry: Entry) -> LogEntry:
    """What the row log keeps of a write."""
    if not entry.is_logged:
        return LogEntry(entry.next_offset)
    if entry.deltas is None:
        return LogEntry(entry.next_offset, entry.keys, entry.rows)
    events = entry.deltas.logged(entry.time_us, entry.next_offset - entry.deltas.offset_count)
    return LogEntry(entry.next_offset, *events)


def newest_rows(
    entries: Sequence[Entry], stored: Sequence[bytes | None], content_hash: int
) -> tuple[dict[bytes, bytes], int]:
    """Rows that replace what is stored, and the content hash without the rows that they replace.

    Rows are taken in the order of their offsets, so that only a row that comes after a greater one counts as older.
    """
    newest: dict[bytes, bytes] = {}
    index = 0
    for entry in entries:
        replaced = stored[index : index + len(entry.keys)]
        index += len(entry.keys)
        try:
            found = _replacing(entry, replaced, newest)
        except ResourceExhausted as error:
            entry.error = error  # of this write alone
            entry.is_logged = False
            continue
        for key, old in dict(zip(entry.keys, replaced, strict=True)).items():
            if old is not None and key in found and key not in newest:
                content_hash -= xxh3_64(key + old)
        newest.update(found)
    return newest, content_hash


def _replacing(entry: Entry, stored: Sequence[bytes | None], newest: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for key, row, old in zip(entry.keys, entry.rows, stored, strict=True):
        held = found.get(key) or newest.get(key, old)
        if entry.deltas is not None:
            merged = _merged(entry.deltas, held, row, entry.next_offset - 1)
            entry.stale_count += merged.is_stale
            if not merged.is_stale:
                found[key] = merged.row
        elif held is None or order_compare(row, held) > 0:
            found[key] = row
        else:
            entry.stale_count += 1
    return found


def _merged(deltas: Deltas, held: bytes | None, row: bytes, offset: int) -> MergedRow:
    try:
        return deltas.merge(held, row, offset)
    except (CorruptRowError, CorruptMapError) as error:
        raise DataLoss(f"a stored row is damaged: {error}", reason="STORED_ROW_CORRUPT") from error
    except ValueError as error:
        raise ResourceExhausted(
            f"an entity's windows have outgrown its row: {error}; keep fewer or shorter windows in one view",
            reason="ROW_TOO_LARGE",
            field="feature_view",
        ) from error


def checked(row: bytes) -> bytes:
    """A stored row after its checks; raises DataLoss for a damaged one."""
    try:
        check_row(row)
    except CorruptRowError as error:
        raise DataLoss(f"a stored row is damaged: {error}", reason="STORED_ROW_CORRUPT") from error
    return row
