"""Why an hour of own hardware cost what it did, and what a call carries of it: every line, to the last digit."""

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing.profiles import MATH
from millicent.warehouse import explain
from millicent.warehouse.calls import Search, find
from millicent.warehouse.explain import Line, hour_lines
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
OWN = {"billing": "self_hosted", "price_status": "not_billed", "model": "qwen3-8b"}
ADD_UP = ("deployment-hour", "where it went", "busy", "idle", "unavailable", "energy of the hour",
          "carbon of the hour", "carbon, market-based", "own hardware", "energy of the call",
          "carbon of the call")  # fmt: skip
_tenants = (f"explained-{n}" for n in itertools.count())

usd = st.decimals(0, 10**6, places=24)
rate = st.decimals("1e-12", "1e-6", places=24)
tokens = st.none() | st.integers(0, 10**9)


def amounts(lines: Iterable[Line], step: str, units: tuple[str, ...] = ("USD", "J", "g")) -> list[Fraction]:
    told = [line.value for line in lines if line.step == step and line.unit in units]
    return [Fraction(value) for value in told if value != "unknown"]


def add_up(lines: list[Line]) -> set[str]:
    """Steps whose amounts were checked: the last is the sum of the others."""
    found = set()
    for step in ADD_UP:
        if told := amounts(lines, step):
            *parts, total = told
            assert sum(parts) == total, step
            found.add(step)
    return found


@st.composite
def hours(draw) -> dict:
    """A deployment-hour as it is stored, now or by an older version."""
    old, rated, powered = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    row = {
        "deployment": "rack", "hour": TEN, "accelerator": "nvidia-h100-sxm", "accelerator_count": 8,
        "elapsed_ms": 3_600_000, "busy_ms": draw(st.integers(0, 3_600_000)), "accelerator_ms": 28_800_000,
        **{f"{part}_usd": draw(usd) for part in ("fixed", "energy", "hosting")},
        "w_input": draw(st.integers(0, 5000)), "w_cached": 100, "w_output": 4000, "weight": Decimal(1),
        "joules": draw(st.decimals(0, 10**9, places=6)) if powered else None,
        "gco2e_g": draw(st.decimals(0, 10**6, places=6)) if powered else None,
        **{f"{what}_per_weight": draw(rate) if rated else None for what in ("rate_usd", "energy_rate_usd")},
        "method": "by weights", "sources": '[{"name": "rent", "value": "2", "unit": "USD/h", "source": "declared"}]',
        "provisional": draw(st.booleans()), "computed_at": TEN, "declared_from": TEN,
    }  # fmt: skip
    with localcontext(MATH):
        left = row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"]
        for kind in ("busy", "untracked", "unavailable"):
            row[f"{kind}_usd"] = (left / 3).quantize(Decimal(1).scaleb(-24))
            left -= row[f"{kind}_usd"]
        row["idle_usd"] = left + row["unavailable_usd"] if old else left
    if old:
        return row | {"unavailable_usd": None}
    drawn = ("joules", "gco2e_g") if powered else ()
    return row | {
        **{f"{kind}_{what}": draw(usd) for kind in ("busy", "unavailable", "untracked") for what in drawn},
        **{f"{side}{what}_per_weight": draw(rate) for side in ("", "output_") for what in drawn if rated},
        "output_rate_usd_per_weight": draw(rate) if rated else None,
        **dict(zip(("input_tokens", "cached_tokens", "output_tokens"), (10**6, 10**5, 10**4), strict=True)),
        "engine_output_tokens": draw(tokens), "unavailable_ms": draw(st.integers(0, 10**5)),
        "pool": draw(st.sampled_from(("rack", "shared"))), "policy": draw(st.none() | st.just(7)),
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    row=hours(),
    usage=st.fixed_dictionaries(dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens"), tokens)),
    shares=st.lists(st.tuples(st.sampled_from(("idle", "unavailable")), st.sampled_from((None, "a", "b:, c")), usd),
                    unique_by=lambda one: one[:2], max_size=4),
)  # fmt: skip
def test_the_amounts_of_every_step_add_up_whatever_the_hour_knows(shared_facts, a_call, row, usage, shares):
    facts, tenant = shared_facts, next(_tenants)
    facts.put("deployment_hours", [row | {"tenant": tenant}])
    facts.put("idle_shares", [{"tenant": tenant, "deployment": "rack", "hour": TEN, "kind": kind, "team": team,
                               "usd": amount} for kind, team, amount in shares])  # fmt: skip
    facts.store(a_call(tenant=tenant, deployment="rack", started_at=TEN + MINUTE, **usage, **OWN))
    of_hour = hour_lines(facts.engine, tenant, "rack", TEN + MINUTE)
    assert {"deployment-hour", "where it went"} <= add_up(of_hour)
    assert amounts(of_hour, "where it went")[-1] == amounts(of_hour, "deployment-hour")[-1]
    for step, whole in (("idle", row["idle_usd"]), ("unavailable", row["unavailable_usd"] or 0),
                        ("energy of the hour", row["joules"]), ("carbon of the hour", row["gco2e_g"])):  # fmt: skip
        assert amounts(of_hour, step)[-1:] in ([], [whole])
    ((call,), _) = find(facts.engine, tenant, Search())
    lines = explain.lines(facts.engine, facts.prices, tenant, call)
    add_up(lines)
    assert of_hour == [line for line in lines if line in of_hour]
    effective = amounts(lines, "own hardware")
    assert [call["effective_cost_usd"]] == effective[-1:] or (call["effective_cost_usd"] is None and not effective)
    joules, grams = amounts(lines, "energy of the call"), amounts(lines, "carbon of the call")
    assert [call["gco2e_g"]] == grams[-1:] or (call["gco2e_g"] is None and not grams)
    assert (call["energy_wh"] is None) == (not joules)
    assert not joules or abs(joules[-1] / 3600 - Fraction(call["energy_wh"])) <= Fraction(1, 10**12)


def test_an_hour_tells_its_inputs_its_evidence_its_policy_and_who_carries_what(facts, a_call):
    facts.declare("rack", TEN, region="us-va", power={}, pool="shared")
    facts.control.set_policy(Policy(idle="spread by use", cached="full", effective_from=TEN), "acme", "ann")
    facts.store(*(a_call(deployment="rack", team=team, started_at=TEN + MINUTE, duration_ms=60_000, input_tokens=50,
                         output_tokens=7, **OWN) for team in ("search", "ads", None)))  # fmt: skip
    facts.refresh(TEN + HOUR)
    lines = hour_lines(facts.engine, "acme", "rack", TEN)
    assert add_up(lines) >= {"deployment-hour", "where it went", "busy", "idle", "energy of the hour"}
    told = {(line.step, line.what): line for line in lines}
    assert told["inputs of the hour", "carbon"].source.startswith("catalog: us-va")
    assert told["inputs of the hour", "rent"].value == "2"
    assert Decimal(told["idle", "carried by team ads"].value) > 0
    evidence = {line.what for line in lines if line.step == "evidence"}
    assert "allocated under policy 1" in evidence
    assert any(
        what.startswith("computed 2026-03-04 11:00 UTC, declared from 2026-03-04 10:00 UTC") for what in evidence
    )
    assert "cached tokens: full; idle: spread by use" in told["where it went", "cost of the hour"].source or any(
        "cached tokens: full; idle: spread by use" in line.source for line in lines
    )
    assert told["deployment-hour", "fixed"].source == "rack, 2 × nvidia-h100-sxm, pool shared, 2026-03-04 10:00 UTC"
    assert told["energy of the hour", "busy"].source == "modelled"
    carried = sum(amounts(lines, "idle")[:-1])
    assert carried == Fraction(told["idle", "idle cost"].value) == Fraction(told["where it went", IDLE_WORDS].value)


IDLE_WORDS = "idle: no request ran, and what rounding leaves"


def test_input_and_output_have_rates_of_their_own_where_the_hour_tells_them_apart(facts, a_call, a_deployment_hour):
    facts.put("deployment_hours", [a_deployment_hour(
        rate_usd_per_weight=Decimal("1e-9"), output_rate_usd_per_weight=Decimal("7e-9"),
    )])  # fmt: skip
    facts.store(a_call(deployment="rack", started_at=TEN, input_tokens=10, output_tokens=3, **OWN))
    ((call,), _) = find(facts.engine, "acme", Search())
    lines = explain.lines(facts.engine, facts.prices, "acme", call)
    rates = [line.value for line in lines if line.unit == "USD per thousandth"]
    assert rates == ["0.000000001", "0.000000007"]
    assert amounts(lines, "own hardware") == [Fraction(1, 10**5), Fraction(84, 10**6), Fraction(94, 10**6)]
    assert call["effective_cost_usd"] == Decimal("0.000094")


def test_accelerators_that_are_reserved_and_that_nobody_took_are_explained(facts, a_deployment_hour):
    facts.put("deployment_hours", [a_deployment_hour(
        deployment="4711", contract="4711", pool="4711", accelerator=None, accelerator_count=3, fixed_usd=Decimal(6),
        idle_usd=Decimal(6), busy_usd=Decimal(0), method="reserved, and no deployment took it",
    )])  # fmt: skip
    lines = hour_lines(facts.engine, "acme", "4711", TEN)
    assert add_up(lines) == {"deployment-hour", "where it went"}
    assert amounts(lines, "where it went")[-1] == 6
    (where,) = {line.source for line in lines if line.what == "fixed"}
    assert where == "4711, 3 × reserved accelerators, 2026-03-04 10:00 UTC"


@pytest.mark.parametrize(("tenant", "deployment", "at"), [
    ("rival", "rack", TEN), ("acme", "other", TEN), ("acme", "rack", TEN + HOUR), ("acme", "rack", TEN - MINUTE),
])  # fmt: skip
def test_an_hour_that_is_not_there_or_not_ours_has_no_lines(facts, a_deployment_hour, tenant, deployment, at):
    facts.put("deployment_hours", [a_deployment_hour()])
    assert hour_lines(facts.engine, "acme", "rack", TEN + 59 * MINUTE)
    assert hour_lines(facts.engine, tenant, deployment, at) == []


def test_hours_are_told_as_they_are_stored_those_that_a_period_cuts_too(facts, a_deployment_hour):
    rows = [a_deployment_hour(deployment=name, hour=TEN + n * HOUR) for n in range(3) for name in ("rack", "other")]
    facts.put("deployment_hours", [*rows, a_deployment_hour(tenant="rival")])
    warehouse = Warehouse(facts.engine, facts.control, facts.prices)
    cut = Period(TEN + MINUTE, TEN + HOUR + MINUTE)
    found = warehouse.hours("acme", cut)
    assert found.select("hour", "deployment").rows() == [
        (TEN + n * HOUR, name) for n in range(2) for name in ("other", "rack")
    ]
    assert set(found["tenant"]) == {"acme"}
    assert warehouse.hours("acme", Period(TEN, TEN + 2 * HOUR), "rack")["hour"].to_list() == [TEN, TEN + HOUR]
    assert warehouse.explain_hour("acme", "rack", TEN) == hour_lines(facts.engine, "acme", "rack", TEN)
