"""Cards, words and axes of the pages that tell more than the dictionary's measures: figures are plain dicts."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.dashboard import charts
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, delta, icon, panel, popover
from millicent.dashboard.pages.overview_layout import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.state import Window

    Values = Sequence[Decimal | int | None]
    Text = Callable[[Any], str]

HALF_A_DAY: Final = timedelta(hours=14)
FONT: Final = {"family": "Inter, system-ui, sans-serif", "size": 11}


def card(
    name: str, title: str, value: Any, beside: Any, words: Sequence[str], *, change: fmt.Change | None = None,
    trend: Component | None = None, exact: str | None = None,
) -> Component:  # fmt: skip
    """A card of a number that is no measure of the dictionary; `words` say how it is computed, behind the small i."""
    told = popover("i", [html.P(line) for line in words], label=f"How {title} is computed", className="how")
    return html.Section(
        [
            html.Div([html.H2(title), told], className="kpi-head"),
            html.Div([html.Strong(value, id=f"kpi-{name}", title=exact), trend], className="kpi-value"),
            html.Div([delta(change) if change else None, html.Span(beside)], className="kpi-foot"),
        ],
        className="card kpi",
    )


def chart_panel(name: str, title: str, *, height: int, aside: Sequence[Any] = ()) -> Component:
    """A panel with a figure `{name}-chart`, its `{name}-legend`, and its numbers as a table on demand."""
    table = html.Button(icon("table"), id=f"{name}-as-table", type="button", className="button square small",
                        title="Show as a table", **aria(label="Show as a table", controls=f"{name}-table"))  # fmt: skip
    graph = dcc.Graph(id=f"{name}-chart", figure=NOTHING, responsive=True, className="chart",
                      style={"height": f"{height}px"},
                      config={"displayModeBar": False, "showSendToCloud": False})  # fmt: skip
    body = html.Div([html.Ul(id=f"{name}-legend", className="legend"), graph,
                     html.Div(id=f"{name}-table", className="as-table")])  # fmt: skip
    return panel(title, "", body, aside=html.Div([*aside, table], className="aside"), id=name)


def dates(days: Sequence[datetime]) -> list[str]:
    """Midnights as an axis of days takes them: their dates in the time zone in force."""
    return [charts.date_of(day) for day in days]


def bars(
    label: str, days: Sequence[datetime], values: Values, colour: str, text: Text, window: Window,
    *, pattern: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One layer of stacked daily bars; the day that is not over is lighter."""
    marker: dict[str, Any] = {"color": colour}
    if pattern:
        marker = {"color": "rgba(0,0,0,0)", "line": {"width": 0},
                  "pattern": {"shape": pattern, "fgcolor": colour, "size": 5, "solidity": 0.35}}  # fmt: skip
    if window.today:
        marker["opacity"] = [0.55 if day == window.today else 1 for day in days]
    return {
        "type": "bar", "name": escape(label), "x": dates(days), "y": [charts.mark(value) for value in values],
        "width": charts.BAR_MS, "marker": marker, "customdata": [text(value) for value in values],
        "hovertemplate": f"<b>%{{customdata}}</b>  {charts.literal(label)}<extra></extra>", "meta": {"label": label},
    }  # fmt: skip


def line(
    label: str, days: Sequence[datetime], values: Values, colour: str, text: Text, *, axis: str = "y"
) -> dict[str, Any]:  # fmt: skip
    """A daily line; gaps where nothing is known."""
    return {
        "type": "scatter", "mode": "lines+markers" if len(days) < 3 else "lines", "x": dates(days), "yaxis": axis,
        "y": [charts.mark(value) for value in values], "name": escape(label), "connectgaps": False,
        "line": {"color": colour, "width": 2}, "customdata": [text(value) for value in values],
        "hovertemplate": f"<b>%{{customdata}}</b>  {charts.literal(label)}<extra></extra>", "meta": {"label": label},
    }  # fmt: skip


def unseen(label: str, days: Sequence[datetime], heights: Values, texts: Sequence[str]) -> dict[str, Any]:
    """Marks that only tell a text of each day in the hover box, and in the table."""
    return {
        "type": "scatter", "mode": "markers", "x": dates(days), "y": [charts.mark(height) for height in heights],
        "name": escape(label), "marker": {"opacity": 0, "size": 1, "color": charts.OTHER_COLOUR},
        "customdata": list(texts),
        "hovertemplate": f"<b>%{{customdata}}</b>  {charts.literal(label)}<extra></extra>", "meta": {"label": label},
    }  # fmt: skip


def layout(
    days: Sequence[datetime], top: Decimal, text: Callable[[Decimal], str], *, bottom: Decimal = Decimal(0)
) -> dict[str, Any]:
    """Days below, round steps of a value on the left; `bottom` is 0 or negative."""
    found = [datetime.fromisoformat(day) for day in dates(days)]
    marked = charts.marked_days(found)
    ticks = charts.nice_ticks(max(top, -bottom))
    ticks = [*(-tick for tick in ticks[:0:-1] if tick <= -bottom), *(tick for tick in ticks if tick <= top)]
    return {
        "autosize": True, "barmode": "relative", "bargap": 0, "margin": {"l": 46, "r": 6, "t": 8, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": FONT, "showlegend": False,
        "hovermode": "x unified", "hoverlabel": {"font": {"size": 11.5}, "namelength": 40}, "dragmode": False,
        "uirevision": "keep",
        "xaxis": {"type": "date", "showgrid": False, "zeroline": False, "fixedrange": True, "showspikes": False,
                  "range": [f"{found[0] - HALF_A_DAY:%Y-%m-%d %H:%M}", f"{found[-1] + HALF_A_DAY:%Y-%m-%d %H:%M}"],
                  "tickvals": [f"{day:%Y-%m-%d}" for day in marked],
                  "ticktext": [f"{day.day} {day:%b}" for day in marked],
                  "unifiedhovertitle": {"text": "%{x|%a %-d %b %Y}"}},
        "yaxis": {"range": [float(bottom * Decimal("1.06")), float(top * Decimal("1.06")) or 1],
                  "tickvals": [float(tick) for tick in ticks], "ticktext": [charts.short(text(tick)) for tick in ticks],
                  "zeroline": bool(bottom), "zerolinecolor": charts.OTHER_COLOUR, "zerolinewidth": 1,
                  "fixedrange": True},
    }  # fmt: skip
