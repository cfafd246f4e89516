"""What one hour of own hardware is made of: shared pools, meters, policies, and what has it computed again."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from sqlalchemy import func, select

from millicent.pricing import catalog, meters
from millicent.warehouse import capacity, metered
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Filter
from millicent.warehouse.tables import deployment_hours, dirty_hours, idle_shares

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
HOUR_MS = 3_600_000
OWN = {"billing": "self_hosted", "price_status": "not_billed", "billed_cost_usd": Decimal(0)}
PART = ("busy_usd", "idle_usd", "unavailable_usd", "untracked_usd")


def rows(facts, deployment: str = "rack", tenant: str = "acme") -> dict[datetime, dict]:
    c = deployment_hours.c
    asked = select(deployment_hours).where(c.tenant == tenant, c.deployment == deployment).order_by(c.hour)
    found = facts.engine.read(asked).to_pylist()
    assert len({row["hour"] for row in found}) == len(found)
    return {row["hour"]: row for row in found}


def shares(facts) -> dict[tuple[str, str | None], Decimal]:
    found = facts.engine.read(select(idle_shares)).to_pylist()
    assert len({(row["deployment"], row["hour"], row["kind"], row["team"]) for row in found}) == len(found)
    return {(row["kind"], row["team"]): row["usd"] for row in found}


def meter(facts, deployment: str = "rack", hour: datetime = TEN, source: str = "vllm", **told) -> None:
    whole = {"observed_ms": HOUR_MS, "counted_ms": HOUR_MS, "busy_ms": 0, "unavailable_ms": 0}
    if source in {"dcgm", "nvml"}:
        whole = {"counted_ms": HOUR_MS}
    row = {"tenant": "acme", "deployment": deployment, "hour": hour, "source": source, "role": None, **whole, **told}
    schema = {name: kind for name, kind in metered.HOURS.items() if name in row}
    metered.add(facts.engine, pl.DataFrame([row], schema=schema), pl.DataFrame())


def total(row: dict) -> Decimal:
    assert row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"] == sum(row[part] for part in PART)
    return sum(row[part] for part in PART)


@pytest.fixture
def call_on(facts, a_call):
    """Stores a call of a deployment: 30 minutes from ten o'clock on, unless told otherwise."""

    def store(deployment: str = "rack", **told):
        usual = {"duration_ms": HOUR_MS // 2, "input_tokens": 1000, "output_tokens": 0}
        facts.store(a_call(deployment=deployment, **{**usual, **OWN, **told}))

    return store


# ---- pools


def test_two_models_on_the_same_accelerators_share_what_is_paid_once(facts, call_on):
    facts.declare("big", TEN, pool="shared", model="qwen3-32b")
    facts.declare("small", TEN, pool="shared")
    call_on("big", input_tokens=3000)
    call_on("small", started_at=TEN + 15 * MINUTE)
    facts.refresh(TEN + HOUR)
    big, small = rows(facts, "big")[TEN], rows(facts, "small")[TEN]
    assert total(big) + total(small) == 4
    assert (big["busy_ms"], small["busy_ms"]) == (45 * 60_000,) * 2  # of the pool: both ran at once for a while
    assert (big["busy_usd"], small["busy_usd"]) == (Decimal("2.25"), Decimal("0.75"))
    assert (big["idle_usd"], small["idle_usd"]) == (Decimal("0.75"), Decimal("0.25"))
    assert big["accelerator_ms"] + small["accelerator_ms"] == 2 * HOUR_MS
    assert (big["pool"], small["pool"]) == ("shared", "shared")
    assert "shared by big, small" in big["method"]


def test_calls_within_a_longer_one_add_no_busy_time(facts, call_on):
    for name in ("a", "b"):
        facts.declare(name, TEN, pool="shared")
    call_on("a", duration_ms=50 * 60_000)
    call_on("b", started_at=TEN + 5 * MINUTE, duration_ms=60_000)
    call_on("a", started_at=TEN + 20 * MINUTE, duration_ms=10 * 60_000)
    call_on("b", started_at=TEN + 45 * MINUTE, duration_ms=10 * 60_000)
    facts.refresh(TEN + HOUR)
    assert rows(facts, "a")[TEN]["busy_ms"] == 55 * 60_000


def test_a_pool_that_nobody_called_is_idle_in_equal_parts(facts):
    for name in ("a", "b", "c"):
        facts.declare(name, TEN, pool="shared")
    facts.refresh(TEN + HOUR)
    found = [rows(facts, name)[TEN] for name in ("a", "b", "c")]
    assert sum(map(total, found)) == 4
    assert max(row["idle_usd"] for row in found) - min(row["idle_usd"] for row in found) < Decimal("1e-23")


def test_a_late_call_of_one_deployment_computes_all_of_its_pool_again(facts, call_on):
    facts.declare("a", TEN, pool="shared")
    facts.declare("b", TEN, pool="shared")
    call_on("a")
    facts.refresh(TEN + HOUR)
    call_on("b", started_at=TEN + 30 * MINUTE)
    assert facts.refresh(TEN + HOUR) == 2
    assert [rows(facts, name)[TEN]["busy_usd"] for name in ("a", "b")] == [2, 2]


def test_a_pool_and_a_deployment_of_the_same_name_have_nothing_in_common(facts, call_on):
    facts.declare("rack", TEN)
    facts.declare("other", TEN, pool="rack")
    call_on("rack")
    facts.refresh(TEN + HOUR)
    assert [total(rows(facts, name)[TEN]) for name in ("rack", "other")] == [4, 4]


APART = {"accelerator_count": 5, "prefill_count": 2, "decode_count": 3}


def test_accelerators_that_only_prefill_are_paid_by_input_and_those_that_decode_by_output(facts, call_on):
    facts.declare("rack", TEN, engine="vllm", **APART)
    call_on(input_tokens=7000, cache_read_tokens=2000, output_tokens=900, duration_ms=HOUR_MS)
    meter(facts, role="prefill", busy_ms=HOUR_MS // 4)
    meter(facts, role="decode", busy_ms=HOUR_MS // 2)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    into, out = 5000 * 1000 + 2000 * 100, 900 * 4000
    assert row["weight"] == into + out
    assert abs(into * row["rate_usd_per_weight"] - 2 * 2 / Decimal(4)) < Decimal("1e-15")
    assert abs(out * row["output_rate_usd_per_weight"] - 3 * 2 / Decimal(2)) < Decimal("1e-15")
    assert total(row) == 10
    assert row["busy_accelerator_ms"] == 2 * HOUR_MS // 4 + 3 * HOUR_MS // 2
    assert "by pools" in row["method"]
    answer = facts.ask("hardware_cost_usd", "capacity_cost_usd")
    assert answer == [{"hardware_cost_usd": row["busy_usd"], "capacity_cost_usd": 10}]


@pytest.mark.parametrize("weights", [{}, {"uncached_input": "250", "cached_input": "1", "output": "9999"}])
def test_prices_of_input_and_output_together_recover_what_was_paid(facts, call_on, weights):
    facts.declare("rack", TEN, weights=weights)
    call_on(input_tokens=123_457, cache_read_tokens=3457, output_tokens=8_191, duration_ms=HOUR_MS)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    per_mtok = {
        kind: row[f"{rate}rate_usd_per_weight"] * row[f"w_{kind}"] * 10**6
        for kind, rate in (("input", ""), ("cached", ""), ("output", "output_"))
    }
    tokens = {"input": 120_000, "cached": 3457, "output": 8191}
    recovered = sum(per_mtok[kind] * tokens[kind] for kind in tokens) / 10**6
    assert abs(recovered - 4) < Decimal("1e-12")
    assert per_mtok["output"] / per_mtok["input"] == Decimal(weights.get("output", 4000)) / Decimal(
        weights.get("uncached_input", 1000)
    )


@pytest.mark.parametrize(
    ("prefill_s", "decode_s", "into", "out"),
    [(900, 2700, 1, 3), (900, 7200, "0.8", "3.2"), (7200, 1800, Decimal(8) / 3, Decimal(4) / 3)],
)
def test_what_the_phases_took_is_better_evidence_than_weights(facts, call_on, prefill_s, decode_s, into, out):
    """Request-seconds run once for each request: of so many at once, each phase took an hour at most."""
    facts.declare("rack", TEN, engine="vllm")
    call_on(input_tokens=1000, output_tokens=1000, duration_ms=HOUR_MS)
    meter(facts, busy_ms=HOUR_MS, prefill_us=prefill_s * 10**6, decode_us=decode_s * 10**6)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert "by phase time" in row["method"]
    assert abs(row["rate_usd_per_weight"] * 1000 * 1000 - Decimal(into)) < Decimal("1e-15")
    assert abs(row["output_rate_usd_per_weight"] * 4000 * 1000 - Decimal(out)) < Decimal("1e-15")


def test_deployments_may_be_called_what_a_pool_is_called(facts):
    facts.declare("one", TEN, pool="shared")
    for name in ("shared", "pool shared", "deployment one"):
        facts.declare(name, TEN)
    facts.refresh(TEN + HOUR)
    assert [total(rows(facts, name)[TEN]) for name in ("one", "shared", "pool shared", "deployment one")] == [4] * 4


# ---- meters


def test_time_in_which_nothing_could_run_is_unavailable_and_time_that_nobody_saw_untracked(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(duration_ms=HOUR_MS // 8)
    meter(facts, hour=TEN - HOUR)
    meter(facts, observed_ms=HOUR_MS * 3 // 4, busy_ms=HOUR_MS // 4, unavailable_ms=HOUR_MS // 8)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert [row[part] for part in PART] == [1, Decimal("1.5"), Decimal("0.5"), 1]
    assert (row["busy_ms"], row["unavailable_ms"], row["unobserved_ms"]) == (900_000, 450_000, 900_000)
    assert row["busy_source"] == "engine"
    assert row["unobserved_accelerator_ms"] == 2 * 900_000


def test_in_the_hour_in_which_reading_begins_nothing_was_missed(facts):
    facts.declare("rack", TEN, engine="vllm")
    meter(facts, observed_ms=HOUR_MS // 4)
    meter(facts, hour=TEN + HOUR, observed_ms=HOUR_MS // 4)
    facts.refresh(TEN + 2 * HOUR)
    assert [row["unobserved_ms"] for row in rows(facts).values()] == [0, HOUR_MS * 3 // 4]


def test_an_engine_was_busy_for_as_long_as_calls_ran_on_it_at_least(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on()
    meter(facts, busy_ms=60_000)
    facts.refresh(TEN + HOUR)
    assert rows(facts)[TEN]["busy_ms"] == HOUR_MS // 2


def test_calls_that_wait_for_an_engine_that_is_down_do_not_make_it_busy(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(duration_ms=HOUR_MS)
    meter(facts, unavailable_ms=HOUR_MS // 4)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert (row["busy_ms"], row["unavailable_usd"], row["idle_usd"]) == (HOUR_MS * 3 // 4, 1, 0)


def test_the_running_hour_waits_for_the_last_readings_before_it_calls_anything_untracked(facts):
    facts.declare("rack", TEN, engine="vllm")
    meter(facts, hour=TEN - HOUR)
    meter(facts, observed_ms=19 * 60_000)
    facts.refresh(TEN + 20 * MINUTE)
    assert rows(facts)[TEN]["unobserved_ms"] == 0
    facts.refresh(TEN + 23 * MINUTE)
    assert rows(facts)[TEN]["unobserved_ms"] == 4 * 60_000


def test_tokens_that_only_the_engine_counted_carry_their_part_as_untracked(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(input_tokens=3000, duration_ms=HOUR_MS)
    meter(facts, busy_ms=HOUR_MS, prompt_tokens=4000, output_tokens=0)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert [row[part] for part in PART] == [3, 0, 0, 1]
    assert (row["input_tokens"], row["engine_input_tokens"], row["engine_output_tokens"]) == (3000, 4000, 0)


def test_an_engine_whose_counters_were_not_read_all_the_time_accuses_nobody(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(input_tokens=3000, duration_ms=HOUR_MS)
    meter(facts, busy_ms=HOUR_MS, prompt_tokens=4000, counted_ms=HOUR_MS * 9 // 10)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert row["engine_input_tokens"] is None
    assert row["untracked_usd"] == 0


def test_a_frontend_counts_tokens_and_workers_beside_it_tell_of_their_time(facts, call_on):
    facts.declare("rack", TEN, engine="dynamo", **APART)
    call_on(input_tokens=3000, output_tokens=10, duration_ms=HOUR_MS)
    meter(facts, source="dynamo", prompt_tokens=4000, output_tokens=20, busy_ms=HOUR_MS)
    for role, share in (("prefill", 4), ("decode", 2)):
        meter(facts, source="vllm", role=role, busy_ms=HOUR_MS // share, prefill_us=7, decode_us=9)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert (row["engine_input_tokens"], row["engine_output_tokens"]) == (4000, 20)
    assert row["busy_accelerator_ms"] == 2 * HOUR_MS // 4 + 3 * HOUR_MS // 2
    assert abs(row["untracked_usd"] - (Decimal(1) / 4 + Decimal(3) / 2)) < Decimal("1e-15")


def test_two_meters_that_each_were_read_for_half_an_hour_do_not_cover_it(facts, call_on):
    facts.declare("rack", TEN, engine="dynamo")
    call_on(duration_ms=HOUR_MS)
    meter(facts, source="dynamo", prompt_tokens=4000, counted_ms=HOUR_MS // 2)
    meter(facts, source="vllm", prefill_us=7, decode_us=9, counted_ms=HOUR_MS // 2)
    facts.refresh(TEN + HOUR)
    assert rows(facts)[TEN]["engine_input_tokens"] is None


def test_what_is_counted_of_calls_that_began_in_the_hour_before_is_not_untracked(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(started_at=TEN + 40 * MINUTE, duration_ms=HOUR_MS, input_tokens=1000, output_tokens=500)
    call_on(started_at=TEN + HOUR, duration_ms=HOUR_MS, input_tokens=1000, output_tokens=0)
    meter(facts, prompt_tokens=1000, output_tokens=200)
    meter(facts, hour=TEN + HOUR, prompt_tokens=1000, output_tokens=300)
    facts.refresh(TEN + 2 * HOUR)
    assert [row["untracked_usd"] for row in rows(facts).values()] == [0, 0]
    told = {line["name"]: line["value"] for line in json.loads(rows(facts)[TEN + HOUR]["sources"])}
    assert told["output tokens of calls that began in the hour before, among those counted"] == "300"
    # more output of the earlier call than it told: what is counted now is untracked after all
    call_on(started_at=TEN + 41 * MINUTE, duration_ms=1, input_tokens=0, output_tokens=0, counted=False)
    meter(facts, hour=TEN, output_tokens=250, prompt_tokens=0, counted_ms=0, observed_ms=0)
    assert facts.refresh(TEN + 2 * HOUR) == 2
    assert rows(facts)[TEN + HOUR]["untracked_usd"] > 0


def test_counters_that_begin_anew_or_are_not_read_for_a_while_lose_nothing_of_what_was_paid(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on(duration_ms=HOUR_MS, input_tokens=5000)
    restart = TEN + 31 * MINUTE
    read = [(0, None, 7000), (15, None, 9000), (32, restart, 200), (58, restart, 3200), (75, restart, 4900)]
    samples = pl.DataFrame(
        [{"series": "one", "started": since or TEN - DAY, "at": TEN + at * MINUTE, "value": value}
         for at, since, value in read], schema=meters.SAMPLES,
    )  # fmt: skip
    rises = meters.by_hour(meters.increases(samples))
    assert rises["increase"].sum() == 2000 + 3200 + 1700
    for hour, increase, observed_us in rises.select("hour", "increase", "observed_us").iter_rows():
        told = {"counted_ms": observed_us // 1000, "observed_ms": observed_us // 1000, "busy_ms": observed_us // 1000}
        meter(facts, hour=hour, prompt_tokens=increase, **told)
    facts.refresh(TEN + 2 * HOUR)
    assert [total(row) for row in rows(facts).values()] == [4, 4]
    spent = facts.ask("capacity_cost_usd", "hardware_cost_usd", "untracked_cost_usd", end=TEN + 2 * HOUR)
    assert spent[0]["capacity_cost_usd"] == 8
    assert spent[0]["untracked_cost_usd"] > 0


def test_energy_is_measured_where_meters_ran_through_and_counted_once_for_the_pool(facts):
    power = {"it_kw": "1", "pue": "1.25", "load_idle": "0.2"}
    for name in ("a", "b"):
        facts.declare(name, TEN, pool="shared", power=power, region="us-va")
        meter(facts, name, source="dcgm", millijoules=500_000_000)
    meter(facts, "a", source="nvml", millijoules=999_000_000)
    meter(facts, "a", hour=TEN + HOUR, source="dcgm", millijoules=1, counted_ms=HOUR_MS // 2)
    facts.refresh(TEN + 2 * HOUR)
    measured, modelled = (sum(rows(facts, name)[hour]["joules"] for name in ("a", "b")) for hour in (TEN, TEN + HOUR))
    system_over_chip = Decimal(1000) / 700
    assert abs(measured - 500_000 * system_over_chip * Decimal("1.25")) < Decimal("0.01")
    assert modelled == 2 * Decimal("0.2") * 1000 * 3600 * Decimal("1.25")
    assert [rows(facts, "a")[TEN + n * HOUR]["energy_source"] for n in (0, 1)] == ["measured", "modelled"]


def test_an_hour_tells_every_number_that_it_was_made_from(facts, call_on):
    facts.declare("rack", TEN, engine="vllm")
    call_on()
    meter(facts, prompt_tokens=1234)
    facts.refresh(TEN + HOUR)
    told = rows(facts)[TEN]["sources"]
    assert '"prompt tokens by the engine\'s counter", "value": "1234"' in told
    assert "measured: vllm, counters read across 3,600,000 of 3,600,000 ms" in told
    assert '"rent"' in told


# ---- policies


def set_policy(facts, since: datetime = TEN, **told) -> Policy:
    return facts.control.set_policy(Policy(effective_from=since, **told), "acme")


@pytest.mark.parametrize(
    ("policy", "carried"),
    [
        ("show", {}),
        ("spread by use", {("idle", "ads"): Decimal("1.5"), ("idle", "ops"): Decimal("0.5")}),
        ("spread evenly", {("idle", "ads"): Decimal(1), ("idle", "ops"): Decimal(1)}),
        ("charge the owner", {("idle", "search"): Decimal(2)}),
    ],
)
def test_who_carries_idle_is_a_policy_and_nothing_is_lost_under_any(facts, call_on, policy, carried):
    set_policy(facts, idle=policy)
    facts.declare("rack", TEN, owner="search")
    call_on(team="ads", input_tokens=3000)
    call_on(team="ops", input_tokens=1000)
    facts.refresh(TEN + HOUR)
    assert shares(facts) == carried
    spent = {row["team"]: row["spend_usd"] for row in facts.ask("spend_usd", dimensions=("team",))}
    assert sum(spent.values()) == 4
    if policy == "spread by use":
        assert spent == {"ads": 3, "ops": 1, "__idle__": 0}


@pytest.mark.parametrize(("cached", "weight"), [("free", 1000), ("fraction", 1300), ("full", 4000)])
def test_what_a_cached_token_weighs_is_a_policy(facts, call_on, cached, weight):
    set_policy(facts, cached=cached)
    facts.declare("rack", TEN)
    call_on(input_tokens=4, cache_read_tokens=3)
    facts.refresh(TEN + HOUR)
    row = rows(facts)[TEN]
    assert (row["weight"], total(row)) == (weight, 4)
    assert abs(row["busy_usd"] - 2) < Decimal("1e-15")


def test_late_calls_share_idle_anew(facts, call_on):
    set_policy(facts, idle="spread by use")
    facts.declare("rack", TEN)
    call_on(team="ads")
    facts.refresh(TEN + HOUR)
    assert shares(facts) == {("idle", "ads"): 2}
    call_on(team="ops", duration_ms=HOUR_MS * 3 // 4)
    facts.refresh(TEN + HOUR)
    assert shares(facts) == {("idle", "ads"): Decimal("0.5"), ("idle", "ops"): Decimal("0.5")}


def test_idle_that_nobody_could_carry_stays_a_line_of_its_own(facts, call_on):
    set_policy(facts, idle="spread by use")
    facts.declare("rack", TEN)
    call_on(team=None)
    facts.refresh(TEN + HOUR)
    assert shares(facts) == {("idle", None): 2}


# ---- what is computed again


def computed(facts, at: datetime) -> list[datetime]:
    return [hour for hour, row in rows(facts).items() if row["computed_at"] == at]


def test_a_policy_computes_the_hours_from_which_it_holds_again_and_no_other(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 6 * HOUR)
    kept = set_policy(facts, TEN + 3 * HOUR, idle="spread evenly")
    later = TEN + 6 * HOUR + MINUTE / 60
    assert facts.refresh(later) == 3 + 1
    assert computed(facts, later) == [TEN + n * HOUR for n in (3, 4, 5, 6)]
    assert [row["policy"] for row in rows(facts).values()] == [None] * 3 + [kept.id] * 4


def test_another_deployment_on_the_pool_computes_its_hours_again_from_then_on(facts):
    facts.declare("rack", TEN, pool="shared")
    facts.refresh(TEN + 4 * HOUR)
    facts.declare("guest", TEN + 2 * HOUR, pool="shared")
    later = TEN + 4 * HOUR + MINUTE
    facts.refresh(later)
    assert computed(facts, later) == [TEN + n * HOUR for n in (2, 3, 4)]
    assert [total(row) for row in list(rows(facts).values())[:4]] == [4, 4, 2, 2]


def test_a_running_hour_is_taken_back_when_its_deployment_had_ended_before(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 2 * HOUR + 20 * MINUTE)
    facts.declare("rack", TEN, effective_to=TEN + 2 * HOUR)
    assert facts.refresh(TEN + 2 * HOUR + 20 * MINUTE) == 1
    assert list(rows(facts)) == [TEN, TEN + HOUR]
    assert facts.refresh(TEN + 5 * HOUR) == 0


def test_what_is_declared_as_it_was_once_before_is_another_span(facts):
    facts.declare("rack", TEN, pool="shared")
    facts.declare("guest", TEN + 2 * HOUR, pool="shared", effective_to=TEN + 3 * HOUR)
    facts.refresh(TEN + 5 * HOUR)
    assert facts.refresh(TEN + 5 * HOUR) == 0
    assert [total(row) for row in rows(facts).values()] == [4, 4, 2, 4, 4]
    assert len({row["computed_from"] for row in rows(facts).values()}) == 3
    facts.refresh(TEN + 6 * HOUR)
    assert [total(row) for row in rows(facts).values()][4:] == [4, 4]


def test_two_refreshes_change_nothing(facts, call_on):
    set_policy(facts, idle="spread by use")
    for name in ("a", "b"):
        facts.declare(name, TEN, pool="shared", engine="vllm")
    call_on("a", team="ads")
    meter(facts, "a", prompt_tokens=5000)
    facts.refresh(TEN + 3 * HOUR)
    before = facts.engine.read(select(deployment_hours)).to_pylist(), shares(facts)
    assert facts.refresh(TEN + 3 * HOUR) == 0
    capacity.refresh(facts.engine, facts.control, TEN + 3 * HOUR)
    assert (facts.engine.read(select(deployment_hours)).to_pylist(), shares(facts)) == before


OWN_NUMBER = """
[[accelerator]]
id = "nvidia-h100-sxm"
capex_usd_typical = 99_000
capex_scope = ["typical=purchase"]
sources = ["capex_typical=purchase order 4711"]
as_of = "2026-11"
confidence = "high"
"""


def test_a_number_of_the_catalog_that_is_another_now_computes_open_hours_again_and_only_those(facts):
    midnight = TEN.replace(hour=0)
    facts.declare("rack", midnight - 2 * HOUR, profile={"kind": "owned"}, region="us-va")
    facts.refresh(midnight + 2 * HOUR)
    facts.control.close_period("acme", midnight - DAY, midnight)
    before = rows(facts)
    catalog.use(catalog.bundled().extended(OWN_NUMBER))
    try:
        assert facts.refresh(midnight + 2 * HOUR) == 2
        after = rows(facts)
        assert [total(after[hour]) > total(before[hour]) for hour in after] == [False, False, True, True]
        assert "purchase order 4711" in after[midnight]["sources"]
    finally:
        catalog.use(None)
    assert facts.refresh(midnight + 2 * HOUR) == 2
    assert [total(row) for row in rows(facts).values()] == [total(row) for row in before.values()]


def dirty(facts) -> int:
    return facts.engine.read(select(func.count().label("n")).select_from(dirty_hours)).to_pylist()[0]["n"]


def test_hours_of_a_closed_period_never_change(facts, call_on):
    midnight = TEN.replace(hour=0)
    facts.declare("rack", midnight - DAY)
    call_on(started_at=midnight - HOUR)
    facts.refresh(midnight + 2 * HOUR)
    facts.control.close_period("acme", midnight - DAY, midnight)
    frozen = {hour: row for hour, row in rows(facts).items() if hour < midnight}
    call_on(started_at=midnight - HOUR, duration_ms=90 * 60_000)
    meter(facts, hour=midnight - 5 * HOUR, prompt_tokens=5)
    with pytest.raises(ValueError, match="closed"):
        set_policy(facts, midnight - HOUR, idle="spread evenly")
    set_policy(facts, midnight, idle="spread evenly")
    assert facts.refresh(midnight + 2 * HOUR + MINUTE) == 3  # two hours under another policy, and the running one
    after = rows(facts)
    assert {hour: row for hour, row in after.items() if hour < midnight} == frozen
    assert after[midnight]["busy_ms"] == 30 * 60_000
    assert dirty(facts) == 0
    assert facts.refresh(midnight + 2 * HOUR + MINUTE) == 0


def test_hours_that_an_older_version_computed_are_computed_again_unless_they_are_closed(facts):
    midnight = TEN.replace(hour=0)
    facts.declare("rack", midnight - 2 * HOUR)
    facts.refresh(midnight + 2 * HOUR)
    facts.control.close_period("acme", midnight - DAY, midnight)
    with facts.engine.write() as transaction:
        transaction.execute(deployment_hours.update().values(computed_from=None, pool=None))
    assert facts.refresh(midnight + 2 * HOUR) == 2
    assert [row["pool"] for row in rows(facts).values()] == [None, None, "rack", "rack"]
    assert facts.refresh(midnight + 2 * HOUR) == 0


class ClosedMeanwhile:
    """The real engine; before anything is written, somebody closes a period."""

    def __init__(self, facts, start: datetime, end: datetime) -> None:
        self.read, self._facts, self._period = facts.engine.read, facts, (start, end)

    def write(self):
        if not self._facts.control.closed_periods("acme"):
            self._facts.control.close_period("acme", *self._period)
        return self._facts.engine.write()


def test_a_period_that_is_closed_while_hours_are_computed_stays(facts, call_on):
    midnight = TEN.replace(hour=0)
    facts.declare("rack", midnight - 2 * HOUR)
    facts.refresh(midnight + HOUR)
    frozen = rows(facts)
    call_on(started_at=midnight - 10 * MINUTE, duration_ms=HOUR_MS // 3)
    assert capacity.refresh(ClosedMeanwhile(facts, midnight - DAY, midnight), facts.control, midnight + HOUR) == 1
    after = rows(facts)
    assert [hour for hour in after if after[hour] != frozen[hour]] == [midnight]
    assert facts.refresh(midnight + HOUR) == 0
    assert dirty(facts) == 0


def test_hours_that_cannot_be_costed_are_unknown_and_hold_up_no_other(facts):
    prices = f"{TEN:%Y-%m-%dT%H:%MZ}=1.5"
    facts.declare("spot", TEN, profile={"kind": "spot", "prices": prices})
    contract = {"kind": "reserved", "contract": "one", "usd_per_hour": "1", "months": "1", "accelerators": "2",
                "starts": "2026-02-04T11:00Z"}  # fmt: skip
    facts.declare("rack", TEN, profile=contract)
    facts.refresh(TEN + 2 * HOUR)
    assert [total(row) for row in rows(facts, "spot").values()] == [3, 3]
    assert list(rows(facts)) == [TEN]  # then its term is over


# ---- bounds of days and hours


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2025, 10, 26), 25),
        ("Asia/Kathmandu", (2026, 3, 4), 24),
        ("Australia/Lord_Howe", (2026, 4, 5), Decimal("24.5")),
    ],
)
def test_a_local_day_is_paid_for_as_many_hours_as_it_has(facts, call_on, zone, day, hours):
    midnight = datetime(*day, tzinfo=ZoneInfo(zone))
    start, end = (at.astimezone(UTC) for at in (midnight, midnight + DAY))
    whole = start.replace(minute=0, second=0)
    facts.declare("rack", whole)
    call_on(started_at=start + 3 * HOUR + 7 * MINUTE, duration_ms=HOUR_MS // 3)
    facts.refresh(end + HOUR)
    (row,) = facts.ask("capacity_cost_usd", start=start, end=end)
    assert abs(row["capacity_cost_usd"] - hours * 4) < Decimal("1e-9")


def test_the_same_hours_cost_the_same_asked_for_in_pieces(facts, call_on):
    facts.declare("rack", TEN)
    call_on(started_at=TEN + 20 * MINUTE)
    facts.refresh(TEN + 3 * HOUR)
    edges = [TEN, TEN + 15 * MINUTE, TEN + 45 * MINUTE, TEN + 90 * MINUTE, TEN + 3 * HOUR]
    mine = (Filter("deployment", ("rack",)),)
    parts = [
        facts.ask("capacity_cost_usd", start=start, end=end, filters=mine)[0]["capacity_cost_usd"] or 0
        for start, end in pairwise(edges)
    ]
    assert abs(sum(parts) - 12) < Decimal("1e-9")
