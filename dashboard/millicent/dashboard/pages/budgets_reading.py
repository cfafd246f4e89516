"""What the Budgets page tells of: how budgets stand, which of them are listed, in what order, and which one is open."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard.pages.asked_once import asked_once
from millicent.dashboard.pages.budgets_words import CLOSE, expected
from millicent.warehouse import budgets, standings
from millicent.warehouse.record import CHARGE, IDLE
from millicent.warehouse.standings import Standing, Untold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import polars as pl

    from millicent.dashboard.pages.budgets_place import Looked
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.query import Filter, Query

Stood = Standing | Untold

KEPT_S: Final = 8.0
"""How old what is told of budgets may be; a change of one is told at once."""
BASES: Final = {
    "list": "list prices", "billed": "as billed", "effective": "fully loaded", "usage": "direct only",
    "marginal": "electricity only",
}  # fmt: skip
NAMES: Final = {IDLE: "idle hardware", CHARGE: "charges"}


@dataclass(frozen=True, slots=True)
class Line:
    """A budget in the list: how deep it is below others, and whether it only stands there for one below it."""

    one: Stood
    depth: int
    context: bool = False


def at(reader: Reader) -> datetime:
    """The instant up to which calls are complete; they may be told of later than they were made."""
    return min(reader.fresh, reader.now)


def ask(reader: Reader) -> Callable[[Query], pl.DataFrame]:
    """Answers a query of the reader's tenant."""
    return lambda query: reader.warehouse.ask(reader.tenant, query).frame


def stands(reader: Reader) -> list[Stood]:
    """How all budgets of the tenant stand, parts of the page asking once."""
    wanted, versions = budgets.live_with_versions(reader.warehouse.control, reader.tenant, at(reader))
    found: list[Stood] = once(
        reader, ("stands", *wanted), lambda: standings.standings(ask(reader), wanted, at(reader), versions)
    )
    return found


def once(reader: Reader, what: tuple[Any, ...], found: Callable[[], Any], kept_s: float = KEPT_S) -> Any:
    """An answer that parts of the page share; `what` is all that it depends on besides the calls."""
    return asked_once(reader.warehouse, (reader.tenant, "limits", *what), found, kept_s)


def listed(found: Sequence[Stood], place: Looked) -> list[Line]:
    """The budgets that a place lists, worst first at each level, parts below their whole; with what leads to them."""
    by_id = {one.budget.id: one for one in found}
    below: dict[int | None, list[Stood]] = {}
    for one in found:
        below.setdefault(one.budget.parent if one.budget.parent in by_id else None, []).append(one)
    wanted = {one.budget.id for one in found if _wanted(one, place)}
    leading = {above for one in wanted for above in _above(by_id, one)}

    made: list[Line] = []
    told: set[int | None] = set()

    def add(some: Sequence[Stood], depth: int) -> None:
        for one in sorted(some, key=_rank):
            name = one.budget.id
            if name not in told and (name in wanted or name in leading):
                told.add(name)
                made.append(Line(one, depth, context=name not in wanted))
                add(below.get(name, ()), depth + 1)

    add(below.get(None, ()), 0)
    add([one for one in found if one.budget.id in wanted], 0)  # those that are parts of each other
    return made


def chosen(found: Sequence[Stood], place: Looked) -> Stood | None:
    """The budget that is open: the one that was chosen, else the first that is listed, of all the widest."""
    if place.budget is not None:
        named = next((one for one in found if one.budget.id == place.budget), None)
        if named is not None:
            return named
    if place.show != "all":
        first = next((line.one for line in listed(found, place) if not line.context), None)
        if first is not None:
            return first
    return min(found, key=lambda one: (isinstance(one, Untold), one.budget.parent is not None, len(one.budget.filters),
                                       one.budget.period != "month", -one.budget.amount), default=None)  # fmt: skip


def is_shown(one: Stood, show: str) -> bool:
    """Whether a budget is among those that a filter keeps."""
    if show == "all":
        return True
    if isinstance(one, Untold):
        return show == "incomplete"
    if show == "incomplete":
        return bool(one.incomplete)
    over = one.state in {"over", "will_be_over"}
    if show == "over":
        return over
    close = (expected(one) or Decimal(0)) >= CLOSE
    at_risk = not over and (one.state == "may_be_over" or close)
    return at_risk if show == "risk" else one.state == "kept" and not at_risk


def scope(budget: Budget) -> str:
    """What spend a budget is about, in words: `team Search, model not gpt-5.1`."""
    return ", ".join(map(_kept, budget.filters)) or "all spend"


def _kept(wanted: Filter) -> str:
    names = " or ".join("unknown" if value is None else NAMES.get(value, value) for value in wanted.values)
    return f"{wanted.dimension.replace('_', ' ')} {'not ' if wanted.negated else ''}{names}"


def _wanted(one: Stood, place: Looked) -> bool:
    told = f"{one.budget.name} {one.budget.owner} {scope(one.budget)}".casefold()
    return is_shown(one, place.show) and all(word in told for word in place.text.casefold().split())


def _above(by_id: dict[int | None, Stood], budget_id: int | None) -> list[int | None]:
    """What leads to a budget, nearest first; parents are no circle, but versions of different instants may be."""
    found: list[int | None] = []
    above = by_id[budget_id].budget.parent if budget_id in by_id else None
    while above in by_id and above not in found and above != budget_id:
        found.append(above)
        above = by_id[above].budget.parent
    return found


def _rank(one: Stood) -> tuple[Any, ...]:
    """Worst first: what cannot be told last."""
    if isinstance(one, Untold):
        return (1, Decimal(0), one.budget.name)
    share = expected(one)
    return (0, -(share if share is not None else Decimal("Infinity")), one.budget.name)
