"""The deployment-hours behind a figure, and the lines of one of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import polars as pl
from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, icon
from millicent.dashboard.pages.figures import Figure, exact, opener
from millicent.dashboard.pages.requests_drawer import derived
from millicent.warehouse.tables import OF_DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dash.development.base_component import Component

    from millicent.dashboard.reader import Reader
    from millicent.warehouse.query import Period

MOST: Final = 24
OF_HARDWARE: Final = frozenset({
    "spend_usd", "capacity_cost_usd", "hardware_cost_usd", "idle_cost_usd", "unavailable_cost_usd",
    "untracked_cost_usd",
})  # fmt: skip
"""Sums that hold the cost of own hardware."""
PAID: Final = pl.col("fixed_usd") + pl.col("energy_usd") + pl.col("hosting_usd")
READ: Final = ("hour", "deployment", "elapsed_ms", "busy_ms", "idle_usd", "input_tokens", "output_tokens",
               "provisional")  # fmt: skip


def hours(reader: Reader, figure: Figure, period: Period) -> Component:
    """The hours behind a figure, most expensive or newest first, with what they cost in sum."""
    found = behind(reader, figure, period)
    if found.is_empty():
        told = "No deployment-hour is behind it: nothing is declared for these filters."
        return html.P(told, className="quiet")
    order = ["hour", "paid_usd"] if figure.newest else ["paid_usd", "hour"]
    rows = found.sort([*order, "deployment"], descending=[True, True, False]).head(MOST)
    whole = found.select(pl.col("paid_usd").sum()).item()
    count = f"{found.height:,} {'hour' if found.height == 1 else 'hours'}"
    shown = f", the {rows.height} {'newest' if figure.newest else 'most expensive'} here" if found.height > MOST else ""
    other = replace(figure, newest=not figure.newest)
    switch = opener("Most expensive first" if figure.newest else "Newest first", other, className="there")
    heads = [html.Th(name, scope="col") for name in (f"Hour ({fmt.zone()})", "Deployment", "Cost", "Busy", "Idle",
                                                     "Tokens")]  # fmt: skip
    with fmt.stored():
        head = html.P([html.B(count), " cost ", html.B(fmt.usd_exact(whole), title=exact(whole, "usd")), f"{shown}. ",
                       switch], className="sum")  # fmt: skip
        body = [_row(row, figure) for row in rows.iter_rows(named=True)]
    return html.Div([head, html.Table([html.Thead(html.Tr(heads)), html.Tbody(body)], className="hours")])


def behind(reader: Reader, figure: Figure, period: Period) -> pl.DataFrame:
    """Deployment-hours of the deployments that a figure counts: `READ`, and what was paid for each as `paid_usd`."""
    kept = [*reader.view.filters, *((name, (value,)) for name, value in figure.kept)]
    chosen = [(name, values) for name, values in kept if name in OF_DEPLOYMENTS]
    of_one = next((values[0] for name, values in chosen if name == "deployment" and len(values) == 1), None)
    found = reader.warehouse.hours(reader.tenant, period, of_one)
    for name, values in chosen:
        found = found.filter(pl.col(name).is_in(list(values), nulls_equal=True))
    if any(name not in {*OF_DEPLOYMENTS, "cost_type"} for name, _ in kept):
        served = figure.asked(reader.view, period, ("calls",), ("deployment",))
        names = reader.warehouse.ask(reader.tenant, served).frame["deployment"].to_list()
        found = found.filter(pl.col("deployment").is_in(names))
    return found.select(*READ, paid_usd=PAID)


def _row(row: Mapping[str, Any], figure: Figure) -> Component:
    at, name = row["hour"].replace(tzinfo=UTC), row["deployment"]
    so_far = html.Small(" so far") if row["provisional"] else None
    busy = fmt.percent(row["busy_ms"] / row["elapsed_ms"], 0) if row["elapsed_ms"] else fmt.UNKNOWN
    known = [row[side] for side in ("input_tokens", "output_tokens") if row[side] is not None]
    opens = replace(figure, hour=(name, at))
    return html.Tr(
        [html.Th([opener(fmt.moment(at), opens, title=f"Every line of this hour of {name}"), so_far], scope="row"),
         html.Td(html.Span(name, className="name", title=name)),
         html.Td(fmt.usd(row["paid_usd"]), title=exact(row["paid_usd"], "usd")), html.Td(busy),
         html.Td(fmt.usd(row["idle_usd"]), title=exact(row["idle_usd"], "usd")),
         html.Td(fmt.tokens(sum(known)) if known else fmt.UNKNOWN)]
    )  # fmt: skip


def hour(reader: Reader, figure: Figure) -> list[Component]:
    """The lines of the hour that is open: its inputs with their sources, its parts, and what its calls carry of it."""
    if figure.hour is None:
        return []
    name, at = figure.hour
    back = opener([icon("back"), "All that is behind the figure"], replace(figure, hour=None), className="button back")
    lines = reader.warehouse.explain_hour(reader.tenant, name, at)
    if not lines:
        return [back, html.P(["No such hour is known of ", html.Bdi(name), "."], className="banner")]
    where = f"/api/v1/explain/deployments/{quote(name, safe='')}/{at:%Y-%m-%dT%H:%M:%SZ}"
    api = html.Div(html.A("As JSON", href=where, className="button"), className="pager")
    title = html.H3([html.Bdi(name), f", {fmt.moment(at)} {fmt.zone()}"], **aria(level="3"))
    with fmt.stored():
        return [back, html.Div([title, derived(lines), api])]
