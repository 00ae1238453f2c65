"""Lakes of the Spark tests: one catalogue as Spark and as pyiceberg see it, and the session on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyspark.sql import SparkSession

from batch.spark.session import Catalogue, catalogue_settings, find_jars, open_session
from headrace.errors import FailedPrecondition

ROOT = Path(__file__).resolve().parent.parent.parent
LOCAL = "local[2]"


def catalogue_at(folder: Path, name: str = "lake") -> Catalogue:
    """A catalogue in SQLite with its warehouse on local disk."""
    (folder / "warehouse").mkdir(parents=True)
    return Catalogue(name, f"sqlite:///{folder}/catalogue.db", f"file://{folder}/warehouse")


def as_pyiceberg(catalogue: Catalogue) -> SqlCatalog:
    """The same catalogue for pyiceberg."""
    properties = {"uri": catalogue.uri, "warehouse": catalogue.warehouse}
    if store := catalogue.object_store:
        properties |= {"s3.endpoint": store.endpoint, "s3.region": store.region}
        properties |= {"s3.access-key-id": store.access_key_id, "s3.secret-access-key": store.secret_access_key}
    return SqlCatalog(catalogue.name, **properties)


def jars() -> list[Path]:
    """Jars of the checkout; a run without them fails and says what to do."""
    try:
        return find_jars(ROOT / ".cache/jars/spark")
    except FailedPrecondition as exc:
        pytest.fail(exc.message)


def write(table: pa.Table, path: Path, group_rows: int) -> str:
    """A Parquet file in groups of so many rows."""
    pq.write_table(table, path, row_group_size=group_rows)
    return str(path)


@contextmanager
def session_on(master: str, catalogue: Catalogue, **more: str) -> Iterator[SparkSession]:
    """A session of two shuffle partitions, which small data wants."""
    settings = {"spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "2", **more}
    session = open_session(master, catalogue, jars=jars(), application="tests", more=settings)
    try:
        yield session
    finally:
        session.stop()


def add_catalogue(session: SparkSession, catalogue: Catalogue) -> None:
    """Lets a running session read one more catalogue."""
    for key, value in catalogue_settings(catalogue).items():
        if key.startswith("spark.sql.catalog."):
            session.conf.set(key, value)
