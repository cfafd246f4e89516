"""Dated prices as arrays: which rate a call meets, and what its tokens cost at it, for a whole batch.

An `Entry` is the price list of one model as a grid of cells: dated interval × time of day × request size.
`Rates` lays all entries out in arrays once. A batch is then priced without a loop over its rows:

1. `locate` finds each call's cell;
2. `quantities` splits the inclusive counts into the quantities that are billed, each token once;
3. `amounts` multiplies and rounds.

Arithmetic is on integers. Almost every published price is a whole number of pico-dollars (1e-12 USD) per
token, so amounts at the record's 12 decimals are exact in `int64`. Rows whose price has more digits, or whose
counts could overflow, go through the same code on Python integers at 24 decimals and are rounded once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_EXACT_SCALE = 24
_STORED_SCALE = 12
_EXACT_TO_STORED = 10 ** (_EXACT_SCALE - _STORED_SCALE)
_EXACT = Context(prec=100)
_NEVER = np.iinfo(np.int64).max
_DAY_US = 86_400_000_000

MAX_TOKENS = 10**15
"""No call has more tokens than this; a larger (or negative) count is not a count, and is read as unknown."""


class Kind(NamedTuple):
    """One token kind: where its count is, how it is priced, and which counts already include it."""

    column: str
    price_key: str
    part: str
    within: tuple[str, ...] = ()
    uncached: str | None = None

    @property
    def overlap_of(self) -> tuple[str, ...]:
        """The two kinds of which this one is the overlap, or nothing."""
        nearest = tuple(c for c in self.within if not any(c in KIND[other].within for other in self.within))
        return nearest if len(nearest) > 1 else ()


_IN, _OUT = "input_tokens", "output_tokens"
_READ, _WRITE = "cache_read_tokens", "cache_write_tokens"
_AUDIO, _IMAGE = "input_audio_tokens", "input_image_tokens"

# Most specific first: a kind's quantity is its count less the quantities of the kinds inside it.
KINDS = (
    #    column                     price key                part           within                uncached
    Kind("cache_audio_read_tokens", "cache_audio_read_mtok", "cache_read", (_IN, _READ, _AUDIO), _AUDIO),
    Kind("cache_image_read_tokens", "cache_image_read_mtok", "cache_read", (_IN, _READ, _IMAGE), _IMAGE),
    Kind("cache_write_5m_tokens", "cache_write_5m_mtok", "cache_write", (_IN, _WRITE), _IN),
    Kind("cache_write_1h_tokens", "cache_write_1h_mtok", "cache_write", (_IN, _WRITE), _IN),
    Kind(_READ, "cache_read_mtok", "cache_read", (_IN,), _IN),
    Kind(_WRITE, "cache_write_mtok", "cache_write", (_IN,), _IN),
    Kind(_AUDIO, "input_audio_mtok", "input", (_IN,)),
    Kind(_IMAGE, "input_image_mtok", "input", (_IN,)),
    Kind("input_video_tokens", "input_video_mtok", "input", (_IN,)),
    Kind("reasoning_tokens", "output_reasoning_mtok", "output", (_OUT,)),
    Kind("output_citation_tokens", "output_citation_mtok", "output", (_OUT,)),
    Kind("output_audio_tokens", "output_audio_mtok", "output", (_OUT,)),
    Kind("output_image_tokens", "output_image_mtok", "output", (_OUT,)),
    Kind("output_video_tokens", "output_video_mtok", "output", (_OUT,)),
    Kind(_OUT, "output_mtok", "output"),
    Kind(_IN, "input_mtok", "input"),
)
KIND = {kind.column: kind for kind in KINDS}
INDEX = {kind.column: index for index, kind in enumerate(KINDS)}
PARTS = ("input", "cache_read", "cache_write", "output")
PER_REQUEST_KEY = "requests_kcount"


@dataclass(frozen=True, slots=True)
class Cell:
    """The prices of one cell, in USD per million tokens (per thousand requests for the request fee)."""

    label: str
    prices: Mapping[str, Decimal]

    @property
    def bills_tokens(self) -> bool:
        """False where usage is billed by other units only (hours, characters, pages).

        An empty price list is how the price data writes "free".
        """
        return not self.prices or any(kind.price_key in self.prices for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Entry:
    """The price list of one model, or of one variant of it.

    Attributes:
        provider: Id of the provider whose price list this is.
        model: The model's id on that list.
        variant: The request context it holds for, as sorted `key=value` texts; empty for standard prices.
        dates: Instants (microseconds since 1970, UTC) at which prices change, ascending.
        clocks: Times of day (microseconds since midnight UTC) at which prices change, ascending, 0 excluded.
        sizes: Total input token counts above which prices change, ascending.
        cells: `(dates + 1) × (clocks + 1) × (sizes + 1)` cells, the last axis fastest.
        name: The model's name for people.
        sources: Pages of the provider on which the prices can be read.
        note: What the price list says about itself.
    """

    provider: str
    model: str
    variant: tuple[str, ...]
    dates: tuple[int, ...]
    clocks: tuple[int, ...]
    sizes: tuple[int, ...]
    cells: tuple[Cell, ...]
    name: str | None = None
    sources: tuple[str, ...] = ()
    note: str | None = None

    def bounds(self, offset: int) -> tuple[tuple[int | None, int | None], ...]:
        """The (from, to) of cell `offset` on each axis; None where the axis is open on that side."""
        rest, size = divmod(offset, len(self.sizes) + 1)
        date, clock = divmod(rest, len(self.clocks) + 1)
        axes = ((self.dates, date), (self.clocks, clock), (self.sizes, size))
        return tuple((axis[at - 1] if at else None, axis[at] if at < len(axis) else None) for axis, at in axes)


class Count(NamedTuple):
    """The counts of one token kind: 0 where unknown, and which those are."""

    values: Ints
    unknown: Bools


class Quantities(NamedTuple):
    """What is billed: tokens by index into `KINDS`, each token in one kind only.

    `contradictory` marks calls whose counts leave open what is billed: a part exceeds its whole, or two
    kinds overlap by an unknown count. Their remainders are taken as 0, never negative.
    """

    tokens: Mapping[int, Ints]
    contradictory: Bools


class Amounts(NamedTuple):
    """Amounts in pico-dollars (1e-12 USD), row by row; `overflow` marks those outside DECIMAL(18,12)."""

    total: Ints
    parts: Mapping[str, Ints]
    saving: Ints
    overflow: Bools


class Rates:
    """All entries as arrays. Entry 0 stands for "no entry", and its one cell, cell 0, has no price."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        nothing = Entry("", "", (), (), (), (), (Cell("", {"": Decimal(0)}),))
        self.entries: tuple[Entry, ...] = (nothing, *entries)
        self.cells = tuple(cell for entry in self.entries for cell in entry.cells)
        lengths = [len(entry.cells) for entry in self.entries]
        self.first: Ints = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        self.labels = pl.Series([cell.label or None for cell in self.cells], dtype=pl.String)
        self.bills_tokens: Bools = np.array([cell.bills_tokens for cell in self.cells])

        self._dates = _padded([entry.dates for entry in self.entries])
        self._clocks = _padded([entry.clocks for entry in self.entries])
        self._sizes = _padded([tuple(size + 1 for size in entry.sizes) for entry in self.entries])
        self._clock_slots: Ints = np.array([len(entry.clocks) + 1 for entry in self.entries])
        self._size_slots: Ints = np.array([len(entry.sizes) + 1 for entry in self.entries])

        keys = [kind.price_key for kind in KINDS]
        self.priced: Bools = np.array([[key in cell.prices for cell in self.cells] for key in keys])
        # One more row than there are kinds: the fee per request.
        exact = [[_exact_units(cell.prices.get(key), 10**6) for cell in self.cells] for key in keys]
        exact.append([_exact_units(cell.prices.get(PER_REQUEST_KEY), 10**3) for cell in self.cells])
        self.exact: npt.NDArray[Any] = np.array(exact, dtype=object)
        whole, below = self.exact // _EXACT_TO_STORED, self.exact % _EXACT_TO_STORED
        self._pico: Ints = whole.astype(np.int64)
        self._fine: Bools = below.astype(bool).any(axis=0)
        # Every kind of a call at the dearest price of the book still fits in int64 below this many tokens.
        self._int64_tokens = (_NEVER - int(whole[-1].max())) // (len(KINDS) * max(1, int(whole[:-1].max())))

    def locate(self, entry: Ints, started_at_us: Ints, input_tokens: Ints) -> Ints:
        """The cell of each call: its entry's, at its instant, its time of day (UTC) and its size."""
        slot = _rank(self._dates, entry, started_at_us) * self._clock_slots[entry]
        if len(self._clocks):
            slot += _rank(self._clocks, entry, np.mod(started_at_us, _DAY_US))
        slot *= self._size_slots[entry]
        slot += _rank(self._sizes, entry, input_tokens)
        slot += self.first[entry]
        return slot

    def quantities(self, cell: Ints, counts: Mapping[str, Count]) -> Quantities:
        """Split inclusive counts into billed quantities, by the prices that each call's cell has.

        Tokens of a kind without a price of its own stay in the kind that includes them, as in
        `genai_prices.decompose`.
        """
        used = {column: count for column, count in counts.items() if count.values.any()}
        contradictory = np.zeros(len(cell), dtype=np.bool_)
        tokens: dict[int, Ints] = {}
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
            for inner, amount in tokens.items():
                if kind.column in KINDS[inner].within:
                    quantity = quantity - amount
            if inside:
                contradictory |= quantity < 0
                quantity = np.maximum(quantity, 0)
            tokens[index] = quantity
        return Quantities(tokens, contradictory)

    def amounts(self, cell: Ints, tokens: Mapping[int, Ints]) -> Amounts:
        """Price billed quantities at their cells.

        The total is rounded once, half-even, to 12 decimals; so is each part, and what rounding leaves
        between them goes to the largest part. `saving` is what cached tokens would have cost as plain
        input, less what they did cost, cache writes included; it is negative where writing cost more.
        """
        parts, saving = _sums(self._pico, cell, tokens)
        total = parts.sum(axis=0)
        overflow = np.zeros(len(cell), dtype=np.bool_)

        wide = self._fine[cell]
        for quantity in tokens.values():
            wide = wide | (quantity > self._int64_tokens)
        rows = np.flatnonzero(wide)
        if len(rows):
            few = {index: quantity[rows].astype(object) for index, quantity in tokens.items()}
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


def _sums(
    prices: npt.NDArray[Any], cell: Ints, tokens: Mapping[int, npt.NDArray[Any]]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Cost by part (one row each, as `PARTS`) and cache saving, in the unit and dtype of `prices`."""
    parts = np.zeros((len(PARTS), len(cell)), dtype=prices.dtype)
    saving = np.zeros(len(cell), dtype=prices.dtype)
    parts[PARTS.index("input")] += prices[-1][cell]
    for index, quantity in tokens.items():
        kind = KINDS[index]
        price = prices[index][cell]
        parts[PARTS.index(kind.part)] += quantity * price
        if kind.uncached is not None:
            saving += quantity * (prices[INDEX[kind.uncached]][cell] - price)
    return parts, saving


def _rounded(exact: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Half-even from 24 to 12 decimals, on Python integers."""
    whole, below = exact // _EXACT_TO_STORED, exact % _EXACT_TO_STORED
    up = (2 * below > _EXACT_TO_STORED) | ((2 * below == _EXACT_TO_STORED) & (whole % 2 == 1))
    rounded: npt.NDArray[Any] = whole + up.astype(object)
    return rounded


def _exact_units(price: Decimal | None, per: int) -> int:
    """`price` USD per `per` units, as an integer of 1e-24 USD per unit.

    Raises:
        ValueError: The price is negative or has more than 18 decimals per million.
    """
    if price is None:
        return 0
    scaled = _EXACT.divide(_EXACT.scaleb(price, _EXACT_SCALE), Decimal(per))
    if scaled < 0 or scaled != scaled.to_integral_value(context=_EXACT):
        raise ValueError(
            f"price {price!r} per {per} cannot be kept exactly: a price is not negative and has at most "
            f"{_EXACT_SCALE} decimals per unit; write it with fewer digits"
        )
    return int(scaled)


def _padded(bounds: Sequence[Sequence[int]]) -> Ints:
    """Boundaries as columns over entries, one row per boundary, "never" where an entry has fewer."""
    table = np.full((max(map(len, bounds), default=0), len(bounds)), _NEVER, dtype=np.int64)
    for entry, values in enumerate(bounds):
        table[: len(values), entry] = values
    return table


def _rank(bounds: Ints, entry: Ints, values: Ints) -> Ints:
    """How many of its entry's boundaries each value has reached."""
    rank = np.zeros(len(entry), dtype=np.int64)
    for boundary in bounds:
        rank += values >= boundary[entry]
    return rank
