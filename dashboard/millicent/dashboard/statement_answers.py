"""Statements over HTTP: what a team pays for in a month, as JSON or as a file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote

from fastapi import Query
from starlette.responses import JSONResponse, Response

from millicent.dashboard import access, statement_files
from millicent.dashboard.format import Presentation
from millicent.dashboard.months import Month
from millicent.dashboard.statement_files import MEDIA, Form
from millicent.dashboard.statements import EVERYBODY, statement
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

_TEAM: Final = Query(description="A team, or several; empty for calls that carry none, left out for everybody.")
_MONTH: Final = Query(description="2026-11; the present one if left out.")
_CHARGED: Final = Query(description="Refuse a month that is not closed: what is open is charged to nobody.")
_ZONE: Final = Query(description="IANA name, at whose midnights months begin; that of the workspace if left out.")
_CURRENCY: Final = Query(description="ISO 4217 code; that of the workspace if left out.")


def mount_statements(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the route of statements below `prefix`."""

    @server.get(f"{prefix}/exports/statement", summary="What a team pays for in a month, with the rule")
    def exported(
        team: Annotated[list[str] | None, _TEAM] = None,
        month: Annotated[str | None, _MONTH] = None,
        format: Form = "json",  # noqa: A002 - the parameter's public name
        chargeback: Annotated[bool, _CHARGED] = False,
        time_zone: Annotated[str | None, _ZONE] = None,
        currency: Annotated[str | None, _CURRENCY] = None,
    ) -> Response:
        tenant, now = access.principal().tenant, datetime.now(UTC)
        liked = preferences(warehouse.control, tenant)
        try:
            shown = Presentation(currency or liked.currency, zone(time_zone or liked.time_zone))
        except ValueError as error:
            raise BadQuery(str(error)) from error
        who = EVERYBODY if team is None else tuple(dict.fromkeys(name or None for name in team))
        found = statement(warehouse, tenant, who, asked_month(month, now, shown), shown, now)
        if chargeback and found.monthly.closing is None:
            raise BadQuery(
                f"month {found.monthly.month.written} is not closed: close it first, or ask without chargeback for "
                "what it would be"
            )
        if format == "json":
            return JSONResponse(statement_files.told(found, shown.zone))
        name = statement_files.file_name(found, format)
        headers = {"content-disposition": f'attachment; filename="{quote(name)}"'}
        return Response(statement_files.written(found, format, shown.zone), media_type=MEDIA[format], headers=headers)


def asked_month(text: str | None, now: datetime, shown: Presentation) -> Month:
    """The month that is asked for; the present one where none is told.

    Raises:
        BadQuery: it is no month.
    """
    month = Month.parse(text) if text else Month.of(now, shown.zone)
    if month is None:
        raise BadQuery(f"month {text!r} is not a month: write {now:%Y-%m}")
    return month
