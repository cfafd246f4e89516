"""What a page shows, as one value that the URL carries: period, comparison, filters, basis, and how charts are cut.

A permalink is the query string of `View.search()`; whatever is at its default is left out, so the plain address is
the default view. Relative periods stay relative. A key may repeat (`team=search&team=ads`), and an empty value
(`team=`) stands for unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, cast, get_args
from urllib.parse import parse_qsl, quote, urlencode

from millicent.dashboard import filters
from millicent.warehouse.query import Basis, Filter, Grain, Period, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

Range = Literal["7d", "4w", "12w", "mtd"]
Compare = Literal["previous", "none"]
Cut = Literal["team", "model", "accelerator", "cost"]
Scale = Literal["usd", "mtok"]

VERSION: Final = "1"
FILTERS: Final = ("team", "model", "accelerator", "environment")
HARDWARE_FILTERS: Final = (*FILTERS, "engine", "precision", "region", "deployment")
"""What the pages of own hardware can be narrowed to."""
BASES: Final[dict[Basis, str]] = {"effective": "Fully loaded", "usage": "Direct only"}
RANGES: Final[dict[Range, str]] = {"7d": "7d", "4w": "4w", "12w": "12w", "mtd": "MTD"}
CUTS: Final[dict[Cut, str]] = {"team": "Team", "model": "Model", "accelerator": "Accelerator", "cost": "Cost type"}
SCALES: Final[dict[Scale, str]] = {"usd": "$", "mtok": "$/1M"}

_DAYS: Final[dict[Range, int]] = {"7d": 7, "4w": 28, "12w": 84}
_UNESCAPED: Final = "!'()*"
_LIMITS: Final = {"search": 8_000, "values": 200}

Choice = tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One state of a page. `filters` holds the chosen values per dimension; no entry means all."""

    range: Range = "4w"
    compare: Compare = "previous"
    filters: tuple[tuple[str, Choice], ...] = ()
    basis: Basis = "effective"
    cut: Cut = "team"
    scale: Scale = "usd"

    @staticmethod
    def parse(search: str | None, names: tuple[str, ...] = FILTERS) -> View:
        """Read a query string, its filters by `names`. What it cannot mean is ignored: an old link still opens."""
        pairs = pairs_of(search)
        last = dict(pairs)
        if last.get("v", VERSION) != VERSION:
            return View()
        chosen = {name: _unique(value or None for key, value in pairs if key == name) for name in names}
        return View(
            range=cast("Range", _one_of(last.get("p"), get_args(Range), "4w")),
            compare=cast("Compare", _one_of(last.get("vs"), get_args(Compare), "previous")),
            filters=tuple((name, values) for name, values in chosen.items() if values),
            basis=cast("Basis", _one_of(last.get("basis"), tuple(BASES), "effective")),
            cut=cast("Cut", _one_of(last.get("by"), get_args(Cut), "team")),
            scale=cast("Scale", _one_of(last.get("in"), get_args(Scale), "usd")),
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
        return replace(self, filters=tuple((name, now[name]) for name in HARDWARE_FILTERS if name in now))

    def unfiltered(self) -> View:
        return replace(self, filters=())

    def href(self) -> str:
        """Address of this view within its page; never empty, so that a link always leads somewhere."""
        return self.search() or "?"


@dataclass(frozen=True, slots=True)
class Window:
    """A view at one moment: the `period` it covers and the `prior` it is compared with, both on whole UTC hours.

    `period` starts at a UTC midnight and ends with the hour that runs, so the newest call is in it. `prior` has the
    same length, shifted by whole weeks (same weekdays), or for month-to-date to the same elapsed time of the month
    before, so that a change compares like with like although today is not over.
    """

    period: Period
    prior: Period | None

    @staticmethod
    def of(view: View, now: datetime) -> Window:
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        end = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        if view.range == "mtd":
            start = today.replace(day=1)
            before = (start - timedelta(days=1)).replace(day=1)
            prior = Period(before, min(before + (end - start), start))
        else:
            days = timedelta(days=_DAYS[view.range])
            start = today - days + timedelta(days=1)
            prior = Period(start - days, end - days)
        return Window(Period(start, end), prior if view.compare == "previous" else None)

    @property
    def days(self) -> list[datetime]:
        """Each UTC day that the period touches."""
        first = self.period.start
        return [first + timedelta(days=n) for n in range(-((first - self.period.end) // timedelta(days=1)))]

    @property
    def today(self) -> datetime | None:
        """The day that is not over, if the period ends within one."""
        last = self.days[-1]
        return last if last + timedelta(days=1) > self.period.end else None


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
    """The query that a view asks of the warehouse."""
    return Query(
        measures=measures,
        period=period,
        dimensions=by,
        filters=tuple(Filter(name, values) for name, values in view.filters),
        grain=grain,
        basis=view.basis,
    )


def api_query(query: Query, path: str = "/api/v1/query", **extra: str) -> str:
    """The same question as an address of the HTTP API, with its bounds written out."""
    pairs = [("measures", ",".join(query.measures))]
    pairs += [("group_by", ",".join(query.dimensions))] if query.dimensions else []
    pairs += [("filter", filters.written(wanted)) for wanted in query.filters]
    pairs += [("start", instant(query.period.start)), ("end", instant(query.period.end))]
    pairs += [("grain", query.grain)] if query.grain else []
    pairs += [("basis", query.basis), *extra.items()]
    return f"{path}?{urlencode(pairs, quote_via=quote, safe=':,')}"


def instant(moment: datetime) -> str:
    """As the API takes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _one_of(value: str | None, allowed: tuple[str, ...], default: str) -> str:
    return value if value in allowed else default


def _unique(values: Iterable[str | None]) -> Choice:
    return tuple(dict.fromkeys(values))[: _LIMITS["values"]]
