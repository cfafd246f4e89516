"""Unit economics without a screen: its sums and figures, and what its callbacks say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import plotly.graph_objects as go
import polars as pl
import pytest
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.pages import units_charts
from millicent.dashboard.pages.units_sums import Counted, total
from millicent.dashboard.state import Window
from millicent.warehouse import units
from millicent.warehouse.query import Period
from millicent.warehouse.spread import Concentration, Mark
from millicent.warehouse.units import Units

HOSTILE = "<img src=x onerror=alert(1)>"
START = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)
YESTERDAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - DAY


def counted(name="ticket", quantity=4, spend=None, **told) -> Counted:
    schema = {"day": pl.Date, "quantity": pl.Decimal(38, 12), "spend_usd": pl.Decimal(38, 12)}
    daily = pl.DataFrame({"day": [START.date()], "quantity": [Decimal(quantity)], "spend_usd": [spend]}, schema=schema)
    return Counted(name=name, quantity=Decimal(quantity), spend_usd=spend, daily=daily, **told)


# ---- sums


def test_one_costs_the_spend_over_the_number_and_earns_what_is_left():
    one = counted(spend=Decimal(2), calls=12, revenue_usd=Decimal(10), earning_spend_usd=Decimal(1))
    assert (one.each_usd, one.calls_each, one.margin_usd, one.margin_ratio) == (Decimal("0.5"), 3, 9, Decimal("0.9"))
    assert total([one, counted(spend=Decimal(7))]) == (9, 10)


def test_what_is_unknown_or_none_is_no_quotient():
    assert (counted().each_usd, counted(quantity=0, spend=Decimal(1)).each_usd) == (None, None)
    assert (counted().margin_ratio, total([counted()])) == (None, (None, None))
    assert counted(revenue_usd=Decimal(0)).margin_ratio is None


# ---- figures


@pytest.mark.parametrize("days", [1, 9, 100])
def test_figures_are_ones_that_plotly_draws_and_names_are_text(days):
    window = Window(Period(START, START + days * DAY), None)
    drawn = units_charts.each(counted(HOSTILE, spend=Decimal(2)), "How many", window)
    go.Figure(drawn)
    assert HOSTILE not in str([{**one, "meta": None} for one in drawn["data"]])
    bars, line = drawn["data"]
    assert (len(bars["x"]), bars["y"][0], line["y"][0]) == (days, 4, 0.5)


def test_the_curve_begins_at_nothing_and_ends_at_all():
    period = Period(START, START + DAY)
    found = Concentration(period, users=2, calls=2, spend_usd=Decimal(4),
                          curve=(Mark(1, 1, Decimal(3)), Mark(100, 2, Decimal(4))))  # fmt: skip
    drawn = units_charts.curve(found)
    go.Figure(drawn)
    assert (drawn["data"][1]["x"], drawn["data"][1]["y"]) == ([0, 1, 100], [0, 0.75, 1])


# ---- callbacks


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    told = {"started_at": YESTERDAY, "feature": "triage", "customer": HOSTILE, "model": "gpt-5"}
    made = warehouse_of(
        *({**told, "span_id": n, "user_id": user, "billed_cost_usd": Decimal(n)}
          for n, user in ((1, "ann"), (2, "ann"), (3, None), (4, None))),
        {**told, "span_id": 9, "feature": "chat", "user_id": "bob", "billed_cost_usd": Decimal(30)},
    )  # fmt: skip
    rows = [Units(unit=HOSTILE, day=YESTERDAY.date(), quantity=Decimal(4), feature="triage", revenue_usd=Decimal(100))]
    units.upload(made.control, "default", rows, "test")
    return made


def site_of(warehouse) -> TestClient:
    app = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(app, base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse) -> TestClient:
    return site_of(warehouse)


@pytest.fixture(scope="module")
def nothing(warehouse_of) -> TestClient:
    return site_of(warehouse_of())


PARTS = ("units-kpis.children", "units-spreads.children", "calls-spread-body.children")
SCOPES = ("", "?v=9", "?v=1&p=mtd&team=nobody", "%%%&feature=%00", "?v=1&cur=XXX", "?v=1&tz=Asia/Kathmandu&basis=usage")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_part_answers_any_scope(site, answered, part, scope):
    assert '"response"' in answered(site, part, scope=scope)


@pytest.mark.parametrize("part", PARTS)
def test_before_the_first_call_every_part_answers(nothing, answered, part):
    assert '"response"' in answered(nothing, part)
    assert ("unconnected" in answered(nothing, part)) == (part == PARTS[0])


def test_a_unit_costs_what_its_calls_cost_and_earns_what_was_told(site, answered):
    found = answered(site, PARTS[0])
    assert "$2.50" in found  # 10 USD of calls for 4 of them
    assert "90.0%" in found  # of 100 USD
    assert "$90.00 of $100" in found
    assert f"What one {HOSTILE} costs" in answered(site, PARTS[0], **{"in": HOSTILE})
    assert "What one call costs" in answered(site, PARTS[0], **{"in": "nothing of that name"})


def test_quantiles_users_and_who_is_unknown_are_told(site, answered):
    found = answered(site, PARTS[1])
    for words in (
        "Typical call",
        "$3.00",
        "2 users told",
        "Top 1% of users",
        "No user told",
        "82% of the cost of calls",
    ):
        assert words in found
    table = answered(site, PARTS[2], by="customer")
    assert HOSTILE in table
    assert "of the newest" not in table


def test_of_more_calls_than_are_read_the_page_says_which(site, answered, monkeypatch):
    monkeypatch.setattr("millicent.dashboard.pages.units.spread.readable.__defaults__", (1,))
    assert "of the newest" in answered(site, PARTS[2], by="team")
