"""The Budgets page: whether limits will be kept, when they run out, who answers for them, and what they may be.

The address is the state, as on the other pages. The list and each part of the budget that is open are asked for apart.
Whatever changes a budget goes through one callback, `acted`, which asks for an operator.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update

from millicent.dashboard.components import empty
from millicent.dashboard.pages import budgets_answers as answers
from millicent.dashboard.pages.answering import asked
from millicent.dashboard.pages.budgets_acts import carry_out
from millicent.dashboard.pages.budgets_layout import layout
from millicent.dashboard.pages.budgets_place import PLACE, Looked
from millicent.dashboard.pages.frame import addressed, tabled

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)
    _of_the_list(app, warehouse)
    _of_one(app, warehouse)
    _of_the_form(app, warehouse)


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, PLACE.name, PLACE.controls)
    tabled(app, "limit-burn")
    for function, store in (("searched", "text"), ("unfolded", "open")):
        browser(
            ClientsideFunction("millicent", function),
            Output(f"limits-{store}", "data"), Input("limits-look", "data"), State(f"limits-{store}", "data"),
        )  # fmt: skip
    browser(ClientsideFunction("millicent", "budgeted"), Input("one-body", "children"))
    browser(ClientsideFunction("millicent", "shelf"), Input("limits-drawer", "children"), Input("limits-open", "data"))
    browser(ClientsideFunction("millicent", "done"), Input("limits-acted", "data"), prevent_initial_call=True)


def _of_the_list(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("limits-notice", "children"), Output("limits-words", "children"), Output("limits-pills", "children"),
        Output("limits-add", "children"), Output("limits-kpis", "children"),
        Input("limits-scope", "data"), Input("limits-tick", "data"), Input("limits-changed", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.headline, warehouse, Looked.parse(scope), or_else=[empty("forbidden"), *[None] * 4])

    @app.callback(
        Output("plan-body", "children"), Output("plan-words", "children"),
        Input("limits-scope", "data"), Input("limits-text", "data"), Input("limits-tick", "data"),
        Input("limits-changed", "data"),
    )  # fmt: skip
    async def plan(scope: str | None, text: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.plan, warehouse, Looked.parse(scope, text), or_else=[None, ""])


def _of_one(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("one-title", "children"), Output("one-words", "children"), Output("one-aside", "children"),
        Output("limit-burn-chart", "figure"), Output("one-body", "children"), Output("one-legend", "children"),
        Output("one-facts", "children"),
        Input("limits-scope", "data"), Input("limits-tick", "data"),
        Input("limits-changed", "data"),
    )  # fmt: skip
    async def one(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.one, warehouse, Looked.parse(scope), or_else=answers.UNTOLD)

    @app.callback(
        Output("pasts-body", "children"), Output("pasts-words", "children"),
        Input("limits-scope", "data"), Input("limits-changed", "data"),
    )  # fmt: skip
    async def pasts(scope: str | None, _changed: Any) -> Any:
        return await asked(answers.pasts, warehouse, Looked.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("revisions-body", "children"), Output("revisions-words", "children"),
        Input("limits-scope", "data"), Input("limits-changed", "data"),
    )  # fmt: skip
    async def revisions(scope: str | None, _changed: Any) -> Any:
        return await asked(answers.revisions, warehouse, Looked.parse(scope), or_else=[None, ""])

    @app.callback(
        Output("warnings-body", "children"), Output("warnings-words", "children"),
        Input("limits-scope", "data"), Input("limits-tick", "data"), Input("limits-changed", "data"),
    )  # fmt: skip
    async def warnings(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asked(answers.warnings, warehouse, Looked.parse(scope), or_else=[None, ""])


def _of_the_form(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(Output("limits-drawer", "children"), Input("limits-open", "data"), State("limits-scope", "data"))
    async def opened(open_: str | None, scope: str | None) -> Any:
        return await asked(answers.drawer, warehouse, Looked.parse(scope), open_, or_else=[])

    @app.callback(
        Output("limits-suggestion", "children"), Output("limits-trial", "children"), Input("limits-draft", "data"),
    )  # fmt: skip
    async def tried(draft: Any) -> Any:
        return await asked(answers.tried, warehouse, draft, or_else=[None, None])

    @app.callback(
        Output("limits-answer", "children"), Output("limits-acted", "data"), Output("limits-changed", "data"),
        Input("limits-do", "data"), State("limits-scope", "data"), State("limits-text", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any, scope: str | None, text: str | None) -> Any:
        outcome = await asyncio.to_thread(carry_out, warehouse, act, Looked.parse(scope, text))
        at = act.get("at") if isinstance(act, dict) else None
        said = [html.P(words) for words in outcome.words]
        told = html.Div(said, className="toast good" if outcome.done else "toast bad", key=str(at))
        return [told, {"at": at, "go": outcome.go, "focus": "#limits-add a"}, {"at": at} if outcome.done else no_update]
