"""Endpoints of alerts over HTTP: set, tried out, and how they are doing; what was sent to them, and sent again."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

from fastapi import Body, Query
from starlette.exceptions import HTTPException

from millicent.dashboard import access, asking
from millicent.dashboard.webhook_answers import (
    DeliveriesAnswer,
    DeliveryAnswer,
    DueAnswer,
    EndpointAnswer,
    EndpointsAnswer,
    EventAnswer,
    MadeAnswer,
)
from millicent.warehouse import delivery_log, endpoints, outbox
from millicent.warehouse.outbox import State
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.endpoint_forms import Kind
    from millicent.warehouse.endpoints import Endpoint, Made
    from millicent.warehouse.store import Warehouse

_FIELDS: Final = ("name", "kind", "address", "types", "secret")
_ENDPOINT: Final = Body(
    description="`name` and `address` are needed; the endpoint of that name is changed where there is one. `kind`: "
    "webhook (default), slack, teams, pagerduty, alertmanager or smtp. `types`: of events that it wants, all without "
    "any. `secret`: that of a webhook is made if left out; of pagerduty it is the routing key."
)
_SECRET: Final = Body(description="`secret`: the next one; that of a webhook is made if left out.")
_REASON: Final = Body(description="`reason`: why, for whoever wonders.")
_STATE: Final = Query(description="pending, delivered or dead; all if left out.")
_BEFORE: Final = Query(description="`next` of the page before.")
_LIMIT: Final = Query(ge=1, le=delivery_log.MOST, description="How many.")
_WAIT: Final = Query(ge=0, le=25, description="Seconds to wait for the first attempt.")
_ALL: Final = Query(description="What was delivered, too.")
_POLL_S: Final = 0.05


def mount_webhooks(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of endpoints and deliveries below `prefix`; those that change something ask for an operator."""
    path = f"{prefix}/webhooks"
    _mount_deliveries(server, path, warehouse)
    _mount_endpoints(server, path, warehouse)
    _mount_acts(server, f"{path}/{{endpoint_id}}", warehouse)


def _mount_deliveries(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    def page(limit: int, **wanted: Any) -> DeliveriesAnswer:
        if wanted.get("state") not in {None, *get_args(State)}:
            raise BadQuery(f"state {wanted['state'][:40]!r} is unknown: write {', '.join(get_args(State))}")
        found = delivery_log.log(warehouse.control, access.principal().tenant, limit=limit + 1, **wanted)
        more = found[limit - 1].id if len(found) > limit else None
        told = [DeliveryAnswer.model_validate(one) for one in found[:limit]]
        return DeliveriesAnswer(deliveries=told, next=more)

    @server.get(f"{path}/deliveries", summary="What was sent to every endpoint, newest first, with every attempt")
    def deliveries(
        state: Annotated[str | None, _STATE] = None,
        event: str | None = None,
        alert: str | None = None,
        before: Annotated[int | None, _BEFORE] = None,
        limit: Annotated[int, _LIMIT] = 50,
    ) -> DeliveriesAnswer:
        return page(limit, state=state, event=event, alert=alert, before=before)

    @server.get(f"{path}/{{endpoint_id}}/deliveries", summary="What was sent to one endpoint, with every attempt")
    def deliveries_of(
        endpoint_id: str,
        state: Annotated[str | None, _STATE] = None,
        before: Annotated[int | None, _BEFORE] = None,
        limit: Annotated[int, _LIMIT] = 50,
    ) -> DeliveriesAnswer:
        _endpoint(warehouse, access.principal().tenant, endpoint_id, ended=True)
        return page(limit, endpoint=endpoint_id, state=state, before=before)

    @server.get(f"{path}/events/{{event_id}}", summary="An event, as it is sent")
    def event(event_id: str) -> EventAnswer:
        found = delivery_log.event(warehouse.control, access.principal().tenant, event_id)
        if found is None:
            raise HTTPException(404, f"there is no event {event_id[:40]!r}: see {path}/deliveries")
        return EventAnswer.model_validate(delivery_log.written_event(found))

    @server.post(f"{path}/deliveries/{{delivery_id}}/replay", summary="Send one delivery again, with the same event id",
                 status_code=202, response_description="the delivery, which is due now")  # fmt: skip
    def replay(delivery_id: int) -> DeliveryAnswer:
        who = access.operator("deliveries")
        _delivery(warehouse, who.tenant, delivery_id)
        outbox.replay(warehouse.control, who.tenant, delivery_id, who.actor)
        return _delivery(warehouse, who.tenant, delivery_id)


def _mount_endpoints(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    @server.get(path, summary="Every endpoint of alerts, and how it is doing")
    def listed() -> EndpointsAnswer:
        found = delivery_log.health(warehouse.control, access.principal().tenant)
        return EndpointsAnswer.model_validate({"endpoints": [delivery_log.written_health(one) for one in found]})

    @server.post(path, summary="Set an endpoint of alerts, or change the one of that name", status_code=201,
                 response_description="the endpoint; `secret` is the one that was made, shown here only")  # fmt: skip
    def put(told: Annotated[dict[str, Any], _ENDPOINT]) -> MadeAnswer:
        who = access.operator("endpoints")
        given = _read(told)
        made = endpoints.put(
            warehouse.control, who.tenant, given["name"], given["kind"], given["address"], who.actor,
            types=given["types"], secret=given["secret"], check=endpoints.within(warehouse.reach),
        )  # fmt: skip
        return _made(made)

    @server.delete(f"{path}/{{endpoint_id}}", summary="Take an endpoint away; its log is kept",
                   response_description="the endpoint as it was")  # fmt: skip
    def end(endpoint_id: str) -> EndpointAnswer:
        who = access.operator("endpoints")
        _endpoint(warehouse, who.tenant, endpoint_id)
        gone = endpoints.end(warehouse.control, who.tenant, endpoint_id, who.actor)
        return EndpointAnswer.model_validate(endpoints.written(gone))


def _mount_acts(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    @server.post(f"{path}/test", summary="Send an endpoint an event of the type endpoint.test", status_code=202,
                 response_description="the delivery, with the first attempt where it was waited for")  # fmt: skip
    def try_out(endpoint_id: str, wait: Annotated[float, _WAIT] = 0) -> DeliveryAnswer:
        who = access.operator("endpoints")
        _endpoint(warehouse, who.tenant, endpoint_id)
        number = outbox.try_out(warehouse.control, who.tenant, endpoint_id, who.actor)
        until = time.monotonic() + wait
        while time.monotonic() < until and not _tried(warehouse, who.tenant, number):
            time.sleep(_POLL_S)
        return _delivery(warehouse, who.tenant, number)

    @server.post(f"{path}/rotate", summary="Give an endpoint another secret; that of a webhook signs for a day more",
                 response_description="the endpoint; `secret` is the one that was made, shown here only")  # fmt: skip
    def rotate(endpoint_id: str, told: Annotated[dict[str, Any] | None, _SECRET] = None) -> MadeAnswer:
        who = access.operator("endpoints")
        _endpoint(warehouse, who.tenant, endpoint_id)
        secret = _texts(told or {}, ("secret",)).get("secret")
        check = endpoints.within(warehouse.reach)
        made = endpoints.rotate(warehouse.control, who.tenant, endpoint_id, who.actor, secret=secret, check=check)
        return _made(made)

    @server.post(f"{path}/enable", summary="Send to an endpoint again; what waited is due at once",
                 response_description="the endpoint")  # fmt: skip
    def enable(endpoint_id: str) -> EndpointAnswer:
        who = access.operator("endpoints")
        _endpoint(warehouse, who.tenant, endpoint_id)
        found = endpoints.enable(warehouse.control, who.tenant, endpoint_id, who.actor)
        return EndpointAnswer.model_validate(endpoints.written(found))

    @server.post(f"{path}/disable", summary="Send nothing more to an endpoint; what is not delivered yet waits",
                 response_description="the endpoint")  # fmt: skip
    def disable(endpoint_id: str, told: Annotated[dict[str, Any] | None, _REASON] = None) -> EndpointAnswer:
        who = access.operator("endpoints")
        _endpoint(warehouse, who.tenant, endpoint_id)
        reason = _texts(told or {}, ("reason",)).get("reason") or f"disabled by {who.actor}"
        found = endpoints.disable(warehouse.control, who.tenant, endpoint_id, who.actor, reason[:200])
        return EndpointAnswer.model_validate(endpoints.written(found))

    @server.post(f"{path}/replay", summary="Send an endpoint again what happened in a period and did not arrive",
                 status_code=202, response_description="`deliveries`: how many are due now")  # fmt: skip
    def replay(
        endpoint_id: str, start: str, end: str | None = None, delivered: Annotated[bool, _ALL] = False
    ) -> DueAnswer:
        who = access.operator("deliveries")
        _endpoint(warehouse, who.tenant, endpoint_id)
        since, until = _instant("start", start), _instant("end", end) if end else datetime.now(UTC)
        count = outbox.replay_range(
            warehouse.control, who.tenant, endpoint_id, since, until, who.actor, delivered=delivered
        )
        return DueAnswer(deliveries=count)


def _endpoint(warehouse: Warehouse, tenant: str, endpoint_id: str, *, ended: bool = False) -> Endpoint:
    found = endpoints.find(warehouse.control, tenant, endpoint_id)
    if found is None or (found.ended_at is not None and not ended):
        raise HTTPException(404, f"there is no endpoint {endpoint_id[:40]!r}: see /api/v1/webhooks")
    return found


def _tried(warehouse: Warehouse, tenant: str, number: int) -> bool:
    found = delivery_log.find(warehouse.control, tenant, number)
    return found is None or any(one.error != outbox.UNDER_WAY for one in found.attempts)


def _delivery(warehouse: Warehouse, tenant: str, number: int) -> DeliveryAnswer:
    found = delivery_log.find(warehouse.control, tenant, number)
    if found is None:
        raise HTTPException(404, f"there is no delivery {number}: see /api/v1/webhooks/deliveries")
    return DeliveryAnswer.model_validate(found)


def _made(made: Made) -> MadeAnswer:
    return MadeAnswer.model_validate({**endpoints.written(made.endpoint), "secret": made.secret})


def _read(told: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        "kind": "webhook", "secret": None, **_texts({**told, "types": None}, _FIELDS), "types": told.get("types") or [],
    }  # fmt: skip
    for name in ("name", "address"):
        if name not in given:
            raise BadQuery(f"{name} is missing: write what the endpoint is called, and where events are sent")
    if not isinstance(given["types"], list) or not all(isinstance(one, str) for one in given["types"]):
        raise BadQuery(f"types are not a list of texts: write some of {', '.join(endpoints.TYPES)}, or none for all")
    return {**given, "kind": cast("Kind", given["kind"])}


def _texts(told: dict[str, Any], known: tuple[str, ...]) -> dict[str, str]:
    """What is told of fields that are text; none of it is repeated, for it may be secret."""
    if unknown := [name for name in told if name not in known]:
        raise BadQuery(f"field {unknown[0][:40]!r} is unknown: write {', '.join(known)}")
    given = {name: value for name, value in told.items() if value is not None}
    if odd := [name for name, value in given.items() if not isinstance(value, str)]:
        raise BadQuery(f"{odd[0]} is not text: put it in quotes")
    return given


def _instant(name: str, text: str) -> datetime:
    found = asking.instant(name, text)
    if found.tzinfo is None:
        raise BadQuery(f"{name} {text!r} has no time zone: add Z for UTC or an offset")
    return found
