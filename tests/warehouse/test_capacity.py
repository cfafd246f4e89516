"""Own hardware by the hour: what was paid is carried by calls or idle, to the last digit, however calls arrive."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from millicent.pricing.book import PriceBook
from millicent.warehouse import capacity, explain
from millicent.warehouse.calls import Search, find
from millicent.warehouse.ledger import LONGEST_CALL
from millicent.warehouse.tables import deployment_hours, dirty_hours

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE, MS = timedelta(hours=1), timedelta(minutes=1), timedelta(milliseconds=1)
HOUR_MS = HOUR // MS
OWN = {"billing": "self_hosted", "price_status": "not_billed", "billed_cost_usd": Decimal(0)}
POWERED = {
    "profile": {"kind": "owned", "capex_usd": "24400"}, "region": "us-va",
    "power": {"load_busy": "0.83", "tariff_usd_per_kwh": "0.0713"},
}  # fmt: skip
_names = (f"rack-{n}" for n in itertools.count())


def hours(facts, deployment: str | None = None, tenant: str = "acme") -> dict[datetime, dict]:
    asked = select(deployment_hours).where(deployment_hours.c.tenant == tenant)
    if deployment:
        asked = asked.where(deployment_hours.c.deployment == deployment)
    rows = facts.engine.read(asked.order_by(deployment_hours.c.hour)).to_pylist()
    assert len({(row["deployment"], row["hour"]) for row in rows}) == len(rows)
    return {row["hour"]: row for row in rows}


def total(row: dict) -> Decimal:
    return row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"]


def dirty(facts) -> int:
    return facts.engine.read(select(func.count().label("n")).select_from(dirty_hours)).to_pylist()[0]["n"]


# Busy time.


def naive_busy_ms(calls: list[tuple[int, int | None]], hour: int) -> int:
    """Milliseconds of an hour covered by at least one call, one elementary interval after the other."""
    longest = LONGEST_CALL // MS
    runs = [(start, start + min(lasted or 0, longest)) for start, lasted in calls]
    first, last = hour * HOUR_MS, (hour + 1) * HOUR_MS
    edges = sorted({first, last, *(edge for run in runs for edge in run if first < edge < last)})
    return sum(b - a for a, b in itertools.pairwise(edges) if any(start <= a and b <= end for start, end in runs))


@st.composite
def runs_of_calls(draw) -> list[tuple[str, int, int | None]]:
    start = st.integers(-7 * HOUR_MS, 3 * HOUR_MS - 1) | st.sampled_from((0, HOUR_MS - 1, HOUR_MS, -1))
    lasted = st.none() | st.sampled_from((0, 1, HOUR_MS, 9 * HOUR_MS)) | st.integers(0, 2 * HOUR_MS)
    whose = st.sampled_from(("acme", "acme", "rival"))
    return draw(st.lists(st.tuples(whose, start, lasted, st.integers(0, 10**6)), max_size=8))


@settings(max_examples=30, deadline=None)
@given(drawn=runs_of_calls())
def test_busy_is_the_union_of_calls_and_every_hour_closes(shared_facts, a_call, drawn):
    name = next(_names)
    for tenant in ("acme", "rival"):
        shared_facts.declare(name, TEN, tenant=tenant, **POWERED)
    shared_facts.store(*(
        a_call(tenant=tenant, deployment=name, started_at=TEN + start * MS, duration_ms=lasted,
               input_tokens=read, cache_read_tokens=read // 3, output_tokens=7, **OWN)
        for tenant, start, lasted, read in drawn
    ))  # fmt: skip
    shared_facts.refresh(TEN + 3 * HOUR)
    for tenant in ("acme", "rival"):
        mine = [(start, lasted) for whose, start, lasted, _ in drawn if whose == tenant]
        stored = hours(shared_facts, name, tenant)
        assert [row["busy_ms"] for row in stored.values()] == [naive_busy_ms(mine, hour) for hour in range(3)]
        carried = carried_by_calls(shared_facts, tenant, name)
        for hour, row in stored.items():
            assert total(row) == row["busy_usd"] + row["idle_usd"] + row["untracked_usd"]
            assert row["busy_usd"] == row["weight"] * (row["rate_usd_per_weight"] or 0) == carried.get(hour, 0)
            assert min(row["idle_usd"], row["untracked_usd"]) >= 0
            assert (row["rate_usd_per_weight"] is None) == (row["weight"] == 0)


def carried_by_calls(facts, tenant: str, deployment: str) -> dict[datetime, Decimal]:
    """What the calls of each hour cost in effect, as each of them says."""
    carried: dict[datetime, Decimal] = {}
    for row in find(facts.engine, tenant, Search(limit=1000))[0]:
        if row["deployment"] == deployment and row["started_at"] >= TEN:
            hour = row["started_at"].replace(minute=0, second=0, microsecond=0)
            carried[hour] = carried.get(hour, Decimal(0)) + row["effective_cost_usd"]
    return carried


def test_effective_spend_is_billed_api_plus_what_the_hardware_cost_in_full(facts, a_call):
    facts.declare("rack", TEN, **POWERED)
    facts.declare("second", TEN + HOUR)
    facts.store(
        *(a_call(billed_cost_usd=Decimal("0.000000000001") * n, team=f"t{n}") for n in range(1, 8)),
        *(a_call(deployment=name, started_at=TEN + n * 7 * MINUTE, duration_ms=n * 1234, input_tokens=n * 997,
                 cache_read_tokens=n, output_tokens=n * 31, team=f"t{n}", **OWN)
          for name in ("rack", "second") for n in range(1, 20)),
    )  # fmt: skip
    end = TEN + 3 * HOUR
    facts.refresh(end)
    bill = sum(total(row) for name in ("rack", "second") for row in hours(facts, name).values())
    # `second` was not declared in its first hour: calls then are unknown, not free
    (row,) = facts.ask("spend_usd", "billed_cost_usd", "hardware_cost_usd", "idle_cost_usd", "unpriced_calls", end=end)
    api = Decimal("0.000000000028")
    assert row["unpriced_calls"] == 8
    assert row["billed_cost_usd"] == api
    assert row["spend_usd"] == api + row["hardware_cost_usd"] + row["idle_cost_usd"] == api + bill
    by_team = facts.ask("spend_usd", dimensions=("team", "deployment"), end=end)
    assert sum(group["spend_usd"] for group in by_team if group["spend_usd"] is not None) == api + bill


def test_an_hour_without_calls_is_all_idle_and_has_no_rate(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + HOUR)
    row = hours(facts)[TEN]
    assert (row["busy_ms"], row["busy_usd"], row["idle_usd"], row["untracked_usd"]) == (0, 0, 4, 0)
    assert row["rate_usd_per_weight"] is None


def test_busy_time_without_tokens_is_untracked(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", duration_ms=HOUR_MS // 4, **OWN))
    facts.refresh(TEN + HOUR)
    row = hours(facts)[TEN]
    assert (row["busy_usd"], row["idle_usd"], row["untracked_usd"]) == (0, 3, 1)


def test_tokens_without_busy_time_leave_the_hour_idle(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", duration_ms=0, input_tokens=5, **OWN))
    facts.refresh(TEN + HOUR)
    assert (hours(facts)[TEN]["busy_usd"], hours(facts)[TEN]["idle_usd"]) == (0, 4)


def test_calls_that_do_not_count_keep_nothing_busy(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", duration_ms=60_000, input_tokens=5, counted=False, **OWN))
    facts.refresh(TEN + HOUR)
    assert hours(facts)[TEN]["busy_ms"] == 0


# Time passes.


def test_the_running_hour_accrues_each_minute_and_then_is_final(facts):
    facts.declare("rack", TEN)
    assert facts.refresh(TEN + 20 * MINUTE) == 1
    row = hours(facts)[TEN]
    assert (row["provisional"], row["elapsed_ms"], row["accelerator_ms"]) == (True, HOUR_MS // 3, 2 * HOUR_MS // 3)
    assert abs(total(row) - Decimal(4) / 3) < Decimal("1e-20")
    assert facts.refresh(TEN + 20 * MINUTE + 30_000 * MS) == 0
    assert facts.refresh(TEN + 21 * MINUTE) == 1
    assert hours(facts)[TEN]["elapsed_ms"] == 21 * MINUTE // MS
    assert facts.refresh(TEN + HOUR) == 1
    row = hours(facts)[TEN]
    assert (row["provisional"], total(row)) == (False, 4)
    assert facts.refresh(TEN + HOUR) == 0


def test_a_new_call_re_rates_the_running_hour_at_once(facts, a_call):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 20 * MINUTE)
    facts.store(a_call(deployment="rack", duration_ms=1000, input_tokens=5, **OWN))
    assert facts.refresh(TEN + 20 * MINUTE + MS) == 1
    assert hours(facts)[TEN]["busy_ms"] == 1000
    assert dirty(facts) == 0


def test_a_refresh_at_the_very_start_of_an_hour_does_nothing(facts):
    facts.declare("rack", TEN)
    assert facts.refresh(TEN) == 0
    assert facts.refresh(TEN + MS / 2) == 1
    assert hours(facts)[TEN]["elapsed_ms"] == 0
    assert facts.ask("spend_usd", start=TEN - MINUTE, end=TEN + MINUTE)[0]["spend_usd"] == 0


def test_late_calls_re_rate_every_hour_that_they_ran_in_and_no_other(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", duration_ms=HOUR_MS // 2, input_tokens=1000, **OWN))
    facts.refresh(TEN + 5 * HOUR)
    before = hours(facts)
    facts.store(a_call(deployment="rack", started_at=TEN + 45 * MINUTE, duration_ms=90 * MINUTE // MS,
                       input_tokens=1000, **OWN))  # fmt: skip
    assert facts.refresh(TEN + 6 * HOUR - MS) == 3 + 1
    after = hours(facts)
    assert [row["busy_ms"] * MS for row in after.values()] == [45 * MINUTE, HOUR, 15 * MINUTE, *[timedelta(0)] * 3]
    assert [total(row) for row in list(after.values())[:5]] == [4] * 5
    assert [hour for hour in before if before[hour] != after[hour]] == [TEN, TEN + HOUR, TEN + 2 * HOUR]
    assert after[TEN]["weight"] == 2 * before[TEN]["weight"]


def test_hours_missed_while_down_are_filled_in_over_days(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + HOUR + MINUTE)
    back = TEN + 52 * HOUR + MINUTE
    assert facts.refresh(back) == 52
    stored = hours(facts)
    assert list(stored) == [TEN + n * HOUR for n in range(53)]
    assert [row["provisional"] for row in stored.values()] == [False] * 52 + [True]
    (row,) = facts.ask("accelerator_hours", "spend_usd", end=TEN + 52 * HOUR)
    assert row == {"accelerator_hours": 104, "spend_usd": 208}


class EngineThatDies:
    """The real engine, for a number of writes."""

    def __init__(self, real, writes: int) -> None:
        self.read, self._real, self._writes = real.read, real, writes

    def write(self):
        self._writes -= 1
        if self._writes < 0:
            raise KeyboardInterrupt
        return self._real.write()


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_an_end_between_days_leaves_no_gap(facts, a_call, writes):
    end = TEN + 60 * HOUR
    facts.declare("rack", TEN)
    facts.declare("zeta", TEN)
    facts.store(a_call(deployment="rack", started_at=end - HOUR, duration_ms=1, input_tokens=1, **OWN))
    with pytest.raises(KeyboardInterrupt):
        capacity.refresh(EngineThatDies(facts.engine, writes), facts.control, end)
    facts.refresh(end)
    for name in ("rack", "zeta"):
        assert list(hours(facts, name)) == [TEN + n * HOUR for n in range(60)]
    assert dirty(facts) == 0
    assert facts.refresh(end) == 0


def test_a_call_whose_clock_runs_ahead_waits_for_its_hour_and_holds_up_nothing(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", started_at=TEN + 5 * HOUR, duration_ms=1000, input_tokens=1, **OWN))
    assert facts.refresh(TEN + HOUR) == 1
    assert list(hours(facts)) == [TEN]
    assert dirty(facts) == 1
    facts.refresh(TEN + 6 * HOUR)
    assert hours(facts)[TEN + 5 * HOUR]["busy_ms"] == 1000
    assert dirty(facts) == 0


def test_a_span_that_claims_to_have_lasted_for_centuries_is_busy_for_six_hours(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(deployment="rack", duration_ms=500 * 365 * 24 * HOUR_MS, input_tokens=1, **OWN))
    facts.refresh(TEN + 8 * HOUR)
    assert [row["busy_ms"] for row in hours(facts).values()] == [HOUR_MS] * 6 + [0, 0]


# Declarations.


def test_a_deployment_that_ends_costs_nothing_afterwards_and_its_calls_are_unknown(facts, a_call):
    facts.declare("rack", TEN, effective_to=TEN + 2 * HOUR)
    for hour in (1, 2):
        facts.store(a_call(deployment="rack", started_at=TEN + hour * HOUR, duration_ms=1000, input_tokens=1, **OWN))
    facts.refresh(TEN + 5 * HOUR)
    assert list(hours(facts)) == [TEN, TEN + HOUR]
    assert dirty(facts) == 0
    rows, _ = find(facts.engine, "acme", Search())
    assert [row["effective_cost_usd"] is None for row in rows] == [True, False]


def test_an_undeclared_deployment_has_no_hours(facts, a_call):
    facts.store(a_call(deployment="ghost", duration_ms=1000, input_tokens=1, **OWN))
    facts.refresh(TEN + HOUR)
    assert hours(facts) == {}
    assert dirty(facts) == 0


def test_a_deployment_declared_after_its_calls_rates_them(facts, a_call):
    facts.store(a_call(deployment="rack", duration_ms=HOUR_MS, input_tokens=1, **OWN))
    facts.refresh(TEN + 2 * HOUR)
    facts.declare("rack", TEN)
    facts.refresh(TEN + 2 * HOUR)
    assert facts.ask("hardware_cost_usd")[0]["hardware_cost_usd"] == 4


def test_a_new_period_from_the_past_re_rates_its_hours_and_leaves_those_before(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 6 * HOUR + MINUTE)
    facts.declare("rack", TEN + 2 * HOUR, accelerator_count=3)
    facts.refresh(TEN + 6 * HOUR + 2 * MINUTE)
    stored = list(hours(facts).values())
    assert [total(row) for row in stored[:6]] == [4, 4, 6, 6, 6, 6]
    assert [row["accelerator_count"] for row in stored] == [2, 2, 3, 3, 3, 3, 3]


def test_hours_computed_before_an_end_was_known_are_taken_back(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 6 * HOUR + MINUTE)
    facts.declare("rack", TEN + 2 * HOUR, effective_to=TEN + 4 * HOUR, accelerator_count=3)
    facts.refresh(TEN + 7 * HOUR)
    assert {hour: total(row) for hour, row in hours(facts).items()} == {
        TEN + n * HOUR: amount for n, amount in enumerate([4, 4, 6, 6])
    }
    assert facts.refresh(TEN + 7 * HOUR) == 0


def test_an_earlier_period_declared_later_is_computed_too(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + 2 * HOUR)
    facts.declare("rack", TEN - 3 * HOUR, effective_to=TEN - HOUR)
    facts.refresh(TEN + 2 * HOUR)
    assert list(hours(facts)) == [TEN + n * HOUR for n in (-3, -2, 0, 1)]


def test_two_tenants_with_the_same_deployment_share_nothing(facts, a_call):
    facts.declare("rack", TEN)
    facts.declare("rack", TEN, tenant="rival", profile={"kind": "rented", "usd_per_hour": "500"})
    facts.store(
        a_call(deployment="rack", duration_ms=HOUR_MS // 2, input_tokens=10, **OWN),
        a_call(deployment="rack", tenant="rival", duration_ms=HOUR_MS, input_tokens=77, **OWN),
    )
    facts.refresh(TEN + HOUR)
    mine, theirs = (hours(facts, tenant=tenant)[TEN] for tenant in ("acme", "rival"))
    assert (mine["busy_ms"], mine["weight"], total(mine)) == (HOUR_MS // 2, 10_000, 4)
    assert (theirs["busy_ms"], theirs["weight"], total(theirs)) == (HOUR_MS, 77_000, 1000)
    assert facts.ask("hardware_cost_usd", "idle_cost_usd") == [{"hardware_cost_usd": 2, "idle_cost_usd": 2}]


# Why a call costs what it does.


def explained(facts) -> tuple[dict, list[explain.Line]]:
    ((row,), _) = find(facts.engine, "acme", Search())
    return row, explain.lines(facts.engine, facts.prices, "acme", row)


def values(lines: list[explain.Line], step: str) -> dict[str, Decimal]:
    return {line.what: Decimal(line.value) for line in lines if line.step == step and line.value}


def priced(book: PriceBook, one: dict) -> dict:
    amounts = book.price(pl.DataFrame([one], schema_overrides={"started_at": pl.Datetime("us", "UTC")}))
    return one | amounts.row(0, named=True)


USAGE = {
    "provider": "anthropic", "model": "claude-sonnet-4-5", "started_at": TEN, "input_tokens": 12_345,
    "cache_read_tokens": 6_001, "cache_write_tokens": 203, "output_tokens": 777, "reasoning_tokens": None,
}  # fmt: skip


def test_the_explanation_of_an_api_call_adds_up_to_its_list_cost(facts, a_call):
    book = PriceBook.bundled()
    told = priced(book, USAGE)
    facts.store(a_call(**told, usage_rule="millicent/1", usage_raw='{"x":1}'))
    row, lines = explained(facts)
    amounts = values(lines, "list price")
    assert amounts.pop("list cost") == row["list_cost_usd"] == sum(amounts.values())
    assert len(amounts) >= 4
    assert values(lines, "effective") == {"billed cost of the API call": row["effective_cost_usd"]}
    assert {line.source for line in lines if line.step == "tokens"} == {'dialect rule millicent/1, reported: {"x":1}'}


def test_a_stored_price_that_the_book_no_longer_says_is_explained_as_such(facts, a_call):
    facts.store(
        a_call(**USAGE, list_cost_usd=Decimal(3), billed_cost_usd=Decimal(3), price_version="genai-prices 0.0.1")
    )
    _, lines = explained(facts)
    assert values(lines, "list price")["list cost"] == 3
    assert any("stored amounts do not move" in line.what for line in lines)


def test_an_unpriced_call_is_explained_without_a_zero(facts, a_call):
    facts.store(a_call(model="nobody-knows-me", provider="openai", input_tokens=5, price_status="unpriced"))
    _, lines = explained(facts)
    told = {line.what: line.value for line in lines if line.step in {"list price", "effective"}}
    assert told["list cost"] == told["billed cost of the API call"] == "unknown"
    assert any("nobody-knows-me" in line.what for line in lines)


def test_the_explanation_of_a_call_on_own_hardware_reproduces_its_cost(facts, a_call):
    facts.declare("rack", TEN, **POWERED)
    facts.store(a_call(deployment="rack", started_at=TEN + MINUTE, duration_ms=98_765, model="qwen3-8b",
                       input_tokens=12_345, cache_read_tokens=345, output_tokens=77, **OWN))  # fmt: skip
    facts.refresh(TEN + HOUR)
    row, lines = explained(facts)
    hour = values(lines, "deployment-hour")
    cost = hour["cost of the hour"]
    assert cost == hour["fixed"] + hour["energy"] + hour["hosting"]
    own = {line.what: Decimal(line.value) for line in lines if line.step == "own hardware" and line.unit == "USD"}
    weights = values(lines, "own hardware")
    assert weights["input weight: 12,000 × 1000 + 345 × 100"] == 12_034_500
    assert weights["output weight: 77 × 4000"] == 308_000
    assert own.pop("effective cost = input + output") == row["effective_cost_usd"] == sum(own.values()) > 0
    inputs = {line.what: line for line in lines if line.step == "inputs of the hour"}
    assert inputs["tariff"].value == "0.0713"
    assert inputs["tariff"].source.startswith("declared")


@pytest.mark.parametrize(
    ("deployment", "remedy"),
    [("ghost", "declare deployment 'ghost' with `millicent deployments declare`"), (None, "tag the call")],
)
def test_a_call_without_a_deployment_hour_says_what_to_do(facts, a_call, deployment, remedy):
    facts.store(a_call(deployment=deployment, input_tokens=5, **OWN))
    _, lines = explained(facts)
    (line,) = (line for line in lines if line.step == "own hardware")
    assert line.value == "unknown"
    assert remedy in line.what
