"""One cycle of the drain: what shards committed goes into the tables of its views, then is acknowledged.

The position in each table's properties, changed by the commit that adds the rows, is the only truth about what is
taken. An acknowledgement only says from where to read again: a cycle killed anywhere is repeated from there, and every
table leaves out what it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa

from batch.drain.logged_rows import tables_of
from batch.drain.views import Views
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.maintenance import expire
from batch.offline.positions import LogRange
from batch.offline.runs import Runs
from headrace.client.shards import LogPosition, ShardClient, ShardInfo
from headrace.names import VersionRef

RUN_KIND: Final = "drain"
CYCLE_BYTES: Final = 64 << 20  # of records that one cycle takes; their tables take some times more
CHUNK_BYTES: Final = 4 << 20
APPENDS_PER_EXPIRY: Final = 256  # each append is a snapshot, and makes the metadata longer
SNAPSHOT_AGE_MAX_US: Final = 24 * 3_600 * 1_000_000


class Backlog(NamedTuple):
    """What waits: shards with undrained rows, and how full the fullest of their logs is."""

    shards: Sequence[ShardInfo]
    stored_bytes: int
    fullest_share: float


@dataclass(slots=True)
class Drained:
    """What a cycle did; `is_all` where nothing was left of what the cycle had seen."""

    row_count: int = 0
    skipped_count: int = 0
    is_all: bool = True


@dataclass(slots=True)
class _Part:
    """What a cycle took of one shard."""

    range: LogRange
    records: bytes
    is_all: bool


@dataclass(slots=True)
class _Rows:
    """Rows of one view, and the ranges that they came from."""

    tables: list[pa.Table] = field(default_factory=list)
    ranges: list[LogRange] = field(default_factory=list)


class Drain:
    """Owns nothing that outlives it."""

    def __init__(
        self, shards: ShardClient, views: Views, catalogue: Catalogue, runs: Runs, clock_us: Callable[[], int]
    ) -> None:
        self._shards = shards
        self._views = views
        self._catalogue = catalogue
        self._runs = runs
        self._clock_us = clock_us
        self._append_counts: dict[tuple[str, ...], int] = {}

    def backlog(self) -> Backlog:
        """What waits now."""
        _, shards = self._shards.list()
        states = [shard.row_log for shard in shards if shard.row_log is not None]
        waiting = [shard for shard in shards if shard.row_log and shard.row_log.acknowledged < shard.row_log.end]
        fullest = max((state.stored_bytes / max(state.max_bytes, 1) for state in states), default=0.0)
        return Backlog(waiting, sum(state.stored_bytes for state in states), fullest)

    def cycle(self, cycle_bytes: int = CYCLE_BYTES) -> Drained:
        """Takes up to `cycle_bytes` of what waits; writes a run where there is anything."""
        store_id, shards = self._shards.list()
        waiting = [shard for shard in shards if shard.row_log and shard.row_log.acknowledged < shard.row_log.end]
        parts = []
        for shard in waiting:
            part = self._read(store_id, shard, max(1, cycle_bytes // len(waiting)))
            if part is not None:
                parts.append(part)
            elif shard.row_log is not None:  # its position moved without a record, as that of a new shard does
                self._shards.acknowledge_row_log(shard.shard, shard.row_log.end)
        if not parts:
            return Drained()
        with self._runs.run(RUN_KIND, {f"log/{part.range.partition}": part.range.text for part in parts}) as run:
            done = Drained(is_all=all(part.is_all for part in parts))
            for columns, rows in self._by_view(parts):
                appended = self._catalogue.view_table(columns).append(pa.concat_tables(rows.tables), rows.ranges)
                done.row_count += appended.row_count
                done.skipped_count += appended.skipped_count
                if appended.snapshot_id is not None:
                    run.snapshots[str(columns.ref)] = appended.snapshot_id
                self._expire(columns)
        for part in parts:
            self._shards.acknowledge_row_log(
                part.range.partition, LogPosition(part.range.epoch, part.range.next_offset)
            )
        return done

    def _read(self, store_id: str, shard: ShardInfo, byte_count: int) -> _Part | None:
        assert shard.row_log is not None, "only shards with a log wait"
        taken = []
        held_bytes = 0
        first = last = None
        is_all = True
        chunks = self._shards.read_row_log(shard.shard, shard.row_log.acknowledged, min(byte_count, CHUNK_BYTES))
        for chunk in chunks:
            # A range is of one epoch; the next one is taken by the next cycle.
            if first is not None and (chunk.epoch != first.epoch or held_bytes + len(chunk.records) > byte_count):
                is_all = False
                chunks.close()  # type: ignore[attr-defined]  # a generator
                break
            first, last = first or chunk, chunk
            held_bytes += len(chunk.records)
            taken.append(chunk.records)
        if first is None or last is None:
            return None
        part = LogRange(store_id, shard.shard, first.epoch, first.first_offset, last.next_offset)
        return _Part(part, b"".join(taken), is_all)

    def _by_view(self, parts: Sequence[_Part]) -> list[tuple[ViewColumns, _Rows]]:
        found: dict[VersionRef, tuple[ViewColumns, _Rows]] = {}
        for part in parts:
            for view, table in tables_of(part.records, self._views.view):
                _, rows = found.setdefault(view.columns.ref, (view.columns, _Rows()))
                rows.tables.append(table)
                rows.ranges.append(part.range)
        return list(found.values())

    def _expire(self, columns: ViewColumns) -> None:
        count = self._append_counts.get(columns.identifier, 0) + 1
        if count >= APPENDS_PER_EXPIRY:
            expire(lambda: self._catalogue.load(columns.identifier), self._clock_us() - SNAPSHOT_AGE_MAX_US)
            count = 0
        self._append_counts[columns.identifier] = count
