"""The Overview: what it cost, what moved, and where. Layout and callbacks; every number comes from the query layer.

The address is the state: controls write it, links are addresses, and three callbacks (headline, chart, breakdown)
answer what their part of it asks.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from millicent.dashboard import access, charts, tables
from millicent.dashboard import format as fmt
from millicent.dashboard.components import (
    dot,
    empty,
    header,
    icon,
    kpi,
    link,
    meter,
    panel,
    pill,
    popover,
    sidebar,
    spark,
)
from millicent.dashboard.state import (
    BASES,
    CUTS,
    FILTERS,
    RANGES,
    SCALES,
    Cut,
    View,
    Window,
    api_query,
    question,
)
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import Period

if TYPE_CHECKING:
    import polars as pl
    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse

Row = dict[str, Any]

HEADLINE: Final = (
    "spend_usd", "total_tokens", "calls", "cost_per_mtok_usd", "idle_ratio", "idle_cost_usd", "capacity_cost_usd",
    "hardware_cost_usd", "billed_cost_usd", "cache_saving_usd", "cache_hit_ratio", "priced_ratio", "attributed_ratio",
    "unpriced_calls", "unattributed_calls",
)  # fmt: skip
DAILY: Final = (
    "spend_usd", "total_tokens", "idle_cost_usd", "capacity_cost_usd", "hardware_cost_usd", "cache_saving_usd",
)  # fmt: skip
HEAT: Final = ("spend_usd", "total_tokens", "cost_per_mtok_usd", "calls", "unpriced_calls")
DIMENSION: Final[dict[Cut, str]] = {"team": "team", "model": "model", "accelerator": "accelerator", "cost": "cost_type"}
TITLES: Final = {"team": "Team", "model": "Model", "accelerator": "Accelerator", "environment": "Environment"}
SMOOTHING: Final = timedelta(days=6)
LATE, STALE = timedelta(minutes=10), timedelta(minutes=30)
COVERED: Final = Decimal("0.95")
MOVES: Final = 4

CONTROLS: Final = (
    ("p", "range", "4w"), ("vs", "compare", "previous"), ("basis", "basis", "effective"),
    ("by", "cut", "team"), ("in", "scale", "usd"), *((name, name, None) for name in FILTERS),
)  # fmt: skip
"""Key in the address, id of the control, default; no default means many values."""


def layout(price_version: str) -> Component:
    """The page before its numbers: everything has its place already, so that nothing moves when they come."""
    here: Any = [("", [("home", "Overview", "/")]),
                 ("On this page", [("bars", "Spend over time", "#spend"), ("swap", "What changed", "#changes"),
                                   ("grid", "Cost per 1M tokens", "#heat"), ("people", "Teams", "#teams")]),
                 ("Data", [("book", "Metrics dictionary", "/api/v1/metrics-dictionary"),
                           ("check", "Balance of calls", "/api/v1/balance")])]  # fmt: skip
    share = html.Button([icon("share"), html.Span("Share")], className="button", type="button",
                        title="Copy the address of this view", **{"data-action": "share"})  # fmt: skip
    export = html.A([icon("download"), html.Span("Export")], id="export", className="button", href="#",
                    title="What is shown, by day and team, as CSV", download="millicent.csv")  # fmt: skip
    page = html.Main(
        [
            header("Overview", [share, export]),
            _filter_bar(),
            html.Div(id="notice"),
            html.Div(
                [
                    html.Div([html.Section(className="card kpi") for _ in range(6)], id="kpis", className="kpis"),
                    _chart_panel(),
                    panel("What changed", "", html.Div(id="changes-body", className="body"), id="changes"),
                    panel("Cost per 1M tokens", "", html.Div(id="heat-body", className="body"), id="heat"),
                    panel("Teams", "", html.Div(id="teams-body", className="body"), id="teams"),
                ],
                className="board",
            ),
        ],
        id="main",
    )
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Store(id="scope"),
            dcc.Store(id="look"),
            dcc.Store(id="choices"),
            dcc.Store(id="controls", data=CONTROLS),
            html.A("Skip to the numbers", href="#main", className="skip"),
            sidebar(here, ["USD · UTC days", f"Price book {price_version}"]),
            page,
            html.Div(id="said", role="status", className="unseen"),
        ],
        className="frame",
    )


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`. Each is an open API: it trusts nothing but the principal of the request."""
    controls = [Input(control, "value") for _, control, _ in CONTROLS]
    app.clientside_callback(
        ClientsideFunction("millicent", "address"),
        Output("url", "search"), Output("scope", "data"), Output("look", "data"),
        *(Output(control, "value") for _, control, default in CONTROLS if default is not None),
        Input("url", "search"), Input("chart", "clickData"), *controls,
        State("controls", "data"), State("chart", "figure"),
    )  # fmt: skip
    app.clientside_callback(
        ClientsideFunction("millicent", "offer"), Input("choices", "data"), State("controls", "data")
    )
    app.clientside_callback(
        ClientsideFunction("millicent", "table"),
        Output("chart-table", "children"), Input("chart-as-table", "n_clicks"), Input("chart", "figure"),
    )  # fmt: skip

    @app.callback(
        Output("notice", "children"), Output("words", "children"), Output("pills", "children"),
        Output("export", "href"), Output("kpis", "children"), Output("choices", "data"),
        Input("scope", "data"),
    )  # fmt: skip
    async def headline(scope: str | None) -> Any:
        return await asyncio.to_thread(_headline, warehouse, View.parse(scope))

    @app.callback(
        Output("chart", "figure"), Output("legend", "children"), Output("spend-words", "children"),
        Input("scope", "data"), Input("look", "data"),
    )  # fmt: skip
    async def chart(scope: str | None, look: str | None) -> Any:
        return await asyncio.to_thread(_chart, warehouse, View.parse(f"{scope or ''}&{look or ''}"))

    @app.callback(
        Output("changes-title", "children"), Output("changes-body", "children"), Output("changes-words", "children"), Output("heat-body", "children"),
        Output("heat-words", "children"), Output("teams-body", "children"), Output("teams-words", "children"),
        Input("scope", "data"),
    )  # fmt: skip
    async def breakdown(scope: str | None) -> Any:
        return await asyncio.to_thread(_breakdown, warehouse, View.parse(scope))


@dataclass(frozen=True, slots=True)
class Desk:
    """Who asks about which view, at one moment."""

    warehouse: Warehouse
    tenant: str
    view: View
    window: Window
    fresh: datetime
    now: datetime

    def ask(self, measures: tuple[str, ...], *by: str, period: Period | None = None, daily: bool = False) -> pl.DataFrame:
        asked = question(self.view, period or self.window.period, measures, by, "day" if daily else None)
        return self.warehouse.ask(self.tenant, asked).frame

    def prior(self, measures: tuple[str, ...], *by: str) -> pl.DataFrame | None:
        return self.ask(measures, *by, period=self.window.prior) if self.window.prior else None

    def colours(self, dimension: str) -> dict[str | None, str]:
        """By rank over the whole period, whatever is filtered, so that a filter changes no colour."""
        return charts.colours(self.warehouse.values(self.tenant, dimension, self.window.period))


def _desk(warehouse: Warehouse, view: View) -> Desk | None:
    """None before the first call.

    Raises:
        PermissionError: the one who asks may not see this.
    """
    try:
        tenant = access.principal().tenant
    except LookupError as error:
        raise PermissionError("no principal") from error
    fresh, now = warehouse.freshness(tenant), datetime.now(UTC)
    if fresh is None:
        return None
    return Desk(warehouse, tenant, view, Window.of(view, min(fresh, now)), fresh, now)


def _row(frame: pl.DataFrame | None) -> Row | None:
    return frame.row(0, named=True) if frame is not None and frame.height else None


def _headline(warehouse: Warehouse, view: View) -> list[Any]:
    try:
        desk = _desk(warehouse, view)
    except PermissionError:
        return [empty("forbidden"), "", [], "#", [], no_update]
    if desk is None:
        return [empty("unconnected"), "", pill("No calls yet"), "#", [], no_update]
    total, before = _row(desk.ask(HEADLINE)), _row(desk.prior(HEADLINE))
    choices = {name: _choices(desk, name) for name in FILTERS}
    pills = [_freshness(desk)]
    export = api_query(question(view, desk.window.period, ("spend_usd", *tables.TEAM_MEASURES[1:]), ("team",), "day"), format="csv")
    words = _period_words(desk.window)
    if total is None or (not total["calls"] and total["spend_usd"] is None):
        waiting = desk.fresh < desk.now - STALE and not view.filters
        clear = view.unfiltered().href() if view.filters else None
        return [empty("ingesting" if waiting else "no_rows", clear=clear), words, pills, export, [], choices]
    pills.append(_coverage(total))
    return [None, words, pills, export, _cards(desk, total, before or {}), choices]


def _cards(desk: Desk, total: Row, before: Row) -> list[Component]:
    window, view = desk.window, desk.view
    daily = desk.ask(DAILY, period=Period(window.period.start - SMOOTHING, window.period.end), daily=True)
    days = _whole_days(window)

    def trend(top: str, bottom: str | None = None) -> Component:
        under = charts.by_day(daily, bottom, days) if bottom else None
        return spark(charts.smoothed(charts.by_day(daily, top, days), under)[SMOOTHING.days :])

    def moved(name: str) -> fmt.Change | None:
        return fmt.change(total[name], before.get(name), unit=DICTIONARY[name].unit, better=DICTIONARY[name].better)

    def versus(name: str) -> str:
        return f"vs {fmt.value_text(before[name], DICTIONARY[name].unit)}" if before.get(name) is not None else "no prior data"

    facts = [f"{_period_words(window)}.", f"Basis: {BASES.get(view.basis, view.basis)}."]
    compared = versus if window.prior else lambda _: ""
    unpriced = total["unpriced_calls"] or 0
    missing = [f"{fmt.count(unpriced)} unpriced calls are not in it."] if unpriced else []
    own = "capacity_cost_usd" if view.basis == "effective" else "hardware_cost_usd"
    return [
        kpi("spend_usd", fmt.usd(total["spend_usd"]), change=moved("spend_usd"), beside=compared("spend_usd"),
            trend=trend("spend_usd"), exact=fmt.usd_exact(total["spend_usd"]), facts=[*facts, *missing]),
        kpi("total_tokens", fmt.tokens(total["total_tokens"]), change=moved("total_tokens"), beside=compared("total_tokens"),
            trend=trend("total_tokens"), exact=f"{total['total_tokens'] or 0:,}", facts=facts),
        kpi("cost_per_mtok_usd", fmt.usd(total["cost_per_mtok_usd"]), change=moved("cost_per_mtok_usd"),
            beside=compared("cost_per_mtok_usd"), trend=trend("spend_usd", "total_tokens"), facts=[*facts, *missing]),
        kpi("idle_ratio", fmt.percent(total["idle_ratio"]), change=moved("idle_ratio"),
            beside=f"{fmt.usd(total['idle_cost_usd'])} unallocated" if total["idle_cost_usd"] is not None
            else "belongs to no team" if view.chosen("team") else "no own hardware",
            trend=trend_ratio(daily, days), facts=facts),
        kpi("cache_saving_usd", fmt.usd(total["cache_saving_usd"]), change=moved("cache_saving_usd"),
            beside=f"{fmt.percent(total['cache_hit_ratio'], 0)} hit", trend=trend("cache_saving_usd"),
            exact=fmt.usd_exact(total["cache_saving_usd"]), facts=[*facts, "Hit is cached over all input tokens."]),
        kpi(own, fmt.usd(total[own]), change=moved(own), beside=_of_spend(total, own), trend=trend(own),
            exact=fmt.usd_exact(total[own]), facts=facts, label="Own hardware", under=_split(total, view)),
    ]  # fmt: skip


def trend_ratio(daily: pl.DataFrame, days: list[datetime]) -> Component:
    """Idle over capacity, smoothed as sum over sum."""
    idle = charts.by_day(daily, "idle_cost_usd", days)
    capacity = charts.by_day(daily, "capacity_cost_usd", days)
    means = zip(charts.smoothed(idle), charts.smoothed(capacity), strict=True)
    return spark([top / under if top is not None and under else None for top, under in means][SMOOTHING.days :])


def _of_spend(total: Row, own: str) -> str:
    if total[own] is None:
        return "all by API"
    if not total["spend_usd"]:
        return ""
    return f"{fmt.percent(total[own] / total['spend_usd'], 0)} of spend"


def _split(total: Row, view: View) -> Component | None:
    """API, own hardware busy, own hardware idle as shares of spend."""
    spend = total["spend_usd"]
    if not spend:
        return None
    kinds = (("api", "billed_cost_usd", "API"), ("busy", "hardware_cost_usd", "own hardware, busy"),
             ("idle", "idle_cost_usd", "idle"))  # fmt: skip
    parts = [
        (kind, amount / spend, f"{fmt.usd(amount)} {words}")
        for kind, name, words in kinds
        if (amount := total[name]) and not (kind == "idle" and view.basis != "effective")
    ]
    return meter(parts) if parts else None


def _chart(warehouse: Warehouse, view: View) -> list[Any]:
    blank = [{"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}}, [], ""]
    try:
        desk = _desk(warehouse, view)
    except PermissionError:
        return blank
    if desk is None:
        return blank
    window, dimension = desk.window, DIMENSION[view.cut]
    reach = Period(window.prior.start if window.prior else window.period.start, window.period.end)
    frame = desk.ask(("spend_usd", "idle_cost_usd", "total_tokens"), dimension, daily=True)
    totals = desk.ask(("spend_usd", "total_tokens"), daily=True, period=reach)
    colour_of = {} if view.cut == "cost" else desk.colours(dimension)
    if view.cut == "accelerator":
        colour_of[None] = charts.API_COLOUR
    layers = charts.series(frame, dimension, window.days, colour_of, idle=view.basis == "effective")
    if not layers:
        return blank
    figure = charts.spend_figure(layers, totals, window, view.scale, parts=view.cut == "cost",
                                 href=lambda layer: _narrowed(view, dimension, layer))  # fmt: skip
    unit = "per 1M tokens, input plus output" if view.scale == "mtok" else "stacked by " + CUTS[view.cut].lower()
    return [figure, _legend(layers, view, dimension, window), f"daily {unit} · UTC days"]


def _narrowed(view: View, dimension: str, layer: charts.Series) -> str | None:
    if layer.kind != "entity" or dimension not in FILTERS:
        return None
    return view.toggled(**{dimension: layer.value}).href()


def _legend(layers: list[charts.Series], view: View, dimension: str, window: Window) -> list[Component]:
    entries = []
    for layer in layers:
        if layer.kind == "idle" and view.scale == "mtok" and view.cut != "cost":
            continue
        face = [dot(layer.colour, hatched=layer.kind == "idle"), html.Span(layer.label)]
        href = _narrowed(view, dimension, layer)
        entries.append(html.Li(link(face, href, title=f"Show only {layer.label}") if href else html.Span(face)))
    if window.prior:
        entries.append(html.Li(html.Span([html.I(className="tick", **{"aria-hidden": "true"}), "Prior"])))
    return entries


def _breakdown(warehouse: Warehouse, view: View) -> list[Any]:
    try:
        desk = _desk(warehouse, view)
    except PermissionError:
        desk = None
    if desk is None:
        return ["What changed", None, "", None, "", None, ""]
    window = desk.window
    now, before = desk.ask(tables.TEAM_MEASURES, "team"), desk.prior(tables.TEAM_MEASURES, "team")
    total, prior_total = _row(desk.ask(tables.TEAM_MEASURES)), _row(desk.prior(tables.TEAM_MEASURES))
    if total is None or (not total["calls"] and total["spend_usd"] is None):
        return ["What changed", None, "", None, "", None, ""]
    models, models_before = desk.ask(("spend_usd",), "model"), desk.prior(("spend_usd",), "model")
    team_colours, model_colours = desk.colours("team"), desk.colours("model")
    groups = [
        ("By team", tables.moves(now, before, "team", team_colours, lambda name: view.toggled(team=name).href())),
        ("By model", tables.moves(models, models_before, "model", model_colours, lambda name: view.toggled(model=name).href())),
    ]
    compared = prior_total is not None and prior_total["spend_usd"] is not None and total["spend_usd"] is not None
    body = tables.changes([(title, found[:MOVES]) for title, found in groups], tables.drivers(total, prior_total),
                          whole=None if compared else total["spend_usd"] or Decimal(0))  # fmt: skip
    heat = tables.heat(desk.ask(HEAT, "model", "accelerator", "billing"), view)
    basis = "effective, incl. idle share" if view.basis == "effective" else "direct cost, without idle"
    teams = tables.teams(now, before, total, prior_total, _trends(desk), team_colours, view, len(window.days))
    unpriced = total["unpriced_calls"] or 0
    note = f" · {fmt.count(unpriced)} unpriced calls not in spend" if unpriced else ""
    return [
        "What changed" if compared else "Where it went",
        body,
        _moved_words(total, prior_total, window),
        heat,
        f"input + output · {basis} · green ring = cheapest home",
        teams,
        f"click a row to filter{note}",
    ]


def _moved_words(total: Row, before: Row | None, window: Window) -> Any:
    if window.prior is None or before is None or before["spend_usd"] is None or total["spend_usd"] is None:
        return "largest first" if window.prior is None else "nothing to compare with yet; largest first"
    against = fmt.span(window.prior.start, window.prior.end, year=False)
    return [html.B(fmt.usd_change(total["spend_usd"] - before["spend_usd"])), f" against {against}"]


def _trends(desk: Desk) -> dict[str | None, list[Any]]:
    """Daily spend by team over whole days, smoothed like the cards."""
    start, end = desk.window.period.start - SMOOTHING, desk.window.period.end
    frame = desk.ask(("spend_usd",), "team", period=Period(start, end), daily=True)
    days = _whole_days(desk.window)
    return {
        names[0]: charts.smoothed(charts.by_day(rows, "spend_usd", days))[SMOOTHING.days :]
        for names, rows in frame.partition_by("team", as_dict=True).items()
    }


def _whole_days(window: Window) -> list[datetime]:
    """The days of a trend: those that are over, preceded by what smoothing needs."""
    whole = [day for day in window.days if day != window.today] or window.days
    return [whole[0] - timedelta(days=n) for n in range(SMOOTHING.days, 0, -1)] + whole


def _period_words(window: Window) -> str:
    words = fmt.span(window.period.start, window.period.end) + " UTC"
    if window.prior:
        words += f" · compared with {fmt.span(window.prior.start, window.prior.end, year=False)}"
    return words


def _freshness(desk: Desk) -> Component:
    late = desk.now - desk.fresh
    tone: Any = "bad" if late > STALE else "warn" if late > LATE else "good"
    return pill([html.I(className="lamp"), html.Span("Complete through", className="wide"), html.B(fmt.moment(desk.fresh))], tone)


def _coverage(total: Row) -> Component:
    priced, attributed = total["priced_ratio"], total["attributed_ratio"]
    low = any(ratio is not None and ratio < COVERED for ratio in (priced, attributed))
    face = pill(["Priced ", html.B(fmt.percent(priced)), html.Span([" · attributed ", html.B(fmt.percent(attributed))], className="wide")],
                "warn" if low else "plain")  # fmt: skip
    body = [
        html.P(f"{fmt.count(total['unpriced_calls'] or 0)} of {fmt.count(total['calls'])} calls are unpriced: their cost is "
               "unknown and not in any sum here."),
        html.P(f"{fmt.count(total['unattributed_calls'] or 0)} calls carry no team; they are the row Unattributed."),
    ]  # fmt: skip
    return popover(face, body, className="cover")


def _choices(desk: Desk, dimension: str) -> list[dict[str, str]]:
    """What can be chosen: what occurs in the period, most spend first."""
    names = desk.warehouse.values(desk.tenant, dimension, desk.window.period)
    return [{"value": name or "", "label": charts.label(dimension, name), "search": f"{name or ''} {charts.label(dimension, name)}"}
            for name in names]  # fmt: skip


def _filter_bar() -> Component:
    def segmented(control: str, options: dict[Any, str], value: str, words: str) -> Component:
        return html.Div(
            dcc.RadioItems(id=control, options=[{"value": key, "label": text} for key, text in options.items()],
                           value=value, inline=True, className="segmented"),
            role="group", **{"aria-label": words},
        )  # fmt: skip

    compare = {"previous": "vs previous period", "none": "no comparison"}
    return html.Div(
        [
            segmented("range", dict(RANGES), "4w", "Period"),
            dcc.Dropdown(id="compare", options=[{"value": k, "label": v} for k, v in compare.items()], value="previous",
                         clearable=False, searchable=False, className="select compare"),
            *(dcc.Dropdown(id=name, options=[], value=[], multi=True, placeholder=f"{title}: all", debounce=True, maxHeight=320,
                           className="select", labels={"selected_count": title + ": {num_selected}"})
              for name, title in TITLES.items()),
            html.Div(className="grow"),
            segmented("basis", dict(BASES), "effective", "Cost basis"),
        ],
        className="filters", role="search", **{"aria-label": "Filters"},
    )  # fmt: skip


def _chart_panel() -> Component:
    def segmented(control: str, options: dict[Any, str], value: str) -> Component:
        return dcc.RadioItems(id=control, options=[{"value": key, "label": text} for key, text in options.items()],
                              value=value, inline=True, className="segmented small")  # fmt: skip

    table = html.Button(icon("table"), id="chart-as-table", type="button", className="button square small",
                        **{"aria-label": "Show as a table", "aria-controls": "chart-table"}, title="Show as a table")  # fmt: skip
    aside = html.Div([segmented("cut", dict(CUTS), "team"), segmented("scale", dict(SCALES), "usd"), table], className="aside")
    graph = dcc.Graph(id="chart", figure={"data": [], "layout": {"xaxis": {"visible": False}, "yaxis": {"visible": False}}},
                      responsive=True, style={"height": "248px"}, config={"displayModeBar": False, "showSendToCloud": False}, className="chart")  # fmt: skip
    body = html.Div([html.Ul(id="legend", className="legend"), graph, html.Div(id="chart-table", className="as-table")])
    return panel("Spend over time", "daily · UTC days", body, aside=aside, id="spend")
