"""Every provider's wire usage in one normal form, from the JSON that providers document and their packages hand out."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from millicent.sdk import attributes as key
from millicent.sdk.readers import NOTHING, Reading, read

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "sdk" / "usages.json").read_text("utf-8"))
"""Case → the answer as it comes over the wire, and the attributes that must come out."""


def as_object(value):
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(item) for name, item in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


def read_stream(chunks):
    reading = NOTHING
    for chunk in chunks:
        reading = read(chunk, reading)
    return reading


def chat(usage, **head):
    return {"object": "chat.completion", "id": "c1", "model": "m", "choices": []} | head | {"usage": usage}


def gemini(usage, **head):
    return {"candidates": [], "modelVersion": "gemini-2.5-pro", "responseId": "r1"} | head | {"usageMetadata": usage}


def converse(usage, **head):
    return {"output": {}, "ResponseMetadata": {"RequestId": "aws-1"}} | head | {"usage": usage}


def answer_of(name):
    return CASES[name]["answer"]


@pytest.mark.parametrize("shape", [dict, as_object])
@pytest.mark.parametrize("name", CASES)
def test_a_providers_usage_in_the_normal_form(name, shape):
    assert read(shape(answer_of(name))).usage == CASES[name]["tokens"]


@pytest.mark.parametrize("name", CASES)
def test_parts_never_exceed_their_totals(name):
    tokens = CASES[name]["tokens"]
    sent, came_out = tokens[key.INPUT], tokens.get(key.OUTPUT, 0)
    assert tokens.get(key.CACHE_READ, 0) + tokens.get(key.CACHE_WRITE, 0) <= sent
    assert tokens.get(key.REASONING, 0) <= came_out
    lifetimes = (key.CACHE_WRITE_5M, key.CACHE_WRITE_30M, key.CACHE_WRITE_1H, key.CACHE_WRITE_12H)
    assert sum(tokens.get(lifetime, 0) for lifetime in lifetimes) <= tokens.get(key.CACHE_WRITE, 0)


def snake(value):
    """Google's JSON as the attributes of its Python objects."""
    if isinstance(value, dict):
        return {
            "".join(f"_{c.lower()}" if c.isupper() else c for c in name): snake(part) for name, part in value.items()
        }
    return [snake(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("gemini")])
def test_googles_objects_read_as_googles_json(name):
    assert read(as_object(snake(answer_of(name)))) == read(answer_of(name))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            answer_of("gemini that thinks and uses tools"),
            Reading(None, "gemini-2.5-pro", "r1", "gcp.gen_ai", "generate_content"),
        ),
        (
            gemini({"promptTokenCount": 1, "trafficType": "ON_DEMAND_FLEX"}),
            Reading(None, "gemini-2.5-pro", "r1", "gcp.vertex_ai", "generate_content", "ON_DEMAND_FLEX"),
        ),
        (
            converse({"inputTokens": 1}, serviceTier={"type": "flex"}),
            Reading(None, None, None, "aws.bedrock", "chat", "flex", None, "aws-1", "aws.request_id"),
        ),
        (answer_of("cohere bills less than it reads"), Reading(None, None, "c14c", "cohere", "chat")),
        (answer_of("cohere embeddings"), Reading(None, None, "e", "cohere", "embeddings")),
        (answer_of("ollama"), Reading(None, "llama3.2", None, "ollama", "chat")),
        (answer_of("langchain's message"), Reading(None, "gpt-5-mini-2025-08-07", "chatcmpl-1", None, "chat")),
        (
            SimpleNamespace(type="message", id="msg_1", model="claude-opus-5", usage=None, _request_id="req_9"),
            Reading(None, "claude-opus-5", "msg_1", "anthropic", "chat", None, "anthropic.response.service_tier")
            ._replace(request_id="req_9", request_attribute="anthropic.request.id"),
        ),
    ],
)  # fmt: skip
def test_what_else_an_answer_tells(answer, told):
    assert read(answer)._replace(usage=None) == told


def test_the_running_counts_of_gemini_are_not_added_up():
    counts = [
        {"promptTokenCount": 9, "totalTokenCount": 9},
        {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
        {"promptTokenCount": 9, "candidatesTokenCount": 20, "thoughtsTokenCount": 30, "totalTokenCount": 59},
    ]
    usage = read_stream(gemini(each) for each in counts).usage
    assert usage == {key.INPUT: 9, key.OUTPUT: 50, key.REASONING: 30}


def test_the_chunks_of_langchain_are_added_up():
    def chunk(sent, came_out, **details):
        usage = {"input_tokens": sent, "output_tokens": came_out, "input_token_details": details}
        return {"type": "AIMessageChunk", "id": "lc_run--1", "usage_metadata": usage, "response_metadata": {}}

    silent = {
        "type": "AIMessageChunk",
        "id": "lc_run--1",
        "usage_metadata": None,
        "response_metadata": {"model_name": "m"},
    }
    reading = read_stream([chunk(2300, 0, cache_read=2000), silent, chunk(0, 55)])
    assert reading.usage == {key.INPUT: 2300, key.OUTPUT: 55, key.CACHE_READ: 2000}
    assert (reading.model, reading.response_id) == ("m", None)


@pytest.mark.parametrize(
    ("events", "usage"),
    [
        (
            [
                {"messageStart": {}},
                {"contentBlockDelta": {}},
                {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4}}},
            ],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        (
            [
                {"type": "message-start", "id": "c1"},
                {"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 3, "output_tokens": 4}}}},
            ],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        (
            [
                {"model": "m", "created_at": "2026", "done": False, "message": {}},
                {"model": "m", "created_at": "2026", "done": True, "prompt_eval_count": 3, "eval_count": 4},
            ],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        (
            [
                {"data": {"object": "chat.completion.chunk", "choices": [{}]}},
                {"data": {"object": "chat.completion.chunk", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}},
            ],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        (
            [{"object": "chat.completion.chunk", "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        (
            [
                {
                    "chunk": {
                        "bytes": b'{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1}}}'
                    }
                },
                {"chunk": {"bytes": b'{"type":"message_delta","usage":{"output_tokens":4}}'}},
            ],
            {key.INPUT: 3, key.OUTPUT: 4},
        ),
        ([(chat({"prompt_tokens": 3, "completion_tokens": 4}), {"delta": "…"})], {key.INPUT: 3, key.OUTPUT: 4}),
    ],
    ids=["bedrock converse", "cohere", "ollama", "mistral", "groq", "bedrock invoke", "a pair of answer and chunk"],
)
@pytest.mark.parametrize("shape", [lambda event: event, as_object], ids=["dict", "object"])
def test_the_usage_at_the_end_of_a_stream(events, usage, shape):
    if shape is as_object and any("chunk" in event or isinstance(event, tuple) for event in events):
        shape = dict.copy if isinstance(events[0], dict) else tuple
    assert read_stream(map(shape, events)).usage == usage


def test_azure_shows_itself_in_the_first_chunk_alone():
    first = {"object": "chat.completion.chunk", "model": "", "choices": [], "prompt_filter_results": [{}]}
    rest = {"object": "chat.completion.chunk", "id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "choices": [{}]}
    reading = read_stream([first, rest, rest | {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}])
    assert (reading.provider, reading.model) == ("azure.ai.openai", "gpt-4o-2024-08-06")


@pytest.mark.parametrize(
    "answer",
    [
        chat({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        {"object": "list", "model": "m", "data": [], "usage": {"prompt_tokens": 0, "total_tokens": 0}},
        chat(None),
        gemini({}),
        gemini({"trafficType": "ON_DEMAND"}),
        converse({}),
        {"id": "x", "message": {}, "usage": {"billed_units": {}, "tokens": None}},
        {"model": "m", "created_at": "2026", "done": False, "response": "…"},
    ],
)
def test_a_usage_that_tells_nothing_is_unknown_and_not_zero(answer):
    assert read(answer).usage is None


def test_googles_raw_event_lines_are_read_too():
    line = "data: " + json.dumps(answer_of("gemini that thinks and uses tools"))
    assert read(line).usage[key.OUTPUT] == 436


def test_the_metrics_that_end_a_stream_of_bedrocks_invoke():
    metrics = {
        "inputTokenCount": 12,
        "outputTokenCount": 30,
        "cacheReadInputTokenCount": 5,
        "cacheWriteInputTokenCount": 3,
    }
    event = {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}
    usage = read({"chunk": {"bytes": json.dumps(event).encode()}}).usage
    assert usage == {key.INPUT: 20, key.OUTPUT: 30, key.CACHE_READ: 5, key.CACHE_WRITE: 3}
    assert read({"chunk": {"bytes": b'{"usage": broken'}}) is NOTHING
