"""Migrations from an empty database to the tables that the code uses."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from control_plane.store.engine import open_sqlite, reading, writing
from control_plane.store.migrate import migrate, newest_migration
from control_plane.store.tables import metadata, registry
from headrace.errors import DataLoss, FailedPrecondition, Unavailable


def test_migrations_make_exactly_the_tables_of_the_code(engine: Engine) -> None:
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == newest_migration()


def test_constraints_hold_names_versions_and_ids(engine: Engine) -> None:
    found = inspect(engine)
    assert found.get_pk_constraint("names")["constrained_columns"] == ["name"]
    assert found.get_pk_constraint("versions")["constrained_columns"] == ["name", "version"]
    unique = {tuple(constraint["column_names"]) for constraint in found.get_unique_constraints("versions")}
    assert unique == {("internal_id",), ("schema_id",)}
    assert len(found.get_foreign_keys("pins")) == 2


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(registry.update().values(revision=5))
    migrate(engine)
    with reading(engine) as connection:
        assert connection.execute(select(registry.c.revision)).scalar_one() == 5


def test_database_of_a_newer_release_is_refused_and_left_alone(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition) as caught:
        migrate(engine)
    assert caught.value.reason == "NEWER_DATABASE"
    assert caught.value.metadata["migration"] == "9999"


def test_damaged_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "registry.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(DataLoss) as caught:
        migrate(open_sqlite(tmp_path))
    assert caught.value.reason == "STORE_DAMAGED"


def test_database_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        migrate(open_sqlite(tmp_path / "missing"))
    assert caught.value.reason == "STORE_UNAVAILABLE"


def test_every_connection_has_what_durability_and_references_need(engine: Engine) -> None:
    with reading(engine) as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5_000}


def test_folder_with_odd_characters_is_served(tmp_path: Path) -> None:
    folder = tmp_path / "a folder, 100% ünïcode?"
    folder.mkdir()
    migrate(open_sqlite(folder))
    assert (folder / "registry.sqlite").exists()
