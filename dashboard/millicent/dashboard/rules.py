"""Attribution rules over HTTP: list, add, remove, and tag stored calls again by them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, Query
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millicent.collector import retag
from millicent.dashboard import access
from millicent.warehouse.query import BadQuery, Period
from millicent.warehouse.rules import Rule, read, written

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

_START: Final = Query(description="From this instant on, 2026-11-01T00:00:00Z; 28 days before `end` if left out.")
_END: Final = Query(description="Up to this instant, not included; now if left out.")
_RULE: Final = Body(
    description="`when`: conditions that must all hold, each a `field` with `is` (a text or several), `matches` (a "
    "regular expression found anywhere) or `absent` (true). `sets`: a value by tag. `override`: also where the tag is "
    "told. `position`, `effective_from`, `effective_to`, `note`."
)


def mount_rules(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of rules below `prefix`; those that change something ask for an operator."""
    _mount_reading(server, f"{prefix}/rules", warehouse)
    _mount_changing(server, f"{prefix}/rules", warehouse)


def _mount_reading(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="Attribution rules, by position")
    def rules() -> JSONResponse:
        return JSONResponse(_all(warehouse, access.principal().tenant))

    @server.get(f"{path}/check", summary="How many calls of a period each rule holds for, and decides")
    def check(
        start: Annotated[datetime | None, _START] = None, end: Annotated[datetime | None, _END] = None
    ) -> JSONResponse:
        found = retag.check(warehouse, access.principal().tenant, _period(start, end))
        return JSONResponse({"rules": [asdict(one) for one in found]})

    @server.get(f"{path}/changes", summary="What tagging a period again would change, by team")
    def changes(
        start: Annotated[datetime | None, _START] = None, end: Annotated[datetime | None, _END] = None
    ) -> JSONResponse:
        return _retagged(warehouse, access.principal(), _period(start, end), apply=False)

    @server.get(f"{path}/{{rule_id}}", summary="One rule")
    def rule(rule_id: int) -> JSONResponse:
        return JSONResponse(written(_one(warehouse, access.principal().tenant, rule_id)))


def _mount_changing(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.post(
        path, summary="Add a rule", status_code=201, response_description="`rules`: all of them, as GET answers"
    )
    def add(told: Annotated[dict[str, Any], _RULE]) -> JSONResponse:
        who = access.operator("rules")
        try:
            warehouse.control.add_rule(read(told), who.tenant, who.actor)
        except ValueError as error:
            raise BadQuery(str(error)) from error
        return JSONResponse(_all(warehouse, who.tenant), 201)

    @server.post(
        f"{path}/changes",
        summary="Tag the calls of a period again by the rules as they are",
        response_description="`calls`, `moves`: what has changed, as GET answers",
    )
    def apply(start: datetime, end: datetime) -> JSONResponse:
        return _retagged(warehouse, access.operator("rules"), Period(start, end), apply=True)

    @server.delete(f"{path}/{{rule_id}}", summary="Remove a rule", response_description="the rule that is gone")
    def remove(rule_id: int) -> JSONResponse:
        who = access.operator("rules")
        gone = _one(warehouse, who.tenant, rule_id)
        warehouse.control.remove_rule(rule_id, who.tenant, who.actor)
        return JSONResponse(written(gone))


def _period(start: datetime | None, end: datetime | None) -> Period:
    until = end or datetime.now(UTC)
    return Period(start or until - timedelta(days=28), until)


def _all(warehouse: Warehouse, tenant: str) -> dict[str, Any]:
    return {"rules": [written(rule) for _, rule in warehouse.control.rules(tenant)]}


def _one(warehouse: Warehouse, tenant: str, rule_id: int) -> Rule:
    found = [rule for _, rule in warehouse.control.rules(tenant) if rule.id == rule_id]
    if not found:
        raise HTTPException(404, f"there is no rule {rule_id}: see /api/v1/rules")
    return found[0]


def _retagged(warehouse: Warehouse, who: access.Principal, period: Period, *, apply: bool) -> JSONResponse:
    done = retag.retag(warehouse, who.tenant, period, apply=apply, actor=who.actor)
    moves = [
        {**asdict(one), "spend_usd": None if one.spend_usd is None else f"{one.spend_usd:f}"} for one in done.moves
    ]
    return JSONResponse({"calls": done.calls, "moves": moves})
