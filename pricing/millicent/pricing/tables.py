"""Price lists as arrays, by which a batch of calls is priced without a loop over its rows.

1. `Rates.locate` finds each call's cell;
2. `Table.quantities` splits the inclusive counts into the quantities that are billed, each token once;
3. `Table.amounts` multiplies and rounds.

Arithmetic is on integers. Almost every published price is a whole number of pico-dollars (1e-12 USD) per
token, so amounts at the record's 12 decimals are exact in `int64`. Rows whose price has more digits, or whose
counts could overflow, go through the same code on Python integers at 24 decimals (ninths of them, since an
hour has 9 × 400 seconds) and are rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from millicent.pricing.rates import (
    DAY_US,
    INDEX,
    KIND,
    KINDS,
    NO_PRICE,
    PARTS,
    PRICED,
    UNIT_INDEX,
    Bools,
    Count,
    Entry,
    Ints,
    Units,
    bills_every_call,
)  # fmt: skip
from millicent.pricing.units import REQUESTS, UNIT, Unit

_EXACT_PER_USD = 9 * 10**24
_EXACT_TO_STORED = 9 * 10**12
_EXACT = Context(prec=100)
_NEVER = np.iinfo(np.int64).max


class Quantities(NamedTuple):
    """What is billed: quantities by index into `PRICED`, each token in one kind only.

    `contradictory` marks calls whose counts leave open what is billed: a part exceeds its whole, or two kinds
    overlap by an unknown count. Their remainders are taken as 0, never negative. `unpriced_units` marks calls with
    units that their cell has no price for, `priced_units` those with any that it has.
    """

    billed: Mapping[int, Ints]
    contradictory: Bools
    unpriced_units: Bools
    priced_units: Bools


class Amounts(NamedTuple):
    """Amounts in pico-dollars (1e-12 USD), row by row; `overflow` marks those outside DECIMAL(18,12)."""

    total: Ints
    parts: Mapping[str, Ints]
    saving: Ints
    overflow: Bools


class Table(NamedTuple):
    """Prices by row of `PRICED` and cell.

    Attributes:
        priced: Whether the cell has a price of its own.
        exact: Prices as Python integers, in ninths of 1e-24 USD per unit.
        pico: Their whole pico-dollars.
        fine: By cell: whether any price has more digits than that.
        int64_units: By cell: as many units of everything, and what caching saves on them, still fit in int64.
        least_seconds: By cell: see `Cell`.
        bills_every_call: By cell: whether it has a price for something that every call has.
        free: By cell: whether everything is free.
    """

    priced: Bools
    exact: npt.NDArray[Any]
    pico: Ints
    fine: Bools
    int64_units: Ints
    least_seconds: Ints
    bills_every_call: Bools
    free: Bools

    @classmethod
    def of(cls, prices: Sequence[Mapping[str, Decimal]], least_seconds: Sequence[int]) -> Table:
        """Lay out the prices of some cells.

        Raises:
            ValueError: A price is negative or has more digits than are kept.
        """
        shape = (len(PRICED), len(prices))
        priced = np.array([[one.price_key in cell for cell in prices] for one in PRICED], dtype=np.bool_)
        exact = np.empty(shape, dtype=object)
        exact[:] = [[_exact_units(cell.get(one.price_key), one.per) for cell in prices] for one in PRICED]
        whole, below = exact // _EXACT_TO_STORED, exact % _EXACT_TO_STORED
        return cls(
            priced=priced.reshape(shape),
            exact=exact,
            pico=whole.astype(np.int64),
            fine=np.asarray(below.astype(bool).any(axis=0)),
            int64_units=(_NEVER // (len(KINDS) * (whole.sum(axis=0) + 1))).astype(np.int64),
            least_seconds=np.array(least_seconds, dtype=np.int64),
            bills_every_call=np.array([bills_every_call(cell) for cell in prices], dtype=np.bool_),
            free=np.array([not cell for cell in prices], dtype=np.bool_),
        )

    def take(self, cells: Ints) -> Table:
        """Only these cells."""
        return Table._make(column[..., cells] for column in self)

    def joined(self, other: Table) -> Table:
        """These cells, then those of another table."""
        return Table._make(np.concatenate(pair, axis=-1) for pair in zip(self, other, strict=True))

    def quantities(self, cell: Ints, counts: Mapping[str, Count], units: Units | None) -> Quantities:
        """Split inclusive counts into billed quantities, by the prices that each call's cell has.

        What has no price of its own stays in the kind or unit that includes it, as in `genai_prices.decompose`.
        """
        contradictory, unpriced, priced = np.zeros((3, len(cell)), dtype=np.bool_)
        billed = self._bill_tokens(cell, counts, contradictory)
        if units is not None:
            self._bill_units(cell, self._at_least(cell, units.counts), billed, contradictory)
            unpriced |= units.odd
            for key, count in units.counts.items():
                covering = [UNIT_INDEX[one] for one in (key, *UNIT[key].within)]
                covered = self.free[cell] | self.priced[covering][:, cell].any(axis=0)
                unpriced |= (count.values > 0) & ~covered
                priced |= covered & ~count.unknown
        return Quantities(billed, contradictory, unpriced, priced)

    def _bill_tokens(self, cell: Ints, counts: Mapping[str, Count], contradictory: Bools) -> dict[int, Ints]:
        used = {column: count for column, count in counts.items() if count.values.any()}
        billed: dict[int, Ints] = {}
        for index, kind in enumerate(KINDS):
            inside = [other for other in used if kind.column in KIND[other].within]
            overlaps = bool(kind.overlap_of) and all(column in used for column in kind.overlap_of)
            if not (kind.column in used or inside or overlaps):
                continue
            priced = self.priced[index][cell]
            if not priced.any():
                continue
            count = counts.get(kind.column)
            unknown = priced if count is None else priced & count.unknown
            if unknown.any():
                for other in inside:
                    contradictory |= unknown & (used[other].values > 0)
                if overlaps:
                    one, two = (used[column].values > 0 for column in kind.overlap_of)
                    contradictory |= unknown & one & two
            quantity = np.zeros(len(cell), dtype=np.int64) if count is None else count.values * priced
            for inner, amount in billed.items():
                if kind.column in KINDS[inner].within:
                    quantity = quantity - amount
            if inside:
                contradictory |= (quantity < 0) & priced
                quantity = np.maximum(quantity, 0)
            billed[index] = quantity
        return billed

    def _bill_units(
        self, cell: Ints, counts: Mapping[str, Count], billed: dict[int, Ints], contradictory: Bools
    ) -> None:
        """Add units to `billed`, each less what is billed as a unit inside it."""
        none = Count(np.zeros(len(cell), dtype=np.int64), np.ones(len(cell), dtype=np.bool_))
        for key, index in UNIT_INDEX.items():
            inside = [other for other in counts if key in UNIT[other].within]
            if key == REQUESTS or (key not in counts and not inside):
                continue
            priced = self.priced[index][cell]
            count = counts.get(key, none)
            quantity: Ints = count.values * priced
            for inner in inside:
                contradictory |= priced & count.unknown & (counts[inner].values > 0)
                quantity = quantity - billed[UNIT_INDEX[inner]]
            contradictory |= (quantity < 0) & priced
            billed[index] = np.maximum(quantity, 0)

    def _at_least(self, cell: Ints, counts: Mapping[str, Count]) -> Mapping[str, Count]:
        """Seconds of audio as they are billed where a request has at least some: the whole is all input there."""
        told = [counts[key] for key in ("audio_seconds", "input_audio_seconds") if key in counts]
        least = self.least_seconds[cell]
        if not told or not least.any():
            return counts
        seconds = np.where(told[0].values > 0, told[0].values, told[-1].values)
        seconds = np.where(seconds > 0, np.maximum(seconds, least), 0)
        unknown = np.logical_and.reduce([count.unknown for count in told])
        changed = dict(counts)
        for key in ("audio_seconds", "input_audio_seconds"):
            was = counts.get(key, Count(np.zeros_like(seconds), np.ones_like(unknown)))
            changed[key] = Count(np.where(least > 0, seconds, was.values), np.where(least > 0, unknown, was.unknown))
        return changed

    def amounts(self, cell: Ints, billed: Mapping[int, Ints]) -> Amounts:
        """Price billed quantities at their cells.

        The total is rounded once, half-even, to 12 decimals; so is each part, and what rounding leaves
        between them goes to the largest part. `saving` is what cached tokens would have cost as plain
        input, less what they did cost, cache writes included; it is negative where writing cost more.
        """
        parts, saving = _sums(self.pico, cell, billed)
        total = parts.sum(axis=0)
        overflow = np.zeros(len(cell), dtype=np.bool_)

        wide = self.fine[cell]
        most = max((int(quantity.max(initial=0)) for quantity in billed.values()), default=0)
        if most > int(self.int64_units.min()):
            limit = self.int64_units[cell]
            for quantity in billed.values():
                wide = wide | (quantity > limit)
        rows = np.flatnonzero(wide)
        if len(rows):
            few = {index: quantity[rows].astype(object) for index, quantity in billed.items()}
            exact_parts, exact_saving = _sums(self.exact, cell[rows], few)
            wide_total = _rounded(exact_parts.sum(axis=0))
            wide_parts = _rounded(exact_parts)
            residue = wide_total - wide_parts.sum(axis=0)
            wide_parts[wide_parts.argmax(axis=0), np.arange(len(rows))] += residue
            wide_saving = _rounded(exact_saving)
            too_large = np.maximum(wide_total, abs(wide_saving)) >= 10**18
            overflow[rows] = too_large.astype(bool)
            total[rows] = np.where(too_large, 0, wide_total).astype(np.int64)
            parts[:, rows] = np.where(too_large, 0, wide_parts).astype(np.int64)
            saving[rows] = np.where(too_large, 0, wide_saving).astype(np.int64)

        overflow |= total >= 10**18
        return Amounts(total, dict(zip(PARTS, parts, strict=True)), saving, overflow)


class Rates:
    """Entries as arrays. Entry 0 stands for "no entry", and its one cell, cell 0, has no price.

    Attributes:
        listed: List prices by cell.
        billed: Prices after terms by cell; where there are no terms, the same.
        terms: By cell: whether `billed` differs.
        billed_known: By cell: whether `billed` can be told.
    """

    def __init__(self, entries: Iterable[Entry], before: Rates | None = None) -> None:
        """Compile entries; with `before`, after those that it has compiled already."""
        nothing = Entry("", "", (), (), (), (), (NO_PRICE,))
        new = tuple(entries) if before else (nothing, *entries)
        self.entries: tuple[Entry, ...] = (*before.entries, *new) if before else new
        slots = [cell for entry in self.entries for cell in entry.cells]
        places = {id(cell): at for at, cell in enumerate({id(cell): cell for cell in slots}.values())}
        self.cells = tuple({id(cell): cell for cell in slots}.values())
        self._cell: Ints = np.array([places[id(cell)] for cell in slots], dtype=np.int64)
        lengths = [len(entry.cells) for entry in self.entries]
        self.first: Ints = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        self.labels = pl.Series([cell.label or None for cell in self.cells], dtype=pl.String)
        self._dates = _padded([entry.dates for entry in self.entries])
        self._clocks = _padded([entry.clocks for entry in self.entries])
        self._sizes = _padded([tuple(size + 1 for size in entry.sizes) for entry in self.entries])
        self._clock_slots: Ints = np.array([len(entry.clocks) + 1 for entry in self.entries])
        self._size_slots: Ints = np.array([len(entry.sizes) + 1 for entry in self.entries])

        added = self.cells[len(before.cells) if before else 0 :]
        least = [cell.least_seconds for cell in added]
        listed = Table.of([cell.prices for cell in added], least)
        self.terms: Bools = np.array([cell.billed is not None for cell in self.cells])
        self.billed_known: Bools = np.array([cell.billed_known for cell in self.cells])
        differing = any(cell.billed is not None for cell in added)
        after = [cell.prices if cell.billed is None else cell.billed for cell in added]
        billed = Table.of(after, least) if differing else listed
        self.listed: Table = before.listed.joined(listed) if before else listed
        self.billed: Table = before.billed.joined(billed) if before else billed

    def locate(self, entry: Ints, started_at_us: Ints, input_tokens: Ints) -> Ints:
        """The cell of each call: its entry's, at its instant, its time of day (UTC) and its size."""
        slot = _rank(self._dates, entry, started_at_us) * self._clock_slots[entry]
        if len(self._clocks):
            slot += _rank(self._clocks, entry, np.mod(started_at_us, DAY_US))
        slot *= self._size_slots[entry]
        slot += _rank(self._sizes, entry, input_tokens)
        slot += self.first[entry]
        cell: Ints = self._cell[slot]
        return cell


def _sums(
    prices: npt.NDArray[Any], cell: Ints, billed: Mapping[int, npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Cost by part (one row each, as `PARTS`) and cache saving, in the unit and dtype of `prices`."""
    parts = np.zeros((len(PARTS), len(cell)), dtype=prices.dtype)
    saving = np.zeros(len(cell), dtype=prices.dtype)
    parts[-1] += prices[-1][cell]
    for index, quantity in billed.items():
        one = PRICED[index]
        price = prices[index][cell]
        if isinstance(one, Unit):
            parts[-1] += quantity * price
            continue
        parts[PARTS.index(one.part)] += quantity * price
        if one.uncached is not None:
            saving += quantity * (prices[INDEX[one.uncached]][cell] - price)
    return parts, saving


def _rounded(exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Half-even from 24 to 12 decimals, on Python integers."""
    whole, below = exact // _EXACT_TO_STORED, exact % _EXACT_TO_STORED
    up = (2 * below > _EXACT_TO_STORED) | ((2 * below == _EXACT_TO_STORED) & (whole % 2 == 1))
    rounded: npt.NDArray[Any] = whole + up.astype(object)
    return rounded


def _exact_units(price: Decimal | None, per: int) -> int:
    """`price` USD per `per` units, as an integer of ninths of 1e-24 USD per unit.

    Raises:
        ValueError: The price is negative or has more than 18 decimals per million.
    """
    if price is None:
        return 0
    scaled = _EXACT.divide(_EXACT.multiply(price, _EXACT_PER_USD), Decimal(per))
    if scaled < 0 or scaled != scaled.to_integral_value(context=_EXACT):
        raise ValueError(
            f"price {price!r} per {per} cannot be kept exactly: a price is not negative and has at most 24 decimals "
            "per unit; write it with fewer digits"
        )
    return int(scaled)


def _padded(bounds: Sequence[Sequence[int]]) -> Ints:
    """Boundaries as columns over entries, one row per boundary, "never" where an entry has fewer.

    There are a power of two less one rows, as `_rank` halves them.
    """
    longest = max(map(len, bounds), default=0)
    table = np.full(((1 << longest.bit_length()) - 1, len(bounds)), _NEVER, dtype=np.int64)
    for entry, values in enumerate(bounds):
        table[: len(values), entry] = values
    return table


def _rank(bounds: Ints, entry: Ints, values: Ints) -> Ints:
    """How many of its entry's boundaries each value has reached, by halving."""
    rank = np.zeros(len(entry), dtype=np.int64)
    step = (len(bounds) + 1) // 2
    while step:
        rank += step * (values >= bounds[rank + (step - 1), entry])
        step //= 2
    return rank
