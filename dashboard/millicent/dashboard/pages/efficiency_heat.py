"""Idle by hour of the week: when accelerators are paid for and nobody calls. Pure functions of frames."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data
from millicent.dashboard.pages.efficiency_place import DAY_NAMES, Slot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dash.development.base_component import Component

    from millicent.dashboard.pages.efficiency_place import Place

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
HOURS: Final = range(24)


@dataclass(frozen=True, slots=True)
class Cell:
    """An hour of the week: idle cost of all its hours in the period, how many those are, and what they cost in full."""

    idle_usd: Decimal
    capacity_usd: Decimal
    hours: int

    @property
    def mean_usd(self) -> Decimal:
        """Idle cost per hour."""
        return self.idle_usd / self.hours


def cells(hourly: pl.DataFrame) -> dict[Slot, Cell]:
    """Every hour of the week that had own hardware.

    Args:
        hourly: `time`, `idle_cost_usd`, `capacity_cost_usd`; one row per hour.
    """
    known = hourly.filter(pl.col("idle_cost_usd").is_not_null())
    found = known.group_by(
        day=pl.col("time").dt.weekday() - 1, hour=pl.col("time").dt.hour()
    ).agg(pl.col("idle_cost_usd", "capacity_cost_usd").sum(), hours=pl.len())  # fmt: skip
    return {
        Slot(row["day"], row["hour"]): Cell(row["idle_cost_usd"], row["capacity_cost_usd"] or Decimal(0), row["hours"])
        for row in found.iter_rows(named=True)
    }


def heat(found: Mapping[Slot, Cell], place: Place) -> Component:
    """A table of weekdays and hours; deeper is dearer, on a linear scale from nothing. A cell lists its deployments."""
    top = max((cell.mean_usd for cell in found.values()), default=Decimal(0))
    head = html.Tr(
        [html.Th(html.Span("Weekday", className="unseen"), scope="col"),
         *(html.Th(f"{hour:02}", scope="col") for hour in HOURS)]
    )  # fmt: skip
    first = min(found, key=lambda slot: (slot.day, slot.hour), default=None)
    body = [_row(day, found, top, place, first) for day in range(len(DAYS))]
    caption = "Mean idle cost by weekday and hour of the day, UTC"
    table = html.Table([html.Caption(caption, className="unseen"), html.Thead(head), html.Tbody(body)],
                       className="hourly")  # fmt: skip
    return html.Div([html.Div(table, className="scroll"), _scale(top), html.P(words(found), className="quiet")])


def words(found: Mapping[Slot, Cell]) -> str:
    """What stands out, for those who do not look: the dearest hour, the cheapest, and the weekend's part."""
    whole = sum((cell.idle_usd for cell in found.values()), Decimal(0))
    if not found or whole <= 0:
        return ""
    ranked = sorted(found, key=lambda slot: (-found[slot].mean_usd, slot.day, slot.hour))
    most, least = ranked[0], ranked[-1]
    weekend = sum((cell.idle_usd for slot, cell in found.items() if slot.day > 4), Decimal(0))
    return (
        f"Most on {most.words}, {fmt.usd(found[most].mean_usd)} an hour; least on {least.words}, "
        f"{fmt.usd(found[least].mean_usd)}. Weekends are {fmt.percent(weekend / whole, 0)} of it."
    )


def _row(day: int, found: Mapping[Slot, Cell], top: Decimal, place: Place, first: Slot | None) -> Component:
    slots = [Slot(day, hour) for hour in HOURS]
    filled = [_cell(slot, found, top, place, reached=slot == first) for slot in slots]
    return html.Tr([html.Th(DAYS[day], scope="row"), *filled])


def _cell(slot: Slot, found: Mapping[Slot, Cell], top: Decimal, place: Place, *, reached: bool) -> Component:
    """An hour of the week; `reached` by the keyboard, which goes on from there by arrows."""
    cell = found.get(slot)
    name = f"{DAY_NAMES[slot.day][:-1]} {slot.hour:02}:00"
    if cell is None:
        return html.Td(html.Span("·", **aria(label=f"{name}: not in the period")), className="none")
    idle = cell.mean_usd
    share = cell.idle_usd / cell.capacity_usd if cell.capacity_usd else None
    said = (
        f"{name} UTC: {fmt.usd(idle)} idle an hour, {fmt.percent(share, 0)} of its cost; "
        f"{fmt.usd_exact(cell.idle_usd)} over {cell.hours} h"
    )
    level = max(idle / top, Decimal(0)) if top > 0 else Decimal(0)
    there = place.href(slot=slot)
    return html.Td(html.A(_short(idle), href=there, title=said, className="slot", style={"--heat": f"{level:.0%}"},
                          tabIndex=0 if reached else -1,
                          **data(nav="", at=slot.written), **aria(label=f"{_short(idle)}: {said}")))  # fmt: skip


def _short(usd: Decimal) -> str:
    """Two digits, without the sign that the heading tells: `9.8`, `12`, `1.2k`."""
    if abs(usd) >= 1000:
        return f"{usd / 1000:.1f}k"
    if abs(usd) >= Decimal("9.95") or not usd:
        return f"{usd:.0f}"
    return f"{usd:.1f}" if abs(usd) >= Decimal("0.95") else f"{usd:.2f}".replace("0.", ".", 1)


def _scale(top: Decimal) -> Component:
    return html.Div(
        [html.Span("$0"), html.I(className="ramp", **aria(hidden="true")), html.Span(f"{fmt.usd(top)} an hour"),
         html.Span("linear scale, hours in UTC", className="quiet")],
        className="scale",
    )  # fmt: skip


def occurrences(start: Any, end: Any, slot: Slot) -> list[Any]:
    """Every hour of the period that is this hour of the week, by its start."""
    hours = pl.datetime_range(start, end, "1h", closed="left", eager=True)
    kept = hours.filter((hours.dt.weekday() - 1 == slot.day) & (hours.dt.hour() == slot.hour))
    return kept.to_list()
