"""What the Efficiency page changes: the allocation policy, checked as any request of the API is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.pages.efficiency_policy import policy_of
from millicent.dashboard.pages.prices_acts import Outcome
from millicent.dashboard.pages.prices_forms import text_of

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse


def carry_out(warehouse: Warehouse, act: Any) -> Outcome:
    """Do what a browser asks for: set a policy.

    Args:
        warehouse: whose policies.
        act: as `app.js` sends it: `do` and `told`. Whoever sends it is asked for; what it tells is text from outside.
    """
    try:
        who = access.principal()
    except LookupError:
        return Outcome(("Nobody is asking.",), done=False)
    if not who.operates:
        said = f"{who.actor} may read the policy, not change it: ask for an operator's session."
        return Outcome((said,), done=False)
    if not isinstance(act, Mapping) or act.get("do") != "policy":
        return Outcome(("There is no such action.",), done=False)
    known = {one.id for _, one in warehouse.control.policies(who.tenant)}
    try:
        kept = warehouse.control.set_policy(policy_of(text_of(act.get("told"))), who.tenant, who.actor)
    except ValueError as error:
        return Outcome((str(error),), done=False)
    since = f"{fmt.moment(kept.effective_from.astimezone(UTC))} UTC"
    if kept.id in known:
        return Outcome((f"Idle {kept.idle}, cached {kept.cached} holds already, since {since}.",))
    told = f"From {since} on: idle {kept.idle}, cached {kept.cached}."
    past = kept.effective_from < datetime.now(UTC)
    return Outcome((told, *(["Its hours are computed again within minutes."] if past else [])))
