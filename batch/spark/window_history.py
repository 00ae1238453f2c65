"""Values of a view for every entity of its history at given times, one slot range at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from batch.historical.checks import check_spine
from batch.historical.grid import checked_times, entity_grid
from batch.historical.inputs import HistoryInput
from batch.historical.output import ResultFile, feature_schema, features_of
from batch.historical.tables import TableRows
from batch.historical.window_history import TIME_COLUMN
from batch.spark.columns import back
from batch.spark.historical import history_frame, history_in_order, join_group
from batch.spark.inputs import AT, GROUP
from batch.spark.plan import History, group_count, history_told
from batch.spark.result import JobResult, find_result, prepare, publish_files
from batch.spark.workers import Grouped, of_group, translated
from headrace.types import ValueType

WRITE_ROWS: Final = 1 << 16  # computed and written at once: what bounds the features in a worker's memory


@dataclass(frozen=True, slots=True)
class WindowHistoryPlan:
    """The job as it will be run."""

    run_id: UUID
    history: History
    times_us: tuple[int, ...]
    cutoff_us: int
    groups: int
    folder: str

    def views(self) -> list[HistoryInput]:
        """The view."""
        return [self.history.view]

    @property
    def spine_schema(self) -> pa.Schema:
        """Columns before the features: keys and time."""
        keys = [(key.spine, ValueType(key.scalar).arrow) for key in self.history.view.keys]
        return pa.schema([*keys, (TIME_COLUMN, pa.timestamp("us", "UTC"))])

    def digest(self) -> str:
        """SHA-256 of what is computed from what; the cut into slot ranges is no part of it."""
        told = [*history_told(self.history), repr((self.times_us, self.cutoff_us))]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def file_of(self, group: int) -> str:
        """The file of a slot range; files in this order are rows by slot, key bytes and time."""
        return f"{self.folder}/part-{group:07d}.parquet"


def plan_window_history(
    history: History, *, run_id: UUID, times_us: Sequence[int], cutoff_us: int, output: str
) -> WindowHistoryPlan:
    """The plan of a job whose result lies in `output`/<run id>."""
    groups = group_count(history.rows.row_count)
    times = checked_times(times_us)
    plan = WindowHistoryPlan(run_id, history, times, cutoff_us, groups, f"{output.rstrip('/')}/{run_id}")
    check_spine(plan.spine_schema, TIME_COLUMN, plan.views())
    return plan


def run_window_history(session: SparkSession, plan: WindowHistoryPlan) -> JobResult:
    """Runs the plan, or returns what an earlier run of it left. Nothing is a result before its manifest is written."""
    if (held := find_result(plan)) is not None:
        return held
    prepare(plan)
    try:
        frame = history_frame(session, plan.history, plan.groups)
        written = frame.groupBy(GROUP).applyInArrow(_writer(plan), f"{GROUP} int, row_count bigint").collect()
    except PythonException as exc:
        raise translated(exc) from exc
    counts = {row[0]: row[1] for row in written}
    if not counts:
        write_group(plan, plan.history.carried.open(), 0, None)
        counts[0] = 0
    return publish_files(plan, [plan.file_of(group) for group in sorted(counts)], sum(counts.values()))


def write_group(plan: WindowHistoryPlan, view: HistoryInput, group: int, carried: pa.Table | None) -> int:
    """Computes and writes one slot range; rows written."""
    spine = plan.spine_schema.empty_table()
    if carried is not None:
        history = history_in_order(carried, view)
        rows = TableRows(history)
        batches = (batch for chunk in rows.chunks for batch in rows.read(chunk, view.match_columns()))
        spine = entity_grid(batches, view, plan.times_us, plan.cutoff_us, TIME_COLUMN).cast(plan.spine_schema)
    names = feature_schema([view]).names
    with ResultFile(plan.file_of(group), plan.spine_schema, features_of([view]), uuid4()) as file:
        for start in range(0, spine.num_rows, WRITE_ROWS):
            part = spine.slice(start, WRITE_ROWS).combine_chunks()
            left = part.append_column(AT, part[TIME_COLUMN].cast(pa.int64()))
            joined = join_group(left, history, view, plan.cutoff_us)
            arrays = [back(joined.column(field.name), field.type) for field in feature_schema([view])]
            file.write(part, pa.Table.from_arrays(arrays, names=names))
    row_count: int = spine.num_rows
    return row_count


def _writer(plan: WindowHistoryPlan) -> Grouped:
    def write(rows: pa.Table) -> pa.Table:
        group = rows.column(GROUP)[0].as_py()
        row_count = write_group(plan, plan.history.carried.open(), group, rows)
        return pa.table({GROUP: pa.array([group], pa.int32()), "row_count": pa.array([row_count], pa.int64())})

    return of_group(write)
