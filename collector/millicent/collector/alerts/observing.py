"""What every rule of a tenant sees at an instant: one sighting for each rule, scope and period.

A budget's actual is seen for its present period and for those before it, so that late data, other prices and credits
are noticed wherever they fall. All else is about now, or about the last whole days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Context, Decimal
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import structlog

from millicent.warehouse import budgets, outlook, standings
from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.alert_states import ANOMALIES_FOR, Observation
from millicent.warehouse.budgets import Budget
from millicent.warehouse.instants import day_of, hour_after, midnight
from millicent.warehouse.outlook import Daily
from millicent.warehouse.query import BadQuery, Basis, Filter, Period, Query
from millicent.warehouse.standings import Standing
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

log = structlog.get_logger("millicent.alerts")

LOOKED_BACK: Final = timedelta(days=400)
"""How far back periods that are over are looked at again."""
MOST_PERIODS: Final = 62
"""Of one budget; of short periods there would be many."""
TOLERATED: Final = Decimal("0.01")
"""Share of calls of unknown cost from which on nothing is judged that needs all of them; as the given rule tells it."""
BEHIND: Final = timedelta(hours=1)
"""How far behind calls may be in being stored, likewise."""
SILENCES: Final = timedelta(days=14)
"""Over how long it is looked how long calls usually stay away."""
LEAST_HISTORY: Final = timedelta(days=5)
ALL: Final = "all"
NOTHING_LEFT: Final = Decimal(1_000_000)
"""Stands for a share of nothing: of a limit that earlier periods have used up, or of what was never spent before."""
DAYS_BEFORE: Final = timedelta(weeks=outlook.WEEKS)
COUNTS: Final = ("calls", "unpriced_calls", "missing_usage_calls")
_NOTHING: Final = Decimal(0)
_SAME: Final = ("filters", "period", "rolling_days", "amount", "currency", "basis", "time_zone", "fiscal_month",
                "rollover")  # fmt: skip
"""What of a budget decides how it is judged."""
_HOUR: Final = timedelta(hours=1)
_INSTANT: Final = timedelta(microseconds=1)
_DOWN: Final = Context(prec=60, rounding=ROUND_DOWN)
"""In which shares are computed: nothing that is below a threshold is rounded up to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What spend a rule is about, and in what terms.

    Attributes:
        name: as an alert has it.
        filters: what is kept of all spend.
        basis: cost basis.
        currency: of every amount.
        time_zone: IANA name of the zone whose days count.
        budget: the version that holds, if it is about one.
        versions: every version of it, in the order they were set.
    """

    name: str
    filters: tuple[Filter, ...]
    basis: Basis
    currency: str
    time_zone: str
    budget: Budget | None = None
    versions: tuple[Budget, ...] = ()

    def query(self, measures: Sequence[str], period: Period, **more: Any) -> Query:
        """What is asked of it."""
        return Query(measures=tuple(measures), period=period, filters=self.filters, basis=self.basis,
                     currency=self.currency, time_zone=self.time_zone, **more)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An observation, and what is told of it should it fire or be taken back.

    Attributes:
        seen: what is judged.
        scope: what spend it is about.
        period: the time that the value is about.
        amount: what was spent in it, where it is about spend.
        limit: what might have been.
        incomplete: what is not in it, in words.
        standing: how the budget stands, where it is about the present.
        more: what else there is to say of the value, for machines.
    """

    seen: Observation
    scope: Scope
    period: Period
    amount: Decimal | None = None
    limit: Decimal | None = None
    incomplete: tuple[str, ...] = ()
    standing: Standing | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is asked of a tenant at an instant, each question once."""

    warehouse: Warehouse
    tenant: str
    now: datetime
    ask: Callable[[Query], pl.DataFrame]
    fresh: bool
    """Whether calls are stored without much delay."""
    stood: dict[int | None, Standing] = field(default_factory=dict)
    """How budgets stand that have a rule about the present, by id."""

    def counted(self, scope: Scope, period: Period) -> tuple[int, int, tuple[str, ...]]:
        """Calls of a period, how many of them are of unknown cost, and that in words."""
        plain = replace(scope, basis="effective", currency="USD")
        calls, unpriced, unread = (int(value or 0) for value in self.ask(plain.query(COUNTS, period)).row(0))
        return calls, max(unpriced, unread), unknown(unpriced, unread)

    def reliable(self, scope: Scope, period: Period) -> bool:
        """Whether enough is known of a period for what needs all of it."""
        calls, of_unknown_cost, _ = self.counted(scope, period)
        return (self.fresh and Decimal(of_unknown_cost) < TOLERATED * calls) or (self.fresh and not of_unknown_cost)


def sightings(warehouse: Warehouse, tenant: str, rules: Sequence[Rule], now: datetime) -> list[Sighting]:
    """What rules see. A rule that cannot be judged, as its currency has no rate, sees nothing, and the log says so."""
    behind = warehouse.complete_through
    asked = cache(lambda query: warehouse.ask(tenant, query).frame)
    scene = Scene(warehouse, tenant, now, asked, behind is None or now - behind < BEHIND)
    found = list[Sighting]()
    by_scope = defaultdict[Scope, list[Rule]](list)
    for scope, rule in _scopes(warehouse, tenant, rules, now):
        by_scope[scope].append(rule)
    scene.stood.update(_standings(scene, by_scope))
    for scope, ones in by_scope.items():
        by_kind = defaultdict[str, list[Rule]](list)
        for rule in ones:
            by_kind[rule.kind].append(rule)
        for kind, alike in by_kind.items():
            try:
                found += _LOOKS[kind](scene, scope, alike)
            except BadQuery as error:
                log.warning("rules not judged", tenant=tenant, scope=scope.name, kind=kind, why=str(error))
    return found


def scope_of(rule: Rule) -> str:
    """What spend a rule is about, as an alert has it."""
    return _named(rule.filters) if rule.budget is None else f"budget:{rule.budget}"


def few(of_unknown_cost: int, calls: int) -> bool:
    """Whether so few calls are of unknown cost that what is known of the others says something."""
    return not of_unknown_cost or of_unknown_cost < TOLERATED * calls


def unknown(unpriced: int, unread: int, nobodys: int = 0) -> tuple[str, ...]:
    """What is missing from an amount, in words."""
    told = ((unpriced, "unpriced"), (unread, "without token counts"), (nobodys, "of no team"))
    return tuple(f"{count:,} {'call is' if count == 1 else 'calls are'} {words}" for count, words in told if count)


def _scopes(
    warehouse: Warehouse, tenant: str, rules: Sequence[Rule], now: datetime
) -> Iterator[tuple[Scope, Rule]]:  # fmt: skip
    """Each rule with what it is about; those of budgets that do not hold are left out."""
    live, stored = budgets.live_with_versions(warehouse.control, tenant, now)
    versions = defaultdict[int | None, list[Budget]](list)
    for one in stored:
        versions[one.id].append(one)
    of_budget = {one.id: _of_budget(one, versions[one.id]) for one in live}
    usual = preferences(warehouse.control, tenant).time_zone
    for rule in rules:
        if rule.budget is None:
            yield Scope(name=_named(rule.filters), filters=rule.filters, basis=rule.basis, currency="USD",
                        time_zone=usual), rule  # fmt: skip
        elif rule.budget in of_budget:
            yield of_budget[rule.budget], rule


def _of_budget(budget: Budget, versions: Sequence[Budget]) -> Scope:
    return Scope(name=f"budget:{budget.id}", filters=budget.filters, basis=budget.basis, currency=budget.currency,
                 time_zone=budget.time_zone, budget=budget, versions=tuple(versions))  # fmt: skip


def _standings(scene: Scene, by_scope: dict[Scope, list[Rule]]) -> dict[int | None, Standing]:
    """How budgets stand that have a rule about the present."""
    wanted = {
        scope: scope.budget
        for scope, ones in by_scope.items()
        if scope.budget and any(one.kind in {"forecast", "burn_rate"} for one in ones)
    }
    versions = [one for scope in wanted for one in scope.versions]
    found = standings.standings(scene.ask, list(wanted.values()), scene.now, versions)
    return {one.budget.id: one for one in found if isinstance(one, Standing)}


def _actual(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """What every period has come to of its limit; of a rolling budget the present one alone."""
    budget = scope.budget
    if budget is None:
        return
    rolls, end = budget.rolling_days is not None, scene.now + _INSTANT
    start = scene.now if rolls else scene.now - LOOKED_BACK
    terms = {one.version: at for one, at in zip(scope.versions, _terms(scope.versions), strict=True)}
    frame = standings.spent_by_period(scene.ask, scope.versions, start, end).tail(1 if rolls else MOST_PERIODS)
    of_version = {one.version: _of_budget(one, scope.versions) for one in scope.versions}
    for row in frame.iter_rows(named=True):
        unpriced, unread, nobodys = (int(row[name]) for name in standings.UNKNOWN)
        period = Period(row["period_start"], row["period_end"])
        value = _DOWN.divide(row["actual"], row["limit"]) if row["limit"] > 0 else NOTHING_LEFT
        for rule in rules:
            seen = Observation(
                rule=rule, scope=scope.name, start=None if rolls else period.start, end=None if rolls else period.end,
                terms=f"{terms[row['version']]}/{_rule_terms(rule)}", value=value, complete=not (unpriced or unread),
            )  # fmt: skip
            now = scene.stood.get(budget.id) if period.end > scene.now else None
            yield Sighting(seen=seen, scope=of_version[row["version"]], period=period, amount=row["actual"],
                           limit=row["limit"], incomplete=unknown(unpriced, unread, nobodys), standing=now)  # fmt: skip


def _forecast(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """What the present period will have come to; no news where that much has been spent already."""
    standing = scene.stood.get(scope.budget.id) if scope.budget else None
    if standing is None or standing.forecast is None:
        return
    limit = standing.limit
    value = _DOWN.divide(standing.forecast.p50_usd, limit) if limit else NOTHING_LEFT
    spent = _DOWN.divide(standing.actual, limit) if limit else NOTHING_LEFT
    reliable = scene.reliable(scope, standing.period)
    for rule in rules:
        seen = _now(scope, rule, standing, value, reliable=reliable)
        yield Sighting(
            seen=replace(seen, continues=spent >= rule.threshold), scope=scope,
            period=standing.period, amount=standing.actual, limit=standing.limit, incomplete=standing.incomplete,
            standing=standing,
        )  # fmt: skip


def _burn_rate(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """How many times faster than the even pace calls have spent lately; charges are booked at once and left out."""
    standing = scene.stood.get(scope.budget.id) if scope.budget else None
    if standing is None:
        return
    length = standing.period.end - standing.period.start
    for rule in rules:
        window = _last_hours(rule, scene.now)
        spent, charged = scene.ask(scope.query(("spend_usd", "charges_usd"), window)).row(0)
        amount = (spent or _NOTHING) - (charged or _NOTHING)
        even = standing.limit * (rule.window_hours * 3600) / Decimal(round(length.total_seconds()))
        seen = _now(scope, rule, standing, amount / even if even else NOTHING_LEFT,
                    reliable=scene.reliable(scope, window))  # fmt: skip
        yield Sighting(
            seen=replace(seen, size=amount), scope=scope, period=window,
            amount=amount, limit=standing.limit, incomplete=standing.incomplete, standing=standing,
            more={"even_pace": even, "window_hours": rule.window_hours},
        )  # fmt: skip


def _anomaly(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """Whether the last whole days cost far more than the same weekdays before them."""
    place = zone(scope.time_zone)
    today = day_of(scene.now, place)
    first = today - ANOMALIES_FOR
    whole = Period(midnight(first - DAYS_BEFORE, place), midnight(today, place))
    frame = scene.ask(scope.query(("spend_usd", "charges_usd", *COUNTS), whole, grain="day"))
    rows = {day_of(row["time"], place): row for row in frame.iter_rows(named=True)}
    series = [
        Daily(day, None if row["spend_usd"] is None else row["spend_usd"] - (row["charges_usd"] or _NOTHING))
        for day, row in rows.items()
    ]
    days = [first + timedelta(days=n) for n in range(ANOMALIES_FOR.days)]
    for rule in rules:
        told = outlook.anomalies({("", None): series}, days, rule.floor or _NOTHING)
        odd = {one.day: one for one in told if (one.impact_ratio or NOTHING_LEFT) >= rule.threshold}
        for day in days:
            found, row = odd.get(day), rows.get(day, {})
            period = Period(midnight(day, place), midnight(day + timedelta(days=1), place))
            calls, unpriced, unread = (int(row.get(name) or 0) for name in COUNTS)
            seen = Observation(
                rule=rule, scope=scope.name, start=period.start, end=period.end,
                terms=f"0/{_rule_terms(rule)}",
                value=(NOTHING_LEFT if found.impact_ratio is None else found.impact_ratio) if found else _NOTHING,
                size=found.impact_usd if found else _NOTHING,
                reliable=scene.fresh and few(max(unpriced, unread), calls),
                continues=day - timedelta(days=1) in odd,
                in_line=any(later not in odd for later in days if later > day),
            )  # fmt: skip
            yield Sighting(
                seen=seen, scope=scope, period=period, amount=found.actual_usd if found else None,
                incomplete=unknown(unpriced, unread),
                more={"expected": found.expected_usd, "impact": found.impact_usd} if found else {},
            )  # fmt: skip


def _unit_cost(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """What a million tokens have cost lately."""
    for rule in rules:
        window = _last_hours(rule, scene.now)
        each, spent = scene.ask(scope.query(("cost_per_mtok_usd", "spend_usd"), window)).row(0)
        _, _, missing = scene.counted(scope, window)
        seen = Observation(rule=rule, scope=scope.name, terms=f"{_budget_terms(scope)}/{_rule_terms(rule)}",
                           value=each, size=spent, reliable=scene.reliable(scope, window))  # fmt: skip
        yield Sighting(seen=seen, scope=scope, period=window, amount=spent, incomplete=missing,
                       more={"cost_per_mtok": each, "window_hours": rule.window_hours})  # fmt: skip


def _freshness(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """How long no call has come, against the longest time that none did in the two weeks before."""
    period = Period(hour_after(scene.now) - SILENCES, hour_after(scene.now))
    plain = replace(scope, basis="effective", currency="USD", time_zone="UTC")
    frame = scene.ask(plain.query(("calls",), period, grain="hour"))
    hours: list[datetime] = frame.filter(pl.col("calls").fill_null(0) > 0)["time"].sort().to_list()
    if not hours or hours[-1] - hours[0] < LEAST_HISTORY:
        return
    last = hours[-1] + _HOUR
    silence = max(scene.now - last, timedelta())
    usual = max(_HOUR, *(later - before - _HOUR for before, later in pairwise(hours)))
    for rule in rules:
        seen = Observation(rule=rule, scope=scope.name, terms=f"0/{_rule_terms(rule)}", value=_times(silence, usual),
                           size=_times(silence, _HOUR))  # fmt: skip
        yield Sighting(seen=seen, scope=scope, period=period,
                       more={"last_call_before": last, "usual_hours": _times(usual, _HOUR)})  # fmt: skip


def _unpriced(scene: Scene, scope: Scope, rules: Sequence[Rule]) -> Iterator[Sighting]:
    """Which share of calls is of unknown cost, in the budget's period or lately."""
    for rule in rules:
        whole = scope.budget.period_at(scene.now) if scope.budget and not rule.window_hours else None
        period = whole or _last_hours(rule, scene.now)
        keyed = whole is not None and scope.budget is not None and scope.budget.rolling_days is None
        calls, of_unknown_cost, missing = scene.counted(scope, period)
        seen = Observation(
            rule=rule, scope=scope.name, start=period.start if keyed else None, end=period.end if keyed else None,
            terms=f"0/{_rule_terms(rule)}", value=Decimal(of_unknown_cost) / calls if calls else _NOTHING,
            size=Decimal(of_unknown_cost),
        )  # fmt: skip
        yield Sighting(seen=seen, scope=scope, period=period, incomplete=missing,
                       more={"calls": calls, "unknown_calls": of_unknown_cost})  # fmt: skip


_LOOKS: Final[dict[str, Callable[[Scene, Scope, Sequence[Rule]], Iterator[Sighting]]]] = {
    "actual": _actual, "forecast": _forecast, "burn_rate": _burn_rate, "anomaly": _anomaly, "unit_cost": _unit_cost,
    "freshness": _freshness, "unpriced": _unpriced,
}  # fmt: skip
"""How a rule of each kind looks."""


def _now(scope: Scope, rule: Rule, standing: Standing, value: Decimal, *, reliable: bool) -> Observation:
    """What is seen of the present period of a budget; a rolling one is no period of its own."""
    rolls = standing.budget.rolling_days is not None
    return Observation(
        rule=rule, scope=scope.name, start=None if rolls else standing.period.start,
        end=None if rolls else standing.period.end, terms=f"{_budget_terms(scope)}/{_rule_terms(rule)}", value=value,
        reliable=reliable,
    )  # fmt: skip


def _last_hours(rule: Rule, now: datetime) -> Period:
    """As many hours as a rule looks back, the one that is not over among them."""
    end = hour_after(now)
    return Period(end - timedelta(hours=rule.window_hours), end)


def with_standing(warehouse: Warehouse, tenant: str, one: Sighting, now: datetime) -> Sighting:
    """A sighting with how its budget stands, where it is about the present."""
    if one.standing is not None or one.scope.budget is None or one.period.end <= now:
        return one
    found = standings.standing(warehouse, tenant, one.scope.budget, now)
    return replace(one, standing=found) if isinstance(found, Standing) else one


def _terms(versions: Sequence[Budget]) -> list[int]:
    """For each version the first one since which the same is judged in the same way."""
    found = list[int]()
    for before, one in zip([None, *versions], versions, strict=False):
        same = before is not None and all(getattr(before, name) == getattr(one, name) for name in _SAME)
        found.append(found[-1] if same else one.version or 0)
    return found


def _budget_terms(scope: Scope) -> int:
    if scope.budget is None:
        return 0
    told = {one.version: at for one, at in zip(scope.versions, _terms(scope.versions), strict=True)}
    return told[scope.budget.version]


def _rule_terms(rule: Rule) -> str:
    floor = "" if rule.floor is None else f"{rule.floor:f}"
    return f"{rule.threshold:f}/{floor}/{rule.window_hours}"


def _named(filters: Sequence[Filter]) -> str:
    """Filters as a short text that is the same for the same ones."""
    if not filters:
        return ALL
    told = sorted(
        f"{one.dimension}{'!' if one.negated else ''}={','.join(sorted('-' if v is None else v for v in one.values))}"
        for one in filters
    )
    return ";".join(told)


def _times(span: timedelta, unit: timedelta) -> Decimal:
    """How many times longer a span is than another one."""
    return _DOWN.divide(Decimal(span // _INSTANT), Decimal(unit // _INSTANT)).quantize(Decimal("0.0001"), ROUND_DOWN)
