"""What the Alerts page shows, as one value that the URL carries: which alerts, of which budget, and what is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from millicent.dashboard.pages import frame, opened
from millicent.dashboard.state import VERSION, View, address, pairs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Shown = Literal["open", "snoozed", "resolved", "all"]
Opening = Literal["alert", "endpoint", "rule", "add-endpoint", "add-rule"]

SHOWN: Final[Mapping[Shown, str]] = {"open": "Open", "snoozed": "Snoozed", "resolved": "Resolved", "all": "All"}
PLACE: Final = frame.Place(
    name="alerts", title="Alerts", filters={}, compared=False, based=False, ranged=False,
    more=(("s", "alerts-show", "open"), ("budget", None, ""), ("open", None, "")),
)  # fmt: skip

_LONGEST_NUMBER: Final = 12


class Opened(opened.Opened[Opening]):
    """An alert, an endpoint, a rule, or the form of another one."""

    __slots__ = ()
    KINDS = get_args(Opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One state of the page.

    Attributes:
        view: what is kept for the pages that one goes on to; its time zone counts here.
        shown: which alerts are listed.
        budget: id of the budget whose alerts are listed; None for all.
    """

    view: View = field(default_factory=View)
    shown: Shown = "open"
    budget: int | None = None

    @staticmethod
    def parse(search: object) -> Looked:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        text = search if isinstance(search, str) else ""
        told = dict(pairs_of(text))
        if told.get("v", VERSION) != VERSION:
            return Looked()
        shown = told.get("s", "")
        return Looked(
            view=View.parse(text),
            shown=cast("Shown", shown) if shown in SHOWN else "open",
            budget=_number(told.get("budget", "")),
        )

    def href(self, *, opens: str | None = None, **changed: Any) -> str:
        """Address of this place with some of it changed, and what the drawer `opens`; never empty."""
        place = replace(self, **changed)
        told: tuple[tuple[str, str | None], ...] = (
            ("p", place.view.range if place.view.range != View().range else None),
            ("cur", place.view.currency),
            ("tz", place.view.zone),
            *((name, value or "") for name, values in place.view.filters for value in values),
            ("s", place.shown if place.shown != "open" else None),
            ("budget", str(place.budget) if place.budget is not None else None),
            ("open", opens or None),
        )
        return address(told) or "?"


def _number(text: str) -> int | None:
    known = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    return int(text) if known else None
