"""Own hardware by the hour: what each deployment cost, how busy it was, and what its tokens carry of it.

Only hours that changed are computed again: those with new calls, those that were provisional, and those that have begun
since. Busy is the union of call intervals, until an engine's own counters say better; the rest of the hour is idle.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa
from sqlalchemy import Table, column, exists, func, select, table

from millicent.pricing.hardware import DEFAULT_WEIGHTS, HourCost, allocate, hourly_cost
from millicent.warehouse.control import Control
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.engine import Engine, Transaction
from millicent.warehouse.ledger import LONGEST_CALL, MILLISECOND
from millicent.warehouse.tables import calls, deployment_hours, dirty_hours, usage_hourly

HOUR: Final = timedelta(hours=1)
REPEAT: Final = timedelta(minutes=1)
METHOD: Final = "busy = union of call intervals; weights 1000 uncached input, 100 cached input, 4000 output"
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Slot(NamedTuple):
    """One hour of one deployment; `hour` is aware, UTC."""

    tenant: str
    deployment: str
    hour: datetime


def refresh(engine: Engine, control: Control, now: datetime) -> int:
    """Bring `deployment_hours` up to `now`, a day at a time and oldest first, each day in one transaction.

    Calls that claim to be in an hour yet to come wait for it.

    Returns:
        How many deployment-hours were computed.

    Raises:
        EngineError: the database failed; what was committed before stays, the rest is still to do.
    """
    declared = control.deployments()
    days: dict[datetime, list[Slot]] = defaultdict(list)
    dirty = _dirty(engine)
    for slot in sorted({*_due(engine, declared, now), *dirty}):
        if slot.hour < now:
            days[slot.hour.replace(hour=0)].append(slot)
    for _, slots in sorted(days.items()):
        with engine.write() as transaction:
            _compute(transaction, slots, declared, now)
            changes = {slot: dirty[slot] for slot in slots if slot in dirty}
            _forget(transaction, dirty_hours, list(changes), list(changes.values()))
    return sum(map(len, days.values()))


def _dirty(engine: Engine) -> dict[Slot, int]:
    """Deployment-hours with changes, and the last change of each."""
    by = (dirty_hours.c.tenant, dirty_hours.c.deployment, dirty_hours.c.hour)
    rows = engine.read(select(*by, func.max(dirty_hours.c.change).label("change")).group_by(*by)).to_pylist()
    return {Slot(row["tenant"], row["deployment"], row["hour"]): row["change"] for row in rows}


def _due(engine: Engine, declared: Iterable[tuple[str, Deployment]], now: datetime) -> Iterable[Slot]:
    """Hours of declared deployments that were never computed, only while they ran, or under another declaration."""
    c = deployment_hours.c
    by, final = (c.tenant, c.deployment, c.declared_from), ~c.provisional
    done = select(
        *by,
        func.count().filter(final).label("finals"),
        func.max(c.hour).filter(final).label("through"),
        func.max(c.hour).label("last"),
    ).group_by(*by)
    stored = {tuple(row.values())[:3]: row for row in engine.read(done).to_pylist()}
    running = select(c.tenant, c.deployment, c.hour).where(c.provisional, c.computed_at > _bare(now - REPEAT))
    recent = {Slot(**row) for row in engine.read(running).to_pylist()}
    for tenant, one in declared:
        have = stored.get((tenant, one.name, one.effective_from))
        start = one.effective_from
        if have and have["finals"] and have["finals"] * HOUR == have["through"] + HOUR - start:
            start = have["through"] + HOUR
        for hour in _hours(start, min(now, one.effective_to or now)):
            if hour + HOUR <= now or Slot(tenant, one.name, hour) not in recent:
                yield Slot(tenant, one.name, hour)
        if have and one.effective_to:  # hours computed before it was known to end
            yield from (Slot(tenant, one.name, hour) for hour in _hours(one.effective_to, have["last"] + HOUR))


def _hours(start: datetime, end: datetime) -> Iterable[datetime]:
    while start < end:
        yield start
        start += HOUR


def _compute(
    transaction: Transaction, slots: list[Slot], declared: list[tuple[str, Deployment]], now: datetime
) -> None:
    serving = {slot: one for slot in slots if (one := _serving(slot, declared)) is not None}
    busy_ms, tokens = _busy_ms(transaction, slots), _tokens(transaction, slots)
    rows = [_row(slot, one, busy_ms.get(slot, 0), tokens.get(slot, (0, 0, 0)), now) for slot, one in serving.items()]
    _forget(transaction, deployment_hours, slots)
    if rows:
        transaction.insert("deployment_hours", pa.Table.from_pylist(rows, schema=_SCHEMA))


def _serving(slot: Slot, declared: list[tuple[str, Deployment]]) -> Deployment | None:
    for tenant, one in declared:
        ended = one.effective_to is not None and one.effective_to <= slot.hour
        if (tenant, one.name) == slot[:2] and one.effective_from <= slot.hour and not ended:
            return one
    return None


def _row(slot: Slot, one: Deployment, busy_ms: int, tokens: tuple[int, int, int], now: datetime) -> dict[str, Any]:
    elapsed_ms = min(HOUR, now - slot.hour) // MILLISECOND
    busy_ms = min(busy_ms, elapsed_ms)
    busy_s, elapsed_s = Decimal(busy_ms) / 1000, Decimal(elapsed_ms) / 1000
    cost = hourly_cost(
        one.cost_profile(),
        one.accelerator,
        one.accelerator_count,
        region=one.region,
        power=one.electricity(),
        busy_seconds=busy_s,
        elapsed_seconds=elapsed_s,
        at=slot.hour,
    )
    w = DEFAULT_WEIGHTS
    weight = w.of(uncached_input=tokens[0] - tokens[1], cached_input=tokens[1], output=tokens[2])
    spread = allocate(cost.total_usd, busy_seconds=busy_s, elapsed_seconds=elapsed_s, weight=weight)
    energy = allocate(cost.energy_usd, busy_seconds=busy_s, elapsed_seconds=elapsed_s, weight=weight)
    return {
        **slot._asdict(),
        **{
            name: getattr(one, name)
            for name in ("model", "engine", "precision", "accelerator", "region", "environment")
        },
        "accelerator_count": one.accelerator_count,
        "elapsed_ms": elapsed_ms,
        "busy_ms": busy_ms,
        "accelerator_ms": elapsed_ms * one.accelerator_count,
        "fixed_usd": cost.fixed_usd,
        "energy_usd": cost.energy_usd,
        "hosting_usd": cost.hosting_usd,
        "busy_usd": spread.busy_usd,
        "idle_usd": spread.idle_usd - spread.untracked_usd,
        "untracked_usd": spread.untracked_usd,
        "joules": cost.joules,
        "gco2e_g": cost.gco2e_g,
        "w_input": w.uncached_input,
        "w_cached": w.cached_input,
        "w_output": w.output,
        "weight": Decimal(weight),
        "rate_usd_per_weight": spread.rate_usd_per_weight if weight else None,
        "energy_rate_usd_per_weight": energy.rate_usd_per_weight if weight else None,
        "method": METHOD,
        "sources": _sources(cost),
        "declared_from": one.effective_from,
        "provisional": elapsed_ms < HOUR // MILLISECOND,
        "computed_at": now,
    }


def _sources(cost: HourCost) -> str:
    told = [
        {"name": i.name, "value": f"{i.value:f}", "unit": i.unit, "source": f"{i.origin}: {i.source}"}
        for i in cost.inputs
    ]
    energy = {"name": "energy", "value": cost.energy_source, "unit": "", "source": ""}
    return json.dumps([*told, energy], ensure_ascii=False)


def _busy_ms(transaction: Transaction, slots: list[Slot]) -> dict[Slot, int]:
    """Milliseconds of each hour in which at least one call ran."""
    first, last = min(slot.hour for slot in slots), max(slot.hour for slot in slots) + HOUR
    lasted = func.least(func.coalesce(calls.c.duration_ms, 0), LONGEST_CALL // MILLISECOND)
    asked = select(
        calls.c.tenant, calls.c.deployment,
        func.epoch_ms(calls.c.started_at).label("start"),
        (func.epoch_ms(calls.c.started_at) + lasted).label("end"),
    ).where(
        calls.c.counted,
        calls.c.signal != "metric",  # an interval of a metric says when it was read, not when anything ran
        calls.c.deployment.in_({slot.deployment for slot in slots}),
        calls.c.started_at >= _bare(first - LONGEST_CALL), calls.c.started_at < _bare(last),
    )  # fmt: skip
    intervals = pl.LazyFrame(pl.from_arrow(transaction.read(asked)))
    by = ["tenant", "deployment", "hour"]
    hour_ms = HOUR // MILLISECOND
    pieces = (
        intervals.with_columns(hour=pl.int_ranges(pl.col("start") // hour_ms, pl.col("end") // hour_ms + 1))
        .explode("hour")
        .with_columns(
            start=pl.max_horizontal("start", pl.col("hour") * hour_ms),
            end=pl.min_horizontal("end", (pl.col("hour") + 1) * hour_ms),
        )
        .sort("start")
    )
    covered_to = pl.col("end").cum_max().shift(1).over(by)
    new = pl.col("end") - pl.max_horizontal("start", covered_to.fill_null(0))
    rows = pieces.with_columns(new=new.clip(0)).group_by(by).agg(pl.col("new").sum()).collect()
    return {
        Slot(tenant, deployment, _EPOCH + hour * HOUR): new
        for tenant, deployment, hour, new in rows.select(*by, "new").iter_rows()
    }


def _tokens(transaction: Transaction, slots: list[Slot]) -> dict[Slot, tuple[int, int, int]]:
    """Input, cached input and output tokens served in each hour."""
    u = usage_hourly.c
    by = (u.tenant, u.deployment, u.hour)
    sums = (func.sum(column).label(column.name) for column in (u.input_tokens, u.cache_read_tokens, u.output_tokens))
    asked = (
        select(*by, *sums)
        .where(
            u.deployment.in_({slot.deployment for slot in slots}),
            u.hour >= _bare(min(slot.hour for slot in slots)), u.hour <= _bare(max(slot.hour for slot in slots)),
        )
        .group_by(*by)
    )  # fmt: skip
    return {
        Slot(tenant, deployment, hour): (int(read or 0), int(cached or 0), int(written or 0))
        for tenant, deployment, hour, read, cached, written in (
            row.values() for row in transaction.read(asked).to_pylist()
        )
    }


def _forget(transaction: Transaction, rows: Table, slots: list[Slot], up_to: list[int] | None = None) -> None:
    """Delete the rows of `slots`; where `up_to` is given, those with a later change stay."""
    if not slots:
        return
    keys = table("keys", *(column(name) for name in (*Slot._fields, "change")))
    same = [rows.c[name] == keys.c[name] for name in Slot._fields]
    if up_to is not None:
        same.append(rows.c.change <= keys.c.change)
    columns = {name: [getattr(slot, name) for slot in slots] for name in Slot._fields}
    frame = pa.table({**columns, "change": up_to or [0] * len(slots)})
    transaction.execute(rows.delete().where(exists(select(keys.c.change).where(*same))), keys=frame)


def _bare(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)


_EXACT: Final = pa.decimal128(38, 24)
_METERED: Final = pa.decimal128(38, 6)
_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("tenant", "deployment")),
        ("hour", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in ("model", "engine", "precision", "accelerator", "region", "environment")),
        ("accelerator_count", pa.int32()),
        *((name, pa.int64()) for name in ("elapsed_ms", "busy_ms", "accelerator_ms")),
        *(
            (name, _EXACT)
            for name in ("fixed_usd", "energy_usd", "hosting_usd", "busy_usd", "idle_usd", "untracked_usd")
        ),
        *((name, _METERED) for name in ("joules", "gco2e_g")),
        *((name, pa.int32()) for name in ("w_input", "w_cached", "w_output")),
        ("weight", pa.decimal128(38, 0)),
        *((name, _EXACT) for name in ("rate_usd_per_weight", "energy_rate_usd_per_weight")),
        *((name, pa.string()) for name in ("method", "sources")),
        ("provisional", pa.bool_()),
        ("declared_from", pa.timestamp("us", "UTC")),
        ("computed_at", pa.timestamp("us", "UTC")),
    ]
)
