"""Killed at any moment, started again: nothing acknowledged is lost, nothing is doubled, the books balance."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

KILLS = 24
SPANS = 25
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RECONNECT = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))


def request(rng: random.Random) -> tuple[bytes, set[str]]:
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    scope.scope.name = "millicent.sdk"
    ids = set()
    for _ in range(SPANS):
        now = time.time_ns()
        span = scope.spans.add(
            trace_id=rng.randbytes(16),
            span_id=rng.randbytes(8),
            start_time_unix_nano=now,
            end_time_unix_nano=now + 10**9,
        )
        text = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
                "millicent.team": "Search", "millicent.deployment": rng.choice(["", "oss-b200"])}  # fmt: skip
        span.attributes.extend(KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in text.items())
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            span.attributes.append(KeyValue(key=key, value=AnyValue(int_value=1000)))
        ids.add(span.span_id.hex())
    return message.SerializeToString(), ids


def calls(rng: random.Random) -> tuple[bytes, set[str]]:
    """The same in plain JSON."""
    ids = [rng.randbytes(8).hex() for _ in range(SPANS)]
    now = datetime.now(UTC).isoformat()
    rows = [
        {"id": span, "span_id": span, "started_at": now, "duration_ms": 1000, "provider": "openai",
         "model": "gpt-5-nano", "team": "Search", "deployment": rng.choice(["", "oss-b200"]),
         "input_tokens": 1000, "output_tokens": 1000}
        for span in ids
    ]  # fmt: skip
    return json.dumps(rows).encode(), set(ids)


class Client(threading.Thread):
    """Sends requests one after the other, each until it is acknowledged, as an exporter that never gives up."""

    def __init__(self, instance, seed: int) -> None:
        super().__init__()
        self.acknowledged: set[str] = set()
        self.resent = 0
        self.stop = threading.Event()
        self._url = instance.otlp
        self._grpc = f"127.0.0.1:{instance.grpc_port}"
        self._rng = random.Random(seed)

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=5) as http, grpc.insecure_channel(self._grpc, RECONNECT) as rpc:
            export = rpc.unary_unary(EXPORT)
            while not self.stop.is_set():
                self._send(http, export)

    def _send(self, http: httpx.Client, export: Callable[..., bytes]) -> None:
        way = self._rng.choice(("http", "grpc", "calls"))
        body, ids = (calls if way == "calls" else request)(self._rng)
        while not self._sent(http, export, way, body):
            self.resent += 1
            self.stop.wait(0.02)
        self.acknowledged |= ids

    def _sent(self, http: httpx.Client, export: Callable[..., bytes], way: str, body: bytes) -> bool:
        try:
            if way == "grpc":
                return export(body, timeout=5) == b""
            if way == "calls":
                return http.post("/api/v1/calls", content=body, headers=JSON).json().get("accepted") == SPANS
            return http.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
        except (httpx.TransportError, grpc.RpcError):
            return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def all_span_ids(instance) -> list[str]:
    found, cursor = [], None
    while True:
        page = instance.get("calls", limit=1000, include="uncounted", **({"cursor": cursor} if cursor else {}))
        found += [call["span_id"] for call in page["calls"]]
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.mark.crash
def test_every_acknowledged_call_is_stored_once_through_24_kills(installation, wait_for):
    rng = random.Random(20261123)
    instance = installation.start().wait_ready()
    clients = [Client(instance, seed) for seed in (1, 2)]
    for client in clients:
        client.start()
    try:
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.1, 2.5))  # the moment of the kill is what is being drawn, not a condition
            if kill % 4 == 3 and (receivers := children(instance.process.pid)):
                os.kill(rng.choice(receivers), signal.SIGKILL)  # the tree heals by itself
                continue
            instance.kill()
            instance.start()
    finally:
        for client in clients:
            client.stop.set()
    instance.wait_ready()
    for client in clients:
        client.join()

    def settled():
        books = instance.get("balance")
        del books["reasons"]
        received, parts = books.pop("received"), books
        assert received == sum(parts.values())
        return books if books["in_spool"] == 0 else None

    books = wait_for(settled)
    acknowledged = set.union(*(client.acknowledged for client in clients))
    stored = Counter(all_span_ids(instance))
    assert sum(client.resent for client in clients) > 0
    assert len(acknowledged) > 20 * SPANS
    assert acknowledged - stored.keys() == set()
    assert {span: times for span, times in stored.items() if times > 1} == {}
    assert books["stored"] == stored.total()
    (row,) = instance.get("query", measures="calls,input_tokens", period="7d")["rows"]
    assert (row["calls"], row["input_tokens"]) == (stored.total(), 1000 * stored.total())
