"""Why spend changed between two periods: who moved it, and what kind of change it was.

`movers` ranks the values of dimensions by how much each added or took away. `bridge` takes the whole change apart into
effects that add up to it, to the last digit. Both ask through the query layer, in its words, and hold for every basis
and filter that a query can have.

How the bridge is cut: models that only one period used are effects of their own. Of the others, what more tokens would
have cost at the earlier mix and rates is volume; then models shift, and within a model the places where it runs; what
is left at one place is another kind of tokens, or another rate for the same: a price at providers, efficiency on own
hardware. All of it is computed in fractions, so that nothing is left over.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from millicent.warehouse.record import CHARGE, IDLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import polars as pl

    from millicent.warehouse.query import Period, Query

    Ask = Callable[[Query], pl.DataFrame]
    """Answers a query of one tenant with its frame."""

NOTHING: Final = Decimal(0)
EXACT: Final = Context(prec=76, rounding=ROUND_HALF_EVEN)
"""In which amounts are added: no digit of an answer of the warehouse is lost."""
SCALE: Final = 12
"""Decimals of an amount of a bridge."""
MOST_PARTS: Final = 5
MINUS: Final = "\N{MINUS SIGN}"
TITLES: Final = {
    "volume": "Volume",
    "models": "Choice of models",
    "places": "Where models run",
    "price": "API prices",
    "efficiency": "Own hardware efficiency",
    "tokens": "Kind of tokens",
    "idle": "Idle hardware",
    "unused": "Unavailable and untracked",
    "charges": "Charges and credits",
    "new": "New models",
    "gone": "Models no longer used",
    "other": "Not by tokens",
    "fx": "Exchange rates",
}
"""Every effect that a bridge may have, in order, and how it is called."""
_ROWS: Final = ("cost_type", "model", "provider", "deployment")
_KINDS: Final = ("input", "cache_read", "cache_write", "output")
_WEIGHTS: Final = (Fraction(1), Fraction(1, 10), Fraction(1), Fraction(4))
"""What a token of each kind weighs on own hardware, as deployments do unless they say otherwise."""
_AMOUNTS: Final = (
    "spend_usd", "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "list_cost_usd",
    "list_input_usd", "list_cache_read_usd", "list_cache_write_usd",
)  # fmt: skip
_BESIDE: Final = {"idle": "idle", "unavailable": "unused", "untracked": "unused"}
"""Effect of what no call carries; all else beside calls is a charge."""


@dataclass(frozen=True, slots=True)
class Mover:
    """A value of a dimension (None: unknown), and what it cost in both periods.

    A cost is None where there was none, or none that is known; `delta_usd` takes it as nothing.
    """

    dimension: str
    value: str | None
    before_usd: Decimal | None
    after_usd: Decimal | None
    delta_usd: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """What one value of a dimension adds to an effect."""

    dimension: str
    value: str | None
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class Effect:
    """One reason for a change: its name in `TITLES`, what it amounts to, and a sentence that says what it is.

    `parts` are those that move it most, most first; they need not add up to it.
    """

    name: str
    amount_usd: Decimal
    words: str
    parts: tuple[Part, ...] = ()

    @property
    def title(self) -> str:
        """How it is called by itself."""
        return TITLES[self.name]

    @property
    def spoken(self) -> str:
        """How it is called within a sentence."""
        return self.title if self.title[1].isupper() else self.title[0].lower() + self.title[1:]


@dataclass(frozen=True, slots=True)
class Bridge:
    """From what was spent before to what was spent after, at 12 decimals; None where nothing is known.

    The amounts of all effects add up to `delta_usd`, exactly.
    """

    before_usd: Decimal | None
    after_usd: Decimal | None
    effects: tuple[Effect, ...]

    @property
    def delta_usd(self) -> Decimal:
        """After less before; what is not known counts as nothing."""
        return _less(self.after_usd, self.before_usd)


def movers(ask: Ask, query: Query, prior: Period, dimensions: Sequence[str]) -> list[Mover]:
    """Every value of each dimension, the largest change first, whether up or down.

    Args:
        ask: answers a query.
        query: whose period, filters, basis and currency count; what it measures and how it is cut do not.
        prior: the period to compare with.
        dimensions: each is told by itself, so that the same change may show in several.
    """
    found = []
    for dimension in dimensions:
        asked = replace(
            query, measures=("spend_usd",), dimensions=(dimension,), grain=None, order=(), limit=None
        )  # fmt: skip
        after, before = (
            dict(ask(one).select(dimension, "spend_usd").iter_rows()) for one in (asked, replace(asked, period=prior))
        )
        for value in after | before:
            was, now = before.get(value), after.get(value)
            found.append(Mover(dimension, value, was, now, _less(now, was)))
    return sorted(found, key=lambda one: (-abs(one.delta_usd), one.dimension, one.value or ""))


def bridge(ask: Ask, query: Query, prior: Period) -> Bridge:
    """What kinds of change lead from the spend of one period to that of another.

    Args:
        ask: answers a query.
        query: whose period, filters, basis and currency count; what it measures and how it is cut do not.
        prior: the period before.
    """
    tokens = "listed_tokens" if query.basis == "list" else "priced_tokens"
    asked = replace(
        query, measures=(*_AMOUNTS, tokens), dimensions=_ROWS, grain=None, order=(), limit=None, currency="USD"
    )
    before, after = (_Side.of(ask(replace(asked, period=period)), tokens) for period in (prior, query.period))
    found = _Found()
    _beside_calls(found, before, after)
    _calls(found, before, after)
    ends = [before.total, after.total]
    if query.currency != "USD":
        whole = replace(asked, measures=("spend_usd",), dimensions=(), currency=query.currency)
        ends = [_exact(ask(replace(whole, period=one))["spend_usd"].item()) for one in (prior, query.period)]
        _exchanged(found, (before.total, after.total), (ends[0], ends[1]))
    return _rounded(found, *ends)


def sentence(movers: Sequence[Mover], bridge: Bridge, money: Callable[[Decimal], str] | None = None) -> str:
    """What happened in one or two sentences: by how much, what did most of it, and who.

    Args:
        movers: of one dimension or several, the largest first.
        bridge: of the same question.
        money: writes an amount without its sign; whole units where it is left out.
    """
    write = money or (lambda amount: f"{amount:,.0f}")

    def signed(amount: Decimal) -> str:
        return ("+" if amount > 0 else MINUS) + write(abs(amount))

    moved = bridge.delta_usd
    if not moved:
        return "Spend did not change."
    was = bridge.before_usd or NOTHING
    share = f" ({_percent(Fraction(moved) / Fraction(was))})" if was > 0 else ""
    told = f"Spend {'rose' if moved > 0 else 'fell'} by {write(abs(moved))}{share}"
    same = [one for one in bridge.effects if (one.amount_usd > 0) == (moved > 0)]
    most = sorted(same, key=lambda one: -abs(one.amount_usd))[:2]
    if most:
        told += ", mostly " + " and ".join(f"{one.spoken} ({signed(one.amount_usd)})" for one in most)
    callers = (one for one in movers if one.value not in {IDLE, CHARGE} and one.delta_usd)
    who = next((one for one in callers if (one.delta_usd > 0) == (moved > 0)), None)
    if who is not None:
        told += f". {who.value or 'Unattributed'} moved most ({signed(who.delta_usd)})"
    return f"{told}."


@dataclass(frozen=True, slots=True)
class _Cell:
    """What one model cost at one place in a period: `usd` of the `tokens` that it is known for, kinds by `_KINDS`."""

    usd: Fraction = Fraction(0)
    tokens: int = 0
    kinds: tuple[int, ...] = (0, 0, 0, 0)
    listed: tuple[Fraction, ...] = (Fraction(0),) * 4

    def __add__(self, other: _Cell) -> _Cell:
        kinds = tuple(one + more for one, more in zip(self.kinds, other.kinds, strict=True))
        listed = tuple(one + more for one, more in zip(self.listed, other.listed, strict=True))
        return _Cell(self.usd + other.usd, self.tokens + other.tokens, kinds, listed)

    @property
    def rate(self) -> Fraction:
        return self.usd / self.tokens


_EMPTY: Final = _Cell()
_Place = tuple[str, str | None]
"""cost type, and provider or deployment."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One period: `cells` by model and place, `beside` by effect and deployment, `loose` what no token carries."""

    total: Fraction | None
    cells: Mapping[str | None, Mapping[_Place, _Cell]]
    beside: Mapping[tuple[str, str | None], Fraction]
    loose: Mapping[str | None, Fraction]
    present: frozenset[str | None]
    calls: int

    @staticmethod
    def of(frame: pl.DataFrame, tokens: str) -> _Side:
        cells: defaultdict[str | None, defaultdict[_Place, _Cell]] = defaultdict(lambda: defaultdict(_Cell))
        beside: defaultdict[tuple[str, str | None], Fraction] = defaultdict(Fraction)
        loose: defaultdict[str | None, Fraction] = defaultdict(Fraction)
        present, calls, total = set[str | None](), 0, None
        for row in frame.iter_rows(named=True):
            spent, kind, model = _exact(row["spend_usd"]), row["cost_type"], row["model"]
            if spent is not None:
                total = (total or Fraction(0)) + spent
            if kind not in {"api", "hardware"}:
                effect = _BESIDE.get(kind, "charges")
                beside[effect, row["deployment"] if effect != "charges" else None] += spent or 0
                continue
            present.add(model)
            calls += row["calls"] or 0
            if row[tokens] and row[tokens] > 0 and spent is not None:
                place = (kind, row["provider"] if kind == "api" else row["deployment"])
                cells[model][place] += _cell(row, spent, row[tokens])
            else:
                loose[model] += spent or 0
        return _Side(total, cells, beside, loose, frozenset(present), calls)


@dataclass(slots=True)
class _Found:
    """Effects as they are found, exact."""

    amounts: defaultdict[str, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    parts: defaultdict[str, dict[tuple[str, str | None], Fraction]] = field(default_factory=lambda: defaultdict(dict))
    words: dict[str, str] = field(default_factory=dict)

    def add(self, effect: str, amount: Fraction, dimension: str = "", value: str | None = None) -> None:
        self.amounts[effect] += amount
        if dimension:
            self.tell(effect, amount, dimension, value)

    def tell(self, effect: str, amount: Fraction, dimension: str, value: str | None) -> None:
        parts, key = self.parts[effect], (dimension, value)
        parts[key] = parts.get(key, Fraction(0)) + amount


def _beside_calls(found: _Found, before: _Side, after: _Side) -> None:
    for key in dict.fromkeys([*before.beside, *after.beside]):
        effect, deployment = key
        amount = after.beside.get(key, Fraction(0)) - before.beside.get(key, Fraction(0))
        found.add(effect, amount, "deployment" if effect != "charges" else "", deployment)


def _calls(found: _Found, before: _Side, after: _Side) -> None:
    kept = []
    for model in dict.fromkeys([*before.present, *after.present]):
        was, now = (_summed(side.cells.get(model, {}).values()) for side in (before, after))
        loose = after.loose.get(model, Fraction(0)) - before.loose.get(model, Fraction(0))
        if was.tokens and now.tokens:
            kept.append(model)
            moved, effect = loose, "other"
        else:
            moved = now.usd - was.usd + loose
            effect = "new" if model not in before.present else "gone" if model not in after.present else "other"
        if moved:
            found.add(effect, moved, "model", model)
    if kept:
        _of_kept(found, before, after, kept)


def _of_kept(found: _Found, before: _Side, after: _Side, models: Sequence[str | None]) -> None:
    """Effects of models that both periods used."""
    was = {model: _summed(before.cells[model].values()) for model in models}
    now = {model: _summed(after.cells[model].values()) for model in models}
    earlier, later = _summed(was.values()), _summed(now.values())
    grown = Fraction(later.tokens, earlier.tokens)
    found.add("volume", earlier.usd * (grown - 1))
    found.words["volume"] = _volume(before, after, grown)
    for model in models:
        shifted = now[model].tokens - was[model].tokens * grown
        found.add("models", shifted * (was[model].rate - earlier.rate), "model", model)
        _of_model(found, model, before.cells[model], after.cells[model])


def _of_model(
    found: _Found, model: str | None, before: Mapping[_Place, _Cell], after: Mapping[_Place, _Cell]
) -> None:  # fmt: skip
    """Effects within one model: where it runs, what kind of tokens it takes, and what they cost there."""
    was, now = _summed(before.values()), _summed(after.values())
    moved = -now.tokens * was.rate
    for place, cell in after.items():
        earlier = before.get(place)
        if earlier is None:
            moved += cell.usd
            continue
        moved += cell.tokens * earlier.rate
        turned = cell.tokens * (cell.rate - earlier.rate)
        kind = _of_kinds(earlier, cell, own=place[0] == "hardware")
        found.add("tokens", kind, "model", model)
        own = place[0] == "hardware"
        found.add("efficiency" if own else "price", turned - kind, "deployment" if own else "model",
                  place[1] if own else model)  # fmt: skip
    found.add("places", moved, "model", model)


def _of_kinds(before: _Cell, after: _Cell, *, own: bool) -> Fraction:
    """What the same tokens cost more at one place because more of them are of a dear kind; 0 where it is not known."""
    if own:
        prices: list[Fraction | None] = list(_WEIGHTS)
    else:
        prices = [_price(before, at) or _price(after, at) for at in range(len(_KINDS))]
    was, now = (_index(cell, prices) for cell in (before, after))
    return after.tokens * before.rate * (now / was - 1) if was and now is not None else Fraction(0)


def _price(cell: _Cell, at: int) -> Fraction | None:
    return cell.listed[at] / cell.kinds[at] if cell.kinds[at] > 0 else None


def _index(cell: _Cell, prices: Sequence[Fraction | None]) -> Fraction | None:
    """What a token of the mix of `cell` costs at `prices`; None where a price is missing."""
    whole = sum(cell.kinds)
    parts = [(number, price) for number, price in zip(cell.kinds, prices, strict=True) if number]
    if whole <= 0 or any(price is None for _, price in parts):
        return None
    return sum((number * price for number, price in parts if price is not None), Fraction(0)) / whole


def _exchanged(
    found: _Found, usd: tuple[Fraction | None, Fraction | None], told: tuple[Fraction | None, Fraction | None]
) -> None:
    """Tell effects at the exchange rate of the period before; what another rate made of the period after is apart."""
    rates = [there / here for here, there in zip(usd, told, strict=True) if here and there is not None]
    rate = rates[0] if rates else Fraction(1)
    for effect in found.amounts:
        found.amounts[effect] *= rate
        found.parts[effect] = {key: amount * rate for key, amount in found.parts[effect].items()}
    moved = (told[1] or Fraction(0)) - (told[0] or Fraction(0))
    found.add("fx", moved - sum(found.amounts.values(), Fraction(0)))


def _rounded(found: _Found, before: Fraction | None, after: Fraction | None) -> Bridge:
    """The effects at 12 decimals: every level from before to after is rounded, and effects lie between levels."""
    exact, effects = before or Fraction(0), []
    level = _pico(exact)
    for name in TITLES:
        exact += found.amounts.get(name, Fraction(0))
        reached = _pico(exact)
        if amount := EXACT.subtract(reached, level):
            words = found.words.get(name) or _TOLD[name][0 if amount > 0 else 1]
            effects.append(Effect(name, amount, words, _parts(found.parts[name])))
        level = reached
    start, end = (None if one is None else _pico(one) for one in (before, after))
    return Bridge(start, end, tuple(effects))


def _parts(told: Mapping[tuple[str, str | None], Fraction]) -> tuple[Part, ...]:
    most = sorted(told.items(), key=lambda one: (-abs(one[1]), one[0][0], one[0][1] or ""))[:MOST_PARTS]
    parts = (Part(dimension, value, _pico(amount)) for (dimension, value), amount in most)
    return tuple(part for part in parts if part.amount_usd)


def _volume(before: _Side, after: _Side, grown: Fraction) -> str:
    """How much more was used, and whether by more calls or by longer ones."""
    if grown == 1:
        return "As many tokens as before."
    told = f"{_percent(abs(grown - 1))} {'more' if grown > 1 else 'fewer'} tokens, at the earlier mix and prices"
    if before.calls and after.calls:
        calls = Fraction(after.calls, before.calls)
        each = grown / calls
        told += f": {_percent(abs(calls - 1))} {'more' if calls >= 1 else 'fewer'} calls, each "
        told += f"{_percent(abs(each - 1))} {'longer' if each >= 1 else 'shorter'}"
    return f"{told}."


_TOLD: Final = {
    "volume": ("More tokens, at the earlier mix and prices.", "Fewer tokens, at the earlier mix and prices."),
    "models": ("A larger share of the tokens went to dearer models.",
               "A larger share of the tokens went to cheaper models."),
    "places": ("The same models ran more where they cost more: another provider or another deployment.",
               "The same models ran more where they cost less: another provider or another deployment."),
    "price": ("The same tokens of the same model cost more at providers: price list, terms or tier.",
              "The same tokens of the same model cost less at providers: price list, terms or tier."),
    "efficiency": ("Own hardware cost more per token while it was busy: fewer tokens per hour, or dearer hours.",
                   "Own hardware cost less per token while it was busy: more tokens per hour, or cheaper hours."),
    "tokens": ("More of the tokens were of a dear kind: more output, or less input out of a cache.",
               "More of the tokens were of a cheap kind: less output, or more input out of a cache."),
    "idle": ("More own hardware was paid for while no call ran on it.",
             "Less own hardware was paid for while no call ran on it."),
    "unused": ("Own hardware that could not serve, or whose work nobody saw, cost more.",
               "Own hardware that could not serve, or whose work nobody saw, cost less."),
    "charges": ("Fees, commitments, credits and adjustments of closed periods came to more.",
                "Fees, commitments, credits and adjustments of closed periods came to less."),
    "new": ("Models that the earlier period did not use.",) * 2,
    "gone": ("Models that are not used any more.",) * 2,
    "other": ("What is not priced by tokens, such as images and searches, or of known cost in one period only.",) * 2,
    "fx": ("The same dollars were more in this currency.", "The same dollars were less in this currency."),
}  # fmt: skip
"""What an effect means where it adds to spend, and where it takes away."""


def _cell(row: Mapping[str, Any], spent: Fraction, tokens: int) -> _Cell:
    read, written, came, went = (
        row[f"{name}_tokens"] or 0 for name in ("cache_read", "cache_write", "input", "output")
    )
    listed = [_exact(row[f"list_{name}_usd"]) or Fraction(0) for name in ("input", "cache_read", "cache_write")]
    told = row["list_cost_usd"] is not None and row["list_input_usd"] is not None
    rest = Fraction(row["list_cost_usd"]) - sum(listed) if told else Fraction(0)
    return _Cell(spent, tokens, (max(came - read - written, 0), read, written, went), (*listed, rest))


def _summed(cells: Iterable[_Cell]) -> _Cell:
    return sum(cells, _EMPTY)


def _exact(amount: Decimal | None) -> Fraction | None:
    return None if amount is None else Fraction(amount)


def _pico(amount: Fraction) -> Decimal:
    return EXACT.scaleb(Decimal(round(amount * 10**SCALE)), -SCALE)


def _percent(ratio: Fraction) -> str:
    size = abs(ratio) * 100
    return f"{round(size)}%" if size >= 10 else f"{Decimal(round(size * 10)).scaleb(-1)}%"


def _less(after: Decimal | None, before: Decimal | None) -> Decimal:
    return EXACT.subtract(after or NOTHING, before or NOTHING)
