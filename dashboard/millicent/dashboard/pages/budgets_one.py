"""One budget: how it burns down, what it may still spend a day, what it counts, its parts and its past periods."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard import outlook_figures
from millicent.dashboard.components import aria, link, popover
from millicent.dashboard.outlook_figures import OVER, QUIET
from millicent.dashboard.pages.budgets_reading import BASES, scope
from millicent.dashboard.pages.budgets_words import date_words, forecast_facts, outcome, share, tone
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.state import FILTERS, View
from millicent.warehouse import budgets
from millicent.warehouse.standings import Standing
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.budgets_place import Looked
    from millicent.dashboard.pages.budgets_reading import Stood
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.query import Basis

EVERY: Final = {
    "day": "each day", "week": "each week, from Monday", "month": "each month", "quarter": "each quarter",
    "fiscal_year": "each year",
}  # fmt: skip
ROLLS: Final = {"none": "", "unspent": "what is left goes to the next", "balance": "what is left or over goes on"}
CALLS: Final = {"none": "", "warn": "calls are warned at the limit", "block": "calls are refused at the limit"}
MOST_PARTS: Final = 12
LATELY: Final = 7
"""Whole days that say what is spent a day now."""
_DAY: Final = timedelta(days=1)
_NOTHING: Final = Decimal(0)


def numbers(one: Standing, now: datetime) -> Component:
    """What was spent, what will have been, and what is left, each with what it is measured by."""
    pace = one.limit * one.elapsed_ratio
    apart = one.actual - pace
    beside = f"{fmt.usd(abs(apart))} {'over' if apart > 0 else 'under'} even pace" if pace else "of nothing"
    if one.budget.rolling_days is not None:
        beside = f"in {one.budget.rolling_days} days"
    left, ahead = one.limit - one.actual, one.forecast
    words, look = outcome(one)
    boxes = [
        _box("Spent", fmt.usd(one.actual), fmt.usd_exact(one.actual), f"{share(one.ratio)} · {beside}"),
        _box("Forecast", fmt.usd(ahead.p50_usd) if ahead else fmt.UNKNOWN,
             fmt.usd_exact(ahead.p50_usd) if ahead else "", _band(one), tone(one)),
        _box("Left" if left >= 0 else "Over by", fmt.usd(abs(left)), fmt.usd_exact(abs(left)),
             [html.Span(words, className=f"delta {look}")]),
    ]  # fmt: skip
    return html.Div([html.Dl(boxes, className="costs"), _daily(one, now)])


def burn_down(one: Standing) -> dict[str, Any]:
    """How it burns down, with a line at the day up to which that is known, and a mark where it runs out."""
    if not one.limit:
        return NOTHING
    figure = outlook_figures.burn_down(one)
    layout, until = figure["layout"], one.spent[-1][0].isoformat()
    if one.forecast and one.forecast.days:
        line = {"color": QUIET, "width": 1, "dash": "dot"}
        layout["shapes"] = [
            *layout["shapes"],
            {"type": "line", "x0": until, "x1": until, "y0": 0, "y1": 1, "yref": "paper", "line": line},
        ]
        layout["annotations"] = [
            {"x": until, "y": 1, "yref": "paper", "text": "today", "showarrow": False, "xanchor": "right",
             "yanchor": "top", "xshift": -3, "font": {"size": 10.5, "color": QUIET}},
        ]  # fmt: skip
    if one.run_out_date is not None:
        if (days_of(one)[1] - one.run_out_date) * 6 < one.period.end - one.period.start:
            layout["margin"] = {**layout["margin"], "r": 42}
        figure["data"].append(
            {"type": "scatter", "mode": "markers+text", "x": [one.run_out_date.isoformat()], "y": [0],
             "name": "Runs out", "marker": {"color": OVER, "size": 8}, "text": [date_words(one.run_out_date)],
             "textposition": "top right", "textfont": {"color": OVER, "size": 11.5}, "hoverinfo": "skip",
             "showlegend": False, "cliponaxis": False}
        )  # fmt: skip
    return figure


def facts(one: Stood, found: Sequence[Stood]) -> Component:
    """What a budget counts, for whom, and how."""
    budget = one.budget
    names = {other.budget.id: other.budget.name for other in found}
    rules = " · ".join(filter(None, (every(budget), ROLLS[budget.rollover], CALLS[budget.enforcement])))
    told: list[tuple[str, Any]] = [
        ("Counts", scope(budget)),
        ("Holds", rules),
        ("In", f"{budget.currency}, {BASES[budget.basis]}, days of {budget.time_zone}"),
        ("Owner", budget.owner or "nobody is named"),
        ("Part of", names.get(budget.parent) if budget.parent is not None else None),
        ("Note", budget.note or None),
    ]
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(value)]) for name, value in told if value], className="facts single"
    )


def every(budget: Budget) -> str:
    """How often a limit holds: `each month`, `any 30 days`."""
    return f"any {budget.rolling_days} days" if budget.rolling_days is not None else EVERY[budget.period]


def how(one: Standing) -> Component | None:
    """How the forecast came about."""
    if one.forecast is None:
        return None
    return popover("i", [html.P(fact) for fact in forecast_facts(one.forecast)],
                   label="How the forecast is computed", className="how")  # fmt: skip


def explored(budget: Budget, one: Stood) -> str | None:
    """Address of what a budget counts in its period, where the Cost explorer can be narrowed to just that."""
    kept = [wanted for wanted in budget.filters if not wanted.negated]
    bases: tuple[Basis, ...] = ("effective", "usage")
    if len(kept) != len(budget.filters) or {wanted.dimension for wanted in kept} - set(FILTERS):
        return None
    if budget.basis not in bases or len({wanted.dimension for wanted in kept}) != len(kept):
        return None
    first, last = days_of(one)
    view = View(range=f"{first}..{last}", filters=tuple((wanted.dimension, wanted.values) for wanted in kept),
                basis=budget.basis, currency=budget.currency, zone=budget.time_zone)  # fmt: skip
    return f"/explore{view.search()}"


def days_of(one: Stood) -> tuple[date, date]:
    """First and last day of the period, in the budget's own zone."""
    place = zone(one.budget.time_zone)
    return one.period.start.astimezone(place).date(), (one.period.end - timedelta(microseconds=1)).astimezone(
        place
    ).date()


def parts(one: Standing, found: Sequence[Stood], place: Looked) -> list[Any] | None:
    """Words and table of the parts of a budget against it; None where it has none."""
    told = budgets.parts(one.budget, [part.budget for part in found])
    below = [part for part in found if part.budget in told.budgets]
    if not below:
        return None
    alike = _added(one.budget, [part for part in below if part.budget not in (*told.apart, *told.outside)])
    names = [
        link(part.budget.name, place.href(budget=part.budget.id), className="tag plain") for part in below[:MOST_PARTS]
    ]
    left = len(below) - MOST_PARTS
    more = [html.Span(f"and {left} more", className="quiet")] if left > 0 else []
    head = f"{len(below)} part{'' if len(below) == 1 else 's'}"
    summed = _summed(one, alike) if alike else []
    return [head, html.Div([*summed, _apart(below, alike, told.outside), html.Div([*names, *more])])]


def _summed(one: Standing, alike: Sequence[Stood]) -> list[Component]:
    """What parts come to against their whole, and what is left of it."""
    limit = sum((part.limit if isinstance(part, Standing) else part.budget.amount for part in alike), _NOTHING)
    spent = sum((part.actual for part in alike if isinstance(part, Standing)), _NOTHING)
    ahead, whole = _ahead(alike), one.forecast.p50_usd if one.forecast else None
    rest = whole - ahead if whole is not None and ahead is not None else None
    rows = [
        ("Its parts together", spent, ahead, limit, ""),
        ("No part of it", one.actual - spent, rest, one.limit - limit, "bad" if limit > one.limit else ""),
        ("The whole", one.actual, whole, one.limit, "whole"),
    ]
    body = [
        html.Tr([html.Th(name, scope="row"), html.Td(fmt.usd(a)), html.Td(fmt.usd(b)),
                 html.Td(html.Span(fmt.usd(c), className="delta bad" if look == "bad" else ""))], className=look)
        for name, a, b, c, look in rows
    ]  # fmt: skip
    heads = ("", "Spent", "Forecast", "Limit")
    table = html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(body)],
                       className="figures shares")  # fmt: skip
    look = "delta bad" if limit > one.limit else ""
    return [table, html.P(html.B(_shared(one, limit), className=look), className="quiet")]


def _shared(one: Standing, limit: Decimal) -> str:
    if limit > one.limit:
        return f"The parts may come to {fmt.usd(limit - one.limit)} more than the whole."
    if limit == one.limit:
        return "The parts share out all of it."
    return f"{fmt.usd(one.limit - limit)} is shared out to no part."


def _apart(below: Sequence[Stood], alike: Sequence[Stood], outside: Sequence[Budget]) -> Component:
    """Which parts are not added up, and which may spend what the whole does not count."""
    said = []
    left = len(below) - len(alike)
    if left:
        verb, is_ = ("counts", "is") if left == 1 else ("count", "are")
        said.append(f"{left} of them {verb} in another way, or what others count too, and {is_} not added up.")
    if outside:
        names = ", ".join(part.name for part in outside[:3]) + (" and others" if len(outside) > 3 else "")
        said.append(f"What {names} may spend is not all within it.")
    return html.P(" ".join(said), className="quiet")


def _ahead(some: Sequence[Stood]) -> Decimal | None:
    known = [part.forecast.p50_usd for part in some if isinstance(part, Standing) and part.forecast]
    return sum(known, _NOTHING) if len(known) == len(some) else None


def _added(whole: Budget, below: Sequence[Stood]) -> list[Stood]:
    """Of parts that count as the whole does, those that are told apart by the same dimensions.

    What is told apart by others, as a customer is beside teams, counts the same calls again.
    """
    own = {wanted.dimension for wanted in whole.filters}
    cuts: dict[frozenset[str], list[Stood]] = {}
    for part in below:
        cuts.setdefault(frozenset(kept.dimension for kept in part.budget.filters) - own, []).append(part)
    return max(cuts.values(), key=len, default=[])


def _band(one: Standing) -> str:
    ahead = one.forecast
    if ahead is None:
        return "after five whole days"
    if ahead.p10_usd is None or not ahead.days:
        return fmt.percent(one.expected_ratio, 0) + " of the limit"
    return f"{fmt.usd(ahead.p10_usd)} to {fmt.usd(ahead.p90_usd)}"


def _daily(one: Standing, now: datetime) -> Component | None:
    """What may still be spent a day, and what lately is."""
    if one.budget.rolling_days is not None or one.budget.period == "day" or one.actual >= one.limit:
        return None
    days = -(-(one.period.end - now) // _DAY)
    lately = _lately(one)
    if days <= 0 or lately is None:
        return None
    may = (one.limit - one.actual) / days
    told = "day" if days == 1 else f"{days} days"
    look = "bad" if lately > may else "good"
    return html.P(
        ["To keep it, at most ", html.B(fmt.usd(may)), f" a day for the {told} left, today included; lately it was ",
         html.B(fmt.usd(lately), className=f"delta {look}"), " a day."],
        className="to-keep",
    )  # fmt: skip


def _lately(one: Standing) -> Decimal | None:
    """What was spent on each of the last whole days of the period, on average; None before the second day."""
    totals = [total for _, total in one.spent[:-1]]
    if len(totals) < 2:
        return None
    taken = totals[-(LATELY + 1) :]
    since = taken[0] if len(totals) > LATELY else _NOTHING
    count = len(taken) - 1 if len(totals) > LATELY else len(taken)
    return (taken[-1] - since) / count


def _box(title: str, value: str, exact: str, beside: Any, look: str = "") -> Component:
    return html.Div(
        [
            html.Dt(title),
            html.Dd([value, html.Small(beside)], title=exact, className=f"delta {look}" if look == "bad" else ""),
        ]
    )


def unknown(one: Standing) -> Component | None:
    """What is not in the numbers of a budget."""
    if not one.incomplete:
        return None
    way = html.A("See why", href="/quality")
    return html.P([html.B("Incomplete. "), f"Not in what was spent: {', '.join(one.incomplete)}. ", way],
                  className="banner", **aria(label="Incomplete"))  # fmt: skip
