"""The Settings page: what the workspace prefers, exchange rates, saved views and keys, and where the rest is set.

Everybody sees it; what changes something asks for an operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, html, no_update
from starlette.exceptions import HTTPException

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, empty, icon, link, panel
from millicent.dashboard.pages import settings_parts as parts
from millicent.dashboard.pages.frame import Place, addressed, page
from millicent.pricing.entries import FxRate
from millicent.warehouse import views
from millicent.warehouse.workspace import Workspace, prefer, preferences, zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash.development.base_component import Component

    from millicent.dashboard.access import Principal
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

PLACE: Final = Place(name="settings", title="Settings", filters={}, compared=False, based=False, ranged=False)
SECTIONS: Final = (
    "On this page",
    (("globe", "Workspace", "#workspace"), ("coin", "Exchange rates", "#currency"),
     ("bookmark", "Saved views", "#saved"), ("pin", "Keys", "#keys"), ("sliders", "Set elsewhere", "#elsewhere")),
)  # fmt: skip
ELSEWHERE: Final = (
    ("tag", "Prices and discounts", "List prices, your own prices, discounts, repricing", "/prices"),
    ("chip", "Deployments", "What serves your models, on which accelerators, at what cost", "/accelerators"),
    ("wallet", "Budgets", "What a part of the spend may come to, and who answers for it", "/budgets"),
    ("scales", "Idle policy", "Who carries what own hardware costs while nobody uses it", "/efficiency#policy"),
    ("check", "Data quality", "What has no price or no team, and how to mend it", "/quality"),
    ("book", "Metrics dictionary", "Every measure: its formula, its unit, its words", "/api/v1/metrics-dictionary"),
    ("list", "The API", "Every address, as OpenAPI", "/api/v1/openapi.json"),
)  # fmt: skip


def layout(price_version: str) -> Component:
    """The page, its stores and its panels."""
    board = html.Div(
        [
            html.Div(id="settings-answer", role="status"),
            panel("Workspace", "for everybody who does not choose otherwise", html.Div(id="workspace-body"),
                  id="workspace"),
            panel("Exchange rates", "one unit in USD, from a day on until the next rate", html.Div(id="currency-body"),
                  id="currency"),
            panel("Saved views", "of every page, yours and those for everybody", html.Div(id="saved-body"), id="saved"),
            panel("Keys", "without their secrets, which are stored nowhere", html.Div(id="keys-body"), id="keys"),
            panel("Set elsewhere", "", _elsewhere(), id="elsewhere"),
        ],
        className="board settings",
    )  # fmt: skip
    return page(PLACE, price_version, board, stores=("do", "acted", "changed"), sections=(SECTIONS,))


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    browser: Any = app.clientside_callback
    addressed(app, PLACE.name, PLACE.controls)
    browser(ClientsideFunction("millicent", "done"), Input("settings-acted", "data"), prevent_initial_call=True)
    browser(ClientsideFunction("viewing", "again"), Input("settings-changed", "data"), prevent_initial_call=True)

    @app.callback(
        Output("settings-notice", "children"), Output("settings-words", "children"),
        Output("workspace-body", "children"), Output("currency-body", "children"), Output("saved-body", "children"),
        Output("keys-body", "children"), Input("settings-scope", "data"), Input("settings-changed", "data"),
    )  # fmt: skip
    async def told(_scope: str | None, _changed: Any) -> Any:
        return await asyncio.to_thread(_told, warehouse)

    @app.callback(
        Output("settings-answer", "children"), Output("settings-acted", "data"), Output("settings-changed", "data"),
        Input("settings-do", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any) -> Any:
        return await asyncio.to_thread(_acted, warehouse, act)


def _told(warehouse: Warehouse) -> list[Any]:
    try:
        who = access.principal()
    except LookupError:
        return [empty("forbidden"), "", None, None, None, None]
    control, now = warehouse.control, datetime.now(UTC)
    liked = preferences(control, who.tenant)
    fmt.present(fmt.Presentation("USD", zone(liked.time_zone)))
    rates = [(entry.currency, entry) for _, entry in control.prices(who.tenant) if isinstance(entry, FxRate)]
    rates.sort(key=lambda one: (one[0], one[1].effective_from), reverse=True)
    words = "Anybody may look in another time zone or currency" + (
        "" if who.operates else " · you may look here, and an operator may change it"
    )
    return [
        None, words,
        parts.workspace(liked, sorted({"USD", liked.currency, *(code for code, _ in rates)}), operates=who.operates),
        parts.rates([entry for _, entry in rates], now, operates=who.operates),
        parts.saved(views.views(control, who.tenant, who.actor), who),
        parts.keys([one for one in control.keys(who.tenant) if one.scope != "setup"], now),
    ]  # fmt: skip


def _acted(warehouse: Warehouse, act: object) -> list[Any]:
    """Do it, and say that it was done or why not; then the buttons can be pressed again."""
    told = act.get("told") if isinstance(act, Mapping) else None
    kind = act.get("do") if isinstance(act, Mapping) else None
    if not isinstance(told, Mapping) or kind not in _ACTS:
        return [no_update, no_update, no_update]
    said = {str(name): value for name, value in told.items() if isinstance(value, str | int)}
    at = {"at": f"{datetime.now(UTC).timestamp()}"}
    try:
        done = _ACTS[kind](warehouse, access.principal(), said)
    except HTTPException as error:
        return [parts.answer(error.detail, "bad"), at, no_update]
    except (ValueError, LookupError, PermissionError) as error:
        return [parts.answer(str(error), "bad"), at, no_update]
    return [parts.answer(done, "good"), at, at]


def _prefer(warehouse: Warehouse, _who: Principal, told: dict[str, Any]) -> str:
    who = access.operator("what the workspace prefers")
    before = preferences(warehouse.control, who.tenant)
    month = str(told.get("fiscal_month", before.fiscal_month))
    viewer = str(told.get("trace_viewer", "")).strip() or None
    wanted = Workspace(
        time_zone=str(told.get("time_zone", "")).strip() or "UTC",
        currency=str(told.get("currency", "")).strip().upper() or "USD",
        fiscal_month=int(month) if month.isdecimal() else 0,
        trace_viewer=viewer,
    )
    prefer(warehouse.control, who.tenant, wanted, who.actor)
    return "Saved: pages show it from now on."


def _add_rate(warehouse: Warehouse, _who: Principal, told: dict[str, Any]) -> str:
    who = access.operator("exchange rates")
    text, day = str(told.get("usd_per_unit", "")).strip(), str(told.get("effective_from", ""))
    try:
        amount = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"USD for one unit {text!r} is no number: write 1.0834") from error
    try:
        since = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    except ValueError as error:
        raise ValueError(f"From {day!r} is no day: choose one") from error
    entry = FxRate(
        currency=str(told.get("currency", "")).strip().upper(), usd_per_unit=amount, effective_from=since,
        source=str(told.get("source", "")).strip(),
    )  # fmt: skip
    warehouse.control.add_prices([replace(entry, author=who.actor)], who.tenant, who.actor)
    return f"Added: 1 {entry.currency} is {amount:f} USD from {fmt.day(since)} {since.year} on."


def _delete_view(warehouse: Warehouse, who: Principal, told: dict[str, Any]) -> str:
    number = str(told.get("id", ""))
    view_id = int(number) if number.isdecimal() and len(number) < 12 else 0
    gone = views.remove(warehouse.control, who.tenant, view_id, who.actor, operates=who.operates)
    return f"Deleted: the view {gone.name}."


_ACTS: Final[dict[object, Callable[[Warehouse, Principal, dict[str, Any]], str]]] = {
    "settings-prefer": _prefer, "settings-rate": _add_rate, "settings-view": _delete_view,
}  # fmt: skip


def _elsewhere() -> Component:
    return html.Ul(
        [
            html.Li(
                (link if "/api/" not in href and "#" not in href else html.A)(
                    [icon(name), html.Span([html.B(title), html.Small(words)]),
                     html.I(className="icon icon-next", **aria(hidden="true"))], href=href,
                )
            )
            for name, title, words, href in ELSEWHERE
        ],
        className="ways-on",
    )  # fmt: skip
