"""Saved views: addresses of pages under a name, for oneself, for everybody, or as what a page opens with."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from sqlalchemy import Column, Integer, String, Table, delete, func, insert, or_, select, update

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

    from millicent.warehouse.control import Control

Audience = Literal["private", "team", "default"]
"""Its owner alone, everybody of the tenant, or everybody whenever they open the page at its plain address."""
MOST: Final = 500
LONGEST_NAME: Final = 80
LONGEST_SEARCH: Final = 8_000
_PATH: Final = re.compile(r"/[a-z]{0,40}")

saved_views: Final = Table(
    "saved_views", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("path", String, nullable=False), Column("name", String, nullable=False),
    Column("search", String, nullable=False), Column("audience", String, nullable=False),
    Column("owner", String, nullable=False), Column("created_at", Instant, nullable=False),
    Column("used_at", Instant), sqlite_autoincrement=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedView:
    """A view of a page; `search` is its query string with its `?`, empty for the plain page.

    `id` is 0 and `created_at` None before it is saved; `used_at` is None until somebody opens it. Instants are UTC.

    Raises:
        ValueError: naming the value, the rule and the remedy.
    """

    path: str
    name: str
    search: str
    audience: Audience = "private"
    owner: str = ""
    id: int = 0
    created_at: datetime | None = None
    used_at: datetime | None = None

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"path {self.path[:60]!r} is no page: write its address, such as /explore")
        if not self.name.strip() or len(self.name) > LONGEST_NAME or not self.name.isprintable():
            told = f"name {self.name[:90]!r} is empty, longer than {LONGEST_NAME} or not one line"
            raise ValueError(f"{told}: write another")
        if (self.search and not self.search.startswith("?")) or not self.search.isprintable():
            raise ValueError(f"search {self.search[:60]!r} is no query string: write it with its ?, or leave it empty")
        if len(self.search) > LONGEST_SEARCH:
            raise ValueError(f"search is {len(self.search):,} characters long: write at most {LONGEST_SEARCH:,}")
        if self.audience not in get_args(Audience):
            raise ValueError(f"audience {self.audience!r} is unknown: choose from {', '.join(get_args(Audience))}")

    @property
    def address(self) -> str:
        """Where it leads."""
        return f"{self.path}{self.search}"


def views(control: Control, tenant: str, reader: str, path: str | None = None) -> list[SavedView]:
    """What `reader` may open, of one page or of all: by page, the default first, then by name."""
    asked = select(saved_views).where(saved_views.c.tenant == tenant, _open_to(reader))
    if path is not None:
        asked = asked.where(saved_views.c.path == path)
    with control.begin() as connection:
        found = [_read(row) for row in connection.execute(asked)]
    return sorted(found, key=lambda one: (one.path, one.audience != "default", one.name.casefold(), one.id))


def save(control: Control, tenant: str, wanted: SavedView, actor: str) -> SavedView:
    """Keep a view as one of `actor`; one of theirs of that name on that page is replaced, a former default is shared.

    Raises:
        ValueError: the tenant has as many as can be kept.
    """
    kept = replace(wanted, owner=actor, created_at=datetime.now(UTC), used_at=None, name=wanted.name.strip())
    of_page = (saved_views.c.tenant == tenant) & (saved_views.c.path == kept.path)
    with control.change(tenant, actor) as change:
        connection = change.connection
        connection.execute(
            delete(saved_views).where(of_page, saved_views.c.owner == actor, saved_views.c.name == kept.name)
        )
        if _count(connection, tenant) >= MOST:
            raise ValueError(f"there are {MOST} saved views already: delete one that nobody opens")
        if kept.audience == "default":
            former = update(saved_views).where(of_page, saved_views.c.audience == "default")
            connection.execute(former.values(audience="team"))
        row = {"tenant": tenant, "path": kept.path, "name": kept.name, "search": kept.search,
               "audience": kept.audience, "owner": actor, "created_at": kept.created_at}  # fmt: skip
        made = connection.execute(insert(saved_views).values(row)).inserted_primary_key
        change.record("views.save", {"path": kept.path, "name": kept.name, "audience": kept.audience})
    return replace(kept, id=made[0] if made else 0)


def opened(control: Control, tenant: str, reader: str, view_id: int) -> None:
    """Note that a view was opened now; nothing where there is none that `reader` may open."""
    with control.begin() as connection:
        connection.execute(
            update(saved_views)
            .where(saved_views.c.tenant == tenant, saved_views.c.id == view_id, _open_to(reader))
            .values(used_at=datetime.now(UTC))
        )


def remove(control: Control, tenant: str, view_id: int, actor: str, *, operates: bool) -> SavedView:
    """Delete a view: one's own, or with `operates` one that everybody sees.

    Raises:
        LookupError: there is none of that id that `actor` may open.
        PermissionError: it is another's.
    """
    with control.change(tenant, actor) as change:
        mine = (saved_views.c.tenant == tenant) & (saved_views.c.id == view_id)
        row = change.connection.execute(select(saved_views).where(mine, _open_to(actor))).one_or_none()
        if row is None:
            raise LookupError(f"there is no saved view {view_id}: GET lists those that there are")
        gone = _read(row)
        if gone.owner != actor and not operates:
            raise PermissionError(f"saved view {view_id} is of {gone.owner}: ask them, or an operator, to delete it")
        change.connection.execute(delete(saved_views).where(mine))
        change.record("views.remove", {"path": gone.path, "name": gone.name, "audience": gone.audience})
    return gone


def _open_to(reader: str) -> ColumnElement[bool]:
    return or_(saved_views.c.owner == reader, saved_views.c.audience != "private")


def _count(connection: Connection, tenant: str) -> int:
    asked = select(func.count()).select_from(saved_views).where(saved_views.c.tenant == tenant)
    return int(connection.execute(asked).scalar_one())


def _read(row: Row[tuple[object, ...]]) -> SavedView:
    told = row._mapping  # noqa: SLF001 - SQLAlchemy's public way to read a row by name
    return SavedView(
        id=told["id"], path=told["path"], name=told["name"], search=told["search"],
        audience=cast("Audience", told["audience"]), owner=told["owner"], created_at=told["created_at"],
        used_at=told["used_at"],
    )  # fmt: skip
