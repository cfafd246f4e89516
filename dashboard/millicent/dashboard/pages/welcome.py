"""The empty product: how to send the first call, watched live, and what that call cost when it has come.

It stands in the place of every page that has no calls yet (`components.empty("unconnected")`), and asks by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dash import ClientsideFunction, Dash, Input, Output, html, no_update

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, icon, link, segmented
from millicent.dashboard.state import VERSION
from millicent.warehouse.calls import Search, find

if TYPE_CHECKING:
    from dash.development.base_component import Component

    from millicent.warehouse.store import Warehouse

Row = dict[str, Any]

WAYS: Final = {
    "decorator": "Python", "otel": "OpenTelemetry", "collector": "Collector", "vllm": "vLLM", "litellm": "LiteLLM",
    "json": "Plain JSON",
}  # fmt: skip
"""How a call can be sent, and what that is called."""
PLACEHOLDER: Final = "mk_ingest_…"
KEY_NAME: Final = "first call"


@dataclass(frozen=True, slots=True)
class Sender:
    """Where calls go: the address of the receiver, and the key to send with; None where none is needed."""

    receiver: str
    key: str | None = PLACEHOLDER

    def snippet(self, way: str) -> str:
        """What to run, to write or to add, to be copied as it is."""
        return _SNIPPETS[way](self)

    @property
    def export(self) -> str:
        """The OTLP headers as the environment tells them, on a line of their own; empty without a key."""
        return f"export OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20{self.key}\n" if self.key else ""


def register(app: Dash, warehouse: Warehouse, receiver: str) -> None:
    """Add the callbacks of the empty product to `app`; `receiver` is the address that calls are sent to."""
    browser: Any = app.clientside_callback
    browser(ClientsideFunction("welcome", "shows"), Input("welcome-way", "value"), Input("welcome", "children"))

    @app.callback(Output("welcome", "children"), Input("welcome-do", "data"))
    async def told(act: Any) -> Any:
        return await asyncio.to_thread(_told, warehouse, receiver, act)

    @app.callback(
        Output("welcome-watch", "children"), Output("welcome-clock", "disabled"), Input("welcome-clock", "n_intervals")
    )
    async def watched(_count: int | None) -> Any:
        return await asyncio.to_thread(_watched, warehouse)


def _told(warehouse: Warehouse, receiver: str, act: object) -> list[Component]:
    """How to send, with a new key where one was asked for: it is shown this once."""
    who = access.principal()
    key: str | None = None if who.actor == "insecure-local" else PLACEHOLDER
    if isinstance(act, Mapping) and act.get("do") == "welcome-key" and who.operates and key:
        key = warehouse.control.create_key("ingest", KEY_NAME, who.tenant, who.actor)
    return guide(Sender(receiver, key), operates=who.operates)


def _watched(warehouse: Warehouse) -> list[Any]:
    """What stands beside the guide, and whether there is nothing left to watch for."""
    tenant = access.principal().tenant
    if warehouse.freshness(tenant) is None:
        return [waiting(), False]
    rows, _ = find(warehouse.engine, tenant, Search(limit=1))
    return [arrived(rows[0]), True] if rows else [no_update, False]


def guide(sender: Sender, *, operates: bool) -> list[Component]:
    """Each way to send a call, and one of them in sight."""
    blocks = [
        html.Div(
            [html.P(_WORDS[way], className="lead"),
             html.Div([html.Pre(html.Code(sender.snippet(way)), tabIndex=0), _copy(sender.snippet(way), words)],
                      className="code")],
            className=f"way-{way}",
        )
        for way, words in WAYS.items()
    ]  # fmt: skip
    return [
        html.Div(segmented("welcome-way", WAYS, "decorator", "How to send"), className="choices"),
        html.Div(blocks, className="ways", id="welcome-ways", **data(way="decorator")),
        _key(sender, operates=operates),
    ]


def waiting() -> Component:
    """Nothing has come yet."""
    words = "The first call shows up here by itself, a second or two after it ends. Leave this page open."
    return html.Div(
        [html.I(className="radar", **aria(hidden="true")),
         html.Div([html.H3("Watching for your first call"), html.P(words)])],
        className="watch", role="status",
    )  # fmt: skip


def arrived(call: Row) -> Component:
    """The first call has come: what it was, what it cost, and where to go from here."""
    cost = next((call[name] for name in ("effective_cost_usd", "billed_cost_usd", "list_cost_usd")
                 if call[name] is not None), None)  # fmt: skip
    used = [f"{call[name]:,} {words}" for name, words in (("input_tokens", "in"), ("output_tokens", "out"))
            if call[name] is not None]  # fmt: skip
    with fmt.stored():
        face = fmt.usd(cost)
    told: list[tuple[str, Any]] = [
        ("Model", html.Bdi(label("model", call["model"]))), ("Team", html.Bdi(label("team", call["team"]))),
        ("Tokens", ", ".join(used) or "not told"), ("Ended", f"{fmt.moment(_ended(call))} {fmt.zone()}"),
    ]  # fmt: skip
    unpriced = (
        html.P(["Its price is not known yet: ", link("give its model a price", "/prices", className="figure"), "."])
        if cost is None
        else None
    )
    opened = f"/requests?v={VERSION}&call={quote(call['trace_id'] + '.' + call['span_id'])}"
    ways = [html.A("Open the Overview", href="/", className="button primary", id="welcome-enter"),
            html.A("Why it cost that", href=opened, className="button")]  # fmt: skip
    sparks = html.Div([html.I(style={"--n": str(n)}) for n in range(14)], className="confetti", **aria(hidden="true"))
    return html.Section(
        [sparks, html.P("Your first call is here", className="eyebrow"),
         html.H2(["It cost ", html.Strong(face, id="first-cost")] if cost is not None else "It is stored and counted"),
         html.Dl([html.Div([html.Dt(name), html.Dd(words)]) for name, words in told], className="facts"),
         unpriced, html.Div(ways, className="pager start")],
        className="first", role="status",
    )  # fmt: skip


def _ended(call: Row) -> datetime:
    ended: datetime = call["received_at"] or call["started_at"]
    return ended


def _key(sender: Sender, *, operates: bool) -> Component:
    if sender.key is None:
        return html.P("No key is needed on this machine: it runs with --insecure-local.", className="quiet")
    if sender.key != PLACEHOLDER:
        words = "This key is in the lines above, and is not shown again. Keep it as a secret of your service."
        return html.P([html.B("Made. "), words], className="made", role="status")
    make = html.Button("Make an ingest key", type="button", className="button", id="welcome-key",
                       **data(do="welcome-key", to="welcome-do", here=""))  # fmt: skip
    words = "The first start printed an ingest key. "
    or_else = make if operates else html.Code("millicent keys create --scope ingest")
    return html.P([words, html.Span("Lost it? "), or_else], className="quiet")


def _copy(text: str, words: str) -> Component:
    return html.Button([icon("copy"), html.Span("Copy")], type="button", className="button",
                       **data(action="copy", text=text), **aria(label=f"Copy: {words}"))  # fmt: skip


_WORDS: Final = {
    "decorator": "Decorate the function that calls the model. The answer's usage is read; no prompt is kept.",
    "otel": "A service that speaks OpenTelemetry needs no code: point its exporter here.",
    "collector": "Behind an OpenTelemetry Collector, add one exporter and keep the others.",
    "vllm": "Your own engine sends a span for each request. Declare its hardware, and each call has its real cost.",
    "litellm": "The proxy sends what passes through it; team and key aliases come along.",
    "json": "From anything that can send a request: one call, or thousands. Sending again counts once.",
}  # fmt: skip


def _decorator(to: Sender) -> str:
    key = f', key="{to.key}"' if to.key else ""
    return f"""pip install millicent-sdk

from millicent.sdk import instrument, track_tokens

instrument(endpoint="{to.receiver}"{key}, service="checkout")

@track_tokens(team="Search", feature="answers")
def answer(question: str):
    return client.responses.create(model="gpt-5-mini", input=question)
"""


def _otel(to: Sender) -> str:
    return f"""export OTEL_EXPORTER_OTLP_ENDPOINT={to.receiver}
export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
{to.export}export OTEL_RESOURCE_ATTRIBUTES=service.name=checkout,millicent.team=Search
"""


def _collector(to: Sender) -> str:
    key = f'\n    headers:\n      authorization: "Bearer {to.key}"' if to.key else ""
    return f"""exporters:
  otlphttp/millicent:
    endpoint: {to.receiver}{key}

service:
  pipelines:
    traces:
      exporters: [otlphttp/millicent]   # beside those that are there
"""


def _vllm(to: Sender) -> str:
    return f"""export OTEL_SERVICE_NAME=chat-h100
export OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf
{to.export}vllm serve openai/gpt-oss-120b --otlp-traces-endpoint {to.receiver}/v1/traces
"""


def _litellm(to: Sender) -> str:
    headers = f'export OTEL_HEADERS="authorization=Bearer {to.key}"\n' if to.key else ""
    return f"""# config.yaml of the proxy
litellm_settings:
  callbacks: ["otel"]

# its environment
export OTEL_EXPORTER=otlp_http
export OTEL_ENDPOINT={to.receiver}/v1/traces
{headers}"""


def _json(to: Sender) -> str:
    header = f"  -H 'authorization: Bearer {to.key}' \\\n" if to.key else ""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    body = (f'{{"id": "hello-1", "started_at": "{now}", "provider": "openai", "model": "gpt-5-mini", '
            '"input_tokens": 1200, "output_tokens": 300, "team": "Search"}')  # fmt: skip
    return f"""curl {to.receiver}/api/v1/calls \\
{header}  -H 'content-type: application/json' \\
  -d '{body}'
"""


_SNIPPETS: Final = {
    "decorator": _decorator, "otel": _otel, "collector": _collector, "vllm": _vllm, "litellm": _litellm, "json": _json,
}  # fmt: skip
