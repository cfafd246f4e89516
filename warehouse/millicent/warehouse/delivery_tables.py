"""Tables of where events are sent, what happened, and every attempt to tell it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Boolean, Column, Integer, String, Table, Text

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

endpoints: Final = Table(
    "endpoints", metadata,
    Column("id", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("name", String, nullable=False), Column("kind", String, nullable=False),
    Column("sealed", String, nullable=False), Column("shown", String, nullable=False),
    Column("types", JSON, nullable=False), Column("enabled", Boolean, nullable=False), Column("reason", String),
    Column("author", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
)  # fmt: skip
events: Final = Table(
    "events", metadata,
    Column("id", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("type", String, nullable=False), Column("occurred_at", Instant, nullable=False),
    Column("alert", String), Column("body", Text, nullable=False),
)  # fmt: skip
deliveries: Final = Table(
    "deliveries", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("event", String, nullable=False), Column("endpoint", String, nullable=False),
    Column("state", String, nullable=False), Column("tries", Integer, nullable=False), Column("next_at", Instant),
    Column("leased_until", Instant), Column("created_at", Instant, nullable=False), Column("ended_at", Instant),
    sqlite_autoincrement=True,
)  # fmt: skip
attempts: Final = Table(
    "attempts", metadata,
    Column("id", Integer, primary_key=True), Column("delivery", Integer, nullable=False),
    Column("at", Instant, nullable=False), Column("status", Integer), Column("error", String),
    Column("took_ms", Integer, nullable=False), Column("answer", String),
    sqlite_autoincrement=True,
)  # fmt: skip
