"""The Overview before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.dashboard.components import aria, chooser, header, icon, panel, segmented
from millicent.dashboard.pages.frame import COMPARE, REFRESH_MS, TITLES, frame, share
from millicent.dashboard.state import BASES, CUTS, FILTERS, RANGES, SCALES

if TYPE_CHECKING:
    from dash.development.base_component import Component

CHART_HEIGHT: Final = "292px"
BURN_HEIGHT: Final = "128px"

CONTROLS: Final = (
    ("p", "range", "4w"), ("vs", "compare", "previous"), ("basis", "basis", "effective"),
    ("by", "cut", "team"), ("in", "scale", "usd"),
    ("cur", None, ""), ("tz", None, ""), *((name, name, None) for name in FILTERS), ("open", None, ""),
)  # fmt: skip
"""Key in the address, id of the control, default; no default means many values."""

NOTHING: Final[dict[str, Any]] = {
    "data": [],
    "layout": {
        "xaxis": {"visible": False},
        "yaxis": {"visible": False},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    },
}
"""A figure without anything in it."""

PLACES: Final = (
    "On this page",
    (("bars", "Spend over time", "#spend"), ("wallet", "Budgets", "#budgets"), ("swap", "What changed", "#changes"),
     ("people", "Teams", "#teams"), ("grid", "Cost per 1M tokens", "#heat"), ("flag", "Days out of line", "#unusual")),
)  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    export = html.A([icon("download"), html.Span("Export")], id="export", className="button", href="#",
                    title="What is shown, by day and team, as CSV", download="millicent.csv")  # fmt: skip
    body = {name: html.Div(id=f"{name}-body") for name in ("changes", "heat", "teams", "unusual")}
    board = html.Div(
        [
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="kpis", className="kpis"),
            _spend_panel(),
            _budgets_panel(),
            panel("What changed", "", body["changes"], id="changes"),
            panel("Teams", "", body["teams"], id="teams"),
            panel("Cost per 1M tokens", "", body["heat"], id="heat"),
            panel("Days out of line", "", body["unusual"], id="unusual"),
        ],
        className="board",
    )
    page = html.Main(
        [
            header("Overview", [share(), export]),
            _filter_bar(),
            html.Div(id="notice"),
            board,
            html.Div(id="drawer", className="drawer"),
        ],
        id="main",
    )
    stores = [
        dcc.Location(id="url", refresh=False),
        dcc.Interval(id="clock", interval=REFRESH_MS),
        *(dcc.Store(id=name) for name in ("scope", "look", "tick", "choices", "open")),
        dcc.Store(id="controls", data=CONTROLS),
    ]
    return frame("/", page, stores, price_version, PLACES)


def _filter_bar() -> Component:
    compare = dcc.Dropdown(id="compare", options=[{"value": value, "label": words} for value, words in COMPARE.items()],
                           value="previous", clearable=False, searchable=False)  # fmt: skip
    filters = [chooser(name, title) for name, title in TITLES.items()]
    return html.Div(
        [segmented("range", RANGES, "4w", "Period"), compare, *filters, html.Div(className="grow"),
         segmented("basis", BASES, "effective", "Cost basis")],
        className="filters", role="search", **aria(label="Filters"),
    )  # fmt: skip


def _spend_panel() -> Component:
    aside = html.Div([segmented("cut", CUTS, "team", "Stack by", "small"),
                      segmented("scale", SCALES, "usd", "Unit", "small"), _as_table("chart")],
                     className="aside")  # fmt: skip
    graph = dcc.Graph(id="chart", figure=NOTHING, responsive=True, style={"height": CHART_HEIGHT}, className="chart",
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    body = html.Div([html.Ul(id="legend", className="legend"), graph, html.Div(id="chart-table", className="as-table")])
    return panel("Spend over time", "daily", body, aside=aside, id="spend")


def _budgets_panel() -> Component:
    graph = dcc.Graph(id="burn", figure=NOTHING, responsive=True, style={"height": BURN_HEIGHT}, className="chart burn",
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    aside = html.Div([html.Div(id="budgets-aside"), _as_table("burn")], className="aside")
    body = html.Div([graph, html.Div(id="burn-table", className="as-table"), html.Div(id="budgets-body")])
    return panel("Budgets", "", body, aside=aside, id="budgets")


def _as_table(graph: str) -> Component:
    """Shows the numbers of a graph."""
    return html.Button(icon("table"), id=f"{graph}-as-table", type="button", className="button square small",
                       title="Show as a table", **aria(label="Show as a table", controls=f"{graph}-table"))  # fmt: skip
