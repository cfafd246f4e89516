"""What the past says of a budget that is not set yet: what it might be, and what it would have told, had it held."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data
from millicent.dashboard.pages.budgets_form import problem, read
from millicent.dashboard.pages.budgets_history import Past, columns, dated
from millicent.dashboard.pages.budgets_reading import at, once
from millicent.dashboard.pages.budgets_words import amounts_in, date_words
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View
from millicent.warehouse import alert_rules, budget_trials
from millicent.warehouse.budgets import BadBudgetError
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_forms import Told
    from millicent.warehouse.budget_trials import Fired, Judged, Suggestion, Trial, Tried
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.query import Query
    from millicent.warehouse.standings import Ask
    from millicent.warehouse.store import Warehouse

LOOKED_BACK: Final = {
    "day": timedelta(days=21), "week": timedelta(weeks=12), "month": timedelta(days=184),
    "quarter": timedelta(days=370), "fiscal_year": timedelta(days=399), "rolling": timedelta(days=184),
}  # fmt: skip
"""How long ago the trial begins: about six months."""
MORE: Final = {Decimal(0): "+0%", Decimal("0.1"): "+10%", Decimal("0.2"): "+20%"}
"""What is suggested on top of what was spent."""
MOST_FIRED: Final = 6
KEPT_S: Final = 60.0
"""How old the calls behind a trial may be."""


def tried(warehouse: Warehouse, told: Told) -> list[Any]:
    """What might be the limit, and how what the form holds would have done."""
    reader = Reader.of(warehouse, View())
    if reader is None:
        return [None, html.P("There are no calls yet that could tell.", className="quiet")]
    liked = preferences(warehouse.control, reader.tenant)
    try:
        scope = read({**told, "name": told.get("name") or "-", "amount": "1", "version": "", "parent": ""}, liked)
        suggested = _suggestion(reader, scope)
    except (BadBudgetError, BadQuery) as error:
        return [None, _wrong(problem(error))]
    try:
        budget = read({**told, "name": told.get("name") or "-"}, liked)
        return [suggested, _trial(reader, budget)]
    except (BadBudgetError, BadQuery) as error:
        missing = not told.get("amount", "").strip()
        return [suggested, _wanted() if missing else _wrong(problem(error))]


def _suggestion(reader: Reader, scope: Budget) -> Component:
    """What the limit might be, and buttons that write it."""
    asking = _remembering(reader)
    found = [(words, budget_trials.suggest(asking, scope, at(reader), more)) for more, words in MORE.items()]
    with amounts_in(scope.currency):
        buttons = [_use(words, one) for words, one in found if one.amount is not None]
        _, told = found[0]
        said = told.method if told.amount is None else _why(told)
        return html.Div([html.Span("Suggested" if buttons else said, className="quiet"), *buttons,
                         html.Small(said if buttons else "")])  # fmt: skip


def _why(told: Suggestion) -> str:
    method = told.method.removesuffix(".").removesuffix(", rounded up")
    spent = ", ".join(fmt.usd(one.actual) for one in told.history[-3:])
    return f"{method}" + (f": {spent}" if spent and "forecast" not in method else "")


def _use(words: str, one: Suggestion) -> Component:
    amount = f"{one.amount:f}"
    return html.Button([html.B(fmt.usd(one.amount)), html.Small(words)], type="button", className="button small-text",
                       title=f"Write {amount}", **data(fill=json.dumps(["limits-amount", amount])))  # fmt: skip


def _trial(reader: Reader, budget: Budget) -> Component:
    since = at(reader) - LOOKED_BACK[budget.period]
    rules = _rules(reader, budget)
    found = budget_trials.simulate(_remembering(reader), budget, rules, since, at(reader))
    if not found.periods:
        return html.Div(
            [html.H3("Had it held already"), html.P("Nothing was spent that could tell.", className="quiet")]
        )
    with amounts_in(budget.currency):
        pasts = [Past(one.period.start, one.period.end, one.actual, one.limit, bool(one.incomplete))
                 for one in found.periods]  # fmt: skip
        rows = [_row(one, budget) for one in reversed(found.periods)]
        heads = ("Period", "Spent", "Of the limit", "Would have told")
        table = html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(rows)],
                           className="figures tried")  # fmt: skip
        shown = [html.P(_said(found), className="lead"), columns(pasts, budget), html.Div(table, className="scroll")]
        return html.Div([html.H3("Had it held already"), *shown, html.P(_judged(rules), className="quiet")])


def _said(found: Trial) -> list[Any]:
    count, over = len(found.periods), found.exceeded
    periods = "period" if count == 1 else f"{count} periods"
    look = "bad" if over else "good"
    reached = f"reached in {over}" if over else "reached in none"
    told = "nobody would have been told" if not found.told else f"people told {_times(found.told)}"
    return ["Its limit would have been ", html.B(reached, className=f"delta {look}"), f" of the last {periods}, and ",
            html.B(told), "."]  # fmt: skip


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _judged(rules: Sequence[Judged]) -> str:
    shares = {
        kind: ", ".join(fmt.percent(one.threshold, 0) for one in rules if one.kind == kind)
        for kind in ("actual", "forecast")
    }
    told = [f"{shares[kind]} {word}" for kind, word in (("actual", "spent"), ("forecast", "forecast")) if shares[kind]]
    said = f"Told at {' and '.join(told)}; other rules are not tried." if told else "It has no rule that can be tried."
    return f"{said} What was spent is as it is known today."


def _row(one: Tried, budget: Budget) -> Component:
    share = fmt.percent(one.actual / one.limit, 0) if one.limit else fmt.UNKNOWN
    over = one.actual >= one.limit
    when = f", on {date_words(one.run_out_date)}" if one.run_out_date else ""
    name = [dated(one.period.start, one.period.end, budget), html.Small("not over yet") if not one.over else None]
    told = [_fired(fired) for fired in one.fired[:MOST_FIRED]]
    left = len(one.fired) - MOST_FIRED
    return html.Tr(
        [html.Th(name, scope="row"), html.Td(fmt.usd(one.actual), title=fmt.usd_exact(one.actual)),
         html.Td(html.Span(share, className="delta bad" if over else "", title=f"Reached{when}" if over else "")),
         html.Td([*told, f" and {left} more" if left > 0 else "", "nothing" if not told else ""], className="told")]
    )  # fmt: skip


def _fired(one: Fired) -> Component:
    what = f"{fmt.percent(one.threshold, 0)}{' forecast' if one.kind == 'forecast' else ''}"
    late = one.kind == "actual" and one.threshold >= 1
    return html.Span([html.B(what), f" {date_words(one.day)}"], className="tag bad" if late else "tag plain")


def _rules(reader: Reader, budget: Budget) -> Sequence[Judged]:
    """The rules of a budget that is changed; the usual ones of a new one."""
    if budget.id is None:
        return budget_trials.USUAL
    held = alert_rules.live(reader.warehouse.control, reader.tenant, budget=budget.id)
    return [one for one in held if one.kind in {"actual", "forecast"}]


def _remembering(reader: Reader) -> Ask:
    """Asks a question once for as long as what somebody types would ask it again."""

    def asked(query: Query) -> pl.DataFrame:
        frame: pl.DataFrame = once(
            reader, ("trial", query), lambda: reader.warehouse.ask(reader.tenant, query).frame, KEPT_S
        )
        return frame

    return asked


def _wanted() -> Component:
    words = "Write a limit, or take one that is suggested: here you see how it would have done in the last months."
    return html.Div([html.H3("Had it held already"), html.P(words, className="quiet")])


def _wrong(words: str) -> Component:
    return html.Div([html.H3("Before it can be set"), html.Ul(html.Li(words, className="wrong"), className="problems")],
                    **aria(label="Problem"))  # fmt: skip
