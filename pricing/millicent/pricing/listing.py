"""Prices as tables for people: what is listed, how a model's prices developed, and which names come close to one."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from difflib import SequenceMatcher
from functools import lru_cache

import polars as pl

from millicent.pricing import bundled
from millicent.pricing.entries import Override
from millicent.pricing.layers import Applied, Stack, cells
from millicent.pricing.rates import DAY_US, PRICED
from millicent.pricing.tables import Rates

SUGGESTIONS = 5

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = pl.Datetime("us", "UTC")
_LEAST_LIKENESS = 0.6
_ELSEWHERE = 0.1
"""A name on another provider's list is as close as one so much less like."""


def price_column(price_key: str) -> str:
    """The column of a price: `input_mtok` is in `input_usd_per_mtok`."""
    what, _, per = price_key.rpartition("_")
    return f"{what}_usd_per_{per}"


_PRICES = {price_column(one.price_key): pl.Decimal(38, 18) for one in PRICED}


def models(rates: Rates, provider: str | None) -> pl.DataFrame:
    """See `PriceBook.models`."""
    only = bundled.find_provider(provider) if provider is not None else None
    if provider is not None and only is None:
        names = sorted({entry.provider for entry in rates.entries[1:]})
        raise ValueError(f"no price list of provider {provider!r}; there are {', '.join(names)}")
    rows = []
    listed = set()
    for entry in rates.entries[1:]:
        if only not in {None, entry.provider}:
            continue
        for offset, cell in enumerate(entry.cells):
            if cell.label in listed:  # where a variant has standard prices
                continue
            listed.add(cell.label)
            (since, _), (clock, _), (above, _) = entry.bounds(offset)
            head = (entry.provider, entry.model, entry.name, ", ".join(entry.variant) or None)
            when = (instant(since), clock_at(clock or 0) if entry.clocks else None, above)
            rows.append((*head, *when, *_row(cell.prices), next(iter(entry.sources), None), cell.label))
    text = dict.fromkeys(("provider", "model", "name", "variant"), pl.String())
    when_types = {"effective_from": _INSTANT, "daily_from": pl.Time(), "above_input_tokens": pl.Int64()}
    tail = dict.fromkeys(("source", "price_entry"), pl.String())
    return pl.DataFrame(rows, schema={**text, **when_types, **_PRICES, **tail}, orient="row")


def history(stack: Stack) -> pl.DataFrame:
    """See `PriceBook.history`."""
    stack = stack._replace(terms=())
    rows: list[tuple[object, ...]] = []
    last: tuple[object, ...] | None = None
    for start, end, hours, applied in _periods(stack):
        source = applied.override.source if applied.override else _source(applied)
        what = (
            *_row(applied.prices or {}),
            applied.label or None,
            source,
            "override" if applied.override else "bundled",
        )
        if rows and what == last:
            rows[-1] = (rows[-1][0], end, *rows[-1][2:])
        else:
            rows.append((start, end, hours, *what))
        last = what
    if all(row[len(("from", "to", "hours", *_PRICES))] is None for row in rows):
        rows = []
    head = {"from": _INSTANT, "to": _INSTANT, "hours": pl.String()}
    tail = dict.fromkeys(("price_entry", "source", "kind"), pl.String())
    return pl.DataFrame(rows, schema={**head, **_PRICES, **tail}, orient="row")


@lru_cache(maxsize=4096)
def suggest(rates: Rates, provider: str | None, model: str | None) -> tuple[str, ...]:
    """See `PriceBook.suggest`."""
    if not model:
        return ()
    known = bundled.find_provider(provider)
    likeness = SequenceMatcher(b=_bare(model), autojunk=False)
    found = []
    for owner, name, bare in _names(rates):
        likeness.set_seq1(bare)
        if likeness.real_quick_ratio() < _LEAST_LIKENESS or likeness.quick_ratio() < _LEAST_LIKENESS:
            continue
        if (ratio := likeness.ratio()) >= _LEAST_LIKENESS:
            elsewhere = owner != known
            found.append((_ELSEWHERE * elsewhere - ratio, elsewhere, f"{owner}/{name}"))
    return tuple(name for *_, name in sorted(found)[:SUGGESTIONS])


@lru_cache(maxsize=8)
def _names(rates: Rates) -> list[tuple[str, str, str]]:
    listed = dict.fromkeys((entry.provider, entry.model) for entry in rates.entries[1:])
    return [(provider, model, _bare(model)) for provider, model in listed]


def instant(us: int | None) -> datetime | None:
    """Microseconds since 1970 as an instant."""
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def clock_at(us: int) -> time:
    """Microseconds since midnight UTC as a time of day."""
    return (_EPOCH + timedelta(microseconds=us)).timetz()


def _row(prices: Mapping[str, Decimal]) -> list[Decimal | None]:
    return [prices.get(one.price_key) for one in PRICED]


def _source(applied: Applied) -> str | None:
    return next(iter(applied.listed[0].sources), None) if applied.listed else None


def _bare(model: str) -> str:
    """A model's name without who made it, its case and its punctuation."""
    return re.sub(r"[^a-z0-9]+", "", model.lower().rpartition("/")[2])


def _periods(stack: Stack) -> Iterator[tuple[datetime | None, datetime | None, str | None, Applied]]:
    """Between dates at which anything changes: what holds for most of the day, and when."""
    dates, clocks = stack.dates(), stack.clocks()
    slots = list(zip([0, *clocks], [*clocks, DAY_US], strict=True))
    starts, ends = [None, *dates], [*dates, None]
    instants = iter(cells(dates, clocks))
    for start, end in zip(starts, ends, strict=True):
        held: dict[str, tuple[int, Applied]] = {}
        for since, until in slots:
            at, reached = next(instants)
            if reached:
                applied = stack.at(at, 0)
                length, _ = held.get(applied.label, (0, applied))
                held[applied.label] = (length + until - since, applied)
        longest = max(held.values(), key=lambda one: one[0])[1]
        yield instant(start), instant(end), _hours(longest, [one for _, one in held.values()]), longest


def _hours(chosen: Applied, all_day: list[Applied]) -> str | None:
    """The part of the day that a price holds for, in words; None for the whole of it."""
    if len(all_day) == 1:
        return None
    if chosen.override is not None and chosen.override.daily_from is not None:
        return _wall(chosen.override)
    others = [one.override for one in all_day if one.override is not None and one.override.daily_from is not None]
    if others:
        return "outside " + ", ".join(sorted({_wall(one) for one in others}))
    if chosen.listed is None:
        return None
    entry, offset = chosen.listed
    _, (since, until), _ = entry.bounds(offset)
    return f"{clock_at(since or 0):%H:%M}-{clock_at(until or 0):%H:%M} UTC"


def _wall(override: Override) -> str:
    return f"{override.daily_from:%H:%M}-{override.daily_to:%H:%M} {override.zone}"
