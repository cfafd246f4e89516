"""Why a request is not taken: HTTP status, a word for the metrics, and a message that says what helps.

Stock exporters retry on 429, 502, 503 and 504 alone and drop their batch on anything else. So what may work later is a
503 with `Retry-After`, whatever HTTP would call it, and the other codes are for what no retry would mend.
"""

import json
from typing import NamedTuple

from millicent.collector.otlp_pb2 import RpcStatus

PROTOBUF, JSON = "application/x-protobuf", "application/json"
Headers = tuple[tuple[bytes, bytes], ...]


class Answer(NamedTuple):
    """One response."""

    status: int
    body: bytes
    content_type: str
    headers: Headers = ()


class RefusedError(Exception):
    """A request that is not taken."""

    status = 400
    reason = "malformed"
    headers: Headers = ()

    def answer(self, content_type: str) -> Answer:
        """The response, in protobuf to who sent protobuf and in JSON to all others, as OTLP wants it."""
        code, message = _RPC_CODES.get(self.status, _UNKNOWN), str(self)
        if content_type == PROTOBUF:
            body = RpcStatus(code=code, message=message).SerializeToString()
            return Answer(self.status, body, PROTOBUF, self.headers)
        return Answer(self.status, json.dumps({"code": code, "message": message}).encode(), JSON, self.headers)


_UNKNOWN = 2
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 8, 415: 3, 503: 14}  # google.rpc.Code


class MalformedError(RefusedError):
    """The bytes are not what the headers say they are."""


class UnauthenticatedError(RefusedError):
    """No key, or none that is known."""

    status = 401
    reason = "unauthenticated"
    headers = ((b"www-authenticate", b'Bearer realm="millicent"'),)


class ForbiddenError(RefusedError):
    """A key that is for something else."""

    status = 403
    reason = "forbidden"


class NotFoundError(RefusedError):
    """A path at which nothing is served."""

    status = 404
    reason = "not_found"


class MethodError(RefusedError):
    """A path that is served under another method."""

    status = 405
    reason = "method"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allowed.encode()),)


class TooLargeError(RefusedError):
    """Well formed, and more than one request may hold."""

    status = 413
    reason = "too_large"


class UnsupportedError(RefusedError):
    """A content type or encoding that is not read."""

    status = 415
    reason = "unsupported"


class UnavailableError(RefusedError):
    """Not now: the sender keeps its batch and tries again."""

    status = 503
    headers: Headers = ((b"retry-after", b"1"),)

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SlowError(UnavailableError):
    """The body did not arrive in time. The connection ends, as the rest of the body is still to come."""

    headers: Headers = (*UnavailableError.headers, (b"connection", b"close"))
