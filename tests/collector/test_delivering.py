"""Events at real receivers that verify them with an independent library, whatever those receivers do."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest
from fake_receiver import Receiver, at
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from millicent.collector.webhooks import adapters, signing
from millicent.collector.webhooks.addresses import GuardedClient
from millicent.collector.webhooks.delivering import Deliverer, _retry_after
from millicent.warehouse import delivery_log, endpoints, outbox
from millicent.warehouse.control import Control
from millicent.warehouse.outbox import Event
from millicent.warehouse.reach import Reach

NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
HERE = Reach((ip_network("127.0.0.0/8"),), allow_http=True)
CROSSED = "budget.threshold.crossed"
HOUR = timedelta(hours=1)


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def receiver():
    """Makes receivers."""
    opened = []

    def make(*args, **told) -> Receiver:
        opened.append(Receiver(*args, **told))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def endpoint(control, address, name="ops", **told):
    return endpoints.put(control, "default", name, "webhook", address, "ann", check=endpoints.within(HERE), **told)


def subscribed(control, receiver, name="ops", **told):
    """A receiver that is told, and its endpoint's id."""
    made = endpoint(control, receiver.url, name, **told)
    receiver.secrets = (made.secret,)
    return made.endpoint.id


def emit(control, when=NOW, **data):
    with control.begin() as connection:
        return outbox.emit(connection, "default", CROSSED, when, {"limit": "27500.00", **data})


def log(control, **told):
    return delivery_log.log(control, "default", limit=200, **told)


def deliverer(control, clock=None, timeout_s=20.0):
    client = GuardedClient(HERE, timeout_s)
    return Deliverer(control, partial(adapters.deliver, client), *([clock] if clock else []), idle_s=0.01)


@pytest.fixture
def running(control):
    """A deliverer that really runs; gives up what is slow after two seconds."""
    stop = threading.Event()
    thread = threading.Thread(target=deliverer(control, timeout_s=2.0).run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


def until(condition, limit_s=20):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- what is sent


def test_a_receiver_verifies_what_it_gets(control, receiver, running):
    ops = receiver()
    subscribed(control, ops)
    now = datetime.now(UTC)
    event = emit(control, now, who="Zoë 🦆")
    until(lambda: [one.state for one in log(control)] == ["delivered"])
    (got,) = ops.requests
    told = {"type": CROSSED, "timestamp": now.isoformat().replace("+00:00", "Z"),
            "data": {"limit": "27500.00", "who": "Zoë 🦆"}}  # fmt: skip
    assert got.event == told
    assert got.headers["webhook-id"] == got.headers["ce-id"] == event
    assert got.headers["content-type"] == "application/json"
    assert {name: got.headers[f"ce-{name}"] for name in ("specversion", "source", "type", "time")} == {
        "specversion": "1.0", "source": "urn:millicent:default", "type": CROSSED, "time": told["timestamp"],
    }  # fmt: skip
    (tried,) = log(control)[0].attempts
    assert (tried.status, tried.error) == (204, None)


def test_a_secret_is_replaced_without_a_gap(control, receiver):
    ops, clock = receiver(), Clock()
    ops.clock = clock
    to = subscribed(control, ops)
    (old,) = ops.secrets
    new = endpoints.rotate(control, "default", to, "ann", now=NOW).secret
    sender, verified = deliverer(control, clock), {}
    for hours in (1, 23, 25):
        clock.now = NOW + hours * HOUR
        emit(control, clock.now)
        sender.step(to)
        got = ops.requests[-1]
        for name, secret in (("old", old), ("new", new)):
            ops.secrets = (secret,)
            verified[hours, name] = ops.verified(got.body, got.headers) is not None
    assert verified == {
        (1, "old"): True, (1, "new"): True, (23, "old"): True, (23, "new"): True, (25, "old"): False, (25, "new"): True,
    }  # fmt: skip


EVENTS = st.builds(
    Event, id=st.uuids().map(lambda one: f"evt_{one.hex}"), tenant=st.just("default"), type=st.just(CROSSED),
    occurred_at=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    alert=st.none(), body=st.text().map(lambda text: json.dumps({"text": text}, ensure_ascii=False)),
)  # fmt: skip


@given(EVENTS, st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3, unique=True), st.data())
def test_every_secret_that_signs_verifies_and_nothing_else_does(event, keys, data):
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in keys]
    sent = signing.headers(event, secrets, event.occurred_at)
    with at(lambda: event.occurred_at):
        for secret in secrets:
            assert Webhook(secret).verify(event.body.encode(), sent) == json.loads(event.body)
        foreign = "whsec_" + base64.b64encode(b"\0" + b"f" * 70).decode()
        other = data.draw(st.sampled_from([
            (foreign, event.body, sent),
            (secrets[0], event.body + " ", sent),
            (secrets[0], event.body, {**sent, "webhook-id": "evt_other"}),
            (secrets[0], event.body, {**sent, "webhook-timestamp": str(int(sent["webhook-timestamp"]) + 1)}),
        ]))  # fmt: skip
        with pytest.raises(WebhookVerificationError):
            Webhook(other[0]).verify(other[1], other[2])


# ---- whatever the receiver does


def test_a_receiver_that_is_down_for_a_day_gets_everything_once_it_is_back(control, receiver):
    clock = Clock()
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    made = endpoint(control, f"http://127.0.0.1:{port}/hooks")
    sender = deliverer(control, clock)
    emitted = []
    for hour in range(24):
        clock.now = NOW + hour * HOUR
        emitted.append(emit(control, clock.now))
        while sender.step(made.endpoint.id):
            pass
    assert {one.state for one in log(control)} == {"pending"}
    (health,) = delivery_log.health(control, "default")
    assert (health.state, health.failing_since, health.pending) == ("failing", NOW, 24)
    assert "cannot be connected to" in health.last_error
    back = receiver(made.secret, port=port)
    back.clock = clock
    while waits := [one.next_at for one in log(control, state="pending")]:
        clock.now = max(clock.now, min(waits))
        sender.step(made.endpoint.id)
    assert sorted(back.ids().items()) == sorted((event, 1) for event in emitted)
    assert all(one.event is not None for one in back.requests)
    assert clock.now < NOW + 3 * 24 * HOUR
    assert {one.state for one in log(control)} == {"delivered"}
    assert delivery_log.health(control, "default")[0].state == "ok"


@pytest.mark.parametrize("trouble", [500, 301, 307, 404, 429, 502])
def test_a_receiver_that_refuses_is_tried_again_by_the_same_id(control, receiver, trouble):
    clock, elsewhere = Clock(), receiver()
    ops = receiver(answers=lambda n: (trouble, {"location": elsewhere.url}) if n < 4 else (200, {}))
    ops.clock = clock
    to = subscribed(control, ops)
    events = {emit(control), emit(control)}
    sender = deliverer(control, clock)
    while waits := [one.next_at for one in log(control, state="pending")]:
        clock.now = max(clock.now, min(waits))
        sender.step(to)
    assert set(ops.ids()) == events
    assert len(ops.requests) == 6
    assert all(one.event is not None for one in ops.requests)
    assert elsewhere.requests == []
    tried = [tried for one in log(control) for tried in one.attempts]
    assert sorted(one.status for one in tried) == sorted([trouble] * 4 + [200] * 2)
    moved = {one.error for one in tried if one.status != 200}
    assert moved == (
        {"a redirect, which is not followed: set the address that it leads to"} if trouble < 400 else {None}
    )


def test_a_flapping_receiver_gets_everything_under_one_id_each(control, receiver, monkeypatch):
    monkeypatch.setattr(outbox, "JITTER", 0)  # or by bad luck one of them might meet a closed door ten times
    clock = Clock()
    ops = receiver(answers=lambda n: (200, {}) if n % 3 == 2 else (503, {}))
    ops.clock = clock
    to = subscribed(control, ops)
    sender, emitted = deliverer(control, clock), []
    for minute in range(30):
        clock.now = NOW + minute * timedelta(minutes=1)
        emitted.append(emit(control, clock.now))
        while sender.step(to):
            pass
    while waits := [one.next_at for one in log(control, state="pending")]:
        clock.now = max(clock.now, min(waits))
        sender.step(to)
    assert sorted(ops.ids()) == sorted(emitted)
    assert {one.state for one in log(control)} == {"delivered"}
    assert len({one.body for one in ops.requests}) == len(emitted)


def test_a_receiver_says_when_to_come_again(control, receiver):
    clock = Clock()
    ops = receiver(answers=lambda n: (503, {"retry-after": "7200"}) if n == 0 else (200, {}))
    ops.clock = clock
    to = subscribed(control, ops)
    emit(control)
    sender = deliverer(control, clock)
    assert sender.step(to) == "pending"
    clock.now = NOW + 2 * HOUR - timedelta(seconds=1)
    assert sender.step(to) is None
    clock.now = NOW + 2 * HOUR
    assert sender.step(to) == "delivered"


def test_how_long_to_wait_is_read_in_both_forms():
    assert _retry_after("120", NOW) == timedelta(seconds=120)
    assert _retry_after("Wed, 04 Mar 2026 12:00:00 GMT", NOW) == 2 * HOUR
    assert _retry_after("Wed, 04 Mar 2026 08:00:00 GMT", NOW) == timedelta()
    for nonsense in ("", "soon", "-5", "٣", "1e9"):
        assert _retry_after(nonsense, NOW) is None


def test_a_receiver_that_is_gone_is_asked_no_more(control, receiver, running):
    gone, other = receiver(answers=lambda _: (410, {})), receiver()
    to = subscribed(control, gone, "gone")
    subscribed(control, other, "other")
    events = [emit(control, datetime.now(UTC)) for _ in range(3)]
    until(lambda: len(other.requests) == 4)
    assert len(gone.requests) == 1
    assert not endpoints.find(control, "default", to).enabled
    assert [one.event["type"] for one in other.requests if one.id not in events] == ["endpoint.failed"]


def test_slow_receivers_delay_no_other(control, receiver, running):
    release = threading.Event()
    slow = [receiver(answers=lambda _: (release.wait(10), (204, {}))[1]) for _ in range(12)]
    quick = receiver()
    for number, one in enumerate(slow):
        subscribed(control, one, f"slow {number}")
    subscribed(control, quick, "quick")
    emit(control, datetime.now(UTC))
    until(lambda: all(one.requests for one in slow))
    for _ in range(5):
        emit(control, datetime.now(UTC))
    until(lambda: len(quick.requests) == 6)
    until(lambda: sum("in time" in (tried.error or "") for one in log(control) for tried in one.attempts) >= 12)
    release.set()


def test_a_receiver_has_one_request_at_a_time_however_many_send(control, receiver, running, tmp_path):
    open_, most, lock = 0, 0, threading.Lock()

    def answer(_):
        nonlocal open_, most
        with lock:
            open_ += 1
            most = max(most, open_)
        time.sleep(0.01)
        with lock:
            open_ -= 1
        return 204, {}

    ops = receiver(answers=answer)
    subscribed(control, ops)
    other, stop = Control(tmp_path / "data"), threading.Event()
    second = threading.Thread(target=deliverer(other).run, args=(stop,))
    second.start()
    events = [emit(control, datetime.now(UTC)) for _ in range(20)]
    until(lambda: {one.state for one in log(control)} == {"delivered"})
    stop.set()
    second.join()
    other.close()
    assert most == 1
    assert sorted(ops.ids().items()) == sorted((event, 1) for event in events)


def test_an_event_that_cannot_be_sent_keeps_no_other_and_tells_no_secret(control, receiver):
    clock = Clock()
    bad, good = emit(control), emit(control)
    made = endpoint(control, "http://127.0.0.1:9/s3cr3t")
    with control.begin() as connection:
        events = [outbox.emit(connection, "default", CROSSED, NOW, {}) for _ in range(2)]
    sent = []

    def send(to, event, now):
        sent.append(event.id)
        if event.id == events[0]:
            raise ZeroDivisionError(to.address)
        return adapters.Answered(204, {}, "")

    sender = Deliverer(control, send, clock)
    with capture_logs() as logged:
        assert [sender.step(made.endpoint.id) for _ in range(3)] == ["pending", "delivered", None]
    assert sent == events
    assert "s3cr3t" not in str(logged)
    (tried,) = log(control, event=events[0])[0].attempts
    assert tried.error == "it could not be sent: ZeroDivisionError"
    assert not log(control, event=bad) + log(control, event=good)


def test_an_endpoint_of_a_network_that_is_not_allowed_any_more_is_not_connected_to(control, receiver):
    ops, clock = receiver(), Clock()
    to = subscribed(control, ops)
    emit(control)
    strict = Deliverer(control, partial(adapters.deliver, GuardedClient(Reach(allow_http=True))), clock)
    assert strict.step(to) == "pending"
    assert ops.requests == []
    assert "webhook_allow" in log(control)[0].attempts[0].error


def test_trouble_with_the_database_ends_nothing(control, receiver, monkeypatch):
    ops = receiver()
    subscribed(control, ops)
    calls, real = [], outbox.waiting

    def fails_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise OSError("disk")
        return real(*args)

    monkeypatch.setattr(outbox, "waiting", fails_once)
    stop = threading.Event()
    thread = threading.Thread(target=deliverer(control).run, args=(stop,))
    with capture_logs():
        thread.start()
        emit(control, datetime.now(UTC))
        until(lambda: ops.requests)
        stop.set()
        thread.join()


def test_the_receiver_of_the_guide_takes_what_is_signed_once_each(control):
    guide = (Path(__file__).parents[2] / "docs" / "howto" / "receive-webhooks.md").read_text("utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    made = endpoint(control, f"http://127.0.0.1:{port}/")
    environment = {**os.environ, "MILLICENT_WEBHOOK_SECRET": made.secret, "PORT": str(port)}
    sender = deliverer(control)
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL) as process:  # fmt: skip
        until(lambda: listens(port))
        for summary in ("one", "two"):
            emit(control, datetime.now(UTC), summary=summary)
            assert sender.step(made.endpoint.id) == "delivered"
        outbox.replay(control, "default", 1, "ann")
        assert sender.step(made.endpoint.id) == "delivered"
        process.kill()
        told = process.stdout.read().splitlines()
    assert told == [f"{CROSSED} one", f"{CROSSED} two"]
