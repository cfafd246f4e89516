"""The hourly rollup: what a batch of calls adds to it, and how its rows are folded together and corrected."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl
from sqlalchemy import BigInteger, and_, cast, column, func, literal_column, select, table

from millicent.warehouse import record
from millicent.warehouse.engine import Engine, Transaction
from millicent.warehouse.revisions import days_between, days_of
from millicent.warehouse.tables import calls, usage_hourly, without_zone

KEY: Final = ("tenant", "hour", *record.DIMENSIONS)
SUMS: Final = ("row_count", "calls", *record.SUMMED, *(f"{name}_nulls" for name in record.SUMMED))


def deltas(rows: pl.DataFrame) -> pl.DataFrame:
    """What `rows` (of the record) add to `usage_hourly`: one row per hour and combination of dimensions.

    Only counted calls are summed. A sum over nothing but unknowns stays unknown.
    """
    return (
        rows.lazy()
        .filter(pl.col("counted"))
        .group_by(pl.col("tenant"), pl.col("started_at").dt.truncate("1h").alias("hour"), *record.DIMENSIONS)
        .agg(
            pl.len().cast(pl.Int64).alias("row_count"),
            pl.col("call_count").sum().alias("calls"),
            *(_sum(name) for name in record.TOKENS),
            *(_sum(name).cast(pl.Decimal(38, 12)) for name in record.MONEY),
            *(pl.col(name).null_count().cast(pl.Int64).alias(f"{name}_nulls") for name in record.SUMMED),
        )
        .collect()
    )


def change(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """What the sums move by where `new` comes for `old` (rows of the record), as `deltas`; a key may have two rows."""
    return pl.concat([deltas(new), deltas(old).with_columns(-pl.col(name) for name in SUMS)])


def correct(transaction: Transaction, old: pl.DataFrame, new: pl.DataFrame) -> None:
    """Make the rollup say `new` where it said `old` (rows of the record).

    The rows of every key concerned are folded into one, so that none ever stands for less than nothing and what is
    unknown after the correction reads unknown, not 0.
    """
    moved = change(old, new)
    if moved.is_empty():
        return
    keys = moved.select(KEY).unique()
    asked = table("asked", *(column(name) for name in KEY))
    frame = {"asked": keys.to_arrow()}
    concerned = and_(*(usage_hourly.c[name].is_not_distinct_from(asked.c[name]) for name in KEY))
    instants = keys["hour"].dt.replace_time_zone(None)
    hours = (usage_hourly.c.hour >= instants.min(), usage_hourly.c.hour <= instants.max())
    stored = transaction.read(select(usage_hourly).where(concerned, *hours), **frame)
    both = [frame.select(*KEY, *SUMS) for frame in (pl.DataFrame(pl.from_arrow(stored)), moved)]
    folded = (
        pl.concat(both, how="vertical_relaxed")
        .group_by(KEY)
        .agg(pl.col(name).sum() for name in SUMS)
        .filter(pl.col("row_count") > 0)
    )
    known = (pl.when(pl.col(f"{name}_nulls") < pl.col("row_count")).then(name).alias(name) for name in record.SUMMED)
    transaction.execute(usage_hourly.delete().where(concerned, *hours), days=days_of(keys["hour"]), **frame)
    transaction.insert("usage_hourly", folded.with_columns(known).to_arrow())


def recount(transaction: Transaction, tenant: str, start: datetime, end: datetime) -> None:
    """Make the rollup of a tenant's hours from `start` up to `end`, both whole ones, say what its calls say now.

    Equal to `correct` for whatever changed in them, and faster where most rows did.
    """
    since, until = without_zone(start), without_zone(end)
    c = usage_hourly.c
    days = days_between(start, end)
    transaction.execute(usage_hourly.delete().where(c.tenant == tenant, c.hour >= since, c.hour < until), days=days)
    hour = func.date_trunc(literal_column("'hour'"), calls.c.started_at).label("hour")
    keys = [calls.c.tenant, hour, *(calls.c[name] for name in record.DIMENSIONS)]
    summed = [
        func.count(),
        cast(func.coalesce(func.sum(calls.c.call_count), 0), BigInteger),
        *(cast(func.sum(calls.c[name]), BigInteger) for name in record.TOKENS),
        *(func.sum(calls.c[name]) for name in record.MONEY),
        *(func.count() - func.count(calls.c[name]) for name in record.SUMMED),
    ]
    of_hours = (calls.c.tenant == tenant, calls.c.started_at >= since, calls.c.started_at < until, calls.c.counted)
    folded = select(*keys, *(one.label(f"sum_{at}") for at, one in enumerate(summed))).where(*of_hours)
    grouped = folded.group_by(*(literal_column(str(at + 1)) for at in range(len(keys))))
    transaction.execute(usage_hourly.insert().from_select([*KEY, *SUMS], grouped), days=days)


def compact(engine: Engine, before: datetime) -> int:
    """Fold the deltas of hours before `before` into one row per key, in one transaction.

    Returns:
        How many rows are gone. Sums are the same before and after.
    """
    sums = [func.sum(usage_hourly.c[name]).label(name) for name in SUMS]
    keys = [usage_hourly.c[name] for name in KEY]
    old = usage_hourly.c.hour < before.replace(tzinfo=None)
    with engine.write() as transaction:
        count = select(func.count()).select_from(usage_hourly).where(old)
        rows = transaction.read(count).column(0)[0].as_py()
        folded = transaction.read(select(*keys, *sums).where(old).group_by(*keys))
        if folded.num_rows == rows:
            return 0
        transaction.execute(usage_hourly.delete().where(old), days=())
        transaction.insert("usage_hourly", folded, days=())
        return int(rows - folded.num_rows)


def _sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)
