"""Where the time of a question is cut: at its bounds, where days of a time zone begin, where another rate holds.

The rollup and deployment-hours know whole UTC hours. An hour that a cut goes through is told in slices, calls of it one
by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
from sqlalchemy import column, table
from sqlalchemy.types import BigInteger, Boolean, DateTime

from millicent.warehouse.exchange import Span
from millicent.warehouse.instants import midnight
from millicent.warehouse.tables import without_zone

if TYPE_CHECKING:
    from datetime import tzinfo

    from millicent.warehouse.query import Grain, Period

HOUR: Final = timedelta(hours=1)
MOST_DAYS: Final = 10_000
"""Days of a period that is cut by days of a time zone or by exchange rates."""
_DAY: Final = timedelta(days=1)
_MS: Final = timedelta(milliseconds=1)
_INSTANT: Final = pa.timestamp("us")


class Slice(NamedTuple):
    """`[start, end)` of a UTC hour, in UTC without saying so, with the time and the place of the rate of its row."""

    hour: datetime
    start: datetime
    end: datetime
    time: datetime | None
    rate: int | None

    @property
    def whole(self) -> bool:
        return self.end - self.start == HOUR


@dataclass(frozen=True, slots=True)
class Cuts:
    """How a period is cut.

    Attributes:
        slices: in order; of all its hours, or only of those that its bounds go through.
        covering: whether of all, because rows are by days of a time zone or by exchange rates.
    """

    slices: tuple[Slice, ...]
    covering: bool

    @staticmethod
    def of(period: Period, begins: Sequence[datetime], spans: Sequence[Span]) -> Cuts:
        """The cuts of a period where its days begin and where a rate changes; both ascending, none for no cut.

        Raises:
            ValueError: the period is longer than `MOST_DAYS`.
        """
        start, end = without_zone(period.start), without_zone(period.end)
        if not begins and len(spans) <= 1:
            edges = dict.fromkeys(hour_of(at) for at in (start, end) if hour_of(at) != at)
            return Cuts(
                tuple(Slice(hour, max(hour, start), min(hour + HOUR, end), None, None) for hour in edges), False
            )
        if end - start > MOST_DAYS * _DAY:
            raise ValueError(f"the period has more than {MOST_DAYS:,} days: ask for a shorter one")
        days, changes = [without_zone(at) for at in begins], [without_zone(span.start) for span in spans]
        return Cuts(tuple(_slices(start, end, days, changes, [span.at for span in spans])), True)

    @property
    def timed(self) -> bool:
        """Whether slices tell the time of their rows."""
        return any(one.time is not None for one in self.slices[:1])

    @property
    def rates(self) -> int:
        """How many exchange rates rows are told apart by; 0 where they are not."""
        found = len({one.rate for one in self.slices})
        return found if found > 1 else 0

    @property
    def partial(self) -> list[Slice]:
        """The slices that are no whole hour."""
        return [one for one in self.slices if not one.whole]

    def frame(self) -> pa.Table:
        """The slices as rows of the table `SLICES`."""
        cut = self.slices
        since = [(one.start - one.hour) // _MS for one in cut]
        columns = {
            "hour": pa.array([one.hour for one in cut], _INSTANT),
            "start": pa.array([one.start for one in cut], _INSTANT),
            "stop": pa.array([one.end for one in cut], _INSTANT),
            "since": pa.array(since, pa.int64()),
            "until": pa.array([(one.end - one.hour) // _MS for one in cut], pa.int64()),
            "time": pa.array([one.time for one in cut], _INSTANT),
            "rate": pa.array([one.rate for one in cut], pa.int32()),
            "whole": pa.array([one.whole for one in cut], pa.bool_()),
        }
        return pa.table(columns)


SLICES: Final = table(
    "slices",
    *(column(name, DateTime) for name in ("hour", "start", "stop", "time")),
    *(column(name, BigInteger) for name in ("since", "until", "rate")),
    column("whole", Boolean),
)
"""`since` and `until` of a slice are in milliseconds of its hour."""


def _slices(
    start: datetime, end: datetime, days: list[datetime], changes: list[datetime], places: list[int | None]
) -> Iterator[Slice]:
    cuts = sorted({at for at in (*days, *changes) if start < at < end})
    hour = hour_of(start)
    while hour < end:
        first, last = max(hour, start), min(hour + HOUR, end)
        inside = cuts[bisect_right(cuts, first) : bisect_right(cuts, last - last.resolution)]
        for begun, ended in pairwise((first, *inside, last)):
            day = days[bisect_right(days, begun) - 1] if days else None
            yield Slice(hour, begun, ended, day, places[bisect_right(changes, begun) - 1] if changes else None)
        hour += HOUR


def begins(period: Period, grain: Grain, zone: tzinfo) -> tuple[datetime, ...]:
    """The UTC instants at which each day, week (Monday) or month of a time zone in `period` begins.

    The first is not after the period's start. Where clocks skip a midnight the day begins as they do; where they show
    it twice, with the first.

    Raises:
        ValueError: the period is longer than `MOST_DAYS`.
    """
    if period.end - period.start > MOST_DAYS * _DAY:
        raise ValueError(f"more than {MOST_DAYS:,} days of {zone}: ask for a shorter period, or for days of UTC")
    found: list[datetime] = []
    for day in _days(period.start.astimezone(zone).date(), grain):
        begun = midnight(day, zone)
        if begun >= period.end:
            break
        if found and begun <= found[-1]:  # a day that a zone left out
            found.pop()
        found.append(begun)
    return tuple(found)


def hour_of(instant: datetime) -> datetime:
    """The hour in which an instant is, by the same clock."""
    return instant.replace(minute=0, second=0, microsecond=0)


def _days(first: date, grain: Grain) -> Iterator[date]:
    """The first day of each day, week or month, from that in which `first` is."""
    if grain == "month":
        months = first.year * 12 + first.month - 1
        while True:
            yield date(months // 12, months % 12 + 1, 1)
            months += 1
    day = first - timedelta(days=first.weekday() if grain == "week" else 0)
    while True:
        yield day
        day += timedelta(days=7 if grain == "week" else 1)
