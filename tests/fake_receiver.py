"""A receiver of webhooks: verifies with the independent `standardwebhooks` library, and answers as it is told."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from unittest.mock import patch

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class Received(NamedTuple):
    """A request that came in; `event` is what the library made of it, None where it was not verified."""

    id: str
    headers: dict[str, str]
    body: bytes
    event: dict[str, Any] | None


class Receiver(ThreadingHTTPServer):
    """Listens on a port of its own as soon as it is made.

    Attributes:
        secrets: That it takes, any of them.
        requests: Every request, in order, refused ones too.
        answers: Status and headers by number of the request, from 0; 204 unless told.
        clock: What time it is here; the real one unless told.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, *secrets: str, port: int = 0, answers: Callable[[int], tuple[int, dict[str, str]]] | None = None
    ) -> None:
        self.secrets: Sequence[str] = secrets
        self.requests: list[Received] = []
        self.answers = answers or (lambda _: (204, {}))
        self.clock: Callable[[], datetime] | None = None
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks"

    def ids(self) -> Counter[str]:
        """How often each id came."""
        return Counter(one.id for one in self.requests)

    def verified(self, body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        for secret in self.secrets:
            with at(self.clock):
                try:
                    return Webhook(secret).verify(body, headers)
                except WebhookVerificationError:
                    continue
        return None

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            number = len(self.server.requests)
            event = self.server.verified(body, headers)
            self.server.requests.append(Received(headers.get("webhook-id", ""), headers, body, event))
        status, more = self.server.answers(number)
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - its name is that of the library

    def log_message(self, *args) -> None:
        pass


@contextmanager
def at(clock: Callable[[], datetime] | None):
    """Have the library believe a clock."""
    if clock is None:
        yield
        return

    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return clock().astimezone(tz)

    with patch("standardwebhooks.webhooks.datetime", Then):
        yield
