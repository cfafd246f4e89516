"""A figure as it can be opened: which measure, on which basis, of what; how far its drawer is open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast, get_args
from urllib.parse import quote, urlencode

from millicent.dashboard import format as fmt
from millicent.dashboard.components import data, link
from millicent.dashboard.state import pairs_of, question
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import ASKABLE, Basis, Filter, Period, Query

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.dashboard.state import View
    from millicent.warehouse.metrics import Measure

Hour = tuple[str, datetime]
"""Deployment and the instant at which its hour begins."""

OWN: Final = ("cost_type", ("hardware", "idle", "unavailable", "untracked"))
"""What a page of own hardware keeps: calls that own accelerators served, and what of these no call used."""
_LONGEST: Final = 2000
_LONGEST_VALUE: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number on a page, and how far its drawer is open.

    Attributes:
        measure: its name in the dictionary.
        basis: the cost basis it was asked on.
        kept: values of dimensions beyond the filters of the page; None is unknown.
        during: its period where that is shorter than the page's, on whole hours.
        hour: the deployment-hour that is open in the drawer.
        newest: whether hours are listed newest first, rather than most expensive first.
    """

    measure: str
    basis: Basis = "effective"
    kept: tuple[tuple[str, str | None], ...] = ()
    during: Period | None = None
    hour: Hour | None = None
    newest: bool = False

    @staticmethod
    def of(measure: str, /, basis: Basis = "effective", **kept: str | None) -> Figure:
        """A measure, narrowed to one value of each named dimension."""
        return Figure(measure=measure, basis=basis, kept=tuple(kept.items()))

    @staticmethod
    def parse(text: object) -> Figure | None:
        """Read what `written` wrote; None where that is no figure."""
        measure, _, told = text[:_LONGEST].partition("?") if isinstance(text, str) else ("", "", "")
        if measure not in DICTIONARY:
            return None
        pairs = [(name, value[:_LONGEST_VALUE]) for name, value in pairs_of(told)]
        last = dict(pairs)
        basis = last.get("basis", "effective")
        start, end, at = (_instant(last.get(name)) for name in ("from", "to", "at"))
        return Figure(
            measure=measure,
            basis=cast("Basis", basis if basis in get_args(Basis) else "effective"),
            kept=tuple((name, value or None) for name, value in last.items() if name in ASKABLE),
            during=Period(start, end) if start and end and start < end else None,
            hour=(last["of"], at) if at and last.get("of") else None,
            newest=last.get("first") == "newest",
        )

    @property
    def written(self) -> str:
        """As the address carries it, under the key `open`."""
        told: tuple[tuple[str, str | None], ...] = (
            ("basis", self.basis if self.basis != "effective" else None),
            *((name, value or "") for name, value in self.kept),
            ("from", written(self.during.start) if self.during else None),
            ("to", written(self.during.end) if self.during else None),
            ("of", self.hour[0] if self.hour else None),
            ("at", written(self.hour[1]) if self.hour else None),
            ("first", "newest" if self.newest else None),
        )
        pairs = [(name, value) for name, value in told if value is not None]
        return f"{self.measure}?{urlencode(pairs, quote_via=quote)}" if pairs else self.measure

    def asked(self, view: View, period: Period, measures: tuple[str, ...], by: tuple[str, ...] = ()) -> Query:
        """The query behind it, within a view.

        Raises:
            BadQuery: the measure cannot be asked by what is filtered.
        """
        query = question(replace(view, basis=self.basis), period, measures, by)
        return replace(query, filters=(*query.filters, *(Filter(name, (value,)) for name, value in self.kept)))


def own(view: View) -> View:
    """The view of own hardware alone."""
    return replace(view, filters=(*view.filters, OWN))


def sums_of(measure: Measure) -> tuple[str, ...]:
    """The sums that a measure is made of: itself, or numerator and denominator."""
    return (measure.numerator, str(measure.denominator)) if measure.numerator else (measure.name,)


def opener(face: Any, figure: Figure, here: str = "", **props: Any) -> Component:
    """`face` as a link that opens the derivation of `figure`.

    Args:
        face: what is shown.
        figure: what it is.
        here: query string of the page without what is open, so that the link can be opened elsewhere too.
        props: further attributes of the link.
    """
    what = figure.written
    href = f"{here if here not in {'', '?'} else '?v=1'}&open={quote(what, safe='')}"
    return link(face, href, **data(opens=what), **{"className": "figure", **props})


def exact(value: Decimal | int | None, unit: str) -> str:
    """Every digit that is not a trailing zero, in the currency in force; `unknown` for None."""
    if value is None:
        return "unknown"
    text = f"{value:,f}" if isinstance(value, Decimal) else f"{value:,}"
    short = text.rstrip("0").rstrip(".") if "." in text else text
    if unit not in {"usd", "usd_per_mtok"}:
        return short
    sign = fmt.presented().sign
    return f"{fmt.MINUS}{sign}{short[1:]}" if short.startswith("-") else f"{sign}{short}"


def written(instant: datetime) -> str:
    """`2026-11-25T10:00`, in UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _instant(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (
        found if found.year in range(1971, 8999) and not (found.minute or found.second or found.microsecond) else None
    )
