"""The price book against the library that its data comes from, over everything that the data offers."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import product

import numpy as np
import polars as pl
import pytest
from genai_prices import calc_price, types
from genai_prices.data import providers
from genai_prices.decompose import compute_leaf_values
from genai_prices.units import _get_registry
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.book import PriceBook
from millicent.pricing.rates import KINDS
from millicent.pricing.units import REQUESTS, UNIT

BOOK = PriceBook.bundled()
UNITS = _get_registry()
STORED = Decimal("1e-12")
CONTEXTS = {
    None: None,
    "batch": {"processing": "batch"},
    "default": {"service_tier": "default"},
    "fast": {"service_tier": "fast"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
OURS_FOR_THEIRS = {"output_reasoning_tokens": "reasoning_tokens"}
THEIRS_FOR_OURS = {ours: theirs for theirs, ours in OURS_FOR_THEIRS.items()}
PART_COLUMNS = ("list_input_usd", "list_cache_read_usd", "list_cache_write_usd", "list_output_usd", "list_units_usd")
OFFERED = [(provider, model) for provider in providers for model in provider.models]
US = timedelta(microseconds=1)
WHENS = sorted(
    {item for _, model in OFFERED for variant in model.price_variants or () for item in variant.when.items()}
)
SCHEMA = {
    "service_tier": pl.String,
    "price_context": pl.String,
    "units": pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),
}


def test_every_token_price_in_the_data_has_a_kind():
    kinds = {kind.price_key for kind in KINDS}
    keys = {
        key
        for _, model in OFFERED
        for prices in price_sets(model)
        for key in vars(prices)
        if UNITS.unit_for_price_key(key).dimensions["family"] == "tokens"
    }
    assert keys <= kinds


def test_every_other_unit_of_the_library_is_a_unit_here():
    others = {unit.usage_key: unit for unit in UNITS.units.values() if unit.dimensions["family"] != "tokens"}
    assert others.keys() == UNIT.keys()
    for key, unit in UNIT.items():
        assert (unit.price_key, unit.per) == (others[key].price_key, others[key].per)
        assert set(unit.within) == UNITS.ancestor_usage_keys(key)


def test_kinds_nest_as_in_the_library():
    for kind in KINDS:
        unit = UNITS.unit_for_price_key(kind.price_key)
        within = {UNITS.units[key].price_key for key in UNITS.ancestor_usage_keys(unit.usage_key)}
        known = {other.price_key for other in KINDS}
        assert {other.price_key for other in KINDS if other.column in kind.within} == within & known


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_calls_cost_what_the_library_says(seed):
    assert_as_library(random_calls(seed, 3_000))


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_calls_with_unknown_and_contradictory_counts_are_partial_where_the_library_refuses(seed):
    calls = random_calls(seed, 2_000)
    rng = np.random.default_rng(seed)
    for name in [kind.column for kind in KINDS if kind.column in calls.columns]:
        odd = pl.Series(rng.integers(0, 20, len(calls)))
        calls = calls.with_columns(
            pl.when(odd == 0).then(None).when(odd == 1).then(pl.col(name) * 3).otherwise(pl.col(name)).alias(name)
        )
    priced = BOOK.price(calls)
    for call, row in zip(calls.to_dicts(), priced.to_dicts(), strict=True):
        total, prices = library(call)
        if isinstance(total, ValueError):
            assert row["price_status"] == "partial", call
        elif total is not None and row["price_status"] == "priced":
            assert row["list_cost_usd"] == total, call
        elif row["price_status"] == "partial" and not uncovered(call, prices):
            assert call["input_tokens"] is None or call["output_tokens"] is None, call
        if prices is not None and row["list_cost_usd"] is not None:
            assert_sums(row)


def test_every_price_change_holds_from_its_first_microsecond():
    calls = [
        call(provider, model, instant + offset * US)
        for provider, model in OFFERED
        for instant in change_instants(model)
        for offset in (-1, 0, 1)
    ]
    assert len(calls) > 500
    assert_as_library(pl.DataFrame(calls, infer_schema_length=None, schema_overrides=SCHEMA))


def test_every_tier_holds_from_the_first_token_above_it():
    calls = [
        {**call(provider, model, datetime(2026, 10, 20, tzinfo=UTC)), "input_tokens": start + offset}
        for provider, model in OFFERED
        for start in {
            tier.start
            for prices in price_sets(model)
            for price in vars(prices).values()
            if isinstance(price, types.TieredPrices)
            for tier in price.tiers
        }
        for offset in (-1, 0, 1)
    ]
    assert len(calls) > 300
    assert_as_library(pl.DataFrame(calls, infer_schema_length=None, schema_overrides=SCHEMA))


@pytest.mark.parametrize("told_as", ["price_context", "service_tier"])
def test_every_variant_of_every_model(told_as):
    days = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 10, 20, tzinfo=UTC))
    calls = []
    for provider, model in OFFERED:
        if not model.price_variants:
            continue
        keys = sorted({key for variant in model.price_variants for key in variant.when})
        values = [[None, "none", *(v for k, v in WHENS if k == key)] for key in keys]
        contexts = [
            ",".join(f"{key}={value}" for key, value in zip(keys, chosen, strict=True) if value is not None)
            for chosen in product(*values)
        ]
        for told in contexts if told_as == "price_context" else CONTEXTS:
            calls += [{**call(provider, model, day), told_as: told} for day in days]
    assert len(calls) > 1_000
    assert_as_library(pl.DataFrame(calls, infer_schema_length=None, schema_overrides=SCHEMA))


def test_variants_that_no_service_tier_stands_for_are_reached_and_cost_something_else():
    reached = set()
    for provider, model in OFFERED:
        for variant in model.price_variants or ():
            searches = [{"key": "web_searches", "value": 3}]
            asked = {**call(provider, model, datetime(2026, 10, 20, tzinfo=UTC)), "units": searches}
            plain, varied = (
                BOOK.price(pl.DataFrame([{**asked, "price_context": told}], schema_overrides=SCHEMA)).row(0, named=True)
                for told in (None, ",".join(f"{key}={value}" for key, value in variant.when.items()))
            )
            if plain["list_cost_usd"] != varied["list_cost_usd"]:
                reached.update(variant.when)
    assert reached >= {"processing", "route", "search_type", "service_tier", "speed"}


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_unit_of_every_model_costs_what_the_library_says(seed):
    rng = np.random.default_rng(seed)
    calls = []
    for provider, model in OFFERED:
        keys = {UNITS.unit_for_price_key(key).usage_key for prices in price_sets(model) for key in vars(prices)}
        if billed := sorted(keys & UNIT.keys() - {REQUESTS}):
            for told in (billed, *([key] for key in billed)):
                units = [{"key": key, "value": int(rng.choice([0, 1, 7, 12, 4_321]))} for key in told]
                calls.append({**call(provider, model, datetime(2026, 10, 20, tzinfo=UTC)), "units": units})
    assert len(calls) > 250
    assert_as_library(pl.DataFrame(calls, infer_schema_length=None, schema_overrides=SCHEMA))


def random_calls(seed, rows):
    """Consistent usages: parts lie inside their totals, and modalities inside the parts."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(OFFERED), rows)
    total = np.exp(rng.uniform(0, np.log(3e6), rows)).astype(np.int64) - 1

    def share_of(counts):
        return (counts * rng.choice([0, 0, 0.2, 0.7, 1], rows) * rng.random(rows)).astype(np.int64)

    audio = np.where(rng.random(rows) < 0.1, share_of(total), 0)
    text = total - audio
    read = np.where(audio > 0, 0, share_of(text))
    write = share_of(text - read)
    output = np.exp(rng.uniform(0, np.log(1e5), rows)).astype(np.int64)
    start = datetime(2023, 6, 1, tzinfo=UTC)
    contexts = [None, None, *(f"{key}={value}" for key, value in WHENS), *(f"{k}={v},speed=fast" for k, v in WHENS)]
    keys = [key for key in UNIT if key != REQUESTS and not UNIT[key].within]
    return pl.DataFrame(
        {
            "provider": [OFFERED[at][0].id for at in drawn],
            "model": [OFFERED[at][1].id for at in drawn],
            "service_tier": pl.Series(list(CONTEXTS), dtype=pl.String).gather(rng.integers(0, len(CONTEXTS), rows)),
            "price_context": pl.Series(contexts, dtype=pl.String).gather(rng.integers(0, len(contexts), rows)),
            "units": [
                [{"key": str(key), "value": int(rng.integers(0, 50))} for key in rng.choice(keys, 2, replace=False)]
                if rng.random() < 0.1
                else None
                for _ in range(rows)
            ],
            "started_at": [start + int(us) * US for us in rng.integers(0, int(timedelta(days=1_400) / US), rows)],
            "input_tokens": total,
            "cache_read_tokens": read,
            "cache_write_tokens": write,
            "cache_write_1h_tokens": share_of(write),
            "input_audio_tokens": audio,
            "output_tokens": output,
            "reasoning_tokens": share_of(output),
        },
        schema_overrides=SCHEMA,
    )


def call(provider, model, started_at):
    return {
        "provider": provider.id,
        "model": model.id,
        "service_tier": None,
        "price_context": None,
        "units": None,
        "started_at": started_at,
        "input_tokens": 1_009,
        "cache_read_tokens": 307,
        "cache_write_tokens": 211,
        "cache_write_1h_tokens": 97,
        "output_tokens": 401,
    }


def assert_as_library(calls):
    priced = BOOK.price(calls)
    for call, row in zip(calls.to_dicts(), priced.to_dicts(), strict=True):
        total, prices = library(call)
        if isinstance(total, ValueError):
            assert row["price_status"] == "partial", call
            continue
        if total is None or not bills(call, prices):
            assert row["price_status"] == "unpriced", call
            assert row["list_cost_usd"] is None
            assert row["price_entry"] is None
            continue
        status = "partial" if uncovered(call, prices) else "priced"
        assert (row["price_status"], row["list_cost_usd"]) == (status, total), call
        assert row["billed_cost_usd"] == total
        assert_sums(row)
        for name, expected in part_amounts(call, prices).items():
            assert abs(row[name] - expected) < 2 * STORED, (name, call)


def assert_sums(row):
    known = [row[name] for name in PART_COLUMNS if row[name] is not None]
    assert sum(known, Decimal(0)) == row["list_cost_usd"]


def library(call):
    """The library's rounded total and the prices it used; None, None without a model; its refusal as a value."""
    usage = usage_of(call)
    told = dict(one.split("=") for one in (call["price_context"] or "").split(",") if one)
    context = {**(CONTEXTS[call["service_tier"]] or {}), **told}
    try:
        result = calc_price(
            types.Usage(**usage),
            call["model"],
            provider_id=call["provider"],
            genai_request_timestamp=call["started_at"],
            price_context=context,
        )
    except LookupError:
        return None, None
    except ValueError as refusal:
        return refusal, None
    return result.total_price.quantize(STORED, ROUND_HALF_EVEN), result.model_price


def usage_of(call):
    tokens = {THEIRS_FOR_OURS.get(name, name): call[name] for name in call if name.endswith("_tokens")}
    return tokens | units_of(call)


def units_of(call):
    return {one["key"]: one["value"] for one in call["units"] or ()}


def price_keys(prices):
    return {key for key, price in vars(prices).items() if price is not None}


def covers(key, prices):
    return not price_keys(prices) or any(UNIT[one].price_key in price_keys(prices) for one in (key, *UNIT[key].within))


def uncovered(call, prices):
    """Units that the call has and the library has no price for: it bills nothing for them, we say so."""
    return [key for key, count in units_of(call).items() if count and not covers(key, prices)]


def bills(call, prices):
    keys = price_keys(prices)
    by_call = not keys or any(key.endswith("_mtok") or key == UNIT[REQUESTS].price_key for key in keys)
    return by_call or any(covers(key, prices) for key in units_of(call))


def part_amounts(call, prices):
    """Unrounded amounts per part, by the library's own decomposition and plain `Decimal`."""
    priced = {UNITS.unit_for_price_key(key).usage_key: key for key, price in vars(prices).items() if price is not None}
    seconds = units_of(call).get("audio_seconds") or units_of(call).get("input_audio_seconds", 0)
    if call["provider"] == "groq" and seconds and "audio_seconds" in priced:  # billed as at least ten seconds
        call = {
            **call,
            "units": [{"key": key, "value": max(10, seconds)} for key in ("audio_seconds", "input_audio_seconds")],
        }
    leaves = compute_leaf_values(set(priced) - {"requests"}, types.Usage(**usage_of(call)), UNITS.units)
    amounts = dict.fromkeys(PART_COLUMNS, Decimal(0))
    for usage_key, price_key in priced.items():
        price = getattr(prices, price_key)
        if isinstance(price, types.TieredPrices):
            reached = [tier.price for tier in price.tiers if call["input_tokens"] > tier.start]
            price = reached[-1] if reached else price.base
        unit = UNITS.units[usage_key]
        kind = unit.dimensions.get("token_type")
        part = kind if kind in {"cache_read", "cache_write"} else unit.dimensions.get("direction")
        part = part if unit.dimensions["family"] == "tokens" else "units"
        amounts[f"list_{part}_usd"] += price * leaves.get(usage_key, 1) / unit.per
    return amounts


def price_sets(model):
    conditions = model.prices if isinstance(model.prices, list) else [types.ConditionalPrice(prices=model.prices)]
    return [each.prices for each in (*conditions, *(model.price_variants or ()))]


def change_instants(model):
    """Instants around which the model's price may change: start dates, and daily hours of one day."""
    for condition in (*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())):
        match condition.constraint:
            case types.StartDateConstraint(start_date=day):
                yield datetime.combine(day, time(), tzinfo=UTC)
            case types.TimeOfDateConstraint(start_time=start, end_time=end):
                for day in (date(2025, 1, 20), date(2026, 10, 20)):
                    yield from (datetime.combine(day, clock).astimezone(UTC) for clock in (start, end))


def test_the_oracle_sees_both_known_and_unknown_models():
    calls = random_calls(1, 2_000)
    assert {"priced", "unpriced"} <= set(BOOK.price(calls)["price_status"].unique())
    with pytest.raises(LookupError):
        calc_price(types.Usage(input_tokens=1), "no-such-model", provider_id="openai")
