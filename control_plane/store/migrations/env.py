"""Runs migrations on the connection that control_plane/store/migrate.py opened."""

from alembic import context

from control_plane.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
