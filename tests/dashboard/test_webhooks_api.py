"""Endpoints and deliveries over HTTP and from the command line, with a real receiver and a real sender."""

import json
import re
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from fake_receiver import Receiver
from prometheus_client.parser import text_string_to_metric_families

from millicent.collector.webhooks.delivering import Deliverer
from millicent.warehouse import endpoints, outbox
from millicent.warehouse.control import DEFAULT_TENANT, tenants
from millicent.warehouse.reach import Reach

CROSSED = "budget.threshold.crossed"
WEBHOOK = {"name": "ops", "address": "https://hooks.example.com/in/s3cr3t"}


@pytest.fixture
def warehouse(priced_calls):
    made = priced_calls()
    made.reach = Reach((ip_network("127.0.0.0/8"),), allow_http=True)
    return made


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def sending(warehouse):
    """The outbox is sent, as in the product."""
    stop = threading.Event()
    sender = Deliverer.reaching(warehouse.control, warehouse.reach)
    sender._idle_s = 0.01
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def emit(warehouse, at=None, **told):
    with warehouse.control.begin() as connection:
        return outbox.emit(connection, DEFAULT_TENANT, CROSSED, at or datetime.now(UTC), {"limit": "100"}, **told)


def post(client, path="", status=201, /, **told):
    answer = client.post(f"/api/v1/webhooks{path}", json=told or None)
    assert answer.status_code == status, answer.text
    return answer.json()


def get(client, path="", status=200, **asked):
    answer = client.get(f"/api/v1/webhooks{path}", params=asked)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_an_endpoint_is_set_shown_without_secrets_changed_and_ended(operator, client):
    made = post(operator, **WEBHOOK, types=[CROSSED])
    assert re.fullmatch(r"ep_[0-9a-f]{16}", made["id"])
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", made["secret"])
    assert (made["kind"], made["shown"], made["types"]) == ("webhook", "https://hooks.example.com/…", [CROSSED])
    told = get(client("read"))
    (one,) = told["endpoints"]
    assert (one["state"], one["pending"], one["dead"], one["last_success_at"]) == ("unused", 0, 0, None)
    assert "s3cr3t" not in json.dumps(told)
    assert "whsec" not in json.dumps(told)
    changed = post(operator, **WEBHOOK)
    assert (changed["id"], changed["secret"], changed["types"]) == (made["id"], None, [])
    rotated = post(operator, f"/{made['id']}/rotate", 200)
    assert rotated["secret"] not in {None, made["secret"]}
    assert post(operator, f"/{made['id']}/disable", 200, reason="on holiday")["reason"] == "on holiday"
    assert get(client("read"))["endpoints"][0]["state"] == "disabled"
    assert post(operator, f"/{made['id']}/enable", 200)["enabled"] is True
    assert operator.delete(f"/api/v1/webhooks/{made['id']}").json()["ended_at"] is not None
    assert get(operator) == {"endpoints": []}
    assert get(operator, f"/{made['id']}/deliveries") == {"deliveries": [], "next": None}


def test_what_is_wrong_is_refused_with_the_remedy(operator, client):
    for told, why in (
        ({"address": "https://example.com"}, "name is missing"),
        ({**WEBHOOK, "colour": "red"}, "field 'colour' is unknown: write name, kind, address"),
        ({**WEBHOOK, "kind": "fax"}, "kind 'fax' is unknown"),
        ({**WEBHOOK, "types": CROSSED}, "types are not a list"),
        ({**WEBHOOK, "types": ["no.such"]}, "type 'no.such' is unknown"),
        ({**WEBHOOK, "secret": 7}, "secret is not text"),
        ({**WEBHOOK, "secret": "hunter2"}, "whsec_"),
        ({**WEBHOOK, "address": "https://10.0.0.1/"}, "webhook_allow"),
        (
            {"name": "pager", "kind": "pagerduty", "address": "https://events.pagerduty.com/v2/enqueue"},
            "needs a secret",
        ),
    ):
        detail = post(operator, "", 400, **told)["detail"]
        assert why in detail
        assert "hunter2" not in detail
    for path in ("/ep_nobody/test", "/ep_nobody/rotate", "/ep_nobody/enable", "/ep_nobody/disable"):
        assert "there is no endpoint" in post(operator, path, 404)["detail"]
    assert post(operator, "/ep_nobody/replay?start=2026-01-01", 404)
    assert post(operator, "/deliveries/7/replay", 404)
    assert operator.delete("/api/v1/webhooks/ep_nobody").status_code == 404
    assert get(operator, "/events/evt_none", 404)
    assert get(operator, "/ep_nobody/deliveries", 404)
    assert "state 'lost' is unknown" in get(operator, "/deliveries", 400, state="lost")["detail"]
    one = post(operator, **WEBHOOK)["id"]
    assert "no time zone" in post(operator, f"/{one}/replay?start=2026-01-01T00:00:00", 400)["detail"]
    assert "not after it begins" in post(operator, f"/{one}/replay?start=2026-01-02&end=2026-01-01", 400)["detail"]
    post(operator, f"/{one}/disable", 200)
    assert "enable it first" in post(operator, f"/{one}/test", 400)["detail"]
    reader = client("read")
    for path in ("", f"/{one}/test", f"/{one}/rotate", f"/{one}/enable", f"/{one}/disable", "/deliveries/1/replay",
                 f"/{one}/replay?start=2026-01-01"):  # fmt: skip
        assert post(reader, path, 403, **WEBHOOK)
    assert reader.delete(f"/api/v1/webhooks/{one}").status_code == 403


def test_each_tenant_has_its_own(operator, warehouse):
    with warehouse.control.begin() as connection:
        connection.execute(tenants.insert(), {"id": "rival", "name": "rival"})
    theirs = endpoints.put(warehouse.control, "rival", "ops", "webhook", WEBHOOK["address"], "eve").endpoint.id
    with warehouse.control.begin() as connection:
        event = outbox.emit(connection, "rival", CROSSED, datetime.now(UTC), {})
    assert get(operator) == {"endpoints": []}
    assert get(operator, "/deliveries")["deliveries"] == []
    assert get(operator, f"/{theirs}/deliveries", 404)
    assert get(operator, f"/events/{event}", 404)
    for path in (f"/{theirs}/test", f"/{theirs}/rotate", "/deliveries/1/replay"):
        assert post(operator, path, 404)


def test_the_test_button_says_what_came_of_it(operator, receiver, sending):
    made = post(operator, name="ops", address=receiver.url)
    receiver.secrets = (made["secret"],)
    done = post(operator, f"/{made['id']}/test?wait=20", 202)
    assert (done["state"], done["type"], done["attempts"][0]["status"]) == ("delivered", "endpoint.test", 204)
    (got,) = receiver.requests
    assert got.event["type"] == "endpoint.test"
    assert got.event == {name: value for name, value in get(operator, f"/events/{got.id}").items()
                         if name in {"type", "timestamp", "data"}}  # fmt: skip
    receiver.answers = lambda _: (500, {})
    failed = post(operator, f"/{made['id']}/test?wait=20", 202)
    assert (failed["state"], failed["tries"], failed["attempts"][0]["status"]) == ("pending", 1, 500)
    assert get(operator)["endpoints"][0]["state"] == "failing"


def test_what_was_sent_is_listed_page_by_page_and_sent_again(operator, warehouse, receiver, sending):
    made = post(operator, name="ops", address=receiver.url)
    post(operator, f"/{made['id']}/disable", 200)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    events = [emit(warehouse, start + timedelta(hours=n), alert=f"al_{n}") for n in range(4)]
    first = get(operator, "/deliveries", limit=3)
    rest = get(operator, "/deliveries", limit=3, before=first["next"])
    assert [one["event"] for one in first["deliveries"] + rest["deliveries"]] == events[::-1]
    assert rest["next"] is None
    assert {one["state"] for one in first["deliveries"]} == {"dead"}
    assert [one["event"] for one in get(operator, "/deliveries", alert="al_2")["deliveries"]] == [events[2]]
    post(operator, f"/{made['id']}/enable", 200)
    since = (start + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    assert post(operator, f"/{made['id']}/replay?start={since}", 202) == {"deliveries": 3}
    _until(lambda: len(receiver.requests) == 3)
    number = first["deliveries"][0]["id"]
    _until(lambda: {one["state"] for one in get(operator, f"/{made['id']}/deliveries")["deliveries"]}
           == {"delivered", "dead"})  # fmt: skip
    assert post(operator, f"/deliveries/{number}/replay", 202)["state"] in {"pending", "delivered"}
    _until(lambda: receiver.ids()[events[3]] == 2)
    assert set(receiver.ids()) == set(events[1:])
    assert get(operator, f"/{made['id']}/deliveries", state="dead")["deliveries"][0]["event"] == events[0]
    figures = {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(operator.get("/metrics").text)
        for one in family.samples if one.name.startswith("millicent_alert_")
    }  # fmt: skip
    assert figures["millicent_alert_deliveries", "dead"] == 1
    assert figures["millicent_alert_attempts_total", "arrived"] >= 3
    assert figures["millicent_alert_oldest_pending_seconds",] >= 0


def test_the_command_line_does_all_of_it(run, receiver, sending, warehouse):
    done = run("webhooks", "set", "ops", receiver.url, "--type", CROSSED)
    assert done.exit_code == 0, done.output
    (secret,) = re.findall(r"Secret  (whsec_\S+)", done.output)
    receiver.secrets = (secret,)
    assert "It is not shown again" in done.output
    assert "204" in run("webhooks", "test", "ops").output
    assert receiver.requests[-1].event["type"] == "endpoint.test"
    rotated = json.loads(run("webhooks", "rotate", "ops", "--json").output)
    receiver.secrets = (rotated["secret"],)
    emit(warehouse)
    _until(lambda: len(receiver.requests) == 2)
    assert receiver.requests[-1].event["type"] == CROSSED
    _until(lambda: "pending" not in run("webhooks", "deliveries", "ops").output)
    assert "ops" in run("webhooks", "list").output
    assert "is due now" in run("webhooks", "replay", "2").output
    _until(lambda: len(receiver.requests) == 3)
    assert "2 deliveries" not in run("webhooks", "replay", "ops", "--from", "2026-01-01").output
    assert "is disabled" in run("webhooks", "disable", "ops", "--reason", "on holiday").output
    assert "on holiday" in run("webhooks", "list").output
    assert "is enabled" in run("webhooks", "enable", "ops").output
    receiver.answers = lambda _: (500, {})
    failed = run("webhooks", "test", "ops")
    assert failed.exit_code == 1
    assert "the test has not arrived at ops" in failed.output
    assert "is ended" in run("webhooks", "end", "ops").output
    assert "there is no endpoint 'ops': write one of none yet" in run("webhooks", "test", "ops").output
    assert "is no number of a delivery" in run("webhooks", "replay", "ops").output


def _until(condition, limit_s=20):
    stop = threading.Event()
    for _ in range(limit_s * 100):
        if condition():
            return
        stop.wait(0.01)
    raise AssertionError("it did not come about")
