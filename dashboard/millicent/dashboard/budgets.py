"""Budgets over HTTP: list them and how they stand, set one or its next version, end one; suggest and try one.

Amounts are text.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

from fastapi import Body, Query
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from millicent.dashboard import access, asking, filters
from millicent.warehouse import alert_rules, budget_trials, budgets, standings
from millicent.warehouse.budget_trials import Kind, Threshold
from millicent.warehouse.budgets import BadBudgetError, Budget, Parts
from millicent.warehouse.instants import text_of
from millicent.warehouse.query import BadQuery
from millicent.warehouse.standings import Standing, Untold
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from millicent.warehouse.budget_trials import Judged
    from millicent.warehouse.outlook import Forecast
    from millicent.warehouse.standings import Ask
    from millicent.warehouse.store import Warehouse
    from millicent.warehouse.workspace import Workspace

_AT: Final = Query(description="How they stood at this instant, 2026-11-26T12:00:00Z; now if left out.")
_SINCE: Final = Query(description="Periods that end after it; 183 days before `until` if left out.")
_UNTIL: Final = Query(description="Periods that begin before it; now if left out. Ten years at most are looked at.")
_BUDGET: Final = Body(
    description="`name` and `amount` (text) are needed. `filters`: what spend it is about, as `filter` of `query` "
    "writes it. `period`: day, week, month (default), quarter, fiscal_year, or rolling with `rolling_days`: the last "
    "so many whole days. `currency`, `time_zone` and `fiscal_month` are those of the workspace if left out. "
    "`rollover`, what a period leaves to the next: none (default), unspent, or balance, which takes off what was "
    "overspent. `enforcement`, what a guarded call is told at the limit: none (default), warn or block. `basis`, "
    "`parent` (id), `owner`, `note`, `effective_from` (now if left out). With an `id`, or the name of a budget that "
    "holds, it is the next version of that one; with its `version` only if no other was set since."
)
_SUGGEST: Final = Body(
    description="`budget`: as it would be set; neither name nor amount are needed. `more` (text): what is added to "
    "what was spent, as a share, 0.1 if left out. `at`: the instant up to which calls are known, now if left out."
)
_SIMULATE: Final = Body(
    description="`budget`: as it would be set; no name is needed. `rules`: `kind` (actual, forecast) and `threshold` "
    "(0.8 or 80%) of each that is tried; if left out those of the budget with that `id`, else those that a budget gets "
    "when it is set. `since`, `until`: up to 400 days, the last 183 if left out."
)
TRIED: Final = timedelta(days=183)
"""How far back a trial goes."""
MOST_LOOKED: Final = timedelta(days=3660)
"""Days of periods that are told at once."""
MOST_THRESHOLD: Final = 1000
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
    _mount_trials(server, path, warehouse)

    @server.get(path, summary="Every budget that holds, and how it stands")
    def listed(at: Annotated[str | None, _AT] = None) -> JSONResponse:
        tenant, instant = access.principal().tenant, _instant("at", at)
        found = standings.live_standings(warehouse, tenant, instant)
        held = [one.budget for one in found]
        return JSONResponse({"budgets": [_stood(one, held) for one in found], "at": text_of(instant)})

    @server.get(f"{path}/{{budget_id}}", summary="One budget: how it stands, and its versions")
    def shown(budget_id: int, at: Annotated[str | None, _AT] = None) -> JSONResponse:
        tenant, instant = access.principal().tenant, _instant("at", at)
        versions = _versions(warehouse, tenant, budget_id)
        held = budgets.live(warehouse.control, tenant, instant)
        one = next((one for one in held if one.id == budget_id), None)
        stands = _stood(standings.standing(warehouse, tenant, one, instant), held) if one else None
        return JSONResponse(
            {"budget": stands, "versions": [budgets.written(one) for one in versions], "at": text_of(instant)}
        )

    @server.get(f"{path}/{{budget_id}}/periods", summary="What each period of a budget came to")
    def by_period(
        budget_id: int, since: Annotated[str | None, _SINCE] = None, until: Annotated[str | None, _UNTIL] = None
    ) -> JSONResponse:
        tenant, end = access.principal().tenant, _instant("until", until)
        start = _instant("since", since) if since else end - TRIED
        if not start < end <= start + MOST_LOOKED:
            raise BadQuery(
                f"since {text_of(start)} is not up to {MOST_LOOKED.days:,} days before {text_of(end)}: ask for less"
            )
        versions = _versions(warehouse, tenant, budget_id)
        found = standings.spent_by_period(_ask(warehouse, tenant), versions, start, end)
        told = [_period(row) for row in found.iter_rows(named=True)]
        return JSONResponse({"periods": told, "since": text_of(start), "until": text_of(end)})

    @server.post(path, summary="Set a budget, or its next version", status_code=201,
                 response_description="the budget as it is stored")  # fmt: skip
    def put(told: Annotated[dict[str, Any], _BUDGET]) -> JSONResponse:
        who = access.operator("budgets")
        made = budgets.put(warehouse.control, who.tenant, read(told, warehouse, who.tenant), who.actor)
        return JSONResponse(budgets.written(made), 201)

    @server.delete(f"{path}/{{budget_id}}", summary="End a budget, from now on",
                   response_description="its last version; all versions are kept")  # fmt: skip
    def ended(budget_id: int) -> JSONResponse:
        who = access.operator("budgets")
        _versions(warehouse, who.tenant, budget_id)
        gone = budgets.end(warehouse.control, who.tenant, budget_id, who.actor)
        return JSONResponse(budgets.written(gone))


def _mount_trials(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    @server.post(f"{path}/suggest", summary="What a budget might be, from what was spent",
                 response_description="`amount` (null where nothing was spent that could tell) and `currency`, "
                 "`method` in words, `history`: whole periods with `start`, `end`, `actual` and `incomplete`, and "
                 "`forecast` of the present period")  # fmt: skip
    def suggested(told: Annotated[dict[str, Any], _SUGGEST]) -> JSONResponse:
        tenant = access.principal().tenant
        _check_known(told, ("budget", "more", "at"))
        scope = read({"name": "suggested", "amount": "1", **_told_budget(told)}, warehouse, tenant)
        more = budgets.amount(told["more"]) if told.get("more") is not None else budget_trials.MORE
        found = budget_trials.suggest(_ask(warehouse, tenant), scope, _given(told, "at", datetime.now(UTC)), more)
        history = [
            {"start": text_of(one.period.start), "end": text_of(one.period.end), "actual": _plain(one.actual),
             "incomplete": list(one.incomplete)}
            for one in found.history
        ]  # fmt: skip
        ahead = _forecast(found.forecast) if found.forecast else None
        return JSONResponse({"amount": _plain(found.amount), "currency": scope.currency, "method": found.method,
                             "history": history, "forecast": ahead})  # fmt: skip

    @server.post(f"{path}/simulate", summary="How a budget would have done, had it held already",
                 response_description="`periods` with `start`, `end`, `over` (whether it is), `limit`, `carried`, "
                 "`actual`, `run_out_date`, `incomplete` and `fired` (`kind`, `threshold`, `day`); `exceeded`: how "
                 "many reached their limit, `told`: how often somebody would have been told")  # fmt: skip
    def simulated(told: Annotated[dict[str, Any], _SIMULATE]) -> JSONResponse:
        tenant = access.principal().tenant
        _check_known(told, ("budget", "rules", "since", "until"))
        wanted = read({"name": "simulated", **_told_budget(told)}, warehouse, tenant)
        rules = _rules(told.get("rules"), warehouse, tenant, wanted)
        until = _given(told, "until", datetime.now(UTC))
        since = _given(told, "since", until - TRIED)
        found = budget_trials.simulate(_ask(warehouse, tenant), wanted, rules, since, until)
        periods = [
            {"start": text_of(one.period.start), "end": text_of(one.period.end), "over": one.over,
             "limit": _plain(one.limit), "carried": _plain(one.carried), "actual": _plain(one.actual),
             "run_out_date": one.run_out_date.isoformat() if one.run_out_date else None,
             "incomplete": list(one.incomplete),
             "fired": [{"kind": told.kind, "threshold": _plain(told.threshold), "day": told.day.isoformat()}
                       for told in one.fired]}
            for one in found.periods
        ]  # fmt: skip
        bounds = {"since": text_of(since), "until": text_of(until)}
        return JSONResponse({"periods": periods, "exceeded": found.exceeded, "told": found.told,
                             "currency": wanted.currency, **bounds})  # fmt: skip


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


def _told_budget(told: dict[str, Any]) -> dict[str, Any]:
    found = told.get("budget", {})
    if not isinstance(found, dict):
        raise BadBudgetError('budget is no object: write {"filters": ["team:search"], "period": "month"}')
    return {name: value for name, value in found.items() if name != "version"}


def _rules(told: Any, warehouse: Warehouse, tenant: str, wanted: Budget) -> Sequence[Judged]:
    """Those that are told, else those of the budget, else those that a budget gets."""
    if told is None:
        own = alert_rules.live(warehouse.control, tenant, budget=wanted.id) if wanted.id is not None else []
        return own or budget_trials.USUAL
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise BadBudgetError('rules are no list of objects: write [{"kind": "actual", "threshold": "0.8"}]')
    for one in told:
        _check_known(one, ("kind", "threshold"))
        if one.get("kind") not in get_args(Kind):
            raise BadBudgetError(f"kind {str(one.get('kind'))[:40]!r} cannot be tried: write actual or forecast")
    found = [Threshold(one["kind"], alert_rules.number(one.get("threshold"))) for one in told]
    if bad := [one for one in found if not 0 < one.threshold <= MOST_THRESHOLD]:
        raise BadBudgetError(f"threshold {bad[0].threshold} is not above 0 and up to {MOST_THRESHOLD}: write 0.8")
    return found


def _check_known(told: dict[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in told if name not in known]:
        raise BadBudgetError(f"field {unknown[0][:40]!r} is unknown: write {', '.join(known)}")


def _given(told: dict[str, Any], name: str, usual: datetime) -> datetime:
    value = told.get(name)
    if value is not None and not isinstance(value, str):
        raise BadQuery(f"{name} {str(value)[:40]!r} is not text: write 2026-11-23T08:00:00Z")
    return _instant(name, value) if value else usual


def _ask(warehouse: Warehouse, tenant: str) -> Ask:
    return lambda query: warehouse.ask(tenant, query).frame


def _versions(warehouse: Warehouse, tenant: str, budget_id: int) -> list[Budget]:
    found = budgets.history(warehouse.control, tenant, budget_id)
    if not found:
        raise HTTPException(404, f"there is no budget {budget_id}: see /api/v1/budgets")
    return found


def _stood(one: Standing | Untold, held: Sequence[Budget]) -> dict[str, Any]:
    """A budget, what is part of it and how it stands, as JSON; one that cannot be told of says why, and no amounts."""
    written = {
        **budgets.written(one.budget),
        "filters": [filters.written(kept) for kept in one.budget.filters],
        "parts": _parts(budgets.parts(one.budget, held)),
    }
    told: dict[str, Any] = dict.fromkeys(TOLD)
    told["period"] = {"start": text_of(one.period.start), "end": text_of(one.period.end)}
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


def _period(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `spent_by_period` as JSON."""
    told = {"version": row["version"], "start": text_of(row["period_start"]), "end": text_of(row["period_end"])}
    amounts = {name: _plain(row[name]) for name in ("limit", "carried", "actual")}
    return {**told, **amounts, "incomplete": list(standings.words_of(*(row[name] for name in standings.UNKNOWN)))}


def _parts(found: Parts) -> dict[str, Any]:
    names = {"budgets": found.budgets, "apart": found.apart, "outside": found.outside}
    ids = {name: [one.id for one in some] for name, some in names.items()}
    return {**ids, "amount": _plain(found.amount), "exceeds": found.exceeds}


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


def _instant(name: str, text: str | None) -> datetime:
    found = asking.instant(name, text) if text else datetime.now(UTC)
    if found.tzinfo is None:
        raise BadQuery(f"{name} {text!r} has no time zone: add Z for UTC or an offset")
    return found
