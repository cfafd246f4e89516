"""Price data as it is kept: every state that priced a call, which one is in force since when, and what tenants added.

With it the book of any `price_version` on a stored call can be made again, whatever is installed now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import JSON, Column, Connection, Integer, LargeBinary, String, Table, func, insert, select

from millicent.pricing import snapshot
from millicent.pricing.bundled import Found
from millicent.pricing.rates import Entry
from millicent.warehouse.instants import Instant
from millicent.warehouse.price_names import Asked
from millicent.warehouse.rules import metadata

price_data: Final = Table(
    "price_data", metadata,
    Column("version", String, primary_key=True), Column("data", LargeBinary, nullable=False),
    Column("held", JSON, nullable=False), Column("first_seen_at", Instant, nullable=False),
)  # fmt: skip
price_updates: Final = Table(
    "price_updates", metadata,
    Column("id", Integer, primary_key=True), Column("version", String, nullable=False),
    Column("at", Instant, nullable=False), Column("actor", String),
)  # fmt: skip
price_versions: Final = Table(
    "price_versions", metadata,
    Column("tenant", String, primary_key=True), Column("version", String, primary_key=True),
    Column("data_version", String, nullable=False), Column("entry_ids", JSON, nullable=False),
    Column("known_from", Instant, nullable=False),
)  # fmt: skip

Model = tuple[str, str]
"""Provider and model, as the price data names them."""


@dataclass(frozen=True, slots=True)
class PriceData:
    """One state of the bundled prices.

    `held` are the models whose prices are those of another version, and which: an update that would have changed their
    past was not accepted. `names` are the names that are not taken for the model that the update takes them for.
    """

    version: str
    entries: tuple[Entry, ...]
    held: Mapping[Model, str] = field(default_factory=dict, hash=False)
    names: Mapping[Asked, Found] = field(default_factory=dict, hash=False)

    @property
    def whole(self) -> bool:
        """Whether it is an update without anything held back."""
        return not self.held and not self.names


def named(connection: Connection, told: PriceData) -> PriceData:
    """`told` under its version, or under one of its own where other prices are kept under that one."""
    kept = connection.execute(select(price_data.c.data).where(price_data.c.version == told.version)).scalar()
    packed = snapshot.pack(told.entries)
    if kept in {None, packed} or snapshot.unpack(kept) == told.entries:
        return told
    return replace(told, version=f"{told.version} ({sha256(packed).hexdigest()[:8]})")


def keep(connection: Connection, state: PriceData, now: datetime) -> None:
    """Keep `state`, unless it is kept already."""
    if connection.execute(select(price_data.c.version).where(price_data.c.version == state.version)).first() is None:
        held = {
            "models": [[*model, version] for model, version in state.held.items()],
            "names": [[*asked, found.provider, found.owner, found.model] for asked, found in state.names.items()],
        }
        row = {"version": state.version, "data": snapshot.pack(state.entries), "first_seen_at": now,
               "held": held}  # fmt: skip
        connection.execute(insert(price_data).prefix_with("OR IGNORE").values(row))


def put_in_force(connection: Connection, version: str, actor: str | None, now: datetime) -> None:
    """Price by a state that is kept from now on; `actor` said yes to it, None when nobody had to."""
    connection.execute(insert(price_updates).values(version=version, at=now, actor=actor))


def in_force(connection: Connection, at: datetime | None = None) -> str | None:
    """Version of the state in force now, or at an instant (the first one before it); None in a new installation."""
    newest = select(price_updates.c.version).order_by(price_updates.c.id.desc()).limit(1)
    if at is None:
        return connection.execute(newest).scalar_one_or_none()
    found = connection.execute(newest.where(price_updates.c.at <= at)).scalar_one_or_none()
    first = select(price_updates.c.version).order_by(price_updates.c.id).limit(1)
    return found or connection.execute(first).scalar_one_or_none()


def taken_whole(connection: Connection) -> str | None:
    """Version of the last state in force that held nothing back."""
    asked = (
        select(price_data.c.version, price_data.c.held)
        .join(price_updates, price_updates.c.version == price_data.c.version)
        .order_by(price_updates.c.id.desc())
    )
    return next((row.version for row in connection.execute(asked) if not any(row.held.values())), None)


def state(connection: Connection, version: str) -> PriceData | None:
    """A state that is kept; None when there is none of that version."""
    row = connection.execute(select(price_data).where(price_data.c.version == version)).mappings().one_or_none()
    if row is None:
        return None
    held = {(provider, model): at for provider, model, at in row["held"]["models"]}
    names = {(told[0], told[1], told[2]): Found(*told[3:]) for told in row["held"]["names"]}
    return PriceData(version, snapshot.unpack(row["data"]), held, names)


def stamp(connection: Connection) -> int:
    """A number that is another whenever another state is in force."""
    return int(connection.execute(select(func.coalesce(func.max(price_updates.c.id), 0))).scalar_one())


def remember(
    connection: Connection, tenant: str, version: str, data_version: str, entry_ids: Sequence[int], now: datetime
) -> None:
    """What a version that prices a tenant's calls is made of; the first that is told stays."""
    row: dict[str, Any] = {"tenant": tenant, "version": version, "data_version": data_version,
                           "entry_ids": list(entry_ids), "known_from": now}  # fmt: skip
    connection.execute(insert(price_versions).prefix_with("OR IGNORE").values(row))


def made_of(connection: Connection, tenant: str, version: str) -> tuple[str, list[int]] | None:
    """Version of the data, and ids of the entries, that a version of a tenant is made of; None when it never priced."""
    c = price_versions.c
    row = connection.execute(
        select(c.data_version, c.entry_ids).where(c.tenant == tenant, c.version == version)
    ).first()
    return (row.data_version, row.entry_ids) if row else None
