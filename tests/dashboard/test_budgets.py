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
