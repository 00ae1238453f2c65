"""A real standalone cluster: two workers on loopback run the compiled cores, and it leaves nothing behind."""

from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from pyspark.errors import PythonException
from pyspark.sql import DataFrame, SparkSession

from batch.spark.cluster import Cluster, standalone_cluster
from batch.spark.session import Catalogue
from batch.spark.workers import GROUP, JoinKey, cogrouped, grouped, translated
from core_ext.keys import encode_key, slot_of_key
from headrace.errors import Unavailable
from headrace.types import Scalar
from tests.integration.lakes import as_pyiceberg, catalogue_at, session_on

GROUPS = 16
KEYS = [JoinKey("carrier", Scalar.STRING), JoinKey("flight", Scalar.I64)]


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


def expected_groups(table: pa.Table) -> dict[tuple[str, int], int]:
    types = [key.scalar for key in KEYS]
    pairs = [(row["carrier"], row["flight"]) for row in table.to_pylist()]
    return {pair: slot_of_key(encode_key(types, pair)) * GROUPS // 1024 for pair in pairs}


def count_both(left: pa.Table, right: pa.Table) -> pa.Table:
    groups = {value for table in (left, right) for value in table.column(GROUP).to_pylist()}
    assert len(groups) == 1, "one slot range at a time"
    return pa.table({"group": pa.array(groups, pa.int32()), "left": [left.num_rows], "right": [right.num_rows]})


def test_every_worker_gives_an_entity_the_slot_of_the_online_store(spark: SparkSession) -> None:
    table = flights(2_000)
    found = grouped(frame_of(spark, table, 4), KEYS, GROUPS).toArrow().to_pylist()
    assert {(row["carrier"], row["flight"]): row[GROUP] for row in found} == expected_groups(table)


def test_cogroup_brings_both_sides_of_a_slot_range_together(spark: SparkSession) -> None:
    left, right = flights(900), flights(300)
    sides = [grouped(frame_of(spark, table, 3), KEYS, GROUPS) for table in (left, right)]
    found = cogrouped(sides[0], sides[1], count_both, "group int, left long, right long").toArrow().to_pylist()
    counts = [Counter(expected_groups(table).values()) for table in (left, right)]
    assert {row["group"]: (row["left"], row["right"]) for row in found} == {
        group: (count, counts[1][group]) for group, count in counts[0].items()
    }


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


def test_null_key_names_its_column_and_row(spark: SparkSession) -> None:
    table = pa.table({"carrier": ["a", None], "flight": [1, 2], "delay": [0.0, 0.0]})
    with pytest.raises(PythonException, match="null") as caught:
        grouped(spark.createDataFrame(table).coalesce(1), KEYS, GROUPS).toArrow()
    assert translated(caught.value) is None


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
