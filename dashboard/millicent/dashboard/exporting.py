"""Files of what a page shows: their addresses, their menu, and the totals that they have to add up to.

Every file is the answer of the HTTP API to the very question of the page: same filters, basis, currency, time zone,
order and limit.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dash import html

from millicent.dashboard import filters
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, icon
from millicent.dashboard.export_files import Sheet
from millicent.dashboard.state import BASES, api_query
from millicent.warehouse.instants import text_of
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    import polars as pl
    from dash.development.base_component import Component

    from millicent.warehouse.query import Basis, Query


WORDS: Final[dict[Basis, str]] = {
    "list": "what API list prices make of every call",
    "billed": "what API providers bill; own hardware is in no sum",
    "effective": "billed API calls, own hardware with idle, charges and credits",
    "usage": "billed API calls, own hardware without idle, charges and credits",
    "marginal": "billed API calls, electricity of own hardware, charges and credits",
}
"""What each cost basis counts."""


class Choice(NamedTuple):
    """Something that can be downloaded: its name, what it is good for, and where it is."""

    label: str
    words: str
    href: str


FORMATS: Final = {
    "csv": ("CSV", "opens everywhere"),
    "xlsx": ("Excel", "typed, with totals and notes"),
    "parquet": ("Parquet", "exact amounts, for tools"),
    "json": ("JSON", "as the API answers"),
}
"""Formats in which any question can be had: name, and what it is good for."""


def menu(query: Query, name: str, also: Sequence[Choice] = ()) -> list[Component]:
    """The children of `{name}-export`: a button, and under it the files of exactly `query`.

    `also` are other files of the page, such as a statement; they stand first.
    """
    return files([*also, *choices(query)], told(query), name)


def choices(query: Query) -> list[Choice]:
    """The files of exactly `query`."""
    return [Choice(label, words, address(query, form)) for form, (label, words) in FORMATS.items()]


def files(choices: Sequence[Choice], words: str, name: str) -> list[Component]:
    """The children of `{name}-export`: a button, and under it `words` and the files to choose from."""
    entries = [
        html.Li(html.A([html.B(choice.label), html.Span(choice.words)], href=choice.href, download=""))
        for choice in choices
    ]
    face = html.Summary([icon("download"), "Export"], className="button")
    body = html.Div([html.P(words), html.Ul(entries)], className="popover")
    return [html.Details([face, body], id=f"{name}-export-menu", className="pop files", **aria(label="Export"))]


def address(query: Query, form: str) -> str:
    """Where the API answers `query` as a file of that form."""
    kept = {}
    if query.order:
        kept["order"] = ",".join(query.order)
    if query.limit:
        kept["limit"] = str(query.limit)
    return api_query(query, **kept, format=form)


def told(query: Query) -> str:
    """What a file of `query` holds, in words: measures, by what, when, on which basis."""
    period = fmt.span(query.period.start, query.period.end)
    basis = BASES.get(query.basis, query.basis)
    return f"{asked(query)} · {period} {fmt.zone()} · {basis} · {query.currency}"


def asked(query: Query) -> str:
    """Measures, by what, in words."""
    measures = [DICTIONARY[name].label for name in query.measures]
    shown = ", ".join(measures[:3]) + (f" and {len(measures) - 3} more" if len(measures) > 3 else "")
    by = [name.replace("_", " ") for name in query.dimensions] + ([query.grain] if query.grain else [])
    return f"{shown} by {', '.join(by)}" if by else shown


def totals(ask: Callable[[Query], pl.DataFrame], query: Query) -> dict[str, Decimal | int | None]:
    """What the rows of an answer add up to, by measure; all of them, where `query` asks for the first few only.

    Ratios are the sum ÷ the sum.
    """
    whole = replace(query, dimensions=(), grain=None, order=(), limit=None)
    frame = ask(whole)
    return frame.row(0, named=True) if frame.height else {}


def sheet(frame: pl.DataFrame, ask: Callable[[Query], pl.DataFrame], query: Query, also: Sequence[str] = ()) -> Sheet:
    """The answer to `query` as a file has it: with totals, and notes that say how it came about.

    Args:
        frame: the answer.
        ask: answers queries.
        query: what was asked.
        also: further notes, such as the rates of exchange.
    """
    found = totals(ask, query)
    notes = [
        ("What", asked(query)),
        ("From", text_of(query.period.start)),
        ("Up to, not included", text_of(query.period.end)),
        ("Filters", "; ".join(map(filters.written, query.filters)) or "none"),
        ("Cost basis", f"{query.basis}: {WORDS[query.basis]}"),
        ("Currency", query.currency),
        ("Time zone of days", f"{query.time_zone}; instants are in UTC"),
        ("Empty cells", "unknown, which is not 0"),
        *(("Rows left out", "the totals are of all rows, of which these are the first") for _ in [query.limit] if _),
        *([("Exchange rates", "; ".join(also))] if also else []),
        ("Written", text_of(datetime.now(UTC).replace(microsecond=0))),
    ]
    defined = [(DICTIONARY[name].label, _definition(name)) for name in query.measures]
    return Sheet(frame, found, [*notes, *defined], file_name(query))


def file_name(query: Query) -> str:
    """Of a file of `query`, without ending: what, by what, and its days."""
    what = "-".join((query.measures[0].removesuffix("_usd").replace("_", "-"), *query.dimensions[:3]))
    return f"millicent-{what}-{query.period.start:%Y-%m-%d}-{query.period.end:%Y-%m-%d}"


def _definition(name: str) -> str:
    measure = DICTIONARY[name]
    return f"{name} ({measure.unit}): {measure.formula}. {measure.words}"
