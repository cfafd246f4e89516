"""Money set aside for calls: whatever callers ask and tell, in any order, no budget promises what it does not have.

The oracle keeps a plain list of what was promised, in fractions; it shares no code with the product.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.warehouse import reservations
from millicent.warehouse.control import DEFAULT_TENANT, Control
from millicent.warehouse.reservations import KEPT, TRAVEL, Claim, Ended

NOW = datetime(2026, 3, 4, 10, 0, 0, 500_000, tzinfo=UTC)
BUDGETS = (1, 2)
CENTS = st.integers(0, 30).map(lambda cents: Decimal(cents) / 100)
LIMITS = st.integers(1, 500).map(lambda cents: Decimal(cents) / 100)
MOVES = st.lists(
    st.tuples(st.just("ask"), st.tuples(CENTS, CENTS), st.integers(1, 20))
    | st.tuples(st.just("end"), st.integers(0, 9), st.integers(1, 20), st.none() | CENTS)
    | st.tuples(st.just("unused"), st.integers(0, 9), st.integers(1, 20))
    | st.tuples(st.just("wait"), st.integers(1, 12) | st.sampled_from([299, 300, 601])),
    min_size=5,
    max_size=25,
)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    made = Control(tmp_path_factory.mktemp("control"))
    yield made
    made.close()


class Oracle:
    """What was promised and not taken back: (made, calls, each by budget, until when)."""

    def __init__(self, limits):
        self.limits, self.open, self.kept = limits, {}, []

    def reserved(self, budget, now, through):
        promised = sum(calls * each[budget] for calls, each, until in self.open.values() if until > now)
        return promised + sum(
            cost for at, which, cost, until in self.kept if which == budget and until > now and at > through - TRAVEL
        )


@settings(max_examples=40)
@given(st.tuples(LIMITS, LIMITS), MOVES)
def test_no_money_is_promised_twice_and_none_is_lost(control, limits, moves):
    with control.begin() as connection:
        connection.execute(reservations.reservations.delete())
    oracle, now = Oracle(dict(zip(BUDGETS, limits, strict=True))), NOW
    through, made = now - timedelta(seconds=1), []
    for move in moves:
        match move:
            case ("wait", seconds):
                now += timedelta(seconds=seconds)
                through = now - timedelta(seconds=1)
            case ("ask", prices, calls):
                each = dict(zip(BUDGETS, prices, strict=True))
                oracle.open = {name: one for name, one in oracle.open.items() if one[2] > now}
                claims = [
                    Claim(budget=one, each=each[one], left=oracle.limits[one], through=through, refuses=True)
                    for one in BUDGETS
                ]
                before = {one: oracle.reserved(one, now, through) for one in BUDGETS}
                granted = reservations.reserve(control, DEFAULT_TENANT, claims, calls, timedelta(minutes=5), now)
                assert {one: Fraction(amount) for one, amount in granted.reserved.items()} == before
                fits = [n for n in range(1, calls + 1) if all(
                    before[one] < oracle.limits[one] and before[one] + n * Fraction(each[one]) <= oracle.limits[one]
                    for one in BUDGETS
                )]  # fmt: skip
                assert bool(granted.calls) == bool(fits)
                assert granted.calls in (fits or [0])
                if granted.id:
                    until = now + timedelta(minutes=5)
                    oracle.open[granted.id] = (granted.calls, {one: Fraction(each[one]) for one in BUDGETS}, until)
                    made.append(granted.id)
            case ("end" | "unused", number, calls, *cost) if made:
                told = made[number % len(made)]
                known = cost[0] if cost else None
                costs = {} if known is None else {1: known}
                ended = Ended(id=told, calls=calls, cost=costs, unused=move[0] == "unused")
                unknown = reservations.settle(control, DEFAULT_TENANT, [ended], now)
                there, each, until = oracle.open.get(told, (0, {}, now))
                assert bool(unknown) == (not there)
                taken = min(calls, there)
                if there:
                    oracle.open[told] = (there - taken, each, until)
                second = now.replace(microsecond=0) + timedelta(seconds=1)
                for one in BUDGETS if there and move[0] == "end" else ():
                    came = Fraction(costs[one]) if one in costs else taken * each[one]
                    oracle.kept.append((second, one, came, second + KEPT))
        oracle.open = {name: one for name, one in oracle.open.items() if one[0]}
    for one in BUDGETS:
        # Nobody has asked since, so what has expired may still be there.
        stored = reservations.outstanding(control, DEFAULT_TENANT, one, through)
        assert Fraction(stored) >= oracle.reserved(one, now, through)


def test_one_tenant_does_not_see_or_settle_what_another_set_aside(control):
    claim = Claim(budget=7, each=Decimal(1), left=Decimal(1), through=NOW, refuses=True)
    granted = reservations.reserve(control, DEFAULT_TENANT, [claim], 1, timedelta(minutes=5), NOW)
    assert reservations.outstanding(control, "acme", 7, NOW) == 0
    told = [Ended(id=granted.id, calls=1, cost={})]
    assert reservations.settle(control, "acme", told, NOW) == [granted.id]
    assert reservations.outstanding(control, DEFAULT_TENANT, 7, NOW) == 1


@pytest.mark.parametrize(("asked", "granted"), [(1, 1), (2, 2), (12, 12), (13, 12), (64, 12)])
def test_whoever_asks_for_many_gets_an_eighth_of_what_fits(control, asked, granted):
    with control.begin() as connection:
        connection.execute(reservations.reservations.delete())
    claim = Claim(budget=1, each=Decimal("0.1"), left=Decimal(10), through=NOW, refuses=True)
    made = reservations.reserve(control, DEFAULT_TENANT, [claim], asked, timedelta(minutes=5), NOW)
    assert made.calls == granted


def test_what_cannot_be_told_refuses_nothing_and_what_only_warns_neither(control):
    claims = [
        Claim(budget=11, each=None, left=None, through=NOW, refuses=True),
        Claim(budget=12, each=Decimal(2), left=Decimal(1), through=NOW, refuses=False),
    ]
    made = reservations.reserve(control, DEFAULT_TENANT, claims, 3, timedelta(minutes=5), NOW)
    assert (made.calls, made.reached) == (3, {12})
    assert [reservations.outstanding(control, DEFAULT_TENANT, one, NOW) for one in (11, 12)] == [0, 6]
