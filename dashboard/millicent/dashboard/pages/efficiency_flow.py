"""From paid to busy, in accelerator-hours or dollars, and what is lost on the way. Pure functions of sums."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria

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
    "paid": ("Paid", "what own accelerators cost"),
    "unused": ("Reserved and unused", "under contract, and no deployment took it"),
    "allocated": ("Allocated", "a deployment took it"),
    "unavailable": ("Unavailable", "loading, compiling, failure"),
    "serving": ("Serving", "ready for calls"),
    "idle": ("Idle", "ready, and no call ran"),
    "untracked": ("Untracked", "worked, and we did not see for what"),
    "busy": ("Busy", "calls used it"),
}
LEVELS: Final = ("paid", "allocated", "serving", "busy")
_OPENS: Final[dict[Unit, dict[Kind, str]]] = {
    "usd": {
        "paid": "capacity_cost_usd", "unavailable": "unavailable_cost_usd", "idle": "idle_cost_usd",
        "untracked": "untracked_cost_usd", "busy": "hardware_cost_usd", "unused": "idle_cost_usd",
    },
    "hours": {
        "paid": "accelerator_hours", "allocated": "allocated_accelerator_hours", "busy": "busy_accelerator_hours",
        "serving": "serving_accelerator_hours", "untracked": "unobserved_accelerator_hours",
    },
}  # fmt: skip
"""The measure that a step is, where it is one."""


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


def drawn(found: Sequence[Step], unit: Unit, opened: Callable[[Any, str, Kind], Component]) -> Component:
    """The way as a table of bars, each amount with what it is of the whole.

    Args:
        found: from `steps`.
        unit: what is told.
        opened: a face as a link that opens the derivation of a measure, for a step.
    """
    whole = found[0].amount
    return html.Table(
        [
            html.Caption(f"From paid to busy, in {_UNIT_WORDS[unit]}", className="unseen"),
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


def _row(step: Step, whole: Decimal | None, unit: Unit, opened: Callable[[Any, str, Kind], Component]) -> Component:
    name, says = _WORDS[step.kind]
    measure = _OPENS[unit].get(step.kind) or _difference(step.kind, unit)
    face = [html.Span(name, className="name"), html.Small(says)]
    first = opened(face, measure, step.kind) if measure else html.Span(face)
    share = step.amount / whole if step.amount is not None and whole else None
    sign = "" if step.is_level or not step.amount else fmt.MINUS
    style = _place(step, whole)
    return html.Tr(
        [
            html.Th(first, scope="row"),
            html.Td(html.I(className=f"part {step.kind}", style=style, **aria(hidden="true")) if style else None,
                    className="track"),
            html.Td(sign + text(step.amount, unit), title=exact(step.amount, unit), className="amount"),
            html.Td(fmt.percent(share), className="share"),
        ],
        className=f"{'level' if step.is_level else 'drop'} {step.kind}",
    )  # fmt: skip


def _difference(kind: Kind, unit: Unit) -> str | None:
    """The measure whose derivation tells a step that is a difference of two."""
    told: dict[tuple[Kind, Unit], str] = {
        ("unused", "hours"): "allocated_accelerator_hours", ("unavailable", "hours"): "serving_accelerator_hours",
        ("idle", "hours"): "busy_accelerator_hours", ("allocated", "usd"): "capacity_cost_usd",
        ("serving", "usd"): "capacity_cost_usd",
    }  # fmt: skip
    return told.get((kind, unit))


def _place(step: Step, whole: Decimal | None) -> dict[str, str] | None:
    """Where the bar begins and how long it is, in percent of the whole."""
    if step.amount is None or step.left is None or not whole or whole < 0:
        return None
    begins = Decimal(0) if step.is_level else step.left
    return {"--from": _percent(begins / whole), "--long": _percent(step.amount / whole)}


def _percent(share: Decimal) -> str:
    return f"{min(max(share, Decimal(0)), Decimal(1)):.3%}"


def text(amount: Decimal | None, unit: Unit) -> str:
    """Short: `$12.4k` or `1,234 h`."""
    return fmt.usd(amount) if unit == "usd" else hours(amount)


def exact(amount: Decimal | None, unit: Unit) -> str | None:
    """In full, where it is known."""
    if amount is None:
        return None
    return fmt.usd_exact(amount) if unit == "usd" else f"{amount:,.3f} accelerator-hours"


def hours(amount: Decimal | None) -> str:
    """`1,234 h`, `12.5 h`; whole from a hundred on."""
    if amount is None:
        return fmt.UNKNOWN
    return f"{amount:,.0f} h" if abs(amount) >= 100 else f"{amount:,.1f} h"
