"""The real `openai` package over real HTTP, against an invented server."""

import asyncio
import gc

import openai
import pytest
from opentelemetry.trace import StatusCode

from millicent.sdk import attributes, track_tokens

COUNTS = {
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 300,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.reasoning.output_tokens": 192,
}
MESSAGES = [{"role": "user", "content": "?"}]


@pytest.fixture
def client(fake_openai):
    with openai.OpenAI(base_url=fake_openai.url, api_key="test", max_retries=0) as client:
        yield client


def run_async(fake_openai, main):
    async def session():
        async with openai.AsyncOpenAI(base_url=fake_openai.url, api_key="test", max_retries=0) as client:
            return await main(client)

    return asyncio.run(session())


def counts(span):
    return {key: value for key, value in span.attributes.items() if key in COUNTS}


def test_a_chat_completion(spans, client):
    ask = track_tokens(client.chat.completions.create)
    answer = ask(model="gpt-4o", messages=MESSAGES)
    assert answer.choices[0].message.content == "The answer is forty-two."
    span = spans.only
    assert (span.name, counts(span)) == ("chat gpt-4o", COUNTS)
    told = span.attributes
    assert told[attributes.RESPONSE_ID] == answer.id
    assert (told[attributes.PROVIDER], told[attributes.OPENAI_TIER]) == ("openai", "default")
    assert attributes.STREAM not in told


def test_a_streamed_chat_completion(spans, client):
    @track_tokens
    def ask(model):
        options = {"include_usage": True}
        return client.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=options)

    with ask(model="gpt-4o") as stream:
        assert isinstance(stream, openai.Stream)
        assert stream.response.status_code == 200
        words = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert words == ["The", "answer", "is", "forty-two.", None]
    told = spans.only.attributes
    assert (counts(spans.only), told[attributes.STREAM]) == (COUNTS, True)
    assert told[attributes.TIME_TO_FIRST_CHUNK] > 0


def test_a_stream_without_usage_is_missing_it(spans, client):
    for _ in track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES, stream=True):
        pass
    assert spans.only.attributes[attributes.USAGE_SOURCE] == "missing"
    assert attributes.STATUS not in spans.only.attributes


@pytest.mark.parametrize("leave", ["close", "collect"])
def test_a_stream_left_early_is_cancelled(spans, client, leave):
    stream = track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES, stream=True)
    next(stream)
    stream.response.close()
    if leave == "close":
        stream.close()
    del stream
    gc.collect()
    assert spans.only.attributes[attributes.STATUS] == "cancelled"
    assert spans.only.attributes[attributes.RESPONSE_MODEL] == "gpt-4o"


@pytest.mark.parametrize("stream", [False, True])
def test_the_responses_api(spans, client, fake_openai, stream):
    fake_openai.response_usage["input_tokens_details"]["cache_write_tokens_details"] = {
        "ttl_30m_tokens": 100,
        "ttl_12h_tokens": 28,
    }
    answer = track_tokens(client.responses.create)(model="gpt-5.6", input="?", stream=stream)
    if stream:
        assert [event.type for event in answer][-1] == "response.completed"
    told = spans.only.attributes
    assert counts(spans.only) == COUNTS
    assert (told[attributes.CACHE_WRITE], told[attributes.CACHE_WRITE_30M], told[attributes.CACHE_WRITE_12H]) == (
        128,
        100,
        28,
    )
    assert told[attributes.RESPONSE_ID].startswith("resp_")


def test_embeddings(spans, client):
    track_tokens(client.embeddings.create)(model="text-embedding-3-small", input="?", encoding_format="float")
    assert spans.only.attributes[attributes.OPERATION] == "embeddings"
    assert counts(spans.only) == {"gen_ai.usage.input_tokens": 8}


def test_an_error_of_the_provider(spans, client, fake_openai):
    fake_openai.status = 429
    with pytest.raises(openai.RateLimitError):
        track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES)
    assert spans.only.status.status_code is StatusCode.ERROR
    assert spans.only.attributes[attributes.ERROR_TYPE] == "openai.RateLimitError"


def test_the_asynchronous_client(spans, fake_openai):
    async def main(client):
        @track_tokens
        async def ask(model):
            return await client.chat.completions.create(model=model, messages=MESSAGES)

        @track_tokens
        async def stream(model):
            options = {"include_usage": True}
            return await client.chat.completions.create(
                model=model, messages=MESSAGES, stream=True, stream_options=options
            )

        await ask("gpt-4o")
        async with await stream("gpt-4o") as chunks:
            assert isinstance(chunks, openai.AsyncStream)
            return [chunk async for chunk in chunks]

    assert len(run_async(fake_openai, main)) == 6
    assert [counts(span) for span in spans()] == [COUNTS, COUNTS]


def test_an_asynchronous_create_may_be_tracked_itself(spans, fake_openai):
    async def main(client):
        create = track_tokens(client.chat.completions.create)
        async for _ in await create(model="gpt-4o", messages=MESSAGES, stream=True):
            break

    run_async(fake_openai, main)
    gc.collect()
    assert [span.attributes[attributes.STATUS] for span in spans()] == ["cancelled"]


def test_many_concurrent_calls(spans, fake_openai):
    async def main(client):
        ask = track_tokens(client.chat.completions.create)
        return await asyncio.gather(*(ask(model=f"gpt-4o-{number}", messages=MESSAGES) for number in range(40)))

    answers = run_async(fake_openai, main)
    by_id = {answer.id: answer.model for answer in answers}
    assert len(by_id) == 40
    assert {
        span.attributes[attributes.RESPONSE_ID]: span.attributes[attributes.REQUEST_MODEL] for span in spans()
    } == by_id
