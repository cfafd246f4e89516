"""Alerts: what was found to have crossed the threshold of a rule, once for each rule, scope and period.

An alert fires, may be acknowledged or put off by somebody, and is resolved: because what it tells is no longer so,
because its period is over, or by hand. Putting it off or muting its rule changes who hears of it, never its state.
What is written here commits with the event that tells of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    String,
    Table,
    and_,
    column,
    func,
    insert,
    or_,
    select,
    table,
    update,
)  # fmt: skip

from millicent.warehouse import outbox
from millicent.warehouse.alert_rules import stored
from millicent.warehouse.delivery_tables import events
from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.alert_rules import Kind, Severity
    from millicent.warehouse.control import Change, Control

State = Literal["firing", "acknowledged", "resolved"]
Reason = Literal[
    "repriced", "corrected", "fell", "in_line", "period_over", "budget_changed", "rule_changed", "budget_ended",
    "rule_ended", "person",
]  # fmt: skip
REASONS: Final[dict[Reason, str]] = {
    "repriced": "calls were priced again",
    "corrected": "late data, a charge or a credit brought it down",
    "fell": "it is back below its threshold",
    "in_line": "the day after was in line again",
    "period_over": "its period is over",
    "budget_changed": "the budget was changed",
    "rule_changed": "the rule was changed",
    "budget_ended": "the budget has ended",
    "rule_ended": "the rule has ended",
    "person": "somebody resolved it",
}
"""Why an alert is resolved."""
EVENTS: Final[dict[Kind, tuple[str, str]]] = {
    "actual": ("budget.threshold.crossed", "budget.threshold.cleared"),
    "forecast": ("budget.forecast.exceeded", "budget.forecast.cleared"),
    "burn_rate": ("budget.burn_rate.exceeded", "budget.burn_rate.cleared"),
    "anomaly": ("cost.anomaly.opened", "cost.anomaly.closed"),
    "unit_cost": ("unit_cost.threshold.crossed", "unit_cost.threshold.cleared"),
    "freshness": ("data.freshness.stale", "data.freshness.recovered"),
    "unpriced": ("pricing.unpriced_usage.detected", "pricing.unpriced_usage.cleared"),
}
"""Type of the event that tells of an alert of each kind, and of the one that takes it back."""
MOST: Final = 200
"""Alerts on a page of the inbox."""
LONGEST_SNOOZE: Final = timedelta(days=31)
ACTIONS: Final = ("alert.acknowledge", "alert.snooze", "alert.resolve")
"""What somebody does to an alert, as the audit log calls it."""

alerts: Final = Table(
    "alerts", metadata,
    Column("id", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("rule", Integer, nullable=False), Column("budget", Integer), Column("scope", String, nullable=False),
    Column("period_start", Instant), Column("period_end", Instant), Column("dedup_key", String, nullable=False),
    Column("state", String, nullable=False), Column("severity", String, nullable=False),
    Column("late", Boolean, nullable=False), Column("told", Boolean, nullable=False),
    Column("opened_at", Instant, nullable=False), Column("changed_at", Instant, nullable=False),
    Column("acknowledged_at", Instant), Column("acknowledged_by", String), Column("snoozed_until", Instant),
    Column("resolved_at", Instant), Column("reason", String), Column("summary", String, nullable=False),
    Column("data", JSON, nullable=False),
)  # fmt: skip


class BadAlertError(ValueError):
    """Something that cannot be done to an alert; the message names it, the rule and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What was found. Instants are UTC.

    Attributes:
        id: `al_` and 32 hex digits.
        rule: id of its rule.
        budget: id of the budget that it is about, if any.
        scope: what spend it is about: `budget:7`, `all`, or filters as text.
        period_start: of the period that it is about, with `period_end`; None where it is about no period.
        dedup_key: the same for all that one rule finds of one scope and period.
        state: whether anybody has seen to it, and whether it is over.
        late: whether it was found an hour or more after its period was over, or an odd day after one in line.
        told: whether endpoints were told of it; what was found while its rule was muted is in the inbox alone.
        acknowledged_by: who has seen to it.
        snoozed_until: until then the inbox leaves it out, unless asked.
        reason: why it is resolved; see `REASONS`.
        summary: one line of text.
        data: as the last event told it; see the reference of events.
    """

    id: str
    rule: int
    budget: int | None
    scope: str
    period_start: datetime | None
    period_end: datetime | None
    dedup_key: str
    state: State
    severity: Severity
    late: bool
    told: bool
    opened_at: datetime
    changed_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    snoozed_until: datetime | None = None
    resolved_at: datetime | None = None
    reason: Reason | None = None
    summary: str
    data: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether it is not resolved."""
        return self.state != "resolved"

    def is_snoozed(self, at: datetime) -> bool:
        """Whether somebody has put it off until after an instant."""
        return self.is_open and self.snoozed_until is not None and at < self.snoozed_until


AUDIT: Final = table(
    "audit", column("at", Instant), column("tenant"), column("actor"), column("action"), column("detail", JSON)
)


@dataclass(frozen=True, slots=True)
class Happening:
    """Something in the life of an alert: when, what (`fired`, `cleared`, `acknowledge`, `snooze`, `resolve`), by whom.

    `event` is the id of the event that told of it, if one did.
    """

    at: datetime
    what: str
    who: str | None
    words: str
    event: str | None = None


def inbox(
    control: Control, tenant: str, *, states: Collection[State] = (), rule: int | None = None,
    budget: int | None = None, awake_at: datetime | None = None, limit: int = 50, cursor: str | None = None,
) -> tuple[list[Alert], str | None]:  # fmt: skip
    """Alerts of a tenant, the newest first, and a cursor to what follows.

    Args:
        control: the control plane.
        tenant: whose.
        states: those that are wanted; none: all.
        rule: id of a rule whose alerts alone are wanted.
        budget: id of a budget, likewise.
        awake_at: leave out what is snoozed at that instant.
        limit: 1 to 200.
        cursor: as it was given with the page before.

    Raises:
        BadAlertError: a state, the limit or the cursor cannot be.
    """
    _check_page(states, limit)
    c, asked = alerts.c, select(alerts).where(alerts.c.tenant == tenant)
    if states:
        asked = asked.where(c.state.in_(states))
    if rule is not None:
        asked = asked.where(c.rule == rule)
    if budget is not None:
        asked = asked.where(c.budget == budget)
    if awake_at is not None:
        asked = asked.where(or_(c.state == "resolved", c.snoozed_until.is_(None), c.snoozed_until <= awake_at))
    if cursor is not None:
        at, alert_id = _after(cursor)
        asked = asked.where(or_(c.opened_at < at, and_(c.opened_at == at, c.id < alert_id)))
    asked = asked.order_by(c.opened_at.desc(), c.id.desc()).limit(limit + 1)
    with control.begin() as connection:
        listed = [_alert(dict(row)) for row in connection.execute(asked).mappings()]
    return listed[:limit], _cursor(listed[limit - 1]) if len(listed) > limit else None


def find(control: Control, tenant: str, alert_id: str) -> Alert | None:
    """One alert."""
    with control.begin() as connection:
        return found(connection, tenant, alert_id)


def open_count(control: Control, tenant: str, at: datetime) -> int:
    """How many alerts nobody has seen to: firing, and not snoozed at an instant."""
    c = alerts.c
    awake = or_(c.snoozed_until.is_(None), c.snoozed_until <= at)
    asked = select(func.count()).where(c.tenant == tenant, c.state == "firing", awake)
    with control.begin() as connection:
        return int(connection.execute(asked).scalar_one())


def happenings(control: Control, tenant: str, alert_id: str) -> list[Happening]:
    """The life of an alert, oldest first."""
    e, a = events.c, AUDIT.c
    told = select(e.id, e.type, e.occurred_at, e.body).where(e.tenant == tenant, e.alert == alert_id)
    done = select(a.at, a.actor, a.action, a.detail).where(
        a.tenant == tenant, a.action.in_(ACTIONS), a.detail["alert"].as_string() == alert_id
    )
    taken_back = {cleared for _, cleared in EVENTS.values()}
    with control.begin() as connection:
        life = [
            Happening(row.occurred_at, "cleared" if row.type in taken_back else "fired", None,
                      str(json.loads(row.body)["data"].get("summary", "")), row.id)
            for row in connection.execute(told)
        ]  # fmt: skip
        life += [
            Happening(row.at, row.action.partition(".")[2], row.actor, str(row.detail.get("until") or ""))
            for row in connection.execute(done)
        ]
    return sorted(life, key=lambda one: one.at)


def acknowledge(control: Control, tenant: str, alert_id: str, actor: str) -> Alert:
    """Note that somebody sees to an alert; one that is acknowledged stays so.

    Raises:
        BadAlertError: there is no such alert, or it is resolved.
    """
    with control.change(tenant, actor) as change:
        alert = _open(change, alert_id)
        if alert.state == "acknowledged":
            return alert
        now = datetime.now(UTC)
        seen = replace(alert, state="acknowledged", acknowledged_at=now, acknowledged_by=actor, changed_at=now)
        return _changed(change, seen, "alert.acknowledge")


def snooze(control: Control, tenant: str, alert_id: str, until: datetime, actor: str) -> Alert:
    """Have the inbox leave an alert out until an instant, at most 31 days ahead; one in the past brings it back.

    Raises:
        BadAlertError: there is no such alert, it is resolved, or the instant cannot be.
    """
    now = datetime.now(UTC)
    if until.tzinfo is None:
        raise BadAlertError(f"until {until.isoformat()} has no time zone: add Z for UTC or an offset")
    if until > now + LONGEST_SNOOZE:
        raise BadAlertError(
            f"until {until.isoformat()} is over {LONGEST_SNOOZE.days} days ahead: mute its rule instead"
        )
    with control.change(tenant, actor) as change:
        alert = replace(_open(change, alert_id), snoozed_until=until.astimezone(UTC), changed_at=now)
        return _changed(change, alert, "alert.snooze", until=until.astimezone(UTC).isoformat())


def resolve(control: Control, tenant: str, alert_id: str, actor: str) -> Alert:
    """Have an alert be over, whatever it tells; endpoints that were told of it are told so.

    It is not found again for the same rule, scope and period until it has re-armed.

    Raises:
        BadAlertError: there is no such alert, or it is resolved.
    """
    now = datetime.now(UTC)
    with control.change(tenant, actor) as change:
        alert = _open(change, alert_id)
        rule = next((one for one in stored(change.connection, tenant) if one.id == alert.rule), None)
        kind, endpoints = (rule.kind, rule.endpoints) if rule else ("actual", ())
        told = {**alert.data, "status": "resolved", "reason": "person", "reason_text": f"{actor} resolved it"}
        over = clear(change.connection, tenant, alert, kind, "person", told, now, endpoints)
        change.record("alert.resolve", {"alert": alert_id})
        return over


def fire(connection: Connection, tenant: str, alert: Alert, kind: Kind, endpoints: Collection[str]) -> str:
    """Store a new alert with the event that tells of it; returns the event's id.

    One that is open of the same rule, scope and period must be resolved before.
    """
    connection.execute(insert(alerts).values(tenant=tenant, **_row(alert)))
    crossed, _ = EVENTS[kind]
    return outbox.emit(
        connection, tenant, crossed, alert.opened_at, alert.data, alert=alert.id, endpoints=endpoints,
        silent=not alert.told,
    )  # fmt: skip


def clear(
    connection: Connection, tenant: str, alert: Alert, kind: Kind, reason: Reason, data: Mapping[str, Any],
    at: datetime, endpoints: Collection[str], *, heard: bool = True,
) -> Alert:  # fmt: skip
    """Have an alert be over, with the event that tells so; who was not told of it is not told of its end.

    Args:
        connection: of the transaction in which it is over.
        tenant: whose.
        alert: the alert, resolved as its period was over, or open.
        kind: of its rule.
        reason: why it is over.
        data: what the event tells; its `summary` becomes that of the alert.
        at: since when.
        endpoints: ids of those to tell; none: all.
        heard: False where what follows at once is told instead.
    """
    over = replace(
        alert, state="resolved", reason=reason, resolved_at=at, changed_at=at, data=dict(data),
        summary=str(data.get("summary", alert.summary)),
    )  # fmt: skip
    _store(connection, tenant, over)
    if heard:
        _, cleared = EVENTS[kind]
        outbox.emit(
            connection, tenant, cleared, at, data, alert=alert.id, endpoints=endpoints, silent=not alert.told
        )  # fmt: skip
    return over


def latest(connection: Connection, tenant: str, since: datetime) -> dict[tuple[int, str, datetime | None], Alert]:
    """By rule, scope and start of the period the newest alert: all that are open, and those of periods since then.

    Their `data` is left out.
    """
    c = alerts.c
    columns = [column for column in c if column.name != "data"]
    kept = or_(c.state != "resolved", c.period_end >= since)
    rows = connection.execute(select(*columns).where(c.tenant == tenant, kept)).mappings()
    every = sorted((_alert({**row, "data": {}}) for row in rows), key=lambda one: (one.is_open, one.opened_at))
    return {(one.rule, one.scope, one.period_start): one for one in every}


def found(connection: Connection, tenant: str, alert_id: str) -> Alert | None:
    """One alert, within a transaction."""
    asked = select(alerts).where(alerts.c.tenant == tenant, alerts.c.id == alert_id)
    row = connection.execute(asked).mappings().one_or_none()
    return _alert(dict(row)) if row else None


def open_of(connection: Connection, tenant: str, dedup_key: str) -> Alert | None:
    """The alert of a key that is open."""
    c = alerts.c
    asked = select(alerts).where(c.tenant == tenant, c.dedup_key == dedup_key, c.state != "resolved")
    row = connection.execute(asked).mappings().one_or_none()
    return _alert(dict(row)) if row else None


def tenants_with_open(connection: Connection) -> list[str]:
    """Tenants that have an open alert."""
    return list(connection.execute(select(alerts.c.tenant).where(alerts.c.state != "resolved").distinct()).scalars())


def _check_page(states: Collection[State], limit: int) -> None:
    for state in states:
        if state not in get_args(State):
            raise BadAlertError(f"state {state!r} is unknown: write {', '.join(get_args(State))}")
    if not 1 <= limit <= MOST:
        raise BadAlertError(f"limit {limit} is outside 1 to {MOST}: ask for fewer, and go on by the cursor")


def _open(change: Change, alert_id: str) -> Alert:
    """An open alert, which nobody else changes until the transaction ends."""
    change.connection.exec_driver_sql("BEGIN IMMEDIATE")
    alert = found(change.connection, change.tenant, alert_id)
    if alert is None:
        raise BadAlertError(f"there is no alert {alert_id[:40]!r}: see `millicent alerts list`")
    if not alert.is_open:
        raise BadAlertError(f"alert {alert_id} is resolved since {alert.resolved_at:%Y-%m-%d %H:%M} UTC: leave it so")
    return alert


def _changed(change: Change, alert: Alert, action: str, **detail: str) -> Alert:
    _store(change.connection, change.tenant, alert)
    change.record(action, {"alert": alert.id, **detail})
    return alert


def _store(connection: Connection, tenant: str, alert: Alert) -> None:
    mine = (alerts.c.tenant == tenant) & (alerts.c.id == alert.id)
    connection.execute(update(alerts).where(mine).values(_row(alert)))


def _row(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in _COLUMNS}


def _alert(row: dict[str, Any]) -> Alert:
    return Alert(**{name: row[name] for name in _COLUMNS})


def _cursor(last: Alert) -> str:
    return base64.urlsafe_b64encode(f"{last.opened_at.isoformat()} {last.id}".encode()).decode().rstrip("=")


def _after(cursor: str) -> tuple[datetime, str]:
    try:
        told = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, alert_id = told.split(" ")
        since = datetime.fromisoformat(at)
    except ValueError as error:
        raise BadAlertError(f"cursor {cursor[:40]!r} is none of ours: take `next_cursor` of the page before") from error
    if since.tzinfo is None:
        raise BadAlertError(f"cursor {cursor[:40]!r} is none of ours: take `next_cursor` of the page before")
    return since, alert_id


_COLUMNS: Final = tuple(column.name for column in alerts.c if column.name != "tenant")
