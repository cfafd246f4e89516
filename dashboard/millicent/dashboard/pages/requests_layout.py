"""The Requests page before its calls: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dash import dcc, html

from millicent.dashboard.components import aria, chooser, header, icon, panel, segmented
from millicent.dashboard.listing import CONTROLS, COSTS
from millicent.dashboard.pages.frame import REFRESH_MS, TITLES, frame, share
from millicent.dashboard.state import RANGES

if TYPE_CHECKING:
    from dash.development.base_component import Component


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    export = html.A([icon("download"), html.Span("Export")], id="requests-export", className="button", href="#",
                    title="The calls shown, with every column, as JSON", download="calls.json")  # fmt: skip
    body = html.Div(id="requests-list", className="listing")
    board = html.Div(
        [panel("What single calls cost", "", html.Div(id="spread-body"), id="spread"),
         panel("Calls", "", body, aside=html.Div(id="requests-switch", className="aside"), id="calls")],
        className="board",
    )  # fmt: skip
    page = html.Main(
        [header("Requests", [share(), export], "requests-"), _filter_bar(), html.Div(id="requests-notice"), board,
         html.Div(id="requests-drawer", className="drawer")],
        id="main",
    )  # fmt: skip
    stores = [
        dcc.Location(id="requests-url", refresh=False),
        dcc.Interval(id="requests-clock", interval=REFRESH_MS),
        *(dcc.Store(id=f"requests-{name}") for name in ("scope", "look", "tick", "choices")),
        dcc.Store(id="requests-controls", data=CONTROLS),
    ]
    return frame("/requests", page, stores, price_version)


def _filter_bar() -> Component:
    filters = [chooser(f"requests-{name}", title) for name, title in TITLES.items()]
    chips = html.Div(id="requests-chips", className="chips")
    return html.Div(
        [segmented("requests-range", RANGES, "4w", "Period"), *filters, chips,
         html.Div(className="grow"), segmented("requests-cost", COSTS, "effective", "Cost shown")],
        className="filters", role="search", **aria(label="Filters"),
    )  # fmt: skip
