"""How budgets stand that roll, carry over or cannot be told; what past periods came to; suggestions and trials."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millicent.warehouse import query
from millicent.warehouse.budget_trials import USUAL, Fired, Threshold, simulate, suggest
from millicent.warehouse.budgets import BadBudgetError, Budget, parts, periods
from millicent.warehouse.instants import day_of
from millicent.warehouse.query import BadQuery, Filter, Period
from millicent.warehouse.standings import Standing, Untold, history_query, spent_by_period, standings
from millicent.warehouse.workspace import zone

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = datetime(2026, 1, 12, 9, tzinfo=UTC)
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ZONES = ("Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "Asia/Beirut",
         "America/Havana", "Pacific/Apia", "UTC")  # fmt: skip
A = (Filter("team", ("a",)),)


def budget(amount: str = "1000", **told) -> Budget:
    return Budget(**{"name": "Company", "amount": Decimal(amount), "effective_from": SINCE, "id": 1, **told})


@pytest.fixture(scope="module")
def ask(shared_facts, a_call):
    """Answers of a tenant that spends 10 USD a day as team a and 5 as team b, from 12 January to 18 March 2026."""
    shared_facts.store(
        *(
            a_call(started_at=FIRST + n * DAY, team=team, billed_cost_usd=Decimal(usd))
            for n in range(66)
            for team, usd in (("a", 10), ("b", 5))
        )
    )
    return lambda question: query.run(shared_facts.engine, "acme", question).frame


def stand(ask, one: Budget, at: datetime = NOON, versions: tuple[Budget, ...] = ()) -> Standing:
    (found,) = standings(ask, [one], at, versions)
    assert isinstance(found, Standing)
    return found


# ---- periods


@given(
    at=st.datetimes(datetime(2008, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - it has one
    name=st.sampled_from(ZONES),
    terms=st.sampled_from(("day", "week", "month", "quarter", "fiscal_year", 1, 7, 30)),
    month=st.integers(1, 12),
)
@example(at=datetime(2010, 11, 7, 2, 45, tzinfo=UTC), name="America/St_Johns", terms="day", month=1)
@example(at=datetime(2011, 12, 30, 10, tzinfo=UTC), name="Pacific/Apia", terms="week", month=1)
def test_an_instant_is_in_its_period_and_periods_follow_on_each_other(at, name, terms, month):
    rolling = isinstance(terms, int)
    one = budget(
        period="rolling" if rolling else terms, rolling_days=terms if rolling else None, time_zone=name,
        fiscal_month=month,
    )  # fmt: skip
    period = one.period_at(at)
    assert period.start <= at < period.end
    following = one.period_at(period.end)
    if rolling:
        assert day_of(period.start, zone(name)) + terms * DAY >= day_of(following.start, zone(name)) + (terms - 1) * DAY
    else:
        assert following.start == period.end
        assert one.period_at(period.start) == one.period_at(period.end - timedelta(microseconds=1)) == period


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 12, tzinfo=UTC), 23),
        ("Europe/Berlin", datetime(2026, 10, 25, 12, tzinfo=UTC), 25),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 20, tzinfo=UTC), 24.5),
        ("Asia/Kolkata", datetime(2026, 3, 1, tzinfo=UTC), 24),
        ("America/St_Johns", datetime(2010, 11, 7, 12, tzinfo=UTC), 25),
    ],
)
def test_days_are_as_long_as_their_zone_makes_them(name, day, hours):
    found = budget(period="day", time_zone=name).period_at(day)
    assert found.end - found.start == timedelta(hours=hours)
    assert found.start.astimezone(zone(name)).hour == 0


def test_a_period_goes_by_the_version_that_held_when_it_ended():
    march, later = datetime(2026, 3, 10, tzinfo=UTC), datetime(2026, 4, 15, tzinfo=UTC)
    first = budget("100", version=1)
    second = budget("200", version=2, effective_from=march)
    third = budget("50", version=3, effective_from=later, period="week")
    found = periods([first, second, third], SINCE + 40 * DAY, later + 8 * DAY)
    assert [(one.budget.version, f"{one.period.start:%m-%d}") for one in found] == [
        (1, "02-01"), (2, "03-01"), (3, "04-13"), (3, "04-20"),
    ]  # fmt: skip
    assert periods([first, replace(first, ended=True, effective_from=march)], march - DAY, later) == []
    assert periods([first], SINCE - 40 * DAY, SINCE - DAY) == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"period": "rolling"}, "rolling_days None is not 1 to 366"),
        ({"period": "rolling", "rolling_days": 367}, "rolling_days 367 is not 1 to 366"),
        ({"rolling_days": 7}, "rolling_days 7 are for the period rolling"),
        ({"period": "rolling", "rolling_days": 7, "rollover": "unspent"}, "rollover unspent cannot be"),
        ({"rollover": "all"}, "rollover 'all' is unknown: write none, unspent, balance"),
        ({"enforcement": "stop"}, "enforcement 'stop' is unknown: write none, warn, block"),
    ],
)
def test_what_cannot_roll_or_be_carried_over_says_why(told, words):
    with pytest.raises(BadBudgetError, match=words):
        budget(**told)


# ---- rolling and carried over


def test_a_rolling_budget_looks_at_its_last_days(ask):
    found = stand(ask, budget("200", period="rolling", rolling_days=7))
    assert found.period == Period(datetime(2026, 3, 12, tzinfo=UTC), datetime(2026, 3, 19, tzinfo=UTC))
    assert (found.actual, found.limit, found.state, found.run_out_date) == (105, 200, "kept", None)
    assert len(found.spent) == 7
    over = stand(ask, budget("105", period="rolling", rolling_days=7))
    assert (over.state, over.run_out_date) == ("over", date(2026, 3, 18))


def test_a_rolling_budget_says_which_coming_day_reaches_it(shared_facts, a_call):
    instants = [NOON - HOUR - n * DAY for n in range(60)]
    shared_facts.store(
        *(
            a_call(tenant="fridays", started_at=at, billed_cost_usd=Decimal(100 if at.weekday() == 4 else 1))
            for at in instants
        )
    )

    def of_fridays(question):
        return query.run(shared_facts.engine, "fridays", question).frame

    found = stand(of_fridays, budget("100", period="rolling", rolling_days=3))
    assert (found.actual, found.state, found.run_out_date) == (3, "kept", date(2026, 3, 20))
    assert stand(of_fridays, budget("103", period="rolling", rolling_days=3)).run_out_date is None


@pytest.mark.parametrize(
    ("rollover", "amount", "carried"),
    [
        ("none", "500", 0),
        ("unspent", "500", (500 - 20 * 15) + 500 - 28 * 15),
        ("balance", "400", (400 - 20 * 15) + 400 - 28 * 15),
        ("unspent", "310", 0),
        ("balance", "300", 300 + 300 - 48 * 15),
    ],
)
def test_what_periods_leave_counts_in_the_next(ask, rollover, amount, carried):
    found = stand(ask, budget(amount, rollover=rollover))
    assert (found.carried, found.limit) == (carried, Decimal(amount) + carried)
    (*_, last) = spent_by_period(ask, [budget(amount, rollover=rollover)], SINCE, NOON).iter_rows(named=True)
    assert (last["carried"], last["limit"]) == (found.carried, found.limit)


def test_a_limit_that_earlier_periods_took_whole_is_nothing_and_over(ask):
    found = stand(ask, budget("100", rollover="balance"))
    assert found.carried == 200 - 48 * 15
    assert (found.limit, found.ratio, found.expected_ratio, found.state) == (0, None, None, "over")
    assert found.run_out_date == date(2026, 3, 1)


def test_nothing_is_carried_over_from_before_a_budget_did_so(ask):
    plain = budget("500", version=1)
    since_march = replace(plain, rollover="unspent", effective_from=datetime(2026, 3, 2, tzinfo=UTC), version=2)
    assert stand(ask, since_march, versions=(plain, since_march)).carried == 0
    since_february = replace(since_march, effective_from=datetime(2026, 2, 2, tzinfo=UTC))
    assert stand(ask, since_february, versions=(plain, since_february)).carried == 500 - 28 * 15
    in_euro = replace(since_february, currency="EUR")
    of_another = replace(since_march, version=3)
    assert stand(ask, of_another, versions=(plain, in_euro, of_another)).carried == 0


def test_one_that_cannot_be_told_keeps_no_other_from_it(ask):
    good, bad = budget(), budget(id=2, name="Kroner", currency="DKK")
    first, second, third = standings(ask, [bad, good, replace(bad, filters=A)], NOON)
    assert isinstance(first, Untold)
    assert isinstance(third, Untold)
    assert "no exchange rate of DKK is known" in first.failure
    assert first.period == good.period_at(NOON)
    assert isinstance(second, Standing)
    assert (second.actual, second.failure) == (270, None)


@pytest.mark.parametrize("filters", [(), A, (replace(A[0], negated=True),)])
def test_more_teams_than_an_answer_has_rows_for_change_nothing(ask, monkeypatch, filters):
    usual = stand(ask, budget(filters=filters))
    monkeypatch.setattr(query, "MAX_ROWS", 100)  # of 66 days with two teams each
    with pytest.raises(BadQuery, match="rows"):
        ask(history_query(budget(), NOON))
    assert stand(ask, budget(filters=filters)) == usual


# ---- past periods


def test_past_periods_tell_what_is_not_in_them(ask, shared_facts, a_call):
    at = datetime(2026, 2, 10, 9, tzinfo=UTC)
    shared_facts.store(
        a_call(tenant="rival", started_at=at, team="a", price_status="unpriced"),
        a_call(tenant="rival", started_at=at, team="a", usage_source="missing", billed_cost_usd=Decimal(3)),
        a_call(tenant="rival", started_at=at, billed_cost_usd=Decimal(1)),
    )

    def of_rival(question):
        return query.run(shared_facts.engine, "rival", question).frame

    (found,) = spent_by_period(of_rival, [budget(filters=A)], at, at + DAY).iter_rows(named=True)
    assert (found["actual"], found["limit"]) == (3, 1000)
    assert (found["unpriced_calls"], found["missing_usage_calls"], found["unattributed_calls"]) == (1, 1, 1)
    assert spent_by_period(of_rival, [], at, at + DAY).is_empty()


# ---- what is part of what


def test_parts_that_come_to_more_than_the_whole_are_told():
    whole = budget("100", filters=(Filter("environment", ("prod",)),))
    within = budget("60", id=2, parent=1, filters=(*whole.filters, *A))
    apart = replace(within, id=3, currency="EUR")
    outside = replace(within, id=4, filters=A)
    other = replace(within, id=5, parent=2)
    found = parts(whole, [whole, within, apart, outside, other])
    assert (found.budgets, found.apart, found.outside) == ((within, apart, outside), (apart,), (outside,))
    assert (found.amount, found.exceeds) == (120, True)
    assert not parts(within, [within, other]).exceeds


# ---- suggestions and trials


def test_an_amount_is_suggested_from_the_last_periods(ask):
    weekly = suggest(ask, budget(period="week"), NOON)
    assert [one.actual for one in weekly.history] == [105] * 8
    assert weekly.amount == 120  # 115.50, rounded up
    assert weekly.method == "Median of the last 4 periods, and 10% more, rounded up."
    exact = suggest(ask, budget(period="week", filters=A), NOON, Decimal(0))
    assert (exact.amount, exact.method) == (70, "Median of the last 4 periods, rounded up.")
    monthly = suggest(ask, budget(), NOON)
    assert [one.actual for one in monthly.history] == [28 * 15]
    assert monthly.method.startswith("What the present period is forecast to come to")
    assert monthly.amount == 515  # 465 and a tenth, rounded up
    rolling = suggest(ask, budget(period="rolling", rolling_days=10), NOON, Decimal(0))
    assert ({one.actual for one in rolling.history}, rolling.amount) == ({150}, 150)


def test_where_no_period_is_whole_days_tell(ask):
    yearly = suggest(ask, budget(period="fiscal_year", fiscal_month=1), NOON, Decimal(0))
    assert yearly.history == ()
    assert yearly.amount == Decimal(5500)  # 365 days of 15
    nothing = suggest(ask, budget(filters=(Filter("team", ("nobody",)),)), NOON)
    assert (nothing.amount, nothing.history) == (None, ())
    with pytest.raises(BadQuery, match="more NaN is not 0 to 10"):
        suggest(ask, budget(), NOON, Decimal("NaN"))


def test_a_trial_tells_when_each_threshold_would_have(ask):
    rules = (Threshold("actual", Decimal("0.5")), Threshold("actual", Decimal(1)), Threshold("forecast", Decimal(1)))
    found = simulate(ask, budget("420"), rules, SINCE, NOON)
    january, february, march = found.periods
    assert [one.over for one in found.periods] == [True, True, False]
    assert (january.actual, february.actual, march.actual) == (300, 420, 270)
    assert january.fired == (Fired("actual", Decimal("0.5"), date(2026, 1, 25)),)
    assert february.fired[-1] == Fired("actual", Decimal(1), date(2026, 2, 28))
    assert february.fired[0] == Fired("forecast", Decimal(1), date(2026, 2, 1))
    assert february.run_out_date == date(2026, 2, 28)
    assert march.fired == (Fired("forecast", Decimal(1), date(2026, 3, 1)),
                           Fired("actual", Decimal("0.5"), date(2026, 3, 14)))  # fmt: skip
    assert (found.exceeded, found.told) == (1, 6)


def test_a_trial_carries_over_from_the_first_period_in_which_something_was_spent(ask):
    found = simulate(ask, budget("400", rollover="balance"), USUAL, SINCE - 60 * DAY, NOON)
    assert [(one.limit, one.carried) for one in found.periods] == [(400, 0), (500, 100), (480, 80)]
    empty = budget("400", rollover="unspent", filters=(Filter("team", ("nobody",)),))
    assert simulate(ask, empty, USUAL, SINCE, NOON).periods == ()


def test_a_trial_of_a_rolling_budget_tells_again_once_it_fell_below(shared_facts, a_call):
    peaks = {0, 1, 20, 21}
    shared_facts.store(
        *(
            a_call(tenant="peaks", started_at=FIRST + n * DAY, billed_cost_usd=Decimal(50 if n in peaks else 1))
            for n in range(30)
        )
    )

    def of_peaks(question):
        return query.run(shared_facts.engine, "peaks", question).frame

    wanted = budget("100", period="rolling", rolling_days=3)
    found = simulate(of_peaks, wanted, (Threshold("actual", Decimal(1)),), FIRST, FIRST + 30 * DAY)
    assert [one.day for period in found.periods for one in period.fired] == [date(2026, 1, 13), date(2026, 2, 2)]
    assert found.exceeded <= 2
    assert [one.period.end for one in found.periods] == sorted(one.period.end for one in found.periods)


def test_a_trial_is_not_longer_than_can_be_looked_at(ask):
    with pytest.raises(BadQuery, match="is not 1 to 400 days"):
        simulate(ask, budget(), USUAL, NOON - 401 * DAY, NOON)
    with pytest.raises(BadQuery, match="is not 1 to 400 days"):
        simulate(ask, budget(), USUAL, NOON, NOON)
