import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from millicent.sdk import TokenSpanProcessor, attribution, track_tokens


@track_tokens
def ask():
    return None


def tags(span):
    names = ("usage_source",)
    return {
        key.removeprefix("millicent."): value
        for key, value in span.attributes.items()
        if key.startswith(("millicent.", "user.", "session.")) and not key.endswith(names)
    }


def test_every_tag_has_its_key(spans):
    with attribution(
        team="search",
        project="assistant",
        feature="answer",
        customer="acme",
        user_id="u1",
        session_id="s1",
        environment="production",
        cost_centre="77",
    ):
        ask()
    assert tags(spans.only) == {
        "team": "search",
        "project": "assistant",
        "feature": "answer",
        "customer": "acme",
        "user.id": "u1",
        "session.id": "s1",
        "environment": "production",
        "label.cost_centre": "77",
    }


def test_inner_wins_and_silence_says_nothing(spans):
    @track_tokens(team="decorator")
    def decorated():
        ask()

    with attribution(team="outer", project="outer"):
        with attribution(team="inner", project=None, feature=""):
            ask()
        decorated()
        ask()
    ask()
    inner, in_decorated, call_of_decorated, outer, outside = map(tags, spans())
    assert inner == {"team": "inner", "project": "outer"}
    assert in_decorated == call_of_decorated == {"team": "decorator", "project": "outer"}
    assert outer == {"team": "outer", "project": "outer"}
    assert outside == {}
    assert not baggage.get_all()


def test_it_decorates_every_kind_of_function(spans):
    @attribution(team="a")
    def function():
        ask()

    @attribution(team="b")
    async def coroutine():
        await asyncio.sleep(0)
        ask()

    @attribution(team="c")
    def generator():
        ask()
        yield
        ask()

    @attribution(team="d")
    async def async_generator():
        ask()
        yield
        ask()

    async def consume():
        await coroutine()
        async for _ in async_generator():
            assert not baggage.get_all()

    function()
    for _ in generator():
        assert not baggage.get_all()
    asyncio.run(consume())
    assert [tags(span)["team"] for span in spans()] == ["a", "c", "c", "b", "d", "d"]


def test_one_value_may_be_entered_by_many_and_again(spans):
    shared = attribution(team="shared")

    async def enter(number):
        with shared, attribution(customer=str(number)):
            await asyncio.sleep(0)
            with shared:
                ask()
            await asyncio.sleep(0)
        assert not baggage.get_all()

    async def main():
        await asyncio.gather(*(enter(number) for number in range(50)))

    asyncio.run(main())
    assert {tags(span)["customer"] for span in spans()} == {str(number) for number in range(50)}


def test_a_thousand_concurrent_tasks_keep_their_tags(spans):
    @track_tokens
    async def call(number):
        await asyncio.sleep(0)
        trace.get_tracer("app").start_span("child").end()
        await asyncio.sleep(0)
        return {"input_tokens": number}

    async def task(number):
        with attribution(team=str(number)):
            await asyncio.sleep(0)
            await call(number)

    async def main():
        await asyncio.gather(*(task(number) for number in range(1_000)))

    asyncio.run(main())
    calls = [span for span in spans() if span.name == "chat"]
    assert len(calls) == 1_000
    assert all(tags(span)["team"] == str(span.attributes["gen_ai.usage.input_tokens"]) for span in calls)
    teams = {span.context.span_id: tags(span)["team"] for span in calls}
    children = [span for span in spans if span.name == "child"]
    assert all(teams[child.parent.span_id] == tags(child)["team"] for child in children)


def test_threads_keep_their_tags(spans):
    def work(number):
        with attribution(team=str(number)):
            ask()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(300)))
    assert sorted(int(tags(span)["team"]) for span in spans()) == list(range(300))


def test_a_block_left_in_another_task_disturbs_nothing(caplog):
    async def main():
        block = attribution(team="x")
        await asyncio.create_task(asyncio.to_thread(block.__enter__))
        block.__exit__(None, None, None)
        assert not baggage.get_all()

    asyncio.run(main())
    assert not caplog.records


def test_tags_cross_process_borders(spans):
    headers = {}
    with attribution(team="søk & co", customer="a,b;c=d"):
        propagate.inject(headers)
    token = context.attach(propagate.extract(headers))
    ask()
    context.detach(token)
    assert tags(spans.only) == {"team": "søk & co", "customer": "a,b;c=d"}


def test_an_accelerator_count_that_crossed_a_border_is_a_number_again(spans):
    @track_tokens(accelerator_count=8)
    def call():
        headers = {}
        propagate.inject(headers)
        token = context.attach(propagate.extract(headers))
        trace.get_tracer("app").start_span("child").end()
        context.detach(token)

    call()
    assert [span.attributes["millicent.accelerator_count"] for span in spans()] == [8, 8]


@pytest.fixture
def stamped():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TokenSpanProcessor({"millicent.team": "default", "millicent.region": "eu"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("any-instrumentation"), exporter


def test_the_processor_stamps_spans_of_any_instrumentation(stamped):
    tracer, exporter = stamped
    with attribution(team="search", user_id="u1"):
        foreign = baggage.set_baggage("other", "baggage")
        tracer.start_span("stamped", foreign).end()
        tracer.start_span("own", attributes={"millicent.team": "own"}).end()
    tracer.start_span("bare").end()
    by_name = {span.name: dict(span.attributes) for span in exporter.get_finished_spans()}
    assert by_name == {
        "stamped": {"millicent.team": "search", "millicent.region": "eu", "user.id": "u1"},
        "own": {"millicent.team": "own", "millicent.region": "eu", "user.id": "u1"},
        "bare": {"millicent.team": "default", "millicent.region": "eu"},
    }


def test_importing_the_sdk_loads_neither_exporter_nor_http():
    program = "import sys, millicent.sdk; print(*(sorted(sys.modules)))"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    heavy = (
        "requests",
        "urllib3",
        "opentelemetry.exporter",
        "asyncio",
        "pynvml",
        "amdsmi",
        "opentelemetry.sdk.metrics.export",
        "millicent.sdk.hardware",
        "millicent.sdk.energy",
        "importlib.metadata",
        "google.protobuf",
    )
    assert not [name for name in loaded if name.startswith(heavy)]
