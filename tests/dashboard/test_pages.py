"""The application as a browser without a screen meets it: files, headers, callbacks, unknown addresses."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard.access import Access
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View
from millicent.warehouse.store import Warehouse


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[TestClient]:
    warehouse = Warehouse.embedded(tmp_path_factory.mktemp("data"))
    server = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        yield client
    warehouse.close()


def sources(html):
    return re.findall(r'(?:src|href)="([^"]+)"', html)


def test_the_page_and_everything_it_names_comes_from_here(site):
    page = site.get("/")
    assert page.status_code == 200
    for address in sources(page.text):
        assert address.startswith("/")
        assert not address.startswith("//")
        assert site.get(address).status_code == 200, address
    assert "vendor/plotly" not in page.text


def test_only_our_own_scripts_may_run(site):
    policy = site.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("path", ["/", "/nowhere", "/assets/style.css", "/_dash-layout"])
def test_every_answer_has_the_security_headers(site, path):
    headers = site.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "content-security-policy" in headers


@pytest.mark.parametrize("path", ["/nowhere", "/overview/x", "/_reload-hash", "/_mcp", "/docs", "/redoc"])
def test_an_unknown_address_is_not_found(site, path):
    answer = site.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text


def test_an_unknown_api_address_is_not_a_page(site):
    answer = site.get("/api/v1/nowhere")
    assert answer.status_code == 404
    assert "text/html" not in answer.headers["content-type"]


def test_versioned_files_are_kept_and_pages_are_not(site):
    style = next(address for address in sources(site.get("/").text) if "style.css" in address)
    assert "immutable" in site.get(style).headers["cache-control"]
    assert site.get("/").headers["cache-control"] == "no-store"
    assert site.get("/_dash-layout").headers["cache-control"] == "no-store"


def test_plotly_is_asked_for_once(site):
    first = site.get(pages.PLOTLY)
    assert first.status_code == 200
    assert "etag" in first.headers
    assert site.get(pages.PLOTLY, headers={"if-none-match": first.headers["etag"]}).status_code == 304


@pytest.mark.skipif(not pages.BUNDLE.is_file(), reason="the small bundle was not fetched (make assets)")
def test_the_small_bundle_takes_the_place_of_the_full_one(site):
    answer = site.get(pages.PLOTLY)
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 600_000
    plain = site.get(pages.PLOTLY, headers={"accept-encoding": "identity"})
    assert plain.content == pages.BUNDLE.read_bytes() == answer.content


def test_without_the_small_bundle_the_full_one_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "BUNDLE", tmp_path / "none.js")
    warehouse = Warehouse.embedded(tmp_path)
    server = Access(pages.create_app(warehouse), warehouse.control, insecure_local=True)
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        assert len(client.get(pages.PLOTLY).content) > 3_000_000
    warehouse.close()


def callback(site, output, scope="", **headers):
    known = site.get("/_dash-dependencies").json()
    served = [one for one in known if not one.get("clientside_function")]
    (found,) = (one for one in served if output in one["output"].strip(".").split("..."))
    names = [part.rsplit(".", 1) for part in found["output"].strip(".").split("...")]
    body = {
        "output": found["output"],
        "outputs": [{"id": name, "property": prop} for name, prop in names],
        "inputs": [{**one, "value": scope if one["id"] == "scope" else None} for one in found["inputs"]],
        "changedPropIds": ["scope.data"],
    }
    return site.post("/_dash-update-component", json=body, headers={"sec-fetch-site": "same-origin", **headers})


@pytest.mark.parametrize("output", ["kpis.children", "chart.figure", "teams-body.children"])
@pytest.mark.parametrize("scope", ["", "?v=1&p=7d&team=nobody", "?v=9", "%%%&team=%00", "?team=" + "x" * 9000])
def test_every_callback_answers_before_the_first_call_and_to_any_scope(site, output, scope):
    answer = callback(site, output, scope)
    assert answer.status_code == 200, answer.text


def test_before_the_first_call_the_page_tells_how_to_connect(site):
    assert "Send your first call" in callback(site, "kpis.children").text


def test_callbacks_are_closed_to_strangers(tmp_path):
    warehouse = Warehouse.embedded(tmp_path)
    server = Access(pages.create_app(warehouse), warehouse.control)
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        assert client.post("/_dash-update-component", json={}).status_code == 401
        assert client.get("/_dash-layout").status_code == 401
    warehouse.close()


def test_nothing_is_read_outside_an_authenticated_request(tmp_path):
    warehouse = Warehouse.embedded(tmp_path)
    with pytest.raises(PermissionError, match="outside an authenticated request"):
        Reader.of(warehouse, View())
    warehouse.close()


def test_a_page_of_another_site_cannot_run_a_callback(site):
    assert callback(site, "kpis.children", **{"sec-fetch-site": "cross-site"}).status_code == 403
