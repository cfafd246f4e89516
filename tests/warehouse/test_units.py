"""Business units: what is read, kept and counted, and which calls pay for one."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.warehouse import query, units
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.units import SCOPES, BadUnitsError, Units, Uploaded

DAY = date(2026, 3, 4)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
WEEK = Period(NOON.replace(hour=0), NOON.replace(hour=0) + timedelta(days=7))


def row(quantity=10, day=DAY, unit="ticket", revenue=None, **told) -> Units:
    revenue = None if revenue is None else Decimal(revenue)
    return Units(unit=unit, day=day, quantity=Decimal(quantity), revenue_usd=revenue, **told)


# ---- reading


def test_a_file_is_read_with_its_columns_in_any_order():
    text = "\ufeffday,unit,revenue_usd,quantity,team\n2026-03-04,ticket,12.50,3,Search\n2026-03-05,ticket,,0,\n"
    assert units.read_csv(text) == [row(3, revenue="12.50", team="Search"), row(0, day=date(2026, 3, 5))]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"unit": "t", "day": "2026-03-04"}, "quantity is missing"),
        ({"unit": "t", "day": "4 March", "quantity": 1}, "write it as 2026-11-23"),
        ({"unit": "t", "day": "2999-01-01", "quantity": 1}, "still to come"),
        ({"unit": "t", "day": "2026-03-04", "quantity": "NaN"}, "is no number"),
        ({"unit": "t", "day": "2026-03-04", "quantity": -1}, "negative or too large"),
        ({"unit": "t", "day": "2026-03-04", "quantity": True}, "write text or a number"),
        ({"unit": "t\x00", "day": "2026-03-04", "quantity": 1}, "holds others than letters"),
        ({"unit": "t", "day": "2026-03-04", "quantity": 1, "teem": "x"}, "'teem' is no column"),
        ("ticket", "is no row"),
    ],
)
def test_what_is_wrong_is_told_with_its_row(told, words):
    with pytest.raises(BadUnitsError, match="row 1: ") as refused:
        units.read([told])
    assert words in str(refused.value)


def test_rows_that_are_of_the_same_and_files_without_rows_are_refused():
    twice = [units.written(row()), units.written(row(11))]
    with pytest.raises(BadUnitsError, match="as row 1: add them up"):
        units.read(twice)
    for text in ("", "unit,day,quantity\n", 'unit,day,quantity\n"'):
        with pytest.raises(BadUnitsError):
            units.read_csv(text)


# ---- keeping

kept = st.dictionaries(
    st.tuples(st.sampled_from(("ticket", "page")), st.integers(0, 3), st.none() | st.sampled_from(("a", "b"))),
    st.tuples(st.integers(0, 50), st.none() | st.integers(-5, 5)),
    min_size=1, max_size=8,
)  # fmt: skip


@given(kept, kept)
def test_the_last_upload_of_a_row_holds_and_the_same_again_changes_nothing(shared_facts, first, second):
    control = shared_facts.control
    for unit in ("ticket", "page"):
        units.remove(control, "acme", unit, "test")
    uploads = [
        [row(n, DAY + timedelta(days=day), unit, revenue, team=team) for (unit, day, team), (n, revenue) in one.items()]
        for one in (first, second)
    ]
    assert units.upload(control, "acme", uploads[0], "test") == Uploaded(len(first), 0, 0)
    done = units.upload(control, "acme", uploads[1], "test")
    assert (done.added, done.replaced + done.unchanged) == (
        len(second.keys() - first.keys()),
        len(first.keys() & second),
    )
    assert units.upload(control, "acme", uploads[1], "test") == Uploaded(0, 0, len(second))
    assert len(units.stored(control, "acme")) == len(first | second)
    assert set(uploads[1]) <= set(units.stored(control, "acme"))
    assert units.stored(control, "rival") == []


def test_units_are_listed_by_name_and_days_and_forgotten(facts):
    rows = [row(1), row(2, DAY + timedelta(days=1)), row(3, unit="page")]
    units.upload(facts.control, "acme", rows, "ann")
    assert units.names(facts.control, "acme") == [("page", 1, DAY, DAY), ("ticket", 2, DAY, DAY + timedelta(days=1))]
    assert units.stored(facts.control, "acme", DAY, DAY, "ticket") == [rows[0]]
    assert units.remove(facts.control, "acme", "ticket", "ann") == 2
    assert units.names(facts.control, "acme") == [("page", 1, DAY, DAY)]
    with pytest.raises(BadUnitsError, match="more than 50 units"):
        units.upload(facts.control, "acme", [row(unit=str(n)) for n in range(50)], "ann")


# ---- what they cost


def daily(facts, rows, *filters: Filter, period: Period = WEEK) -> dict[date, dict]:
    question = Query(measures=("calls",), period=period, filters=filters)
    found = units.daily(lambda asked: query.run(facts.engine, "acme", asked).frame, question,
                        units.within(rows, question))  # fmt: skip
    return {one.pop("day"): one for one in found.to_dicts()}


def test_a_unit_costs_what_the_calls_cost_that_are_told_of_the_same(facts, a_call):
    for at, team, feature, usd in (
        (NOON, "s", "triage", 2),
        (NOON, "s", "chat", 4),
        (NOON + timedelta(days=1), "s", "triage", 8),
    ):
        facts.store(a_call(started_at=at, team=team, feature=feature, billed_cost_usd=Decimal(usd)))
    (found,) = daily(facts, [row(10, feature="triage", revenue=5)]).values()
    assert found == {"quantity": 10, "spend_usd": 2, "calls": 1, "revenue_usd": 5, "earning_spend_usd": 2}
    assert daily(facts, [row(10)])[DAY]["spend_usd"] == 6
    assert daily(facts, [row(10, team="nobody")])[DAY]["spend_usd"] is None


def test_calls_that_several_rows_name_count_once_and_only_where_revenue_is_told_do_they_earn(facts, a_call):
    for customer, usd in (("a", 1), ("b", 2), ("c", 4)):
        facts.store(a_call(started_at=NOON, feature="triage", customer=customer, billed_cost_usd=Decimal(usd)))
    rows = [row(1, feature="triage", customer="a", revenue=9), row(5, feature="triage"), row(1, customer="b")]
    (found,) = daily(facts, rows).values()
    assert (found["quantity"], found["spend_usd"], found["earning_spend_usd"]) == (7, 7, 1)


def test_rows_follow_what_is_filtered_and_those_that_do_not_tell_are_left_out():
    rows = [row(1, team="s"), row(2, team="t"), row(4)]
    for keep, wanted in (((), 7), ((Filter("team", ("s",)),), 1), ((Filter("team", ("s",), negated=True),), 6),
                         ((Filter("team", (None,)),), 4), ((Filter("model", ("m",)),), 7)):  # fmt: skip
        left = units.within(rows, Query(measures=("calls",), period=WEEK, filters=keep))
        assert sum(one.quantity for one in left) == wanted


calls_of = st.lists(
    st.tuples(st.integers(0, 2), *(st.sampled_from((None, "a", "b")) for _ in SCOPES), st.integers(1, 99)), max_size=12
)
scopes = st.fixed_dictionaries({}, optional={name: st.sampled_from(("a", "b")) for name in SCOPES})


@given(calls_of, st.lists(st.tuples(st.integers(0, 2), scopes), min_size=1, max_size=4))
def test_every_call_that_a_row_names_is_paid_by_its_day_once(made, told):
    """Against the plainest possible telling: each call is looked at with each row."""
    facts = pl.DataFrame(
        [{"time": WEEK.start + timedelta(days=day), **dict(zip(SCOPES, tags, strict=True)), "spend_usd": Decimal(usd),
          "calls": 1} for day, *tags, usd in made],
        schema={"time": pl.Datetime("us", "UTC"), **dict.fromkeys(SCOPES, pl.String), "spend_usd": pl.Decimal(38, 12),
                "calls": pl.Int64},
    )  # fmt: skip

    def ask(asked: Query) -> pl.DataFrame:
        keys = ["time", *asked.dimensions]
        return facts.group_by(keys).agg(pl.col("spend_usd", "calls").sum())

    rows = [row(1, DAY + timedelta(days=day), **scope) for day, scope in told]
    found = units.daily(ask, Query(measures=("calls",), period=WEEK), rows)
    for one in found.to_dicts():
        mine = [scope for day, scope in told if DAY + timedelta(days=day) == one["day"]]
        of_day = [(dict(zip(SCOPES, tags, strict=True)), usd) for day, *tags, usd in made
                  if DAY + timedelta(days=day) == one["day"]]  # fmt: skip
        paid = [usd for tags, usd in of_day if any(scope.items() <= tags.items() for scope in mine)]
        assert (one["spend_usd"], one["calls"]) == ((sum(paid), len(paid)) if paid else (None, None))
        assert one["quantity"] == len(mine)


def test_days_of_units_are_those_wholly_within_the_period():
    hour = timedelta(hours=1)
    assert units.days_of(WEEK) == (DAY, DAY + timedelta(days=6))
    assert units.days_of(Period(WEEK.start + hour, WEEK.end + hour)) == (
        DAY + timedelta(days=1),
        DAY + timedelta(days=6),
    )
    assert units.days_of(Period(WEEK.start + hour, WEEK.start + 30 * hour)) is None
