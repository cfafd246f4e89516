"""Business units: what the company counts besides calls (resolved tickets, documents, orders), and what one costs.

A row tells how many of a unit there were on a UTC day, of which team, feature or customer, and what they earned. It
costs what the calls cost that are told of the same: on that day, with the team, feature and customer that the row
names. Calls that several rows of a unit name count once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlalchemy import Column, Date, String, Table, and_, bindparam, delete, func, insert, select

from millicent.warehouse.instants import Instant, midnight
from millicent.warehouse.query import Period, Query
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

SCOPES: Final = ("team", "feature", "customer")
COLUMNS: Final = ("unit", "day", "quantity", *SCOPES, "revenue_usd")
REQUIRED: Final = COLUMNS[:3]
MOST_ROWS: Final = 50_000
MOST_UNITS: Final = 50
MOST_PROBLEMS: Final = 20
LONGEST: Final = 200
FIRST: Final = date(2020, 1, 1)
_AMOUNT: Final = pl.Decimal(38, 12)
_LARGEST: Final = Decimal(10**12)
_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,12})?", re.ASCII)
_KEY: Final = ("unit", "day", *SCOPES)

business_units: Final = Table(
    "business_units", metadata,
    Column("tenant", String, primary_key=True), Column("unit", String, primary_key=True),
    Column("day", Date, primary_key=True), *(Column(name, String, primary_key=True) for name in SCOPES),
    Column("quantity", String, nullable=False), Column("revenue_usd", String),
    Column("author", String, nullable=False), Column("uploaded_at", Instant, nullable=False),
)  # fmt: skip

Ask = Callable[[Query], pl.DataFrame]


class BadUnitsError(ValueError):
    """Rows that cannot be taken; `problems` are messages that name the row, the value, the rule and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """So many of a unit on one UTC day; a team, feature or customer that is not told is None, and so is revenue."""

    unit: str
    day: date
    quantity: Decimal
    team: str | None = None
    feature: str | None = None
    customer: str | None = None
    revenue_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How many rows were new, took the place of others, or said what was known."""

    added: int
    replaced: int
    unchanged: int


def read_csv(text: str) -> list[Units]:
    """Rows of a CSV file with a header: `unit,day,quantity` and, in any order, team, feature, customer, revenue_usd.

    Raises:
        BadUnitsError: naming all that is wrong.
    """
    lines = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        return read(lines, first=2)
    except csv.Error as error:
        raise BadUnitsError([f"line {lines.line_num} is not CSV ({error}): write it as a spreadsheet would"]) from error


def read(rows: Iterable[Mapping[Any, Any]], first: int = 1) -> list[Units]:
    """Rows as JSON or CSV tells them, by the names of `COLUMNS`; `first` is the number of the first, for messages.

    Raises:
        BadUnitsError: naming all that is wrong, and nothing is taken.
    """
    found: list[Units] = []
    problems: list[str] = []
    met: dict[tuple[Any, ...], int] = {}
    for number, told in enumerate(rows, start=first):
        if len(found) == MOST_ROWS or len(problems) >= MOST_PROBLEMS:
            problems.append(f"row {number} and what follows was not read: send at most {MOST_ROWS:,} rows at a time")
            break
        try:
            row = _row(told)
        except ValueError as error:
            problems.append(f"row {number}: {error}")
            continue
        same = met.setdefault(_identity(row), number)
        if same != number:
            problems.append(
                f"row {number} is of the same unit, day, team, feature and customer as row {same}: add them up"
            )
        found.append(row)
    if not (found or problems):
        problems.append(f"there are no rows: write {','.join(REQUIRED)} in the first line and a row for each day below")
    if problems:
        raise BadUnitsError(problems)
    return found


def upload(control: Control, tenant: str, rows: Sequence[Units], actor: str) -> Uploaded:
    """Keep rows, all or none; one of the same unit, day, team, feature and customer takes the place of the former.

    Raises:
        BadUnitsError: there would be more than 50 units.
        ValueError: there is no such tenant.
    """
    told = {_identity(row): row for row in rows}
    c = business_units.c
    names = sorted({row.unit for row in rows})
    days = [row.day for row in rows]
    with control.change(tenant, actor) as change:
        known = set(change.connection.execute(select(c.unit).where(c.tenant == tenant).distinct()).scalars())
        if len(known | set(names)) > MOST_UNITS:
            raise BadUnitsError(
                [f"there would be more than {MOST_UNITS} units: tell rows apart by feature or customer"]
            )
        asked = select(business_units).where(c.tenant == tenant, c.unit.in_(names), c.day.between(min(days), max(days)))
        before = {_identity(row): row for row in map(_stored, change.connection.execute(asked).mappings())}
        replaced = [key for key, row in told.items() if key in before and before[key] != row]
        added = [key for key in told if key not in before]
        if replaced:
            gone = and_(c.tenant == tenant, *(c[name] == bindparam(f"old_{name}") for name in _KEY))
            change.connection.execute(delete(business_units).where(gone), [_bound(key) for key in replaced])
        if replaced or added:
            by = {"tenant": tenant, "author": actor, "uploaded_at": datetime.now(UTC)}
            made = [_values(told[key]) | by for key in (*replaced, *added)]
            change.connection.execute(insert(business_units), made)
            change.record("units.upload", {
                "units": names, "from": min(days).isoformat(), "to": max(days).isoformat(), "added": len(added),
                "replaced": len(replaced),
            })  # fmt: skip
    return Uploaded(len(added), len(replaced), len(told) - len(added) - len(replaced))


def remove(control: Control, tenant: str, unit: str, actor: str) -> int:
    """Forget all rows of a unit; how many there were."""
    mine = and_(business_units.c.tenant == tenant, business_units.c.unit == unit)
    with control.change(tenant, actor) as change:
        number = change.connection.execute(delete(business_units).where(mine)).rowcount
        if number:
            change.record("units.remove", {"unit": unit, "rows": number})
    return number


def stored(
    control: Control, tenant: str, first: date | None = None, last: date | None = None, unit: str | None = None
) -> list[Units]:
    """Rows by unit and day, of the days from `first` to `last`, both included."""
    c = business_units.c
    asked = select(business_units).where(c.tenant == tenant).order_by(*(c[name] for name in _KEY))
    asked = asked.where(c.day.between(first or date.min, last or date.max))
    if unit is not None:
        asked = asked.where(c.unit == unit)
    with control.begin() as connection:
        return [_stored(row) for row in connection.execute(asked).mappings()]


def names(control: Control, tenant: str) -> list[tuple[str, int, date, date]]:
    """Every unit, with its number of rows, its first and its last day."""
    c = business_units.c
    asked = select(c.unit, func.count(), func.min(c.day), func.max(c.day)).where(c.tenant == tenant)
    with control.begin() as connection:
        return [tuple(row) for row in connection.execute(asked.group_by(c.unit).order_by(c.unit))]


def written(row: Units) -> dict[str, Any]:
    """A row as JSON; amounts as text."""
    return {name: _plain(getattr(row, name)) for name in COLUMNS}


def days_of(period: Period) -> tuple[date, date] | None:
    """First and last UTC day that lies wholly within a period; None where none does."""
    first = _midnight(period.start + timedelta(days=1) - timedelta(microseconds=1)).date()
    last = _midnight(period.end).date() - timedelta(days=1)
    return (first, last) if first <= last else None


def daily(ask: Ask, question: Query, rows: Sequence[Units]) -> pl.DataFrame:
    """What units of one name cost by UTC day.

    Args:
        ask: answers queries.
        question: its basis, currency and filters are kept; rows must be of days within its period.
        rows: of one unit, and of what is filtered (`within`).

    Returns:
        `day`, `quantity`, `spend_usd` and `calls` of the calls that the rows name (null where there were none),
        `revenue_usd` (null where none was told), and `earning_spend_usd`: the spend of those rows that tell revenue.
    """
    told = _frame(rows)
    if told.is_empty():
        return pl.DataFrame(schema={"day": pl.Date, "quantity": _AMOUNT, "spend_usd": _AMOUNT, "calls": pl.Int64,
                                    "revenue_usd": _AMOUNT, "earning_spend_usd": _AMOUNT})  # fmt: skip
    named = tuple(name for name in SCOPES if told[name].count())
    days = told["day"].sort().to_list()
    period = Period(midnight(days[0], UTC), midnight(days[-1] + timedelta(days=1), UTC))
    asked = replace(question, measures=("spend_usd", "calls"), dimensions=named, period=period, grain="day",
                    time_zone="UTC", order=(), limit=None)  # fmt: skip
    facts = ask(asked).with_columns(day=pl.col("time").dt.date()).with_row_index("at")
    earning = told.filter(pl.col("revenue_usd").is_not_null())
    return (
        told.group_by("day")
        .agg(pl.col("quantity").sum(), _sum("revenue_usd"))
        .join(_of(facts, told, named), on="day", how="left")
        .join(_of(facts, earning, named).select("day", earning_spend_usd="spend_usd"), on="day", how="left")
        .sort("day")
    )


def within(rows: Iterable[Units], question: Query) -> list[Units]:
    """Rows that are of what a question keeps; one that does not tell a team is of no team that is filtered on."""
    wanted = [one for one in question.filters if one.dimension in SCOPES]
    return [row for row in rows if all((getattr(row, one.dimension) in one.values) != one.negated for one in wanted)]


def _of(facts: pl.DataFrame, rows: pl.DataFrame, named: Sequence[str]) -> pl.DataFrame:
    """Spend and calls by day of the facts that any of the rows names."""
    matched = [facts.clear()]
    for shape in rows.select(pl.col(named).is_not_null()).unique().iter_rows() if named else [()]:
        keys = [name for name, is_told in zip(named, shape, strict=True) if is_told]
        alike = (pl.col(name).is_not_null() == (name in keys) for name in named)
        group = rows.filter(*alike).select("day", *keys).unique()
        matched.append(facts.join(group, on=["day", *keys], how="semi"))
    return pl.concat(matched).unique("at").group_by("day").agg(_sum("spend_usd"), _sum("calls"))


def _frame(rows: Sequence[Units]) -> pl.DataFrame:
    schema: dict[str, Any] = {
        "day": pl.Date,
        "quantity": _AMOUNT,
        **dict.fromkeys(SCOPES, pl.String),
        "revenue_usd": _AMOUNT,
    }
    return pl.DataFrame({name: [getattr(row, name) for row in rows] for name in schema}, schema=schema)


def _row(told: Mapping[Any, Any]) -> Units:
    """One row.

    Raises:
        ValueError: naming the value, the rule and the remedy.
    """
    if not isinstance(told, Mapping):
        raise ValueError(f"{str(told)[:80]!r} is no row: write an object with {', '.join(REQUIRED)}")  # noqa: TRY004 - as all here
    if extra := [name for name in told if name not in COLUMNS]:
        raise ValueError(f"{str(extra[0])[:80]!r} is no column: write {', '.join(COLUMNS)}")
    texts = {name: _text(name, told.get(name)) for name in COLUMNS}
    for name in REQUIRED:
        if texts[name] is None:
            raise ValueError(f"{name} is missing: every row has {', '.join(REQUIRED)}")
    return Units(
        unit=str(texts["unit"]), day=_day(str(texts["day"])), quantity=_number("quantity", str(texts["quantity"])),
        team=texts["team"], feature=texts["feature"], customer=texts["customer"],
        revenue_usd=None if texts["revenue_usd"] is None else _number("revenue_usd", texts["revenue_usd"]),
    )  # fmt: skip


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal | date):
        raise ValueError(f"{name} is {str(value)[:80]!r}: write text or a number")  # noqa: TRY004 - as all here
    text = str(value).strip()
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"{name} {text[:80]!r} is longer than {LONGEST} characters or holds others than letters")
    return text or None


def _day(text: str) -> date:
    latest = datetime.now(UTC).date() + timedelta(days=1)
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"day {text!r} is no day: write it as 2026-11-23") from error
    if not FIRST <= day <= latest:
        raise ValueError(f"day {text} is before {FIRST} or still to come: correct it")
    return day


def _number(name: str, text: str) -> Decimal:
    try:
        if not _NUMBER.fullmatch(text):
            raise InvalidOperation  # noqa: TRY301 - one message for both
        number = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(
            f"{name} {text!r} is no number: write digits with a decimal point, as 1204 or 310.50"
        ) from error
    if abs(number) >= _LARGEST or (name == "quantity" and number < 0):
        raise ValueError(f"{name} {text} is negative or too large: write 0 to {_LARGEST:,}")
    return number


def _identity(row: Units) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in _KEY)


def _bound(key: tuple[Any, ...]) -> dict[str, Any]:
    return {f"old_{name}": "" if value is None else value for name, value in zip(_KEY, key, strict=True)}


def _values(row: Units) -> dict[str, Any]:
    scopes = {name: getattr(row, name) or "" for name in SCOPES}
    revenue = None if row.revenue_usd is None else f"{row.revenue_usd:f}"
    return {"unit": row.unit, "day": row.day, **scopes, "quantity": f"{row.quantity:f}", "revenue_usd": revenue}


def _stored(row: Mapping[Any, Any]) -> Units:
    revenue = None if row["revenue_usd"] is None else Decimal(row["revenue_usd"])
    scopes = {name: row[name] or None for name in SCOPES}
    return Units(
        unit=row["unit"], day=row["day"], quantity=Decimal(row["quantity"]), revenue_usd=revenue, **scopes,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    return f"{value:f}" if isinstance(value, Decimal) else value.isoformat() if isinstance(value, date) else value


def _midnight(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)
