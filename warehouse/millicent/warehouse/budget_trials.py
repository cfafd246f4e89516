"""What a budget might be, from what was spent; and what it would have told, had it held already."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from millicent.warehouse import budgets, outlook, past_periods, standings
from millicent.warehouse.instants import day_of, hour_after, midnight
from millicent.warehouse.outlook import Daily
from millicent.warehouse.past_periods import UNKNOWN
from millicent.warehouse.query import BadQuery, Period, Query
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.outlook import Forecast
    from millicent.warehouse.standings import Ask

Kind = Literal["actual", "forecast"]

LOOKED_AT: Final = {"day": 28, "week": 8, "month": 6, "quarter": 4, "fiscal_year": 2, "rolling": 28}
"""Whole periods that a suggestion looks at."""
LAST: Final = {"day": 28, "week": 4}
"""Of those, the last ones whose median counts; of longer ones three."""
LONGEST_ROLLING: Final = 183
"""Days that it looks at for a rolling budget, but for two of its periods at least."""
MORE: Final = Decimal("0.1")
"""What a suggestion adds, as a share."""
MOST_MORE: Final = Decimal(10)
MOST_DAYS: Final = 400
"""Days that a trial looks at."""
REARMED_BELOW: Final = Decimal("0.05")
"""Of a rolling budget's limit, by how much it has to fall below a threshold before that tells again."""
INSTANT: Final = timedelta(microseconds=1)
CENT: Final = Decimal("0.01")
_NOTHING: Final = Decimal(0)


class Judged(Protocol):
    """A rule that a trial can judge; of other kinds it tells nothing."""

    @property
    def kind(self) -> str: ...

    @property
    def threshold(self) -> Decimal: ...


class Threshold(NamedTuple):
    """A share of the limit that is spent, or is forecast to be (P50), at or above which somebody is told."""

    kind: Kind
    threshold: Decimal


USUAL: Final = (
    *(Threshold("actual", Decimal(share)) for share in ("0.5", "0.8", "1", "1.2")),
    *(Threshold("forecast", Decimal(share)) for share in ("1", "1.1")),
)
"""What a budget tells that nobody has said otherwise of."""


class Spent(NamedTuple):
    """What a period came to, in the budget's currency; `incomplete` says in words what is not in it."""

    period: Period
    actual: Decimal
    incomplete: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a budget might be.

    Attributes:
        amount: for a whole period, in the budget's currency; None where nothing was spent that could tell.
        method: how it came about, in words.
        history: the whole periods that were looked at, in order, from the first on in which something was spent.
        forecast: what the present period will have come to; None while too few days are known.
    """

    amount: Decimal | None
    method: str
    history: tuple[Spent, ...]
    forecast: Forecast | None


class Fired(NamedTuple):
    """A threshold that would have told, and the day on which it would have."""

    kind: Kind
    threshold: Decimal
    day: date


@dataclass(frozen=True, slots=True)
class Tried:
    """How a budget would have done in a period; amounts are in its currency.

    Attributes:
        period: of a rolling budget as many days as it has, one after the other.
        over: whether the period is over.
        limit: what it might have come to.
        carried: what earlier periods would have left to it, in the limit already.
        actual: what it came to, so far if it is not over.
        run_out_date: the first day by whose end the limit was spent; None where it lasted.
        fired: what would have told, in the order of days.
        incomplete: what is missing from the actual, in words.
    """

    period: Period
    over: bool
    limit: Decimal
    carried: Decimal
    actual: Decimal
    run_out_date: date | None
    fired: tuple[Fired, ...]
    incomplete: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """How a budget would have done; see `simulate`."""

    budget: Budget
    periods: tuple[Tried, ...]

    @property
    def exceeded(self) -> int:
        """Periods whose limit was spent."""
        return sum(one.actual >= one.limit for one in self.periods)

    @property
    def told(self) -> int:
        """How often somebody would have been told."""
        return sum(len(one.fired) for one in self.periods)


def suggest(ask: Ask, scope: Budget, at: datetime, more: Decimal = MORE) -> Suggestion:
    """What the amount of a budget might be.

    It is the median of the last whole periods (three of them; of weeks four, of days 28), or the forecast of the
    present one if that is more, and `more` of it, rounded up. Where no period is known in whole, the median of the days
    that are stands for each of its days.

    Args:
        ask: answers a query of one tenant.
        scope: a budget as it would be, but for its amount, which is not looked at.
        at: the instant up to which calls are known.
        more: what is added, as a share.

    Raises:
        BadQuery: its currency has no rate for a day that is looked at, or `more` is not 0 to 10.
    """
    if not more.is_finite() or not 0 <= more <= MOST_MORE:
        raise BadQuery(f"more {more} is not 0 to {MOST_MORE}: write 0.1 for a tenth more than was spent")
    present, place = scope.period_at(at), zone(scope.time_zone)
    today = day_of(at, place)
    earlier = _earlier(scope, present, place)
    known = _days(ask, scope, earlier[0].start, min(hour_after(at), present.end))
    begun = _begun(known)
    history = tuple(
        Spent(one, sum((known[day].total for day in days), _NOTHING), _incomplete(known, days))
        for one in earlier
        if (days := _days_of(one, place)) and begun <= days[0]
    )
    ahead = _forecast(known, present, place, today)
    last = [one.actual for one in history[-LAST.get(scope.period, 3) :]]
    if last:
        found, words = (
            median(last),
            f"Median of the last {'whole period' if len(last) == 1 else f'{len(last)} periods'}",
        )
    else:
        found, words = _by_days(known, present, place, today)
    if ahead is not None and ahead.p50_usd > found:
        found, words = ahead.p50_usd, "What the present period is forecast to come to"
    if found <= 0:
        return Suggestion(None, "Nothing was spent that could tell.", history, ahead)
    words = f"{words}, and {(more * 100).normalize():f}% more, rounded up" if more else f"{words}, rounded up"
    return Suggestion(_rounded(found * (1 + more)), f"{words}.", history, ahead)


def simulate(ask: Ask, budget: Budget, rules: Sequence[Judged], since: datetime, until: datetime) -> Trial:
    """How a budget would have done in every period that overlaps `[since, until)`, had it held for all of that time.

    It begins with the first period in which anything was spent: what is before that is not known to have been kept.

    Each threshold tells once in a period, on the first day by whose end it is reached; a forecast is made at the
    beginning of every day, of the days before. The thresholds of a rolling budget tell again after the spend of its
    days has fallen 5 points below. What was spent is as it is known today.

    Args:
        ask: answers a query of one tenant.
        budget: as it would be; when it holds from does not matter.
        rules: thresholds, or rules of which others than of actual spend and of forecasts are left out.
        since: an instant.
        until: an instant after it, at most `MOST_DAYS` days; what is after it is not known.

    Raises:
        BadQuery: its currency has no rate for a day that counts, or the time is too long.
    """
    if not since < until <= since + timedelta(days=MOST_DAYS):
        raise BadQuery(f"{since.isoformat()} to {until.isoformat()} is not 1 to {MOST_DAYS} days: ask for fewer")
    held = replace(budget, effective_from=min(budget.effective_from, since), ended=False)
    judged = [Threshold("actual" if one.kind == "actual" else "forecast", one.threshold) for one in rules
              if one.kind in {"actual", "forecast"}]  # fmt: skip
    known = _days(ask, held, held.period_at(since).start - standings.HISTORY, hour_after(until))
    since = max(since, midnight(_begun(known), zone(held.time_zone)))
    if since >= until:
        return Trial(budget, ())
    return Trial(budget, tuple((_rolled if held.rolling_days else _tried)(held, known, judged, since, until)))


class _Day(NamedTuple):
    """What a day cost without charges, None where that is unknown, and with them; and calls that are not in it."""

    spend: Decimal | None = _NOTHING
    total: Decimal = _NOTHING
    unknown: tuple[int, int, int] = (0, 0, 0)


def _days(ask: Ask, budget: Budget, start: datetime, end: datetime) -> defaultdict[date, _Day]:
    """What the days of a budget's scope cost; those without calls are there when they are asked for."""
    place = zone(budget.time_zone)
    first = midnight(day_of(start, place), place)
    question = Query(
        measures=("spend_usd", "charges_usd", *UNKNOWN), filters=budget.filters, period=Period(first, end),
        grain="day", basis=budget.basis, currency=budget.currency, time_zone=budget.time_zone,
    )  # fmt: skip
    nobodys = dict[datetime, int]()
    if past_periods.is_apart(budget.filters):
        others = tuple(one for one in budget.filters if one.dimension != past_periods.BY)
        everybody = ask(replace(question, measures=("unattributed_calls",), filters=others))
        nobodys = dict(everybody.iter_rows())
    found = defaultdict[date, _Day](_Day)
    for time, spend, charges, unpriced, unread, _ in ask(question).iter_rows():
        own = None if spend is None else spend - (charges or _NOTHING)
        unknown = (unpriced or 0, unread or 0, nobodys.pop(time, 0) or 0)
        found[day_of(time, place)] = _Day(own, spend or _NOTHING, unknown)
    for time, count in nobodys.items():
        found[day_of(time, place)] = _Day(unknown=(0, 0, count or 0))
    return found


def _begun(known: Mapping[date, _Day]) -> date:
    """The first day on which something was spent; one far ahead where nothing was."""
    return min((day for day, one in known.items() if one.total), default=budgets.LAST.date())


def _earlier(scope: Budget, present: Period, place: ZoneInfo) -> list[Period]:
    """The periods before the present one that a suggestion looks at, in order; rolling ones one after the other."""
    days = scope.rolling_days
    many = LOOKED_AT[scope.period] if days is None else max(2, min(LOOKED_AT["rolling"], LONGEST_ROLLING // days))
    before = present.start if days is None else midnight(day_of(present.end - INSTANT, place), place)
    found = list[Period]()
    while len(found) < many:
        found.append(scope.period_at(before - INSTANT))
        before = found[-1].start
    return found[::-1]


def _days_of(period: Period, place: ZoneInfo) -> list[date]:
    first, last = day_of(period.start, place), day_of(period.end - INSTANT, place)
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _incomplete(known: Mapping[date, _Day], days: Sequence[date]) -> tuple[str, ...]:
    unpriced, unread, nobodys = (sum(known[day].unknown[n] for day in days) for n in range(3))
    return standings.words_of(unpriced, unread, nobodys)


def _forecast(known: Mapping[date, _Day], period: Period, place: ZoneInfo, today: date) -> Forecast | None:
    """What a period will have come to, as told at the beginning of a day of it, or of the one after it."""
    days = _days_of(period, place)
    history = [Daily(day, known[day].spend) for day in sorted(known) if day < today]
    charged = sum((known[day].total - (known[day].spend or _NOTHING) for day in days if day < today), _NOTHING)
    return outlook.forecast(history, days[0], days[-1] + timedelta(days=1), today, charged)


def _by_days(known: Mapping[date, _Day], present: Period, place: ZoneInfo, today: date) -> tuple[Decimal, str]:
    """What a period comes to by the days that are known in whole."""
    whole = [one.total for day, one in known.items() if day < today and one.total]
    days = len(_days_of(present, place))
    return (median(whole) if whole else _NOTHING) * days, f"Median of {len(whole)} days, for {days} of them"


def _rounded(amount: Decimal) -> Decimal:
    """Up to a multiple of a twentieth of its power of ten: 27,431 to 27,500."""
    step = Decimal(5).scaleb(amount.adjusted() - 2)
    found = ((amount / step).to_integral_value(ROUND_CEILING) * step).quantize(CENT, ROUND_CEILING)
    return found.to_integral_value() if found == found.to_integral_value() else found


def _tried(
    budget: Budget, known: Mapping[date, _Day], judged: Sequence[Threshold], since: datetime, until: datetime
) -> Iterator[Tried]:
    """How each period would have done."""
    place, left = zone(budget.time_zone), _NOTHING
    for _, period in budgets.periods([budget], since, until):
        limit, carried, total = max(budget.amount + left, _NOTHING), left, _NOTHING
        fired, ran_out = list[Fired](), None
        days = [day for day in _days_of(period, place) if midnight(day, place) < until]
        for day in days:
            total += known[day].total
            waiting = [one for one in judged if one not in {(told.kind, told.threshold) for told in fired}]
            fired += _reached(waiting, total, _ahead(waiting, known, period, place, day), limit, day)
            if ran_out is None and total >= limit:
                ran_out = day
        yield Tried(period, period.end <= until, limit, carried, total, ran_out, tuple(fired), _incomplete(known, days))
        rest = budget.amount + left - total
        left = {"none": _NOTHING, "unspent": max(rest, _NOTHING), "balance": rest}[budget.rollover]


def _rolled(
    budget: Budget, known: Mapping[date, _Day], judged: Sequence[Threshold], since: datetime, until: datetime
) -> Iterator[Tried]:
    """How the days that end with each would have done, told for as many days at a time, which end with the last."""
    place, limit = zone(budget.time_zone), budget.amount
    held = budgets.periods([budget], since, until)
    armed, fired, ran_out = set(judged), list[Fired](), None
    for number, (_, period) in enumerate(held, 1):
        days = _days_of(period, place)
        total = sum((known[day].total for day in days), _NOTHING)
        ahead = _ahead(judged, known, period, place, days[-1])
        value = {"actual": total, "forecast": ahead}
        armed |= {one for one in judged if _is_below(value[one.kind], (one.threshold - REARMED_BELOW) * limit)}
        told = _reached(armed, total, ahead, limit, days[-1])
        armed -= {Threshold(one.kind, one.threshold) for one in told}
        fired += told
        if ran_out is None and total >= limit:
            ran_out = days[-1]
        if (len(held) - number) % len(days) == 0:
            yield Tried(
                period, period.end <= until, limit, _NOTHING, total, ran_out, tuple(fired), _incomplete(known, days)
            )
            fired, ran_out = [], None


def _ahead(
    waiting: Iterable[Threshold], known: Mapping[date, _Day], period: Period, place: ZoneInfo, day: date
) -> Decimal | None:
    """What the forecast of that morning would have said; None where no threshold waits for one."""
    if all(one.kind != "forecast" for one in waiting):
        return None
    found = _forecast(known, period, place, day)
    return found.p50_usd if found else None


def _is_below(value: Decimal | None, bound: Decimal) -> bool:
    return value is not None and value < bound


def _reached(
    waiting: Iterable[Threshold], total: Decimal, ahead: Decimal | None, limit: Decimal, day: date
) -> list[Fired]:
    """The thresholds that a day's forecast or spend reaches, forecasts first, as the morning comes first."""
    told = {"forecast": ahead, "actual": total}
    return [
        Fired(one.kind, one.threshold, day)
        for one in sorted(waiting, key=lambda one: (one.kind != "forecast", one.threshold))
        if (value := told[one.kind]) is not None and value >= one.threshold * limit
    ]
