"""The historical join on Spark: the kernels of the local engine on files, in tasks that Spark schedules and repeats."""

from functools import partial

from pyspark.sql import SparkSession

from batch.historical.inputs import KeyColumn
from batch.spark.matching import Matched, Matching, matched
from batch.spark.parts import Found, Writing, part_tasks, write_part
from batch.spark.pieces import Piece
from batch.spark.plan import HistoricalPlan, History, bundles_of, group_tasks
from batch.spark.result import JobResult, find_result, publish, scratch
from batch.spark.sources import scan_of
from batch.spark.spread import Spreading, of_history, of_spine, run_spread, spread_history
from batch.spark.tasks import run_tasks
from batch.spark.values import Gathering, gathered_values

Keys = tuple[KeyColumn, ...]
Spines = dict[tuple[tuple[str, int], ...], tuple[Spreading, tuple[Piece, ...]]]


def run_historical(session: SparkSession, plan: HistoricalPlan) -> JobResult:
    """Runs the plan, or returns what an earlier run of it left. Nothing is a result before its manifest is written."""
    if (held := find_result(plan)) is not None:
        return held
    with scratch(plan.folder) as folder:
        spines: Spines = {}
        found = tuple(
            _found(session, plan, history, _spine(session, plan, history, folder, spines), folder)
            for history in plan.histories
        )
        run_tasks(session, "writes the result", partial(write_part, Writing(plan, found)), part_tasks(plan))
    return publish(plan)


def _spine(
    session: SparkSession, plan: HistoricalPlan, history: History, folder: str, spines: Spines
) -> tuple[Spreading, tuple[Piece, ...]]:
    """The spine by the keys of a view; views of the same keys share it."""
    keys = tuple((key.spine, int(key.scalar)) for key in history.view.keys)
    if keys not in spines:
        way = of_spine(plan, history.view, folder)
        spines[keys] = way, run_spread(session, way, bundles_of(plan.spine.chunks))
    return spines[keys]


def _found(
    session: SparkSession,
    plan: HistoricalPlan,
    history: History,
    spine: tuple[Spreading, tuple[Piece, ...]],
    folder: str,
) -> Found:
    """One view, through the stages that its features need."""
    is_computed = history.carried.computation is not None
    way = of_history(history, folder, plan.groups, plan.memory_bytes, is_whole=is_computed, is_by_slot=False)
    matching = Matching(
        carried=history.carried,
        spine=spine[1],
        spine_schema=spine[0].schema,
        history=spread_history(session, way, history),
        history_schema=way.schema,
        time_column=plan.time_column,
        cutoff_us=plan.cutoff_us,
        part_rows=plan.part_rows,
        part_count=len(plan.parts),
        folder=folder,
        memory_bytes=plan.memory_bytes,
    )
    tasks = group_tasks(plan.groups, history.rows.row_count)
    done = run_tasks(session, f"matches {history.view.name}", partial(matched, matching), tasks)
    by_part = tuple(one.by_part for one in done)
    return Found(history.carried, by_part, _values(session, plan, history, done, folder))


def _values(
    session: SparkSession, plan: HistoricalPlan, history: History, done: list[Matched], folder: str
) -> tuple[Piece, ...]:
    hits = tuple(one.hits for one in done if one.hits is not None)
    if not hits:
        return ()
    way = Gathering(
        carried=history.carried,
        hits=hits,
        scan=scan_of(history.rows),
        part_rows=plan.part_rows,
        part_count=len(plan.parts),
        folder=folder,
        memory_bytes=plan.memory_bytes,
    )
    tasks = list(enumerate(bundles_of(history.rows.chunks)))
    return tuple(run_tasks(session, f"gathers {history.view.name}", partial(gathered_values, way), tasks))
