"""The Accelerators page: which model on which hardware is cheapest, and what own hardware costs while it is idle.

The address is the state, as on the other pages. Four callbacks, split by what they are asked for again: the headline,
the comparison, the table (which its order changes too), and energy; a fifth opens a figure's derivation.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update

from millicent.dashboard import format as fmt
from millicent.dashboard.components import empty, freshness, kpi, meter, pill, spark
from millicent.dashboard.pages import accelerators_bars as bars
from millicent.dashboard.pages import accelerators_table, accelerators_undeclared, declaring, derivation
from millicent.dashboard.pages.accelerators_homes import (
    ALL,
    COST,
    COUNTED,
    ENERGY,
    KEY,
    MEASURES,
    PER_JOULE,
    RATES,
    SHORT,
    TOKENS,
    askable,
    before,
    choices,
    colours,
    has_hardware,
    headline,
    homes,
    reader_of,
    told,
)
from millicent.dashboard.pages.accelerators_layout import layout
from millicent.dashboard.pages.accelerators_place import CONTROLS, Place
from millicent.dashboard.pages.figures import Figure, exact, opener, own
from millicent.dashboard.pages.frame import addressed, offered
from millicent.dashboard.state import api_query, question
from millicent.warehouse.discovered import discovered
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash.development.base_component import Component

    from millicent.dashboard.components import Emptiness
    from millicent.dashboard.pages.accelerators_homes import Row
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

CARDS: Final = ("capacity_cost_usd", *COST.values(), "idle_cost_usd", "utilisation_ratio", *PER_JOULE.values(),
                "energy_wh")  # fmt: skip
TRENDS: Final = ("capacity_cost_usd", "idle_cost_usd", "spend_usd", "priced_tokens", "priced_output_tokens",
                 "energy_tokens", "energy_output_tokens", "energy_joules", "busy_accelerator_hours",
                 "accelerator_hours")  # fmt: skip


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    browser: Any = app.clientside_callback
    addressed(app, "accelerators", CONTROLS)
    offered(app, "accelerators")
    browser(
        ClientsideFunction("millicent", "sorted"),
        Output("accelerators-order", "data"), Input("accelerators-look", "data"), State("accelerators-order", "data"),
    )  # fmt: skip
    browser(ClientsideFunction("millicent", "done"), Input("accelerators-acted", "data"), prevent_initial_call=True)
    derivation.register(
        app, warehouse, "accelerators", lambda scope: own(Place.parse(scope).view), form=declaring.drawer
    )
    _of_the_server(app, warehouse)
    _of_the_form(app, warehouse)


def _of_the_server(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(
        Output("accelerators-notice", "children"), Output("accelerators-words", "children"),
        Output("accelerators-pills", "children"), Output("accelerators-export", "href"),
        Output("accelerators-lead", "children"), Output("accelerators-kpis", "children"),
        Input("accelerators-scope", "data"), Input("accelerators-tick", "data"), Input("accelerators-changed", "data"),
    )  # fmt: skip
    async def headed(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asyncio.to_thread(_headed, warehouse, Place.parse(scope))

    @app.callback(
        Output("accelerators-undeclared", "children"), Output("accelerators-choices", "data"),
        Input("accelerators-scope", "data"), Input("accelerators-changed", "data"),
    )  # fmt: skip
    async def declared(scope: str | None, _changed: Any) -> Any:
        return await asyncio.to_thread(_asked, _declared, warehouse, Place.parse(scope), [None, no_update])

    @app.callback(
        Output("cheapest-body", "children"), Output("cheapest-words", "children"),
        Output("idlest-body", "children"), Output("idlest-words", "children"),
        Output("rates-body", "children"), Output("rates-words", "children"),
        Input("accelerators-scope", "data"), Input("accelerators-tick", "data"), Input("accelerators-changed", "data"),
    )  # fmt: skip
    async def compared(scope: str | None, _tick: Any, _changed: Any) -> Any:
        return await asyncio.to_thread(_asked, _compared, warehouse, Place.parse(scope), [None] * 6)

    @app.callback(
        Output("costs-body", "children"), Output("costs-words", "children"),
        Input("accelerators-scope", "data"), Input("accelerators-order", "data"), Input("accelerators-tick", "data"),
        Input("accelerators-changed", "data"),
    )  # fmt: skip
    async def tabled(scope: str | None, order: str | None, _tick: Any, _changed: Any) -> Any:
        place = replace(Place.parse(scope), order=(order or "")[:40])
        return await asyncio.to_thread(_asked, _tabled, warehouse, place, [None] * 2)

    @app.callback(
        Output("energy-body", "children"), Output("energy-words", "children"),
        Input("accelerators-scope", "data"), Input("accelerators-by", "value"), Input("accelerators-tick", "data"),
        Input("accelerators-changed", "data"),
    )  # fmt: skip
    async def energised(scope: str | None, cut: Any, _tick: Any, _changed: Any) -> Any:
        place = replace(Place.parse(scope), cut="deployment" if cut == "deployment" else "model")
        return await asyncio.to_thread(_asked, _energised, warehouse, place, [None] * 2)


def _of_the_form(app: Dash, warehouse: Warehouse) -> None:
    @app.callback(Output("accelerators-declare", "children"), Input("accelerators-scope", "data"))
    async def offered(_scope: str | None) -> Any:
        return declaring.button() if declaring.operates() else None

    @app.callback(
        Output("accelerators-answer", "children"), Output("declaring-effect", "children"),
        Output("accelerators-acted", "data"), Output("accelerators-changed", "data"), Input("accelerators-do", "data"),
        State("accelerators-scope", "data"), State("accelerators-look", "data"), prevent_initial_call=True,
    )  # fmt: skip
    async def acted(act: Any, scope: str | None, look: str | None) -> Any:
        answer = await asyncio.to_thread(declaring.carry_out, warehouse, act)
        at = act.get("at") if isinstance(act, dict) else None
        look_ = Place.parse(look)
        go = replace(Place.parse(scope), cut=look_.cut, order=look_.order).href() if answer.declared else None
        tone = "toast good" if answer.done else "toast bad"
        told = html.Div(html.P(answer.words), className=tone, key=str(at)) if answer.words else None
        return [told, answer.beside, {"at": at, "go": go, "focus": "#accelerators-declare a"},
                {"at": at} if answer.declared else no_update]  # fmt: skip


def _asked(
    answer: Callable[[Reader, Place], list[Any]], warehouse: Warehouse, place: Place, or_else: list[Any]
) -> list[Any]:  # fmt: skip
    """What a part of the page answers; `or_else` where there is nothing to see, which the headline explains."""
    try:
        reader = reader_of(warehouse, place)
    except PermissionError:
        reader = None
    return answer(reader, place) if reader is not None else or_else


def _headed(warehouse: Warehouse, place: Place) -> list[Any]:
    nothing: list[Any] = ["#", None, []]
    try:
        reader = reader_of(warehouse, place)
    except PermissionError:
        return [empty("forbidden"), "", [], *nothing]
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), *nothing]
    words = [fmt.span(reader.window.period.start, reader.window.period.end), f" {fmt.zone()}"]
    if reader.window.prior:
        words.append(f" · compared with {fmt.span(reader.window.prior.start, reader.window.prior.end, year=False)}")
    pills = [freshness(reader.fresh, reader.now)]
    found = homes(reader, place.per)
    if not found:
        kind: Emptiness = "no_rows" if has_hardware(reader) else "undeclared"
        clear = place.unfiltered().href() if place.view.filters else None
        also = declaring.button() if kind == "undeclared" and declaring.operates() else None
        return [empty(kind, clear=clear, also=also), words, pills, *nothing]
    by_team = not set(askable(MEASURES, [name for name, _ in reader.view.filters])) >= set(MEASURES)
    notice = html.P([html.B("Filtered by team. "), BY_TEAM], className="card banner") if by_team else None
    asked = question(reader.view, reader.window.period,
                     askable(ALL, [name for name, _ in reader.view.filters]), KEY)  # fmt: skip
    export = api_query(asked, format="csv")
    total = told(reader, MEASURES)[0]
    lead = html.P([_said(one, place) for one in headline(found, total, place)])
    return [notice, words, pills, export, lead, _cards(reader, total, before(reader, CARDS), place)]


BY_TEAM: Final = (
    "Costs are what its calls carry. What belongs to the hardware itself, such as busy time, price per hour and "
    "coverage, belongs to no team and is left out."
)


def _declared(reader: Reader, _place: Place) -> list[Any]:
    """What is not declared, and what of that which is can be chosen."""
    found = discovered(reader.warehouse, reader.tenant, reader.window.period)
    return [accelerators_undeclared.notice(found, operates=declaring.operates()), choices(reader)]


def _said(one: str | tuple[str, Figure], place: Place) -> Any:
    return one if isinstance(one, str) else opener(html.B(one[0]), one[1], place.href(opened=None))


def _cards(reader: Reader, total: Row, prior: Row, place: Place) -> list[Component]:
    per = place.per
    daily = reader.daily(askable(TRENDS, [name for name, _ in reader.view.filters]), since=reader.trend_start)
    here = place.href(opened=None)

    def card(name: str, top: str, bottom: str | None = None, beside: str | None = None, **more: Any) -> Component:
        measure, was = DICTIONARY[name], prior.get(name)
        drawn = {top, bottom or top} <= set(daily.columns)
        if total[name] is None:
            beside = "belongs to no team" if place.view.chosen("team") else "not known"
        elif beside is None and reader.window.prior:
            beside = f"vs {fmt.value_text(was, measure.unit)}" if was is not None else "no prior data"
        text = fmt.value_text(total[name], measure.unit)
        return kpi(
            name,
            text if total[name] is None else opener(text, Figure.of(name), here),
            change=fmt.change(total[name], was, unit=measure.unit, better=measure.better),
            beside=beside or "",
            trend=spark(reader.trend(daily, top, bottom)) if drawn else None,
            exact=exact(total[name], measure.unit) if total[name] is not None else None,
            opens=Figure.of(name).written,
            **more,
        )

    return [
        card("capacity_cost_usd", "capacity_cost_usd", under=_meter(total)),
        card(COST[per], "spend_usd", TOKENS[per], label=f"{fmt.unit()} / 1M tokens, {SHORT[per]}"),
        card("idle_cost_usd", "idle_cost_usd", beside=f"{fmt.percent(total['idle_ratio'], 0)} of its cost"),
        card("utilisation_ratio", "busy_accelerator_hours", "accelerator_hours", label="Busy, of paid hours"),
        card(PER_JOULE[per], "energy_tokens" if per == "total" else "energy_output_tokens", "energy_joules",
             label=f"Tokens / joule, {SHORT[per]}"),
        card("energy_wh", "energy_joules", label=_energy_label(total), beside=_carbon(total)),
    ]  # fmt: skip


def _carbon(total: Row) -> str:
    carbon = total["gco2e_g"]
    return f"{fmt.value_text(carbon, 'g')} CO₂e" if carbon is not None else "CO₂e not known"


def _energy_label(total: Row) -> str:
    measured = total["measured_energy_ratio"]
    return f"Energy, {bars.known_by(measured)}" if measured is not None else "Energy and carbon"


def _meter(total: Row) -> Component | None:
    whole = total["capacity_cost_usd"]
    parts = [(bars.PART_WORDS[name], total[name] / whole, f"{fmt.usd(total[name])} {bars.PART_WORDS[name]}")
             for name in bars.PART_WORDS if whole and total[name]]  # fmt: skip
    return meter(parts) if parts else None


def _compared(reader: Reader, place: Place) -> list[Any]:
    found = homes(reader, place.per)
    if not found:
        return [None] * 6
    colour_of = colours(reader, "accelerator")
    rows = told(reader, RATES, "accelerator")
    return [
        bars.compare(found, place, colour_of),
        f"USD per 1M tokens, {COUNTED[place.per]}, idle included · click a figure to see how it came about",
        bars.idlest(told(reader, bars.IDLE_MEASURES, "deployment"), place),
        "paid for while no call ran, by deployment",
        bars.rates(rows, place, colour_of),
        "what one accelerator cost for an hour, over the period",
    ]


def _tabled(reader: Reader, place: Place) -> list[Any]:
    found = homes(reader, place.per)
    if not found:
        return [None] * 2
    order = (
        "sorted by " + place.order.removeprefix("-")
        if place.order
        else "models that cost most first, cheapest home on top"
    )
    return [
        accelerators_table.table(found, told(reader, MEASURES)[0], place, colours(reader, "accelerator")),
        f"model × accelerator × engine × precision · {order} · click a heading to sort, a figure to open it",
    ]


def _energised(reader: Reader, place: Place) -> list[Any]:
    rows, total = told(reader, ENERGY, place.cut), told(reader, ENERGY)[0]
    words = "at the meter of the site, idle and overhead included"
    if (measured := total["measured_energy_ratio"]) is not None:
        words += f" · {fmt.percent(measured, 0)} measured, the rest modelled from rated power"
    return [bars.energy(rows, total, place.cut, place, colours(reader, place.cut)), words]
