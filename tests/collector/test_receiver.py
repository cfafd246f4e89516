"""OTLP over real sockets: what is acknowledged is on the spool, what is not is answered as the specification says."""

import asyncio
import contextlib
import gzip
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millicent.collector import receiver as receiver_module
from millicent.collector import serve as serve_module
from millicent.collector import spool as spool_module
from millicent.collector.limits import MIB, Limits
from millicent.collector.receiver import ROUTES, Principal, Receiver
from millicent.collector.serve import Listening, serve
from millicent.collector.spool import START, Record, Spool, SpoolFailedError, SpoolReader
from millicent.collector.telemetry import METRICS, Telemetry

PROTOBUF = {"content-type": "application/x-protobuf"}
KEYS = {
    "Bearer good": Principal("acme", "key-1"),
    "Bearer reader": Principal("acme", "key-2", frozenset({"read"})),
}


def authenticate(headers):
    if headers.get("authorization") == "Bearer outage":
        raise ConnectionError("the key store does not answer")
    return KEYS.get(headers.get("authorization"))


class Running:
    """A receiver in a thread of its own, with its client."""

    def __init__(self, spool: Spool, telemetry: Telemetry, options) -> None:
        bound: Future[Listening] = Future()
        parent, self._parent = os.pipe()
        app = Receiver(spool, authenticate, telemetry, **options)
        self.ended = ThreadPoolExecutor(1).submit(serve, app, port=0, parent=parent, ready=bound.set_result)
        self.ended.add_done_callback(lambda _: os.close(parent))
        self.address = bound.result(10)[:2]
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.address[1]}", headers={"authorization": "Bearer good"}, timeout=20
        )

    def post(self, body: bytes, path: str = "/v1/traces", **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, content=body, headers={**PROTOBUF, **names})

    def metric(self, line: str) -> float:
        text = self.client.get("/metrics", headers={"authorization": "Bearer reader"}).text
        return float(re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)[1])

    def stop(self) -> None:
        self.client.close()
        os.close(self._parent)
        self.ended.result(10)


@contextlib.contextmanager
def running(directory: Path, spool_options=None, **options):
    telemetry = Telemetry()
    with Spool(directory, on_commit=telemetry.synced, **(spool_options or {})) as spool:
        receiver = Running(spool, telemetry, options)
        try:
            yield receiver
        finally:
            receiver.stop()


@pytest.fixture
def receiver(tmp_path):
    with running(tmp_path / "spool") as receiver:
        yield receiver


@pytest.fixture
def kept(tmp_path):
    def records() -> list[Record]:
        return SpoolReader(tmp_path / "spool").read(START, 1 << 30)[0]

    return records


def export(spans: int) -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for index in range(spans):
        span = scope.spans.add(name="chat", trace_id=os.urandom(16), span_id=os.urandom(8))
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = index
    return request.SerializeToString()


# ---- taken


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_what_a_stock_exporter_sends_is_on_the_spool_when_it_returns(receiver, kept, compression):
    collected = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "ranker"}))
    provider.add_span_processor(SimpleSpanProcessor(collected))
    for number in range(20):
        with provider.get_tracer("app").start_as_current_span(f"call {number}") as span:
            span.set_attribute("gen_ai.request.model", "gpt-5-mini")
    exporter = OTLPSpanExporter(
        endpoint=f"{receiver.client.base_url}/v1/traces".replace("//v1", "/v1"),
        headers={"authorization": "Bearer good"},
        compression=compression,
    )
    before = time.time_ns()
    assert exporter.export(collected.get_finished_spans()) is SpanExportResult.SUCCESS
    exporter.shutdown()
    provider.shutdown()
    (record,) = kept()
    assert (record.tenant, record.key_id, record.spans, record.signal) == ("acme", "key-1", 20, "traces")
    assert before <= record.received_ns <= time.time_ns()
    body = gzip.decompress(record.body) if record.encoding == "gzip" else record.body
    sent = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in sent] == [f"call {number}" for number in range(20)]


def test_the_answer_to_a_success_is_an_empty_export_response(receiver, kept):
    answer = receiver.post(export(3))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    assert [record.spans for record in kept()] == [3]


@pytest.mark.parametrize("headers", [{}, {"content_encoding": "gzip"}])
def test_an_empty_request_succeeds_and_keeps_nothing(receiver, kept, headers):
    assert receiver.post(b"", **headers).status_code == 200
    assert kept() == []


def test_the_body_is_kept_as_it_came(receiver, kept):
    members = gzip.compress(export(2)) + gzip.compress(export(3))
    assert receiver.post(members, content_encoding="gzip").status_code == 200
    chunked = receiver.client.post("/v1/traces", content=iter([members[:9], members[9:]]), headers={
        **PROTOBUF, "content-encoding": "GZIP", "content-type": "application/x-protobuf; charset=utf-8"
    })  # fmt: skip
    assert chunked.status_code == 200
    assert [(record.body, record.encoding, record.spans) for record in kept()] == [(members, "gzip", 5)] * 2


def test_many_connections_at_once_lose_nothing(receiver, kept):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda spans: receiver.post(export(spans)).status_code, range(1, 201)))
    assert answers == [200] * 200
    assert sorted(record.spans for record in kept()) == list(range(1, 201))
    assert receiver.metric('millicent_receiver_items_total{signal="traces"}') == sum(range(1, 201))


def test_all_three_signals_are_kept_with_what_they_hold(receiver, kept):
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    metrics = ExportMetricsServiceRequest()
    points = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens").sum.data_points
    points.add(), points.add()
    for message, path, form in (
        (logs, "/v1/logs", ExportLogsServiceResponse),
        (metrics, "/v1/metrics", ExportMetricsServiceResponse),
    ):
        answer = receiver.post(message.SerializeToString(), path)
        assert (answer.status_code, form.FromString(answer.content)) == (200, form())
    assert [(record.signal, record.spans, record.body) for record in kept()] == [
        ("logs", 1, logs.SerializeToString()),
        ("metrics", 2, metrics.SerializeToString()),
    ]
    assert receiver.metric('millicent_receiver_items_total{signal="metrics"}') == 2


# ---- refused


def status(answer: httpx.Response) -> tuple[int, int, str]:
    assert answer.headers["content-type"] == "application/x-protobuf"
    body = Status.FromString(answer.content)
    return answer.status_code, body.code, body.message


def test_keys_are_checked_before_anything_else(receiver, kept):
    for authorization in ("", "Bearer bad"):
        code, rpc, message = status(receiver.post(b"not protobuf", authorization=authorization))
        assert (code, rpc) == (401, 16)
        assert "OTEL_EXPORTER_OTLP_HEADERS" in message
    assert "www-authenticate" in receiver.post(export(1), authorization="Bearer bad").headers
    assert status(receiver.post(export(1), authorization="Bearer reader"))[:2] == (403, 7)
    assert receiver.client.get("/metrics").status_code == 403
    assert receiver.client.get("/metrics", headers={"authorization": ""}).status_code == 401
    assert kept() == []


def test_an_outage_of_the_key_store_is_not_the_clients_fault(receiver, caplog):
    answer = receiver.post(export(1), authorization="Bearer outage")
    assert status(answer)[:2] == (503, 14)
    assert answer.headers["retry-after"] == "1"
    assert "the key store does not answer" in caplog.text


def test_every_route_but_health_asks_for_a_key(receiver):
    for route in ROUTES:
        answer = receiver.client.request(route.method, route.path, headers={"authorization": "", **PROTOBUF})
        assert (answer.status_code == 401) == (route.policy != "public")


def test_unknown_paths_and_methods_are_told_what_there_is(receiver):
    answer = receiver.client.post("/v1/trace")
    assert answer.status_code == 404
    assert "/v1/traces" in answer.json()["message"]
    answer = receiver.client.get("/v1/traces")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert receiver.client.post("/healthz").headers["allow"] == "GET"


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", ""])
def test_other_content_types_are_refused(receiver, content_type):
    assert receiver.post(export(1), content_type=content_type).status_code == 415


def test_other_encodings_are_refused(receiver):
    assert status(receiver.post(export(1), content_encoding="br"))[:2] == (415, 3)


def test_protobuf_cut_short_is_refused_or_kept_and_never_an_error_of_ours(receiver, kept):
    body = export(40)
    taken = 0
    for cut in range(0, len(body), 97):
        answer = receiver.post(body[:cut])
        assert answer.status_code in {200, 400}
        taken += answer.status_code == 200 and cut > 0
        if answer.status_code == 400:
            assert status(answer)[1] == 3
    assert len(kept()) == taken


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain text", "identity"),
        (b"\xff" * 100, "identity"),
        (b"\x0a\x09\x12\x07\x12\x05\x2a\x03\xff\xff\xff", "identity"),  # a span's name that is not UTF-8
        (export(1), "gzip"),
        (gzip.compress(export(1))[:-4], "gzip"),
        (gzip.compress(export(1)) + b"trailing", "gzip"),
    ],
)
def test_what_cannot_be_decoded_is_refused_for_good(receiver, kept, body, encoding):
    assert status(receiver.post(body, content_encoding=encoding))[:2] == (400, 3)
    assert kept() == []


def test_too_many_spans_and_too_many_bytes_are_refused(receiver, kept):
    assert receiver.post(export(10_000)).status_code == 200
    for body, encoding in (
        (export(10_001), "identity"),
        (bytes(20 * MIB + 1), "identity"),
        (os.urandom(4 * MIB + 1), "gzip"),
        (gzip.compress(bytes(21 * MIB)), "gzip"),
    ):
        code, _, message = status(receiver.post(body, content_encoding=encoding))
        assert code == 413
        assert "smaller batches" in message
    chunks = (bytes(MIB) for _ in range(21))
    answer = receiver.client.post("/v1/traces", content=chunks, headers=PROTOBUF)
    assert answer.status_code == 413
    assert [record.spans for record in kept()] == [10_000]


def test_bombs_do_not_hold_up_the_others(receiver):
    bomb = gzip.compress(bytes(64 * MIB)) * 16
    with ThreadPoolExecutor(8) as pool:
        bombs = [pool.submit(receiver.post, bomb, content_encoding="gzip") for _ in range(8)]
        assert [receiver.post(export(1)).status_code for _ in range(20)] == [200] * 20
        assert {answer.result().status_code for answer in bombs} == {413}
    assert receiver.metric("millicent_receiver_in_flight_bytes") == 0
    assert receiver.metric('millicent_receiver_refused_total{reason="too_large",signal="traces"}') == 8


def connect(receiver: Running, body: bytes, declared: int) -> socket.socket:
    connection = socket.create_connection(receiver.address)
    connection.settimeout(10)
    head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    connection.sendall(f"{head}authorization: Bearer good\r\ncontent-length: {declared}\r\n\r\n".encode() + body)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    data = b""
    with connection:
        while chunk := connection.recv(65536):
            data += chunk
    return data


def test_a_slow_body_may_be_sent_again(tmp_path):
    with running(tmp_path, body_seconds=0.1) as receiver:
        answer = read_to_end(connect(receiver, b"\x0a", 100))  # ends: the server closes
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert receiver.post(export(1)).status_code == 200


def test_a_client_that_leaves_leaves_nothing_behind(receiver, kept):
    connect(receiver, b"\x0a", 100).close()
    gone = 'millicent_receiver_refused_total{reason="gone",signal="traces"}'
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(TypeError):  # not counted yet
            if receiver.metric(gone) == 1:
                break
    assert receiver.metric(gone) == 1
    assert receiver.metric("millicent_receiver_in_flight_bytes") == 0
    assert kept() == []


def test_bodies_over_the_budget_of_all_requests_are_sent_again_later(tmp_path):
    with running(tmp_path, in_flight_bytes=1000) as receiver:
        answer = receiver.post(export(100))
        assert status(answer)[:2] == (503, 14)
        assert answer.headers["retry-after"] == "1"
        assert receiver.post(export(1)).status_code == 200


def test_a_body_without_a_declared_length_is_refused_as_soon_as_it_is_too_long(tmp_path):
    with running(tmp_path, limits=Limits(compressed_bytes=1000), in_flight_bytes=MIB) as receiver:
        chunks = (os.urandom(64 * 1024) for _ in range(32))
        answer = receiver.client.post("/v1/traces", content=chunks, headers={**PROTOBUF, "content-encoding": "gzip"})
        assert status(answer)[:2] == (413, 3)


def test_slow_and_large_headers_end_the_connection(receiver, monkeypatch):
    monkeypatch.setattr(serve_module, "HEADER_SECONDS", 0.1)
    for start in (b"", b"POST /v1/traces HTTP/1.1\r\nhost:"):
        with socket.create_connection(receiver.address) as connection:
            connection.settimeout(10)
            connection.sendall(start)
            assert connection.recv(1) == b""
    monkeypatch.setattr(serve_module, "HEADER_SECONDS", 60)
    with socket.create_connection(receiver.address) as connection:
        connection.settimeout(10)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            connection.sendall(b"x: y\r\n" * 10_000_000)


def test_a_full_disk_asks_for_a_later_try(tmp_path):
    with running(tmp_path, {"reserve_bytes": 1 << 62}) as receiver:
        answer = receiver.post(export(1))
        assert status(answer)[:2] == (503, 14)
        assert "free some space" in status(answer)[2]
        assert answer.headers["retry-after"] == "1"
        assert receiver.client.get("/readyz").status_code == 503
        assert receiver.client.get("/healthz").status_code == 200


def test_a_slow_disk_asks_for_a_later_try(tmp_path, monkeypatch):
    release = threading.Event()
    sync = spool_module._fdatasync
    with running(tmp_path, append_seconds=0.05) as receiver:
        monkeypatch.setattr(spool_module, "_fdatasync", lambda file: release.wait(20) and sync(file))
        assert status(receiver.post(export(1)))[:2] == (503, 14)
        release.set()


def test_a_failed_sync_is_never_acknowledged_and_ends_the_process(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    with Spool(tmp_path) as spool:
        receiver = Running(spool, Telemetry(), {})
        monkeypatch.setattr(spool_module, "_fdatasync", fail)
        assert status(receiver.post(export(1)))[:2] == (503, 14)
        receiver.client.close()
        with pytest.raises(SpoolFailedError, match="start again"):
            receiver.ended.result(10)
        with pytest.raises(SpoolFailedError):
            receiver.stop()
    assert SpoolReader(tmp_path).total_spans() == 0


def test_an_error_of_ours_is_retried_by_the_client(receiver, monkeypatch, caplog):
    monkeypatch.setattr(receiver_module, "measure", lambda *_: 1 // 0)
    answer = receiver.post(export(1))
    assert (status(answer)[0], answer.headers["retry-after"]) == (503, "1")
    assert "ZeroDivisionError" in caplog.text


# ---- looked at


def test_health_readiness_and_metrics(receiver):
    assert receiver.client.get("/healthz", headers={"authorization": ""}).text == "ok\n"
    assert receiver.client.get("/readyz", headers={"authorization": ""}).text == "ready\n"
    receiver.post(export(4))
    answer = receiver.client.get("/metrics", headers={"authorization": "Bearer reader"})
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for row in METRICS:
        assert f"# HELP {row.name} {row.help}" in answer.text
    assert receiver.metric("millicent_spool_spans") == 4
    assert receiver.metric("millicent_spool_sync_seconds_count") == 1
    assert receiver.metric('millicent_receiver_requests_total{signal="traces",status="200"}') == 1


# ---- as a process

CHILD = """
import sys
from pathlib import Path
from millicent.collector.receiver import Principal, Receiver
from millicent.collector.serve import serve
from millicent.collector.spool import Spool
from millicent.collector.telemetry import Telemetry

heavy = {"pyarrow", "duckdb", "polars", "numpy", "fastapi", "sqlalchemy"} & set(sys.modules)
assert not heavy, f"slow to import, and not needed to receive: {heavy}"
with Spool(Path(sys.argv[1])) as spool:
    app = Receiver(spool, lambda headers: Principal("acme", "key-1"), Telemetry())
    serve(app, port=0, grpc_port=0, parent=0, ready=lambda at: print(at.port, flush=True))
print("ended")
"""


def start(directory: Path) -> tuple[subprocess.Popen, int]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return child, int(child.stdout.readline())


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "parent"])
def test_it_finishes_what_is_in_flight_and_ends(tmp_path, end):
    child, port = start(tmp_path)
    body = export(2)
    with child, socket.create_connection(("127.0.0.1", port)) as connection:
        head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")  # the request is being handled
        if end == "parent":
            child.stdin.close()
        else:
            child.send_signal(signal.Signals[end])
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert child.stdout.readline() == "ended\n"
        assert child.wait(10) == 0
    assert SpoolReader(tmp_path).total_spans() == 2


@pytest.mark.crash
def test_what_was_acknowledged_before_a_kill_is_there_after_it(tmp_path):
    acknowledged = 0
    for _ in range(3):
        child, port = start(tmp_path)
        with child, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=PROTOBUF) as client:
            for _ in range(20):
                acknowledged += client.post("/v1/traces", content=export(5)).status_code == 200
            child.kill()
    Spool(tmp_path).close()
    assert SpoolReader(tmp_path).total_spans() == 5 * acknowledged == 300


def test_the_application_speaks_nothing_but_http(tmp_path):
    with Spool(tmp_path) as spool:
        app = Receiver(spool, authenticate, Telemetry())
        with pytest.raises(ValueError, match="websocket"):
            asyncio.run(app({"type": "websocket"}, None, None))
