r"""Filters as text: `team:search,ads` keeps, `-team:search` drops, `team:null` is unknown.

A backslash makes a comma, or a backslash before either, part of a value, and `\null` is the name "null".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from millicent.warehouse.query import ASKABLE, BadQuery, Filter

NULL: Final = "null"
GRAMMAR: Final = (
    "`team:a,b` keeps, `-team:a` drops, `team:null` is unknown; repeats mean AND. In a value `\\,` is a comma, "
    "`\\\\` a backslash, and `\\null` the name null."
)
_VALUE: Final = re.compile(r"(?:^|,)((?:\\[\\,]|[^,])*)")
_ESCAPED: Final = re.compile(r"\\([\\,])")


def parse_all(texts: Iterable[str] | None) -> tuple[Filter, ...]:
    """The filters of a request, which all have to hold."""
    return tuple(parse(text) for text in texts or ())


def parse(text: str) -> Filter:
    """One filter.

    Raises:
        BadQuery: it is not `dimension:value`, or there is no such dimension.
    """
    name, colon, values = text.partition(":")
    dimension = name.removeprefix("-")
    if not colon or not values:
        raise BadQuery(f"filter {text!r} is not `dimension:value`: write team:search or -team:search,ads")
    if dimension not in ASKABLE:
        raise BadQuery(f"unknown filter {dimension!r}: choose from {', '.join(sorted(ASKABLE))}")
    return Filter(dimension, tuple(map(_value, _VALUE.findall(values))), negated=name.startswith("-"))


def written(wanted: Filter) -> str:
    """The text that `parse` reads as `wanted`."""
    values = ",".join(map(_text, wanted.values))
    return f"{'-' if wanted.negated else ''}{wanted.dimension}:{values}"


def _value(text: str) -> str | None:
    if text == NULL:
        return None
    return NULL if text == f"\\{NULL}" else _ESCAPED.sub(r"\1", text)


def _text(value: str | None) -> str:
    if value is None:
        return NULL
    return f"\\{NULL}" if value == NULL else re.sub(r"([\\,])", r"\\\1", value)
