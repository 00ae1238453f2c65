"""Replays the rows of a view's table into a feature server, file by file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from batch.materialize.gained import files_of
from batch.materialize.marks import Mark, bring_up, write_mark
from batch.offline.catalogue import Catalogue
from batch.offline.columns import EVENT_TIME, ViewColumns
from batch.offline.runs import Run, Runs
from batch.offline.view_table import shaped
from headrace.client import Durability
from headrace.client.shards import ShardClient
from headrace.definitions.entities import EVENT_TIME as ONLINE_EVENT_TIME

RUN_KIND: Final = "materialize"
REPLAY_ROWS: Final = 65_536  # read from a file at once


@dataclass(slots=True)
class Materialized:
    """What a run did: rows sent, and those of them that changed nothing online."""

    row_count: int = 0
    stale_count: int = 0
    file_count: int = 0


Progress = Callable[[int, int], None]
"""Told the rows that are done and their total."""


class Materialization:
    """Brings tables online in one store."""

    def __init__(self, catalogue: Catalogue, shards: ShardClient, runs: Runs) -> None:
        self._catalogue = catalogue
        self._shards = shards
        self._runs = runs

    def run(self, columns: ViewColumns, progress: Progress = lambda done, total: None) -> Materialized:
        """What the table gained since the last run of this store. Killed, it goes on after the last whole file.

        A table whose last snapshot is expired is read whole: rows that are online already change nothing.
        """
        store_id, _ = self._shards.list()
        table = self._catalogue.load(columns.identifier)
        with self._runs.run(RUN_KIND, {"feature_view": str(columns.ref), "store": store_id}) as run:
            done = Materialized()
            bring_up(table, store_id, lambda mark: self._advance(table, columns, store_id, mark, done, progress))
            note_snapshot(run, columns, table)
        return done

    def run_between(
        self,
        columns: ViewColumns,
        since_us: int | None,
        until_us: int | None,
        progress: Progress = lambda done, total: None,
    ) -> Materialized:
        """Rows with event times in [since, until), of the whole table; how far the view is online stays as it was."""
        table = self._catalogue.load(columns.identifier)
        with self._runs.run(
            RUN_KIND, {"feature_view": str(columns.ref), "since_us": str(since_us), "until_us": str(until_us)}
        ) as run:
            done = Materialized()
            tasks = files_of(table, None) if table.current_snapshot() is not None else []
            total = sum(task.file.record_count for task in tasks)
            for task in tasks:
                for rows in _rows(table, task, columns):
                    self._replay(columns, _between(rows, since_us, until_us), done)
                progress(done.row_count, total)
                done.file_count += 1
            note_snapshot(run, columns, table)
        return done

    def _advance(  # noqa: PLR0917 - every one is a different thing
        self, table: Table, columns: ViewColumns, store_id: str, mark: Mark, done: Materialized, progress: Progress
    ) -> None:
        is_known = mark.base != 0 and table.snapshot_by_id(mark.base) is not None
        held = {task.file.file_path for task in files_of(table, mark.base)} if is_known else set()
        tasks = [task for task in files_of(table, mark.target) if task.file.file_path not in held]
        left = tasks[mark.file_count :]
        total = done.row_count + sum(task.file.record_count for task in left)
        for number, task in enumerate(left, start=mark.file_count + 1):
            for rows in _rows(table, task, columns):
                self._replay(columns, rows, done)
            done.file_count += 1
            progress(done.row_count, total)
            # The rows are on stable storage: each request was acknowledged at FSYNC.
            write_mark(self._load(columns), store_id, Mark(mark.base, mark.target, number))
        write_mark(self._load(columns), store_id, Mark(mark.target, mark.target))

    def _replay(self, columns: ViewColumns, rows: pa.Table, done: Materialized) -> None:
        names = [ONLINE_EVENT_TIME if name == EVENT_TIME else name for name in rows.column_names]
        answer = self._shards.replay_rows(str(columns.ref), rows.rename_columns(names), Durability.FSYNC)
        done.row_count += answer.row_count
        done.stale_count += answer.stale_count

    def _load(self, columns: ViewColumns) -> Callable[[], Table]:
        return lambda: self._catalogue.load(columns.identifier)


def _rows(table: Table, task: FileScanTask, columns: ViewColumns) -> Iterator[pa.Table]:
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    for batch in scan.to_record_batches([task]):
        rows = shaped(batch, columns.arrow)
        for start in range(0, rows.num_rows, REPLAY_ROWS):
            yield pa.Table.from_batches([rows.slice(start, REPLAY_ROWS)])


def _between(rows: pa.Table, since_us: int | None, until_us: int | None) -> pa.Table:
    times = rows[EVENT_TIME].cast(pa.int64())
    if since_us is not None:
        rows, times = rows.filter(chosen := pc.greater_equal(times, since_us)), times.filter(chosen)
    if until_us is not None:
        rows = rows.filter(pc.less(times, until_us))
    return rows


def note_snapshot(run: Run, columns: ViewColumns, table: Table) -> None:
    """Tells a run which snapshot of the view's table it has read."""
    snapshot = table.current_snapshot()
    if snapshot is not None:
        run.snapshots[str(columns.ref)] = snapshot.snapshot_id
