"""Which metrics tell of tokens, and what each point of them says. A family of metrics is a row of `FAMILIES`.

A point feeds the attribute that a span of the same dialect would carry, so that the rules of `DIALECTS` read both. All
other metrics (durations, costs, choices) are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

INPUT: Final = "gen_ai.usage.input_tokens"
OUTPUT: Final = "gen_ai.usage.output_tokens"
CACHE_READ: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING: Final = "gen_ai.usage.reasoning.output_tokens"

MODALITY: Final = "gen_ai.token.modality"
OF_MODALITY: Final[Mapping[tuple[str, str], str]] = {
    (INPUT, "audio"): "gen_ai.usage.audio.input_tokens",
    (OUTPUT, "audio"): "gen_ai.usage.audio.output_tokens",
    (INPUT, "image"): "gen_ai.usage.image.input_tokens",
}
"""What a point of one modality feeds beside its total."""


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics that together tell of the same calls.

    `feeds`: metric, or `metric#token type` where the attribute `by` tells the type → the attribute that a point feeds.
    `yields_to`: families that tell the same tokens better; where one of them reports for the same resource, scope and
    time, this family's points are not added. `absent_is_zero`: attributes that the family leaves out when they are 0.
    `operation`: what its calls do, where its points need not tell.
    """

    id: str
    feeds: Mapping[str, str]
    by: str | None = None
    yields_to: tuple[str, ...] = ()
    absent_is_zero: tuple[str, ...] = ()
    operation: str | None = None


FAMILIES: Final = (
    Family(
        id="gen_ai.client.inference.usage",
        feeds={
            "gen_ai.client.inference.usage.input_tokens": INPUT,
            "gen_ai.client.inference.usage.output_tokens": OUTPUT,
            "gen_ai.client.inference.usage.cache_read.input_tokens": CACHE_READ,
            "gen_ai.client.inference.usage.cache_write.input_tokens": CACHE_WRITE,
            "gen_ai.client.inference.usage.reasoning.output_tokens": REASONING,
        },
        absent_is_zero=(CACHE_READ, CACHE_WRITE, REASONING),
    ),
    Family(
        id="gen_ai.client.token.usage",
        feeds={
            "gen_ai.client.token.usage#input": INPUT,
            "gen_ai.client.token.usage#prompt": INPUT,
            "gen_ai.client.token.usage#output": OUTPUT,
            "gen_ai.client.token.usage#completion": OUTPUT,
        },
        by="gen_ai.token.type",
        yields_to=("gen_ai.client.inference.usage",),
    ),
    Family(
        id="gen_ai.client.inference.tokens",
        feeds={"gen_ai.client.inference.tokens#input": INPUT, "gen_ai.client.inference.tokens#output": OUTPUT},
        by="gen_ai.token.type",
        yields_to=("gen_ai.client.inference.usage", "gen_ai.client.token.usage"),
    ),
    Family(
        id="claude_code.token.usage",
        feeds={
            "claude_code.token.usage#input": "input_tokens",
            "claude_code.token.usage#output": "output_tokens",
            "claude_code.token.usage#cacheRead": "cache_read_tokens",
            "claude_code.token.usage#cacheCreation": "cache_creation_tokens",
        },
        by="type",
        absent_is_zero=("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"),
        operation="chat",
    ),
    Family(
        id="gemini_cli.token.usage",
        feeds={
            "gemini_cli.token.usage#input": "input_token_count",
            "gemini_cli.token.usage#output": "output_token_count",
            "gemini_cli.token.usage#cache": "cached_content_token_count",
            "gemini_cli.token.usage#thought": "thoughts_token_count",
            "gemini_cli.token.usage#tool": "tool_token_count",
        },
        by="type",
        yields_to=("gen_ai.client.inference.usage", "gen_ai.client.token.usage"),
        operation="generate_content",
    ),
    Family(
        id="strands.event_loop",
        feeds={
            "strands.event_loop.input.tokens": INPUT,
            "strands.event_loop.output.tokens": OUTPUT,
            "strands.event_loop.cache_read.input.tokens": CACHE_READ,
            "strands.event_loop.cache_write.input.tokens": CACHE_WRITE,
        },
        operation="chat",
    ),
)

FEEDS: Final = {key: attribute for family in FAMILIES for key, attribute in family.feeds.items()}
FAMILY_OF: Final = {key.partition("#")[0]: family.id for family in FAMILIES for key in family.feeds}
BY: Final = {family.id: family.by for family in FAMILIES if family.by is not None}
OPERATIONS: Final = {family.id: family.operation for family in FAMILIES if family.operation is not None}
YIELDS: Final = tuple((family.id, better) for family in FAMILIES for better in family.yields_to)
