"""A real standalone cluster: two workers on loopback run the compiled cores, and it leaves nothing behind."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from batch.historical import join_to_parquet
from batch.historical.join import JoinReport
from batch.historical.window_history import window_history
from batch.spark import historical, spread
from batch.spark.cluster import Cluster, standalone_cluster
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_files
from batch.spark.plan import HistoricalPlan, plan_historical
from batch.spark.session import Catalogue
from batch.spark.tasks import run_tasks
from batch.spark.window_history import plan_window_history, run_window_history
from batch.spark.workers import held_to_kernel
from headrace.errors import FailedPrecondition, Unavailable
from tests.integration import windowed
from tests.integration.lakes import as_pyiceberg, catalogue_at, session_on
from tests.unit.batch.historical import samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Cluster]:
    with standalone_cluster(folder / "processes") as running:
        yield running


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Catalogue:
    return catalogue_at(folder / "lake")


@pytest.fixture(scope="module")
def spark(cluster: Cluster, catalogue: Catalogue) -> Iterator[SparkSession]:
    with session_on(cluster.url, catalogue, **{"spark.executor.memory": "512m"}) as session:
        yield session


def flights(count: int) -> pa.Table:
    numbers = np.arange(count)
    return pa.table({"carrier": [f"c{number % 7}" for number in numbers], "flight": numbers, "delay": numbers / 8})


def frame_of(spark: SparkSession, table: pa.Table, parts: int) -> DataFrame:
    return spark.createDataFrame(table).repartition(parts)


def planned_and_joined(tmp_path: Path, seed: int, *sizes: int) -> tuple[HistoricalPlan, JoinReport]:
    """The plan of a join of a sample, and what the local engine made of it."""
    one = samples.sample(seed, *sizes)
    spine, history = str(tmp_path / "spine.parquet"), str(tmp_path / "history.parquet")
    pq.write_table(one.spine, spine, row_group_size=100)
    pq.write_table(one.history, history, row_group_size=400)
    view, cutoff_us = samples.view(history), samples.FOREVER_US
    local = join_to_parquet(spine, [view], str(tmp_path / "local.parquet"), time_column="at", cutoff_us=cutoff_us)
    plan = plan_historical(
        file_rows(spine, "spine"),
        [history_of_files(view, history)],
        run_id=UUID(int=seed),
        time_column="at",
        cutoff_us=cutoff_us,
        output=str(tmp_path / "results"),
    )
    return plan, local


def test_two_executors_give_the_digest_of_the_local_engine(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    plan, local = planned_and_joined(tmp_path, seed, 300, 1_500)
    assert run_historical(spark, plan).digest == local.digest


def test_two_executors_compute_windows_as_the_local_engine_does(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    table, cutoff_us = windowed.events(seed, 2_000, 30), windowed.START_US + windowed.SPAN_US
    times_us = [windowed.START_US + windowed.SPAN_US * part // 4 for part in range(5)]
    out = str(tmp_path / "local.parquet")
    local = window_history(windowed.windowed_view(()), table, out, times_us=times_us, cutoff_us=cutoff_us)
    for run, group_rows in enumerate((1_000, 300)):
        file = str(tmp_path / f"history-{run}.parquet")
        pq.write_table(table, file, row_group_size=group_rows)
        plan = plan_window_history(
            history_of_files(windowed.windowed_view(file), file),
            run_id=UUID(int=run),
            times_us=times_us,
            cutoff_us=cutoff_us,
            output=str(tmp_path / "results"),
        )
        assert run_window_history(spark, plan).digest == local.digest


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["reads history", "matches", "gathers", "writes"])
def test_executor_that_is_killed_midway_changes_nothing(
    spark: SparkSession, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    plan, local = planned_and_joined(tmp_path, seed, 900, 3_000)
    mark = tmp_path / "killed"

    def run(session: SparkSession, what: str, work: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
        return run_tasks(session, what, partial(killing, mark, work) if what.startswith(stage) else work, tasks)

    for module in (historical, spread):
        monkeypatch.setattr(module, "run_tasks", run)
    result = run_historical(spark, plan)
    assert mark.exists()
    assert result.digest == local.digest
    assert {path.suffix for path in Path(plan.folder).iterdir()} == {".parquet", ".json"}
    assert run_historical(spark, plan) == result


def killing(mark: Path, work: Callable[[Any], Any], task: Any) -> Any:  # Any: as Spark has them
    """The work of a task; the first one to do it ends its executor before it can tell."""
    done = work(task)
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return done
    for process in psutil.Process().parents():
        if any("CoarseGrainedExecutorBackend" in word for word in process.cmdline()):
            process.kill()
    return done


def test_both_workers_write_one_iceberg_table(spark: SparkSession, catalogue: Catalogue) -> None:
    spark.sql("CREATE NAMESPACE features")
    executors = {record["worker"] for record in workers_seen(spark)}
    assert len(executors) == 2
    frame_of(spark, flights(500), 2).writeTo("features.flights").create()
    table = as_pyiceberg(catalogue).load_table("features.flights")
    found = table.scan().to_arrow()
    assert found.sort_by("flight").equals(flights(500).cast(found.schema))


def workers_seen(spark: SparkSession) -> list[dict[str, str]]:
    found: list[dict[str, str]] = spark.range(8).repartition(8).mapInArrow(where, "worker string").toArrow().to_pylist()
    return found


def where(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        yield pa.record_batch({"worker": [Path.cwd().name]})  # an executor runs in a folder of its own


def test_workers_with_another_kernel_are_refused(spark: SparkSession) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        run_tasks(spark, "a test", held_to_kernel(abs, kernel=-1), [1])
    assert caught.value.reason == "KERNEL_VERSIONS_DIFFER"


def test_workers_without_headrace_are_named(spark: SparkSession, tmp_path: Path) -> None:
    context = spark.sparkContext
    usual, context.pythonExec = context.pythonExec, bare_python(tmp_path)
    try:
        with pytest.raises(FailedPrecondition) as caught:
            run_tasks(spark, "a test", abs, [1])
    finally:
        context.pythonExec = usual
    assert caught.value.reason == "WORKERS_WITHOUT_HEADRACE"


def bare_python(folder: Path) -> str:
    """An interpreter without our environment."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{Path(sys.executable).resolve()}" -S "$@"\n')
    program.chmod(0o755)
    return str(program)


def test_cluster_listens_on_this_machine_alone(cluster: Cluster, spark: SparkSession) -> None:
    assert cluster.workers_alive() == 2
    family = psutil.Process().children(recursive=True)  # master, workers, executors, and the driver's Java
    sockets = [socket for process in family for socket in process.net_connections("inet") if socket.status == "LISTEN"]
    addresses = {ip_address(socket.laddr.ip.removeprefix("::ffff:")) for socket in sockets}
    assert len(sockets) >= 3
    assert [address for address in addresses if not address.is_loopback] == []


def test_lost_master_is_told_and_the_end_leaves_no_process(tmp_path: Path) -> None:
    with standalone_cluster(tmp_path, workers=1) as running:
        assert all(process.poll() is None for process in running.processes)
        running.processes[0].kill()
        running.processes[0].wait()
        with pytest.raises(Unavailable, match="the master does not answer"):
            running.workers_alive()
    assert all(process.poll() is not None for process in running.processes)
