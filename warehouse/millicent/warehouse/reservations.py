"""Money of budgets that is set aside for calls: before they begin, and until what they cost is among the facts.

Looking and setting aside is one transaction, so that any number of callers, in any number of processes, can never be
promised the same money. A call that has ended is kept in one row with all that ended in the same second, until facts
are read that are sure to have it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, or_, select, update

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

HOLD: Final = timedelta(minutes=5)
"""How long money is set aside for a call that is not heard of again."""
LONGEST_HOLD: Final = timedelta(hours=1)
TRAVEL: Final = timedelta(seconds=10)
"""How long after its end a call may take to be acknowledged by the receiver: exporters wait up to five seconds."""
KEPT: Final = timedelta(minutes=10)
"""How long what calls cost is kept for facts that do not come."""
SHARE: Final = 8
"""Whoever asks for many calls at once is given one in so many of those that still fit, and one at least."""
MOST_CALLS: Final = 1000
"""Calls of one reservation."""
DIGITS: Final = Decimal("1e-12")
_NOTHING: Final = Decimal(0)

reservations: Final = Table(
    "reservations", metadata,
    Column("id", String, primary_key=True), Column("budget", Integer, primary_key=True),
    Column("tenant", String, nullable=False), Column("calls", Integer, nullable=False),
    Column("amount", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("settled_at", Instant), Column("expires_at", Instant, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What calls ask of one budget, in its currency.

    Attributes:
        budget: its id.
        each: what a call is expected to cost; None where nobody knows, and nothing is set aside then.
        left: what its limit has left over what was spent; None where that cannot be told, and then it refuses nothing.
        through: every call acknowledged before this instant is in what was spent.
        refuses: whether a call that does not fit may not be made; otherwise it is only told.
    """

    budget: int
    each: Decimal | None
    left: Decimal | None
    through: datetime
    refuses: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """What became of claims.

    Attributes:
        id: of the reservation; None where no call may be made.
        calls: how many may be.
        reserved: by budget, what others had set aside before.
        reached: budgets that a call does not fit into.
    """

    id: str | None
    calls: int
    reserved: Mapping[int, Decimal]
    reached: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """That calls of a reservation have ended, or will not be made.

    Attributes:
        id: of the reservation.
        calls: how many.
        cost: by budget, what they came to, all together, in its currency; as expected for those that are left out.
        unused: they were not made: nothing is kept for them.
    """

    id: str
    calls: int
    cost: Mapping[int, Decimal]
    unused: bool = False


def reserve(
    control: Control, tenant: str, claims: Sequence[Claim], calls: int, hold: timedelta, now: datetime
) -> Granted:
    """Set money of every budget aside for as many of `calls` as fit into all that refuse; none, or one at least.

    A call fits where what is spent, what is set aside and what it is expected to cost do not pass the limit, and the
    limit is not reached already.
    """
    if not claims:
        return Granted(None, calls, {}, frozenset())
    with control.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.execute(delete(reservations).where(reservations.c.expires_at <= now))
        reserved = {one.budget: _reserved(connection, tenant, one) for one in claims}
        fitting = {one.budget: _fitting(one, reserved[one.budget], calls) for one in claims}
        reached = frozenset(budget for budget, number in fitting.items() if not number)
        number = min((fitting[one.budget] for one in claims if one.refuses), default=calls)
        if not number:
            return Granted(None, number, reserved, reached)
        made = f"rsv_{secrets.token_hex(12)}"
        row = {"id": made, "tenant": tenant, "calls": number, "created_at": now, "expires_at": now + hold}
        rows = [{**row, "budget": one.budget, "amount": _text(one.each or _NOTHING)} for one in claims]
        connection.execute(insert(reservations), rows)
    return Granted(made, number, reserved, reached)


def settle(control: Control, tenant: str, ended: Sequence[Ended], now: datetime) -> list[str]:
    """Take from reservations the calls that have ended; what they cost is kept until it is among the facts.

    Returns:
        The ids of those that are not there: settled before, or expired.
    """
    told = dict[str, list[Ended]]()
    for one in ended:
        told.setdefault(one.id, []).append(one)
    c, unknown, added = reservations.c, list[str](), dict[int, Decimal]()
    with control.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        mine = c.id.in_(told) & (c.tenant == tenant) & _open()
        amounts, left = dict[str, dict[int, Decimal]](), dict[str, int]()
        for row in connection.execute(select(reservations).where(mine)).mappings():
            amounts.setdefault(row["id"], {})[row["budget"]] = Decimal(row["amount"])
            left[row["id"]] = row["calls"]
        for made, parts in told.items():
            there = left.get(made, 0)
            for one in parts:
                calls = min(one.calls, left.get(made, 0))
                if not calls:
                    unknown.append(made)
                    continue
                left[made] -= calls
                for budget, each in () if one.unused else amounts[made].items():
                    cost = one.cost.get(budget)
                    added[budget] = added.get(budget, _NOTHING) + (each * calls if cost is None else cost)
            if there and not left[made]:
                connection.execute(delete(reservations).where(c.id == made))
            elif there:
                connection.execute(update(reservations).where(c.id == made).values(calls=left[made]))
        _keep(connection, tenant, {budget: cost for budget, cost in added.items() if cost}, now)
    return unknown


def outstanding(control: Control, tenant: str, budget: int, through: datetime) -> Decimal:
    """What is set aside of a budget for calls that are not in facts of before `through`."""
    claim = Claim(budget=budget, each=None, left=None, through=through, refuses=False)
    with control.begin() as connection:
        return _reserved(connection, tenant, claim)


def _reserved(connection: Connection, tenant: str, claim: Claim) -> Decimal:
    c = reservations.c
    counts = or_(_open(), c.settled_at > claim.through - TRAVEL)
    asked = select(c.calls, c.amount).where(c.tenant == tenant, c.budget == claim.budget, counts)
    return sum((calls * Decimal(amount) for calls, amount in connection.execute(asked)), _NOTHING)


def _fitting(claim: Claim, reserved: Decimal, calls: int) -> int:
    """How many of so many calls a budget has room for; all where it cannot be told."""
    if claim.left is None:
        return calls
    room = claim.left - reserved
    if room <= 0:
        return 0
    if not claim.each:
        return calls
    fit = min(int(room // claim.each), calls * SHARE)
    return max(1, fit // SHARE) if fit else 0


def _keep(connection: Connection, tenant: str, added: Mapping[int, Decimal], now: datetime) -> None:
    """Add what calls cost to the rows of this second."""
    c, second = reservations.c, now.replace(microsecond=0) + timedelta(seconds=1)
    made = f"settled {tenant} {second:%Y-%m-%dT%H:%M:%S}"
    asked = select(c.budget, c.amount).where(c.id == made)
    there = {budget: Decimal(amount) for budget, amount in connection.execute(asked)}
    for budget, cost in added.items():
        total = _text(there.get(budget, _NOTHING) + cost)
        if budget in there:
            connection.execute(update(reservations).where(c.id == made, c.budget == budget).values(amount=total))
            continue
        row = {"id": made, "budget": budget, "tenant": tenant, "calls": 1, "amount": total, "created_at": now,
               "settled_at": second, "expires_at": second + KEPT}  # fmt: skip
        connection.execute(insert(reservations).values(row))


def _open() -> Any:
    return reservations.c.settled_at.is_(None)


def _text(amount: Decimal) -> str:
    return f"{amount.quantize(DIGITS, ROUND_CEILING):f}"
