"""What meters of engines and accelerators told, hour by hour, and their last readings to go on from.

A meter's rows of one hour add up. They commit together with the last reading of each counter that they come from, so
whoever reads on after a crash counts nothing twice and loses nothing that its counter still knows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
from sqlalchemy import BigInteger, and_, cast, column, func, select, table

from millicent.warehouse.engine import Engine, Transaction
from millicent.warehouse.tables import METERED, meter_hours, meter_series

KEY: Final = ("tenant", "deployment", "hour", "source", "role")
SERIES_KEY: Final = ("tenant", "deployment", "source", "role", "counter", "series")
KEPT: Final = timedelta(days=30)
"""A counter that was not read for so long is forgotten; if it comes back, counting begins with what it says then."""

_INSTANT: Final = pl.Datetime("us", "UTC")
HOURS: Final = pl.Schema(
    [(name, _INSTANT if name == "hour" else pl.String) for name in KEY] + [(name, pl.Int64) for name in METERED]
)
"""What a meter tells of an hour: tenant, deployment, the UTC hour, source (id of the engine, dcgm or nvml) and role
(prefill or decode, where they are apart), and what the columns of `METERED` add to that hour; null is not told."""
SERIES: Final = pl.Schema(
    [
        *((name, pl.String) for name in SERIES_KEY),
        ("started", _INSTANT),
        ("read_at", _INSTANT),
        ("value", pl.Int64),
    ]
)
"""Last reading of a counter: whose it is, what it counts, which process and label set, since when, and what it said."""


def add(engine: Engine, hours: pl.DataFrame, series: pl.DataFrame) -> None:
    """Add what meters told, have those hours computed again, and keep the last readings, all or nothing.

    Args:
        engine: Where to.
        hours: Columns of `HOURS`; those of `METERED` that are left out are not told.
        series: Columns of `SERIES`. They take the place of all that is kept of the same counters (`SERIES_KEY`); a
            counter may have a row for each of several processes.

    Raises:
        ValueError: A column is unknown, or a row does not say whose it is.
        EngineError: As `Engine.write`; nothing is known to be stored. Read `series` again before going on.
    """
    with engine.write() as transaction:
        store(transaction, hours, series)


def store(transaction: Transaction, hours: pl.DataFrame, series: pl.DataFrame, change: int = 0) -> None:
    """As `add`, inside an open transaction; `change` is the one that those hours are computed again for."""
    hours, series = _typed(hours, HOURS, KEY[:4]), _typed(series, SERIES, SERIES_KEY[:3])
    if not hours.is_empty():
        read_at = pl.lit(datetime.now(UTC)).cast(_INSTANT)
        transaction.insert("meter_hours", hours.with_columns(read_at=read_at).to_arrow())
        dirty = hours.select("tenant", "deployment", "hour").unique().with_columns(change=pl.lit(change, pl.Int64))
        transaction.insert("dirty_hours", dirty.to_arrow())
    if not series.is_empty():
        asked = table("asked", *(column(name) for name in SERIES_KEY))
        same = and_(*(meter_series.c[name].is_not_distinct_from(asked.c[name]) for name in SERIES_KEY))
        transaction.execute(meter_series.delete().where(same), asked=series.select(SERIES_KEY).unique().to_arrow())
        transaction.insert("meter_series", series.to_arrow())


def series(engine: Engine, tenant: str | None = None) -> pl.DataFrame:
    """The last reading of every counter, as `SERIES`; all tenants when none is named.

    Raises:
        EngineError: They cannot be read.
    """
    asked = select(*(meter_series.c[name] for name in SERIES.names()))
    if tenant is not None:
        asked = asked.where(meter_series.c.tenant == tenant)
    return pl.DataFrame(pl.from_arrow(engine.read(asked))).cast(SERIES)


def fold(engine: Engine, before: datetime) -> int:
    """Make one row of each hour before `before`, source and role, and forget counters not read since `KEPT` before it.

    Returns:
        How many rows are gone. Sums are the same before and after.

    Raises:
        EngineError: As `Engine.write`.
    """
    c, rows = meter_hours.c, func.count().label("rows")
    by = [c[name] for name in KEY]
    sums = [cast(func.sum(c[name]), BigInteger).label(name) for name in METERED]
    several = select(*by, *sums, func.max(c.read_at).label("read_at"), rows)
    several = several.where(c.hour < before.astimezone(UTC).replace(tzinfo=None)).group_by(*by).having(func.count() > 1)
    with engine.write() as transaction:
        found = transaction.read(several)
        if found.num_rows:
            asked = table("asked", *(column(name) for name in KEY))
            same = and_(*(c[name].is_not_distinct_from(asked.c[name]) for name in KEY))
            transaction.execute(meter_hours.delete().where(same), asked=found.select(list(KEY)))
            transaction.insert("meter_hours", found.drop_columns(["rows"]))
        stale = meter_series.c.read_at < (before - KEPT).astimezone(UTC).replace(tzinfo=None)
        transaction.execute(meter_series.delete().where(stale))
    folded = pl.DataFrame(pl.from_arrow(found))
    return int(folded["rows"].sum()) - folded.height


def _typed(frame: pl.DataFrame, schema: pl.Schema, needed: tuple[str, ...]) -> pl.DataFrame:
    unknown = set(frame.columns) - set(schema)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is no column of a meter: write {', '.join(schema)}")
    lacking = [name for name in needed if name not in frame.columns or frame[name].null_count()]
    if lacking and not frame.is_empty():
        raise ValueError(f"{', '.join(lacking)} must be told of every meter: nobody could find these rows again")
    missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(schema.names()).cast(schema)
