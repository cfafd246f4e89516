"""What a tenant's entries make of the bundled price lists: which entries a call meets, and the prices that follow.

`Layers.stack` finds all that concerns one combination of names. `Stack.at` is the meaning, for one instant and request
size: the override that decides there, else the bundled list; exchanged into USD; then the terms. `Stack.grid` asks
it once for every cell between the boundaries at which anything can change, so that a batch is priced by arrays alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple

from millicent.pricing import bundled
from millicent.pricing.checking import kept_decimals
from millicent.pricing.entries import BookEntry, FxRate, Override, Term, rank
from millicent.pricing.hours import in_hours, offsets, offsets_during
from millicent.pricing.lists import NOWHERE, SELF_HOSTED, Lists, Names
from millicent.pricing.rates import DAY_US, NO_PRICE, Cell, Entry

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_EXACT: Final = Context(prec=100, rounding=ROUND_HALF_EVEN)
_ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Applied:
    """What holds for one combination at one instant and request size.

    Attributes:
        label: The price entry, as stored with calls; empty where there is no price.
        prices: List prices in USD by price key; None where there are none.
        billed: Prices after terms; None where they cannot be told.
        listed: The bundled entry that the prices are from, and the place of its cell; None for prices of our own.
        override: The override that decides.
        terms: The term that decides, by price key.
        fx: The rates used, by currency.
        steps: How a price was computed where it is not as published, by ("list" or "billed", price key).
        least_seconds: See `rates.Cell`.
        above: Prices of our own are for requests with more input tokens than this.
        reason: Why there is no list price or no billed price.
    """

    label: str
    prices: Mapping[str, Decimal] | None
    billed: Mapping[str, Decimal] | None
    listed: tuple[Entry, int] | None = None
    override: Override | None = None
    terms: Mapping[str, Term] = field(default_factory=dict)
    fx: Mapping[str, FxRate] = field(default_factory=dict)
    steps: Mapping[tuple[str, str], str] = field(default_factory=dict)
    least_seconds: int = 0
    above: int | None = None
    reason: str | None = None


class Situation(NamedTuple):
    """All that decides between prices at an instant for a request size, by places in a stack; -1 is none.

    Attributes:
        override: The override that holds.
        offset: The cell of its `like` entry, or of the bundled one.
        above: How many of its own sizes the request passes.
        terms: The terms that hold.
        rates: The rate of each currency of the stack.
    """

    override: int
    offset: int
    above: int
    terms: tuple[int, ...]
    rates: tuple[int, ...]


class Stack(NamedTuple):
    """The entries that one combination of names meets, the deciding ones first; `likes` beside `overrides`.

    `fx` has the rates of every currency that they are in, by the instant from which they hold.
    """

    base: Entry | None
    overrides: tuple[Override, ...]
    likes: tuple[Entry | None, ...]
    terms: tuple[Term, ...]
    fx: Mapping[str, Sequence[FxRate]]

    def at(self, instant: datetime, input_tokens: int) -> Applied:
        """The prices at an instant for a request of so many input tokens."""
        return self._applied(self._situation(instant, input_tokens), instant)

    def grid(self) -> Entry:
        """The same for all instants and sizes, as an entry; its cells know what is billed."""
        dates, clocks, sizes = self.dates(), self.clocks(), self.sizes()
        known: dict[Situation, Cell] = {}
        priced = []
        for instant, _ in cells(dates, clocks):
            for size in (None, *sizes):
                situation = self._situation(instant, 0 if size is None else size + 1)
                if situation not in known:
                    known[situation] = _cell(self._applied(situation, instant))
                priced.append(known[situation])
        whole = next((one for one in (self.base, *self.likes) if one is not None), None)
        return Entry(
            provider=whole.provider if whole else "", model=whole.model if whole else "", variant=(), dates=dates,
            clocks=clocks, sizes=sizes, cells=tuple(priced),
        )  # fmt: skip

    def _situation(self, instant: datetime, input_tokens: int) -> Situation:
        holding = (at for at, one in enumerate(self.overrides) if one.holds(instant) and in_hours(one, instant))
        override = next(holding, -1)
        entry = self.base if override < 0 else self.likes[override]
        above = 0 if override < 0 else sum(input_tokens > size for size, _ in self.overrides[override].above)
        return Situation(
            override,
            -1 if entry is None else entry.offset(_us(instant), input_tokens),
            above,
            tuple(at for at, term in enumerate(self.terms) if term.holds(instant)),
            tuple(_rate_at(rates, instant) for rates in self.fx.values()),
        )

    def _applied(self, situation: Situation, instant: datetime) -> Applied:
        if situation.override >= 0:
            return self._billed(self._own(situation, instant), situation, instant)
        if self.base is None:
            return Applied("", None, None)
        cell = self.base.cells[situation.offset]
        listed = (self.base, situation.offset)
        priced = Applied(cell.label, cell.prices, cell.prices, listed, least_seconds=cell.least_seconds)
        return self._billed(priced, situation, instant)

    def _own(self, situation: Situation, instant: datetime) -> Applied:
        """The list prices of an override."""
        override = self.overrides[situation.override]
        if override.like is not None:
            return self._like(override, self.likes[situation.override], situation.offset)
        label, prices, passed = _label(override), dict(override.prices or {}), None
        for above, at_size in override.above[: situation.above]:
            prices.update(at_size)
            passed = above
        if passed is not None:
            label += f" >{passed}"
        if override.currency == "USD":
            return Applied(label, prices, prices, override=override, above=passed)
        rate = self._rate(override.currency, situation)
        if rate is None:
            return Applied("", None, None, override=override, reason=_no_rate(override, override.currency, instant))
        label += f" {_rate_label(rate)}"
        steps = {("list", key): _exchange(price, rate, key) for key, price in prices.items()}
        prices = {key: _kept(key, price, rate.usd_per_unit) for key, price in prices.items()}
        return Applied(label, prices, prices, override=override, fx={rate.currency: rate}, steps=steps, above=passed)

    def _like(self, override: Override, like: Entry | None, offset: int) -> Applied:
        """The list prices of an override that follows another list."""
        if like is None:
            reason = (
                f"override {_id(override)} is like {override.like!r}, which the price data does not have: correct it"
            )
            return Applied("", None, None, override=override, reason=reason)
        cell = like.cells[offset]
        label, prices, steps = _label(override), dict(cell.prices), {}
        if override.multiply is not None:
            label += f" × {_text(override.multiply)}"
            for key, price in cell.prices.items():
                prices[key] = _kept(key, price, override.multiply)
                steps["list", key] = (
                    f"{_text(price)} × {_text(override.multiply)}, half-even to {kept_decimals(key)} decimals"
                )
        label += f" like {cell.label}"
        least = cell.least_seconds
        return Applied(label, prices, prices, (like, offset), override=override, steps=steps, least_seconds=least)

    def _billed(self, listed: Applied, situation: Situation, instant: datetime) -> Applied:
        """What terms make of list prices: per price key the first that covers it decides."""
        holding = [self.terms[at] for at in situation.terms]
        if not holding or listed.prices is None:
            return listed
        terms = {key: term for key in _keys(listed.prices, holding) if (term := _deciding(key, listed.prices, holding))}
        billed, fx, steps = dict(listed.prices), dict(listed.fx), dict(listed.steps)
        label = " ".join((listed.label, *(f"term {_id(term)}" for term in _distinct(terms.values()))))
        for key, term in terms.items():
            if term.percent_off is not None:
                left = _EXACT.subtract(_ONE, term.percent_off.scaleb(-2))
                billed[key] = _kept(key, listed.prices[key], left)
                steps["billed", key] = f"{_text(listed.prices[key])} less {_text(term.percent_off)} %"
                continue
            billed[key] = (term.prices or {})[key]
            if term.currency != "USD":
                rate = self._rate(term.currency, situation)
                if rate is None:
                    reason = _no_rate(term, term.currency, instant)
                    return replace(listed, label=label, billed=None, terms=terms, reason=reason)
                fx[rate.currency] = rate
                steps["billed", key] = _exchange(billed[key], rate, key)
                billed[key] = _kept(key, billed[key], rate.usd_per_unit)
        used = [rate for currency, rate in fx.items() if currency not in listed.fx]
        label = " ".join((label, *map(_rate_label, used)))
        return replace(listed, label=label, billed=billed, terms=terms, fx=fx, steps=steps)

    def _rate(self, currency: str, situation: Situation) -> FxRate | None:
        rates = dict(zip(self.fx, situation.rates, strict=True))
        at = rates.get(currency, -1)
        return self.fx[currency][at] if at >= 0 else None

    def dates(self) -> tuple[int, ...]:
        """Instants at which anything changes but by the time of day, in microseconds since 1970."""
        found = set(self.base.dates if self.base else ())
        for override, like in zip(self.overrides, self.likes, strict=True):
            changes = [*_bounds(override), *self._rate_bounds(override.currency)]
            if override.daily_from is not None:
                changes += [at for at, _ in offsets(override.zone)]
            found.update(_us(at) for at in changes if _within(at, override))
            found.update(at for at in (like.dates if like else ()) if _within(_EPOCH + at * _US, override))
        for term in self.terms:
            changes = [*_bounds(term), *self._rate_bounds(term.currency)]
            found.update(_us(at) for at in changes if _within(at, term))
        return tuple(sorted(found))

    def _rate_bounds(self, currency: str) -> Iterator[datetime]:
        for rate in self.fx.get(currency, ()):
            yield from _bounds(rate)

    def clocks(self) -> tuple[int, ...]:
        """Times of day (UTC) at which anything may change on some day, in microseconds since midnight."""
        found = {clock for entry in (self.base, *self.likes) if entry is not None for clock in entry.clocks}
        for override in self.overrides:
            for wall in (override.daily_from, override.daily_to):
                if wall is not None:
                    at = datetime.combine(_EPOCH, wall, tzinfo=UTC)
                    found.update(_us(at - offset) % DAY_US for offset in offsets_during(override))
        return tuple(sorted(found - {0}))

    def sizes(self) -> tuple[int, ...]:
        """Input token counts above which anything may change."""
        found = {size for entry in (self.base, *self.likes) if entry is not None for size in entry.sizes}
        found.update(above for override in self.overrides for above, _ in override.above)
        return tuple(sorted(found))


class Met(NamedTuple):
    """What identifies a stack: the bundled entry, and places of entries, the deciding ones first."""

    base: int
    overrides: tuple[int, ...]
    likes: tuple[int, ...]
    terms: tuple[int, ...]


class Layers:
    """The entries of one tenant over the price lists that they are about."""

    def __init__(self, lists: Lists, own: Iterable[BookEntry]) -> None:
        self._lists = lists
        entries = list(own)
        self._matching = [one for one in entries if isinstance(one, Override | Term)]
        self._named: dict[str, list[int]] = {}
        self._patterns: list[int] = []
        for at, one in enumerate(self._matching):
            exact = one.model is not None and "*" not in one.model
            (self._named.setdefault((one.model or "").lower(), []) if exact else self._patterns).append(at)
        self._fx: dict[str, list[FxRate]] = {}
        for rate in sorted(
            (one for one in entries if isinstance(one, FxRate)), key=lambda r: (r.effective_from, rank(r))
        ):
            self._fx.setdefault(rate.currency, []).append(rate)

    def meet(self, names: Names) -> Met | None:
        """The entries that a combination meets; None if there are none, so that the bundled list holds alone.

        No term is met on own hardware, where nothing is billed per call.
        """
        called = self._called(names)
        candidates = [*self._patterns, *(at for model in called.models for at in self._named.get(model, ()))]
        met = []
        for at in candidates:
            entry = self._matching[at]
            specificity = _specificity(entry, called)
            if specificity is not None and not (isinstance(entry, Term) and names.billing == SELF_HOSTED):
                met.append((specificity, rank(entry), at))
        if not met:
            return None
        best = [at for *_, at in sorted(met, reverse=True)]
        overrides = tuple(at for at in best if isinstance(self._matching[at], Override))
        likes = tuple(self._like(self._matching[at], names) for at in overrides)
        terms = tuple(at for at in best if isinstance(self._matching[at], Term))
        return Met(self._lists.place(names), overrides, likes, terms)

    def stack(self, met: Met) -> Stack:
        """The entries themselves."""
        overrides = tuple(one for at in met.overrides if isinstance(one := self._matching[at], Override))
        terms = tuple(one for at in met.terms if isinstance(one := self._matching[at], Term))
        currencies = {*(one.currency for one in overrides), *(one.currency for one in terms)}
        fx = {currency: rates for currency, rates in self._fx.items() if currency in currencies}
        return Stack(self._entry(met.base), overrides, tuple(map(self._entry, met.likes)), terms, fx)

    def problems(self) -> Iterator[str]:
        """What of the entries cannot work with this price data and these FX rates, and what to do about it."""
        for entry in self._matching:
            which = f"{entry.kind} {_id(entry)} of {entry.model or 'all models'}"
            if isinstance(entry, Override) and entry.like is not None:
                names = Names(*entry.like.partition("/")[::2], None)
                if self._lists.like(entry.like, names) == NOWHERE:
                    yield f"{which}: like {entry.like!r} is on no price list: search the prices for its name"
            begun = [rate.effective_from for rate in self._fx.get(entry.currency, ())]
            if entry.currency != "USD" and not any(start <= entry.effective_from for start in begun):
                yield (
                    f"{which}: there is no rate of {entry.currency} from {_stamp(entry.effective_from)} on: add an "
                    "fx_rate that begins no later, since calls before it are unpriced"
                )

    def _called(self, names: Names) -> _Called:
        told = tuple((name or "").strip().lower() for name in names)
        provider, model, host, tier, _, region, _ = told
        found = self._lists.find(names.provider, names.model, names.endpoint_host)
        known = found.provider if found else bundled.find_provider(names.provider, names.endpoint_host)
        providers = {known} if known and provider in bundled.WIRE_FORMATS else {known, provider}
        context = bundled.context(names.service_tier, names.price_context)
        return _Called(
            providers=frozenset(filter(None, providers)),
            models=tuple(dict.fromkeys((model, found.model.lower() if found else model))),
            hosts=frozenset({host, host.rpartition(":")[0] if ":" in host else host}),
            tiers=frozenset({tier, *context.values()}),
            region=region,
        )

    def _like(self, override: BookEntry, names: Names) -> int:
        like = override.like if isinstance(override, Override) else None
        return NOWHERE if like is None else self._lists.like(like, names)

    def _entry(self, place: int) -> Entry | None:
        return self._lists.rates.entries[place] if place != NOWHERE else None


class _Called(NamedTuple):
    """Names of a call as entries are compared with them: as told, and as the price data calls them."""

    providers: frozenset[str]
    models: tuple[str, ...]
    hosts: frozenset[str]
    tiers: frozenset[str]
    region: str


def _specificity(entry: Override | Term, called: _Called) -> tuple[int, ...] | None:
    """How specific a matching entry is, larger first decides; None where it does not match."""
    model = _model_specificity(entry.model, called.models)
    matches = (
        (entry.endpoint_host, called.hosts),
        (entry.region, {called.region}),
        (entry.service_tier, called.tiers),
        (entry.provider, called.providers),
    )
    if model is None or any(told is not None and told.lower() not in have for told, have in matches):
        return None
    hours = isinstance(entry, Override) and entry.daily_from is not None
    return (model, *(told is not None for told, _ in matches), hours, len((entry.model or "").replace("*", "")))


def _model_specificity(told: str | None, models: Sequence[str]) -> int | None:
    """As told by the call, as the price data calls it, by a pattern, or any."""
    if told is None:
        return 0
    name = told.lower()
    if "*" in name:
        return 1 if any(_fits(name, model) for model in models) else None
    return len(models) + 1 - models.index(name) if name in models else None


def _fits(glob: str, name: str) -> bool:
    """Whether a name is a pattern with any text for each `*`."""
    first, *middle, last = glob.split("*")
    at, end = len(first), len(name) - len(last)
    if end < at or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _cell(applied: Applied) -> Cell:
    if applied.prices is None:
        return NO_PRICE
    same = applied.billed == applied.prices
    known = applied.billed is not None
    return Cell(applied.label, applied.prices, None if same else applied.billed, known, applied.least_seconds)


def cells(dates: Sequence[int], clocks: Sequence[int]) -> Iterator[tuple[datetime, bool]]:
    """An instant in every cell of dates × times of day; with False where none is in it, and another of its dates."""
    starts = [dates[0] - 2 * DAY_US if dates else 0, *dates]
    for start, end in zip(starts, [*dates, None], strict=True):
        for clock, stop in zip([0, *clocks], [*clocks, DAY_US], strict=True):
            at = start if clock <= start % DAY_US < stop else start + (clock - start) % DAY_US
            reached = end is None or at < end
            yield _EPOCH + (at if reached else start) * _US, reached


def _rate_at(rates: Sequence[FxRate], instant: datetime) -> int:
    """Place of the rate that began last; -1 before the first, and where the last has ended."""
    at = bisect_right(rates, instant, key=lambda rate: rate.effective_from) - 1
    return at if at >= 0 and rates[at].holds(instant) else -1


def _deciding(key: str, prices: Mapping[str, Decimal], terms: Iterable[Term]) -> Term | None:
    """The first term that says something about a price: a percentage of no price says nothing."""
    return next((term for term in terms if term.covers(key) and (term.prices is not None or key in prices)), None)


def _keys(prices: Mapping[str, Decimal], terms: Iterable[Term]) -> list[str]:
    return list(dict.fromkeys((*prices, *(key for term in terms for key in term.prices or ()))))


def _distinct(terms: Iterable[Term]) -> list[Term]:
    return sorted({id(term): term for term in terms}.values(), key=lambda term: (term.id is None, term.id or 0))


def _kept(key: str, price: Decimal, factor: Decimal) -> Decimal:
    """`price × factor`, half-even to the decimals that a price keeps."""
    product = _EXACT.multiply(price, factor)
    return _EXACT.quantize(product, _ONE.scaleb(-kept_decimals(key))) if product else Decimal(0)


def _exchange(price: Decimal, rate: FxRate, key: str) -> str:
    words = f"{_text(price)} {rate.currency} × {_text(rate.usd_per_unit)} USD ({_stamp(rate.effective_from)})"
    return f"{words}, half-even to {kept_decimals(key)} decimals"


def _text(number: Decimal) -> str:
    return f"{number.normalize(_EXACT):f}"


def _no_rate(entry: Override | Term, currency: str, instant: datetime) -> str:
    return (
        f"{entry.kind} {_id(entry)} is in {currency}, and there is no rate of {currency} at {_stamp(instant)}: "
        "add an fx_rate that begins no later"
    )


def _label(override: Override) -> str:
    model = f"{override.provider}/{override.model}" if override.provider else override.model
    words = f"override {_id(override)} {model} @{_stamp(override.effective_from)}"
    if override.daily_from is None or override.daily_to is None:
        return words
    zone = "Z" if override.zone == "UTC" else f" {override.zone}"
    return f"{words} {override.daily_from:%H:%M}-{override.daily_to:%H:%M}{zone}"


def _rate_label(rate: FxRate) -> str:
    return f"{rate.currency}@{_stamp(rate.effective_from)}"


def _id(entry: BookEntry) -> str:
    return "new" if entry.id is None else str(entry.id)


def _stamp(instant: datetime) -> str:
    """The day in UTC, with the time of day where it is not midnight."""
    at = instant.astimezone(UTC)
    return f"{at:%Y-%m-%d}" if at.time() == time() else f"{at.replace(tzinfo=None).isoformat()}Z"


def _bounds(entry: BookEntry) -> Iterator[datetime]:
    yield entry.effective_from
    if entry.effective_to is not None:
        yield entry.effective_to


def _within(at: datetime, entry: BookEntry) -> bool:
    return entry.effective_from <= at and (entry.effective_to is None or at <= entry.effective_to)


def _us(span: datetime | timedelta) -> int:
    return (span - _EPOCH if isinstance(span, datetime) else span) // _US
