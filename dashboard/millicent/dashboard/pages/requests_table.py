"""The list of calls as a table: one row a call, what is not counted dimmed, with the reason and where it counts."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR, label
from millicent.dashboard.components import aria, dot, link
from millicent.warehouse.record import NOT_COUNTED, USAGE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.listing import Id, Listing

Row = dict[str, Any]

MOST_FLAGS: Final = 2
DOUBTS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("usage_source", "missing"): ("no usage", "nothing told how many tokens it took, so its cost is unknown"),
    ("usage_source", "estimated"): ("estimated", "its tokens were estimated, not reported"),
    ("price_status", "unpriced"): ("unpriced", "no price is known for this model, so its cost is unknown"),
    ("price_status", "partial"): ("partly priced", "some of its tokens have no price; its cost is at least this"),
}
"""What the value of a column says against a row: short, and in words."""
HARMLESS: Final = ("merged_from_others", "failed_without_usage")
PROVIDERS: Final = {
    "openai": "OpenAI", "anthropic": "Anthropic", "aws.bedrock": "AWS Bedrock", "gcp.gemini": "Google Gemini",
    "gcp.vertex_ai": "Google Vertex AI", "azure.ai.openai": "Azure OpenAI", "azure.ai.inference": "Azure AI",
    "mistral_ai": "Mistral", "cohere": "Cohere", "groq": "Groq", "deepseek": "DeepSeek", "x_ai": "xAI",
    "openai-compatible": "OpenAI-compatible",
}  # fmt: skip
ENGINES: Final = {"vllm": "vLLM", "sglang": "SGLang", "tensorrt-llm": "TensorRT-LLM"}


def calls(
    rows: Sequence[Row], listing: Listing, colour_of: Mapping[str | None, str], following: str | None
) -> Component:
    """One page of calls and the way to the next.

    Args:
        rows: from `warehouse.calls.find`.
        listing: what is shown; a row opens its call within it.
        colour_of: colours by team.
        following: cursor of the next page; None on the last.
    """
    dearest = max((row[listing.amount] for row in rows if row[listing.amount] is not None), default=Decimal(0))
    heads = [
        _sorted(f"Time ({fmt.zone()})", listing, "time"), html.Th("Team", scope="col"), html.Th("Model", scope="col"),
        html.Th("Served by", scope="col"), html.Th("Input", scope="col", className="number"),
        html.Th("Cached", scope="col", className="number"), html.Th("Output", scope="col", className="number"),
        _sorted("Cost", listing, "cost"), html.Th("Status", scope="col"), html.Th("Notes", scope="col"),
    ]  # fmt: skip
    body = [_call(row, listing, colour_of, dearest) for row in rows]
    table = html.Table(
        [html.Thead(html.Tr(heads)), html.Tbody(body)], className="calls", **aria(labelledby="calls-title")
    )
    return html.Div([html.Div(table, className="scroll"), _pager(listing, following)])


def served_by(row: Row) -> str:
    """Provider of an API call; engine and accelerator of our own."""
    if row["billing"] == "api":
        return f"{PROVIDERS.get(row['provider'], row['provider'] or 'Unknown')} API"
    engine = ENGINES.get(row["engine"], row["engine"])
    on = fmt.accelerator(row["accelerator"]) if row["accelerator"] else None
    count = f"{row['accelerator_count']} × " if on and (row["accelerator_count"] or 1) > 1 else ""
    return " on ".join(part for part in (engine, f"{count}{on}" if on else row["deployment"]) if part) or "Own hardware"


def status(row: Row) -> Component:
    """ok, error or cancelled, never by colour alone."""
    tone = {"ok": "good", "error": "bad"}.get(row["status"], "warn")
    return html.Span([html.I(className="lamp", **aria(hidden="true")), row["status"]], className=f"status {tone}",
                     title=row["error_type"])  # fmt: skip


def flags(row: Row) -> list[tuple[str, str, str]]:
    """What to know about how far a row can be trusted: (short, in words, tone)."""
    of_columns = [(short, words, "doubt") for (name, value), (short, words) in DOUBTS.items() if row[name] == value]
    of_usage = [
        (flag.replace("_", " "), USAGE_FLAGS.get(flag, flag), "plain" if flag in HARMLESS else "doubt")
        for flag in row["usage_flags"]
    ]
    return of_columns + of_usage


def reason(row: Row) -> str:
    """Why a row is not counted, in words."""
    told = row["not_counted_reason"]
    return NOT_COUNTED.get(told, told or "no reason was stored")


def counts_instead(row: Row) -> Id | None:
    """The row that counts in the place of one that does not."""
    if row["counted_as"] is None:
        return None
    return row["counted_as_trace_id"] or row["trace_id"], row["counted_as"]


def _sorted(words: str, listing: Listing, by: str) -> Component:
    here = listing.sort == by
    face = [words, html.Span("▼", className="arrow", **aria(hidden="true")) if here else None]
    title = "Most expensive first" if by == "cost" else "Newest first"
    children = html.Span(face) if here else link(face, listing.href(sort=by, after=None, call=None), title=title)
    kind = "number" if by == "cost" else ""
    return html.Th(children, scope="col", className=kind, **(aria(sort="descending") if here else {}))


def _call(row: Row, listing: Listing, colour_of: Mapping[str | None, str], dearest: Decimal) -> Component:
    identity = (row["trace_id"], row["span_id"])
    at, team = row["started_at"], label("team", row["team"])
    when = [html.Span(fmt.day(at), className="day"), f"{at:%H:%M:%S}"]
    opener = link(when, listing.href(call=identity), id=f"call-{'.'.join(identity)}",
                  title=f"{row['model'] or 'Unknown'} for {team}: why it costs what it does")  # fmt: skip
    team_cell = html.Span([dot(colour_of.get(row["team"], OTHER_COLOUR)), html.Span(team, className="name")])
    notes = _notes(row, listing)
    narrow = [
        html.Small([html.Bdi(team), f" · {served_by(row)}"]),
        html.Small(notes, className="notes") if notes else None,
    ]
    model = [html.Span(row["model"] or "Unknown", className="name"), *narrow]
    cached = row["cache_read_tokens"], row["input_tokens"]
    share = Decimal(cached[0]) / cached[1] if cached[0] is not None and cached[1] else None
    return html.Tr(
        [
            html.Th(opener, scope="row"),
            html.Td(team_cell, className="team" if row["team"] else "team unattributed"),
            html.Td(model, className="model"),
            html.Td(html.Span(served_by(row), className="name", title=row["deployment"]), className="served"),
            html.Td(fmt.tokens(row["input_tokens"]), className="number", title=fmt.count(row["input_tokens"])),
            html.Td(fmt.percent(share, 0), className="number cached", title=fmt.count(row["cache_read_tokens"])),
            html.Td(fmt.tokens(row["output_tokens"]), className="number", title=fmt.count(row["output_tokens"])),
            _cost(row, listing, dearest),
            html.Td(status(row), className="state"),
            html.Td(notes, className="notes"),
        ],
        className="" if row["counted"] else "uncounted",
    )


def _cost(row: Row, listing: Listing, dearest: Decimal) -> Component:
    amount: Decimal | None = row[listing.amount]
    bar = html.I(className="bar", style={"--share": f"{amount / dearest:.1%}"}) if amount and row["counted"] else None
    words = [html.Span("would be ", className="unseen")] if not row["counted"] else []
    title = f"{fmt.usd_exact(amount)}, {listing.cost}" if row["counted"] else "In no sum: it is counted elsewhere"
    return html.Td([bar, *words, html.Span(fmt.usd(amount), className="amount")], className="number cost", title=title)


def _notes(row: Row, listing: Listing) -> list[Component]:
    if not row["counted"]:
        there = counts_instead(row)
        goes = link("counted there", listing.href(call=there), className="there") if there else None
        return [html.Span(["Not counted: ", reason(row)], className="why"), *([goes] if goes else [])]
    found = flags(row)
    tags: list[Component] = [
        html.Span(short, className=f"tag {tone}", title=words) for short, words, tone in found[:MOST_FLAGS]
    ]
    left = found[MOST_FLAGS:]
    more = html.Span(f"+{len(left)}", className="tag plain", title="; ".join(words for _, words, _ in left))
    return [*tags, more] if left else tags


def _pager(listing: Listing, following: str | None) -> Component:
    links = []
    if listing.after:
        links.append(link("First page", listing.href(after=None, call=None), className="button", **{"data-top": ""}))
    if following:
        words = "Next 50, older" if listing.newest else "Next 50, less expensive"
        links.append(link(words, listing.href(after=following, call=None), className="button", **{"data-top": ""}))
    return html.Nav(links, className="pager", **aria(label="Pages of calls"))
