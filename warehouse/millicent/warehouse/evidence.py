"""What else is known of the calls at hand: rows and spans that may tell of the same call, whenever they came.

Parents end after their children, and two instrumentations export on their own, so what shows that two rows are one
call may be stored long before or after them. Spans that are no calls leave an edge; calls that counting changed keep
their own words in `told`. Both are kept for `KEPT`; older rows are no longer decided again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import polars as pl
from sqlalchemy import ColumnElement, Table, column, delete, func, literal_column, select, table

from millicent.warehouse.engine import Engine, Transaction
from millicent.warehouse.frames import EMPTY, arrow, plain
from millicent.warehouse.ledger import KEY
from millicent.warehouse.tables import calls, edges, told, without_zone

KEPT: Final = timedelta(days=7)
LONGEST_TRACE: Final = timedelta(hours=24)
NEAR: Final = timedelta(hours=1)
"""How far apart by their clocks two rows may have started and still be tellings of one call."""


_Between = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Probe:
    """What to look for.

    `traces`: tenant, trace_id. `responses`: tenant, response_id. `requests`: tenant, request_id. `alike`: tenant,
    service, input_tokens (equal, unknowns too), start, end: rows that ran at some time between these. `streams`: the
    same with scope and dialect for tokens. `start`, `end`: of all that is known by now. Instants are aware.
    """

    traces: pl.DataFrame
    responses: pl.DataFrame
    requests: pl.DataFrame
    alike: pl.DataFrame
    streams: pl.DataFrame
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """`calls`: stored rows (`record.PLAIN`). `told`: the same of them that counting changed, in their own words.

    `edges`: columns of the table of that name.
    """

    calls: pl.DataFrame
    told: pl.DataFrame
    edges: pl.DataFrame


def related(engine: Engine, probe: Probe, since: datetime) -> Evidence:
    """Everything stored that `probe` finds among rows received since an instant."""
    old = without_zone(since)
    day = (probe.start - LONGEST_TRACE, probe.end + NEAR)
    hour = (probe.start - NEAR, probe.end + NEAR)
    with engine.write() as transaction:
        found = [
            *(_found(transaction, calls, frame, keys, between, old) for frame, keys, between in (
                (probe.traces, ("tenant", "trace_id"), day),
                (probe.responses, ("tenant", "response_id"), hour),
                (probe.requests, ("tenant", "request_id"), hour),
            )),
            *(_alike(transaction, asked, hour, old) for asked in (probe.alike, probe.streams)),
        ]  # fmt: skip
        rows = pl.concat(found).unique(KEY, maintain_order=True)
        own = _found(transaction, told, rows.select(KEY), KEY, day, old)
        tree = _found(transaction, edges, probe.traces, ("tenant", "trace_id"), day, old)
    return Evidence(rows, own, tree)


def nothing(_: Probe, __: datetime) -> Evidence:
    """What `related` finds in an empty warehouse."""
    return Evidence(EMPTY, EMPTY, EMPTY.select(edges.c.keys()))


def tellers(engine: Engine, start: datetime, end: datetime) -> pl.DataFrame:
    """Who told of calls that started in the period: distinct tenant, service, scope, dialect, signal."""
    by = [calls.c[name] for name in ("tenant", "service", "scope", "dialect", "signal")]
    between = (calls.c.started_at >= without_zone(start), calls.c.started_at <= without_zone(end))
    return pl.DataFrame(pl.from_arrow(engine.read(select(*by).distinct().where(*between))))


def metrics(engine: Engine, asked: pl.DataFrame) -> pl.DataFrame:
    """Metric rows of services (`asked`: tenant, service, start, end) that started in between, as `record.PLAIN`."""
    statement = select(calls).where(*_of_services(asked), calls.c.signal == "metric")
    with engine.write() as transaction:
        return plain(transaction.read(statement, asked=arrow(asked)))


def hours(engine: Engine, asked: pl.DataFrame) -> pl.DataFrame:
    """Hours in which spans or log records told of calls (`asked` as above): tenant, service, signal, hour."""
    hour = func.date_trunc(literal_column("'hour'"), calls.c.started_at).label("hour")
    by = (calls.c.tenant, calls.c.service, calls.c.signal, hour)
    statement = select(*by).distinct().where(*_of_services(asked), calls.c.signal != "metric")
    with engine.write() as transaction:
        return pl.DataFrame(pl.from_arrow(transaction.read(statement, asked=arrow(asked))))


def forget(engine: Engine, before: datetime) -> int:
    """Let evidence go that was received before an instant; returns how many rows went."""
    gone = 0
    with engine.write() as transaction:
        for kept in (edges, told):
            old = kept.c.received_at < without_zone(before)
            gone += transaction.read(select(func.count()).select_from(kept).where(old)).column(0)[0].as_py()
            transaction.execute(delete(kept).where(old))
    return gone


def _found(
    transaction: Transaction, of: Table, asked: pl.DataFrame, keys: Iterable[str], between: _Between, since: datetime
) -> pl.DataFrame:
    """Rows of `of` that agree with one of `asked` in `keys`."""
    wanted = table("asked", *(column(name) for name in keys))
    where = [*(of.c[name] == wanted.c[name] for name in keys), *_ran(of, between, since)]
    return plain(transaction.read(select(of).where(*where), asked=arrow(asked.select(keys).drop_nulls().unique())))


def _alike(transaction: Transaction, asked: pl.DataFrame, between: _Between, since: datetime) -> pl.DataFrame:
    """Calls that agree in every column but `start` and `end`, unknowns too, and ran at some time between these."""
    wanted = table("asked", *(column(name) for name in asked.columns))
    same = (calls.c[name].is_not_distinct_from(wanted.c[name]) for name in set(asked.columns) - {"start", "end"})
    ended_at = calls.c.started_at + func.to_milliseconds(func.coalesce(calls.c.duration_ms, 0))
    overlap = (calls.c.started_at <= wanted.c.end, ended_at >= wanted.c.start)
    statement = select(calls).where(*same, *overlap, *_ran(calls, between, since))
    return plain(transaction.read(statement, asked=arrow(asked)))


def _of_services(asked: pl.DataFrame) -> list[ColumnElement[bool]]:
    wanted = table("asked", *(column(name) for name in asked.columns))
    first, last = asked.select(pl.col("start").min(), pl.col("end").max()).row(0)
    return [
        *(calls.c[name].is_not_distinct_from(wanted.c[name]) for name in ("tenant", "service")),
        calls.c.started_at >= wanted.c.start, calls.c.started_at <= wanted.c.end,
        calls.c.started_at >= without_zone(first), calls.c.started_at <= without_zone(last),
    ]  # fmt: skip


def _ran(of: Table, between: _Between, since: datetime) -> tuple[ColumnElement[bool], ...]:
    start, end = between
    return of.c.started_at >= without_zone(start), of.c.started_at <= without_zone(end), of.c.received_at >= since
