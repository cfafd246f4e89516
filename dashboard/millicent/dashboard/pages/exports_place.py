"""What the Exports page shows, as one value that the URL carries: which file, and of which month where it is FOCUS."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard.focus import Edition
from millicent.dashboard.months import Month
from millicent.dashboard.pages import frame
from millicent.dashboard.state import VERSION, View, pairs_of, question

if TYPE_CHECKING:
    from datetime import datetime

    from millicent.warehouse.query import Grain, Period, Query

PLACE: Final = frame.Place(name="exports", title="Exports", compared=False, more=(("file", None, ""), ("m", None, "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A file that is often asked for: FOCUS of a month where it has an edition, else the answer to a question."""

    title: str
    words: str
    edition: Edition | None = None
    measures: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    grain: Grain | None = None

    def asked(self, view: View, period: Period) -> Query:
        """Its question, with the filters, basis, currency and time zone of the page."""
        asked = question(view, period, self.measures, self.by, self.grain)
        return replace(asked, order=("time", f"-{self.measures[0]}") if self.grain else (f"-{self.measures[0]}",))


PRESETS: Final = {
    "focus": Preset(title="FOCUS 1.2", words="for FinOps tools; own hardware as tokens", edition=Edition()),
    "focus-13": Preset(title="FOCUS 1.3", words="the same in the newer version", edition=Edition("1.3")),
    "focus-split": Preset(
        title="FOCUS 1.3, split allocation", words="own hardware as accelerator-hours, split among callers",
        edition=Edition("1.3", "split-allocation"),
    ),
    "teams": Preset(
        title="Daily spend by team", words="one row per day and team", by=("team",), grain="day",
        measures=("spend_usd", "total_tokens", "calls", "cost_per_mtok_usd", "idle_cost_usd"),
    ),
    "features": Preset(
        title="Who spent on what", words="by month, team, feature, customer and model", grain="month",
        by=("team", "feature", "customer", "model"),
        measures=("spend_usd", "billed_cost_usd", "hardware_cost_usd", "calls", "input_tokens", "output_tokens"),
    ),
    "models": Preset(
        title="Models and where they ran", words="cost per 1M tokens beside list prices",
        by=("model", "provider", "billing", "accelerator"),
        measures=("spend_usd", "cost_per_mtok_usd", "list_cost_usd", "list_cost_per_mtok_usd", "total_tokens", "calls",
                  "cache_hit_ratio"),
    ),
    "hardware": Preset(
        title="Own hardware", words="hours, money, energy and carbon by deployment and day", grain="day",
        by=("deployment", "accelerator"),
        measures=("capacity_cost_usd", "hardware_cost_usd", "idle_cost_usd", "unavailable_cost_usd",
                  "untracked_cost_usd", "accelerator_hours", "busy_accelerator_hours", "energy_wh", "gco2e_g"),
    ),
    "doubts": Preset(
        title="Not priced or not attributed", words="calls by who sends them",
        by=("service", "provider", "model", "price_status"),
        measures=("calls", "unpriced_calls", "unattributed_calls", "missing_usage_calls", "spend_usd"),
    ),
}  # fmt: skip
"""Files that are offered, by the name that the address has for them; the first is shown where none is named."""
FIRST: Final = next(iter(PRESETS))
CHECKED: Final = (
    ("ChargePeriodStart", "Day"), ("ChargeCategory", "Charge"), ("SubAccountName", "Team"),
    ("ProviderName", "Provider"), ("ResourceId", "Resource"), ("SkuMeter", "Meter"), ("x_Model", "Model"),
    ("PricingQuantity", "Quantity"), ("PricingUnit", "Unit"), ("ListUnitPrice", "List price"),
    ("EffectiveCost", "Cost"), ("x_PriceStatus", "Price"),
)  # fmt: skip
"""Columns of FOCUS that the preview shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One state of the page; `month` is that of FOCUS, None for the present one."""

    view: View = field(default_factory=View)
    file: str = FIRST
    month: Month | None = None

    @staticmethod
    def parse(search: object) -> Looked:
        """Read a query string. What it cannot mean is ignored: an old link still opens."""
        text = search if isinstance(search, str) else ""
        told = dict(pairs_of(text))
        if told.get("v", VERSION) != VERSION:
            return Looked()
        name = told.get("file", FIRST)
        view = replace(View.parse(text), compare="none")
        return Looked(view=view, file=name if name in PRESETS else FIRST, month=Month.parse(told.get("m")))

    @property
    def preset(self) -> Preset:
        """The file that is shown."""
        return PRESETS[self.file]

    def at(self, now: datetime) -> Month:
        """The month of FOCUS, at an instant."""
        return self.month or Month.of(now)

    def search(self) -> str:
        """The query string, with its `?`; empty for the default."""
        view = replace(self.view, compare="previous").search()
        told = [f"file={self.file}"] if self.file != FIRST else []
        told += [f"m={self.month.written}"] if self.month else []
        if not told:
            return view
        return f"{view or f'?v={VERSION}'}&{'&'.join(told)}"

    def href(self, **changed: Any) -> str:
        """Address of this place with some of it changed; never empty, so that a link always leads somewhere."""
        return replace(self, **changed).search() or "?"
