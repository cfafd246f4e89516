"""The life of an alert, as a function: whoever is told hears of it once, and hears of its end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.warehouse import alert_states
from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.alert_states import NO_PERIOD, Observation, outlived, step
from millicent.warehouse.alerts import Alert
from millicent.warehouse.control import Control

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rule(kind="actual", threshold="1", **told):
    made = {"name": "a rule", "kind": kind, "threshold": Decimal(threshold), "id": 1, "budget": 1,
            "changed_at": START - HOUR} | told  # fmt: skip
    return Rule(**made)


def seen(value, one=None, **told):
    made = {"rule": one or rule(), "scope": "budget:1", "start": START, "end": END, "terms": "1/1",
            "value": None if value is None else Decimal(value)} | told  # fmt: skip
    return Observation(**made)


def alert(now=NOW, **told):
    made = {"id": "al_1", "rule": 1, "budget": 1, "scope": "budget:1", "period_start": START, "period_end": END,
            "dedup_key": "1|1|x", "state": "firing", "severity": "error", "late": False, "told": True,
            "opened_at": now, "changed_at": now, "summary": "", "data": {}} | told  # fmt: skip
    return Alert(**made)


class Life:
    """What happens to one key as it is seen again and again."""

    def __init__(self) -> None:
        self.known, self.last, self.told = None, None, []

    def see(self, one: Observation, now=NOW) -> str:
        made = step(self.known, self.last, one, now)
        self.known = made.judgement
        if made.act == "fire":
            self.last = alert(now, late=made.late)
        elif made.act == "clear":
            self.last = replace(self.last, state="resolved", reason=made.reason)
        if made.act != "none":
            self.told.append(made.act)
        return made.act

    def person(self):
        if self.last is not None and self.last.is_open:
            self.last = replace(self.last, state="resolved", reason="person")
            self.told.append("clear")


VALUES = st.sampled_from(["0", "0.94", "0.95", "0.96", "0.99", "1", "1.01", "1.3"]).map(Decimal)
ACTS = st.one_of(
    st.tuples(st.just("see"), VALUES, st.booleans(), st.integers(0, 40), st.sampled_from(["1/1", "2/1", "1/2"])),
    st.tuples(st.just("person")),
)


@given(st.lists(ACTS, max_size=30), st.sampled_from(["actual", "forecast", "burn_rate"]))
def test_who_is_told_hears_it_begin_and_end_in_turn(acts, kind):
    """Two alerts never follow without an end between them, unless the terms have changed."""
    life, now, terms = Life(), NOW - 9 * 24 * HOUR, None
    for act in acts:
        if act[0] == "person":
            life.person()
            continue
        _, value, complete, hours, at = act
        now = min(now + hours * HOUR, END - HOUR)
        before = len(life.told)
        life.see(seen(value, rule(kind), complete=complete, terms=at), now)
        if life.told[before:] == ["fire"] and before:
            assert life.told[before - 1] == "clear" or at != terms
        if life.told[before:] == ["clear"]:
            assert life.told[before - 1] == "fire"
            assert complete
            assert value < 1
        terms = at
        if complete and value >= 1 and life.known.held_until is None and life.last.reason != "person":
            assert life.last.is_open, "a breach is not left untold"


@given(st.lists(st.decimals("0.95", "1.5", places=2), min_size=1), st.integers(1, 23))
def test_within_five_points_it_is_told_once_a_cooldown_at_most(values, hours):
    life = Life()
    life.see(seen("1.1"))
    for value in values:
        life.see(seen(value), NOW + hours * HOUR)
    assert life.told.count("fire") == 1
    assert life.see(seen("0.99"), NOW + 24 * HOUR) in {"clear", "none"}
    assert life.see(seen("1"), NOW + 24 * HOUR) == "fire", "a breach that stays is told, re-armed or not"


@pytest.mark.parametrize("kind", ["forecast", "burn_rate"])
def test_what_flutters_is_taken_back_once_it_has_re_armed(kind):
    life = Life()
    assert [life.see(seen(value, rule(kind))) for value in ("1", "0.96", "1.01", "0.94", "1")] == [
        "fire", "none", "none", "clear", "fire",
    ]  # fmt: skip


def test_what_is_not_known_judges_nothing():
    life = Life()
    assert life.see(seen(None)) == "none"
    assert life.known is None
    life.see(seen("1"))
    known = life.known
    assert life.see(seen("0.1", reliable=False)) == "none"
    assert life.known == known


def test_below_a_floor_is_nothing_at_all():
    one = rule("burn_rate", "3", floor=Decimal(10))
    life = Life()
    assert life.see(seen("9", one, size=Decimal("9.99"))) == "none"
    assert life.see(seen("9", one, size=Decimal(10))) == "fire"
    assert life.see(seen("9", one, size=Decimal(9))) == "clear"


def test_a_past_period_is_a_baseline_unless_its_rule_was_there():
    late = END + timedelta(days=3)
    life = Life()
    assert life.see(seen("2", rule(changed_at=END)), late) == "none"
    assert life.known.above
    other = Life()
    assert other.see(seen("2", rule(changed_at=END - HOUR)), late) == "fire"
    assert other.last.late
    assert not alert_states.step(None, None, seen("2"), END + timedelta(minutes=59)).late


def test_a_rule_that_changes_does_not_judge_the_past_again():
    life = Life()
    life.see(seen("0.9"), NOW)
    assert life.see(seen("0.9", rule(threshold="0.8", changed_at=END + HOUR), terms="1/0.8"), END + 2 * HOUR) == "none"
    assert life.see(seen("0.9", rule(threshold="0.8", changed_at=END + HOUR), terms="1/0.8"), END + 3 * HOUR) == "none"


@pytest.mark.parametrize(("terms", "reason"), [("2/1", "budget_changed"), ("1/2", "rule_changed")])
def test_other_terms_say_why(terms, reason):
    life = Life()
    life.see(seen("1"))
    assert step(life.known, life.last, seen("0.99", terms=terms), NOW).reason == reason
    assert step(life.known, life.last, seen("0.99", terms=terms, complete=False), NOW).act == "none"
    fired = step(life.known, life.last, seen("1", terms=terms), NOW)
    assert (fired.act, fired.reason) == ("fire", reason)


def test_an_end_of_a_period_that_is_undone_is_told():
    life = Life()
    life.see(seen("1"))
    life.last = replace(life.last, state="resolved", reason="period_over")
    assert step(life.known, life.last, seen("0.9", repriced=True), END + HOUR).reason == "repriced"
    assert life.see(seen("0.9"), END + HOUR) == "clear"
    assert life.see(seen("0.9"), END + HOUR) == "none"


def test_what_goes_on_fires_nothing_and_is_known():
    life = Life()
    assert life.see(seen("1", continues=True)) == "none"
    assert life.known.above
    assert life.see(seen("1")) == "none"


@pytest.mark.parametrize(
    ("told", "one", "live", "now", "reason"),
    [
        ({}, rule(), {1}, NOW, None),
        ({}, None, {1}, NOW, "rule_ended"),
        ({}, rule(), set(), NOW, "budget_ended"),
        ({}, rule(), {1}, END, "period_over"),
        ({"late": True}, rule(), {1}, END, None),
        ({"period_end": None}, rule(), {1}, END, None),
        ({}, rule("anomaly"), {1}, END, None),
        ({}, rule("anomaly"), {1}, END + timedelta(days=14), "period_over"),
    ],
)
def test_an_alert_is_over_whatever_is_seen(told, one, live, now, reason):
    assert outlived(alert(**told), one, live, now) == reason


def test_judgements_are_kept_one_for_each_key(tmp_path):
    control = Control(tmp_path)
    made = step(None, None, seen("1"), NOW).judgement
    other = step(None, None, seen("0.1", start=None, end=None), NOW).judgement
    with control.begin() as connection:
        alert_states.keep(connection, "default", [made, other])
        alert_states.keep(connection, "default", [replace(made, above=False, held_until=NOW)])
    with control.begin() as connection:
        found = alert_states.judged(connection, "default")
        assert alert_states.judged(connection, "other") == {}
    control.close()
    assert found == {made.key: replace(made, above=False, held_until=NOW), other.key: other}
    assert other.key == (1, "budget:1", NO_PERIOD)
