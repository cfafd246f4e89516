"""Who reads which view, at one moment: what every page's callbacks start from.

The tenant comes from the request alone, never from what a callback was sent; each callback is an open API.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard import access, charts
from millicent.dashboard import format as fmt
from millicent.dashboard.state import View, Window, question
from millicent.pricing.entries import FxRate
from millicent.warehouse import exchange
from millicent.warehouse.query import Period
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    import polars as pl

    from millicent.warehouse.store import Warehouse

Row = dict[str, Any]
Names = tuple[str, ...]

SMOOTHING_DAYS: Final = 6
"""How many days before the period a trend has to look."""


@dataclass(frozen=True, slots=True)
class Reader:
    """`fresh`: instant through which calls are complete; `now`: the clock. Both UTC.

    Whatever is asked and written from then on in its context is in the currency and time zone of the view, or else of
    the workspace; in USD where the currency has no rate throughout the period and what it is compared with.
    """

    warehouse: Warehouse
    tenant: str
    view: View
    window: Window
    fresh: datetime
    now: datetime

    @staticmethod
    def of(warehouse: Warehouse, view: View, *, declared: bool = False) -> Reader | None:
        """The reader of the request being served; None before the tenant's first call.

        With `declared` there is one as soon as a deployment is declared: own hardware costs, called or not.

        Raises:
            PermissionError: nobody is asking, or somebody who may not.
        """
        try:
            tenant = access.principal().tenant
        except LookupError as error:
            raise PermissionError("this view is asked for outside an authenticated request") from error
        liked = preferences(warehouse.control, tenant)
        place: tzinfo = _zone(view.zone) or zone(liked.time_zone)
        place = UTC if str(place) == "UTC" else place
        fmt.present(fmt.Presentation("USD", place))
        fresh, now = warehouse.freshness(tenant), datetime.now(UTC)
        if fresh is None and declared and warehouse.control.deployments(tenant):
            fresh = now
        if fresh is None:
            return None
        window = Window.of(view, min(fresh, now), place, liked.fiscal_month)
        made = Reader(warehouse, tenant, view, window, fresh, now)
        fmt.present(fmt.Presentation(_currency(made, view.currency or liked.currency), place))
        return made

    @staticmethod
    def allowed(warehouse: Warehouse, view: View, *, declared: bool = False) -> Reader | None:
        """The same, and None for whoever may not see it: the headline of a page says why the rest is empty."""
        try:
            return Reader.of(warehouse, view, declared=declared)
        except PermissionError:
            return None

    def over(self, measures: Names, *by: str) -> pl.DataFrame:
        """Measures over the period, by dimensions."""
        return self._ask(measures, by, self.window.period)

    def before(self, measures: Names, *by: str) -> pl.DataFrame | None:
        """The same over the period compared with; None without comparison."""
        return self._ask(measures, by, self.window.prior) if self.window.prior else None

    def daily(self, measures: Names, *by: str, since: datetime | None = None) -> pl.DataFrame:
        """Measures per UTC day, from `since` or the start of the period to its end."""
        period = self.window.period
        return self._ask(measures, by, Period(min(since or period.start, period.start), period.end), daily=True)

    def colours(self, dimension: str) -> dict[str | None, str]:
        """By rank over the whole period, whatever is filtered, so that a filter changes no colour."""
        found = charts.colours(self.warehouse.values(self.tenant, dimension, self.window.period))
        return found | {None: charts.API_COLOUR} if dimension == "accelerator" else found

    def choices(self, dimension: str) -> list[dict[str, str]]:
        """What can be chosen of a dimension: what occurs in the period, most spend first."""
        names = self.warehouse.values(self.tenant, dimension, self.window.period)
        labels = [(name or "", charts.label(dimension, name)) for name in names]
        return [{"value": value, "label": label, "search": f"{value} {label}"} for value, label in labels]

    @property
    def trend_start(self) -> datetime:
        """First day that a smoothed trend needs."""
        return self.window.day_after(self.window.days[0], -SMOOTHING_DAYS)

    @property
    def trend_days(self) -> list[datetime]:
        """The days of a trend: those that are over, preceded by what smoothing needs."""
        window = self.window
        whole = [day for day in window.days if day != window.today] or window.days
        return [window.day_after(whole[0], -n) for n in range(SMOOTHING_DAYS, 0, -1)] + whole

    def trend(self, daily: pl.DataFrame, top: str, bottom: str | None = None) -> Sequence[Any]:
        """A measure per day, smoothed over seven; with `bottom`, sum over sum."""
        under = charts.by_day(daily, bottom, self.trend_days) if bottom else None
        return charts.smoothed(charts.by_day(daily, top, self.trend_days), under)[SMOOTHING_DAYS:]

    def _ask(self, measures: Names, by: Names, period: Period, *, daily: bool = False) -> pl.DataFrame:
        asked = question(self.view, period, measures, by, "day" if daily else None)
        return self.warehouse.ask(self.tenant, asked).frame


def currencies(warehouse: Warehouse, tenant: str) -> list[str]:
    """USD, and every currency of which a tenant's price book has a rate."""
    told = (entry.currency for _, entry in warehouse.control.prices(tenant) if isinstance(entry, FxRate))
    return ["USD", *sorted({*told} - {"USD"})]


def _currency(reader: Reader, wanted: str) -> str:
    """The currency wanted, where it has a rate throughout what a page asks about; else USD."""
    if wanted == "USD":
        return wanted
    told = reader.warehouse.prices.rates(reader.tenant, wanted)
    window = reader.window
    start = min(window.prior.start if window.prior else window.period.start, reader.trend_start)
    known = told and all(one.at is not None for one in exchange.spans(told, Period(start, window.period.end)))
    return wanted if known else "USD"


def rates_in_force(reader: Reader) -> list[exchange.Rate]:
    """The rates by which amounts of the period are converted, oldest first; none where they are in USD."""
    told = reader.warehouse.prices.rates(reader.tenant, fmt.presented().currency)
    return [told[span.at] for span in exchange.spans(told, reader.window.period) if span.at is not None]


def _zone(name: str | None) -> ZoneInfo | None:
    """The time zone of that name; None where there is none."""
    try:
        return zone(name) if name else None
    except ValueError:
        return None
