"""What rules tell of real calls: once, late where it is late, and taken back when it is no longer so."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import select

from millicent.collector import pipeline, repricing
from millicent.collector.alerts import evaluating, telling
from millicent.collector.alerts.evaluating import Evaluator, evaluate
from millicent.pricing.entries import Override
from millicent.warehouse import alert_rules, alert_states, alerts, budgets, endpoints, ledger, standings
from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.budgets import Budget
from millicent.warehouse.control import tenants
from millicent.warehouse.delivery_tables import deliveries, events
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.query import Filter
from millicent.warehouse.store import Warehouse

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
FIRST = datetime(2026, 11, 1, tzinfo=UTC)
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
_numbers = itertools.count(1)


class World:
    """A tenant of its own in a warehouse that tests share, and short ways to do what they do over and over."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse, self.control, self.tenant = warehouse, warehouse.control, f"t{next(_numbers)}"
        with self.control.begin() as connection:
            connection.execute(tenants.insert(), {"id": self.tenant, "name": self.tenant})

    def bill(self, at=NOW, usd=1, *, times=1, **told):
        """Store calls that are billed `usd` each; None for an unknown amount."""
        self.commit([self.call(at, usd, **told) for _ in range(times)])

    def call(self, at, usd, **told):
        number = next(_numbers)
        return dict.fromkeys(EMPTY.columns) | {
            "tenant": self.tenant, "trace_id": number.to_bytes(16), "span_id": number, "received_at": at,
            "started_at": at, "billing": "api", "status": "ok", "signal": "span", "dialect": "millicent",
            "usage_source": "reported", "counted": True, "call_count": 1, "provider": "openai", "model": "gpt-4o",
            "team": "search", "input_tokens": 1_000_000, "output_tokens": 0,
            "price_status": "unpriced" if usd is None else "priced",
            "billed_cost_usd": None if usd is None else Decimal(usd), **told,
        }  # fmt: skip

    def commit(self, told):
        rows = pl.DataFrame(told, schema=EMPTY.schema) if isinstance(told, list) else told
        batch = ledger.Batch(rows, pl.DataFrame(schema=OUTCOMES), pl.DataFrame())
        ledger.commit(self.warehouse.engine, batch, "otlp", (0, next(_numbers)))

    def days(self, usd, count, until=NOW, **told):
        """Calls of `usd` at noon of each of the `count` days before that of `until`."""
        noon = until.replace(hour=12)
        self.commit([self.call(noon - n * DAY, usd, **told) for n in range(1, count + 1)])

    def budget(self, amount=100, *rules, since=OCTOBER, **told):
        """A budget with `rules`, each a kind, a threshold and what else it has; judged since long ago."""
        told = {"name": "Search", "filters": (Filter("team", ("search",)),)} | told
        budget = budgets.put(
            self.control, self.tenant, Budget(amount=Decimal(amount), effective_from=since, **told), "ann"
        )
        for one in alert_rules.live(self.control, self.tenant):
            alert_rules.end(self.control, self.tenant, one.id, "ann")
        for kind, threshold, more in rules:
            self.rule(kind, threshold, budget=budget.id, **more)
        return budget

    def rule(self, kind, threshold, *, since=OCTOBER, **told):
        told = {"name": f"rule {next(_numbers)}"} | told
        rule = alert_rules.put(self.control, self.tenant, Rule(kind=kind, threshold=Decimal(threshold), **told), "ann")
        return self.dated(rule, since)

    def dated(self, rule, since):
        """Have a rule be there since an instant."""
        table = alert_rules.alert_rules
        mine = (table.c.tenant == self.tenant) & (table.c.id == rule.id)
        with self.control.begin() as connection:
            connection.execute(table.update().where(mine).values(created_at=since, changed_at=since))
        return alert_rules.find(self.control, self.tenant, rule.id)

    def look(self, now=NOW, **told):
        """What follows: `fired 0.8` or `cleared corrected`, in the order of thresholds."""
        rules = {one.id: one for one in alert_rules.live(self.control, self.tenant)}
        found = evaluate(self.warehouse, self.tenant, now, **told)
        ends = (rules[one.alert.rule].threshold if one.what == "fired" else one.alert.reason for one in found)
        return sorted(f"{one.what} {end}" for one, end in zip(found, ends, strict=True))

    def inbox(self, *states):
        return alerts.inbox(self.control, self.tenant, states=states)[0]

    def events(self):
        with self.control.begin() as connection:
            return connection.execute(
                select(events.c.type, events.c.body)
                .where(events.c.tenant == self.tenant)
                .order_by(events.c.occurred_at)
            ).all()

    def deliveries(self):
        with self.control.begin() as connection:
            return connection.execute(select(deliveries).where(deliveries.c.tenant == self.tenant)).all()

    def price(self, model, usd):
        """Have a million input tokens of a model cost that, those of stored calls too."""
        told = Override(model=model, prices={"input_mtok": Decimal(usd), "output_mtok": Decimal(usd)}, source="list",
                        effective_from=FIRST - 90 * DAY)  # fmt: skip
        self.control.add_prices([told], self.tenant)
        version = self.warehouse.prices.version(self.tenant)
        run = self.control.open_repricing(self.tenant, FIRST - 60 * DAY, NOW + DAY, version)
        list(repricing.apply(self.warehouse, run))

    def priced(self, at, model):
        """Store a call of a million tokens, priced by the book."""
        row = {"tenant": self.tenant, "trace_id": next(_numbers).to_bytes(16), "span_id": next(_numbers),
               "received_at": at, "started_at": at, "team": "search", "provider": "acme", "model": model,
               "input_tokens": 1_000_000, "output_tokens": 0, "billing": "api", "status": "ok", "signal": "span",
               "dialect": "millicent", "usage_source": "reported", "call_count": 1, "counted": True}  # fmt: skip
        rows = pl.concat([EMPTY, pl.DataFrame([row])], how="diagonal_relaxed").cast(dict(EMPTY.schema))
        self.commit(pipeline.price_rows(rows, self.warehouse.prices).select(EMPTY.columns))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    with_calls = Warehouse.embedded(tmp_path_factory.mktemp("alerts"), memory_limit="256MB")
    yield with_calls
    with_calls.close()


@pytest.fixture
def world(warehouse, monkeypatch):
    monkeypatch.setattr(standings, "HISTORY", 31 * DAY)  # of a tenant of its own every month is asked anew
    return World(warehouse)


USUAL = [("actual", "0.5", {}), ("actual", "0.8", {}), ("actual", "1", {}), ("actual", "1.2", {})]


# ---- once


def test_a_threshold_fires_once_and_the_highest_of_several_stands_for_them(world):
    world.budget(100, *USUAL)
    world.bill(usd=40)
    assert world.look() == []
    world.bill(usd=45)
    assert world.look() == ["fired 0.8"]
    assert world.look() == []
    world.bill(usd=1)
    assert world.look(NOW + HOUR) == []
    world.bill(usd=14)
    assert world.look(NOW + HOUR) == ["fired 1"]
    assert [one.type for one in world.events()] == ["budget.threshold.crossed"] * 2
    assert {one.state for one in world.inbox()} == {"firing"}


def test_rules_that_tell_others_are_not_stood_for(world):
    world.budget(100, ("actual", "0.5", {"endpoints": ("ep_team",)}), ("actual", "1", {}), ("actual", "0.8", {}))
    world.bill(usd=150)
    assert world.look() == ["fired 0.5", "fired 1"]


def test_at_the_threshold_is_over_and_a_trifle_below_is_not(world):
    world.budget(3, ("actual", "1", {}))
    world.bill(usd="2.999999999999")
    assert world.look() == []
    world.bill(usd="0.000000000001")
    assert world.look() == ["fired 1"]


def test_a_new_period_takes_back_the_old_one_and_arms_again(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(usd=120)
    assert world.look() == ["fired 1"]
    december = datetime(2026, 12, 1, tzinfo=UTC)
    assert world.look(december) == ["cleared period_over"]
    world.bill(december + HOUR, 120)
    assert world.look(december + 2 * HOUR) == ["fired 1"]
    assert len({one.dedup_key for one in world.inbox()}) == 2


def test_a_rolling_budget_is_about_now_alone(world):
    world.budget(100, ("actual", "1", {}), period="rolling", rolling_days=7)
    world.bill(usd=120)
    assert world.look() == ["fired 1"]
    assert world.look(NOW + 6 * DAY) == []
    assert world.inbox()[0].period_start is None
    assert world.look(NOW + 7 * DAY) == ["cleared fell"]
    world.bill(NOW + 8 * DAY, 100)
    assert world.look(NOW + 8 * DAY) == ["fired 1"]


def test_a_budget_that_has_nothing_left_is_over(world):
    world.budget(100, ("actual", "1", {}), rollover="balance")
    world.bill(FIRST - DAY, 1000)
    assert world.look() == ["fired 1", "fired 1"]
    assert {(one.late, one.summary) for one in world.inbox()} == {
        (True, "Search spent 1,000% of its limit: $1,000 of $100 in October 2026"),
        (False, "Search has spent all and more of its limit: $0.00 of $0.00 in November 2026"),
    }


# ---- late data, other prices, credits


def test_a_backfill_that_crosses_last_month_fires_late(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(FIRST - DAY, 60)
    assert world.look() == []
    world.bill(FIRST - 2 * DAY, 60)
    assert world.look() == ["fired 1"]
    alert = world.inbox()[0]
    assert alert.late
    assert alert.data["late"] is True
    assert alert.summary == "Search spent 120% of its limit: $120 of $100 in October 2026"
    assert world.look(NOW + DAY) == [], "a late alert stays until somebody has seen it"


def test_what_crosses_as_its_period_ends_is_not_late(world):
    world.budget(100, ("actual", "1", {}), period="day")
    midnight = NOW.replace(hour=0) + DAY
    world.bill(midnight - timedelta(minutes=1), 100)
    assert world.look(midnight + timedelta(minutes=1)) == ["fired 1"]
    assert not world.inbox()[0].late


def test_a_past_period_is_a_silent_baseline_for_a_new_rule(world):
    world.bill(FIRST - DAY, 500)
    world.bill(FIRST - 40 * DAY, 90)
    budget = world.budget(100, since=FIRST - 90 * DAY)
    world.rule("actual", "1", budget=budget.id, since=NOW - HOUR)
    assert world.look() == []
    world.bill(FIRST - 40 * DAY, 20)
    assert world.look() == ["fired 1"]
    assert [one.late for one in world.inbox()] == [True]
    assert world.inbox()[0].period_start == datetime(2026, 9, 1, tzinfo=UTC)


def test_other_prices_undo_a_breach_and_say_so(world):
    world.budget(100, ("actual", "1", {}))
    world.price("acme-1", 120)
    world.priced(NOW, "acme-1")
    assert world.look() == ["fired 1"]
    world.price("acme-1", 60)
    assert world.look() == ["cleared repriced"]
    crossed, cleared = (json.loads(one.body)["data"] for one in world.events())
    assert (crossed["actual"], cleared["actual"]) == ("120", "60")
    assert crossed["alert_id"] == cleared["alert_id"]
    assert (cleared["status"], cleared["reason"]) == ("resolved", "repriced")
    world.price("acme-1", 130)
    assert world.look() == ["fired 1"], "it was 5 points below: armed again"


def test_a_past_period_that_was_over_is_taken_back_when_it_is_undone(world):
    world.budget(100, ("actual", "1", {}))
    world.price("acme-2", 120)
    world.priced(FIRST - DAY, "acme-2")
    assert world.look(FIRST - HOUR) == ["fired 1"]
    assert world.look(FIRST) == ["cleared period_over"]
    world.price("acme-2", 50)
    assert world.look() == ["cleared repriced"]
    assert world.look() == []


def credit(world, usd, at=NOW):
    """A call that takes something back, as a correction does."""
    world.bill(at, -usd)


def test_a_small_fall_is_taken_back_and_told_again_after_the_cooldown(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(usd=101)
    assert world.look() == ["fired 1"]
    credit(world, 3)
    assert world.look(NOW + HOUR) == ["cleared corrected"]
    world.bill(usd=5)
    assert world.look(NOW + 2 * HOUR) == [], "98 to 103 is not armed again yet"
    assert world.look(NOW + 24 * HOUR) == ["fired 1"], "and yet it is not left untold"


def test_five_points_below_arm_again(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(usd=101)
    world.look()
    credit(world, 7)
    assert world.look() == ["cleared corrected"]
    world.bill(usd=8)
    assert world.look() == ["fired 1"]


# ---- incomplete


def test_unknown_costs_keep_nothing_from_firing_and_everything_from_being_called_kept(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(usd=None)
    world.bill(usd=110)
    assert world.look() == ["fired 1"]
    alert = world.inbox()[0]
    assert alert.data["incomplete"] == ["1 call is unpriced"]
    credit(world, 90)
    assert world.look() == []
    assert world.inbox("firing") != []


def test_calls_of_no_team_are_told_and_keep_nothing_back(world):
    world.budget(100, ("actual", "1", {}))
    world.bill(team=None)
    world.bill(usd=110)
    assert world.look() == ["fired 1"]
    assert world.inbox()[0].data["incomplete"] == ["1 call is of no team"]
    credit(world, 90)
    assert world.look() == ["cleared corrected"]


def test_a_forecast_is_not_judged_where_too_much_is_unknown(world):
    world.budget(100, ("forecast", "1", {}), ("unpriced", "0.01", {"window_hours": 0}))
    for _ in range(3):
        world.days("1.4", 19)
    world.bill(usd=None)
    assert world.look() == ["fired 0.01"]
    assert world.inbox()[0].summary == ("Search: 1.7% of the calls are of unknown cost, 1 of 58 in November 2026")
    world.bill(usd=0, times=200)
    assert world.look() == ["cleared fell", "fired 1"]


def test_other_terms_take_back_or_fire_again_and_a_new_owner_does_not(world):
    budget = world.budget(100, ("actual", "1", {}))
    world.bill(usd=120)
    assert world.look() == ["fired 1"]

    def edit(**told):
        told = {"name": "Search", "filters": budget.filters, "amount": Decimal(100), "effective_from": NOW} | told
        budgets.put(world.control, world.tenant, Budget(**told), "ann")

    edit(owner="Bea")
    assert world.look() == []
    edit(owner="Bea", amount=Decimal(110))
    assert world.look() == ["fired 1"]
    assert [one.reason for one in world.inbox("resolved")] == ["budget_changed"]
    edit(owner="Bea", amount=Decimal(200))
    assert world.look() == ["cleared budget_changed"]
    types = [one.type for one in world.events()]
    assert types == ["budget.threshold.crossed"] * 2 + ["budget.threshold.cleared"]


def test_another_threshold_is_another_rule(world):
    budget = world.budget(100)
    rule = world.rule("actual", "1", budget=budget.id, name="limit")
    world.bill(usd=120)
    assert world.look() == ["fired 1"]
    alert_rules.put(
        world.control,
        world.tenant,
        Rule(name="limit", kind="actual", threshold=Decimal("1.5"), budget=budget.id),
        "ann",
    )
    assert world.look() == ["cleared rule_changed"]
    assert alert_rules.find(world.control, world.tenant, rule.id).threshold == Decimal("1.5")


def test_what_nobody_asks_any_more_is_over(world):
    budget = world.budget(100, ("actual", "1", {}), ("actual", "0.5", {"endpoints": ("ep_1",)}))
    world.bill(usd=120)
    assert len(world.look()) == 2
    alert_rules.end(world.control, world.tenant, world.inbox()[0].rule, "ann")
    assert world.look() == ["cleared rule_ended"]
    budgets.end(world.control, world.tenant, budget.id, "ann", NOW)
    assert world.look() == ["cleared budget_ended"]
    assert world.inbox("firing") == []


def test_filters_of_a_rule_that_change_close_what_was_about_others(world):
    rule = world.rule("unit_cost", "5", filters=(Filter("team", ("search",)),), name="dear")
    world.bill(usd=10)
    assert world.look() == ["fired 5"]
    alert_rules.put(
        world.control, world.tenant,
        Rule(id=rule.id, name="dear", kind="unit_cost", threshold=Decimal(5), filters=(Filter("model", ("gpt-4o",)),)),
        "ann",
    )  # fmt: skip
    assert world.look() == ["cleared rule_changed", "fired 5"]


# ---- who hears of it


def hook(world, name):
    return endpoints.put(world.control, world.tenant, name, "webhook", f"https://{name}.example.com", "ann").endpoint.id


def test_what_fires_is_delivered_to_those_that_its_rule_names(world):
    one, other = hook(world, "one"), hook(world, "other")
    world.budget(100, ("actual", "1", {}), ("actual", "0.5", {"endpoints": (one,)}))
    world.bill(usd=120)
    world.look()
    assert sorted(row.endpoint for row in world.deliveries()) == sorted([one, one, other])


def test_what_a_muted_rule_finds_is_in_the_inbox_and_told_nobody(world):
    hook(world, "one")
    budget = world.budget(100)
    rule = world.rule("actual", "1", budget=budget.id)
    alert_rules.mute(world.control, world.tenant, rule.id, NOW + DAY, "ann")
    world.bill(usd=120)
    assert world.look() == ["fired 1"]
    assert not world.inbox()[0].told
    credit(world, 90)
    assert world.look(NOW + 2 * DAY) == ["cleared corrected"]
    assert len(world.events()) == 2
    assert world.deliveries() == []
    world.bill(usd=90)
    assert world.look(NOW + 2 * DAY) == ["fired 1"]
    alert_rules.mute(world.control, world.tenant, rule.id, NOW + 4 * DAY, "ann")
    credit(world, 90)
    assert world.look(NOW + 3 * DAY) == ["cleared corrected"]
    assert len(world.deliveries()) == 2, "who heard that it fired hears its end"


def test_what_is_acknowledged_snoozed_or_resolved_is_not_found_again(world):
    world.budget(100, ("actual", "1", {}), ("actual", "0.5", {"endpoints": ("ep_1",)}))
    world.bill(usd=120)
    world.look()
    one, other = world.inbox()
    alerts.acknowledge(world.control, world.tenant, one.id, "bea")
    alerts.snooze(world.control, world.tenant, one.id, datetime.now(UTC) + DAY, "bea")
    alerts.resolve(world.control, world.tenant, other.id, "bea")
    world.bill(usd=10)
    assert world.look() == []
    assert {alert.state for alert in world.inbox()} == {"acknowledged", "resolved"}
    credit(world, 125)
    assert world.look() == ["cleared corrected"], "the one that somebody resolved is armed without a word"
    world.bill(usd=125)
    assert len(world.look()) == 2


# ---- other kinds


def test_a_forecast_fires_before_the_money_is_gone_and_is_no_news_after(world):
    world.budget(100, ("forecast", "1", {}), ("forecast", "1.1", {}), ("actual", "1", {}))
    world.days(4, 19)
    assert world.look() == ["fired 1.1"]
    alert = world.inbox()[0]
    assert alert.summary == "Search is expected to spend 120% of its limit: $120 of $100 in November 2026"
    assert alert.data["run_out_date"] == "2026-11-25"
    other = World(world.warehouse)
    other.budget(100, ("forecast", "1", {}), ("actual", "1", {}))
    other.days(6, 19)
    assert other.look() == ["fired 1"]
    assert [one.data["rule"]["kind"] for one in other.inbox()] == ["actual"]


def test_a_pace_that_is_too_fast_fires_and_falls(world):
    world.budget(300, ("burn_rate", "3", {"floor": Decimal(20)}))
    world.bill(usd=29)
    assert world.look() == []
    world.bill(NOW - HOUR, 1)
    assert world.look() == ["fired 3"]
    assert world.inbox()[0].summary == "Search spends 3.0× its even pace: $30.00 in the last 24 hours"
    assert world.look(NOW + 2 * DAY) == ["cleared fell"]


def test_a_pace_below_its_floor_is_quiet(world):
    world.budget(300, ("burn_rate", "3", {"floor": Decimal(31)}))
    world.bill(usd=30)
    assert world.look() == []


def test_an_odd_day_opens_an_alert_that_the_next_day_in_line_closes(world):
    world.budget(1000, ("anomaly", "0.5", {"floor": Decimal(5)}))
    world.days(10, 40)
    yesterday = NOW - DAY
    world.bill(yesterday, 10)
    assert world.look() == ["fired 0.5"]
    alert = world.inbox()[0]
    assert alert.summary == "Search cost $20.00 on 19 November 2026, 100% more than the usual $10.00"
    world.bill(NOW, 25)
    assert world.look(NOW + DAY) == [], "the day after goes on with it"
    world.bill(NOW + DAY, 10)
    assert world.look(NOW + 2 * DAY) == ["cleared in_line"]
    world.bill(NOW - 4 * DAY, 30)
    assert world.look(NOW + 2 * DAY) == ["fired 0.5"]
    assert world.inbox("firing")[0].late
    assert world.look(NOW + 3 * DAY) == [], "what came late waits for somebody"


def test_a_small_or_usual_day_is_in_line(world):
    world.budget(1000, ("anomaly", "0.5", {"floor": Decimal(15)}))
    world.days(10, 40)
    world.bill(NOW - DAY, 10)
    assert world.look() == []


def test_a_dear_million_tokens_fires(world):
    world.rule("unit_cost", "12", filters=(Filter("team", ("search",)),), floor=Decimal(20))
    world.bill(usd=13)
    world.bill(usd=99, team="other")
    assert world.look() == [], "13 is below the floor"
    world.bill(usd=11)
    assert world.look() == ["fired 12"]
    assert world.inbox()[0].summary == (
        "A million tokens of team=search cost $12.00 in the last 24 hours (threshold $12.00)"
    )


def test_calls_that_stay_away_are_told_and_so_is_their_return(world):
    world.rule("freshness", "2", floor=Decimal(1))
    world.commit([world.call(NOW - n * HOUR, 1) for n in range(0, 240, 3)])
    assert world.look(NOW + 3 * HOUR) == []
    assert world.look(NOW + 6 * HOUR) == ["fired 2"]
    assert world.inbox()[0].summary == (
        "all calls: no call has come for 5.5 hours; until now they never stayed away for more than 2.0"
    )
    world.bill(NOW + 7 * HOUR)
    assert world.look(NOW + 7 * HOUR) == ["cleared fell"]


# ---- what is told


def test_a_driver_sentence_says_who_moved_the_spend(world):
    world.budget(100, ("actual", "1", {}))
    for at, feature, usd in (
        (FIRST - 20 * DAY, "chat", 40), (FIRST - 20 * DAY, "answers", 10), (FIRST, "chat", 30), (FIRST, "answers", 80),
    ):  # fmt: skip
        world.bill(at, usd, feature=feature)
    assert world.look() == ["fired 1"]
    data = world.inbox()[0].data
    assert data["driver"].startswith("Spend rose by $60.00 (120%)")
    assert data["driver"].endswith("answers moved most (+$70.00), against 1 Oct to 20 Oct.")
    assert data["top_drivers"] == [
        {"dimension": "feature", "value": "answers", "delta_amount": "70", "delta_ratio": "7", "reason": None}
    ]
    assert (data["limit"], data["actual"], data["currency"]) == ("100", "110", "USD")
    assert data["period"] == {"start": "2026-11-01T00:00:00+00:00", "end": "2026-12-01T00:00:00+00:00",
                              "timezone": "UTC", "elapsed_ratio": "0.6507"}  # fmt: skip
    assert data["threshold"] == {"basis": "actual", "ratio": "1"}


def test_an_event_is_what_the_inbox_tells_and_links_lead_to_it(world):
    world.budget(100, ("actual", "1", {}), time_zone="Europe/Berlin", owner="Bea")
    world.bill(usd=120)
    world.look(base="https://costs.example.com")
    alert, (event,) = world.inbox()[0], world.events()
    told = json.loads(event.body)
    assert told["type"] == event.type == "budget.threshold.crossed"
    assert told["data"] == alert.data
    assert told["data"]["links"]["dashboard"] == f"https://costs.example.com/alerts?open=alert%3Fid%3D{alert.id}"
    assert told["data"]["period"]["start"] == "2026-11-01T00:00:00+01:00"
    assert told["data"]["budget"]["owner"] == "Bea"
    assert alert.dedup_key == f"{alert.budget}|{alert.rule}|2026-10-31T23:00:00Z"


# ---- the job


def test_a_budget_whose_currency_has_no_rate_keeps_no_other_from_being_judged(world):
    world.budget(100, ("actual", "1", {}))
    told = Budget(name="Elsewhere", amount=Decimal(1), currency="EUR", effective_from=FIRST)
    other = budgets.put(world.control, world.tenant, told, "ann")
    assert [one.budget for one in alert_rules.live(world.control, world.tenant, budget=other.id)] != []
    world.bill(usd=120)
    assert "fired 1" in world.look()


def test_a_crash_before_the_end_leaves_nothing_and_the_next_look_tells_once(world, monkeypatch):
    world.budget(100, ("actual", "1", {}))
    world.bill(usd=120)

    def crash(*_):
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(alert_states, "keep", crash)
        with pytest.raises(OSError, match="full"):
            world.look()
    assert (world.inbox(), world.events()) == ([], [])
    assert world.look() == ["fired 1"]
    assert (len(world.inbox()), len(world.events())) == (1, 1)


def test_a_rule_that_somebody_changes_meanwhile_is_looked_at_again(world, monkeypatch):
    budget = world.budget(100)
    rule = world.rule("actual", "1", budget=budget.id)
    world.bill(usd=120)
    fired = telling.fired

    def changed(*told, **more):
        alert_rules.end(world.control, world.tenant, rule.id, "bea")
        return fired(*told, **more)

    monkeypatch.setattr(telling, "fired", changed)
    assert world.look() == []
    assert world.events() == []


def test_the_job_does_nothing_where_nothing_changed(world, monkeypatch):
    world.budget(100, ("actual", "1", {}), ("forecast", "1", {}))
    asked = []

    def judged(warehouse, tenant, now, **told):
        asked.extend([told["kinds"]] if tenant == world.tenant else [])
        return evaluate(warehouse, tenant, now, **told)

    monkeypatch.setattr(evaluating, "evaluate", judged)
    monkeypatch.setattr(evaluating, "_tenants", lambda _: [world.tenant])
    evaluator = Evaluator()
    evaluator.run(world.warehouse, NOW)
    evaluator.run(world.warehouse, NOW + timedelta(seconds=5))
    assert asked == [evaluating.KINDS]
    world.bill(usd=120)
    assert evaluator.run(world.warehouse, NOW + timedelta(seconds=10)) == 1
    assert asked[1:] == [("actual",)]
    evaluator.run(world.warehouse, NOW + timedelta(seconds=60))
    assert asked[2:] == [evaluating.KINDS]


def test_what_fails_for_one_tenant_is_tried_again_and_stops_no_other(world, monkeypatch):
    other = World(world.warehouse)
    for one in (world, other):
        one.budget(100, ("actual", "1", {}))
        one.bill(usd=120)
    seen = evaluating.sightings

    def failing(warehouse, tenant, *told):
        if tenant == world.tenant:
            raise OSError("the disk is away")
        return seen(warehouse, tenant, *told)

    evaluator = Evaluator()
    monkeypatch.setattr(evaluating, "_tenants", lambda _: [world.tenant, other.tenant])
    with monkeypatch.context() as broken:
        broken.setattr(evaluating, "sightings", failing)
        evaluator.run(world.warehouse, NOW)
    assert (len(world.inbox()), len(other.inbox())) == (0, 1)
    evaluator.run(world.warehouse, NOW)
    assert len(world.inbox()) == 1
