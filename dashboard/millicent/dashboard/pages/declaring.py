"""Declaring a deployment on the Accelerators page: the drawer, what an hour would cost, and the act itself.

The act is checked as any request of the API is: whoever sends it is asked for, and what it tells is text from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dash import html

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.components import DECLARE, data, link
from millicent.dashboard.pages.declaring_form import OPENS, begun, declaration, form, in_words, opens, problems
from millicent.dashboard.pages.derivation import shelf
from millicent.dashboard.pages.figures import exact
from millicent.dashboard.pages.prices_forms import text_of
from millicent.dashboard.pages.requests_drawer import derived
from millicent.dashboard.state import VERSION
from millicent.pricing.hourly import SECONDS_PER_HOUR, hourly_cost
from millicent.warehouse.deployments import BadDeploymentsError
from millicent.warehouse.explain import Line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.pricing.hourly import HourCost
    from millicent.warehouse.declaring import Declared
    from millicent.warehouse.deployments import Deployment
    from millicent.warehouse.store import Warehouse

J_PER_WH: Final = 3600
OUTCOMES: Final = {
    "added": "It can be declared so.", "replaced": "It takes the place of what was declared for that hour.",
    "ended": "It moves the end of what holds already.", "unchanged": "It holds already: declaring it changes nothing.",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an act: words for all, what stands beside the form, and whether it was declared, or just fine."""

    words: str
    beside: Component | None = None
    declared: bool = False
    done: bool = False


def operates() -> bool:
    """Whether whoever looks may declare."""
    try:
        return access.principal().operates
    except LookupError:
        return False


def button(face: Any = "Declare a deployment", **told: str) -> Component:
    """What opens the form, with what is told."""
    what = opens(**told)
    return link(face, f"?v={VERSION}&open={quote(what, safe='')}", className="button", **data(opens=what))


def drawer(open_: str) -> Component | None:
    """The form, for an operator; the command for anybody else. None where something else is opened."""
    told = begun(open_)
    if told is None:
        return None
    says = "What serves a model, on which accelerators, and how they are paid. What you leave empty, the catalog says."
    if operates():
        return shelf("Declare a deployment", says, [form(told, datetime.now(UTC))], key=open_)
    words = html.P("An operator can declare it here. On the machine of the instance, this command does:")
    return shelf("Declare a deployment", says, [html.Div([words, html.Pre(DECLARE)])], key=OPENS)


def carry_out(warehouse: Warehouse, act: Any) -> Answer:
    """Check or declare what a form holds.

    Args:
        warehouse: whose deployments.
        act: as `app.js` sends it: `do` and `told`.
    """
    try:
        who = access.principal()
    except LookupError:
        return Answer("Nobody is asking.")
    if not who.operates:
        return Answer(f"{who.actor} may read deployments, not declare them: ask for an operator's session.")
    if not isinstance(act, Mapping) or act.get("do") not in {"check", "declare"}:
        return Answer("There is no such action.")
    return _done(warehouse, who, text_of(act.get("told")), dry_run=act["do"] == "check")


def _done(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], *, dry_run: bool) -> Answer:
    try:
        asked = declaration(told, datetime.now(UTC))
        (one,) = warehouse.control.declare_all(
            [asked], who.tenant, who.actor, replacing=told.get("replace") == "yes", dry_run=dry_run
        )
    except BadDeploymentsError as error:
        name = told.get("name", "").strip()
        return _refused([in_words(problem, name) for problem in error.problems], dry_run=dry_run)
    except ValueError as error:
        return _refused([str(error)], dry_run=dry_run)
    return Answer("", _effect(one), done=True) if dry_run else Answer(_said(one), declared=True, done=True)


def _refused(found: Sequence[str], *, dry_run: bool) -> Answer:
    count = "One thing is" if len(found) == 1 else f"{len(found)} things are"
    return Answer("" if dry_run else f"Not declared. {count} wrong: see beside the form.", problems(found))


def _said(one: Declared) -> str:
    held = one.deployment
    since = f"{fmt.moment(held.effective_from)} UTC"
    if one.outcome == "unchanged":
        return f"{held.name} is declared so already, since {since}."
    busy = _hour(held, SECONDS_PER_HOUR).total_usd
    return f"{held.name} is declared from {since} on, at {fmt.usd(busy)} an hour. Its hours follow within minutes."


def _hour(one: Deployment, busy_seconds: int) -> HourCost:
    """Its first hour, with calls for so long."""
    return hourly_cost(one.cost_profile(), one.accelerator, one.accelerator_count, region=one.region,
                       power=one.electricity(), busy_seconds=busy_seconds, at=one.effective_from)  # fmt: skip


def _effect(one: Declared) -> Component:
    """What an hour of it would cost, with calls throughout and without any, and every number that this follows from."""
    busy, idle = _hour(one.deployment, SECONDS_PER_HOUR), _hour(one.deployment, 0)
    facts = [
        ("An hour of calls", fmt.usd(busy.total_usd), exact(busy.total_usd, "usd")),
        ("An idle hour", fmt.usd(idle.total_usd), exact(idle.total_usd, "usd")),
        ("Energy, hour of calls", fmt.UNKNOWN if busy.joules is None else fmt.value_text(busy.joules / J_PER_WH, "wh"),
         exact(busy.joules, "joules")),
    ]  # fmt: skip
    boxes = html.Dl([html.Div([html.Dt(name), html.Dd(text, title=told)]) for name, text, told in facts],
                    className="costs")  # fmt: skip
    lines = [Line("inputs of the hour", each.name, exact(each.value, ""), each.unit, each.source)
             for each in busy.inputs]  # fmt: skip
    parts = {"fixed": busy.fixed_usd, "hosting": busy.hosting_usd, "energy": busy.energy_usd}
    lines += [Line("deployment-hour", name, exact(usd, ""), "USD", "calls throughout") for name, usd in parts.items()]
    lines.append(
        Line("deployment-hour", "cost of the hour", exact(busy.total_usd, ""), "USD", "fixed, hosting, energy")
    )
    return html.Div(
        [html.H3("What an hour would cost"), html.P(OUTCOMES[one.outcome], className="quiet"), boxes, derived(lines)]
    )
