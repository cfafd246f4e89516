"""The rule of a statement in words: what each line is, who carries what no call used, and what closing means."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from millicent.warehouse.policies import BUILT_IN, FIRST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from millicent.pricing.allocation import CachedPolicy
    from millicent.pricing.idle import IdlePolicy
    from millicent.warehouse.policies import Policy
    from millicent.warehouse.query import Period

IDLE_RULES: Final[dict[IdlePolicy, str]] = {
    "show": "No team carries idle and unavailable hardware: it is a line of its own.",
    "spread by use": "Idle and unavailable hardware is carried by the teams that used the deployment in the same hour, "
    "by what their calls used of it.",
    "spread evenly": "Idle and unavailable hardware is carried by the teams that used the deployment in the same hour, "
    "each the same.",
    "charge the owner": "Idle and unavailable hardware is carried by the team that owns the deployment.",
}
"""Who carries it, by policy."""
_CACHED: Final[dict[CachedPolicy, str]] = {
    "free": "Tokens out of the prefix cache weigh nothing.",
    "full": "Tokens out of the prefix cache weigh as much as computed ones.",
    "fraction": "",
}
_API: Final = (
    "API calls: what providers bill for the calls of the team, at the price that held when each call began, after "
    "negotiated terms."
)
_OWN: Final = (
    "Own hardware, used: what the calls of the team used of our accelerators while they worked: weighted tokens times "
    "the rate of the deployment and hour."
)
_NOBODY: Final = (
    "Hardware whose work no known call explains (untracked), what is left without a team to carry it, and calls "
    "without a team are charged to no team."
)
_CHARGES: Final = (
    "Fees, commitments, discounts by volume and credits are with a team where the contract names it. Adjustments "
    "correct months that are closed; they are charged in the month in which they became known."
)
_UNKNOWN: Final = "Calls of unknown price are in no amount; once they have a price, they are charged."
_ROUNDED: Final = (
    "Amounts are rounded half-even to cents; where cents of lines do not add up to those of their total, a line "
    "Rounding makes up the difference."
)
_CLOSED: Final = (
    "This month is closed: its amounts, and the exchange rates that they are converted by, do not change any more. "
    "Corrections come as adjustments of later months."
)
_OPEN: Final = "This month is open: amounts may still change, and nothing is charged before it is closed."


def words(policies: Sequence[Policy], period: Period, zone: tzinfo, *, closed: bool) -> tuple[str, ...]:
    """How the amounts of a statement came about; policies by the hour from which they hold."""
    held = in_force(policies, period)
    carried = []
    for policy in held:
        since = f"From {_hour(max(policy.effective_from, period.start), zone)}: " if len(held) > 1 else ""
        carried.append(" ".join(filter(None, [f"{since}{IDLE_RULES[policy.idle]}", _CACHED[policy.cached]])))
    return (_API, _OWN, *carried, _NOBODY, _CHARGES, _UNKNOWN, _ROUNDED, _CLOSED if closed else _OPEN)


def in_force(policies: Sequence[Policy], period: Period) -> list[Policy]:
    """The policies that hold in a period, by hour."""
    known = [BUILT_IN, *(policy for policy in policies if policy.effective_from > FIRST)]
    ends = [*(policy.effective_from for policy in known[1:]), period.end]
    return [
        policy
        for policy, end in zip(known, ends, strict=True)
        if policy.effective_from < period.end and end > period.start
    ]


def _hour(instant: datetime, zone: tzinfo) -> str:
    local = instant.astimezone(zone)
    return f"{local.day} {local:%b %Y %H:%M} {zone if zone is not UTC else 'UTC'}"
