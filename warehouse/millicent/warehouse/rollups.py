"""The hourly rollup: what a batch of calls adds to it, and how its deltas are folded together."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from sqlalchemy import func, select

from millicent.warehouse import record
from millicent.warehouse.engine import Engine
from millicent.warehouse.tables import usage_hourly

KEY = ("tenant", "hour", *record.DIMENSIONS)


def deltas(calls: pl.DataFrame) -> pl.DataFrame:
    """What `calls` (rows of the record) add to `usage_hourly`: one row per hour and combination of dimensions.

    Only counted calls are summed. A sum over nothing but unknowns stays unknown.
    """
    return (
        calls.lazy()
        .filter(pl.col("counted"))
        .group_by(pl.col("tenant"), pl.col("started_at").dt.truncate("1h").alias("hour"), *record.DIMENSIONS)
        .agg(
            pl.col("call_count").sum().alias("calls"),
            *(_sum(name) for name in record.TOKENS),
            *(_sum(name).cast(pl.Decimal(38, 12)) for name in record.MONEY),
            *(pl.col(name).null_count().cast(pl.Int64).alias(f"{name}_nulls") for name in record.SUMMED),
        )
        .collect()
    )


def _sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)


def compact(engine: Engine, before: datetime) -> int:
    """Fold the deltas of hours before `before` into one row per key, in one transaction.

    Returns:
        How many rows are gone. Sums are the same before and after.
    """
    sums = [func.sum(usage_hourly.c[name]).label(name) for name in _summed()]
    keys = [usage_hourly.c[name] for name in KEY]
    old = usage_hourly.c.hour < before.replace(tzinfo=None)
    with engine.write() as transaction:
        count = select(func.count()).select_from(usage_hourly).where(old)
        rows = transaction.read(count).column(0)[0].as_py()
        folded = transaction.read(select(*keys, *sums).where(old).group_by(*keys))
        if folded.num_rows == rows:
            return 0
        transaction.execute(usage_hourly.delete().where(old))
        transaction.insert("usage_hourly", folded)
        return int(rows - folded.num_rows)


def _summed() -> list[str]:
    return ["calls", *record.SUMMED, *(f"{name}_nulls" for name in record.SUMMED)]
