"""OTLP and calls over HTTP: authenticate, bound, check, put on the spool, acknowledge.

A plain ASGI application over bytes. What it answers 200 to is on disk. What comes over gRPC (`rpc.py`) takes the same
steps.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson
from google.protobuf.message import DecodeError

from millicent.collector import import_calls, otlp_json
from millicent.collector.limits import MIB, Limits, decompress, measure
from millicent.collector.refusals import (
    JSON,
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

# Larger bodies are checked in a thread, and those that expand to more than four times this.
INLINE_BYTES = {PROTOBUF: 256 * 1024, JSON: 32 * 1024}
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
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


class Checked(NamedTuple):
    """What goes on the spool: protobuf in its encoding, and how many spans, data points or log records it holds."""

    body: bytes
    encoding: str
    items: int


@dataclass(slots=True)
class Request:
    """One request on its way; `held` bytes of its body are in memory."""

    method: str
    path: str
    headers: Mapping[str, str]
    receive: "Receive"
    principal: Principal | None = None  # of routes that are not public
    held: int = 0


class GoneError(Exception):
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
        self.telemetry = telemetry
        self.limits = limits
        self._inline = {
            form: replace(limits, expanded_bytes=min(4 * size, limits.expanded_bytes))
            for form, size in INLINE_BYTES.items()
        }
        self._in_flight_bytes = in_flight_bytes
        self.body_seconds = body_seconds
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
        except GoneError:
            self.telemetry.add("millicent_receiver_refused_total", 1, signal, "gone")
            return
        except Exception as error:  # noqa: BLE001  # `refused` tells ours from theirs
            refused = self.refused(error, signal)
            answer = (
                refused.problem() if request.path.startswith("/api/v1/") else refused.answer(_content_type(request))
            )
        finally:
            self.let_go(request.held)
        self.telemetry.add("millicent_receiver_requests_total", 1, signal, str(answer.status))
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
            request.principal = self.admit(request.headers, route.policy)
        return await route.handler(self, request)

    # ---- steps, whatever the request came over

    def admit(self, headers: Mapping[str, str], policy: Policy) -> Principal:
        """Who sent these headers, if that is somebody whom the policy lets in.

        Raises:
            UnauthenticatedError: No key, or none that is known.
            ForbiddenError: A key that is for something else.
            UnavailableError: Keys cannot be looked up now.
        """
        try:
            principal = self._authenticate(headers)
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

    def hold(self, size: int) -> None:
        """Note bytes of a body that are in memory until `let_go`.

        Raises:
            UnavailableError: They are more than all requests may hold together.
        """
        self._held += size
        if self._held > self._in_flight_bytes:
            raise UnavailableError("too many requests at a time: try again", "busy")

    def let_go(self, size: int) -> None:
        """Note that `size` bytes are in memory no longer."""
        self._held -= size

    async def check(self, body: bytes, encoding: str, form: str, signal: str) -> Checked:
        """Bound and decode an export request.

        Args:
            body: As received, in its `encoding`.
            encoding: `identity`, `gzip` or `zstd`.
            form: The media type, protobuf or JSON.
            signal: `traces`, `metrics` or `logs`.

        Raises:
            RefusedError: It is too large, or not what it says it is.
        """
        self.telemetry.add("millicent_receiver_received_bytes_total", len(body), signal)
        if len(body) <= INLINE_BYTES[form]:
            with suppress(TooLargeError):  # or only too large to hold up the others
                return _check(body, encoding, form, signal, self._inline[form])
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checks, _check, body, encoding, form, signal, self.limits)

    async def keep(self, checked: Checked, signal: str, principal: Principal, received_ns: int) -> None:
        """Return once a request is on disk.

        Args:
            checked: What `check` returned. One that holds nothing is not kept.
            signal: `traces`, `metrics` or `logs`.
            principal: Whose it is.
            received_ns: Unix time, UTC.

        Raises:
            UnavailableError: The disk is full, slow or failed.
        """
        if not checked.items:
            return
        try:
            async with asyncio.timeout(self._append_seconds):
                await self.spool.append(
                    checked.body,
                    tenant=principal.tenant,
                    key_id=principal.key_id,
                    spans=checked.items,
                    signal=signal,
                    encoding=checked.encoding,
                    received_ns=received_ns,
                )
        except TimeoutError as error:
            raise UnavailableError(f"the disk took more than {self._append_seconds} s", "slow_disk") from error
        except SpoolFullError as error:
            raise UnavailableError(str(error), "disk_full") from error
        except SpoolFailedError as error:
            raise UnavailableError(str(error), "disk_failed") from error
        self.telemetry.add("millicent_receiver_items_total", checked.items, signal)

    def refused(self, error: Exception, signal: str) -> RefusedError:
        """What to tell the sender; an error that is none of its faults asks it to try again."""
        if not isinstance(error, RefusedError):
            log.error("a request with %s failed, its sender is asked to try again", signal, exc_info=error)
            error = UnavailableError("the receiver failed on this request: see its log", "internal")
        self.telemetry.add("millicent_receiver_refused_total", 1, signal, error.reason)
        return error

    # ---- handlers

    async def export(self, request: Request) -> Answer:
        """Put an OTLP request on the spool, then acknowledge it in the form that it came in."""
        received_ns = time.time_ns()
        signal, form = _SIGNALS[request.path], _content_type(request)
        if form not in INLINE_BYTES:
            raise UnsupportedError(
                f"Content-Type {form[:60]!r} is not read here: send {PROTOBUF} or {JSON} "
                "(OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf)"
            )
        body, encoding = await self._read(request)
        checked = await self.check(body, encoding, form, signal)
        await self.keep(checked, signal, _principal(request), received_ns)
        return Answer(200, b"" if form == PROTOBUF else b"{}", form)

    async def calls(self, request: Request) -> Answer:
        """Put calls in plain JSON on the spool as spans; those that are not right are told one by one."""
        received_ns = time.time_ns()
        form = _content_type(request)
        if form != JSON and form not in NDJSON:
            raise UnsupportedError(f"Content-Type {form[:60]!r} is not read here: send {JSON} or {NDJSON[0]}")
        principal = _principal(request)
        body, encoding = await self._read(request)
        self.telemetry.add("millicent_receiver_received_bytes_total", len(body), "calls")
        told = (body, encoding, form in NDJSON, principal.tenant, received_ns, self.limits)
        if len(body) <= INLINE_BYTES[JSON] and encoding == "identity":
            spans, calls, rejected = import_calls.read(*told)
        else:
            loop = asyncio.get_running_loop()
            spans, calls, rejected = await loop.run_in_executor(self._checks, import_calls.read, *told)
        await self.keep(Checked(spans, "identity", calls), "traces", principal, received_ns)
        self.telemetry.add("millicent_receiver_rejected_calls_total", len(rejected))
        status = 200 if not rejected else 207 if calls else 400
        answer = {"accepted": calls, "rejected": [each.told() for each in rejected]}
        return Answer(status, orjson.dumps(answer), JSON)

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
        return Answer(200, self.telemetry.text(), CONTENT_TYPE)

    # ---- bodies

    async def _read(self, request: Request) -> tuple[bytes, str]:
        """The body as it came, and its encoding."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower() or "identity"
        limit = self.limits.expanded_bytes if encoding == "identity" else self.limits.compressed_bytes
        return await self._body(request, limit), encoding

    async def _body(self, request: Request, limit: int) -> bytes:
        """All of the body, held to its limit, its deadline and the budget over all requests."""
        if int(request.headers.get("content-length", "0")) > limit:
            raise TooLargeError(f"a body of more than {limit} bytes: send smaller batches")
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.body_seconds):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    chunk = message.get("body", b"")
                    more = message.get("more_body", False)
                    if request.held + len(chunk) > limit:
                        raise TooLargeError(f"a body of more than {limit} bytes: send smaller batches")
                    request.held += len(chunk)
                    self.hold(len(chunk))
                    chunks.append(chunk)
        except TimeoutError as error:
            raise SlowError(f"the body was not complete within {self.body_seconds} s: try again", "slow") from error
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check(body: bytes, encoding: str, form: str, signal: str, limits: Limits) -> Checked:
    """Refuse what is too much or cannot be decoded; JSON becomes protobuf."""
    expanded = decompress(body, encoding, limits)
    if form == JSON:
        body, encoding = otlp_json.transcode(expanded, limits, signal), "identity"
        return Checked(body, encoding, measure(body, limits, signal))
    count = measure(expanded, limits, signal)
    try:
        otlp_json.REQUESTS[signal].FromString(expanded)
    except DecodeError as error:
        raise MalformedError(f"the body is not an OTLP export request: {error}") from error
    return Checked(body, encoding, count)


def _principal(request: Request) -> Principal:
    if request.principal is None:  # the table below says who may come here
        raise UnauthenticatedError("nobody's spans")
    return request.principal


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class Route(NamedTuple):
    """What is served, and to whom."""

    method: str
    path: str
    policy: Policy
    handler: Callable[[Receiver, Request], Awaitable[Answer]]
    signal: str = "none"


ROUTES = (
    Route("POST", "/v1/traces", "ingest", Receiver.export, "traces"),
    Route("POST", "/v1/metrics", "ingest", Receiver.export, "metrics"),
    Route("POST", "/v1/logs", "ingest", Receiver.export, "logs"),
    Route("POST", "/api/public/otel/v1/traces", "ingest", Receiver.export, "traces"),  # where Langfuse's SDKs send
    Route("POST", "/api/v1/calls", "ingest", Receiver.calls, "calls"),
    Route("GET", "/healthz", "public", Receiver.healthz),
    Route("GET", "/readyz", "public", Receiver.readyz),
    Route("GET", "/metrics", "read", Receiver.own_metrics),
)
_ROUTES = {(route.method, route.path): route for route in ROUTES}
_SIGNALS = {route.path: route.signal for route in ROUTES}
