"""What numbers prove of each other, sampling, what stays of spans that are no calls, and reading again."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from millicent.collector import tokens
from millicent.collector.dialects import ATTRIBUTION, DIALECTS
from millicent.collector.reading import reread
from millicent.warehouse import record

FOLDER = Path(__file__).parent.parent / "fixtures" / "otlp"
CAPTURES = {one["file"]: one for one in json.loads((FOLDER / "truth.json").read_text()) if one["signal"] != "metrics"}
OTHER = "somebody.elses.tracer"
RULED = (*record.TOKENS, "usage_rule", "usage_flags", "usage_source")


@pytest.fixture(scope="module")
def one(otlp, reading):
    """The row of one span of a dialect that leaves open what its input holds."""

    def row(attributes=(), *, scope=OTHER, **fields):
        body = otlp.request(otlp.span(attributes, **fields), scope=scope)
        return reading.told(body, received_at=otlp.NOW).spans.row(0, named=True)

    return row


@pytest.fixture(scope="module")
def everything(reading, otlp):
    """Every row that the captures give, and some of our own."""
    parts = []
    for name, truth in CAPTURES.items():
        body = (FOLDER / name).read_bytes()
        body = gzip.decompress(body) if truth.get("content_encoding") == "gzip" else body
        parts.append(reading.told(body, truth["signal"]).spans)
    spans = (otlp.span({"millicent.usage_source": "estimated"}), otlp.span(error=True, lasted_ms=-5))
    parts.append(reading.told(otlp.request(*spans), received_at=otlp.NOW).spans)
    return pl.concat(parts)


# ---- what numbers prove

IN, OUT, READ, TOTAL, THOUGHT = (
    f"gen_ai.usage.{name}"
    for name in ("input_tokens", "output_tokens", "cache_read.input_tokens", "total_tokens", "reasoning.output_tokens")
)


@pytest.mark.parametrize(
    ("said", "expected", "flags"),
    [
        ({IN: 100, OUT: 10}, (100, 10), []),
        ({IN: 100, OUT: 10, TOTAL: 110}, (100, 10), []),
        # more cache than input: the input left it out
        ({IN: 100, OUT: 10, READ: 101}, (201, 10), ["input_excluded_cache"]),
        # the total holds a cache that the input does not
        ({IN: 100, OUT: 10, READ: 60, TOTAL: 170}, (160, 10), ["input_excluded_cache"]),
        ({IN: 100, OUT: 10, READ: 60, TOTAL: 110}, (100, 10), ["cache_semantics_assumed"]),
        # ... and reasoning that the output does not
        ({IN: 100, OUT: 10, THOUGHT: 30, TOTAL: 140}, (100, 40), ["output_excluded_reasoning"]),
        ({IN: 100, OUT: 10, THOUGHT: 30, READ: 60, TOTAL: 200}, (160, 40),
         ["input_excluded_cache", "output_excluded_reasoning"]),
        ({IN: 100, OUT: 40, THOUGHT: 30, TOTAL: 140}, (100, 40), []),
        ({IN: 100, OUT: 10, THOUGHT: 11}, (100, 21), ["output_excluded_reasoning"]),
        # nobody knows what the rest is, unless it is Gemini's
        ({IN: 100, OUT: 10, TOTAL: 150}, (100, 10), ["totals_disagree"]),
        ({IN: 100, OUT: 10, TOTAL: 50}, (100, 10), ["totals_disagree"]),
        ({IN: 100, OUT: 10, TOTAL: 150, "gen_ai.provider.name": "gemini"}, (100, 50), ["output_from_total"]),
        ({IN: 100, OUT: 10, TOTAL: 150, "gen_ai.response.model": "gemini-3-pro"}, (100, 50), ["output_from_total"]),
        ({IN: 100, OUT: 10, TOTAL: 50, "gen_ai.provider.name": "gemini"}, (100, 10), ["totals_disagree"]),
        ({IN: 100, OUT: 10, TOTAL: 0}, (100, 10), ["totals_disagree"]),
        ({IN: 100, OUT: None, TOTAL: 150}, (100, None), []),
        ({IN: None, OUT: 10, READ: 5}, (None, 10), ["cache_without_input"]),
        ({IN: None, OUT: None, TOTAL: 150}, (None, None), []),
    ],
)  # fmt: skip
def test_totals_prove_what_the_parts_leave_out(one, said, expected, flags):
    row = one(said)
    assert ((row["input_tokens"], row["output_tokens"]), row["usage_flags"]) == (expected, flags)


def test_an_embedding_agrees_with_its_total(one):
    row = one({"gen_ai.operation.name": "embeddings", IN: 89, OUT: None, TOTAL: 89})
    assert (row["input_tokens"], row["output_tokens"], row["usage_flags"]) == (89, 0, [])


@pytest.mark.parametrize("absurd", [-1, 10**9 + 1, 2**63 - 1])
def test_a_total_that_cannot_be_true_is_only_a_doubt(one, absurd):
    row = one({TOTAL: absurd})
    assert (row["input_tokens"], row["output_tokens"], row["odd"]) == (1000, 100, None)
    assert row["usage_flags"] == ["totals_disagree"]


# ---- sampling


@pytest.mark.parametrize(
    ("state", "weight"),
    [("", None), ("vendor=1", None), ("ot=th:0", 1.0), ("ot=th:8", 2.0), ("ot=rv:1234;th:c", 4.0),
     ("a=b, ot=th:fd70a3d70a3d71", pytest.approx(100)), ("ot=th:c0;rv:abc,z=1", 4.0), ("ot=p:3;r:5", 8.0),
     ("ot=p:63", None), ("ot=p:0", 1.0), ("ot=th:xyz", None), ("ot=th:", None), ("ot=th:123456789abcdef", None),
     ("ot=rv:1", None), ("not=th:8", None)],
)  # fmt: skip
def test_a_sampled_span_stands_for_as_many_as_its_trace_state_tells(one, state, weight):
    assert one(trace_state=state)["sample_weight"] == weight


# ---- what stays of spans that are no calls


def test_spans_that_are_no_calls_stay_as_edges_with_their_tags(otlp, reading):
    agent = otlp.span({"gen_ai.operation.name": "invoke_agent", "user.id": "u-1"}, parent_span_id=b"parents.")
    batch = reading.told(otlp.request(agent, otlp.span(), scope=OTHER, resource={"service.name": "ranker"}))
    (edge,) = batch.edges.to_dicts()
    assert (edge["tenant"], edge["trace_id"], edge["duration_ms"]) == ("acme", agent.trace_id, 500)
    assert edge["span_id"] == int.from_bytes(agent.span_id, "big")
    assert edge["parent_span_id"] == int.from_bytes(b"parents.", "big")
    assert (edge["user.id"], edge["resource:service.name"], edge["started_at"]) == ("u-1", "ranker", otlp.NOW)
    assert {key for keys in ATTRIBUTION.values() for key in keys} <= edge.keys()
    assert batch.spans.height == 1


# ---- reading again


def test_reading_again_by_the_same_rule_changes_nothing(everything):
    again = reread(everything)
    assert again.columns == everything.columns
    assert again.select(RULED).rows() == everything.select(RULED).rows()
    assert again.drop(RULED).equals(everything.drop(RULED))


def test_reading_again_needs_the_raw_counters_and_stored_columns_alone(everything):
    stored = everything.select(
        "usage_raw", "usage_flags", "usage_source", "usage_rule", "dialect", "provider", "model", "scope",
        "scope_version", "operation", "status", "streaming", "signal", "units", *record.TOKENS,
    )  # fmt: skip
    wrong = stored.with_columns(
        **{name: pl.lit(7, pl.Int64) for name in record.TOKENS},
        usage_rule=pl.lit("old/0"),
        usage_flags=pl.col("usage_flags").list.concat(pl.lit(["input_excluded_cache"])).list.unique(),
    )
    assert reread(wrong).select(RULED).rows() == everything.select(RULED).rows()


def test_doubts_of_others_stay_and_rows_of_no_dialect_are_left_alone(everything):
    row = everything.head(1).with_columns(usage_flags=pl.lit(["counter_reset", "totals_disagree"]))
    assert reread(row)["usage_flags"].to_list() == [["counter_reset"]]
    gone = row.with_columns(dialect=pl.lit("no_more"), input_tokens=pl.lit(1, pl.Int64))
    assert reread(gone).equals(gone)
    assert reread(gone.clear()).equals(gone.clear())


def test_raw_counters_are_numbers_by_name_and_enough_to_read_again(everything):
    for text in everything["usage_raw"].drop_nulls():
        raw = json.loads(text)
        assert raw
        assert all(type(number) is int for number in raw.values())
    known = {key for dialect in DIALECTS for key in dialect.counters}
    assert {key for text in everything["usage_raw"].drop_nulls() for key in json.loads(text)} <= known


def test_a_doubt_of_the_rule_is_known_as_such():
    assert {flag for dialect in DIALECTS for flag in dialect.flags} <= tokens.FLAGS
    assert "ended_before_start" not in tokens.FLAGS
