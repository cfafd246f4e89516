"""One tracked call: a span from the start of the function to the end of its result."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context, get_current
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, Tracer, TracerProvider

from millicent.sdk import attributes, faults
from millicent.sdk.attribution import carried, carry, typed
from millicent.sdk.scope import Scope
from millicent.sdk.streams import is_stream, watch
from millicent.sdk.usage import NOTHING, read

T = TypeVar("T")

Attributes = dict[str, str | int | float | bool]

_CANCELLED_TASK: Final = "asyncio.exceptions.CancelledError"  # by name: importing asyncio costs every app


@dataclass(frozen=True, slots=True)
class Plan:
    """What a decorated function's calls have in common."""

    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    model_position: int | None = None
    model_default: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str | int] = field(init=False)

    def __post_init__(self) -> None:
        known = {attributes.OPERATION: self.operation or "chat"}
        if self.provider:
            known[attributes.PROVIDER] = self.provider
        object.__setattr__(self, "fixed", typed(self.tags) | known)

    def model_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the model asked for: the decorator's, else the call's `model` argument."""
        if self.model is not None:
            return self.model
        if "model" in kwargs:
            model = kwargs["model"]
        elif self.model_position is not None and len(args) > self.model_position:
            model = args[self.model_position]
        else:
            model = self.model_default
        return model if isinstance(model, str) and model else None


class Call(Scope):
    """A run of a tracked function. Everything it hears goes to its span; nothing it does can raise."""

    __slots__ = ("_model", "_operation", "_plan", "_process", "_reading", "_span", "_started", "_ttft_s")

    def __init__(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outside = get_current()
        self._plan = plan
        self._operation = plan.operation or "chat"
        self._model = plan.model_of(args, kwargs)
        known: Attributes = {**carried(outside), **plan.fixed}
        name = self._operation
        if self._model is not None:
            known[attributes.REQUEST_MODEL] = self._model
            name = f"{name} {self._model}"
        self._span: Span | None = _tracer.start_span(name, outside, SpanKind.CLIENT, known)
        self._reading = NOTHING
        self._ttft_s: float | None = None
        self._process = _process
        self._started = time.perf_counter()
        shown = _shown(self._span, outside) if _is_own_provider else self._span
        self.context = carry(plan.tags, outside, shown)

    @faults.harmless
    def observe(self, item: object) -> None:
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._started
        self._reading = read(item, self._reading)

    def settle(self, result: T) -> T:
        try:
            kind: type = type(result)
            if is_stream(kind):
                return cast("T", watch(result, self))
        except Exception as error:  # noqa: BLE001  # the app gets its own stream, unwatched
            faults.note(error)
        self._finish(result)
        return result

    def end(self, result: object) -> None:
        self._finish(result, streamed=True)

    def fail(self, error: BaseException) -> None:
        streamed, kind = self._ttft_s is not None, type(error)
        if kind is GeneratorExit:  # nobody wants the rest: not a failure
            self._finish(None, streamed=streamed, cancelled=True)
            return
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        self._finish(None, streamed=streamed, error_type=name, cancelled=name == _CANCELLED_TASK)

    def cancel(self) -> None:
        self._finish(None, streamed=True, cancelled=True)

    def _finish(
        self, result: object, *, streamed: bool = False, error_type: str | None = None, cancelled: bool = False
    ) -> None:
        span, self._span = self._span, None
        # Over already; or not recorded at all; or forked off, and the parent process ends it.
        if span is None or not span.is_recording() or self._process != _process:
            return
        try:
            if result is not None:
                self._reading = read(result, self._reading)
        except Exception as error:  # noqa: BLE001  # an odd object: the rest is still worth telling
            faults.note(error)
        try:
            told = self._told(streamed=streamed, cancelled=cancelled)
            if error_type is not None:
                # No description: the message of an exception may quote the prompt.
                span.set_status(StatusCode.ERROR)
                told[attributes.ERROR_TYPE] = error_type
            elif self._reading.usage is None:
                told[attributes.USAGE_SOURCE] = "missing"
            self._rename(span, told)
            span.set_attributes(told)
            span.end()
        except Exception as error:  # noqa: BLE001  # a span processor of the app failed
            faults.note(error)

    def _told(self, *, streamed: bool, cancelled: bool) -> Attributes:
        """Return what became known during the call. What the decorator states, the response does not change."""
        reading, told = self._reading, Attributes()
        if streamed:
            told[attributes.STREAM] = True
        if self._ttft_s is not None:
            told[attributes.TIME_TO_FIRST_CHUNK] = self._ttft_s
        if cancelled:
            told[attributes.STATUS] = "cancelled"
        if reading.usage is not None:
            told.update(reading.usage)
            told[attributes.USAGE_SOURCE] = "reported"
        if reading.model is not None:
            told[attributes.RESPONSE_MODEL] = reading.model
        if reading.response_id is not None:
            told[attributes.RESPONSE_ID] = reading.response_id
        if reading.provider is not None and self._plan.provider is None:
            told[attributes.PROVIDER] = reading.provider
        if reading.service_tier is not None:
            told[reading.tier_attribute or attributes.TIER] = reading.service_tier
        return told

    def _rename(self, span: Span, told: Attributes) -> None:
        """Name the span after what the response told, where the call did not say."""
        reading, model, operation = self._reading, self._model, self._operation
        if self._plan.operation is None and reading.operation is not None and reading.operation != operation:
            told[attributes.OPERATION] = operation = reading.operation
        if model is None:
            model = reading.model
        if model is not self._model or operation is not self._operation:
            span.update_name(f"{operation} {model}" if model else operation)


def start(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
    """Start tracking a call; where that fails, a scope that does nothing. Never raises."""
    try:
        return Call(plan, args, kwargs)
    except Exception as error:  # noqa: BLE001  # the app's function runs in any case
        faults.note(error)
        return Scope(get_current())


_tracer: Tracer = trace.get_tracer(attributes.SCOPE, attributes.VERSION)
_is_own_provider = False
_process = os.getpid()


def _after_fork() -> None:
    global _process  # noqa: PLW0603  # cheaper than asking the kernel twice per call
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def send_spans_to(provider: TracerProvider | None) -> None:
    """Start the spans of tracked calls at `provider`; at the app's global one if None."""
    global _tracer, _is_own_provider  # noqa: PLW0603  # the one switch of the process, thrown by instrument()
    _tracer = trace.get_tracer(attributes.SCOPE, attributes.VERSION, tracer_provider=provider)
    _is_own_provider = provider is not None


def _shown(span: Span, outside: Context) -> Span:
    """Return the span that the function's children see as their parent.

    Our provider records every call, for money is not sampled. The app's own spans inside must not be recorded
    for that reason: they see a parent with the decision that the app's sampler took, or would have taken.
    """
    context, parent = span.get_span_context(), trace.get_current_span(outside).get_span_context()
    if parent.is_valid:
        is_sampled = parent.trace_flags.sampled
    else:
        sampler = getattr(trace.get_tracer_provider(), "sampler", None)
        if sampler is None:
            return span
        is_sampled = sampler.should_sample(outside, context.trace_id, "call").decision.is_sampled()
    if is_sampled:
        return span
    return NonRecordingSpan(
        SpanContext(context.trace_id, context.span_id, is_remote=False, trace_state=context.trace_state)
    )
