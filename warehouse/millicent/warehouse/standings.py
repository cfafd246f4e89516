"""How budgets stand: what was spent of them, what their period will have come to, and when they run out.

Budgets that look at the same spend, by team or as a whole, are answered by one question. A limit that is reached is
over, as its alert and its guard say.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from millicent.warehouse import budgets, outlook, past_periods
from millicent.warehouse.budgets import Budget
from millicent.warehouse.instants import day_of, hour_after, midnight
from millicent.warehouse.narrowing import kept_rows
from millicent.warehouse.outlook import Daily, Forecast
from millicent.warehouse.past_periods import BY, is_apart
from millicent.warehouse.query import TOO_MANY, BadQuery, Period, Query
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from millicent.warehouse.store import Warehouse

    Ask = Callable[[Query], pl.DataFrame]
    """Answers a query of one tenant with its frame."""

HISTORY: Final = timedelta(days=84)
"""How far before its period a forecast looks."""
MEASURES: Final = (
    "spend_usd", "charges_usd", "calls", "unpriced_calls", "missing_usage_calls", "unattributed_calls",
)  # fmt: skip
UNKNOWN: Final = past_periods.UNKNOWN
"""Calls that are not in what was spent."""
State = Literal["over", "will_be_over", "may_be_over", "kept", "unknown"]
"""Reached already; by the forecast (P50); in the worst of ten cases (P90); none of it; no forecast yet."""
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands at an instant.

    Attributes:
        budget: the version that holds then.
        period: the one that the instant is in.
        limit: what the period may come to, in the budget's currency, as all amounts here; not below 0.
        carried: what earlier periods left to this one, in the limit already; below 0 what they took from it.
        actual: what it has come to; unknown calls are not in it.
        forecast: what it will have come to; None while too few days are known.
        elapsed_ratio: share of the period's time that has passed.
        run_out_date: the first day on which the limit has been spent, or will have been by the forecast; None where it
            lasts for the period. Of a rolling period the first day, today or later, whose days reach it.
        incomplete: what is missing from the actual, in words; empty where nothing is.
        spent: what had been spent by the end of each day of the period so far.
        failure: None; an `Untold` has one.
    """

    budget: Budget
    period: Period
    limit: Decimal
    carried: Decimal
    actual: Decimal
    forecast: Forecast | None
    elapsed_ratio: Decimal
    run_out_date: date | None
    incomplete: tuple[str, ...]
    spent: tuple[tuple[date, Decimal], ...]
    failure: None = None

    @property
    def ratio(self) -> Decimal | None:
        """What was spent of the limit, as a share; None where earlier periods left nothing of it."""
        return self.actual / self.limit if self.limit else None

    @property
    def expected_ratio(self) -> Decimal | None:
        """What will have been spent of the limit, as a share; None as `ratio`, or while nothing is forecast."""
        return self.forecast.p50_usd / self.limit if self.forecast and self.limit else None

    @property
    def state(self) -> State:
        """Whether it is kept."""
        if self.actual >= self.limit:
            return "over"
        if self.forecast is None:
            return "unknown"
        if self.forecast.p50_usd >= self.limit:
            return "will_be_over"
        high = self.forecast.p90_usd
        return "may_be_over" if high is not None and high >= self.limit else "kept"


@dataclass(frozen=True, slots=True)
class Untold:
    """A budget of which nothing can be told at an instant.

    Attributes:
        budget: the version that holds then.
        period: the one that the instant is in.
        failure: why, naming the value, the rule and the remedy: as a rule, its currency has no rate.
    """

    budget: Budget
    period: Period
    failure: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What part of the spend costs by day, and what a period of it will have come to.

    Attributes:
        period: in whole days of a time zone.
        days: what each day cost, without charges; the last is not over.
        charged: what belongs to no call, by day.
        forecast: None while too few days are known.
        missing: what is not in it, in words.
    """

    period: Period
    days: tuple[Daily, ...]
    charged: dict[date, Decimal]
    forecast: Forecast | None
    missing: tuple[str, ...]


def standing(warehouse: Warehouse, tenant: str, budget: Budget, at: datetime) -> Standing | Untold:
    """How one budget stands; see `standings`."""
    versions = budgets.history(warehouse.control, tenant, budget.id) if budget.id is not None else ()
    return standings(lambda query: warehouse.ask(tenant, query).frame, [budget], at, versions)[0]


def live_standings(warehouse: Warehouse, tenant: str, at: datetime) -> list[Standing | Untold]:
    """How all budgets of a tenant stand that hold at an instant, in the order of `budgets.live`."""
    wanted, versions = budgets.live_with_versions(warehouse.control, tenant, at)
    return standings(lambda query: warehouse.ask(tenant, query).frame, wanted, at, versions)


def standings(
    ask: Ask, wanted: Sequence[Budget], at: datetime, versions: Sequence[Budget] = ()
) -> list[Standing | Untold]:
    """How budgets stand at an instant, in their order; one that cannot be told of does not keep others from it.

    Args:
        ask: answers a query of one tenant.
        wanted: the versions that hold at `at`.
        at: an instant.
        versions: every version of them, in the order they were set, for what earlier periods carried over; where there
            are none of a budget, itself alone.
    """
    asked, of = _once(ask), defaultdict[int | None, list[Budget]](list)
    for one in versions:
        of[one.id].append(one)
    return [_stood(asked, one, of[one.id] or [one], at) for one in wanted]


def spent_by_period(ask: Ask, versions: Sequence[Budget], start: datetime, end: datetime) -> pl.DataFrame:
    """What every period of a budget that overlaps `[start, end)` came to, in order, each as a whole.

    A period goes by the version that held when it ended, or just before `end` if it is not over by then: its scope,
    zone, currency, basis and amount. One that was cut short, by a version of other periods or because the budget
    ended, is none. Of rolling ones there is one for each day of `[start, end)`, that ends with it.

    Args:
        ask: answers a query of one tenant.
        versions: every version of one budget, in the order they were set; see `budgets.history`.
        start: an instant.
        end: an instant after it.

    Returns:
        `version`, `period_start`, `period_end` (UTC), `limit` and `carried` as of `Standing`, `actual` in the version's
        currency, and `unpriced_calls`, `missing_usage_calls`, `unattributed_calls`, none of which are in it;
        the last is 0 for a budget of no team, or of unknown ones.

    Raises:
        BadQuery: a currency has no rate for a day that counts.
    """
    return past_periods.spent(ask, versions, start, end)


def history_query(budget: Budget, at: datetime) -> Query:
    """What is asked for a budget: the days of its period up to `at`, and those before it, by team.

    What it keeps of teams is left to `looked_at`, so that budgets of different teams ask the same.
    """
    period, place = budget.period_at(at), zone(budget.time_zone)
    first = midnight((period.start - HISTORY).astimezone(place).date(), place)
    return Query(
        measures=MEASURES,
        dimensions=(BY,),
        filters=tuple(one for one in budget.filters if one.dimension != BY),
        period=Period(first, min(hour_after(at), period.end)),
        grain="day",
        basis=budget.basis,
        currency=budget.currency,
        time_zone=budget.time_zone,
    )


def looked_at(frame: pl.DataFrame, budget: Budget, at: datetime) -> Outlook:
    """What the period of a budget will have come to, from an answer to `history_query`."""
    teams = [one for one in budget.filters if one.dimension == BY]
    kept = frame.filter(kept_rows(one) for one in teams) if teams else frame
    return _outlook(kept, frame if is_apart(teams) else None, budget, at)


def _looked_at_apart(ask: Ask, budget: Budget, at: datetime) -> Outlook:
    """As `looked_at`, asked for this budget alone: there are more teams than one answer has rows for."""
    by_team = history_query(budget, at)
    question = replace(by_team, dimensions=(), filters=budget.filters)
    everybody = ask(replace(by_team, dimensions=(), measures=(UNKNOWN[-1],))) if is_apart(budget.filters) else None
    return _outlook(ask(question), everybody, budget, at)


def _outlook(kept: pl.DataFrame, everybody: pl.DataFrame | None, budget: Budget, at: datetime) -> Outlook:
    """From the rows that a budget keeps; `everybody` has those of no team that may belong to it."""
    period, place = budget.period_at(at), zone(budget.time_zone)
    start, end = (instant.astimezone(place).date() for instant in (period.start, period.end))
    by_day = kept.group_by("time").agg(
        pl.col("spend_usd").sum(), pl.col("charges_usd").sum(), known=pl.col("spend_usd").count() > 0
    )
    days, charged = list[Daily](), dict[date, Decimal]()
    for row in by_day.sort("time").iter_rows(named=True):
        day = row["time"].astimezone(place).date()
        charges = row["charges_usd"] or _NOTHING
        days.append(Daily(day, (row["spend_usd"] or _NOTHING) - charges if row["known"] else None))
        if charges:
            charged[day] = charges
    today = min(day_of(at, place), end)
    booked = sum((amount for day, amount in charged.items() if start <= day < end), _NOTHING)
    expected = outlook.forecast(days, start, end, today, booked)
    inside = pl.col("time") >= period.start
    missing = _missing(kept.filter(inside), None if everybody is None else everybody.filter(inside))
    return Outlook(period, tuple(days), charged, expected, missing)


def _stood(ask: Ask, budget: Budget, versions: Sequence[Budget], at: datetime) -> Standing | Untold:
    period = budget.period_at(at)
    try:
        return _standing(budget, _looked(ask, budget, at), past_periods.carried(ask, budget, versions, period), at)
    except BadQuery as error:
        return Untold(budget, period, str(error))


def _looked(ask: Ask, budget: Budget, at: datetime) -> Outlook:
    try:
        return looked_at(ask(history_query(budget, at)), budget, at)
    except BadQuery as error:
        if str(error) != TOO_MANY:
            raise
    return _looked_at_apart(ask, budget, at)


def _standing(budget: Budget, found: Outlook, carried: Decimal, at: datetime) -> Standing:
    place, period = zone(budget.time_zone), found.period
    limit = max(budget.amount + carried, _NOTHING)
    start, end = (instant.astimezone(place).date() for instant in (period.start, period.end))
    cost = {one.day: one.spend_usd or _NOTHING for one in found.days}
    through = min(day_of(at, place), end - timedelta(days=1))
    spent, total = list[tuple[date, Decimal]](), _NOTHING
    for n in range((through - start).days + 1):
        day = start + timedelta(days=n)
        total += cost.get(day, _NOTHING) + found.charged.get(day, _NOTHING)
        spent.append((day, total))
    return Standing(
        budget=budget,
        period=period,
        limit=limit,
        carried=carried,
        actual=total,
        forecast=found.forecast,
        elapsed_ratio=_elapsed(period, at),
        run_out_date=_rolls_out(budget, limit, found, through)
        if budget.rolling_days
        else _runs_out(limit, spent, found.forecast),
        incomplete=found.missing,
        spent=tuple(spent),
    )


def _runs_out(limit: Decimal, spent: Sequence[tuple[date, Decimal]], ahead: Forecast | None) -> date | None:
    past = next((day for day, total in spent if total >= limit), None)
    if past or ahead is None or not ahead.days or not spent:
        return past
    total = ahead.p50_usd - sum((day.p50_usd for day in ahead.days), _NOTHING)  # before today
    for day in ahead.days:
        total += day.p50_usd
        if total >= limit:
            return day.day
    return None


def _rolls_out(budget: Budget, limit: Decimal, found: Outlook, today: date) -> date | None:
    """The first day, today or of the next so many, whose rolling period reaches the limit."""
    days = budget.rolling_days or 1
    cost = defaultdict[date, Decimal](Decimal, found.charged)
    for one in found.days:
        cost[one.day] += one.spend_usd or _NOTHING
    window = sum((cost[today - timedelta(days=n)] for n in range(days)), _NOTHING)
    if window >= limit:
        return today
    ahead = outlook.forecast(found.days, today, today + timedelta(days=days), today)
    for day in ahead.days if ahead else ():
        window += day.p50_usd - cost[today] if day.day == today else day.p50_usd - cost[day.day - timedelta(days=days)]
        if window >= limit:
            return day.day
    return None


def _elapsed(period: Period, at: datetime) -> Decimal:
    passed, whole = (at - period.start).total_seconds(), (period.end - period.start).total_seconds()
    return Decimal(round(min(max(passed / whole, 0), 1), 4)).quantize(Decimal("0.0001"))


def _missing(kept: pl.DataFrame, everybody: pl.DataFrame | None) -> tuple[str, ...]:
    """What spend is not known, in words."""
    unpriced, unread = (int(kept[name].sum() or 0) for name in ("unpriced_calls", "missing_usage_calls"))
    nobodys = 0 if everybody is None else int(everybody["unattributed_calls"].sum() or 0)
    return words_of(unpriced, unread, nobodys)


def words_of(unpriced: int, unread: int, nobodys: int) -> tuple[str, ...]:
    """What calls are not in an amount, in words; see `UNKNOWN`."""
    told = ((unpriced, "unpriced"), (unread, "without token counts"), (nobodys, "of no team"))
    return tuple(f"{count:,} {'call is' if count == 1 else 'calls are'} {words}" for count, words in told if count)


def _once(ask: Ask) -> Ask:
    """Answers every question once."""
    known = dict[Query, pl.DataFrame | BadQuery]()

    def asked(query: Query) -> pl.DataFrame:
        if query not in known:
            try:
                known[query] = ask(query)
            except BadQuery as error:
                known[query] = error
        found = known[query]
        if isinstance(found, BadQuery):
            raise found
        return found

    return asked
