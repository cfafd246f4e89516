"""The price book as people handle it: over HTTP, with the keys that may, from a file, and from the command line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from typer.testing import CliRunner

from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.dashboard import reference_api, serve
from millicent.dashboard.cli import app as commands
from millicent.pricing.book import PriceBook
from millicent.pricing.entries import read_toml
from millicent.pricing.rates import KINDS
from millicent.warehouse import price_entries
from millicent.warehouse.store import Warehouse

EXAMPLE = Path(__file__).parents[2] / "examples" / "prices.toml"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
OVERRIDE = {"kind": "override", "model": "acme-7b", "prices": {"input_mtok": "3", "output_mtok": "12"},
            "effective_from": "2026-01-01T00:00:00Z", "source": "finance wiki"}  # fmt: skip
TERM = {"kind": "term", "provider": "openai", "percent_off": "10", "effective_from": "2026-01-01T00:00:00Z",
        "source": "order form 4"}  # fmt: skip
USAGE = {"provider": "openai", "model": "gpt-4o", "started_at": "2026-11-01T00:00:00Z", "input_tokens": 1200,
         "output_tokens": 300}  # fmt: skip


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    """Calls of two days: four of a model with a price, three of one without."""
    return priced_calls(*(
        {"span_id": n, "started_at": NOW - timedelta(hours=7 * n), "team": "Search", "provider": "openai",
         "model": "acme-7b" if n > 4 else "gpt-4o", "input_tokens": 1000, "output_tokens": 100}
        for n in range(1, 8)
    ))  # fmt: skip


def get(client, path: str, **params):
    answer = client.get(f"/api/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client, path: str, told=None, status: int = 200, **params):
    answer = client.post(f"/api/v1/{path}", json=told, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def toml(client, path: str, text: str):
    return client.post(f"/api/v1/{path}", content=text, headers={"content-type": "application/toml"})


# ---- entries of our own


def test_an_operator_adds_prices_by_them_and_retires(operator):
    assert get(operator, "prices/entries")["entries"] == []
    before = get(operator, "prices/entries")["version"]
    added = post(operator, "prices/entries", {"entries": [OVERRIDE, TERM]}, 201)
    override, term = added["entries"]
    assert {name: override[name] for name in OVERRIDE} == OVERRIDE
    assert override["author"].startswith("key ")
    assert override["known_from"] is not None
    assert added["version"].startswith(f"{before} + ")

    priced = post(operator, "price", {**USAGE, "model": "acme-7b", "provider": None})
    assert (priced["price_status"], priced["list_cost_usd"]) == ("priced", "0.0072")
    assert priced["price_entry"].startswith(f"override {override['id']} ")
    assert post(operator, "price", USAGE)["billed_cost_usd"] == "0.0054"

    again = post(operator, "prices/entries", {"entries": [TERM]}, 201)
    assert [one["id"] for one in again["entries"]] == [term["id"]]
    gone = operator.delete(f"/api/v1/prices/entries/{term['id']}")
    assert (gone.status_code, gone.json()["id"]) == (200, term["id"])
    assert post(operator, "price", USAGE)["billed_cost_usd"] == "0.006"
    assert [one["id"] for one in get(operator, "prices/entries")["entries"]] == [override["id"]]
    assert len(get(operator, "prices/entries", retired=True)["entries"]) == 2
    assert operator.delete(f"/api/v1/prices/entries/{term['id']}").status_code == 404


WRITING = [
    ("POST", "prices/entries", {"entries": [OVERRIDE]}), ("DELETE", "prices/entries/1", None),
    ("POST", "prices/update", None),
    ("POST", "reprice?start=2026-01-01T00:00:00Z", None), ("POST", "reprice/1/undo", None),
    ("POST", "periods", {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "told"), WRITING)
def test_a_reader_is_told_which_key_it_takes_and_changes_nothing(client, warehouse, method, path, told):
    refused = client("read").request(method, f"/api/v1/{path}", json=told)
    assert refused.status_code == 403
    assert "--scope operator" in refused.json()["detail"]
    assert client("ingest").request(method, f"/api/v1/{path}", json=told).status_code == 403
    assert (
        warehouse.control.prices()
        == warehouse.control.repricings()
        == warehouse.control.closed_periods("default")
        == []
    )


@pytest.mark.parametrize(("method", "path", "told"), WRITING)
def test_a_page_of_another_site_changes_nothing(warehouse, loader, method, path, told):
    server = serve.application(warehouse, loader.spool, loader, insecure_local=True)
    anybody = TestClient(server, base_url="http://127.0.0.1:8050", headers={"sec-fetch-site": "cross-site"})
    assert anybody.request(method, f"/api/v1/{path}", json=told).status_code == 403
    assert warehouse.control.prices() == warehouse.control.repricings() == []


BAD = """
[[override]]
model = "acme-7b"
prices = { inptu_mtok = "3" }
effective_from = 2026-01-01
source = " "

[[term]]
percent_off = "120"
effective_from = 2026-01-01
source = "order form"

[[fx_rate]]
currency = "EUR"
usd_per_unit = "1.1"
effective_from = 2026-01-01T00:00:00
source = "central bank"
"""
PROBLEMS = ("inptu_mtok", "source is blank", "120", "has no time zone")


def test_everything_wrong_is_told_at_once_and_nothing_is_kept(operator, warehouse, tmp_path):
    told = {"entries": [
        {"kind": "override", "model": "acme-7b", "prices": {"inptu_mtok": "3"}, "effective_from": "2026-01-01",
         "source": " "},
        {"kind": "term", "percent_off": "120", "effective_from": "2026-01-01", "source": "order form"},
        {"kind": "fx_rate", "currency": "EUR", "usd_per_unit": "1.1", "effective_from": "2026-01-01T00:00:00",
         "source": "central bank"},
    ]}  # fmt: skip
    file = tmp_path / "prices.toml"
    file.write_text(BAD)
    shown = CliRunner().invoke(commands, ["prices", "check", str(file)], env={"COLUMNS": "300"})
    assert shown.exit_code == 1
    lines = [line for line in shown.stderr.splitlines() if line.startswith("error: ")]
    answers = [toml(operator, path, BAD) for path in ("prices/check", "prices/diff", "prices/entries")]
    answers += [
        operator.post(f"/api/v1/{path}", json=told) for path in ("prices/check", "prices/diff", "prices/entries")
    ]
    for problems in (lines, *(answer.json()["problems"] for answer in answers)):
        for one in PROBLEMS:
            assert sum(one in problem for problem in problems) == 1, (one, problems)
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert answer.json()["detail"]
    assert warehouse.control.prices() == []


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "entry 1"),
        (b'{"entries": 7}', "application/json", 400, "no list of entries"),
        (b"[[override", "application/toml", 400, "not TOML"),
        (b"\xff", "application/toml", 400, "UTF-8"),
        (b"a,b", "text/csv", 415, "text/csv"),
        (b" " * (1 << 20) + b"{}", "application/json", 413, "in parts"),
    ],
)
def test_a_body_that_holds_no_prices_says_why(operator, body, kind, status, says):
    answer = operator.post("/api/v1/prices/check", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_what_does_not_fit_to_the_price_data_or_the_rates_is_told_too(operator, warehouse, tmp_path):
    like = {"kind": "override", "model": "x", "like": "openai/no-such", "effective_from": "2026-01-01", "source": "w"}
    euro = {**OVERRIDE, "currency": "EUR"}
    for path in ("prices/check", "prices/diff", "prices/entries"):
        refused = operator.post(f"/api/v1/{path}", json={"entries": [like, euro]})
        problems = refused.json()["problems"]
        assert (refused.status_code, len(problems)) == (400, 2)
        assert "openai/no-such" in problems[0]
        assert "no rate of EUR" in problems[1]
    assert warehouse.control.prices() == []
    rate = {
        "kind": "fx_rate",
        "currency": "EUR",
        "usd_per_unit": "1.1",
        "effective_from": "2026-01-01",
        "source": "bank",
    }
    post(operator, "prices/entries", {"entries": [rate]}, 201)
    diff = changes(operator, euro)
    assert prices_of(diff["acme-7b", "input_mtok"])[1] == "3.3", "the rate that is there already counts"
    file = tmp_path / "prices.toml"
    file.write_text('[[override]]\nmodel = "x"\nlike = "openai/no-such"\neffective_from = 2026-01-01\nsource = "w"\n')
    shown = CliRunner().invoke(commands, ["prices", "check", str(file)])
    assert (shown.exit_code, "openai/no-such" in shown.stderr) == (1, True)


def test_no_more_entries_are_kept_than_there_may_be_and_none_of_too_many(operator, warehouse, monkeypatch):
    monkeypatch.setattr(price_entries, "MOST_ENTRIES", 1)
    refused = operator.post("/api/v1/prices/entries", json={"entries": [OVERRIDE, TERM]})
    assert (refused.status_code, "retire" in refused.json()["problems"][0]) == (400, True)
    assert warehouse.control.prices() == []


def test_amounts_in_json_are_taken_to_the_last_digit(operator):
    text = json.dumps({**OVERRIDE, "prices": {"input_mtok": "PRICE"}}).replace('"PRICE"', "0.12345678901234567")
    body = operator.post("/api/v1/prices/check", content=text, headers={"content-type": "application/json"})
    assert body.json()["entries"][0]["prices"] == {"input_mtok": "0.12345678901234567"}


# ---- a file of prices, and what it changes


def test_the_example_file_is_checked_shown_and_stored_once(operator):
    entries = read_toml(EXAMPLE.read_text("utf-8"))
    assert {entry.kind for entry in entries} == {"override", "term", "fx_rate", "charge"}
    checked = toml(operator, "prices/check", EXAMPLE.read_text("utf-8")).json()["entries"]
    assert len(checked) == len(entries)
    diff = toml(operator, "prices/diff", EXAMPLE.read_text("utf-8")).json()
    assert (len(diff["new"]), diff["present"]) == (len(entries), [])
    assert toml(operator, "prices/entries", EXAMPLE.read_text("utf-8")).status_code == 201
    again = toml(operator, "prices/diff", EXAMPLE.read_text("utf-8")).json()
    assert (again["new"], len(again["present"]), again["changes"]) == ([], len(entries), [])
    assert toml(operator, "prices/entries", EXAMPLE.read_text("utf-8")).status_code == 201
    assert len(get(operator, "prices/entries")["entries"]) == len(entries)


def changes(client, *entries: dict) -> dict:
    """What changes, by model and price."""
    found = post(client, "prices/diff", {"entries": entries})["changes"]
    assert len({(one["model"], one["price"], one["effective_from"]) for one in found}) == len(found)
    return {(one["model"], one["price"]): one for one in found}


def prices_of(change: dict) -> tuple:
    return tuple(change[f"{cost}_{when}"] for cost in ("list", "billed") for when in ("before", "after"))


def test_a_diff_tells_list_and_billed_unit_prices_from_when(operator):
    found = changes(operator, OVERRIDE)
    assert prices_of(found["acme-7b", "input_mtok"]) == (None, "3", None, "3")
    assert prices_of(found["acme-7b", "output_mtok"]) == (None, "12", None, "12")
    assert found["acme-7b", "input_mtok"]["effective_from"] == OVERRIDE["effective_from"]

    found = changes(operator, {**TERM, "keys": ["output_mtok"]})
    assert {model for model, _ in found} == {"gpt-4o"}, "of many models those in use are told"
    assert {price: prices_of(one) for (_, price), one in found.items()} == {"output_mtok": ("10", "10", "10", "9")}

    fee = {**OVERRIDE, "prices": {"input_mtok": "1", "web_searches_kcount": "10", "requests_kcount": "5"}}
    found = changes(operator, fee)
    assert prices_of(found["acme-7b", "input_mtok"])[1] == "1"
    assert (
        prices_of(found["acme-7b", "web_searches_kcount"])[1],
        prices_of(found["acme-7b", "requests_kcount"])[1],
    ) == ("10", "5")


def test_a_diff_follows_the_price_changes_that_a_term_meets(operator):
    dated = PriceBook.bundled().models().filter(pl.col("provider") == "openai", pl.col("variant").is_null(),
                                                pl.col("effective_from").is_not_null())  # fmt: skip
    model, at = dated["model"][0], dated["effective_from"][0]
    told = {**TERM, "model": model, "effective_from": (at - timedelta(days=30)).isoformat()}
    found = post(operator, "prices/diff", {"entries": [told]})["changes"]
    assert {one["effective_from"] for one in found} >= {
        told["effective_from"].replace("+00:00", "Z"),
        at.isoformat().replace("+00:00", "Z"),
    }
    for one in found:
        assert Decimal(one["billed_after"]) == Decimal(one["list_after"]) * Decimal("0.9")
        assert one["list_before"] == one["list_after"]


def test_a_diff_of_a_price_for_office_hours_is_told_from_the_first_office_hour_on(operator):
    told = {**OVERRIDE, "model": "gpt-4o", "provider": "openai", "daily_from": "09:00", "daily_to": "17:00",
            "zone": "Europe/Berlin"}  # fmt: skip
    found = changes(operator, told)
    assert prices_of(found["gpt-4o", "input_mtok"]) == ("2.5", "3", "2.5", "3")
    assert found["gpt-4o", "input_mtok"]["effective_from"] == "2026-01-01T08:00:00Z"


def test_a_charge_changes_no_unit_price(operator):
    charge = {"kind": "charge", "type": "fee", "name": "support", "amount_usd": "100", "source": "form",
              "effective_from": "2026-01-01"}  # fmt: skip
    diff = post(operator, "prices/diff", {"entries": [charge]})
    assert (len(diff["new"]), diff["changes"]) == (1, [])


# ---- what a usage costs

AMOUNTS = ("list_cost_usd", "list_input_usd", "list_cache_read_usd", "list_cache_write_usd", "list_output_usd",
           "list_units_usd", "billed_cost_usd", "cache_saving_usd")  # fmt: skip
COUNTS = tuple(kind.column for kind in KINDS)


def test_a_usage_is_priced_explained_and_not_stored(operator, warehouse):
    calls = get(operator, "calls")["calls"]
    priced = post(operator, "price", {**USAGE, "cache_read_tokens": 200, "reasoning_tokens": 50})
    assert (priced["price_status"], priced["list_cost_usd"]) == ("priced", "0.00575")
    assert priced["price_version"] == warehouse.prices.version("default")
    assert [(line["kind"], line["quantity"], line["unit_price_usd"]) for line in priced["lines"]] == [
        ("input_tokens", 1000, "2.5"), ("cache_read_tokens", 200, "1.25"), ("output_tokens", 250, "10"),
        ("reasoning_tokens", 50, "10"),
    ] or sum(Decimal(line["amount_usd"]) for line in priced["lines"]) == Decimal("0.00575")  # fmt: skip
    assert priced["derivation"]["sources"]
    assert get(operator, "calls")["calls"] == calls


@settings(max_examples=40)
@given(st.data())
def test_any_usage_costs_what_the_book_says_and_its_lines_add_up(shared, data):
    client, warehouse = shared
    counts = data.draw(st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 10**7)))
    provider, model = data.draw(
        st.sampled_from(
            [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro"), (None, "nobody")]
        )
    )
    usage = {"provider": provider, "model": model, "started_at": "2026-11-01T12:00:00Z", **counts}
    told = post(client, "price", usage)
    (row,) = (
        warehouse.prices.book("default")
        .price(pl.DataFrame([{**usage, "started_at": datetime(2026, 11, 1, 12, tzinfo=UTC)}]))
        .to_dicts()
    )
    assert {name: told[name] and Decimal(told[name]) for name in AMOUNTS} == {name: row[name] for name in AMOUNTS}
    if told["list_cost_usd"] is not None:
        lines = sum((Decimal(line["amount_usd"]) for line in told["lines"]), Decimal(told["rounding_usd"]))
        assert lines == Decimal(told["list_cost_usd"])


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[tuple[TestClient, Warehouse]]:
    folder = tmp_path_factory.mktemp("prices")
    made = Warehouse.embedded(folder)
    loader = Loader(made, SpoolReader(folder / "spool"))
    server = serve.application(made, loader.spool, loader, insecure_local=True)
    yield TestClient(server, base_url="http://127.0.0.1:8050", headers={"sec-fetch-site": "none"}), made
    made.close()


def test_the_price_book_is_asked_as_it_was_known_then(operator):
    before = datetime.now(UTC).isoformat()
    post(operator, "prices/entries", {"entries": [TERM]}, 201)
    assert post(operator, "price", USAGE)["billed_cost_usd"] == "0.0054"
    assert post(operator, "price", {**USAGE, "known_at": before})["billed_cost_usd"] == "0.006"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"input_tokns": 1}, "input_tokns"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"input_tokens": 1.5}, "input_tokens"),
        ({"started_at": "2026-11-01T00:00:00"}, "timezone"),
        ({"started_at": "soon"}, "started_at"),
        ({"units": {"web_searches": -2}}, "web_searches"),
    ],
)
def test_a_usage_that_cannot_be_says_why(operator, told, says):
    refused = operator.post("/api/v1/price", json={**USAGE, **told})
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")
    assert says in refused.json()["detail"]


def test_a_usage_without_a_price_has_no_cost_and_a_reason(operator):
    told = post(operator, "price", {"model": "acme-7b", "input_tokens": 5, "output_tokens": 1})
    assert (told["price_status"], told["list_cost_usd"], told["lines"]) == ("unpriced", None, [])
    assert "acme-7b" in told["reason"]


# ---- what is on the list


def test_prices_are_searched_as_they_hold_now_then_and_ever(operator):
    now = get(operator, "prices", text="OpenAI/gpt-4o-mini", limit=1)
    (price,) = now["prices"]
    assert (price["provider"], price["model"], price["kind"]) == ("openai", "gpt-4o-mini", "bundled")
    assert price["prices"]["input_mtok"] == "0.15"
    assert now["left_off"] >= 0
    dated = PriceBook.bundled().models().filter(pl.col("variant").is_null(), pl.col("effective_from").is_not_null())
    asked, at = {"provider": dated["provider"][0], "model": dated["model"][0]}, dated["effective_from"][0]
    then = get(operator, "prices", **asked, at=at.isoformat())["prices"]
    standard = [one["price_entry"] for one in then if one["variant"] is one["above_input_tokens"] is None]
    before = get(operator, "prices", **asked, at=(at - timedelta(microseconds=1)).isoformat())["prices"]
    assert standard == [dated["price_entry"][0]]
    assert dated["price_entry"][0] not in {one["price_entry"] for one in before}
    first = get(operator, "prices", **asked, at="2020-01-01T00:00:00Z")["prices"]
    assert {one["effective_from"] for one in first} == {None}
    assert operator.get("/api/v1/prices", params={"at": "2026-01-01T00:00:00"}).status_code == 400
    assert get(operator, "prices", text="no such model") == {"version": now["version"], "prices": [], "left_off": 0}


def test_our_prices_stand_first_and_in_the_history_of_their_model(operator):
    dearer = {**OVERRIDE, "provider": "openai", "model": "gpt-4o-mini"}
    (stored,) = post(operator, "prices/entries", {"entries": [dearer]}, 201)["entries"]
    ours, *rest = get(operator, "prices", text="gpt-4o-mini")["prices"]
    assert (ours["own_entry"], ours["kind"], ours["prices"]) == (stored["id"], "override", OVERRIDE["prices"])
    assert {one["kind"] for one in rest} == {"bundled"}
    before, after = get(operator, "prices", provider="openai", model="gpt-4o-mini", history=True)["prices"]
    assert (before["prices"]["input_mtok"], before["effective_to"]) == ("0.15", "2026-01-01T00:00:00Z")
    assert (after["prices"]["input_mtok"], after["own_entry"], after["source"]) == ("3", stored["id"], "finance wiki")


# ---- the description

DESCRIBED = ("prices", "price", "reprice", "periods", "charges")


def test_every_price_route_describes_its_body_and_its_answer(operator):
    described = get(operator, "openapi.json")
    routes = {
        (method, path): told
        for path, methods in described["paths"].items()
        for method, told in methods.items()
        if path.removeprefix("/api/v1/").partition("/")[0] in DESCRIBED
    }
    assert len(routes) >= 18
    bodies = {path for (method, path), told in routes.items() if "requestBody" in told}
    assert bodies == {
        f"/api/v1/{path}" for path in ("prices/check", "prices/diff", "prices/entries", "price", "periods")
    }
    for (method, path), told in routes.items():
        assert reference_api.schema_of(told), (method, path)
        assert all(one["description"] for one in told.get("parameters", ()) if one["in"] == "query"), (method, path)
    entry = routes["post", "/api/v1/prices/entries"]["requestBody"]["content"]["application/json"]["schema"]
    kinds = {one["properties"]["kind"]["const"]: one for one in entry["properties"]["entries"]["items"]["oneOf"]}
    assert kinds.keys() == {"override", "term", "fx_rate", "charge"}
    assert kinds["fx_rate"]["required"] == ["kind", "effective_from", "source", "currency", "usd_per_unit"]
    for one in kinds.values():
        assert one["description"]
        assert all("type" in told or "const" in told for told in one["properties"].values())
