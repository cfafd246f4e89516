"""Where alerts are sent: how every endpoint is doing, what was sent to one and what came back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.dashboard import format as fmt
from millicent.dashboard.pages.alerts_forms import KINDS, SECRETS, families_of
from millicent.dashboard.pages.alerts_parts import SMALL, ago, button, confirm, exact, lamp, opener, tag
from millicent.dashboard.pages.prices_forms import entry_field
from millicent.warehouse.control import DECLARED
from millicent.warehouse.endpoints import TEST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.alerts_parts import Tone
    from millicent.warehouse.delivery_log import Attempt, Delivery, Health
    from millicent.warehouse.endpoints import Endpoint

FIRST: Final = 3
"""Attempts of a delivery that are listed before the last ones."""
SOON: Final = timedelta(minutes=1)
MOST: Final = 6
"""Attempts of a delivery that are listed."""


def panel(found: Sequence[Health], now: datetime, *, operates: bool) -> Component:
    """Every endpoint, with how it is doing.

    Args:
        found: by name.
        now: the clock.
        operates: whether whoever looks may change them.
    """
    if not found:
        may = opener("Add an endpoint", "add-endpoint", "button primary") if operates else None
        words = (
            "Alerts come into the inbox alone. An endpoint tells a channel, a pager, a mailbox or a program of yours."
        )
        return html.Div([html.H3("Nobody is told yet"), html.P(words), may], className="calm")
    return html.Ul([_entry(one, now, operates=operates) for one in found], className="endpoints")


def _entry(one: Health, now: datetime, *, operates: bool) -> Component:
    end = one.endpoint
    facts: list[Any] = [KINDS[end.kind][0], html.Bdi(end.shown)]
    counts = []
    if one.pending:
        since = f" since {ago(one.oldest_pending_at, now)}" if one.oldest_pending_at else ""
        counts.append(tag(f"{one.pending:,} waiting{since}", "plain", "Deliveries that are tried again"))
    if one.dead:
        counts.append(tag(f"{one.dead:,} given up", "bad", "Deliveries that did not arrive within three days"))
    test = button("Send a test", "test-endpoint", className=SMALL, id=end.id) if operates and end.enabled else None
    wake = button("Enable", "enable-endpoint", className=f"{SMALL} primary", id=end.id)
    return html.Li(
        [
            html.H3(opener(html.Bdi(end.name), "endpoint", id=end.id)),
            html.P([part for fact in facts for part in (" · ", fact)][1:], className="why"),
            html.Div([state(one, now), *counts], className="when"),
            html.Div(test if end.enabled else wake, className="acts") if operates else None,
        ],
        key=end.id,
    )


def state(one: Health, now: datetime) -> Component:
    """How an endpoint is doing, in words."""
    told: tuple[str, Tone] = ("Nothing sent yet", "muted")
    if one.state == "disabled":
        told = (f"Off: {one.endpoint.reason or 'somebody turned it off'}", "bad")
    elif one.failing_since is not None:
        told = (f"Failing since {ago(one.failing_since, now)}: {one.last_error or 'no answer'}", "bad")
    elif one.last_success_at is not None:
        told = (f"Last delivered {ago(one.last_success_at, now)}", "good")
    return lamp(*told)


def opened(one: Health, log: Sequence[Delivery], now: datetime, *, operates: bool, more: bool) -> list[Component]:
    """One endpoint: its health, what can be done, and its deliveries.

    Args:
        one: what is open.
        log: its deliveries, newest first.
        now: the clock.
        operates: whether whoever looks may change it.
        more: whether there are older ones.
    """
    end = one.endpoint
    told: list[tuple[str, Any]] = [
        ("State", state(one, now)), ("Address", html.Bdi(end.shown)), ("Tells of", families_of(end.types)),
        ("Waiting", f"{one.pending:,}"), ("Given up", f"{one.dead:,}"),
        ("Added", [f"{fmt.day(end.created_at)} {fmt.local(end.created_at):%Y} by ", html.Bdi(end.author)]),
    ]  # fmt: skip
    facts = html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in told], className="facts single")
    parts: list[Component] = [facts]
    if operates and end.author == DECLARED:
        parts.append(html.P("It is declared in millicent.toml, and changed there.", className="quiet"))
    elif operates:
        parts.append(_acts(one))
    parts.append(html.H3("Deliveries"))
    parts.append(deliveries(log, now, operates=operates, by="type"))
    if more:
        parts.append(html.P("Older ones: millicent webhooks deliveries", className="quiet"))
    return parts


def _acts(one: Health) -> Component:
    end = one.endpoint
    told: dict[str, Any] = {"id": end.id}
    again = button(f"Send again what was given up: {one.dead:,}", "replay-dead", **told) if one.dead else None
    test = button("Send a test", "test-endpoint", **told) if end.enabled else None
    flip = (
        confirm("Turn off", "Nothing more is sent. What is not delivered yet waits.",
                [button("Turn it off", "disable-endpoint", **told)], "button")
        if end.enabled
        else button("Enable", "enable-endpoint", className="button primary", **told)
    )  # fmt: skip
    over = button("End the endpoint", "end-endpoint", className="button danger", **told)
    ends = confirm("End", "What waits for it is given up. Its log is kept.", [over], "button")
    return html.Div([test, again, _rotate(end), flip, ends], className="acts wide")


def _rotate(end: Endpoint) -> Component | None:
    if end.kind == "webhook":
        means = "It is given a new secret, shown once. The old one signs for 24 hours more, beside it."
        return confirm(
            "Rotate the secret", means, [button("Make a new secret", "rotate-endpoint", id=end.id)], "button"
        )
    if end.kind not in SECRETS:
        return None
    labels = {"routing_key": "Integration key", "token": "Bearer token", "user": "User", "password": "Password"}
    fields = [entry_field(name, labels[name], {}, shape="text" if name == "user" else "password")
              for name in SECRETS[end.kind]]  # fmt: skip
    kind = dcc.Input(type="hidden", name="kind", value=end.kind)
    form = html.Form([kind, *fields, button("Save", "rotate-endpoint", submit=True, id=end.id)], className="form")
    return confirm("Change the secret", "The old one is forgotten.", [form], "button")


def deliveries(log: Sequence[Delivery], now: datetime, *, operates: bool, by: str) -> Component:
    """Deliveries, each with its attempts.

    Args:
        log: newest first.
        now: the clock.
        operates: whether whoever looks may send one again.
        by: what each is called by: `type` of its event, or `endpoint`.
    """
    if not log:
        return html.P("Nothing was sent.", className="quiet")
    return html.Ul([_delivery(one, now, operates=operates, by=by) for one in log], className="deliveries")


def _delivery(one: Delivery, now: datetime, *, operates: bool, by: str) -> Component:
    if by == "endpoint":
        face: Any = html.Bdi(one.endpoint_name)
    else:
        way = opener(happened(one.type), "alert", "there", id=one.alert) if one.alert else happened(one.type)
        face = [way, html.Small(fmt.moment(one.occurred_at), title=exact(one.occurred_at))]
    may = operates and one.state != "pending"
    again = button("Send again", "replay", className=SMALL, id=str(one.id)) if may else None
    tried = one.attempts
    shown = tried if len(tried) <= MOST else (*tried[:FIRST], *tried[FIRST - MOST :])
    items = [_attempt(attempt) for attempt in shown]
    if len(tried) > MOST:
        items.insert(FIRST, html.Li(f"… {len(tried) - MOST} more …", className="between"))
    return html.Li(
        [
            html.Div([html.Div(face), _came(one, now), again], className="delivery-head"),
            html.Ol(items, className="attempts") if items else None,
        ],
        key=str(one.id),
    )


def _came(one: Delivery, now: datetime) -> Component:
    if one.state == "delivered":
        return lamp("Delivered", "good")
    if one.state == "dead":
        return lamp("Given up", "bad")
    if one.next_at is not None and one.next_at > now:
        return lamp(f"Waits, next try {fmt.moment(one.next_at)}", "warn" if one.attempts else "muted")
    return lamp("On its way" if one.next_at is not None and now - one.next_at < SOON else "Waits", "muted")


def _attempt(one: Attempt) -> Component:
    arrived = one.error is None and one.status is not None and 200 <= one.status < 300
    words = str(one.status) if one.status is not None else "no answer"
    said = [html.Bdi(one.error)] if one.error else [html.Bdi(one.answer)] if one.answer and not arrived else []
    return html.Li(
        [html.Time(f"{fmt.moment(one.at)}:{fmt.local(one.at):%S}", dateTime=one.at.isoformat()),
         html.B(words, className="good" if arrived else "bad"), html.Span(f"{one.took_ms:,} ms"),
         html.Span(said, className="said", title=one.answer or "")]
    )  # fmt: skip


EVENTS: Final = {
    "budget.threshold.crossed": "A threshold was crossed", "budget.threshold.cleared": "It is below it again",
    "budget.forecast.exceeded": "The forecast is too high", "budget.forecast.cleared": "The forecast fell again",
    "budget.burn_rate.exceeded": "Spend runs too fast", "budget.burn_rate.cleared": "Spend is slower again",
    "cost.anomaly.opened": "A day is out of line", "cost.anomaly.closed": "Days are in line again",
    "unit_cost.threshold.crossed": "Tokens cost too much", "unit_cost.threshold.cleared": "Tokens cost less again",
    "data.freshness.stale": "Calls stay away", "data.freshness.recovered": "Calls come again",
    "pricing.unpriced_usage.detected": "Calls have no price", "pricing.unpriced_usage.cleared": "Calls have a price",
    "endpoint.failed": "An endpoint was given up on", "endpoint.recovered": "An endpoint is reached again",
    TEST: "A test",
}  # fmt: skip


def happened(type_: str) -> str:
    """What an event tells, in words."""
    return EVENTS.get(type_, type_)
