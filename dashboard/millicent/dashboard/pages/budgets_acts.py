"""What the Budgets page changes: a budget is set, or ended, checked as any request of the API is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard import format as fmt
from millicent.dashboard.pages.answering import carried_out
from millicent.dashboard.pages.budgets_form import problem, read
from millicent.dashboard.pages.budgets_one import every
from millicent.dashboard.pages.budgets_place import Looked, number
from millicent.dashboard.pages.budgets_words import amounts_in
from millicent.dashboard.pages.prices_acts import Outcome
from millicent.warehouse import budgets
from millicent.warehouse.budgets import BadBudgetError
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import preferences

if TYPE_CHECKING:
    from collections.abc import Callable

    from millicent.dashboard.access import Principal
    from millicent.warehouse.store import Warehouse

    Act = Callable[[Warehouse, Looked, Principal, Mapping[str, str]], Outcome]


def carry_out(warehouse: Warehouse, act: Any, place: Looked) -> Outcome:
    """Do what a browser asks for: set a budget, or end one; see `answering.carried_out`."""
    do = act.get("do") if isinstance(act, Mapping) else None
    known = do if isinstance(do, str) and do in ACTS else "set"
    return carried_out(act, known, "read budgets, not change them", partial(ACTS[known], warehouse, place))


def _set(warehouse: Warehouse, place: Looked, who: Principal, told: Mapping[str, str]) -> Outcome:
    try:
        asked = read(told, preferences(warehouse.control, who.tenant))
        made = budgets.put(warehouse.control, who.tenant, asked, who.actor)
    except (BadBudgetError, BadQuery) as error:
        return Outcome((problem(error),), done=False)
    with amounts_in(made.currency):
        limit = f"{fmt.usd(made.amount)} {every(made)}"
    if asked.version is not None and made.version == asked.version:
        return Outcome((f"{made.name} says so already: nothing was changed.",), go=place.href(budget=made.id))
    said = f"{made.name} may come to {limit}."
    more = (
        f"It is version {made.version}; the others are kept."
        if made.version != 1
        else "Its rules watch it from now on."
    )
    return Outcome((said, more), go=place.href(budget=made.id))


def _end(warehouse: Warehouse, place: Looked, who: Principal, told: Mapping[str, str]) -> Outcome:
    budget_id = number(told.get("id"))
    if budget_id is None:
        raise ValueError(f"budget {told.get('id', '')[:40]!r} is no number: open a budget, and end it there")
    gone = budgets.end(warehouse.control, who.tenant, budget_id, who.actor)
    return Outcome((f"{gone.name} holds no more. Its versions are kept.",), go=place.href(budget=None))


ACTS: Final[dict[str, Act]] = {"set": _set, "end": _end}
