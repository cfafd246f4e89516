"""Budgets over HTTP: list them and how they stand, set one or its next version, end one. Amounts are text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, Query
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millicent.dashboard import access, asking, filters
from millicent.warehouse import budgets, standings
from millicent.warehouse.budgets import BadBudgetError, Budget
from millicent.warehouse.query import BadQuery
from millicent.warehouse.standings import Standing, Untold
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.outlook import Forecast
    from millicent.warehouse.store import Warehouse
    from millicent.warehouse.workspace import Workspace

_AT: Final = Query(description="How they stood at this instant, 2026-11-26T12:00:00Z; now if left out.")
_BUDGET: Final = Body(
    description="`name` and `amount` (text) are needed. `filters`: what spend it is about, as `filter` of `query` "
    "writes it. `period`: day, week, month (default), quarter, fiscal_year, or rolling with `rolling_days`: the last "
    "so many whole days. `currency`, `time_zone` and `fiscal_month` are those of the workspace if left out. "
    "`rollover`, what a period leaves to the next: none (default), unspent, or balance, which takes off what was "
    "overspent. `enforcement`, what a guarded call is told at the limit: none (default), warn or block. `basis`, "
    "`parent` (id), `owner`, `note`, `effective_from` (now if left out). With an `id`, or the name of a budget that "
    "holds, it is the next version of that one; with its `version` only if no other was set since."
)
TOLD: Final = (
    "period", "limit", "carried", "actual", "ratio", "forecast", "expected_ratio", "elapsed_ratio", "state",
    "run_out_date", "incomplete", "spent", "failure",
)  # fmt: skip
"""What is told of how a budget stands."""
_KNOWN: Final = (
    "name", "amount", "filters", "period", "currency", "basis", "time_zone", "fiscal_month", "parent", "owner", "note",
    "effective_from", "id", "version", "rolling_days", "rollover", "enforcement",
)  # fmt: skip
_KINDS: Final = {
    **dict.fromkeys(("name", "period", "currency", "basis", "time_zone", "owner", "note", "effective_from"), str),
    **dict.fromkeys(("rollover", "enforcement"), str),
    **dict.fromkeys(("fiscal_month", "parent", "id", "version", "rolling_days"), int),
}


def mount_budgets(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of budgets below `prefix`; those that change something ask for an operator."""
    path = f"{prefix}/budgets"

    @server.get(path, summary="Every budget that holds, and how it stands")
    def listed(at: Annotated[str | None, _AT] = None) -> JSONResponse:
        tenant, instant = access.principal().tenant, _instant(at)
        found = standings.live_standings(warehouse, tenant, instant)
        return JSONResponse({"budgets": [_stood(one) for one in found], "at": _text(instant)})

    @server.get(f"{path}/{{budget_id}}", summary="One budget: how it stands, and its versions")
    def shown(budget_id: int, at: Annotated[str | None, _AT] = None) -> JSONResponse:
        tenant, instant = access.principal().tenant, _instant(at)
        versions = _versions(warehouse, tenant, budget_id)
        holds = [one for one in budgets.live(warehouse.control, tenant, instant) if one.id == budget_id]
        stands = _stood(standings.standing(warehouse, tenant, holds[0], instant)) if holds else None
        return JSONResponse(
            {"budget": stands, "versions": [budgets.written(one) for one in versions], "at": _text(instant)}
        )

    @server.post(path, summary="Set a budget, or its next version", status_code=201,
                 response_description="the budget as it is stored")  # fmt: skip
    def put(told: Annotated[dict[str, Any], _BUDGET]) -> JSONResponse:
        who = access.operator("budgets")
        try:
            made = budgets.put(warehouse.control, who.tenant, read(told, warehouse, who.tenant), who.actor)
        except BadBudgetError as error:
            raise BadQuery(str(error)) from error
        return JSONResponse(budgets.written(made), 201)

    @server.delete(f"{path}/{{budget_id}}", summary="End a budget, from now on",
                   response_description="its last version; all versions are kept")  # fmt: skip
    def ended(budget_id: int) -> JSONResponse:
        who = access.operator("budgets")
        _versions(warehouse, who.tenant, budget_id)
        try:
            gone = budgets.end(warehouse.control, who.tenant, budget_id, who.actor)
        except BadBudgetError as error:
            raise BadQuery(str(error)) from error
        return JSONResponse(budgets.written(gone))


def read(told: dict[str, Any], warehouse: Warehouse, tenant: str) -> Budget:
    """A budget from JSON; what is not told is as the workspace prefers. See `read_by`."""
    return read_by(told, preferences(warehouse.control, tenant))


def read_by(told: dict[str, Any], liked: Workspace) -> Budget:
    """A budget from JSON, by what a workspace prefers.

    Raises:
        BadBudgetError: a field is unknown, missing or of another kind, or the budget cannot be.
        BadQuery: a filter, or the instant, cannot be.
    """
    if unknown := [name for name in told if name not in _KNOWN]:
        raise BadBudgetError(f"field {unknown[0][:40]!r} is unknown: write {', '.join(_KNOWN)}")
    for name in ("name", "amount"):
        if name not in told:
            raise BadBudgetError(f"{name} is missing: write what the budget is called, and what it may come to")
    given = {name: value for name, value in told.items() if value is not None}
    for name, kind in _KINDS.items():
        if name in given and (not isinstance(given[name], kind) or isinstance(given[name], bool)):
            words = "text" if kind is str else "a whole number"
            raise BadBudgetError(f"{name} {str(given[name])[:40]!r} is not {words}: correct it")
    texts = given.get("filters", [])
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise BadBudgetError('filters are not a list of texts: write ["team:search"]')
    since = given.get("effective_from")
    usual = {"currency": liked.currency, "time_zone": liked.time_zone, "fiscal_month": liked.fiscal_month}
    made: dict[str, Any] = {
        **usual,
        **given,
        "amount": budgets.amount(given["amount"]),
        "filters": filters.parse_all(texts),
        "effective_from": asking.instant("effective_from", since) if since else datetime.now(UTC),
    }
    return Budget(**made)


def _versions(warehouse: Warehouse, tenant: str, budget_id: int) -> list[Budget]:
    found = budgets.history(warehouse.control, tenant, budget_id)
    if not found:
        raise HTTPException(404, f"there is no budget {budget_id}: see /api/v1/budgets")
    return found


def _stood(one: Standing | Untold) -> dict[str, Any]:
    """A budget and how it stands, as JSON; one that cannot be told of says why, and no amounts."""
    written = {**budgets.written(one.budget), "filters": [filters.written(kept) for kept in one.budget.filters]}
    told: dict[str, Any] = dict.fromkeys(TOLD)
    told["period"] = {"start": _text(one.period.start), "end": _text(one.period.end)}
    if isinstance(one, Untold):
        return {**written, "standing": {**told, "failure": one.failure}}
    told |= {
        "limit": _plain(one.limit), "carried": _plain(one.carried), "actual": _plain(one.actual),
        "ratio": _share(one.ratio), "forecast": _forecast(one.forecast) if one.forecast else None,
        "expected_ratio": _share(one.expected_ratio),
        "elapsed_ratio": _plain(one.elapsed_ratio), "state": one.state,
        "run_out_date": one.run_out_date.isoformat() if one.run_out_date else None,
        "incomplete": list(one.incomplete),
        "spent": [{"day": day.isoformat(), "amount": _plain(total)} for day, total in one.spent],
    }  # fmt: skip
    return {**written, "standing": told}


def _forecast(found: Forecast) -> dict[str, Any]:
    error = found.error
    return {
        "p10": _plain(found.p10_usd), "p50": _plain(found.p50_usd), "p90": _plain(found.p90_usd),
        "method": found.method,
        "error": {"mape": _plain(error.mape), "coverage": _plain(error.coverage), "folds": error.folds,
                  "days": error.days},
        "days": [
            {"day": day.day.isoformat(), "p10": _plain(day.p10_usd), "p50": _plain(day.p50_usd),
             "p90": _plain(day.p90_usd)}
            for day in found.days
        ],
    }  # fmt: skip


def _plain(value: Any) -> Any:
    return asking.plain({"": value})[""]


def _share(ratio: Any) -> str | None:
    return None if ratio is None else f"{ratio:.4f}"


def _instant(text: str | None) -> datetime:
    found = asking.instant("at", text) if text else datetime.now(UTC)
    if found.tzinfo is None:
        raise BadQuery(f"at {text!r} has no time zone: add Z for UTC or an offset")
    return found


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
