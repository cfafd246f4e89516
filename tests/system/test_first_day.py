"""A first start with its keys, and what the product says to what it cannot take."""

import gzip
import re
import time

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

PROTOBUF = {"content-type": "application/x-protobuf"}
DAY_NS = 86_400 * 10**9


def spans(*told: dict) -> bytes:
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for number, one in enumerate(told, 1):
        now = time.time_ns() + one.get("ahead_ns", 0)
        span = scope.spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"),
                               start_time_unix_nano=now, end_time_unix_nano=now + 10**9)  # fmt: skip
        text = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                "gen_ai.request.model": one.get("model", "gpt-5-mini")}  # fmt: skip
        span.attributes.extend(KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in text.items())
        span.attributes.append(KeyValue(key="gen_ai.usage.input_tokens", value=AnyValue(int_value=one["input"])))
        span.attributes.append(KeyValue(key="gen_ai.usage.output_tokens", value=AnyValue(int_value=10)))
    return message.SerializeToString()


def test_the_keys_of_the_first_start_open_their_doors_and_no_other(installation, wait_for):
    installation.flags = ()
    installation.start()
    wait_for(lambda: installation.answers(installation.otlp + "/readyz"))
    ingest = wait_for(lambda: re.search(r"mk_ingest_\w+", installation.log))[0]
    setup = re.search(r"mk_setup_\w+", installation.log)[0]
    wait_for(lambda: installation.answers(installation.url + "/readyz"))

    body, bearer = spans({"input": 5}), {"authorization": f"Bearer {ingest}"}
    send = f"{installation.otlp}/v1/traces"
    assert httpx.post(send, content=body, headers=PROTOBUF).status_code == 401
    assert httpx.post(send, content=body, headers={**PROTOBUF, **bearer}).status_code == 200
    assert httpx.get(f"{installation.url}/api/v1/calls").status_code == 401
    assert httpx.get(f"{installation.url}/api/v1/calls", headers=bearer).status_code == 403

    with httpx.Client(base_url=installation.url, headers={"sec-fetch-site": "same-origin"}) as browser:
        assert browser.post("/login", data={"token": setup}).status_code == 303
        (call,) = wait_for(lambda: browser.get("/api/v1/calls").json()["calls"])
        assert call["input_tokens"] == 5
    assert (
        httpx.post(
            f"{installation.url}/login", data={"token": setup}, headers={"sec-fetch-site": "same-origin"}
        ).status_code
        == 401
    )

    installation.stop()
    before = installation.log
    installation.start()
    wait_for(lambda: installation.answers(installation.url + "/readyz"))
    assert "mk_" not in installation.log.removeprefix(before), "keys are shown once"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"content-type": "text/plain"}, spans({"input": 1}), 415),
        (PROTOBUF, spans({"input": 1})[:-7], 400),
        ({**PROTOBUF, "content-encoding": "gzip"}, gzip.compress(bytes(21 << 20)), 413),
        ({**PROTOBUF, "content-encoding": "gzip"}, b"not gzip", 400),
        ({**PROTOBUF, "content-encoding": "br"}, b"", 415),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_right_status(shared_instance, headers, body, status):
    answer = httpx.post(f"{shared_instance.otlp}/v1/traces", content=body, headers=headers)
    assert answer.status_code == status
    assert len(answer.content) > 10, "a refusal says why"


def test_values_that_cannot_be_true_go_aside_and_everything_beside_them_is_kept(shared_instance, wait_for):
    body = spans({"input": 100}, {"input": -5}, {"input": 10**12}, {"input": 7, "ahead_ns": 2 * DAY_NS},
                 {"input": 200, "model": "nobody-knows-this"})  # fmt: skip
    assert httpx.post(f"{shared_instance.otlp}/v1/traces", content=body, headers=PROTOBUF).status_code == 200

    def settled():
        books = shared_instance.get("balance")
        return books if books["in_spool"] == 0 and books["received"] else None

    books = wait_for(settled)
    assert (books["received"], books["stored"], books["quarantined"]) == (5, 2, 3)
    reasons = {(one["outcome"], one["reason"]): one["spans"] for one in books["reasons"]}
    assert reasons == {("stored", "call"): 2, ("quarantined", "negative_tokens"): 1,
                       ("quarantined", "absurd_tokens"): 1, ("quarantined", "in_the_future"): 1}  # fmt: skip
    calls = {call["model"]: call for call in shared_instance.get("calls")["calls"]}
    assert calls["nobody-knows-this"]["price_status"] == "unpriced"
    assert calls["nobody-knows-this"]["list_cost_usd"] is None
    assert calls["gpt-5-mini"]["price_status"] == "priced"


@pytest.fixture(scope="module")
def shared_instance(make_instance, tmp_path_factory):
    instance = make_instance(tmp_path_factory.mktemp("first") / "data")
    yield instance.start().wait_ready()
    instance.kill()
