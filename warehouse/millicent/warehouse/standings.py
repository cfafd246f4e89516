"""How budgets stand: what was spent of them, what their period will have come to, and when they run out.

Budgets that look at the same spend, by team or as a whole, are answered by one question.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

import polars as pl

from millicent.warehouse import budgets, outlook
from millicent.warehouse.instants import midnight
from millicent.warehouse.outlook import Daily, Forecast
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.store import Warehouse

    Ask = Callable[[Query], pl.DataFrame]
    """Answers a query of one tenant with its frame."""

HISTORY: Final = timedelta(days=84)
"""How far before its period a forecast looks."""
MEASURES: Final = (
    "spend_usd", "charges_usd", "calls", "unpriced_calls", "missing_usage_calls", "unattributed_calls",
)  # fmt: skip
BY: Final = "team"
"""The dimension by which spend is asked, so that one answer serves the budgets of all its values."""
State = Literal["over", "will_be_over", "may_be_over", "kept", "unknown"]
"""Over already; over by the forecast (P50); over in the worst of ten cases (P90); none of it; no forecast yet."""
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a budget stands at an instant.

    Attributes:
        budget: the version that holds then.
        period: the one that the instant is in.
        limit: what the period may come to, in the budget's currency, as all amounts here.
        actual: what it has come to; unknown calls are not in it.
        forecast: what it will have come to; None while too few days are known.
        elapsed_ratio: share of the period's time that has passed.
        run_out_date: the first day on which more than the limit has been spent, or will have been by the forecast; None
            where the limit lasts for the period.
        incomplete: what is missing from the actual, in words; empty where nothing is.
        spent: what had been spent by the end of each day of the period so far.
    """

    budget: Budget
    period: Period
    limit: Decimal
    actual: Decimal
    forecast: Forecast | None
    elapsed_ratio: Decimal
    run_out_date: date | None
    incomplete: tuple[str, ...]
    spent: tuple[tuple[date, Decimal], ...]

    @property
    def ratio(self) -> Decimal:
        """What was spent of the limit, as a share."""
        return self.actual / self.limit

    @property
    def expected_ratio(self) -> Decimal | None:
        """What will have been spent of the limit, as a share."""
        return self.forecast.p50_usd / self.limit if self.forecast else None

    @property
    def state(self) -> State:
        """Whether it is kept."""
        if self.actual > self.limit:
            return "over"
        if self.forecast is None:
            return "unknown"
        if self.forecast.p50_usd > self.limit:
            return "will_be_over"
        high = self.forecast.p90_usd
        return "may_be_over" if high is not None and high > self.limit else "kept"


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


def standing(warehouse: Warehouse, tenant: str, budget: Budget, at: datetime) -> Standing:
    """How one budget stands; see `standings`."""
    return standings(lambda query: warehouse.ask(tenant, query).frame, [budget], at)[0]


def live_standings(warehouse: Warehouse, tenant: str, at: datetime) -> list[Standing]:
    """How all budgets of a tenant stand that hold at an instant, in the order of `budgets.live`."""
    return standings(lambda query: warehouse.ask(tenant, query).frame, budgets.live(warehouse.control, tenant, at), at)


def standings(ask: Ask, wanted: Sequence[Budget], at: datetime) -> list[Standing]:
    """How budgets stand at an instant, in their order.

    Raises:
        BadQuery: the currency of one has no rate for a day that it looks at.
    """
    questions = {one: history_query(one, at) for one in wanted}
    frames = {query: ask(query) for query in dict.fromkeys(questions.values())}
    return [_standing(one, frames[query], at) for one, query in questions.items()]


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
        period=Period(first, min(_hour_after(at), period.end)),
        grain="day",
        basis=budget.basis,
        currency=budget.currency,
        time_zone=budget.time_zone,
    )


def looked_at(frame: pl.DataFrame, budget: Budget, at: datetime) -> Outlook:
    """What the period of a budget will have come to, from an answer to `history_query`."""
    period, place = budget.period_at(at), zone(budget.time_zone)
    teams = [one for one in budget.filters if one.dimension == BY]
    kept = frame.filter(_kept(one) for one in teams) if teams else frame
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
    today = min(at.astimezone(place).date(), end)
    booked = sum((amount for day, amount in charged.items() if start <= day < end), _NOTHING)
    expected = outlook.forecast(days, start, end, today, booked)
    inside = pl.col("time") >= period.start
    return Outlook(period, tuple(days), charged, expected, _missing(frame.filter(inside), kept.filter(inside), teams))


def _standing(budget: Budget, frame: pl.DataFrame, at: datetime) -> Standing:
    found, place = looked_at(frame, budget, at), zone(budget.time_zone)
    period = found.period
    start, end = (instant.astimezone(place).date() for instant in (period.start, period.end))
    cost = {one.day: one.spend_usd or _NOTHING for one in found.days}
    through = min(at.astimezone(place).date(), end - timedelta(days=1))
    spent, total = list[tuple[date, Decimal]](), _NOTHING
    for n in range((through - start).days + 1):
        day = start + timedelta(days=n)
        total += cost.get(day, _NOTHING) + found.charged.get(day, _NOTHING)
        spent.append((day, total))
    return Standing(
        budget=budget,
        period=period,
        limit=budget.amount,
        actual=total,
        forecast=found.forecast,
        elapsed_ratio=_elapsed(period, at),
        run_out_date=_runs_out(budget.amount, spent, found.forecast),
        incomplete=found.missing,
        spent=tuple(spent),
    )


def _runs_out(limit: Decimal, spent: Sequence[tuple[date, Decimal]], ahead: Forecast | None) -> date | None:
    past = next((day for day, total in spent if total > limit), None)
    if past or ahead is None or not ahead.days or not spent:
        return past
    total = ahead.p50_usd - sum((day.p50_usd for day in ahead.days), _NOTHING)  # before today
    for day in ahead.days:
        total += day.p50_usd
        if total > limit:
            return day.day
    return None


def _elapsed(period: Period, at: datetime) -> Decimal:
    passed, whole = (at - period.start).total_seconds(), (period.end - period.start).total_seconds()
    return Decimal(round(min(max(passed / whole, 0), 1), 4)).quantize(Decimal("0.0001"))


def _kept(wanted: Filter) -> pl.Expr:
    """The rows that a filter keeps, as the warehouse would."""
    column = pl.col(wanted.dimension)
    named = column.is_in([value for value in wanted.values if value is not None]).fill_null(value=False)
    if None in wanted.values:
        named |= column.is_null()
    return ~named if wanted.negated else named


def _missing(everybody: pl.DataFrame, kept: pl.DataFrame, teams: Sequence[Filter]) -> tuple[str, ...]:
    """What spend is not known, in words."""
    unpriced, unread = (int(kept[name].sum() or 0) for name in ("unpriced_calls", "missing_usage_calls"))
    apart = bool(teams) and not any(None in one.values for one in teams)
    nobodys = int(everybody["unattributed_calls"].sum() or 0) if apart else 0
    told = ((unpriced, "unpriced"), (unread, "without token counts"), (nobodys, "of no team"))
    return tuple(f"{count:,} {'call is' if count == 1 else 'calls are'} {words}" for count, words in told if count)


def _hour_after(at: datetime) -> datetime:
    whole = at.replace(minute=0, second=0, microsecond=0)
    return whole if whole == at else whole + timedelta(hours=1)
