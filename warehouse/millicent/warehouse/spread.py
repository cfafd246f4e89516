"""How unequal costs are: quantiles of single calls, and how much of the cost few users are.

Sums hide both, so raw calls are read, each with what it cost on the basis asked: own hardware by the rates of its
deployment-hour, as everywhere. What belongs to no call (idle, charges) belongs to no user either and is in neither.
Quantiles are exact: they are costs of calls that happened, not estimates.

`readable` bounds what is read: of a period that has more than `MOST` calls, the newest hours that hold as many. So the
time that an answer takes does not grow with the installation. Whoever shows an answer says which period it is of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Any, Final

import polars as pl
from sqlalchemy import ColumnElement, and_, cast, func, literal_column, or_, select
from sqlalchemy.sql.expression import Subquery
from sqlalchemy.types import BigInteger

from millicent.warehouse.engine import Engine
from millicent.warehouse.narrowing import askable, kept
from millicent.warehouse.query import BadQuery, Period, Query
from millicent.warehouse.sums import of_calls
from millicent.warehouse.tables import calls, deployment_hours, without_zone

MOST: Final = 500_000
MOST_VALUES: Final = 100
TOP: Final = 10
QUANTILES: Final = ("p50_usd", "p95_usd", "p99_usd", "most_usd")
MARKS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)
"""Percents of users, most costly first, whose part of the cost the curve tells."""
NOTHING: Final = Decimal(0)
_WIDE: Final = Context(prec=38)

Ask = Callable[[Query], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class User:
    """One user and what their calls cost; None while unknown."""

    user_id: str
    calls: int
    spend_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Mark:
    """So many `users` of all, the most costly first, and what their calls cost together."""

    percent: int
    users: int
    spend_usd: Decimal


@dataclass(frozen=True, slots=True)
class Concentration:
    """What the calls of users cost, most costly first.

    Attributes:
        period: what was read.
        users: how many told who they are.
        calls, spend_usd: of them, all together.
        unknown_calls, unknown_spend_usd: of calls that tell no user.
        curve: the part of the first percents of users.
        top: the most costly users.
    """

    period: Period
    users: int = 0
    calls: int = 0
    spend_usd: Decimal = NOTHING
    unknown_calls: int = 0
    unknown_spend_usd: Decimal = NOTHING
    curve: tuple[Mark, ...] = ()
    top: tuple[User, ...] = ()

    def share(self, percent: int) -> Decimal | None:
        """Part of the users' cost that the first percents (one of `MARKS`) are; None where nothing was spent."""
        found = next((mark for mark in self.curve if mark.percent == percent), None)
        return _WIDE.divide(found.spend_usd, self.spend_usd) if found and self.spend_usd > 0 else None

    @property
    def unknown_ratio(self) -> Decimal | None:
        """Part of the cost of calls that tell no user; None where nothing was spent."""
        whole = self.spend_usd + self.unknown_spend_usd
        return _WIDE.divide(self.unknown_spend_usd, whole) if whole > 0 else None


def readable(ask: Ask, question: Query, most: int = MOST) -> Period:
    """The period of `question`, or as many of its newest hours as have at most `most` calls; one at least."""
    counting = replace(question, measures=("calls",), dimensions=(), order=(), grain=None, limit=None)
    if (ask(counting)["calls"].item() or 0) <= most:
        return question.period
    hourly = ask(replace(counting, grain="hour")).drop_nulls("calls").sort("time", descending=True)
    fitting = hourly.filter((pl.col("calls").cum_sum() <= most) | (pl.int_range(pl.len()) == 0))
    return Period(max(fitting["time"][-1], question.period.start), question.period.end)


def per_call(engine: Engine, tenant: str, question: Query, by: str | None = None) -> pl.DataFrame:
    """Quantiles of what single calls cost, on the basis and within the period and filters of `question`.

    Returns:
        `by` (if asked; the 100 values with the most spend), `calls` whose cost is known, `unknown_calls` whose cost is
        not, `summed_calls` that were told in sums, so that none is known by itself, `spend_usd` of the first, and
        `QUANTILES`: the cost that half, 95 % and 99 % of them do not exceed, and the highest; to 12 decimals.

    Raises:
        BadQuery: `by` is no dimension of calls.
    """
    columns = askable(calls)
    if by is not None and by not in columns:
        raise BadQuery(f"quantiles cannot be asked by {by!r}: choose from {', '.join(sorted(columns))}")
    facts = _costs(tenant, question, {by: columns[by]} if by else {})
    single = facts.c.number == 1
    known, unknown = and_(single, facts.c.cost.is_not(None)), and_(single, facts.c.cost.is_(None))
    spread = func.quantile_disc(facts.c.cost, literal_column("[0.5, 0.95, 0.99, 1.0]")).filter(known)
    asked = select(
        *([facts.c[by]] if by else []),
        func.count().filter(known).label("calls"),
        func.count().filter(unknown).label("unknown_calls"),
        cast(func.coalesce(func.sum(facts.c.number).filter(facts.c.number != 1), 0), BigInteger).label("summed_calls"),
        func.sum(facts.c.cost).filter(known).label("spend_usd"),
        spread.label("spread"),
    )
    if by:
        asked = asked.group_by(facts.c[by]).order_by(literal_column("spend_usd").desc().nulls_last(), facts.c[by])
    frame = pl.DataFrame(pl.from_arrow(engine.read(asked.limit(MOST_VALUES))))
    quantiles = (pl.col("spread").list.get(at, null_on_oob=True).alias(name) for at, name in enumerate(QUANTILES))
    return frame.with_columns(*quantiles).drop("spread").with_columns(pl.col(pl.Decimal).cast(pl.Decimal(38, 12)))


def per_user(engine: Engine, tenant: str, question: Query, by: str) -> pl.DataFrame:
    """By a dimension of calls: how many `users` told who they are, and `spend_usd` of their calls, to 12 decimals."""
    facts = _costs(tenant, question, {by: askable(calls)[by], "user_id": calls.c.user_id})
    each = select(facts.c[by], facts.c.user_id, func.sum(facts.c.cost).label("spend"))
    each_user = each.where(facts.c.user_id.is_not(None)).group_by(facts.c[by], facts.c.user_id).subquery("each_user")
    asked = select(each_user.c[by], func.count().label("users"), func.sum(each_user.c.spend).label("spend_usd"))
    frame = pl.DataFrame(pl.from_arrow(engine.read(asked.group_by(each_user.c[by]))))
    return frame.with_columns(pl.col(pl.Decimal).cast(pl.Decimal(38, 12)))


def users(engine: Engine, tenant: str, question: Query) -> Concentration:
    """What the calls of users cost, on the basis and within the period and filters of `question`."""
    facts = _costs(tenant, question, {"user_id": calls.c.user_id})
    told = facts.c.user_id.is_not(None)
    number = cast(func.sum(facts.c.number), BigInteger)
    each = select(facts.c.user_id, told.label("told"), func.sum(facts.c.cost).label("spend"), number.label("calls"))
    by_user = each.group_by(facts.c.user_id).subquery("by_user")
    order = (func.coalesce(by_user.c.spend, literal_column("0")).desc(), by_user.c.user_id)
    over: dict[str, Any] = {"partition_by": by_user.c.told, "order_by": order, "rows": (None, 0)}
    ranked = select(
        by_user,
        func.row_number().over(partition_by=by_user.c.told, order_by=order).label("rank"),
        func.count().over(partition_by=by_user.c.told).label("users"),
        func.sum(by_user.c.spend).over(**over).label("spend_so_far"),
        cast(func.sum(by_user.c.calls).over(**over), BigInteger).label("calls_so_far"),
    ).subquery("ranked")
    rank, whole = ranked.c.rank, ranked.c.users
    marked = (and_(rank * 100 >= whole * percent, (rank - 1) * 100 < whole * percent) for percent in MARKS)
    rows = engine.read(select(ranked).where(or_(rank <= TOP, *marked)).order_by(rank)).to_pylist()
    return _concentration(question.period, [row for row in rows if row["told"]], [r for r in rows if not r["told"]])


def _concentration(period: Period, known: list[dict[str, Any]], unknown: list[dict[str, Any]]) -> Concentration:
    nobodys_calls = sum(row["calls"] or 0 for row in unknown)
    nobodys_usd = sum((row["spend"] or NOTHING for row in unknown), NOTHING)
    if not known:
        return Concentration(period, unknown_calls=nobodys_calls, unknown_spend_usd=nobodys_usd)
    number, whole = known[-1]["users"], known[-1]
    so_far = {row["rank"]: row["spend_so_far"] or NOTHING for row in known}
    return Concentration(
        period,
        users=number,
        calls=whole["calls_so_far"] or 0,
        spend_usd=so_far[number],
        unknown_calls=nobodys_calls,
        unknown_spend_usd=nobodys_usd,
        curve=tuple(Mark(percent, at := -(-number * percent // 100), so_far[at]) for percent in MARKS),
        top=tuple(User(row["user_id"], row["calls"] or 0, row["spend"]) for row in known[:TOP]),
    )


def _costs(tenant: str, question: Query, named: dict[str, ColumnElement[Any]]) -> Subquery:
    """Every call of a question with what is named, how many it stands for, and its cost in USD; unknown is null."""
    hours, columns = deployment_hours, askable(calls)
    same_hour = and_(
        hours.c.tenant == calls.c.tenant,
        hours.c.deployment == calls.c.deployment,
        hours.c.hour == func.date_trunc(literal_column("'hour'"), calls.c.started_at),
    )
    where = [
        calls.c.tenant == tenant,
        calls.c.started_at >= without_zone(question.period.start),
        calls.c.started_at < without_zone(question.period.end),
        calls.c.counted,
        *(kept(wanted, columns[wanted.dimension]) for wanted in question.filters),
    ]
    return (
        select(
            *(column.label(name) for name, column in named.items()),
            calls.c.call_count.label("number"),
            of_calls("spend_usd", calls, question.basis).label("cost"),
        )
        .select_from(calls.outerjoin(deployment_hours, same_hour))
        .where(*where)
        .subquery("costs")
    )
