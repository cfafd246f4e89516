"""Endpoints: where events are sent.

Their addresses and secrets are sealed, so that neither the database nor a backup of it opens a door.
"""

from __future__ import annotations

import base64
import json
import secrets as random_secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, insert, select, update

from millicent.warehouse import delivery_tables as tables
from millicent.warehouse import endpoint_forms as forms
from millicent.warehouse.endpoint_forms import BadEndpointError, Destination, Kind
from millicent.warehouse.instants import text_of
from millicent.warehouse.reach import Reach

if TYPE_CHECKING:
    from millicent.warehouse.control import Change, Control

TEST: Final = "endpoint.test"
FAILED, RECOVERED = "endpoint.failed", "endpoint.recovered"
TYPES: Final = (
    "budget.threshold.crossed", "budget.threshold.cleared", "budget.forecast.exceeded", "budget.forecast.cleared",
    "budget.burn_rate.exceeded", "budget.burn_rate.cleared", "cost.anomaly.opened", "cost.anomaly.closed",
    "unit_cost.threshold.crossed", "unit_cost.threshold.cleared", "data.freshness.stale", "data.freshness.recovered",
    "pricing.unpriced_usage.detected", "pricing.unpriced_usage.cleared", FAILED, RECOVERED,
    TEST,
)  # fmt: skip
"""Every type of event. `endpoint.failed`: an endpoint is given up on, told to the others."""
OVERLAP: Final = timedelta(hours=24)
"""How long a replaced secret of a webhook signs beside the new one."""
PREFIX: Final = "whsec_"
MOST: Final = 64
"""Endpoints that a tenant may have."""
LONGEST: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where events are sent, as it may be shown.

    Attributes:
        id: `ep_…`.
        name: unlike that of any other endpoint of the tenant that has not ended.
        kind: what it understands.
        shown: its address without what is secret in it.
        types: of events that it wants; none: all.
        enabled: whether anything is sent; what waits for it is kept.
        reason: why it is not enabled.
        author: who set it last.
        created_at: when it was first set.
        ended_at: when it was taken away.
    """

    id: str
    name: str
    kind: Kind
    shown: str
    types: tuple[str, ...] = ()
    enabled: bool = True
    reason: str | None = None
    author: str
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint, and the secret that was made for it, which is shown once; None where none was made."""

    endpoint: Endpoint
    secret: str | None = field(repr=False, default=None)


Check = Callable[[Kind, str, tuple[str, ...]], str]
"""Tells how an address may be shown, or raises a ValueError that says why it, or a secret, cannot be."""


def within(reach: Reach) -> Check:
    """Takes what can be told something and is within reach."""

    def check(kind: Kind, address: str, secrets: tuple[str, ...]) -> str:
        forms.check(kind, address, secrets[0] if secrets else None, reach)
        return forms.shown(kind, address)

    return check


_PUBLIC: Final = within(Reach())


def put(
    control: Control, tenant: str, name: str, kind: Kind, address: str, actor: str, *,
    types: Collection[str] = (), secret: str | None = None, check: Check = _PUBLIC,
) -> Made:  # fmt: skip
    """Set an endpoint, or change the one of that name; a webhook without a `secret` is given one of 32 random bytes.

    What holds already is not stored again. Another address keeps the secrets that there are; another secret takes the
    place of the last, which a webhook has for `OVERLAP` more.

    Raises:
        BadEndpointError: it cannot be, or there is no such tenant.
    """
    _check_name(name)
    wanted = _types(types)
    now = datetime.now(UTC)
    with _changing(control, tenant, actor) as change:
        old = _named(change.connection, tenant, name)
        _declared(change, old)
        if old is not None and old["kind"] != kind:
            raise BadEndpointError(
                f"endpoint {name!r} is a {old['kind']}, not a {kind}: end it first, or choose another name"
            )
        held = _held(control, old)
        made = _new_secret() if kind == "webhook" and secret is None and not held.secrets else None
        kept = replace(held, address=address.strip()).with_secret(secret or made, kind, now)
        told = check(kind, kept.address, kept.live(now))
        row: dict[str, Any] = {"name": name, "kind": kind, "shown": told, "types": wanted}
        if old is not None and held == kept and all(old[key] == value for key, value in row.items()):
            return Made(_endpoint(old))
        row["author"] = actor
        if old is None:
            _room(change.connection, tenant)
            row |= {"id": f"ep_{random_secrets.token_hex(8)}", "tenant": tenant, "enabled": True, "created_at": now}
            row["sealed"] = _sealed(control, row["id"], kept)
            change.connection.execute(insert(tables.endpoints).values(row))
        else:
            row["sealed"] = _sealed(control, old["id"], kept)
            _update(change.connection, old["id"], row)
        stored = _row(change.connection, tenant, (old or row)["id"])
        change.record("endpoint.set", written(_endpoint(stored)))
    return Made(_endpoint(stored), made)


def rotate(
    control: Control, tenant: str, endpoint_id: str, actor: str, *,
    secret: str | None = None, check: Check = _PUBLIC, now: datetime | None = None,
) -> Made:  # fmt: skip
    """Give an endpoint another secret; that of a webhook is made, and the old one signs for `OVERLAP` more.

    Raises:
        BadEndpointError: there is no such endpoint, or a secret is needed and none is told.
    """
    at = now or datetime.now(UTC)
    with _changing(control, tenant, actor) as change:
        old = _row(change.connection, tenant, endpoint_id)
        _declared(change, old)
        if secret is None and old["kind"] != "webhook":
            raise BadEndpointError(f"endpoint {old['name']!r} is a {old['kind']}: tell the secret that it is to have")
        made = _new_secret() if secret is None else None
        kept = _opened(control, old).with_secret(secret or made, old["kind"], at)
        if secret is not None:
            check(old["kind"], kept.address, kept.live(at))
        _update(change.connection, endpoint_id, {"sealed": _sealed(control, endpoint_id, kept), "author": actor})
        stored = _row(change.connection, tenant, endpoint_id)
        change.record("endpoint.rotate", {"id": endpoint_id, "name": old["name"]})
    return Made(_endpoint(stored), made)


def enable(control: Control, tenant: str, endpoint_id: str, actor: str) -> Endpoint:
    """Send again; what waited is due at once.

    Raises:
        BadEndpointError: there is no such endpoint.
    """
    with _changing(control, tenant, actor) as change:
        _row(change.connection, tenant, endpoint_id)
        _update(change.connection, endpoint_id, {"enabled": True, "reason": None})
        c = tables.deliveries.c
        waits = (c.endpoint == endpoint_id) & (c.state == "pending")
        change.connection.execute(update(tables.deliveries).where(waits).values(next_at=datetime.now(UTC)))
        change.record("endpoint.enable", {"id": endpoint_id})
        return _endpoint(_row(change.connection, tenant, endpoint_id))


def disable(control: Control, tenant: str, endpoint_id: str, actor: str, reason: str) -> Endpoint:
    """Send nothing more; what is not delivered yet waits.

    Raises:
        BadEndpointError: there is no such endpoint.
    """
    with _changing(control, tenant, actor) as change:
        _row(change.connection, tenant, endpoint_id)
        _update(change.connection, endpoint_id, {"enabled": False, "reason": reason})
        change.record("endpoint.disable", {"id": endpoint_id, "reason": reason})
        return _endpoint(_row(change.connection, tenant, endpoint_id))


def end(control: Control, tenant: str, endpoint_id: str, actor: str) -> Endpoint:
    """Take an endpoint away with its address and secrets; what waits for it is given up, and its log is kept.

    Raises:
        BadEndpointError: there is no such endpoint.
    """
    now = datetime.now(UTC)
    with _changing(control, tenant, actor) as change:
        _declared(change, _row(change.connection, tenant, endpoint_id))
        _update(change.connection, endpoint_id, {"enabled": False, "reason": "ended", "ended_at": now, "sealed": ""})
        c = tables.deliveries.c
        waits = (c.endpoint == endpoint_id) & (c.state == "pending")
        gone = {"state": "dead", "ended_at": now, "next_at": None, "leased_until": None}
        change.connection.execute(update(tables.deliveries).where(waits).values(gone))
        change.record("endpoint.end", {"id": endpoint_id})
        return _endpoint(_found(change.connection, tenant, endpoint_id) or {})


def listed(control: Control, tenant: str) -> list[Endpoint]:
    """Every endpoint that has not ended, by name."""
    c = tables.endpoints.c
    asked = select(tables.endpoints).where(c.tenant == tenant, c.ended_at.is_(None)).order_by(c.name)
    with control.begin() as connection:
        return [_endpoint(dict(row)) for row in connection.execute(asked).mappings()]


def find(control: Control, tenant: str, endpoint_id: str) -> Endpoint | None:
    """An endpoint by its id, one that has ended too."""
    with control.begin() as connection:
        row = _found(connection, tenant, endpoint_id)
    return _endpoint(row) if row else None


def destination(control: Control, tenant: str, endpoint_id: str, now: datetime) -> Destination:
    """An endpoint opened, with the secrets that sign at an instant.

    Raises:
        BadEndpointError: there is none, or it was sealed under another pepper.
    """
    with control.begin() as connection:
        row = _row(connection, tenant, endpoint_id)
    held = _opened(control, row)
    return Destination(row["kind"], held.address, held.live(now))


def written(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint as JSON; nothing in it is secret."""
    return {
        "id": endpoint.id, "name": endpoint.name, "kind": endpoint.kind, "shown": endpoint.shown,
        "types": list(endpoint.types), "enabled": endpoint.enabled, "reason": endpoint.reason,
        "author": endpoint.author, "created_at": text_of(endpoint.created_at), "ended_at": text_of(endpoint.ended_at),
    }  # fmt: skip


# ---- what is sealed


@dataclass(frozen=True, slots=True)
class _Sealed:
    """Address and (secret, until when it signs; None: for good), newest first."""

    address: str = field(repr=False)
    secrets: tuple[tuple[str, datetime | None], ...] = field(repr=False, default=())

    def live(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign at an instant, newest first."""
        return tuple(secret for secret, until in self.secrets if until is None or now < until)

    def with_secret(self, secret: str | None, kind: Kind, now: datetime) -> _Sealed:
        """The same with another secret, unless it is the newest already."""
        if secret is None or (self.secrets and self.secrets[0][0] == secret):
            return self
        if kind != "webhook":
            return replace(self, secrets=((secret, None),))
        before = tuple((old, until or now + OVERLAP) for old, until in self.secrets if old != secret)
        return replace(self, secrets=((secret, None), *(pair for pair in before if now < pair[1])))


def _sealed(control: Control, endpoint_id: str, held: _Sealed) -> str:
    told = {"id": endpoint_id, "address": held.address,
            "secrets": [[secret, text_of(until)] for secret, until in held.secrets]}  # fmt: skip
    return control.seal(json.dumps(told))


def _opened(control: Control, row: dict[str, Any]) -> _Sealed:
    try:
        told = json.loads(control.unseal(row["sealed"]))
    except ValueError as error:
        raise BadEndpointError(f"endpoint {row['name']!r} cannot be opened: {error}") from error
    if told["id"] != row["id"]:
        raise BadEndpointError(f"endpoint {row['name']!r} has what was sealed for another one: end it and set it again")
    held = tuple((secret, datetime.fromisoformat(until) if until else None) for secret, until in told["secrets"])
    return _Sealed(told["address"], held)


def _held(control: Control, row: dict[str, Any] | None) -> _Sealed:
    """What is sealed; nothing where there is none, or it cannot be opened any more."""
    try:
        return _opened(control, row) if row else _Sealed("")
    except BadEndpointError:
        return _Sealed("")


def _new_secret() -> str:
    return PREFIX + base64.b64encode(random_secrets.token_bytes(32)).decode()


# ---- reading and checking


def _declared(change: Change, old: dict[str, Any] | None) -> None:
    if old is not None:
        change.only_by(old["author"], f"endpoint {old['name']!r}")


@contextmanager
def _changing(control: Control, tenant: str, actor: str) -> Iterator[Change]:
    try:
        with control.change(tenant, actor) as change:
            change.connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield change
    except BadEndpointError:
        raise
    except ValueError as error:
        raise BadEndpointError(str(error)) from error


def _check_name(name: str) -> None:
    if not name.strip() or name != name.strip() or len(name) > LONGEST or not name.isprintable():
        raise BadEndpointError(
            f"name {name[:40]!r} is empty, longer than {LONGEST} or no plain text: write a short one"
        )


def _types(told: Collection[str]) -> list[str]:
    if unknown := [one for one in told if one not in TYPES]:
        raise BadEndpointError(f"type {unknown[0]!r} is unknown: write {', '.join(TYPES)}, or none for all")
    return sorted(set(told), key=TYPES.index)


def _room(connection: Connection, tenant: str) -> None:
    c = tables.endpoints.c
    held = connection.execute(select(c.id).where(c.tenant == tenant, c.ended_at.is_(None))).all()
    if len(held) >= MOST:
        raise BadEndpointError(f"there are {MOST} endpoints already: end some first")


def _named(connection: Connection, tenant: str, name: str) -> dict[str, Any] | None:
    c = tables.endpoints.c
    asked = select(tables.endpoints).where(c.tenant == tenant, c.name == name, c.ended_at.is_(None))
    row = connection.execute(asked).mappings().one_or_none()
    return dict(row) if row else None


def _found(connection: Connection, tenant: str, endpoint_id: str) -> dict[str, Any] | None:
    c = tables.endpoints.c
    asked = select(tables.endpoints).where(c.tenant == tenant, c.id == endpoint_id)
    row = connection.execute(asked).mappings().one_or_none()
    return dict(row) if row else None


def _row(connection: Connection, tenant: str, endpoint_id: str) -> dict[str, Any]:
    row = _found(connection, tenant, endpoint_id)
    if row is None or row["ended_at"] is not None:
        raise BadEndpointError(f"there is no endpoint {endpoint_id!r}: see `millicent webhooks list`")
    return row


def _update(connection: Connection, endpoint_id: str, values: dict[str, Any]) -> None:
    connection.execute(update(tables.endpoints).where(tables.endpoints.c.id == endpoint_id).values(values))


def _endpoint(row: dict[str, Any]) -> Endpoint:
    kept = {name: value for name, value in row.items() if name not in {"tenant", "sealed", "types"}}
    return Endpoint(**kept, types=tuple(row["types"]))
