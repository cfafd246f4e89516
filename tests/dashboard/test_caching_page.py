"""Caching without a screen: its arithmetic, its figures, and what its callbacks say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.pages import caching_charts
from millicent.dashboard.pages.caching_sums import SUMS, daily, homes, missed, premium, saved
from millicent.dashboard.state import Window
from millicent.warehouse.query import Period

HOSTILE = "<img src=x onerror=alert(1)>"
START = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)
AMOUNT = pl.Decimal(38, 24)
SCHEMA = {
    "time": pl.Datetime("us", "UTC"), "feature": pl.String, "model": pl.String, "billing": pl.String,
    "price_status": pl.String, **{name: pl.Int64 if name.endswith("_tokens") else AMOUNT for name in SUMS},
}  # fmt: skip


def row(read=0, written=0, whole=1000, model="m", plain="2", cached="0.2", write="2.5", **told) -> dict:
    """Sums of an API's calls at these prices of a token, in USD."""
    plain, cached, write = (Decimal(price) for price in (plain, cached, write))
    costs = {"list_input_usd": (whole - read - written) * plain, "list_cache_read_usd": read * cached,
             "list_cache_write_usd": written * write,
             "cache_saving_usd": read * (plain - cached) + written * (plain - write)}  # fmt: skip
    tokens = {"input_tokens": whole, "cache_read_tokens": read, "cache_write_tokens": written}
    of = {"time": START, "feature": "f", "model": model, "billing": "api", "price_status": "priced"}
    return of | tokens | costs | told


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame([{name: one.get(name) for name in SCHEMA} for one in rows], schema=SCHEMA)


# ---- what was saved


def test_the_saving_is_what_was_avoided_less_the_premium_of_writing():
    (home,) = homes(frame(row(read=600, written=100)))
    assert (home.plain_usd, home.read_usd, home.write_usd) == (2, Decimal("0.2"), Decimal("2.5"))
    assert home.premium_usd == 50
    assert home.avoided_usd == 600 * Decimal("1.8")
    assert home.saved_usd == home.avoided_usd - home.premium_usd
    assert home.hit == Decimal("0.6")


prices = st.integers(2, 50).map(lambda tenths: Decimal(tenths) / 10)
parts = st.tuples(st.integers(1, 400), st.integers(0, 300), st.integers(1, 300))


@given(parts, prices, st.integers(1, 9), st.integers(0, 20))
def test_at_the_break_even_reuse_nothing_is_saved_and_above_it_something_is(told, plain, cheaper, dearer):
    read, _, written = told
    cached, write = plain * cheaper / 10, plain * (10 + dearer) / 10
    (home,) = homes(frame(row(read, written, 1000, plain=plain, cached=cached, write=write)))
    assert (home.saved_usd > 0) == (home.reuse > home.break_even)
    assert (home.break_even == 0) == (dearer == 0)


def test_what_has_no_price_counts_in_no_saving_and_in_no_price():
    unpriced = row(read=500, price_status="unpriced") | dict.fromkeys(SUMS[3:])
    (home,) = homes(frame(row(read=600), unpriced))
    assert (home.input_tokens, home.read_tokens, home.plain_usd) == (2000, 1100, 2)
    (unknown,) = homes(frame(unpriced))
    assert (unknown.saved_usd, unknown.plain_usd, unknown.break_even) == (None, None, None)
    assert saved([unknown]) is premium([unknown] * 0) is None


def test_own_hardware_frees_capacity_at_its_own_rates():
    own = {"billing": "self_hosted", "hardware_input_usd": Decimal(400), "hardware_cached_usd": Decimal(60)}
    (home,) = homes(frame(row(read=600, **own)))
    assert (home.plain_usd, home.read_usd, home.saved_usd, home.break_even) == (1, Decimal("0.1"), 540, 0)
    assert saved([home], own=False) is None
    assert saved([home], own=True) == saved([home]) == 540


def test_idle_is_no_input():
    assert homes(frame({"model": "m", "billing": "self_hosted", "time": START})) == []


rows = st.lists(
    st.builds(
        lambda day, model, read, written, own: row(
            read, written, 1000, model, time=START + day * DAY, billing="self_hosted" if own else "api",
            hardware_input_usd=Decimal(1000 - read) if own else None,
            hardware_cached_usd=read / Decimal(10) if own else None,
        ),
        st.integers(0, 3), st.sampled_from(("a", "b", None)), st.integers(0, 400), st.integers(0, 400), st.booleans(),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(rows)
def test_days_add_up_to_the_period(told):
    found = homes(frame(*told))
    days = daily(frame(*told), found)
    assert days["input_tokens"].sum() == sum(home.input_tokens for home in found)
    net = days.select(pl.sum_horizontal(pl.col("avoided_usd").fill_null(0), -pl.col("premium_usd").fill_null(0),
                                        pl.col("freed_usd").fill_null(0)).sum()).item()  # fmt: skip
    assert abs(net - (saved(found) or 0)) < Decimal("0.000001")
    assert abs((days["premium_usd"].sum() or 0) - (premium(found) or 0)) < Decimal("0.000001")


# ---- what was missed


def test_a_feature_misses_what_the_best_of_its_model_saves():
    told = frame(row(read=800, feature="good"), row(read=200, feature="poor"), row(read=9, whole=10, feature="tiny"))
    found = missed(told, homes(told), "best")
    assert [(one.feature, one.target) for one in found] == [("poor", Decimal("0.8"))]
    assert found[0].missed_usd == 600 * Decimal("1.8")


def test_against_a_share_all_that_hit_less_miss_something():
    told = frame(row(read=800, feature="good"), row(read=500, feature="poor"), row(read=0, feature="none", model="n"))
    found = missed(told, homes(told), "60")
    assert [(one.feature, one.missed_usd) for one in found] == [("poor", 180)]
    assert [one.feature for one in missed(told, homes(told), "80")] == ["poor"]


# ---- figures and callbacks


def window(days: int) -> Window:
    period = Period(START, START + days * DAY)
    return Window(period, None)


@pytest.mark.parametrize("days", [1, 4, 120])
def test_figures_are_ones_that_plotly_draws(days):
    told = frame(row(read=600, written=100), row(read=9, time=START + DAY))
    found = daily(told, homes(told))
    for drawn in (caching_charts.tokens(found, window(days)), caching_charts.saving(found, window(days))):
        go.Figure(drawn)
        assert len(drawn["data"][0]["x"]) == days


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    now = datetime.now(UTC)
    told = {"started_at": now - timedelta(seconds=1), "feature": HOSTILE, "team": "ads", "model": "gpt-5",
            "input_tokens": 1000, "output_tokens": 1, "cache_read_tokens": 600, "list_cost_usd": Decimal("0.3"),
            "list_input_usd": Decimal("0.2"), "list_cache_read_usd": Decimal("0.1"),
            "cache_saving_usd": Decimal("0.2")}  # fmt: skip
    missed = {"feature": "chat", "cache_read_tokens": 0, "list_cache_read_usd": Decimal(0)}
    return warehouse_of({"span_id": 1, **told}, {"span_id": 2, **told, **missed, "cache_saving_usd": Decimal(0)})


def site_of(warehouse) -> TestClient:
    app = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(app, base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse) -> TestClient:
    return site_of(warehouse)


@pytest.fixture(scope="module")
def nothing(warehouse_of) -> TestClient:
    return site_of(warehouse_of())


PARTS = ("caching-kpis.children", "cached-chart.figure", "missed-body.children")
SCOPES = ("", "?v=9", "?v=1&p=mtd&team=nobody", "%%%&feature=%00", "?v=1&cur=XXX", "?v=1&tz=Asia/Kathmandu")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_part_answers_any_scope(site, answered, part, scope):
    assert '"response"' in answered(site, part, scope=scope)


@pytest.mark.parametrize("part", PARTS)
def test_before_the_first_call_every_part_answers(nothing, answered, part):
    assert '"response"' in answered(nothing, part)
    assert ("unconnected" in answered(nothing, part)) == (part == PARTS[0])


def test_it_tells_what_was_saved_and_missed(site, answered):
    head = answered(site, PARTS[0])
    for words in ("Cache savings", "$0.200", "Off API bills", "30.0%", "gpt-5", "pays"):
        assert words in head
    assert "chat" in answered(site, PARTS[2])
    assert "no_rows" in answered(site, PARTS[0], scope="?v=1&team=nobody")
