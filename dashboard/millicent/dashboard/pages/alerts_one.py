"""One alert: its numbers, what drove it, what happened to it since, and whether those who should know were told."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, link
from millicent.dashboard.pages.alerts_endpoints import deliveries, happened
from millicent.dashboard.pages.alerts_inbox import acts, severity, tags
from millicent.dashboard.pages.alerts_parts import ago, exact, opener
from millicent.dashboard.pages.alerts_rules import sentence
from millicent.dashboard.state import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.alerts import Alert, Happening
    from millicent.warehouse.delivery_log import Delivery

Data = dict[str, Any]

WHAT: Final = {
    "fired": "Fired", "cleared": "Cleared", "resolved": "Resolved", "resolve": "Resolved",
    "acknowledge": "Acknowledged", "snooze": "Snoozed",
}  # fmt: skip
MOST_DRIVERS: Final = 5
AT_ONCE: Final = timedelta(minutes=1)


def opened(
    one: Alert, rule: Rule | None, life: Sequence[Happening], log: Sequence[Delivery], now: datetime, *, operates: bool
) -> list[Component]:
    """Everything about an alert.

    Args:
        one: the alert.
        rule: what it is an alert of, ended or not.
        life: what happened to it, oldest first.
        log: what was sent because of it, newest first.
        now: the clock.
        operates: whether whoever looks may change what becomes of it.
    """
    drove = told(one.data, "driver")
    parts = [
        html.Div([severity(one, now), *tags(one, now)], className="when"),
        html.P(html.Bdi(drove), className="lead") if drove else None,
        _incomplete(one.data),
        acts(one, now, wide=True) if operates and one.is_open else None,
        _figures(one.data),
        _facts(one, rule, now),
        _drivers(one.data),
        _section("What happened", _life(one, life, now)),
        _section("Who was told", _sent(one, log, now, operates=operates)),
        _raw(one.data),
    ]
    return [part for part in parts if part is not None]


def told(data: Mapping[str, Any], *path: str) -> str | None:
    """A text of what an event told, by the names on the way to it; None where there is none."""
    at: Any = data
    for name in path:
        at = at.get(name) if isinstance(at, dict) else None
    return at if isinstance(at, str) and at else None


def number(data: Mapping[str, Any], *path: str) -> Decimal | None:
    """A number of what an event told, which stands there as text."""
    text = told(data, *path)
    try:
        value = Decimal(text) if text else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def _instant(data: Data, name: str) -> datetime | None:
    """An instant or a day of what an event told."""
    try:
        return datetime.fromisoformat(told(data, name) or "")
    except ValueError:
        return None


def _incomplete(data: Data) -> Component | None:
    why = data.get("incomplete")
    if not why:
        return None
    words = ", ".join(str(one).replace("_", " ") for one in why) if isinstance(why, list) else ""
    said = f" ({words})" if words else ""
    return html.P(f"Not all of it is known{said}: it may be more, and it is not taken back meanwhile.",
                  className="banner")  # fmt: skip


def _figures(data: Data) -> Component | None:
    limit, actual, forecast = number(data, "limit"), number(data, "actual"), number(data, "forecast", "p50")
    boxes = [(name, value) for name, value in (("Spent", actual), ("Limit", limit), ("Forecast", forecast))
             if value is not None]  # fmt: skip
    if len(boxes) < 2:
        return None
    costs = html.Dl(
        [html.Div([html.Dt(name), html.Dd(fmt.usd(value), title=fmt.usd_exact(value)), _share(name, value, limit)])
         for name, value in boxes],
        className="costs",
    )  # fmt: skip
    return html.Div([costs, _bar(actual, forecast, limit)])


def _share(name: str, value: Decimal, limit: Decimal | None) -> Component | None:
    if name == "Limit" or not limit:
        return None
    return html.Dd(f"{fmt.percent(value / limit)} of it", className="pays")


def _bar(actual: Decimal | None, forecast: Decimal | None, limit: Decimal | None) -> Component | None:
    """What was spent and what is expected, on a scale that has the limit on it."""
    if actual is None or not limit:
        return None
    whole = max(limit, actual, forecast or actual)
    spent, expected = actual / whole, max((forecast or actual) - actual, Decimal(0)) / whole
    over = "over" if actual >= limit else ""
    words = f"{fmt.percent(actual / limit)} of the limit spent"
    return html.Div(
        [html.I(className=f"spent {over}", style={"width": f"{spent:.2%}"}),
         html.I(className="expected", style={"width": f"{expected:.2%}"}),
         html.I(className="limit", style={"left": f"{limit / whole:.2%}"}, title="Limit")],
        className="against", role="img", **aria(label=words),
    )  # fmt: skip


def _facts(one: Alert, rule: Rule | None, now: datetime) -> Component:
    data, facts = one.data, list[tuple[str, Any]]()
    name = told(data, "budget", "name")
    if one.budget is not None:
        href = f"/budgets?v={VERSION}&budget={one.budget}"
        facts.append(("Budget", link(html.Bdi(name or f"budget {one.budget}"), href, className="there")))
    if rule is not None:
        says = sentence(rule, told(data, "currency") or "USD")
        facts.append(("Rule", says if rule.ended else opener(says, "rule", "there", id=rule.id)))
    if one.period_start is not None and one.period_end is not None:
        facts.append(("Period", fmt.span(one.period_start, one.period_end)))
    facts.append(("Fired", html.Span(f"{fmt.moment(one.opened_at)}, {ago(one.opened_at, now)}",
                                     title=exact(one.opened_at))))  # fmt: skip
    if owner := told(data, "budget", "owner"):
        facts.append(("Owner", html.Bdi(owner)))
    if runs_out := _instant(data, "run_out_date"):
        facts.append(("Runs out", f"{runs_out.day} {runs_out:%b %Y}"))
    if through := _instant(data, "data_complete_through"):
        facts.append(("Complete", html.Span(f"through {fmt.moment(through)}", title=exact(through))))
    return html.Dl([html.Div([html.Dt(title), html.Dd(value)]) for title, value in facts], className="facts single")


def _drivers(data: Data) -> Component | None:
    found = data.get("top_drivers")
    rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if not rows:
        return None
    body = [_driver(one) for one in rows[:MOST_DRIVERS]]
    heads = html.Thead(html.Tr([html.Th(words, scope="col") for words in ("What", "Change", "")]))
    table = html.Table([heads, html.Tbody(body)], className="figures dated drivers-of")
    return _section("What drove it", table)


def _driver(one: Data) -> Component:
    dimension, value = told(one, "dimension") or "", told(one, "value")
    amount, ratio = number(one, "delta_amount"), number(one, "delta_ratio")
    moved = fmt.usd_change(amount) if amount is not None else fmt.UNKNOWN
    share = f"{'+' if ratio > 0 else ''}{fmt.percent(ratio, 0)}" if ratio is not None else "new"
    reason = told(one, "reason")
    what = [html.Bdi(label(dimension, value)), html.Small(dimension.replace("_", " "))]
    return html.Tr(
        [html.Th(what, scope="row"), html.Td([moved, html.Small(share)], title=fmt.usd_exact(amount)),
         html.Td(html.Bdi(reason) if reason else "", className="from")]
    )  # fmt: skip


def _life(alert: Alert, life: Sequence[Happening], now: datetime) -> Component:
    if not life:
        return html.P("Nothing yet.", className="quiet")
    items = []
    for one in life:
        words: list[Component] = [html.B(WHAT.get(one.what, one.what.capitalize()))]
        words += [html.Span([" by ", html.Bdi(one.who)])] if one.who else []
        said = _until(one) if one.what == "snooze" else one.words if one.words != alert.summary else ""
        items.append(html.Li(
            [html.Time(fmt.moment(one.at), dateTime=one.at.isoformat(), title=f"{exact(one.at)}, {ago(one.at, now)}"),
             html.Div([html.P(words), html.P(html.Bdi(said), className="why") if said else None])],
            className=one.what,
        ))  # fmt: skip
    return html.Ol(items, className="life")


def _until(one: Happening) -> str:
    """Until when somebody put an alert off; not after when they took it back."""
    try:
        until = datetime.fromisoformat(one.words)
    except ValueError:
        return one.words
    return f"until {fmt.moment(until)}" if until > one.at + AT_ONCE else "taken back"


def _sent(one: Alert, log: Sequence[Delivery], now: datetime, *, operates: bool) -> Component:
    if not log:
        words = (
            "Nobody: there was no endpoint that wants it." if one.told else "Nobody: its rule was muted when it fired."
        )
        return html.P(words, className="quiet")
    groups: list[Component] = []
    for event in dict.fromkeys(delivery.event for delivery in log):
        mine = [delivery for delivery in log if delivery.event == event]
        head = [html.B(happened(mine[0].type)), html.Small(fmt.moment(mine[0].occurred_at)), html.Code(event)]
        groups += [html.P(head, className="event"), deliveries(mine, now, operates=operates, by="endpoint")]
    return html.Div(groups)


def _raw(data: Data) -> Component:
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return html.Details([html.Summary("What the last event told, as JSON"), html.Pre(text)], className="more raw")


def _section(title: str, body: Component) -> Component:
    return html.Div([html.H3(title), body])
