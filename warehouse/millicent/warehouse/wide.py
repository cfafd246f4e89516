"""Wide answers: all that callers' sums tell by day and by what most questions are cut by, so that one answers many.

A page asks the same days many times over, each time by something else. What is asked of the facts is one wide answer
for each calendar month that is over in full, and for what came since; the rest is adding up some thousand rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Final, NamedTuple

import polars as pl

from millicent.warehouse.cuts import begins
from millicent.warehouse.instants import day_of, midnight
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.narrowing import kept_rows
from millicent.warehouse.query import Period, Query, added, sums_of
from millicent.warehouse.record import COST_TYPE
from millicent.warehouse.workspace import zone

DIMENSIONS: Final = (
    "team", "project", "feature", "environment", "provider", "model", "billing", "price_status", "deployment", "engine",
    "precision", "accelerator", "region", COST_TYPE,
)  # fmt: skip
"""What a wide answer is cut by."""
NOT_ADDED: Final = frozenset({"joules", "wh"})
"""Units whose sums are rounded, so that sums of parts need not be the sum of all."""
SUMS: Final = tuple(
    name for name, one in DICTIONARY.items() if one.sum_of and not one.of_deployments and one.unit not in NOT_ADDED
)
"""What a wide answer tells."""
MOST_ROWS: Final = 8_000
"""Of one wide answer; where names are so many that there are more, questions are asked one by one."""

MOST_NEW: Final = 5
"""Wide questions that one question may have asked: that over a year of which nothing is at hand is asked by itself."""
_DIMENSIONS, _SUMS = frozenset(DIMENSIONS), frozenset(SUMS)


class Piece(NamedTuple):
    """A wide question, and the days of its answer that are wanted; all of them where none are told."""

    question: Query
    days: Period | None


class Pieces(NamedTuple):
    """What answers a question together: days that are over, and what came since, which changes all the time."""

    settled: tuple[Piece, ...]
    live: Piece | None

    @property
    def settled_period(self) -> Period | None:
        """From the first to the last that is settled; None where nothing is."""
        if not self.settled:
            return None
        periods = [one.question.period for one in self.settled]
        return Period(min(one.start for one in periods), max(one.end for one in periods))


def pieces(question: Query, settled_before: datetime) -> Pieces | None:
    """The wide questions that answer a question; None where they cannot, or would have to read single calls.

    Args:
        question: any.
        settled_before: days of the question's time zone that ended before this instant are over.
    """
    told = _DIMENSIONS.issuperset(question.asked()) and _SUMS.issuperset(sums_of(question))
    if question.currency != "USD" and not question.rates:
        return None  # the question as it is says that no rate is known
    if not told or question.grain == "hour" or not question.period.on_the_hour:
        return None
    place, period = zone(question.time_zone), question.period
    cut = _day(settled_before, place)
    settled = [_piece(question, *one) for one in _settled(period.start, min(period.end, cut), cut, place)]
    live = _piece(question, Period(max(period.start, cut), period.end)) if cut < period.end else None
    hourly = all(one.question.period.on_the_hour for one in (*settled, live) if one)
    return Pieces(tuple(settled), live) if hourly else None


def answered(frames: Iterator[tuple[Piece, pl.DataFrame]], question: Query) -> pl.DataFrame:
    """All rows that `question` asks for with all its sums, from the answers to its pieces."""
    rate = ("rate",) if question.rates else ()
    columns = ("time", *rate, *dict.fromkeys((*question.asked(), *sums_of(question))))
    told = [
        frame.select(columns).filter(pl.col("time").is_between(days.start, days.end, closed="left") if days else True)
        for (_, days), frame in frames
    ]
    rows = pl.concat(told).filter(*(kept_rows(one) for one in question.filters))
    if question.grain in {"week", "month"}:
        begun = begins(question.period, question.grain, zone(question.time_zone))
        days = rows["time"].unique().to_list()
        longer = {day: begun[bisect_right(begun, day) - 1] for day in days}
        rows = rows.with_columns(pl.col("time").replace_strict(longer, return_dtype=rows.schema["time"]))
    return added(rows, question)


def _piece(question: Query, period: Period, days: Period | None = None) -> Piece:
    wide = replace(question, measures=SUMS, dimensions=DIMENSIONS, filters=(), period=period, grain="day", order=(),
                   limit=MOST_ROWS + 1, currency="USD")  # fmt: skip
    return Piece(wide, days)


def _settled(start: datetime, end: datetime, cut: datetime, place: tzinfo) -> Iterator[tuple[Period, Period | None]]:
    """`[start, end)` as a part of its first day, whole days out of whole months, and a part of its last."""
    if start >= end:
        return
    first, last = _day(start, place), _day(end, place)
    if first < start:
        first = midnight(day_of(start, place) + timedelta(days=1), place)
        yield Period(start, min(first, end)), None
    month = day_of(first, place).replace(day=1)
    while first < last and midnight(month, place) < last:
        following = (month + timedelta(days=31)).replace(day=1)
        yield Period(midnight(month, place), min(midnight(following, place), cut)), Period(first, last)
        month = following
    if first <= last < end:
        yield Period(last, end), None


def _day(instant: datetime, place: tzinfo) -> datetime:
    return midnight(day_of(instant, place), place)
