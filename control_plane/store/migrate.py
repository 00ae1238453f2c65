"""Brings the tables of a database to the newest form."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Engine

from control_plane.store.engine import writing
from headrace.errors import FailedPrecondition

MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"


def migrate(engine: Engine) -> None:
    """Runs the missing migrations in one transaction; raises FailedPrecondition for a database of a newer release."""
    config = _config()
    with writing(engine) as connection:
        held = MigrationContext.configure(connection).get_current_revision()
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise FailedPrecondition(
                f"the registry database is at migration {held!r}, which this release does not know; "
                "start the release that wrote it, or a newer one",
                reason="NEWER_DATABASE",
                metadata={"migration": str(held)},
            ) from error


def newest_migration() -> str:
    """Name of the newest migration."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    # A path with % would be taken for an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
