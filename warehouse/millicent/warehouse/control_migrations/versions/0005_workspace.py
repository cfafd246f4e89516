"""What a workspace prefers, its saved views, and the business units that it counts beside calls."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the tables of preferences, saved views and business units."""
    op.create_table(
        "workspace",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("preferences", sa.JSON, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.Column("author", sa.String, nullable=False),
    )
    op.create_table(
        "saved_views",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False, index=True),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("search", sa.String, nullable=False),
        sa.Column("audience", sa.String, nullable=False),  # private, team or default
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("used_at", sa.DateTime),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "business_units",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("unit", sa.String, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),  # of UTC
        sa.Column("team", sa.String, primary_key=True),  # empty: not told
        sa.Column("feature", sa.String, primary_key=True),
        sa.Column("customer", sa.String, primary_key=True),
        sa.Column("quantity", sa.String, nullable=False),  # decimals, as text
        sa.Column("revenue_usd", sa.String),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("uploaded_at", sa.DateTime, nullable=False),
    )
