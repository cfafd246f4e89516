"""The outbox: what happened is there with its cause or not at all, is one sender's at a time, and is never lost."""

import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from millicent.warehouse import delivery_log, endpoints, outbox
from millicent.warehouse.control import Control, tenants
from millicent.warehouse.endpoint_forms import BadEndpointError
from millicent.warehouse.outbox import SCHEDULE, Outcome

NOW = datetime(2026, 3, 4, 10, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
CROSSED, STALE = "budget.threshold.crossed", "data.freshness.stale"
OK, BROKEN = Outcome(status=204), Outcome(status=500, answer="oops")
_names = count()


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "data")
    with made.begin() as connection:
        connection.execute(tenants.insert(), {"id": "rival", "name": "rival"})
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    made = Control(tmp_path_factory.mktemp("shared") / "data")
    yield made
    made.close()


def endpoint(control, name="ops", tenant="default", **told) -> str:
    made = endpoints.put(control, tenant, name, "webhook", "https://hooks.example.com", "ann", **told)
    return made.endpoint.id


def emit(control, type_=CROSSED, at=NOW, data=None, tenant="default", **told) -> str:
    with control.begin() as connection:
        return outbox.emit(connection, tenant, type_, at, data or {"limit": Decimal("27500.00")}, **told)


def attempt(control, to, at, outcome):
    taken = outbox.take(control, to, at)
    return taken and outbox.attempted(control, taken, outcome, at)


def log(control, **told):
    return delivery_log.log(control, "default", **told)


def states(control, **told):
    return [one.state for one in reversed(log(control, **told))]


# ---- what happened


def test_an_event_is_stored_with_its_cause_or_not_at_all(control):
    to = endpoint(control)

    def cause(*, fails):
        with control.begin() as connection:
            connection.execute(text("INSERT INTO tenants VALUES ('cause', 'cause')"))
            outbox.emit(connection, "default", CROSSED, NOW, {})
            if fails:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        cause(fails=True)
    assert log(control) == []
    assert delivery_log.happened(control, "default") == []
    assert outbox.take(control, to, NOW) is None
    cause(fails=False)
    assert len(log(control)) == len(delivery_log.happened(control, "default")) == 1


def test_the_body_is_type_time_and_data_with_amounts_as_text(control):
    to = endpoint(control)
    at = datetime(2026, 3, 4, 11, 30, tzinfo=UTC)
    data = {"limit": Decimal("27500.00"), "day": at.date(), "at": at, "who": "Zoë 🦆", "n": None}
    event = emit(control, at=at, alert="al_1", data=data)
    taken = outbox.take(control, to, at)
    assert taken.event.id == event
    assert event.startswith("evt_")
    assert "." not in event
    assert json.loads(taken.event.body) == {
        "type": CROSSED, "timestamp": "2026-03-04T11:30:00Z",
        "data": {"limit": "27500.00", "day": "2026-03-04", "at": "2026-03-04T11:30:00Z", "who": "Zoë 🦆", "n": None},
    }  # fmt: skip
    assert delivery_log.event(control, "default", event) == taken.event
    assert delivery_log.event(control, "rival", event) is None
    assert [one.id for one in delivery_log.happened(control, "default", alert="al_1")] == [event]


def test_what_is_no_event_is_refused(control):
    for told, why in (
        ({"type_": "budget.exploded"}, "type 'budget.exploded' is unknown"),
        ({"data": {"at": datetime(2026, 1, 1)}}, "has no time zone"),  # noqa: DTZ001
        ({"data": {"ratio": float("nan")}}, "not JSON compliant"),
        ({"data": {f"name {n}": "x" * 30 for n in range(1000)}}, "even in short"),
    ):
        with pytest.raises(ValueError, match=why):
            emit(control, **told)
    with pytest.raises(TypeError, match="is no JSON"):
        emit(control, data={"set": {1}})


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=4000) | st.decimals(allow_nan=False, allow_infinity=False, places=6),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.sampled_from("abcde"), inner, max_size=5),
    max_leaves=40,
)


@settings(max_examples=60, deadline=None)
@example({"scope": "€" * 7_000})
@given(st.dictionaries(st.sampled_from(["scope", "summary", "top_drivers", "budget"]), VALUES))
def test_however_much_there_is_to_tell_a_body_stays_small(data):
    whole = {"alert_id": "al_1", "dedup_key": "k" * 300, **data}
    body = outbox._body(CROSSED, NOW, whole)
    told = json.loads(body)["data"]
    assert len(body.encode()) < 20_000
    assert (told["alert_id"], told["dedup_key"]) == ("al_1", "k" * 300)
    assert set(told) - {"shortened"} == set(whole)
    assert "shortened" not in told or len(json.dumps(whole, default=str, ensure_ascii=False).encode()) > 19_000


def test_an_event_goes_to_the_endpoints_that_want_it(control):
    all_, some = endpoint(control, "all"), endpoint(control, "some", types=[STALE])
    off, rival = endpoint(control, "off"), endpoint(control, "rival's", "rival")
    endpoints.disable(control, "default", off, "ann", "on holiday")
    endpoints.end(control, "default", endpoint(control, "gone"), "ann")

    def told(event):
        return {one.endpoint: one.state for one in log(control, event=event)}

    assert told(emit(control)) == {all_: "pending", off: "dead"}
    assert told(emit(control, STALE)) == {all_: "pending", some: "pending", off: "dead"}
    assert told(emit(control, STALE, endpoints=[some, "ep_unknown"])) == {some: "pending"}
    assert told(emit(control, endpoints=[some])) == {}
    assert told(emit(control, silent=True)) == {}
    assert len(delivery_log.happened(control, "default")) == 5
    emit(control, tenant="rival")
    assert [one.endpoint for one in delivery_log.log(control, "rival")] == [rival]


# ---- sending it


def test_a_delivery_is_one_senders_and_an_endpoint_has_one_at_a_time(control, tmp_path):
    to = endpoint(control)
    for _ in range(3):
        emit(control)
    other = Control(tmp_path / "data")
    start, found = threading.Barrier(8), []

    def grab(of):
        start.wait()
        found.append(outbox.take(of, to, NOW))

    threads = [threading.Thread(target=grab, args=(control if n % 2 else other,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (taken,) = (one for one in found if one)
    assert outbox.waiting(control, NOW) == []
    assert outbox.attempted(control, taken, OK, NOW) == "delivered"
    assert outbox.waiting(control, NOW) == [to]
    assert outbox.take(other, to, NOW).delivery != taken.delivery
    other.close()


def test_a_lease_runs_out_and_whoever_had_it_disturbs_nobody(control):
    to = endpoint(control)
    emit(control)
    first = outbox.take(control, to, NOW)
    later = NOW + outbox.LEASE
    assert outbox.take(control, to, later - SECOND) is None
    second = outbox.take(control, to, later)
    assert (second.delivery, second.event, second.tries) == (first.delivery, first.event, 0)
    assert outbox.attempted(control, first, BROKEN, later) == "pending"
    assert outbox.take(control, to, later + 5 * SECOND) is None
    assert outbox.attempted(control, second, OK, later) == "delivered"
    (one,) = log(control)
    assert (one.state, one.tries, [tried.status for tried in one.attempts]) == ("delivered", 0, [500, 204])


def test_that_it_arrived_holds_whoever_says_it(control):
    to = endpoint(control)
    emit(control)
    first = outbox.take(control, to, NOW)
    second = outbox.take(control, to, NOW + outbox.LEASE)
    assert outbox.attempted(control, first, OK, NOW + outbox.LEASE) == "delivered"
    outbox.attempted(control, second, BROKEN, NOW + outbox.LEASE)
    assert states(control) == ["delivered"]
    assert outbox.take(control, to, NOW + DAY) is None


def test_ten_attempts_over_three_days_then_it_is_given_up(control):
    to = endpoint(control)
    emit(control)
    at, waits = NOW, []
    while attempt(control, to, at, BROKEN) == "pending":
        (one,) = log(control)
        waits.append(one.next_at - at)
        assert outbox.take(control, to, one.next_at - SECOND) is None
        at = one.next_at
    (one,) = log(control)
    assert (one.state, one.tries, len(one.attempts), one.ended_at) == ("dead", 10, 10, at)
    assert all(least <= wait <= 1.1 * least for wait, least in zip(waits, SCHEDULE[1:], strict=True))
    assert 3 * DAY < at - NOW < 3.5 * DAY
    assert {tried.answer for tried in one.attempts} == {"oops"}
    assert outbox.take(control, to, at + 9 * DAY) is None


def test_an_endpoint_that_asks_for_time_gets_it_for_everything(control):
    to = endpoint(control)
    first, second = emit(control), emit(control)
    attempt(control, to, NOW, Outcome(status=503, retry_after=HOUR))
    nexts = {one.event: one.next_at for one in log(control)}
    assert nexts == {first: NOW + HOUR, second: NOW + HOUR}
    for asked, waits in ((timedelta(days=30), DAY), (None, timedelta(seconds=60))):
        now = max(nexts.values())
        attempt(control, to, now, Outcome(status=429, retry_after=asked))
        nexts = {one.event: one.next_at for one in log(control)}
        assert min(nexts.values()) == now + waits


def test_an_endpoint_that_is_gone_is_disabled_and_what_waits_for_it_is_kept(control):
    to, other = endpoint(control), endpoint(control, "other")
    emit(control, endpoints=[to])
    emit(control, endpoints=[to])
    attempt(control, to, NOW, Outcome(status=410))
    assert endpoints.find(control, "default", to).reason == (
        "it answered 410 Gone, which says to send nothing more (2026-03-04 10:00 UTC)"
    )
    assert outbox.take(control, to, NOW + DAY) is None
    assert states(control, endpoint=to) == ["pending", "pending"]
    (notice,) = log(control, endpoint=other)
    assert notice.type == "endpoint.failed"
    endpoints.enable(control, "default", to, "ann")
    now = datetime.now(UTC)
    assert [attempt(control, to, now, OK) for _ in range(3)] == ["delivered", "delivered", None]


def test_that_an_endpoint_is_given_up_on_is_told_to_the_others_once(control):
    to, other = endpoint(control), endpoint(control, "other")

    def give_up(at):
        emit(control, at=at, endpoints=[to])
        while attempt(control, to, at, BROKEN) == "pending":
            at = log(control, endpoint=to)[0].next_at
        return at

    at = give_up(give_up(NOW))
    (notice,) = log(control, endpoint=other)
    told = json.loads(delivery_log.event(control, "default", notice.event).body)["data"]
    assert told["endpoint"] == {"id": to, "name": "ops", "kind": "webhook", "address": "https://hooks.example.com/…"}
    assert told["reason"] == "10 attempts failed, the last because it answered 500"
    for _ in range(2):
        emit(control, at=at, endpoints=[to])
        assert attempt(control, to, at + SECOND, OK) == "delivered"
    give_up(at + HOUR)
    notices = log(control, endpoint=other)[::-1]
    assert [one.type for one in notices] == ["endpoint.failed", "endpoint.recovered", "endpoint.failed"]
    over = json.loads(delivery_log.event(control, "default", notices[1].event).body)["data"]
    assert (over["status"], over["dedup_key"]) == ("resolved", told["dedup_key"])
    assert log(control, endpoint=to, alert=to) == []


def test_the_only_endpoint_fails_and_that_is_still_known(control):
    to = endpoint(control)
    emit(control)
    attempt(control, to, NOW, Outcome(status=410))
    (notice,) = delivery_log.happened(control, "default", type_="endpoint.failed")
    assert notice.alert == to
    assert log(control, event=notice.id) == []


def test_that_an_alert_is_over_arrives_after_that_it_began(control):
    to, other = endpoint(control), endpoint(control, "other")
    began = emit(control, alert="al_1", endpoints=[to, other])
    attempt(control, to, NOW, BROKEN)
    attempt(control, to, NOW + 6 * SECOND, BROKEN)
    over = emit(control, "budget.threshold.cleared", NOW + HOUR / 60, alert="al_1")
    elsewhere = emit(control, at=NOW + HOUR / 60, alert="al_2", endpoints=[to])
    at, seen = NOW + HOUR / 60, []
    while taken := outbox.take(control, to, at):
        seen.append(taken.event.id)
        outbox.attempted(control, taken, OK, at)
    assert seen == [elsewhere]
    assert attempt(control, other, at, OK) == "delivered"
    assert outbox.take(control, other, at).event.id == over
    at = NOW + HOUR
    for expected, outcome in ((began, BROKEN), (began, OK), (over, OK)):
        taken = outbox.take(control, to, at)
        assert taken.event.id == expected
        outbox.attempted(control, taken, outcome, at)
        at += 0 * SECOND if outcome is OK else HOUR


OUTCOMES = st.sampled_from(
    [OK, BROKEN, Outcome(error="no answer"), Outcome(status=429), Outcome(status=503, retry_after=HOUR), None]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(OUTCOMES, st.sampled_from(["", "", "a", "b", "none"]), st.integers(0, 90_000)), max_size=60))
def test_whatever_happens_nothing_is_lost_twice_or_in_another_order(shared, steps):
    """None: the sender is gone between taking and telling. Emitted events are pending, delivered, or dead after ten."""
    number = next(_names)
    to = endpoint(shared, f"e{number}")
    at, emitted, arrived, alerts = NOW, [], [], {}
    for outcome, about, waits in steps:
        at += timedelta(seconds=waits)
        if about:
            alert = None if about == "none" else f"{about}{number}"
            emitted.append(emit(shared, at=at, endpoints=[to], alert=alert))
            alerts[emitted[-1]] = alert or emitted[-1]
        taken = outbox.take(shared, to, at)
        if taken is not None and outcome is not None:
            arrived += [taken.event.id] if outbox.attempted(shared, taken, outcome, at) == "delivered" else []
    kept = {one.event: one for one in log(shared, endpoint=to, limit=200)}
    assert sorted(kept) == sorted(emitted)
    assert len(set(arrived)) == len(arrived)
    for alert in set(alerts.values()):
        assert [one for one in arrived if alerts[one] == alert] == [
            one for one in emitted if alerts[one] == alert and one in arrived
        ]
    for one in kept.values():
        failed = [tried for tried in one.attempts if tried.error != outbox.UNDER_WAY and tried.status != 204]
        assert one.tries == len(failed)
        assert (one.state == "delivered") == (one.event in arrived)
        assert (one.state == "dead") == (one.tries == 10)
        assert (one.next_at is None) == (one.state != "pending")
    endpoints.end(shared, "default", to, "ann")


# ---- sending it again


def test_what_was_delivered_or_given_up_is_sent_again_with_the_same_id(control):
    to = endpoint(control)
    event = emit(control)
    attempt(control, to, NOW, OK)
    (one,) = log(control)
    outbox.replay(control, "default", one.id, "ann")
    taken = outbox.take(control, to, datetime.now(UTC))
    assert (taken.event.id, taken.tries) == (event, 0)
    outbox.attempted(control, taken, OK, datetime.now(UTC))
    (one,) = log(control)
    assert (one.state, len(one.attempts)) == ("delivered", 2)
    for who, number in (("default", 99), ("rival", one.id)):
        with pytest.raises(BadEndpointError, match="there is no delivery"):
            outbox.replay(control, who, number, "ann")


def test_a_period_is_sent_again(control):
    to = endpoint(control)
    endpoints.disable(control, "default", to, "ann", "on holiday")
    missed = [emit(control, at=NOW + n * HOUR) for n in range(4)]
    endpoints.enable(control, "default", to, "ann")
    assert outbox.take(control, to, datetime.now(UTC)) is None
    assert outbox.replay_range(control, "default", to, NOW + HOUR, NOW + 3 * HOUR, "ann") == 2
    assert states(control) == ["dead", "pending", "pending", "dead"]
    now = datetime.now(UTC)
    while attempt(control, to, now, OK):
        pass
    assert outbox.replay_range(control, "default", to, NOW, NOW + DAY, "ann") == 2
    assert outbox.replay_range(control, "default", to, NOW, NOW + DAY, "ann", delivered=True) == len(missed)
    outbox.try_out(control, "default", to, "ann")
    assert outbox.replay_range(control, "default", to, now - HOUR, now + HOUR, "ann", delivered=True) == 0
    with pytest.raises(BadEndpointError, match="not after it begins"):
        outbox.replay_range(control, "default", to, NOW, NOW, "ann")
    with pytest.raises(BadEndpointError, match="there is no endpoint"):
        outbox.replay_range(control, "rival", to, NOW, NOW + DAY, "ann")
    endpoints.end(control, "default", to, "ann")
    with pytest.raises(BadEndpointError, match="any more"):
        outbox.replay(control, "default", log(control)[0].id, "ann")


def test_an_endpoint_is_tried_out_whatever_it_wants(control):
    to = endpoint(control, types=[STALE])
    number = outbox.try_out(control, "default", to, "ann")
    one = delivery_log.find(control, "default", number)
    assert (one.type, one.endpoint, one.state) == ("endpoint.test", to, "pending")
    assert delivery_log.find(control, "rival", number) is None
    endpoints.disable(control, "default", to, "ann", "on holiday")
    with pytest.raises(BadEndpointError, match=r"is not enabled \(on holiday\)"):
        outbox.try_out(control, "default", to, "ann")
    with pytest.raises(BadEndpointError, match="there is no endpoint"):
        outbox.try_out(control, "rival", to, "ann")


# ---- the log


def test_health_says_since_when_an_endpoint_fails_and_what_waits(control):
    to, unused = endpoint(control), endpoint(control, "unused")

    def told():
        return {one.endpoint.id: one for one in delivery_log.health(control, "default")}

    assert {one.state for one in told().values()} == {"unused"}
    emit(control, endpoints=[to])
    outbox.take(control, to, NOW)
    assert (told()[to].state, told()[to].pending) == ("unused", 1)
    attempt(control, to, NOW + outbox.LEASE, OK)
    assert (told()[to].state, told()[to].last_success_at, told()[to].pending) == ("ok", NOW + outbox.LEASE, 0)
    at = NOW + HOUR
    for outcome in (BROKEN, Outcome(error="no answer")):
        emit(control, at=at, endpoints=[to])
        attempt(control, to, at, outcome)
        at += SECOND
    bad = told()[to]
    assert (bad.state, bad.failing_since, bad.last_error) == ("failing", NOW + HOUR, "no answer")
    assert (bad.pending, bad.dead, bad.last_success_at) == (2, 0, NOW + outbox.LEASE)
    assert bad.oldest_pending_at is not None
    attempt(control, to, at + HOUR, OK)
    assert (told()[to].state, told()[to].failing_since, told()[to].pending) == ("ok", None, 1)
    endpoints.disable(control, "default", to, "ann", "on holiday")
    assert told()[to].state == "disabled"
    assert told()[unused].state == "unused"
    totals = delivery_log.totals(control)
    assert totals.by_state == {"pending": 1, "delivered": 2}
    assert totals.attempts == {"arrived": 2, "failed": 2, "unknown": 1}
    assert totals.oldest_pending_at is None


def test_the_log_is_read_page_by_page(control):
    endpoint(control)
    for n in range(5):
        emit(control, at=NOW + n * HOUR)
    first = log(control, limit=2)
    second = log(control, limit=2, before=first[-1].id)
    assert [one.id for one in first + second] == [5, 4, 3, 2]
    assert log(control, state="dead") == []
    assert delivery_log.log(control, "rival") == []
