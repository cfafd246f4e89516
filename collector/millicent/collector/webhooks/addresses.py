"""The one way out to endpoints: every address that a name leads to is checked, and the one checked is connected to.

A name is resolved once. Where one of its addresses is refused, nothing is connected to, and what is connected to is
an address that was checked, never the name again, so that a name server which answers otherwise the second time gains
nothing. The certificate is still asked for by name.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

import httpx

from millicent.warehouse.reach import Address, Reach, Target

TIMEOUT_S: Final = 20.0
MOST_TEXT: Final = 500
"""Characters of an answer that are kept."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a name, all of them; OSError where there is none."""
Connect = Callable[[str, int, float], socket.socket]
"""A connection to an address and port, within seconds; OSError where there is none."""


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
        text: How the body begins, 500 characters at most, on one line.
    """

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A connection to an address that was checked, and until when it is open, in seconds of the monotonic clock."""

    socket: socket.socket
    until: float


class GuardedClient:
    """Sends to addresses that somebody else chose: no redirects, no proxies, no cookies, an answer read in part.

    Args:
        reach: What may be reached.
        timeout_s: For all of it: name, connection, TLS, request and answer, however slowly they come.
        tls: Which certificates are trusted; those that the system or `SSL_CERT_FILE` names, unless given.
        resolve: How names become addresses.
        connect: How addresses become connections.
    """

    def __init__(
        self, reach: Reach, timeout_s: float = TIMEOUT_S, *, tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None, connect: Connect | None = None,
    ) -> None:  # fmt: skip
        self.reach = reach
        self.timeout_s = timeout_s
        self.tls = tls or httpx.create_ssl_context()
        self._resolve = resolve or _resolve
        self._connect = connect or _connect

    def send(self, request: Outgoing) -> Answered:
        """Send one request and read how its answer begins.

        Raises:
            ForbiddenAddressError: endpoints may not reach its address; nothing was connected to.
            NotSentError: no answer came.
        """
        to = self.reach.target(request.url)
        with self.line(to) as line, _named(to, line.until):
            connection = HTTPConnection(to.host, to.port)
            connection.auto_open = 0  # never to a name
            connection.sock = self.secured(line.socket, to) if to.scheme == "https" else line.socket
            try:
                connection.putrequest(request.method, to.path, skip_host=True, skip_accept_encoding=True)
                own = {"host": to.authority, "content-length": str(len(request.body)), "connection": "close"}
                for name, value in (
                    own | {name.lower(): value for name, value in request.headers.items()} | own
                ).items():
                    connection.putheader(name, value)
                connection.endheaders(request.body)
                with connection.getresponse() as response:
                    return _answered(response)
            finally:
                connection.close()

    @contextmanager
    def line(self, to: Target) -> Iterator[Line]:
        """A connection to where a target leads, shut when the time is up, whatever goes on then.

        Raises:
            ForbiddenAddressError: endpoints may not reach one of its addresses; nothing was connected to.
            NotSentError: its name leads nowhere, or nobody answers there.
        """
        until = time.monotonic() + self.timeout_s
        addresses = self._addresses(to, until)
        found = self._connected(to, addresses, until)
        twin = found.dup()  # stays the same connection when TLS takes the first over
        alarm = threading.Timer(max(0.0, until - time.monotonic()), _shut, (twin,))
        alarm.daemon = True
        alarm.start()
        try:
            yield Line(found, until)
        finally:
            alarm.cancel()
            alarm.join()
            twin.close()
            found.close()

    def secured(self, line: socket.socket, to: Target) -> ssl.SSLSocket:
        """TLS over a connection, with a certificate for the name that was asked for.

        Raises:
            OSError: there is none.
        """
        return self.tls.wrap_socket(line, server_hostname=to.host)

    def _addresses(self, to: Target, until: float) -> list[Address]:
        """Every address of a target, each of them checked."""
        with suppress(ValueError):
            literal = ip_address(to.host)
            self.reach.check(literal, to.host)
            return [literal]
        answer: SimpleQueue[Sequence[str] | OSError] = SimpleQueue()
        threading.Thread(target=self._look_up, args=(to, answer), name="millicent-names", daemon=True).start()
        try:
            found = answer.get(timeout=max(0.0, until - time.monotonic()))
        except Empty as error:
            raise NotSentError(f"{to.host} was not resolved within {self.timeout_s:g} s") from error
        if isinstance(found, OSError):
            raise NotSentError(f"{to.host} has no address: {found.strerror or found}") from found
        addresses = [ip_address(one) for one in dict.fromkeys(found)]
        if not addresses:
            raise NotSentError(f"{to.host} has no address")
        for address in addresses:
            self.reach.check(address, to.host)
        return addresses

    def _look_up(self, to: Target, answer: SimpleQueue[Sequence[str] | OSError]) -> None:
        try:
            answer.put(self._resolve(to.host, to.port))
        except OSError as error:
            answer.put(error)
        except UnicodeError as error:
            answer.put(OSError(str(error)))

    def _connected(self, to: Target, addresses: Sequence[Address], until: float) -> socket.socket:
        failed: OSError | None = None
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                found = self._connect(str(address), to.port, left / 2 if address is not addresses[-1] else left)
            except OSError as error:
                failed = error
                continue
            found.settimeout(self.timeout_s)
            return found
        why = (failed.strerror or str(failed)) if failed else f"nobody answered within {self.timeout_s:g} s"
        raise NotSentError(f"{to.authority} cannot be connected to: {why}") from failed


@contextmanager
def _named(to: Target, until: float) -> Iterator[None]:
    """Say what went wrong with an exchange."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise NotSentError(f"{to.authority} has no certificate that is trusted: {error.verify_message}") from error
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= until or isinstance(error, TimeoutError):
            raise NotSentError(f"{to.authority} did not answer in time") from error
        raise NotSentError(f"{to.authority} did not answer: {str(error) or type(error).__name__}") from error


def _answered(response: HTTPResponse) -> Answered:
    """What came back: its head, and of its body what came first."""
    body = b""
    with suppress(OSError, HTTPException):  # the head is an answer
        body = response.read1(4 * MOST_TEXT)
    text = "".join(letter if letter.isprintable() else " " for letter in body.decode(errors="replace"))
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answered(response.status, headers, text.strip()[:MOST_TEXT])


def _resolve(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _connect(address: str, port: int, timeout_s: float) -> socket.socket:
    return socket.create_connection((address, port), timeout_s)


def _shut(twin: socket.socket) -> None:
    with suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)
