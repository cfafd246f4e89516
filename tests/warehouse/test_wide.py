"""One wide answer answers many questions, each as asking the facts anew would."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sqlalchemy import select

from millicent.warehouse import ledger, query, wide
from millicent.warehouse.answers import Answers, Memory
from millicent.warehouse.exchange import Rate
from millicent.warehouse.frames import plain
from millicent.warehouse.query import Basis, Filter, Grain, Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 3, 30, 10, tzinfo=UTC)
"""A day after European clocks went forward."""
TODAY = NOW.replace(hour=0)
EVER = Period(TODAY - 60 * DAY, TODAY + DAY)
SPEND = Query(measures=("spend_usd", "calls"), period=EVER, dimensions=("team",))

RATES = tuple(
    Rate("EUR", TODAY - days * DAY + 7 * HOUR, Decimal(usd), "ECB")
    for days, usd in ((99, "1.07"), (31, "1.1"), (2, "1.13"))
)


class Asked:
    """What is asked of the facts, counted by period."""

    def __init__(self, facts, tenant="acme"):
        self.facts, self.tenant, self.periods = facts, tenant, Counter()
        self.answers = Answers(Memory(facts.engine.revisions), self.anew, clock=lambda: NOW)

    def anew(self, tenant, question):
        self.periods[question.period] += 1
        return query.run(self.facts.engine, tenant, question)

    def __call__(self, question):
        return self.answers.ask(self.tenant, question).frame


@pytest.fixture
def asked(facts):
    return Asked(facts)


@pytest.fixture(scope="module")
def a_company(shared_facts, a_call, a_deployment_hour, a_charge):
    """Some weeks of calls of every kind, as one tenant."""
    told, tenant = [], "wide"
    for n in range(240):
        own = n % 3 == 0
        told.append(a_call(
            tenant=tenant, started_at=EVER.start + (n * 7 % (60 * 24)) * HOUR + timedelta(minutes=n % 60),
            team=("a", "b", None)[n % 5 % 3], feature=("f", None)[n % 2], model=("m", "n", "o")[n % 7 % 3],
            environment=("production", None)[n % 11 % 2], provider=None if own else ("openai", "anthropic")[n % 2],
            billing="self_hosted" if own else "api", deployment="rack" if own else None,
            input_tokens=(None, 7, 1000)[n % 4 % 3], output_tokens=(None, 3, 100)[n % 3],
            list_cost_usd=(None, Decimal("0.000000000001"), Decimal("1.25"))[n % 3],
            billed_cost_usd=None if own else (None, Decimal("0.000000000001"), Decimal(1))[n % 5 % 3],
        ))  # fmt: skip
    shared_facts.store(*told)
    shared_facts.put("deployment_hours", [
        a_deployment_hour(
            tenant=tenant, deployment="rack", hour=EVER.start + n * HOUR, rate_usd_per_weight=Decimal("0.001"),
            idle_usd=Decimal(n % 5), untracked_usd=Decimal(n % 3),
        )
        for n in range(0, 61 * 24, 7)
    ])  # fmt: skip
    for n in range(3):
        shared_facts.charge(a_charge(tenant=tenant, charged_at=EVER.start + n * 20 * DAY, billed_usd=Decimal("9.99")))
    return Asked(shared_facts, tenant)


@st.composite
def questions(draw):
    names = draw(st.lists(st.sampled_from(wide.SUMS), min_size=1, max_size=4, unique=True))
    values = st.lists(
        st.sampled_from(("a", "m", "rack", "production", "api", "hardware", None)), min_size=1, unique=True
    )
    filters = draw(st.lists(st.builds(Filter, st.sampled_from(wide.DIMENSIONS), values.map(tuple), st.booleans()),
                            max_size=2))  # fmt: skip
    start = EVER.start + draw(st.integers(0, 61 * 24 - 1)) * HOUR
    hours = draw(st.integers(1, 61 * 24))
    dimensions = draw(st.lists(st.sampled_from(wide.DIMENSIONS), max_size=3, unique=True))
    currency = draw(st.sampled_from(("USD", "USD", "EUR")))
    return Query(
        currency=currency, rates=RATES if currency == "EUR" else (),
        measures=tuple(names), dimensions=tuple(dimensions), filters=tuple(filters),
        grain=draw(st.sampled_from((None, *get_args(Grain)))), basis=draw(st.sampled_from(get_args(Basis))),
        time_zone=draw(st.sampled_from(("UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kolkata"))),
        period=Period(start, min(start + hours * HOUR, EVER.end)), limit=draw(st.sampled_from((None, None, 3))),
    )  # fmt: skip


@given(question=questions())
@example(question=replace(SPEND, time_zone="Europe/Berlin", grain="day", period=Period(TODAY - 3 * DAY, NOW)))
@example(question=replace(SPEND, time_zone="America/Los_Angeles", grain="month", dimensions=("model",)))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_answer_is_what_the_facts_tell(a_company, question):
    expected = query.run(a_company.facts.engine, a_company.tenant, question)
    found = a_company.answers.ask(a_company.tenant, question)
    assert_frame_equal(found.frame, expected.frame)
    assert found.source == expected.source


def test_questions_of_the_same_days_are_answered_by_one_for_each_month_and_one_for_today(facts, asked, a_call):
    facts.store(*(a_call(team="a", started_at=TODAY - n * 9 * DAY) for n in range(6)))
    assert asked(SPEND)["calls"].to_list() == [6]
    once = asked.periods.total()
    assert asked.periods.total() == 4  # January to March, and today
    for question in (
        replace(SPEND, dimensions=("model",)), replace(SPEND, grain="day"),
        replace(SPEND, filters=(Filter("team", ("a",)),), dimensions=()),
        replace(SPEND, period=Period(TODAY - 20 * DAY, EVER.end)),
    ):  # fmt: skip
        asked(question)
    assert asked.periods.total() == once


def test_a_question_over_a_year_of_which_nothing_is_at_hand_is_asked_by_itself(facts, asked, a_call):
    facts.store(*(a_call(team="a", started_at=TODAY - n * 29 * DAY) for n in range(13)))
    year = replace(SPEND, period=Period(TODAY - 365 * DAY, EVER.end), grain="month")
    assert asked(year)["calls"].sum() == 13
    assert asked.periods == {year.period: 1}


def test_new_calls_cost_the_hours_of_today_alone(facts, asked, a_call):
    facts.store(a_call(team="a", started_at=TODAY - 40 * DAY))
    for number in range(1, 4):
        asked(SPEND)
        facts.store(a_call(team="a", started_at=NOW))
        assert asked(SPEND)["calls"].to_list() == [1 + number]
    assert asked.periods.pop(Period(TODAY, EVER.end)) == 4
    assert set(asked.periods.values()) == {1}


def test_a_late_call_has_its_month_asked_again(facts, asked, a_call):
    asked(SPEND)
    facts.store(a_call(team="a", started_at=TODAY - 40 * DAY))
    assert asked(SPEND)["calls"].to_list() == [1]
    asked.periods.clear()
    facts.store(a_call(team="a", started_at=TODAY - 2 * DAY))
    assert asked(SPEND)["calls"].to_list() == [2]
    assert asked.periods == {Period(TODAY.replace(day=1), TODAY): 1}


def test_a_call_that_moves_to_today_meanwhile_is_told_once(facts, asked, a_call):
    facts.store(a_call(team="a", started_at=TODAY - DAY))

    def moving(tenant, question, ask=asked.anew):
        if question.period.start == TODAY:
            stored = plain(facts.engine.read(select(calls).where(calls.c.started_at < TODAY.replace(tzinfo=None))))
            ledger.revise(facts.engine, stored.with_columns(counted=pl.lit(value=False)))
            facts.store(a_call(team="a", started_at=NOW))
        return ask(tenant, question)

    asked.answers._ask = moving
    assert asked(SPEND)["calls"].to_list() == [1]
    asked.answers._ask = asked.anew
    assert asked(SPEND)["calls"].to_list() == [1]


def test_during_a_commit_of_days_that_are_over_the_facts_are_asked(facts, asked, a_call):
    facts.store(a_call(team="a", started_at=TODAY - DAY))
    with facts.engine.revisions.changing({(TODAY - DAY).date()}):
        assert asked(SPEND)["calls"].to_list() == [1]
    assert asked.periods == {EVER: 1}


def test_where_names_are_too_many_each_question_is_asked_by_itself_and_no_wide_one_again(
    facts, asked, a_call, monkeypatch
):
    monkeypatch.setattr(wide, "MOST_ROWS", 3)
    facts.store(*(a_call(team=f"team {n}", started_at=TODAY - DAY) for n in range(5)))
    for dimension in ("team", "model", "team"):
        assert asked(replace(SPEND, dimensions=(dimension,)))["calls"].sum() == 5
    assert asked.periods[EVER] == 2
    assert asked.periods[Period(TODAY.replace(day=1), TODAY)] == 1


def test_what_pages_ask_first_is_at_hand(facts, a_call):
    warehouse = Warehouse(facts.engine, facts.control, facts.prices)
    assert warehouse.prepare(datetime.now(UTC)) == 0
    now = datetime.now(UTC)
    facts.store(a_call(team="a", started_at=now - 30 * DAY, tenant="default"))
    assert warehouse.prepare(now) == 1
    end = now.replace(minute=0, second=0, microsecond=0) + HOUR
    asked, read = [], warehouse.engine.read
    warehouse.engine.read = lambda *told, **more: asked.append(told) or read(*told, **more)
    question = replace(SPEND, period=Period((now - 35 * DAY).replace(hour=0, minute=0, second=0, microsecond=0), end))
    assert warehouse.ask("default", question).frame["calls"].to_list() == [1]
    assert not asked
