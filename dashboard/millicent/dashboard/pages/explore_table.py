"""The table of the Cost explorer: a row for every value, columns by a second dimension, and totals on both sides.

Rows lead further down, numbers to how they came about. What no column or row shows is in Other and in the totals.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, delta, dot, link
from millicent.dashboard.pages.explore_asked import (
    BESIDE,
    FOOT,
    apart_of,
    by_value,
    cells,
    less,
    looks,
    measure_of,
    named,
    ranked,
    sums_in,
    value_of,
    whole,
)
from millicent.dashboard.pages.explore_place import NO_OTHER, is_yes_or_no, text_of, title
from millicent.dashboard.pages.figures import Figure, opener, sums_of
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.explore_asked import Number, Sums
    from millicent.dashboard.pages.explore_place import Exploration, Value
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.metrics import Measure

MOST_SHOWN: Final = 50

Row = dict[str, Any]


def table(reader: Reader, exploration: Exploration) -> Component:
    """The table of what is explored, and how many rows it leaves out."""
    rows = by_value(reader, exploration, exploration.by)
    total = whole(reader, exploration)
    colour_of = {} if exploration.by == "cost_type" or is_yes_or_no(exploration.by) else reader.colours(exploration.by)
    if exploration.other == NO_OTHER:
        before = by_value(reader, exploration, exploration.by, reader.window.prior) if reader.window.prior else None
        was = whole(reader, exploration, reader.window.prior) if reader.window.prior else None
        return _flat(exploration, rows, before, total, was, colour_of)
    return _pivot(reader, exploration, rows, total, colour_of)


def _flat(
    exploration: Exploration, rows: Mapping[Value, Row], before: Mapping[Value, Row] | None, total: Row,
    was: Row | None, colour_of: Mapping[Any, str],
) -> Component:  # fmt: skip
    """Without a second dimension: the measure, what it was, its share, and what stands beside it."""
    measure = measure_of(exploration)
    beside = [DICTIONARY[name] for name in FOOT if name != measure.name]
    order = _sorted(exploration, rows, before)
    shown = order[:MOST_SHOWN]
    heads = [_head(exploration, "name", title(exploration.by)), _head(exploration, "", measure.label, measure)]
    if before is not None:
        heads += [html.Th("Before", scope="col"), _head(exploration, "change", "Change")]
    heads += [html.Th("Share", scope="col")] if not measure.numerator else []
    heads += [_head(exploration, one.name, one.label, one) for one in beside]
    gone = (before or {}).keys() - rows.keys()
    lines = [
        _line(exploration, value, rows.get(value), (before or {}).get(value), total, beside, colour_of,
              compared=before is not None)
        for value in shown
    ]  # fmt: skip
    rest = len(order) - len(shown)
    foot = _line(exploration, None, total, was, total, beside, {}, compared=before is not None, name="Total")
    said = f"and {rest:,} more, which the total includes" if rest else ""
    if gone:
        said += f"{' · ' if said else ''}{len(gone)} of the earlier period only"
    return _framed([*heads], lines, foot, said, "explored")


def _line(
    exploration: Exploration, value: Value, now: Row | None, before: Row | None, total: Row,
    beside: Sequence[Measure], colour_of: Mapping[Any, str], *, compared: bool, name: str = "",
) -> Component:  # fmt: skip
    measure = measure_of(exploration)
    kept = {} if name else {exploration.by: text_of(value)}
    current, was = (value_of(measure, sums_in(exploration, row)) for row in (now, before))
    first = html.Th(name, scope="row") if name else _name(exploration, value, colour_of)
    numbers = [html.Td(_number(exploration, measure, current, kept))]
    if compared:
        nothing = None if measure.numerator else Decimal(0)
        change = fmt.change(current if current is not None else nothing, was if was is not None else nothing,
                            unit=measure.unit, better=measure.better, digits=0)  # fmt: skip
        numbers += [html.Td(fmt.value_text(was, measure.unit), className="prior"), html.Td(delta(change, fmt.UNKNOWN))]
    if not measure.numerator:
        all_ = value_of(measure, sums_in(exploration, total))
        share = Decimal(current) / Decimal(all_) if current is not None and all_ else None
        bar = html.I(className="bar", style={"--share": f"{max(share, Decimal(0)):.1%}"}) if share is not None else None
        numbers.append(html.Td([bar, html.Span(fmt.percent(share, 0))], className="share"))
    for one in beside:
        told = value_of(one, tuple(now[part] for part in sums_of(one)) if now is not None else None)
        numbers.append(html.Td(_number(exploration, one, told, kept)))
    return html.Tr([first, *numbers], className=_class(value, name))


def _pivot(
    reader: Reader, exploration: Exploration, rows: Mapping[Value, Row], total: Row, colour_of: Mapping[Any, str]
) -> Component:  # fmt: skip
    """Rows by one dimension, columns by the other."""
    measure, other = measure_of(exploration), exploration.other
    across = by_value(reader, exploration, other)
    columns = apart_of(exploration, across)
    order = _sorted(exploration, rows, None)
    shown = order[:MOST_SHOWN]
    inside = cells(reader, exploration, shown, columns)
    wanting = len(across) > len(columns)
    heads = [_head(exploration, "name", f"{title(exploration.by)} by {title(other).lower()}")]
    heads += [
        html.Th(link(named(other, column), exploration.narrowed(**{other: column}).href(),
                     title=f"Only {named(other, column)}"), scope="col")
        for column in columns
    ]  # fmt: skip
    heads += [html.Th(f"Other ({len(across) - len(columns)})", scope="col")] if wanting else []
    heads.append(_head(exploration, "", "Overall" if measure.numerator else "Total", measure))
    sizes = (value_of(measure, sums) for sums in inside.values())
    highest = max((Decimal(size) for size in sizes if size), default=Decimal(0))
    lines = []
    for value in shown:
        mine = [inside.get((value, column)) for column in columns]
        kept = {exploration.by: text_of(value)}
        numbers = [
            html.Td(_number(exploration, measure, value_of(measure, sums), {**kept, other: text_of(column)}),
                    style=_heat(value_of(measure, sums), highest))
            for column, sums in zip(columns, mine, strict=True)
        ]  # fmt: skip
        whole_ = sums_in(exploration, rows[value])
        if wanting:
            left = less(whole_, [sums for sums in mine if sums])
            numbers.append(html.Td(_plain(measure, left)))
        numbers.append(html.Td(_number(exploration, measure, value_of(measure, whole_), kept), className="sum"))
        lines.append(html.Tr([_name(exploration, value, colour_of), *numbers], className=_class(value, "")))
    sums = [sums_in(exploration, across[column]) for column in columns]
    feet = [
        html.Td(_number(exploration, measure, value_of(measure, one), {other: text_of(column)}))
        for column, one in zip(columns, sums, strict=True)
    ]
    all_ = sums_in(exploration, total)
    if wanting:
        feet.append(html.Td(_plain(measure, less(all_, [one for one in sums if one]))))
    feet.append(html.Td(_number(exploration, measure, value_of(measure, all_), {}), className="sum"))
    foot = html.Tr([html.Th("Overall" if measure.numerator else "Total", scope="row"), *feet])
    rest = len(order) - len(shown)
    return _framed(heads, lines, foot, f"and {rest:,} more, which the totals include" if rest else "", "explored pivot")


def _framed(
    heads: Sequence[Component], lines: Sequence[Component], foot: Component, said: str, look: str
) -> Component:  # fmt: skip
    table_ = html.Table([html.Thead(html.Tr([*heads])), html.Tbody([*lines]), html.Tfoot(foot)], className=look)
    return html.Div([html.Div(table_, className="scroll"), html.P(said, className="quiet")])


def _sorted(
    exploration: Exploration, rows: Mapping[Value, Row], before: Mapping[Value, Row] | None
) -> list[Value]:  # fmt: skip
    """Values in the order that was asked for, the largest first; what belongs to no caller comes last."""
    measure = DICTIONARY.get(exploration.order) or measure_of(exploration)
    names = sums_of(measure)

    def size(row: Row | None) -> Decimal:
        return Decimal(value_of(measure, tuple(row.get(name) for name in names) if row else None) or 0)

    found = ranked(exploration, rows)
    if exploration.order == "name":
        found.sort(key=lambda value: (value is None, str(value).casefold()))
    elif exploration.order == "change" and before is not None:
        found.sort(key=lambda value: -abs(size(rows[value]) - size(before.get(value))))
    else:
        found.sort(key=lambda value: -size(rows[value]))
    return [*found, *(value for value in reversed(BESIDE) if value in rows)]


def _head(exploration: Exploration, order: str, words: str, measure: Measure | None = None) -> Component:
    here = exploration.order == order or (measure is not None and exploration.order == measure.name)
    mark = "▲" if order == "name" else "▼"
    face = [words, html.Span(mark, className="arrow", **aria(hidden="true")) if here else None]
    what = measure.words if measure else f"Sort by {words.lower()}"
    sorts = "ascending" if order == "name" else "descending"
    inner = html.Span(face) if here else link(face, exploration.href(order=order), title=what)
    return html.Th(inner, scope="col", **(aria(sort=sorts) if here else {}))


def _name(exploration: Exploration, value: Value, colour_of: Mapping[Any, str]) -> Component:
    colour, pattern = looks(exploration.by, value, colour_of)
    name = named(exploration.by, value)
    face = [dot(colour, hatched=bool(pattern)), html.Span(name, className="name")]
    following = exploration.next
    goes = f"Only {name}, by {following.replace('_', ' ')}" if following else f"The calls of {name}"
    return html.Th(link(face, exploration.deeper(value), title=goes), scope="row")


def _number(
    exploration: Exploration, measure: Measure, value: Number | None, kept: Mapping[str, str | None]
) -> Any:  # fmt: skip
    """A number that leads to how it came about."""
    if value is None:
        return html.Span("·", **aria(label="none"))
    exact = fmt.usd_exact(value) if measure.unit == "usd" else f"{value:,}" if isinstance(value, int) else None
    figure = Figure.of(measure.name, exploration.view.basis, **dict(kept))
    return opener(fmt.value_text(value, measure.unit), figure, exploration.href(), title=exact)


def _plain(measure: Measure, sums: Sums | None) -> str:
    value = value_of(measure, sums)
    return fmt.value_text(value, measure.unit) if value else "·"


def _heat(value: Number | None, highest: Decimal) -> dict[str, str]:
    share = Decimal(value) / highest if value and highest > 0 else Decimal(0)
    return {"--heat": f"{max(share, Decimal(0)) * 38:.0f}%"}


def _class(value: Value, name: str) -> str:
    return "beside" if value in BESIDE else "unattributed" if value is None and not name else ""
