"""The record: what one call is, column by column. Everything else in the product is written against this list.

Tokens are integers in one normal form: `input_tokens` is everything that went in (cache reads and writes
included), `output_tokens` everything that came out (reasoning included); the other token columns are parts of
those two. NULL means unknown, 0 means none. Instants are UTC with microseconds. Money is DECIMAL(18,12) in USD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

INSTANT: Final = pa.timestamp("us", "UTC")
USD: Final = pa.decimal128(18, 12)
TEXT_MAP: Final = pa.map_(pa.string(), pa.string())
COUNT_MAP: Final = pa.map_(pa.string(), pa.int64())

Role = Literal["identity", "fact", "dimension", "detail", "tokens", "money"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `calls`: its Arrow type, the part it plays, and what it means.

    Roles: `identity` finds a call; `dimension` has few values and is kept in the hourly rollup; `detail` has many
    values and is asked of the raw calls; `tokens` and `money` are summed; `fact` is anything else.
    """

    name: str
    type: pa.DataType
    role: Role
    meaning: str


CALLS: Final = (
    Column("tenant", pa.string(), "identity", "whose call this is, from the ingest key"),
    Column("trace_id", pa.uuid(), "identity", "trace, 16 bytes"),
    Column("span_id", pa.uint64(), "identity", "span, 8 bytes big-endian"),
    Column("parent_span_id", pa.uint64(), "fact", "parent span; NULL for a root"),
    Column("key_id", pa.string(), "fact", "ingest key that brought it"),
    Column("received_at", INSTANT, "fact", "when the collector acknowledged it"),
    Column("started_at", INSTANT, "identity", "when the call began, by the caller's clock"),
    Column("duration_ms", pa.int64(), "fact", "from the first byte sent to the last received"),
    Column("ttft_ms", pa.int64(), "fact", "time to first token; NULL when not streamed or not told"),
    Column("operation", pa.string(), "dimension", "chat, text_completion, embeddings, generate_content"),
    Column("provider", pa.string(), "dimension", "as OpenTelemetry names it: openai, anthropic, aws.bedrock"),
    Column("request_model", pa.string(), "detail", "model asked for"),
    Column("response_model", pa.string(), "detail", "model that answered"),
    Column("model", pa.string(), "dimension", "the answering model, else the one asked for"),
    Column("billing", pa.string(), "dimension", "api or self_hosted"),
    Column("streaming", pa.bool_(), "dimension", "whether the answer was streamed"),
    Column("service_tier", pa.string(), "dimension", "tier as the provider reported it"),
    Column(
        "price_context",
        pa.string(),
        "detail",
        "what was asked for that has a price of its own, as key=value, comma between: processing, speed, route, ...",
    ),
    Column("status", pa.string(), "dimension", "ok, error or cancelled"),
    Column("error_type", pa.string(), "detail", "what failed"),
    Column("response_id", pa.uint64(), "fact", "hash of the provider's response id; look up by hashing"),
    Column("request_id", pa.uint64(), "fact", "hash of the provider's request id, where it differs"),
    Column("endpoint_host", pa.string(), "detail", "host that served the call"),
    Column("signal", pa.string(), "dimension", "what told of it: span, log or metric"),
    Column("dialect", pa.string(), "dimension", "whose way of writing usage was read"),
    Column("scope", pa.string(), "detail", "instrumentation that made the span"),
    Column("scope_version", pa.string(), "fact", "its version"),
    Column("deployment", pa.string(), "dimension", "engine serving a model on our accelerators"),
    Column("engine", pa.string(), "dimension", "vllm, sglang, tensorrt-llm, ..."),
    Column("precision", pa.string(), "dimension", "fp8, nvfp4, bf16, ..."),
    Column("accelerator", pa.string(), "dimension", "catalog id: nvidia-h100-sxm, google-tpu-v7, ..."),
    Column("accelerator_count", pa.int32(), "fact", "accelerators of the deployment"),
    Column("region", pa.string(), "dimension", "where it ran"),
    Column("environment", pa.string(), "dimension", "production, staging, ..."),
    Column("service", pa.string(), "dimension", "service.name of the caller"),
    Column("team", pa.string(), "dimension", "who pays"),
    Column("project", pa.string(), "dimension", "for which project"),
    Column("feature", pa.string(), "dimension", "for which feature"),
    Column("customer", pa.string(), "dimension", "for which customer"),
    Column("user_id", pa.string(), "detail", "end user"),
    Column("session_id", pa.string(), "detail", "conversation"),
    Column("labels", TEXT_MAP, "fact", "any other attribution"),
    Column(
        "identity_source",
        pa.string(),
        "fact",
        "where the team came from: span, resource, inherited, rule; NULL when unattributed",
    ),
    Column(
        "tag_sources",
        pa.string(),
        "fact",
        "tags that do not stand on the span itself, each as tag:source, comma between",
    ),
    Column("call_count", pa.int64(), "fact", "1; of a metric, how many calls it sums, NULL when it does not tell"),
    Column("sample_weight", pa.float64(), "fact", "how many such calls it stands for under sampling; NULL: not told"),
    Column("input_tokens", pa.int64(), "tokens", "everything that went in"),
    Column("output_tokens", pa.int64(), "tokens", "everything that came out"),
    Column("cache_read_tokens", pa.int64(), "tokens", "input served from a cache"),
    Column("cache_write_tokens", pa.int64(), "tokens", "input written to a cache"),
    Column("cache_write_5m_tokens", pa.int64(), "tokens", "of those, kept 5 minutes"),
    Column("cache_write_30m_tokens", pa.int64(), "tokens", "of those, kept 30 minutes"),
    Column("cache_write_1h_tokens", pa.int64(), "tokens", "of those, kept 1 hour"),
    Column("cache_write_12h_tokens", pa.int64(), "tokens", "of those, kept 12 hours"),
    Column("reasoning_tokens", pa.int64(), "tokens", "output spent on reasoning"),
    Column("input_audio_tokens", pa.int64(), "tokens", "input that was audio"),
    Column("output_audio_tokens", pa.int64(), "tokens", "output that was audio"),
    Column("input_image_tokens", pa.int64(), "tokens", "input that was images"),
    Column("units", COUNT_MAP, "fact", "other billable units, by the price data's usage key: web_searches, ..."),
    Column("usage_source", pa.string(), "dimension", "reported, estimated or missing"),
    Column("usage_rule", pa.string(), "fact", "the dialect rule that was applied, with its revision"),
    Column("usage_raw", pa.string(), "fact", "the counters as they came, compact JSON"),
    Column("usage_flags", pa.list_(pa.string()), "fact", "what to doubt: semantics assumed, parts clipped, ..."),
    Column("counted", pa.bool_(), "fact", "whether it is in the sums"),
    Column("not_counted_reason", pa.string(), "fact", "why not"),
    Column("counted_as", pa.uint64(), "fact", "span of the row that does count"),
    Column("counted_as_trace_id", pa.uuid(), "fact", "its trace"),
    Column("list_cost_usd", USD, "money", "API list price of tokens and units; NULL when unknown"),
    Column("list_input_usd", USD, "money", "its part for uncached input"),
    Column("list_cache_read_usd", USD, "money", "its part for cache reads"),
    Column("list_cache_write_usd", USD, "money", "its part for cache writes"),
    Column("list_output_usd", USD, "money", "its part for output"),
    Column("list_units_usd", USD, "money", "its part for other billable units and fees per request"),
    Column(
        "billed_cost_usd",
        USD,
        "money",
        "what the provider bills for the call; NULL when unknown, 0 for own hardware",
    ),
    Column(
        "cache_saving_usd",
        USD,
        "money",
        "list price without caching minus list price, write premium deducted",
    ),
    Column("price_status", pa.string(), "dimension", "priced, partial, unpriced or not_billed"),
    Column("price_entry", pa.string(), "detail", "dated price entry that was applied"),
    Column("price_version", pa.string(), "fact", "version of the price book"),
)

SCHEMA: Final = pa.schema([(column.name, column.type) for column in CALLS])
_IN_FRAMES: Final = {
    pa.uuid(): pa.binary(),
    **{of: pa.list_(pa.struct([("key", of.key_type), ("value", of.item_type)])) for of in (TEXT_MAP, COUNT_MAP)},
}
PLAIN: Final = pa.schema([(column.name, _IN_FRAMES.get(column.type, column.type)) for column in CALLS])
"""`SCHEMA` as frames carry it: UUIDs as 16 bytes, maps as a list of (key, value)."""
DIMENSIONS: Final = tuple(c.name for c in CALLS if c.role == "dimension")
DETAILS: Final = tuple(c.name for c in CALLS if c.role == "detail")
TOKENS: Final = tuple(c.name for c in CALLS if c.role == "tokens")
MONEY: Final = tuple(c.name for c in CALLS if c.role == "money")
SUMMED: Final = TOKENS + MONEY

COST_TYPE: Final = "cost_type"
"""A dimension that no row stores: what the money went to, such as api, hardware or idle."""

IDLE: Final = "__idle__"
"""Value of a caller's dimension (team, service, ...) on capacity that no call used."""

CHARGE: Final = "__charge__"
"""Value of a dimension on an amount that belongs to no call and is not told of it."""

NOT_COUNTED: Final[Mapping[str, str]] = {
    "rollup": "sums up the calls below it",
    "same_response": "same provider response as the call that counts",
    "same_request": "same provider request as the call that counts",
    "wraps_counted_call": "a span around the call that counts",
    "same_call_other_scope": "another instrumentation told of the same call",
    "engine_of_counted_call": "the engine's side of a call that counts",
    "stream_of_counted_call": "the stream of a call that counts",
    "spans_tell_of_it": "spans of the same service tell of it and are counted",
    "logs_tell_of_it": "log events of the same service tell of it and are counted",
}
"""Values of `not_counted_reason` in words that follow "not counted:"."""

USAGE_FLAGS: Final[Mapping[str, str]] = {
    "input_excluded_cache": "the input told left cached tokens out; they were added",
    "output_excluded_reasoning": "the output told left reasoning out; it was added",
    "cache_without_input": "cached tokens were told without the input that they are part of; they are taken as unknown",
    "failed_without_usage": "the call failed and told no usage, which is taken as 0 tokens",
    "ended_before_start": "it ended before it began; its duration is unknown",
    "lasted_over_a_day": "by its own clock it lasted over a day, which is not believed; its duration is unknown",
    "generic_dialect": "no known instrumentation wrote it; its counters were read by their names alone",
    "totals_disagree": "the total told is not input plus output",
    "cache_semantics_assumed": "whether input includes the cache was not told; the rule of its dialect was taken",
    "cache_lost_on_stream": "this instrumentation loses cached tokens of streams; the input may be too low",
    "cache_not_told": "this instrumentation does not tell cached tokens here; the price of the input may be wrong",
    "output_from_total": "the total told shows more output than the output told; the total was taken",
    "output_over_on_stream": "this instrumentation counts a few output tokens too many on streams",
    "fraction_cut": "the metric told a fraction of a token, which was cut off",
    "operation_assumed": "the metric did not tell what kind of call it sums; chat was taken",
    "counter_reset": "the counter began anew between two readings; what it counted in between is lost",
    "units_not_believed": "searches or other units were told that cannot be true; they were left out",
    "merged_from_others": "what it left out was filled in from others that told of the same call",
}
"""Values of `usage_flags` in words."""
