"""Alerts over HTTP: the inbox, one alert with its life and who was told, what people do about it, and the rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Body, Query
from starlette.exceptions import HTTPException

from millicent.dashboard import access, alert_reading, asking, filters
from millicent.dashboard.alert_answers import (
    AlertAnswer,
    AlertRuleAnswer,
    AlertRulesAnswer,
    AlertWholeAnswer,
    HappeningAnswer,
    InboxAnswer,
)
from millicent.dashboard.webhook_answers import DeliveryAnswer
from millicent.warehouse import alert_rules, alerts, delivery_log, endpoints
from millicent.warehouse.alert_rules import BadRuleError
from millicent.warehouse.alerts import State
from millicent.warehouse.query import BadQuery

if TYPE_CHECKING:
    from fastapi import FastAPI

    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.alerts import Alert
    from millicent.warehouse.control import Control
    from millicent.warehouse.store import Warehouse

MOST_HOURS: Final = 24 * 365
_STATE: Final = Query(description="firing, acknowledged or resolved; repeats mean OR. All of them if left out.")
_AWAKE: Final = Query(description="Leave out what somebody has put off until later.")
_UNTIL: Final = Body(
    description="`until`, an instant such as 2026-11-27T08:00:00Z, or `hours` from now; with neither, no longer."
)
_RULE: Final = Body(
    description="`name`, `kind` (actual, forecast, burn_rate, anomaly, unit_cost, freshness or unpriced) and "
    "`threshold` (0.8 or 80%) are needed. `budget` (id), or `filters`, as `filter` of `query` writes them. `floor`, "
    "`basis`, `window_hours`, `cooldown_hours`, `severity` (info, warning, error or critical), `endpoints` (ids or "
    "names of those to tell; all if left out). With an `id`, or the name of a rule that holds, it takes its place, "
    "and stays muted where that one was."
)


def mount_alerts(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes of alerts and their rules below `prefix`; those that change something ask for an operator."""
    path = f"{prefix}/alerts"
    _mount_rules(server, f"{path}/rules", warehouse)
    _mount_acts(server, f"{path}/{{alert_id}}", warehouse)

    @server.get(path, summary="Alerts, the newest first")
    def listed(
        state: Annotated[list[State] | None, _STATE] = None,
        rule: Annotated[int | None, Query(description="Id of a rule.")] = None,
        budget: Annotated[int | None, Query(description="Id of a budget.")] = None,
        awake: Annotated[bool, _AWAKE] = False,
        limit: Annotated[int, Query(ge=1, le=alerts.MOST)] = 50,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
    ) -> InboxAnswer:
        control, tenant, now = warehouse.control, access.principal().tenant, datetime.now(UTC)
        found, following = alerts.inbox(
            control, tenant, states=state or (), rule=rule, budget=budget, awake_at=now if awake else None,
            limit=limit, cursor=cursor,
        )  # fmt: skip
        told = [AlertAnswer.model_validate(one) for one in found]
        return InboxAnswer(alerts=told, next=following, open=alerts.open_count(control, tenant, now))

    @server.get(f"{path}/{{alert_id}}", summary="One alert: what it told, its rule, its life, and who was told")
    def shown(alert_id: str) -> AlertWholeAnswer:
        control, tenant = warehouse.control, access.principal().tenant
        alert = _alert(control, tenant, alert_id)
        rule = alert_rules.find(control, tenant, alert.rule)
        sent = delivery_log.log(control, tenant, alert=alert_id, limit=delivery_log.MOST)
        return AlertWholeAnswer(
            alert=AlertAnswer.model_validate(alert),
            rule=_told(rule) if rule else None,
            happenings=[HappeningAnswer.model_validate(one) for one in alerts.happenings(control, tenant, alert_id)],
            deliveries=[DeliveryAnswer.model_validate(one) for one in sent],
        )


def _mount_acts(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    @server.post(f"{path}/acknowledge", summary="Say that somebody sees to an alert",
                 response_description="the alert as it is now")  # fmt: skip
    def acknowledged(alert_id: str) -> AlertAnswer:
        who = _acting(warehouse, alert_id)
        return _now(alerts.acknowledge(warehouse.control, who.tenant, alert_id, who.actor))

    @server.post(f"{path}/snooze", summary="Have the inbox leave an alert out until later",
                 response_description="the alert as it is now")  # fmt: skip
    def snoozed(alert_id: str, told: Annotated[dict[str, Any], _UNTIL]) -> AlertAnswer:
        who = _acting(warehouse, alert_id)
        until = _until(told) or datetime.now(UTC)
        return _now(alerts.snooze(warehouse.control, who.tenant, alert_id, until, who.actor))

    @server.post(f"{path}/resolve", summary="Have an alert be over",
                 response_description="the alert as it is now; endpoints that were told of it are told so")  # fmt: skip
    def resolved(alert_id: str) -> AlertAnswer:
        who = _acting(warehouse, alert_id)
        return _now(alerts.resolve(warehouse.control, who.tenant, alert_id, who.actor))


def _mount_rules(server: FastAPI, path: str, warehouse: Warehouse) -> None:
    @server.get(path, summary="Every rule of alerts that holds")
    def listed(budget: Annotated[int | None, Query(description="Id of a budget.")] = None) -> AlertRulesAnswer:
        found = alert_rules.live(warehouse.control, access.principal().tenant, budget=budget)
        return AlertRulesAnswer(rules=[_told(one) for one in found])

    @server.get(f"{path}/{{rule_id}}", summary="One rule of alerts, ended or not")
    def shown(rule_id: int) -> AlertRuleAnswer:
        return _told(_rule(warehouse.control, access.principal().tenant, rule_id))

    @server.post(path, summary="Set a rule of alerts", status_code=201,
                 response_description="the rule as it is stored")  # fmt: skip
    def put(told: Annotated[dict[str, Any], _RULE]) -> AlertRuleAnswer:
        who = access.operator("rules of alerts")
        rule = _placed(warehouse.control, who.tenant, alert_reading.read(told))
        return _told(alert_rules.put(warehouse.control, who.tenant, rule, who.actor))

    @server.delete(f"{path}/{{rule_id}}", summary="End a rule of alerts, from now on",
                   response_description="the rule; its alerts are kept, open ones are resolved")  # fmt: skip
    def ended(rule_id: int) -> AlertRuleAnswer:
        who = access.operator("rules of alerts")
        _rule(warehouse.control, who.tenant, rule_id)
        return _told(alert_rules.end(warehouse.control, who.tenant, rule_id, who.actor))

    @server.post(f"{path}/{{rule_id}}/mute", summary="Tell nobody of a rule until later, or tell again",
                 response_description="the rule as it is now; its alerts are in the inbox meanwhile")  # fmt: skip
    def muted(rule_id: int, told: Annotated[dict[str, Any], _UNTIL]) -> AlertRuleAnswer:
        who = access.operator("rules of alerts")
        _rule(warehouse.control, who.tenant, rule_id)
        return _told(alert_rules.mute(warehouse.control, who.tenant, rule_id, _until(told), who.actor))


def _now(alert: Alert) -> AlertAnswer:
    return AlertAnswer.model_validate(alert)


def _told(rule: Rule) -> AlertRuleAnswer:
    """A rule; its filters as they are told."""
    told = {**alert_rules.written(rule), "filters": [filters.written(one) for one in rule.filters]}
    return AlertRuleAnswer.model_validate(told)


def _acting(warehouse: Warehouse, alert_id: str) -> access.Principal:
    """Who may do something about an alert that is there."""
    who = access.operator("alerts")
    _alert(warehouse.control, who.tenant, alert_id)
    return who


def _placed(control: Control, tenant: str, rule: Rule) -> Rule:
    """A rule with ids of the endpoints that it names, and as mute as the one whose place it takes.

    Raises:
        BadRuleError: there is no such endpoint.
    """
    known = {key: one.id for one in endpoints.listed(control, tenant) for key in (one.name, one.id)}
    if unknown := [one for one in rule.endpoints if one not in known]:
        raise BadRuleError(f"there is no endpoint {unknown[0][:40]!r}: see `millicent webhooks list`")
    held = alert_rules.live(control, tenant)
    old = [one for one in held if (one.id == rule.id if rule.id is not None else one.name == rule.name)]
    return replace(
        rule, endpoints=tuple(dict.fromkeys(known[one] for one in rule.endpoints)),
        muted_until=old[0].muted_until if old else None,
    )  # fmt: skip


def _until(told: dict[str, Any]) -> datetime | None:
    """When something is over: an instant, or hours from now; None where neither is told.

    Raises:
        BadQuery: it cannot be.
    """
    if unknown := [name for name in told if name not in {"until", "hours"}]:
        raise BadQuery(f"field {unknown[0][:40]!r} is unknown: write until or hours")
    until, hours = told.get("until"), told.get("hours")
    if until is not None and hours is not None:
        raise BadQuery("both until and hours were told: write one of the two")
    if hours is not None:
        if isinstance(hours, bool) or not isinstance(hours, int) or not 1 <= hours <= MOST_HOURS:
            raise BadQuery(f"hours {str(hours)[:40]!r} is not a whole number from 1 to {MOST_HOURS}: correct it")
        return datetime.now(UTC) + timedelta(hours=hours)
    if until is None:
        return None
    found = asking.instant("until", until) if isinstance(until, str) else None
    if found is None or found.tzinfo is None:
        raise BadQuery(f"until {str(until)[:40]!r} is no instant with a time zone: write 2026-11-27T08:00:00Z")
    return found


def _alert(control: Control, tenant: str, alert_id: str) -> Alert:
    found = alerts.find(control, tenant, alert_id)
    if found is None:
        raise HTTPException(404, f"there is no alert {alert_id[:40]!r}: see /api/v1/alerts")
    return found


def _rule(control: Control, tenant: str, rule_id: int) -> Rule:
    found = alert_rules.find(control, tenant, rule_id)
    if found is None:
        raise HTTPException(404, f"there is no rule {rule_id}: see /api/v1/alerts/rules")
    return found
