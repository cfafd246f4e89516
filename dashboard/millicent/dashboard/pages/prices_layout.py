"""The Prices page before its prices: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import header, icon, panel, segmented
from millicent.dashboard.pages.frame import REFRESH_MS, frame, share
from millicent.dashboard.pages.prices_place import CONTROLS
from millicent.dashboard.state import RANGES

if TYPE_CHECKING:
    from dash.development.base_component import Component

TYPING_S: Final = 0.35
PLACES: Final = (
    "On this page",
    (("alert", "Unpriced usage", "#unpriced"), ("search", "Find a price", "#find"),
     ("pen", "Your entries", "#entries"), ("swap", "Repricings", "#repricings")),
)  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    board = html.Div(
        [
            panel("Unpriced usage", "", html.Div(id="unpriced-body"), id="unpriced"),
            panel("Price data", "", html.Div(id="pricedata-body"), id="pricedata"),
            panel("Find a price", "USD per 1M tokens, as of now", html.Div(id="find-body"), aside=_search(), id="find"),
            panel("Your entries", "what you pay where it differs from the price data", html.Div(id="entries-body"),
                  aside=html.Div(id="entries-add", className="aside"), id="entries"),
            panel("Repricings", "stored amounts that were priced again; each can be undone",
                  html.Div(id="repricings-body"), aside=html.Div(id="repricings-add", className="aside"),
                  id="repricings"),
        ],
        className="board prices",
    )  # fmt: skip
    filters = html.Div(segmented("prices-range", RANGES, "4w", "Period of usage"), className="filters")
    page = html.Main(
        [header("Prices", [share()], "prices-"), filters, html.Div(id="prices-answer", role="status"), board,
         html.Div(id="prices-drawer", className="drawer")],
        id="main",
    )  # fmt: skip
    stores = [
        dcc.Location(id="prices-url", refresh=False),
        dcc.Interval(id="prices-clock", interval=REFRESH_MS),
        *(dcc.Store(id=f"prices-{name}") for name in ("scope", "look", "text", "open", "tick", "do", "changed")),
        dcc.Store(id="prices-controls", data=CONTROLS),
    ]
    return frame("/prices", page, stores, price_version, PLACES)


def _search() -> Component:
    field = dcc.Input(id="prices-search", type="search", value="", debounce=TYPING_S, autoComplete="off", name="q",
                      placeholder="Provider or model, such as gpt-4o")  # fmt: skip
    return html.Label([icon("search"), html.Span("Provider or model", className="unseen"), field], className="field")
