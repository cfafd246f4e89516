"""Deployments over HTTP: what is declared, what calls run on that nobody declared, and how idle is allocated."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, FastAPI, Query, Request
from starlette.exceptions import HTTPException

from millicent.dashboard import access, asking, bodies, deployment_reading
from millicent.dashboard import deployment_answers as answers
from millicent.warehouse import discovered
from millicent.warehouse.deployments import BadDeploymentsError, Deployment
from millicent.warehouse.policies import BUILT_IN, Policy
from millicent.warehouse.query import LATEST, BadQuery, Period

if TYPE_CHECKING:
    from millicent.warehouse.declaring import Declared
    from millicent.warehouse.store import Warehouse

_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "JSON, one deployment or several, or TOML with tables `[[deployment]]`.",
        "content": {
            "application/json": {"schema": deployment_reading.schema()},
            "application/toml": {"schema": {"type": "string"}},
        },
    }
}
_Start = Annotated[str | None, Query(description="From this instant on; 28 days before now if left out.")]
_End = Annotated[str | None, Query(description="Up to this instant, not included; now if left out.")]
_Relative = Annotated[str | None, Query(description="24h, 7d, 4w or mtd, up to the end of this hour.")]
_REPLACE: Final = Query(
    description="Also take the place of periods that began at the same, earlier hour, because they were declared "
    "wrongly; their hours are computed again, save those of closed periods."
)


async def _told(request: Request) -> list[Deployment]:
    """The deployments in a body."""
    is_toml, text = await bodies.told(request, "deployments", deployment_reading.MOST_BYTES, BadDeploymentsError)
    read = deployment_reading.from_toml if is_toml else deployment_reading.from_json
    return read(text, datetime.now(UTC))


_Told = Annotated[list[Deployment], Depends(_told)]


def mount_deployments(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes below `prefix`; those that change something ask for an operator."""
    _mount_declaring(server, f"{prefix}/deployments", warehouse)
    _mount_hours(server, prefix, warehouse)
    _mount_policies(server, f"{prefix}/policies", warehouse)


def _mount_declaring(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="Declared deployments and their periods, and what calls run on that nobody declared")
    def deployments(start: _Start = None, end: _End = None, period: _Relative = None) -> answers.Deployments:
        tenant, looked = access.principal().tenant, asking.period(start, end, period)
        return answers.Deployments(
            deployments=[_deployment(one) for _, one in warehouse.control.deployments(tenant)],
            discovered=[_discovered(one) for one in discovered.discovered(warehouse, tenant, looked)],
        )

    @server.post(path, summary="Declare deployments: all of them or none", status_code=201, openapi_extra=_BODY)
    def declare(told: _Told, replace: Annotated[bool, _REPLACE] = False) -> answers.AllDeclared:
        who = access.operator("deployments")
        return _all(warehouse.control.declare_all(told, who.tenant, who.actor, replacing=replace))

    @server.post(
        f"{path}/check",
        summary="Say everything that is wrong with declarations, and what they would change; store nothing",
        openapi_extra=_BODY,
    )
    def check(told: _Told, replace: Annotated[bool, _REPLACE] = False) -> answers.AllDeclared:
        return _all(warehouse.control.declare_all(told, access.principal().tenant, replacing=replace, dry_run=True))


def _mount_hours(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:

    @server.get(
        f"{prefix}/deployments/{{name:path}}/hours", summary="What each hour of a deployment cost, oldest first"
    )
    def hours(
        name: str, start: _Start = None, end: _End = None, period: _Relative = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="How many.")] = 1000,
    ) -> answers.Hours:  # fmt: skip
        rows = warehouse.hours(access.principal().tenant, asking.period(start, end, period), name)
        told = rows[:limit].drop("tenant").to_dicts()
        shown = [asking.plain({**row, "sources": json.loads(row["sources"] or "[]")}) for row in told]
        return answers.Hours(hours=shown, left_off=max(0, rows.height - limit))

    @server.get(
        f"{prefix}/explain/deployments/{{name:path}}/{{hour}}",
        summary="Why an hour of a deployment costs what it does, line by line",
    )
    def explain(name: str, hour: str) -> answers.Derivation:
        at = (
            Period(asking.instant("hour", hour), LATEST)
            .start.astimezone(UTC)
            .replace(minute=0, second=0, microsecond=0)
        )
        lines = warehouse.explain_hour(access.principal().tenant, name, at)
        if not lines:
            raise HTTPException(
                404, f"deployment {name!r} has no hour {at.isoformat()}: see /api/v1/deployments/{name}/hours"
            )
        return answers.Derivation(deployment=name, hour=at, lines=[answers.Line.model_validate(one) for one in lines])


def _mount_policies(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="Allocation policies: who carries idle cost, and what cached tokens weigh")
    def policies() -> answers.Policies:
        return _policies(warehouse, access.principal().tenant)

    @server.post(path, summary="Set an allocation policy from an hour on", status_code=201)
    def set_policy(told: answers.NewPolicy) -> answers.Policies:
        who = access.operator("policies")
        since = told.effective_from or datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        try:
            policy = Policy(idle=told.idle, cached=told.cached, effective_from=since, note=told.note)
            warehouse.control.set_policy(policy, who.tenant, who.actor)
        except ValueError as error:
            raise BadQuery(str(error)) from error
        return _policies(warehouse, who.tenant)


def _all(declared: list[Declared]) -> answers.AllDeclared:
    return answers.AllDeclared(
        deployments=[answers.Declared(outcome=one.outcome, deployment=_deployment(one.deployment)) for one in declared]
    )


def _deployment(one: Deployment) -> answers.Deployment:
    return answers.Deployment.model_validate(one)


def _discovered(one: discovered.Discovered) -> answers.Discovered:
    periods = [answers.Period(effective_from=since, effective_to=until) for since, until in one.declared]
    told = {name: getattr(one, name) for name in answers.Discovered.model_fields if name != "declared"}
    return answers.Discovered(**told, declared=periods)


def _policies(warehouse: Warehouse, tenant: str) -> answers.Policies:
    told = [BUILT_IN, *(policy for _, policy in warehouse.control.policies(tenant))]
    return answers.Policies(policies=[answers.Policy.model_validate(one) for one in told])
