"""The API and its door, over the real application: who gets in, what is answered, how mistakes are told."""

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.dashboard import access, demo, serve
from millicent.pricing.entries import FxRate
from millicent.warehouse import capacity, record
from millicent.warehouse.query import ASKABLE
from millicent.warehouse.store import Warehouse

NOW = datetime.now(UTC)
HOSTILE = '=HYPERLINK("http://x")'


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    made = Warehouse.embedded(tmp_path_factory.mktemp("api"))
    demo.declare(made, datetime.now(UTC))
    days = demo.history(made, datetime.now(UTC))
    for _ in range(demo.DAYS - 27):  # up to four weeks ago is enough history to ask about
        next(days)
    capacity.refresh(made.engine, made.control, datetime.now(UTC))
    yield made
    made.close()


@pytest.fixture(scope="module")
def loader(warehouse, tmp_path_factory):
    return Loader(warehouse, SpoolReader(tmp_path_factory.mktemp("spool")))


def application(warehouse, loader, *, insecure_local: bool):
    return serve.application(warehouse, loader.spool, loader, insecure_local=insecure_local)


@pytest.fixture(scope="module")
def guarded(warehouse, loader):
    return application(warehouse, loader, insecure_local=False)


@pytest.fixture
def stranger(guarded):
    return TestClient(guarded, base_url="http://127.0.0.1:8050", follow_redirects=False)


@pytest.fixture
def client(guarded, warehouse):
    key = warehouse.control.create_key("read", "test")
    headers = {"authorization": f"Bearer {key}"}
    return TestClient(guarded, base_url="http://127.0.0.1:8050", headers=headers, follow_redirects=False)


def get(client, path: str, **params):
    answer = client.get(f"/api/v1/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


# ---- the door

READ = ["/", "/metrics", "/api/v1/query?measures=calls", "/api/v1/calls", "/api/v1/balance", "/api/v1/openapi.json",
        "/api/v1/explain/00/00", "/_dash-layout", "/_dash-dependencies", "/no-such-page"]  # fmt: skip


@pytest.mark.parametrize("path", READ)
def test_nobody_reads_without_a_key_or_a_session(stranger, path):
    answer = stranger.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "millicent keys create" in answer.json()["detail"]


@pytest.mark.parametrize("path", [path for path in READ if path != "/no-such-page"])
def test_an_ingest_key_reads_nothing(stranger, warehouse, path):
    key = warehouse.control.create_key("ingest", "test")
    assert stranger.get(path, headers={"authorization": f"Bearer {key}"}).status_code == 403


def test_callbacks_are_an_api_and_guarded_as_one(stranger):
    assert stranger.post("/_dash-update-component", json={}).status_code == 401


def test_a_revoked_key_is_out(client, warehouse):
    assert client.get("/api/v1/balance").status_code == 200
    warehouse.control.revoke(client.headers["authorization"].split("_")[2])
    assert client.get("/api/v1/balance").status_code == 401


def test_health_is_public_and_says_no_more_than_up(stranger):
    assert (stranger.get("/healthz").status_code, stranger.get("/healthz").text) == (200, "up\n")


def test_the_set_up_token_opens_one_session_that_cannot_be_used_across_sites(stranger, warehouse):
    token = warehouse.control.create_key("setup", "test")
    page = stranger.get("/", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/")
    same = {"sec-fetch-site": "same-origin"}
    assert stranger.post("/login", data={"token": token}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    opened = stranger.post("/login", data={"token": token}, headers=same)
    assert opened.status_code == 303
    assert {"httponly", "samesite=lax"} <= {part.strip().lower() for part in opened.headers["set-cookie"].split(";")}
    assert stranger.get("/api/v1/balance").status_code == 200
    assert (
        stranger.post("/_dash-update-component", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    )
    stranger.cookies.clear()
    assert stranger.post("/login", data={"token": token}, headers=same).status_code == 401


def test_insecure_local_serves_loopback_names_only(warehouse, loader):
    app = application(warehouse, loader, insecure_local=True)
    assert TestClient(app, base_url="http://localhost:8050").get("/api/v1/balance").status_code == 200
    rebound = TestClient(app, base_url="http://evil.example:8050").get("/api/v1/balance")
    assert rebound.status_code == 400


def test_a_route_without_a_policy_keeps_the_process_from_starting():
    server = FastAPI(openapi_url=None)
    server.get("/somewhere/new")(lambda: None)
    with pytest.raises(access.UndeclaredRouteError, match="/somewhere/new"):
        access.check_routes(route.path for route in server.routes)


# ---- questions


def test_query_answers_decimals_as_text_and_says_how_it_computed(client):
    answer = get(client, "query", measures="spend_usd,calls,cost_per_mtok_usd", group_by="team", period="70d")
    teams = {row["team"]: row for row in answer["rows"]}
    assert {*demo.TEAMS, None, "__idle__"} == teams.keys()
    assert isinstance(teams["Search"]["spend_usd"], str)
    assert Decimal(teams["Search"]["spend_usd"]) > 0 < teams["Search"]["calls"]
    assert answer["meta"]["measures"]["cost_per_mtok_usd"]["formula"] == "Σ spend_usd ÷ Σ priced_tokens × 1,000,000"
    assert (answer["meta"]["currency"], answer["meta"]["basis"]) == ("USD", "effective")


def test_amounts_in_another_currency_say_which_and_by_which_rates(client, warehouse):
    (dollars,) = get(client, "query", measures="spend_usd,calls", period="70d")["rows"]
    begin = datetime.now(UTC) - timedelta(days=200)
    entry = FxRate(currency="NOK", usd_per_unit=Decimal("0.125"), effective_from=begin, source="Norges Bank")
    warehouse.control.add_prices([entry])
    asked = {"measures": "spend_usd,calls,cost_per_mtok_usd", "period": "70d", "currency": "NOK"}
    answer = get(client, "query", **asked)
    (row,) = answer["rows"]
    assert row.keys() == {"spend_nok", "calls", "cost_per_mtok_nok"}
    assert Fraction(row["spend_nok"]) == Fraction(dollars["spend_usd"]) * 8
    assert answer["meta"]["measures"]["cost_per_mtok_nok"]["unit"] == "nok_per_mtok"
    (rate,) = answer["meta"]["rates"]
    assert (rate["currency"], rate["usd_per_unit"], rate["source"]) == ("NOK", "0.125", "Norges Bank")
    assert datetime.fromisoformat(rate["from"]) == begin
    file = pl.read_csv(io.BytesIO(client.get("/api/v1/query", params=asked | {"format": "csv"}).content))
    assert file.columns == list(row)


def test_days_of_a_time_zone_begin_at_its_midnight_in_rows_and_in_bounds(client):
    last = datetime.now(UTC).date() - timedelta(days=40)
    asked = {"measures": "calls", "start": str(last - timedelta(days=3)), "end": str(last), "time_zone": "Asia/Kolkata"}
    whole = get(client, "query", **asked)
    assert whole["meta"]["start"] == f"{last - timedelta(days=4)}T18:30:00+00:00"
    days = get(client, "query", grain="day", **asked)["rows"]
    assert [row["time"] for row in days] == [f"{last - timedelta(days=n)}T18:30:00Z" for n in (4, 3, 2)]
    assert sum(row["calls"] for row in days) == whole["rows"][0]["calls"] > 0


def test_an_unpriced_model_has_no_cost_rather_than_none(client):
    rows = get(client, "query", measures="spend_usd,unpriced_calls", group_by="model", period="70d")["rows"]
    (unknown,) = [row for row in rows if row["model"] == "acme-legal-ft-2"]
    assert unknown["spend_usd"] is None
    assert unknown["unpriced_calls"] > 0


def test_filters_keep_and_drop(client):
    kept = get(client, "query", measures="calls", group_by="team", filter="team:Search,Research", period="70d")["rows"]
    assert {row["team"] for row in kept} == {"Search", "Research"}
    dropped = get(client, "query", measures="calls", group_by="team", filter="-team:Search", period="70d")["rows"]
    assert "Search" not in {row["team"] for row in dropped}
    nobody = get(client, "query", measures="calls,unattributed_calls", filter="team:null", period="70d")["rows"]
    assert nobody[0]["calls"] == nobody[0]["unattributed_calls"] > 0


@pytest.mark.parametrize(
    ("form", "read"), [("csv", pl.read_csv), ("parquet", pl.read_parquet), ("arrow", pl.read_ipc_stream)]
)
def test_the_same_rows_as_a_file(client, form, read):
    params = {"measures": "calls", "group_by": "team", "period": "70d"}
    rows = get(client, "query", **params)["rows"]
    answer = client.get("/api/v1/query", params={**params, "format": form})
    assert "attachment" in answer.headers["content-disposition"]
    assert read(io.BytesIO(answer.content))["calls"].sum() == sum(row["calls"] or 0 for row in rows)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"measures": "spend"}, "unknown measure 'spend'"),
        ({"measures": "calls", "group_by": "teams"}, "unknown dimension 'teams'"),
        ({"measures": "calls", "filter": "team"}, "write team:search"),
        ({"measures": "calls", "filter": "nobody:x"}, "unknown filter 'nobody'"),
        ({"measures": "calls", "period": "soon"}, "period 'soon'"),
        ({"measures": "calls", "start": "2026-11-01T00:00:00"}, "no time zone"),
        ({"measures": "calls", "start": "2026-13-01"}, "not an instant"),
        ({"measures": "calls", "start": "2026-11-02", "end": "2026-11-01"}, "is not before"),
        ({"measures": "calls", "basis": "cheap"}, "unknown basis 'cheap'"),
        ({"measures": "spend_usd", "currency": "SEK"}, 'fx_rate with currency = "SEK"'),
        ({"measures": "calls", "currency": "euro"}, "write USD, EUR or another code"),
        ({"measures": "calls", "time_zone": "Mars/Olympus"}, "time zone 'Mars/Olympus' is unknown"),
        ({"measures": "calls", "grain": "day", "time_zone": "Asia/Tokyo", "start": "1971-01-01"}, "10,000 days"),
        ({"measures": "accelerator_hours", "group_by": "team"}, "fact of deployments"),
        ({"measures": "calls", "limit": "0"}, "limit 0"),
        ({"measures": "calls", "limit": "many"}, "limit: Input should be a valid integer"),
        ({}, "measures: Field required"),
    ],
)
def test_a_bad_question_names_the_value_the_rule_and_the_remedy(client, params, told):
    answer = client.get("/api/v1/query", params=params)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert told in answer.json()["detail"]


def test_unknown_paths_are_404_problems(client):
    answer = client.get("/api/v1/nothing")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert client.get("/api/v2/query").status_code == 404


def test_calls_are_found_by_dimension_and_paged(client):
    first = get(client, "calls", team="Research", model="gpt-5-mini", limit=10)
    second = get(client, "calls", team="Research", model="gpt-5-mini", limit=10, cursor=first["next"])
    ids = [call["span_id"] for page in (first, second) for call in page["calls"]]
    assert len(set(ids)) == 20
    assert {call["team"] for call in first["calls"]} == {"Research"}
    one = first["calls"][0]
    assert get(client, f"calls/{one['trace_id']}/{one['span_id']}") == one
    assert client.get("/api/v1/calls", params={"colour": "red"}).status_code == 400
    assert client.get(f"/api/v1/calls/{'0' * 32}/{'1' * 16}").status_code == 404


def test_names_cannot_become_formulas_in_a_spreadsheet(client, warehouse):
    question = {"measures": "calls", "group_by": "customer", "period": "70d", "format": "csv"}
    with warehouse.engine.write() as transaction:
        from sqlalchemy import text

        transaction.execute(text(f"INSERT INTO usage_hourly BY NAME SELECT * REPLACE ('{HOSTILE}' AS customer) "
                                 "FROM usage_hourly LIMIT 1"))  # fmt: skip
    lines = client.get("/api/v1/query", params=question).text.splitlines()
    assert any("'=HYPERLINK" in line for line in lines)
    assert not any(line.lstrip('"').startswith("=") for line in lines)


def test_own_telemetry_is_valid_and_bounded(client):
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert {"millicent_spans_received", "millicent_spool_pending_spans", "millicent_behind_seconds"} <= families.keys()
    assert sum(len(family.samples) for family in families.values()) < 2000


def test_the_description_is_openapi_3_1(client):
    described = get(client, "openapi.json")
    assert described["openapi"].startswith("3.1")
    assert {"/api/v1/query", "/api/v1/calls", "/api/v1/balance"} <= described["paths"].keys()


def test_the_dictionary_tells_every_measure_with_its_denominator(client):
    by_name = {measure["name"]: measure for measure in get(client, "metrics-dictionary")["measures"]}
    for measure in by_name.values():
        assert measure["words"]
        if measure["unit"] in {"ratio", "usd_per_mtok"}:
            assert measure["numerator"] in by_name
            assert measure["denominator"] in by_name


# ---- what is not counted, and names that are hard to write


@pytest.fixture(scope="module")
def odd(warehouse_of, tmp_path_factory):
    """One call that counts, another telling of it, and teams with awkward names."""
    told = {"counted": False, "not_counted_reason": "same_response", "counted_as": 1, "counted_as_trace_id": bytes(16)}
    costs = [Decimal("0.01"), Decimal("0.01"), Decimal("0.5"), None, Decimal("0.2")]
    teams = ["ads", "ads", "Sales, EMEA", "null", None]
    made = warehouse_of(*(
        {"started_at": NOW, "span_id": n, "team": team, "billed_cost_usd": cost, **(told if n == 2 else {})}
        for n, (team, cost) in enumerate(zip(teams, costs, strict=True), start=1)
    ))  # fmt: skip
    app = application(made, Loader(made, SpoolReader(tmp_path_factory.mktemp("spool"))), insecure_local=True)
    return TestClient(app, base_url="http://127.0.0.1:8050")


def found(client, **asked) -> list[int]:
    return [int(call["span_id"], 16) for call in get(client, "calls", **asked)["calls"]]


def test_uncounted_rows_are_asked_for_and_say_where_they_count(odd):
    assert 2 not in found(odd)
    every = get(odd, "calls", include="uncounted")["calls"]
    (told,) = [call for call in every if not call["counted"]]
    assert (told["span_id"], told["not_counted_reason"]) == ("0" * 15 + "2", "same_response")
    assert (told["counted_as"], told["counted_as_trace_id"]) == ("0" * 15 + "1", "0" * 32)
    why = get(odd, f"explain/{told['trace_id']}/{told['span_id']}")["lines"]
    assert [line["what"] for line in why[:2]] == [f"not counted: {record.NOT_COUNTED['same_response']}",
                                                  "the row that counts"]  # fmt: skip
    assert why[1]["value"] == f"trace {'0' * 32}, span {'0' * 15}1"


def test_calls_come_dearest_first_and_page(odd):
    assert found(odd, order="-billed_cost_usd") == [3, 5, 1, 4]
    first = get(odd, "calls", order="-billed_cost_usd", limit=3)
    assert found(odd, order="-billed_cost_usd", limit=3, cursor=first["next"]) == [4]
    wrong = odd.get("/api/v1/calls", params={"order": "-team"})
    assert (wrong.status_code, "-billed_cost_usd" in wrong.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        ({"filter": r"team:Sales\, EMEA"}, [3]),
        ({"team": r"Sales\, EMEA,ads"}, [1, 3]),
        ({"filter": r"team:\null"}, [4]),
        ({"team": r"\null"}, [4]),
        ({"team": "null"}, [5]),
        ({"filter": [r"-team:\null", r"-team:Sales\, EMEA"]}, [1, 5]),
    ],
)
def test_a_name_with_a_comma_and_a_team_called_null_can_be_asked_for(odd, asked, spans):
    assert sorted(found(odd, **asked)) == spans
    rows = get(odd, "query", measures="calls", filter=asked["filter"])["rows"] if "filter" in asked else []
    assert not rows or rows[0]["calls"] == len(spans)


def test_every_dimension_is_a_described_parameter_of_calls(client):
    described = get(client, "openapi.json")["paths"]["/api/v1/calls"]["get"]["parameters"]
    by_name = {one["name"]: one for one in described}
    assert len(by_name) == len(described)
    assert set(ASKABLE) | {"filter", "trace_id", "include", "order", "limit", "cursor"} <= by_name.keys()
    assert all(by_name[name]["description"] for name in ASKABLE)
    for name in ASKABLE:
        value = "true" if name == "streaming" else "x"
        assert client.get("/api/v1/calls", params={name: value, "limit": 1}).status_code == 200, name
