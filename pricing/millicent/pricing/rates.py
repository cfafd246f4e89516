"""What price lists are made of: the kinds of tokens and their prices, and lists as grids of cells.

`Entry` is the price list of one model as a grid of cells: dated interval × time of day × request size. `tables` lays
entries out in arrays.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from millicent.pricing.units import REQUESTS, UNIT, UNITS

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DAY_US = 86_400_000_000

MAX_TOKENS = 10**15
"""No call has more tokens than this; a larger (or negative) count is not a count, and is read as unknown."""


class Kind(NamedTuple):
    """One token kind: where its count is, how it is priced, and which counts already include it."""

    column: str
    price_key: str
    part: str
    within: tuple[str, ...] = ()
    uncached: str | None = None
    per: int = 10**6

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
PARTS = ("input", "cache_read", "cache_write", "output", "units")
PRICED = (*KINDS, *UNITS)
"""What has prices, in the order of the rows of all tables: token kinds, then other units, the request last."""
UNIT_INDEX = {unit.key: index for index, unit in enumerate(UNITS, start=len(KINDS))}


@dataclass(frozen=True, slots=True)
class Cell:
    """The prices of one cell by price key, in USD per million tokens or per `Unit.per` units.

    `billed` are prices after terms, where they differ from the list; `billed_known` is False where they cannot be told.
    Audio of a request is billed as at least `least_seconds`, unless it has none.
    """

    label: str
    prices: Mapping[str, Decimal]
    billed: Mapping[str, Decimal] | None = None
    billed_known: bool = True
    least_seconds: int = 0


NO_PRICE = Cell("", {"": Decimal(0)}, billed_known=False)
"""The cell of calls that have no price."""

_EVERY_CALL = {*(kind.price_key for kind in KINDS), UNIT[REQUESTS].price_key}


def bills_every_call(prices: Mapping[str, Decimal]) -> bool:
    """False where only units are billed that a call may not report (hours, characters, pages).

    An empty price list is how the price data writes "free".
    """
    return not prices or not _EVERY_CALL.isdisjoint(prices)


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

    def offset(self, at_us: int, input_tokens: int) -> int:
        """The place in `cells` for an instant (microseconds since 1970) and a request size."""
        date = bisect_right(self.dates, at_us)
        clock = bisect_right(self.clocks, at_us % DAY_US)
        size = sum(input_tokens > start for start in self.sizes)
        return (date * (len(self.clocks) + 1) + clock) * (len(self.sizes) + 1) + size

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


class Units(NamedTuple):
    """What calls report besides tokens: counts by unit key, and the calls with a unit or count that nobody knows."""

    counts: Mapping[str, Count]
    odd: Bools

    @property
    def told(self) -> Bools:
        """The calls that report any, 0 included."""
        told = self.odd.copy()
        for count in self.counts.values():
            told |= ~count.unknown
        return told

    def of(self, rows: Ints) -> "Units":
        """Those of some calls only."""
        counts = {key: Count(count.values[rows], count.unknown[rows]) for key, count in self.counts.items()}
        return Units(counts, self.odd[rows])
