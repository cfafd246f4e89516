"""The Cost explorer before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import aria, icon, panel, segmented
from millicent.dashboard.pages.explore_place import GRAINS, NO_OTHER, PLACE, SHAPES, TOPS, title
from millicent.dashboard.pages.frame import page
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import ASKABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

HEIGHT: Final = "300px"
SECTIONS: Final = (
    "On this page",
    (("bars", "Over time", "#explored"), ("swap", "Why it changed", "#why"), ("people", "Who moved it", "#movers"),
     ("table", "Table", "#breakdown")),
)  # fmt: skip
FIRST: Final = ("team", "feature", "model", "deployment", "accelerator", "cost_type", "customer", "project",
                "environment", "provider")  # fmt: skip
"""Dimensions that are offered first."""
USUAL: Final = ("spend_usd", "cost_per_mtok_usd", "total_tokens", "calls", "cost_per_call_usd")
"""Measures that are offered first."""


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    board = html.Div(
        [
            html.Nav(id="explore-path", className="path", **aria(label="What is shown")),
            _chart(),
            panel("Why it changed", "", html.Div(id="why-body"), id="why"),
            panel("Who moved it", "", html.Div(id="movers-body"), id="movers"),
            panel("Table", "", html.Div(id="breakdown-body"), id="breakdown",
                  aside=html.Div([html.Span("columns", className="hint"), _select("and", "Columns", _others())],
                                 className="aside")),
        ],
        className="board explore",
    )  # fmt: skip
    return page(PLACE, price_version, board, stores=("cut",), sections=(SECTIONS,))


def _chart() -> Component:
    table = html.Button(icon("table"), id="explore-as-table", type="button", className="button square small",
                        title="Show as a table", **aria(label="Show as a table", controls="explore-table"))  # fmt: skip
    controls = html.Div(
        [
            _select("in", "Measure", _measures()),
            html.Span("by", className="hint"),
            _select("by", "Cut by", [(name, title(name)) for name in _dimensions()]),
            html.Div(className="grow"),
            segmented("explore-g", GRAINS, "day", "Step of time", "small"),
            segmented("explore-as", SHAPES, "bar", "Drawn as", "small"),
            segmented("explore-top", TOPS, "8", "How many by themselves", "small"),
            table,
        ],
        className="cut",
    )
    graph = dcc.Graph(id="explore-chart", figure=NOTHING, responsive=True, className="chart", style={"height": HEIGHT},
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    body = html.Div(
        [controls, html.Ul(id="explore-legend", className="legend"), graph, html.Div(id="explore-ranks"),
         html.Div(id="explore-table", className="as-table")]
    )  # fmt: skip
    return panel("Over time", "", body, id="explored")


def _select(key: str, words: str, options: Sequence[tuple[str, str]]) -> Component:
    listed = [{"value": value, "label": text} for value, text in options]
    chosen = dcc.Dropdown(id=f"explore-{key}", options=listed, value=options[0][0], clearable=False, maxHeight=340)
    return html.Div(chosen, className="select", role="group", **aria(label=words))


def _dimensions() -> list[str]:
    return [*FIRST, *sorted(name for name in ASKABLE if name not in FIRST)]


def _others() -> list[tuple[str, str]]:
    return [(NO_OTHER, "No second cut"), *((name, title(name)) for name in _dimensions())]


def _measures() -> list[tuple[str, str]]:
    names = [*USUAL, *(name for name in DICTIONARY if name not in USUAL)]
    return [(name, DICTIONARY[name].label) for name in names]
