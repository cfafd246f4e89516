"""The Teams page before its numbers: everything has its place already, so that nothing moves when they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard.components import panel, segmented
from millicent.dashboard.pages.frame import Section, page
from millicent.dashboard.pages.teams_place import MANNERS, PLACE

if TYPE_CHECKING:
    from dash.development.base_component import Component

PLACES: Final[Section] = (
    "On this page",
    (("people", "Teams", "#chargeback-teams"), ("book", "Statement", "#statement"),
     ("bars", "Month by month", "#months"), ("scales", "Other policies", "#otherwise"),
     ("list", "Without a team", "#orphans"), ("calendar", "Close the month", "#closing")),
)  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its controls."""

    def part(name: str, title: str, words: str = "") -> Component:
        return panel(title, words, html.Div(id=f"{name}-body"), id=name)

    left = (
        part("chargeback-teams", "Teams"),
        part("months", "Month by month"),
        part("otherwise", "If idle was carried otherwise"),
        part("orphans", "Calls without a team"),
    )
    right = (part("statement", "Statement"), part("closing", "Close the month"))
    board = html.Div(
        [
            html.Div(id="chargeback-answer", role="status"),
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="chargeback-kpis", className="kpis"),
            html.Div(left, className="stack"),
            html.Div(right, className="stack"),
        ],
        className="board chargeback",
    )
    first = (
        html.Div(id="chargeback-month", className="month-of"),
        segmented("chargeback-as", MANNERS, "showback", "What a statement is worth"),
    )
    return page(PLACE, price_version, board, stores=("as-now", "do", "changed"), sections=(PLACES,), first=first)
