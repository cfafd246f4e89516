"""The calls behind a figure: as many on Requests as the figure counts, whatever it is narrowed to."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.listing import Listing
from millicent.dashboard.pages import derivation, derivation_calls
from millicent.dashboard.pages.figures import Figure, own
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View
from millicent.warehouse.calls import Search, find
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import Period

HOSTILE = "<img src=x onerror=alert(1)>"


def call(n: int, **told) -> dict:
    at = datetime.now(UTC) - timedelta(hours=5 * n)
    return {"span_id": n, "trace_id": n.to_bytes(16), "started_at": at, "billed_cost_usd": Decimal(n) / 4,
            "list_cost_usd": Decimal(n) / 4, "input_tokens": 100, "output_tokens": 10, **told}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    return warehouse_of(
        call(1, team="Search", model="a", feature="answers", customer="acme"),
        call(2, team="Search", model="b", feature="answers"),
        call(3, team=HOSTILE, model="a", feature=None, environment="prod"),
        call(4, model="a", customer="acme"),
        call(5, team="Search", model="own", billing="self_hosted", deployment="x", billed_cost_usd=None),
    )


@pytest.fixture(autouse=True)
def _asking():
    token = access._principal.set(access.Principal(DEFAULT_TENANT, "me", operates=True))
    yield
    access._principal.reset(token)
    fmt.present(fmt.Presentation())


def shown(component) -> str:
    return json.dumps(component, default=lambda one: one.to_plotly_json(), ensure_ascii=False)


FIGURES = [
    Figure.of("spend_usd"),
    Figure.of("spend_usd", "billed", team="Search"),
    Figure.of("calls", team=None),
    Figure.of("total_tokens", model="a", customer="acme"),
    Figure.of("cost_per_mtok_usd", team=HOSTILE),
    Figure.of("billed_cost_usd", cost_type="api"),
    Figure.of("calls", cost_type="hardware"),
    Figure.of("cache_hit_ratio", feature=None, environment="prod"),
]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda one: one.written)
@pytest.mark.parametrize("view", [View(), View(filters=(("team", ("Search", None)),), zone="Asia/Tokyo")])
def test_the_link_leads_to_the_calls_that_the_figure_counts(warehouse, figure, view):
    reader = Reader.of(warehouse, view)
    period = reader.window.period
    counted = warehouse.ask(DEFAULT_TENANT, figure.asked(view, period, ("calls",))).frame["calls"].item()
    kept = derivation_calls.kept_by(view, figure)
    if kept is None:
        assert not counted
        return
    there = derivation_calls.listing(reader, kept, period)
    assert Listing.parse(there.search()) == there
    rows, _ = find(warehouse.engine, DEFAULT_TENANT, Search(period=period, filters=there.kept, limit=100))
    assert len(rows) == (counted or 0)


@pytest.mark.parametrize("kind", ["idle", "unavailable", "untracked"])
def test_what_no_call_carries_has_no_calls_and_says_so(warehouse, kind):
    reader = Reader.of(warehouse, View())
    told = shown(derivation_calls.calls(reader, Figure.of("spend_usd", cost_type=kind), reader.window.period))
    assert "No call is behind it" in told


def test_a_page_of_own_hardware_leads_to_the_calls_of_own_hardware(warehouse):
    reader = Reader.of(warehouse, own(View()))
    kept = derivation_calls.kept_by(reader.view, Figure.of("capacity_cost_usd"))
    assert kept == (("billing", ("self_hosted",)),)


def test_an_hour_leads_to_the_day_that_it_is_in(warehouse):
    reader = Reader.of(warehouse, View(zone="Asia/Kolkata"))
    start = datetime(2026, 11, 25, 19, tzinfo=UTC)
    there = derivation_calls.listing(reader, (), Period(start, start + timedelta(hours=1)))
    assert there.view.range == "2026-11-26..2026-11-26"


def test_the_drawer_tells_the_dearest_calls_first_and_names_are_only_names(warehouse):
    reader = Reader.of(warehouse, View())
    told = shown(derivation.drawer(reader, Figure.of("spend_usd", "billed")))
    assert HOSTILE in told
    assert told.index("$1.00") < told.index("$0.750")
    assert "its-calls" in told


@pytest.mark.parametrize("measure", DICTIONARY)
def test_every_measure_of_the_dictionary_opens(warehouse, measure):
    reader = Reader.of(warehouse, View())
    assert DICTIONARY[measure].label in shown(derivation.drawer(reader, Figure.of(measure)))
