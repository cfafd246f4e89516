"""Day by day: how much of the paid accelerators worked, and what part of their cost was idle. A figure as a dict."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import IDLE_COLOUR, PALETTE, by_day, marked_days
from millicent.dashboard.components import aria, dot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.state import Window

DAILY: Final = ("utilisation_ratio", "idle_ratio", "accelerator_hours", "busy_accelerator_hours", "idle_cost_usd",
                "capacity_cost_usd")  # fmt: skip
USED: Final = PALETTE[1]
HALF_A_DAY: Final = timedelta(hours=14)


def figure(daily: pl.DataFrame, window: Window) -> dict[str, Any]:
    """Utilisation as a line, idle share as a hatched area under a dashed line; gaps where nothing is known.

    Args:
        daily: `time` and the measures of `DAILY`, one row per day.
        window: the period.
    """
    days = window.days
    used, idle = (by_day(daily, name, days) for name in ("utilisation_ratio", "idle_ratio"))
    hatched = {"fill": "tozeroy", "fillcolor": "rgba(0,0,0,0)",
               "fillpattern": {"shape": "/", "fgcolor": IDLE_COLOUR, "size": 5, "solidity": 0.2}}  # fmt: skip
    traces = [
        _line("Idle, share of cost", days, idle, IDLE_COLOUR, window, dash="dash") | hatched,
        _line("Utilisation", days, used, USED, window),
    ]
    top = max((value for value in (*used, *idle) if value is not None), default=Decimal(1))
    return {"data": traces, "layout": _layout(days, 1 if top > Decimal("0.6") else float(top) * 1.15 or 1)}


def legend() -> list[Component]:
    """What the lines are."""
    line = html.I(className="dot", style={"--colour": USED}, **aria(hidden="true"))
    return [
        html.Li(html.Span([line, html.Span("Utilisation: busy ÷ paid accelerator-hours")])),
        html.Li(html.Span([dot(IDLE_COLOUR, hatched=True), html.Span("Idle: share of cost")])),
    ]


def _line(
    name: str, days: Sequence[datetime], values: Sequence[Decimal | None], colour: str, window: Window,
    *, dash: str = "solid",
) -> dict[str, Any]:  # fmt: skip
    so_far = [", so far" if day == window.today else "" for day in days]
    texts = [fmt.percent(value) + told for value, told in zip(values, so_far, strict=True)]
    return {
        "type": "scatter", "mode": "lines", "name": name, "connectgaps": False,
        "x": [f"{fmt.local(day):%Y-%m-%d}" for day in days],
        "y": [None if value is None else float(value) for value in values],
        "line": {"color": colour, "width": 2, "dash": dash}, "customdata": texts,
        "hovertemplate": f"<b>%{{customdata}}</b>  {name}<extra></extra>", "meta": {"label": name},
    }  # fmt: skip


def _layout(days: Sequence[datetime], top: float) -> dict[str, Any]:
    dates = [datetime.fromisoformat(f"{fmt.local(day):%Y-%m-%d}") for day in days]
    marked = marked_days(dates)
    ticks = [part / 10 for part in range(0, 11, 2 if top >= 1 else 1) if part / 10 <= top]
    return {
        "autosize": True, "margin": {"l": 40, "r": 6, "t": 8, "b": 24}, "showlegend": False, "dragmode": False,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "hovermode": "x unified",
        "font": {"family": "Inter, system-ui, sans-serif", "size": 11}, "hoverlabel": {"font": {"size": 11.5}},
        "xaxis": {"type": "date", "showgrid": False, "zeroline": False, "fixedrange": True, "showspikes": False,
                  "range": [f"{dates[0] - HALF_A_DAY:%Y-%m-%d %H:%M}", f"{dates[-1] + HALF_A_DAY:%Y-%m-%d %H:%M}"],
                  "tickvals": [f"{day:%Y-%m-%d}" for day in marked],
                  "ticktext": [f"{day.day} {day:%b}" for day in marked],
                  "unifiedhovertitle": {"text": "%{x|%a %-d %b %Y}"}},
        "yaxis": {"range": [0, top * 1.03], "tickvals": ticks, "ticktext": [f"{tick:.0%}" for tick in ticks],
                  "zeroline": False, "fixedrange": True},
    }  # fmt: skip
