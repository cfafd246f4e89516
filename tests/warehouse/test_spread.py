"""What single calls and users cost, held against the plainest way of counting."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.warehouse import query, spread
from millicent.warehouse.query import BadQuery, Filter, Period, Query

TEN, HOUR = datetime(2026, 3, 4, 10, tzinfo=UTC), timedelta(hours=1)
DAY = Period(TEN, TEN + 24 * HOUR)
told = st.lists(
    st.tuples(st.sampled_from((None, "ann", "bob", "cy", "di")), st.none() | st.integers(0, 50), st.sampled_from("ab")),
    max_size=30,
)  # fmt: skip
numbers = iter(range(10**9))


def asked(**more) -> Query:
    return Query(**{"measures": ("spend_usd",), "period": DAY} | more)


@pytest.fixture(scope="module")
def store(shared_facts, a_call):
    """Stores calls of a tenant of its own and returns its name."""

    def put(calls) -> str:
        tenant = f"tenant {next(numbers)}"
        if calls:
            shared_facts.store(*(
                a_call(tenant=tenant, user_id=user, feature=feature,
                       billed_cost_usd=None if cents is None else Decimal(cents) / 100)
                for user, cents, feature in calls
            ))  # fmt: skip
        return tenant

    return put


@settings(max_examples=25)
@given(made=told)
def test_quantiles_are_costs_of_calls_that_happened(shared_facts, store, made):
    found = spread.per_call(shared_facts.engine, store(made), asked()).row(0, named=True)
    costs = sorted(Decimal(cents) / 100 for _, cents, _ in made if cents is not None)
    assert (found["calls"], found["unknown_calls"]) == (len(costs), len(made) - len(costs))
    assert found["spend_usd"] == (sum(costs) if costs else None)
    for name, percent in (("p50_usd", 50), ("p95_usd", 95), ("p99_usd", 99), ("most_usd", 100)):
        place = max(-(-len(costs) * percent // 100) - 1, 0)
        assert found[name] == (costs[place] if costs else None)


@settings(max_examples=25)
@given(made=told)
def test_values_share_the_calls_of_the_whole(shared_facts, store, made):
    tenant = store(made)
    whole = spread.per_call(shared_facts.engine, tenant, asked())
    parts = spread.per_call(shared_facts.engine, tenant, asked(), "feature")
    assert parts["calls"].sum() == whole["calls"].item()
    assert (parts["spend_usd"].sum() or None) == (whole["spend_usd"].item() or None)
    assert sorted(parts["feature"]) == sorted({feature for *_, feature in made})
    people = spread.per_user(shared_facts.engine, tenant, asked(), "feature")
    assert {row["feature"]: row["users"] for row in people.to_dicts()} == {
        feature: len({user for user, _, of in made if user and of == feature})
        for feature in {of for user, _, of in made if user}
    }


@settings(max_examples=25)
@given(made=told)
def test_the_first_users_are_the_most_costly_and_all_of_them_are_the_whole(shared_facts, store, made):
    found = spread.users(shared_facts.engine, store(made), asked())
    spend: dict[str, Decimal] = {}
    for user, cents, _ in made:
        if user is not None:
            spend[user] = spend.get(user, Decimal(0)) + Decimal(cents or 0) / 100
    ranked = sorted(spend.values(), reverse=True)
    assert (found.users, found.spend_usd) == (len(spend), sum(ranked))
    assert found.calls == sum(1 for user, *_ in made if user)
    assert found.unknown_calls == len(made) - found.calls
    assert found.unknown_spend_usd == sum(Decimal(cents or 0) / 100 for user, cents, _ in made if user is None)
    for mark in found.curve:
        assert mark.users == -(-len(spend) * mark.percent // 100)
        assert mark.spend_usd == sum(ranked[: mark.users])
    assert [one.spend_usd or 0 for one in found.top] == ranked[: spread.TOP]
    assert (found.share(100) == 1) if sum(ranked) else (found.share(100) is None)


def test_own_hardware_costs_what_its_hour_says_and_all_together_is_the_spend_of_calls(facts, a_call, a_deployment_hour):
    hour = a_deployment_hour(rate_usd_per_weight=Decimal("0.000001"), weight=Decimal(9000))
    facts.put("deployment_hours", [hour])
    own = {"billing": "self_hosted", "deployment": "rack", "price_status": "not_billed"}
    facts.store(a_call(**own, input_tokens=1, output_tokens=2, user_id="ann"), a_call(billed_cost_usd=Decimal(1)))
    found = spread.users(facts.engine, "acme", asked())
    (spent,) = facts.ask("spend_usd", basis="usage")
    assert found.spend_usd == Decimal("0.009")
    assert found.spend_usd + found.unknown_spend_usd == spent["spend_usd"]
    assert round(found.unknown_ratio * Decimal("1.009"), 12) == 1
    assert spread.per_call(facts.engine, "acme", asked(basis="billed"))["spend_usd"].item() == 1


def test_what_was_told_in_sums_is_no_single_call_and_what_does_not_count_is_none(facts, a_call):
    facts.store(
        a_call(billed_cost_usd=Decimal(5), call_count=7, signal="metric"),
        a_call(billed_cost_usd=Decimal(2)),
        a_call(billed_cost_usd=Decimal(9), counted=False),
    )
    found = spread.per_call(facts.engine, "acme", asked()).row(0, named=True)
    assert (found["calls"], found["summed_calls"], found["most_usd"]) == (1, 7, 2)


def test_filters_and_the_period_hold(facts, a_call):
    facts.store(a_call(team="s", billed_cost_usd=Decimal(1)), a_call(team="t", billed_cost_usd=Decimal(2)),
                a_call(team="s", billed_cost_usd=Decimal(4), started_at=TEN - timedelta(seconds=1)))  # fmt: skip
    kept = asked(filters=(Filter("team", ("s",)),))
    assert spread.per_call(facts.engine, "acme", kept)["spend_usd"].item() == 1
    assert spread.users(facts.engine, "rival", kept).users == 0
    with pytest.raises(BadQuery, match="cannot be asked by 'nothing'"):
        spread.per_call(facts.engine, "acme", kept, "nothing")


def test_of_a_large_period_the_newest_hours_are_read(facts, a_call):
    for hours, number in ((0, 3), (5, 2), (9, 2)):
        facts.store(*(a_call(started_at=TEN + hours * HOUR) for _ in range(number)))

    def ask(question: Query):
        return query.run(facts.engine, "acme", question).frame

    begins = {most: (spread.readable(ask, asked(), most).start - TEN) / HOUR for most in (100, 7, 6, 4, 3, 2, 1, 0)}
    assert begins == {100: 0, 7: 0, 6: 5, 4: 5, 3: 9, 2: 9, 1: 9, 0: 9}
    assert spread.readable(ask, asked(), 1).end == DAY.end
