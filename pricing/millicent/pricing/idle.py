"""Who carries what no call used: idle, unavailable or unused cost, by one of four policies.

Shares are exact: they add up to the amount, to its last digit. What rounding leaves goes to who used most.
"""

from collections.abc import Hashable, Mapping
from decimal import ROUND_DOWN, Decimal, localcontext
from fractions import Fraction
from typing import Literal, TypeVar

from millicent.pricing.profiles import MATH, MONEY

IdlePolicy = Literal["show", "spread by use", "spread evenly", "charge the owner"]
"""Keep it a line of its own; by what each used; the same for all; or all to one."""

_Who = TypeVar("_Who", bound=Hashable)


def carriers(
    amount: Decimal,
    policy: IdlePolicy,
    *,
    used: Mapping[_Who, Decimal | int],
    owner: _Who | None = None,
    quantum: Decimal = MONEY,
) -> dict[_Who | None, Decimal]:
    """Who carries how much of an amount that no call used; the sum is the amount.

    What has nobody to carry it stays a line of its own, under None: nobody used anything, or no owner is known.

    Args:
        amount: USD, joules or grams; below 0 for a correction.
        policy: How to share it.
        used: Everybody who may carry a part, and what they used (cost or weight), never below 0.
        owner: Who carries all of it under "charge the owner".
        quantum: The last digit that a share keeps.

    Raises:
        ValueError: Somebody used less than nothing.
    """
    if any(value < 0 for value in used.values()):
        raise ValueError(f"used {dict(used)!r} has a use below 0: nobody can carry a part of that")
    if policy == "charge the owner":
        return {owner: amount}
    if policy == "spread by use":
        return _shared(amount, {who: Fraction(used[who]) for who in _most_first(used) if used[who]}, quantum)
    if policy == "spread evenly":
        return _shared(amount, {who: Fraction(1) for who in _most_first(used)}, quantum)
    return {None: amount}


def _shared(amount: Decimal, parts: Mapping[_Who, Fraction], quantum: Decimal) -> dict[_Who | None, Decimal]:
    """In proportion to the parts; what rounding leaves goes to the first."""
    if not parts:
        return {None: amount}
    whole = sum(parts.values())
    with localcontext(MATH):
        shares: dict[_Who | None, Decimal] = {}
        for who, part in parts.items():
            share = part / whole
            shares[who] = (amount * share.numerator / share.denominator).quantize(quantum, ROUND_DOWN)
        shares[next(iter(parts))] += amount - sum(shares.values())
        return shares


def _most_first(used: Mapping[_Who, Decimal | int]) -> list[_Who]:
    """By use, downwards; those that used the same, by name."""
    return sorted(used, key=lambda who: (-used[who], str(who)))
