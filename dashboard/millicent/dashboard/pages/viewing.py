"""The menu of a view: its dates, its currency and time zone, and the views that were saved.

One menu for all pages, as only one of them is shown at a time. The browser asks for it when it opens or when what it
tells has changed; what it changes is the address, which the browser writes by itself (`assets/view.js`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, dcc, html, no_update
from starlette.exceptions import HTTPException

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, icon, link
from millicent.dashboard.reader import Reader, currencies, rates_in_force
from millicent.dashboard.state import HARDWARE_FILTERS, RANGES, View, dates_of
from millicent.warehouse import views
from millicent.warehouse.views import SavedView
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse
    from millicent.warehouse.workspace import Workspace

AUDIENCES: Final = {"private": "Only me", "team": "Everybody", "default": "Everybody, and the page opens with it"}
SHOWN: Final = {"private": "only me", "team": "everybody", "default": "opens the page"}
MOST_RATES: Final = 3
RELATIVE: Final = {
    "7d": "the latest 7 days", "4w": "the latest 4 weeks", "12w": "the latest 12 weeks", "mtd": "this month",
    "qtd": "this quarter", "ytd": "this year",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """The page and the address within it that the menu is asked for."""

    path: str
    search: str

    @staticmethod
    def parse(told: object) -> Asked:
        """Read what the browser sent; the plain Overview where that is nothing."""
        known = told if isinstance(told, Mapping) else {}
        path, search = known.get("path"), known.get("search")
        return Asked(path if isinstance(path, str) else "/", search if isinstance(search, str) else "")

    @property
    def view(self) -> View:
        """What of it the menu tells."""
        return View.parse(self.search, HARDWARE_FILTERS)


def menu() -> Component:
    """The button that opens the menu, and its place."""
    face = html.Summary(
        [icon("sliders"), html.Span("View", id="view-face"), html.I(className="chevron", **aria(hidden="true"))],
        className="button", title="Dates, currency, time zone and saved views",
    )  # fmt: skip
    return html.Details([face, html.Div(html.Div(id="view-body"), className="popover viewing")], className="pop views",
                        id="views")  # fmt: skip


def stores() -> list[Component]:
    """What the menu keeps, beside all pages: what it was asked for, what it is to do, and what a page opens with."""
    return [dcc.Store(id=f"view-{name}") for name in ("asked", "do", "default")]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the callbacks of the menu to `app`."""
    browser: Any = app.clientside_callback
    browser(ClientsideFunction("viewing", "opens"), Input("view-default", "data"), prevent_initial_call=True)

    @app.callback(
        Output("view-face", "children"), Output("view-body", "children"), Output("view-default", "data"),
        Input("view-asked", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def asked(told: Any) -> Any:
        return await asyncio.to_thread(_asked, warehouse, Asked.parse(told))

    @app.callback(
        Output("view-body", "children", allow_duplicate=True), Input("view-do", "data"), prevent_initial_call=True
    )
    async def acted(act: Any) -> Any:
        return await asyncio.to_thread(_acted, warehouse, act)


def _asked(warehouse: Warehouse, asked: Asked) -> list[Any]:
    who = access.principal()
    kept = views.views(warehouse.control, who.tenant, who.actor)
    here = [one for one in kept if one.path == asked.path]
    default = next((one.search for one in here if one.audience == "default"), "")
    reader, liked = Reader.of(warehouse, asked.view, declared=True), preferences(warehouse.control, who.tenant)
    shown = fmt.presented()
    face = f"{shown.currency} · {_short(fmt.zone())}"
    return [face, _body(asked, reader, liked, currencies(warehouse, who.tenant), here),
            {"path": asked.path, "search": default} if default else no_update]  # fmt: skip


def _acted(warehouse: Warehouse, act: object) -> Any:
    """Save, delete or note as opened; then the menu anew, with what went wrong."""
    who = access.principal()
    told = act.get("told") if isinstance(act, Mapping) else None
    if not isinstance(act, Mapping) or not isinstance(told, Mapping):
        return no_update
    asked, problem = Asked.parse(told), ""
    try:
        if act.get("do") == "view-used":
            views.opened(warehouse.control, who.tenant, who.actor, _number(told.get("id")))
            return no_update
        if act.get("do") == "view-delete":
            views.remove(warehouse.control, who.tenant, _number(told.get("id")), who.actor, operates=who.operates)
        elif act.get("do") == "view-save":
            audience: Any = told.get("audience", "private")
            wanted = SavedView(path=asked.path, name=str(told.get("name", "")), search=asked.search, audience=audience)
            if audience != "private":
                access.operator("what everybody sees")
            views.save(warehouse.control, who.tenant, wanted, who.actor)
    except (ValueError, LookupError, PermissionError) as error:
        problem = str(error)
    except HTTPException as error:
        problem = error.detail
    reader, liked = Reader.of(warehouse, asked.view, declared=True), preferences(warehouse.control, who.tenant)
    here = views.views(warehouse.control, who.tenant, who.actor, asked.path)
    return _body(asked, reader, liked, currencies(warehouse, who.tenant), here, problem)


def _number(told: object) -> int:
    return int(told) if isinstance(told, int | str) and str(told).isdecimal() and len(str(told)) < 12 else 0


def _body(
    asked: Asked, reader: Reader | None, liked: Workspace, known: Sequence[str], kept: Sequence[SavedView],
    problem: str = "",
) -> list[Component]:  # fmt: skip
    """Everything in the menu.

    Args:
        asked: where it is opened.
        reader: who looks; None before the first call.
        liked: what the workspace prefers.
        known: currencies with a rate, USD first.
        kept: saved views of the page.
        problem: why what was asked for was not done.
    """
    view = asked.view
    return [
        _part("calendar", "Dates", _dates(view, reader)),
        _part("coin", "Amounts in", _currencies(view, reader, liked, known)),
        _part("globe", "Days begin at midnight in", _zones(liked)),
        _part("bookmark", "Saved views of this page", _saved(asked, kept, problem)),
    ]


def _part(name: str, title: str, body: Sequence[Any]) -> Component:
    return html.Section([html.H3([icon(name), title]), *body])


def _dates(view: View, reader: Reader | None) -> list[Any]:
    """Both days of the period, to be changed; and whether it moves with the calendar or stays."""
    first, last = _bounds(view, reader)
    form = html.Form(
        [_field("from", "From", f"{first}", "date"), _field("to", "To", f"{last}", "date"),
         html.Button("Show", type="submit", className="button primary")],
        className="row", key=f"{first}{last}", **data(view="dates"),
    )  # fmt: skip
    if view.range in RANGES:
        words = f"Follows the calendar: {RELATIVE[view.range]}. "
        act = _setting("Freeze these dates", {"p": f"{first}..{last}"}, "An address then shows these days for ever")
    else:
        words, act = "Frozen: it shows these days for ever. ", _setting("Follow the latest 4 weeks", {"p": None})
    return [form, html.P([words, act], className="hint")]


def _bounds(view: View, reader: Reader | None) -> tuple[date, date]:
    if (told := dates_of(view.range)) is not None:
        return told
    if reader is None:
        today = datetime.now(UTC).date()
        return today - timedelta(days=27), today
    period, zone = reader.window.period, reader.window.zone
    return (period.start.astimezone(zone).date(), (period.end - timedelta(microseconds=1)).astimezone(zone).date())


def _currencies(view: View, reader: Reader | None, liked: Workspace, known: Sequence[str]) -> list[Any]:
    in_force = fmt.presented().currency
    offered = dict.fromkeys([liked.currency, *known])
    buttons = [
        _setting(code, {"cur": None if code == liked.currency else code}, pressed=code == in_force) for code in offered
    ]
    wanted = view.currency or liked.currency
    if reader is not None and wanted != in_force:
        hint: Any = f"No rate of {wanted} holds throughout this period, so amounts are in {in_force}. "
    elif in_force == "USD" and len(offered) == 1:
        hint = "Other currencies need a dated rate in the price book. "
    else:
        hint = f"Stored in USD, each amount by the rate of its day: {_told(reader)}." if in_force != "USD" else ""
    more = link("Add a rate", "/settings#currency") if wanted != in_force or len(offered) == 1 else None
    return [html.Div(buttons, className="row choice", role="group", **aria(label="Currency")),
            html.P([hint, more], className="hint") if hint else None]  # fmt: skip


def _told(reader: Reader | None) -> str:
    """The rates of the period with their sources, newest first; a few of many."""
    found = rates_in_force(reader)[::-1] if reader else []
    words = [f"{one.words} ({one.source})" for one in found[:MOST_RATES]]
    return "; ".join([*words, *([f"and {len(found) - MOST_RATES} more"] if len(found) > MOST_RATES else [])])


def _zones(liked: Workspace) -> list[Any]:
    now = fmt.zone()
    form = html.Form(
        [_field("tz", "Time zone", now, "text", list="time-zones"), html.Datalist(id="time-zones"),
         html.Button("Show", type="submit", className="button")],
        className="row", key=now, **data(view="zone", usual=liked.time_zone),
    )  # fmt: skip
    quick = [
        _setting(_short(name), {"tz": None if name == liked.time_zone else name}, pressed=name == now)
        for name in dict.fromkeys([liked.time_zone, "UTC"])
    ]
    mine = html.Button("My clock", type="button", className="button like", **data(action="my-zone"),
                       title="The time zone of this browser")  # fmt: skip
    return [form, html.Div([*quick, mine], className="row choice", role="group", **aria(label="Time zones"))]


def _saved(asked: Asked, kept: Sequence[SavedView], problem: str) -> list[Any]:
    rows = [
        html.Li([
            link([html.Span(one.name, className="name"), html.Small(SHOWN[one.audience])], one.address,
                 **data(used=str(one.id)), **(aria(current="true") if one.search == asked.search else {})),
            html.Button(icon("trash"), type="button", className="button square small",
                        **data(do="view-delete", to="view-do", here="", told=json.dumps({"id": one.id})),
                        **aria(label=f"Delete the view {one.name}")),
        ])
        for one in kept
    ]  # fmt: skip
    options: list[Component] = [html.Option(words, value=value) for value, words in AUDIENCES.items()]
    form = html.Form(
        [_field("name", "Name", "", "text", placeholder="Board report, in EUR", maxLength=views.LONGEST_NAME),
         html.Label([html.Span("For"), html.Select(options, name="audience")], className="entry"),
         html.Button("Save this view", type="submit", className="button primary",
                     **data(do="view-save", to="view-do", here=""))],
        className="row saving", key=f"save-{len(kept)}-{bool(problem)}",
    )  # fmt: skip
    told = html.P(problem, className="banner", role="alert") if problem else None
    listed = html.Ul(rows, className="kept") if rows else html.P("None yet.", className="hint")
    return [listed, told, form]


def _setting(
    face: Any, told: Mapping[str, str | None], title: str | None = None, *, pressed: bool = False
) -> Component:
    """A button that writes into the address; None takes a key out of it."""
    return html.Button(face, type="button", className="button like", title=title,
                       **data(set=json.dumps(told)), **aria(pressed="true" if pressed else "false"))  # fmt: skip


def _field(name: str, words: str, value: str, shape: str, **more: Any) -> Component:
    box: Any = dcc.Input
    return html.Label([html.Span(words), box(name=name, type=shape, value=value, **more)], className="entry")


def _short(zone: str) -> str:
    """`Berlin` of `Europe/Berlin`."""
    return zone.rpartition("/")[2].replace("_", " ")
