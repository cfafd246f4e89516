"""What a period will have cost when it is over, how far that may be off, and which days were out of line.

Pure functions of what whole days cost. Money goes in and comes out as Decimal; the statistics in between are floats,
and only what is forecast ever passes through one: what was spent does not.

The forecast is one method, for everything: a day costs what its weekday cost at the median of the last four weeks,
carried on along the trend of whole weeks (the median slope between any two of the last eight), which fades by 3 % a
day. Medians keep one odd day out of it. How far it is off is measured, not assumed: the same method is asked on every
day of the history that it could have been asked on, and its errors make the band of 80 % (P10 to P90).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Series = tuple[str, str | None]
    """A dimension and one of its values; None is unknown."""

WEEKS: Final = 4
"""Over how many weeks a weekday is looked at."""
TREND_WEEKS: Final = 8
FADING: Final = 0.97
"""What is left of a trend from one day to the next."""
FASTEST: Final = 0.2
"""Most that a trend may add or take in a week, as a share."""
LEAST_DAYS: Final = 5
"""Whole days without which nothing is forecast."""
WEEKLY_FROM: Final = 14
"""Whole days from which on weekdays are told apart."""
KEPT_DAYS: Final = 182
INSIDE: Final = 0.8
"""Share of outcomes that should fall between P10 and P90."""
LEAST_CHECKED: Final = 4
"""Earlier tries without which a band is not checked against what came."""
SMALLEST: Final = 1e-9
LEAST_WEEKDAYS: Final = 2
LEAST_RISE: Final = Decimal("0.2")
"""Rise over the same weekdays, as a share, below which a day is in line."""

METHOD: Final = (
    f"Median of the same weekday over {WEEKS} weeks, along the trend of whole weeks, which fades by "
    f"{1 - FADING:.0%} a day. P10 to P90 from what this method would have missed on earlier days."
)
FEW_DAYS: Final = f"Mean of the days so far, for lack of {WEEKLY_FROM} whole days. No band can be told yet."
OVER: Final = "The period is over: this is what it cost."


@dataclass(frozen=True, slots=True)
class Daily:
    """What a day cost in full, or so far if it is not over; None where that is unknown."""

    day: date
    spend_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Day:
    """What a day will have cost; bounds are None where nothing can be told of them."""

    day: date
    p10_usd: Decimal | None
    p50_usd: Decimal
    p90_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Backtest:
    """How the method would have done on earlier days, for as long a stretch as was forecast (or the history allows).

    Attributes:
        mape: mean error of the sum of a stretch, as a share of it; None without an earlier try.
        coverage: share of sums that were between the P10 and P90 told by tries before them; None where none could be
            told. It should be about 0.8.
        folds: how many days it was tried on.
        days: how long the stretches were.
    """

    mape: Decimal | None
    coverage: Decimal | None
    folds: int
    days: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a period will have cost: P50 is as likely to be exceeded as not; P10 and P90 bound 80 % of outcomes.

    Attributes:
        actual_usd: what it has cost so far.
        p10_usd: unknown where too little is known of earlier days.
        p50_usd: what has been spent, and the forecast of the rest.
        p90_usd: as `p10_usd`.
        days: its days from today on, today in full.
        method: how, in words.
        error: how the method would have done.
    """

    actual_usd: Decimal
    p10_usd: Decimal | None
    p50_usd: Decimal
    p90_usd: Decimal | None
    days: tuple[Day, ...]
    method: str
    error: Backtest


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A day that cost far more than the same weekdays before it.

    `dimension` and `value` say whose day; `impact_ratio` is the share of the expected amount that came on top, None
    where nothing was expected.
    """

    day: date
    dimension: str
    value: str | None
    expected_usd: Decimal
    actual_usd: Decimal
    impact_usd: Decimal
    impact_ratio: Decimal | None


def forecast(
    history: Sequence[Daily], start: date, end: date, today: date, charged_usd: Decimal = Decimal(0)
) -> Forecast | None:
    """What `[start, end)` will have cost.

    Args:
        history: days in order, from the first that is known on; those of the period up to `today` among them, and
            `today` itself as far as it has gone. A day that is not there cost nothing.
        start: first day of the period.
        end: the day after its last.
        today: the day that is not over.
        charged_usd: what the period has cost besides, of which nothing follows for other days.

    Returns:
        None where fewer than five whole days are known and the period is not over.
    """
    spent = {one.day: one.spend_usd or Decimal(0) for one in history}
    actual = charged_usd + sum((usd for day, usd in spent.items() if start <= day < end), Decimal(0))
    if today >= end:
        return Forecast(actual, actual, actual, actual, (), OVER, Backtest(None, None, 0, 0))
    known = _whole_days(history, today)
    if len(known) < LEAST_DAYS:
        return None
    ahead = [max(start, today) + timedelta(days=n) for n in range((end - max(start, today)).days)]
    skipped = (ahead[0] - today).days
    if len(known) < WEEKLY_FROM:
        costs = np.full(len(ahead), known.mean())
        return _told(actual, ahead, costs, spent, None, None, FEW_DAYS, Backtest(None, None, 0, 0))
    costs = _ahead(known[None, -7 * TREND_WEEKS :], skipped + len(ahead))[0, skipped:]
    by_day, by_sum, error = _tried(known, skipped + len(ahead))
    return _told(actual, ahead, costs, spent, by_day, by_sum, METHOD, error)


def anomalies(history: Mapping[Series, Sequence[Daily]], days: Iterable[date], floor_usd: Decimal) -> list[Anomaly]:
    """Days that cost at least a fifth, and at least `floor_usd`, more than the same weekday of the four weeks before.

    They must have cost more than each of these, at least two of which have to be known. Worst first within a day, days
    in order.

    Args:
        history: what days cost, by whose they are, in any order; whole days alone.
        days: those that are looked at.
        floor_usd: the smallest rise that matters.
    """
    looked_at, found = set(days), list[Anomaly]()
    for (dimension, value), series in history.items():
        known = {one.day: one.spend_usd for one in series if one.spend_usd is not None}
        first = min(known, default=date.max)
        for day in looked_at & known.keys():
            earlier = [day - timedelta(weeks=n) for n in range(1, WEEKS + 1)]
            before = sorted(known.get(one, Decimal(0)) for one in earlier if one >= first)
            if len(before) < LEAST_WEEKDAYS:
                continue
            middle = len(before) // 2
            expected = (before[middle] + before[-middle - 1]) / 2
            actual, rise = known[day], known[day] - expected
            if rise >= floor_usd and rise >= expected * LEAST_RISE and actual > before[-1]:
                ratio = rise / expected if expected else None
                found.append(Anomaly(day, dimension, value, expected, actual, rise, ratio))
    return sorted(found, key=lambda one: (one.day, -one.impact_usd, one.dimension, one.value or ""))


def _whole_days(history: Sequence[Daily], today: date) -> Floats:
    """Every day before `today` from the first that cost something on; an unknown one is as its weekday before it."""
    known = {one.day: one.spend_usd for one in history if one.day < today}
    first = min((day for day, usd in known.items() if usd), default=today)
    first = max(first, today - timedelta(days=KEPT_DAYS))
    days = [first + timedelta(days=n) for n in range((today - first).days)]
    costs = np.array([float(known.get(day, Decimal(0)) or 0) for day in days])
    for at, day in enumerate(days):
        if at >= 7 and day in known and known[day] is None:
            costs[at] = costs[at - 7]
    return costs


def _ahead(known: Floats, days: int) -> Floats:
    """The next `days` after each row of `known`, which holds days up to the one before, NaN where there were none."""
    missing = 7 * TREND_WEEKS - known.shape[1]
    padded = np.pad(known, ((0, 0), (max(missing, 0), 0)), constant_values=np.nan)[:, -7 * TREND_WEEKS :]
    weeks = padded.reshape(len(padded), TREND_WEEKS, 7)
    recent = weeks[:, -WEEKS:]
    usual = np.nanmedian(recent, axis=1)
    counted = np.minimum((~np.isnan(recent)).sum(axis=1), WEEKS)
    sums = weeks.sum(axis=2)  # NaN for a week that is not known whole
    later, earlier = np.triu_indices(TREND_WEEKS, 1)[::-1]
    slope = np.nanmedian((sums[:, later] - sums[:, earlier]) / (later - earlier), axis=1)
    level = np.nanmedian(sums[:, -WEEKS:], axis=1)
    growth = np.clip(np.divide(slope, level, out=np.zeros_like(slope), where=level > 0), -FASTEST, FASTEST)
    lead = np.arange(days)
    faded = np.cumsum(FADING ** (lead + 1)) / 7
    since_middle = (counted[:, lead % 7] - 1) / 2  # the median stands for the middle of its weeks
    lifted: Floats = np.maximum(usual[:, lead % 7] * (1 + growth[:, None] * (since_middle + faded)), 0)
    return lifted


def _tried(known: Floats, days: int) -> tuple[float | None, float | None, Backtest]:
    """How far a day, and the sum of `days`, may be off, as shares of the forecast; and how that would have done.

    Stretches that fit the history are tried on every day of it. The band is the error that 80 % of them stayed within,
    wider where few of them are apart from each other, where they are shorter than what is forecast, and where bands
    that were told so have been too narrow for what came.
    """
    length = min(days, max(7, (len(known) - WEEKLY_FROM) // 3), len(known) - WEEKLY_FROM)
    if length < 1:
        return None, None, Backtest(None, None, 0, 0)
    origins = range(WEEKLY_FROM, len(known) - length + 1)
    padded = np.concatenate([np.full(7 * TREND_WEEKS, np.nan), known])
    rows = np.lib.stride_tricks.sliding_window_view(padded, 7 * TREND_WEEKS)[list(origins)]
    told = _ahead(rows, length)
    came = np.lib.stride_tricks.sliding_window_view(known, length)[list(origins)]
    by_day, sums, total = _share(came, told), came.sum(axis=1), told.sum(axis=1)
    by_sum = _share(sums, total)
    tried = len(by_sum)
    sizes, hits = list[float](), list[bool]()  # of what came, in half bands that tries before it told
    for at in range(length + LEAST_CHECKED - 1, tried):
        sizes.append(abs(by_sum[at]) / max(_band(by_sum[: at - length + 1], length, length), SMALLEST))
        hits.append(sizes[-1] <= _widened(sizes[:-length]))
    error = Backtest(
        _ratio(float(np.abs(sums - total).sum() / sums.sum())) if sums.sum() else None,
        _ratio(sum(hits) / len(hits)) if hits else None,
        tried,
        length,
    )
    wider = (1 + length / (tried + length - 1)) * _widened(sizes)
    return _within(by_day) * wider, _band(by_sum, length, days) * _widened(sizes), error


def _band(missed: Floats, length: int, days: int) -> float:
    """Half the width of the band of a sum over `days`, from errors of sums over `length` of days that follow."""
    apart = (len(missed) + length - 1) / length
    longer = math.sqrt(max(1.0, days / length))
    return _within(missed) * (1 + 1 / apart) * longer


def _widened(sizes: Sequence[float]) -> float:
    """By how much bands have to be wider for 80 % of what came to have been inside; never narrower."""
    return max(1.0, _within(np.array(sizes))) if len(sizes) >= LEAST_CHECKED else 1.0


def _within(missed: Floats) -> float:
    """The size that 80 % of errors stayed within."""
    size: float = np.quantile(np.abs(missed), INSIDE).item()
    return size


def _share(came: Floats, told: Floats) -> Floats:
    """Errors as shares of what was told; where nothing was told, all of it if something came."""
    shares: Floats = np.divide(came - told, told, out=(came > 0).astype(float), where=told > 0)
    return shares


def _told(
    actual: Decimal, ahead: list[date], costs: Floats, spent: Mapping[date, Decimal], by_day: float | None,
    by_sum: float | None, method: str, error: Backtest,
) -> Forecast:  # fmt: skip
    """A forecast of money from one of numbers; a day that has cost more already than was told has cost that."""
    days = []
    for day, cost in zip(ahead, costs, strict=True):
        least, middle = spent.get(day, Decimal(0)), _usd(cost)
        low, high = (None, None) if by_day is None else (_usd(cost * max(0, 1 - by_day)), _usd(cost * (1 + by_day)))
        days.append(Day(day, _at_least(low, least), max(middle, least), _at_least(high, least)))
    rest = sum((day.p50_usd - spent.get(day.day, Decimal(0)) for day in days), Decimal(0))
    off = None if by_sum is None else _usd(float(rest) * by_sum)
    return Forecast(
        actual_usd=actual,
        p10_usd=None if off is None else actual + max(rest - off, Decimal(0)),
        p50_usd=actual + rest,
        p90_usd=None if off is None else actual + rest + off,
        days=tuple(days),
        method=method,
        error=error,
    )


def _at_least(value: Decimal | None, least: Decimal) -> Decimal | None:
    return None if value is None else max(value, least)


def _usd(value: Any) -> Decimal:
    """A forecast amount to the cent: more digits would tell nothing."""
    return Decimal(f"{value:.2f}")


def _ratio(value: float) -> Decimal:
    return Decimal(f"{value:.4f}")
