"""OpenInference: spans of Arize's instrumentations, and of others that write the same attributes."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects import wire
from millicent.collector.dialects.dialect import RAW, Dialect, any_told, told
from millicent.collector.dialects.otel import COMMON

_ANSWER: Final = "output.value#"
_MESSAGE: Final = "output.value#generations[0][0].message.kwargs."
_COUNT: Final = "llm.token_count."
_USAGE: Final = {
    "input_tokens": (_COUNT + "prompt",),
    "output_tokens": (_COUNT + "completion",),
    "cache_read_tokens": (_COUNT + "prompt_details.cache_read",),
    "cache_write_tokens": (_COUNT + "prompt_details.cache_write",),
    "reasoning_tokens": (_COUNT + "completion_details.reasoning",),
    "input_audio_tokens": (_COUNT + "prompt_details.audio",),
    "output_audio_tokens": (_COUNT + "completion_details.audio",),
}
_TIMES: Final = {
    column: wire.spelled(_ANSWER + "usage.", *wire.USAGE[column])
    + wire.spelled(_MESSAGE + "usage_metadata.", *(key for key in wire.USAGE[column] if "input_token_details" in key))
    for column in wire.USAGE
    if column.startswith("cache_write_") and column != "cache_write_tokens"
}

_VERSION: Final = pl.sum_horizontal(
    pl.col("scope_version").str.extract(rf"^(?:\d+\.){{{place}}}(\d+)").cast(pl.Int64, strict=False).fill_null(0)
    * weight
    for place, weight in ((0, 1_000_000), (1, 1_000), (2, 1))
)
_ANTHROPIC: Final = pl.col("scope") == "openinference.instrumentation.anthropic"
_IN_JAVASCRIPT: Final = pl.col("scope").str.contains(r"arizeai/openinference-instrumentation-anthropic")
_WITHOUT_CACHE: Final = pl.all_horizontal(
    pl.col(RAW + key).fill_null(0) == 0 for key in (*_USAGE["cache_read_tokens"], *_USAGE["cache_write_tokens"])
)
_STREAM: Final = ("llm.invocation_parameters#stream", "input.value#stream")

OPENINFERENCE: Final = Dialect(
    id="openinference",
    revision=1,
    about="Arize's instrumentations. Input is inclusive; Anthropic's left the cache out before 0.1.14 and did not tell "
    "it of streams before 1.1.1. Response id, tier and the time cache writes are kept stand in the answer's text.",
    rank=30,
    scope=r"openinference",
    unscoped=pl.col("openinference.span.kind").is_not_null(),
    facts=COMMON
    | {
        "operation": ("openinference.span.kind",),
        "provider": ("llm.provider", "llm.system"),
        "request_model": (
            "llm.request.model_name",
            "llm.invocation_parameters#model",
            "llm.invocation_parameters#model_name",
            "embedding.invocation_parameters#model",
            "input.value#model",
        ),
        "response_model": (
            "llm.response.model_name",
            _ANSWER + "model",
            _ANSWER + "model_version",
            _ANSWER + "generations[0][0].generation_info.model_name",
            _MESSAGE + "response_metadata.model_name",
            "llm.model_name",
            "embedding.model_name",
        ),
        "response_id": (
            _ANSWER + "id",
            _ANSWER + "response_id",
            _ANSWER + "llm_output.id",
            _MESSAGE + "response_metadata.id",
        ),
        "streaming": (),
        "ttft_s": (),
        "error_type": ("error.type",),
        "service_tier": (
            _ANSWER + "service_tier",
            _ANSWER + "usage.service_tier",
            _ANSWER + "llm_output.service_tier",
            _ANSWER + "generations[0][0].generation_info.service_tier",
            _MESSAGE + "response_metadata.service_tier",
        ),
        "speed": (_ANSWER + "usage.speed",),
    },
    usage=wire.after(_USAGE, _TIMES),
    units=wire.units(_ANSWER + "usage."),
    total=(_COUNT + "total",),
    excludes_cache=_ANTHROPIC & (_VERSION < 1_014),
    flags={
        "cache_lost_on_stream": _ANTHROPIC
        & (_VERSION < 1_001_001)
        & (_VERSION >= 1_015)
        & pl.col("streaming")
        & _WITHOUT_CACHE,
        "cache_not_told": ((_ANTHROPIC & (_VERSION < 1_015)) | _IN_JAVASCRIPT) & _WITHOUT_CACHE,
    },
    unbelievable={  # LangChain tells 0 written where it tells how long they are kept
        "cache_write_tokens": pl.col("scope").str.ends_with(".langchain")
        & (pl.col(RAW + _COUNT + "prompt_details.cache_write") == 0)
        & (pl.col("provider") == "anthropic"),
    },
    reason="kind",
    calls={"llm": "chat", "embedding": "embeddings"},
    not_calls={"span:count_tokens": pl.col("name").str.contains("count_tokens", literal=True)},
    payloads={
        "output.value": "json",
        "input.value": "json",
        "llm.invocation_parameters": "json",
        "embedding.invocation_parameters": "json",
    },
    derived={
        # its OpenAI instrumentation knows the provider by the host: no provider is a host that it does not know
        "provider": pl.when(
            (pl.col("scope") == "openinference.instrumentation.openai")
            & pl.col("llm.provider").is_null()
            & (pl.col("llm.system") == "openai")
        )
        .then(pl.lit("openai-compatible"))
        .otherwise(told("llm.provider", "llm.system")),
        "request_model": pl.when(~pl.col("scope").str.ends_with("openai_agents")).then(
            told(
                "llm.request.model_name",
                "llm.invocation_parameters#model",
                "llm.invocation_parameters#model_name",
                "embedding.invocation_parameters#model",
                "input.value#model",
                "llm.model_name",
                "embedding.model_name",
            )
        ),
        "streaming": pl.when(
            pl.col("first_token_ns").is_not_null()
            | (told(*_STREAM) == "true")
            | pl.col("name").str.contains("(?i)stream")
            | pl.col(_ANSWER + "generations[0][0].type").str.ends_with("Chunk")
        )
        .then(pl.lit(True))
        .when(pl.col("openinference.span.kind").str.to_uppercase() == "EMBEDDING")
        .then(pl.lit(False))
        .when(pl.col("scope") == "openinference.instrumentation.openai")
        .then(pl.when(any_told("llm.invocation_parameters#model", *_STREAM)).then(pl.lit(False))),
    },
)
