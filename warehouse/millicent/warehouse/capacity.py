"""Own hardware by the hour: what each deployment cost, how busy it was, and what its tokens carry of it.

What is declared makes a plan; its hours are computed once, from everything that happened in them, and again only where
that changed: hours with new calls or readings, those that were provisional, and those whose declaration, policy or
price is another now. Hours of closed periods stay as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Integer,
    Numeric,
    Table,
    and_,
    column,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    table,
)  # fmt: skip

from millicent.warehouse import happened, hour_rows, plan
from millicent.warehouse.control import Control
from millicent.warehouse.engine import Engine, Transaction
from millicent.warehouse.happened import PoolHour
from millicent.warehouse.plan import HOUR, Plan, Span
from millicent.warehouse.tables import deployment_hours, dirty_hours, idle_shares, without_zone

REPEAT: Final = timedelta(minutes=1)
TOGETHER: Final = 500
"""So many hours are computed in one transaction at most: nothing else can be stored meanwhile."""


class Slot(NamedTuple):
    """One hour of one deployment, or of what a reservation has left; `hour` is aware, UTC."""

    tenant: str
    deployment: str
    hour: datetime


class _Closed:
    """Closed hours, by tenant, as periods that neither overlap nor touch."""

    def __init__(self, periods: Iterable[tuple[str, datetime, datetime]]) -> None:
        self.periods: dict[str, list[tuple[datetime, datetime]]] = defaultdict(list)
        for tenant, start, end in sorted(periods):
            mine = self.periods[tenant]
            if mine and start <= mine[-1][1]:
                mine[-1] = (mine[-1][0], max(end, mine[-1][1]))
            else:
                mine.append((start, end))

    @classmethod
    def of(cls, control: Control, tenants: Collection[str]) -> _Closed:
        return cls((tenant, one.start, one.end) for tenant in tenants for one in control.closed_periods(tenant))

    def holds(self, tenant: str, hour: datetime) -> bool:
        return any(start <= hour < end for start, end in self.periods.get(tenant, ()))

    def open_parts(self, tenant: str, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
        """What is open of `[start, end)`."""
        for closed_from, closed_to in self.periods.get(tenant, ()):
            if start < min(closed_from, end):
                yield start, min(closed_from, end)
            start = max(start, closed_to)
        if start < end:
            yield start, end

    def condition(self, rows: Table) -> Any:
        """Rows of closed hours."""
        return or_(
            false(),
            *(
                and_(rows.c.tenant == tenant, rows.c.hour >= without_zone(start), rows.c.hour < without_zone(end))
                for tenant, periods in self.periods.items()
                for start, end in periods
            ),
        )


def refresh(engine: Engine, control: Control, now: datetime) -> int:
    """Bring `deployment_hours` up to `now`, oldest first, a day or less in each transaction.

    Calls that claim to be in an hour yet to come wait for it.

    Returns:
        How many deployment-hours were computed or taken back.

    Raises:
        EngineError: the database failed; what was committed before stays, the rest is still to do.
    """
    declared = control.deployments()
    planned = Plan(plan.spans(declared, control.policies(), now))
    dirty = {slot for slot in _dirty(engine) if slot.hour < now}
    tenants = {tenant for tenant, _ in declared} | {slot.tenant for slot in dirty}
    closed = _Closed.of(control, tenants)
    frozen = {slot for slot in dirty if closed.holds(slot.tenant, slot.hour)}
    due = {*_due(engine, planned, closed, now), *dirty, *_followers(engine, dirty, now)} - frozen
    if frozen:
        with engine.write() as transaction:
            _forget(transaction, dirty_hours, frozen)
    done = 0
    for work in _batches(planned, due):
        with engine.write() as transaction:
            closed = _Closed.of(control, tenants)  # what has been closed by now stays, and no other is meanwhile
            done += _compute(transaction, [one for one in work if not closed.holds(one.tenant, one.hour)], now)
    return done


# ---- what there is to do


def _dirty(engine: Engine) -> set[Slot]:
    """Deployment-hours in which something changed."""
    by = (dirty_hours.c.tenant, dirty_hours.c.deployment, dirty_hours.c.hour)
    return {Slot(**row) for row in engine.read(select(*by).distinct()).to_pylist()}


def _followers(engine: Engine, dirty: Collection[Slot], now: datetime) -> Iterator[Slot]:
    """Hours after those: what an engine counted of calls that began in the hour before is not untracked."""
    if not dirty:
        return
    next_ones = {slot._replace(hour=slot.hour + HOUR) for slot in dirty if slot.hour + HOUR < now}
    c = deployment_hours.c
    asked = select(c.tenant, c.deployment, c.hour).where(
        or_(c.engine_input_tokens.is_not(None), c.engine_output_tokens.is_not(None)),
        c.deployment.in_({slot.deployment for slot in dirty}),
        c.hour > without_zone(min(slot.hour for slot in dirty)),
        c.hour <= without_zone(max(slot.hour for slot in dirty) + HOUR),
    )
    yield from next_ones.intersection(Slot(**row) for row in engine.read(asked).to_pylist())


class _Stored(NamedTuple):
    """What is stored of the open hours of a name under one digest."""

    finals: int
    through: datetime | None
    last: datetime


def _due(engine: Engine, planned: Plan, closed: _Closed, now: datetime) -> Iterator[Slot]:
    """Open hours that were never computed, only while they ran, or from what is declared no more."""
    stored = _stored(engine, closed)
    recent = _recent(engine, now)
    named = {(tenant, name, span.digest): span for (tenant, name), spans in planned.spans.items() for span in spans}
    again = []
    for key, span in named.items():
        tenant, name, _ = key
        have = stored.get(key)
        whole = min(span.end, _hour(now))
        parts = list(closed.open_parts(tenant, span.start, whole))
        expected = sum((end - start) // HOUR for start, end in parts)
        if have is not None and have.last >= span.end:
            again.append(key)
        if have is None or have.through is None:
            missing = parts
        elif have.finals == expected and have.through < whole:
            missing = []
        else:
            through = min(have.through + HOUR, whole)
            before = sum((end - start) // HOUR for start, end in closed.open_parts(tenant, span.start, through))
            if have.finals != before:
                again.append(key)
                continue
            missing = list(closed.open_parts(tenant, through, whole))
        yield from (Slot(tenant, name, hour) for start, end in missing for hour in _hours(start, end))
        if whole < span.end and Slot(tenant, name, whole) not in recent and whole < now:
            yield Slot(tenant, name, whole)
    gone = [key for key in stored if key not in named]
    yield from _not_as_planned(engine, planned, closed, {*gone, *again}, now)


def _stored(engine: Engine, closed: _Closed) -> dict[tuple[str, str, str | None], _Stored]:
    c = deployment_hours.c
    by, final = (c.tenant, c.deployment, c.computed_from), ~c.provisional
    asked = (
        select(
            *by,
            func.count().filter(final).label("finals"),
            func.max(c.hour).filter(final).label("through"),
            func.max(c.hour).label("last"),
        )
        .where(not_(closed.condition(deployment_hours)))
        .group_by(*by)
    )
    rows = (tuple(row.values()) for row in engine.read(asked).to_pylist())
    return {(tenant, name, digest): _Stored(*told) for tenant, name, digest, *told in rows}


def _recent(engine: Engine, now: datetime) -> set[Slot]:
    """Hours that run and were computed less than a minute ago."""
    c = deployment_hours.c
    asked = select(c.tenant, c.deployment, c.hour).where(c.provisional, c.computed_at > without_zone(now - REPEAT))
    return {Slot(**row) for row in engine.read(asked).to_pylist()}


def _not_as_planned(
    engine: Engine, planned: Plan, closed: _Closed, keys: Collection[tuple[str, str, str | None]], now: datetime
) -> Iterator[Slot]:
    """Of names and digests, hours that are stored otherwise than planned, and those that are not stored."""
    if not keys:
        return
    names = {(tenant, name) for tenant, name, _ in keys}
    c = deployment_hours.c
    asked = select(c.tenant, c.deployment, c.hour, c.computed_from, c.provisional).where(
        c.deployment.in_({name for _, name in names}), not_(closed.condition(deployment_hours))
    )
    finals: set[Slot] = set()
    for row in engine.read(asked).to_pylist():
        slot = Slot(row["tenant"], row["deployment"], row["hour"])
        span = planned.at(*slot)
        if span is None or span.digest != row["computed_from"]:
            yield slot
        elif not row["provisional"]:
            finals.add(slot)
    digests = {digest for *_, digest in keys}
    for tenant, name in names:
        for span in planned.spans.get((tenant, name), ()):
            if span.digest in digests:
                for start, end in closed.open_parts(tenant, span.start, min(span.end, _hour(now))):
                    yield from {Slot(tenant, name, hour) for hour in _hours(start, end)} - finals


class _Work(NamedTuple):
    """Names whose rows of an hour are made anew: by a span, or by nothing where nothing is declared any more."""

    hour: datetime
    tenant: str
    span: Span | None
    slots: set[Slot]


def _batches(planned: Plan, due: Collection[Slot]) -> Iterator[Sequence[_Work]]:
    """Work of one day or less at a time, oldest first; all rows of a pool's hour go together."""
    by_hour: dict[tuple[datetime, str, str], tuple[Span | None, set[Slot]]] = {}
    for slot in due:
        span = planned.at(*slot)
        key = (slot.hour, slot.tenant, f"name {slot.deployment}" if span is None else f"span {span.digest}")
        _, slots = by_hour.setdefault(key, (span, set()))
        slots.add(slot)
        if span is not None:
            slots.update(Slot(slot.tenant, name, slot.hour) for name in span.names)
    ordered = [_Work(key[0], key[1], *by_hour[key]) for key in sorted(by_hour)]
    for _, day in groupby(ordered, key=lambda work: work.hour.date()):
        hours = list(day)
        yield from (hours[start : start + TOGETHER] for start in range(0, len(hours), TOGETHER))


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def _hours(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += HOUR


# ---- doing it


def _compute(transaction: Transaction, work: Sequence[_Work], now: datetime) -> int:
    slots = [slot for one in work for slot in one.slots]
    if not slots:
        return 0
    pool_hours = [PoolHour(one.span, one.hour) for one in work if one.span is not None]
    hours: list[hour_rows.Row] = []
    shares: list[hour_rows.Row] = []
    for of, what in zip(pool_hours, happened.read(transaction, pool_hours), strict=True):
        some, carried = hour_rows.rows(of, what, now)
        hours += some
        shares += carried
    for rows in (deployment_hours, idle_shares, dirty_hours):  # nothing else was written since they were read
        _forget(transaction, rows, slots)
    for rows, made in ((deployment_hours, hours), (idle_shares, shares)):
        if made:
            transaction.insert(rows.name, pa.Table.from_pylist(made, schema=_schema(rows)))
    return len(slots)


def _forget(transaction: Transaction, rows: Table, slots: Collection[Slot]) -> None:
    keys = table("keys", *(column(name) for name in Slot._fields))
    same = [rows.c[name] == keys.c[name] for name in Slot._fields]
    frame = pa.table({name: [getattr(slot, name) for slot in slots] for name in Slot._fields})
    gone = rows.delete().where(exists(select(keys.c.hour).where(*same)))
    transaction.execute(gone, days={slot.hour.date() for slot in slots}, keys=frame)


def _schema(rows: Table) -> pa.Schema:
    return pa.schema([(told.name, _arrow(told.type)) for told in rows.columns])


def _arrow(of: Any) -> pa.DataType:
    if isinstance(of, Numeric):
        return pa.decimal128(of.precision, of.scale)
    if isinstance(of, DateTime):
        return pa.timestamp("us", "UTC")
    kinds = ((Boolean, pa.bool_()), (BigInteger, pa.int64()), (Integer, pa.int32()))
    return next((made for kind, made in kinds if isinstance(of, kind)), pa.string())
