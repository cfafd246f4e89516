"""What the API answers about alerts and the rules that they are of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from millicent.dashboard.webhook_answers import Answer, DeliveryAnswer
from millicent.warehouse.alert_rules import Kind, Severity
from millicent.warehouse.alerts import Reason, State
from millicent.warehouse.query import Basis


class AlertAnswer(Answer):
    """What was found to have crossed a threshold."""

    id: str
    """`al_…`"""
    rule: int
    """id of its rule"""
    budget: int | None
    """id of the budget that it is about"""
    scope: str
    """what spend it is about: `budget:7`, `all`, or filters as text"""
    period_start: datetime | None
    """of the period that it is about"""
    period_end: datetime | None
    """likewise, not included"""
    dedup_key: str
    """the same for all that one rule finds of one scope and period"""
    state: State
    """whether somebody sees to it, and whether it is over"""
    severity: Severity
    """how urgent it is"""
    late: bool
    """whether it was found after its period was over"""
    told: bool
    """whether endpoints were told of it; not while its rule is muted"""
    opened_at: datetime
    """when it fired"""
    changed_at: datetime
    """when anything of it changed last"""
    acknowledged_at: datetime | None
    """since when somebody sees to it"""
    acknowledged_by: str | None
    """who"""
    snoozed_until: datetime | None
    """until when the inbox leaves it out"""
    resolved_at: datetime | None
    """since when it is over"""
    reason: Reason | None
    """why it is over"""
    summary: str
    """one line"""
    data: dict[str, Any]
    """as the last event told it; see [alerts](../concepts/alerts.md)"""


class InboxAnswer(Answer):
    """Alerts, the newest first."""

    alerts: list[AlertAnswer]
    """those that were asked for"""
    next: str | None
    """`cursor` of the page that follows; null on the last one"""
    open: int
    """how many nobody sees to: firing, and not put off"""


class AlertRuleAnswer(Answer):
    """When somebody is told."""

    id: int
    """number of it"""
    name: str
    """unlike that of any other that holds"""
    kind: Kind
    """what is compared with the threshold"""
    budget: int | None
    """id of the budget that it is about"""
    filters: list[str]
    """without a budget: what spend it is about"""
    threshold: str
    """at or above it somebody is told; a decimal"""
    floor: str | None
    """what must be reached besides; a decimal"""
    basis: Basis
    """cost basis, without a budget"""
    window_hours: int
    """how far back burn_rate, unit_cost and unpriced look; 0: the budget's period"""
    cooldown_hours: int
    """how soon the same is told again"""
    severity: Severity
    """how urgent its alerts are"""
    endpoints: list[str]
    """ids of those that are told; none: all"""
    muted_until: datetime | None
    """until when nobody is told"""
    ended: bool
    """whether it holds no more"""
    author: str
    """who set it last"""
    created_at: datetime
    """when it was first set"""
    changed_at: datetime
    """since when it judges as it does"""


class AlertRulesAnswer(Answer):
    """Rules that hold."""

    rules: list[AlertRuleAnswer]
    """by budget, kind and threshold"""


class HappeningAnswer(Answer):
    """Something in the life of an alert."""

    at: datetime
    """when"""
    what: str
    """fired, cleared, acknowledge, snooze or resolve"""
    who: str | None
    """by whom"""
    words: str
    """what was told, or until when it is put off"""
    event: str | None
    """id of the event that told of it"""


class AlertWholeAnswer(Answer):
    """An alert with its rule, its life, and what was sent because of it."""

    alert: AlertAnswer
    """what was found"""
    rule: AlertRuleAnswer | None
    """ended or not"""
    happenings: list[HappeningAnswer]
    """oldest first"""
    deliveries: list[DeliveryAnswer]
    """newest first, each with its attempts"""
