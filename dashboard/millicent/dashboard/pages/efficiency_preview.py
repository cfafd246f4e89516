"""What each team would carry of idle and unavailable cost under each policy.

Every deployment-hour is shared by itself, with the function that shares it when it is computed, so that the sums are
those that the policy would make.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Final, get_args

import polars as pl

from millicent.dashboard import format as fmt
from millicent.dashboard.state import question
from millicent.pricing.idle import IdlePolicy, carriers
from millicent.pricing.profiles import MATH
from millicent.warehouse.query import Filter, Period, Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from millicent.dashboard.reader import Reader

Carried = dict[IdlePolicy, dict[str | None, Decimal]]
"""By policy and team, None for what stays a line of its own."""

SHARED_S: Final = 600.0
"""How old a preview may be, in seconds: every hour is shared by itself, which takes a while."""
HOUR: Final = timedelta(hours=1)
MOST_ROWS: Final = 90_000
"""Of one answer of the warehouse."""
MOST_HOURS: Final = 10_000
"""Deployment-hours that are shared; the latest, where there are more."""


@dataclass(frozen=True, slots=True)
class Unused:
    """A deployment-hour: what of it no call used, what teams used, and who owns it."""

    idle_usd: Decimal
    unavailable_usd: Decimal
    used: Mapping[str, Decimal]
    owner: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """What teams would carry, empty where there is nothing; `since` says what is covered if not the whole period."""

    carried: Carried
    since: str


def of(reader: Reader) -> Preview:
    """The preview of what a reader looks at."""
    period = reader.window.period
    own = reader.over(("accelerator_hours",), "deployment").filter(pl.col("accelerator_hours").is_not_null())
    names = own["deployment"].drop_nulls().to_list()
    if not names:
        return Preview({}, "")
    start = max(period.start, period.end - HOUR * max(1, MOST_HOURS // len(names)))
    since = f"{fmt.span(start, period.end)} {fmt.zone()}" if start > period.start else ""
    carried = shared(_hours(reader, names, Period(start, period.end)))
    return Preview(carried if any(carried.values()) else {}, since)


def shared(hours: Iterable[Unused]) -> Carried:
    """What each team would carry; every policy adds up to the same amount, to its last digit."""
    carried: Carried = {policy: {} for policy in get_args(IdlePolicy)}
    with localcontext(MATH):  # no digit is rounded away
        for hour in hours:
            for amount in filter(None, (hour.idle_usd, hour.unavailable_usd)):
                for policy, mine in carried.items():
                    for team, share in carriers(amount, policy, used=hour.used, owner=hour.owner).items():
                        mine[team] = mine.get(team, Decimal(0)) + share
    return carried


def _hours(reader: Reader, names: Sequence[str], period: Period) -> Iterator[Unused]:
    """Every deployment-hour, asked for in parts that the warehouse answers at once.

    What teams used is that of all calls of a deployment, whatever else is filtered, as it is when hours are computed.
    """
    mine = Filter("deployment", tuple(names))
    owners = _owners(reader)
    by = ("deployment", "team")
    teams = reader.warehouse.ask(
        reader.tenant, Query(measures=("calls",), period=period, dimensions=by, filters=(mine,))
    ).frame.height
    step = HOUR * max(1, MOST_ROWS // max(teams, 1))
    kept = (mine, Filter("cost_type", ("hardware",)), Filter("team", (None,), negated=True))
    begins = period.start
    while begins < period.end:
        part = Period(begins, min(begins + step, period.end))
        asked = Query(measures=("hardware_cost_usd",), period=part, dimensions=by, grain="hour", filters=kept)
        used = defaultdict[tuple[str, "datetime"], dict[str, Decimal]](dict)
        for hour, name, team, usd in reader.warehouse.ask(reader.tenant, asked).frame.iter_rows():
            if usd is not None:
                used[name, hour][team] = usd
        lost = question(reader.view, part, ("idle_cost_usd", "unavailable_cost_usd"), ("deployment",), "hour")
        for hour, name, idle, unavailable in reader.warehouse.ask(reader.tenant, lost).frame.iter_rows():
            held = (owner for start, end, owner in owners[name] if start <= hour and (end is None or hour < end))
            nothing = Decimal(0)
            yield Unused(idle or nothing, unavailable or nothing, used.get((name, hour), {}), next(held, None))
        begins = part.end


def _owners(reader: Reader) -> dict[str, list[tuple[datetime, datetime | None, str | None]]]:
    """Who owns a deployment, from when to when."""
    found = defaultdict(list)
    for _, one in reader.warehouse.control.deployments(reader.tenant):
        found[one.name].append((one.effective_from, one.effective_to, one.owner))
    return found
