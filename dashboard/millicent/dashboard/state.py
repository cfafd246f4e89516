"""What a page shows, as one value that the URL carries: period, comparison, filters, basis, and how charts are cut.

A permalink is the query string of `View.search()`; whatever is at its default is left out, so the plain address is
the default view. Relative periods stay relative. A key may repeat (`team=search&team=ads`), and an empty value
(`team=`) stands for unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, cast, get_args
from urllib.parse import parse_qsl, quote, urlencode

from millicent.dashboard import filters
from millicent.dashboard import format as fmt
from millicent.warehouse.instants import midnight, text_of
from millicent.warehouse.query import Basis, Filter, Grain, Period, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

Range = str
"""One of `RANGES`, or both days of a period in its time zone: `2026-10-01..2026-10-31`."""
Compare = Literal["previous", "year", "none"]
Cut = Literal["team", "model", "accelerator", "cost"]
Scale = Literal["usd", "mtok"]

VERSION: Final = "1"
FILTERS: Final = ("team", "model", "accelerator", "environment")
HARDWARE_FILTERS: Final = (*FILTERS, "engine", "precision", "region", "deployment")
"""What the pages of own hardware can be narrowed to."""
BASES: Final[dict[Basis, str]] = {"effective": "Fully loaded", "usage": "Direct only"}
RANGES: Final[dict[Range, str]] = {"7d": "7d", "4w": "4w", "12w": "12w", "mtd": "MTD", "qtd": "QTD", "ytd": "YTD"}
"""Periods that end now: whole weeks, and the month, quarter and (fiscal) year so far."""
CUTS: Final[dict[Cut, str]] = {"team": "Team", "model": "Model", "accelerator": "Accelerator", "cost": "Cost type"}
SCALES: Final[dict[Scale, str]] = {"usd": "$", "mtok": "$/1M"}

_DAYS: Final[dict[Range, int]] = {"7d": 7, "4w": 28, "12w": 84}
_UNESCAPED: Final = "!'()*"
_DATES: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.\.(\d{4}-\d{2}-\d{2})", re.ASCII)
_ZONE: Final = re.compile(r"[A-Za-z0-9_+\-/]{1,64}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")
_YEARS: Final = range(1971, 8999)
_LONGEST: Final = timedelta(days=1100)
_MONTHS: Final = {"mtd": 1, "qtd": 3, "ytd": 12}
_YEAR_AGO: Final = timedelta(days=364)
_LIMITS: Final = {"search": 8_000, "values": 200}

Choice = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One state of a page. `filters` holds the chosen values per dimension; no entry means all.

    `currency` (ISO 4217) and `zone` (IANA name of the time zone in which days begin) are the workspace's where None.
    """

    range: Range = "4w"
    compare: Compare = "previous"
    filters: tuple[tuple[str, Choice], ...] = ()
    basis: Basis = "effective"
    cut: Cut = "team"
    scale: Scale = "usd"
    currency: str | None = None
    zone: str | None = None

    @staticmethod
    def parse(search: str | None, names: tuple[str, ...] = FILTERS) -> View:
        """Read a query string, its filters by `names`. What it cannot mean is ignored: an old link still opens."""
        pairs = pairs_of(search)
        last = dict(pairs)
        if last.get("v", VERSION) != VERSION:
            return View()
        chosen = {name: _unique(value or None for key, value in pairs if key == name) for name in names}
        return View(
            range=_range(last.get("p")),
            compare=cast("Compare", _one_of(last.get("vs"), get_args(Compare), "previous")),
            filters=tuple((name, values) for name, values in chosen.items() if values),
            basis=cast("Basis", _one_of(last.get("basis"), tuple(BASES), "effective")),
            cut=cast("Cut", _one_of(last.get("by"), get_args(Cut), "team")),
            scale=cast("Scale", _one_of(last.get("in"), get_args(Scale), "usd")),
            currency=_matching(_CURRENCY, last.get("cur")),
            zone=_matching(_ZONE, last.get("tz")),
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default view."""
        default = View()
        pairs: list[tuple[str, str]] = [
            (key, value)
            for key, value, usual in (
                ("p", self.range, default.range),
                ("vs", self.compare, default.compare),
                ("basis", self.basis, default.basis),
                ("by", self.cut, default.cut),
                ("in", self.scale, default.scale),
            )
            if value != usual
        ]
        pairs += [(key, value) for key, value in (("cur", self.currency), ("tz", self.zone)) if value]
        pairs += [(name, value or "") for name, values in self.filters for value in values]
        return f"?{urlencode([('v', VERSION), *pairs], quote_via=quote)}" if pairs else ""

    def chosen(self, dimension: str) -> Choice:
        """The values kept of a dimension; empty means all."""
        return dict(self.filters).get(dimension, ())

    def toggled(self, **values: str | None) -> View:
        """This view narrowed to one value of each named dimension, or widened again if it already was."""
        now = dict(self.filters)
        if all(now.get(name) == (value,) for name, value in values.items()):
            now = {name: kept for name, kept in now.items() if name not in values}
        else:
            now |= {name: (value,) for name, value in values.items()}
        return replace(
            self,
            filters=tuple(
                (name, now[name])
                for name in (*HARDWARE_FILTERS, *sorted(now.keys() - {*HARDWARE_FILTERS}))
                if name in now
            ),
        )

    def bare(self) -> View:
        """Its period, filters, currency and zone alone, as where nothing is compared or cut."""
        return View(range=self.range, filters=self.filters, currency=self.currency, zone=self.zone)

    def unfiltered(self) -> View:
        return replace(self, filters=())

    def href(self) -> str:
        """Address of this view within its page; never empty, so that a link always leads somewhere."""
        return self.search() or "?"


@dataclass(frozen=True, slots=True)
class Window:
    """A view at one moment: the `period` it covers and the `prior` it is compared with, in instants of UTC.

    Days begin at midnight in `zone`. `period` starts with one and ends with the hour that runs, so that the newest call
    is in it, or with the last day of a period that is over. `prior` covers as much time: whole weeks before (same
    weekdays); for the month, quarter or year so far the same elapsed time of the one before; for whole months as many
    months before. Compared with a year ago it is 52 weeks or twelve months before.
    """

    period: Period
    prior: Period | None
    zone: tzinfo = UTC

    @staticmethod
    def of(view: View, now: datetime, zone: tzinfo = UTC, fiscal_month: int = 1) -> Window:
        """The window of `view` at `now`; `fiscal_month` (1 to 12) is that in which quarters and years begin."""
        today = now.astimezone(zone).date()
        hour_ends = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        last = today
        if view.range in _MONTHS:
            first = _months_before(today.replace(day=1), (today.month - fiscal_month) % _MONTHS[view.range])
        elif view.range in _DAYS:
            first = today - timedelta(days=_DAYS[view.range] - 1)
        else:
            first, last = dates_of(view.range) or (today, today)
        start = midnight(first, zone)
        end = max(min(midnight(last + timedelta(days=1), zone), hour_ends), start + timedelta(hours=1))
        period = Period(start, end)
        if view.compare == "none":
            return Window(period, None, zone)
        return Window(period, _before(view, period, first, last, zone), zone)

    @property
    def days(self) -> list[datetime]:
        """Each midnight of `zone`, in UTC, from the start of the period to its end."""
        return list(_midnights(self.period, self.zone))

    @property
    def counterparts(self) -> list[datetime | None]:
        """For each of `days` the midnight that it is compared with; None without one."""
        others: list[datetime | None] = list(_midnights(self.prior, self.zone)) if self.prior else []
        return [*others, *[None] * len(self.days)][: len(self.days)]

    @property
    def today(self) -> datetime | None:
        """The day that is not over, if the period ends within one."""
        last = self.days[-1]
        return last if self.day_after(last) > self.period.end else None

    @property
    def words(self) -> str:
        """The period, its time zone, and what it is compared with, as the time zone in force has them."""
        told = f"{fmt.span(self.period.start, self.period.end)} {fmt.zone()}"
        if self.prior:
            told += f" · compared with {fmt.span(self.prior.start, self.prior.end, year=False)}"
        return told

    def day_after(self, day: datetime, days: int = 1) -> datetime:
        """The midnight that many days after one of `days`; before it where negative."""
        return midnight(day.astimezone(self.zone).date() + timedelta(days=days), self.zone)


@lru_cache(maxsize=256)
def _midnights(period: Period, zone: tzinfo) -> tuple[datetime, ...]:
    first = period.start.astimezone(zone).date()
    last = (period.end - timedelta(microseconds=1)).astimezone(zone).date()
    return tuple(midnight(first + timedelta(days=n), zone) for n in range((last - first).days + 1))


def _before(view: View, period: Period, first: date, last: date, zone: tzinfo) -> Period:
    """What a period is compared with; see `Window`."""
    after, elapsed = last + timedelta(days=1), period.end - period.start
    if view.range in _MONTHS or (view.range not in _DAYS and first.day == after.day == 1):
        length = _MONTHS.get(view.range) or (after.year - first.year) * 12 + after.month - first.month
        back = 12 if view.compare == "year" else length
        start, end = (midnight(_months_before(first, months), zone) for months in (back, back - length))
        over = view.range not in _MONTHS and period.end == midnight(after, zone)
        return Period(start, end if over else min(start + elapsed, end))
    weeks = timedelta(weeks=-(-((last - first).days + 1) // 7))
    shift = _YEAR_AGO if view.compare == "year" else weeks
    start, end = (instant.astimezone(zone) - shift for instant in (period.start, period.end))
    return Period(start.astimezone(UTC), end.astimezone(UTC))


def _months_before(first: date, months: int) -> date:
    """The first day of the month that many months before that of `first`."""
    at = first.year * 12 + first.month - 1 - months
    return date(at // 12, at % 12 + 1, 1)


def _range(text: str | None) -> Range:
    return text if text in RANGES or (text and dates_of(text)) else "4w"


def dates_of(text: str) -> tuple[date, date] | None:
    """Both days of a period, the last included; None where that is none."""
    found = _DATES.fullmatch(text)
    try:
        first, last = (date.fromisoformat(day) for day in found.groups()) if found else (date.max, date.min)
    except ValueError:
        return None
    known = first <= last < first + _LONGEST and first.year in _YEARS and last.year in _YEARS
    return (first, last) if known else None


def pairs_of(search: str | None) -> list[tuple[str, str]]:
    """Keys and values of a query string, cut where it is too long; what is no text becomes question marks."""
    told = (search or "").removeprefix("?")[: _LIMITS["search"]].encode("utf-8", "replace").decode()
    return parse_qsl(told, keep_blank_values=True)


def address(told: Iterable[tuple[str, str | None]]) -> str:
    """The query string of what a page shows, with its `?`; empty where all is at its default, which is None.

    Letters stand as they are where a browser leaves them so, too.
    """
    pairs = [(name, value) for name, value in told if value is not None]
    return f"?{urlencode([('v', VERSION), *pairs], quote_via=quote, safe=_UNESCAPED)}" if pairs else ""


def question(
    view: View, period: Period, measures: tuple[str, ...], by: tuple[str, ...] = (), grain: Grain | None = None
) -> Query:
    """The query that a view asks of the warehouse, in the currency and the time zone in force."""
    shown = fmt.presented()
    return Query(
        measures=measures,
        period=period,
        dimensions=by,
        filters=tuple(Filter(name, values) for name, values in view.filters),
        grain=grain,
        basis=view.basis,
        currency=shown.currency,
        time_zone=str(shown.zone),
    )


def api_query(query: Query, path: str = "/api/v1/query", **extra: str) -> str:
    """The same question as an address of the HTTP API, with its bounds written out."""
    pairs = [("measures", ",".join(query.measures))]
    pairs += [("group_by", ",".join(query.dimensions))] if query.dimensions else []
    pairs += [("filter", filters.written(wanted)) for wanted in query.filters]
    pairs += [("start", text_of(query.period.start)), ("end", text_of(query.period.end))]
    pairs += [("grain", query.grain)] if query.grain else []
    pairs += [("basis", query.basis)]
    pairs += [("currency", query.currency)] if query.currency != "USD" else []
    pairs += [("time_zone", query.time_zone)] if query.time_zone != "UTC" else []
    pairs += [*extra.items()]
    return f"{path}?{urlencode(pairs, quote_via=quote, safe=':,')}"


def _one_of(value: str | None, allowed: tuple[str, ...], default: str) -> str:
    return value if value in allowed else default


def _matching(pattern: re.Pattern[str], text: str | None) -> str | None:
    return text if text and pattern.fullmatch(text) else None


def _unique(values: Iterable[str | None]) -> Choice:
    return tuple(dict.fromkeys(values))[: _LIMITS["values"]]
