"""An example company: two months of calls, own accelerators, and traffic that arrives while you watch.

The past is written to the ledger as records; today goes through the real OTLP port, span by span. Everything is drawn
from a generator seeded by the day, so the same day always looks the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import httpx
import numpy as np
import polars as pl
import pyarrow as pa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from millicent.collector import pipeline
from millicent.collector.batch import Batch, Context
from millicent.collector.dialects import DIALECTS
from millicent.dashboard import demo_budgets, demo_hardware, demo_units
from millicent.pricing.entries import BookEntry, Charge, FxRate, Override, Term
from millicent.warehouse import alert_rules, budgets, ledger, record, units
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.store import Warehouse

DAYS: Final = 56
ANOMALY_DAYS_AGO: Final = 12
SPANS_PER_REQUEST: Final = 200
CATCH_UP_PER_S: Final = 4000

TEAMS: Final = ("Search", "Assistants", "Code Copilot", "Support AI", "Ads Ranking", "Data Platform", "Research")
SERVICES: Final = (
    "search-api", "assistant-web", "copilot-gateway", "support-desk", "ads-ranker", "ingest-pipeline",
    "research-notebooks",
)  # fmt: skip
"""The service of each team, in order."""
INSTRUMENTED: Final = {
    "support-desk": ("otel_genai", "opentelemetry.instrumentation.genai.openai"),
    "ads-ranker": ("otel_genai_previous", "opentelemetry.instrumentation.openai_v2"),
}
"""Dialect and scope of services that others than our SDK instrument."""
TWICE: Final = "support-desk"
"""A service whose API calls our SDK tells of, too: each of them counts once."""
STREAMED: Final = ("claude-sonnet-4-5", "gpt-5.1", "gpt-5-mini")
UNTOLD: Final = 0.02
"""Share of the last service's calls of these models that tell no usage: streams of an old client."""
TOKENS: Final = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
CUSTOMERS: Final = ("acme", "globex", "initech", "umbrella")
UNATTRIBUTED: Final = 0.021
FAILED: Final = 0.006
FEATURES: Final = ("answers", "chat", "completion", "triage", "creatives", "enrichment", "evals")
USERS: Final = tuple(f"{customer}-{number:04}" for customer in CUSTOMERS for number in range(1, 1001))
HEAVY: Final = 0.95
"""How unequal users are: the one of rank n calls in proportion to n to the power of minus this."""
REUSE: Final = (1.05, 1.03, 1.0, 0.97, 0.75, 1.0, 0.8)
"""How often the calls of each team find their input in a cache, against the others."""
PEOPLE_ASK: Final = (0.97, 0.99, 0.94, 0.90, 0.35, 0.0, 0.12)
"""Share of calls behind which there is a person, by team; the rest are jobs, which carry no user."""


@dataclass(frozen=True, slots=True)
class Source:
    """Calls of one kind: where they go, how many on a weekday, how large, whose (shares by team, in order).

    Nobody has declared `lab-l40s`, so what it costs is unknown.
    """

    model: str
    provider: str
    per_day: int
    input_tokens: int
    output_tokens: int
    cached: float
    teams: tuple[int, ...]
    tokens_per_s: int
    deployment: str | None = None
    cache_writes: bool = False


SOURCES: Final = (
    Source("gpt-oss-120b", "openai", 3100, 31700, 1350, 0.55, (30, 25, 5, 20, 5, 10, 5), 34, "oss-b200"),
    Source("gpt-oss-120b", "openai", 1550, 24600, 1200, 0.45, (20, 30, 0, 40, 5, 0, 5), 25, "oss-h100"),
    Source("gpt-oss-120b", "openai", 1300, 26400, 1050, 0.50, (60, 10, 0, 10, 15, 5, 0), 27, "oss-mi355x"),
    Source("qwen3-235b", "openai", 1800, 42200, 1650, 0.48, (15, 35, 10, 20, 0, 20, 0), 17, "qwen-h100"),
    Source("qwen3-235b", "openai", 1500, 38700, 1500, 0.52, (40, 30, 0, 0, 30, 0, 0), 18, "qwen-mi355x"),
    Source("deepseek-v3.2", "openai", 2100, 56300, 2250, 0.60, (10, 15, 45, 0, 0, 15, 15), 21, "deepseek-b200"),
    Source("gemma-3-27b", "openai", 2400, 12300, 450, 0.30, (20, 5, 0, 15, 50, 10, 0), 19, "gemma-tpu"),
    Source("gemma-3-27b", "openai", 450, 10600, 450, 0.20, (0, 0, 0, 0, 80, 20, 0), 14, "gemma-h100"),
    Source("qwen3-8b", "openai", 350, 3200, 225, 0.10, (0, 0, 0, 100, 0, 0, 0), 8, "edge-store"),
    Source("qwen3-embedding-8b", "openai", 2200, 9500, 0, 0.0, (45, 0, 0, 0, 0, 55, 0), 1, "embed-h100"),
    Source("gpt-5-mini", "openai", 1300, 16000, 900, 0.40, (25, 35, 5, 20, 5, 5, 5), 110),
    Source("claude-sonnet-4-5", "anthropic", 1400, 38000, 1900, 0.62, (0, 20, 60, 5, 0, 0, 15), 75, None, True),
    Source("gpt-5.1", "openai", 600, 18000, 1600, 0.35, (10, 40, 10, 10, 5, 5, 20), 80),
    Source("gemini-2.5-flash", "gcp.gemini", 950, 9000, 500, 0.25, (35, 10, 0, 10, 25, 20, 0), 160),
    Source("text-embedding-3-small", "openai", 750, 4000, 0, 0.0, (50, 0, 0, 0, 10, 40, 0), 1),
    Source("llama-3.3-70b", "openai", 45, 9000, 700, 0.0, (0, 0, 0, 0, 0, 10, 90), 30, "lab-l40s"),
    Source("acme-legal-ft-2", "openai", 40, 5200, 900, 0.0, (0, 0, 0, 60, 0, 0, 40), 80),
)

LISTED: Final = {
    "gpt-oss-120b": "groq/openai/gpt-oss-120b",
    "qwen3-235b": "fireworks/qwen3-235b-a22b",
    "deepseek-v3.2": "deepseek/deepseek-v3.2",
    "gemma-3-27b": "aws/google.gemma-3-27b-it",
    "qwen3-8b": "openrouter/qwen/qwen3-8b",
}
"""Models of our own, and who sells the same weights: what their calls would have cost there."""
DISCOUNT_DAYS_AGO: Final = 40
RATES: Final = {"EUR": ("1.158", "1.164", "1.151"), "GBP": ("1.331", "1.322", "1.314")}
"""What a unit of other currencies was in USD, by the month of the history."""
COMMITTED_USD: Final = 3500
SUPPORT_USD: Final = 250

_HOURS: Final = np.array(
    [22, 18, 15, 14, 15, 20, 32, 52, 78, 95, 100, 98, 90, 96, 100, 97, 90, 80, 68, 60, 52, 44, 36, 28]
)
_BY_RANK: Final = np.cumsum(np.arange(1, len(USERS) // len(CUSTOMERS) + 1) ** -HEAVY)
_CALLS_OF: Final = _BY_RANK / _BY_RANK[-1]
"""Share of a customer's calls that its users make up to each rank."""
_WEEKDAY: Final = (1.0, 1.03, 1.04, 1.03, 0.98, 0.52, 0.46)


def declare(warehouse: Warehouse, now: datetime) -> None:
    """Declare the company since the first day of its history: deployments, budgets, what it negotiated and counts."""
    since = _midnight(now) - timedelta(days=DAYS)
    warehouse.control.add_prices(list(_prices(since, now)), actor="demo")
    for deployment in demo_hardware.deployments(since):
        warehouse.control.declare(deployment, actor="demo")
    for budget in demo_budgets.budgets(since, now):
        budgets.put(warehouse.control, DEFAULT_TENANT, budget, actor="demo")
    for rule in demo_budgets.changed(alert_rules.live(warehouse.control, DEFAULT_TENANT)):
        alert_rules.put(warehouse.control, DEFAULT_TENANT, rule, actor="demo")
    counted = list(demo_units.units(now.date(), DAYS, _WEEKDAY, CUSTOMERS))
    units.upload(warehouse.control, DEFAULT_TENANT, counted, actor="demo")


def _prices(since: datetime, now: datetime) -> Iterator[BookEntry]:
    for model, like in LISTED.items():
        yield Override(
            model=model,
            like=like,
            effective_from=since,
            source="The same open weights, hosted by " + like.split("/")[0],
        )
    yield Term(
        provider="openai", percent_off=Decimal(8), effective_from=_midnight(now) - timedelta(days=DISCOUNT_DAYS_AGO),
        source="Order form 2026-041", note="8% off everything, after the renewal",
    )  # fmt: skip
    first = since.replace(day=1)
    yield Charge(
        name="Anthropic commitment", type="commitment", provider="anthropic", amount_usd=Decimal(COMMITTED_USD),
        effective_from=first, source="Agreement A-2291", note="Least billed per month",
    )  # fmt: skip
    yield Charge(
        name="Support plan", type="fee", provider="openai", amount_usd=Decimal(SUPPORT_USD), effective_from=first,
        source="Order form 2026-041",
    )  # fmt: skip
    months = [first := since.replace(day=1)]
    while (first := (first + timedelta(days=32)).replace(day=1)) <= now:
        months.append(first)
    for currency, rates in RATES.items():
        for month, rate in zip(months, rates, strict=False):
            yield FxRate(currency=currency, usd_per_unit=Decimal(rate), effective_from=month,
                         source=f"Treasury's book rate for {month:%B %Y}")  # fmt: skip


def history(warehouse: Warehouse, now: datetime) -> Iterator[int]:
    """Write the days before today; yields the number of calls of each day as it is stored."""
    today = _midnight(now)
    none = pl.DataFrame(schema={"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String,
                                "reason": pl.String, "spans": pl.Int64})  # fmt: skip
    context = Context(warehouse.prices, warehouse.control.deployments(), lambda keys: keys["span_id"].is_null())
    for days_ago in range(DAYS, 0, -1):
        day = today - timedelta(days=days_ago)
        calls = _records(_day(day, today), context)
        with warehouse.engine.write() as transaction:
            ledger.store(transaction, ledger.Batch(calls, none, pl.DataFrame()), change=0)
            transaction.insert("meter_hours", demo_hardware.metered(calls, day, today).to_arrow())
        yield calls.height
    warehouse.engine.checkpoint()


def live(endpoint: str, stop: threading.Event) -> None:
    """Send today so far, quickly, then each call as its time comes, until told to stop."""
    with httpx.Client(base_url=endpoint, timeout=10) as client:
        sent_to = _midnight(datetime.now(UTC))
        while not stop.is_set():
            now = datetime.now(UTC)
            day = _midnight(sent_to)
            due = _day(day, day).filter(pl.col("ended_at") > sent_to, pl.col("ended_at") <= now).sort("ended_at")
            for part in due.iter_slices(SPANS_PER_REQUEST):
                if not _send(client, part, stop):
                    return
                stop.wait(SPANS_PER_REQUEST / CATCH_UP_PER_S)
            sent_to = now if _midnight(now) == day else day + timedelta(days=1)
            stop.wait(1)


def _midnight(instant: datetime) -> datetime:
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)


def _day(day: datetime, today: datetime) -> pl.DataFrame:
    """All calls of one UTC day, as their callers know them."""
    days_ago = (today - day).days
    rng = np.random.default_rng(day.toordinal())
    found = pl.concat(_of_source(source, at, day, days_ago, rng) for at, source in enumerate(SOURCES))
    for at, source in enumerate(SOURCES):
        if down := list(demo_hardware.hours_down(source.deployment, day, today)):
            found = found.filter((pl.col("source") != at) | ~pl.col("started_at").dt.hour().is_in(down))
    return found


def _of_source(source: Source, at: int, day: datetime, days_ago: int, rng: np.random.Generator) -> pl.DataFrame:
    growth = 1.0 - 0.0035 * min(days_ago, DAYS)
    shares = np.array(source.teams, dtype=float)
    if days_ago == ANOMALY_DAYS_AGO and source.provider == "anthropic":
        shares[TEAMS.index("Code Copilot")] *= 4.5  # a retry loop shipped on a Thursday
    calm = sum(source.teams)
    count = int(source.per_day * _WEEKDAY[day.weekday()] * growth * shares.sum() / calm * rng.normal(1, 0.03))
    hours = rng.choice(24, count, p=_HOURS / _HOURS.sum())
    started_us = (hours * 3600 + rng.uniform(0, 3600, count)) * 1e6
    read = np.maximum(20, rng.lognormal(np.log(source.input_tokens), 0.55, count)).astype(np.int64)
    written = rng.lognormal(np.log(source.output_tokens), 0.6, count).astype(np.int64) if source.output_tokens else 0
    luck, part = rng.random(count), rng.uniform(0.55, 0.9, count)
    duration_s = 0.25 + read / 22_000 + written / source.tokens_per_s * rng.uniform(0.8, 1.3, count)
    failed = rng.random(count) < FAILED
    team = rng.choice(len(TEAMS), count, p=shares / shares.sum())
    hit = luck < np.minimum(0.95, source.cached * 1.35 * np.array(REUSE)[team])
    cached = np.where(hit, read * part, 0).astype(np.int64)
    kept = np.where(~hit, read * 0.6, (read - cached) * 0.3).astype(np.int64) if source.cache_writes else 0
    tagged = pl.Series(rng.random(count) >= UNATTRIBUTED)
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(rng.bytes(16 * count))])
    spans = rng.integers(1, 2**63, count, dtype=np.uint64)
    customer = rng.integers(0, len(CUSTOMERS), count)
    user = _users(customer, team, np.random.default_rng((day.toordinal(), at)))
    told = np.random.default_rng((day.toordinal(), at, 1)).random(count) >= UNTOLD
    silent = ~told & (team == len(TEAMS) - 1) & (source.model in STREAMED) & ~failed
    started = pl.Series(started_us.astype(np.int64)).cast(pl.Duration("us")) + pl.lit(day)
    return pl.select(
        trace_id=pl.Series(ids.cast(pa.binary())),
        span_id=pl.Series(spans),
        source=pl.lit(at),
        started_at=started,
        ended_at=started + pl.Series((duration_s * 1e6).astype(np.int64)).cast(pl.Duration("us")),
        team=pl.when(tagged).then(pl.Series(TEAMS).gather(team)),
        feature=pl.when(tagged).then(pl.Series(FEATURES).gather(team)),
        customer=pl.Series(CUSTOMERS).gather(customer),
        user_id=user,
        status=pl.when(pl.Series(failed)).then(pl.lit("error")).otherwise(pl.lit("ok")),
        service=pl.Series(SERVICES).gather(team),
        input_tokens=pl.Series(np.where(failed, 0, read)),
        output_tokens=pl.Series(np.where(failed, 0, written)),
        cache_read_tokens=pl.Series(np.where(failed, 0, cached)),
        cache_write_tokens=pl.Series(np.where(failed, 0, kept)),
    ).with_columns(pl.when(~pl.Series(silent)).then(pl.col(name)).alias(name) for name in TOKENS)


def _users(customer: np.ndarray, team: np.ndarray, rng: np.random.Generator) -> pl.Series:
    """Who is behind each call, by the places of its customer and team; null where nobody is."""
    rank = np.searchsorted(_CALLS_OF, rng.random(customer.size))
    at = customer * (len(USERS) // len(CUSTOMERS)) + rank
    asked = rng.random(customer.size) < np.array(PEOPLE_ASK)[team]
    return pl.select(pl.when(pl.Series(asked)).then(pl.Series(USERS).gather(at))).to_series()


_DIALECTS: Final = {service: dialect for service, (dialect, _) in INSTRUMENTED.items()}
_SCOPES: Final = {service: scope for service, (_, scope) in INSTRUMENTED.items()}
_RULES: Final = {
    service: dialect.rule for service, id_ in _DIALECTS.items() for dialect in DIALECTS if dialect.id == id_
}


def _records(day: pl.DataFrame, context: Context) -> pl.DataFrame:
    """Calls as rows of the record, through the same steps that live calls take after they were read."""
    told = pl.DataFrame(
        {
            "source": range(len(SOURCES)),
            **{name: [getattr(s, name) for s in SOURCES] for name in ("model", "provider", "deployment")},
        },
        schema_overrides={"source": pl.Int32},
    )
    spans = day.join(told, on="source", maintain_order="left").with_columns(
        tenant=pl.lit(DEFAULT_TENANT),
        key_id=pl.lit("demo"),
        received_at=pl.col("ended_at"),
        duration_ms=(pl.col("ended_at") - pl.col("started_at")).dt.total_milliseconds(),
        operation=pl.when(pl.col("output_tokens") == 0).then(pl.lit("embeddings")).otherwise(pl.lit("chat")),
        request_model=pl.col("model"),
        response_model=pl.col("model"),
        signal=pl.lit("span"),
        call_count=pl.lit(1, pl.Int64),
        dialect=pl.col("service").replace_strict(_DIALECTS, default="millicent"),
        usage_rule=pl.col("service").replace_strict(_RULES, default="millicent/1"),
        usage_source=pl.when(pl.col("input_tokens").is_null()).then(pl.lit("missing")).otherwise(pl.lit("reported")),
        usage_flags=pl.lit([], pl.List(pl.String)),
        scope=pl.col("service").replace_strict(_SCOPES, default="millicent.sdk"),
        environment=pl.lit("production"),
        identity_source=pl.when(pl.col("team").is_not_null()).then(pl.lit("span")),
        endpoint_host=pl.lit(None, pl.String),
        endpoint_port=pl.lit(None, pl.Int64),
        odd=pl.lit(None, pl.Struct({"reason": pl.String, "detail": pl.String})),
        counted=pl.lit(value=True),
        stored=pl.lit(value=False),
    )
    absent = [column.name for column in record.CALLS if column.name not in spans.columns]
    spans = spans.with_columns(pl.lit(None, EMPTY.schema[name]).alias(name) for name in absent)
    spans = spans.with_columns(span_id_bytes=pl.lit(None, pl.Binary))
    batch = Batch(spans)
    for step in pipeline.STEPS[5:]:
        batch = step(batch, context)
    return batch.spans


def _send(client: httpx.Client, calls: pl.DataFrame, stop: threading.Event) -> bool:
    body = _request(calls)
    while not stop.is_set():
        try:
            answer = client.post("/v1/traces", content=body, headers={"content-type": "application/x-protobuf"})
            if answer.status_code == httpx.codes.OK:
                return True
        except httpx.TransportError:
            pass  # the receiver is starting, or starting again: the spans are still ours to send
        stop.wait(0.5)
    return False


def _request(calls: pl.DataFrame) -> bytes:
    request = ExportTraceServiceRequest()
    for (service,), spans in calls.partition_by("service", as_dict=True, maintain_order=True).items():
        resource = request.resource_spans.add()
        resource.resource.attributes.append(_text("service.name", str(service)))
        scope = resource.scope_spans.add()
        scope.scope.name = _SCOPES.get(str(service), "millicent.sdk")
        rows = list(spans.iter_rows(named=True))
        scope.spans.extend(_span(row) for row in rows)
        if service == TWICE:
            again = resource.scope_spans.add()
            again.scope.name = "millicent.sdk"
            again.spans.extend(_around(row) for row in rows if SOURCES[row["source"]].deployment is None)
    return request.SerializeToString()


def _span(row: dict[str, Any]) -> Span:
    source = SOURCES[row["source"]]
    operation = "chat" if source.output_tokens else "embeddings"
    told = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": source.provider,
        "gen_ai.request.model": source.model,
        "gen_ai.response.model": source.model,
        "millicent.team": row["team"],
        "millicent.feature": row["feature"],
        "millicent.customer": row["customer"],
        "user.id": row["user_id"],
        "millicent.environment": "production",
        "millicent.deployment": source.deployment,
        "error.type": "rate_limit" if row["status"] == "error" else None,
    }
    counted = {
        "gen_ai.usage.input_tokens": row["input_tokens"],
        "gen_ai.usage.output_tokens": row["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": row["cache_read_tokens"],
        "gen_ai.usage.cache_write.input_tokens": row["cache_write_tokens"],
    }
    parent = _outer(row["span_id"]) if row["service"] == TWICE and source.deployment is None else b""
    return Span(
        trace_id=row["trace_id"],
        span_id=row["span_id"].to_bytes(8, "big"),
        parent_span_id=parent,
        name=f"{operation} {source.model}",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=_ns(row["started_at"]),
        end_time_unix_nano=_ns(row["ended_at"]),
        attributes=[
            *(_text(key, value) for key, value in told.items() if value is not None),
            *(
                KeyValue(key=key, value=AnyValue(int_value=count))
                for key, count in counted.items()
                if count is not None
            ),
        ],
        status=Status(code=Status.STATUS_CODE_ERROR) if row["status"] == "error" else None,
    )


def _around(row: dict[str, Any]) -> Span:
    """The span of our SDK around a call that another instrumentation tells of, with the same usage."""
    span = _span(row)
    span.span_id, span.parent_span_id = span.parent_span_id, b""
    return span


def _outer(span_id: int) -> bytes:
    return (span_id ^ 1).to_bytes(8, "big")


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _ns(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
