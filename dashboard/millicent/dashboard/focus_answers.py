"""FOCUS exports over HTTP: a month as a file, or what would be in it as JSON."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import HTTPException, Query
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, Response

from millicent.dashboard import access, export_files, focus, focus_files
from millicent.dashboard.focus import Edition, Export
from millicent.dashboard.focus_columns import Profile, Version
from millicent.dashboard.focus_files import FocusForm
from millicent.dashboard.months import Month
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

MOST_ROWS: Final = 1000
_MONTH: Final = Query(description="2026-11, of UTC; the present one if left out.")
_VERSION: Final = Query(description="Of FOCUS.")
_PROFILE: Final = Query(
    description="token-service: own hardware as tokens of a service of our own. split-allocation (since 1.3): as "
    "accelerator-hours that are split. Never to be added up."
)
_FORMAT: Final = Query(description="json tells sums, checks and the first rows; the others are the file.")
_LIMIT: Final = Query(description="How many rows JSON shows.", ge=0, le=MOST_ROWS)


class Broken(BaseModel):
    """A rule of the gate that rows break."""

    rule: str
    words: str = Field(description="what has to hold")
    rows: int


class Sum(BaseModel):
    """A sum of the file beside the same sum of pages; decimals are strings."""

    name: str
    file: str
    page: str
    residue: str = Field(description="what rounding made of it")
    holds: bool = Field(description="whether they are equal to the cent")


class Told(BaseModel):
    """What a file holds, as `format=json` tells it."""

    month: str
    version: str
    profile: str
    row_count: int
    passed: bool = Field(description="whether no rule is broken and all sums are those of pages")
    rule_count: int
    findings: list[Broken]
    totals: dict[str, str | int | None]
    controls: list[Sum]
    notes: dict[str, str]
    rows: list[dict[str, Any]] = Field(description="the first rows, by the columns of FOCUS")


_ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: {"model": Told, "description": "The file; or JSON."}}


def mount_focus(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the route of FOCUS files below `prefix`."""

    @server.get(f"{prefix}/exports/focus", summary="A month as FOCUS Cost and Usage, checked", responses=_ANSWER)
    def exported(
        month: Annotated[str | None, _MONTH] = None,
        version: Annotated[Version, _VERSION] = "1.2",
        profile: Annotated[Profile, _PROFILE] = "token-service",
        format: Annotated[Literal["csv", "parquet", "xlsx", "json"], _FORMAT] = "csv",  # noqa: A002 - the public name
        limit: Annotated[int, _LIMIT] = 50,
    ) -> Response:
        export = asked(warehouse, access.principal().tenant, month, version, profile)
        if format == "json":
            return JSONResponse(looked_at(export, limit))
        return _file(export, format)


def asked(warehouse: Warehouse, tenant: str, month: str | None, version: Version, profile: Profile) -> Export:
    """The export that an address asks for.

    Raises:
        BadQuery: there is no such month, or the version does not know the profile.
    """
    now = datetime.now(UTC)
    found = Month.parse(month) if month else Month.of(now)
    if found is None:
        raise BadQuery(f"month {month!r} is not a month: write {now:%Y-%m}")
    try:
        return Export(warehouse, tenant, found, Edition(version, profile))
    except ValueError as error:
        raise BadQuery(str(error)) from error


def looked_at(export: Export, limit: int) -> dict[str, Any]:
    """Sums, checks and the first rows of an export, which is read to its end."""
    first: list[dict[str, Any]] = []
    for _ in focus.readings(export):
        first.clear()
        for part in export.rows():
            first += focus_files.preview(part, limit - len(first))
    return focus_files.summary(export, first)


def _file(export: Export, form: FocusForm) -> Response:
    descriptor, name = tempfile.mkstemp(prefix="millicent-focus-")
    os.close(descriptor)
    path = Path(name)
    try:
        about = focus_files.write(export, path, form)
    except BaseException as error:
        path.unlink()
        if isinstance(error, focus_files.RefusedError):
            raise HTTPException(409, str(error)) from error
        if isinstance(error, ValueError):
            raise BadQuery(str(error)) from error
        raise
    return FileResponse(
        path, media_type=export_files.MEDIA[form], headers=export_files.headers(about, form),
        background=BackgroundTask(path.unlink),
    )  # fmt: skip
