"""The empty product: how to send the first call, by which key, and what it says when the call has come."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import unquote

import pytest
from starlette.testclient import TestClient

from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.dashboard import serve
from millicent.dashboard.components import empty
from millicent.dashboard.pages import welcome
from millicent.dashboard.pages.welcome import PLACEHOLDER, WAYS, Sender
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.store import Warehouse

RECEIVER = "http://collector.example:4318"
CALL = {"trace_id": "0" * 31 + "1", "span_id": "0" * 15 + "1", "model": "gpt-5-mini", "team": "<i>Search</i>",
        "input_tokens": 1200, "output_tokens": 300, "effective_cost_usd": Decimal("0.0009"), "billed_cost_usd": None,
        "list_cost_usd": None, "started_at": datetime.now(UTC), "received_at": None}  # fmt: skip


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data")
    yield opened
    opened.close()


def shown(component) -> str:
    """Everything that components hold, as text."""
    if isinstance(component, list | tuple):
        return json.dumps([one.to_plotly_json() if hasattr(one, "to_plotly_json") else one for one in component],
                          default=lambda one: one.to_plotly_json())  # fmt: skip
    return json.dumps(component, default=lambda one: one.to_plotly_json())


@pytest.mark.parametrize("way", WAYS)
def test_each_way_sends_to_this_instance_with_its_key(way):
    told = Sender(RECEIVER, "mk_ingest_1_secret").snippet(way)
    assert RECEIVER in told
    assert "mk_ingest_1_secret" in unquote(told)


@pytest.mark.parametrize("way", WAYS)
def test_without_a_key_no_way_speaks_of_one(way):
    told = Sender(RECEIVER, None).snippet(way)
    assert "mk_ingest" not in told
    assert "uthorization" not in told
    assert "HEADERS" not in told


def test_the_plain_json_is_a_call_that_is_taken():
    told = Sender(RECEIVER).snippet("json")
    body = json.loads(told[told.index("-d '") + 4 : told.rindex("'")])
    assert body["input_tokens"] == 1200
    assert datetime.fromisoformat(body["started_at"]).tzinfo is not None


def test_an_operator_gets_a_key_once_and_a_reader_is_told_how(warehouse, asking):
    asking()
    first = shown(welcome._told(warehouse, RECEIVER, None))
    assert PLACEHOLDER.rstrip("…") in first
    assert "Make an ingest key" in first
    assert warehouse.control.keys(DEFAULT_TENANT) == []

    made = shown(welcome._told(warehouse, RECEIVER, {"do": "welcome-key"}))
    (key,) = warehouse.control.keys(DEFAULT_TENANT)
    assert key.scope == "ingest"
    assert f"mk_ingest_{key.id}_" in made
    assert "not shown again" in made

    asking("key 1", operates=False)
    refused = shown(welcome._told(warehouse, RECEIVER, {"do": "welcome-key"}))
    assert len(warehouse.control.keys(DEFAULT_TENANT)) == 1
    assert "millicent keys create --scope ingest" in refused


def test_insecure_local_needs_no_key(warehouse, asking):
    asking("insecure-local")
    told = shown(welcome._told(warehouse, RECEIVER, {"do": "welcome-key"}))
    assert "No key is needed" in told
    assert warehouse.control.keys(DEFAULT_TENANT) == []


def test_it_watches_until_the_first_call(warehouse, asking):
    asking()
    body, done = welcome._watched(warehouse)
    assert "Watching for your first call" in shown(body)
    assert not done


def test_the_first_call_is_told_with_its_cost(warehouse_of, asking):
    asking()
    there = warehouse_of({"span_id": 7, "billed_cost_usd": Decimal("0.0009"), "model": "gpt-5-mini", "team": "Search",
                          "input_tokens": 1200, "output_tokens": 300})  # fmt: skip
    body, done = welcome._watched(there)
    assert done
    assert "$0.000900" in shown(body)
    assert "1,200 in, 300 out" in shown(body)
    assert f"call={'0' * 32}.{7:016x}" in shown(body)


def test_a_call_without_a_price_leads_to_prices():
    told = shown(welcome.arrived(CALL | {"effective_cost_usd": None}))
    assert "Its price is not known yet" in told
    assert "$0" not in told
    assert "/prices" in told


def test_a_name_is_only_a_name():
    assert "<i>Search</i>" in shown(welcome.arrived(CALL))


def test_every_emptiness_has_its_own_picture_and_words():
    kinds = ("unconnected", "no_rows", "ingesting", "forbidden", "undeclared", "no_hours")
    told = [shown(empty(kind)) for kind in kinds]
    assert len({*told}) == len(kinds)
    for kind, one in zip(kinds, told, strict=True):
        assert f"icon-{kind}" in one


def test_the_page_tells_the_receivers_address(warehouse, tmp_path):
    spool = SpoolReader(tmp_path / "spool")
    server = serve.application(warehouse, spool, Loader(warehouse, spool), insecure_local=True, receiver=RECEIVER)

    body = {"output": "welcome.children", "outputs": {"id": "welcome", "property": "children"},
            "inputs": [{"id": "welcome-do", "property": "data"}], "changedPropIds": []}  # fmt: skip
    with TestClient(server, base_url="http://127.0.0.1:8050") as client:
        answer = client.post("/_dash-update-component", json=body, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 200
    assert RECEIVER in json.dumps(answer.json())


def test_a_receiver_on_all_addresses_is_told_by_the_name_of_the_machine():
    assert "0.0.0.0" not in serve._reachable("http://0.0.0.0:4318")
    assert serve._reachable("http://127.0.0.1:4318") == "http://127.0.0.1:4318"
