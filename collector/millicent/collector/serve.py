"""The receiver as a process: two ports, one spool, one event loop; there within a second, gone within three."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from millicent.collector import rpc
from millicent.collector.receiver import Receiver
from millicent.collector.spool import SpoolFailedError

HEADER_SECONDS = 10.0
HEADER_BYTES = 64 * 1024
KEEP_ALIVE_SECONDS = 75  # longer than the pause between two exports, so that no export meets a closing connection
STOP_SECONDS = 3  # stock exporters give up after ten


class Listening(NamedTuple):
    """Where requests are accepted."""

    host: str
    port: int  # OTLP over HTTP, and calls in JSON
    grpc_port: int | None  # OTLP over gRPC


Ready = Callable[[Listening], object]


def serve(
    app: Receiver,
    *,
    host: str = "127.0.0.1",
    port: int = 4318,
    grpc_port: int | None = None,
    ready: Ready | None = None,
    parent: int | None = None,
) -> None:
    """Receive on `host` until SIGTERM, SIGINT or the end of the parent; then finish, and return.

    Args:
        app: Its spool is the caller's to close.
        host: Address to bind.
        port: Of OTLP over HTTP; 0 takes any free one.
        grpc_port: Of OTLP over gRPC; 0 takes any free one, None leaves gRPC out.
        ready: Called once requests are accepted.
        parent: A file descriptor that becomes readable when the parent process is gone, however it went: 0 in a
            child started with `stdin=PIPE`, `multiprocessing.parent_process().sentinel` in one started that way.

    Raises:
        OSError: An address is taken.
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
            runner.run(_run(_Server(config), listener, app, grpc_port, ready, parent))
    if app.spool.failure is not None:
        raise SpoolFailedError(f"the spool in {app.spool.directory} failed: start again") from app.spool.failure


async def _run(
    server: "_Server",
    listener: socket.socket,
    app: Receiver,
    grpc_port: int | None,
    ready: Ready | None,
    parent: int | None,
) -> None:
    def stop(*_: object) -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    host, port = listener.getsockname()[:2]
    if grpc_port is not None:
        server.beside, grpc_port = await rpc.start(app, host, grpc_port)
    server.when_started = lambda: ready(Listening(host, port, grpc_port)) if ready else None
    failure = asyncio.create_task(app.spool.failed())
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
    """Says when it accepts, ends the gRPC server too, and returns after a signal instead of raising it once more."""

    when_started: Callable[[], object]
    beside: Any = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        rest = [self.beside.stop(STOP_SECONDS)] if self.beside else []
        await asyncio.gather(super().shutdown(sockets), *rest)

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
