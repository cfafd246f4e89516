"""What users of other tools complained about, with their numbers: each test is named after the threads it answers.

A name such as `litellm_9812` is issue or pull request 9812 of that repository. Expected amounts are quantities times
published prices per million tokens, written out; where a thread tells what the provider billed, that is compared too.
"""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.pricing.snapshot import changes, merged

BOOK = PriceBook.bundled()
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PARTS = ("list_input_usd", "list_cache_read_usd", "list_cache_write_usd", "list_output_usd", "list_units_usd")


def usd(*products):
    """Σ quantity × price ÷ 1,000,000."""
    return sum((quantity * Decimal(price) for quantity, price in products), Decimal(0)) / 10**6


def price(usage, book=BOOK):
    """The priced row of one usage; its parts and its derivation add up to it."""
    usage = {"started_at": NOW, **usage}
    frame = pl.DataFrame([usage], schema_overrides={"started_at": pl.Datetime("us", "UTC")})
    (row,) = book.price(frame).to_dicts()
    explained = book.explain(usage)
    assert explained.list_cost_usd == row["list_cost_usd"]
    assert explained.status == row["price_status"]
    if row["list_cost_usd"] is not None:
        assert sum((row[part] or Decimal(0) for part in PARTS if part in row), Decimal(0)) == row["list_cost_usd"]
        lines = sum((line.amount_usd for line in explained.lines), Decimal(0))
        assert lines + explained.rounding_usd == row["list_cost_usd"]
    return row


def of(told, **usage):
    """`provider/model` with its usage."""
    provider, _, model = told.partition("/")
    return {"provider": provider, "model": model, **usage}


def case(threads, usage, *products, billed=None):
    """`billed`: what the thread says that the provider billed, as it is written there."""
    return pytest.param(usage, usd(*products), billed, id=threads)


# ---- 1: cached tokens counted twice, at full price or free


CACHED = [
    case(
        "litellm_9812-litellm_6576-pdd_629",
        of("anthropic/claude-3-7-sonnet-20250219", input_tokens=3 + 12_304, cache_write_tokens=12_304,
           output_tokens=550),
        (3, "3"), (12_304, "3.75"), (550, "15"),
        billed="0.0544",
    ),
    case(
        "litellm_11364-litellm_34801",
        of("aws.bedrock/eu.anthropic.claude-opus-4-5-20251101-v1:0", input_tokens=98_805, cache_read_tokens=66_360,
           cache_write_tokens=32_435, output_tokens=5_120, reasoning_tokens=1_710),
        (10, "5.5"), (66_360, "0.55"), (32_435, "6.875"), (5_120, "27.5"),
    ),
    case(
        "langfuse_10592-langfuse_9386-openlit_914",
        of("openai/gpt-4o", input_tokens=17_903, cache_read_tokens=17_817, output_tokens=0),
        (86, "2.5"), (17_817, "1.25"),
    ),
    case(
        "litellm_6215-continue_13104",
        of("openai/gpt-4o", input_tokens=2_006, cache_read_tokens=1_920, output_tokens=300, reasoning_tokens=0),
        (86, "2.5"), (1_920, "1.25"), (300, "10"),
    ),
    case(
        "langfuse_4590",
        of("openai/gpt-4o", input_tokens=62_394, cache_read_tokens=60_024, output_tokens=214),
        (2_370, "2.5"), (60_024, "1.25"), (214, "10"),
    ),
    case(
        "phoenix_10036",
        of("amazon_bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", input_tokens=3 + 25 + 13_216,
           cache_read_tokens=13_216, cache_write_tokens=25, output_tokens=12),
        (3, "3.3"), (25, "4.125"), (13_216, "0.33"), (12, "16.5"),
        billed="0.005",
    ),
    case(
        "codex-observability-plugin_22",  # all of the input was cached: that is not free
        of("openai/gpt-5-mini", input_tokens=2_304, cache_read_tokens=2_304, output_tokens=0),
        (2_304, "0.025"),
    ),
    case(
        "claude-observability-plugin_34",  # writes that are kept for an hour cost more than those for five minutes
        of("anthropic/claude-fable-5", input_tokens=37_175, cache_write_tokens=37_175, cache_write_1h_tokens=37_175,
           output_tokens=0),
        (37_175, "20"),
        billed="0.7435",
    ),
    case(
        "opik_5214",  # cache writes are input
        of("anthropic/claude-sonnet-4-5", input_tokens=1_000 + 200 + 300, cache_read_tokens=200,
           cache_write_tokens=300, output_tokens=50),
        (1_000, "3"), (200, "0.3"), (300, "3.75"), (50, "15"),
    ),
    case(
        "gpt-researcher_1986-opik_1446-litellm_19532",  # and are not free
        of("anthropic/claude-opus-4-5", input_tokens=10_004, cache_write_tokens=10_000, output_tokens=1),
        (4, "5"), (10_000, "6.25"), (1, "25"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), CACHED)
def test_cached_tokens_cost_once_at_the_price_of_cached_tokens(usage, expected, billed):
    row = price(usage)
    assert (row["price_status"], row["list_cost_usd"]) == ("priced", expected)
    if billed is not None:
        assert round(expected, -Decimal(billed).as_tuple().exponent) == Decimal(billed)


def test_double_counting_would_have_shown_the_amount_of_the_thread():
    """litellm_9812: shown were 0.091311 USD, the input tokens of the cache write charged as plain input too."""
    usage = CACHED[0].values[0]
    assert price(usage)["list_cost_usd"] + usd((12_304, "3")) == Decimal("0.091311")


# ---- 2, 3: output inferred from the total; reasoning counted twice


OUTPUT = [
    case(
        "phoenix_10783",  # shown were (8,712 − 3) × 15 USD per million
        of("aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0", input_tokens=3 + 7_917 + 350,
           cache_read_tokens=7_917, cache_write_tokens=350, output_tokens=442),
        (442, "15"),
        billed="0.00663",
    ),
    case(
        "opencode_17566",
        of("openai/gpt-5.4-pro", input_tokens=14_746, output_tokens=1_944, reasoning_tokens=1_360),
        (1_944, "180"),
        billed="0.34992",
    ),
    case(
        "llmgateway_3435",  # 136, not 136 + 31
        of("anthropic/claude-sonnet-4-5", input_tokens=51, output_tokens=136, reasoning_tokens=31),
        (136, "15"),
    ),
    case(
        "browser-use_4075-model-hotel_991",
        of("openai/o3", input_tokens=2_008, output_tokens=266, reasoning_tokens=261),
        (266, "8"),
    ),
    case(
        "litellm_10567-litellm_10691",  # reasoning alone is not free
        of("openai/o3", input_tokens=10, output_tokens=500, reasoning_tokens=500),
        (500, "8"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), OUTPUT)
def test_output_costs_what_was_put_out_with_its_reasoning_inside(usage, expected, billed):
    row = price(usage)
    assert (row["price_status"], row["list_output_usd"]) == ("priced", expected)
    assert billed is None or expected == Decimal(billed)


# ---- tiers: the whole request changes its price, by its own input alone


TIERS = [
    case("hermes-agent_93678", of("google/gemini-3.1-pro-preview", input_tokens=250_000, output_tokens=0),
         (250_000, "4"), billed="1.00"),
    case("genai-prices_242-traceroost_128-exactly-at-the-border",
         of("anthropic/claude-sonnet-4-5", input_tokens=200_000, output_tokens=1_000),
         (200_000, "3"), (1_000, "15")),
    case("genai-prices_242-one-above", of("anthropic/claude-sonnet-4-5", input_tokens=200_001, output_tokens=1_000),
         (200_001, "6"), (1_000, "22.5")),
    case("genai-prices_242-cache-reads-count-towards-the-tier",
         of("anthropic/claude-sonnet-4-5", input_tokens=200_001, cache_read_tokens=200_000, output_tokens=1),
         (1, "6"), (200_000, "0.6"), (1, "22.5")),
    case("activepieces_8233-output-does-not", of("google/gemini-2.5-pro", input_tokens=1, output_tokens=300_000),
         (1, "1.25"), (300_000, "10")),
    case("litellm_9807-litellm_11049", of("google/gemini-2.5-pro", input_tokens=300_000, cache_read_tokens=100_000,
         output_tokens=10), (200_000, "2.5"), (100_000, "0.25"), (10, "15")),
    case("synaplan_1319-at", of("openai/gpt-5.4", input_tokens=272_000, output_tokens=9), (272_000, "2.5"), (9, "15")),
    case("synaplan_1319-above", of("openai/gpt-5.4", input_tokens=272_001, output_tokens=9),
         (272_001, "5"), (9, "22.5")),
    case("litellm_39861",
         of("openai/gpt-5.4", input_tokens=300_000, cache_read_tokens=100_000, output_tokens=9, service_tier="batch"),
         (200_000, "2.5"), (100_000, "0.25"), (9, "11.25")),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), TIERS)
def test_a_request_above_a_tier_is_billed_whole_at_that_tier(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected
    assert billed is None or expected == Decimal(billed)


# ---- batch, flex, priority: as served


SERVED = [
    case("litellm_13810-posthog-js_2323", of("openai/gpt-5-nano", input_tokens=1_000, output_tokens=2_000,
         service_tier="flex"), (1_000, "0.025"), (2_000, "0.2")),
    case("defog_303-flex", of("openai/gpt-5-mini", input_tokens=2_000, cache_read_tokens=1_000, output_tokens=500,
         service_tier="flex"), (1_000, "0.125"), (1_000, "0.0125"), (500, "1"), billed="0.0006375"),
    case("defog_303-served-as-default", of("openai/gpt-5-mini", input_tokens=2_000, cache_read_tokens=1_000,
         output_tokens=500, service_tier="default"), (1_000, "0.25"), (1_000, "0.025"), (500, "2"), billed="0.001275"),
    case("litellm_31837", of("openai/gpt-4o", input_tokens=1_000, output_tokens=1_000, service_tier="default"),
         (1_000, "2.5"), (1_000, "10")),
    case("genai-prices_115-priority", of("openai/gpt-4o", input_tokens=1_000, output_tokens=1_000,
         service_tier="priority"), (1_000, "4.25"), (1_000, "17")),
    case("genai-prices_115-batch", of("openai/gpt-4o", input_tokens=1_000, output_tokens=1_000, service_tier="batch"),
         (1_000, "1.25"), (1_000, "5")),
    case("genai-prices_115-a-tier-nobody-publishes", of("openai/gpt-4o", input_tokens=1_000, output_tokens=1_000,
         service_tier="incentivized-tier"), (1_000, "2.5"), (1_000, "10")),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), SERVED)
def test_a_service_tier_costs_what_it_does_where_it_was_served(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected
    assert billed is None or expected == Decimal(billed)


# ---- 5: a new or aliased model costs what it costs, or is unpriced, and never 0


ALIASES = [
    case("langfuse_4523-helicone_2983", of("openai/gpt-4o-2024-11-20", input_tokens=1_000, output_tokens=100),
         (1_000, "2.5"), (100, "10")),
    case("langfuse_12747", of("anthropic/claude-haiku-4-5", input_tokens=1_000, output_tokens=100),
         (1_000, "1"), (100, "5")),
    case("openant_471-dated", of("anthropic/claude-haiku-4-5-20251001", input_tokens=1_000, output_tokens=100),
         (1_000, "1"), (100, "5")),
    case("openant_471-prefixed", of("anthropic/anthropic/claude-haiku-4-5", input_tokens=1_000, output_tokens=100),
         (1_000, "1"), (100, "5")),
    case("langfuse_4072-litellm_8115", of("aws.bedrock/us.anthropic.claude-3-haiku-20240307-v1:0",
         input_tokens=1_000, output_tokens=100), (1_000, "0.25"), (100, "1.25")),
    case("opik_4114", of("/openai/gpt-4o-mini", input_tokens=1_000, output_tokens=100), (1_000, "0.15"), (100, "0.6")),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), ALIASES)
def test_a_model_by_another_of_its_names_has_its_price(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param(of("openai/gpt-9-omni", input_tokens=5), id="langwatch_2914-lmnr_1182-codeburn_646"),
        pytest.param(of("openai/", input_tokens=5), id="hermes-agent_100848-no-model-told"),
        pytest.param(of("hosted_vllm/acme-70b", input_tokens=5), id="litellm_41780-litellm_15135"),
        pytest.param(of("self-hosted/acme-70b", input_tokens=10**6), id="archestra_6906-no-price-of-thin-air"),
        pytest.param(of("adsfdsafdsafdsaf/gpt-4o", input_tokens=1_000), id="litellm_6133-no-such-provider"),
    ],
)
def test_what_has_no_price_is_unpriced_and_not_free(usage):
    row = price({**usage, "output_tokens": 7})
    assert row["price_status"] == "unpriced"
    assert {row[name] for name in row if name.endswith("_usd")} == {None}
    assert BOOK.explain({"started_at": NOW, **usage}).reason


def test_openrouter_free_models_are_priced_at_nothing():
    """litellm_19168: a price of 0 is a price."""
    row = price(of("openrouter/meta-llama/llama-3.3-70b-instruct:free", input_tokens=1_000, output_tokens=100))
    assert (row["price_status"], row["list_cost_usd"]) == ("priced", 0)


# ---- 6: the same model at two hosts has two prices


HOSTS = [
    case("litellm_26795-bedrock-global", of("aws/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
         input_tokens=10_000, output_tokens=1_000), (10_000, "3"), (1_000, "15")),
    case("litellm_26795-bedrock-regional", of("aws/us.anthropic.claude-sonnet-4-5-20250929-v1:0", input_tokens=10_000,
         output_tokens=1_000), (10_000, "3.3"), (1_000, "16.5")),
    case("helicone_4893-standard", of("x-ai/grok-3-mini", input_tokens=10_000, cache_read_tokens=5_000,
         output_tokens=1_000), (5_000, "0.3"), (5_000, "0.075"), (1_000, "0.5")),
    case("helicone_4893-fast", of("x-ai/grok-3-mini-fast", input_tokens=10_000, cache_read_tokens=5_000,
         output_tokens=1_000), (5_000, "0.6"), (5_000, "0.15"), (1_000, "4")),
    case("helicone_5172-litellm_12313-cerebras", of("cerebras/gpt-oss-120b", input_tokens=10_000, output_tokens=1_000),
         (10_000, "0.35"), (1_000, "0.75")),
    case("helicone_5172-litellm_12313-groq", of("groq/openai/gpt-oss-120b", input_tokens=10_000, output_tokens=1_000),
         (10_000, "0.15"), (1_000, "0.6")),
    case("litellm_38730-by-endpoint", {**of("openai/openai/gpt-oss-120b", input_tokens=10_000, output_tokens=1_000),
         "endpoint_host": "api.groq.com"}, (10_000, "0.15"), (1_000, "0.6")),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), HOSTS)
def test_who_serves_a_model_decides_its_price(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected


# ---- 7: a price change holds from its date on; nothing is told of the time before


DATED = [
    case("genai-prices_535-before", of("openai/gpt-5.6-luna", input_tokens=100_000, output_tokens=10_000,
         started_at=datetime(2026, 7, 29, 23, 59, 59, 999_999, tzinfo=UTC)), (100_000, "1"), (10_000, "6")),
    case("genai-prices_535-gbrain_4560-after", of("openai/gpt-5.6-luna", input_tokens=100_000, output_tokens=10_000,
         started_at=datetime(2026, 7, 30, tzinfo=UTC)), (100_000, "0.2"), (10_000, "1.2")),
    case("models.dev_4006-before", of("openai/o3", input_tokens=1_000, cache_read_tokens=400, output_tokens=10,
         started_at=datetime(2025, 6, 9, 12, tzinfo=UTC)), (600, "10"), (400, "0.5"), (10, "40")),
    case("models.dev_4006-after", of("openai/o3", input_tokens=1_000, cache_read_tokens=400, output_tokens=10,
         started_at=datetime(2025, 6, 10, 12, tzinfo=UTC)), (600, "2"), (400, "0.5"), (10, "8")),
    case("llm-prices_70-peak", of("deepseek/deepseek-chat", input_tokens=1_000, cache_read_tokens=400,
         output_tokens=10, started_at=datetime(2026, 3, 1, 16, 29, 59, tzinfo=UTC)),
         (600, "0.27"), (400, "0.07"), (10, "1.1")),
    case("llm-prices_70-off-peak", of("deepseek/deepseek-chat", input_tokens=1_000, cache_read_tokens=400,
         output_tokens=10, started_at=datetime(2026, 3, 1, 16, 30, tzinfo=UTC)),
         (600, "0.135"), (400, "0.035"), (10, "0.55")),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), DATED)
def test_calls_cost_what_they_did_at_their_instant(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected


def test_an_update_that_forgets_a_start_date_is_seen_and_held():
    """genai-prices_531, ccusage_1636, litellm_31835: three weeks of calls at a price that came later."""
    shipped = tuple(bundled.entries())
    (luna,) = (one for one in shipped if (one.model, one.provider, one.variant) == ("gpt-5.6-luna", "openai", ()))
    careless = replace(luna, dates=(), cells=luna.cells[len(luna.cells) // 2 :])
    update = tuple(careless if one is luna else one for one in shipped)
    found = changes(shipped, update, NOW)
    assert {(one.model, one.effective_from, one.effective_to) for one in found if not one.variant} == {
        ("gpt-5.6-luna", None, datetime(2026, 7, 30, tzinfo=UTC))
    }
    usage = of("openai/gpt-5.6-luna", input_tokens=1_000, output_tokens=0, started_at=datetime(2026, 7, 20, tzinfo=UTC))
    assert price(usage, PriceBook("careless", update))["list_cost_usd"] == usd((1_000, "0.2"))
    held = merged(shipped, update, {("openai", "gpt-5.6-luna")})
    assert price(usage, PriceBook("held", held))["list_cost_usd"] == usd((1_000, "1"))
    assert changes(shipped, held, NOW) == []


# ---- what is billed by the piece


SEARCHES = [
    ("litellm_15227-litellm_31355-langfuse_15856", "anthropic/claude-sonnet-4-5", 2, "0.02"),
    ("litellm_31316-litellm_16996", "openai/gpt-5", 3, "0.03"),
    ("litellm_38439", "google/gemini-3-flash-preview", 2, "0.028"),
    ("litellm_10384-offered-but-not-used", "openai/gpt-4.1", 0, "0"),
]


@pytest.mark.parametrize(("model", "searches", "fee"), [pytest.param(*told, id=threads) for threads, *told in SEARCHES])
def test_searches_cost_a_fee_beside_their_tokens(model, searches, fee):
    usage = of(model, input_tokens=9_548, output_tokens=528)
    units = [{"key": "web_searches", "value": searches}]
    without, row = price(usage), price({**usage, "units": units})
    assert (row["price_status"], row["list_units_usd"]) == ("priced", Decimal(fee))
    assert row["list_cost_usd"] == without["list_cost_usd"] + Decimal(fee)


# ---- amounts below a cent


SMALL = [
    case("phoenix_8037-altimate-code_600", of("openai/gpt-4o-mini", input_tokens=250, output_tokens=0), (250, "0.15"),
         billed="0.0000375"),
    case("hermes-agent_76988", of("deepseek/deepseek-v4-flash", input_tokens=1, cache_read_tokens=1, output_tokens=0,
         started_at=datetime(2026, 6, 1, tzinfo=UTC)), (1, "0.0028"), billed="0.0000000028"),
    case("tokenlens_6", of("google/gemini-2.5-flash", input_tokens=25, cache_read_tokens=20, output_tokens=1),
         (5, "0.3"), (20, "0.03"), (1, "2.5"), billed="0.0000046"),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "expected", "billed"), SMALL)
def test_amounts_below_a_cent_are_kept_to_the_last_digit(usage, expected, billed):
    assert price(usage)["list_cost_usd"] == expected == Decimal(billed)


def test_a_million_small_amounts_add_up_exactly():
    calls = pl.DataFrame({"provider": "openai", "model": "gpt-4o-mini", "started_at": NOW, "input_tokens": 250,
                          "output_tokens": pl.repeat(0, 10**6, dtype=pl.Int64, eager=True)})  # fmt: skip
    calls = calls.with_columns(pl.col("started_at").cast(pl.Datetime("us", "UTC")))
    assert BOOK.price(calls)["list_cost_usd"].sum() == Decimal("37.5")
