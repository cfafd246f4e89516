"""What the parts of the Exports page show, each asked for by itself."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC
from decimal import Decimal
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import polars as pl
from dash import html, no_update

from millicent.dashboard import charts, exporting, focus, focus_answers, focus_files, focus_gate
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, empty, freshness, icon, link, pill
from millicent.dashboard.exporting import Choice
from millicent.dashboard.focus import Export
from millicent.dashboard.focus_columns import columns
from millicent.dashboard.months import Month
from millicent.dashboard.pages.exports_place import CHECKED, PRESETS, Looked
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import FILTERS
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from dash.development.base_component import Component

    from millicent.warehouse.query import Query
    from millicent.warehouse.store import Warehouse

ROWS: Final = 50
MOST_KEPT: Final = 16
FOCUS_FILES: Final = {
    "csv": ("CSV", "what most tools import"),
    "parquet": ("Parquet", "exact decimals, small"),
    "xlsx": ("Excel", "typed, with notes; slow for large months"),
}
_WAITING: Final[tuple[Any, ...]] = (empty("unconnected"), "", pill("No calls yet"), [], no_update, None, None)
_lock: Final = Lock()
_known: Final[WeakKeyDictionary[Warehouse, OrderedDict[Hashable, dict[str, Any]]]] = WeakKeyDictionary()


def headline(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Notice, words, pills, the menu of files, what can be filtered by, the list of files, and what to download."""
    reader = Reader.allowed(warehouse, place.view, declared=True)
    if reader is None:
        return list(_WAITING)
    pills = [freshness(reader.fresh, reader.now)]
    choices = {name: reader.choices(name) for name in FILTERS}
    listed = _presets(place, place.at(reader.now), Month.of(reader.now))
    preset = place.preset
    if preset.edition is not None:
        month = place.at(reader.now)
        words = f"{preset.title} · {month.words} UTC · whole workspace, in USD; period and filters do not apply"
        offered = _focus_files(place, month)
        return [None, words, pills, exporting.files(offered, words, "exports"), choices, listed, _downloads(offered)]
    period = reader.window.period
    words = f"{preset.title} · {fmt.span(period.start, period.end)} {fmt.zone()}"
    try:
        asked = preset.asked(place.view, period)
    except BadQuery:  # the preview says why
        return [None, words, pills, [], choices, listed, []]
    offered = exporting.choices(asked)
    return [None, words, pills, exporting.menu(asked, "exports"), choices, listed, _downloads(offered)]


def _downloads(offered: Sequence[Choice]) -> list[Component]:
    return [
        html.A([icon("download"), one.label], href=one.href, download="", className="button", title=one.words)
        for one in offered
    ]


def _presets(place: Looked, month: Month, present: Month) -> list[Component]:
    """All files; under FOCUS the months to go to."""
    entries = []
    for name, preset in PRESETS.items():
        here = name == place.file
        face = [html.B(preset.title), html.Span(preset.words)]
        entries.append(html.Li(link(face, place.href(file=name), **(aria(current="true") if here else {}))))
    found: list[Component] = [html.Ul(entries, className="presets")]
    if place.preset.edition is not None:
        found.append(_months(place, month, present))
    others = [
        html.Li(html.A([html.B("Statement of a team"), html.Span("PDF, for who pays")], href="/teams")),
        html.Li(html.A([html.B("Single calls"), html.Span("with what each cost")], href="/requests")),
    ]
    return [*found, html.H3("Elsewhere"), html.Ul(others, className="presets")]


def _months(place: Looked, month: Month, present: Month) -> Component:
    def to(other: Month, face: str, words: str) -> Component:
        if other > present:
            return html.Span(face, className="button square off", **aria(hidden="true"))
        return link(face, place.href(month=None if other == present else other), className="button square",
                    **aria(label=f"{words}: {other.words}"))  # fmt: skip

    parts = [to(month.before(), "‹", "Month before"), html.B(month.words), to(month.before(-1), "›", "Month after")]
    return html.Div(parts, className="month-of", role="group", **aria(label="Month"))


def _focus_files(place: Looked, month: Month) -> list[Choice]:
    edition = place.preset.edition
    assert edition is not None  # noqa: S101 - asked for no other
    told = {"month": month.written, "version": edition.version, "profile": edition.profile}
    return [
        Choice(label, words, f"/api/v1/exports/focus?{urlencode({**told, 'format': form})}")
        for form, (label, words) in FOCUS_FILES.items()
    ]


# ---- the first rows


def preview(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Words and the first rows of the file."""
    reader = Reader.allowed(warehouse, place.view, declared=True)
    if reader is None:
        return ["", None]
    if place.preset.edition is not None:
        return _of_focus(warehouse, reader, place)
    try:
        asked = place.preset.asked(place.view, reader.window.period)
        frame = warehouse.ask(reader.tenant, asked).frame
    except BadQuery as error:
        clear = link("Clear the filters", place.href(view=place.view.unfiltered()), className="button")
        return ["", html.Div([html.P(str(error)), *([clear] if place.view.filters else [])], className="refused",
                             role="alert")]  # fmt: skip
    if frame.is_empty():
        return ["", empty("no_rows", clear=place.href(view=place.view.unfiltered()) if place.view.filters else None)]
    keys = [name for name in frame.columns if name not in asked.measures]
    heads = [*(name.replace("_", " ") for name in keys), *(DICTIONARY[name].label for name in asked.measures)]
    rows = [[_key(name, row[name]) for name in keys]
            + [fmt.value_text(row[name], DICTIONARY[name].unit) for name in asked.measures]
            for row in frame.head(ROWS).to_dicts()]  # fmt: skip
    return [_shown(frame.height, frame.width), _table(heads, rows, len(keys))]


def _key(name: str, value: Any) -> str:
    if name == "time":
        return fmt.day(value)
    if value is None and name == "accelerator":
        return "—"
    return charts.label(name, value if value is None else str(value))


def _of_focus(warehouse: Warehouse, reader: Reader, place: Looked) -> list[Any]:
    """Rows of the last day of the month that has any, so that the whole of it need not be read to show some."""
    assert place.preset.edition is not None  # noqa: S101 - asked for no other
    month = place.at(reader.now)
    export = Export(warehouse, reader.tenant, month, place.preset.edition)
    last = min(month.period().end - focus.DAY, reader.fresh.astimezone(UTC)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    days = [day for day in (last, last - focus.DAY) if day >= month.period().start]
    rows_of = [export.day(day) for day in days]
    used = [rows for rows in rows_of if "Tokens" in rows["ConsumedUnit"]]
    found = next((rows for rows in (*used, *rows_of) if not rows.is_empty()), None)
    if found is None:
        return ["", html.P(f"No rows in {month.words}.", className="quiet")]
    shown = focus_files.preview(found.sort("EffectiveCost", descending=True), ROWS)
    day = found["ChargePeriodStart"][0]
    numbers = {"PricingQuantity", "ListUnitPrice", "EffectiveCost"}
    rows = [[_cell(name, row[name]) for name, _ in CHECKED] for row in shown]
    words = (
        f"of {day.day} {day:%b} UTC, dearest first · {len(CHECKED)} of {len(columns(export.edition.version))} columns"
    )
    return [words, _table([head for _, head in CHECKED], rows, None, [name in numbers for name, _ in CHECKED])]


def _cell(name: str, text: str | None) -> str:
    return (text or "")[:10] if name == "ChargePeriodStart" else text or ""


def _shown(rows: int, width: int) -> str:
    more = f"and {rows - ROWS:,} more" if rows > ROWS else "all of them"
    return f"{min(rows, ROWS)} rows, {more} · {width} columns"


def _table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], keys: int | None, numbers: Sequence[bool] = ()
) -> Component:
    """Rows as text; after the first `keys` columns, or where told, they are numbers."""
    right = list(numbers) or [at >= (keys or 0) for at in range(len(heads))]
    faces = ["number" if one else "" for one in right]
    head = html.Tr([html.Th(text, scope="col", className=face) for text, face in zip(heads, faces, strict=True)])
    body = [html.Tr([html.Td(text, className=face) for text, face in zip(row, faces, strict=True)]) for row in rows]
    table = html.Table([html.Thead(head), html.Tbody(body)], className="preview")
    return html.Div(table, className="scroll", tabIndex="0", role="region", **aria(label="First rows"))


# ---- sums and checks


def sums(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Words, and whether the file adds up to what pages show."""
    reader = Reader.allowed(warehouse, place.view, declared=True)
    if reader is None:
        return ["", None]
    if place.preset.edition is not None:
        return _focus_sums(warehouse, reader, place)
    try:
        asked = place.preset.asked(place.view, reader.window.period)
        frame = warehouse.ask(reader.tenant, asked).frame
        total = exporting.totals(lambda whole: warehouse.ask(reader.tenant, whole).frame, asked)
    except BadQuery:
        return ["", None]
    return [f"{frame.height:,} rows", html.Ul(_answered_sums(frame, total, asked), className="sums")]


def _answered_sums(frame: pl.DataFrame, total: dict[str, Any], asked: Query) -> list[Component]:
    lines = []
    for name in asked.measures:
        measure, whole = DICTIONARY[name], total.get(name)
        if measure.sum_of is None:
            lines.append(_line(None, measure.label, fmt.value_text(whole, measure.unit), "sum ÷ sum of all rows"))
            continue
        added = frame[name].drop_nulls().sum() if frame[name].count() else None
        holds = abs(Decimal(added or 0) - Decimal(whole or 0)) < focus.CENT / 2
        lines.append(_line(holds, measure.label, fmt.value_text(whole, measure.unit),
                           "rows add up to the page" if holds else f"rows add up to {added}"))  # fmt: skip
    return lines


def _line(holds: bool | None, name: str, amount: str, words: str) -> Component:
    face = {True: ("check", "holds"), False: ("alert", "fails"), None: ("book", "plain")}[holds]
    return html.Li([icon(face[0]), html.Span(name), html.B(amount), html.Small(words)], className=face[1])


def _focus_sums(warehouse: Warehouse, reader: Reader, place: Looked) -> list[Any]:
    assert place.preset.edition is not None  # noqa: S101 - asked for no other
    export = Export(warehouse, reader.tenant, place.at(reader.now), place.preset.edition)
    try:
        told = _checked(export)
    except BadQuery as error:
        return ["", html.P(str(error), className="refused", role="alert")]
    lines = []
    for one in told["controls"]:
        money = one["name"] not in {"Calls", "Tokens"}
        amount = f"{Decimal(one['page']):,.2f} USD" if money else f"{Decimal(one['page']):,.0f}"  # whatever is shown
        rest = Decimal(one["residue"])
        same = "the same on pages, to the cent" if money else "the same on pages"
        words = same if one["holds"] else f"the file has {one['file']}"
        lines.append(_line(one["holds"], one["name"], amount, f"{words}; rounding {rest:.12f}" if rest else words))
    rules = focus_gate.rules(export.edition.version)
    broken = {found["rule"]: found for found in told["findings"]}
    of_rules = [
        html.Li(
            [html.Span(rule.words), html.Small(f"{broken[rule.name]['rows']:,} rows")] if rule.name in broken else
            html.Span(rule.words),
            className="fails" if rule.name in broken else "holds",
        )
        for rule in rules
    ]  # fmt: skip
    said = f"{len(broken)} of {len(rules)} rules broken" if broken else f"All {len(rules)} rules hold"
    face = html.Summary([icon("alert" if broken else "check"), said])
    body = [html.Ul(lines, className="sums"),
            html.Details([face, html.Ul(of_rules)], className="rules", open=bool(broken))]  # fmt: skip
    notes = html.P("Usage without a price is in it with amounts of 0 and x_PriceStatus Unpriced: its cost is unknown.",
                   className="quiet")  # fmt: skip
    return [f"{told['row_count']:,} rows of {export.month.words}", [*body, notes]]


def _checked(export: Export) -> dict[str, Any]:
    """Sums and rules of a month; kept while nothing in it changes."""
    period = export.month.period()
    stamp = export.warehouse.engine.revisions.stamp(period.start, period.end)
    key = (export.tenant, export.month, export.edition, stamp)
    with _lock:
        kept = _known.setdefault(export.warehouse, OrderedDict())
        if stamp is not None and key in kept:
            kept.move_to_end(key)
            return kept[key]
    found = focus_answers.looked_at(export, 0)
    with _lock:
        kept[key] = found
        while len(kept) > MOST_KEPT:
            kept.popitem(last=False)
    return found
