"""Which unit prices new entries change, and from when.

Both price books are asked what a request costs that has units of one price alone, less what a request of nothing costs:
so the answer is what calls will be priced by, whatever kind of entry is the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from millicent.pricing.book import PriceBook
from millicent.pricing.checking import PRICE_PER
from millicent.pricing.entries import BookEntry, FxRate, Override, Term
from millicent.pricing.rates import KINDS
from millicent.pricing.units import REQUESTS, UNITS

UNITS_ASKED: Final = 10_000
"""Of one kind, in a usage that a price is read from: fewer tokens than any request size at which prices change."""
NOTHING: Final = ""
"""In place of a price: a request of nothing."""
USUAL: Final = ("input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok")
MOST_MODELS: Final = 50
MOST: Final = 500
FEE: Final = "requests_kcount"
_DIGITS: Final = Decimal("1e-9")
_PLACE: Final = ("provider", "model", "endpoint_host", "region", "service_tier")
_KINDS: Final = {kind.price_key: kind for kind in KINDS}
_UNITS: Final = {unit.price_key: unit for unit in UNITS}
_SCHEMA: Final = {
    **dict.fromkeys(_PLACE, pl.String()), "started_at": pl.Datetime("us", "UTC"),
    **{kind.column: pl.Int64() for kind in KINDS},
    "units": pl.List(pl.Struct({"key": pl.String(), "value": pl.Int64()})),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitChange:
    """A price in USD per so many tokens or units that differs from `effective_from` on; None: no price."""

    provider: str | None
    model: str
    endpoint_host: str | None
    region: str | None
    service_tier: str | None
    price: str
    per: int
    effective_from: datetime
    list_before: Decimal | None
    list_after: Decimal | None
    billed_before: Decimal | None
    billed_after: Decimal | None


def changes(
    before: PriceBook, after: PriceBook, new: Sequence[BookEntry], used: Iterable[tuple[str | None, str | None]]
) -> list[UnitChange]:
    """Unit prices of standard requests that differ between two books, for the models that `new` is about.

    Args:
        before: without the new entries.
        after: with them.
        new: the entries; of a charge nothing is told, since it changes no price.
        used: provider and model of stored calls: those are told of where an entry is about many models.
    """
    asked = list(_asked(before, after, new, list(used)))
    if not asked:
        return []
    frame = pl.DataFrame([_usage(one) for one in asked], schema=_SCHEMA)
    costs = [_costs(book, frame) for book in (before, after)]
    nothing = {_at(one): cost for one, *cost in zip(asked, *costs, strict=True) if one["price"] == NOTHING}
    found, last = list[UnitChange](), dict[tuple[Any, ...], list[Decimal | None]]()
    for one, *cost in zip(asked, *costs, strict=True):
        if one["price"] == NOTHING:
            continue
        per = PRICE_PER[one["price"]]
        (list_before, billed_before), (list_after, billed_after) = (
            [_unit_price(amount, none, one["price"], per) for amount, none in zip(with_it, without, strict=True)]
            for with_it, without in zip(cost, nothing[_at(one)], strict=True)
        )
        what = tuple(one[name] for name in (*_PLACE, "price"))
        prices = [list_before, list_after, billed_before, billed_after]
        if (list_before, billed_before) != (list_after, billed_after) and last.get(what) != prices:
            told = {"list_before": list_before, "list_after": list_after, "billed_before": billed_before}
            found.append(UnitChange(**one, **told, per=per, billed_after=billed_after))  # type: ignore[arg-type]
        last[what] = prices
    return found


def _costs(book: PriceBook, usages: pl.DataFrame) -> list[tuple[Decimal | None, Decimal | None]]:
    """List and billed cost of each usage; None where not all of it has a price."""
    known = pl.when(pl.col("price_status") == "priced")
    return book.price(usages).select(known.then("list_cost_usd"), known.then("billed_cost_usd").alias("billed")).rows()


def _at(asked: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(asked[name] for name in (*_PLACE, "effective_from"))


def _unit_price(cost: Decimal | None, nothing: Decimal | None, price: str, per: int) -> Decimal | None:
    if cost is None or nothing is None:
        return None
    if price == FEE:
        return (nothing * per).normalize()
    return ((cost - nothing) * per / UNITS_ASKED).quantize(_DIGITS).normalize()


def _asked(
    before: PriceBook, after: PriceBook, new: Sequence[BookEntry], used: Sequence[tuple[str | None, str | None]]
) -> Iterator[dict[str, Any]]:
    """Every place, instant and price to ask for, each once, by place, price and instant."""
    listed = before.models().select("provider", "model", "effective_from")
    wanted = dict[tuple[Any, ...], set[datetime]]()
    for entry in new:
        for one in _about(entry, (*after.own, *new)):
            begins = _begins(one, entry.effective_from)
            for place in _places(one, listed, used):
                dates = listed.filter(pl.col("model") == place["model"])["effective_from"].drop_nulls()
                within = [at for at in dates if begins < at and entry.holds(at)]
                for price in (NOTHING, *_prices(one)):
                    wanted.setdefault((*place.values(), price), set()).update((begins, *within))
    for key, instants in wanted.items():
        for at in sorted(instants):
            yield {**dict(zip((*_PLACE, "price"), key, strict=True)), "effective_from": at}


def _about(entry: BookEntry, every: Iterable[BookEntry]) -> list[Override | Term]:
    """The overrides and terms whose prices an entry may change."""
    if isinstance(entry, Override | Term):
        return [entry]
    if isinstance(entry, FxRate):
        return [one for one in every if isinstance(one, Override | Term) and one.currency == entry.currency]
    return []


def _begins(entry: Override | Term, since: datetime) -> datetime:
    """The first instant since then at which an entry holds, which for one of office hours is when they begin."""
    if not isinstance(entry, Override) or entry.daily_from is None:
        return since
    here = since.astimezone(ZoneInfo(entry.zone))
    days = (datetime.combine(here.date() + timedelta(days=n), entry.daily_from, here.tzinfo) for n in (0, 1))
    return next(at for at in (one.astimezone(UTC) for one in days) if at >= since)


def _places(
    entry: Override | Term, listed: pl.DataFrame, used: Sequence[tuple[str | None, str | None]]
) -> list[dict[str, str | None]]:
    """Whose price to ask for: the model that the entry names, else those in use, else those on the list."""
    narrow = {name: getattr(entry, name) for name in ("endpoint_host", "region", "service_tier")}
    if entry.model is not None and "*" not in entry.model:
        return [{"provider": entry.provider, "model": entry.model, **narrow}]
    models = [(provider, model) for provider, model in used if model is not None and _fits(entry, provider, model)]
    if not models:
        every = listed.select("provider", "model").unique(maintain_order=True).iter_rows()
        models = [(provider, model) for provider, model in every if _fits(entry, provider, model)]
    return [{"provider": provider, "model": model, **narrow} for provider, model in models[:MOST_MODELS]]


def _fits(entry: Override | Term, provider: str | None, model: str) -> bool:
    of_provider = entry.provider is None or entry.provider.lower() == (provider or "").lower()
    return of_provider and (entry.model is None or fnmatchcase(model.lower(), entry.model.lower()))


def _prices(entry: Override | Term) -> tuple[str, ...]:
    """The prices to tell of: the usual ones, and those that the entry names."""
    named = (*(entry.prices or ()), *(entry.keys if isinstance(entry, Term) else ()))
    return tuple(dict.fromkeys((*USUAL, *named)))


def _usage(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A request that has units of one price alone."""
    counts = dict.fromkeys(("input_tokens", "output_tokens"), 0)
    if kind := _KINDS.get(asked["price"]):
        counts |= dict.fromkeys((kind.column, *kind.within), UNITS_ASKED)
    unit = _UNITS.get(asked["price"])
    units = (
        [{"key": key, "value": UNITS_ASKED} for key in (unit.key, *unit.within)]
        if unit and unit.key != REQUESTS
        else []
    )
    return {**{name: asked[name] for name in _PLACE}, "started_at": asked["effective_from"], "units": units,
            **{one.column: counts.get(one.column) for one in KINDS}}  # fmt: skip
