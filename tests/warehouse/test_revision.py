"""Stored calls change in one way, and the hourly sums say what the rows say before and after."""

from datetime import timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import ledger, record, rollups
from millicent.warehouse.engine import EngineError
from millicent.warehouse.frames import plain
from millicent.warehouse.tables import calls, usage_hourly

HOUR = timedelta(hours=1)


def stored(facts, tenant="acme"):
    return plain(facts.engine.read(select(calls).where(calls.c.tenant == tenant)))


def sums(frame):
    """Rows of the rollup, folded by key; what is unknown everywhere stays unknown."""
    known = [
        pl.when(pl.col(f"{name}_nulls").sum() < pl.col("row_count").sum()).then(pl.col(name).sum()).alias(name)
        for name in record.SUMMED
    ]
    counts = [pl.col(name).sum() for name in rollups.SUMS if name not in record.SUMMED]
    return sorted(frame.group_by(rollups.KEY).agg(*counts, *known).rows(named=True), key=str)


def assert_rollup_is_raw(facts, tenant="acme"):
    kept = pl.DataFrame(pl.from_arrow(facts.engine.read(select(usage_hourly).where(usage_hourly.c.tenant == tenant))))
    assert sums(kept) == sums(rollups.deltas(stored(facts, tenant)))


def test_a_revised_call_is_replaced_whole_and_the_others_stay(facts, a_call):
    mine, other = (a_call(team=team, input_tokens=10, labels=[{"key": "a", "value": "b"}]) for team in ("x", "y"))
    facts.store(mine, other)
    changed = (
        stored(facts).filter(span_id=mine["span_id"]).with_columns(team=pl.lit("z"), input_tokens=pl.lit(7, pl.Int64))
    )
    assert ledger.revise(facts.engine, changed) == 1
    now = stored(facts).rows_by_key("span_id", named=True, unique=True)
    assert (now[mine["span_id"]]["team"], now[mine["span_id"]]["input_tokens"]) == ("z", 7)
    assert now[mine["span_id"]]["labels"] == [{"key": "a", "value": "b"}]
    assert (now[other["span_id"]]["team"], now[other["span_id"]]["input_tokens"]) == ("y", 10)
    assert facts.ask("input_tokens", "calls", dimensions=("team",), order=("team",)) == [
        {"team": "y", "input_tokens": 10, "calls": 1}, {"team": "z", "input_tokens": 7, "calls": 1},
    ]  # fmt: skip
    assert_rollup_is_raw(facts)


def test_a_call_that_no_longer_counts_leaves_the_sums_and_stays_in_the_table(facts, a_call):
    facts.store(a_call(input_tokens=10), a_call(input_tokens=5, cache_read_tokens=None))
    rows = stored(facts)
    ledger.revise(facts.engine, rows.filter(input_tokens=10).with_columns(counted=pl.lit(value=False)))
    assert facts.ask("input_tokens", "calls") == [{"input_tokens": 5, "calls": 1}]
    assert stored(facts).height == 2
    assert_rollup_is_raw(facts)


def test_what_only_the_revised_call_knew_is_unknown_again_and_not_zero(facts, a_call):
    facts.store(a_call(cache_read_tokens=4), a_call(cache_read_tokens=None))
    known = stored(facts).filter(cache_read_tokens=4)
    ledger.revise(facts.engine, known.with_columns(cache_read_tokens=pl.lit(None, pl.Int64)))
    assert facts.ask("cache_read_tokens", "calls") == [{"cache_read_tokens": None, "calls": 2}]


def test_a_call_that_is_not_stored_cannot_be_revised_and_nothing_changes(facts, a_call):
    facts.store(a_call(team="x"))
    row = stored(facts)
    absent = row.with_columns(span_id=pl.col("span_id") + 1_000_000, team=pl.lit("z"))
    with pytest.raises(EngineError, match="2 calls to replace, 1 of them stored"):
        ledger.revise(facts.engine, pl.concat([row.with_columns(team=pl.lit("z")), absent]))
    assert stored(facts)["team"].to_list() == ["x"]
    assert_rollup_is_raw(facts)


def test_a_revision_makes_the_hours_of_both_deployments_be_computed_again(facts, a_call):
    start = a_call()["started_at"].replace(minute=0)
    for name in ("old", "new"):
        facts.declare(name, start)
    facts.store(a_call(deployment="old", billing="self_hosted", duration_ms=1000, input_tokens=100, output_tokens=10))
    facts.refresh(start + 3 * HOUR)
    assert facts.refresh(start + 3 * HOUR) == 0
    ledger.revise(facts.engine, stored(facts).with_columns(deployment=pl.lit("new")))
    assert facts.refresh(start + 3 * HOUR) == 2


def test_a_period_is_read_half_open_with_what_does_not_count(facts, a_call):
    start = a_call()["started_at"]
    facts.store(*(a_call(started_at=start + step * HOUR, counted=step != 1) for step in range(3)))
    assert ledger.calls_between(facts.engine, "acme", start, start + 2 * HOUR)["counted"].to_list() == [True, False]
    assert ledger.calls_between(facts.engine, "rival", start, start + 2 * HOUR).is_empty()


tokens = st.one_of(st.none(), st.integers(0, 100))
words = st.fixed_dictionaries(
    {
        "team": st.sampled_from([None, "a", "b"]), "input_tokens": tokens, "output_tokens": tokens,
        "counted": st.booleans(), "list_cost_usd": st.sampled_from([None, Decimal("0.5"), Decimal("1E-12")]),
        "call_count": st.sampled_from([None, 1, 9]), "streaming": st.sampled_from([None, True, False]),
    }
)  # fmt: skip
_tenants = iter(range(10**6))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(words, words, st.integers(0, 2)), min_size=1, max_size=6), st.booleans())
def test_whatever_is_revised_the_rollup_equals_the_rows(shared_facts, a_call, changes, folded):
    tenant = f"t{next(_tenants)}"
    start = a_call()["started_at"]
    shared_facts.store(*(a_call(tenant=tenant, started_at=start + hour * HOUR, **was) for was, _, hour in changes))
    before = stored(shared_facts, tenant).sort("span_id")
    if folded:
        rollups.compact(shared_facts.engine, start + 9 * HOUR)
    now = [pl.Series(name, [is_[name] for _, is_, _ in changes], before.schema[name]) for name in changes[0][1]]
    ledger.revise(shared_facts.engine, before.with_columns(now))
    assert_rollup_is_raw(shared_facts, tenant)
