"""The Alerts page before anything fired: everything has its place already, so that nothing moves when it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import dcc, html

from millicent.dashboard.components import panel, segmented
from millicent.dashboard.pages.alerts_place import PLACE, SHOWN
from millicent.dashboard.pages.frame import Section, page

if TYPE_CHECKING:
    from dash.development.base_component import Component

PLACES: Final[Section] = (
    "On this page",
    (("bell", "Inbox", "#inbox"), ("send", "Endpoints", "#endpoints"), ("sliders", "Rules", "#rules")),
)
PULSE_MS: Final = 2_000
"""How often a drawer is asked for again while it tells of something that is on its way."""


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""
    board = html.Div(
        [
            html.Div(id="alerts-answer", role="status"),
            html.Div(id="alerts-secret"),
            dcc.Interval(id="alerts-pulse", interval=PULSE_MS, disabled=True),
            html.Div([html.Section(className="card kpi") for _ in range(5)], id="alerts-kpis", className="kpis"),
            panel("Inbox", "", html.Div(id="inbox-body"), id="inbox"),
            panel("Endpoints", "where alerts are sent", html.Div(id="endpoints-body"),
                  aside=html.Div(id="endpoints-add", className="aside"), id="endpoints"),
            panel("Rules", "what makes an alert", html.Div(id="rules-body"),
                  aside=html.Div(id="rules-add", className="aside"), id="rules"),
        ],
        className="board alerting",
    )  # fmt: skip
    first = (segmented("alerts-show", SHOWN, "open", "Which alerts"), html.Div(id="alerts-chips", className="chips"))
    return page(PLACE, price_version, board, stores=("do", "changed", "anew", "beat"), sections=(PLACES,), first=first)
