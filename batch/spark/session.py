"""Spark sessions that share one Iceberg catalogue with the local engine."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pyspark.sql import SparkSession

from headrace.errors import FailedPrecondition, InvalidArgument

LOOPBACK: Final = "127.0.0.1"
ICEBERG_JAR: Final = "iceberg-spark-runtime-4.1_2.13-*.jar"
DRIVER_MEMORY: Final = "1g"
EXECUTOR_MEMORY: Final = "1g"
ARROW_ROWS_PER_BATCH: Final = 10_000  # what a worker holds of one partition at once; Spark's own default
SHUFFLE_PARTITIONS: Final = 16
DAEMON: Final = "batch.spark.daemon"
JDBC_SCHEMA: Final = "V1"  # the table layout that pyiceberg writes: with the column iceberg_type


@dataclass(frozen=True)
class ObjectStore:
    """An S3 endpoint. Empty keys leave the credentials to the machine's own chain."""

    endpoint: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Catalogue:
    """An Iceberg catalogue in a SQL database, given as pyiceberg's SqlCatalog takes it.

    `name` must be the same for every engine: rows of the catalogue's tables carry it.
    """

    name: str
    uri: str = field(repr=False)  # may hold a password
    warehouse: str
    object_store: ObjectStore | None = None


def catalogue_settings(catalogue: Catalogue) -> dict[str, str]:
    """Spark settings of one catalogue. Raises InvalidArgument for a database that Spark cannot share."""
    prefix = f"spark.sql.catalog.{catalogue.name}"
    settings = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.defaultCatalog": catalogue.name,
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        f"{prefix}.type": "jdbc",
        f"{prefix}.warehouse": catalogue.warehouse,
        f"{prefix}.jdbc.schema-version": JDBC_SCHEMA,
        f"{prefix}.cache-enabled": "false",  # other engines commit too
        **{f"{prefix}.{key}": value for key, value in _database(catalogue.uri).items()},
    }
    if catalogue.object_store is not None:
        settings |= {f"{prefix}.{key}": value for key, value in _object_store(catalogue.object_store).items()}
    return settings


def session_settings(catalogue: Catalogue | None, *, jars: Sequence[Path], loopback: bool = True) -> dict[str, str]:
    """Every setting of a session but the master. `loopback` binds the driver to this machine alone.

    Our jobs read tables themselves: only Spark's own SQL needs a catalogue and jars.
    """
    settings = {
        **({"spark.jars": ",".join(str(jar) for jar in jars)} if jars else {}),
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.driver.memory": DRIVER_MEMORY,
        "spark.executor.memory": EXECUTOR_MEMORY,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(SHUFFLE_PARTITIONS),
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(ARROW_ROWS_PER_BATCH),
        # A wrong number is worse than a failed job: no silent overflow, no null for a value that does not fit.
        "spark.sql.ansi.enabled": "true",
        "spark.python.daemon.module": DAEMON,
        **({} if catalogue is None else catalogue_settings(catalogue)),
    }
    if loopback:
        settings |= {"spark.driver.host": LOOPBACK, "spark.driver.bindAddress": LOOPBACK}
    return settings


def find_jars(folder: Path) -> list[Path]:
    """The jars of a folder, Iceberg's among them. Raises FailedPrecondition when it is not there."""
    if not list(folder.glob(ICEBERG_JAR)):
        raise FailedPrecondition(
            f"no {ICEBERG_JAR} in {folder}: fetch the jars (in a checkout: tools/setup.sh spark), or name their folder",
            reason="SPARK_JARS_MISSING",
            field="jars",
            metadata={"folder": str(folder)},
        )
    return sorted(folder.glob("*.jar"))


def open_session(
    master: str,
    catalogue: Catalogue | None,
    *,
    jars: Sequence[Path],
    application: str,
    worker_python: str = sys.executable,
    loopback: bool = True,
    more: Mapping[str, str] | None = None,
) -> SparkSession:
    """A session on `local[n]` or `spark://host:port`. The process holds one session at a time; stop() ends it.

    Workers run `worker_python`, which must be an environment with the same headrace in it (docs/spark.md).
    """
    builder = SparkSession.builder.master(master).appName(application)
    settings = session_settings(catalogue, jars=jars, loopback=loopback) | dict(more or {})
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    # What PYSPARK_PYTHON would say. Spark reads it from the environment only, which is not ours to write.
    session.sparkContext.pythonExec = worker_python
    session.sparkContext.setLogLevel("WARN")
    return session


def _database(uri: str) -> dict[str, str]:
    """The JDBC form of a SQLAlchemy address of SQLite or PostgreSQL."""
    parts = urlsplit(uri)
    engine = parts.scheme.partition("+")[0]
    if engine == "sqlite" and parts.path.startswith("//"):
        return {"uri": f"jdbc:sqlite:{parts.path[1:]}"}
    if engine == "postgresql" and parts.hostname and len(parts.path) > 1:
        found = {"uri": f"jdbc:postgresql://{parts.hostname}:{parts.port or 5432}{parts.path}"}
        if parts.username:
            found["jdbc.user"] = unquote(parts.username)
        if parts.password:
            found["jdbc.password"] = unquote(parts.password)
        return found
    raise InvalidArgument(
        "the catalogue's database must be sqlite:////absolute/path or postgresql://user@host:port/database, "
        f"which Spark and pyiceberg can share; this one is {engine or 'nameless'}",
        reason="CATALOGUE_NOT_SHARED",
        field="catalogue.uri",
        metadata={"engine": engine},
    )


def _object_store(store: ObjectStore) -> dict[str, str]:
    """Properties of the catalogue's own file reader, which needs no Hadoop file system."""
    found = {"io-impl": "org.apache.iceberg.aws.s3.S3FileIO", "client.region": store.region}
    if store.endpoint:
        found |= {"s3.endpoint": store.endpoint, "s3.path-style-access": "true"}
    if store.access_key_id:
        found |= {"s3.access-key-id": store.access_key_id, "s3.secret-access-key": store.secret_access_key}
    return found
