"""Which spans are calls, whose way of writing usage they follow, and what their tokens mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
import polars_hash as plh

from millicent.collector.batch import Batch, Context, first
from millicent.collector.dialects import (
    ATTRIBUTION,
    CALL_OPERATIONS,
    DIALECTS,
    STATUS,
    USAGE_SOURCE,
    Dialect,
)
from millicent.warehouse import record

MOST_TOKENS: Final = 1_000_000_000
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(hours=24)
LONGEST: Final = timedelta(hours=24)
CACHE_WRITES_BY_TIME: Final = tuple(
    name for name in record.TOKENS if name.startswith("cache_write_") and name != "cache_write_tokens"
)
CACHES: Final = ("cache_read_tokens", "cache_write_tokens", *CACHE_WRITES_BY_TIME)
_ERROR: Final = 2
_TAGS: Final = tuple(key for keys in ATTRIBUTION.values() for key in keys)


def pick_calls(batch: Batch, _: Context) -> Batch:
    """Let go of spans that are not one physical LLM call: ordinary spans, and roll-ups over several calls."""
    dialect = pl.coalesce(*(pl.when(row.claims).then(pl.lit(row.id)) for row in DIALECTS))
    batch = replace(batch, spans=batch.spans.with_columns(dialect=dialect))
    batch = batch.leave(pl.col("dialect").is_null(), "not_a_call", pl.lit("no_dialect"))
    told = first(batch.spans, DIALECTS[0].facts["operation"]).str.to_lowercase()
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


def _read(spans: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    usage = {name: first(spans, keys) for name, keys in dialect.usage.items()}
    told = pl.any_horizontal(usage[name].is_not_null() for name in ("input_tokens", "output_tokens"))
    for name in dialect.absent_is_zero:
        usage[name] = pl.when(told).then(usage[name].fill_null(0))
    facts = {name: first(spans, keys) for name, keys in dialect.facts.items() if name != "operation"}
    started = (pl.col("start_ns") // 1000).cast(pl.Int64)
    lasted_ms = (pl.col("end_ns") // 1_000_000).cast(pl.Int64) - (pl.col("start_ns") // 1_000_000).cast(pl.Int64)
    backwards, too_long = lasted_ms < 0, lasted_ms > LONGEST // timedelta(milliseconds=1)
    ttft_ms = (pl.col("ttft_s") * 1000).round().cast(pl.Int64, strict=False)
    return spans.select(
        "tenant", "key_id", "received_at", "trace_id", "scope", "labels", "dialect", "operation",
        *_TAGS,
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
        signal=pl.lit("span"),
        call_count=pl.lit(1, pl.Int64),
        request_id=pl.lit(None, pl.UInt64),
        sample_weight=pl.lit(None, pl.Float64),
        tag_sources=pl.lit(None, pl.String),
        usage_rule=pl.lit(dialect.rule),
        usage_raw=_raw(spans, sorted({key for keys in dialect.usage.values() for key in keys})),
        told_source=pl.col(USAGE_SOURCE),
        **usage,
        **facts,
    ).with_columns(
        provider=pl.col("provider").str.to_lowercase(),
        model=pl.coalesce("response_model", "request_model"),
        ttft_ms=pl.when(ttft_ms >= 0).then(ttft_ms),
        response_id=plh.col("response_id").nchash.xxh3_64(),
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
