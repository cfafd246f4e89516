"""Amounts in another currency are each divided by the rate of its instant, and by nothing that is inexact."""

import itertools
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.entries import FxRate
from millicent.warehouse import ledger, query
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.exchange import Rate
from millicent.warehouse.query import BadQuery, Period, Query
from millicent.warehouse.store import Warehouse

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SPAN = 40 * HOUR
D = Decimal
AMOUNTS = ("spend_usd", "billed_cost_usd", "hardware_cost_usd", "idle_cost_usd", "charges_usd", "list_cost_usd")
_tenants = (f"abroad-{n}" for n in itertools.count())


def rate(since: datetime, usd: str, until: datetime | None = None) -> Rate:
    return Rate("EUR", since, D(usd), "ECB", until)


def holding(told: tuple[Rate, ...], instant: datetime) -> Rate:
    return [one for one in told if one.since <= instant][-1]


minutes = st.integers(0, SPAN // MINUTE).map(lambda count: count * MINUTE) | st.sampled_from((HOUR, 24 * HOUR, SPAN))
worth = st.decimals("0.000001", 2000, places=6) | st.decimals("1.01", "1.2", places=4)
calls_of = st.lists(
    st.tuples(
        minutes,
        st.sampled_from((None, "search", "ads")),
        st.booleans(),
        st.decimals(0, "999999.999999999999", places=12),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(
    told=calls_of, worth=st.lists(st.tuples(minutes, worth), max_size=5), first=worth,
    begin=st.sampled_from((TEN, TEN - HOUR / 2, TEN + 7 * MINUTE)), grain=st.sampled_from((None, "hour", "day")),
    zone=st.sampled_from(("UTC", "Asia/Kolkata", "Europe/Berlin")), by_team=st.booleans(),
)  # fmt: skip
def test_each_amount_is_converted_by_the_rate_of_its_instant(
    shared_facts, a_call, a_charge, a_deployment_hour, told, worth, first, begin, grain, zone, by_team
):
    tenant, calls, charges, hours = next(_tenants), [], [], {}
    for after, team, own, usd in told:
        at = TEN + after
        calls.append(a_call(
            tenant=tenant, started_at=at, team=team, billing="self_hosted" if own else "api", input_tokens=1000,
            deployment="rack" if own else None, billed_cost_usd=None if own else usd, list_cost_usd=usd,
        ))  # fmt: skip
        charges.append(a_charge(tenant=tenant, charged_at=at, billed_usd=usd * 3, team=team))
        hour = at.replace(minute=0)
        if own:
            hours[hour] = a_deployment_hour(tenant=tenant, hour=hour, idle_usd=usd, rate_usd_per_weight=D("0.0000017"))
    shared_facts.store(*calls)
    shared_facts.put("charges", charges)
    shared_facts.put("deployment_hours", list(hours.values()))
    rates = tuple(sorted([rate(TEN - 2 * HOUR, first), *(rate(TEN + after, usd) for after, usd in worth)],
                         key=lambda one: one.since))  # fmt: skip
    period, dimensions = Period(begin, TEN + SPAN), ("team",) if by_team else ()

    def rows(period, **more):
        question = Query(measures=(*AMOUNTS, "calls"), dimensions=dimensions, period=period, grain=grain, **more)
        return query.run(shared_facts.engine, tenant, question)

    answer = rows(period, currency="EUR", rates=rates, time_zone=zone)
    changes = sorted({one.since for one in rates if period.start < one.since < period.end})
    expected: dict = defaultdict(lambda: dict.fromkeys(AMOUNTS))
    counted: dict = defaultdict(int)
    for start, end in itertools.pairwise((period.start, *changes, period.end)):
        usd_per_unit = Fraction(holding(rates, start).usd_per_unit)
        for row in rows(Period(start, end), time_zone=zone).frame.to_dicts():
            key = row.get("time"), row.get("team")
            counted[key] += row["calls"] or 0
            for name in AMOUNTS:
                if row[name] is not None:
                    expected[key][name] = (expected[key][name] or 0) + Fraction(row[name]) / usd_per_unit
    found = {(row.get("time"), row.get("team")): row for row in answer.frame.to_dicts()}
    assert {key: row["calls"] or 0 for key, row in found.items()} == counted
    for key, amounts in expected.items():
        for name, amount in amounts.items():
            assert (found[key][name] is None) == (amount is None)
            off = abs(Fraction(found[key][name] or 0) - (amount or 0))
            assert off <= Fraction(len(changes) + 1, 2 * 10**24), (name, key)
    assert answer.rates == tuple(dict.fromkeys(holding(rates, at) for at in (period.start, *changes)))


@pytest.mark.parametrize(
    ("usd", "usd_per_unit"),
    [
        ("10", "1.0834"), ("-10", "1.0834"), ("1", "3"), ("2", "3"), ("0.000000000001", "1000000000"),
        ("123456.789012345678", "0.000039123456789012"), ("99999.5", "1234.567890123456789012"),
    ],
)  # fmt: skip
def test_no_digit_is_lost(facts, a_charge, usd, usd_per_unit):
    facts.charge(a_charge(billed_usd=D(usd)))
    (row,) = facts.ask("charges_usd", currency="EUR", rates=(rate(TEN, usd_per_unit),))
    exact = Fraction(D(usd)) / Fraction(D(usd_per_unit))
    assert abs(Fraction(row["charges_usd"]) - exact) <= Fraction(1, 2 * 10**24)


def test_ratios_are_of_converted_sums_and_counts_are_as_they_are(facts, a_call):
    facts.store(
        *(a_call(started_at=TEN + n * HOUR, billed_cost_usd=D(6 - 3 * n), input_tokens=2_000_000) for n in (0, 1))
    )
    rates = (rate(TEN, "1.5"), rate(TEN + HOUR, "3"))
    asked = {"end": TEN + 2 * HOUR, "currency": "EUR", "rates": rates}
    (row,) = facts.ask("spend_usd", "cost_per_call_usd", "cost_per_mtok_usd", "total_tokens", **asked)
    assert row == {"spend_usd": 5, "cost_per_call_usd": D("2.5"), "cost_per_mtok_usd": D("1.25"),
                   "total_tokens": 4_000_000}  # fmt: skip
    ordered = facts.ask("spend_usd", dimensions=("model",), order=("-spend_usd",), limit=1, **asked)
    assert ordered == [{"model": None, "spend_usd": 5}]


def test_an_amount_without_a_rate_says_from_when_and_how_to_add_one(facts, a_call):
    facts.store(a_call(started_at=TEN, billed_cost_usd=D(6), team="early"), a_call(started_at=TEN + HOUR, team="late"))
    later, ended = rate(TEN + HOUR / 2, "1.1"), rate(TEN - HOUR, "1.1", TEN)
    remedy = 'currency = "EUR" and usd_per_unit, effective from 2026-03-04 or before, or ask for USD'
    for rates in ((later,), (ended,), (ended, later)):
        with pytest.raises(BadQuery, match="no exchange rate of EUR holds from 2026-03-04T10:00:00") as refused:
            facts.ask("spend_usd", currency="EUR", rates=rates, end=TEN + 2 * HOUR)
        assert remedy in str(refused.value)
    with pytest.raises(BadQuery, match="no exchange rate of EUR is known: add to the price book an fx_rate"):
        facts.ask("spend_usd", currency="EUR")
    assert facts.ask("calls", currency="EUR") == [{"calls": 1}]
    since = {"start": TEN + HOUR, "end": TEN + 2 * HOUR}
    assert facts.ask("spend_usd", "calls", currency="EUR", rates=(later,), **since) == [{"spend_usd": None, "calls": 1}]
    assert facts.ask("spend_usd", start=TEN - HOUR, end=TEN, currency="EUR", rates=(later,)) == [{"spend_usd": None}]


def test_what_no_column_holds_is_refused(facts, a_charge):
    facts.charge(a_charge(billed_usd=D(10) ** 12))
    with pytest.raises(BadQuery, match="in EUR: ask for a shorter period, or for USD"):
        facts.ask("charges_usd", currency="EUR", rates=(rate(TEN, "0.001"),))


def test_the_price_book_has_the_rates_and_what_it_learns_holds_at_once(tmp_path, a_call, as_batch):
    warehouse = Warehouse.embedded(tmp_path)
    try:
        rows = [a_call(tenant=DEFAULT_TENANT, billed_cost_usd=D(6), team=team) for team in ("ads", "search")]
        ledger.commit(warehouse.engine, as_batch(rows), "otlp", (0, 1))
        question = Query(measures=("spend_usd",), period=Period(TEN, TEN + HOUR), currency="EUR", dimensions=("team",))
        for usd, expected in (("1.5", 4), ("2", 3)):
            entry = FxRate(currency="EUR", usd_per_unit=D(usd), effective_from=TEN - HOUR, source="ECB")
            warehouse.control.add_prices([entry], DEFAULT_TENANT, "tester")
            for _ in range(2):
                answer = warehouse.ask(DEFAULT_TENANT, question)
                assert answer.frame["spend_usd"].to_list() == [expected] * 2
                assert [(one.currency, one.usd_per_unit, one.source) for one in answer.rates] == [
                    ("EUR", D(usd), "ECB")
                ]
    finally:
        warehouse.close()
