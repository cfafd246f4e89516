"""The chart of the Cost explorer: bars, areas or lines over time, or ranked bars. Figures are dicts, bars are HTML."""

from __future__ import annotations

from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR, PRIOR_COLOUR, literal, nice_ticks, short
from millicent.dashboard.components import aria, delta, dot, link
from millicent.dashboard.pages.explore_asked import (
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
from millicent.dashboard.pages.explore_place import NO_OTHER, is_yes_or_no

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.explore_asked import Bucket, Layer, Number, Sums
    from millicent.dashboard.pages.explore_place import Exploration, Value
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.metrics import Measure

MOST_RANKED: Final = 20
MOST_MARKS: Final = 7
MOST_TICKS: Final = 60
FADED: Final = 0.5


def figure(
    exploration: Exploration, steps: Sequence[Bucket], layers: Sequence[Layer], wholes: Sequence[Sums],
    prior: Sequence[Sums],
) -> dict[str, Any]:  # fmt: skip
    """Layers over time, with the whole of each step and of its counterpart in what is told on hovering.

    A ratio does not stack: it is drawn as lines, whatever was chosen.
    """
    measure = measure_of(exploration)
    shape = "line" if measure.numerator else exploration.shape
    words = [step.words for step in steps]
    traces, heights = [], []
    for layer in layers:
        values = [value_of(measure, sums) for sums in layer.sums]
        heights.append(values)
        trace = _bar(layer, values, steps) if shape == "bar" else _line(layer, values, filled=shape == "area")
        texts = [fmt.value_text(value, measure.unit) if value else None for value in values]
        traces.append(trace | {
            "x": words, "y": [_mark(value) for value in values], "name": escape(layer.label), "customdata": texts,
            "hovertemplate": f"<b>%{{customdata}}</b>  {literal(layer.label)}<extra></extra>",
            "meta": {"label": layer.label,
                     "href": exploration.deeper(layer.value) if layer.entity else None},
        })  # fmt: skip
    totals = [value_of(measure, sums) for sums in wholes]
    before = [value_of(measure, sums) for sums in prior][: len(steps)]
    before += [None] * (len(steps) - len(before))
    if any(value is not None for value in before):
        traces.append(_prior(words, before, lines=shape == "area" or len(words) > MOST_TICKS))
    traces.append(_total(measure, steps, totals, before))
    stacked = shape != "line"
    high, low = _reach(heights, [*totals, *before], stacked=stacked)
    return {"data": traces, "layout": _layout(measure, words, high, low)}


def legend(exploration: Exploration, layers: Sequence[Layer], *, compared: bool) -> list[Component]:
    """What the colours are; a click goes down into one."""
    entries: list[Component] = []
    for layer in layers:
        face = [dot(layer.colour, hatched=bool(layer.pattern)), html.Span(layer.label)]
        title = _goes(exploration, layer.label)
        entries.append(html.Li(link(face, exploration.deeper(layer.value), title=title)
                               if layer.entity else html.Span(face)))  # fmt: skip
    if compared:
        entries.append(html.Li(html.Span([html.I(className="tick", **aria(hidden="true")), "Prior"])))
    return entries


def ranks(reader: Reader, exploration: Exploration) -> Component:
    """Values as bars by size; with a second dimension each bar is cut by it."""
    measure, window = measure_of(exploration), reader.window
    rows = by_value(reader, exploration, exploration.by)
    before = by_value(reader, exploration, exploration.by, window.prior) if window.prior else {}
    order = [value for value in ranked(exploration, rows) if value_of(measure, sums_in(exploration, rows[value]))]
    if measure.numerator:
        order.sort(key=lambda value: -(value_of(measure, sums_in(exploration, rows[value])) or 0))
    beside = [value for value in rows if value not in order and value_of(measure, sums_in(exploration, rows[value]))]
    shown = [*order[:MOST_RANKED], *(value for value in beside if isinstance(value, str))]
    columns: list[Value] = []
    inside: dict[tuple[Value, Value], Sums] = {}
    if exploration.other != NO_OTHER and not measure.numerator:
        columns = apart_of(exploration, by_value(reader, exploration, exploration.other))
        inside = cells(reader, exploration, shown, columns)
    total = value_of(measure, sums_in(exploration, whole(reader, exploration)))
    colour_of = {} if exploration.by == "cost_type" or is_yes_or_no(exploration.by) else reader.colours(exploration.by)
    of_columns = _colours(reader, exploration, columns)
    told = (value_of(measure, sums_in(exploration, side.get(value))) for side in (rows, before) for value in shown)
    widest = max((abs(Decimal(size)) for size in told if size), default=Decimal(1))
    lines = []
    for value in shown:
        now, prior = sums_in(exploration, rows[value]), sums_in(exploration, before.get(value))
        parts = [(column, inside[value, column]) for column in columns if (value, column) in inside]
        rest = less(now, [sums for _, sums in parts]) if columns else None
        bars = [_part(measure, sums, widest, of_columns[column], named(exploration.other, column))
                for column, sums in parts]  # fmt: skip
        if columns and rest and rest[0]:
            bars.append(_part(measure, rest, widest, (OTHER_COLOUR, ""), "Other"))
        if not columns:
            bars = [_part(measure, now, widest, looks(exploration.by, value, colour_of), "")]
        lines.append(_rank(exploration, value, value_of(measure, now), value_of(measure, prior), total, widest, bars,
                           compared=window.prior is not None))  # fmt: skip
    left = len(order) - len(order[:MOST_RANKED])
    keys = [html.Li(html.Span([dot(of_columns[one][0], hatched=bool(of_columns[one][1])),
                               html.Span(named(exploration.other, one))])) for one in columns]  # fmt: skip
    return html.Div(
        [html.Ul(keys, className="legend") if keys else None, html.Ol(lines, className="ranks"),
         html.P(f"and {left} more" if left else "", className="quiet")]
    )  # fmt: skip


def _colours(reader: Reader, exploration: Exploration, columns: Sequence[Value]) -> dict[Value, tuple[str, str]]:
    other = exploration.other
    known = {} if not columns or other == "cost_type" or is_yes_or_no(other) else reader.colours(other)
    return {column: looks(other, column, known) for column in columns}


def _rank(
    exploration: Exploration, value: Value, now: Number | None, before: Number | None, total: Number | None,
    widest: Decimal, bars: Sequence[Component], *, compared: bool,
) -> Component:  # fmt: skip
    measure = measure_of(exploration)
    name = named(exploration.by, value)
    was = before if before is not None or measure.numerator else Decimal(0)
    change = fmt.change(now, was, unit=measure.unit, better=measure.better, digits=0) if compared else None
    share = "" if measure.numerator or not total or now is None else fmt.percent(Decimal(now) / Decimal(total), 0)
    mark = None
    if compared and before:
        mark = html.I(className="prior", style={"left": f"{abs(Decimal(before)) / widest:.2%}"},
                      title=f"before: {fmt.value_text(before, measure.unit)}")  # fmt: skip
    return html.Li(
        [link(html.Span(name, className="name"), exploration.deeper(value), title=_goes(exploration, name)),
         html.Div([*bars, mark], className="lane"), html.B(fmt.value_text(now, measure.unit)),
         html.Span(share, className="share"), delta(change)],
    )  # fmt: skip


def _part(
    measure: Measure, sums: Sums | None, widest: Decimal, look: tuple[str, str], words: str
) -> Component:  # fmt: skip
    value = value_of(measure, sums) or 0
    style = {"width": f"{abs(Decimal(value)) / widest:.2%}", "--colour": look[0]}
    told = f"{words}: {fmt.value_text(value, measure.unit)}" if words else fmt.value_text(value, measure.unit)
    return html.I(className="hatched" if look[1] else "", style=style, title=told)


def _goes(exploration: Exploration, name: str) -> str:
    following = exploration.next
    return f"Only {name}, by {following.replace('_', ' ')}" if following else f"The calls of {name}"


def _bar(layer: Layer, values: Sequence[Number | None], steps: Sequence[Bucket]) -> dict[str, Any]:
    marker: dict[str, Any] = {"color": layer.colour}
    if layer.pattern:
        hatch = {"shape": layer.pattern, "fgcolor": layer.colour, "size": 5, "solidity": 0.35}
        marker = {"color": "rgba(0,0,0,0)", "line": {"width": 0}, "pattern": hatch}
    if any(step.partial for step in steps):
        marker["opacity"] = [FADED if step.partial else 1 for step in steps[: len(values)]]
    return {"type": "bar", "marker": marker}


def _line(layer: Layer, values: Sequence[Number | None], *, filled: bool) -> dict[str, Any]:
    alone = sum(value is not None for value in values) < 2
    line: dict[str, Any] = {"color": layer.colour, "width": 1.2 if filled else 2,
                            "dash": "solid" if layer.entity and not layer.pattern else "dot"}  # fmt: skip
    trace: dict[str, Any] = {"type": "scatter", "mode": "lines+markers" if alone else "lines", "line": line}
    if filled:
        trace |= {"stackgroup": "one", "fillcolor": f"{layer.colour}b0"}
        if layer.pattern:
            hatch = {"shape": layer.pattern, "fgcolor": layer.colour, "size": 5, "solidity": 0.3}
            trace |= {"fillcolor": "rgba(0,0,0,0)", "fillpattern": hatch}
    return trace


def _prior(words: Sequence[str], before: Sequence[Number | None], *, lines: bool) -> dict[str, Any]:
    """The whole of the step before, as a tick over each bar, or as a line over many."""
    trace: dict[str, Any] = {"type": "scatter", "x": [*words], "y": [_mark(value) for value in before], "name": "Prior",
                             "hoverinfo": "skip"}  # fmt: skip
    if lines:
        return trace | {"mode": "lines", "line": {"width": 1.2, "color": PRIOR_COLOUR, "dash": "dot"}}
    tick = {"symbol": "line-ew", "size": _width(len(words)), "line": {"width": 1.6, "color": PRIOR_COLOUR}}
    return trace | {"mode": "markers", "marker": tick}


def _total(
    measure: Measure, steps: Sequence[Bucket], totals: Sequence[Number | None], before: Sequence[Number | None]
) -> dict[str, Any]:  # fmt: skip
    """Unseen marks that tell the whole in the hover box."""
    texts = []
    for step, now, prior in zip(steps, totals, before, strict=True):
        than = f"  · before {fmt.value_text(prior, measure.unit)}" if prior is not None else ""
        word = "overall" if measure.numerator else "total"
        texts.append(f"{fmt.value_text(now, measure.unit)}</b>  {word}{', in part' if step.partial else ''}{than}")
    shown = [fmt.value_text(now, measure.unit) for now in totals]
    return {"type": "scatter", "mode": "markers", "x": [step.words for step in steps],
            "y": [_mark(value) for value in totals], "name": "Total", "meta": {"label": "Total", "texts": shown},
            "marker": {"opacity": 0, "size": 1, "color": PRIOR_COLOUR}, "customdata": texts,
            "hovertemplate": "<b>%{customdata}<extra></extra>"}  # fmt: skip


def _reach(
    heights: Sequence[Sequence[Number | None]], others: Sequence[Number | None], *, stacked: bool
) -> tuple[Decimal, Decimal]:  # fmt: skip
    """How far marks go up and down."""
    known = [Decimal(value) for value in others if value is not None]
    if stacked:
        for step in zip(*heights, strict=True):
            known.append(sum((Decimal(value) for value in step if value and value > 0), Decimal(0)))
            known.append(sum((Decimal(value) for value in step if value and value < 0), Decimal(0)))
    else:
        known += [Decimal(value) for values in heights for value in values if value is not None]
    return max([*known, Decimal(0)]), min([*known, Decimal(0)])


def _layout(measure: Measure, words: Sequence[str], high: Decimal, low: Decimal) -> dict[str, Any]:
    midnights = [at for at, word in enumerate(words) if word.endswith(" 00:00")]
    usable = midnights if 1 < len(midnights) <= MOST_MARKS + 2 else range(len(words))
    each = -(-len(usable) // MOST_MARKS) if usable is not midnights else 1
    marked = [at for place, at in enumerate(usable) if (len(usable) - 1 - place) % each == 0]
    ticks = nice_ticks(max(high, -low))
    shown = [tick for tick in (*(-tick for tick in reversed(ticks[1:])), *ticks) if low <= tick <= high]
    pad = (high - low) * Decimal("0.04")
    return {
        "autosize": True, "barmode": "relative", "bargap": 0.2, "margin": {"l": 54, "r": 6, "t": 8, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "showlegend": False, "dragmode": False,
        "font": {"family": "Inter, system-ui, sans-serif", "size": 11}, "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 11.5}, "namelength": 40}, "uirevision": "keep",
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": list(words), "tickvals": marked,
                  "ticktext": [_short(words[at]) for at in marked], "showgrid": False, "zeroline": False,
                  "showspikes": False, "fixedrange": True, "tickangle": 0, "range": [-0.6, len(words) - 0.4]},
        "yaxis": {"range": [float(low - pad) if low < 0 else 0, float(high + pad) or 1],
                  "tickvals": [float(tick) for tick in shown],
                  "ticktext": [_axis(tick, measure) for tick in shown], "zeroline": low < 0, "fixedrange": True},
    }  # fmt: skip


def _short(words: str) -> str:
    """Without the weekday, and without what an axis need not repeat: `Mon 16 Nov` is `16 Nov`."""
    text = words.removeprefix("Week of ").removesuffix(" 00:00")
    head, _, rest = text.partition(" ")
    return rest if head in {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"} else text


def _axis(tick: Decimal, measure: Measure) -> str:
    """A value on an axis without idle zeros: `$20k`, `5M`."""
    text = fmt.value_text(tick, measure.unit) if measure.unit != "ratio" else fmt.percent(tick, 0)
    number, _, unit = text.partition(" ")
    return f"{short(number)} {unit}".rstrip()


def _mark(value: Number | None) -> float | None:
    """Height of a mark: five digits are more than a screen shows."""
    return None if value is None else float(f"{value:.5g}")


def _width(steps: int) -> int:
    return max(3, min(30, 480 // max(steps, 1)))
