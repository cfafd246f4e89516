"""Colours and figures, as plain dicts that Plotly draws: pure functions of frames.

Amounts stay Decimal in every text; a float appears only as the height of a mark on the screen. Attribute values are
hostile text: Plotly reads tags in labels, so every name is escaped on its way into a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, Final, Literal
from zlib import crc32

import polars as pl

from millicent.dashboard import format as fmt
from millicent.warehouse.metrics import MTOK
from millicent.warehouse.record import CHARGE, COST_TYPE, IDLE
from millicent.warehouse.tables import OF_DEPLOYMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from millicent.dashboard.state import Scale, Window

Unused = Literal["idle", "unavailable", "untracked"]
"""What of own accelerators no call carries."""
PALETTE: Final = ("#3b6fe0", "#22a094", "#dd9226", "#c94f7c", "#7a5fd6", "#3f97db", "#82a42e", "#b8693d")
OTHER_COLOUR: Final = "#8b95a7"
IDLE_COLOUR: Final = "#98a2b3"
PRIOR_COLOUR: Final = "#6c788c"
UNKNOWN_COLOUR: Final = "#b4bcc9"
API_COLOUR: Final = "#5d7196"
UNUSED: Final[tuple[Unused, ...]] = ("idle", "unavailable", "untracked")
COST_COLOURS: Final = {
    "api": PALETTE[0], "hardware": PALETTE[1], "idle": IDLE_COLOUR, "unavailable": "#d9485c", "untracked": "#77839a",
    "charge": "#4b5a75",
}  # fmt: skip
PATTERNS: Final = {"idle": "/", "unavailable": "|", "untracked": "."}
"""How bars of what no call carries are filled."""
BESIDE: Final = (*UNUSED, "charge")
"""Kinds of layers that are of no call."""
COST_LABELS: Final = {
    "api": "API", "hardware": "Own hardware, busy", "idle": "Idle", "unavailable": "Unavailable",
    "untracked": "Untracked", "charge": "Charges and credits",
    "adjustment": "Adjustments of closed periods",
}  # fmt: skip
MOST: Final = 8
DAY_MS: Final = 86_400_000
BAR_MS: Final = DAY_MS * 4 // 5

Kind = Literal["entity", "other", "charge"] | Unused


@dataclass(frozen=True, slots=True)
class Series:
    """One layer of the stack: a value of a dimension (None is unknown), all the rest, charges, or what no call carries.

    `spend_usd` and `tokens` have one entry per day; None is unknown.
    """

    value: str | None
    label: str
    colour: str
    kind: Kind
    spend_usd: list[Decimal | None]
    tokens: list[int | None]


def colours(ranked: Iterable[str | None]) -> dict[str | None, str]:
    """A colour for each name, `ranked` by spend: the one its hash asks for, or the next free one.

    The same name so keeps its colour on every page and in every period; only where two of the first eight ask for
    the same colour does rank decide. Later names share colours, and unknown is grey.
    """
    given: dict[str | None, str] = {}
    free = list(range(MOST))
    for name in ranked:
        if name is None:
            given[name] = UNKNOWN_COLOUR
            continue
        wish = crc32(name.encode()) % MOST
        slot = min(free, key=lambda slot, wish=wish: (slot - wish) % MOST) if free else wish  # type: ignore[misc]
        if free:
            free.remove(slot)
        given[name] = PALETTE[slot]
    return given


def label(dimension: str, value: str | None) -> str:
    """How a value of a dimension is called on the screen."""
    if dimension == "cost_type":
        return COST_LABELS.get(value or "", value or "Unknown")
    if value == IDLE:
        return "Idle / unallocated"
    if value == CHARGE:
        return "Charges and credits"
    if value is None:
        return {"team": "Unattributed", "accelerator": "API"}.get(dimension, "Unknown")
    return fmt.accelerator(value) if dimension == "accelerator" else value


def series(
    frame: pl.DataFrame, dimension: str, days: Sequence[datetime], colour_of: dict[str | None, str], *, idle: bool
) -> list[Series]:
    """Layers of a stack, most spend first, then Other, charges, and what no call carries: idle, unavailable, untracked.

    What a policy has a team carry is with the team.

    Args:
        frame: `time`, the dimension, `spend_usd`, `priced_tokens` and a cost of each of `UNUSED`; one row per day and
            value.
        dimension: its column.
        days: the days to show, in order.
        colour_of: colours by name.
        idle: whether spend includes what no call carries, which then becomes layers of its own.
    """
    nobodys = pl.col(dimension).is_in([IDLE, *UNUSED]).fill_null(value=False)
    apart = nobodys if dimension not in OF_DEPLOYMENTS else pl.lit(value=True)
    costs: dict[Unused, pl.Expr] = {kind: pl.when(apart & idle).then(pl.col(f"{kind}_cost_usd")) for kind in UNUSED}
    beside_idle = sum((costs[kind].fill_null(0) for kind in UNUSED[1:]), pl.lit(0))
    costs["idle"] = (  # of nobody's spend all the rest, so that adjustments of closed periods are in it
        pl.when(nobodys & idle).then(pl.col("spend_usd") - beside_idle).otherwise(costs["idle"])
    )
    left = pl.col("spend_usd") - pl.sum_horizontal(cost.fill_null(0) for cost in costs.values())
    shown = frame.filter(pl.col("time").is_in(list(days))).with_columns(
        spend_usd=left, **{f"{kind}_cost_usd": cost for kind, cost in costs.items()}
    )
    charged = pl.col(dimension).is_in([CHARGE, "charge"] if dimension == COST_TYPE else [CHARGE]).fill_null(value=False)
    charges, real = shown.filter(charged), shown.filter(~nobodys & ~charged)
    ranked = (
        real.group_by(dimension)
        .agg(_sum("spend_usd"))
        .sort("spend_usd", dimension, descending=[True, False], nulls_last=True)
    )[dimension].to_list()
    room = MOST if len(ranked) <= MOST else MOST - 1
    layers = [
        _layer(real.filter(pl.col(dimension).eq_missing(name)), days, name, label(dimension, name),
               colour_of.get(name) or COST_COLOURS.get(name or "") or OTHER_COLOUR, "entity")
        for name in ranked[:room]
    ]  # fmt: skip
    if rest := ranked[room:]:
        others = real.filter(pl.col(dimension).is_in([name for name in rest if name is not None])
                             | (pl.col(dimension).is_null() & (None in rest)))  # fmt: skip
        layers.append(_layer(others, days, None, f"Other ({len(rest)})", OTHER_COLOUR, "other"))
    if (charges["spend_usd"] != 0).any():
        layers.append(_layer(charges, days, None, COST_LABELS["charge"], COST_COLOURS["charge"], "charge"))
    for kind in UNUSED:
        cost = shown[f"{kind}_cost_usd"]
        if (cost != 0).any():
            layers.append(
                _layer(shown.with_columns(spend_usd=cost), days, None, COST_LABELS[kind], COST_COLOURS[kind], kind)
            )
    return layers


def spend_figure(
    layers: Sequence[Series], totals: pl.DataFrame, window: Window, scale: Scale, *, parts: bool,
    href: Callable[[Series], str | None],
) -> dict[str, Any]:  # fmt: skip
    """Daily bars stacked by layer, or daily cost per 1M tokens as lines.

    Args:
        layers: from `series`.
        totals: `time`, `spend_usd`, `priced_tokens` per day, over the period and the one before.
        window: the period shown and compared.
        scale: dollars, or dollars per 1M tokens.
        parts: the layers are parts of one price (cost types), so that they stack in $/1M too.
        href: where a click on a layer leads.
    """
    days = window.days
    daily = {row["time"]: row for row in totals.iter_rows(named=True)}
    now = [_height(daily.get(day), scale) for day in days]
    prior = _prior(window, daily, scale)
    lines = scale == "mtok" and not parts
    traces = [
        (_line if lines else _bar)(layer, _heights(layer, scale, parts, daily, days), window, href(layer))
        for layer in layers
        if not (lines and layer.kind in BESIDE)
    ]
    if any(tick is not None for tick in prior):
        traces.append(_ticks(days, prior))
    traces.append(_total(days, now, prior, window))
    peaks = [value for value in (*now, *prior) if value is not None]
    if lines:
        peaks += [value for trace in traces for value in trace.pop("peaks", ())]
    return {"data": traces, "layout": _layout(window, max(peaks, default=Decimal(0)))}


def nice_ticks(top: Decimal, most: int = 5) -> list[Decimal]:
    """Zero and round steps (1, 2 or 5 times a power of ten) up to `top`."""
    if top <= 0:
        return [Decimal(0)]
    rough = top / most
    power = Decimal(1).scaleb(rough.adjusted())
    step = next(unit * power for unit in (1, 2, 5, 10) if unit * power >= rough)
    return [step * n for n in range(int(top / step) + 1)]


def smoothed(
    top: Sequence[Decimal | int | None], bottom: Sequence[int | None] | None = None, days: int = 7
) -> list[Decimal | None]:
    """Mean over the trailing `days` of a daily sum, or with `bottom` the ratio of the sums over them.

    The weekly saw-tooth goes and the trend stays. Unknown where nothing is known in those days.
    """
    result: list[Decimal | None] = []
    for last in range(1, len(top) + 1):
        part = slice(max(0, last - days), last)
        known = [Decimal(value) for value in top[part] if value is not None]
        if bottom is None:
            result.append(sum(known, Decimal(0)) / len(known) if known else None)
        else:
            under = sum(value for value in bottom[part] if value is not None)
            result.append(sum(known, Decimal(0)) / under if known and under else None)
    return result


def marked_days(dates: Sequence[datetime]) -> list[datetime]:
    """Which of consecutive dates an axis names: all of a few, else Sundays, every second one or fewer of many."""
    if len(dates) <= 10:
        return list(dates)
    weeks = 1 if len(dates) <= 45 else 2 if len(dates) <= 100 else -(-len(dates) // 100) * 2
    sundays = [day for day in dates if day.weekday() == 6 and (dates[-1] - day).days // 7 % weeks == 0]
    return sundays or [dates[0]]


def by_day(frame: pl.DataFrame, measure: str, days: Sequence[datetime]) -> list[Any]:
    """One value per day of `days`; None where the frame has no row."""
    known = dict(zip(frame["time"].to_list(), frame[measure].to_list(), strict=True))
    return [known.get(day) for day in days]


def _sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name)


def _layer(
    rows: pl.DataFrame, days: Sequence[datetime], value: str | None, text: str, colour: str, kind: Kind
) -> Series:
    daily = rows.group_by("time").agg(_sum("spend_usd"), _sum("priced_tokens"))
    return Series(value, text, colour, kind, by_day(daily, "spend_usd", days), by_day(daily, "priced_tokens", days))


def _per_mtok(usd: Decimal | None, tokens: int | None) -> Decimal | None:
    return usd * MTOK / tokens if usd is not None and tokens else None


def _height(row: dict[str, Any] | None, scale: Scale) -> Decimal | None:
    if row is None:
        return None
    spend: Decimal | None = row["spend_usd"]
    return spend if scale == "usd" else _per_mtok(spend, row["priced_tokens"])


def _heights(
    layer: Series, scale: Scale, parts: bool, daily: dict[datetime, dict[str, Any]], days: Sequence[datetime]
) -> list[Decimal | None]:
    if scale == "usd":
        return layer.spend_usd
    if parts:
        return [
            _per_mtok(usd, daily.get(day, {}).get("priced_tokens"))
            for day, usd in zip(days, layer.spend_usd, strict=True)
        ]
    return [_per_mtok(usd, count) for usd, count in zip(layer.spend_usd, layer.tokens, strict=True)]


def _prior(window: Window, daily: dict[datetime, dict[str, Any]], scale: Scale) -> list[Decimal | None]:
    """The same day of the period before, for each day shown."""
    if window.prior is None:
        return [None] * len(window.days)
    return [
        _height(daily.get(then), scale) if then is not None and then < window.period.start else None
        for then in window.counterparts
    ]


def date_of(day: datetime) -> str:
    """The date of a midnight in the time zone in force: all that an axis of days knows of."""
    return f"{fmt.local(day):%Y-%m-%d}"


def mark(value: Decimal | int | None) -> float | None:
    """The height of a mark on the screen, the only place of a float."""
    return None if value is None else float(value)


def _bar(layer: Series, heights: list[Decimal | None], window: Window, href: str | None) -> dict[str, Any]:
    days = window.days
    marker: dict[str, Any] = {"color": layer.colour}
    if shape := PATTERNS.get(layer.kind):
        marker = {"color": "rgba(0,0,0,0)", "line": {"width": 0},
                  "pattern": {"shape": shape, "fgcolor": layer.colour, "size": 5, "solidity": 0.35}}  # fmt: skip
    if window.today:
        marker["opacity"] = [0.55 if day == window.today else 1 for day in days]
    return {
        "type": "bar",
        "x": [date_of(day) for day in days],
        "y": [mark(value) for value in heights],
        "width": BAR_MS,
        "name": escape(layer.label),
        "marker": marker,
        "customdata": [fmt.usd(value) for value in heights],
        "hovertemplate": f"<b>%{{customdata}}</b>  {literal(layer.label)}<extra></extra>",
        "meta": {"label": layer.label, "href": href},
    }


def _line(layer: Series, heights: list[Decimal | None], window: Window, href: str | None) -> dict[str, Any]:
    bar = _bar(layer, heights, window, href)
    kept = {key: bar[key] for key in ("x", "y", "name", "customdata", "hovertemplate", "meta")}
    return kept | {
        "type": "scatter",
        "mode": "lines",
        "line": {"color": layer.colour, "width": 2, "dash": "dot" if layer.kind == "other" else "solid"},
        "peaks": [value for value in heights if value is not None],
    }


def _ticks(days: Sequence[datetime], prior: Sequence[Decimal | None]) -> dict[str, Any]:
    """A short line across each bar, at the height of the period before."""
    half = timedelta(milliseconds=BAR_MS / 2)
    dates = [datetime.fromisoformat(date_of(day)) for day in days]
    xs: list[str | None] = []
    ys: list[float | None] = []
    for day, value in zip(dates, prior, strict=True):
        if value is not None:
            xs += [f"{day - half:%Y-%m-%d %H:%M:%S}", f"{day + half:%Y-%m-%d %H:%M:%S}", None]
            ys += [float(value), float(value), None]
    return {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "name": "Prior", "hoverinfo": "skip",
            "connectgaps": False, "line": {"color": PRIOR_COLOUR, "width": 1.5}}  # fmt: skip


def _total(
    days: Sequence[datetime], now: list[Decimal | None], prior: list[Decimal | None], window: Window
) -> dict[str, Any]:
    """Unseen marks that tell the total, and the prior one, in the hover box."""
    texts = []
    for day, then, value, before in zip(days, window.counterparts, now, prior, strict=True):
        so_far = ", so far" if day == window.today else ""
        than = f"  · {fmt.day(then)} {fmt.usd(before)}" if before is not None and then is not None else ""
        texts.append(f"{fmt.usd(value)}</b>  total{so_far}{than}")
    return {"type": "scatter", "mode": "markers", "x": [date_of(day) for day in days], "y": [mark(v) for v in now],
            "name": "Total", "meta": {"label": "Total", "texts": [fmt.usd(value) for value in now]},
            "marker": {"opacity": 0, "size": 1, "color": PRIOR_COLOUR}, "customdata": texts,
            "hovertemplate": "<b>%{customdata}<extra></extra>"}  # fmt: skip


def literal(text: str) -> str:
    """Text that a hover template prints as it is: no tags, no `%{…}` variables."""
    return escape(text).replace("%", "&#37;").replace("{", "&#123;")


def _layout(window: Window, top: Decimal) -> dict[str, Any]:
    days = [datetime.fromisoformat(date_of(day)) for day in window.days]
    ticks = nice_ticks(top)
    marked = marked_days(days)
    margin = timedelta(hours=14)
    return {
        "autosize": True,
        "barmode": "stack",
        "bargap": 0,
        "margin": {"l": 46, "r": 6, "t": 8, "b": 24},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "Inter, system-ui, sans-serif", "size": 11},
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 11.5}, "namelength": 40},
        "dragmode": False,
        "uirevision": "keep",
        "xaxis": {
            "type": "date",
            "range": [f"{days[0] - margin:%Y-%m-%d %H:%M}", f"{days[-1] + margin:%Y-%m-%d %H:%M}"],
            "tickvals": [f"{day:%Y-%m-%d}" for day in marked],
            "ticktext": [f"{day.day} {day:%b}" for day in marked],
            "showgrid": False,
            "zeroline": False,
            "unifiedhovertitle": {"text": "%{x|%a %-d %b %Y}"},
            "showspikes": False,
            "fixedrange": True,
        },
        "yaxis": {
            "range": [0, float(top * Decimal("1.04")) or 1],
            "tickvals": [float(tick) for tick in ticks],
            "ticktext": [axis_text(tick) for tick in ticks],
            "zeroline": False,
            "fixedrange": True,
        },
    }


def axis_text(tick: Decimal) -> str:
    """Money on an axis: `$20k`, `$0.5`."""
    return short(fmt.usd(tick))


def short(text: str) -> str:
    """A value without idle zeros, as an axis has it: `$20k` of `$20.0k`, `5%` of `5.0%`."""
    head, suffix = (text[:-1], text[-1]) if text[-1].isalpha() or text[-1] == "%" else (text, "")
    return (head.rstrip("0").rstrip(".") if "." in head else head) + suffix
