"""The delivery log: what was sent where, every attempt and its answer, and how each endpoint is doing."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, and_, case, func, select

from millicent.warehouse import delivery_tables as tables
from millicent.warehouse import endpoints as known
from millicent.warehouse.endpoints import Endpoint
from millicent.warehouse.instants import text_of
from millicent.warehouse.outbox import UNDER_WAY, Event, State

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

MOST: Final = 200
"""Deliveries on a page of the log."""
_events, _deliveries, _attempts, _endpoints = tables.events, tables.deliveries, tables.attempts, tables.endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to deliver: when, what was answered or why nothing was, and how long it took.

    Attributes:
        at: when it began.
        status: what was answered; None where nothing was.
        error: why it counts as failed although, or because, there is no status for that.
        took_ms: how long it took; 0 where that is not known.
        answer: how the body that came back begins.
    """

    at: datetime
    status: int | None
    error: str | None
    took_ms: int
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of one event at one endpoint.

    Attributes:
        id: number of it.
        event: id of the event, the same at every endpoint and on every attempt.
        type: of the event.
        occurred_at: when it happened.
        alert: id of the alert that it is about.
        endpoint: id.
        endpoint_name: its name.
        state: pending, delivered, or dead: given up.
        tries: attempts that failed, since it was last asked for.
        next_at: when it is tried next.
        created_at: when it was first asked for.
        ended_at: when it was delivered or given up.
        attempts: every one, oldest first.
    """

    id: int
    event: str
    type: str
    occurred_at: datetime
    alert: str | None
    endpoint: str
    endpoint_name: str
    state: State
    tries: int
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How an endpoint is doing.

    Attributes:
        endpoint: which one.
        last_success_at: when something arrived last.
        failing_since: when the first attempt failed since something arrived; None while it is well.
        last_error: why the last attempt failed; None while it is well.
        pending: deliveries that wait.
        oldest_pending_at: since when the oldest of them does.
        dead: deliveries that were given up.
    """

    endpoint: Endpoint
    last_success_at: datetime | None = None
    failing_since: datetime | None = None
    last_error: str | None = None
    pending: int = 0
    oldest_pending_at: datetime | None = None
    dead: int = 0

    @property
    def state(self) -> str:
        """One word: disabled, failing, ok, or unused."""
        if not self.endpoint.enabled:
            return "disabled"
        if self.failing_since is not None:
            return "failing"
        return "ok" if self.last_success_at is not None else "unused"


def log(
    control: Control, tenant: str, *, endpoint: str | None = None, event: str | None = None, alert: str | None = None,
    state: State | None = None, before: int | None = None, limit: int = 50,
) -> list[Delivery]:  # fmt: skip
    """Deliveries with their attempts, newest first; `before` is the number of the last one of the page before."""
    d, v = _deliveries.c, _events.c
    asked = _select().where(d.tenant == tenant).order_by(d.id.desc()).limit(min(limit, MOST))
    wanted = ((d.endpoint, endpoint), (d.event, event), (v.alert, alert), (d.state, state))
    asked = asked.where(*(column == value for column, value in wanted if value is not None))
    if before is not None:
        asked = asked.where(d.id < before)
    with control.begin() as connection:
        rows = [dict(row) for row in connection.execute(asked).mappings()]
        tried = _attempts_of(connection, [row["id"] for row in rows])
    return [Delivery(**row, attempts=tuple(tried[row["id"]])) for row in rows]


def find(control: Control, tenant: str, delivery: int) -> Delivery | None:
    """A delivery by its number."""
    asked = _select().where(_deliveries.c.tenant == tenant, _deliveries.c.id == delivery)
    with control.begin() as connection:
        row = connection.execute(asked).mappings().one_or_none()
        return Delivery(**row, attempts=tuple(_attempts_of(connection, [delivery])[delivery])) if row else None


def event(control: Control, tenant: str, event_id: str) -> Event | None:
    """An event by its id."""
    asked = select(_events).where(_events.c.tenant == tenant, _events.c.id == event_id)
    with control.begin() as connection:
        row = connection.execute(asked).mappings().one_or_none()
    return Event(**row) if row else None


def happened(
    control: Control, tenant: str, *, alert: str | None = None, type_: str | None = None, limit: int = 50
) -> list[Event]:
    """Events, newest first; those of one alert, or of one type."""
    v = _events.c
    asked = select(_events).where(v.tenant == tenant).order_by(v.occurred_at.desc(), v.id).limit(limit)
    asked = asked.where(
        *(column == value for column, value in ((v.alert, alert), (v.type, type_)) if value is not None)
    )
    with control.begin() as connection:
        return [Event(**row) for row in connection.execute(asked).mappings()]


def health(control: Control, tenant: str) -> list[Health]:
    """How every endpoint that has not ended is doing, by name."""
    d, a = _deliveries.c, _attempts.c
    counted = (
        select(
            d.endpoint,
            func.count(case((d.state == "pending", 1))).label("pending"),
            func.count(case((d.state == "dead", 1))).label("dead"),
            func.min(case((d.state == "pending", d.created_at))).label("oldest_pending_at"),
        )
        .where(d.tenant == tenant)
        .group_by(d.endpoint)
    )
    arrived = (a.error.is_(None)) & (a.status >= 200) & (a.status < 300)
    reached = (
        select(d.endpoint, func.max(a.at).label("at"))
        .join_from(_attempts, _deliveries, a.delivery == d.id)
        .where(d.tenant == tenant, arrived)
        .group_by(d.endpoint)
        .subquery()
    )
    missed = ~arrived & (func.coalesce(a.error, "") != UNDER_WAY)
    failed = (
        select(d.endpoint, func.min(a.at).label("first"), func.max(a.id).label("last"))
        .join_from(_attempts, _deliveries, a.delivery == d.id)
        .join(reached, reached.c.endpoint == d.endpoint, isouter=True)
        .where(d.tenant == tenant, missed, (reached.c.at.is_(None)) | (a.at > reached.c.at))
        .group_by(d.endpoint)
        .subquery()
    )
    why = select(failed.c.endpoint, failed.c.first, a.status, a.error).join_from(
        failed, _attempts, a.id == failed.c.last
    )
    told: dict[str, dict[str, Any]] = defaultdict(dict)
    with control.begin() as connection:
        for row in connection.execute(counted).mappings():
            told[row["endpoint"]] |= {name: row[name] for name in ("pending", "dead", "oldest_pending_at")}
        for one in connection.execute(select(reached)).all():
            told[one.endpoint]["last_success_at"] = one.at
        for bad in connection.execute(why).all():
            error = bad.error or f"it answered {bad.status}"
            told[bad.endpoint] |= {"failing_since": bad.first, "last_error": error}
    return [Health(endpoint=one, **told[one.id]) for one in known.listed(control, tenant)]


@dataclass(frozen=True, slots=True)
class Totals:
    """Deliveries of all tenants by state, attempts by outcome, and since when the oldest delivery waits.

    An attempt arrived, failed, or is unknown: it is under way, or its process ended. What waits for an endpoint that is
    not enabled is not waited for.
    """

    by_state: dict[State, int]
    attempts: dict[str, int]
    oldest_pending_at: datetime | None


def totals(control: Control) -> Totals:
    """Figures for `/metrics`."""
    d, a, e = _deliveries.c, _attempts.c, _endpoints.c
    arrived = and_(a.error.is_(None), a.status >= 200, a.status < 300)
    outcome = case((arrived, "arrived"), (a.error == UNDER_WAY, "unknown"), else_="failed")
    waits = (
        select(func.min(d.created_at))
        .join_from(_deliveries, _endpoints, d.endpoint == e.id)
        .where(d.state == "pending", e.enabled)
    )
    with control.begin() as connection:
        states = {row[0]: int(row[1]) for row in connection.execute(select(d.state, func.count()).group_by(d.state))}
        tried = {row[0]: int(row[1]) for row in connection.execute(select(outcome, func.count()).group_by(outcome))}
        return Totals(states, tried, connection.execute(waits).scalar_one())


def written_health(one: Health) -> dict[str, Any]:
    """An endpoint and how it is doing, as JSON."""
    return {
        **known.written(one.endpoint), "state": one.state, "last_success_at": text_of(one.last_success_at),
        "failing_since": text_of(one.failing_since), "last_error": one.last_error, "pending": one.pending,
        "oldest_pending_at": text_of(one.oldest_pending_at), "dead": one.dead,
    }  # fmt: skip


def written_event(one: Event) -> dict[str, Any]:
    """An event as JSON: its id, the alert that it is about, and what was sent."""
    return {"id": one.id, "alert": one.alert, **json.loads(one.body)}


def _select() -> Any:
    d, v, e = _deliveries.c, _events.c, _endpoints.c
    return (
        select(
            d.id, d.event, v.type, v.occurred_at, v.alert, d.endpoint, e.name.label("endpoint_name"), d.state, d.tries,
            d.next_at, d.created_at, d.ended_at,
        )
        .join_from(_deliveries, _events, d.event == v.id)
        .join(_endpoints, d.endpoint == e.id)
    )  # fmt: skip


def _attempts_of(connection: Connection, ids: Sequence[int]) -> dict[int, list[Attempt]]:
    a = _attempts.c
    asked = select(a.delivery, a.at, a.status, a.error, a.took_ms, a.answer).where(a.delivery.in_(ids)).order_by(a.id)
    found: dict[int, list[Attempt]] = defaultdict(list)
    for row in connection.execute(asked).mappings():
        told = dict(row)
        found[told.pop("delivery")].append(Attempt(**told))
    return found
