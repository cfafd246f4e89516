"""Whose way of writing usage is this, and where does each number stand? A dialect is a row of `DIALECTS`.

A span belongs to the first dialect that claims it. `fields` tells, per column of the record, which attributes carry it,
first one present wins: two spellings of one counter are never added. `absent_is_zero` lists the counters that the
dialect leaves out when they are 0; the absence of any other counter means unknown. All dialects here report the
inclusive normal form (cache reads and writes inside `input_tokens`, reasoning inside `output_tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from millicent.collector.decode import RESOURCE, Kind

CALL_OPERATIONS: Final = {
    "chat": "chat",
    "text_completion": "text_completion",
    "generate_content": "generate_content",
    "embeddings": "embeddings",
    "completion": "text_completion",
    "embedding": "embeddings",
}
"""Operations that are one physical call, by every spelling in use; any other is a roll-up, a tool or a look-up."""

COMMON: Final[Mapping[str, tuple[str, ...]]] = {
    "operation": ("gen_ai.operation.name", "llm.request.type"),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model",),
    "response_model": ("gen_ai.response.model",),
    "response_id": ("gen_ai.response.id",),
    "streaming": ("gen_ai.request.stream",),
    "ttft_s": ("gen_ai.response.time_to_first_chunk",),
    "endpoint_host": ("server.address",),
    "endpoint_port": ("server.port",),
    "error_type": ("error.type",),
    "service_tier": (
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
        "anthropic.response.service_tier",
        "millicent.service_tier",
    ),
}
"""Facts beside usage, which every OpenTelemetry dialect writes alike."""

OTEL_USAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cache_read_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
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
    ),
    "input_audio_tokens": ("gen_ai.usage.audio.input_tokens",),
    "output_audio_tokens": ("gen_ai.usage.audio.output_tokens",),
    "input_image_tokens": ("gen_ai.usage.image.input_tokens",),
}

LEFT_OUT_WHEN_ZERO: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
"""What the official instrumentations report whenever there is any; how long cache writes are kept, they never tell."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way of writing usage. `revision` goes up when the rule changes, so that old rows can be read again."""

    id: str
    revision: int
    claims: pl.Expr
    facts: Mapping[str, tuple[str, ...]]
    usage: Mapping[str, tuple[str, ...]]
    absent_is_zero: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """Stored with every row that this dialect produced."""
        return f"{self.id}/{self.revision}"


DIALECTS: Final = (
    Dialect(
        id="millicent",
        revision=1,
        claims=pl.col("scope") == "millicent.sdk",
        facts=COMMON,
        usage=OTEL_USAGE,
    ),
    Dialect(
        id="otel_genai",
        revision=1,
        claims=pl.col("scope").str.contains(r"^opentelemetry\.instrumentation\.(genai\.|google_genai$)")
        & pl.col("gen_ai.operation.name").is_not_null(),
        facts=COMMON,
        usage=OTEL_USAGE,
        absent_is_zero=LEFT_OUT_WHEN_ZERO,
    ),
    Dialect(
        id="otel_genai_previous",
        revision=1,
        claims=pl.any_horizontal(
            pl.col(name).is_not_null() for name in ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system")
        ),
        facts=COMMON,
        usage=OTEL_USAGE,
    ),
)

ATTRIBUTION: Final[Mapping[str, tuple[str, ...]]] = {
    "team": ("millicent.team", "resource:millicent.team", "resource:team"),
    "project": ("millicent.project", "resource:millicent.project"),
    "feature": ("millicent.feature", "resource:millicent.feature"),
    "customer": ("millicent.customer", "resource:millicent.customer"),
    "user_id": ("user.id", "enduser.id"),
    "session_id": ("session.id", "gen_ai.conversation.id"),
    "environment": (
        "millicent.environment",
        "resource:millicent.environment",
        "resource:deployment.environment.name",
        "resource:deployment.environment",
    ),
    "service": ("resource:service.name",),
    "deployment": ("millicent.deployment", "resource:millicent.deployment"),
    "engine": ("millicent.engine", "resource:millicent.engine"),
    "accelerator": ("millicent.accelerator", "resource:millicent.accelerator"),
    "accelerator_count": ("millicent.accelerator_count", "resource:millicent.accelerator_count"),
    "precision": ("millicent.precision", "resource:millicent.precision"),
    "region": ("millicent.region", "resource:millicent.region", "resource:cloud.region"),
}
"""Where a tag may stand, nearest to the call first."""

STATUS: Final = "millicent.status"
USAGE_SOURCE: Final = "millicent.usage_source"

_OTHER_KINDS: Final[Mapping[str, Kind]] = {
    "gen_ai.request.stream": "bool",
    "gen_ai.response.time_to_first_chunk": "float",
    "server.port": "int",
    "millicent.accelerator_count": "int",
    RESOURCE + "millicent.accelerator_count": "int",
}


def wanted() -> dict[str, Kind]:
    """Every attribute that some dialect or tag reads, with its type."""
    usage = {key for dialect in DIALECTS for keys in dialect.usage.values() for key in keys}
    facts = {key for dialect in DIALECTS for keys in dialect.facts.values() for key in keys}
    tags = {key for keys in ATTRIBUTION.values() for key in keys}
    kinds: dict[str, Kind] = dict.fromkeys(sorted(usage), "int")
    kinds |= {key: _OTHER_KINDS.get(key, "text") for key in sorted(facts | tags | {STATUS, USAGE_SOURCE})}
    return kinds
