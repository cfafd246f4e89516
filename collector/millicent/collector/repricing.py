"""Pricing stored calls again: what would change, changing it day by day, and taking it back.

Each UTC day is changed in one transaction, with its sums, its former amounts and the row that says it is done; so a run
that is cut short leaves days that happened and days that did not, and goes on where it was. A closed day keeps its
amounts: the difference becomes charges of the present hour.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, Protocol, TypeVar

import polars as pl
import pyarrow as pa
import structlog
from sqlalchemy import ColumnElement, or_, select

from millicent.collector import history, pipeline
from millicent.collector.batch import Prices
from millicent.warehouse import record, rollups
from millicent.warehouse.agreed import agreed, undoing
from millicent.warehouse.amending import NOW, Read, amend, differs, forget, keep, places, standing, within
from millicent.warehouse.engine import EngineError, Transaction
from millicent.warehouse.frames import EMPTY, plain
from millicent.warehouse.ledger import KEY
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.repricings import Repricing
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import CHARGED_TO, PRICE, calls, repricing_days

FACTS: Final = (
    "provider", "model", "endpoint_host", "region", "service_tier", "price_context", "billing", "status", "started_at",
    "units", *record.TOKENS,
)  # fmt: skip
"""What calls are priced by."""
COUNT: Final = ("counted", "call_count")
AMOUNTS: Final = ("list_usd_before", "list_usd_after", "billed_usd_before", "billed_usd_after")
IDLE_S: Final = 0.5
RETRY_S: Final = 1.0
ATTEMPTS: Final = 5

log = structlog.get_logger("millicent.repricing")
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class DayDifference:
    """What other prices make of the counted calls of a UTC day, a team and a model: those whose price changes.

    Amounts are sums of what is known, None where nothing is. `closed`: the day keeps its amounts, and the difference
    would become a charge.
    """

    day: date
    team: str | None
    model: str | None
    calls: int
    list_usd_before: Decimal | None
    list_usd_after: Decimal | None
    billed_usd_before: Decimal | None
    billed_usd_after: Decimal | None
    closed: bool


def difference(
    warehouse: Warehouse, tenant: str, period: Period, filters: Sequence[Filter] = (), prices: Prices | None = None
) -> Iterator[DayDifference]:
    """What repricing would change, day by day; nothing is changed, and nobody waits.

    Args:
        warehouse: whose calls.
        tenant: whose calls of it.
        period: of their beginning, half-open.
        filters: which of them.
        prices: what to compare with; the tenant's present prices when none are told.

    Raises:
        EngineError: the calls cannot be read.
    """
    versions = () if prices else (warehouse.prices.version(tenant),)
    source = _Again(tenant, tuple(filters), prices or warehouse.prices, versions)
    closed, by = history.closed(warehouse, tenant), ("team", "model")
    for day in history.steps(period, history.DAY):
        parts = source.rows(warehouse.engine.read, day, by, closed=closed(day))
        sums = _folded([_sums(rows, by) for rows in parts], by)
        for row in sums.sort(by, nulls_last=True).iter_rows(named=True):
            yield DayDifference(day=day.start.date(), closed=closed(day), **row)
        _let_go()


def apply(warehouse: Warehouse, run: Repricing) -> Iterator[Period]:
    """Carry out a run from where it is, and yield each UTC day once it is stored.

    It goes through the period until no call of other prices is left in its open days; new calls have the present ones.

    Raises:
        EngineError: a day could not be written; those before it are.
        ValueError: the prices of the run's version, or the run to take back, are not known any more.
    """
    source = _source(warehouse, run)
    done, versions = _done(warehouse, run.id), set[str]()
    written = True
    while written:
        written = False
        closed = history.closed(warehouse, run.tenant)
        for day in history.steps(Period(run.start, run.end), history.DAY):
            if _midnight(day) not in done or (not closed(day) and source.left(warehouse.engine.read, day)):
                versions |= _write(warehouse, run, day, source)
                _let_go()
                done[_midnight(day)] = closed(day)
                written = True
                yield day
    _forget(warehouse, run)
    warehouse.control.finish_repricing(run.id, **_summary(warehouse, run, versions))


class Repricer:
    """Carries out the runs that are asked for, one after the other, also those from before a restart.

    Args:
        warehouse: whose runs.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._asked = threading.Event()

    def wake(self) -> None:
        """Look for runs now, not half a second later."""
        self._asked.set()

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; a day that is being written is finished first.

        A run that keeps failing ends with an error; its days before that are done.
        """
        while not stop.is_set():
            self._asked.clear()
            for run in self._warehouse.control.repricings(unfinished=True):
                self._attempt(run, stop)
            if not stop.is_set():
                self._asked.wait(IDLE_S)

    def _attempt(self, run: Repricing, stop: threading.Event) -> None:
        failures = 0
        while not stop.is_set():
            try:
                for _ in apply(self._warehouse, run):
                    failures = 0
                    if stop.is_set():
                        return
            except Exception as error:
                failures += 1
                log.exception("repricing failed", run=run.id, attempt=failures)
                if failures >= ATTEMPTS or isinstance(error, ValueError):
                    self._warehouse.control.finish_repricing(run.id, error=str(error))
                    return
                stop.wait(RETRY_S)
                if isinstance(error, EngineError):
                    self._warehouse.engine.reopen()
            else:
                log.info("repricing done", run=run.id, tenant=run.tenant)
                return


# ---- what a run makes of calls


class _Source(Protocol):
    def rows(self, read: Read, day: Period, names: Sequence[str], *, closed: bool) -> Iterator[pl.DataFrame]:
        """Calls to look at, in parts: `place`, `COUNT`, `names`, `PRICE` as it is to read, and with `_now` as it does.

        Of a closed day only those that are to be charged for.
        """

    def left(self, read: Read, day: Period) -> bool:
        """Whether an open day has calls to look at still."""


@dataclass(frozen=True, slots=True)
class _Again:
    """Calls by `prices`, but those of one of `versions`."""

    tenant: str
    filters: tuple[Filter, ...]
    prices: Prices
    versions: tuple[str, ...]

    def rows(self, read: Read, day: Period, names: Sequence[str], *, closed: bool) -> Iterator[pl.DataFrame]:
        columns = tuple(dict.fromkeys((*FACTS, *COUNT, *names)))
        where = within(self.tenant, day, self.filters) if closed else self._older(day)
        parts = ([*where, part] for part in places(read, where))
        asked = (
            agreed(columns, here, self.tenant, day, self.versions) if closed else standing(columns, here)
            for here in parts
        )
        for now in _ahead(map(read, asked)):
            yield self._priced(now, names, closed=closed)

    def _priced(self, now: pa.Table, names: Sequence[str], *, closed: bool) -> pl.DataFrame:
        rows = pipeline.price_rows(plain(now).with_columns(tenant=pl.lit(self.tenant)), self.prices)
        rows = rows.select("place", *COUNT, *names, *PRICE, *(f"{name}{NOW}" for name in PRICE))
        return _to_charge(rows) if closed else rows

    def left(self, read: Read, day: Period) -> bool:
        return next(places(read, self._older(day)), None) is not None

    def _older(self, day: Period) -> list[ColumnElement[bool]]:
        version = calls.c.price_version
        return [*within(self.tenant, day, self.filters), or_(version.is_(None), version.not_in(self.versions))]


@dataclass(frozen=True, slots=True)
class _Back:
    """Calls as they were before a run. `days`: those that it has been through; True where it left their calls alone."""

    filters: tuple[Filter, ...]
    undone: Repricing
    days: Mapping[datetime, bool]

    def rows(self, read: Read, day: Period, names: Sequence[str], *, closed: bool) -> Iterator[pl.DataFrame]:
        adjusted = self.days.get(_midnight(day))
        if adjusted is None:
            return
        columns = tuple(dict.fromkeys(("started_at", *COUNT, *names)))
        where = within(self.undone.tenant, day, self.filters)
        for part in places(read, where):
            rows = plain(read(undoing(columns, [*where, part], self.undone, day, adjusted=adjusted, closed=closed)))
            yield _to_charge(rows) if closed else rows

    def left(self, read: Read, day: Period) -> bool:  # noqa: ARG002 - what was changed since stays
        return False


def _source(warehouse: Warehouse, run: Repricing) -> _Source:
    if run.undo_of is not None:
        undone = next((one for one in warehouse.control.repricings(run.tenant) if one.id == run.undo_of), None)
        if undone is None:
            raise ValueError(f"there is no repricing {run.undo_of}: choose one of the runs listed")
        return _Back(run.filters, undone, _done(warehouse, undone.id))
    prices = warehouse.prices.of_version(run.tenant, run.version)
    if prices is None:
        raise ValueError(f"prices of version {run.version!r} are not known any more: ask for the repricing again")
    return _Again(run.tenant, run.filters, prices, (run.version, warehouse.prices.version(run.tenant)))


def _to_charge(rows: pl.DataFrame) -> pl.DataFrame:
    """Calls of a closed day that have another amount; one that is unknown now stays as it was agreed."""
    known = {name: pl.col(name).fill_null(pl.col(f"{name}{NOW}")) for name in (_LIST, _BILLED)}
    return rows.with_columns(**known).filter(differs((_LIST, _BILLED)))


# ---- writing a day


def _write(warehouse: Warehouse, run: Repricing, day: Period, source: _Source) -> set[str]:
    """Change a day whole, with all that belongs to it, or not at all; returns the versions that were there."""
    found, changed, versions = 0, 0, set[str]()
    sums, charged = list[pl.DataFrame](), list[pl.DataFrame]()
    with warehouse.writing, warehouse.engine.write() as transaction:
        closed = history.closed(warehouse, run.tenant)(day)
        names = (*KEY, *CHARGED_TO) if closed else ()
        for rows in _ahead(source.rows(transaction.before, day, names, closed=closed)):
            found += rows.height
            versions |= set(rows[f"price_version{NOW}"].unique().drop_nulls())
            sums.append(_sums(rows, ()))
            if closed:
                changed += rows.height
                keep(transaction, run.id, rows)
                charged.append(_charged(rows))
            else:
                changed += amend(transaction, run.id, rows)
        if changed and not closed:
            hours = history.whole_hours(day)
            rollups.recount(transaction, run.tenant, hours.start, hours.end)
        if charged:
            _charge(transaction, run, day, pl.concat(charged))
        done = {"run": run.id, "tenant": run.tenant, "day": _midnight(day), "calls": found, "changed": changed,
                "adjusted": closed, "done_at": datetime.now(UTC)}  # fmt: skip
        _note(transaction, pl.concat([pl.DataFrame([done]), _folded(sums, ()).select(AMOUNTS)], how="horizontal"))
    return versions


def _ahead(parts: Iterator[_Part]) -> Iterator[_Part]:
    """`parts`, each made while the one before it is being used."""
    with ThreadPoolExecutor(1, "repricing-ahead") as pool:
        following = [pool.submit(next, parts, None)]
        while (part := following.pop().result()) is not None:
            following.append(pool.submit(next, parts, None))
            yield part
            del part


def _charge(transaction: Transaction, run: Repricing, day: Period, rows: pl.DataFrame) -> None:
    """What the calls of a closed day come to otherwise, charged to those who made them, now."""
    now = datetime.now(UTC)
    what = f"Repricing {run.undo_of} undone" if run.undo_of is not None else f"Repricing by {run.version}"
    number = pl.col("calls").cast(pl.String)
    charges = (
        rows.group_by(CHARGED_TO)
        .agg(pl.col("calls").sum(), pl.col("list_usd").sum(), pl.col("billed_usd").sum())
        .filter((pl.col("list_usd") != 0) | (pl.col("billed_usd") != 0))
        .select(
            *CHARGED_TO, "list_usd", "billed_usd", tenant=pl.lit(run.tenant), type=pl.lit("adjustment"),
            name=pl.lit(what), run=pl.lit(run.id, pl.Int64), provisional=pl.lit(value=False),
            why=pl.concat_str(pl.lit(f"{day.start:%Y-%m-%d} is closed: "), number, pl.lit(" calls cost otherwise")),
            charged_at=pl.lit(now.replace(minute=0, second=0, microsecond=0)).cast(_INSTANT),
            period_start=pl.lit(day.start).cast(_INSTANT), period_end=pl.lit(day.end).cast(_INSTANT),
            computed_at=pl.lit(now).cast(_INSTANT),
        )
    )  # fmt: skip
    if not charges.is_empty():
        transaction.insert("charges", charges.to_arrow())


def _charged(rows: pl.DataFrame) -> pl.DataFrame:
    """By `CHARGED_TO`, what counted calls cost more than now; what was unknown now costs all of it."""
    more = {
        short: (pl.col(name) - pl.col(f"{name}{NOW}").fill_null(0)).cast(_SUM).sum()
        for short, name in (("list_usd", _LIST), ("billed_usd", _BILLED))
    }
    return rows.filter("counted").group_by(CHARGED_TO).agg(calls=pl.col("call_count").sum(), **more)


def _note(transaction: Transaction, done: pl.DataFrame) -> None:
    """Say that a day is done; one that was done before adds to what it made of it."""
    days = repricing_days.c
    row = done.row(0, named=True)
    here = (days.run == row["run"], days.tenant == row["tenant"], days.day == row["day"].replace(tzinfo=None))
    before = pl.DataFrame(pl.from_arrow(transaction.read(select(repricing_days).where(*here))))
    if not before.is_empty():
        transaction.execute(repricing_days.delete().where(*here))
        both = pl.concat([done, before.select(done.columns).cast(done.schema)])
        done = done.with_columns(
            pl.Series("calls", [both["calls"].sum()]), pl.Series("changed", [both["changed"].sum()]),
            *both.select(_known_sum(name) for name in AMOUNTS),
        )  # fmt: skip
    transaction.insert("repricing_days", done.to_arrow())


def _forget(warehouse: Warehouse, run: Repricing) -> None:
    """Drop what no undoing can use any more, now that every day of `run` is done.

    Of a run, its undoing, the undoing of that and so on only the last can be taken back. It needs what it kept itself,
    and what the one before it kept.
    """
    runs = {one.id: one for one in warehouse.control.repricings(run.tenant)}
    undone = runs.get(run.undo_of or 0)
    if undone is not None and undone.undo_of is not None:
        with warehouse.writing, warehouse.engine.write() as transaction:
            forget(transaction, undone.undo_of)


# ---- sums


def _sums(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """By `by`, how many counted calls are priced otherwise, and the `AMOUNTS` of those."""
    columns = (f"{_LIST}{NOW}", _LIST, f"{_BILLED}{NOW}", _BILLED)
    amounts = {name: pl.col(column).cast(_SUM) for name, column in zip(AMOUNTS, columns, strict=True)}
    counted = rows.filter(pl.col("counted") & differs(PRICE[:-1]))
    return _folded([counted.select(*by, calls="call_count", **amounts)], by)


def _folded(parts: Sequence[pl.DataFrame], by: Sequence[str]) -> pl.DataFrame:
    summed = [pl.col("calls").sum(), *(_known_sum(name) for name in AMOUNTS)]
    whole = pl.concat([EMPTY.select(*by, *_NO_SUMS), *parts])
    return whole.group_by(by).agg(summed) if by else whole.select(summed)


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)


# ---- how far a run is


def _done(warehouse: Warehouse, run: int) -> dict[datetime, bool]:
    """Days that a run has been through, and whether it left their calls alone."""
    asked = select(repricing_days.c.day, repricing_days.c.adjusted).where(repricing_days.c.run == run)
    return {row["day"]: row["adjusted"] for row in warehouse.engine.read(asked).to_pylist()}


def _summary(warehouse: Warehouse, run: Repricing, versions: set[str]) -> dict[str, Any]:
    """What a run did, for the audit log."""
    asked = select(repricing_days).where(repricing_days.c.run == run.id)
    days = pl.DataFrame(pl.from_arrow(warehouse.engine.read(asked)))
    sums = days.select("calls", "changed").sum().row(0, named=True)
    amounts = days.select(_known_sum(name) for name in AMOUNTS).row(0, named=True)
    told = {name: None if amount is None else f"{amount:f}" for name, amount in amounts.items()}
    return {**sums, **told, "days": days.height, "closed_days": days["adjusted"].sum(),
            "versions_before": sorted(versions)}  # fmt: skip


def _midnight(day: Period) -> datetime:
    return day.start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _let_go() -> None:
    """Give the memory of a day back to the system: glibc keeps what was freed, which is twice as much after a month."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


_LIST, _BILLED = "list_cost_usd", "billed_cost_usd"
_SUM: Final = pl.Decimal(38, 12)
_INSTANT: Final = pl.Datetime("us", "UTC")
_NO_SUMS: Final = (pl.col("call_count").alias("calls"), *(pl.lit(None, _SUM).alias(name) for name in AMOUNTS))
