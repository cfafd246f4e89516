"""Tagging history again: what would move is told first, moving it is exact, and sums follow the calls."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import func, select

from millicent.collector import history, retag
from millicent.collector.retag import Move
from millicent.warehouse import capacity, ledger, rules
from millicent.warehouse.control import Deployment, audit
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls, usage_hourly

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * 10**9
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
THREE_DAYS = Period(NOON - DAY, NOON + 2 * DAY)
OUTCOMES = pl.DataFrame(schema={"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String,
                                "reason": pl.String, "spans": pl.Int64})  # fmt: skip
CHECKOUT = {"when": [{"field": "service", "is": "checkout"}], "sets": {"team": "Payments"}}
H100 = Deployment(
    name="chat-h100", model="gpt-4o", accelerator="nvidia-h100-sxm", accelerator_count=8, engine="vllm",
    effective_from=NOON, effective_to=NOON + HOUR, profile={"kind": "rented", "usd_per_hour": "2"},
)  # fmt: skip
APART = replace(H100, prefill_count=2, decode_count=6)
"""Input and output have prices of their own."""


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def store(warehouse, otlp):
    """Commit calls: (attributes, resource, hours after noon)."""
    committed = iter(range(1, 100))

    def commit(*told, tenant="default"):
        requests = [
            otlp.request(otlp.span(attributes, started_ns=NOON_NS + hours * 3600 * 10**9), resource=resource)
            for attributes, resource, hours in told
        ]
        spans = otlp.run(*requests, tenant=tenant, received_at=NOON + 3 * DAY).spans
        ledger.commit(warehouse.engine, ledger.Batch(spans, OUTCOMES, pl.DataFrame()), "otlp", (0, next(committed)))

    return commit


def add(warehouse, told) -> None:
    warehouse.control.add_rule(rules.read(told), actor="ann")


def apply(warehouse, period=THREE_DAYS) -> retag.Retagged:
    return retag.retag(warehouse, "default", period, apply=True, actor="ann")


def by_team(warehouse) -> dict:
    asked = Query(measures=("calls", "total_tokens", "billed_cost_usd"), dimensions=("team",), period=THREE_DAYS)
    return {row.pop("team"): row for row in warehouse.ask("default", asked).frame.to_dicts()}


def tags(warehouse) -> list:
    rows = warehouse.engine.read(select(calls.c.team, calls.c.tag_sources).order_by(calls.c.started_at)).to_pylist()
    return [(row["team"], row["tag_sources"]) for row in rows]


def rollup_is_raw(warehouse) -> bool:
    """Sums by team and day of the rollup and of the calls themselves are the same."""
    hourly = select(usage_hourly.c.team, func.sum(usage_hourly.c.calls).label("calls"),
                    func.sum(usage_hourly.c.billed_cost_usd).label("usd"))  # fmt: skip
    raw = select(calls.c.team, func.count().label("calls"), func.sum(calls.c.billed_cost_usd).label("usd"))
    found = [
        sorted((tuple(row.values()) for row in warehouse.engine.read(asked.group_by("team")).to_pylist()), key=repr)
        for asked in (hourly, raw)
    ]
    return [row for row in found[0] if row[1]] == found[1]


def test_what_would_move_is_told_and_nothing_changes(warehouse, store):
    checkout, told = {"service.name": "checkout"}, {"millicent.team": "told"}
    store(
        ({}, checkout, -20), ({}, checkout, 0), ({}, checkout, 30), (told, checkout, 0), ({}, {"service.name": "x"}, 0)
    )
    add(warehouse, CHECKOUT)
    before = tags(warehouse)
    found = retag.retag(warehouse, "default", THREE_DAYS, apply=False, actor="ann")
    assert found == retag.Retagged(3, (Move(None, "Payments", 3, 3300, Decimal("0.0105")),))
    assert tags(warehouse) == before


@pytest.mark.parametrize("at_once", [history.AT_ONCE, 0])
def test_history_is_tagged_and_the_sums_follow(warehouse, store, monkeypatch, at_once):
    monkeypatch.setattr(history, "AT_ONCE", at_once)
    checkout = {"service.name": "checkout"}
    store(({}, checkout, -20), ({}, checkout, 0), ({}, checkout, 30), ({"millicent.team": "told"}, checkout, 0))
    add(warehouse, CHECKOUT)
    assert apply(warehouse).calls == 3
    assert by_team(warehouse) == {
        "Payments": {"calls": 3, "total_tokens": 3300, "billed_cost_usd": Decimal("0.0105")},
        "told": {"calls": 1, "total_tokens": 1100, "billed_cost_usd": Decimal("0.0035")},
    }
    assert ("Payments", "team:rule") in tags(warehouse)
    assert rollup_is_raw(warehouse)
    assert apply(warehouse) == retag.Retagged(0, ())


def test_only_the_period_is_tagged_to_the_instant(warehouse, store):
    store(*(({}, {"service.name": "checkout"}, hours) for hours in (0, 1, 2)))
    add(warehouse, CHECKOUT)
    assert apply(warehouse, Period(NOON + HOUR, NOON + 2 * HOUR)).calls == 1
    assert [team for team, _ in tags(warehouse)] == [None, "Payments", None]


def test_a_rule_that_is_taken_away_gives_back_what_it_replaced(warehouse, store):
    store(({"millicent.team": "told"}, {"service.name": "checkout", "millicent.project": "p"}, 0))
    before = warehouse.engine.read(select(calls))
    add(warehouse, CHECKOUT | {"sets": {"team": "Payments", "project": "q", "provider": "anthropic"}, "override": True})
    moved = apply(warehouse)
    assert moved.moves == (Move("told", "Payments", 1, 1100, Decimal("0.0035")),)
    (rule,) = warehouse.control.rules("default")
    warehouse.control.remove_rule(rule[1].id)
    assert apply(warehouse).moves == (Move("Payments", "told", 1, 1100, None),)  # nobody sells gpt-4o as anthropic
    assert warehouse.engine.read(select(calls)).equals(before)
    assert rollup_is_raw(warehouse)


@pytest.mark.parametrize("ours", [H100, APART], ids=["together", "apart"])
def test_calls_that_turn_out_to_be_ours_are_billed_nothing_and_their_hours_are_costed_anew(warehouse, store, ours):
    store(({"server.address": "llm.acme.example"}, {"service.name": "checkout", "millicent.team": "a"}, 0))
    warehouse.control.declare(ours)
    add(warehouse, CHECKOUT | {"sets": {"deployment": "chat-h100"}})
    assert apply(warehouse).moves == (Move("a", "a", 1, 1100, None),)
    (row,), _ = warehouse.find("default", _search())
    assert (row["billing"], row["billed_cost_usd"], row["price_status"]) == ("self_hosted", 0, "not_billed")
    assert (row["accelerator"], row["engine"], row["effective_cost_usd"]) == ("nvidia-h100-sxm", "vllm", None)
    assert capacity.refresh(warehouse.engine, warehouse.control, NOON + DAY)
    (row,), _ = warehouse.find("default", _search())
    assert row["effective_cost_usd"] > 0
    add(warehouse, CHECKOUT | {"sets": {"team": "b"}, "override": True})
    (move,) = apply(warehouse).moves
    assert (move.before, move.after, move.calls) == ("a", "b", 1)
    assert move.spend_usd == pytest.approx(row["effective_cost_usd"], abs=Decimal("1e-12"))


def test_uncounted_calls_are_tagged_and_not_told(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0))
    with warehouse.engine.write() as transaction:
        transaction.execute(calls.update().values(counted=False))
        transaction.execute(usage_hourly.delete())
    add(warehouse, CHECKOUT)
    assert apply(warehouse) == retag.Retagged(1, ())
    assert tags(warehouse) == [("Payments", "team:rule")]


def test_another_tenants_calls_stay_as_they_are(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0), tenant="rival")
    add(warehouse, CHECKOUT)
    assert apply(warehouse) == retag.Retagged(0, ())
    assert tags(warehouse) == [(None, None)]


def test_who_tagged_what_by_which_rules_is_in_the_audit_log(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0))
    add(warehouse, CHECKOUT)
    retag.retag(warehouse, "default", THREE_DAYS, apply=False, actor="nobody")
    apply(warehouse)
    with warehouse.control._engine.connect() as connection:
        row = connection.execute(select(audit).where(audit.c.action == "rules.apply")).mappings().one()
    assert (row["actor"], row["detail"]["calls"], row["detail"]["rules"]) == ("ann", 1, [1])
    assert row["detail"]["start"] == THREE_DAYS.start.isoformat()


def test_a_batch_is_not_loaded_while_a_day_is_tagged(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0))
    add(warehouse, CHECKOUT)
    done = threading.Event()

    def tag() -> None:
        apply(warehouse)
        done.set()

    worker = threading.Thread(target=tag)
    with warehouse.writing:
        worker.start()
        assert not done.wait(0.3)
        assert tags(warehouse) == [(None, None)]
    worker.join(10)
    assert done.is_set()


def test_how_far_rules_reach_is_counted_over_the_period(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0), ({"millicent.team": "told"}, {"service.name": "checkout"}, 30))
    add(warehouse, CHECKOUT)
    add(warehouse, CHECKOUT | {"when": [{"field": "service", "is": "nobody"}]})
    found = retag.check(warehouse, "default", THREE_DAYS)
    assert [(one.position, one.holds, one.decides) for one in found] == [(1, 2, 1), (2, 0, 0)]


def test_a_filter_on_no_team_finds_what_rules_have_left(warehouse, store):
    store(({}, {"service.name": "checkout"}, 0), ({}, {"service.name": "other"}, 0))
    asked = Query(measures=("unattributed_spend_share", "unattributed_spend_usd"), period=THREE_DAYS)
    assert warehouse.ask("default", asked).frame["unattributed_spend_share"].to_list() == [1]
    add(warehouse, CHECKOUT)
    apply(warehouse)
    share, spend = warehouse.ask("default", asked).frame.row(0)
    assert (share, spend) == (Decimal("0.5"), Decimal("0.0035"))
    nobody = Query(measures=("calls",), dimensions=("service",), period=THREE_DAYS, filters=(Filter("team", (None,)),))
    assert warehouse.ask("default", nobody).frame["service"].to_list() == ["other"]


def _search():
    from millicent.warehouse.calls import Search

    return Search(limit=10)
