"""pydantic-ai, and Logfire's instrumentations of the providers' clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import polars as pl

from millicent.collector.dialects import wire
from millicent.collector.dialects.dialect import RAW, Dialect, any_told, with_units
from millicent.collector.dialects.litellm import answered
from millicent.collector.dialects.otel import COMMON, OTEL_TOTAL, OTEL_USAGE

_DETAILS: Final = "gen_ai.usage.details."
_USAGE: Final = {
    "cache_read_tokens": wire.spelled(
        _DETAILS, "cache_read_tokens", "cache_read_input_tokens", "cached_content_tokens", "cached_tokens"
    ),
    "cache_write_tokens": wire.spelled(_DETAILS, "cache_write_tokens", "cache_creation_input_tokens"),
    "reasoning_tokens": wire.spelled(_DETAILS, "thoughts_tokens", "thinking_tokens"),
    "input_audio_tokens": wire.spelled(_DETAILS, "input_audio_tokens", "audio_prompt_tokens"),
    "output_audio_tokens": wire.spelled(_DETAILS, "output_audio_tokens", "audio_candidates_tokens", "audio_tokens"),
    "input_image_tokens": wire.spelled(_DETAILS, "image_prompt_tokens"),
}

PYDANTIC_AI: Final = Dialect(
    id="pydantic_ai",
    revision=1,
    about="pydantic-ai, 1.x and 2.x. Totals are inclusive; of the details only parts are read, since `details` holds "
    "Anthropic's exclusive input too. The run's own span sums its calls, without an operation in 1.x.",
    rank=50,
    scope=r"^pydantic-ai$",
    facts=COMMON
    | {
        "operation": ("gen_ai.operation.name",),
        "ttft_s": ("gen_ai.client.operation.time_to_first_chunk", "gen_ai.response.time_to_first_chunk"),
    },
    usage=wire.after(OTEL_USAGE, _USAGE),
    units=with_units({"web_searches": (_DETAILS + "web_search_requests",)}),
    total=OTEL_TOTAL,
    word=pl.coalesce("gen_ai.operation.name", pl.concat_str(pl.lit("span:"), "name")),
)

_OBJECT: Final = "gen_ai.usage.raw#"
_INSIDE: Final = pl.col(RAW + "gen_ai.usage.input_tokens").is_not_null()
_WITH_USAGE: Final = any_told("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.usage.raw")
_STREAM: Final = pl.col("name").str.starts_with("streaming response from")
_STREAMING: Final = (
    pl.when(_STREAM)
    .then(pl.lit(True))
    .when(_WITH_USAGE | (pl.col("gen_ai.operation.name") == "embeddings"))
    .then(pl.lit(False))
    .when(pl.col("status_code").ne_missing(2))
    .then(pl.col("gen_ai.response.id").is_null())
)

LOGFIRE: Final = Dialect(
    id="logfire",
    revision=1,
    about="Logfire's patches of OpenAI's and Anthropic's clients. A stream is two spans, one of the request and one at "
    "its end that has the usage, in another trace. Cache and reasoning stand in the provider's own object alone.",
    rank=50,
    scope=r"^logfire\.",
    facts=COMMON
    | {
        "operation": ("gen_ai.operation.name",),
        "streaming": (),
        "ttft_s": (),
        "service_tier": (*COMMON["service_tier"], _OBJECT + "service_tier"),
        "speed": (_OBJECT + "speed",),
    },
    usage=wire.after(OTEL_USAGE, wire.usage(_OBJECT)),
    units=wire.units(_OBJECT),
    total=(*OTEL_TOTAL, *wire.spelled(_OBJECT, *wire.TOTAL)),
    excludes_cache=~_INSIDE & wire.excludes_cache(_OBJECT),
    excludes_reasoning=~_INSIDE & wire.excludes_reasoning(_OBJECT),
    payloads={"gen_ai.usage.raw": "json"},
    derived={
        "streaming": _STREAMING,
        "response_model": answered(_STREAMING),
        "lasted_s": pl.when(_STREAM).then(pl.col("duration")),
    },
)

LOGFIRE_STREAM: Final = replace(
    LOGFIRE,
    id="logfire_stream",
    about="The span with which Logfire tells how a stream ended: the usage of the request whose span it follows.",
    marks=_STREAM,
)
