"""Calls in plain JSON, Langfuse's address and gRPC, through the running product with its keys."""

import base64
import gzip
import json
from datetime import UTC, datetime

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from millicent.warehouse.control import Control

JSON = {"content-type": "application/json"}
PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture(scope="module")
def keyed(make_instance, tmp_path_factory):
    """A running instance with a key of each scope, and how a request presents them."""
    data = tmp_path_factory.mktemp("keyed") / "data"
    control = Control(data)
    keys = {scope: control.create_key(scope, scope) for scope in ("ingest", "read")}
    control.close()
    instance = make_instance(data, flags=(), headers={"authorization": f"Bearer {keys['read']}"})
    yield instance.start().wait_ready(), {scope: {"authorization": f"Bearer {key}"} for scope, key in keys.items()}
    instance.kill()


def calls(team: str, count: int = 3) -> list[dict]:
    """Calls that are the same whenever they are sent."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
    return [
        {"id": f"{team}-{number}", "started_at": now, "provider": "openai", "model": "gpt-5-mini", "team": team,
         "input_tokens": 100, "output_tokens": 10, "service": "batch"}
        for number in range(count)
    ]  # fmt: skip


def settled(instance, wait_for) -> dict:
    """The books once everything is loaded; they balance at every moment."""

    def ask():
        books = instance.get("balance")
        reasons = {(one["outcome"], one["reason"]): one["spans"] for one in books.pop("reasons")}
        received = books.pop("received")
        assert received == sum(books.values())
        return reasons if books["in_spool"] == 0 else None

    return wait_for(ask)


def test_calls_are_stored_once_whatever_port_and_form_they_come_by(keyed, wait_for):
    instance, keys = keyed
    sent = calls("twice")
    before = settled(instance, wait_for) if instance.get("balance")["received"] else {}
    for url in (instance.url, instance.otlp):
        for body, headers in (
            (json.dumps(sent).encode(), JSON),
            (gzip.compress(json.dumps({"calls": sent}).encode()), {**JSON, "content-encoding": "gzip"}),
            ("\n".join(map(json.dumps, sent)).encode(), {"content-type": "application/x-ndjson"}),
        ):
            answer = httpx.post(f"{url}/api/v1/calls", content=body, headers={**headers, **keys["ingest"]})
            assert (answer.status_code, answer.json()) == (200, {"accepted": 3, "rejected": []})
    rows = wait_for(lambda: instance.get("calls", team="twice")["calls"])
    assert len(rows) == 3
    assert {(row["dialect"], row["service"], row["price_status"]) for row in rows} == {("millicent", "batch", "priced")}
    after = settled(instance, wait_for)
    gone = sum(count - before.get(why, 0) for why, count in after.items() if why[0] == "duplicate")
    assert gone == 3 * 5


def test_both_ports_answer_alike_to_what_is_not_right(keyed):
    instance, keys = keyed
    ingest, read = keys["ingest"], keys["read"]
    for body, headers, status in (
        (json.dumps([*calls("half", 1), {"id": "x"}]).encode(), {**JSON, **ingest}, 207),
        (b'{"id": "x"}', {**JSON, **ingest}, 400),
        (b"{", {**JSON, **ingest}, 400),
        (b"{}", {"content-type": "text/plain", **ingest}, 415),
        (b"[" + b"{}," * 10_001 + b"{}]", {**JSON, **ingest}, 413),
        (b"{}", {**JSON, **read}, 403),
        (b"{}", JSON, 401),
    ):
        at_receiver, at_dashboard = (
            httpx.post(f"{url}/api/v1/calls", content=body, headers=headers) for url in (instance.otlp, instance.url)
        )
        assert (at_dashboard.status_code, at_receiver.status_code) == (status, status)
        assert at_dashboard.json() == at_receiver.json()
        assert at_dashboard.headers["content-type"] == at_receiver.headers["content-type"]


def test_a_body_of_unknown_length_is_handed_on_as_it_comes_and_cut_off_at_the_limit(keyed):
    instance, keys = keyed
    headers = {**JSON, **keys["ingest"]}
    lines = (json.dumps(call).encode() + b"," for call in calls("chunks", 2_000))
    chunks = (part for parts in ((b"[",), lines, (b"{}]",)) for part in parts)
    answer = httpx.post(f"{instance.url}/api/v1/calls", content=chunks, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["accepted"]) == (207, 2_000)
    endless = (b" " * (1 << 20) for _ in range(40))
    assert httpx.post(f"{instance.url}/api/v1/calls", content=endless, headers=headers, timeout=30).status_code == 413


def test_the_other_methods_and_paths_still_ask_for_a_reader(keyed):
    instance, keys = keyed
    assert httpx.get(f"{instance.url}/api/v1/calls").status_code == 401
    assert httpx.get(f"{instance.url}/api/v1/calls", headers=keys["ingest"]).status_code == 403
    for method, path in (("PUT", "calls"), ("POST", "calls/"), ("POST", "calls/x/y"), ("POST", "query")):
        assert httpx.request(method, f"{instance.url}/api/v1/{path}").status_code == 401


def spans(team: str) -> bytes:
    message = ExportTraceServiceRequest()
    now = int(datetime.now(UTC).timestamp() * 1e9)
    span = message.resource_spans.add().scope_spans.add(scope={"name": "millicent.sdk"}).spans.add(
        trace_id=team.encode().ljust(16, b"-"), span_id=team.encode().ljust(8, b"-"), start_time_unix_nano=now,
        end_time_unix_nano=now + 10**9,
    )  # fmt: skip
    for key, text in {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-5-mini",
                      "millicent.team": team}.items():  # fmt: skip
        span.attributes.add(key=key).value.string_value = text
    return message.SerializeToString()


def test_langfuse_and_grpc_senders_use_the_same_key(keyed, wait_for):
    instance, keys = keyed
    secret = keys["ingest"]["authorization"].removeprefix("Bearer ")
    basic = {"authorization": "Basic " + base64.b64encode(f"pk-lf-1:{secret}".encode()).decode()}
    answer = httpx.post(
        f"{instance.otlp}/api/public/otel/v1/traces", content=spans("lf"), headers={**PROTOBUF, **basic}
    )
    assert answer.status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{instance.grpc_port}") as channel:
        export = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        assert export(spans("rpc"), metadata=tuple(keys["ingest"].items()), timeout=10) == b""
        with pytest.raises(grpc.RpcError) as refused:
            export(spans("rpc"), metadata=tuple(keys["read"].items()), timeout=10)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    wait_for(lambda: {"lf", "rpc"} <= {call["team"] for call in instance.get("calls")["calls"]})


def test_metrics_are_in_the_books(keyed, wait_for):
    instance, keys = keyed
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="http.server.requests")
    for number in range(7):
        metric.sum.data_points.add(as_int=number)
    before = instance.get("balance")["received"]
    answer = httpx.post(
        f"{instance.otlp}/v1/metrics", content=message.SerializeToString(), headers={**PROTOBUF, **keys["ingest"]}
    )
    assert answer.status_code == 200
    assert instance.get("balance")["received"] == before + 7
    reasons = settled(instance, wait_for)
    assert sum(count for (outcome, _), count in reasons.items() if outcome == "not_a_call") >= 7
