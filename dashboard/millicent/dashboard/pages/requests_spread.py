"""How much single calls cost: a histogram over costs that grow tenfold, each bar the way to its calls."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, link
from millicent.dashboard.state import question
from millicent.warehouse.calls import histogram
from millicent.warehouse.spread import QUANTILES, per_call, readable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.listing import Cost, Listing
    from millicent.dashboard.reader import Reader, Row
    from millicent.warehouse.calls import Bar
    from millicent.warehouse.query import Basis

BASES: Final[dict[Cost, Basis]] = {"effective": "effective", "billed": "billed", "list": "list"}
NAMES: Final = ("half cost at most", "95 of 100 at most", "99 of 100 at most", "the dearest")
"""What each of `QUANTILES` says, in words."""


def spread(reader: Reader, listing: Listing) -> tuple[Component | None, str]:
    """The histogram and its quantiles, and what they are of; nothing where no cost is known or a trace is shown."""
    if listing.trace:
        return None, ""
    asked = replace(question(listing.view, reader.window.period, ("calls",)), basis=BASES[listing.cost], currency="USD")
    period = readable(lambda query: reader.warehouse.ask(reader.tenant, query).frame, asked)
    wanted = replace(listing, least=None, below=None, after=None, uncounted=False).asked(period)
    asked = replace(asked, period=period)
    engine, tenant, read = reader.warehouse.engine, reader.tenant, reader.warehouse.remembered
    key = replace(wanted, filters=tuple(wanted.filters))
    bars = read((tenant, "histogram", key), period, lambda: histogram(engine, tenant, wanted))
    if not bars:
        return None, "no call of known cost"
    told = read((tenant, "per call", asked), period, lambda: per_call(engine, tenant, asked)).row(0, named=True)
    part = "" if period == reader.window.period else f"the newest calls, {fmt.span(period.start, period.end)}: "
    words = f"{part}{fmt.count(sum(bar.calls for bar in bars))} calls of known cost · click a bar for its calls"
    return html.Div([_bars(bars, listing), _quantiles(told, listing)], className="spreading"), words


def _bars(bars: Sequence[Bar], listing: Listing) -> Component:
    free = [bar for bar in bars if bar.least_usd is None and bar.calls]
    shown = [bar for bar in bars if bar.least_usd is not None]
    while shown and not shown[0].calls:
        shown = shown[1:]
    tallest = max((bar.calls for bar in [*free, *shown]), default=1)
    whole = sum((bar.spend_usd for bar in bars), Decimal(0))
    items = [_bar(bar, tallest, whole, listing) for bar in [*free, *shown]]
    return html.Ul(items, className="histogram", **aria(label="Calls by what they cost"))


def _bar(bar: Bar, tallest: int, whole: Decimal, listing: Listing) -> Component:
    least, below = (None if edge is None else fmt.usd(edge) for edge in (bar.least_usd, bar.below_usd))
    range_ = f"{least or '$0'} to {below}" if below else f"{least} and more"
    part = f", {fmt.percent(bar.spend_usd / whole)} of the cost" if whole else ""
    words = f"{fmt.count(bar.calls)} calls of {range_}{part}"
    chosen = (listing.least, listing.below) == (bar.least_usd, bar.below_usd)
    kept = (None, None) if chosen else (bar.least_usd, bar.below_usd)
    href = listing.href(least=kept[0], below=kept[1], after=None, call=None)
    height = f"{Decimal(bar.calls) / tallest:.2%}"
    face = [html.I(style={"--height": height, "--spend": f"{bar.spend_usd / whole:.2%}" if whole else "0%"}),
            html.Small(_mark(bar.least_usd))]  # fmt: skip
    told = {"current": "true"} if chosen else {}
    return html.Li(
        link(face, href, title=words, **aria(label=f"{_mark(bar.least_usd)} {words}".strip(), **told))
        if bar.calls
        else html.Span(face)
    )


def _mark(edge: Decimal | None) -> str:
    """What stands under a bar: its edge where that is a power of ten."""
    if edge is None:
        return "free"
    return f"{fmt.presented().sign}{edge:f}" if edge.normalize().as_tuple().digits == (1,) else ""


def _quantiles(row: Row, listing: Listing) -> Component:
    """What half, 95 and 99 of 100 calls cost at most; each the way to those above it."""
    items = []
    for name, words in zip(QUANTILES, NAMES, strict=True):
        value: Decimal | None = row[name]
        href = listing.href(least=value, below=None, after=None, call=None)
        there = link(fmt.usd(value), href, title="Calls that cost as much or more") if value else fmt.usd(value)
        items.append(html.Div([html.Dt(words), html.Dd(there)]))
    return html.Dl(items, className="quantiles")
