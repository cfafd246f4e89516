from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millicent.sdk import TokenSpanProcessor, sdk_stats

EXPORTER = InMemorySpanExporter()


class Spans(list):
    """The spans that ended so far, refreshed at every look."""

    def __call__(self) -> "Spans":
        self[:] = EXPORTER.get_finished_spans()
        return self

    @property
    def only(self):
        (span,) = self()
        return span


@pytest.fixture(scope="session")
def app_provider() -> TracerProvider:
    """The app's own global provider, with our stamping processor in front of an exporter in memory."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(TokenSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    return provider


@pytest.fixture
def spans(app_provider) -> Iterator[Spans]:  # the spans arrive through it
    """Spans of this test; at its end the SDK must not have failed inside."""
    EXPORTER.clear()
    before = sdk_stats()["internal_errors"]
    yield Spans()
    assert sdk_stats()["internal_errors"] == before
