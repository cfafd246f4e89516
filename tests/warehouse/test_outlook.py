"""What a period will have cost: exact about what was spent, honest about what is not known, calm about one odd day."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.warehouse.outlook import FEW_DAYS, METHOD, Anomaly, Daily, Forecast, anomalies, forecast

FIRST = date(2026, 9, 1)  # a Tuesday
WEEK = ("100", "103", "104", "103", "98", "52", "46")
AMOUNTS = st.decimals(min_value=0, max_value=10**6, places=9)


def days(count: int, *, growth: str = "0", first: date = FIRST) -> list[Daily]:
    """Weeks that look alike, but for what each day adds to all of it, as a share of the first."""
    found = []
    for n in range(count):
        day = first + timedelta(days=n)
        found.append(Daily(day, Decimal(WEEK[day.weekday()]) * (1 + n * Decimal(growth))))
    return found


def told(history: list[Daily], *, ahead: int, so_far: str = "0", charged: str = "0") -> Forecast:
    today = history[-1].day + timedelta(days=1)
    found = forecast(
        [*history, Daily(today, Decimal(so_far))], today, today + timedelta(days=ahead), today, Decimal(charged)
    )
    assert found is not None
    return found


def test_weeks_that_look_alike_go_on_as_they_were():
    found = told(days(56), ahead=14)
    assert [day.p50_usd for day in found.days] == [Decimal(WEEK[day.day.weekday()]) for day in found.days]
    assert found.p50_usd == 2 * sum(map(Decimal, WEEK))
    assert found.p10_usd == found.p50_usd == found.p90_usd
    assert (found.error.mape, found.error.coverage, found.method) == (0, 1, METHOD)


@pytest.mark.parametrize("growth", ["0.005", "-0.004"])
def test_what_grows_or_shrinks_goes_on_to(growth):
    history = days(56, growth=growth)
    came = sum(one.spend_usd for one in days(70, growth=growth)[56:])
    found = told(history, ahead=14)
    assert abs(found.p50_usd / came - 1) < Decimal("0.03")
    assert found.p10_usd < found.p50_usd < found.p90_usd


def test_one_odd_day_is_not_carried_on():
    history = days(56)
    history[-3] = Daily(history[-3].day, Decimal(9000))
    assert told(history, ahead=7).p50_usd == told(days(56), ahead=7).p50_usd


def test_what_was_spent_and_charged_is_in_it_to_the_last_digit():
    history = [*days(30), Daily(FIRST + timedelta(days=30), Decimal("1.000000000001"))]
    found = forecast(history, FIRST, FIRST + timedelta(days=31), FIRST + timedelta(days=30), Decimal("0.000000000002"))
    assert found is not None
    assert found.actual_usd == sum(one.spend_usd for one in days(30)) + Decimal("1.000000000003")
    assert found.p50_usd - found.actual_usd == found.days[0].p50_usd - Decimal("1.000000000001")


def test_today_costs_what_it_has_cost_where_that_is_more_than_was_expected():
    assert told(days(28), ahead=1, so_far="30").days[0].p50_usd == told(days(28), ahead=1).days[0].p50_usd
    spent = told(days(28), ahead=1, so_far="5000", charged="1")
    assert (spent.days[0].p50_usd, spent.p50_usd, spent.p90_usd) == (5000, 5001, 5001)


def test_a_period_that_is_over_is_what_it_cost():
    found = forecast(days(30), FIRST, FIRST + timedelta(days=7), FIRST + timedelta(days=30))
    assert found is not None
    assert found.p10_usd == found.p50_usd == found.p90_usd == found.actual_usd == sum(map(Decimal, WEEK))
    assert found.days == ()


def test_a_period_to_come_starts_from_what_will_have_been():
    today = FIRST + timedelta(days=28)
    found = forecast(days(28), today + timedelta(days=3), today + timedelta(days=5), today)
    assert found is not None
    assert [day.day for day in found.days] == [today + timedelta(days=3), today + timedelta(days=4)]
    assert [day.p50_usd for day in found.days] == [Decimal(WEEK[day.day.weekday()]) for day in found.days]
    assert found.actual_usd == 0


def test_little_history_says_so():
    today = FIRST + timedelta(days=4)
    assert forecast(days(4), FIRST, FIRST + timedelta(days=30), today) is None
    assert forecast([], FIRST, FIRST + timedelta(days=30), today) is None
    few = told(days(6), ahead=2)
    assert (few.method, few.p10_usd, few.p90_usd, few.error.folds) == (FEW_DAYS, None, None, 0)
    assert few.p50_usd == 2 * (sum(one.spend_usd for one in days(6)) / 6).quantize(Decimal("0.01"))


def test_days_before_the_first_call_are_not_history():
    empty = [Daily(FIRST - timedelta(days=n), Decimal(0)) for n in range(40, 0, -1)]
    assert told([*empty, *days(20)], ahead=7) == told(days(20), ahead=7)


def test_an_unknown_day_is_taken_as_its_weekday_before_it():
    history = days(28)
    history[-1] = Daily(history[-1].day, None)
    assert told(history, ahead=7).p50_usd == told(days(28), ahead=7).p50_usd


@given(st.lists(AMOUNTS, min_size=5, max_size=80), st.integers(1, 40), AMOUNTS)
def test_bounds_are_in_order_and_nothing_that_was_spent_is_lost(amounts, ahead, so_far):
    history = [Daily(FIRST + timedelta(days=n), usd) for n, usd in enumerate(amounts)]
    today = FIRST + timedelta(days=len(history))
    found = forecast([*history, Daily(today, so_far)], FIRST, today + timedelta(days=ahead), today)
    if found is None:
        assert sum(usd > 0 for usd in amounts) < 5
        return
    assert found.actual_usd == sum(amounts) + so_far
    assert found.actual_usd <= found.p50_usd
    assert all(day.p50_usd >= 0 for day in found.days)
    if found.p10_usd is not None:
        assert found.actual_usd <= found.p10_usd <= found.p50_usd <= found.p90_usd
        assert all(day.p10_usd <= day.p50_usd <= day.p90_usd for day in found.days)
    assert sum((day.p50_usd for day in found.days), Decimal(0)) - so_far == found.p50_usd - found.actual_usd


@given(st.lists(AMOUNTS, min_size=30, max_size=60), st.integers(1, 1000))
def test_all_amounts_scaled_scale_the_forecast(amounts, factor):
    one = [Daily(FIRST + timedelta(days=n), usd + 1) for n, usd in enumerate(amounts)]
    many = [Daily(day.day, day.spend_usd * factor) for day in one]
    found, scaled = told(one, ahead=9), told(many, ahead=9)
    assert abs(scaled.p50_usd - found.p50_usd * factor) <= Decimal("0.005") * 9 * (factor + 1)


ALL = [FIRST + timedelta(days=n) for n in range(60)]


def test_a_day_out_of_line_is_found_with_what_it_cost_too_much():
    history = days(35)
    odd = history[30]
    history[30] = Daily(odd.day, odd.spend_usd + 60)
    assert anomalies({("team", "a"): history, ("team", "b"): days(35)}, ALL, Decimal(50)) == [
        Anomaly(odd.day, "team", "a", odd.spend_usd, odd.spend_usd + 60, Decimal(60), 60 / odd.spend_usd)
    ]


@pytest.mark.parametrize(
    ("more", "floor"), [("60", "61"), ("8", "1"), ("-60", "1")], ids=["below the floor", "below a fifth", "a fall"]
)
def test_what_does_not_matter_is_no_anomaly(more, floor):
    history = days(35)
    history[30] = Daily(history[30].day, history[30].spend_usd + Decimal(more))
    assert anomalies({("team", "a"): history}, ALL, Decimal(floor)) == []


def test_a_day_is_not_out_of_line_where_one_of_its_kind_cost_as_much():
    history = days(35)
    for at in (16, 30):
        history[at] = Daily(history[at].day, Decimal(300))
    assert [one.day for one in anomalies({("team", "a"): history}, ALL, Decimal(1))] == [history[16].day]


def test_who_is_new_is_compared_only_once_there_are_two_weekdays():
    assert anomalies({("team", "new"): days(10)}, ALL, Decimal(1)) == []
    assert anomalies({("team", "none"): []}, ALL, Decimal(1)) == []
    appeared = [*days(28), Daily(FIRST + timedelta(days=28), None)]
    assert anomalies({("team", "a"): appeared}, ALL, Decimal(1)) == []


def test_only_days_that_are_looked_at_are_told():
    history = days(35)
    history[30] = Daily(history[30].day, Decimal(900))
    assert anomalies({("team", "a"): history}, [history[29].day], Decimal(1)) == []
