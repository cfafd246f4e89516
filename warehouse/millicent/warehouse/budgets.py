"""Budgets: what a part of the spend may come to in a period, from when on, and every version that there was.

A budget is never overwritten. Setting it again makes its next version, which holds from an instant on; ending it makes
a last one, from which on it holds no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from sqlalchemy import JSON, Boolean, Column, Connection, Integer, String, Table, insert, select

from millicent.warehouse import alert_rules
from millicent.warehouse.instants import Instant, day_of, midnight, text_of
from millicent.warehouse.query import Basis, Filter, Period
from millicent.warehouse.rules import metadata
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millicent.warehouse.control import Control

Every = Literal["day", "week", "month", "quarter", "fiscal_year", "rolling"]
"""How long a period of a budget is; it begins with a midnight of its time zone, weeks on Monday.

A rolling one is the last so many whole days, that of the instant among them.
"""
Rollover = Literal["none", "unspent", "balance"]
"""What a period leaves to the next: nothing, what was not spent of its limit, or that and what was spent beyond it."""
Enforcement = Literal["none", "warn", "block"]
"""What a call that asks beforehand is told once the limit is reached: nothing, a warning, or that it must not be."""

LONGEST: Final = 200
LONGEST_NOTE: Final = 1024
MOST: Final = 1000
"""Budgets that a tenant may have."""
MOST_FILTERS: Final = 10
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)
MOST_AMOUNT: Final = Decimal("1e15")
MOST_ROLLING: Final = 366
"""Days of a rolling period."""
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_CHOICES: Final = {"period": Every, "basis": Basis, "rollover": Rollover, "enforcement": Enforcement}
_ADDED_UP: Final = ("cadence", "currency", "basis")
_MONTHS: Final[dict[str, int]] = {"month": 1, "quarter": 3, "fiscal_year": 12}

budgets: Final = Table(
    "budgets", metadata,
    Column("row", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("id", Integer, nullable=False), Column("version", Integer, nullable=False),
    Column("name", String, nullable=False), Column("parent", Integer), Column("filters", JSON, nullable=False),
    Column("period", String, nullable=False), Column("fiscal_month", Integer, nullable=False),
    Column("amount", String, nullable=False), Column("currency", String, nullable=False),
    Column("basis", String, nullable=False), Column("time_zone", String, nullable=False),
    Column("owner", String, nullable=False), Column("note", String, nullable=False),
    Column("effective_from", Instant, nullable=False), Column("ended", Boolean, nullable=False),
    Column("author", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("rolling_days", Integer), Column("rollover", String, nullable=False),
    Column("enforcement", String, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip


class BadBudgetError(ValueError):
    """A budget that cannot be; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What spend may come to in each period.

    Attributes:
        name: unlike that of any other budget of the tenant that holds.
        amount: more than nothing, in `currency`, for a whole period; of a rolling one for any that many days.
        filters: what spend it is about; all of it without any.
        period: how long each period is.
        rolling_days: how many days a rolling period has; None for any other.
        currency: ISO 4217 code; spend is converted to it by dated rates.
        basis: the cost basis of the spend that counts.
        time_zone: IANA name of the zone at whose midnights periods begin.
        fiscal_month: month, 1 to 12, in which quarters and fiscal years begin.
        rollover: what each period leaves to the next.
        enforcement: what a call that asks beforehand is told once the limit is reached.
        parent: id of the budget that this one is a part of.
        owner: who answers for it.
        note: why it is so much.
        effective_from: the instant from which on this version holds.
        ended: whether the budget holds no more from then on.
        id: the same for all versions; given when it is first set, as are `version` (from 1), `author`, `created_at`.

    Raises:
        BadBudgetError: one of them cannot be.
    """

    name: str
    amount: Decimal
    filters: tuple[Filter, ...] = ()
    period: Every = "month"
    rolling_days: int | None = None
    currency: str = "USD"
    basis: Basis = "effective"
    time_zone: str = "UTC"
    fiscal_month: int = 1
    rollover: Rollover = "none"
    enforcement: Enforcement = "none"
    parent: int | None = None
    owner: str = ""
    note: str = ""
    effective_from: datetime
    ended: bool = False
    id: int | None = None
    version: int | None = None
    author: str | None = None
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        _check_texts(self)
        if not self.amount.is_finite() or not 0 < self.amount <= MOST_AMOUNT:
            raise BadBudgetError(
                f"amount {self.amount} is not above 0 and up to {MOST_AMOUNT:,f}: write what it may be"
            )
        if len(self.filters) > MOST_FILTERS:
            raise BadBudgetError(f"{len(self.filters)} filters are too many: write at most {MOST_FILTERS}")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise BadBudgetError(f"{name} {getattr(self, name)!r} is unknown: write {', '.join(get_args(kind))}")
        _check_rolling(self)
        if not 1 <= self.fiscal_month <= 12:
            raise BadBudgetError(
                f"fiscal_month {self.fiscal_month} is no month: write 1 for January to 12 for December"
            )
        since = self.effective_from
        if since.tzinfo is None:
            raise BadBudgetError(f"effective_from {since.isoformat()} has no time zone: add Z for UTC or an offset")
        if not FIRST <= since <= LAST:
            raise BadBudgetError(
                f"effective_from {since.isoformat()} is not between {FIRST.year} and {LAST.year}: correct the year"
            )
        try:
            zone(self.time_zone)
        except ValueError as error:
            raise BadBudgetError(str(error)) from error

    @property
    def cadence(self) -> tuple[str, int | None]:
        """How long periods are, and where they begin: two budgets of one cadence and time zone have the same."""
        begins = self.fiscal_month if self.period in {"quarter", "fiscal_year"} else None
        return self.period, self.rolling_days or begins

    def period_at(self, at: datetime) -> Period:
        """The period that an instant is in; of rolling ones, which overlap, the one that ends with its day."""
        place = zone(self.time_zone)
        day = day_of(at, place)
        if self.rolling_days is not None:
            first = day - timedelta(days=self.rolling_days - 1)
            return Period(midnight(first, place), midnight(day + timedelta(days=1), place))
        if self.period in _MONTHS:
            months = _MONTHS[self.period]
            first = _months_after(day.replace(day=1), -((day.month - self.fiscal_month) % months))
            return Period(midnight(first, place), midnight(_months_after(first, months), place))
        first = day - timedelta(days=day.weekday()) if self.period == "week" else day
        days = 7 if self.period == "week" else 1
        return Period(midnight(first, place), midnight(first + timedelta(days=days), place))


class Held(NamedTuple):
    """A period, and the version of a budget that it goes by."""

    budget: Budget
    period: Period


def periods(versions: Sequence[Budget], start: datetime, end: datetime) -> list[Held]:
    """Every period of a budget that overlaps `[start, end)`, in order.

    Each goes by the version that held when it ended, or just before `end` if it is not over by then. One that was cut
    short, by a version of other periods or because the budget ended, is none. Of rolling ones there is one for each day
    of `[start, end)`, that ends with it.

    Args:
        versions: every version of one budget, in the order they were set; see `history`.
        start: an instant.
        end: an instant after it.
    """
    found = list[Held]()
    changes = sorted({start, *(one.effective_from for one in versions if start < one.effective_from < end), end})
    for since, until in pairwise(changes):
        for budget in _at(versions, since):
            at = since
            while at < until and not budget.ended:
                period = budget.period_at(at)
                at = min(period.end, end)
                if at <= until:
                    found.append(Held(budget, period))
    return found


@dataclass(frozen=True, slots=True)
class Parts:
    """The budgets right below one, against it.

    Attributes:
        budgets: all of them that hold.
        amount: what those come to that can be added up, in the currency of the whole.
        apart: those that cannot, for they have other periods or another currency.
        outside: those whose scope is not seen to be within that of the whole, so that they may spend what it does not.
        exceeds: whether what they come to is more than the whole may.
    """

    budgets: tuple[Budget, ...]
    amount: Decimal
    apart: tuple[Budget, ...]
    outside: tuple[Budget, ...]
    exceeds: bool


def parts(whole: Budget, held: Sequence[Budget]) -> Parts:
    """The budgets among those that hold which are part of `whole`."""
    found = tuple(one for one in held if one.parent is not None and one.parent == whole.id)
    apart = tuple(one for one in found if any(getattr(one, name) != getattr(whole, name) for name in _ADDED_UP))
    amount = sum((one.amount for one in found if one not in apart), Decimal(0))
    outside = tuple(one for one in found if not all(_is_within(one, wanted) for wanted in whole.filters))
    return Parts(found, amount, apart, outside, amount > whole.amount)


def _is_within(part: Budget, wanted: Filter) -> bool:
    """Whether a filter of its own keeps a budget within what a filter of its whole keeps."""
    mine = [one for one in part.filters if one.dimension == wanted.dimension and one.negated == wanted.negated]
    kept = set(wanted.values)
    return any(kept <= set(one.values) if one.negated else set(one.values) <= kept for one in mine)


def put(control: Control, tenant: str, budget: Budget, actor: str) -> Budget:
    """Set a budget, or its next version where it has an id or a name that there is; returns it as stored.

    One that is set for the first time gets its rules with it, see `alert_rules.defaults`, and they end with it. What
    holds already is not stored again. With a `version` it is the one that was read: if another has been set since,
    nothing is changed.

    Raises:
        BadBudgetError: there is no such budget, tenant or parent, its name is taken, or it has changed since.
    """
    now = datetime.now(UTC)
    try:
        with control.change(tenant, actor) as change:
            latest = _latest(change.connection, tenant)
            old = _previous(budget, latest)
            new = replace(
                budget,
                id=old.id if old else _next_id(change.connection, tenant),
                version=(old.version or 0) + 1 if old else 1,
                author=actor,
                created_at=now,
            )
            if old and _same(old, new):
                return old
            if old:
                change.only_by(old.author, f"budget {old.name!r}")
            _check_place(new, old, latest)
            _store(change.connection, tenant, new)
            change.record("budget.end" if new.ended else "budget.set", written(new))
            if new.ended and new.effective_from <= now:
                alert_rules.retire(change, new)
            elif not new.ended and (old is None or old.ended):
                alert_rules.adopt(change, new)
    except BadBudgetError:
        raise
    except ValueError as error:
        raise BadBudgetError(str(error)) from error
    return new


def end(control: Control, tenant: str, budget_id: int, actor: str, since: datetime | None = None) -> Budget:
    """End a budget, from now or an instant on; its versions are kept.

    Raises:
        BadBudgetError: there is no such budget.
    """
    found = history(control, tenant, budget_id)
    if not found or found[-1].ended:
        raise BadBudgetError(f"there is no budget {budget_id} that holds: see `millicent budgets list`")
    return put(control, tenant, replace(found[-1], ended=True, effective_from=since or datetime.now(UTC)), actor)


def live(control: Control, tenant: str, at: datetime) -> list[Budget]:
    """The version of every budget that holds at an instant: wider scopes first, then larger amounts."""
    return live_with_versions(control, tenant, at)[0]


def live_with_versions(control: Control, tenant: str, at: datetime) -> tuple[list[Budget], list[Budget]]:
    """As `live`, and every version of every budget, in the order they were set."""
    with control.begin() as connection:
        stored = _stored(connection, tenant)
    found = [one for one in _at(stored, at) if not one.ended]
    return sorted(found, key=lambda one: (len(one.filters), -one.amount, one.name)), stored


def history(control: Control, tenant: str, budget_id: int) -> list[Budget]:
    """Every version of a budget, oldest first; empty where there is no such budget."""
    with control.begin() as connection:
        return [one for one in _stored(connection, tenant) if one.id == budget_id]


def amount(text: object) -> Decimal:
    """What somebody wrote as an amount.

    Raises:
        BadBudgetError: it is none.
    """
    try:
        return Decimal(str(text).replace(",", "").replace("_", ""))
    except InvalidOperation as error:
        raise BadBudgetError(f"amount {str(text)[:40]!r} is no number: write 27500 or 27500.00") from error


def written(budget: Budget) -> dict[str, Any]:
    """A budget as JSON."""
    made = budget.created_at
    return {
        "id": budget.id, "version": budget.version, "name": budget.name, "parent": budget.parent,
        "filters": [told(one) for one in budget.filters], "period": budget.period,
        "rolling_days": budget.rolling_days, "amount": f"{budget.amount:f}", "rollover": budget.rollover,
        "enforcement": budget.enforcement,
        "currency": budget.currency, "basis": budget.basis, "time_zone": budget.time_zone,
        "fiscal_month": budget.fiscal_month, "owner": budget.owner, "note": budget.note,
        "effective_from": text_of(budget.effective_from), "ended": budget.ended, "author": budget.author,
        "created_at": text_of(made) if made else None,
    }  # fmt: skip


def told(wanted: Filter) -> dict[str, Any]:
    """A filter as JSON."""
    return {"dimension": wanted.dimension, "values": list(wanted.values), "negated": wanted.negated}


def _check_texts(budget: Budget) -> None:
    if not budget.name.strip() or len(budget.name) > LONGEST:
        raise BadBudgetError(f"name {budget.name[:40]!r} is empty or longer than {LONGEST}: write a short name")
    for name, longest in (("name", LONGEST), ("owner", LONGEST), ("note", LONGEST_NOTE)):
        text = getattr(budget, name)
        if len(text) > longest:
            raise BadBudgetError(f"{name} is {len(text):,} characters long: write at most {longest:,}")
        if any(ord(letter) < 32 or "\ud800" <= letter <= "\udfff" for letter in text):
            raise BadBudgetError(f"{name} {text[:40]!r} has characters that are no text: remove them")
    if not _CURRENCY.fullmatch(budget.currency):
        raise BadBudgetError(
            f"currency {budget.currency!r} is not three capital letters: write USD, EUR or another code"
        )


def _check_rolling(budget: Budget) -> None:
    days = budget.rolling_days
    if budget.period != "rolling":
        if days is not None:
            raise BadBudgetError(f"rolling_days {days} are for the period rolling: leave them out of {budget.period}")
        return
    if days is None or not 1 <= days <= MOST_ROLLING:
        raise BadBudgetError(f"rolling_days {days} is not 1 to {MOST_ROLLING}: write how many days are looked at")
    if budget.rollover != "none":
        raise BadBudgetError(
            f"rollover {budget.rollover} cannot be of the period rolling, whose days overlap: write none"
        )


def _previous(budget: Budget, latest: Sequence[Budget]) -> Budget | None:
    """The version that a budget follows on; by its id, else by its name."""
    if budget.id is not None:
        found = [one for one in latest if one.id == budget.id]
        if not found:
            raise BadBudgetError(f"there is no budget {budget.id}: see `millicent budgets list`")
    else:
        found = [one for one in latest if one.name == budget.name and not one.ended]
    old = found[0] if found else None
    if budget.version is not None and (old is None or old.version != budget.version):
        now = f"it is at version {old.version}" if old else "there is none of that name"
        raise BadBudgetError(f"budget {budget.name!r} is not at version {budget.version} any more, {now}: look again")
    return old


def _check_place(new: Budget, old: Budget | None, latest: Sequence[Budget]) -> None:
    others = {one.id: one for one in latest if one.id != new.id and not one.ended}
    if not new.ended and any(one.name == new.name for one in others.values()):
        raise BadBudgetError(f"there is a budget {new.name!r} already: choose another name")
    if old is None and len(others) >= MOST:
        raise BadBudgetError(f"there are {MOST:,} budgets already: end some first")
    above, seen = new.parent, {new.id}
    while above is not None and not new.ended:
        if above in seen:
            raise BadBudgetError(f"parent {new.parent} is the budget itself or a part of it: name another, or none")
        if above not in others:
            raise BadBudgetError(f"parent {above} is no budget that holds: see `millicent budgets list`")
        seen.add(above)
        above = others[above].parent


def _same(old: Budget, new: Budget) -> bool:
    """Whether a version says nothing new: all is the same, and holds already."""
    one, other = (
        replace(told, version=None, author=None, created_at=None, effective_from=FIRST) for told in (old, new)
    )
    return one == other and old.effective_from <= new.effective_from


def _store(connection: Connection, tenant: str, budget: Budget) -> None:
    row = {
        **written(budget), "tenant": tenant, "effective_from": budget.effective_from, "created_at": budget.created_at,
    }  # fmt: skip
    connection.execute(insert(budgets).values(row))


def _stored(connection: Connection, tenant: str) -> list[Budget]:
    """Every version of every budget of a tenant, in the order they were set."""
    c = budgets.c
    asked = select(budgets).where(c.tenant == tenant).order_by(c.row)
    return [_budget(dict(row)) for row in connection.execute(asked).mappings()]


def _latest(connection: Connection, tenant: str) -> list[Budget]:
    return list({one.id: one for one in _stored(connection, tenant)}.values())


def _at(versions: Sequence[Budget], at: datetime) -> list[Budget]:
    """Of each budget the version that holds at an instant: of those from before it, the one set last."""
    return list({one.id: one for one in versions if one.effective_from <= at}.values())


def _next_id(connection: Connection, tenant: str) -> int:
    return max((one.id or 0 for one in _latest(connection, tenant)), default=0) + 1


def _budget(row: dict[str, Any]) -> Budget:
    kept = {name: value for name, value in row.items() if name not in {"row", "tenant", "filters", "amount"}}
    filters = (Filter(one["dimension"], tuple(one["values"]), negated=one["negated"]) for one in row["filters"])
    return Budget(**kept, filters=tuple(filters), amount=Decimal(row["amount"]))


def _months_after(first: date, months: int) -> date:
    """The first day of the month that many months after that of `first`."""
    at = first.year * 12 + first.month - 1 + months
    return date(at // 12, at % 12 + 1, 1)
