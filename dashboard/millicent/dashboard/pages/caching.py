"""The Caching page: what input caches saved, whether they pay, and what a better hit rate would save.

The address is the state. Four parts are asked for apart: the whole with its models, its days, and what was missed, of
which a switch of the target asks for the last alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update

from millicent.dashboard import exporting
from millicent.dashboard import format as fmt
from millicent.dashboard.components import freshness, kpi, panel, pill, segmented, spark
from millicent.dashboard.pages import caching_charts as drawn
from millicent.dashboard.pages import caching_sums as sums
from millicent.dashboard.pages import caching_tables as tables
from millicent.dashboard.pages import derivation
from millicent.dashboard.pages.answering import answered, no_calls
from millicent.dashboard.pages.facts import card, chart_panel
from millicent.dashboard.pages.figures import Figure, opener
from millicent.dashboard.pages.frame import Place, addressed, offered, page, tabled
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View, question
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from dash.development.base_component import Component

    from millicent.dashboard.pages.caching_sums import Home, Target
    from millicent.dashboard.reader import Row
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

FILTERS: Final = {"team": "Team", "feature": "Feature", "model": "Model", "environment": "Environment"}
PLACE: Final = Place(
    name="caching", title="Caching", filters=FILTERS, based=False,
    more=(("in", "caching-target", "best"), ("open", None, "")),
)  # fmt: skip
PLACES: Final = (
    "On this page",
    (("bars", "Input by cache", "#cached"), ("swap", "What it saved", "#saved"), ("grid", "By model", "#homes"),
     ("list", "Missed savings", "#missed")),
)  # fmt: skip
HEADLINE: Final = ("cache_saving_usd", "cache_hit_ratio", "cache_read_tokens", "input_tokens", "calls")
EXPORTED: Final = (
    "input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_hit_ratio", "cache_saving_usd",
    "list_input_usd", "list_cache_read_usd", "list_cache_write_usd",
)  # fmt: skip
NO_CHARTS: Final[list[Any]] = [NOTHING, [], "", NOTHING, [], ""]


def layout(price_version: str) -> Component:
    """The page before its numbers."""
    target = segmented("caching-target", sums.TARGETS, "best", "Hit rate held against others", "small")
    board = html.Div(
        [
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="caching-kpis", className="kpis"),
            chart_panel("cached", "Input by what the cache did", height=230),
            chart_panel("saved", "What caching saved", height=230),
            panel("By model", "", html.Div(id="homes-body"), id="homes"),
            panel("Missed savings", "", html.Div(id="missed-body"), id="missed",
                  aside=html.Div([html.Span("if hit like", className="quiet"), target], className="aside")),
        ],
        className="board caching",
    )  # fmt: skip
    return page(PLACE, price_version, board, stores=("in",), sections=(PLACES,))


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    addressed(app, PLACE.name, PLACE.controls)
    offered(app, PLACE.name)
    browser: Any = app.clientside_callback
    browser(
        ClientsideFunction("millicent", "unit"),
        Output("caching-in", "data"), Input("caching-look", "data"), State("caching-in", "data"),
    )  # fmt: skip
    tabled(app, "cached", "saved")
    derivation.register(app, warehouse, PLACE.name, _view)

    @app.callback(
        Output("caching-notice", "children"), Output("caching-words", "children"), Output("caching-pills", "children"),
        Output("caching-export", "children"), Output("caching-kpis", "children"), Output("caching-choices", "data"),
        Output("homes-body", "children"), Output("homes-words", "children"),
        Input("caching-scope", "data"), Input("caching-tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any) -> Any:
        return await asyncio.to_thread(answered, _headline, warehouse, _view(scope), _nothing)

    @app.callback(
        *(Output(f"{name}-{part}", prop) for name in ("cached", "saved")
          for part, prop in (("chart", "figure"), ("legend", "children"), ("words", "children"))),
        Input("caching-scope", "data"), Input("caching-tick", "data"),
    )  # fmt: skip
    async def days(scope: str | None, _tick: Any) -> Any:
        return await asyncio.to_thread(answered, _days, warehouse, _view(scope), lambda _: NO_CHARTS)

    @app.callback(
        Output("missed-body", "children"), Output("missed-words", "children"),
        Input("caching-scope", "data"), Input("caching-in", "data"), Input("caching-tick", "data"),
    )  # fmt: skip
    async def missed(scope: str | None, target: Any, _tick: Any) -> Any:
        wanted = cast("Target", target if target in sums.TARGETS else "best")

        def told(reader: Reader) -> list[Any]:
            return _missed(reader, wanted)

        return await asyncio.to_thread(answered, told, warehouse, _view(scope), lambda _: [None, ""])


def _view(scope: str | None) -> View:
    return View.parse(scope, tuple(FILTERS))


def _nothing(notice: Any) -> list[Any]:
    return [notice, "", pill("No calls yet"), [], [], no_update, None, ""]


def _homes(reader: Reader) -> list[Home]:
    return sums.homes(reader.over(sums.SUMS, *sums.BY))


def _headline(reader: Reader) -> list[Any]:
    view, window = reader.view, reader.window
    total, before = reader.over(HEADLINE).row(0, named=True), reader.before(HEADLINE)
    words, pills = window.words, [freshness(reader.fresh, reader.now)]
    choices = {name: reader.choices(name) for name in FILTERS}
    if not total["calls"]:
        notice = no_calls(reader, view.unfiltered().href() if view.filters else None)
        return [notice, words, pills, [], [], choices, None, ""]
    export = exporting.menu(question(view, window.period, EXPORTED, ("model", "billing"), "day"), PLACE.name)
    homes = _homes(reader)
    was = reader.before(sums.SUMS, *sums.BY)
    cards = _cards(reader, total, before.row(0, named=True) if before is not None else {}, homes,
                   sums.homes(was) if was is not None else [])  # fmt: skip
    body = tables.homes(homes, view)
    return [
        None,
        words,
        pills,
        export,
        cards,
        choices,
        body,
        "what 1M input tokens cost on average in the period · click a name to filter",
    ]


def _cards(
    reader: Reader, total: Row, before: Row, homes: Sequence[Home], homes_before: Sequence[Home]
) -> list[Component]:
    here, facts = reader.view.search(), [f"{reader.window.words}."]
    trends = reader.daily(("cache_saving_usd", "cache_read_tokens", "input_tokens"), since=reader.trend_start)

    def measured(name: str, beside: str, trend: Component, *more: str) -> Component:
        measure, value = DICTIONARY[name], total[name]
        return kpi(
            name, opener(fmt.value_text(value, measure.unit), Figure.of(name), here), beside=beside, trend=trend,
            change=fmt.change(value, before.get(name), unit=measure.unit, better=measure.better),
            exact=fmt.usd_exact(value) if measure.unit == "usd" else None, facts=[*facts, *more],
        )  # fmt: skip

    def moved(now: Decimal | None, then: Decimal | None, better: Any) -> fmt.Change | None:
        return fmt.change(now, then, unit="usd", better=better)

    api, own, over = sums.saved(homes, own=False), sums.saved(homes, own=True), sums.premium(homes)
    api_then, own_then = sums.saved(homes_before, own=False), sums.saved(homes_before, own=True)
    avoided = [home.avoided_usd for home in homes if not home.own and home.avoided_usd is not None]
    found = sums.missed(reader.over(sums.SUMS, "feature", *sums.BY), homes, "best")
    lost = sum((one.missed_usd for one in found), sums.NOTHING)
    return [
        measured("cache_saving_usd", "at list prices", spark(reader.trend(trends, "cache_saving_usd")),
                 "Calls on own hardware are in it at the list price of the API that sells the same model."),
        measured("cache_hit_ratio", f"{fmt.tokens(total['cache_read_tokens'])} of {fmt.tokens(total['input_tokens'])}",
                 spark(reader.trend(trends, "cache_read_tokens", "input_tokens"))),
        card("caching-api", "Off API bills", fmt.usd(api), f"{fmt.usd(sum(avoided, sums.NOTHING))} avoided", [
            "What cached input would have cost more at APIs, uncached, less what writing it cost on top.",
            "Σ cache_saving_usd of calls at APIs, at list prices.", *facts],
            change=moved(api, api_then, "higher"), exact=fmt.usd_exact(api)),
        card("caching-premium", "Write premium", fmt.usd(over), _paid(homes), [
            "What writing to caches cost beyond plain input, at APIs that charge for it.",
            "Σ list_cache_write_usd − cache writes × price of uncached input, model by model.", *facts],
            change=moved(over, sums.premium(homes_before), "lower"), exact=fmt.usd_exact(over)),
        card("caching-freed", "Capacity freed", fmt.usd(own), "own hardware", [
            "What cached input on own hardware would have cost more, had it weighed as much as uncached input.",
            "No bill falls by it: the accelerators are paid anyway, and have room for other calls.",
            "cached tokens × cost of an uncached token − Σ hardware_cached_usd, model by model.", *facts],
            change=moved(own, own_then, "higher"), exact=fmt.usd_exact(own)),
        card("caching-missed", "Missed savings", fmt.usd(lost), "if all hit like the best", [
            "What features would have saved beyond, had each hit the cache like the best feature with the same model.",
            "(best hit rate − own hit rate) × input × (price uncached − price cached).", *facts],
            exact=fmt.usd_exact(lost)),
    ]  # fmt: skip


def _paid(homes: Sequence[Home]) -> str:
    """How many models take a premium, and for how many it came back."""
    taking = [home for home in homes if home.premium_usd]
    if not taking:
        return "no model takes one"
    back = sum(1 for home in taking if home.saved_usd is not None and home.saved_usd > 0)
    return f"earned back by {back} of {len(taking)}"


def _days(reader: Reader) -> list[Any]:
    homes, window = _homes(reader), reader.window
    frame = reader.daily(sums.SUMS, *sums.BY)
    found = sums.daily(frame, homes)
    if found.is_empty():
        return NO_CHARTS
    zone = fmt.zone()
    return [
        drawn.tokens(found, window), drawn.tokens_legend(), f"input tokens per day · {zone} days",
        drawn.saving(found, window), drawn.saving_legend(found), f"per day, avoided less write premium · {zone} days",
    ]  # fmt: skip


def _missed(reader: Reader, target: Target) -> list[Any]:
    homes = _homes(reader)
    found = sums.missed(reader.over(sums.SUMS, "feature", *sums.BY), homes, target)
    total = sum((one.missed_usd for one in found), sums.NOTHING)
    words: Any = ["nothing: no feature hits less than that"]
    if found:
        words = [html.B(fmt.usd(total)), " more, before what more writing costs"]
    return [tables.missed(found, reader.view), words]
