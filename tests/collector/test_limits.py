"""What one request may cost: counted on the wire, with bounded memory, before anything is parsed."""

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from backports import zstd
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint

from millicent.collector import otlp_pb2
from millicent.collector.limits import MIB, Limits, bound_json, decompress, measure
from millicent.collector.refusals import MalformedError, TooLargeError, UnsupportedError

LIMITS = Limits()


def field(tag: int, value: bytes) -> bytes:
    size, length = len(value), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([tag]) + length + bytes([size]) + value


def in_span(content: bytes) -> bytes:
    return field(0x0A, field(0x12, field(0x12, content)))


# ---- expanding


@given(st.lists(st.binary(max_size=3000), max_size=5))
def test_every_member_of_a_gzip_body_is_decoded(members):
    body = b"".join(gzip.compress(member) for member in members)
    assert decompress(body, "gzip", LIMITS) == b"".join(members)


def test_many_tiny_members_are_decoded_in_linear_time():
    assert decompress(gzip.compress(b"x") * 20_000, "gzip", LIMITS) == b"x" * 20_000


@pytest.mark.parametrize("cut", range(1, len(gzip.compress(b"call " * 50))))
def test_a_gzip_body_cut_short_anywhere_is_malformed(cut):
    with pytest.raises(MalformedError, match="cut short"):
        decompress(gzip.compress(b"call " * 50)[:cut], "gzip", LIMITS)


@pytest.mark.parametrize("tail", [b"\0", b"trailing", gzip.compress(b"x")[:5]])
def test_bytes_behind_the_last_member_are_malformed(tail):
    with pytest.raises(MalformedError):
        decompress(gzip.compress(b"call") + tail, "gzip", LIMITS)


@pytest.mark.parametrize("body", [b"plain", zlib.compress(b"zlib, not gzip"), gzip.compress(b"x")[:-8] + bytes(8)])
def test_what_is_not_gzip_is_malformed(body):
    with pytest.raises(MalformedError):
        decompress(body, "gzip", LIMITS)


def test_a_gigabyte_of_zeros_stops_at_the_limit_with_bounded_memory():
    zeros = gzip.compress(bytes(64 * MIB), 6)
    bomb = zeros * 16
    tracemalloc.start()
    with pytest.raises(TooLargeError, match=str(20 * MIB)):
        decompress(bomb, "gzip", LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * LIMITS.expanded_bytes


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_the_expanded_limit_is_exact(size, fits):
    for body, encoding in ((bytes(size), "identity"), (gzip.compress(bytes(size)), "gzip")):
        if fits:
            assert len(decompress(body, encoding, Limits(expanded_bytes=1000))) == size
        else:
            with pytest.raises(TooLargeError):
                decompress(body, encoding, Limits(expanded_bytes=1000))


def test_the_compressed_limit_is_checked_before_expanding():
    with pytest.raises(TooLargeError, match="compressed"):
        decompress(gzip.compress(bytes(1000)), "gzip", Limits(compressed_bytes=10))


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", ""])
def test_other_encodings_are_unsupported_and_named(encoding):
    with pytest.raises(UnsupportedError, match="OTEL_EXPORTER_OTLP_COMPRESSION"):
        decompress(b"", encoding, LIMITS)


PACK = {"gzip": gzip.compress, "zstd": zstd.compress}


@given(st.sampled_from(["gzip", "zstd"]), st.lists(st.binary(max_size=3000), max_size=5))
def test_every_frame_is_decoded_whatever_its_encoding(encoding, members):
    body = b"".join(PACK[encoding](member) for member in members)
    assert decompress(body, encoding, LIMITS) == b"".join(members)


@pytest.mark.parametrize("cut", range(1, len(zstd.compress(b"call " * 50))))
def test_a_zstd_body_cut_short_anywhere_is_malformed(cut):
    with pytest.raises(MalformedError, match="cut short"):
        decompress(zstd.compress(b"call " * 50)[:cut], "zstd", LIMITS)


CHECKED = zstd.compress(b"call " * 50, options={zstd.CompressionParameter.checksum_flag: 1})
WIDE = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})


@pytest.mark.parametrize(
    "body",
    [
        b"plain",
        gzip.compress(b"call"),
        zstd.compress(b"call") + b"trailing",
        zstd.compress(b"call") + zstd.compress(b"x")[:5],
        CHECKED[:-1] + bytes([CHECKED[-1] ^ 1]),
        WIDE.compress(b"a window that asks for 128 MiB") + WIDE.flush(),
    ],
)
def test_what_is_not_zstd_is_malformed(body):
    with pytest.raises(MalformedError):
        decompress(body, "zstd", LIMITS)


def test_a_gigabyte_in_32_kib_of_zstd_stops_at_the_limit_with_bounded_memory():
    bomb = zstd.compress(bytes(64 * MIB)) * 16
    tracemalloc.start()
    with pytest.raises(TooLargeError, match=str(20 * MIB)):
        decompress(bomb, "zstd", LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * LIMITS.expanded_bytes


@pytest.mark.parametrize("encoding", PACK)
def test_members_that_hold_nothing_are_not_expanded_for_ever(encoding):
    with pytest.raises(TooLargeError, match="20000 compressed members"):
        decompress(PACK[encoding](b"") * 20_001, encoding, LIMITS)


# ---- JSON


def test_json_is_bounded_by_its_values():
    few = Limits(json_values=100)
    bound_json(b"[" + b",".join([b'"text"'] * 100) + b"]", few)
    for amplifier in (b"[],", b"{},", b"1,", b'"a",', b'{"a":1},'):
        with pytest.raises(TooLargeError, match="100 JSON values"):
            bound_json(b"[" + amplifier * 101, few)


def test_json_full_of_json_in_text_fits():
    messages = rb"[{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a sentence, and another\"}]}]"
    bound_json(messages * (20 * MIB // len(messages)), LIMITS)


# ---- counting


def export(resources: int, scopes: int, spans: int, attributes: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(resources):
        resource = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
        resource.resource.attributes.add(key="service.name").value.string_value = "J\n\x12"
        for _ in range(scopes):
            scope = resource.scope_spans.add()
            scope.scope.name = "a library"
            for _ in range(spans):
                span = scope.spans.add(name="chat", trace_id=bytes(16), kind=3, flags=257)
                span.events.add(name="gen_ai.choice", time_unix_nano=1)
                for index in range(attributes):
                    span.attributes.add(key=f"key {index}").value.int_value = index - 3
    return request


@given(*(st.integers(0, 5) for _ in range(4)))
def test_spans_are_counted_as_a_parser_counts_them(resources, scopes, spans, attributes):
    request = export(resources, scopes, spans, attributes)
    assert measure(request.SerializeToString(), LIMITS) == resources * scopes * spans


def test_log_records_and_data_points_are_counted_too():
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.extend([LogRecord(severity_number=9)] * 3)
    assert measure(logs.SerializeToString(), LIMITS, "logs") == 3
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="tokens").sum.data_points.extend([NumberDataPoint(as_int=1)] * 2)
    scope.metrics.add(name="latency").histogram.data_points.extend([HistogramDataPoint(count=1)] * 4)
    scope.metrics.add(name="load").gauge.data_points.add(as_double=0.5)
    assert measure(metrics.SerializeToString(), LIMITS, "metrics") == 7


@pytest.mark.parametrize("shape", [(10_000, 1, 1, 0), (1, 10_000, 1, 0), (1, 1, 10_000, 0)])
def test_ten_thousand_spans_fit_and_one_more_does_not(shape):
    assert measure(export(*shape).SerializeToString(), LIMITS) == 10_000
    one_more = tuple(n + 1 if n == 10_000 else n for n in shape)
    with pytest.raises(TooLargeError, match="10000 spans"):
        measure(export(*one_more).SerializeToString(), LIMITS)


AMPLIFIERS = {
    "resource_spans": b"\x0a\x00",
    "scope_spans": field(0x0A, b"\x12\x00" * MIB),
    "spans": field(0x0A, field(0x12, b"\x12\x00" * MIB)),
    "attributes": in_span(b"\x4a\x00" * MIB),
    "attributes, tag in a longer form": in_span(b"\xca\x00\x00" * MIB),
    "resource attributes": field(0x0A, field(0x0A, b"\x0a\x00" * MIB)),
    "scope attributes": field(0x0A, field(0x12, field(0x0A, b"\x1a\x00" * MIB))),
    "array items": in_span(field(0x4A, field(0x12, field(0x2A, b"\x0a\x00" * MIB)))),
    "events": in_span(b"\x5a\x00" * MIB),
    "unknown fields": b"\x28\x00" * MIB,
}


@pytest.mark.parametrize("amplifier", AMPLIFIERS)
def test_empty_messages_are_refused_before_they_are_parsed(amplifier):
    body = AMPLIFIERS[amplifier]
    with pytest.raises(TooLargeError):
        measure(body * (10 * MIB // len(body)), Limits(attributes=200_000))


def in_point(kind: int, tag: int) -> bytes:
    return field(0x0A, field(0x12, field(0x12, field(kind, field(0x0A, bytes([tag, 0]) * MIB)))))


@pytest.mark.parametrize(
    ("signal", "body"),
    [
        ("logs", field(0x0A, field(0x12, field(0x12, b"\x32\x00" * MIB)))),
        ("logs", field(0x0A, field(0x12, field(0x12, field(0x2A, field(0x2A, b"\x0a\x00" * MIB)))))),
        ("metrics", in_point(0x2A, 0x3A)),
        ("metrics", in_point(0x3A, 0x3A)),
        ("metrics", in_point(0x4A, 0x4A)),
        ("metrics", in_point(0x52, 0x0A)),
        ("metrics", in_point(0x5A, 0x3A)),
    ],
)
def test_attributes_of_points_and_log_records_are_counted_as_those_of_spans(signal, body):
    assert measure(body, LIMITS, signal) == 1
    with pytest.raises(TooLargeError, match="attributes"):
        measure(body, Limits(attributes=200_000), signal)


def test_text_full_of_tag_bytes_is_not_taken_for_attributes():
    prompt = field(0x4A, field(0x0A, b"prompt") + field(0x12, field(0x0A, b"\nJ\x1a" * MIB)))
    assert measure(in_span(prompt), LIMITS) == 1


def test_the_attribute_limit_is_exact():
    body = export(1, 1, 4, 25).SerializeToString()  # and one of the resource, and an event of each span
    assert measure(body, Limits(attributes=105)) == 4
    with pytest.raises(TooLargeError, match="104 attributes"):
        measure(body, Limits(attributes=104))


@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_counted_as_the_parser_counts_it(place, change):
    body = bytearray(export(1, 2, 3, 4).SerializeToString())
    body[place % len(body)] ^= change
    try:
        count = measure(bytes(body), LIMITS)
    except MalformedError as error:
        refused = str(error)
        with contextlib.suppress(DecodeError):
            otlp_pb2.ExportTraceServiceRequest.FromString(body)
            assert "groups" in refused  # of unknown fields, which nobody sends
        return
    with contextlib.suppress(DecodeError):
        parsed = otlp_pb2.ExportTraceServiceRequest.FromString(body)
        assert count == sum(len(scope.spans) for each in parsed.resource_spans for scope in each.scope_spans)


def test_what_is_cut_short_between_fields_is_told_apart():
    body = export(1, 2, 3, 4).SerializeToString()
    for cut in range(1, len(body)):
        with pytest.raises(MalformedError):
            measure(body[:cut], LIMITS)


@pytest.mark.parametrize("body", [b"\x0b", b"\x0c", b"\x0f", b"\xff" * 11, b"\x0a" + b"\xff" * 11, b"\x09\x00"])
def test_broken_wire_format_is_malformed(body):
    with pytest.raises(MalformedError):
        measure(body, LIMITS)
