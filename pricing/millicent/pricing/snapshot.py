"""Price data kept as bytes, and what one state of it says differently from another.

Price data is updated from outside. Whoever keeps the state that amounts were computed from can hold on to it: price
by it again, see which past prices an update would change, and take only what does not rewrite the past.
"""

import gzip
import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from typing import Any, Final

from millicent.pricing.rates import Cell, Entry

FORMAT: Final = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_FREE: Mapping[str, Decimal] = {"input_mtok": Decimal(0), "output_mtok": Decimal(0)}
"""What an empty price list says: that is how the price data writes "free"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """One price that a newer state of the data tells differently for one stretch of the past.

    Attributes:
        provider: On whose price list the model stands.
        model: The model's id there.
        variant: Request context, as sorted `key=value` texts; empty for standard prices. What is true of a context is
            true of those with more keys that are billed by the same entries.
        key: The price's key, such as "input_mtok".
        old: What it was, in USD per million tokens or thousand units; None: no price of its own.
        new: What it is now; None: no price of its own, or the model is gone.
        effective_from: First instant of the stretch (UTC); None: since the model's first price.
        effective_to: Instant at which it is over (UTC); None: it lasts at least until the instant asked about.
        daily_from: Time of day (UTC) at which it begins each day; None: the whole day.
        daily_to: Time of day (UTC) at which it is over each day; midnight is the end of the day.
        above: It is of requests with more input tokens than this; None: from the smallest.
        up_to: And of no more than this; None: to the largest.
    """

    provider: str
    model: str
    variant: tuple[str, ...]
    key: str
    old: Decimal | None
    new: Decimal | None
    effective_from: datetime | None = None
    effective_to: datetime | None = None
    daily_from: time | None = None
    daily_to: time | None = None
    above: int | None = None
    up_to: int | None = None


def pack(entries: Iterable[Entry]) -> bytes:
    """Price entries as bytes; equal entries give equal bytes, digits and order included."""
    told = {"format": FORMAT, "entries": [_told(entry) for entry in entries]}
    return gzip.compress(json.dumps(told, separators=(",", ":")).encode(), mtime=0)


def unpack(packed: bytes) -> tuple[Entry, ...]:
    """The entries that were packed, to the last digit.

    Raises:
        ValueError: the bytes are damaged, or were packed by a later version.
    """
    try:
        told = json.loads(gzip.decompress(packed))
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"these {len(packed)} bytes are no packed price data: take them from a backup") from error
    if told["format"] != FORMAT:
        raise ValueError(f"price data of format {told['format']}, where {FORMAT} is read: update Millicent")
    return tuple(_entry(each) for each in told["entries"])


def changes(old: Iterable[Entry], new: Iterable[Entry], before: datetime) -> list[PriceChange]:
    """Prices that differ at some instant before `before`; models that only `new` has are additions, not changes.

    Exact over dates, times of day and request sizes: at every instant before `before` and for every number of input
    tokens, a price differs exactly where one change, and only one, says so. A part of a request context that one side
    does not know changes nothing there.

    Raises:
        ValueError: `before` has no time zone.
    """
    if before.tzinfo is None:
        raise ValueError(f"before is {before!r}, without a time zone: price changes are instants; add its zone")
    before_us = (before - _EPOCH) // _US
    then, now = _by_variant(old), _by_variant(new)
    return [
        PriceChange(provider=model[0], model=model[1], variant=variant, **stretch)
        for model, variants in then.items()
        for variant, pair in _pairs(variants, now.get(model, {})).items()
        for stretch in _differences(*pair, before_us)
    ]


def additions(old: Iterable[Entry], new: Iterable[Entry]) -> list[tuple[str, str]]:
    """(provider, model) of the models that only `new` has, in its order."""
    known = {(entry.provider, entry.model) for entry in old}
    return [model for model in dict.fromkeys((entry.provider, entry.model) for entry in new) if model not in known]


def merged(old: Iterable[Entry], new: Iterable[Entry], held: Collection[tuple[str, str]]) -> tuple[Entry, ...]:
    """The entries of `new`, with those of the models in `held`, variants included, as `old` has them.

    Args:
        old: The accepted state.
        new: The state that is offered.
        held: (provider, model) of the models that stay as they were, those that `new` no longer has included.

    Raises:
        ValueError: `old` has no such model.
    """
    then, now = _by_variant(old), _by_variant(new)
    if missing := sorted(set(held) - then.keys()):
        name = "/".join(missing[0])
        raise ValueError(f"{name} cannot be held: the accepted price data does not have it; leave it out")
    models = now | {model: variants for model, variants in then.items() if model in held}
    return tuple(entry for variants in models.values() for entry in variants.values())


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "provider": entry.provider,
        "model": entry.model,
        "variant": entry.variant,
        "dates": entry.dates,
        "clocks": entry.clocks,
        "sizes": entry.sizes,
        "cells": [_cell_told(cell) for cell in entry.cells],
        "name": entry.name,
        "sources": entry.sources,
        "note": entry.note,
    }


def _cell_told(cell: Cell) -> list[Any]:
    prices = {key: str(price) for key, price in cell.prices.items()}
    return [cell.label, prices, *([cell.least_seconds] if cell.least_seconds else ())]


def _entry(told: dict[str, Any]) -> Entry:
    cells = (
        Cell(label, {key: Decimal(price) for key, price in prices.items()}, least_seconds=least[0] if least else 0)
        for label, prices, *least in told["cells"]
    )
    lists = {name: tuple(told[name]) for name in ("variant", "dates", "clocks", "sizes", "sources")}
    return Entry(**told | lists | {"cells": tuple(cells)})


def _by_variant(entries: Iterable[Entry]) -> dict[tuple[str, str], dict[tuple[str, ...], Entry]]:
    models: dict[tuple[str, str], dict[tuple[str, ...], Entry]] = {}
    for entry in entries:
        models.setdefault((entry.provider, entry.model), {})[entry.variant] = entry
    return models


_Variants = Mapping[tuple[str, ...], Entry]


def _pairs(old: _Variants, new: _Variants) -> dict[tuple[str, ...], tuple[Entry | None, Entry | None]]:
    """The entries by which both sides bill each request context that either knows, each pair once."""
    offered: dict[str, set[str]] = {}
    for one in sorted({one for side in (old, new) for variant in side for one in variant}):
        offered.setdefault(one.partition("=")[0], set()).add(one)
    combinations = product(*([None, *sorted(values)] for values in offered.values()))
    contexts = (tuple(one for one in combination if one) for combination in combinations)
    pairs: dict[tuple[str, ...], tuple[Entry | None, Entry | None]] = {}
    seen = set()
    for context in sorted(contexts, key=lambda one: (len(one), one)):
        pair = (_of(old, context), _of(new, context))
        if (key := tuple(map(id, pair))) not in seen:
            seen.add(key)
            pairs[context] = pair
    return pairs


def _of(variants: _Variants, context: tuple[str, ...]) -> Entry | None:
    """The entry that bills a request context: what no variant asks for changes nothing."""
    offered = {one for variant in variants for one in variant}
    return variants.get(tuple(one for one in context if one in offered), variants.get(()))


def _differences(old: Entry | None, new: Entry | None, before_us: int) -> Iterator[dict[str, Any]]:
    """Every stretch of one price that differs, as the members of a `PriceChange`."""
    if old == new:
        return
    sides = [side for side in (old, new) if side is not None]
    dates = [None, *sorted({us for side in sides for us in side.dates if us < before_us}), None]
    clocks = [0, *sorted({us for side in sides for us in side.clocks}), _DAY_US]
    sizes = [None, *sorted({size for side in sides for size in side.sizes}), None]
    cells = [
        [[(_prices(old, date, clock, size), _prices(new, date, clock, size)) for clock in clocks[:-1]]
         for size in sizes[:-1]]
        for date in dates[:-1]
    ]  # fmt: skip

    for key in dict.fromkeys(key for by_size in cells for by_clock in by_size for pair in by_clock
                             for prices in pair for key in prices):  # fmt: skip
        by_date = []
        for at, by_size in enumerate(cells):
            until = dates[at + 1]
            lasts = (dates[at], before_us if until is None else until)
            by_date.append([
                box
                for box in _joined([
                    list(_joined([[(was.get(key), told.get(key))] for was, told in by_clock])) for by_clock in by_size
                ])
                if box[0] != box[1] and _meets(*lasts, clocks[box[2]], clocks[box[3]])
            ])  # fmt: skip
        for was, told, clock, past_clock, size, past_size, date, past_date in sorted(_joined(by_date), key=_by_place):
            all_day = (clock, past_clock) == (0, len(clocks) - 1)
            yield {
                "key": key,
                "old": was,
                "new": told,
                "effective_from": _instant(dates[date]),
                "effective_to": _instant(dates[past_date]),
                "daily_from": None if all_day else _clock(clocks[clock]),
                "daily_to": None if all_day else _clock(clocks[past_clock]),
                "above": sizes[size],
                "up_to": sizes[past_size],
            }


def _prices(entry: Entry | None, date: int | None, clock: int, above: int | None) -> Mapping[str, Decimal]:
    """The prices from `date` and `clock` on, for more than `above` input tokens; empty without an entry."""
    if entry is None:
        return {}
    cell = 0 if date is None else bisect_right(entry.dates, date)
    cell = cell * (len(entry.clocks) + 1) + bisect_right(entry.clocks, clock)
    cell = cell * (len(entry.sizes) + 1) + (0 if above is None else bisect_right(entry.sizes, above))
    return entry.cells[cell].prices or _FREE


def _joined(slices: Sequence[Sequence[tuple[Any, ...]]]) -> Iterator[tuple[Any, ...]]:
    """Every box with the slice in which it begins and the one in which it no longer is; neighbours become one."""
    begun: dict[tuple[Any, ...], int] = {}
    for at, boxes in enumerate([*slices, ()]):
        for box in [each for each in begun if each not in boxes]:
            yield (*box, begun.pop(box), at)
        for box in boxes:
            begun.setdefault(box, at)


def _by_place(box: tuple[Any, ...]) -> tuple[int, int, int]:
    return box[6], box[2], box[4]


def _meets(since: int | None, until: int, clock_from: int, clock_to: int) -> bool:
    """Whether an instant of [since, until) has its time of day in [clock_from, clock_to)."""
    if since is None or until - since >= _DAY_US:
        return True
    start = since % _DAY_US
    end = start + until - since
    return any(start < day + clock_to and day + clock_from < end for day in (0, _DAY_US))


def _instant(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + us * _US


def _clock(us: int) -> time:
    return (_EPOCH + us * _US).time()
