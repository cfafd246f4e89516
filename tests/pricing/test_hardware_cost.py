from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.pricing import catalog
from millicent.pricing.allocation import Bill, Pools, Serving, Tokens, allocate_hour
from millicent.pricing.hardware import (
    DEFAULT_WEIGHTS,
    Owned,
    Power,
    Preset,
    Rented,
    Weights,
    allocate,
    annual_capital_usd,
    hourly_cost,
    joules_per_token,
    usd_per_mtok,
)

VIRGINIA = {"region": "us-va", "busy_seconds": 1800}


# Points published with InferenceX: tokens/s per accelerator (total), USD per accelerator-hour, USD per million
# total tokens as printed.
PUBLISHED = [
    ("DeepSeek V4 Pro 8k/1k, GB200 8P/32D", "GB200", "ix-2025", "hyperscaler", "2004.5", "0.31"),
    ("DeepSeek V4 Pro 8k/1k, GB200, 1024 concurrent", "GB200", "ix-2025", "hyperscaler", "6036.2", "0.10"),
    ("DeepSeek V4 Pro 8k/1k, GB300 4P/68D", "GB300", "ix-2025", "hyperscaler", "138.8", "5.31"),
    ("DeepSeek V4 Pro 8k/1k, GB300 24P/8D", "GB300", "ix-2025", "hyperscaler", "11055.6", "0.07"),
    ("DeepSeek R1 1k/1k, GB200 4P/32D", "GB200", "ix-2025", "hyperscaler", "1149.1", "0.53"),
    ("DeepSeek R1 1k/1k, B200", "B200", "ix-2025", "hyperscaler", "941", "0.5755"),
    ("MiniMax-M2.5 8k/1k, H100 TP8", "H100", "ix-2025", "hyperscaler", "476.5", "0.76"),
    ("MiniMax-M2.5 8k/1k, B200 TP2", "B200", "ix-2025", "hyperscaler", "17577.0", "0.031"),
    ("Kimi K2.5 8k/1k, B200 INT4", "B200", "ix-2025", "hyperscaler", "969.4", "0.559"),
    ("Kimi K2.5 8k/1k, B200 NVFP4", "B200", "ix-2025", "hyperscaler", "2318.7", "0.234"),
    ("GLM-5 8k/1k, B200 FP8", "B200", "ix-2025", "hyperscaler", "231.3", "2.34"),
    ("GLM-5 8k/1k, MI355X FP8", "MI355X", "ix-2025", "hyperscaler", "1911.7", "0.22"),
    ("GLM-5 8k/1k, B300 FP4", "B300", "ix-2025", "neocloud", "4834", "0.161"),
    ("GLM-5 8k/1k, H200 FP8", "H200", "ix-2025", "neocloud", "639", "0.756"),
    ("DeepSeek R1 8k/1k, H200", "H200", "ix-2025", "hyperscaler", "2453.9", "0.16"),
]


@pytest.mark.parametrize(("point", "accelerator", "preset", "tier", "tokens_per_second", "printed"), PUBLISHED)
def test_published_costs_per_million_tokens_reproduce(point, accelerator, preset, tier, tokens_per_second, printed):
    cost = hourly_cost(Preset(name=preset, tier=tier), accelerator, 1)
    assert as_printed(usd_per_mtok(cost.total_usd, Decimal(tokens_per_second)), printed), point


def as_printed(value, printed):
    """Within half a unit of the last printed digit, or 2 %, whichever is larger."""
    half_a_unit = Decimal(5).scaleb(Decimal(printed).as_tuple().exponent - 1)
    return abs(value - Decimal(printed)) <= max(half_a_unit, Decimal(printed) * Decimal("0.02"))


def test_one_published_cell_is_left_out_because_it_contradicts_its_own_throughput():
    """DeepSeek V4 Pro, GB200 8P/8D at 5336.2 tok/s is printed as 0.10; its inputs give 0.115."""
    cost = hourly_cost(Preset(name="ix-2025"), "GB200", 1)
    usd = usd_per_mtok(cost.total_usd, Decimal("5336.2"))
    assert round(usd, 3) == Decimal("0.115")
    assert not as_printed(usd, "0.10")


@pytest.mark.parametrize(
    ("accelerator", "tokens_per_second", "in_usd", "out_usd", "total_usd"),
    [("B300", 4834, "0.182", "1.452", "0.161"), ("H200", 639, "0.850", "6.813", "0.756")],
)
def test_aggregated_input_and_output_prices_each_carry_the_whole_hour(
    accelerator, tokens_per_second, in_usd, out_usd, total_usd
):
    """GLM-5 8k/1k: 8 of 9 tokens are input. Billing both prices would charge the hardware twice."""
    cost = hourly_cost(Preset(name="ix-2025", tier="neocloud"), accelerator, 1).total_usd
    output = Decimal(tokens_per_second) / 9
    told = [usd_per_mtok(cost, throughput) for throughput in (output * 8, output, output * 9)]
    assert all(map(as_printed, told, (in_usd, out_usd, total_usd)))
    assert abs(1 / (1 / told[0] + 1 / told[1]) - told[2]) < Decimal("1e-20")


FULL_LOAD = Power(load_busy=Decimal(1), load_idle=Decimal(1))


def kilowatts(preset, accelerator, count=1, **power):
    """What accelerators draw at full load, by the calculator."""
    drawn = Power(load_busy=Decimal(1), load_idle=Decimal(1), **power)
    return hourly_cost(Preset(name=preset), accelerator, count, power=drawn).joules / 3_600_000


@pytest.mark.parametrize(
    ("accelerator", "tokens_per_second", "million_per_megawatt"),
    [("MI300X", 1343, "0.75"), ("H100", 1557, "0.90"), ("MI355X", 6758, "2.55"), ("B200", 6076, "2.8")],
)
def test_published_tokens_per_megawatt_reproduce(accelerator, tokens_per_second, million_per_megawatt):
    """gpt-oss-120b 1k/8k at 90 tok/s per user, by utility power; tokens/s per W is tokens per joule."""
    joules = hourly_cost(Preset(name="ix-2025"), accelerator, 1, power=FULL_LOAD).joules
    assert as_printed(1 / joules_per_token(joules, tokens_per_second * 3600), million_per_megawatt)


def test_measured_power_over_throughput_is_the_published_energy_per_token():
    """gpt-oss-120b on one B200 (ML.ENERGY): 674 W, 16,979 output tok/s, 0.0397 J per token."""
    assert as_printed(joules_per_token(Decimal(674 * 3600), 16_979 * 3600), "0.0397")
    with pytest.raises(ValueError, match="no energy per token"):
        joules_per_token(Decimal(1), 0)


# Purchase cost that gives the surveyed hourly cost of July 2026, at 4 years and 8 %, 110 USD per kW-month and
# 0.07 USD/kWh: accelerator, capex, PUE, USD/h, hosting, energy.
CALIBRATION = [
    ("H100", 24_400, "1.27", "1.17", "0.21", "0.12"),
    ("H200", 25_900, "1.27", "1.22", "0.21", "0.12"),
    ("B200", 38_300, "1.27", "1.73", "0.26", "0.15"),
    ("B300", 52_400, "1.27", "2.26", "0.29", "0.17"),
    ("GB200", 41_600, "1.12", "1.86", "0.28", "0.15"),
    ("GB300", 53_000, "1.12", "2.31", "0.32", "0.17"),
    ("MI300X", 17_900, "1.27", "0.95", "0.21", "0.12"),
    ("MI325X", 20_200, "1.27", "1.10", "0.25", "0.15"),
    ("MI355X", 29_000, "1.27", "1.50", "0.31", "0.19"),
    ("nvidia-vr200-nvl72", 108_000, "1.12", "4.45", "0.48", "0.25"),
]


@pytest.mark.parametrize(("accelerator", "capex", "pue", "total", "hosting", "energy"), CALIBRATION)
def test_the_surveyed_cost_of_an_hour_is_capital_hosting_and_energy(accelerator, capex, pue, total, hosting, energy):
    power = Power(load_busy=Decimal(1), load_idle=Decimal(1), pue=Decimal(pue), tariff_usd_per_kwh=Decimal("0.07"))
    cost = hourly_cost(Owned(capex_usd=Decimal(capex)), accelerator, 1, power=power)
    assert abs(cost.total_usd - Decimal(total)) < Decimal("0.01")
    assert abs(cost.hosting_usd - Decimal(hosting)) < Decimal("0.01")
    assert abs(cost.energy_usd - Decimal(energy)) < Decimal("0.01")


@pytest.mark.parametrize(
    ("prefill", "decode", "input_share", "weight"),
    [
        (12, 20, 1, "1.7"),
        (8, 16, 1, "2.0"),
        (12, 32, 1, "2.7"),
        (4, 32, 1, "8"),
        (24, 8, 8, "2.7"),
        (16, 8, 8, "4"),
        (8, 8, 8, "8"),
        (28, 32, 8, "9.1"),
        (8, 32, 8, "32"),
    ],
)
def test_published_pools_imply_what_an_output_token_weighs(prefill, decode, input_share, weight):
    served = Tokens(uncached_input=input_share * 10**6, output=10**6)
    hour = allocate_hour(
        Bill(fixed_usd=Decimal(100)), {"d": Serving(seen=served)},
        elapsed_seconds=3600, busy_seconds=3600, pools=Pools(prefill=prefill, decode=decode),
    )  # fmt: skip
    rates = hour.usd.rates["d"]
    assert as_printed(rates.output * 4000 / (rates.input * 1000), weight)


def test_a_quote_has_idle_in_its_price_and_a_ledger_has_it_as_a_line():
    per_hour, per_second = Decimal(3), Decimal(1000)
    quote = usd_per_mtok(per_hour, per_second, planned_utilisation=Decimal("0.6"))
    served = Tokens(uncached_input=int(per_second) * 2160)  # 60 % of an hour
    hour = allocate_hour(Bill(fixed_usd=per_hour), {"d": Serving(seen=served)}, elapsed_seconds=3600, busy_seconds=2160)
    busy = hour.usd.rates["d"].input * 1000 * 10**6
    assert round(busy, 15) == round(usd_per_mtok(per_hour, per_second), 15)
    assert round(quote * served.input / 10**6, 15) == hour.usd.busy + hour.usd.idle == per_hour
    with pytest.raises(ValueError, match="no share of the hours"):
        usd_per_mtok(per_hour, per_second, planned_utilisation=Decimal("1.1"))


# ---- what is claimed of hardware, and what the numbers say


@pytest.mark.parametrize(
    ("preset", "per_accelerator", "tokens_per_dollar"), [("ix-2025", "60.7", "29.8"), ("ix-2026-07", "77", "39")]
)
def test_fifty_times_per_megawatt_is_not_fifty_times_per_dollar(preset, per_accelerator, tokens_per_dollar):
    """\"50x performance, 35x lower cost" of GB300 against H100: plausible at one point, by either survey."""
    it_kilowatts = {"ix-2025": {}, "ix-2026-07": {"pue": Decimal(1)}}[preset]
    power = kilowatts(preset, "GB300", **it_kilowatts) / kilowatts(preset, "H100", **it_kilowatts)
    dollars = [hourly_cost(Preset(name=preset), name, 1).total_usd for name in ("H100", "GB300")]
    assert as_printed(50 * power, per_accelerator)
    assert as_printed(50 * power * dollars[0] / dollars[1], tokens_per_dollar)


def test_fifty_tokens_per_watt_is_a_ratio_not_a_rate():
    """The best GB300 point above, and gpt-oss on H100, in tokens per joule at the utility meter."""
    gb300 = Decimal("11055.6") / (kilowatts("ix-2025", "GB300") * 1000)
    h100 = Decimal(1557) / (kilowatts("ix-2025", "H100") * 1000)
    assert (round(gb300, 1), round(h100, 1)) == (Decimal("5.3"), Decimal("0.9"))


@pytest.mark.parametrize(
    ("accelerator", "claimed"),
    [
        ("nvidia-vr200-nvl72", {"tdp_w": 2300}),
        ("nvidia-rubin-ultra", {"tdp_w": 3600}),  # 3700 W of "Rubin" is nowhere; this is the nearest
        ("amd-mi355x", {"memory_gb": 288, "memory_bw_gbps": 8000, "tdp_w": 1400}),
        ("google-tpu-v7", {"tflops_fp8_dense": 4614, "tflops_fp16_dense": 2307, "memory_gb": 192}),
        ("google-tpu-v7", {"memory_bw_gbps": 7370, "tflops_fp4_dense": None}),
    ],
)
def test_claimed_figures_are_those_of_the_catalog(accelerator, claimed):
    row = catalog.accelerator(accelerator)
    assert {name: getattr(row, name) for name in claimed} == claimed


def test_a_gb200_rack_draws_what_is_claimed():
    assert abs(kilowatts("ix-2026-07", "GB200", 72, pue=Decimal(1)) - Decimal("134.6")) < Decimal("0.1")


@pytest.mark.parametrize(
    ("gain", "accelerators"),
    [
        (2, ("nvidia-b200", "nvidia-gb200-nvl72", "amd-mi355x", "nvidia-vr200-nvl72")),
        (3, ("nvidia-b300", "nvidia-gb300-nvl72")),
        (1, ("aws-trainium3",)),
        (None, ("nvidia-h100-sxm", "nvidia-h200-sxm", "amd-mi300x", "amd-mi325x", "google-tpu-v7")),
    ],
)
def test_four_bits_are_worth_what_each_accelerator_makes_of_them(gain, accelerators):
    for name in accelerators:
        row = catalog.accelerator(name)
        fp4 = row.tflops_fp4_dense
        assert (fp4 if fp4 is None else fp4 / row.tflops_fp8_dense) == gain, name


def test_a_model_without_attention_over_its_past_has_no_price_for_cached_tokens():
    """RWKV and its like keep a state of one size: a cached token costs nothing, policy `free`."""
    served = Serving(seen=Tokens(uncached_input=10, cached_input=10**9, output=10))
    hour = allocate_hour(
        Bill(fixed_usd=Decimal(1)), {"rwkv": served}, elapsed_seconds=3600, busy_seconds=3600, cached="free"
    )
    assert hour.seen["rwkv"] == (10_000, 40_000)


def test_no_tokens_have_no_cost_per_token():
    with pytest.raises(ValueError, match="no cost per token"):
        usd_per_mtok(Decimal(1), Decimal(0))


def test_annuity_and_straight_line_differ_as_published():
    price = Decimal(33_600)
    annuity = annual_capital_usd(Owned(), price) / 8766
    straight = annual_capital_usd(Owned(depreciation="straight_line"), price) / 8766
    assert round(annuity, 3) == Decimal("1.157")
    assert round(straight, 2) == Decimal("1.11")
    assert round(annual_capital_usd(Owned(), Decimal(1)), 4) == Decimal("0.3019")
    assert round(
        annual_capital_usd(Owned(depreciation="straight_line", cost_of_capital=Decimal(0)), price) / 8766, 3
    ) == Decimal("0.958")


@given(
    st.decimals(1, 10**6, places=2),
    st.integers(1, 10),
    st.decimals("0.001", "0.3", places=3),
    st.decimals(0, 1, places=2),
)
def test_an_annuity_pays_the_purchase_back_with_interest_down_to_the_residual(price, years, interest, residual_share):
    residual = (price * residual_share).quantize(Decimal("0.01"))
    yearly = annual_capital_usd(
        Owned(life_years=Decimal(years), cost_of_capital=interest, residual_usd=residual), price
    )
    owed = price
    for _ in range(years):  # a spreadsheet: a year's interest on what is owed, then the payment
        owed += owed * interest - yearly
    assert abs(owed - residual) < Decimal("1e-9")


def test_without_interest_both_policies_are_the_same():
    free = {"cost_of_capital": Decimal(0), "residual_usd": Decimal(600)}
    yearly = [annual_capital_usd(Owned(depreciation=p, **free), Decimal(33_600)) for p in ("annuity", "straight_line")]
    assert yearly == [Decimal(8_250)] * 2


def test_an_owned_hour_is_capital_hosting_and_energy():
    cost = hourly_cost(
        Owned(capex_usd=Decimal(24_400)),
        "H100",
        1,
        power=Power(load_busy=Decimal(1), load_idle=Decimal(1), tariff_usd_per_kwh=Decimal("0.07")),
    )
    assert round(cost.hosting_usd, 2) == Decimal("0.21")
    assert round(cost.energy_usd, 2) == Decimal("0.12")
    assert round(cost.total_usd, 2) == Decimal("1.17")  # the surveyed all-in cost that 24,400 was derived from
    assert cost.total_usd == cost.fixed_usd + cost.hosting_usd + cost.energy_usd
    assert cost.joules == Decimal("1.37") * 1000 * 3600 * Decimal("1.27")


def test_busy_time_draws_more_than_idle_time():
    energies = [hourly_cost(Owned(), "H100", 8, region="us-va", busy_seconds=s).joules for s in (0, 1800, 3600)]
    assert energies[0] * 14 == energies[2] * 3  # 0.15 of the power against 0.7
    assert energies[1] * 2 == energies[0] + energies[2]


def test_measured_energy_adds_host_and_cooling_to_the_counters():
    cost = hourly_cost(Owned(), "H100", 1, region="us-va", measured_joules=Decimal(1_000_000))
    assert cost.energy_source == "measured"
    assert cost.joules == (Decimal(1_000_000) * Decimal(1370) / 700 * Decimal("1.27")).quantize(Decimal("0.001"))
    assert [i.origin for i in cost.inputs if i.name == "accelerator energy"] == ["measured"]


def test_rent_includes_power_unless_it_says_otherwise():
    included = hourly_cost(Rented(usd_per_hour=Decimal("2.5")), "H100", 8, **VIRGINIA)
    metered = hourly_cost(Rented(usd_per_hour=Decimal("2.5"), includes_power=False), "H100", 8, **VIRGINIA)
    assert included.total_usd == 20
    assert (included.energy_usd, included.joules) == (0, metered.joules)
    assert metered.energy_usd > 0


def test_survey_power_at_the_utility_is_not_multiplied_by_pue_again():
    full = Power(load_busy=Decimal(1), load_idle=Decimal(1))
    old, new = (hourly_cost(Preset(name=name), "H100", 1, power=full) for name in ("ix-2025", "ix-2026-07"))
    assert old.joules == Decimal("1.73") * 1000 * 3600
    assert new.joules == Decimal("1.37") * 1000 * 3600 * Decimal("1.27")
    assert (old.total_usd, new.total_usd) == (Decimal("1.30"), Decimal("1.17"))


def test_carbon_needs_a_region_and_stays_unknown_without():
    assert hourly_cost(Preset(), "H100", 1).gco2e_g is None
    clean = hourly_cost(Preset(), "H100", 1, power=Power(gco2e_per_kwh=Decimal(0)))
    assert clean.gco2e_g == 0
    va = hourly_cost(Preset(), "H100", 1, region="us-va")
    assert abs(va.gco2e_g - va.joules / 3_600_000 * catalog.region("us-va").gco2e_per_kwh) < Decimal("0.001")


def test_a_cloud_region_brings_its_own_pue():
    cost = hourly_cost(Preset(), "H100", 1, region="us-east-1")
    assert [(i.value, i.origin) for i in cost.inputs if i.name == "PUE"] == [(Decimal("1.15"), "catalog")]


@pytest.mark.parametrize(
    ("accelerator", "pue"),
    [
        ("H100", "1.27"),
        ("MI355X", "1.1"),
        ("GB200", "1.12"),
        ("Jetson AGX Orin", "1.0"),
        ("AI 100", "1.27"),
        ("maia", "1.1"),
    ],
)
def test_pue_follows_the_cooling(accelerator, pue):
    cost = hourly_cost(Rented(usd_per_hour=Decimal(1)), accelerator, 1)
    assert [i.value for i in cost.inputs if i.name == "PUE"] == [Decimal(pue)]


def test_chip_power_alone_is_scaled_to_the_system_and_says_so():
    server, device = (hourly_cost(Rented(usd_per_hour=Decimal(1)), name, 1) for name in ("L4", "google-coral-edgetpu"))
    assert [(i.value, i.origin) for i in server.inputs if i.name == "system ÷ chip power"] == [
        (Decimal("1.6"), "assumed")
    ]
    assert "system ÷ chip power" not in {i.name for i in device.inputs}


def test_every_input_says_where_it_comes_from():
    cost = hourly_cost(Owned(life_years=Decimal(5)), "H100", 8, **VIRGINIA)
    origins = {i.name: i.origin for i in cost.inputs}
    assert origins["capex"] == origins["tariff"] == origins["carbon"] == "catalog"
    assert origins["life_years"] == "declared"
    assert origins["cost_of_capital"] == origins["PUE"] == "assumed"
    assert all(i.source and i.unit for i in cost.inputs)


def test_the_current_hour_accrues_by_elapsed_seconds():
    quarter = hourly_cost(Preset(), "B200", 72, elapsed_seconds=900, busy_seconds=450)
    whole = hourly_cost(Preset(), "B200", 72, busy_seconds=1800)
    assert quarter.total_usd * 4 == whole.total_usd
    assert quarter.joules * 4 == whole.joules
    assert hourly_cost(Preset(), "B200", 72, elapsed_seconds=0).total_usd == 0


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda: hourly_cost(Owned(), "A100 SXM4 80GB", 1, region="us"), "capex of 'A100 SXM4 80GB' is unknown"),
        (lambda: hourly_cost(Owned(), "H100", 1), "electricity price .* set tariff_usd_per_kwh, or a region"),
        (lambda: hourly_cost(Preset(), "L4", 1), "nobody has published ix_v2_hyperscaler_usd_hr"),
        (lambda: hourly_cost(Owned(capex_usd=Decimal(1)), "Trainium1", 1, region="us"), "power .* set it_kw"),
        (lambda: hourly_cost(Preset(), "H100", 0), "not a number of accelerators"),
        (lambda: hourly_cost(Preset(), "H100", 1, busy_seconds=10, elapsed_seconds=5), "0 <= busy <= elapsed"),
        (lambda: hourly_cost(Preset(), "H100", 1, elapsed_seconds=3601), "one hour at a time"),
        (lambda: annual_capital_usd(Owned(residual_usd=Decimal(2)), Decimal(1)), "residual at most the price"),
        (lambda: allocate(Decimal(1), busy_seconds=2, elapsed_seconds=1, weight=1), "cannot be allocated"),
    ],
)
def test_what_is_missing_or_impossible_is_refused_with_a_remedy(cost, message):
    with pytest.raises(ValueError, match=message):
        cost()


dollars = st.decimals(0, 10**9, places=24)
seconds = st.integers(0, 3600)
weights = st.integers(0, 10**15)


@given(dollars, seconds, seconds, weights)
def test_busy_and_idle_close_on_the_total_to_the_last_digit(total, one, other, weight):
    busy, elapsed = sorted((one, other))
    hour = allocate(total, busy_seconds=busy, elapsed_seconds=elapsed, weight=weight)
    rate, carried, idle, whole = map(as_units, (hour.rate_usd_per_weight, hour.busy_usd, hour.idle_usd, total))
    assert rate * weight == carried
    assert carried + idle == whole
    assert 0 <= idle <= whole
    assert 0 <= hour.untracked_usd <= hour.idle_usd
    if weight and busy:
        fair = whole * busy // elapsed
        assert fair - weight <= carried <= fair + 1  # rounded down by less than a unit per weight


def as_units(amount):
    """An amount in integers of 1e-24 USD, which no context rounds."""
    sign, digits, exponent = amount.as_tuple()
    number = int("".join(map(str, digits)))
    assert exponent >= -24
    return (-1) ** sign * number * 10 ** (24 + exponent)


@given(dollars, weights)
def test_an_hour_without_requests_is_all_idle(total, weight):
    hour = allocate(total, busy_seconds=0, elapsed_seconds=3600, weight=weight)
    assert (hour.busy_usd, hour.untracked_usd) == (0, 0)
    assert as_units(hour.idle_usd) == as_units(total)


@given(dollars, st.integers(1, 3600))
def test_busy_time_without_tokens_is_idle_and_flagged_as_untracked(total, busy):
    hour = allocate(total, busy_seconds=busy, elapsed_seconds=3600, weight=0)
    assert (hour.rate_usd_per_weight, hour.busy_usd) == (0, 0)
    assert abs(as_units(hour.untracked_usd) * 3600 - as_units(total) * busy) <= 3600


def test_an_hour_that_has_not_begun_costs_nothing():
    assert allocate(Decimal(0), busy_seconds=0, elapsed_seconds=0, weight=0).idle_usd == 0


def test_tokens_weigh_in_thousandths_of_an_uncached_input_token():
    assert DEFAULT_WEIGHTS.of(uncached_input=3, cached_input=5, output=7) == 3_000 + 500 + 28_000
    assert Weights(cached_input=0, output=2_000).of(uncached_input=1, cached_input=9, output=1) == 3_000


def test_weighted_prices_add_up_to_the_hardware():
    """B300, GLM-5 8k/1k: 4,834 tok/s per accelerator, 8 of 9 tokens input, 2.808 USD/h."""
    output = Decimal(4834) / 9 * 3600
    served = DEFAULT_WEIGHTS.of(uncached_input=round(output * 8), cached_input=0, output=round(output))
    hour = allocate(Decimal("2.808"), busy_seconds=3600, elapsed_seconds=3600, weight=served)
    per_mtok = hour.rate_usd_per_weight * 1_000_000
    assert (round(per_mtok * 1000, 3), round(per_mtok * 4000, 3)) == (Decimal("0.121"), Decimal("0.484"))
