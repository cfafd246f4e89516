"""Budgets: every version is kept, the last one set counts from its instant on, and how they stand adds up."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from millicent.warehouse import budgets, query
from millicent.warehouse.budgets import BadBudgetError, Budget, end, history, live, put
from millicent.warehouse.control import Control
from millicent.warehouse.query import Filter, Period
from millicent.warehouse.standings import standings

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def budget(name: str = "Company", amount: str = "1000", **told) -> Budget:
    return Budget(name=name, amount=Decimal(amount), **{"effective_from": SINCE, **told})


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path)
    yield made
    made.close()


def set_(control: Control, *args, **told) -> Budget:
    return put(control, "default", budget(*args, **told), "ann")


# ---- versions


def test_a_budget_is_kept_with_every_version(control):
    first = set_(control, note="as agreed", owner="Ann", filters=(Filter("team", ("a", None), negated=True),))
    assert (first.id, first.version, first.author) == (1, 1, "ann")
    second = put(control, "default", replace(first, amount=Decimal("1200.50"), effective_from=NOON), "bob")
    assert (second.id, second.version) == (1, 2)
    assert history(control, "default", 1) == [first, second]
    assert live(control, "default", NOON - DAY) == [first]
    assert live(control, "default", NOON) == [second]
    assert live(control, "default", SINCE - DAY) == []
    with control.begin() as connection:
        told = connection.execute(text("SELECT actor FROM audit WHERE action = 'budget.set'")).scalars().all()
    assert told == ["ann", "bob"]


def test_what_was_set_last_counts_from_its_instant_on(control):
    set_(control, amount="1")
    set_(control, amount="2", effective_from=NOON)
    set_(control, amount="3", effective_from=NOON - DAY)
    assert [live(control, "default", at)[0].amount for at in (SINCE, NOON - DAY, NOON + DAY)] == [1, 3, 3]


def test_the_same_again_is_no_version(control):
    assert set_(control) == set_(control) == set_(control, effective_from=NOON)
    assert len(history(control, "default", 1)) == 1
    assert set_(control, effective_from=SINCE - DAY).version == 2  # it holds from earlier on


def test_an_ended_budget_is_kept_and_its_name_is_free(control):
    set_(control)
    gone = end(control, "default", 1, "bob", NOON)
    assert (gone.ended, gone.version) == (True, 2)
    assert [len(live(control, "default", at)) for at in (NOON - DAY, NOON)] == [1, 0]
    assert set_(control, effective_from=NOON).id == 2
    with pytest.raises(BadBudgetError, match="no budget 1 that holds"):
        end(control, "default", 1, "bob")


def test_it_is_not_set_over_a_version_that_was_not_read(control):
    first = set_(control)
    put(control, "default", replace(first, amount=Decimal(5)), "bob")
    with pytest.raises(BadBudgetError, match="not at version 1 any more, it is at version 2"):
        put(control, "default", replace(first, amount=Decimal(7)), "ann")


def test_parts_of_budgets_are_no_circle(control):
    whole = set_(control)
    part = set_(control, "Part", parent=whole.id)
    assert part.parent == whole.id
    with pytest.raises(BadBudgetError, match="itself or a part of it"):
        put(control, "default", replace(whole, parent=part.id), "ann")
    with pytest.raises(BadBudgetError, match="parent 9 is no budget"):
        set_(control, "Other", parent=9)
    with pytest.raises(BadBudgetError, match="there is a budget 'Company' already"):
        put(control, "default", replace(part, name="Company"), "ann")


def test_tenants_do_not_see_each_other(facts):
    put(facts.control, "acme", budget(), "ann")
    assert live(facts.control, "rival", NOON) == history(facts.control, "rival", 1) == []
    with pytest.raises(BadBudgetError, match="tenant 'nobody' is unknown"):
        put(facts.control, "nobody", budget(), "ann")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"amount": "0"}, "amount 0 is not above 0"),
        ({"amount": "NaN"}, "amount NaN"),
        ({"name": " "}, "name ' ' is empty"),
        ({"name": "a\nb"}, "characters that are no text"),
        ({"note": "x" * 1025}, "note is 1,025 characters long"),
        ({"period": "year"}, "period 'year' is unknown"),
        ({"basis": "gross"}, "basis 'gross' is unknown"),
        ({"currency": "usd"}, "currency 'usd' is not three"),
        ({"time_zone": "Mars/Base"}, "time zone 'Mars/Base' is unknown"),
        ({"fiscal_month": 13}, "fiscal_month 13 is no month"),
        ({"effective_from": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001 - that is the point
        ({"effective_from": datetime(1900, 1, 1, tzinfo=UTC)}, "correct the year"),
        ({"filters": (Filter("team", ("a",)),) * 11}, "11 filters are too many"),
    ],
)
def test_what_cannot_be_says_why(told, words):
    with pytest.raises(BadBudgetError, match=words):
        budget(**told)


def test_amounts_are_read_as_people_write_them():
    assert budgets.amount("27,500.5") == Decimal("27500.5")
    with pytest.raises(BadBudgetError, match="'much' is no number"):
        budgets.amount("much")


@pytest.mark.parametrize(
    ("told", "start", "over"),
    [
        ({"period": "day"}, datetime(2026, 3, 18, tzinfo=UTC), DAY),
        ({"period": "week"}, datetime(2026, 3, 16, tzinfo=UTC), 7 * DAY),
        ({"period": "month"}, datetime(2026, 3, 1, tzinfo=UTC), 31 * DAY),
        ({"period": "quarter"}, datetime(2026, 1, 1, tzinfo=UTC), 90 * DAY),
        ({"period": "quarter", "fiscal_month": 2}, datetime(2026, 2, 1, tzinfo=UTC), 89 * DAY),
        ({"period": "fiscal_year", "fiscal_month": 4}, datetime(2025, 4, 1, tzinfo=UTC), 365 * DAY),
        ({"time_zone": "Asia/Kolkata"}, datetime(2026, 2, 28, 18, 30, tzinfo=UTC), 31 * DAY),
    ],
)
def test_periods_begin_where_people_expect(told, start, over):
    assert budget(**told).period_at(NOON) == Period(start, start + over)


# ---- how they stand


@pytest.fixture
def stand(facts, a_call):
    """Spends 10 USD a day of team a and 5 of team b, from 1 February to 18 March, and says how budgets stand then."""
    first = datetime(2026, 2, 1, 9, tzinfo=UTC)
    facts.store(
        *(
            a_call(started_at=first + n * DAY, team=team, billed_cost_usd=Decimal(usd))
            for n in range(46)
            for team, usd in (("a", 10), ("b", 5))
        )
    )

    def standing(*wanted: Budget, at: datetime = NOON):
        asked.clear()

        def ask(question):
            asked.append(question)
            return query.run(facts.engine, "acme", question).frame

        return standings(ask, wanted, at)

    asked: list = []
    standing.asked = asked
    return standing


A = (Filter("team", ("a",)),)


def test_a_budget_stands_by_what_was_spent_and_what_is_to_come(stand):
    (found,) = stand(budget(amount="500"))
    assert (found.actual, found.limit, found.ratio) == (270, 500, Decimal("0.54"))
    assert found.forecast.p50_usd == 31 * 15
    assert (found.state, found.run_out_date, found.incomplete) == ("kept", None, ())
    assert found.elapsed_ratio == Decimal("0.5645")
    assert found.spent[0] == (date(2026, 3, 1), 15)
    assert found.spent[-1] == (date(2026, 3, 18), 270)


@pytest.mark.parametrize(
    ("amount", "state", "when"),
    [
        ("100", "over", date(2026, 3, 7)),
        ("270", "over", date(2026, 3, 18)),
        ("400", "will_be_over", date(2026, 3, 27)),
        ("465", "will_be_over", date(2026, 3, 31)),
        ("466", "kept", None),
    ],
)
def test_it_says_when_it_runs_out(stand, amount, state, when):
    (found,) = stand(budget(amount=amount))
    assert (found.state, found.run_out_date) == (state, when)


def test_budgets_of_all_and_of_teams_are_one_question(stand):
    found = stand(
        budget(),
        budget("a", filters=A),
        budget("not a", filters=(replace(A[0], negated=True),)),
        budget("nobody", filters=(Filter("team", (None,)),)),
    )
    assert [one.actual for one in found] == [270, 180, 90, 0]
    assert len(stand.asked) == 1


def test_a_budget_of_weeks_looks_at_its_week(stand):
    (found,) = stand(budget(period="week", filters=A))
    assert (found.actual, found.forecast.p50_usd) == (30, 70)


def test_other_dimensions_are_asked_of_the_warehouse(stand):
    (found,) = stand(budget(filters=(Filter("model", ("none",)), *A)))
    assert (found.actual, found.forecast, found.state, found.run_out_date) == (0, None, "unknown", None)
    assert stand.asked[0].filters == (Filter("model", ("none",)),)


def test_charges_count_and_are_not_carried_on(stand, facts, a_charge):
    facts.charge(a_charge(charged_at=datetime(2026, 3, 2, tzinfo=UTC), billed_usd=Decimal(100)))
    (found,) = stand(budget())
    assert (found.actual, found.forecast.p50_usd) == (370, 31 * 15 + 100)


def test_what_is_not_known_makes_it_incomplete(stand, facts, a_call):
    at = NOON - DAY
    facts.store(
        a_call(started_at=at, team="a", price_status="unpriced"),
        a_call(started_at=at, team="a", price_status="unpriced"),
        a_call(started_at=at, billed_cost_usd=Decimal(1)),
        a_call(started_at=datetime(2026, 2, 2, tzinfo=UTC), team="a", price_status="unpriced"),
    )
    whole, part = stand(budget(), budget("a", filters=A))
    assert whole.incomplete == ("2 calls are unpriced",)
    assert part.incomplete == ("2 calls are unpriced", "1 call is of no team")
    assert (whole.actual, part.actual) == (271, 180)


def test_a_period_that_is_over_is_what_it_cost(stand):
    (found,) = stand(budget(period="day"), at=datetime(2026, 3, 10, 23, 59, tzinfo=UTC))
    assert (found.actual, found.forecast.p50_usd, found.spent) == (15, 15, ((date(2026, 3, 10), 15),))
