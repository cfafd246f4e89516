"""The Efficiency page without a screen: its address, its arithmetic, what its parts say, and who may set a policy."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import product

import plotly.graph_objects as go
import polars as pl
import pytest
from asked_pages import callback
from asked_pages import words as text_of
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard.pages import efficiency_preview
from millicent.dashboard.pages.efficiency_daily import figure
from millicent.dashboard.pages.efficiency_deployments import LOW_USE, WASTE, About, hints, summed, worst_first
from millicent.dashboard.pages.efficiency_flow import FLOW, LEVELS, hours, opened_step, opening, steps
from millicent.dashboard.pages.efficiency_heat import cells, occurrences, words
from millicent.dashboard.pages.efficiency_place import CHOSEN, Place, Slot
from millicent.dashboard.pages.efficiency_policy import in_force, policy_of
from millicent.dashboard.pages.efficiency_preview import Unused, shared
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import RANGES, View, Window
from millicent.pricing.idle import carriers
from millicent.warehouse import capacity
from millicent.warehouse.control import DEFAULT_TENANT, Deployment
from millicent.warehouse.policies import BUILT_IN, Policy
from millicent.warehouse.query import Filter, Query
from millicent.warehouse.store import Warehouse

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW = datetime.now(UTC)
THIS_HOUR = NOW.replace(minute=0, second=0, microsecond=0)
SINCE = THIS_HOUR - 6 * HOUR
HOSTILE = "<img src=x onerror=alert(1)>"
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
choices = st.lists(texts, min_size=1, max_size=3, unique=True).map(tuple)
places = st.builds(
    Place,
    view=st.builds(
        View,
        range=st.sampled_from(tuple(RANGES)),
        compare=st.sampled_from(("previous", "none")),
        filters=st.fixed_dictionaries({}, optional=dict.fromkeys(CHOSEN, choices)).map(
            lambda found: View(filters=tuple(found.items())).toggled().filters
        ),
    ),
    team=st.just(()) | choices,
    unit=st.sampled_from(("usd", "hours")),
    slot=st.none() | st.builds(Slot, st.integers(0, 6), st.integers(0, 23)),
    opened=st.just("") | texts,
)
amounts = st.decimals(0, 10**6, places=6, allow_nan=False, allow_infinity=False)


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Place.parse(place.search()) == place
    assert place.href()


@given(st.text(max_size=300))
def test_any_address_opens(search):
    assert Place.parse(f"?{search}").href()


def test_the_plain_address_is_the_default_and_links_keep_what_is_shown():
    assert Place().search() == ""
    here = Place.parse("?v=1&p=7d&in=hours&at=tue-14&team=Search&region=us-va")
    there = Place.parse(here.toggled(deployment="a b/c&d").href())
    assert (there.unit, there.slot, there.team) == ("hours", Slot(1, 14), ("Search",))
    assert there.view.filters == (("region", ("us-va",)), ("deployment", ("a b/c&d",)))
    assert there.toggled(deployment="a b/c&d") == here


@pytest.mark.parametrize("text", ["", "tue", "tue-24", "xyz-14", "tue-14 ", "TUE-14", None])
def test_what_is_no_hour_of_the_week_is_none(text):
    assert Slot.parse(text) is None


# ---- from paid to busy

shares = st.lists(amounts, min_size=5, max_size=5)


def total(unused, unavailable, idle, untracked, busy) -> dict:
    """The sums of hours and dollars that went these ways, the same number of either."""
    paid = unused + unavailable + idle + untracked + busy
    return {
        "accelerator_hours": paid, "allocated_accelerator_hours": paid - unused,
        "serving_accelerator_hours": paid - unused - unavailable, "busy_accelerator_hours": busy,
        "unobserved_accelerator_hours": untracked, "capacity_cost_usd": paid, "hardware_cost_usd": busy,
        "idle_cost_usd": idle + unused, "unavailable_cost_usd": unavailable, "untracked_cost_usd": untracked,
    }  # fmt: skip


@given(shares, st.sampled_from(("usd", "hours")))
def test_every_level_is_the_one_before_less_what_was_lost(parts, unit):
    found = {step.kind: step for step in steps(total(*parts), parts[0], unit)}
    lost = [found[kind].amount for kind in ("unused", "unavailable", "idle", "untracked")]
    assert lost == parts[:4]
    levels = [found[kind].amount for kind in LEVELS]
    assert levels == [sum(parts), sum(parts[1:]), sum(parts[2:]), parts[4]]
    assert found["untracked"].left == found["busy"].amount


def test_what_is_unknown_stays_unknown():
    nothing = dict.fromkeys(FLOW)
    assert {step.amount for unit in ("usd", "hours") for step in steps(nothing, None, unit)} == {None}
    assert hours(None) == "—"


def test_every_step_opens_a_figure_or_a_difference_that_can_be_read():
    for step, unit in product(steps(total(*map(Decimal, range(5))), None, "usd"), ("usd", "hours")):
        what = opening(step.kind, unit)
        assert not isinstance(what, str) or opened_step(what) == (step.kind, unit)
    for text in ("", "way", "way?busy-usd", "way?idle-eur", "idle_cost_usd", "way?x"):
        assert opened_step(text) is None


# ---- idle by hour of the week


def test_an_hour_of_the_week_is_the_mean_of_its_hours():
    monday = datetime(2026, 11, 2, 14, tzinfo=UTC)
    times = [monday, monday + 7 * DAY, monday + HOUR, monday + 2 * HOUR]
    frame = pl.DataFrame({
        "time": times, "idle_cost_usd": [Decimal(4), Decimal(2), Decimal(1), None],
        "capacity_cost_usd": [Decimal(10), Decimal(10), Decimal(4), None],
    }, schema_overrides={"time": pl.Datetime("us", "UTC"), "idle_cost_usd": pl.Decimal(38, 12),
                         "capacity_cost_usd": pl.Decimal(38, 12)})  # fmt: skip
    found = cells(frame)
    assert found.keys() == {Slot(0, 14), Slot(0, 15)}
    assert (found[Slot(0, 14)].mean_usd, found[Slot(0, 14)].hours) == (3, 2)
    assert words(found).startswith("Most on Mondays 14:00 to 15:00 UTC, $3.00 an hour; least on Mondays 15:00")
    assert words({}) == ""


@given(st.integers(0, 6), st.integers(0, 23), st.integers(1, 30))
def test_the_hours_of_a_slot_are_those_of_the_period(day, hour, days):
    start = datetime(2026, 11, 4, tzinfo=UTC)
    found = occurrences(start, start + days * DAY, Slot(day, hour))
    assert [(one.weekday(), one.hour) for one in found] == [(day, hour)] * len(found)
    assert len(found) in {days // 7, days // 7 + 1}


# ---- deployments


def row(name: str, paid="100", busy="10", usd="200", idle="150") -> dict:
    told = {"deployment": name, "accelerator_hours": Decimal(paid), "busy_accelerator_hours": Decimal(busy),
            "capacity_cost_usd": Decimal(usd), "idle_cost_usd": Decimal(idle)}  # fmt: skip
    return dict.fromkeys(WASTE) | told


H100 = About("qwen3-8b", "nvidia-h100-sxm", "vllm", "us-va", None)


def test_two_that_are_little_used_could_share():
    (hint,) = hints([row("small", paid="50", busy="15"), row("large", busy="35")], {"small": H100, "large": H100})
    assert (hint.stays, hint.goes, hint.together, hint.saves_usd) == ("large", "small", Decimal("0.5"), 200)
    assert hint.apart == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"busy": "41"}, H100),  # one is used too much
        ({"busy": "39", "paid": "100"}, About("qwen3-32b", "nvidia-h100-sxm", "vllm", "us-va", None)),
        ({}, About("qwen3-8b", "nvidia-b200", "vllm", "us-va", None)),
        ({}, About(None, None, None, None, None)),
    ],
)
def test_others_could_not(one, other):
    assert hints([row("a", **one), row("b")], {"a": H100, "b": other}) == []


def test_deployments_of_one_pool_share_already():
    pooled = About("qwen3-8b", "nvidia-h100-sxm", "vllm", "us-va", None, pool="shared")
    assert hints([row("a"), row("b")], {"a": pooled, "b": pooled}) == []


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 100)), max_size=8))
def test_hints_keep_their_word(told):
    rows = [row(str(at), str(paid), str(paid * busy / 100)) for at, (paid, busy) in enumerate(told)]
    found = hints(rows, {one["deployment"]: H100 for one in rows})
    named = [name for hint in found for name in (hint.stays, hint.goes)]
    assert len(named) == len(set(named))
    for hint in found:
        assert hint.paid_hours[0] >= hint.paid_hours[1]
        assert all(busy / paid < LOW_USE for busy, paid in zip(hint.busy_hours, hint.paid_hours, strict=True))
        assert hint.together < 2 * LOW_USE < 1


def test_the_worst_stands_first_and_what_has_no_accelerators_is_left_out():
    rows = [row("b", idle="5"), row("a", idle="50"), dict.fromkeys(WASTE) | {"deployment": None}]
    assert [one["deployment"] for one in worst_first(rows)] == ["a", "b"]
    (twice,) = summed([row("a"), row("a")])
    assert (twice["idle_cost_usd"], twice["engine_tokens"]) == (300, None)


# ---- who carries idle


@given(st.lists(st.builds(Unused, amounts, amounts, st.dictionaries(texts, amounts, max_size=3), st.none() | texts),
                max_size=5))  # fmt: skip
def test_every_policy_carries_the_same_amount_to_the_last_digit(told):
    carried = shared(told)
    with localcontext(prec=80):
        whole = sum((one.idle_usd + one.unavailable_usd for one in told), Decimal(0))
        assert {sum(teams.values(), Decimal(0)) for teams in carried.values()} == {whole}
    assert set(carried["show"]) <= {None}


def test_hours_are_shared_one_by_one():
    told = [Unused(Decimal(6), Decimal(0), {"a": Decimal(2), "b": Decimal(1)}, "b"),
            Unused(Decimal(3), Decimal(1), {"b": Decimal(1)}, None),
            Unused(Decimal(2), Decimal(0), {}, None)]  # fmt: skip
    carried = shared(told)
    assert carried["spread by use"] == {"a": 4, "b": 6, None: 2}
    assert carried["spread evenly"] == {"a": 3, "b": 7, None: 2}
    assert carried["charge the owner"] == {"b": 6, None: 6}
    assert carried["show"] == {None: 12}


FORM = {"idle": "spread by use", "cached": "full", "day": "2026-11-01", "hour": "07", "note": " since Q4 "}


def test_a_form_is_a_policy():
    made = policy_of(FORM)
    assert (made.idle, made.cached, made.note) == ("spread by use", "full", "since Q4")
    assert made.effective_from == datetime(2026, 11, 1, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"idle": "hide"}, "idle 'hide'"), ({"cached": ""}, "cached ''"), ({"day": "soon"}, "no hour"),
     ({"hour": "7:30"}, "no hour"), ({"note": "x" * 2000}, "note")],
)  # fmt: skip
def test_a_form_that_is_no_policy_says_why(changed, says):
    with pytest.raises(ValueError, match=says):
        policy_of({**FORM, **changed})


def test_the_policy_in_force_is_the_last_that_began():
    first, second = (Policy(idle="show", effective_from=THIS_HOUR + at * HOUR) for at in (-2, 2))
    assert in_force([], NOW) is BUILT_IN
    assert in_force([first, second], NOW) is first
    assert in_force([first, second], NOW + 3 * HOUR) is second


# ---- day by day


def test_the_days_are_a_figure_that_the_chart_library_takes():
    window = Window.of(View(range="7d"), NOW)
    daily = pl.DataFrame(
        {"time": window.days[:3], "utilisation_ratio": [Decimal("0.5"), None, Decimal("0.2")],
         "idle_ratio": [Decimal("0.4"), Decimal(1), None]},
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )  # fmt: skip
    made = figure(daily, window)
    go.Figure(made)
    idle, used = made["data"]
    assert used["customdata"][:4] == ["50.0%", "—", "20.0%", "—"]
    assert idle["y"][:4] == [0.4, 1.0, None, None]
    assert idle["fillpattern"]["shape"] == "/"


# ---- the callbacks, which anybody may send


def called(span: int, deployment: str, team: str | None, hour: int, seconds: int = 900) -> dict:
    return {"span_id": span, "started_at": SINCE + hour * HOUR, "duration_ms": seconds * 1000, "billing": "self_hosted",
            "deployment": deployment, "team": team, "model": "qwen3-8b", "input_tokens": 10_000 * span,
            "output_tokens": 1_000, "cache_read_tokens": 0}  # fmt: skip


CALLS = (
    called(1, "large", "Search", 0), called(2, "large", "Ads", 1), called(3, "small", "Search", 1),
    called(4, HOSTILE, HOSTILE, 2, 60), called(5, "large", None, 3),
)  # fmt: skip
OWNERS = {"large": "Platform", "small": "Search", HOSTILE: None}


def declare(warehouse: Warehouse) -> None:
    for name, owner in OWNERS.items():
        told = {"model": "qwen3-8b", "accelerator": "nvidia-h100-sxm", "accelerator_count": 2, "region": "us-va",
                "profile": {"kind": "rented", "usd_per_hour": "2"}, "effective_from": SINCE,
                "owner": owner}  # fmt: skip
        warehouse.control.declare(Deployment(name=name, engine="vllm", **told))
    capacity.refresh(warehouse.engine, warehouse.control, NOW)


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    made = priced_calls(*CALLS)
    declare(made)
    return made


def shown(client, output: str, **told) -> str:
    """The words of an output."""
    name, _, prop = output.partition(".")
    return text_of(callback(client, output, **told)[name][prop])


PARTS = ("efficiency-kpis.children", "flow-body.children", "idle-body.children", "wasteful-body.children",
         "policy-body.children", "daily-chart.figure", "efficiency-drawer.children")  # fmt: skip
ASKED = ("?v=9", "%%%", "x" * 9000, "?v=1&deployment=nobody", "?v=1&region=\ud800", None)
LOOKED = ("?at=sun-99&in=eur", "hours", "tue-14", "way?idle-usd", "idle_cost_usd?model=", "\ud800", 7, ["x"])


def test_every_part_answers_whatever_is_asked(operator):
    for output, scope in product(PARTS, ASKED):
        callback(operator, output, scope=scope)
    for output, told in product(("flow-body.children", "wasteful-body.children", "efficiency-drawer.children"), LOOKED):
        callback(operator, output, **{"scope": "", "in": told, "at": told, "open": told})


def test_the_parts_tell_of_every_deployment_and_a_name_is_only_a_name(operator):
    table = callback(operator, "wasteful-body.children", scope="?v=1&p=7d")["wasteful-body"]["children"]
    told = text_of(table)
    for name in OWNERS:
        assert name in told
    assert "consolidate" in told
    assert "Same model, qwen3-8b, on the same accelerator, H100; each used less than 40%" in told
    assert "dangerously" not in json.dumps(table).lower()
    assert "Reserved and unused" in shown(operator, "flow-body.children", scope="?v=1&p=7d")
    assert "linear scale" in shown(operator, "idle-body.children", scope="?v=1&p=7d")


def test_a_slot_lists_the_deployments_of_its_hour_alone(operator):
    at = Slot(SINCE.weekday(), SINCE.hour).written
    told = callback(operator, "wasteful-body.children", scope="?v=1&p=7d", at=at)
    assert "show all hours" in text_of(told["wasteful-words"]["children"])
    total_row = text_of(told["wasteful-body"]["children"]).partition("Total")[2].split()
    assert total_row[0] == "8%"  # a quarter of an hour of 2 of the 6 accelerators
    other = Slot((SINCE - 2 * DAY).weekday(), SINCE.hour).written
    assert "No deployment had accelerators then" in shown(
        operator, "wasteful-body.children", scope="?v=1&p=7d", at=other
    )


def test_a_step_that_is_a_difference_tells_its_terms(operator):
    told = shown(operator, "efficiency-drawer.children", scope="?v=1&p=7d", open="way?idle-hours")
    assert "Serving accelerator-hours − Busy accelerator-hours − Unobserved accelerator-hours" in told
    assert "There is no such figure" in shown(operator, "efficiency-drawer.children", scope="", open="way?busy-usd")


def test_the_preview_is_what_a_policy_makes_of_the_hours(operator, warehouse):
    reader = Reader(warehouse, DEFAULT_TENANT, View(range="7d"), Window.of(View(range="7d"), NOW), NOW, NOW)
    before = efficiency_preview.of(reader).carried
    period = reader.window.period
    for idle in ("spread by use", "spread evenly", "charge the owner"):
        callback(operator, "efficiency-answer.children", do={"do": "policy", "told": {
            "idle": idle, "cached": "fraction", "day": f"{SINCE:%Y-%m-%d}", "hour": f"{SINCE:%H}"}})  # fmt: skip
        capacity.refresh(warehouse.engine, warehouse.control, NOW)
        asked = Query(measures=("idle_cost_usd",), dimensions=("team",), period=period,
                      filters=(Filter("cost_type", ("idle",)),))  # fmt: skip
        carried = {row["team"]: row["idle_cost_usd"] for row in warehouse.ask(DEFAULT_TENANT, asked).frame.to_dicts()}
        expected = {team or "__idle__": usd for team, usd in before[idle].items() if usd}
        assert carried.keys() == expected.keys()
        for team, usd in expected.items():
            assert abs(carried[team] - usd) < Decimal("0.0001"), (idle, team)


def test_an_operator_sets_a_policy_and_who_may_only_read_does_not(client, warehouse):
    told = {"idle": "spread evenly", "cached": "free", "day": f"{SINCE:%Y-%m-%d}", "hour": f"{SINCE:%H}", "note": "Q4"}
    reader, operator = client("read"), client("operator")
    said = shown(reader, "efficiency-answer.children", do={"do": "policy", "told": told})
    assert "may read the policy, not change it" in said
    assert "data-do" not in json.dumps(callback(reader, "policy-body.children", scope=""))
    assert warehouse.control.policies(DEFAULT_TENANT) == []

    said = shown(operator, "efficiency-answer.children", do={"do": "policy", "told": told})
    assert "idle spread evenly, cached free" in said
    ((_, kept),) = warehouse.control.policies(DEFAULT_TENANT)
    assert (kept.idle, kept.cached, kept.effective_from, kept.note) == ("spread evenly", "free", SINCE, "Q4")
    panel = shown(operator, "policy-body.children", scope="?v=1&p=7d")
    assert "spread evenly : teams that used it in the hour carry the same" in panel
    assert f"set by {kept.author}" in " ".join(panel.split())
    assert "holds already" in shown(operator, "efficiency-answer.children", do={"do": "policy", "told": told})


SENT = (None, [], "x", 7, {"do": []}, {"do": "policy"}, {"do": "policy", "told": [1]}, {"do": "add", "told": FORM},
        {"do": "policy", "told": {**FORM, "day": "\ud800"}}, {"do": "policy", "told": {**FORM, "hour": "\u0663\u0663"}},
        {"do": "policy", "told": {**FORM, "day": "9999-99-99"}})  # fmt: skip


def test_every_act_is_read_whatever_is_sent(operator, warehouse):
    for sent in SENT:
        answer = callback(operator, "efficiency-answer.children", do=sent)["efficiency-answer"]["children"]
        assert "toast bad" in json.dumps(answer), sent
    assert warehouse.control.policies(DEFAULT_TENANT) == []


# ---- nothing to see


class TestBeforeAnything:
    """Without calls, and without own hardware."""

    @pytest.fixture
    def warehouse(self, priced_calls) -> Warehouse:
        return priced_calls()

    def test_it_says_how_to_connect_and_then_how_to_declare(self, operator, warehouse):
        assert "Send your first call" in shown(operator, "efficiency-notice.children", scope="")
        for output in PARTS:
            callback(operator, output, scope="")
        declare(warehouse)
        assert shown(operator, "efficiency-notice.children", scope="") == ""
        assert "100%" in shown(operator, "wasteful-body.children", scope="")


class TestWithoutOwnHardware:
    """Calls of providers alone."""

    @pytest.fixture
    def warehouse(self, priced_calls) -> Warehouse:
        return priced_calls({"span_id": 1, "started_at": NOW, "model": "gpt-4o", "provider": "openai",
                             "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 0})  # fmt: skip

    def test_it_says_how_to_declare_it(self, operator):
        assert "millicent deployments declare" in shown(operator, "efficiency-notice.children", scope="")
        for output in PARTS:
            callback(operator, output, scope="")


def test_filters_that_match_nothing_lead_out(operator):
    told = callback(operator, "efficiency-notice.children", scope="?v=1&deployment=nobody")
    assert "No accelerators match" in text_of(told["efficiency-notice"]["children"])
    assert "Clear the filters" in text_of(told["efficiency-notice"]["children"])


def test_carriers_and_preview_agree_on_a_single_hour():
    used = {"a": Decimal(1), "b": Decimal(3)}
    carried = shared([Unused(Decimal(10), Decimal(0), used, "a")])
    for policy, teams in carried.items():
        assert teams == carriers(Decimal(10), policy, used=used, owner="a")
