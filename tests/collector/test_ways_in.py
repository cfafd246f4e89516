"""Every way in keeps the same promise: one request over HTTP or gRPC, in protobuf or JSON, compressed or not."""

import asyncio
import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import orjson
import pytest
from backports import zstd
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millicent.collector import limits, rpc
from millicent.collector import spool as spool_module
from millicent.collector.__main__ import presented
from millicent.collector.limits import MIB, Limits
from millicent.collector.receiver import Principal, Receiver
from millicent.collector.segment import ENCODINGS, SIGNALS
from millicent.collector.serve import Listening, serve
from millicent.collector.spool import START, Record, Spool, SpoolReader
from millicent.collector.telemetry import Telemetry

EXPORT = {name: f"/{service}/Export" for name, service in rpc.SERVICES.items()}
GOOD = {"authorization": "Bearer good"}
JSON = {"content-type": "application/json"}
PROTOBUF = {"content-type": "application/x-protobuf"}
CALL = {"id": "a-1", "started_at": datetime.now(UTC).isoformat(), "model": "gpt-4o", "input_tokens": 10}


def authenticate(headers):
    key = presented(headers)
    if key == "outage":
        raise ConnectionError("the key store does not answer")
    scopes = {"good": frozenset({"ingest"}), "reader": frozenset({"read"})}
    return Principal("acme", f"key of {key}", scopes[key]) if key in scopes else None


class Running:
    """A receiver in a thread of its own, with a client for each wire."""

    def __init__(self, spool: Spool, options) -> None:
        bound: Future[Listening] = Future()
        parent, self._parent = os.pipe()
        self.telemetry = Telemetry()
        app = Receiver(spool, authenticate, self.telemetry, **options)
        self.ended = ThreadPoolExecutor(1).submit(
            serve, app, port=0, grpc_port=0, parent=parent, ready=bound.set_result
        )
        self.ended.add_done_callback(lambda _: os.close(parent))
        self.at = bound.result(10)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.at.port}", headers=GOOD, timeout=20)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.at.grpc_port}")

    def post(self, body: bytes, path: str = "/v1/traces", **headers: str) -> httpx.Response:
        return self.http.post(path, content=body, headers={n.replace("_", "-"): v for n, v in headers.items()})

    def call(self, body: bytes, name: str = "traces", key: str = "Bearer good", **how) -> bytes:
        return self.channel.unary_unary(EXPORT[name])(body, metadata=(("authorization", key),), timeout=20, **how)

    def metric(self, line: str) -> float:
        text = self.http.get("/metrics", headers={"authorization": "Bearer reader"}).text
        return float(next(row for row in text.splitlines() if row.startswith(f"{line} ")).split()[-1])

    def stop(self) -> None:
        self.http.close()
        self.channel.close()
        os.close(self._parent)
        self.ended.result(10)


@contextlib.contextmanager
def running(directory: Path, **options):
    with Spool(directory) as spool:
        receiver = Running(spool, options)
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


def as_json(body: bytes) -> bytes:
    def in_hex(value):
        if isinstance(value, dict):
            ids = {key: base64.b64decode(it).hex() for key, it in value.items() if key.lower().endswith(("eid", "nid"))}
            return {key: in_hex(it) for key, it in value.items()} | ids
        return [in_hex(it) for it in value] if isinstance(value, list) else value

    return orjson.dumps(in_hex(MessageToDict(ExportTraceServiceRequest.FromString(body))))


def sent(path: Path) -> bytes:
    """A capture; some are kept as they came, compressed."""
    body = path.read_bytes()
    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body


# ---- one capture by every way

WAYS = {
    "protobuf": lambda r, body: r.post(body, **PROTOBUF),
    "protobuf, gzip": lambda r, body: r.post(gzip.compress(body), **PROTOBUF, content_encoding="gzip"),
    "protobuf, zstd": lambda r, body: r.post(zstd.compress(body), **PROTOBUF, content_encoding="zstd"),
    "json": lambda r, body: r.post(as_json(body), **JSON),
    "json, gzip": lambda r, body: r.post(gzip.compress(as_json(body)), **JSON, content_encoding="gzip"),
    "json, zstd": lambda r, body: r.post(zstd.compress(as_json(body)), **JSON, content_encoding="zstd"),
    "grpc": lambda r, body: r.call(body),
    "grpc, gzip": lambda r, body: r.call(body, compression=grpc.Compression.Gzip),
    "langfuse": lambda r, body: r.post(body, "/api/public/otel/v1/traces", **PROTOBUF),
}
CAPTURES = ("genai-chat-cached-reasoning", "openinference-anthropic-thinking", "langfuse-chat-basic",
            "traceloop-mixed-batch", "vercel5-anthropic-stream", "logfire-chat-stream")  # fmt: skip


@pytest.mark.parametrize("capture", CAPTURES)
def test_one_capture_is_the_same_rows_by_every_way(receiver, kept, otlp, captures, stored_rows, capture):
    body = sent(captures / f"{capture}.pb")
    for way, send in WAYS.items():
        answer = send(receiver, body)
        assert answer == b"" or answer.status_code == 200, (way, answer)
    records = kept()
    assert len({record.spans for record in records}) == 1
    assert [(record.tenant, record.key_id, record.signal) for record in records] == [
        ("acme", "key of good", "traces")
    ] * len(WAYS)
    first, *others = (
        stored_rows(
            otlp.run(limits.decompress(record.body, record.encoding, Limits()), received_at=datetime.now(UTC)).spans
        )
        for record in records
    )
    assert first
    for way, rows in zip([*WAYS][1:], others, strict=True):
        for row, same in zip(rows, first, strict=True):
            assert row | {"received_at": None} == same | {"received_at": None}, way


def test_what_is_acknowledged_by_any_way_is_counted_by_signal(receiver):
    for send in WAYS.values():
        send(receiver, export(3))
    assert receiver.metric('millicent_receiver_items_total{signal="traces"}') == 3 * len(WAYS)
    assert receiver.metric('millicent_receiver_requests_total{signal="traces",status="OK"}') == 2
    assert receiver.metric("millicent_receiver_in_flight_bytes") == 0


@pytest.mark.parametrize("name", ["metrics", "logs"])
def test_metrics_and_logs_come_by_every_way_too(receiver, kept, captures, name):
    body = sent(min(captures.glob(f"*.{name}.pb")))
    receiver.post(body, f"/v1/{name}", **PROTOBUF)
    receiver.call(body, name)
    one, other = kept()
    assert (one.signal, one.body, one.spans) == (other.signal, other.body, other.spans)
    assert (one.signal, one.spans > 0) == (name, True)


def test_a_stock_grpc_exporter_is_acknowledged(receiver, kept):
    collected = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(collected))
    for number in range(20):
        provider.get_tracer("app").start_span(f"call {number}").end()
    exporter = OTLPSpanExporter(
        endpoint=f"127.0.0.1:{receiver.at.grpc_port}", insecure=True, headers=(("authorization", "Bearer good"),)
    )
    assert exporter.export(collected.get_finished_spans()) is SpanExportResult.SUCCESS
    exporter.shutdown()
    provider.shutdown()
    (record,) = kept()
    assert (record.spans, record.signal, record.encoding) == (20, "traces", "identity")


def test_the_numbers_of_encodings_and_signals_on_disk_never_change():
    assert ENCODINGS == ("identity", "gzip", "zstd")
    assert SIGNALS == ("traces", "metrics", "logs")


# ---- JSON


def test_json_is_answered_in_json(receiver, kept):
    answer = receiver.post(as_json(export(2)), **JSON | {"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", {})
    assert receiver.post(b"{}", **JSON).json() == {}
    assert [record.spans for record in kept()] == [2]
    for body, status, code in ((b"{", 400, 3), (b'{"resourceSpans":7}', 400, 3), (bytes(21 * MIB), 413, 3)):
        answer = receiver.post(body, **JSON)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(kept()) == 1


def test_a_large_json_body_does_not_hold_up_the_others(receiver, kept):
    body = as_json(export(9000))
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(receiver.post, body, **JSON)
        assert [receiver.post(export(1), **PROTOBUF).status_code for _ in range(20)] == [200] * 20
        assert large.result().status_code == 200
    assert sum(record.spans for record in kept()) == 9020


# ---- keys


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("user", ["", "pk-lf-1234", "ü"])
def test_the_password_of_basic_is_the_key_whatever_the_user(receiver, kept, user):
    for path in ("/v1/traces", "/api/public/otel/v1/traces"):
        assert receiver.post(export(1), path, **PROTOBUF, authorization=basic(user, "good")).status_code == 200
    receiver.call(export(1), key=basic(user, "good"))
    assert {record.key_id for record in kept()} == {"key of good"}


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic good", basic("good", ""), basic("x", "bad"), "Basic /w==", "Digest good"]
)
def test_anything_else_is_nobody(receiver, authorization):
    assert receiver.post(export(1), **PROTOBUF, authorization=authorization).status_code == 401
    with pytest.raises(grpc.RpcError) as refused:
        receiver.call(export(1), key=authorization)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


# ---- gRPC


def refusal(receiver: Running, body: bytes, **how) -> tuple[grpc.StatusCode, str, Status | None]:
    with pytest.raises(grpc.RpcError) as refused:
        receiver.call(body, **how)
    told = dict(refused.value.trailing_metadata()).get("grpc-status-details-bin")
    return refused.value.code(), refused.value.details(), told and Status.FromString(told)


@pytest.mark.parametrize(
    ("body", "key", "code"),
    [
        (b"not protobuf", "Bearer bad", "UNAUTHENTICATED"),
        (b"not protobuf", "Bearer reader", "PERMISSION_DENIED"),
        (b"not protobuf", "Bearer good", "INVALID_ARGUMENT"),
        (export(2)[:-3], "Bearer good", "INVALID_ARGUMENT"),
        (export(10_001), "Bearer good", "INVALID_ARGUMENT"),  # too many: no exporter may send it again
    ],
)
def test_what_no_retry_would_mend_is_final(receiver, kept, body, key, code):
    found, message, status = refusal(receiver, body, key=key)
    assert found is grpc.StatusCode[code]
    assert (status.code, status.message, list(status.details)) == (found.value[0], message, [])
    assert receiver.metric(f'millicent_receiver_requests_total{{signal="traces",status="{code}"}}') == 1
    assert kept() == []


def assert_retryable(code, status) -> None:
    assert code is grpc.StatusCode.UNAVAILABLE
    wait = RetryInfo()
    assert status.details[0].Unpack(wait)
    assert wait.retry_delay.seconds == 1


def test_an_outage_of_the_key_store_asks_for_a_later_try(receiver, caplog):
    code, _, status = refusal(receiver, export(1), key="Bearer outage")
    assert_retryable(code, status)
    assert "the key store does not answer" in caplog.text


def test_a_slow_disk_asks_for_a_later_try_over_grpc(tmp_path, monkeypatch):
    release = threading.Event()
    sync = spool_module._fdatasync
    with running(tmp_path, append_seconds=0.05) as receiver:
        monkeypatch.setattr(spool_module, "_fdatasync", lambda file: release.wait(20) and sync(file))
        code, message, status = refusal(receiver, export(1))
        release.set()
    assert_retryable(code, status)
    assert "disk took more than" in message


def test_messages_over_the_budget_of_all_requests_are_sent_again_later(tmp_path):
    with running(tmp_path, in_flight_bytes=1000) as receiver:
        assert_retryable(*refusal(receiver, export(100))[::2])
        assert receiver.call(export(1)) == b""
        assert receiver.metric("millicent_receiver_in_flight_bytes") == 0


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_of_more_than_the_limit_is_refused(receiver, kept, compression):
    assert refusal(receiver, bytes(20 * MIB + 1), compression=compression)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    bomb = refusal(receiver, bytes(64 * MIB), compression=grpc.Compression.Gzip)
    assert bomb[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert kept() == []


def test_a_message_that_does_not_arrive_is_given_up(tmp_path):
    with running(tmp_path, body_seconds=0.2) as receiver:
        stuck = receiver.channel.stream_unary(EXPORT["traces"])
        release = threading.Event()
        calls = [stuck.future(iter(release.wait, True), metadata=tuple(GOOD.items())) for _ in range(40)]
        for call in calls:  # more than are read at a time, and none keeps its place
            assert call.exception(20).code() is grpc.StatusCode.UNAVAILABLE
        assert receiver.call(export(1)) == b""
        release.set()


def test_a_call_without_a_message_is_malformed(receiver):
    call = receiver.channel.stream_unary(EXPORT["traces"])
    with pytest.raises(grpc.RpcError, match="without a message"):
        call(iter(()), metadata=tuple(GOOD.items()), timeout=20)


def test_other_methods_are_not_there(receiver):
    for path in ("/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export", "/grpc.health.v1.Health/Check"):
        with pytest.raises(grpc.RpcError) as refused:
            receiver.channel.unary_unary(path)(b"", metadata=tuple(GOOD.items()), timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_many_calls_at_once_lose_nothing(receiver, kept):
    calls = [
        receiver.channel.unary_unary(EXPORT["traces"]).future(export(n), metadata=tuple(GOOD.items()), timeout=60)
        for n in range(1, 201)
    ]
    assert {call.result() for call in calls} == {b""}
    assert sorted(record.spans for record in kept()) == list(range(1, 201))


def test_two_receivers_cannot_share_a_grpc_port(tmp_path, receiver):
    with Spool(tmp_path / "other") as spool:
        app = Receiver(spool, authenticate, Telemetry())

        async def start() -> None:
            server, _ = await rpc.start(app, "127.0.0.1", receiver.at.grpc_port)
            await server.stop(0)

        with pytest.raises(OSError, match=r"gRPC .* choose another port"):
            asyncio.run(start())


def test_a_receiver_listens_on_ipv6_too(tmp_path):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")

    async def ask() -> bytes:
        with Spool(tmp_path) as spool:
            server, port = await rpc.start(Receiver(spool, authenticate, Telemetry()), "::1", 0)
            async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
                answer = await channel.unary_unary(EXPORT["traces"])(export(1), metadata=tuple(GOOD.items()))
            await server.stop(1)
            return answer

    assert ExportTraceServiceResponse.FromString(asyncio.run(ask())) == ExportTraceServiceResponse()


CHILD = """
import sys
from pathlib import Path
from millicent.collector.receiver import Principal, Receiver
from millicent.collector.serve import serve
from millicent.collector.spool import Spool
from millicent.collector.telemetry import Telemetry

with Spool(Path(sys.argv[1])) as spool:
    app = Receiver(spool, lambda headers: Principal("acme", "key-1"), Telemetry())
    serve(app, port=0, grpc_port=0, parent=0, ready=lambda at: print(at.port, at.grpc_port, flush=True))
print("ended")
"""


def start(directory: Path) -> tuple[subprocess.Popen, str, str]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return child, *child.stdout.readline().split()


@pytest.mark.parametrize("end", ["SIGTERM", "parent"])
def test_a_grpc_call_in_flight_is_finished_before_the_end(tmp_path, end):
    child, _, port = start(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def message():
        begun.set()
        go_on.wait(10)
        yield export(2)

    with child, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary(EXPORT["traces"])(export(1), timeout=10)  # connected
        call = channel.stream_unary(EXPORT["traces"]).future(message(), timeout=10)
        assert begun.wait(10)
        # The server must have met the call: another that was begun later is answered.
        channel.unary_unary(EXPORT["traces"])(export(1), timeout=10)
        child.stdin.close() if end == "parent" else child.send_signal(signal.SIGTERM)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as late:  # nothing new is accepted
                try:
                    late.unary_unary(EXPORT["traces"])(export(0), timeout=1)
                except grpc.RpcError:
                    break
        go_on.set()
        assert call.result(10) == b""
        assert child.stdout.readline() == "ended\n"
        assert child.wait(10) == 0
    assert SpoolReader(tmp_path).total_spans() == 4


@pytest.mark.crash
def test_what_was_acknowledged_by_grpc_and_json_before_a_kill_is_there_after_it(tmp_path):
    acknowledged = 0
    for _ in range(3):
        child, port, grpc_port = start(tmp_path)
        with child, grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel, httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=JSON
        ) as client:  # fmt: skip
            for number in range(10):
                acknowledged += channel.unary_unary(EXPORT["traces"])(export(5), timeout=10) == b""
                acknowledged += client.post("/v1/traces", content=as_json(export(5))).status_code == 200
                calls = [CALL | {"id": f"{number}-{each}"} for each in range(5)]
                acknowledged += client.post("/api/v1/calls", json=calls).json()["accepted"] == 5
            child.kill()
    Spool(tmp_path).close()
    assert SpoolReader(tmp_path).total_spans() == 5 * acknowledged == 5 * 90


# ---- calls


@pytest.mark.parametrize(
    ("calls", "status", "accepted", "rejected"),
    [
        ([CALL], 200, 1, []),
        ([CALL, CALL | {"id": "b"}], 200, 2, []),
        ([CALL, CALL | {"id": "b", "input_tokens": -1}], 207, 1, [1]),
        ([{"id": "b"}, 7], 400, 0, [0, 1]),
        ([], 200, 0, []),
    ],
)
def test_calls_are_answered_one_by_one(receiver, kept, calls, status, accepted, rejected):
    answer = receiver.post(orjson.dumps(calls), "/api/v1/calls", **JSON)
    told = answer.json()
    assert (answer.status_code, told["accepted"]) == (status, accepted)
    assert [each["index"] for each in told["rejected"]] == rejected
    assert all(set(each) == {"index", "id", "error"} for each in told["rejected"])
    assert [(record.signal, record.spans) for record in kept()] == [("traces", accepted)] * (accepted > 0)
    assert receiver.metric("millicent_receiver_rejected_calls_total") == len(rejected)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson", "application/jsonl"])
def test_calls_come_in_lines_and_compressed(receiver, kept, form, encoding):
    pack = {"identity": bytes, "gzip": gzip.compress, "zstd": zstd.compress}[encoding]
    calls = [CALL | {"id": str(number)} for number in range(500)]
    body = orjson.dumps({"calls": calls}) if form == "application/json" else b"\n".join(map(orjson.dumps, calls))
    answer = receiver.post(pack(body), "/api/v1/calls", content_type=form, content_encoding=encoding)
    assert answer.json() == {"accepted": 500, "rejected": []}
    assert [record.spans for record in kept()] == [500]


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (b"{", JSON, 400, "not JSON"),
        (b"7", JSON, 400, "send a call"),
        (b"{}", {"content-type": "text/plain"}, 415, "application/x-ndjson"),
        (b"{}", {**JSON, "content-encoding": "br"}, 415, "gzip, zstd"),
        (json.dumps([{}] * 10_001).encode(), JSON, 413, "10000 calls"),
        (b"[" + b"[]," * 2_000_000 + b"0]", JSON, 413, "JSON values"),
        (b"{}", {**JSON, "authorization": "Bearer bad"}, 401, "key is missing or unknown"),
        (b"{}", {**JSON, "authorization": "Bearer reader"}, 403, "not for 'ingest'"),
    ],
)
def test_calls_that_are_refused_as_a_whole_are_told_as_a_problem(receiver, kept, body, headers, status, told):
    answer = receiver.http.post("/api/v1/calls", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["status"], told in answer.json()["detail"]) == (status, True)
    assert kept() == []
