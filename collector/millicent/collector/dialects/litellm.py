"""LiteLLM: its callback's span per request, and the raw exchange under it."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects import wire
from millicent.collector.dialects.dialect import Dialect, any_told
from millicent.collector.dialects.otel import COMMON, OTEL_TOTAL, OTEL_USAGE

_OBJECT: Final = "metadata.usage_object#"
_RAW: Final = "llm.*."
_RAW_USAGE: Final = "llm.*.usage#"
_RAW_GEMINI: Final = "llm.*.usageMetadata#"
_REQUEST, _RESPONSE = pl.col("gen_ai.request.model"), pl.col("gen_ai.response.model")


COPIED: Final = r"^(?:gpt|chatgpt|o[0-9]|claude)\b"  # families whose bare names a provider answers with a dated one
DATED: Final = r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}"


def answered(streaming: pl.Expr) -> pl.Expr:
    """The model that answered; null where a stream repeats an undated name, which only was asked for."""
    copied = (_REQUEST == _RESPONSE) & _RESPONSE.str.contains(COPIED) & ~_RESPONSE.str.contains(DATED)
    return pl.when(~(streaming.fill_null(False) & copied.fill_null(False))).then(_RESPONSE)


LITELLM: Final = Dialect(
    id="litellm",
    revision=1,
    about="LiteLLM's callback, old and new. Inclusive for every provider; cache and reasoning stand in a usage object "
    "written as Python does. Its own costs are estimates and not read; `0.0` there is no price.",
    rank=50,
    scope=r"^litellm$",
    marks=pl.col("name") != "raw_gen_ai_request",
    facts=COMMON
    | {
        "operation": ("gen_ai.operation.name", "llm.request.type"),
        "endpoint_host": (),
        "endpoint_port": (),
        "endpoint_url": ("hidden_params#api_base",),
        "error_type": ("error.type", "error.code"),
        "speed": (_OBJECT + "speed",),
    },
    usage=wire.after(OTEL_USAGE, wire.usage(_OBJECT)),
    units=wire.units(_OBJECT),
    total=(*OTEL_TOTAL, *wire.spelled(_OBJECT, *wire.TOTAL)),
    word=pl.when(
        (pl.col("name") == "litellm_request")
        | (pl.col("signal") == "metric")
        | (
            any_told("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
            & pl.col("llm.request.type").is_not_null()
        )
    )
    .then(pl.coalesce("gen_ai.operation.name", "llm.request.type", pl.lit("chat")))
    .otherwise(pl.concat_str(pl.lit("span:"), "name")),
    calls={
        "chat": "chat",
        "completion": "chat",
        "acompletion": "chat",
        "responses": "chat",
        "aresponses": "chat",
        "anthropic_messages": "chat",
        "generate_content": "generate_content",
        "agenerate_content": "generate_content",
        "text_completion": "text_completion",
        "atext_completion": "text_completion",
        "embedding": "embeddings",
        "aembedding": "embeddings",
        "embeddings": "embeddings",
    },
    payloads={"metadata.usage_object": "python", "hidden_params": "json"},
    derived={"response_model": answered(pl.col("llm.is_streaming"))},
)

LITELLM_RAW: Final = Dialect(
    id="litellm_raw",
    revision=1,
    about="The provider's own answer under a LiteLLM span: a copy that tells of the cache. Empty on streams.",
    rank=55,
    scope=r"^litellm$",
    facts=COMMON
    | {
        "operation": (),
        "provider": (),
        "request_model": (),
        "response_model": (_RAW + "model", _RAW + "modelVersion"),
        "response_id": (_RAW + "id", _RAW + "responseId"),
        "streaming": (),
        "endpoint_host": (),
        "endpoint_port": (),
        "service_tier": (_RAW + "service_tier", _RAW_USAGE + "service_tier"),
        "speed": (_RAW_USAGE + "speed",),
    },
    usage=wire.after(wire.usage(_RAW_USAGE), wire.usage(_RAW_GEMINI)),
    units=wire.units(_RAW_USAGE),
    total=(*wire.spelled(_RAW_USAGE, *wire.TOTAL), *wire.spelled(_RAW_GEMINI, *wire.TOTAL)),
    input_rest=(*wire.spelled(_RAW_USAGE, *wire.INPUT_REST), *wire.spelled(_RAW_GEMINI, *wire.INPUT_REST)),
    excludes_cache=wire.excludes_cache(_RAW_USAGE),
    excludes_reasoning=wire.excludes_reasoning(_RAW_USAGE) | wire.excludes_reasoning(_RAW_GEMINI),
    word=pl.when(any_told(_RAW + "usage", _RAW + "usageMetadata"))
    .then(pl.lit("raw_gen_ai_request"))
    .otherwise(pl.lit("raw_gen_ai_request_without_usage")),
    reason="span",
    calls={"raw_gen_ai_request": "chat"},
    payloads={_RAW + "usage": "python", _RAW + "usageMetadata": "python"},
)
