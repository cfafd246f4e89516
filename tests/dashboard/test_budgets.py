"""Budgets as people handle them: over HTTP, with the keys that may, and from the command line."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
TEAM = {"name": "Search", "amount": "50", "filters": ["team:Search"], "owner": "Ann", "effective_from": "2026-01-01"}


@pytest.fixture
def warehouse(warehouse_of):
    """Three USD a day of Search and one of Ads, for forty days."""
    return warehouse_of(
        *(
            {
                "started_at": NOW - timedelta(days=n),
                "span_id": 2 * n + at,
                "team": team,
                "billed_cost_usd": Decimal(usd),
            }
            for n in range(40)
            for at, (team, usd) in enumerate((("Search", 3), ("Ads", 1)))
        )
    )


def since_start(days: int) -> str:
    return (NOW - timedelta(days=days)).isoformat()


def test_a_budget_is_set_and_stands(operator):
    told = {**TEAM, "effective_from": since_start(40)}
    made = operator.post("/api/v1/budgets", json=told)
    assert made.status_code == 201
    assert made.json()["id"] == made.json()["version"] == 1
    (found,) = operator.get("/api/v1/budgets").json()["budgets"]
    stands = found["standing"]
    days = NOW.day
    assert found["filters"] == ["team:Search"]
    assert (stands["actual"], stands["limit"]) == (str(3 * days), "50")
    assert Decimal(stands["forecast"]["p50"]) == 3 * (days + len(stands["forecast"]["days"]) - 1)
    assert stands["state"] in {"over", "will_be_over"}
    assert stands["spent"][-1] == {"day": NOW.date().isoformat(), "amount": str(3 * days)}
    assert stands["incomplete"] == []


def test_versions_are_told_and_an_ended_budget_too(operator):
    operator.post("/api/v1/budgets", json={**TEAM, "effective_from": since_start(3)})
    operator.post("/api/v1/budgets", json={**TEAM, "amount": "70", "effective_from": since_start(1)})
    assert operator.get("/api/v1/budgets/1").json()["budget"]["amount"] == "70"
    before = operator.get("/api/v1/budgets/1", params={"at": since_start(2)}).json()
    assert before["budget"]["amount"] == "50"
    assert [one["amount"] for one in before["versions"]] == ["50", "70"]
    assert operator.delete("/api/v1/budgets/1").json()["ended"]
    gone = operator.get("/api/v1/budgets/1").json()
    assert (gone["budget"], len(gone["versions"])) == (None, 3)
    assert operator.get("/api/v1/budgets").json()["budgets"] == []
    assert operator.delete("/api/v1/budgets/1").status_code == 400


def test_whoever_only_reads_changes_nothing(client, operator):
    reader = client("read")
    assert reader.post("/api/v1/budgets", json=TEAM).status_code == 403
    operator.post("/api/v1/budgets", json=TEAM)
    assert reader.delete("/api/v1/budgets/1").status_code == 403
    assert len(reader.get("/api/v1/budgets").json()["budgets"]) == 1


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": "x"}, "amount is missing"),
        ({**TEAM, "amount": "a lot"}, "'a lot' is no number"),
        ({**TEAM, "colour": "red"}, "field 'colour' is unknown"),
        ({**TEAM, "filters": "team:a"}, "filters are not a list"),
        ({**TEAM, "filters": ["team"]}, "not `dimension:value`"),
        ({**TEAM, "fiscal_month": "1"}, "fiscal_month '1' is not a whole number"),
        ({**TEAM, "parent": True}, "parent 'True' is not a whole number"),
        ({**TEAM, "effective_from": "soon"}, "'soon' is not an instant"),
        ({**TEAM, "effective_from": "2026-01-01T00:00"}, "has no time zone"),
        ({**TEAM, "id": 9}, "there is no budget 9"),
    ],
)
def test_what_cannot_be_is_refused_in_words(operator, told, words):
    answer = operator.post("/api/v1/budgets", json=told)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_there_is_no_such_budget(operator):
    assert operator.get("/api/v1/budgets/7").status_code == operator.delete("/api/v1/budgets/7").status_code == 404
    assert operator.get("/api/v1/budgets", params={"at": "2026-01-01T00:00"}).status_code == 400


def test_the_command_line_sets_lists_shows_and_ends(run):
    made = run("budgets", "set", "Search", "50", "--filter", "team:Search", "--owner", "Ann", "--json")
    assert json.loads(made.stdout)["filters"] == [{"dimension": "team", "values": ["Search"], "negated": False}]
    assert "team:Search" in run("budgets", "list").stdout
    shown = run("budgets", "show", "1").stdout
    assert "Ann" in shown
    assert "50.00 USD" in shown
    assert "is ended" in run("budgets", "end", "1").stdout
    assert "nothing found" in run("budgets", "list").stdout
    assert "no budget 4" in run("budgets", "show", "4").stderr


# ---- what cannot be told, what is part of what, suggestions and trials


def test_one_that_cannot_be_told_keeps_no_other_from_it(operator):
    operator.post("/api/v1/budgets", json={"name": "All", "amount": "500"})
    operator.post("/api/v1/budgets", json={"name": "Kroner", "amount": "500", "currency": "DKK"})
    answer = operator.get("/api/v1/budgets")
    assert answer.status_code == 200
    stands = {one["name"]: one["standing"] for one in answer.json()["budgets"]}
    assert stands["All"]["failure"] is None
    assert Decimal(stands["All"]["actual"]) > 0
    assert "no exchange rate of DKK" in stands["Kroner"]["failure"]
    assert stands["Kroner"]["actual"] is stands["Kroner"]["state"] is None
    assert operator.get("/api/v1/budgets/2").json()["budget"]["standing"]["failure"] == stands["Kroner"]["failure"]


def test_the_parts_of_a_budget_are_added_up(operator):
    for told in (
        {"name": "All", "amount": "100"},
        {"name": "Search", "amount": "70", "filters": ["team:Search"], "parent": 1},
        {"name": "Ads", "amount": "40", "filters": ["team:Ads"], "parent": 1},
        {"name": "Ads a day", "amount": "2", "filters": ["team:Ads"], "parent": 1, "period": "day"},
        {"name": "A model of Search", "amount": "5", "filters": ["model:x"], "parent": 2},
    ):
        assert operator.post("/api/v1/budgets", json=told).status_code == 201
    parts = {one["name"]: one["parts"] for one in operator.get("/api/v1/budgets").json()["budgets"]}
    assert parts["All"] == {"budgets": [2, 3, 4], "apart": [4], "outside": [], "amount": "110", "exceeds": True}
    assert parts["Search"] == {"budgets": [5], "apart": [], "outside": [5], "amount": "5", "exceeds": False}
    assert operator.get("/api/v1/budgets/1").json()["budget"]["parts"] == parts["All"]


def test_a_rolling_budget_that_blocks_is_told_as_it_was_set(operator):
    told = {"name": "Search", "amount": "90", "filters": ["team:Search"], "period": "rolling", "rolling_days": 30,
            "enforcement": "block"}  # fmt: skip
    made = operator.post("/api/v1/budgets", json=told).json()
    assert (made["period"], made["rolling_days"], made["enforcement"], made["rollover"]) == (
        "rolling", 30, "block", "none",
    )  # fmt: skip
    stands = operator.get("/api/v1/budgets/1").json()["budget"]["standing"]
    assert (stands["actual"], stands["state"]) == ("90", "over")
    assert len(stands["spent"]) == 30
    assert stands["run_out_date"] == NOW.date().isoformat()


def test_an_amount_is_suggested_from_what_was_spent(client):
    answer = client("read").post(
        "/api/v1/budgets/suggest", json={"budget": {"filters": ["team:Search"], "period": "week"}, "more": "0.2"}
    )
    assert answer.status_code == 200
    told = answer.json()
    assert told["amount"] == "25.5"  # 21 a week and a fifth of it, rounded up
    assert {one["actual"] for one in told["history"]} == {"21"}
    assert "20% more" in told["method"]
    nothing = client("read").post("/api/v1/budgets/suggest", json={"budget": {"filters": ["team:Nobody"]}}).json()
    assert nothing["amount"] is None


def test_a_budget_is_tried_on_the_past(client):
    told = {"budget": {"filters": ["team:Search"], "period": "week", "amount": "18"},
            "rules": [{"kind": "actual", "threshold": "50%"}, {"kind": "actual", "threshold": "1"}]}  # fmt: skip
    answer = client("read").post("/api/v1/budgets/simulate", json=told).json()
    (*whole, present) = answer["periods"][1:]
    assert not present["over"]
    assert {one["actual"] for one in whole} == {"21"}
    for one in whole:
        monday = datetime.fromisoformat(one["start"]).date()
        days = [(fired["threshold"], fired["day"]) for fired in one["fired"]]
        assert days == [("0.5", str(monday + timedelta(days=2))), ("1", str(monday + timedelta(days=5)))]
        assert one["run_out_date"] == days[1][1]
    assert answer["exceeded"] >= len(whole)
    assert client("read").get("/api/v1/budgets").json()["budgets"] == []


def test_past_periods_are_told_by_the_version_that_held(operator, run):
    told = {**TEAM, "period": "day", "amount": "2", "rollover": "balance", "effective_from": since_start(10)}
    operator.post("/api/v1/budgets", json=told)
    operator.post("/api/v1/budgets", json={**told, "amount": "4", "effective_from": since_start(5)})
    until = (NOW - timedelta(days=2) + timedelta(minutes=1)).isoformat()
    answer = operator.get("/api/v1/budgets/1/periods", params={"since": since_start(9), "until": until})
    first, *_, last = periods = answer.json()["periods"]
    assert [one["version"] for one in periods] == [1] * 4 + [2] * 4
    assert {one["actual"] for one in periods} == {"3"}
    assert (first["carried"], first["limit"], first["incomplete"]) == ("-1", "1", [])
    assert last["carried"] == str(-5 + 3)
    assert operator.get("/api/v1/budgets/7/periods").status_code == 404
    assert operator.get("/api/v1/budgets/1/periods", params={"since": "2009-01-01"}).status_code == 400
    assert "3.00 USD" in run("budgets", "periods", "1").stdout
    assert json.loads(run("budgets", "periods", "1", "--json").stdout)["periods"]


@pytest.mark.parametrize(
    ("path", "told", "words"),
    [
        ("suggest", {"more": "-1"}, "more -1 is not 0 to 10"),
        ("suggest", {"budget": "all"}, "budget is no object"),
        ("suggest", {"percent": "1"}, "field 'percent' is unknown"),
        ("suggest", {"at": 5}, "at '5' is not text"),
        ("suggest", {"budget": {"period": "rolling"}}, "rolling_days None is not 1 to 366"),
        ("simulate", {}, "amount is missing"),
        ("simulate", {"budget": {"amount": "5"}, "rules": {}}, "rules are no list"),
        ("simulate", {"budget": {"amount": "5"}, "rules": [{"kind": "freshness"}]}, "'freshness' cannot be tried"),
        ("simulate", {"budget": {"amount": "5"}, "rules": [{"kind": "actual", "threshold": "x"}]}, "'x' is no number"),
        ("simulate", {"budget": {"amount": "5"}, "rules": [{"kind": "actual", "threshold": "0"}]}, "is not above 0"),
        ("simulate", {"budget": {"amount": "5"}, "since": "2024-01-01T00:00Z"}, "is not 1 to 400 days"),
        ("simulate", {"budget": {"amount": "5"}, "since": "2024-01-01T00:00"}, "has no time zone"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_words(operator, path, told, words):
    answer = operator.post(f"/api/v1/budgets/{path}", json=told)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_the_command_line_suggests_and_tries(run):
    scope = ("--filter", "team:Search", "--period", "week")
    assert "23.50 USD" in run("budgets", "suggest", *scope).stdout
    tried = run("budgets", "simulate", "20", *scope, "--rule", "actual:80%")
    assert "actual 80%" in tried.stdout
    assert "so far" in tried.stdout
    assert json.loads(run("budgets", "simulate", "20", *scope, "--json").stdout)["currency"] == "USD"
    run("budgets", "set", "Kroner", "50", "--currency", "DKK")
    run("budgets", "set", "Rolling", "50", "--period", "rolling", "--days", "7", "--enforcement", "warn")
    listed = run("budgets", "list").stdout
    assert "cannot be told" in listed
    assert "last 7 days" in listed
