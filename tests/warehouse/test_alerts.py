"""The inbox: what is in it, what somebody does about it, and what is told of that."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from millicent.warehouse import alerts
from millicent.warehouse.alert_states import NO_PERIOD
from millicent.warehouse.alerts import Alert, BadAlertError, acknowledge, find, happenings, inbox, resolve, snooze
from millicent.warehouse.control import Control
from millicent.warehouse.delivery_tables import events

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path)
    yield made
    made.close()


def fired(control, n, *, tenant="default", **told):
    made = {"id": f"al_{n:032x}", "rule": 1, "budget": 1, "scope": "budget:1", "period_start": NOW + n * DAY,
            "period_end": NOW + (n + 1) * DAY, "dedup_key": f"1|1|{n}", "state": "firing", "severity": "error",
            "late": False, "told": True, "opened_at": NOW + n * DAY, "changed_at": NOW + n * DAY,
            "summary": f"alert {n}", "data": {"summary": f"alert {n}", "status": "firing"}} | told  # fmt: skip
    alert = Alert(**made)
    with control.begin() as connection:
        alerts.fire(connection, tenant, alert, "actual", ())
    return alert


def numbers(found):
    return [int(one.id.removeprefix("al_"), 16) for one in found]


def test_the_inbox_is_read_page_by_page_the_newest_first(control):
    for n in range(7):
        fired(control, n)
    fired(control, 7, opened_at=NOW, changed_at=NOW)
    fired(control, 8, tenant="default", budget=2, rule=3)
    seen, cursor = [], None
    while True:
        page, cursor = inbox(control, "default", limit=3, cursor=cursor)
        seen += numbers(page)
        if cursor is None:
            break
    assert seen == [8, 6, 5, 4, 3, 2, 1, 7, 0]
    assert numbers(inbox(control, "default", budget=2)[0]) == [8]
    assert numbers(inbox(control, "default", rule=3)[0]) == [8]
    assert inbox(control, "other") == ([], None)


def test_somebody_sees_to_an_alert_and_puts_another_off(control):
    one, other = fired(control, 1), fired(control, 2)
    seen = acknowledge(control, "default", one.id, "ann")
    assert (seen.state, seen.acknowledged_by) == ("acknowledged", "ann")
    assert acknowledge(control, "default", one.id, "bob") == seen
    until = datetime.now(UTC) + DAY
    assert snooze(control, "default", other.id, until, "ann").is_snoozed(until - timedelta(seconds=1))
    assert numbers(inbox(control, "default", awake_at=until - timedelta(seconds=1))[0]) == [1]
    assert numbers(inbox(control, "default", awake_at=until)[0]) == [2, 1]
    assert numbers(inbox(control, "default", states=["firing"])[0]) == [2]
    assert alerts.open_count(control, "default", until - timedelta(seconds=1)) == 0
    assert alerts.open_count(control, "default", until) == 1


def test_what_somebody_resolves_is_told_to_whoever_was_told(control):
    one = fired(control, 1)
    quiet = fired(control, 2, told=False)
    over = resolve(control, "default", one.id, "ann")
    assert (over.state, over.reason, over.data["reason_text"]) == ("resolved", "person", "ann resolved it")
    resolve(control, "default", quiet.id, "ann")
    assert find(control, "default", one.id) == over
    with control.begin() as connection:
        told = connection.execute(select(events.c.type, events.c.body).where(events.c.alert == one.id)).all()
    assert sorted(row.type for row in told) == ["budget.threshold.cleared", "budget.threshold.crossed"]
    assert [json.loads(row.body)["data"]["status"] for row in told if "cleared" in row.type] == ["resolved"]
    with pytest.raises(BadAlertError, match="is resolved since"):
        acknowledge(control, "default", one.id, "ann")


def test_the_life_of_an_alert_is_told_in_order(control):
    one = fired(control, 1, opened_at=datetime(2026, 1, 1, tzinfo=UTC))
    acknowledge(control, "default", one.id, "ann")
    snooze(control, "default", one.id, datetime.now(UTC) + DAY, "bob")
    resolve(control, "default", one.id, "cem")
    life = happenings(control, "default", one.id)
    assert {(step.what, step.who) for step in life} == {
        ("fired", None), ("acknowledge", "ann"), ("snooze", "bob"), ("cleared", None), ("resolve", "cem"),
    }  # fmt: skip
    assert life[0].what == "fired"
    assert life[0].words == "alert 1"
    assert happenings(control, "default", "al_none") == []


def test_there_is_one_open_alert_of_a_key_and_the_newest_counts(control):
    one = fired(control, 1)
    resolve(control, "default", one.id, "ann")
    again = fired(control, 2, dedup_key=one.dedup_key, period_start=one.period_start, opened_at=one.opened_at)
    with control.begin() as connection:
        found = alerts.latest(connection, "default", NO_PERIOD)
        open_one = alerts.open_of(connection, "default", one.dedup_key)
        assert alerts.tenants_with_open(connection) == ["default"]
    assert [alert.id for alert in found.values()] == [again.id]
    assert open_one == again


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda c: acknowledge(c, "default", "al_no", "ann"), "there is no alert 'al_no'"),
        (lambda c: snooze(c, "default", "al_1", datetime(2026, 1, 1), "ann"), "no time zone"),  # noqa: DTZ001 - refused
        (lambda c: snooze(c, "default", "al_1", datetime.now(UTC) + 32 * DAY, "ann"), "mute its rule instead"),
        (lambda c: inbox(c, "default", states=["loud"]), "state 'loud' is unknown"),
        (lambda c: inbox(c, "default", limit=0), "limit 0 is outside 1 to 200"),
        (lambda c: inbox(c, "default", cursor="x"), "cursor 'x' is none of ours"),
        (lambda c: inbox(c, "default", cursor="MjAyNi0xMS0yMCBhbF8x"), "is none of ours"),
    ],
)
def test_what_cannot_be_done_is_said(control, act, words):
    with pytest.raises(BadAlertError, match=words):
        act(control)
