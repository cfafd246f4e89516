"""Every kind of endpoint is told of an event in its own form, and what is text stays text."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from millicent.collector.webhooks.adapters import outgoing
from millicent.collector.webhooks.notices import notice
from millicent.warehouse.endpoint_forms import PAGERDUTY, Destination
from millicent.warehouse.outbox import Event

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SECRET = "whsec_" + "QUFB" * 8
ADDRESS = "https://hooks.example.com/in"
CROSSED = {
    "alert_id": "al_" + "0" * 32,
    "dedup_key": "budget:7|3|2026-11-01",
    "severity": "error",
    "status": "firing",
    "summary": "Search has spent 101% of its budget for November",
    "driver": "claude-x rose by €5,000, against 1 Oct to 20 Oct.",
    "opened_at": "2026-11-20T11:59:00Z",
    "budget": {"id": 7, "name": "Search & <b>rank</b>", "version": 2, "scope": ["team:search"], "owner": "Ann"},
    "rule": {"id": 3, "name": "Search: 100% spent"},
    "scope": "budget:7",
    "period": {"start": "2026-11-01T00:00:00+01:00", "end": "2026-12-01T00:00:00+01:00", "timezone": "Europe/Berlin"},
    "currency": "EUR",
    "limit": "27500.00",
    "actual": "27775.5",
    "forecast": {"p10": "30000", "p50": "41234.5", "p90": "50000", "method": "…"},
    "threshold": {"basis": "actual", "ratio": "1"},
    "run_out_date": "2026-11-20",
    "top_drivers": [
        {"dimension": "model", "value": "claude-x", "delta_amount": "5000", "delta_ratio": "0.5", "reason": "volume"},
        {"dimension": "model", "value": "gpt-y", "delta_amount": "-12.5", "delta_ratio": "-0.1", "reason": None},
    ],
    "incomplete": [],
    "data_complete_through": "2026-11-20T11:00:00Z",
    "links": {"dashboard": "https://millicent.example.com/alerts?open=al_0", "ack": "https://millicent.example.com/x"},
}


def event(type_="budget.threshold.crossed", data=CROSSED, at=NOW) -> Event:
    body = json.dumps({"type": type_, "timestamp": at.isoformat(), "data": data})
    return Event(id="evt_" + "a" * 32, tenant="default", type=type_, occurred_at=at, alert=None, body=body)


CLEARED = event("budget.threshold.cleared", {**CROSSED, "status": "resolved", "reason": "repriced"},
                NOW + timedelta(hours=1))  # fmt: skip


def sent(kind, told=None, secret=None, address=ADDRESS):
    to = Destination(kind, address, (secret,) if secret else ())
    request = outgoing(to, told or event(), NOW)
    assert (request.method, request.url) == ("POST", address)
    return request, json.loads(request.body)


def test_a_webhook_gets_the_very_bytes_signed():
    told = event(at=datetime.now(UTC))
    request = outgoing(Destination("webhook", ADDRESS, (SECRET,)), told, datetime.now(UTC))
    assert request.body == told.body.encode()
    assert Webhook(SECRET).verify(request.body.decode(), dict(request.headers))["data"] == CROSSED


def test_slack_gets_blocks_a_button_and_a_plain_text():
    _, body = sent("slack")
    assert body["text"] == "Error: Search has spent 101% of its budget for November"
    header, summary, facts, moved, button = body["blocks"]
    assert header["text"] == {"type": "plain_text", "emoji": False, "text": "Error"}
    assert summary["text"]["text"] == f"{CROSSED['summary']}\n{CROSSED['driver']}"
    texts = [field["text"] for field in facts["fields"]]
    assert "*Budget*\nSearch &amp; &lt;b&gt;rank&lt;/b&gt;" in texts
    assert "*Limit*\n27,500.00 EUR" in texts
    assert "*Spent*\n27,775.50 EUR" in texts
    assert "*Period*\n2026-11-01 to before 2026-12-01 Europe/Berlin" in texts
    assert "• model claude-x +5,000.00 EUR (volume)\n• model gpt-y -12.50 EUR" in moved["text"]["text"]
    assert button["elements"][0]["url"] == CROSSED["links"]["dashboard"]
    _, over = sent("slack", CLEARED)
    assert over["text"].startswith("Over: ")
    assert (
        "*Why it is over*\ncalls were priced again" in json.loads(json.dumps(over))["blocks"][2]["fields"][-2]["text"]
    )


def test_teams_gets_an_adaptive_card_in_a_message():
    _, body = sent("teams")
    assert body["type"] == "message"
    (attached,) = body["attachments"]
    assert attached["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attached["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}, "text blocks would read Markdown"
    assert [block["inlines"][0]["text"] for block in card["body"][1:3]] == [CROSSED["summary"], CROSSED["driver"]]
    assert card["body"][0]["inlines"][0]["color"] == "attention"
    assert card["actions"][0] == {"type": "Action.OpenUrl", "title": "Look at it", "url": CROSSED["links"]["dashboard"]}
    _, over = sent("teams", CLEARED)
    assert over["attachments"][0]["content"]["body"][0]["inlines"][0]["color"] == "good"


def test_pagerduty_triggers_and_resolves_under_one_key():
    key = "0123456789abcdef" * 2
    _, body = sent("pagerduty", secret=key, address=PAGERDUTY)
    assert (body["routing_key"], body["event_action"], body["dedup_key"]) == (key, "trigger", CROSSED["dedup_key"])
    payload = body["payload"]
    assert (payload["summary"], payload["severity"]) == (CROSSED["summary"], "error")
    assert payload["timestamp"] == "2026-11-20T12:00:00Z"
    assert payload["custom_details"]["Limit"] == "27,500.00 EUR"
    assert body["links"][0]["href"] == CROSSED["links"]["dashboard"]
    _, over = sent("pagerduty", CLEARED, secret=key, address=PAGERDUTY)
    assert over == {"routing_key": key, "event_action": "resolve", "dedup_key": CROSSED["dedup_key"]}
    seen_to = event(data={**CROSSED, "status": "acknowledged"})
    _, acknowledged = sent("pagerduty", seen_to, secret=key, address=PAGERDUTY)
    assert acknowledged["event_action"] == "acknowledge"


def test_a_key_that_is_too_long_for_pagerduty_is_the_same_short_one_each_time():
    data = {**CROSSED, "dedup_key": "x" * 300}
    keys = {
        sent("pagerduty", event(type_, data), secret="k" * 32)[1]["dedup_key"]
        for type_ in ("budget.threshold.crossed", "budget.threshold.cleared")
    }
    assert len(keys) == 1
    assert len(keys.pop()) <= 255


def test_a_receiver_of_alertmanager_gets_version_four():
    request, body = sent("alertmanager", secret="token")
    assert request.headers["authorization"] == "Bearer token"
    assert (body["version"], body["status"], body["truncatedAlerts"]) == ("4", "firing", 0)
    (alert,) = body["alerts"]
    assert alert["labels"] == body["commonLabels"]
    assert alert["labels"]["alertname"] == "MillicentBudgetThreshold"
    assert alert["labels"]["owner"] == "Ann"
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-11-20T11:59:00Z", "0001-01-01T00:00:00Z")
    assert alert["annotations"]["summary"] == CROSSED["summary"]
    assert alert["annotations"]["description"] == CROSSED["driver"]
    _, over = sent("alertmanager", CLEARED)
    assert over["status"] == over["alerts"][0]["status"] == "resolved"
    assert over["alerts"][0]["endsAt"] == "2026-11-20T13:00:00Z"
    for name in ("fingerprint", "labels", "startsAt"):
        assert over["alerts"][0][name] == alert[name]
    assert over["groupKey"] == body["groupKey"]


def test_alertmanager_itself_holds_an_alert_until_its_period_is_over_and_ends_the_same_one():
    address = "https://alertmanager.example.com/api/v2/alerts"
    _, (alert,) = sent("alertmanager", address=address)
    assert alert["endsAt"] == "2026-11-30T23:00:00Z"
    _, (over,) = sent("alertmanager", CLEARED, address=address)
    assert over["labels"] == alert["labels"]
    assert over["endsAt"] == "2026-11-20T13:00:00Z"


@pytest.mark.parametrize("kind", ["slack", "teams", "pagerduty", "alertmanager"])
@pytest.mark.parametrize(
    "told",
    [
        event("endpoint.test", {}),
        event("endpoint.failed", {"endpoint": "ep_1", "reason": "410"}),
        event("something.new", {"top_drivers": "?", "budget": [], "period": 3, "limit": {}, "links": []}),
    ],
    ids=["test", "failed", "new"],
)
def test_an_event_with_little_in_it_is_told_all_the_same(kind, told):
    _, body = sent(kind, told, secret="s" * 32)
    assert body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["<!channel>", "<@U1>", "a\nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LONG = st.text(max_size=40).map(lambda text: text * 100)


@given(
    st.dictionaries(
        st.sampled_from([*CROSSED, "reason", "late"]), JSON | LONG | st.just({"name": "<!here>\r\n*x*"}), max_size=8
    )
)
def test_whatever_an_event_holds_it_is_told_within_limits_and_as_text(data):
    told = event(data={**CROSSED, **data})
    found = notice(told)
    for text in (found.summary, found.key, *found.labels.values(), *found.drivers, *(said for _, said in found.facts)):
        assert text.isprintable()
    assert found.link is None or found.link.startswith("https://")
    for kind in ("slack", "teams", "pagerduty", "alertmanager"):
        request, body = sent(kind, told, secret="s" * 32)
        assert len(request.body) < 26_000
        if kind == "slack":
            for block in body["blocks"]:
                for part in [block.get("text"), *block.get("fields", [])]:
                    assert not part or (len(part["text"]) <= 3000 and "<" not in part["text"])
            assert "<" not in body["text"]
            assert len(body["blocks"][0]["text"]["text"]) <= 150
        if kind == "pagerduty":
            assert 0 < len(body["dedup_key"]) <= 255
            assert body.get("payload") is None or 0 < len(body["payload"]["summary"]) <= 1024


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        ({"basis": "actual", "ratio": "0.8"}, "80%"),
        ({"basis": "burn_rate", "multiple": "3"}, "3×"),
        ({"basis": "unit_cost", "amount": "12.5"}, "12.50 EUR"),
    ],
)
def test_a_threshold_is_told_in_what_it_is_of(threshold, words):
    assert dict(notice(event(data={**CROSSED, "threshold": threshold})).facts)["Threshold"] == words


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "https://x\nevil", 7, "/alerts"])
def test_what_is_no_address_is_no_link(link):
    assert notice(event(data={**CROSSED, "links": {"dashboard": link}})).link is None
