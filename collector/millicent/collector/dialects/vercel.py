"""The AI SDK of Vercel: its own names, and since version 7 OpenTelemetry's."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects import wire
from millicent.collector.dialects.dialect import Dialect, any_raw, any_told, told
from millicent.collector.dialects.otel import COMMON, OTEL_TOTAL, OTEL_USAGE

_MORE: Final = "ai.response.providerMetadata#"
_NO_CACHE: Final = "ai.usage.inputTokenDetails.noCacheTokens"
_LEVEL: Final = pl.coalesce(told("ai.operationId"), "name")
_BEDROCK: Final = ("bedrock.usage.cacheReadInputTokens", "bedrock.usage.cacheWriteInputTokens")

VERCEL: Final = Dialect(
    id="vercel",
    revision=1,
    about="The SDK's own spans, up to version 6 and of version 7's legacy mode. Input leaves the cache out for "
    "Anthropic and Bedrock unless `inputTokenDetails` is told; their cache stands in the provider's metadata. "
    "Parents repeat the last step or the sum.",
    rank=50,
    scope=r"^ai$",
    facts=COMMON
    | {
        "operation": ("ai.operationId",),
        "provider": ("gen_ai.system", "ai.model.provider"),
        "request_model": ("gen_ai.request.model", "ai.model.id"),
        "response_model": ("gen_ai.response.model", "ai.response.model"),
        "response_id": ("gen_ai.response.id", "ai.response.id"),
        "streaming": (),
        "ttft_s": (),
        "ttft_ms": ("ai.response.msToFirstChunk", "ai.stream.msToFirstChunk"),
        "service_tier": (_MORE + "anthropic.usage.service_tier", _MORE + "openai.serviceTier"),
        "speed": (_MORE + "anthropic.usage.speed",),
    },
    units=wire.units(_MORE + "anthropic.usage."),
    usage={
        "input_tokens": (
            "gen_ai.usage.input_tokens", "ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens",
        ),
        "output_tokens": ("gen_ai.usage.output_tokens", "ai.usage.outputTokens", "ai.usage.completionTokens"),
        "cache_read_tokens": (
            "ai.usage.inputTokenDetails.cacheReadTokens", "ai.usage.cachedInputTokens",
            _MORE + "anthropic.usage.cache_read_input_tokens", _MORE + _BEDROCK[0],
            _MORE + "openai.cachedPromptTokens", _MORE + "google.usageMetadata.cachedContentTokenCount",
        ),
        "cache_write_tokens": (
            "ai.usage.inputTokenDetails.cacheWriteTokens", _MORE + "anthropic.usage.cache_creation_input_tokens",
            _MORE + "anthropic.cacheCreationInputTokens", _MORE + _BEDROCK[1], _MORE + "openai.usage.cacheWriteTokens",
        ),
        "cache_write_5m_tokens": (_MORE + "anthropic.usage.cache_creation.ephemeral_5m_input_tokens",),
        "cache_write_30m_tokens": (),
        "cache_write_1h_tokens": (_MORE + "anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
        "cache_write_12h_tokens": (),
        "reasoning_tokens": (
            "ai.usage.reasoningTokens", "ai.usage.outputTokenDetails.reasoningTokens",
            _MORE + "anthropic.usage.output_tokens_details.thinking_tokens", _MORE + "openai.reasoningTokens",
            _MORE + "google.usageMetadata.thoughtsTokenCount",
        ),
        "input_audio_tokens": (),
        "output_audio_tokens": (),
        "input_image_tokens": (),
    },
    total=("ai.usage.totalTokens",),
    excludes_cache=~any_raw(_NO_CACHE)
    & (
        pl.col("provider").fill_null("").str.contains(r"anthropic|bedrock")
        | any_raw(_MORE + "anthropic.usage.input_tokens", *(_MORE + place for place in _BEDROCK))
    ),
    flags={
        "cache_not_told": pl.col("provider").fill_null("").str.contains(r"anthropic|bedrock")
        & ~any_raw(
            _NO_CACHE, "ai.usage.cachedInputTokens", _MORE + "anthropic.usage.input_tokens",
            *(_MORE + place for place in _BEDROCK),
        ),
    },
    word=pl.coalesce(_LEVEL.str.extract(r"\.(do(?:Generate|Stream|Embed))\b"), _LEVEL),
    reason="span",
    calls={"dogenerate": "chat", "dostream": "chat", "doembed": "embeddings"},
    payloads={"ai.response.providerMetadata": "json"},
    derived={
        "streaming": _LEVEL.str.contains(r"\.doStream\b"),
        # the usual tier is no news: only another one changes the price
        "service_tier": told(_MORE + "anthropic.usage.service_tier", _MORE + "openai.serviceTier").replace(
            {"default": None, "auto": None}
        ),
    },
)  # fmt: skip

VERCEL_GENAI: Final = Dialect(
    id="vercel_genai",
    revision=1,
    about="The SDK's spans by OpenTelemetry's names, since version 7: inclusive for every provider. An outer "
    "`embeddings` span stands around those with usage.",
    rank=50,
    scope=r"^gen_ai$",
    facts=COMMON,
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
    not_calls={
        "operation:embeddings_without_usage": (pl.col("gen_ai.operation.name") == "embeddings")
        & ~any_told("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
        & ~(pl.col("status_code").eq_missing(2) & pl.col("kind").eq_missing(3)),
    },
)
