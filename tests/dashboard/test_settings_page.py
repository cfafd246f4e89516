"""The Settings page: what it shows whom, what an operator changes on it, and what it refuses in words."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from millicent.dashboard import access
from millicent.dashboard.pages import settings
from millicent.pricing.entries import FxRate
from millicent.warehouse import views
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.store import Warehouse
from millicent.warehouse.views import SavedView
from millicent.warehouse.workspace import Workspace, preferences

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def operating(asking):
    asking()


def shown(told) -> str:
    return json.dumps(told, default=lambda one: one.to_plotly_json(), ensure_ascii=False)


def act(warehouse, do: str, **told) -> str:
    return shown(settings._acted(warehouse, {"do": do, "told": told})[0])


def test_an_operator_prefers_and_everybody_sees_it(warehouse, asking):
    said = act(warehouse, "settings-prefer", time_zone="Asia/Kolkata", currency="eur", fiscal_month="4",
               trace_viewer="https://traces.example/t/{trace_id}")  # fmt: skip
    assert "Saved" in said
    assert preferences(warehouse.control, DEFAULT_TENANT) == Workspace(
        time_zone="Asia/Kolkata", currency="EUR", fiscal_month=4, trace_viewer="https://traces.example/t/{trace_id}"
    )
    asking("key 1", operates=False)
    told = shown(settings._told(warehouse))
    assert "Asia/Kolkata" in told
    assert "April" in told
    assert "settings-do" not in told


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"currency": "euro"}, "three capital letters"),
        ({"fiscal_month": "13"}, "no month"),
        ({"fiscal_month": "x"}, "no month"),
        ({"trace_viewer": "javascript:alert(1)//{trace_id}"}, "no web address"),
    ],
)
def test_what_cannot_be_preferred_is_refused_in_words_and_changes_nothing(warehouse, told, said):
    assert said in act(warehouse, "settings-prefer", **told)
    assert preferences(warehouse.control, DEFAULT_TENANT) == Workspace()


def test_a_rate_is_added_and_the_one_in_force_is_marked(warehouse):
    last_year = datetime.now(UTC) - timedelta(days=365)
    for since, rate in ((last_year, "1.05"), (last_year + timedelta(days=300), "1.0834")):
        said = act(warehouse, "settings-rate", currency="eur", usd_per_unit=rate, effective_from=f"{since:%Y-%m-%d}",
                   source=HOSTILE)  # fmt: skip
        assert f"1 EUR is {rate} USD" in said
    rates = [entry for _, entry in warehouse.control.prices(DEFAULT_TENANT) if isinstance(entry, FxRate)]
    assert {rate.usd_per_unit for rate in rates} == {Decimal("1.05"), Decimal("1.0834")}
    told = shown(settings._told(warehouse)[3])
    assert told.count("in force") == 1
    assert told.index("1.0834") < told.index("1.05")
    assert HOSTILE in told


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"usd_per_unit": "one"}, "no number"),
        ({"usd_per_unit": "-1"}, "usd_per_unit"),
        ({"usd_per_unit": "NaN"}, "usd_per_unit"),
        ({"effective_from": "soon"}, "no day"),
        ({"currency": "USD"}, "name the other currency"),
        ({"source": ""}, "source"),
    ],
)
def test_what_is_no_rate_is_refused_in_words(warehouse, told, said):
    whole = {"currency": "EUR", "usd_per_unit": "1.1", "effective_from": "2026-01-01", "source": "ECB"}
    assert said in act(warehouse, "settings-rate", **{**whole, **told})
    assert warehouse.control.prices(DEFAULT_TENANT) == []


def test_saved_views_of_all_pages_are_listed_and_deleted(warehouse, asking):
    for path in ("/", "/explore"):
        view = SavedView(path=path, name=f"{HOSTILE} {path}", search="?v=1&p=mtd", audience="team")
        kept = views.save(warehouse.control, DEFAULT_TENANT, view, "somebody")
    told = shown(settings._told(warehouse)[4])
    assert HOSTILE in told
    assert "Cost explorer" in told
    assert "/explore?v=1&p=mtd" in told
    asking("key 1", operates=False)
    assert "is of somebody" in act(warehouse, "settings-view", id=kept.id)
    asking()
    assert "Deleted" in act(warehouse, "settings-view", id=kept.id)
    assert len(views.views(warehouse.control, DEFAULT_TENANT, "session")) == 1


def test_keys_are_listed_without_secrets(warehouse):
    secrets = [warehouse.control.create_key("ingest", "checkout"), warehouse.control.create_key("read", HOSTILE)]
    ended = warehouse.control.keys(DEFAULT_TENANT)[0]
    warehouse.control.revoke(ended.id, DEFAULT_TENANT)
    told = shown(settings._told(warehouse)[5])
    assert "checkout" in told
    assert HOSTILE in told
    assert "revoked" in told
    assert "live" in told
    for secret in secrets:
        assert secret not in told
        assert secret.rpartition("_")[2] not in told


@pytest.mark.parametrize("do", ["settings-prefer", "settings-rate"])
def test_who_may_only_read_changes_nothing(warehouse, asking, do):
    asking("key 1", operates=False)
    assert "may read, not change" in act(warehouse, do)
    assert preferences(warehouse.control, DEFAULT_TENANT) == Workspace()


@pytest.mark.parametrize("junk", [None, 7, [], {"do": "other", "told": {}}, {"do": "settings-prefer", "told": 7},
                                  {"do": "settings-view", "told": {"id": "9" * 40}}])  # fmt: skip
def test_whatever_is_sent_is_answered(warehouse, junk):
    settings._acted(warehouse, junk)
    assert len(settings._told(warehouse)) == 6


def test_nobody_sees_it_without_asking(warehouse):
    token = access._principal.set(None)
    try:
        notice, *others = settings._told(warehouse)
    finally:
        access._principal.reset(token)
    assert "Not yours to see" in shown(notice)
    assert not any(others)
