"""Where an hour of own hardware goes: every part, by every method, adds up to the bill, to the last digit."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.pricing.allocation import (
    Bill,
    EngineTokens,
    PhaseTime,
    Pools,
    Serving,
    Tokens,
    Weights,
    allocate_hour,
    unseen,
)
from millicent.pricing.hardware import Owned, Preset, hourly_cost
from millicent.pricing.idle import carriers

DIGIT = Fraction(1, 10**24)


def bill(usd="32", **energy):
    return Bill(fixed_usd=Decimal(usd), **{name: Decimal(value) for name, value in energy.items()})


def tokens(uncached=0, cached=0, output=0):
    return Tokens(uncached_input=uncached, cached_input=cached, output=output)


# ---- what happened in an hour, as it comes

money = st.decimals(0, 10**7, places=24, allow_nan=False)
counts = st.integers(0, 10**9)
seen = st.builds(Tokens, uncached_input=counts, cached_input=counts, output=counts)
counters = st.none() | counts
engines = st.none() | st.builds(
    EngineTokens, input=counters, uncached_input=counters, cached_input=counters, output=counters
)
took = st.decimals(0, 3600, places=3, allow_nan=False)
at_once = st.decimals("0.5", 64, places=2, allow_nan=False)
phases = st.none() | st.builds(
    PhaseTime, prefill_seconds=took, decode_seconds=took, prefill_concurrency=at_once, decode_concurrency=at_once
)
weights = st.builds(
    Weights, uncached_input=st.integers(0, 5000), cached_input=st.integers(0, 1000), output=st.integers(0, 40_000)
)
servings = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(Serving, seen=seen, counted=engines, phases=phases, weights=weights),
    max_size=3,
)


@st.composite
def hours(draw):
    elapsed = draw(st.integers(0, 3600))
    cuts = sorted(draw(st.lists(st.integers(0, elapsed), min_size=3, max_size=3)))
    busy, unavailable, unobserved = cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1]
    return {
        "elapsed_seconds": elapsed,
        "busy_seconds": busy,
        "unavailable_seconds": unavailable,
        "unobserved_seconds": unobserved,
    }


@st.composite
def bills(draw):
    joules = draw(st.none() | st.decimals(0, 10**9, places=3, allow_nan=False))
    idle = None if joules is None else draw(st.none() | st.decimals(0, joules, places=3, allow_nan=False))
    return Bill(
        fixed_usd=draw(money), hosting_usd=draw(money), energy_usd=draw(money), joules=joules, idle_joules=idle,
        gco2e_g=draw(st.none() | money), market_gco2e_g=draw(st.none() | money),
    )  # fmt: skip


@st.composite
def pools(draw, busy):
    prefill, decode = draw(st.integers(0, 64)), draw(st.integers(1, 64))
    seconds = st.none() | st.integers(0, busy)
    return Pools(prefill=prefill, decode=decode, prefill_busy_seconds=draw(seconds), decode_busy_seconds=draw(seconds))


@st.composite
def allocations(draw):
    cost, hour, serving = draw(bills()), draw(hours()), draw(servings)
    apart = draw(st.none() | pools(hour["busy_seconds"]))
    cached = draw(st.sampled_from(["free", "fraction", "full"]))
    return cost, hour, serving, allocate_hour(cost, serving, **hour, pools=apart, cached=cached)


def splits(found):
    return [one for one in (found.usd, found.energy_usd, found.joules, found.gco2e, found.market_gco2e) if one]


def exact(amount):
    assert amount.as_tuple().exponent >= -24
    return Fraction(amount)


# ---- conservation


@given(allocations())
def test_busy_idle_unavailable_and_untracked_are_the_bill_to_the_last_digit(case):
    cost, _, _, found = case
    totals = [
        Fraction(cost.fixed_usd) + Fraction(cost.hosting_usd) + Fraction(cost.energy_usd),
        *(
            Fraction(one)
            for one in (cost.energy_usd, cost.joules, cost.gco2e_g, cost.market_gco2e_g)
            if one is not None
        ),
    ]
    told = splits(found)
    assert len(told) == len(totals)
    for split, total in zip(told, totals, strict=True):
        parts = [exact(one) for one in (split.busy, split.idle, split.unavailable, split.untracked)]
        assert sum(parts) == exact(split.total) == total
        assert min(parts) >= 0


@given(allocations())
def test_what_tokens_carry_is_rate_times_weight_and_their_sum_is_busy(case):
    *_, found = case
    for split in splits(found):
        for name, weight in found.seen.items():
            input_rate, output_rate = split.rates[name]
            carried = Fraction(input_rate or 0) * weight.input + Fraction(output_rate or 0) * weight.output
            assert exact(split.carried[name]) == carried
            assert input_rate is not None or not weight.input
            assert output_rate is not None or not weight.output
        assert sum(map(exact, split.carried.values())) == exact(split.busy)
        assert sum(map(exact, split.unseen.values())) <= exact(split.untracked)


@given(allocations())
def test_energy_is_a_part_of_the_cost_everywhere(case):
    *_, found = case
    for name in ("busy", "unavailable", "untracked", "idle"):
        weight = 10**15  # a rate rounds down by less than a digit per weight, to idle
        assert exact(getattr(found.energy_usd, name)) <= exact(getattr(found.usd, name)) + weight * DIGIT


@given(bills(), hours(), servings)
def test_rounding_leaves_less_than_a_digit_per_weight_to_idle(cost, hour, serving):
    found = allocate_hour(cost, serving, **hour)
    if cost.idle_joules is not None or not hour["elapsed_seconds"]:
        return
    elapsed = hour["elapsed_seconds"]
    resting = elapsed - hour["busy_seconds"] - hour["unavailable_seconds"] - hour["unobserved_seconds"]
    fair = exact(found.usd.total) * resting / elapsed
    hidden = sum(
        found.weights[name].of(uncached_input=one.uncached_input, cached_input=one.cached_input, output=one.output)
        for name, one in found.untracked.items()
    )
    weight = sum(one.input + one.output for one in found.seen.values()) + hidden
    assert fair - 4 * DIGIT <= exact(found.usd.idle) <= fair + (weight + 4) * DIGIT


# ---- the methods


@given(money, st.integers(1, 3600), servings)
def test_input_and_output_prices_of_aggregated_engines_recover_the_total(usd, busy, serving):
    serving = {name: Serving(seen=one.seen, weights=one.weights) for name, one in serving.items()}
    found = allocate_hour(Bill(fixed_usd=usd), serving, elapsed_seconds=busy, busy_seconds=busy)
    weight = sum(one.input + one.output for one in found.seen.values())
    if weight:
        carried = sum(
            Fraction(found.usd.rates[name].input) * one.input + Fraction(found.usd.rates[name].output) * one.output
            for name, one in found.seen.items()
        )
        assert 0 <= Fraction(usd) - carried < weight * DIGIT
        assert len({rate for pair in found.usd.rates.values() for rate in pair}) == 1


@given(money, st.integers(1, 64), st.integers(1, 64), servings, st.integers(0, 3600), st.integers(0, 3600))
def test_pools_charge_prefill_to_input_and_decode_to_output_exactly(usd, prefill, decode, serving, busy_p, busy_d):
    serving = {name: Serving(seen=one.seen) for name, one in serving.items()}
    apart = Pools(prefill=prefill, decode=decode, prefill_busy_seconds=busy_p, decode_busy_seconds=busy_d)
    found = allocate_hour(Bill(fixed_usd=usd), serving, elapsed_seconds=3600, busy_seconds=3600, pools=apart)
    assert found.method == "pools"
    for side, count, busy in (("input", prefill, busy_p), ("output", decode, busy_d)):
        cost = Fraction(usd) * count / (prefill + decode) * busy / 3600
        weight = sum(getattr(one, side) for one in found.seen.values())
        carried = sum(
            Fraction(getattr(found.usd.rates[name], side) or 0) * getattr(one, side) for name, one in found.seen.items()
        )
        if weight:
            assert 0 <= cost - carried < (weight + 1) * DIGIT
        else:
            assert carried == 0


def test_disaggregated_prices_are_those_of_the_pools():
    """8 prefill and 32 decode accelerators at 2.21 USD/h, 8 of 9 tokens input."""
    input_tokens, output_tokens = 8_000_000, 1_000_000
    found = allocate_hour(
        bill("88.40"), {"d": Serving(seen=tokens(uncached=input_tokens, output=output_tokens))},
        elapsed_seconds=3600, busy_seconds=3600, pools=Pools(prefill=8, decode=32),
    )  # fmt: skip
    assert found.usd.rates["d"].input * 1000 * input_tokens == 8 * Decimal("2.21")
    assert found.usd.rates["d"].output * 4000 * output_tokens == 32 * Decimal("2.21")
    assert found.usd.idle == 0


def test_phase_time_splits_by_what_prefill_and_decode_took():
    served = tokens(uncached=1_000_000, output=100_000)
    took = PhaseTime(
        prefill_seconds=Decimal(900), decode_seconds=Decimal(43_200), decode_concurrency=Decimal(16)
    )  # 900 against 2700 seconds
    found = allocate_hour(bill("40"), {"d": Serving(seen=served, phases=took)}, elapsed_seconds=3600, busy_seconds=1800)
    assert found.method == "phase time"
    rates = found.usd.rates["d"]
    assert (rates.input * 1000 * 1_000_000, rates.output * 4000 * 100_000) == (5, 15)
    assert found.usd.idle == 20


def test_the_best_evidence_that_there_is_decides():
    took = PhaseTime(prefill_seconds=Decimal(1), decode_seconds=Decimal(3))
    both = tokens(uncached=10, output=10)

    def method(serving, **more):
        return allocate_hour(bill(), serving, elapsed_seconds=3600, busy_seconds=60, **more).method

    assert method({"a": Serving(seen=both, phases=took)}, pools=Pools(prefill=1, decode=1)) == "pools"
    assert method({"a": Serving(seen=both, phases=took)}) == "phase time"
    assert method({"a": Serving(seen=both)}) == "weights"
    assert method({"a": Serving(seen=both, phases=took), "b": Serving(seen=both)}) == "weights"  # b's is missing
    assert method({"a": Serving(seen=both, phases=took), "b": Serving(seen=tokens())}) == "phase time"
    only_output = Serving(seen=tokens(output=10), phases=took)
    assert method({"a": only_output}) == "weights"  # prefill took time, and no token could carry it


def test_deployments_that_share_a_pool_share_its_busy_cost_once():
    big = Serving(seen=tokens(uncached=1_000_000), weights=Weights(10_000, 1_000, 40_000))
    small = Serving(seen=tokens(uncached=2_000_000))
    found = allocate_hour(bill("24"), {"70b": big, "8b": small}, elapsed_seconds=3600, busy_seconds=1800)
    assert found.usd.carried == {"70b": 10, "8b": 2}
    assert (found.usd.busy, found.usd.idle) == (12, 12)
    alone = allocate_hour(bill("24"), {"70b": big}, elapsed_seconds=3600, busy_seconds=1800)
    assert alone.usd.carried == {"70b": 12}


@pytest.mark.parametrize(("policy", "cached", "uncached"), [("free", 0, 6), ("fraction", 3, 3), ("full", 5, 1)])
def test_cached_tokens_carry_what_the_policy_says(policy, cached, uncached):
    weights = Weights(uncached_input=1000, cached_input=200, output=4000)
    served = {
        "hits": Serving(seen=tokens(cached=5_000), weights=weights),
        "misses": Serving(seen=tokens(uncached=1_000), weights=weights),
    }
    found = allocate_hour(bill("6"), served, elapsed_seconds=3600, busy_seconds=3600, cached=policy)
    assert found.usd.carried == {"hits": cached, "misses": uncached}


# ---- nothing to divide by


@given(bills(), servings)
def test_an_hour_in_which_nothing_ran_is_all_idle(cost, serving):
    found = allocate_hour(cost, serving, elapsed_seconds=3600, busy_seconds=0)
    for split in splits(found):
        assert (split.busy, split.unavailable, split.untracked) == (0, 0, 0)
        assert split.idle == split.total


@given(bills(), st.integers(1, 3600), st.none() | st.just(Pools(prefill=1, decode=3)))
def test_busy_time_without_a_token_is_untracked_and_has_no_rate(cost, busy, apart):
    found = allocate_hour(cost, {"d": Serving(seen=tokens())}, elapsed_seconds=3600, busy_seconds=busy, pools=apart)
    assert found.usd.busy == 0
    assert set(found.usd.rates["d"]) == {None}
    if busy == 3600:
        assert exact(found.usd.total) - exact(found.usd.untracked) <= 2 * DIGIT


def test_nothing_is_known_of_a_pool_without_deployments():
    found = allocate_hour(bill("8"), {}, elapsed_seconds=3600, busy_seconds=900, unavailable_seconds=900)
    assert (found.usd.untracked, found.usd.unavailable, found.usd.idle) == (2, 2, 4)


def test_the_first_instant_of_an_hour_has_no_cost_and_no_rate_to_divide():
    found = allocate_hour(bill("0"), {"d": Serving(seen=tokens(5, 5, 5))}, elapsed_seconds=0, busy_seconds=0)
    assert (found.usd.total, found.usd.idle) == (0, 0)


# ---- what we did not see


def test_tokens_that_only_the_engine_counted_are_untracked_and_ours_cost_no_more_for_it():
    served = Serving(seen=tokens(uncached=600_000), counted=EngineTokens(input=1_000_000, cached_input=0, output=0))
    found = allocate_hour(bill("10"), {"d": served}, elapsed_seconds=3600, busy_seconds=3600)
    assert (found.usd.busy, found.usd.untracked, found.usd.idle) == (6, 4, 0)
    assert found.untracked == {"d": tokens(uncached=400_000)}
    assert found.usd.unseen == {"d": 4}


def test_time_that_nobody_observed_is_untracked_not_idle():
    found = allocate_hour(
        bill("12"), {"d": Serving(seen=tokens(10))}, elapsed_seconds=3600, busy_seconds=600, unobserved_seconds=900
    )
    assert (found.usd.busy, found.usd.untracked, found.usd.idle) == (2, 3, 7)


@pytest.mark.parametrize(
    ("ours", "engine", "gap"),
    [
        (tokens(100, 0, 10), None, tokens()),
        (tokens(100, 0, 10), EngineTokens(), tokens()),
        (tokens(100, 0, 10), EngineTokens(input=80, output=5), tokens()),  # counters lag
        (tokens(100, 0, 10), EngineTokens(input=100, cached_input=70, output=10), tokens()),  # calls tell no cache
        (tokens(100, 0, 10), EngineTokens(input=150, cached_input=70, output=12), tokens(0, 50, 2)),
        (tokens(60, 40, 10), EngineTokens(input=200, cached_input=90), tokens(50, 50)),
        (tokens(60, 40), EngineTokens(input=200), tokens(60, 40)),  # of unknown kind: as ours are
        (tokens(), EngineTokens(input=7), tokens(7)),
        (tokens(60, 40), EngineTokens(uncached_input=90), tokens(30)),  # cached unknown
        (tokens(60, 40), EngineTokens(uncached_input=90, cached_input=50), tokens(30, 10)),
        (tokens(60, 40), EngineTokens(input=140, uncached_input=90), tokens(30, 10)),
    ],
)
def test_the_gap_is_never_more_than_what_the_engine_has_above_us(ours, engine, gap):
    assert unseen(ours, engine) == gap


@given(seen, st.integers(0, 10**9), counters, st.integers(0, 10**9))
def test_an_engine_that_counts_what_we_saw_leaves_no_gap(ours, more, cached, more_output):
    engine = EngineTokens(input=ours.input + more, cached_input=cached, output=ours.output + more_output)
    gap = unseen(ours, engine)
    assert (gap.input, gap.output) == (more, more_output)
    assert min(gap.uncached_input, gap.cached_input) >= 0


# ---- energy and carbon


def test_an_idle_second_carries_the_energy_that_it_drew():
    cost = bill("3600", energy_usd="100", joules="1000000", idle_joules="100000", gco2e_g="500", market_gco2e_g="50")
    found = allocate_hour(
        cost, {"d": Serving(seen=tokens(1_000))}, elapsed_seconds=3600, busy_seconds=1800, unavailable_seconds=900
    )
    assert (found.joules.busy, found.joules.idle, found.joules.unavailable) == (900_000, 50_000, 50_000)
    assert (found.gco2e.busy, found.gco2e.idle, found.market_gco2e.busy) == (450, 25, 45)
    assert (found.energy_usd.busy, found.energy_usd.idle) == (90, 5)
    assert (found.usd.busy, found.usd.idle, found.usd.unavailable) == (1890, 905, 905)


def test_what_is_unknown_stays_unknown():
    found = allocate_hour(bill("1"), {}, elapsed_seconds=3600, busy_seconds=0)
    assert (found.joules, found.gco2e, found.market_gco2e) == (None, None, None)


@given(st.integers(0, 3600), st.integers(1, 72), st.none() | st.integers(0, 10**9))
def test_an_hour_of_the_calculator_is_split_whole(busy, count, joules):
    measured = None if joules is None else Decimal(joules)
    cost = hourly_cost(Owned(), "H100", count, region="us-va", busy_seconds=busy, measured_joules=measured)
    found = allocate_hour(
        Bill.of(cost), {"d": Serving(seen=tokens(10**6, 10**6, 10**5))}, elapsed_seconds=3600, busy_seconds=busy
    )
    assert found.usd.busy + found.usd.idle == cost.total_usd
    assert found.joules.total == cost.joules
    assert found.joules.idle >= cost.idle_joules
    assert abs(found.joules.idle - cost.idle_joules) < Decimal("1e-12")


def test_measured_idle_energy_is_told_apart_where_the_meter_does():
    power = {"busy_seconds": 1800, "region": "us-va", "measured_joules": Decimal(1_000_000)}
    told = hourly_cost(Preset(), "H100", 1, **power, measured_idle_joules=Decimal(200_000))
    assert abs(told.idle_joules * 5 - told.joules) < Decimal("0.01")
    modelled = hourly_cost(Preset(), "H100", 1, **power)
    assert modelled.idle_joules == Decimal("0.15") * 1370 * 1800 * Decimal("1.27")
    low = hourly_cost(Preset(), "H100", 1, **power | {"measured_joules": Decimal(1000)})
    assert abs(low.idle_joules * 2 - low.joules) < Decimal("0.01")  # never more than its time
    with pytest.raises(ValueError, match="idle energy is a part of it"):
        hourly_cost(Preset(), "H100", 1, **power, measured_idle_joules=Decimal(2_000_000))


# ---- who carries idle

uses = st.dictionaries(st.sampled_from(["research", "support", "search", "ads"]), st.integers(0, 10**12), max_size=4)
amounts = st.decimals(-(10**6), 10**6, places=24, allow_nan=False)


@given(amounts, st.sampled_from(["show", "spread by use", "spread evenly", "charge the owner"]), uses)
def test_whoever_carries_idle_it_is_all_carried_and_no_more(amount, policy, used):
    shares = carriers(amount, policy, used=used, owner="platform")
    assert sum(map(exact, shares.values())) == exact(amount)
    assert all(exact(one) * exact(amount) >= 0 for one in shares.values())


@given(amounts, uses)
def test_shares_by_use_are_in_proportion_and_what_rounding_leaves_is_with_the_largest(amount, used):
    shares = carriers(amount, "spread by use", used=used)
    whole = sum(used.values())
    if not whole:
        assert shares == {None: amount}
        return
    assert shares.keys() == {who for who, value in used.items() if value}
    largest = min(who for who in shares if used[who] == max(used.values()))
    for who, share in shares.items():
        fair = exact(amount) * used[who] / whole
        assert abs(exact(share) - fair) < DIGIT * (len(shares) if who == largest else 1)


@given(allocations(), st.sampled_from(["show", "spread by use", "spread evenly", "charge the owner"]))
def test_under_every_policy_everybody_together_carries_the_bill(case, policy):
    *_, found = case
    for split in splits(found):
        shares = [
            carriers(amount, policy, used=split.carried, owner="platform")
            for amount in (split.idle, split.unavailable, split.untracked)
        ]
        borne = sum(exact(one) for who in shares for one in who.values()) + sum(map(exact, split.carried.values()))
        assert borne == exact(split.total)


def test_policies_say_who_carries_idle():
    used, idle = {"search": 3, "ads": 1, "research": 0}, Decimal("1.00")
    assert carriers(idle, "show", used=used) == {None: idle}
    assert carriers(idle, "spread by use", used=used) == {"search": Decimal("0.75"), "ads": Decimal("0.25")}
    assert carriers(idle, "charge the owner", used=used, owner="platform") == {"platform": idle}
    assert carriers(idle, "charge the owner", used=used) == {None: idle}
    evenly = carriers(idle, "spread evenly", used=used, quantum=Decimal("0.01"))
    assert evenly == {"search": Decimal("0.34"), "ads": Decimal("0.33"), "research": Decimal("0.33")}
    assert carriers(idle, "spread evenly", used={}) == {None: idle}
    with pytest.raises(ValueError, match="a use below 0"):
        carriers(idle, "spread by use", used={"search": -1})


# ---- what cannot be


@pytest.mark.parametrize(
    ("cost", "hour", "problem"),
    [
        (bill("-1"), (3600, 0, 0, 0), "fixed_usd -1 cannot be allocated"),
        (bill(joules="-1"), (3600, 0, 0, 0), "joules -1 cannot be allocated"),
        (bill(), (3600, -1, 0, 0), "no time is negative"),
        (bill(), (3600, 3000, 600, 1), "do not fit into the 3600 s that have passed"),
        (bill(joules="5", idle_joules="6"), (3600, 0, 0, 0), "idle_joules 6 is more than joules 5"),
        (bill(idle_joules="6"), (3600, 0, 0, 0), "idle_joules 6 is more than joules None"),
    ],
)
def test_what_is_impossible_is_refused(cost, hour, problem):
    elapsed, busy, unavailable, unobserved = hour
    with pytest.raises(ValueError, match=problem):
        allocate_hour(
            cost, {}, elapsed_seconds=elapsed, busy_seconds=busy,
            unavailable_seconds=unavailable, unobserved_seconds=unobserved,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("apart", "problem"),
    [
        (Pools(prefill=0, decode=0), "has no accelerators"),
        (Pools(prefill=-1, decode=4), "has no accelerators"),
        (Pools(prefill=1, decode=1, decode_busy_seconds=3601), "do not fit"),
    ],
)
def test_pools_that_cannot_be_are_refused(apart, problem):
    with pytest.raises(ValueError, match=problem):
        allocate_hour(bill(), {}, elapsed_seconds=3600, busy_seconds=0, pools=apart)
