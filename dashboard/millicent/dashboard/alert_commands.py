"""`millicent alerts`: what crossed a threshold in a running instance, what is done about it, and the rules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import typer

from millicent.dashboard.rule_commands import instant
from millicent.dashboard.terminal import URL, AsJson, OperatorToken, Token, Url, ask, get, out, short, show

alerts = typer.Typer(no_args_is_help=True, help="What crossed a threshold, who was told, and what is done about it.")
rules = typer.Typer(no_args_is_help=True, help="From which thresholds on somebody is told.")
alerts.add_typer(rules, name="rules")

AlertId = Annotated[str, typer.Argument(help="As `millicent alerts list` prints it.")]
RuleId = Annotated[int, typer.Argument(help="As `millicent alerts rules list` prints it.")]
Until = Annotated[datetime | None, typer.Option(help="UTC.")]
Hours = Annotated[int | None, typer.Option(min=1, help="From now on.")]
OPEN: Final = ("firing", "acknowledged")


@alerts.command("list")
def list_alerts(
    every: Annotated[bool, typer.Option("--all", help="Also what is resolved or put off until later.")] = False,
    budget: Annotated[int | None, typer.Option(help="Id of a budget.")] = None,
    rule: Annotated[int | None, typer.Option(help="Id of a rule.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Alerts that are open, the newest first."""
    asked: dict[str, Any] = {"budget": budget, "rule": rule, "limit": limit, "cursor": cursor}
    asked |= {} if every else {"state": OPEN, "awake": True}
    answer = get(url, token, "alerts", {name: value for name, value in asked.items() if value is not None})
    show([_line(one) for one in answer["alerts"]], answer, as_json=as_json)
    if answer["next"] and not as_json:
        out.print(f"there are more: --cursor {answer['next']}", highlight=False, markup=False, soft_wrap=True)


@alerts.command("show")
def show_alert(alert_id: AlertId, url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """One alert: what it told, what happened to it, and who was told."""
    answer = get(url, token, f"alerts/{alert_id}", {})
    if as_json:
        show([], answer, as_json=True)
        return
    alert, rule = answer["alert"], answer["rule"]
    facts = {
        **_line(alert), "why": alert["data"].get("driver"), "rule": rule["name"] if rule else None,
        "seen to by": alert["acknowledged_by"], "over since": short(alert["resolved_at"]), "because": alert["reason"],
    }  # fmt: skip
    show([{"what": name, "value": value} for name, value in facts.items()], answer, as_json=False)
    out.print()
    life = [
        {"at": short(one["at"]), "what": one["what"], "who": one["who"], "words": one["words"] or None}
        for one in answer["happenings"]
    ]
    show(life, answer, as_json=False)
    if answer["deliveries"]:
        out.print()
        show([_sent(one) for one in answer["deliveries"]], answer, as_json=False)


@alerts.command("acknowledge")
def acknowledge(alert_id: AlertId, url: Url = URL, token: OperatorToken = None, as_json: AsJson = False) -> None:
    """Say that you see to an alert."""
    _changed(ask("POST", url, token, f"alerts/{alert_id}/acknowledge"), as_json=as_json)


@alerts.command("snooze")
def snooze(
    alert_id: AlertId,
    until: Until = None,
    hours: Hours = None,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Have the inbox leave an alert out until later; with neither option it is back."""
    _changed(ask("POST", url, token, f"alerts/{alert_id}/snooze", json=_later(until, hours)), as_json=as_json)


@alerts.command("resolve")
def resolve(alert_id: AlertId, url: Url = URL, token: OperatorToken = None, as_json: AsJson = False) -> None:
    """Have an alert be over; endpoints that were told of it are told so."""
    _changed(ask("POST", url, token, f"alerts/{alert_id}/resolve"), as_json=as_json)


@rules.command("list")
def list_rules(
    budget: Annotated[int | None, typer.Option(help="Id of a budget.")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Every rule that holds."""
    answer = get(url, token, "alerts/rules", {} if budget is None else {"budget": budget})
    show([_rule(one) for one in answer["rules"]], answer, as_json=as_json)


@rules.command("set")
def set_rule(
    name: Annotated[str, typer.Argument(help="Of a new rule, or of one to change.")],
    kind: Annotated[
        str, typer.Argument(help="actual, forecast, burn_rate, anomaly, unit_cost, freshness or unpriced.")
    ],
    threshold: Annotated[str, typer.Argument(help="0.8 or 80%; of burn_rate 3, of unit_cost 12.50.")],
    budget: Annotated[int | None, typer.Option(help="Id of the budget that it is about.")] = None,
    filter: Annotated[  # noqa: A002 - as everywhere
        list[str] | None, typer.Option(help="Without a budget: team:search keeps, -team:search drops.")
    ] = None,
    floor: Annotated[str | None, typer.Option(help="What must be reached besides, so that small things stay quiet.")]
    = None,
    basis: Annotated[str | None, typer.Option(help="Without a budget: list, billed, effective, usage or marginal.")]
    = None,
    window_hours: Annotated[int | None, typer.Option(help="How far back burn_rate, unit_cost and unpriced look.")]
    = None,
    cooldown_hours: Annotated[int | None, typer.Option(help="How soon the same may be told again.")] = None,
    severity: Annotated[str | None, typer.Option(help="info, warning, error or critical.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="Who is told (repeat).", show_default="everyone")] = None,
    rule_id: Annotated[int | None, typer.Option("--id", help="Of the rule to change, to give it another name.")] = None,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Set a rule; one of that name that holds is replaced, all of it."""
    told = {
        "name": name, "kind": kind, "threshold": threshold, "budget": budget, "filters": filter or [], "floor": floor,
        "basis": basis, "window_hours": window_hours, "cooldown_hours": cooldown_hours, "severity": severity,
        "endpoints": endpoint or [], "id": rule_id,
    }  # fmt: skip
    answer = ask("POST", url, token, "alerts/rules", json=told)
    show([_rule(answer)], answer, as_json=as_json)


@rules.command("end")
def end_rule(rule_id: RuleId, url: Url = URL, token: OperatorToken = None) -> None:
    """End a rule from now on; alerts of it that are open are resolved."""
    gone = ask("DELETE", url, token, f"alerts/rules/{rule_id}")
    out.print(f"rule {rule_id} ({gone['name']}) is ended", highlight=False, markup=False)


@rules.command("mute")
def mute_rule(
    rule_id: RuleId,
    until: Until = None,
    hours: Hours = None,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of a rule until later; with neither option it is told again. The inbox has its alerts meanwhile."""
    answer = ask("POST", url, token, f"alerts/rules/{rule_id}/mute", json=_later(until, hours))
    show([_rule(answer)], answer, as_json=as_json)


def _later(until: datetime | None, hours: int | None) -> dict[str, Any]:
    return {"until": instant(until), "hours": hours}


def _changed(alert: dict[str, Any], *, as_json: bool) -> None:
    show([_line(alert)], alert, as_json=as_json)


def _line(one: dict[str, Any]) -> dict[str, Any]:
    """An alert as one line of a table."""
    state = f"{one['state']}, late" if one["late"] else one["state"]
    put_off = f", put off until {short(one['snoozed_until'])}" if one["snoozed_until"] else ""
    return {"id": one["id"], "since": short(one["opened_at"]), "state": state + put_off,
            "what": f"{one['severity'].capitalize()}: {one['summary']}"}  # fmt: skip


def _sent(one: dict[str, Any]) -> dict[str, Any]:
    """A delivery as one line of a table."""
    last = one["attempts"][-1] if one["attempts"] else {}
    return {
        "endpoint": one["endpoint_name"], "event": one["type"], "state": one["state"], "tries": len(one["attempts"]),
        "last": short(last.get("at")), "answer": last.get("error") or last.get("status"),
        "next": short(one["next_at"]),
    }  # fmt: skip


def _rule(one: dict[str, Any]) -> dict[str, Any]:
    """A rule as one line of a table."""
    about = f"budget {one['budget']}" if one["budget"] is not None else "; ".join(one["filters"]) or "everything"
    muted = f", muted until {short(one['muted_until'])}" if one["muted_until"] else ""
    floor = f", floor {one['floor']}" if one["floor"] else ""
    return {
        "id": one["id"], "name": one["name"], "of": about, "fires at": f"{one['kind']} {one['threshold']}{floor}",
        "severity": one["severity"], "tells": (", ".join(one["endpoints"]) or "everyone") + muted,
    }  # fmt: skip
