"""One event in the words of each kind of endpoint.

A `webhook` gets the event itself, signed. The others get what `notices` reads out of it, in the form that they take,
and with the key of the alert where they have one, so that what ends an alert ends it there, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from millicent.collector.webhooks import mail, signing
from millicent.collector.webhooks.addresses import Answered, GuardedClient, Outgoing
from millicent.collector.webhooks.notices import Notice, line, notice
from millicent.warehouse.endpoint_forms import Destination
from millicent.warehouse.instants import text_of
from millicent.warehouse.outbox import Event

ALERTMANAGER: Final = "/api/v2/alerts"
"""Where Alertmanager itself takes alerts; any other path is that of a receiver which Alertmanager would tell."""
LASTS: Final = timedelta(days=31)
"""How long Alertmanager holds on to an alert that is about no period; it would drop it after minutes otherwise."""
_COLOURS: Final = {"critical": "attention", "error": "attention", "warning": "warning", "info": "accent"}
_NEVER: Final = "0001-01-01T00:00:00Z"


def outgoing(to: Destination, event: Event, now: datetime) -> Outgoing:
    """The request that tells an endpoint of an event; not of `smtp`."""
    if to.kind == "webhook":
        return Outgoing("POST", to.address, signing.headers(event, to.secrets, now), event.body.encode())
    headers = {"content-type": "application/json", "user-agent": "millicent"}
    if to.kind == "alertmanager" and to.secrets:
        headers["authorization"] = f"Bearer {to.secrets[0]}"
    return Outgoing("POST", to.address, headers, orjson.dumps(_FORMS[to.kind](to, event, notice(event))))


def deliver(client: GuardedClient, to: Destination, event: Event, now: datetime) -> Answered:
    """Tell an endpoint of an event, by HTTP or by mail; taken when the status is from 200 to 299.

    Raises:
        ForbiddenAddressError: endpoints may not reach its address; nothing was connected to.
        NotSentError: no answer came.
    """
    if to.kind == "smtp":
        return mail.send(client, to, event, notice(event), now)
    return client.send(outgoing(to, event, now))


def _slack(_: Destination, __: Event, told: Notice) -> dict[str, Any]:
    """Blocks, and plain text for notifications."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "emoji": False, "text": line(_headline(told), 150)}},
        {"type": "section", "text": _mrkdwn("\n".join(_escaped(said) for said in _said(told)))},
    ]
    if told.facts:
        fields = [_mrkdwn(f"*{name}*\n{_escaped(line(said, 300))}") for name, said in told.facts[:10]]
        blocks.append({"type": "section", "fields": fields})
    if told.drivers:
        moved = "\n".join(f"• {_escaped(line(one, 300))}" for one in told.drivers)
        blocks.append({"type": "section", "text": _mrkdwn(f"*What moved it*\n{moved}")})
    if told.link:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Look at it"}, "url": told.link}
        blocks.append({"type": "actions", "elements": [button]})
    return {"text": _escaped(f"{_headline(told)}: {told.summary}"), "blocks": blocks}


def _teams(_: Destination, __: Event, told: Notice) -> dict[str, Any]:
    """An Adaptive Card in the envelope that the workflow takes; rich text blocks, since text blocks read Markdown."""
    colour = "good" if told.status == "resolved" else _COLOURS[told.severity]
    facts = told.facts + tuple(("What moved it", one) for one in told.drivers)
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": f"{_headline(told)}: {told.summary}",
        "msteams": {"width": "Full"},
        "body": [
            _rich({"text": _headline(told), "weight": "bolder", "size": "large", "color": colour}),
            *(_rich({"text": said}) for said in _said(told)),
            *(_rich({"text": f"{name}: ", "weight": "bolder"}, {"text": line(said, 300)}) for name, said in facts),
        ],
    }
    if told.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Look at it", "url": told.link}]
    attached = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attached]}


def _pagerduty(to: Destination, event: Event, told: Notice) -> dict[str, Any]:
    """An event of the Events API v2."""
    action = {"firing": "trigger", "acknowledged": "acknowledge", "resolved": "resolve"}[told.status]
    key = {"routing_key": to.secrets[0] if to.secrets else "", "event_action": action, "dedup_key": told.key}
    if action != "trigger":
        return key
    details = {**dict(told.facts), **_some("Driver", told.driver), **_some("What moved it", "; ".join(told.drivers))}
    links = {"client_url": told.link, "links": [{"href": told.link, "text": "Look at it"}]} if told.link else {}
    return {
        **key, **links, "client": "Millicent",
        "payload": {
            "summary": told.summary, "source": told.labels.get("scope") or "millicent", "severity": told.severity,
            "timestamp": text_of(event.occurred_at), "component": told.labels.get("budget") or "millicent",
            "group": told.labels.get("owner") or told.labels.get("tenant"), "class": event.type,
            "custom_details": {**details, "Event": event.id},
        },
    }  # fmt: skip


def _alertmanager(to: Destination, event: Event, told: Notice) -> Any:
    """What Alertmanager tells a receiver (version 4); at its own address, what it is told itself."""
    labels = {**told.labels, "alert": told.key}
    notes = {
        "summary": told.summary, **_some("description", told.driver), **_some("drivers", "; ".join(told.drivers)),
        **{_snake(name): said for name, said in told.facts},
    }  # fmt: skip
    over = told.status == "resolved"
    alert = {
        "labels": labels, "annotations": notes, "startsAt": text_of(told.began), "generatorURL": told.link or "",
        "endsAt": text_of(event.occurred_at) if over else _NEVER,
    }  # fmt: skip
    if to.address.partition("?")[0].endswith(ALERTMANAGER):
        lasts = event.occurred_at if over else max(told.ends or event.occurred_at + LASTS, event.occurred_at + _DAY)
        return [{**alert, "endsAt": text_of(lasts)}]
    status = "resolved" if over else "firing"
    group = {"alertname": labels["alertname"]}
    return {
        "version": "4", "groupKey": f'{{}}:{{alertname="{labels["alertname"]}"}}:{told.key}', "truncatedAlerts": 0,
        "status": status, "receiver": "millicent", "groupLabels": group, "commonLabels": labels,
        "commonAnnotations": notes, "externalURL": told.link or "",
        "alerts": [
            {**alert, "status": status, "fingerprint": hashlib.sha256(told.key.encode()).hexdigest()[:16]},
        ],
    }  # fmt: skip


def _headline(told: Notice) -> str:
    return {"resolved": "Over", "acknowledged": "Seen to"}.get(told.status, told.severity.capitalize())


def _said(told: Notice) -> list[str]:
    return [said for said in (told.summary, told.driver) if said]


def _mrkdwn(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "verbatim": True, "text": text[:2900]}


def _escaped(text: str) -> str:
    """Text that Slack reads as text: no mention, no link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _rich(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", **run} for run in runs]}


def _some(name: str, text: str) -> dict[str, str]:
    return {name: text} if text else {}


def _snake(name: str) -> str:
    return name.lower().replace(" ", "_")


_DAY: Final = timedelta(days=1)
_FORMS: Final[dict[str, Callable[[Destination, Event, Notice], Any]]] = {
    "slack": _slack, "teams": _teams, "pagerduty": _pagerduty, "alertmanager": _alertmanager,
}  # fmt: skip
