"""Registry tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.String(128)


def upgrade() -> None:
    """Makes every table and the one row of `registry`."""
    registry = op.create_table(
        "registry",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("highest_id", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.bulk_insert(registry, [{"id": 1, "revision": 0, "highest_id": 0}])
    _create_definitions()
    _create_log()


def _create_definitions() -> None:
    op.create_table(
        "names",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("mutable", sa.Text, nullable=False),
        sa.Column("etag", sa.String(64), nullable=False),
        sa.Column("update_time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "versions",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("frozen", sa.Text, nullable=False),
        sa.Column("create_time_us", sa.BigInteger, nullable=False),
        sa.Column("internal_id", sa.BigInteger, nullable=True),
        sa.Column("schema_id", sa.BigInteger, nullable=True),
        sa.Column("transform_digest", sa.LargeBinary(32), nullable=True),
        sa.PrimaryKeyConstraint("name", "version"),
        sa.ForeignKeyConstraint(["name"], ["names.name"]),
        sa.UniqueConstraint("internal_id"),
        sa.UniqueConstraint("schema_id"),
    )
    op.create_table(
        "pins",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("pinned_name", _NAME, nullable=False),
        sa.Column("pinned_version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("name", "version", "pinned_name", "pinned_version"),
        sa.ForeignKeyConstraint(["name", "version"], ["versions.name", "versions.version"]),
        sa.ForeignKeyConstraint(["pinned_name", "pinned_version"], ["versions.name", "versions.version"]),
    )


def _create_log() -> None:
    op.create_table(
        "revisions",
        sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
    )
    op.create_table(
        "answers",
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("request_id"),
    )
