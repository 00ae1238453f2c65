"""Windows, latest columns and derived features on Spark are those of the local engine, to the bit."""

import os
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from batch.historical import join_to_parquet
from batch.historical.window_history import window_history
from batch.spark.cluster import standalone_cluster
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files, history_of_table
from batch.spark.plan import plan_historical
from batch.spark.result import JobResult
from batch.spark.session import Catalogue
from batch.spark.window_history import plan_window_history, run_window_history
from tests.integration.lakes import as_pyiceberg, catalogue_at, session_on, write
from tests.integration.windowed import SPAN_US, START_US, events, spine, windowed_view

CUTOFF_US = START_US + SPAN_US // 2
TIMES_US = [START_US + SPAN_US * part // 6 for part in range(-1, 7)]
USERS = 40


def joined(session: SparkSession, folder: Path, entities: str, history: str, cutoff_us: int, run: int = 1) -> JobResult:
    plan = plan_historical(
        file_rows(entities, "spine"),
        [history_of_files(windowed_view(history), history)],
        run_id=UUID(int=run),
        time_column="event_time",
        cutoff_us=cutoff_us,
        output=str(folder / "results"),
    )
    return run_historical(session, plan)


def computed(session: SparkSession, folder: Path, history: str, cutoff_us: int, run: int) -> JobResult:
    wanted = history_of_files(windowed_view(history), history)
    plan = plan_window_history(
        wanted, run_id=UUID(int=run), times_us=TIMES_US, cutoff_us=cutoff_us, output=str(folder / "results")
    )
    return run_window_history(session, plan)


def entities_of(files: list[str]) -> pa.Table:
    """Keys and times; of the features, NaN among them, the digest tells."""
    return pa.concat_tables([pq.read_table(file, columns=["user_id", "event_time"]) for file in files])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("spine_group", "history_group"), [(1_000, 5_000), (130, 700)])
def test_a_join_with_windows_is_that_of_the_local_engine(
    spark: SparkSession, tmp_path: Path, seed: int, spine_group: int, history_group: int
) -> None:
    history = write(events(seed, 4_000, USERS), tmp_path / "history.parquet", history_group)
    entities = write(spine(seed, 600, USERS), tmp_path / "spine.parquet", spine_group)
    out = str(tmp_path / "local.parquet")
    local = join_to_parquet(entities, [windowed_view(history)], out, time_column="event_time", cutoff_us=CUTOFF_US)
    result = joined(spark, tmp_path, entities, history, CUTOFF_US)
    assert result.digest == local.digest
    assert entities_of(result.files).equals(entities_of([out]))


@pytest.mark.timeout(300)
def test_window_history_is_that_of_the_local_engine_however_it_is_cut(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    table = events(seed, 3_000, USERS)
    out = str(tmp_path / "local.parquet")
    local = window_history(windowed_view(()), table, out, times_us=TIMES_US, cutoff_us=CUTOFF_US)
    assert local.rows > USERS
    for run, group_rows in enumerate((3_000, 400)):
        history = write(table, tmp_path / f"history-{run}.parquet", group_rows)
        result = computed(spark, tmp_path, history, CUTOFF_US, run)
        assert result.digest == local.digest
        assert entities_of(result.files).equals(entities_of([out]))
        assert result.row_count == local.rows


@pytest.mark.timeout(300)
def test_second_run_of_window_history_changes_nothing(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    history = write(events(seed, 300, 5), tmp_path / "history.parquet", 100)
    first = computed(spark, tmp_path, history, CUTOFF_US, 7)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(first.folder).iterdir()}
    assert computed(spark, tmp_path, history, CUTOFF_US, 7) == first
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(first.folder).iterdir()}
    assert after == before


@pytest.mark.timeout(300)
def test_window_history_before_the_first_event_is_one_empty_file(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    history = write(events(seed, 50, 5), tmp_path / "history.parquet", 50)
    result = computed(spark, tmp_path, history, START_US - 1, 8)
    assert result.row_count == 0
    assert entities_of(result.files).num_rows == 0


@pytest.mark.timeout(300)
def test_snapshot_of_a_table_is_computed_as_of_its_id(
    spark: SparkSession, catalogue: Catalogue, tmp_path: Path, seed: int
) -> None:
    table = events(seed, 800, 10)
    iceberg = as_pyiceberg(catalogue)
    iceberg.create_namespace("windows")
    stored = iceberg.create_table("windows.v", as_stored(table).schema)
    stored.append(as_stored(table))
    snapshot = stored.current_snapshot()
    assert snapshot is not None
    stored.append(as_stored(table.slice(0, 90)))  # later than the snapshot, so not seen
    view = windowed_view(())
    out = str(tmp_path / "local.parquet")
    local = window_history(view, table, out, times_us=TIMES_US, cutoff_us=CUTOFF_US)
    history = history_of_table(view, stored, snapshot.snapshot_id)
    plan = plan_window_history(
        history, run_id=UUID(int=9), times_us=TIMES_US, cutoff_us=CUTOFF_US, output=str(tmp_path / "results")
    )
    assert run_window_history(spark, plan).digest == local.digest


def as_stored(table: pa.Table) -> pa.Table:
    """Iceberg has no lists of fixed size."""
    at = table.schema.get_field_index("pair")
    return table.set_column(at, "pair", table["pair"].cast(pa.list_(pa.float64())))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_a_million_events_on_two_executors_give_one_digest(tmp_path: Path, seed: int) -> None:
    count = int(os.environ.get("HEADRACE_TEST_EVENTS", "1000000"))
    table = events(seed, count, 5_000)
    entities = write(spine(seed, 50_000, 5_000), tmp_path / "spine.parquet", 10_000)
    histories = [
        write(table, tmp_path / f"history-{group_rows}.parquet", group_rows) for group_rows in (250_000, 33_333)
    ]
    out = str(tmp_path / "local.parquet")
    local = [
        join_to_parquet(entities, [windowed_view(one)], out, time_column="event_time", cutoff_us=CUTOFF_US).digest
        for one in histories
    ]
    assert local[0] == local[1]
    with (
        standalone_cluster(tmp_path / "cluster", workers=2) as cluster,
        session_on(cluster.url, catalogue_at(tmp_path / "lake"), **{"spark.executor.memory": "1g"}) as session,
    ):
        assert cluster.workers_alive() == 2
        for run, one in enumerate(histories):
            assert joined(session, tmp_path, entities, one, CUTOFF_US, run).digest == local[0]
