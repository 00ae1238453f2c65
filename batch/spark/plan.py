"""Plans of historical joins on Spark: pure values, so that the same request always makes the same job."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

import pyarrow as pa

from batch.historical import HistoryInput
from batch.historical.checks import check_spine
from batch.historical.failures import refused
from batch.historical.memory import CELL_BYTES, SPINE_ROW_BYTES, VARIABLE_BYTES
from batch.historical.on_demand import OnDemandJoin, result_columns
from batch.spark.computed import CarriedOnDemand, CarriedView
from core_ext.hashing import SLOT_COUNT
from headrace.types import ValueType

PART_ROWS: Final = 1 << 18  # rows of one result file, or as many as a task may hold
PART_ROWS_MIN: Final = 1 << 12
GROUP_ROWS: Final = 1 << 20  # history rows of one slot range
GROUP_SPINE_ROWS: Final = 1 << 16  # of one slot range: its hash table stays near the caches
GROUPS_MIN: Final = 4  # so that small inputs use several cores too
GROUPS_MAX: Final = SLOT_COUNT
PARTS_MAX: Final = 1 << 20
BUNDLE_ROWS: Final = 1 << 22  # of an input that one task reads: less is not worth what Spark does for a task
TASK_ROWS: Final = 1 << 22  # history rows of slot ranges that one task joins, for the same reason
TASK_BYTES: Final = 512 << 20  # of memory that the rows of one task may take
TASK_BYTES_MIN: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class FileChunk:
    """A row group of a Parquet file; its first row is row `first_row` of the whole input."""

    file: str
    size_bytes: int
    mtime_ns: int
    group: int
    first_row: int
    row_count: int


@dataclass(frozen=True, slots=True)
class ScanChunk:
    """A data file of an Iceberg table that is read by pyiceberg: with its deletes, or with columns of an older schema.

    `row_count` is what the file holds before its deletes. `task` is the pickled scan task.
    """

    file: str
    first_row: int
    row_count: int
    task: bytes = field(repr=False)


Chunks = tuple[FileChunk | ScanChunk, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Chunks that one task reads; their first row is row `first_row` of the input."""

    first_row: int
    chunks: Chunks


@dataclass(frozen=True, slots=True)
class FileRows:
    """Parquet files as they were when the job was planned."""

    chunks: tuple[FileChunk, ...]
    files: tuple[str, ...]
    schema: pa.Schema
    row_count: int


@dataclass(frozen=True, slots=True)
class TableSnapshot:
    """One snapshot of an Iceberg table as its data files. `row_count` counts deleted rows too.

    `scan` is what workers need to read a ScanChunk; it may hold credentials of the object store.
    """

    table: str
    snapshot_id: int
    row_count: int
    chunks: Chunks = ()
    scan: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class History:
    """A view and where its rows lie."""

    carried: CarriedView
    rows: FileRows | TableSnapshot

    @property
    def view(self) -> HistoryInput:
        """The view without rows and kernels: its names, keys, columns and rules."""
        return self.carried.view


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the result: spine rows [first_row, first_row + row_count)."""

    name: str
    first_row: int
    row_count: int


@dataclass(frozen=True, slots=True)
class HistoricalPlan:
    """A historical join as it will be run."""

    run_id: UUID
    spine: FileRows
    histories: tuple[History, ...]
    time_column: str
    cutoff_us: int
    groups: int
    part_rows: int
    parts: tuple[Part, ...]
    folder: str
    memory_bytes: int = TASK_BYTES
    on_demand: CarriedOnDemand | None = None

    def views(self) -> list[HistoryInput]:
        """The views in the order of their columns."""
        return [history.view for history in self.histories]

    def features(self) -> list[tuple[str, ValueType]]:
        """Features of the result in their order."""
        return result_columns(self.views(), None if self.on_demand is None else self.on_demand.open())

    def digest(self) -> str:
        """SHA-256 of what is computed from what; the same for two runs that must give the same rows."""
        told = [_chunk_told(chunk) for chunk in self.spine.chunks]
        for history in self.histories:
            told += history_told(history)
        told.append(repr((self.time_column, self.cutoff_us)))
        if self.on_demand is not None:
            told.append(self.on_demand.told())
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


def plan_historical(
    spine: FileRows,
    histories: Sequence[History],
    *,
    run_id: UUID,
    time_column: str,
    cutoff_us: int,
    output: str,
    memory_bytes: int = TASK_BYTES,
    on_demand: OnDemandJoin | None = None,
) -> HistoricalPlan:
    """The plan of a join whose result lies in `output`/<run id>. Raises InvalidArgument for columns that do not fit.

    `memory_bytes` bounds what the rows of one task take beside the process itself. `on_demand` as in join_to_parquet.
    """
    if not histories:
        raise refused("NO_VIEWS", "views", "are empty; name at least one history")
    check_memory(memory_bytes)
    fields = () if on_demand is None else on_demand.fields
    computed = () if on_demand is None else [one.column.output for one in on_demand.programs]
    check_spine(spine.schema, time_column, [history.view for history in histories], fields, computed)
    names = [history.view.name for history in histories]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refused("VIEW_TWICE", "views", f"{', '.join(twice)} stand there twice; give each its own name")
    return HistoricalPlan(
        run_id=run_id,
        spine=spine,
        histories=tuple(histories),
        time_column=time_column,
        cutoff_us=cutoff_us,
        groups=group_count(max(history.rows.row_count for history in histories), spine.row_count),
        part_rows=(part_rows := part_rows_of([history.view for history in histories], memory_bytes)),
        parts=tuple(parts_of(spine.row_count, part_rows)),
        folder=f"{output.rstrip('/')}/{run_id}",
        memory_bytes=memory_bytes,
        on_demand=None if on_demand is None else CarriedOnDemand.of(on_demand),
    )


def check_memory(memory_bytes: int) -> None:
    """Refuses what no task can keep."""
    if memory_bytes < TASK_BYTES_MIN:
        message = f"of {memory_bytes} bytes is too small for a task; give at least {TASK_BYTES_MIN}"
        raise refused("MEMORY_LIMIT_TOO_SMALL", "memory_bytes", message)


def group_count(history_rows: int, spine_rows: int = 0) -> int:
    """Slot ranges for inputs of so many rows, a power of two."""
    groups = GROUPS_MIN
    while groups < GROUPS_MAX and (groups * GROUP_ROWS < history_rows or groups * GROUP_SPINE_ROWS < spine_rows):
        groups *= 2
    return groups


def bundles_of(chunks: Chunks) -> list[Bundle]:
    """Chunks in their order, as many together as one task reads."""
    found: list[list[FileChunk | ScanChunk]] = []
    rows = BUNDLE_ROWS
    for chunk in chunks:
        if rows + chunk.row_count > BUNDLE_ROWS:
            found.append([])
            rows = 0
        found[-1].append(chunk)
        rows += chunk.row_count
    return [Bundle(held[0].first_row, tuple(held)) for held in found]


def group_tasks(groups: int, history_rows: int) -> list[range]:
    """Slot ranges that one task joins after each other: small ones are not worth a task each."""
    count = min(groups, max(GROUPS_MIN, history_rows // TASK_ROWS))
    bounds = [groups * task // count for task in range(count + 1)]
    return [range(first, end) for first, end in pairwise(bounds)]


def rows_at_once(view: HistoryInput, memory_bytes: int) -> int:
    """Rows of a spine that a task joins at once with a view."""
    width = SPINE_ROW_BYTES
    if view.computation is not None:
        kinds = [*(kind for _, kind in view.computation.latest), *view.computation.window_types]
        width += sum((kind.slot_bytes or 2 * VARIABLE_BYTES) + CELL_BYTES for kind in kinds)
    width += feature_bytes(view)
    return max(1_000, memory_bytes // 2 // width)


def feature_bytes(view: HistoryInput) -> int:
    """Of the features of one spine row."""
    return sum((column.type.slot_bytes or 2 * VARIABLE_BYTES) + CELL_BYTES for column in view.columns)


def part_rows_of(views: Sequence[HistoryInput], memory_bytes: int) -> int:
    """Rows of one file of the result, a power of two: a task holds their features twice, as they lie and ordered."""
    width = sum(map(feature_bytes, views))
    rows = PART_ROWS
    while rows > PART_ROWS_MIN and 2 * rows * width > memory_bytes // 2:
        rows //= 2
    return rows


def parts_of(row_count: int, part_rows: int) -> list[Part]:
    """Files of the result; an empty spine has one empty file, which carries the schema."""
    if row_count > PARTS_MAX * part_rows:
        raise refused("SPINE_TOO_LONG", "spine", f"has {row_count} rows; split it at {PARTS_MAX * part_rows}")
    firsts = range(0, max(row_count, 1), part_rows)
    return [Part(f"part-{i:07d}.parquet", first, min(part_rows, row_count - first)) for i, first in enumerate(firsts)]


def snapshots_of(plan: HistoricalPlan) -> Mapping[str, int]:
    """Table -> snapshot that the job reads, for the record of runs."""
    return {
        history.rows.table: history.rows.snapshot_id
        for history in plan.histories
        if isinstance(history.rows, TableSnapshot)
    }


def _chunk_told(chunk: FileChunk) -> str:
    return repr((chunk.file, chunk.size_bytes, chunk.mtime_ns, chunk.group, chunk.row_count))


def history_told(history: History) -> list[str]:
    """What of a view and its rows decides a result."""
    rows, view = history.rows, history.view
    if isinstance(rows, TableSnapshot):
        where = [repr((rows.table, rows.snapshot_id))]
    else:
        where = [_chunk_told(chunk) for chunk in rows.chunks]
    columns = [repr((column.name, str(column.type), column.default, view.output_of(column))) for column in view.columns]
    keys = [repr((key.history, key.spine, int(key.scalar))) for key in view.keys]
    order = repr((view.times(), sorted((name, column) for name, (column, _) in view.order().items())))
    rules = repr((view.name, view.ttl_us, view.stale_us, int(view.fallback), view.include_expired))
    computed = [] if history.carried.computation is None else [history.carried.computation.told()]
    return [*where, *columns, *keys, order, rules, *computed]
