import asyncio
import gc
import inspect
import logging
import os
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from millicent.sdk import TokenUsage, attributes, sdk_stats, track_tokens

USAGE = TokenUsage(input_tokens=10, output_tokens=4)
ANSWER = {"usage": USAGE, "model": "gpt-4o-2024-08-06", "id": "chatcmpl-1"}


def test_a_call_is_one_client_span_in_the_wire_contract(spans):
    @track_tokens(
        team="search",
        project="assistant",
        feature="answer",
        customer="acme",
        model="qwen3-8b",
        provider="vllm",
        deployment="qwen-eu",
        engine="vllm",
        accelerator="H200",
        accelerator_count=8,
        precision="fp8",
        region="eu-west-1",
        environment="production",
        labels={"tier": "gold"},
    )
    def ask():
        return ANSWER

    assert ask() is ANSWER
    span = spans.only
    assert (span.name, span.kind, span.status.status_code) == ("chat qwen3-8b", SpanKind.CLIENT, StatusCode.UNSET)
    assert span.instrumentation_scope.name == "millicent.sdk"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen3-8b",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 4,
        "millicent.usage_source": "reported",
        "millicent.team": "search",
        "millicent.project": "assistant",
        "millicent.feature": "answer",
        "millicent.customer": "acme",
        "millicent.deployment": "qwen-eu",
        "millicent.engine": "vllm",
        "millicent.accelerator": "H200",
        "millicent.accelerator_count": 8,
        "millicent.precision": "fp8",
        "millicent.region": "eu-west-1",
        "millicent.environment": "production",
        "millicent.label.tier": "gold",
    }


def test_the_model_asked_for_comes_from_wherever_the_call_says_it(spans):
    @track_tokens
    def ask(prompt, model="small"):
        return prompt, model

    @track_tokens(model="fixed")
    def fixed(**_):
        return None

    @track_tokens
    def by_keyword(**_):
        return ANSWER

    ask("?"), ask("?", "medium"), ask("?", model="large"), fixed(model="other"), by_keyword(), by_keyword(model=None)
    assert [span.name for span in spans()] == [
        "chat small",
        "chat medium",
        "chat large",
        "chat fixed",
        "chat gpt-4o-2024-08-06",
        "chat gpt-4o-2024-08-06",
    ]


def test_a_success_without_usage_says_that_it_is_missing(spans):
    assert track_tokens(lambda: "just text")() == "just text"
    assert spans.only.attributes[attributes.USAGE_SOURCE] == "missing"
    assert attributes.INPUT not in spans.only.attributes


def test_the_operation_is_what_the_answer_shows_unless_stated(spans):
    embeddings = {"object": "list", "usage": {"prompt_tokens": 8}}
    track_tokens(lambda: embeddings)()
    track_tokens(operation="generate_content")(lambda: embeddings)()
    assert [span.attributes[attributes.OPERATION] for span in spans()] == ["embeddings", "generate_content"]
    assert [span.name for span in spans] == ["embeddings", "generate_content"]


class QuotaError(Exception):
    pass


@pytest.mark.parametrize("error", [ValueError("no"), QuotaError(), KeyboardInterrupt(), SystemExit(3), BaseException()])
def test_exceptions_pass_through_as_they_are(spans, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        track_tokens(fail)()
    assert caught.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fail"
    assert error.__context__ is None
    assert spans.only.status.status_code is StatusCode.ERROR
    name = spans.only.attributes[attributes.ERROR_TYPE]
    assert name == (f"{__name__}.QuotaError" if isinstance(error, QuotaError) else type(error).__name__)
    assert attributes.USAGE_SOURCE not in spans.only.attributes


def test_no_prompt_or_answer_text_leaves_the_function(spans):
    canary = "canary-7f3a"

    class Answer:
        usage, model, text = USAGE, "m", canary

    @track_tokens
    def ask(prompt):
        return Answer() if prompt else None

    @track_tokens
    def stream(prompt):
        yield {"choices": [{"delta": {"content": prompt}}]}
        yield prompt
        raise RuntimeError(prompt)

    ask(canary)
    with pytest.raises(RuntimeError):
        list(stream(prompt=canary))
    assert len(spans()) == 2
    assert canary not in "".join(span.to_json() for span in spans)


def test_the_span_is_current_in_the_body_and_nowhere_else(spans):
    tracer = trace.get_tracer("app")

    @track_tokens(team="search")
    def ask():
        with tracer.start_as_current_span("child"):
            return ANSWER

    with tracer.start_as_current_span("request") as request:
        ask()
        assert trace.get_current_span() is request
    child, call, _ = spans()
    assert (child.parent.span_id, call.parent.span_id) == (call.context.span_id, request.get_span_context().span_id)
    assert child.attributes["millicent.team"] == "search"


def test_a_generator_lends_its_context_only_while_it_runs(spans):
    tracer = trace.get_tracer("app")

    @track_tokens(team="search")
    def stream():
        with tracer.start_as_current_span("first"):
            yield 1
        with tracer.start_as_current_span("around"):
            yield 2
            with tracer.start_as_current_span("inside"):
                pass
        yield USAGE

    for _ in stream():
        assert not trace.get_current_span().get_span_context().is_valid
        tracer.start_span("consumer").end()
    by_name = {span.name: span for span in spans()}
    call = by_name["chat"]
    assert by_name["first"].parent.span_id == by_name["around"].parent.span_id == call.context.span_id
    assert by_name["inside"].parent.span_id == by_name["around"].context.span_id
    assert by_name["consumer"].parent is None
    assert "millicent.team" not in by_name["consumer"].attributes


def test_an_asynchronous_generator_lends_its_context_only_while_it_runs(spans):
    tracer = trace.get_tracer("app")

    @track_tokens
    async def stream():
        with tracer.start_as_current_span("around"):
            yield 1
            await asyncio.sleep(0)
            with tracer.start_as_current_span("inside"):
                yield USAGE

    async def main():
        async for _ in stream():
            assert not trace.get_current_span().get_span_context().is_valid

    asyncio.run(main())
    inside, around, call = spans()
    assert (inside.parent.span_id, around.parent.span_id) == (around.context.span_id, call.context.span_id)
    assert call.attributes[attributes.INPUT] == 10


def test_a_stream_reports_its_first_chunk_and_its_last_usage(spans):
    @track_tokens
    def stream():
        yield "The"
        yield TokenUsage(input_tokens=10, output_tokens=1)
        yield USAGE
        return "done"

    def delegate():
        return (yield from stream())

    body = delegate()
    assert [next(body), next(body).output_tokens, next(body)] == ["The", 1, USAGE]
    with pytest.raises(StopIteration) as stop:
        next(body)
    assert stop.value.value == "done"
    told = spans.only.attributes
    assert (told[attributes.STREAM], told[attributes.INPUT], told[attributes.OUTPUT]) == (True, 10, 4)
    assert told[attributes.TIME_TO_FIRST_CHUNK] >= 0


@pytest.mark.parametrize("leave", ["close", "collect", "throw"])
@pytest.mark.parametrize("kind", ["generator function", "returned generator"])
def test_a_stream_that_is_left_early_is_cancelled_with_what_it_told(spans, leave, kind):
    cleaned = []

    def stream():
        try:
            yield {"usage": USAGE}
            yield None
        finally:
            cleaned.append(True)

    body = track_tokens(stream)() if kind == "generator function" else track_tokens(partial(stream))()
    next(body)
    if leave == "close":
        body.close()
    elif leave == "throw":
        with pytest.raises(GeneratorExit):
            body.throw(GeneratorExit)
    del body
    gc.collect()
    assert cleaned == [True]
    told = spans.only.attributes
    assert (told[attributes.STATUS], told[attributes.INPUT]) == ("cancelled", 10)
    assert spans.only.status.status_code is StatusCode.UNSET


def test_an_asynchronous_stream_that_is_left_early_is_cancelled(spans):
    @track_tokens
    async def stream():
        yield USAGE
        yield None

    async def main():
        async for _ in stream():
            break
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert spans.only.attributes[attributes.STATUS] == "cancelled"
    assert spans.only.attributes[attributes.INPUT] == 10


def test_a_cancelled_task_is_cancelled(spans):
    @track_tokens
    async def ask():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    told = spans.only.attributes
    assert (told[attributes.STATUS], told[attributes.ERROR_TYPE]) == ("cancelled", "asyncio.exceptions.CancelledError")


def test_a_function_that_returns_a_coroutine_is_a_call_until_it_is_awaited(spans):
    async def create():
        await asyncio.sleep(0)
        return ANSWER

    @track_tokens
    def ask():
        return create()

    async def main():
        pending = ask()
        assert asyncio.iscoroutine(pending)
        assert not spans()
        return await pending

    assert asyncio.run(main()) is ANSWER
    assert spans.only.attributes[attributes.INPUT] == 10


class Stream:
    """Shaped like a provider's stream: iterates, closes, is a context manager, has attributes of its own."""

    def __init__(self):
        self.items = iter([{"model": "m", "object": "chat.completion.chunk"}, USAGE])
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return 2

    def close(self):
        self.closed = True


def test_a_returned_stream_is_replaced_by_one_that_behaves_alike(spans):
    stream = Stream()
    watched = track_tokens(lambda: stream)()
    assert isinstance(watched, Stream)
    assert (len(watched), watched.closed, repr(watched), hash(watched)) == (2, False, repr(stream), hash(stream))
    watched.note = "mine"
    assert stream.note == "mine"
    assert "closed" in dir(watched)
    with watched as entered:
        assert len(list(entered)) == 2
        assert spans.only.attributes[attributes.INPUT] == 10
    assert stream.closed
    assert len(spans()) == 1


def test_a_returned_stream_that_is_closed_early_is_cancelled(spans):
    with track_tokens(Stream)() as watched:
        next(watched)
    assert spans.only.attributes[attributes.STATUS] == "cancelled"
    assert spans.only.attributes[attributes.RESPONSE_MODEL] == "m"


def test_a_returned_asynchronous_generator_is_watched(spans):
    async def stream():
        received = yield 1
        yield received
        yield USAGE

    async def main():
        body = track_tokens(partial(stream))()
        assert inspect.isasyncgen(body)
        return [await body.__anext__(), await body.asend("sent"), [item async for item in body]]

    assert asyncio.run(main()) == [1, "sent", [USAGE]]
    assert spans.only.attributes[attributes.OUTPUT] == 4


def test_functions_stay_what_they_are():
    def plain(a: int, b: str = "x") -> str:
        """Say something."""
        return f"{a}{b}"

    async def coroutine(): ...

    def generator():
        yield

    async def async_generator():
        yield

    tracked = track_tokens(plain)
    assert (tracked.__name__, tracked.__doc__, inspect.signature(tracked)) == (
        "plain",
        "Say something.",
        inspect.signature(plain),
    )
    assert inspect.iscoroutinefunction(track_tokens(coroutine))
    assert inspect.isgeneratorfunction(track_tokens(generator))
    assert inspect.isasyncgenfunction(track_tokens(async_generator))


def test_methods_of_every_kind_can_be_tracked(spans):
    class Client:
        @track_tokens
        def ask(self, model):
            return self, model

        @track_tokens
        @classmethod
        def of(cls):
            return cls

        @track_tokens
        @staticmethod
        def plain():
            return 1

    client = Client()
    assert (client.ask("m"), Client.of(), client.plain()) == ((client, "m"), Client, 1)
    assert spans()[0].name == "chat m"


def test_decorating_what_cannot_be_called_says_how_to_do_it():
    with pytest.raises(TypeError, match=r"got 'search'; name its arguments: @track_tokens\(team='search'\)"):
        track_tokens("search")


class Odd:
    """An answer that fails whoever looks at it."""

    def __getattr__(self, name):
        raise RuntimeError(f"do not look at {name}: secret")


@pytest.mark.usefixtures("app_provider")
def test_what_fails_inside_the_sdk_is_counted_and_logged_once(caplog):
    before = sdk_stats()["internal_errors"]
    odd = Odd()
    ask = track_tokens(lambda: odd)
    with caplog.at_level(logging.WARNING, logger="millicent.sdk"):
        assert all(ask() is odd for _ in range(5))
    assert sdk_stats()["internal_errors"] == before + 5
    (record,) = caplog.records
    assert "RuntimeError" in record.message
    assert "secret" not in caplog.text


@pytest.mark.usefixtures("app_provider")
def test_tags_that_cannot_be_text_do_not_stop_the_app():
    class Mute:
        def __str__(self):
            raise RuntimeError

    assert track_tokens(team=Mute())(lambda: 1)() == 1


def test_threads_do_not_mix_their_calls(spans):
    @track_tokens
    def ask(model):
        return TokenUsage(input_tokens=int(model))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, map(str, range(400))))
    assert sorted(int(span.attributes[attributes.REQUEST_MODEL]) for span in spans()) == list(range(400))
    assert all(int(span.attributes[attributes.REQUEST_MODEL]) == span.attributes[attributes.INPUT] for span in spans)


def test_a_stream_may_be_consumed_in_another_thread(spans):
    @track_tokens
    def stream():
        yield 1
        yield USAGE

    body = stream()
    next(body)
    thread = threading.Thread(target=lambda: list(body))
    thread.start()
    thread.join()
    assert spans.only.attributes[attributes.INPUT] == 10


def test_a_call_during_which_the_process_forks_ends_once(spans):
    @track_tokens
    def ask():
        return os.fork()

    child = ask()
    if child == 0:
        os._exit(len(spans()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(spans()) == 1
