"""What a workspace prefers: the time zone in which its days begin, its currency, its fiscal year, its trace viewer."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import JSON, Column, String, Table, insert, select

from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

LONGEST: Final = 1024
_CURRENCY: Final = re.compile(r"[A-Z]{3}")

workspace: Final = Table(
    "workspace", metadata,
    Column("tenant", String, primary_key=True), Column("preferences", JSON, nullable=False),
    Column("changed_at", Instant, nullable=False), Column("author", String, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Preferences of a tenant; everybody may look in another time zone or currency by the address of a page.

    Attributes:
        time_zone: IANA name; report days begin at its midnight. What is stored is UTC.
        currency: ISO 4217 code in which amounts are shown; what is stored is USD.
        fiscal_month: month, 1 to 12, in which the fiscal year begins.
        trace_viewer: address of a trace elsewhere, with `{trace_id}` and perhaps `{span_id}` in it; None: no link.

    Raises:
        ValueError: naming the value, the rule and the remedy.
    """

    time_zone: str = "UTC"
    currency: str = "USD"
    fiscal_month: int = 1
    trace_viewer: str | None = None

    def __post_init__(self) -> None:
        zone(self.time_zone)
        if not _CURRENCY.fullmatch(self.currency):
            raise ValueError(f"currency {self.currency!r} is not three capital letters: write USD, EUR or another code")
        if not 1 <= self.fiscal_month <= 12:
            raise ValueError(f"fiscal_month {self.fiscal_month} is no month: write 1 for January to 12 for December")
        if self.trace_viewer is not None:
            _check_viewer(self.trace_viewer)

    def trace_link(self, trace_id: str, span_id: str) -> str | None:
        """Address of a call in the trace viewer; ids in lower-case hex."""
        if self.trace_viewer is None:
            return None
        return self.trace_viewer.replace("{trace_id}", quote(trace_id)).replace("{span_id}", quote(span_id))


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time zone {name!r} is unknown: write an IANA name such as Europe/Berlin, or UTC") from error


def preferences(control: Control, tenant: str) -> Workspace:
    """What a tenant prefers."""
    asked = select(workspace.c.preferences).where(workspace.c.tenant == tenant)
    with control.begin() as connection:
        found: dict[str, Any] | None = connection.execute(asked).scalar_one_or_none()
    return Workspace(**found) if found else Workspace()


def prefer(control: Control, tenant: str, wanted: Workspace, actor: str) -> None:
    """Have a tenant prefer that from now on; the audit log keeps what was before."""
    with control.change(tenant, actor) as change:
        mine = workspace.c.tenant == tenant
        before = change.connection.execute(select(workspace.c.preferences).where(mine)).scalar_one_or_none()
        change.connection.execute(workspace.delete().where(mine))
        row = {"tenant": tenant, "preferences": asdict(wanted), "changed_at": datetime.now(UTC), "author": actor}
        change.connection.execute(insert(workspace).values(row))
        change.record("workspace.prefer", {"before": before, "after": asdict(wanted)})


def _check_viewer(address: str) -> None:
    told = f"trace_viewer {address[:80]!r}"
    if len(address) > LONGEST:
        raise ValueError(f"trace_viewer is {len(address):,} characters long: write at most {LONGEST:,}")
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise ValueError(f"{told} is no address ({error}): write https://… with {{trace_id}} in it") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{told} is no web address: write https://… with {{trace_id}} in it")
    if "{trace_id}" not in address or "{trace_id}" in parts.netloc or "{span_id}" in parts.netloc:
        raise ValueError(f"{told} has no {{trace_id}} in its path or query: write it where the trace id goes")
