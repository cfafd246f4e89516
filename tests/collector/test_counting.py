"""One physical call counts once: whoever told of it, in whatever order and batches, however often."""

import itertools
import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.warehouse import evidence

GENAI, OPENLLMETRY, OFFICIAL = (
    "opentelemetry.instrumentation.genai.openai", "opentelemetry.instrumentation.openai.v1",
    "opentelemetry.instrumentation.openai_v2",
)  # fmt: skip
MS = 10**6
APP = {"resource": {"service.name": "app"}}


@pytest.fixture
def loaded(ledger_of):
    """Load requests as one batch; gives the stored rows as dictionaries."""

    def load(*bodies, **told):
        tenant = ledger_of.load(bodies, **told)
        ledger_of.assert_rollup_is_raw(tenant)
        return ledger_of.rows(tenant).to_dicts()

    return load


def counted(rows):
    return [row for row in rows if row["counted"]]


def uncounted(rows):
    return [row for row in rows if not row["counted"]]


# ---- the kinds of double telling


def test_the_same_response_told_by_two_instrumentations_in_two_traces_counts_once(otlp, loaded):
    same = {"gen_ai.response.id": "chatcmpl-1"}
    rows = loaded(
        otlp.request(otlp.span({**same, "user.id": "ann"}), scope=OPENLLMETRY, **APP),
        otlp.request(otlp.span(same, started_ns=otlp.NOW_NS + 5 * MS), scope=GENAI, **APP),
    )
    (mine,), (other,) = counted(rows), uncounted(rows)
    assert mine["scope"] == GENAI
    assert (other["not_counted_reason"], other["counted_as"]) == ("same_response", mine["span_id"])
    assert other["counted_as_trace_id"] == mine["trace_id"]
    assert mine["user_id"] == "ann"
    assert "user_id:merged" in mine["tag_sources"]


def test_one_span_inside_another_with_the_same_tokens_is_one_call_with_the_outermost_tags(otlp, loaded):
    outer = otlp.span({"millicent.team": "search", "gen_ai.usage.cache_read.input_tokens": None})
    inner = otlp.span(
        {"millicent.team": "core", "gen_ai.usage.cache_read.input_tokens": 300},
        trace_id=outer.trace_id, parent_span_id=outer.span_id, started_ns=otlp.NOW_NS + 3 * MS, lasted_ms=400,
    )  # fmt: skip
    rows = loaded(otlp.request(outer, scope=OFFICIAL, **APP), otlp.request(inner, scope=GENAI, **APP))
    (mine,), (other,) = counted(rows), uncounted(rows)
    assert (mine["scope"], mine["team"], mine["cache_read_tokens"]) == (GENAI, "search", 300)
    assert (other["scope"], other["not_counted_reason"]) == (OFFICIAL, "same_call_other_scope")


def test_a_span_between_the_two_does_not_hide_that_they_are_one(otlp, loaded):
    outer = otlp.span()
    between = otlp.span(
        {"gen_ai.operation.name": "execute_tool"}, trace_id=outer.trace_id, parent_span_id=outer.span_id
    )
    inner = otlp.span(trace_id=outer.trace_id, parent_span_id=between.span_id)
    rows = loaded(otlp.request(outer, between, scope=OFFICIAL, **APP), otlp.request(inner, scope=GENAI, **APP))
    assert len(counted(rows)) == 1


def test_parallel_equal_calls_of_one_scope_are_as_many_bills(otlp, loaded):
    spans = [otlp.span() for _ in range(5)]
    assert len(counted(loaded(otlp.request(*spans, scope=GENAI, **APP)))) == 5


@pytest.mark.parametrize("number", [1, 2, 40, 100])
def test_equal_parallel_calls_told_by_two_scopes_without_any_id_count_once_each(otlp, loaded, number):
    pairs = [
        [otlp.span(started_ns=otlp.NOW_NS + (at + shift) * MS, lasted_ms=800) for at in range(number)]
        for shift in (0, number)
    ]
    rows = loaded(otlp.request(*pairs[0], scope=OPENLLMETRY, **APP), otlp.request(*pairs[1], scope=GENAI, **APP))
    assert len(counted(rows)) == number
    assert {row["scope"] for row in counted(rows)} == {GENAI}
    assert len({row["counted_as"] for row in uncounted(rows)}) == number


@pytest.mark.parametrize(
    "other",
    [
        {"gen_ai.usage.input_tokens": 1001}, {"gen_ai.usage.output_tokens": 99},
        {"gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18"},
    ],
)  # fmt: skip
def test_different_tokens_or_models_are_different_calls(otlp, loaded, other):
    rows = loaded(otlp.request(otlp.span(), scope=OFFICIAL, **APP), otlp.request(otlp.span(other), scope=GENAI, **APP))
    assert len(counted(rows)) == 2


def test_equal_calls_one_after_the_other_or_of_two_services_are_different_calls(otlp, loaded):
    later = otlp.span(started_ns=otlp.NOW_NS + 2600 * MS)
    rows = loaded(otlp.request(otlp.span(), scope=OFFICIAL, **APP), otlp.request(later, scope=GENAI, **APP))
    assert len(counted(rows)) == 2
    here, there = ({"service.name": name} for name in ("a", "b"))
    elsewhere = otlp.request(otlp.span(), scope=GENAI, resource=there)
    assert len(counted(loaded(otlp.request(otlp.span(), scope=OFFICIAL, resource=here), elsewhere))) == 2


def test_a_gateway_below_the_app_in_one_trace_is_one_call_of_the_app_s_team(otlp, loaded):
    app = otlp.span({"millicent.team": "search"})
    gateway = otlp.span({"millicent.team": "gateway"}, trace_id=app.trace_id, parent_span_id=app.span_id)
    rows = loaded(
        otlp.request(app, scope=GENAI, resource={"service.name": "app"}),
        otlp.request(gateway, scope=GENAI, resource={"service.name": "gateway"}),
    )
    (mine,) = counted(rows)
    assert mine["team"] == "search"


def test_equal_calls_of_programs_without_a_name_are_different_calls(otlp, loaded):
    rows = loaded(otlp.request(otlp.span(), scope=OFFICIAL), otlp.request(otlp.span(), scope=GENAI))
    assert len(counted(rows)) == 2


def test_our_decorator_around_calls_that_count_only_tags_them(otlp, loaded):
    wrapper = otlp.span({"millicent.team": "search", "gen_ai.usage.input_tokens": 3000})
    inner = [otlp.span(trace_id=wrapper.trace_id, parent_span_id=wrapper.span_id) for _ in range(3)]
    rows = loaded(otlp.request(wrapper), otlp.request(*inner, scope=GENAI, resource={"team": "platform"}))
    assert [row["team"] for row in counted(rows)] == ["search"] * 3
    assert {row["scope"] for row in counted(rows)} == {GENAI}
    assert {row["identity_source"] for row in counted(rows)} == {"inherited"}
    (outer,) = uncounted(rows)
    assert outer["not_counted_reason"] == "wraps_counted_call"
    assert outer["counted_as"] in {row["span_id"] for row in counted(rows)}


def test_our_decorator_around_a_chat_that_nobody_else_told_of_counts_beside_an_embedding(otlp, loaded):
    wrapper = otlp.span()
    embedding = {"gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 8}
    inner = otlp.span(embedding, trace_id=wrapper.trace_id, parent_span_id=wrapper.span_id)
    rows = loaded(otlp.request(wrapper), otlp.request(inner, scope=GENAI, **APP))
    assert sorted(row["operation"] for row in counted(rows)) == ["chat", "embeddings"]


def test_our_decorator_in_our_decorator_counts_the_inner_one(otlp, loaded):
    outer = otlp.span({"millicent.feature": "chat"})
    middle = otlp.span(trace_id=outer.trace_id, parent_span_id=outer.span_id)
    inner = otlp.span(trace_id=outer.trace_id, parent_span_id=middle.span_id)
    rows = loaded(otlp.request(outer, middle, inner))
    (mine,) = counted(rows)
    assert (mine["span_id"].to_bytes(8, "big"), mine["feature"]) == (inner.span_id, "chat")
    assert {row["counted_as"] for row in uncounted(rows)} == {mine["span_id"]}


def test_a_client_that_told_no_tokens_below_our_decorator_that_did_is_one_call(otlp, loaded):
    wrapper = otlp.span()
    silent = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    inner = otlp.span(
        {**silent, "gen_ai.request.stream": True}, trace_id=wrapper.trace_id, parent_span_id=wrapper.span_id
    )
    rows = loaded(otlp.request(wrapper), otlp.request(inner, scope=GENAI, **APP))
    (mine,) = counted(rows)
    assert (mine["input_tokens"], mine["streaming"]) == (1000, True)


def test_a_failed_attempt_inside_a_call_that_went_well_is_an_attempt_of_its_own(otlp, loaded):
    outer = otlp.span()
    silent = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None}
    attempt = otlp.span(silent, trace_id=outer.trace_id, parent_span_id=outer.span_id, error=True)
    rows = loaded(otlp.request(outer, scope=OFFICIAL, **APP), otlp.request(attempt, scope=GENAI, **APP))
    assert sorted((row["status"], row["input_tokens"]) for row in counted(rows)) == [("error", 0), ("ok", 1000)]


def test_a_failure_told_twice_counts_once(otlp, loaded):
    silent = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "gen_ai.response.model": None}
    outer = otlp.span(silent, error=True)
    inner = otlp.span(silent, trace_id=outer.trace_id, parent_span_id=outer.span_id, error=True)
    rows = loaded(otlp.request(outer, scope=OFFICIAL, **APP), otlp.request(inner, scope=GENAI, **APP))
    assert [row["status"] for row in counted(rows)] == ["error"]


@pytest.mark.parametrize("order", [1, -1])
def test_a_stream_told_in_two_spans_and_two_batches_is_one_call(otlp, ledger_of, order):
    silent = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "gen_ai.response.id": None}
    begun = otlp.span(silent, name="Chat Completion with 'gpt-4o'", lasted_ms=5)
    ended = otlp.span({"duration": 0.4}, name="streaming response from 'gpt-4o'", lasted_ms=0,
                      started_ns=otlp.NOW_NS + 406 * MS)  # fmt: skip
    bodies = [[otlp.request(one, scope="logfire.openai", **APP)] for one in (begun, ended)]
    rows = ledger_of.rows(ledger_of.load(*bodies[::order])).to_dicts()
    assert [(row["input_tokens"], row["dialect"]) for row in counted(rows)] == [(1000, "logfire_stream")]
    assert [row["not_counted_reason"] for row in uncounted(rows)] == ["stream_of_counted_call"]


# ---- tags from above


def test_tags_come_down_a_trace_from_the_nearest_span_and_never_up(otlp, loaded):
    root = otlp.span({"gen_ai.operation.name": "invoke_agent", "millicent.team": "search", "millicent.feature": "chat"})
    middle = otlp.span(
        {"gen_ai.operation.name": "execute_tool", "millicent.feature": "tools"},
        trace_id=root.trace_id, parent_span_id=root.span_id,
    )  # fmt: skip
    call = otlp.span(trace_id=root.trace_id, parent_span_id=middle.span_id)
    beside = otlp.span({"millicent.customer": "acme"}, trace_id=root.trace_id, parent_span_id=root.span_id)
    rows = loaded(otlp.request(root, middle, call, beside, scope=GENAI, **APP))
    by_id = {row["span_id"].to_bytes(8, "big"): row for row in rows}
    below = by_id[call.span_id]
    assert (below["team"], below["feature"], below["customer"]) == ("search", "tools", None)
    assert below["tag_sources"] == "feature:inherited,team:inherited"
    assert by_id[beside.span_id]["feature"] == "chat"


def test_where_a_parent_runs_is_not_where_its_call_runs(otlp, loaded):
    root = otlp.span({"gen_ai.operation.name": "invoke_agent"})
    call = otlp.span(trace_id=root.trace_id, parent_span_id=root.span_id)
    above = {"cloud.region": "eu-west-1", "team": "search", "deployment.environment.name": "staging"}
    (row,) = loaded(otlp.request(root, scope=GENAI, resource=above), otlp.request(call, scope=GENAI, **APP))
    assert (row["team"], row["region"], row["environment"]) == ("search", None, None)


# ---- order, batches, repetition


def family(otlp):
    """Two tangled traces: wrapper, agent, two instrumentations, parallel equal calls, a failure, a decoy."""
    at = lambda ms: otlp.NOW_NS + ms * MS  # noqa: E731
    wrapper = otlp.span({"millicent.team": "search", "gen_ai.usage.input_tokens": 2000}, lasted_ms=900)
    below = {"trace_id": wrapper.trace_id}
    agent = otlp.span(
        {"gen_ai.operation.name": "invoke_agent", "millicent.feature": "chat"}, parent_span_id=wrapper.span_id, **below
    )
    first = otlp.span({"gen_ai.response.id": "r1"}, parent_span_id=agent.span_id, started_ns=at(10), **below)
    second = otlp.span({"gen_ai.response.id": "r2"}, parent_span_id=agent.span_id, started_ns=at(12), **below)
    failed = otlp.span({"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None},
                       parent_span_id=agent.span_id, started_ns=at(14), error=True, **below)  # fmt: skip
    twins = [otlp.span({"user.id": f"u{n}"}, started_ns=at(11 + 2 * n)) for n in range(2)]
    same = otlp.span({"gen_ai.response.id": "r1", "session.id": "s"}, started_ns=at(2000))
    decoy = otlp.span({"gen_ai.usage.output_tokens": 101}, started_ns=at(11))
    inside = otlp.span(trace_id=twins[0].trace_id, parent_span_id=twins[0].span_id, started_ns=at(12))
    return [
        otlp.request(wrapper, resource={"service.name": "app"}),
        otlp.request(agent, first, second, failed, scope=GENAI, resource={"service.name": "app", "team": "platform"}),
        otlp.request(*twins, decoy, scope=OPENLLMETRY, resource={"service.name": "app"}),
        otlp.request(same, scope=OFFICIAL, resource={"service.name": "gateway"}),
        otlp.request(inside, scope=OFFICIAL, resource={"service.name": "app"}),
    ]


def test_a_tangle_counts_each_call_once(otlp, loaded):
    rows = loaded(*family(otlp))
    assert sorted((row["input_tokens"], row["output_tokens"]) for row in counted(rows)) == [
        (0, 0), (1000, 100), (1000, 100), (1000, 101),
    ]  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_batches_and_repetition_change_nothing(otlp, ledger_of, rnd: random.Random, batches):
    spans = [one for body in family(otlp) for one in otlp.alone(body)]
    whole = ledger_of.load(spans)
    arriving = spans * 2
    rnd.shuffle(arriving)
    cuts = sorted(rnd.sample(range(1, len(arriving)), batches - 1))
    parts = [arriving[a:b] for a, b in itertools.pairwise([0, *cuts, len(arriving)])]
    other = ledger_of.load(*parts)
    assert ledger_of.rows(other).to_dicts() == ledger_of.rows(whole).to_dicts()
    ledger_of.assert_rollup_is_raw(other)


def test_a_decision_that_late_evidence_overturns_moves_the_sums(otlp, ledger_of):
    same = {"gen_ai.response.id": "chatcmpl-9"}
    first = otlp.request(otlp.span({**same, "millicent.team": "a"}), scope=OFFICIAL, **APP)
    late = otlp.request(otlp.span(same, started_ns=otlp.NOW_NS + MS), scope=GENAI, **APP)
    tenant = ledger_of.load([first])
    assert ledger_of.rows(tenant)["counted"].to_list() == [True]
    ledger_of.load([late], tenant=tenant, received_at=otlp.NOW + timedelta(minutes=20))
    rows = ledger_of.rows(tenant).to_dicts()
    assert [(row["scope"], row["team"]) for row in counted(rows)] == [(GENAI, "a")]
    ledger_of.assert_rollup_is_raw(tenant)


def test_evidence_is_forgotten_after_a_week_and_what_was_decided_stays(otlp, ledger_of):
    same = {"gen_ai.response.id": "chatcmpl-10"}
    first = otlp.request(otlp.span(same), scope=OFFICIAL, **APP)
    late = otlp.request(otlp.span(same, started_ns=otlp.NOW_NS + MS), scope=GENAI, **APP)
    tenant = ledger_of.load([first])
    ledger_of.load([late], tenant=tenant, received_at=otlp.NOW + timedelta(days=8))
    assert ledger_of.rows(tenant)["counted"].all()
    evidence.forget(ledger_of.engine, otlp.NOW + timedelta(days=1))
    assert ledger_of.rows(tenant).height == 2
