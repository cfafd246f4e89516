"""A closed period never changes: what calls that come late, or read otherwise, cost in it is charged now instead.

Calls are stored in the hour they began in, whether it is closed or not, so counts and tokens of a closed period may
grow. Its amounts may not: in the transaction that moves a sum of a closed hour, an adjustment in that hour takes the
same amount back, and one of the present hour charges it. Over all time nothing is lost and nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import polars as pl
from sqlalchemy import BigInteger, and_, cast, column, func, literal_column, select, table

from millicent.warehouse import record, rollups
from millicent.warehouse.frames import arrow, plain
from millicent.warehouse.sums import of_calls
from millicent.warehouse.tables import CHARGED_TO, EXACT, deployment_hours, repriced, repricing_days, usage_hourly

if TYPE_CHECKING:
    from millicent.warehouse.control import Control
    from millicent.warehouse.engine import Transaction
    from millicent.warehouse.repricings import ClosedPeriod

NAME: Final = "Late calls"
SOON: Final = timedelta(minutes=10)
"""Longer than a batch takes to be stored: a day that is over by then might be closed meanwhile."""
AMOUNTS: Final = ("list_usd", "billed_usd", "hardware_usd", "energy_usd")


@dataclass(frozen=True, slots=True)
class Closed:
    """Closed periods by tenant, and the instant in whose hour their adjustments are charged."""

    periods: Sequence[tuple[str, ClosedPeriod]]
    now: datetime


NONE: Final = Closed((), datetime(1970, 1, 1, tzinfo=UTC))
"""No period is closed."""


@contextmanager
def heeding(control: Control, *rows: pl.DataFrame, now: datetime | None = None) -> Iterator[Closed]:
    """What storing `rows` (of the record) must heed; no other period is closed, by any process, until the block ends.

    Days that are not over cannot be closed, so rows of today cost nothing.
    """
    at = now or datetime.now(UTC)
    today = (at + SOON).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if not any(frame.height and _first(frame) < today for frame in rows):
        yield NONE
        return
    with control.closings() as periods:
        yield Closed(periods, at)


def adjust(
    transaction: Transaction, closed: Closed, new: pl.DataFrame, old: pl.DataFrame | None = None,
    anew: pl.DataFrame | None = None,
) -> None:  # fmt: skip
    """Keep the amounts of closed hours as they are while `new` calls come in, or come in the place of `old` ones.

    Amounts that are unknown adjust nothing.

    Args:
        transaction: the one that stores the calls; what repricings keep of the old ones is still as it was before.
        closed: as `heeding` gives it.
        new: rows of the record.
        old: the stored rows that they replace, same height and keys.
        anew: keys of those that are priced by other facts than before, so that what a repricing charged them at is
            void.
    """
    new = _within(new, closed)
    if new.is_empty():
        return
    old = new.clear() if old is None else _within(old, closed)
    moved = due = _spent(transaction, old, new)
    charged = new.clear() if old.is_empty() else _charged(transaction, old)
    if not charged.is_empty():  # the sums of the hour have what calls cost, but what was agreed on is to be corrected
        still = charged if anew is None else charged.join(anew, on=_CALL, how="anti")
        due = _spent(transaction, _at(old, charged), _at(new, still))
    rows = pl.concat([*_taken_back(moved, closed.now), *_charged_now(due, closed.now)], how="diagonal")
    if not rows.is_empty():
        transaction.insert("charges", rows.to_arrow())


def _within(rows: pl.DataFrame, closed: Closed) -> pl.DataFrame:
    """Those of `rows` that began in a closed period."""
    if not closed.periods or rows.is_empty():
        return rows.clear()
    first, began = _first(rows), pl.col("started_at")
    inside = [
        (pl.col("tenant") == tenant) & (began >= period.start) & (began < period.end)
        for tenant, period in closed.periods
        if period.end > first
    ]
    return rows.filter(pl.any_horizontal(inside)) if inside else rows.clear()


def _first(rows: pl.DataFrame) -> datetime:
    began: datetime = rows.select(pl.col("started_at").min()).item()
    return began


def _spent(transaction: Transaction, old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """What `new` costs more than `old`, as every answer sums it, by hour and `CHARGED_TO`; what is unknown is left out.

    `calls` and `unknown` say how many more count, and of how many of them the cost is unknown. `idle_model` and
    `idle_environment` are those that idle time of the deployment is told of.
    """
    c, hours = _CHANGED.c, deployment_hours.c
    same_hour = and_(hours.tenant == c.tenant, hours.deployment == c.deployment, hours.hour == c.hour)
    amounts = {
        "list_usd": of_calls("spend_usd", _CHANGED, "list"),
        "billed_usd": of_calls("spend_usd", _CHANGED, "billed"),
        "hardware_usd": of_calls("hardware_cost_usd", _CHANGED, "effective"),
        "energy_usd": of_calls("energy_cost_usd", _CHANGED, "effective"),
    }
    counts = {"calls": c.calls, "unknown": of_calls("unpriced_calls", _CHANGED, "effective")}
    by = (c.tenant, c.hour, *(c[name] for name in CHARGED_TO))
    asked = select(
        *by,
        *(cast(func.sum(amount), EXACT).label(name) for name, amount in amounts.items()),
        *(cast(func.sum(count), BigInteger).label(name) for name, count in counts.items()),
        func.max(hours.model).label("idle_model"),
        func.max(hours.environment).label("idle_environment"),
    )
    asked = asked.select_from(_CHANGED.outerjoin(deployment_hours, same_hour)).group_by(*by)
    change = rollups.change(old, new)
    return pl.DataFrame(pl.from_arrow(transaction.read(asked, changed=change.to_arrow())))


def _charged(transaction: Transaction, rows: pl.DataFrame) -> pl.DataFrame:
    """Of calls in closed days what repricings charged them at last: key, `list_cost_usd`, `billed_cost_usd`."""
    kept, days = repriced.c, repricing_days.c
    of_closed_day = and_(
        days.tenant == kept.tenant, days.run == kept.run, days.adjusted,
        days.day == func.date_trunc(literal_column("'day'"), kept.started_at),
    )  # fmt: skip
    same_call = and_(*(kept[name] == _ASKED.c[name] for name in _CALL))
    newest = func.row_number().over(partition_by=[kept[name] for name in _CALL], order_by=kept.run.desc())
    instants = rows["started_at"].dt.replace_time_zone(None)
    found = (
        select(*(kept[name] for name in (*_CALL, *_PRICES)), newest.label("nth"))
        .select_from(repriced.join(repricing_days, of_closed_day).join(_ASKED, same_call))
        .where(kept.started_at.between(instants.min(), instants.max()))
        .subquery()
    )
    last = select(*(found.c[name] for name in (*_CALL, *_PRICES))).where(found.c.nth == 1)
    return plain(transaction.read(last, asked=arrow(rows.select(_CALL))))


def _at(rows: pl.DataFrame, charged: pl.DataFrame) -> pl.DataFrame:
    """`rows` at what they were `charged`, where they were."""
    both = rows.join(charged.with_columns(there=True), on=_CALL, how="left", suffix="_charged", maintain_order="left")
    known = {name: pl.when("there").then(f"{name}_charged").otherwise(name) for name in _PRICES}
    return both.with_columns(**known).select(rows.columns)


def _taken_back(moved: pl.DataFrame, now: datetime) -> Iterator[pl.DataFrame]:
    """The opposite of what closed hours moved by."""
    back = moved.filter(_some(AMOUNTS))
    told = pl.concat_str(_why("hour"), pl.lit(f"; charged at {now.astimezone(UTC):%Y-%m-%d %H}:00 UTC instead"))
    yield _rows(back.with_columns(-pl.col(name) for name in AMOUNTS), "hour", "hour", "1h", told, now)


def _charged_now(due: pl.DataFrame, now: datetime) -> Iterator[pl.DataFrame]:
    """What is due for each closed day; what own hardware carries more of it, its idle time then carried less."""
    day = due.with_columns(day=pl.col("hour").dt.truncate("1d"))
    summed = (pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in AMOUNTS)
    sums = day.group_by("tenant", "day", *CHARGED_TO).agg(*summed, pl.col("calls", "unknown").sum())
    hour = pl.lit(now.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    yield _rows(sums.filter(_some(AMOUNTS)), hour, "day", "1d", _why("day"), now)
    idle = (
        day.filter(pl.col("deployment").is_not_null())
        .group_by("tenant", "day", "deployment", model="idle_model", environment="idle_environment")
        .agg(idle_usd=-pl.col("hardware_usd").sum())
        .filter(_some(("idle_usd",)))
        .with_columns(pl.lit(record.IDLE).alias(name) for name in _CALLERS)
        .with_columns(list_usd=pl.lit(0), billed_usd=pl.lit(0))
    )
    told = pl.format("{} is closed: its late calls carry what was idle of {}", _day("day"), "deployment")
    yield _rows(idle, hour, "day", "1d", told, now, ("list_usd", "billed_usd", "idle_usd"))


def _rows(
    sums: pl.DataFrame, charged_at: str | pl.Expr, start: str, lasts: str, why: pl.Expr, now: datetime,
    amounts: Sequence[str] = AMOUNTS,
) -> pl.DataFrame:  # fmt: skip
    """Rows of `charges`."""
    at = pl.col(charged_at) if isinstance(charged_at, str) else charged_at
    usd = (
        pl.col(name).fill_null(0).cast(_SUM) if name in {"list_usd", "billed_usd"} else pl.col(name).cast(_EXACT)
        for name in amounts
    )
    return sums.select(
        "tenant", *CHARGED_TO, *usd, charged_at=at.cast(_INSTANT), type=pl.lit("adjustment"), name=pl.lit(NAME),
        period_start=pl.col(start).cast(_INSTANT), period_end=pl.col(start).dt.offset_by(lasts).cast(_INSTANT),
        provisional=pl.lit(value=False), why=why, computed_at=pl.lit(now).cast(_INSTANT),
    )  # fmt: skip


def _some(amounts: Sequence[str]) -> pl.Expr:
    return pl.any_horizontal((pl.col(name) != 0).fill_null(value=False) for name in amounts)


def _why(instant: str) -> pl.Expr:
    calls, unknown = pl.col("calls"), pl.col("unknown")
    number = pl.when(calls.abs() == 1).then(pl.lit("1 call")).otherwise(pl.format("{} calls", calls.abs()))
    verb = pl.when(calls.abs() == 1).then(pl.lit("counts")).otherwise(pl.lit("count"))
    sign = pl.when(calls > 0).then(pl.lit("more")).otherwise(pl.lit("fewer"))
    counted = pl.format("{} {} {} in it", number, sign, verb)
    what = pl.when(calls == 0).then(pl.lit("calls in it read otherwise")).otherwise(counted)
    cost = pl.when(unknown > 0).then(pl.format(", {} of unknown cost", unknown)).otherwise(pl.lit(""))
    return pl.concat_str(_day(instant), pl.lit(" is closed: "), what, cost)


def _day(instant: str) -> pl.Expr:
    return pl.col(instant).dt.strftime("%Y-%m-%d")


_CALL: Final = tuple(one.name for one in record.CALLS if one.role == "identity")
_PRICES: Final = ("list_cost_usd", "billed_cost_usd")
_CALLERS: Final = tuple(name for name in CHARGED_TO if name not in {"deployment", "model", "environment"})
_SUM: Final = pl.Decimal(38, 12)
_EXACT: Final = pl.Decimal(38, 24)
_INSTANT: Final = pl.Datetime("us", "UTC")
_CHANGED: Final = table("changed", *(column(one.name, one.type) for one in usage_hourly.c))
_ASKED: Final = table("asked", *(column(name) for name in _CALL))
