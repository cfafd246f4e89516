"""The Unit economics page: what one call, user, customer, or anything that the company counts costs, and earns.

The address is the state. Sums and business units are asked as often as new calls come; quantiles and users read raw
calls, so they are asked when the period or a filter changes, and say which period that was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from millicent.dashboard import exporting
from millicent.dashboard import format as fmt
from millicent.dashboard.components import freshness, kpi, panel, pill, segmented, spark
from millicent.dashboard.pages import derivation
from millicent.dashboard.pages import units_charts as drawn
from millicent.dashboard.pages import units_sums as sums
from millicent.dashboard.pages import units_tables as tables
from millicent.dashboard.pages.answering import answered, no_calls
from millicent.dashboard.pages.facts import card, chart_panel
from millicent.dashboard.pages.figures import Figure, opener
from millicent.dashboard.pages.frame import Place, addressed, offered, page, tabled
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View, question
from millicent.warehouse import spread
from millicent.warehouse.query import BadQuery, Query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.units_sums import Counted
    from millicent.dashboard.reader import Row
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

FILTERS: Final = {"team": "Team", "feature": "Feature", "customer": "Customer", "model": "Model"}
BY: Final = {"feature": "Feature", "customer": "Customer", "team": "Team", "model": "Model"}
PLACE: Final = Place(
    name="units", title="Unit economics", filters=FILTERS,
    more=(("in", None, ""), ("by", "units-by", "feature"), ("open", None, "")),
)  # fmt: skip
PLACES: Final = (
    "On this page",
    (("bars", "What one costs", "#each"), ("grid", "What is counted", "#counted"), ("people", "Users", "#users"),
     ("list", "Spread of calls", "#calls-spread")),
)  # fmt: skip
HEADLINE: Final = ("cost_per_call_usd", "spend_usd", "calls")
EXPORTED: Final = ("spend_usd", "calls", "cost_per_call_usd", "total_tokens", "cost_per_mtok_usd")
UNTOLD: Final = "Idle and charges are told of no feature or customer, so they are not in it."
DIRECT: Final = "Idle and charges belong to no call, so they are in none of these."


def layout(price_version: str) -> Component:
    """The page before its numbers."""
    by = segmented("units-by", BY, "feature", "Rows", "small")
    curve = dcc.Graph(id="users-chart", figure=NOTHING, responsive=True, className="chart", style={"height": "210px"},
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    cards = [
        html.Div([html.Section(className="card kpi") for _ in range(3)], id=f"units-{name}", className="half")
        for name in ("kpis", "spreads")
    ]
    board = html.Div(
        [
            html.Div(cards, className="kpis"),
            chart_panel("each", "What one costs", height=230),
            panel("What is counted", "", html.Div(id="counted-body"), id="counted"),
            panel("Users", "", html.Div([curve, html.Div(id="users-body")]), id="users"),
            panel("Spread of the cost of calls", "", html.Div(id="calls-spread-body"), id="calls-spread",
                  aside=html.Div(by, className="aside")),
        ],
        className="board units",
    )  # fmt: skip
    return page(PLACE, price_version, board, stores=("in",), sections=(PLACES,))


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    addressed(app, PLACE.name, PLACE.controls)
    offered(app, PLACE.name)
    browser: Any = app.clientside_callback
    browser(
        ClientsideFunction("millicent", "unit"),
        Output("units-in", "data"), Input("units-look", "data"), State("units-in", "data"),
    )  # fmt: skip
    tabled(app, "each")
    derivation.register(app, warehouse, PLACE.name, _view)

    @app.callback(
        Output("units-notice", "children"), Output("units-words", "children"), Output("units-pills", "children"),
        Output("units-export", "children"), Output("units-kpis", "children"), Output("units-choices", "data"),
        Output("counted-body", "children"), Output("counted-words", "children"),
        Output("each-chart", "figure"), Output("each-legend", "children"), Output("each-title", "children"),
        Output("each-words", "children"),
        Input("units-scope", "data"), Input("units-in", "data"), Input("units-tick", "data"),
    )  # fmt: skip
    async def counted(scope: str | None, chosen: Any, _tick: Any) -> Any:
        name = chosen if isinstance(chosen, str) else ""
        return await asyncio.to_thread(
            answered, lambda reader: _counted(reader, name), warehouse, _view(scope), _nothing
        )

    @app.callback(
        Output("units-spreads", "children"), Output("users-chart", "figure"), Output("users-body", "children"),
        Output("users-words", "children"),
        Input("units-scope", "data"),
    )  # fmt: skip
    async def users(scope: str | None) -> Any:
        return await asyncio.to_thread(answered, _users, warehouse, _view(scope), lambda _: [[], NOTHING, None, ""])

    @app.callback(
        Output("calls-spread-body", "children"), Output("calls-spread-words", "children"),
        Input("units-scope", "data"), Input("units-by", "value"),
    )  # fmt: skip
    async def spreads(scope: str | None, by: Any) -> Any:
        dimension = by if by in BY else "feature"
        return await asyncio.to_thread(
            answered, lambda reader: _spreads(reader, dimension), warehouse, _view(scope), lambda _: [None, ""]
        )


def _view(scope: str | None) -> View:
    return View.parse(scope, tuple(FILTERS))


def _nothing(notice: Any) -> list[Any]:
    return [notice, "", pill("No calls yet"), [], [], no_update, None, "", NOTHING, [], "What one costs", ""]


# ---- what is counted


def _counted(reader: Reader, chosen: str) -> list[Any]:
    view, window = reader.view, reader.window
    words, pills = window.words, [freshness(reader.fresh, reader.now)]
    choices = {name: reader.choices(name) for name in FILTERS}
    call = sums.calls(reader, window.period)
    if not call.quantity:
        notice = no_calls(reader, view.unfiltered().href() if view.filters else None)
        return [notice, words, pills, [], [], choices, None, "", NOTHING, [], "What one costs", ""]
    found = [call, *sums.uploaded(reader, window.period)]
    before = _before(reader)
    shown = next((one for one in found if one.name == chosen), call)
    export = exporting.menu(question(view, window.period, EXPORTED, ("feature", "customer"), "day"), PLACE.name)
    volume = "Calls" if not shown.name else "How many"
    return [
        None, words, pills, export, _cards(reader, found, before), choices,
        tables.what_is_counted(found, before, shown.name, view), "click one to draw it",
        drawn.each(shown, volume, window), drawn.each_legend(shown, volume),
        f"What one {shown.name or 'call'} costs", _each_words(reader, shown),
    ]  # fmt: skip


def _before(reader: Reader) -> dict[str, Counted]:
    prior = reader.window.prior
    found = [sums.calls(reader, prior), *sums.uploaded(reader, prior)] if prior else []
    return {one.name: one for one in found if one.quantity}


def _each_words(reader: Reader, shown: Counted) -> str:
    if not shown.name:
        basis = "idle and charges included" if reader.view.basis == "effective" else "without idle"
        return f"spend ÷ calls per day, {basis} · {fmt.zone()} days"
    told = "cost of the calls that its team, feature or customer names ÷ its number"
    return f"{told} · UTC days"


def _cards(reader: Reader, found: Sequence[Counted], before: dict[str, Counted]) -> list[Component]:
    call, facts = found[0], [f"{reader.window.words}."]
    was = before.get(sums.CALL)
    change = fmt.change(call.each_usd, was.each_usd if was else None, unit="usd", better="lower")
    daily = reader.daily(("spend_usd", "calls"), since=reader.trend_start)
    each = kpi(
        "cost_per_call_usd", opener(fmt.usd(call.each_usd), _figure(reader, "cost_per_call_usd"), reader.view.search()),
        change=change, beside=f"{fmt.count(call.quantity)} calls", facts=facts,
        trend=spark(reader.trend(daily, "spend_usd", "calls")),
    )  # fmt: skip
    return [each, _customers(reader, facts), _margin(found, before, facts) if len(found) > 1 else _no_units(facts)]


def _figure(reader: Reader, measure: str) -> Figure:
    return Figure.of(measure, reader.view.basis)


def _customers(reader: Reader, facts: Sequence[str]) -> Component:
    now = sums.customers(reader, reader.window.period)
    then = sums.customers(reader, reader.window.prior) if reader.window.prior else None
    number, each = now[0] if now else 0, _each(now)
    return card(
        "customer", "Cost / customer", fmt.usd(each), f"{fmt.count(number)} customers told", [
            "Spend on calls that tell a customer, per customer that had a call.",
            "Σ spend_usd of calls with a customer ÷ customers.", *facts],
        change=fmt.change(each, _each(then), unit="usd", better="lower"), exact=fmt.usd_exact(each),
    )  # fmt: skip


def _each(told: tuple[int, Decimal | None] | None) -> Decimal | None:
    return told[1] / told[0] if told and told[0] and told[1] is not None else None


def _margin(found: Sequence[Counted], before: dict[str, Counted], facts: Sequence[str]) -> Component:
    margin, revenue = sums.total(found)
    then = sums.total(before.values())
    ratio = margin / revenue if margin is not None and revenue else None
    was = then[0] / then[1] if then[0] is not None and then[1] else None
    told = f"{fmt.usd(margin)} of {fmt.usd(revenue)}" if revenue is not None else "no revenue is told"
    return card(
        "margin", "Margin", fmt.percent(ratio), told, [
            "Revenue of the business units less the cost of their calls, as a share of revenue.", UNTOLD,
            "(Σ revenue − Σ spend of what earned it) ÷ Σ revenue.", *facts],
        change=fmt.change(ratio, was, unit="ratio", better="higher"), exact=fmt.usd_exact(margin),
    )  # fmt: skip


def _no_units(facts: Sequence[str]) -> Component:
    words = "Upload what you count besides calls, with its revenue: it stands below, and its margin here."
    return card("margin", "Margin", fmt.UNKNOWN, "upload what you count, and earn", [words, *facts])


# ---- what single calls and users cost


@dataclass(frozen=True, slots=True)
class _Read:
    """A question to raw calls: its period may be the newest part of the page's, and its amounts are in USD."""

    asked: Query
    since: datetime | None
    per_unit: Decimal
    words: str

    def amount(self, usd: Decimal | None) -> Decimal | None:
        """In the currency shown."""
        return None if usd is None else usd / self.per_unit


def _read(reader: Reader) -> _Read:
    """What is read of raw calls for the page.

    Raises:
        BadQuery: there is no exchange rate.
    """
    asked = question(reader.view, reader.window.period, ("spend_usd",))
    rates = reader.warehouse.prices.rates(reader.tenant, asked.currency) if asked.currency != "USD" else ()
    per_unit, words = Decimal(1), ""
    if asked.currency != "USD":
        holding = [one for one in rates if one.since <= asked.period.end]
        if not holding:
            raise BadQuery(f"no exchange rate of {asked.currency} is known: add an fx_rate to the price book")
        per_unit, words = holding[-1].usd_per_unit, f" · {holding[-1].words}"
    plain = replace(asked, currency="USD", time_zone="UTC")
    period = spread.readable(lambda query: reader.warehouse.ask(reader.tenant, query).frame, plain)
    since = period.start if period != asked.period else None
    if since:
        words = f" · of the newest {spread.MOST:,} calls, since {fmt.moment(since)}{words}"
    return _Read(replace(plain, period=period), since, per_unit, words)


def _once(reader: Reader, read: _Read, what: str, ask: Callable[[], Any]) -> Any:
    return reader.warehouse.remembered((reader.tenant, "units", what, read.asked), read.asked.period, ask)


def _users(reader: Reader) -> list[Any]:
    read, engine = _read(reader), reader.warehouse.engine
    found = _once(reader, read, "users", lambda: spread.users(engine, reader.tenant, read.asked))
    calls = _once(reader, read, "calls", lambda: spread.per_call(engine, reader.tenant, read.asked)).row(0, named=True)
    if not calls["calls"] and not calls["unknown_calls"]:
        return [[], NOTHING, None, ""]
    found = _shown(found, read)
    cards = [_typical(calls, read), _per_user(found, read), _few(found, read)]
    if not found.users:
        nobody = html.P("No call of this period tells its user: send user.id to see how costs spread over users.",
                        className="quiet")  # fmt: skip
        return [cards, NOTHING, nobody, ""]
    known = 1 - (found.unknown_ratio or Decimal(0))
    words = f"{fmt.count(found.users)} users, {fmt.percent(known, 0)} of the cost of calls{read.words}"
    return [cards, drawn.curve(found), tables.who(found), words]


def _shown(found: spread.Concentration, read: _Read) -> spread.Concentration:
    """The same in the currency shown."""
    if read.per_unit == 1:
        return found
    return replace(
        found, spend_usd=found.spend_usd / read.per_unit, unknown_spend_usd=found.unknown_spend_usd / read.per_unit,
        curve=tuple(replace(mark, spend_usd=mark.spend_usd / read.per_unit) for mark in found.curve),
        top=tuple(replace(user, spend_usd=read.amount(user.spend_usd)) for user in found.top),
    )  # fmt: skip


def _typical(calls: Row, read: _Read) -> Component:
    half, most, nearly = (read.amount(calls[name]) for name in ("p50_usd", "p95_usd", "p99_usd"))
    unknown = [f"{calls['unknown_calls']:,} calls of unknown cost are not in it."] if calls["unknown_calls"] else []
    summed = [f"{calls['summed_calls']:,} calls were told in sums and are not in it."] if calls["summed_calls"] else []
    return card(
        "typical", "Typical call", fmt.usd(half), f"95%: {fmt.usd(most)} · 99%: {fmt.usd(nearly)}", [
            "The cost that half of all calls do not exceed; it is the cost of a call that happened, not an estimate.",
            "Median, 95th and 99th percentile of the cost of single calls.", DIRECT, *unknown, *summed],
        exact=fmt.usd_exact(read.amount(calls["most_usd"])),
    )  # fmt: skip


def _per_user(found: spread.Concentration, read: _Read) -> Component:
    each = found.spend_usd / found.users if found.users else None
    return card(
        "user", "Cost / user", fmt.usd(each), f"{fmt.count(found.users)} users told", [
            "What the calls of one user cost, of users that are told.", "Σ spend of calls with a user ÷ users.", DIRECT,
            *([read.words.removeprefix(" · ")] if read.words else [])],
        exact=fmt.usd_exact(each),
    )  # fmt: skip


def _few(found: spread.Concentration, read: _Read) -> Component:
    first, tenth = found.share(1), found.share(10)
    return card(
        "few", "Top 1% of users", fmt.percent(first, 0), f"of the cost; top 10%: {fmt.percent(tenth, 0)}", [
            "Part of the cost of all known users that the most costly hundredth of them is.",
            f"Calls that tell no user are {fmt.percent(found.unknown_ratio)} of the cost of calls and are not in it.",
            DIRECT, *([read.words.removeprefix(" · ")] if read.words else [])],
    )  # fmt: skip


def _spreads(reader: Reader, dimension: str) -> list[Any]:
    read, engine = _read(reader), reader.warehouse.engine
    frame = _once(reader, read, f"calls by {dimension}",
                  lambda: spread.per_call(engine, reader.tenant, read.asked, dimension))  # fmt: skip
    people = _once(reader, read, f"users by {dimension}",
                   lambda: spread.per_user(engine, reader.tenant, read.asked, dimension))  # fmt: skip
    if read.per_unit != 1:
        frame, people = (_divided(one, read.per_unit) for one in (frame, people))
    known = {row[dimension]: (row["users"], row["spend_usd"]) for row in people.iter_rows(named=True)}
    table = tables.spreads(frame, known, dimension, reader.view)
    return [table, f"most spend first, without idle and charges{read.words}" if table else ""]


def _divided(frame: pl.DataFrame, per_unit: Decimal) -> pl.DataFrame:
    """Amounts in the currency shown; of 100 rows at most."""
    amounts = [name for name in frame.columns if name.endswith("_usd")]
    return frame.with_columns(
        pl.Series(name, [None if value is None else value / per_unit for value in frame[name]],
                  dtype=pl.Decimal(38, 12))
        for name in amounts
    )  # fmt: skip
