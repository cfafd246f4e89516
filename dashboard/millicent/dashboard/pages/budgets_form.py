"""The form of a budget: what it begins with, and the budget that it holds, read as the API reads one."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.dashboard import filters
from millicent.dashboard.budgets import read_by
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, popover
from millicent.dashboard.pages.alerts_parts import select
from millicent.dashboard.pages.prices_forms import entry_field, group
from millicent.warehouse.budgets import BadBudgetError
from millicent.warehouse.instants import midnight
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_forms import Told
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.query import Filter
    from millicent.warehouse.workspace import Workspace

SCOPES: Final = ("team", "project", "feature", "customer", "model", "environment")
"""Dimensions with a field of their own; any other is written as a line."""
PERIODS: Final = {
    "month": "Month", "week": "Week, from Monday", "day": "Day", "quarter": "Quarter", "fiscal_year": "Fiscal year",
    "rolling": "Rolling: any so many days",
}  # fmt: skip
BASES: Final = {
    "effective": "Fully loaded: APIs, own hardware with idle", "usage": "Direct only: without idle",
    "billed": "As billed by API providers", "list": "At list prices", "marginal": "APIs and electricity only",
}  # fmt: skip
ROLLS: Final = {
    "none": "Nothing: each begins anew", "unspent": "What was not spent", "balance": "What was not spent, or over",
}  # fmt: skip
HOLDS: Final = {
    "none": "Nothing: alerts tell people", "warn": "They are warned", "block": "They are refused",
}  # fmt: skip
MONTHS: Final = {str(month): f"{date(2026, month, 1):%B}" for month in range(1, 13)}
TEXTS: Final = (
    "name",
    "amount",
    "period",
    "currency",
    "basis",
    "time_zone",
    "rollover",
    "enforcement",
    "owner",
    "note",
)
WHOLES: Final = ("parent", "id", "version", "fiscal_month", "rolling_days")
WORDS: Final = {
    "fiscal_month": "The year's first month", "rolling_days": "Days", "time_zone": "Time zone",
    "effective_from": "From", "amount": "Limit", "name": "Name", "currency": "Currency", "owner": "Owner",
    "note": "Note", "rollover": "Left to the next period", "parent": "Part of",
}  # fmt: skip
"""How the form calls the fields of a budget."""
MOST_OFFERED: Final = 60
_COMMA: Final = re.compile(r"\s*,\s*")
_DIGITS: Final = 9
_FIELD: Final = re.compile(rf"^({'|'.join(WORDS)})\b")


def read(told: Told, liked: Workspace) -> Budget:
    """The budget that the form holds; what is left empty is as the workspace prefers.

    Raises:
        BadBudgetError: it cannot be.
        BadQuery: a filter or the day from which it holds cannot be.
    """
    said: dict[str, Any] = {name: text for name in TEXTS if (text := told.get(name, "").strip())}
    said |= {name: _whole(text) for name in WHOLES if (text := told.get(name, "").strip())}
    said["amount"] = said.get("amount", "").removeprefix("$").strip() or None
    if said["amount"] is None:
        raise BadBudgetError("amount is missing: write what a whole period may cost")
    if "name" not in said:
        raise BadBudgetError("name is missing: write what it is called")
    if said.get("period") != "rolling":
        said.pop("rolling_days", None)
    else:
        said.pop("rollover", None)
    said["filters"] = scopes(told)
    if since := told.get("since", "").strip():
        said["effective_from"] = _since(since, said.get("time_zone") or liked.time_zone)
    return read_by(said, liked)


def scopes(told: Told) -> list[str]:
    """The filters that the form holds, as an address writes them."""
    found = []
    for name in SCOPES:
        text = told.get(f"scope.{name}", "").strip()
        text = text if "\\" in text else _COMMA.sub(",", text)
        if text:
            found.append(f"-{name}:{text[1:].strip()}" if text.startswith("-") else f"{name}:{text}")
    return [*found, *(line for one in told.get("filters", "").split("\n") if (line := one.lstrip()))]


def told_of(budget: Budget) -> dict[str, str]:
    """What the form begins with, to change a budget."""
    fields, lines = {}, []
    for one in budget.filters:
        name, text = f"scope.{one.dimension}", _values(one)
        plain = text == text.strip() and len(text.splitlines()) == 1 and (one.negated or not text.startswith("-"))
        if one.dimension in SCOPES and name not in fields and plain:
            fields[name] = text
        else:
            lines.append(filters.written(one))
    given = {
        "id": budget.id, "version": budget.version, "name": budget.name, "amount": f"{budget.amount:f}",
        "currency": budget.currency, "period": budget.period, "rolling_days": budget.rolling_days,
        "basis": budget.basis, "time_zone": budget.time_zone, "fiscal_month": budget.fiscal_month,
        "rollover": budget.rollover, "enforcement": budget.enforcement, "parent": budget.parent,
        "owner": budget.owner, "note": budget.note, "filters": "\n".join(lines),
    }  # fmt: skip
    return fields | {name: str(value) for name, value in given.items() if value not in {None, ""}}


def holds(budget: Budget, liked: Workspace) -> bool:
    """Whether the form can hold a budget: a name in its scope may have what no field has, such as an end of line."""
    try:
        read_back = read({**told_of(budget), "parent": ""}, liked).filters
    except (BadBudgetError, BadQuery):
        return False
    return sorted(map(filters.written, read_back)) == sorted(map(filters.written, budget.filters))


def form(
    told: Told, liked: Workspace, parents: Mapping[str, str], offered: Mapping[str, Sequence[str | None]]
) -> Component:
    """The form, and beside it what the past says of what it holds.

    Args:
        told: what it begins with.
        liked: what holds where nothing is said.
        parents: budgets that it may be a part of: names by id.
        offered: values of dimensions to choose from.
    """
    told = {"period": "month", "basis": "effective", "currency": liked.currency, "time_zone": liked.time_zone,
            "fiscal_month": str(liked.fiscal_month), "rollover": "none", "enforcement": "none", **told}  # fmt: skip
    changes = "id" in told
    save = html.Button("Save the next version" if changes else "Set the budget", type="submit",
                       className="button primary", **data(do="set", to="limits-do"))  # fmt: skip
    hidden = [dcc.Input(type="hidden", name=name, value=told[name]) for name in ("id", "version") if name in told]
    fields = html.Form(
        [
            *hidden,
            group("Budget", [
                entry_field("name", "Name", told, hint="Search", needed=True),
                entry_field("owner", "Owner", told, hint="who answers for it"),
            ]),
            html.Fieldset(
                [html.Legend("What it counts"),
                 html.P("Empty is all. Several: search, ads. All but one: -search.", className="quiet wide"),
                 *(_scope(name, told, offered.get(name, ())) for name in SCOPES)], className="three"),
            html.Fieldset([
                html.Legend("How much"), _amount(told),
                entry_field("currency", "Currency", told, hint="USD"),
                select("period", "For each", PERIODS, told["period"]),
                html.Div(entry_field("rolling_days", "Days", told, mode="numeric", hint="30"), className="of-rolling"),
                html.Div(id="limits-suggestion", className="suggestion wide", **aria(live="polite")),
            ], className="amounts"),
            group("At and after the limit", [
                html.Div(select("rollover", "Left to the next period", ROLLS, told["rollover"]), className="of-fixed"),
                select("enforcement", "Calls that ask beforehand", HOLDS, told["enforcement"]),
            ]),
            group("In the whole", [
                select("parent", "Part of", {"": "no other budget", **parents}, told.get("parent", "")),
                entry_field("since", "From, today if empty", told, shape="date"),
            ]),
            html.Div(entry_field("note", "Why it is so much", told, hint="for whoever reads its revisions"),
                     className="single"),
            _more(told),
            html.Div([*(_ending(told) if changes else ()), save], className="pager"),
            dcc.Store(id="limits-draft", data=dict(told)),
        ],
        className="form", **data(draft="limits-draft"),
    )  # fmt: skip
    beside = html.Div(id="limits-trial", className="trial", **aria(live="polite"))
    return html.Div([fields, beside], className="budgeting")


def problem(error: BadBudgetError | BadQuery) -> str:
    """What is wrong, as the form calls its fields."""
    return _FIELD.sub(lambda found: WORDS[found[0]], str(error))


def _scope(name: str, told: Told, offered: Sequence[str | None]) -> Component:
    names = [value for value in offered if value is not None][:MOST_OFFERED]
    field = entry_field(f"scope.{name}", name.capitalize(), told, hint="all", list_=f"limits-of-{name}")
    options = [html.Option(label(name, value), value=value.replace(",", r"\,")) for value in names]
    return html.Div([field, html.Datalist(options, id=f"limits-of-{name}")])


def _amount(told: Told) -> Component:
    box = dcc.Input(id="limits-amount", name="amount", type="text", value=told.get("amount", ""), autoComplete="off",
                    inputMode="numeric", placeholder="27500")  # fmt: skip
    return html.Label([html.Span(["Limit", html.Span(" *", title="needed")]), box], className="entry")


def _more(told: Told) -> Component:
    box = dcc.Textarea(name="filters", value=told.get("filters", ""), rows=2, wrap="off", spellCheck=False,
                       placeholder="provider:openai\n-model:gpt-5.1")  # fmt: skip
    lines = html.Label([html.Span("Other filters, one a line"), box], className="entry wide")
    fields = [
        select("basis", "Counted as", BASES, told["basis"]),
        entry_field("time_zone", "Time zone of its days", told, hint="Europe/Berlin"),
        html.Div(select("fiscal_month", "The year begins in", MONTHS, told["fiscal_month"]), className="of-fiscal"),
        lines,
    ]  # fmt: skip
    unusual = told.get("filters") or told["basis"] != "effective"
    return html.Details(
        [html.Summary("More: cost basis, time zone, other filters"),
         html.Fieldset([html.Legend("More", className="unseen"), *fields])],
        open=bool(unusual), className="more",
    )  # fmt: skip


def _ending(told: Told) -> Sequence[Component]:
    """What ends a budget, once more asked."""
    button = html.Button("End it now", type="button", className="button danger", **data(do="end", to="limits-do"))
    words = "It holds no more from now on, and its rules fall silent. All its versions are kept."
    return [popover(html.Span("End this budget", className="button"),
                    [html.P([html.B(told.get("name", "")), ": ", words]), button], className="confirm")]  # fmt: skip


def _values(one: Filter) -> str:
    text = filters.written(one).partition(":")[2]
    text = text if "\\" in text else text.replace(",", ", ")
    return f"-{text}" if one.negated else text


def _since(text: str, time_zone: str) -> str:
    """The midnight with which a day begins in a zone; what is no day is told as it is, and refused."""
    try:
        return midnight(date.fromisoformat(text), zone(time_zone)).isoformat()
    except (ValueError, OverflowError):
        return text


def _whole(text: str) -> int | str:
    """A whole number; what is none is told as it was typed, and refused."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else text
