"""How callbacks answer: off the event loop, and with less where nobody may see it or there is nothing to see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, html

from millicent.dashboard.components import empty
from millicent.dashboard.reader import Reader
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from millicent.dashboard.pages.prices_acts import Outcome
    from millicent.dashboard.state import View
    from millicent.warehouse.store import Warehouse


async def asked(answer: Callable[..., Any], *told: Any, or_else: Any) -> Any:
    """What a callback answers; `or_else` where nobody asks who may see it."""
    try:
        return await asyncio.to_thread(answer, *told)
    except (PermissionError, LookupError):
        return or_else


def answered(
    answer: Callable[[Reader], list[Any]], warehouse: Warehouse, view: View, nothing: Callable[[Any], list[Any]]
) -> list[Any]:
    """What a reader is answered; `nothing`, told why, where nobody may see it or there is nothing to see."""
    try:
        reader = Reader.of(warehouse, view)
        return nothing(empty("unconnected")) if reader is None else answer(reader)
    except PermissionError:
        return nothing(empty("forbidden"))
    except BadQuery as error:
        return nothing(html.P(str(error), className="banner"))


def acts(app: Dash, name: str, warehouse: Warehouse, carry_out: Callable[[Warehouse, Any], Outcome]) -> None:
    """Have a page do what its buttons ask for in `{name}-do`, say what came of it, and answer anew what it changed."""

    @app.callback(
        Output(f"{name}-answer", "children"), Output(f"{name}-changed", "data"), Input(f"{name}-do", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any) -> Any:
        outcome = await asyncio.to_thread(carry_out, warehouse, act)
        at = act.get("at") if isinstance(act, dict) else None
        said = [html.P(words) for words in outcome.words]
        told = html.Div(said, className="toast good" if outcome.done else "toast bad", key=str(at))
        return [told, {"at": at, "go": None}]
