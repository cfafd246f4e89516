"""What periods of budgets that are over came to, and what each left to the next."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from millicent.warehouse import budgets
from millicent.warehouse.budgets import Held
from millicent.warehouse.query import Period, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.query import Filter, Grain

    Ask = Callable[[Query], pl.DataFrame]
    """Answers a query of one tenant with its frame."""

BY: Final = "team"
"""The dimension that calls may lack, so that they are missing from what budgets of its values came to."""
UNKNOWN: Final = ("unpriced_calls", "missing_usage_calls", "unattributed_calls")
BY_PERIOD: Final[dict[str, Any]] = {
    "version": pl.Int64, "period_start": pl.Datetime("us", "UTC"), "period_end": pl.Datetime("us", "UTC"),
    **dict.fromkeys(("limit", "carried", "actual"), pl.Decimal(38, 19)), **dict.fromkeys(UNKNOWN, pl.Int64),
}  # fmt: skip
"""Columns of `spent`; 19 decimals leave room for what large amounts carry over for years."""
CARRIED_FOR: Final = timedelta(days=1461)
"""How far before a period what is carried over to it may come from."""
ALIKE: Final = ("cadence", "time_zone", "currency")
"""What two versions have in common for one to carry over to the other."""
GRAINS: Final[dict[str, Grain]] = {
    "day": "day", "week": "week", "month": "month", "quarter": "month", "fiscal_year": "month", "rolling": "day",
}  # fmt: skip
"""The coarsest of which a period is made."""
_NOTHING: Final = Decimal(0)
_WHENEVER: Final = Period(budgets.FIRST, budgets.LAST)


class Past(NamedTuple):
    """What a period came to.

    Attributes:
        held: it, and the version that it goes by.
        carried: what earlier ones left to it.
        actual: what was spent.
        unknown: unpriced calls, those without token counts, those of no team.
    """

    held: Held
    carried: Decimal
    actual: Decimal
    unknown: tuple[int, int, int]

    @property
    def limit(self) -> Decimal:
        """What it might have come to; below 0 where earlier ones have taken more than its amount."""
        return self.held.budget.amount + self.carried


def spent(ask: Ask, versions: Sequence[Budget], start: datetime, end: datetime) -> pl.DataFrame:
    """See `standings.spent_by_period`."""
    held = budgets.periods(versions, _first_carrying(versions, start, end), end)
    rows = _left(held, bisect_right(held, start, key=lambda one: one.period.end), ask)
    return pl.DataFrame(
        [
            (
                one.held.budget.version, one.held.period.start, one.held.period.end, max(one.limit, _NOTHING),
                one.carried, one.actual, *one.unknown,
            )
            for one in rows
        ],
        schema=BY_PERIOD,
        orient="row",
    )  # fmt: skip


def carried(ask: Ask, budget: Budget, versions: Sequence[Budget], period: Period) -> Decimal:
    """What earlier periods left to one of a version among `versions`, which are all of a budget."""
    if budget.rollover == "none":
        return _NOTHING
    first = _first_carrying(versions, period.start, period.end)
    before = budgets.periods(versions, first, period.start) if first < period.start else []
    held = Held(budget, period)
    if not before or not _leaves(before[-1], held):
        return _NOTHING
    return _left_to(held, _left(before, len(before) - 1, ask)[-1])


def _left(held: Sequence[Held], wanted: int, ask: Ask) -> list[Past]:
    """What periods came to, from the one at a place on, and what each was left by those before it."""
    first = wanted
    while 0 < first < len(held) and _leaves(held[first - 1], held[first]):
        first -= 1
    found = list[Past]()
    spent = _spent(held[first:], ask)
    for one in held[first:]:
        actual, unknown = spent[one]
        carried = _left_to(one, found[-1]) if found else _NOTHING
        found.append(Past(one, carried, actual, unknown))
    return found[wanted - first :]


def _leaves(before: Held, one: Held) -> bool:
    """Whether a period may leave something to another: it ends where that begins, and both say so of the same."""
    mine, other = one.budget, before.budget
    alike = all(getattr(mine, name) == getattr(other, name) for name in ALIKE)
    return alike and before.period.end == one.period.start and "none" not in {mine.rollover, other.rollover}


def _left_to(one: Held, before: Past) -> Decimal:
    """What a period is left by the one before it."""
    if not _leaves(before.held, one):
        return _NOTHING
    left = before.limit - before.actual
    return max(left, _NOTHING) if one.budget.rollover == "unspent" else left


def _first_carrying(versions: Sequence[Budget], start: datetime, end: datetime) -> datetime:
    """The start, or an earlier instant from which on periods may have left something to those that follow."""
    since = [one.effective_from for one in versions if one.rollover != "none" and one.effective_from < end]
    return min(start, max(min(since), start - CARRIED_FOR)) if since else start


def _spent(held: Sequence[Held], ask: Ask) -> dict[Held, tuple[Decimal, tuple[int, int, int]]]:
    """What each period came to, and how many calls are not in that; one question for all of a scope."""
    scopes = dict[Query, list[Held]]()
    for one in held:
        asked = _scope_query(one.budget)
        scopes.setdefault(asked, []).append(one)
    found = dict[Held, tuple[Decimal, tuple[int, int, int]]]()
    for scope, ones in scopes.items():
        whole = Period(min(one.period.start for one in ones), max(one.period.end for one in ones))
        frame = ask(replace(scope, period=whole))
        if is_apart(scope.filters):
            others = tuple(one for one in scope.filters if one.dimension != BY)
            nobodys = ask(replace(scope, measures=("unattributed_calls",), filters=others, period=whole))
            frame = frame.drop("unattributed_calls").join(nobodys, on="time", how="full", coalesce=True)
        else:
            frame = frame.with_columns(unattributed_calls=0)
        sums = _running(frame.sort("time"))
        for one in ones:
            spent, *unknown = sums(one.period)
            found[one] = spent, (int(unknown[0]), int(unknown[1]), int(unknown[2]))
    return found


def _running(frame: pl.DataFrame) -> Callable[[Period], list[Any]]:
    """Tells the sums of a period of whole rows: of spend and of calls that are not in it."""
    times = frame["time"].to_list()
    totals = [
        list(accumulate((value or 0 for value in frame[name].to_list()), initial=_NOTHING))
        for name in ("spend_usd", *UNKNOWN)
    ]

    def sums(period: Period) -> list[Any]:
        first, last = bisect_left(times, period.start), bisect_left(times, period.end)
        return [total[last] - total[first] for total in totals]

    return sums


def is_apart(filters: Sequence[Filter]) -> bool:
    """Whether calls of no team may be missing from what filters keep."""
    teams = [one for one in filters if one.dimension == BY]
    return bool(teams) and not any(None in one.values for one in teams)


def _scope_query(budget: Budget) -> Query:
    """What is asked for what periods of a budget came to, but for when."""
    return Query(
        measures=("spend_usd", *UNKNOWN),
        filters=budget.filters,
        period=_WHENEVER,
        grain=GRAINS[budget.period],
        basis=budget.basis,
        currency=budget.currency,
        time_zone=budget.time_zone,
    )
