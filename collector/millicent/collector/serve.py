"""The receiver as a process: one socket, one spool, one event loop; there within a second, gone within three."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from millicent.collector.receiver import Receiver
from millicent.collector.spool import Spool, SpoolFailedError

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 75  # longer than the pause between two exports, so that no export meets a closing connection
STOP_SECONDS = 3  # stock exporters give up after ten


def serve(
    app: Receiver,
    *,
    host: str = "127.0.0.1",
    port: int = 4318,
    ready: Callable[[str, int], None] | None = None,
    parent: int | None = None,
) -> None:
    """Receive on `host` and `port` until SIGTERM, SIGINT or the end of the parent; then finish, and return.

    Args:
        app: Its spool is the caller's to close.
        host: Address to bind.
        port: 0 takes any free one.
        ready: Called with the address and the port once requests are accepted.
        parent: A file descriptor that becomes readable when the parent process is gone, however it went: 0 in a
            child started with `stdin=PIPE`, `multiprocessing.parent_process().sentinel` in one started that way.

    Raises:
        OSError: The address is taken.
        SpoolFailedError: A write or sync failed: start again, in a new process.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=2048) as listener:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(_Server(config), listener, app.spool, ready, parent))
    if app.spool.failure is not None:
        raise SpoolFailedError(f"the spool in {app.spool.directory} failed: start again") from app.spool.failure


async def _run(
    server: "_Server",
    listener: socket.socket,
    spool: Spool,
    ready: Callable[[str, int], None] | None,
    parent: int | None,
) -> None:
    def stop(*_: object) -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    address, port = listener.getsockname()[:2]
    server.when_started = lambda: ready(address, port) if ready else None
    failure = asyncio.create_task(spool.failed())
    failure.add_done_callback(stop)
    watched = parent if parent is None else os.dup(parent)
    if watched is not None:
        loop.add_reader(watched, stop)
    try:
        await server.serve([listener])
    finally:
        failure.cancel()
        if watched is not None:
            loop.remove_reader(watched)
            os.close(watched)


class _Server(uvicorn.Server):
    """Says when it accepts, and returns after a signal instead of raising it once more."""

    when_started: Callable[[], object]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.when_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


class _Protocol(HttpToolsProtocol):
    """uvicorn bounds neither the time nor the size of headers: here both end the connection."""

    _in_headers = True
    _header_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        self._bound_headers(b"")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:
            self._bound_headers(data)

    def on_message_begin(self) -> None:
        self._in_headers = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._header_bytes = 0
        self._forget_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _bound_headers(self, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            self.transport.close()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
