"""One call, opened: what it cost and why, how usage was read, where its tags came from, and what else told of it."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, icon, link
from millicent.dashboard.listing import COSTS
from millicent.dashboard.pages.prices_place import Opened, Place
from millicent.dashboard.pages.requests_table import counts_instead, flags, reason, served_by, status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.listing import Listing
    from millicent.dashboard.pages.requests_table import Row
    from millicent.warehouse.explain import Line

TOKENS: Final = (
    ("input_tokens", "Input", 0), ("cache_read_tokens", "read from a cache", 1),
    ("cache_write_tokens", "written to a cache", 1), ("input_audio_tokens", "audio", 1),
    ("input_image_tokens", "images", 1), ("output_tokens", "Output", 0), ("reasoning_tokens", "reasoning", 1),
    ("output_audio_tokens", "audio", 1),
)  # fmt: skip
"""Column, words, and 1 for a part of the one above."""
TAGS: Final = (
    "team",
    "project",
    "feature",
    "customer",
    "environment",
    "service",
    "user_id",
    "session_id",
    "deployment",
)
OF_RESOURCE: Final = ("service",)
SOURCES: Final[Mapping[str, str]] = {
    "span": "on the call itself",
    "resource": "on the service that sent it",
    "inherited": "from a span above it",
    "rule": "by a rule of yours",
}
"""Where a tag came from, in words."""
STEPS: Final[Mapping[str, str]] = {
    "list price": "API list price", "billed price": "What is billed, after your terms",
    "exchange rate": "Exchange rate", "at a provider": "The same at a provider",
    "inputs of the hour": "The hour's inputs",
    "deployment-hour": "What the hour cost", "evidence": "What its split stands on", "where it went": "Where it went",
    "busy": "What its calls carry", "idle": "Who carries idle", "unavailable": "Who carries unavailable",
    "energy of the hour": "Energy of the hour", "carbon of the hour": "Carbon of the hour, location-based",
    "carbon, market-based": "Carbon of the hour, market-based", "own hardware": "What this call carries of the hour",
    "energy of the call": "Energy of this call", "carbon of the call": "Carbon of this call",
    "effective": "Effective cost",
}  # fmt: skip
NO_UNIT: Final = "1"
OUTSIDE: Final = ("https://", "http://")
_SPACE: Final = re.compile(r"(\s+)")
_OWN: Final = re.compile(r"(?:override|term|fx rate) (?P<id>\d+)(?=,)")
SHORT, LONG = 16, 40
SHOWN_ELSEWHERE: Final = ("counting", "tokens")
"""Steps of the derivation that have a section of their own."""
IDS: Final = (
    ("trace_id", "Trace"), ("span_id", "Span"), ("parent_span_id", "Parent span"), ("key_id", "Ingest key"),
    ("scope", "Instrumentation"), ("dialect", "Dialect"), ("signal", "Signal"),
)  # fmt: skip
COPIED: Final = ("trace_id", "span_id", "parent_span_id")


def drawer(
    call: Row, lines: Sequence[Line], tellings: Sequence[Row], listing: Listing, viewer: str | None = None
) -> Component:
    """Everything about a call.

    Args:
        call: from `warehouse.calls.find`.
        lines: its derivation.
        tellings: the rows that are not counted because it is.
        listing: where it was opened; closing leads back there.
        viewer: address of its trace elsewhere.
    """
    at = call["started_at"]
    close = link(icon("close"), listing.href(call=None), className="button square", **data(close=""),
                 **aria(label="Close"), title="Close (Esc)")  # fmt: skip
    words: list[Any] = [
        f"{fmt.moment(at)}:{at:%S} {fmt.zone()} · {served_by(call)} · ",
        html.Bdi(label("team", call["team"])),
    ]
    head = html.Div([html.Div([html.H2(call["model"] or "Unknown model", id="drawer-title"), html.P(words)]), close],
                    className="drawer-head")  # fmt: skip
    sections = [
        _not_counted(call, listing),
        html.Dl([_cost(name, call) for name in COSTS], className="costs"),
        _facts(call),
        _section("Tokens", _tokens(call)),
        _section("Flags", _flags(call)) if flags(call) else None,
        _section("How the cost came about", derived(lines)),
        _section("How usage was read", _reading(call)),
        _section("Tags and where they came from", _tags(call)),
        _section(f"Also told by ({len(tellings)})", _told(tellings, listing)) if tellings else None,
        _section("Ids", _ids(call, listing, viewer)),
    ]
    return html.Section([head, *filter(None, sections)], role="dialog", tabIndex=-1, **aria(labelledby="drawer-title"))


def gone(listing: Listing) -> Component:
    """There is no such call."""
    close = link("Close", listing.href(call=None), className="button", **data(close=""))
    told = "It may still be on its way, it may be another tenant's, or the address is mistyped."
    body = [html.H2("There is no such call", id="drawer-title"), html.P(told), close]
    return html.Section(body, role="dialog", tabIndex=-1, className="gone", **aria(labelledby="drawer-title"))


def usd_in_full(amount: Decimal | None) -> str:
    """Every digit that is not a trailing zero: `$0.0123456`."""
    if amount is None:
        return "unknown"
    text = f"{amount:f}"
    return "$" + (text.rstrip("0").rstrip(".") if "." in text else text)


def _section(title: str, body: Any) -> Component:
    return html.Div([html.H3(title), body])


def _not_counted(call: Row, listing: Listing) -> Component | None:
    if call["counted"]:
        return None
    there = counts_instead(call)
    goes = link("Open the row that counts", listing.href(call=there), className="there") if there else None
    return html.P([html.B("Not counted"), f": {reason(call)}. Its amounts are in no sum. ", goes], className="banner")


def _cost(name: str, call: Row) -> Component:
    amount = call[f"{name}_cost_usd"]
    return html.Div([html.Dt(f"{COSTS[name]} cost"), html.Dd(fmt.usd(amount), title=usd_in_full(amount))])  # type: ignore[index]


def _facts(call: Row) -> Component:
    lasted, first = call["duration_ms"], call["ttft_ms"]
    facts = [
        ("Status", [status(call), f" {call['error_type']}" if call["error_type"] else None]),
        ("Operation", call["operation"] or "unknown"),
        ("Duration", f"{Decimal(lasted) / 1000:,.2f} s" if lasted is not None else "unknown"),
        ("First token", f"{Decimal(first) / 1000:,.2f} s" if first is not None else None),
        ("Asked for", call["price_context"]),
        ("Streamed", {True: "yes", False: "no"}.get(call["streaming"])),
        (
            "Price",
            f"{call['price_status'].replace('_', ' ')}{': ' + call['price_entry'] if call['price_entry'] else ''}",
        ),
    ]
    return html.Dl([html.Div([html.Dt(name), html.Dd(told)]) for name, told in facts if told], className="facts")


def _tokens(call: Row) -> Component:
    rows = [
        html.Tr([html.Th(words, scope="row", className="part" if part else ""),
                 html.Td(f"{call[name]:,}" if call[name] is not None else "unknown")])
        for name, words, part in TOKENS
        if not part or call[name] is not None
    ]  # fmt: skip
    rows += [
        html.Tr([html.Th(name.replace("_", " ").capitalize(), scope="row"), html.Td(f"{count:,}")])
        for name, count in sorted(call["units"].items())
    ]
    return html.Table(html.Tbody(rows), className="lines tokens")


def _flags(call: Row) -> Component:
    items = [html.Li([html.B(short, className=tone), f": {words}."]) for short, words, tone in flags(call)]
    return html.Ul(items, className="flags")


def derived(lines: Sequence[Line]) -> Component:
    """The lines of a derivation as a table, a section for each step."""
    bodies = []
    for step, found in groupby(lines, lambda line: line.step):
        if step in SHOWN_ELSEWHERE:
            continue
        rows, last = [], ""
        for line in found:
            source = line.source if line.source != last else ""
            last = line.source
            told = [*_of_entry(line.what), html.Small(linked(source)) if source else None]
            number = f"{int(line.value):,}" if line.value.isdecimal() else line.value
            unit = "" if line.unit == NO_UNIT else line.unit
            value: list[Any] = [number, html.Small(unit)] if line.value else []
            rows.append(html.Tr([html.Th(told, scope="row"), html.Td(value, className=_width(number))]))
        head = html.Tr(html.Th(STEPS.get(step, step), scope="rowgroup", colSpan=2), className="step")
        bodies.append(html.Tbody([head, *rows]))
    return html.Table(bodies, className="lines")


def _of_entry(what: str) -> list[Any]:
    """Words of a line; those of a price entry of one's own lead to it."""
    found = _OWN.match(what)
    if found is None:
        return [what]
    there = Place(opened=Opened("entry", (("id", found["id"]),))).search()
    return [link(found[0], f"/prices{there}", className="there"), what[found.end() :]]


def linked(text: str) -> list[Any]:
    """Text in which web addresses lead to their pages, in a tab of their own."""
    return [_outside(part) if part.startswith(OUTSIDE) else part for part in _SPACE.split(text)]


def _outside(address: str) -> Component:
    end = address.rstrip(",;")
    link_ = html.A(end, href=end, target="_blank", rel="noopener noreferrer", className="outside")
    return html.Span([link_, address[len(end) :]]) if end != address else link_


def _width(value: str) -> str:
    return "short" if len(value) <= SHORT else "long" if len(value) <= LONG else ""


def _reading(call: Row) -> Component:
    facts = [("Rule", call["usage_rule"] or "none"), ("Usage is", call["usage_source"])]
    told = [html.Div([html.Dt(name), html.Dd(words)]) for name, words in facts]
    rows = [html.Tr([html.Th(html.Code(name), scope="row"), html.Td(value)]) for name, value in counters(call)]
    raw = (
        html.Table(html.Tbody(rows), className="lines raw") if rows else html.P("No counters came.", className="quiet")
    )
    return html.Div([html.Dl(told, className="facts"), raw])


def counters(call: Row) -> list[tuple[str, str]]:
    """The raw counters: name and value as text."""
    try:
        told = json.loads(call["usage_raw"] or "{}", parse_float=str, parse_int=str)
    except ValueError:
        return [("as it came", call["usage_raw"])]
    if not isinstance(told, dict):
        return [("as it came", call["usage_raw"])]
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in told.items()]


def origins(call: Row) -> list[tuple[str, str, str]]:
    """(tag, value, where it came from) of every tag that the call carries."""
    elsewhere = dict(part.split(":", 1) for part in (call["tag_sources"] or "").split(",") if ":" in part)
    if call["identity_source"]:
        elsewhere.setdefault("team", call["identity_source"])
    found = [(name, str(call[name])) for name in TAGS if call[name] is not None]
    sources = [elsewhere.get(name, "resource" if name in OF_RESOURCE else "span") for name, _ in found]
    told = [(name, value, SOURCES.get(where, where)) for (name, value), where in zip(found, sources, strict=True)]
    return told + [(name, value, "label") for name, value in sorted(call["labels"].items())]


def _tags(call: Row) -> Component:
    rows = [
        html.Tr([html.Th(name.removesuffix("_id"), scope="row"), html.Td(value), html.Td(html.Small(where))])
        for name, value, where in origins(call)
    ]
    nobody = [] if call["team"] else [html.P("No team: the call is unattributed.", className="quiet")]
    return html.Div([*nobody, html.Table(html.Tbody(rows), className="lines tags") if rows else None])


def _told(tellings: Sequence[Row], listing: Listing) -> Component:
    items = []
    for row in tellings:
        spent = f"{fmt.tokens(row['input_tokens'])} in, {fmt.tokens(row['output_tokens'])} out"
        opener = link(row["scope"] or row["dialect"], listing.href(call=(row["trace_id"], row["span_id"])))
        items.append(html.Li([opener, html.Span(f"{row['signal']} · {spent}"), html.Small(reason(row))]))
    return html.Ul(items, className="tellings")


def _ids(call: Row, listing: Listing, viewer: str | None) -> Component:
    rows = []
    for name, words in IDS:
        value = call[name]
        if value is None:
            continue
        copied = name in COPIED
        copy = html.Button([icon("copy"), html.Span("Copy")], className="button copy", type="button",
                           **data(action="copy", text=value), **aria(label=f"Copy {words.lower()}"))  # fmt: skip
        rows.append(
            html.Tr([html.Th(words, scope="row"), html.Td(html.Code(value)), html.Td(copy if copied else None)])
        )
    trace = link("All calls of this trace", listing.of_trace(call["trace_id"]).href(), className="button")
    api = html.A("As JSON", href=f"/api/v1/calls/{call['trace_id']}/{call['span_id']}", className="button")
    there = html.A(
        "Open in the trace viewer", href=viewer, className="button", target="_blank", rel="noopener noreferrer"
    )
    ways = [trace, *([there] if viewer else []), api]
    return html.Div([html.Table(html.Tbody(rows), className="lines ids"), html.Div(ways, className="pager")])
