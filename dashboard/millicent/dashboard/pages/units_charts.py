"""Figures of the Unit economics page, as plain dicts: what one costs day by day, and how much few users cost."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR, PALETTE, nice_ticks
from millicent.dashboard.components import dot
from millicent.dashboard.pages.facts import FONT, bars, layout, line
from millicent.warehouse.instants import midnight

if TYPE_CHECKING:
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.units_sums import Counted
    from millicent.dashboard.state import Window
    from millicent.warehouse.spread import Concentration

COST, VOLUME, EVEN = PALETTE[0], "rgba(139,149,167,0.45)", OTHER_COLOUR
HEADROOM: Final = Decimal("1.8")
"""Bars of volume stay below the line."""


def each(counted: Counted, words: str, window: Window) -> dict[str, Any]:
    """What one costs as a line, how many there were as bars behind it."""
    days, daily = window.days, _by_day(counted, window)
    number = [daily.get(day, (None, None))[0] for day in days]
    cost = [_quotient(*daily.get(day, (None, None))) for day in days]
    shown = [
        bars(words, days, number, VOLUME, _number, window) | {"yaxis": "y2"},
        line(f"Cost per {counted.name or 'call'}", days, cost, COST, fmt.usd),
    ]
    drawn = layout(days, max((one for one in cost if one is not None), default=Decimal(0)), fmt.usd)
    most = max((one for one in number if one is not None), default=Decimal(0)) * HEADROOM
    ticks = nice_ticks(most / HEADROOM, 3)
    drawn["yaxis"] |= {"overlaying": "y2"}
    drawn["yaxis2"] = {"side": "right", "range": [0, float(most) or 1], "showgrid": False, "zeroline": False,
                       "fixedrange": True, "tickvals": [float(tick) for tick in ticks],
                       "ticktext": [fmt.count(tick) for tick in ticks]}  # fmt: skip
    drawn["margin"] |= {"r": 44}
    return {"data": shown, "layout": drawn}


def each_legend(counted: Counted, words: str) -> list[Component]:
    """What is drawn."""
    told = ((f"Cost per {counted.name or 'call'}", COST), (f"{words}, right", VOLUME))
    return [html.Li(html.Span([dot(colour), html.Span(name)])) for name, colour in told]


def curve(found: Concentration) -> dict[str, Any]:
    """Share of users, most costly first, against their share of the cost; the diagonal is all alike."""
    marks = [(0, Decimal(0)), *((mark.percent, found.share(mark.percent) or Decimal(0)) for mark in found.curve)]
    texts = [f"{percent}% of users, {fmt.percent(share)} of the cost" for percent, share in marks]
    shown = {
        "type": "scatter", "mode": "lines+markers", "x": [percent for percent, _ in marks],
        "y": [float(share) for _, share in marks], "line": {"color": COST, "width": 2}, "fill": "tozeroy",
        "fillcolor": "rgba(59,111,224,0.10)", "marker": {"size": 4, "color": COST}, "customdata": texts,
        "hovertemplate": "<b>%{customdata}</b><extra></extra>", "name": "Share of cost",
        "meta": {"label": "Share of cost", "texts": [fmt.percent(share) for _, share in marks]},
    }  # fmt: skip
    even = {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [0, 1], "hoverinfo": "skip", "name": "All alike",
            "line": {"color": EVEN, "width": 1.5, "dash": "dot"}}  # fmt: skip
    ticks = (0, 10, 25, 50, 75, 100)
    axes = {
        "xaxis": {"range": [0, 101], "tickvals": list(ticks), "ticktext": [f"{tick}%" for tick in ticks],
                  "showgrid": False, "zeroline": False, "fixedrange": True},
        "yaxis": {"range": [0, 1.04], "tickvals": [tick / 100 for tick in ticks],
                  "ticktext": [f"{tick}%" for tick in ticks], "zeroline": False, "fixedrange": True},
    }  # fmt: skip
    return {"data": [even, shown], "layout": {
        "autosize": True, "margin": {"l": 44, "r": 10, "t": 8, "b": 24}, "showlegend": False, "dragmode": False,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": FONT, "hovermode": "closest",
        "hoverlabel": {"font": {"size": 11.5}}, **axes,
    }}  # fmt: skip


def _by_day(counted: Counted, window: Window) -> dict[datetime, tuple[Decimal | None, Decimal | None]]:
    """Number and spend by midnight of the time zone in force; units that are told by date by that of the date."""
    told = counted.daily.iter_rows(named=True)
    return {
        row["time"] if "time" in row else midnight(row["day"], window.zone): (row["quantity"], row["spend_usd"])
        for row in told
    }


def _quotient(number: Decimal | None, spend: Decimal | None) -> Decimal | None:
    return spend / number if spend is not None and number else None


def _number(value: Decimal | None) -> str:
    return fmt.count(value)
