"""Who a call is for: tags that travel in OpenTelemetry baggage, down the stack and across processes."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, TypeVar

from opentelemetry import baggage
from opentelemetry.context import Context, attach, create_key, get_current, get_value, set_value
from opentelemetry.trace import INVALID_SPAN, Span, set_span_in_context

from millicent.sdk import attributes, faults
from millicent.sdk.scope import Scope, wrap

F = TypeVar("F", bound=Callable[..., Any])

Tags = Mapping[str, str]
"""Attribute key → value."""

_OUTER: Final = create_key("millicent-outer-context")
# OpenTelemetry's own keys: with them, baggage and span are set in one copy of the context instead of one per entry.
_BAGGAGE: Final = next(iter(baggage.set_baggage("-", "-", Context())))
_SPAN: Final = next(iter(set_span_in_context(INVALID_SPAN, Context())))


def attribution(
    *,
    team: str | None = None,
    project: str | None = None,
    feature: str | None = None,
    customer: str | None = None,
    user_id: str | None = None,
    session_id: str | None = None,
    environment: str | None = None,
    **labels: str | None,
) -> "Attribution":
    """Tag every call made inside, in this process and in those it calls.

    Use it as a context manager (`with attribution(team="search"):`, in synchronous and asynchronous code alike)
    or as a decorator of any kind of function. Where uses nest, the inner value wins; None and "" say nothing.
    The tags travel in the W3C `baggage` header wherever the app propagates it: put no secret into them.

    Args:
        team: Who pays.
        project: For which project.
        feature: For which feature of the product.
        customer: On behalf of which customer.
        user_id: The end user, as `user.id`.
        session_id: The conversation or visit, as `session.id`.
        environment: production, staging, …
        **labels: Any other tag, as `millicent.label.<name>`.
    """
    named = {
        attributes.TEAM: team,
        attributes.PROJECT: project,
        attributes.FEATURE: feature,
        attributes.CUSTOMER: customer,
        attributes.USER_ID: user_id,
        attributes.SESSION_ID: session_id,
        attributes.ENVIRONMENT: environment,
    }
    return Attribution(clean_tags(named, labels))


class Attribution:
    """What `attribution` returns. Holds only its tags, so one may be entered many times, by many tasks at once."""

    __slots__ = ("_tags",)

    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    def __enter__(self) -> None:
        outer = get_current()
        attach(set_value(_OUTER, outer, carry(self._tags, outer)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The context names the one outside it, so a block that is left in another task restores nothing there.
        outer = get_value(_OUTER)
        if isinstance(outer, Context):
            attach(outer)

    def __call__(self, func: F, /) -> F:
        """Run every call of `func` with these tags."""
        return wrap(func, lambda _args, _kwargs: Scope(carry(self._tags, get_current())))


def clean_tags(named: Mapping[str, object], labels: Mapping[str, object] | None = None) -> Tags:
    """Return the tags that say something, as text. What cannot be read as text is left out and noted."""
    tags: dict[str, str] = {}
    try:
        prefixed = {f"{attributes.LABEL_PREFIX}{name}": value for name, value in (labels or {}).items()}
        for key, value in (dict(named) | prefixed).items():
            text = "" if value is None else str(value)
            if text:
                tags[key] = text
    except Exception as error:  # noqa: BLE001  # an app's object may refuse to be text
        faults.note(error)
    return tags


def clean_price_context(told: Mapping[str, object] | None) -> Tags:
    """Return what has a price of its own as span attributes; it stays with the call and never travels in baggage."""
    return clean_tags({f"{attributes.PRICE_PREFIX}{name}": value for name, value in (told or {}).items()})


def carry(tags: Tags, context: Context, span: Span | None = None) -> Context:
    """Return `context` with `tags` in its baggage and, if given, `span` as the current one."""
    inside = dict(context)
    if tags:
        inside[_BAGGAGE] = {**_baggage(context), **tags}
    if span is not None:
        inside[_SPAN] = span
    return Context(inside)


def carried(context: Context | None) -> dict[str, str | int]:
    """Return the tags in the baggage of `context`, or of the current one, as span attributes."""
    entries = _baggage(get_current() if context is None else context)
    return {name: _typed(name, value) for name, value in entries.items() if _is_tag(name)} if entries else {}


def _baggage(context: Context) -> Mapping[str, object]:
    entries = context.get(_BAGGAGE)
    return entries if isinstance(entries, dict) else {}


def _is_tag(key: str) -> bool:
    """Tell our tags from other baggage."""
    return key.startswith(attributes.TAG_PREFIX) or key in (attributes.USER_ID, attributes.SESSION_ID)


def typed(tags: Tags) -> dict[str, str | int]:
    """Return tags as span attributes: text, but for the number of accelerators."""
    return {key: _typed(key, value) for key, value in tags.items()}


def _typed(key: str, value: object) -> str | int:
    text = str(value)
    return int(text) if key == attributes.ACCELERATOR_COUNT and text.isdecimal() else text
