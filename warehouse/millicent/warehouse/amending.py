"""Changing what stored calls cost, in place and in parts, inside one transaction that then counts their hours again.

`ledger.revise` replaces whole calls; this writes their price columns alone, several times as fast, and keeps what
stood there before in `repriced`. Hold `Warehouse.writing` from the first read to the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    cast,
    column,
    literal,
    literal_column,
    select,
    table,
)  # fmt: skip
from sqlalchemy.sql import Executable

from millicent.warehouse.engine import Transaction
from millicent.warehouse.ledger import KEY
from millicent.warehouse.query import Filter, Period, askable, kept
from millicent.warehouse.tables import PRICE, calls, repriced

AT_ONCE: Final = 122_880
"""Most calls that are read together: a whole row group, since fewer take twice as long to keep."""
PLACE: Final[ColumnElement[int]] = literal_column("calls.rowid")
"""Where a call stands in its table; holds until the transaction ends."""
NOW: Final = "_now"

Read = Callable[[Executable], pa.Table]
Where = Sequence[ColumnElement[bool]]


def within(tenant: str, period: Period, filters: Sequence[Filter] = ()) -> Where:
    """Conditions on `calls`: a tenant's, begun in the period, kept by the filters."""
    began = (calls.c.started_at >= _utc(period.start), calls.c.started_at < _utc(period.end))
    columns = askable(calls)
    return calls.c.tenant == tenant, *began, *(kept(wanted, columns[wanted.dimension]) for wanted in filters)


def places(read: Read, where: Where, at_once: int = AT_ONCE) -> Iterator[ColumnElement[bool]]:
    """Conditions that part the calls for which `where` holds, at most `at_once` in each, in the order they stand."""
    found = np.sort(read(select(PLACE.label("place")).where(*where)).column(0).to_numpy())
    for first in range(0, len(found), at_once):
        part = found[first : first + at_once]
        yield PLACE.between(int(part[0]), int(part[-1]))


def standing(names: Sequence[str], where: Where) -> Select[Any]:
    """Calls as they stand: `place`, `names`, and the columns of `PRICE` with `_now`."""
    now = (calls.c[name].label(f"{name}{NOW}") for name in PRICE)
    return select(PLACE.label("place"), *(calls.c[name] for name in names), *now).where(*where)


def amend(transaction: Transaction, run: int, rows: pl.DataFrame) -> int:
    """Write price columns of stored calls, and keep what they were where more than the version changes.

    The sums do not follow by themselves: call `rollups.recount` for every hour concerned before the commit.

    Args:
        transaction: the one that read the rows.
        run: under which the former values are kept.
        rows: `place`, the columns of `PRICE` as they are to read, and the same with `_now` as they read.

    Returns:
        How many calls change in more than the version.
    """
    otherwise = rows.select(
        differs(PRICE[:-1]).alias("amounts"), differs(PRICE[-1:]).alias("version"), *(differs((n,)) for n in PRICE)
    )
    amounts = rows.filter(otherwise["amounts"])
    if not amounts.is_empty():
        _keep(transaction, run, amounts)
        changing = [name for name in PRICE if otherwise[name].any()]
        _write(transaction, amounts, changing)
    version = rows.filter(~otherwise["amounts"] & otherwise["version"])
    if not version.is_empty():
        _write(transaction, version, ["price_version"])
    return amounts.height


def differs(names: Sequence[str]) -> pl.Expr:
    """Whether any of `names` is to read otherwise than now; unknown equals unknown."""
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}{NOW}")) for name in names).alias(names[0])


def _keep(transaction: Transaction, run: int, rows: pl.DataFrame) -> None:
    former = select(cast(literal(run), BigInteger), *(calls.c[name] for name in (*KEY, *PRICE))).where(_span(rows))
    target = ["run", *KEY, *PRICE]
    first, last = rows.select(first=pl.col("place").min(), last=pl.col("place").max()).row(0)
    if last - first + 1 == rows.height:  # nothing stands between them, and copying takes half as long
        transaction.execute(repriced.insert().from_select(target, former))
        return
    mine = former.where(_PLACED.c.place == PLACE)
    transaction.execute(repriced.insert().from_select(target, mine), placed=rows.select("place").to_arrow())


def _write(transaction: Transaction, rows: pl.DataFrame, names: Sequence[str]) -> None:
    values: dict[str, Any] = {name: _PLACED.c[name] for name in names}
    asked = calls.update().values(values).where(_PLACED.c.place == PLACE, _span(rows))
    transaction.execute(asked, placed=rows.select("place", *names).to_arrow())


def _span(rows: pl.DataFrame) -> ColumnElement[bool]:
    first, last = rows.select(first=pl.col("place").min(), last=pl.col("place").max()).row(0)
    return PLACE.between(first, last)


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(tzinfo=None)


_PLACED: Final = table("placed", column("place"), *(column(name) for name in PRICE))
