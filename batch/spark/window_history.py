"""Values of a view for every entity of its history at given times, one slot range at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from uuid import UUID, uuid4

import pyarrow as pa
from pyspark.sql import SparkSession

from batch.historical.checks import check_spine, keys_of, times_of
from batch.historical.computed_join import join_computed
from batch.historical.grid import checked_times, entity_grid
from batch.historical.inputs import HistoryInput
from batch.historical.output import ResultFile, feature_schema, features_of
from batch.historical.view_join import join_view
from batch.historical.window_history import TIME_COLUMN
from batch.spark.matching import silent
from batch.spark.pieces import Piece, PieceRows, Pieces
from batch.spark.plan import TASK_BYTES, History, check_memory, group_count, group_tasks, history_told, rows_at_once
from batch.spark.result import JobResult, find_result, publish_files, scratch
from batch.spark.salt import salted, with_salt
from batch.spark.spread import of_history, spread_history
from batch.spark.tasks import run_tasks
from core_ext.asof import Spine
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class WindowHistoryPlan:
    """The job as it will be run."""

    run_id: UUID
    history: History
    times_us: tuple[int, ...]
    cutoff_us: int
    groups: int
    folder: str
    memory_bytes: int = TASK_BYTES

    def features(self) -> list[tuple[str, ValueType]]:
        """Features of the view."""
        return features_of([self.history.view])

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
    history: History,
    *,
    run_id: UUID,
    times_us: Sequence[int],
    cutoff_us: int,
    output: str,
    memory_bytes: int = TASK_BYTES,
) -> WindowHistoryPlan:
    """The plan of a job whose result lies in `output`/<run id>. `memory_bytes` as in plan_historical."""
    check_memory(memory_bytes)
    groups = group_count(history.rows.row_count)
    times = checked_times(times_us)
    folder = f"{output.rstrip('/')}/{run_id}"
    plan = WindowHistoryPlan(run_id, history, times, cutoff_us, groups, folder, memory_bytes)
    check_spine(plan.spine_schema, TIME_COLUMN, [history.view])
    return plan


def run_window_history(session: SparkSession, plan: WindowHistoryPlan) -> JobResult:
    """Runs the plan, or returns what an earlier run of it left. Nothing is a result before its manifest is written."""
    if (held := find_result(plan)) is not None:
        return held
    with scratch(plan.folder) as folder:
        way = of_history(plan.history, folder, plan.groups, plan.memory_bytes, is_whole=True, is_by_slot=True)
        pieces = spread_history(session, way, plan.history)
        work = partial(write_groups, plan, pieces, way.schema)
        tasks = group_tasks(plan.groups, plan.history.rows.row_count)
        counts = dict(chain.from_iterable(run_tasks(session, f"computes {way.what}", work, tasks)))
    files = [plan.file_of(group) for group, count in sorted(counts.items()) if count or group == 0]
    return publish_files(plan, files, sum(counts.values()))


def write_groups(
    plan: WindowHistoryPlan, pieces: tuple[Piece, ...], schema: pa.Schema, groups: Sequence[int]
) -> list[tuple[int, int]]:
    """Computes and writes slot ranges; the rows of each. One without rows has no file, but the first."""
    view, held = plan.history.carried.open(), Pieces(pieces, schema)
    return [(group, _write_group(plan, view, group, held.rows(group))) for group in groups]


def _write_group(plan: WindowHistoryPlan, view: HistoryInput, group: int, rows: PieceRows) -> int:
    batches = (batch for chunk in rows.chunks for batch in rows.read(chunk, view.match_columns()))
    spine = entity_grid(batches, view, plan.times_us, plan.cutoff_us, TIME_COLUMN).cast(plan.spine_schema)
    row_count: int = spine.num_rows
    if row_count == 0 and group:
        return 0
    limit = rows_at_once(view, plan.memory_bytes)
    with ResultFile(plan.file_of(group), plan.spine_schema, plan.features(), uuid4()) as file:
        for start in range(0, row_count, limit):
            part = spine.slice(start, limit).combine_chunks()
            file.write(part, _features(plan, view, part, rows))
    return row_count


def _features(plan: WindowHistoryPlan, view: HistoryInput, spine: pa.Table, rows: PieceRows) -> pa.Table:
    batch, view = with_salt(spine.to_batches()[0]), salted(view)
    keys = keys_of(batch, [key.spine for key in view.keys], view.keys, "entities")
    left = Spine(keys, times_of(batch, TIME_COLUMN, "entities"))
    if view.computation is None:
        looked = join_view(left, rows, view, plan.cutoff_us, silent)
    else:
        limit = plan.memory_bytes // 4
        looked = join_computed(left, rows, view, plan.cutoff_us, silent, event_bytes_max=limit)
    arrays = [array for one in looked for array in (one.values, pa.array(one.statuses))]
    return pa.Table.from_arrays(arrays, schema=feature_schema([view]))
