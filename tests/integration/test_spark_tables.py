"""Tables that pyiceberg and Spark write in turns: each reads what the other wrote, and a third engine reads both."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from pyiceberg.types import DoubleType, LongType, NestedField, StringType, TimestamptzType
from pyspark.sql import SparkSession

from batch.spark.session import Catalogue, ObjectStore
from tests.integration.lakes import LOCAL, add_catalogue, as_pyiceberg, catalogue_at, session_on

NOON = datetime(2013, 3, 31, 12, tzinfo=UTC)  # a day on which Europe's clocks change
DAY = timedelta(days=1)
SCHEMA = Schema(
    NestedField(1, "carrier", StringType(), required=False),
    NestedField(2, "event_time", TimestamptzType(), required=False),
    NestedField(3, "delay", DoubleType(), required=False),
)
DAYS = PartitionSpec(PartitionField(2, 1000, DayTransform(), "event_day"))


@pytest.fixture(autouse=True)
def own_reader_of_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars reads metadata, manifests and Parquet by its own code, and fails where it cannot."""
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "plugin")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return catalogue_at(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def iceberg(catalogue: Catalogue) -> SqlCatalog:
    found = as_pyiceberg(catalogue)
    found.create_namespace("features")
    return found


@pytest.fixture(scope="module")
def spark(catalogue: Catalogue) -> Iterator[SparkSession]:
    with session_on(LOCAL, catalogue) as session:
        yield session


def rows(first: int, count: int, days: int = 1) -> pa.Table:
    columns = {
        "carrier": [f"c{index}" for index in range(first, first + count)],
        "event_time": pa.array([NOON + (index % days) * DAY for index in range(count)], pa.timestamp("us", "UTC")),
        "delay": [None if index % 3 == 2 else index / 4 for index in range(first, first + count)],
    }
    return pa.table(columns)


def sorted_rows(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: str(row["carrier"]))


def from_spark(spark: SparkSession, name: str, **options: str) -> list[dict[str, Any]]:
    return sorted_rows(spark.read.options(**options).table(name).toArrow())


def from_polars(table: Table, snapshot_id: int | None = None) -> list[dict[str, Any]]:
    """What the third engine reads; pyiceberg only tells it where the metadata file lies."""
    frame = polars.scan_iceberg(table, snapshot_id=snapshot_id, reader_override="native").collect()
    return sorted_rows(frame.to_arrow())


def test_spark_reads_what_pyiceberg_wrote_and_the_other_way_round(spark: SparkSession, iceberg: SqlCatalog) -> None:
    table = iceberg.create_table("features.both", SCHEMA)
    table.append(rows(0, 5))
    assert from_spark(spark, "features.both") == sorted_rows(rows(0, 5))
    spark.createDataFrame(rows(5, 4)).writeTo("features.both").append()
    table.refresh()
    assert sorted_rows(table.scan().to_arrow()) == sorted_rows(pa.concat_tables([rows(0, 5), rows(5, 4)]))
    assert from_polars(table) == sorted_rows(table.scan().to_arrow())


def test_every_type_of_the_type_table_crosses(spark: SparkSession, iceberg: SqlCatalog) -> None:
    value = {
        "carrier": pa.array(["é", None]),
        "flag": pa.array([True, None]),
        "small": pa.array([-(2**31), None], pa.int32()),
        "large": pa.array([2**63 - 1, None]),
        "single": pa.array([1.5, None], pa.float32()),
        "double": pa.array([-0.0, None]),
        "raw": pa.array([b"\0\xff", None]),
        "at": pa.array([NOON + timedelta(microseconds=1), None], pa.timestamp("us", "UTC")),
        "day": pa.array([date(1969, 12, 31), None]),
        "list": pa.array([[1, 2], None], pa.list_(pa.int64())),
    }
    written = pa.table(value)
    table = iceberg.create_table("features.types", written.schema)
    table.append(written)
    assert from_spark(spark, "features.types") == sorted_rows(written)
    spark.table("features.types").writeTo("features.types_of_spark").create()
    again = iceberg.load_table("features.types_of_spark")
    assert sorted_rows(again.scan().to_arrow()) == sorted_rows(written)
    assert from_polars(again) == sorted_rows(written)


def test_columns_added_and_renamed_by_either_side_are_seen_by_the_other(
    spark: SparkSession, iceberg: SqlCatalog
) -> None:
    table = iceberg.create_table("features.grows", SCHEMA)
    table.append(rows(0, 2))
    with table.update_schema() as update:
        update.add_column("distance", LongType())
    spark.sql("INSERT INTO features.grows VALUES ('c9', TIMESTAMP '2013-03-31 12:00:00', 1.0, 7)")
    spark.sql("ALTER TABLE features.grows RENAME COLUMN delay TO delay_minutes")
    table.refresh()
    found = sorted_rows(table.scan().to_arrow())
    assert [row["distance"] for row in found] == [None, None, 7]
    assert [row["delay_minutes"] for row in found] == [0.0, 0.25, 1.0]
    assert from_spark(spark, "features.grows") == found
    assert from_polars(table) == found


def test_hidden_partitions_by_day_of_either_side_prune_for_the_other(spark: SparkSession, iceberg: SqlCatalog) -> None:
    table = iceberg.create_table("features.days", SCHEMA, partition_spec=DAYS)
    table.append(rows(0, 6, days=3))
    spark.createDataFrame(rows(6, 6, days=3)).writeTo("features.days").append()
    table.refresh()
    second_day = f"event_time >= '{(NOON + DAY / 2).isoformat()}' and event_time < '{(NOON + 3 * DAY / 2).isoformat()}'"
    files = [task.file.file_path for task in table.scan(row_filter=second_day).plan_files()]
    assert len(files) == 2, "one file of each writer"
    expected = [row for row in sorted_rows(table.scan().to_arrow()) if row["event_time"] == NOON + DAY]
    chosen = spark.sql(
        "SELECT *, input_file_name() AS file FROM features.days WHERE event_time = TIMESTAMP '2013-04-01 12:00:00'"
    )
    found = sorted_rows(chosen.toArrow())
    assert {row.pop("file") for row in found} == set(files)
    assert found == expected
    spark.sql(
        "CREATE TABLE features.days_of_spark (carrier string, event_time timestamp, delay double) "
        "USING iceberg PARTITIONED BY (days(event_time))"
    )
    of_spark = iceberg.load_table("features.days_of_spark")
    of_spark.append(rows(0, 6, days=3))
    assert spark.sql("SELECT * FROM features.days_of_spark.partitions").count() == 3
    assert from_spark(spark, "features.days_of_spark") == sorted_rows(rows(0, 6, days=3))


def test_snapshot_by_id_is_the_same_for_all_engines(spark: SparkSession, iceberg: SqlCatalog) -> None:
    table = iceberg.create_table("features.snapshots", SCHEMA)
    table.append(rows(0, 3))
    first = table.current_snapshot()
    spark.sql("DELETE FROM features.snapshots WHERE carrier = 'c1'")
    table.refresh()
    second = table.current_snapshot()
    spark.createDataFrame(rows(3, 1)).writeTo("features.snapshots").append()
    table.refresh()
    assert first is not None and second is not None
    for snapshot, carriers in ((first, ["c0", "c1", "c2"]), (second, ["c0", "c2"])):
        number = snapshot.snapshot_id
        seen = [
            sorted_rows(table.scan(snapshot_id=number).to_arrow()),
            from_spark(spark, "features.snapshots", versionAsOf=str(number)),
            from_polars(table, number),
        ]
        assert seen[0] == seen[1] == seen[2]
        assert [row["carrier"] for row in seen[0]] == carriers


def test_lake_on_an_object_store_is_read_and_written_by_both(spark: SparkSession, tmp_path: Path) -> None:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        store = ObjectStore(f"http://{host}:{port}", "us-east-1", "key", "secret")
        make_bucket(store)
        lake = Catalogue("bucket", f"sqlite:///{tmp_path}/c.db", "s3://lake/warehouse", store)
        iceberg = as_pyiceberg(lake)
        iceberg.create_namespace("features")
        table = iceberg.create_table("features.both", SCHEMA, partition_spec=DAYS)
        table.append(rows(0, 4, days=2))
        add_catalogue(spark, lake)
        assert from_spark(spark, "bucket.features.both") == sorted_rows(rows(0, 4, days=2))
        spark.createDataFrame(rows(4, 2)).writeTo("bucket.features.both").append()
        table.refresh()
        assert table.scan().to_arrow().num_rows == 6
        assert from_spark(spark, "bucket.features.both") == sorted_rows(table.scan().to_arrow())
    finally:
        server.stop()


def make_bucket(store: ObjectStore) -> None:
    from pyarrow import fs  # the only user of it here

    scheme, _, address = store.endpoint.partition("://")
    files = fs.S3FileSystem(
        access_key=store.access_key_id,
        secret_key=store.secret_access_key,
        endpoint_override=address,
        scheme=scheme,
        region=store.region,
        allow_bucket_creation=True,
    )
    files.create_dir("lake")
