"""OTLP bytes become one row per span, as an independent walk over the same bytes sees them."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from millicent.collector.decode import FIRST_TOKEN_EVENTS, LABEL, LONGEST_PAYLOAD, LONGEST_TEXT, RESOURCE, decode

WANTED = {
    "tokens": "int",
    "model": "text",
    "ttft": "float",
    "stream": "bool",
    RESOURCE + "service": "text",
    RESOURCE + "tokens": "int",
    "never.seen": "text",
}
KEYS = ("tokens", "model", "ttft", "stream", "service", "unread", "", LABEL + "a", LABEL + "b", LABEL)

# ---- the same, one span at a time


def told(value, kind):
    """What a value says to somebody who wants `kind`."""
    field = value.WhichOneof("value")
    it = getattr(value, field) if field else None
    match kind, field:
        case ("text", "string_value"):
            return it[:LONGEST_TEXT]
        case ("text", "int_value"):
            return str(it)
        case ("text", "bool_value"):
            return "true" if it else "false"
        case ("int", "int_value") | ("float", "double_value") | ("bool", "bool_value"):
            return it
        case ("int", "string_value") if re.fullmatch(r"[+-]?[0-9]{1,18}", it, re.ASCII):
            return int(it)
        case ("int", "double_value") if math.isfinite(it) and it == math.floor(it) and abs(it) < 2**53:
            return int(it)
        case ("float", "int_value"):
            return float(it)
        case ("float", "string_value") if re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", it, re.ASCII):
            return float(it)
        case ("bool", "string_value") if it.lower() in {"true", "false"}:
            return it.lower() == "true"
    return None


def first(attributes, key, kind):
    return next((told(pair.value, kind) for pair in attributes if pair.key == key), None)


def labels(attributes):
    found = {}
    for pair in attributes:
        if pair.key.startswith(LABEL):
            found.setdefault(pair.key.removeprefix(LABEL), told(pair.value, "text"))
    return [{"key": key, "value": value} for key, value in found.items()] or None


def walk(bodies):
    for record, body in enumerate(bodies):
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    has_scope, has_status = scoped.HasField("scope"), span.HasField("status")
                    yield {
                        "record": record,
                        "signal": "span",
                        "name": span.name,
                        "trace_state": span.trace_state,
                        "first_token_ns": min(
                            (one.time_unix_nano for one in span.events if one.name in FIRST_TOKEN_EVENTS), default=None
                        ),
                        "trace_id": span.trace_id,
                        "span_id": span.span_id,
                        "parent_span_id": span.parent_span_id,
                        "kind": span.kind,
                        "start_ns": span.start_time_unix_nano,
                        "end_ns": span.end_time_unix_nano,
                        "status_code": span.status.code if has_status else None,
                        "scope": scoped.scope.name if has_scope else None,
                        "scope_version": scoped.scope.version if has_scope else None,
                        **{
                            key: first(group.resource.attributes, key.removeprefix(RESOURCE), kind)
                            if key.startswith(RESOURCE)
                            else first(span.attributes, key, kind)
                            for key, kind in WANTED.items()
                        },
                        "labels": labels(span.attributes),
                    }


# ---- requests

texts = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["12", "+5", "-0", "007", "1" * 18, "1" * 19, "1.5", "١٢", "TRUE", "False", "yes", "\0", "é🎈", "5\n"]
    ),
)
values = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.one_of(st.floats(), st.integers(-(2**60), 2**60).map(float))),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=3)),
    st.builds(
        AnyValue,
        array_value=st.builds(
            ArrayValue,
            values=st.lists(
                st.one_of(
                    st.builds(AnyValue, string_value=texts), st.builds(AnyValue, array_value=st.just(ArrayValue()))
                ),
                max_size=2,
            ),
        ),
    ),
    st.builds(
        AnyValue,
        kvlist_value=st.just(KeyValueList(values=[KeyValue(key="tokens", value=AnyValue(int_value=1))])),
    ),
)
attributes = st.lists(
    st.one_of(st.builds(KeyValue, key=st.sampled_from(KEYS), value=values), st.builds(KeyValue, key=texts)), max_size=6
)
ids = st.one_of(st.binary(max_size=3), st.binary(min_size=16, max_size=16))
instants = st.one_of(st.just(0), st.integers(0, 2**64 - 2))
spans = st.builds(
    Span,
    trace_id=ids,
    span_id=ids,
    parent_span_id=ids,
    name=texts,
    kind=st.sampled_from([0, 1, 3]),
    start_time_unix_nano=instants,
    end_time_unix_nano=instants,
    attributes=attributes,
    trace_state=texts,
    events=st.lists(
        st.builds(
            Span.Event, name=texts | st.sampled_from(FIRST_TOKEN_EVENTS), time_unix_nano=instants, attributes=attributes
        ),
        max_size=2,
    ),
    status=st.none() | st.builds(Status, code=st.sampled_from([0, 1, 2]), message=texts),
)
scopes = st.builds(
    ScopeSpans,
    scope=st.none() | st.builds(InstrumentationScope, name=texts, version=texts, attributes=attributes),
    spans=st.lists(spans, max_size=4),
    schema_url=texts,
)
resources = st.none() | st.builds(Resource, attributes=attributes)
groups = st.builds(ResourceSpans, resource=resources, scope_spans=st.lists(scopes, max_size=3))
requests = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(groups, max_size=3))
batches = st.lists(requests.map(lambda request: request.SerializeToString()), max_size=4)


@settings(max_examples=80, deadline=None)
@given(batches)
def test_rows_are_those_of_an_independent_walk(bodies):
    decoded = decode(bodies, WANTED)
    assert decoded.broken == ()
    expected = list(walk(bodies))
    came = {key for row in expected for key in WANTED if row[key] is not None}
    assert came <= WANTED.keys() & set(decoded.spans.columns)
    rows, expected = (
        [dict.fromkeys(WANTED) | row | {"ttft": repr(row.get("ttft"))} for row in found]  # so that NaN equals NaN
        for found in (decoded.spans.iter_rows(named=True), expected)
    )
    assert rows == expected


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(requests.map(lambda r: (True, r.SerializeToString())), st.just((False, b"\x0a\xff"))), max_size=5
    )
)
def test_damaged_bodies_are_told_apart_and_the_others_kept(marked):
    decoded = decode([body for _, body in marked], WANTED)
    assert decoded.broken == tuple(at for at, (whole, _) in enumerate(marked) if not whole)
    expected = list(walk([body if whole else b"" for whole, body in marked]))
    assert decoded.spans["record"].to_list() == [row["record"] for row in expected]
    assert decoded.spans["span_id"].to_list() == [row["span_id"] for row in expected]


def one_span(**fields):
    group = ResourceSpans(scope_spans=[ScopeSpans(spans=[Span(**fields)])])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


@pytest.mark.parametrize("cut", [1, 20, 40])
def test_a_body_cut_short_is_broken(cut):
    body = one_span(name="x" * 50, attributes=[KeyValue(key="tokens", value=AnyValue(int_value=7))])
    decoded = decode([body[:-cut], body], WANTED)
    assert decoded.broken == (0,)
    assert decoded.spans["tokens"].to_list() == [7]


def test_text_that_is_not_utf8_breaks_its_request_alone():
    body = one_span(attributes=[KeyValue(key="model", value=AnyValue(string_value="abc"))])
    decoded = decode([body.replace(b"abc", b"a\xffc"), body], WANTED)
    assert decoded.broken == (0,)
    assert decoded.spans["model"].to_list() == ["abc"]


def test_fields_of_a_later_protocol_are_skipped():
    later = b"\xfa\x07\x03new" + b"\xf8\x07\x01"  # field 127, as bytes and as a number
    group = ScopeSpans(spans=[Span(span_id=b"8 bytes.")]).SerializeToString() + later
    resource = b"\x12" + bytes([len(group)]) + group + later
    decoded = decode([b"\x0a" + bytes([len(resource)]) + resource + later], WANTED)
    assert decoded.broken == ()
    assert decoded.spans["span_id"].to_list() == [b"8 bytes."]


def test_no_request_gives_no_row():
    for decoded in (decode([], WANTED), decode([], WANTED, []), decode([b"", b""], WANTED, ["logs", "traces"])):
        assert decoded.spans.height == 0
        assert {"record", "signal", "name", "span_id", "scope", "labels"} <= set(decoded.spans.columns)


def test_long_text_is_cut_wherever_it_stands():
    long = "é" * 1_000_000
    pair = KeyValue(key="model", value=AnyValue(string_value=long))
    label = KeyValue(key=LABEL + long, value=AnyValue(string_value=long))
    resource = Resource(attributes=[KeyValue(key="service", value=AnyValue(string_value=long))])
    scope = InstrumentationScope(name=long, version=long)
    scoped = ScopeSpans(scope=scope, spans=[Span(attributes=[pair, label])])
    body = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[scoped])])
    (row,) = decode([body.SerializeToString()], WANTED).spans.rows(named=True)
    kept = long[:LONGEST_TEXT]
    assert [row[name] for name in ("model", "scope", "scope_version", RESOURCE + "service")] == [kept] * 4
    assert row["labels"] == [{"key": kept, "value": kept}]


def test_a_payload_is_cut_later_than_other_text():
    long = "é" * 1_000_000
    body = one_span(attributes=[KeyValue(key="model", value=AnyValue(string_value=long))])
    (row,) = decode([body], {"model": "payload"}).spans.rows(named=True)
    assert row["model"] == long[:LONGEST_PAYLOAD]


def test_the_providers_name_in_a_key_of_raw_answers_is_left_out():
    pairs = [KeyValue(key=f"llm.{one}.usage", value=AnyValue(string_value=one)) for one in ("openai", "anthropic")]
    pairs.append(KeyValue(key="llm.usage.total_tokens", value=AnyValue(int_value=3)))
    (row,) = decode([one_span(attributes=pairs)], {"llm.*.usage": "text", "llm.usage.total_tokens": "int"}).spans.rows(
        named=True
    )
    assert (row["llm.*.usage"], row["llm.usage.total_tokens"]) == ("openai", 3)


# ---- log records


def one_log(service="cli", **fields):
    attributes = [KeyValue(key="service.name", value=AnyValue(string_value=service))]
    group = ResourceLogs(
        resource=Resource(attributes=attributes),
        scope_logs=[ScopeLogs(scope=InstrumentationScope(name="events"), log_records=[LogRecord(**fields)])],
    )
    return ExportLogsServiceRequest(resource_logs=[group]).SerializeToString()


def said(**pairs):
    return [KeyValue(key=key.replace("__", "."), value=AnyValue(string_value=value)) for key, value in pairs.items()]


def test_a_log_record_is_a_row_that_hangs_on_the_span_it_was_written_in():
    body = one_log(time_unix_nano=5, trace_id=b"t" * 16, span_id=b"s" * 8, event_name="a.b", attributes=said(model="m"))
    (row,) = decode([body], WANTED, ["logs"]).spans.rows(named=True)
    assert (row["signal"], row["name"], row["model"], row["scope"]) == ("log", "a.b", "m", "events")
    assert (row["trace_id"], row["parent_span_id"], row["start_ns"], row["end_ns"]) == (b"t" * 16, b"s" * 8, 5, 5)
    assert len(row["span_id"]) == 8


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"event_name": "field.wins", "body": AnyValue(string_value="body.name"), "attributes": said(event__name="x")},
         "field.wins"),
        ({"body": AnyValue(string_value="claude_code.api_request"), "attributes": said(event__name="api_request")},
         "claude_code.api_request"),
        ({"body": AnyValue(string_value="Answer was fine."), "attributes": said(event__name="gemini_cli.api_response")},
         "gemini_cli.api_response"),
        ({"body": AnyValue(string_value="some.event")}, "some.event"),
        ({"body": AnyValue(string_value="What is 2+2?")}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_an_event_is_named_by_its_field_its_attribute_or_a_body_that_is_a_name(fields, name):
    assert decode([one_log(**fields)], WANTED, ["logs"]).spans["name"].to_list() == [name]


def test_the_time_of_a_log_record_is_its_own_or_when_it_was_seen():
    bodies = [one_log(observed_time_unix_nano=7), one_log(observed_time_unix_nano=7, time_unix_nano=6)]
    assert decode(bodies, WANTED, ["logs", "logs"]).spans["start_ns"].to_list() == [7, 6]


def test_a_log_record_has_the_same_ids_again_and_another_has_others():
    records = [
        one_log(time_unix_nano=5, attributes=said(request_id="r-1")),
        one_log(time_unix_nano=5, attributes=said(request_id="r-2")),
        one_log(time_unix_nano=6, attributes=said(request_id="r-1")),
        one_log(time_unix_nano=5, attributes=said(request_id="r-1"), service="other"),
        one_log(time_unix_nano=5, attributes=said(request_id="r-1"), body=AnyValue(string_value="b")),
    ]
    ids = [decode([body], WANTED, ["logs"]).spans.select("trace_id", "span_id").row(0) for body in records]
    again = decode(records, WANTED, ["logs"] * 5).spans.select("trace_id", "span_id").rows()
    assert ids == again
    assert len({span for _, span in ids}) == len({trace for trace, _ in ids}) == 5
    assert {(len(trace), len(span)) for trace, span in ids} == {(16, 8)}


def test_spans_and_log_records_of_mixed_requests_know_their_request():
    span, log = one_span(span_id=b"8 bytes."), one_log(time_unix_nano=5)
    decoded = decode([log, span, b"\x0a\xff", span, log, b"\x0a\xff"], WANTED, ["logs", "traces"] * 3)
    assert sorted(decoded.spans.select("record", "signal").rows()) == [(0, "log"), (1, "span"), (3, "span"), (4, "log")]
    assert decoded.broken == (2, 5)
