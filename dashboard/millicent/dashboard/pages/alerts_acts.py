"""What the Alerts page changes: each act by its name, checked as any request of the API is, told what came of it.

A callback is an open API: whoever sends one is asked for, and what it sends is read as text from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.pages.alerts_forms import SECRETS, asked_of, types_of
from millicent.dashboard.pages.alerts_inbox import SNOOZES
from millicent.dashboard.pages.alerts_place import Opened
from millicent.dashboard.pages.alerts_rules import MUTES, hours, rule_of, sentence
from millicent.dashboard.pages.prices_forms import text_of
from millicent.warehouse import alert_rules, alerts, endpoints, outbox
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from millicent.warehouse.endpoint_forms import Kind
    from millicent.warehouse.endpoints import Made
    from millicent.warehouse.store import Warehouse

Told = Mapping[str, str]

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
SOON: Final = timedelta(minutes=1)
KEPT: Final = "kept"
"""The one act that changes nothing: a secret that is shown has been kept."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an act.

    Attributes:
        words: what is said.
        done: whether it was done.
        opens: what the drawer shows next: None leaves it as it is, empty closes it.
        secret: name of an endpoint and the secret that was made for it.
    """

    words: str
    done: bool = True
    opens: str | None = None
    secret: tuple[str, str] | None = field(default=None, repr=False)


def carry_out(warehouse: Warehouse, act: Any) -> Outcome:
    """Do what a browser asks for.

    Args:
        warehouse: whose alerts, rules and endpoints.
        act: as `app.js` sends it: `do` and `told`.
    """
    try:
        who = access.principal()
    except LookupError:
        return Outcome("Nobody is asking.", done=False)
    if not who.operates:
        return Outcome(f"{who.actor} may read alerts, not change them: ask for an operator's session.", done=False)
    todo = ACTS.get(str(act.get("do"))) if isinstance(act, Mapping) else None
    if todo is None:
        return Outcome("There is no such action.", done=False)
    fmt.present(fmt.Presentation("USD", zone(preferences(warehouse.control, who.tenant).time_zone)))
    try:
        return todo(warehouse, who, text_of(act.get("told")))
    except (BadQuery, ValueError) as error:
        return Outcome(str(error), done=False)


# ---- alerts


def _acknowledge(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    alerts.acknowledge(warehouse.control, who.tenant, told.get("id", ""), who.actor)
    return Outcome("Acknowledged: others see that you see to it.")


def _snooze(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    until = datetime.now(UTC) + hours(told, SNOOZES)
    alerts.snooze(warehouse.control, who.tenant, told.get("id", ""), until, who.actor)
    return Outcome(f"Snoozed until {fmt.moment(until)} {fmt.zone()}.")


def _wake(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    alerts.snooze(warehouse.control, who.tenant, told.get("id", ""), datetime.now(UTC), who.actor)
    return Outcome("It is among the open ones again.")


def _resolve(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    alerts.resolve(warehouse.control, who.tenant, told.get("id", ""), who.actor)
    return Outcome("Resolved.")


# ---- endpoints


def _add_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    asked = asked_of(told)
    if any(one.name == asked.name for one in endpoints.listed(warehouse.control, who.tenant)):
        raise ValueError(f"There is an endpoint {asked.name!r} already: choose another name, or end that one first")
    made = endpoints.put(
        warehouse.control, who.tenant, asked.name, cast("Kind", asked.kind), asked.address, who.actor,
        types=types_of(asked.families, endpoints.TYPES), secret=asked.secret, check=endpoints.within(warehouse.reach),
    )  # fmt: skip
    opens = Opened.of("endpoint", id=made.endpoint.id).written
    return Outcome(f"{made.endpoint.name} is added. Send it a test.", opens=opens, secret=_shown_once(made))


def _rotate_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    fields = SECRETS.get(told.get("kind", ""), ())
    given = ":".join(told[name].strip() for name in fields if told.get(name, "").strip())
    made = endpoints.rotate(warehouse.control, who.tenant, told.get("id", ""), who.actor, secret=given or None,
                            check=endpoints.within(warehouse.reach))  # fmt: skip
    if made.secret is None:
        return Outcome("The new secret is used from now on.")
    return Outcome("The new secret signs from now on, the old one for 24 hours more.", secret=_shown_once(made))


def _shown_once(made: Made) -> tuple[str, str] | None:
    return (made.endpoint.name, made.secret) if made.secret is not None else None


def _test_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    outbox.try_out(warehouse.control, who.tenant, told.get("id", ""), who.actor)
    opens = Opened.of("endpoint", id=told.get("id", "")).written
    return Outcome("A test is on its way. What comes back stands among the deliveries.", opens=opens)


def _enable_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    found = endpoints.enable(warehouse.control, who.tenant, told.get("id", ""), who.actor)
    return Outcome(f"{found.name} is sent to again. What waited is sent now.")


def _disable_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    why = f"turned off by {who.actor}"
    found = endpoints.disable(warehouse.control, who.tenant, told.get("id", ""), who.actor, why)
    return Outcome(f"{found.name} is off: nothing more is sent to it.")


def _end_endpoint(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    found = endpoints.end(warehouse.control, who.tenant, told.get("id", ""), who.actor)
    return Outcome(f"{found.name} has ended.", opens="")


def _replay(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    outbox.replay(warehouse.control, who.tenant, _number(told), who.actor)
    return Outcome("It is sent again, with the same id.")


def _replay_dead(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    found = endpoints.find(warehouse.control, who.tenant, told.get("id", ""))
    if found is None:
        raise ValueError("There is no such endpoint any more.")
    now = datetime.now(UTC)
    sent = outbox.replay_range(warehouse.control, who.tenant, found.id, LONG_AGO, now + SOON, who.actor)
    return Outcome(f"{sent:,} of its deliveries are sent again, with the same ids.")


# ---- rules


def _put_rule(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    kept = alert_rules.put(warehouse.control, who.tenant, rule_of(told), who.actor)
    return Outcome(f"Saved: {kept.name}. {sentence(kept)}.", opens="")


def _mute_rule(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    until = datetime.now(UTC) + hours(told, MUTES)
    found = alert_rules.mute(warehouse.control, who.tenant, _number(told), until, who.actor)
    return Outcome(f"{found.name} is muted until {fmt.moment(until)}: its alerts come into the inbox alone.")


def _unmute_rule(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    found = alert_rules.mute(warehouse.control, who.tenant, _number(told), None, who.actor)
    return Outcome(f"{found.name} tells again.")


def _end_rule(warehouse: Warehouse, who: access.Principal, told: Told) -> Outcome:
    found = alert_rules.end(warehouse.control, who.tenant, _number(told), who.actor)
    return Outcome(f"{found.name} has ended.", opens="")


def _kept(_warehouse: Warehouse, _who: access.Principal, _told: Told) -> Outcome:
    return Outcome("")


Act = Callable[["Warehouse", access.Principal, Told], Outcome]
ACTS: Final[Mapping[str, Act]] = {
    "acknowledge": _acknowledge, "snooze": _snooze, "wake": _wake, "resolve": _resolve, KEPT: _kept,
    "add-endpoint": _add_endpoint, "rotate-endpoint": _rotate_endpoint, "test-endpoint": _test_endpoint,
    "enable-endpoint": _enable_endpoint, "disable-endpoint": _disable_endpoint, "end-endpoint": _end_endpoint,
    "replay": _replay, "replay-dead": _replay_dead,
    "put-rule": _put_rule, "mute-rule": _mute_rule, "unmute-rule": _unmute_rule, "end-rule": _end_rule,
}  # fmt: skip


def _number(told: Told) -> int:
    text = told.get("id", "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise ValueError(f"id {text!r} is no number: choose from the list")
    return int(text)
