"""Days, weeks and months of any time zone hold what happened between its midnights, to the last digit."""

import itertools
from collections import defaultdict
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from millicent.warehouse import query
from millicent.warehouse.cuts import begins
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import BadQuery, Filter, Period, Query

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
CHANGES = {
    "Europe/Berlin": datetime(2026, 3, 29, 1, tzinfo=UTC),
    "America/New_York": datetime(2026, 11, 1, 6, tzinfo=UTC),
    "Asia/Kolkata": datetime(2026, 3, 1, 18, 30, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2026, 2, 28, 18, 15, tzinfo=UTC),
    "Australia/Lord_Howe": datetime(2026, 4, 4, 15, tzinfo=UTC),
    "Pacific/Chatham": datetime(2026, 4, 4, 14, tzinfo=UTC),
    "Asia/Beirut": datetime(2026, 3, 28, 22, tzinfo=UTC),
    "America/St_Johns": datetime(2026, 3, 8, 5, 30, tzinfo=UTC),
    "UTC": datetime(2026, 3, 1, tzinfo=UTC),
}
"""Zones, each with an instant near which a day is none of 24 hours, or begins a month."""
SUMS = tuple(
    name for name, measure in DICTIONARY.items()
    if measure.sum_of and not measure.of_deployments and measure.unit not in {"joules", "wh"}
)  # fmt: skip
_tenants = (f"zoned-{n}" for n in itertools.count())


def first_of(day, grain):
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[grain]


def begun(instant: datetime, grain: str, zone: ZoneInfo) -> datetime:
    """When the day, week or month of an instant began, by the calendar on its wall."""
    first = first_of(instant.astimezone(zone).date(), grain)
    return datetime.combine(first, time(), zone).astimezone(UTC)


def ends(begin: datetime, grain: str, zone: ZoneInfo) -> datetime:
    later = begin.astimezone(zone).date() + {"day": DAY, "week": 7 * DAY, "month": 31 * DAY}[grain]
    return datetime.combine(first_of(later, grain), time(), zone).astimezone(UTC)


@st.composite
def asked(draw):
    name = draw(st.sampled_from(sorted(CHANGES)))
    start = CHANGES[name] - draw(st.integers(1, 60)) * HOUR + draw(st.sampled_from((0, 0, 15, 30, 47))) * MINUTE
    end = start + draw(st.integers(1, 110)) * HOUR + draw(st.sampled_from((0, 0, 30, 45))) * MINUTE
    return name, Period(start, end), draw(st.sampled_from(("day", "week", "month")))


instants = st.integers(0, 114 * 60).map(lambda minutes: minutes * MINUTE) | st.sampled_from((HOUR, DAY, 2 * DAY))
facts_of = st.lists(
    st.tuples(instants, st.sampled_from((None, "search", "ads")), st.booleans(), st.integers(0, 999)), max_size=12
)


def universe(facts, a_call, a_charge, a_deployment_hour, told, begin):
    """Calls, a charge beside each third, and an hour of own hardware with a share of idle around each."""
    tenant, calls, charges, hours, shares = next(_tenants), [], [], {}, []
    for number, (after, team, own, tokens) in enumerate(told):
        at = begin + after
        hour = at.replace(minute=0, second=0, microsecond=0)
        calls.append(a_call(
            tenant=tenant, started_at=at, team=team, input_tokens=tokens, output_tokens=3,
            billing="self_hosted" if own else "api", deployment="rack" if own else None,
            billed_cost_usd=None if own else Decimal(tokens) / 7000, list_cost_usd=Decimal(tokens) / 1000,
        ))  # fmt: skip
        if own and hour not in hours:
            hours[hour] = a_deployment_hour(
                tenant=tenant, hour=hour, idle_usd=Decimal("1.37"), untracked_usd=Decimal("0.11"),
                rate_usd_per_weight=Decimal("0.000000017"), elapsed_ms=3_600_000 - 1000 * number,
            )  # fmt: skip
            shares.append({"tenant": tenant, "deployment": "rack", "hour": hour, "kind": "idle", "team": "search",
                           "usd": Decimal("0.5")})  # fmt: skip
        if number % 3 == 0:
            charges.append(a_charge(tenant=tenant, charged_at=at, billed_usd=Decimal(tokens) / 10, team=team))
    facts.store(*calls)
    facts.put("charges", charges)
    facts.put("deployment_hours", list(hours.values()))
    facts.put("idle_shares", shares)
    return tenant, calls


@settings(max_examples=15, deadline=None)
@given(asked=asked(), told=facts_of, by_team=st.booleans())
def test_each_day_is_what_is_asked_of_it_alone(shared_facts, a_call, a_charge, a_deployment_hour, asked, told, by_team):
    name, period, grain = asked
    zone = ZoneInfo(name)
    tenant, calls = universe(shared_facts, a_call, a_charge, a_deployment_hour, told, period.start - HOUR)
    dimensions = ("team",) if by_team else ()
    question = Query(measures=SUMS, period=period, grain=grain, time_zone=name, dimensions=dimensions)
    rows = query.run(shared_facts.engine, tenant, question).frame.to_dicts()

    counted = defaultdict(int)
    for one in calls:
        if period.start <= one["started_at"] < period.end:
            counted[begun(one["started_at"], grain, zone), one["team"] if by_team else None] += 1
    found = {(row["time"], row.get("team")): row["calls"] for row in rows if row["calls"]}
    assert found == counted

    for day in {row["time"] for row in rows}:
        assert begun(day, grain, zone) == day
        alone = Period(max(day, period.start), min(ends(day, grain, zone), period.end))
        answer = query.run(shared_facts.engine, tenant, Query(measures=SUMS, period=alone, dimensions=dimensions))
        of_day = [{name: value for name, value in row.items() if name != "time"} for row in rows if row["time"] == day]
        key = lambda row: str(row.get("team"))  # noqa: E731 - used twice
        assert sorted(of_day, key=key) == sorted(answer.frame.to_dicts(), key=key)


@settings(max_examples=10, deadline=None)
@given(asked=asked(), told=facts_of)
def test_days_add_up_and_the_rollup_and_the_raw_calls_say_the_same_of_them(
    shared_facts, a_call, a_charge, a_deployment_hour, asked, told
):
    name, period, grain = asked
    tenant, _ = universe(shared_facts, a_call, a_charge, a_deployment_hour, told, period.start)

    def rows(**more):
        question = Query(measures=("spend_usd", "calls", "energy_cost_usd"), period=period, time_zone=name, **more)
        return query.run(shared_facts.engine, tenant, question)

    everything = (Filter("scope", ("no such scope",), negated=True),)
    days = rows(grain=grain)
    assert days.frame.to_dicts() == rows(grain=grain, filters=everything).frame.to_dicts()
    (whole,) = rows().frame.to_dicts()
    for sums in ("spend_usd", "calls"):
        assert sum(Fraction(value or 0) for value in days.frame[sums]) == Fraction(whole[sums] or 0)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 10, tzinfo=UTC), 23),
        ("Europe/Berlin", datetime(2026, 10, 25, 10, tzinfo=UTC), 25),
        ("America/New_York", datetime(2026, 11, 1, 12, tzinfo=UTC), 25),
        ("Australia/Lord_Howe", datetime(2026, 10, 4, 1, tzinfo=UTC), 23.5),
        ("Asia/Kathmandu", datetime(2026, 10, 4, 6, tzinfo=UTC), 24),
    ],
)
def test_a_day_on_which_clocks_change_has_all_its_hours_and_no_more(facts, a_call, zone, noon, hours):
    begin = begun(noon, "day", ZoneInfo(zone))
    assert (ends(begin, "day", ZoneInfo(zone)) - begin) / HOUR == hours
    minutes = int(hours * 4)
    facts.store(*(a_call(started_at=begin + (quarter * 15 - 30) * MINUTE) for quarter in range(minutes + 4)))
    asked = {"start": begin - DAY, "end": begin + 2 * DAY, "grain": "day", "time_zone": zone}
    rows = {row["time"]: row["calls"] for row in facts.ask("calls", **asked)}
    assert rows == {begun(begin - HOUR, "day", ZoneInfo(zone)): 2, begin: minutes, begin + hours * HOUR: 2}


@example(start=datetime(2007, 11, 4, 1, tzinfo=UTC), name="America/St_Johns")  # at 00:01 it was 23:01 again
@example(start=datetime(2011, 12, 29, tzinfo=UTC), name="Pacific/Apia")  # had no 30 December
@given(
    start=st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    name=st.timezone_keys(allow_prefix=False),
)
@settings(max_examples=200, deadline=None)
def test_days_of_any_zone_follow_each_other(start, name):
    zone = ZoneInfo(name)
    days = begins(Period(start, start + 5 * DAY), "day", zone)
    assert days[0] <= start
    assert days[-1] < start + 5 * DAY
    assert all(one < other for one, other in itertools.pairwise(days))
    assert [begun(day, "day", zone) for day in days] == list(days)


def test_hours_of_any_zone_are_those_of_utc(facts, a_call):
    start = datetime(2026, 3, 1, 18, tzinfo=UTC)
    facts.store(a_call(started_at=start + 40 * MINUTE))
    rows = facts.ask("calls", start=start, end=start + HOUR, grain="hour", time_zone="Asia/Kolkata")
    assert rows == [{"time": start, "calls": 1}]


def test_more_days_than_anybody_needs_are_refused(facts):
    with pytest.raises(BadQuery, match=r"more than 10,000 days of Europe/Berlin: ask for a shorter period"):
        facts.ask("calls", start=datetime(1970, 1, 1, tzinfo=UTC), end=datetime(2100, 1, 1, tzinfo=UTC), grain="day",
                  time_zone="Europe/Berlin")  # fmt: skip
