"""Price entries, price data and versions, closed periods, repricings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _tenant(**more: bool) -> sa.Column:
    return sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False, **more)


def upgrade() -> None:
    """Create the tables of the price book."""
    op.create_table(
        "price_entries",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("effective_from", sa.DateTime, nullable=False),
        sa.Column("effective_to", sa.DateTime),
        sa.Column("known_from", sa.DateTime, nullable=False),
        sa.Column("retired_at", sa.DateTime),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sqlite_autoincrement=True,  # an id on a stored call means one entry for ever
    )
    op.create_table(
        "price_data",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("held", sa.JSON, nullable=False),
        sa.Column("first_seen_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "price_updates",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("version", sa.String, sa.ForeignKey("price_data.version"), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("actor", sa.String),
    )
    op.create_table(
        "price_names",
        *(
            sa.Column(name, sa.String, primary_key=True)
            for name in ("data_version", "provider", "model", "endpoint_host")
        ),
        *(sa.Column(name, sa.String, nullable=False) for name in ("found_provider", "owner", "found_model")),
    )
    op.create_table(
        "price_versions",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("data_version", sa.String, sa.ForeignKey("price_data.version"), nullable=False),
        sa.Column("entry_ids", sa.JSON, nullable=False),
        sa.Column("known_from", sa.DateTime, nullable=False),
    )
    op.create_table(
        "closed_periods",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(index=True),
        sa.Column("start", sa.DateTime, nullable=False),
        sa.Column("end", sa.DateTime, nullable=False),
        sa.Column("closed_at", sa.DateTime, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
    )
    op.create_table(
        "repricings",
        sa.Column("id", sa.Integer, primary_key=True),
        _tenant(index=True),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("start", sa.DateTime, nullable=False),
        sa.Column("end", sa.DateTime, nullable=False),
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("undo_of", sa.Integer, sa.ForeignKey("repricings.id")),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("finished_at", sa.DateTime),
        sa.Column("error", sa.String),
        sqlite_autoincrement=True,  # a run on a charge means one repricing for ever
    )
