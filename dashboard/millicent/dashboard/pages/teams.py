"""The Teams page: what each team pays for in a month, by which rule, and closing the month.

The address is the state, as on the other pages. Each part is asked for by itself. Whatever closes a month goes through
`acted`, which asks for an operator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update

from millicent.dashboard.components import empty
from millicent.dashboard.pages import derivation
from millicent.dashboard.pages import teams_answers as answers
from millicent.dashboard.pages.answering import acts, asked
from millicent.dashboard.pages.frame import addressed, offered
from millicent.dashboard.pages.teams_acts import carry_out
from millicent.dashboard.pages.teams_layout import layout
from millicent.dashboard.pages.teams_place import PLACE, Looked

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)
    _of_the_month(app, warehouse)
    _of_its_closing(app, warehouse)
    derivation.register(app, warehouse, PLACE.name, answers.view_of)


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, PLACE.name, PLACE.controls)
    offered(app, PLACE.name)
    browser(
        ClientsideFunction("millicent", "manner"),
        Output("chargeback-as-now", "data"), Input("chargeback-look", "data"), State("chargeback-as-now", "data"),
    )  # fmt: skip
    browser(ClientsideFunction("millicent", "done"), Input("chargeback-changed", "data"), prevent_initial_call=True)


def _of_the_month(app: Dash, warehouse: Warehouse) -> None:

    @app.callback(
        Output("chargeback-notice", "children"), Output("chargeback-words", "children"),
        Output("chargeback-pills", "children"), Output("chargeback-export", "children"),
        Output("chargeback-kpis", "children"), Output("chargeback-month", "children"),
        Output("chargeback-choices", "data"),
        Input("chargeback-scope", "data"), Input("chargeback-tick", "data"), Input("chargeback-changed", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any, _changed: Any) -> Any:
        forbidden = [empty("forbidden"), "", [], [], [], None, no_update]
        return await asked(answers.headline, warehouse, Looked.parse(scope), or_else=forbidden)

    @app.callback(
        Output("chargeback-teams-body", "children"), Output("chargeback-teams-words", "children"),
        Input("chargeback-scope", "data"), Input("chargeback-tick", "data"), Input("chargeback-changed", "data"),
    )  # fmt: skip
    async def teams(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.teams, warehouse, Looked.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("months-body", "children"), Output("months-words", "children"),
        Input("chargeback-scope", "data"), Input("chargeback-tick", "data"), Input("chargeback-changed", "data"),
    )  # fmt: skip
    async def past(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.months_shown, warehouse, Looked.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("orphans-body", "children"), Output("orphans-words", "children"),
        Input("chargeback-scope", "data"), Input("chargeback-tick", "data"),
    )  # fmt: skip
    async def orphans(scope: str | None, _tick: Any) -> Any:
        return await asked(answers.orphans, warehouse, Looked.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("otherwise-body", "children"), Output("otherwise-words", "children"), Input("chargeback-scope", "data"),
    )  # fmt: skip
    async def otherwise(scope: str | None) -> Any:
        return await asked(answers.otherwise, warehouse, Looked.parse(scope), or_else=[None, ""])


def _of_its_closing(app: Dash, warehouse: Warehouse) -> None:
    """The statement, which is worth something once its month is closed, and closing it."""

    @app.callback(
        Output("statement-body", "children"), Output("statement-title", "children"),
        Output("statement-words", "children"),
        Input("chargeback-scope", "data"), Input("chargeback-as-now", "data"), Input("chargeback-tick", "data"),
        Input("chargeback-changed", "data"),
    )  # fmt: skip
    async def stated(scope: str | None, manner: Any, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.stated, warehouse, Looked.parse(scope, manner), or_else=[None, "Statement", ""])

    @app.callback(
        Output("closing-body", "children"), Output("closing-words", "children"),
        Input("chargeback-scope", "data"), Input("chargeback-changed", "data"),
    )  # fmt: skip
    async def closing(scope: str | None, _changed: Any) -> Any:
        return await asked(answers.closing, warehouse, Looked.parse(scope), or_else=[None, ""])

    acts(app, "chargeback", warehouse, carry_out)
