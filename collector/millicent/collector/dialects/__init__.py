"""Whose way of writing usage is this, and where does each number stand? A dialect is a row of `DIALECTS`.

A row belongs to the first dialect that knows its scope and marks; only then to one that goes by marks alone, and never
by the name of a counter, of which the same has two meanings. Tokens come to one normal form: cache reads and writes
inside `input_tokens`, reasoning inside `output_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from millicent.collector.decode import RESOURCE, Kind
from millicent.collector.dialects import agents, engines, langfuse, litellm, otel, pydantic, vercel
from millicent.collector.dialects.dialect import CALL_OPERATIONS, IN, RAW, Dialect
from millicent.collector.dialects.openinference import OPENINFERENCE
from millicent.collector.dialects.openllmetry import OPENLLMETRY, OPENLLMETRY_OLD
from millicent.collector.dialects.otel import COMMON, OTEL_USAGE
from millicent.collector.dialects.providers import PROVIDERS
from millicent.collector.dialects.tags import ATTRIBUTION

__all__ = (
    "ATTRIBUTION", "CALL_OPERATIONS", "COMMON", "DIALECTS", "ENGINES", "IN", "OTEL_USAGE", "PROVIDERS", "RANKS", "RAW",
    "STATUS", "USAGE_SOURCE", "WRAPS", "Dialect", "wanted",
)  # fmt: skip

DIALECTS: Final = (
    otel.MILLICENT,
    otel.ANTHROPIC_NATIVE,
    otel.ANTHROPIC_PLATFORM,
    otel.OTEL_GENAI,
    otel.OTEL_GENAI_PREVIOUS,
    OPENINFERENCE,
    OPENLLMETRY,
    OPENLLMETRY_OLD,
    langfuse.LANGFUSE,
    vercel.VERCEL,
    vercel.VERCEL_GENAI,
    litellm.LITELLM,
    litellm.LITELLM_RAW,
    pydantic.PYDANTIC_AI,
    pydantic.LOGFIRE_STREAM,
    pydantic.LOGFIRE,
    agents.STRANDS,
    agents.GOOGLE_ADK,
    agents.GOOGLE_ADK_OLD,
    agents.CLAUDE_CODE,
    agents.CLAUDE_CODE_EVENT,
    agents.GEMINI_CLI,
    agents.GEMINI_CLI_METRIC,
    engines.VLLM,
    engines.SGLANG,
    engines.TENSORRT_LLM,
    otel.OTEL_EVENT,
    otel.OTEL_OTHER,
    otel.GENERIC,
)

RANKS: Final[Mapping[str, int]] = {dialect.id: dialect.rank for dialect in DIALECTS}
"""How good a dialect's numbers are when two rows tell of one call: the lower, the richer."""
WRAPS: Final = frozenset(dialect.id for dialect in DIALECTS if dialect.wraps)
"""Dialects whose span may stand around calls that count themselves, and then only tags them."""
ENGINES: Final[Mapping[str, str]] = {dialect.id: dialect.engine for dialect in DIALECTS if dialect.engine}
"""Dialects written by an engine that serves models, and which engine it is."""

STATUS: Final = "millicent.status"
USAGE_SOURCE: Final = "millicent.usage_source"

_OTHER_KINDS: Final[Mapping[str, Kind]] = {
    "gen_ai.request.stream": "bool",
    "gen_ai.is_streaming": "bool",
    "llm.is_streaming": "bool",
    "gen_ai.response.time_to_first_chunk": "float",
    "gen_ai.client.operation.time_to_first_chunk": "float",
    "gen_ai.latency.time_to_first_token": "float",
    "gen_ai.server.time_to_first_token": "float",
    "llm.chat_completions.streaming_time_to_first_token": "float",
    "ai.response.msToFirstChunk": "float",
    "ai.stream.msToFirstChunk": "float",
    "ttft_ms": "float",
    "duration": "float",
    "duration_ms": "float",
    "server.port": "int",
    "millicent.accelerator_count": "int",
    RESOURCE + "millicent.accelerator_count": "int",
}
DECODED: Final = frozenset(
    ("record", "signal", "trace_id", "span_id", "parent_span_id", "name", "kind", "status_code", "start_ns", "end_ns")
) | {"scope", "scope_version", "trace_state", "first_token_ns", "labels"}
"""Columns of a decoded row that are no attributes."""


def wanted() -> dict[str, Kind]:
    """Every attribute that some dialect or tag reads, with its type."""
    counters = {key for dialect in DIALECTS for key in dialect.counters}
    facts = {key for dialect in DIALECTS for keys in dialect.facts.values() for key in keys}
    named = {name for dialect in DIALECTS for name in roots(dialect)} - DECODED
    tags = {key for keys in ATTRIBUTION.values() for key in keys}
    payloads = {key for dialect in DIALECTS for key in dialect.payloads}
    kinds: dict[str, Kind] = {
        key: _OTHER_KINDS.get(key, "text") for key in facts | named | tags | {STATUS, USAGE_SOURCE}
    }
    kinds.update(dict.fromkeys(counters, "int"))
    kinds.update(dict.fromkeys(payloads, "payload"))
    return {key: kind for key, kind in sorted(kinds.items()) if IN not in key}


def roots(dialect: Dialect) -> tuple[str, ...]:
    """Every decoded column that recognising and reading a dialect looks at beside its tables."""
    unscoped = () if dialect.unscoped is None else dialect.unscoped.meta.root_names()
    return tuple(dict.fromkeys((*dialect.roots, *dialect.marks.meta.root_names(), *unscoped)))
