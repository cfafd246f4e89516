"""One ASGI application: the pages (Dash on its FastAPI backend), the API beside them, and how files are served.

Nothing here or in a page loads from another host. Dash is kept to what is used: no dev tools, no callback
publishing, no sockets.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import structlog
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html
from fastapi import FastAPI, HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, Response

from millicent.dashboard.pages import (
    accelerators,
    alerts,
    budgets,
    caching,
    efficiency,
    explore,
    exports,
    overview,
    prices,
    quality,
    requests,
    settings,
    teams,
    units,
    viewing,
    welcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from millicent.warehouse.store import Warehouse

log = structlog.get_logger("millicent")
ASSETS: Final = Path(__file__).parent / "assets"
BUNDLE: Final = ASSETS / "vendor" / "plotly-cartesian.min.js"
FONT: Final = ASSETS / "vendor" / "inter.woff2"
PLOTLY: Final = "/_dash-component-suites/plotly/package_data/plotly.min.js"
RECEIVER: Final = "http://127.0.0.1:4318"
FOREVER: Final = "public, max-age=31536000, immutable"
PAGES: Final = {
    "/": ("Millicent", overview),
    "/explore": ("Cost explorer · Millicent", explore),
    "/teams": ("Teams & chargeback · Millicent", teams),
    "/budgets": ("Budgets · Millicent", budgets),
    "/alerts": ("Alerts · Millicent", alerts),
    "/units": ("Unit economics · Millicent", units),
    "/caching": ("Caching · Millicent", caching),
    "/accelerators": ("Accelerators · Millicent", accelerators),
    "/efficiency": ("Efficiency · Millicent", efficiency),
    "/requests": ("Requests · Millicent", requests),
    "/quality": ("Data quality · Millicent", quality),
    "/prices": ("Prices · Millicent", prices),
    "/exports": ("Exports · Millicent", exports),
    "/settings": ("Settings · Millicent", settings),
}
"""Address of each page, its title and its module."""
UNUSED: Final = ("/_reload-hash", "/_dash-ws-callback")
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{%title%}</title>
<link rel="icon" type="image/svg+xml" href="/assets/icon.svg">
<!--head-->
{%css%}
</head>
<body>
{%app_entry%}
{%config%}{%scripts%}{%renderer%}
</body>
</html>"""

_MISSING: Final = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Not found · {title}</title>{head}
<main class="missing"><h1>There is no such page</h1><p>The address may be old or mistyped.</p>
<a class="button" href="/">Go to the Overview</a></main></html>"""


def create_app(
    warehouse: Warehouse, *, title: str = "Millicent", mount: Callable[[FastAPI], None] | None = None,
    receiver: str = RECEIVER,
) -> FastAPI:  # fmt: skip
    """The application.

    Args:
        warehouse: what the pages ask.
        title: name in the browser's tab.
        mount: adds other routes (the API) before unknown paths are answered.
        receiver: address that calls are sent to, as the first page tells.
    """
    server = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    if mount:
        mount(server)
    if BUNDLE.is_file():
        _serve_bundle(server)
    dash = Dash(
        __name__, server=cast("Any", server), title=title, update_title="", enable_mcp=False, add_log_handler=False,
        use_pages=False, pages_folder="", index_string=_PAGE.replace("<!--head-->", _head()),
        assets_folder=str(ASSETS), assets_path_ignore=["vendor"], assets_ignore=r"theme\.js|login\.css|\.svg",
        on_error=_told,
        suppress_callback_exceptions=True,  # one page's components are there at a time
    )  # fmt: skip
    dash.enable_dev_tools(debug=False, dev_tools_disable_version_check=True)
    _pages(dash, warehouse, receiver)
    dash.backend.websocket_capability = False
    server.router.routes[:] = [route for route in server.router.routes if getattr(route, "path", "") not in UNUSED]
    _answer_unknown(server, title)
    server.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=6)
    server.add_middleware(OneDocument)
    server.add_middleware(Headers, policy=_content_security_policy(dash))
    return server


def _told(error: Exception) -> None:
    """Tell the log why a part of a page could not be answered; the browser is told that it was not.

    Raises:
        Exception: the same again.
    """
    log.error("a part of a page could not be answered", exc_info=error)
    raise error


def _pages(dash: Dash, warehouse: Warehouse, receiver: str) -> None:
    """Every page in the first answer; the browser puts the one of its address into the frame."""
    places = {path: (title, page.layout(warehouse.price_version)) for path, (title, page) in PAGES.items()}
    dash.layout = html.Div(
        [
            dcc.Location(id="place", refresh=False),
            dcc.Store(id="pages", data=places),
            *viewing.stores(),
            *alerts.stores(),
            html.Div(id="page"),
        ]
    )
    browser: Any = dash.clientside_callback
    browser(
        ClientsideFunction("millicent", "route"),
        Output("page", "children"), Input("place", "pathname"), State("pages", "data"),
    )  # fmt: skip
    viewing.register(dash, warehouse)
    welcome.register(dash, warehouse, receiver)
    for _, page in PAGES.values():
        page.register(dash, warehouse)


class OneDocument:
    """ASGI middleware: every page is the same document, which Dash answers at `/` alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = scope["type"] == "http" and scope["path"] in PAGES
        await self._app({**scope, "path": "/", "raw_path": b"/"} if page else scope, receive, send)


class Headers:
    """ASGI middleware: security headers on every response, and caching by what the address promises."""

    def __init__(self, app: ASGIApp, policy: str) -> None:
        self._app = app
        self._headers = {**HEADERS, "content-security-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, query = scope["path"], scope["query_string"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if message["status"] == 200 and path.startswith("/assets/") and query:
                    headers["cache-control"] = FOREVER
                elif not path.startswith(("/assets/", "/_dash-component-suites/")):
                    headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _content_security_policy(dash: Dash) -> str:
    scripts = " ".join(dash.csp_hashes())
    return "; ".join((
        "default-src 'none'", f"script-src 'self' {scripts}", "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:", "font-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'",
        "form-action 'self'",
    ))  # fmt: skip


@cache
def _versioned(path: Path) -> str:
    """Address of an asset that changes when its content does, so that it may be cached for ever."""
    return f"/assets/{path.relative_to(ASSETS)}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _head() -> str:
    """Theme before the first paint, then fonts and styles."""
    lines = [f'<script src="{_versioned(ASSETS / "theme.js")}"></script>']
    if FONT.is_file():
        font = _versioned(FONT)
        face = f'font-family:Inter;font-weight:100 900;font-display:swap;src:url("{font}") format("woff2")'
        lines.append(f'<link rel="preload" href="{font}" as="font" type="font/woff2" crossorigin>')
        lines.append(f"<style>@font-face{{{face}}}</style>")
    return "\n".join(lines)


def _serve_bundle(server: FastAPI) -> None:
    """Answer Dash's address of Plotly with the smaller cartesian bundle of the same release, compressed once."""
    script = BUNDLE.read_bytes()
    packed, tag = gzip.compress(script, 9, mtime=0), f'"{hashlib.sha256(script).hexdigest()[:16]}"'

    @server.get(PLOTLY, include_in_schema=False)
    def plotly(request: Request) -> Response:
        # The address carries no version, so it is asked again after a day; the tag makes that a 304.
        headers = {"etag": tag, "cache-control": "public, max-age=86400", "vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type="text/javascript", headers={**headers, "content-encoding": "gzip"})
        return Response(script, media_type="text/javascript", headers=headers)


def _answer_unknown(server: FastAPI, title: str) -> None:
    page = _MISSING.format(title=escape(title), head=_head() + '<link rel="stylesheet" href="/assets/style.css">')

    @server.get("/{path:path}", include_in_schema=False)
    def missing(path: str) -> Response:
        if path == "api" or path.startswith("api/"):
            raise HTTPException(404, f"no such address: /{path}")
        return HTMLResponse(page, 404)
