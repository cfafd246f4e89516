"""Which periods are closed, and which repricings were asked for: what was agreed on about amounts already stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import JSON, Column, Connection, Integer, String, Table, insert, select, update

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.query import Filter

closed_periods: Final = Table(
    "closed_periods", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("start", Instant, nullable=False), Column("end", Instant, nullable=False),
    Column("closed_at", Instant, nullable=False), Column("actor", String, nullable=False),
)  # fmt: skip
repricings: Final = Table(
    "repricings", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("actor", String, nullable=False), Column("start", Instant, nullable=False),
    Column("end", Instant, nullable=False), Column("filters", JSON, nullable=False),
    Column("version", String, nullable=False), Column("undo_of", Integer),
    Column("created_at", Instant, nullable=False), Column("finished_at", Instant), Column("error", String),
    sqlite_autoincrement=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClosedPeriod:
    """Whole UTC days, `[start, end)`, whose stored amounts do not move any more."""

    start: datetime
    end: datetime
    closed_at: datetime
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repricing:
    """A run over the calls of a tenant that began in `[start, end)` and pass `filters`.

    `version` is the price book that was in force when it was asked for. `undo_of` is the run whose changes it takes
    back. It is unfinished while `finished_at` is None; `error` says why it ended without being done.
    """

    id: int
    tenant: str
    actor: str
    start: datetime
    end: datetime
    filters: tuple[Filter, ...] = ()
    version: str
    undo_of: int | None = None
    created_at: datetime
    finished_at: datetime | None = None
    error: str | None = None


def close(
    connection: Connection, tenant: str, start: datetime, end: datetime, actor: str, now: datetime
) -> ClosedPeriod:
    """Close a period.

    Raises:
        ValueError: it is not of whole UTC days, is empty or not over, or overlaps one that is closed.
    """
    for name, instant in (("start", start), ("end", end)):
        if instant.tzinfo is None or instant.astimezone(UTC).time() != time():
            raise ValueError(f"{name} {instant.isoformat()} is not a midnight of UTC: whole UTC days are closed")
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if start >= end:
        raise ValueError(f"start {start.isoformat()} is not before end {end.isoformat()}: swap them")
    if end > now:
        raise ValueError(f"end {end.isoformat()} is not past: only days that are over can be closed")
    for other in closed(connection, tenant):
        if start < other.end and other.start < end:
            raise ValueError(
                f"{start:%Y-%m-%d} to {end:%Y-%m-%d} overlaps {other.start:%Y-%m-%d} to {other.end:%Y-%m-%d}, closed "
                f"by {other.actor} at {other.closed_at:%Y-%m-%d %H:%M} UTC: leave those days out"
            )
    row = {"start": start, "end": end, "closed_at": now}
    connection.execute(insert(closed_periods).values(tenant=tenant, actor=actor, **row))
    return ClosedPeriod(start, end, now, actor)


def closed(connection: Connection, tenant: str) -> list[ClosedPeriod]:
    """Closed periods of a tenant, oldest first; they do not overlap."""
    return [period for owner, period in closings(connection) if owner == tenant]


def closings(connection: Connection) -> list[tuple[str, ClosedPeriod]]:
    """(tenant, closed period) of every tenant, oldest first."""
    c = closed_periods.c
    asked = select(c.tenant, c.start, c.end, c.closed_at, c.actor).order_by(c.start)
    return [
        (tenant, ClosedPeriod(start, end, closed_at, actor))
        for tenant, start, end, closed_at, actor in connection.execute(asked)
    ]


def refuse_closed(connection: Connection, tenant: str, what: str, start: datetime, end: datetime | None) -> None:
    """See that `what` holds in no closed period.

    Raises:
        ValueError: a part of `[start, end)`, open where `end` is None, is closed.
    """
    for period in closed(connection, tenant):
        if start < period.end and (end is None or period.start < end):
            before = f", or end by {period.start:%Y-%m-%d %H:%M}" if start < period.start else ""
            raise ValueError(
                f"{what} from {start.astimezone(UTC):%Y-%m-%d %H:%M} UTC would change the period from "
                f"{period.start:%Y-%m-%d} to {period.end:%Y-%m-%d}, which {period.actor} closed: start at "
                f"{period.end:%Y-%m-%d %H:%M} UTC{before}"
            )


def begin(connection: Connection, run: Repricing) -> Repricing:
    """Keep a run that is to be carried out (its `id` is not used); returns it with its id.

    Raises:
        ValueError: its period is empty; or what it takes back is no finished run of the tenant, or is taken back
            already.
    """
    if run.start >= run.end:
        raise ValueError(f"start {run.start.isoformat()} is not before end {run.end.isoformat()}: swap them")
    if run.undo_of is not None:
        others = asked(connection, run.tenant)
        undone = next((one for one in others if one.id == run.undo_of), None)
        if undone is None:
            raise ValueError(f"there is no repricing {run.undo_of}: choose one of the runs listed")
        if undone.finished_at is None:
            raise ValueError(f"repricing {run.undo_of} is not finished: wait for it, then undo it")
        for one in others:
            if one.undo_of == run.undo_of and one.error is None:
                raise ValueError(f"repricing {run.undo_of} was undone by run {one.id}: undo that one to have it back")
    row = {
        "tenant": run.tenant, "actor": run.actor, "start": run.start, "end": run.end,
        "filters": told(run.filters), "version": run.version, "undo_of": run.undo_of,
        "created_at": run.created_at,
    }  # fmt: skip
    made = connection.execute(insert(repricings).values(row)).inserted_primary_key
    return replace(run, id=int(made[0]) if made else 0)


def finish(connection: Connection, run_id: int, error: str | None, now: datetime) -> Repricing | None:
    """Mark a run as finished, or as given up with `error`; None when no unfinished run has that id."""
    unfinished = (repricings.c.id == run_id, repricings.c.finished_at.is_(None))
    done = update(repricings).where(*unfinished).values(finished_at=now, error=error)
    if connection.execute(done).rowcount != 1:
        return None
    return next(one for one in asked(connection, None) if one.id == run_id)


def asked(connection: Connection, tenant: str | None, *, unfinished: bool = False) -> list[Repricing]:
    """Runs in the order they were asked for; of all tenants when none is named."""
    found = select(repricings).order_by(repricings.c.id)
    if tenant is not None:
        found = found.where(repricings.c.tenant == tenant)
    if unfinished:
        found = found.where(repricings.c.finished_at.is_(None))
    return [_run(dict(row)) for row in connection.execute(found).mappings()]


def told(filters: Sequence[Filter]) -> list[dict[str, Any]]:
    """Filters as JSON."""
    return [_told(one) for one in filters]


def _told(one: Filter) -> dict[str, Any]:
    return {"dimension": one.dimension, "values": list(one.values), "negated": one.negated}


def _run(row: dict[str, Any]) -> Repricing:
    from millicent.warehouse.query import Filter  # noqa: PLC0415 - the receiver opens the control plane without polars

    filters = tuple(Filter(one["dimension"], tuple(one["values"]), one["negated"]) for one in row["filters"])
    return Repricing(**{**row, "filters": filters})
