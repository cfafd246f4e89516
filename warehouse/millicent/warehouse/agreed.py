"""What calls cost by what was agreed on: as they stand, or as adjustments of a closed day made of them; and undoing it.

Of an open day `repriced` keeps what calls cost before a run. Calls of a closed day stay as they are, so there it keeps
what a run charged them at: the last such run says what a call costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, Subquery, and_, case, func, literal, or_, select

from millicent.warehouse.amending import NOW, PLACE, Where
from millicent.warehouse.ledger import KEY
from millicent.warehouse.query import Period
from millicent.warehouse.repricings import Repricing
from millicent.warehouse.tables import PRICE, calls, repriced, repricing_days, without_zone


def agreed(names: Sequence[str], where: Where, tenant: str, day: Period, versions: Sequence[str]) -> Select[Any]:
    """Calls of a closed day as `amending.standing`, at what they were charged at last; none of `versions`."""
    last = _charged(tenant, day)
    now = _else_standing(last)
    version = now["price_version"]
    source = calls.outerjoin(last, _same_call(calls, last))
    others = or_(version.is_(None), version.not_in(versions))
    return _rows(names, now).select_from(source).where(*where, others)


def undoing(
    names: Sequence[str], where: Where, undone: Repricing, day: Period, *, adjusted: bool, closed: bool
) -> Select[Any]:
    """Calls that a run changed and nothing has changed since: as `amending.standing`, and `PRICE` as before that run.

    Args:
        names: columns of the calls.
        where: which calls.
        undone: the run.
        day: the UTC day, or the part of it, that is asked for.
        adjusted: the run made charges of that day's differences, and left its calls alone.
        closed: the day is closed now.
    """
    last = _charged(undone.tenant, day)
    if adjusted:
        before = _charged(undone.tenant, day, before=undone.id)
        source = calls.join(last, _same_call(calls, last)).outerjoin(before, _same_call(calls, before))
        now = {name: last.c[name] for name in PRICE}
        return _rows(names, now, _else_standing(before)).select_from(source).where(*where, last.c.run == undone.id)
    first = _of_run(undone.id, undone.tenant, day)
    source = calls.join(first, _same_call(calls, first))
    wrote: ColumnElement[Any] = literal(undone.version)
    if undone.undo_of is not None:
        second = _of_run(undone.undo_of, undone.tenant, day)
        source = source.join(second, _same_call(calls, second))
        wrote = second.c.price_version
    still = [calls.c.price_version.is_not_distinct_from(wrote)]
    if closed:
        source = source.outerjoin(last, _same_call(calls, last))
        still.append(last.c.run.is_(None))
    now, former = ({name: of.c[name] for name in PRICE} for of in (calls, first))
    return _rows(names, now, former).select_from(source).where(*where, *still)


def _rows(
    names: Sequence[str], now: Mapping[str, ColumnElement[Any]], former: Mapping[str, ColumnElement[Any]] | None = None
) -> Select[Any]:
    return select(
        PLACE.label("place"),
        *(calls.c[name] for name in names),
        *(now[name].label(f"{name}{NOW}") for name in PRICE),
        *(one.label(name) for name, one in (former or {}).items()),
    )


def _charged(tenant: str, day: Period, before: int | None = None) -> Subquery:
    """What calls of a closed day were charged at last, with the `run`; before the run of that id, if told."""
    days = repricing_days.c
    midnight = datetime.combine(day.start.astimezone(UTC).date(), time())
    runs = select(days.run).where(days.tenant == tenant, days.day == midnight, days.adjusted)
    newest = func.row_number().over(partition_by=[repriced.c[name] for name in KEY], order_by=repriced.c.run.desc())
    found = select(repriced, newest.label("nth")).where(*_within(tenant, day), repriced.c.run.in_(runs))
    if before is not None:
        found = found.where(repriced.c.run < before)
    ranked = found.subquery()
    return select(ranked).where(ranked.c.nth == 1).subquery()


def _of_run(run: int, tenant: str, day: Period) -> Subquery:
    return select(repriced).where(repriced.c.run == run, *_within(tenant, day)).subquery()


def _within(tenant: str, day: Period) -> tuple[ColumnElement[bool], ...]:
    start, end = without_zone(day.start), without_zone(day.end)
    return repriced.c.tenant == tenant, repriced.c.started_at >= start, repriced.c.started_at < end


def _else_standing(charged: FromClause) -> dict[str, ColumnElement[Any]]:
    return {name: case((charged.c.run.is_not(None), charged.c[name]), else_=calls.c[name]) for name in PRICE}


def _same_call(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in KEY))
