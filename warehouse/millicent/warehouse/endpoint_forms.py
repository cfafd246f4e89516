"""What an endpoint of each kind is told by: how its address is written, and what it asks for to let us in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from millicent.warehouse.reach import Reach, Target

Kind = Literal["webhook", "slack", "teams", "pagerduty", "alertmanager", "smtp"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PAGERDUTY: Final = "https://events.pagerduty.com/v2/enqueue"
"""Where PagerDuty takes events, unless an account is in Europe."""


class BadEndpointError(ValueError):
    """An endpoint that cannot be told anything; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an endpoint is and what opens it; kept sealed, since an address can be a secret by itself.

    Attributes:
        kind: What is spoken there.
        address: `https://…`; of `smtp`: `smtps://mail.example.com?from=a@example.com&to=b@example.com,c@example.com`.
        signing: Of `webhook`: secrets that requests are signed with, `whsec_…`, the newest first.
        credentials: Of `pagerduty`: `routing_key`. Of `alertmanager`: `token`, if it asks for one. Of `smtp`: `user`
            and `password`, if it asks for them.
    """

    kind: Kind
    address: str = field(repr=False)
    signing: tuple[str, ...] = field(default=(), repr=False)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)


def check(one: Destination, reach: Reach) -> None:
    """Refuse a destination that cannot be told anything; names are not resolved here.

    Raises:
        BadEndpointError: its kind, address or credentials cannot be.
    """
    raise NotImplementedError


def target(one: Destination, reach: Reach) -> Target:
    """The address of a destination, taken apart.

    Raises:
        ForbiddenAddressError: it is written in a way that is refused, or leads where endpoints may not go.
    """
    return reach.target(one.address, ("smtps", "smtp") if one.kind == "smtp" else ("https", "http"))


def shown(one: Destination) -> str:
    """The address without what is secret in it: scheme, host and port, and of mail who gets it."""
    raise NotImplementedError
