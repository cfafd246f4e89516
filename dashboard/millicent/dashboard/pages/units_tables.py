"""Tables of the Unit economics page: what one of each unit costs and earns, and how costs of calls spread by value."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, delta, link, popover

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.pages.units_sums import Counted
    from millicent.dashboard.state import View
    from millicent.warehouse.spread import Concentration

MOST: Final = 12
SPREAD: Final = ("Spend", "Calls", "Per call", "Half below", "95% below", "99% below", "Users", "Per user")
EXAMPLE: Final = """unit,day,quantity,feature,revenue_usd
resolved ticket,2026-11-23,1204,triage,301.00
resolved ticket,2026-11-24,1187,triage,296.75"""


def what_is_counted(counted: Sequence[Counted], before: Mapping[str, Counted], chosen: str, view: View) -> Component:
    """A row a unit, the call first: how many, what one costs, what it earns; a click draws it."""
    rows = [_unit(one, before.get(one.name), chosen, view) for one in counted]
    heads = [
        html.Th(words, scope="col") for words in ("Unit", "How many", "Cost each", "Change", "Revenue each", "Margin")
    ]
    table = html.Table([html.Thead(html.Tr(heads)), html.Tbody(rows)], className="ranked units-list",
                       **aria(labelledby="counted-title"))  # fmt: skip
    return html.Div([html.Div(table, className="scroll"), _how_to_add(only_calls=len(counted) == 1)])


def spreads(
    frame: pl.DataFrame, people: Mapping[str | None, tuple[int, Decimal | None]], dimension: str, view: View
) -> Component | None:
    """A row a value, most spend first, with quantiles of the cost of its calls; None where there are none.

    Args:
        frame: from `warehouse.spread.per_call`, in the currency shown.
        people: users and their spend, by value.
        dimension: what the rows are values of.
        view: of the page.
    """
    rows = [row for row in frame.iter_rows(named=True) if row["calls"] or row["unknown_calls"]]
    if not rows:
        return None
    heads = [html.Th(words, scope="col") for words in (dimension.capitalize(), *SPREAD)]
    body = [_value(row, people.get(row[dimension], (0, None)), dimension, view) for row in rows[:MOST]]
    table = html.Table([html.Thead(html.Tr(heads)), html.Tbody(body)], className="ranked",
                       **aria(labelledby="calls-spread-title"))  # fmt: skip
    more = html.P(f"and {len(rows) - MOST} more", className="quiet") if len(rows) > MOST else None
    return html.Div([html.Div(table, className="scroll"), more])


def who(found: Concentration) -> Component:
    """The most costly users, and the calls of which nobody knows who asked."""
    rows = [
        html.Tr([html.Th(html.Span(one.user_id, className="name"), scope="row"), html.Td(fmt.count(one.calls)),
                 html.Td(fmt.usd(one.spend_usd))])
        for one in found.top[:5]
    ]  # fmt: skip
    heads = [html.Th(words, scope="col") for words in ("Most costly users", "Calls", "Cost")]
    nobody = html.Tr([html.Th("No user told", scope="row"), html.Td(fmt.count(found.unknown_calls)),
                      html.Td(fmt.usd(found.unknown_spend_usd))], className="nobody")  # fmt: skip
    return html.Table([html.Thead(html.Tr(heads)), html.Tbody([*rows, nobody])], className="ranked tight",
                      **aria(labelledby="users-title"))  # fmt: skip


def _unit(one: Counted, before: Counted | None, chosen: str, view: View) -> Component:
    words = one.name or "Call"
    base = view.href()
    href = base if not one.name else f"{base if base != '?' else '?v=1'}&in={quote(one.name, safe='')}"
    told = "every call counts" if not one.name else _days(one)
    name = link([html.Span(words, className="name"), html.Small(told)], href, title=f"Draw {words}", **data(keep="by"))
    change = fmt.change(one.each_usd, before.each_usd if before else None, unit="usd", better="lower")
    revenue = one.revenue_usd / one.quantity if one.revenue_usd is not None and one.quantity else None
    margin = one.margin_ratio
    return html.Tr(
        [
            html.Th(name, scope="row"),
            html.Td(fmt.count(one.quantity), title=f"{one.quantity.normalize():,f}"),
            html.Td([html.B(fmt.usd(one.each_usd)), html.Small(_takes(one))], title=fmt.usd_exact(one.spend_usd)),
            html.Td(delta(change, fmt.UNKNOWN)),
            html.Td(fmt.usd(revenue), title=fmt.usd_exact(one.revenue_usd)),
            html.Td([fmt.percent(margin, 0), html.Small(fmt.usd(one.margin_usd) if margin is not None else "")],
                    className="bad" if margin is not None and margin < 0 else ""),
        ],
        className="selected" if one.name == chosen else "",
        **(aria(current="true") if one.name == chosen else {}),
    )  # fmt: skip


def _days(one: Counted) -> str:
    told, whole = one.days
    return f"told for all {whole} days" if told == whole else f"told for {told} of {whole} days"


def _takes(one: Counted) -> str:
    return f"{fmt.plain(one.calls_each)} calls" if one.name and one.calls_each is not None else ""


def _value(row: dict[str, Any], people: tuple[int, Decimal | None], dimension: str, view: View) -> Component:
    value = row[dimension]
    words = label(dimension, value)
    face, href = html.Span(words, className="name"), view.toggled(**{dimension: value}).href()
    name = link(face, href, title=f"Show only {words}", **data(keep="by in"))
    number, spend = people
    each = row["spend_usd"] / row["calls"] if row["spend_usd"] is not None and row["calls"] else None
    per_user = spend / number if spend is not None and number else None
    quantiles = [html.Td(fmt.usd(row[name])) for name in ("p50_usd", "p95_usd", "p99_usd")]
    unknown = f", and {fmt.count(row['unknown_calls'])} of unknown cost" if row["unknown_calls"] else ""
    return html.Tr(
        [
            html.Th(name, scope="row"),
            html.Td(fmt.usd(row["spend_usd"]), title=fmt.usd_exact(row["spend_usd"])),
            html.Td(fmt.count(row["calls"]), title=f"{row['calls']:,} of known cost{unknown}"),
            html.Td(html.B(fmt.usd(each))),
            *quantiles,
            html.Td(fmt.count(number) if number else fmt.UNKNOWN),
            html.Td(fmt.usd(per_user)),
        ],
        className="selected" if view.chosen(dimension) == (value,) else "",
    )


def _how_to_add(*, only_calls: bool) -> Component:
    """How what the company counts comes here."""
    body = [
        html.P("Upload what you count, by UTC day: tickets, documents, orders. Team, feature and customer say which "
               "calls it is about; revenue gives the margin. The same rows again change nothing."),
        html.Pre(EXAMPLE),
        html.P([html.Code("millicent import units FILE.csv"), " or ", html.Code("POST /api/v1/units")]),
    ]  # fmt: skip
    face = "Count something of your own" if only_calls else "How to add or correct units"
    return html.Div(popover(html.Span(face, className="quiet"), body), className="hint")
