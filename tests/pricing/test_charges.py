"""Charges add up, over days in any order and months of any length, and no credit pays more than its total."""

import random
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.charges import Calls, accrue, covers, settle
from millicent.pricing.entries import Charge

DAY = timedelta(days=1)
NOTHING = Decimal(0)
PICO = Decimal("1e-12")


def charge(kind, since=(2026, 1, 1), until=None, **told):
    return Charge(
        type=kind,
        name=told.pop("name", f"the {kind}"),
        effective_from=datetime(*since, tzinfo=UTC),
        effective_to=datetime(*until, tzinfo=UTC) if until else None,
        source="contract 7",
        **told,
    )


def days_of(year, month):
    return [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]


def by_day(accruals):
    found = {}
    for one in accruals:
        assert one.day not in found, "one accrual a day"
        found[one.day] = one.amount_usd
    return found


def total(accruals):
    return sum((one.amount_usd for one in accruals), NOTHING)


# ---- one by one, by hand


def test_a_fee_stands_on_the_first_day_of_each_month_that_has_begun():
    fee = charge("fee", (2026, 2, 1), (2026, 5, 1), amount_usd=Decimal("99.5"))
    expected = {date(2026, 2, 1), date(2026, 3, 1), date(2026, 4, 1)}
    assert by_day(accrue(fee, {}, date(2027, 1, 1))) == dict.fromkeys(expected, Decimal("99.5"))
    assert [one.words for one in accrue(fee, {}, date(2026, 3, 31))] == ["fee of 2026-02", "fee of 2026-03"]
    assert accrue(fee, {}, date(2026, 1, 31)) == []


def test_a_volume_discount_is_on_the_part_above_each_tier_and_starts_anew_each_month():
    volume = charge("volume", tiers=((Decimal(1000), Decimal(5)), (Decimal(2000), Decimal(10))))
    billed = {
        date(2026, 1, 10): Decimal(900),
        date(2026, 1, 11): Decimal(300),  # 200 above 1,000
        date(2026, 1, 12): Decimal(1800),  # 800 more up to 2,000, then 1,000 above
        date(2026, 2, 1): Decimal(1000),
    }
    found = accrue(volume, billed, date(2026, 3, 1))
    assert by_day(found) == {date(2026, 1, 11): Decimal(-10), date(2026, 1, 12): Decimal(-140)}
    assert [one.words for one in found] == [
        "5 % off above 1,000.00 USD, 1,200.00 billed so far in 2026-01",
        "10 % off above 2,000.00 USD, 3,000.00 billed so far in 2026-01",
    ]


def test_a_credit_that_starts_mid_month_pays_each_day_until_it_is_used_up():
    credit = charge("credit", (2026, 1, 15), amount_usd=Decimal(100))
    billed = {date(2026, 1, day): Decimal("40.000000000001") for day in range(13, 20)}
    found = accrue(credit, billed, date(2026, 1, 31))
    assert by_day(found) == {
        date(2026, 1, 15): Decimal("-40.000000000001"),
        date(2026, 1, 16): Decimal("-40.000000000001"),
        date(2026, 1, 17): Decimal("-19.999999999998"),
    }
    assert found[0].words == "drawn from 100.00 USD, 60.00 left"


def test_a_credit_that_ends_leaves_the_rest_unused():
    credit = charge("credit", (2026, 1, 15), (2026, 1, 17), amount_usd=Decimal(100))
    billed = {date(2026, 1, day): Decimal(10) for day in range(1, 32)}
    assert by_day(accrue(credit, billed, date(2026, 1, 31))) == {
        date(2026, 1, 15): -10,
        date(2026, 1, 16): -10,
    }


@pytest.mark.parametrize(("year", "month", "length"), [(2026, 2, 28), (2028, 2, 29), (2026, 4, 30), (2026, 12, 31)])
def test_a_commitment_is_charged_on_the_last_day_once_the_month_is_over(year, month, length):
    commitment = charge("commitment", (year, month, 1), amount_usd=Decimal(1000))
    billed = dict.fromkeys(days_of(year, month), Decimal(10))
    last = date(year, month, length)
    assert accrue(commitment, billed, last) == []
    (one,) = accrue(commitment, billed, last + DAY)
    assert (one.day, one.amount_usd) == (last, 1000 - 10 * length)
    assert one.words == f"{10 * length}.00 of at least 1,000.00 USD billed in {year}-{month:02}"


def test_months_without_any_call_owe_the_commitment():
    commitment = charge("commitment", (2026, 1, 1), (2026, 3, 1), amount_usd=Decimal(5))
    assert by_day(accrue(commitment, {}, date(2026, 9, 9))) == {date(2026, 1, 31): 5, date(2026, 2, 28): 5}


def test_amounts_of_a_quadrillion_keep_twelve_decimals():
    volume = charge("volume", tiers=((NOTHING, Decimal("33.333333333333")),))
    spent = Decimal("999999999999999.123456789012")
    found = accrue(volume, dict.fromkeys(days_of(2026, 1), spent), date(2026, 1, 31))
    exact = 31 * Fraction(spent) * Fraction("33.333333333333") / 100
    assert abs(sum(Fraction(-one.amount_usd) for one in found) - exact) <= Fraction(1, 2 * 10**12)
    assert {one.amount_usd.as_tuple().exponent for one in found} == {-12}


# ---- closed days


def test_a_fee_that_became_known_after_the_first_was_closed_is_charged_on_the_next_open_day():
    fee = charge("fee", amount_usd=Decimal(10))
    kept = dict.fromkeys(days_of(2026, 1)[:5], NOTHING)
    assert accrue(fee, {}, date(2026, 1, 5), kept) == []
    assert by_day(accrue(fee, {}, date(2026, 1, 6), kept)) == {date(2026, 1, 6): 10}


def test_a_shortfall_that_was_closed_is_corrected_on_the_last_day_that_is_open():
    commitment = charge("commitment", until=(2026, 2, 1), amount_usd=Decimal(10))
    kept = {date(2026, 1, 30): NOTHING, date(2026, 1, 31): Decimal(7)}
    found = accrue(commitment, {date(2026, 1, 3): Decimal(1)}, date(2026, 2, 1), kept)
    assert by_day(found) == {date(2026, 1, 29): 2}
    closed = dict.fromkeys(days_of(2026, 1), NOTHING)
    assert accrue(commitment, {}, date(2026, 2, 1), closed) == []


def test_a_credit_of_which_too_much_was_drawn_draws_no_more():
    credit = charge("credit", amount_usd=Decimal(10))
    kept = {date(2026, 1, 1): Decimal(-12)}
    assert accrue(credit, {date(2026, 1, 2): Decimal(5)}, date(2026, 1, 3), kept) == []


# ---- against an oracle that computes whole months on fractions

MONTHS = st.sampled_from([(2026, 1), (2026, 2), (2026, 4), (2027, 2), (2028, 2), (2026, 12)])
USD = st.integers(0, 10**16).map(lambda pico: pico * PICO)
PERCENTS = st.integers(1, 10**6).map(lambda part: Decimal(part).scaleb(-4))


@st.composite
def months(draw):
    """The days of a month, and what calls are billed on some of them."""
    days = days_of(*draw(MONTHS))
    return days, draw(st.dictionaries(st.sampled_from(days), USD, max_size=12))


@st.composite
def charges(draw, days, kinds=("fee", "volume", "credit", "commitment")):
    kind = draw(st.sampled_from(kinds))
    first = draw(st.sampled_from(days)) if kind == "credit" else days[0]
    past = days[-1] + DAY
    held = {"since": (first.year, first.month, first.day), "until": (past.year, past.month, past.day)}
    if kind == "volume":
        above = sorted(draw(st.sets(USD, min_size=1, max_size=3)))
        return charge(kind, **held, tiers=tuple((usd, draw(PERCENTS)) for usd in above))
    return charge(kind, **held, amount_usd=draw(st.integers(1, 3 * 10**16)) * PICO)


def month_of(one, days, billed):
    """What a charge comes to over a whole month, from the month's sums alone."""
    inside = [Fraction(billed.get(day, NOTHING)) for day in days if day >= one.effective_from.date()]
    spent = sum(inside, Fraction(0))
    match one.type:
        case "fee":
            return Fraction(one.amount_usd)
        case "credit":
            return -min(spent, Fraction(one.amount_usd))
        case "commitment":
            return max(spent, Fraction(one.amount_usd)) - spent
    steps = [*one.tiers, (Decimal(10**9), NOTHING)]
    off = sum(
        (min(spent, Fraction(upper)) - Fraction(above)) * Fraction(percent) / 100
        for (above, percent), (upper, _) in pairwise(steps)
        if spent > above
    )
    return -Fraction(round(off * 10**12), 10**12)  # round() of a Fraction is half-even


@settings(deadline=None)
@given(st.data(), months())
def test_a_month_comes_to_what_its_sums_say(data, month):
    days, billed = month
    one = data.draw(charges(days))
    assert Fraction(total(accrue(one, billed, days[-1] + DAY))) == month_of(one, days, billed)


@settings(deadline=None)
@given(st.data(), months(), st.randoms(use_true_random=False))
def test_the_order_of_days_does_not_matter(data, month, rng: random.Random):
    days, billed = month
    one = data.draw(charges(days).filter(lambda each: each.effective_from.day == 1))
    amounts = [billed.get(day, NOTHING) for day in days]
    rng.shuffle(amounts)
    other = dict(zip(days, amounts, strict=True))
    over = days[-1] + DAY
    assert total(accrue(one, billed, over)) == total(accrue(one, other, over))


@settings(deadline=None)
@given(st.data(), months())
def test_days_that_are_over_do_not_change_and_the_parts_of_a_month_add_up(data, month):
    days, billed = month
    one = data.draw(charges(days))
    over = days[-1] + DAY
    whole = by_day(accrue(one, billed, over))
    split = data.draw(st.sampled_from(days))
    early = by_day(accrue(one, billed, split))
    assert early == {day: amount for day, amount in whole.items() if day <= split and one.type != "commitment"}
    kept = {day: early.get(day, NOTHING) for day in days if day < split}
    late = by_day(accrue(one, billed, over, kept))
    assert {day: amount for day, amount in kept.items() if amount} | late == whole
    assert not kept.keys() & late.keys()


@settings(deadline=None)
@given(st.data(), months())
def test_a_closed_day_keeps_what_stands_on_it_and_the_last_open_day_makes_it_right(data, month):
    days, billed = month
    one = data.draw(charges(days))
    closed = data.draw(st.sets(st.sampled_from(days[:-1])))
    early = by_day(accrue(one, billed, days[-1]))
    kept = {day: early.get(day, NOTHING) for day in closed}
    now = billed | data.draw(st.dictionaries(st.sampled_from(days[:-1]), USD, max_size=5))
    later = by_day(accrue(one, now, days[-1] + DAY, kept))
    assert not closed & later.keys()
    both = Fraction(sum(kept.values(), NOTHING) + sum(later.values(), NOTHING))
    if one.type == "credit":
        assert -both <= one.amount_usd
        assert all(amount >= -now[day] for day, amount in later.items())
    else:
        assert both == month_of(one, days, now)


@settings(deadline=None)
@given(st.data())
def test_credits_over_months_never_exceed_their_total_nor_what_a_day_is_billed(data):
    days = [day for month in (1, 2, 3) for day in days_of(2026, month)]
    billed = data.draw(st.dictionaries(st.sampled_from(days), USD))
    credit = data.draw(charges(days, kinds=["credit"]))
    found = by_day(accrue(credit, billed, days[-1]))
    assert all(-billed[day] <= amount < 0 for day, amount in found.items())
    inside = sum((usd for day, usd in billed.items() if day >= credit.effective_from.date()), NOTHING)
    assert -sum(found.values(), NOTHING) == min(credit.amount_usd, inside)


# ---- several at once


def test_charges_follow_one_another_over_the_calls_of_their_scope():
    first, second = date(2026, 1, 10), date(2026, 1, 11)
    billed = {
        Calls(first, "openai", "gpt-4o"): Decimal(100),
        Calls(first, "anthropic", "claude-sonnet-4-5"): Decimal(50),
        Calls(second, "OpenAI", "gpt-4o-mini"): Decimal(30),
        Calls(second, None, None): Decimal(7),
    }
    fee = charge("fee", amount_usd=Decimal(20), provider="openai")
    volume = charge("volume", tiers=((Decimal(80), Decimal(50)),), provider="openai")
    credit = charge("credit", amount_usd=Decimal(120), provider="openai", model="gpt-4o*")
    commitment = charge("commitment", amount_usd=Decimal(60), provider="openai")
    everything = charge("commitment", amount_usd=Decimal(500), name="all")
    found = settle([everything, commitment, credit, volume, fee], billed, date(2026, 2, 1))
    assert [(one.charge.name, one.day, one.amount_usd) for one in found if one.day.month == 1] == [
        ("the fee", date(2026, 1, 1), 20),
        ("the volume", first, -10),  # (100 − 80) × 50 %
        ("the credit", first, -90),
        ("the volume", second, -15),
        ("the credit", second, -15),
        ("the commitment", date(2026, 1, 31), 40),  # 130 + 20 − 25 − 105 = 20 of 60
        ("all", date(2026, 1, 31), 383),  # 60 + 50 + 7 = 117 of 500
    ]


def test_a_credit_pays_no_fee_and_not_what_another_paid_and_the_one_that_ends_first_is_used_first():
    day = date(2026, 1, 10)
    billed = {Calls(day, "openai", "gpt-4o"): Decimal(100)}
    fee = charge("fee", amount_usd=Decimal(1000))
    later = charge("credit", until=(2027, 1, 1), amount_usd=Decimal(500), name="later")
    sooner = charge("credit", until=(2026, 7, 1), amount_usd=Decimal(60), name="sooner")
    narrow = charge("credit", amount_usd=Decimal(15), name="narrow", provider="openai")
    found = settle([later, fee, sooner, narrow], billed, day)
    assert [(one.charge.name, one.amount_usd) for one in found] == [
        ("the fee", 1000), ("narrow", -15), ("sooner", -60), ("later", -25),
    ]  # fmt: skip


def test_what_is_kept_of_one_charge_counts_for_the_others():
    first, second = date(2026, 1, 10), date(2026, 1, 11)
    billed = {Calls(first, "openai", "gpt-4o"): Decimal(100), Calls(second, "openai", "gpt-4o"): Decimal(100)}
    volume = charge("volume", tiers=((NOTHING, Decimal(10)),))
    credit = charge("credit", amount_usd=Decimal(150))
    kept = {volume: {first: Decimal(-4)}, credit: {first: Decimal(-96)}}
    found = settle([volume, credit], billed, second, kept)
    assert [(one.charge.type, one.day, one.amount_usd) for one in found] == [
        ("volume", second, -16),  # 20 less the 4 that stand
        ("credit", second, -54),  # 150 less the 96 that stand
    ]


def test_a_draw_that_stands_beyond_what_is_billed_now_counts_for_a_commitment():
    day = date(2026, 1, 10)
    credit = charge("credit", until=(2026, 2, 1), amount_usd=Decimal(150))
    commitment = charge("commitment", until=(2026, 2, 1), amount_usd=Decimal(30))
    (one,) = settle(
        [credit, commitment], {Calls(day, "a", "b"): Decimal(90)}, date(2026, 2, 1), {credit: {day: Decimal(-100)}}
    )
    assert (one.charge.type, one.amount_usd) == ("commitment", 40)  # 90 − 100 = −10 of 30


def test_two_volume_discounts_are_each_on_what_calls_are_billed():
    day = date(2026, 1, 10)
    one = charge("volume", tiers=((NOTHING, Decimal(10)),), name="one")
    two = charge("volume", tiers=((NOTHING, Decimal(20)),), name="two")
    found = settle([one, two], {Calls(day, "a", "b"): Decimal(100)}, day)
    assert [each.amount_usd for each in found] == [-10, -20]


@pytest.mark.parametrize(
    ("scope", "provider", "model", "inside"),
    [
        ({}, None, None, True),
        ({"provider": "openai"}, "OpenAI", None, True),
        ({"provider": "openai"}, "azure", "gpt-4o", False),
        ({"provider": "openai"}, None, "gpt-4o", False),
        ({"model": "GPT-4*"}, "azure", "gpt-4o", True),
        ({"model": "gpt-4*"}, "azure", "GPT-4o", True),
        ({"model": "gpt-4.1"}, "openai", "gpt-4x1", False),
        ({"model": "*mini"}, "openai", "gpt-4o-mini", True),
        ({"model": "*mini"}, "openai", "gpt-4o-mini-x", False),
        ({"model": "gpt-4o"}, "openai", "gpt-4o-mini", False),
        ({"model": "gpt-4o"}, "openai", "gpt-4o-2024-11-20", True),
        ({"provider": "aws"}, "aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", True),
        ({"provider": "google"}, "gcp.vertex_ai", "gemini-2.5-pro", True),
        ({"provider": "openai"}, "azure.ai.openai", "gpt-4o", False),
        ({"model": "*"}, None, None, True),
    ],
)
def test_a_scope_is_a_provider_and_a_model_by_any_of_their_names(scope, provider, model, inside):
    assert covers(charge("fee", amount_usd=Decimal(1), **scope), provider, model) is inside


SCOPES = st.sampled_from([{}, {"provider": "openai"}, {"model": "gpt-4o*"}, {"provider": "openai", "model": "gpt-4o"}])
CALLERS = st.sampled_from([("openai", "gpt-4o"), ("openai", "o3"), ("azure", "gpt-4o-mini"), (None, None)])


@settings(deadline=None)
@given(st.data(), months())
def test_no_day_of_calls_goes_below_nothing_and_no_month_below_its_commitment(data, month):
    days, _ = month
    billed = data.draw(st.dictionaries(st.builds(lambda d, c: Calls(d, *c), st.sampled_from(days), CALLERS), USD))
    since = (days[0].year, days[0].month, 1)
    volume = charge("volume", since, tiers=((data.draw(USD), data.draw(PERCENTS)),))
    credits_ = [
        charge("credit", since, amount_usd=data.draw(USD) + PICO, name=f"credit {at}", **data.draw(SCOPES))
        for at in range(data.draw(st.integers(0, 3)))
    ]
    commitments = [
        charge("commitment", since, amount_usd=data.draw(USD) + PICO, name=f"commitment {at}", **scope)
        for at, scope in enumerate([{"provider": "openai"}, {}])
    ]
    found = settle([*commitments, *credits_, volume], billed, days[-1] + DAY)
    for day in days:
        calls = sum((usd for of, usd in billed.items() if of.day == day), NOTHING)
        reductions = total(one for one in found if one.day == day and one.charge.type in {"volume", "credit"})
        assert calls + reductions >= 0
    for one in credits_:
        assert -total(each for each in found if each.charge == one) <= one.amount_usd
    everything = [one for one in found if one.day.month == days[0].month]
    bill = sum(billed.values(), NOTHING) + total(everything)
    widest = commitments[1]
    shortfall = total(one for one in everything if one.charge == widest)
    assert bill == max(bill - shortfall, widest.amount_usd)


def test_two_years_of_three_hundred_models_settle_in_seconds():
    days = [date(2026, 1, 1) + at * DAY for at in range(730)]
    billed = {Calls(day, "openai", f"m{at}"): Decimal("1.25") for day in days for at in range(300)}
    told = [
        charge("credit", amount_usd=Decimal(10**6)),
        charge("volume", tiers=((NOTHING, Decimal(1)),)),
        charge("commitment", amount_usd=Decimal(10**6), provider="openai"),
    ]
    begun = process_time()
    assert settle(told, billed, days[-1] + DAY)
    assert process_time() - begun < 15
