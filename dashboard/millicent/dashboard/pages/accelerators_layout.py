"""The Accelerators page before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import aria, chooser, header, icon, panel, segmented
from millicent.dashboard.pages.accelerators_place import CONTROLS, CUTS, PERS
from millicent.dashboard.pages.frame import COMPARE, REFRESH_MS, frame, share
from millicent.dashboard.state import RANGES

if TYPE_CHECKING:
    from dash.development.base_component import Component

TITLES: Final = {
    "team": "Team", "model": "Model", "accelerator": "Accelerator", "environment": "Environment", "engine": "Engine",
    "precision": "Precision", "region": "Region", "deployment": "Deployment",
}  # fmt: skip
SHOWN: Final = ("model", "accelerator", "engine", "precision", "deployment", "region", "environment", "team")
"""Filters as they stand on the page."""
PLACES: Final = (
    "On this page",
    (("bars", "What is cheapest", "#cheapest"), ("clock", "What idle costs", "#idlest"),
     ("chip", "An accelerator-hour", "#rates"), ("grid", "Cost per 1M tokens", "#costs"),
     ("bolt", "Energy and carbon", "#energy")),
)  # fmt: skip
STORES: Final = ("scope", "look", "tick", "choices", "open", "order", "do", "acted",
                 "changed")  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    export = html.A([icon("download"), html.Span("Export")], id="accelerators-export", className="button", href="#",
                    title="The table as CSV, every measure in full", download="accelerators.csv")  # fmt: skip
    board = html.Div(
        [
            html.Div(id="accelerators-lead", className="card lead"),
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="accelerators-kpis", className="kpis"),
            panel("What is cheapest", "", html.Div(id="cheapest-body"), id="cheapest"),
            html.Div(
                [panel("What idle costs", "", html.Div(id="idlest-body"), id="idlest"),
                 panel("An accelerator-hour", "", html.Div(id="rates-body"), id="rates")],
                className="beside",
            ),
            panel("Cost per 1M tokens", "", html.Div(id="costs-body"), id="costs"),
            panel("Energy and carbon", "", html.Div(id="energy-body"), id="energy",
                  aside=segmented("accelerators-by", CUTS, "model", "Energy by", "small")),
        ],
        className="board hardware",
    )  # fmt: skip
    page = html.Main(
        [header("Accelerators", [html.Div(id="accelerators-declare"), share(), export], "accelerators-"), _filter_bar(),
         html.Div(id="accelerators-answer", role="status"),
         html.Div(id="accelerators-notice"), html.Div(id="accelerators-undeclared"), board,
         html.Div(id="accelerators-drawer", className="drawer")],
        id="main",
    )  # fmt: skip
    stores = [
        dcc.Location(id="accelerators-url", refresh=False),
        dcc.Interval(id="accelerators-clock", interval=REFRESH_MS),
        *(dcc.Store(id=f"accelerators-{name}") for name in STORES),
        dcc.Store(id="accelerators-controls", data=CONTROLS),
    ]
    return frame("/accelerators", page, stores, price_version, PLACES)


def _filter_bar() -> Component:
    compare = dcc.Dropdown(
        id="accelerators-compare", options=[{"value": value, "label": words} for value, words in COMPARE.items()],
        value="previous", clearable=False, searchable=False,
    )  # fmt: skip
    filters = [chooser(f"accelerators-{name}", TITLES[name]) for name in SHOWN]
    return html.Div(
        [segmented("accelerators-range", RANGES, "4w", "Period"), compare, *filters, html.Div(className="grow"),
         segmented("accelerators-per", PERS, "total", "Tokens that a cost per million counts")],
        className="filters", role="search", **aria(label="Filters"),
    )  # fmt: skip
