"""Spans that ended, and a real collector's side of OTLP over HTTP."""

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millicent.sdk import TokenSpanProcessor, sdk_stats

EXPORTER = InMemorySpanExporter()
WAIT_S = 20


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


class Collector:
    """Receives OTLP and waits for what was promised."""

    def __init__(self):
        self.requests, self.spans, self.resources, self.metrics = [], [], [], []
        self.status, self.arrived = 200, threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.receive(self.path, dict(self.headers), body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Stay quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def receive(self, path, headers, body):
        is_metrics = path.endswith("/metrics")
        kind = ExportMetricsServiceRequest if is_metrics else ExportTraceServiceRequest
        request = kind.FromString(gzip.decompress(body))
        with self.arrived:
            self.requests.append(SimpleNamespace(path=path, headers={k.lower(): v for k, v in headers.items()}))
            for group in request.resource_metrics if is_metrics else ():
                self.metrics += [
                    (plain(group.resource.attributes), metric)
                    for scope in group.scope_metrics
                    for metric in scope.metrics
                ]
            for group in () if is_metrics else request.resource_spans:
                self.resources.append(plain(group.resource.attributes))
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
            self.arrived.notify_all()

    def names(self, count):
        """Wait for that many spans; return their names, sorted."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.spans) >= count, WAIT_S), sdk_stats()
            return sorted(span.name for span in self.spans)

    def exports(self, count):
        """Wait for that many exports of metrics; return (resource, metric) of each."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.metrics) >= count, WAIT_S), sdk_stats()
            return list(self.metrics)


def plain(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@pytest.fixture
def collector(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OTEL_", "MILLICENT_"))]:
        monkeypatch.delenv(name)
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


@pytest.fixture
def no_app_provider(monkeypatch):
    """As in an app without OpenTelemetry of its own."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
