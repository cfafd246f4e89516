"""Where the time of a question is cut: at its bounds, where days of a time zone begin, where another rate holds.

The rollup and deployment-hours know whole UTC hours. An hour that a cut goes through is told in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, case, column, literal_column, values
from sqlalchemy.types import BigInteger, DateTime

from millicent.warehouse.tables import without_zone

if TYPE_CHECKING:
    from datetime import tzinfo

    from sqlalchemy import Values

    from millicent.warehouse.query import Grain, Period

HOUR: Final = timedelta(hours=1)
MOST_DAYS: Final = 20_000
"""Days, weeks or months of a time zone in one answer."""
_LENGTHS: Final[dict[str, timedelta]] = {
    "day": timedelta(days=1), "week": timedelta(weeks=1), "month": timedelta(days=28),
}  # fmt: skip
_MS: Final = timedelta(milliseconds=1)


class Piece(NamedTuple):
    """The part `[start, end)` of a UTC hour."""

    hour: datetime
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a period is cut.

    Attributes:
        begins: instants at which its days, weeks or months begin, the first not after its start; none where they are
            those of UTC, or there are none.
        changes: instants inside it from which another exchange rate holds.
        pieces: of the hours that a bound or a cut goes through; none of all other hours.
    """

    begins: tuple[datetime, ...]
    changes: tuple[datetime, ...]
    pieces: tuple[Piece, ...]

    @staticmethod
    def of(period: Period, begins: Sequence[datetime], changes: Sequence[datetime]) -> Cuts:
        """The cuts of a period at the beginnings of its days and where a rate changes; both ascending."""
        cuts = sorted({period.start, period.end, *(at for at in begins if period.start < at), *changes})
        cut = sorted({hour for at in cuts if (hour := hour_of(at)) != at})
        pieces = [piece for hour in cut for piece in _pieces(hour, period)]
        for at in cuts:
            pieces = [part for piece in pieces for part in _parted(piece, at)] if hour_of(at) != at else pieces
        return Cuts(tuple(begins), tuple(changes), tuple(pieces))

    @property
    def hours(self) -> list[datetime]:
        """The hours that are told in pieces."""
        return list(dict.fromkeys(piece.hour for piece in self.pieces))

    def table(self) -> Values:
        """The pieces as a table: `hour`, `start` (both in UTC), `since` and `until` in milliseconds of the hour."""
        columns = (
            column("hour", DateTime), column("start", DateTime),
            column("since", BigInteger), column("until", BigInteger),
        )  # fmt: skip
        rows = [
            (without_zone(hour), without_zone(start), (start - hour) // _MS, (end - hour) // _MS)
            for hour, start, end in self.pieces
        ]
        return values(*columns, name="pieces").data(rows)


def placed(instant: ColumnElement[Any], bounds: Sequence[datetime]) -> ColumnElement[Any]:
    """How many of `bounds`, which ascend, are not after an instant; found by halving."""

    def found(least: int, most: int) -> ColumnElement[Any]:
        if least == most:
            return literal_column(str(least))
        middle = (least + most) // 2
        earlier = instant < without_zone(bounds[middle])
        return case((earlier, found(least, middle)), else_=found(middle + 1, most))

    return found(0, len(bounds))


def begins(period: Period, grain: Grain, zone: tzinfo) -> tuple[datetime, ...]:
    """The UTC instants at which each day, week (Monday) or month of a time zone in `period` begins.

    The first is not after the period's start. Where clocks skip a midnight the day begins as they do; where they show
    it twice, with the first.

    Raises:
        ValueError: there are more than `MOST_DAYS`.
    """
    if (period.end - period.start) / _LENGTHS[grain] > MOST_DAYS:
        raise ValueError(f"more than {MOST_DAYS:,} {grain}s of {zone}: ask for a shorter period, or for those of UTC")
    found: list[datetime] = []
    for day in _days(period.start.astimezone(zone).date(), grain):
        begun = datetime.combine(day, time(), zone).astimezone(UTC)
        if begun >= period.end:
            break
        if found and begun <= found[-1]:  # a day that a zone left out
            found.pop()
        found.append(begun)
    return tuple(found)


def hour_of(instant: datetime) -> datetime:
    """The UTC hour in which an instant is."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


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
        day += _LENGTHS[grain]


def _pieces(hour: datetime, period: Period) -> list[Piece]:
    start, end = max(hour, period.start), min(hour + HOUR, period.end)
    return [Piece(hour, start.astimezone(UTC), end.astimezone(UTC))] if start < end else []


def _parted(piece: Piece, at: datetime) -> list[Piece]:
    if not piece.start < at < piece.end:
        return [piece]
    return [piece._replace(end=at), piece._replace(start=at)]
