"""Bars of the Accelerators page, each a table whose rows hold their figures: homes, accelerator-hours, energy."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import OTHER_COLOUR, PALETTE
from millicent.dashboard.components import aria, dot, link
from millicent.dashboard.pages.accelerators_homes import COST, ENERGY, LIST, PARTS, SPARE, hardware_label
from millicent.dashboard.pages.figures import Figure, exact, opener
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.accelerators_homes import Home, Row
    from millicent.dashboard.pages.accelerators_place import Cut, Place

MOST_BARS: Final = 24
MOST_ROWS: Final = 40
CUT_OVER: Final = 3
"""A bar more than this many times the next shorter one is cut, so that the others can be told apart."""
PART_WORDS: Final = {"hardware_cost_usd": "busy", "untracked_cost_usd": "untracked",
                     "unavailable_cost_usd": "unavailable", "idle_cost_usd": "idle"}  # fmt: skip
RATE_PARTS: Final = {"fixed_cost_usd": ("Fixed", PALETTE[4]), "hosting_cost_usd": ("Hosting", PALETTE[5]),
                     "energy_cost_usd": ("Energy", PALETTE[2])}  # fmt: skip
"""What an accelerator-hour costs, in the order it is stacked, with words and colour."""
IDLE_MEASURES: Final = ("idle_cost_usd", "capacity_cost_usd", "idle_ratio")
MOST_IDLE: Final = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """A common scale of bars from zero; what is longer is cut at the end."""

    top: Decimal

    @staticmethod
    def of(lengths: Sequence[Decimal]) -> Scale:
        """The scale of these lengths, without those that would leave nothing of the others."""
        known = sorted(length for length in lengths if length > 0)
        while len(known) > 1 and known[-1] > CUT_OVER * known[-2]:
            known.pop()
        return Scale(known[-1] if known else Decimal(1))

    def cuts(self, length: Decimal) -> bool:
        """Whether a bar of this length is cut."""
        return length > self.top

    def at(self, length: Decimal) -> str:
        """A length as CSS has it."""
        return f"{min(length / self.top, Decimal(1)):.2%}"


def compare(homes: Sequence[Home], place: Place, colour_of: Mapping[str | None, str]) -> Component:
    """Cost per million tokens of every home as a bar of its parts, with the API list price of the same calls as a tick.

    Args:
        homes: as `marked` orders them.
        place: denominator, and where links lead.
        colour_of: colours by accelerator.
    """
    per, here = place.per, place.href(opened=None)
    priced = [home for home in homes if home.cost(per) is not None]
    shown = priced[:MOST_BARS]
    lengths = [cost for home in shown if (cost := home.cost(per)) is not None]
    lengths += [there for home in shown if (there := home.told[LIST[per]]) is not None]
    scale = Scale.of(lengths)
    bodies = []
    for model, found in groupby(shown, lambda home: home.told["model"]):
        of_model = list(found)
        head = html.Tr(
            html.Th(link(hardware_label("model", model), place.toggled(model=model).href(opened=None),
                         title=f"Show only {hardware_label('model', model)}"), scope="rowgroup", colSpan=4),
            className="of",
        )  # fmt: skip
        bodies.append(html.Tbody([head, *(_home(home, place, here, scale, colour_of) for home in of_model)]))
    left = len(homes) - len(shown)
    heads = _heads("Runs on", "", "$ / 1M", "At a provider")
    return html.Div(
        [html.Ul(_legend(), className="legend"),
         html.Table([html.Thead(heads), *bodies], className="bars compare", **aria(labelledby="cheapest-title")),
         html.P(f"{left} more in the table below, where nothing can be divided or there is no room" if left else "",
                className="quiet")]
    )  # fmt: skip


def _heads(*names: str) -> Component:
    """Headings; that of the bars is heard and not seen."""
    return html.Tr([html.Th(name or html.Span("Bar", className="unseen"), scope="col") for name in names])


def _legend() -> list[Component]:
    busy = [html.I(className="dots", **aria(hidden="true")), html.Span("Busy, by accelerator")]
    faces = [busy]
    faces += [[html.I(className=f"dot {name}", **aria(hidden="true")), html.Span(name.capitalize())]
              for name in ("untracked", "unavailable", "idle")]  # fmt: skip
    faces.append([html.I(className="provider", **aria(hidden="true")), html.Span("Same calls at a provider")])
    return [html.Li(html.Span(face)) for face in faces]


def _home(home: Home, place: Place, here: str, scale: Scale, colour_of: Mapping[str | None, str]) -> Component:
    per, told = place.per, home.told
    cost, there = home.cost(per) or Decimal(0), told[LIST[per]]
    parts = [(PART_WORDS[name], length) for name in PARTS if (length := home.part(name, per))]
    colour = colour_of.get(told["accelerator"], OTHER_COLOUR)
    words = ", ".join(f"{name} {fmt.usd(length)}" for name, length in parts)
    tick = html.I(className="provider", style={"left": scale.at(there)}) if there is not None else None
    bar = html.Div(
        [*_stack(parts, cost, scale, {"--colour": colour}), tick],
        className="track cut" if scale.cuts(cost) else "track", role="img", title=words, **aria(label=words),
    )  # fmt: skip
    face = [dot(colour), html.Span(home.hardware, className="name"), html.Small(home.software, className="name")]
    narrowed = place.toggled(model=told["model"], accelerator=told["accelerator"]).href(opened=None)
    value = opener(fmt.usd(cost), home.figure(COST[per]), here, title=f"{exact(cost, 'usd')}: {words}")
    first = link(face, narrowed, title=f"Show only {home.model} on {home.hardware}, {home.software}")
    best = html.Span("cheapest", className="tag good") if home.cheapest else None
    return html.Tr(
        [html.Th(first, scope="row"), html.Td(bar, className="bar"), html.Td([value, best], className="amount"),
         html.Td(_provider(home, place, here), className="amount")],
        className=" ".join(kind for kind, on in (("cheapest", home.cheapest), ("low", home.low)) if on),
    )  # fmt: skip


def _stack(
    parts: Sequence[tuple[str, Decimal]], whole: Decimal, scale: Scale, style: Mapping[str, str]
) -> list[Component]:
    """Parts of a bar, each by its share of the whole, which is cut where the scale ends."""
    reach = min(whole, scale.top) / scale.top if whole > 0 else Decimal(0)
    return [
        html.I(className=name, style={"width": f"{max(length, Decimal(0)) / whole * reach:.2%}", **style})
        for name, length in parts
        if whole > 0
    ]


def _provider(home: Home, place: Place, here: str) -> list[Any]:
    """What the same calls cost at a provider, and how much more or less own hardware is."""
    there, cost = home.told[LIST[place.per]], home.cost(place.per)
    if there is None:
        return [html.Span(fmt.UNKNOWN, title="No API list price is known for these calls")]
    moved = fmt.change(cost, there, unit="usd", better="lower", digits=0)
    sign = {"up": "+", "down": fmt.MINUS, "flat": ""}[moved.direction] if moved else ""
    apart = html.Small(f"{sign}{moved.text}", className=moved.tone, title="Own hardware against it") if moved else None
    return [opener(fmt.usd(there), home.figure(LIST[place.per]), here, title=exact(there, "usd")), apart]


def rates(rows: Sequence[Row], place: Place, colour_of: Mapping[str | None, str]) -> Component:
    """What an hour of each accelerator costs, stacked by what is paid for.

    Args:
        rows: `accelerator` and `RATES`.
        place: where links lead.
        colour_of: colours by accelerator.
    """
    here = place.href(opened=None)
    known = sorted((row for row in rows if row["accelerator_hour_usd"] is not None),
                   key=lambda row: (-row["accelerator_hour_usd"], str(row["accelerator"])))[:MOST_ROWS]  # fmt: skip
    if not known:
        told = "No accelerator-hour can be told with these filters: hours belong to deployments, not to teams."
        return html.P(told, className="quiet none")
    scale = Scale(max(*(row["accelerator_hour_usd"] for row in known), Decimal("0.01")))
    legend = [html.Li(html.Span([dot(colour), html.Span(words)])) for words, colour in RATE_PARTS.values()]
    heads = _heads("Accelerator", "", "$/h", "Paid hours")
    return html.Div(
        [html.Ul(legend, className="legend"),
         html.Table([html.Thead(heads), html.Tbody([_rate(row, place, here, scale, colour_of) for row in known])],
                    className="bars rates", **aria(labelledby="rates-title"))]
    )  # fmt: skip


def _rate(row: Row, place: Place, here: str, scale: Scale, colour_of: Mapping[str | None, str]) -> Component:
    rate, hours, one = row["accelerator_hour_usd"], row["accelerator_hours"], row["accelerator"]
    parts = [(name, row[name] / hours) for name in RATE_PARTS if row[name] and hours]
    words = ", ".join(f"{RATE_PARTS[name][0].lower()} {fmt.usd(part)}" for name, part in parts)
    stack = [
        html.I(style={"width": f"{part / scale.top:.2%}", "background": RATE_PARTS[name][1]}) for name, part in parts
    ]
    name = hardware_label("accelerator", one) if one else SPARE
    face = [dot(colour_of.get(one, OTHER_COLOUR)), html.Span(name, className="name")]
    first = link(face, place.toggled(accelerator=one).href(opened=None), title=f"Show only {name}")
    return html.Tr(
        [html.Th([first, html.Small(words)], scope="row"),
         html.Td(html.Div(stack, className="track", role="img", title=words, **aria(label=words)), className="bar"),
         html.Td(opener(fmt.usd(rate), Figure.of("accelerator_hour_usd", accelerator=one), here,
                        title=f"{exact(rate, 'usd')}: {words}"), className="amount"),
         html.Td(opener(fmt.value_text(hours, "hours"), Figure.of("accelerator_hours", accelerator=one), here),
                 className="amount")]
    )  # fmt: skip


def idlest(rows: Sequence[Row], place: Place) -> Component:
    """What idle costs, by deployment, most expensive first.

    Args:
        rows: `deployment` and `IDLE_MEASURES`.
        place: where links lead.
    """
    here = place.href(opened=None)
    known = sorted((row for row in rows if row["idle_cost_usd"]), key=lambda row: -row["idle_cost_usd"])
    if not known:
        return html.P("Nothing that these filters show stood idle.", className="quiet none")
    scale = Scale(max(row["capacity_cost_usd"] for row in known))
    heads = _heads("Deployment", "", "Idle", "Of its cost")
    body = [_idle(row, place, here, scale) for row in known[:MOST_IDLE]]
    left = known[MOST_IDLE:]
    more = f"and {fmt.usd(sum(row['idle_cost_usd'] for row in left))} on {len(left)} more" if left else ""
    table = html.Table([html.Thead(heads), html.Tbody(body)], className="bars idlest",
                       **aria(labelledby="idlest-title"))  # fmt: skip
    return html.Div([table, html.P(more, className="quiet")])


def _idle(row: Row, place: Place, here: str, scale: Scale) -> Component:
    one, idle, whole = row["deployment"], row["idle_cost_usd"], row["capacity_cost_usd"]
    name = hardware_label("deployment", one)
    words = f"{fmt.usd(idle)} of {fmt.usd(whole)} stood idle"
    track = html.Div(
        [html.I(className="rest", style={"width": scale.at(whole - idle)}),
         html.I(className="idle", style={"width": scale.at(idle)})],
        className="track", role="img", title=words, **aria(label=words),
    )  # fmt: skip
    first = link(html.Span(name, className="name"), place.toggled(deployment=one).href(opened=None),
                 title=f"Show only {name}")  # fmt: skip
    return html.Tr(
        [html.Th(first, scope="row"), html.Td(track, className="bar"),
         html.Td(opener(fmt.usd(idle), Figure.of("idle_cost_usd", deployment=one), here, title=exact(idle, "usd")),
                 className="amount"),
         html.Td(opener(fmt.percent(row["idle_ratio"], 0), Figure.of("idle_ratio", deployment=one), here),
                 className="amount")]
    )  # fmt: skip


def energy(rows: Sequence[Row], total: Row, cut: Cut, place: Place, colour_of: Mapping[str | None, str]) -> Component:
    """Electricity and carbon, by model or by deployment.

    Args:
        rows: the dimension and `ENERGY`.
        total: the same over all of them.
        cut: the dimension.
        place: where links lead.
        colour_of: its colours.
    """
    here = place.href(opened=None)
    known = sorted((row for row in rows if row["energy_wh"]), key=lambda row: (-row["energy_wh"], str(row[cut])))
    if not known:
        return html.P("No energy is known for these filters.", className="quiet none")
    scale = Scale(known[0]["energy_wh"])
    heads = _heads("Model" if cut == "model" else "Deployment", "", "Energy", "CO₂e, grid", "CO₂e, market",
                   "gCO₂e / 1M in + out", "Tok/J in + out", "How known")  # fmt: skip
    body = [_energy(row, cut, place, here, scale, colour_of) for row in known[:MOST_ROWS]]
    foot = html.Tr([html.Th("All of them", scope="row"), html.Td(), *_energy_cells(total, (), here)])
    return html.Div(
        html.Table(
            [html.Thead(heads), html.Tbody(body), html.Tfoot(foot)],
            className="bars energy", **aria(labelledby="energy-title"),
        ),
        className="scroll",
    )  # fmt: skip


def _energy(
    row: Row, cut: Cut, place: Place, here: str, scale: Scale, colour_of: Mapping[str | None, str]
) -> Component:  # fmt: skip
    value = row[cut]
    name, colour = hardware_label(cut, value), colour_of.get(value, OTHER_COLOUR)
    first = link([dot(colour), html.Span(name, className="name")], place.toggled(**{cut: value}).href(opened=None),
                 title=f"Show only {name}")  # fmt: skip
    bar = html.I(style={"width": scale.at(row["energy_wh"]), "background": colour})
    return html.Tr(
        [html.Th(first, scope="row"),
         html.Td(html.Div(bar, className="track", **aria(hidden="true")), className="bar"),
         *_energy_cells(row, ((cut, value),), here)]
    )  # fmt: skip


def _energy_cells(row: Row, kept: tuple[tuple[str, str | None], ...], here: str) -> list[Component]:
    cells = []
    for name in ENERGY[:5]:
        value, unit = row[name], DICTIONARY[name].unit
        text = fmt.value_text(value, unit)
        face = text if value is None else opener(text, Figure(measure=name, kept=kept), here, title=exact(value, unit))
        cells.append(html.Td(face, className="amount"))
    if (measured := row["measured_energy_ratio"]) is None:
        return [*cells, html.Td(fmt.UNKNOWN, className="amount")]
    figure = Figure(measure="measured_energy_ratio", kept=kept)
    face = opener(known_by(measured), figure, here, title=f"{fmt.percent(measured)} measured")
    return [*cells, html.Td(face, className="amount")]


def known_by(measured: Decimal | None) -> str:
    """How much of energy was measured rather than modelled, in words."""
    if measured is None:
        return ""
    return {0: "modelled", 1: "measured"}.get(int(measured) if measured in {0, 1} else -1) or (
        f"{fmt.percent(measured, 0)} measured"
    )
