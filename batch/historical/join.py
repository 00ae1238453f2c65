"""Historical join of a spine with the histories of its views, Parquet to Parquet, within a memory limit."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.arrays import arrow_numbers
from batch.historical import checks
from batch.historical.chunks import ChunkReader
from batch.historical.computed_join import join_computed
from batch.historical.failures import refused
from batch.historical.gathered import Looked
from batch.historical.inputs import Files, HistoryInput
from batch.historical.memory import MemoryPlan, plan, width_of_event
from batch.historical.on_demand import OnDemandJoin, result_columns
from batch.historical.output import Digest, ResultFile, feature_schema
from batch.historical.parallel import Advance, ahead, in_parallel
from batch.historical.spill import ORDINAL, Spill, partition, spool
from batch.historical.tables import Chunk, ParquetRows, Rows, TableRows
from batch.historical.view_join import join_view
from core_ext.asof import Spine
from core_ext.keys import KeyBatch
from core_ext.sweeps import Queries

MEMORY_LIMIT_BYTES: Final = 2 << 30
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """The time column of the spine, the knowledge cut-off and the memory limit of a join."""

    time_column: str
    cutoff_us: int
    memory_limit_bytes: int


@dataclass(frozen=True, slots=True)
class JoinReport:
    """What a join did: rows written, bytes spilled to disk, its estimate of the peak, and the digest."""

    rows: int
    spilled_bytes: int
    peak_bytes: int
    digest: Digest


def join_to_parquet(
    spine: Files | pa.Table,
    views: Sequence[HistoryInput],
    output: str,
    *,
    time_column: str,
    cutoff_us: int,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    progress: Progress = lambda stage, done, total: None,
    temp_folder: str | None = None,
    run_id: UUID | None = None,
    on_demand: OnDemandJoin | None = None,
) -> JoinReport:
    """Writes the spine with every feature and status of the views to `output`, and says what was done.

    With `on_demand` it computes its features from those of the views and from columns of the spine, and writes the
    features that it names.

    `cutoff_us` is the knowledge cut-off: rows written later are not seen. `memory_limit_bytes` bounds what the join
    holds beyond what the process held before. `progress` is told (stage, rows done, rows in all) from several threads.
    The output appears only when it is complete. Raises an error of headrace.errors.
    """
    if not views:
        raise refused("NO_VIEWS", "views", "are empty; name at least one history")
    with tempfile.TemporaryDirectory(prefix="headrace-join-", dir=temp_folder) as folder:
        terms = Terms(time_column, cutoff_us, memory_limit_bytes)
        join = HistoricalJoin(spine, views, terms, Path(folder), progress, on_demand=on_demand)
        return join.run(output, run_id or uuid4())


class HistoricalJoin:
    """One join under way; its temporary folder belongs to the caller."""

    def __init__(
        self,
        spine: Files | pa.Table,
        views: Sequence[HistoryInput],
        terms: Terms,
        folder: Path,
        progress: Progress,
        *,
        on_demand: OnDemandJoin | None = None,
    ) -> None:
        self._on_demand = on_demand
        self._views = list(views)
        self._terms = terms
        self._progress = progress
        self._folder = folder
        self._file_numbers = itertools.count()
        self._spilled_bytes = 0
        self._spine = rows_of(spine, "spine")
        fields = () if on_demand is None else on_demand.fields
        computed = () if on_demand is None else [one.column.output for one in on_demand.programs]
        checks.check_spine(self._spine.schema, terms.time_column, views, fields, computed)
        self._plan: MemoryPlan = plan(self._spine.row_count, views, terms.memory_limit_bytes)
        self._histories = [self._history(view) for view in views]
        if any(map(width_of_event, views)):
            counts = [rows.row_count for rows in self._histories]
            self._plan = plan(self._spine.row_count, views, terms.memory_limit_bytes, counts)

    def run(self, output: str, run_id: UUID) -> JoinReport:
        """Joins and writes."""
        features = result_columns(self._views, self._on_demand)
        result = ResultFile(output, self._spine.schema, features, run_id)
        with result:
            self._write(result, self._whole() if self._plan.fits else self._split())
        return JoinReport(self._spine.row_count, self._spilled_bytes, self._plan.peak_bytes, result.digest())

    def _history(self, view: HistoryInput) -> Rows:
        what = f"history {view.name}"
        if isinstance(view.rows, pa.RecordBatchReader):
            checks.check_history(view.rows.schema, view)
            rows, byte_count = spool(view.rows, self._temporary("spooled"), self._plan.group_bytes)
            self._spilled_bytes += byte_count
            return rows
        rows = rows_of(view.rows, what)
        checks.check_history(rows.schema, view)
        return rows

    def _temporary(self, name: str) -> Path:
        return self._folder / f"{next(self._file_numbers)}-{name}.parquet"

    def _spine_columns(self) -> list[str]:
        keys = [key.spine for view in self._views for key in view.keys]
        return list(dict.fromkeys([*keys, self._terms.time_column]))

    def _spine_keys(self, batch: pa.RecordBatch, view: HistoryInput) -> KeyBatch:
        return checks.keys_of(batch, [key.spine for key in view.keys], view.keys, "spine")

    # ---- a spine that fits ----

    def _whole(self) -> "_Held":
        table = _read(self._spine, self._spine_columns())
        return _Held(self._features(table, self._histories, self._views))

    def _features(self, spine: pa.Table, histories: Sequence[Rows], views: Sequence[HistoryInput]) -> pa.Table:
        """Features of some views for the rows of a spine in memory."""
        batch = _one_batch(spine)
        arrays: list[pa.Array] = []
        times = checks.times_of(batch, self._terms.time_column, "spine")
        held: tuple[list[str], Spine, Queries] | None = None
        for view, rows in zip(views, histories, strict=True):
            names = [key.spine for key in view.keys]
            if held is None or held[0] != names:
                keyed = Spine(checks.match_keys(batch, names, view.keys, "spine"), times)
                held = (names, keyed, Queries(keyed))
            readings = 2 if view.computation is None else 3
            advance = _Counter(self._progress, view.name, readings * rows.row_count)
            for one in self._looked(held[1], held[2], rows, view, advance):
                arrays += [one.values, arrow_numbers(one.statuses, pa.uint8())]
            advance.finish()
        return pa.Table.from_arrays(arrays, schema=feature_schema(views))

    def _looked(self, spine: Spine, queries: Queries, rows: Rows, view: HistoryInput, advance: Advance) -> list[Looked]:
        cutoff_us = self._terms.cutoff_us
        if view.computation is None:
            return join_view(spine, rows, view, cutoff_us, advance, queries=queries)
        return join_computed(spine, rows, view, cutoff_us, advance, event_bytes_max=self._plan.event_bytes)

    def _numbered(self, features: pa.Table, ordinals: NDArray[np.int64]) -> pa.Table:
        return features.append_column(ORDINAL, pa.array(ordinals))

    # ---- a spine that is split by slot, view after view ----

    def _split(self) -> "_Results":
        pairs = zip(self._views, self._histories, strict=True)
        return _Results(*[self._split_view(view, history) for view, history in pairs])

    def _split_view(self, view: HistoryInput, history: Rows) -> list[Rows]:
        """The features of one view for every spine row, in files whose rows ascend."""
        count, group_bytes = self._plan.partitions, self._plan.group_bytes
        names = list(dict.fromkeys([*(key.spine for key in view.keys), self._terms.time_column]))
        spine_files = [self._temporary(f"spine-{view.name}-{i}") for i in range(count)]
        spines, spine_bytes = partition(
            self._spine, names, lambda batch: self._spine_keys(batch, view), spine_files, group_bytes, with_ordinal=True
        )
        columns = list(dict.fromkeys([*view.match_columns(), *view.value_columns()]))
        key_names = [key.history for key in view.keys]
        history_files = [self._temporary(f"history-{view.name}-{i}") for i in range(count)]
        histories, history_bytes = partition(
            history,
            columns,
            lambda batch: checks.keys_of(batch, key_names, view.keys, f"history {view.name}"),
            history_files,
            group_bytes,
        )
        self._spilled_bytes += spine_bytes + history_bytes
        out = []
        for spine, rows in zip(spines, histories, strict=True):
            out += [self._part(part, rows, view, names) for part in _ranges(spine, [*names, ORDINAL], self._plan.rows)]
        for file in [*spine_files, *history_files]:
            file.unlink()
        return out

    def _part(self, spine: pa.Table, history: Rows, view: HistoryInput, names: list[str]) -> Rows:
        ordinals = np.asarray(_one_batch(spine).column(ORDINAL))
        table = self._numbered(self._features(spine.select(names), [history], [view]), ordinals)
        spilled = Spill(self._temporary(f"result-{view.name}"), table.schema, self._plan.group_bytes)
        for batch in table.to_batches(max_chunksize=max(1, self._plan.write_rows)):
            spilled.write(batch)
        self._spilled_bytes += spilled.close()
        return spilled.rows()

    # ---- the result ----

    def _write(self, result: ResultFile, results: "_Held | _Results") -> None:
        done = 0
        for table, features in ahead(self._pieces(results)):
            result.write(table, features)
            done += table.num_rows
            self._progress("write", done, self._spine.row_count)

    def _pieces(self, results: "_Held | _Results") -> Iterator[tuple[pa.Table, pa.Table]]:
        """Rows of the spine with their features, as many as one row group of the result takes."""
        done, names = 0, self._spine.schema.names
        for table in _ranges(self._spine, names, self._plan.write_rows) if self._spine.row_count else ():
            done += table.num_rows
            features = results.until(done)
            yield table, features if self._on_demand is None else self._on_demand.computed(table, features)


def rows_of(rows: Files | pa.Table, what: str) -> Rows:
    """Files or a table as rows to stream."""
    if isinstance(rows, pa.Table):
        return TableRows(rows)
    return ParquetRows([rows] if isinstance(rows, str) else list(rows), what)


class _Counter:
    """Adds up rows of one stage for the progress callback."""

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress = progress
        self._stage = stage
        self._total = total
        self._done = 0

    def __call__(self, row_count: int) -> None:
        self._done = min(self._done + row_count, self._total)  # a history with too many events is read more often
        self._progress(self._stage, self._done, self._total)

    def finish(self) -> None:
        """Counts what held no match, and so was not read twice."""
        self._progress(self._stage, self._total, self._total)


class _Held:
    """Features of all spine rows in memory."""

    def __init__(self, features: pa.Table) -> None:
        self._features = features
        self._done = 0

    def until(self, end: int) -> pa.Table:
        """The next rows, up to row `end`, without a copy."""
        part = self._features.slice(self._done, end - self._done)
        self._done = end
        return part


class _Results:
    """Features of all spine rows on disk, in groups of columns; each group lies in files whose ordinals ascend."""

    def __init__(self, *groups: list[Rows]) -> None:
        self._groups = [[_Cursor(rows) for rows in group if rows.row_count] for group in groups]

    def until(self, end: int) -> pa.Table:
        """The next rows, up to ordinal `end`, in spine order."""
        columns: list[pa.ChunkedArray] = []
        names: list[str] = []
        for group in self._groups:
            pieces = [cursor.until(end) for cursor in group]
            table = pa.concat_tables([piece for piece in pieces if piece is not None])
            if len(group) > 1:
                table = table.combine_chunks()
                table = table.take(pa.array(np.argsort(np.asarray(table.column(ORDINAL)), kind="stable")))
            table = table.drop_columns([ORDINAL])
            columns += table.columns
            names += table.column_names
        return pa.Table.from_arrays(columns, names=names)


class _Cursor:
    """Rows of one file, taken by ordinal."""

    def __init__(self, rows: Rows) -> None:
        self._batches = _batches(rows, rows.schema.names)
        self._held: pa.RecordBatch | None = next(self._batches, None)

    def until(self, end: int) -> pa.Table | None:
        """Rows whose ordinal is below `end`, or None."""
        taken = []
        while self._held is not None:
            ordinals = np.asarray(self._held.column(ORDINAL))
            count = int(np.searchsorted(ordinals, end))
            if count:
                taken.append(self._held.slice(0, count))
            if count < self._held.num_rows:
                self._held = self._held.slice(count)
                break
            self._held = next(self._batches, None)
        return pa.Table.from_batches(taken) if taken else None


def _batches(rows: Rows, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for chunk in rows.chunks:
        yield from rows.read(chunk, columns)


def _read(rows: Rows, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rows, which several threads read."""
    found: dict[Chunk, list[pa.RecordBatch]] = {}

    def read(chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            own = ChunkReader()  # what a reader gives stays only until it reads again
            found[chunk] = [batch.select(list(columns)) for batch in rows.read(chunk, columns, own)]

    in_parallel(rows.chunks, read)
    schema = pa.schema([rows.schema.field(name) for name in columns])
    return pa.Table.from_batches([batch for chunk in rows.chunks for batch in found[chunk]], schema)


def _ranges(rows: Rows, columns: Sequence[str], row_count_max: int) -> Iterator[pa.Table]:
    """All rows as tables of row_count_max rows; the last may be shorter."""
    held: list[pa.RecordBatch] = []
    held_rows = 0
    for read in _batches(rows, columns):
        batch = read.select(list(columns))
        while held_rows + batch.num_rows >= row_count_max:
            head = batch.slice(0, row_count_max - held_rows)
            yield pa.Table.from_batches([*held, head])
            batch, held, held_rows = batch.slice(len(head)), [], 0
        if batch.num_rows:
            held.append(batch)
            held_rows += batch.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    combined = table.combine_chunks().to_batches()
    return (
        combined[0]
        if combined
        else pa.RecordBatch.from_arrays([pa.array([], field.type) for field in table.schema], schema=table.schema)
    )
