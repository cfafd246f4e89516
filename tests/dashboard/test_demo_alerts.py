"""The example company's budgets and their rules, and the receiver that its alerts are told."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from http.client import HTTPConnection

import httpx
import pytest

from millicent.collector.webhooks import signing
from millicent.dashboard import demo, demo_budgets, demo_receiver
from millicent.dashboard.settings import load
from millicent.warehouse import alert_rules, budgets, endpoints
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.outbox import Event
from millicent.warehouse.store import Warehouse

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
EVENT = Event(id="evt_1", tenant=DEFAULT_TENANT, type="endpoint.test", occurred_at=NOW, alert=None,
              body=json.dumps({"type": "endpoint.test", "data": {"summary": "Hello"}}))  # fmt: skip


@pytest.fixture
def warehouse(tmp_path):
    made = Warehouse.embedded(tmp_path)
    yield made
    made.close()


@pytest.fixture
def heard():
    return []


@pytest.fixture
def receiver(heard):
    with demo_receiver.listening(heard.append) as made:
        yield made


def post(receiver, headers, body=EVENT.body):
    return httpx.post(f"http://127.0.0.1:{receiver.server_port}/alerts", headers=headers, content=body).status_code


@pytest.mark.parametrize("now", [NOW, datetime(2028, 2, 29, tzinfo=UTC), datetime(2027, 1, 1, 0, 1, tzinfo=UTC)])
def test_budgets_are_a_tree_whenever_the_demo_is_started(warehouse, now):
    demo.declare(warehouse, now)
    found = {one.id: one for one in budgets.live(warehouse.control, DEFAULT_TENANT, now)}
    wholes = {one.name: found[one.parent].name for one in found.values() if one.parent is not None}
    assert wholes == dict.fromkeys(demo_budgets.OWNERS, "Company") | {
        "Code completion": "Code Copilot", "Chat for Acme": "Assistants",
    }  # fmt: skip
    rules = alert_rules.live(warehouse.control, DEFAULT_TENANT)
    assert {one.budget for one in rules} == {*found, None}
    assert min(one.threshold for one in rules if one.kind == "actual") == Decimal("0.8")


def test_what_is_signed_is_heard_once_however_often_it_comes(receiver, heard):
    for later in (0, 30):
        headers = signing.headers(EVENT, (receiver.secret,), NOW + timedelta(seconds=later))
        assert post(receiver, headers) == HTTPStatus.NO_CONTENT
    assert heard == [json.loads(EVENT.body)]


def test_what_others_sign_or_nobody_is_not_heard(receiver, heard):
    good = signing.headers(EVENT, (receiver.secret,), NOW)
    forged = signing.headers(EVENT, ("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=",), NOW)
    assert post(receiver, forged) == HTTPStatus.UNAUTHORIZED
    assert post(receiver, good, EVENT.body.replace("Hello", "Hullo")) == HTTPStatus.UNAUTHORIZED
    assert post(receiver, good | {"webhook-id": "evt_2"}) == HTTPStatus.UNAUTHORIZED
    assert post(receiver, {}) == HTTPStatus.BAD_REQUEST
    assert post(receiver, good, "no json") == HTTPStatus.BAD_REQUEST
    assert heard == []


def test_more_than_an_event_can_be_is_refused_unread(receiver):
    with closing(HTTPConnection("127.0.0.1", receiver.server_port)) as connection:
        connection.putrequest("POST", "/alerts")
        connection.putheader("content-length", str(demo_receiver.MOST_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == HTTPStatus.BAD_REQUEST


def test_the_demo_may_tell_this_machine_and_no_more_of_its_network(warehouse, receiver, tmp_path):
    settings = demo_receiver.reaching(load(data=tmp_path))
    demo_receiver.subscribe(warehouse.control, settings, receiver)
    (made,) = endpoints.listed(warehouse.control, DEFAULT_TENANT)
    assert (made.name, made.author) == ("Demo receiver", "demo")
    check = endpoints.within(settings.reach)
    for address in ("http://10.0.0.7/", "http://127.0.0.2/", "http://169.254.169.254/"):
        with pytest.raises(ValueError, match="address"):
            check("webhook", address, ())
