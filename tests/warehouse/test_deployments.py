"""Declarations: what they keep, what they refuse, and what they change of those that are there."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from millicent.pricing import catalog
from millicent.pricing.profiles import Reserved, Spot
from millicent.warehouse.control import Control, audit
from millicent.warehouse.deployments import BadDeploymentsError, Deployment
from millicent.warehouse.deployments import deployments as table

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RESERVED = {"kind": "reserved", "contract": "H100s", "usd_per_hour": "1.89", "starts": "2026-03-01T00:00Z",
            "months": "12", "accelerators": "8"}  # fmt: skip


@pytest.fixture
def control(facts) -> Control:
    return facts.control


def rack(name: str = "rack", start: int = 0, end: int | None = None, **told) -> Deployment:
    return Deployment(**{
        "name": name, "model": "qwen3-8b", "accelerator": "nvidia-h100-sxm", "accelerator_count": 2,
        "profile": {"kind": "rented", "usd_per_hour": "2"}, "effective_from": MARCH + start * HOUR,
        "effective_to": None if end is None else MARCH + end * HOUR, **told,
    })  # fmt: skip


def declared(control, *told, **more) -> list[str]:
    return [one.outcome for one in control.declare_all(told, "acme", **more)]


def refused(control, *told, **more) -> tuple[str, ...]:
    before = control.deployments()
    with pytest.raises(BadDeploymentsError) as error:
        control.declare_all(told, "acme", **more)
    assert control.deployments() == before
    return error.value.problems


def periods(control, name="rack") -> list[tuple]:
    mine = [one for _, one in control.deployments("acme") if one.name == name]
    hours = [(one.effective_from, one.effective_to) for one in mine]
    return [((a - MARCH) // HOUR, None if b is None else (b - MARCH) // HOUR) for a, b in hours]


# ---- what a deployment says


def test_everything_that_is_declared_comes_back(control):
    full = rack(
        pool="shared", accelerator_count=8, prefill_count=2, decode_count=6, parallelism="TP2 PP1", owner="Search",
        weights={"output": "5000", "cached_input": "50"}, metrics=("prefill=http://a:8000/metrics", "https://b/metrics"),
        dcgm=("http://a:9400/metrics",), gpus=("GPU-1", "GPU-2"),
    )  # fmt: skip
    control.declare(full, "acme")
    assert control.deployments("acme") == [("acme", full)]
    weights = control.deployments("acme")[0][1].token_weights()
    assert (weights.uncached_input, weights.cached_input, weights.output) == (1000, 50, 5000)


def test_a_row_from_before_these_fields_reads_as_before(control):
    control.declare(rack(), "acme")
    with control.begin() as connection:
        told = connection.execute(select(table.c.settings)).scalar_one()
        old = {name: told[name] for name in ("model", "accelerator", "accelerator_count", "engine", "precision",
               "region", "environment", "endpoints", "profile", "power")}  # fmt: skip
        connection.execute(update(table).values(settings=old))
    assert control.deployments("acme") == [("acme", rack())]


def test_profiles_of_every_kind_are_read(control):
    spot = {"kind": "spot", "prices": "2026-03-01T00:00Z=1.20 2026-03-02T06:00+02:00=1.35", "includes_power": "true"}
    profile = rack(profile=spot).cost_profile()
    assert profile == Spot(
        prices=((MARCH, Decimal("1.20")), (MARCH + 28 * HOUR, Decimal("1.35"))), includes_power=True
    )  # fmt: skip
    one = rack(profile=RESERVED)
    assert one.contract == "H100s"
    assert one.cost_profile() == Reserved(usd_per_hour=Decimal("1.89"), starts=MARCH, months=12, accelerators=8)
    monthly = {**RESERVED, "hours_per_month": "500.5", "upfront_share": "0.5", "overage_usd_per_hour": "3"}
    del monthly["accelerators"]
    assert rack(profile=monthly).cost_profile().hours_per_month == Decimal("500.5")
    assert rack(profile={"kind": "preset", "name": "dated"}).cost_profile().name == "dated"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"profile": {**RESERVED, "contract": " "}}, "name the reservation"),
        ({"profile": {**RESERVED, "months": "0"}}, "months 0 is no term"),
        ({"profile": {**RESERVED, "months": "1201"}}, "at most 1200"),
        ({"profile": {**RESERVED, "months": "a year"}}, "whole number"),
        ({"profile": {**RESERVED, "hours_per_month": "5"}}, "write one of them"),
        ({"profile": {**RESERVED, "starts": "2026-03-01T00:00"}}, "no instant with a time zone"),
        ({"profile": {"kind": "spot", "prices": ""}}, "prices are missing"),
        ({"profile": {"kind": "spot", "prices": "1.20"}}, "2026-03-01T00:00Z=1.20"),
        ({"profile": {"kind": "spot", "prices": "2026-03-02T00:00Z=1 2026-03-01T00:00Z=2"}}, "order"),
        ({"profile": {"kind": "rented", "usd_per_hour": "1e13"}}, "correct it"),
        ({"profile": {"kind": "rented", "usd_per_hour": "1e-19"}}, "18 decimals"),
        ({"prefill_count": 1}, "write both or none"),
        ({"prefill_count": 1, "decode_count": 2}, "add up"),
        ({"prefill_count": 0, "decode_count": 2}, "above 0"),
        ({"weights": {"output": "0"}}, "whole number from 1"),
        ({"weights": {"output": "4.5"}}, "whole number from 1"),
        ({"weights": {"reasoning": "1"}}, "write uncached_input, cached_input, output"),
        ({"metrics": ("10.0.0.1:8000",)}, "write http://host:8000/metrics"),
        ({"metrics": ("both=http://a/metrics",)}, "write http://host:8000/metrics"),
        ({"metrics": ("http://ann:secret@a/metrics",)}, "holds a password"),
        ({"metrics": ("http://a:99999/metrics",)}, "write http://host:8000/metrics"),
        ({"dcgm": ("prefill=http://a/metrics",)}, "write http://host:8000/metrics"),
        ({"dcgm": ("http://a/m", "http://a/m")}, "counted twice"),
        ({"gpus": ("GPU-1",)}, "name it with dcgm"),
    ],
)  # fmt: skip
def test_what_cannot_be_says_the_value_and_the_remedy(told, why):
    with pytest.raises(BadDeploymentsError, match=why):
        rack(**told)


def test_everything_that_is_wrong_with_a_deployment_is_told_at_once():
    with pytest.raises(BadDeploymentsError) as error:
        rack(profile={"kind": "x"}, power={"pue": "-1"}, weights={"output": "0"}, metrics=("x", "x"), prefill_count=1,
             effective_to=MARCH + HOUR / 2)  # fmt: skip
    assert len(error.value.problems) == 8


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"name": "a\nb"}, "on one line"), ({"name": "__idle__"}, "meaning of its own"), ({"model": ""}, "1 to 256"),
        ({"owner": "x" * 257}, "1 to 256"), ({"endpoints": ("",)}, "endpoints"),
        ({"effective_from": datetime(206, 3, 1, tzinfo=UTC)}, "correct the year"),
        ({"accelerator": "h100"}, "write 'nvidia-h100-sxm'"), ({"region": "atlantis"}, "atlantis"),
        ({"profile": {"kind": "preset", "name": "dated"}, "accelerator": "google-tpu-v7"}, "declare your own"),
        ({"profile": RESERVED, "effective_from": MARCH - DAY}, "the reservation holds from"),
        ({"profile": {"kind": "spot", "prices": "2026-04-01T00:00Z=1"}}, "no spot price is known"),
        ({"profile": {"kind": "rented", "usd_per_hour": "999999999999"}, "accelerator_count": 1000}, "correct its num"),
    ],
)  # fmt: skip
def test_hours_that_could_not_be_costed_or_told_apart_are_refused(control, told, why):
    problems = refused(control, rack("fine"), rack(**told))
    assert len(problems) == 1
    assert why in problems[0]


HOSTILE = st.sampled_from(["0", "1", "0.5", "1e12", "1e-18", "999999999999.999999", "0.000000000000000001", "1E+2"])


@settings(max_examples=60, deadline=None)
@given(
    profile=st.fixed_dictionaries(
        {"kind": st.just("owned")},
        optional=dict.fromkeys(("capex_usd", "life_years", "cost_of_capital", "residual_usd",
                                "maintenance_usd_per_year", "hosting_usd_per_kw_month"), HOSTILE),
    )
    | st.fixed_dictionaries(
        {**{name: st.just(value) for name, value in RESERVED.items()}, "usd_per_hour": HOSTILE,
         "months": st.sampled_from(["1", "1200"])},
        optional={"upfront_share": HOSTILE, "cost_of_capital": HOSTILE, "overage_usd_per_hour": HOSTILE},
    ),
    power=st.fixed_dictionaries({}, optional=dict.fromkeys(
        ("it_kw", "load_busy", "load_idle", "pue", "tariff_usd_per_kwh", "gco2e_per_kwh"), HOSTILE)),
)  # fmt: skip
def test_whatever_numbers_are_told_they_are_taken_or_refused_with_reasons(shared_facts, profile, power):
    try:
        told = rack(profile=profile, power=power)
        shared_facts.control.declare_all([told], "acme", dry_run=True)
    except BadDeploymentsError as error:
        assert all(problem.strip() for problem in error.problems)  # noqa: PT017 - either is fine


# ---- periods of one name


def test_what_holds_already_changes_nothing_however_its_numbers_are_written(control):
    assert declared(control, rack(power={"pue": "1.2"})) == ["added"]
    same = rack(start=5, power={"pue": "1.20"}, profile={"kind": "rented", "usd_per_hour": "2.00"})
    assert declared(control, rack(power={"pue": "1.2"}), same) == ["unchanged", "unchanged"]
    assert periods(control) == [(0, None)]
    with control.begin() as connection:
        assert len(connection.execute(select(audit).where(audit.c.action == "deployment.declare")).all()) == 1


def test_an_open_period_ends_where_the_next_one_starts_and_a_dated_file_stays_true(control):
    file = (rack(), rack(start=24, accelerator_count=4), rack(start=48, accelerator_count=8))
    assert declared(control, *file[::-1]) == ["added", "added", "added"]
    assert periods(control) == [(0, 24), (24, 48), (48, None)]
    assert declared(control, *file) == ["unchanged"] * 3
    between = rack(start=36, accelerator_count=6)
    assert declared(control, *file, between) == ["unchanged", "unchanged", "unchanged", "added"]
    assert periods(control) == [(0, 24), (24, 36), (36, 48), (48, None)]
    assert declared(control, *file, between) == ["unchanged"] * 4


def test_an_end_is_set_moved_and_kept(control):
    declared(control, rack())
    assert declared(control, rack(end=24)) == ["ended"]
    assert declared(control, rack(start=3, end=24)) == ["unchanged"]
    assert declared(control, rack(end=48)) == ["ended"]
    assert periods(control) == [(0, 48)]
    assert "overlaps that from" in refused(control, rack())[0], "what ended does not go on by itself"
    assert declared(control, rack(start=60)) == ["added"]
    assert "overlaps that from" in refused(control, rack(end=61))[0]
    assert declared(control, rack(end=48), rack(start=60)) == ["unchanged", "unchanged"]


def test_what_began_this_hour_or_later_is_declared_as_often_as_it_takes(control):
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    soon = rack(effective_from=now)
    later = rack(name="later", effective_from=now + DAY)
    declared(control, soon, later)
    assert (
        declared(control, replace(soon, accelerator_count=3), replace(later, accelerator_count=3)) == ["replaced"] * 2
    )
    assert [one.accelerator_count for _, one in control.deployments()] == [3, 3]


def test_what_began_earlier_is_replaced_only_when_told_so(control):
    declared(control, rack(), rack(start=24, accelerator_count=4))
    assert "or replace that one" in refused(control, rack(owner="Search"))[0]
    assert declared(control, rack(owner="Search"), replacing=True) == ["replaced"]
    assert periods(control) == [(0, 24), (24, None)]
    assert declared(control, rack(start=5, owner="Ads"), replacing=True) == ["added"], "nothing begins there"
    assert periods(control) == [(0, 5), (5, 24), (24, None)]


def test_a_dry_run_tells_and_stores_nothing(control):
    assert declared(control, rack(), dry_run=True) == ["added"]
    assert control.deployments() == []
    assert refused(control, rack(region="atlantis"), dry_run=True)


def test_a_reserved_deployment_ends_with_its_contract(control):
    (made,) = control.declare_all([rack(profile=RESERVED)], "acme")
    assert made.deployment.effective_to == datetime(2027, 3, 1, tzinfo=UTC)
    assert declared(control, rack(profile=RESERVED)) == ["unchanged"]
    assert "is after contract 'H100s' ends" in refused(control, rack("two", end=20_000, profile=RESERVED))[0]


TOLD = st.tuples(st.integers(0, 9), st.none() | st.integers(1, 12), st.sampled_from([1, 2, 3]))


@settings(max_examples=150, deadline=None)
@given(told=st.lists(TOLD, min_size=1, max_size=7), replacing=st.booleans())
def test_periods_never_overlap_the_past_stays_and_the_last_word_holds(shared_facts, told, replacing):
    control = shared_facts.control
    with control.begin() as connection:
        connection.execute(table.delete())
    for start, end, count in told:
        one = rack(start=start, end=end, accelerator_count=count)
        before = by_hour(control)
        try:
            control.declare_all([one], "acme", replacing=replacing)
        except BadDeploymentsError:
            assert by_hour(control) == before
            continue
        after = by_hour(control)
        assert after[:start] == before[:start]
        if end is None or end > start:
            assert after[start] == count
        assert declared(control, one) == ["unchanged"]


def by_hour(control) -> list[int | None]:
    """Accelerators by the hour; fails where two periods hold."""
    found = [one for _, one in control.deployments("acme")]
    hours = []
    for hour in range(14):
        at = MARCH + hour * HOUR
        held = [one.accelerator_count for one in found
                if one.effective_from <= at and (one.effective_to is None or at < one.effective_to)]  # fmt: skip
        assert len(held) < 2
        hours.append(held[0] if held else None)
    return hours


# ---- closed periods


def test_declarations_leave_closed_periods_as_they_are(control):
    declared(control, rack())
    control.close_period("acme", MARCH + 7 * DAY, MARCH + 14 * DAY)
    for told in (
        rack("new", start=0), rack("new", start=8 * 24), rack(start=24, accelerator_count=4), rack(end=8 * 24),
    ):  # fmt: skip
        (problem,) = refused(control, told)
        assert "which operator closed: start at 2026-03-15 00:00 UTC or later" in problem
    assert refused(control, rack(owner="Search"), replacing=True)
    assert declared(control, rack()) == ["unchanged"]
    assert declared(control, rack("new", start=14 * 24)) == ["added"]
    assert declared(control, rack("before", start=0, end=7 * 24)) == ["added"]
    assert declared(control, rack(end=20 * 24)) == ["ended"]
    assert control.declare_all([rack("new", start=0)], "rival"), "whose periods are open"


# ---- deployments beside each other


def test_deployments_of_a_pool_are_alike_while_they_share_it(control):
    declared(control, rack(pool="p"), rack("two", pool="p", model="other", owner="Ads", weights={"output": "9"}))
    for told in ({"accelerator_count": 4}, {"power": {"pue": "1.5"}}, {"region": "us-va"},
                 {"profile": {"kind": "rented", "usd_per_hour": "3"}}, {"accelerator": "nvidia-h200-sxm"},
                 {"prefill_count": 1, "decode_count": 1}):  # fmt: skip
        problems = refused(control, rack("three", start=5, pool="p", **told))
        assert all("declare all of its deployments alike, together" in problem for problem in problems)
        assert any(f"{next(iter(told))}" in problem for problem in problems)
    assert declared(control, rack("three", pool="other", accelerator_count=4)) == ["added"]
    bigger = [rack(name, start=24, pool="p", accelerator_count=4) for name in ("rack", "two")]
    assert refused(control, bigger[0])
    assert declared(control, bigger[0], replace(bigger[1], model="other")) == ["added", "added"]


def test_one_pool_later_may_be_another(control):
    declared(control, rack(end=24, pool="p"))
    assert declared(control, rack("two", start=24, pool="p", accelerator_count=4)) == ["added"]
    assert control.declare_all([rack("three", pool="p", accelerator_count=8)], "rival")


def test_deployments_under_a_contract_have_the_same_terms_at_any_time(control):
    declared(control, rack(end=24, profile=RESERVED))
    (problem,) = refused(control, rack("two", start=48, profile={**RESERVED, "usd_per_hour": "2"}))
    assert "under contract 'H100s'" in problem
    assert refused(control, rack("two", start=48, accelerator="nvidia-h200-sxm", profile=RESERVED))
    assert refused(control, rack(start=48, profile={**RESERVED, "months": "6"})), "of the same name, too"
    assert declared(control, rack("two", start=48, profile={**RESERVED, "usd_per_hour": "1.890"})) == ["added"]
    assert declared(control, rack("three", profile={**RESERVED, "contract": "others", "months": "6"})) == ["added"]


def test_energy_and_tokens_are_not_counted_twice(control):
    url, exporter = "http://a:8000/metrics", "http://a:9400/metrics"
    declared(control, rack(metrics=(url,), dcgm=(exporter,)))
    assert "name it in one" in refused(control, rack("two", metrics=(f"prefill={url}",)))[0]
    assert "say with gpus which are whose" in refused(control, rack("two", dcgm=(exporter,)))[0]
    assert declared(control, rack("two", dcgm=(exporter,), gpus=("GPU-1",))) == ["added"]
    assert "GPU GPU-1" in refused(control, rack("three", dcgm=(exporter,), gpus=("GPU-1",)))[0]
    assert declared(control, rack("four", dcgm=("http://b:9400/metrics",), pool="p"),
                    rack("five", dcgm=("http://b:9400/metrics",), pool="p")) == ["added", "added"]  # fmt: skip


def test_every_problem_of_all_is_told_once(control):
    problems = refused(
        control, rack("a", pool="p"), rack("b", pool="p", accelerator_count=3), rack("c", region="atlantis"),
        rack("d", model=""), rack("e", end=0),
    )  # fmt: skip
    assert len(problems) == 4
    assert [sum(f"'{name}'" in one for one in problems) for name in "abcde"] == [1, 1, 1, 1, 1]


def test_a_catalog_of_ones_own_can_go_and_what_was_declared_by_it_is_still_read(control):
    catalog.use(catalog.bundled().extended(
        '[[accelerator]]\nid = "acme-abacus"\nvendor = "Acme"\nname = "Abacus"\nsources = ["spec=workshop"]\n'
        'as_of = "2026-11"\nconfidence = "low"\n'
    ))  # fmt: skip
    try:
        declared(control, rack(accelerator="acme-abacus"))
    finally:
        catalog.use(None)
    assert [one.accelerator for _, one in control.deployments()] == ["acme-abacus"]
