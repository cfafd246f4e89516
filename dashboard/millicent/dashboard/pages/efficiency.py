"""The Efficiency page: what is paid for and not used, where and when, and who carries it.

The address is the state, as on the other pages. Each part is asked for by itself, so that a switch or an hour of the
week asks for its own part alone. Whatever sets a policy goes through `acted`, which asks for an operator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dash import ClientsideFunction, Dash, Input, Output, State, no_update

from millicent.dashboard.components import empty
from millicent.dashboard.pages import derivation
from millicent.dashboard.pages import efficiency_answers as answers
from millicent.dashboard.pages.answering import acts, asked
from millicent.dashboard.pages.efficiency_acts import carry_out
from millicent.dashboard.pages.efficiency_layout import layout
from millicent.dashboard.pages.efficiency_place import CONTROLS, Place
from millicent.dashboard.pages.figures import own
from millicent.dashboard.pages.frame import addressed, offered, tabled
from millicent.dashboard.pages.overview_layout import NOTHING

if TYPE_CHECKING:
    from millicent.dashboard.state import View
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)
    _of_the_period(app, warehouse)
    _of_what_is_looked_at(app, warehouse)
    derivation.register(app, warehouse, "efficiency", _view, answers.step)


def _view(scope: str | None) -> View:
    return own(Place.parse(scope).view)


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, "efficiency", CONTROLS)
    for function, store in (("unit", "in"), ("slot", "at")):
        browser(
            ClientsideFunction("millicent", function),
            Output(f"efficiency-{store}", "data"), Input("efficiency-look", "data"),
            State(f"efficiency-{store}", "data"),
        )  # fmt: skip
    offered(app, "efficiency")
    tabled(app, "daily")
    browser(ClientsideFunction("millicent", "marked"), Input("idle-body", "children"), Input("efficiency-at", "data"))
    browser(ClientsideFunction("millicent", "done"), Input("efficiency-changed", "data"), prevent_initial_call=True)


def _of_the_period(app: Dash, warehouse: Warehouse) -> None:
    """What the filters and the period change, and new calls."""

    @app.callback(
        Output("efficiency-notice", "children"), Output("efficiency-words", "children"),
        Output("efficiency-pills", "children"), Output("efficiency-export", "href"),
        Output("efficiency-kpis", "children"), Output("efficiency-choices", "data"),
        Input("efficiency-scope", "data"), Input("efficiency-tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any) -> Any:
        forbidden = [empty("forbidden"), "", [], "#", [], no_update]
        return await asked(answers.headline, warehouse, Place.parse(scope), or_else=forbidden)

    @app.callback(
        Output("idle-body", "children"), Output("idle-words", "children"),
        Input("efficiency-scope", "data"), Input("efficiency-tick", "data"),
    )  # fmt: skip
    async def idle(scope: str | None, _tick: Any) -> Any:
        return await asked(answers.heat, warehouse, Place.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("daily-chart", "figure"), Output("daily-legend", "children"), Output("daily-words", "children"),
        Input("efficiency-scope", "data"), Input("efficiency-tick", "data"),
    )  # fmt: skip
    async def daily(scope: str | None, _tick: Any) -> Any:
        return await asked(answers.daily, warehouse, Place.parse(scope), or_else=[NOTHING, [], ""])

    @app.callback(
        Output("policy-body", "children"), Output("policy-words", "children"),
        Input("efficiency-scope", "data"), Input("efficiency-changed", "data"),
    )  # fmt: skip
    async def policy(scope: str | None, _changed: Any) -> Any:
        return await asked(answers.policy, warehouse, Place.parse(scope), or_else=[None, ""])

    acts(app, "efficiency", warehouse, carry_out)


def _of_what_is_looked_at(app: Dash, warehouse: Warehouse) -> None:
    """What the switch of units and an hour of the week change."""

    @app.callback(
        Output("flow-body", "children"), Output("flow-words", "children"),
        Input("efficiency-scope", "data"), Input("efficiency-in", "data"), Input("efficiency-tick", "data"),
    )  # fmt: skip
    async def flow(scope: str | None, unit: Any, _tick: Any) -> Any:
        return await asked(answers.flow, warehouse, _place(scope, unit=unit), or_else=[None, ""])

    @app.callback(
        Output("wasteful-body", "children"), Output("wasteful-words", "children"),
        Input("efficiency-scope", "data"), Input("efficiency-at", "data"), Input("efficiency-tick", "data"),
        State("efficiency-in", "data"),
    )  # fmt: skip
    async def wasteful(scope: str | None, at: Any, _tick: Any, unit: Any) -> Any:
        return await asked(answers.deployments, warehouse, _place(scope, at=at, unit=unit), or_else=[None, ""])


def _place(scope: str | None, *, unit: Any = "", at: Any = "") -> Place:
    looked = Place.parse(f"?in={unit if isinstance(unit, str) else ''}&at={at if isinstance(at, str) else ''}")
    return replace(Place.parse(scope), unit=looked.unit, slot=looked.slot)
