"""How often the facts of each UTC day have changed since this process opened them: what an answer may be kept by.

Every write goes through one engine of one process, so whoever compares two stamps of a period knows whether anything
in it was committed between them. Nothing is stored: who opens the facts anew remembers no answer either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from threading import Lock
from typing import Final

import polars as pl
from sqlalchemy.sql import Executable
from sqlalchemy.sql.dml import UpdateBase

FACTS: Final = {
    "calls": "started_at",
    "usage_hourly": "hour",
    "deployment_hours": "hour",
    "idle_shares": "hour",
    "charges": "charged_at",
}
"""Tables that questions read, each with the column whose day a row belongs to."""

Days = Collection[date]
"""UTC days whose facts change; none where the rows change and no sum over them does."""


class Revisions:
    """Counters by UTC day that only grow, by one as a commit begins; until it ends there is no telling."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._times = Counter[date | None]()
        self._committing = Counter[date | None]()

    def stamp(self, start: datetime, end: datetime) -> int | None:
        """A number that is another one as soon as facts in `[start, end)` are; None while some of them may be changing.

        Reading with the same stamp before and after is reading one state of those days.
        """
        first, last = _day(start), _day(end - timedelta(microseconds=1))
        with self._lock:
            if any(day is None or first <= day <= last for day in self._committing):
                return None
            return sum(times for day, times in self._times.items() if day is None or first <= day <= last)

    @contextmanager
    def changing(self, days: Days | None) -> Iterator[None]:
        """Around a commit that changes `days`, None for any; however it ends, it may have changed them."""
        changed: Collection[date | None] = {None} if days is None else set(days)
        with self._lock:
            self._times.update(changed)
            self._committing.update(changed)
        try:
            yield
        finally:
            with self._lock:
                self._committing.subtract(changed)
                self._committing = +self._committing


def days_of(instants: pl.Series) -> set[date]:
    """The UTC days of instants."""
    return set(instants.dt.date().unique().drop_nulls())


def days_between(start: datetime, end: datetime) -> set[date]:
    """The UTC days that are in `[start, end)`, at least in part."""
    first, last = _day(start), _day(end - timedelta(microseconds=1))
    return {first + timedelta(days=n) for n in range((last - first).days + 1)}


def changed_table(statement: Executable) -> str | None:
    """The table of `FACTS` that a statement changes."""
    name = getattr(statement.table, "name", None) if isinstance(statement, UpdateBase) else None
    return name if name in FACTS else None


def _day(instant: datetime) -> date:
    return instant.astimezone(UTC).date()
