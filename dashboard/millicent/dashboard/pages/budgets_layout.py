"""The Budgets page before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import aria, icon, panel, segmented
from millicent.dashboard.pages.budgets_place import PLACE, SHOWS
from millicent.dashboard.pages.frame import Section, page
from millicent.dashboard.pages.overview_layout import NOTHING

if TYPE_CHECKING:
    from dash.development.base_component import Component

BURN_HEIGHT: Final = "196px"
TYPING_S: Final = 0.35
PLACES: Final[Section] = (
    "On this page",
    (("wallet", "Budgets", "#plan"), ("bars", "The budget", "#one"), ("calendar", "Past periods", "#pasts"),
     ("bell", "Rules and alerts", "#warnings"), ("list", "Revisions", "#revisions")),
)  # fmt: skip
STORES: Final = ("text", "do", "changed", "acted")


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    left = (
        panel("Budgets", "", html.Div(id="plan-body"), id="plan"),
        panel("Past periods", "", html.Div(id="pasts-body"), id="pasts"),
        panel("Revisions", "", html.Div(id="revisions-body"), id="revisions"),
    )
    right = (
        panel("The budget", "", _burn(), aside=html.Div(id="one-aside", className="aside"), id="one"),
        panel("Rules and alerts", "", html.Div(id="warnings-body"), id="warnings"),
    )
    board = html.Div(
        [
            html.Div(id="limits-answer", role="status"),
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="limits-kpis", className="kpis"),
            html.Div(left, className="stack"),
            html.Div(right, className="stack"),
        ],
        className="board limits-of",
    )
    first = (_search(), segmented("limits-show", SHOWS, "all", "Which budgets"))
    actions = [html.Div(id="limits-add", className="sharing")]
    return page(PLACE, price_version, board, actions=actions, stores=STORES, sections=(PLACES,), first=first)


def _burn() -> Component:
    graph = dcc.Graph(id="limit-burn-chart", figure=NOTHING, responsive=True, style={"height": BURN_HEIGHT},
                      className="chart burn", config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    button = html.Button([icon("table"), html.Span("As a table")], id="limit-burn-as-table", type="button",
                         className="button small-text", **aria(controls="limit-burn-table"))  # fmt: skip
    return html.Div(
        [html.Div(id="one-body"), graph, html.Div([html.Ul(id="one-legend", className="legend"), button],
                                                  className="under"),
         html.Div(id="limit-burn-table", className="as-table"), html.Div(id="one-facts")]
    )  # fmt: skip


def _search() -> Component:
    field = dcc.Input(id="limits-search", type="search", value="", debounce=TYPING_S, autoComplete="off", name="q",
                      placeholder="Name, owner or scope")  # fmt: skip
    return html.Label([icon("search"), html.Span("Search budgets", className="unseen"), field], className="field")
