"""Looking single calls up: the rows behind the sums, each with what it cost in effect."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, case, cast, func, literal_column, select, tuple_

from millicent.warehouse.engine import Engine
from millicent.warehouse.query import BadQuery, Filter, Period, askable, kept, weighted_tokens
from millicent.warehouse.record import CALLS
from millicent.warehouse.tables import EXACT, calls, deployment_hours

MOST: Final = 1000
COLUMNS: Final = (*(column.name for column in CALLS), "effective_cost_usd")
_IDS: Final = ("span_id", "parent_span_id", "counted_as", "response_id", "request_id")
_NEWEST_FIRST: Final = (calls.c.started_at, calls.c.span_id, calls.c.trace_id)
_CURSOR: Final = struct.Struct(">qQ16s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which calls. Newest first, `limit` at a time; `cursor` is the `next` of the page before.

    Raises:
        BadQuery: a bound is not what it must be.
    """

    period: Period | None = None
    trace_id: UUID | None = None
    span_id: int | None = None
    filters: Sequence[Filter] = ()
    include_uncounted: bool = False
    limit: int = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST:
            raise BadQuery(f"limit {self.limit} is outside 1 to {MOST}: page with cursor")


def find(engine: Engine, tenant: str, search: Search) -> tuple[list[dict[str, Any]], str | None]:
    """One page of calls and the cursor of the next, None on the last.

    Returns:
        Rows with the columns of the record and `effective_cost_usd` (billed cost, or weighted tokens times the rate of
        their deployment-hour; None while unknown). Ids are lower-case hex, instants aware, money Decimal.
    """
    rows = engine.read(_statement(tenant, search)).to_pylist()
    page = rows[: search.limit]
    following = _cursor(page[-1]) if len(rows) > search.limit else None
    return [_presentable(row) for row in page], following


def _statement(tenant: str, search: Search) -> Select[Any]:
    where: list[ColumnElement[bool]] = [calls.c.tenant == tenant]
    if search.period is not None:
        where += [calls.c.started_at >= _utc(search.period.start), calls.c.started_at < _utc(search.period.end)]
    if search.trace_id is not None:
        where.append(calls.c.trace_id == search.trace_id)
    if search.span_id is not None:
        where.append(calls.c.span_id == search.span_id)
    if not search.include_uncounted:
        where.append(calls.c.counted)
    if search.cursor is not None:
        where.append(tuple_(*_NEWEST_FIRST) < tuple_(*_after(search.cursor)))
    where += [kept(wanted, askable(calls)[wanted.dimension]) for wanted in search.filters]
    hours = deployment_hours.c
    same_hour = and_(
        hours.tenant == calls.c.tenant,
        hours.deployment == calls.c.deployment,
        hours.hour == func.date_trunc(literal_column("'hour'"), calls.c.started_at),
    )
    effective = case(
        (calls.c.billing == "self_hosted", cast(weighted_tokens(calls) * hours.rate_usd_per_weight, EXACT)),
        else_=cast(calls.c.billed_cost_usd, EXACT),
    )
    return (
        select(*calls.c, effective.label("effective_cost_usd"))
        .select_from(calls.outerjoin(deployment_hours, same_hour))
        .where(*where)
        .order_by(*(column.desc() for column in _NEWEST_FIRST))
        .limit(search.limit + 1)
    )


def _presentable(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in COLUMNS}
    shown |= {
        name: None if row[name] is None else UUID(str(row[name])).hex for name in ("trace_id", "counted_as_trace_id")
    }
    shown |= {name: None if row[name] is None else f"{row[name]:016x}" for name in _IDS}
    shown["labels"] = dict(row["labels"] or ())
    shown["usage_flags"] = row["usage_flags"] or []
    return shown


def _cursor(row: dict[str, Any]) -> str:
    micros = round(row["started_at"].timestamp() * 1_000_000)
    return base64.urlsafe_b64encode(_CURSOR.pack(micros, row["span_id"], UUID(str(row["trace_id"])).bytes)).decode()


def _after(cursor: str) -> tuple[datetime, int, UUID]:
    try:
        micros, span, trace = _CURSOR.unpack(base64.urlsafe_b64decode(cursor))
        started_at = datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=micros)
        return started_at, span, UUID(bytes=trace)
    except (ValueError, OverflowError, struct.error) as error:
        raise BadQuery(f"cursor {cursor!r} was not made here: pass the `next` of the page before, unchanged") from error


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)
