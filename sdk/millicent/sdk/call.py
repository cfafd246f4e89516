"""One tracked call: a span from the start of the function to the end of its result."""

import os
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import get_current
from opentelemetry.trace import (
    ProxyTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)

from millicent.sdk import attributes, faults
from millicent.sdk.attribution import carried, carry, typed
from millicent.sdk.budget import BudgetGuard, Held
from millicent.sdk.readers import NOTHING, envelope, read
from millicent.sdk.readers.wire import look_into
from millicent.sdk.sampling import shown
from millicent.sdk.scope import Scope
from millicent.sdk.streams import is_stream, watch, watch_inside

T = TypeVar("T")

Attributes = dict[str, str | int | float | bool]

_MODEL_PARAMETERS: Final = ("model", "modelId", "model_id")  # the other two are Amazon's and IBM's
_CANCELLED_TASK: Final = "asyncio.exceptions.CancelledError"  # by name: importing asyncio costs every app


@dataclass(frozen=True, slots=True)
class Plan:
    """What a decorated function's calls have in common."""

    operation: str | None = None
    provider: str | None = None
    model: str | None = None
    parameters: tuple[str, ...] = ()
    model_default: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    price_context: Mapping[str, str] = field(default_factory=dict)
    estimate: bool | None = None
    stream_usage: bool = False
    fixed: Mapping[str, str | int] = field(init=False)

    def __post_init__(self) -> None:
        known = {attributes.OPERATION: self.operation or "chat"}
        if self.provider:
            known[attributes.PROVIDER] = self.provider
        object.__setattr__(self, "fixed", {**typed(self.tags), **self.price_context, **known})

    def model_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the model asked for: the decorator's, else the call's `model` argument."""
        if self.model is not None:
            return self.model
        model = kwargs.get("model")
        if model is None:
            model = next((kwargs[name] for name in _MODEL_PARAMETERS if name in kwargs), self.model_default)
            for name, value in zip(self.parameters, args, strict=False):
                if name in _MODEL_PARAMETERS:
                    model = value
        return model if isinstance(model, str) and model else None


class Call(Scope):
    """A run of a tracked function. Everything it hears goes to its span; nothing it does can raise."""

    __slots__ = (
        *("_asks_usage", "_ear", "_model", "_operation", "_plan"),
        *("_process", "_reading", "_span", "_started", "_ttft_s"),
    )

    def __init__(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        outside = get_current()
        self._plan = plan
        self._operation = plan.operation or "chat"
        self._model = plan.model_of(args, kwargs)
        self.held: Held | None = None
        known: Attributes = {**carried(outside), **plan.fixed}
        name = self._operation
        if self._model is not None:
            known[attributes.REQUEST_MODEL] = self._model
            name = f"{name} {self._model}"
        tracer = _tracer if type(_tracer) is not ProxyTracer else _current_tracer()
        self._span: Span | None = tracer.start_span(name, outside, SpanKind.CLIENT, known)
        self._reading = NOTHING
        self._ttft_s: float | None = None
        self._ear = _ear(plan, args, kwargs) if plan.estimate or _estimates else None
        self._asks_usage = plan.stream_usage and _ask_usage(kwargs)
        self._process = _process
        self._started = time.perf_counter()
        inner = shown(self._span, outside) if _is_own_provider else self._span
        self.context = carry(plan.tags, outside, inner)

    @faults.harmless
    def begin(self, stream: object) -> None:
        self._reading = self._reading.then(envelope.of_stream(stream))

    @faults.harmless
    def observe(self, item: object) -> None:
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._started
        self._reading = read(item, self._reading)
        if self._ear is not None:
            self._ear.hear(item)

    def hides(self, item: object) -> bool:
        return self._asks_usage and _is_only_usage(item)

    def settle(self, result: T) -> T:
        try:
            kind: type = type(result)
            if is_stream(kind):
                self.begin(result)
                return cast("T", watch(result, self))
            if kind is dict and watch_inside(cast("dict[Any, Any]", result), self):
                self._reading = read(result, self._reading)
                return result
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
        self._note(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        self._finish(None, streamed=streamed, error_type=name, cancelled=name == _CANCELLED_TASK)

    def cancel(self) -> None:
        self._finish(None, streamed=True, cancelled=True)

    @faults.harmless
    def _note(self, error: BaseException) -> None:
        self._reading = read(getattr(error, "completion", None), self._reading)  # OpenAI's, of an answer cut short
        self._reading = self._reading.then(envelope.of_error(error))

    def _finish(
        self, result: object, *, streamed: bool = False, error_type: str | None = None, cancelled: bool = False
    ) -> None:
        span, self._span = self._span, None
        held, self.held = self.held, None
        if self._process != _process:  # forked off, and the parent process ends it
            return
        is_refused = error_type is not None and self._ttft_s is None  # before its first chunk, a call used nothing
        told = Attributes()
        if span is not None and span.is_recording():  # neither over already nor not recorded at all
            self._record(span, told, result, streamed=streamed, error_type=error_type, cancelled=cancelled)
        if held is not None and is_refused:
            held.settle(unused=True)
        elif held is not None:
            held.settle_read(told, self._reading.model or self._model, **self._priced_as(told))

    def _record(
        self, span: Span, told: Attributes, result: object, *, streamed: bool, error_type: str | None, cancelled: bool
    ) -> None:
        """End the span with all that became known, which is added to `told`."""
        try:
            if result is not None:
                self._reading = read(result, self._reading)
                if self._ear is not None and not streamed:
                    self._ear.hear(result)
        except Exception as error:  # noqa: BLE001  # an odd object: the rest is still worth telling
            faults.note(error)
        try:
            told |= self._told(streamed=streamed, cancelled=cancelled)
            reading = self._reading
            is_refused = error_type is not None and self._ttft_s is None
            if error_type is not None:
                # No description: the message of an exception may quote the prompt.
                span.set_status(StatusCode.ERROR)
                told[attributes.ERROR_TYPE] = error_type
            if not is_refused and (reading.usage is None or self._ear is not None):
                self._complete(told)
            if self._model is None or (reading.operation is not None and reading.operation != self._operation):
                self._rename(span, told)
            span.set_attributes(told)
            span.end()
        except Exception as error:  # noqa: BLE001  # a span processor of the app failed
            faults.note(error)

    def _told(self, *, streamed: bool, cancelled: bool) -> Attributes:
        """Return what became known during the call. What the decorator states, the response does not change."""
        usage, model, response_id, provider, _, tier, tier_attribute, request_id, request_attribute, speed = (
            self._reading
        )
        told = Attributes()
        if streamed:
            told[attributes.STREAM] = True
        if self._ttft_s is not None:
            told[attributes.TIME_TO_FIRST_CHUNK] = self._ttft_s
        if cancelled:
            told[attributes.STATUS] = "cancelled"
        if usage is not None:
            told.update(usage)
            told[attributes.USAGE_SOURCE] = "reported"
        if model is not None:
            told[attributes.RESPONSE_MODEL] = model
        if response_id is not None:
            told[attributes.RESPONSE_ID] = response_id
        if request_id is not None:
            told[request_attribute or attributes.REQUEST_ID] = request_id
        if provider is not None and self._plan.provider is None:
            told[attributes.PROVIDER] = provider
        if tier is not None:
            told[tier_attribute or attributes.TIER] = tier
        return (
            told if speed is None else told | {attributes.SPEED: self._plan.price_context.get(attributes.SPEED, speed)}
        )

    def _priced_as(self, told: Attributes) -> dict[str, Any]:
        """What else the price of the call depends on, by the names of the record."""
        prefix, tiers = attributes.PRICE_PREFIX, (attributes.OPENAI_TIER, attributes.ANTHROPIC_TIER, attributes.TIER)
        context = {**self._plan.price_context, **{key: str(told[key]) for key in told if key.startswith(prefix)}}
        return {
            "provider": told.get(attributes.PROVIDER, self._plan.provider),
            "service_tier": next((told[key] for key in tiers if key in told), None),
            "price_context": {key.removeprefix(prefix): value for key, value in context.items()},
            "billing": "self_hosted" if attributes.DEPLOYMENT in carried(self.context) else None,
        }

    def _complete(self, told: Attributes) -> None:
        """Say that usage is missing, or estimate it where that was asked for."""
        known = self._reading.usage or {}
        if self._ear is not None and not (attributes.INPUT in known and attributes.OUTPUT in known):
            try:
                operation = self._reading.operation or self._operation
                added = self._ear.counts(self._reading.model or self._model, known, operation)
            except Exception as error:  # noqa: BLE001  # a tokenizer's
                faults.note(error)
                added = {}
            if added:
                told.update(added)
                told[attributes.USAGE_SOURCE] = "estimated"
        told.setdefault(attributes.USAGE_SOURCE, "missing")

    def _rename(self, span: Span, told: Attributes) -> None:
        """Name the span after what the response told, where the call did not say."""
        reading, model, operation = self._reading, self._model, self._operation
        if self._plan.operation is None and reading.operation is not None and reading.operation != operation:
            told[attributes.OPERATION] = operation = reading.operation
        if model is None:
            model = reading.model
        if model is not self._model or operation is not self._operation:
            span.update_name(f"{operation} {model}" if model else operation)


@dataclass(frozen=True, slots=True)
class Gate:
    """Asks a guard before each call of a plan."""

    guard: BudgetGuard
    plan: Plan

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Held:
        """Let a call begin.

        Raises:
            BudgetExceeded: It may not.
        """
        return self.guard.enter(self.plan.tags, self._model(args, kwargs), self.plan.provider)

    def enter_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Held]:
        """The same, and other tasks run meanwhile.

        Raises:
            BudgetExceeded: It may not.
        """
        return self.guard.enter_async(self.plan.tags, self._model(args, kwargs), self.plan.provider)

    def _model(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        try:
            return self.plan.model_of(args, kwargs)
        except Exception as error:  # noqa: BLE001  # an odd argument of the app
            faults.note(error)
            return None


def start(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Scope:
    """Start tracking a call; where that fails, a scope that does nothing. Never raises."""
    try:
        return Call(plan, args, kwargs)
    except Exception as error:  # noqa: BLE001  # the app's function runs in any case
        faults.note(error)
        return Scope(get_current())


def _ear(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if plan.estimate is False:
        return None
    from millicent.sdk.estimate import Estimate  # noqa: PLC0415  # only those who ask for it pay for it

    return Estimate({**dict(zip(plan.parameters, args, strict=False)), **kwargs})


def _ask_usage(kwargs: dict[str, Any]) -> bool:
    """Ask for the usage of a stream of chat completions; return whether the app had not done so itself."""
    options = kwargs.get("stream_options")
    if kwargs.get("stream") is not True or not (options is None or isinstance(options, dict)):
        return False
    if options is not None and "include_usage" in options:
        return False
    kwargs["stream_options"] = {**(options or {}), "include_usage": True}
    return True


def _is_only_usage(item: object) -> bool:
    look = look_into(item)
    return look("choices") == [] and look("usage") is not None


def _current_tracer() -> Tracer:
    """Replace OpenTelemetry's stand-in by the app's tracer as soon as there is one; it takes time at every call."""
    global _tracer  # noqa: PLW0603  # as below
    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        _tracer = trace.get_tracer(attributes.SCOPE, attributes.VERSION)
    return _tracer


_tracer: Tracer = trace.get_tracer(attributes.SCOPE, attributes.VERSION)
_is_own_provider = False
_estimates = False
_process = os.getpid()


def _after_fork() -> None:
    global _process  # noqa: PLW0603  # cheaper than asking the kernel twice per call
    _process = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def send_spans_to(provider: TracerProvider | None, *, estimate: bool = False) -> None:
    """Start the spans of tracked calls at `provider`, at the app's global one if None; estimate what none tells."""
    global _tracer, _is_own_provider, _estimates  # noqa: PLW0603  # the one switch, thrown by instrument()
    _tracer = trace.get_tracer(attributes.SCOPE, attributes.VERSION, tracer_provider=provider)
    _is_own_provider, _estimates = provider is not None, estimate
