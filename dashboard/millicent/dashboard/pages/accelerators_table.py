"""The table of the Accelerators page: what a million tokens cost on each home, and all that it follows from."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR
from millicent.dashboard.components import aria, dot, link
from millicent.dashboard.pages.accelerators_homes import COST, COUNTED, LIST, PER_JOULE, SHORT, Home
from millicent.dashboard.pages.figures import exact, opener
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.accelerators_homes import Row
    from millicent.dashboard.pages.accelerators_place import Per, Place
    from millicent.warehouse.query import Basis

MOST_ROWS: Final = 60
TOTAL: Final = "total"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures.

    Attributes:
        key: what the address calls it.
        head: its heading.
        words: what it is.
        measure: name in the dictionary.
        basis: the cost basis that it is asked on.
        beside: a measure told small beside it.
        first: a group of columns begins here, by this name.
    """

    key: str
    head: str
    words: str
    measure: str
    basis: Basis = "effective"
    beside: str | None = None
    first: str = ""


def columns(per: Per) -> tuple[Column, ...]:
    """The columns, for a denominator, in the currency in force."""
    other: Per = "output" if per == "total" else "total"
    tokens, unit, mtok = COUNTED[per], fmt.unit(), f"{fmt.presented().currency} per 1M tokens"
    return (
        Column("cost", "All in", f"{mtok}, {tokens}, idle, unavailable and untracked included", COST[per],
               first=f"{unit} per 1M tokens, {SHORT[per]}"),
        Column("busy", "Busy only", f"{mtok}, {tokens}, of the time in which calls ran", COST[per], "usage"),
        Column("list", "Provider", f"What the same calls cost at API list prices, per 1M tokens, {tokens}",
               LIST[per]),
        Column("other", "Per output" if other == "output" else "In + out",
               f"{mtok}, {COUNTED[other]}, idle included", COST[other]),
        Column("tokens", "Tokens", "Input plus output tokens of its calls", "own_tokens", first="Work"),
        Column("speed", "Tok/s", "Tokens per second of each accelerator while busy", "tokens_per_accelerator_second"),
        Column("use", "Busy", "Share of paid accelerator-hours in which calls ran", "utilisation_ratio"),
        Column("idle", "Idle", "Paid for while no call ran, and its share of the cost", "idle_cost_usd",
               beside="idle_ratio", first="Paid, and no call carries it"),
        Column("unavailable", "Unavail.", "Paid for while it could not serve", "unavailable_cost_usd"),
        Column("untracked", "Untracked", "Worked for tokens that we did not see", "untracked_cost_usd"),
        Column("hour", f"{unit}/h", "Cost of one accelerator for an hour", "accelerator_hour_usd", first="Hardware"),
        Column("joule", "Tok/J", f"Tokens per joule, {tokens}, idle and the site's overhead included", PER_JOULE[per]),
        Column("carbon", "g/1M", "Grams of CO₂e per 1M tokens, input + output, location-based",
               "gco2e_g_per_mtok"),
        Column("coverage", "Coverage", "Tokens that we saw, of those that the engine's own counters tell",
               "coverage_ratio"),
    )  # fmt: skip


def table(found: Sequence[Home], total: Row, place: Place, colour_of: Mapping[str | None, str]) -> Component:
    """Homes as rows, in the order of the place; the last row is their sum.

    Args:
        found: the homes, as `marked` orders them.
        total: their measures in sum.
        place: what is shown; links lead on from it.
        colour_of: colours by accelerator.
    """
    heads, here = columns(place.per), place.href(opened=None)
    homes = ordered(found, place)
    shown = homes[:MOST_ROWS]
    body = [_row(home, heads, place, here, colour_of, again=_again(shown, at, place)) for at, home in enumerate(shown)]
    foot = html.Tr([html.Th("All of them", scope="row"), html.Th(scope="row"),
                    *(_cell(column, total, place.per, here) for column in heads)])  # fmt: skip
    left = len(homes) - len(shown)
    return html.Div(
        [
            html.Div(
                html.Table([html.Thead(_heads(heads, place)), html.Tbody(body), html.Tfoot(foot)], className="homes",
                           **aria(labelledby="costs-title")),
                className="scroll",
            ),
            html.P(f"and {left} more: narrow the filters to see them" if left else "", className="quiet"),
        ]
    )  # fmt: skip


def ordered(homes: Sequence[Home], place: Place) -> list[Home]:
    """Homes by the column that the address names; as they come where it names none. Unknown is last either way."""
    down, key = place.order.startswith("-"), place.order.removeprefix("-")
    column = next((one for one in columns(place.per) if one.key == key), None)
    if column is None:
        return list(homes)
    known = [
        (value, at) for at, home in enumerate(homes) if (value := amount(column, home.told, place.per)) is not None
    ]
    ranked = [at for _, at in sorted(known, key=lambda pair: (-pair[0] if down else pair[0], pair[1]))]
    return [homes[at] for at in (*ranked, *(at for at in range(len(homes)) if at not in set(ranked)))]


def amount(column: Column, told: Row, per: Per) -> Decimal | int | None:
    """What a cell holds."""
    found: Decimal | int | None = told[column.measure]
    return Home(told).busy(per) if column.basis == "usage" else found


def _again(shown: Sequence[Home], at: int, place: Place) -> bool:
    """Whether the row above is of the same model, in an order that keeps models together."""
    return not place.order and at > 0 and shown[at - 1].told["model"] == shown[at].told["model"]


def _heads(heads: Sequence[Column], place: Place) -> list[Component]:
    groups: list[tuple[str, int]] = []
    for column in heads:
        if column.first or not groups:
            groups.append((column.first, 1))
        else:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
    above = html.Tr(
        [html.Td(), html.Td(), *(html.Th(name, scope="colgroup", colSpan=width) for name, width in groups)],
        className="groups",
    )
    names = [html.Th(_sorter("Model", "", place) if place.order else "Model", scope="col"),
             html.Th("Runs on", scope="col")]  # fmt: skip
    return [above, html.Tr([*names, *(_head(column, place) for column in heads)])]


def _head(column: Column, place: Place) -> Component:
    now = {column.key: "ascending", f"-{column.key}": "descending"}.get(place.order)
    better = DICTIONARY[column.measure].better
    first, second = (f"-{column.key}", column.key) if better == "higher" else (column.key, f"-{column.key}")
    if better == "neither" or column.key in {"idle", "unavailable", "untracked", "hour"}:
        first, second = f"-{column.key}", column.key
    face = [column.head, html.Span("▲" if now == "ascending" else "▼", className="arrow", **aria(hidden="true"))]
    sorter = _sorter(face if now else column.head, second if place.order == first else first, place, column.words)
    return html.Th(sorter, scope="col", className="first" if column.first else "", **(aria(sort=now) if now else {}))


def _sorter(face: Any, order: str, place: Place, words: str = "Models together, cheapest first") -> Component:
    return link(face, place.href(order=order, opened=None), title=f"{words}. Sort by it" if order else words)


def _row(
    home: Home, heads: Sequence[Column], place: Place, here: str, colour_of: Mapping[str | None, str], *, again: bool
) -> Component:
    told = home.told
    narrower = place.toggled(model=told["model"], accelerator=told["accelerator"]).href(opened=None)
    name = html.Span(home.model, className="name", title=home.model)
    where: list[Any] = [
        dot(colour_of.get(told["accelerator"], OTHER_COLOUR)), html.Span(home.hardware, className="name"),
    ]  # fmt: skip
    marks = [
        html.Span("cheapest", className="tag good", title="Costs least per token of all that this model runs on")
        if home.cheapest else None,
        html.Span("not declared", className="tag", title="Nobody told what it costs: it is in no sum of costs")
        if home.undeclared else None,
        html.Span("few tokens", className="tag plain", title="Under 1M tokens: its costs per token say little")
        if home.low and not home.unserved else None,
        html.Span("no calls", className="tag plain", title="Paid for, and no call of ours ran on it")
        if home.unserved else None,
    ]  # fmt: skip
    return html.Tr(
        [
            html.Th(name, scope="row", className="again" if again else ""),
            html.Th([link(where, narrower, title=f"Show only {home.model} on {home.hardware}"),
                     html.Small([home.software, *marks])], scope="row"),
            *(_cell(column, told, place.per, here, home) for column in heads),
        ],
        className=" ".join(kind for kind, on in (("cheapest", home.cheapest), ("low", home.low)) if on),
    )  # fmt: skip


def _cell(column: Column, told: Row, per: Per, here: str, home: Home | None = None) -> Component:
    measure, value = DICTIONARY[column.measure], amount(column, told, per)
    kind = " ".join(name for name in (f"of-{column.key}", "first" if column.first else "") if name)
    if value is None:
        return html.Td(html.Span(fmt.UNKNOWN, title=_why(column, told)), className=kind)
    beside = told[column.beside] if column.beside else None
    text = fmt.value_text(value, measure.unit)
    figure = (home or Home(told | dict.fromkeys(("model", "accelerator", "engine", "precision")))).figure(
        column.measure, column.basis
    )
    if home is None:
        figure = figure.of(column.measure, column.basis)
    face = [text, html.Small(fmt.percent(beside, 0)) if beside is not None else None]
    return html.Td(
        opener(face if beside is not None else text, figure, here, title=exact(value, measure.unit)), className=kind
    )


def _why(column: Column, told: Row) -> str:
    """Why a figure is not known."""
    if column.key == "coverage":
        return "No engine counter covers these hours: read its /metrics to know"
    if column.key == "list":
        return "No API list price is known for these calls"
    if column.key in {"cost", "busy", "other"} and not told["own_tokens"]:
        return "No call ran here: nothing to divide by"
    if column.key in {"cost", "busy", "other"} and told["capacity_cost_usd"] is None:
        return "Its deployment is not declared: what it costs is unknown"
    return "Not known, or not to be told with these filters"
