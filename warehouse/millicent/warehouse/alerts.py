"""Alerts: what was found to have crossed the threshold of a rule, once for each rule, scope and period.

An alert fires, may be acknowledged or put off by somebody, and is resolved: because what it tells is no longer so,
because its period is over, or by hand. Putting it off or muting its rule changes who hears of it, never its state.
What is written here commits with the event that tells of it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from sqlalchemy import JSON, Boolean, Column, Connection, Integer, String, Table, and_, func, or_, select, update

from millicent.warehouse import outbox
from millicent.warehouse.instants import Instant
from millicent.warehouse.rules import metadata

if TYPE_CHECKING:
    from millicent.warehouse.alert_rules import Kind, Severity
    from millicent.warehouse.control import Change, Control

State = Literal["firing", "acknowledged", "resolved"]
Reason = Literal[
    "repriced", "corrected", "fell", "in_line", "period_over", "budget_changed", "rule_changed", "budget_ended",
    "rule_ended", "person",
]  # fmt: skip
REASONS: Final[dict[Reason, str]] = {
    "repriced": "calls were priced again",
    "corrected": "late data, a charge or a credit brought it down",
    "fell": "it is back below its threshold",
    "in_line": "the day after was in line again",
    "period_over": "its period is over",
    "budget_changed": "the budget was changed",
    "rule_changed": "the rule was changed",
    "budget_ended": "the budget has ended",
    "rule_ended": "the rule has ended",
    "person": "somebody resolved it",
}
"""Why an alert is resolved."""
EVENTS: Final[dict[Kind, tuple[str, str]]] = {
    "actual": ("budget.threshold.crossed", "budget.threshold.cleared"),
    "forecast": ("budget.forecast.exceeded", "budget.forecast.cleared"),
    "burn_rate": ("budget.burn_rate.exceeded", "budget.burn_rate.cleared"),
    "anomaly": ("cost.anomaly.opened", "cost.anomaly.closed"),
    "unit_cost": ("unit_cost.threshold.crossed", "unit_cost.threshold.cleared"),
    "freshness": ("data.freshness.stale", "data.freshness.recovered"),
    "unpriced": ("pricing.unpriced_usage.detected", "pricing.unpriced_usage.cleared"),
}
"""Type of the event that tells of an alert of each kind, and of the one that takes it back."""
MOST: Final = 200
"""Alerts on a page of the inbox."""
LONGEST_SNOOZE: Final = timedelta(days=31)

alerts: Final = Table(
    "alerts", metadata,
    Column("id", String, primary_key=True), Column("tenant", String, nullable=False),
    Column("rule", Integer, nullable=False), Column("budget", Integer), Column("scope", String, nullable=False),
    Column("period_start", Instant), Column("period_end", Instant), Column("dedup_key", String, nullable=False),
    Column("state", String, nullable=False), Column("severity", String, nullable=False),
    Column("late", Boolean, nullable=False), Column("told", Boolean, nullable=False),
    Column("opened_at", Instant, nullable=False), Column("changed_at", Instant, nullable=False),
    Column("acknowledged_at", Instant), Column("acknowledged_by", String), Column("snoozed_until", Instant),
    Column("resolved_at", Instant), Column("reason", String), Column("summary", String, nullable=False),
    Column("data", JSON, nullable=False),
)  # fmt: skip


class BadAlertError(ValueError):
    """Something that cannot be done to an alert; the message names it, the rule and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What was found. Instants are UTC.

    Attributes:
        id: `al_` and 32 hex digits.
        rule: id of its rule.
        budget: id of the budget that it is about, if any.
        scope: what spend it is about: `budget:7`, `all`, or filters as text.
        period_start: of the period that it is about, with `period_end`; None where it is about no period.
        dedup_key: the same for all that one rule finds of one scope and period.
        state: whether anybody has seen to it, and whether it is over.
        late: whether it was found an hour or more after its period was over.
        told: whether endpoints were told of it; what was found while its rule was muted is in the inbox alone.
        acknowledged_by: who has seen to it.
        snoozed_until: until then the inbox leaves it out, unless asked.
        reason: why it is resolved; see `REASONS`.
        summary: one line of text.
        data: as the last event told it; see the reference of events.
    """

    id: str
    rule: int
    budget: int | None
    scope: str
    period_start: datetime | None
    period_end: datetime | None
    dedup_key: str
    state: State
    severity: Severity
    late: bool
    told: bool
    opened_at: datetime
    changed_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    snoozed_until: datetime | None = None
    resolved_at: datetime | None = None
    reason: Reason | None = None
    summary: str
    data: dict[str, Any]

    @property
    def is_open(self) -> bool:
        """Whether it is not resolved."""
        return self.state != "resolved"

    def is_snoozed(self, at: datetime) -> bool:
        """Whether somebody has put it off until after an instant."""
        return self.is_open and self.snoozed_until is not None and at < self.snoozed_until


@dataclass(frozen=True, slots=True)
class Happening:
    """Something in the life of an alert: when, what (`fired`, `cleared`, `acknowledge`, `snooze`, `resolve`), by whom.

    `event` is the id of the event that told of it, if one did.
    """

    at: datetime
    what: str
    who: str | None
    words: str
    event: str | None = None


def inbox(
    control: Control, tenant: str, *, states: Collection[State] = (), rule: int | None = None,
    budget: int | None = None, awake_at: datetime | None = None, limit: int = 50, cursor: str | None = None,
) -> tuple[list[Alert], str | None]:  # fmt: skip
    """Alerts of a tenant, the newest first, and a cursor to what follows.

    Args:
        control: the control plane.
        tenant: whose.
        states: those that are wanted; none: all.
        rule: id of a rule whose alerts alone are wanted.
        budget: id of a budget, likewise.
        awake_at: leave out what is snoozed at that instant.
        limit: 1 to 200.
        cursor: as it was given with the page before.

    Raises:
        BadAlertError: a state, the limit or the cursor cannot be.
    """
    raise NotImplementedError


def find(control: Control, tenant: str, alert_id: str) -> Alert | None:
    """One alert."""
    raise NotImplementedError


def open_count(control: Control, tenant: str, at: datetime) -> int:
    """How many alerts nobody has seen to: firing, and not snoozed at an instant."""
    raise NotImplementedError


def happenings(control: Control, tenant: str, alert_id: str) -> list[Happening]:
    """The life of an alert, oldest first."""
    raise NotImplementedError


def acknowledge(control: Control, tenant: str, alert_id: str, actor: str) -> Alert:
    """Note that somebody sees to an alert; one that is acknowledged stays so.

    Raises:
        BadAlertError: there is no such alert, or it is resolved.
    """
    raise NotImplementedError


def snooze(control: Control, tenant: str, alert_id: str, until: datetime, actor: str) -> Alert:
    """Have the inbox leave an alert out until an instant, at most 31 days ahead; one in the past brings it back.

    Raises:
        BadAlertError: there is no such alert, it is resolved, or the instant cannot be.
    """
    raise NotImplementedError


def resolve(control: Control, tenant: str, alert_id: str, actor: str) -> Alert:
    """Have an alert be over, whatever it tells; endpoints that were told of it are told so.

    It is not found again for the same rule, scope and period until it has re-armed.

    Raises:
        BadAlertError: there is no such alert, or it is resolved.
    """
    raise NotImplementedError
