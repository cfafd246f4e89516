"""Tables in HTML: the heat table, the teams table, and what changed. Pure functions of frames."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import COST_COLOURS, IDLE_COLOUR, OTHER_COLOUR, label
from millicent.dashboard.components import aria, delta, dot, link, spark
from millicent.warehouse.metrics import DICTIONARY, MTOK
from millicent.warehouse.record import CHARGE, IDLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl
    from dash.development.base_component import Component

    from millicent.dashboard.state import View

Row = dict[str, Any]

LOW_SAMPLE_TOKENS: Final = 1_000_000
MOST_ROWS: Final = 12
MOST_COLUMNS: Final = 7
MOST_TEAMS: Final = 60
API: Final = "api"
_NOBODYS: Final = {IDLE: IDLE_COLOUR, CHARGE: COST_COLOURS["charge"]}
"""Colours of what is of no team or model."""


def heat(frame: pl.DataFrame, view: View) -> Component:
    """Cost per 1M tokens by model and accelerator, cheapest home ringed, spend beneath, API calls in a column.

    Charges, and accelerators that no model was on, have no tokens and so no place in it.

    Args:
        frame: `model`, `accelerator`, `billing`, `spend_usd`, `total_tokens`, `cost_per_mtok_usd`, `calls`,
            `unpriced_calls`.
        view: what is filtered now; a cell narrows it.
    """
    served = (row for row in frame.iter_rows(named=True) if row["billing"] != CHARGE and (row["model"] or row["calls"]))
    cells = {(row["model"], _home(row)): row for row in served}
    homes = sorted(_ranked(cells, 1)[:MOST_COLUMNS], key=lambda home: home == API)
    models = _ranked(cells, 0)
    shown = models[:MOST_ROWS]
    prices = [row["cost_per_mtok_usd"] for (model, home), row in cells.items()
              if row["cost_per_mtok_usd"] and model in shown and home in homes]  # fmt: skip
    bounds = _bounds(prices)
    head = html.Tr([html.Th(html.Span("Model", className="unseen")),
                    *(html.Th(_home_label(home), scope="col", title=home) for home in homes)])  # fmt: skip
    body = []
    for model in shown:
        row = [cells.get((model, home)) for home in homes]
        known = [cell["cost_per_mtok_usd"] for cell in row if cell and cell["cost_per_mtok_usd"]]
        best = min(known) if len(known) > 1 else None
        name = html.Th(label("model", model), scope="row", title=model)
        body.append(html.Tr([name, *(_cell(cell, bounds, best, view) for cell in row)]))
    left = len(models) - len(shown)
    return html.Div(
        [html.Table([html.Thead(head), html.Tbody(body)], className="heat"),
         html.P(f"and {left} more models" if left else "", className="quiet")],
        className="scroll",
    )  # fmt: skip


def teams(
    now: pl.DataFrame, prior: pl.DataFrame | None, total: Row, before: Row | None,
    trends: Mapping[str | None, Sequence[Any]], colour_of: Mapping[str | None, str], view: View, days: int,
) -> Component:  # fmt: skip
    """Spend by team with its change, share, unit cost and trend; unattributed, idle and total are rows of their own.

    Args:
        now: `team` and the measures of `TEAM_MEASURES`, over the period.
        prior: the same over the period before; None without comparison.
        total: the same measures over all teams.
        before: the same over the period before.
        trends: smoothed daily spend by team.
        colour_of: colours by team.
        view: what is filtered now; a row narrows it.
        days: how many days the trend covers.
    """
    earlier = {row["team"]: row for row in prior.iter_rows(named=True)} if prior is not None else {}
    carried = [row for row in now.iter_rows(named=True) if row["team"] != IDLE or row["spend_usd"] != 0]
    rows = sorted(carried, key=_place)
    rest = [row for row in rows if row["team"] not in {None, IDLE}][MOST_TEAMS:]
    lines = [_team(row, earlier.get(row["team"]), total, trends, colour_of, view, compared=prior is not None)
             for row in rows if row not in rest]  # fmt: skip
    if rest:
        name = html.Th(f"{len(rest)} more teams", scope="row")
        lines.append(html.Tr([name, *_numbers(_summed(rest), None, total, compared=False), html.Td()]))
    heads = ("Team", "Spend", "Δ", "Share", "Tokens", f"{fmt.unit()}/1M", "Cache hit", f"{days}-day trend")
    foot = html.Tr(
        [html.Th("Total", scope="row"), *_numbers(total, before, total, compared=prior is not None), html.Td()]
    )
    return html.Div(
        html.Table(
            [html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(lines), html.Tfoot(foot)],
            className="teams",
        ),
        className="scroll",
    )


TEAM_MEASURES: Final = (
    "spend_usd",
    "total_tokens",
    "priced_tokens",
    "cost_per_mtok_usd",
    "cache_hit_ratio",
    "calls",
    "unpriced_calls",
)


@dataclass(frozen=True, slots=True)
class Move:
    """One line of what changed: spend now and before, None where there was none."""

    name: str
    colour: str
    now: Decimal
    before: Decimal | None
    href: str

    @property
    def moved(self) -> Decimal:
        return self.now - (self.before or Decimal(0))


def moves(
    now: pl.DataFrame, prior: pl.DataFrame | None, dimension: str, colour_of: Mapping[str | None, str], view: View
) -> list[Move]:  # fmt: skip
    """What moved most first, or where there is no prior period what costs most; what came or went counts too."""
    current, earlier = _spend(now, dimension), _spend(prior, dimension)
    found = [
        Move(
            name=label(dimension, name),
            colour=_NOBODYS.get(name or "") or colour_of.get(name, OTHER_COLOUR),
            now=current.get(name, Decimal(0)),
            before=earlier.get(name),
            href="" if name == IDLE else view.toggled(**{dimension: name}).href(),
        )
        for name in {**current, **earlier}
    ]
    return sorted(found, key=lambda move: (-abs(move.moved), move.name))


def changes(groups: Sequence[tuple[str, Sequence[Move]]], whole: Decimal | None = None) -> Component:
    """What changed: the largest moves of each group, as bars to either side of a line.

    With `whole` there is nothing to compare with: the bars are shares of it.
    """
    widest = max((abs(move.moved) for _, moves in groups for move in moves), default=Decimal(0))
    lines: list[Component] = []
    for title, found in groups:
        lines.append(html.H3(title))
        lines.append(html.Ul([_move(move, widest, whole) for move in found], className="moves"))
    return html.Div(lines)


def _home(row: Row) -> str | None:
    """The accelerator; `api` for calls that a provider bills; None for own hardware of unknown kind."""
    return API if row["billing"] == "api" else row["accelerator"]


def _home_label(home: str | None) -> str:
    return "API" if home == API else "Unknown" if home is None else fmt.accelerator(home)


def _ranked(cells: Mapping[tuple[Any, Any], Row], at: int) -> list[Any]:
    """Models (`at` 0) or homes (1) by spend."""
    spend: dict[Any, Decimal] = {}
    for key, row in cells.items():
        spend[key[at]] = spend.get(key[at], Decimal(0)) + (row["spend_usd"] or 0)
    return sorted(spend, key=lambda name: (-spend[name], str(name)))


def _cell(row: Row | None, bounds: tuple[Decimal, Decimal] | None, best: Decimal | None, view: View) -> Component:
    if row is None or (not row["calls"] and row["spend_usd"] is None):
        return html.Td(html.Span("·", **aria(label="no calls")), className="none")
    price, home = row["cost_per_mtok_usd"], _home(row)
    names = ["cell"]
    if price is not None and price == best:
        names.append("cheapest")
    if (row["total_tokens"] or 0) < LOW_SAMPLE_TOKENS:
        names.append("low")
    words = (
        f"{label('model', row['model'])} on {_home_label(home)}: {fmt.usd(price)} per 1M tokens, input plus output; "
        f"{fmt.usd_exact(row['spend_usd'])}, {fmt.tokens(row['total_tokens'])} tokens, {fmt.count(row['calls'])} calls"
    )
    if "low" in names:
        words += "; few tokens, read with care"
    face = fmt.usd(price) if price is not None else "unpriced" if row["unpriced_calls"] else "idle"
    style = {} if price is None or bounds is None else {"--heat": f"{_heat(price, *bounds):.0%}"}
    if price is None:
        names.append("unpriced")
    href = view.toggled(model=row["model"], accelerator=None if home == API else home).href()
    spent = fmt.usd(row["spend_usd"])
    return html.Td(link([html.B(face), html.Small(spent)], href, className=" ".join(names), style=style, title=words,
                        **aria(label=f"{face} {spent}: {words}")))  # fmt: skip


def _bounds(prices: Sequence[Decimal]) -> tuple[Decimal, Decimal] | None:
    """Lowest and highest, but for one odd price in twelve at either end, which would wash out the others."""
    ordered = sorted(prices)
    odd = len(ordered) // 12
    return (ordered[odd], ordered[-1 - odd]) if ordered else None


def _heat(price: Decimal, low: Decimal, high: Decimal) -> Decimal:
    """Place of a price between `low` (0) and `high` (1), on a log scale."""
    if high <= low:
        return Decimal("0.3")
    return min(max((price / low).ln() / (high / low).ln(), Decimal(0)), Decimal(1))


def _place(row: Row) -> tuple[int, Decimal, str]:
    """Teams by spend, then unattributed, then idle."""
    last = 2 if row["team"] == IDLE else 1 if row["team"] is None else 0
    return (last, -(row["spend_usd"] or Decimal(0)), row["team"] or "")


def _summed(rows: Sequence[Row]) -> Row:
    """Several teams as one row; a price is their spend over their tokens."""
    summed = ("spend_usd", "total_tokens", "priced_tokens", "unpriced_calls")
    sums = {name: sum(row[name] or 0 for row in rows) for name in summed}
    price = sums["spend_usd"] * MTOK / sums["priced_tokens"] if sums["priced_tokens"] else None
    return {**sums, "cost_per_mtok_usd": price, "cache_hit_ratio": None}


def _team(
    row: Row, before: Row | None, total: Row, trends: Mapping[str | None, Sequence[Any]],
    colour_of: Mapping[str | None, str], view: View, *, compared: bool,
) -> Component:  # fmt: skip
    name, idle = row["team"], row["team"] == IDLE
    colour = _NOBODYS.get(name or "") or colour_of.get(name, OTHER_COLOUR)
    words = [dot(colour, hatched=idle), html.Span(label("team", name), className="name")]
    selected = name in view.chosen("team")
    first = html.Th(
        html.Span(words)
        if idle
        else link(words, view.toggled(team=name).href(), title=f"Show only {label('team', name)}"),
        scope="row",
    )
    classes = " ".join(
        kind for kind, on in (("idle", idle), ("unattributed", name is None), ("selected", selected)) if on
    )
    trend = html.Td(spark(trends.get(name, ()), colour), className="trend")
    return html.Tr([first, *_numbers(row, before, total, compared=compared, colour=colour), trend], className=classes)


def _numbers(row: Row, before: Row | None, total: Row, *, compared: bool, colour: str | None = None) -> list[Component]:
    spend = row["spend_usd"]
    whole = total["spend_usd"]
    share = spend / whole if spend is not None and whole else None
    none: Row = {"spend_usd": Decimal(0), "cost_per_mtok_usd": None}
    was = (before or none) if compared else {"spend_usd": None, "cost_per_mtok_usd": None}
    unknown = spend is None and row["unpriced_calls"]
    bar = html.I(className="bar", style={"--share": f"{share:.1%}", "--colour": colour}) if share and colour else None
    return [
        html.Td("unpriced" if unknown else fmt.usd(spend), title=fmt.usd_exact(spend)),
        html.Td(delta(_change("spend_usd", spend, was["spend_usd"], 0), fmt.UNKNOWN)),
        html.Td([bar, html.Span(fmt.percent(share, 0))], className="share"),
        html.Td(fmt.tokens(row["total_tokens"]), title=fmt.count(row["total_tokens"])),
        html.Td(html.Span([fmt.usd(row["cost_per_mtok_usd"]), " ",
                 delta(_change("cost_per_mtok_usd", row["cost_per_mtok_usd"], was["cost_per_mtok_usd"], 0))])),
        html.Td(fmt.percent(row["cache_hit_ratio"], 0)),
    ]  # fmt: skip


def _change(name: str, now: Decimal | None, before: Decimal | None, digits: int) -> fmt.Change | None:
    measure = DICTIONARY[name]
    return fmt.change(now, before, unit=measure.unit, better=measure.better, digits=digits)


def _spend(frame: pl.DataFrame | None, dimension: str) -> dict[str | None, Decimal]:
    if frame is None:
        return {}
    pairs = zip(frame[dimension].to_list(), frame["spend_usd"].to_list(), strict=True)
    return {name: spend for name, spend in pairs if spend is not None}


def _move(move: Move, widest: Decimal, whole: Decimal | None) -> Component:
    reach = f"{abs(move.moved) / widest:.1%}" if widest else "0%"
    name = [dot(move.colour, hatched=move.colour == IDLE_COLOUR), html.Span(move.name, className="name")]
    first = link(name, move.href, title=f"Show only {move.name}") if move.href else html.Span(name)
    if whole is not None:
        look, amount = "swing share", fmt.usd(move.now)
        last: Component = html.Span(fmt.percent(move.now / whole, 0) if whole else fmt.UNKNOWN, className="delta")
    else:
        look, amount = f"swing {'up' if move.moved > 0 else 'down'}", fmt.usd_change(move.moved)
        last = delta(_change("spend_usd", move.now, move.before, 0), "new")
    return html.Li(
        [first, html.I(className=look, style={"--reach": reach}, **aria(hidden="true")), html.B(amount), last],
        title=f"{fmt.usd_exact(move.now)}, before {fmt.usd_exact(move.before)}",
    )
