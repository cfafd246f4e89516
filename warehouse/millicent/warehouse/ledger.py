"""Writing facts: which spans are already here, and the one transaction that stores a batch.

Rows, rollup deltas, outcomes and the spool position commit together, so that a crash at any moment leaves the books
balanced: received = stored + duplicate + not_a_call + rejected + quarantined + in_spool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import polars as pl
import pyarrow as pa
from sqlalchemy import and_, column, func, select, table

from millicent.warehouse import late, metered, record, rollups
from millicent.warehouse.engine import Engine, EngineError, Transaction
from millicent.warehouse.frames import arrow, plain
from millicent.warehouse.revisions import days_of
from millicent.warehouse.tables import PRICE, calls, loaded, outcomes, repriced_amounts, series, told, without_zone

KEY: Final = ("tenant", "started_at", "trace_id", "span_id")
LONGEST_CALL: Final = timedelta(hours=6)
"""A call keeps its deployment busy for no longer than this, whatever its span says."""
MILLISECOND: Final = timedelta(milliseconds=1)
OUTCOMES: Final = ("stored", "duplicate", "not_a_call", "rejected", "quarantined")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one load produced.

    `calls`: new rows, as `record.PLAIN`. `outcomes`: tenant, hour, outcome, reason, spans. `quarantine`, `edges`,
    `series`: columns of the tables of those names. `revised`: stored calls as they read now. `told`: calls, new or
    revised, as their own span told them, where that is not what they read. `meter_hours`, `meter_series`: what meters
    told, as `metered.HOURS` and `metered.SERIES`.
    """

    calls: pl.DataFrame
    outcomes: pl.DataFrame
    quarantine: pl.DataFrame
    revised: pl.DataFrame = field(default_factory=pl.DataFrame)
    told: pl.DataFrame = field(default_factory=pl.DataFrame)
    edges: pl.DataFrame = field(default_factory=pl.DataFrame)
    series: pl.DataFrame = field(default_factory=pl.DataFrame)
    meter_hours: pl.DataFrame = field(default_factory=pl.DataFrame)
    meter_series: pl.DataFrame = field(default_factory=pl.DataFrame)


def position(engine: Engine, spool: str) -> tuple[int, int]:
    """Segment and byte offset up to which `spool` is loaded; (0, 0) when nothing is."""
    rows = engine.read(select(loaded.c.segment, loaded.c.byte_offset).where(loaded.c.spool == spool)).to_pylist()
    return (rows[0]["segment"], rows[0]["byte_offset"]) if rows else (0, 0)


def seen(engine: Engine, keys: pl.DataFrame) -> pl.Series:
    """Whether each of `keys` (columns of `KEY`, `trace_id` as 16 bytes) is stored already; same height and order."""
    if keys.is_empty():
        return pl.Series([], dtype=pl.Boolean)
    instants = keys["started_at"].dt.replace_time_zone(None)
    asked = table("asked", column("row"), *(column(name) for name in KEY))
    found = select(asked.c.row).where(
        calls.c.started_at >= instants.min(),
        calls.c.started_at <= instants.max(),
        *(calls.c[name] == asked.c[name] for name in KEY),
    )
    frame = arrow(keys.select(KEY).with_row_index("row"))
    with engine.write() as transaction:
        rows = transaction.read(found, asked=frame).column("row")
    mask = pl.zeros(keys.height, dtype=pl.Boolean, eager=True)
    return mask.scatter(pl.Series(rows.to_numpy()), True) if len(rows) else mask


def remembered(engine: Engine, asked: pl.DataFrame) -> pl.DataFrame:
    """What is remembered of metrics (`asked`: tenant, series as 16 bytes): tenant, series, last_at, value, count."""
    by = [series.c[name] for name in ("tenant", "series", "last_at", "value", "count")]
    mine = [series.c[name] == _SERIES.c[name] for name in ("tenant", "series")]
    with engine.write() as transaction:
        return plain(transaction.read(select(*by).where(*mine), asked=arrow(asked)))


def commit(
    engine: Engine, batch: Batch, spool: str, position: tuple[int, int], closed: late.Closed = late.NONE
) -> None:
    """Store `batch` and move `spool` to `position`, together or not at all; amounts of `closed` periods stay.

    Raises:
        EngineError: as `Engine.write`; read `position` again before going on.
    """
    with engine.write() as transaction:
        change = _advance(transaction, spool, position)
        store(transaction, batch, change, closed)


def touch(engine: Engine) -> None:
    """Commit a change that changes nothing, to see whether anything can be stored now.

    Raises:
        EngineError: nothing can.
    """
    with engine.write() as transaction:
        transaction.execute(loaded.update().values(change=loaded.c.change))


def store(transaction: Transaction, batch: Batch, change: int, closed: late.Closed = late.NONE) -> None:
    """Add calls, their rollup deltas and everything counted about them inside an open transaction."""
    if not batch.calls.is_empty():
        late.adjust(transaction, closed, batch.calls)
        transaction.insert("calls", arrow(batch.calls))
        transaction.insert("usage_hourly", rollups.deltas(batch.calls).to_arrow())
        transaction.insert("dirty_hours", _touched(batch.calls, change).to_arrow())
    if not batch.revised.is_empty():
        _replace(transaction, batch.revised, change, closed)
    _keep_told(transaction, batch.told)
    if not batch.series.is_empty():
        mine = and_(series.c.tenant == _SERIES.c.tenant, series.c.series == _SERIES.c.series)
        transaction.execute(series.delete().where(mine), asked=arrow(batch.series.select("tenant", "series")))
        transaction.insert("series", arrow(batch.series))
    if not batch.meter_series.is_empty():
        metered.store(transaction, batch.meter_hours, batch.meter_series, change)
    if not batch.edges.is_empty():
        transaction.insert("edges", arrow(batch.edges))
    if not batch.quarantine.is_empty():
        transaction.insert("quarantine", batch.quarantine.to_arrow())
    transaction.insert("outcomes", batch.outcomes.to_arrow())


def calls_between(engine: Engine, tenant: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Every stored call of a tenant that started in the half-open period, counted or not, as `record.PLAIN`."""
    asked = select(calls).where(
        calls.c.tenant == tenant,
        calls.c.started_at >= without_zone(start),
        calls.c.started_at < without_zone(end),
    )
    return plain(engine.read(asked))


def own_words(engine: Engine, rows: pl.DataFrame) -> pl.DataFrame:
    """Of stored calls (found by `KEY`), those that counting changed, as their own span told them (`record.PLAIN`)."""
    with engine.write() as transaction:
        mine = (told.c[name] == _ASKED.c[name] for name in KEY)
        return plain(transaction.read(select(told).where(*mine), asked=arrow(rows.select(KEY))))


class Amounts(NamedTuple):
    """What a stored call costs; amounts are None where unknown. `row`: its place among those asked for."""

    row: int
    counted: bool
    list_cost_usd: Decimal | None
    billed_cost_usd: Decimal | None
    price_status: str
    price_entry: str | None
    price_version: str | None


def amounts(engine: Engine, keys: pl.DataFrame) -> list[Amounts]:
    """What those of `keys` (columns of `KEY`, `trace_id` as 16 bytes) cost that are stored calls."""
    instants = keys["started_at"].dt.replace_time_zone(None)
    asked = table("asked", column("row"), *(column(name) for name in KEY))
    found = select(asked.c.row, *(calls.c[name] for name in Amounts._fields[1:])).where(
        calls.c.started_at >= instants.min(),
        calls.c.started_at <= instants.max(),
        *(calls.c[name] == asked.c[name] for name in KEY),
    )
    frame = arrow(keys.select(KEY).with_row_index("row"))
    with engine.write() as transaction:
        rows = transaction.read(found, asked=frame)
    return [Amounts(*row) for row in pl.DataFrame(pl.from_arrow(rows)).iter_rows()]


def revise(engine: Engine, rows: pl.DataFrame, own: pl.DataFrame | None = None, closed: late.Closed = late.NONE) -> int:
    """Replace stored calls by `rows` (as `record.PLAIN`, found by `KEY`), and correct the sums, all or nothing.

    Hold `Warehouse.writing` from reading the rows until this returns, so that no change in between is lost. `own`
    replaces what is kept of the calls' own words. Amounts of `closed` periods stay.

    Returns:
        How many calls were replaced.

    Raises:
        EngineError: one of `rows` is not stored, or the commit failed; nothing has changed then.
    """
    if rows.is_empty():
        return 0
    with engine.write() as transaction:
        last = transaction.read(select(func.max(loaded.c.change).label("change"))).to_pylist()[0]["change"]
        change = (last or 0) + 1
        transaction.execute(loaded.update().values(change=change))
        _replace(transaction, rows, change, closed)
        if own is not None:
            _keep_told(transaction, own)
    return rows.height


def _keep_told(transaction: Transaction, rows: pl.DataFrame) -> None:
    if rows.is_empty():
        return
    mine = (told.c[name] == _ASKED.c[name] for name in KEY)
    transaction.execute(told.delete().where(*mine), asked=arrow(rows.select(KEY)))
    transaction.insert("told", arrow(rows))


def _replace(transaction: Transaction, rows: pl.DataFrame, change: int, closed: late.Closed) -> None:
    asked = arrow(rows.select(KEY))
    instants = rows["started_at"].dt.replace_time_zone(None)
    mine = (
        *(calls.c[name] == _ASKED.c[name] for name in KEY),
        calls.c.started_at >= instants.min(),
        calls.c.started_at <= instants.max(),
    )
    old = plain(transaction.read(select(calls).where(*mine), asked=asked))
    if old.height != rows.height:
        raise EngineError(f"{rows.height} calls to replace, {old.height} of them stored: read them again and retry")
    transaction.execute(calls.delete().where(*mine), days=days_of(rows["started_at"]), asked=asked)
    transaction.insert("calls", arrow(rows))
    rollups.correct(transaction, old, rows)
    anew = _priced_anew(old, rows)
    late.adjust(transaction, closed, rows, old, anew)
    _forget_former_prices(transaction, anew)
    touched = pl.concat([_touched(old, change), _touched(rows, change)]).unique()
    transaction.insert("dirty_hours", touched.to_arrow())


def _priced_anew(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Keys of calls that are priced by other facts now."""
    both = old.select(*KEY, *_PRICED).join(new.select(*KEY, *_PRICED), on=KEY, suffix="_new")
    otherwise = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in _PRICED)
    return both.filter(otherwise).select(KEY)


def _forget_former_prices(transaction: Transaction, keys: pl.DataFrame) -> None:
    """Drop what a repricing kept of calls that are priced by other facts now: undoing it must not bring that back."""
    if keys.is_empty():
        return
    instants = keys["started_at"].dt.replace_time_zone(None)
    within = repriced_amounts.c.started_at.between(instants.min(), instants.max())
    mine = (repriced_amounts.c[name] == _ASKED.c[name] for name in KEY)
    transaction.execute(repriced_amounts.delete().where(within, *mine), asked=arrow(keys))


_PRICED: Final = ("provider", "model", "billing", *record.TOKENS, *PRICE)
_ASKED: Final = table("asked", *(column(name) for name in KEY))
_SERIES: Final = table("asked", column("tenant"), column("series"))


def books(engine: Engine, spool: str) -> tuple[dict[str, int], tuple[int, int]]:
    """Spans by outcome since the beginning (all tenants; every name of `OUTCOMES`), and how far `spool` is loaded.

    Both are of one instant.
    """
    here = loaded.c.spool == spool
    asked = select(
        outcomes.c.outcome,
        func.sum(outcomes.c.spans).label("spans"),
        select(loaded.c.segment).where(here).scalar_subquery().label("segment"),
        select(loaded.c.byte_offset).where(here).scalar_subquery().label("byte_offset"),
    ).group_by(outcomes.c.outcome)
    rows = engine.read(asked).to_pylist()
    found = {row["outcome"]: int(row["spans"]) for row in rows}
    position = (rows[0]["segment"] or 0, rows[0]["byte_offset"] or 0) if rows else (0, 0)
    return {name: found.get(name, 0) for name in OUTCOMES}, position


def reasons(engine: Engine) -> list[tuple[str, str, int]]:
    """(outcome, reason, spans) since the beginning, most first."""
    spans = func.sum(outcomes.c.spans).label("spans")
    asked = select(outcomes.c.outcome, outcomes.c.reason, spans).group_by(outcomes.c.outcome, outcomes.c.reason)
    rows = engine.read(asked.order_by(spans.desc())).to_pylist()
    return [(row["outcome"], row["reason"], int(row["spans"])) for row in rows]


def _touched(calls: pl.DataFrame, change: int) -> pl.DataFrame:
    """Every hour of a deployment in which some of `calls` ran."""
    started = pl.col("started_at")
    lasted = pl.duration(milliseconds=pl.col("duration_ms").fill_null(0).clip(0, LONGEST_CALL // MILLISECOND))
    hours = pl.datetime_ranges(started.dt.truncate("1h"), started + lasted, "1h")
    return (
        calls.lazy()
        .filter(pl.col("counted") & pl.col("deployment").is_not_null())
        .select("tenant", "deployment", hour=hours)
        .explode("hour")
        .unique()
        .with_columns(change=pl.lit(change, pl.Int64))
        .collect()
    )


def _advance(transaction: Transaction, spool: str, position: tuple[int, int]) -> int:
    here = loaded.c.spool == spool
    last = transaction.read(select(loaded.c.change).where(here)).to_pylist()
    change = int(last[0]["change"]) + 1 if last else 1
    values = {"segment": position[0], "byte_offset": position[1], "change": change}
    if last:
        transaction.execute(loaded.update().where(here).values(**values))
    else:
        transaction.insert("loaded", pa.Table.from_pylist([{"spool": spool, **values}]))
    return change
