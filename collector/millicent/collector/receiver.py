"""OTLP over HTTP: authenticate, bound, check, put on the spool, acknowledge.

A plain ASGI application over bytes. What it answers 200 to is on disk.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from google.protobuf.message import DecodeError

from millicent.collector.limits import MIB, Limits, decompress, measure
from millicent.collector.otlp_pb2 import ExportServiceResponse, ExportTraceServiceRequest, PartialSuccess
from millicent.collector.refusals import (
    PROTOBUF,
    Answer,
    ForbiddenError,
    MalformedError,
    MethodError,
    NotFoundError,
    RefusedError,
    SlowError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from millicent.collector.spool import Spool, SpoolFailedError, SpoolFullError
from millicent.collector.telemetry import CONTENT_TYPE, Telemetry

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)

INLINE_BYTES = 256 * 1024  # larger bodies are checked in a thread, and those that expand to more than four times this
Policy = Literal["public", "ingest", "read"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key speaks for."""

    tenant: str
    key_id: str
    scopes: frozenset[Policy] = frozenset({"ingest"})  # the policies that it satisfies


# Headers by lower-case name → the owner of the key in them, or None where it is missing or unknown. Whatever it
# raises means that keys cannot be looked up now.
Authenticate = Callable[[Mapping[str, str]], Principal | None]


@dataclass(slots=True)
class Request:
    """One request on its way; `held` bytes of its body are in memory."""

    method: str
    path: str
    headers: Mapping[str, str]
    receive: "Receive"
    principal: Principal | None = None  # of routes that are not public
    held: int = 0


class _GoneError(Exception):
    """The client left before its request was complete."""


class Receiver:
    """The application on the OTLP port.

    Args:
        spool: Where requests are kept.
        authenticate: Asked with the headers, before any body is read.
        telemetry: Counted into, and served at `/metrics`.
        limits: Of one request.
        in_flight_bytes: Of bodies held at a time, over all requests.
        body_seconds: How long a body may take to arrive.
        append_seconds: How long a request may wait for the disk.
    """

    def __init__(
        self,
        spool: Spool,
        authenticate: Authenticate,
        telemetry: Telemetry,
        *,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        in_flight_bytes: int = 64 * MIB,
        body_seconds: float = 30.0,
        append_seconds: float = 5.0,
    ) -> None:
        self.spool = spool
        self._authenticate = authenticate
        self._telemetry = telemetry
        self._limits = limits
        self._inline_limits = replace(limits, expanded_bytes=min(4 * INLINE_BYTES, limits.expanded_bytes))
        self._in_flight_bytes = in_flight_bytes
        self._body_seconds = body_seconds
        self._append_seconds = append_seconds
        self._held = 0
        # One thread: of large bodies, one at a time is expanded and parsed, so what that takes needs no budget.
        self._checks = ThreadPoolExecutor(1, thread_name_prefix="check")
        telemetry.watch("millicent_receiver_in_flight_bytes", lambda: self._held)
        telemetry.watch("millicent_spool_spans", spool.total_spans)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"the OTLP port speaks HTTP, not {scope['type']!r}")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request = Request(scope["method"], scope["path"], headers, receive)
        signal = _SIGNALS.get(request.path, "none")
        try:
            answer = await self._handle(request)
        except _GoneError:
            self._telemetry.add("millicent_receiver_refused_total", 1, signal, "gone")
            return
        except Exception as error:
            if not isinstance(error, RefusedError):
                log.exception("a request to %r failed, its sender is asked to try again", request.path)
                error = UnavailableError("the receiver failed on this request: see its log", "internal")
            self._telemetry.add("millicent_receiver_refused_total", 1, signal, error.reason)
            answer = error.answer(_content_type(request))
        finally:
            self._held -= request.held
        self._telemetry.add("millicent_receiver_requests_total", 1, signal, str(answer.status))
        about = [(b"content-type", answer.content_type.encode()), (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": [*about, *answer.headers]})
        await send({"type": "http.response.body", "body": answer.body})

    async def _handle(self, request: Request) -> Answer:
        """Find the route and hold the request to its policy."""
        route = _ROUTES.get((request.method, request.path))
        if route is None:
            allowed = ", ".join(other.method for other in ROUTES if other.path == request.path)
            if allowed:
                raise MethodError(f"{request.path} does not take {request.method[:20]!r}: use {allowed}", allowed)
            served = ", ".join(other.path for other in ROUTES)
            raise NotFoundError(f"nothing is served at {request.path[:100]!r}: the paths are {served}")
        if route.policy != "public":
            request.principal = self._admit(request, route.policy)
        return await route.handler(self, request)

    def _admit(self, request: Request, policy: Policy) -> Principal:
        try:
            principal = self._authenticate(request.headers)
        except Exception as error:
            # Not 401, which is final: exporters would drop what a working key store lets in.
            log.exception("keys cannot be looked up")
            raise UnavailableError("keys cannot be looked up now: try again", "keys") from error
        if principal is None:
            raise UnauthenticatedError(
                "the key is missing or unknown: set OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20<key>"
            )
        if policy not in principal.scopes:
            raise ForbiddenError(f"key {principal.key_id!r} is not for {policy!r}: use one that is")
        return principal

    # ---- handlers

    async def traces(self, request: Request) -> Answer:
        """Put the request on the spool, then acknowledge it."""
        received_ns = time.time_ns()
        body, encoding, spans = await self._read(request, "traces")
        if spans:
            await self._append(body, encoding, spans, request, received_ns)
        return Answer(200, b"", PROTOBUF)

    async def metrics(self, request: Request) -> Answer:
        """Say that metrics are not read."""
        return await self._not_read(request, "metrics", "data points")

    async def logs(self, request: Request) -> Answer:
        """Say that logs are not read."""
        return await self._not_read(request, "logs", "log records")

    async def healthz(self, _: Request) -> Answer:
        """The process runs."""
        return Answer(200, b"ok\n", "text/plain")

    async def readyz(self, _: Request) -> Answer:
        """Requests are taken."""
        if self.spool.failure is not None:
            raise UnavailableError("a write to the spool failed: this process is about to end", "disk_failed")
        if not self.spool.has_room():
            raise UnavailableError("the disk is down to its reserve: free some space", "disk_full")
        return Answer(200, b"ready\n", "text/plain")

    async def own_metrics(self, _: Request) -> Answer:
        """This process in the Prometheus text format."""
        return Answer(200, self._telemetry.text(), CONTENT_TYPE)

    # ---- steps

    async def _read(self, request: Request, signal: str) -> tuple[bytes, str, int]:
        """The body as it came, its encoding, and how many spans (data points, log records) it holds."""
        content_type = _content_type(request)
        if content_type != PROTOBUF:
            raise UnsupportedError(
                f"Content-Type {content_type[:60]!r} is not read here: send {PROTOBUF} "
                "(OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf)"
            )
        encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
        limit = self._limits.expanded_bytes if encoding == "identity" else self._limits.compressed_bytes
        body = await self._body(request, limit)
        self._telemetry.add("millicent_receiver_received_bytes_total", len(body), signal)
        if len(body) <= INLINE_BYTES:
            with suppress(TooLargeError):  # or only too large to hold up the others
                return body, encoding, _check(body, encoding, signal, self._inline_limits)
        loop = asyncio.get_running_loop()
        return body, encoding, await loop.run_in_executor(self._checks, _check, body, encoding, signal, self._limits)

    async def _body(self, request: Request, limit: int) -> bytes:
        """All of the body, held to its limit, its deadline and the budget over all requests."""
        if int(request.headers.get("content-length", "0")) > limit:
            raise TooLargeError(f"a body of more than {limit} bytes: send smaller batches")
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._body_seconds):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    request.held += len(chunk)
                    self._held += len(chunk)
                    if request.held > limit:
                        raise TooLargeError(f"a body of more than {limit} bytes: send smaller batches")
                    if self._held > self._in_flight_bytes:
                        raise UnavailableError("too many requests at a time: try again", "busy")
                    chunks.append(chunk)
        except TimeoutError as error:
            raise SlowError(f"the body was not complete within {self._body_seconds} s: try again", "slow") from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _append(self, body: bytes, encoding: str, spans: int, request: Request, received_ns: int) -> None:
        if request.principal is None:  # the table below says who may come here
            raise UnauthenticatedError("nobody's spans")
        try:
            async with asyncio.timeout(self._append_seconds):
                await self.spool.append(
                    body,
                    tenant=request.principal.tenant,
                    key_id=request.principal.key_id,
                    spans=spans,
                    encoding=encoding,
                    received_ns=received_ns,
                )
        except TimeoutError as error:
            raise UnavailableError(f"the disk took more than {self._append_seconds} s", "slow_disk") from error
        except SpoolFullError as error:
            raise UnavailableError(str(error), "disk_full") from error
        except SpoolFailedError as error:
            raise UnavailableError(str(error), "disk_failed") from error
        self._telemetry.add("millicent_receiver_spans_total", spans)

    async def _not_read(self, request: Request, signal: str, items: str) -> Answer:
        """All rejected: the honest answer that stock exporters neither retry nor take for stored."""
        *_, count = await self._read(request, signal)
        self._telemetry.add("millicent_receiver_not_supported_total", count, signal)
        message = f"{items} are not read yet: send traces (OTEL_{signal.upper()}_EXPORTER=none stops these requests)"
        partial = PartialSuccess(rejected=count, error_message=message)
        return Answer(200, ExportServiceResponse(partial_success=partial).SerializeToString(), PROTOBUF)


def _check(body: bytes, encoding: str, signal: str, limits: Limits) -> int:
    """Refuse what is too much or cannot be decoded; return how many items it holds."""
    expanded = decompress(body, encoding, limits)
    count = measure(expanded, limits, signal)
    if signal == "traces":
        try:
            ExportTraceServiceRequest.FromString(expanded)
        except DecodeError as error:
            raise MalformedError(f"the body is not an OTLP export request: {error}") from error
    return count


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class Route(NamedTuple):
    """What is served, and to whom."""

    method: str
    path: str
    policy: Policy
    handler: Callable[[Receiver, Request], Awaitable[Answer]]


ROUTES = (
    Route("POST", "/v1/traces", "ingest", Receiver.traces),
    Route("POST", "/v1/metrics", "ingest", Receiver.metrics),
    Route("POST", "/v1/logs", "ingest", Receiver.logs),
    Route("GET", "/healthz", "public", Receiver.healthz),
    Route("GET", "/readyz", "public", Receiver.readyz),
    Route("GET", "/metrics", "read", Receiver.own_metrics),
)
_ROUTES = {(route.method, route.path): route for route in ROUTES}
_SIGNALS = {"/v1/traces": "traces", "/v1/metrics": "metrics", "/v1/logs": "logs"}
