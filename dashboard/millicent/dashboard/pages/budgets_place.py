"""What the Budgets page shows, as one value that the URL carries: which budgets are listed, and which one is open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args
from urllib.parse import quote, urlencode

from millicent.dashboard.pages import frame
from millicent.dashboard.state import FILTERS, VERSION, View, address, pairs_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Show = Literal["all", "over", "risk", "kept", "incomplete"]

SHOWS: Final[dict[Show, str]] = {
    "all": "All", "over": "Over or will be", "risk": "At risk", "kept": "Kept", "incomplete": "Incomplete",
}  # fmt: skip
PLACE: Final = frame.Place(
    name="limits", at="/budgets", title="Budgets", filters={}, compared=False, based=False, ranged=False,
    more=(("show", "limits-show", "all"), ("q", "limits-search", ""), ("budget", None, ""), ("open", None, "")),
)  # fmt: skip
_LONGEST: Final = 200
_MOST_OPENED: Final = 4000
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One state of the page.

    Attributes:
        view: what is kept for the pages that one goes on to; its period and filters do not count here.
        show: which budgets are listed.
        text: what is searched in their names, owners and scopes.
        budget: id of the one that is open; None is the first.
    """

    view: View = field(default_factory=View)
    show: Show = "all"
    text: str = ""
    budget: int | None = None

    @staticmethod
    def parse(scope: object, text: object = None) -> Looked:
        """Read a query string, or what is searched apart from it. What it cannot mean is ignored."""
        search = scope if isinstance(scope, str) else ""
        told = dict(pairs_of(search))
        if told.get("v", VERSION) != VERSION:
            return Looked()
        said = text if isinstance(text, str) else told.get("q", "")
        kept = View.parse(search)
        return Looked(
            view=kept.bare(),
            show=cast("Show", told["show"]) if told.get("show") in get_args(Show) else "all",
            text=said[:_LONGEST].encode("utf-8", "replace").decode(),
            budget=_number(told.get("budget", "")),
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != "4w" else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            *((name, value or "") for name in FILTERS for value in self.view.chosen(name)),
            ("show", self.show if self.show != "all" else None),
            ("q", self.text or None),
            ("budget", str(self.budget) if self.budget is not None else None),
        )
        return address(told)

    def href(self, **changed: Any) -> str:
        """Address of this place with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"


def opens(kind: str, **told: object) -> str:
    """What the address opens in the drawer: `new`, `change` or `end`, with what the form begins with."""
    known = [(name, str(value)) for name, value in told.items() if value is not None]
    return f"{kind}?{urlencode(known, quote_via=quote)}" if known else kind


def opened(text: object) -> tuple[str, Mapping[str, str]]:
    """What `opens` wrote."""
    kind, _, told = text[:_MOST_OPENED].partition("?") if isinstance(text, str) else ("", "", "")
    return kind, dict(pairs_of(told))


def number(text: object) -> int | None:
    """An id that somebody wrote; None where it is none."""
    return _number(text) if isinstance(text, str) else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None
