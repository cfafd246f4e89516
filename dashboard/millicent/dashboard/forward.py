"""`POST /api/v1/calls` on the dashboard's port: handed on to the receiver as it comes, and its answer handed back.

Nothing is held or judged here: the receiver looks up the key, bounds the body and puts the calls on the spool, so both
ports give the same answer and the same promise.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
from fastapi import FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

TIMEOUT_S: Final = 60.0
PASSED_ON: Final = ("authorization", "content-type", "content-encoding", "content-length")
PASSED_BACK: Final = ("content-type", "retry-after", "www-authenticate")
_OBJECT: Final = {"schema": {"type": "object"}}
_DESCRIBED: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A call, a list of calls, or `calls` with such a list; or one call in each line. Each has an "
        "`id`, a `started_at` and a model; gzip and zstd are read.",
        "content": {"application/json": _OBJECT, "application/x-ndjson": {"schema": {"type": "string"}}},
    },
    "responses": {
        "200": {"description": "All are on disk: `accepted` and an empty list `rejected`"},
        "207": {"description": "Some are; `rejected` lists the others with index, id and error"},
        "400": {"description": "None is, each for its error; or the body cannot be read (a problem)"},
        "401": {"description": "No ingest key"},
        "413": {"description": "More than one request may hold"},
        "503": {"description": "Not now: send it again"},
    },
}


def mount_forward(server: FastAPI, prefix: str, receiver: str) -> None:
    """Add the route to `server`.

    Args:
        server: where it is added.
        prefix: of the API's paths.
        receiver: base URL of the OTLP port.
    """
    client = httpx.AsyncClient(base_url=receiver, timeout=TIMEOUT_S, trust_env=False)

    @server.post(f"{prefix}/calls", summary="Store calls in plain JSON", openapi_extra=_DESCRIBED)
    async def store(request: Request) -> Response:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            answer = await client.post(f"{prefix}/calls", content=request.stream(), headers=headers)
        except httpx.TransportError as error:
            body = {
                "type": "about:blank", "title": "Service Unavailable", "status": 503,
                "detail": f"the receiver at {receiver} does not answer ({type(error).__name__}): send it again",
            }  # fmt: skip
            return JSONResponse(body, 503, {"retry-after": "1"}, media_type="application/problem+json")
        except ClientDisconnect:
            return Response(status_code=499)  # to nobody
        told = {name: answer.headers[name] for name in PASSED_BACK if name in answer.headers}
        return Response(answer.content, answer.status_code, told)
