"""OTLP over gRPC: the same requests on another wire, through the steps of the receiver.

Messages are taken as bytes: what is checked and kept is what came. Keys are looked up before a message is read, and of
all messages so many are read at a time that what they hold is bounded.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import grpc

from millicent.collector.otlp_pb2 import RpcStatus
from millicent.collector.receiver import GoneError, Receiver
from millicent.collector.refusals import PROTOBUF, MalformedError, RefusedError, UnavailableError

SERVICES: Final = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
READ_AT_A_TIME: Final = 16  # of as many bytes as one request may expand to, at most
HEADER_BYTES: Final = 64 * 1024
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_EMPTY: Final = b""  # every signal's response when all was taken


async def start(app: Receiver, host: str, port: int) -> tuple[Any, int]:
    """Serve `app` over gRPC on this event loop.

    Args:
        app: Where requests go.
        host: Address to bind.
        port: 0 takes any free one.

    Returns:
        The server, whose `stop(grace)` lets calls in flight end, and the port.

    Raises:
        OSError: The address is taken.
    """
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),  # or a second process would share the port, and half of the requests
            ("grpc.max_receive_message_length", app.limits.expanded_bytes),
            ("grpc.max_metadata_size", HEADER_BYTES),
            ("grpc.server_handshake_timeout_ms", 10_000),
        )
    )
    reading = asyncio.Semaphore(READ_AT_A_TIME)
    for signal, service in SERVICES.items():
        # As streams, because of a single message gRPC reads all before it says whose it is.
        handler = grpc.stream_unary_rpc_method_handler(partial(_export, app, reading, signal))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address} cannot be listened on for gRPC ({error}): choose another port") from error
    await server.start()
    return server, bound


async def _export(
    app: Receiver, reading: asyncio.Semaphore, signal: str, messages: AsyncIterator[bytes], context: Any
) -> bytes:
    """Put one request on the spool, then acknowledge it."""
    received_ns = time.time_ns()
    held = 0
    try:
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        principal = app.admit(headers, "ingest")
        message = await _read(app, reading, messages)
        held = len(message)
        app.hold(held)
        checked = await app.check(message, "identity", PROTOBUF, signal)
        await app.keep(checked, signal, principal, received_ns)
    except GoneError:
        raise
    except Exception as error:  # noqa: BLE001  # `refused` tells ours from theirs
        await _refuse(context, app, app.refused(error, signal), signal)
    finally:
        app.let_go(held)
    app.telemetry.add("millicent_receiver_requests_total", 1, signal, "OK")
    return _EMPTY


async def _read(app: Receiver, reading: asyncio.Semaphore, messages: AsyncIterator[bytes]) -> bytes:
    try:
        async with asyncio.timeout(app.body_seconds), reading:
            return await anext(messages)
    except StopAsyncIteration as error:
        raise MalformedError("the call ended without a message") from error
    except TimeoutError as error:
        raise UnavailableError(
            f"the message was not complete within {app.body_seconds} s: try again", "slow"
        ) from error


async def _refuse(context: Any, app: Receiver, refused: RefusedError, signal: str) -> None:
    """Answer with the code, the message and the details; raises, as gRPC wants it."""
    code = _CODES[refused.code]
    status = RpcStatus(code=refused.code, message=str(refused), details=refused.details)
    app.telemetry.add("millicent_receiver_requests_total", 1, signal, code.name)
    trailing = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, str(refused), trailing_metadata=trailing)
