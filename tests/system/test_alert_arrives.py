"""An overrun, from the call that makes it to the receiver that is told: real processes, real OTLP, a real receiver."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import httpx
import pytest
from fake_receiver import Receiver
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

OVERRUN = "Code completion"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
TEAM = "assistants"
MILLION = 1_000_000
PROTOBUF = {"content-type": "application/x-protobuf"}
NUMBERS = count(1)
BUDGETS = [
    {"name": "Assistants", "amount": "10", "filters": [f"team:{TEAM}"], "owner": "Jonas Weber",
     "effective_from": "2026-01-01"},
]  # fmt: skip
RULES = [
    {"name": "All of it", "kind": "actual", "budget": "Assistants", "threshold": "100%", "severity": "error"},
    {"name": "Twice", "kind": "actual", "budget": "Assistants", "threshold": 2, "severity": "critical"},
]


@pytest.fixture
def receiver():
    made = Receiver(SECRET)
    yield made
    made.close()


def telling(receiver):
    """The environment of a product that tells a receiver."""
    endpoints = [{"name": "Finance", "address": receiver.url, "secret_env": "FINANCE"}]
    return {"MILLICENT_ENDPOINTS": json.dumps(endpoints), "FINANCE": SECRET,
            "MILLICENT_WEBHOOK_ALLOW": "127.0.0.0/8", "MILLICENT_WEBHOOK_ALLOW_HTTP": "true"}  # fmt: skip


@pytest.fixture
def product(installation, receiver):
    """With a budget, two rules and an endpoint that are declared, and a model that costs a dollar a million tokens."""
    declared = {"MILLICENT_BUDGETS": json.dumps(BUDGETS), "MILLICENT_RULES": json.dumps(RULES)}
    installation.environment = declared | telling(receiver)
    installation.start().wait_ready()
    price(installation, "1")
    return installation


def post(product, path, **more):
    answer = httpx.post(f"{product.url}/api/v1/{path}", headers={"origin": product.url}, timeout=30, **more)
    assert answer.is_success, answer.text


def price(product, usd):
    told = {"kind": "override", "model": "acme-7b", "prices": {"input_mtok": usd},
            "effective_from": "2025-01-01T00:00:00Z", "source": "contract"}  # fmt: skip
    post(product, "prices/entries", json={"entries": [told]})


def send(product, wait_for, usd, at, feature):
    """A call that costs so many dollars and began then, over OTLP; returns once it can be asked for."""
    number = next(NUMBERS)
    request = ExportTraceServiceRequest()
    began = int(at.timestamp()) * 10**9
    span = request.resource_spans.add().scope_spans.add().spans.add(
        name="chat", trace_id=number.to_bytes(16), span_id=number.to_bytes(8), start_time_unix_nano=began,
        end_time_unix_nano=began + 10**9,
    )  # fmt: skip
    texts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "acme", "gen_ai.request.model": "acme-7b",
             "millicent.team": TEAM, "millicent.feature": feature}  # fmt: skip
    for key, value in texts.items():
        span.attributes.add(key=key).value.string_value = value
    for key, tokens in (("gen_ai.usage.input_tokens", usd * MILLION), ("gen_ai.usage.output_tokens", 0)):
        span.attributes.add(key=key).value.int_value = tokens
    sent = httpx.post(f"{product.otlp}/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    assert sent.status_code == 200
    wait_for(lambda: httpx.get(f"{product.url}/api/v1/explain/{number:032x}/{number:016x}").status_code == 200)


def told(receiver):
    """What arrived and was verified: rule, type without `budget.threshold.`, month, and whether it was late."""
    return [
        (event["data"]["rule"]["name"], event["type"].rpartition(".")[2], event["data"]["period"]["start"][:7],
         event["data"]["late"])
        for event in (one.event for one in tuple(receiver.requests))
        if event is not None
    ]  # fmt: skip


def test_an_overrun_arrives_once_signed_and_late_data_and_other_prices_are_told_after_it(product, receiver, wait_for):
    now = datetime.now(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last_month = (first - timedelta(days=1)).replace(day=1)
    this, last = f"{first:%Y-%m}", f"{last_month:%Y-%m}"
    send(product, wait_for, 2, last_month, "search")
    send(product, wait_for, 3, first, "search")
    send(product, wait_for, 8, now, "chat")
    wait_for(lambda: told(receiver))
    (overrun,) = (one.event["data"] for one in receiver.requests)
    assert told(receiver) == [("All of it", "crossed", this, False)]
    assert (overrun["actual"], overrun["limit"], overrun["value"]) == ("11", "10", "1.1")

    inbox = product.get("alerts")
    (alert,) = inbox["alerts"]
    assert (inbox["open"], alert["id"], alert["state"]) == (1, overrun["alert_id"], "firing")
    assert alert["summary"].startswith("Assistants has spent 110% of its limit: $11.00 of $10.00 in ")
    assert alert["data"]["driver"].startswith("Spend rose by $9.00 (450%), mostly volume")
    assert "chat moved most (+$8.00)" in alert["data"]["driver"]
    (sent,) = wait_for(lambda: [one for one in product.get(f"alerts/{alert['id']}")["deliveries"]
                                if one["state"] == "delivered"])  # fmt: skip
    assert [one["status"] for one in sent["attempts"]] == [204]

    send(product, wait_for, 9, last_month, "search")
    wait_for(lambda: len(told(receiver)) == 2)
    assert told(receiver)[1] == ("All of it", "crossed", last, True)
    send(product, wait_for, 10, now, "chat")
    wait_for(lambda: len(told(receiver)) == 3)
    assert told(receiver)[2] == ("Twice", "crossed", this, False)

    price(product, "0.1")
    post(product, "reprice", params={"start": last_month.isoformat()})
    wait_for(lambda: len(told(receiver)) == 6)
    assert sorted(told(receiver)[3:]) == [
        ("All of it", "cleared", last, True), ("All of it", "cleared", this, False), ("Twice", "cleared", this, False),
    ]  # fmt: skip
    assert {one.event["data"]["reason"] for one in receiver.requests[3:]} == {"repriced"}
    assert set(receiver.ids().values()) == {1}, "each event came once"
    assert len(receiver.ids()) == len(receiver.requests) == 6
    assert product.get("alerts")["open"] == 0


def about(data):
    return data.get("budget", {}).get("name")


def overruns(receiver):
    """What was told of the demo's overrun, verified."""
    found = [one.event for one in tuple(receiver.requests) if one.event is not None]
    return [one["data"] for one in found
            if one["type"] == "budget.threshold.crossed" and about(one["data"]) == OVERRUN]  # fmt: skip


def test_in_the_demo_the_overrun_fires_once_and_arrives_signed(make_instance, tmp_path, receiver, wait_for):
    demo = make_instance(tmp_path / "demo", command="demo", environment=telling(receiver))
    demo.start()
    try:
        wait_for(lambda: demo.answers(demo.url + "/readyz"), 180)
        crossed = wait_for(lambda: overruns(receiver), 120)
        (alert,) = wait_for(lambda: [one for one in demo.get("alerts")["alerts"] if about(one["data"]) == OVERRUN])
        assert alert["data"]["driver"].startswith("Spend rose by $")
        assert (alert["severity"], alert["late"]) == ("error", False)
        assert alert["id"] == crossed[0]["alert_id"]
        wait_for(lambda: f"budget.threshold.crossed: {OVERRUN} has spent 10" in demo.log)
        again = {"name": "Again", "kind": "actual", "budget": alert["budget"], "threshold": "0.9"}
        post(demo, "alerts/rules", json=again)
        wait_for(lambda: len(overruns(receiver)) > 1)  # so it has been looked again
        assert [one["rule"]["name"] for one in overruns(receiver)] == [f"{OVERRUN}: 100% spent", "Again"]
        assert set(receiver.ids().values()) == {1}
    finally:
        demo.kill()
