"""What calls tell of our own hardware that nobody declared: names, models and accelerators that have no cost yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, case, false, func, not_, null, or_, select

from millicent.warehouse.tables import calls, usage_hourly, without_zone

if TYPE_CHECKING:
    from millicent.warehouse.deployments import Deployment
    from millicent.warehouse.engine import Engine
    from millicent.warehouse.query import Period
    from millicent.warehouse.store import Warehouse

MOST: Final = 200
HOUR: Final = timedelta(hours=1)
_TOLD: Final = ("model", "engine", "precision", "accelerator", "accelerator_count", "region", "environment")


@dataclass(frozen=True, slots=True)
class Discovered:
    """Calls to hardware of ours that no declaration covers.

    `deployment` is the name that they carry, `endpoint_host` the host they called where they carry none. What they do
    not tell is None; `accelerator_count` is the most that any of them told, `tokens` what is known of input and output.
    `declared` are periods of that name that do not cover them. `missing` says what has to be found out to declare it.
    """

    deployment: str | None
    endpoint_host: str | None
    model: str | None
    engine: str | None
    precision: str | None
    accelerator: str | None
    accelerator_count: int | None
    region: str | None
    environment: str | None
    calls: int
    tokens: int | None
    first_at: datetime
    last_at: datetime
    declared: tuple[tuple[datetime, datetime | None], ...]
    missing: tuple[str, ...]


def discovered(warehouse: Warehouse, tenant: str, period: Period) -> list[Discovered]:
    """What a tenant's self-hosted calls of a period say of hardware that nobody declared for their time.

    At most 200, most tokens first.

    Raises:
        EngineError: the database failed.
    """
    declared = [one for _, one in warehouse.control.deployments(tenant)]
    within = _within(warehouse.engine, tenant, period, declared)
    if within is None:
        return []
    c = calls.c
    host = case((c.deployment.is_(None), c.endpoint_host), else_=null()).label("host")
    tokens = func.sum(func.coalesce(c.input_tokens + c.output_tokens, c.input_tokens, c.output_tokens))
    by = (c.deployment, host, c.model, c.engine, c.precision, c.accelerator, c.region, c.environment)
    asked = (
        select(
            *by, func.max(c.accelerator_count).label("accelerator_count"),
            func.sum(func.coalesce(c.call_count, 1)).label("calls"), tokens.label("tokens"),
            func.min(c.started_at).label("first_at"), func.max(c.started_at).label("last_at"),
        )
        .where(
            c.tenant == tenant, c.counted, c.billing == "self_hosted",
            c.started_at >= without_zone(max(period.start, within[0])),
            c.started_at < without_zone(min(period.end, within[1])),
            _undeclared(c.deployment, c.started_at, declared),
        )
        .group_by(*by)
        .order_by(tokens.desc().nulls_last(), *by)
        .limit(MOST)
    )  # fmt: skip
    return [_found(row, declared) for row in warehouse.engine.read(asked).to_pylist()]


def _within(
    engine: Engine, tenant: str, period: Period, declared: Iterable[Deployment]
) -> tuple[datetime, datetime] | None:
    """From when to when such calls began at most, by the hourly sums; None where there are none, as there should be."""
    u = usage_hourly.c
    asked = select(func.min(u.hour).label("first"), func.max(u.hour).label("last")).where(
        u.tenant == tenant, u.billing == "self_hosted",
        u.hour > without_zone(period.start - HOUR), u.hour < without_zone(period.end),
        _undeclared(u.deployment, u.hour, declared),
    )  # fmt: skip
    (found,) = engine.read(asked).to_pylist()
    return (found["first"], found["last"] + HOUR) if found["first"] else None


def _undeclared(
    deployment: ColumnElement[Any], at: ColumnElement[Any], declared: Iterable[Deployment]
) -> ColumnElement[bool]:
    """No declaration holds then; declarations begin and end on the hour."""
    held = [
        and_(
            deployment == one.name,
            at >= without_zone(one.effective_from),
            *([at < without_zone(one.effective_to)] if one.effective_to else []),
        )
        for one in declared
    ]
    return or_(deployment.is_(None), not_(or_(false(), *held)))


def _found(row: dict[str, Any], declared: Iterable[Deployment]) -> Discovered:
    periods = tuple((one.effective_from, one.effective_to) for one in declared if one.name == row["deployment"])
    count = row["accelerator_count"]
    return Discovered(
        deployment=row["deployment"],
        endpoint_host=row["host"],
        **{name: row[name] for name in _TOLD if name != "accelerator_count"},
        accelerator_count=None if count is None else int(count),
        calls=int(row["calls"]),
        tokens=None if row["tokens"] is None else int(row["tokens"]),
        first_at=row["first_at"],
        last_at=row["last_at"],
        declared=periods,
        missing=tuple(_missing(row, declared=bool(periods))),
    )


def _missing(row: dict[str, Any], *, declared: bool) -> Iterable[str]:
    if declared:
        yield "a period that begins before these calls, or ends after them"
        return
    if row["deployment"] is None:
        yield "a name: choose one, and name the host as its endpoint"
    for name, words in (
        ("model", "the model that it serves"),
        ("accelerator", "which accelerator it runs on"),
        ("accelerator_count", "how many accelerators it has"),
    ):
        if row[name] is None:
            yield words
    yield "how its hours are paid (profile)"
