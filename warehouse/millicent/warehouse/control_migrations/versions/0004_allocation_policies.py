"""Allocation policies: who carries idle cost, and what cached tokens weigh, from when on."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table of allocation policies."""
    op.create_table(
        "allocation_policies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False, index=True),
        sa.Column("effective_from", sa.DateTime, nullable=False),
        sa.Column("idle", sa.String, nullable=False),
        sa.Column("cached", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,  # an id in a derivation means one policy for ever
    )
