"""Twin of core_ext.asof: every spine row looks at the whole history."""

from collections.abc import Sequence
from typing import NamedTuple

from core_ext.twin import rules


class HistoryRow(NamedTuple):
    """One row of a history, its order fields in the total order."""

    key: bytes
    event_us: int
    write_us: int
    source_id: int = 0
    partition: int = 0
    offset: int = 0
    available_us: int = 0
    tombstone: bool = False


def join(
    spine: Sequence[tuple[bytes, int]], history: Sequence[HistoryRow], cutoff_us: int, ttl_us: int, stale_us: int
) -> list[tuple[int, int]]:
    """History index (or -1) and row status of every spine row (key, query time)."""
    return [_look(one, history, cutoff_us, ttl_us, stale_us) for one in spine]


def seen_us(row: HistoryRow) -> int:
    """From when on a row is seen; an erasure counts at once, although it stands behind rows of the near future."""
    return row.available_us if row.tombstone else max(row.event_us, row.available_us)


def newest(spine: Sequence[tuple[bytes, int]], history: Sequence[HistoryRow], cutoff_us: int) -> list[int]:
    """Index of the greatest row that every spine row sees, tombstones included, or -1."""
    return [_newest(one, history, cutoff_us) for one in spine]


def _newest(wanted: tuple[bytes, int], history: Sequence[HistoryRow], cutoff_us: int) -> int:
    key, time_us = wanted
    seen = [
        (row[1:6], -index)
        for index, row in enumerate(history)
        if row.key == key and seen_us(row) <= time_us and row.write_us <= cutoff_us
    ]
    return -max(seen)[1] if seen else -1


def _look(
    wanted: tuple[bytes, int], history: Sequence[HistoryRow], cutoff_us: int, ttl_us: int, stale_us: int
) -> tuple[int, int]:
    index, time_us = _newest(wanted, history, cutoff_us), wanted[1]
    if index < 0:
        return -1, rules.row_status(None, time_us, ttl_us, stale_us)
    row = history[index]
    status = rules.status_at(row.event_us, row.tombstone, time_us, ttl_us, stale_us)
    return (-1 if row.tombstone else index), status


def settle(
    row_statuses: Sequence[int], nulls: Sequence[bool], fallback: int, has_default: bool, include_expired: bool
) -> list[tuple[int, int]]:
    """Status and slot content of every value."""
    return [
        rules.value_status(status, is_null, fallback, has_default, include_expired)
        for status, is_null in zip(row_statuses, nulls, strict=True)
    ]


def numbered(keys: Sequence[bytes]) -> dict[bytes, int]:
    """Entities by key, numbered by their first row."""
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}
