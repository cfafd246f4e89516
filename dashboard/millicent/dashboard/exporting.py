"""Files of what a page shows: their addresses, their menu, and the totals that they have to add up to.

Every file is the answer of the HTTP API to the very question of the page: same filters, basis, currency, time zone,
order and limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, icon
from millicent.dashboard.state import BASES, api_query
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.warehouse.query import Query


class Choice(NamedTuple):
    """Something that can be downloaded: its name, what it is good for, and where it is."""

    label: str
    words: str
    href: str


FORMATS: Final = {
    "csv": ("CSV", "opens everywhere"),
    "parquet": ("Parquet", "exact amounts, for tools"),
    "json": ("JSON", "as the API answers"),
}
"""Formats in which any question can be had: name, and what it is good for."""


def menu(query: Query, name: str, also: Sequence[Choice] = ()) -> list[Component]:
    """The children of `{name}-export`: a button, and under it the files of exactly `query`.

    `also` are other files of the page, such as a statement; they stand first.
    """
    choices = [*also, *(Choice(label, words, address(query, form)) for form, (label, words) in FORMATS.items())]
    entries = [
        html.Li(html.A([html.B(choice.label), html.Span(choice.words)], href=choice.href, download=""))
        for choice in choices
    ]
    face = html.Summary([icon("download"), "Export"], className="button")
    body = html.Div([html.P(told(query)), html.Ul(entries)], className="popover")
    return [html.Details([face, body], id=f"{name}-export-menu", className="pop files", **aria(label="Export"))]


def address(query: Query, form: str) -> str:
    """Where the API answers `query` as a file of that form."""
    more: dict[str, Any] = {"currency": query.currency, "time_zone": getattr(query, "time_zone", "UTC")}
    kept = {key: value for key, value in more.items() if value not in {"USD", "UTC"}}
    if query.order:
        kept["order"] = ",".join(query.order)
    if query.limit:
        kept["limit"] = str(query.limit)
    return api_query(query, **kept, format=form)


def told(query: Query) -> str:
    """What a file of `query` holds, in words: measures, by what, when, on which basis."""
    measures = [DICTIONARY[name].label for name in query.measures]
    shown = ", ".join(measures[:3]) + (f" and {len(measures) - 3} more" if len(measures) > 3 else "")
    by = [name.replace("_", " ") for name in query.dimensions] + ([query.grain] if query.grain else [])
    cut = f" by {', '.join(by)}" if by else ""
    period = fmt.span(query.period.start, query.period.end)
    return f"{shown}{cut} · {period} {fmt.zone()} · {BASES.get(query.basis, query.basis)} · {query.currency}"
