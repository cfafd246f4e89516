"""What each dialect is known to get wrong, leave out or write twice, and what is made of it."""

import json
from types import SimpleNamespace

import polars as pl
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from millicent.collector.decode import decode
from millicent.collector.dialects import WRAPS, wanted
from millicent.warehouse import record

TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
SCOPES = {
    "anthropic_native": "com.anthropic.sdk.python",
    "otel_genai": "opentelemetry.instrumentation.genai.openai",
    "openinference": "openinference.instrumentation.openai",
    "openllmetry": "opentelemetry.instrumentation.openai.v1",
    "langfuse": "langfuse-sdk",
    "vercel": "ai",
    "vercel_genai": "gen_ai",
    "litellm": "litellm",
    "pydantic_ai": "pydantic-ai",
    "logfire": "logfire.openai",
    "strands": "strands.telemetry.tracer",
    "google_adk": "gcp.vertex.agent",
    "claude_code": "com.anthropic.claude_code.tracing",
}


def only(batch):
    """The one row of a batch, and why it left where there is none."""
    reasons = [reason for frame in batch.left for reason in frame["reason"]]
    (row,) = batch.spans.to_dicts() or [{"dialect": None}]
    return SimpleNamespace(**row, why=reasons[0] if reasons else None)


@pytest.fixture(scope="module")
def told(otlp, reading):
    """The row of one span with these attributes alone."""

    def one(scope, attributes=(), *, version="1.2", **fields):
        span = otlp.span(dict.fromkeys(otlp.CHAT) | dict(attributes), **fields)
        body = ExportTraceServiceRequest.FromString(otlp.request(span, scope=SCOPES.get(scope, scope)))
        body.resource_spans[0].scope_spans[0].scope.version = version
        return only(reading.told(body.SerializeToString(), received_at=otlp.NOW))

    return one


@pytest.fixture(scope="module")
def log(otlp, reading):
    """The row of one log event."""

    def one(scope, name, attributes):
        attributes = otlp.span(dict.fromkeys(otlp.CHAT) | attributes).attributes
        event = LogRecord(time_unix_nano=otlp.NOW_NS, event_name=name, attributes=attributes)
        scoped = ScopeLogs(scope=InstrumentationScope(name=scope), log_records=[event])
        body = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scoped])])
        return only(reading.told(body.SerializeToString(), "logs", otlp.NOW))

    return one


@pytest.fixture(scope="module")
def metric(otlp, reading):
    """The row of what a metric added, as it comes from its points: like a span's, three calls in one."""

    def one(scope, name, attributes):
        body = otlp.request(otlp.span(dict.fromkeys(otlp.CHAT) | attributes, name=name), scope=scope)
        rows = decode([body], wanted()).spans
        rows = rows.with_columns(signal=pl.lit("metric"), call_count=3, point_flags=pl.lit(["counter_reset"]))
        return only(reading.steps(rows, otlp.NOW))

    return one


def counts(row, *names):
    return tuple(getattr(row, name) for name in names or TOKENS)


# ---- OpenTelemetry, our own SDK, Anthropic's own SDK and platform


def test_our_own_spans_may_stand_around_calls(told):
    assert told("millicent.sdk", {"gen_ai.operation.name": "chat"}).dialect == "millicent"
    assert "millicent" in WRAPS


@pytest.mark.parametrize(
    ("name", "why"),
    [("anthropic.messages.create", None), ("anthropic.messages.count_tokens", "span:count_tokens"),
     ("anthropic.sessions.create", "span:sessions")],
)  # fmt: skip
@pytest.mark.parametrize(
    "scope", ["com.anthropic.sdk.python", "com.anthropic.sdk.typescript", "com.anthropic.claude-platform"]
)
def test_counting_tokens_ahead_bills_nothing(told, scope, name, why):
    row = told(scope, {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5}, name=name)
    assert row.why == why
    assert row.dialect in {None, "anthropic_native", "anthropic_platform"}


def test_reading_an_old_answer_again_is_no_call(told):
    row = told("otel_genai", {"gen_ai.operation.name": "fetch_response", "gen_ai.usage.input_tokens": 5})
    assert row.why == "operation:fetch_response"


def test_request_ids_join_what_anthropic_tells_twice(told):
    said = {"gen_ai.operation.name": "chat", "anthropic.request.id": "req_1"}
    native, platform = (told(scope, said) for scope in ("anthropic_native", "com.anthropic.claude-platform"))
    assert native.request_id == platform.request_id is not None


USAGE = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}


def test_who_names_the_operation_is_read_and_doubted_where_nobody_says_what_input_holds(told):
    said = {"gen_ai.operation.name": "chat", **USAGE, "gen_ai.usage.cached_tokens": 40}
    row = told("somebody.else", said)
    assert (row.dialect, row.input_tokens, row.usage_flags) == ("otel_other", 100, ["cache_semantics_assumed"])
    assert told("somebody.else", said | {"gen_ai.usage.cached_tokens": 0}).usage_flags == []
    proved = told("somebody.else", said | {"gen_ai.usage.total_tokens": 150})
    assert (proved.input_tokens, proved.usage_flags) == (140, ["input_excluded_cache"])


@pytest.mark.parametrize(
    "said",
    [USAGE, {"llm.token_count.prompt": 100, "llm.token_count.completion": 10},
     {"ai.usage.promptTokens": 100, "ai.usage.completionTokens": 10},
     {"gen_ai.usage.prompt_tokens": 100, "gen_ai.usage.completion_tokens": 10}],
)  # fmt: skip
def test_a_span_of_nobody_with_usage_comes_in_with_a_doubt(told, said):
    row = told("my.own.tracer", said)
    assert (row.dialect, row.input_tokens, row.output_tokens) == ("generic", 100, 10)
    assert row.usage_flags == ["generic_dialect"]
    assert told("my.own.tracer", {"input_tokens": 100}).why == "no_dialect"


def test_events_are_calls_only_where_a_dialect_says_so(log):
    usage = {"gen_ai.operation.name": "chat", **USAGE}
    assert log("any.scope", "gen_ai.client.inference.operation.details", usage).dialect == "otel_event"
    assert log("opentelemetry.instrumentation.genai.openai", "gen_ai.choice", usage).why == "no_dialect"
    assert log("gcp.vertex.agent", "gen_ai.client.inference.operation.details", usage).dialect == "otel_event"


# ---- OpenInference

OI = {"openinference.span.kind": "LLM", "llm.token_count.prompt": 100, "llm.token_count.completion": 10}
ANTHROPIC = "openinference.instrumentation.anthropic"
STREAM = {"llm.invocation_parameters": '{"stream": true}'}
CACHED = {"llm.token_count.prompt_details.cache_read": 30, "llm.token_count.prompt_details.cache_write": 20}


@pytest.mark.parametrize(
    ("version", "more", "flags"),
    [("0.1.12", {}, ["cache_not_told"]), ("0.1.14", {}, ["cache_not_told"]),
     ("0.1.15", STREAM, ["cache_lost_on_stream"]), ("1.1.0", STREAM, ["cache_lost_on_stream"]), ("1.1.0", {}, []),
     ("1.1.0", STREAM | CACHED, []), ("1.1.1", STREAM, []), ("3.1.0", STREAM, []), ("", {}, ["cache_not_told"])],
)  # fmt: skip
def test_releases_that_lose_the_cache_are_marked(told, version, more, flags):
    assert told(ANTHROPIC, OI | more, version=version).usage_flags == flags


def test_the_release_that_left_the_cache_out_is_read_so(told):
    assert told(ANTHROPIC, OI | CACHED, version="0.1.13").input_tokens == 150
    assert told(ANTHROPIC, OI | CACHED, version="0.1.14").input_tokens == 100


def test_ids_tier_and_times_stand_in_the_answers_text(told):
    usage = {
        "cache_creation": {"ephemeral_5m_input_tokens": 15, "ephemeral_1h_input_tokens": 5},
        "service_tier": "batch",
    }
    answer = json.dumps({"id": "msg_1", "content": "secret", "model": "claude-x", "usage": usage})
    row = told(ANTHROPIC, OI | CACHED | {"output.value": answer}, version="3.1.0")
    assert (row.cache_write_5m_tokens, row.cache_write_1h_tokens, row.cache_write_tokens) == (15, 5, 20)
    assert (row.service_tier, row.response_model) == ("batch", "claude-x")
    assert (
        row.response_id
        == told("otel_genai", {"gen_ai.operation.name": "chat", "gen_ai.response.id": "msg_1"}).response_id
    )
    cut = told(ANTHROPIC, OI | {"output.value": answer[:40]}, version="3.1.0")
    assert (cut.response_id, cut.service_tier, cut.input_tokens) == (row.response_id, None, 100)
    for redacted in ("__REDACTED__", "", "null", "[1]", "{"):
        assert told(ANTHROPIC, OI | {"output.value": redacted}).response_id is None


def test_its_openai_instrumentation_knows_the_provider_by_the_host(told):
    assert told("openinference", OI | {"llm.provider": "azure", "llm.system": "openai"}).provider == "azure.ai.openai"
    assert told("openinference", OI | {"llm.system": "openai"}).provider == "openai-compatible"
    assert told("openinference.instrumentation.langchain", OI | {"llm.system": "openai"}).provider == "openai"


def test_others_may_write_openinference_too(told):
    assert told("my.tracer", OI).dialect == "openinference"
    assert told("my.tracer", OI | {"openinference.span.kind": "AGENT"}).why == "kind:agent"
    assert told("ai", OI, name="ai.generateText").why == "span:ai.generatetext"  # a known scope goes before a mark


def test_the_first_token_is_an_event(told, otlp):
    event = otlp.span().Event(name="First Token Stream Event", time_unix_nano=otlp.NOW_NS + 16_400_000)
    row = told("openinference", OI, events=[event])
    assert (row.ttft_ms, row.streaming) == (16, True)


@pytest.mark.parametrize(
    ("attributes", "name", "streaming"),
    [
        ({"llm.invocation_parameters": '{"stream": true}'}, "ChatCompletion", True),
        ({"input.value": '{"stream": true}', "llm.invocation_parameters": "{}"}, "ChatCompletion", True),
        ({"llm.invocation_parameters": '{"stream": false}'}, "ChatCompletion", False),
        ({"output.value": '{"generations": [[{"type": "ChatGenerationChunk"}]]}'}, "ChatOpenAI", True),
        ({}, "GenerateContentStream", True),
        ({"openinference.span.kind": "EMBEDDING"}, "CreateEmbeddings", False),
        ({}, "ChatCompletion", None),
    ],
)
def test_a_stream_is_told_by_what_was_asked_and_by_what_came(told, attributes, name, streaming):
    assert told("openinference", OI | attributes, name=name).streaming is streaming


def test_one_odd_text_changes_nothing_for_its_neighbours(otlp, reading):
    texts = ['{"id": "a", "usage": {"service_tier": "x"}}', '{"id": "b", "usage": 7}', '{"id": "c", "usage', "{}", "",
             '{"id": "d", "id": "e"}', '{"id": "f"""}', '{"generations": {"a": 1}}', '{"id": 5}']  # fmt: skip
    spans = [otlp.span(dict.fromkeys(otlp.CHAT) | OI | {"output.value": text}) for text in texts]
    alone = [reading.told(otlp.request(one, scope=ANTHROPIC), received_at=otlp.NOW).spans for one in spans]
    together = reading.told(otlp.request(*spans, scope=ANTHROPIC), received_at=otlp.NOW).spans
    assert pl.concat(alone).equals(together)
    assert together["response_id"].null_count() == 4


# ---- OpenLLMetry


def test_thoughts_of_gemini_are_in_the_total_alone(told):
    said = {"gen_ai.operation.name": "generate_content", "gen_ai.provider.name": "gcp.gen_ai", **USAGE}
    row = told("opentelemetry.instrumentation.google_generativeai", said | {"gen_ai.usage.total_tokens": 450})
    assert (row.output_tokens, row.reasoning_tokens, row.usage_flags) == (350, None, ["output_from_total"])


def test_langchains_nothing_written_is_not_believed(told):
    said = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", **USAGE}
    written = "gen_ai.usage.cache_creation.input_tokens"
    langchain = "opentelemetry.instrumentation.langchain"
    assert told(langchain, said | {written: 0}).cache_write_tokens is None
    assert told(langchain, said | {written: 7}).cache_write_tokens == 7
    assert told("opentelemetry.instrumentation.anthropic", said | {written: 0}).cache_write_tokens == 0


@pytest.mark.parametrize(
    ("asked", "answered", "stored"),
    [("Qwen/Qwen3-8B", "Qwen3-8B", "Qwen/Qwen3-8B"), ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
     ("gpt-4o", None, None)],
)  # fmt: skip
def test_a_lost_vendors_prefix_is_put_back(told, asked, answered, stored):
    said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": asked, "gen_ai.response.model": answered}
    assert told("openllmetry", said).response_model == stored


def test_before_the_current_names_the_spans_name_told_the_operation(told):
    said = {"gen_ai.system": "OpenAI", "llm.request.type": "completion", "llm.is_streaming": True,
            "gen_ai.openai.api_base": "http://llm.acme.example:8000/v1/"}  # fmt: skip
    chat = told("openllmetry", said, name="openai.chat")
    assert (chat.dialect, chat.operation, chat.provider, chat.streaming) == ("openllmetry_old", "chat", "openai", True)
    assert (chat.endpoint_host, chat.endpoint_port) == ("llm.acme.example", 8000)
    assert told("openllmetry", said, name="openai.completion").operation == "text_completion"
    assert told("openllmetry", said, name="openai.embeddings").operation == "embeddings"


def test_streamed_output_of_anthropic_is_some_tokens_over(told):
    said = {"gen_ai.operation.name": "chat", "gen_ai.is_streaming": True, **USAGE}
    assert told("opentelemetry.instrumentation.anthropic", said).usage_flags == ["output_over_on_stream"]


# ---- Langfuse


def langfuse(told, usage, **more):
    text = usage if isinstance(usage, str) else json.dumps(usage)
    said = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "m"}
    return told("langfuse", said | {"langfuse.observation.usage_details": text} | more)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # a provider's own object
        ({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
          "prompt_tokens_details": {"cached_tokens": 60}, "completion_tokens_details": {"reasoning_tokens": 30}},
         (100, 40, 60, None, 30)),
        ({"input_tokens": 100, "output_tokens": 40, "input_tokens_details": {"cached_tokens": 60},
          "output_tokens_details": {"reasoning_tokens": 30}}, (100, 40, 60, None, 30)),
        ({"input_tokens": 100, "output_tokens": 40, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 5},
         (165, 40, 60, 5, None)),
        ({"prompt_token_count": 100, "candidates_token_count": 40, "thoughts_token_count": 30,
          "cached_content_token_count": 60, "total_token_count": 170}, (100, 70, 60, None, 30)),
        # LangChain's callback, after OpenAI
        ({"input": 40, "output": 10, "total": 140, "input_cache_read": 60, "output_reasoning": 30, "input_audio": 0,
          "output_audio": 0}, (100, 40, 60, None, 30)),
        ({"input": 30, "output": 5, "total": 140, "input_cache_read": 60, "output_reasoning": 30, "input_audio": 10,
          "output_audio": 5}, (100, 40, 60, None, 30)),
        ({"input": 40, "output": 35, "input_cache_read": 30, "output_reasoning": 30}, (70, 65, 30, None, 30)),
        # LangChain's callback, after Anthropic: times are a split
        ({"input": 40, "output": 40, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10,
          "cache_creation_ephemeral_1h_input_tokens": 4, "cache_creation_ephemeral_5m_input_tokens": 6},
         (100, 40, 50, 10, None)),
        # ... or all that is told of what was written
        ({"input": 40, "output": 40, "input_cache_read": 50, "input_cache_creation": 0,
          "input_ephemeral_1h_input_tokens": 4, "input_ephemeral_5m_input_tokens": 6}, (100, 40, 50, 10, None)),
        ({"input": 89}, (89, None, None, None, None)),
        ("{broken", (None,) * 5), ("[]", (None,) * 5), ("", (None,) * 5),
        ({"input": "many", "output": 2.5}, (None,) * 5), ({"input": {"a": 1}, "output": True}, (None,) * 5),
    ],
)  # fmt: skip
def test_each_shape_of_usage_is_read_as_what_it_is(told, usage, expected):
    row = langfuse(told, usage)
    assert counts(row) == expected
    assert "totals_disagree" not in row.usage_flags


def test_langfuse_tells_failures_by_a_level_and_first_tokens_by_an_instant(told, otlp):
    failed = langfuse(told, "", **{"langfuse.observation.level": "ERROR"})
    assert (failed.status, failed.input_tokens, failed.request_model, failed.response_model) == ("error", 0, "m", None)
    at = otlp.NOW.strftime('"%Y-%m-%dT%H:%M:%S.250Z"')
    assert langfuse(told, "", **{"langfuse.observation.completion_start_time": at}).ttft_ms == 250
    assert langfuse(told, "", **{"langfuse.observation.completion_start_time": '"soon"'}).ttft_ms is None


# ---- Vercel


def vercel(told, attributes, name="ai.generateText.doGenerate"):
    return told("vercel", {"ai.operationId": name, **attributes}, name=name)


def test_input_of_anthropic_leaves_the_cache_out_unless_its_details_are_told(told):
    usage = {"input_tokens": 31, "cache_read_input_tokens": 18432, "cache_creation_input_tokens": 3504,
             "cache_creation": {"ephemeral_5m_input_tokens": 2203, "ephemeral_1h_input_tokens": 1301}}  # fmt: skip
    said = {"gen_ai.system": "anthropic.messages", "ai.usage.promptTokens": 31, "ai.usage.completionTokens": 457,
            "ai.response.providerMetadata": json.dumps({"anthropic": {"usage": usage}})}  # fmt: skip
    row = vercel(told, said)
    assert counts(row) == (21967, 457, 18432, 3504, None)
    assert (row.cache_write_5m_tokens, row.cache_write_1h_tokens, row.provider) == (2203, 1301, "anthropic")
    legacy = said | {"ai.usage.inputTokens": 21967, "ai.usage.inputTokenDetails.noCacheTokens": 31}
    assert vercel(told, legacy).input_tokens == 21967
    unknown = vercel(told, {key: it for key, it in said.items() if "Metadata" not in key})
    assert (unknown.input_tokens, unknown.usage_flags) == (31, ["cache_not_told"])


def test_input_of_bedrock_leaves_the_cache_out(told):
    more = json.dumps({"bedrock": {"usage": {"cacheReadInputTokens": 60, "cacheWriteInputTokens": 5}}})
    said = {"gen_ai.system": "amazon-bedrock", "ai.usage.inputTokens": 100, "ai.usage.outputTokens": 10}
    row = vercel(told, said | {"ai.response.providerMetadata": more})
    assert counts(row) == (165, 10, 60, 5, None)
    assert row.provider == "aws.bedrock"


@pytest.mark.parametrize(
    ("name", "operation", "streaming", "why"),
    [("ai.streamText.doStream", "chat", True, None), ("ai.generateObject.doGenerate", "chat", False, None),
     ("ai.embedMany.doEmbed", "embeddings", False, None), ("ai.embedMany", None, None, "span:ai.embedmany"),
     ("ai.toolCall", None, None, "span:ai.toolcall")],
)  # fmt: skip
def test_the_inner_level_is_the_call(told, name, operation, streaming, why):
    row = vercel(told, {"ai.usage.tokens": 5, "ai.response.msToFirstChunk": 19.6}, name)
    assert row.why == why
    if not why:
        assert (row.operation, row.streaming, row.input_tokens, row.ttft_ms) == (operation, streaming, 5, 20)


def test_the_outer_embeddings_span_has_no_usage(told):
    said = {"gen_ai.operation.name": "embeddings"}
    assert told("vercel_genai", said).why == "operation:embeddings_without_usage"
    assert told("vercel_genai", said | {"gen_ai.usage.input_tokens": 5}).output_tokens == 0
    assert told("vercel_genai", said, kind=3, error=True).status == "error"


# ---- LiteLLM

PYTHON = (
    "{'completion_tokens': 40, 'prompt_tokens': 100, 'total_tokens': 140, 'prompt_tokens_details': "
    "{'cached_tokens': 60, 'audio_tokens': None}}"
)
OF_OBJECTS = (
    "Usage(completion_tokens=40, prompt_tokens=100, total_tokens=140, prompt_tokens_details="
    "PromptTokensDetailsWrapper(audio_tokens=None, cached_tokens=60))"
)


@pytest.mark.parametrize(
    "text",
    [PYTHON, PYTHON.replace("None", "None, 'note': \"it's\""), PYTHON.replace("None", "None, 'note': 'a\\\\nb'"),
     PYTHON.replace("'", '"').replace("None", "null"),
     OF_OBJECTS],
)  # fmt: skip
def test_usage_as_python_prints_it_is_read(told, text):
    said = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 40, "metadata.usage_object": text}
    row = told("litellm", said | {"llm.request.type": "completion"}, name="litellm_request")
    assert counts(row)[:3] == (100, 40, 60)
    assert row.operation == "chat"


@pytest.mark.parametrize(
    "text",
    ["__import__('os').abort()", "{'a': " * 3000, "{'prompt_tokens': [] + 1}", "(" * 60_000, PYTHON[:50], "\\x00"],
)
def test_nothing_in_a_text_is_run_and_none_stops_the_batch(told, text):
    row = told("litellm", {"metadata.usage_object": text, "gen_ai.usage.input_tokens": 7}, name="litellm_request")
    assert (row.input_tokens, row.cache_read_tokens) == (7, None)


def test_the_raw_answer_is_a_copy_that_knows_the_cache(told):
    wire = repr({"input_tokens": 31, "output_tokens": 457, "cache_creation_input_tokens": 3504,
                 "cache_read_input_tokens": 18432, "stop": None,
                 "cache_creation": {"ephemeral_5m_input_tokens": 2203, "ephemeral_1h_input_tokens": 1301}})  # fmt: skip
    row = told("litellm", {"llm.anthropic.usage": wire, "llm.anthropic.id": "msg_1"}, name="raw_gen_ai_request")
    assert (row.dialect, counts(row)) == ("litellm_raw", (21967, 457, 18432, 3504, None))
    gemini = "{'promptTokenCount': 100, 'candidatesTokenCount': 40, 'thoughtsTokenCount': 30, 'totalTokenCount': 170}"
    row = told("litellm", {"llm.vertex_ai.usageMetadata": gemini}, name="raw_gen_ai_request")
    assert counts(row) == (100, 70, None, None, 30)


def test_litellm_names_what_it_is_around(told):
    assert told("litellm", {"gen_ai.system": "hosted_vllm"}, name="litellm_request").engine == "vllm"
    assert told("litellm", {"gen_ai.system": ""}, name="litellm_request").provider is None
    assert told("litellm", {"gen_ai.operation.name": "embedding"}, name="litellm_request").operation == "embeddings"
    assert told("litellm", {}, name="Received Proxy Server Request").why == "span:received?proxy?server?request"
    host = told("litellm", {"hidden_params": '{"api_base": "https://api.openai.com/v1"}'}, name="litellm_request")
    assert host.endpoint_host == "api.openai.com"


@pytest.mark.parametrize(
    ("model", "streaming", "stored"),
    [("gpt-4.1-mini", "True", None), ("gpt-4.1-mini", "False", "gpt-4.1-mini"), ("claude-sonnet-4-5", "True", None),
     ("gpt-4.1-mini-2025-04-14", "True", "gpt-4.1-mini-2025-04-14"), ("Qwen/Qwen3-8B", "True", "Qwen/Qwen3-8B")],
)  # fmt: skip
def test_a_stream_that_repeats_an_undated_name_does_not_know_who_answered(told, model, streaming, stored):
    said = {"gen_ai.request.model": model, "gen_ai.response.model": model, "llm.is_streaming": streaming}
    assert told("litellm", said, name="litellm_request").response_model == stored


# ---- pydantic-ai, Logfire


def test_details_are_parts_and_never_added(told):
    said = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 3447, "gen_ai.usage.output_tokens": 37,
            "gen_ai.usage.details.input_tokens": 27, "gen_ai.usage.details.cache_read_input_tokens": 3301,
            "gen_ai.usage.details.cache_creation_input_tokens": 119}  # fmt: skip
    assert counts(told("pydantic_ai", said)) == (3447, 37, 3301, 119, None)
    run = {key: it for key, it in said.items() if key != "gen_ai.operation.name"}
    assert told("pydantic_ai", run, name="agent run").why == "span:agent?run"


def test_a_stream_of_logfire_is_two_spans_of_which_the_second_knows(told, otlp):
    said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o"}
    request = told("logfire", said, name="Chat Completion with x")
    end = told("logfire", said | USAGE | {"duration": 0.5}, name="streaming response from x took 0.5s", lasted_ms=0)
    assert (request.streaming, request.usage_source, request.response_model) == (True, "missing", None)
    assert (end.streaming, end.input_tokens, end.duration_ms) == (True, 100, 500)
    assert (otlp.NOW - end.started_at).total_seconds() == 0.5
    whole = told("logfire", said | USAGE | {"gen_ai.response.id": "x"}, name="Chat Completion with x")
    assert (whole.streaming, whole.response_model) == (False, "gpt-4o")


def test_the_providers_object_under_logfire_gives_parts_and_not_the_total(told):
    wire = json.dumps({"input_tokens": 37, "output_tokens": 10, "cache_read_input_tokens": 60, "service_tier": "batch",
                       "cache_creation_input_tokens": 3, "output_tokens_details": {"thinking_tokens": 4}})  # fmt: skip
    row = told("logfire", {"gen_ai.operation.name": "chat", **USAGE, "gen_ai.usage.raw": wire})
    assert (counts(row), row.service_tier) == ((100, 10, 60, 3, 4), "batch")


# ---- agents and command lines


def test_strands_writes_each_counter_twice_and_time_in_whole_milliseconds(told):
    said = {"gen_ai.operation.name": "chat", **USAGE, "gen_ai.usage.prompt_tokens": 100,
            "gen_ai.usage.completion_tokens": 10, "gen_ai.provider.name": "strands-agents",
            "gen_ai.server.time_to_first_token": 496}  # fmt: skip
    row = told("strands", said)
    assert (row.input_tokens, row.output_tokens, row.ttft_ms, row.provider) == (100, 10, 496, None)
    bedrock = said | {"gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.total_tokens": 170}
    assert told("strands", bedrock).input_tokens == 160


def test_the_older_call_of_adk_may_stand_around_the_newer(told):
    old = told("google_adk", USAGE | {"gen_ai.system": "gcp.vertex.agent"}, name="call_llm")
    assert (old.dialect, old.dialect in WRAPS) == ("google_adk_old", True)
    assert told("google_adk", USAGE | {"gen_ai.operation.name": "generate_content"}).dialect == "google_adk"
    assert told("google_adk", {"gen_ai.operation.name": "invoke_agent"}).why == "operation:invoke_agent"
    assert told("google_adk", {}, name="call_llm").why == "span:call_llm_without_usage"


BARE = {"model": "claude-sonnet-4-5", "input_tokens": 3, "output_tokens": 1207, "cache_read_tokens": 84562,
        "cache_creation_tokens": 7096, "request_id": "req_1"}  # fmt: skip


def test_claude_code_tells_one_call_as_span_and_as_event(told, log, otlp):
    span = told("claude_code", BARE | {"span.type": "llm_request", "ttft_ms": 1432, "gen_ai.response.id": "req_1"})
    texts = {key: str(it) for key, it in BARE.items()} | {"duration_ms": "5210"}
    event = log("com.anthropic.claude_code.events", "claude_code.api_request", texts)
    assert counts(span) == counts(event) == (91661, 1207, 84562, 7096, None)
    assert span.request_id == event.request_id is not None
    assert span.response_id is event.response_id is None
    assert (span.provider, span.ttft_ms, event.provider, event.duration_ms) == ("anthropic", 1432, "anthropic", 5210)
    assert (otlp.NOW - event.started_at).total_seconds() == 5.21
    assert log("com.anthropic.claude_code.events", "claude_code.tool_result", texts).why == "event:tool_result"
    assert told("claude_code", BARE | {"span.type": "llm_request", "success": False}).status == "error"


def test_gemini_cli_tells_what_the_wire_tells(log):
    said = {"model": "gemini-2.5-pro", "input_token_count": 100, "output_token_count": 40, "thoughts_token_count": 30,
            "cached_content_token_count": 60, "tool_token_count": 5, "total_token_count": 175}  # fmt: skip
    row = log("gemini-cli", "gemini_cli.api_response", said)
    assert (row.dialect, counts(row), row.usage_flags) == ("gemini_cli", (105, 70, 60, None, 30), [])
    assert log("gemini-cli", "gemini_cli.api_request", said).why == "event:api_request"


def test_metrics_are_read_by_the_dialect_of_their_spans(metric):
    gemini = metric("gemini-cli", "gemini_cli.token.usage", {"input_token_count": 100, "output_token_count": 40})
    assert (gemini.dialect, gemini.input_tokens) == ("gemini_cli_metric", 100)
    claude = metric("com.anthropic.claude_code", "claude_code.token.usage", BARE)
    assert (claude.dialect, claude.input_tokens, claude.call_count) == ("claude_code", 91661, 3)
    litellm = metric("litellm", "gen_ai.client.token.usage", {"gen_ai.operation.name": "chat", **USAGE})
    assert (litellm.dialect, litellm.usage_flags) == ("litellm", ["counter_reset"])


# ---- engines


@pytest.mark.parametrize(
    ("scope", "dialect", "engine"),
    [("vllm.llm_engine", "vllm_engine", "vllm"), ("sglang", "sglang_engine", "sglang"),
     ("trt.llm", "tensorrt_llm_engine", "tensorrt-llm"), ("tensorrt_llm.otel", "tensorrt_llm_engine", "tensorrt-llm")],
)  # fmt: skip
def test_an_engine_tells_of_the_request_it_served(told, scope, dialect, engine):
    said = {"gen_ai.request.id": "chatcmpl-9f2d1c-0", "gen_ai.usage.prompt_tokens": 1201,
            "gen_ai.usage.cached_tokens": 9, "gen_ai.usage.completion_tokens": 173,
            "gen_ai.latency.time_to_first_token": 0.081}  # fmt: skip
    row = told(scope, said, name="llm_request")
    assert (row.dialect, row.engine, row.provider, row.ttft_ms) == (dialect, engine, engine, 81)
    assert counts(row)[:3] == (1201, 173, 9)
    client = told("otel_genai", {"gen_ai.operation.name": "chat", "gen_ai.response.id": "chatcmpl-9f2d1c"})
    assert row.response_id == client.response_id
    assert told(scope, {}, name="prefill_forward").why == "span:prefill_forward"


# ---- whatever the dialect


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_no_text_of_a_payload_is_kept(told, scope):
    canary = "canary-7f3a"
    payloads = ("output.value", "input.value", "llm.invocation_parameters", "metadata.usage_object", "hidden_params",
                "langfuse.observation.usage_details", "ai.response.providerMetadata", "gen_ai.usage.raw",
                "langfuse.observation.model.parameters", "llm.openai.usage")  # fmt: skip
    marks = {"gen_ai.operation.name": "chat", "openinference.span.kind": "LLM",
             "langfuse.observation.type": "generation", "span.type": "llm_request", **USAGE}  # fmt: skip
    for text in (canary, json.dumps({"content": canary, "usage": {"note": canary, "prompt_tokens": canary}})):
        row = told(
            scope,
            marks | dict.fromkeys(payloads, text),
            name="ai.x.doGenerate" if scope == "vercel" else "litellm_request",
        )
        assert row.why is None
        assert canary not in repr(vars(row))


@pytest.mark.parametrize(
    ("spelled", "stored"),
    [("OpenAI", "openai"), ("openai.responses", "openai"), ("gemini", "gcp.gemini"), ("google", "gcp.gemini"),
     ("az.ai.openai", "azure.ai.openai"), ("xai", "x_ai"), ("aws.bedrock", "aws.bedrock"), ("vllm.chat", "vllm"),
     ("langchain", None), ("strands-agents", None), ("acme", "acme"), ("  ", None)],
)  # fmt: skip
def test_a_provider_has_one_name(told, spelled, stored):
    row = told("otel_genai", {"gen_ai.operation.name": "chat", "gen_ai.provider.name": spelled})
    assert row.provider == stored
    assert set(record.TOKENS) <= set(vars(row))
