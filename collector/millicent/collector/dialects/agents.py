"""Agent frameworks and command lines that tell of their own calls."""

from __future__ import annotations

from typing import Final

import polars as pl

from millicent.collector.dialects.dialect import Dialect, any_told
from millicent.collector.dialects.otel import COMMON, OTEL_TOTAL, OTEL_USAGE

STRANDS: Final = Dialect(
    id="strands",
    revision=1,
    about="Strands Agents. Every counter in two spellings, of which one is read; time to the first token in whole "
    "milliseconds; the provider is never told. Old releases pass Bedrock's exclusive input on, which its total proves.",
    rank=50,
    scope=r"^strands\b",
    facts=COMMON | {"ttft_s": (), "ttft_ms": ("gen_ai.server.time_to_first_token",)},
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
)

GOOGLE_ADK: Final = Dialect(
    id="google_adk",
    revision=1,
    about="Google's Agent Development Kit: one call as span, log event and metric.",
    rank=50,
    scope=r"^gcp\.vertex\.agent$",
    marks=pl.col("gen_ai.operation.name").is_not_null() & (pl.col("name") != "call_llm"),
    facts=COMMON,
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
)

GOOGLE_ADK_OLD: Final = Dialect(
    id="google_adk_old",
    revision=1,
    about="`call_llm` of older Development Kits: the call itself, or the parent of the span that is.",
    rank=51,
    scope=r"^gcp\.vertex\.agent$",
    facts=COMMON | {"operation": ()},
    usage=OTEL_USAGE,
    total=OTEL_TOTAL,
    word=pl.when(any_told("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"))
    .then("name")
    .otherwise(pl.concat_str("name", pl.lit("_without_usage"))),
    reason="span",
    calls={"call_llm": "generate_content"},
    wraps=True,
)

_CLAUDE_USAGE: Final[dict[str, tuple[str, ...]]] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_tokens",),
    "cache_write_tokens": ("cache_creation_tokens",),
}
_CLAUDE_FACTS: Final = COMMON | {
    "operation": ("span.type",),
    "provider": ("gen_ai.provider.name", "gen_ai.system"),
    "request_model": ("gen_ai.request.model", "model"),
    "response_model": (),
    "response_id": (),
    "request_id": ("request_id", "gen_ai.response.id"),
    "streaming": (),
    "ttft_s": (),
    "ttft_ms": ("ttft_ms",),
    "error_type": ("error.type", "error"),
    "service_tier": (),
    "speed": ("speed",),
}
_CLAUDE_WORD: Final = pl.col("name").str.strip_prefix("claude_code.")
_ANTHROPIC: Final = pl.coalesce("gen_ai.provider.name", "gen_ai.system", pl.lit("anthropic"))

CLAUDE_CODE: Final = Dialect(
    id="claude_code",
    revision=1,
    about="Claude Code's spans and metrics. Bare names; input leaves the cache out; what stands as response id is the "
    "request's.",
    rank=50,
    scope=r"claude_code",
    unscoped=pl.col("name").str.starts_with("claude_code."),
    facts=_CLAUDE_FACTS,
    usage=_CLAUDE_USAGE,
    excludes_cache=pl.lit(True),
    word=pl.coalesce("span.type", _CLAUDE_WORD),
    reason="span",
    calls={"llm_request": "chat", "token.usage": "chat"},
    derived={
        "provider": _ANTHROPIC,
        "status": pl.when(pl.col("success") == "false").then(pl.lit("error")),
    },
)

CLAUDE_CODE_EVENT: Final = Dialect(
    id="claude_code_event",
    revision=1,
    about="The log event `claude_code.api_request`, which Claude Code writes when a call ends.",
    rank=60,
    scope=r"claude_code",
    unscoped=pl.col("name").str.starts_with("claude_code."),
    signals=("log",),
    facts=_CLAUDE_FACTS | {"operation": ()},
    usage=_CLAUDE_USAGE,
    excludes_cache=pl.lit(True),
    word=_CLAUDE_WORD,
    reason="event",
    calls={"api_request": "chat"},
    derived={"provider": _ANTHROPIC, "lasted_s": pl.col("duration_ms") / 1000},
)

_GEMINI_USAGE: Final[dict[str, tuple[str, ...]]] = {
    "input_tokens": ("input_token_count",),
    "output_tokens": ("output_token_count",),
    "cache_read_tokens": ("cached_content_token_count",),
    "reasoning_tokens": ("thoughts_token_count",),
}

GEMINI_CLI: Final = Dialect(
    id="gemini_cli",
    revision=1,
    about="The log event `gemini_cli.api_response`: cached tokens inside input, thoughts beside output, tool prompts "
    "beside input.",
    rank=60,
    unscoped=pl.col("name").str.starts_with("gemini_cli."),
    signals=("log",),
    facts=COMMON
    | {
        "operation": (),
        "provider": (),
        "request_model": ("model",),
        "response_model": (),
        "streaming": (),
        "error_type": ("error.type", "error_type", "error"),
    },
    usage=_GEMINI_USAGE,
    total=("total_token_count",),
    input_rest=("tool_token_count",),
    excludes_reasoning=pl.lit(True),
    word=pl.col("name").str.strip_prefix("gemini_cli."),
    reason="event",
    calls={"api_response": "generate_content"},
    derived={"provider": pl.lit("gcp.gemini"), "lasted_s": pl.col("duration_ms") / 1000},
)

GEMINI_CLI_METRIC: Final = Dialect(
    id="gemini_cli_metric",
    revision=1,
    about="The metric `gemini_cli.token.usage`, where it is all there is.",
    rank=62,
    unscoped=pl.col("name").str.starts_with("gemini_cli."),
    signals=("metric",),
    facts=GEMINI_CLI.facts,
    usage=_GEMINI_USAGE,
    excludes_reasoning=pl.lit(True),
    input_rest=("tool_token_count",),
    word=pl.col("name").str.strip_prefix("gemini_cli."),
    reason="metric",
    calls={"token.usage": "generate_content"},
    derived={"provider": pl.lit("gcp.gemini")},
)
