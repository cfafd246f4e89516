"""The past of a budget: what its periods came to against their limits, and every version with who changed what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard import outlook_figures
from millicent.dashboard.components import aria
from millicent.dashboard.pages.budgets_one import every
from millicent.dashboard.pages.budgets_reading import BASES, ask, at, once, scope
from millicent.dashboard.pages.budgets_words import amounts_in
from millicent.warehouse import budgets, standings
from millicent.warehouse.instants import midnight
from millicent.warehouse.query import BadQuery
from millicent.warehouse.standings import Standing
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.budgets_reading import Stood
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.budgets import Budget

LOOKED_BACK: Final = {
    "day": timedelta(days=31), "week": timedelta(weeks=13), "month": timedelta(days=370),
    "quarter": timedelta(days=1100), "fiscal_year": timedelta(days=1470), "rolling": timedelta(days=45),
}  # fmt: skip
KEPT_S: Final = 60.0
"""How old what past periods came to may be."""
LABELLED: Final = 14
"""Columns that can all have a label."""
_NOTHING: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Past:
    """A period of a budget: what it came to, and its limit, None before the budget held."""

    start: datetime
    end: datetime
    actual: Decimal
    limit: Decimal | None
    incomplete: bool


def pasts(reader: Reader, shown: Stood) -> list[Any]:
    """Columns of the past periods, and words that sum them up."""
    try:
        found: list[Past] = once(reader, ("pasts", shown.budget), lambda: _pasts(reader, shown.budget), KEPT_S)
    except BadQuery as error:
        return [html.P(str(error), className="quiet"), ""]
    rolls = shown.budget.rolling_days is not None
    ended = [one for one in found if one.end <= shown.period.start or (rolls and one.end < shown.period.end)]
    before = list(dropwhile(lambda one: not one.actual, ended))
    if not before:
        return [html.P("Nothing was spent in earlier periods.", className="quiet"), ""]
    now, ahead = None, None
    if isinstance(shown, Standing):
        now = Past(shown.period.start, shown.period.end, shown.actual, shown.limit, bool(shown.incomplete))
        ahead = shown.forecast.p50_usd if shown.forecast else shown.actual
    return [columns(before, shown.budget, now, ahead), _summed_up(before, shown.budget)]


def rolled(reader: Reader, shown: Standing) -> dict[str, Any]:
    """What the days of a rolling period came to, day by day, and its limit as a line."""
    found: list[Past] = once(reader, ("pasts", shown.budget), lambda: _pasts(reader, shown.budget), KEPT_S)
    place = zone(shown.budget.time_zone)
    ends = [(one.end - timedelta(microseconds=1)).astimezone(place).date() for one in found]
    return outlook_figures.rolled(list(zip(ends, (one.actual for one in found), strict=True)), shown)


def revisions(versions: Sequence[Budget], now: datetime, names: Mapping[int | None, str]) -> list[Any]:
    """Every version, newest first, and words.

    Args:
        versions: in the order they were set.
        now: what holds by then holds now.
        names: of other budgets, by id.
    """
    current = [one for one in versions if one.effective_from <= now][-1:]
    items = [
        _revision(one, before, names, is_now=one in current)
        for before, one in zip([None, *versions], versions, strict=False)
    ]
    count = "set once" if len(versions) == 1 else f"{len(versions)} versions"
    return [html.Ol(list(reversed(items)), className="revisions"), f"{count} · none is ever overwritten"]


def _pasts(reader: Reader, budget: Budget) -> list[Past]:
    """What every period came to, as long ago as is shown; before the budget held, what it would have counted."""
    now = at(reader)
    since = midnight((now - LOOKED_BACK[budget.period]).astimezone(zone(budget.time_zone)).date(),
                     zone(budget.time_zone))  # fmt: skip
    versions = budgets.history(reader.warehouse.control, reader.tenant, budget.id) if budget.id is not None else []
    versions = versions or [budget]
    first = min(one.effective_from for one in versions)
    found: list[Past] = []
    until = min(versions[0].period_at(first).start, now)
    if since < until:
        earlier = replace(versions[0], effective_from=since, rollover="none", ended=False)
        found += [replace(one, limit=None) for one in _came_to(reader, [earlier], since, until)]
    if first < now:
        found += _came_to(reader, versions, max(since, first), now)
    return found


def _came_to(reader: Reader, versions: Sequence[Budget], since: datetime, until: datetime) -> list[Past]:
    frame = standings.spent_by_period(ask(reader), versions, since, until)
    unknown = ("unpriced_calls", "missing_usage_calls")
    return [
        Past(row["period_start"], row["period_end"], row["actual"], row["limit"], any(row[name] for name in unknown))
        for row in frame.iter_rows(named=True)
    ]


def columns(found: Sequence[Past], budget: Budget, now: Past | None = None, ahead: Decimal | None = None) -> Component:
    """What periods came to as columns, each with its limit as a line; `now` is the present one, which is not over."""
    every_one = [*found, *([now] if now else [])]
    tops = [max(one.actual, one.limit or _NOTHING) for one in every_one]
    tallest = max([*tops, ahead or _NOTHING]) or Decimal(1)
    apart = max(len(every_one) // LABELLED + 1, 1)
    items = [
        _column(one, tallest, budget, ahead=ahead if one is now else None, told=(len(every_one) - 1 - n) % apart == 0)
        for n, one in enumerate(every_one)
    ]
    many = "many" if len(items) > LABELLED else ""
    return html.Ol(items, className=f"periods {many}", style={"--count": str(len(items))})


def _column(one: Past, tallest: Decimal, budget: Budget, *, ahead: Decimal | None = None, told: bool) -> Component:
    over = one.limit is not None and (one.actual if ahead is None else max(ahead, one.actual)) >= one.limit
    name = named(one.start, one.end, budget)
    words = f"{name}: {fmt.usd_exact(one.actual)}"
    if one.limit is not None:
        share = f", {fmt.percent(one.actual / one.limit, 0)}" if one.limit else ""
        words += f" of {fmt.usd_exact(one.limit)}{share}"
    else:
        words += ", before the budget held"
    words += f"; {fmt.usd(ahead)} by the forecast" if ahead is not None else ""
    words += "; incomplete" if one.incomplete else ""
    style = {"--spent": f"{max(one.actual, _NOTHING) / tallest:.1%}",
             "--expected": f"{max(ahead or one.actual, _NOTHING) / tallest:.1%}"}  # fmt: skip
    if one.limit is not None:
        style["--limit"] = f"{one.limit / tallest:.1%}"
    look = " ".join(kind for kind, on in (("over", over), ("unheld", one.limit is None), ("now", ahead is not None))
                    if on)  # fmt: skip
    mark = [html.I(className="cap")] if one.limit is not None else []
    face = [html.Span(mark, className="column", **aria(hidden="true")),
            html.Small(_label(one, budget) if told else "", **aria(hidden="true")),
            html.Span(words, className="unseen")]  # fmt: skip
    return html.Li(face, className=look, style=style, title=words)


def _summed_up(found: Sequence[Past], budget: Budget) -> str:
    held = [one for one in found if one.limit]
    of = "days" if budget.rolling_days is not None else "periods"
    if not held:
        return f"{len(found)} {of} before it held · the line is its limit"
    over = sum(one.actual >= (one.limit or _NOTHING) for one in held)
    ratios = [one.actual / one.limit for one in held if one.limit]
    share = fmt.percent(sum(ratios, _NOTHING) / len(ratios), 0)
    if len(held) == 1:
        return f"the limit was {'' if over else 'not '}reached in the period before · {share} of it was spent"
    return f"the limit was reached in {over or 'none'} of {len(held)} past {of} · {share} of it was spent on average"


def named(start: datetime, end: datetime, budget: Budget) -> str:
    """`October 2026`, `16 Nov to 22 Nov 2026`: a period, in the budget's own zone."""
    place = zone(budget.time_zone)
    first, last = start.astimezone(place), (end - timedelta(microseconds=1)).astimezone(place)
    if budget.period == "month":
        return f"{first:%B %Y}"
    if first.date() == last.date():
        return f"{first.day} {first:%b %Y}"
    return f"{first.day} {first:%b} to {last.day} {last:%b %Y}"


def dated(start: datetime, end: datetime, budget: Budget) -> str:
    """`October`, `16–22 Nov`: a period of the last months, in the budget's own zone."""
    place = zone(budget.time_zone)
    first, last = start.astimezone(place), (end - timedelta(microseconds=1)).astimezone(place)
    if budget.period == "month":
        return f"{first:%B}"
    if first.date() == last.date():
        return f"{first.day} {first:%b}"
    begun = f"{first.day}" if first.month == last.month else f"{first.day} {first:%b} "
    return f"{begun}–{'' if first.month == last.month else ' '}{last.day} {last:%b}"


def _label(one: Past, budget: Budget) -> str:
    start = one.start.astimezone(zone(budget.time_zone))
    if budget.period == "month":
        return f"{start:%b}"
    if budget.period in {"quarter", "fiscal_year"}:
        return f"{start:%b %y}"
    day = (one.end - timedelta(microseconds=1)).astimezone(zone(budget.time_zone)) if budget.rolling_days else start
    return f"{day.day} {day:%b}"


def _revision(one: Budget, before: Budget | None, names: Mapping[int | None, str], *, is_now: bool) -> Component:
    with amounts_in(one.currency):
        said = _changes(one, before, names)
    when = fmt.moment(one.effective_from)
    made = f"set {fmt.moment(one.created_at)} by " if one.created_at else "by "
    head = [html.B(f"v{one.version}"), html.Span(f"from {when} {fmt.local(one.effective_from):%Y}"),
            html.Span("now", className="tag own") if is_now else None]  # fmt: skip
    note = (
        html.P(f"“{one.note}”", className="note") if one.note and (before is None or before.note != one.note) else None
    )
    return html.Li(
        [html.Div(head, className="head"), html.Ul([html.Li(words) for words in said]), note,
         html.Small([made, html.Bdi(one.author or "somebody")])]
    )  # fmt: skip


def _changes(one: Budget, before: Budget | None, names: Mapping[int | None, str]) -> list[Any]:
    """What a version says other than the one before it."""
    if one.ended:
        return ["It ends."]
    if before is None or before.ended:
        return [f"{one.name}: {fmt.usd(one.amount)} {every(one)}, {scope(one)}"]
    said: list[Any] = []
    if (one.amount, one.currency) != (before.amount, before.currency):
        with amounts_in(before.currency):
            was = fmt.usd(before.amount)
        change = fmt.change(one.amount, before.amount, unit="usd", better="neither")
        by = f" ({change.arrow} {change.text})" if change and one.currency == before.currency else ""
        said.append(["Limit ", html.Span(was, className="was"), " → ", html.B(fmt.usd(one.amount)), by])
    pairs = [(words, told(one), told(before)) for words, told in _TOLD.items()]
    pairs.append(("Part of", names.get(one.parent, "another") if one.parent else "nothing",
                  names.get(before.parent, "another") if before.parent else "nothing"))  # fmt: skip
    said += [
        [f"{words} ", html.Span(was, className="was"), " → ", html.B(now)] for words, now, was in pairs if now != was
    ]
    return said or ["The same, from another day on" if one.note == before.note else "Another note"]


_TOLD: Final[dict[str, Any]] = {
    "Name": lambda one: one.name,
    "Counts": scope,
    "Period": every,
    "Basis": lambda one: BASES[one.basis],
    "Days of": lambda one: one.time_zone,
    "Year begins in month": lambda one: str(one.fiscal_month),
    "Roll-over": lambda one: one.rollover,
    "At the limit": lambda one: {"none": "nothing", "warn": "calls are warned", "block": "calls are refused"}[
        one.enforcement
    ],
    "Owner": lambda one: one.owner or "nobody",
}
"""How a revision calls what may differ, and how it is said."""
