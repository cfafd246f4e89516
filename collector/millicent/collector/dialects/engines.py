"""Engines that serve models: their own view of a request, beside the client's."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import Dialect, any_told
from millicent.collector.dialects.otel import COMMON, OTEL_USAGE

_FACTS: Final = COMMON | {
    "operation": (),
    "provider": (),
    "response_id": ("gen_ai.response.id", "gen_ai.request.id"),
    "streaming": (),
    "ttft_s": ("gen_ai.latency.time_to_first_token",),
    "endpoint_host": (),
    "endpoint_port": (),
}
_TOLD: Final = any_told("gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens")
_WORD: Final = pl.when(_TOLD | (pl.col("name") == "llm_request")).then(pl.lit("llm_request")).otherwise("name")
_RESPONSE_ID: Final = pl.coalesce("gen_ai.response.id", "gen_ai.request.id").str.replace(r"-[0-9]{1,3}$", "")


def _engine(id_: str, about: str, scope: str) -> Dialect:
    return Dialect(
        id=id_.replace("-", "_") + "_engine",
        revision=1,
        about=about,
        rank=70,
        scope=scope,
        facts=_FACTS,
        usage=OTEL_USAGE,
        word=_WORD,
        reason="span",
        calls={"llm_request": "chat"},
        derived={"provider": pl.lit(id_), "response_id": _RESPONSE_ID},
        engine=id_,
    )


VLLM: Final = _engine(
    "vllm",
    "vLLM's own span of a request, made when it ends; input with its prefix cache inside, no model's name.",
    r"^vllm\b",
)
SGLANG: Final = _engine(
    "sglang",
    "SGLang's span of a request; its stages are spans without usage. Cached tokens are inside input.",
    r"(?i)^sglang",
)
TENSORRT_LLM: Final = _engine(
    "tensorrt-llm",
    "TensorRT-LLM's span of a request.",
    r"(?i)^(tensorrt|trt[._-]?llm)",
)
