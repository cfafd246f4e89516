"""From paid to busy, in accelerator-hours or dollars, and what is lost on the way. Pure functions of sums."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria
from millicent.dashboard.pages.figures import Figure, exact
from millicent.warehouse.metrics import DICTIONARY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.efficiency_place import Unit

Row = dict[str, Any]
Kind = Literal["paid", "allocated", "serving", "busy", "unused", "unavailable", "idle", "untracked"]

FLOW: Final = (
    "accelerator_hours", "allocated_accelerator_hours", "serving_accelerator_hours", "busy_accelerator_hours",
    "unobserved_accelerator_hours", "capacity_cost_usd", "hardware_cost_usd", "idle_cost_usd", "unavailable_cost_usd",
    "untracked_cost_usd",
)  # fmt: skip
"""Measures that the way is made of."""
_WORDS: Final[dict[Kind, tuple[str, str]]] = {
    "paid": ("Paid", "own accelerators"),
    "unused": ("Reserved and unused", "nothing took it"),
    "allocated": ("Allocated", "a deployment took it"),
    "unavailable": ("Unavailable", "loading, failure"),
    "serving": ("Serving", "ready for calls"),
    "idle": ("Idle", "no call ran"),
    "untracked": ("Untracked", "nobody saw for what"),
    "busy": ("Busy", "calls used it"),
}
LEVELS: Final = ("paid", "allocated", "serving", "busy")
_UNUSED: Final = "unused_cost_usd"
"""Idle cost of what no deployment took; not a measure by itself."""
_IS: Final[dict[Unit, dict[Kind, str]]] = {
    "usd": {
        "paid": "capacity_cost_usd", "unavailable": "unavailable_cost_usd", "untracked": "untracked_cost_usd",
        "busy": "hardware_cost_usd", "unused": _UNUSED,
    },
    "hours": {
        "paid": "accelerator_hours", "allocated": "allocated_accelerator_hours", "busy": "busy_accelerator_hours",
        "serving": "serving_accelerator_hours", "untracked": "unobserved_accelerator_hours",
    },
}  # fmt: skip
"""The measure that a step is, where it is one."""
_LESS: Final[dict[Unit, dict[Kind, tuple[str, ...]]]] = {
    "usd": {
        "allocated": ("capacity_cost_usd", _UNUSED), "idle": ("idle_cost_usd", _UNUSED),
        "serving": ("capacity_cost_usd", _UNUSED, "unavailable_cost_usd"),
    },
    "hours": {
        "unused": ("accelerator_hours", "allocated_accelerator_hours"),
        "unavailable": ("allocated_accelerator_hours", "serving_accelerator_hours"),
        "idle": ("serving_accelerator_hours", "busy_accelerator_hours", "unobserved_accelerator_hours"),
    },
}  # fmt: skip
"""The measures that any other step is: the first less the others."""
_WAY: Final = "way"


@dataclass(frozen=True, slots=True)
class Step:
    """A level (what is left) or a drop (what is lost before the next level), in the unit that is shown.

    `left` is what is left after it; None is unknown.
    """

    kind: Kind
    amount: Decimal | None
    left: Decimal | None

    @property
    def is_level(self) -> bool:
        return self.kind in LEVELS


def steps(total: Row, unused_usd: Decimal | None, unit: Unit) -> list[Step]:
    """The way from paid to busy: every level is the one before it less the drops between them.

    In hours `untracked` is the time that nobody observed, and busy time may have served tokens that we did not see; in
    dollars those are untracked too.

    Args:
        total: the measures of `FLOW`.
        unused_usd: idle cost of accelerators under contract that no deployment took.
        unit: what is told.
    """
    paid, lost, busy = _in_usd(total, unused_usd) if unit == "usd" else _in_hours(total)
    if paid is None:
        return [Step(kind, None, None) for kind in _WORDS]
    found, left = [], paid
    for kind in _WORDS:
        if kind == "busy":
            found.append(Step(kind, busy, busy))
        elif kind in LEVELS:
            found.append(Step(kind, left, left))
        else:
            left -= lost[kind]
            found.append(Step(kind, lost[kind], left))
    return found


def _in_usd(total: Row, unused: Decimal | None) -> tuple[Decimal | None, dict[Kind, Decimal], Decimal]:
    known = {name: total[f"{name}_cost_usd"] or Decimal(0) for name in ("idle", "unavailable", "untracked", "hardware")}
    unused = unused or Decimal(0)
    lost: dict[Kind, Decimal] = {
        "unused": unused, "unavailable": known["unavailable"], "idle": known["idle"] - unused,
        "untracked": known["untracked"],
    }  # fmt: skip
    return total["capacity_cost_usd"], lost, known["hardware"]


def _in_hours(total: Row) -> tuple[Decimal | None, dict[Kind, Decimal], Decimal]:
    names = ("accelerator", "allocated_accelerator", "serving_accelerator", "busy_accelerator")
    paid, allocated, serving, busy = (total[f"{name}_hours"] or Decimal(0) for name in names)
    unobserved = total["unobserved_accelerator_hours"] or Decimal(0)
    lost: dict[Kind, Decimal] = {
        "unused": paid - allocated, "unavailable": allocated - serving, "idle": serving - busy - unobserved,
        "untracked": unobserved,
    }  # fmt: skip
    return total["accelerator_hours"], lost, busy


def drawn(found: Sequence[Step], unit: Unit, opened: Callable[[Any, Figure | str], Component]) -> Component:
    """The way as a table of bars, each amount with what it is of the whole.

    Args:
        found: from `steps`.
        unit: what is told.
        opened: a face as a link that opens its derivation.
    """
    whole = found[0].amount
    return html.Table(
        [
            html.Caption(f"From paid to busy, in {_UNIT_WORDS[unit]}", className="unseen"),
            html.Colgroup([html.Col(className=name) for name in ("steps", "runs", "amounts", "shares")]),
            html.Thead(
                html.Tr([html.Th(words, scope="col") for words in ("Step", "", _HEAD[unit], "Of paid")]),
                className="unseen",
            ),
            html.Tbody([_row(step, whole, unit, opened) for step in found]),
        ],
        className="flow",
    )


_UNIT_WORDS: Final[dict[Unit, str]] = {"usd": "US dollars", "hours": "accelerator-hours"}
_HEAD: Final[dict[Unit, str]] = {"usd": "Cost", "hours": "Hours"}


def _row(step: Step, whole: Decimal | None, unit: Unit, opened: Callable[[Any, Figure | str], Component]) -> Component:
    name, says = _WORDS[step.kind]
    face = [html.Span(name, className="name"), html.Small(says)]
    share = step.amount / whole if step.amount is not None and whole else None
    sign = "" if step.is_level or not step.amount else fmt.MINUS
    style = _place(step, whole)
    return html.Tr(
        [
            html.Th(opened(face, opening(step.kind, unit)), scope="row"),
            html.Td(html.I(className="stretch", style=style, **aria(hidden="true")) if style else None,
                    className="run"),
            html.Td(sign + text(step.amount, unit), title=_told(step.amount, unit), className="amount"),
            html.Td(fmt.percent(share), className="share"),
        ],
        className=f"{'level' if step.is_level else 'drop'} {step.kind}",
    )  # fmt: skip


def opening(kind: Kind, unit: Unit) -> Figure | str:
    """What a step opens: the figure that it is, or the difference that it is as text for the address."""
    measure = _IS[unit].get(kind)
    return _figure(measure) if measure else f"{_WAY}?{kind}-{unit}"


def _figure(measure: str) -> Figure:
    return Figure.of("idle_cost_usd", model=None) if measure == _UNUSED else Figure.of(measure)


def name_of(kind: Kind) -> str:
    """What a step is called."""
    return _WORDS[kind][0]


def opened_step(text: str) -> tuple[Kind, Unit] | None:
    """Read what `opening` wrote of a difference; None where that is nothing."""
    way, _, told = text.partition("?")
    kind, _, unit = told.partition("-")
    if way != _WAY or unit not in _LESS or kind not in _LESS[unit]:
        return None
    return kind, unit


def difference(
    kind: Kind, unit: Unit, total: Row, unused_usd: Decimal | None, opened: Callable[[Any, Figure | str], Component]
) -> list[Component]:  # fmt: skip
    """A step that is a difference: its terms exactly, each with its own derivation, and what is left.

    Args:
        kind: which.
        unit: of what.
        total: the measures of `FLOW`.
        unused_usd: idle cost of what no deployment took.
        opened: a face as a link that opens its derivation.
    """
    known = total | {_UNUSED: unused_usd}
    terms = [(name, known[name] or Decimal(0)) for name in _LESS[unit][kind]]
    rows = [_term(at, name, amount, opened) for at, (name, amount) in enumerate(terms)]
    left = terms[0][1] - sum((amount for _, amount in terms[1:]), Decimal(0))
    name, says = _WORDS[kind]
    foot = html.Tr([html.Th(name, scope="row"), html.Td(exact(left, unit))], className="sum")
    formula = " − ".join(_label(name) for name, _ in terms)
    return [
        html.Div([html.H3("What it is"), html.P(f"{name}: {says}.", className="lead"), html.P(html.Code(formula))]),
        html.Div([html.H3("Its sums, exactly"), html.Table(html.Tbody([*rows, foot]), className="lines")]),
    ]


def _term(at: int, name: str, amount: Decimal, opened: Callable[[Any, Figure | str], Component]) -> Component:
    unit: Unit = "usd" if name.endswith("_usd") else "hours"
    sign = f"{fmt.MINUS} " if at else ""
    return html.Tr([html.Th(opened(_label(name), _figure(name)), scope="row"), html.Td(sign + exact(amount, unit))])


def _label(name: str) -> str:
    told = {_UNUSED: "Idle of what no deployment took", "idle_cost_usd": "Idle, all of it", "capacity_cost_usd": "Paid"}
    return told.get(name) or DICTIONARY[name].label


def _place(step: Step, whole: Decimal | None) -> dict[str, str] | None:
    """Where the bar begins and how long it is, in percent of the whole."""
    if not step.amount or step.left is None or not whole or whole < 0:
        return None
    begins = Decimal(0) if step.is_level else step.left
    return {"--from": _percent(begins / whole), "--long": _percent(step.amount / whole)}


def _percent(share: Decimal) -> str:
    return f"{min(max(share, Decimal(0)), Decimal(1)):.3%}"


def text(amount: Decimal | None, unit: Unit) -> str:
    """Short: `$12.4k` or `1,234 h`."""
    return fmt.usd(amount) if unit == "usd" else hours(amount)


def _told(amount: Decimal | None, unit: Unit) -> str | None:
    """To the cent, or to a thousandth of an hour, where it is known."""
    if amount is None:
        return None
    return fmt.usd_exact(amount) if unit == "usd" else f"{amount:,.3f} accelerator-hours"


def hours(amount: Decimal | None) -> str:
    """`1,234 h`, `12.5 h`; whole from a hundred on."""
    if amount is None:
        return fmt.UNKNOWN
    return f"{amount:,.0f} h" if abs(amount) >= 100 else f"{amount:,.1f} h"
