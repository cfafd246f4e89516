"""The Overview without a screen: this month against its budgets, what is to come, and days out of line."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from asked_pages import words
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.warehouse.budgets import Budget, put
from millicent.warehouse.query import Filter

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
ODD = NOW - 3 * DAY
HEADLINE, CHART = "..notice.children", "..chart.figure"
HOSTILE = "<b>x</b>%{y}"


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    """Sixty days: 30 USD a day of Search, 10 of a team with a hostile name, 100 more of it three days ago."""
    calls = [
        {"started_at": NOW - n * DAY, "span_id": 3 * n + at, "team": team, "model": f"m{at}",
         "billed_cost_usd": Decimal(usd)}
        for n in range(60)
        for at, (team, usd) in enumerate((("Search", 30), (HOSTILE, 10)), start=1)
    ]  # fmt: skip
    odd = {"started_at": ODD, "span_id": 999, "team": HOSTILE, "model": "m2", "billed_cost_usd": Decimal(100)}
    return warehouse_of(*calls, odd)


@pytest.fixture(scope="module")
def site(warehouse):
    server = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        yield client


@pytest.fixture(scope="module")
def budgeted(warehouse, site):
    """Everything has more than enough; the team with the hostile name has less than it spent; one is in euro."""
    since = NOW - 60 * DAY
    for told in (
        {"name": "Company", "amount": Decimal(9000)},
        {"name": HOSTILE, "amount": Decimal(5), "filters": (Filter("team", (HOSTILE,)),)},
        {"name": "Search, a year", "amount": Decimal(99999), "filters": (Filter("team", ("Search",)),),
         "period": "fiscal_year"},
    ):  # fmt: skip
        put(warehouse.control, "default", Budget(**told, effective_from=since), "ann")
    return site


def told(answered, site, output: str, scope: str = "") -> dict:
    """Every output of a callback, by name."""
    given = json.loads(answered(site, output, scope=scope))["response"]
    return {f"{name}.{prop}": value for name, props in given.items() for prop, value in props.items()}


def days_left() -> int:
    return ((NOW.replace(day=28) + 4 * DAY).replace(day=1) - NOW.replace(hour=0)).days


def test_without_a_budget_the_month_is_foreseen_and_how_to_set_one_is_told(site, answered):
    card = words(told(answered, site, HEADLINE)["kpis.children"][-1])
    assert f"Forecast {NOW:%B}" in card
    assert "millicent budgets set" in words(told(answered, site, "budgets-body.children")["budgets-body.children"])


def test_the_first_card_and_the_panel_say_whether_the_month_stays_in_budget(budgeted, answered):
    card = words(told(answered, budgeted, HEADLINE)["kpis.children"][-1])
    assert "of $9,000 budget" in card
    assert "so far" in card
    panel = told(answered, budgeted, "budgets-body.children")
    assert panel["budgets-title.children"] == f"{NOW:%B} budgets"
    assert words(panel["budgets-words.children"]).startswith("Company · $")
    assert "will be kept" in words(panel["budgets-words.children"])
    assert words(panel["budgets-aside.children"]) == "1 over"
    assert HOSTILE in words(panel["budgets-body.children"])


def test_a_page_narrowed_to_a_team_looks_at_its_budget(budgeted, answered):
    scope = "?v=1&team=Search"
    assert "this year" in words(told(answered, budgeted, HEADLINE, scope)["kpis.children"][-1])
    scope = f"?v=1&team={HOSTILE.replace('%', '%25')}"
    panel = told(answered, budgeted, "budgets-body.children", scope)
    assert "ran out" in words(panel["budgets-words.children"])
    assert "Company" in words(panel["budgets-body.children"])
    direct = told(answered, budgeted, "budgets-body.children", "?v=1&basis=usage")
    assert words(direct["budgets-words.children"]).startswith("Company")


def test_the_burn_down_begins_at_the_limit_and_its_texts_are_no_markup(budgeted, answered):
    figure = told(answered, budgeted, "burn.figure")["burn.figure"]
    left = next(trace for trace in figure["data"] if trace["name"] == "Left")
    assert left["y"][0] == 9000
    assert left["x"][0] == f"{NOW.replace(day=1) - DAY:%Y-%m-%d}"
    assert left["y"] == sorted(left["y"], reverse=True)
    scope = f"?v=1&team={HOSTILE.replace('%', '%25')}"
    assert "<b>x" not in json.dumps(told(answered, budgeted, "burn.figure", scope)["burn.figure"])


def test_the_chart_tells_days_to_come_and_days_out_of_line(site, answered):
    figure = told(answered, site, CHART)["chart.figure"]
    ahead = next(trace for trace in figure["data"] if trace["name"] == "Forecast")
    assert ahead["x"][0] == f"{NOW + DAY:%Y-%m-%d}"
    assert len(ahead["x"]) == max(days_left() - 1, 7)
    assert set(ahead["y"]) == {40.0}
    (mark,) = (trace for trace in figure["data"] if trace["name"] == "Out of line")
    assert mark["x"] == [f"{ODD:%Y-%m-%d}"]
    assert "+$100" in mark["customdata"][0]
    assert "<b>x" not in mark["customdata"][0]


@pytest.mark.parametrize(
    "scope", ["?v=1&in=mtok", f"?v=1&p={NOW - 20 * DAY:%Y-%m-%d}..{NOW - 10 * DAY:%Y-%m-%d}"],
    ids=["per token", "over"],
)  # fmt: skip
def test_there_is_no_forecast_of_a_price_nor_of_a_period_that_is_over(site, answered, scope):
    figure = json.loads(answered(site, CHART, scope=scope, look=scope))["response"]["chart"]["figure"]
    assert "Forecast" not in {trace["name"] for trace in figure["data"]}


def test_days_out_of_line_lead_to_who_made_them_so(site, answered):
    found = told(answered, site, "unusual-body.children")["unusual-body.children"]
    assert words(found).count("+$100") == 3
    assert "Everything" in words(found)
    assert f"p={ODD:%Y-%m-%d}..{ODD:%Y-%m-%d}" in json.dumps(found)
    calm = told(answered, site, "unusual-body.children", "?v=1&team=Search")
    assert "Every day cost about what its weekday does" in words(calm["unusual-body.children"])


def test_what_changed_adds_up(site, answered):
    found = told(answered, site, "changes-body.children", "?v=1&p=7d")
    assert found["changes-title.children"] == "What changed"
    assert "+$100" in words(found["changes-words.children"])
    alone = told(answered, site, "changes-body.children", "?v=1&p=7d&vs=none")
    assert alone["changes-title.children"] == "Where it went"


@pytest.mark.parametrize("scope", ["", "?v=1&team=nobody", "?v=1&p=7d&vs=none&basis=usage", "?v=1&tz=Asia/Kolkata"])
@pytest.mark.parametrize("output", [HEADLINE, CHART, "burn.figure", "changes-body.children", "heat-body.children"])
def test_every_part_answers_any_scope(site, answered, output, scope):
    assert told(answered, site, output, scope)


def test_every_part_answers_before_the_first_call(warehouse_of, answered):
    empty = warehouse_of()
    server = Access(pages.create_app(empty), empty.control, insecure_local=True)
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        for output in (HEADLINE, "burn.figure", "changes-body.children", "heat-body.children"):
            assert told(answered, client, output)


def test_a_budget_without_a_rate_says_so_and_leaves_the_others(budgeted, warehouse, answered):
    put(warehouse.control, "default", Budget(name="Paris", amount=Decimal(1), currency="EUR", effective_from=NOW - DAY,
                                             filters=(Filter("team", ("Search",)),)), "ann")  # fmt: skip
    found = words(told(answered, budgeted, "budgets-body.children")["budgets-body.children"])
    assert "Paris: " in found
    assert HOSTILE in found
