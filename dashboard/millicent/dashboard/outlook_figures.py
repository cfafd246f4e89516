"""What is to come, drawn: the days ahead beside those that were, days out of line, and a budget that burns down.

Plain dicts that Plotly draws, like `charts`: amounts are Decimal in every text, and floats only as places on a screen.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import axis_text, label, literal, mark, nice_ticks
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from millicent.warehouse.outlook import Anomaly, Day
    from millicent.warehouse.standings import Standing

ACCENT: Final = "#3b6fe0"
BAND: Final = "rgba(59, 111, 224, .16)"
OVER: Final = "#d9485c"
QUIET: Final = "#6c788c"
CLEAR: Final = "rgba(0,0,0,0)"
_HEADROOM: Final = Decimal("1.04")
_DRAWN: Final = {"type": "scatter", "hoverinfo": "skip", "showlegend": False}
_FONT: Final = {"family": "Inter, system-ui, sans-serif", "size": 11}


def ahead(figure: dict[str, Any], days: Sequence[Day], today: date) -> None:
    """Add the days to come to a figure of daily spend: P50 dashed, P10 to P90 as a band, and a line at today."""
    if not days:
        return
    xs = [day.day.isoformat() for day in days]
    if all(day.p10_usd is not None and day.p90_usd is not None for day in days):
        low, high = ([mark(getattr(day, bound)) for day in days] for bound in ("p10_usd", "p90_usd"))
        figure["data"] += [
            {**_DRAWN, "mode": "lines", "x": xs, "y": low, "line": {"width": 0, "color": BAND}, "name": "P10"},
            {**_DRAWN, "mode": "lines", "x": xs, "y": high, "line": {"width": 0, "color": BAND}, "name": "P90",
             "fill": "tonexty", "fillcolor": BAND},
        ]  # fmt: skip
    words = [f"{fmt.usd(day.p50_usd)}</b>  forecast, {_between(day)}" for day in days]
    figure["data"].append(
        {"type": "scatter", "mode": "lines", "x": xs, "y": [mark(day.p50_usd) for day in days], "name": "Forecast",
         "line": {"color": ACCENT, "width": 2, "dash": "dash"}, "customdata": words,
         "meta": {"label": "Forecast", "texts": [_between(day) for day in days]},
         "hovertemplate": "<b>%{customdata}<extra></extra>"}
    )  # fmt: skip
    axes = figure["layout"]
    last = days[-1].day
    axes["xaxis"]["range"] = [axes["xaxis"]["range"][0], f"{last} 14:00"]
    _raise(axes["yaxis"], max(day.p90_usd or day.p50_usd for day in days))
    edge = f"{today} 12:00"
    axes["shapes"] = [
        *axes.get("shapes", []),
        {"type": "line", "x0": edge, "x1": edge, "y0": 0, "y1": 1, "yref": "paper",
         "line": {"color": QUIET, "width": 1, "dash": "dot"}},
    ]  # fmt: skip
    axes["annotations"] = [
        *axes.get("annotations", []),
        {"x": edge, "y": 1, "yref": "paper", "text": "today", "showarrow": False, "xanchor": "left",
         "yanchor": "top", "xshift": 3, "font": {"size": 10.5, "color": QUIET}},
    ]  # fmt: skip


def odd_days(figure: dict[str, Any], found: Sequence[Anomaly], tops: Mapping[date, Decimal]) -> None:
    """Add a diamond over each day that is out of line; it says who made it so.

    Args:
        figure: of daily spend.
        found: what is out of line, worst first within a day.
        tops: what each day cost in all.
    """
    by_day: dict[date, list[Anomaly]] = {}
    for one in found:
        by_day.setdefault(one.day, []).append(one)
    if not by_day:
        return
    rise = Decimal(str(figure["layout"]["yaxis"]["range"][1])) / 28
    figure["data"] += [
        {"type": "scatter", "mode": "markers", "x": [day.isoformat()], "y": [mark(tops[day] + rise)],
         "name": "Out of line", "marker": {"symbol": "diamond", "size": 10, "color": OVER},
         "customdata": ["; ".join(literal(sentence(one)) for one in ones[:3])],
         "hovertemplate": "%{customdata}<extra></extra>"}
        for day, ones in by_day.items()
        if day in tops
    ]  # fmt: skip
    _raise(figure["layout"]["yaxis"], max(tops[day] + 2 * rise for day in by_day if day in tops))


def sentence(one: Anomaly) -> str:
    """Who cost how much more than on the same weekday."""
    by = "" if one.impact_ratio is None else f", {fmt.percent(one.impact_ratio, 0)} over the same weekdays"
    return f"{label(one.dimension, one.value)} +{fmt.usd(one.impact_usd)}{by}"


def burn_down(stands: Standing) -> dict[str, Any]:
    """What is left of a budget by day: so far, by the forecast with its band, and at an even pace."""
    budget, limit = stands.budget, stands.limit
    first, last = stands.spent[0][0], _last_day(stands)
    opened = first - timedelta(days=1)  # days are drawn where they end
    left = [(opened, limit), *((day, limit - total) for day, total in stands.spent)]
    coming = _to_come(stands)
    traces: list[dict[str, Any]] = [
        {**_DRAWN, "mode": "lines", "x": [opened.isoformat(), last.isoformat()], "y": [mark(limit), 0],
         "name": "Even pace", "line": {"color": QUIET, "width": 1.2, "dash": "dot"}},
    ]  # fmt: skip
    known = [(day, worst, best) for day, worst, _, best in coming if worst is not None and best is not None]
    if known:
        bounds = [[mark(worst) for _, worst, _ in known], [mark(best) for _, _, best in known]]
        xs = [day.isoformat() for day, _, _ in known]
        traces += [
            {**_DRAWN, "mode": "lines", "x": xs, "y": bounds[0], "line": {"width": 0, "color": BAND}, "name": "P10"},
            {**_DRAWN, "mode": "lines", "x": xs, "y": bounds[1], "line": {"width": 0, "color": BAND}, "name": "P90",
             "fill": "tonexty", "fillcolor": BAND},
        ]  # fmt: skip
    past = [day for day in left if not coming or day[0] < coming[0][0] or day[0] == opened]
    traces.append(
        {"type": "scatter", "mode": "lines", "x": [day.isoformat() for day, _ in past],
         "y": [mark(amount) for _, amount in past], "name": "Left", "fill": "tozeroy", "fillcolor": BAND,
         "line": {"color": ACCENT, "width": 2.2}, "customdata": [f"{fmt.usd(amount)} left" for _, amount in past],
         "meta": {"label": "Left", "texts": [fmt.usd(amount) for _, amount in past]},
         "hovertemplate": "<b>%{customdata}</b><extra></extra>"}
    )  # fmt: skip
    if coming:
        ends = [(past[-1][0], past[-1][1]), *((day, middle) for day, _, middle, _ in coming)]
        traces.append(
            {"type": "scatter", "mode": "lines", "x": [day.isoformat() for day, _ in ends],
             "y": [mark(amount) for _, amount in ends], "name": "Forecast",
             "line": {"color": OVER if ends[-1][1] < 0 else ACCENT, "width": 2, "dash": "dash"},
             "customdata": [f"{fmt.usd(amount)} left, forecast" for _, amount in ends],
             "meta": {"label": "Forecast", "texts": [fmt.usd(amount) for _, amount in ends]},
             "hovertemplate": "<b>%{customdata}</b><extra></extra>"}
        )  # fmt: skip
    lowest = min([*(amount for _, amount in left), *(day[1] or day[2] for day in coming), Decimal(0)])
    return {"data": traces, "layout": _burn_layout(opened, last, limit, lowest, budget.name)}


def rolled(sums: Sequence[tuple[date, Decimal]], stands: Standing) -> dict[str, Any]:
    """What the days up to each day came to, for a budget of so many days at a time, and its limit as a line."""
    days = [day for day, _ in sums] or [stands.spent[-1][0]]
    top = max([stands.limit, *(amount for _, amount in sums)])
    layout = _burn_layout(days[0], days[-1], top, Decimal(0), stands.budget.name)
    at = mark(stands.limit)
    layout["shapes"] = [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": at, "y1": at,
                         "line": {"color": OVER, "width": 1.2}}]  # fmt: skip
    texts = [fmt.usd(amount) for _, amount in sums]
    trace = {
        "type": "scatter", "mode": "lines", "x": [day.isoformat() for day, _ in sums],
        "y": [mark(amount) for _, amount in sums], "name": "Spent", "fill": "tozeroy", "fillcolor": BAND,
        "line": {"color": ACCENT, "width": 2.2}, "customdata": [f"{text} up to then" for text in texts],
        "meta": {"label": "Spent", "texts": texts}, "hovertemplate": "<b>%{customdata}</b><extra></extra>",
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def _last_day(stands: Standing) -> date:
    """The last day of the period: one of 23 or 25 hours is a day, too."""
    place = zone(stands.budget.time_zone)
    return (stands.period.end - timedelta(microseconds=1)).astimezone(place).date()


def _to_come(stands: Standing) -> list[tuple[date, Decimal | None, Decimal, Decimal | None]]:
    """Day, and what will be left by its end: in the worst case, as expected, in the best case."""
    expected = stands.forecast
    if expected is None or not expected.days:
        return []
    whole = sum((day.p50_usd for day in expected.days), Decimal(0))
    start = stands.limit - (expected.p50_usd - whole)  # what was left when today began
    rest, spent = whole - (expected.actual_usd - (expected.p50_usd - whole)), Decimal(0)
    off = expected.p90_usd - expected.p50_usd if expected.p90_usd is not None else None
    found = []
    for day in expected.days:
        spent += day.p50_usd
        share = min(spent / whole, Decimal(1)) if whole else Decimal(0)
        middle = start - spent
        worst, best = (None, None) if off is None else (middle - off * share, middle + min(off, rest) * share)
        found.append((day.day, worst, middle, best))
    return found


def _burn_layout(opened: date, last: date, limit: Decimal, lowest: Decimal, name: str) -> dict[str, Any]:
    ticks = nice_ticks(limit, 3)
    marked = [opened + timedelta(days=n) for n in range(1, (last - opened).days + 1)]
    marked = [day for day in marked if (day - marked[0]).days % max(len(marked) // 4, 1) == 0]
    floor = min(lowest, -limit / 40) * _HEADROOM
    return {
        "autosize": True,
        "margin": {"l": 44, "r": 8, "t": 6, "b": 22},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": _FONT,
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 11.5}},
        "dragmode": False,
        "meta": {"budget": escape(name)},
        "shapes": [{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0,
                    "line": {"color": OVER, "width": 1}}],
        "xaxis": {
            "type": "date", "range": [opened.isoformat(), f"{last} 12:00"], "showgrid": False, "zeroline": False,
            "tickvals": [day.isoformat() for day in marked], "ticktext": [f"{day.day} {day:%b}" for day in marked],
            "unifiedhovertitle": {"text": "%{x|%a %-d %b %Y}"}, "showspikes": False, "fixedrange": True,
        },
        "yaxis": {
            "range": [mark(floor), mark(limit * _HEADROOM)], "tickvals": [mark(tick) for tick in ticks],
            "ticktext": [axis_text(tick) for tick in ticks], "zeroline": False, "fixedrange": True,
        },
    }  # fmt: skip


def _raise(axis: dict[str, Any], top: Decimal) -> None:
    """Make room up to `top`."""
    if mark(top * _HEADROOM) > axis["range"][1]:
        ticks = nice_ticks(top)
        axis["range"] = [axis["range"][0], mark(top * _HEADROOM)]
        axis["tickvals"] = [mark(tick) for tick in ticks]
        axis["ticktext"] = [axis_text(tick) for tick in ticks]


def _between(day: Day) -> str:
    """A day's forecast, or where a band is known its bounds, in which 8 of 10 outcomes are."""
    if day.p10_usd is None or day.p90_usd is None:
        return f"about {fmt.usd(day.p50_usd)}"
    return f"{fmt.usd(day.p10_usd)} to {fmt.usd(day.p90_usd)}"
