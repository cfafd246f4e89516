"""Attribution rules as people handle them: over HTTP, with the keys that may, and from the command line."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from starlette.testclient import TestClient

from millicent.collector.loader import Loader
from millicent.collector.spool import SpoolReader
from millicent.dashboard import serve
from millicent.warehouse import ledger
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.store import Warehouse

RULE = {"when": [{"field": "service", "is": ["checkout"]}], "sets": {"team": "Payments"}, "note": "finance asked"}
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
OUTCOMES = pl.DataFrame(schema={"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String,
                                "reason": pl.String, "spans": pl.Int64})  # fmt: skip


def call(n: int, **told) -> dict:
    at = NOW - timedelta(hours=7 * n)
    return {
        **dict.fromkeys(EMPTY.columns), "tenant": "default", "trace_id": n.to_bytes(16), "span_id": n,
        "received_at": at, "started_at": at, "service": "checkout", "billing": "api", "status": "ok", "signal": "span",
        "call_count": 1, "dialect": "millicent", "usage_source": "reported", "counted": True, "price_status": "priced",
        "input_tokens": 100, "output_tokens": 10, "billed_cost_usd": Decimal("0.25"), **told,
    }  # fmt: skip


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data")
    rows = [call(1), call(2), call(9), call(3, team="Search", tag_sources=None), call(4, service="other")]
    ledger.commit(opened.engine, ledger.Batch(pl.DataFrame(rows, schema=EMPTY.schema), OUTCOMES, EMPTY), "otlp", (0, 1))
    yield opened
    opened.close()


@pytest.fixture
def loader(warehouse, tmp_path):
    return Loader(warehouse, SpoolReader(tmp_path / "spool"))


@pytest.fixture
def client(warehouse, loader):
    server = serve.application(warehouse, loader.spool, loader, insecure_local=False)

    def of(scope: str) -> TestClient:
        headers = {"authorization": f"Bearer {warehouse.control.create_key(scope, scope)}"}
        return TestClient(server, base_url="http://127.0.0.1:8050", headers=headers)

    return of


PERIOD = {"start": (NOW - timedelta(days=7)).isoformat(), "end": (NOW + timedelta(hours=1)).isoformat()}


# ---- over HTTP


def test_an_operator_adds_looks_applies_and_removes(client):
    operator = client("operator")
    assert operator.get("/api/v1/rules").json() == {"rules": []}
    added = operator.post("/api/v1/rules", json=RULE)
    assert added.status_code == 201
    ((rule,),) = added.json().values()
    assert {name: rule[name] for name in RULE} == RULE
    assert rule["author"].startswith("key ")
    assert operator.get(f"/api/v1/rules/{rule['id']}").json() == rule

    move = {"before": None, "after": "Payments", "calls": 3, "tokens": 330, "spend_usd": "0.750000000000"}
    assert operator.get("/api/v1/rules/changes", params=PERIOD).json() == {"calls": 3, "moves": [move]}
    (reach,) = operator.get("/api/v1/rules/check", params=PERIOD).json()["rules"]
    assert reach == {"id": rule["id"], "position": 1, "holds": 4, "decides": 3}
    assert _teams(operator) == {None: 4, "Search": 1}
    assert operator.post("/api/v1/rules/changes", params=PERIOD).json() == {"calls": 3, "moves": [move]}
    assert _teams(operator) == {"Payments": 3, "Search": 1, None: 1}

    assert operator.delete(f"/api/v1/rules/{rule['id']}").json() == rule
    assert operator.post("/api/v1/rules/changes", params=PERIOD).json()["calls"] == 3
    assert _teams(operator) == {None: 4, "Search": 1}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/rules"), ("DELETE", "/api/v1/rules/1"), ("POST", "/api/v1/rules/changes")],
)
def test_a_reader_sees_rules_and_changes_none(client, method, path):
    client("operator").post("/api/v1/rules", json=RULE)
    reader = client("read")
    refused = reader.request(method, path, json=RULE, params=PERIOD)
    assert refused.status_code == 403
    assert "--scope operator" in refused.json()["detail"]
    assert len(reader.get("/api/v1/rules").json()["rules"]) == 1
    assert reader.get("/api/v1/rules/changes", params=PERIOD).json()["calls"] == 3
    assert client("ingest").request(method, path, json=RULE, params=PERIOD).status_code == 403


def test_a_rule_that_cannot_be_says_why_and_is_not_kept(client):
    operator = client("operator")
    for told, says in [({**RULE, "sets": {"taem": "x"}}, "did you mean 'team'"), ({}, "1 to 20 conditions"),
                       ({**RULE, "when": [{"field": "service", "matches": "("}]}, "unclosed group")]:  # fmt: skip
        refused = operator.post("/api/v1/rules", json=told)
        assert refused.status_code == 400
        assert says in refused.json()["detail"]
    assert operator.post("/api/v1/rules", content=b"{").status_code == 400
    assert operator.post("/api/v1/rules", json=[RULE]).status_code == 400
    assert operator.get("/api/v1/rules").json() == {"rules": []}


@pytest.mark.parametrize("path", ["/api/v1/rules/7", "/api/v1/rules/x", "/api/v1/rules/99999999999999999999"])
def test_a_rule_that_is_not_there_is_told(client, path):
    assert client("operator").get(path).status_code in {400, 404}
    assert client("operator").delete(path).status_code in {400, 404}


@pytest.mark.parametrize("period", [{"start": "2026-01-02", "end": "2026-01-01"}, {"start": "2026-01-01T00:00:00"}, {}])
def test_history_is_not_tagged_over_a_period_that_is_none(client, period):
    assert client("operator").post("/api/v1/rules/changes", params=period).status_code == 400


def test_a_page_of_another_site_adds_no_rule(warehouse, loader):
    open_ = serve.application(warehouse, loader.spool, loader, insecure_local=True)
    anybody = TestClient(open_, base_url="http://127.0.0.1:8050")
    assert anybody.post("/api/v1/rules", json=RULE, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert anybody.post("/api/v1/rules", json=RULE, headers={"sec-fetch-site": "same-origin"}).status_code == 201


# ---- from the command line


@pytest.fixture
def run(run):
    """`millicent rules` against the application on a port of its own."""
    return lambda *words, **more: run("rules", *words, **more)


SINCE = ("--from", (NOW - timedelta(days=7)).strftime("%Y-%m-%d"))


def test_rules_are_added_listed_and_removed(run):
    done = run("add", "--if", "service=checkout,cart", "--if", "attribute:http.route~^/pay=1", "--if", "team=null",
               "--set", "team=Payments", "--set", "feature=cart", "--since", "2026-11-01", "--note", "why")  # fmt: skip
    assert done.exit_code == 0, done.output
    (rule,) = json.loads(run("list", "--json").stdout)["rules"]
    assert rule["when"] == [
        {"field": "service", "is": ["checkout", "cart"]}, {"field": "attribute:http.route", "matches": "^/pay=1"},
        {"field": "team", "absent": True},
    ]  # fmt: skip
    assert (rule["sets"], rule["effective_from"]) == ({"team": "Payments", "feature": "cart"}, "2026-11-01T00:00:00Z")
    assert "service=checkout,cart; attribute:http.route~^/pay=1; team=null" in run("list").stdout
    assert "is removed" in run("remove", "1").stdout
    assert run("list").stdout == "nothing found\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "--if", "service", "--set", "team=x"), "not a condition"),
        (("add", "--if", "=x", "--set", "team=x"), "not a condition"),
        (("add", "--if", "service=x", "--set", "team"), "not tag=value"),
        (("add", "--if", "servcie=x", "--set", "team=x"), "did you mean 'service'"),
        (("remove", "7"), "no rule 7"),
        (("apply", "--from", "2999-01-01"), "swap them"),
    ],
)
def test_what_cannot_be_done_says_so(run, words, says):
    done = run(*words)
    assert done.exit_code == 1
    assert says in done.stderr.replace("\n", " ")


def test_history_is_shown_asked_about_and_tagged(run, warehouse):
    run("add", "--if", "service=checkout", "--set", "team=Payments")
    shown = json.loads(run("apply", *SINCE, "--dry-run", "--json").stdout)
    assert (shown["calls"], shown["moves"][0]["after"], shown["moves"][0]["spend_usd"]) == (
        3,
        "Payments",
        "0.750000000000",
    )
    reach = json.loads(run("check", *SINCE, "--json").stdout)["rules"]
    assert reach == [{"id": 1, "position": 1, "holds": 4, "decides": 3}]
    refused = run("apply", *SINCE, input="n\n")
    assert refused.exit_code == 1
    assert "3 calls change" in refused.stderr
    assert json.loads(run("apply", *SINCE, "--dry-run", "--json").stdout)["calls"] == 3
    done = json.loads(run("apply", *SINCE, "--json", input="y\n").stdout.removeprefix(" y"))
    assert done["calls"] == 3
    assert json.loads(run("apply", *SINCE, "--yes", "--json").stdout) == {"calls": 0, "moves": []}


def _teams(client: TestClient) -> dict:
    rows = client.get("/api/v1/query", params={"measures": "calls", "group_by": "team", "period": "9d"}).json()["rows"]
    return {row["team"]: row["calls"] for row in rows}
