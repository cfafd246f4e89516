"""Whom the example company's alerts are told: a receiver on this machine, that takes what is signed by its secret."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from typing import Any, Final

from millicent.collector.webhooks import signing
from millicent.dashboard.settings import Settings
from millicent.warehouse import endpoints
from millicent.warehouse.control import DEFAULT_TENANT, Control
from millicent.warehouse.outbox import Event

NAME: Final = "Demo receiver"
HOST: Final = "127.0.0.1"
MOST_BYTES: Final = 64 << 10


class Receiver(ThreadingHTTPServer):
    """Listens on a port of its own; `heard` gets every event that was signed, once.

    Attributes:
        secret: that senders sign with.
    """

    daemon_threads = True

    def __init__(self, heard: Callable[[dict[str, Any]], None]) -> None:
        super().__init__((HOST, 0), _Handler)
        self.secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
        self._heard, self._known, self._lock = heard, set[str](), threading.Lock()

    def take(self, headers: dict[str, str], body: bytes) -> HTTPStatus:
        """What to answer to a request."""
        try:
            event = json.loads(body)
            told = Event(id=headers["webhook-id"], tenant=DEFAULT_TENANT, type=event["type"], alert=None,
                         occurred_at=datetime.now(UTC), body=body.decode())  # fmt: skip
            at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
            signed = signing.signature(told, self.secret, at)
        except (ValueError, LookupError, TypeError):
            return HTTPStatus.BAD_REQUEST
        if not any(hmac.compare_digest(signed, one) for one in headers.get("webhook-signature", "").split()):
            return HTTPStatus.UNAUTHORIZED
        with self._lock:
            new = told.id not in self._known
            self._known.add(told.id)
        if new:
            self._heard(event)
        return HTTPStatus.NO_CONTENT


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Take an event."""
        size = int(self.headers.get("content-length") or 0)
        fits = 0 < size <= MOST_BYTES
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.take(headers, self.rfile.read(size)) if fits else HTTPStatus.BAD_REQUEST)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *told: object) -> None:
        """Say nothing of requests."""


@contextmanager
def listening(heard: Callable[[dict[str, Any]], None]) -> Iterator[Receiver]:
    """A receiver, as long as the block lasts."""
    made = Receiver(heard)
    thread = threading.Thread(target=made.serve_forever, name="demo receiver")
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def reaching(settings: Settings) -> Settings:
    """The same settings, by which this machine may be told, too."""
    networks = (*settings.webhook_allow, ip_network(f"{HOST}/32"))
    return settings.model_copy(update={"webhook_allow": networks, "webhook_allow_http": True})


def subscribe(control: Control, settings: Settings, receiver: Receiver) -> None:
    """Have alerts go to a receiver."""
    endpoints.put(
        control, DEFAULT_TENANT, NAME, "webhook", f"http://{HOST}:{receiver.server_port}/alerts", "demo",
        secret=receiver.secret, check=endpoints.within(settings.reach),
    )  # fmt: skip
