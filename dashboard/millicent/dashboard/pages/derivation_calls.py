"""The calls behind a figure: how many, the most expensive of them, and the way to all of them on Requests."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import icon, link
from millicent.dashboard.listing import LISTED, Listing
from millicent.dashboard.pages.figures import exact
from millicent.dashboard.state import RANGES, View
from millicent.warehouse.calls import Search, find
from millicent.warehouse.query import Filter, Period

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.dashboard.pages.figures import Figure
    from millicent.dashboard.reader import Reader
    from millicent.dashboard.state import Choice

MOST: Final = 5
BILLING: Final = {"api": "api", "hardware": "self_hosted"}
"""How calls tell of the cost types that calls have."""


def calls(reader: Reader, figure: Figure, period: Period) -> Component:
    """The most expensive calls behind a figure, and a link to all of them; or why there are none."""
    kept = kept_by(reader.view, figure)
    if kept is None:
        return html.P("No call is behind it: it is what own hardware cost beside its calls.", className="quiet")
    number = reader.warehouse.ask(reader.tenant, figure.asked(reader.view, period, ("calls",))).frame["calls"].item()
    if not number:
        return html.P("No call is behind it in this period.", className="quiet")
    filters = tuple(Filter(name, values) for name, values in kept)
    asked = Search(period=period, filters=filters, order="-effective_cost_usd", limit=MOST)
    rows, _ = find(reader.warehouse.engine, reader.tenant, asked)
    there = listing(reader, kept, period)
    with fmt.stored():
        lines = html.Table(html.Tbody([_row(row, there) for row in rows]), className="lines")
    face = [icon("list"), f"All {fmt.count(number)} calls" if number > 1 else "The call"]
    way = link(face, f"/requests{there.search()}", className="button", id="its-calls")
    return html.Div([lines, html.Div(way, className="pager start")])


def kept_by(view: View, figure: Figure) -> tuple[tuple[str, Choice], ...] | None:
    """What the calls of a figure are filtered by, as Requests filters; None where no call can be behind it."""
    kept: dict[str, Choice] = {}
    for name, values in (*view.filters, *((name, (value,)) for name, value in figure.kept)):
        key, wanted = name, values
        if name == "cost_type":
            key, wanted = "billing", tuple(BILLING[value] for value in values if value in BILLING)
        narrowed = tuple(value for value in wanted if value in kept[key]) if key in kept else wanted
        if not narrowed:
            return None
        kept[key] = narrowed
    return tuple((name, kept[name]) for name in LISTED if name in kept)


def listing(reader: Reader, kept: tuple[tuple[str, Choice], ...], period: Period) -> Listing:
    """Requests showing the calls of a period: that of the page, or the days that it touches."""
    view, zone = reader.view, reader.window.zone
    dates = view.range
    if period != reader.window.period or dates not in RANGES:
        first, last = (at.astimezone(zone).date() for at in (period.start, period.end - timedelta(microseconds=1)))
        dates = f"{first}..{last}"
    return Listing(view=View(range=dates, filters=kept, currency=view.currency, zone=view.zone))


def _row(row: dict[str, Any], there: Listing) -> Component:
    cost = row["effective_cost_usd"]
    href = f"/requests{there.href(call=(row['trace_id'], row['span_id']))}"
    face = link([fmt.moment(row["started_at"]), f" · {label('model', row['model'])}"], href)
    known = [row[side] for side in ("input_tokens", "output_tokens") if row[side] is not None]
    told = f"{label('team', row['team'])} · {fmt.tokens(sum(known)) if known else 'unknown'} tokens"
    return html.Tr([html.Th([face, html.Small(told)], scope="row"), html.Td(fmt.usd(cost), title=exact(cost, "usd"))])
