"""A month of own hardware as a spreadsheet has it: reserved, spot, bought outright, by number and by hours per month.

The oracle here adds up cells, hour by hour, in fractions; it shares no code with the product.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.pricing.profiles import Reserved, reserved_use
from millicent.warehouse import plan
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.policies import BUILT_IN, Policy
from millicent.warehouse.tables import deployment_hours

FEBRUARY, MARCH = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOURS = 28 * 24
CONTRACT = {"kind": "reserved", "contract": "three years", "usd_per_hour": "1.9", "starts": "2026-02-01T00:00Z",
            "months": "12", "overage_usd_per_hour": "2.6"}  # fmt: skip


def stored(facts, deployment: str) -> list[dict]:
    c = deployment_hours.c
    return facts.engine.read(select(deployment_hours).where(c.deployment == deployment).order_by(c.hour)).to_pylist()


def cost(rows: list[dict]) -> Fraction:
    return sum((Fraction(row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"]) for row in rows), Fraction(0))


def near(amount: Fraction, expected: Fraction) -> bool:
    return abs(amount - expected) < Fraction(1, 10**15)


def annuity(principal: Fraction, rate: Fraction, periods: int) -> Fraction:
    """By its definition: the payment whose present values add up to the principal."""
    return principal / sum(1 / (1 + rate) ** n for n in range(1, periods + 1))


def test_a_month_of_every_way_of_paying_is_what_a_spreadsheet_says(facts):
    no_power = {"it_kw": "0"}
    bought = {"kind": "owned", "capex_usd": "33600", "hosting_usd_per_kw_month": "0", "hosting_includes_power": "true"}
    even = {**bought, "depreciation": "straight_line", "residual_usd": "3600", "maintenance_usd_per_year": "120"}
    facts.declare("annuity", FEBRUARY, accelerator_count=3, profile=bought, power=no_power)
    facts.declare("even", FEBRUARY, accelerator_count=5, profile=even, power=no_power)
    spot = "2026-02-01T00:00Z=1.20 2026-02-10T06:00Z=1.35 2026-02-10T06:30Z=0.95 2026-02-20T00:00Z=2"
    facts.declare("spot", FEBRUARY, accelerator_count=4, profile={"kind": "spot", "prices": spot})
    facts.declare("rented", FEBRUARY, profile={"kind": "rented", "usd_per_hour": "2.99"})
    facts.refresh(MARCH)
    year = Fraction(8766)
    assert near(cost(stored(facts, "annuity")), 3 * HOURS * annuity(Fraction(33600), Fraction(8, 100), 4) / year)
    yearly = Fraction(30000, 4) + Fraction(8, 100) * Fraction(33600 + 3600, 2) + 120
    assert near(cost(stored(facts, "even")), 5 * HOURS * yearly / year)
    first, last = 9 * 24 + 6, 8 * 24 + 24
    held = first * Fraction("1.2") + Fraction("1.35") / 2 + (HOURS - first - last) * Fraction("0.95")
    held += last * 2 - Fraction("0.95") / 2
    spot_hours = stored(facts, "spot")
    assert Fraction(spot_hours[first]["fixed_usd"]) == 4 * (Fraction("1.35") + Fraction("0.95")) / 2
    hours = [Fraction("1.2")] * first + [(Fraction("1.35") + Fraction("0.95")) / 2]
    hours += [Fraction("0.95")] * (19 * 24 - first - 1) + [Fraction(2)] * (9 * 24)
    assert near(cost(spot_hours), 4 * sum(hours))
    assert near(cost(stored(facts, "rented")), 2 * HOURS * Fraction("2.99"))


def test_reserved_accelerators_are_paid_whether_they_run_or_not_and_more_of_them_cost_more(facts):
    profile = {**CONTRACT, "accelerators": "8", "upfront_share": "0.25", "cost_of_capital": "0.1"}
    facts.declare("a", FEBRUARY, accelerator_count=4, profile=profile)
    facts.declare("b", FEBRUARY + 10 * DAY, accelerator_count=6, profile=profile, effective_to=FEBRUARY + 20 * DAY)
    facts.refresh(MARCH)
    price = Fraction("1.9") * (Fraction(3, 4) + Fraction(1, 4) * Fraction(upfront_factor("0.1", 12)))
    days_of_two, days_of_one = 10 * 24, 18 * 24
    dearer = Fraction("2.6") - price
    total = 8 * HOURS * price + 2 * days_of_two * Fraction("2.6")
    rows = {name: stored(facts, name) for name in ("a", "b", "three years")}
    assert abs(sum(map(cost, rows.values())) - total) < Fraction(1, 10**9)
    assert abs(cost(rows["three years"]) - 4 * days_of_one * price) < Fraction(1, 10**9)
    assert abs(cost(rows["b"]) - days_of_two * (6 * price + 2 * dearer * Fraction(6, 10))) < Fraction(1, 10**9)
    assert {row["unused_accelerator_ms"] for row in rows["three years"]} == {4 * 3_600_000}
    assert {(row["model"], row["busy_usd"], row["contract"]) for row in rows["three years"]} == {
        (None, Decimal(0), "three years")
    }
    assert all(row["idle_usd"] == row["fixed_usd"] for row in rows["three years"])
    assert '"surcharge of the pool"' in rows["b"][0]["sources"]
    assert "surcharge" not in rows["a"][0]["sources"]


def upfront_factor(interest: str, months: int) -> Decimal:
    """What paying ahead costs more: the annuity of 1 over the months, times their number."""
    monthly = (1 + Decimal(interest)) ** (1 / Decimal(12)) - 1
    return months / sum(1 / (1 + monthly) ** n for n in range(1, months + 1))


@pytest.mark.parametrize(
    ("count", "hours_per_month", "unused", "dearer"),
    [(2, 1000, 0, 344), (1, 700, 28, 0), (1, 672, 0, 0), (3, "2015.5", 0, "0.5")],
)
def test_hours_per_month_are_settled_at_its_end(facts, count, hours_per_month, unused, dearer):
    profile = {**CONTRACT, "hours_per_month": str(hours_per_month)}
    facts.declare("a", FEBRUARY, accelerator_count=count, profile=profile)
    facts.refresh(MARCH - HOUR)
    assert stored(facts, "three years") == []
    facts.refresh(MARCH)
    left = stored(facts, "three years")
    assert [row["hour"] for row in left] == [MARCH - HOUR] * bool(unused)
    assert sum(row["idle_usd"] for row in left) == unused * Decimal("1.9")
    assert sum(row["unused_accelerator_ms"] for row in left) == unused * 3_600_000
    mine = stored(facts, "a")
    assert cost(mine) == count * HOURS * Fraction("1.9") + Fraction(dearer) * Fraction("0.7")
    plain = [row["fixed_usd"] == count * Decimal("1.9") for row in mine]
    assert plain == sorted(plain, reverse=True)  # the surcharge begins where the commitment ends


def test_the_running_hour_of_a_reservation_accrues(facts):
    facts.declare("a", FEBRUARY, profile={**CONTRACT, "accelerators": "8"})
    facts.refresh(FEBRUARY + HOUR / 2)
    (row,) = stored(facts, "three years")
    assert (row["idle_usd"], row["provisional"]) == (6 * Decimal("0.95"), True)
    facts.refresh(FEBRUARY + HOUR)
    (row,) = stored(facts, "three years")
    assert (row["idle_usd"], row["provisional"]) == (6 * Decimal("1.9"), False)


def test_unused_accelerators_are_charged_to_the_owner_that_all_deployments_share(facts):
    facts.control.set_policy(Policy(effective_from=FEBRUARY, idle="charge the owner"), "acme")
    facts.declare("a", FEBRUARY, owner="search", profile={**CONTRACT, "accelerators": "8"})
    facts.refresh(FEBRUARY + HOUR)
    spent = facts.ask("spend_usd", dimensions=("team",), start=FEBRUARY, end=FEBRUARY + HOUR)
    assert {row["team"]: row["spend_usd"] for row in spent if row["spend_usd"]} == {"search": 8 * Decimal("1.9")}


def test_another_deployment_within_the_commitment_computes_no_hour_of_others_again(facts):
    facts.declare("a", FEBRUARY, profile={**CONTRACT, "accelerators": "8"})
    facts.refresh(FEBRUARY + 10 * HOUR)
    before = stored(facts, "a")
    facts.declare("b", FEBRUARY + 5 * HOUR, profile={**CONTRACT, "accelerators": "8"})
    facts.refresh(FEBRUARY + 10 * HOUR)
    assert stored(facts, "a") == before
    assert [row["accelerator_count"] for row in stored(facts, "three years")] == [6] * 5 + [4] * 5


# ---- the plan agrees with the settlement of a contract, whatever deployments come and go


@st.composite
def deployments(draw) -> list[Deployment]:
    committed = draw(st.sampled_from([{"accelerators": "4"}, {"hours_per_month": "333"}, {"hours_per_month": "0.5"}]))
    found = []
    for number in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, 40))
        found.append(
            Deployment(
                name=f"d{number}", model="m", accelerator="nvidia-h100-sxm",
                accelerator_count=draw(st.integers(1, 5)), effective_from=FEBRUARY + start * DAY,
                effective_to=FEBRUARY + (start + draw(st.integers(1, 30))) * DAY, profile={**CONTRACT, **committed},
            )
        )  # fmt: skip
    return found


@settings(max_examples=60, deadline=None)
@given(declared=deployments(), until=st.integers(1, 80), changes=st.sets(st.integers(1, 80 * 24), max_size=3))
def test_hours_of_a_reservation_add_up_to_its_settlement(declared, until, changes):
    end = FEBRUARY + until * DAY
    first = min(one.effective_from for one in declared)
    terms = declared[0].cost_profile()
    assert isinstance(terms, Reserved)
    policies = [("acme", Policy(effective_from=FEBRUARY + hours * HOUR, id=hours)) for hours in sorted(changes)]
    spans = list(plan.spans([("acme", one) for one in declared], policies, end))
    used, surcharge, unused = {}, Decimal(0), Decimal(0)
    for span in spans:
        hour = span.start
        while hour < span.end:
            if span.members:
                used[hour] = used.get(hour, Decimal(0)) + span.members[0].accelerator_count
            surcharge += span.surcharge_usd(hour, Decimal(1))
            unused += span.unused_usd
            hour += HOUR
    if terms.hours_per_month is None:
        found = reserved_use(terms, used, first, end) if first < end else []
        expected = sum(one.surcharge_usd for one in found), sum(one.unused_usd for one in found)
    else:
        expected = by_month(terms.hours_per_month, used, first, end)
    assert abs(surcharge - expected[0]) < Decimal("1e-9")
    assert abs(unused - expected[1]) < Decimal("1e-9")


def by_month(committed: Decimal, used: dict[datetime, Decimal], first: datetime, end: datetime) -> tuple:
    """What ran beyond the hours of a month, so far; and what was left of those of each month that is over."""
    surcharge = unused = Decimal(0)
    month = first.replace(day=1)
    while month < end:
        after = (month + 32 * DAY).replace(day=1)
        hours = sum(count for hour, count in used.items() if month <= hour < after)
        surcharge += max(Decimal(0), hours - committed) * Decimal("0.7")
        if after <= end:
            unused += max(Decimal(0), committed - hours) * Decimal("1.9")
        month = after
    return surcharge, unused


@settings(max_examples=60, deadline=None)
@given(declared=deployments(), until=st.integers(1, 80), later=st.integers(1, 30))
def test_time_that_passes_changes_no_digest(declared, until, later):
    """Else every hour would be computed again and again."""
    told = [("acme", one) for one in declared]
    before, after = (
        {(span.names, span.start): span for span in plan.spans(told, [("acme", BUILT_IN)], FEBRUARY + days * DAY)}
        for days in (until, until + later)
    )
    for key, span in before.items():
        assert after[key].digest == span.digest
        assert after[key].end >= span.end
    assert all(span.start >= FEBRUARY + until * DAY or key in before for key, span in after.items())
