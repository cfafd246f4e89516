"""What an application does: it switches instrumentations on, calls a model in some ways, and ends.

    python program.py INSTRUMENTATION,… CALL,…

Names are the keys of `INSTRUMENTATIONS` and `CALLS`; where telemetry goes and which service this is stands in OTEL_*
as usual. Nothing of the product is imported, save where `millicent` itself is switched on.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context

from provider import Prompt

USER, SESSION = "ada", "session-7"
OPENAI = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
ANTHROPIC = "claude-haiku-4-5"
GEMINI = "gemini-2.5-flash"
LASTING = ExitStack()
"""What holds until the end."""
INSTRUMENTATIONS: dict[str, Callable[[], None]] = {}
CALLS: dict[str, Callable[[], None]] = {}


def instrumentation(function):
    INSTRUMENTATIONS[function.__name__] = function
    return function


def call(function):
    CALLS[function.__name__] = function
    return function


# ---- instrumentations, each as its manual says


@instrumentation
def opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@instrumentation
def opentelemetry_metrics() -> None:
    from opentelemetry import metrics
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


@instrumentation
def genai_openai() -> None:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


@instrumentation
def genai_anthropic() -> None:
    from opentelemetry.instrumentation.genai.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()


@instrumentation
def google_genai() -> None:
    from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor

    GoogleGenAiSdkInstrumentor().instrument()


@instrumentation
def openai_v2() -> None:
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


@instrumentation
def openinference_openai() -> None:
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


@instrumentation
def openinference_anthropic() -> None:
    from openinference.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()


@instrumentation
def openinference_gemini() -> None:
    from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor

    GoogleGenAIInstrumentor().instrument()


@instrumentation
def openllmetry_openai() -> None:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()


@instrumentation
def openllmetry_anthropic() -> None:
    from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

    AnthropicInstrumentor().instrument()


@instrumentation
def langfuse() -> None:
    import langfuse
    import langfuse.openai

    langfuse.Langfuse()


@instrumentation
def litellm() -> None:
    import litellm

    litellm.callbacks = ["otel"]


@instrumentation
def logfire() -> None:
    import logfire

    logfire.configure(send_to_logfire=False, console=False)


@instrumentation
def logfire_openai() -> None:
    import logfire

    logfire.instrument_openai()


@instrumentation
def logfire_anthropic() -> None:
    import logfire

    logfire.instrument_anthropic()


@instrumentation
def pydantic_ai() -> None:
    from pydantic_ai import Agent

    Agent.instrument_all()


@instrumentation
def millicent() -> None:
    from millicent.sdk import instrument

    instrument()


# ---- calls


def openai_client(**options):
    import openai

    return openai.OpenAI(**options)


def say(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def both_at_once(ask: Callable[[str], None]) -> None:
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(copy_context().run, ask, Prompt.TWIN) for _ in range(2)]:
            done.result()


@call
def chat(text: str = Prompt.USUAL, **options) -> None:
    openai_client(**options).chat.completions.create(model=OPENAI, messages=say(text))


@call
def chat_stream() -> None:
    usage = {"include_usage": True}
    chunks = openai_client().chat.completions.create(
        model=OPENAI, messages=say(Prompt.USUAL), stream=True, stream_options=usage
    )
    assert len(list(chunks)) > 1


@call
def chat_stream_without_usage() -> None:
    assert len(list(openai_client().chat.completions.create(model=OPENAI, messages=say(Prompt.USUAL), stream=True))) > 1


@call
def chat_stream_left() -> None:
    usage = {"include_usage": True}
    with openai_client().chat.completions.create(
        model=OPENAI, messages=say(Prompt.LEFT), stream=True, stream_options=usage
    ) as chunks:
        next(iter(chunks))


@call
def chat_retried() -> None:
    chat(Prompt.REFUSED_ONCE)


@call
def chat_refused() -> None:
    import openai

    try:
        chat(Prompt.REFUSED, max_retries=0)
    except openai.RateLimitError:
        return
    raise AssertionError("a call that should be refused was served")


@call
def chat_twins() -> None:
    both_at_once(chat)


@call
def chat_tracked() -> None:
    from millicent.sdk import track_tokens

    track_tokens(team="Search", feature="answers")(lambda: openai_client().chat.completions.create(
        model=OPENAI, messages=say(Prompt.USUAL)
    ))()  # fmt: skip


@call
def responses() -> None:
    openai_client().responses.create(model=OPENAI, input=Prompt.USUAL)


@call
def responses_stream() -> None:
    assert len(list(openai_client().responses.create(model=OPENAI, input=Prompt.USUAL, stream=True))) > 1


@call
def embeddings() -> None:
    openai_client().embeddings.create(model="text-embedding-3-small", input=Prompt.USUAL, encoding_format="float")


def anthropic_client(**options):
    import anthropic

    return anthropic.Anthropic(**options)


@call
def messages(text: str = Prompt.USUAL, **options) -> None:
    anthropic_client(**options).messages.create(model=ANTHROPIC, max_tokens=1000, messages=say(text))


@call
def messages_create_stream() -> None:
    events = anthropic_client().messages.create(
        model=ANTHROPIC, max_tokens=1000, messages=say(Prompt.USUAL), stream=True
    )
    assert len(list(events)) > 1


@call
def messages_stream() -> None:
    with anthropic_client().messages.stream(model=ANTHROPIC, max_tokens=1000, messages=say(Prompt.USUAL)) as events:
        assert events.get_final_message()


@call
def messages_counted() -> None:
    anthropic_client().messages.count_tokens(model=ANTHROPIC, messages=say(Prompt.USUAL))


@call
def messages_retried() -> None:
    messages(Prompt.REFUSED_ONCE)


@call
def messages_refused() -> None:
    import anthropic

    try:
        messages(Prompt.REFUSED, max_retries=0)
    except anthropic.RateLimitError:
        return
    raise AssertionError("a call that should be refused was served")


@call
def messages_twins() -> None:
    both_at_once(messages)


def gemini_client():
    from google import genai

    return genai.Client(http_options={"base_url": os.environ["GEMINI_BASE_URL"]})


@call
def gemini() -> None:
    client = gemini_client()
    client.models.generate_content(model=GEMINI, contents=Prompt.USUAL)


@call
def gemini_stream() -> None:
    client = gemini_client()
    assert len(list(client.models.generate_content_stream(model=GEMINI, contents=Prompt.USUAL))) > 1


def agent(model) -> None:
    """Two calls: one that asks for the tool, one that has its answer."""
    from pydantic_ai import Agent

    thinker = Agent(model)

    @thinker.tool_plain
    def price_of_a_token() -> str:
        """What a token costs."""
        return "little"

    assert thinker.run_sync(Prompt.USUAL).output


@call
def agent_openai() -> None:
    from pydantic_ai.models.openai import OpenAIChatModel

    agent(OpenAIChatModel(OPENAI))


@call
def agent_anthropic() -> None:
    from pydantic_ai.models.anthropic import AnthropicModel

    agent(AnthropicModel(ANTHROPIC))


@call
def litellm_chat() -> None:
    import litellm

    litellm.completion(f"openai/{OPENAI}", say(Prompt.USUAL), api_base=os.environ["OPENAI_BASE_URL"])


@call
def litellm_stream() -> None:
    import litellm

    usage = {"include_usage": True}
    assert list(litellm.completion(f"openai/{OPENAI}", say(Prompt.USUAL), stream=True, stream_options=usage))


@call
def litellm_messages() -> None:
    import litellm

    litellm.completion(f"anthropic/{ANTHROPIC}", say(Prompt.USUAL))


@call
def litellm_refused() -> None:
    import litellm

    try:
        litellm.completion(f"openai/{OPENAI}", say(Prompt.REFUSED), max_retries=0)
    except litellm.RateLimitError:
        return
    raise AssertionError("a call that should be refused was served")


@call
def litellm_embeddings() -> None:
    import litellm

    litellm.embedding("openai/text-embedding-3-small", [Prompt.USUAL], encoding_format="float")


@call
def langfuse_user() -> None:
    """All that follows is this user's."""
    import langfuse

    LASTING.enter_context(langfuse.propagate_attributes(user_id=USER, session_id=SESSION))


@call
def openinference_user() -> None:
    from openinference.instrumentation import using_attributes

    LASTING.enter_context(using_attributes(user_id=USER, session_id=SESSION))


def main(instrumentations: str, calls: str) -> None:
    """Switch on, call, end; exporters send what they have at exit."""
    for name in instrumentations.split(","):
        INSTRUMENTATIONS[name]()
    for name in calls.split(","):
        CALLS[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])
