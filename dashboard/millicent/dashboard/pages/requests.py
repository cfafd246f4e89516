"""The Requests page: the single calls behind the sums, dearest first, how much they cost, and each one explained.

The address is the state, as on the Overview. Three callbacks: the list, the histogram, and the call that is open.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode
from uuid import UUID

from dash import ClientsideFunction, Dash, Input, Output, html, no_update

from millicent.dashboard import filters
from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, empty, freshness, link, pill
from millicent.dashboard.listing import CONTROLS, Listing
from millicent.dashboard.pages import requests_table
from millicent.dashboard.pages.answering import no_calls, shelved
from millicent.dashboard.pages.frame import addressed, offered
from millicent.dashboard.pages.requests_drawer import drawer, gone
from millicent.dashboard.pages.requests_layout import layout
from millicent.dashboard.pages.requests_spread import spread
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import FILTERS
from millicent.warehouse.calls import Search, tellings, uncounted
from millicent.warehouse.instants import text_of
from millicent.warehouse.query import BadQuery
from millicent.warehouse.record import NOT_COUNTED
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.dashboard.pages.requests_table import Row
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    browser: Any = app.clientside_callback
    addressed(app, "requests", CONTROLS)
    offered(app, "requests")
    browser(
        ClientsideFunction("millicent", "drawer"),
        Input("requests-drawer", "children"), Input("requests-look", "data"), Input("requests-list", "children"),
    )  # fmt: skip

    @app.callback(
        Output("requests-notice", "children"), Output("requests-words", "children"),
        Output("requests-pills", "children"), Output("requests-export", "href"), Output("calls-words", "children"),
        Output("requests-list", "children"), Output("requests-switch", "children"),
        Output("requests-chips", "children"), Output("requests-choices", "data"),
        Input("requests-scope", "data"), Input("requests-tick", "data"),
    )  # fmt: skip
    async def listed(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_listed, warehouse, Listing.parse(scope))

    @app.callback(
        Output("spread-body", "children"), Output("spread-words", "children"),
        Input("requests-scope", "data"), Input("requests-tick", "data"),
    )  # fmt: skip
    async def spread_out(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_spread, warehouse, Listing.parse(scope))

    @app.callback(
        Output("requests-drawer", "children"), Input("requests-look", "data"), Input("requests-scope", "data")
    )
    async def opened(look: str | None, scope: str | None) -> Any:
        listing = Listing.parse(f"{scope or ''}&{(look or '').removeprefix('?')}")
        return shelved(await asyncio.to_thread(_opened, warehouse, listing))


def _listed(warehouse: Warehouse, listing: Listing) -> list[Any]:
    nothing = ["#", "", None, None, None, no_update]
    try:
        reader = Reader.of(warehouse, replace(listing.view, currency="USD"))
    except PermissionError:
        return [empty("forbidden"), "", [], *nothing]
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), *nothing]
    period = reader.window.period
    rows, following = _page(reader, listing)
    words = f"{fmt.span(period.start, period.end)} {fmt.zone()}"
    fresh = [freshness(reader.fresh, reader.now)]
    beside = [_switch(listing), _chips(listing), {name: reader.choices(name) for name in FILTERS}]
    if not rows:
        clear = Listing(view=listing.view.unfiltered()).href() if listing.narrowed else None
        return [no_calls(reader, clear), words, fresh, "#", "", None, *beside]
    table = requests_table.calls(rows, listing, reader.colours("team"), following)
    body = [_reasons(reader, listing), table] if listing.uncounted else table
    return [None, words, fresh, _export(reader, listing), _counted(reader, listing), body, *beside]


def _spread(warehouse: Warehouse, listing: Listing) -> Any:
    reader = Reader.allowed(warehouse, replace(listing.view, currency="USD"))
    return spread(reader, listing) if reader else (None, "")


def _page(reader: Reader, listing: Listing) -> tuple[list[Row], str | None]:
    """The rows asked for; those of the first page where the place in the list is no place in this one."""
    try:
        return reader.warehouse.find(reader.tenant, listing.asked(reader.window.period))
    except BadQuery:
        return reader.warehouse.find(reader.tenant, replace(listing, after=None).asked(reader.window.period))


def _counted(reader: Reader, listing: Listing) -> str:
    order = "newest first" if listing.newest else "most expensive first"
    if listing.trace:
        return f"everything that this trace told · {order}"
    if listing.least is not None or listing.below is not None:
        return f"of a cost · {order} · click a row to see why it costs what it does"
    number = reader.over(("calls",))["calls"].item() or 0
    return f"{fmt.count(number)} counted · {order} · click a row to see why it costs what it does"


def _reasons(reader: Reader, listing: Listing) -> Component | None:
    """How many rows are not counted, by reason."""
    found = uncounted(reader.warehouse.engine, reader.tenant, reader.window.period, listing.kept)
    if listing.trace or not found:
        return None
    items = [html.Li([html.B(fmt.count(rows)), " ", NOT_COUNTED.get(reason, reason)]) for reason, rows in found]
    total = fmt.count(sum(rows for _, rows in found))
    return html.Div([html.P([html.B(total), " rows are kept but not counted, so that no call counts twice:"]),
                     html.Ul(items)], className="reasons")  # fmt: skip


def _switch(listing: Listing) -> Component:
    href = listing.href(uncounted=not listing.uncounted, after=None, call=None)
    return html.Button(
        [html.I(className="knob", **aria(hidden="true")), "Show calls that are not counted"], type="button",
        className="switch", role="switch", **data(nav="", href=href),
        **aria(checked="true" if listing.uncounted else "false"),
    )  # fmt: skip


def _chips(listing: Listing) -> list[Any]:
    """What narrows the list and has no control of its own; each takes itself away."""
    chips = []
    for name, values in listing.view.filters:
        if name not in FILTERS:
            told = ", ".join(label(name, value) for value in values)
            kept = tuple(one for one in listing.view.filters if one[0] != name)
            chips.append(_chip([f"{name.replace('_', ' ').capitalize()} ", html.Bdi(told)], listing,
                               view=replace(listing.view, filters=kept)))  # fmt: skip
    if listing.least is not None or listing.below is not None:
        least = fmt.usd(listing.least) if listing.least is not None else "$0"
        told = f"{least} to {fmt.usd(listing.below)}" if listing.below is not None else f"{least} or more"
        chips.append(_chip(f"Cost {told}", listing, least=None, below=None))
    if listing.trace:
        chips.append(_chip(["Trace ", html.Code(f"{listing.trace[:8]}…")], listing, trace=None))
    return chips


def _chip(face: Any, listing: Listing, **without: Any) -> Component:
    href = listing.href(after=None, call=None, **without)
    cross = html.Span("×", **aria(hidden="true"))
    return link([html.Span(face), cross], href, className="button", title="Show calls without this filter")


def _export(reader: Reader, listing: Listing) -> str:
    """What is shown, as an address of the HTTP API."""
    asked = listing.asked(reader.window.period)
    pairs = [("filter", filters.written(wanted)) for wanted in listing.kept]
    pairs += [("start", text_of(reader.window.period.start)), ("end", text_of(reader.window.period.end))]
    pairs += [("order", asked.order), ("limit", str(asked.limit))]
    told = (
        ("trace_id", listing.trace),
        ("cost", asked.cost if listing.least is not None or listing.below is not None else ""),
        ("least_usd", f"{listing.least:f}" if listing.least is not None else ""),
        ("below_usd", f"{listing.below:f}" if listing.below is not None else ""),
        ("cursor", asked.cursor),
        ("include", "uncounted" if listing.uncounted else ""),
    )
    pairs += [(name, value) for name, value in told if value]
    return f"/api/v1/calls?{urlencode(pairs, quote_via=quote, safe=':,')}"


def _opened(warehouse: Warehouse, listing: Listing) -> Component | None:
    if listing.call is None:
        return None
    reader = Reader.allowed(warehouse, replace(listing.view, currency="USD"))
    if reader is None:
        return gone(listing)
    trace, span = UUID(listing.call[0]), int(listing.call[1], 16)
    for period in (reader.window.period, None):  # most calls that are opened are in the period, which is less to read
        asked = Search(trace_id=trace, span_id=span, include_uncounted=True, limit=1, period=period)
        rows, _ = warehouse.find(reader.tenant, asked)
        if rows:
            others = tellings(warehouse.engine, reader.tenant, rows[0]) if rows[0]["counted"] else []
            viewer = preferences(warehouse.control, reader.tenant).trace_link(*listing.call)
            return drawer(rows[0], warehouse.explain(reader.tenant, rows[0]), others, listing, viewer)
    return gone(listing)
