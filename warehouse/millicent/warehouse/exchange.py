"""Amounts in another currency, each by the rate of its instant; in integers, half up at 24 decimals."""

from __future__ import annotations

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
    """From `start` on `rate` holds; None where there is none."""

    start: datetime
    rate: Rate | None


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
        begun = [rate for rate in told if rate.since <= start][-1:]
        rate = next((one for one in begun if one.until is None or start < one.until), None)
        if not found or found[-1].rate != rate:
            found.append(Span(start, rate))
    return found


def converted(frame: pl.DataFrame, amounts: Sequence[str], spanned: Sequence[Span]) -> pl.DataFrame:
    """The rows, with the columns `amounts`, which are in USD, in the currency of the rates.

    Args:
        frame: `rate` tells which of the spans a row is of; without it all are of the first.
        amounts: names of columns that are DECIMAL(38, 24).
        spanned: with a rate wherever there is an amount that is not 0.

    Raises:
        TooLargeError: an amount is 10^14 or more.
    """
    digits = max(_decimals(one.rate) for one in spanned)
    units = [int(one.rate.usd_per_unit.scaleb(digits)) if one.rate else 1 for one in spanned]
    at = frame["rate"] if "rate" in frame.columns else pl.Series([0], dtype=pl.Int32).new_from_index(0, frame.height)
    divisor = pl.Series("_unit", units, dtype=pl.Int128).gather(at)
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


def _decimals(rate: Rate | None) -> int:
    exponent = rate.usd_per_unit.normalize().as_tuple().exponent if rate else 0
    return max(0, -exponent) if isinstance(exponent, int) else 0
