"""How a figure came about, in a drawer beside it: its words, its sums, its parts, its hours, and the calls behind it.

A page shows figures with `opener`, keeps what is open under `open` of its address, and calls `register`. Everything in
the drawer is asked again with the very filters of the page, so that it cannot tell another number.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, html, no_update

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import label
from millicent.dashboard.components import aria, data, delta, icon, link
from millicent.dashboard.pages import derivation_calls, derivation_hours
from millicent.dashboard.pages.answering import shelved
from millicent.dashboard.pages.figures import OWN, Figure, exact, opener, own, sums_of, written
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import HARDWARE_FILTERS, api_query
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import BadQuery, Basis, Period

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from dash.development.base_component import Component

    from millicent.dashboard.state import View
    from millicent.warehouse.metrics import Measure
    from millicent.warehouse.store import Warehouse

__all__ = ["Figure", "drawer", "exact", "opener", "own", "register", "shelf"]

Row = dict[str, Any]

BASES: Final[dict[Basis, str]] = {
    "list": "API list price", "billed": "as billed by API providers", "effective": "effective, idle included",
    "usage": "busy time only, without idle", "marginal": "electricity only",
}  # fmt: skip
UNITS: Final = {
    "usd_per_mtok": "USD per 1M tokens", "usd": "USD", "ratio": "", "count": "", "hours": "h", "wh": "Wh",
    "joules": "J", "g_per_mtok": "g per 1M tokens", "tokens_per_joule": "tokens per J",
    "tokens_per_second": "tokens per s",
}  # fmt: skip


def register(
    app: Dash, warehouse: Warehouse, prefix: str, view_of: Callable[[str | None], View],
    also: Callable[[Reader, str], Component | None] | None = None,
    form: Callable[[str], Component | None] | None = None,
) -> None:  # fmt: skip
    """Add the drawer to a page, which has `{prefix}-look`, `-scope` and `-open` stores and a `{prefix}-drawer`.

    Args:
        app: the application.
        warehouse: what is asked.
        prefix: what the ids of the page begin with; empty where they are the plain names.
        view_of: reads the view out of the page's scope: `own` of it where the page tells of own hardware alone.
        also: what stands in the drawer for what else a page opens; None where that is nothing of its own.
        form: a form that a page opens, whatever there is to see; None where that is something else. What was typed in
            it stays when the filters change.
    """

    def part(name: str) -> str:
        return f"{prefix}-{name}" if prefix else name

    browser: Any = app.clientside_callback
    browser(
        ClientsideFunction("millicent", "unfolded"),
        Output(part("open"), "data"), Input(part("look"), "data"), State(part("open"), "data"),
    )  # fmt: skip
    browser(ClientsideFunction("millicent", "shelf"), Input(part("drawer"), "children"), Input(part("open"), "data"))

    @app.callback(Output(part("drawer"), "children"), Input(part("open"), "data"), Input(part("scope"), "data"))
    async def opened(open_: str | None, scope: str | None) -> Any:
        if form is not None and open_ and (found := await asyncio.to_thread(form, open_)) is not None:
            return no_update if list(ctx.triggered_prop_ids) == [part("scope") + ".data"] else found
        return shelved(await asyncio.to_thread(_opened, warehouse, open_, view_of(scope), also))


def _opened(
    warehouse: Warehouse, open_: str | None, view: View, also: Callable[[Reader, str], Component | None] | None
) -> Component | None:
    if not open_:
        return None
    figure = Figure.parse(open_)
    reader = Reader.allowed(warehouse, view, declared=True)
    if figure is None and reader is not None and also is not None and (own_ := also(reader, open_)):
        return own_
    if figure is None or reader is None:
        return shelf("There is no such figure", "The address is mistyped, or of another version.", [])
    return drawer(reader, figure)


def drawer(reader: Reader, figure: Figure) -> Component:
    """Everything about a figure, or about the hour that is open in it.

    Args:
        reader: who looks, with the view of `own`.
        figure: what is open.
    """
    measure, window = DICTIONARY[figure.measure], reader.window
    period = figure.during or window.period
    words = [fmt.span(period.start, period.end), f" {fmt.zone()}", *(f" · {one}" for one in _narrowed(figure))]
    if figure.hour is not None:
        return shelf(measure.label, words, derivation_hours.hour(reader, figure), key=figure.written)
    try:
        now = _row(reader, figure, period)
        before = _row(reader, figure, window.prior) if window.prior and not figure.during else None
    except BadQuery as error:
        told = "It cannot be told with these filters. " + str(error)
        return shelf(measure.label, words, [html.P(told, className="banner"), _definition(measure, figure)],
                     key=figure.written)  # fmt: skip
    body = [
        _values(measure, now, before, reader),
        _section("What it is", _definition(measure, figure)),
        _section("Its sums, exactly", _sums(measure, now)),
        _section("Its parts", _parts(reader, figure, measure, period)),
        _section("Its calls", derivation_calls.calls(reader, figure, period)),
        _section("Deployment-hours behind it", _hours(reader, figure, measure, period)),
        _section("What was asked", _asked(reader, figure, period)),
    ]
    return shelf(measure.label, words, body, key=figure.written)


def _hours(reader: Reader, figure: Figure, measure: Measure, period: Period) -> Component | None:
    """The hours of own hardware in it; None where none is, or none could be."""
    kinds = [values for name, values in (*reader.view.filters, *_told(figure)) if name == "cost_type"]
    if figure.hour is None and OWN not in reader.view.filters:
        money = {*sums_of(measure)} & {*derivation_hours.OF_HARDWARE} or measure.of_deployments
        api_alone = any("api" in values and len(values) == 1 for values in kinds)
        if not money or api_alone or derivation_hours.behind(reader, figure, period).is_empty():
            return None
    return derivation_hours.hours(reader, figure, period)


def _told(figure: Figure) -> list[tuple[str, tuple[str | None, ...]]]:
    return [(name, (value,)) for name, value in figure.kept]


def _row(reader: Reader, figure: Figure, period: Period) -> Row:
    names = sums_of(DICTIONARY[figure.measure])
    query = figure.asked(reader.view, period, tuple(dict.fromkeys((figure.measure, *names))))
    return reader.warehouse.ask(reader.tenant, query).frame.row(0, named=True)


def shelf(title: str, words: Any, body: Sequence[Any], *, key: str = "none") -> Component:
    """The drawer with something in it, and the way back; what has another `key` is another thing, drawn anew."""
    close = link(icon("close"), "?", className="button square", **data(close="", opens=""), **aria(label="Close"),
                 title="Close (Esc)")  # fmt: skip
    head = html.Div([html.Div([html.H2(title, id="derivation-title"), html.P(words)]), close], className="drawer-head")
    return html.Section(
        [head, *filter(None, body)], role="dialog", tabIndex=-1, className="derivation",
        key=key, **aria(labelledby="derivation-title"),
    )  # fmt: skip


def _section(title: str, body: Any) -> Component | None:
    return html.Div([html.H3(title), body]) if body is not None else None


def _narrowed(figure: Figure) -> list[str]:
    return [label(name, value) if value else f"unknown {name}" for name, value in figure.kept]


def _values(measure: Measure, now: Row, before: Row | None, reader: Reader) -> Component:
    value, was = now[measure.name], before[measure.name] if before else None
    moved = fmt.change(value, was, unit=measure.unit, better=measure.better)
    facts: list[tuple[str, Any, str | None]] = [
        ("In this period", fmt.value_text(value, measure.unit), exact(value, measure.unit))
    ]
    if before is not None and reader.window.prior:
        span = fmt.span(reader.window.prior.start, reader.window.prior.end, year=False)
        facts.append((span, fmt.value_text(was, measure.unit), exact(was, measure.unit)))
        facts.append(("Change", delta(moved, fmt.UNKNOWN), None))
    return html.Dl(
        [html.Div([html.Dt(name), html.Dd(face, title=told)]) for name, face, told in facts], className="costs"
    )


def _named(name: str, value: str | None) -> str:
    return label(name, value) if value else "unknown"


def _definition(measure: Measure, figure: Figure) -> Component:
    basis = f"Cost basis: {BASES[figure.basis]}." if "spend_usd" in sums_of(measure) else None
    return html.Div(
        [html.P(measure.words, className="lead"), html.P(html.Code(measure.formula)), html.P(basis) if basis else None],
        className="definition",
    )


def _sums(measure: Measure, now: Row) -> Component:
    rows = [_amount(DICTIONARY[name], now[name]) for name in sums_of(measure)]
    if measure.numerator:
        times = f" × {measure.scale:,}" if measure.scale != 1 else ""
        what = f"{measure.label}: the first ÷ the second{times}, at 12 decimals"
        rows.append(_amount(measure, now[measure.name], what))
    return html.Table(html.Tbody(rows), className="lines")


def _amount(measure: Measure, value: Decimal | int | None, what: str | None = None) -> Component:
    told = exact(value, measure.unit)
    unit = UNITS.get(measure.unit, measure.unit.replace("_", " ")).replace("USD", fmt.presented().currency)
    name: list[Any] = [what or measure.label, html.Small(None if what else measure.words)]
    return html.Tr([html.Th(name, scope="row"), html.Td([told, html.Small(unit)] if value is not None else told)])


def _parts(reader: Reader, figure: Figure, measure: Measure, period: Period) -> Component | None:
    """What the sum, or the numerator, is made of: calls, idle, unavailable, untracked."""
    name = sums_of(measure)[0]
    query = figure.asked(reader.view, period, (name,), ("cost_type",))
    found = reader.warehouse.ask(reader.tenant, query).frame.filter(pl.col(name).is_not_null())
    if found.height < 2:
        return None
    unit = DICTIONARY[name].unit
    rows = [
        html.Tr([html.Th(label("cost_type", row["cost_type"]), scope="row"), html.Td(exact(row[name], unit))])
        for row in found.iter_rows(named=True)
    ]
    return html.Table(html.Tbody(rows), className="lines")


def _asked(reader: Reader, figure: Figure, period: Period) -> Component:
    chosen = {name: values for name, values in reader.view.filters if (name, values) != OWN}
    facts = [("Period", f"{written(period.start)} to {written(period.end)} UTC, the end not included")]
    facts += [
        (name.replace("_", " ").capitalize(), ", ".join(_named(name, value) for value in values))
        for name in dict.fromkeys([*HARDWARE_FILTERS, *chosen, *dict(figure.kept)])
        if (values := (*chosen.get(name, ()), *(value for key, value in figure.kept if key == name)))
    ]
    if OWN in reader.view.filters:
        facts.append(("Counted", "own hardware: its calls, idle, unavailable and untracked"))
    query = figure.asked(
        reader.view, period, tuple(dict.fromkeys((figure.measure, *sums_of(DICTIONARY[figure.measure]))))
    )
    api = html.A("As JSON", href=api_query(query), className="button")
    told = [html.Div([html.Dt(name), html.Dd(words)]) for name, words in facts]
    return html.Div([html.Dl(told, className="facts asked"), html.Div(api, className="pager")])
