"""The Exports page: files that finance and other tools ask for, what is in them, and that they add up.

Three callbacks: the list of files, the first rows of the one that is chosen, and its sums. Those of a FOCUS month read
all of it, so they are asked for by themselves and kept while nothing in the month changes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, html

from millicent.dashboard.components import panel
from millicent.dashboard.pages import exports_answers as answers
from millicent.dashboard.pages.exports_place import PLACE, Looked
from millicent.dashboard.pages.frame import addressed, offered, page

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def layout(price_version: str) -> Component:
    """The page before its numbers."""
    board = html.Div(
        [
            panel("Files", "what others ask for", html.Div(id="presets-body"), id="presets"),
            html.Div(
                [
                    panel(
                        "Sums and checks",
                        "",
                        html.Div(id="sums-body"),
                        id="sums",
                        aside=html.Div(id="exports-downloads", className="aside"),
                    ),
                    panel("First rows", "", html.Div(id="preview-body"), id="preview"),
                ],
                className="stack",
            ),
        ],
        className="board exporting",
    )
    return page(PLACE, price_version, board)


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    addressed(app, PLACE.name, PLACE.controls)
    offered(app, PLACE.name)

    @app.callback(
        Output("exports-notice", "children"), Output("exports-words", "children"), Output("exports-pills", "children"),
        Output("exports-export", "children"), Output("exports-choices", "data"), Output("presets-body", "children"),
        Output("exports-downloads", "children"),
        Input("exports-scope", "data"), Input("exports-tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(answers.headline, warehouse, Looked.parse(scope))

    @app.callback(
        Output("preview-words", "children"), Output("preview-body", "children"), Input("exports-scope", "data")
    )
    async def preview(scope: str | None) -> Any:
        return await asyncio.to_thread(answers.preview, warehouse, Looked.parse(scope))

    @app.callback(Output("sums-words", "children"), Output("sums-body", "children"), Input("exports-scope", "data"))
    async def sums(scope: str | None) -> Any:
        return await asyncio.to_thread(answers.sums, warehouse, Looked.parse(scope))
