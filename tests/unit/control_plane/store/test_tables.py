"""Tables as every database takes them."""

import pytest
from sqlalchemy import Dialect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable, Table

from control_plane.store.tables import metadata, registry

DIALECTS = [postgresql.dialect(), sqlite.dialect()]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("dialect", DIALECTS, ids=["postgresql", "sqlite"])
@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_table_is_written_for_each_database(table: Table, dialect: Dialect) -> None:
    statement = str(CreateTable(table).compile(dialect=dialect))
    assert statement.strip().startswith(f"CREATE TABLE {table.name} (")
    assert "CONSTRAINT" in statement, "constraints have names, so that a later migration finds them"


def test_writer_locks_the_head_where_rows_can_be_locked() -> None:
    statement = select(registry.c.id).with_for_update()
    assert str(statement.compile(dialect=DIALECTS[0])).endswith("FOR UPDATE")
    assert "FOR UPDATE" not in str(statement.compile(dialect=DIALECTS[1]))
