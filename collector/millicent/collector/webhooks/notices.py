"""An event in words for people: what every chat, pager and mailbox says of it, each in its own form.

Whatever is not there is left out: an event of a type that is not known here, or with less in it, is still told. All of
it is text from outside, names of budgets and teams among it: one line each, never markup.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from millicent.warehouse.alerts import REASONS
from millicent.warehouse.endpoints import TEST
from millicent.warehouse.outbox import Event

SEVERITIES: Final = ("critical", "error", "warning", "info")
LONGEST_KEY: Final = 255
"""Characters of a key that PagerDuty takes."""
MOST_DRIVERS: Final = 5
_MOST: Final = Decimal("1e18")
_OVER: Final = (".cleared", ".closed", ".recovered")
_WHY: Final[Mapping[str, str]] = dict(REASONS.items())
_LINKS: Final = ("alert", "dashboard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What an event says to people.

    Attributes:
        summary: One line.
        driver: What moved the spend, in a sentence; empty where that is not known.
        severity: How urgent it is; one of `SEVERITIES`.
        status: `firing`, `acknowledged` or `resolved`.
        key: The same for everything that tells of one alert.
        began: When what it tells of was first told; of an event that says it is over, too.
        ends: When the period that it is about is over, if it is about one.
        facts: A word for each fact, and the fact.
        drivers: What moved it most, a line each.
        labels: What it may be routed by: names and values.
        link: Where to look, if that is known.
    """

    summary: str
    driver: str
    severity: str
    status: str
    key: str
    began: datetime
    ends: datetime | None
    facts: tuple[tuple[str, str], ...]
    drivers: tuple[str, ...]
    labels: Mapping[str, str]
    link: str | None


def notice(event: Event) -> Notice:
    """Read what an event says."""
    told = json.loads(event.body)
    data = told.get("data")
    data = data if isinstance(data, dict) else {}
    severity = data.get("severity")
    period = _within(data, "period")
    return Notice(
        summary=line(data.get("summary")) or _unsaid(event.type),
        driver=line(data.get("driver")),
        severity=severity if severity in SEVERITIES else "info",
        status=_status(event.type, data),
        key=_key(line(data.get("dedup_key")) or event.id),
        began=_instant(data.get("opened_at")) or event.occurred_at,
        ends=_instant(period.get("end")),
        facts=tuple((name, said) for name, said in _facts(data, period) if said),
        drivers=tuple(_driver(one, line(data.get("currency"))) for one in _drivers(data)),
        labels={name: said for name, said in _labels(event, data) if said},
        link=_link(data),
    )


def line(value: object, longest: int = 1000) -> str:
    """A value as one line of text; empty where there is none."""
    if value is None or isinstance(value, dict | list):
        return ""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def money(value: object, currency: str) -> str:
    """An amount as people write it; empty where there is none."""
    amount = _number(value)
    return line(value) if amount is None else f"{amount:,.2f} {currency}".strip()


def _facts(data: Mapping[str, Any], period: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget, forecast, threshold = (_within(data, name) for name in ("budget", "forecast", "threshold"))
    currency = line(data.get("currency"))
    start, end = line(period.get("start"))[:10], line(period.get("end"))[:10]
    zone = line(period.get("timezone"))
    return [
        ("Budget", line(budget.get("name"))),
        ("Owner", line(budget.get("owner"))),
        ("Period", f"{start} to before {end} {zone}".strip() if start and end else ""),
        ("Limit", money(data.get("limit"), currency)),
        ("Spent", money(data.get("actual"), currency)),
        ("Expected", money(forecast.get("p50"), currency)),
        ("Threshold", _threshold(threshold, currency)),
        ("Runs out", line(data.get("run_out_date"))),
        ("Why it is over", line(data.get("reason_text")) or _WHY.get(line(data.get("reason")), "")),
        ("Late", "found after its period was over" if data.get("late") is True else ""),
        ("Incomplete", _joined(data.get("incomplete"))),
        ("Data complete through", line(data.get("data_complete_through"))),
    ]


def _labels(event: Event, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget, rule = _within(data, "budget"), _within(data, "rule")
    stem = event.type.rpartition(".")[0] or event.type
    words = stem.replace("_", ".").split(".")
    severity = data.get("severity")
    return [
        ("alertname", "Millicent" + "".join(word.capitalize() for word in words)),
        ("severity", severity if severity in SEVERITIES else "info"),
        ("tenant", line(event.tenant)),
        ("budget", line(budget.get("name"))),
        ("owner", line(budget.get("owner"))),
        ("rule", line(rule.get("name"))),
        ("scope", line(data.get("scope"))),
    ]


def _drivers(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = data.get("top_drivers")
    listed: list[Any] = found if isinstance(found, list) else []
    return [one for one in listed if isinstance(one, dict)][:MOST_DRIVERS]


def _driver(one: Mapping[str, Any], currency: str) -> str:
    what = f"{line(one.get('dimension'))} {line(one.get('value'))}".strip()
    delta = money(one.get("delta_amount"), currency)
    signed = delta if not delta or delta.startswith("-") else f"+{delta}"
    reason = line(one.get("reason"))
    return " ".join(part for part in (what, signed, f"({reason})" if reason else "") if part)


def _status(type_: str, data: Mapping[str, Any]) -> str:
    if type_.endswith(_OVER):
        return "resolved"
    return "acknowledged" if data.get("status") == "acknowledged" else "firing"


def _key(key: str) -> str:
    return key if len(key) <= LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()


def _link(data: Mapping[str, Any]) -> str | None:
    """An address to look at; anything else that stands there is not one."""
    links = _within(data, "links")
    found = (str(links[name]) for name in _LINKS if isinstance(links.get(name), str))
    return next((one for one in found if one.startswith(("https://", "http://")) and one == line(one)), None)


def _threshold(told: Mapping[str, Any], currency: str) -> str:
    """A share of the limit, how many times more than usual, or a cost of a million tokens."""
    share, multiple = _number(told.get("ratio")), line(told.get("multiple"))
    if share is not None:
        return f"{(share * 100).normalize():f}%"
    return f"{multiple}×" if multiple else money(told.get("amount"), currency)


def _number(value: object) -> Decimal | None:
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found) < _MOST else None


def _joined(told: object) -> str:
    return line("; ".join(str(one) for one in told)) if isinstance(told, list) else ""


def _unsaid(type_: str) -> str:
    return "This is a test of an endpoint" if type_ == TEST else line(type_)


def _within(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _instant(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
