"""What one of something costs: calls, customers, and the business units that were uploaded, with what they earn.

Business units are told by UTC day, whatever the time zone of the page; days without a number are in no quotient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from millicent.dashboard.state import question
from millicent.warehouse import units
from millicent.warehouse.instants import midnight
from millicent.warehouse.query import BadQuery, Period, Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from millicent.dashboard.reader import Reader
    from millicent.warehouse.exchange import Rate
    from millicent.warehouse.units import Ask, Units

CALL: Final = ""
"""Of all that is counted, the call itself."""
CUSTOMERS_SHOWN: Final = 10_000
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Something that is counted, over a period; amounts are in the currency shown, and unknown is None.

    Attributes:
        name: of the unit; `CALL` is the call itself.
        quantity: how many there were.
        spend_usd: what the calls for it cost.
        calls: how many calls that were.
        revenue_usd: what it earned, where that was told.
        earning_spend_usd: of the spend, that of what earned.
        daily: `day` (a date), `quantity`, `spend_usd`.
        days: how many days of the period have a number, and how many there are.
    """

    name: str
    quantity: Decimal
    spend_usd: Decimal | None
    calls: int | None = None
    revenue_usd: Decimal | None = None
    earning_spend_usd: Decimal | None = None
    daily: pl.DataFrame
    days: tuple[int, int] = (0, 0)

    @property
    def each_usd(self) -> Decimal | None:
        """What one costs."""
        return self.spend_usd / self.quantity if self.spend_usd is not None and self.quantity else None

    @property
    def calls_each(self) -> Decimal | None:
        """How many calls one takes."""
        return self.calls / self.quantity if self.calls is not None and self.quantity else None

    @property
    def margin_usd(self) -> Decimal | None:
        """Revenue less the spend of what earned it."""
        if self.revenue_usd is None:
            return None
        return self.revenue_usd - (self.earning_spend_usd or Decimal(0))

    @property
    def margin_ratio(self) -> Decimal | None:
        """The same as a share of revenue."""
        return self.margin_usd / self.revenue_usd if self.margin_usd is not None and self.revenue_usd else None


def calls(reader: Reader, period: Period) -> Counted:
    """The calls of a period, by day of the time zone in force."""
    asked = question(reader.view, period, ("spend_usd", "calls"), grain="day")
    frame = reader.warehouse.ask(reader.tenant, asked).frame
    number = _total(frame, "calls") or 0
    daily = frame.select(time="time", quantity=pl.col("calls").cast(pl.Decimal(38, 12)), spend_usd="spend_usd")
    spend = _total(frame, "spend_usd")
    return Counted(name=CALL, quantity=Decimal(number), spend_usd=spend, calls=number, daily=daily)


def uploaded(reader: Reader, period: Period) -> list[Counted]:
    """Every business unit with a number in a period, by name, within the filters of the page."""
    bounds = units.days_of(period)
    if bounds is None:
        return []
    asked = question(reader.view, period, ("spend_usd", "calls"))
    rows = units.within(units.stored(reader.warehouse.control, reader.tenant, *bounds), asked)
    rates = reader.warehouse.prices.rates(reader.tenant, asked.currency) if asked.currency != "USD" else ()
    by_name: dict[str, list[Units]] = {}
    for row in rows:
        by_name.setdefault(row.unit, []).append(row)
    whole = (bounds[1] - bounds[0]).days + 1
    known: dict[Query, pl.DataFrame] = {}

    def ask(query: Query) -> pl.DataFrame:
        if query not in known:
            known[query] = reader.warehouse.ask(reader.tenant, query).frame
        return known[query]

    told = {name: _exchanged(found, rates, asked.currency) for name, found in by_name.items()}
    return [_counted(ask, asked, name, found, whole) for name, found in told.items()]


def total(counted: Iterable[Counted]) -> tuple[Decimal | None, Decimal | None]:
    """Margin and revenue of all that earns."""
    earning = [one for one in counted if one.revenue_usd is not None]
    if not earning:
        return None, None
    return (sum((one.margin_usd or Decimal(0) for one in earning), Decimal(0)),
            sum((one.revenue_usd or Decimal(0) for one in earning), Decimal(0)))  # fmt: skip


def customers(reader: Reader, period: Period) -> tuple[int, Decimal | None] | None:
    """How many customers are told, and what their calls cost; None where there are too many to list."""
    asked = question(reader.view, period, ("spend_usd", "calls"), ("customer",))
    try:
        frame = reader.warehouse.ask(reader.tenant, asked).frame
    except BadQuery:
        return None
    known = frame.filter(pl.col("customer").is_not_null(), pl.col("calls") > 0)
    return known.height, _total(known, "spend_usd")


def _counted(ask: Ask, asked: Query, name: str, rows: Sequence[Units], whole: int) -> Counted:
    daily = units.daily(ask, asked, rows)
    sums = {column: _total(daily, column) for column in daily.columns if column != "day"}
    return Counted(
        name=name, quantity=sums["quantity"] or Decimal(0), spend_usd=sums["spend_usd"], calls=sums["calls"],
        revenue_usd=sums["revenue_usd"], earning_spend_usd=sums["earning_spend_usd"],
        daily=daily.select("day", "quantity", "spend_usd"), days=(daily.height, whole),
    )  # fmt: skip


def _total(frame: pl.DataFrame, name: str) -> Any:
    """The sum of a column; None where nothing in it is known."""
    return frame[name].sum() if frame[name].count() else None


def _exchanged(rows: Sequence[Units], rates: Sequence[Rate], currency: str) -> list[Units]:
    """Rows with their revenue in the currency shown, by the rate at which their day began."""
    return [
        row if row.revenue_usd is None or currency == "USD"
        else replace(row, revenue_usd=row.revenue_usd / _rate(rates, row.day, currency))
        for row in rows
    ]  # fmt: skip


def _rate(rates: Sequence[Rate], day: date, currency: str) -> Decimal:
    at = midnight(day, UTC)
    holding = [one for one in rates if one.since <= at and (one.until is None or at < one.until)]
    if not holding:
        raise BadQuery(
            f"no exchange rate of {currency} is known on {day}: add an fx_rate to the price book, or ask for USD"
        )
    return holding[-1].usd_per_unit
