"""The Data quality page and the histogram of Requests without a screen: what their callbacks say."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.listing import Listing
from millicent.warehouse.calls import EDGES, Search, find, histogram
from millicent.warehouse.query import BadQuery
from millicent.warehouse.workspace import Workspace, prefer

HOSTILE = "<img src=x onerror=alert(1)>"
STORED = (
    {"span_id": 1, "team": "ads", "service": "shop", "model": "gpt-5", "billed_cost_usd": Decimal("0.25")},
    {"span_id": 2, "team": "ads", "service": "shop", "model": "gpt-5", "billed_cost_usd": Decimal("0.0015")},
    {"span_id": 3, "team": None, "service": HOSTILE, "model": "gpt-5", "billed_cost_usd": Decimal("0.002")},
    {"span_id": 4, "team": "ads", "service": "shop", "model": "acme-1", "provider": "acme", "price_status": "unpriced",
     "usage_source": "missing", "usage_flags": ["totals_disagree"]},
    {"span_id": 5, "counted": False, "not_counted_reason": "same_response", "counted_as": 1,
     "billed_cost_usd": Decimal(9)},
)  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    now = datetime.now(UTC)
    return warehouse_of(*({"started_at": now - timedelta(seconds=told["span_id"]), "trace_id":
                           told["span_id"].to_bytes(16), **told} for told in STORED))  # fmt: skip


def site(warehouse) -> TestClient:
    app = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    return TestClient(app, base_url="http://127.0.0.1:8050")


def test_the_page_tells_who_sends_and_what_is_missing(warehouse, answered):
    head = answered(site(warehouse), "quality-kpis.children")
    assert "1 calls without a price" in head
    assert "1 calls without a team" in head
    assert "0 estimated, 1 missing" in head
    assert "1 more tellings of them, not counted again" in head
    rest = answered(site(warehouse), "books-body.children")
    assert "acme-1" in rest
    assert "the total told is not input plus output" in rest
    assert "same provider response as the call that counts" in rest


def test_the_remedy_for_a_service_quotes_its_name_for_the_shell(warehouse, answered):
    rest = answered(site(warehouse), "books-body.children")
    assert f"--if service='{HOSTILE}' --set team=TEAM" in rest


@pytest.mark.parametrize("scope", ["", "?v=9", "?v=1&p=mtd&team=nobody", "%%%"])
def test_the_page_answers_any_scope(warehouse, answered, scope):
    assert '"response"' in answered(site(warehouse), "quality-kpis.children", scope=scope)


def test_before_the_first_call_it_tells_how_to_connect(warehouse_of, answered):
    assert "unconnected" in answered(site(warehouse_of()), "quality-kpis.children")


def test_what_a_page_could_not_answer_is_logged_and_not_shown(warehouse, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr("millicent.dashboard.pages.quality._headline", broken)
    shop = site(warehouse)
    (known,) = [one for one in shop.get("/_dash-dependencies").json() if "quality-kpis" in one["output"]]
    names = [part.rsplit(".", 1) for part in known["output"].strip(".").split("...")]
    told = {"output": known["output"], "outputs": [{"id": name, "property": prop} for name, prop in names],
            "inputs": [{**one, "value": None} for one in known["inputs"]], "changedPropIds": []}  # fmt: skip
    with capture_logs() as logs:
        answer = shop.post("/_dash-update-component", json=told, headers={"sec-fetch-site": "same-origin"})
    assert (answer.status_code, "secret" in answer.text) == (500, False)
    (entry,) = [entry for entry in logs if entry["event"] == "a part of a page could not be answered"]
    assert isinstance(entry["exc_info"], ZeroDivisionError)


# ---- what single calls cost


def test_every_call_of_known_cost_is_in_one_bar_that_its_cost_is_within(warehouse):
    bars = histogram(warehouse.engine, "default", Search())
    assert sum(bar.calls for bar in bars) == 3
    assert sum(bar.spend_usd for bar in bars) == Decimal("0.2535")
    for bar in bars:
        assert bar.least_usd in {None, *EDGES}
        rows, _ = find(warehouse.engine, "default", Search(least_usd=bar.least_usd, below_usd=bar.below_usd))
        known = [row for row in rows if row["effective_cost_usd"] is not None]
        assert len(known) == bar.calls
    assert [bar.least_usd for bar in bars if bar.calls] == [Decimal("0.001"), Decimal("0.002"), Decimal("0.2")]


def test_a_cost_bounds_the_list_from_below_and_above(warehouse):
    listing = Listing.parse("?v=1&least=0.0015&below=0.002")
    assert Listing.parse(listing.search()) == listing
    rows, _ = find(warehouse.engine, "default", Search(least_usd=listing.least, below_usd=listing.below))
    assert [row["span_id"] for row in rows] == [f"{2:016x}"]
    assert Listing.parse("?v=1&least=x&below=-1&least=1e9") == Listing()
    with pytest.raises(BadQuery, match="outside 0"):
        Search(least_usd=Decimal("NaN"))


def test_the_histogram_and_what_narrows_it_are_links(warehouse, answered):
    drawn = answered(site(warehouse), "..spread-body.children")
    assert "3 calls of known cost" in drawn
    assert "least=0.2&below=0.5" in drawn
    chips = answered(site(warehouse), "requests-chips.children", scope="?v=1&least=0.2&service=" + quote(HOSTILE))
    assert "Cost $0.200 or more" in chips
    assert "Service " in chips


def test_a_call_leads_to_its_trace_where_a_viewer_is_known(warehouse, answered):
    look = f"?v=1&call={1:032x}.{1:016x}"
    assert "trace viewer" not in answered(site(warehouse), "requests-drawer.children", look=look)
    prefer(warehouse.control, "default", Workspace(trace_viewer="https://traces.example/{trace_id}"), "ann")
    opened = answered(site(warehouse), "requests-drawer.children", look=look)
    assert f"https://traces.example/{1:032x}" in opened
