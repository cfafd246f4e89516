"""How accelerators are paid for, against a spreadsheet: payments month by month in fractions, no formula of ours."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.hardware import Owned, Power, Preset, Rented, Reserved, Spot, annual_capital_usd, hourly_cost
from millicent.pricing.profiles import PRESETS, reserved_use, spot_usd, survey_name

HOUR = timedelta(hours=1)
NOWHERE_NEAR = Fraction(1, 10**18)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ---- the spreadsheet


def left_after_the_last_month(price, years, interest, payment):
    """A loan: each month adds a twelfth of the year's interest on the year's opening balance; a payment ends a year."""
    balance, opening, owed = price, price, Fraction(0)
    for month in range(1, 12 * years + 1):
        owed += opening * interest / 12
        if month % 12 == 0:
            balance = balance + owed - payment
            opening, owed = balance, Fraction(0)
    return balance


def yearly_payment(price, residual, years, interest):
    """The payment that leaves the residual: what is left falls in a straight line with it, so two rows tell it."""
    unpaid = left_after_the_last_month(price, years, interest, Fraction(0))
    by_one = unpaid - left_after_the_last_month(price, years, interest, Fraction(1))
    return (unpaid - residual) / by_one


def yearly_straight_line(price, residual, years, interest):
    """Each month writes off the same, and pays interest on what the books have in its middle."""
    months, books, spent = 12 * years, price, Fraction(0)
    for _ in range(months):
        off = (price - residual) / months
        spent += off + (books - off / 2) * interest / 12
        books -= off
    assert books == residual
    return spent / years


def rent_of_month(year, month, accelerators, usd_per_hour):
    """An invoice: days of the month, 24 hours each."""
    return monthrange(year, month)[1] * 24 * accelerators * usd_per_hour


def reservation_payments(usd_per_hour, accelerators, start, months, upfront_share):
    """What is paid when: a share of it all at the start, the rest of each month at its end."""
    year, month = start.year, start.month
    invoices = []
    for _ in range(months):
        invoices.append(rent_of_month(year, month, accelerators, usd_per_hour))
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return [sum(invoices) * upfront_share, *(one * (1 - upfront_share) for one in invoices)]


def spot_by_the_minute(prices, start, minutes):
    """Every minute at the price that its first instant had."""
    total = Fraction(0)
    for minute in range(minutes):
        now = start + timedelta(minutes=minute)
        (price,) = [Fraction(p) for since, p in prices if since <= now][-1:]
        total += price / 60
    return total


# ---- owned

prices = st.integers(1_000, 200_000)
lives = st.integers(1, 8)
rates = st.integers(0, 25).map(lambda percent: Decimal(percent) / 100)
residual_shares = st.integers(0, 90).map(lambda percent: Decimal(percent) / 100)


@given(prices, lives, rates, residual_shares, st.sampled_from(["annuity", "straight_line"]))
def test_owned_capital_costs_what_the_spreadsheet_says(price, years, interest, share, depreciation):
    profile = Owned(
        life_years=Decimal(years), cost_of_capital=interest, residual_usd=price * share, depreciation=depreciation
    )
    sheet = yearly_payment if depreciation == "annuity" else yearly_straight_line
    expected = sheet(Fraction(price), Fraction(price * share), years, Fraction(interest))
    assert abs(Fraction(annual_capital_usd(profile, Decimal(price))) - expected) < NOWHERE_NEAR


@given(prices, lives, rates, st.integers(0, 5_000), st.integers(0, 300))
@settings(max_examples=30)
def test_an_owned_hour_is_capital_maintenance_and_hosting_by_the_year(price, years, interest, maintenance, hosting):
    profile = Owned(
        capex_usd=Decimal(price), life_years=Decimal(years), cost_of_capital=interest,
        maintenance_usd_per_year=Decimal(maintenance), hosting_usd_per_kw_month=Decimal(hosting),
        hosting_includes_power=True,
    )  # fmt: skip
    cost = hourly_cost(profile, "H100", 8)
    sheet = yearly_payment(Fraction(price), Fraction(0), years, Fraction(interest)) + maintenance
    kilowatts = Fraction("1.37")
    assert abs(Fraction(cost.fixed_usd) - 8 * sheet / 8766) < NOWHERE_NEAR
    assert abs(Fraction(cost.hosting_usd) - 8 * 12 * hosting * kilowatts / 8766) < NOWHERE_NEAR
    assert cost.energy_usd == 0


# ---- rented


def test_a_month_of_rented_hours_is_its_invoice():
    profile = Rented(usd_per_hour=Decimal("2.49"))
    hours = (hourly_cost(profile, "H100", 8).total_usd for _ in range(29 * 24))
    assert sum(hours) == rent_of_month(2024, 2, 8, Decimal("2.49"))


# ---- reserved


def hours_of(profile, accelerators):
    """The whole term in hours, with what ran in each."""
    count = int((profile.ends - profile.starts) / HOUR)
    return {profile.starts + index * HOUR: Decimal(accelerators(index)) for index in range(count)}


@given(
    st.integers(1, 400).map(lambda cents: Decimal(cents) / 100),
    st.integers(1, 16),
    st.integers(1, 3),
    st.integers(0, 100).map(lambda percent: Decimal(percent) / 100),
    st.integers(0, 40),
)
@settings(max_examples=25)
def test_a_reservation_costs_what_is_paid_for_it_used_or_not(price, reserved, months, upfront, seed):
    profile = Reserved(
        usd_per_hour=price, starts=at("2026-01-01"), months=months, accelerators=reserved, upfront_share=upfront
    )
    used = hours_of(profile, lambda index: (index * 7 + seed) % (reserved + 1))
    told = reserved_use(profile, used, profile.starts, profile.ends)
    paid = sum(reservation_payments(Fraction(price), reserved, profile.starts, months, Fraction(upfront)))
    assert sum(Fraction(one.total_usd) for one in told) == paid
    ran = sum(used.values())
    assert sum(one.used_usd for one in told) == ran * price
    assert sum(one.unused_usd for one in told) == (reserved * len(used) - ran) * price
    assert len(told) == len(used)


@given(
    st.integers(1, 48),
    st.integers(1, 100).map(lambda percent: Decimal(percent) / 100),
    st.integers(1, 25).map(lambda percent: Decimal(percent) / 100),
)
def test_interest_on_what_is_paid_ahead_leaves_nothing_at_the_end_of_the_term(months, upfront, interest):
    price = Decimal("2.5")
    profile = Reserved(
        usd_per_hour=price, starts=at("2026-03-01"), months=months, accelerators=8,
        upfront_share=upfront, cost_of_capital=interest,
    )  # fmt: skip
    hours = 730  # months of one length, as an annuity has them
    monthly = (1 + interest) ** (Decimal(1) / 12) - 1
    ahead = price * hours * months * upfront
    consumed = (profile.effective_usd_per_hour - price * (1 - upfront)) * hours
    for _ in range(months):  # what is paid ahead earns interest until a month takes its part
        ahead = ahead * (1 + monthly) - consumed
    assert abs(ahead) < Decimal("1e-9") * months
    assert profile.effective_usd_per_hour > price


def test_hours_of_a_reservation_carry_its_price_and_the_rest_is_a_line_of_its_own():
    profile = Reserved(usd_per_hour=Decimal(2), starts=at("2026-03-01"), months=12, accelerators=8)
    cost = hourly_cost(profile, "H100", 5, at=at("2026-03-01T10:00"))
    assert (cost.total_usd, cost.energy_usd) == (10, 0)
    (hour,) = reserved_use(
        profile, {at("2026-03-01T10:00"): Decimal(5)}, at("2026-03-01T10:00"), at("2026-03-01T11:00")
    )
    assert (hour.used_usd, hour.unused_usd, hour.surcharge_usd) == (10, 6, 0)
    assert hour.used_usd == cost.total_usd


def test_reserved_accelerators_cannot_be_used_in_another_hour_but_hours_per_month_can():
    used = {at("2026-03-01T00:00"): Decimal(12), at("2026-03-01T01:00"): Decimal(4)}
    price = {"usd_per_hour": Decimal(2), "starts": at("2026-03-01"), "months": 2}
    by_number = reserved_use(
        Reserved(**price, accelerators=8, overage_usd_per_hour=Decimal(3)),
        used,
        at("2026-03-01"),
        at("2026-03-01T02:00"),
    )
    assert [(one.used_usd, one.unused_usd, one.surcharge_usd) for one in by_number] == [(24, 0, 4), (8, 8, 0)]
    in_month = Reserved(**price, hours_per_month=Decimal(16), overage_usd_per_hour=Decimal(3))
    (march, april) = reserved_use(in_month, used, at("2026-03-01"), at("2026-05-01"))
    assert (march.used_usd, march.unused_usd, march.surcharge_usd) == (32, 0, 0)
    assert (april.used_usd, april.unused_usd, april.total_usd) == (0, 32, 32)


def test_a_month_that_is_not_over_has_its_share_of_the_commitment():
    profile = Reserved(usd_per_hour=Decimal(1), starts=at("2026-04-01"), months=1, hours_per_month=Decimal(720))
    (so_far,) = reserved_use(profile, {at("2026-04-02T05:00"): Decimal(100)}, at("2026-04-10"), at("2026-04-16"))
    assert (so_far.start, so_far.end) == (at("2026-04-01"), at("2026-04-16"))
    assert (so_far.committed_hours, so_far.unused_usd) == (360, 260)


def test_nothing_is_owed_outside_the_term():
    profile = Reserved(usd_per_hour=Decimal(1), starts=at("2026-01-31T12:00"), months=1, accelerators=1)
    assert profile.ends == at("2026-02-28T12:00")
    told = reserved_use(profile, {}, at("2025-01-01"), at("2027-01-01"))
    assert (told[0].start, told[-1].end) == (profile.starts, profile.ends)
    with pytest.raises(ValueError, match=r"holds from .* declare how the accelerators are paid then"):
        hourly_cost(profile, "H100", 1, at=profile.ends)


# ---- spot

minutes = st.integers(0, 60 * 24)
series = st.lists(st.tuples(minutes, st.integers(0, 500)), min_size=1, max_size=6, unique_by=lambda one: one[0])


@given(series, st.integers(0, 60 * 24), st.integers(1, 180))
def test_spot_time_costs_what_the_clock_says_minute_by_minute(told, begin, length):
    start = at("2026-03-01")
    changes = tuple(
        (start + timedelta(minutes=minute), Decimal(cents) / 100) for minute, cents in sorted([(-1, 250), *told])
    )
    first = start + timedelta(minutes=begin)
    cost = spot_usd(Spot(prices=changes), first, first + timedelta(minutes=length))
    assert abs(Fraction(cost) - spot_by_the_minute(changes, first, length)) < NOWHERE_NEAR


def test_a_spot_hour_is_the_price_while_it_ran():
    profile = Spot(prices=((at("2026-03-01"), Decimal(2)), (at("2026-03-01T10:15"), Decimal(4))))
    hour = at("2026-03-01T10:00")
    assert hourly_cost(profile, "H100", 8, at=hour).total_usd == 8 * Decimal("3.5")
    assert hourly_cost(profile, "H100", 8, at=hour, elapsed_seconds=900).total_usd == 8 * Decimal("0.5")
    assert hourly_cost(profile, "H100", 8, at=hour, elapsed_seconds=0).total_usd == 0
    with pytest.raises(ValueError, match="no spot price is known at 2026-02-28T23:00"):
        hourly_cost(profile, "H100", 8, at=hour - timedelta(hours=11))


# ---- surveys


def test_a_dated_preset_switches_at_the_instant_of_the_new_survey():
    dated, switch = Preset(name="dated"), at("2026-07-01")
    before, after = (hourly_cost(dated, "H100", 1, at=instant) for instant in (switch - HOUR, switch))
    assert (before.total_usd, after.total_usd) == (Decimal("1.30"), Decimal("1.17"))
    assert before.inputs == hourly_cost(Preset(name="ix-2025"), "H100", 1).inputs
    assert after.inputs == hourly_cost(Preset(name="ix-2026-07"), "H100", 1).inputs
    assert survey_name(dated, at("2020-01-01")) == "ix-2025"
    assert survey_name(Preset(), None) == "ix-2026-07"
    assert [one.effective_from for one in PRESETS.values()] == sorted(one.effective_from for one in PRESETS.values())


# ---- what cannot be

NAIVE = at("2026-01-01").replace(tzinfo=None)
RESERVED = {"usd_per_hour": Decimal(1), "starts": at("2026-01-01"), "months": 1}


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Reserved(**RESERVED), "do not say what is committed: write one of them"),
        (lambda: Reserved(**RESERVED, accelerators=8, hours_per_month=Decimal(1)), "write one of them"),
        (lambda: Reserved(**RESERVED, accelerators=0), "above 0"),
        (lambda: Reserved(**RESERVED | {"months": 0}, accelerators=1), "months 0 is no term"),
        (lambda: Reserved(**RESERVED, accelerators=1, upfront_share=Decimal(2)), "upfront_share 2 is not a share"),
        (lambda: Reserved(**RESERVED | {"usd_per_hour": Decimal(-1)}, accelerators=1), "usd_per_hour -1 is below 0"),
        (lambda: Reserved(**RESERVED | {"starts": NAIVE}, accelerators=1), "has no time zone"),
        (lambda: Reserved(**RESERVED | {"starts": at("2026-01-01T00:30")}, accelerators=1), "whole UTC hour"),
        (lambda: Reserved(**RESERVED | {"starts": at("2026-01-02")}, hours_per_month=Decimal(1)), "first of a UTC"),
        (lambda: Spot(prices=()), "prices are missing"),
        (lambda: Spot(prices=((NAIVE, Decimal(1)),)), "has no time zone"),
        (lambda: Spot(prices=((at("2026-01-01"), Decimal(-1)),)), "-1 from 2026-01-01.* is below 0"),
        (lambda: Spot(prices=((at("2026-01-02"), Decimal(1)), (at("2026-01-01"), Decimal(1)))), "sort them"),
        (lambda: hourly_cost(Spot(prices=((at("2026-01-01"), Decimal(1)),)), "H100", 1), "instant, which is missing"),
        (lambda: hourly_cost(Preset(name="dated"), "H100", 1), "instant, which is missing: give at="),
        (lambda: hourly_cost(Reserved(**RESERVED, accelerators=1), "H100", 1), "instant, which is missing"),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_with_a_remedy(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_market_based_carbon_is_what_was_declared_and_never_the_grid():
    power = {"load_busy": Decimal(1), "load_idle": Decimal(1), "it_kw": Decimal(1), "pue": Decimal(1)}
    grid = hourly_cost(Preset(), "H100", 1, region="us-va", power=Power(**power))
    green = hourly_cost(Preset(), "H100", 1, region="us-va", power=Power(**power, market_gco2e_per_kwh=Decimal(12)))
    assert (grid.market_gco2e_g, green.market_gco2e_g) == (None, 12)
    assert grid.gco2e_g == green.gco2e_g
