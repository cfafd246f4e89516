"""The Exports page without a screen: its address, what its parts say of a file, and that its links lead to it."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from asked_pages import callback, every, flat
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.api import mount_api
from millicent.dashboard.months import Month
from millicent.dashboard.pages import exports_answers
from millicent.dashboard.pages.exports_place import FIRST, PRESETS, Looked
from millicent.dashboard.state import View
from millicent.warehouse.query import Query

HOSTILE = "<img src=x onerror=alert(1)>"
HEADED, PREVIEW, SUMS = "exports-notice.children", "preview-body.children", "sums-body.children"
SCOPES = ["", *(f"?v=1&file={name}" for name in PRESETS), "?v=1&m=2020-02", "?v=1&file=nothing&m=no", "?v=9", "%%%",
          "?v=1&file=hardware&team=search", "?v=1&file=teams&team=nobody",
          "?v=1&file=teams&p=7d&basis=usage"]  # fmt: skip
places = st.builds(
    Looked,
    view=st.builds(View, range=st.sampled_from(("7d", "4w", "mtd")), compare=st.just("none"),
                   basis=st.sampled_from(("effective", "usage"))),
    file=st.sampled_from(tuple(PRESETS)),
    month=st.none() | st.builds(Month, st.integers(1971, 8998), st.integers(1, 12)),
)  # fmt: skip


def call(span: int, **told) -> dict:
    return {"span_id": span, "provider": "anthropic", "model": HOSTILE, "team": "search", "input_tokens": 1000,
            "output_tokens": 2000, "list_input_usd": Decimal("0.003"), "list_output_usd": Decimal("0.03"),
            "list_cost_usd": Decimal("0.033"), "billed_cost_usd": Decimal("0.033"), **told}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse(warehouse_of):
    return warehouse_of(call(1), call(2, team=None), call(3, team="ads", price_status="unpriced", list_cost_usd=None,
                                                          billed_cost_usd=None))  # fmt: skip


def site_of(warehouse) -> TestClient:
    def mount(server) -> None:
        mount_api(server, warehouse, books=dict, metrics=str, ready=lambda: True)

    server = pages.create_app(warehouse, mount=mount)
    return TestClient(Access(server, warehouse.control, insecure_local=True), base_url="http://127.0.0.1:8050")


@pytest.fixture(scope="module")
def site(warehouse):
    with site_of(warehouse) as client:
        yield client


def ask(site, output: str, scope: str = "") -> dict:
    return flat(callback(site, output, most_bytes=80_000, scope=scope))


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Looked.parse(place.search()) == place
    assert place.href()


@given(st.text(max_size=200))
def test_any_address_opens(search):
    assert Looked.parse(f"?{search}").file in PRESETS


@pytest.mark.parametrize("scope", SCOPES)
def test_every_part_answers_to_any_scope(site, scope):
    for part in (HEADED, PREVIEW, SUMS):
        ask(site, part, scope)


@pytest.mark.parametrize("name", PRESETS)
def test_files_that_are_offered_are_answered(site, name):
    headed = ask(site, HEADED, f"?v=1&file={name}")
    hrefs = every(headed["exports-downloads.children"], "href")
    assert len(hrefs) >= 3
    for href in hrefs:
        answer = site.get(href)
        assert answer.status_code == 200, (href, answer.text)
        form = parse_qs(urlsplit(href).query)["format"][0]
        assert form == "json" or f".{form}" in answer.headers["content-disposition"]
    assert set(hrefs) <= set(every(headed["exports-export.children"], "href"))


def test_sums_of_focus_are_those_of_the_page_and_all_rules_hold(site, warehouse):
    shown = json.dumps(ask(site, SUMS, "?v=1&cur=EUR"), ensure_ascii=False)
    assert "0.07 USD" in shown
    assert "the same on pages, to the cent" in shown
    assert "rules hold" in shown
    assert "fails" not in shown
    spend = warehouse.ask("default", Query(measures=("spend_usd",), period=Month.of(datetime.now(UTC)).period()))
    assert spend.frame["spend_usd"].item() == Decimal("0.066")


def test_what_a_file_breaks_is_said(site, monkeypatch):
    told = {"row_count": 1, "controls": [{"name": "Calls", "file": "1", "page": "2", "residue": "1", "holds": False}],
            "findings": [{"rule": "list-cost", "words": "", "rows": 7}]}  # fmt: skip
    monkeypatch.setattr(exports_answers, "_checked", lambda _: told)
    shown = json.dumps(ask(site, SUMS))
    assert "the file has 1" in shown
    assert "7 rows" in shown
    assert "1 of 72 rules broken" in shown


def test_a_month_is_read_once_while_nothing_in_it_changes(site, monkeypatch, warehouse):
    read = []
    look = exports_answers.focus_answers.looked_at
    monkeypatch.setattr(exports_answers.focus_answers, "looked_at", lambda *told: read.append(1) or look(*told))
    for _ in range(3):
        ask(site, SUMS, "?v=1&m=2024-03")
    assert len(read) == 1
    with warehouse.engine.revisions.changing(None):
        pass
    ask(site, SUMS, "?v=1&m=2024-03")
    assert len(read) == 2


def test_first_rows_show_text_from_outside_as_text(site):
    for scope in ("", "?v=1&file=models"):
        shown = ask(site, PREVIEW, scope)[PREVIEW]
        assert HOSTILE in every(shown, "children")


def test_a_question_that_cannot_be_asked_so_is_told_with_the_remedy(site):
    shown = json.dumps(ask(site, PREVIEW, "?v=1&file=hardware&team=search"))
    assert "is a fact of deployments" in shown


def test_months_lead_back_and_not_beyond_the_present(site):
    links = every(ask(site, HEADED)["presets-body.children"], "href")
    before = Month.of(datetime.now(UTC)).before()
    assert f"?v=1&m={before.written}" in links
    assert not any(Month.of(datetime.now(UTC) + timedelta(days=40)).written in link for link in links)
    assert FIRST == "focus"


def test_before_the_first_call_the_page_says_how_to_connect(warehouse_of):
    with site_of(warehouse_of()) as site:
        assert "empty unconnected" in json.dumps(ask(site, HEADED)[HEADED])
        assert ask(site, PREVIEW)[PREVIEW] is None
