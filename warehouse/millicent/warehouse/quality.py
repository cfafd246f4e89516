"""How far the numbers can be trusted: who sends, what became of all that came, and what is doubtful about the rest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlalchemy import case, func, literal_column, select

from millicent.warehouse.beside import HOUR
from millicent.warehouse.tables import calls, outcomes, quarantine, usage_hourly, without_zone

if TYPE_CHECKING:
    from millicent.warehouse.engine import Engine
    from millicent.warehouse.query import Period

LATE: Final = timedelta(hours=1)
"""A call that comes longer than this after it ended is late: hours that were complete have changed."""
MOST_SET_ASIDE: Final = 50


@dataclass(frozen=True, slots=True)
class Lateness:
    """Of `calls` that are counted in a period, how many came over an hour after they ended, and the longest wait."""

    calls: int
    late: int
    longest: timedelta | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """Spans that cannot be true and are kept apart: why, with an example, who sent them, and when the last one came."""

    reason: str
    service: str | None
    scope: str | None
    spans: int
    last_at: datetime
    detail: str


def heard(engine: Engine, tenant: str, period: Period) -> pl.DataFrame:
    """Who sends calls: `service`, `dialect`, `signal`, `calls` and `last_hour` (start, UTC), most calls first.

    Rows are of calls that count, by whole hours.
    """
    c, number = usage_hourly.c, func.sum(usage_hourly.c.calls).label("calls")
    by = (c.service, c.dialect, c.signal)
    asked = (
        select(*by, number, func.max(c.hour).label("last_hour"))
        .where(c.tenant == tenant, *_hours(c.hour, period))
        .group_by(*by)
        .having(number > 0)
        .order_by(number.desc(), *by)
    )
    return pl.DataFrame(pl.from_arrow(engine.read(asked)))


def books(engine: Engine, tenant: str, period: Period) -> pl.DataFrame:
    """What became of every span that was received in a period: `outcome`, `reason`, `spans`; by whole hours, UTC."""
    c, spans = outcomes.c, func.sum(outcomes.c.spans).label("spans")
    by = (c.outcome, c.reason)
    asked = select(*by, spans).where(c.tenant == tenant, *_hours(c.hour, period)).group_by(*by).order_by(spans.desc())
    return pl.DataFrame(pl.from_arrow(engine.read(asked)))


def doubts(engine: Engine, tenant: str, period: Period) -> list[tuple[str, int]]:
    """(flag, calls) of counted calls whose usage carries one, most first; see `record.USAGE_FLAGS` for their words."""
    each = (
        select(func.unnest(calls.c.usage_flags).label("flag"), calls.c.call_count.label("calls"))
        .where(calls.c.tenant == tenant, calls.c.counted, *_during(calls.c.started_at, period))
        .subquery("each")
    )
    number = func.sum(func.coalesce(each.c.calls, 1)).label("calls")
    asked = select(each.c.flag, number).group_by(each.c.flag).order_by(number.desc(), each.c.flag)
    return [(row["flag"], int(row["calls"])) for row in engine.read(asked).to_pylist()]


def lateness(engine: Engine, tenant: str, period: Period) -> Lateness:
    """How long calls of a period took to come, after they ended."""
    c = calls.c
    waited = func.epoch_ms(c.received_at) - func.epoch_ms(c.started_at) - func.coalesce(c.duration_ms, 0)
    late = func.count(case((waited > literal_column(str(LATE // timedelta(milliseconds=1))), 1)))
    asked = select(func.count().label("calls"), late.label("late"), func.max(waited).label("longest_ms")).where(
        c.tenant == tenant, c.counted, c.signal == "span", *_during(c.started_at, period)
    )
    row = engine.read(asked).to_pylist()[0]
    longest = row["longest_ms"]
    waits = None if longest is None else timedelta(milliseconds=max(int(longest), 0))
    return Lateness(int(row["calls"]), int(row["late"]), waits)


def set_aside(engine: Engine, tenant: str, period: Period) -> list[SetAside]:
    """What was put into quarantine in a period, at most 50 kinds, most spans first."""
    c, spans = quarantine.c, func.count().label("spans")
    by = (c.reason, c.service, c.scope)
    asked = (
        select(*by, spans, func.max(c.received_at).label("last_at"), func.any_value(c.detail).label("detail"))
        .where(c.tenant == tenant, *_during(c.received_at, period))
        .group_by(*by)
        .order_by(spans.desc(), *by)
        .limit(MOST_SET_ASIDE)
    )
    return [
        SetAside(row["reason"], row["service"], row["scope"], int(row["spans"]), row["last_at"], row["detail"] or "")
        for row in engine.read(asked).to_pylist()
    ]


def _hours(hour: Any, period: Period) -> tuple[Any, Any]:
    """Hours that are in a period, at least in part."""
    return hour > without_zone(period.start) - HOUR, hour < without_zone(period.end)


def _during(instant: Any, period: Period) -> tuple[Any, Any]:
    return instant >= without_zone(period.start), instant < without_zone(period.end)
