"""Amounts in another currency, each by the rate of its instant; in integers, half up at 24 decimals."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl
import pyarrow as pa

from millicent.pricing.entries import FxRate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millicent.warehouse.query import Period

SCALE: Final = 24
MOST: Final = 10 ** (38 - SCALE)
"""Amounts in a column are less."""
_STEP: Final = 9
"""Digits of a quotient that are found at once, so that nothing needs more than 128 bits."""


class Rate(NamedTuple):
    """What one unit of `currency` (ISO 4217) is in USD, from `since` until the next rate or `until`."""

    currency: str
    since: datetime
    usd_per_unit: Decimal
    source: str
    until: datetime | None = None

    @property
    def words(self) -> str:
        """`1 EUR = 1.0834 USD from 2026-11-01`."""
        return f"1 {self.currency} = {self.usd_per_unit.normalize():f} USD from {self.since:%Y-%m-%d}"


class Span(NamedTuple):
    """From `start` on the rate at that place of those that were told holds; None where none does."""

    start: datetime
    at: int | None


class TooLargeError(ValueError):
    """An amount in another currency that no column holds."""


def rates(entries: Iterable[FxRate]) -> tuple[Rate, ...]:
    """The rates of entries that are in order, the one that decides last."""
    return tuple(Rate(e.currency, e.effective_from, e.usd_per_unit, e.source, e.effective_to) for e in entries)


def spans(told: Sequence[Rate], period: Period) -> list[Span]:
    """Which rate holds when in a period; `told` is by `since`, and of two of the same instant the last decides."""
    ends = {rate.until for rate in told if rate.until is not None}
    changes = sorted({at for at in {*(rate.since for rate in told), *ends} if period.start < at < period.end})
    found: list[Span] = []
    for start in (period.start, *changes):
        last = bisect_right(told, start, key=lambda rate: rate.since) - 1
        until = told[last].until if last >= 0 else start
        at = last if until is None or start < until else None
        if not found or found[-1].at != at:
            found.append(Span(start, at))
    return found


def converted(frame: pl.DataFrame, amounts: Sequence[str], told: Sequence[Rate]) -> pl.DataFrame:
    """The rows, with the columns `amounts`, which are in USD, in the currency of the rates.

    Args:
        frame: `rate` tells the place of the rate of a row; where it is null no amount is told but 0.
        amounts: names of columns that are DECIMAL(38, 24).
        told: the rates.

    Raises:
        TooLargeError: an amount is 10^14 or more.
    """
    digits = max(map(_decimals, told))
    units = pl.Series("_unit", [int(rate.usd_per_unit.scaleb(digits)) for rate in told], dtype=pl.Int128)
    divisor = units.gather(frame["rate"]).fill_null(1)
    for name in amounts:
        _check(frame[name], divisor, digits)
    whole = frame.with_columns(divisor, *(pl.col(name).to_physical() for name in amounts)).with_columns(
        _divided(name, digits) for name in amounts
    )
    return whole.drop("_unit").with_columns(_decimal(whole[name]) for name in amounts)


def _divided(name: str, digits: int) -> pl.Expr:
    """`name` × 10^digits ÷ `_unit`, by long division."""
    unit = pl.col("_unit")
    quotient, rest, left = pl.col(name) // unit, pl.col(name) % unit, digits
    while left:
        step = min(left, _STEP)
        more = rest * 10**step
        quotient, rest, left = quotient * 10**step + more // unit, more % unit, left - step
    return (quotient + (rest * 2 >= unit).cast(pl.Int128)).alias(name)


def _check(amounts: pl.Series, divisor: pl.Series, digits: int) -> None:
    """That all fit, by the largest amount and the smallest unit."""
    peak, least = amounts.abs().max(), divisor.min()
    if isinstance(peak, Decimal) and isinstance(least, int) and peak.scaleb(digits) / least >= MOST:
        raise TooLargeError(f"{amounts.name} of {peak:f} USD is {MOST:,} or more")


def _decimal(whole: pl.Series) -> pl.Series:
    """Integers as the same digits with the last 24 of them after the point."""
    digits = whole.cast(pl.Decimal(38, 0)).rechunk().to_arrow()
    points = pa.Array.from_buffers(pa.decimal128(38, SCALE), len(digits), digits.buffers(), offset=digits.offset)
    return pl.Series(whole.name, points)


def _decimals(rate: Rate) -> int:
    exponent = rate.usd_per_unit.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
