"""Why spend changed between two periods: who moved it, and what kind of change it was.

`movers` ranks the values of dimensions by how much each added or took away. `bridge` takes the whole change apart into
effects that add up to it, to the last digit. Both ask through the query layer, in its words, and hold for every basis
and filter that a query can have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from millicent.warehouse.query import Period, Query

    Ask = Callable[[Query], pl.DataFrame]
    """Answers a query of one tenant with its frame."""

NOTHING: Final = Decimal(0)
EXACT: Final = Context(prec=76, rounding=ROUND_HALF_EVEN)
"""In which amounts are added: no digit of an answer of the warehouse is lost."""
PICO: Final = Decimal("1e-12")


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
    """One reason for a change: its `name`, a heading, a sentence that says what it is, and what it amounts to.

    `parts` are those that add most to it, most first; they need not add up to it.
    """

    name: str
    amount_usd: Decimal
    words: str
    title: str = ""
    parts: tuple[Part, ...] = ()


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


def _less(after: Decimal | None, before: Decimal | None) -> Decimal:
    return EXACT.subtract(after or NOTHING, before or NOTHING)
