"""Who may do what: every route has a declared policy, every request one principal, or it goes no further.

A request is let in by a read or operator key (`Authorization: Bearer`), by a session cookie got with the set-up token,
or, when the process runs with `--insecure-local`, by coming to a loopback name. Paths are judged as they came on the
wire.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Final, Literal
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from millicent.warehouse.control import DEFAULT_TENANT, SESSION_LIFE, Control

Policy = Literal["public", "read", "guarded", "forwarded"]
COOKIE: Final = "millicent_session"
LOGIN: Final = "/login"
_MAX_FORM: Final = 4096
_LOOPBACK: Final = {"127.0.0.1", "localhost", "[::1]"}

POLICIES: Final[tuple[tuple[str, Policy], ...]] = (
    ("/healthz", "public"),
    ("/readyz", "public"),
    (LOGIN, "public"),
    ("/metrics", "read"),
    ("POST /api/v1/calls", "forwarded"),
    ("/api/v1/budgets/check", "guarded"),
    ("/api/v1/budgets/settle", "guarded"),
    ("/api", "read"),
    ("/assets", "public"),
    ("/_dash-component-suites", "public"),
    ("/_dash-layout", "read"),
    ("/_dash-dependencies", "read"),
    ("/_dash-update-component", "read"),
    ("/_reload-hash", "read"),
    ("/_favicon.ico", "public"),
    ("/", "read"),
    ("/{path:path}", "read"),
)
"""A path and all below it, or a method and a path; the first line that covers an address counts.

An address that no line covers needs a reader, a route that none covers stops the start. What is guarded needs who may
send calls, or an operator. What is forwarded is judged by the receiver that it goes to.
"""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: a tenant, by what means (for the audit log), and whether they change what all see, or send calls."""

    tenant: str
    actor: str
    operates: bool = False
    calls: bool = False


_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)


class UndeclaredRouteError(RuntimeError):
    """A route has no policy; the message names it."""


def principal() -> Principal:
    """The principal of the request being served.

    Raises:
        LookupError: outside a request that a `read` policy let in.
    """
    found = _principal.get()
    if found is None:
        raise LookupError("no principal: this code runs outside an authenticated request")
    return found


def operator(what: str) -> Principal:
    """The principal of the request being served, who may change `what`.

    Raises:
        HTTPException: 403, for a key that only reads.
    """
    who = principal()
    if not who.operates:
        raise HTTPException(
            403, f"{who.actor} may read, not change {what}: make a key with `millicent keys create --scope operator`"
        )
    return who


def caller(what: str) -> Principal:
    """The principal of the request being served, who sends calls and may have `what` judge them.

    Raises:
        HTTPException: 403, for a key that only reads.
    """
    who = principal()
    if not (who.calls or who.operates):
        raise HTTPException(403, f"{who.actor} may read, not have {what} judge calls: use the ingest key of the app")
    return who


def policy(path: str, method: str = "GET") -> Policy | None:
    """Policy of a path; None when none is declared."""
    for prefix, declared in POLICIES:
        if prefix in {path, f"{method} {path}"} or (prefix != "/" and path.startswith(prefix + "/")):
            return declared
    return None


def check_routes(paths: Iterable[str]) -> None:
    """Refuse to start with a route that nobody declared.

    Raises:
        UndeclaredRouteError: naming it.
    """
    for path in paths:
        if policy(path) is None:
            raise UndeclaredRouteError(
                f"route {path!r} has no policy: declare it in millicent.dashboard.access.POLICIES"
            )


class Access:
    """ASGI middleware that finds the principal, or answers 401 (API), 303 to the login page (pages), 403 or 400.

    Args:
        app: what is guarded.
        control: where keys and sessions are.
        insecure_local: let everybody in who comes to a loopback name; only for a loopback bind.
    """

    def __init__(self, app: ASGIApp, control: Control, *, insecure_local: bool = False) -> None:
        self._app = app
        self._control = control
        self._insecure_local = insecure_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = await self._admit(scope, receive)
        if response is not None:
            await response(scope, receive, send)
            return
        token = _principal.set(scope.get("principal"))
        try:
            await self._app(scope, receive, send)
        finally:
            _principal.reset(token)

    async def _admit(self, scope: Scope, receive: Receive) -> Response | None:
        path, headers = scope["path"], Headers(scope=scope)
        if self._insecure_local and headers.get("host", "").rpartition(":")[0] not in _LOOPBACK:
            return _problem(400, "Bad host", "with --insecure-local only loopback names are served: use 127.0.0.1")
        if path == LOGIN and not self._insecure_local:
            return await self._login(scope, receive, headers)
        declared = policy(path, scope["method"])
        open_ = declared in {"public", "forwarded"}
        return None if open_ else self._authenticate(scope, headers, guarded=declared == "guarded")

    def _authenticate(self, scope: Scope, headers: Headers, *, guarded: bool) -> Response | None:
        try:
            found, by_cookie = self._find(headers, guarded=guarded)
        except PermissionError as error:
            return _problem(403, "Not for this key", str(error))
        if found is None:
            return _unauthenticated(scope, headers)
        browsed = "sec-fetch-site" in headers or "origin" in headers
        checked = browsed if guarded else scope["method"] not in {"GET", "HEAD"}  # apps ask for what is guarded
        if by_cookie and checked and not _same_origin(headers):
            return _problem(
                403, "Cross-site request", "a page of another site sent this request; it was not carried out"
            )
        scope["principal"] = found
        return None

    def _find(self, headers: Headers, *, guarded: bool) -> tuple[Principal | None, bool]:
        if self._insecure_local:
            return Principal(DEFAULT_TENANT, "insecure-local", operates=True), True
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            key = self._control.check(credential.strip(), "read", "operator", "ingest")
            if key is None:
                return None, False
            if key.scope == "ingest" and not guarded:
                raise PermissionError(f"key {key.id} may write calls, not read them: use a read key")
            return Principal(key.tenant, f"key {key.id}", key.scope == "operator", key.scope == "ingest"), False
        session = _cookie(headers)
        tenant = self._control.session_tenant(session) if session else None
        return (Principal(tenant, "session", operates=True) if tenant else None), True

    async def _login(self, scope: Scope, receive: Receive, headers: Headers) -> Response:
        if scope["method"] == "GET":
            return _login_page()
        if scope["method"] != "POST":
            return _problem(405, "Method not allowed", "use GET or POST")
        if not _same_origin(headers):
            return _problem(403, "Cross-site request", "log in from the login page")
        form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
        session = self._control.open_session(form.get("token", [""])[0].strip())
        if session is None:
            return _login_page("That is not a live set-up token. Each one opens one session: make another with "
                               "`millicent keys create --scope setup`.", status=401)  # fmt: skip
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(COOKIE, session, max_age=int(SESSION_LIFE.total_seconds()), httponly=True, samesite="lax",
                            secure=scope["scheme"] == "https")  # fmt: skip
        return response


def _cookie(headers: Headers) -> str | None:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie else None


def _same_origin(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] == headers.get("host")


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _MAX_FORM:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body
    return b""


def _unauthenticated(scope: Scope, headers: Headers) -> Response:
    if scope["method"] == "GET" and "text/html" in headers.get("accept", "") and not scope["path"].startswith("/api"):
        return RedirectResponse(f"{LOGIN}?next={quote(scope['path'])}", status_code=303)
    response = _problem(401, "Not authenticated", "send Authorization: Bearer with a read key; make one with "
                        "`millicent keys create --scope read`")  # fmt: skip
    response.headers["www-authenticate"] = 'Bearer realm="millicent"'
    return response


def _problem(status: int, title: str, detail: str) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Millicent</title>
<meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="/assets/login.css"><main><h1>Millicent</h1>
<form method="post" action="/login"><label for="token">Set-up token</label>
<input id="token" name="token" type="password" autocomplete="off" autofocus required>
<p>It was printed when Millicent first started.</p>{message}<button>Open the dashboard</button></form></main></html>"""


def _login_page(message: str = "", status: int = 200) -> HTMLResponse:
    told = f'<p role="alert">{escape(message)}</p>' if message else ""
    return HTMLResponse(_PAGE.format(message=told), status, headers={"cache-control": "no-store"})
