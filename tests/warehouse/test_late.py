"""A closed period never changes: what late calls cost in it is charged now, and over all time nothing is lost."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import get_args

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import late, ledger
from millicent.warehouse.control import tenants
from millicent.warehouse.frames import plain
from millicent.warehouse.query import Basis
from millicent.warehouse.record import IDLE
from millicent.warehouse.tables import CHARGED_TO, calls, charges

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
NOW = MONDAY + 30 * DAY + timedelta(minutes=20)
EVER = {"start": MONDAY - 365 * DAY, "end": MONDAY + 365 * DAY}
BASES = get_args(Basis)
RATES = {
    "rate_usd_per_weight": Decimal("0.000000001234567890123457"),
    "output_rate_usd_per_weight": Decimal("0.000000003333333333333333"),
    "energy_rate_usd_per_weight": Decimal("0.000000000000000000000001"),
    "output_energy_rate_usd_per_weight": Decimal("0.000000000111111111111111"),
}
"""Of each deployment-hour that `an_hour` makes."""


class Book:
    """The ledger of one tenant, stored into as the loader does, at any instant."""

    batches = itertools.count(1)

    def __init__(self, facts, tenant, as_batch, as_frame):
        self.facts, self.tenant, self._as_batch, self._as_frame = facts, tenant, as_batch, as_frame

    def store(self, *told, now=NOW):
        batch = self._as_batch([{**one, "tenant": self.tenant} for one in told])
        with late.heeding(self.facts.control, batch.calls, batch.revised, now=now) as closed:
            ledger.commit(self.facts.engine, batch, "otlp", (1, next(self.batches)), closed)

    def revise(self, rows, now=NOW):
        with late.heeding(self.facts.control, rows, now=now) as closed:
            ledger.revise(self.facts.engine, rows, closed=closed)

    def close(self, day, days=1):
        self.facts.control.close_period(self.tenant, day, day + days * DAY, "cfo")

    def an_hour(self, hour, deployment="rack"):
        """A deployment-hour of 2 USD, of which idle time takes half."""
        zero = dict.fromkeys(("elapsed_ms", "busy_ms", "accelerator_ms", "accelerator_count", "weight"), 0)
        row = {
            "tenant": self.tenant, "deployment": deployment, "hour": hour, "model": "qwen3-8b", "environment": "prod",
            "fixed_usd": Decimal(2), "busy_usd": Decimal(1), "idle_usd": Decimal(1), "w_input": 1000, "w_cached": 100,
            "w_output": 4000, "method": "told", "sources": "[]", "declared_from": hour, "provisional": False,
            "computed_at": hour, **zero, **dict.fromkeys(("energy_usd", "hosting_usd", "untracked_usd"), Decimal(0)),
            **RATES,
        }  # fmt: skip
        exact = {name: pl.Decimal(38, 24) for name, value in row.items() if isinstance(value, Decimal)}
        with self.facts.engine.write() as transaction:
            transaction.insert("deployment_hours", pl.DataFrame([row], schema_overrides=exact).to_arrow())

    def spend(self, basis, *dimensions, **told):
        """Spend by dimensions; what is nothing or unknown is left out."""
        rows = self.facts.ask("spend_usd", basis=basis, tenant=self.tenant, dimensions=dimensions, **told)
        return {tuple(row.values())[:-1]: row["spend_usd"] for row in rows if row["spend_usd"]}

    def total(self, basis, **told):
        return self.spend(basis, **{**EVER, **told}).get((), Decimal(0))

    def amounts(self, day):
        """Every amount of a day that can be asked: those of all coarser questions are sums of these."""
        return {basis: self.spend(basis, *CHARGED_TO, start=day, end=day + DAY, grain="hour") for basis in BASES}

    def rows(self, table=calls):
        return plain(self.facts.engine.read(select(table).where(table.c.tenant == self.tenant)))

    def charges(self):
        return self.rows(charges).sort("charged_at", "team", "deployment", nulls_last=True).to_dicts()


@pytest.fixture
def book(facts, as_batch, as_frame):
    return Book(facts, "acme", as_batch, as_frame)


def own(a_call, **told):
    return a_call(billing="self_hosted", deployment="rack", billed_cost_usd=Decimal(0), **told)


def test_a_late_call_of_a_closed_day_costs_now_and_counts_then(book, a_call):
    ten = MONDAY + 10 * HOUR
    book.store(a_call(started_at=ten, team="a", list_cost_usd=Decimal(4), billed_cost_usd=Decimal(3)))
    book.close(MONDAY)
    before = book.amounts(MONDAY)
    told = {"started_at": ten + HOUR / 2, "team": "b", "model": "gpt-4o", "provider": "openai"}
    book.store(a_call(**told, list_cost_usd=Decimal("0.5"), billed_cost_usd=Decimal("0.25")))
    assert book.amounts(MONDAY) == before
    assert book.facts.ask("calls", start=MONDAY, end=MONDAY + DAY) == [{"calls": 2}]
    hour = NOW.replace(minute=0)
    assert book.spend("billed", "team", start=hour, end=hour + HOUR) == {("b",): Decimal("0.25")}
    assert book.total("list") == Decimal("4.5")
    back, now = book.charges()
    assert {back[name] for name in ("type", "name")} | {now["name"]} == {"adjustment", "Late calls"}
    assert [(one["charged_at"], one["period_start"], one["period_end"]) for one in (back, now)] == [
        (ten, ten, ten + HOUR), (hour, MONDAY, MONDAY + DAY),
    ]  # fmt: skip
    assert [(one["list_usd"], one["billed_usd"], one["run"], one["model"]) for one in (back, now)] == [
        (Decimal("-0.5"), Decimal("-0.25"), None, "gpt-4o"), (Decimal("0.5"), Decimal("0.25"), None, "gpt-4o"),
    ]  # fmt: skip
    assert [one["why"] for one in (back, now)] == [
        "2026-03-02 is closed: 1 call more counts in it; charged at 2026-04-01 00:00 UTC instead",
        "2026-03-02 is closed: 1 call more counts in it",
    ]


def test_what_a_late_call_carries_of_own_hardware_is_no_longer_idle(book, a_call):
    ten = MONDAY + 10 * HOUR
    book.an_hour(ten)
    book.store(own(a_call, started_at=ten, team="a", input_tokens=10, output_tokens=10))
    book.close(MONDAY)
    before, totals = book.amounts(MONDAY), {basis: book.total(basis) for basis in BASES}
    book.store(own(a_call, started_at=ten, team="b", input_tokens=300, cache_read_tokens=100, output_tokens=7))
    assert book.amounts(MONDAY) == before
    carried = 210_000 * RATES["rate_usd_per_weight"] + 28_000 * RATES["output_rate_usd_per_weight"]
    energy = 210_000 * RATES["energy_rate_usd_per_weight"] + 28_000 * RATES["output_energy_rate_usd_per_weight"]
    more = {basis: book.total(basis) - totals[basis] for basis in BASES}
    assert more == {"list": 0, "billed": 0, "effective": 0, "usage": carried, "marginal": energy}
    hour = NOW.replace(minute=0)
    here = {"start": hour, "end": hour + HOUR}
    assert book.spend("effective", "team", **here) == {("b",): carried, (IDLE,): -carried}
    (idle,) = [one for one in book.charges() if one["idle_usd"]]
    assert [idle[name] for name in ("deployment", "model", "environment", "team", "service")] == [
        "rack", "qwen3-8b", "prod", IDLE, IDLE,
    ]  # fmt: skip
    assert idle["why"] == "2026-03-02 is closed: its late calls carry what was idle of rack"
    for name in CHARGED_TO:
        for grain in ("day", "month"):
            told = {"start": MONDAY, "end": MONDAY + DAY, "grain": grain}
            assert sum(book.spend("effective", name, **told).values()) == Decimal(1) + sum(
                amount for key, amount in before["effective"].items() if IDLE not in key
            )


def test_a_call_that_no_longer_counts_or_is_another_teams_moves_its_cost_now(book, a_call):
    ten = MONDAY + 10 * HOUR
    book.store(*(a_call(started_at=ten, team=team, list_cost_usd=Decimal(1), billed_cost_usd=Decimal(usd))
                 for team, usd in (("a", 1), ("b", 2), ("c", 4))))  # fmt: skip
    book.close(MONDAY)
    before, rows = book.amounts(MONDAY), book.rows()
    book.revise(rows.filter(team="a").with_columns(counted=pl.lit(value=False)))
    book.revise(rows.filter(team="b").with_columns(team=pl.lit("d")), now=NOW + HOUR)
    book.revise(rows.filter(team="c").with_columns(duration_ms=pl.lit(5, pl.Int64)))
    assert book.amounts(MONDAY) == before
    hours = [NOW.replace(minute=0) + step * HOUR for step in (0, 1, 2)]
    assert [book.spend("billed", "team", start=a, end=b) for a, b in itertools.pairwise(hours)] == [
        {("a",): -1}, {("b",): -2, ("d",): 2},
    ]  # fmt: skip
    assert book.total("billed") == 6
    assert {one["why"].split(";")[0] for one in book.charges()} == {
        f"2026-03-02 is closed: 1 call {what} in it" for what in ("more counts", "fewer counts")
    }


def test_the_hour_that_took_the_charge_stays_too_once_it_is_closed(book, a_call):
    book.close(MONDAY)
    book.store(a_call(started_at=MONDAY, team="a", list_cost_usd=Decimal(1), billed_cost_usd=Decimal(1)))
    today = NOW.replace(hour=0, minute=0)
    book.close(today)
    days = (MONDAY, today)
    before = [book.amounts(day) for day in days]
    book.revise(book.rows().with_columns(counted=pl.lit(value=False)), now=NOW + 2 * DAY)
    assert [book.amounts(day) for day in days] == before
    assert book.total("billed") == 0


def test_what_costs_nothing_known_adjusts_nothing_and_is_told_beside_what_does(book, a_call):
    book.close(MONDAY)
    book.store(a_call(started_at=MONDAY, team="a", price_status="unpriced"), own(a_call, started_at=MONDAY, team="b"))
    assert book.charges() == []
    told = {"started_at": MONDAY, "team": "a", "call_count": 2}
    book.store(a_call(**told, price_status="unpriced"), a_call(**told, billed_cost_usd=Decimal(1)))
    assert {one["why"].split(";")[0] for one in book.charges()} == {
        "2026-03-02 is closed: 4 calls more count in it, 2 of unknown cost"
    }
    assert book.facts.ask("unpriced_calls", start=MONDAY, end=MONDAY + DAY) == [{"unpriced_calls": 4}]


@pytest.mark.parametrize("now", [MONDAY + DAY, MONDAY + DAY + HOUR])
def test_the_calls_of_open_days_and_of_other_tenants_are_not_adjusted(book, a_call, as_batch, as_frame, now):
    rival = Book(book.facts, "rival", as_batch, as_frame)
    rival.close(MONDAY)
    book.close(MONDAY - DAY)
    book.store(*(a_call(started_at=MONDAY + at, billed_cost_usd=Decimal(1)) for at in (timedelta(0), DAY)), now=now)
    rival.store(*(a_call(started_at=MONDAY + at, billed_cost_usd=Decimal(1))
                  for at in (-timedelta(microseconds=1), DAY)))  # fmt: skip
    assert book.charges() == rival.charges() == []


def test_days_that_are_not_over_need_no_look_at_what_is_closed(facts, a_call, as_frame):
    rows = as_frame([a_call(started_at=NOW.replace(hour=0, minute=0)), a_call(started_at=NOW + DAY)])
    with late.heeding(None, rows, pl.DataFrame(), now=NOW) as closed:
        assert closed is late.NONE
    with pytest.raises(AttributeError), late.heeding(None, rows, now=NOW.replace(hour=23, minute=58)):
        pass  # a day that ends soon may be closed before the batch is stored


def test_an_end_in_the_middle_leaves_neither_calls_nor_adjustments(book, a_call, monkeypatch):
    book.close(MONDAY)
    told = a_call(started_at=MONDAY, billed_cost_usd=Decimal(1))
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "_keep_told", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            book.store(told)
    assert book.charges() == []
    assert book.rows().is_empty()
    book.store(told)
    assert len(book.charges()) == 2


tokens = st.one_of(st.none(), st.integers(0, 10**6))
usd = st.one_of(st.none(), st.decimals(0, 100, places=12))
said = st.fixed_dictionaries(
    {
        "team": st.sampled_from([None, "a", "b"]), "project": st.sampled_from([None, "x"]),
        "billing": st.sampled_from(["api", "self_hosted"]), "deployment": st.sampled_from([None, "rack", "shelf"]),
        "input_tokens": tokens, "output_tokens": tokens, "cache_read_tokens": st.sampled_from([None, 0, 7]),
        "list_cost_usd": usd, "billed_cost_usd": usd, "counted": st.sampled_from([True, True, False]),
        "call_count": st.sampled_from([None, 1, 9]), "signal": st.sampled_from(["span", "metric"]),
        "price_status": st.sampled_from(["priced", "unpriced", "not_billed"]),
    }
)  # fmt: skip
late_or_not = st.tuples(said, st.integers(0, 3), st.integers(0, 2))
event = st.one_of(
    st.tuples(st.just("close"), st.integers(0, 2)),
    st.tuples(st.just("store"), st.lists(late_or_not, min_size=1, max_size=4)),
    st.tuples(st.just("revise"), st.lists(said, min_size=1, max_size=3)),
)
_tenants = itertools.count()


@settings(max_examples=20, deadline=None)
@given(st.lists(event, min_size=2, max_size=7))
def test_whatever_comes_late_closed_days_stay_and_nothing_is_lost(shared_facts, a_call, as_batch, as_frame, events):
    number = next(_tenants)
    book, twin = (Book(shared_facts, f"{name}{number}", as_batch, as_frame) for name in ("closing", "open"))
    with shared_facts.control.begin() as connection:
        connection.execute(tenants.insert(), [{"id": one.tenant, "name": one.tenant} for one in (book, twin)])
    hours = [MONDAY + day * DAY + hour * HOUR for day in range(4) for hour in range(2)]  # and one without a rate
    for hour in hours:
        for name in ("rack", "shelf"):
            book.an_hour(hour, name)
            twin.an_hour(hour, name)
    closed, carried = {}, {}
    for at, (what, told) in enumerate(events):
        now = NOW + at * HOUR
        if what == "close" and MONDAY + told * DAY not in closed:
            day = MONDAY + told * DAY
            book.close(day)
            closed[day] = book.amounts(day)
            carried[day] = own_cost(book, day)
        elif what == "store":
            rows = [a_call(started_at=MONDAY + day * DAY + hour * HOUR, **words) for words, day, hour in told]
            book.store(*rows, now=now)
            twin.store(*rows, now=now)
        elif what == "revise":
            for one in (book, twin):
                rows = one.rows().sort("span_id").head(len(told))
                changed = [pl.Series(name, [words[name] for words in told][: rows.height], rows.schema[name])
                           for name in told[0]]  # fmt: skip
                one.revise(rows.with_columns(changed), now=now)
    for day, before in closed.items():
        assert book.amounts(day) == before
    for basis in ("list", "billed", "usage", "marginal"):
        assert book.total(basis) == twin.total(basis)
    taken_off_idle = sum(own_cost(twin, day) - carried[day] for day in closed)
    assert book.total("effective") == twin.total("effective") - taken_off_idle


def own_cost(book, day):
    bounds = {"start": day, "end": day + DAY}
    return book.total("usage", **bounds) - book.total("billed", **bounds)
