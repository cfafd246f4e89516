"""The Overview: what it cost, what moved, and where. Every number comes from the query layer.

The address is the state: controls write it, links are addresses, and each callback answers what its part of the page
asks, again whenever it changes or new calls may have come.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update

from millicent.dashboard import charts, outlook_figures, tables
from millicent.dashboard import format as fmt
from millicent.dashboard.components import (
    aria,
    coverage,
    dot,
    empty,
    freshness,
    kpi,
    link,
    meter,
    pill,
    spark,
    unattributed,
)
from millicent.dashboard.pages import derivation, overview_outlook, overview_why
from millicent.dashboard.pages.answering import no_calls
from millicent.dashboard.pages.figures import Figure
from millicent.dashboard.pages.overview_layout import CONTROLS, NOTHING, layout
from millicent.dashboard.reader import Reader, Row
from millicent.dashboard.state import BASES, CUTS, FILTERS, Cut, View, api_query, question
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

HEADLINE: Final = (
    "spend_usd", "total_tokens", "calls", "cost_per_mtok_usd", "idle_ratio", "idle_cost_usd", "capacity_cost_usd",
    "hardware_cost_usd", "billed_cost_usd", "cache_saving_usd", "cache_hit_ratio", "priced_ratio", "attributed_ratio",
    "unpriced_calls", "unattributed_calls", "unattributed_spend_share", "unavailable_cost_usd", "untracked_cost_usd",
)  # fmt: skip
DAILY: Final = (
    "spend_usd", "total_tokens", "priced_tokens", "idle_cost_usd", "capacity_cost_usd", "hardware_cost_usd",
    "cache_saving_usd",
)  # fmt: skip
HEAT: Final = ("spend_usd", "total_tokens", "cost_per_mtok_usd", "calls", "unpriced_calls")
DIMENSION: Final[dict[Cut, str]] = {"team": "team", "model": "model", "accelerator": "accelerator", "cost": "cost_type"}
NO_OUTLOOK: Final = ["Budgets", "", None, NOTHING, None, "", None]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    browser: Any = app.clientside_callback
    shown = [(control, default) for _, control, default in CONTROLS if control]
    single = [Output(control, "value") for control, default in shown if default is not None]
    browser(
        ClientsideFunction("millicent", "overview"),
        Output("url", "search"), Output("scope", "data"), Output("look", "data"), *single,
        Input("url", "search"), Input("chart", "clickData"), *(Input(control, "value") for control, _ in shown),
        State("controls", "data"), State("chart", "figure"), State("scope", "data"), State("look", "data"),
    )  # fmt: skip
    derivation.register(app, warehouse, "", View.parse)
    browser(ClientsideFunction("millicent", "offer"), Input("choices", "data"), State("controls", "data"))
    browser(
        ClientsideFunction("millicent", "tick"),
        Output("tick", "data"), Input("clock", "n_intervals"), prevent_initial_call=True,
    )  # fmt: skip
    for graph in ("chart", "burn"):
        browser(
            ClientsideFunction("millicent", "table"),
            Output(f"{graph}-table", "children"), Input(f"{graph}-as-table", "n_clicks"), Input(graph, "figure"),
        )  # fmt: skip

    @app.callback(
        Output("notice", "children"), Output("words", "children"), Output("pills", "children"),
        Output("export", "href"), Output("kpis", "children"), Output("choices", "data"),
        Input("scope", "data"), Input("tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_headline, warehouse, View.parse(scope))

    @app.callback(
        Output("chart", "figure"), Output("legend", "children"), Output("spend-words", "children"),
        Input("scope", "data"), Input("look", "data"), Input("tick", "data"),
    )  # fmt: skip
    async def chart(scope: str | None, look: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_chart, warehouse, View.parse(f"{scope or ''}&{(look or '').removeprefix('?')}"))

    @app.callback(
        Output("budgets-title", "children"), Output("budgets-words", "children"), Output("budgets-aside", "children"),
        Output("burn", "figure"), Output("budgets-body", "children"),
        Output("unusual-words", "children"), Output("unusual-body", "children"),
        Input("scope", "data"), Input("tick", "data"),
    )  # fmt: skip
    async def outlook(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_outlook, warehouse, View.parse(scope))

    @app.callback(
        Output("changes-title", "children"), Output("changes-body", "children"), Output("changes-words", "children"),
        Input("scope", "data"), Input("tick", "data"),
    )  # fmt: skip
    async def changes(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(_changes, warehouse, View.parse(scope))

    for name, answer in (("heat", _heat), ("teams", _teams)):
        _answered(app, warehouse, name, answer)


def _answered(app: Dash, warehouse: Warehouse, name: str, answer: Callable[[Warehouse, View], list[Any]]) -> None:

    @app.callback(
        Output(f"{name}-body", "children"), Output(f"{name}-words", "children"),
        Input("scope", "data"), Input("tick", "data"),
    )  # fmt: skip
    async def answered(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(answer, warehouse, View.parse(scope))


def _headline(warehouse: Warehouse, view: View) -> list[Any]:
    try:
        reader = Reader.of(warehouse, view)
    except PermissionError:
        return [empty("forbidden"), "", [], "#", [], no_update]
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), "#", [], no_update]
    period = reader.window.period
    total, before = reader.over(HEADLINE).row(0, named=True), reader.before(HEADLINE)
    export = api_query(question(view, period, tables.TEAM_MEASURES, ("team",), "day"), format="csv")
    words, pills = reader.window.words, [freshness(reader.fresh, reader.now)]
    choices = {name: reader.choices(name) for name in FILTERS}
    if _is_empty(total):
        clear = view.unfiltered().href() if view.filters else None
        return [no_calls(reader, clear), words, pills, export, [], choices]
    cards = _cards(reader, total, before.row(0, named=True) if before is not None else {})
    pills += [coverage(total), unattributed(total["unattributed_spend_share"], view.toggled(team=None).href())]
    return [None, words, pills, export, cards, choices]


def _is_empty(total: Row) -> bool:
    return not total["calls"] and total["spend_usd"] is None


def _cards(reader: Reader, total: Row, before: Row) -> list[Component]:
    window, view = reader.window, reader.view
    daily = reader.daily(DAILY, since=reader.trend_start)
    facts = [f"{window.words}.", f"Basis: {BASES[view.basis]}."]
    unpriced = total["unpriced_calls"] or 0
    missing = [f"{fmt.count(unpriced)} unpriced calls are not in it."] if unpriced else []

    def card(name: str, top: str, bottom: str | None = None, beside: str | None = None, **more: Any) -> Component:
        measure, was = DICTIONARY[name], before.get(name)
        if beside is None and window.prior:
            beside = f"vs {fmt.value_text(was, measure.unit)}" if was is not None else "no prior data"
        more.setdefault("facts", facts)
        return kpi(
            name,
            fmt.value_text(total[name], measure.unit),
            change=fmt.change(total[name], was, unit=measure.unit, better=measure.better),
            beside=beside or "",
            trend=spark(reader.trend(daily, top, bottom)),
            opens=Figure.of(name, view.basis).written,
            exact=_exact(total[name], measure.unit),
            **more,
        )

    return [
        card("spend_usd", "spend_usd", facts=[*facts, *missing], under=_split(total, view)),
        card("total_tokens", "total_tokens"),
        card("cost_per_mtok_usd", "spend_usd", "priced_tokens", facts=[*facts, *missing]),
        card("idle_ratio", "idle_cost_usd", "capacity_cost_usd", _idle_words(total, view)),
        card("cache_saving_usd", "cache_saving_usd", beside=f"{fmt.percent(total['cache_hit_ratio'], 0)} hit",
             facts=[*facts, "Hit: cached over all input tokens."]),
        overview_outlook.card(reader),
    ]  # fmt: skip


def _exact(value: Decimal | int | None, unit: str) -> str | None:
    """In full, where the card is rounded."""
    if value is None or unit not in {"usd", "tokens"}:
        return None
    return fmt.usd_exact(value) if unit == "usd" else f"{value:,}"


def _idle_words(total: Row, view: View) -> str:
    if total["idle_cost_usd"] is not None:
        return f"{fmt.usd(total['idle_cost_usd'])} {'carried' if view.chosen('team') else 'unallocated'}"
    return "belongs to no team" if view.chosen("team") else "no own hardware"


def _split(total: Row, view: View) -> Component | None:
    """API, and own hardware that was busy, idle, unavailable and untracked, as shares of spend."""
    spend = total["spend_usd"]
    kinds = [("api", "billed_cost_usd", "API"), ("busy", "hardware_cost_usd", "own hardware, busy")]
    if view.basis == "effective":
        kinds += [(kind, f"{kind}_cost_usd", kind) for kind in charts.UNUSED]
    parts = [
        (kind, amount / spend, f"{fmt.usd(amount)} {words}")
        for kind, name, words in kinds
        if spend and (amount := total[name])
    ]
    return meter(parts) if parts else None


def _chart(warehouse: Warehouse, view: View) -> list[Any]:
    reader = Reader.allowed(warehouse, view)
    if reader is None:
        return [NOTHING, [], ""]
    window, dimension = reader.window, DIMENSION[view.cut]
    unused = tuple(f"{kind}_cost_usd" for kind in charts.UNUSED)
    frame = reader.daily(("spend_usd", "priced_tokens", *unused), dimension)
    totals = reader.daily(("spend_usd", "priced_tokens"), since=window.prior.start if window.prior else None)
    colour_of = {} if view.cut == "cost" else reader.colours(dimension)
    layers = charts.series(frame, dimension, window.days, colour_of, idle=view.basis == "effective")
    if not layers:
        return [NOTHING, [], ""]
    figure = charts.spend_figure(layers, totals, window, view.scale, parts=view.cut == "cost",
                                 href=lambda layer: _narrowed(view, dimension, layer))  # fmt: skip
    marks = _foresee(reader, figure, totals) if view.scale == "usd" else []
    unit = "per 1M tokens, input plus output" if view.scale == "mtok" else f"stacked by {CUTS[view.cut].lower()}"
    return [
        figure,
        _legend(layers, view, dimension, compared=window.prior is not None, marks=marks),
        f"daily {unit} · {fmt.zone()} days",
    ]


def _foresee(reader: Reader, figure: dict[str, Any], totals: pl.DataFrame) -> list[tuple[str, str]]:
    """Draw days to come and days out of line; how what is drawn looks, and what it is."""
    (days, today), (odd, _) = overview_outlook.coming(reader), overview_outlook.odd_days(reader)
    cost = zip(totals["time"], totals["spend_usd"], strict=True)
    outlook_figures.odd_days(figure, odd, {fmt.local(at).date(): usd or Decimal(0) for at, usd in cost})
    outlook_figures.ahead(figure, days, today)
    return [*([("tick dashed", "Forecast")] if days else []), *([("rhomb", "Out of line")] if odd else [])]


def _narrowed(view: View, dimension: str, layer: charts.Series) -> str | None:
    if layer.kind != "entity" or dimension not in FILTERS:
        return None
    return view.toggled(**{dimension: layer.value}).href()


def _legend(
    layers: Sequence[charts.Series], view: View, dimension: str, *, compared: bool, marks: Sequence[tuple[str, str]]
) -> list[Component]:
    entries: list[Component] = []
    for layer in layers:
        unused = layer.kind in charts.BESIDE
        if unused and view.scale == "mtok" and view.cut != "cost":
            continue
        look = layer.kind if layer.kind in charts.UNUSED[1:] else ""
        face = [dot(layer.colour, hatched=layer.kind == "idle", look=look), html.Span(layer.label)]
        href = _narrowed(view, dimension, layer)
        entries.append(html.Li(link(face, href, title=f"Show only {layer.label}") if href else html.Span(face)))
    for mark, words in (*([("tick", "Prior")] if compared else []), *marks):
        entries.append(html.Li(html.Span([html.I(className=mark, **aria(hidden="true")), words])))
    return entries


def _outlook(warehouse: Warehouse, view: View) -> list[Any]:
    reader = Reader.allowed(warehouse, view)
    return NO_OUTLOOK if reader is None else [*overview_outlook.budgets(reader), *overview_outlook.unusual(reader)]


def _changes(warehouse: Warehouse, view: View) -> list[Any]:
    reader = Reader.allowed(warehouse, view)
    return overview_why.NONE if reader is None else overview_why.changed(reader)


def _heat(warehouse: Warehouse, view: View) -> list[Any]:
    reader = Reader.allowed(warehouse, view)
    if reader is None:
        return [None, ""]
    basis = "effective, incl. idle share" if view.basis == "effective" else "direct cost, without idle"
    found = reader.over(HEAT, "model", "accelerator", "billing")
    return [
        tables.heat(found, view) if found.height else None,
        f"input + output · {basis} · green ring = cheapest home",
    ]


def _teams(warehouse: Warehouse, view: View) -> list[Any]:
    reader = Reader.allowed(warehouse, view)
    if reader is None:
        return [None, ""]
    total, totals_before = reader.over(tables.TEAM_MEASURES).row(0, named=True), reader.before(tables.TEAM_MEASURES)
    if _is_empty(total):
        return [None, ""]
    before = totals_before.row(0, named=True) if totals_before is not None else None
    teams, teams_before = reader.over(tables.TEAM_MEASURES, "team"), reader.before(tables.TEAM_MEASURES, "team")
    unpriced = total["unpriced_calls"] or 0
    return [
        tables.teams(
            teams, teams_before, total, before, _trends(reader), reader.colours("team"), view, len(reader.window.days)
        ),
        "click a row to filter" + (f" · {fmt.count(unpriced)} unpriced calls not in spend" if unpriced else ""),
    ]


def _trends(reader: Reader) -> dict[str | None, Sequence[Any]]:
    """Daily spend by team, smoothed like the cards."""
    frame = reader.daily(("spend_usd",), "team", since=reader.trend_start)
    return {
        names[0]: reader.trend(rows, "spend_usd") for names, rows in frame.partition_by("team", as_dict=True).items()
    }
