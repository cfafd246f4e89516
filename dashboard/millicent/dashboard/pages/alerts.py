"""The Alerts page: what fired, what drove it, whether those who should know were told, and by which rules.

The address is the state, as on the other pages. Each part is asked for by itself. Whatever changes something goes
through one callback, `acted`, which asks for an operator.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from millicent.dashboard.components import empty
from millicent.dashboard.pages import alerts_answers as answers
from millicent.dashboard.pages.alerts_acts import KEPT, Outcome, carry_out
from millicent.dashboard.pages.alerts_forms import secret
from millicent.dashboard.pages.alerts_layout import layout
from millicent.dashboard.pages.alerts_place import PLACE, Looked, Opened
from millicent.dashboard.pages.answering import asked
from millicent.dashboard.pages.frame import addressed

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register", "stores"]

COUNTED_MS: Final = 60_000
"""How often it is asked how many alerts need somebody."""


def stores() -> list[Component]:
    """What stands beside all pages, as the navigation of each tells how many alerts need somebody."""
    return [dcc.Interval(id="view-clock", interval=COUNTED_MS), dcc.Store(id="view-alerts")]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)
    _of_the_page(app, warehouse)
    _of_its_acts(app, warehouse)
    _of_every_page(app, warehouse)

    @app.callback(
        Output("alerts-drawer", "children"), Output("alerts-pulse", "disabled"),
        Input("alerts-open", "data"), Input("alerts-anew", "data"), Input("alerts-beat", "data"),
        State("alerts-scope", "data"),
    )  # fmt: skip
    async def opened(what: Any, _changed: Any, _beat: Any, scope: Any) -> Any:
        told = (warehouse, Looked.parse(scope), Opened.parse(what))
        return await asked(answers.opened, *told, or_else=[None, True])


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, PLACE.name, PLACE.controls)
    browser(
        ClientsideFunction("millicent", "unfolded"),
        Output("alerts-open", "data"), Input("alerts-look", "data"), State("alerts-open", "data"),
    )  # fmt: skip
    browser(
        ClientsideFunction("millicent", "pulse"),
        Output("alerts-beat", "data"), Input("alerts-pulse", "n_intervals"), prevent_initial_call=True,
    )  # fmt: skip
    browser(ClientsideFunction("millicent", "shelf"), Input("alerts-drawer", "children"), Input("alerts-open", "data"))
    browser(ClientsideFunction("millicent", "done"), Input("alerts-changed", "data"), prevent_initial_call=True)


def _of_the_page(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("alerts-notice", "children"), Output("alerts-words", "children"), Output("alerts-pills", "children"),
        Output("alerts-kpis", "children"), Output("alerts-chips", "children"), Output("inbox-body", "children"),
        Output("inbox-words", "children"),
        Input("alerts-scope", "data"), Input("alerts-tick", "data"), Input("alerts-anew", "data"),
    )  # fmt: skip
    async def headline(scope: Any, _tick: Any, _changed: Any) -> Any:
        forbidden = [empty("forbidden"), "", [], [], None, None, ""]
        found = await asked(answers.headline, warehouse, Looked.parse(scope), or_else=None)
        return forbidden if found is None else [None, *found]

    @app.callback(
        Output("endpoints-body", "children"), Output("endpoints-add", "children"),
        Input("alerts-scope", "data"), Input("alerts-tick", "data"), Input("alerts-anew", "data"),
    )  # fmt: skip
    async def endpoints(scope: Any, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.endpoints_shown, warehouse, Looked.parse(scope), or_else=[None, None])

    @app.callback(
        Output("rules-body", "children"), Output("rules-add", "children"), Output("rules-words", "children"),
        Input("alerts-scope", "data"), Input("alerts-anew", "data"),
    )  # fmt: skip
    async def rules(scope: Any, _changed: Any) -> Any:
        return await asked(answers.rules_shown, warehouse, Looked.parse(scope), or_else=[None, None, ""])


def _of_every_page(app: Dash, warehouse: Warehouse) -> None:
    browser: Any = app.clientside_callback
    browser(ClientsideFunction("millicent", "counted"), Input("view-alerts", "data"))

    @app.callback(Output("view-alerts", "data"), Input("view-clock", "n_intervals"))
    async def counted(_clock: Any) -> Any:
        return await asked(answers.open_count, warehouse, or_else=0)

    @app.callback(
        Output("view-alerts", "data", allow_duplicate=True), Input("alerts-anew", "data"), prevent_initial_call=True
    )
    async def changed(_changed: Any) -> Any:
        return await asked(answers.open_count, warehouse, or_else=0)


def _of_its_acts(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("alerts-answer", "children"), Output("alerts-changed", "data"), Output("alerts-anew", "data"),
        Output("alerts-secret", "children"),
        Input("alerts-do", "data"), State("alerts-scope", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any, scope: Any) -> Any:
        outcome = await asyncio.to_thread(carry_out, warehouse, act)
        return _acted(outcome, act if isinstance(act, dict) else {}, Looked.parse(scope))


def _acted(outcome: Outcome, act: dict[str, Any], place: Looked) -> list[Any]:
    """What is said, what follows, and the secret that was made; one that is shown stays until it is kept."""
    at = str(act.get("at"))
    look = "toast good" if outcome.done else "toast bad"
    said = html.Div(html.P(outcome.words), className=look, key=at) if outcome.words else None
    go = None if outcome.opens is None else place.href(opens=outcome.opens)
    if outcome.secret is not None:
        shown: Any = secret(*outcome.secret)
    else:
        shown = None if act.get("do") == KEPT else no_update
    anew = at if outcome.done else no_update  # what somebody wrote into a form that is refused stays there
    return [said, {"at": at, "go": go, "close": outcome.done}, anew, shown]
