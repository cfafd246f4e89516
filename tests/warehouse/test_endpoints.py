"""Endpoints: what is secret is sealed, shown once, and replaced without a gap."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from millicent.warehouse import endpoints, outbox
from millicent.warehouse.control import Control, tenants
from millicent.warehouse.endpoint_forms import BadEndpointError
from millicent.warehouse.reach import Reach

URL = "https://hooks.example.com/in/s3cr3t-path?token=s3cr3t-query"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "data")
    with made.begin() as connection:
        connection.execute(tenants.insert(), {"id": "rival", "name": "rival"})
    yield made
    made.close()


def put(control, name="ops", address=URL, kind="webhook", **told):
    return endpoints.put(control, "default", name, kind, address, "ann", **told)


def opened(control, endpoint_id, at=None):
    return endpoints.destination(control, "default", endpoint_id, at or datetime.now(UTC))


def test_a_webhook_is_given_a_secret_that_is_shown_once(control):
    made = put(control, types=["cost.anomaly.opened", "budget.threshold.crossed"])
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32
    assert made.endpoint.shown == "https://hooks.example.com/…"
    assert made.endpoint.types == ("budget.threshold.crossed", "cost.anomaly.opened")
    assert opened(control, made.endpoint.id) == endpoints.Destination("webhook", URL, (made.secret,))
    again = put(control, types=["cost.anomaly.opened", "budget.threshold.crossed"])
    assert again == endpoints.Made(made.endpoint, None)
    assert put(control, "other", "https://example.com").secret != made.secret
    assert [one.name for one in endpoints.listed(control, "default")] == ["ops", "other"]
    assert endpoints.listed(control, "rival") == []


def test_nothing_secret_is_in_the_database_or_in_what_is_printed(control, tmp_path):
    made = put(control)
    put(control, "pager", "https://events.pagerduty.com/v2/enqueue", "pagerduty", secret="k3y" * 10 + "ab")
    rotated = endpoints.rotate(control, "default", made.endpoint.id, "ann")
    secrets = ("s3cr3t-path", "s3cr3t-query", made.secret[6:40], rotated.secret[6:40], "k3yk3y")
    held = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    for secret in secrets:
        assert secret.encode() not in held
        assert secret not in repr(
            (made, rotated, opened(control, made.endpoint.id), endpoints.listed(control, "default"))
        )
    with control.begin() as connection:
        audit = str(connection.execute(text("SELECT * FROM audit")).all())
    assert "endpoint.set" in audit
    assert not any(secret in audit for secret in secrets)


def test_what_was_sealed_under_another_pepper_says_so_and_can_be_set_again(control, tmp_path):
    made = put(control)
    control.close()
    (tmp_path / "data" / "pepper").write_bytes(b"x" * 32)
    other = Control(tmp_path / "data")
    with pytest.raises(BadEndpointError, match=r"'ops' cannot be opened.*put back the file `pepper`"):
        opened(other, made.endpoint.id)
    with pytest.raises(BadEndpointError, match="cannot be opened"):
        endpoints.rotate(other, "default", made.endpoint.id, "ann")
    anew = put(other)
    assert anew.endpoint.id == made.endpoint.id
    assert opened(other, anew.endpoint.id).secrets == (anew.secret,)
    other.close()


def test_what_was_sealed_for_one_endpoint_opens_no_other(control):
    one, other = put(control), put(control, "other")
    with control.begin() as connection:
        connection.execute(
            text("UPDATE endpoints SET sealed = (SELECT sealed FROM endpoints WHERE id = :one) WHERE id = :other"),
            {"one": one.endpoint.id, "other": other.endpoint.id},
        )
    with pytest.raises(BadEndpointError, match="sealed for another one"):
        opened(control, other.endpoint.id)


def test_a_replaced_secret_signs_for_a_day_more(control):
    made = put(control)
    now = datetime.now(UTC)
    second = endpoints.rotate(control, "default", made.endpoint.id, "ann", now=now)
    third = endpoints.rotate(control, "default", made.endpoint.id, "ann", now=now + timedelta(hours=20))
    hours = {at: opened(control, made.endpoint.id, now + timedelta(hours=at)).secrets for at in (20, 24, 43, 44)}
    assert hours[20] == (third.secret, second.secret, made.secret)
    assert hours[24] == hours[43] == (third.secret, second.secret)
    assert hours[44] == (third.secret,)


def test_a_secret_of_ones_own_is_kept_until_another_is_told(control):
    made = put(control, secret=SECRET)
    assert made.secret is None
    assert put(control, secret=SECRET) == made
    assert put(control) == made
    other = "whsec_" + base64.b64encode(b"o" * 24).decode()
    put(control, secret=other)
    assert opened(control, made.endpoint.id).secrets == (other, SECRET)


def test_an_endpoint_that_cannot_be_says_why(control):
    key = "0" * 32
    for told, why in (
        ({"name": " "}, "name ' ' is empty"),
        ({"name": "a\nb"}, "no plain text"),
        ({"name": "n" * 101}, "longer than 100"),
        ({"kind": "fax"}, "kind 'fax' is unknown: write webhook, slack"),
        ({"address": "http://hooks.example.com"}, "clear text"),
        ({"address": "https://169.254.169.254/"}, "link-local"),
        ({"address": ""}, "no address"),
        ({"secret": "whsec_" + base64.b64encode(b"s" * 23).decode()}, "24 to 64"),
        ({"secret": "hunter2"}, "whsec_"),
        ({"types": ["budget.exploded"]}, "type 'budget.exploded' is unknown"),
        ({"kind": "pagerduty", "address": "https://events.pagerduty.com/v2/enqueue"}, "needs a secret"),
    ):
        with pytest.raises(BadEndpointError, match=why):
            put(control, **told)
    assert endpoints.listed(control, "default") == []
    put(control, "pager", "https://events.pagerduty.com/v2/enqueue", "pagerduty", secret=key)
    with pytest.raises(BadEndpointError, match="is a pagerduty, not a webhook"):
        put(control, "pager")
    pager = endpoints.listed(control, "default")[0]
    with pytest.raises(BadEndpointError, match="tell the secret"):
        endpoints.rotate(control, "default", pager.id, "ann")
    assert endpoints.rotate(control, "default", pager.id, "ann", secret="1" * 32).secret is None
    assert opened(control, pager.id).secrets == ("1" * 32,)
    with pytest.raises(BadEndpointError, match="tenant 'nobody' is unknown"):
        endpoints.put(control, "nobody", "ops", "webhook", URL, "ann")


def test_private_networks_are_reached_where_they_are_allowed(control):
    check = endpoints.within(Reach(allow_http=True))
    assert (
        put(control, address="http://hooks.example.com/a", check=check).endpoint.shown == "http://hooks.example.com/…"
    )


def test_what_the_file_declares_nobody_else_changes(control):
    made = endpoints.put(control, "default", "ops", "webhook", URL, "millicent.toml")
    for change in (
        lambda: put(control, address="https://example.org"),
        lambda: endpoints.rotate(control, "default", made.endpoint.id, "ann"),
        lambda: endpoints.end(control, "default", made.endpoint.id, "ann"),
    ):
        with pytest.raises(BadEndpointError, match=r"declared in millicent\.toml"):
            change()
    disabled = endpoints.disable(control, "default", made.endpoint.id, "ann", "on holiday")
    assert disabled == replace(made.endpoint, enabled=False, reason="on holiday")
    assert endpoints.enable(control, "default", made.endpoint.id, "ann") == made.endpoint


def test_an_ended_endpoint_keeps_its_log_and_nothing_secret(control):
    made = put(control)
    with control.begin() as connection:
        outbox.emit(connection, "default", "data.freshness.stale", datetime.now(UTC), {})
    gone = endpoints.end(control, "default", made.endpoint.id, "ann")
    assert gone.ended_at is not None
    assert endpoints.listed(control, "default") == []
    assert endpoints.find(control, "default", made.endpoint.id) == gone
    assert endpoints.find(control, "rival", made.endpoint.id) is None
    with control.begin() as connection:
        assert connection.execute(text("SELECT sealed FROM endpoints")).scalar_one() == ""
        assert connection.execute(text("SELECT state FROM deliveries")).scalar_one() == "dead"
    for act in (endpoints.end, endpoints.enable):
        with pytest.raises(BadEndpointError, match="there is no endpoint"):
            act(control, "default", made.endpoint.id, "ann")
    assert put(control).endpoint.id != made.endpoint.id


def test_there_is_an_end_to_endpoints(control, monkeypatch):
    monkeypatch.setattr(endpoints, "MOST", 2)
    put(control, "a")
    made = put(control, "b")
    with pytest.raises(BadEndpointError, match="2 endpoints already"):
        put(control, "c")
    endpoints.end(control, "default", made.endpoint.id, "ann")
    put(control, "c")
