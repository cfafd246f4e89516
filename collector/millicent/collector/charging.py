"""Fees, volume discounts, credits and commitments as charges of the day they belong to, kept up with the calls.

They are computed from what calls are billed by day (`pricing.charges`). Open days say what they come to now. Closed
days never change: what is missing on them comes on an open day of their month, or is adjusted now where it has none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl
from sqlalchemy import column, func, literal_column, select, table

from millicent.collector import history
from millicent.pricing.charges import Accrual, Calls, settle
from millicent.pricing.entries import Charge
from millicent.warehouse.engine import Transaction
from millicent.warehouse.query import Period
from millicent.warehouse.record import CHARGE
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import CHARGED_TO, charges, usage_hourly, without_zone

_DAY: Final = timedelta(days=1)
_NOTHING: Final = Decimal(0)
_USD: Final = pl.Decimal(38, 12)
_INSTANT: Final = pl.Datetime("us", "UTC")
_ROW: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "tenant": pl.String, "charged_at": _INSTANT, "type": pl.String, "name": pl.String, "entry": pl.Int64,
    "period_start": _INSTANT, "period_end": _INSTANT, **dict.fromkeys(CHARGED_TO, pl.String), "list_usd": _USD,
    "billed_usd": _USD, "provisional": pl.Boolean, "why": pl.String, "computed_at": _INSTANT,
}  # fmt: skip
_SAID: Final = tuple(name for name in _ROW if name != "computed_at")

Row = dict[str, Any]
Month = tuple[int | None, date]
"""A price entry and the first day of a month."""


def refresh(warehouse: Warehouse, now: datetime) -> int:
    """Make the charges of every tenant say what its contracts come to at `now`.

    Returns:
        How many charges were added, changed or taken away.

    Raises:
        EngineError: nothing of one tenant has changed; those before it are done.
    """
    contracts = defaultdict[str, list[Charge]](list)
    for tenant, entry in warehouse.control.prices():
        if isinstance(entry, Charge):
            contracts[tenant].append(entry)
    asked = select(charges.c.tenant).where(charges.c.entry.is_not(None)).distinct()
    for tenant in warehouse.engine.read(asked).column(0).to_pylist():
        contracts[tenant] += []  # taken away since
    done = 0
    for tenant, live in contracts.items():
        with warehouse.writing, warehouse.engine.write() as transaction:
            there = _there(transaction, tenant)
            closed = history.closed(warehouse, tenant)
            sheet = _Sheet(tenant, live, _billed(transaction, tenant, live), there, closed, now)
            done += _replace(transaction, [row for row in there if sheet.is_open(row)], list(sheet.rows()))
    return done


@dataclass(frozen=True, slots=True)
class _Sheet:
    """What a tenant's contracts come to. `there`: every charge that is stored for a contract, adjustments included."""

    tenant: str
    live: list[Charge]
    billed: dict[Calls, Decimal]
    there: list[Row]
    closed: Callable[[Period], bool]
    now: datetime

    def is_open(self, row: Row) -> bool:
        """Whether a stored charge may still change."""
        return row["type"] != "adjustment" and not self._is_closed(row["charged_at"].date())

    def rows(self) -> Iterator[Row]:
        """Charges of open days as they are now, and the adjustments that are missing."""
        standing = {
            (row["entry"], row["charged_at"].date()): row["billed_usd"]
            for row in self.there
            if row["type"] != "adjustment"
        }
        kept = {
            charge: {
                day: standing.get((charge.id, day), _NOTHING)
                for day in _days(charge, self._today)
                if self._is_closed(day)
            }
            for charge in self.live
        }
        for one in settle(self.live, self.billed, self._today, kept):
            yield self._of_day(one)
        agreed = defaultdict[Month, Decimal](Decimal)
        for (entry, day), amount in standing.items():
            if self._is_closed(day):
                agreed[entry, day.replace(day=1)] += amount
        yield from self._adjustments(agreed)

    def _adjustments(self, agreed: dict[Month, Decimal]) -> Iterator[Row]:
        """What months come to otherwise in which a contract has no open day to tell it. `agreed`: on closed days."""
        due, stand = defaultdict[Month, Decimal](Decimal), defaultdict[Month, Decimal](Decimal, agreed)
        for one in settle(self.live, self.billed, self._today):
            due[one.charge.id, one.day.replace(day=1)] += one.amount_usd
        for row in self.there:
            if row["type"] == "adjustment":
                stand[row["entry"], row["period_start"].date()] += row["billed_usd"]
        told = {
            (charge.id, day.replace(day=1))
            for charge in self.live
            for day in _days(charge, self._today)
            if not self._is_closed(day)
        }
        for entry, month in sorted({*due, *stand} - told, key=lambda key: (key[1], key[0] or 0)):
            if more := due[entry, month] - stand[entry, month]:
                yield self._adjustment(entry, month, due[entry, month], more)

    def _of_day(self, one: Accrual) -> Row:
        charge, month = one.charge, one.day.replace(day=1)
        monthly = charge.type in {"fee", "commitment"}
        start, end = (month, _next(month)) if monthly else (one.day, one.day + _DAY)
        return {
            **dict.fromkeys(CHARGED_TO), **_scope(charge), "tenant": self.tenant, "charged_at": _midnight(one.day),
            "type": charge.type, "name": charge.name, "entry": charge.id, "period_start": _midnight(start),
            "period_end": _midnight(end), "list_usd": _NOTHING, "billed_usd": one.amount_usd,
            "provisional": month == self._today.replace(day=1), "why": one.words, "computed_at": self.now,
        }  # fmt: skip

    def _adjustment(self, entry: int | None, month: date, due: Decimal, more: Decimal) -> Row:
        live = next((charge for charge in self.live if charge.id == entry), None)
        said = next((row for row in self.there if row["entry"] == entry), {})
        scope = _scope(live) if live else {name: said[name] for name in ("provider", "model")}
        name = live.name if live else said["name"]
        why = f"{month:%Y-%m} is closed: {name} comes to {due:,.2f} USD in it, {more:+,.2f} to what was charged"
        return {
            **dict.fromkeys(CHARGED_TO, CHARGE), **{key: value or CHARGE for key, value in scope.items()},
            "tenant": self.tenant, "charged_at": self.now.replace(minute=0, second=0, microsecond=0),
            "type": "adjustment", "name": name, "entry": entry, "period_start": _midnight(month),
            "period_end": _midnight(_next(month)), "list_usd": _NOTHING, "billed_usd": more, "provisional": False,
            "why": why, "computed_at": self.now,
        }  # fmt: skip

    def _is_closed(self, day: date) -> bool:
        return self.closed(Period(_midnight(day), _midnight(day + _DAY)))

    @property
    def _today(self) -> date:
        return self.now.astimezone(UTC).date()


def _there(transaction: Transaction, tenant: str) -> list[Row]:
    asked = select(*(charges.c[name] for name in _ROW)).where(charges.c.tenant == tenant, charges.c.entry.is_not(None))
    rows: list[Row] = transaction.read(asked).to_pylist()
    return rows


def _billed(transaction: Transaction, tenant: str, live: list[Charge]) -> dict[Calls, Decimal]:
    """What the calls of each day, provider and model are billed, from the first day of any contract on."""
    if not live:
        return {}
    c = usage_hourly.c
    day = func.date_trunc(literal_column("'day'"), c.hour).label("day")
    first = without_zone(min(charge.effective_from for charge in live))
    asked = select(day, c.provider, c.model, func.sum(c.billed_cost_usd).label("billed"))
    rows = transaction.read(asked.where(c.tenant == tenant, c.hour >= first).group_by(day, c.provider, c.model))
    return {
        Calls(row["day"].date(), row["provider"], row["model"]): row["billed"]
        for row in rows.to_pylist()
        if row["billed"] is not None
    }


def _replace(transaction: Transaction, there: list[Row], wanted: list[Row]) -> int:
    """Store what of `wanted` is not among the charges that are `there`, and take away what is no more wanted."""
    said = [tuple(row[name] for name in _SAID) for row in there]
    asked = {tuple(row[name] for name in _SAID) for row in wanted}
    gone = [row for row, says in zip(there, said, strict=True) if says not in asked]
    new = [row for row in wanted if tuple(row[name] for name in _SAID) not in set(said)]
    if gone:
        mine = (charges.c[name] == _ASKED.c[name] for name in ("tenant", "charged_at", "entry"))
        frame = pl.DataFrame(gone, schema=_ROW).select("tenant", "charged_at", "entry").to_arrow()
        days = {row["charged_at"].date() for row in gone}
        transaction.execute(charges.delete().where(*mine, charges.c.type != "adjustment"), days=days, asked=frame)
    if new:
        transaction.insert("charges", pl.DataFrame(new, schema=_ROW).to_arrow())
    return len(gone) + len(new)


def _scope(charge: Charge) -> dict[str, str | None]:
    """Provider and model that a charge can be told of; a pattern names no model."""
    return {"provider": charge.provider, "model": None if "*" in (charge.model or "") else charge.model}


def _days(charge: Charge, today: date) -> Iterator[date]:
    """The days on which a charge holds, up to `today`."""
    day, end = charge.effective_from.astimezone(UTC).date(), today + _DAY
    if charge.effective_to is not None:
        end = min(end, charge.effective_to.astimezone(UTC).date())
    while day < end:
        yield day
        day += _DAY


def _next(month: date) -> date:
    return (month + 31 * _DAY).replace(day=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


_ASKED: Final = table("asked", column("tenant"), column("charged_at"), column("entry"))
