"""What the Alerts page shows, as one value that the URL carries: which alerts, of which budget, and what is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args
from urllib.parse import quote, urlencode

from millicent.dashboard.pages import frame
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

_LONGEST: Final = 200
_LONGEST_OPEN: Final = 2000
_LONGEST_NUMBER: Final = 12


@dataclass(frozen=True, slots=True)
class Opened:
    """What stands in the drawer; `told` says which one, and what a form begins with."""

    kind: Opening
    told: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def of(kind: Opening, /, **told: object) -> Opened:
        """What is told by name; None is left out."""
        return Opened(kind, tuple((name, str(value)) for name, value in told.items() if value is not None))

    def __getitem__(self, name: str) -> str:
        """What was told by this name; empty for nothing."""
        return dict(self.told).get(name, "")

    @staticmethod
    def parse(text: object) -> Opened | None:
        """Read what `written` wrote; None where it opens nothing."""
        clean = text[:_LONGEST_OPEN].encode("utf-8", "replace").decode() if isinstance(text, str) else ""
        kind, _, told = clean.partition("?")
        if kind not in get_args(Opening):
            return None
        return Opened(cast("Opening", kind), tuple((name, value[:_LONGEST]) for name, value in pairs_of(told)))

    @property
    def written(self) -> str:
        """As the address carries it, under the key `open`."""
        return f"{self.kind}?{urlencode(self.told, quote_via=quote)}"


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
