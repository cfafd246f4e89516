"""What is billed beside tokens: searches and the like, and what was asked for that has a price of its own."""

from types import SimpleNamespace

import pytest
from opentelemetry import baggage

from millicent.sdk import TokenUsage, attributes, track_tokens
from millicent.sdk.readers import NOTHING, read

WEB, SOCIAL, STORAGE, CODE = (
    attributes.WEB_SEARCHES,
    attributes.SOCIAL_SEARCHES,
    attributes.STORAGE_SEARCHES,
    attributes.CODE_EXECUTIONS,
)


def as_object(value):
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(item) for name, item in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


def read_stream(chunks):
    reading = NOTHING
    for chunk in chunks:
        reading = read(chunk, reading)
    return reading


def units_of(reading):
    return {name: number for name, number in (reading.usage or {}).items() if name.startswith(attributes.UNITS_PREFIX)}


def message(**usage):
    return {
        "type": "message", "id": "msg_1", "model": "claude-opus-5", "role": "assistant", "content": [],
        "usage": {"input_tokens": 10, "output_tokens": 20, **usage},
    }  # fmt: skip


def response(output=(), usage=None, **head):
    return {
        "object": "response", "id": "resp_1", "model": "gpt-5.1", "output": list(output),
        "usage": {"input_tokens": 10, "output_tokens": 20, "input_tokens_details": {}, **(usage or {})}, **head,
    }  # fmt: skip


def completion(**usage):
    return {
        "object": "chat.completion", "id": "c", "model": "m", "choices": [],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, **usage},
    }  # fmt: skip


def search(action="search", **head):
    return {"type": "web_search_call", "status": "completed", "action": {"type": action}} | head


def gemini(**head):
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 9, "totalTokenCount": 16}
    return {"modelVersion": "gemini-3-pro", "responseId": "r1", "candidates": [], "usageMetadata": usage} | head


def grounded(model, *queries):
    return gemini(modelVersion=model, candidates=[{"groundingMetadata": {"webSearchQueries": list(queries)}}])


ANSWERS = {
    "anthropic": (message(server_tool_use={"web_search_requests": 3, "web_fetch_requests": 2}), {WEB: 3}),
    "anthropic, none": (message(server_tool_use={"web_search_requests": 0}), {WEB: 0}),
    "anthropic, not told": (message(server_tool_use=None), {}),
    "openai searches": (response([search(), search(), {"type": "message"}]), {WEB: 2}),
    "openai reads a page": (response([search(), search("open_page"), search("find_in_page")]), {WEB: 1}),
    "openai failed": (response([search(status="failed"), search()]), {WEB: 1}),
    "openai files": (response([{"type": "file_search_call", "status": "completed"}]), {STORAGE: 1}),
    "openai without tools": (response([{"type": "message"}]), {}),
    "xai": (
        response(
            [search()],
            {
                "server_side_tool_usage_details": {
                    "web_search_calls": 4, "x_search_calls": 2, "code_interpreter_calls": 1, "mcp_calls": 9,
                }
            },
        ),
        {WEB: 4, SOCIAL: 2, CODE: 1},
    ),
    "perplexity": (response([], {"tool_calls_details": {"search_web": {"invocation": 2}}}), {WEB: 2}),
    "litellm, of gemini": (completion(prompt_tokens_details={"cached_tokens": 0, "web_search_requests": 2}), {WEB: 2}),
    "litellm, of anthropic": (completion(server_tool_use={"web_search_requests": 5}), {WEB: 5}),
    "gemini 3": (grounded("gemini-3-pro", "who", "what", "who", "", " "), {WEB: 2}),
    "gemini 2.5 bills the prompt": (grounded("gemini-2.5-pro", "who", "what"), {WEB: 1}),
    "gemini without queries": (grounded("gemini-3-pro"), {}),
}  # fmt: skip


@pytest.mark.parametrize("shape", [dict, as_object])
@pytest.mark.parametrize("name", ANSWERS)
def test_searches_are_counted_as_the_provider_bills_them(name, shape):
    answer, units = ANSWERS[name]
    assert units_of(read(shape(answer))) == units


def test_a_stream_of_anthropic_tells_its_searches_at_its_end():
    start = {"type": "message_start", "message": message(speed="fast", server_tool_use=None)}
    end = {"type": "message_delta", "usage": {"output_tokens": 9, "server_tool_use": {"web_search_requests": 2}}}
    reading = read_stream([start, end | {"usage": {"output_tokens": 4}}, end])
    assert (units_of(reading), reading.speed, reading.usage[attributes.OUTPUT]) == ({WEB: 2}, "fast", 9)


def test_a_stream_of_openai_tells_its_searches_at_its_end():
    end = {"type": "response.completed", "response": response([search(), search()])}
    assert units_of(read_stream([{"type": "response.created"}, end])) == {WEB: 2}


def test_the_queries_of_a_stream_of_gemini_stay_known():
    silent = {"modelVersion": "gemini-3-pro", "candidates": [{}]}
    told = silent | {"candidates": [{"groundingMetadata": {"webSearchQueries": ["who", "what"]}}]}
    reading = read_stream([silent, told, gemini()])
    assert units_of(reading) == {WEB: 2}
    assert reading.usage[attributes.OUTPUT] == 9


@pytest.mark.parametrize(("told", "speed"), [("fast", "fast"), ("standard", None), (None, None)])
def test_only_an_unusual_speed_is_news(told, speed):
    assert read(message(speed=told)).speed == speed


def test_an_app_tells_units_itself(spans):
    @track_tokens(model="mistral-ocr-4-0", provider="mistral_ai")
    def pages():
        return TokenUsage(units={"input_document_pages": 12, "wrong": -1, 7: 7, "odd": "many"})

    pages()
    told = spans.only.attributes
    assert told["millicent.usage.units.input_document_pages"] == 12
    assert told[attributes.USAGE_SOURCE] == "reported"
    assert not [name for name in told if name.endswith((".wrong", ".7", ".odd"))]


def test_units_that_are_no_mapping_are_no_usage():
    assert read(SimpleNamespace(units={"pages": 3})).usage is None
    usage = TokenUsage(input_tokens=1, units=[("web_searches", 2)])  # type: ignore[arg-type]
    assert read(usage).usage == {attributes.INPUT: 1}


def test_what_has_a_price_of_its_own_stays_with_the_call(spans):
    carried = []

    @track_tokens(price_context={"processing": "batch", "route": None, "speed": "turbo"})
    def call():
        carried.append(dict(baggage.get_all()))
        return message(speed="fast")

    call()
    told = spans.only.attributes
    assert told["millicent.price.processing"] == "batch"
    assert told["millicent.price.speed"] == "turbo"  # what the decorator states, the response does not change
    assert "millicent.price.route" not in told
    assert carried == [{}]


def test_a_fast_answer_says_so(spans):
    track_tokens(lambda: message(speed="fast"))()
    assert spans.only.attributes["millicent.price.speed"] == "fast"
