"""Saved views and what the workspace prefers, with different keys, and the menu that shows them."""

import contextlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.pages import viewing
from millicent.dashboard.reader import Reader, currencies
from millicent.dashboard.state import View
from millicent.pricing.entries import FxRate
from millicent.warehouse import views
from millicent.warehouse.control import DEFAULT_TENANT, Control
from millicent.warehouse.store import Warehouse
from millicent.warehouse.views import SavedView
from millicent.warehouse.workspace import Workspace, prefer

BOARD = {"path": "/explore", "name": "Board report", "search": "?v=1&p=mtd&cur=EUR"}


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def control(warehouse) -> Control:
    return warehouse.control


def words(component) -> str:
    if isinstance(component, list | tuple):
        return " ".join(words(one) for one in component)
    if component is None or isinstance(component, str | int):
        return str(component or "")
    return words(getattr(component, "children", None))


class TestOverHttp:
    def test_a_view_is_kept_listed_and_deleted(self, operator):
        kept = operator.post("/api/v1/views", json=BOARD)
        assert kept.status_code == 201
        assert kept.json()["address"] == "/explore?v=1&p=mtd&cur=EUR"
        assert [one["name"] for one in operator.get("/api/v1/views?page=/explore").json()["views"]] == ["Board report"]
        assert operator.get("/api/v1/views?page=/teams").json()["views"] == []

        assert operator.delete(f"/api/v1/views/{kept.json()['id']}").status_code == 200
        assert operator.get("/api/v1/views").json()["views"] == []

    def test_a_private_view_is_its_owners_alone(self, operator, client):
        kept = operator.post("/api/v1/views", json=BOARD).json()
        other = client("operator")
        assert other.get("/api/v1/views").json()["views"] == []
        assert other.delete(f"/api/v1/views/{kept['id']}").status_code == 404

    def test_who_may_only_read_keeps_views_for_themselves_alone(self, client):
        reader = client("read")
        assert reader.post("/api/v1/views", json=BOARD).status_code == 201
        refused = reader.post("/api/v1/views", json=BOARD | {"audience": "team"})
        assert refused.status_code == 403
        assert "operator" in refused.json()["detail"]

    def test_an_operator_may_delete_what_everybody_sees_and_a_reader_may_not(self, operator, client):
        shared = operator.post("/api/v1/views", json=BOARD | {"audience": "team"}).json()
        assert client("read").delete(f"/api/v1/views/{shared['id']}").status_code == 403
        assert client("operator").delete(f"/api/v1/views/{shared['id']}").status_code == 200

    @pytest.mark.parametrize(
        ("bad", "said"),
        [
            ({"path": "explore"}, "no page"),
            ({"path": "//elsewhere.example"}, "no page"),
            ({"name": " "}, "empty"),
            ({"name": "a\nb"}, "one line"),
            ({"search": "javascript:alert(1)"}, "no query string"),
            ({"audience": "all"}, "private, team, default"),
            ({"search": 7}, "must be text"),
            ({"owner": "me"}, "a saved view has"),
        ],
    )
    def test_what_is_no_view_is_refused_with_the_rule(self, operator, bad, said):
        refused = operator.post("/api/v1/views", json=BOARD | bad)
        assert refused.status_code == 400
        assert said in refused.json()["detail"]

    def test_preferences_are_told_and_changed_by_operators(self, operator, client):
        assert client("read").get("/api/v1/workspace").json()["time_zone"] == "UTC"
        told = {"time_zone": "Asia/Kolkata", "fiscal_month": 4}
        assert client("read").put("/api/v1/workspace", json=told).status_code == 403
        assert operator.put("/api/v1/workspace", json=told).json() == {
            "time_zone": "Asia/Kolkata", "currency": "USD", "fiscal_month": 4, "trace_viewer": None,
        }  # fmt: skip
        assert operator.put("/api/v1/workspace", json={"time_zone": "Mars/Olympus"}).status_code == 400
        assert operator.put("/api/v1/workspace", json={"colour": "red"}).status_code == 400


def test_one_view_a_page_is_what_it_opens_with(control):
    for name in ("Old", "New"):
        views.save(control, DEFAULT_TENANT, SavedView(path="/", name=name, search="?v=1", audience="default"), "me")
    found = {one.name: one.audience for one in views.views(control, DEFAULT_TENANT, "me")}
    assert found == {"New": "default", "Old": "team"}


def test_a_view_of_the_same_name_is_replaced_and_opening_is_noted(control):
    for search in ("?v=1&p=7d", "?v=1&p=12w"):
        kept = views.save(control, DEFAULT_TENANT, SavedView(path="/", name="Weekly", search=search), "me")
    views.opened(control, DEFAULT_TENANT, "somebody else", kept.id)
    (found,) = views.views(control, DEFAULT_TENANT, "me")
    assert (found.search, found.used_at) == ("?v=1&p=12w", None)
    views.opened(control, DEFAULT_TENANT, "me", kept.id)
    assert views.views(control, DEFAULT_TENANT, "me")[0].used_at is not None


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_a_view_or_refused_in_words(name, search):
    with contextlib.suppress(ValueError):
        kept = SavedView(path="/", name=name, search=search)
        assert kept.address == f"/{search}"
        assert name.strip()
        assert (name + search).isprintable()


class TestTheMenu:
    @pytest.fixture(autouse=True)
    def _asking(self):
        token = access._principal.set(access.Principal(DEFAULT_TENANT, "me", operates=True))
        yield
        access._principal.reset(token)
        fmt.present(fmt.Presentation())

    @pytest.fixture
    def known(self, warehouse_of) -> Warehouse:
        made = warehouse_of({"span_id": 1, "billed_cost_usd": Decimal(2)})
        since = datetime.now(UTC) - timedelta(days=100)
        rate = FxRate(currency="EUR", usd_per_unit=Decimal("1.25"), effective_from=since, source="ECB")
        made.control.add_prices([rate], DEFAULT_TENANT, "test")
        return made

    def test_it_tells_dates_currencies_zones_and_views(self, known):
        views.save(known.control, DEFAULT_TENANT, SavedView(path="/", name="<b>Mine</b>", search="?v=1"), "me")
        face, body, default = viewing._asked(known, viewing.Asked("/", "?v=1&tz=Europe%2FBerlin&cur=EUR"))
        assert face == "EUR · Berlin"
        assert "Freeze these dates" in words(body)
        assert "USD EUR" in words(body)
        assert "1 EUR = 1.25 USD" in words(body)
        assert "ECB" in words(body)
        assert "<b>Mine</b>" in words(body)
        assert default is viewing.no_update

    def test_amounts_are_in_the_currency_and_days_in_the_zone(self, known):
        reader = Reader.of(known, View(currency="EUR", zone="Europe/Berlin"))
        assert fmt.presented().currency == "EUR"
        assert reader.over(("spend_usd",))["spend_usd"].item() == Decimal("1.6")
        assert fmt.zone() == "Europe/Berlin"

    def test_a_currency_without_a_rate_throughout_leaves_amounts_in_usd_and_says_so(self, known):
        for view in (View(currency="CHF"), View(currency="EUR", range="ytd", compare="year")):
            Reader.of(known, view)
            assert fmt.presented().currency == "USD"
        _, body, _ = viewing._asked(known, viewing.Asked("/", "?v=1&cur=CHF"))
        assert "No rate of CHF holds" in words(body)
        assert currencies(known, DEFAULT_TENANT) == ["USD", "EUR"]

    def test_the_workspace_decides_where_the_address_says_nothing(self, known):
        prefer(known.control, DEFAULT_TENANT, Workspace(time_zone="Asia/Tokyo", currency="EUR"), "me")
        assert viewing._asked(known, viewing.Asked("/", ""))[0] == "EUR · Tokyo"
        assert viewing._asked(known, viewing.Asked("/", "?v=1&cur=USD&tz=UTC"))[0] == "USD · UTC"

    def test_a_frozen_period_can_follow_the_calendar_again(self, known):
        _, body, _ = viewing._asked(known, viewing.Asked("/", "?v=1&p=2026-10-01..2026-10-31"))
        assert "Follow the latest 4 weeks" in words(body)

    def test_it_saves_deletes_and_says_what_went_wrong(self, known):
        told = {"path": "/teams", "search": "?v=1&p=mtd", "name": "Month", "audience": "default"}
        assert "Month" in words(viewing._acted(known, {"do": "view-save", "told": told}))
        (kept,) = views.views(known.control, DEFAULT_TENANT, "me", "/teams")
        assert viewing._asked(known, viewing.Asked("/teams", ""))[2] == {"path": "/teams", "search": "?v=1&p=mtd"}
        assert "empty" in words(viewing._acted(known, {"do": "view-save", "told": told | {"name": ""}}))
        assert viewing._acted(known, {"do": "view-used", "told": {"id": str(kept.id)}}) is viewing.no_update
        gone = viewing._acted(known, {"do": "view-delete", "told": {"id": kept.id, "path": "/teams"}})
        assert "None yet" in words(gone)

    def test_who_may_only_read_is_told_so(self, known):
        access._principal.set(access.Principal(DEFAULT_TENANT, "key 1"))
        told = {"path": "/", "search": "", "name": "All", "audience": "team"}
        assert "may read, not change" in words(viewing._acted(known, {"do": "view-save", "told": told}))

    @pytest.mark.parametrize("junk", [None, 7, "x", [], {"do": "view-save"}, {"do": "view-delete", "told": {"id": []}}])
    def test_whatever_is_sent_is_answered(self, known, junk):
        viewing._acted(known, junk)
        viewing._asked(known, viewing.Asked.parse(junk))


def test_before_the_first_call_the_menu_works(warehouse):
    token = access._principal.set(access.Principal(DEFAULT_TENANT, "me", operates=True))
    try:
        face, body, _ = viewing._asked(warehouse, viewing.Asked("/", "?v=1&tz=nowhere"))
    finally:
        access._principal.reset(token)
    assert face == "USD · UTC"
    assert "None yet" in words(body)
