"""Why a request is not taken: HTTP status, a word for the metrics, and a message that says what helps.

Stock exporters retry on 429, 502, 503 and 504 alone and drop their batch on anything else. So what may work later is a
503 with `Retry-After`, whatever HTTP would call it, and the other codes are for what no retry would mend. Over gRPC the
same two are UNAVAILABLE with a `RetryInfo`, and the rest.
"""

import json
from http import HTTPStatus
from typing import NamedTuple

from millicent.collector.otlp_pb2 import Delay, Detail, RetryInfo, RpcStatus

PROTOBUF, JSON, PROBLEM = "application/x-protobuf", "application/json", "application/problem+json"
RETRY_SECONDS = 1
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

    @property
    def code(self) -> int:
        """Of `google.rpc.Code`."""
        return _RPC_CODES.get(self.status, _UNKNOWN)

    @property
    def details(self) -> list[Detail]:
        """What gRPC says beside code and message."""
        return []

    def answer(self, content_type: str) -> Answer:
        """The response, in protobuf to who sent protobuf and in JSON to all others, as OTLP wants it."""
        code, message = self.code, str(self)
        if content_type == PROTOBUF:
            body = RpcStatus(code=code, message=message).SerializeToString()
            return Answer(self.status, body, PROTOBUF, self.headers)
        return Answer(self.status, json.dumps({"code": code, "message": message}).encode(), JSON, self.headers)

    def problem(self) -> Answer:
        """The response of the API, an RFC 9457 problem."""
        title = HTTPStatus(self.status).phrase
        told = {"type": "about:blank", "title": title, "status": self.status, "detail": str(self)}
        return Answer(self.status, json.dumps(told).encode(), PROBLEM, self.headers)


_UNKNOWN = 2
# google.rpc.Code. What is too large is an invalid argument: some exporters send again whatever exhausts a resource.
_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 413: 3, 415: 3, 503: 14}


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
    headers: Headers = ((b"retry-after", b"%d" % RETRY_SECONDS),)

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def details(self) -> list[Detail]:
        """When to try again."""
        wait = RetryInfo(retry_delay=Delay(seconds=RETRY_SECONDS))
        return [Detail(type_url="type.googleapis.com/google.rpc.RetryInfo", value=wait.SerializeToString())]


class SlowError(UnavailableError):
    """The body did not arrive in time. The connection ends, as the rest of the body is still to come."""

    headers: Headers = (*UnavailableError.headers, (b"connection", b"close"))
