"""A statement on the screen: its lines, where they went, its rule and its control totals; and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import COST_COLOURS, OTHER_COLOUR, PALETTE
from millicent.dashboard.components import dot, icon, link
from millicent.dashboard.pages.figures import Figure, opener
from millicent.dashboard.statements import ROUNDING, added
from millicent.warehouse.record import IDLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dash.development.base_component import Component

    from millicent.dashboard.months import Month
    from millicent.dashboard.pages.teams_place import Looked
    from millicent.dashboard.statement_files import Form
    from millicent.dashboard.statements import Amount, Line, Statement

FILES: Final[dict[Form, tuple[str, str]]] = {
    "pdf": ("PDF", "to send"), "xlsx": ("Excel", "with notes and totals"), "csv": ("CSV", "opens everywhere"),
}  # fmt: skip
"""Files of a statement: how they are called, and what they are good for."""
MOST: Final = 10
COLOURS: Final = {**COST_COLOURS, "charge": PALETTE[4], "adjustment": PALETTE[4]}


def money(amount: Amount) -> str:
    """To the cent, always: `$1,234.50`, `−$0.01`, `$0.00`."""
    if amount is None:
        return fmt.UNKNOWN
    return f"{fmt.MINUS if amount < 0 else ''}{fmt.presented().sign}{abs(amount):,.2f}"


def file_address(place: Looked, month: Month, form: Form) -> str:
    """Where the API answers the statement that is shown, as a file."""
    pairs = [*(("team", name or "") for name in place.who), ("month", month.written), ("format", form)]
    shown = fmt.presented()
    pairs += [("time_zone", str(shown.zone)), ("currency", shown.currency)]
    return f"/api/v1/exports/statement?{urlencode(pairs, quote_via=quote)}"


def statement(shown: Statement, place: Looked, colour_of: Mapping[str | None, str]) -> Component:
    """All of a statement."""
    here = place.href()
    files = [
        html.A([icon("download"), label], href=file_address(place, shown.monthly.month, form), className="button",
               download="", title=f"The statement as {label}, {words}")
        for form, (label, words) in FILES.items()
    ]  # fmt: skip
    return html.Div(
        [
            html.Div([html.Strong(money(shown.total), id="statement-total"), html.Div(files, className="files-of")],
                     className="sum"),
            _table("What it is made of", shown.lines, "cost_type", here, COLOURS),
            html.Div(
                [_table("By feature", _top(shown.features), "feature", here, shares=False),
                 _table("By model", _top(shown.models), "model", here, colour_of, shares=False)],
                className="pair",
            ),
            html.H3("How the amounts came about"),
            html.Ul([html.Li(rule) for rule in shown.rules], className="rule-words"),
            _table("Control totals: everybody's month", shown.monthly.control(shown.who), None, here),
        ],
        className="statement",
    )  # fmt: skip


def charged_nothing(place: Looked, month: Month, last: Month | None) -> Component:
    """Why there is no chargeback of an open month, and where there is."""
    words = [html.P(f"{month.words} is open, so nothing is charged: its amounts may still change.")]
    ways = [link("Show what it would be", place.href(manner="showback"), className="button")]
    if last:
        ways.append(link(f"Statement of {last.words}", place.href(month=last, manner="chargeback"), className="button"))
    ways.append(html.A("How a month is closed", href="#closing", className="button"))
    return html.Div([*words, html.Div(ways, className="pager")], className="uncharged")


def _table(
    title: str, lines: Sequence[Line], dimension: str | None, here: str, colour_of: Mapping[Any, str] | None = None,
    *, shares: bool = True,
) -> Component:  # fmt: skip
    *rows, total = lines
    whole = total.amount
    body = []
    for one in rows:
        links = dimension is not None and one.name != ROUNDING and one.amount
        figure = Figure(measure="spend_usd", kept=((dimension, one.key),)) if dimension else None
        amount: Any = opener(money(one.amount), figure, here) if links and figure else money(one.amount)
        colour = (colour_of or {}).get(one.key, OTHER_COLOUR)
        mark = [dot(colour, hatched=one.key in {"idle", IDLE})] if colour_of is not None else []
        share = fmt.percent(one.amount / whole, 1) if one.amount and whole else ""
        head = html.Th(html.Span([*mark, html.Span(one.name, className="name")]), scope="row", title=one.name)
        beside = [html.Td(share, className="share")] if shares else []
        body.append(html.Tr([head, *beside, html.Td(amount)]))
    beside = [html.Td()] if shares else []
    foot = html.Tr([html.Th(total.name, scope="row"), *beside, html.Td(money(total.amount))])
    heads = ("Item", "Share", "Amount") if shares else ("Item", "Amount")
    return html.Table(
        [html.Caption(title), html.Thead(html.Tr([html.Th(head, scope="col") for head in heads]), className="unseen"),
         html.Tbody(body), html.Tfoot(foot)],
        className="lines-of",
    )  # fmt: skip


def _top(lines: Sequence[Line]) -> list[Line]:
    """The dearest, and the others as one; the total stays last."""
    *rows, total = lines
    if len(rows) <= MOST + 1:
        return list(lines)
    rest = rows[MOST:]
    together = type(total)("rounding", f"and {len(rest)} more", added(one.amount for one in rest))
    return [*rows[:MOST], together, total]
