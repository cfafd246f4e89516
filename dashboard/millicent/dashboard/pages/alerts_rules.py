"""The rules that make alerts: what each says in a sentence, a table of them, and the form that sets one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, get_args

from dash import dcc, html

from millicent.dashboard import alert_reading, filters
from millicent.dashboard import format as fmt
from millicent.dashboard.components import icon, link
from millicent.dashboard.pages.alerts_inbox import SEVERITIES
from millicent.dashboard.pages.alerts_parts import SMALL, button, confirm, lamp, opener, select
from millicent.dashboard.pages.prices_forms import entry_field, group
from millicent.dashboard.state import VERSION
from millicent.warehouse.alert_rules import FLOORS, OF_BUDGETS, WINDOWED, Kind
from millicent.warehouse.control import DECLARED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_forms import Told
    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.endpoints import Endpoint

MOST: Final = 45
"""Rules that are listed before budgets are only named."""
MOST_GROUPS: Final = 40
HUNDRED: Final = Decimal(100)
KINDS: Final[Mapping[Kind, tuple[str, str]]] = {
    "actual": ("Spend", "What a budget has spent of its limit."),
    "forecast": ("Forecast", "What a budget will have spent of its limit when its period ends."),
    "burn_rate": ("Burn rate", "How many times faster than an even pace a budget is being spent."),
    "anomaly": ("Unusual day", "A whole day that is far above the same weekday of the four weeks before."),
    "unit_cost": ("Cost per 1M", "What a million tokens cost."),
    "freshness": ("No new data", "Calls that stay away far longer than ever in the two weeks before."),
    "unpriced": ("No price", "The share of calls whose cost is not known in full."),
}
"""Kinds of rules, what they are called, and what they watch."""
ASKED: Final[Mapping[Kind, tuple[str, str]]] = {
    "actual": ("Percent of the limit", "80"), "forecast": ("Percent of the limit", "110"),
    "burn_rate": ("Times the even pace", "3"), "anomaly": ("Percent above the same weekday", "20"),
    "unit_cost": ("Cost of 1M tokens", "2.50"), "freshness": ("Times its longest silence", "2"),
    "unpriced": ("Percent of calls", "1"),
}  # fmt: skip
"""What a form calls the threshold of each kind, and an example."""
LEAST: Final[Mapping[str, tuple[str, str]]] = {
    "burn_rate": ("Only from this spend on", "10"), "anomaly": ("Only from this rise on", "50"),
    "unit_cost": ("Only from this spend on", "10"), "freshness": ("Only after hours", "1"),
    "unpriced": ("Only from so many calls on", "100"),
}  # fmt: skip
SHARES: Final = ("actual", "forecast", "anomaly", "unpriced")
"""Kinds whose threshold people write in percent."""
MUTES: Final = (("24", "For a day"), ("168", "For a week"), ("720", "For 30 days"))
"""Hours, and how they are called."""
WINDOWS: Final = {"1": "1 hour", "6": "6 hours", "24": "24 hours", "72": "3 days", "168": "7 days"}


def sentence(rule: Rule, currency: str = "USD") -> str:
    """What a rule says: `Spend reaches 80% of the limit`.

    Args:
        rule: what is told.
        currency: of its budget.
    """
    at, hours = rule.threshold, f"{rule.window_hours} h" if rule.window_hours else "its period"
    share, money = fmt.percent(at, 0 if at * HUNDRED == int(at * HUNDRED) else 1), _money(at, currency)
    return {
        "actual": f"Spend reaches {share} of the limit",
        "forecast": f"Forecast reaches {share} of the limit",
        "burn_rate": f"Spend runs at {_digits(at)}× the even pace over {hours}",
        "anomaly": f"A day is {share} above the same weekday",
        "unit_cost": f"1M tokens cost {money} or more over {hours}",
        "freshness": f"No call for {_digits(at)}× the longest silence",
        "unpriced": f"{share} of calls have no price, over {hours}",
    }[rule.kind] + _least(rule, currency)


def _least(rule: Rule, currency: str) -> str:
    if not rule.floor:
        return ""
    told = _money(rule.floor, currency)
    return {
        "burn_rate": f", from {told} on", "anomaly": f", by {told} or more", "unit_cost": f", from {told} on",
        "freshness": f", and at least {_digits(rule.floor)} h", "unpriced": f", at least {_digits(rule.floor)}",
    }.get(rule.kind, "")  # fmt: skip


def _money(amount: Decimal, currency: str) -> str:
    before = fmt.presented()
    fmt.present(fmt.Presentation(currency, before.zone))
    try:
        return fmt.usd(amount)
    finally:
        fmt.present(before)


@dataclass(frozen=True, slots=True)
class Around:
    """What a table of rules has to know beside them.

    Attributes:
        budgets: those that hold, by id.
        endpoints: names by id.
        firing: open alerts by id of their rule.
        now: the clock.
        operates: whether whoever looks may change rules.
    """

    budgets: Mapping[int | None, Budget]
    endpoints: Mapping[str, str]
    firing: Mapping[int | None, int]
    now: datetime
    operates: bool


def table(rules: Sequence[Rule], around: Around, *, unfold: bool = False) -> Component:
    """Rules by what they are about, each with how it is now and whom it tells; `unfold` opens all."""
    if not rules:
        words = "A budget gets its rules when it is set. Another can watch the cost of tokens, or data that stays away."
        return html.P(["No rule yet. ", words], className="quiet")
    groups: dict[int | None, list[Rule]] = {}
    for one in rules:
        groups.setdefault(one.budget if one.budget in around.budgets else None, []).append(one)
    parts, left = [], MOST
    for budget, found in list(groups.items())[:MOST_GROUPS]:
        parts.append(_group(around.budgets.get(budget), found[:MOST], around, unfold=unfold, whole=left > 0))
        left -= len(found)
    more = len(groups) - MOST_GROUPS
    rest = (
        [html.P(f"and the rules of {more:,} more budgets: see each on its page", className="quiet")] if more > 0 else []
    )
    return html.Div([*parts, *rest])


def _group(budget: Budget | None, rules: Sequence[Rule], around: Around, *, unfold: bool, whole: bool) -> Component:
    """Rules of one budget, or of none; where not `whole`, a way to them."""
    open_ = sum(around.firing.get(one.id, 0) for one in rules)
    muted = sum(one.is_muted(around.now) for one in rules)
    facts = [f"{len(rules)} rule{'' if len(rules) == 1 else 's'}", *([f"{muted} muted"] if muted else [])]
    face = [
        icon("next"), html.B(html.Bdi(budget.name) if budget else "Without a budget"),
        html.Span(" · ".join(facts)), lamp(f"{open_} open", "bad") if open_ else None,
    ]  # fmt: skip
    if not whole and budget is not None:
        return link(face, f"?v={VERSION}&budget={budget.id}", className="ruleset folded", key=str(budget.id))
    head = html.Thead(html.Tr([html.Th(words, scope="col") for words in ("When", "Urgency", "Tells", "Now")]))
    body = html.Tbody([_row(one, budget, around) for one in rules])
    key = str(budget.id) if budget else "none"
    ways: list[Component] = []
    if budget is not None:
        ways.append(link("See the budget", f"/budgets?v={VERSION}&budget={budget.id}", className="there"))
        if around.operates:
            ways.append(opener("Add a rule to it", "add-rule", "there", budget=budget.id))
    return html.Details(
        [html.Summary(face), html.Table([head, body], className="ruled"), html.P(ways, className="ways-of")],
        className="ruleset", open=unfold or None, key=key,
    )  # fmt: skip


def _row(rule: Rule, budget: Budget | None, around: Around) -> Component:
    says = sentence(rule, budget.currency if budget else "USD")
    below = html.Small(html.Bdi(rule.name if budget else f"{rule.name}: {scope(rule)}"))
    cells = [
        html.Th([opener(says, "rule", id=rule.id), below], scope="row"),
        html.Td(html.Span(SEVERITIES[rule.severity], className=f"severity {rule.severity}")),
        html.Td(html.Bdi(tells(rule, around.endpoints)), className="tells"),
        html.Td(_state(rule, around.firing.get(rule.id, 0), around.now)),
    ]
    return html.Tr(cells, key=str(rule.id))


def scope(rule: Rule) -> str:
    """What spend a rule is about that has no budget."""
    told = [filters.written(one).replace(":", " ") for one in rule.filters]
    return ", ".join(told) or "everything"


def tells(rule: Rule, endpoints: Mapping[str, str]) -> str:
    """Whom a rule tells, in words."""
    if not rule.endpoints:
        return "every endpoint"
    return ", ".join(endpoints.get(one, "one that has ended") for one in rule.endpoints)


def _state(rule: Rule, firing: int, now: datetime) -> Component:
    found = [lamp(f"{firing} open" if firing > 1 else "Open", "bad")] if firing else []
    if rule.muted_until is not None and rule.is_muted(now):
        found.append(lamp(f"Muted until {fmt.moment(rule.muted_until)}", "muted"))
    return html.Div(found or [lamp("Quiet", "good")], className="states")


def opened(
    rule: Rule, budgets: Sequence[Budget], endpoints: Sequence[Endpoint], now: datetime, *, operates: bool
) -> list[Component]:
    """One rule: whom it tells and how it is, and what an operator can change.

    Args:
        rule: what is open.
        budgets: those that hold.
        endpoints: those that have not ended.
        now: the clock.
        operates: whether whoever looks may change it.
    """
    budget = next((one for one in budgets if one.id == rule.budget), None)
    about: Any = html.Bdi(scope(rule))
    if budget is not None:
        about = link(html.Bdi(budget.name), f"/budgets?v={VERSION}&budget={budget.id}", className="there")
    state = f"muted until {fmt.moment(rule.muted_until)}" if rule.is_muted(now) and rule.muted_until else "watches"
    told: list[tuple[str, Any]] = [
        ("About", about), ("Watches", KINDS[rule.kind][1]), ("Urgency", SEVERITIES[rule.severity]),
        ("Tells", html.Bdi(tells(rule, {one.id: one.name for one in endpoints}))), ("Now", state),
        ("Set by", html.Bdi(rule.author or "somebody")),
    ]  # fmt: skip
    facts = html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in told], className="facts single")
    if not operates:
        return [facts]
    if rule.author == DECLARED:
        return [facts, html.P("It is declared in millicent.toml, and changed there.", className="quiet")]
    return [facts, _acts(rule, now), html.H3("Change it"), *rule_form({}, budgets, endpoints, rule)]


def _acts(rule: Rule, now: datetime) -> Component:
    if rule.is_muted(now):
        quiet: Component = button("Unmute", "unmute-rule", id=str(rule.id))
    else:
        lengths = [button(words, "mute-rule", id=str(rule.id), hours=hours) for hours, words in MUTES]
        means = "Its alerts still come into the inbox. Nobody is told of them meanwhile."
        quiet = confirm("Mute", means, [html.Div(lengths, className="choices")], "button")
    ends = button("End the rule", "end-rule", className="button danger", id=str(rule.id))
    over = confirm("End", "It watches no more. Its alerts that are open are resolved.", [ends], "button")
    return html.Div([quiet, over], className="acts")


def rule_form(
    told: Told, budgets: Sequence[Budget], endpoints: Sequence[Endpoint], rule: Rule | None = None
) -> list[Component]:
    """The form for one kind of rule, and the way to the other kinds where it is a new one.

    Args:
        told: what the form begins with; `kind` and `budget`.
        budgets: those that hold.
        endpoints: those that have not ended.
        rule: what is changed; None for a new one.
    """
    asked = told.get("kind", "")
    kind: Kind = rule.kind if rule else next((one for one in get_args(Kind) if one == asked), "actual")
    title, means = KINDS[kind]
    ways = [] if rule else [_kinds(kind, told.get("budget"))]
    begun = _begun(rule, kind) if rule else {"name": title, **told}
    save = "Save" if rule else "Add the rule"
    form = html.Form(
        [
            dcc.Input(type="hidden", name="kind", value=kind),
            *([dcc.Input(type="hidden", name="id", value=str(rule.id))] if rule else []),
            _subject(kind, begun, budgets),
            _when(kind, begun),
            group("Says", [entry_field("name", "Name", begun, needed=True),
                           select("severity", "Urgency", SEVERITIES, begun.get("severity", "warning"))]),
            _whom(rule, endpoints),
            html.Div([html.Small("It holds within seconds."),
                      button(save, "put-rule", submit=True, className="button primary")], className="pager"),
        ],
        className="form", key=f"{kind} {rule.id if rule else ''}",
    )  # fmt: skip
    return [*ways, form] if rule else [*ways, html.P(means, className="lead"), form]


def _kinds(kind: Kind, budget: str | None) -> Component:
    items = [
        html.Li(opener(title, "add-rule", f"{SMALL} primary" if key == kind else SMALL, kind=key, budget=budget))
        for key, (title, _) in KINDS.items()
    ]
    return html.Ul(items, className="kinds")


def _begun(rule: Rule, kind: Kind) -> dict[str, str]:
    at = rule.threshold * HUNDRED if kind in SHARES else rule.threshold
    return {
        "name": rule.name, "threshold": _digits(at), "floor": _digits(rule.floor), "severity": rule.severity,
        "window_hours": str(rule.window_hours), "budget": str(rule.budget or ""),
        "filters": " ".join(filters.written(one) for one in rule.filters),
    }  # fmt: skip


def _digits(value: Decimal | None) -> str:
    return "" if value is None else f"{value.normalize():f}"


def _subject(kind: Kind, begun: Told, budgets: Sequence[Budget]) -> Component:
    names = {str(one.id): one.name for one in budgets}
    if kind in OF_BUDGETS:
        return group("About", [select("budget", "Budget", names, begun.get("budget", ""))], "one")
    free = {"": "no budget: as filtered", **names}
    return group("About", [
        select("budget", "Budget", free, begun.get("budget", "")),
        entry_field("filters", "Without a budget, only", begun, hint="team:search model:gpt-5; empty: everything"),
    ])  # fmt: skip


def _when(kind: Kind, begun: Told) -> Component:
    words, hint = ASKED[kind]
    fields = [entry_field("threshold", words, begun, hint=hint, mode="decimal", needed=True)]
    if kind in FLOORS:
        words, hint = LEAST[kind]
        fields.append(entry_field("floor", words, begun, hint=hint, mode="decimal"))
    if kind in WINDOWED:
        now = begun.get("window_hours") or "24"
        own = {} if now in WINDOWS else {now: "the budget's period" if now == "0" else f"{now} hours"}
        fields.append(select("window_hours", "Over the last", {**WINDOWS, **own}, now))
    return group("When it reaches", fields, "three" if len(fields) > 2 else "")


def _whom(rule: Rule | None, endpoints: Sequence[Endpoint]) -> Component:
    if not endpoints:
        return html.P("There is no endpoint yet: it comes into the inbox alone.", className="quiet")
    chosen = [one for one in (rule.endpoints if rule else ()) if any(one == other.id for other in endpoints)]
    ticks = dcc.Checklist(id="rule-endpoints", options=[{"value": one.id, "label": one.name} for one in endpoints],
                          value=chosen, className="ticks")  # fmt: skip
    return html.Fieldset([html.Legend("Tells only these; none ticked, every one"), ticks], className="one")


def rule_of(told: Told) -> Rule:
    """The rule that a form holds.

    Raises:
        ValueError: naming what is wrong with it.
    """
    kind = told.get("kind", "")
    texts = {name: told[name].strip() for name in ("name", "severity") if told.get(name, "").strip()}
    said: dict[str, Any] = {"kind": kind, **texts}
    for name in ("budget", "id", "window_hours"):
        if text := told.get(name, "").strip():
            said[name] = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else text
    if text := told.get("threshold", "").strip():
        said["threshold"] = _share(text) if kind in SHARES else text.removeprefix("$")
    if text := told.get("floor", "").strip():
        said["floor"] = text.removeprefix("$").replace(",", "")
    if "budget" not in said:
        said["filters"] = told.get("filters", "").split()
    said["endpoints"] = [one for one in told.get("rule-endpoints", "").split("\n") if one]
    return alert_reading.read(said)


def _share(text: str) -> str:
    try:
        return f"{Decimal(text.removesuffix('%').strip()) / HUNDRED:f}"
    except InvalidOperation:
        return text


def hours(told: Told, known: Sequence[tuple[str, str]]) -> timedelta:
    """How long somebody chose, of the lengths that are offered.

    Raises:
        ValueError: it is none of them.
    """
    if told.get("hours") not in {one for one, _ in known}:
        raise ValueError(f"{told.get('hours', '')!r} hours are not offered: choose one of the buttons")
    return timedelta(hours=int(told["hours"]))
