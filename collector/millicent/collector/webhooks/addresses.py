"""The one way out to endpoints: every address that a name leads to is checked, and the one checked is connected to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from millicent.warehouse.reach import Reach

TIMEOUT_S: Final = 20.0


class NotSentError(Exception):
    """There was no answer; the message says why. A failed attempt, and the next one may work."""


class Outgoing(NamedTuple):
    """A request to an endpoint."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Answered(NamedTuple):
    """What came back.

    Attributes:
        status: Of HTTP; of a mail server, whose codes from 200 to 299 also mean that it took it.
        headers: Their names in lower case.
        text: How the body begins, 500 characters at most.
    """

    status: int
    headers: Mapping[str, str]
    text: str


class GuardedClient:
    """Sends requests to addresses that somebody else chose: no redirects, no proxies, an answer read in part.

    Args:
        reach: What may be reached.
        timeout_s: For all of it: name, connection, TLS, request and answer.
    """

    def __init__(self, reach: Reach, timeout_s: float = TIMEOUT_S) -> None:
        self._reach, self._timeout_s = reach, timeout_s

    def send(self, request: Outgoing) -> Answered:
        """Send one request.

        Raises:
            ForbiddenAddressError: endpoints may not reach its address; nothing was connected to.
            NotSentError: no answer came.
        """
        raise NotImplementedError
