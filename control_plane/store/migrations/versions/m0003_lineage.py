"""Lineage log."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables of nodes, edges and runs, and the one row that says how far the registry is declared."""
    op.create_table(
        "lineage_nodes",
        sa.Column("node_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "lineage_edges",
        sa.Column("edge_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("source_id", sa.BigInteger, nullable=False),
        sa.Column("target_id", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("origin_id", sa.BigInteger, nullable=False),
        sa.Column("valid_from_us", sa.BigInteger, nullable=False),
        sa.Column("valid_to_us", sa.BigInteger, nullable=True),
        sa.Column("known_us", sa.BigInteger, nullable=False),
        sa.Column("replaces_id", sa.BigInteger, nullable=True),
        sa.Column("transform", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("edge_id"),
        sa.ForeignKeyConstraint(["source_id"], ["lineage_nodes.node_id"]),
        sa.ForeignKeyConstraint(["target_id"], ["lineage_nodes.node_id"]),
        sa.ForeignKeyConstraint(["origin_id"], ["lineage_nodes.node_id"]),
        sa.UniqueConstraint("replaces_id"),
    )
    op.create_index("ix_lineage_edges_origin_id", "lineage_edges", ["origin_id"])
    op.create_table(
        "lineage_runs",
        sa.Column("node_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("start_time_us", sa.BigInteger, nullable=False),
        sa.Column("end_time_us", sa.BigInteger, nullable=True),
        sa.Column("git_sha", sa.Text, nullable=False),
        sa.Column("kernel_version", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sa.ForeignKeyConstraint(["node_id"], ["lineage_nodes.node_id"]),
    )
    head = op.create_table(
        "lineage_head",
        sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("declared_revision", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
    )
    op.bulk_insert(head, [{"id": 1, "declared_revision": 0}])
