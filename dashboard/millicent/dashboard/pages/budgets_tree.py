"""The list of budgets as a tree: who, how much of the limit is and will be spent, and whether it lasts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, link, pill
from millicent.dashboard.pages.budgets_reading import is_shown, scope
from millicent.dashboard.pages.budgets_words import (
    amounts_in,
    bar,
    date_words,
    expected,
    outcome,
    period_name,
    share,
    tone,
)
from millicent.warehouse.standings import Standing, Untold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.budgets_place import Looked, Show
    from millicent.dashboard.pages.budgets_reading import Line, Stood
    from millicent.dashboard.pages.budgets_words import Tone

MOST: Final = 60
"""Budgets that are listed; more are searched for."""
MOST_NAMES: Final = 2
HEADS: Final = ("Budget", "", "Spent", "Forecast", "Limit", "Outcome")
HOLDS: Final = {"block": "blocks", "warn": "warns"}
HELD: Final = {
    "block": "Calls that ask beforehand are refused once the limit is reached",
    "warn": "Calls that ask beforehand are warned once the limit is reached",
}
_DAY: Final = timedelta(days=1)


def tree(lines: Sequence[Line], place: Looked, shown: Stood | None) -> Component:
    """The budgets, worst first at each level, parts below their whole; `shown` is the one that is open."""
    rows = [_row(line, place, here=line.one is shown) for line in lines[:MOST]]
    head = html.Tr([html.Th(words or html.Span("How much of it", className="unseen"), scope="col") for words in HEADS])
    table = html.Table([html.Thead(head), html.Tbody(rows)], className="plan")
    left = len(lines) - MOST
    more = html.P(f"and {left} more: search by name, owner or scope" if left > 0 else "", className="quiet")
    return html.Div([html.Div(table, className="scroll"), _legend(), more])


def tiles(found: Sequence[Stood], place: Looked) -> list[Component]:
    """How many budgets are over, will be, may be or are kept, which runs out next, and of which not all is known."""
    told = [one for one in found if isinstance(one, Standing)]
    over, ahead = ([one for one in told if one.state == state] for state in ("over", "will_be_over"))
    risk, kept = ([one for one in told if is_shown(one, show)] for show in ("risk", "kept"))
    unsure = [one for one in found if is_shown(one, "incomplete")]
    return [
        _count("Over already", over, place, "over", "bad", "none has reached its limit"),
        _count("Will be over", ahead, place, "over", "bad", "none, by the forecast"),
        _count("At risk", risk, place, "risk", "warn", "none is close to its limit"),
        _count("Will be kept", kept, place, "kept", "good", "none yet"),
        _next(told),
        _count("Incomplete", unsure, place, "incomplete", "warn", "all that was spent is known"),
    ]


def left_of(one: Stood, now: datetime) -> str:
    """`November, 4 days left`: the period and how much of it is to come, today included."""
    name = period_name(one.budget, one.period.start)
    if one.budget.period in {"rolling", "day"}:
        return name
    days = -(-(one.period.end - now) // _DAY)
    if days <= 0:
        return f"{name}, over"
    return f"{name}, {days} day{'' if days == 1 else 's'} left"


def pills(one: Stood) -> list[Component]:
    """What else there is to know of a budget: it is incomplete, stops calls, or carries over."""
    made: list[Component] = []
    if isinstance(one, Standing):
        if one.incomplete:
            words = f"Not in what was spent: {', '.join(one.incomplete)}"
            made.append(html.Span("incomplete", className="tag", title=words))
        if one.carried:
            words = "left over from earlier periods" if one.carried > 0 else "spent beyond earlier limits"
            says = f"{fmt.usd_exact(abs(one.carried))} {words}, in the limit already"
            made.append(html.Span([fmt.usd_change(one.carried), " carried"], className="tag plain", title=says))
    if one.budget.enforcement in HOLDS:
        kind = one.budget.enforcement
        made.append(html.Span(HOLDS[kind], className=f"tag {'own' if kind == 'block' else 'plain'}", title=HELD[kind]))
    return made


def _row(line: Line, place: Looked, *, here: bool) -> Component:
    one = line.one
    budget = one.budget
    with amounts_in(budget.currency):
        face = link(html.Span(budget.name, className="name"), place.href(budget=budget.id),
                    title=f"{budget.name}: {scope(budget)}", **(aria(current="true") if here else {}))  # fmt: skip
        below = " · ".join(filter(None, (period_name(budget, one.period.start), budget.owner)))
        who = [face, html.Span([html.Small(below), *pills(one)], className="below")]
        first = html.Th(html.Div(who, style={"--depth": str(min(line.depth, 6))}), scope="row")
        cells = _untold(one) if isinstance(one, Untold) else _told(one)
    kinds = (("context", line.context), ("part", line.depth), ("open", here))
    return html.Tr([first, *cells], className=" ".join(kind for kind, on in kinds if on))


def _told(one: Standing) -> list[Component]:
    ahead = one.forecast
    words, look = outcome(one)
    return [
        html.Td(bar(one, pace=True), className="how-much"),
        html.Td([html.B(fmt.usd(one.actual)), html.Small(share(one.ratio))],
                title=fmt.usd_exact(one.actual)),
        html.Td([fmt.usd(ahead.p50_usd) if ahead else fmt.UNKNOWN,
                 html.Small(html.Span(share(expected(one)), className=f"delta {tone(one)}")) if ahead else None],
                title=fmt.usd_exact(ahead.p50_usd) if ahead else "too few days are known"),
        html.Td(fmt.usd(one.limit), title=fmt.usd_exact(one.limit)),
        html.Td(html.Span(words, className=f"delta {look}"), className="outcome"),
    ]  # fmt: skip


def _untold(one: Untold) -> list[Component]:
    return [
        html.Td(html.Span(one.failure, className="untold"), colSpan=3),
        html.Td(fmt.usd(one.budget.amount)),
        html.Td(html.Span("cannot be told", className="delta"), className="outcome"),
    ]


def _legend() -> Component:
    told = {"spent": "spent", "expected": "forecast", "limit-at": "limit", "pace-at": "even pace today"}
    faces = {look: html.I(className=f"key {look}", **aria(hidden="true")) for look in told}
    return html.Ul([html.Li(html.Span([faces[look], words])) for look, words in told.items()], className="legend keys")


def _count(title: str, some: Sequence[Stood], place: Looked, show: Show, look: Tone, none: str) -> Component:
    """A count that leads to its budgets."""
    names = [one.budget.name for one in sorted(some, key=_weight)]
    left = len(names) - MOST_NAMES
    words = ", ".join(names[:MOST_NAMES]) + (f" and {left} more" if left > 0 else "") if names else none
    there = place.show == show
    says = "Show all again" if there else f"List them: {title.lower()}"
    to = place.href(show="all" if there else show, text="")
    value = link(str(len(some)), to, className="figure", title=says) if some else "0"
    return _tile(title, value, words, look if some else "plain")


def _next(told: Sequence[Standing]) -> Component:
    ahead = [(one.run_out_date, one) for one in told if one.state == "will_be_over" and one.run_out_date is not None]
    if not ahead:
        return _tile("Next to run out", fmt.UNKNOWN, "none, by the forecast", "plain")
    when, one = min(ahead, key=lambda pair: (pair[0], pair[1].budget.name))
    with amounts_in(one.budget.currency):
        words = f"{fmt.usd(one.limit - one.actual)} left · {one.budget.name}"
    return _tile("Next to run out", date_words(when), words, "bad")


def _tile(title: str, value: Any, words: str, look: Tone) -> Component:
    return html.Section(
        [html.Div(html.H2(title), className="kpi-head"), html.Div(html.Strong(value), className="kpi-value"),
         html.Div(html.Span(words, title=words), className="kpi-foot")],
        className=f"card kpi tile {look}",
    )  # fmt: skip


def _weight(one: Stood) -> tuple[Any, ...]:
    ratio = expected(one) if isinstance(one, Standing) else None
    return (ratio is None, -(ratio or 0), one.budget.name)


def verdict(one: Stood) -> Component:
    """Whether a budget is kept."""
    if isinstance(one, Untold):
        return pill("cannot be told")
    return pill(*outcome(one))
