"""The tables of the ledger as SQLAlchemy sees them; their columns are created by `migrations/`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
)  # fmt: skip
from sqlalchemy.types import TypeEngine

from millicent.warehouse import record

EXACT: Final = Numeric(38, 24)
SUM_USD: Final = Numeric(38, 12)
metadata: Final = MetaData()


def without_zone(instant: datetime) -> datetime:
    """An aware instant as columns of these tables hold it: in UTC, without saying so."""
    return instant.astimezone(UTC).replace(tzinfo=None)


def _type(of: pa.DataType) -> TypeEngine[Any]:
    if pa.types.is_timestamp(of):
        return DateTime()
    if pa.types.is_decimal(of):
        return Numeric(of.precision, of.scale)
    if pa.types.is_boolean(of):
        return Boolean()
    if pa.types.is_integer(of):
        return BigInteger()
    if pa.types.is_floating(of):
        return Double()
    return Uuid() if of == pa.uuid() else String()


calls: Final = Table("calls", metadata, *(Column(c.name, _type(c.type)) for c in record.CALLS))

told: Final = Table("told", metadata, *(Column(c.name, _type(c.type)) for c in record.CALLS))

EDGE_TAGS: Final = (
    "environment", "team", "project", "feature", "customer", "user_id", "session_id",
    "deployment", "engine", "accelerator", "accelerator_count", "precision", "region",
)  # fmt: skip
edges: Final = Table(
    "edges", metadata,
    Column("tenant", String), Column("trace_id", Uuid), Column("span_id", BigInteger),
    Column("parent_span_id", BigInteger), Column("received_at", DateTime), Column("started_at", DateTime),
    Column("duration_ms", BigInteger), Column("service", String),
    *(Column(name, Integer if name == "accelerator_count" else String) for name in EDGE_TAGS),
    Column("tag_sources", String),
)  # fmt: skip

series: Final = Table(
    "series", metadata,
    Column("tenant", String), Column("series", Uuid), Column("last_at", DateTime), Column("value", BigInteger),
    Column("count", BigInteger), Column("seen_at", DateTime),
)  # fmt: skip

usage_hourly: Final = Table(
    "usage_hourly",
    metadata,
    Column("tenant", String),
    Column("hour", DateTime),
    *(Column(name, _type(record.SCHEMA.field(name).type)) for name in record.DIMENSIONS),
    Column("row_count", BigInteger),
    Column("calls", BigInteger),
    *(Column(name, BigInteger) for name in record.TOKENS),
    *(Column(name, SUM_USD) for name in record.MONEY),
    *(Column(f"{name}_nulls", BigInteger) for name in record.SUMMED),
)

deployment_hours: Final = Table(
    "deployment_hours",
    metadata,
    *(Column(name, String) for name in ("tenant", "deployment")),
    Column("hour", DateTime),
    *(Column(name, String) for name in ("model", "engine", "precision", "accelerator", "region", "environment")),
    *(Column(name, BigInteger) for name in ("accelerator_count", "elapsed_ms", "busy_ms", "accelerator_ms")),
    *(Column(name, EXACT) for name in ("fixed_usd", "energy_usd", "hosting_usd", "busy_usd", "idle_usd")),
    Column("untracked_usd", EXACT),
    *(Column(name, Numeric(38, 6)) for name in ("joules", "gco2e_g")),
    *(Column(name, Integer) for name in ("w_input", "w_cached", "w_output")),
    Column("weight", Numeric(38, 0)),
    *(Column(name, EXACT) for name in ("rate_usd_per_weight", "energy_rate_usd_per_weight")),
    *(Column(name, String) for name in ("method", "sources")),
    Column("declared_from", DateTime),
    Column("provisional", Boolean),
    Column("computed_at", DateTime),
    *(Column(name, String) for name in ("pool", "contract", "owner", "energy_source", "busy_source", "computed_from")),
    *(Column(name, BigInteger) for name in ("unavailable_ms", "unobserved_ms")),
    *(Column(f"{what}_accelerator_ms", BigInteger) for what in ("busy", "unavailable", "unobserved", "unused")),
    Column("unavailable_usd", EXACT),
    *(
        Column(f"{where}_{amount}", EXACT)
        for amount in ("energy_usd", "joules", "gco2e_g", "gco2e_market_g")
        for where in ("busy", "unavailable", "untracked")
    ),
    Column("gco2e_market_g", Numeric(38, 6)),
    *(Column(f"output_{rate}", EXACT) for rate in ("rate_usd_per_weight", "energy_rate_usd_per_weight")),
    *(
        Column(f"{side}{amount}_per_weight", EXACT)
        for amount in ("joules", "gco2e_g", "gco2e_market_g")
        for side in ("", "output_")
    ),
    *(Column(name, BigInteger) for name in ("input_tokens", "cached_tokens", "output_tokens")),
    *(Column(name, BigInteger) for name in ("engine_input_tokens", "engine_output_tokens", "policy")),
)

OF_DEPLOYMENTS: Final = ("deployment", "model", "engine", "precision", "accelerator", "region", "environment")
"""Dimensions of calls that a deployment-hour has, too."""

idle_shares: Final = Table(
    "idle_shares", metadata,
    Column("tenant", String), Column("deployment", String), Column("hour", DateTime), Column("kind", String),
    Column("team", String), Column("usd", EXACT),
)  # fmt: skip

METERED: Final = (
    "observed_ms", "busy_ms", "unavailable_ms", "counted_ms", "gap_ms", "prompt_tokens", "cached_tokens",
    "output_tokens", "prefill_us", "decode_us", "requests", "millijoules", "resets",
)  # fmt: skip
"""What a meter tells of an hour; rows of the same hour add up, and NULL is what it does not tell."""
meter_hours: Final = Table(
    "meter_hours", metadata,
    Column("tenant", String), Column("deployment", String), Column("hour", DateTime), Column("source", String),
    Column("role", String), *(Column(name, BigInteger) for name in METERED), Column("read_at", DateTime),
)  # fmt: skip
meter_series: Final = Table(
    "meter_series", metadata,
    *(Column(name, String) for name in ("tenant", "deployment", "source", "role", "counter", "series")),
    Column("started", DateTime), Column("read_at", DateTime), Column("value", BigInteger),
)  # fmt: skip

dirty_hours: Final = Table(
    "dirty_hours", metadata,
    Column("tenant", String), Column("deployment", String), Column("hour", DateTime), Column("change", BigInteger),
)  # fmt: skip

loaded: Final = Table(
    "loaded", metadata,
    Column("spool", String), Column("segment", BigInteger), Column("byte_offset", BigInteger),
    Column("change", BigInteger),
)  # fmt: skip

CHARGED_TO: Final = (
    "provider", "model", "team", "project", "feature", "customer", "environment", "service", "deployment",
)  # fmt: skip
"""What a charge is told of; a charge has no value in any other dimension of calls."""
charges: Final = Table(
    "charges", metadata,
    Column("tenant", String), Column("charged_at", DateTime), Column("type", String), Column("name", String),
    Column("entry", BigInteger), Column("run", BigInteger),
    Column("period_start", DateTime), Column("period_end", DateTime),
    *(Column(name, String) for name in CHARGED_TO),
    Column("list_usd", SUM_USD), Column("billed_usd", SUM_USD), Column("provisional", Boolean),
    Column("why", String), Column("computed_at", DateTime),
    *(Column(name, EXACT) for name in ("hardware_usd", "energy_usd", "idle_usd")),
)  # fmt: skip

PRICE: Final = (*record.MONEY, "price_status", "price_entry", "price_version")
"""Columns of calls that say what they cost, and by which price."""
WORDS: Final = PRICE[-3:]
"""Those of them that are no amounts."""
price_words: Final = Table("price_words", metadata, Column("id", BigInteger), *(Column(name, String) for name in WORDS))
repriced_amounts: Final = Table(
    "repriced_amounts", metadata,
    Column("run", BigInteger), Column("tenant", String), Column("started_at", DateTime), Column("trace_id", Uuid),
    Column("span_id", BigInteger), *(Column(name, _type(record.SCHEMA.field(name).type)) for name in record.MONEY),
    Column("words", BigInteger),
)  # fmt: skip
repriced: Final = Table(
    "repriced", metadata,
    Column("run", BigInteger), Column("tenant", String), Column("started_at", DateTime), Column("trace_id", Uuid),
    Column("span_id", BigInteger), *(Column(name, _type(record.SCHEMA.field(name).type)) for name in PRICE),
)  # fmt: skip
"""A view of the two above, to read from."""

repricing_days: Final = Table(
    "repricing_days", metadata,
    Column("run", BigInteger), Column("tenant", String), Column("day", DateTime),
    Column("calls", BigInteger), Column("changed", BigInteger),
    *(Column(f"{name}_usd_{when}", SUM_USD) for name in ("list", "billed") for when in ("before", "after")),
    Column("adjusted", Boolean), Column("done_at", DateTime),
)  # fmt: skip

outcomes: Final = Table(
    "outcomes", metadata,
    Column("tenant", String), Column("hour", DateTime), Column("outcome", String), Column("reason", String),
    Column("spans", BigInteger),
)  # fmt: skip

quarantine: Final = Table(
    "quarantine", metadata,
    *(Column(name, String) for name in ("tenant", "reason", "detail", "trace_id", "span_id", "scope", "service")),
    Column("received_at", DateTime), Column("usage_raw", String),
)  # fmt: skip
