"""Brings a computed view online: rows that a batch makes of all events take the place of rows that have seen less.

Sums cannot be told apart once they are one number, so a row is only replaced where every event in it has been seen by
the batch, too. What else was written meanwhile is read from the log of its shard, and the row is made again.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from batch.drain.logged_rows import tables_of
from batch.drain.views import Views
from batch.historical.spill import Spill
from batch.historical.tables import Rows
from batch.materialize.computed_rows import ROW, RowMaker
from batch.materialize.gained import files_of, gained_files
from batch.materialize.marks import Mark, bring_up, write_mark
from batch.materialize.materialize import RUN_KIND, Materialized, Progress, note_snapshot
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.positions import LogRange, position_of
from batch.offline.runs import Runs
from batch.offline.view_table import shaped
from core_ext.asof import Spine
from core_ext.hashing import SLOT_COUNT
from headrace.client import Durability
from headrace.client.shards import LogPosition, ShardClient, ShardInfo
from headrace.errors import Aborted, Unavailable

PART_ROWS: Final = 1 << 18  # events that are held at once: some hundred MB of states beside them
PARTS_MAX: Final = 256  # open files
GROUP_BYTES: Final = 1 << 20  # of each of them in memory
SEND_BYTES: Final = 4 << 20  # of rows in one request
SEND_ROWS: Final = 8_192
TRIES_MAX: Final = 30  # to make a row that is written all the time
DRAIN_WAIT_S: Final = 30.0  # for the first cycle of a drain in a new epoch
POLL_S: Final = 0.1
LOG_CHUNK_BYTES: Final = 4 << 20

Seen = Sequence[tuple[int, int, int]]
"""Shard, epoch and the offset up to which the table has all of its log."""


@dataclass(frozen=True, slots=True)
class Way:
    """The way from one snapshot to another. `wanted` are the entities on it, None for all."""

    columns: ViewColumns
    maker: RowMaker
    mark: Mark
    part_count: int
    wanted: Spine | None


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one part, the events that they are made of where these are at hand, and how many of all are done."""

    rows: pa.Table
    events: pa.Table | None
    done: int
    total: int


Make = Callable[[Table, Way, Seen, Path], Iterator[Part]]
"""The parts of a way from `mark.file_count` on, from the current snapshot of a table; the folder is for its files."""


class ComputedMaterialization:
    """Brings tables of computed views online in one store."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardClient,
        views: Views,
        runs: Runs,
        *,
        make: "Make | None" = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`make` gives the rows of the parts that are left, by default in this process."""
        self._catalogue = catalogue
        self._shards = shards
        self._views = views
        self._runs = runs
        self._make = make or local_parts
        self._sleep = sleep

    def run(self, maker: RowMaker, columns: ViewColumns, progress: Progress = lambda done, total: None) -> Materialized:
        """Every entity of which the table gained an event that this store did not log. Killed, it goes on after the
        last whole part; repeated, it changes nothing.
        """
        store_id, _ = self._shards.list()
        table = self._catalogue.load(columns.identifier)
        with self._runs.run(RUN_KIND, {"feature_view": str(columns.ref), "store": store_id}) as run:
            done = Materialized()
            bring_up(
                table, store_id, lambda mark: self._advance(table, (maker, columns, mark), store_id, done, progress)
            )
            note_snapshot(run, columns, table)
        return done

    def _advance(
        self, table: Table, asked: tuple[RowMaker, ViewColumns, Mark], store_id: str, done: Materialized, tell: Progress
    ) -> None:
        maker, columns, mark = asked
        epochs = {shard.shard: shard.epoch for shard in self._shards.list()[1]}
        files = gained_files(table, mark.base, mark.target, store_id, epochs)
        if files is None or files:
            self._go(self._way(table, columns, maker, mark, files), store_id, done, tell)
        write_mark(lambda: self._catalogue.load(columns.identifier), store_id, Mark(mark.target, mark.target))

    def _way(
        self, table: Table, columns: ViewColumns, maker: RowMaker, mark: Mark, files: Sequence[FileScanTask] | None
    ) -> Way:
        snapshot = table.snapshot_by_id(mark.target)
        assert snapshot is not None, "the caller has looked"
        count = int((snapshot.summary["total-records"] if snapshot.summary else None) or 0)
        parts = 1
        while parts < PARTS_MAX and parts * PART_ROWS < count:
            parts *= 2
        wanted = None
        if files is not None:
            names = [name for name, _ in maker.keys]
            keys = [batch.select(names) for batch in _batches(table, files, columns)]
            every = pa.Table.from_batches(keys).group_by(names, use_threads=False).aggregate([])
            wanted = _spine(maker, every)
        return Way(columns, maker, mark, parts, wanted)

    def _go(self, way: Way, store_id: str, done: Materialized, tell: Progress) -> None:
        with tempfile.TemporaryDirectory(prefix="headrace-materialize-") as folder:
            table, seen = self._look(way, store_id)
            for number, part in enumerate(self._make(table, way, seen, Path(folder)), start=way.mark.file_count):
                self._bring(way, store_id, part, seen, done)
                done.file_count += 1
                tell(part.done, part.total)
                # Every row is on stable storage, or was there before: each request was acknowledged at FSYNC.
                mark = Mark(way.mark.base, way.mark.target, number + 1)
                write_mark(lambda: self._catalogue.load(way.columns.identifier), store_id, mark)

    def _bring(self, way: Way, store_id: str, part: Part, seen: Seen, done: Materialized) -> None:
        """Brings rows online, and those of entities that are written meanwhile with what else was written."""
        events = part.events
        left = self._send(way.maker, part.rows, seen, done)
        tries = 0
        while left.num_rows:
            tries += 1
            if tries > TRIES_MAX:
                raise Aborted(
                    f"{left.num_rows} entities of {way.columns.ref} were written faster than their rows could be made; "
                    "run it again, it goes on from here",
                    reason="ENTITIES_BUSY",
                    field="feature_view",
                )
            if tries > 1:
                self._sleep(POLL_S)
            keys = _spine(way.maker, left)
            table, now = self._look(way, store_id)
            if now != seen or events is None:
                events, seen = _chosen(_batches(table, files_of(table, None), way.columns), way, keys), now
            tail, reached = self._tail(way, keys, seen)
            if reached is not None:
                every = pa.concat_tables([_chosen(events.to_batches(), way, keys), tail])
                rows = way.maker.rows(every, [offset for *_, offset in reached])
                left = self._send(way.maker, rows, reached, done)

    def _send(self, maker: RowMaker, rows: pa.Table, seen: Seen, done: Materialized) -> pa.Table:
        """Keys of the entities that have more than the batch has seen."""
        names = [name for name, _ in maker.keys]
        left = [rows.slice(0, 0).select(names)]
        for part in _requests(rows):
            answer = self._shards.put_rows(maker.ref, part, seen, Durability.FSYNC)
            done.row_count += answer.row_count - len(answer.deferred)
            done.stale_count += answer.stale_count
            left.append(part.select(names).take(pa.array(list(answer.deferred), pa.int64())))
        return pa.concat_tables(left)

    def _look(self, way: Way, store_id: str) -> tuple[Table, Seen]:
        """The table, and the offsets up to which it has all of each log and nothing beyond; -1: no log is kept.

        A position of the table is moved by the commit that adds rows; what was acknowledged before the table was loaded
        and lies behind it has no rows of this view.
        """
        deadline_s = time.monotonic() + DRAIN_WAIT_S
        while True:
            _, shards = self._shards.list()
            table = self._catalogue.load(way.columns.identifier)
            found = [_offset(shard, table, store_id) for shard in shards]
            if None not in found:
                return table, [
                    (one.shard, one.epoch, at) for one, at in zip(shards, found, strict=True) if at is not None
                ]
            if time.monotonic() > deadline_s:
                raise Unavailable(
                    "the row logs of this epoch were not drained yet: start the worker that fills the offline store",
                    reason="DRAIN_BEHIND",
                )
            self._sleep(POLL_S)

    def _tail(self, way: Way, keys: Spine, seen: Seen) -> tuple[pa.Table, Seen | None]:
        """Events that the table lacks, and the offsets reached; None where a log has dropped some of them meanwhile."""
        found, reached = [way.columns.arrow.empty_table()], []
        logged = {shard.shard for shard in self._shards.list()[1] if shard.row_log is not None}
        for shard, epoch, offset in seen:
            last = offset
            start = LogPosition(epoch, offset + 1)
            for chunk in self._shards.read_row_log(shard, start, LOG_CHUNK_BYTES) if shard in logged else ():
                if chunk.epoch != epoch:
                    return found[0], None
                last = chunk.next_offset - 1
                for view, table in tables_of(chunk.records, self._views.view):
                    if view.columns.ref == way.columns.ref:
                        found.append(_chosen(table.to_batches(), way, keys))
            reached.append((shard, epoch, last))
        held = {one.shard: one.row_log.acknowledged for one in self._shards.list()[1] if one.row_log is not None}
        is_whole = all(held[shard] <= (epoch, offset + 1) for shard, epoch, offset in seen if shard in logged)
        return pa.concat_tables(found), reached if is_whole else None


def _offset(shard: ShardInfo, table: Table, store_id: str) -> int | None:
    """The offset up to which a table has the log of a shard; None where the drain is in an older epoch."""
    log = shard.row_log
    if log is None:
        return -1
    taken = position_of(table.properties, LogRange(store_id, shard.shard, shard.epoch, 0, 0))
    known = [one.next_offset for one in (taken, log.acknowledged) if one.epoch == shard.epoch]
    if not known and log.acknowledged.next_offset > 0:
        return None
    return max(known, default=0) - 1


def _batches(table: Table, files: Sequence[FileScanTask], columns: ViewColumns) -> Iterator[pa.RecordBatch]:
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for file in files:
        for batch in scan.to_record_batches([file]):
            yield shaped(batch, columns.arrow)


def local_parts(table: Table, way: Way, seen: Seen, folder: Path) -> Iterator[Part]:
    """Rows that this process makes, one part of the events in memory at a time."""
    parts = _spread(table, way, folder)[way.mark.file_count :]
    total, done = sum(part.row_count for part in parts), 0
    for part in parts:
        events = _table_of(part, way.columns.arrow)
        done += events.num_rows
        yield Part(way.maker.rows(events, [offset for *_, offset in seen]), events, done, total)


def _spread(table: Table, way: Way, folder: Path) -> list[Rows]:
    """The wanted events of a table on disk, by the slot of their entity."""
    spills = [Spill(folder / f"{part}.parquet", way.columns.arrow, GROUP_BYTES) for part in range(way.part_count)]
    for batch in _batches(table, files_of(table, None), way.columns):
        slots, kept = _slots(batch, way.maker, way.wanted)
        parts = slots.astype(np.int64) * len(spills) // SLOT_COUNT
        for part in np.unique(parts[kept]).tolist():
            spills[part].write(batch.take(pa.array(kept[parts[kept] == part])))
    for spill in spills:
        spill.close()
    return [spill.rows() for spill in spills]


def _slots(
    batch: pa.RecordBatch, maker: RowMaker, wanted: Spine | None
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Slot of every row, and the rows that are wanted."""
    keys = maker.keys_of(batch)
    if wanted is None:
        return keys.slots, np.arange(len(keys))
    return keys.slots, np.flatnonzero(wanted.find(keys) >= 0)


def _chosen(batches: Iterable[pa.RecordBatch], way: Way, wanted: Spine) -> pa.Table:
    kept = [batch.take(pa.array(_slots(batch, way.maker, wanted)[1])) for batch in batches]
    return pa.Table.from_batches(kept, way.columns.arrow)


def _spine(maker: RowMaker, rows: pa.Table) -> Spine:
    return Spine(maker.keys_of(rows), np.zeros(rows.num_rows, np.int64))


def _table_of(rows: Rows, schema: pa.Schema) -> pa.Table:
    batches = [batch for chunk in rows.chunks for batch in rows.read(chunk, schema.names)]
    return pa.Table.from_batches([batch.select(schema.names) for batch in batches], schema)


def _requests(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in requests of a bounded size; one row is far below it."""
    lengths = np.array([len(row) for row in rows.column(ROW).to_pylist()], np.int64)
    ends = np.cumsum(lengths)
    start = 0
    while start < rows.num_rows:
        before = int(ends[start] - lengths[start])
        end = min(int(np.searchsorted(ends, before + SEND_BYTES, side="right")), start + SEND_ROWS)
        end = max(end, start + 1)
        yield rows.slice(start, end - start)
        start = end
