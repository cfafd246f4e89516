"""Usage objects as the providers' interfaces write them, wherever an instrumentation passes one on whole.

| interface | input | output |
| --- | --- | --- |
| OpenAI chat and responses, and servers like it | cached tokens inside | reasoning inside |
| Anthropic messages | cache reads and writes beside it | thinking inside |
| Gemini | cached tokens inside, tool prompts beside it | thoughts beside it |
| Bedrock Converse | cache reads and writes beside it | reasoning inside |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import any_raw, raw, with_units

_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_ANTHROPIC_CACHE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
_BEDROCK_CACHE: Final = ("cacheReadInputTokens", "cacheWriteInputTokens")

USAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": (
        "prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count", "inputTokens",
    ),
    "output_tokens": (
        "completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count", "outputTokens",
    ),
    "cache_read_tokens": (
        "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens", "cache_read_input_tokens",
        "cachedContentTokenCount", "cached_content_token_count", "cacheReadInputTokens", "prompt_cache_hit_tokens",
        "input_token_details.cache_read",
    ),
    "cache_write_tokens": (
        "prompt_tokens_details.cache_write_tokens", "input_tokens_details.cache_write_tokens",
        "cache_creation_input_tokens", "prompt_tokens_details.cache_creation_tokens", "cacheWriteInputTokens",
        "input_token_details.cache_creation",
    ),
    "cache_write_5m_tokens": (
        "cache_creation.ephemeral_5m_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens",
        "input_token_details.ephemeral_5m_input_tokens",
    ),
    "cache_write_30m_tokens": tuple(f"{one}.cache_write_tokens_details.ttl_30m_tokens" for one in _DETAILS[:2]),
    "cache_write_1h_tokens": (
        "cache_creation.ephemeral_1h_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
        "input_token_details.ephemeral_1h_input_tokens",
    ),
    "cache_write_12h_tokens": tuple(f"{one}.cache_write_tokens_details.ttl_12h_tokens" for one in _DETAILS[:2]),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens", "thoughtsTokenCount", "thoughts_token_count",
        "output_token_details.reasoning",
    ),
    "input_audio_tokens": (
        "prompt_tokens_details.audio_tokens", "input_tokens_details.audio_tokens", "input_token_details.audio",
    ),
    "output_audio_tokens": (
        "completion_tokens_details.audio_tokens", "output_tokens_details.audio_tokens", "output_token_details.audio",
    ),
    "input_image_tokens": ("prompt_tokens_details.image_tokens", "input_tokens_details.image_tokens"),
}  # fmt: skip
"""Column of the record → places in the object."""

UNITS: Final[Mapping[str, tuple[str, ...]]] = {
    "web_searches": (
        "server_tool_use.web_search_requests", "server_side_tool_usage_details.web_search_calls",
        "prompt_tokens_details.web_search_requests", "tool_calls_details.search_web.invocation",
    ),
    "social_searches": ("server_side_tool_usage_details.x_search_calls",),
    "storage_searches": ("server_side_tool_usage_details.file_search_calls",),
    "code_executions": ("server_side_tool_usage_details.code_interpreter_calls",),
}  # fmt: skip
"""Other billable unit → places in the object: Anthropic's, xAI's, LiteLLM's, Perplexity's."""

TOTAL: Final = ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens")
INPUT_REST: Final = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")


def usage(within: str) -> dict[str, tuple[str, ...]]:
    """`USAGE` as counters of the object that stands at `within`, such as `gen_ai.usage.raw#`."""
    return {column: spelled(within, *places) for column, places in USAGE.items()}


def units(*within: str) -> dict[str, tuple[str, ...]]:
    """Our own attributes, and `UNITS` as counters of the objects that stand at `within`."""
    return with_units(*({name: spelled(one, *places) for name, places in UNITS.items()} for one in within))


def spelled(within: str, *places: str) -> tuple[str, ...]:
    """Places as counters of the object that stands at `within`."""
    return tuple(within + place for place in places)


def after(first: Mapping[str, tuple[str, ...]], *then: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Tables of usage one behind the other: what stands in the first wins."""
    tables = (first, *then)
    return {column: tuple(dict.fromkeys(key for one in tables for key in one.get(column, ()))) for column in USAGE}


def excludes_cache(within: str) -> pl.Expr:
    """Whether the object is one of those whose input is told without its cached part."""
    anthropic = raw(within + "input_tokens").is_not_null() & any_raw(*spelled(within, *_ANTHROPIC_CACHE))
    detailed = any_raw(
        within + "prompt_tokens",
        within + "input_tokens_details.cached_tokens",
        within + "input_token_details.cache_read",
    )
    bedrock = raw(within + "inputTokens").is_not_null() & any_raw(*spelled(within, *_BEDROCK_CACHE))
    return (anthropic & ~detailed) | bedrock


def excludes_reasoning(within: str) -> pl.Expr:
    """Whether the object is one of those whose output is told without reasoning."""
    return any_raw(*spelled(within, "candidatesTokenCount", "candidates_token_count"))
