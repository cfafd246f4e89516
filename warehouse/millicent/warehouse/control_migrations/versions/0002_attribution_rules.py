"""Attribution rules."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table of attribution rules."""
    op.create_table(
        "attribution_rules",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("conditions", sa.JSON, nullable=False),
        sa.Column("sets", sa.JSON, nullable=False),
        sa.Column("override", sa.Boolean, nullable=False),
        sa.Column("effective_from", sa.DateTime),
        sa.Column("effective_to", sa.DateTime),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,  # an id in the audit log means one rule for ever
    )
