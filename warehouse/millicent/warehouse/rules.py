"""Attribution rules: what calls are to be tagged with where telemetry does not say it, or says it wrong.

A rule holds for a call when all its conditions do and the call began in the rule's period. Conditions look at what
telemetry told, never at what another rule set. For each tag the first rule by position that may set it decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final, Literal, cast, get_args

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)  # fmt: skip

from millicent.warehouse.instants import Instant, text_of

Operator = Literal["is", "matches", "absent"]

SETTABLE: Final = ("team", "project", "feature", "customer", "environment", "deployment", "provider")
"""What a rule may set. `deployment` brings what its declaration says; `provider` says whose price list holds."""
FIELDS: Final = (
    "accelerator", "customer", "deployment", "dialect", "endpoint_host", "engine", "environment", "error_type",
    "feature", "key_id", "model", "operation", "precision", "project", "provider", "region", "request_model",
    "response_model", "scope", "scope_version", "service", "service_tier", "session_id", "signal", "status", "team",
    "user_id",
)  # fmt: skip
"""Columns of the record that a condition may look at."""
ATTRIBUTE: Final = "attribute:"
RESOURCE: Final = "resource:"
LABEL: Final = "millicent.label."
MOST_RULES: Final = 500
MOST_CONDITIONS: Final = 20
MOST_VALUES: Final = 200
LONGEST: Final = 1024

_CONTENT: Final = re.compile(
    r"(messages?|prompts?|completions?|system_instructions|arguments|documents?|exception\.(message|stacktrace))(\.|$)"
    r"|^(input|output)\.value$|^ai\.(prompt|response\.(text|object|toolcalls|reasoning))"
    r"|^(langfuse\.(observation|trace)|traceloop\.entity)\.(input|output)$|tool\.call\.result|^(request|response)_data$"
    r"|authorization|api[-_.]?key$|password|secret|cookie",
    re.IGNORECASE,
)
"""Attributes that hold what was said to a model, or a secret: neither is ever stored."""

metadata: Final = MetaData()
attribution_rules: Final = Table(
    "attribution_rules", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("position", Integer, nullable=False), Column("conditions", JSON, nullable=False),
    Column("sets", JSON, nullable=False), Column("override", Boolean, nullable=False),
    Column("effective_from", Instant), Column("effective_to", Instant), Column("author", String, nullable=False),
    Column("note", String, nullable=False), Column("created_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be true of one field.

    `field` is a name of `FIELDS`, or `attribute:KEY` or `resource:KEY` for an attribute of the span or its resource.
    `is`: the text is one of `values`. `matches`: the one regular expression of `values` is found anywhere in the text
    (RE2 syntax; ^ and $ anchor it). `absent`: the field is unknown. Text is compared with its case.

    Raises:
        ValueError: the field, the operator or a value is not what it must be.
    """

    field: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_field(self.field)
        if self.operator not in get_args(Operator):
            raise ValueError(f"operator {self.operator!r} is unknown: write {', '.join(get_args(Operator))}")
        if self.operator == "absent" and self.values:
            raise ValueError(f"{self.field} absent takes no values: leave them out")
        if self.operator != "absent" and not 1 <= len(self.values) <= MOST_VALUES:
            raise ValueError(f"{self.field} {self.operator} has {len(self.values)} values: name 1 to {MOST_VALUES}")
        for value in self.values:
            _check_text(self.field, value)
        if self.operator == "matches":
            if len(self.values) > 1:
                raise ValueError(f"{self.field} matches takes one expression: join them with |")
            _check_pattern(self.values[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Tags for the calls that meet all of `when` and began in `[effective_from, effective_to)`; None is unbounded.

    `override` replaces a tag that telemetry told; without it only calls that lack the tag get it. `position` is its
    place among the tenant's rules, from 1; None: last. `id`, `author` and `created_at` are given when it is added.

    Raises:
        ValueError: it has no condition, sets nothing or what cannot be set, or its period is empty.
    """

    when: tuple[Condition, ...]
    sets: Mapping[str, str] = field(hash=False)
    override: bool = False
    position: int | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None
    note: str = ""
    author: str = ""
    id: int | None = None
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.when) <= MOST_CONDITIONS:
            raise ValueError(
                f"a rule has 1 to {MOST_CONDITIONS} conditions, not {len(self.when)}: to hold for every call that "
                "lacks a team, write `team absent`"
            )
        if not self.sets:
            raise ValueError(f"the rule sets nothing: name at least one of {', '.join(SETTABLE)}")
        for tag, value in self.sets.items():
            if tag not in SETTABLE:
                raise ValueError(f"{tag!r} cannot be set by a rule{_near(tag, SETTABLE)}: set {', '.join(SETTABLE)}")
            _check_text(tag, value)
            if not value.strip():
                raise ValueError(f"{tag} is set to blank: name a value, since unknown is not one")
        if self.position is not None and self.position < 1:
            raise ValueError(f"position {self.position} is before the first: positions begin at 1")
        for instant in (self.effective_from, self.effective_to):
            if instant is not None and instant.tzinfo is None:
                raise ValueError(f"{instant.isoformat()} has no time zone: add Z for UTC or an offset")
        if self.effective_from and self.effective_to and self.effective_from >= self.effective_to:
            raise ValueError(
                f"the rule ends at {self.effective_to.isoformat()}, not after it begins at "
                f"{self.effective_from.isoformat()}: swap them"
            )


def written(rule: Rule) -> dict[str, Any]:
    """A rule as JSON: conditions as `{"field": …, "is": […]}`, `"matches": …` or `"absent": true`; instants as text."""
    return {
        "id": rule.id, "position": rule.position, "when": [_condition_json(one) for one in rule.when],
        "sets": dict(rule.sets), "override": rule.override, "effective_from": text_of(rule.effective_from),
        "effective_to": text_of(rule.effective_to), "author": rule.author, "note": rule.note,
        "created_at": text_of(rule.created_at),
    }  # fmt: skip


def read(told: Any) -> Rule:
    """A rule from JSON as people write it; what `written` adds when a rule is stored may not be told.

    Raises:
        ValueError: naming the member, the value and what it must be.
    """
    members = {"when": list, "sets": dict, "override": bool, "position": int, "effective_from": str,
               "effective_to": str, "note": str}  # fmt: skip
    if not isinstance(told, dict):
        raise ValueError('a rule is an object: write {"when": [...], "sets": {...}}')  # noqa: TRY004 - one error for all
    for name, value in told.items():
        if name not in members:
            raise ValueError(f"a rule has no {name!r}{_near(name, tuple(members))}: write {', '.join(members)}")
        if value is not None and (
            not isinstance(value, members[name]) or (isinstance(value, bool) and name != "override")
        ):
            raise ValueError(f"{name} {value!r} is not {_KINDS[members[name]]}")
    given = {name: value for name, value in told.items() if value is not None}
    for name in ("effective_from", "effective_to"):
        if name in given:
            given[name] = _instant(name, given[name])
    given["when"] = tuple(_condition(one) for one in given.get("when", ()))
    return Rule(**{"sets": {}, **given})


def store(connection: Connection, tenant: str, rule: Rule, author: str, now: datetime) -> Rule:
    """Add `rule` at its position, moving those from there on one down; returns it as stored.

    Raises:
        ValueError: the tenant has as many rules as it may have.
    """
    mine = attribution_rules.c.tenant == tenant
    count = connection.execute(select(func.count()).select_from(attribution_rules).where(mine)).scalar_one()
    if count >= MOST_RULES:
        raise ValueError(f"there are {count} rules, as many as there may be: remove one, or join conditions with |")
    position = min(rule.position or count + 1, count + 1)
    after = attribution_rules.c.position >= position
    connection.execute(update(attribution_rules).where(mine, after).values(position=attribution_rules.c.position + 1))
    row = {
        "tenant": tenant, "position": position, "conditions": [_condition_json(one) for one in rule.when],
        "sets": dict(rule.sets), "override": rule.override, "effective_from": rule.effective_from,
        "effective_to": rule.effective_to, "author": author, "note": rule.note, "created_at": now,
    }  # fmt: skip
    key = connection.execute(insert(attribution_rules).values(row)).inserted_primary_key
    return replace(rule, id=int(key[0]) if key else None, position=position, author=author, created_at=now)


def drop(connection: Connection, tenant: str, rule_id: int) -> Rule | None:
    """Take a rule away and close the gap; returns it, None when the tenant has none of that id."""
    found = [rule for _, rule in stored(connection, tenant) if rule.id == rule_id]
    if not found:
        return None
    mine = attribution_rules.c.tenant == tenant
    connection.execute(delete(attribution_rules).where(mine, attribution_rules.c.id == rule_id))
    after = attribution_rules.c.position > found[0].position
    connection.execute(update(attribution_rules).where(mine, after).values(position=attribution_rules.c.position - 1))
    return found[0]


def stored(connection: Connection, tenant: str | None) -> list[tuple[str, Rule]]:
    """(tenant, rule) by position; all tenants when none is named."""
    asked = select(attribution_rules).order_by(attribution_rules.c.tenant, attribution_rules.c.position)
    if tenant is not None:
        asked = asked.where(attribution_rules.c.tenant == tenant)
    return [(row["tenant"], _rule(dict(row))) for row in connection.execute(asked).mappings()]


def _rule(row: dict[str, Any]) -> Rule:
    return Rule(
        when=tuple(_condition(one) for one in row["conditions"]),
        **{name: row[name] for name in ("id", "position", "sets", "override", "author", "note")},
        **{name: row[name] for name in ("effective_from", "effective_to", "created_at")},
    )


def _condition(told: Any) -> Condition:
    if not isinstance(told, dict) or not isinstance(told.get("field"), str):
        raise ValueError(f'condition {told!r} names no field: write {{"field": "service", "is": ["checkout"]}}')  # noqa: TRY004 - one error for all
    operators = [name for name in told if name != "field"]
    if len(operators) != 1 or operators[0] not in get_args(Operator):
        raise ValueError(f"condition {told!r} needs exactly one of {', '.join(get_args(Operator))} beside its field")
    operator, value = cast("Operator", operators[0]), told[operators[0]]
    if operator == "absent":
        if value is not True:
            raise ValueError(f"{told['field']} absent is {value!r}: write true")
        return Condition(told["field"], operator)
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in values):
        raise ValueError(f"{told['field']} {operator} has {value!r}: write text, or a list of texts")
    return Condition(told["field"], operator, tuple(values))


def _condition_json(condition: Condition) -> dict[str, Any]:
    values: dict[Operator, Any] = {"is": list(condition.values), "matches": condition.values[:1], "absent": True}
    value = values[condition.operator]
    return {"field": condition.field, condition.operator: value[0] if condition.operator == "matches" else value}


def _check_field(name: str) -> None:
    prefix = next((p for p in (ATTRIBUTE, RESOURCE) if name.startswith(p)), None)
    if prefix is None:
        if name not in FIELDS:
            raise ValueError(
                f"field {name!r} is unknown{_near(name, FIELDS)}: write a column ({', '.join(FIELDS)}), "
                f"{ATTRIBUTE}KEY or {RESOURCE}KEY"
            )
        return
    key = name.removeprefix(prefix)
    if not key or len(key) > LONGEST or key != key.strip():
        raise ValueError(f"field {name!r} names no attribute: write {prefix}KEY, such as {prefix}http.route")
    if _CONTENT.search(key):
        raise ValueError(
            f"field {name!r} may hold what was said to a model, or a secret, and neither is ever stored: "
            "choose an attribute that names a service, a route or an owner"
        )


def _check_text(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{name} {value!r} is not text: put it in quotes")  # noqa: TRY004 - one error for all
    if len(value) > LONGEST:
        raise ValueError(f"{name} has a value of {len(value)} characters: attributes are cut to {LONGEST}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{name} {value!r} is not text: remove its lone surrogates")


@lru_cache(maxsize=4 * MOST_RULES)
def _check_pattern(pattern: str) -> None:
    import polars as pl  # noqa: PLC0415 - the receiver opens the control plane too, and starts without it

    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.ComputeError as error:
        why = str(error).partition("\n\nThis error occurred")[0].splitlines()[-1].removeprefix("error: ")
        raise ValueError(
            f"expression {pattern!r} is not a regular expression in RE2 syntax ({why}): correct it, or use `is` for "
            "plain text"
        ) from error


def _near(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _instant(name: str, text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is not an instant: write 2026-11-23T08:00:00Z") from error
    return instant if instant.tzinfo or len(text) > len("2026-11-23") else instant.replace(tzinfo=UTC)


_KINDS: Final = {list: "a list", dict: "an object", bool: "true or false", int: "a whole number", str: "text"}
