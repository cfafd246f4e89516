"""What the Efficiency page shows, as one value that the URL carries: period, filters, and what is looked at.

Like `state.View`, with filters of what a deployment has: a team has no own hardware. A team in the address is kept for
the pages that one goes on to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast, get_args

from millicent.dashboard.state import HARDWARE_FILTERS, VERSION, Choice, View, address, pairs_of

Unit = Literal["usd", "hours"]

CHOSEN: Final = {
    "model": "Model", "accelerator": "Accelerator", "engine": "Engine", "precision": "Precision",
    "deployment": "Deployment", "environment": "Environment", "region": "Region",
}  # fmt: skip
"""Dimensions that can be filtered on, and how they are called."""
UNITS: Final[dict[Unit, str]] = {"usd": "$", "hours": "Hours"}
CONTROLS: Final = (
    ("p", "efficiency-range", "4w"), ("vs", "efficiency-compare", "previous"), ("cur", None, ""), ("tz", None, ""),
    ("in", "efficiency-unit", "usd"),
    *((name, f"efficiency-{name}", None) for name in CHOSEN), ("team", None, None), ("at", None, ""),
    ("open", None, ""),
)  # fmt: skip
"""Key in the address, id of the control (None: links alone set it), default; no default means many values."""
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_NAMES: Final = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")

_SLOT: Final = re.compile(r"(?P<day>[a-z]{3})-(?P<hour>[01]\d|2[0-3])")
_LONGEST: Final = 2000


@dataclass(frozen=True, slots=True)
class Slot:
    """One hour of the week, UTC: `day` is 0 for Monday."""

    day: int
    hour: int

    @staticmethod
    def parse(text: str | None) -> Slot | None:
        """Read `tue-14`; None where it is no hour of the week."""
        found = _SLOT.fullmatch(text or "")
        if found is None or found["day"] not in WEEKDAYS:
            return None
        return Slot(WEEKDAYS.index(found["day"]), int(found["hour"]))

    @property
    def written(self) -> str:
        """As the address carries it, under the key `at`."""
        return f"{WEEKDAYS[self.day]}-{self.hour:02}"

    @property
    def words(self) -> str:
        """`Tuesdays 14:00 to 15:00 UTC`."""
        return f"{DAY_NAMES[self.day]} {self.hour:02}:00 to {(self.hour + 1) % 24:02}:00 UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One state of the page.

    Attributes:
        view: period, comparison, and filters by `CHOSEN`.
        team: values that go along to other pages.
        unit: in what the way from paid to busy is told.
        slot: the hour of the week whose deployments are listed.
        opened: what stands in the drawer, as written.
    """

    view: View = field(default_factory=View)
    team: Choice = ()
    unit: Unit = "usd"
    slot: Slot | None = None
    opened: str = ""

    @staticmethod
    def parse(search: object) -> Place:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        text = search if isinstance(search, str) else ""
        whole, told = View.parse(text, HARDWARE_FILTERS), dict(pairs_of(text))
        if told.get("v", VERSION) != VERSION:
            return Place()
        kept = tuple((name, values) for name, values in whole.filters if name in CHOSEN)
        unit = told.get("in", "")
        return Place(
            view=View(range=whole.range, compare=whole.compare, filters=kept, currency=whole.currency, zone=whole.zone),
            team=whole.chosen("team"),
            unit=cast("Unit", unit) if unit in get_args(Unit) else "usd",
            slot=Slot.parse(told.get("at")),
            opened=told.get("open", "")[:_LONGEST],
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        default = View()
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != default.range else None),
            ("vs", self.view.compare if self.view.compare != default.compare else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            ("in", self.unit if self.unit != "usd" else None),
            *((name, value or "") for name, values in self.view.filters for value in values),
            *(("team", value or "") for value in self.team),
            ("at", self.slot.written if self.slot else None),
            ("open", self.opened or None),
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
        return replace(self, view=self.view.unfiltered(), slot=None)
