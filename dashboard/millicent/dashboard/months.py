"""Calendar months as reports are about them: in a time zone, and closed or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

from millicent.warehouse.instants import midnight
from millicent.warehouse.query import Period

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millicent.warehouse.repricings import ClosedPeriod

DAY: Final = timedelta(days=1)
FIRST: Final = 1971
LAST: Final = 8998
_WRITTEN: Final = re.compile(r"(\d{4})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A month of a calendar."""

    year: int
    month: int

    @staticmethod
    def parse(text: str | None) -> Month | None:
        """Read `2026-11`; None where that is no month between 1971 and 8998."""
        found = _WRITTEN.fullmatch(text or "")
        if found is None or not FIRST <= int(found[1]) <= LAST:
            return None
        return Month(int(found[1]), int(found[2]))

    @staticmethod
    def of(instant: datetime, zone: tzinfo = UTC) -> Month:
        """The month in which an instant is by the clock of a time zone."""
        local = instant.astimezone(zone)
        return Month(local.year, local.month)

    @property
    def written(self) -> str:
        """`2026-11`."""
        return f"{self.year}-{self.month:02}"

    @property
    def words(self) -> str:
        """`November 2026`."""
        return f"{date(self.year, self.month, 1):%B %Y}"

    @property
    def short(self) -> str:
        """`Nov`, with the year in January: `Jan 27`."""
        return f"{date(self.year, self.month, 1):{'%b %y' if self.month == 1 else '%b'}}"

    def before(self, months: int = 1) -> Month:
        """The month that many before; after it where negative."""
        at = self.year * 12 + self.month - 1 - months
        return Month(at // 12, at % 12 + 1)

    def period(self, zone: tzinfo = UTC) -> Period:
        """From its first midnight in a time zone to that of the next month, in UTC."""
        after = self.before(-1)
        return Period(*(midnight(date(one.year, one.month, 1), zone) for one in (self, after)))


@dataclass(frozen=True, slots=True)
class Closing:
    """When the last of a month was closed, and by whom."""

    at: datetime
    by: str


def closing(period: Period, closed: Sequence[ClosedPeriod]) -> Closing | None:
    """How a period was closed; None while any of it is open."""
    mine = [one for one in closed if one.start < period.end and period.start < one.end]
    if open_days(period, mine):
        return None
    last = max(mine, key=lambda one: one.closed_at)
    return Closing(last.closed_at, last.actor)


def open_days(period: Period, closed: Sequence[ClosedPeriod]) -> list[Period]:
    """What is to be closed so that all of a period is: the runs of whole UTC days of it that are not closed."""
    start = midnight(period.start.astimezone(UTC).date(), UTC)
    end = period.end.astimezone(UTC)
    if end.time() != time():
        end = midnight(end.date() + DAY, UTC)
    found = []
    for one in sorted(closed, key=lambda one: one.start):
        if one.end <= start or one.start >= end:
            continue
        if start < one.start:
            found.append(Period(start, one.start))
        start = one.end
    return [*found, Period(start, end)] if start < end else found


def over(period: Period, now: datetime) -> bool:
    """Whether a period can be closed: every UTC day that it touches has ended."""
    return all(days.end <= now for days in open_days(period, ()))
