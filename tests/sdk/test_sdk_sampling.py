"""Money is not sampled: calls arrive whatever the app's sampler says, and the app's traces stay as they are."""

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

from millicent.sdk import call, instrument, track_tokens
from millicent.sdk.sampling import EveryCall

TRACE, SPAN = 0x1234_5678_9ABC_DEF0_1234_5678_9ABC_DEF0, 0x1122_3344_5566_7788


class Probability(Sampler):
    """Keeps every span and says that it kept one of four, as OpenTelemetry's probability samplers do."""

    def should_sample(self, *_args, **_kwargs):
        return SamplingResult(Decision.RECORD_AND_SAMPLE, None, TraceState([("ot", "th:c")]))

    def get_description(self):
        return "Probability"


@pytest.fixture
def kept():
    """The spans that our own provider was given, without a collector behind it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=EveryCall(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before = call._tracer
    call.send_spans_to(provider)
    yield exporter.get_finished_spans
    call.send_spans_to(None)
    call._tracer = before  # of the real provider: a test may have put another in its place


def an_app(monkeypatch, sampler):
    """An app of its own, whose provider is the global one."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return provider.get_tracer("app"), exporter.get_finished_spans


def remote(flags=0, state=()):
    context = SpanContext(TRACE, SPAN, is_remote=True, trace_flags=TraceFlags(flags), trace_state=TraceState(state))
    return NonRecordingSpan(context)


def inside():
    """What the body of a tracked function sees as its parent."""
    seen = []
    track_tokens(lambda: seen.append(trace.get_current_span().get_span_context()))()
    return seen[0]


@pytest.mark.parametrize("sampler", [TraceIdRatioBased(0), ParentBased(TraceIdRatioBased(0)), ALWAYS_OFF])
def test_a_call_arrives_from_an_app_that_samples_nothing(kept, monkeypatch, sampler):
    tracer, exported = an_app(monkeypatch, sampler)

    @track_tokens
    def ask():
        with tracer.start_as_current_span("inside"):
            return {"input_tokens": 3}

    ask()
    with tracer.start_as_current_span("request") as request:
        ask()
    alone, below = kept()
    assert not exported()
    assert alone.parent is None
    assert below.context.trace_id == request.get_span_context().trace_id
    assert below.parent.span_id == request.get_span_context().span_id
    assert [span.context.trace_flags.sampled for span in (alone, below)] == [True, True]


@pytest.mark.parametrize("flags", [TraceFlags.DEFAULT, TraceFlags.SAMPLED])
def test_a_remote_parent_keeps_its_ids_flags_and_state(kept, monkeypatch, flags):
    an_app(monkeypatch, ParentBased(ALWAYS_ON))
    with use_span(remote(flags, [("vendor", "kept")])):
        seen = inside()
    (span,) = kept()
    assert (span.context.trace_id, span.parent.span_id, span.parent.is_remote) == (TRACE, SPAN, True)
    assert dict(span.context.trace_state) == {"vendor": "kept"}
    assert (seen.trace_id, seen.span_id, seen.is_remote) == (TRACE, span.context.span_id, False)
    assert (seen.trace_flags, dict(seen.trace_state)) == (flags, {"vendor": "kept"})


@pytest.mark.parametrize(
    ("told", "ours"),
    [("th:c", "th:0"), ("th:c;rv:2f01a99bd5c3e8", "th:0;rv:2f01a99bd5c3e8"), ("p:2;r:3", "th:0"), ("x:1", "th:0;x:1")],
)
def test_the_apps_probability_is_not_ours(kept, monkeypatch, told, ours):
    an_app(monkeypatch, ParentBased(ALWAYS_ON))
    with use_span(remote(TraceFlags.SAMPLED, [("ot", told), ("vendor", "kept")])):
        seen = inside()
    (span,) = kept()
    assert dict(span.context.trace_state) == {"ot": ours, "vendor": "kept"}
    assert dict(seen.trace_state) == {"ot": told, "vendor": "kept"}
    assert seen.trace_flags.sampled


def test_a_root_call_shows_its_children_what_the_apps_sampler_says(kept, monkeypatch):
    tracer, exported = an_app(monkeypatch, ParentBased(Probability()))

    @track_tokens
    def ask():
        tracer.start_span("inside").end()

    ask()
    (span,), (child,) = kept(), exported()
    assert not span.context.trace_state
    assert dict(child.context.trace_state) == {"ot": "th:c"}
    assert child.parent.span_id == span.context.span_id


def test_the_random_bit_of_a_trace_survives(kept, monkeypatch):
    an_app(monkeypatch, ALWAYS_OFF)
    seen = inside()
    (span,) = kept()
    assert seen.trace_flags == span.context.trace_flags & ~TraceFlags.SAMPLED


def test_a_broken_sampler_of_the_app_costs_no_call(kept, monkeypatch):
    class Broken(Probability):
        def should_sample(self, *_args, **_kwargs):
            raise RuntimeError

    an_app(monkeypatch, Broken())
    assert inside().is_valid
    assert len(kept()) == 1


@pytest.mark.usefixtures("app_provider")
def test_instrument_uses_it():
    handle = instrument("http://127.0.0.1:1")
    try:
        assert isinstance(call._tracer.sampler, EveryCall)
    finally:
        handle.shutdown(0)
