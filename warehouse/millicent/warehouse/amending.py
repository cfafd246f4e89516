"""Changing what stored calls cost, in place and in parts, inside one transaction that then counts their hours again.

`ledger.revise` replaces whole calls; this writes their price columns alone, several times as fast, and keeps what
stood there before in `repriced`. Hold `Warehouse.writing` from the first read to the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    and_,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    table,
)  # fmt: skip
from sqlalchemy.sql import Executable

from millicent.warehouse.engine import Transaction
from millicent.warehouse.frames import arrow
from millicent.warehouse.ledger import KEY
from millicent.warehouse.narrowing import askable, kept
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.record import MONEY
from millicent.warehouse.tables import PRICE, WORDS, calls, price_words, repriced_amounts, repricing_days, without_zone

AT_ONCE: Final = 122_880
"""Most calls that are read together: a whole row group, since fewer take twice as long to keep."""
PLACE: Final[ColumnElement[int]] = literal_column("calls.rowid")
"""Where a call stands in its table; holds until the transaction ends."""
NOW: Final = "_now"

Read = Callable[[Executable], pa.Table]
Where = Sequence[ColumnElement[bool]]


def within(tenant: str, period: Period, filters: Sequence[Filter] = ()) -> Where:
    """Conditions on `calls`: a tenant's, begun in the period, kept by the filters."""
    began = (calls.c.started_at >= without_zone(period.start), calls.c.started_at < without_zone(period.end))
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


def keep(transaction: Transaction, run: int, rows: pl.DataFrame) -> None:
    """Keep `KEY` and `PRICE` of `rows` under a run, as if calls had stood so."""
    _learn(transaction, rows.select(WORDS))
    given = table("given", *(column(name) for name in (*KEY, *PRICE)))
    frame = arrow(rows.select(*KEY, *PRICE))
    former = _former(run, given)
    transaction.execute(repriced_amounts.insert().from_select(_KEPT, former), given=frame)


def forget(transaction: Transaction, run: int) -> None:
    """Drop what a run kept of open days, once nothing can be taken back to it: its undoing was undone.

    What it charged calls of closed days at stays, since that is what they cost.
    """
    c, days = repriced_amounts.c, repricing_days.c
    day = func.date_trunc(literal_column("'day'"), c.started_at)
    closed = exists().where(days.run == c.run, days.tenant == c.tenant, days.day == day, days.adjusted)
    transaction.execute(repriced_amounts.delete().where(c.run == run, ~closed))


def _keep(transaction: Transaction, run: int, rows: pl.DataFrame) -> None:
    """Keep what calls cost now under a run."""
    _learn(transaction, rows.select(pl.col(f"{name}{NOW}").alias(name) for name in WORDS))
    former = _former(run, calls).where(_span(rows))
    first, last = rows.select(first=pl.col("place").min(), last=pl.col("place").max()).row(0)
    if last - first + 1 == rows.height:  # nothing stands between them, and copying takes half as long
        transaction.execute(repriced_amounts.insert().from_select(_KEPT, former))
        return
    mine = former.where(_PLACED.c.place == PLACE)
    transaction.execute(repriced_amounts.insert().from_select(_KEPT, mine), placed=rows.select("place").to_arrow())


def _former(run: int, of: FromClause) -> Select[Any]:
    """Rows of `repriced_amounts` from calls whose words are known: joined by number, since copying text is dear."""
    said = and_(*(price_words.c[name].is_not_distinct_from(of.c[name]) for name in WORDS))
    columns = (of.c[name] for name in (*KEY, *MONEY))
    return select(cast(literal(run), BigInteger), *columns, price_words.c.id).select_from(of.join(price_words, said))


def _learn(transaction: Transaction, words: pl.DataFrame) -> None:
    """Number the words that were not said before."""
    known = pl.DataFrame(pl.from_arrow(transaction.read(select(price_words))))
    new = words.unique(maintain_order=True).join(known, on=WORDS, how="anti", nulls_equal=True)
    if not new.is_empty():
        transaction.insert("price_words", new.with_row_index("id", offset=known.height + 1).to_arrow())


def _write(transaction: Transaction, rows: pl.DataFrame, names: Sequence[str]) -> None:
    values: dict[str, Any] = {name: _PLACED.c[name] for name in names}
    asked = calls.update().values(values).where(_PLACED.c.place == PLACE, _span(rows))
    transaction.execute(asked, placed=rows.select("place", *names).to_arrow())


def _span(rows: pl.DataFrame) -> ColumnElement[bool]:
    first, last = rows.select(first=pl.col("place").min(), last=pl.col("place").max()).row(0)
    return PLACE.between(first, last)


_PLACED: Final = table("placed", column("place"), *(column(name) for name in PRICE))
_KEPT: Final = ("run", *KEY, *MONEY, "words")
