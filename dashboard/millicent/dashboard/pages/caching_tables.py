"""Tables of the Caching page: models with their prices and break-even, and what features missed."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, link
from millicent.warehouse.metrics import MTOK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.caching_sums import Home, Missed
    from millicent.dashboard.state import View

MOST: Final = 20
MOST_MISSED: Final = 12
HOMES: Final = (
    ("Model", ""), ("Input", "all input tokens"), ("Hit", "cached over all input tokens"),
    ("Uncached", "price of 1M uncached input tokens"), ("Cached", "price of 1M input tokens read from a cache"),
    ("Write", "price of 1M input tokens written to a cache"),
    ("Break-even", "reads over reads and writes from which caching pays, and what they are"),
    ("Saved", "avoided less write premium"), ("", "whether it pays"),
)  # fmt: skip
MISSED: Final = (
    ("Feature", ""), ("Hit", "cached over all input tokens"), ("Against", "the hit rate that it is held against"),
    ("Missed", "what it would have saved beyond"),
)  # fmt: skip


def homes(found: Sequence[Home], view: View) -> Component:
    """A row a model and where it runs, most input first."""
    shown = [home for home in found if home.input_tokens]
    rows = [_home(home, view) for home in shown[:MOST]]
    return html.Div([_table(HOMES, rows, "homes"), *_more(len(shown) - MOST, "models")])


def missed(found: Sequence[Missed], view: View) -> Component | None:
    """A row a feature and model, most missed first; None where nothing was."""
    if not found:
        return None
    dearest = found[0].missed_usd
    rows = [_missed(one, view, dearest) for one in found[:MOST_MISSED]]
    return html.Div([_table(MISSED, rows, "missed"), *_more(len(found) - MOST_MISSED, "features and models")])


def _home(home: Home, view: View) -> Component:
    tone, state, why = _verdict(home)
    name = _name("model", home.model, "own hardware" if home.own else "API", view)
    cells = [
        (fmt.tokens(home.input_tokens), fmt.count(home.input_tokens)),
        (_bar(home.hit), None),
        *((_price(amount), None) for amount in (home.plain_usd, home.read_usd, home.write_usd)),
        (_even(home), None),
        (fmt.usd(home.saved_usd), fmt.usd_exact(home.saved_usd)),
    ]
    return html.Tr(
        [html.Th(name, scope="row"), *(html.Td(face, title=title) for face, title in cells),
         html.Td(html.Span(state, className=f"tag {tone}", title=why))],
        className="selected" if view.chosen("model") == (home.model,) else "",
    )  # fmt: skip


def _verdict(home: Home) -> tuple[str, str, str]:
    """Whether caching pays, short and in words."""
    if not home.read_tokens and not home.written_tokens:
        return "unused", "not used", "nothing was read from or written to a cache"
    if home.saved_usd is None:
        return "doubt", "unknown", "no price is known for it"
    if home.saved_usd < 0:
        return "doubt", "costs more", "writing cost more than reading saved: cache what is read again, or less"
    if not home.saved_usd:
        return "unused", "no effect", "cached input costs as much as uncached"
    return "good", "pays", "reading saved more than writing cost"


def _missed(one: Missed, view: View, dearest: Decimal) -> Component:
    where = f"{label('model', one.model)}, {'own hardware' if one.own else 'API'}"
    name = _name("feature", one.feature, where, view)
    share = html.I(className="bar", style={"--share": f"{one.missed_usd / dearest:.1%}"}, **aria(hidden="true"))
    return html.Tr(
        [
            html.Th(name, scope="row"),
            html.Td(_bar(one.hit)),
            html.Td(fmt.percent(one.target, 0)),
            html.Td([share, fmt.usd(one.missed_usd)], title=fmt.usd_exact(one.missed_usd), className="worth"),
        ],
    )  # fmt: skip


def _name(dimension: str, value: str | None, under: str, view: View) -> Component:
    """What a row is about, as a link that keeps it alone, with what it is under it."""
    words = label(dimension, value)
    href = view.toggled(**{dimension: value}).href()
    face = [html.Span(words, className="name"), html.Small(under)]
    return link(face, href, title=f"Show only {words}", **data(keep="in"))


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Component], name: str) -> Component:
    heads = [
        html.Th(words or html.Span("Verdict", className="unseen"), scope="col", title=title or None)
        for words, title in columns
    ]
    table = html.Table([html.Thead(html.Tr(heads)), html.Tbody(rows)], className="ranked",
                       **aria(labelledby=f"{name}-title"))  # fmt: skip
    return html.Div(table, className="scroll")


def _more(number: int, what: str) -> list[Component]:
    return [html.P(f"and {number} more {what}", className="quiet")] if number > 0 else []


def _bar(share: Decimal | None) -> Any:
    if share is None:
        return fmt.UNKNOWN
    mark = html.I(className="bar", style={"--share": f"{share:.1%}"}, **aria(hidden="true"))
    return html.Span([mark, html.Span(fmt.percent(share, 0))], className="share")


def _price(per_token: Decimal | None) -> str:
    return fmt.usd(None if per_token is None else per_token * MTOK)


def _even(home: Home) -> Any:
    if home.break_even is None:
        return fmt.UNKNOWN
    if not home.break_even:
        return "any hit"
    return [fmt.percent(home.break_even, 0), html.Small(f"has {fmt.percent(home.reuse, 0)}")]
