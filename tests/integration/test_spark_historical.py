"""The historical join on Spark gives the rows and the digest of the local engine, and runs once per run id."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import StringType
from pyspark.sql import SparkSession

from batch.historical import HistoryInput, join_to_parquet
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files, history_of_table
from batch.spark.plan import HistoricalPlan, plan_historical
from batch.spark.session import Catalogue
from headrace.errors import AlreadyExists, HeadraceError
from tests.integration.lakes import as_pyiceberg, write
from tests.unit.batch.historical import samples

RUN = UUID(int=7)
CUTOFF_US = samples.START_US + 20


def two_views(history: str) -> list[HistoryInput]:
    first = samples.view(history)
    second = samples.view(history, name="w", keys=samples.KEYS[:1], ttl_us=0, columns=samples.FEATURES[:3])
    return [first, second]


def planned(folder: Path, spine: str, views: list[HistoryInput], run_id: UUID = RUN) -> HistoricalPlan:
    histories = [history_of_files(view, str(view.rows)) for view in views]
    return plan_historical(
        file_rows(spine, "spine"),
        histories,
        run_id=run_id,
        time_column="at",
        cutoff_us=CUTOFF_US,
        output=str(folder / "results"),
    )


def rows_of(files: list[str]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in files])


@pytest.mark.parametrize(("spine_group", "history_group"), [(1_000, 5_000), (250, 900)])
def test_digest_and_rows_are_those_of_the_local_engine(
    spark: SparkSession, tmp_path: Path, seed: int, spine_group: int, history_group: int
) -> None:
    one = samples.sample(seed, 900, 4_000)
    spine = write(one.spine, tmp_path / "spine.parquet", spine_group)
    views = two_views(write(one.history, tmp_path / "history.parquet", history_group))
    local = join_to_parquet(spine, views, str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    result = run_historical(spark, planned(tmp_path, spine, views))
    assert rows_of(result.files).equals(pq.read_table(tmp_path / "local.parquet"))
    assert result.digest == local.digest
    assert result.row_count == 900


def test_second_run_of_a_run_id_changes_nothing(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    one = samples.sample(seed, 50, 200)
    spine = write(one.spine, tmp_path / "spine.parquet", 50)
    views = two_views(write(one.history, tmp_path / "history.parquet", 200))
    first = run_historical(spark, planned(tmp_path, spine, views))
    folder = Path(first.folder)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    assert run_historical(spark, planned(tmp_path, spine, views)) == first
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before
    other = [replace(views[0], ttl_us=1)]
    with pytest.raises(AlreadyExists, match="a run id of its own"):
        run_historical(spark, planned(tmp_path, spine, other))


def test_run_that_died_before_its_manifest_is_made_again(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    one = samples.sample(seed, 50, 200)
    spine = write(one.spine, tmp_path / "spine.parquet", 50)
    plan = planned(tmp_path, spine, two_views(write(one.history, tmp_path / "history.parquet", 200)))
    folder = Path(plan.folder)
    folder.mkdir(parents=True)
    (folder / plan.parts[0].name).write_bytes(b"half a file")
    result = run_historical(spark, plan)
    assert rows_of(result.files).num_rows == 50


def test_empty_spine_gives_an_empty_file_with_the_schema(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    one = samples.sample(seed, 1, 20)
    spine = write(one.spine.slice(0, 0), tmp_path / "spine.parquet", 10)
    views = two_views(write(one.history, tmp_path / "history.parquet", 20))
    local = join_to_parquet(spine, views, str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    result = run_historical(spark, planned(tmp_path, spine, views))
    assert rows_of(result.files).schema == pq.read_table(tmp_path / "local.parquet").schema
    assert result.digest == local.digest


def test_null_key_in_a_worker_names_its_column(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    one = samples.sample(seed, 20, 20)
    keys = pa.array([None, *one.spine["user_id"].to_pylist()[1:]], pa.string())
    spine = write(one.spine.set_column(0, "user_id", keys), tmp_path / "spine.parquet", 20)
    views = two_views(write(one.history, tmp_path / "history.parquet", 20))
    plan = planned(tmp_path, spine, views)
    with pytest.raises(HeadraceError, match="key column 'user_id' holds a null") as caught:
        run_historical(spark, plan)
    assert caught.value.reason == "NULL_KEY"
    assert list(Path(plan.folder).glob("*.json")) == []


def test_snapshot_of_an_iceberg_table_is_joined_as_of_its_id(
    spark: SparkSession, catalogue: Catalogue, tmp_path: Path, seed: int
) -> None:
    one = samples.sample(seed, 200, 500)
    kept = one.history.select(["user", "shop", "event", "written", "amount", "text"])
    columns = (samples.FEATURES[0], samples.FEATURES[3])
    # Times that differ, so that no two rows are equal in the order.
    times = pa.array([samples.START_US * 1 + index % 30 for index in range(500)], samples.UTC)
    kept = kept.set_column(3, "written", pa.array(range(samples.START_US - 500, samples.START_US), samples.UTC))
    kept = kept.set_column(2, "event", times)
    bare = {"available_time": None, "source_id": None, "partition": None, "offset": None, "tombstone": None}
    iceberg = as_pyiceberg(catalogue)
    iceberg.create_namespace("features")
    table = iceberg.create_table("features.v", kept.schema)
    table.append(kept)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    table.append(kept.slice(0, 100))  # later than the snapshot, so not seen
    spine = write(one.spine, tmp_path / "spine.parquet", 100)
    view = samples.view(kept, columns=columns, **bare)
    local = join_to_parquet(spine, [view], str(tmp_path / "local.parquet"), time_column="at", cutoff_us=CUTOFF_US)
    history = history_of_table(replace(view, rows=()), table, snapshot.snapshot_id)
    plan = plan_historical(
        file_rows(spine, "spine"),
        [history],
        run_id=RUN,
        time_column="at",
        cutoff_us=CUTOFF_US,
        output=str(tmp_path / "results"),
    )
    assert run_historical(spark, plan).digest == local.digest


def test_deleted_rows_and_columns_of_a_later_schema_are_those_of_the_snapshot(
    spark: SparkSession, catalogue: Catalogue, tmp_path: Path, seed: int
) -> None:
    one = samples.sample(seed, 200, 900, entities=20)
    order = pa.array(range(900), pa.int64())
    kept = one.history.select(["user", "shop", "event", "amount", "text"]).append_column("position", order)
    iceberg = as_pyiceberg(catalogue)
    iceberg.create_namespace_if_not_exists("features")
    properties = {"format-version": "2", "write.delete.mode": "merge-on-read"}
    table = iceberg.create_table("features.gone", kept.drop_columns(["text"]).schema, properties=properties)
    table.append(kept.slice(0, 300).drop_columns(["text"]))
    with table.update_schema() as update:
        update.add_column("text", StringType())
    table.append(kept.slice(300))
    spark.sql("DELETE FROM features.gone WHERE position % 7 = 3")
    table = iceberg.load_table("features.gone")
    bare = {"available_time": None, "source_id": None, "partition": None, "tombstone": None, "write_time": None}
    view = samples.view((), columns=(samples.FEATURES[0], samples.FEATURES[3]), **bare)
    history = history_of_table(view, table)
    assert {type(chunk).__name__ for chunk in history.rows.chunks} == {"ScanChunk"}
    left = kept.set_column(
        4, "text", pa.chunked_array([pa.nulls(300, pa.string()), kept["text"][300:].combine_chunks()])
    )
    left = left.filter(pa.array([number % 7 != 3 for number in range(900)]))
    spine = write(one.spine, tmp_path / "spine.parquet", 100)
    out = str(tmp_path / "local.parquet")
    local = join_to_parquet(spine, [replace(view, rows=left)], out, time_column="at", cutoff_us=CUTOFF_US)
    plan = plan_historical(
        file_rows(spine, "spine"),
        [history],
        run_id=RUN,
        time_column="at",
        cutoff_us=CUTOFF_US,
        output=str(tmp_path / "results"),
    )
    result = run_historical(spark, plan)
    assert result.digest == local.digest
    assert rows_of(result.files).equals(pq.read_table(out))


def test_files_without_deletes_are_read_by_row_group(catalogue: Catalogue) -> None:
    one = samples.sample(1, 1, 90)
    kept = one.history.select(["user", "shop", "event", "amount"])
    iceberg = as_pyiceberg(catalogue)
    iceberg.create_namespace_if_not_exists("features")
    table = iceberg.create_table("features.plain", kept.schema)
    table.append(kept)
    bare = {"available_time": None, "source_id": None, "partition": None, "tombstone": None, "write_time": None}
    view = samples.view((), columns=samples.FEATURES[:1], **(bare | {"offset": None}))
    rows = history_of_table(view, table).rows
    assert [type(chunk).__name__ for chunk in rows.chunks] == ["FileChunk"]
    with pytest.raises(HeadraceError, match="has no snapshot 7"):
        history_of_table(view, table, 7)
    with pytest.raises(HeadraceError, match="has no column 'written'"):
        history_of_table(replace(view, write_time="written"), table)
