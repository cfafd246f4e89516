"""OTLP bytes become one row per span, as an independent walk over the same bytes sees them."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from millicent.collector.decode import LABEL, LONGEST_TEXT, RESOURCE, decode

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
instants = st.one_of(st.just(0), st.integers(0, 2**64 - 1))
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
    events=st.lists(st.builds(Span.Event, name=texts, attributes=attributes), max_size=1),
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
    rows, expected = (
        [row | {"ttft": repr(row["ttft"])} for row in found]  # so that NaN equals NaN
        for found in (decoded.spans.iter_rows(named=True), walk(bodies))
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


def test_no_request_gives_no_row_and_every_column():
    decoded = decode([], WANTED)
    assert decoded.spans.height == 0
    assert set(WANTED) < set(decoded.spans.columns)


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
