"""What one request may cost us, counted on the wire before anything is parsed.

A body of a few megabytes can ask for gigabytes: compressed zeros, or millions of empty messages of two bytes
each. So the body is expanded under a cap, and the messages in it are counted by walking the tags and lengths of
the protobuf wire format, which allocates nothing. Of JSON, the signs that begin a value are counted.
"""

import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from millicent.collector.refusals import MalformedError, TooLargeError, UnsupportedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request; sizes in bytes."""

    compressed_bytes: int = 4 * MIB  # of a body that says how it is compressed
    expanded_bytes: int = 20 * MIB  # of the protobuf or the JSON itself
    spans: int = 10_000  # also of resource_spans and of scope_spans; likewise of data points, of log records
    attributes: int = 10_000 * 128  # in the whole request, resources, scopes, array items and events included
    json_values: int = 2_000_000  # objects, lists and what they hold, of a body in JSON


# ---- expanding


def decompress(body: bytes, encoding: str, limits: Limits) -> bytes:
    """Expand a request body without ever holding more than the limit and one byte.

    Args:
        body: The body as received, complete.
        encoding: The `Content-Encoding` in lower case; an absent header is `identity`.
        limits: `compressed_bytes` and `expanded_bytes` apply.

    Raises:
        TooLargeError: Before or after expanding, the body is over its limit.
        MalformedError: Not what the encoding says, cut short, or followed by bytes that are something else.
        UnsupportedError: Any encoding but `gzip`, `zstd` and `identity`.
    """
    if encoding == "identity":
        if len(body) > limits.expanded_bytes:
            raise TooLargeError(_too_many_bytes(limits.expanded_bytes, "uncompressed"))
        return body
    expand = _EXPAND.get(encoding)
    if expand is None:
        raise UnsupportedError(
            f"Content-Encoding {encoding[:40]!r} is not read here: send gzip, zstd or identity "
            "(OTEL_EXPORTER_OTLP_COMPRESSION=gzip)"
        )
    if len(body) > limits.compressed_bytes:
        raise TooLargeError(_too_many_bytes(limits.compressed_bytes, "compressed"))
    return expand(body, limits.expanded_bytes)


_STEP = 16 * 1024  # fed at a time; what lies behind the end of a member is copied, so small steps bound that
_MOST_MEMBERS = 20_000  # each costs some microseconds, and one holds any request
_WINDOW: dict[int, int] = {
    zstd.DecompressionParameter.window_log_max: 23
}  # 8 MiB, what RFC 8878 asks every reader to have


def _gunzip(body: bytes, limit: int) -> bytes:
    """Every member of a gzip body, joined; RFC 1952 allows several and nothing else behind them."""
    view = memoryview(body)
    parts: list[bytes] = []
    size = at = members = 0
    while at < len(body):
        members = _one_more(members)
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            chunk = view[at : at + _STEP]
            if not chunk:
                raise MalformedError(_closed_early("gzip"))
            try:
                part = member.decompress(chunk, limit - size + 1)
            except zlib.error as error:
                raise MalformedError(f"the body is not gzip at byte {at}: {error}") from error
            at += len(chunk) - len(member.unconsumed_tail) - len(member.unused_data)
            size += len(part)
            if size > limit:
                raise TooLargeError(_too_many_bytes(limit, "expanded"))
            parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    """Every frame of a zstd body, joined; RFC 8878 allows several and nothing else behind them."""
    view = memoryview(body)
    parts: list[bytes] = []
    size = at = members = 0
    while at < len(body):
        members = _one_more(members)
        frame = zstd.ZstdDecompressor(options=_WINDOW)
        while not frame.eof:
            chunk = view[at : at + _STEP] if frame.needs_input else b""
            if frame.needs_input and not chunk:
                raise MalformedError(_closed_early("zstd"))
            try:
                part = frame.decompress(chunk, limit - size + 1)
            except zstd.ZstdError as error:
                raise MalformedError(f"the body is not zstd at byte {at}: {error}") from error
            at += len(chunk)
            size += len(part)
            if size > limit:
                raise TooLargeError(_too_many_bytes(limit, "expanded"))
            parts.append(part)
        at -= len(frame.unused_data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


_EXPAND = {"gzip": _gunzip, "zstd": _unzstd}


def _one_more(members: int) -> int:
    if members >= _MOST_MEMBERS:
        raise TooLargeError(f"more than {_MOST_MEMBERS} compressed members in one body: send one")
    return members + 1


def _closed_early(encoding: str) -> str:
    return f"the {encoding} body is cut short: the sender closed it early, send it again"


def _too_many_bytes(limit: int, what: str) -> str:
    return f"the body is larger than {limit} bytes {what}: send smaller batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)"


# ---- counting

ITEMS = {"traces": "spans", "metrics": "data points", "logs": "log records"}
_SMALLER = "send smaller batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE)"


def too_many(signal: str, limits: Limits) -> TooLargeError:
    """More spans, data points or log records than one request may hold."""
    return TooLargeError(f"more than {limits.spans} {ITEMS[signal]} in one request: {_SMALLER}")


# Tags on the way to what each signal counts, outermost list first.
_PATHS: dict[str, tuple[tuple[int, ...], ...]] = {
    "traces": ((0x0A,), (0x12,), (0x12,)),  # resource_spans, scope_spans, spans
    "logs": ((0x0A,), (0x12,), (0x12,)),  # resource_logs, scope_logs, log_records
    # resource_metrics, scope_metrics, metrics, any of the five kinds of points, data_points
    "metrics": ((0x0A,), (0x12,), (0x12,), (0x2A, 0x3A, 0x4A, 0x52, 0x5A), (0x0A,)),
}


def measure(body: bytes, limits: Limits, signal: str = "traces") -> int:
    """Count what an expanded export request holds and hold it to the limits, before it is parsed.

    About half a microsecond a span. Attributes are looked at only where the body is large enough to hold too many.

    Args:
        body: A serialised `ExportTraceServiceRequest`, or that of another signal.
        limits: `spans` and `attributes` apply, the former to data points and log records likewise.
        signal: `traces`, `metrics` or `logs`.

    Returns:
        The number of spans, data points or log records.

    Raises:
        TooLargeError: More spans or attributes than one request may hold.
        MalformedError: The wire format itself is broken; a body that passes may still fail to parse.
    """
    path = _PATHS[signal]
    counts = [0] * len(path)
    steps = 16 * limits.spans + 64  # empty or unknown fields must not hold the processor either
    stack = [_fields(body, 0, len(body))]
    while stack:
        depth = len(stack) - 1
        for tag, start, stop in stack[-1]:
            steps -= 1
            wanted = tag in path[depth]
            counts[depth] += wanted
            if steps < 0 or counts[depth] > limits.spans:
                raise too_many(signal, limits)
            if wanted and depth + 1 < len(path):
                stack.append(_fields(body, start, stop))
                break
        else:
            stack.pop()
    _bound_attributes(body, limits, _REQUESTS[signal])
    return counts[-1]


_CUT_SHORT = "the protobuf is cut short: a length points behind the end of its message"


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of one message: tag, and the extent of the value."""
    while at < end:
        tag = body[at]
        at += 1
        if tag >= 0x80:
            tag, at = _varint(body, at - 1, end)
        kind = tag & 7
        if kind == 2:
            size, at = (body[at], at + 1) if at < end and body[at] < 0x80 else _varint(body, at, end)
        elif kind == 0:
            size = 0
            _, at = _varint(body, at, end)
        elif kind == 1:
            size = 8
        elif kind == 5:
            size = 4
        else:
            raise MalformedError(f"wire type {kind} at byte {at - 1}: OTLP has no groups; is this protobuf?")
        start, at = at, at + size
        if at > end:
            raise MalformedError(_CUT_SHORT)
        yield tag, start, at


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise MalformedError(_CUT_SHORT)
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise MalformedError(f"a number of more than ten bytes ends at byte {at}: is this protobuf?")


# Where attributes and array items hide: tag → (counted?, what to look for inside).
_Shape = dict[int, "tuple[bool, _Shape]"]
_ITEMS: _Shape = {0x0A: (True, {})}
_VALUE: _Shape = {0x2A: (False, _ITEMS)}
_ATTRIBUTE: _Shape = {0x12: (False, _VALUE)}
_RESOURCE: _Shape = {0x0A: (True, _ATTRIBUTE)}
_SCOPE: _Shape = {0x1A: (True, _ATTRIBUTE)}


def _in_scopes(item: _Shape) -> _Shape:
    scoped: _Shape = {0x0A: (False, _SCOPE), 0x12: (False, item)}
    return {0x0A: (False, {0x0A: (False, _RESOURCE), 0x12: (False, scoped)})}


_REQUESTS: dict[str, _Shape] = {
    "traces": _in_scopes({0x4A: (True, _ATTRIBUTE), 0x5A: (True, {})}),  # and events
    "logs": _in_scopes({0x2A: (False, _VALUE), 0x32: (True, _ATTRIBUTE)}),  # the body may be a list
    "metrics": _in_scopes({
        **dict.fromkeys((0x2A, 0x3A), (False, {0x0A: (False, {0x3A: (True, _ATTRIBUTE)})})),  # gauge, sum
        0x4A: (False, {0x0A: (False, {0x4A: (True, _ATTRIBUTE)})}),  # histogram
        0x52: (False, {0x0A: (False, {0x0A: (True, _ATTRIBUTE)})}),  # exponential histogram
        0x5A: (False, {0x0A: (False, {0x3A: (True, _ATTRIBUTE)})}),  # summary
    }),
}  # fmt: skip
_NOTHING: tuple[bool, _Shape] = (False, {})
_TAGS = (0x0A, 0x1A, 0x32, 0x3A, 0x4A, 0x5A)  # of what is counted
_REPEATED = bytes(tag | high for tag in _TAGS for high in (0, 0x80))  # high: a longer form


def _bound_attributes(body: bytes, limits: Limits, request: _Shape) -> None:
    """Refuse more attributes than the limit: by size alone, else by counting bytes, else by walking."""
    if len(body) // 2 <= limits.attributes:  # an empty attribute takes two bytes
        return
    if sum(body.count(byte) for byte in _REPEATED) <= limits.attributes:
        return
    count = 0
    steps = 5 * limits.attributes + 16 * limits.spans  # an attribute is four fields, itself included
    stack = [(_fields(body, 0, len(body)), request)]
    while stack:
        fields, shape = stack[-1]
        for tag, start, stop in fields:
            steps -= 1
            counted, inner = shape.get(tag, _NOTHING)
            count += counted
            if count > limits.attributes or steps < 0:
                raise TooLargeError(
                    f"more than {limits.attributes} attributes in one request: send smaller batches "
                    "(OTEL_BSP_MAX_EXPORT_BATCH_SIZE) or bound them (OTEL_ATTRIBUTE_COUNT_LIMIT=128)"
                )
            if inner and stop > start:
                stack.append((_fields(body, start, stop), inner))
                break
        else:
            stack.pop()


def bound_json(body: bytes, limits: Limits) -> None:
    """Refuse JSON that may hold more values than the limit, before any becomes an object.

    Every value but the first follows a bracket or a comma. Those in text are counted too: telling them apart would take
    seconds, and only a body of several megabytes that is little else could hold as many.

    Raises:
        TooLargeError: More values than one request may hold.
    """
    if sum(body.count(sign) for sign in b"{[,") > limits.json_values:
        raise TooLargeError(f"more than {limits.json_values} JSON values in one request: {_SMALLER}")
