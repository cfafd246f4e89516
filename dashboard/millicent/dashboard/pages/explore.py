"""The Cost explorer: where it went, and why it changed, cut by any two dimensions, down to single calls.

The address is the state. Four parts are asked for apart: what is said of the whole, the chart, the table, and why spend
changed, which no cut of the chart changes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update

from millicent.dashboard import exporting
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, coverage, empty, freshness, link, pill, unattributed
from millicent.dashboard.pages import derivation, explore_chart, explore_table, explore_why
from millicent.dashboard.pages.answering import no_calls
from millicent.dashboard.pages.explore_asked import FOOT, ask, measure_of, named, over_time, refused
from millicent.dashboard.pages.explore_layout import HEIGHT, layout
from millicent.dashboard.pages.explore_place import FILTERS, PATH, PLACE, Exploration, title
from millicent.dashboard.pages.frame import addressed, offered, tabled
from millicent.dashboard.pages.overview_layout import NOTHING
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import BASES, question
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash.development.base_component import Component

    from millicent.dashboard.state import View
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

HEADLINE: Final = ("spend_usd", "calls", "priced_ratio", "unpriced_calls", "unattributed_calls",
                   "unattributed_spend_share")  # fmt: skip
HIDDEN: Final = {"display": "none"}
NO_CHART: Final[list[Any]] = [NOTHING, {"height": HEIGHT}, [], None, "", ""]


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    _in_the_browser(app)

    @app.callback(
        Output("explore-notice", "children"), Output("explore-words", "children"), Output("explore-pills", "children"),
        Output("explore-choices", "data"), Input("explore-scope", "data"), Input("explore-tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: Any) -> Any:
        return await _answered(_headline, warehouse, _state(scope, None), [empty("forbidden"), "", [], no_update])

    @app.callback(Output("explore-path", "children"), Input("explore-scope", "data"), Input("explore-cut", "data"))
    def path(scope: str | None, cut: str | None) -> Any:
        return _path(_state(scope, cut))

    @app.callback(
        Output("explore-chart", "figure"), Output("explore-chart", "style"), Output("explore-legend", "children"),
        Output("explore-ranks", "children"), Output("explored-title", "children"), Output("explored-words", "children"),
        Input("explore-scope", "data"), Input("explore-cut", "data"), Input("explore-tick", "data"),
    )  # fmt: skip
    async def chart(scope: str | None, cut: str | None, _tick: Any) -> Any:
        return await _answered(_chart, warehouse, _state(scope, cut), NO_CHART)

    @app.callback(
        Output("breakdown-body", "children"), Output("breakdown-words", "children"),
        Output("explore-export", "children"),
        Input("explore-scope", "data"), Input("explore-cut", "data"), Input("explore-tick", "data"),
    )  # fmt: skip
    async def table(scope: str | None, cut: str | None, _tick: Any) -> Any:
        return await _answered(_table, warehouse, _state(scope, cut), [None, "", []])

    @app.callback(
        Output("why-body", "children"), Output("why-words", "children"),
        Output("movers-body", "children"), Output("movers-words", "children"),
        Input("explore-scope", "data"), Input("explore-tick", "data"),
    )  # fmt: skip
    async def why(scope: str | None, _tick: Any) -> Any:
        return await _answered(_why, warehouse, _state(scope, None), [None, "", None, ""])

    derivation.register(app, warehouse, "explore", _view)


def _in_the_browser(app: Dash) -> None:
    browser: Any = app.clientside_callback
    addressed(app, PLACE.name, PLACE.controls)
    offered(app, PLACE.name)
    browser(
        ClientsideFunction("explore", "cut"),
        Output("explore-cut", "data"), Input("explore-look", "data"), State("explore-cut", "data"),
    )  # fmt: skip
    browser(
        ClientsideFunction("explore", "clicked"), Input("explore-chart", "clickData"), State("explore-chart", "figure"),
        prevent_initial_call=True,
    )  # fmt: skip
    tabled(app, "explore")


def _view(scope: str | None) -> View:
    return Exploration.parse(scope).view


def _state(scope: str | None, cut: str | None) -> Exploration:
    told = [text.removeprefix("?") for text in (scope, cut) if isinstance(text, str)]
    return Exploration.parse(f"?{'&'.join(told)}")


async def _answered(
    answer: Callable[[Reader | None, Exploration], list[Any]], warehouse: Warehouse, state: Exploration, nothing: Any
) -> Any:  # fmt: skip
    """What a callback answers; `nothing` where nobody asks who may see it."""

    def told() -> Any:
        try:
            return answer(Reader.of(warehouse, state.view, declared=True), state)
        except PermissionError:
            return nothing

    return await asyncio.to_thread(told)


def _headline(reader: Reader | None, state: Exploration) -> list[Any]:
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), no_update]
    window = reader.window
    words = window.words
    total = ask(reader, question(state.view, window.period, HEADLINE)).row(0, named=True)
    choices = {name: reader.choices(name) for name in FILTERS}
    pills: list[Any] = [freshness(reader.fresh, reader.now)]
    if not total["calls"] and total["spend_usd"] is None:
        clear = state.widened(*dict(state.view.filters)).href() if state.view.filters else None
        return [no_calls(reader, clear), words, pills, choices]
    pills += [coverage(total), unattributed(total["unattributed_spend_share"], state.narrowed(team=None).href())]
    return [None, words, pills, choices]


def _path(state: Exploration) -> list[Component]:
    """What is shown, step by step; each step leads back to it, and the last goes on to the calls."""
    steps: list[Component] = []
    down = {name: at for at, name in enumerate(PATH)}
    filters = sorted(state.view.filters, key=lambda one: down.get(one[0], len(PATH)))
    if filters:
        wide = state.widened(*dict(filters)).href(by=filters[0][0])
        steps.append(html.Li(link("Everything", wide, title="Without any filter")))
    for name, values in filters:
        told = ", ".join(named(name, value) for value in values[:2]) + (
            f" and {len(values) - 2} more" if values[2:] else ""
        )
        off = link("×", state.widened(name).href(), title=f"Without this filter: {told}",
                   **aria(label=f"Remove the filter {title(name)}: {told}"))  # fmt: skip
        steps.append(html.Li([html.Span([html.Small(title(name)), html.Bdi(told)]), off]))
    steps.append(html.Li(html.Span(["by ", html.B(title(state.by).lower())]), className="here"))
    calls = link("Show the calls", state.calls, className="button", title="The single calls behind these numbers")
    return [html.Ol(steps), calls]


def _chart(reader: Reader | None, state: Exploration) -> list[Any]:
    if reader is None:
        return NO_CHART
    measure = measure_of(state)
    if why_not := refused(state):
        return [NOTHING, HIDDEN, [], html.P(why_not, className="banner"), measure.label, ""]
    heading = f"{measure.label} by {title(state.by).lower()}"
    try:
        if state.shape == "rank":
            words = f"largest first · {_counted(state)} · click to go down"
            return [NOTHING, HIDDEN, [], explore_chart.ranks(reader, state), heading, words]
        steps, layers, wholes, prior = over_time(reader, state)
    except BadQuery as error:
        return [NOTHING, HIDDEN, [], html.P(str(error), className="banner"), heading, ""]
    if not layers:
        return [NOTHING, {"height": HEIGHT}, [], None, heading, "nothing in this period"]
    figure = explore_chart.figure(state, steps, layers, wholes, prior)
    legend = explore_chart.legend(state, layers, compared=bool(prior))
    grain = state.step(reader.window)
    each = {"hour": "hourly", "day": "daily", "week": "weekly", "month": "monthly"}[grain]
    said = f"{each}, {fmt.zone()} · {_counted(state)}"
    if grain != state.grain:
        said += f" · too long a period for {state.grain}s"
    if measure.numerator and state.shape != "line":
        said += " · a ratio does not stack: lines"
    return [figure, {"height": HEIGHT}, legend, None, heading, said]


def _counted(state: Exploration) -> str:
    """What is counted: a ratio with its denominator, or the basis of spend."""
    measure = measure_of(state)
    if measure.numerator:
        return measure.words.rstrip(".")
    return BASES[state.view.basis].lower() if measure.name == "spend_usd" else measure.label.lower()


def _table(reader: Reader | None, state: Exploration) -> list[Any]:
    if reader is None:
        return [None, "", []]
    if refused(state):
        return [None, "", []]
    measure = measure_of(state)
    by = " and ".join(title(name).lower() for name in state.dimensions)
    names = dict.fromkeys((state.measure, *(FOOT if len(state.dimensions) == 1 else ())))
    exported = question(state.view, reader.window.period, tuple(names), state.dimensions)
    over = question(state.view, reader.window.period, (state.measure,), (state.by,), state.step(reader.window))
    also = [exporting.Choice("The chart, CSV", f"by {title(state.by).lower()} and {over.grain}",
                             exporting.address(over, "csv"))]  # fmt: skip
    menu = exporting.menu(exported, "explore", also)
    try:
        body = explore_table.table(reader, state)
    except BadQuery as error:
        return [html.P(str(error), className="banner"), "", menu]
    return [body, f"{measure.label} by {by} · rows go down, numbers tell how they came about", menu]


def _why(reader: Reader | None, state: Exploration) -> list[Any]:
    if reader is None:
        return [None, "", None, ""]
    try:
        return list(explore_why.why(reader, state))
    except BadQuery as error:
        return [html.P(str(error), className="banner"), "", None, ""]
