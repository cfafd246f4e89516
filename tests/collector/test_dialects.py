"""Every instrumentation's way of writing usage is read as what was really billed, span by span and event by event.

The captures in `tests/fixtures/otlp` are requests of real instrumentations (some, marked `synthetic`, are written after
their documentation); `truth.json` beside them says what the provider billed, and which of it the capture cannot tell.
"""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from millicent.collector.dialects import ATTRIBUTION, DIALECTS, ENGINES, IN, RANKS, WRAPS, wanted
from millicent.collector.dialects.otel import COMMON
from millicent.warehouse import record

FOLDER = Path(__file__).parent.parent / "fixtures" / "otlp"
CAPTURES = {one["file"]: one for one in json.loads((FOLDER / "truth.json").read_text())}
READ = [name for name, one in CAPTURES.items() if one["signal"] != "metrics"]
TOLD = [name for name in READ if CAPTURES[name].get("judge", "calls") == "calls"]
TOKENS = {
    "input_tokens_total": "input_tokens", "output_tokens_total": "output_tokens", "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens", "reasoning": "reasoning_tokens", "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens", "cache_write_30m": "cache_write_30m_tokens",
    "cache_write_12h": "cache_write_12h_tokens", "audio_in": "input_audio_tokens", "audio_out": "output_audio_tokens",
}  # fmt: skip
NOT_TOLD = {
    "response_model": ("traceloop-langchain-stream.pb",),  # another span's text alone
    "service_tier": (  # what was asked for, or not told by the span that has the usage
        "otelv2old-", "traceloop-langchain-", "traceloop-mixed-", "traceloopsdk-",
    ),
    "request_model": ("langfuse-", "langfuse3-"),
}  # fmt: skip
TOLD_BEYOND = {"response_model": ("vllm-client-",), "service_tier": ("langfuse-unknown", "litellm-unknown")}


def left(batch):
    return Counter(reason for frame in batch.left for reason in frame["reason"])


@pytest.fixture(scope="module")
def capture(reading):
    """What a capture tells, by its name."""

    def batch(name):
        body = (FOLDER / name).read_bytes()
        body = gzip.decompress(body) if CAPTURES[name].get("content_encoding") == "gzip" else body
        return reading.told(body, CAPTURES[name]["signal"])

    return batch


@pytest.fixture(scope="module")
def rows_of(capture):
    """Rows of a capture, by its name."""
    known = {}

    def rows(name):
        if name not in known:
            known[name] = capture(name).spans.to_dicts()
        return known[name]

    return rows


def of_call(rows, call, calls):
    """The rows that tell of one call of a capture."""
    if call["error"]:
        return [row for row in rows if row["status"] == "error"]
    return [row for row in rows if len(calls) == 1 or row["input_tokens"] == call["input_tokens_total"]]


# ---- captures


@pytest.mark.parametrize("name", TOLD)
def test_tokens_of_a_capture_are_what_was_billed_or_unknown(rows_of, name):
    calls = CAPTURES[name]["truth"]["calls"]
    for call in calls:
        rows = of_call(rows_of(name), call, calls)
        assert rows
        for fact in TOKENS.keys() & call.keys():
            found = {row[TOKENS[fact]] for row in rows}
            if fact in call.get("unobservable", ()):
                assert found == {None}, fact
            else:
                assert found <= {call[fact], None}, fact
                assert call[fact] in found or fact in call.get("raw_only", ()) or not call[fact], fact


@pytest.mark.parametrize("name", TOLD)
def test_facts_of_a_capture_are_true_or_unknown(rows_of, name):
    calls = CAPTURES[name]["truth"]["calls"]
    for call in calls:
        rows = of_call(rows_of(name), call, calls)
        for fact in ("provider", "request_model", "response_model", "streaming", "service_tier"):
            found = {row[fact] for row in rows} - {None}
            if name.startswith(TOLD_BEYOND.get(fact, ("?",))):
                continue
            if fact in call.get("unobservable", ()):
                assert not found, fact
                continue
            allowed = (
                set(call.get("provider_acceptable", [call["provider"]])) if fact == "provider" else {call.get(fact)}
            )
            assert found <= allowed, fact
            silent = call.get(fact) in (None, False) or name.startswith(NOT_TOLD.get(fact, ("?",)))
            assert found or silent, fact


@pytest.mark.parametrize("name", READ)
def test_every_span_of_a_capture_is_a_row_or_leaves_for_a_reason(capture, name):
    batch = capture(name)
    assert batch.edges.height == (sum(left(batch).values()) if CAPTURES[name]["signal"] == "traces" else 0)
    if "span_count" in CAPTURES[name]:
        assert batch.spans.height + sum(left(batch).values()) == CAPTURES[name]["span_count"]
    assert batch.spans["odd"].null_count() == batch.spans.height


@pytest.mark.parametrize("name", READ)
def test_a_capture_is_read_by_its_own_dialect(rows_of, name):
    own = {
        "genai": "otel_genai", "otelgemini": "otel_genai", "otelv2": "otel_genai_previous",
        "otelv2old": "otel_genai_previous", "otelv2exp": "otel_genai_previous", "openinference": "openinference",
        "openinferencegemini": "openinference", "traceloop": "openllmetry", "traceloopgemini": "openllmetry",
        "traceloopsdk": "openllmetry", "traceloopold": "openllmetry_old", "langfuse": "langfuse",
        "langfuse3": "langfuse", "vercel5": "vercel", "vercel7legacy": "vercel", "vercel7": "vercel_genai",
        "litellm": "litellm", "litellmold": "litellm", "pydanticai": "pydantic_ai", "pydanticaiold": "pydantic_ai",
        "logfire": "logfire", "strands": "strands", "claudecode": "claude_code", "vllm": "vllm_engine",
    }.get(name.split("-")[0])  # fmt: skip
    seen = {row["dialect"] for row in rows_of(name)}
    assert own is None or not seen or {one for one in seen if one.startswith(own)}
    assert not seen & {"generic", "otel_other"}


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("traceloop-langchain-stream.pb", {"kind:task": 2, "kind:workflow": 1}),
        ("traceloop-mixed-batch.pb", {"no_dialect": 1}),
        ("traceloop-session-tags.pb", {"kind:workflow": 1}),
        ("openinference-langchain-stream.pb", {"kind:prompt": 1, "kind:chain": 2}),
        ("pydanticaiold-agent-anthropic-cache.pb", {"span:agent?run": 1, "span:running?tool": 1,
                                                    "span:running?tools": 1}),
        ("pydanticai-agent-stream.pb", {"operation:invoke_agent": 1}),
        ("strands-agent-2calls-latest.pb", {"operation:execute_tool": 1, "operation:execute_event_loop_cycle": 2,
                                            "operation:invoke_agent": 1}),
        ("vercel5-chat-cached-reasoning.pb", {"span:ai.generatetext": 1}),
        ("vercel7-agent-2calls.pb", {"operation:invoke_agent": 1, "operation:agent_step": 2,
                                     "operation:execute_tool": 1}),
        ("litellm-chat-stream.pb", {"span:raw_gen_ai_request_without_usage": 1}),
        ("claudecode-span.pb", {"span:interaction": 1}),
        ("genai-langchain-stream.pb", {"operation:invoke_workflow": 1}),
        ("otelv2-chat-stream.logs.pb", {"no_dialect": 2}),
    ],
)  # fmt: skip
def test_what_is_no_call_says_what_it_is(capture, name, reasons):
    assert left(capture(name)) == reasons


def test_a_stream_without_usage_is_unknown_and_not_free(rows_of):
    for name in (
        "genai-chat-stream-nousage.pb",
        "langfuse3-chat-stream-nousage.pb",
        "traceloopold-anthropic-stream.pb",
    ):
        (row,) = rows_of(name)
        assert [row[column] for column in record.TOKENS] == [None] * len(record.TOKENS)
        assert (row["usage_source"], row["usage_raw"], row["usage_flags"]) == ("missing", None, [])


@pytest.mark.parametrize("name", [name for name in TOLD if "error-429" in name])
def test_a_refused_call_used_nothing_and_nobody_answered(rows_of, name):
    for row in rows_of(name):
        assert [row[column] for column in record.TOKENS] == [0] * len(record.TOKENS)
        assert (row["status"], row["response_model"]) == ("error", None)
        assert row["request_model"]


# ---- the table


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.id)
def test_a_dialect_is_complete(dialect):
    assert {"input_tokens", "output_tokens"} <= set(dialect.usage) <= set(record.TOKENS)
    assert set(dialect.absent_is_zero) <= set(record.TOKENS) - {"input_tokens", "output_tokens"}
    assert set(dialect.facts) == set(COMMON)
    assert set(dialect.derived) <= {*COMMON, "status", "lasted_s"}
    assert set(dialect.unbelievable) <= set(record.TOKENS)
    assert set(dialect.calls.values()) <= {"chat", "text_completion", "generate_content", "embeddings"}
    assert dialect.scope is not None or dialect.unscoped is not None
    assert dialect.scope is None or re.compile(dialect.scope)
    assert dialect.about.endswith(".")
    assert dialect.revision >= 1
    assert dialect.rank > 0
    inside = [key.partition(IN)[0] for key in (*dialect.counters, *dialect.roots) if IN in key]
    inside += [key.partition(IN)[0] for keys in dialect.facts.values() for key in keys if IN in key]
    assert set(inside) == set(dialect.payloads)
    assert all(word == word.lower() for word in dialect.calls)
    for keys in (*dialect.usage.values(), *dialect.facts.values()):
        assert len(keys) == len(set(keys))


def test_ids_and_rules_are_each_one_dialects_and_others_can_ask_for_them():
    ids = [dialect.id for dialect in DIALECTS]
    assert len(ids) == len(set(ids))
    assert set(RANKS) == set(ids)
    assert {"millicent", "generic"} <= WRAPS <= set(ids)
    assert set(ENGINES.values()) == {"vllm", "sglang", "tensorrt-llm"}
    assert RANKS["anthropic_native"] < RANKS["millicent"] < RANKS["otel_genai"] < RANKS["openinference"]
    assert RANKS["openinference"] < RANKS["openllmetry"] < RANKS["otel_genai_previous"] < RANKS["langfuse"]
    assert RANKS["langfuse"] < RANKS["litellm_raw"] < RANKS["otel_event"] < RANKS["vllm_engine"] < RANKS["generic"]


def test_what_is_wanted_is_what_somebody_reads_with_one_type_each():
    kinds = wanted()
    for dialect in DIALECTS:
        assert {kinds[key] for key in dialect.counters if IN not in key} <= {"int"}
        assert {kinds[key] for key in dialect.payloads} <= {"payload"}
    assert {kinds[key] for name, keys in ATTRIBUTION.items() if name != "accelerator_count" for key in keys} == {"text"}
    assert {kinds[key] for key in ATTRIBUTION["accelerator_count"]} == {"int"}
    assert set(ATTRIBUTION) <= {column.name for column in record.CALLS}
    assert not any(IN in key for key in kinds)


def test_every_dialect_is_seen_in_a_capture_or_has_a_test_of_its_own(rows_of):
    seen = {row["dialect"] for name in READ for row in rows_of(name)}
    tested = (Path(__file__).parent / "test_dialect_rules.py").read_text()
    assert {dialect.id for dialect in DIALECTS if dialect.id not in seen and f'"{dialect.id}"' not in tested} == set()
