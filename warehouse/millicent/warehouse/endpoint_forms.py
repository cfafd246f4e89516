"""What an endpoint of each kind is told by: how its address is written, and the secret that lets us in."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import unquote

from millicent.warehouse.reach import ForbiddenAddressError, Reach, Target

Kind = Literal["webhook", "slack", "teams", "pagerduty", "alertmanager", "smtp"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PAGERDUTY: Final = "https://events.pagerduty.com/v2/enqueue"
"""Where PagerDuty takes events, unless an account is in Europe."""
MOST_TO: Final = 20
"""People that one endpoint writes mail to."""


class BadEndpointError(ValueError):
    """An endpoint that cannot be; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An endpoint opened: its address, and its secrets, newest first. Never shown, logged or stored like this.

    Attributes:
        kind: What is spoken there.
        address: `https://…`; of `smtp`: `smtps://mail.example.com?from=a@example.com&to=b@example.com,c@example.com`.
        secrets: Of `webhook`: what requests are signed with, `whsec_…`. Of `pagerduty`: its routing key. Of
            `alertmanager`: a bearer token, if it asks for one. Of `smtp`: `user:password`, if it asks for them. The
            others have none: their address is the secret.
    """

    kind: Kind
    address: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, default=())


class Letterbox(NamedTuple):
    """What the address of a mail endpoint says: who writes, and to whom."""

    sender: str
    to: tuple[str, ...]


def check(kind: str, address: str, secret: str | None, reach: Reach) -> None:
    """Refuse an endpoint that cannot be told anything; names are not resolved here, nor is anything asked.

    Raises:
        BadEndpointError: its kind, address or secret cannot be.
    """
    if kind not in KINDS:
        raise BadEndpointError(f"kind {kind[:40]!r} is unknown: write {', '.join(KINDS)}")
    try:
        found = target(kind, address, reach)
    except ForbiddenAddressError as error:
        raise BadEndpointError(str(error)) from error
    if form := _FORMS.get(kind):
        form(found)
    rule = _SECRETS[kind]
    if secret is None and rule.needed:
        raise BadEndpointError(f"{kind} needs a secret: {rule.remedy}")
    if secret is not None and not (rule.form and rule.form.fullmatch(secret)):
        raise BadEndpointError(f"the secret of {kind} is not what it takes: {rule.remedy}")
    if secret is not None and kind == "webhook" and not 24 <= len(_decoded(secret)) <= 64:
        raise BadEndpointError(f"the secret of webhook is not what it takes: {rule.remedy}")


def target(kind: str, address: str, reach: Reach) -> Target:
    """The address of an endpoint, taken apart.

    Raises:
        ForbiddenAddressError: it is written in a way that is refused, or leads where endpoints may not go.
    """
    return reach.target(address, ("smtps", "smtp") if kind == "smtp" else ("https", "http"))


def shown(kind: str, address: str) -> str:
    """An address without what may be secret in it: host and port, and of mail who gets it."""
    found = _HOST.match(address)
    host = found[0] if found else ""
    if kind == "smtp" and found:
        to = dict(_pairs(address.partition("?")[2])).get("to", "")
        return f"{host} to {to.replace(',', ', ')}"
    return address if address == PAGERDUTY else f"{host}/…"


def letterbox(found: Target) -> Letterbox:
    """Who writes mail to whom.

    Raises:
        BadEndpointError: the address does not say it, or not in a form that is taken.
    """
    asked = dict(_pairs(found.path.partition("?")[2]))
    sender, to = asked.pop("from", ""), tuple(one.strip() for one in asked.pop("to", "").split(","))
    if asked or found.path.partition("?")[0] != "/":
        raise BadEndpointError("the address of a mail server has something beside from and to: write " + _MAIL)
    for one in (sender, *to):
        if len(one) > _LONGEST_MAIL or not _MAILBOX.fullmatch(one):
            raise BadEndpointError(f"{one[:60]!r} is no mail address that is taken, in ASCII letters: write {_MAIL}")
    if len(to) > MOST_TO:
        raise BadEndpointError(f"mail would go to {len(to)} people: name at most {MOST_TO}, or a distribution list")
    return Letterbox(sender, to)


class _Secret(NamedTuple):
    needed: bool
    form: re.Pattern[str] | None
    remedy: str


def _slack(found: Target) -> None:
    if found.host == "hooks.slack.com" and not re.fullmatch(r"/services/\w+/\w+/\w+", found.path, re.ASCII):
        raise BadEndpointError(
            "hooks.slack.com takes messages at /services/T…/B…/…: copy the whole address of the incoming webhook from "
            "the page of the Slack app"
        )


def _teams(found: Target) -> None:
    if found.host.endswith(".webhook.office.com") or found.host == "outlook.office.com":
        raise BadEndpointError(
            f"{found.host} is a connector of Office 365, which Microsoft retired: make a workflow “Send webhook alerts "
            "to a channel” in Teams, and give its address"
        )
    if found.host.endswith((".logic.azure.com", ".powerplatform.com")) and "sig=" not in found.path:
        raise BadEndpointError(
            f"the address at {found.host} has no sig=…, so that the workflow would refuse it: copy the whole address"
        )


def _pagerduty(found: Target) -> None:
    if found.path != "/v2/enqueue":
        raise BadEndpointError(
            f"PagerDuty takes events at /v2/enqueue: write {PAGERDUTY}, or https://events.eu.pagerduty.com/v2/enqueue "
            "for an account in Europe"
        )


def _smtp(found: Target) -> None:
    letterbox(found)


def _decoded(secret: str) -> bytes:
    try:
        return b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return b""


def _pairs(query: str) -> list[tuple[str, str]]:
    """Names and values of a query; a plus sign is one, since mail addresses have them."""
    parts = (one.partition("=") for one in query.split("&") if one)
    return [(unquote(name), unquote(value)) for name, _, value in parts]


_FORMS: Final[dict[str, Callable[[Target], None]]] = {
    "slack": _slack, "teams": _teams, "pagerduty": _pagerduty, "smtp": _smtp,
}  # fmt: skip
_SECRETS: Final[dict[str, _Secret]] = {
    "webhook": _Secret(
        needed=False, form=re.compile(r"whsec_[A-Za-z0-9+/]+=*", re.ASCII),
        remedy="leave it out, and one is made, or write whsec_ and 24 to 64 random bytes in base64",
    ),
    "slack": _Secret(needed=False, form=None, remedy="leave it out, since its address is the secret"),
    "teams": _Secret(needed=False, form=None, remedy="leave it out, since its address is the secret"),
    "pagerduty": _Secret(
        needed=True, form=re.compile(r"[A-Za-z0-9]{32}", re.ASCII),
        remedy="copy the integration key of an integration “Events API V2”, 32 letters and digits",
    ),
    "alertmanager": _Secret(
        needed=False, form=re.compile(r"[\x21-\x7e]{1,1024}", re.ASCII),
        remedy="leave it out, or write the bearer token that it asks for, without blanks",
    ),
    "smtp": _Secret(
        needed=False, form=re.compile(r"[\x21-\x39\x3b-\x7e]{1,256}:[\x20-\x7e]{1,256}", re.ASCII),
        remedy="leave it out, or write user:password in ASCII letters",
    ),
}  # fmt: skip
_HOST: Final = re.compile(r"[A-Za-z]{1,8}://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]+)?", re.ASCII)
_MAIL: Final = "smtps://mail.example.com?from=millicent@example.com&to=ann@example.com,bob@example.com"
_LONGEST_MAIL: Final = 254
_MAILBOX: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*",
    re.ASCII,
)
