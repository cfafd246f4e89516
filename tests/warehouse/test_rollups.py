"""However calls are split into batches and folded, the hourly rollup says what the calls say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sqlalchemy import func, select

from millicent.warehouse import query, record, rollups
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import Period, Query
from millicent.warehouse.tables import usage_hourly

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
SUMS = ("calls", *record.SUMMED, *(f"{name}_nulls" for name in record.SUMMED))
MEASURES = tuple(name for name, measure in DICTIONARY.items() if not measure.of_deployments)


@st.composite
def few_calls(draw) -> list[dict]:
    of_one = st.fixed_dictionaries({
        "started_at": st.integers(0, 3 * 3600 - 1).map(lambda s: TEN + timedelta(seconds=s)),
        "team": st.sampled_from((None, "search", "ads")),
        "streaming": st.sampled_from((None, True)),
        "counted": st.sampled_from((True, True, True, False)),
        "input_tokens": st.none() | st.integers(0, 10**9),
        "reasoning_tokens": st.none() | st.integers(0, 10**9),
        "list_cost_usd": st.none() | st.decimals(0, 999_999, places=12),
        "billed_cost_usd": st.none() | st.decimals(0, 999_999, places=12),
    })  # fmt: skip
    return draw(st.lists(of_one, min_size=1, max_size=12))


def answers(facts, tenant: str) -> pl.DataFrame:
    asked = Query(measures=MEASURES, dimensions=("team", "streaming"), grain="hour",
                  period=Period(TEN, TEN + 3 * HOUR), order=("time", "team", "streaming"))  # fmt: skip
    answer = query.run(facts.engine, tenant, asked)
    assert answer.source == "rollup"
    return answer.frame


def stored(facts, tenant: str) -> pl.DataFrame:
    """Sums as the table has them, by key."""
    keys = [usage_hourly.c[name] for name in rollups.KEY]
    asked = select(*keys, *(func.sum(usage_hourly.c[name]).label(name) for name in SUMS))
    table = facts.engine.read(asked.where(usage_hourly.c.tenant == tenant).group_by(*keys))
    return pl.DataFrame(pl.from_arrow(table)).sort("hour", "team", "streaming")


def rows_of(facts, tenant: str) -> int:
    asked = select(func.count().label("n")).where(usage_hourly.c.tenant == tenant)
    return facts.engine.read(asked).to_pylist()[0]["n"]


@settings(max_examples=40, deadline=None)
@given(drawn=few_calls(), seed=st.randoms(use_true_random=False), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_order_and_batches_change_no_sum(shared_facts, a_call, drawn, seed, cuts):
    tenants = [f"{name}-{shared_facts.batches}" for name in ("whole", "split")]
    shared_facts.store(*(a_call(**told, tenant=tenants[0]) for told in drawn))
    shuffled = seed.sample(drawn, len(drawn))
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(drawn)], strict=True):
        if shuffled[start:end]:
            shared_facts.store(*(a_call(**told, tenant=tenants[1]) for told in shuffled[start:end]))
    whole, split = (stored(shared_facts, tenant).drop("tenant") for tenant in tenants)
    assert_frame_equal(whole, split)
    assert_frame_equal(*(answers(shared_facts, tenant) for tenant in tenants))


@settings(max_examples=30, deadline=None)
@given(drawn=few_calls(), before=st.integers(-1, 4))
def test_folding_keeps_every_sum_and_every_answer(shared_facts, a_call, drawn, before):
    tenant = f"fold-{shared_facts.batches}"
    rollups.compact(shared_facts.engine, TEN + 3 * HOUR)  # what other examples left
    for told in drawn:
        shared_facts.store(a_call(**told, tenant=tenant))
    sums, said, rows = stored(shared_facts, tenant), answers(shared_facts, tenant), rows_of(shared_facts, tenant)
    gone = rollups.compact(shared_facts.engine, TEN + before * HOUR)
    assert rows - rows_of(shared_facts, tenant) == gone
    assert_frame_equal(stored(shared_facts, tenant), sums)
    assert_frame_equal(answers(shared_facts, tenant), said)
    rollups.compact(shared_facts.engine, TEN + 3 * HOUR)
    assert rows_of(shared_facts, tenant) == sums.height
    assert rollups.compact(shared_facts.engine, TEN + 3 * HOUR) == 0


def test_sums_beyond_a_float_stay_exact_through_folding(facts, a_call):
    odd = 9_007_199_254_740_993  # 2^53 + 1
    for _ in range(3):
        facts.store(a_call(input_tokens=odd, list_cost_usd=Decimal("999999.999999999999")))
    rollups.compact(facts.engine, TEN + HOUR)
    (row,) = facts.ask("input_tokens", "list_cost_usd")
    assert row == {"input_tokens": 3 * odd, "list_cost_usd": Decimal("2999999.999999999997")}


def test_unknown_and_zero_are_different_sums(facts, a_call):
    facts.store(a_call(team="unknown"), a_call(team="unknown"), a_call(team="zero", input_tokens=0))
    facts.store(a_call(team="some", input_tokens=4), a_call(team="some"))
    rollups.compact(facts.engine, TEN + HOUR)
    table = stored(facts, "acme").select("team", "input_tokens", "input_tokens_nulls").sort("team")
    assert table.rows() == [("some", 4, 1), ("unknown", None, 2), ("zero", 0, 0)]


def test_calls_that_do_not_count_leave_no_trace_in_the_sums(facts, a_call):
    facts.store(a_call(counted=False, input_tokens=5), a_call(counted=False))
    assert stored(facts, "acme").height == 0


def test_only_hours_before_the_given_one_are_folded(facts, a_call):
    for hour in (0, 0, 1, 1):
        facts.store(a_call(started_at=TEN + hour * HOUR))
    assert rollups.compact(facts.engine, TEN + HOUR) == 1
    assert rows_of(facts, "acme") == 3


def test_a_fold_that_fails_loses_nothing(facts, a_call, monkeypatch):
    for _ in range(3):
        facts.store(a_call(input_tokens=1))
    before = stored(facts, "acme")
    monkeypatch.setattr(rollups, "SUMS", ("calls",))  # rows without their counts of unknowns
    with pytest.raises(RuntimeError, match="NOT NULL"):
        rollups.compact(facts.engine, TEN + HOUR)
    assert_frame_equal(stored(facts, "acme"), before)
    assert rows_of(facts, "acme") == 3
