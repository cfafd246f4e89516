"""The Requests page without a screen: its address, its two callbacks, and what they say about any call."""

from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from asked_pages import words
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.listing import COSTS, Listing
from millicent.dashboard.pages.prices_place import Place
from millicent.dashboard.pages.requests_drawer import counters, drawer, origins, usd_in_full
from millicent.dashboard.pages.requests_table import calls, served_by
from millicent.dashboard.state import FILTERS, RANGES, View
from millicent.warehouse.calls import Search, tellings
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.explain import Line
from millicent.warehouse.record import NOT_COUNTED, USAGE_FLAGS
from millicent.warehouse.store import Warehouse

NOW = datetime.now(UTC)
TRACE, OTHER = bytes(15) + b"\1", bytes(15) + b"\2"
UNCOUNTED = {"counted": False, "counted_as": 1, "counted_as_trace_id": TRACE}
STORED = (
    {"span_id": 1, "trace_id": TRACE, "team": "ads", "model": "gpt-5", "provider": "openai", "input_tokens": 1000,
     "cache_read_tokens": 250, "output_tokens": 7, "billed_cost_usd": Decimal("0.25"), "list_cost_usd": Decimal("0.5"),
     "usage_flags": [*USAGE_FLAGS], "usage_raw": '{"input":1000,"deep":{"a":1}}', "usage_rule": "otel_genai/1",
     "tag_sources": "environment:resource,feature:rule,customer:inherited", "identity_source": "span",
     "environment": "production", "feature": "answers", "customer": "acme", "service": "shop", "duration_ms": 1234},
    *({"span_id": n, "trace_id": OTHER, "not_counted_reason": reason, "scope": f"scope-{reason}", **UNCOUNTED}
      for n, reason in enumerate(NOT_COUNTED, start=2)),
    {"span_id": 90, "counted": False, "not_counted_reason": "spans_tell_of_it", "team": "logs", "signal": "log"},
    {"span_id": 91, "tenant": "rival", "team": "rival's"},
)  # fmt: skip

names = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
hexes = st.text("0123456789abcdef", min_size=32, max_size=32)
listings = st.builds(
    Listing,
    view=st.builds(
        View,
        range=st.sampled_from(tuple(RANGES)),
        filters=st.fixed_dictionaries(
            {}, optional=dict.fromkeys(FILTERS, st.lists(names, min_size=1, max_size=3, unique=True).map(tuple))
        ).map(lambda found: tuple((name, found[name]) for name in FILTERS if name in found)),
    ),
    cost=st.sampled_from(tuple(COSTS)),
    sort=st.sampled_from(("cost", "time")),
    uncounted=st.booleans(),
    trace=st.none() | hexes,
    after=st.none() | st.text("abcXYZ019-_=", min_size=1, max_size=80),
    call=st.none() | st.tuples(hexes, hexes.map(lambda text: text[:16])),
)


def links(component) -> list[str]:
    """Where everything inside leads."""
    if isinstance(component, list | tuple):
        return [href for one in component for href in links(one)]
    here = [component.href] if getattr(component, "href", None) else []
    return here + (links(component.children) if getattr(component, "children", None) else [])


# ---- the address


@given(listings)
def test_a_permalink_opens_the_listing_it_was_copied_from(listing):
    assert Listing.parse(listing.search()) == listing


@given(st.text())
def test_any_address_opens_some_listing(search):
    assert isinstance(Listing.parse(search), Listing)


def test_the_default_listing_has_the_plain_address_and_what_an_address_cannot_mean_is_ignored():
    assert (Listing().search(), Listing().href()) == ("", "?")
    assert Listing.parse("?v=1&p=99w&cost=gold&sort=name&all=yes&trace=x&after=%00&call=1.2&basis=usage") == Listing()
    assert Listing.parse("?v=2&all=1&p=7d") == Listing()


def test_an_address_is_written_as_browsers_write_it():
    listing = Listing(view=View(filters=(("team", ("it's (a) *test*!",)),)))
    assert listing.search() == "?v=1&team=it's%20(a)%20*test*!"


def test_a_trace_is_shown_whole_in_the_same_period():
    listing = Listing(view=View(range="7d", filters=(("team", ("ads",)),)), after="abc", cost="list")
    assert listing.of_trace("a" * 32).search() == f"?v=1&p=7d&cost=list&sort=time&all=1&trace={'a' * 32}"


# ---- the callbacks


@pytest.fixture(scope="module")
def warehouse(warehouse_of) -> Warehouse:
    return warehouse_of(*({"started_at": NOW, **told} for told in STORED))


@pytest.fixture(scope="module")
def site(warehouse) -> TestClient:
    return TestClient(Access(pages.create_app(warehouse), warehouse.control, insecure_local=True),
                      base_url="http://127.0.0.1:8050")  # fmt: skip


SCOPES = ["", "?v=1&all=1&sort=time", "?v=1&p=7d&team=nobody", "?v=9", "%%%&team=%00", "?team=" + "x" * 9000,
          "?v=1&after=AAAA", "?v=1&after=" + "=" * 50, f"?v=1&trace={'f' * 32}", "?v=1&team=\ud800"]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
def test_the_list_answers_any_scope(site, scope, answered):
    assert '"response"' in answered(site, "requests-list.children", scope=scope)


@pytest.mark.parametrize("call", ["", "0.0", f"{'0' * 32}.{'0' * 16}", f"{'f' * 32}.{'f' * 16}", "x" * 9000])
def test_the_drawer_answers_any_call(site, call, answered):
    answered(site, "requests-drawer.children", look=f"?v=1&call={call}")


def test_before_the_first_call_the_page_tells_how_to_connect(warehouse_of, answered):
    empty = warehouse_of()
    app = Access(pages.create_app(empty), empty.control, insecure_local=True)
    fresh = TestClient(app, base_url="http://127.0.0.1:8050")
    assert "Send your first call" in answered(fresh, "requests-list.children")
    assert "There is no such call" in answered(fresh, "requests-drawer.children", look=f"?call={'1' * 32}.{'1' * 16}")


def test_uncounted_rows_are_asked_for(site, answered):
    assert "uncounted" not in answered(site, "requests-list.children").replace("uncounted_", "")
    listed = answered(site, "requests-list.children", scope="?v=1&all=1")
    for reason in NOT_COUNTED.values():
        assert reason.replace("'", "\\u0027") in listed or reason in listed
    assert "rival" not in listed


def test_a_call_of_another_tenant_cannot_be_opened(site, answered):
    look = f"?v=1&call={'0' * 32}.{91:016x}"
    assert "There is no such call" in answered(site, "requests-drawer.children", look=look)


@pytest.mark.parametrize("path", ["/requests", "/"])
def test_each_page_is_the_one_document(site, path):
    assert "_dash-renderer" in site.get(path).text
    assert site.get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/requests/", "/requests/x", "/Requests"])
def test_what_only_looks_like_a_page_is_not_found(site, path):
    assert site.get(path).status_code == 404


def test_a_stranger_is_sent_to_the_login(warehouse):
    app = Access(pages.create_app(warehouse), warehouse.control)
    stranger = TestClient(app, base_url="http://127.0.0.1:8050", follow_redirects=False)
    answer = stranger.get("/requests", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/requests")
    assert stranger.get("/requests").status_code == 401


# ---- what they say


@pytest.fixture(scope="module")
def rows(warehouse) -> dict[int, dict]:
    found, _ = warehouse.find(DEFAULT_TENANT, Search(include_uncounted=True))
    return {int(row["span_id"], 16): row for row in found}


def test_an_uncounted_row_says_why_and_leads_to_the_one_that_counts(rows):
    listing = Listing(uncounted=True)
    for span, reason in enumerate(NOT_COUNTED, start=2):
        table = calls([rows[span]], listing, {}, None)
        assert f"Not counted:  {NOT_COUNTED[reason]}" in words(table)
        there = parse_qs(urlsplit(links(table)[-1]).query)["call"]
        assert there == [f"{TRACE.hex()}.{1:016x}"]
    alone = calls([rows[90]], listing, {}, None)
    assert NOT_COUNTED["spans_tell_of_it"] in words(alone)
    assert "counted there" not in words(alone)


def test_a_counted_row_lists_what_else_told_of_it(warehouse, rows):
    listing, told = Listing(), tellings(warehouse.engine, DEFAULT_TENANT, rows[1])
    opened = drawer(rows[1], warehouse.explain(DEFAULT_TENANT, rows[1]), told, listing)
    assert f"Also told by ({len(NOT_COUNTED)})" in words(opened)
    for span, reason in enumerate(NOT_COUNTED, start=2):
        assert f"scope-{reason}" in words(opened)
        assert listing.href(call=(OTHER.hex(), f"{span:016x}")) in links(opened)


def test_an_uncounted_call_opened_says_that_it_is_in_no_sum(warehouse, rows):
    opened = drawer(rows[4], warehouse.explain(DEFAULT_TENANT, rows[4]), [], Listing())
    assert f"{NOT_COUNTED['same_request']}. Its amounts are in no sum." in words(opened)
    assert Listing().href(call=(TRACE.hex(), f"{1:016x}")) in links(opened)


def test_every_flag_is_told_in_words(warehouse, rows):
    opened = words(drawer(rows[1], warehouse.explain(DEFAULT_TENANT, rows[1]), [], Listing()))
    for flag, meaning in USAGE_FLAGS.items():
        assert f"{flag.replace('_', ' ')} : {meaning}." in opened


def test_other_units_are_told_beside_tokens(rows):
    opened = words(drawer({**rows[1], "units": {"web_searches": 1200}}, [], [], Listing()))
    assert "Web searches 1,200" in opened


def test_a_source_leads_to_its_page_and_an_own_entry_to_itself(rows):
    entry, page = (
        "override 12, by ada, known from now on",
        "openai/gpt-5, in force; https://openai.com/a https://x.y/b,",
    )
    derived = [Line("list price", entry, "", "", "contract 7"), Line("list price", "1 × 2", "2", "USD", page)]
    opened = drawer(rows[1], derived, [], Listing())
    assert {"https://openai.com/a", "https://x.y/b"} <= set(links(opened))
    (there,) = (href for href in links(opened) if href.startswith("/prices"))
    assert Place.parse(urlsplit(there).query).opened["id"] == "12"
    assert entry in words(opened).replace("12 ,", "12,")
    hostile = [Line("list price", "override x, <b>", "", "", "javascript:alert(1) http")]
    assert not any(
        href.startswith(("javascript", "/prices")) for href in links(drawer(rows[1], hostile, [], Listing()))
    )


def test_a_tag_says_where_it_came_from(rows):
    assert origins(rows[1]) == [
        ("team", "ads", "on the call itself"),
        ("feature", "answers", "by a rule of yours"),
        ("customer", "acme", "from a span above it"),
        ("environment", "production", "on the service that sent it"),
        ("service", "shop", "on the service that sent it"),
    ]
    assert origins({**rows[1], "identity_source": "gateway", "labels": {"b": "<b>"}})[0][2] == "gateway"
    assert origins({**rows[1], "labels": {"b": "<b>"}})[-1] == ("b", "<b>", "label")


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, []),
        ('{"input":1000,"deep":{"a":1}}', [("input", "1000"), ("deep", '{"a": "1"}')]),
        ('{"n":123456789012345678901234567890.10}', [("n", "123456789012345678901234567890.10")]),
        ("{not json", [("as it came", "{not json")]),
        ("[1]", [("as it came", "[1]")]),
    ],
)
def test_raw_counters_are_shown_as_they_came(rows, raw, told):
    assert counters({**rows[1], "usage_raw": raw}) == told


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        (Decimal("0.010000000000"), "$0.01"),
        (Decimal("1E-12"), "$0.000000000001"),
        (Decimal(3), "$3"),
    ],
)
def test_an_amount_in_full_has_every_digit(amount, text):
    assert usd_in_full(amount) == text


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({}, "OpenAI API"),
        ({"provider": None}, "Unknown API"),
        ({"provider": "x<y"}, "x<y API"),
        ({"billing": "self_hosted"}, "Own hardware"),
        ({"billing": "self_hosted", "engine": "vllm"}, "vLLM"),
        ({"billing": "self_hosted", "deployment": "rack"}, "rack"),
        ({"billing": "self_hosted", "engine": "sglang", "accelerator": "nvidia-h100-sxm", "accelerator_count": 4},
         "SGLang on 4 × H100"),
    ],
)  # fmt: skip
def test_it_is_said_what_served_a_call(rows, told, text):
    assert served_by({**rows[1], **told}) == text
