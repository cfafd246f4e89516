"""Allocation policies: from which hour which one holds, who set it, and what closed periods keep."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse.control import Control, audit
from millicent.warehouse.policies import BUILT_IN, Policy

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def control(facts) -> Control:
    return facts.control


def policy(hours: int = 0, **told) -> Policy:
    return Policy(**{"idle": "spread by use", "effective_from": MARCH + hours * HOUR, **told})


def held(control, tenant="acme") -> list[tuple]:
    return [(one.effective_from, one.idle, one.cached) for _, one in control.policies(tenant)]


def test_a_policy_is_kept_with_who_set_it_and_when(control):
    before = datetime.now(UTC)
    made = control.set_policy(policy(cached="full", note="agreed in March"), "acme", "ann")
    assert (made.id, made.author, made.note) == (1, "ann", "agreed in March")
    assert before <= made.created_at <= datetime.now(UTC)
    assert control.policies() == [("acme", made)]
    with control.begin() as connection:
        (row,) = connection.execute(select(audit).where(audit.c.action == "policy.set")).mappings()
    assert (row["tenant"], row["actor"], row["detail"]["cached"]) == ("acme", "ann", "full")


def test_before_the_first_the_built_in_one_holds():
    assert (BUILT_IN.idle, BUILT_IN.cached, BUILT_IN.id) == ("show", "fraction", None)


def test_one_policy_an_hour_holds_and_the_newest_wins(control):
    control.set_policy(policy(24, idle="spread evenly"), "acme")
    control.set_policy(policy(), "acme")
    control.set_policy(policy(24, idle="charge the owner"), "acme")
    control.set_policy(policy(5, idle="show"), "rival")
    assert held(control) == [
        (MARCH, "spread by use", "fraction"), (MARCH + DAY, "charge the owner", "fraction"),
    ]  # fmt: skip
    assert [tenant for tenant, _ in control.policies()] == ["acme", "acme", "rival"]


def test_what_holds_already_is_not_kept_again(control):
    first = control.set_policy(policy(), "acme", "ann")
    assert control.set_policy(policy(30, note="the same"), "acme", "bob") == first
    assert len(held(control)) == 1
    back = control.set_policy(policy(30, cached="free"), "acme")
    assert back.id == 2
    control.set_policy(policy(60), "acme")
    assert [cached for _, _, cached in held(control)] == ["fraction", "free", "fraction"]


def test_no_policy_changes_a_closed_period(control):
    control.close_period("acme", MARCH, MARCH + 7 * DAY)
    for hours in (-24, 0, 24):
        with pytest.raises(ValueError, match=r"2026-03-01 to 2026-03-08, which operator closed: start at 2026-03-08"):
            control.set_policy(policy(hours), "acme")
    after = control.set_policy(policy(7 * 24), "acme")
    assert control.set_policy(policy(0), "rival").id
    assert held(control) == [(after.effective_from, "spread by use", "fraction")]
    with pytest.raises(ValueError, match="would change the period"):
        control.set_policy(policy(3 * 24), "acme")


def test_a_policy_that_ends_before_a_closed_period_can_still_be_set(control):
    control.set_policy(policy(0), "acme")
    control.close_period("acme", MARCH, MARCH + 7 * DAY)
    control.set_policy(policy(-48, idle="show", cached="free"), "acme")
    assert len(held(control)) == 2


@pytest.mark.parametrize(
    ("told", "why"),
    [({"idle": "hide"}, "write show, spread by use, spread evenly, charge the owner"),
     ({"cached": "twice"}, "write free, fraction, full"),
     ({"effective_from": MARCH.replace(tzinfo=None)}, "add Z for UTC or an offset"),
     ({"effective_from": MARCH + HOUR / 2}, "not on a whole hour of UTC"),
     ({"note": "x" * 1025}, "1,025 characters")],
)  # fmt: skip
def test_a_policy_that_cannot_be_says_why(told, why):
    with pytest.raises(ValueError, match=why):
        policy(**told)


def test_hours_are_those_of_utc_whatever_zone_they_are_written_in(control):
    nepal = timezone(timedelta(hours=5, minutes=45))
    control.set_policy(policy(effective_from=datetime(2026, 3, 1, 5, 45, tzinfo=nepal)), "acme")
    assert held(control)[0][0] == MARCH
    with pytest.raises(ValueError, match="unknown: write"):
        control.set_policy(policy(), "nobody")


SET = st.tuples(st.integers(0, 6), st.sampled_from(["show", "spread by use", "spread evenly"]))


@settings(max_examples=50, deadline=None)
@given(told=st.lists(SET, max_size=8))
def test_at_any_hour_the_policy_set_last_for_it_or_the_nearest_before_holds(shared_facts, told):
    control, tenant = shared_facts.control, "acme"
    with control.begin() as connection:
        connection.exec_driver_sql("DELETE FROM allocation_policies")
    wanted = ["show"] * 8
    begins = set()
    for hour, idle in told:
        control.set_policy(policy(hour, idle=idle), tenant)
        if wanted[hour] == idle and begins and min(begins) <= hour:
            continue
        begins.add(hour)
        until = min((later for later in begins if later > hour), default=len(wanted))
        wanted[hour:until] = [idle] * (until - hour)
    found = [BUILT_IN, *(one for _, one in control.policies(tenant))]
    for hour, idle in enumerate(wanted):
        assert [one.idle for one in found if one.effective_from <= MARCH + hour * HOUR][-1] == idle
