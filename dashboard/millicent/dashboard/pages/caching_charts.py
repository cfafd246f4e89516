"""Figures of the Caching page, as plain dicts: input by what the cache did, and what that saved, day by day."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR, PALETTE, by_day
from millicent.dashboard.components import aria, dot
from millicent.dashboard.pages.facts import bars, layout, line, unseen

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.state import Window

READ, WRITTEN, PLAIN, FREED, PREMIUM = PALETTE[1], PALETTE[2], OTHER_COLOUR, PALETTE[4], PALETTE[3]
NET: Final = "#6c788c"
"""Drawn in the ink of the theme."""


def tokens(daily: pl.DataFrame, window: Window) -> dict[str, Any]:
    """Input of each day, stacked: read from a cache, written to one, neither."""
    days = window.days
    whole, read, written = (_known(daily, f"{name}_tokens", days) for name in ("input", "cache_read", "cache_write"))
    plain = [a - b - c for a, b, c in zip(whole, read, written, strict=True)]
    shown = [bars("Read from a cache", days, read, READ, fmt.tokens, window)]
    if any(written):
        shown.append(bars("Written to a cache", days, written, WRITTEN, fmt.tokens, window))
    shown.append(bars("Neither", days, plain, PLAIN, fmt.tokens, window))
    rates = [Decimal(part) / whole_ if whole_ else None for part, whole_ in zip(read, whole, strict=True)]
    shown.append(unseen("Hit rate", days, whole, [fmt.percent(rate, 0) for rate in rates]))
    top = Decimal(max(whole, default=0))
    return {"data": shown, "layout": layout(days, top, fmt.tokens)}


def tokens_legend() -> list[Component]:
    """What the layers are."""
    told = (("Read from a cache", READ), ("Written to a cache", WRITTEN), ("Neither", PLAIN))
    return [html.Li(html.Span([dot(colour), html.Span(words)])) for words, colour in told]


def saving(daily: pl.DataFrame, window: Window) -> dict[str, Any]:
    """What was saved each day upwards, what writing cost on top downwards, and the net as a line."""
    days = window.days
    avoided, freed = (by_day(daily, name, days) for name in ("avoided_usd", "freed_usd"))
    premium = [None if value is None else -value for value in by_day(daily, "premium_usd", days)]
    net = [_total(parts) for parts in zip(avoided, freed, premium, strict=True)]
    shown = [bars("Avoided at APIs", days, avoided, READ, fmt.usd, window)]
    if any(freed):
        shown.append(bars("Capacity freed", days, freed, FREED, fmt.usd, window, pattern="/"))
    if any(premium):
        shown.append(bars("Write premium", days, premium, PREMIUM, fmt.usd, window))
    shown.append(line("Net", days, net, NET, fmt.usd))
    parts = [[part for part in one if part] for one in zip(avoided, freed, premium, strict=True)]
    top = max((sum((part for part in one if part > 0), Decimal(0)) for one in parts), default=Decimal(0))
    bottom = min((sum((part for part in one if part < 0), Decimal(0)) for one in parts), default=Decimal(0))
    return {"data": shown, "layout": layout(days, top, fmt.usd, bottom=bottom)}


def saving_legend(daily: pl.DataFrame) -> list[Component]:
    """What the layers are."""
    told = [("Avoided at APIs", dot(READ))]
    if daily["freed_usd"].count():
        told.append(("Capacity freed on own hardware", dot(FREED, look="hatched")))
    if daily["premium_usd"].count():
        told.append(("Write premium", dot(PREMIUM)))
    told.append(("Net", html.I(className="tick", **aria(hidden="true"))))
    return [html.Li(html.Span([face, html.Span(words)])) for words, face in told]


def _known(daily: pl.DataFrame, name: str, days: Sequence[Any]) -> list[int]:
    return [int(value or 0) for value in by_day(daily, name, days)]


def _total(parts: Sequence[Decimal | None]) -> Decimal | None:
    known = [part for part in parts if part is not None]
    return sum(known, Decimal(0)) if known else None
