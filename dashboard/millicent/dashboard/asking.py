"""What addresses of the API say of time, and how its answers write instants and amounts."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Final

from millicent.warehouse.instants import midnight, text_of
from millicent.warehouse.query import BadQuery, Period

_RELATIVE: Final = re.compile(r"(\d{1,4})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def period(start: str | None, end: str | None, relative: str | None, zone: tzinfo = UTC) -> Period:
    """`[start, end)`, or so many hours, days or weeks up to the end of this hour; 28 days where nothing is told.

    Days without a time of day, and the month so far, begin at midnight in `zone`.

    Raises:
        BadQuery: it is no period.
    """
    if relative and (start or end):
        raise BadQuery("both period and start or end were given: use one of the two")
    if start or end:
        now = datetime.now(UTC)
        return Period(
            instant("start", start, zone) if start else now - timedelta(days=28),
            instant("end", end, zone) if end else now,
        )
    this_hour_ends = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    if relative == "mtd":
        first = datetime.now(zone).date().replace(day=1)
        return Period(midnight(first, zone), this_hour_ends)
    match = _RELATIVE.fullmatch(relative or "28d")
    if match is None:
        raise BadQuery(f"period {relative!r} is not a number of h, d or w, nor mtd: write 24h, 7d or 4w")
    return Period(this_hour_ends - int(match[1]) * _UNITS[match[2]], this_hour_ends)


def instant(name: str, text: str, zone: tzinfo = UTC) -> datetime:
    """A day, which begins at midnight in `zone`, or an instant as ISO 8601 writes it.

    Raises:
        BadQuery: it is neither.
    """
    try:
        if len(text) == len("2026-11-23"):
            return midnight(date.fromisoformat(text), zone)
        return datetime.fromisoformat(text.replace(" ", "+"))
    except (ValueError, OverflowError) as error:
        raise BadQuery(f"{name} {text!r} is not an instant: write 2026-11-23 or 2026-11-23T08:00:00Z") from error


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON: amounts with all their digits as text, instants in UTC."""
    return {name: _jsonable(value) for name, value in row.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, datetime):
        return text_of(value)
    return value
