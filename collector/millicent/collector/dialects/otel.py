"""OpenTelemetry's own conventions, in all their generations, and spans that follow nobody's."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import Dialect, any_told, told, with_units

COMMON: Final[dict[str, tuple[str, ...]]] = {
    "operation": ("gen_ai.operation.name", "llm.request.type"),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "response_id": ("gen_ai.response.id",),
    "request_id": ("anthropic.request.id", "aws.request_id", "millicent.request_id"),
    "streaming": ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),
    "ttft_s": ("gen_ai.response.time_to_first_chunk",),
    "ttft_ms": (),
    "first_token_at": (),
    "endpoint_host": ("server.address",),
    "endpoint_port": ("server.port",),
    "endpoint_url": (),
    "error_type": ("error.type",),
    "service_tier": (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
        "millicent.service_tier",
    ),
    "speed": (),
}
"""Facts beside usage, which every OpenTelemetry dialect writes alike."""

OTEL_USAGE: Final[dict[str, tuple[str, ...]]] = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.input_tokens.cached",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.input_tokens.cache_write",
    ),
    "cache_write_5m_tokens": (
        "anthropic.usage.cache_creation.ephemeral_5m_input_tokens",
        "millicent.usage.cache_write.5m.input_tokens",
    ),
    "cache_write_30m_tokens": ("millicent.usage.cache_write.30m.input_tokens",),
    "cache_write_1h_tokens": (
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",
        "millicent.usage.cache_write.1h.input_tokens",
    ),
    "cache_write_12h_tokens": ("millicent.usage.cache_write.12h.input_tokens",),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
    ),
    "input_audio_tokens": ("gen_ai.usage.audio.input_tokens",),
    "output_audio_tokens": ("gen_ai.usage.audio.output_tokens",),
    "input_image_tokens": ("gen_ai.usage.image.input_tokens",),
}
OTEL_UNITS: Final = with_units({"web_searches": ("gen_ai.usage.server_tool_use.web_search_requests",)})
"""Unspecified; the one name in use continues Anthropic's."""
OTEL_TOTAL: Final = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens")

LEFT_OUT_WHEN_ZERO: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
"""What the official instrumentations report whenever there is any; how long cache writes are kept, they never tell."""

MILLICENT: Final = Dialect(
    id="millicent",
    revision=1,
    about="Millicent's own SDK. A `@track_tokens` span may stand around calls that are counted themselves.",
    rank=15,
    scope=r"^millicent\.(sdk|calls)$",
    facts=COMMON,
    usage=OTEL_USAGE,
    wraps=True,
)

ANTHROPIC_NATIVE: Final = Dialect(
    id="anthropic_native",
    revision=1,
    about="Spans of Anthropic's own SDK, on by default: the only ones that tell how long cache writes are kept. "
    "`count_tokens` bills nothing although it has a number.",
    rank=10,
    scope=r"^com\.anthropic\.sdk\b",
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    not_calls={
        "span:count_tokens": pl.col("name").str.contains("count_tokens", literal=True),
        "span:sessions": pl.col("name").str.contains(".sessions.", literal=True),
    },
)

ANTHROPIC_PLATFORM: Final = Dialect(
    id="anthropic_platform",
    revision=1,
    about="The same request as the SDK's span, exported by Anthropic's platform; `anthropic.request.id` joins them.",
    rank=12,
    scope=r"^com\.anthropic\.claude-platform\b",
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    not_calls=ANTHROPIC_NATIVE.not_calls,
)

OTEL_GENAI: Final = Dialect(
    id="otel_genai",
    revision=1,
    about="Official instrumentations of the current conventions: complete, inclusive, zeros left out.",
    rank=20,
    scope=r"^opentelemetry\.instrumentation\.(genai\.|google_genai$)",
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    total=OTEL_TOTAL,
    absent_is_zero=LEFT_OUT_WHEN_ZERO,
)

OTEL_GENAI_PREVIOUS: Final = Dialect(
    id="otel_genai_previous",
    revision=2,
    about="Official instrumentations of the conventions before: input and output alone; no cache, no reasoning and no "
    "streaming flag.",
    rank=45,
    scope=r"^opentelemetry\.(util\.genai\b|instrumentation\.(openai_v2|openai_agents_v2|botocore)\b)",
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    total=OTEL_TOTAL,
)

OTEL_EVENT: Final = Dialect(
    id="otel_event",
    revision=1,
    about="The log event that tells of a whole inference, beside or instead of its span.",
    rank=60,
    unscoped=pl.col("name") == "gen_ai.client.inference.operation.details",
    signals=("log",),
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    total=OTEL_TOTAL,
    excludes_cache=None,
)

OTEL_OTHER: Final = Dialect(
    id="otel_other",
    revision=1,
    about="Any other instrumentation that names the operation as OpenTelemetry does. Whether cached tokens are inside "
    "input was unspecified until 2026.",
    rank=48,
    unscoped=pl.col("gen_ai.operation.name").is_not_null(),
    facts=COMMON,
    usage=OTEL_USAGE,
    units=OTEL_UNITS,
    total=OTEL_TOTAL,
    excludes_cache=None,
)

GENERIC_USAGE: Final = {
    column: (*keys, *{
        "input_tokens": ("llm.token_count.prompt", "llm.usage.prompt_tokens", "ai.usage.inputTokens",
                         "ai.usage.promptTokens"),
        "output_tokens": ("llm.token_count.completion", "llm.usage.completion_tokens", "ai.usage.outputTokens",
                          "ai.usage.completionTokens"),
        "cache_read_tokens": ("llm.token_count.prompt_details.cache_read", "ai.usage.cachedInputTokens"),
        "cache_write_tokens": ("llm.token_count.prompt_details.cache_write",),
        "reasoning_tokens": ("llm.token_count.completion_details.reasoning", "ai.usage.reasoningTokens"),
    }.get(column, ()))
    for column, keys in OTEL_USAGE.items()
}  # fmt: skip

GENERIC: Final = Dialect(
    id="generic",
    revision=1,
    about="Spans of no known dialect that carry usage under a known name. A doubt is stored with each.",
    rank=80,
    unscoped=any_told(*GENERIC_USAGE["input_tokens"], *GENERIC_USAGE["output_tokens"]),
    facts=COMMON
    | {
        "request_model": ("gen_ai.request.model", "llm.request.model", "ai.model.id"),
        "response_model": ("gen_ai.response.model", "llm.model_name", "llm.response.model", "ai.response.model"),
        "response_id": ("gen_ai.response.id", "ai.response.id"),
    },
    usage=GENERIC_USAGE,
    units=OTEL_UNITS,
    total=(*OTEL_TOTAL, "llm.token_count.total", "ai.usage.totalTokens"),
    excludes_cache=None,
    word=pl.coalesce(told("gen_ai.operation.name", "llm.request.type"), pl.lit("chat")),
    flags={"generic_dialect": pl.lit(True)},
    wraps=True,
)
