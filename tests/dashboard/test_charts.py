import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard import charts
from millicent.dashboard.state import View, Window
from millicent.warehouse.record import CHARGE, IDLE

NOW = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
SCHEMA = {
    "time": pl.Datetime("us", "UTC"), "team": pl.String, "spend_usd": pl.Decimal(38, 24),
    "idle_cost_usd": pl.Decimal(38, 24), "priced_tokens": pl.Int64, "unavailable_cost_usd": pl.Decimal(38, 24),
    "untracked_cost_usd": pl.Decimal(38, 24),
}  # fmt: skip
HOSTILE = "<a href='javascript:alert(1)'>%{y}</a>"
team_names = st.one_of(st.none(), st.sampled_from([*(f"team-{n}" for n in range(12)), HOSTILE, CHARGE]))
money = st.one_of(st.none(), st.decimals(min_value=0, max_value=10**6, places=6))


@st.composite
def facts(draw):
    """What a query by day and team answers, idle included, on a 7-day window."""
    days = Window.of(View(range="7d"), NOW).days
    keys = draw(st.lists(st.tuples(st.sampled_from(days), team_names), max_size=40, unique=True))
    rows = [(day, team, draw(money), None, draw(st.integers(0, 10**12)), None, None) for day, team in keys]
    for day in days:
        parts = [draw(money) for _ in charts.UNUSED]
        known = [cost for cost in parts if cost is not None]
        adjusted = draw(st.sampled_from((Decimal(0), Decimal(-3))))
        if known or adjusted:
            rows.append((day, IDLE, sum(known) + adjusted, parts[0], None, *parts[1:]))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def told(*rows):
    """Days, teams, spend, idle and tokens; nothing unavailable or untracked."""
    return pl.DataFrame([(*row, None, None) for row in rows], schema=SCHEMA, orient="row")


def total(frame):
    return sum((value for value in frame["spend_usd"].to_list() if value is not None), Decimal(0))


@given(facts())
def test_the_layers_add_up_to_the_spend(frame):
    window = Window.of(View(range="7d"), NOW)
    layers = charts.series(frame, "team", window.days, {}, idle=True)
    drawn = sum((value for layer in layers for value in layer.spend_usd if value is not None), Decimal(0))
    assert drawn == total(frame)


@given(facts())
def test_at_most_eight_colours_then_other_and_idle_last(frame):
    layers = charts.series(frame, "team", Window.of(View(range="7d"), NOW).days, {}, idle=True)
    kinds = [layer.kind for layer in layers]
    assert len([kind for kind in kinds if kind not in charts.BESIDE]) <= charts.MOST
    assert kinds == sorted(kinds, key=["entity", "other", "charge", *charts.UNUSED].index)


@given(facts(), st.sampled_from(["usd", "mtok"]), st.sampled_from(["7d", "4w", "12w", "mtd"]), st.booleans())
def test_any_answer_makes_a_figure_that_plotly_accepts(frame, scale, range_, parts):
    window = Window.of(View(range=range_), NOW)
    layers = charts.series(frame, "team", window.days, {}, idle=True)
    totals = frame.group_by("time").agg(pl.col("spend_usd", "priced_tokens").sum())
    figure = charts.spend_figure(layers, totals, window, scale, parts=parts, href=lambda _: "?team=x")
    go.Figure(figure)
    assert json.loads(json.dumps(figure)) == figure
    assert "<a" not in "".join(trace.get("hovertemplate", "") + trace["name"] for trace in figure["data"])


def test_charges_are_a_layer_of_their_own_however_many_teams_there_are():
    window = Window.of(View(range="7d"), NOW)
    rows = [(window.days[1], f"team-{n}", Decimal(n + 1), None, 1) for n in range(9)]
    layers = charts.series(told(*rows, (window.days[0], CHARGE, Decimal(250), None, None)), "team", window.days, {},
                           idle=True)  # fmt: skip
    assert [(layer.label, layer.kind) for layer in layers[-2:]] == [
        ("Other (2)", "other"), ("Charges and credits", "charge"),
    ]  # fmt: skip
    assert layers[-1].spend_usd[:2] == [250, None]


def test_hostile_names_are_text_in_labels_and_hover():
    frame = told((Window.of(View(), NOW).days[0], HOSTILE, Decimal(1), None, 10))
    window = Window.of(View(), NOW)
    layers = charts.series(frame, "team", window.days, {}, idle=True)
    bar = charts.spend_figure(layers, frame, window, "usd", parts=False, href=lambda _: None)["data"][0]
    assert "<a" not in bar["name"] + bar["hovertemplate"]
    assert bar["hovertemplate"].count("%{") == 1


def test_cost_per_million_tokens_is_sum_over_sum():
    day = Window.of(View(), NOW).days[0]
    rows = [(day, "a", Decimal(3), None, 1_000_000), (day, "b", Decimal(1), None, 3_000_000)]
    frame = told(*rows)
    window = Window.of(View(), NOW)
    totals = told((day, None, Decimal(4), None, 4_000_000))
    layers = charts.series(frame, "team", window.days, {}, idle=True)
    figure = charts.spend_figure(layers, totals, window, "mtok", parts=False, href=lambda _: None)
    first = {trace["meta"]["label"]: trace["y"][0] for trace in figure["data"] if "meta" in trace}
    assert first == {"a": 3.0, "b": pytest.approx(1 / 3), "Total": 1.0}


@pytest.mark.parametrize(
    ("idle", "drawn"),
    [(True, {"m": 5, "Idle": 3, "Unavailable": 2, "Untracked": 1}), (False, {"m": 11})],
)
def test_what_no_call_carries_is_taken_out_of_a_model_when_it_is_a_layer(idle, drawn):
    days = Window.of(View(), NOW).days
    row = (days[0], "m", Decimal(11), Decimal(3), 10, Decimal(2), Decimal(1))
    frame = pl.DataFrame([row], schema=SCHEMA, orient="row").rename({"team": "model"})
    layers = charts.series(frame, "model", days, {}, idle=idle)
    assert {layer.label: layer.spend_usd[0] for layer in layers} == drawn


def test_idle_that_a_policy_has_a_team_carry_stays_with_the_team():
    days = Window.of(View(), NOW).days
    frame = told((days[0], "search", Decimal(10), Decimal(4), 10), (days[0], IDLE, Decimal(1), Decimal(1), None))
    layers = charts.series(frame, "team", days, {}, idle=True)
    assert {layer.label: layer.spend_usd[0] for layer in layers} == {"search": 10, "Idle": 1}


def test_unavailable_and_untracked_have_looks_of_their_own():
    days = Window.of(View(), NOW).days
    row = (days[0], IDLE, Decimal(6), Decimal(3), None, Decimal(2), Decimal(1))
    frame = pl.DataFrame([row], schema=SCHEMA, orient="row")
    layers = charts.series(frame, "team", days, {}, idle=True)
    bars = charts.spend_figure(layers, frame, Window.of(View(), NOW), "usd", parts=False, href=lambda _: None)["data"]
    looks = [(bar["name"], bar["marker"]["pattern"]["shape"]) for bar in bars if "pattern" in bar.get("marker", {})]
    assert looks == [("Idle", "/"), ("Unavailable", "|"), ("Untracked", ".")]


def test_unknown_is_a_gap_and_never_a_zero():
    day = Window.of(View(), NOW).days[0]
    frame = told((day, "a", None, None, 10))
    (layer,) = charts.series(frame, "team", Window.of(View(), NOW).days, {}, idle=True)
    assert set(layer.spend_usd) == {None}


def test_today_is_lighter_and_the_prior_day_is_marked():
    window = Window.of(View(range="7d"), NOW)
    days = [window.prior.start + timedelta(days=n) for n in range(14)]
    rows = [(day, "a", Decimal(n + 1), None, 10) for n, day in enumerate(days)]
    frame = told(*rows)
    layers = charts.series(frame, "team", window.days, {}, idle=True)
    bar, prior, total_ = charts.spend_figure(layers, frame, window, "usd", parts=False, href=lambda _: None)["data"]
    assert bar["marker"]["opacity"][-1] < 1
    assert set(bar["marker"]["opacity"][:-1]) == {1}
    assert prior["y"][::3] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert total_["customdata"][0].startswith("$8.00")


names = st.lists(st.text(min_size=1), min_size=1, max_size=20, unique=True)


@given(names)
def test_the_first_eight_have_eight_colours(ranked):
    given_ = list(charts.colours(ranked).values())[: charts.MOST]
    assert len(set(given_)) == len(given_)


@given(names)
def test_the_first_name_keeps_its_colour_whoever_follows(ranked):
    assert charts.colours(ranked)[ranked[0]] == charts.colours(ranked[:1])[ranked[0]]


@given(st.decimals(min_value=Decimal("1e-9"), max_value=Decimal("1e9"), places=9))
def test_ticks_are_round_few_and_reach_most_of_the_axis(top):
    ticks = charts.nice_ticks(top)
    assert ticks[0] == 0
    assert len(ticks) <= 6
    assert ticks[-1] <= top < ticks[-1] + ticks[1] if len(ticks) > 1 else True


def test_smoothing_takes_the_weekly_rhythm_out():
    week = [Decimal(n) for n in (5, 5, 5, 5, 5, 1, 1)]
    assert set(charts.smoothed(week * 3)[6:]) == {Decimal(27) / 7}
    assert charts.smoothed([None, Decimal(2)]) == [None, Decimal(2)]
    assert charts.smoothed([Decimal(6)], [3]) == [Decimal(2)]
    assert charts.smoothed([Decimal(6)], [None]) == [None]
