"""A rule of alerts as JSON or TOML tells it."""

from __future__ import annotations

from typing import Any, Final

from millicent.dashboard import filters
from millicent.warehouse import alert_rules
from millicent.warehouse.alert_rules import BadRuleError, Rule

TEXTS: Final = ("name", "kind", "basis", "severity")
WHOLES: Final = ("budget", "window_hours", "cooldown_hours", "id")
NUMBERS: Final = ("threshold", "floor")
LISTS: Final = ("filters", "endpoints")
KNOWN: Final = (*TEXTS, *NUMBERS, *WHOLES, *LISTS)
NEEDED: Final = ("name", "kind", "threshold")


def read(told: dict[str, Any]) -> Rule:
    """A rule; `budget` and `endpoints` are ids, `filters` as addresses write them, numbers may be text or percent.

    Raises:
        BadRuleError: a field is unknown, missing or of another kind, or the rule cannot be.
        BadQuery: a filter cannot be.
    """
    if unknown := [name for name in told if name not in KNOWN]:
        raise BadRuleError(f"field {unknown[0][:40]!r} is unknown: write {', '.join(KNOWN)}")
    given = {name: value for name, value in told.items() if value is not None}
    if missing := [name for name in NEEDED if name not in given]:
        raise BadRuleError(f"{missing[0]} is missing: a rule has {', '.join(NEEDED)}")
    for name, value in given.items():
        if wrong := _wrong(name, value):
            raise BadRuleError(f"{name} {str(value)[:40]!r} is not {wrong}: correct it")
    made: dict[str, Any] = {
        **given,
        **{name: alert_rules.number(given[name]) for name in NUMBERS if name in given},
        "filters": filters.parse_all(given.get("filters")),
        "endpoints": tuple(given.get("endpoints", ())),
    }
    return Rule(**made)


def _wrong(name: str, value: object) -> str | None:
    """What a value should be and is not; None where it is."""
    if name in TEXTS:
        return None if isinstance(value, str) else "text"
    if name in WHOLES:
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    if name in LISTS:
        good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return None if good else "a list of texts"
    return None if isinstance(value, str | int | float) and not isinstance(value, bool) else "a number"
