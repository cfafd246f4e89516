"""What the Requests page shows, as one value that the URL carries: which calls, in which order, and which is open.

Like `state.View`, whose period and filters it shares: `Listing.search()` is a permalink, and whatever is at its default
is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, cast, get_args
from uuid import UUID

from millicent.dashboard.state import FILTERS, VERSION, View, address, pairs_of
from millicent.warehouse.calls import Cost as CostColumn
from millicent.warehouse.calls import Order, Search
from millicent.warehouse.query import ASKABLE, Filter, Period
from millicent.warehouse.record import COST_TYPE

if TYPE_CHECKING:
    from typing import Any

Cost = Literal["effective", "billed", "list"]
Sort = Literal["cost", "time"]

PAGE: Final = 50
COSTS: Final[dict[Cost, str]] = {"effective": "Effective", "billed": "Billed", "list": "List"}
LISTED: Final = (*FILTERS, *(name for name in ASKABLE if name not in {*FILTERS, COST_TYPE}))
"""Dimensions that calls can be narrowed to; those without a list to choose from by links alone."""
CONTROLS: Final = (
    ("p", "requests-range", "4w"), ("cur", None, ""), ("tz", None, ""), ("cost", "requests-cost", "effective"),
    ("sort", None, "cost"), ("all", None, ""),
    *((name, f"requests-{name}" if name in FILTERS else None, None) for name in LISTED),
    ("least", None, ""), ("below", None, ""), ("trace", None, ""), ("after", None, ""), ("call", None, ""),
)  # fmt: skip
"""Key in the address, id of the control (None: links alone set it), default; no default means many values."""

_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_CALL: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{16})")
_USD: Final = re.compile(r"\d{1,6}(?:\.\d{1,12})?", re.ASCII)
_CURSOR: Final = re.compile(r"[\w=-]{1,100}", re.ASCII)
"""What browsers leave as it is beside letters and digits, so that an address written here is the one written there."""

Id = tuple[str, str]
"""Trace and span, lower-case hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One state of the page. `after` is the cursor of the page before, `call` the one that is open.

    Calls that cost, as shown, `least` USD or more and less than `below`. Of `view` only the period, the filters, the
    currency and the time zone are in use.
    """

    view: View = field(default_factory=View)
    cost: Cost = "effective"
    sort: Sort = "cost"
    uncounted: bool = False
    least: Decimal | None = None
    below: Decimal | None = None
    trace: str | None = None
    after: str | None = None
    call: Id | None = None

    @staticmethod
    def parse(search: str | None) -> Listing:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        whole = View.parse(search, LISTED)
        told = dict(pairs_of(search))
        if told.get("v", VERSION) != VERSION:
            return Listing()
        cost, sort = told.get("cost"), told.get("sort")
        opened = _CALL.fullmatch(told.get("call", ""))
        return Listing(
            view=whole.bare(),
            cost=cast("Cost", cost if cost in get_args(Cost) else "effective"),
            sort=cast("Sort", sort if sort in get_args(Sort) else "cost"),
            uncounted=told.get("all") == "1",
            least=_usd(told.get("least")),
            below=_usd(told.get("below")),
            trace=told["trace"] if _TRACE.fullmatch(told.get("trace", "")) else None,
            after=told["after"] if _CURSOR.fullmatch(told.get("after", "")) else None,
            call=(opened[1], opened[2]) if opened else None,
        )

    def search(self) -> str:
        """The query string, with its `?`; empty for the default listing."""
        told: tuple[tuple[str, str | None], ...] = (
            ("p", self.view.range if self.view.range != View().range else None),
            ("cur", self.view.currency),
            ("tz", self.view.zone),
            ("cost", self.cost if self.cost != "effective" else None),
            ("sort", "time" if self.newest else None),
            ("all", "1" if self.uncounted else None),
            *((name, value or "") for name, values in self.view.filters for value in values),
            ("least", f"{self.least:f}" if self.least is not None else None),
            ("below", f"{self.below:f}" if self.below is not None else None),
            ("trace", self.trace),
            ("after", self.after),
            ("call", ".".join(self.call) if self.call else None),
        )
        return address(told)

    def href(self, **changed: Any) -> str:
        """Address of this listing with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"

    @property
    def newest(self) -> bool:
        """Newest first, rather than most expensive first."""
        return self.sort == "time"

    @property
    def amount(self) -> str:
        """The column of the cost shown."""
        return f"{self.cost}_cost_usd"

    def of_trace(self, trace: str) -> Listing:
        """Everything that a trace told, in the same period."""
        return Listing(
            view=View(range=self.view.range, currency=self.view.currency, zone=self.view.zone),
            cost=self.cost,
            sort="time",
            uncounted=True,
            trace=trace,
        )

    def asked(self, period: Period) -> Search:
        """The page of calls that this shows."""
        return Search(
            period=period,
            trace_id=UUID(self.trace) if self.trace else None,
            filters=self.kept,
            include_uncounted=self.uncounted,
            cost=cast("CostColumn", self.amount),
            least_usd=self.least,
            below_usd=self.below,
            order=cast("Order", "-started_at" if self.newest else f"-{self.amount}"),
            limit=PAGE,
            cursor=self.after,
        )

    @property
    def kept(self) -> tuple[Filter, ...]:
        """The filters, as the warehouse takes them."""
        return tuple(Filter(name, values) for name, values in self.view.filters)

    @property
    def narrowed(self) -> bool:
        """Whether it shows less than all calls of its period."""
        return bool(self.view.filters or self.trace or self.after or self.least is not None or self.below is not None)


def _usd(text: str | None) -> Decimal | None:
    return Decimal(text) if text and _USD.fullmatch(text) else None
