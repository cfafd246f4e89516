"""Endpoints: where events are sent. Their addresses and secrets are sealed, so that neither the database nor a backup
of it opens a door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Collection

    from millicent.warehouse.control import Control

Kind = Literal["webhook", "slack", "teams", "pagerduty", "alertmanager", "smtp"]
OVERLAP: Final = timedelta(hours=24)
"""How long a replaced secret of a webhook signs beside the new one."""


class BadEndpointError(ValueError):
    """An endpoint that cannot be; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where events are sent, as it may be shown.

    Attributes:
        id: `ep_…`.
        name: unlike that of any other endpoint of the tenant that has not ended.
        kind: what it understands.
        shown: its address without what is secret in it.
        types: of events that it wants; none: all.
        enabled: whether anything is sent; what waits for it is kept.
        reason: why it is not enabled.
        author: who set it last.
        created_at: when it was first set.
        ended_at: when it was taken away.
    """

    id: str
    name: str
    kind: Kind
    shown: str
    types: tuple[str, ...] = ()
    enabled: bool = True
    reason: str | None = None
    author: str
    created_at: datetime
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """An endpoint opened: its address, and its secrets, newest first. Never shown, logged or stored like this."""

    kind: Kind
    address: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Made:
    """An endpoint, and the secret that was made for it, which is shown once; None where none was made."""

    endpoint: Endpoint
    secret: str | None = field(repr=False, default=None)


def put(
    control: Control, tenant: str, name: str, kind: Kind, address: str, actor: str, *,
    types: Collection[str] = (), secret: str | None = None,
) -> Made:  # fmt: skip
    """Set an endpoint, or change the one of that name; a webhook without a `secret` is given one of 32 random bytes.

    What holds already is not stored again. A changed address keeps the secrets that there are.

    Raises:
        BadEndpointError: it cannot be, or there is no such tenant.
    """
    raise NotImplementedError


def rotate(control: Control, tenant: str, endpoint_id: str, actor: str, *, secret: str | None = None) -> Made:
    """Give an endpoint another secret; that of a webhook is made, and the old one signs for `OVERLAP` more."""
    raise NotImplementedError


def enable(control: Control, tenant: str, endpoint_id: str, actor: str) -> Endpoint:
    """Send again; what waited is due at once."""
    raise NotImplementedError


def disable(control: Control, tenant: str, endpoint_id: str, actor: str, reason: str) -> Endpoint:
    """Send nothing more; what is not delivered yet waits."""
    raise NotImplementedError


def end(control: Control, tenant: str, endpoint_id: str, actor: str) -> Endpoint:
    """Take an endpoint away; what waits for it is given up, and its log is kept."""
    raise NotImplementedError


def listed(control: Control, tenant: str) -> list[Endpoint]:
    """Every endpoint that has not ended, by name."""
    raise NotImplementedError


def find(control: Control, tenant: str, endpoint_id: str) -> Endpoint | None:
    """An endpoint by its id, one that has ended too."""
    raise NotImplementedError


def destination(control: Control, tenant: str, endpoint_id: str, now: datetime) -> Destination:
    """An endpoint opened, with the secrets that sign at an instant.

    Raises:
        BadEndpointError: there is none, or it was sealed under another pepper.
    """
    raise NotImplementedError
