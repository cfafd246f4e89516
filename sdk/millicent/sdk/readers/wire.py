"""What every reader speaks: what is told, and how to look into an answer without knowing its package."""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

MAX_TOKENS: Final = 1_000_000_000
"""No single call comes near this many tokens; a counter above it is a mistake and reads as unknown."""

Counts = dict[str, int]
"""Attribute key → tokens. What is absent is unknown."""

Fields = Mapping[str, Mapping[str, str]]
"""Where a wire format keeps its counters: part of the usage ("" is the usage itself) → field → attribute key."""

Look = Callable[[str], Any]
"""Reads a field of an answer by its name; None where there is no such field."""


class Reading(NamedTuple):
    """What one response, or one chunk of a stream, tells. None where it tells nothing."""

    usage: Counts | None = None
    model: str | None = None
    response_id: str | None = None
    provider: str | None = None
    operation: str | None = None
    service_tier: str | None = None
    tier_attribute: str | None = None
    request_id: str | None = None
    request_attribute: str | None = None
    speed: str | None = None

    def then(self, later: "Reading") -> "Reading":
        """Return both readings in one; where both know, the later one is right (usage is cumulative)."""
        both = Reading._make(old if new is None else new for old, new in zip(self, later, strict=True))
        # But for the provider: Azure shows itself in the first chunk alone, and the rest looks like OpenAI's.
        return both if self.provider is None else both._replace(provider=self.provider)


Reader = Callable[[Any, Look, Counts], Reading | None]
"""Takes an answer, the look into it and the counts of the chunks before it; None for a shape that is not its own."""


def look_into(source: object) -> Look:
    """Return how to read the fields of a dict, of a pydantic object, or of any other object.

    A pydantic object takes a microsecond to say that it lacks a field; its dictionaries take none.
    """
    of_type: type = type(source)
    kind = _kind(of_type)
    if kind == "pydantic":
        extra = source.__pydantic_extra__  # type: ignore[attr-defined]  # it is one
        return {**source.__dict__, **extra}.get if extra else source.__dict__.get
    if kind == "dict":
        return source.get  # type: ignore[attr-defined,no-any-return]  # it is one
    return _nothing if source is None else functools.partial(_attribute, source)


@functools.lru_cache(maxsize=512)
def _kind(kind: type) -> Literal["dict", "pydantic", "object"]:
    if issubclass(kind, dict):
        return "dict"
    return "pydantic" if "__pydantic_extra__" in dir(kind) else "object"


def _nothing(_: str) -> None:
    return None


def _attribute(source: object, name: str) -> Any:
    return getattr(source, name, None)


def text(look: Look, name: str) -> str | None:
    """Return a field that is a text and not empty; of an enumeration of texts, the value."""
    value = look(name)
    if type(value) is str:
        return value or None
    return text(look_into(value), "value") if isinstance(value, str) else None


def counts(look: Look, fields: Fields) -> Counts:
    """Return the counters that stand where `fields` says; where two fields mean the same, the first one counts."""
    found: Counts = {}
    if look is _nothing:
        return found
    for part, names in fields.items():
        within = look
        if part:
            inside = look(part)
            if inside is None:
                continue
            within = look_into(inside)
        for name, attribute in names.items():
            value = within(name)
            if value is None or attribute in found:
                continue
            if type(value) is int and 0 <= value <= MAX_TOKENS:  # as `count`, and in a third of the time
                found[attribute] = value
            elif (tokens := count(value)) is not None:
                found[attribute] = tokens
    return found


def count(value: Any) -> int | None:
    """Return a token count, or None for what cannot be one: negative, absurd, a bool, not an integer."""
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(type(value), "__index__"):
            return None
        value = operator.index(value)
    return value if 0 <= value <= MAX_TOKENS else None


def whole(value: Any) -> int | None:
    """As `count`, for the wire formats that write counts as 12.0."""
    if type(value) is float:
        return count(int(value)) if value.is_integer() else None
    return count(value)


def items(value: Any) -> Iterable[Any]:
    """Return the items of a list or tuple; of anything else, none."""
    return value if isinstance(value, list | tuple) else ()
