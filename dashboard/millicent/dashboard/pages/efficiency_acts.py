"""What the Efficiency page changes: the allocation policy, checked as any request of the API is."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from millicent.dashboard import format as fmt
from millicent.dashboard.pages.answering import carried_out
from millicent.dashboard.pages.efficiency_policy import policy_of
from millicent.dashboard.pages.prices_acts import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millicent.dashboard.access import Principal
    from millicent.warehouse.store import Warehouse


def carry_out(warehouse: Warehouse, act: Any) -> Outcome:
    """Do what a browser asks for: set a policy; see `answering.carried_out`."""
    return carried_out(act, "policy", "read the policy, not change it", partial(_set, warehouse))


def _set(warehouse: Warehouse, who: Principal, told: Mapping[str, str]) -> Outcome:
    known = {one.id for _, one in warehouse.control.policies(who.tenant)}
    kept = warehouse.control.set_policy(policy_of(told), who.tenant, who.actor)
    since = f"{fmt.moment(kept.effective_from.astimezone(UTC))} UTC"
    if kept.id in known:
        return Outcome((f"Idle {kept.idle}, cached {kept.cached} holds already, since {since}.",))
    said = f"From {since} on: idle {kept.idle}, cached {kept.cached}."
    past = kept.effective_from < datetime.now(UTC)
    return Outcome((said, *(["Its hours are computed again within minutes."] if past else [])))
