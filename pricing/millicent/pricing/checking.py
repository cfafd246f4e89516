"""What a price entry's members must be: each check yields the problems it finds, naming value, rule and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, time
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, cast
from zoneinfo import ZoneInfo, available_timezones

from millicent.pricing.rates import KINDS
from millicent.pricing.units import UNITS

PRICE_PER: Final[Mapping[str, int]] = {
    **{kind.price_key: 10**6 for kind in KINDS},
    **{unit.price_key: unit.per for unit in UNITS},
}
"""Every price key, and how many tokens or units its price is for."""
DECIMALS: Final = 18
"""Decimals that a price keeps."""
DEAREST: Final = Decimal(10**9)
LONGEST: Final = 1024

_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_LONGEST_NAME: Final = 256
_MOST_TOKENS: Final = 10**15


def kept_decimals(key: str) -> int:
    """Decimals that a price of this key keeps: 18, and 15 where it is for a thousand million units."""
    return DECIMALS - 3 if PRICE_PER.get(key) == 10**9 else DECIMALS


def instants(name: str, instant: Any, *, within: bool) -> Iterator[str]:
    """An aware instant, `within` what calendars are computed for."""
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        yield f"{name} {instant!r} is no instant with a time zone: write 2026-01-01T00:00:00Z"
    elif within and not _FIRST <= instant <= _LAST:
        yield f"{name} {instant.isoformat()} is not between 2000 and 2100: correct the year"


def periods(start: datetime, end: datetime | None) -> Iterator[str]:
    """A half-open period that is not empty."""
    if _is_instant(start) and _is_instant(end) and end is not None and end <= start:
        yield (
            f"effective_to {end.isoformat()} is not after effective_from {start.isoformat()}: swap them, or leave "
            "effective_to out for an open end"
        )


def beginnings(name: str, instant: datetime | None, *, of_months: bool) -> Iterator[str]:
    """A midnight in UTC, on the first of a month where whole months are charged."""
    if not _is_instant(instant) or instant is None:
        return
    at = instant.astimezone(UTC)
    if at.time() != time() or (of_months and at.day != 1):
        what = "the first of a month" if of_months else "a day"
        yield f"{name} {at.isoformat()} is not at the beginning of {what} in UTC: move it there"


def texts(name: str, value: Any) -> Iterator[str]:
    """Prose of bounded length."""
    if not isinstance(value, str) or len(value) > LONGEST:
        yield f"{name} {str(value)[:40]!r} is not text of at most {LONGEST} characters: shorten it"


def sources(value: Any) -> Iterator[str]:
    """Where figures can be checked: never blank."""
    yield from texts("source", value)
    if isinstance(value, str) and not value.strip():
        yield "source is blank: name the page, contract or mail that the figures can be checked against"


def names(name: str, value: Any) -> Iterator[str]:
    """A name, or None for any."""
    if value is None:
        return
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or value != value.strip():
        yield (
            f"{name} {value!r} is not a name of 1 to {_LONGEST_NAME} characters without blanks around it: correct it, "
            "or leave it out to mean any"
        )


def price_keys(name: str, key: Any) -> Iterator[str]:
    """A price key that the record has a count for."""
    if key not in PRICE_PER:
        yield f"{name} has {key!r}, which is no price key{near(str(key), PRICE_PER)}: write {', '.join(PRICE_PER)}"


def prices(name: str, told: Any) -> Iterator[str]:
    """Prices by key, at least one."""
    if not isinstance(told, Mapping) or not told:
        yield f'{name} {told!r} names no price: write {{"input_mtok": "2.5", "output_mtok": "10"}}, "0" for free'
        return
    for key, price in told.items():
        yield from price_keys(name, key)
        yield from decimals(f"{name}.{key}", price, most=DEAREST, kept=kept_decimals(key))


def decimals(name: str, value: Any, *, most: Decimal, kept: int = DECIMALS, positive: bool = False) -> Iterator[str]:
    """An exact number from 0 to `most`."""
    if not isinstance(value, Decimal):
        yield f"{name} {value!r} is {type(value).__name__}, not an exact number: write a Decimal"
    elif not value.is_finite() or not 0 <= value <= most:
        yield f"{name} {value} is not from 0 to {most:,}: correct it"
    elif positive and not value:
        yield f"{name} is 0, which changes nothing: write a larger number, or leave it out"
    elif -cast("int", value.normalize().as_tuple().exponent) > kept:
        yield f"{name} {value:f} has more than {kept} decimals: round it"


def percents(name: str, value: Any) -> Iterator[str]:
    """More than nothing and at most everything."""
    yield from decimals(name, value, most=Decimal(100), kept=12, positive=True)


def tiers(told: tuple[tuple[Any, Any], ...]) -> Iterator[str]:
    """(above_usd, percent_off), upwards."""
    if not told:
        yield 'tiers are missing: write [{above_usd = "10000", percent_off = "5"}]'
    last = Decimal(-1)
    for above, percent in told:
        yield from decimals("tiers.above_usd", above, most=Decimal(10**15), kept=12)
        yield from percents("tiers.percent_off", percent)
        if isinstance(above, Decimal):
            if above <= last:
                yield f"tiers.above_usd {above} is not above the one before, {last}: order them upwards"
            last = above


def sizes(told: tuple[tuple[Any, Any], ...]) -> Iterator[str]:
    """(input tokens, prices), upwards."""
    last = -1
    for tokens, at_size in told:
        if isinstance(tokens, bool) or not isinstance(tokens, int) or not last < tokens <= _MOST_TOKENS:
            yield f"above {tokens!r} is no number of input tokens larger than the one before: order them upwards"
        else:
            last = tokens
        yield from prices(f"above {tokens}", at_size)


def lists(name: str, told: str) -> Iterator[str]:
    """`provider/model`."""
    provider, _, model = told.partition("/")
    if not provider.strip() or not model.strip():
        yield f'{name} {told!r} names no list: write provider/model, such as "openai/gpt-4o"'


def clocks(start: Any, end: Any, zone: Any) -> Iterator[str]:
    """A daily period by the wall clock of a zone, or none."""
    if (start is None) != (end is None):
        yield "daily_from and daily_to go together: write both, or neither for the whole day"
    for name, clock in (("daily_from", start), ("daily_to", end)):
        if clock is not None and (not isinstance(clock, time) or clock.tzinfo is not None):
            yield f"{name} {clock!r} is no wall-clock time: write 22:00, and its zone in zone"
    if start is not None and start == end:
        yield f"daily_from and daily_to are both {start}: leave both out for the whole day"
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError, TypeError):
        yield f"zone {zone!r} is no time zone{near(str(zone), _zones())}: write Europe/Berlin"


def currencies(currency: Any) -> Iterator[str]:
    """An ISO 4217 code."""
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        yield f"currency {currency!r} is no currency: write its code in capitals, such as EUR"


def near(name: str, known: Iterable[str]) -> str:
    """What was perhaps meant, in brackets, or nothing."""
    close = get_close_matches(name, tuple(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _is_instant(instant: Any) -> bool:
    return isinstance(instant, datetime) and instant.tzinfo is not None


@cache
def _zones() -> tuple[str, ...]:
    return tuple(sorted(available_timezones()))
