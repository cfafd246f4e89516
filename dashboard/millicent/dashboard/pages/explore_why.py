"""Why spend changed: a bridge from the period before to this one, each effect with a sentence, and who moved it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.charts import IDLE_COLOUR, OTHER_COLOUR
from millicent.dashboard.components import aria, data, delta, dot, link
from millicent.dashboard.pages.asked_once import asked_once
from millicent.dashboard.pages.explore_asked import BESIDE, ask, looks, named
from millicent.dashboard.pages.explore_place import Exploration, is_yes_or_no, title
from millicent.dashboard.state import question
from millicent.warehouse import drivers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.explore_place import Value
    from millicent.dashboard.reader import Reader
    from millicent.warehouse.drivers import Bridge, Effect, Mover

ASKED_OF: Final = ("team", "feature", "model", "deployment", "customer", "environment")
"""Who may have moved spend, in this order; those that are down to one value are left out."""
MOST_GROUPS: Final = 3
MOST_MOVERS: Final = 5
MOST_PARTS: Final = 3
SMALL: Final = Decimal("0.01")
"""Share of all movement under which effects are told together."""
KEPT: Final = data(keep="and as in g top")
"""What of the chart stays when one looks into something."""
NEAR: Final = Decimal("0.3")
"""The bars begin at zero where the lowest level is less than this share of the highest."""


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of the bridge: from a level to a level. An end has its own level alone."""

    name: str
    words: Any
    start: Decimal
    end: Decimal
    whole: bool = False

    @property
    def amount(self) -> Decimal:
        return self.end - self.start


def why(reader: Reader, exploration: Exploration) -> tuple[Any, Any, Any, Any]:
    """The bridge, its sentence, who moved it, and the words over that; Nones where nothing is compared."""
    prior = reader.window.prior
    if prior is None:
        told = html.P("Choose a period to compare with, and the change is taken apart here.", className="quiet")
        return told, "nothing to compare with", None, ""
    query = question(exploration.view, reader.window.period, ("spend_usd",))
    bridge: Bridge = asked_once(
        reader.warehouse, (reader.tenant, "bridge", query, prior),
        lambda: drivers.bridge(lambda one: ask(reader, one), query, prior),
    )  # fmt: skip
    groups = [name for name in ASKED_OF if len(exploration.view.chosen(name)) != 1][:MOST_GROUPS]
    movers = drivers.movers(lambda one: ask(reader, one), query, prior, groups)
    if bridge.before_usd is None and bridge.after_usd is None:
        return None, "", None, ""
    against = fmt.span(prior.start, prior.end, year=False)
    if bridge.before_usd is None:
        told = html.P(f"Nothing is known of {against}, so that nothing can be compared. Choose another period.",
                      className="quiet")  # fmt: skip
        return told, f"all of {fmt.usd(bridge.after_usd)} came after {against}", None, ""
    by_group = {name: [one for one in movers if one.dimension == name] for name in groups}
    who = next((found for found in by_group.values() if len(found) > 1), [])
    said = drivers.sentence(who, bridge, fmt.usd)
    lists = [_group(reader, exploration, name, found) for name, found in by_group.items()]
    return _bridge(exploration, bridge, against), said, html.Div(lists), f"against {against} · click to look into one"


def steps(bridge: Bridge) -> list[Step]:
    """The bars of a bridge, effects in their order, small ones together at the end."""
    moved = sum((abs(effect.amount_usd) for effect in bridge.effects), Decimal(0))
    large = [effect for effect in bridge.effects if abs(effect.amount_usd) >= SMALL * moved]
    small = [effect for effect in bridge.effects if effect not in large]
    if len(small) == 1:
        large, small = list(bridge.effects), []
    level = bridge.before_usd or Decimal(0)
    found = []
    for effect in large:
        found.append(Step(effect.title, effect, level, level + effect.amount_usd))
        level += effect.amount_usd
    if small:
        words = ", ".join(f"{one.spoken} {fmt.usd_change(one.amount_usd)}" for one in small)
        found.append(Step("Small effects", f"{words[0].upper()}{words[1:]}.", level, bridge.after_usd or Decimal(0)))
    return found


def _bridge(exploration: Exploration, bridge: Bridge, against: str) -> Component:
    found = steps(bridge)
    before, after = bridge.before_usd or Decimal(0), bridge.after_usd or Decimal(0)
    levels = [before, after, *(level for step in found for level in (step.start, step.end))]
    low, high = min(levels), max(levels)
    cut = low > NEAR * high
    floor = low - (high - low) * Decimal("0.35") if cut else min(low, Decimal(0))
    floor = max(floor, Decimal(0)) if low >= 0 else floor
    span = (high - floor) or Decimal(1)

    def lane(start: Decimal, end: Decimal, look: str) -> Component:
        left, right = min(start, end), max(start, end)
        style = {"left": f"{(left - floor) / span:.2%}", "width": f"{(right - left) / span:.2%}"}
        return html.Div(html.I(style=style, className=look), className="lane", **aria(hidden="true"))

    def end(name: str, words: str, level: Decimal | None) -> Component:
        base = max(floor, Decimal(0)) if (level or 0) >= 0 else floor
        return html.Li(
            [html.Div([html.B(name), html.P(words)]), lane(base, level or Decimal(0), "end cut" if cut else "end"),
             html.B(fmt.usd(level), title=fmt.usd_exact(level))],
            className="whole",
        )  # fmt: skip

    lines = [end("Before", against, bridge.before_usd)]
    for step in found:
        effect = step.words if isinstance(step.words, drivers.Effect) else None
        tone = "bad" if step.amount > 0 else "good"
        told = [html.P(effect.words), _parts(exploration, effect)] if effect else [html.P(step.words)]
        lines.append(
            html.Li(
                [html.Div([html.B(step.name), *told]), lane(step.start, step.end, tone),
                 html.B(fmt.usd_change(step.amount), className=tone, title=fmt.usd_exact(step.amount))]
            )
        )  # fmt: skip
    lines.append(end("Now", "what the period shown cost", bridge.after_usd))
    note = (
        f"Bars begin at {fmt.usd(floor)}, so that the effects can be seen; they add up to the change."
        if cut and floor
        else "The effects add up to the change."
    )
    return html.Div([html.Ol(lines, className="bridge"), html.P(note, className="quiet")])


def _parts(exploration: Exploration, effect: Effect) -> Component | None:
    """The models or deployments that moved an effect most."""
    parts = [part for part in effect.parts if abs(part.amount_usd) >= SMALL * abs(effect.amount_usd)][:MOST_PARTS]
    if not parts:
        return None
    items = [
        html.Li([link(named(part.dimension, part.value), _into(exploration, part.dimension, part.value),
                      title=f"Only {named(part.dimension, part.value)}", **KEPT),
                 html.Span(f" {fmt.usd_change(part.amount_usd)}")])
        for part in parts
    ]  # fmt: skip
    return html.Ul(items, className="parts")


def _into(exploration: Exploration, dimension: str, value: Value) -> str:
    """Where one value leads: to itself alone, cut by the next dimension; all else stays as it is by then."""
    alone = Exploration(view=exploration.view, by=dimension).narrowed(**{dimension: value})
    return alone.href(by=alone.next or dimension)


def _group(reader: Reader, exploration: Exploration, dimension: str, movers: Sequence[Mover]) -> Component:
    callers = [mover for mover in movers if mover.value not in BESIDE and mover.delta_usd]
    shown = callers[:MOST_MOVERS]
    widest = max((abs(mover.delta_usd) for mover in shown), default=Decimal(1))
    colour_of = {} if is_yes_or_no(dimension) else reader.colours(dimension)
    items = [_mover(exploration, mover, widest, colour_of) for mover in shown]
    body = html.Ul(items, className="moves") if items else html.P("Nothing moved.", className="quiet")
    return html.Div([html.H3(f"By {title(dimension).lower()}"), body])


def _mover(exploration: Exploration, mover: Mover, widest: Decimal, colour_of: Any) -> Component:
    name = named(mover.dimension, mover.value)
    colour, pattern = looks(mover.dimension, mover.value, colour_of)
    face = [dot(colour or OTHER_COLOUR, hatched=bool(pattern) or colour == IDLE_COLOUR),
            html.Span(name, className="name")]  # fmt: skip
    href = _into(exploration, mover.dimension, mover.value)
    up = mover.delta_usd > 0
    change = fmt.change(
        mover.after_usd or Decimal(0), mover.before_usd or Decimal(0), unit="usd", better="lower", digits=0
    )
    return html.Li(
        [link(face, href, title=f"Only {name}: why it changed", **KEPT),
         html.I(className=f"swing {'up' if up else 'down'}", style={"--reach": f"{abs(mover.delta_usd) / widest:.1%}"},
                **aria(hidden="true")),
         html.B(fmt.usd_change(mover.delta_usd)), delta(change, "new")],
        title=f"{fmt.usd_exact(mover.after_usd)}, before {fmt.usd_exact(mover.before_usd)}",
    )  # fmt: skip
