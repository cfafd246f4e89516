"""What the Cost explorer shows, as one value that the URL carries: which measure, cut by what, drawn how, and of what.

Any dimension of the dictionary can cut it and narrow it. A click goes one step further down: it keeps one value and
cuts that by the next dimension of `PATH`, until single calls are left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from millicent.dashboard.listing import Listing
from millicent.dashboard.pages.frame import Place
from millicent.dashboard.state import FILTERS as EVERYWHERE
from millicent.dashboard.state import VERSION, View, address, pairs_of
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import ASKABLE, YES_OR_NO, Filter, Grain
from millicent.warehouse.record import CHARGE, IDLE

if TYPE_CHECKING:
    from millicent.dashboard.state import Choice, Window

Shape = Literal["bar", "area", "line", "rank"]
Value = str | bool | None
"""Of a dimension, as the warehouse answers it."""

NO_OTHER: Final = "none"
SHAPES: Final[dict[Shape, str]] = {"bar": "Bars", "area": "Area", "line": "Lines", "rank": "Ranked"}
GRAINS: Final[dict[Grain, str]] = {"hour": "Hour", "day": "Day", "week": "Week", "month": "Month"}
TOPS: Final = {"3": "Top 3", "5": "Top 5", "8": "Top 8"}
FILTERS: Final = {
    "team": "Team", "feature": "Feature", "model": "Model", "deployment": "Deployment", "accelerator": "Accelerator",
}  # fmt: skip
"""Dimensions that have a list of their own in the filter bar."""
PATH: Final = ("team", "feature", "model", "deployment")
"""From who pays down to what served it; after the last come single calls."""
DEEPER: Final = {
    "project": "feature", "customer": "feature", "environment": "team", "service": "team", "region": "deployment",
    "accelerator": "deployment", "engine": "deployment", "precision": "deployment", "provider": "model",
    "request_model": "model", "response_model": "model", "cost_type": "model", "billing": "model",
    "user_id": "feature", "session_id": "model",
}  # fmt: skip
"""What a value of a dimension beside the path is cut by next."""
MOST_BUCKETS: Final[dict[Grain, int]] = {"hour": 192, "day": 200, "week": 200, "month": 200}
"""How many steps of time a chart has at most; a longer period is told in longer ones."""

_SPOKEN: Final = {"cost_type": "Cost type", "user_id": "User", "session_id": "Session", "ttft_ms": "First token"}


def title(dimension: str) -> str:
    """How a dimension is called: `Request model`."""
    return _SPOKEN.get(dimension) or dimension.replace("_", " ").capitalize()


def text_of(value: Value) -> str | None:
    """A value as a filter takes it."""
    return ("true" if value else "false") if isinstance(value, bool) else value


_MORE: Final = (
    *((name, None, None) for name in ASKABLE if name not in {*FILTERS, *EVERYWHERE}),
    ("by", "explore-by", "team"), ("and", "explore-and", NO_OTHER), ("as", "explore-as", "bar"),
    ("in", "explore-in", "spend_usd"), ("g", "explore-g", "day"), ("top", "explore-top", "8"), ("order", None, ""),
    ("open", None, ""),
)  # fmt: skip
PLACE: Final = Place(name="explore", title="Cost explorer", filters=FILTERS, more=_MORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """One state of the page.

    Attributes:
        view: period, comparison, basis, currency, time zone, and filters by any dimension.
        by: the dimension that everything is cut by.
        other: the one that makes the columns of the table; `none` for none.
        measure: what is measured, of the dictionary.
        grain: steps of time in the chart.
        shape: how the chart is drawn.
        top: how many values stand by themselves in it.
        order: column by which rows are sorted, the largest first; that of the measure where empty.
        opened: what stands in the drawer, as written.
    """

    view: View = field(default_factory=View)
    by: str = "team"
    other: str = NO_OTHER
    measure: str = "spend_usd"
    grain: Grain = "day"
    shape: Shape = "bar"
    top: int = 8
    order: str = ""
    opened: str = ""

    @staticmethod
    def parse(search: object) -> Exploration:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        text = search if isinstance(search, str) else ""
        told = dict(pairs_of(text))
        if told.get("v", VERSION) != VERSION:
            return Exploration()
        by, other = (told.get(key) if told.get(key) in ASKABLE else None for key in ("by", "and"))
        by = by or "team"
        grain, shape, top = told.get("g"), told.get("as"), told.get("top", "")
        measure = told.get("in", "")
        return Exploration(
            view=_whole(View.parse(text, ASKABLE)),
            by=by,
            other=other if other and other != by else NO_OTHER,
            measure=measure if measure in DICTIONARY else "spend_usd",
            grain=grain if grain in GRAINS else "day",
            shape=cast("Shape", shape if shape in get_args(Shape) else "bar"),
            top=int(top) if top in TOPS else 8,
            order=told.get("order", "") if told.get("order") in {*DICTIONARY, "change", "name"} else "",
            opened=told.get("open", "")[:2000],
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        view = self.view
        told: dict[str, str] = {
            "p": view.range, "vs": view.compare, "basis": view.basis, "cur": view.currency or "", "tz": view.zone or "",
            "by": self.by, "and": self.other, "as": self.shape, "in": self.measure, "g": self.grain,
            "top": str(self.top), "order": self.order, "open": self.opened,
        }  # fmt: skip
        pairs: list[tuple[str, str | None]] = []
        for key, _, usual in PLACE.controls:
            if usual is None:
                pairs += [(key, value or "") for value in view.chosen(key)]
            elif told.get(key, usual) != usual:
                pairs.append((key, told[key]))
        return address(pairs)

    def href(self, **changed: Any) -> str:
        """Address of this state with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, opened="", **changed).search() or "?"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the table is cut by."""
        return (self.by,) if self.other == NO_OTHER else (self.by, self.other)

    def narrowed(self, **values: Value) -> Exploration:
        """The same of one value of each named dimension only."""
        kept: dict[str, Choice] = dict(self.view.filters)
        kept |= {name: (text_of(value),) for name, value in values.items()}
        return replace(
            self, view=replace(self.view, filters=tuple((name, kept[name]) for name in ASKABLE if name in kept))
        )

    def widened(self, *dimensions: str) -> Exploration:
        """The same without filters on these dimensions."""
        return replace(
            self, view=replace(self.view, filters=tuple(one for one in self.view.filters if one[0] not in dimensions))
        )

    def deeper(self, value: Value) -> str:
        """Where a click on a value leads: the next step down, or its calls where there is none."""
        if value == IDLE:
            return f"/efficiency{self.carried}"
        if value == CHARGE:
            return self.narrowed(**{self.by: value}).href()
        kept = self.narrowed(**{self.by: value})
        following = kept.next
        if following is None:
            return kept.calls
        return replace(kept, by=following, other=NO_OTHER if self.other == following else self.other, order="").href()

    @property
    def next(self) -> str | None:
        """The dimension that is cut by after this one: the next of `PATH` that is not down to one value."""
        if self.by in PATH:
            later = PATH[PATH.index(self.by) + 1 :]
        else:
            first = DEEPER.get(self.by, "team")
            later = PATH[PATH.index(first) :] if first in PATH else PATH
        return next((name for name in later if len(self.view.chosen(name)) != 1), None)

    @property
    def calls(self) -> str:
        """Address of the calls behind it."""
        kept = replace(View(), range=self.view.range, filters=self.view.filters, currency=self.view.currency,
                       zone=self.view.zone)  # fmt: skip
        return f"/requests{Listing.parse(kept.search()).search()}"

    @property
    def carried(self) -> str:
        """The period as a query string, for another page."""
        return replace(View(), range=self.view.range, currency=self.view.currency, zone=self.view.zone).search()

    def step(self, window: Window) -> Grain:
        """The grain that is drawn: the one chosen, or the finest that the length of the period allows."""
        order = tuple(GRAINS)
        days = len(window.days)
        steps: dict[Grain, int] = {"hour": days * 24, "day": days, "week": days // 7 + 1, "month": days // 28 + 1}
        return next(one for one in order[order.index(self.grain) :] if steps[one] <= MOST_BUCKETS[one])

    def kept(self, dimension: str, values: tuple[Value, ...], *, negated: bool = False) -> Filter:
        """A filter beyond those of the view."""
        return Filter(dimension, tuple(text_of(value) for value in values), negated)


def yes_or_no(dimension: str, value: Value) -> str:
    """A yes or no in words."""
    return "Unknown" if value is None else f"{title(dimension)}: {'yes' if value else 'no'}"


def is_yes_or_no(dimension: str) -> bool:
    """Whether the values of a dimension are true and false."""
    return dimension in YES_OR_NO


def _whole(view: View) -> View:
    return replace(view, cut="team", scale="usd")
