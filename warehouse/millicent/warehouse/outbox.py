"""The outbox: what happened is stored with what made it happen, and sent from here until it has arrived.

`emit` writes an event and one delivery for each endpoint that wants it into the transaction of its caller, so that
either both are there or neither is. Whoever sends takes a delivery with a lease, tells what came of it, or is gone, and
the lease runs out: an event arrives at least once, with the same id and the same bytes each time. What happened to one
alert arrives in that order; what happened to different ones in any.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, select, update

from millicent.warehouse import delivery_tables as tables
from millicent.warehouse.endpoint_forms import BadEndpointError
from millicent.warehouse.endpoints import FAILED, RECOVERED, TEST, TYPES
from millicent.warehouse.instants import text_of

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

State = Literal["pending", "delivered", "dead"]
MOST_BYTES: Final = 20_000
"""Of a body, exclusive."""
LEASE: Final = timedelta(seconds=45)
"""How long whoever took a delivery has it for; longer than any attempt takes."""
SCHEDULE: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (0, 5, 300, 1800, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
)
"""How long each attempt waits after the one before, plus up to a tenth of that; after the last it is given up."""
JITTER: Final = 0.1
MOST_WAIT: Final = timedelta(hours=24)
"""That an endpoint may ask for with `Retry-After`."""
THROTTLE: Final = timedelta(seconds=60)
"""How long everything waits for an endpoint that says that it has too much to do."""
GONE: Final = 410
UNDER_WAY: Final = "no outcome is known: it is under way, or its process ended"
"""Error of an attempt until its outcome is stored."""
_BUSY: Final = frozenset({429, 502, 504})
_WHOLE: Final = frozenset({"alert_id", "dedup_key", "links"})
"""Members of `data` that mean nothing once they are shortened."""

_events, _deliveries, _attempts, _endpoints = tables.events, tables.deliveries, tables.attempts, tables.endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `body` is the JSON `{type, timestamp, data}` whose very bytes are signed and sent."""

    id: str
    tenant: str
    type: str
    occurred_at: datetime
    alert: str | None
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A delivery that is its taker's until `leased_until`: send `event` to `endpoint`, then tell `attempted`.

    `tries` are those that failed before.
    """

    delivery: int
    attempt: int
    tenant: str
    endpoint: str
    event: Event
    tries: int
    leased_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt: what was answered, or the `error` that kept it from being so.

    `answer` is how the body that came back begins; `retry_after` is how long the endpoint asks to wait.
    """

    status: int | None = None
    error: str | None = None
    took_ms: int = 0
    answer: str = ""
    retry_after: timedelta | None = None

    @property
    def arrived(self) -> bool:
        """Whether it was taken: any 2xx, and nothing else."""
        return self.error is None and self.status is not None and 200 <= self.status < 300


# ---- what happened


def emit(
    connection: Connection, tenant: str, type_: str, occurred_at: datetime, data: Mapping[str, Any], *,
    alert: str | None = None, endpoints: Collection[str] = (), silent: bool = False,
) -> str:  # fmt: skip
    """Store that something happened, and that it is to be told; both hold once the transaction commits.

    Args:
        connection: of the transaction that also stores why it happened.
        tenant: whose.
        type_: one of `TYPES`.
        occurred_at: when, aware.
        data: JSON; decimals and instants become text. What would be too long is shortened, and says `shortened`.
        alert: id of the alert that it is about.
        endpoints: ids of those to tell; none: all. Only those that want the type are. For one that is not enabled it
            is kept as given up, to be replayed.
        silent: keep it, and tell nobody.

    Returns:
        The event's id, `evt_` and 32 hex digits.

    Raises:
        ValueError: the type is unknown, or the data cannot be JSON.
    """
    if type_ not in TYPES:
        raise ValueError(f"type {type_!r} is unknown: write {', '.join(TYPES)}")
    event = f"evt_{uuid.uuid4().hex}"
    row = {"id": event, "tenant": tenant, "type": type_, "occurred_at": occurred_at, "alert": alert,
           "body": _body(type_, occurred_at, data)}  # fmt: skip
    connection.execute(insert(_events).values(row))
    if silent:
        return event
    c = _endpoints.c
    wanted = select(c.id, c.types, c.enabled).where(c.tenant == tenant, c.ended_at.is_(None)).order_by(c.id)
    now, behind = datetime.now(UTC), _behind(connection, alert)
    for one in connection.execute(wanted).all():
        if (endpoints and one.id not in endpoints) or (one.types and type_ not in one.types and type_ != TEST):
            continue
        begins = max(min(now, occurred_at), behind.get(one.id, occurred_at))
        state = {"state": "pending", "next_at": begins} if one.enabled else {"state": "dead", "ended_at": now}
        delivery = {"tenant": tenant, "event": event, "endpoint": one.id, "tries": 0, "created_at": now, **state}
        connection.execute(insert(_deliveries).values(delivery))
    return event


def _behind(connection: Connection, alert: str | None) -> dict[str, datetime]:
    """Until when what waits of an alert waits, by endpoint: what happened later to it arrives later."""
    d, v = _deliveries.c, _events.c
    if alert is None:
        return {}
    asked = (
        select(d.endpoint, func.max(d.next_at))
        .join_from(_deliveries, _events, d.event == v.id)
        .where(v.alert == alert, d.state == "pending")
        .group_by(d.endpoint)
    )
    return {row[0]: row[1] for row in connection.execute(asked)}


def try_out(control: Control, tenant: str, endpoint: str, actor: str) -> int:
    """Send one endpoint an `endpoint.test`; returns the delivery.

    Raises:
        BadEndpointError: there is no such endpoint, or it is not enabled.
    """
    now = datetime.now(UTC)
    with control.change(tenant, actor) as change:
        c = _endpoints.c
        mine = select(_endpoints).where(c.tenant == tenant, c.id == endpoint, c.ended_at.is_(None))
        found = change.connection.execute(mine).one_or_none()
        if found is None:
            raise BadEndpointError(f"there is no endpoint {endpoint!r}: see `millicent webhooks list`")
        if not found.enabled:
            raise BadEndpointError(f"endpoint {found.name!r} is not enabled ({found.reason}): enable it first")
        told = {"endpoint": {"id": endpoint, "name": found.name}, "severity": "info", "status": "test",
                "summary": f"Millicent can reach {found.name}."}  # fmt: skip
        event = emit(change.connection, tenant, TEST, now, told, endpoints=(endpoint,))
        change.record("endpoint.test", {"id": endpoint, "event": event})
        asked = select(_deliveries.c.id).where(_deliveries.c.event == event)
        return int(change.connection.execute(asked).scalar_one())


# ---- sending it


def waiting(control: Control, now: datetime) -> list[str]:
    """Endpoints for which a delivery is due that nobody has taken, those that wait longest first."""
    d = _deliveries.c
    asked = select(d.endpoint).where(_due(now)).group_by(d.endpoint).order_by(func.min(d.next_at))
    busy = select(d.endpoint).where(d.state == "pending", d.leased_until > now)
    with control.begin() as connection:
        taken = set(connection.execute(busy).scalars())
        return [one for one in connection.execute(asked).scalars() if one not in taken]


def take(control: Control, endpoint: str, now: datetime) -> Taken | None:
    """Take the delivery to an endpoint that has been due longest; None when there is none, or another one is taken.

    However many processes ask, one has it, and no endpoint has two at once.
    """
    d = _deliveries.c
    first = select(d.id).where(d.endpoint == endpoint, _due(now)).order_by(d.next_at, d.id).limit(1).scalar_subquery()
    until = now + LEASE
    claim = update(_deliveries).where(d.id == first, _untaken(now)).values(leased_until=until)
    with control.begin() as connection:
        row = connection.execute(claim.returning(d.id, d.tenant, d.event, d.tries)).one_or_none()
        if row is None:
            return None
        event = connection.execute(select(_events).where(_events.c.id == row.event)).mappings().one()
        begun = {"delivery": row.id, "at": now, "error": UNDER_WAY, "took_ms": 0}
        key = connection.execute(insert(_attempts).values(begun)).inserted_primary_key
    return Taken(
        delivery=row.id, attempt=int(key[0]) if key else 0, tenant=row.tenant, endpoint=endpoint,
        event=Event(**event), tries=row.tries, leased_until=until,
    )  # fmt: skip


def attempted(control: Control, taken: Taken, outcome: Outcome, now: datetime) -> State:
    """Store what came of an attempt; returns what the delivery is now.

    A lease that ran out meanwhile and was taken by another counts no try; that it arrived holds anyway.
    """
    d = _deliveries.c
    told = {"status": outcome.status, "error": outcome.error, "took_ms": outcome.took_ms, "answer": outcome.answer}
    with control.begin() as connection:
        connection.execute(update(_attempts).where(_attempts.c.id == taken.attempt).values(told))
        mine = (d.id == taken.delivery) & (d.state == "pending") & (d.leased_until == taken.leased_until)
        if outcome.arrived:
            done = {"state": "delivered", "ended_at": now, "next_at": None, "leased_until": None}
            open_ = (d.id == taken.delivery) & (d.state != "delivered")
            connection.execute(update(_deliveries).where(open_).values(done))
            if _failing(connection, taken.endpoint):
                _tell_others(connection, taken, RECOVERED, now, "an event arrived again")
            return "delivered"
        after = _after(taken, outcome, now)
        if connection.execute(update(_deliveries).where(mine).values(after)).rowcount == 0:
            return "pending"
        if outcome.status == GONE:
            _give_up(connection, taken, now, "it answered 410 Gone, which says to send nothing more", disable=True)
        elif after["state"] == "dead":
            why = outcome.error or f"it answered {outcome.status}"
            _give_up(connection, taken, now, f"{len(SCHEDULE)} attempts failed, the last because {why}")
        else:
            _hold(connection, taken, after["next_at"])
            _throttle(connection, taken, outcome, now)
    return after["state"]  # type: ignore[no-any-return]


def _after(taken: Taken, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """What a delivery is after an attempt that failed."""
    tries = taken.tries + 1
    if outcome.status == GONE:
        return {"state": "pending", "tries": taken.tries, "next_at": now, "leased_until": None}
    if tries >= len(SCHEDULE):
        return {"state": "dead", "tries": tries, "next_at": None, "leased_until": None, "ended_at": now}
    wait = SCHEDULE[tries] * random.uniform(1, 1 + JITTER)  # noqa: S311 - not a secret
    asked = min(outcome.retry_after or timedelta(), MOST_WAIT)
    return {"state": "pending", "tries": tries, "next_at": now + max(wait, asked), "leased_until": None}


def _hold(connection: Connection, taken: Taken, until: datetime) -> None:
    """Have what happened later to the same alert wait for what happened before."""
    d, v = _deliveries.c, _events.c
    if taken.event.alert is None:
        return
    same = select(v.id).where(v.alert == taken.event.alert, v.tenant == taken.tenant)
    later = and_(d.endpoint == taken.endpoint, d.state == "pending", d.id > taken.delivery, d.next_at < until)
    connection.execute(update(_deliveries).where(later, d.event.in_(same)).values(next_at=until))


def _throttle(connection: Connection, taken: Taken, outcome: Outcome, now: datetime) -> None:
    """Have everything wait for an endpoint that asks for time."""
    if not outcome.retry_after and outcome.status not in _BUSY:
        return
    d, until = _deliveries.c, now + min(outcome.retry_after or THROTTLE, MOST_WAIT)
    sooner = (d.endpoint == taken.endpoint) & (d.state == "pending") & (d.next_at < until) & (d.id != taken.delivery)
    connection.execute(update(_deliveries).where(sooner).values(next_at=until))


def _give_up(connection: Connection, taken: Taken, now: datetime, why: str, *, disable: bool = False) -> None:
    """Tell the others, and the log, that an endpoint is not reached; once until it is again."""
    if disable:
        stop = {"enabled": False, "reason": f"{why} ({now:%Y-%m-%d %H:%M} UTC)"}
        connection.execute(update(_endpoints).where(_endpoints.c.id == taken.endpoint).values(stop))
    if taken.event.type != TEST and not _failing(connection, taken.endpoint):
        _tell_others(connection, taken, FAILED, now, why)


def _failing(connection: Connection, endpoint: str) -> bool:
    """Whether the others were told that an endpoint is given up on, and not yet that it is not."""
    v = _events.c
    told = select(v.type).where(v.alert == endpoint, v.type.in_((FAILED, RECOVERED)))
    return connection.execute(told.order_by(v.occurred_at.desc(), v.type.desc()).limit(1)).scalar() == FAILED


def _tell_others(connection: Connection, taken: Taken, type_: str, now: datetime, why: str) -> None:
    e = _endpoints.c
    mine = connection.execute(select(_endpoints).where(e.id == taken.endpoint)).one()
    others = connection.execute(
        select(e.id).where(e.tenant == taken.tenant, e.id != taken.endpoint, e.enabled, e.ended_at.is_(None))
    )
    status, summary = {
        FAILED: ("firing", f"Events do not reach {mine.name}: {why}. What did not arrive can be replayed."),
        RECOVERED: ("resolved", f"Events reach {mine.name} again. What did not arrive can be replayed."),
    }[type_]
    told = {
        "endpoint": {"id": mine.id, "name": mine.name, "kind": mine.kind, "address": mine.shown},
        "severity": "error", "status": status, "dedup_key": f"endpoint|{mine.id}", "reason": why,
        "event": {"id": taken.event.id, "type": taken.event.type}, "summary": summary,
    }  # fmt: skip
    ids = list(others.scalars())
    emit(connection, taken.tenant, type_, now, told, alert=mine.id, endpoints=ids, silent=not ids)


def _due(now: datetime) -> ColumnElement[bool]:
    """Whether a delivery is to be sent now."""
    d, e = _deliveries.c, _endpoints.c
    reachable = exists().where(e.id == d.endpoint, e.enabled, e.ended_at.is_(None))
    return and_(d.state == "pending", d.next_at <= now, reachable)


def _untaken(now: datetime) -> ColumnElement[bool]:
    """Whether nobody sends anything to the same endpoint."""
    other = _deliveries.alias("other")
    return ~exists().where(
        other.c.endpoint == _deliveries.c.endpoint, other.c.state == "pending", other.c.leased_until > now
    )


# ---- sending it again


def replay(control: Control, tenant: str, delivery: int, actor: str) -> None:
    """Send one delivery again from now on, with the same event id and the whole schedule before it.

    Raises:
        BadEndpointError: there is no such delivery, or its endpoint has ended.
    """
    d = _deliveries.c
    with control.change(tenant, actor) as change:
        asked = select(d.endpoint).where(d.id == delivery, d.tenant == tenant)
        endpoint = change.connection.execute(asked).scalar_one_or_none()
        if endpoint is None:
            raise BadEndpointError(f"there is no delivery {delivery}: see `millicent webhooks deliveries`")
        _require_live(change.connection, tenant, endpoint)
        _again(change.connection, d.id == delivery)
        change.record("delivery.replay", {"delivery": delivery, "endpoint": endpoint})


def replay_range(
    control: Control, tenant: str, endpoint: str, start: datetime, end: datetime, actor: str, *,
    delivered: bool = False,
) -> int:  # fmt: skip
    """Send an endpoint again what happened in `[start, end)` and did not arrive, or with `delivered` all of it.

    Returns:
        How many deliveries are due now.

    Raises:
        BadEndpointError: there is no such endpoint, or the period is empty.
    """
    if end <= start:
        raise BadEndpointError(f"the period ends at {end.isoformat()}, not after it begins at {start.isoformat()}")
    d, v = _deliveries.c, _events.c
    happened = exists().where(v.id == d.event, v.occurred_at >= start, v.occurred_at < end, v.type != TEST)
    mine = and_(d.endpoint == endpoint, d.tenant == tenant, happened)
    with control.change(tenant, actor) as change:
        _require_live(change.connection, tenant, endpoint)
        count = _again(change.connection, mine if delivered else and_(mine, d.state != "delivered"))
        told = {"endpoint": endpoint, "start": start.isoformat(), "end": end.isoformat(), "deliveries": count}
        change.record("delivery.replay", told)
    return count


def _require_live(connection: Connection, tenant: str, endpoint: str) -> None:
    e = _endpoints.c
    asked = select(e.ended_at).where(e.id == endpoint, e.tenant == tenant)
    row = connection.execute(asked).one_or_none()
    if row is None or row.ended_at is not None:
        raise BadEndpointError(f"there is no endpoint {endpoint!r} any more: see `millicent webhooks list`")


def _again(connection: Connection, which: ColumnElement[bool]) -> int:
    anew = {"state": "pending", "tries": 0, "next_at": datetime.now(UTC), "ended_at": None}
    return connection.execute(update(_deliveries).where(which).values(anew)).rowcount


# ---- the body


def _body(type_: str, occurred_at: datetime, data: Mapping[str, Any]) -> str:
    """The JSON of an event, in fewer than `MOST_BYTES`."""
    for letters, items in _CUTS:
        kept = {
            name: value if name in _WHOLE or not letters else _cut(value, letters, items)
            for name, value in data.items()
        }
        told = {"type": type_, "timestamp": occurred_at, "data": {**kept, "shortened": True} if letters else kept}
        body = json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
        if len(body.encode()) < MOST_BYTES:
            return body
    raise ValueError(f"the data of {type_} is longer than {MOST_BYTES:,} bytes even in short: say less")


_CUTS: Final = ((0, 0), (1000, 50), (300, 20), (100, 10), (40, 5), (20, 2))
"""Letters of a text and items of a list that are kept, tried one after another; 0 keeps all."""


def _cut(value: Any, letters: int, items: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= letters else value[: letters - 1] + "…"
    if isinstance(value, Mapping):
        return {name: _cut(one, letters, items) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(one, letters, items) for one in value[:items]]
    return value


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone: add Z for UTC or an offset")
        return text_of(value)
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{value!r} is no JSON: write text, numbers, lists or objects")
