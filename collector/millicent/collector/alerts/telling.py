"""What an alert says: one line, the figures behind it, and what drove the spend; all of it JSON, amounts as text."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from millicent.collector.alerts.observing import ALL, NOTHING_LEFT
from millicent.warehouse import drivers
from millicent.warehouse.alerts import REASONS
from millicent.warehouse.instants import day_of, hour_after, text_of
from millicent.warehouse.query import BadQuery, Period
from millicent.warehouse.record import CHARGE, IDLE
from millicent.warehouse.repricings import told as filters_told
from millicent.warehouse.workspace import zone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from millicent.collector.alerts.observing import Scope, Sighting
    from millicent.warehouse.alerts import Alert, Reason
    from millicent.warehouse.drivers import Bridge, Mover
    from millicent.warehouse.standings import Ask, Standing

MOST_DRIVERS: Final = 5
DIMENSIONS: Final = ("team", "project", "feature", "model")
"""By which it is told who moved the spend; what a filter holds to one value is left out."""
OF_SPEND: Final = frozenset({"actual", "forecast", "burn_rate", "anomaly", "unit_cost"})
SIGNS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
SHARES: Final = frozenset({"actual", "forecast", "anomaly", "unpriced"})
_WEEK: Final = timedelta(days=7)
_TENTH: Final = Decimal("0.1")
_MILLIONTH: Final = Decimal("0.000001")
_SPOKEN: Final = {IDLE: "idle hardware", CHARGE: "charges", None: "unattributed"}

Told = dict[str, Any]


def fired(ask: Ask, sighting: Sighting, alert: Alert, now: datetime, *, through: datetime | None, base: str) -> Alert:
    """An alert with what it says.

    Args:
        ask: answers a query of its tenant.
        sighting: what was seen.
        alert: the alert, without summary and data.
        now: when it was seen.
        through: every call from before is stored; None where nobody knows.
        base: address of the pages, without a path; empty where nobody knows it.
    """
    summary = _fired(sighting, now)
    data = {
        "alert_id": alert.id, "dedup_key": alert.dedup_key, "severity": alert.severity, "status": alert.state,
        "opened_at": text_of(alert.opened_at), "late": alert.late, "summary": summary,
        **_figures(sighting, now), **_driven(ask, sighting, now),
        "data_complete_through": text_of(through),
        "links": {"dashboard": f"{base}/alerts?open={quote(f'alert?id={alert.id}', safe='')}",
                  "ack": f"{base}/api/v1/alerts/{alert.id}/acknowledge"},
    }  # fmt: skip
    return replace(alert, summary=summary, data=data)


def cleared(sighting: Sighting, alert: Alert, reason: Reason, now: datetime, through: datetime | None) -> Told:
    """What is said when an alert is taken back for what is seen: the figures of now, and why."""
    summary = _cleared(sighting, reason, now)
    return {**_over(alert, reason, summary), **_figures(sighting, now), "data_complete_through": text_of(through)}


def outlived(alert: Alert, reason: Reason) -> Told:
    """What is said when an alert is over for another reason than what is seen: its figures are those of before."""
    return _over(alert, reason, f"Over, as {REASONS[reason]}: {alert.summary}")


def money(amount: Decimal, currency: str) -> str:
    """An amount for people: cents where they matter, and parts of them where it is less than one whole."""
    size = abs(amount)
    told = f"{size:,.0f}" if size >= 100 else f"{size:,.2f}"
    if 0 < size < 1:
        whole, _, part = f"{size:.6f}".rstrip("0").partition(".")
        told = f"{whole}.{part:0<2}"
    sign = drivers.MINUS if amount < 0 else ""
    return f"{sign}{SIGNS[currency]}{told}" if currency in SIGNS else f"{sign}{currency} {told}"


def percent(share: Decimal) -> str:
    """A share for people, never rounded up."""
    size = share * 100
    return f"{size.quantize(Decimal(1) if size >= 10 else _TENTH, ROUND_DOWN):,f}%"


def subject(scope: Scope) -> str:
    """What spend it is about, in words."""
    if scope.budget is not None:
        return scope.budget.name
    return "all calls" if scope.name == ALL else scope.name


# ---- in one line


def _fired(sighting: Sighting, now: datetime) -> str:
    return _LINES[sighting.seen.rule.kind](sighting, now)


def _cleared(sighting: Sighting, reason: Reason, now: datetime) -> str:
    return f"{_LINES[sighting.seen.rule.kind](sighting, now)}. Over, as {REASONS[reason]}"


def _actual(one: Sighting, now: datetime) -> str:
    spent, limit = (money(amount or Decimal(0), one.scope.currency) for amount in (one.amount, one.limit))
    share = "all and more" if one.seen.value == NOTHING_LEFT else percent(one.seen.value or Decimal(0))
    verb = "has spent" if one.period.end > now else "spent"
    return f"{subject(one.scope)} {verb} {share} of its limit: {spent} of {limit} in {_period(one)}"


def _forecast(one: Sighting, now: datetime) -> str:  # noqa: ARG001 - as all lines
    forecast = one.standing.forecast if one.standing else None
    expected, limit = (
        money(amount or Decimal(0), one.scope.currency) for amount in (forecast and forecast.p50_usd, one.limit)
    )
    share = "all and more" if one.seen.value == NOTHING_LEFT else percent(one.seen.value or Decimal(0))
    return f"{subject(one.scope)} is expected to spend {share} of its limit: {expected} of {limit} in {_period(one)}"


def _burn_rate(one: Sighting, now: datetime) -> str:  # noqa: ARG001 - as all lines
    spent = money(one.amount or Decimal(0), one.scope.currency)
    return f"{subject(one.scope)} spends {_times(one)}× its even pace: {spent} in the last {_hours(one)}"


def _anomaly(one: Sighting, now: datetime) -> str:  # noqa: ARG001 - as all lines
    name, day = subject(one.scope), _period(one)
    if one.amount is None:
        return f"{name}: {day} is in line with the same weekday before"
    expected = money(one.more["expected"], one.scope.currency)
    more = f"{percent(one.seen.value or Decimal(0))} more than" if one.seen.value != NOTHING_LEFT else "instead of"
    return f"{name} cost {money(one.amount, one.scope.currency)} on {day}, {more} the usual {expected}"


def _unit_cost(one: Sighting, now: datetime) -> str:  # noqa: ARG001 - as all lines
    each = money(one.seen.value or Decimal(0), one.scope.currency)
    threshold = money(one.seen.rule.threshold, one.scope.currency)
    told = f"A million tokens of {subject(one.scope)} cost {each} in the last {_hours(one)}"
    return f"{told} (threshold {threshold})"


def _freshness(one: Sighting, now: datetime) -> str:
    silent = max(Decimal(0), Decimal(round((now - one.more["last_call_before"]) / timedelta(hours=1), 1)))
    told = f"{subject(one.scope)}: no call has come for {silent:.1f} hours"
    return f"{told}; until now they never stayed away for more than {one.more['usual_hours']:.1f}"


def _unpriced(one: Sighting, now: datetime) -> str:  # noqa: ARG001 - as all lines
    of, calls = one.more["unknown_calls"], one.more["calls"]
    share = percent(one.seen.value or Decimal(0))
    when = f"the last {_hours(one)}" if one.seen.rule.window_hours else _period(one)
    return f"{subject(one.scope)}: {share} of the calls are of unknown cost, {of:,} of {calls:,} in {when}"


_LINES: Final = {
    "actual": _actual, "forecast": _forecast, "burn_rate": _burn_rate, "anomaly": _anomaly, "unit_cost": _unit_cost,
    "freshness": _freshness, "unpriced": _unpriced,
}  # fmt: skip


def _times(one: Sighting) -> str:
    return f"{(one.seen.value or Decimal(0)).quantize(_TENTH, ROUND_DOWN):,f}"


def _hours(one: Sighting) -> str:
    hours = one.seen.rule.window_hours
    return "hour" if hours == 1 else f"{hours} hours"


def _period(one: Sighting) -> str:
    """A period as people call it, in its own time zone."""
    place = zone(one.scope.time_zone)
    first, last = day_of(one.period.start, place), day_of(one.period.end - timedelta(microseconds=1), place)
    if first == last:
        return f"{first.day} {first:%B %Y}"
    whole_month = first.day == 1 and (last + timedelta(days=1)).day == 1
    if whole_month and (first.year, first.month) == (last.year, last.month):
        return f"{first:%B %Y}"
    year = "" if first.year == last.year else f" {first.year}"
    return f"{first.day} {first:%b}{year} to {last.day} {last:%b %Y}"


# ---- in figures


def _figures(one: Sighting, now: datetime) -> Told:
    rule, scope, standing = one.seen.rule, one.scope, one.standing
    value = one.seen.value
    told: Told = {
        "rule": {"id": rule.id, "name": rule.name, "kind": rule.kind, "severity": rule.severity},
        "scope": scope.name,
        "period": _when(one.period, scope, now),
        "currency": scope.currency,
        "value": None if value is None else _number(value),
        "threshold": {"basis": rule.kind, _unit(rule.kind): _number(rule.threshold)},
        "incomplete": list(one.incomplete),
    }
    if scope.budget is not None:
        budget = scope.budget
        told["budget"] = {
            "id": budget.id, "name": budget.name, "version": budget.version, "owner": budget.owner,
            "scope": filters_told(budget.filters), "period": budget.period,
        }  # fmt: skip
    else:
        told["filters"] = filters_told(scope.filters)
    for name, amount in (("limit", one.limit), ("actual", one.amount)):
        if amount is not None:
            told[name] = _number(amount)
    if standing is not None:
        told |= _present(standing)
    return told | {name: _plain(value) for name, value in one.more.items()}


def _present(standing: Standing) -> Told:
    """How the budget stands beside what is told."""
    told: Told = {"run_out_date": standing.run_out_date.isoformat() if standing.run_out_date else None}
    ahead = standing.forecast
    if ahead is not None:
        told["forecast"] = {
            name: None if amount is None else _number(amount)
            for name, amount in (("p10", ahead.p10_usd), ("p50", ahead.p50_usd), ("p90", ahead.p90_usd))
        } | {"method": ahead.method}
    return told


def _when(period: Period, scope: Scope, now: datetime) -> Told:
    place = zone(scope.time_zone)
    passed = min(max((now - period.start) / (period.end - period.start), 0), 1)
    return {
        "start": period.start.astimezone(place).isoformat(), "end": period.end.astimezone(place).isoformat(),
        "timezone": scope.time_zone, "elapsed_ratio": f"{passed:.4f}",
    }  # fmt: skip


def _over(alert: Alert, reason: Reason, summary: str) -> Told:
    return {**alert.data, "status": "resolved", "reason": reason, "reason_text": REASONS[reason], "summary": summary}


def _unit(kind: str) -> str:
    """What a threshold is in."""
    return "ratio" if kind in SHARES else "amount" if kind == "unit_cost" else "multiple"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return _number(value)
    return text_of(value) if isinstance(value, datetime) else value


def _number(value: Decimal) -> str:
    """A decimal as text, to a millionth, without zeros that say nothing; never rounded up."""
    told = f"{value.quantize(_MILLIONTH, ROUND_DOWN):f}" if abs(value) < Decimal("1e18") else f"{value:f}"
    return told.rstrip("0").rstrip(".") if "." in told else told


# ---- what drove it


def _driven(ask: Ask, one: Sighting, now: datetime) -> Told:
    """Who moved the spend since a time before, and how, in a sentence and by name; nothing where that is not known."""
    if one.seen.rule.kind not in OF_SPEND:
        return {}
    period = Period(one.period.start, max(min(one.period.end, hour_after(now)), one.period.start + timedelta(hours=1)))
    prior, query = _before(one, period), one.scope.query(("spend_usd",), period)
    fixed = {each.dimension for each in one.scope.filters if not each.negated and len(each.values) == 1}
    try:
        found = drivers.movers(ask, query, prior, [name for name in DIMENSIONS if name not in fixed])
        bridge = drivers.bridge(ask, query, prior)
    except BadQuery:
        return {}
    if not bridge.delta_usd:
        return {}
    found = [each for each in found if _divides(each.dimension, found)]
    spoken = [replace(each, value=_SPOKEN.get(each.value, each.value)) for each in found]
    callers = [each for each in found if each.value not in {IDLE, CHARGE}]
    said = drivers.sentence(callers, bridge, lambda amount: money(amount, one.scope.currency))
    rising = [each for each in spoken if each.delta_usd and (each.delta_usd > 0) == (bridge.delta_usd > 0)]
    return {
        "driver": f"{said.removesuffix('.')}, against {_compared(prior, one.scope)}.",
        "compared_with": _when(prior, one.scope, now),
        "top_drivers": list(_top(rising, bridge)),
    }  # fmt: skip


def _divides(dimension: str, found: Sequence[Mover]) -> bool:
    """Whether a dimension tells callers apart."""
    callers = {each.value for each in found if each.dimension == dimension} - {IDLE, CHARGE}
    return len(callers) > 1


def _top(found: Sequence[Mover], bridge: Bridge) -> Iterator[Told]:
    effects = {
        (part.dimension, part.value): effect.words for effect in reversed(bridge.effects) for part in effect.parts
    }
    for one in found[:MOST_DRIVERS]:
        was = one.before_usd or Decimal(0)
        yield {
            "dimension": one.dimension, "value": one.value, "delta_amount": _number(one.delta_usd),
            "delta_ratio": _number(one.delta_usd / was) if was > 0 else None,
            "reason": effects.get((one.dimension, one.value)),
        }  # fmt: skip


def _before(one: Sighting, period: Period) -> Period:
    """What a period is compared with: as much of the one before it, or the same hours a week earlier."""
    length, budget = period.end - period.start, one.scope.budget
    if one.seen.rule.kind not in {"actual", "forecast"} or budget is None:
        return Period(period.start - _WEEK, period.end - _WEEK)
    if budget.rolling_days is not None:
        return Period(period.start - length, period.start)
    start = budget.period_at(period.start - timedelta(microseconds=1)).start
    return Period(start, min(start + length, period.start))


def _compared(prior: Period, scope: Scope) -> str:
    place = zone(scope.time_zone)
    first, last = day_of(prior.start, place), day_of(prior.end - timedelta(microseconds=1), place)
    return f"{first.day} {first:%b}" if first == last else f"{first.day} {first:%b} to {last.day} {last:%b}"
