"""More of budgets; rules, alerts, where they are sent, what was sent, and what is set aside for calls to come."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns of budgets and create the tables of rules, alerts, endpoints, deliveries and reservations."""
    with op.batch_alter_table("budgets") as budgets:
        budgets.add_column(sa.Column("rolling_days", sa.Integer))  # for the period `rolling` alone
        budgets.add_column(sa.Column("rollover", sa.String, nullable=False, server_default="none"))
        budgets.add_column(sa.Column("enforcement", sa.String, nullable=False, server_default="none"))
    _rules_and_alerts()
    _endpoints_and_deliveries()
    op.create_table(
        "reservations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("budget", sa.Integer, nullable=False, primary_key=True),
        sa.Column("calls", sa.Integer, nullable=False),  # that it stands for
        sa.Column("amount", sa.String, nullable=False),  # of each; a decimal in the budget's currency, as text
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("settled_at", sa.DateTime),  # none while the calls are to come or under way
        sa.Column("expires_at", sa.DateTime, nullable=False, index=True),
    )


def _rules_and_alerts() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("budget", sa.Integer),  # id of a budget, for the kinds that are about one
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("threshold", sa.String, nullable=False),  # decimals, as text
        sa.Column("floor", sa.String),
        sa.Column("basis", sa.String, nullable=False),
        sa.Column("window_hours", sa.Integer, nullable=False),
        sa.Column("cooldown_hours", sa.Integer, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("endpoints", sa.JSON, nullable=False),  # ids; none: every endpoint
        sa.Column("muted_until", sa.DateTime),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("tenant", "id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("rule", sa.Integer, nullable=False),
        sa.Column("budget", sa.Integer),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("period_start", sa.DateTime),
        sa.Column("period_end", sa.DateTime),
        sa.Column("dedup_key", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),  # firing, acknowledged, resolved
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("told", sa.Boolean, nullable=False),  # whether endpoints were told, or it was muted
        sa.Column("opened_at", sa.DateTime, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.Column("acknowledged_at", sa.DateTime),
        sa.Column("acknowledged_by", sa.String),
        sa.Column("snoozed_until", sa.DateTime),
        sa.Column("resolved_at", sa.DateTime),
        sa.Column("reason", sa.String),  # why it was resolved
        sa.Column("summary", sa.String, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),  # as the last event told it
    )
    op.create_index(
        "alerts_open", "alerts", ["tenant", "dedup_key"], unique=True, sqlite_where=sa.text("state <> 'resolved'"),
        postgresql_where=sa.text("state <> 'resolved'"),
    )  # fmt: skip
    op.create_index("alerts_by_time", "alerts", ["tenant", "opened_at"])
    op.create_table(
        "alert_judgements",
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("rule", sa.Integer, primary_key=True),
        sa.Column("scope", sa.String, primary_key=True),
        sa.Column("period_start", sa.DateTime, primary_key=True),
        sa.Column("terms", sa.String, nullable=False),  # of budget and rule, by which it was judged
        sa.Column("above", sa.Boolean, nullable=False),  # whether it counts as crossed; false again once re-armed
        sa.Column("held_until", sa.DateTime),  # cleared, but not re-armed: it is not told again before
        sa.Column("value", sa.String, nullable=False),
        sa.Column("judged_at", sa.DateTime, nullable=False),
    )


def _endpoints_and_deliveries() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("sealed", sa.String, nullable=False),  # address and secrets, encrypted
        sa.Column("shown", sa.String, nullable=False),  # the address without what is secret in it
        sa.Column("types", sa.JSON, nullable=False),  # of events; none: all
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String),  # why it is not enabled
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
    )
    op.create_index("endpoints_named", "endpoints", ["tenant", "name"], unique=True,
                    sqlite_where=sa.text("ended_at IS NULL"), postgresql_where=sa.text("ended_at IS NULL"))  # fmt: skip
    op.create_table(
        "events",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("occurred_at", sa.DateTime, nullable=False),
        sa.Column("alert", sa.String, index=True),
        sa.Column("body", sa.Text, nullable=False),  # the JSON that is signed and sent
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("event", sa.String, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("endpoint", sa.String, sa.ForeignKey("endpoints.id"), nullable=False),
        sa.Column("state", sa.String, nullable=False),  # pending, delivered, dead
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", sa.DateTime),
        sa.Column("leased_until", sa.DateTime),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.UniqueConstraint("event", "endpoint"),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_due", "deliveries", ["state", "next_at"])
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("delivery", sa.Integer, sa.ForeignKey("deliveries.id"), nullable=False, index=True),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.String),
        sa.Column("took_ms", sa.Integer, nullable=False),
        sa.Column("answer", sa.String),  # how what came back begins
        sqlite_autoincrement=True,
    )
