"""What the parts of the Alerts page show, each asked for by itself."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, icon, link, pill
from millicent.dashboard.pages import alerts_endpoints, alerts_one, alerts_rules
from millicent.dashboard.pages.alerts_forms import KINDS, endpoint_form
from millicent.dashboard.pages.alerts_inbox import inbox
from millicent.dashboard.pages.alerts_parts import opener
from millicent.dashboard.pages.derivation import shelf
from millicent.dashboard.pages.quality_tables import card
from millicent.warehouse import alert_rules, alerts, budgets, delivery_log, endpoints
from millicent.warehouse.alerts import MOST
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.access import Principal
    from millicent.dashboard.pages.alerts_place import Looked, Opened
    from millicent.warehouse.alerts import Alert, State
    from millicent.warehouse.control import Control
    from millicent.warehouse.delivery_log import Delivery, Health
    from millicent.warehouse.store import Warehouse

OPEN: Final[tuple[State, ...]] = ("firing", "acknowledged")
LISTED: Final = 16
LOGGED: Final = 20
SOON: Final = timedelta(minutes=1)


def headline(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Words, pills, cards, chips, inbox and its words."""
    who, now = _asks(warehouse, place)
    control = warehouse.control
    open_, _ = alerts.inbox(control, who.tenant, states=OPEN, budget=place.budget, limit=MOST)
    found, more = _listed(control, who, place, open_, now)
    health = delivery_log.health(control, who.tenant)
    body = inbox(found, now, place.shown, more=more, operates=who.operates)
    words = "Everything that fired, what drove it, and whether those who should know were told"
    said = f"{_many(len(found), more)} · newest first" if found else ""
    return [words, _pills(open_, now), _cards(open_, health, now), _chips(control, who, place, now), body, said]


def endpoints_shown(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Endpoints and the way to add one."""
    who, now = _asks(warehouse, place)
    found = delivery_log.health(warehouse.control, who.tenant)
    add = opener("Add an endpoint", "add-endpoint", "button") if who.operates and found else None
    return [alerts_endpoints.panel(found, now, operates=who.operates), add]


def rules_shown(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Rules, the way to add one, and how many there are."""
    who, now = _asks(warehouse, place)
    control = warehouse.control
    found = alert_rules.live(control, who.tenant, budget=place.budget)
    held = {one.id: one for one in budgets.live(control, who.tenant, now)}
    names = {one.id: one.name for one in endpoints.listed(control, who.tenant)}
    open_, _ = alerts.inbox(control, who.tenant, states=OPEN, limit=MOST)
    firing = Counter[int | None](one.rule for one in open_)
    add = opener("Add a rule", "add-rule", "button", budget=place.budget) if who.operates else None
    around = alerts_rules.Around(held, names, firing, now, operates=who.operates)
    table = alerts_rules.table(found, around, unfold=place.budget is not None or len(held) == 1)
    words = f"{len(found):,} rules; a budget gets its own when it is first set" if found else "what makes an alert"
    return [table, add, words]


def opened(warehouse: Warehouse, place: Looked, what: Opened | None) -> list[Any]:
    """What the drawer holds, None where nothing is open; and whether all of it has come to rest."""
    if what is None:
        return [None, True]
    who, now = _asks(warehouse, place)
    show = {"alert": _alert, "endpoint": _endpoint, "rule": _rule}.get(what.kind)
    if show is not None:
        return show(warehouse.control, who, what, now)
    if not who.operates:
        said = html.P("Ask for an operator's session.", className="quiet")
        return [shelf("An operator can add it", "", [said], key=what.written), True]
    told = dict(what.told)
    if what.kind == "add-endpoint":
        return [shelf("Add an endpoint", "where alerts are sent", endpoint_form(told), key=what.written), True]
    form = alerts_rules.rule_form(told, budgets.live(warehouse.control, who.tenant, now),
                                  endpoints.listed(warehouse.control, who.tenant))  # fmt: skip
    return [shelf("Add a rule", "what makes an alert", form, key=what.written), True]


def open_count(warehouse: Warehouse) -> int:
    """How many alerts nobody sees to yet."""
    return alerts.open_count(warehouse.control, access.principal().tenant, datetime.now(UTC))


def _asks(warehouse: Warehouse, place: Looked) -> tuple[Principal, datetime]:
    """Who asks, and when; all that is written from then on is in the time zone of the view, else of the workspace."""
    who = access.principal()
    name = preferences(warehouse.control, who.tenant).time_zone
    try:
        shown = zone(place.view.zone or name)
    except ValueError:
        shown = zone(name)
    fmt.present(fmt.Presentation("USD", UTC if str(shown) == "UTC" else shown))
    return who, datetime.now(UTC)


def _listed(
    control: Control, who: Principal, place: Looked, open_: list[Alert], now: datetime
) -> tuple[list[Alert], bool]:
    """The alerts that are listed, and whether there are more."""
    if place.shown == "open":
        awake = [one for one in open_ if not one.is_snoozed(now)]
        awake.sort(key=lambda one: one.state != "firing")
        return awake[:LISTED], len(awake) > LISTED
    if place.shown == "snoozed":
        asleep = [one for one in open_ if one.is_snoozed(now)]
        return asleep[:LISTED], len(asleep) > LISTED
    states: tuple[State, ...] = ("resolved",) if place.shown == "resolved" else ()
    found, more = alerts.inbox(control, who.tenant, states=states, budget=place.budget, limit=LISTED)
    found.sort(key=lambda one: not one.is_open)
    return found, more is not None


def _many(count: int, more: bool) -> str:
    return f"the latest {count}" if more else f"{count} alert{'' if count == 1 else 's'}"


def _pills(open_: list[Alert], now: datetime) -> list[Component]:
    firing = sum(one.state == "firing" and not one.is_snoozed(now) for one in open_)
    return [pill(f"{firing} need somebody", "bad")] if firing else [pill([icon("check"), "All quiet"], "good")]


def _cards(open_: list[Alert], health: list[Health], now: datetime) -> list[Component]:
    asleep = [one for one in open_ if one.is_snoozed(now)]
    awake = [one for one in open_ if not one.is_snoozed(now)]
    firing = [one for one in awake if one.state == "firing"]
    seen = [one for one in awake if one.state == "acknowledged"]
    waiting, dead = sum(one.pending for one in health), sum(one.dead for one in health)
    ill = [one for one in health if one.state in {"failing", "disabled"}]
    worst = f"{sum(one.severity in {'error', 'critical'} for one in firing)} of them serious" if firing else "all quiet"
    return [
        card("Need somebody", fmt.count(len(firing)), worst, "kpi-firing"),
        card("Somebody sees to it", fmt.count(len(seen)), "acknowledged, not over yet", "kpi-seen"),
        card("Snoozed", fmt.count(len(asleep)), "come back by themselves", "kpi-snoozed"),
        card("Waiting to be sent", fmt.count(waiting), "tried again for three days", "kpi-waiting"),
        card("Given up", fmt.count(dead), f"{len(ill)} of {len(health)} endpoints in trouble" if ill else
             f"{len(health)} endpoint{'' if len(health) == 1 else 's'}, all well" if health else "no endpoint yet",
             "kpi-dead"),
    ]  # fmt: skip


def _chips(control: Control, who: Principal, place: Looked, now: datetime) -> Component | None:
    """The budget that alone is listed, and the way back to all."""
    if place.budget is None:
        return None
    name = next((one.name for one in budgets.live(control, who.tenant, now) if one.id == place.budget), None)
    words = html.Bdi(name or f"budget {place.budget}")
    return link([words, icon("close")], place.href(budget=None), className="button small-text",
                **aria(label="Show the alerts of all budgets"))  # fmt: skip


def _alert(control: Control, who: Principal, what: Opened, now: datetime) -> list[Any]:
    found = alerts.find(control, who.tenant, what["id"])
    if found is None:
        return _gone(what)
    currency = alerts_one.told(found.data, "currency")
    fmt.present(fmt.Presentation(currency or "USD", fmt.presented().zone))
    rule = alert_rules.find(control, who.tenant, found.rule)
    life = alerts.happenings(control, who.tenant, found.id)
    log = delivery_log.log(control, who.tenant, alert=found.id, limit=LOGGED)
    body = alerts_one.opened(found, rule, life, log, now, operates=who.operates)
    return [shelf(found.summary, "", body, key=what.written), _rests(log, now)]


def _endpoint(control: Control, who: Principal, what: Opened, now: datetime) -> list[Any]:
    found = next((one for one in delivery_log.health(control, who.tenant) if one.endpoint.id == what["id"]), None)
    if found is None:
        return _gone(what)
    log = delivery_log.log(control, who.tenant, endpoint=found.endpoint.id, limit=LOGGED + 1)
    body = alerts_endpoints.opened(found, log[:LOGGED], now, operates=who.operates, more=len(log) > LOGGED)
    kind = KINDS[found.endpoint.kind][0]
    return [shelf(found.endpoint.name, kind, body, key=what.written), _rests(log, now)]


def _rests(log: Sequence[Delivery], now: datetime) -> bool:
    """Whether nothing is about to be sent."""
    waits = [one.next_at for one in log if one.state == "pending" and one.next_at is not None]
    return not any(now - SOON < at < now + SOON for at in waits)


def _rule(control: Control, who: Principal, what: Opened, now: datetime) -> list[Any]:
    found = alert_rules.find(control, who.tenant, _number(what["id"]))
    if found is None or found.ended:
        return _gone(what)
    held = budgets.live(control, who.tenant, now)
    currency = next((one.currency for one in held if one.id == found.budget), "USD")
    says = alerts_rules.sentence(found, currency)
    body = alerts_rules.opened(found, held, endpoints.listed(control, who.tenant), now, operates=who.operates)
    return [shelf(says, html.Bdi(found.name), body, key=what.written), True]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else 0


def _gone(what: Opened) -> list[Any]:
    words = html.P("It may have ended, or the address is mistyped.", className="quiet")
    return [shelf("There is nothing here", "", [words], key=what.written), True]
