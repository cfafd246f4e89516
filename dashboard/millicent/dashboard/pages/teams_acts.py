"""What the Teams page changes: a month is closed, checked as any request of the API is."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from millicent.collector import charging
from millicent.dashboard.months import Month, open_days, over
from millicent.dashboard.pages.answering import carried_out
from millicent.dashboard.pages.prices_acts import Outcome
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from millicent.dashboard.access import Principal
    from millicent.warehouse.store import Warehouse


def carry_out(warehouse: Warehouse, act: Any) -> Outcome:
    """Do what a browser asks for: close a month; see `answering.carried_out`."""
    return carried_out(act, "close", "read statements, not close a month", partial(_close, warehouse))


def _close(warehouse: Warehouse, who: Principal, told: Mapping[str, str]) -> Outcome:
    month, place, now = Month.parse(told.get("month")), told.get("tz"), datetime.now(UTC)
    if month is None:
        raise ValueError(f"month {told.get('month', '')!r} is not a month: write {now:%Y-%m}")
    if told.get("sure") != "yes":
        raise ValueError(f"{month.words} stays open: say that its amounts are final, then close it.")
    period = month.period(zone(place or preferences(warehouse.control, who.tenant).time_zone))
    left = open_days(period, warehouse.control.closed_periods(who.tenant))
    if not left:
        return Outcome((f"{month.words} is closed already.",))
    if not over(period, now):
        raise ValueError(f"{month.words} is not over: it can be closed once its last day has ended, in UTC, too.")
    charging.refresh(warehouse, now)
    for one in left:
        warehouse.close_period(who.tenant, one.start, one.end, who.actor)
    return Outcome((f"{month.words} is closed: its statements are final.",))
