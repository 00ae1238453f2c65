"""Plans of historical joins on Spark: pure values, so that the same request always makes the same job."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import pyarrow as pa

from batch.historical import HistoryInput
from batch.historical.checks import check_spine
from batch.historical.failures import refused
from batch.spark.computed import CarriedView
from core_ext.hashing import SLOT_COUNT

PART_ROWS: Final = 1 << 18  # rows of one result file: what a worker orders at once
GROUP_ROWS: Final = 1 << 19  # history rows of one slot range: some tens of MB of Arrow for ten narrow columns
GROUPS_MIN: Final = 8  # so that small inputs use several cores too
GROUPS_MAX: Final = SLOT_COUNT
PARTS_MAX: Final = 1 << 20


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
class FileRows:
    """Parquet files as they were when the job was planned."""

    chunks: tuple[FileChunk, ...]
    files: tuple[str, ...]
    schema: pa.Schema
    row_count: int


@dataclass(frozen=True, slots=True)
class TableSnapshot:
    """One snapshot of an Iceberg table. `row_count` may be an estimate: it decides how finely the job is cut."""

    table: str
    snapshot_id: int
    row_count: int


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
    parts: tuple[Part, ...]
    folder: str

    def views(self) -> list[HistoryInput]:
        """The views in the order of the result's columns."""
        return [history.view for history in self.histories]

    def digest(self) -> str:
        """SHA-256 of what is computed from what; the same for two runs that must give the same rows."""
        told = [repr((chunk.file, chunk.size_bytes, chunk.group, chunk.row_count)) for chunk in self.spine.chunks]
        for history in self.histories:
            told += history_told(history)
        told.append(repr((self.time_column, self.cutoff_us)))
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


def plan_historical(
    spine: FileRows,
    histories: Sequence[History],
    *,
    run_id: UUID,
    time_column: str,
    cutoff_us: int,
    output: str,
) -> HistoricalPlan:
    """The plan of a join whose result lies in `output`/<run id>. Raises InvalidArgument for columns that do not fit."""
    if not histories:
        raise refused("NO_VIEWS", "views", "are empty; name at least one history")
    check_spine(spine.schema, time_column, [history.view for history in histories])
    names = [history.view.name for history in histories]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refused("VIEW_TWICE", "views", f"{', '.join(twice)} stand there twice; give each its own name")
    rows = max([spine.row_count, *(history.rows.row_count for history in histories)])
    return HistoricalPlan(
        run_id=run_id,
        spine=spine,
        histories=tuple(histories),
        time_column=time_column,
        cutoff_us=cutoff_us,
        groups=group_count(rows),
        parts=tuple(parts_of(spine.row_count)),
        folder=f"{output.rstrip('/')}/{run_id}",
    )


def group_count(row_count: int) -> int:
    """Slot ranges for an input of so many rows, a power of two."""
    groups = GROUPS_MIN
    while groups < GROUPS_MAX and groups * GROUP_ROWS < row_count:
        groups *= 2
    return groups


def parts_of(row_count: int) -> list[Part]:
    """Files of the result; an empty spine has one empty file, which carries the schema."""
    if row_count > PARTS_MAX * PART_ROWS:
        raise refused("SPINE_TOO_LONG", "spine", f"has {row_count} rows; split it at {PARTS_MAX * PART_ROWS}")
    firsts = range(0, max(row_count, 1), PART_ROWS)
    return [Part(f"part-{i:07d}.parquet", first, min(PART_ROWS, row_count - first)) for i, first in enumerate(firsts)]


def snapshots_of(plan: HistoricalPlan) -> Mapping[str, int]:
    """Table -> snapshot that the job reads, for the record of runs."""
    return {
        history.rows.table: history.rows.snapshot_id
        for history in plan.histories
        if isinstance(history.rows, TableSnapshot)
    }


def history_told(history: History) -> list[str]:
    """What of a view and its rows decides a result."""
    rows, view = history.rows, history.view
    if isinstance(rows, TableSnapshot):
        where = [repr((rows.table, rows.snapshot_id))]
    else:
        where = [repr((chunk.file, chunk.size_bytes, chunk.group, chunk.row_count)) for chunk in rows.chunks]
    columns = [repr((column.name, str(column.type), column.default, view.output_of(column))) for column in view.columns]
    keys = [repr((key.history, key.spine, int(key.scalar))) for key in view.keys]
    order = repr((view.times(), sorted((name, column) for name, (column, _) in view.order().items())))
    rules = repr((view.name, view.ttl_us, view.stale_us, int(view.fallback), view.include_expired))
    computed = [] if history.carried.computation is None else [history.carried.computation.told()]
    return [*where, *columns, *keys, order, rules, *computed]
