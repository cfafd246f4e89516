"""Every call that real packages tell of is counted once, with the numbers that the provider served."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from typing import Any

import pytest

from millicent.warehouse.record import NOT_COUNTED, TOKENS

pytestmark = pytest.mark.instrumentations

OPENAI = ("chat", "chat_stream", "chat_stream_without_usage", "chat_stream_left", "chat_retried", "chat_refused",
          "chat_twins", "embeddings")  # fmt: skip
RESPONSES = ("responses", "responses_stream")
ANTHROPIC = ("messages", "messages_create_stream", "messages_stream", "messages_counted", "messages_retried",
             "messages_refused", "messages_twins")  # fmt: skip
GEMINI = ("gemini", "gemini_stream")
AGENT = ("agent_openai", "agent_anthropic")
LITELLM = ("litellm_chat", "litellm_stream", "litellm_messages", "litellm_refused", "litellm_embeddings")

TTL = ("cache_write_5m_tokens", "cache_write_1h_tokens")
HOST = ("endpoint_host",)
USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "usage_source")
LANGFUSE = {"any": (*HOST, "provider"), "whole": ("request_model",), "streamed": ("request_model", "streaming")}
ALONE = {"ANTHROPIC_OPEN_TELEMETRY": "false"}
APART = {"OTEL_BSP_SCHEDULE_DELAY": "20"}  # each span leaves soon after its end, so twins come in requests of their own
USER = {"user_id": "ada", "session_id": "session-7"}


@dataclass(frozen=True)
class Program:
    """One application: `instrumentations` and `calls` are names of program.py, `venv` is one of .venvs.

    `dialects` are those of its counted calls. `untold` are columns, by trait of a call, that no instrumentation of it
    tells: they must be unknown, and not 0. `otherwise` are columns told otherwise than the provider does, and how.
    `tags` are on every call. `environment` is on top of the usual variables.
    """

    name: str
    venv: str
    instrumentations: tuple[str, ...]
    calls: tuple[str, ...]
    dialects: tuple[str, ...]
    untold: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    otherwise: Mapping[str, Mapping[str, Callable[[Any], Any]]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def asked_for(line: Any) -> str:
    return line.request_model


ONE = [
    Program("genai-openai", "current", ("opentelemetry", "genai_openai"), OPENAI + RESPONSES, ("otel_genai",)),
    Program("genai-openai-metrics", "current", ("opentelemetry", "opentelemetry_metrics", "genai_openai"),
            OPENAI, ("otel_genai",)),
    Program("genai-anthropic", "current", ("opentelemetry", "genai_anthropic"), ANTHROPIC, ("otel_genai",),
            {"any": TTL}, environment=ALONE),
    Program("google-genai", "current", ("opentelemetry", "google_genai"), GEMINI, ("otel_genai",)),
    Program("self-hosted", "current", ("opentelemetry", "genai_openai"), ("chat", "chat_stream"), ("otel_genai",),
            environment={"OPENAI_BASE_URL": "http://vllm.internal:8000/v1", "OPENAI_MODEL": "Qwen/Qwen3-8B"}),
    Program("openai-v2", "previous", ("opentelemetry", "openai_v2"), OPENAI, ("otel_genai_previous",),
            {"any": ("streaming",), "completions": ("cache_read_tokens", "reasoning_tokens")}),
    Program("anthropic-native", "current", ("opentelemetry",), ANTHROPIC, ("anthropic_native",)),
    Program("openinference-openai", "current", ("opentelemetry", "openinference_openai"),
            ("openinference_user", *OPENAI, *RESPONSES), ("openinference",), {"any": HOST}, tags=USER),
    Program("openinference-anthropic", "current", ("opentelemetry", "openinference_anthropic"), ANTHROPIC,
            ("openinference",), {"any": HOST}, environment=ALONE),
    Program("openinference-gemini", "current", ("opentelemetry", "openinference_gemini"), GEMINI, ("openinference",),
            {"any": HOST}, {"any": {"operation": lambda _: "chat"}}),
    Program("openllmetry-openai", "current", ("opentelemetry", "openllmetry_openai"), OPENAI + RESPONSES,
            ("openllmetry",), {"completions streamed": ("reasoning_tokens",), "responses": HOST}),
    Program("openllmetry-anthropic", "current", ("opentelemetry", "openllmetry_anthropic"),
            ("messages", "messages_create_stream", "messages_counted", "messages_retried", "messages_refused",
             "messages_twins"), ("openllmetry",),
            {"any": (*HOST, *TTL, "reasoning_tokens")},
            {"streamed": {"output_tokens": lambda line: line.usage.output + 3}}, environment=ALONE),
    # The older one loses the usage of streams, and tells nothing of one that was left.
    Program("openllmetry-openai-old", "previous", ("opentelemetry", "openllmetry_openai"),
            tuple(call for call in OPENAI if call != "chat_stream_left"), ("openllmetry_old",),
            {"any": ("reasoning_tokens",), "streamed": USAGE}),
    Program("openllmetry-anthropic-old", "previous", ("opentelemetry", "openllmetry_anthropic"),
            ("messages", "messages_stream", "messages_counted", "messages_twins"), ("openllmetry_old",),
            {"any": (*HOST, *TTL, "reasoning_tokens", "streaming"), "streamed": ("response_model", *USAGE)}),
    Program("langfuse", "current", ("langfuse",), ("langfuse_user", *OPENAI, *RESPONSES), ("langfuse",), LANGFUSE,
            tags=USER),
    Program("langfuse-old", "previous", ("langfuse",), OPENAI + RESPONSES, ("langfuse",), LANGFUSE),
    Program("logfire", "current", ("logfire", "logfire_openai", "logfire_anthropic"), OPENAI + RESPONSES + ANTHROPIC,
            ("logfire", "logfire_stream"),
            {"any": HOST, "streamed": ("response_model",)}, environment=ALONE | APART),
    Program("pydantic-ai", "current", ("opentelemetry", "pydantic_ai"), AGENT, ("pydantic_ai",),
            {"any": ("streaming", *TTL)}, environment=ALONE),
    Program("pydantic-ai-old", "previous", ("opentelemetry", "pydantic_ai"), AGENT, ("pydantic_ai",),
            {"any": ("streaming", *TTL), "completions": ("cache_read_tokens",), "messages": ("reasoning_tokens",)}),
    Program("litellm", "previous", ("litellm",), LITELLM, ("litellm",),
            {"streamed": ("response_model",), "messages": HOST, "refused": HOST}),
]  # fmt: skip

TWO = [
    Program("genai+openinference", "current", ("opentelemetry", "genai_openai", "openinference_openai"),
            ("openinference_user", *OPENAI, *RESPONSES), ("otel_genai",), tags=USER, environment=APART),
    Program("openinference+genai", "current", ("opentelemetry", "openinference_openai", "genai_openai"),
            OPENAI + RESPONSES, ("otel_genai",), environment=APART),
    Program("three-on-openai", "current",
            ("opentelemetry", "openllmetry_openai", "genai_openai", "openinference_openai"), OPENAI + RESPONSES,
            ("otel_genai",), environment=APART),
    Program("genai+anthropic-native", "current", ("opentelemetry", "genai_anthropic"), ANTHROPIC,
            ("anthropic_native",), environment=APART),
    Program("openinference+anthropic-native", "current", ("opentelemetry", "openinference_anthropic"), ANTHROPIC,
            ("anthropic_native",), environment=APART),
    Program("openllmetry+anthropic-native", "current", ("opentelemetry", "openllmetry_anthropic"), ANTHROPIC,
            ("anthropic_native",), environment=APART),
    Program("pydantic-ai+anthropic-native", "current", ("opentelemetry", "pydantic_ai"), ("agent_anthropic",),
            ("anthropic_native",), environment=APART),
    Program("pydantic-ai+genai", "current", ("opentelemetry", "pydantic_ai", "genai_openai"), ("agent_openai",),
            ("otel_genai",), environment=APART),
    Program("logfire+anthropic-native", "current", ("logfire", "logfire_anthropic"), ANTHROPIC,
            ("anthropic_native", "logfire"), {"whole": HOST, "refused": HOST}, environment=APART),
    Program("litellm+openinference", "previous", ("opentelemetry", "litellm", "openinference_openai"), LITELLM,
            ("openinference", "litellm"), {"messages": HOST, "refused": HOST}, environment=APART),
    Program("track-tokens+genai", "current", ("opentelemetry", "millicent", "genai_openai"), ("chat_tracked",),
            ("otel_genai",), tags={"team": "Search", "feature": "answers"}, environment=APART),
]  # fmt: skip

PROGRAMS = ONE + TWO


def rows_of(instance: Any, program: Program, **asked: str) -> list[dict[str, Any]]:
    """Its calls in the order in which they were made."""
    rows = instance.get("calls", service=program.name, limit=200, **asked)["calls"]
    return sorted(rows, key=lambda row: row["started_at"])


def expected(program: Program, line: Any) -> dict[str, Any]:
    """What the record should tell of one line of the provider's books."""
    row = line.row()
    for trait in line.traits:
        unknown = [column for column in program.untold.get(trait, ()) if column in row]
        row |= {column: None for column in unknown if not (line.refused and column in TOKENS)}
        row |= {column: tell(line) for column, tell in program.otherwise.get(trait, {}).items()}
    row["usage_source"] = row["usage_source"] or "missing"
    if not line.streaming:
        del row["streaming"]  # false or unknown: most tell it of streams alone
    return row | {"team": f"Team {program.name}", "service": program.name, **program.tags}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_calls_are_counted_once_with_the_numbers_that_were_served(program, ended, instance, provider):
    rows, books = rows_of(instance, program), provider.books[program.name]
    wrong = []
    for at, (row, line) in enumerate(zip_longest(rows, books)):
        if row is None or line is None:
            wrong.append(f"{at}: not counted: {line}" if row is None else f"{at}: never served: {row}")
            continue
        told = expected(program, line)
        differs = {column: (row[column], value) for column, value in told.items() if row[column] != value}
        differs |= {
            column: (row[column], "nothing") for column in (*TOKENS, "streaming") if column not in told and row[column]
        }
        if differs:
            wrong.append(f"{at} {sorted(line.traits)}, got and expected: {differs}")
    assert not wrong, "\n".join(wrong)
    assert {row["dialect"] for row in rows} == set(program.dialects)
    assert "canary" not in str(rows_of(instance, program, include="uncounted"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_sums_are_those_of_the_books(program, ended, instance, provider):
    lines = [expected(program, line) for line in provider.books[program.name]]
    sums = {name: sum(line[name] or 0 for line in lines) for name in ("input_tokens", "output_tokens")}
    (row,) = instance.get("query", measures="calls,input_tokens,output_tokens", filter=f"service:{program.name}",
                          period="24h")["rows"]  # fmt: skip
    assert {name: Decimal(row[name]) for name in sums} == sums
    assert row["calls"] == len(lines)


@pytest.mark.parametrize("program", TWO, ids=lambda program: program.name)
def test_what_is_not_counted_says_why_and_which_call_counts(program, ended, instance):
    rows = rows_of(instance, program, include="uncounted")
    counted = {(row["trace_id"], row["span_id"]) for row in rows if row["counted"]}
    others = [row for row in rows if not row["counted"]]
    assert others
    for row in others:
        assert row["not_counted_reason"] in NOT_COUNTED
        assert (row["counted_as_trace_id"], row["counted_as"]) in counted


def test_the_balance_closes_with_nothing_refused_or_set_aside(runs, instance, wait_for):
    for done in runs.values():
        assert done.result().returncode == 0
    wait_for(lambda: instance.get("balance")["in_spool"] == 0)
    books = instance.get("balance")
    assert books["received"] == books["stored"] + books["duplicate"] + books["not_a_call"]
