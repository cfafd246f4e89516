"""Budgets that say no: what a call is told before it is made, by the SDK's route and by the one for gateways."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from millicent.pricing.entries import FxRate
from millicent.warehouse import budgets
from millicent.warehouse.enforcement import Asked, Enforcer, Made
from millicent.warehouse.query import Filter

NOW = datetime.now(UTC)
CHECK, SETTLE = "/api/v1/budgets/check", "/api/v1/budgets/settle"
SEARCH = {"name": "Search", "amount": "10", "filters": ["team:Search"], "enforcement": "block",
          "effective_from": "2026-01-01"}  # fmt: skip


@pytest.fixture
def warehouse(warehouse_of):
    """Four calls of Search this month, for two USD each, and one of Ads that has no price."""
    known = {"started_at": NOW, "model": "gpt-4o-2024-08-06"}
    return warehouse_of(
        *({**known, "span_id": n, "team": "Search", "billed_cost_usd": Decimal(2)} for n in range(4)),
        {**known, "span_id": 9, "team": "Ads", "price_status": "unpriced", "model": "new"},
    )


@pytest.fixture
def app(client):
    return client("ingest")


def budget(operator, **told):
    made = operator.post("/api/v1/budgets", json={**SEARCH, **told})
    assert made.status_code == 201, made.text
    return made.json()


def ask(app, usd="1", **told):
    tags = told.pop("tags", {"team": "Search"})
    answer = app.post(CHECK, json={"tags": tags, "estimate_usd": usd, **told})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_calls_are_let_through_until_what_is_spent_and_set_aside_reaches_the_limit(operator, app):
    budget(operator)
    first, second, third = ask(app), ask(app), ask(app, "0.01")
    assert [one["decision"] for one in (first, second, third)] == ["allow", "allow", "deny"]
    (told,) = third["budgets"]
    assert (told["spent"], told["reserved"], told["limit"]) == ("8", "2", "10")
    assert third["reservation"] is None
    assert third["reason"].startswith("budget Search: 8.00 USD spent and 2.00 set aside of 10.00, and a call is")
    assert told["resets_at"] in third["reason"].replace("+00:00", "Z") or told["resets_at"].endswith("Z")


def test_a_call_that_would_pass_the_limit_is_refused_and_a_smaller_one_is_not(operator, app):
    budget(operator)
    assert ask(app, "2.000000000001")["decision"] == "deny"
    assert ask(app, "2")["decision"] == "allow"
    assert ask(app, "0")["decision"] == "deny"


def test_a_call_counts_for_every_budget_whose_scope_it_is_in(operator, app):
    budget(operator)
    budget(operator, name="Company", filters=[], amount="8.5")
    budget(operator, name="Not Ads", filters=["-team:Ads"], amount="100")
    budget(operator, name="Old", filters=["team:Search"], amount="1", enforcement="none")
    budget(operator, name="One model", filters=["team:Search", "model:gpt-4o-2024-08-06"], amount="50")
    told = ask(app)
    assert told["decision"] == "deny"
    assert {one["name"]: one["decision"] for one in told["budgets"]} == {
        "Company": "deny", "Not Ads": "allow", "Search": "allow",
    }  # fmt: skip
    named = ask(app, "0.1", tags={"team": "Search", "model": "gpt-4o"})
    assert len(named["budgets"]) == 4
    assert named["dimensions"] == ["model", "team"]
    assert [one["name"] for one in ask(app, "0.1", tags={})["budgets"]] == ["Company", "Not Ads"]
    assert len(ask(app, "0.1", tags={"team": "Search", "model": "gpt-4"})["budgets"]) == 3


def test_a_budget_that_warns_lets_calls_through(operator, app):
    budget(operator, enforcement="warn", amount="8")
    told = ask(app)
    assert (told["decision"], told["budgets"][0]["decision"]) == ("warn", "warn")
    assert told["reservation"]
    assert told["reason"].startswith("budget Search: 8.00 USD spent")


def test_what_nobody_limits_needs_no_reservation(app):
    told = ask(app)
    assert (told["decision"], told["reservation"], told["budgets"], told["calls"]) == ("allow", None, [], 1)


def test_calls_of_late_tell_what_one_will_cost_where_nobody_does(operator, app):
    budget(operator)
    budget(operator, name="Ads", filters=["team:Ads"])
    told = ask(app, None, tags={"team": "Search", "model": "gpt-4o"})
    assert [(one["estimate"], one["estimate_from"]) for one in told["budgets"]] == [("2", "recent")]
    (told,) = ask(app, None, tags={"team": "Ads", "model": "new"})["budgets"]
    assert (told["estimate"], told["estimate_from"], told["incomplete"]) == (None, "unknown", ["1 call is unpriced"])


def test_bounds_of_tokens_are_priced_by_the_price_book(operator, app, client):
    budget(operator)
    usage = {"model": "gpt-4o", "provider": "openai", "input_tokens": 10_000, "output_tokens": 1_000}
    tags = {"team": "Search", "model": "gpt-4o", "provider": "openai"}
    told = ask(app, None, tags=tags, input_tokens=10_000, output_tokens=1_000)
    price = client("read").post("/api/v1/price", json=usage).json()["billed_cost_usd"]
    assert [(one["estimate"], one["estimate_from"]) for one in told["budgets"]] == [(price, "tokens")]


def test_several_calls_are_granted_while_money_is_plenty_and_fewer_when_it_is_short(operator, app):
    budget(operator)
    assert ask(app, "0.001", calls=64)["calls"] == 64
    assert ask(app, "0.05", calls=64)["calls"] == 4  # an eighth of the 38 that fit
    assert ask(app, "1.5", calls=64)["calls"] == 1
    assert ask(app, "1.5", calls=64)["calls"] == 0


def test_what_was_not_used_is_free_again_and_what_was_used_is_kept(operator, app):
    budget(operator)
    lease = ask(app, "0.1", calls=2)
    assert lease["calls"] == 2
    settled = [{"id": lease["reservation"], "unused": True}, {"id": lease["reservation"], "cost_usd": "1.75"}]
    assert app.post(SETTLE, json={"settlements": settled}).json() == {"settled": 2, "unknown": []}
    assert ask(app, "0")["budgets"][0]["reserved"] == "1.75"
    again = app.post(SETTLE, json={"settlements": [{"id": lease["reservation"]}]}).json()
    assert again == {"settled": 0, "unknown": [lease["reservation"]]}


def test_usage_is_priced_when_a_call_is_settled(operator, app):
    budget(operator)
    made = ask(app, "1")
    usage = {"model": "gpt-4o", "provider": "openai", "input_tokens": 1000, "output_tokens": 300}
    app.post(SETTLE, json={"settlements": [{"id": made["reservation"], "usage": usage}]})
    assert ask(app, "0")["budgets"][0]["reserved"] == "0.0055"


def test_what_has_ended_is_settled_before_the_next_call_is_judged(operator, app):
    budget(operator)
    made = ask(app, "2")
    assert ask(app, "0.5")["decision"] == "deny"
    ended = [{"id": made["reservation"], "cost_usd": "1.25"}]
    told = ask(app, "0.5", settlements=ended)
    assert (told["decision"], told["budgets"][0]["reserved"]) == ("allow", "1.25")


def test_any_number_of_callers_at_once_are_not_promised_the_same_money(operator, app):
    budget(operator)
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda _: ask(app, "0.125")["decision"], range(48)))
    assert told.count("allow") == 16


# ---- as time passes: with a clock of its own


def put(warehouse, **told):
    known = {"name": "Search", "amount": Decimal(10), "filters": (Filter("team", ("Search",)),),
             "effective_from": datetime(2026, 1, 1, tzinfo=UTC), "enforcement": "block"}  # fmt: skip
    budgets.put(warehouse.control, "default", budgets.Budget(**{**known, **told}), "test")


@pytest.fixture
def late(warehouse):
    """An enforcer whose clock is told, and what it judges."""
    put(warehouse)
    clock = [NOW]
    return clock, Enforcer(warehouse, lambda: clock[0]), Asked(told={"team": "Search"}, estimate_usd=Decimal(1))


def reserved(enforcer, asked):
    (one,) = enforcer.check("default", asked).budgets
    return one.reserved


def test_money_is_kept_until_the_call_is_among_the_facts(late, warehouse):
    clock, enforcer, asked = late
    made = enforcer.check("default", asked)
    enforcer.settle("default", [Made(id=made.reservation, cost_usd=Decimal("0.75"))])
    nothing = Asked(told=asked.told, estimate_usd=Decimal(0))
    clock[0] += timedelta(seconds=60)
    warehouse.complete_through = NOW + timedelta(seconds=10)
    assert reserved(enforcer, nothing) == Decimal("0.75")
    clock[0] += timedelta(seconds=2)
    warehouse.complete_through = NOW + timedelta(seconds=12)
    assert reserved(enforcer, nothing) == 0


def test_a_call_that_is_not_heard_of_again_is_forgotten(late):
    clock, enforcer, asked = late
    assert enforcer.check("default", asked).expires_at == NOW + timedelta(minutes=5)
    clock[0] += timedelta(minutes=4, seconds=59)
    assert reserved(enforcer, asked) == 1
    clock[0] += timedelta(seconds=1)
    assert reserved(enforcer, asked) == 1  # the second one


def test_it_is_said_when_facts_lag_behind_and_who_asks_decides(late, warehouse):
    clock, enforcer, asked = late
    warehouse.complete_through = NOW
    clock[0] += timedelta(minutes=3)
    told = enforcer.check("default", asked)
    assert (told.decision, told.budgets[0].spent, told.calls) == ("warn", None, 1)
    assert "calls are stored up to" in told.reason
    strict = Asked(told=asked.told, estimate_usd=Decimal(1), strict=True)
    told = enforcer.check("default", strict)
    assert (told.decision, told.reservation, told.calls) == ("deny", None, 0)


def test_spend_is_read_again_once_it_is_a_second_old(late, warehouse):
    clock, enforcer, asked = late
    asks, original = [], warehouse.ask
    warehouse.ask = lambda *told: asks.append(told) or original(*told)
    for seconds in (0, 0.9, 30, 0):
        clock[0] += timedelta(seconds=seconds)
        enforcer.check("default", asked)
    assert len(asks) == 2


def test_two_processes_agree(late, warehouse):
    _, enforcer, asked = late
    other = Enforcer(warehouse, lambda: NOW)
    told = [one.check("default", asked).decision for one in (enforcer, other, enforcer)]
    assert told == ["allow", "allow", "deny"]


def test_a_budget_in_another_currency_is_judged_by_the_rate_of_now(warehouse):
    since = datetime(2026, 1, 1, tzinfo=UTC)
    warehouse.control.add_prices(
        [FxRate(currency="JPY", usd_per_unit=Decimal("0.0065"), effective_from=since, source="a bank")]
    )
    put(warehouse, name="In yen", currency="JPY", amount=Decimal(1400))
    asked = Asked(told={"team": "Search"}, estimate_usd=Decimal("0.65"))
    (told,) = Enforcer(warehouse, lambda: NOW).check("default", asked).budgets
    assert (told.spent, told.each, told.decision) == (Decimal("1230.769230769230769230769231"), 100, "allow")


def test_a_rolling_budget_does_not_begin_anew(warehouse):
    put(warehouse, name="Rolling", period="rolling", rolling_days=7, amount=Decimal(8))
    (told,) = Enforcer(warehouse, lambda: NOW).check("default", Asked(told={"team": "Search"})).budgets
    assert (told.decision, told.spent, told.resets_at) == ("deny", 8, None)
    assert "anew" not in told.words


def test_what_earlier_periods_left_is_in_the_limit(warehouse):
    since = (NOW.replace(day=1) - timedelta(days=1)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    put(warehouse, rollover="unspent", effective_from=since)
    (told,) = Enforcer(warehouse, lambda: NOW).check("default", Asked(told={"team": "Search"})).budgets
    assert (told.limit, told.decision) == (20, "allow")


def test_a_budget_whose_currency_has_no_rate_refuses_only_who_wants_it_to(operator, app):
    budget(operator, name="In yen", filters=["team:Ads"], currency="JPY", amount="1000")
    told = ask(app, "1", tags={"team": "Ads"})
    assert (told["decision"], told["calls"]) == ("warn", 1)
    assert "JPY" in told["budgets"][0]["failure"]
    assert ask(app, "1", tags={"team": "Ads"}, on_failure="closed")["decision"] == "deny"


# ---- gateways


def test_a_gateway_is_told_by_the_status(operator, app):
    budget(operator)
    where = {"team": "Search", "estimate_usd": "1.5"}
    let = app.get(CHECK, params=where)
    assert (let.status_code, let.headers["x-millicent-budget"]) == (200, "allow")
    assert let.headers["x-millicent-reservation"].startswith("rsv_")
    no = app.get(CHECK, params=where)
    assert (no.status_code, no.headers["x-millicent-budget"]) == (403, "deny")
    assert no.json()["detail"].startswith("budget Search: 8.00 USD spent and 1.50 set aside")
    later = app.get(CHECK, params={**where, "denied": "429"})
    assert later.status_code == 429
    assert 0 < int(later.headers["retry-after"]) <= 32 * 86400


def test_envoy_asks_with_the_path_of_the_request_and_tells_in_headers(operator, app):
    budget(operator)
    headers = {"x-millicent-team": "Search", "x-millicent-estimate-usd": "1.5", "x-millicent-denied": "429"}
    for status in (200, 429):
        assert app.post(f"{CHECK}/v1/chat/completions?team=Other", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"colour": "red"}, "tag 'colour' is no dimension"),
        ({"estimate_usd": "much"}, "estimate_usd 'much' is no number"),
        ({"estimate_usd": "NaN"}, "is no number"),
        ({"input_tokens": "-1"}, "input_tokens '-1' is no number"),
        ({"denied": "200"}, "denied '200' is no status"),
        ({"on_failure": "shut"}, "'shut' is neither open nor closed"),
        ({"hold_s": "9999"}, "hold_s '9999' is no number from 0 to 3,600"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(app, told, words):
    answer = app.get(CHECK, params=told)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


def test_who_only_reads_cannot_use_up_the_money_of_others(operator, client, app):
    budget(operator)
    reader = client("read")
    assert reader.post(CHECK, json={}).status_code == reader.get(CHECK).status_code == 403
    assert reader.post(SETTLE, json={"settlements": []}).status_code == 403
    assert app.get("/api/v1/budgets").status_code == 403
    assert "may write calls, not read" in app.get("/api/v1/budgets").json()["detail"]
    assert operator.post(CHECK, json={}).status_code == 200


def test_filters_are_kept_as_the_warehouse_keeps_them(operator, app):
    budget(operator, name="Nobody's", filters=["team:null"], amount="1")
    budget(operator, name="Own hardware", filters=["cost_type:hardware"], amount="1")
    assert [one["name"] for one in ask(app, "0", tags={})["budgets"]] == ["Nobody's"]
    told = ask(app, "0", tags={"team": "x", "deployment": "rack"})
    assert [one["name"] for one in told["budgets"]] == ["Own hardware"]
    assert told["dimensions"] == ["deployment", "team"]
