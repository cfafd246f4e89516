"""OpenLLMetry, of Traceloop: the conventions it writes now, and the ones before."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import RAW, Dialect, told
from millicent.collector.dialects.otel import COMMON, OTEL_TOTAL, OTEL_USAGE

SCOPE: Final = (
    r"^(opentelemetry\.instrumentation\.(openai\.v[01]|openai_agents|anthropic|langchain|google_generativeai|vertexai"
    r"|bedrock|sagemaker|cohere|groq|mistralai|ollama|replicate|together|watsonx|alephalpha|transformers|llamaindex"
    r"|crewai|haystack|agno|writer|voyageai|mcp)$|traceloop\b|@traceloop/)"
)
_FACTS: Final = COMMON | {
    "ttft_s": ("gen_ai.response.time_to_first_chunk", "llm.chat_completions.streaming_time_to_first_token"),
    "endpoint_host": (),
    "endpoint_port": ("server.port",),
    "endpoint_url": ("gen_ai.openai.api_base", "server.address"),
}
_WORD: Final = pl.coalesce(
    pl.when(pl.col("traceloop.span.kind").is_not_null()).then(
        pl.concat_str(pl.lit("kind:"), pl.col("traceloop.span.kind"))
    ),
    pl.col("gen_ai.operation.name"),
    pl.when(pl.col("name").str.contains(r"\.(chat|response|responses|messages|generate_content)$")).then(
        pl.lit("chat")
    ),
    pl.when(pl.col("name").str.contains(r"\.embeddings?$")).then(pl.lit("embeddings")),
    pl.when(pl.col("name").str.contains(r"\.completion$")).then(pl.lit("text_completion")),
    pl.col("llm.request.type"),
)
_REQUEST, _RESPONSE = pl.col("gen_ai.request.model"), pl.col("gen_ai.response.model")
_LANGCHAIN: Final = pl.col("scope").str.ends_with(".langchain")
_DERIVED: Final = {
    # a vendor's prefix is lost on the way back; LangChain's streams have no id and repeat the model that was asked for
    "response_model": pl.when(_REQUEST.str.ends_with(pl.concat_str(pl.lit("/"), _RESPONSE)))
    .then(_REQUEST)
    .when(_LANGCHAIN & (_REQUEST == _RESPONSE) & pl.col("gen_ai.response.id").is_null())
    .then(None)
    .otherwise(_RESPONSE),
}
_FLAGS: Final = {
    "output_over_on_stream": (pl.col("scope") == "opentelemetry.instrumentation.anthropic")
    & pl.col("streaming")
    & told(RAW + "gen_ai.usage.output_tokens", RAW + "gen_ai.usage.completion_tokens").is_not_null(),
}

OPENLLMETRY: Final = Dialect(
    id="openllmetry",
    revision=1,
    about="Traceloop's instrumentations. Gemini's thoughts are in the total alone; LangChain's 0 of cache writes is "
    "not to be believed; streamed output of Anthropic is some tokens over; OpenAI's cache writes are not told.",
    rank=40,
    scope=SCOPE,
    marks=pl.any_horizontal(pl.col(name).is_not_null() for name in ("gen_ai.operation.name", "gen_ai.provider.name"))
    & pl.col("llm.request.type").is_null(),
    facts=_FACTS,
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
    unbelievable={
        "cache_write_tokens": _LANGCHAIN & (pl.col(RAW + "gen_ai.usage.cache_creation.input_tokens") == 0),
    },
    flags=_FLAGS,
    word=_WORD,
    derived=_DERIVED,
)

OPENLLMETRY_OLD: Final = Dialect(
    id="openllmetry_old",
    revision=1,
    about="Traceloop's instrumentations before they took up the current names. No usage on streams.",
    rank=41,
    scope=SCOPE,
    facts=_FACTS,
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
    flags=_FLAGS,
    word=_WORD,
    derived=_DERIVED,
)
