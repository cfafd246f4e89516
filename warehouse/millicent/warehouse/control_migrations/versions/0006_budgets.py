"""Budgets, a row for every version of each."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table of budgets."""
    op.create_table(
        "budgets",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("parent", sa.Integer),  # id of another budget
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("period", sa.String, nullable=False),
        sa.Column("fiscal_month", sa.Integer, nullable=False),
        sa.Column("amount", sa.String, nullable=False),  # a decimal, as text
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("basis", sa.String, nullable=False),
        sa.Column("time_zone", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("effective_from", sa.DateTime, nullable=False),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("tenant", "id", "version"),
        sqlite_autoincrement=True,
    )
