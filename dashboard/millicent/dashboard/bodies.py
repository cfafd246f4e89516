"""Bodies of requests that are JSON or TOML, in parts and within a limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import Request
from starlette.exceptions import HTTPException

TOML: Final = ("application/toml", "text/plain")


async def told(request: Request, what: str, most_bytes: int, bad: Callable[[list[str]], Exception]) -> tuple[bool, str]:
    """Whether a body is TOML, and its text.

    Args:
        request: whose body.
        what: is in it, for the message.
        most_bytes: it may have.
        bad: makes the error that is raised where it is not UTF-8.

    Raises:
        HTTPException: it is too large, or neither JSON nor TOML.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/json", *TOML}:
        raise HTTPException(415, f"content type {kind!r} is not read: send application/json or application/toml")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most_bytes:
            raise HTTPException(413, f"more than {most_bytes:,} bytes of {what}: send them in parts")
    try:
        return kind in TOML, body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad([f"the body is not UTF-8 ({error}): save it as UTF-8"]) from error
