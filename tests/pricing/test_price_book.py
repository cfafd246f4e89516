from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import genai_prices
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.book import USD, PriceBook
from millicent.pricing.rates import Cell, Entry

BOOK = PriceBook.bundled()
NOON = datetime(2026, 10, 20, 12, tzinfo=UTC)
AMOUNTS = (
    "list_cost_usd",
    "list_input_usd",
    "list_cache_read_usd",
    "list_cache_write_usd",
    "list_output_usd",
    "list_units_usd",
)
UTC_US = pl.Datetime("us", "UTC")


def frame(*calls):
    return pl.DataFrame(
        [{"started_at": NOON, **call} for call in calls],
        schema_overrides={"started_at": UTC_US},
        infer_schema_length=None,
    )


def price_one(**call):
    return BOOK.price(frame(call)).row(0, named=True)


def book_with(prices, **entry):
    """A book with one price list, of a model that the lookup knows."""
    shape = {"dates": (), "clocks": (), "sizes": (), **entry}
    cells = tuple(
        Cell(f"openai/gpt-4o {at}", {key: Decimal(value) for key, value in cell.items()})
        for at, cell in enumerate(prices)
    )
    return PriceBook("test prices", [Entry("openai", "gpt-4o", (), cells=cells, **shape)])


GPT_4O = {"provider": "openai", "model": "gpt-4o", "input_tokens": 1_000, "output_tokens": 100}


def test_a_call_is_priced_by_kind():
    row = price_one(**GPT_4O, cache_read_tokens=300)
    assert row == {
        "list_cost_usd": Decimal("0.003125"),
        "list_input_usd": Decimal("0.00175"),
        "list_cache_read_usd": Decimal("0.000375"),
        "list_cache_write_usd": Decimal(0),
        "list_output_usd": Decimal("0.001"),
        "list_units_usd": Decimal(0),
        "billed_cost_usd": Decimal("0.003125"),
        "cache_saving_usd": Decimal("0.000375"),
        "price_status": "priced",
        "price_entry": "openai/gpt-4o",
        "price_version": f"genai-prices {genai_prices.__version__}",
    }


def test_columns_have_their_types_even_without_rows():
    empty = BOOK.price(frame(GPT_4O).clear())
    assert empty.height == 0
    assert [empty.schema[name] for name in (*AMOUNTS, "cache_saving_usd")] == [USD] * 7
    assert [empty.schema[name] for name in ("price_status", "price_entry", "price_version")] == [pl.String] * 3


def test_writing_a_cache_that_nobody_reads_is_a_negative_saving():
    row = price_one(
        provider="anthropic",
        model="claude-sonnet-4-5",
        input_tokens=1_000,
        output_tokens=0,
        cache_write_tokens=1_000,
        cache_write_1h_tokens=400,
    )
    assert row["list_cache_write_usd"] == Decimal("0.00465")  # 600 × 3.75 + 400 × 6
    assert row["cache_saving_usd"] == Decimal("-0.00165")  # 1000 × 3 less that


@pytest.mark.parametrize(
    "call",
    [
        {"provider": "openai", "model": "no-such-model"},
        {"provider": "nobody", "model": "gpt-4o"},
        {"provider": "openai", "model": None},
        {"provider": "anthropic", "model": "claude-sonnet-4-5" + "-" * 10_000},
        {"provider": "openai", "model": "whisper-1"},
        {"provider": "hosted_vllm", "model": "gpt-4o", "endpoint_host": "10.0.0.7"},
        {"provider": "openai", "model": "mistralai/mistral-small-latest", "endpoint_host": "10.0.0.7"},
    ],
)
def test_what_has_no_usable_price_is_unpriced_and_never_zero(call):
    row = price_one(**{**GPT_4O, **call})
    assert row["price_status"] == "unpriced"
    assert [row[name] for name in (*AMOUNTS, "cache_saving_usd", "price_entry")] == [None] * 8


def test_an_empty_price_list_means_free():
    row = price_one(provider="openrouter", model="google/gemma-3-27b-it:free", input_tokens=5, output_tokens=5)
    assert (row["price_status"], row["list_cost_usd"]) == ("priced", Decimal(0))


def test_an_unknown_total_leaves_the_known_parts():
    row = price_one(provider="openai", model="gpt-4o", input_tokens=1_000, cache_read_tokens=400)
    assert row["price_status"] == "partial"
    assert [row[name] for name in AMOUNTS] == [
        Decimal("0.002"),
        Decimal("0.0015"),
        Decimal("0.0005"),
        Decimal(0),
        None,
        Decimal(0),
    ]


def test_nothing_known_is_partial_without_an_amount():
    row = price_one(provider="openai", model="gpt-4o")
    assert row["price_status"] == "partial"
    assert [row[name] for name in AMOUNTS] == [None] * 6


def test_an_unknown_output_of_a_model_that_bills_none_is_priced():
    row = price_one(provider="openai", model="text-embedding-3-small", input_tokens=1_000_000)
    assert (row["price_status"], row["list_cost_usd"]) == ("priced", Decimal("0.02"))


def test_parts_that_exceed_their_total_never_make_a_negative_remainder():
    row = price_one(provider="openai", model="gpt-4o", input_tokens=10, output_tokens=0, cache_read_tokens=1_000)
    assert row["price_status"] == "partial"
    assert (row["list_input_usd"], row["list_cache_read_usd"]) == (Decimal(0), Decimal("0.00125"))


def test_cached_audio_is_partial_until_its_overlap_is_known():
    realtime = {
        "provider": "openai",
        "model": "gpt-realtime",
        "input_tokens": 1_200,
        "output_tokens": 0,
        "cache_read_tokens": 500,
        "input_audio_tokens": 600,
    }
    assert price_one(**realtime)["price_status"] == "partial"
    row = price_one(**realtime, cache_audio_read_tokens=200)
    # 300 text × 4, 400 audio × 32, 300 cached text × 0.4, 200 cached audio × 0.4
    assert (row["price_status"], row["list_cost_usd"]) == ("priced", Decimal("0.0142"))


@pytest.mark.parametrize("count", [-1, 2**62])
def test_what_cannot_be_a_count_is_unknown(count):
    row = price_one(**{**GPT_4O, "input_tokens": count})
    assert (row["price_status"], row["list_cost_usd"]) == ("partial", Decimal("0.001"))


def test_huge_counts_stay_exact_and_amounts_beyond_the_column_are_unpriced():
    row = price_one(provider="openai", model="o1-pro", input_tokens=0, output_tokens=1_666_666_666)
    assert row["list_cost_usd"] == Decimal("999999.9996")
    assert price_one(provider="openai", model="o1-pro", input_tokens=0, output_tokens=10**12)["list_cost_usd"] is None


def test_rounding_is_half_even_once_and_its_residue_goes_to_the_largest_part():
    book = book_with([{"input_mtok": "0.0000005", "cache_read_mtok": "0.0000005", "output_mtok": "0.0000025"}])
    call = {"provider": "openai", "model": "gpt-4o"}
    priced = book.price(
        frame(
            {**call, "input_tokens": 1, "output_tokens": 0},  # 0.5e-12: to even, down
            {**call, "input_tokens": 3, "output_tokens": 0},  # 1.5e-12: to even, up
            {**call, "input_tokens": 2, "cache_read_tokens": 1, "output_tokens": 2},  # 0.5 + 0.5 + 5
            {**call, "input_tokens": 1, "output_tokens": 1},  # 0.5 + 2.5 = 3, in parts 0 and 2
        )
    )
    pico = [[int(amount.scaleb(12)) for amount in row] for row in priced.select(AMOUNTS).iter_rows()]
    assert pico == [[0, 0, 0, 0, 0, 0], [2, 2, 0, 0, 0, 0], [6, 0, 0, 0, 6, 0], [3, 0, 0, 0, 3, 0]]


def test_prices_with_more_digits_than_can_be_kept_are_refused():
    with pytest.raises(ValueError, match="cannot be kept exactly"):
        book_with([{"input_mtok": "0.0000000000000000001"}])


def test_dates_hours_and_sizes_combine():
    midnight = (NOON.replace(hour=0) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    hour = 3_600_000_000
    book = book_with(
        [{"input_mtok": str(at)} for at in range(12)], dates=(midnight,), clocks=(6 * hour, 18 * hour), sizes=(100,)
    )
    day = NOON.replace(hour=0)
    calls = [
        {**GPT_4O, "output_tokens": 0, "input_tokens": tokens, "started_at": start + at}
        for start in (day - timedelta(days=1), day)
        for at in (timedelta(hours=1), timedelta(hours=6), timedelta(hours=18))
        for tokens in (100, 101)
    ]
    entries = book.price(frame(*calls))["price_entry"].to_list()
    assert entries == [f"openai/gpt-4o {at}" for at in range(12)]


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_and_batching_do_not_change_a_digit(random):
    models = [
        ("openai", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5"),
        ("x", "y"),
        ("openrouter", "google/gemini-3.8-flash"),
    ]
    calls = [
        {
            "provider": provider,
            "model": model,
            "input_tokens": random.choice([None, random.randrange(10**6)]),
            "output_tokens": random.randrange(10**5),
            "cache_write_tokens": random.choice([0, 7]),
        }
        for provider, model in random.choices(models, k=40)
    ]
    together = frame(*calls)
    priced = BOOK.price(together)
    order = random.sample(range(40), 40)
    assert BOOK.price(together[order]).equals(priced[order])
    apart = [BOOK.price(part) for part in together.iter_slices(7)]
    assert pl.concat(apart).equals(priced)


@pytest.mark.parametrize(
    ("provider", "model", "host", "entry"),
    [
        ("azure.ai.openai", "gpt-4o", None, "openai/gpt-4o"),
        ("openai", "gpt-4o", "contoso.openai.azure.com", "openai/gpt-4o"),
        (
            "aws.bedrock",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            None,
            "aws/regional.anthropic.claude-sonnet-4-5",
        ),
        ("gcp.vertex_ai", "gemini-2.5-pro", None, "google/gemini-2.5-pro"),
        ("gcp.gemini", "gemini-2.5-pro", None, "google/gemini-2.5-pro"),
        ("mistral_ai", "mistral-large-latest", None, "mistral/mistral-large"),
        ("x_ai", "grok-4", None, "x-ai/grok-4"),
        ("openai.responses", "gpt-4o", None, "openai/gpt-4o"),
        ("openai.chat", "llama-3.3-70b-versatile", "api.groq.com", "groq/llama-3.3-70b-versatile"),
        ("azure-openai.chat", "gpt-4o", None, "openai/gpt-4o"),
        ("openai", "llama-3.3-70b-versatile", "api.groq.com:443", "groq/llama-3.3-70b-versatile"),
        ("anthropic", "glm-4.6", "api.z.ai", "zai/GLM-4.6"),
        ("litellm", "anthropic/claude-sonnet-4-5", None, "anthropic/claude-sonnet-4-5"),
        ("openai", "openai/gpt-4o", None, "openai/gpt-4o"),
        (None, "claude-sonnet-4-5", None, "anthropic/claude-sonnet-4-5"),
        ("strands-agents", "gpt-4o", "gateway.internal", "openai/gpt-4o"),
        (None, "gpt-4o", "api.openai.com", "openai/gpt-4o"),
    ],
)
def test_calls_find_their_price_list_by_provider_endpoint_and_name(provider, model, host, entry):
    found = price_one(provider=provider, model=model, endpoint_host=host, input_tokens=1, output_tokens=1)
    assert found["price_entry"].startswith(entry)


def test_the_same_model_has_another_price_at_another_host():
    call = {"model": "openai/gpt-oss-120b", "provider": "openai", "input_tokens": 10**6, "output_tokens": 0}
    groq, baseten = (price_one(**{**call, "endpoint_host": h}) for h in ("api.groq.com", "inference.baseten.co"))
    assert groq["price_entry"].startswith("groq/")
    assert baseten["price_entry"].startswith("baseten/")
    assert groq["list_cost_usd"] != baseten["list_cost_usd"]


def test_service_tiers_change_the_price_and_show_in_the_entry():
    call = {"provider": "openai", "model": "gpt-5.4", "input_tokens": 10**5, "output_tokens": 0}
    costs = {tier: price_one(**call, service_tier=tier) for tier in (None, "FLEX", "priority", "batch", "whatever")}
    assert [costs[tier]["list_cost_usd"] for tier in costs] == [Decimal(n) / 1000 for n in (250, 125, 500, 125, 250)]
    assert costs["FLEX"]["price_entry"].endswith("service_tier=flex")
    assert costs["whatever"]["price_entry"] == costs[None]["price_entry"]


def test_a_tier_that_changes_nothing_has_the_standard_entry():
    offers = BOOK.models().select("provider", "model").unique(maintain_order=True)
    entries = {
        tier: BOOK.price(
            offers.with_columns(
                service_tier=pl.lit(tier),
                started_at=pl.lit(NOON, UTC_US),
                input_tokens=pl.lit(1),
                output_tokens=pl.lit(1),
            )
        )["price_entry"]
        for tier in (None, "default", "fast", "flex", "batch")
    }
    for tier, named in entries.items():
        unnamed = ~named.fill_null("").str.contains("=")
        assert named.filter(unnamed).equals(entries[None].filter(unnamed), null_equal=True), tier


def test_service_tiers_are_the_owners_and_not_of_who_resells_the_model():
    call = {"provider": "azure.ai.openai", "model": "gpt-5.4", "input_tokens": 10**5, "output_tokens": 0}
    assert price_one(**call, service_tier="flex") == price_one(**call)


def test_more_combinations_than_are_remembered_are_still_priced():
    calls = pl.DataFrame({"model": [f"gpt-4o-{n}" for n in range(300)] + ["gpt-4o"]}).with_columns(
        provider=pl.lit("openai"), started_at=pl.lit(NOON, UTC_US), input_tokens=pl.lit(2), output_tokens=pl.lit(0)
    )
    assert BOOK.price(calls)["list_cost_usd"][-1] == Decimal("0.000005")


def test_text_and_integer_columns_of_any_arrow_type_are_read():
    calls = frame(GPT_4O)
    narrow = calls.with_columns(
        pl.col("provider").cast(pl.Categorical),
        pl.col("input_tokens").cast(pl.UInt32),
        pl.col("started_at").dt.cast_time_unit("ns"),
        cache_read_tokens=pl.lit(None),
    )
    assert BOOK.price(narrow).equals(BOOK.price(calls))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (pl.col("started_at").dt.replace_time_zone(None), "not an instant in UTC"),
        (pl.lit(None, UTC_US).alias("started_at"), "started_at is null"),
        (pl.lit(1.5).alias("input_tokens"), "token counts are integers"),
    ],
)
def test_frames_that_cannot_be_priced_are_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        BOOK.price(frame(GPT_4O).with_columns(broken))


def test_explain_derives_the_stored_amount_line_by_line():
    explained = BOOK.explain({**GPT_4O, "started_at": NOON, "cache_read_tokens": 300, "ignored": object()})
    assert [(line.kind, line.quantity, str(line.unit_price_usd), line.per) for line in explained.lines] == [
        ("input_tokens", 700, "2.5", 10**6),
        ("cache_read_tokens", 300, "1.25", 10**6),
        ("output_tokens", 100, "10", 10**6),
    ]
    assert explained.list_cost_usd == Decimal("0.003125")
    assert explained.sources[0].startswith("https://")
    assert (explained.provider, explained.price_list, explained.model) == ("openai", "openai", "gpt-4o")


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([("openai", "gpt-4o"), ("openrouter", "google/gemini-3.8-flash"), ("perplexity", "sonar")]),
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
)
def test_explained_lines_and_rounding_add_up_to_the_last_digit(offer, plain, write, output):
    call = {"input_tokens": plain + write, "cache_write_tokens": write, "output_tokens": output}
    explained = BOOK.explain({"provider": offer[0], "model": offer[1], "started_at": NOON, **call})
    for line in explained.lines:
        assert line.quantity * line.unit_price_usd == line.amount_usd * line.per
    exact = sum((line.amount_usd for line in explained.lines), Decimal(0))
    assert exact + explained.rounding_usd == explained.list_cost_usd
    assert abs(explained.rounding_usd) <= Decimal("0.5e-12")


def test_explain_says_from_when_to_when_and_above_what_a_price_holds():
    explained = BOOK.explain(
        {**GPT_4O, "model": "gpt-5.4", "started_at": NOON, "service_tier": "flex", "input_tokens": 272_001}
    )
    assert explained.entry == "openai/gpt-5.4 @2026-10-12 >272000 service_tier=flex"
    assert explained.effective_from == datetime(2026, 10, 12, tzinfo=UTC)
    assert explained.effective_to is None
    assert explained.above_input_tokens == 272_000
    assert explained.variant == ("service_tier=flex",)


def test_explain_says_at_what_hours_a_price_holds():
    plus_two = timezone(timedelta(hours=2))
    at = datetime(2026, 1, 1, 2, 29, 59, tzinfo=plus_two)  # 00:29:59 UTC
    explained = BOOK.explain(
        {"provider": "deepseek", "model": "deepseek-chat", "started_at": at, "input_tokens": 1, "output_tokens": 1}
    )
    assert explained.daily_to == time(0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"model": "gpt-4oo"}, "Close names: .*gpt-4o"),
        ({"model": None}, "names no model"),
        ({"provider": "nobody", "model": "gpt-4o"}, "for provider 'nobody'"),
        ({"model": "whisper-1"}, "not billed by tokens but by audio_hours"),
        ({"output_tokens": None}, "total token count is unknown"),
        ({"cache_read_tokens": 5_000}, "exceeds its total"),
        ({"output_tokens": 10**15}, "does not fit"),
    ],
)
def test_explain_says_why_a_price_is_missing_and_what_to_do(call, reason):
    explained = BOOK.explain({**GPT_4O, "started_at": NOON, **call})
    assert explained.status != "priced"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(explained.reason)


@pytest.mark.parametrize(
    "usage",
    [{}, {"started_at": datetime(2026, 1, 1)}, {"started_at": NOON, "input_tokens": "12"}],  # noqa: DTZ001 - naive on purpose
)
def test_explain_refuses_what_is_not_a_usage(usage):
    with pytest.raises(ValueError, match=r"started_at is|token counts"):
        BOOK.explain(usage)


def test_models_lists_dated_prices_of_a_provider_in_any_spelling():
    listing = BOOK.models("azure.ai.openai")
    assert set(listing["provider"]) == {"azure"}
    row = BOOK.models().filter(pl.col("price_entry") == "openai/gpt-4o").row(0, named=True)
    assert (row["input_usd_per_mtok"], row["output_usd_per_mtok"]) == (Decimal("2.5"), Decimal(10))
    assert row["input_audio_usd_per_mtok"] is None
    assert row["source"].startswith("https://")


def test_models_of_an_unknown_provider_names_those_there_are():
    with pytest.raises(ValueError, match=r"'nobody'; there are anthropic, "):
        BOOK.models("nobody")


def test_a_price_entry_names_one_set_of_prices():
    cells = {}
    for cell in BOOK._lists.rates.cells:
        assert cells.setdefault(cell.label, cell) == cell
    assert BOOK.models()["price_entry"].is_unique().all()
