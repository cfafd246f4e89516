"""The HTTP API: questions in, JSON, CSV, Parquet or Arrow out. Decimals are strings, ids lower-case hex.

Errors are RFC 9457 problems whose detail names the value, the rule and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from millicent.collector.history import ClosedPeriodError
from millicent.dashboard import access, asking, export_files, exporting, filters
from millicent.dashboard.alerts import mount_alerts
from millicent.dashboard.budget_checks import mount_budget_checks
from millicent.dashboard.budgets import mount_budgets
from millicent.dashboard.business_units import mount_units
from millicent.dashboard.catalog import mount_catalog
from millicent.dashboard.deployments import mount_deployments
from millicent.dashboard.focus_answers import mount_focus
from millicent.dashboard.forward import mount_forward
from millicent.dashboard.price_usage import mount_pricing
from millicent.dashboard.prices import mount_prices
from millicent.dashboard.repricing import mount_repricing
from millicent.dashboard.rereading import mount_rereading
from millicent.dashboard.rules import mount_rules
from millicent.dashboard.statement_answers import mount_statements
from millicent.dashboard.views import mount_views
from millicent.dashboard.webhooks import mount_webhooks
from millicent.pricing.entries import BadPricesError
from millicent.warehouse.alert_rules import BadRuleError
from millicent.warehouse.alerts import BadAlertError
from millicent.warehouse.budgets import BadBudgetError
from millicent.warehouse.calls import Cost, Order, Search
from millicent.warehouse.deployments import BadDeploymentsError
from millicent.warehouse.endpoint_forms import BadEndpointError
from millicent.warehouse.engine import EngineError
from millicent.warehouse.metrics import DICTIONARY, named
from millicent.warehouse.query import ASKABLE, BadQuery, Basis, Grain
from millicent.warehouse.query import Query as Question
from millicent.warehouse.record import CALLS
from millicent.warehouse.store import Warehouse
from millicent.warehouse.workspace import zone

PREFIX: Final = "/api/v1"
_NAMES: Final = Query(description="Names; repeat the parameter or separate with commas.")


_FILTER: Final = Query(description=filters.GRAMMAR)
_TOLD: Final = {column.name: column.meaning for column in CALLS}
_MEANINGS: Final = {name: _TOLD.get(name, "api or hardware: what the money went to") for name in ASKABLE}
_BY_DIMENSION: Final = {
    "parameters": [
        {
            "name": name, "in": "query", "required": False, "schema": {"type": "string"},
            "description": f"{meaning}; the same as `filter={name}:…`",
        }
        for name, meaning in _MEANINGS.items()
    ]
}  # fmt: skip
"""Any dimension is a parameter of its own."""


def mount_api(server: FastAPI, warehouse: Warehouse, books: Callable[[], dict[str, int]], metrics: Callable[[], str],
              ready: Callable[[], bool], receiver: str = "http://127.0.0.1:4318") -> None:  # fmt: skip
    """Add the API, health and telemetry routes to `server`.

    Args:
        server: where they are added.
        warehouse: what is asked.
        books: spans received and where each is, of the whole installation.
        metrics: the process's own telemetry in Prometheus text.
        ready: whether calls are being loaded.
        receiver: base URL of the OTLP port, where calls that are posted here go.
    """
    mount_forward(server, PREFIX, receiver)
    _routes(server, warehouse, books)
    for cannot_be in (BadQuery, BadBudgetError, BadRuleError, BadAlertError, BadEndpointError):
        server.add_exception_handler(cannot_be, _bad_query)
    server.add_exception_handler(BadPricesError, _bad_prices)
    server.add_exception_handler(BadDeploymentsError, _bad_deployments)
    server.add_exception_handler(ClosedPeriodError, _closed)
    server.add_exception_handler(HTTPException, _http_problem)
    server.add_exception_handler(RequestValidationError, _invalid)
    server.add_exception_handler(EngineError, _engine_problem)

    @server.get("/healthz", include_in_schema=False)
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("up\n")

    @server.get("/readyz", include_in_schema=False)
    def readyz() -> PlainTextResponse:
        return PlainTextResponse("ready\n" if ready() else "not loading\n", 200 if ready() else 503)

    @server.get("/metrics", include_in_schema=False)
    def telemetry() -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _routes(server: FastAPI, warehouse: Warehouse, books: Callable[[], dict[str, int]]) -> None:

    @server.get(f"{PREFIX}/query", summary="Measures by dimensions over a period")
    def query(
        measures: Annotated[list[str], _NAMES],
        group_by: Annotated[list[str] | None, _NAMES] = None,
        filter: Annotated[list[str] | None, _FILTER] = None,  # noqa: A002 - the parameter's public name
        start: str | None = None,
        end: str | None = None,
        period: Annotated[str | None, Query(description="24h, 7d, 4w or mtd, up to the end of this hour.")] = None,
        grain: str | None = None,
        basis: str = "effective",
        currency: Annotated[
            str,
            Query(
                description="ISO 4217 code. Each amount is converted by the rate of its instant in the price book, and "
                "the code stands for usd in the names of columns."
            ),
        ] = "USD",
        time_zone: Annotated[
            str,
            Query(
                description="IANA name. Days, weeks and months begin at its midnights, in rows and in start, end and "
                "mtd; instants are told in UTC."
            ),
        ] = "UTC",
        order: Annotated[list[str] | None, _NAMES] = None,
        limit: int | None = None,
        format: Literal["json", "csv", "xlsx", "parquet", "arrow"] = "json",  # noqa: A002 - likewise
    ) -> Response:
        question = Question(
            measures=_list(measures),
            dimensions=_list(group_by),
            filters=filters.parse_all(filter),
            period=asking.period(start, end, period, _zone(time_zone)),
            grain=cast("Grain | None", grain),
            basis=cast("Basis", basis),
            currency=currency,
            time_zone=time_zone,
            order=_list(order),
            limit=limit,
        )
        tenant = access.principal().tenant
        answer = warehouse.ask(tenant, question)
        columns = {name: named(name, currency) for name in question.measures}
        if format != "json":
            rates = [rate.words for rate in answer.rates]
            sheet = exporting.sheet(answer.frame, lambda whole: warehouse.ask(tenant, whole).frame, question, rates)
            totals = {columns[name]: total for name, total in sheet.totals.items()}
            return export_files.answered(replace(sheet, frame=sheet.frame.rename(columns), totals=totals), format)
        meta = {
            "start": question.period.start.isoformat(),
            "end": question.period.end.isoformat(),
            "basis": basis,
            "currency": currency,
            "rates": [
                asking.plain(
                    {
                        "currency": one.currency,
                        "from": one.since,
                        "usd_per_unit": one.usd_per_unit,
                        "source": one.source,
                    }
                )
                for one in answer.rates
            ],
            "time_zone": time_zone,
            "source": answer.source,
            "elapsed_ms": answer.elapsed_ms,
            "measures": {column: _described(name, currency) for name, column in columns.items()},
        }
        rows = export_files.texts(answer.frame.rename(columns)).write_json()
        return Response(f'{{"rows":{rows},"meta":{_json(meta)}}}', media_type="application/json")

    @server.get(f"{PREFIX}/calls", summary="Single calls", openapi_extra=_BY_DIMENSION)
    def calls(
        request: Request,
        trace_id: str | None = None,
        filter: Annotated[list[str] | None, _FILTER] = None,  # noqa: A002 - the parameter's public name
        start: str | None = None,
        end: str | None = None,
        period: str | None = None,
        include: Annotated[
            Literal["uncounted"] | None,
            Query(
                description="uncounted: also what is stored but not counted, with `not_counted_reason` and "
                "`counted_as`, `counted_as_trace_id` of the row that counts."
            ),
        ] = None,
        cost: Annotated[
            Cost, Query(description="The cost that `least_usd` and `below_usd` are of.")
        ] = "effective_cost_usd",
        least_usd: Annotated[Decimal | None, Query(description="Only calls that cost as much or more.")] = None,
        below_usd: Annotated[Decimal | None, Query(description="Only calls that cost less.")] = None,
        order: Annotated[Order, Query(description="Equal costs newest first, unknown costs last.")] = "-started_at",
        limit: int = 100,
        cursor: Annotated[str | None, Query(description="`next` of the page before, in the same order.")] = None,
    ) -> JSONResponse:
        bounded = start or end or period
        named = {"trace_id", "filter", "start", "end", "period", "include", "order", "limit", "cursor", "cost",
                 "least_usd", "below_usd"}  # fmt: skip
        wanted = [*(filter or ())]
        wanted += [f"{name}:{value}" for name, value in request.query_params.multi_items() if name not in named]
        search = Search(
            trace_id=_trace(trace_id) if trace_id else None,
            period=asking.period(start, end, period) if bounded else None,
            filters=filters.parse_all(wanted),
            include_uncounted=include == "uncounted",
            cost=cost,
            least_usd=least_usd,
            below_usd=below_usd,
            order=order,
            limit=limit,
            cursor=cursor,
        )
        rows, following = warehouse.find(access.principal().tenant, search)
        return JSONResponse({"calls": [asking.plain(row) for row in rows], "next": following})

    @server.get(f"{PREFIX}/calls/{{trace_id}}/{{span_id}}", summary="One call")
    def call(trace_id: str, span_id: str) -> JSONResponse:
        return JSONResponse(asking.plain(_one(warehouse, trace_id, span_id)))

    @server.get(f"{PREFIX}/explain/{{trace_id}}/{{span_id}}", summary="Why a call costs what it does, line by line")
    def explain(trace_id: str, span_id: str) -> JSONResponse:
        found = _one(warehouse, trace_id, span_id)
        derived = [asdict(line) for line in warehouse.explain(access.principal().tenant, found)]
        amounts = ("list_cost_usd", "billed_cost_usd", "effective_cost_usd", "price_status", "price_entry")
        return JSONResponse({"call": asking.plain({name: found[name] for name in amounts}), "lines": derived})

    @server.get(f"{PREFIX}/balance", summary="Where every acknowledged span went")
    def balance() -> JSONResponse:
        counts = books()  # before the reasons, so that what the counts call loaded is among these
        why = [{"outcome": outcome, "reason": reason, "spans": spans} for outcome, reason, spans in warehouse.reasons()]
        return JSONResponse({**counts, "reasons": why})

    @server.get(f"{PREFIX}/metrics-dictionary", summary="Every measure: formula, unit, denominator, words")
    def dictionary() -> JSONResponse:
        return JSONResponse({"measures": [asdict(measure) for measure in DICTIONARY.values()], "dimensions": ASKABLE})

    mount_deployments(server, PREFIX, warehouse)
    mount_catalog(server, PREFIX)
    mount_prices(server, PREFIX, warehouse)
    mount_pricing(server, PREFIX, warehouse)
    mount_repricing(server, PREFIX, warehouse)
    mount_rules(server, PREFIX, warehouse)
    mount_rereading(server, PREFIX, warehouse)
    mount_views(server, PREFIX, warehouse)
    mount_units(server, PREFIX, warehouse)
    mount_budget_checks(server, PREFIX, warehouse)
    mount_budgets(server, PREFIX, warehouse)
    mount_alerts(server, PREFIX, warehouse)
    mount_webhooks(server, PREFIX, warehouse)
    mount_statements(server, PREFIX, warehouse)
    mount_focus(server, PREFIX, warehouse)

    @server.get(f"{PREFIX}/{{path:path}}", include_in_schema=False)
    def unknown(path: str) -> None:
        raise HTTPException(404, f"there is no {PREFIX}/{path}: see {PREFIX}/openapi.json")


def _list(names: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(part for name in names or () for part in name.split(",") if part)


def _trace(text: str) -> UUID:
    try:
        return UUID(hex=text)
    except ValueError as error:
        raise BadQuery(f"trace_id {text!r} is not 32 hex digits") from error


def _one(warehouse: Warehouse, trace_id: str, span_id: str) -> dict[str, Any]:
    try:
        span = int(span_id, 16)
    except ValueError as error:
        raise BadQuery(f"span_id {span_id!r} is not 16 hex digits") from error
    search = Search(trace_id=_trace(trace_id), span_id=span, include_uncounted=True, limit=1)
    rows, _ = warehouse.find(access.principal().tenant, search)
    if not rows:
        raise HTTPException(404, f"no call {trace_id}/{span_id}: it may still be on its way, see {PREFIX}/balance")
    return rows[0]


def _described(name: str, currency: str) -> dict[str, Any]:
    measure = DICTIONARY[name]
    return {"label": measure.label, "unit": named(measure.unit, currency), "formula": measure.formula}


def _zone(name: str) -> ZoneInfo:
    try:
        return zone(name)
    except ValueError as error:
        raise BadQuery(str(error)) from error


def _json(value: Any) -> str:
    return JSONResponse(value).body.decode()  # type: ignore[union-attr]


def _problem(status: int, title: str, detail: str, **more: Any) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return JSONResponse(body, status, media_type="application/problem+json")


def _bad_query(_: Request, error: Exception) -> Response:
    return _problem(400, "Bad query", str(error))


def _bad_prices(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadPricesError)  # noqa: S101 - registered for nothing else
    return _problem(400, "Bad prices", str(error), problems=error.problems)


def _bad_deployments(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadDeploymentsError)  # noqa: S101 - registered for nothing else
    return _problem(400, "Bad deployments", str(error), problems=error.problems)


def _closed(_: Request, error: Exception) -> Response:
    return _problem(409, "Closed period", str(error))


def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    told = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
    return _problem(400, "Bad query", told)


def _http_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return _problem(error.status_code, "Not found" if error.status_code == 404 else "Refused", str(error.detail))


def _engine_problem(_: Request, error: Exception) -> Response:
    return _problem(503, "The database failed", str(error))
