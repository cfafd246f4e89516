"""Allocation policies: who carries what no call used, and what cached tokens weigh, from when on.

A policy holds from its hour until the next one. What hours before it cost, and whom, stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

from sqlalchemy import Column, Connection, Integer, String, Table, insert, select

from millicent.pricing.allocation import CachedPolicy
from millicent.pricing.idle import IdlePolicy
from millicent.warehouse import repricings
from millicent.warehouse.instants import Instant, text_of
from millicent.warehouse.rules import metadata

LONGEST: Final = 1024
FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)

allocation_policies: Final = Table(
    "allocation_policies", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("effective_from", Instant, nullable=False), Column("idle", String, nullable=False),
    Column("cached", String, nullable=False), Column("note", String, nullable=False),
    Column("author", String, nullable=False), Column("created_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a tenant's own hardware is allocated from a whole UTC hour on.

    `idle` says who carries idle and unavailable cost: a line of its own, everybody by what they used, everybody the
    same, or the owner of the deployment. `cached` says what a token out of the prefix cache weighs: nothing, its own
    weight, or as much as one that was computed. `id`, `author` and `created_at` are given when it is set.

    Raises:
        ValueError: a choice is unknown, the hour is not whole, or the note is too long.
    """

    idle: IdlePolicy = "show"
    cached: CachedPolicy = "fraction"
    effective_from: datetime
    note: str = ""
    id: int | None = None
    author: str | None = None
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        for name, known in (("idle", get_args(IdlePolicy)), ("cached", get_args(CachedPolicy))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: write {', '.join(known)}")
        since = self.effective_from
        if since.tzinfo is None:
            raise ValueError(f"effective_from {since.isoformat()} has no time zone: add Z for UTC or an offset")
        if not FIRST <= since <= LAST:
            raise ValueError(
                f"effective_from {since.isoformat()} is not between {FIRST.year} and {LAST.year}: correct the year"
            )
        utc = since.astimezone(UTC)
        if utc != utc.replace(minute=0, second=0, microsecond=0):
            raise ValueError(
                f"effective_from {since.isoformat()} is not on a whole hour of UTC: policies change on the hour"
            )
        if len(self.note) > LONGEST:
            raise ValueError(f"note is {len(self.note):,} characters long: write at most {LONGEST:,}")


BUILT_IN: Final = Policy(effective_from=FIRST, note="built in")
"""What holds before the first policy that was set."""


def store(connection: Connection, tenant: str, policy: Policy, author: str, now: datetime) -> tuple[Policy, bool]:
    """Keep a policy; returns it as stored, and whether it is new. What holds at its hour already is not kept again.

    One that was set for the same hour before holds no more.

    Raises:
        ValueError: it would hold in a closed period.
    """
    others = [one for _, one in stored(connection, tenant)]
    before = [one for one in others if one.effective_from <= policy.effective_from]
    if before and (before[-1].idle, before[-1].cached) == (policy.idle, policy.cached):
        return before[-1], False
    until = next((one.effective_from for one in others if one.effective_from > policy.effective_from), None)
    repricings.refuse_closed(connection, tenant, "the policy", policy.effective_from, until)
    row = {
        "tenant": tenant, "effective_from": policy.effective_from, "idle": policy.idle,
        "cached": policy.cached, "note": policy.note, "author": author, "created_at": now,
    }  # fmt: skip
    made = connection.execute(insert(allocation_policies).values(row)).inserted_primary_key
    return replace(policy, id=int(made[0]) if made else None, author=author, created_at=now), True


def stored(connection: Connection, tenant: str | None) -> list[tuple[str, Policy]]:
    """(tenant, policy) by tenant and hour, one an hour; all tenants when none is named."""
    c = allocation_policies.c
    asked = select(allocation_policies).order_by(c.tenant, c.effective_from, c.id)
    if tenant is not None:
        asked = asked.where(c.tenant == tenant)
    rows = [dict(row) for row in connection.execute(asked).mappings()]
    latest = {(row["tenant"], row["effective_from"]): row for row in rows}
    return [(row["tenant"], _policy(row)) for row in latest.values()]


def written(policy: Policy) -> dict[str, Any]:
    """A policy as JSON."""
    made = policy.created_at
    return {
        "id": policy.id, "idle": policy.idle, "cached": policy.cached, "effective_from": text_of(policy.effective_from),
        "note": policy.note, "author": policy.author, "created_at": text_of(made) if made else None,
    }  # fmt: skip


def _policy(row: dict[str, Any]) -> Policy:
    names = ("id", "idle", "cached", "note", "author", "effective_from", "created_at")
    return Policy(**{name: row[name] for name in names})
