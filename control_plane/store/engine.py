"""Opens the database: the one place that knows which one it is."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from headrace.errors import Aborted, DataLoss, HeadraceError, Unavailable

FILE_NAME: Final = "registry.sqlite"
BUSY_TIMEOUT_MS: Final = 5_000  # a writer waits for another at most this long; an apply takes milliseconds
RETRY_MS: Final = 1_000
_WRITES: Final = "headrace_writes"


def open_sqlite(folder: Path) -> Engine:
    """Engine over `registry.sqlite` in a folder: write-ahead log, foreign keys, full durability."""
    engine = create_engine(URL.create("sqlite", database=str(folder / FILE_NAME)))
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes; on SQLite it takes the write lock at once, so that no later step can fail on it."""
    with _translated(), engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        yield connection


def _prepare_sqlite(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # BEGIN is ours, see _begin_sqlite
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except HeadraceError:
        raise
    except exc.IntegrityError as error:
        raise Aborted(
            "another writer registered the same name or version first; repeat the request",
            reason="CONCURRENT_CHANGE",
            retry_after_ms=RETRY_MS,
        ) from error
    except exc.OperationalError as error:
        raise Unavailable(
            f"the registry database does not answer: {error.orig}", reason="STORE_UNAVAILABLE", retry_after_ms=RETRY_MS
        ) from error
    except exc.DatabaseError as error:
        raise DataLoss(f"the registry database cannot be read: {error.orig}", reason="STORE_DAMAGED") from error
