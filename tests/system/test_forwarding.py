"""The running product sends spans on with their cost, through kills of itself and of the back end."""

import random
import socket
import threading
import time

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

KILLS = 6
SPANS = 20


def request(rng):
    """One request, and the ids of its spans."""
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    scope.scope.name = "millicent.sdk"
    for _ in range(SPANS):
        now = time.time_ns()
        span = scope.spans.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8), name="chat",
                               start_time_unix_nano=now, end_time_unix_nano=now + 10**9)  # fmt: skip
        told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini"}
        span.attributes.extend(KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in told.items())
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            span.attributes.append(KeyValue(key=key, value=AnyValue(int_value=rng.randint(1, 10**5))))
    return message.SerializeToString(), {span.span_id for span in scope.spans}


class Client(threading.Thread):
    """Sends request after request, each until it is acknowledged."""

    def __init__(self, instance):
        super().__init__()
        self.acknowledged = set()
        self.stop = threading.Event()
        self._url = instance.otlp + "/v1/traces"

    def run(self):
        rng = random.Random(7)
        with httpx.Client(timeout=5) as http:
            while not self.stop.wait(0.01):
                body, ids = request(rng)
                while not self._sent(http, body):
                    self.stop.wait(0.02)
                self.acknowledged |= ids

    def _sent(self, http, body):
        try:
            answer = http.post(self._url, content=body, headers={"content-type": "application/x-protobuf"})
        except httpx.TransportError:
            return False
        return answer.status_code == 200


def amounts(instance):
    """What each stored call costs, by span id."""
    found, cursor = {}, None
    while True:
        page = instance.get("calls", limit=1000, **({"cursor": cursor} if cursor else {}))
        found |= {bytes.fromhex(call["span_id"]): float(call["list_cost_usd"]) for call in page["calls"]}
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.mark.crash
def test_every_span_goes_on_with_its_cost_through_kills(installation, wait_for, make_backend, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MILLICENT_FORWARD_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MILLICENT_FORWARD_HEADERS", "authorization=Bearer%20s3cret")
    rng = random.Random(20261125)
    instance = installation.start().wait_ready()
    client, backends = Client(instance), []
    client.start()
    try:
        for kill in range(KILLS):
            if kill % 3 != 1:  # sometimes nobody is there
                backends.append(make_backend(port))
            time.sleep(rng.uniform(1.0, 3.0))  # the moment of the kill is what is being drawn, not a condition
            instance.kill()
            if kill % 3 != 1:
                backends[-1].close()
            instance.start()
    finally:
        client.stop.set()
        client.join()
    instance.wait_ready()
    backends.append(make_backend(port))

    def arrived():
        return [span for backend in backends for span in backend.spans()]

    wait_for(lambda: client.acknowledged <= {span.span_id for span in arrived()})
    wait_for(lambda: "millicent_forward_pending_spans 0.0" in httpx.get(f"{instance.url}/metrics").text)
    spans, stored = arrived(), amounts(instance)
    assert stored.keys() == {span.span_id for span in spans} == client.acknowledged
    costs = [
        (span.span_id, one.value.double_value)
        for span in spans
        for one in span.attributes
        if one.key == "millicent.cost.list_usd"
    ]
    assert len(costs) == len(spans)
    assert set(costs) == set(stored.items())
    again = len(spans) - len(client.acknowledged)
    assert again <= KILLS * 2000  # at most the request that was under way at each kill
    assert again < len(spans) / 2
    assert all(headers["authorization"] == "Bearer s3cret" for one in backends for _, headers in one.requests)
    assert "s3cret" not in instance.log
    backends[-1].close()
