import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import unquote

import polars as pl
import pytest
from asked_pages import words
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard import components, tables
from millicent.dashboard import format as fmt
from millicent.dashboard.state import View
from millicent.warehouse import record
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.record import IDLE

NOW = datetime(2026, 11, 22, 14, tzinfo=UTC)
USD = pl.Decimal(38, 24)


def parts(component, kind):
    """Every component of a kind inside another."""
    found = [component] if type(component).__name__ == kind else []
    children = getattr(component, "children", None)
    for child in children if isinstance(children, list | tuple) else [children]:
        if hasattr(child, "to_plotly_json"):
            found += parts(child, kind)
    return found


@given(st.lists(st.one_of(st.none(), st.decimals(0, 10**9, places=6)), max_size=90))
def test_any_trend_is_a_sparkline_inside_its_box(values):
    spark = components.spark(values)
    if len([value for value in values if value is not None]) < 2:
        assert not getattr(spark, "style", None)
        return
    path = unquote(spark.style["--line"]).split("d='")[1].split("'")[0]
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path) if pair]
    assert all(0 <= x <= 100 and 0 <= y <= 32 for x, y in points)
    assert points == sorted(points)


@pytest.mark.parametrize("name", DICTIONARY)
def test_every_number_tells_how_it_is_computed(name):
    card = components.kpi(name, "$1", change=None, beside="vs $2", facts=["26 Oct – 22 Nov 2026 UTC."])
    text = words(card)
    assert DICTIONARY[name].formula in text
    assert DICTIONARY[name].words in text
    assert "26 Oct" in text


def test_a_change_is_told_in_words_too():
    change = fmt.Change("10.6%", "up", "bad")
    assert "up 10.6%" in words(components.delta(change))
    assert components.delta(change).className == "delta bad up"


@pytest.mark.parametrize(("minutes", "tone"), [(1, "good"), (11, "warn"), (31, "bad")])
def test_freshness_turns_amber_then_red(minutes, tone):
    pill = components.freshness(NOW - timedelta(minutes=minutes), NOW)
    assert tone in pill.className


def test_coverage_counts_what_is_missing():
    total = {"priced_ratio": Decimal("0.94"), "attributed_ratio": Decimal("0.978"), "calls": 51_000,
             "unpriced_calls": 312, "unattributed_calls": 40}  # fmt: skip
    text = words(components.coverage(total))
    assert "94.0%" in text
    assert "312 of 51,000 calls are unpriced" in text
    assert "40 calls carry no team" in text


@pytest.mark.parametrize("kind", ["unconnected", "no_rows", "ingesting", "forbidden"])
def test_each_empty_state_says_which_it_is(kind):
    told = {other: words(components.empty(other)) for other in ("unconnected", "no_rows", "ingesting", "forbidden")}
    assert len(set(told.values())) == 4
    assert ("Send your first call" in told[kind]) == (kind == "unconnected")
    assert getattr(components.empty(kind), "role", None) == (None if kind == "unconnected" else "status")


def team_rows(rows):
    schema = {"team": pl.String, "spend_usd": USD, "total_tokens": pl.Int64, "cost_per_mtok_usd": USD,
              "cache_hit_ratio": USD, "calls": pl.Int64, "unpriced_calls": pl.Int64}  # fmt: skip
    priced = pl.when(pl.col("spend_usd").is_not_null()).then("total_tokens")
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(priced_tokens=priced)


TEAMS = [
    ("search", Decimal(60), 30_000_000, Decimal(2), Decimal("0.4"), 10, 0),
    ("<script>alert(1)</script>", Decimal(20), 10_000_000, Decimal(2), Decimal("0.4"), 10, 0),
    ("mystery", None, 1_000, None, None, 3, 3),
    (None, Decimal(5), 1_000_000, Decimal(5), None, 2, 0),
    (IDLE, Decimal(15), None, None, None, None, None),
]
TOTAL = {"team": "all", "spend_usd": Decimal(100), "total_tokens": 41_001_000, "cost_per_mtok_usd": Decimal("2.439"),
         "cache_hit_ratio": Decimal("0.4"), "calls": 25, "unpriced_calls": 3}  # fmt: skip


def teams(rows=TEAMS, prior=None, view=None):
    return tables.teams(team_rows(rows), prior, TOTAL, None, {}, {}, view or View(), 28)


def test_unattributed_and_idle_are_rows_of_their_own_before_the_total():
    rows = [words(row) for row in parts(teams(), "Tr")[1:]]
    assert [row.split("  ")[0].split(" $")[0].split(" unpriced")[0] for row in rows] == [
        "search", "<script>alert(1)</script>", "mystery", "Unattributed", "Idle / unallocated", "Total",
    ]  # fmt: skip
    assert "$100" in rows[-1]
    assert "100%" in rows[-1]


def test_an_unpriced_team_is_never_free():
    (row,) = (words(row) for row in parts(teams(), "Tr") if "mystery" in words(row))
    assert "unpriced" in row
    assert "$0" not in row


def test_a_row_leads_to_its_team_and_back():
    (first, *_) = parts(teams(), "A")
    assert first.href == "?v=1&team=search"
    (first, *_) = parts(teams(view=View().toggled(team="search")), "A")
    assert first.href == "?"


def test_more_teams_than_fit_are_one_row_and_still_add_up():
    many = [(f"team-{n:03}", Decimal(1), 1000, Decimal(1000), None, 1, 0) for n in range(100)]
    rows = parts(teams(many), "Tr")
    shown = [row for row in rows[1:-1] if "more teams" not in words(row)]
    (folded,) = (words(row) for row in rows if "more teams" in words(row))
    assert f"{100 - len(shown)} more teams" in folded
    assert f"${100 - len(shown)}" in folded


def heat(rows, view=None):
    text, whole = dict.fromkeys(("model", "accelerator", "billing"), pl.String), pl.Int64
    schema = {**text, "spend_usd": USD, "total_tokens": whole, "cost_per_mtok_usd": USD, "calls": whole,
              "unpriced_calls": whole}  # fmt: skip
    return tables.heat(pl.DataFrame(rows, schema=schema, orient="row"), view or View())


HEAT = [
    ("m", "nvidia-b200", "self_hosted", Decimal(26), 100_000_000, Decimal("0.26"), 10, 0),
    ("m", "nvidia-h100-sxm", "self_hosted", Decimal(54), 100_000_000, Decimal("0.54"), 10, 0),
    ("gpt-5-mini", None, "api", Decimal(83), 100_000_000, Decimal("0.83"), 10, 0),
    ("private", None, "api", None, 900, None, 3, 3),
    ("m", "amd-mi355x", "self_hosted", Decimal(1), None, None, None, None),
]


def test_api_calls_have_a_column_and_the_cheapest_home_a_ring():
    table = heat(HEAT)
    assert [words(head) for head in parts(table, "Th")[1:5]] == ["H100", "B200", "MI355X", "API"]
    rings = [cell for cell in parts(table, "A") if "cheapest" in cell.className]
    assert [words(cell) for cell in rings] == ["$0.260 $26.00"]


def test_a_cell_says_what_it_is_when_it_has_no_price():
    texts = {words(cell): cell for cell in parts(heat(HEAT), "A")}
    assert "low" in texts["unpriced —"].className
    assert "idle $1.00" in texts


def test_charges_and_reservations_that_nobody_took_have_no_cost_per_token():
    fee = (record.CHARGE, record.CHARGE, record.CHARGE, Decimal(500), None, None, None, None)
    unused = (None, None, "self_hosted", Decimal(1269), None, None, None, None)
    assert words(heat([*HEAT, fee, unused])) == words(heat(HEAT))


def test_a_cell_leads_to_its_model_on_its_accelerator():
    (cell,) = (cell for cell in parts(heat(HEAT), "A") if "$0.830" in words(cell))
    assert cell.href == "?v=1&model=gpt-5-mini&accelerator="


def test_colours_follow_the_logarithm_of_the_price():
    prices = [Decimal("0.1"), Decimal(1), Decimal(10)]
    rows = [(f"m{n}", "x", "self_hosted", Decimal(1), 10**7, price, 1, 0) for n, price in enumerate(prices)]
    assert sorted(cell.style["--heat"] for cell in parts(heat(rows), "A")) == ["0%", "100%", "50%"]


def test_what_came_and_what_went_are_moves_too():
    now = pl.DataFrame({"team": ["a", "new", IDLE], "spend_usd": [Decimal(5), Decimal(9), Decimal(1)]})
    prior = pl.DataFrame({"team": ["a", "gone"], "spend_usd": [Decimal(4), Decimal(7)]})
    found = tables.moves(now, prior, "team", {}, View())
    assert [(move.name, move.moved) for move in found] == [
        ("new", 9), ("gone", -7), ("Idle / unallocated", 1), ("a", 1),
    ]  # fmt: skip
    assert found[2].href == ""
    assert words(tables.changes([("By team", found)])).count("new") >= 2
