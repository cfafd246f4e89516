"""The Alerts page without a screen: its address, what its parts say, and what an operator changes on it."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_network

import pytest
from asked_pages import callback, every, words
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from millicent.dashboard import app as pages
from millicent.dashboard import format as fmt
from millicent.dashboard.access import Access
from millicent.dashboard.pages import alerts_answers as answers
from millicent.dashboard.pages.alerts_acts import ACTS, carry_out
from millicent.dashboard.pages.alerts_forms import FAMILIES, asked_of, families_of, types_of
from millicent.dashboard.pages.alerts_parts import ago
from millicent.dashboard.pages.alerts_place import SHOWN, Looked, Opened
from millicent.dashboard.pages.alerts_rules import rule_of, sentence
from millicent.dashboard.state import View
from millicent.warehouse import alert_rules, alerts, budgets, delivery_log, endpoints, outbox
from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.alerts import Alert
from millicent.warehouse.budgets import Budget
from millicent.warehouse.control import DECLARED, DEFAULT_TENANT
from millicent.warehouse.outbox import Outcome
from millicent.warehouse.query import Filter
from millicent.warehouse.reach import Reach
from millicent.warehouse.store import Warehouse

HOSTILE = "<img src=x onerror=alert(1)>"
HOUR = timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)
ADDRESS = "https://192.0.2.7/hook"
TICKED = "\n".join(FAMILIES)
places = st.builds(
    Looked, shown=st.sampled_from(tuple(SHOWN)), budget=st.none() | st.integers(0, 10**6),
    view=st.builds(View, range=st.sampled_from(("4w", "mtd")), zone=st.none() | st.just("Europe/Berlin")),
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data", reach=Reach((ip_network("192.0.2.0/24"),)))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def operating(asking):
    asking()


@pytest.fixture
def budget(warehouse) -> Budget:
    made = Budget(name="Search", amount=Decimal(1000), owner="Ana", effective_from=START,
                  filters=(Filter("team", ("Search",)),))  # fmt: skip
    return budgets.put(warehouse.control, DEFAULT_TENANT, made, "test")


@pytest.fixture
def fire(warehouse, budget):
    """Has an alert of the budget fire."""

    def make(threshold: str = "1", *, at: datetime | None = None, told: bool = True, **more) -> Alert:
        rules = alert_rules.live(warehouse.control, DEFAULT_TENANT, budget=budget.id)
        rule = next(one for one in rules if one.kind == "actual" and one.threshold == Decimal(threshold))
        when, made = at or datetime.now(UTC), f"al_{uuid.uuid4().hex}"
        summary = f"Search has spent {fmt.percent(rule.threshold, 0)} of its limit"
        data = {
            "summary": summary, "currency": "USD", "actual": "1061.2", "limit": "1000", "forecast": {"p50": "1120"},
            "budget": {"id": budget.id, "name": "Search", "owner": "Ana"}, "driver": f"{HOSTILE} drove +$310.",
            "run_out_date": "2026-03-27", "data_complete_through": "2026-03-26T12:00:00Z",
            "top_drivers": [{"dimension": "model", "value": HOSTILE, "delta_amount": "310", "delta_ratio": "0.41",
                             "reason": "more tokens per call"}],
            **more,
        }  # fmt: skip
        alert = Alert(
            id=made, rule=rule.id, budget=budget.id, scope=f"budget:{budget.id}", period_start=START,
            period_end=START + timedelta(days=31), dedup_key=f"{rule.id} {made}", state="firing",
            severity=rule.severity, late=bool(more.get("late")), told=told, opened_at=when, changed_at=when,
            summary=summary, data=data,
        )  # fmt: skip
        with warehouse.control.change(DEFAULT_TENANT, "test") as change:
            alerts.fire(change.connection, DEFAULT_TENANT, alert, rule.kind, rule.endpoints)
        return alert

    return make


@pytest.fixture
def endpoint(warehouse) -> endpoints.Endpoint:
    made = endpoints.put(warehouse.control, DEFAULT_TENANT, "on call", "webhook", ADDRESS, "test",
                         check=endpoints.within(warehouse.reach))  # fmt: skip
    return made.endpoint


def act(warehouse, do: str, **told):
    return carry_out(warehouse, {"do": do, "told": told, "at": 1})


def shown(told) -> str:
    return json.dumps(told, default=lambda one: one.to_plotly_json(), ensure_ascii=False)


def inbox(warehouse, **place) -> str:
    return words(answers.headline(warehouse, Looked(**place))[4])


def drawer(warehouse, kind, **told):
    return answers.opened(warehouse, Looked(), Opened.of(kind, **told))


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Looked.parse(place.href()) == place


@given(st.text(max_size=300))
def test_any_address_opens(search):
    assert Looked.parse(f"?{search}").href()
    assert Opened.parse(search) is None or Opened.parse(search).written


@given(st.sampled_from(("alert", "endpoint", "rule", "add-rule", "add-endpoint")), texts)
def test_what_is_open_is_read_as_it_was_written(kind, text):
    assert Opened.parse(Opened.of(kind, id=text).written) == Opened.of(kind, id=text)


# ---- the inbox


def test_a_quiet_product_says_so_and_what_to_do(warehouse, asking):
    said = words(answers.headline(warehouse, Looked()))
    assert "All quiet" in said
    assert "Nobody is told yet" in words(answers.endpoints_shown(warehouse, Looked()))
    assert "add-endpoint" in shown(answers.endpoints_shown(warehouse, Looked()))
    asking("key 1", operates=False)
    assert "add-endpoint" not in shown(answers.endpoints_shown(warehouse, Looked()))


def test_an_alert_says_what_drove_it_and_what_has_to_be_known_of_it(warehouse, fire):
    fire(late=True, incomplete=["unpriced_calls"], told=False)
    said = inbox(warehouse)
    for part in ("Search has spent 100% of its limit", f"{HOSTILE} drove +$310.", "Serious", "late", "incomplete",
                 "nobody was told", "just now", "Ana", "Acknowledge", "Snooze", "Resolve"):  # fmt: skip
        assert part in said
    assert "1 need somebody" in words(answers.headline(warehouse, Looked())[1])


def test_those_that_need_somebody_stand_first(warehouse, fire):
    now = datetime.now(UTC)
    seen = fire("0.5", at=now)
    fire("0.8", at=now - HOUR)
    alerts.acknowledge(warehouse.control, DEFAULT_TENANT, seen.id, "ana")
    said = inbox(warehouse)
    assert said.index("80%") < said.index("50%")
    assert "seen by ana" in " ".join(said.split())


def test_each_alert_is_listed_where_it_belongs(warehouse, fire, budget):
    asleep, over, _ = fire("0.5"), fire("0.8"), fire("1")
    alerts.snooze(warehouse.control, DEFAULT_TENANT, asleep.id, datetime.now(UTC) + HOUR, "ana")
    alerts.resolve(warehouse.control, DEFAULT_TENANT, over.id, "ana")
    found = {show: inbox(warehouse, shown=show) for show in SHOWN}
    listed = {show: [part for part in ("50%", "80%", "100%") if part in said] for show, said in found.items()}
    assert listed == {"open": ["100%"], "snoozed": ["50%"], "resolved": ["80%"], "all": ["50%", "80%", "100%"]}
    assert "snoozed until" in found["snoozed"]
    assert "ana resolved it" in found["resolved"]
    assert "All quiet" in inbox(warehouse, budget=budget.id + 1)
    assert "Search" in words(answers.headline(warehouse, Looked(budget=budget.id))[3])
    assert "50%" in inbox(warehouse, shown="all", budget=budget.id)


def test_who_may_not_change_alerts_is_offered_nothing_and_refused(warehouse, fire, asking):
    alert = fire()
    asking("key 1", operates=False)
    parts = [answers.headline(warehouse, Looked()), answers.rules_shown(warehouse, Looked()),
             drawer(warehouse, "alert", id=alert.id), drawer(warehouse, "add-rule")]  # fmt: skip
    assert all("alerts-do" not in shown(part) for part in parts)
    for do in ACTS:
        said = act(warehouse, do, id=alert.id)
        assert (said.done, "ask for an operator" in said.words) == (False, True)
    assert alerts.find(warehouse.control, DEFAULT_TENANT, alert.id).state == "firing"


@pytest.mark.parametrize(
    "told", [None, "acknowledge", {"do": "no"}, {"do": ["acknowledge"]}, {"do": "snooze", "told": 3}]
)
def test_what_is_no_act_is_refused(warehouse, told):
    assert not carry_out(warehouse, told).done


def test_people_see_to_an_alert_put_it_off_and_resolve_it(warehouse, fire):
    alert = fire()

    def now() -> Alert:
        return alerts.find(warehouse.control, DEFAULT_TENANT, alert.id)

    assert answers.open_count(warehouse) == 1
    assert act(warehouse, "snooze", id=alert.id, hours="24").done
    assert now().is_snoozed(datetime.now(UTC) + 23 * HOUR)
    assert answers.open_count(warehouse) == 0
    assert act(warehouse, "wake", id=alert.id).done
    assert not now().is_snoozed(datetime.now(UTC))
    assert act(warehouse, "acknowledge", id=alert.id).done
    assert (now().state, now().acknowledged_by) == ("acknowledged", "session")
    assert act(warehouse, "resolve", id=alert.id).done
    assert now().state == "resolved"
    life = words(drawer(warehouse, "alert", id=alert.id)[0])
    for part in ("Fired", "Snoozed", "taken back", "Acknowledged", "Resolved", "session"):
        assert part in life
    again = act(warehouse, "resolve", id=alert.id)
    assert (again.done, "is resolved since" in again.words) == (False, True)


def test_nothing_is_put_off_for_longer_than_is_offered(warehouse, fire):
    alert = fire()
    for hours in ("99999", "-1", "x", ""):
        assert "not offered" in act(warehouse, "snooze", id=alert.id, hours=hours).words
    assert not alerts.find(warehouse.control, DEFAULT_TENANT, alert.id).is_snoozed(datetime.now(UTC))


# ---- one alert


def test_an_alert_opened_tells_its_numbers_its_drivers_and_every_attempt(warehouse, endpoint, fire):
    alert, now = fire(), datetime.now(UTC)
    taken = outbox.take(warehouse.control, endpoint.id, now)
    outbox.attempted(warehouse.control, taken, Outcome(status=503, took_ms=41, answer=HOSTILE), now)
    what, rests = drawer(warehouse, "alert", id=alert.id)
    said = words(what)
    for part in ("$1,061", "$1,000", "106.1% of it", "$1,120", HOSTILE, "+$310", "more tokens per call", "+41%",
                 "on call", "503", "41 ms", "A threshold was crossed", "Ana",
                 "27 Mar 2026", "through 26 Mar 12:00"):  # fmt: skip
        assert part in said
    assert not rests, "it is sent again within seconds"
    assert "Nothing here" not in said
    outbox.replay(warehouse.control, DEFAULT_TENANT, taken.delivery, "test")
    again = outbox.take(warehouse.control, endpoint.id, datetime.now(UTC))
    outbox.attempted(warehouse.control, again, Outcome(status=204, took_ms=9), datetime.now(UTC))
    what, rests = drawer(warehouse, "alert", id=alert.id)
    assert rests
    assert "Delivered" in words(what)


@pytest.mark.parametrize("data", [{}, {"top_drivers": "no", "budget": 3, "forecast": [], "limit": "x", "driver": 7}])
def test_an_alert_that_tells_little_opens_too(warehouse, fire, data):
    alert = fire(**dict.fromkeys(("actual", "limit", "forecast", "budget", "driver", "top_drivers")), late=False)
    with warehouse.control.change(DEFAULT_TENANT, "test") as change:
        change.connection.execute(alerts.alerts.update().values(data=data))
    assert "Fired" in words(drawer(warehouse, "alert", id=alert.id)[0])


@pytest.mark.parametrize("kind", ["alert", "endpoint", "rule"])
def test_what_is_not_there_is_said_to_be_gone(warehouse, kind):
    assert "There is nothing here" in words(drawer(warehouse, kind, id="9" * 50)[0])


# ---- endpoints


def test_an_endpoint_is_added_and_its_secret_is_told_once(warehouse):
    made = act(
        warehouse, "add-endpoint", kind="webhook", name="on call", address=ADDRESS, **{"endpoint-families": TICKED}
    )
    assert made.done
    name, secret = made.secret
    assert (name, secret.startswith("whsec_")) == ("on call", True)
    (found,) = endpoints.listed(warehouse.control, DEFAULT_TENANT)
    assert made.opens == Opened.of("endpoint", id=found.id).written
    assert found.types == ()
    everything = shown([answers.endpoints_shown(warehouse, Looked()), drawer(warehouse, "endpoint", id=found.id)])
    assert secret not in everything + repr(made)
    assert "/hook" not in everything
    assert "already" in act(warehouse, "add-endpoint", kind="webhook", name="on call", address=ADDRESS,
                            **{"endpoint-families": TICKED}).words  # fmt: skip


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"kind": "fax"}, "fax"),
        ({"name": " "}, "name is missing"),
        ({"address": ""}, "address is missing"),
        ({"address": "https://127.0.0.1/x"}, "127.0.0.1"),
        ({"address": "https://169.254.169.254/x"}, "169.254.169.254"),
        ({"address": "http://192.0.2.7/x"}, "clear text"),
        ({"address": "ftp://192.0.2.7/x"}, "ftp"),
        ({"endpoint-families": "nothing"}, "tick at least one"),
        ({"kind": "pagerduty"}, "integration key is missing"),
        ({"kind": "smtp", "server": "192.0.2.7", "from": "a@example.com"}, "Who gets it is missing"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_in_words(warehouse, told, said):
    whole = {"kind": "webhook", "name": "on call", "address": ADDRESS, "endpoint-families": TICKED, **told}
    outcome = act(warehouse, "add-endpoint", **whole)
    assert not outcome.done
    assert said in outcome.words
    assert endpoints.listed(warehouse.control, DEFAULT_TENANT) == []


def test_a_mail_endpoint_is_written_as_one_address():
    asked = asked_of({"kind": "smtp", "name": "Finance", "server": "mail.example.com", "from": "m@example.com",
                      "to": "a@example.com; b@example.com", "user": "u", "password": "p:w",
                      "endpoint-families": "budget"})  # fmt: skip
    assert asked.address == "smtps://mail.example.com?from=m@example.com&to=a@example.com,b@example.com"
    assert asked.secret == "u:p:w"
    assert "p:w" not in repr(asked)


def test_what_an_endpoint_is_told_of_goes_by_families():
    known = endpoints.TYPES
    assert types_of(tuple(FAMILIES), known) == ()
    of_budgets = types_of(("budget",), known)
    assert of_budgets
    assert all(one.startswith("budget.") for one in of_budgets)
    assert families_of(of_budgets) == "budgets"
    assert families_of(()) == "everything"
    parts = [types_of((family,), known) for family in FAMILIES]
    assert sorted(one for part in parts for one in part) == sorted(set(known) - {endpoints.TEST}), "each in one family"


def test_an_endpoint_says_how_it_is_doing_and_is_tested_rotated_turned_off_and_ended(warehouse, endpoint):
    def panel() -> str:
        return words(answers.endpoints_shown(warehouse, Looked())[0])

    assert "Nothing sent yet" in panel()
    assert act(warehouse, "test-endpoint", id=endpoint.id).done
    now = datetime.now(UTC)
    taken = outbox.take(warehouse.control, endpoint.id, now)
    outbox.attempted(warehouse.control, taken, Outcome(error="no answer in 20 s", took_ms=20_000), now)
    assert "Failing since just now: no answer in 20 s" in panel()
    assert "1 waiting" in panel()
    said = words(drawer(warehouse, "endpoint", id=endpoint.id)[0])
    for part in ("A test", "no answer", "20,000 ms", "Rotate the secret", "Turn off", "everything"):
        assert part in said
    name, secret = act(warehouse, "rotate-endpoint", id=endpoint.id, kind="webhook").secret
    assert (name, secret.startswith("whsec_")) == ("on call", True)
    assert act(warehouse, "disable-endpoint", id=endpoint.id).done
    assert "Off: turned off by session" in panel()
    assert "Send a test" not in panel()
    assert act(warehouse, "enable-endpoint", id=endpoint.id).done
    assert act(warehouse, "end-endpoint", id=endpoint.id).opens == ""
    assert "Nobody is told yet" in panel()


def test_a_delivery_is_sent_again(warehouse, endpoint, fire):
    fire()
    now = datetime.now(UTC)
    taken = outbox.take(warehouse.control, endpoint.id, now)
    outbox.attempted(warehouse.control, taken, Outcome(status=200, took_ms=5), now)
    (before,) = delivery_log.log(warehouse.control, DEFAULT_TENANT)
    assert (before.state, act(warehouse, "replay", id=str(before.id)).done) == ("delivered", True)
    (after,) = delivery_log.log(warehouse.control, DEFAULT_TENANT)
    assert (after.state, after.event) == ("pending", before.event)
    assert "is no number" in act(warehouse, "replay", id="1; DROP").words


def test_all_that_was_given_up_is_sent_again(warehouse, endpoint, fire):
    act(warehouse, "disable-endpoint", id=endpoint.id)
    for _ in range(3):
        fire()
    assert "Send again what was given up: 3" in words(drawer(warehouse, "endpoint", id=endpoint.id)[0])
    act(warehouse, "enable-endpoint", id=endpoint.id)
    assert "3 of its deliveries" in act(warehouse, "replay-dead", id=endpoint.id).words
    assert {one.state for one in delivery_log.log(warehouse.control, DEFAULT_TENANT)} == {"pending"}


def test_what_the_file_declares_is_not_changed_here(warehouse):
    made = endpoints.put(warehouse.control, DEFAULT_TENANT, "declared", "webhook", ADDRESS, DECLARED,
                         check=endpoints.within(warehouse.reach))  # fmt: skip
    what = drawer(warehouse, "endpoint", id=made.endpoint.id)[0]
    assert "declared in millicent.toml" in words(what)
    assert "end-endpoint" not in shown(what)
    assert "millicent.toml" in act(warehouse, "end-endpoint", id=made.endpoint.id).words


# ---- rules


def test_rules_stand_by_their_budget_with_how_they_are(warehouse, budget, fire):
    fire()
    assert act(warehouse, "put-rule", kind="unit_cost", name="Dear tokens", threshold="2.50", floor="10",
               window_hours="24", filters="team:Search", severity="error").done  # fmt: skip
    table, _, count = answers.rules_shown(warehouse, Looked())
    said = words(table)
    for part in ("Search", "Without a budget", "Spend reaches 80% of the limit", "1 open", "every endpoint",
                 "1M tokens cost $2.50 or more over 24 h, from $10.00 on", "team Search"):  # fmt: skip
        assert part in said
    assert count.startswith(str(len(alert_rules.live(warehouse.control, DEFAULT_TENANT))))
    assert budget.name in words(answers.rules_shown(warehouse, Looked(budget=budget.id))[0])


def test_a_rule_is_added_changed_muted_and_ended(warehouse, budget, endpoint):
    def rule() -> Rule:
        return next(one for one in alert_rules.live(warehouse.control, DEFAULT_TENANT) if one.name == "Nine tenths")

    told = {"kind": "actual", "name": "Nine tenths", "budget": str(budget.id), "severity": "error"}
    assert act(warehouse, "put-rule", **told, threshold="90%", **{"rule-endpoints": endpoint.id}).done
    assert (rule().threshold, rule().endpoints) == (Decimal("0.9"), (endpoint.id,))
    number = str(rule().id)
    form = drawer(warehouse, "rule", id=number)[0]
    assert "90" in every(json.loads(shown(form)), "value")
    assert act(warehouse, "put-rule", **told, threshold="95", id=number).done
    assert (str(rule().id), rule().threshold, rule().endpoints) == (number, Decimal("0.95"), ())
    assert act(warehouse, "mute-rule", id=number, hours="168").done
    assert rule().is_muted(datetime.now(UTC) + 167 * HOUR)
    assert "Muted until" in words(answers.rules_shown(warehouse, Looked())[0])
    assert "Unmute" in words(drawer(warehouse, "rule", id=number)[0])
    assert act(warehouse, "unmute-rule", id=number).done
    assert not rule().is_muted(datetime.now(UTC))
    assert act(warehouse, "end-rule", id=number).done
    assert all(one.name != "Nine tenths" for one in alert_rules.live(warehouse.control, DEFAULT_TENANT))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"threshold": "much"}, "much"),
        ({"threshold": ""}, "threshold is missing"),
        ({"threshold": "-5"}, "not above 0"),
        ({"budget": "x"}, "budget 'x'"),
        ({"budget": "4711"}, "4711"),
        ({"severity": "loud"}, "loud"),
        ({"kind": "guess"}, "guess"),
        ({"name": ""}, "name is missing"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_in_words(warehouse, budget, told, said):
    whole = {"kind": "actual", "name": "Nine tenths", "budget": str(budget.id), "threshold": "90", **told}
    outcome = act(warehouse, "put-rule", **whole)
    assert not outcome.done
    assert said in outcome.words


@pytest.mark.parametrize(
    ("kind", "threshold", "more", "words_"),
    [
        ("actual", "80", {}, "Spend reaches 80% of the limit"),
        ("forecast", "110", {}, "Forecast reaches 110% of the limit"),
        ("burn_rate", "3", {"floor": "10"}, "Spend runs at 3× the even pace over 24 h, from $10.00 on"),
        ("anomaly", "20", {"floor": "1,500"}, "A day is 20% above the same weekday, by $1,500 or more"),
        ("freshness", "2", {}, "No call for 2× the longest silence"),
        ("unpriced", "0.5", {}, "0.5% of calls have no price, over 24 h"),
    ],
)
def test_a_rule_is_a_sentence(kind, threshold, more, words_):
    of = {"budget": "1"} if kind in alert_rules.OF_BUDGETS else {}
    assert sentence(rule_of({"kind": kind, "name": "One", "threshold": threshold, **of, **more})) == words_


def test_amounts_of_a_rule_are_in_the_currency_of_its_budget():
    rule = Rule(name="x", kind="anomaly", threshold=Decimal("0.2"), floor=Decimal(50))
    assert sentence(rule, "EUR").endswith("by €50.00 or more")
    assert fmt.presented().currency == "USD"


def test_how_long_ago_is_said_as_people_say_it():
    now = START
    told = {timedelta(seconds=30): "just now", timedelta(minutes=5): "5 min ago", 3 * HOUR: "3 h ago",
            30 * HOUR: "1 day ago", 80 * HOUR: "3 days ago", timedelta(days=20): "9 Feb 00:00"}  # fmt: skip
    assert {passed: ago(now - passed, now) for passed in told} == told


# ---- over HTTP


def test_answers_are_small_and_only_text_where_text_was_told(warehouse, fire):
    for at in range(20):
        more = Budget(name=f"Budget {at}", amount=Decimal(1000), effective_from=START)
        budgets.put(warehouse.control, DEFAULT_TENANT, more, "test")
    for at in range(60):
        fire(("0.5", "0.8", "1", "1.2")[at % 4], at=datetime.now(UTC) - at * HOUR)
    site = TestClient(Access(pages.create_app(warehouse), warehouse.control, insecure_local=True),
                      base_url="http://127.0.0.1:8050")  # fmt: skip
    found = callback(site, "inbox-body", most_bytes=80_000, scope="?v=1")
    assert "older ones" in words(found["inbox-body"]["children"])
    for part in ("endpoints-body", "rules-body"):
        callback(site, part, most_bytes=80_000, scope="?v=1")
    assert answers.open_count(warehouse) == 60
    said = callback(site, "alerts-secret", do={"do": "kept", "told": {}, "at": 5}, scope="?v=1")
    assert said["alerts-secret"]["children"] is None
    said = callback(site, "alerts-secret", do={"do": "put-rule", "told": {}, "at": 5}, scope="?v=1")
    assert "toast bad" in json.dumps(said)
    assert "alerts-anew" not in said, "a form that is refused keeps what was written into it"
