"""Changing stored calls day by day: what would read otherwise, then writing it.

A day is read, changed and written under the writer's lock, in one transaction with its sums; days that are done stay
done when a later one fails, and doing a day twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
from sqlalchemy import func, select

from millicent.collector import pipeline
from millicent.collector.batch import Batch, Context
from millicent.warehouse import late, ledger, record
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls, without_zone

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
AT_ONCE: Final = 200_000
"""Most calls that are read together."""


class ClosedPeriodError(ValueError):
    """A change asked for calls of a closed period; nothing was changed."""


Change = Callable[[pl.DataFrame], pl.DataFrame]
"""Calls (`record.PLAIN`) as they read now → the same rows in the same order as they would read."""


def days(
    warehouse: Warehouse, tenant: str, period: Period, changed: Callable[[Period], pl.DataFrame], *, apply: bool,
    own: Change | None = None,
) -> Iterator[tuple[Period, pl.DataFrame]]:  # fmt: skip
    """Each UTC day of `period` with what `changed` finds in it; written before the next one, if asked.

    Args:
        warehouse: whose calls.
        tenant: whose calls of it.
        period: half-open.
        changed: gives the rows of a day that read otherwise, in the columns of the record, others beside them.
        apply: False only tells what would change.
        own: the same change, to be made to what is kept of these calls' own words.

    Raises:
        ClosedPeriodError: it is to be written, and a day of it is closed; nothing is written then.
        EngineError: a day could not be written; those before it are.
    """
    if apply:
        _refuse_closed(warehouse, tenant, period)
    for day in steps(period, DAY):
        if not apply:
            yield day, changed(day)
            continue
        with warehouse.writing:
            _refuse_closed(warehouse, tenant, day)
            found = changed(day)
            rows = found.select(record.SCHEMA.names)
            told = own(ledger.own_words(warehouse.engine, rows)) if own else None
            with late.heeding(warehouse.control, rows) as closed:
                ledger.revise(warehouse.engine, rows, told, closed)
        yield day, found


def otherwise(
    now: pl.DataFrame, change: Change, compared: tuple[str, ...], priced_by: tuple[str, ...], context: Context
) -> pl.DataFrame:
    """Calls that read otherwise in one of `compared`: as they would, and beside that as they do (`…_now`).

    They are priced anew where one of `priced_by` changes.
    """
    both = pl.concat([change(now), now.select(pl.all().name.suffix("_now"))], how="horizontal")
    both = both.filter(_differs(compared))
    same, dearer = both.filter(~_differs(priced_by)), both.filter(_differs(priced_by))
    if dearer.is_empty():
        return same
    return pl.concat([same, pipeline.price(Batch(dearer), context).spans.select(both.columns).cast(both.schema)])


def parts(warehouse: Warehouse, tenant: str, day: Period) -> Iterator[pl.DataFrame]:
    """A day's calls, as many at a time as fit into memory."""
    c = calls.c
    mine = (c.tenant == tenant, c.started_at >= without_zone(day.start), c.started_at < without_zone(day.end))
    count = warehouse.engine.read(select(func.count()).select_from(calls).where(*mine)).column(0)[0].as_py()
    for part in steps(day, HOUR) if count > AT_ONCE else [day]:
        yield ledger.calls_between(warehouse.engine, tenant, part.start, part.end)


def steps(period: Period, step: timedelta) -> Iterator[Period]:
    """The days or hours of UTC that `period` touches, cut at its bounds."""
    start = period.start.astimezone(UTC)
    while start < period.end:
        end = min(start - (start - EPOCH) % step + step, period.end.astimezone(UTC))
        yield Period(start, end)
        start = end


def closed(warehouse: Warehouse, tenant: str) -> Callable[[Period], bool]:
    """Whether a UTC day, or a part of one, is in a closed period of the tenant, as they are now."""
    periods = warehouse.control.closed_periods(tenant)
    return lambda day: any(one.start < day.end and day.start < one.end for one in periods)


def whole_hours(period: Period) -> Period:
    """The hours of UTC that `period` touches."""
    start, end = period.start.astimezone(UTC), period.end.astimezone(UTC)
    return Period(start - (start - EPOCH) % HOUR, end + (EPOCH - end) % HOUR)


def _refuse_closed(warehouse: Warehouse, tenant: str, period: Period) -> None:
    for one in warehouse.control.closed_periods(tenant):
        if one.start < period.end and period.start < one.end:
            raise ClosedPeriodError(
                f"{one.start:%Y-%m-%d} up to {one.end:%Y-%m-%d} was closed by {one.actor} on {one.closed_at:%Y-%m-%d}, "
                "and calls of a closed period do not change: ask for a period before or after it"
            )


def _differs(names: tuple[str, ...]) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_now")) for name in names)
