"""One price, opened: its history as a step chart and as a table, its tiers and variants, and where it can be read."""

from __future__ import annotations

from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import dcc, html

from millicent.dashboard.charts import PALETTE, nice_ticks
from millicent.dashboard.components import aria, data, dot, icon
from millicent.dashboard.pages.prices_place import Opened
from millicent.dashboard.pages.prices_search import opener, provider_words, since_words, source_link, tag
from millicent.dashboard.pages.prices_units import KINDS, Asked, unit, units

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_place import Place
    from millicent.pricing.book import PriceBook

Row = dict[str, Any]

DRAWN: Final = {"input": PALETTE[0], "cache_read": PALETTE[1], "output": PALETTE[2]}
TODAY: Final = "#6c788c"
HEIGHT: Final = "210px"
LEAD: Final = timedelta(days=60)
"""How much is drawn before the first change and after the last."""
LONG: Final = timedelta(days=300)
"""Above this the axis names months with their years, not days."""
MOST_ROWS: Final = 40


def price_drawer(book: PriceBook, place: Place, now: datetime, *, operates: bool) -> Component:
    """Everything about the price that is open.

    Args:
        book: what prices the tenant's calls.
        place: what is shown; closing leads back there.
        now: the clock.
        operates: whether whoever looks may change prices.
    """
    what = place.opened
    provider, model = (what["provider"] or None, what["model"]) if what else (None, "")
    dated = _dated(book, provider, model)
    here = units(book, [Asked(provider, model)], now)[0]
    if not dated and here.entry is None:
        told = _no_price(place, provider, model, operates=operates)
        return shelf(model or "Unknown model", provider_words(provider), [told], place)
    costs = [
        html.Div([html.Dt(f"{KINDS[kind]} per 1M"), html.Dd(unit(here.list_usd[kind])),
                  html.Dd(f"you pay {unit(here.billed_usd[kind])}", className="pays") if here.discounted else None])
        for kind in DRAWN
    ]  # fmt: skip
    sections = [
        html.Dl(costs, className="costs"),
        *([_actions(place, provider, model)] if operates else []),
        section("Price history", [_legend(dated), _graph(dated, now), _table(dated, now)]),
        _variants(book, provider, model, now),
        _sources(dated),
    ]
    words = [provider_words(provider), " · USD per 1M tokens"]
    return shelf(model, words, [*filter(None, sections)], place)  # fmt: skip


def shelf(title: str, words: Any, body: Sequence[Any], place: Place) -> Component:
    """The drawer with something in it, and the way back."""
    close = opener(icon("close"), place, None, className="button square", **data(close=""), **aria(label="Close"),
                   title="Close (Esc)")  # fmt: skip
    head = html.Div([html.Div([html.H2(title, id="drawer-title"), html.P(words)]), close], className="drawer-head")
    return html.Section([head, *body], role="dialog", tabIndex=-1, **aria(labelledby="drawer-title"))


def gone(place: Place) -> Component:
    """There is nothing of that address."""
    told = html.P("It may have been removed, or the address is mistyped.", className="quiet")
    return shelf("There is nothing here", "", [told], place)


def section(title: str, body: Any) -> Component:
    """A titled part of the drawer."""
    return html.Div([html.H3(title), *(body if isinstance(body, list) else [body])])


def _dated(book: PriceBook, provider: str | None, model: str) -> list[Row]:
    """The dated prices, oldest first, each with `from`, `to`, a price by kind, `source`, `entry`, `own`."""
    names = {kind: f"{kind}_usd_per_mtok" for kind in DRAWN}
    found: list[Row] = []
    for row in book.history(provider, model).iter_rows(named=True):
        prices = {kind: row[name] for kind, name in names.items()}
        said = {**prices, "source": row["source"], "own": row["kind"] == "override"}
        if found and found[-1].items() >= {**said, "to": row["from"]}.items():
            found[-1]["to"] = row["to"]  # what changed is not drawn
        else:
            found.append({"from": row["from"], "to": row["to"], "entry": row["price_entry"], **said})
    return found


def figure(dated: Sequence[Row], now: datetime) -> dict[str, Any]:
    """Prices as steps over time, own entries shaded, and where today is.

    Args:
        dated: `from`, `to` (None: open), a price by kind, `own`; oldest first, without overlap.
        now: the clock.
    """
    starts = [row["from"] for row in dated if row["from"]]
    left = min([*starts, now - LEAD]) - LEAD
    right = max([*starts, *(row["to"] for row in dated if row["to"]), now]) + LEAD / 2
    traces = [_steps(kind, dated, left, right) for kind in DRAWN]
    top = max((row[kind] for row in dated for kind in DRAWN if row[kind] is not None), default=None)
    ticks = nice_ticks(top, 4) if top else []
    shapes: list[dict[str, Any]] = [
        {"type": "line", "x0": _day(now), "x1": _day(now), "yref": "paper", "y0": 0, "y1": 1,
         "line": {"color": TODAY, "width": 1, "dash": "dot"}}
    ]  # fmt: skip
    shapes += [
        {"type": "rect", "layer": "below", "x0": _day(row["from"] or left), "x1": _day(row["to"] or right),
         "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "fillcolor": PALETTE[4], "opacity": 0.12}
        for row in dated if row["own"]
    ]  # fmt: skip
    return {
        "data": [trace for trace in traces if any(value is not None for value in trace["y"])],
        "layout": {
            "autosize": True, "margin": {"l": 46, "r": 8, "t": 18, "b": 24}, "showlegend": False, "dragmode": False,
            "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "hovermode": "x unified",
            "font": {"family": "Inter, system-ui, sans-serif", "size": 11}, "hoverlabel": {"font": {"size": 11.5}},
            "shapes": shapes,
            "annotations": [{"x": _day(now), "y": 1, "yref": "paper", "text": "today", "showarrow": False,
                             "xanchor": "center", "yanchor": "bottom", "font": {"color": TODAY, "size": 11}}],
            "xaxis": {"type": "date", "range": [_day(left), _day(right)], "showgrid": False, "zeroline": False,
                      "fixedrange": True, "nticks": 6, "tickformat": "%b %Y" if right - left > LONG else "%-d %b",
                      "unifiedhovertitle": {"text": "%{x|%-d %b %Y}"}},
            "yaxis": {"range": [0, float(top * 108 / 100) if top else 1], "tickvals": [float(tick) for tick in ticks],
                      "ticktext": [unit(tick) if tick else "$0" for tick in ticks], "zeroline": False,
                      "fixedrange": True},
        },
    }  # fmt: skip


def _steps(kind: str, dated: Sequence[Row], left: datetime, right: datetime) -> dict[str, Any]:
    xs: list[str | None] = []
    ys: list[float | None] = []
    told: list[str | None] = []
    for row in dated:
        price: Decimal | None = row[kind]
        ends = (row["from"] or left, row["to"] or right)
        if xs and _day(ends[0]) != xs[-1]:
            xs, ys, told = [*xs, None], [*ys, None], [*told, None]
        xs += [_day(end) for end in ends]
        ys += [None if price is None else float(price)] * 2
        told += [f"{unit(price)}{', your price' if row['own'] else ''}"] * 2
    return {
        "type": "scatter", "mode": "lines", "x": xs, "y": ys, "name": escape(KINDS[kind]), "connectgaps": False,
        "line": {"color": DRAWN[kind], "width": 2, "shape": "hv"}, "customdata": told,
        "hovertemplate": f"<b>%{{customdata}}</b>  {KINDS[kind]}<extra></extra>",
    }  # fmt: skip


def _day(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M}"


def _legend(dated: Sequence[Row]) -> Component:
    drawn = [(kind, colour) for kind, colour in DRAWN.items() if any(row[kind] is not None for row in dated)]
    entries = [html.Li(html.Span([dot(colour), html.Span(KINDS[kind])])) for kind, colour in drawn]
    if any(row["own"] for row in dated):
        entries.append(html.Li(html.Span([html.I(className="dot shaded"), html.Span("Your price")])))
    return html.Ul(entries, className="legend")


def _graph(dated: Sequence[Row], now: datetime) -> Component:
    return dcc.Graph(id="price-chart", figure=figure(dated, now), responsive=True, className="chart",
                     style={"height": HEIGHT}, config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip


def _table(dated: Sequence[Row], now: datetime) -> Component:
    heads = ("From", *(KINDS[kind] for kind in DRAWN), "Source")
    body = [
        html.Tr(
            [html.Th([since_words(row["from"]), html.Small(_holds(row, now))], scope="row"),
             *(html.Td(unit(row[kind])) for kind in DRAWN),
             html.Td([source_link(row["source"]), tag(row["entry"]) if row["own"] else None], className="from")],
        )
        for row in reversed(dated)
    ]  # fmt: skip
    head = html.Thead(html.Tr([html.Th(head, scope="col") for head in heads]))
    return html.Table([head, html.Tbody(body)], className="figures dated")


def _holds(row: Row, now: datetime) -> str:
    if row["from"] and row["from"] > now:
        return "announced"
    if row["to"] is None:
        return "in force"
    return f"until {since_words(row['to'])}" if row["to"] <= now else f"in force until {since_words(row['to'])}"


def _variants(book: PriceBook, provider: str | None, model: str, now: datetime) -> Component | None:
    """What batch, flex, priority, large requests and times of day cost now, where that differs."""
    listing = book.models().filter(
        pl.col("provider").eq_missing(provider), pl.col("model") == model,
        pl.col("effective_from").is_null() | (pl.col("effective_from") <= now),
    )  # fmt: skip
    narrowed = ["variant", "above_input_tokens", "daily_from"]
    current = listing.sort("effective_from", nulls_last=False).group_by(narrowed, maintain_order=True).last()
    rows = current.sort(narrowed, nulls_last=False).iter_rows(named=True)
    body = [
        html.Tr([html.Th(words, scope="row"), *(html.Td(unit(row[f"{kind}_usd_per_mtok"])) for kind in DRAWN)])
        for row in rows
        if (words := _variant_words(row))
    ]
    if not body:
        return None
    heads = ("Applies to", *(KINDS[kind] for kind in DRAWN))
    head = html.Thead(html.Tr([html.Th(head, scope="col") for head in heads]))
    table = html.Table([head, html.Tbody(body[:MOST_ROWS])], className="figures dated")
    return section("Other prices of this model", table)


def _variant_words(row: Row) -> str:
    """`batch, above 200k input tokens, from 16:30 UTC each day`; empty for the plain price."""
    told = [part.partition("=")[2] for part in (row["variant"] or "").split(", ") if part]
    if row["above_input_tokens"] is not None:
        told.append(f"requests above {row['above_input_tokens']:,} input tokens")
    if row["daily_from"] is not None:
        told.append(f"from {row['daily_from']:%H:%M} UTC each day")
    return ", ".join(told)


def _sources(dated: Sequence[Row]) -> Component | None:
    seen: dict[str, datetime | None] = {row["source"]: row["from"] for row in dated if row["source"]}
    if not seen:
        return None
    items = [
        html.Li([source_link(source), html.Small(f"for prices since {since_words(since)}")])
        for source, since in seen.items()
    ]
    return section("Where it can be read", html.Ul(items, className="sources"))


def _actions(place: Place, provider: str | None, model: str) -> Component:
    own = Opened.of("add", kind="override", provider=provider, model=model)
    less = Opened.of("add", kind="term", provider=provider, model=model)
    forms = (("Set your own price", own), ("Add a discount", less))
    return html.Div([opener(words, place, form, className="button") for words, form in forms], className="pager start")


def _no_price(place: Place, provider: str | None, model: str, *, operates: bool) -> Component:
    told = html.P("No price list has it. Calls of it stay unpriced until a price is added.")
    return html.Div([told, _actions(place, provider, model) if operates else None], className="gone")
