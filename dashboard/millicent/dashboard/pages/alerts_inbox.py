"""The inbox: every alert as one entry, with what drove it, what somebody said about it, and what can be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import icon
from millicent.dashboard.pages.alerts_parts import SMALL, ago, button, confirm, exact, opener, tag
from millicent.warehouse.alerts import REASONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.alerts_place import Shown
    from millicent.warehouse.alert_rules import Severity
    from millicent.warehouse.alerts import Alert

SEVERITIES: Final[Mapping[Severity, str]] = {
    "critical": "Critical",
    "error": "Serious",
    "warning": "Warning",
    "info": "Notice",
}
SNOOZES: Final = (("1", "For an hour"), ("24", "For a day"), ("168", "For a week"))
"""Hours, and how they are called."""
CALM: Final[Mapping[Shown, tuple[str, str]]] = {
    "open": ("All quiet", "No rule is over its threshold now. What fires stands here until it is resolved."),
    "snoozed": ("Nothing is snoozed", "An alert that can wait is snoozed: it comes back when its time is over."),
    "resolved": ("Nothing was resolved yet", "Alerts that are over are kept here, each with why."),
    "all": ("Nothing fired yet", "Set a budget: its rules watch it from then on."),
}


def inbox(alerts: Sequence[Alert], now: datetime, shown: Shown, *, more: int, operates: bool) -> Component:
    """Alerts, those first that need somebody.

    Args:
        alerts: in the order they are listed.
        now: the clock.
        shown: which ones they are.
        more: how many more there are.
        operates: whether whoever looks may change what becomes of them.
    """
    if not alerts:
        title, words = CALM[shown]
        return html.Div([icon("check"), html.H3(title), html.P(words)], className="calm")
    items = [_entry(one, now, operates=operates) for one in alerts]
    rest = [html.P(f"and {more:,} more, older ones", className="quiet")] if more > 0 else []
    return html.Div([html.Ul(items, className="alerts"), *rest])


def _entry(one: Alert, now: datetime, *, operates: bool) -> Component:
    way = opener(one.summary, "alert", id=one.id)
    when = [severity(one, now), *tags(one, now), html.Span(_when(one, now), title=exact(one.opened_at)), owner(one)]
    drove = one.data.get("driver")
    body = [
        html.H3(way),
        html.P(html.Bdi(drove), className="why") if isinstance(drove, str) and drove else None,
        html.Div(when, className="when"),
        acts(one, now) if operates and one.is_open else None,
    ]
    return html.Li(body, className=tone(one, now), key=one.id)


def tone(one: Alert, now: datetime) -> str:
    """The class that colours an alert."""
    if not one.is_open:
        return "resolved"
    return "info" if one.is_snoozed(now) else one.severity


def severity(one: Alert, now: datetime) -> Component:
    """How urgent it is, or that it is over, in a word of its colour."""
    words = SEVERITIES[one.severity] if one.is_open else "Resolved"
    return html.Span(words, className=f"severity {tone(one, now)}")


def tags(one: Alert, now: datetime) -> list[Component]:
    """What has to be known of an alert beside how urgent it is."""
    found: list[Component] = []
    if one.late:
        found.append(
            tag("late", "warn", "Found after its period was over: by late calls, other prices or a correction")
        )
    if one.data.get("incomplete"):
        found.append(tag("incomplete", "warn", "Calls without a price or without usage are in no sum: it may be more"))
    if not one.told:
        found.append(tag("nobody was told", "plain", "Its rule was muted when it fired: it is in the inbox alone"))
    if one.state == "acknowledged":
        found.append(tag(["seen by ", html.Bdi(one.acknowledged_by or "somebody")], "plain", "Somebody sees to it"))
    if one.is_snoozed(now) and one.snoozed_until is not None:
        found.append(tag(f"snoozed until {fmt.moment(one.snoozed_until)}", "plain", "It comes back then"))
    if one.reason is not None:
        why = one.data.get("reason_text")
        words = why if isinstance(why, str) and why else REASONS[one.reason]
        if words not in one.summary:
            found.append(tag(html.Bdi(words), "good", "Why it is over"))
    return found


def owner(one: Alert) -> Component | None:
    """Who answers for the budget that it is about."""
    told = one.data.get("budget")
    name = told.get("owner") if isinstance(told, dict) else None
    return html.Span(["owner ", html.Bdi(name)]) if isinstance(name, str) and name else None


def acts(one: Alert, now: datetime, *, wide: bool = False) -> Component:
    """What an operator can do about an alert that is open."""
    buttons: list[Component] = []
    look = "button" if wide else SMALL
    if one.state == "firing":
        seen = f"{look} primary" if wide else look
        buttons.append(button("Acknowledge", "acknowledge", className=seen, id=one.id))
    if one.is_snoozed(now):
        buttons.append(button("Wake", "wake", className=look, id=one.id))
    else:
        until = [button(words, "snooze", id=one.id, hours=hours) for hours, words in SNOOZES]
        means = "The inbox leaves it out until then. It fires on meanwhile."
        buttons.append(confirm([icon("clock"), "Snooze"], means, [html.Div(until, className="choices")], look))
    over = button("Resolve it", "resolve", id=one.id)
    means = (
        "Endpoints that were told of it are told that it is over. It fires again once it has fallen below and crossed."
    )
    buttons.append(confirm("Resolve", means, [over], look))
    return html.Div(buttons, className="acts")


def _when(one: Alert, now: datetime) -> str:
    if one.resolved_at is not None:
        return f"over since {ago(one.resolved_at, now)}"
    return f"fired {ago(one.opened_at, now)}"
