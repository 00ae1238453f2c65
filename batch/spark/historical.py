"""The historical join on Spark: the local engine's kernel for one slot range at a time, the same result and digest."""

from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - Spark's own custom

from batch.historical.checks import keys_of, names_of
from batch.historical.computed_join import join_computed
from batch.historical.inputs import HistoryInput
from batch.historical.output import feature_schema
from batch.historical.tables import TableRows
from batch.historical.view_join import join_view
from batch.spark import inputs
from batch.spark.columns import STATUS_SPARK, back, carried_arrow, ddl, history_types, spark_type
from batch.spark.computed import CarriedView
from batch.spark.inputs import AT, FILE, GROUP, ORDINAL
from batch.spark.plan import PART_ROWS, FileRows, HistoricalPlan, History, TableSnapshot
from batch.spark.result import JobResult, find_result, prepare, publish, write_part
from batch.spark.workers import Grouped, Paired, of_group, of_pair, streamed, translated
from core_ext.asof import Spine
from headrace.types import ValueType

EVENT_BYTES_MAX: Final = 256 << 20  # of one view in one task; more are computed in parts
Columns = list[tuple[str, str]]


def run_historical(session: SparkSession, plan: HistoricalPlan) -> JobResult:
    """Runs the plan, or returns what an earlier run of it left. Nothing is a result before its manifest is written."""
    if (held := find_result(plan)) is not None:
        return held
    prepare(plan)
    if plan.spine.row_count == 0:
        write_part(plan, plan.parts[0], _empty_features(plan))
        return publish(plan)
    try:
        written = joined(session, plan).withColumn("part", F.floor(F.col(ORDINAL) / F.lit(PART_ROWS)))
        written.groupBy("part").applyInArrow(_writer(plan), "part bigint").collect()
    except PythonException as exc:
        raise translated(exc) from exc
    return publish(plan)


def joined(session: SparkSession, plan: HistoricalPlan) -> DataFrame:
    """Ordinal and features of every spine row: one cogroup after the other, each over the slots of its view."""
    frame, columns = _spine(session, plan)
    for i, history in enumerate(plan.histories):
        number = f"{GROUP}_{i}"
        columns = [column for column in columns if column[0] != number] + _feature_columns(history.view)
        join = _joiner(history.carried, plan.cutoff_us, columns)
        right = history_frame(session, history, plan.groups)
        frame = frame.groupBy(number).cogroup(right.groupBy(GROUP)).applyInArrow(join, ddl(columns))
    return frame.select(ORDINAL, *(name for name, _ in columns if name in feature_schema(plan.views()).names))


def history_in_order(right: pa.Table, view: HistoryInput) -> pa.Table:
    """One slot range of a history as the local engine has it."""
    order = right.select([FILE, ORDINAL]).append_column("__at", pa.array(range(right.num_rows), pa.int64()))
    places = order.sort_by([(FILE, "ascending"), (ORDINAL, "ascending")]).column("__at")
    right = right.take(places)  # the place in the input decides between equal rows, as in the local engine
    types = history_types(view)
    return pa.Table.from_arrays(
        [back(right.column(name), kind) for name, (kind, _, _) in types.items()], names=list(types)
    )


def join_group(left: pa.Table, history: pa.Table, view: HistoryInput, cutoff_us: int) -> pa.Table:
    """The rows of the spine with the features of one view; both sides are one slot range."""
    batch = left.combine_chunks().to_batches()[0]
    keys = keys_of(batch, [key.spine for key in view.keys], view.keys, "spine")
    spine = Spine(keys, back(left.column(AT), pa.int64()).to_numpy())
    rows, out = TableRows(history), left
    if view.computation is None:
        looked = join_view(spine, rows, view, cutoff_us, _silent)
    else:
        looked = join_computed(spine, rows, view, cutoff_us, _silent, event_bytes_max=EVENT_BYTES_MAX)
    for column, one in zip(view.columns, looked, strict=True):
        value, status = names_of(view.output_of(column))
        out = out.append_column(value, one.values.cast(carried_arrow(column.type)))
        out = out.append_column(status, pa.array(one.statuses).cast(pa.int16()))
    return out


def _silent(_rows: int) -> None:
    """Spark shows the progress of its tasks itself."""


def _joiner(carried: CarriedView, cutoff_us: int, columns: Columns) -> Paired:
    names = [name for name, _ in columns]
    added = {name for name, _ in _feature_columns(carried.view)}

    def join(left: pa.Table, right: pa.Table) -> pa.Table:
        view = carried.open()
        if left.num_rows == 0:  # a slot range of which the spine has nothing
            kept = [left.column(name) for name in names if name not in added]
            return pa.Table.from_arrays([*kept, *_nothing(view)], names=names)
        return join_group(left, history_in_order(right, view), view, cutoff_us).select(names)

    return of_pair(join)


def _nothing(view: HistoryInput) -> list[pa.Array]:
    return [pa.array([], kind) for column in view.columns for kind in (carried_arrow(column.type), pa.int16())]


def _feature_columns(view: HistoryInput) -> Columns:
    found: Columns = []
    for column in view.columns:
        value, status = names_of(view.output_of(column))
        found += [(value, spark_type(column.type)), (status, STATUS_SPARK)]
    return found


def _spine(session: SparkSession, plan: HistoricalPlan) -> tuple[DataFrame, Columns]:
    views = plan.views()
    keys = {key.spine: spark_type(ValueType(key.scalar)) for view in views for key in view.keys}
    columns: Columns = [(ORDINAL, "bigint"), (AT, "bigint"), *keys.items()]
    columns += [(f"{GROUP}_{i}", "int") for i in range(len(views))]
    chunks, time_column, groups = plan.spine.chunks, plan.time_column, plan.groups

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = (chunks[i] for batch in batches for i in batch.column(0).to_pylist())
        return inputs.spine_batches(wanted, time_column, views, groups)

    return _numbers(session, plan.spine).mapInArrow(streamed(read), ddl(columns)), columns


def history_frame(session: SparkSession, history: History, groups: int) -> DataFrame:
    """Every row of a history, with its place and slot range."""
    carried = history.carried
    view = carried.open()
    columns: Columns = [(name, spark) for name, (_, _, spark) in history_types(view).items()]
    columns += [(FILE, "string"), (ORDINAL, "bigint"), (GROUP, "int")]
    if isinstance(history.rows, TableSnapshot):
        return _snapshot(session, history.rows, carried, groups, columns)
    chunks = history.rows.chunks

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = (chunks[i] for batch in batches for i in batch.column(0).to_pylist())
        return inputs.history_batches(wanted, carried.open(), groups)

    return _numbers(session, history.rows).mapInArrow(streamed(read), ddl(columns))


def _snapshot(
    session: SparkSession, rows: TableSnapshot, carried: CarriedView, groups: int, columns: Columns
) -> DataFrame:
    """The rows of a table as of one snapshot; deletes are Iceberg's business, places are those of its files."""
    names = list(history_types(carried.open()))
    table = session.read.option("versionAsOf", str(rows.snapshot_id)).table(rows.table)
    frame = table.select(*names, F.col("_file").alias(FILE), F.col("_pos").alias(ORDINAL))

    def carry(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        view = carried.open()
        for batch in batches:
            places = {FILE: batch.column(FILE), ORDINAL: batch.column(ORDINAL)}
            yield inputs.carried_history(batch, view, groups, places)

    return frame.mapInArrow(streamed(carry), ddl(columns))


def _numbers(session: SparkSession, rows: FileRows) -> DataFrame:
    """One row per chunk, each a task of its own."""
    count = max(1, len(rows.chunks))
    return session.range(0, len(rows.chunks), 1, numPartitions=count)


def _writer(plan: HistoricalPlan) -> Grouped:
    def write(features: pa.Table) -> pa.Table:
        number = features.column("part")[0].as_py()
        write_part(plan, plan.parts[number], features)
        return pa.table({"part": [number]})

    return of_group(write)


def _empty_features(plan: HistoricalPlan) -> pa.Table:
    schema = feature_schema(plan.views())
    return pa.table({ORDINAL: pa.array([], pa.int64()), **{field.name: pa.array([], field.type) for field in schema}})
