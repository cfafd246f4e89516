"""How a call may end: streams asked for usage, left, broken or opened by a manager, and retries of the client."""

import asyncio
import gc
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import SimpleNamespace

import openai
import pytest
from opentelemetry.trace import StatusCode

from millicent.sdk import TokenUsage, attributes, track_tokens

MESSAGES = [{"role": "user", "content": "?"}]
USAGE = TokenUsage(input_tokens=10, output_tokens=4)
TOKENS = {attributes.INPUT: 1200, attributes.OUTPUT: 300}


@pytest.fixture
def client(fake_openai):
    with openai.OpenAI(base_url=fake_openai.url, api_key="test", max_retries=2) as client:
        yield client


def tokens(span):
    return {key: span.attributes.get(key) for key in TOKENS}


# ---- asking for the usage of a stream


def streamed(client, **arguments):
    create = track_tokens(stream_usage=True)(client.chat.completions.create)
    return list(create(model="gpt-4o", messages=MESSAGES, stream=True, **arguments))


def test_a_stream_is_asked_for_its_usage_and_the_app_sees_what_it_would_have_seen(spans, client, fake_openai):
    plain = list(client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True))
    asked = streamed(client)
    assert fake_openai.requests[-1]["stream_options"] == {"include_usage": True}
    assert [chunk.choices for chunk in asked] == [chunk.choices for chunk in plain]
    assert tokens(spans.only) == TOKENS


def test_an_app_that_asked_itself_gets_its_chunk(spans, client, fake_openai):
    chunks = streamed(client, stream_options={"include_usage": True, "include_obfuscation": False})
    assert chunks[-1].usage.prompt_tokens == 1200
    assert fake_openai.requests[-1]["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert tokens(spans.only) == TOKENS


@pytest.mark.usefixtures("spans")
def test_nothing_else_is_changed(client, fake_openai):
    create = track_tokens(stream_usage=True)(client.chat.completions.create)
    create(model="gpt-4o", messages=MESSAGES)
    streamed(client, stream_options={"include_usage": False})
    assert "stream_options" not in fake_openai.requests[0]
    assert fake_openai.requests[1]["stream_options"] == {"include_usage": False}


def test_an_asynchronous_stream_is_asked_too(spans, fake_openai):
    async def main():
        async with openai.AsyncOpenAI(base_url=fake_openai.url, api_key="test") as client:
            create = track_tokens(stream_usage=True)(client.chat.completions.create)
            return [chunk async for chunk in await create(model="gpt-4o", messages=MESSAGES, stream=True)]

    assert all(chunk.choices for chunk in asyncio.run(main()))
    assert tokens(spans.only) == TOKENS


def test_only_the_call_itself_can_be_asked():
    async def ask(): ...

    with pytest.raises(TypeError, match=r"decorate the client's own method, client\.chat\.completions\.create"):
        track_tokens(stream_usage=True)(ask)


# ---- streams that do not come to their end


def test_a_stream_that_breaks_off_failed_with_unknown_usage(spans, client, fake_openai):
    fake_openai.breaks_after = 2
    with pytest.raises(openai.APIConnectionError):
        list(track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES, stream=True))
    span = spans.only
    assert span.status.status_code is StatusCode.ERROR
    told = span.attributes
    assert (told[attributes.STREAM], told[attributes.USAGE_SOURCE]) == (True, "missing")
    assert attributes.OUTPUT not in told


def test_a_refused_stream_failed_and_used_nothing(spans, client, fake_openai):
    fake_openai.status = 400
    with pytest.raises(openai.BadRequestError):
        track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES, stream=True)
    assert attributes.USAGE_SOURCE not in spans.only.attributes


def events():
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}}
    return [start, {"type": "content_block_delta"}, {"type": "message_delta", "usage": {"output_tokens": 30}}]


@pytest.mark.parametrize(("seen", "output"), [(1, None), (2, None), (3, 30)])
def test_an_aborted_message_knows_what_was_told_so_far(spans, seen, output):
    body = track_tokens(partial(iter_events))()
    for _ in range(seen):
        next(body)
    body.close()
    told = spans.only.attributes
    assert (told[attributes.STATUS], told[attributes.INPUT], told.get(attributes.OUTPUT)) == ("cancelled", 7, output)


def iter_events():
    yield from events()


def test_a_cancelled_task_leaves_a_cancelled_stream(spans):
    @track_tokens
    async def stream():
        yield USAGE
        await asyncio.Event().wait()

    async def consume():
        async for _ in stream():
            pass

    async def main():
        task = asyncio.create_task(consume())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    told = spans.only.attributes
    assert (told[attributes.STATUS], told[attributes.INPUT]) == ("cancelled", 10)


# ---- retries and requests


def test_retries_inside_the_client_are_one_call(spans, client, fake_openai, monkeypatch):
    monkeypatch.setattr(client, "_calculate_retry_timeout", lambda *_: 0)
    fake_openai.refusals = 2
    track_tokens(client.chat.completions.create)(model="gpt-4o", messages=MESSAGES)
    assert len(fake_openai.requests) == 3
    assert tokens(spans.only) == TOKENS
    assert spans.only.status.status_code is StatusCode.UNSET


def test_the_request_is_told_of_an_answer_a_stream_and_an_error(spans, client, fake_openai):
    create = track_tokens(client.chat.completions.create)
    create(model="gpt-4o", messages=MESSAGES)
    list(create(model="gpt-4o", messages=MESSAGES, stream=True))
    track_tokens(client.responses.create)(model="gpt-5", input="?")
    fake_openai.status = 400
    with pytest.raises(openai.BadRequestError):
        create(model="gpt-4o", messages=MESSAGES)
    assert [span.attributes[attributes.REQUEST_ID] for span in spans()] == ["req_1", "req_2", "req_3", "req_4"]


def test_an_exception_that_carries_the_answer_tells_its_usage(spans):
    answer = {"object": "chat.completion", "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}
    cut_short = openai.LengthFinishReasonError(completion=openai.types.chat.ChatCompletion.model_construct(**answer))

    @track_tokens
    def parse():
        raise cut_short

    with pytest.raises(openai.LengthFinishReasonError):
        parse()
    told = spans.only.attributes
    assert (told[attributes.INPUT], told[attributes.OUTPUT], told[attributes.USAGE_SOURCE]) == (9, 5, "reported")


# ---- streams behind a context manager


def test_openais_stream_helper(spans, client):
    stream = track_tokens(client.chat.completions.stream)
    with stream(model="gpt-4o", messages=MESSAGES, stream_options={"include_usage": True}) as chunks:
        assert not spans()
        kinds = {event.type for event in chunks}
        assert chunks.get_final_completion().choices[0].message.content
    assert "chunk" in kinds
    assert tokens(spans.only) == TOKENS
    assert attributes.STATUS not in spans.only.attributes


def test_the_headers_of_a_stream_that_a_manager_opened(spans):
    class Stream:
        response = SimpleNamespace(headers={"request-id": "req_9"})

        def __iter__(self):
            return self

        def __next__(self):
            raise StopIteration

    @track_tokens
    @contextmanager
    def stream():
        yield Stream()

    with stream() as chunks:
        assert list(chunks) == []
    assert spans.only.attributes[attributes.ANTHROPIC_REQUEST_ID] == "req_9"
    assert attributes.STATUS not in spans.only.attributes


def test_a_helper_that_consumes_its_own_stream_is_heard(spans, client):
    stream = track_tokens(client.chat.completions.stream)
    with stream(model="gpt-4o", messages=MESSAGES, stream_options={"include_usage": True}) as chunks:
        assert chunks.get_final_completion().usage.prompt_tokens == 1200
    with track_tokens(client.responses.stream)(model="gpt-5", input="?") as chunks:
        assert chunks.get_final_response().usage.input_tokens == 1200
    assert [tokens(span) for span in spans()] == [TOKENS, TOKENS]
    assert all(attributes.STATUS not in span.attributes for span in spans)


def test_a_helper_that_is_left_early_is_cancelled(spans, client):
    with track_tokens(client.chat.completions.stream)(model="gpt-4o", messages=MESSAGES) as chunks:
        next(iter(chunks))
    assert spans.only.attributes[attributes.STATUS] == "cancelled"


def test_an_asynchronous_helper(spans, fake_openai):
    async def main():
        async with openai.AsyncOpenAI(base_url=fake_openai.url, api_key="test") as client:
            stream = track_tokens(client.chat.completions.stream)
            asked = {"model": "gpt-4o", "messages": MESSAGES, "stream_options": {"include_usage": True}}
            async with stream(**asked) as chunks:
                async for _ in chunks:
                    pass
            async with stream(**asked) as chunks:
                await chunks.get_final_completion()

    asyncio.run(main())
    assert [tokens(span) for span in spans()] == [TOKENS, TOKENS]


def test_a_refusal_at_the_opening_is_an_error(spans, client, fake_openai):
    fake_openai.status = 400
    manager = track_tokens(client.chat.completions.stream)(model="gpt-4o", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError), manager:
        pass
    assert spans.only.status.status_code is StatusCode.ERROR


def test_a_manager_that_is_never_entered_made_no_call(spans, client):
    track_tokens(client.chat.completions.stream)(model="gpt-4o", messages=MESSAGES)
    gc.collect()
    assert not spans()


def test_the_apps_own_managers_are_followed(spans):
    @track_tokens
    @contextmanager
    def stream():
        yield iter_events()

    @track_tokens
    @contextmanager
    def answer():
        yield "no stream"

    @track_tokens
    @asynccontextmanager
    async def asynchronous():
        yield iter_events()

    async def main():
        async with asynchronous() as chunks:
            assert len(list(chunks)) == 3

    with stream() as chunks:
        assert len(list(chunks)) == 3
    with answer() as text:
        assert text == "no stream"
    asyncio.run(main())
    read, unread, also = spans()
    assert (read.attributes[attributes.OUTPUT], also.attributes[attributes.OUTPUT]) == (30, 30)
    assert unread.attributes[attributes.USAGE_SOURCE] == "missing"
    assert not any(attributes.STATUS in span.attributes for span in spans)


class MessageStream:
    """Shaped like Anthropic's helper: an attribute that iterates over the stream, and methods that do."""

    def __init__(self):
        self.text_stream = self.__stream_text__()
        self._iterator = iter_events()

    def __iter__(self):
        yield from self._iterator

    def __next__(self):
        return next(self._iterator)

    def __stream_text__(self):
        for event in self:
            yield event["type"]

    def until_done(self):
        for _ in self:
            pass

    def get_final_message(self):
        self.until_done()
        return "done"


class MessageStreamManager:
    def __enter__(self):
        return MessageStream()

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("consume", [list, lambda stream: list(stream.text_stream), MessageStream.get_final_message])
def test_however_a_message_stream_is_consumed_it_is_heard(spans, consume):
    with track_tokens(MessageStreamManager)() as stream:
        assert isinstance(stream, MessageStream)
        consume(stream) if consume is not MessageStream.get_final_message else stream.get_final_message()
    told = spans.only.attributes
    assert (told[attributes.INPUT], told[attributes.OUTPUT]) == (7, 30)
    assert attributes.STATUS not in told


# ---- Amazon's streams, which come inside a dict


class EventStream:
    """Shaped like botocore's: it can be iterated over and closed, and is no iterator."""

    __module__ = "botocore.eventstream"

    def __init__(self, *events):
        self._events = events

    def __iter__(self):
        yield from self._events

    def close(self):
        return None


def test_the_stream_in_a_dict_of_amazons_client_is_heard(spans):
    metadata = {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}}

    @track_tokens
    def converse_stream(modelId):  # noqa: N803  # Amazon's spelling
        return {"stream": EventStream({"messageStart": {}}, metadata), "ResponseMetadata": {"RequestId": "aws-1"}}

    assert list(converse_stream(modelId="us.amazon.nova-lite-v1:0")["stream"])[-1] == metadata
    for _ in converse_stream(modelId="m")["stream"]:  # nobody else holds it
        gc.collect()
    for _ in converse_stream(modelId="m")["stream"]:
        break
    gc.collect()
    whole, also, left = spans()
    assert (also.attributes[attributes.OUTPUT], also.attributes.get(attributes.STATUS)) == (4, None)
    told = whole.attributes
    assert (told[attributes.INPUT], told[attributes.OUTPUT], told[attributes.AWS_REQUEST_ID]) == (3, 4, "aws-1")
    assert (told[attributes.REQUEST_MODEL], told[attributes.PROVIDER]) == ("us.amazon.nova-lite-v1:0", "aws.bedrock")
    assert (left.attributes[attributes.STATUS], left.attributes[attributes.USAGE_SOURCE]) == ("cancelled", "missing")
