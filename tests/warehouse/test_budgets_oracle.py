"""Budget arithmetic against an oracle that adds up single calls by the calendars on walls, and knows nothing else.

It finds days by looking at clocks every quarter of an hour, and which version of a budget counts by reading them all.
The product has a rollup, cuts, answers that are remembered and carried sums; both must tell the same, to the last
digit, however calls come late, cost otherwise later, and budgets are set anew.
"""

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import amending, budgets, ledger, record, rollups
from millicent.warehouse.budget_trials import Threshold, simulate
from millicent.warehouse.budgets import Budget, put
from millicent.warehouse.control import tenants
from millicent.warehouse.exchange import Rate
from millicent.warehouse.query import Filter
from millicent.warehouse.standings import Standing, spent_by_period, standings
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import PRICE
from millicent.warehouse.tables import calls as stored

FIRST, LAST = datetime(2024, 12, 25, tzinfo=UTC), datetime(2027, 5, 20, tzinfo=UTC)
QUARTER, HOUR, DAY, INSTANT = timedelta(minutes=15), timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)
ZONES = {
    "Europe/Berlin": datetime(2026, 3, 29, 1, tzinfo=UTC),
    "America/New_York": datetime(2026, 3, 8, 7, tzinfo=UTC),
    "Asia/Kolkata": datetime(2026, 2, 28, 18, 30, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2026, 3, 31, 18, 15, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 15, tzinfo=UTC),
    "Pacific/Chatham": datetime(2026, 4, 4, 14, 45, tzinfo=UTC),
    "Asia/Beirut": datetime(2026, 3, 28, 22, tzinfo=UTC),
    "Africa/Casablanca": datetime(2026, 2, 15, 2, tzinfo=UTC),
    "UTC": datetime(2026, 3, 1, tzinfo=UTC),
}
"""Zones, each with an instant near which a day is none of 24 hours, or begins a month, or no hour."""
RATES = (
    Rate("EUR", FIRST - 400 * DAY, Decimal("1.0834"), "ECB"),
    Rate("EUR", datetime(2026, 3, 1, 3, 20, tzinfo=UTC), Decimal("1.17"), "ECB"),
)
PRICES = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).select(PRICE).schema
PERIODS = ("day", "week", "month", "quarter", "fiscal_year", "rolling")
_tenants = (f"budgeted-{n}" for n in itertools.count())
_spans = itertools.count(1_000_000)


class Call(NamedTuple):
    """What the oracle knows of a call; `usd` is None where it is unpriced."""

    at: datetime
    team: str | None
    feature: str | None
    usd: Decimal | None
    unread: bool


# ---- the oracle


@cache
def days(name: str) -> dict[date, datetime]:
    """When each day of a zone begins, seen by looking at a clock every quarter of an hour."""
    zone, at, found = ZoneInfo(name), FIRST, {}
    while at < LAST:
        found.setdefault(at.astimezone(zone).date(), at)
        at += QUARTER
    return found


def key(budget: Budget, day: date) -> object:
    """What days of one period have in common."""
    months = day.year * 12 + day.month - 1
    since = months - (budget.fiscal_month - 1)
    return {
        "day": day, "week": day - timedelta(days=day.weekday()), "month": months, "quarter": since // 3,
        "fiscal_year": since // 12,
    }[budget.period]  # fmt: skip


def day_at(budget: Budget, at: datetime) -> date:
    return at.astimezone(ZoneInfo(budget.time_zone)).date()


def is_in(budget: Budget, one: datetime, other: datetime) -> bool:
    """Whether an instant is in the period that ends with, or goes on at, another."""
    day, last = day_at(budget, one), day_at(budget, other)
    if budget.rolling_days:
        return timedelta(0) <= last - day < budget.rolling_days * DAY
    return key(budget, day) == key(budget, last)


def is_kept(budget: Budget, call: Call, *, but: str | None = None) -> bool:
    told = {"team": call.team, "feature": call.feature}
    return all((told[one.dimension] in one.values) != one.negated for one in budget.filters if one.dimension != but)


def worth(budget: Budget, call: Call) -> Fraction:
    usd = Fraction(call.usd or 0)
    rate = [one for one in RATES if one.since <= call.at][-1]
    return usd / Fraction(rate.usd_per_unit) if budget.currency == "EUR" else usd


def spent(budget: Budget, calls: list[Call], at: datetime, until: datetime) -> tuple[Fraction, tuple[int, int, int]]:
    """What the period that an instant is in came to, and how many calls are not in that."""
    inside = [one for one in calls if one.at < until and is_in(budget, one.at, at)]
    mine = [one for one in inside if is_kept(budget, one)]
    of_teams = any(one.dimension == "team" for one in budget.filters)
    takes_unknown = any(one.dimension == "team" and None in one.values for one in budget.filters)
    nobodys = [one for one in inside if one.team is None and is_kept(budget, one, but="team")]
    unknown = (
        sum(one.usd is None for one in mine), sum(one.unread for one in mine),
        len(nobodys) if of_teams and not takes_unknown else 0,
    )  # fmt: skip
    return sum((worth(budget, one) for one in mine), Fraction(0)), unknown


def holding(versions: list[Budget], at: datetime) -> Budget | None:
    """The version that holds at an instant: of those from before it the one that was set last, if it is no end."""
    before = [one for one in versions if one.effective_from <= at]
    return None if not before or before[-1].ended else before[-1]


@cache
def grid(zone: str, period: str, fiscal_month: int) -> dict[object, tuple[datetime, datetime]]:
    """When the periods of a zone begin and end, by what their days have in common."""
    known = Budget(name="B", amount=Decimal(1), effective_from=FIRST, period=period, fiscal_month=fiscal_month)
    found: dict[object, list[datetime]] = {}
    for day, begin in days(zone).items():
        found.setdefault(key(known, day), []).append(begin)
    starts = [min(begins) for begins in found.values()]
    return {name: (start, end) for name, start, end in zip(found, starts, [*starts[1:], LAST], strict=True)}


def bounds(budget: Budget, at: datetime) -> tuple[datetime, datetime]:
    """When the period of an instant begins and ends; of a rolling one its last day."""
    day = day_at(budget, at)
    if budget.rolling_days:
        return grid(budget.time_zone, "day", 1)[day]
    return grid(budget.time_zone, budget.period, budget.fiscal_month)[key(budget, day)]


def carried(versions: list[Budget], budget: Budget, at: datetime, calls: list[Call]) -> Fraction:
    """What is left to the period of an instant."""
    if budget.rollover == "none":
        return Fraction(0)
    start, _ = bounds(budget, at)
    before = holding(versions, start - INSTANT)
    if before is None or before.rollover == "none":
        return Fraction(0)
    for name in ("period", "currency", "time_zone"):
        if getattr(before, name) != getattr(budget, name):
            return Fraction(0)
    if budget.period in {"quarter", "fiscal_year"} and before.fiscal_month != budget.fiscal_month:
        return Fraction(0)
    left = Fraction(before.amount) + carried(versions, before, start - INSTANT, calls)
    left -= spent(before, calls, start - INSTANT, LAST)[0]
    return max(left, Fraction(0)) if budget.rollover == "unspent" else left


def limit(versions: list[Budget], budget: Budget, at: datetime, calls: list[Call]) -> Fraction:
    return max(Fraction(budget.amount) + carried(versions, budget, at, calls), Fraction(0))


# ---- what is drawn

usd = st.one_of(st.none(), st.decimals("0", "40", places=6))
quarters = st.integers(-60 * 96, 45 * 96).map(lambda n: n * QUARTER) | st.integers(-60 * 4, 60 * 4).map(
    lambda n: n * QUARTER
)
some = st.lists(
    st.tuples(
        quarters, st.timedeltas(timedelta(0), QUARTER - INSTANT), st.sampled_from(("a", "b", None)),
        st.sampled_from(("x", None)), usd, st.booleans(),
    ),
    min_size=4,
    max_size=25,
)  # fmt: skip
amounts = st.decimals("0.01", "9", places=2) | st.decimals("1", "300", places=2)
scopes = st.sampled_from((
    (), (Filter("team", ("a",)),), (Filter("team", ("a",), negated=True),), (Filter("team", ("a", None)),),
    (Filter("feature", ("x",)),), (Filter("team", ("a", "b")), Filter("feature", ("x",), negated=True)),
))  # fmt: skip


@st.composite
def budgets_told(draw, zone: str):
    """A budget, or a next version of it, as somebody may set it."""
    period = draw(st.sampled_from(PERIODS))
    rolling = period == "rolling"
    return {
        "amount": draw(amounts), "filters": draw(scopes), "period": period,
        "rolling_days": draw(st.sampled_from((1, 2, 7, 30))) if rolling else None,
        "rollover": "none" if rolling else draw(st.sampled_from(("none", "unspent", "balance", "balance"))),
        "fiscal_month": draw(st.sampled_from((1, 2, 4))),
        "time_zone": draw(st.sampled_from((zone, zone, zone, "UTC"))),
        "currency": draw(st.sampled_from(("USD", "USD", "EUR"))),
    }  # fmt: skip


@st.composite
def stories(draw):
    """A zone; calls, early and late; what some cost later; versions of a budget; when it ends; instants to look at."""
    zone = draw(st.sampled_from(sorted(ZONES)))
    since = ZONES[zone]
    first = draw(budgets_told(zone))
    later = draw(st.lists(budgets_told(zone) | st.fixed_dictionaries({"amount": st.just(Decimal(77))}), max_size=3))
    versions = [(first, since + draw(st.integers(-80, -1)) * DAY)]
    for told in later:
        first = {**first, **told}
        versions.append((first, since + draw(quarters)))
    ended = draw(st.none() | quarters)
    ats = draw(st.lists(quarters, min_size=1, max_size=2))
    return zone, draw(some), draw(some), draw(st.lists(usd, max_size=6)), versions, ended, ats


# ---- both


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    opened = Warehouse.embedded(tmp_path_factory.mktemp("oracle"), memory_limit="256MB")
    yield opened
    opened.close()


class Books:
    """A tenant's calls, as they are stored and as the oracle knows them."""

    batches = itertools.count(1)

    def __init__(self, warehouse, tenant, a_call, as_batch, as_frame):
        self.warehouse, self.tenant = warehouse, tenant
        self.a_call, self.as_batch, self.as_frame = a_call, as_batch, as_frame
        self.rows: list[tuple[dict, Call]] = []
        with warehouse.control._engine.begin() as connection:
            connection.execute(tenants.insert(), [{"id": tenant, "name": tenant}])

    @property
    def calls(self) -> list[Call]:
        return [call for _, call in self.rows]

    def row(self, call: Call, span: int) -> dict:
        return self.a_call(
            tenant=self.tenant, span_id=span, trace_id=span.to_bytes(16), started_at=call.at, team=call.team,
            feature=call.feature, billed_cost_usd=call.usd, list_cost_usd=call.usd,
            price_status="unpriced" if call.usd is None else "priced",
            usage_source="missing" if call.unread else "reported",
        )  # fmt: skip

    def store(self, told, since) -> None:
        new = [
            Call(since + after + more, team, feature, cost, unread)
            for after, more, team, feature, cost, unread in told
            if FIRST + DAY < since + after < LAST - DAY
        ]
        rows = [(self.row(call, next(_spans)), call) for call in new]
        if rows:
            self.rows += rows
            batch = self.as_batch([row for row, _ in rows])
            ledger.commit(self.warehouse.engine, batch, "otlp", (0, next(self.batches)))

    def reprice(self, costs) -> None:
        """Have calls cost otherwise, as a re-pricing does it: price columns in place, and their hours counted anew."""
        changed = {}
        for at, cost in enumerate(costs[: len(self.rows)]):
            row, call = self.rows[at]
            self.rows[at] = self.row(call._replace(usd=cost), row["span_id"]), call._replace(usd=cost)
            changed[row["span_id"]] = tuple(self.rows[at][0][name] for name in PRICE)
        if not changed:
            return
        mine = [stored.c.tenant == self.tenant, stored.c.span_id.in_(list(changed))]
        with self.warehouse.engine.write() as transaction:
            asked = select(amending.PLACE.label("place"), *(stored.c[name] for name in ("span_id", *PRICE)))
            now = pl.DataFrame(pl.from_arrow(transaction.read(asked.where(*mine))))
            told = pl.DataFrame([changed[span] for span in now["span_id"]], schema=PRICES, orient="row")
            former = now.select(pl.col(PRICE).name.suffix(amending.NOW))
            amending.amend(transaction, 1, pl.concat([now.select("place"), told, former], how="horizontal"))
            rollups.recount(transaction, self.tenant, FIRST, LAST)

    def correct(self, costs) -> None:
        """Have the last calls cost otherwise, as re-reading them does it: replaced as a whole."""
        changed = []
        for at, cost in zip(range(len(self.rows) - 1, -1, -1), costs, strict=False):
            row, call = self.rows[at]
            self.rows[at] = self.row(call._replace(usd=cost), row["span_id"]), call._replace(usd=cost)
            changed.append(self.rows[at][0])
        if changed:
            ledger.revise(self.warehouse.engine, self.as_frame(changed))

    def ask(self, query):
        rates = RATES if query.currency == "EUR" else ()
        return self.warehouse.ask(self.tenant, replace(query, rates=rates)).frame


def same(found, told: Fraction) -> bool:
    """Amounts in a currency are rounded at 24 decimals, call by call or in sums of them; those of periods at 19."""
    return abs(Fraction(found) - told) <= Fraction(2, 10**19)


def check_standings(books, versions, at):
    held = holding(versions, at)
    if held is None:
        return
    (found,) = standings(books.ask, [held], at, versions)
    assert isinstance(found, Standing)
    hour_ends = at.replace(minute=0, second=0, microsecond=0) + (HOUR if at.minute else timedelta(0))
    actual, unknown = spent(held, books.calls, at, hour_ends)
    assert same(found.actual, actual)
    assert same(found.carried, carried(versions, held, at, books.calls))
    assert same(found.limit, limit(versions, held, at, books.calls))
    assert [int(words.split()[0].replace(",", "")) for words in found.incomplete] == [n for n in unknown if n]
    if found.limit:
        assert (found.state == "over") == (found.actual >= found.limit)


def check_periods(books, versions, start, end):
    expected = []
    for budget in versions:
        at = start
        while at < end and not budget.ended:
            begin, over = bounds(budget, at)
            if holding(versions, min(over, end) - INSTANT) is budget:
                expected.append((min(over, end), budget, begin))
            at = over
    expected.sort(key=lambda one: one[0])
    found = spent_by_period(books.ask, versions, start, end)
    assert found["version"].to_list() == [budget.version for _, budget, _ in expected]
    for row, (_, budget, begin) in zip(found.iter_rows(named=True), expected, strict=True):
        actual, unknown = spent(budget, books.calls, begin, LAST)
        if budget.rolling_days:
            first = days(budget.time_zone)[day_at(budget, begin) - (budget.rolling_days - 1) * DAY]
        else:
            first = begin
        assert (row["period_start"], row["period_end"]) == (first, bounds(budget, begin)[1])
        assert same(row["actual"], actual)
        assert same(row["carried"], carried_of(versions, budget, begin, books))
        assert (row["unpriced_calls"], row["missing_usage_calls"], row["unattributed_calls"]) == unknown


def check_trial(books, budget, since, until):
    """Each period of a trial came to what its calls add up to, and half of its limit on the day that it did."""
    found = simulate(books.ask, budget, (Threshold("actual", Decimal("0.5")),), since, until).periods
    left = Fraction(0)
    for one in found:
        at = min(one.period.end, until) - INSTANT
        actual, _ = spent(budget, books.calls, at, until)
        assert same(one.actual, actual)
        if budget.rolling_days:
            continue
        assert same(one.carried, left)
        rest = Fraction(budget.amount) + left - actual
        left = {"none": Fraction(0), "unspent": max(rest, Fraction(0)), "balance": rest}[budget.rollover]
        begins, end = days(budget.time_zone), min(one.period.end, until)
        reached = [
            day
            for day in sorted(begins)
            if one.period.start <= begins[day] < end
            and spent(budget, books.calls, one.period.start, min(begins[day + DAY], end))[0] * 2 >= one.limit
        ]
        assert [fired.day for fired in one.fired] == reached[:1]


def carried_of(versions, budget, at, books):
    return Fraction(0) if budget.rolling_days else carried(versions, budget, at, books.calls)


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])  # to shrink a story takes minutes
@given(told=stories())
def test_budgets_stand_as_single_calls_add_up(warehouse, a_call, as_batch, as_frame, told):
    zone, first, late, costs, versions, ended, ats = told
    since, tenant = ZONES[zone], next(_tenants)
    books = Books(warehouse, tenant, a_call, as_batch, as_frame)
    instants = [since + at for at in ats]

    def check():
        history = budgets.history(warehouse.control, tenant, 1)
        for at in instants:
            check_standings(books, history, at)
        check_periods(books, history, since - 21 * DAY, since + 14 * DAY)

    books.store(first, since)
    budget = None
    for terms, effective_from in versions:
        wanted = Budget(name="B", effective_from=effective_from, id=budget and budget.id, **terms)
        budget = put(warehouse.control, tenant, wanted, "ann")
    check()
    whole_hour = max(instants).replace(minute=0)
    check_trial(books, holding(budgets.history(warehouse.control, tenant, 1), LAST), since - 70 * DAY, whole_hour)
    if late:
        books.store(late, since)
        check()
    if costs:
        books.reprice(costs)
        check()
        books.correct(costs[::-1])
        check()
    if ended is not None:
        budgets.end(warehouse.control, tenant, 1, "ann", since + ended)
        check()
