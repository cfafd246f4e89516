"""Pricing stored calls again over HTTP, closing periods, and the charges that come of both and of what is agreed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import FastAPI, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from millicent.collector import charging, history
from millicent.collector.repricing import AMOUNTS, difference
from millicent.dashboard import access, filters
from millicent.dashboard import price_answers as answers
from millicent.warehouse import runs
from millicent.warehouse.query import BadQuery, Period

if TYPE_CHECKING:
    from millicent.pricing.book import PriceBook
    from millicent.warehouse.repricings import Repricing
    from millicent.warehouse.store import Warehouse

_START: Final = Query(description="Calls that began from this instant on: 2026-11-01T00:00:00Z.")
_END: Final = Query(description="Up to this instant, not included; now if left out.")
_FILTER: Final = Query(description=filters.GRAMMAR)
_CHARGED: Final = timedelta(days=92)

_Start = Annotated[datetime, _START]
_End = Annotated[datetime | None, _END]
_Filters = Annotated[list[str] | None, _FILTER]


class Closing(BaseModel):
    """Whole UTC days that are over."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime = Field(description="midnight of UTC that the first day begins with")
    end: AwareDatetime = Field(description="midnight of UTC that the last day ends with")


def mount_repricing(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes below `prefix`; those that change something ask for an operator."""
    _mount_runs(server, f"{prefix}/reprice", warehouse)
    _mount_periods(server, prefix, warehouse)


def _mount_runs(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="What pricing stored calls again would change, by day, team and model; change nothing")
    def dry_run(
        start: _Start,
        end: _End = None,
        filter: _Filters = None,  # noqa: A002 - the parameter's public name
    ) -> answers.Differences:
        period = Period(start, end or datetime.now(UTC))
        return differences(warehouse, access.principal().tenant, period, filter)

    @server.post(path, summary="Price stored calls again; answers at once, the run goes on", status_code=202)
    def begin(
        start: _Start,
        end: _End = None,
        filter: _Filters = None,  # noqa: A002 - likewise
    ) -> answers.Run:
        who = access.operator("calls")
        period = Period(start, end or datetime.now(UTC))
        version = warehouse.prices.version(who.tenant)
        run = warehouse.control.open_repricing(
            who.tenant, period.start, period.end, version, filters.parse_all(filter), actor=who.actor
        )
        return _run(run, [])

    @server.get(f"{path}/runs", summary="Every repricing, newest first")
    def listed() -> answers.Runs:
        return answers.Runs(runs=_runs(warehouse, access.principal().tenant))

    @server.get(f"{path}/{{run_id}}", summary="One repricing: how far it is, day by day")
    def one(run_id: int) -> answers.Run:
        return _one(warehouse, access.principal().tenant, run_id)

    @server.post(f"{path}/{{run_id}}/undo", summary="Put back what a repricing changed", status_code=202)
    def undo(run_id: int) -> answers.Run:
        who = access.operator("calls")
        undone = _one(warehouse, who.tenant, run_id)
        try:
            run = warehouse.control.open_repricing(
                who.tenant, undone.start, undone.end, undone.version, actor=who.actor, undo_of=run_id
            )
        except ValueError as error:
            raise HTTPException(409, str(error)) from error
        return _run(run, [])


def _mount_periods(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:

    @server.get(f"{prefix}/periods", summary="Closed periods, oldest first")
    def periods() -> answers.ClosedPeriods:
        return _periods(warehouse, access.principal().tenant)

    @server.post(f"{prefix}/periods", summary="Close a period for good", status_code=201)
    def close(told: Closing) -> answers.ClosedPeriods:
        who = access.operator("periods")
        try:
            charging.refresh(warehouse, datetime.now(UTC))
            warehouse.close_period(who.tenant, told.start, told.end, who.actor)
        except ValueError as error:
            raise BadQuery(str(error)) from error
        return _periods(warehouse, who.tenant)

    @server.get(f"{prefix}/charges", summary="Amounts that belong to no call: fees, discounts, credits, adjustments")
    def charges(
        start: Annotated[datetime | None, Query(description="Charged from then on; 92 days before `end`.")] = None,
        end: _End = None,
        type: Annotated[  # noqa: A002 - the parameter's public name
            list[str] | None, Query(description="adjustment, fee, commitment, volume or credit; repeat for more.")
        ] = None,
    ) -> answers.Charges:
        until = end or datetime.now(UTC)
        found = runs.charged(warehouse.engine, access.principal().tenant, Period(start or until - _CHARGED, until),
                             type or ())  # fmt: skip
        return answers.Charges(charges=[answers.Charge(**row) for row in found])


def differences(
    warehouse: Warehouse, tenant: str, period: Period, told: Sequence[str] | None = None, book: PriceBook | None = None
) -> answers.Differences:
    """What repricing a period would change; `book` are other prices than the tenant's present ones."""
    found = list(difference(warehouse, tenant, period, filters.parse_all(told), book))
    return answers.Differences(
        calls=sum(one.calls for one in found), differences=[answers.Difference.model_validate(one) for one in found]
    )


def _runs(warehouse: Warehouse, tenant: str) -> list[answers.Run]:
    asked = warehouse.control.repricings(tenant)[::-1]
    days = runs.days(warehouse.engine, tenant, [run.id for run in asked])
    return [_run(run, days[run.id]).model_copy(update={"days": []}) for run in asked]


def _one(warehouse: Warehouse, tenant: str, run_id: int) -> answers.Run:
    found = [run for run in warehouse.control.repricings(tenant) if run.id == run_id]
    if not found:
        raise HTTPException(404, f"there is no repricing {run_id}: see /api/v1/reprice/runs")
    return _run(found[0], runs.days(warehouse.engine, tenant, [run_id])[run_id])


def _run(run: Repricing, days: Sequence[dict[str, Any]]) -> answers.Run:
    ended: answers.State = "failed" if run.error else "done"
    state: answers.State = ended if run.finished_at else "running" if days else "waiting"
    total = sum(1 for _ in history.steps(Period(run.start, run.end), history.DAY))
    told = ("id", "actor", "start", "end", "version", "undo_of", "created_at", "finished_at", "error")
    sums = {name: _sum(day[name] for day in days) for name in AMOUNTS}
    counts = {name: sum(day[name] for day in days) for name in ("calls", "changed")}
    known: dict[str, Any] = {**{name: getattr(run, name) for name in told}, **counts, **sums}
    return answers.Run(
        **known,
        state=state,
        filters=[filters.written(one) for one in run.filters],
        days_total=total,
        days_done=total if state == "done" else len({day["day"] for day in days}),
        days=[answers.Day(**day) for day in days],
    )


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def _periods(warehouse: Warehouse, tenant: str) -> answers.ClosedPeriods:
    closed = warehouse.control.closed_periods(tenant)
    return answers.ClosedPeriods(periods=[answers.ClosedPeriod.model_validate(one) for one in closed])
