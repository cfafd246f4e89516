"""Tables of the Data quality page: pure functions of what was read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, icon, link
from millicent.dashboard.pages.prices_place import Opened, Place
from millicent.dashboard.state import address
from millicent.warehouse.quality import LATE
from millicent.warehouse.record import NOT_COUNTED, USAGE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.state import View
    from millicent.warehouse.quality import Lateness, SetAside
    from millicent.warehouse.unpriced import Unpriced

MOST: Final = 12
QUIET: Final = timedelta(hours=6)
"""A source that others outlive by this long is pointed out."""
LOW: Final = Decimal("0.95")
BY_SOURCE: Final = ("service", "dialect", "signal")
OUTCOMES: Final = {
    "stored": ("Stored", "became rows of the ledger"),
    "duplicate": ("Duplicates", "told of something that is stored already"),
    "not_a_call": ("Not calls", "ordinary spans, and roll-ups over calls that count themselves"),
    "quarantined": ("Quarantine", "cannot be true, and are kept aside"),
    "rejected": ("Rejected", "were sent back to who sent them"),
}
REASONS: Final = {
    "call": "calls", "same_span": "the same span, sent again", "same_point": "the same reading of a metric, sent again",
    "older_point": "a reading older than one that is known", "better_metric": "another metric tells the same, better",
    "nothing_added": "a reading that adds nothing", "folded": "folded into another reading of the same moment",
    "no_dialect": "spans of something else than an LLM call", "bad_ids": "a trace or span id that is none",
    "in_the_future": "it began after it was received", "too_long_ago": "it began before 2020",
    "negative_tokens": "negative tokens", "absurd_tokens": "more tokens than any model can take",
    "damaged_on_disk": "damaged on disk", "energy": "readings of energy",
}  # fmt: skip
"""Why a span left, in words; any other reason says it itself."""
SIGNALS: Final = {"span": "spans", "log": "log events", "metric": "metrics"}


def card(title: str, value: str, beside: str, id_: str) -> Component:
    """A card of a number that is no measure."""
    return html.Section(
        [html.Div(html.H2(title), className="kpi-head"), html.Div(html.Strong(value, id=id_), className="kpi-value"),
         html.Div(html.Span(beside, title=beside), className="kpi-foot")],
        className="card kpi",
    )  # fmt: skip


def share(part: int, whole: int) -> str:
    """A share as text; unknown where there is nothing to have a share in."""
    return fmt.percent(Decimal(part) / whole) if whole else fmt.UNKNOWN


def once(calls: int, left: Sequence[tuple[str, int]]) -> Component:
    """How many further tellings of calls are kept and not counted."""
    again = sum(rows for _, rows in left)
    beside = f"{fmt.count(again)} more tellings of them, not counted again" if again else "nothing was told twice"
    return card("Calls, each counted once", fmt.count(calls), beside, "kpi-once")


def sources(heard: pl.DataFrame, facts: pl.DataFrame, fresh: datetime) -> Component:
    """Who sends calls, most first, with how good they are and when the last one came.

    Args:
        heard: from `warehouse.quality.heard`.
        facts: `service`, `dialect`, `signal`, `calls`, `priced_ratio`, `attributed_ratio`, `missing_usage_calls`.
        fresh: instant through which calls are complete.
    """
    rows = heard.join(facts.drop("calls"), on=BY_SOURCE, how="left", nulls_equal=True)
    body = [_source(row, fresh) for row in rows.head(MOST).iter_rows(named=True)]
    heads = ("Service", "Instrumentation", "Calls", "Last heard", "Priced", "With a team", "Without usage")
    return _table(heads, body, rows.height - len(body), "trust-sources", wordy=2)


def _source(row: dict[str, Any], fresh: datetime) -> Component:
    until = row["last_hour"].astimezone(UTC) + timedelta(hours=1)
    quiet = fresh - until
    heard = "this hour" if until > fresh else f"{fmt.moment(until - timedelta(hours=1))}"
    late = quiet > QUIET
    dialect = (row["dialect"] or "unknown").replace("_", " ")
    return html.Tr(
        [
            html.Th(html.Bdi(row["service"] or "Unknown"), scope="row"),
            html.Td([dialect, html.Small(SIGNALS.get(row["signal"], row["signal"]))]),
            html.Td(fmt.count(int(row["calls"]))),
            html.Td([heard, html.Small("silent since") if late else None], className="warn" if late else ""),
            *(_ratio(row[name]) for name in ("priced_ratio", "attributed_ratio")),
            html.Td(share(row["missing_usage_calls"] or 0, int(row["calls"]))),
        ]
    )


def _ratio(value: Decimal | None) -> Component:
    low = value is not None and value < LOW
    return html.Td(fmt.percent(value), className="warn" if low else "")


def books_words(books: pl.DataFrame) -> str:
    """How many spans were received."""
    received = int(books["spans"].sum() or 0)
    if not received:
        return "nothing came over OTLP in this period; what was imported stands in no book"
    return f"{fmt.count(received)} spans received = all lines below, to the span"


def books(books: pl.DataFrame, left: Sequence[tuple[str, int]], aside: Sequence[SetAside]) -> Component:
    """What became of every span received, by outcome and reason, and what is stored but not counted."""
    total = int(books["spans"].sum() or 0)
    lines: list[Component] = []
    for outcome, (title, words) in OUTCOMES.items():
        found = books.filter(pl.col("outcome") == outcome)
        spans = int(found["spans"].sum() or 0)
        if spans or outcome in {"stored", "quarantined"}:
            lines.append(_line(title, words, spans, total, "sum"))
        if outcome == "stored":
            lines += [
                _line("of them not counted", NOT_COUNTED.get(reason, reason), rows, total) for reason, rows in left
            ]
        else:
            lines += [_line("", REASONS.get(row["reason"], row["reason"].replace("_", " ")), int(row["spans"]), total)
                      for row in found.head(4).iter_rows(named=True)]  # fmt: skip
    table = html.Table(
        [html.Thead(html.Tr([html.Th(words, scope="col") for words in ("What", "Spans", "Share")])), html.Tbody(lines)],
        className="books",
    )  # fmt: skip
    live = html.A("The books of this moment, spool included", href="/api/v1/balance", className="quiet")
    return html.Div([html.Div(table, className="scroll"), *_aside(aside), live])


def _line(title: str, words: str, spans: int, total: int, look: str = "") -> Component:
    name = html.Th([title, html.Small(words)] if title else html.Small(words), scope="row")
    return html.Tr([name, html.Td(fmt.count(spans)), html.Td(share(spans, total))], className=look)


def _aside(aside: Sequence[SetAside]) -> list[Component]:
    if not aside:
        return []
    items = [
        html.Li([html.B(fmt.count(one.spans)), f" {REASONS.get(one.reason, one.reason)}", " from ",
                 html.Bdi(one.service or "an unknown service"), f", last {fmt.moment(one.last_at)}: ",
                 html.Code(one.detail[:120])])
        for one in aside[:4]
    ]  # fmt: skip
    return [html.Div([html.P("In quarantine, with an example each:"), html.Ul(items)], className="reasons")]


def unpriced_words(found: Sequence[Unpriced]) -> str:
    """How many calls have no price, or not all of one."""
    calls = sum(one.calls for one in found)
    return f"{fmt.count(calls)} API calls: their cost is unknown, and in no sum" if calls else "all API calls have one"


def unpriced(found: Sequence[Unpriced], view: View) -> Component:
    """Models without a price, why, and the way to give them one."""
    body = []
    for one in found[:MOST]:
        here = [("p", view.range if view.range != "4w" else None), ("model", one.model)]
        calls = link(fmt.count(one.calls), f"/requests{address(here)}", title="These calls")
        body.append(html.Tr([
            html.Th([html.Bdi(one.model or "Unknown model"), html.Small(one.provider)], scope="row"),
            html.Td(calls), html.Td(fmt.tokens(one.tokens)),
            html.Td(html.Span(one.reason, title=one.reason), className="why"),
        ]))  # fmt: skip
    if not body:
        return _fine("Every API call of this period has a price.")
    fix = link("Add prices", f"/prices{Place(opened=Opened('add')).search()}", className="button")
    table = _table(("Model", "Calls", "Tokens", "Why"), body, len(found) - len(body), "trust-lacking")
    return html.Div([table, html.Div(fix, className="pager")])


def nobodys(frame: pl.DataFrame, view: View) -> Component:
    """Calls that carry no team, by service, most spend first, and how they get one."""
    rows = frame.filter(pl.col("unattributed_calls") > 0).sort(
        "unattributed_spend_usd", descending=True, nulls_last=True
    )
    if rows.is_empty():
        return _fine("Every call of this period carries a team.")
    body = [
        html.Tr([
            html.Th(html.Bdi(row["service"] or "Unknown service"), scope="row"),
            html.Td(fmt.count(row["unattributed_calls"])), html.Td(fmt.usd(row["unattributed_spend_usd"])),
        ])
        for row in rows.head(MOST).iter_rows(named=True)
    ]  # fmt: skip
    table = _table(("Service", "Calls", "Spend"), body, rows.height - len(body), "trust-nobodys")
    service = next((row["service"] for row in rows.iter_rows(named=True) if row["service"]), "SERVICE")
    command = f"millicent rules add --if service={_quoted(service)} --set team=TEAM"
    here = address([("p", view.range if view.range != "4w" else None), ("team", "")])
    see = link("See these calls", f"/requests{here}", className="button")
    copy = html.Button([icon("copy"), html.Span("Copy")], type="button", className="button",
                       **data(action="copy", text=command), **aria(label="Copy the command"))  # fmt: skip
    return html.Div([table, html.Div([see, html.Code(command), copy], className="pager remedy")])


def _quoted(text: str) -> str:
    plain = all(letter.isalnum() or letter in "-_./" for letter in text)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def doubts(found: Sequence[tuple[str, int]], late: Lateness) -> Component:
    """What is doubtful about usage, in words, and how late calls came."""
    hour = LATE // timedelta(hours=1)
    longest = f"; the longest wait was {_wait(late.longest)}" if late.longest else ""
    came = f"{fmt.count(late.late)} of {fmt.count(late.calls)} calls came over {hour} hour after they ended{longest}."
    items = [html.Li([html.B(fmt.count(calls)), " ", USAGE_FLAGS.get(flag, flag.replace("_", " "))])
             for flag, calls in found[:MOST]]  # fmt: skip
    told = html.Ul(items, className="doubts") if items else _fine("No call of this period carries a doubt.")
    return html.Div([told, html.P(came, className="quiet")])


def _wait(span: timedelta) -> str:
    hours, left = divmod(int(span.total_seconds()), 3600)
    return f"{hours:,} h {left // 60} min" if hours else f"{left // 60} min {left % 60} s"


def hardware(own: pl.DataFrame) -> Component:
    """By deployment: which share of its engine's tokens we know the calls of, and of its energy stands on counters."""
    rows = own.filter(pl.col("accelerator_hours") > 0).sort("accelerator_hours", descending=True)
    if rows.is_empty():
        return _fine("No own hardware was paid for in this period.")
    body = [
        html.Tr([
            html.Th(html.Bdi(row["deployment"]), scope="row"), html.Td(fmt.scaled(row["accelerator_hours"], "h")),
            _ratio(row["coverage_ratio"]), html.Td(fmt.percent(row["measured_energy_ratio"])),
            html.Td(fmt.scaled(row["unobserved_accelerator_hours"], "h")),
        ])
        for row in rows.head(MOST).iter_rows(named=True)
    ]  # fmt: skip
    heads = ("Deployment", "Accelerator-hours", "Tokens seen", "Energy measured", "Unobserved")
    return _table(heads, body, rows.height - len(body), "trust-own")


def _table(heads: Sequence[str], body: Sequence[Component], left: int, look: str, wordy: int = 1) -> Component:
    head = [html.Th(words, scope="col", className="" if at < wordy else "number") for at, words in enumerate(heads)]
    return html.Div(
        [html.Div(html.Table([html.Thead(html.Tr(head)), html.Tbody(body)], className=f"trust {look}"),
                  className="scroll"),
         html.P(f"and {left} more" if left > 0 else "", className="quiet")]
    )  # fmt: skip


def _fine(words: str) -> Component:
    return html.P([icon("check"), words], className="fine")
