"""What a team pays for in a month: lines, their rule, and how they add up to the month of everybody.

Amounts are Decimal, asked as the Overview asks them, in the currency and of the months of the time zone in force. What
is shown is in whole cents, half-even; where cents of lines do not add up to those of their total, a line of its own
says so. The ledger of a closed month does not move, so neither does its statement: what calls that came later cost was
taken back in the same hour, and is charged when it became known; here both are one line again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import reduce
from typing import TYPE_CHECKING, Final

from millicent.dashboard import months
from millicent.dashboard.charts import COST_LABELS
from millicent.dashboard.statement_rules import words
from millicent.warehouse import runs
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.record import CHARGE, IDLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    import polars as pl

    from millicent.dashboard.format import Presentation
    from millicent.dashboard.months import Closing, Month
    from millicent.warehouse.exchange import Rate
    from millicent.warehouse.query import Grain
    from millicent.warehouse.store import Warehouse

Who = tuple[str | None, ...]
"""A team by name, (None,) for calls that carry no team, and () for everybody."""
Amount = Decimal | None
"""None is unknown."""

EVERYBODY: Final[Who] = ()
NOBODY: Final[Who] = (None,)
KINDS: Final = ("api", "hardware", "idle", "unavailable", "untracked", "charge", "adjustment")
"""Cost types, in the order of a statement."""
ALWAYS: Final = ("api", "hardware", "idle", "charge", "adjustment")
"""Those that a statement has even where they are 0."""
ROUNDING: Final = "Rounding"
MONTHS: Final = 13
CENT: Final = Decimal("0.01")
_EXACT: Final = Decimal(1).scaleb(-24)
_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_NOTHING: Final = Decimal(0)
_BESIDE: Final = {IDLE: "Idle and unallocated", CHARGE: "Charges and credits", None: "Without a name"}
_ADJUSTED: Final = {"api": "billed_usd", "hardware": "hardware_usd"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what it is called, and its amount in cents. `key` is what the ledger calls it."""

    key: str | None
    name: str
    amount: Amount


@dataclass(frozen=True, slots=True)
class Past:
    """A month before, or the month itself: by cost type, exact, and how it was closed; None while it is open."""

    month: Month
    kinds: Mapping[str, Amount]
    closed: Closing | None

    @property
    def total(self) -> Amount:
        """Exact; 0 where there was nothing."""
        return added(self.kinds.values()) if self.kinds and not self.closed else added((_NOTHING, *self.kinds.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Monthly:
    """A month of everybody.

    Attributes:
        month: which.
        period: its instants.
        teams: exact amounts by team and cost type; `IDLE` and `CHARGE` are what no team carries. Nothing is unknown of
            a closed month: what has no price by then is charged later.
        closing: how it was closed; None while it is open.
        rates: exchange rates that held in it, where amounts are not in USD.
        known: all that were known when it was closed, which amounts of it are converted by; empty for those known now.
    """

    month: Month
    period: Period
    teams: Mapping[str | None, Mapping[str, Amount]]
    closing: Closing | None
    rates: tuple[Rate, ...] = ()
    known: tuple[Rate, ...] = ()

    def of(self, who: Who) -> dict[str, Amount]:
        """Exact amounts by cost type."""
        chosen = self.teams if not who else {name: self.teams.get(name, {}) for name in who}
        kinds = defaultdict[str, list[Amount]](list)
        for parts in chosen.values():
            for kind, amount in parts.items():
                kinds[kind].append(amount)
        return {kind: added(amounts) for kind, amounts in kinds.items()}

    def total(self, who: Who = EVERYBODY) -> Amount:
        """Exact."""
        return added(self.of(who).values())

    @property
    def named(self) -> list[str]:
        """Teams, dearest first."""
        names = [name for name in self.teams if name is not None and name not in _BESIDE]
        return sorted(names, key=lambda name: (-(self.total((name,)) or _NOTHING), name))

    def control(self, who: Who = EVERYBODY) -> tuple[Line, ...]:
        """How the month of everybody comes about: whoever is meant, other teams, no team, nobody; the last is all."""
        mine = called(who)
        others = tuple(name for name in self.named if name not in who)
        teams = "Other teams" if who else "Teams"
        left = NOBODY if None not in who else ()
        nobodys = tuple(name for name in (IDLE, CHARGE) if name in self.teams and name not in who)
        groups = [(mine, who), (teams, others), (called(NOBODY), left), ("What no team carries", nobodys)]
        exact = [Line(None, name, self.total(of) or _NOTHING) for name, of in groups if of]
        return adding_up(exact, called(EVERYBODY), self.total() or _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a team pays for in a month.

    Attributes:
        tenant: whose ledger.
        who: the team.
        monthly: the month of everybody.
        zone: time zone in which the month begins and ends.
        currency: of all amounts.
        lines: by cost type; the last one is the total.
        features: by feature, dearest first; the last one is the total.
        models: the same by model.
        history: so many months up to this one; those alone that were closed by then, if this one is closed.
        rules: how the amounts came about, in words.
        made: when an open month was looked at, and through when its calls were complete; None once it is closed.
    """

    tenant: str
    who: Who
    monthly: Monthly
    zone: str
    currency: str
    lines: tuple[Line, ...]
    features: tuple[Line, ...]
    models: tuple[Line, ...]
    history: tuple[Past, ...]
    rules: tuple[str, ...]
    made: tuple[datetime, datetime] | None

    @property
    def name(self) -> str:
        """How whoever it is for is called."""
        return called(self.who)

    @property
    def kind(self) -> str:
        """What it is worth: nothing is charged before the month is closed."""
        return "Chargeback statement" if self.monthly.closing else "Showback statement"

    @property
    def total(self) -> Amount:
        """In cents."""
        return self.lines[-1].amount


def called(who: Who) -> str:
    """How whoever a statement is for is called."""
    return "Everybody" if not who else ", ".join("Calls without a team" if name is None else name for name in who)


def monthly(warehouse: Warehouse, tenant: str, month: Month, shown: Presentation) -> Monthly:
    """A month of everybody, in the currency and the time zone of `shown`.

    Raises:
        BadQuery: the currency has no rate then.
    """
    period = month.period(shown.zone)
    closed = warehouse.control.closed_periods(tenant)
    closing = months.closing(period, closed)
    abroad = closing is not None and shown.currency != "USD"
    known = warehouse.prices.rates(tenant, shown.currency, closing.at) if closing and abroad else ()
    answer = warehouse.ask(tenant, replace(question(period, shown, ("team", "cost_type")), rates=known))
    teams = defaultdict[str | None, dict[str, Amount]](dict)
    for team, kind, spend in answer.frame.iter_rows():
        teams[team][kind] = spend
    rates = tuple(rate for rate in answer.rates if _holds(rate, answer.rates, period))
    if any(one.start < period.end and period.start < one.end for one in closed):
        for team, kind, taken in _taken_back(warehouse, tenant, period, rates):
            parts = teams[team]
            parts[kind] = _WIDE.add(parts.get(kind) or _NOTHING, taken)
            parts["adjustment"] = _WIDE.subtract(parts.get("adjustment") or _NOTHING, taken)
    if closing:  # who was not there when it was closed is not there now
        there = {team: parts for team, parts in teams.items() if any(parts.values())}
        return Monthly(month=month, period=period, teams={
            team: {kind: amount or _NOTHING for kind, amount in parts.items()} for team, parts in there.items()
        }, closing=closing, rates=rates, known=known)  # fmt: skip
    return Monthly(month=month, period=period, teams=dict(teams), closing=None, rates=rates)


def statement(
    warehouse: Warehouse, tenant: str, who: Who, month: Month, shown: Presentation, now: datetime,
    whole: Monthly | None = None,
) -> Statement:  # fmt: skip
    """What a team pays for in a month, as the ledger stands; `now` (UTC) is told while the month is open.

    `whole` is the month of everybody, where it is asked for already.

    Raises:
        BadQuery: the currency has no rate then.
    """
    whole = whole or monthly(warehouse, tenant, month, shown)
    policies = [policy for _, policy in warehouse.control.policies(tenant)]
    fresh = warehouse.freshness(tenant) or now
    past = history(warehouse, tenant, who, month, shown, known=whole.known)
    if whole.closing:
        past = tuple(one for one in past if one.closed and one.closed.at <= whole.closing.at)
    return Statement(
        tenant=tenant,
        who=who,
        monthly=whole,
        zone=str(shown.zone),
        currency=shown.currency,
        lines=lines(whole, who),
        features=_by(warehouse, tenant, who, whole, shown, "feature"),
        models=_by(warehouse, tenant, who, whole, shown, "model"),
        history=past,
        rules=words(policies, whole.period, shown.zone, closed=whole.closing is not None),
        made=None if whole.closing else (now, min(fresh, now)),
    )


def lines(whole: Monthly, who: Who) -> tuple[Line, ...]:
    """The lines of a statement, in cents; the last one is the total."""
    kinds = whole.of(who)
    shown = [kind for kind in KINDS if kind in ALWAYS or kinds.get(kind, _NOTHING) != 0]
    found = [Line(kind, line_words(kind, who), kinds.get(kind, _NOTHING)) for kind in shown]
    return adding_up(found, "Total", whole.total(who) if kinds else _NOTHING)


def line_words(kind: str, who: Who) -> str:
    """How a line of a statement is called."""
    if kind in {"idle", "unavailable"} and who:
        return f"{COST_LABELS[kind]} share of own hardware"
    named = {
        "api": "API calls", "hardware": "Own hardware, used", "idle": "Own hardware, idle",
        "unavailable": "Own hardware, unavailable", "untracked": "Own hardware, untracked",
        "adjustment": "Adjustments of closed months",
    }  # fmt: skip
    return named.get(kind, COST_LABELS.get(kind, kind))


def history(
    warehouse: Warehouse, tenant: str, who: Who, month: Month, shown: Presentation, length: int = MONTHS,
    known: tuple[Rate, ...] = (),
) -> tuple[Past, ...]:  # fmt: skip
    """So many months up to one, oldest first, by cost type; those without any spend are there too.

    In another currency than USD they begin with the first that has a rate throughout, of those that are `known`.
    """
    wanted = [month.before(n) for n in range(length - 1, -1, -1)]
    if shown.currency != "USD":
        rates = known or warehouse.prices.rates(tenant, shown.currency)
        since = min((rate.since for rate in rates), default=None)
        wanted = [one for one in wanted if since and one.period(shown.zone).start >= since] or [month]
    period = Period(wanted[0].period(shown.zone).start, month.period(shown.zone).end)
    asked = question(period, shown, ("cost_type",), who, "month")
    found = defaultdict["Month", dict[str, Amount]](dict)
    for start, kind, spend in warehouse.ask(tenant, replace(asked, rates=known)).frame.iter_rows():
        found[months.Month.of(start, shown.zone)][kind] = spend
    closed = warehouse.control.closed_periods(tenant)
    return tuple(Past(one, found.get(one, {}), months.closing(one.period(shown.zone), closed)) for one in wanted)


def cents(amount: Amount) -> Amount:
    """Rounded half-even to whole cents."""
    return None if amount is None else amount.quantize(CENT, context=_WIDE)


def added(amounts: Iterable[Amount]) -> Amount:
    """The sum of what is known; None where nothing is."""
    known = [amount for amount in amounts if amount is not None]
    return reduce(_WIDE.add, known) if known else None


def adding_up(exact: Iterable[Line], name: str, total: Amount) -> tuple[Line, ...]:
    """Lines in cents that add up to their total, which is the last one; what rounding leaves is the one before."""
    rounded = [Line(one.key, one.name, cents(one.amount)) for one in exact]
    whole = cents(total)
    left = (whole or _NOTHING) - (added(one.amount for one in rounded) or _NOTHING)
    if whole is not None and left:
        rounded.append(Line("rounding", ROUNDING, left))
    return (*rounded, Line(None, name, whole))


def question(
    period: Period, shown: Presentation, by: tuple[str, ...], who: Who = EVERYBODY, grain: Grain | None = None
) -> Query:
    """What a statement asks of the warehouse."""
    return Query(
        measures=("spend_usd",), period=period, dimensions=by, filters=(Filter("team", who),) if who else (),
        grain=grain, currency=shown.currency, time_zone=str(shown.zone),
    )  # fmt: skip


def _by(
    warehouse: Warehouse, tenant: str, who: Who, whole: Monthly, shown: Presentation, dimension: str
) -> tuple[Line, ...]:
    asked = replace(question(whole.period, shown, (dimension,), who), rates=whole.known)
    frame = warehouse.ask(tenant, asked).frame
    return by_value(frame.drop_nulls("spend_usd") if whole.closing else frame, whole.total(who))


def by_value(frame: pl.DataFrame, total: Amount) -> tuple[Line, ...]:
    """Lines of a frame of a dimension and spend, dearest first; what sums to 0 is left out."""
    found = [Line(value, _BESIDE.get(value) or str(value), spend) for value, spend in frame.iter_rows() if spend != 0]
    ranked = sorted(found, key=lambda one: (one.amount is None, -(one.amount or _NOTHING), one.name))
    return adding_up(ranked, "Total", total if ranked else _NOTHING)


def _taken_back(
    warehouse: Warehouse, tenant: str, period: Period, rates: Sequence[Rate]
) -> list[tuple[str | None, str, Decimal]]:
    """What closed hours had taken back of calls that came later: team, cost type, amount."""
    found = []
    for row in runs.taken_back(warehouse.engine, tenant, period).iter_rows(named=True):
        rate = next((rate for rate in reversed(rates) if rate.since <= row["hour"]), None)
        unit = rate.usd_per_unit if rate else Decimal(1)
        found += [
            (row["team"], kind, _WIDE.divide(row[column], unit).quantize(_EXACT, context=_WIDE))
            for kind, column in _ADJUSTED.items()
            if row[column]
        ]
    return found


def _holds(rate: Rate, told: Sequence[Rate], period: Period) -> bool:
    """Whether a rate holds in any part of a period; `told` are all of them, by the instant from which each holds."""
    later = [one.since for one in told[told.index(rate) + 1 :]]
    until = min([*later, *([rate.until] if rate.until else []), period.end])
    return rate.since < period.end and until > period.start and until > rate.since
