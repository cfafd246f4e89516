"""What users of other tools complained about, sent as those tools' instrumentations send it: what is stored and why.

A name such as `phoenix_10783` is issue or pull request 10783 of that repository; the numbers are the thread's.
"""

import json
from decimal import Decimal

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OPENAI = "opentelemetry.instrumentation.genai.openai"
ANTHROPIC = "opentelemetry.instrumentation.genai.anthropic"
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"


def usd(*products):
    """Σ quantity × price ÷ 1,000,000."""
    return sum((quantity * Decimal(price) for quantity, price in products), Decimal(0)) / 10**6


@pytest.fixture(scope="module")
def stored(otlp):
    """The stored row of one span with these attributes alone."""

    def row(scope, attributes, *, version="1.2", **fields):
        span = otlp.span(dict.fromkeys(otlp.CHAT) | attributes, **fields)
        body = ExportTraceServiceRequest.FromString(otlp.request(span, scope=scope))
        body.resource_spans[0].scope_spans[0].scope.version = version
        (one,) = otlp.run(body.SerializeToString()).spans.to_dicts()
        return one

    return row


def chat(provider, model, **usage):
    """A call by OpenTelemetry's names; `cache_read__input_tokens` is `gen_ai.usage.cache_read.input_tokens`."""
    counters = {f"gen_ai.usage.{name.replace('__', '.')}": count for name, count in usage.items()}
    return {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model, **counters,
    }  # fmt: skip


def openinference(provider, model, prompt, completion, total, **details):
    counters = {f"llm.token_count.prompt_details.{name}": count for name, count in details.items()}
    return {
        "openinference.span.kind": "LLM", "llm.provider": provider, "llm.model_name": model,
        "llm.token_count.prompt": prompt, "llm.token_count.completion": completion, "llm.token_count.total": total,
        **counters,
    }  # fmt: skip


def litellm(provider, model, usage):
    return {
        "gen_ai.operation.name": "chat", "gen_ai.system": provider, "gen_ai.request.model": model,
        "metadata.usage_object": str(usage),
    }  # fmt: skip


def langfuse(model, usage):
    return {
        "langfuse.observation.type": "generation", "langfuse.observation.model.name": model,
        "langfuse.observation.usage_details": json.dumps(usage),
    }  # fmt: skip


BILLED = [
    pytest.param(
        "openinference.instrumentation.bedrock",
        openinference("amazon_bedrock", f"global.{SONNET}", 3, 442, 8_712, cache_read=7_917, cache_write=350),
        {},
        usd((3, "3"), (7_917, "0.3"), (350, "3.75"), (442, "15")),
        id="phoenix_10783",  # the rest of the total is cached input, not output
    ),
    pytest.param(
        "openinference.instrumentation.langchain",
        openinference("amazon_bedrock", f"us.{SONNET}", 3, 12, 13_256, cache_read=13_216, cache_write=25),
        {},
        usd((3, "3.3"), (13_216, "0.33"), (25, "4.125"), (12, "16.5")),
        id="phoenix_10036-openinference_2381",
    ),
    pytest.param(
        "strands.telemetry.tracer",
        chat(None, f"us.{SONNET}", input_tokens=4_299, output_tokens=631, total_tokens=58_291,
             cache_read_input_tokens=35_574, cache_write_input_tokens=17_787),
        {"name": "chat"},
        usd((4_299, "3.3"), (35_574, "0.33"), (17_787, "4.125"), (631, "16.5")),
        id="phoenix_13379",  # nobody tells the provider: the model's name does
    ),
    pytest.param(
        "pydantic-ai",
        chat("anthropic", "claude-3-7-sonnet-20250219", input_tokens=12_307, output_tokens=550,
             details__cache_write_tokens=12_304, details__cache_creation_input_tokens=12_304, details__input_tokens=3),
        {},
        usd((3, "3"), (12_304, "3.75"), (550, "15")),
        id="langfuse_12306-litellm_9812",  # one count in two spellings, inside the input
    ),
    pytest.param(
        "litellm",
        litellm("bedrock", "eu.anthropic.claude-opus-4-5-20251101-v1:0", {
            "total_tokens": 103_925, "prompt_tokens": 98_805, "completion_tokens": 5_120,
            "prompt_tokens_details": {"text_tokens": None, "cached_tokens": 66_360, "cache_creation_tokens": 32_435},
            "cache_read_input_tokens": 66_360, "completion_tokens_details": {"reasoning_tokens": 1_710},
            "cache_creation_input_tokens": 32_435,
        }),
        {"name": "litellm_request"},
        usd((10, "5.5"), (66_360, "0.55"), (32_435, "6.875"), (5_120, "27.5")),
        id="litellm_11364-aider_5518",
    ),
    pytest.param(
        "langfuse-sdk",
        langfuse("gpt-4o", {"input": 86, "input_cached_tokens": 17_817, "output": 100, "total": 18_003}),
        {},
        usd((86, "2.5"), (17_817, "1.25"), (100, "10")),
        id="langfuse_5568-langfuse_9386",  # buckets side by side
    ),
    pytest.param(
        "langfuse-sdk",
        langfuse("gpt-4o", {"prompt_tokens": 17_903, "completion_tokens": 100, "total_tokens": 18_003,
                            "prompt_tokens_details": {"cached_tokens": 17_817}}),
        {},
        usd((86, "2.5"), (17_817, "1.25"), (100, "10")),
        id="langfuse_10592-in-openai-s-own-shape",  # cached tokens inside
    ),
    pytest.param(
        "langfuse-sdk",
        langfuse("gpt-4o", {"input": 17_903, "input_cached_tokens": 17_817, "output": 100, "total": 18_003}),
        {},
        usd((86, "2.5"), (17_817, "1.25"), (100, "10")),
        id="langfuse_10592",  # the total tells that this release left them inside
    ),
    pytest.param(
        "litellm",
        litellm("openai", "o3", {"prompt_tokens": 11, "completion_tokens": 102, "total_tokens": 113,
                                 "completion_tokens_details": {"reasoning_tokens": 109}}),
        {"name": "litellm_request"},
        usd((11, "2"), (102, "8")),
        id="langfuse_14987",  # an estimate of the reasoning that came out above all there was
    ),
    pytest.param(
        "langfuse-sdk",
        langfuse("gpt-5-mini", {"input": 0, "input_cached_tokens": 2_304, "output": 10}),
        {},
        usd((2_304, "0.025"), (10, "2")),
        id="codex-observability-plugin_22",
    ),
    pytest.param(
        "ai",
        {"operation.name": "ai.streamText.doStream", "ai.model.provider": "openai.responses", "ai.model.id": "gpt-4o",
         "ai.usage.promptTokens": 2_006, "ai.usage.completionTokens": 300, "ai.usage.cachedInputTokens": 1_920},
        {"name": "ai.streamText.doStream"},
        usd((86, "2.5"), (1_920, "1.25"), (300, "10")),
        id="langfuse_9482-litellm_6215",
    ),
    pytest.param(
        "my.agent",
        chat("openai", "gpt-4o", input_tokens=2_495, output_tokens=291, cache_read__input_tokens=2_304),
        {},
        usd((191, "2.5"), (2_304, "1.25"), (291, "10")),
        id="trpc-agent-go_2282",
    ),
    pytest.param(
        "opentelemetry.instrumentation.google_generativeai",
        chat("gcp.gemini", "gemini-2.5-flash", input_tokens=100, output_tokens=50) | {"llm.usage.total_tokens": 450},
        {"version": "0.49.0"},
        usd((100, "0.3"), (350, "2.5")),
        id="phoenix_7637",  # thoughts that stand in the total alone are output
    ),
    pytest.param(
        OPENAI,
        chat("openai", "gpt-4o", input_tokens=1_000, output_tokens=1_000)
        | {"openai.request.service_tier": "priority", "openai.response.service_tier": "default"},
        {},
        usd((1_000, "2.5"), (1_000, "10")),
        id="litellm_31837-posthog_94200",  # as served, whatever was asked for
    ),
    pytest.param(
        OPENAI,
        chat("openai", "gpt-5-mini", input_tokens=2_000, output_tokens=500, cache_read__input_tokens=1_000)
        | {"openai.request.service_tier": "auto", "openai.response.service_tier": "flex"},
        {},
        Decimal("0.0006375"),
        id="defog_303-litellm_17748",
    ),
    pytest.param(
        "com.anthropic.sdk.python",
        chat("anthropic", "claude-fable-5", input_tokens=37_175, output_tokens=0, cache_creation__input_tokens=37_175)
        | {"anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 37_175},
        {"name": "anthropic.messages.create"},
        Decimal("0.7435"),
        id="claude-observability-plugin_34",
    ),
    pytest.param(
        "litellm",
        litellm("anthropic", "claude-sonnet-4-5", {"prompt_tokens": 9_548, "completion_tokens": 528,
                                                   "server_tool_use": {"web_search_requests": 2}}),
        {"name": "litellm_request"},
        usd((9_548, "3"), (528, "15")) + Decimal("0.02"),
        id="litellm_15227-litellm_31355",  # two searches beside their tokens
    ),
    pytest.param(
        OPENAI,
        chat("openai", "openai/gpt-oss-120b", input_tokens=10_000, output_tokens=1_000)
        | {"server.address": "api.groq.com"},
        {},
        usd((10_000, "0.15"), (1_000, "0.6")),
        id="helicone_4893-litellm_12313",  # the endpoint tells who serves it
    ),
]  # fmt: skip


@pytest.mark.parametrize(("scope", "attributes", "fields", "expected"), BILLED)
def test_what_the_thread_sent_costs_what_the_provider_billed(stored, scope, attributes, fields, expected):
    row = stored(scope, attributes, **fields)
    assert (row["price_status"], row["list_cost_usd"], row["billed_cost_usd"]) == ("priced", expected, expected)


UNKNOWN = [
    pytest.param(OPENAI, chat("openai", "gpt-4o") | {"gen_ai.request.stream": True}, {}, "partial",
                 id="litellm_36943-ferro-labs_281-a-stream-without-usage"),
    pytest.param("litellm", litellm("openai", "gpt-4o", {"prompt_tokens": 0, "completion_tokens": 0}),
                 {"name": "litellm_request"}, "partial", id="vllm_19263-zeros-of-a-stream-that-told-nothing"),
    pytest.param(OPENAI, chat("litellm", "litellm_proxy/prod/claude-sonnet-4-6-bedrock", input_tokens=1_000,
                              output_tokens=100), {}, "unpriced", id="software-agent-sdk_4836-an-alias-of-a-gateway"),
    pytest.param(OPENAI, chat("openai", "gpt-9-omni", input_tokens=5, output_tokens=7), {}, "unpriced",
                 id="langfuse_10447-a-model-newer-than-the-prices"),
]  # fmt: skip


@pytest.mark.parametrize(("scope", "attributes", "fields", "status"), UNKNOWN)
def test_what_is_not_known_is_never_stored_as_free(stored, scope, attributes, fields, status):
    row = stored(scope, attributes, **fields)
    assert (row["price_status"], row["list_cost_usd"], row["billed_cost_usd"]) == (status, None, None)


def test_own_hardware_behind_a_gateway_is_not_free_but_not_billed_by_anybody(stored):
    """litellm_41780, litellm_15135: no API price is made up; what it cost comes from its deployment."""
    sent = litellm("hosted_vllm", "acme-70b", {"prompt_tokens": 5, "completion_tokens": 7})
    row = stored("litellm", sent, name="litellm_request")
    assert (row["billing"], row["price_status"]) == ("self_hosted", "not_billed")
    assert (row["list_cost_usd"], row["billed_cost_usd"], row["deployment"]) == (None, 0, None)


@pytest.mark.parametrize("error", ["429", "rate_limit_exceeded", "503", "timeout"])
def test_a_refused_call_is_not_billed(stored, error):
    """langfuse_9038, context-lens_31: five attempts were shown as five bills."""
    row = stored(ANTHROPIC, chat("anthropic", "claude-opus-4-5") | {"error.type": error}, error=True)
    assert (row["status"], row["price_status"], row["billed_cost_usd"]) == ("error", "not_billed", 0)


def test_a_call_that_broke_off_after_tokens_came_is_billed_for_them(stored):
    """litellm_13245, litellm_30630: streams that the user closed cost what had been put out."""
    sent = chat("openai", "gpt-4o", input_tokens=2_495, output_tokens=29) | {"error.type": "cancelled"}
    row = stored("millicent.sdk", sent, error=True)
    assert (row["price_status"], row["billed_cost_usd"]) == ("priced", usd((2_495, "2.5"), (29, "10")))


def test_a_total_that_nothing_explains_is_not_taken_for_output(stored):
    """phoenix_13379: 53,361 tokens of cache that an old release forgot were charged as output."""
    sent = openinference("aws", f"us.{SONNET}", 4_299, 631, 58_291)
    row = stored("openinference.instrumentation.strands", sent)
    assert (row["output_tokens"], row["list_output_usd"]) == (631, usd((631, "16.5")))
    assert "totals_disagree" in row["usage_flags"]


def test_an_estimate_of_reasoning_above_the_output_is_not_believed(stored):
    """langfuse_14987: 109 of 102 tokens."""
    usage = {"prompt_tokens": 11, "completion_tokens": 102, "completion_tokens_details": {"reasoning_tokens": 109}}
    row = stored("litellm", litellm("openai", "o3", usage | {"total_tokens": 113}), name="litellm_request")
    assert (row["output_tokens"], row["reasoning_tokens"], row["usage_flags"]) == (102, None, ["totals_disagree"])
    beside = stored("litellm", litellm("x-ai", "grok-3-mini", usage | {"total_tokens": 222}), name="litellm_request")
    assert (beside["output_tokens"], beside["reasoning_tokens"]) == (211, 109)
