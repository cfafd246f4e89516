"""The Cost explorer without a screen: its address, its arithmetic, its chart, its table, and what its parts say."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import plotly.graph_objects as go
import pytest
from asked_pages import callback, words
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard import format as fmt
from millicent.dashboard.access import Access
from millicent.dashboard.pages.explore_asked import buckets, less, over_time, value_of
from millicent.dashboard.pages.explore_chart import figure
from millicent.dashboard.pages.explore_place import FILTERS, GRAINS, PLACE, SHAPES, TOPS, Exploration, text_of
from millicent.dashboard.pages.explore_why import steps
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import RANGES, View, Window
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.drivers import TITLES, Bridge, Effect
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import ASKABLE, Period
from millicent.warehouse.record import CHARGE, IDLE

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOW = datetime.now(UTC)
HOSTILE = "<img src=x onerror=alert(1)>%{y}"
TEAMS = ("ads", "core", "data", "edge", "fin", "growth", "hr", "infra", "jobs", HOSTILE)
TABLE, CHART, WHY, HEAD = (
    "breakdown-body.children",
    "explore-chart.figure",
    "why-body.children",
    "explore-pills.children",
)
PARTS = (TABLE, CHART, WHY, HEAD, "explore-path.children", "explore-drawer.children")

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
choices = st.lists(st.none() | texts, min_size=1, max_size=3, unique=True).map(tuple)
dimensions = st.sampled_from(ASKABLE)
explorations = st.builds(
    lambda kept, told, by, other: Exploration(
        view=View(filters=tuple((name, kept[name]) for name in ASKABLE if name in kept), **told[0]), by=by,
        other=other if other != by else "none", **told[1],
    ),
    st.dictionaries(dimensions, choices, max_size=4),
    st.tuples(
        st.fixed_dictionaries({
            "range": st.sampled_from([*RANGES, "2026-10-01..2026-10-31"]),
            "basis": st.sampled_from(["effective", "usage"]),
            "compare": st.sampled_from(["previous", "year", "none"]), "currency": st.sampled_from([None, "EUR"]),
            "zone": st.sampled_from([None, "Europe/Berlin"]),
        }),
        st.fixed_dictionaries({
            "measure": st.sampled_from([*DICTIONARY]), "grain": st.sampled_from([*GRAINS]),
            "shape": st.sampled_from([*SHAPES]), "top": st.sampled_from([int(top) for top in TOPS]),
            "order": st.sampled_from(["", "name", "change", "calls"]), "opened": st.just("") | texts,
        }),
    ),
    dimensions, st.just("none") | dimensions,
)  # fmt: skip


def calls() -> list[dict]:
    """Ten teams on two models, this week and less of it the week before."""
    told = []
    for number, team in enumerate(TEAMS, 1):
        for ago, share in ((0, 1), (1, 2), (7, 1), (8, 1)):
            for at, model in enumerate(("gpt", "claude")):
                told.append({
                    "started_at": NOW - ago * DAY - HOUR, "team": team, "feature": f"{team}-chat", "model": model,
                    "provider": "openai", "input_tokens": 1000 * number, "output_tokens": 100, "streaming": at == 0,
                    "billed_cost_usd": Decimal(number * share * (at + 1)), "list_cost_usd": Decimal(number * share),
                    "span_id": len(told) + 1,
                })  # fmt: skip
    return told


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    return warehouse_of(*calls())


@pytest.fixture(scope="module")
def site(warehouse) -> TestClient:
    guarded = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(guarded, base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def empty_site(warehouse_of) -> TestClient:
    nothing = warehouse_of()
    guarded = Access(pages.create_app(nothing), nothing.control, insecure_local=True)
    return TestClient(guarded, base_url="http://127.0.0.1:8050")


def answers(site: TestClient, output: str, scope: str = "", cut: str = "", opened: str = "") -> dict:
    return callback(site, output, scope=scope, cut=cut, open=opened)


def rows(part) -> list[list[str]]:
    """The cells of a table in the JSON of a component, row by row."""
    if isinstance(part, list):
        return [row for one in part for row in rows(one)]
    if not isinstance(part, dict):
        return []
    if part.get("type") == "Tr":
        return [[words(cell) for cell in part["props"]["children"]]]
    return rows(part.get("props", {}).get("children"))


def reader_of(warehouse, exploration: Exploration) -> Reader:
    fmt.present(fmt.Presentation())
    window = Window.of(exploration.view, NOW)
    return Reader(warehouse, DEFAULT_TENANT, exploration.view, window, NOW, NOW)


# ---- the address


@given(explorations)
def test_an_address_is_read_as_it_was_written(exploration):
    assert Exploration.parse(exploration.search()) == exploration
    assert exploration.href()


@given(st.text(max_size=300))
def test_any_address_opens(search):
    assert Exploration.parse(f"?{search}").href()


def test_the_plain_address_is_the_default_and_controls_know_every_key():
    assert Exploration().search() == ""
    keys = [key for key, _, _ in PLACE.controls]
    assert len(keys) == len(set(keys))
    assert {*ASKABLE, "by", "and", "as", "in", "g", "top", "order", "open"} <= {*keys}


def test_clicks_lead_from_a_team_down_to_its_calls():
    here, seen = Exploration.parse("?in=calls&as=line&p=7d"), []
    for value in ("search", "answers", "gpt"):
        there = here.deeper(value)
        here = Exploration.parse(urlsplit(there).query)
        seen.append(here.by)
    assert seen == ["feature", "model", "deployment"]
    assert (here.measure, here.shape, here.view.range) == ("calls", "line", "7d")
    last = urlsplit(here.deeper("rack"))
    assert last.path == "/requests"
    kept = dict(parse_qsl(last.query))
    assert kept == {"v": "1", "p": "7d", "team": "search", "feature": "answers", "model": "gpt", "deployment": "rack"}


def test_a_step_that_is_down_to_one_value_is_left_out():
    here = Exploration.parse("?by=customer&feature=chat")
    assert Exploration.parse(urlsplit(here.deeper("acme")).query).by == "model"
    assert Exploration(by="accelerator").next == "deployment"


def test_idle_leads_to_where_it_is_explained_and_charges_stay():
    assert Exploration.parse("?p=7d").deeper(IDLE) == "/efficiency?v=1&p=7d"
    assert Exploration.parse(Exploration().deeper(CHARGE)).view.filters == (("team", (CHARGE,)),)


@pytest.mark.parametrize(("value", "told"), [(True, "true"), (False, "false"), (None, None), ("x", "x")])
def test_a_yes_or_no_is_filtered_as_text(value, told):
    assert text_of(value) == told


# ---- steps of time

zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]).map(
    ZoneInfo
)


@given(zones, st.sampled_from([*GRAINS]), st.integers(0, 370), st.integers(1, 40))
def test_steps_cover_the_period_once(zone, grain, first, days):
    start = datetime(2026, 1, 1, tzinfo=zone) + timedelta(days=first)
    period = Period(start.astimezone(UTC), (start + timedelta(days=days)).astimezone(UTC))
    found = buckets(Window(period, None, zone), grain, period)
    starts = [step.start for step in found]
    assert starts == sorted(set(starts))
    assert starts[0] <= period.start
    assert starts[-1] < period.end
    assert len({step.words for step in found}) == len(found)
    if grain == "day":
        assert len(found) == days
        assert not any(step.partial for step in found)
    if grain in {"week", "month"}:
        assert (
            all(step.start.astimezone(zone).weekday() == 0 for step in found) == (grain == "week") or grain == "month"
        )
        assert all(step.start.astimezone(zone).hour == 0 for step in found)


def test_a_long_period_is_told_in_longer_steps():
    window = Window.of(Exploration.parse("?p=12w").view, NOW)
    assert Exploration(grain="hour").step(window) == "day"
    assert Exploration(grain="hour").step(Window.of(View(range="7d"), NOW)) == "hour"
    year = Window.of(View(range="2024-01-01..2025-12-31"), NOW)
    assert Exploration(grain="day").step(year) == "week"


# ---- the chart


@pytest.mark.parametrize("measure", ["spend_usd", "total_tokens", "cost_per_mtok_usd"])
@pytest.mark.parametrize("by", ["team", "model", "streaming", "user_id"])
def test_layers_and_other_add_up_to_the_whole_of_each_step(warehouse, measure, by):
    exploration = Exploration.parse(f"?p=7d&top=3&in={measure}&by={by}")
    found, layers, wholes, _ = over_time(reader_of(warehouse, exploration), exploration)
    assert len(layers) <= 4
    for at, whole in enumerate(wholes):
        for part, total in enumerate(whole):
            known = [layer.sums[at][part] for layer in layers if layer.sums[at][part] is not None]
            assert sum(known) == (total or 0)
    assert sum(whole[0] is not None for whole in wholes) == 2, [step.words for step in found]


@pytest.mark.parametrize("shape", ["bar", "area", "line"])
@pytest.mark.parametrize("measure", ["spend_usd", "cost_per_mtok_usd", "calls", "cache_hit_ratio"])
@pytest.mark.parametrize("grain", ["hour", "week"])
def test_every_chart_is_a_figure_and_no_name_is_markup(warehouse, shape, measure, grain):
    exploration = Exploration.parse(f"?p=7d&as={shape}&in={measure}&g={grain}")
    drawn = figure(exploration, *over_time(reader_of(warehouse, exploration), exploration))
    go.Figure(drawn)
    assert len(json.dumps(drawn)) < 80_000
    for trace in drawn["data"]:
        assert "<img" not in trace["name"]
        assert "<img" not in trace.get("hovertemplate", "")
        assert trace.get("hovertemplate", "").count("%{") <= 1
    stacked = any(trace["type"] == "bar" or "stackgroup" in trace for trace in drawn["data"])
    assert stacked == (shape != "line" and not DICTIONARY[measure].numerator)


def test_a_ratio_is_sum_over_sum_and_unknown_without_either():
    measure = DICTIONARY["cost_per_mtok_usd"]
    assert value_of(measure, (Decimal(3), 2_000_000)) == Decimal("1.5")
    assert value_of(measure, (None, 5)) is value_of(measure, (Decimal(3), 0)) is value_of(measure, None) is None
    assert less((Decimal(5), 9), [(Decimal(2), 3), (None, 1)]) == (Decimal(3), 5)
    assert less(None, []) is None


def test_ranked_bars_are_largest_first_and_cut_by_a_second_dimension(site):
    told = answers(site, CHART, "?p=7d", "as=rank&and=model")
    ranked = json.dumps(told["explore-ranks"])
    names = re.findall(r"&feature=|team=([a-z]+)", ranked)
    assert [name for name in dict.fromkeys(names) if name][:3] == ["jobs", "infra", "hr"]
    assert "gpt: $" in ranked
    assert told["explore-chart"]["style"] == {"display": "none"}


# ---- the table


def test_a_table_adds_up_and_says_what_was(site):
    told = rows(answers(site, TABLE, "?p=7d")["breakdown-body"]["children"])
    heads, *lines, foot = told
    assert heads[:5] == ["Team", "Spend ▼", "Before", "Change", "Share"]
    assert [line[0] for line in lines][:2] == [f" {HOSTILE}".strip(), "jobs"]
    assert lines[0][1:4] == ["$90.00", "$60.00", "▲ 50% up 50%"]
    assert foot[:3] == ["Total", "$495", "$330"]


def test_a_second_dimension_makes_columns_with_totals_on_both_sides(site):
    heads, *lines, foot = rows(answers(site, TABLE, "?p=7d", "and=model&in=calls")["breakdown-body"]["children"])
    assert heads == ["Team by model", "claude", "gpt", "Total ▼"]
    assert [line[1:] for line in lines] == [["2", "2", "4"]] * 10
    assert foot == ["Total", "20", "20", "40"]


def test_columns_beyond_the_most_are_in_other(site):
    heads, *lines, foot = rows(
        answers(site, TABLE, "?p=7d", "by=model&and=team&in=calls")["breakdown-body"]["children"]
    )
    assert heads[-2:] == ["Other (3)", "Total ▼"]
    assert len(heads) == 1 + 7 + 2
    assert [line[-2:] for line in lines] == [["6", "20"]] * 2
    assert foot[-2:] == ["12", "40"]


def test_rows_are_sorted_as_asked(site):
    by_name = rows(answers(site, TABLE, "?p=7d", "order=name")["breakdown-body"]["children"])
    assert [line[0] for line in by_name[2:5]] == ["ads", "core", "data"]
    assert by_name[0][0] == "Team ▲"


def test_what_is_exported_is_what_the_table_shows(site):
    told = answers(site, TABLE, "?p=7d&model=gpt", "by=feature&and=team")
    links = re.findall(r'"(/api/v1/query\?[^"]+)"', json.dumps(told["explore-export"]))
    asked = dict(parse_qsl(urlsplit(next(link for link in links if link.endswith("format=json"))).query))
    assert (asked["group_by"], asked["measures"], asked["filter"]) == ("feature,team", "spend_usd", "model:gpt")
    assert any("grain=day" in link for link in links)


def test_a_measure_that_belongs_to_no_team_says_so(site):
    told = answers(site, CHART, "?p=7d", "in=accelerator_hours")
    assert "belongs to no team" in words(told["explore-ranks"]["children"])
    assert answers(site, TABLE, "?p=7d", "in=accelerator_hours")["breakdown-body"]["children"] is None
    cut = answers(site, CHART, "?p=7d", "in=accelerator_hours&by=deployment")
    assert "belongs to no" not in words(cut["explore-ranks"]["children"])


# ---- why it changed


def test_why_a_team_grew_is_two_clicks_away(site):
    movers = answers(site, WHY, "?p=7d")["movers-body"]["children"]
    (href,) = re.findall(r'"href": "([^"]*team=jobs[^"]*)"', json.dumps(movers))
    told = answers(site, WHY, urlsplit(href).query)
    assert words(told["why-words"]["children"]).startswith("Spend rose by $27.00 (50%), mostly API prices")
    assert "The same tokens of the same model cost more at providers" in words(told["why-body"]["children"])


def test_without_a_past_nothing_is_called_new(site):
    told = answers(site, WHY, "?p=4w")
    assert "Nothing is known of" in words(told["why-body"]["children"])
    assert "Choose a period to compare" in words(answers(site, WHY, "?p=7d&vs=none")["why-body"]["children"])


amounts = st.decimals(-(10**6), 10**6, places=2, allow_nan=False, allow_infinity=False).filter(bool)


@given(st.decimals(0, 10**6, places=2), st.dictionaries(st.sampled_from([*TITLES]), amounts))
def test_the_bars_of_a_bridge_lead_from_before_to_now(before, effects):
    after = before + sum(effects.values())
    bridge = Bridge(before, after, tuple(Effect(name, amount, "words.") for name, amount in effects.items()))
    found = steps(bridge)
    levels = [before, *(level for step in found for level in (step.start, step.end)), after]
    assert all(one == other for one, other in zip(levels[::2], levels[1::2], strict=True))
    assert len(found) <= len(effects)


# ---- whatever there is to see


@pytest.mark.parametrize("output", PARTS)
@pytest.mark.parametrize(
    ("scope", "cut"),
    [
        ("", ""),
        ("?p=7d&team=nobody", "by=user_id&and=streaming&as=rank"),
        ("?p=mtd&basis=usage&streaming=true", "in=cost_per_mtok_usd&as=area&and=cost_type&g=month"),
        ("?tz=Asia/Kolkata&user_id=&vs=none", "by=cost_type&and=team&as=line&order=change"),
    ],
)
def test_every_part_answers_whatever_is_asked(site, empty_site, output, scope, cut):
    for one in (site, empty_site):
        assert "error" not in answers(one, output, scope, cut)


def test_nothing_to_see_is_said_in_two_ways(site, empty_site):
    assert "No calls match" in words(answers(site, HEAD, "?p=7d&team=nobody")["explore-notice"]["children"])
    assert answers(empty_site, HEAD)["explore-pills"] != answers(site, HEAD)["explore-pills"]


def test_where_one_is_can_be_left_step_by_step(site):
    told = answers(site, "explore-path.children", "?team=ads&feature=chat&feature=", "by=model")
    path = json.dumps(told)
    assert "Remove the filter Feature: chat, Unknown" in path
    assert set(FILTERS) >= {"team", "feature"}
    assert '"href": "/requests?v=1&team=ads&feature=chat&feature="' in path
    deep = json.dumps(answers(site, "explore-path.children", "?team=ads&feature=chat&model=gpt", "by=deployment"))
    assert deep.index("Everything") < deep.index("ads") < deep.index("chat") < deep.index("gpt")
    assert re.findall(r'"children": "Everything", "href": "([^"]+)"', deep) == ["?"]
