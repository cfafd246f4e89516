"""When daily hours of overrides hold: by the wall clock of their zone, on the days that clocks change too."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from millicent.pricing.entries import Override

HORIZON: Final = datetime(2041, 1, 1, tzinfo=UTC)
"""Until then clock changes of zones are followed; later the last offset stays."""

_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_US: Final = timedelta(microseconds=1)
_zone = cache(ZoneInfo)


def in_hours(override: Override, instant: datetime) -> bool:
    """Whether the wall clock of its zone is in the override's hours."""
    start, end = override.daily_from, override.daily_to
    if start is None or end is None:
        return True
    offset = _offset(min(instant, HORIZON - _US), _zone(override.zone))
    clock = (instant.astimezone(UTC) + offset).time()
    return start <= clock < end if start < end else clock >= start or clock < end


@cache
def offsets(zone: str) -> tuple[tuple[datetime, timedelta], ...]:
    """Since when which offset from UTC holds in a zone, from 2000 to the horizon."""
    there = _zone(zone)
    found = [(_FIRST, _offset(_FIRST, there))]
    for day in range((HORIZON - _FIRST).days):
        start, end = _FIRST + day * _DAY, _FIRST + (day + 1) * _DAY
        if end < HORIZON and _offset(start, there) != _offset(end, there):
            while end - start > timedelta(seconds=1):
                middle = start + timedelta(seconds=(end - start) // timedelta(seconds=2))
                start, end = (start, middle) if _offset(middle, there) != _offset(start, there) else (middle, end)
            found.append((end, _offset(end, there)))
    return tuple(found)


def offsets_during(override: Override) -> set[timedelta]:
    """Every offset of an override's zone while it holds."""
    known = offsets(override.zone)
    ends = [*(start for start, _ in known[1:]), None]
    return {
        offset
        for (start, offset), end in zip(known, ends, strict=True)
        if (override.effective_to is None or start < override.effective_to)
        and (end is None or end > override.effective_from)
    }


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()
