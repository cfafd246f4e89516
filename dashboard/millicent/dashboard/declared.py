"""What `millicent.toml` declares: budgets, rules of alerts and endpoints. Read, checked, and made so at every start.

The file is the whole truth about what it declares: a table that is there is set, one that is left out ends, and nobody
else changes what it set. It names environment variables and files where secrets are, so that it can be shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from millicent.dashboard import alert_reading
from millicent.dashboard.budgets import read_by
from millicent.dashboard.settings import FILE, BadSettingsError, Settings
from millicent.warehouse import alert_rules, budgets, endpoints
from millicent.warehouse.control import DECLARED, DEFAULT_TENANT
from millicent.warehouse.instants import midnight
from millicent.warehouse.workspace import Workspace, preferences, zone

if TYPE_CHECKING:
    from millicent.warehouse.alert_rules import Rule
    from millicent.warehouse.budgets import Budget
    from millicent.warehouse.control import Control
    from millicent.warehouse.endpoint_forms import Kind
    from millicent.warehouse.endpoints import Check

SECRETS: Final = ("address", "secret")
"""Fields of an endpoint that may be told by `…_env`, a variable that holds it, or `…_file`, a file that does."""
_ENDPOINT: Final = ("name", "kind", "types", *(f"{name}{how}" for name in SECRETS for how in ("", "_env", "_file")))
_LONGEST_FILE: Final = 8192
_NO_BUDGET: Final = 0
"""Stands for the budget of a rule until that budget is set."""
_Made = TypeVar("_Made")


class BadDeclarationError(BadSettingsError):
    """Something declared that cannot be; each of `problems` names the table, the value, the rule and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class DeclaredRule:
    """A rule, and the names of what it is about and of who is told."""

    rule: Rule
    budget: str | None
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeclaredEndpoint:
    """An endpoint as it is to be."""

    name: str
    kind: Kind
    address: str = field(repr=False)
    secret: str | None = field(repr=False)
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """All that is declared.

    Attributes:
        budgets: each with the name of the one that it is a part of; wholes before their parts.
        rules: of budgets and of spend.
        endpoints: where alerts go.
        check: refuses an endpoint that nothing could be sent to.
    """

    budgets: tuple[tuple[Budget, str | None], ...]
    rules: tuple[DeclaredRule, ...]
    endpoints: tuple[DeclaredEndpoint, ...]
    check: Check


@dataclass(slots=True)
class Outcome:
    """What came of it, in words: what is new or other than before, what ended, and what could not be done."""

    set: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def speaks(settings: Settings) -> bool:
    """Whether anything is declared, or is no more. Without the file and any table, what was declared stays."""
    told = (settings.budgets, settings.rules, settings.endpoints)
    return any(tables is not None for tables in told) or Path(FILE).is_file()


def read(settings: Settings, control: Control | None, environment: Mapping[str, str] = os.environ) -> Declaration:
    """What the settings declare, checked as far as it can be without changing anything.

    Args:
        settings: hold the tables.
        control: knows what the workspace prefers, and what is there besides; None: nothing is.
        environment: where `…_env` is looked up.

    Raises:
        BadDeclarationError: naming every problem.
    """
    problems: list[str] = []
    liked = preferences(control, DEFAULT_TENANT) if control else Workspace()
    endpoint = partial(_endpoint, environment=environment, check=(check := endpoints.within(settings.reach)))
    found = (
        dict(_each("budgets", settings.budgets, partial(_budget, liked=liked), problems)),
        dict(_each("rules", settings.rules, _rule, problems)),
        dict(_each("endpoints", settings.endpoints, endpoint, problems)),
    )
    others = _held(control) if control else (set[str](), set[str]())
    ordered = _wholes_first(found[0], others[0], problems)
    _check_names(found[1], others[0] | _names(settings.budgets), others[1] | _names(settings.endpoints), problems)
    if problems:
        raise BadDeclarationError(problems)
    return Declaration(ordered, tuple(found[1].values()), tuple(found[2].values()), check)


def carry_out(control: Control, declaration: Declaration, tenant: str = DEFAULT_TENANT) -> Outcome:
    """Make it so: set what is new or changed, end what the file set before and tells no more. Doing it again is free.

    What cannot be done is told, and hinders nothing else.
    """
    outcome = Outcome()
    _set_endpoints(control, tenant, declaration, outcome)
    _set_budgets(control, tenant, declaration, outcome)
    _set_rules(control, tenant, declaration, outcome)
    _end_others(control, tenant, declaration, outcome)
    return outcome


def checks(settings: Settings, control: Control | None) -> tuple[dict[str, str], bool]:
    """What is declared, or every problem on a line of its own, for `millicent doctor`; and whether all is well."""
    if not speaks(settings):
        return {}, True
    try:
        found = read(settings, control)
    except BadDeclarationError as error:
        return {f"declared, problem {at}": problem for at, problem in enumerate(error.problems, start=1)}, False
    counted = ((found.budgets, "budgets"), (found.rules, "rules"), (found.endpoints, "endpoints"))
    return {"declared": ", ".join(f"{len(some)} {name}" for some, name in counted)}, True


# ---- reading


def _each(
    table: str, told: Sequence[dict[str, Any]] | None, make: Callable[[dict[str, Any]], _Made], problems: list[str]
) -> Iterator[tuple[str, _Made]]:
    """What each table of a kind tells, by name; what cannot be is a problem."""
    seen = set[str]()
    for at, one in enumerate(told or (), start=1):
        name = one.get("name")
        called = f"[[{table}]] {name!r}" if isinstance(name, str) and name else f"[[{table}]] number {at}"
        if not isinstance(name, str) or not name.strip():
            problems.append(f'{called} has no name: write name = "…", by which it is found again at the next start')
        elif name in seen:
            problems.append(f"{called} is there twice: give each a name of its own")
        else:
            seen.add(name)
            try:
                yield name, make(one)
            except ValueError as error:
                problems.append(f"{called}: {error}")


def _budget(told: dict[str, Any], liked: Workspace) -> tuple[Budget, str | None]:
    if alien := {"id", "version"}.intersection(told):
        raise ValueError(f"{min(alien)} is given when it is set: leave it out, the name is enough")
    parent = told.get("parent")
    if parent is not None and (not isinstance(parent, str) or parent == told["name"]):
        raise ValueError(f'parent {str(parent)[:40]!r} is not the name of another budget: write parent = "Company"')
    place = zone(str(told.get("time_zone", liked.time_zone)))
    since = told.get("effective_from")
    if isinstance(since, datetime):
        since = since.isoformat()
    elif isinstance(since, date):
        since = midnight(since, place).isoformat()
    kept = {name: value for name, value in told.items() if name != "parent"}
    return read_by(kept | ({"effective_from": since} if since is not None else {}), liked), parent


def _rule(told: dict[str, Any]) -> DeclaredRule:
    if "id" in told:
        raise ValueError("id is given when it is set: leave it out, the name is enough")
    budget, names = told.get("budget"), told.get("endpoints", [])
    if budget is not None and not isinstance(budget, str):
        raise ValueError(f'budget {str(budget)[:40]!r} is not the name of a budget: write budget = "Search"')
    rule = alert_reading.read({**told, "budget": None if budget is None else _NO_BUDGET})
    return DeclaredRule(rule, budget, tuple(names))


def _endpoint(told: dict[str, Any], environment: Mapping[str, str], check: Check) -> DeclaredEndpoint:
    if unknown := [name for name in told if name not in _ENDPOINT]:
        raise ValueError(f"field {unknown[0][:40]!r} is unknown: write {', '.join(_ENDPOINT)}")
    kind, types = told.get("kind", "webhook"), told.get("types", [])
    if not isinstance(types, list) or (odd := [one for one in types if one not in endpoints.TYPES]):
        wrong = odd[0] if isinstance(types, list) else types
        raise ValueError(
            f"types has {str(wrong)[:60]!r}: write a list of {', '.join(endpoints.TYPES)}, or none for all"
        )
    address, secret = (_hidden(told, name, environment) for name in SECRETS)
    if address is None:
        raise ValueError('it has no address: write address_env = "NAME" of the variable that holds it, or address')
    if kind == "webhook" and secret is None:
        raise ValueError(
            'it has no secret, and the receiver needs the same one: write secret_env = "NAME" of a variable that holds '
            'whsec_ and 32 random bytes in base64, such as from: echo "whsec_$(openssl rand -base64 32)"'
        )
    check(kind, address, (secret,) if secret else ())
    return DeclaredEndpoint(told["name"], kind, address, secret, tuple(types))


def _hidden(told: dict[str, Any], name: str, environment: Mapping[str, str]) -> str | None:
    """What is told as it is, by the name of a variable, or by a file; errors never say it."""
    ways = [way for way in (name, f"{name}_env", f"{name}_file") if told.get(way) is not None]
    if not ways:
        return None
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} are both there: keep one of them")
    where = told[ways[0]]
    if not isinstance(where, str):
        raise ValueError(f"{ways[0]} is not text: correct it")  # noqa: TRY004 - one kind for all that is told wrongly
    if ways[0] == name:
        return where
    if ways[0].endswith("_env"):
        if not (found := environment.get(where, "").strip()):
            raise ValueError(f"{ways[0]}: the variable {where} is not set, or empty: set it for this process")
        return found
    try:
        with Path(where).open(encoding="utf-8") as opened:
            found = opened.read(_LONGEST_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text"
        raise ValueError(f"{ways[0]}: {where} cannot be read ({why}): correct the path or its permissions") from error
    if not found:
        raise ValueError(f"{ways[0]}: {where} is empty: write it there")
    return found


def _names(told: Sequence[dict[str, Any]] | None) -> set[str]:
    return {str(one.get("name")) for one in told or ()}


def _held(control: Control) -> tuple[set[str], set[str]]:
    """Names of budgets and of endpoints that there are, and that somebody else set."""
    others = [one.name for one in _latest(control, DEFAULT_TENANT) if one.author != DECLARED]
    places = [one.name for one in endpoints.listed(control, DEFAULT_TENANT) if one.author != DECLARED]
    return set(others), set(places)


def _wholes_first(
    told: Mapping[str, tuple[Budget, str | None]], others: Collection[str], problems: list[str]
) -> tuple[tuple[Budget, str | None], ...]:
    ordered: dict[str, tuple[Budget, str | None]] = {}
    waiting = dict(told)
    while ready := [name for name, (_, whole) in waiting.items() if whole is None or whole not in waiting]:
        for name in ready:
            ordered[name] = waiting.pop(name)
    for name, (_, whole) in ordered.items():
        if whole is not None and whole not in told and whole not in others:
            problems.append(f"[[budgets]] {name!r}: parent {whole!r} is no budget: declare it, or correct the name")
    if waiting:
        problems.append(
            f"[[budgets]] {', '.join(map(repr, waiting))} are parts of each other: one of them has no parent"
        )
    return tuple(ordered.values())


def _check_names(
    rules: Mapping[str, DeclaredRule], known: Collection[str], places: Collection[str], problems: list[str]
) -> None:
    for name, one in rules.items():
        if one.budget is not None and one.budget not in known:
            problems.append(f"[[rules]] {name!r}: budget {one.budget!r} is none: declare it, or correct the name")
        problems += [
            f"[[rules]] {name!r}: endpoint {place!r} is none: declare it, or correct the name"
            for place in one.endpoints
            if place not in places
        ]


# ---- carrying out


@contextmanager
def _tried(outcome: Outcome, what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        outcome.problems.append(f"{what}: {error}")


def _set_endpoints(control: Control, tenant: str, told: Declaration, outcome: Outcome) -> None:
    before = {one.name: one for one in endpoints.listed(control, tenant)}
    for one in told.endpoints:
        with _tried(outcome, f"endpoint {one.name!r}"):
            old = before.get(one.name)
            if old is not None and old.kind != one.kind:
                endpoints.end(control, tenant, old.id, DECLARED)
            made = endpoints.put(
                control, tenant, one.name, one.kind, one.address, DECLARED,
                types=one.types, secret=one.secret, check=told.check,
            )  # fmt: skip
            if made.endpoint != old:
                outcome.set.append(f"endpoint {one.name}")


def _set_budgets(control: Control, tenant: str, told: Declaration, outcome: Outcome) -> None:
    before = {one.name: one for one in _latest(control, tenant)}
    for one, whole in told.budgets:
        with _tried(outcome, f"budget {one.name!r}"):
            parent = _id(control, tenant, whole) if whole is not None else None
            if budgets.put(control, tenant, replace(one, parent=parent), DECLARED) != before.get(one.name):
                outcome.set.append(f"budget {one.name}")


def _set_rules(control: Control, tenant: str, told: Declaration, outcome: Outcome) -> None:
    before = {one.name: one for one in alert_rules.live(control, tenant)}
    places = {one.name: one.id for one in endpoints.listed(control, tenant)}
    for one in told.rules:
        with _tried(outcome, f"rule {one.rule.name!r}"):
            about = _id(control, tenant, one.budget) if one.budget is not None else None
            old = before.get(one.rule.name)
            rule = replace(
                one.rule, budget=about, endpoints=tuple(places[name] for name in one.endpoints if name in places),
                muted_until=old.muted_until if old else None,
            )  # fmt: skip
            if alert_rules.put(control, tenant, rule, DECLARED) != old:
                outcome.set.append(f"rule {rule.name}")


def _end_others(control: Control, tenant: str, told: Declaration, outcome: Outcome) -> None:
    """End what the file set once and tells no more."""
    _end_rules(control, tenant, told, outcome)
    kept = {one.name for one, _ in told.budgets}
    for budget in _latest(control, tenant):
        if budget.author == DECLARED and budget.name not in kept:
            with _tried(outcome, f"budget {budget.name!r}"):
                budgets.end(control, tenant, budget.id or 0, DECLARED)
                outcome.ended.append(f"budget {budget.name}")
    places = {one.name for one in told.endpoints}
    for place in endpoints.listed(control, tenant):
        if place.author == DECLARED and place.name not in places:
            with _tried(outcome, f"endpoint {place.name!r}"):
                endpoints.end(control, tenant, place.id, DECLARED)
                outcome.ended.append(f"endpoint {place.name}")


def _end_rules(control: Control, tenant: str, told: Declaration, outcome: Outcome) -> None:
    """End rules; a budget that the file has rules for has these alone, and gets those it was given back without any."""
    names = {one.rule.name for one in told.rules}
    own = {one.budget for one in told.rules}
    called = {one.id: one.name for one in _latest(control, tenant)}
    bereft = set[str]()
    for rule in alert_rules.live(control, tenant):
        about = called.get(rule.budget)
        replaced = rule.author == alert_rules.GIVEN and about is not None and about in own
        if rule.name not in names and (rule.author == DECLARED or replaced):
            with _tried(outcome, f"rule {rule.name!r}"):
                alert_rules.end(control, tenant, rule.id or 0, DECLARED)
                outcome.ended.append(f"rule {rule.name}")
                bereft |= {about} - own if about is not None else set()
    for budget, _ in told.budgets:
        if budget.name in bereft:
            with _tried(outcome, f"rules of budget {budget.name!r}"):
                found = replace(budget, id=_id(control, tenant, budget.name))
                for rule in alert_rules.defaults(found):
                    alert_rules.put(control, tenant, rule, alert_rules.GIVEN)
                    outcome.set.append(f"rule {rule.name}")


def _latest(control: Control, tenant: str) -> list[Budget]:
    """The version of every budget that holds in the end."""
    return budgets.live(control, tenant, budgets.LAST)


def _id(control: Control, tenant: str, name: str) -> int:
    found = next((one.id for one in _latest(control, tenant) if one.name == name), None)
    if found is None:
        raise ValueError(f"there is no budget {name!r}: see `millicent budgets list`")
    return found
