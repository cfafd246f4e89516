"""The rules of a budget and what they found: who is told when, and what was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dash import html

from millicent.dashboard.components import link
from millicent.dashboard.pages.alerts_inbox import severity, tags
from millicent.dashboard.pages.alerts_parts import ago, exact
from millicent.dashboard.pages.alerts_place import Opened
from millicent.dashboard.pages.alerts_rules import sentence
from millicent.dashboard.state import VERSION
from millicent.warehouse import alert_rules, alerts

if TYPE_CHECKING:
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.budgets_reading import Stood
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.alerts import Alert, State

MOST: Final = 5
"""Alerts that are listed."""
MOST_RULES: Final = 14
OPEN: Final[tuple[State, ...]] = ("firing", "acknowledged")
RESOLVED: Final[tuple[State, ...]] = ("resolved",)


def warnings(reader: Reader, shown: Stood) -> list[Any]:
    """Alerts of a budget, open ones first, its rules, and words."""
    control, budget = reader.warehouse.control, shown.budget
    rules = alert_rules.live(control, reader.tenant, budget=budget.id)
    open_, _ = alerts.inbox(control, reader.tenant, states=OPEN, budget=budget.id, limit=MOST)
    over, _ = alerts.inbox(control, reader.tenant, states=RESOLVED, budget=budget.id, limit=MOST)
    found = [*open_, *over][:MOST]
    listed = html.Ul([_alert(one, reader.now) for one in found], className="told-of")
    none = html.P(
        "Nothing was told of it yet." if rules else "Nobody is told of it: it has no rule.", className="quiet"
    )
    firing = {one.rule for one in open_}
    said = html.Ul([_rule(one, budget.currency, reader.now, fires=one.id in firing) for one in rules[:MOST_RULES]],
                   className="rules-of")  # fmt: skip
    left = len(rules) - MOST_RULES
    more = html.P(f"and {left} more", className="quiet") if left > 0 else None
    there = f"/alerts?v={VERSION}&budget={budget.id}"
    ways = html.P([link("All its alerts", f"{there}&s=all"), html.Span(" · "), link("Its rules", f"{there}#rules")],
                  className="ways")  # fmt: skip
    count = f"{len(open_)} open" if open_ else "none open"
    told = f"{len(rules)} rule{'' if len(rules) == 1 else 's'} · {count}"
    return [
        html.Div([listed if found else none, html.H3("Who is told when") if rules else None, said, more, ways]),
        told,
    ]


def _alert(one: Alert, now: datetime) -> Component:
    href = f"/alerts?v={VERSION}&open={quote(Opened.of('alert', id=one.id).written, safe='')}"
    when = one.resolved_at or one.opened_at
    words = "over since" if one.resolved_at else "fired"
    return html.Li(
        [link(one.summary, href), html.Div([severity(one, now), *tags(one, now),
                                            html.Span(f"{words} {ago(when, now)}", title=exact(when))],
                                           className="when")]
    )  # fmt: skip


def _rule(one: Rule, currency: str, now: datetime, *, fires: bool) -> Component:
    if one.is_muted(now):
        state = html.Span("muted", className="tag plain")
    elif fires:
        state = html.Span("fires", className="tag bad")
    else:
        state = None
    return html.Li(
        [html.Span(className=f"lamp-of {one.severity}", title=one.severity), html.Span(sentence(one, currency)), state]
    )
