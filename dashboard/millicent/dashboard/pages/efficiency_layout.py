"""The Efficiency page before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import aria, chooser, header, icon, panel, segmented
from millicent.dashboard.pages.efficiency_place import CHOSEN, CONTROLS, UNITS
from millicent.dashboard.pages.frame import COMPARE, REFRESH_MS, frame, share
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.state import RANGES

if TYPE_CHECKING:
    from dash.development.base_component import Component

STORES: Final = ("scope", "look", "in", "at", "open", "tick", "choices", "do", "changed")
PLACES: Final = (
    "On this page",
    (("funnel", "From paid to busy", "#flow"), ("grid", "Idle by hour", "#idle"),
     ("list", "Deployments", "#wasteful"), ("scales", "Who carries idle", "#policy"),
     ("bars", "Day by day", "#daily")),
)  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    export = html.A([icon("download"), html.Span("Export")], id="efficiency-export", className="button", href="#",
                    title="What is shown, by day and deployment, as CSV", download="efficiency.csv")  # fmt: skip
    board = html.Div(
        [
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="efficiency-kpis", className="kpis"),
            panel("From paid to busy", "", html.Div(id="flow-body"), id="flow",
                  aside=segmented("efficiency-unit", UNITS, "usd", "Unit", "small")),
            panel("Idle by hour of the week", "", html.Div(id="idle-body"), id="idle"),
            panel("Deployments", "", html.Div(id="wasteful-body"), id="wasteful"),
            panel("Who carries idle", "", html.Div(id="policy-body"), id="policy"),
            _daily_panel(),
        ],
        className="board efficiency",
    )  # fmt: skip
    page = html.Main(
        [header("Efficiency", [share(), export], "efficiency-"), _filter_bar(),
         html.Div(id="efficiency-answer", role="status"), html.Div(id="efficiency-notice"), board,
         html.Div(id="efficiency-drawer", className="drawer")],
        id="main",
    )  # fmt: skip
    stores = [
        dcc.Location(id="efficiency-url", refresh=False),
        dcc.Interval(id="efficiency-clock", interval=REFRESH_MS),
        *(dcc.Store(id=f"efficiency-{name}") for name in STORES),
        dcc.Store(id="efficiency-controls", data=CONTROLS),
    ]
    return frame("/efficiency", page, stores, price_version, PLACES)


def _filter_bar() -> Component:
    compare = dcc.Dropdown(id="efficiency-compare", value="previous", clearable=False, searchable=False,
                           options=[{"value": value, "label": words} for value, words in COMPARE.items()])  # fmt: skip
    filters = [chooser(f"efficiency-{name}", title) for name, title in CHOSEN.items()]
    return html.Div(
        [segmented("efficiency-range", RANGES, "4w", "Period"), compare, *filters],
        className="filters", role="search", **aria(label="Filters"),
    )  # fmt: skip


def _daily_panel() -> Component:
    table = html.Button(icon("table"), id="daily-as-table", type="button", className="button square small",
                        title="Show as a table", **aria(label="Show as a table", controls="daily-table"))  # fmt: skip
    graph = dcc.Graph(id="daily-chart", figure=NOTHING, responsive=True, className="chart", style={"height": "230px"},
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    body = html.Div([html.Ul(id="daily-legend", className="legend"), graph,
                     html.Div(id="daily-table", className="as-table")])  # fmt: skip
    return panel("Day by day", "", body, aside=html.Div(table, className="aside"), id="daily")
