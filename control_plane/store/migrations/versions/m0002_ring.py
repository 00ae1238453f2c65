"""Rings by epoch."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table of epochs."""
    op.create_table(
        "ring_epochs",
        sa.Column("epoch", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("cause", sa.String(128), nullable=False),
        sa.Column("ring", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("epoch"),
    )
