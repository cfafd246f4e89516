"""Instants: where days begin, how they are written, and how the control plane holds them.

Its columns hold them in UTC without saying so, everybody else has them aware.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import overload

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator


class Instant(TypeDecorator[datetime]):
    """The type of a column of instants, aware on the way in and on the way out."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - theirs
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone: add Z for UTC or an offset")
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - theirs
        return value.replace(tzinfo=UTC) if value else None


def midnight(day: date, zone: tzinfo) -> datetime:
    """The instant, in UTC, at which a day begins in a time zone."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def day_of(at: datetime, zone: tzinfo) -> date:
    """The day of a time zone that an instant is in: from its midnight, of two the first, to that of the next day."""
    day = at.astimezone(zone).date()
    following = day + timedelta(days=1)
    return following if midnight(following, zone) <= at else day


def hour_after(at: datetime) -> datetime:
    """The instant itself where it is on an hour, else the next that is."""
    whole = at.replace(minute=0, second=0, microsecond=0)
    return whole if whole == at else whole + timedelta(hours=1)


@overload
def text_of(at: datetime) -> str: ...


@overload
def text_of(at: datetime | None) -> str | None: ...


def text_of(at: datetime | None) -> str | None:
    """An instant in ISO 8601, in UTC with a `Z`; None stays None."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None
