"""What the Prices page shows, as one value that the URL carries: the period, what is searched, and what is open.

Like `state.View`, whose period and filters it shares: whatever is at its default is left out. Filters have no say on
this page; they are kept for the pages that one goes on to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

from millicent.dashboard.pages import opened
from millicent.dashboard.state import FILTERS, VERSION, View, address, pairs_of

if TYPE_CHECKING:
    from typing import Any

Opening = Literal["price", "entry", "add", "reprice", "run"]

CONTROLS: Final = (
    ("p", "prices-range", "4w"), ("cur", None, ""), ("tz", None, ""),
    ("q", "prices-search", ""), *((name, None, None) for name in FILTERS),
    ("open", None, ""),
)  # fmt: skip
"""Key in the address, id of the control (None: links alone set it), default; no default means many values."""

_LONGEST: Final = 200


class Opened(opened.Opened[Opening]):
    """A price and its history, an own entry, a form, a repricing to start, or one started."""

    __slots__ = ()
    KINDS = get_args(Opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One state of the page. Of `view` only the period is in use here; its filters go along."""

    view: View = field(default_factory=View)
    text: str = ""
    opened: Opened | None = None

    @staticmethod
    def parse(search: str | None) -> Place:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        whole = View.parse(search)
        told = dict(pairs_of(search))
        if told.get("v", VERSION) != VERSION:
            return Place()
        return Place(
            view=whole.bare(),
            text=told.get("q", "")[:_LONGEST],
            opened=Opened.parse(told.get("open", "")),
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != View().range else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            ("q", self.text or None),
            *((name, value or "") for name, values in self.view.filters for value in values),
            ("open", self.opened.written if self.opened else None),
        )
        return address(told)

    def href(self, **changed: Any) -> str:
        """Address of this place with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"

    def opening(self, kind: Opening, /, **told: object) -> str:
        """Address with the drawer open at this."""
        return self.href(opened=Opened.of(kind, **told))
