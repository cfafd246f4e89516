"""How callbacks answer: off the event loop, and with less where nobody may see it or there is nothing to see."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import Dash, Input, Output, html

from millicent.dashboard import access
from millicent.dashboard.components import STALE, empty
from millicent.dashboard.pages.prices_acts import Outcome
from millicent.dashboard.pages.prices_forms import text_of
from millicent.dashboard.reader import Reader
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash.development.base_component import Component

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


def no_calls(reader: Reader, clear: str | None) -> Component:
    """Why a page has nothing to show: no calls match, or they are still on their way.

    `clear` is its address without what narrows it; None where nothing does.
    """
    waiting = reader.now - reader.fresh > STALE and clear is None
    return empty("ingesting" if waiting else "no_rows", clear=clear)


def carried_out(act: Any, do: str, may: str, todo: Callable[[access.Principal, Mapping[str, str]], Outcome]) -> Outcome:
    """What came of an act that a browser asks for.

    Args:
        act: as `app.js` sends it: `do` and `told`. Whoever sends it is asked for; what it tells is text from outside.
        do: the one act there is.
        may: what somebody may who does not operate, and what not.
        todo: does it, for whom, with what was told; a ValueError says why not.
    """
    try:
        who = access.principal()
    except LookupError:
        return Outcome(("Nobody is asking.",), done=False)
    if not who.operates:
        return Outcome((f"{who.actor} may {may}: ask for an operator's session.",), done=False)
    if not isinstance(act, Mapping) or act.get("do") != do:
        return Outcome(("There is no such action.",), done=False)
    try:
        return todo(who, text_of(act.get("told")))
    except ValueError as error:
        return Outcome((str(error),), done=False)


def shelved(found: Any) -> Any:
    """What a drawer holds: nothing is an empty list.

    With None the browser would take what was in it for still there, and fail on answers that come for it.
    """
    return [] if found is None else found


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
