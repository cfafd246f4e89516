"""Saved views and what the workspace prefers, over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, Query
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millicent.dashboard import access
from millicent.warehouse import views, workspace
from millicent.warehouse.query import BadQuery
from millicent.warehouse.views import SavedView

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

_PATH: Final = Query(description="Only those of this page, such as /explore; all if left out.")
_VIEW: Final = Body(
    description="`path` of the page, `name`, `search` (its query string with its `?`), `audience`: private (only its "
    "owner), team (everybody) or default (everybody, and the page opens with it)."
)
_WORKSPACE: Final = Body(
    description="`time_zone` (IANA name), `currency` (ISO 4217), `fiscal_month` (1 to 12), `trace_viewer` (an address "
    "with `{trace_id}` in it, or null). What is left out stays."
)


class Deleted(BaseModel):
    """What was deleted."""

    id: int
    name: str
    path: str


def mount_views(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of saved views and of the workspace below `prefix`."""
    _mount_views(server, f"{prefix}/views", warehouse)
    _mount_workspace(server, f"{prefix}/workspace", warehouse)


def _mount_views(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="Saved views that you may open, by page")
    def listed(page: Annotated[str | None, _PATH] = None) -> JSONResponse:
        who = access.principal()
        return JSONResponse({"views": [_written(one) for one in views.views(warehouse.control, who.tenant, who.actor,
                                                                            page)]})  # fmt: skip

    @server.post(path, summary="Save a view; one of yours of that name on that page is replaced", status_code=201)
    def save(told: Annotated[dict[str, Any], _VIEW]) -> JSONResponse:
        who = access.principal()
        wanted = _read(told)
        if wanted.audience != "private":
            access.operator("what everybody sees")
        try:
            kept = views.save(warehouse.control, who.tenant, wanted, who.actor)
        except ValueError as error:
            raise BadQuery(str(error)) from error
        return JSONResponse(_written(kept), 201)

    @server.delete(f"{path}/{{view_id}}", summary="Delete a view: yours, or as an operator one that everybody sees")
    def remove(view_id: int) -> Deleted:
        who = access.principal()
        try:
            gone = views.remove(warehouse.control, who.tenant, view_id, who.actor, operates=who.operates)
        except LookupError as error:
            raise HTTPException(404, str(error)) from error
        except PermissionError as error:
            raise HTTPException(403, str(error)) from error
        return Deleted(id=view_id, name=gone.name, path=gone.path)


def _mount_workspace(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="What the workspace prefers: time zone, currency, fiscal year, trace viewer")
    def preferred() -> JSONResponse:
        return JSONResponse(asdict(workspace.preferences(warehouse.control, access.principal().tenant)))

    @server.put(path, summary="Have the workspace prefer something else from now on")
    def prefer(told: Annotated[dict[str, Any], _WORKSPACE]) -> JSONResponse:
        who = access.operator("what the workspace prefers")
        before = asdict(workspace.preferences(warehouse.control, who.tenant))
        if unknown := sorted(told.keys() - before.keys()):
            raise BadQuery(f"{', '.join(unknown)}: no such preference; choose from {', '.join(before)}")
        try:
            wanted = workspace.Workspace(**{**before, **told})
        except (ValueError, TypeError) as error:
            raise BadQuery(str(error)) from error
        workspace.prefer(warehouse.control, who.tenant, wanted, who.actor)
        return JSONResponse(asdict(wanted))


def _read(told: dict[str, Any]) -> SavedView:
    known = {"path", "name", "search", "audience"}
    if unknown := sorted(told.keys() - known):
        raise BadQuery(f"{', '.join(unknown)}: a saved view has {', '.join(sorted(known))}")
    if bad := sorted(name for name, value in told.items() if not isinstance(value, str)):
        raise BadQuery(f"{', '.join(bad)} must be text: write it in quotes")
    try:
        return SavedView(**{"path": "", "name": "", "search": "", **told})
    except ValueError as error:
        raise BadQuery(str(error)) from error


def _written(one: SavedView) -> dict[str, Any]:
    """As JSON: instants in UTC."""
    told = asdict(one) | {"address": one.address}
    return {name: f"{value:%Y-%m-%dT%H:%M:%SZ}" if name.endswith("_at") and value else value
            for name, value in told.items()}  # fmt: skip
