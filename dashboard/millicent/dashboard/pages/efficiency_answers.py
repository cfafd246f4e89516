"""What each part of the Efficiency page answers: asked of the warehouse, drawn by the modules beside this one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import html, no_update

from millicent.dashboard import access, charts
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, empty, freshness, icon, kpi, link, pill, spark
from millicent.dashboard.pages import (
    efficiency_daily,
    efficiency_deployments,
    efficiency_flow,
    efficiency_heat,
    efficiency_preview,
)
from millicent.dashboard.pages.asked_once import asked_once
from millicent.dashboard.pages.efficiency_deployments import WASTE, About
from millicent.dashboard.pages.efficiency_flow import FLOW, hours
from millicent.dashboard.pages.efficiency_place import CHOSEN, Place
from millicent.dashboard.pages.efficiency_policy import panel
from millicent.dashboard.pages.efficiency_preview import SHARED_S
from millicent.dashboard.pages.figures import Figure, opener, own
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import api_query, question
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import Filter, Period, Query

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from dash.development.base_component import Component

    from millicent.dashboard.pages.efficiency_deployments import Row
    from millicent.dashboard.pages.efficiency_place import Slot
    from millicent.warehouse.deployments import Deployment
    from millicent.warehouse.store import Warehouse

HEADLINE: Final = (
    "capacity_cost_usd", "accelerator_hours", "idle_cost_usd", "idle_ratio", "unavailable_cost_usd",
    "unavailable_ratio", "untracked_cost_usd", "untracked_ratio", "coverage_ratio", "engine_tokens", "metered_tokens",
    "utilisation_ratio", "busy_accelerator_hours",
)  # fmt: skip
TRENDS: Final = (
    "capacity_cost_usd", "idle_cost_usd", "unavailable_cost_usd", "untracked_cost_usd", "engine_tokens",
    "metered_tokens", "busy_accelerator_hours", "accelerator_hours",
)  # fmt: skip
EXPORTED: Final = (
    "accelerator_hours", "busy_accelerator_hours", "utilisation_ratio", "capacity_cost_usd", "idle_cost_usd",
    "unavailable_cost_usd", "untracked_cost_usd", "coverage_ratio",
)  # fmt: skip
ABOUT: Final = ("deployment", "model", "accelerator", "engine", "region", "environment")
HOUR: Final = timedelta(hours=1)


def headline(warehouse: Warehouse, place: Place) -> list[Any]:
    """Notice, words, pills, address of the export, cards, choices."""
    reader = reader_of(warehouse, place)
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), "#", [], no_update]
    window = reader.window
    words, pills = window.words, [freshness(reader.fresh, reader.now)]
    asked = question(reader.view, window.period, EXPORTED, ("deployment",), "day")
    choices = _choices(reader)
    total = reader.over(HEADLINE).row(0, named=True)
    if total["accelerator_hours"] is None:
        clear = place.unfiltered().href() if place.view.filters else None
        notice = empty("no_hours", clear=clear) if _declared(reader) else empty("undeclared")
        return [notice, words, pills, "#", [], choices]
    before = reader.before(HEADLINE)
    cards = _cards(reader, place, total, before.row(0, named=True) if before is not None else {})
    return [None, words, pills, api_query(asked, format="csv"), cards, choices]


def flow(warehouse: Warehouse, place: Place) -> list[Any]:
    """The way from paid to busy, and words on it."""
    reader = reader_of(warehouse, place)
    if reader is None:
        return [None, ""]
    total, unused = _way(reader)
    found = efficiency_flow.steps(total, unused, place.unit)

    def opened(face: Any, what: Figure | str) -> Component:
        return _opener(face, place, what)

    unit = "accelerator-hours" if place.unit == "hours" else "US dollars"
    return [efficiency_flow.drawn(found, place.unit, opened), f"in {unit} · click a step for how it came about"]


def _way(reader: Reader) -> tuple[Row, Decimal | None]:
    """The sums of the way from paid to busy, and the idle cost of what no deployment took."""
    by_model = reader.over(("idle_cost_usd",), "model").filter(pl.col("model").is_null())
    unused: Decimal | None = by_model["idle_cost_usd"].item() if by_model.height else None
    return reader.over(FLOW).row(0, named=True), unused


def step(reader: Reader, open_: object) -> Component | None:
    """What stands in the drawer for a step that is a difference; None for anything else."""
    found = efficiency_flow.opened_step(open_) if isinstance(open_, str) else None
    if found is None:
        return None
    body = efficiency_flow.difference(*found, *_way(reader), lambda face, what: _opener(face, Place(), what))
    close = link(icon("close"), "?", className="button square", **data(close="", opens=""), **aria(label="Close"),
                 title="Close (Esc)")  # fmt: skip
    title = html.H2(efficiency_flow.name_of(found[0]), id="derivation-title")
    head = html.Div([html.Div([title, html.P(reader.window.words)]), close], className="drawer-head")
    return html.Section([head, *body], role="dialog", tabIndex=-1, className="derivation", key=str(open_),
                        **aria(labelledby="derivation-title"))  # fmt: skip


def heat(warehouse: Warehouse, place: Place) -> list[Any]:
    """Idle by hour of the week, and words on it."""
    reader = reader_of(warehouse, place)
    if reader is None:
        return [None, ""]
    asked = question(reader.view, reader.window.period, ("idle_cost_usd", "capacity_cost_usd"), grain="hour")
    found = efficiency_heat.cells(warehouse.ask(reader.tenant, asked).frame)
    return [
        efficiency_heat.heat(found, place),
        f"mean idle {fmt.unit()} an hour · UTC · click an hour for its deployments",
    ]


def deployments(warehouse: Warehouse, place: Place) -> list[Any]:
    """The table of deployments, and words on it; with a slot those of that hour of the week."""
    reader = reader_of(warehouse, place)
    if reader is None:
        return [None, ""]
    during = reader.window.period
    frame, at = reader.over(WASTE, "deployment"), list[datetime]()
    if place.slot:
        at = efficiency_heat.occurrences(during.start, during.end, place.slot)
        frame = pl.concat(_ask(reader, WASTE, ("deployment",), Period(hour, hour + HOUR)) for hour in at) if at else (
            frame.clear())  # fmt: skip
    rows = efficiency_deployments.worst_first(efficiency_deployments.summed(frame.iter_rows(named=True)))
    if not rows:
        return [html.P("No deployment had accelerators then.", className="quiet"), _slot_words(place.slot, at, place)]
    (total,) = efficiency_deployments.summed({**row, "deployment": None} for row in rows)

    def opened(face: Any, measure: str, name: str | None) -> Component:
        figure = Figure.of(measure) if name is None else Figure.of(measure, deployment=name)
        if len(at) > 1:  # of several hours apart: each of them is opened by itself, above
            return html.Span(face)
        return _opener(face, place, replace(figure, during=Period(at[0], at[0] + HOUR)) if at else figure)

    table = efficiency_deployments.table(rows, total, _about(reader, at), place, opened)
    words = _slot_words(place.slot, at, place) if place.slot else "most idle cost first · click a name to filter"
    return [table, words]


def policy(warehouse: Warehouse, place: Place) -> list[Any]:
    """Who carries idle, and words on it; what teams would carry is as of some minutes ago, as `SHARED_S` says."""
    who = access.principal()
    now, policies = datetime.now(UTC), [one for _, one in warehouse.control.policies(who.tenant)]
    reader = reader_of(warehouse, place)
    carried, since, colours = None, "", dict[str | None, str]()
    if reader is not None:
        asked = question(reader.view, reader.window.period, ("idle_cost_usd",), ("deployment",))
        key = (who.tenant, "preview", asked, fmt.presented())
        shared = asked_once(warehouse, key, lambda: efficiency_preview.of(reader), SHARED_S)
        carried, since, colours = shared.carried or None, shared.since, reader.colours("team")
    told = panel(policies, carried, now, colours, place.team, operates=who.operates, since=since)
    return [told, "what teams would carry of idle and unavailable cost under each policy"]


def daily(warehouse: Warehouse, place: Place) -> list[Any]:
    """Figure, legend and words of the days."""
    reader = reader_of(warehouse, place)
    if reader is None:
        return [NOTHING, [], ""]
    frame = reader.daily(efficiency_daily.DAILY)
    if not frame["accelerator_hours"].count():
        return [NOTHING, [], ""]
    return [efficiency_daily.figure(frame, reader.window), efficiency_daily.legend(), f"per day, {fmt.zone()}"]


def reader_of(warehouse: Warehouse, place: Place) -> Reader | None:
    """Who reads what; None before the tenant's first call where it declared no deployment either.

    Raises:
        PermissionError: nobody is asking, or somebody who may not.
    """
    return Reader.of(warehouse, own(place.view), declared=True)


def _ask(reader: Reader, measures: tuple[str, ...], by: tuple[str, ...], period: Period) -> pl.DataFrame:
    return reader.warehouse.ask(reader.tenant, question(reader.view, period, measures, by)).frame


def _declared(reader: Reader) -> list[Deployment]:
    return [one for _, one in reader.warehouse.control.deployments(reader.tenant)]


def _choices(reader: Reader) -> dict[str, list[dict[str, str]]]:
    """What own hardware of the period has of every dimension, most accelerator-hours first, whatever is filtered."""
    asked = Query(measures=("accelerator_hours",), period=reader.window.period, dimensions=tuple(CHOSEN),
                  filters=(Filter("cost_type", ("idle",)),))  # fmt: skip
    own_hours = reader.warehouse.ask(reader.tenant, asked).frame.filter(pl.col("accelerator_hours").is_not_null())
    found = {}
    for name in CHOSEN:
        ranked = own_hours.group_by(name).agg(pl.col("accelerator_hours").sum())
        values = ranked.sort("accelerator_hours", name, descending=[True, False])[name].to_list()
        labels = [(value or "", charts.label(name, value) if value else "Unknown") for value in values]
        found[name] = [{"value": value, "label": text, "search": f"{value} {text}"} for value, text in labels]
    return found


def _opener(face: Any, place: Place, what: Figure | str) -> Component:
    """A face that opens the derivation of a figure, or of a step."""
    here = place.href(opened="")
    if isinstance(what, Figure):
        return opener(face, what, here)
    return link(face, place.href(opened=what), className="figure", **data(opens=what))


def _cards(reader: Reader, place: Place, total: Row, before: Row) -> list[Component]:
    trends = reader.daily(TRENDS, since=reader.trend_start)
    facts = [f"{reader.window.words}."]

    def figure(name: str, text: str) -> Component:
        return _opener(text, place, Figure.of(name))

    def card(name: str, title: str, top: str, beside: Any, bottom: str | None = None) -> Component:
        measure = DICTIONARY[name]
        return kpi(
            name, figure(name, fmt.value_text(total[name], measure.unit)), label=title, beside=beside, facts=facts,
            change=fmt.change(total[name], before.get(name), unit=measure.unit, better=measure.better),
            trend=spark(reader.trend(trends, top, bottom)),
            exact=fmt.usd_exact(total[name]) if measure.unit == "usd" else None, opens=Figure.of(name).written,
        )  # fmt: skip

    def part(name: str) -> Component:
        return figure(name, f"{fmt.percent(total[name])} of paid")

    counted = total["engine_tokens"]
    seen = f"{fmt.tokens(total['metered_tokens'])} of {fmt.tokens(counted)}" if counted else "no engine is read"
    worked = f"{hours(total['busy_accelerator_hours'])} busy"
    return [
        card("capacity_cost_usd", "Paid", "capacity_cost_usd",
             figure("accelerator_hours", f"for {hours(total['accelerator_hours'])}")),
        card("idle_cost_usd", "Idle", "idle_cost_usd", part("idle_ratio")),
        card("unavailable_cost_usd", "Unavailable", "unavailable_cost_usd", part("unavailable_ratio")),
        card("untracked_cost_usd", "Untracked", "untracked_cost_usd", part("untracked_ratio")),
        card("coverage_ratio", "Coverage of tokens", "metered_tokens",
             figure("engine_tokens", seen) if counted else seen, "engine_tokens"),
        card("utilisation_ratio", "Utilisation", "busy_accelerator_hours", figure("busy_accelerator_hours", worked),
             "accelerator_hours"),
    ]  # fmt: skip


def _slot_words(slot: Slot | None, at: Sequence[datetime], place: Place) -> Any:
    """The hour of the week that is listed, each of its hours with its derivation, and the way back."""
    if slot is None:
        return ""
    each = [
        _opener(fmt.day(hour), place, replace(Figure.of("idle_cost_usd"), during=Period(hour, hour + HOUR)))
        for hour in at
    ]
    spaced = [part for one in each for part in (one, ", ")][:-1]
    back = link("show all hours", place.href(slot=None), className="there", **data(at=""))
    return [html.B(slot.words), " on ", *spaced, " · ", back]


def _about(reader: Reader, at: Sequence[datetime]) -> dict[str, About]:
    """What each deployment is, by where most of its hours were, and where busy time (`at` these hours) came from."""
    pools = {one.name: one.pool for one in _declared(reader)}
    rows = reader.over(("accelerator_hours",), *ABOUT).filter(pl.col("accelerator_hours").is_not_null())
    most = rows.sort("accelerator_hours").group_by("deployment").last()
    sources = _sources(reader, at)
    return {
        row["deployment"]: About(
            **{name: row[name] for name in ABOUT if name != "deployment"},
            pool=pools.get(row["deployment"]), sources=tuple(sources.get(row["deployment"], ())),
        )
        for row in most.iter_rows(named=True)
        if row["deployment"] is not None
    }  # fmt: skip


def _sources(reader: Reader, at: Sequence[datetime]) -> dict[str, list[tuple[str, int]]]:
    """Where busy time came from, by deployment: engine or calls, and in how many hours."""
    columns = ("deployment", "hour", "busy_source")
    found = reader.warehouse.hours(reader.tenant, reader.window.period, columns=columns)
    if at:
        found = found.filter(pl.col("hour").is_in(list(at)))
    counted = found.drop_nulls("busy_source").group_by("deployment", "busy_source").len()
    sources: dict[str, list[tuple[str, int]]] = {}
    for name, source, count in counted.sort("len", "busy_source", descending=[True, False]).iter_rows():
        sources.setdefault(name, []).append((source, count))
    return sources
