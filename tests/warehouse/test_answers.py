"""Remembered answers are always those that asking anew would give, and asking again costs what has changed."""

import itertools
import random
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sqlalchemy import select

from millicent.warehouse import amending, answers, ledger, query, rollups
from millicent.warehouse.answers import Answers, Memory
from millicent.warehouse.calls import Search
from millicent.warehouse.engine import EngineError
from millicent.warehouse.exchange import Rate
from millicent.warehouse.frames import plain
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Answer, BadQuery, Basis, Filter, Grain, Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import PRICE, calls

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TODAY = datetime(2026, 3, 4, tzinfo=UTC)
NOW = TODAY + 10 * HOUR
EVER = Period(TODAY - 3 * DAY, TODAY + DAY)
SPEND = Query(measures=("spend_usd", "calls"), period=EVER, dimensions=("service",))
"""By what no wide answer is cut by."""
RATES = tuple(
    Rate("EUR", TODAY - days * DAY + HOUR, Decimal(usd), "ECB") for days, usd in ((99, "1.07"), (1, "1.1"), (0, "1.13"))
)
CALLERS = tuple(name for name, measure in DICTIONARY.items() if not measure.of_deployments)
_tenants = (f"remembered-{number}" for number in itertools.count())


class Asked:
    """What `answers` asks of the facts, counted by period."""

    def __init__(self, facts, tenant="acme", **told):
        self.facts, self.tenant, self.periods = facts, tenant, Counter()
        self.memory = Memory(facts.engine.revisions, **told)
        self.answers = Answers(self.memory, self.anew, clock=lambda: NOW)

    def anew(self, tenant, question):
        self.periods[question.period] += 1
        return query.run(self.facts.engine, tenant, question)

    def __call__(self, question):
        return self.answers.ask(self.tenant, question)

    def rows(self, question):
        return self(question).frame.to_dicts()

    def assert_true(self, question):
        """Three times, as pages do: the first, the second and the one that is remembered."""
        expected = query.run(self.facts.engine, self.tenant, question)
        for _ in range(3):
            answer = self(question)
            assert_frame_equal(answer.frame, expected.frame)
            assert answer.source == expected.source


@pytest.fixture
def asked(facts):
    return Asked(facts)


# ---- always what asking anew would tell


@st.composite
def questions(draw):
    names = draw(st.lists(st.sampled_from(CALLERS), min_size=1, max_size=3, unique=True))
    dimensions = draw(st.lists(st.sampled_from(("team", "model", "cost_type", "deployment", "user_id")), max_size=2,
                               unique=True))  # fmt: skip
    grain = draw(st.sampled_from((None, *get_args(Grain))))
    order = draw(st.sampled_from(((), (f"-{names[-1]}",), (names[0],))))
    start = EVER.start + draw(st.integers(0, 4 * 24)) * HOUR / 2
    end = draw(st.sampled_from((EVER.end, NOW, TODAY + timedelta(minutes=90), TODAY)))
    currency = draw(st.sampled_from(("USD", "EUR")))
    return Query(
        time_zone=draw(st.sampled_from(("UTC", "Asia/Kolkata", "America/Los_Angeles"))), currency=currency,
        rates=RATES if currency == "EUR" else (),
        measures=tuple(names), dimensions=tuple(dimensions), grain=grain, order=order,
        period=Period(min(start, end - HOUR), end), basis=draw(st.sampled_from(get_args(Basis))),
        limit=draw(st.sampled_from((None, None, 2))),
        filters=draw(st.sampled_from(((), (), (Filter("team", ("a", None)),)))),
    )  # fmt: skip


@st.composite
def changes(draw):
    return draw(st.sampled_from(sorted(CHANGES))), draw(st.integers(0, 4 * 24 - 1)), draw(st.randoms())


class Book:
    """The facts of one tenant, changed in every way that there is."""

    def __init__(self, facts, tenant, told):
        self.facts, self.tenant, self.told = facts, tenant, told

    def a_call(self, at, chance):
        own = chance.random() < 0.5
        return self.told["call"](
            tenant=self.tenant, started_at=at + timedelta(seconds=chance.randrange(1800)),
            team=chance.choice(("a", "b", None)), model=chance.choice(("m", "n")), user_id=chance.choice("uvw"),
            billing="self_hosted" if own else "api", deployment="rack" if own else None,
            input_tokens=chance.choice((None, 7, 1000)), output_tokens=chance.choice((None, 3, 100)),
            list_cost_usd=chance.choice((None, Decimal("0.000000000001"), Decimal("1.25"))),
            billed_cost_usd=None if own else chance.choice((None, Decimal("0.000000000001"), Decimal(1))),
        )  # fmt: skip

    def calls(self, at, chance):
        self.facts.store(*(self.a_call(at, chance) for _ in range(chance.randrange(1, 4))))

    def revision(self, _, chance):
        stored = self.stored()
        if stored.height:
            one = stored.slice(chance.randrange(stored.height), 1)
            anew = one.with_columns(team=pl.lit("z"), counted=pl.lit(chance.random() < 0.5))
            ledger.revise(self.facts.engine, anew)

    def repricing(self, _, chance):
        """Whole days become dearer, as `millicent reprice` does it."""
        if self.stored().is_empty():
            return
        mine, day = calls.c.tenant == self.tenant, EVER.start + chance.randrange(4) * DAY
        with self.facts.engine.write() as transaction:
            where = (*amending.within(self.tenant, Period(day, day + DAY)), mine)
            for part in list(amending.places(transaction.read, where)):
                now = pl.DataFrame(pl.from_arrow(transaction.read(amending.standing((), (*where, part)))))
                told = now.select(pl.col(f"{name}_now").alias(name) for name in PRICE)
                told = told.with_columns(pl.col("list_cost_usd") * 2, pl.col("billed_cost_usd") * 2)
                told = told.cast({name: now.schema[f"{name}_now"] for name in PRICE})
                amending.amend(transaction, 7, pl.concat([now, told], how="horizontal"))
            rollups.recount(transaction, self.tenant, day, day + DAY)

    def hour(self, at, chance):
        usd = Decimal(chance.randrange(1, 9)) / 7
        self.facts.put("deployment_hours", [self.told["hour"](
            tenant=self.tenant, hour=at.replace(minute=0), model="m", idle_usd=round(usd, 24), busy_usd=Decimal(1),
            joules=round(Decimal(chance.randrange(10**6)) / 7, 6), busy_joules=Decimal("0.333"), engine_input_tokens=5,
            elapsed_ms=chance.choice((3_600_000, 1_234_567)), gco2e_g=Decimal(3), input_tokens=7,
            rate_usd_per_weight=Decimal("0.000000001234567890123457"), joules_per_weight=Decimal("0.0000123456789"),
        )])  # fmt: skip

    def share(self, at, _):
        self.facts.put("idle_shares", [{
            "tenant": self.tenant, "deployment": "rack", "hour": at.replace(minute=0), "kind": "idle", "team": "a",
            "usd": Decimal("0.010000000000000000000001"),
        }])  # fmt: skip

    def charge(self, at, chance):
        amount = Decimal(chance.randrange(-9, 9))
        self.facts.charge(self.told["charge"](tenant=self.tenant, charged_at=at.replace(minute=0), billed_usd=amount))

    def folding(self, _, __):
        rollups.compact(self.facts.engine, NOW)

    def stored(self):
        return plain(self.facts.engine.read(select(calls).where(calls.c.tenant == self.tenant)))


CHANGES = ("calls", "revision", "repricing", "hour", "share", "charge", "folding")


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(asking=st.lists(questions(), min_size=2, max_size=3), changing=st.lists(changes(), min_size=1, max_size=6))
def test_an_answer_is_what_asking_anew_tells_after_any_change(
    shared_facts, a_call, a_charge, a_deployment_hour, asking, changing
):
    asked = Asked(shared_facts, next(_tenants))
    book = Book(shared_facts, asked.tenant, {"call": a_call, "charge": a_charge, "hour": a_deployment_hour})
    for what, half_hours, chance in [("hour", 30, changing[0][2]), ("calls", 61, changing[0][2]), *changing]:
        getattr(book, what)(EVER.start + half_hours * HOUR / 2, chance)
        for question in asking:
            asked.assert_true(question)


@pytest.mark.parametrize("of_deployments", [False, True])
@pytest.mark.parametrize("rounded", [False, True])
def test_every_measure_is_the_same_in_two_parts(
    of_deployments, rounded, shared_facts, a_call, a_charge, a_deployment_hour
):
    names = tuple(
        name
        for name, measure in DICTIONARY.items()
        if measure.of_deployments is of_deployments
        and rounded == any(DICTIONARY[part or name].unit in {"joules", "wh"}
                           for part in (measure.sum_of, measure.numerator, measure.denominator))
    )  # fmt: skip
    asked, chance = Asked(shared_facts, next(_tenants)), random.Random(7)
    book = Book(shared_facts, asked.tenant, {"call": a_call, "charge": a_charge, "hour": a_deployment_hour})
    for half_hours, what in itertools.product(range(10, 170, 23), ("calls", "hour", "charge")):
        getattr(book, what)(EVER.start + half_hours * HOUR / 2, chance)
    by = ("model", "cost_type") if of_deployments else ("team", "cost_type")
    question = Query(measures=names, period=EVER, dimensions=by)
    asked(question)
    shared_facts.store(a_call(tenant=asked.tenant, started_at=NOW, input_tokens=1))
    asked.assert_true(question)
    assert (Period(TODAY, EVER.end) in asked.periods) is not rounded
    half_an_hour = Period(EVER.start + HOUR / 2, NOW - HOUR / 7)
    asked.assert_true(Query(measures=names, period=half_an_hour, grain="week"))


def test_an_hour_that_is_rated_otherwise_changes_what_was_remembered(facts, asked, a_call):
    facts.declare("rack", TODAY - 2 * DAY)
    facts.refresh(NOW)
    question = replace(SPEND, dimensions=("team", "cost_type"))
    asked.assert_true(question)
    before = asked.rows(question)
    own = {"billing": "self_hosted", "deployment": "rack", "input_tokens": 1000, "duration_ms": 60_000}
    facts.store(a_call(started_at=TODAY - DAY, team="a", **own))
    facts.refresh(NOW)
    asked.assert_true(question)
    late = asked.rows(question)
    assert late != before
    facts.control.set_policy(Policy(idle="spread by use", effective_from=TODAY - 2 * DAY), "acme")
    facts.refresh(NOW + HOUR)
    asked.assert_true(question)
    assert asked.rows(question) != late


def test_hours_and_calls_of_a_period_are_read_anew_once_anything_in_it_changed(facts, a_call):
    warehouse = Warehouse(facts.engine, facts.control, facts.prices)
    search, asked = Search(period=EVER), []
    read = warehouse.engine.read
    warehouse.engine.read = lambda *told: asked.append(told) or read(*told)
    facts.declare("rack", TODAY - DAY)
    for stored in range(1, 4):
        facts.store(a_call(started_at=TODAY - stored * HOUR, billing="self_hosted", deployment="rack", input_tokens=9))
        facts.refresh(NOW)
        known = [warehouse.hours("acme", EVER)["input_tokens"].sum(), len(warehouse.find("acme", search)[0])]
        assert known == [9 * stored, stored]
        asked.clear()
        warehouse.find("acme", search)[0][0].clear()
        assert [warehouse.hours("acme", EVER)["input_tokens"].sum(), len(warehouse.find("acme", search)[0])] == known
        assert warehouse.find("acme", search)[0][0]["input_tokens"] == 9
        assert not asked


def test_what_is_read_of_a_period_is_remembered_by_all_that_it_depends_on(facts, a_call):
    warehouse, asked = Warehouse(facts.engine, facts.control, facts.prices), []
    for key in ("a", "a", "b", "b"):
        assert warehouse.remembered(("acme", key), EVER, lambda key=key: asked.append(key) or key) == key
    facts.store(a_call(started_at=NOW))
    assert warehouse.remembered(("acme", "a"), EVER, lambda: "anew") == "anew"
    assert asked == ["a", "b"]


# ---- what asking again costs


def test_what_did_not_change_is_not_asked_again(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY))
    first = asked(SPEND)
    assert_frame_equal(asked(SPEND).frame, first.frame)
    assert asked.periods.total() == 1


def test_new_calls_of_today_cost_the_hours_of_today_alone(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY, billed_cost_usd=Decimal(2)))
    for calls_of_today in range(1, 5):
        asked(SPEND)
        facts.store(a_call(service="a", started_at=NOW))
        assert asked.rows(SPEND) == [{"service": "a", "spend_usd": Decimal(2), "calls": 1 + calls_of_today}]
    assert asked.periods[EVER] == 1
    assert asked.periods[Period(EVER.start, TODAY)] == 1
    assert asked.periods[Period(TODAY, EVER.end)] == 4


def test_a_late_call_makes_the_days_before_be_asked_again(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=NOW))
    asked(SPEND)
    facts.store(a_call(service="a", started_at=TODAY - 2 * DAY))
    assert asked.rows(SPEND)[0]["calls"] == 2


def test_another_hour_that_has_begun_is_asked_alone(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY), a_call(service="a", started_at=NOW))
    asked(SPEND)
    facts.store(a_call(service="a", started_at=NOW))
    asked(SPEND)
    an_hour_on = replace(SPEND, period=Period(EVER.start, EVER.end + HOUR))
    asked.assert_true(an_hour_on)
    assert asked.periods[Period(EVER.start, TODAY)] == 1


def test_folding_the_rollup_forgets_nothing(facts, asked, a_call):
    for _ in range(2):
        facts.store(a_call(service="a", started_at=TODAY - DAY))
    asked(SPEND)
    assert rollups.compact(facts.engine, NOW) == 1
    asked.assert_true(SPEND)
    assert asked.periods.total() == 1


def test_a_change_that_does_not_tell_its_days_forgets_everything(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY))
    asked(SPEND)
    with facts.engine.write() as transaction:
        transaction.execute(calls.update().values(service="b"))
    asked(SPEND)
    assert asked.periods.total() > 1


def test_a_commit_that_failed_and_a_database_opened_anew_are_not_trusted(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY))
    asked(SPEND)
    facts.engine.reopen()
    asked(SPEND)
    assert asked.periods.total() > 1


def test_tenants_are_apart(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=NOW), a_call(service="a", started_at=NOW, tenant="rival"))
    facts.store(a_call(service="a", started_at=NOW, tenant="rival"))
    assert asked.rows(SPEND)[0]["calls"] == 1
    assert asked.answers.ask("rival", SPEND).frame["calls"].to_list() == [2]


def test_more_rows_than_an_answer_holds_are_refused_and_their_first_are_told(facts, asked, a_call, monkeypatch):
    monkeypatch.setattr(query, "MAX_ROWS", 3)
    monkeypatch.setattr(answers, "MAX_ROWS", 3)
    by_user = replace(SPEND, dimensions=("user_id",), order=("-calls", "user_id"))
    facts.store(*(a_call(started_at=TODAY - day * DAY, user_id=f"{n}-{day}") for n in range(2) for day in range(3)))
    for _ in range(3):
        with pytest.raises(BadQuery, match="more than"):
            asked(by_user)
        facts.store(a_call(started_at=NOW, user_id="0-0"))
        asked.assert_true(replace(by_user, limit=2))


# ---- many at once, and little memory


def test_those_who_ask_at_once_share_one_answer(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=NOW))
    inside, go, found = threading.Event(), threading.Event(), []

    def slow(tenant, question, ask=asked.anew):
        inside.set()
        assert go.wait(10)
        return ask(tenant, question)

    asked.answers._ask = slow
    threads = [threading.Thread(target=lambda: found.append(asked(SPEND).frame)) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert inside.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert asked.periods.total() == 1
    assert all(frame.equals(found[0]) for frame in found)
    assert len(found) == 8


def test_a_change_while_two_parts_are_asked_is_in_neither_or_in_both(facts, asked, a_call):
    """A call that moves from yesterday to today must not be told twice, nor never."""
    facts.store(a_call(service="a", started_at=TODAY - DAY))
    asked(SPEND)
    facts.store(a_call(service="a", started_at=NOW))

    def moving(tenant, question, ask=asked.anew):
        if question.period.end == EVER.end and question.period.start == TODAY:
            stored = plain(facts.engine.read(select(calls).where(calls.c.started_at < TODAY)))
            ledger.revise(facts.engine, stored.with_columns(counted=pl.lit(value=False)))
            facts.store(a_call(service="a", started_at=NOW))
        return ask(tenant, question)

    asked.answers._ask = moving
    assert asked.rows(SPEND)[0]["calls"] == 2
    asked.answers._ask = asked.anew
    asked.assert_true(SPEND)


def test_what_is_committed_while_it_is_asked_is_not_remembered_as_if_it_were_before(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=TODAY - DAY))

    def late(tenant, question, ask=asked.anew):
        answer = ask(tenant, question)
        facts.store(a_call(service="a", started_at=NOW))
        return answer

    asked.answers._ask = late
    assert [asked.rows(SPEND)[0]["calls"] for _ in range(3)] == [1, 3, 4]  # the second is asked in two, the third half
    asked.answers._ask = asked.anew
    asked.assert_true(SPEND)
    assert asked.periods[EVER] == 1  # a question that comes again is parted although something is always committed


def test_during_a_commit_nothing_is_remembered(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=NOW))
    with facts.engine.revisions.changing({NOW.date()}):
        asked(SPEND)
        asked(SPEND)
    assert asked.periods[EVER] == 2
    assert asked.memory.size == 0


def test_a_failure_is_raised_and_not_remembered(facts, asked, a_call):
    facts.store(a_call(service="a", started_at=NOW))

    def failing(tenant, question):
        raise EngineError("out of memory")

    asked.answers._ask = failing
    with pytest.raises(EngineError, match="out of memory"):
        asked(SPEND)
    asked.answers._ask = asked.anew
    assert asked.rows(SPEND)[0]["calls"] == 1


def test_memory_is_bounded_and_what_was_asked_last_stays(facts, a_call):
    facts.store(a_call(service="a", started_at=NOW))
    asked = Asked(facts, most_bytes=answers.SMALLEST * 20)
    asked_for = [replace(SPEND, limit=number + 1) for number in range(50)]
    for question in asked_for:
        asked(question)
        asked(asked_for[0])
    assert 0 < asked.memory.size <= answers.SMALLEST * 20
    assert asked.periods.total() == 50
    assert isinstance(asked(asked_for[0]), Answer)
    asked(asked_for[1])
    assert asked.periods.total() == 51
