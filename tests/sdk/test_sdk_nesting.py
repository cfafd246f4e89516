"""A tracked function around a client that is instrumented itself: two spans of one call, one below the other.

The collector counts the inner one and takes the tags of the outer one; so they must be in one trace, whoever the
providers are, and tags must reach inside.
"""

import openai
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from millicent.sdk import TokenSpanProcessor, attributes, attribution, call, track_tokens
from millicent.sdk.sampling import EveryCall

MESSAGES = [{"role": "user", "content": "?"}]


def a_provider(**arguments):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, **arguments)
    provider.add_span_processor(TokenSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter.get_finished_spans


@pytest.fixture
def ours():
    """Our own always-on provider."""
    provider, spans = a_provider(sampler=EveryCall())
    before = call._tracer
    call.send_spans_to(provider)
    yield spans
    call.send_spans_to(None)
    call._tracer = before  # of the real provider: a test may have put another in its place


@pytest.fixture(params=["sampled", "unsampled"])
def theirs(request, monkeypatch):
    """The provider of the app, and the official instrumentation of the client with it."""
    sampler = {"sampler": ParentBased(ALWAYS_OFF)} if request.param == "unsampled" else {}
    provider, spans = a_provider(**sampler)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield lambda: (request.param == "sampled", spans())
    instrumentor.uninstrument()


@pytest.fixture
def client(fake_openai, theirs):  # made after the instrumentation
    with openai.OpenAI(base_url=fake_openai.url, api_key="test") as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_the_instrumented_client_is_below_the_tracked_function(client, ours, theirs, stream):
    @track_tokens(team="search", feature="answers")
    def ask():
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options)

    with attribution(customer="acme"):
        answer = ask()
    if stream:
        for _ in answer:
            pass
    (outer,), (is_sampled, inner) = ours(), theirs()
    assert len(inner) == is_sampled
    assert (outer.attributes[attributes.INPUT], outer.attributes[attributes.OUTPUT]) == (1200, 300)
    for span in inner:
        assert span.instrumentation_scope.name.startswith("opentelemetry.instrumentation.genai")
        assert span.context.trace_id == outer.context.trace_id
        assert span.parent.span_id == outer.context.span_id
        assert span.attributes[attributes.INPUT] == 1200
        assert span.attributes[attributes.RESPONSE_ID] == outer.attributes[attributes.RESPONSE_ID]
        tags = {attributes.TEAM: "search", attributes.FEATURE: "answers", attributes.CUSTOMER: "acme"}
        assert tags.items() <= dict(span.attributes).items()
