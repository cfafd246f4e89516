"""Langfuse: usage is one JSON text, in the shape of whoever made it."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects import wire
from millicent.collector.dialects.dialect import Dialect, any_raw, raw
from millicent.collector.dialects.otel import COMMON

_USAGE: Final = "langfuse.observation.usage_details#"
_OWN: Final = {
    column: wire.spelled(_USAGE, *places)
    for column, places in {
        "input_tokens": ("input",),
        "output_tokens": ("output",),
        "cache_read_tokens": (
            "input_cache_read", "input_cache_read_tokens", "input_cached_tokens", "cache_read_input_tokens",
            "cache_read",
        ),
        "cache_write_tokens": (
            "input_cache_creation", "input_cache_write", "input_cache_creation_tokens", "input_cache_write_tokens",
            "cache_creation_input_tokens", "cache_write",
        ),
        "cache_write_5m_tokens": (
            "cache_creation_ephemeral_5m_input_tokens", "input_ephemeral_5m_input_tokens", "input_cache_creation_5m",
        ),
        "cache_write_1h_tokens": (
            "cache_creation_ephemeral_1h_input_tokens", "input_ephemeral_1h_input_tokens", "input_cache_creation_1h",
        ),
        "reasoning_tokens": ("output_reasoning", "output_reasoning_tokens"),
        "input_audio_tokens": ("input_audio", "input_audio_tokens"),
        "output_audio_tokens": ("output_audio", "output_audio_tokens"),
        "input_image_tokens": ("input_image", "input_image_tokens"),
    }.items()
}  # fmt: skip
_METADATA: Final = "langfuse.observation.metadata."
_INSIDE: Final = (raw(_USAGE + "total") == raw(_USAGE + "input") + raw(_USAGE + "output")) & any_raw(
    _USAGE + "input_cached_tokens"
)
"""OpenAI's details, flattened by releases that left the totals as they were."""

LANGFUSE: Final = Dialect(
    id="langfuse",
    revision=2,
    about="Langfuse's SDK. A provider's own usage object is read as that provider writes it; with a key `input`, every "
    "other `input_*` and `cache_*` key stands beside it, and every `output_*` key beside `output`; times of cache "
    "writes are a split of their total. Old releases flattened OpenAI's details without taking them off, which `total` "
    "proves. Provider and streaming are not told.",
    rank=50,
    scope=r"^langfuse",
    unscoped=pl.col("langfuse.observation.type").is_not_null(),
    facts=COMMON
    | {
        "operation": ("langfuse.observation.type",),
        "provider": (_METADATA + "ls_provider",),
        "request_model": (_METADATA + "ls_model_name",),
        "response_model": ("langfuse.observation.model.name",),
        "response_id": ("langfuse.observation.metadata.response_id",),
        "streaming": (),
        "ttft_s": (),
        "first_token_at": ("langfuse.observation.completion_start_time",),
        "endpoint_host": (),
        "service_tier": ("langfuse.observation.model.parameters#service_tier",),
    },
    usage=wire.after(wire.usage(_USAGE), _OWN),
    units=wire.units(_USAGE),
    total=wire.spelled(_USAGE, *wire.TOTAL, "total"),
    input_rest=wire.spelled(
        _USAGE, "input_audio", "input_audio_tokens", "input_image", "input_image_tokens", "input_text", "input_video",
        "input_document", "input_tool_use", *wire.INPUT_REST,
    ),
    output_rest=wire.spelled(
        _USAGE, "output_audio", "output_audio_tokens", "output_image", "output_image_tokens", "output_text",
        "output_accepted_prediction_tokens", "output_rejected_prediction_tokens",
    ),
    excludes_cache=(any_raw(_USAGE + "input") & ~_INSIDE.fill_null(False)) | wire.excludes_cache(_USAGE),
    excludes_reasoning=(any_raw(_USAGE + "output") & ~_INSIDE.fill_null(False)) | wire.excludes_reasoning(_USAGE),
    reason="type",
    calls={"generation": "chat", "embedding": "embeddings"},
    payloads={
        "langfuse.observation.usage_details": "json",
        "langfuse.observation.model.parameters": "json",
    },
    derived={
        "status": pl.when(pl.col("langfuse.observation.level") == "ERROR").then(pl.lit("error")),
        "provider": pl.col(_METADATA + "ls_provider").str.strip_chars('"'),
        "request_model": pl.col(_METADATA + "ls_model_name").str.strip_chars('"'),
        "streaming": pl.when(pl.col("langfuse.observation.type") == "embedding").then(pl.lit(False)),
    },
)  # fmt: skip
