"""Price entries as they are kept: added and retired, never changed, so that what was once said can be told for ever."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import JSON, Column, Connection, Integer, String, Table, func, insert, select, update

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.pricing.entries import BookEntry

MOST_ENTRIES: Final = 10_000

price_entries: Final = Table(
    "price_entries", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("kind", String, nullable=False), Column("body", JSON, nullable=False),
    Column("effective_from", Instant, nullable=False), Column("effective_to", Instant),
    Column("known_from", Instant, nullable=False), Column("retired_at", Instant),
    Column("author", String, nullable=False), Column("created_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip


def store(
    connection: Connection, tenant: str, entries: Sequence[BookEntry], author: str, now: datetime
) -> tuple[list[BookEntry], list[BookEntry]]:
    """Add entries that hold from now on (`known_from`); one that says what a live entry says already is not added.

    Returns:
        All of `entries` as they are stored, in their order; and those of them that are new.

    Raises:
        ValueError: the tenant would have more entries than it may have.
    """
    live = {_identity(body(entry)): entry for _, entry in stored(connection, tenant)}
    missing = {_identity(body(entry)) for entry in entries} - live.keys()
    if len(live) + len(missing) > MOST_ENTRIES:
        raise ValueError(
            f"there would be {len(live) + len(missing):,} price entries, where {MOST_ENTRIES:,} may be: "
            "retire those that no call needs, or match several models with one pattern"
        )
    new = []
    for entry in entries:
        key = _identity(body(entry))
        if key in live:
            continue
        row = {
            "tenant": tenant, "kind": entry.kind, "body": body(entry), "effective_from": entry.effective_from,
            "effective_to": entry.effective_to, "known_from": now, "author": author,
            "created_at": now,
        }  # fmt: skip
        made = connection.execute(insert(price_entries).values(row)).inserted_primary_key
        live[key] = replace(entry, id=int(made[0]) if made else None, known_from=now, author=author, retired_at=None)
        new.append(live[key])
    return [live[_identity(body(entry))] for entry in entries], new


def retire(connection: Connection, tenant: str, entry_id: int, now: datetime) -> BookEntry | None:
    """End a live entry now: prices told from now on do without it. None when the tenant has no live one of that id."""
    found = [entry for _, entry in stored(connection, tenant) if entry.id == entry_id]
    if not found:
        return None
    here = price_entries.c.id == entry_id
    connection.execute(update(price_entries).where(here).values(retired_at=now))
    return replace(found[0], retired_at=now)


def stored(
    connection: Connection, tenant: str | None, *, retired: bool = False, ids: Collection[int] | None = None
) -> list[tuple[str, BookEntry]]:
    """(tenant, entry) in the order they were added.

    Args:
        connection: to the control plane.
        tenant: whose; all tenants when none is named.
        retired: those too that were retired.
        ids: only these.
    """
    asked = select(price_entries).order_by(price_entries.c.tenant, price_entries.c.id)
    if tenant is not None:
        asked = asked.where(price_entries.c.tenant == tenant)
    if not retired:
        asked = asked.where(price_entries.c.retired_at.is_(None))
    found = [dict(row) for row in connection.execute(asked).mappings()]
    return [(row["tenant"], _entry(row)) for row in found if ids is None or row["id"] in ids]


def stamp(connection: Connection) -> tuple[int, int]:
    """Two numbers of which one is another whenever any tenant's entries are."""
    newest, retired = func.max(price_entries.c.id), func.count(price_entries.c.retired_at)
    row = connection.execute(select(func.coalesce(newest, 0), retired)).one()
    return int(row[0]), int(row[1])


def body(entry: BookEntry) -> dict[str, Any]:
    """What an entry says, as JSON, without what it is given when it is stored."""
    from millicent.pricing.entries import STORED, written  # noqa: PLC0415 - needs polars; see `rules._check_pattern`

    return {name: value for name, value in written(entry).items() if name not in STORED}


def _entry(row: dict[str, Any]) -> BookEntry:
    from millicent.pricing.entries import read  # noqa: PLC0415 - likewise

    return replace(read(row["body"]), **{name: row[name] for name in ("id", "author", "known_from", "retired_at")})


def _identity(told: dict[str, Any]) -> str:
    return repr(sorted(told.items()))
