"""The panels of the Settings page: forms and tables of values, nothing that asks or changes."""

from __future__ import annotations

import calendar
import json
from typing import TYPE_CHECKING, Any, Final, Literal

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, icon, link, pill
from millicent.dashboard.pages.prices_forms import entry_field
from millicent.dashboard.pages.viewing import SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.access import Principal
    from millicent.pricing.entries import FxRate
    from millicent.warehouse.control import Key
    from millicent.warehouse.views import SavedView
    from millicent.warehouse.workspace import Workspace

MOST: Final = 50
ZONES: Final = "time-zones-of-the-workspace"
PAGES: Final[Mapping[str, str]] = {"/": "Overview", "/explore": "Cost explorer", "/units": "Unit economics",
                                   "/quality": "Data quality"}  # fmt: skip
"""Pages whose name is not their address."""
SCOPES: Final = {"ingest": "sends calls", "read": "reads", "operator": "reads and changes"}


def workspace(liked: Workspace, known: Sequence[str], *, operates: bool) -> Component:
    """What the workspace prefers, as a form where it may be changed."""
    if not operates:
        facts = (
            ("Days begin at midnight in", liked.time_zone), ("Amounts in", liked.currency),
            ("Fiscal year begins in", calendar.month_name[liked.fiscal_month]),
            ("Trace viewer", liked.trace_viewer or "none"),
        )  # fmt: skip
        return html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts], className="facts")
    told = {"time_zone": liked.time_zone, "trace_viewer": liked.trace_viewer or ""}
    months = [(str(n), calendar.month_name[n]) for n in range(1, 13)]
    save = html.Button("Save", type="submit", className="button primary",
                       **data(do="settings-prefer", to="settings-do"))  # fmt: skip
    return html.Form(
        [
            html.Fieldset(
                [
                    entry_field("time_zone", "Days begin at midnight in", told, hint="Europe/Berlin", list_=ZONES),
                    _select("currency", "Amounts in", [(code, code) for code in known], liked.currency),
                    _select("fiscal_month", "Fiscal year begins in", months, str(liked.fiscal_month)),
                    entry_field("trace_viewer", "Trace viewer", told,
                                hint="https://langfuse.example/trace/{trace_id}", mode="url"),
                ],
                className="preferences",
            ),
            html.Datalist(id=ZONES),
            html.P("What is stored stays UTC and USD. Closed months stay as they were closed.", className="quiet"),
            html.Div(save, className="pager start"),
        ],
        className="form", key=str(liked),
    )  # fmt: skip


def rates(entries: Sequence[FxRate], now: datetime, *, operates: bool) -> Component:
    """Dated rates, newest first, those in force marked; and a form to add one."""
    in_force: set[str] = set()
    rows = []
    for entry in entries[:MOST]:
        holds = entry.effective_from <= now and (entry.effective_to is None or now < entry.effective_to)
        current = holds and entry.currency not in in_force
        in_force |= {entry.currency} if current else set()
        rows.append(
            html.Tr(
                [html.Th([entry.currency, pill("in force", "good") if current else None], scope="row"),
                 html.Td(f"{entry.usd_per_unit.normalize():f}", className="number"),
                 html.Td(f"{fmt.day(entry.effective_from)} {entry.effective_from.year}"), html.Td(entry.source or "—")]
            )
        )  # fmt: skip
    listed = (
        _table(("Currency", "USD for one", "From", "Source"), rows, more=len(entries) - MOST)
        if rows
        else html.P("None yet: amounts can be shown in USD alone.", className="quiet")
    )
    if not operates:
        return html.Div(listed)
    told = {"effective_from": f"{now:%Y-%m-01}"}
    add = html.Button("Add the rate", type="submit", className="button primary",
                      **data(do="settings-rate", to="settings-do"))  # fmt: skip
    form = html.Form(
        [
            html.Fieldset(
                [
                    entry_field("currency", "Currency", told, hint="EUR", needed=True),
                    entry_field("usd_per_unit", "USD for one unit", told, hint="1.0834", mode="decimal", needed=True),
                    entry_field("effective_from", "From, UTC", told, shape="date", needed=True),
                    entry_field("source", "Source", told, hint="ECB reference rate", needed=True),
                ],
                className="preferences",
            ),
            html.Div(add, className="pager start"),
        ],
        className="form", key=f"rates-{len(entries)}",
    )  # fmt: skip
    return html.Div([listed, form])


def saved(kept: Sequence[SavedView], who: Principal) -> Component:
    """Saved views of all pages, each a link, with whom it is for, whose it is and when it was opened last."""
    if not kept:
        return html.P("None yet: the menu beside Share on any page saves what is shown there.", className="quiet")
    rows = [
        html.Tr(
            [html.Th(link(one.name, one.address, className="figure name", **data(used=str(one.id))), scope="row"),
             html.Td(PAGES.get(one.path, one.path.removeprefix("/").capitalize())), html.Td(SHOWN[one.audience]),
             html.Td(html.Bdi(one.owner)), html.Td(fmt.moment(one.used_at) if one.used_at else "never"),
             html.Td(_delete(one) if one.owner == who.actor or who.operates else None)]
        )
        for one in kept[:MOST]
    ]  # fmt: skip
    return _table(("Name", "Page", "For", "Saved by", f"Last opened ({fmt.zone()})", ""), rows, more=len(kept) - MOST)


def keys(known: Sequence[Key], now: datetime) -> Component:
    """Keys as they may be shown: whose they are and whether they open anything."""
    rows = []
    for key in sorted(known, key=lambda one: one.created_at, reverse=True)[:MOST]:
        state: tuple[str, Literal["good", "plain", "bad"]] = (
            ("revoked", "plain")
            if key.revoked_at
            else ("expired", "bad")
            if key.expires_at <= now
            else ("live", "good")
        )
        rows.append(
            html.Tr(
                [html.Th([html.Bdi(key.name), html.Small(html.Code(key.id))], scope="row"),
                 html.Td(SCOPES.get(key.scope, key.scope)),
                 html.Td(f"{fmt.day(key.created_at)} {key.created_at.year}"),
                 html.Td(f"{fmt.day(key.expires_at)} {key.expires_at.year}"), html.Td(pill(*state))]
            )
        )  # fmt: skip
    make = html.P([html.Code("millicent keys create"), " makes one, ", html.Code("millicent keys revoke KEY"),
                   " ends it within 5 seconds."], className="quiet")  # fmt: skip
    if not rows:
        return html.Div([html.P("No key yet.", className="quiet"), make])
    return html.Div([_table(("Name", "What it does", "Made", "Ends", "State"), rows, more=len(known) - MOST), make])


def answer(words: str, tone: Literal["good", "bad"]) -> Component:
    """What was done, or why not."""
    return html.P(words, className=f"banner {tone}", role="status" if tone == "good" else "alert")


def _delete(one: SavedView) -> Component:
    return html.Button(icon("trash"), type="button", className="button square small",
                       **data(do="settings-view", to="settings-do", told=json.dumps({"id": one.id})),
                       **aria(label=f"Delete the view {one.name}"))  # fmt: skip


def _table(heads: Sequence[str], rows: Sequence[Component], *, more: int) -> Component:
    head = html.Thead(html.Tr([html.Th(words, scope="col") for words in heads]))
    body: list[Any] = [html.Table([head, html.Tbody(list(rows))], className="plain")]
    if more > 0:
        body.append(html.P(f"and {more:,} more", className="quiet"))
    return html.Div(body, className="scroll")


def _select(name: str, words: str, options: Sequence[tuple[str, str]], chosen: str) -> Component:
    choices: list[Component] = [
        html.Option(text, value=value, **({"selected": "selected"} if value == chosen else {}))  # type: ignore[arg-type]
        for value, text in options
    ]
    return html.Label([html.Span(words), html.Select(choices, name=name, key=chosen)], className="entry")
