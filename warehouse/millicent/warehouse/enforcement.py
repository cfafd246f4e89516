"""Whether a call may be made: the budgets whose scope it is in, what they have left, and money set aside for it.

What was spent is read at most once a second for a budget, and less often where reading takes long. That makes no
difference to calls that ask: what they are expected to cost is set aside, and what they cost is kept, until it is among
the facts that are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import polars as pl

from millicent.pricing.usages import one_call
from millicent.warehouse import budgets, reservations, standings
from millicent.warehouse.engine import EngineError
from millicent.warehouse.query import BadQuery, Filter, Period, Query
from millicent.warehouse.record import COST_TYPE
from millicent.warehouse.reservations import DIGITS, HOLD, Claim, Ended

if TYPE_CHECKING:
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.store import Warehouse

Decision = Literal["allow", "warn", "deny"]
Source = Literal["told", "tokens", "recent", "unknown"]
"""Where it is known from what a call will cost: whoever asked, the price of its tokens, calls of late, nowhere."""
_TOLD: Final[Source] = "told"

FRESH: Final = timedelta(seconds=1)
"""How old budgets, and what was spent of them, may be. What was spent may be twenty times as old as reading it took."""
PATIENCE: Final = 20
LONGEST_REST: Final = timedelta(seconds=30)
USUAL: Final = timedelta(minutes=1)
"""How old it may be what calls usually cost, and what earlier periods left to this one."""
LATELY: Final = timedelta(days=7)
"""Whose calls tell what a call usually costs."""
BEHIND: Final = timedelta(minutes=2)
"""How far facts may lag behind before it counts as unknown what was spent."""
_NOTHING: Final = Decimal(0)
_RELEASE: Final = re.compile(r"[-@](\d{4}-?\d{2}-?\d{2}|\d{3,4})")
_MEASURES: Final = ("spend_usd", "unpriced_calls", "missing_usage_calls")
_WITHOUT_IDLE: Final[dict[str, Any]] = {"effective": "usage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call, or several of one kind, that somebody is about to make.

    Attributes:
        told: what is known of it, by dimension: team, model and so on; what is not told is unknown.
        estimate_usd: what each is expected to cost.
        tokens: how many input and output tokens each may come to, by the names of the record.
        calls: how many.
        hold: how long money is set aside for them if nothing more is heard.
        strict: refuse where it cannot be told what a budget that blocks has left.
    """

    told: Mapping[str, str]
    estimate_usd: Decimal | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    calls: int = 1
    hold: timedelta = HOLD
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One budget that a call counts for, in its currency.

    Attributes:
        budget: the version that holds.
        decision: what it says of the call.
        spent: None where it cannot be told.
        reserved: what is set aside for other calls.
        limit: with what earlier periods left; None where it cannot be told.
        each: what a call is expected to cost; None where nobody knows.
        source: where that is known from.
        resets_at: when its next period begins; None for a rolling one.
        as_of: every call acknowledged before this instant is in `spent`.
        incomplete: what is missing from `spent`, in words.
        failure: why it cannot be told what is left.
    """

    budget: Budget
    decision: Decision
    spent: Decimal | None
    reserved: Decimal
    limit: Decimal | None
    each: Decimal | None
    source: Source
    resets_at: datetime | None
    as_of: datetime
    incomplete: tuple[str, ...]
    failure: str | None

    @property
    def words(self) -> str:
        """How it stands, in a sentence."""
        name, unit = self.budget.name, self.budget.currency
        if self.failure is not None:
            return f"what budget {name} has left cannot be told: {self.failure}"
        again = f"; it begins anew at {_instant(self.resets_at)}" if self.resets_at else ""
        this = f", and a call is expected to cost {_plain(self.each)}" if self.each else ""
        return (
            f"budget {name}: {_plain(self.spent or _NOTHING)} {unit} spent and {_plain(self.reserved)} set aside of "
            f"{_plain(self.limit or _NOTHING)}{this}{again}"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether calls may be made.

    Attributes:
        decision: `warn` lets them be made, too.
        reason: why not, or what to look at; None where nothing is.
        reservation: id of what is set aside for them; None where nothing is.
        calls: how many may be made, of those that were asked for.
        expires_at: until when it is set aside.
        budgets: all that they count for and that say something, wider scopes first.
        dimensions: all that any budget looks at: calls that are alike in these are judged alike.
    """

    decision: Decision
    reason: str | None
    reservation: str | None
    calls: int
    expires_at: datetime | None
    budgets: tuple[Judged, ...]
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Calls of a reservation that have ended.

    Attributes:
        id: of the reservation.
        calls: how many.
        cost_usd: what they cost, all together; None where it is not known.
        usage: what they used, as a call of the record, if there is one; priced where no cost is told.
        unused: they were not made.
    """

    id: str
    calls: int = 1
    cost_usd: Decimal | None = None
    usage: Mapping[str, Any] | None = None
    unused: bool = False


class _Spent(NamedTuple):
    """What was read of a budget; amounts in its currency."""

    amount: Decimal | None
    limit: Decimal | None
    incomplete: tuple[str, ...]
    failure: str | None
    through: datetime
    until: datetime
    """For how long it is fresh."""


class _Price(NamedTuple):
    list_usd: Decimal | None
    billed_usd: Decimal | None

    def of(self, basis: str) -> Decimal | None:
        return self.list_usd if basis == "list" else self.billed_usd


class Enforcer:
    """Judges calls of one installation, from any thread; every process that does sees what the others set aside.

    Args:
        warehouse: whose budgets and facts.
        clock: tells the present.
    """

    def __init__(self, warehouse: Warehouse, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._warehouse = warehouse
        self._clock = clock
        self._live: dict[str, tuple[datetime, list[Budget]]] = {}
        self._spent: dict[tuple[Any, ...], _Spent] = {}
        self._reading: dict[tuple[Any, ...], Lock] = {}
        self._limits: dict[tuple[Any, ...], tuple[datetime, Decimal]] = {}
        self._usual: dict[tuple[Any, ...], tuple[datetime, dict[str | None, tuple[Decimal, int]]]] = {}
        self._priced: dict[tuple[Any, ...], _Price] = {}
        self._writing = Lock()  # SQLite's own queue lets those who come late sleep

    def check(self, tenant: str, asked: Asked) -> Verdict:
        """Judge calls that are about to be made, and set money aside for those that may be."""
        now = self._clock()
        live = self._budgets(tenant, now)
        told = {COST_TYPE: "hardware" if asked.told.get("deployment") else "api", **asked.told}
        mine = [one for one in live if all(_keeps(wanted, told) for wanted in one.filters)]
        found = [(one, self._spent_of(tenant, one, now), *self._each(tenant, one, asked, now)) for one in mine]
        claims = [
            Claim(
                budget=one.id or 0,
                each=each,
                left=None if spent.amount is None or spent.limit is None else spent.limit - spent.amount,
                through=spent.through,
                refuses=one.enforcement == "block",
            )
            for one, spent, each, _ in found
        ]
        unknown = [one for one, spent, _, _ in found if spent.failure is not None and one.enforcement == "block"]
        if asked.strict and unknown:
            granted = reservations.Granted(None, 0, {}, frozenset(one.id or 0 for one in unknown))
        else:
            with self._writing:
                granted = reservations.reserve(
                    self._warehouse.control, tenant, claims, asked.calls, asked.hold, self._clock()
                )
        judged = tuple(
            _judged(one, spent, each, source, granted, now, refused=not granted.calls)
            for one, spent, each, source in found
        )
        return _verdict(judged, granted, live, now + asked.hold)

    def settle(self, tenant: str, made: Sequence[Made]) -> list[str]:
        """Tell of calls that have ended.

        Returns:
            Ids of reservations that are not there: settled before, or expired.
        """
        now = self._clock()
        live = self._budgets(tenant, now)
        used = [one for one in made if one.usage is not None and one.cost_usd is None and not one.unused]
        prices = dict(zip(map(id, used), self._prices(tenant, [one.usage or {} for one in used]), strict=True))
        ended = []
        for one in made:
            price = prices.get(id(one), _Price(one.cost_usd, one.cost_usd))
            cost = self._cost(tenant, price, live, now)
            ended.append(Ended(id=one.id, calls=one.calls, cost=cost, unused=one.unused))
        with self._writing:
            return reservations.settle(self._warehouse.control, tenant, ended, now)

    # ---- budgets, and what was spent of them

    def _budgets(self, tenant: str, now: datetime) -> list[Budget]:
        """Those that hold and say something to calls, at most a second ago."""
        known = self._live.get(tenant)
        if known is None or not _within(known[0], now, FRESH):
            found = budgets.live(self._warehouse.control, tenant, now)
            known = self._live[tenant] = (now, [one for one in found if one.enforcement != "none"])
        return known[1]

    def _spent_of(self, tenant: str, budget: Budget, now: datetime) -> _Spent:
        """What was spent of a budget; one thread at a time reads it, the others take what is known of it."""
        period = budget.period_at(now)
        key = (tenant, budget.id, budget.version, period.start)
        known = self._spent.get(key)
        if known is None or now >= known.until:
            lock = self._reading.setdefault(key, Lock())
            if lock.acquire(blocking=known is None):
                try:
                    known = self._spent.get(key)
                    if known is None or now >= known.until:
                        self._forget(now)
                        known = self._spent[key] = self._read(tenant, budget, period, now)
                finally:
                    lock.release()
        assert known is not None  # noqa: S101 - who finds nothing waits for the lock
        behind = now - known.through
        if known.failure is None and behind > BEHIND:
            words = f"calls are stored up to {_instant(known.through)} only: see `millicent balance`"
            return known._replace(failure=words, amount=None)
        return known

    def _read(self, tenant: str, budget: Budget, period: Period, now: datetime) -> _Spent:
        began = self._clock()
        through = self._warehouse.complete_through or began
        hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        question = Query(
            measures=_MEASURES,
            filters=budget.filters,
            period=Period(period.start, min(hour, period.end)),
            basis=budget.basis,
            currency=budget.currency,
            time_zone=budget.time_zone,
        )
        if self._rate(tenant, budget.currency, now) is None:
            words = f"no exchange rate of {budget.currency} holds now: add an fx_rate to the price book"
            return _Spent(None, None, (), words, through, now + FRESH)
        try:
            row = self._warehouse.ask(tenant, question).frame.row(0, named=True)
            limit = self._limit(tenant, budget, period, now)
        except (BadQuery, EngineError) as error:
            return _Spent(None, None, (), str(error), through, now + FRESH)
        counts = ((row["unpriced_calls"], "unpriced"), (row["missing_usage_calls"], "without token counts"))
        missing = tuple(f"{n:,} {'call is' if n == 1 else 'calls are'} {words}" for n, words in counts if n)
        rest = min(LONGEST_REST, max(FRESH, PATIENCE * (self._clock() - began)))
        return _Spent(row["spend_usd"] or _NOTHING, limit, missing, None, through, now + rest)

    def _limit(self, tenant: str, budget: Budget, period: Period, now: datetime) -> Decimal:
        """What the period may come to, with what earlier ones left."""
        if budget.rollover == "none":
            return budget.amount
        key = (tenant, budget.id, budget.version, period.start)
        known = self._limits.get(key)
        if known is None or not _within(known[0], now, USUAL):
            found = standings.standing(self._warehouse, tenant, budget, now)
            if found.failure is not None:
                raise BadQuery(found.failure)
            known = self._limits[key] = (now, found.limit)
        return known[1]

    def _forget(self, now: datetime) -> None:
        """Drop what nobody asked for in an hour, such as budgets of a period that is over."""
        for key in [key for key, one in list(self._spent.items()) if one.until < now - timedelta(hours=1)]:
            self._spent.pop(key, None)
            self._limits.pop(key, None)
            self._reading.pop(key, None)

    # ---- what a call costs

    def _each(self, tenant: str, budget: Budget, asked: Asked, now: datetime) -> tuple[Decimal | None, Source]:
        """What a call will cost, in the budget's currency."""
        usd, source = asked.estimate_usd, _TOLD
        if usd is None and asked.tokens:
            what = {name: asked.told[name] for name in ("model", "provider", "region") if name in asked.told}
            own = {"billing": "self_hosted"} if asked.told.get("deployment") else {}
            (price,) = self._prices(tenant, [{**what, **own, **asked.tokens}])
            usd, source = price.of(budget.basis), "tokens"
        if usd is None:
            usd, source = self._usually(tenant, budget, asked.told.get("model"), now), "recent"
        amount = None if usd is None else self._exchanged(tenant, budget, usd, now)
        return (None, "unknown") if amount is None else (amount, source)

    def _cost(self, tenant: str, price: _Price, live: Sequence[Budget], now: datetime) -> dict[int, Decimal]:
        """What calls that were made cost, by budget; nothing where it is not known."""
        costs, known = dict[tuple[bool, str], Decimal | None](), dict[int, Decimal]()
        for one in live:
            key, usd = (one.basis == "list", one.currency), price.of(one.basis)
            if key not in costs:
                costs[key] = None if usd is None else self._exchanged(tenant, one, usd, now)
            if (cost := costs[key]) is not None:
                known[one.id or 0] = cost
        return known

    def _exchanged(self, tenant: str, budget: Budget, usd: Decimal, now: datetime) -> Decimal | None:
        rate = self._rate(tenant, budget.currency, now)
        return None if rate is None else (usd / rate).quantize(DIGITS, ROUND_CEILING)

    def _rate(self, tenant: str, currency: str, now: datetime) -> Decimal | None:
        """What one unit of a currency is in USD; None where that is not known."""
        if currency == "USD":
            return Decimal(1)
        rates = [one for one in self._warehouse.prices.rates(tenant, currency) if one.since <= now]
        return rates[-1].usd_per_unit if rates and (rates[-1].until is None or now < rates[-1].until) else None

    def _prices(self, tenant: str, usages: Sequence[Mapping[str, Any]]) -> list[_Price]:
        """What usages cost by the price book; unknown where there is no whole price."""
        if not usages:
            return []
        book = self._warehouse.prices.book(tenant)
        keys = [(tenant, book.version, *sorted((name, str(value)) for name, value in one.items())) for one in usages]
        known = {key: found for key in keys if (found := self._priced.get(key)) is not None}
        missing = {key: one for key, one in zip(keys, usages, strict=True) if key not in known}
        if missing:
            calls = [one_call({"started_at": self._clock(), **one}) for one in missing.values()]
            rows = book.price(pl.concat(calls, how="diagonal")).iter_rows(named=True)
            for key, row in zip(missing, rows, strict=True):
                whole = row["price_status"] == "priced"
                known[key] = _Price(row["list_cost_usd"], row["billed_cost_usd"]) if whole else _Price(None, None)
            if len(self._priced) >= MOST_PRICED:
                self._priced.clear()
            self._priced |= {key: known[key] for key in missing}
        return [known[key] for key in keys]

    def _usually(self, tenant: str, budget: Budget, model: str | None, now: datetime) -> Decimal | None:
        """What a call of a model cost lately, on average: in the scope of a budget, else wherever it was called."""
        for filters in dict.fromkeys((budget.filters, ())):
            costs = self._lately(tenant, filters, budget.basis, now)
            mine = [one for name, one in costs.items() if model is None or _same_model(name, model)]
            calls = sum(number for _, number in mine)
            if calls:
                return sum((cost for cost, _ in mine), _NOTHING) / calls
        return None

    def _lately(
        self, tenant: str, filters: tuple[Filter, ...], basis: str, now: datetime
    ) -> dict[str | None, tuple[Decimal, int]]:
        """What calls cost of late, and how many, by model; those of unknown cost are not among them."""
        key = (tenant, filters, basis)
        known = self._usual.get(key)
        if known is None or not _within(known[0], now, USUAL):
            hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            question = Query(
                measures=(*_MEASURES, "charges_usd", "calls"),
                dimensions=("model",),
                filters=filters,
                period=Period(hour - LATELY, hour),
                basis=_WITHOUT_IDLE.get(basis, basis),
            )
            try:
                rows = self._warehouse.ask(tenant, question).frame.to_dicts()
            except (BadQuery, EngineError):
                rows = []
            known = self._usual[key] = (now, {row["model"]: _known_cost(row) for row in rows})
        return known[1]


MOST_PRICED: Final = 10_000
"""Usages whose price is kept ready."""


def _known_cost(row: Mapping[str, Any]) -> tuple[Decimal, int]:
    unknown = (row["unpriced_calls"] or 0) + (row["missing_usage_calls"] or 0)
    cost = (row["spend_usd"] or _NOTHING) - (row["charges_usd"] or _NOTHING)
    return cost, max(0, (row["calls"] or 0) - unknown)


def _keeps(wanted: Filter, told: Mapping[str, str]) -> bool:
    """Whether a filter keeps a call of which so much is told."""
    value = told.get(wanted.dimension)
    if wanted.dimension == "model" and value is not None:
        named = any(_same_model(one, value) for one in wanted.values)
    else:
        named = value in wanted.values
    return named != wanted.negated


def _same_model(one: str | None, asked: str) -> bool:
    """Whether a model is the one that was asked for, or a dated release of it."""
    return one is not None and (one == asked or (one.startswith(asked) and _is_release(one[len(asked) :])))


def _is_release(ending: str) -> bool:
    return _RELEASE.fullmatch(ending) is not None


def _judged(
    budget: Budget, spent: _Spent, each: Decimal | None, source: Source, granted: reservations.Granted,
    now: datetime, *, refused: bool,
) -> Judged:  # fmt: skip
    reached = budget.id in granted.reached
    decision: Decision = "allow"
    if reached or spent.failure is not None:
        decision = "deny" if reached and refused and budget.enforcement == "block" else "warn"
    return Judged(
        budget=budget,
        decision=decision,
        spent=spent.amount,
        reserved=granted.reserved.get(budget.id or 0, _NOTHING),
        limit=spent.limit,
        each=each,
        source=source,
        resets_at=None if budget.period == "rolling" else budget.period_at(now).end,
        as_of=spent.through,
        incomplete=spent.incomplete,
        failure=spent.failure,
    )


def _verdict(
    judged: tuple[Judged, ...], granted: reservations.Granted, live: Sequence[Budget], expires_at: datetime
) -> Verdict:
    decisions: tuple[Decision, ...] = ("deny", "warn")
    for decision in decisions:
        if said := [one.words for one in judged if one.decision == decision]:
            break
    else:
        said, decision = [], "allow"
    looked_at = {wanted.dimension for one in live for wanted in one.filters}
    if COST_TYPE in looked_at:
        looked_at |= {"deployment"}
    return Verdict(
        decision=decision,
        reason=". ".join(said) or None,
        reservation=granted.id,
        calls=granted.calls,
        expires_at=expires_at if granted.id else None,
        budgets=judged,
        dimensions=tuple(sorted(looked_at - {COST_TYPE})),
    )


def _within(since: datetime, now: datetime, age: timedelta) -> bool:
    return abs(now - since) <= age


def _plain(amount: Decimal) -> str:
    """Cents at least, and no zeros after them."""
    text = f"{amount:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part:0<2}"


def _instant(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""
