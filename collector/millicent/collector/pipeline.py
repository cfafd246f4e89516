"""The life of a span after the spool, as a list. Reading `STEPS` from top to bottom is reading the product.

Every step takes and returns a `Batch`; a span leaves only through `Batch.leave`, with an outcome and a reason, so that
spans in = calls + everything that left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import polars as pl

from millicent.collector.decode import RESOURCE, decode
from millicent.collector.dialects import (
    ATTRIBUTION,
    CALL_OPERATIONS,
    DIALECTS,
    STATUS,
    USAGE_SOURCE,
    Dialect,
    wanted,
)
from millicent.pricing import catalog
from millicent.warehouse import record
from millicent.warehouse.control import Deployment
from millicent.warehouse.ledger import KEY

MOST_TOKENS: Final = 1_000_000_000
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(hours=24)
LONGEST: Final = timedelta(hours=24)
CACHE_WRITES_BY_TIME: Final = tuple(
    name for name in record.TOKENS if name.startswith("cache_write_") and name != "cache_write_tokens"
)
CACHES: Final = ("cache_read_tokens", "cache_write_tokens", *CACHE_WRITES_BY_TIME)
_ERROR: Final = 2


class Prices(Protocol):
    """What the pipeline needs of a price book."""

    def price(self, usages: pl.DataFrame) -> pl.DataFrame:
        """List cost and its parts, status, entry and version, one row per usage."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One acknowledged request, as the spool kept it but expanded."""

    body: bytes
    tenant: str
    key_id: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Context:
    """What the steps look things up in. `seen` tells which keys (columns of `ledger.KEY`) are stored already."""

    prices: Prices
    deployments: Sequence[tuple[str, Deployment]]
    seen: Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True)
class Batch:
    """`spans`: rows still on their way. `left`: (tenant, received_at, outcome, reason) of those that went.

    `broken`: places of requests that do not decode, none of whose spans are in either.
    """

    spans: pl.DataFrame
    left: tuple[pl.DataFrame, ...] = ()
    broken: tuple[int, ...] = ()
    quarantined: pl.DataFrame = field(default_factory=pl.DataFrame)

    def leave(self, who: pl.Expr, outcome: str, reason: pl.Expr) -> Batch:
        """Let the spans for which `who` is true go, with an outcome of `ledger.OUTCOMES` and a reason."""
        known = who.fill_null(False)
        going = self.spans.filter(known).select(
            "tenant", "received_at", outcome=pl.lit(outcome), reason=reason.cast(pl.String)
        )
        return replace(self, spans=self.spans.filter(~known), left=(*self.left, going)) if going.height else self


def run(incoming: Sequence[Incoming], context: Context) -> Batch:
    """Take requests through every step.

    Returns:
        `spans` in the columns of `record.SCHEMA` (`trace_id` as 16 bytes), all that left, and what was quarantined.
    """
    decoded = decode([one.body for one in incoming], wanted())
    envelope = pl.DataFrame(
        [(at, one.tenant, one.key_id, one.received_at) for at, one in enumerate(incoming)],
        schema={
            "record": pl.UInt32,
            "tenant": pl.String,
            "key_id": pl.String,
            "received_at": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )
    batch = Batch(decoded.spans.join(envelope, on="record", how="left", maintain_order="left"), broken=decoded.broken)
    for step in STEPS:
        batch = step(batch, context)
    return batch


def pick_calls(batch: Batch, _: Context) -> Batch:
    """Let go of spans that are not one physical LLM call: ordinary spans, and roll-ups over several calls."""
    dialect = pl.coalesce(*(pl.when(row.claims).then(pl.lit(row.id)) for row in DIALECTS))
    batch = replace(batch, spans=batch.spans.with_columns(dialect=dialect))
    batch = batch.leave(pl.col("dialect").is_null(), "not_a_call", pl.lit("no_dialect"))
    told = _first(batch.spans, DIALECTS[0].facts["operation"]).str.to_lowercase()
    operation = told.replace_strict(CALL_OPERATIONS, default=None, return_dtype=pl.String)
    batch = replace(batch, spans=batch.spans.with_columns(operation=operation))
    named = told.fill_null("none").str.slice(0, 40).str.replace_all(r"[^a-z0-9_.:-]", "?")
    return batch.leave(pl.col("operation").is_null(), "not_a_call", pl.concat_str(pl.lit("operation:"), named))


def read_dialect(batch: Batch, _: Context) -> Batch:
    """Bring each dialect's attributes to the columns of the record, and keep the counters as they came."""
    of_each = ((row, batch.spans.filter(pl.col("dialect") == row.id)) for row in DIALECTS)
    parts = [_read(spans, row) for row, spans in of_each if spans.height]
    return replace(batch, spans=pl.concat(parts or [_read(batch.spans, DIALECTS[0])]))


def normalise_tokens(batch: Batch, _: Context) -> Batch:
    """Make tokens keep their promises (parts within totals, never negative), and mark what cannot be true."""
    input_, output = pl.col("input_tokens"), pl.col("output_tokens")
    bounds = [pl.col(name).is_between(0, MOST_TOKENS).fill_null(True) for name in record.TOKENS]
    spans = batch.spans.with_columns(
        odd=_odd(bounds),
        failed=(pl.col("status") == "error") & input_.is_null() & output.is_null(),
        cache_write_tokens=pl.coalesce("cache_write_tokens", _known_sum(CACHE_WRITES_BY_TIME)),
    )
    cache = pl.col("cache_read_tokens").fill_null(0) + pl.col("cache_write_tokens").fill_null(0)
    outside = (cache > input_).fill_null(False)
    lost = input_.is_null() & (cache > 0)
    over = (pl.col("reasoning_tokens") > output).fill_null(False)
    no_output = output.is_null() & (pl.col("operation") == "embeddings") & input_.is_not_null()
    read = {name: pl.col(name) for name in record.TOKENS}
    read |= {name: pl.when(~lost).then(name) for name in CACHES}
    read["input_tokens"] = pl.when(outside).then(input_ + cache).otherwise(input_)
    read["output_tokens"] = (
        pl.when(no_output).then(0).when(over).then(output + pl.col("reasoning_tokens")).otherwise(output)
    )
    spans = spans.with_columns(
        **{name: pl.when("failed").then(0).otherwise(tokens) for name, tokens in read.items()},
        usage_flags=pl.concat_list(
            pl.when(outside).then(pl.lit("input_excluded_cache")),
            pl.when(over).then(pl.lit("output_excluded_reasoning")),
            pl.when(lost & ~pl.col("failed")).then(pl.lit("cache_without_input")),
            pl.when("failed").then(pl.lit("failed_without_usage")),
            pl.col("doubtful_end"),
        ).list.drop_nulls(),
    )  # fmt: skip
    missing = pl.col("input_tokens").is_null() & pl.col("output_tokens").is_null()
    told = pl.when(pl.col("told_source") == "estimated").then(pl.lit("estimated")).otherwise(pl.lit("reported"))
    return replace(
        batch, spans=spans.with_columns(usage_source=pl.when(missing).then(pl.lit("missing")).otherwise(told))
    )


def attribute(batch: Batch, _: Context) -> Batch:
    """Who pays: the nearest tag wins, from the span, then from its resource."""
    on_span = _first(batch.spans, tuple(key for key in ATTRIBUTION["team"] if not key.startswith(RESOURCE)))
    anywhere = _first(batch.spans, ATTRIBUTION["team"])
    source = pl.when(on_span.is_not_null()).then(pl.lit("span")).when(anywhere.is_not_null()).then(pl.lit("resource"))
    tags = {name: _first(batch.spans, keys) for name, keys in ATTRIBUTION.items()}
    tags["accelerator_count"] = tags["accelerator_count"].cast(pl.Int32, strict=False)
    return replace(batch, spans=batch.spans.with_columns(identity_source=source, **tags).drop(_tag_columns()))


def match_deployment(batch: Batch, context: Context) -> Batch:
    """Which of our deployments served it, by name or by the host that answered; then what it runs on."""
    declared = _periods(context.deployments)
    spans = batch.spans.with_row_index("row").with_columns(pl.col("endpoint_host").str.to_lowercase())
    spans = spans.with_columns(host_and_port=pl.concat_str("endpoint_host", pl.lit(":"), "endpoint_port"))
    by_name = declared.unique(["tenant", "deployment", "effective_from"], maintain_order=True)
    by_host = declared.filter(pl.col("endpoint").is_not_null())
    asked = spans.select("row", "tenant", "deployment", "started_at", "endpoint_host", "host_and_port")
    found = pl.concat(
        asked.join(hosts, left_on=["tenant", key], right_on=["tenant", other], maintain_order="left_right").select(
            "row", "started_at", *_DECLARED
        )
        for key, hosts, other in (
            ("deployment", by_name, "deployment"),
            ("host_and_port", by_host, "endpoint"),
            ("endpoint_host", by_host, "endpoint"),
        )
    ).filter(
        pl.col("started_at") >= pl.col("effective_from"),
        pl.col("effective_to").is_null() | (pl.col("started_at") < pl.col("effective_to")),
    )
    found = found.unique("row", keep="first", maintain_order=True).drop("started_at", "effective_from", "effective_to")
    spans = spans.join(found, on="row", how="left", maintain_order="left").with_columns(
        deployment=pl.coalesce("declared", "deployment"),
        **{name: pl.coalesce(f"declared_{name}", name) for name in _OF_DEPLOYMENT},
    )
    own = pl.any_horizontal(pl.col(name).is_not_null() for name in ("deployment", "accelerator", "engine"))
    billing = pl.when(own).then(pl.lit("self_hosted")).otherwise(pl.lit("api"))
    return replace(batch, spans=spans.with_columns(billing=billing, accelerator=_catalogued(spans["accelerator"])))


def count_once(batch: Batch, context: Context) -> Batch:
    """Let go of spans that are here already, in this batch or in the ledger."""
    sound = batch.spans.filter(pl.col("odd").is_null()).select("row", *KEY)
    again = pl.struct(KEY).is_first_distinct().not_() | context.seen(sound.select(KEY))
    spans = batch.spans.join(
        sound.select("row", again=again), on="row", how="left", maintain_order="left"
    ).with_columns(
        counted=pl.lit(True),
        not_counted_reason=pl.lit(None, pl.String),
        counted_as=pl.lit(None, pl.UInt64),
    )
    return replace(batch, spans=spans).leave(pl.col("again"), "duplicate", pl.lit("same_span"))


def price(batch: Batch, context: Context) -> Batch:
    """What the API list asks for these tokens at that instant, and what is billed for the call."""
    spans = batch.spans.with_columns(context.prices.price(batch.spans))
    own = pl.col("billing") == "self_hosted"
    unbilled = (pl.col("status") == "error") & (pl.col("input_tokens") == 0) & (pl.col("output_tokens") == 0)
    status = pl.when(own | unbilled).then(pl.lit("not_billed")).otherwise("price_status")
    spans = spans.with_columns(
        price_status=status,
        **{
            name: pl.when(unbilled & pl.col(name).is_not_null()).then(_NOTHING).otherwise(name)
            for name in record.MONEY
            if name in spans.columns
        },
    )
    billed = pl.when(own).then(_NOTHING).otherwise("list_cost_usd")
    return replace(batch, spans=spans.with_columns(billed_cost_usd=billed))


def quarantine(batch: Batch, _: Context) -> Batch:
    """Set aside what cannot be true, with the reason; everything else becomes rows of the record."""
    odd = batch.spans.filter(pl.col("odd").is_not_null())
    aside = odd.select(
        "tenant", "received_at", reason=pl.col("odd").struct["reason"], detail=pl.col("odd").struct["detail"],
        trace_id=pl.col("trace_id").bin.slice(0, 32).bin.encode("hex"),
        span_id=pl.col("span_id_bytes").bin.slice(0, 32).bin.encode("hex"),
        scope=pl.col("scope"), service=pl.col("service"), usage_raw=pl.col("usage_raw"),
    )  # fmt: skip
    batch = batch.leave(pl.col("odd").is_not_null(), "quarantined", pl.col("odd").struct["reason"])
    spans = batch.spans.select(
        pl.col(column.name).cast(_POLARS[column.name]) if column.name in _POLARS else pl.col(column.name)
        for column in record.CALLS
    )
    return replace(batch, spans=spans, quarantined=aside)


STEPS: Final = (
    pick_calls,
    read_dialect,
    normalise_tokens,
    attribute,
    match_deployment,
    count_once,
    price,
    quarantine,
)

_OF_DEPLOYMENT: Final = ("engine", "precision", "accelerator", "accelerator_count", "region", "environment")
_DECLARED: Final = ("declared", *(f"declared_{name}" for name in _OF_DEPLOYMENT), "effective_from", "effective_to")
EMPTY: Final = pl.DataFrame(pl.from_arrow(record.SCHEMA.remove(1).empty_table()))
"""The record's columns as polars types, without `trace_id`."""
_NOTHING: Final = pl.lit(0, pl.Decimal(18, 12))
_POLARS: Final = {name: dtype for name, dtype in EMPTY.schema.items() if name != "labels"}


def _first(spans: pl.DataFrame, keys: Sequence[str]) -> pl.Expr:
    """The first of `keys` that says something; blank text says nothing."""
    type_ = spans.schema[keys[0]]
    present = [pl.col(key) for key in keys if spans[key].null_count() < spans.height]
    if type_ == pl.String:
        said = (key.str.strip_chars() for key in present)
        present = [pl.when(text != "").then(text) for text in said]
    return pl.coalesce(*present) if present else pl.lit(None, type_)


def _tag_columns() -> list[str]:
    return [key for keys in ATTRIBUTION.values() for key in keys]


def _read(spans: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    usage = {name: _first(spans, keys) for name, keys in dialect.usage.items()}
    told = pl.any_horizontal(usage[name].is_not_null() for name in ("input_tokens", "output_tokens"))
    for name in dialect.absent_is_zero:
        usage[name] = pl.when(told).then(usage[name].fill_null(0))
    facts = {name: _first(spans, keys) for name, keys in dialect.facts.items() if name != "operation"}
    started = (pl.col("start_ns") // 1000).cast(pl.Int64)
    lasted_ms = (pl.col("end_ns") // 1_000_000).cast(pl.Int64) - (pl.col("start_ns") // 1_000_000).cast(pl.Int64)
    backwards, too_long = lasted_ms < 0, lasted_ms > LONGEST // timedelta(milliseconds=1)
    ttft_ms = (pl.col("ttft_s") * 1000).round().cast(pl.Int64, strict=False)
    return spans.select(
        "tenant", "key_id", "received_at", "trace_id", "scope", "labels", "dialect", "operation",
        *_tag_columns(),
        span_id_bytes=pl.col("span_id"),
        span_id=_id(pl.col("span_id")),
        parent_span_id=_id(pl.col("parent_span_id")),
        started_at=started.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        duration_ms=pl.when(~backwards & ~too_long).then(lasted_ms),
        doubtful_end=pl.when(backwards).then(pl.lit("ended_before_start"))
        .when(too_long).then(pl.lit("lasted_over_a_day")),
        status=pl.when(pl.col(STATUS) == "cancelled").then(pl.lit("cancelled"))
        .when(pl.col("status_code") == _ERROR).then(pl.lit("error")).otherwise(pl.lit("ok")),
        scope_version=pl.col("scope_version"),
        usage_rule=pl.lit(dialect.rule),
        usage_raw=_raw(spans, sorted({key for keys in dialect.usage.values() for key in keys})),
        told_source=pl.col(USAGE_SOURCE),
        **usage,
        **facts,
    ).with_columns(
        provider=pl.col("provider").str.to_lowercase(),
        model=pl.coalesce("response_model", "request_model"),
        ttft_ms=pl.when(ttft_ms >= 0).then(ttft_ms),
        response_id=pl.when(pl.col("response_id").is_not_null()).then(pl.col("response_id").hash(0)),
    )  # fmt: skip


def _id(column: pl.Expr) -> pl.Expr:
    """Eight bytes as a number; null when there are not eight or all are zero."""
    number = column.bin.reinterpret(dtype=pl.UInt64, endianness="big")
    return pl.when((column.bin.size() == 8) & (number != 0)).then(number)


def _known_sum(names: Sequence[str]) -> pl.Expr:
    """The sum of what is known; null when nothing is."""
    return pl.when(pl.any_horizontal(pl.col(name).is_not_null() for name in names)).then(pl.sum_horizontal(names))


def _raw(spans: pl.DataFrame, keys: list[str]) -> pl.Expr:
    """The counters that came, as compact JSON; null when none did."""
    came = [key for key in keys if spans[key].null_count() < spans.height]
    if not came:
        return pl.lit(None, pl.String)
    said = [pl.concat_str(pl.lit(f'"{key}":'), pl.col(key).cast(pl.String)) for key in came]
    joined = pl.concat_str(said, separator=",", ignore_nulls=True)
    return pl.when(joined != "").then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))


def _odd(bounds: list[pl.Expr]) -> pl.Expr:
    """Why a span cannot be true: reason and detail; null when it can."""
    trace = pl.col("trace_id")
    ids = (trace.bin.size() == 16) & (trace != bytes(16)) & pl.col("span_id").is_not_null()
    started, latest = pl.col("started_at"), pl.col("received_at") + AHEAD
    negative = pl.any_horizontal((pl.col(name) < 0).fill_null(False) for name in record.TOKENS)
    rules = (
        (~ids, "bad_ids", pl.lit("a trace id has 16 bytes and a span id 8, not all zero")),
        (started > latest, "in_the_future", pl.format("started {}, received {}", started, "received_at")),
        (started < EARLIEST, "too_long_ago", pl.format("started {}, before 2020", started)),
        (negative, "negative_tokens", pl.col("usage_raw")),
        (~pl.all_horizontal(bounds), "absurd_tokens", pl.col("usage_raw")),
    )
    return pl.coalesce(
        *(
            pl.when(broken).then(pl.struct(reason=pl.lit(reason), detail=detail.cast(pl.String)))
            for broken, reason, detail in rules
        )
    )


def _periods(deployments: Sequence[tuple[str, Deployment]]) -> pl.DataFrame:
    """Declared deployment periods, one row per endpoint."""
    schema = {
        "tenant": pl.String, "deployment": pl.String, "endpoint": pl.String,
        "effective_from": pl.Datetime("us", "UTC"), "effective_to": pl.Datetime("us", "UTC"),
        **{f"declared_{name}": pl.Int32 if name == "accelerator_count" else pl.String for name in _OF_DEPLOYMENT},
    }  # fmt: skip
    rows = [
        {
            "tenant": tenant, "deployment": one.name, "endpoint": endpoint,
            "effective_from": one.effective_from, "effective_to": one.effective_to,
            **{f"declared_{name}": getattr(one, name) for name in _OF_DEPLOYMENT},
        }
        for tenant, one in deployments
        for endpoint in one.endpoints or (None,)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema).with_columns(
        pl.col("endpoint").str.to_lowercase(), declared=pl.col("deployment")
    )


def _catalogued(told: pl.Series) -> pl.Series:
    """Accelerators by their catalog id where the catalog knows them, as told where it does not."""
    known: dict[str, str] = {}
    for name in told.drop_nulls().unique().to_list():
        with suppress(LookupError):
            known[name] = catalog.accelerator(name).id
    return told.replace(known)
