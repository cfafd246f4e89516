"""OTLP in JSON: the same request as in protobuf, bounded before it is parsed."""

import base64
import gzip
import json
import tracemalloc

import orjson
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from millicent.collector import otlp_pb2
from millicent.collector.limits import Limits
from millicent.collector.otlp_json import transcode
from millicent.collector.refusals import MalformedError, RefusedError, TooLargeError

LIMITS = Limits()
FULL = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
READ = {
    "traces": otlp_pb2.ExportTraceServiceRequest,
    "metrics": otlp_pb2.ExportMetricsServiceRequest,
    "logs": otlp_pb2.ExportLogsServiceRequest,
}
IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def signal_of(name: str) -> str:
    return next((signal for signal in ("metrics", "logs") if f".{signal}." in name), "traces")


def in_hex(value):
    """OTLP's JSON from protobuf's: ids in hex."""
    if isinstance(value, dict):
        ids = {key: base64.b64decode(each).hex() for key, each in value.items() if key in IDS}
        return {key: in_hex(each) for key, each in value.items()} | ids
    return [in_hex(each) for each in value] if isinstance(value, list) else value


def as_json(body: bytes, signal: str, *, own_names: bool, numbers: bool) -> bytes:
    message = FULL[signal].FromString(body)
    told = MessageToDict(message, preserving_proto_field_name=own_names, use_integers_for_enums=numbers)
    return orjson.dumps(in_hex(told))


def as_read(body: bytes, signal: str):
    """What is read of a request; what is not is gone."""
    message = READ[signal].FromString(body)
    message.DiscardUnknownFields()
    return message


@pytest.mark.parametrize("own_names", [False, True])
@pytest.mark.parametrize("numbers", [False, True])
def test_a_capture_in_json_is_the_same_request(captures, own_names, numbers):
    for path in sorted(captures.glob("*.pb")):
        body, signal = path.read_bytes(), signal_of(path.name)
        body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
        told = as_json(body, signal, own_names=own_names, numbers=numbers)
        assert READ[signal].FromString(transcode(told, LIMITS, signal)) == as_read(body, signal), path.name


def span(**fields) -> dict:
    return {"traceId": TRACE, "spanId": SPAN, **fields}


def request(*spans: dict) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}).encode()


def read(body: bytes):
    return otlp_pb2.ExportTraceServiceRequest.FromString(transcode(body, LIMITS, "traces"))


def only_span(body: bytes):
    return read(body).resource_spans[0].scope_spans[0].spans[0]


@pytest.mark.parametrize("number", ['"1200"', "1200", "1200.0", "1.2e3", '" 1200 "'])
def test_integers_come_as_text_as_numbers_and_as_whole_doubles(number):
    attribute = '{"key":"gen_ai.usage.input_tokens","value":{"intValue":%s}}'
    body = request(span(attributes=["@"], startTimeUnixNano="1700000000000000001"))
    told = only_span(body.replace(b'"@"', (attribute % number).encode()))
    assert told.attributes[0].value.int_value == 1200
    assert told.start_time_unix_nano == 1_700_000_000_000_000_001


def test_every_kind_of_value_comes_through():
    values = {
        "stringValue": "é\u2028", "boolValue": False, "doubleValue": "NaN", "intValue": -1,
        "arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "2"}]},
    }  # fmt: skip
    told = only_span(request(span(attributes=[{"key": name, "value": {name: it}} for name, it in values.items()])))
    by_key = {pair.key: pair.value for pair in told.attributes}
    assert by_key["stringValue"].string_value == "é\u2028"
    assert by_key["boolValue"].WhichOneof("value") == "bool_value"
    assert by_key["doubleValue"].double_value != by_key["doubleValue"].double_value
    assert by_key["intValue"].int_value == -1
    assert [item.WhichOneof("value") for item in by_key["arrayValue"].array_value.values] == [
        "string_value",
        "int_value",
    ]


@pytest.mark.parametrize("kind", [3, "SPAN_KIND_CLIENT", "3"])
@pytest.mark.parametrize("code", [2, "STATUS_CODE_ERROR"])
def test_enums_come_as_numbers_and_as_names(kind, code):
    told = only_span(request(span(kind=kind, status={"code": code})))
    assert (told.kind, told.status.code) == (3, 2)


def test_ids_are_hex_in_either_case():
    told = only_span(request(span(traceId=TRACE.upper(), parentSpanId="")))
    assert (told.trace_id.hex(), told.span_id.hex(), told.parent_span_id) == (TRACE, SPAN, b"")


def test_unknown_fields_and_nulls_are_passed_over():
    body = json.dumps({
        "resourceSpans": [{"resource": None, "novelty": [1, {"deep": {}}], "scopeSpans": [{"spans": [
            span(novelty="x", attributes=None, links=[{"traceId": "not read"}], droppedAttributesCount="many")
        ]}]}],
        "novelty": {},
    }).encode()  # fmt: skip
    assert only_span(body).span_id.hex() == SPAN


@pytest.mark.parametrize("body", [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":null}'])
def test_an_empty_request_is_one(body):
    assert transcode(body, LIMITS, "traces") == b""


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b'{"resourceSpans":', "not JSON"),
        (b'{"resourceSpans":[NaN]}', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "an OTLP export request is an object"),
        (b'"text"', "an OTLP export request is an object"),
        (b'{"resourceSpans":{}}', "resourceSpans|not an OTLP"),
        (b'{"resourceSpans":[1]}', "not an OTLP"),
        (b'{"resourceSpans":[null]}', "not an OTLP"),
        (request("no span"), "not an OTLP"),
        (request(span(name=7)), "not an OTLP"),
        (request(span(traceId="W47/95gDgQPSabYzgT/GDA==")), "traceId .* hex digits"),
        (request(span(spanId=12)), "spanId .* hex digits"),
        (request(span(kind="SPAN_KIND_NONE")), "kind cannot be 'SPAN_KIND_NONE'"),
        (request(span(startTimeUnixNano="1.5")), "startTimeUnixNano cannot be '1.5'"),
        (request(span(startTimeUnixNano=1.5)), "startTimeUnixNano cannot be 1.5"),
        (request(span(startTimeUnixNano=-1)), "not an OTLP"),
        (request(span(startTimeUnixNano=2**64)), "not an OTLP"),
        (request(span(startTimeUnixNano="9" * 5000)), "startTimeUnixNano cannot be"),
        (request(span(attributes=[{"key": "a", "value": {"doubleValue": "1e999"}}])), "doubleValue cannot be '1e999'"),
        (request(span(attributes=[{"key": "a", "value": "bare"}])), "value cannot be 'bare'"),
        (request(span(attributes={"key": "a"})), "attributes cannot be"),
    ],
)
def test_what_is_no_request_is_malformed_and_names_the_field(body, told):
    with pytest.raises(MalformedError, match=told) as refused:
        transcode(body, LIMITS, "traces")
    assert len(str(refused.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(TRACE),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "value", "arrayValue", "values",
                             "traceId", "kind", "status", "code", "intValue", "key", "events"]), inner, max_size=4
        )
    ),
)  # fmt: skip


@given(JSON, st.sampled_from(["traces", "metrics", "logs"]))
def test_any_json_is_a_request_or_refused(document, signal):
    try:
        body = transcode(json.dumps(document).encode(), LIMITS, signal)
    except RefusedError:
        return
    READ[signal].FromString(body)


@pytest.mark.parametrize(
    ("signal", "body"),
    [
        ("traces", {"resourceSpans": [{}] * 101}),
        ("traces", {"resourceSpans": [{"scopeSpans": [{"spans": [{}] * 51}] * 2}]}),
        ("traces", {"resource_spans": [{"scopeSpans": [{"spans": [{}] * 51}, {"spans": [{}] * 50}]}]}),
        ("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [{}] * 101}]}]}),
        ("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"sum": {"dataPoints": [{}] * 101}}]}]}]}),
        ("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"data_points": [{}] * 60}},
                     {"histogram": {"dataPoints": [{}] * 60}}]}]}]}),
    ],
)  # fmt: skip
def test_items_are_counted_before_any_is_converted(signal, body):
    with pytest.raises(TooLargeError, match="more than 100 "):
        transcode(json.dumps(body).encode(), Limits(spans=100), signal)


@pytest.mark.parametrize("amplifier", [b"[],", b"{},", b'"ab",', b"1e5,"])
def test_a_body_of_small_values_is_refused_before_it_is_parsed(amplifier):
    body = b'{"resourceSpans":[' + amplifier * (20 * (1 << 20) // len(amplifier)) + b"0]}"
    tracemalloc.start()
    with pytest.raises(TooLargeError, match="JSON values"):
        transcode(body, LIMITS, "traces")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * (1 << 20)
