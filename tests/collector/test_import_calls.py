"""Calls in plain JSON: what is told is what the row says, and what is wrong is told by name, value, rule and remedy."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from genai_prices import data
from hypothesis import given
from hypothesis import strategies as st

from millicent.collector import decode, import_calls, reading, tokens
from millicent.collector.dialects import CALL_OPERATIONS
from millicent.collector.import_calls import FIELDS, read
from millicent.collector.limits import Limits
from millicent.collector.otlp_pb2 import ExportTraceServiceRequest
from millicent.collector.refusals import MalformedError, RefusedError, TooLargeError
from millicent.pricing.units import UNIT
from millicent.warehouse import record

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
CALL = {"id": "a-1", "started_at": "2026-11-20T11:59:00Z", "provider": "openai", "model": "gpt-4o",
        "input_tokens": 1000, "output_tokens": 100}  # fmt: skip
WHOLE = CALL | {
    "id": "a-2", "started_at": "2026-11-20T12:59:30.123456+01:00", "duration_ms": 1500.5, "ttft_ms": 250,
    "operation": "text_completion", "provider": "anthropic", "model": None, "request_model": "claude-sonnet-4-5",
    "response_model": "claude-sonnet-4-5-20250929", "response_id": "msg_01", "input_tokens": 10_000,
    "output_tokens": 900, "cache_read_tokens": 4000, "cache_write_tokens": 3000, "cache_write_5m_tokens": 1000,
    "cache_write_30m_tokens": 10, "cache_write_1h_tokens": 1900, "cache_write_12h_tokens": 20, "reasoning_tokens": 500,
    "input_audio_tokens": 30, "output_audio_tokens": 40, "input_image_tokens": 50, "usage_source": "estimated",
    "status": "error", "error_type": "timeout", "streaming": True, "service_tier": "priority",
    "endpoint_host": "10.0.0.7:8000", "service": "ranker", "environment": "production", "team": "Search",
    "project": "ranking", "feature": "rewrite", "customer": "ACME", "user_id": "u-1", "session_id": "s-1",
    "units": {"web_searches": 3, "lookups_of_ours": 2.0, "rerank_searches": 0},
    "price_context": {"processing": "batch"},
    "labels": {"cost centre": "4711", "wave": "2"}, "deployment": "oss-b200", "engine": "vllm",
    "accelerator": "nvidia-b200", "accelerator_count": 2, "precision": "fp8", "region": "eu-west-1",
    "trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174", "parent_span_id": "00000000000000ff",
}  # fmt: skip


def send(*calls, by_line=False, limits=Limits(), **how):  # noqa: B008  # frozen
    body = "\n".join(map(json.dumps, calls)) if by_line else json.dumps(calls)
    return read(body.encode(), "identity", by_line, how.get("tenant", "acme"), NOW_NS, limits)


def rows(otlp, *calls, **how):
    """The rows that calls become, in the order of their start."""
    done = otlp.run(send(*calls).body, received_at=NOW, **how)
    return done.spans.sort("started_at").to_dicts()


def wrong(**fields) -> str:
    sent = send({name: value for name, value in (CALL | fields).items() if value is not ...})
    assert sent.calls == 0
    return sent.rejected[0].error


# ---- taken


def test_every_field_is_a_fact_of_the_row(otlp):
    (row,) = rows(otlp, WHOLE)
    other = {"id", "started_at", "duration_ms", "endpoint_host", "labels", "response_id", "model", "trace_id",
             "span_id", "parent_span_id", "units", "price_context"}  # fmt: skip
    same = FIELDS.keys() & row.keys() - other
    assert {name: row[name] for name in same} == {name: WHOLE[name] for name in same}
    assert len(same) > 30
    assert row["model"] == WHOLE["response_model"]
    assert row["started_at"] == datetime(2026, 11, 20, 11, 59, 30, 123456, tzinfo=UTC)
    assert row["duration_ms"] in {1500, 1501}
    assert row["endpoint_host"] == "10.0.0.7"
    assert {pair["key"]: pair["value"] for pair in row["labels"]} == WHOLE["labels"]
    assert (row["trace_id"].hex(), row["span_id"]) == (WHOLE["trace_id"], int(WHOLE["span_id"], 16))
    assert row["parent_span_id"] == 255
    assert {pair["key"]: pair["value"] for pair in row["units"]} == {"lookups_of_ours": 2, "web_searches": 3}
    assert row["price_context"] == "processing=batch"
    assert row["response_id"] is not None
    assert (row["dialect"], row["scope"], row["counted"]) == ("millicent", "millicent.calls", True)


def test_what_is_not_told_is_unknown_and_not_zero(otlp):
    (row,) = rows(otlp, CALL | {"input_tokens": 0, "output_tokens": None})
    assert (row["input_tokens"], row["output_tokens"], row["cache_read_tokens"]) == (0, None, None)
    assert (row["ttft_ms"], row["duration_ms"], row["team"], row["streaming"]) == (None, None, None, None)
    assert (row["operation"], row["status"], row["usage_source"]) == ("chat", "ok", "reported")
    assert (row["labels"], row["units"], row["price_context"]) == (None, None, None)


@pytest.mark.parametrize(("told", "kept"), [({}, None), ({"web_searches": 0}, []), ({"ours": 0}, None)])
def test_units_told_as_zero_are_none_and_those_not_told_are_unknown(otlp, told, kept):
    assert rows(otlp, CALL | {"units": told})[0]["units"] == kept


def test_a_call_that_is_billed_by_units_alone_is_reported(otlp):
    (row,) = rows(otlp, CALL | {"input_tokens": None, "output_tokens": None, "units": {"input_document_pages": 4}})
    assert (row["usage_source"], row["input_tokens"]) == ("reported", None)


def test_what_has_a_price_of_its_own_is_told_in_one_order(otlp):
    context = {"speed": " Fast", "processing": "batch", "route": "mistral/eu"}
    (row,) = rows(otlp, CALL | {"price_context": context})
    assert row["price_context"] == "processing=batch,route=mistral/eu,speed=fast"


@pytest.mark.parametrize(
    ("told", "request_model", "response_model", "model"),
    [
        ({"model": "m"}, "m", None, "m"),
        ({"request_model": "m"}, "m", None, "m"),
        ({"response_model": "m-1"}, None, "m-1", "m-1"),
        ({"request_model": "m", "response_model": "m-1"}, "m", "m-1", "m-1"),
        ({"model": "m-1", "request_model": "m"}, "m", "m-1", "m-1"),
    ],
)
def test_the_model_may_be_told_in_three_ways(otlp, told, request_model, response_model, model):
    (row,) = rows(otlp, CALL | {"model": None} | told)
    assert (row["request_model"], row["response_model"], row["model"]) == (request_model, response_model, model)


@pytest.mark.parametrize(
    ("told", "status"),
    [({}, "ok"), ({"error_type": "429"}, "error"), ({"status": "error"}, "error"),
     ({"status": "cancelled"}, "cancelled"), ({"status": "cancelled", "error_type": "closed"}, "cancelled")],
)  # fmt: skip
def test_an_error_type_says_that_it_failed(otlp, told, status):
    assert rows(otlp, CALL | told)[0]["status"] == status


def test_numbers_of_tools_that_know_only_doubles_are_whole(otlp):
    assert rows(otlp, CALL | {"input_tokens": 12.0})[0]["input_tokens"] == 12


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: [c], lambda c: {"calls": [c]}])
def test_a_call_comes_alone_in_a_list_or_under_calls(wrap):
    sent = read(json.dumps(wrap(CALL)).encode(), "identity", False, "acme", NOW_NS, Limits())
    assert (sent.calls, sent.rejected) == (1, [])


def test_lines_are_calls_and_blank_ones_are_nothing():
    text = f"{json.dumps(CALL)}\r\n\n{json.dumps(WHOLE)}\n".encode()
    assert read(text, "identity", True, "acme", NOW_NS, Limits()).calls == 2


def test_a_call_sent_again_is_the_same_span_and_another_tenants_is_not():
    def ids(sent):
        message = ExportTraceServiceRequest.FromString(sent.body)
        return [
            (span.trace_id, span.span_id)
            for each in message.resource_spans
            for scope in each.scope_spans
            for span in scope.spans
        ]

    others = [CALL | {"id": str(number)} for number in range(50)]
    alone = ids(send(CALL | {"team": "added later"}))
    assert alone == ids(send(CALL, by_line=True)) == ids(send(*others, CALL))[-1:]
    assert ids(send(CALL, tenant="other")) != alone
    assert len(set(ids(send(*others)))) == 50
    assert ids(send(CALL | {"id": 7})) == ids(send(CALL | {"id": "7"}))


def test_services_are_resources_of_their_own(otlp):
    calls = [CALL | {"id": str(n), "service": name} for n, name in enumerate(["a", "b", None, "a"])]
    assert sorted(str(row["service"]) for row in rows(otlp, *calls)) == ["None", "a", "a", "b"]
    assert len(ExportTraceServiceRequest.FromString(send(*calls).body).resource_spans) == 3


def test_the_format_and_the_rest_of_the_product_agree():
    columns = {column.name for column in record.CALLS}
    assert set(FIELDS) - columns == {"id"}
    assert {name for name in FIELDS if name.endswith("_tokens")} == set(record.TOKENS)
    assert set(import_calls.OPERATIONS) == set(CALL_OPERATIONS.values())
    assert (import_calls.EARLIEST, import_calls.AHEAD) == (reading.EARLIEST, reading.AHEAD)
    assert reading.LONGEST / timedelta(milliseconds=1) == import_calls.LONGEST_MS
    assert import_calls.MOST_UNITS == tokens.MOST_UNITS
    assert (import_calls.UNITS_TOLD, import_calls.PRICE_TOLD) == (decode.UNIT, decode.PRICE)
    assert set(import_calls.UNITS_AS_OTHERS_SAY.values()) <= set(UNIT)
    assert not import_calls.UNITS_AS_OTHERS_SAY.keys() & set(UNIT)
    contexts = (
        variant.when for provider in data.providers for m in provider.models for variant in m.price_variants or ()
    )
    assert {key for when in contexts for key in when} == set(import_calls.CONTEXT_KEYS)
    carried = [field.attribute for field in FIELDS.values() if field.attribute]
    assert all(before != after for before, after in pairwise(sorted(carried)))


# ---- rejected


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"id": ...}, "id is missing: what this call is known by"),
        ({"id": ""}, "id is '': it must be text of 1 to 256 characters"),
        ({"id": "x" * 257}, "id is 'xxx"),
        ({"id": 1.5}, "id is 1.5"),
        ({"started_at": ...}, "started_at is missing"),
        ({"started_at": "2026-11-20T11:59:00"}, "'2026-11-20T11:59:00': it must be RFC 3339 with an offset"),
        ({"started_at": 1_795_000_000}, "started_at is 1795000000: it must be RFC 3339"),
        ({"started_at": "2026-13-20T11:59:00Z"}, "started_at is '2026-13"),
        ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at is '0001"),
        ({"started_at": "2019-12-31T23:59:59Z"}, "from 2020 on"),
        ({"started_at": "2026-11-21T12:00:01Z"}, "more than a day ahead"),
        ({"model": ...}, "no model is told: give model, request_model or response_model"),
        ({"model": " "}, "no model is told"),
        ({"model": 4}, "model is 4: it must be text"),
        ({"input_tokens": -1}, "input_tokens is -1: it must be a whole number from 0"),
        ({"input_tokens": 1.5}, "input_tokens is 1.5"),
        ({"input_tokens": "1000"}, "input_tokens is '1000'"),
        ({"input_tokens": True}, "input_tokens is True"),
        ({"input_tokens": 10**9 + 1}, "input_tokens is 1000000001"),
        ({"duration_ms": -1}, "duration_ms is -1: it must be a number of milliseconds"),
        ({"ttft_ms": "fast"}, "ttft_ms is 'fast'"),
        ({"streaming": "yes"}, "streaming is 'yes': it must be true or false"),
        ({"operation": "completion"}, "operation is 'completion': it must be one of chat, text_completion"),
        ({"status": "ok", "error_type": "429"}, "exclude each other"),
        ({"accelerator_count": 0}, "accelerator_count is 0"),
        ({"labels": {"a": 1}}, "labels is {'a': 1}: it must be an object"),
        ({"labels": [["a", "b"]]}, "labels is [['a', 'b']]"),
        ({"labels": {str(n): "x" for n in range(65)}}, "at most 64 names"),
        ({"units": {"web_search_requests": 1}}, "units has 'web_search_requests': did you mean web_searches?"),
        ({"units": {"web_searches": -1}}, "units has -1 for 'web_searches': it must be a whole number from 0"),
        ({"units": {"audio_seconds": 7.5}}, "units has 7.5 for 'audio_seconds': it must be a whole number"),
        ({"units": {"output_video_tokens": 7}}, "units has 'output_video_tokens', which is no name of a unit: tokens"),
        ({"units": {"Pages": 7}}, "'Pages', which is no name of a unit: use lower case, digits and _"),
        ({"units": {f"u_{n}": 1 for n in range(33)}}, "at most 32 names of units, each with a whole number"),
        ({"units": 3}, "units is 3: it must be an object of at most 32 names"),
        ({"price_context": {"mode": "batch"}}, "names are some of processing, route, search_type, service_tier, speed"),
        ({"price_context": {"processing": "a,b"}}, "each with a word such as batch or fast"),
        ({"price_context": "batch"}, "price_context is 'batch': it must be an object"),
        ({"trace_id": "0" * 32}, "trace_id is '000"),
        ({"span_id": "xyz"}, "span_id is 'xyz': it must be 16 hex digits"),
        ({"team": "x" * 1025}, "team is 'xxx"),
        ({"cache_read_tokens": 800, "cache_write_tokens": 300},
         "+ cache_write_tokens 300 is more than input_tokens 1000: input_tokens is everything that went in, caches"),
        ({"cache_write_1h_tokens": 1001}, "cache_write_tokens 1001 is more than input_tokens 1000"),
        ({"cache_write_tokens": 5, "cache_write_5m_tokens": 6}, "more than cache_write_tokens 5"),
        ({"input_tokens": ..., "cache_read_tokens": 1}, "input_tokens is missing: cache_read_tokens is a part of it"),
        ({"reasoning_tokens": 101}, "reasoning_tokens 101 is more than output_tokens 100"),
        ({"imput_tokens": 1}, "'imput_tokens' is no field of a call: did you mean input_tokens?"),
        ({"prompt_tokens": 1}, "did you mean input_tokens?"),
        ({"Team": "x"}, "did you mean team?"),
        ({"zzzzzz": 1}, "'zzzzzz' is no field of a call: put it into labels"),
        ({"input_tokens": -1, "teem": "x"}, "where it is unknown; 'teem' is no field of a call: did you mean team?"),
    ],
)  # fmt: skip
def test_an_error_names_field_value_rule_and_remedy(fields, told):
    error = wrong(**fields)
    assert told in error
    assert len(error) < 1000


def test_right_calls_are_taken_and_wrong_ones_told_beside_them():
    sent = send(CALL, CALL | {"id": "b", "input_tokens": -1}, 7, CALL | {"id": "c"}, CALL)
    assert sent.calls == 2
    assert [(each.place, each.id) for each in sent.rejected] == [(1, "b"), (2, None), (4, "a-1")]
    assert "id 'a-1' came before, at index 0" in sent.rejected[2].error


def test_a_line_that_is_not_json_is_a_wrong_call():
    text = f'{json.dumps(CALL)}\n{{"id": "b", \n[]'.encode()
    sent = read(text, "identity", True, "acme", NOW_NS, Limits())
    assert sent.calls == 1
    assert ["not JSON" in each.error for each in sent.rejected] == [True, False]
    assert sent.rejected[1].error == "a call is an object, not []"


@pytest.mark.parametrize("body", [b"", b"{", b"7", b'"text"', b'{"calls": 7}', b"\xff", b'[{"id": NaN}]', b"[" * 5000])
def test_a_body_that_is_none_is_malformed(body):
    with pytest.raises(MalformedError):
        read(body, "identity", False, "acme", NOW_NS, Limits())


@pytest.mark.parametrize("by_line", [False, True])
def test_more_calls_than_a_request_may_hold_are_refused(by_line):
    calls = [CALL | {"id": str(number)} for number in range(101)]
    assert send(*calls[:100], by_line=by_line, limits=Limits(spans=100)).calls == 100
    with pytest.raises(TooLargeError, match="more than 100 calls"):
        send(*calls, {}, by_line=by_line, limits=Limits(spans=100))


def test_ten_thousand_unknown_names_are_told_without_seeking_long():
    calls = [CALL | {"id": str(number), f"team_{number}": "x"} for number in range(10_000)]
    sent = send(*calls)
    assert (sent.calls, len(sent.rejected)) == (0, 10_000)
    assert sum("did you mean" in each.error for each in sent.rejected) <= import_calls.MOST_HINTS


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), ANYTHING | st.sampled_from(list(WHOLE.values()))))
def test_whatever_comes_is_a_call_or_told_to_be_none(fields):
    try:
        sent = read(json.dumps([CALL | fields]).encode(), "identity", False, "acme", NOW_NS, Limits())
    except RefusedError:
        return
    assert sent.calls + len(sent.rejected) == 1
    ExportTraceServiceRequest.FromString(sent.body)
