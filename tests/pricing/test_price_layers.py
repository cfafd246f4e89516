import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import Charge, FxRate, Override, Term
from millicent.pricing.hours import HORIZON

BOOK = PriceBook.bundled()
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
SAID = {"effective_from": datetime(2025, 1, 1, tzinfo=UTC), "source": "contract 2026-17"}
ACME = {"provider": "acme", "model": "acme-7b", "started_at": NOON, "input_tokens": 10**6, "output_tokens": 0}
GPT = {"provider": "openai", "model": "gpt-4o", "started_at": NOON, "input_tokens": 10**6, "output_tokens": 10**5}
SCHEMA = {"started_at": pl.Datetime("us", "UTC"), "units": pl.List(pl.Struct({"key": pl.String, "value": pl.Int64}))}


def price(own, call):
    units = [{"key": key, "value": value} for key, value in call.get("units", {}).items()]
    frame = pl.DataFrame([{**call, "units": units}], schema_overrides=SCHEMA)
    return BOOK.with_own(own).price(frame).row(0, named=True)


def acme(usd, **members):
    """A price for a million input tokens of acme-7b."""
    return Override(**{"model": "acme-7b", "prices": {"input_mtok": Decimal(usd)}, **SAID, **members})


def cost(own, **changed):
    return price(own, {**ACME, **changed})["list_cost_usd"]


def test_a_private_model_has_the_price_of_its_override_and_names_it():
    row = price([acme(2, id=12, provider="acme")], ACME)
    assert (row["list_cost_usd"], row["billed_cost_usd"], row["price_status"]) == (2, 2, "priced")
    assert row["price_entry"] == "override 12 acme/acme-7b @2025-01-01"


def test_an_override_is_the_whole_price_list_while_it_holds():
    own = [Override(model="gpt-4o", prices={"input_mtok": Decimal(1)}, effective_to=NOON, **SAID)]
    assert price(own, {**GPT, "started_at": NOON - US})["list_cost_usd"] == 1  # output has no price there
    assert price(own, GPT)["list_cost_usd"] == Decimal("3.5")


def test_a_price_changes_in_the_middle_of_a_day_at_the_very_instant():
    own = [acme(1, id=1), acme(2, id=2, effective_from=NOON)]
    assert [cost(own, started_at=NOON + at * US) for at in (-1, 0, 1)] == [1, 2, 2]


def test_what_was_known_later_corrects_the_past_and_what_was_known_then_still_can_be_asked():
    told = acme(1, id=1, known_from=datetime(2025, 1, 1, tzinfo=UTC))
    corrected = acme(3, id=2, effective_to=NOON, known_from=datetime(2026, 6, 1, tzinfo=UTC))
    assert cost([told, corrected], started_at=NOON - US) == 3
    assert cost([told, corrected], started_at=NOON) == 1
    assert cost([told], started_at=NOON - US) == 1


@pytest.mark.parametrize(
    ("at", "holds"),
    [
        ("2025-03-29T20:59:59Z", False),
        ("2025-03-29T21:00:00Z", True),  # 22:00 in winter
        ("2025-03-30T03:59:59Z", True),  # 05:59:59, an hour of this night is skipped
        ("2025-03-30T04:00:00Z", False),  # 06:00 in summer
        ("2025-03-30T19:59:59Z", False),
        ("2025-03-30T20:00:00Z", True),  # 22:00 in summer
        ("2025-10-26T04:59:59Z", True),  # 05:59:59, an hour of this night came twice
        ("2025-10-26T05:00:00Z", False),
        ("2025-10-26T20:30:00Z", False),
    ],
)
def test_hours_follow_the_wall_clock_on_days_that_clocks_change(at, holds):
    own = [acme(1, daily_from=time(22), daily_to=time(6), zone="Europe/Berlin"), acme(5)]
    assert cost(own, started_at=datetime.fromisoformat(at)) == (1 if holds else 5)


def test_a_time_of_day_that_comes_twice_has_its_price_twice():
    own = [acme(1, daily_from=time(2), daily_to=time(2, 30), zone="Europe/Berlin"), acme(5)]
    night = datetime(2025, 10, 26, tzinfo=UTC)
    halves = [cost(own, started_at=night + half * timedelta(minutes=30)) for half in range(4)]
    assert halves == [1, 5, 1, 5]


def test_after_the_horizon_the_last_offset_stays():
    own = [acme(1, daily_from=time(12), daily_to=time(13), zone="Europe/Berlin"), acme(5)]
    summer = HORIZON.replace(month=7, hour=11)
    assert [cost(own, started_at=summer + at) for at in (-US, timedelta())] == [5, 1]


SPECIFIC = [
    {"model": None},
    {"model": None, "provider": "acme"},
    {"model": None, "service_tier": "flex"},
    {"model": None, "region": "eu"},
    {"model": None, "endpoint_host": "api.acme.dev"},
    {"model": "acme*"},
    {"model": "acme-*"},
    {"model": "acme-*", "provider": "acme"},
    {"model": "acme-7b"},
    {"model": "acme-7b", "provider": "acme"},
    {"model": "acme-7b", "service_tier": "flex"},
    {"model": "acme-7b", "service_tier": "flex", "provider": "acme"},
    {"model": "acme-7b", "region": "EU"},
    {"model": "acme-7b", "region": "eu", "service_tier": "flex"},
    {"model": "acme-7b", "endpoint_host": "api.acme.dev"},
    {"model": "acme-7b", "endpoint_host": "api.acme.dev", "provider": "acme"},
]


@pytest.mark.parametrize("turned", [False, True])
def test_the_more_specific_entry_decides_whichever_came_first(turned):
    call = {**ACME, "endpoint_host": "api.acme.dev:443", "region": "eu", "service_tier": "flex"}
    base = acme(1, id=99)
    for less in range(len(SPECIFIC) - 1):
        pair = [Term(percent_off=Decimal(10 * (at + 1)), id=at + 1, **SPECIFIC[less + at], **SAID) for at in (0, 1)]
        own = [base, *(pair[::-1] if turned else pair)]
        assert price(own, call)["billed_cost_usd"] == Decimal("0.8"), SPECIFIC[less + 1]
        assert price(own, call)["price_entry"].endswith("term 2")


@settings(deadline=None)
@given(st.text("ab*", min_size=1, max_size=7).filter(lambda text: "*" in text), st.text("ab", min_size=1, max_size=9))
def test_a_star_in_a_model_stands_for_any_text(pattern, model):
    expected = re.fullmatch(pattern.replace("*", ".*"), model) is not None
    assert (cost([acme(1, model=pattern)], model=model) == 1) is expected


def test_a_pattern_of_many_stars_is_decided_at_once():
    assert cost([acme(1, model="*a" * 120 + "*b")], model="a" * 256) is None


def test_hours_are_more_specific_than_the_whole_day():
    own = [acme(1, id=1, daily_from=time(11), daily_to=time(13)), acme(5, id=2)]
    assert cost(own) == 1
    assert cost(own, started_at=NOON.replace(hour=13)) == 5


@pytest.mark.parametrize(
    ("call", "holds"),
    [
        ({"provider": "openai.chat"}, True),
        ({"provider": "OpenAI", "model": "gpt-4o-2024-08-06"}, True),
        ({"provider": "openai", "endpoint_host": "contoso.openai.azure.com"}, False),
        ({"provider": "azure.ai.openai"}, False),
        ({"provider": None}, True),  # the model's name says whose it is
        ({"model": "gpt-4o-mini"}, False),
    ],
)
def test_entries_match_calls_by_the_names_of_the_price_data_too(call, holds):
    own = [Term(provider="openai", model="gpt-4o", percent_off=Decimal(50), **SAID)]
    row = price(own, {**GPT, **call})
    assert (row["billed_cost_usd"] * 2 == row["list_cost_usd"]) is holds


def test_a_tier_is_matched_as_told_and_as_it_is_priced():
    own = [Term(service_tier="batch", percent_off=Decimal(50), **SAID)]
    for told in ({"service_tier": "Batch"}, {"price_context": "processing=batch"}):
        row = price(own, {**GPT, **told})
        assert row["billed_cost_usd"] * 2 == row["list_cost_usd"]


def test_terms_change_the_billed_cost_and_never_the_list_cost():
    own = [
        Term(id=1, percent_off=Decimal(10), **SAID),
        Term(id=2, model="gpt-4o", prices={"input_mtok": Decimal(2)}, **SAID),
    ]
    row, plain = price(own, GPT), price([], GPT)
    listed = [name for name in row if name.startswith(("list_", "cache_"))]
    assert [row[name] for name in listed] == [plain[name] for name in listed]
    assert row["billed_cost_usd"] == Decimal("2.9")  # input by contract, output at a tenth less
    assert row["price_entry"] == "openai/gpt-4o term 1 term 2"


def test_a_term_for_some_prices_leaves_the_others_at_list():
    own = [Term(percent_off=Decimal(100), keys=("output_mtok",), **SAID)]
    assert price(own, GPT)["billed_cost_usd"] == Decimal("2.5")


def test_a_contract_can_price_what_the_list_does_not_price_apart():
    own = [acme(2), Term(model="acme-7b", prices={"cache_read_mtok": Decimal("0.5")}, **SAID)]
    row = price(own, {**ACME, "cache_read_tokens": 10**6})
    assert (row["list_cost_usd"], row["billed_cost_usd"]) == (2, Decimal("0.5"))


EUR = {"currency": "EUR", "source": "ECB"}


def test_a_price_in_another_currency_follows_its_dated_rates():
    rates = [
        FxRate(usd_per_unit=Decimal("1.1"), effective_from=NOON - US, **EUR),
        FxRate(usd_per_unit=Decimal("1.2"), effective_from=NOON + US, **EUR),
    ]
    own = [acme(2, currency="EUR", id=4), *rates]
    rows = [price(own, {**ACME, "started_at": NOON + at * US}) for at in (-2, -1, 0, 1)]
    assert [row["list_cost_usd"] for row in rows] == [None, Decimal("2.2"), Decimal("2.2"), Decimal("2.4")]
    assert [row["price_status"] for row in rows] == ["unpriced", "priced", "priced", "priced"]
    assert rows[-1]["price_entry"] == "override 4 acme-7b @2025-01-01 EUR@2026-05-20T12:00:00.000001Z"


def test_without_a_rate_the_reason_says_which_and_what_to_do():
    why = BOOK.with_own([acme(2, currency="EUR", id=4)]).explain(ACME)
    assert (why.status, why.list_cost_usd, why.billed_cost_usd, why.entry) == ("unpriced", None, None, None)
    assert why.reason == (
        "override 4 is in EUR, and there is no rate of EUR at 2026-05-20T12:00:00Z: add an fx_rate that begins no later"
    )


def test_a_contract_without_a_rate_leaves_the_billed_cost_unknown_and_the_list_cost_known():
    own = [Term(id=7, prices={"input_mtok": Decimal(2)}, currency="EUR", **SAID)]
    row = price(own, GPT)
    assert (row["price_status"], row["list_cost_usd"], row["billed_cost_usd"]) == ("priced", Decimal("3.5"), None)
    assert "term 7 is in EUR" in BOOK.with_own(own).explain(GPT).reason


def test_a_converted_unit_price_keeps_18_decimals_and_says_so():
    rate = FxRate(usd_per_unit=Decimal("1.000000000000000005"), effective_from=SAID["effective_from"], **EUR)
    book = BOOK.with_own([acme("0.5", currency="EUR"), rate])
    (line,) = book.explain(ACME).lines
    assert line.unit_price_usd == Decimal("0.500000000000000002")  # half-even
    assert line.how == "0.5 EUR × 1.000000000000000005 USD (2025-01-01), half-even to 18 decimals"
    assert book.explain(ACME).fx == (rate,)


def test_a_call_on_own_hardware_has_the_list_price_of_the_model_that_it_is_like_and_bills_nothing():
    own = [
        Override(id=3, provider="vllm", model="llama-*", like="groq/llama-3.3-70b-versatile", **SAID),
        Term(percent_off=Decimal(5), **SAID),
    ]
    call = {**ACME, "provider": "vllm", "model": "Llama-70B-ours", "billing": "self_hosted"}
    there = price([], {**call, "provider": "groq", "model": "llama-3.3-70b-versatile", "billing": "api"})
    row = price(own, call)
    assert row["list_cost_usd"] == there["list_cost_usd"] > 0
    assert row["billed_cost_usd"] == 0
    assert row["price_entry"] == f"override 3 vllm/llama-* @2025-01-01 like {there['price_entry']}"
    assert price([], call)["billed_cost_usd"] == 0


def test_a_price_like_another_has_its_dates_sizes_and_variants_and_can_be_a_part_of_it():
    own = [Override(model="ours", like="openai/gpt-5.4", multiply=Decimal("0.25"), **SAID)]
    for told in ({}, {"service_tier": "flex"}, {"input_tokens": 300_000}, {"price_context": "processing=batch"}):
        call = {**GPT, "model": "gpt-5.4", "started_at": datetime(2026, 10, 20, tzinfo=UTC), **told}
        ours = price(own, {**call, "provider": "vllm", "model": "ours"})
        assert ours["list_cost_usd"] * 4 == price([], call)["list_cost_usd"]


def test_units_and_fees_per_request_are_a_part_of_their_own():
    row = price([], {**GPT, "units": {"web_searches": 3, "storage_searches": 2}})
    assert row["list_units_usd"] == Decimal("0.035")
    assert row["list_cost_usd"] == Decimal("3.535")
    fee = price([], {**GPT, "provider": "perplexity", "model": "sonar"})
    assert (fee["list_units_usd"], fee["list_input_usd"]) == (Decimal("0.012"), 1)


def test_what_is_billed_by_the_hour_is_rounded_once_and_explained():
    call = {"provider": "openai", "model": "whisper-1", "started_at": NOON, "units": {"audio_seconds": 7}}
    assert price([], call)["list_cost_usd"] == Decimal("0.0007")
    odd = {**call, "provider": "groq", "model": "whisper-large-v3-turbo", "units": {"audio_seconds": 13}}
    why = BOOK.explain(odd)
    assert why.list_cost_usd == Decimal("0.000144444444")  # 13 × 0.04 ÷ 3600
    assert [(line.kind, line.quantity, line.per) for line in why.lines] == [("input_audio_seconds", 13, 3600)]
    assert sum(line.amount_usd for line in why.lines) + why.rounding_usd == why.list_cost_usd
    short = {**odd, "units": {"audio_seconds": 3}}
    assert BOOK.explain(short).lines[0].quantity == 10  # they bill ten seconds at least


@pytest.mark.parametrize("units", [{"social_searches": 1}, {"moon_landings": 1}, {"web_searches": -1}])
def test_a_unit_that_nothing_prices_makes_the_call_partial(units):
    row = price([], {**GPT, "units": units})
    assert (row["price_status"], row["list_cost_usd"]) == ("partial", Decimal("3.5"))
    assert "some have no price" in BOOK.explain({**GPT, "units": units}).reason


def test_a_unit_of_which_there_were_none_needs_no_price():
    assert price([], {**GPT, "units": {"social_searches": 0}})["price_status"] == "priced"


def test_own_entries_share_what_is_compiled_and_show_in_the_version():
    term, fee = Term(percent_off=Decimal(5), **SAID), Charge(name="fee", type="fee", amount_usd=Decimal(9), **SAID)
    book = BOOK.with_own([term])
    assert book.version.startswith(f"{BOOK.version} + ")
    assert BOOK.with_own([fee]).version == book.with_own([]).version == BOOK.version
    assert BOOK.with_own([term, fee]).version == book.version
    assert book._lists is BOOK._lists


def test_a_book_is_safe_from_many_threads():
    own = [acme(n + 1, model=f"m-{n}", id=n) for n in range(160)]
    frames = [pl.DataFrame([{**ACME, "model": f"m-{n}"} for n in range(at, 160, 8)]) for at in range(8)] * 4
    alone, shared = BOOK.with_own(own), BOOK.with_own(own)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(shared.price, frames))
    assert all(one.equals(alone.price(frame)) for one, frame in zip(together, frames, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900), st.none() | st.integers(1, 400), st.integers(1, 9)), max_size=5))
def test_a_history_is_consecutive_and_true_on_every_first_and_last_instant(spans):
    start = datetime(2024, 6, 1, tzinfo=UTC)
    own = [
        Override(
            model="gpt-5", prices={"input_mtok": Decimal(usd)}, effective_from=start + timedelta(days=day), source="s",
            effective_to=None if length is None else start + timedelta(days=day + length), id=at,
        )
        for at, (day, length, usd) in enumerate(spans)
    ]  # fmt: skip
    book = BOOK.with_own(own)
    rows = book.history("openai", "gpt-5").to_dicts()
    assert rows[0]["from"] is rows[-1]["to"] is None
    assert [row["to"] for row in rows[:-1]] == [row["from"] for row in rows[1:]]
    for row in rows:
        last = NOON if row["to"] is None else row["to"] - US
        for at in (row["from"] or last, max(last, row["from"] or last)):
            why = book.explain({**GPT, "model": "gpt-5", "started_at": at, "input_tokens": 1})
            assert (why.entry, why.lines[0].unit_price_usd) == (row["price_entry"], row["input_usd_per_mtok"])
            assert row["kind"] == ("override" if why.override else "bundled")


def test_a_history_says_at_what_hours_its_prices_hold():
    day, night = acme(5), acme(1, daily_from=time(22), daily_to=time(6), zone="Europe/Berlin")
    *_, now = BOOK.with_own([day, night]).history("acme", "acme-7b").to_dicts()
    assert (now["input_usd_per_mtok"], now["hours"], now["kind"]) == (
        5,
        "outside 22:00-06:00 Europe/Berlin",
        "override",
    )
    assert BOOK.history("openai", "no-such-model").is_empty()


@pytest.mark.parametrize(
    ("provider", "model", "best"),
    [
        ("openai", "gpt-4oo", "openai/gpt-4o"),
        ("mistral_ai", "mistral-large-9", "mistral/mistral-large"),
        (None, "Claude-Sonnet_4.5", "anthropic/claude-sonnet-4-5"),
    ],
)
def test_close_names_are_suggested_best_first(provider, model, best):
    assert BOOK.suggest(provider, model)[0] == best
    assert best.split("/")[1] in BOOK.explain({**GPT, "provider": provider or "x", "model": model}).reason


def test_nothing_is_suggested_for_a_name_like_no_other():
    assert BOOK.suggest("openai", "zzz") == BOOK.suggest("openai", None) == []


def test_entries_that_cannot_work_are_told_before_they_are_stored():
    own = [
        Override(id=1, model="a", like="openai/gpt-9000", **SAID), acme(1, currency="EUR"),
        FxRate(usd_per_unit=Decimal(1), effective_from=NOON, **EUR),
    ]  # fmt: skip
    unlisted, early = BOOK.with_own(own).problems()
    assert "override 1 of a: like 'openai/gpt-9000' is on no price list" in unlisted
    assert "no rate of EUR from 2025-01-01 on" in early
    assert "does not have: correct it" in BOOK.with_own(own).explain({**ACME, "model": "a"}).reason
