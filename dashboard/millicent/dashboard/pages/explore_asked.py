"""What the Cost explorer asks of the warehouse: a measure as its sums, by value, over time, and as a whole.

Sums are asked and ratios made of them here, so that Other, columns and totals are sum over sum as well. What stands for
itself is asked for by name, and Other is the whole less that: no answer grows with how many users or customers there
are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard.charts import API_COLOUR, COST_COLOURS, IDLE_COLOUR, OTHER_COLOUR, PATTERNS, label
from millicent.dashboard.pages.explore_place import NO_OTHER, Exploration, is_yes_or_no, yes_or_no
from millicent.dashboard.pages.figures import sums_of
from millicent.dashboard.state import question
from millicent.warehouse.instants import midnight
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.record import CHARGE, IDLE
from millicent.warehouse.tables import OF_DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    import polars as pl

    from millicent.dashboard.pages.explore_place import Value
    from millicent.dashboard.reader import Reader
    from millicent.dashboard.state import Window
    from millicent.warehouse.metrics import Measure
    from millicent.warehouse.query import Filter, Grain, Period, Query

Number = Decimal | int
Sums = tuple[Number | None, ...]
"""The sum itself, or numerator and denominator of a ratio; None is unknown."""

BESIDE: Final = (IDLE, CHARGE)
"""Values of what belongs to no caller."""
MOST_ROWS: Final = 1000
"""Values of a dimension that are told apart; the dearest, where there are more."""
MOST_COLUMNS: Final = 7
FOOT: Final = ("spend_usd", "total_tokens", "calls", "cost_per_mtok_usd")
"""Columns that stand beside the measure in a table."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A value by itself, or all others together; sums per step of time."""

    value: Value
    label: str
    colour: str
    pattern: str
    sums: list[Sums]
    entity: bool


@dataclass(frozen=True, slots=True)
class Bucket:
    """A step of time: its first instant, how it is called, and whether only a part of it is in the period."""

    start: datetime
    words: str
    partial: bool


def measure_of(exploration: Exploration) -> Measure:
    """What is measured."""
    return DICTIONARY[exploration.measure]


def value_of(measure: Measure, sums: Sums | None) -> Number | None:
    """The measure of its sums."""
    if sums is None or sums[0] is None:
        return None
    if not measure.numerator:
        return sums[0]
    return Decimal(sums[0]) * measure.scale / Decimal(sums[1]) if sums[1] else None


def named(dimension: str, value: Value) -> str:
    """How a value is called on the screen."""
    if is_yes_or_no(dimension):
        return yes_or_no(dimension, value)
    return label(dimension, value if isinstance(value, str) else None)


def looks(dimension: str, value: Value, colour_of: Mapping[Any, str]) -> tuple[str, str]:
    """Colour and pattern of a value."""
    if value == IDLE:
        return IDLE_COLOUR, PATTERNS["idle"]
    if value == CHARGE:
        return COST_COLOURS["charge"], ""
    if dimension == "cost_type" and isinstance(value, str):
        return COST_COLOURS.get(value, API_COLOUR), PATTERNS.get(value, "")
    return colour_of.get(value, OTHER_COLOUR), ""


def ask(reader: Reader, query: Query) -> pl.DataFrame:
    """The rows of an answer; parts of the page that ask the same share it."""
    return reader.warehouse.ask(reader.tenant, query).frame


def asked(
    reader: Reader, exploration: Exploration, by: Sequence[str] = (), grain: Grain | None = None,
    period: Period | None = None, kept: Sequence[Filter] = (), more: Sequence[str] = (),
) -> Query:  # fmt: skip
    """The question for the sums of the measure, and for those of `more`."""
    measures = dict.fromkeys(part for name in (exploration.measure, *more) for part in sums_of(DICTIONARY[name]))
    query = question(exploration.view, period or reader.window.period, tuple(measures), tuple(by), grain)
    return replace(query, filters=(*query.filters, *kept))


def by_value(
    reader: Reader, exploration: Exploration, dimension: str, period: Period | None = None
) -> dict[Value, dict[str, Any]]:  # fmt: skip
    """Sums by value of a dimension, the largest first."""
    query = asked(reader, exploration, (dimension,), period=period, more=FOOT)
    query = replace(query, order=(f"-{query.measures[0]}",), limit=MOST_ROWS)
    return {row[dimension]: row for row in ask(reader, query).iter_rows(named=True)}


def whole(reader: Reader, exploration: Exploration, period: Period | None = None) -> dict[str, Any]:
    """Sums over everything."""
    return ask(reader, asked(reader, exploration, period=period, more=FOOT)).row(0, named=True)


def ranked(exploration: Exploration, rows: Mapping[Value, Mapping[str, Any]]) -> list[Value]:
    """Values with something to show, the largest first; what belongs to no caller is not among them."""
    top = sums_of(measure_of(exploration))[0]
    known = [value for value in rows if value not in BESIDE]
    return sorted(known, key=lambda value: (-(rows[value][top] or 0), str(value)))


def over_time(reader: Reader, exploration: Exploration) -> tuple[list[Bucket], list[Layer], list[Sums], list[Sums]]:
    """Steps of time, layers of the chart, the whole of each step, and that of its counterpart before."""
    measure, dimension, grain = measure_of(exploration), exploration.by, exploration.step(reader.window)
    names = sums_of(measure)
    rows = by_value(reader, exploration, dimension)
    order = ranked(exploration, rows)
    apart = order[: exploration.top]
    beside = [value for value in BESIDE if value in rows and any(rows[value][name] for name in names)]
    steps = buckets(reader.window, grain, reader.window.period)
    starts = [step.start for step in steps]
    wholes = _per_step(ask(reader, asked(reader, exploration, grain=grain)), names, starts)
    told: dict[Value, list[Sums]] = {}
    if apart or beside:
        kept = exploration.kept(dimension, (*apart, *beside))
        frame = ask(reader, asked(reader, exploration, (dimension,), grain, kept=[kept]))
        for key, part in frame.partition_by(dimension, as_dict=True).items():
            told[key[0]] = _per_step(part, names, starts)
    colour_of = {} if dimension == "cost_type" or is_yes_or_no(dimension) else reader.colours(dimension)
    layers = [
        Layer(value, named(dimension, value), *looks(dimension, value, colour_of), told[value], entity=True)
        for value in apart
        if value in told
    ]
    if rest := order[exploration.top :]:
        left = [_less(total, [told[value][at] for value in told]) for at, total in enumerate(wholes)]
        number = f"{len(rest)}+" if len(rows) >= MOST_ROWS else str(len(rest))
        layers.append(Layer(None, f"Other ({number})", OTHER_COLOUR, "", left, entity=False))
    layers += [
        Layer(value, named(dimension, value), *looks(dimension, value, {}), told[value], entity=True)
        for value in reversed(beside)
        if value in told
    ]
    prior: list[Sums] = []
    if reader.window.prior and exploration.shape in {"bar", "area"} and not measure.numerator:
        earlier = buckets(reader.window, grain, reader.window.prior)
        frame = ask(reader, asked(reader, exploration, grain=grain, period=reader.window.prior))
        prior = _per_step(frame, names, [step.start for step in earlier])
    return steps, layers, wholes, prior


def buckets(window: Window, grain: Grain, period: Period) -> list[Bucket]:
    """The steps of a period in the time zone of a window."""
    zone = window.zone
    begins, until = period.start.astimezone(zone), period.end
    starts: list[datetime] = []
    if grain == "hour":
        at = period.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while at < until:
            starts.append(at)
            at += timedelta(hours=1)
    else:
        day = begins.date()
        day = (
            day - timedelta(days=day.weekday()) if grain == "week" else day.replace(day=1) if grain == "month" else day
        )
        while midnight(day, zone) < until:
            starts.append(midnight(day, zone))
            day = _following(day, grain)
    years = len({start.astimezone(zone).year for start in starts}) > 1
    ends = [*starts[1:], None]
    found: dict[str, Bucket] = {}
    for start, end in zip(starts, ends, strict=True):
        words = _words(start.astimezone(zone), grain, years=years)
        words = words if words not in found else f"{words} {start.astimezone(zone):%Z}"
        over = end or (
            start + timedelta(hours=1)
            if grain == "hour"
            else midnight(_following(start.astimezone(zone).date(), grain), zone)
        )
        found[words] = Bucket(start, words, start < period.start or over > period.end)
    return list(found.values())


def apart_of(exploration: Exploration, rows: Mapping[Value, Mapping[str, Any]]) -> list[Value]:
    """The columns of a second dimension: the largest values, and what belongs to no caller."""
    beside = [value for value in BESIDE if value in rows]
    return [*ranked(exploration, rows)[: MOST_COLUMNS - len(beside)], *beside]


def cells(
    reader: Reader, exploration: Exploration, rows: Sequence[Value], columns: Sequence[Value]
) -> dict[tuple[Value, Value], Sums]:  # fmt: skip
    """Sums by row and column."""
    if exploration.other == NO_OTHER or not rows or not columns:
        return {}
    by, other = exploration.by, exploration.other
    kept = [exploration.kept(by, tuple(rows)), exploration.kept(other, tuple(columns))]
    names = sums_of(measure_of(exploration))
    frame = ask(reader, asked(reader, exploration, (by, other), kept=kept))
    return {(row[by], row[other]): tuple(row[name] for name in names) for row in frame.iter_rows(named=True)}


def sums_in(exploration: Exploration, row: Mapping[str, Any] | None) -> Sums | None:
    """The sums of the measure out of a row."""
    return None if row is None else tuple(row[name] for name in sums_of(measure_of(exploration)))


def less(total: Sums | None, parts: Sequence[Sums]) -> Sums | None:
    """What is left of a whole."""
    return None if total is None else _less(total, parts)


def refused(exploration: Exploration) -> str | None:
    """Why the measure cannot be cut like this, in words; None where it can."""
    measure = measure_of(exploration)
    wrong = [name for name in (*exploration.dimensions, *dict(exploration.view.filters))
             if name not in OF_DEPLOYMENTS and name != "cost_type"]  # fmt: skip
    if not measure.of_deployments or not wrong:
        return None
    said = ", ".join(dict.fromkeys(name.replace("_", " ") for name in wrong))
    return (
        f"{measure.label} is a fact of deployments: it belongs to no {said}. Cut by model, deployment or accelerator."
    )


def _per_step(frame: pl.DataFrame, names: Sequence[str], starts: Sequence[datetime]) -> list[Sums]:
    found = {row["time"]: tuple(row[name] for name in names) for row in frame.iter_rows(named=True)}
    nothing: Sums = (None,) * len(names)
    return [found.get(start, nothing) for start in starts]


def _less(total: Sums, parts: Sequence[Sums]) -> Sums:
    left: list[Number | None] = []
    for at, all_ in enumerate(total):
        known = [part[at] for part in parts if part[at] is not None]
        left.append(None if all_ is None else all_ - sum(known))  # type: ignore[arg-type, operator]
    return tuple(left)


def _following(day: date, grain: Grain) -> date:
    if grain == "month":
        return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    return day + timedelta(days=7 if grain == "week" else 1)


def _words(at: datetime, grain: Grain, *, years: bool) -> str:
    year = f" {at.year}" if years else ""
    if grain == "hour":
        return f"{at.day} {at:%b}{year} {at:%H:%M}"
    if grain == "day":
        return f"{at:%a} {at.day} {at:%b}{year}"
    return f"Week of {at.day} {at:%b}{year}" if grain == "week" else f"{at:%b %Y}"
