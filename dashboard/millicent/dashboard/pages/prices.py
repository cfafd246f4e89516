"""The Prices page: what calls are priced at and since when, what has no price yet, and what the tenant itself adds.

The address is the state, as on the other pages. What is searched, what is open and what the period holds are asked
for apart. Whatever changes something goes through one callback, `acted`, which asks for an operator.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dash import ClientsideFunction, Dash, Input, Output, State, html

from millicent.dashboard.components import empty
from millicent.dashboard.pages import prices_answers as answers
from millicent.dashboard.pages.answering import asked, shelved
from millicent.dashboard.pages.frame import addressed
from millicent.dashboard.pages.opened import clean
from millicent.dashboard.pages.prices_acts import carry_out
from millicent.dashboard.pages.prices_layout import layout
from millicent.dashboard.pages.prices_place import CONTROLS, Opened, Place

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)
    _of_the_page(app, warehouse)
    _of_the_drawer(app, warehouse)


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, "prices", CONTROLS)
    for function, store in (("searched", "text"), ("unfolded", "open")):
        browser(
            ClientsideFunction("millicent", function),
            Output(f"prices-{store}", "data"), Input("prices-look", "data"), State(f"prices-{store}", "data"),
        )  # fmt: skip
    browser(
        ClientsideFunction("millicent", "beat"),
        Output("prices-beat", "data"), Input("prices-pulse", "n_intervals"), prevent_initial_call=True,
    )  # fmt: skip
    browser(ClientsideFunction("millicent", "shelf"), Input("prices-drawer", "children"), Input("prices-open", "data"))
    browser(ClientsideFunction("millicent", "done"), Input("prices-changed", "data"), prevent_initial_call=True)


def _of_the_page(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("prices-words", "children"), Output("prices-pills", "children"),
        Output("unpriced-body", "children"), Output("unpriced-words", "children"),
        Output("pricedata-body", "children"), Output("pricedata-words", "children"),
        Input("prices-scope", "data"), Input("prices-tick", "data"), Input("prices-changed", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.headline, warehouse, Place.parse(scope), or_else=[empty("forbidden"), *[None] * 5])

    @app.callback(
        Output("find-body", "children"), Output("find-words", "children"),
        Input("prices-text", "data"), Input("prices-changed", "data"), Input("prices-scope", "data"),
    )  # fmt: skip
    async def found(text: str | None, _changed: Any, scope: str | None) -> Any:
        return await asked(answers.found, warehouse, _place(scope, text), or_else=[None, ""])

    @app.callback(
        Output("entries-body", "children"), Output("entries-add", "children"),
        Input("prices-changed", "data"), State("prices-text", "data"), State("prices-scope", "data"),
    )  # fmt: skip
    async def entries(_changed: Any, text: str | None, scope: str | None) -> Any:
        return await asked(answers.entries, warehouse, _place(scope, text), or_else=[None, None])

    @app.callback(
        Output("repricings-body", "children"), Output("repricings-add", "children"), Output("prices-clock", "interval"),
        Input("prices-changed", "data"), Input("prices-tick", "data"),
        State("prices-scope", "data"), State("prices-text", "data"),
    )  # fmt: skip
    async def repricings(_changed: Any, _tick: Any, scope: str | None, text: str | None) -> Any:
        return await asked(answers.repricings, warehouse, _place(scope, text), or_else=[None, None, 60_000])

    @app.callback(
        Output("prices-answer", "children"), Output("prices-changed", "data"), Input("prices-do", "data"),
        State("prices-scope", "data"), State("prices-text", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any, scope: str | None, text: str | None) -> Any:
        outcome = await asyncio.to_thread(carry_out, warehouse, act, _place(scope, text))
        at = act.get("at") if isinstance(act, dict) else None
        said = [html.P(words) for words in outcome.words]
        told = html.Div(said, className="toast good" if outcome.done else "toast bad", key=str(at))
        return [told, {"at": at, "go": outcome.go}]


def _of_the_drawer(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("prices-drawer", "children"), Input("prices-open", "data"),
        State("prices-scope", "data"), State("prices-text", "data"),
    )  # fmt: skip
    async def opened(open_: str | None, scope: str | None, text: str | None) -> Any:
        return shelved(await asked(answers.opened, warehouse, _place(scope, text, open_), or_else=None))

    @app.callback(Output("prices-effect", "children"), Input("prices-draft", "data"))
    async def effect(draft: Any) -> Any:
        return await asked(answers.effect, warehouse, draft, or_else=None)

    @app.callback(Output("prices-difference", "children"), Input("prices-plan", "data"))
    async def planned(plan: Any) -> Any:
        return await asked(answers.difference, warehouse, plan, or_else=None)

    @app.callback(
        Output("prices-run", "children"), Output("prices-pulse", "disabled"), Input("prices-beat", "data"),
        State("prices-open", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def followed(_beat: Any, open_: str | None) -> Any:
        return await asked(answers.followed, warehouse, Opened.parse(open_), or_else=[None, True])


def _place(scope: str | None, text: str | None, open_: str | None = None) -> Place:
    return replace(Place.parse(scope), text=clean(text), opened=Opened.parse(open_))
