"""Own hardware in answers: what no call carries, who carries it by policy, energy and carbon by caller."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.warehouse.query import Filter
from millicent.warehouse.record import IDLE

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MS = timedelta(hours=1), timedelta(milliseconds=1)
OWN = {"billing": "self_hosted", "price_status": "not_billed", "deployment": "rack"}
D = Decimal
LOADED = {
    "fixed_usd": D(12), "busy_usd": D(4), "idle_usd": D(5), "unavailable_usd": D(2), "untracked_usd": D(1),
    "joules": D(7200), "busy_joules": D(3600), "unavailable_joules": D(600), "untracked_joules": D(600),
    "gco2e_g": D(10), "busy_gco2e_g": D(6), "unavailable_gco2e_g": D(1), "untracked_gco2e_g": D(1),
    "gco2e_market_g": D(5), "busy_gco2e_market_g": D(3),
    "energy_usd": D(0), "busy_energy_usd": D("0.5"), "unavailable_energy_usd": D(0), "untracked_energy_usd": D(0),
    "rate_usd_per_weight": D("0.001"), "output_rate_usd_per_weight": D("0.003"),
    "joules_per_weight": D("0.9"), "output_joules_per_weight": D("2.7"),
    "gco2e_g_per_weight": D("0.0015"), "output_gco2e_g_per_weight": D("0.0045"),
    "gco2e_market_g_per_weight": D("0.00075"), "output_gco2e_market_g_per_weight": D("0.00225"),
    "w_input": 1, "w_cached": 0, "w_output": 1, "weight": D(2000), "energy_source": "measured",
    "busy_accelerator_ms": 1_800_000, "unavailable_accelerator_ms": 900_000, "unused_accelerator_ms": 0,
    "input_tokens": 1000, "output_tokens": 1000, "engine_input_tokens": 1600, "engine_output_tokens": 900,
}  # fmt: skip
"""An hour that calls of 1000 tokens in and 1000 out carry 4 of 12 USD, half of the energy and 6 of 10 grams of."""
SPENT = ("spend_usd", "capacity_cost_usd", "hardware_cost_usd", "idle_cost_usd", "unavailable_cost_usd",
         "untracked_cost_usd", "energy_wh", "gco2e_g", "energy_cost_usd")  # fmt: skip
_tenants = (f"shared-{n}" for n in itertools.count())


@pytest.fixture
def loaded(facts, a_call, a_deployment_hour):
    facts.put("deployment_hours", [a_deployment_hour(**LOADED)])
    facts.store(
        a_call(**OWN, team="search", input_tokens=1000, output_tokens=200),
        a_call(**OWN, team="ads", input_tokens=0, output_tokens=800),
        a_call(team="search", input_tokens=10, output_tokens=5, billed_cost_usd=D(3), list_cost_usd=D(3)),
    )
    return facts


def share(kind: str, team: str | None, usd: str | Decimal, **told) -> dict:
    return {"tenant": "acme", "deployment": "rack", "hour": TEN, "kind": kind, "team": team, "usd": D(usd), **told}


def by(facts, dimension: str, *measures: str, **told) -> dict:
    rows = facts.ask(*measures, dimensions=(dimension,), **told)
    return {row[dimension]: tuple(row[name] for name in measures) for row in rows}


def test_busy_idle_unavailable_and_untracked_are_the_bill_in_money_energy_and_carbon(loaded):
    parts = by(loaded, "cost_type", "spend_usd", "energy_wh", "gco2e_g", "gco2e_market_g", "energy_cost_usd")
    assert parts == {
        "api": (3, None, None, None, None),
        "hardware": (4, 1, 6, 3, None),
        "idle": (5, D("0.666666666666"), 2, 2, D("-0.5")),
        "unavailable": (2, D("0.166666666666"), 1, None, 0),
        "untracked": (1, D("0.166666666666"), 1, None, 0),
    }
    (whole,) = loaded.ask("capacity_cost_usd", "energy_joules", "energy_wh", "gco2e_g", "gco2e_market_g")
    assert tuple(whole.values()) == (12, 7200, 2, 10, 5)


def test_energy_and_carbon_are_asked_by_caller_and_idle_has_its_own(loaded):
    teams = by(loaded, "team", "hardware_cost_usd", "energy_joules", "gco2e_g", "tokens_per_joule", "gco2e_g_per_mtok")
    assert teams["search"] == (D("1.6"), 1440, D("2.4"), D("0.833333333333"), 2000)
    assert teams["ads"] == (D("2.4"), 2160, D("3.6"), D("0.370370370370"), 4500)
    assert teams[IDLE][:3] == (None, 3600, 4)
    (whole,) = loaded.ask("tokens_per_joule", "output_tokens_per_joule", "own_tokens", "total_tokens")
    assert tuple(whole.values()) == (D("0.277777777778"), D("0.138888888889"), 2000, 2015)


def test_ratios_of_deployments_tell_what_is_divided_by_what(loaded):
    (row,) = loaded.ask("utilisation_ratio", "coverage_ratio", "measured_energy_ratio", "accelerator_hour_usd",
                        "tokens_per_accelerator_second", "serving_accelerator_hours")  # fmt: skip
    assert tuple(row.values()) == (D("0.25"), D("0.8"), 1, 6, D("1.111111111111"), D("1.75"))


def test_what_one_counter_does_not_tell_is_left_out_of_coverage_on_both_sides(facts, a_deployment_hour):
    facts.put("deployment_hours", [
        a_deployment_hour(**LOADED | {"engine_input_tokens": None}),
        a_deployment_hour(**LOADED | {"engine_input_tokens": None, "engine_output_tokens": None}, deployment="blind"),
    ])  # fmt: skip
    rows = by(facts, "deployment", "engine_tokens", "metered_tokens", "coverage_ratio")
    assert rows == {"rack": (900, 1000, D("1.111111111111")), "blind": (None, None, None)}


def test_a_team_carries_its_share_of_idle_and_sees_it_in_groups_filters_and_capacity(loaded):
    before = {name: loaded.ask(name)[0][name] for name in (*SPENT, "accelerator_hours", "engine_tokens")}
    loaded.put("idle_shares", [
        share("idle", "search", 3), share("idle", "ads", "1.5"), share("idle", None, "0.5"),
        share("unavailable", "search", 2), share("idle", "search", 99, tenant="rival"),
    ])  # fmt: skip
    assert {name: loaded.ask(name)[0][name] for name in before} == before
    teams = by(loaded, "team", "spend_usd", "idle_cost_usd", "unavailable_cost_usd", "untracked_cost_usd",
               "capacity_cost_usd", "energy_joules")  # fmt: skip
    assert teams["search"] == (D("9.6"), 3, 2, None, D("6.6"), 1440)
    assert teams["ads"] == (D("3.9"), D("1.5"), None, None, D("3.9"), 2160)
    assert teams[IDLE] == (D("1.5"), D("0.5"), 0, 1, D("1.5"), 3600)
    (one,) = loaded.ask("spend_usd", "idle_ratio", filters=(Filter("team", ("search",)),))
    assert tuple(one.values()) == (D("9.6"), D("0.454545454545"))
    assert by(loaded, "team", "spend_usd", basis="usage") == {"search": (D("4.6"),), "ads": (D("2.4"),), IDLE: (None,)}
    kinds = by(loaded, "cost_type", "spend_usd", filters=(Filter("team", ("search",)), Filter("service", (IDLE,))))
    assert kinds == {"idle": (3,), "unavailable": (2,)}


def test_hours_from_before_energy_by_caller_answer_with_what_they_know(facts, a_call, a_deployment_hour):
    old = {
        name: LOADED[name] for name in ("fixed_usd", "busy_usd", "joules", "gco2e_g", "rate_usd_per_weight", "weight")
    }
    facts.put("deployment_hours", [a_deployment_hour(
        **old, idle_usd=D(8), energy_usd=D(1), energy_rate_usd_per_weight=D("0.0003"), w_input=1, w_output=1, busy_ms=5,
    )])  # fmt: skip
    facts.store(a_call(**OWN, team="search", input_tokens=1000, output_tokens=1000))
    teams = by(facts, "team", "spend_usd", "energy_joules", "gco2e_g", "energy_cost_usd")
    assert teams == {"search": (2, None, None, D("0.6")), IDLE: (8, 7200, 10, D("0.4"))}
    (row,) = facts.ask("busy_accelerator_seconds", "allocated_accelerator_hours", "measured_energy_ratio",
                       "engine_tokens", "gco2e_market_g", "unavailable_cost_usd")  # fmt: skip
    assert tuple(row.values()) == (D("0.01"), 2, 0, None, None, None)


def test_an_adjustment_says_on_every_basis_what_it_would_have_been_there(facts, a_charge):
    facts.charge(
        a_charge(type="adjustment", team="search", list_usd=D(8), billed_usd=D(1), hardware_usd=D(5), energy_usd=D(2),
                 idle_usd=None),
        a_charge(type="adjustment", team=IDLE, hardware_usd=None, energy_usd=None, idle_usd=D(-5)),
    )  # fmt: skip
    told = {
        basis: by(facts, "team", "spend_usd", "charges_usd", basis=basis)
        for basis in ("list", "billed", "effective", "usage", "marginal")
    }
    assert {basis: (rows["search"][0], rows[IDLE][0]) for basis, rows in told.items()} == {
        "list": (8, 0), "billed": (1, 0), "effective": (6, -5), "usage": (6, 0), "marginal": (3, 0),
    }  # fmt: skip
    assert all(spend == charges for rows in told.values() for spend, charges in rows.values())


def test_terajoules_are_added_up_like_joules(facts, a_deployment_hour):
    large = D("60000000000000.5")
    facts.put("deployment_hours", [
        a_deployment_hour(deployment=f"site-{n}", joules=large, busy_joules=D("0.25")) for n in range(4)
    ])  # fmt: skip
    (row,) = facts.ask("energy_joules", "energy_wh")
    assert row == {"energy_joules": 4 * large - 1, "energy_wh": D("66666666666.666944444444")}


amounts = st.decimals(0, 1000, places=24)


@st.composite
def hours(draw) -> dict:
    whole = draw(st.booleans())
    return {
        "deployment": draw(st.sampled_from(("rack", "other"))), "hour": TEN + draw(st.integers(0, 1)) * HOUR,
        "elapsed_ms": 3_600_000 if whole else draw(st.integers(1, 3_599_999)), "provisional": not whole,
        **{name: draw(amounts) for name in LOADED if name.endswith(("_usd", "_joules", "_g"))},
        **{name: draw(st.decimals(0, 1000, places=6)) for name in ("joules", "gco2e_g", "gco2e_market_g")},
        "engine_input_tokens": draw(st.none() | st.integers(0, 10**6)), "input_tokens": draw(st.integers(0, 10**6)),
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(hours(), max_size=3, unique_by=lambda row: (row["deployment"], row["hour"])),
    shares=st.lists(st.tuples(st.sampled_from(("idle", "unavailable")), st.sampled_from((None, "search")), amounts),
                    max_size=3),
    cuts=st.lists(st.integers(0, 2 * HOUR // MS).map(lambda ms: TEN + ms * MS), min_size=1, max_size=3),
    grain=st.sampled_from((None, "hour", "day")),
    dimension=st.sampled_from((None, "team", "cost_type", "deployment", "service")),
)  # fmt: skip
def test_periods_that_follow_each_other_add_up_to_the_last_digit(
    shared_facts, a_deployment_hour, rows, shares, cuts, grain, dimension
):
    facts, tenant = shared_facts, next(_tenants)
    facts.put("deployment_hours", [a_deployment_hour(**row, tenant=tenant) for row in rows])
    facts.put("idle_shares", [share(kind, team, usd, tenant=tenant) for kind, team, usd in shares])
    measures = [name for name in SPENT if name != "energy_wh"] + ["energy_joules", "gco2e_market_g"]
    if dimension in {None, "cost_type", "deployment"}:
        measures += ["fixed_cost_usd", "engine_tokens", "metered_tokens", "measured_energy_joules"]
    bounds = sorted({TEN, *cuts, TEN + 2 * HOUR})
    dimensions = (dimension,) if dimension else ()

    def total(start: datetime, end: datetime) -> dict[str, Fraction]:
        found = facts.ask(*measures, start=start, end=end, tenant=tenant, grain=grain, dimensions=dimensions)
        return {name: sum(Fraction(row[name] or 0) for row in found) for name in measures}

    whole = total(TEN, TEN + 2 * HOUR)
    parts = [total(start, end) for start, end in itertools.pairwise(bounds)]
    for name in measures:
        assert abs(sum(part[name] for part in parts) - whole[name]) <= ("joules" in name and Fraction(1, 10**10)), name
    money = ("idle_cost_usd", "unavailable_cost_usd", "untracked_cost_usd")
    assert whole["spend_usd"] == whole["capacity_cost_usd"] == sum(whole[name] for name in money)
