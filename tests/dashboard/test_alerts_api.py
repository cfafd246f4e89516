"""Alerts and their rules as people handle them: over HTTP, with the keys that may, and from the command line."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from millicent.collector import jobs
from millicent.warehouse import alert_rules, alerts, budgets, endpoints, outbox
from millicent.warehouse.alerts import Alert
from millicent.warehouse.budgets import Budget
from millicent.warehouse.control import DECLARED, DEFAULT_TENANT
from millicent.warehouse.outbox import Outcome
from millicent.warehouse.store import Warehouse

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RULE = {"name": "Dear tokens", "kind": "unit_cost", "threshold": "12.50", "filters": ["team:search"]}


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse.embedded(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def fires(warehouse, operator):
    """Has alerts of one rule fire, a minute apart."""
    rule = operator.post("/api/v1/alerts/rules", json=RULE).json()

    def fire(number: int, **told) -> Alert:
        at = NOW + timedelta(minutes=number)
        alert = Alert(
            id=f"al_{number:032x}", rule=rule["id"], budget=told.pop("budget", None), scope=f"scope-{number}",
            period_start=NOW, period_end=NOW + timedelta(days=1), dedup_key=f"k{number}", state="firing",
            severity="warning", late=False, told=True, opened_at=at, changed_at=at, summary=f"Number {number} crossed",
            data={"summary": f"Number {number} crossed", "driver": "More calls of claude", "status": "firing"},
        )  # fmt: skip
        with warehouse.control.begin() as connection:
            alerts.fire(connection, DEFAULT_TENANT, alert, "unit_cost", ())
        return alert

    return fire


def test_the_inbox_is_told_page_by_page_the_newest_first(operator, fires):
    for number in range(5):
        fires(number, budget=number % 2)
    first = operator.get("/api/v1/alerts", params={"limit": 3}).json()
    assert [one["summary"] for one in first["alerts"]] == [f"Number {number} crossed" for number in (4, 3, 2)]
    assert first["open"] == 5
    rest = operator.get("/api/v1/alerts", params={"limit": 3, "cursor": first["next"]}).json()
    assert [one["summary"] for one in rest["alerts"]] == ["Number 1 crossed", "Number 0 crossed"]
    assert rest["next"] is None
    odd = operator.get("/api/v1/alerts", params={"budget": 1}).json()["alerts"]
    assert {one["budget"] for one in odd} == {1}
    assert operator.get("/api/v1/alerts", params={"rule": 99}).json()["alerts"] == []
    assert first["alerts"][0]["opened_at"] == "2026-11-20T12:04:00Z"


def test_an_alert_is_acknowledged_put_off_and_resolved_and_its_life_is_kept(operator, fires, warehouse):
    alert = fires(1).id
    seen = operator.post(f"/api/v1/alerts/{alert}/acknowledge").json()
    assert seen["state"] == "acknowledged"
    assert seen["acknowledged_by"].startswith("key ")
    later = operator.post(f"/api/v1/alerts/{alert}/snooze", json={"hours": 2}).json()
    assert later["snoozed_until"] > datetime.now(UTC).isoformat()
    assert operator.get("/api/v1/alerts", params={"awake": True}).json()["alerts"] == []
    assert len(operator.get("/api/v1/alerts").json()["alerts"]) == 1
    assert operator.post(f"/api/v1/alerts/{alert}/snooze", json={}).status_code == 200
    assert len(operator.get("/api/v1/alerts", params={"awake": True}).json()["alerts"]) == 1
    over = operator.post(f"/api/v1/alerts/{alert}/resolve").json()
    assert (over["state"], over["reason"]) == ("resolved", "person")
    assert operator.get("/api/v1/alerts", params={"state": ["firing", "acknowledged"]}).json()["alerts"] == []
    assert operator.post(f"/api/v1/alerts/{alert}/resolve").status_code == 400
    told = operator.get(f"/api/v1/alerts/{alert}").json()
    assert told["rule"]["name"] == "Dear tokens"
    assert {one["what"] for one in told["happenings"]} >= {"fired", "acknowledge", "snooze", "cleared"}
    assert told["happenings"][0]["event"].startswith("evt_")


def test_who_was_told_of_an_alert_is_told_with_every_attempt(operator, fires, warehouse):
    control = warehouse.control
    place = endpoints.put(control, DEFAULT_TENANT, "Ops", "webhook", "https://hooks.example.com/", "test").endpoint
    alert = fires(1).id
    taken = outbox.take(control, place.id, NOW + timedelta(hours=1))
    outbox.attempted(control, taken, Outcome(status=500, answer="no"), NOW + timedelta(hours=1))
    (sent,) = operator.get(f"/api/v1/alerts/{alert}").json()["deliveries"]
    assert (sent["endpoint_name"], sent["state"]) == ("Ops", "pending")
    assert [(one["status"], one["answer"]) for one in sent["attempts"]] == [(500, "no")]


def test_what_is_told_leads_to_the_page_at_the_address_that_is_set(warehouse_of):
    now = datetime.now(UTC)
    call = {"started_at": now - timedelta(hours=1), "span_id": 1, "team": "Search", "billed_cost_usd": Decimal(3)}
    kept = warehouse_of(call)
    week = Budget(name="All", amount=Decimal(1), period="rolling", rolling_days=7, effective_from=now)
    budgets.put(kept.control, DEFAULT_TENANT, week, "test")
    (job,) = jobs.alerts("https://costs.example.com")
    job.run(kept, now)
    fired, _ = alerts.inbox(kept.control, DEFAULT_TENANT)
    assert "actual" in {one.data["threshold"]["basis"] for one in fired}
    for one in fired:
        assert one.data["links"]["dashboard"].startswith("https://costs.example.com/alerts?open=")


def test_a_rule_is_set_changed_muted_and_ended(operator):
    made = operator.post("/api/v1/alerts/rules", json=RULE)
    assert made.status_code == 201
    assert (made.json()["filters"], made.json()["threshold"], made.json()["severity"]) == (
        ["team:search"], "12.50", "warning",
    )  # fmt: skip
    rule = made.json()["id"]
    muted = operator.post(f"/api/v1/alerts/rules/{rule}/mute", json={"until": "2036-01-01T00:00:00+01:00"}).json()
    assert muted["muted_until"] == "2035-12-31T23:00:00Z"
    dearer = operator.post("/api/v1/alerts/rules", json={**RULE, "threshold": "1,200%", "severity": "critical"}).json()
    assert (dearer["id"], dearer["threshold"], dearer["severity"]) == (rule, "12", "critical")
    assert dearer["muted_until"] == muted["muted_until"], "another threshold does not make it talk again"
    renamed = operator.post("/api/v1/alerts/rules", json={**RULE, "id": rule, "name": "Dearer"}).json()
    assert (renamed["id"], renamed["name"]) == (rule, "Dearer")
    assert operator.post(f"/api/v1/alerts/rules/{rule}/mute", json={}).json()["muted_until"] is None
    assert [one["id"] for one in operator.get("/api/v1/alerts/rules").json()["rules"]] == [rule]
    assert operator.delete(f"/api/v1/alerts/rules/{rule}").json()["ended"]
    assert operator.get("/api/v1/alerts/rules").json()["rules"] == []
    assert operator.get(f"/api/v1/alerts/rules/{rule}").json()["ended"]
    assert operator.delete(f"/api/v1/alerts/rules/{rule}").status_code == 400


def test_a_budget_brings_rules_that_are_listed_by_it(operator):
    budget = operator.post("/api/v1/budgets", json={"name": "All", "amount": "500"}).json()["id"]
    operator.post("/api/v1/alerts/rules", json=RULE)
    found = operator.get("/api/v1/alerts/rules", params={"budget": budget}).json()["rules"]
    assert [one["threshold"] for one in found if one["kind"] == "actual"] == ["0.5", "0.8", "1", "1.2"]
    assert {one["budget"] for one in found} == {budget}


def test_a_rule_names_its_endpoints_by_name_or_id_and_none_that_is_not_there(operator, warehouse):
    place = endpoints.put(
        warehouse.control, DEFAULT_TENANT, "Ops", "webhook", "https://a.example.com/", "test"
    ).endpoint
    told = operator.post("/api/v1/alerts/rules", json={**RULE, "endpoints": ["Ops", place.id]}).json()
    assert told["endpoints"] == [place.id]
    wrong = operator.post("/api/v1/alerts/rules", json={**RULE, "endpoints": ["Nobody"]})
    assert (wrong.status_code, "no endpoint 'Nobody'" in wrong.json()["detail"]) == (400, True)


def test_what_the_file_declares_is_left_to_it(operator, warehouse):
    rule = alert_rules.Rule(name="Declared", kind="unpriced", threshold=alert_rules.number("1%"))
    made = alert_rules.put(warehouse.control, DEFAULT_TENANT, rule, DECLARED)
    answer = operator.delete(f"/api/v1/alerts/rules/{made.id}")
    assert (answer.status_code, "millicent.toml" in answer.json()["detail"]) == (400, True)


def test_whoever_only_reads_changes_nothing(client, operator, fires):
    reader, alert = client("read"), fires(1).id
    for path in (f"{alert}/acknowledge", f"{alert}/resolve", f"{alert}/snooze", "rules/1/mute", "rules"):
        assert reader.post(f"/api/v1/alerts/{path}", json={}).status_code == 403, path
    assert reader.delete("/api/v1/alerts/rules/1").status_code == 403
    (found,) = reader.get("/api/v1/alerts").json()["alerts"]
    assert found["state"] == "firing"
    assert len(reader.get("/api/v1/alerts/rules").json()["rules"]) == 1


WRONG = [
    ("rules", {"name": "x"}, "kind is missing"),
    ("rules", {**RULE, "kind": "vibes"}, "kind 'vibes' is unknown"),
    ("rules", {**RULE, "threshold": "much"}, "'much' is no number"),
    ("rules", {**RULE, "threshold": "0"}, "is not above 0"),
    ("rules", {**RULE, "colour": "red"}, "field 'colour' is unknown"),
    ("rules", {**RULE, "filters": ["team"]}, "not `dimension:value`"),
    ("rules", {**RULE, "kind": "actual"}, "is about a budget"),
    ("rules", {**RULE, "id": 9}, "no rule 9"),
    ("rules/1/mute", {"for": 3}, "field 'for' is unknown"),
    ("rules/1/mute", {"hours": 0}, "hours '0'"),
    ("rules/1/mute", {"hours": True}, "hours 'True'"),
    ("rules/1/mute", {"until": "soon"}, "'soon' is not an instant"),
    ("rules/1/mute", {"until": 7}, "until '7' is no instant"),
    ("rules/1/mute", {"until": "2036-01-01T00:00:00"}, "time zone"),
    ("rules/1/mute", {"until": "2036-01-01", "hours": 3}, "one of the two"),
    ("{alert}/snooze", {"hours": 24 * 40}, "31 days"),
]


def test_what_cannot_be_is_refused_in_words(operator, fires):
    alert = fires(1).id
    for path, told, words in WRONG:
        answer = operator.post(f"/api/v1/alerts/{path.format(alert=alert)}", json=told)
        assert (answer.status_code, words in answer.json()["detail"]) == (400, True), answer.json()


def test_what_is_not_there_is_not_found(operator):
    for path in ("al_0/acknowledge", "al_0/resolve", "al_0/snooze", "rules/7/mute"):
        assert operator.post(f"/api/v1/alerts/{path}", json={}).status_code == 404, path
    assert operator.get("/api/v1/alerts/al_0").status_code == 404
    assert operator.get("/api/v1/alerts/rules/7").status_code == 404
    assert operator.get("/api/v1/alerts", params={"cursor": "?"}).status_code == 400
    assert operator.get("/api/v1/alerts", params={"state": "sad"}).status_code == 400


def test_the_command_line_handles_alerts(run, fires):
    alert = fires(1).id
    assert "Number 1 crossed" in run("alerts", "list").stdout.replace("\n", " ")
    assert json.loads(run("alerts", "acknowledge", alert, "--json").stdout)["state"] == "acknowledged"
    shown = run("alerts", "show", alert).stdout
    assert "More calls of claude" in shown
    assert "acknowledge" in shown
    run("alerts", "snooze", alert, "--hours", "2")
    assert "nothing found" in run("alerts", "list").stdout
    assert json.loads(run("alerts", "list", "--all", "--json").stdout)["alerts"][0]["id"] == alert
    assert json.loads(run("alerts", "resolve", alert, "--json").stdout)["reason"] == "person"
    assert "no alert" in run("alerts", "show", "al_0").stderr


def test_the_command_line_handles_rules(run):
    made = run("alerts", "rules", "set", "Unknown costs", "unpriced", "2%", "--severity", "error", "--json")
    assert json.loads(made.stdout)["threshold"] == "0.02"
    assert "Unknown costs" in run("alerts", "rules", "list").stdout
    muted = json.loads(run("alerts", "rules", "mute", "1", "--until", "2036-01-01T00:00:00", "--json").stdout)
    assert muted["muted_until"] == "2036-01-01T00:00:00Z"
    assert "is ended" in run("alerts", "rules", "end", "1").stdout
    assert "nothing found" in run("alerts", "rules", "list").stdout
