from dataclasses import fields
from enum import IntEnum
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionUsage
from openai.types.responses import Response

from millicent.sdk import TokenUsage, attributes
from millicent.sdk.readers import NOTHING, Reading, read
from millicent.sdk.readers.plain import FIELDS
from millicent.sdk.readers.wire import MAX_TOKENS

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "service_tier": "flex",
    "choices": [],
    "usage": {
        "prompt_tokens": 1200,
        "completion_tokens": 300,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 100, "audio_tokens": 7},
        "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 0},
    },
}
CHAT_COUNTS = {
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 300,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.cache_write.input_tokens": 100,
    "gen_ai.usage.audio.input_tokens": 7,
    "gen_ai.usage.audio.output_tokens": 0,
    "gen_ai.usage.reasoning.output_tokens": 200,
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5.6",
    "service_tier": "priority",
    "usage": {
        "input_tokens": 500,
        "input_tokens_details": {
            "cached_tokens": 100,
            "cache_write_tokens": 300,
            "cache_write_tokens_details": {"ttl_30m_tokens": 200, "ttl_12h_tokens": 100},
        },
        "output_tokens": 40,
        "output_tokens_details": {"reasoning_tokens": 30},
        "total_tokens": 540,
    },
}
RESPONSE_COUNTS = {
    "gen_ai.usage.input_tokens": 500,
    "gen_ai.usage.output_tokens": 40,
    "gen_ai.usage.cache_read.input_tokens": 100,
    "gen_ai.usage.cache_write.input_tokens": 300,
    "millicent.usage.cache_write.30m.input_tokens": 200,
    "millicent.usage.cache_write.12h.input_tokens": 100,
    "gen_ai.usage.reasoning.output_tokens": 30,
}
MESSAGE = {
    "id": "msg_01",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "usage": {
        "input_tokens": 10,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "output_tokens": 55,
        "output_tokens_details": {"thinking_tokens": 20},
        "service_tier": "standard",
    },
}
MESSAGE_COUNTS = {
    "gen_ai.usage.input_tokens": 2310,
    "gen_ai.usage.output_tokens": 55,
    "gen_ai.usage.cache_read.input_tokens": 2000,
    "gen_ai.usage.cache_write.input_tokens": 300,
    "millicent.usage.cache_write.5m.input_tokens": 100,
    "millicent.usage.cache_write.1h.input_tokens": 200,
    "gen_ai.usage.reasoning.output_tokens": 20,
}


def as_object(value):
    """The same answer with attributes instead of keys, as a provider's package would hand it out."""
    return (
        SimpleNamespace(**{name: as_object(item) for name, item in value.items()}) if isinstance(value, dict) else value
    )


def read_stream(chunks):
    reading = NOTHING
    for chunk in chunks:
        reading = read(chunk, reading)
    return reading


@pytest.mark.parametrize("shape", [dict, as_object, ChatCompletion.model_validate])
def test_a_chat_completion_is_inclusive_on_the_wire_already(shape):
    reading = read(shape(CHAT))
    assert reading == Reading(
        CHAT_COUNTS, "gpt-4o-2024-08-06", "chatcmpl-1", "openai", "chat", "flex", "openai.response.service_tier"
    )


@pytest.mark.parametrize("shape", [dict, as_object, CompletionUsage.model_validate])
def test_a_usage_returned_alone_is_read_too(shape):
    assert read(shape(CHAT["usage"])).usage == CHAT_COUNTS
    assert read(as_object(RESPONSE["usage"])).usage == RESPONSE_COUNTS
    assert read(as_object(MESSAGE["usage"])).usage == MESSAGE_COUNTS


def test_the_last_chunk_of_a_chat_stream_has_the_usage_and_no_choices():
    head = {**CHAT, "object": "chat.completion.chunk", "usage": None}
    chunks = [head, head, head | {"choices": [], "usage": CHAT["usage"]}]
    for shape in (dict, as_object, ChatCompletionChunk.model_validate):
        reading = read_stream(map(shape, chunks))
        assert (reading.usage, reading.model, reading.operation) == (CHAT_COUNTS, "gpt-4o-2024-08-06", "chat")


def test_a_stream_that_repeats_its_running_usage_is_not_added_up():
    head = {**CHAT, "object": "chat.completion.chunk"}
    running = [head | {"usage": {"prompt_tokens": 9, "completion_tokens": count}} for count in (1, 2, 3)]
    assert read_stream(running).usage == {attributes.INPUT: 9, attributes.OUTPUT: 3}


@pytest.mark.parametrize("shape", [dict, as_object])
def test_responses_carry_the_lifetimes_of_cache_writes(shape):
    reading = read(shape(RESPONSE))
    assert (reading.usage, reading.service_tier, reading.operation) == (RESPONSE_COUNTS, "priority", "chat")
    started = {"type": "response.created", "response": RESPONSE | {"usage": None}}
    text = {"type": "response.output_text.delta", "delta": "hello"}
    done = {"type": "response.completed", "response": RESPONSE}
    assert read_stream(map(shape, [started, text, done])) == reading


def test_the_real_response_type_is_recognised():
    response = Response.model_construct(**{**RESPONSE, "usage": as_object(RESPONSE["usage"])})
    assert read(response).usage == RESPONSE_COUNTS


@pytest.mark.parametrize("shape", [dict, as_object])
def test_anthropic_input_leaves_the_caches_out_so_they_are_added(shape):
    reading = read(shape(MESSAGE))
    assert reading == Reading(
        MESSAGE_COUNTS,
        "claude-sonnet-4-5",
        "msg_01",
        "anthropic",
        "chat",
        "standard",
        "anthropic.response.service_tier",
    )


@pytest.mark.parametrize("shape", [dict, as_object])
@pytest.mark.parametrize("repeated", [(), ("input_tokens",), ("input_tokens", "cache_read_input_tokens")])
def test_anthropic_deltas_are_cumulative_and_may_leave_things_out(shape, repeated):
    start = {"type": "message_start", "message": {**MESSAGE, "usage": {**MESSAGE["usage"], "output_tokens": 1}}}
    same = {name: MESSAGE["usage"][name] for name in repeated}
    deltas = [{"type": "message_delta", "delta": {}, "usage": {"output_tokens": count, **same}} for count in (20, 55)]
    noise = {"type": "content_block_delta", "delta": {"text": "hi"}}
    reading = read_stream(map(shape, [start, noise, *deltas]))
    assert reading.usage == MESSAGE_COUNTS
    assert (reading.model, reading.response_id) == ("claude-sonnet-4-5", "msg_01")


def test_the_output_counter_of_a_message_start_is_a_placeholder():
    start = {"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 10, "output_tokens": 1}}}
    assert read(start).usage == {attributes.INPUT: 10}


@pytest.mark.parametrize("encode", [str, str.encode])
def test_raw_event_lines_are_read(encode):
    line = 'data: {"object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":3}}'
    assert read(encode(line)).usage == {attributes.INPUT: 3}
    for other in ("data: [DONE]", ": ping", 'data: {"usage" broken', "plain words about usage"):
        assert read(encode(other)) is NOTHING


def test_a_reasoning_count_that_only_the_total_shows_is_output():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 35,
        "completion_tokens_details": {"reasoning_tokens": 20},
    }
    assert read({"usage": usage}).usage[attributes.OUTPUT] == 25


def test_embeddings_have_no_output():
    reading = read(
        {"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
    )
    assert (reading.usage, reading.operation) == ({attributes.INPUT: 8}, "embeddings")
    assert read({"object": "list", "data": []}) is NOTHING


@pytest.mark.parametrize(
    ("answer", "provider"),
    [
        (CHAT, "openai"),
        (CHAT | {"prompt_filter_results": []}, "azure.ai.openai"),
        (CHAT | {"model": "Qwen/Qwen3-8B"}, None),
        (CHAT | {"model": "gpt-oss-120b"}, None),
        (CHAT | {"id": "gen-1"}, None),
        (MESSAGE, "anthropic"),
        (MESSAGE | {"id": "msg_bdrk_1"}, "aws.bedrock"),
        (MESSAGE | {"id": "msg_vrtx_1"}, "gcp.vertex_ai"),
        (MESSAGE | {"model": "local-llama"}, None),
    ],
)
def test_the_provider_is_named_only_where_it_is_unmistakable(answer, provider):
    assert read(answer).provider == provider


def test_own_usage_is_taken_as_it_is():
    usage = TokenUsage(input_tokens=10, output_tokens=0, cache_write_1h_tokens=4)
    counts = {attributes.INPUT: 10, attributes.OUTPUT: 0, attributes.CACHE_WRITE_1H: 4}
    for answer in (
        usage,
        {"usage": usage, "model": "m"},
        SimpleNamespace(usage=usage),
        {"input_tokens": 10} | {"output_tokens": 0, "cache_write_1h_tokens": 4},
    ):
        assert read(answer).usage == counts
    assert read({"usage": usage, "model": "m"}).model == "m"


def test_every_field_of_token_usage_has_an_attribute():
    assert [field.name for field in fields(TokenUsage)] == [*FIELDS[""], "units"]  # units carry names of their own


class Size(IntEnum):
    BIG = 7


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (MAX_TOKENS, MAX_TOKENS),
        (np.int64(5), 5),
        (Size.BIG, 7),
        (-1, None),
        (True, None),
        (MAX_TOKENS + 1, None),
    ]
    + [(value, None) for value in (1.0, float("nan"), "12", [], 10**400, object())],
)
def test_only_a_count_is_a_count(value, count):
    told = read({"usage": {"prompt_tokens": value, "completion_tokens": 1}}).usage
    assert told == ({attributes.OUTPUT: 1} if count is None else {attributes.INPUT: count, attributes.OUTPUT: 1})
    assert all(type(tokens) is int for tokens in told.values())


NAMES = ["usage", "object", "type", "message", "response", "model", "id", "prompt_tokens", "completion_tokens"]
NAMES += ["input_tokens", "output_tokens", "cache_read_input_tokens", "input_tokens_details", "cached_tokens"]
WORDS = st.sampled_from(["chat.completion", "message", "message_start", "message_delta", "response.completed", "list"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS | st.binary(max_size=5)
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
)


@given(st.lists(JUNK | JUNK.map(as_object), max_size=4))
def test_whatever_comes_the_counts_are_plain_and_possible(chunks):
    for tokens in (read_stream(chunks).usage or {}).values():
        assert type(tokens) is int
        assert 0 <= tokens <= 3 * MAX_TOKENS
