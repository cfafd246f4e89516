"""Looking single calls up: the rows behind the sums, each with what it cost in effect."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final, Literal, get_args
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)

from millicent.warehouse.beside import share
from millicent.warehouse.engine import Engine
from millicent.warehouse.narrowing import askable, kept
from millicent.warehouse.query import JOULES_PER_WH, BadQuery, Filter, Period
from millicent.warehouse.record import CALLS
from millicent.warehouse.sums import carried
from millicent.warehouse.tables import EXACT, calls, deployment_hours, without_zone

MOST: Final = 1000
MOST_USD: Final = 1_000_000
COLUMNS: Final = (*(column.name for column in CALLS), "effective_cost_usd", "energy_wh", "gco2e_g")
_IDS: Final = ("span_id", "parent_span_id", "counted_as", "response_id", "request_id")
_NEWEST_FIRST: Final = (calls.c.started_at, calls.c.span_id, calls.c.trace_id)
_CURSOR: Final = struct.Struct(">qQ16s")
_COST_CURSOR: Final = struct.Struct(">qQ16s16s")
_UNKNOWN_LAST: Final = Decimal(-1)
_WIDE: Final = Context(prec=38)
EDGES: Final = tuple(Decimal(f"{digit}e{power}") for power in range(-7, 4) for digit in (1, 2, 5))
"""Costs, in USD, at which the next bar of a histogram begins: 0.0000001 to 5000."""
APART: Final = timedelta(days=1)
"""Two tellings of one call do not begin further from each other than this."""

Cost = Literal["effective_cost_usd", "billed_cost_usd", "list_cost_usd"]
Order = Literal["-started_at", "-effective_cost_usd", "-billed_cost_usd", "-list_cost_usd"]
"""Newest first, or most expensive first by one of three costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which calls. In `order`, then newest first, `limit` at a time; `cursor` is the `next` of the page before.

    `counted_as` (trace and span of a call that counts) asks for the other tellings of it. Of `cost`, only calls that
    took `least_usd` or more and less than `below_usd`. Unknown costs come last, and are in no such range.

    Raises:
        BadQuery: a bound is not what it must be.
    """

    period: Period | None = None
    trace_id: UUID | None = None
    span_id: int | None = None
    counted_as: tuple[UUID, int] | None = None
    filters: Sequence[Filter] = ()
    include_uncounted: bool = False
    cost: Cost = "effective_cost_usd"
    least_usd: Decimal | None = None
    below_usd: Decimal | None = None
    order: Order = "-started_at"
    limit: int = 100
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MOST:
            raise BadQuery(f"limit {self.limit} is outside 1 to {MOST}: page with cursor")
        for name, bound in (("least_usd", self.least_usd), ("below_usd", self.below_usd)):
            if bound is not None and not (bound.is_finite() and 0 <= bound < MOST_USD):
                raise BadQuery(f"{name} {bound} is outside 0 to {MOST_USD:,}: write what a call may cost, such as 0.05")
        if self.order not in get_args(Order):
            raise BadQuery(f"calls cannot be ordered by {self.order!r}: choose from {', '.join(get_args(Order))}")


@dataclass(frozen=True, slots=True)
class Bar:
    """Calls that cost `least_usd` or more and less than `below_usd`; None is nothing, and without end."""

    least_usd: Decimal | None
    below_usd: Decimal | None
    calls: int
    spend_usd: Decimal


def find(engine: Engine, tenant: str, search: Search) -> tuple[list[dict[str, Any]], str | None]:
    """One page of calls and the cursor of the next, None on the last.

    Returns:
        Rows with the columns of the record, `effective_cost_usd` (billed cost, or weighted tokens times the rates of
        their deployment-hour; None while unknown), `energy_wh` and `gco2e_g` (the same of its energy and
        location-based carbon; None for an API call). Ids are lower-case hex, instants aware, amounts Decimal.
    """
    places = engine.read(_places(tenant, search)).to_pylist()
    page = places[: search.limit]
    rows = {_key(row): row for row in engine.read(_rows(tenant, page)).to_pylist()} if page else {}
    following = _cursor(page[-1], search.order) if len(places) > search.limit else None
    return [_presentable(rows[_key(place)]) for place in page if _key(place) in rows], following


def tellings(engine: Engine, tenant: str, call: dict[str, Any]) -> list[dict[str, Any]]:
    """What else told of a counted call (a row of `find`) and is therefore not counted; newest first."""
    around = Period(call["started_at"] - APART, call["started_at"] + APART)
    told = Search(
        counted_as=(UUID(call["trace_id"]), int(call["span_id"], 16)), period=around, include_uncounted=True, limit=MOST
    )
    return find(engine, tenant, told)[0]


def histogram(engine: Engine, tenant: str, search: Search) -> list[Bar]:
    """How many of the counted calls of a search cost how much, by `EDGES`, cheapest first, every bar between two there.

    Calls of unknown cost are in none; of the search, `order`, `limit` and `cursor` mean nothing here.
    """
    cost = _cost(search.cost)
    own = search.cost == "effective_cost_usd"
    amount = EXACT if own else calls.c[search.cost].type
    place = case(*((cost < cast(literal(edge), amount), at) for at, edge in enumerate(EDGES)), else_=len(EDGES))
    asked = (
        select(place.label("place"), func.count().label("calls"), func.sum(cost).label("spend_usd"))
        .select_from(_with_hours() if own else calls)
        .where(*_wanted(search, tenant), calls.c.counted, cost.is_not(None))
        .group_by(place)
    )
    found = {row["place"]: row for row in engine.read(asked).to_pylist()}
    if not found:
        return []
    bounds = (None, *EDGES, None)
    none = {"calls": 0, "spend_usd": Decimal(0)}
    rows = ((at, found.get(at, none)) for at in range(min(found), max(found) + 1))
    return [Bar(bounds[at], bounds[at + 1], int(row["calls"]), row["spend_usd"]) for at, row in rows]


def uncounted(engine: Engine, tenant: str, period: Period, filters: Sequence[Filter] = ()) -> list[tuple[str, int]]:
    """(reason, rows) of what is stored but not counted, most first."""
    rows, reason = func.count().label("rows"), calls.c.not_counted_reason
    where = [~calls.c.counted, *_within(tenant, period, filters)]
    asked = select(reason, rows).where(*where).group_by(reason).order_by(rows.desc(), reason)
    return [(row["not_counted_reason"] or "", int(row["rows"])) for row in engine.read(asked).to_pylist()]


def _places(tenant: str, search: Search) -> Select[Any]:
    """Which rows, in order, with `amount` where that is what orders them: few columns, so that few are read."""
    where = _wanted(search, tenant)
    if not search.include_uncounted:
        where.append(calls.c.counted)
    order: list[ColumnElement[Any]] = [*_NEWEST_FIRST]
    bounded = search.least_usd is not None or search.below_usd is not None
    of_hours = {search.order.removeprefix("-"), search.cost if bounded else ""}
    source: FromClause = _with_hours() if "effective_cost_usd" in of_hours else calls
    if search.order != "-started_at":
        cost = func.coalesce(_cost(search.order.removeprefix("-")), _amount(_UNKNOWN_LAST, search.order))
        order.insert(0, cost.label("amount"))
    if search.cursor is not None:
        after = _after(search.cursor, search.order)
        where += [order[0] <= after[0], tuple_(*order) < tuple_(*after)]  # the first alone decides for most, and fast
    by = [place.desc() for place in order]
    return select(*order).select_from(source).where(*where).order_by(*by).limit(search.limit + 1)


def _wanted(search: Search, tenant: str) -> list[ColumnElement[bool]]:
    """The calls of a search, whether they count or not."""
    where = _within(tenant, search.period, search.filters)
    if search.trace_id is not None:
        where.append(calls.c.trace_id == search.trace_id)
    if search.span_id is not None:
        where.append(calls.c.span_id == search.span_id)
    if search.counted_as is not None:
        trace, span = search.counted_as
        where += [calls.c.counted_as_trace_id == trace, calls.c.counted_as == span]
    cost = _cost(search.cost)
    where += [cost >= cast(literal(search.least_usd), EXACT)] if search.least_usd is not None else []
    where += [cost < cast(literal(search.below_usd), EXACT)] if search.below_usd is not None else []
    return where


def _cost(name: str) -> ColumnElement[Any]:
    """What a call cost, by the name of one of `Cost`."""
    return _effective() if name == "effective_cost_usd" else calls.c[name]


def _rows(tenant: str, places: Sequence[dict[str, Any]]) -> Select[Any]:
    """Rows by instant and span, in any order; others that share both may be among them."""
    instants = sorted({place["started_at"].replace(tzinfo=None) for place in places})
    return (
        select(
            *calls.c,
            _effective().label("effective_cost_usd"),
            *(amount.label(name) for name, amount in _carried().items()),
        )
        .select_from(_with_hours())
        .where(
            calls.c.tenant == tenant,
            calls.c.started_at.between(instants[0], instants[-1]),
            calls.c.started_at.in_(instants),
            calls.c.span_id.in_([place["span_id"] for place in places]),
        )
    )


def _amount(amount: Decimal, order: Order) -> ColumnElement[Any]:
    """In the type of what it is compared with, which would be converted row by row otherwise."""
    return cast(literal(amount), EXACT if order == "-effective_cost_usd" else calls.c[order.removeprefix("-")].type)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["started_at"], row["span_id"], row["trace_id"]


def _with_hours() -> FromClause:
    hours = deployment_hours.c
    same_hour = and_(
        hours.tenant == calls.c.tenant,
        hours.deployment == calls.c.deployment,
        hours.hour == func.date_trunc(literal_column("'hour'"), calls.c.started_at),
    )
    return calls.outerjoin(deployment_hours, same_hour)


def _effective() -> ColumnElement[Any]:
    return case(
        (
            calls.c.billing == "self_hosted",
            carried("rate_usd", calls),
        ),
        else_=cast(calls.c.billed_cost_usd, EXACT),
    )


def _carried() -> dict[str, ColumnElement[Any]]:
    """What a call carries of its deployment-hour's energy, in watt-hours, and of its carbon."""
    own = calls.c.billing == "self_hosted"
    amounts = {"energy_wh": share(carried("joules", calls), 1, JOULES_PER_WH), "gco2e_g": carried("gco2e_g", calls)}
    return {name: case((own, amount)) for name, amount in amounts.items()}


def _within(tenant: str, period: Period | None, filters: Sequence[Filter]) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [calls.c.tenant == tenant]
    if period is not None:
        where += [calls.c.started_at >= without_zone(period.start), calls.c.started_at < without_zone(period.end)]
    return [*where, *(kept(wanted, askable(calls)[wanted.dimension]) for wanted in filters)]


def _presentable(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in COLUMNS}
    shown |= {
        name: None if row[name] is None else UUID(str(row[name])).hex for name in ("trace_id", "counted_as_trace_id")
    }
    shown |= {name: None if row[name] is None else f"{row[name]:016x}" for name in _IDS}
    shown |= {name: dict(row[name] or ()) for name in ("labels", "units")}
    shown["usage_flags"] = row["usage_flags"] or []
    return shown


def _cursor(place: dict[str, Any], order: Order) -> str:
    micros = round(place["started_at"].timestamp() * 1_000_000)
    identity = (micros, place["span_id"], UUID(str(place["trace_id"])).bytes)
    if order == "-started_at":
        return base64.urlsafe_b64encode(_CURSOR.pack(*identity)).decode()
    scaled = int(_WIDE.scaleb(place["amount"], 24)).to_bytes(16, signed=True)
    return base64.urlsafe_b64encode(_COST_CURSOR.pack(*identity, scaled)).decode()


def _after(cursor: str, order: Order) -> list[Any]:
    shape = _CURSOR if order == "-started_at" else _COST_CURSOR
    try:
        micros, span, trace, *costs = shape.unpack(base64.urlsafe_b64decode(cursor))
        started_at = datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(microseconds=micros)
        amounts = [_WIDE.scaleb(int.from_bytes(cost, signed=True), -24) for cost in costs]
        return [*(_amount(amount, order) for amount in amounts), started_at, span, UUID(bytes=trace)]
    except (ValueError, OverflowError, struct.error) as error:
        raise BadQuery(
            f"cursor {cursor!r} was not made here: pass the `next` of the page before, unchanged, in the same order"
        ) from error
