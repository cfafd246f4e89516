"""Business units over HTTP: upload rows as JSON or CSV, list them, forget a unit."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millicent.dashboard import access
from millicent.warehouse import units
from millicent.warehouse.units import BadUnitsError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

MOST_BYTES: Final = 8 << 20
MOST_LISTED: Final = 10_000
KINDS: Final = ("application/json", "text/csv")
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Rows of " + ", ".join(units.COLUMNS) + "; the first three are required. `day` is of UTC, "
        "`quantity` may have decimals, `team`, `feature` and `customer` say which calls the row is about.",
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": "unit,day,quantity,feature,revenue_usd\nresolved ticket,2026-11-23,1204,triage,301.00\n",
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"rows": {"type": "array", "items": {"type": "object"}}},
                }
            },
        },
    }
}


class Forgotten(BaseModel):
    """What is gone."""

    rows: int = Field(description="how many rows the unit had")


def mount_units(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of business units below `prefix`; those that change something ask for an operator."""
    path = f"{prefix}/units"
    server.add_exception_handler(BadUnitsError, _bad_units)

    @server.get(path, summary="Business units: every name, and the rows of a period")
    def listed(
        unit: Annotated[str | None, Query(description="Rows of this unit alone.")] = None,
        start: Annotated[date | None, Query(description="First day, of UTC.")] = None,
        end: Annotated[date | None, Query(description="Last day, included.")] = None,
    ) -> JSONResponse:
        tenant = access.principal().tenant
        rows = units.stored(warehouse.control, tenant, start, end, unit)[:MOST_LISTED]
        known = units.names(warehouse.control, tenant)
        return JSONResponse({
            "units": [{"unit": name, "rows": number, "first": first.isoformat(), "last": last.isoformat()}
                      for name, number, first, last in known],
            "rows": [units.written(row) for row in rows],
        })  # fmt: skip

    @server.post(
        path, summary="Upload business units", status_code=201, openapi_extra=_BODY,
        response_description="how many rows were `added`, `replaced` (same unit, day, team, feature and customer) and "
        "`unchanged`",
    )  # fmt: skip
    async def upload(request: Request) -> JSONResponse:
        who = access.operator("business units")
        done = units.upload(warehouse.control, who.tenant, await _rows(request), who.actor)
        told = {"added": done.added, "replaced": done.replaced, "unchanged": done.unchanged}
        return JSONResponse(told, 201)

    @server.delete(f"{path}/{{unit}}", summary="Forget a business unit")
    def remove(unit: str) -> Forgotten:
        who = access.operator("business units")
        number = units.remove(warehouse.control, who.tenant, unit, who.actor)
        if not number:
            raise HTTPException(404, f"there is no business unit {unit!r}: see {path}")
        return Forgotten(rows=number)


async def _rows(request: Request) -> list[units.Units]:
    """The rows of a body.

    Raises:
        HTTPException: it is too large, or neither JSON nor CSV.
        BadUnitsError: it cannot be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in KINDS:
        raise HTTPException(415, f"content type {kind!r} is not read: send {' or '.join(KINDS)}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES:,} bytes: send the rows in parts")
    try:
        text = body.decode("utf-8")
        told = json.loads(text) if kind == KINDS[0] else None
    except (ValueError, RecursionError) as error:
        raise BadUnitsError([f"the body cannot be read ({error}): send UTF-8, as {kind}"]) from error
    if told is None and kind == KINDS[1]:
        return units.read_csv(text)
    rows = told.get("rows") if isinstance(told, dict) else told
    if not isinstance(rows, list):
        raise BadUnitsError(['there are no rows: send {"rows": [{"unit": …, "day": …, "quantity": …}]}'])
    return units.read(rows)


def _bad_units(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, BadUnitsError)  # noqa: S101 - registered for nothing else
    body = {"type": "about:blank", "title": "Bad units", "status": 400, "detail": str(error),
            "problems": error.problems}  # fmt: skip
    return JSONResponse(body, 400, media_type="application/problem+json")
