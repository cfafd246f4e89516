"""`/api/v1/reread` and `millicent reread`: stored calls read again by the usage rules as they are now."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from fastapi import Query
from starlette.responses import JSONResponse

from millicent.collector.rereading import reread
from millicent.dashboard import access
from millicent.dashboard.rule_commands import From, To, days
from millicent.dashboard.terminal import URL, AsJson, OperatorToken, Url, agreed, ask, progress, show
from millicent.warehouse.query import Period

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.store import Warehouse

_START: Final = Query(description="From this instant on: 2026-11-01T00:00:00Z.")
_END: Final = Query(description="Up to this instant, not included.")


def mount_rereading(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes below `prefix`; reading again asks for an operator."""

    @server.get(f"{prefix}/reread", summary="What reading a period again by today's usage rules would change")
    def differences(start: Annotated[datetime, _START], end: Annotated[datetime, _END]) -> JSONResponse:
        return _answer(warehouse, access.principal(), Period(start, end), apply=False)

    @server.post(f"{prefix}/reread", summary="Read the calls of a period again by today's usage rules")
    def apply(start: Annotated[datetime, _START], end: Annotated[datetime, _END]) -> JSONResponse:
        return _answer(warehouse, access.operator("calls"), Period(start, end), apply=True)


def _answer(warehouse: Warehouse, who: access.Principal, period: Period, *, apply: bool) -> JSONResponse:
    done = reread(warehouse, who.tenant, period, apply=apply, actor=who.actor)
    rows = [{name: _plain(value) for name, value in asdict(one).items()} for one in done.differences]
    return JSONResponse({"calls": done.calls, "differences": rows})


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if hasattr(value, "isoformat") else value


def reread_calls(
    start: From,
    end: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Read stored calls again by today's usage rules: shows the difference by day, dialect and model, then asks."""
    periods = days(start, end or datetime.now(UTC))
    would = _each("GET", "days looked at", periods, url, token)
    if agreed(would, "differences", dry_run=dry_run, yes=yes, as_json=as_json):
        done = _each("POST", "days read", periods, url, token)
        show(done["differences"], done, as_json=as_json)


def _each(method: str, words: str, periods: list[tuple[str, str]], url: str, token: str | None) -> dict[str, Any]:
    """Answers of every day as one."""
    answers = [
        ask(method, url, token, "reread", params={"start": start, "end": end})
        for start, end in progress(periods, words)
    ]
    return {
        "calls": sum(answer["calls"] for answer in answers),
        "differences": [one for answer in answers for one in answer["differences"]],
    }
