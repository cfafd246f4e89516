"""Every instrumentation's way of writing usage is read as what was really billed.

The captures in `tests/fixtures/otlp` are requests of real instrumentations; `truth.json` beside them says what the
provider billed: per capture the calls, the spans that are none, and per call what its spans do not tell.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from millicent.collector.dialects import ATTRIBUTION, CALL_OPERATIONS, COMMON, DIALECTS, wanted
from millicent.warehouse import record

FOLDER = Path(__file__).parent.parent / "fixtures" / "otlp"
TRUTH = json.loads((FOLDER / "truth.json").read_text())
DIALECT_OF = {"genai-": "otel_genai", "otelgemini-": "otel_genai", "otelv2": "otel_genai_previous"}
LEFT_OUT_WHEN_ZERO = {dialect.id: dialect.absent_is_zero for dialect in DIALECTS}


def capture(otlp, name):
    """What the pipeline makes of a capture that arrived just after it was made."""
    body = (FOLDER / name).read_bytes()
    whole = ExportTraceServiceRequest.FromString(body)
    ends = [s.end_time_unix_nano for g in whole.resource_spans for scoped in g.scope_spans for s in scoped.spans]
    assert len(ends) == TRUTH[name]["spans"]
    return otlp.run(body, received_at=datetime.fromtimestamp(max(ends) / 1e9, UTC))


def billed(row, name):
    """The call of the capture that a row tells of."""
    calls = TRUTH[name]["calls"]
    return next(call for call in calls if len(calls) == 1 or call["input_tokens"] == row["input_tokens"])


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_a_capture_gives_its_calls_and_nothing_else(otlp, name):
    batch = capture(otlp, name)
    reasons = pl.concat(batch.left)["reason"].value_counts().rows() if batch.left else []
    assert dict(reasons) == TRUTH[name]["not_calls"]
    assert batch.spans.height == TRUTH[name]["spans"] - sum(TRUTH[name]["not_calls"].values())
    assert batch.spans["counted"].all()
    for call in TRUTH[name]["calls"]:
        assert any(billed(row, name) == call for row in batch.spans.to_dicts())


@pytest.mark.parametrize("name", [name for name, truth in sorted(TRUTH.items()) if truth["calls"]])
def test_the_facts_of_a_capture_are_true_or_unknown(otlp, name):
    for row in capture(otlp, name).spans.to_dicts():
        call = billed(row, name)
        assert row["provider"] in call.get("providers", [row["provider"]])
        for fact in call.keys() - {"providers", "not_told"}:
            zero_is_told = fact in LEFT_OUT_WHEN_ZERO[row["dialect"]]
            if fact in call["not_told"]:
                assert row[fact] is None, fact
            elif call[fact] or zero_is_told:
                assert row[fact] == call[fact], fact
            else:
                assert not row[fact], fact


@pytest.mark.parametrize("name", [name for name in sorted(TRUTH) if name.startswith(tuple(DIALECT_OF))])
def test_a_capture_is_claimed_by_its_own_dialect(otlp, name):
    rows = capture(otlp, name).spans.filter(~pl.col("scope").str.starts_with("com.anthropic"))
    (dialect,) = (dialect for prefix, dialect in DIALECT_OF.items() if name.startswith(prefix))
    assert set(rows["dialect"]) == {dialect}
    assert rows["usage_rule"].str.starts_with(f"{dialect}/").all()


def test_the_time_that_cache_writes_are_kept_is_read_where_it_is_told(otlp):
    rows = capture(otlp, "genai-langchain-anthropic-cache.pb").spans.rows_by_key("scope", named=True, unique=True)
    native, langchain = rows["com.anthropic.sdk.python"], rows["opentelemetry.instrumentation.genai.langchain"]
    assert (native["cache_write_5m_tokens"], native["cache_write_1h_tokens"]) == (1021, 509)
    assert langchain["cache_write_tokens"] == 1530
    assert langchain["cache_write_5m_tokens"] is langchain["cache_write_1h_tokens"] is None


def test_a_stream_without_usage_is_unknown_and_not_free(otlp):
    (row,) = capture(otlp, "genai-chat-stream-nousage.pb").spans.to_dicts()
    assert [row[name] for name in record.TOKENS] == [None] * len(record.TOKENS)
    assert (row["usage_source"], row["usage_raw"]) == ("missing", None)
    assert row["list_cost_usd"] is None
    assert row["price_status"] == "partial"


@pytest.mark.parametrize("name", ["genai-error-429.pb", "genai-anthropic-error-429.pb"])
def test_a_refused_call_costs_nothing(otlp, name):
    for row in capture(otlp, name).spans.to_dicts():
        assert [row[name] for name in record.TOKENS] == [0] * len(record.TOKENS)
        assert (row["status"], row["price_status"], row["list_cost_usd"], row["billed_cost_usd"]) == (
            "error", "not_billed", 0, 0,
        )  # fmt: skip
        assert row["error_type"]


def test_every_dialect_is_seen_in_a_capture_or_in_our_own_spans(otlp):
    seen = {id_ for name in TRUTH for id_ in capture(otlp, name).spans["dialect"]}
    seen |= set(otlp.run(otlp.request(otlp.span())).spans["dialect"])
    assert seen == {dialect.id for dialect in DIALECTS}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.id)
def test_a_dialect_is_complete(dialect):
    assert set(dialect.usage) == set(record.TOKENS)
    assert set(dialect.absent_is_zero) <= set(record.TOKENS) - {"input_tokens", "output_tokens"}
    assert set(dialect.facts) == set(COMMON)
    assert dialect.revision >= 1
    keys = [key for part in (dialect.usage, dialect.facts) for spelled in part.values() for key in spelled]
    assert len(keys) == len(set(keys))


def test_what_is_wanted_is_what_somebody_reads_with_one_type_each():
    kinds = wanted()
    for dialect in DIALECTS:
        assert {kinds[key] for keys in dialect.usage.values() for key in keys} == {"int"}
    texts = {"operation", "provider", "request_model", "response_model", "response_id", "endpoint_host", "service_tier"}
    assert {kinds[key] for fact in texts for key in COMMON[fact]} == {"text"}
    assert {kinds[key] for name, keys in ATTRIBUTION.items() if name != "accelerator_count" for key in keys} == {"text"}
    assert {kinds[key] for key in ATTRIBUTION["accelerator_count"]} == {"int"}
    assert set(ATTRIBUTION) <= {column.name for column in record.CALLS}
    assert set(CALL_OPERATIONS.values()) == {"chat", "text_completion", "generate_content", "embeddings"}


@pytest.mark.parametrize(
    ("attribute", "column"),
    [(key, column) for dialect in DIALECTS for column, keys in dialect.usage.items() for key in keys],
)
@pytest.mark.parametrize("scope", ["millicent.sdk", "opentelemetry.instrumentation.genai.openai", "somebody.else"])
def test_every_spelling_of_a_counter_is_read(otlp, scope, attribute, column):
    names = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    whole = {"gen_ai.usage.prompt_tokens": 900, "gen_ai.usage.completion_tokens": 800}
    row = otlp.run(otlp.request(otlp.span(names | whole | {attribute: 7}), scope=scope)).spans.row(0, named=True)
    if attribute not in whole:  # the current name wins over the previous one
        assert row[column] == 7
        assert f'"{attribute}":7' in row["usage_raw"]


def test_two_spellings_of_one_counter_are_never_added(otlp):
    spellings = {
        "gen_ai.usage.prompt_tokens": 1000,
        "gen_ai.usage.cache_read.input_tokens": 300,
        "gen_ai.usage.cache_read_input_tokens": 300,
        "gen_ai.usage.cached_tokens": 300,
    }
    row = otlp.run(otlp.request(otlp.span(spellings))).spans.row(0, named=True)
    assert (row["input_tokens"], row["cache_read_tokens"]) == (1000, 300)
