"""The life of an alert as a pure function: from what is seen of a rule, a scope and a period to what follows.

What follows is that an alert fires, that it is taken back, or nothing.

What is at or above its threshold fires once. It fires again when it has re-armed: the terms of its budget or rule have
changed, or it has been 5 points below (a twentieth, where a threshold is no share of a limit). What was spent is taken
back as soon as it is below its threshold; should it rise again before it has re-armed, that is told when the cooldown
since the first telling is over. What is missing can only add to what was spent: so nothing below its threshold is taken
back while something is missing, and what would need all of it (a forecast, say) is not judged at all.

A period that is over when it is first seen fires nothing, unless its rule was there before it ended: it is what later
changes are compared with. Whatever fires an hour or more after the end of its period is late; an odd day is when a day
in line has followed already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Boolean, Column, Connection, Integer, String, Table, and_, delete, insert, select

from millicent.warehouse.instants import Instant
from millicent.warehouse.quality import LATE
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.alerts import Alert, Reason

NO_PERIOD: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for the start of a period where a rule is about none."""
ANOMALIES_FOR: Final = timedelta(days=14)
"""How long after a day out of line its alert is over, should no day in line have followed."""
Key = tuple[int, str, datetime]
"""A rule, a scope, and the start of a period."""

alert_judgements: Final = Table(
    "alert_judgements", metadata,
    Column("tenant", String, primary_key=True), Column("rule", Integer, primary_key=True),
    Column("scope", String, primary_key=True), Column("period_start", Instant, primary_key=True),
    Column("terms", String, nullable=False), Column("above", Boolean, nullable=False),
    Column("held_until", Instant), Column("value", String, nullable=False),
    Column("judged_at", Instant, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is seen of a rule, a scope and a period at an instant.

    Attributes:
        rule: the one that judges.
        scope: what spend it is about, as an alert has it.
        start: of its period, with `end`; None where it is about no period.
        terms: all that it is judged by; what is before the first `/` is the budget's part.
        value: what is compared with the threshold; None where it cannot be told.
        size: what is compared with the floor, where the rule has one.
        complete: whether the cost of every call in it is known.
        reliable: whether a value that needs all of it may be judged.
        continues: whether it goes on what another period of the same rule and scope has fired for already.
        in_line: whether what it tells has passed by itself, and it is over.
        repriced: whether calls of it have been priced again since it was judged.
    """

    rule: Rule
    scope: str
    start: datetime | None = None
    end: datetime | None = None
    terms: str = "0/"
    value: Decimal | None
    size: Decimal | None = None
    complete: bool = True
    reliable: bool = True
    continues: bool = False
    in_line: bool = False
    repriced: bool = False

    @property
    def key(self) -> Key:
        """What is judged once."""
        return self.rule.id or 0, self.scope, self.start or NO_PERIOD

    @property
    def level(self) -> Decimal:
        """The value, or nothing where its floor is not reached."""
        floor = self.rule.floor
        if self.value is None or (floor is not None and self.size is not None and self.size < floor):
            return Decimal(0)
        return self.value

    def is_over(self, at: datetime) -> bool:
        """Whether its period is over at an instant."""
        return self.end is not None and self.end <= at


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was made of a rule, a scope and a period.

    Attributes:
        key: of which.
        terms: as `Observation.terms` were.
        above: whether it counts as crossed; not any more once it has re-armed.
        held_until: it was taken back, but has not re-armed: if it crosses again, it is told from then on. None while
            it is not, or where it is not told again before it has re-armed.
        value: what was compared, as text; empty where it could not be told.
        judged_at: when it last was another judgement than before, or came after calls were priced again.
    """

    key: Key
    terms: str
    above: bool
    held_until: datetime | None
    value: str
    judged_at: datetime


@dataclass(frozen=True, slots=True)
class Transition:
    """What follows from an observation.

    Attributes:
        judgement: what is to be known from now on; None where there is nothing to judge.
        act: whether an alert fires, or the last one is taken back.
        reason: why it is taken back; of one that fires, why the alert before it is over, should it be open.
        late: whether what fires is late.
    """

    judgement: Judgement | None
    act: Literal["none", "fire", "clear"] = "none"
    reason: Reason | None = None
    late: bool = False


def step(before: Judgement | None, last: Alert | None, seen: Observation, now: datetime) -> Transition:
    """What follows from what is seen.

    Args:
        before: what is known of its key; None where it is seen for the first time.
        last: the newest alert of its key, be it open or resolved.
        seen: what is seen.
        now: when.
    """
    if seen.value is None or not seen.reliable:
        return Transition(before)
    crossed = seen.level >= seen.rule.threshold
    changed = before is not None and before.terms != seen.terms
    found = Judgement(key=seen.key, terms=seen.terms, above=False, held_until=None, value=f"{seen.value:.6f}",
                      judged_at=now)  # fmt: skip
    if (before is None or changed) and seen.is_over(now) and _changed(seen.rule) >= (seen.end or now):
        return _unheard(replace(found, above=crossed), last, seen)
    if before is None or changed:
        return _anew(before, found, last, seen, now)
    found = replace(found, above=before.above, held_until=before.held_until)
    return _crossed(found, last, seen, now) if crossed else _below(found, last, seen)


def outlived(alert: Alert, rule: Rule | None, live: Iterable[int], now: datetime) -> Reason | None:
    """Why an open alert is over, whatever is seen; None where it is not.

    Args:
        alert: the alert.
        rule: its rule, if there is one that holds.
        live: ids of the budgets that hold.
        now: when.
    """
    if alert.budget is not None and alert.budget not in live:
        return "budget_ended"
    if rule is None:
        return "rule_ended"
    after = ANOMALIES_FOR if rule.kind == "anomaly" else timedelta()
    over = alert.period_end is not None and alert.period_end + after <= now
    return "period_over" if over and not alert.late else None


def judged(connection: Connection, tenant: str) -> dict[Key, Judgement]:
    """Everything that is known of a tenant's rules."""
    c = alert_judgements.c
    rows = connection.execute(select(alert_judgements).where(c.tenant == tenant)).all()
    found = (
        Judgement(key=(row.rule, row.scope, row.period_start), terms=row.terms, above=row.above,
                  held_until=row.held_until, value=row.value, judged_at=row.judged_at)
        for row in rows
    )  # fmt: skip
    return {one.key: one for one in found}


def keep(connection: Connection, tenant: str, found: Iterable[Judgement]) -> None:
    """Store judgements, each in place of what was known of its key."""
    rows = [
        {
            "tenant": tenant, "rule": one.key[0], "scope": one.key[1], "period_start": one.key[2], "terms": one.terms,
            "above": one.above, "held_until": one.held_until, "value": one.value, "judged_at": one.judged_at,
        }
        for one in found
    ]  # fmt: skip
    if rows:
        connection.execute(insert(alert_judgements).prefix_with("OR REPLACE"), rows)


def forget(connection: Connection, tenant: str, before: datetime) -> None:
    """Drop what is known of periods that began before an instant."""
    c = alert_judgements.c
    old = and_(c.tenant == tenant, c.period_start < before, c.period_start != NO_PERIOD)
    connection.execute(delete(alert_judgements).where(old))


def _unheard(found: Judgement, last: Alert | None, seen: Observation) -> Transition:
    """A period that was over before its rule judged so: it is only taken note of."""
    if last is not None and last.is_open and not found.above and seen.complete:
        return Transition(found, "clear", _why_changed(None, seen))
    return Transition(found)


def _anew(
    before: Judgement | None, found: Judgement, last: Alert | None, seen: Observation, now: datetime
) -> Transition:  # fmt: skip
    """First seen, or judged by other terms: armed."""
    if seen.level >= seen.rule.threshold:
        return _fire(found, seen, now, _why_changed(before, seen))
    if last is not None and last.is_open:
        return Transition(found, "clear", _why_changed(before, seen)) if seen.complete else Transition(before)
    return Transition(found)


def _crossed(found: Judgement, last: Alert | None, seen: Observation, now: datetime) -> Transition:
    is_open = last is not None and last.is_open
    if not found.above or (not is_open and found.held_until is not None and now >= found.held_until):
        return _fire(found, seen, now, "corrected")
    if is_open and seen.in_line and last is not None and not last.late:
        return Transition(found, "clear", "in_line")
    return Transition(found)


def _below(found: Judgement, last: Alert | None, seen: Observation) -> Transition:
    if not seen.complete or seen.level >= seen.rule.cleared_below:
        return Transition(found)
    rearmed = seen.level < seen.rule.rearmed_below
    undone = last is not None and (last.is_open or (found.above and last.reason == "period_over"))
    held = found.held_until
    if undone and last is not None:
        held = last.opened_at + timedelta(hours=seen.rule.cooldown_hours)
    found = replace(found, above=found.above and not rearmed, held_until=None if rearmed else held)
    if not undone:
        return Transition(found)
    corrected = seen.rule.kind in {"actual", "anomaly"} and seen.start is not None
    return Transition(found, "clear", "repriced" if seen.repriced else "corrected" if corrected else "fell")


def _fire(found: Judgement, seen: Observation, now: datetime, reason: Reason) -> Transition:
    found = replace(found, above=True, held_until=None)
    if seen.continues:
        return Transition(found)
    late = seen.in_line if seen.rule.kind == "anomaly" else seen.end is not None and now - seen.end >= LATE
    return Transition(found, "fire", reason, late)


def _why_changed(before: Judgement | None, seen: Observation) -> Reason:
    same_budget = before is None or before.terms.partition("/")[0] == seen.terms.partition("/")[0]
    return "rule_changed" if same_budget else "budget_changed"


def _changed(rule: Rule) -> datetime:
    return rule.changed_at or NO_PERIOD
