"""Amounts of stored calls change in place: the sums follow, what was there is kept, and nothing else moves."""

from datetime import timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import amending, ledger, record, rollups
from millicent.warehouse.frames import plain
from millicent.warehouse.tables import PRICE, calls, repriced, usage_hourly

HOUR = timedelta(hours=1)
TYPES = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).select(PRICE).schema


def stored(facts, tenant):
    return plain(facts.engine.read(select(calls).where(calls.c.tenant == tenant))).sort("span_id")


def kept(facts, tenant):
    return plain(facts.engine.read(select(repriced).where(repriced.c.tenant == tenant))).sort("run", "span_id")


def sums(frame):
    """Rows of the rollup, folded by key; what is unknown everywhere stays unknown."""
    known = [
        pl.when(pl.col(f"{name}_nulls").sum() < pl.col("row_count").sum()).then(pl.col(name).sum()).alias(name)
        for name in record.SUMMED
    ]
    counts = [pl.col(name).sum() for name in rollups.SUMS if name not in record.SUMMED]
    return sorted(frame.group_by(rollups.KEY).agg(*counts, *known).rows(named=True), key=str)


def assert_rollup_is_raw(facts, tenant):
    there = pl.DataFrame(pl.from_arrow(facts.engine.read(select(usage_hourly).where(usage_hourly.c.tenant == tenant))))
    assert sums(there) == sums(rollups.deltas(stored(facts, tenant)))


def amend(facts, tenant, new, run=7, at_once=3):
    """Give calls the price columns in `new`, by span id, a few calls at a time."""
    names = ("span_id", *PRICE)
    mine = [calls.c.tenant == tenant, calls.c.span_id.in_(list(new))]
    changed = 0
    with facts.engine.write() as transaction:
        for part in list(amending.places(transaction.read, mine, at_once)):
            asked = select(amending.PLACE.label("place"), *(calls.c[name] for name in names)).where(*mine, part)
            now = pl.DataFrame(pl.from_arrow(transaction.read(asked)))
            assert now.height <= at_once
            told = pl.DataFrame([new[span] for span in now["span_id"]], schema=TYPES, orient="row")
            rows = pl.concat(
                [now.select("place"), told, now.select(pl.col(PRICE).name.suffix("_now"))], how="horizontal"
            )
            changed += amending.amend(transaction, run, rows)
        start, end = stored_bounds(facts, tenant)
        rollups.recount(transaction, tenant, start, end)
    return changed


def stored_bounds(facts, tenant):
    began = stored(facts, tenant)["started_at"]
    return began.min().replace(minute=0, second=0, microsecond=0), began.max() + HOUR


def price(version="v2", entry="openai/gpt-4o", status="priced", **amounts):
    """Price columns in the order of `PRICE`; amounts not told are unknown."""
    return (*(amounts.get(name) for name in record.MONEY), status, entry, version)


MONEY = st.none() | st.just(Decimal(0)) | st.decimals(0, 999_999, places=12)
PRICES = st.tuples(
    *(MONEY for _ in record.MONEY), st.sampled_from(("priced", "partial", "unpriced", "not_billed")),
    st.sampled_from((None, "a", "b")), st.sampled_from((None, "v1", "v2")),
)  # fmt: skip
CALL = st.tuples(
    st.fixed_dictionaries({
        "minutes": st.integers(0, 179), "team": st.sampled_from((None, "search", "ads")),
        "streaming": st.sampled_from((None, True)), "counted": st.sampled_from((True, True, True, False)),
        "call_count": st.sampled_from((1, 1, 1, 12, None)), "input_tokens": st.none() | st.integers(0, 10**9),
    }),
    PRICES,
    st.none() | PRICES,
)  # fmt: skip


@settings(max_examples=60)
@given(told=st.lists(CALL, min_size=1, max_size=14), batches=st.integers(1, 3))
def test_rollup_is_raw_after_any_amendment_and_former_amounts_are_kept(shared_facts, a_call, told, batches):
    tenant = f"amended-{amend.counter}"
    amend.counter += 1
    rows = []
    for facts_of, before, after in told:
        began = {"started_at": a_call()["started_at"] + timedelta(minutes=facts_of["minutes"])}
        tags = {name: value for name, value in facts_of.items() if name != "minutes"}
        rows.append((a_call(tenant=tenant, **began, **tags, **dict(zip(PRICE, before, strict=True))), before, after))
    for first in range(batches):
        shared_facts.store(*(row for row, _, _ in rows[first::batches]))
    was = stored(shared_facts, tenant)
    new = {row["span_id"]: after for row, _, after in rows if after is not None}
    if not new:
        return
    otherwise = {row["span_id"] for row, before, after in rows if after is not None and before[:-1] != after[:-1]}

    assert amend(shared_facts, tenant, new) == len(otherwise)
    assert_rollup_is_raw(shared_facts, tenant)
    expected = was.with_columns(
        pl.Series(name, [new.get(row["span_id"], [row[name] for name in PRICE])[at] for row in was.to_dicts()],
                  dtype=TYPES[name])
        for at, name in enumerate(PRICE)
    )  # fmt: skip
    assert stored(shared_facts, tenant).equals(expected)
    former = kept(shared_facts, tenant)
    assert set(former["span_id"]) == otherwise
    names = [*ledger.KEY, *PRICE]
    assert former.select(names).equals(was.filter(pl.col("span_id").is_in(otherwise)).select(names))

    back = {row["span_id"]: tuple(row[name] for name in PRICE) for row in former.to_dicts()}
    if back:
        amend(shared_facts, tenant, back, run=8)
        assert_rollup_is_raw(shared_facts, tenant)
        untouched = pl.col("span_id").is_in(otherwise) | ~pl.col("span_id").is_in(list(new))
        assert stored(shared_facts, tenant).filter(untouched).equals(was.filter(untouched))


amend.counter = 0


def test_equal_amounts_take_the_new_version_and_nothing_is_kept(facts, a_call):
    one = a_call(list_cost_usd=Decimal("0.5"), price_entry="openai/gpt-4o", price_version="v1")
    facts.store(one)
    assert amend(facts, "acme", {one["span_id"]: price(list_cost_usd=Decimal("0.5"))}) == 0
    assert stored(facts, "acme")["price_version"].to_list() == ["v2"]
    assert kept(facts, "acme").is_empty()


def test_an_amount_that_becomes_unknown_is_unknown_in_the_sums_and_not_zero(facts, a_call):
    one = a_call(team="search", list_cost_usd=Decimal("0.5"), price_version="v1")
    facts.store(one)
    amend(facts, "acme", {one["span_id"]: price(status="unpriced")})
    assert facts.ask("list_cost_usd", "calls", dimensions=("price_status",)) == [
        {"price_status": "unpriced", "list_cost_usd": None, "calls": 1}
    ]
    amend(facts, "acme", {one["span_id"]: price(version="v3", list_cost_usd=Decimal("0.25"))}, run=9)
    assert facts.ask("list_cost_usd", "calls", dimensions=("price_status",)) == [
        {"price_status": "priced", "list_cost_usd": Decimal("0.25"), "calls": 1}
    ]
    assert kept(facts, "acme").select("run", "list_cost_usd").rows() == [(7, Decimal("0.5")), (9, None)]


def test_other_tenants_and_hours_keep_their_sums(facts, a_call):
    mine, other = a_call(list_cost_usd=Decimal(1)), a_call(tenant="rival", list_cost_usd=Decimal(2))
    later = a_call(started_at=mine["started_at"] + 5 * HOUR, list_cost_usd=Decimal(3))
    facts.store(mine, other, later)
    with facts.engine.write() as transaction:
        start = mine["started_at"].replace(minute=0)
        rollups.recount(transaction, "acme", start, start + HOUR)
    for tenant in ("acme", "rival"):
        assert_rollup_is_raw(facts, tenant)


def test_an_end_in_the_middle_leaves_amounts_sums_and_kept_values_as_they_were(facts, a_call, monkeypatch):
    one = a_call(list_cost_usd=Decimal(1), price_version="v1")
    facts.store(one)
    before = stored(facts, "acme")
    monkeypatch.setattr(rollups, "recount", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        amend(facts, "acme", {one["span_id"]: price(list_cost_usd=Decimal(5))})
    assert stored(facts, "acme").equals(before)
    assert kept(facts, "acme").is_empty()
    assert_rollup_is_raw(facts, "acme")


@pytest.mark.parametrize(
    ("change", "remains"),
    [({"input_tokens": 9, "list_cost_usd": Decimal(9)}, 0), ({"team": "ads"}, 1)],
    ids=["priced by other tokens", "only another team"],
)
def test_former_amounts_are_forgotten_when_a_call_is_priced_by_other_facts(facts, a_call, change, remains):
    one = a_call(team="search", input_tokens=5, list_cost_usd=Decimal(1), price_version="v1")
    facts.store(one)
    amend(facts, "acme", {one["span_id"]: price(list_cost_usd=Decimal(5))})
    rows = stored(facts, "acme")
    revised = rows.with_columns(pl.lit(value).cast(rows.schema[name]).alias(name) for name, value in change.items())
    ledger.revise(facts.engine, revised)
    assert kept(facts, "acme").height == remains
