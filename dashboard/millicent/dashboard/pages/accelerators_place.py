"""What the Accelerators page shows, as one value that the URL carries: filters, denominator, order, and what is open.

Like `state.View`, whose period, comparison and filters it shares: whatever is at its default is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from millicent.dashboard.pages.figures import Figure
from millicent.dashboard.state import HARDWARE_FILTERS, VERSION, View, address, pairs_of

if TYPE_CHECKING:
    from typing import Any

Per = Literal["total", "output"]
Cut = Literal["model", "deployment"]

PERS: Final[dict[Per, str]] = {"total": "Input + output", "output": "Output"}
CUTS: Final[dict[Cut, str]] = {"model": "Model", "deployment": "Deployment"}
CONTROLS: Final = (
    ("p", "accelerators-range", "4w"), ("vs", "accelerators-compare", "previous"), ("cur", None, ""), ("tz", None, ""),
    ("per", "accelerators-per", "total"), *((name, f"accelerators-{name}", None) for name in HARDWARE_FILTERS),
    ("by", "accelerators-by", "model"), ("order", None, ""), ("open", None, ""),
)  # fmt: skip
"""Key in the address, id of the control (None: links alone set it), default; no default means many values."""

_LONGEST: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One state of the page.

    Attributes:
        view: period, comparison and filters.
        per: what a cost per million counts: input and output tokens, or output alone.
        cut: what energy is told by.
        order: column that the table is sorted by, descending with a leading `-`; empty for models and what is cheapest.
        opened: the figure whose derivation stands in the drawer.
    """

    view: View = field(default_factory=View)
    per: Per = "total"
    cut: Cut = "model"
    order: str = ""
    opened: Figure | None = None

    @staticmethod
    def parse(search: str | None) -> Place:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        whole, told = View.parse(search, HARDWARE_FILTERS), dict(pairs_of(search))
        if told.get("v", VERSION) != VERSION:
            return Place()
        per, cut = told.get("per"), told.get("by")
        return Place(
            view=View(
                range=whole.range,
                compare=whole.compare,
                filters=whole.filters,
                currency=whole.currency,
                zone=whole.zone,
            ),
            per=cast("Per", per if per in get_args(Per) else "total"),
            cut=cast("Cut", cut if cut in get_args(Cut) else "model"),
            order=told.get("order", "")[:_LONGEST],
            opened=Figure.parse(told.get("open")),
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        default = View()
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != default.range else None),
            ("vs", self.view.compare if self.view.compare != default.compare else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            ("per", self.per if self.per != "total" else None),
            *((name, value or "") for name, values in self.view.filters for value in values),
            ("by", self.cut if self.cut != "model" else None),
            ("order", self.order or None),
            ("open", self.opened.written if self.opened else None),
        )
        return address(told)

    def href(self, **changed: Any) -> str:
        """Address of this place with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"

    def toggled(self, **values: str | None) -> Place:
        """This place narrowed to one value of each named dimension, or widened again if it already was."""
        return replace(self, view=self.view.toggled(**values))

    def unfiltered(self) -> Place:
        """This place without filters."""
        return replace(self, view=self.view.unfiltered())
