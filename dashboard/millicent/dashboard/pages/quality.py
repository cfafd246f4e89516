"""The Data quality page: who sends, what became of all that came, and what is doubtful about the rest.

Two callbacks: how far the numbers can be trusted, with who sends them, and what stands in the way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from dash import Dash, Input, Output, html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import freshness, kpi, panel, pill
from millicent.dashboard.pages import quality_tables as tables
from millicent.dashboard.pages.answering import answered
from millicent.dashboard.pages.frame import Place, Section, addressed, page
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View
from millicent.warehouse import quality
from millicent.warehouse.calls import uncounted
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.unpriced import unpriced

if TYPE_CHECKING:
    from collections.abc import Callable

    from dash.development.base_component import Component

    from millicent.dashboard.reader import Row
    from millicent.warehouse.engine import Engine
    from millicent.warehouse.query import Period
    from millicent.warehouse.store import Warehouse

__all__ = ["layout", "register"]

PLACE: Final = Place(name="quality", title="Data quality", filters={}, compared=False, based=False)
PLACES: Final[Section] = (
    "On this page",
    (("people", "Sources", "#sources"), ("check", "Books", "#books"), ("tag", "No price", "#lacking"),
     ("alert", "No team", "#nobody"), ("list", "Usage to doubt", "#doubts"), ("chip", "Own hardware", "#seen")),
)  # fmt: skip
HEADLINE: Final = ("priced_ratio", "attributed_ratio", "calls", "unpriced_calls", "unattributed_calls",
                   "unattributed_spend_usd", "missing_usage_calls")  # fmt: skip
SEEN: Final = ("coverage_ratio", "measured_energy_ratio", "unobserved_accelerator_hours", "accelerator_hours",
               "engine_tokens", "metered_tokens")  # fmt: skip
BY_SOURCE: Final = ("service", "dialect", "signal")


def layout(price_version: str) -> Component:
    """The page before its numbers."""
    panels = (
        ("sources", "Where calls come from", "by service and instrumentation"),
        ("books", "What became of every span", ""),
        ("lacking", "Calls without a price", ""),
        ("nobody", "Calls without a team", ""),
        ("doubts", "Usage to doubt", ""),
        ("seen", "Own hardware: what we see of it", ""),
    )
    board = html.Div(
        [
            html.Div([html.Section(className="card kpi") for _ in range(6)], id="quality-kpis", className="kpis"),
            *(panel(title, words, html.Div(id=f"{name}-body"), id=name) for name, title, words in panels),
        ],
        className="board quality",
    )
    return page(PLACE, price_version, board, sections=(PLACES,))


def register(app: Dash, warehouse: Warehouse) -> None:
    """Add the page's callbacks to `app`."""
    addressed(app, PLACE.name, PLACE.controls)

    @app.callback(
        Output("quality-notice", "children"), Output("quality-words", "children"), Output("quality-pills", "children"),
        Output("quality-kpis", "children"), Output("sources-body", "children"), Output("seen-body", "children"),
        Input("quality-scope", "data"), Input("quality-tick", "data"),
    )  # fmt: skip
    async def headline(scope: str | None, _tick: int | None) -> Any:
        return await asyncio.to_thread(answered, _headline, warehouse, View.parse(scope).unfiltered(), _nothing)

    @app.callback(
        *(Output(f"{name}-{part}", "children") for name in ("books", "lacking", "nobody", "doubts")
          for part in ("body", "words")),
        Input("quality-scope", "data"), Input("quality-tick", "data"),
    )  # fmt: skip
    async def rest(scope: str | None, _tick: int | None) -> Any:
        view = View.parse(scope).unfiltered()
        return await asyncio.to_thread(answered, _rest, warehouse, view, lambda _: [None, ""] * 4)


def _nothing(notice: Any) -> list[Any]:
    return [notice, "", pill("No calls yet"), [], None, None]


def _headline(reader: Reader) -> list[Any]:
    period = reader.window.period
    total, seen = reader.over(HEADLINE).row(0, named=True), reader.over(SEEN).row(0, named=True)
    by_source = reader.over(("calls", "priced_ratio", "attributed_ratio", "missing_usage_calls"), *BY_SOURCE)
    usage = {row["usage_source"]: row["calls"] or 0 for row in reader.over(("calls",), "usage_source").to_dicts()}
    heard = _of_calls(reader, "heard", quality.heard)
    words = f"{fmt.span(period.start, period.end)} {fmt.zone()}"
    cards = [
        tables.card("Complete through", fmt.moment(reader.fresh), "every call acknowledged before it is in all sums",
                    "kpi-fresh"),
        _share("priced_ratio", total, f"{fmt.count(total['unpriced_calls'] or 0)} calls without a price"),
        _share("attributed_ratio", total, f"{fmt.count(total['unattributed_calls'] or 0)} calls without a team"),
        tables.card("Usage reported", tables.share(usage.get("reported", 0), sum(usage.values())),
                    f"{fmt.count(usage.get('estimated', 0))} estimated, {fmt.count(usage.get('missing', 0))} missing",
                    "kpi-reported"),
        tables.once(total["calls"] or 0, _of_calls(reader, "uncounted", uncounted)),
        _share("coverage_ratio", seen, "of tokens that our engines counted"),
    ]  # fmt: skip
    sources = None if heard.is_empty() else tables.sources(heard, by_source, reader.fresh)
    own = reader.over(SEEN, "deployment")
    return [None, words, [freshness(reader.fresh, reader.now)], cards, sources, tables.hardware(own)]


def _share(name: str, row: Row, beside: str) -> Component:
    measure = DICTIONARY[name]
    return kpi(name, fmt.value_text(row[name], measure.unit), change=None, beside=beside)


def _of_calls(reader: Reader, what: str, read: Callable[[Engine, str, Period], Any]) -> Any:
    """What calls of the period tell, read once while nothing in it changes."""
    warehouse, tenant, period = reader.warehouse, reader.tenant, reader.window.period
    return warehouse.remembered((tenant, what, period), period, lambda: read(warehouse.engine, tenant, period))


def _rest(reader: Reader) -> list[Any]:
    view, warehouse, tenant, period = reader.view, reader.warehouse, reader.tenant, reader.window.period
    engine = warehouse.engine
    books = quality.books(engine, tenant, period)
    lacking = unpriced(warehouse, tenant, period)
    nobodys = reader.over(("unattributed_calls", "unattributed_spend_usd"), "service")
    late = _of_calls(reader, "lateness", quality.lateness)
    return [
        tables.books(books, _of_calls(reader, "uncounted", uncounted), quality.set_aside(engine, tenant, period)),
        tables.books_words(books),
        tables.unpriced(lacking, view),
        tables.unpriced_words(lacking),
        tables.nobodys(nobodys, view),
        "a rule gives them one, also those of the past",
        tables.doubts(_of_calls(reader, "doubts", quality.doubts), late),
        "flags that calls carry, in words",
    ]
