"""Money is not sampled: every call is recorded, and the app's own spans are sampled as if we were not there.

Whoever reads a span's trace state must not take the app's sampling probability for ours, nor ours for the app's. So a
call says that all calls are kept (`ot=th:0`), and its children see the state that the app's sampler wrote.
"""

from collections.abc import Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.util.types import Attributes

from millicent.sdk import faults

_KEY: Final = "ot"  # OpenTelemetry's own entry in the trace state, such as "th:c;rv:2f01a99bd5c3e8"
_PROBABILITY: Final = ("th:", "p:", "r:")  # the threshold, and what came before it
_ALL: Final = "th:0"


class EveryCall(Sampler):
    """Records every span, whatever its parent's decision."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,  # noqa: ARG002  # the protocol's
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        state = parent.trace_state if parent.is_valid else None
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, state and _of_every_call(state))

    def get_description(self) -> str:
        return "EveryCall"


def _of_every_call(state: TraceState) -> TraceState:
    entry = state.get(_KEY)
    if entry is None:
        return state
    kept = [part for part in entry.split(";") if part and not part.startswith(_PROBABILITY)]
    return state.update(_KEY, ";".join([_ALL, *kept]))


def shown(span: Span, outside: Context) -> Span:
    """Return the span that the function's children see as their parent.

    The app's own spans inside must not be recorded because ours is: they see a parent with the decision, and the trace
    state, that the app's sampler gave, or would have given.
    """
    context, parent = span.get_span_context(), trace.get_current_span(outside).get_span_context()
    if parent.is_valid:
        is_sampled, state = parent.trace_flags.sampled, parent.trace_state
    else:
        sampler = getattr(trace.get_tracer_provider(), "sampler", None)
        if sampler is None:
            return span
        try:
            result = sampler.should_sample(outside, context.trace_id, "call", SpanKind.CLIENT)
        except Exception as error:  # noqa: BLE001  # the app's sampler; its own spans will tell it
            faults.note(error)
            return span
        is_sampled, state = result.decision.is_sampled(), result.trace_state or context.trace_state
    if is_sampled and state is context.trace_state:
        return span
    flags = context.trace_flags if is_sampled else context.trace_flags & ~TraceFlags.SAMPLED
    return NonRecordingSpan(
        SpanContext(
            context.trace_id, context.span_id, is_remote=False, trace_flags=TraceFlags(flags), trace_state=state
        )
    )
