"""The job that judges every rule: what it sees, what follows, and what is told of it, in one transaction.

Facts are read first, without a lock. Then, while nobody else writes to the control plane, judgements, alerts and the
events that tell of them are stored together: a crash leaves all of them or none, and the next turn sees the same again.
When several thresholds of one budget are crossed at once, the highest is told, and stands for the others. To find out
who drove the spend takes a while: what is more than a look can tell is left for the next.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from weakref import WeakKeyDictionary

import structlog
from sqlalchemy import Connection, func, select

from millicent.collector.alerts import telling
from millicent.collector.alerts.observing import LOOKED_BACK, Sighting, scope_of, sightings, with_standing
from millicent.warehouse import alert_rules, alert_states, alerts, budgets
from millicent.warehouse.alert_rules import Kind, Rule
from millicent.warehouse.alert_states import NO_PERIOD, Judgement, Key, Observation, Transition
from millicent.warehouse.alerts import Alert
from millicent.warehouse.control import audit
from millicent.warehouse.instants import text_of
from millicent.warehouse.query import EARLIEST, LATEST
from millicent.warehouse.store import Warehouse

if TYPE_CHECKING:
    from millicent.warehouse.alerts import Reason
    from millicent.warehouse.repricings import Repricing

log = structlog.get_logger("millicent.alerts")

FORGOTTEN: Final = 2 * LOOKED_BACK
"""How long after the start of a period nothing of it is looked at any more."""
AT_ONCE: Final = frozenset({"actual", "forecast"})
"""Kinds of which only the highest threshold is told that is crossed at once with others."""
KINDS: Final = get_args(Kind)
MOST_TOLD: Final = 20
"""Alerts that fire at one look."""
AT_ANY_CALL: Final[tuple[Kind, ...]] = ("actual",)
"""Kinds that are judged whenever facts change; the others take longer to compute, and are judged once a minute."""


@dataclass(frozen=True, slots=True)
class Happened:
    """An alert that fired or was taken back."""

    what: Literal["fired", "cleared"]
    alert: Alert


@dataclass(slots=True)
class _Known:
    """What a tenant's rules, alerts and judgements are."""

    rules: dict[int | None, Rule]
    judged: dict[Key, Judgement]
    last: dict[Key, Alert]


@dataclass(slots=True)
class _Found:
    """What follows from one look: judgements to keep, alerts that fire, and those that are over, each with why."""

    judgements: dict[Key, Judgement] = field(default_factory=dict)
    fires: list[tuple[Sighting, Transition]] = field(default_factory=list)
    clears: list[tuple[Sighting | None, Alert, Reason]] = field(default_factory=list)
    more: bool = False


@dataclass(slots=True)
class Memory:
    """What is known of a tenant between looks, so that a look only does what has changed; empty for a first one.

    Attributes:
        judged: every judgement that is stored; None until it is read.
        settled: what was seen when nothing followed from it, and nothing will while it is seen again.
        more: whether alerts were left for the next look.
    """

    judged: dict[Key, Judgement] | None = None
    settled: dict[Key, Observation] = field(default_factory=dict)
    more: bool = False


@dataclass(slots=True)
class _Turn:
    """What an evaluator knows of a tenant: when it looked last, and what of that it can use."""

    seen: tuple[Any, ...] = ()
    memory: Memory = field(default_factory=Memory)


class Evaluator:
    """Judges the rules of every tenant, as often as it is asked, and does little where nothing can have changed.

    Args:
        base: address of the pages, such as `https://costs.example.com`, for links in what is told.
    """

    def __init__(self, base: str = "") -> None:
        self._base = base.rstrip("/")
        self._turns: WeakKeyDictionary[Warehouse, dict[str, _Turn]] = WeakKeyDictionary()

    def run(self, warehouse: Warehouse, now: datetime) -> int:
        """Judge every rule that may judge otherwise than before; returns how many alerts fired or were taken back.

        What fails for one tenant is logged, and tried again at the next turn.
        """
        turns = self._turns.setdefault(warehouse, {})
        done = 0
        for tenant in _tenants(warehouse):
            seen, turn = _revision(warehouse, now), turns.setdefault(tenant, _Turn())
            if seen[-1] is not None and turn.seen == seen and not turn.memory.more:
                continue
            kinds = AT_ANY_CALL if turn.seen[:-1] == seen[:-1] and not turn.memory.more else KINDS
            try:
                done += len(evaluate(warehouse, tenant, now, kinds=kinds, base=self._base, memory=turn.memory))
            except Exception as error:
                log.exception("rules not judged", tenant=tenant, error=repr(error))
                del turns[tenant]
            else:
                turn.seen = seen
        return done


def evaluate(
    warehouse: Warehouse, tenant: str, now: datetime, *, kinds: Collection[Kind] = KINDS, base: str = "",
    memory: Memory | None = None,
) -> list[Happened]:  # fmt: skip
    """Judge the rules of a tenant at an instant, and store what follows.

    Args:
        warehouse: the warehouse.
        tenant: whose rules.
        now: the instant; never before one at which they were judged.
        kinds: of the rules that are judged.
        base: address of the pages, without a slash at its end; empty: links have none.
        memory: what looks before have found, where nobody else judges the tenant; it is brought up to date.

    Raises:
        EngineError: the facts could not be read; nothing was stored.
    """
    memory = memory or Memory()
    known = _known(warehouse, tenant, now, memory)
    seen = sightings(warehouse, tenant, [one for one in known.rules.values() if one.kind in kinds], now)
    live = {one.id or 0 for one in budgets.live(warehouse.control, tenant, now)}
    found = _judged(seen, known, live, warehouse.control.repricings(tenant), memory.settled, now)
    memory.more = found.more
    if not (found.judgements or found.fires or found.clears):
        return []
    fired = [(_alert(warehouse, tenant, one, made, now, base), made) for one, made in found.fires]
    with warehouse.control.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        rules = {one.id: one for one in alert_rules.stored(connection, tenant)}
        done = list(_cleared(connection, tenant, found.clears, rules, now, warehouse.complete_through))
        for alert, made in fired:
            rule = rules[alert.rule]
            if rule.ended or rule.terms != known.rules[alert.rule].terms:  # somebody changed it meanwhile: look again
                found.judgements.pop(_key(alert), None)
                continue
            done += _fired(connection, tenant, alert, rule, made, now)
        alert_states.keep(connection, tenant, found.judgements.values())
    known.judged.update(found.judgements)
    return done


def _tenants(warehouse: Warehouse) -> list[str]:
    """Those that have a rule or an open alert."""
    c = alert_rules.alert_rules.c
    with warehouse.control.begin() as connection:
        ruled = connection.execute(select(c.tenant).where(~c.ended).distinct()).scalars()
        return sorted({*ruled, *alerts.tenants_with_open(connection)})


def _revision(warehouse: Warehouse, now: datetime) -> tuple[Any, ...]:
    """What changes when the minute, settings or facts do; its last is None while facts may be changing."""
    with warehouse.control.begin() as connection:
        changes = connection.execute(select(func.max(audit.c.id))).scalar_one()
    return now.replace(second=0, microsecond=0), changes, warehouse.engine.revisions.stamp(EARLIEST, LATEST)


def _known(warehouse: Warehouse, tenant: str, now: datetime, memory: Memory) -> _Known:
    with warehouse.control.begin() as connection:
        rules = {one.id: one for one in alert_rules.stored(connection, tenant) if not one.ended}
        last = alerts.latest(connection, tenant, now - LOOKED_BACK)
        if memory.judged is None:
            alert_states.forget(connection, tenant, now - FORGOTTEN)
            memory.judged = alert_states.judged(connection, tenant)
    by_key = {(rule, scope, start or NO_PERIOD): alert for (rule, scope, start), alert in last.items()}
    return _Known(rules, memory.judged, by_key)


def _judged(
    seen: Sequence[Sighting], known: _Known, live: set[int], runs: Sequence[Repricing],
    settled: dict[Key, Observation], now: datetime,
) -> _Found:  # fmt: skip
    """What follows from what is seen."""
    found, acted = _Found(), set[str]()
    for one in seen:
        key = one.seen.key
        before = known.judged.get(key)
        again = before is not None and any(_touches(run, one, before) for run in runs)
        if not again and settled.get(key) == one.seen:
            continue
        last = known.last.get(key)
        made = alert_states.step(before, last, replace(one.seen, repriced=True) if again else one.seen, now)
        after = made.judgement
        if after is not None and (before is None or again or _said(after) != _said(before)):
            found.judgements[key] = after
        settled.pop(key, None)
        if made.act == "fire":
            found.fires.append((one, made))
        elif made.act == "clear" and last is not None and made.reason is not None:
            found.clears.append((one, last, made.reason))
            acted.add(last.id)
        elif after is not None and after.held_until is None and not again:
            settled[key] = one.seen
    for alert in known.last.values():
        rule = known.rules.get(alert.rule)
        if alert.is_open and alert.id not in acted and (reason := _outlived(alert, rule, live, now)):
            found.clears.append((None, alert, reason))
    _choose(found, now)
    return found


def _touches(run: Repricing, one: Sighting, before: Judgement) -> bool:
    """Whether a run may have changed prices of a period since it was judged."""
    since = run.finished_at is None or run.finished_at > before.judged_at
    return since and run.start < one.period.end and run.end > one.period.start


def _said(judgement: Judgement) -> tuple[Any, ...]:
    return judgement.terms, judgement.above, judgement.held_until


def _outlived(alert: Alert, rule: Rule | None, live: set[int], now: datetime) -> Reason | None:
    reason = alert_states.outlived(alert, rule, live, now)
    return "rule_changed" if reason is None and rule is not None and scope_of(rule) != alert.scope else reason


def _choose(found: _Found, now: datetime) -> None:
    """Of thresholds that one budget crosses at once, keep the highest of those that tell the same people.

    What is too much for one look is left, as if none of it had been judged.
    """
    groups = defaultdict[Any, list[tuple[Sighting, Transition]]](list)
    for one, made in sorted(found.fires, key=lambda fire: fire[0].seen.rule.threshold):
        rule = one.seen.rule
        apart = None if rule.kind in AT_ONCE else rule.id
        heard = frozenset(rule.endpoints), rule.is_muted(now)
        groups[rule.kind, one.seen.scope, one.seen.start, apart, heard].append((one, made))
    chosen, left = list(groups.values())[:MOST_TOLD], list(groups.values())[MOST_TOLD:]
    found.fires = [fires[-1] for fires in chosen]
    found.more = bool(left)
    for one, _ in chain.from_iterable(left):
        found.judgements.pop(one.seen.key, None)


def _alert(
    warehouse: Warehouse, tenant: str, one: Sighting, made: Transition, now: datetime, base: str
) -> Alert:  # fmt: skip
    seen, rule = one.seen, one.seen.rule
    start = text_of(seen.start) or "-"
    alert = Alert(
        id=f"al_{uuid.uuid4().hex}", rule=rule.id or 0, budget=rule.budget, scope=seen.scope, period_start=seen.start,
        period_end=seen.end, dedup_key=f"{rule.budget or '-'}|{rule.id}|{start}", state="firing",
        severity=rule.severity, late=made.late, told=True, opened_at=now, changed_at=now, summary="", data={},
    )  # fmt: skip
    return telling.fired(
        lambda query: warehouse.ask(tenant, query).frame, with_standing(warehouse, tenant, one, now), alert, now,
        through=warehouse.complete_through, base=base,
    )  # fmt: skip


def _key(alert: Alert) -> Key:
    return alert.rule, alert.scope, alert.period_start or NO_PERIOD


def _fired(
    connection: Connection, tenant: str, alert: Alert, rule: Rule, made: Transition, now: datetime
) -> Iterator[Happened]:  # fmt: skip
    """Store an alert that fires; one that is open yet of the same key is over without a word, as this one follows."""
    before = alerts.open_of(connection, tenant, alert.dedup_key)
    if before is not None and made.reason is not None:
        data = telling.outlived(before, made.reason)
        alerts.clear(connection, tenant, before, rule.kind, made.reason, data, now, (), heard=False)
    told = replace(alert, told=not rule.is_muted(now))
    alerts.fire(connection, tenant, told, rule.kind, rule.endpoints)
    yield Happened("fired", told)


def _cleared(
    connection: Connection, tenant: str, clears: Sequence[tuple[Sighting | None, Alert, Reason]],
    rules: dict[int | None, Rule], now: datetime, through: datetime | None,
) -> Iterator[Happened]:  # fmt: skip
    """Store that alerts are over; one that somebody has resolved meanwhile is left as it is."""
    for one, was, reason in clears:
        alert, rule = alerts.found(connection, tenant, was.id), rules[was.rule]
        if alert is None or (alert.state, alert.reason) not in {
            ("firing", None), ("acknowledged", None), ("resolved", "period_over")
        }:  # fmt: skip
            continue
        data = telling.cleared(one, alert, reason, now, through) if one else telling.outlived(alert, reason)
        yield Happened("cleared", alerts.clear(connection, tenant, alert, rule.kind, reason, data, now, rule.endpoints))
