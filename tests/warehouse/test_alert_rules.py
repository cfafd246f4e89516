"""Rules: what they may say, which ones a budget brings, and who may change them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.warehouse import alert_rules, budgets
from millicent.warehouse.alert_rules import GIVEN, BadRuleError, Rule, end, find, live, mute, number, put, written
from millicent.warehouse.budgets import Budget
from millicent.warehouse.control import DECLARED, Control
from millicent.warehouse.query import Filter

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path)
    yield made
    made.close()


def set_budget(control, name="Search", **told):
    told = {"amount": Decimal(3000), "effective_from": SINCE} | told
    return budgets.put(control, "default", Budget(name=name, **told), "ann")


def rule(kind="unit_cost", threshold="12.5", **told):
    return Rule(**{"name": "a rule", "kind": kind, "threshold": Decimal(threshold)} | told)


# ---- those that a budget brings


def test_a_budget_brings_its_rules_and_the_first_one_a_rule_for_silence(control):
    search = set_budget(control)
    told = [(one.kind, str(one.threshold), one.severity) for one in live(control, "default", budget=search.id)]
    assert told == [
        ("actual", "0.5", "info"), ("actual", "0.8", "warning"), ("actual", "1", "error"),
        ("actual", "1.2", "critical"), ("forecast", "1", "warning"), ("forecast", "1.1", "warning"),
        ("burn_rate", "3", "warning"), ("anomaly", "0.2", "warning"), ("unpriced", "0.01", "warning"),
    ]  # fmt: skip
    ads = set_budget(control, "Ads", period="day")
    kinds = [one.kind for one in live(control, "default", budget=ads.id)]
    assert "burn_rate" not in kinds, "a day has no pace over a day"
    assert [(one.kind, one.budget) for one in live(control, "default")][-1] == ("freshness", None)
    assert [one.kind for one in live(control, "default")].count("freshness") == 1
    assert {one.author for one in live(control, "default")} == {GIVEN}
    floors = [one.floor for one in live(control, "default") if one.kind == "anomaly"]
    assert floors == [Decimal("20.00"), Decimal("600.00")], "a fifth of an even day"


def test_another_version_brings_no_rules_and_names_stay_apart(control):
    first = set_budget(control)
    before = live(control, "default")
    renamed = budgets.put(control, "default", replace(first, name="Find", version=None), "ann")
    assert live(control, "default") == before
    again = set_budget(control, "Search")
    assert again.id != renamed.id
    names = [one.name for one in live(control, "default")]
    assert len(names) == len(set(names)) == 19
    assert f"Search: 80% spent ({again.id})" in names


def test_rules_end_with_their_budget_and_come_again_with_it(control):
    search = set_budget(control)
    ahead = datetime.now(UTC) + timedelta(days=1)
    budgets.end(control, "default", search.id, "ann", ahead)
    assert len(live(control, "default", budget=search.id)) == 9, "it holds until tomorrow"
    budgets.put(control, "default", replace(search, version=None, effective_from=SINCE), "ann")
    assert len(live(control, "default", budget=search.id)) == 9, "it has them still"
    budgets.end(control, "default", search.id, "ann")
    assert live(control, "default", budget=search.id) == []
    budgets.put(control, "default", replace(search, version=None, effective_from=datetime.now(UTC)), "ann")
    assert [one.id for one in live(control, "default", budget=search.id)] == list(range(11, 20))


# ---- setting them


def test_a_rule_is_set_by_its_name_and_changed_by_it_or_its_id(control):
    made = put(control, "default", rule(), "ann")
    assert (made.id, made.author) == (1, "ann")
    assert put(control, "default", rule(), "bob") == made, "it says nothing new"
    other = put(control, "default", rule(threshold="20", severity="error"), "bob")
    assert (other.id, other.author, other.created_at) == (1, "bob", made.created_at)
    assert other.changed_at > made.changed_at
    renamed = put(control, "default", replace(other, name="dear"), "bob")
    assert (renamed.name, renamed.changed_at) == ("dear", other.changed_at), "a name judges nothing"
    assert live(control, "default") == [renamed]
    assert find(control, "default", 1) == renamed
    assert find(control, "default", 2) is None


def test_a_rule_ends_and_is_kept(control):
    made = put(control, "default", rule(), "ann")
    assert end(control, "default", made.id, "ann").ended
    assert live(control, "default") == []
    assert find(control, "default", made.id).ended
    again = put(control, "default", rule(), "ann")
    assert again.id == 2
    with pytest.raises(BadRuleError, match="no rule 1 that holds"):
        end(control, "default", 1, "ann")


def test_muting_changes_neither_what_is_judged_nor_whose_rule_it_is(control):
    made = put(control, "default", rule(), DECLARED)
    until = datetime.now(UTC) + timedelta(days=1)
    muted = mute(control, "default", made.id, until, "bob")
    assert (muted.author, muted.changed_at, muted.terms) == (DECLARED, made.changed_at, made.terms)
    assert muted.is_muted(until - timedelta(seconds=1))
    assert not muted.is_muted(until)
    assert mute(control, "default", made.id, None, "bob") == made


def test_what_a_file_declares_is_left_to_it(control):
    made = put(control, "default", rule(), DECLARED)
    with pytest.raises(BadRuleError, match="declared in"):
        put(control, "default", rule(threshold="20"), "ann")
    with pytest.raises(BadRuleError, match="declared in"):
        end(control, "default", made.id, "ann")
    assert end(control, "default", made.id, DECLARED).ended


def test_rules_of_one_tenant_are_not_those_of_another(control):
    put(control, "default", rule(), "ann")
    with pytest.raises(BadRuleError, match="tenant 'nobody' is unknown"):
        put(control, "nobody", rule(), "ann")
    assert live(control, "nobody") == []


def test_a_rule_needs_a_budget_that_there_is_and_a_name_of_its_own(control):
    with pytest.raises(BadRuleError, match="there is no budget 7"):
        put(control, "default", rule("actual", "1", budget=7), "ann")
    put(control, "default", rule(), "ann")
    other = put(control, "default", rule(name="other"), "ann")
    with pytest.raises(BadRuleError, match="there is a rule 'a rule' already"):
        put(control, "default", replace(other, name="a rule"), "ann")
    with pytest.raises(BadRuleError, match="no rule 9 that holds"):
        put(control, "default", rule(id=9), "ann")


def test_there_are_not_more_rules_than_there_may_be(control, monkeypatch):
    monkeypatch.setattr(alert_rules, "MOST", 1)
    put(control, "default", rule(), "ann")
    with pytest.raises(BadRuleError, match="there are 1 rules already"):
        put(control, "default", rule(name="other"), "ann")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": " "}, "name ' ' is empty"),
        ({"name": "a\nb"}, "not one line"),
        ({"kind": "often"}, "kind 'often' is unknown: write actual"),
        ({"kind": "actual"}, "is about a budget: name one"),
        ({"budget": 1, "filters": (Filter("team", ("a",)),)}, "leave its filters out"),
        ({"threshold": Decimal(0)}, "threshold 0 is not above 0"),
        ({"threshold": Decimal("NaN")}, "threshold NaN"),
        ({"kind": "anomaly", "threshold": Decimal("0.1")}, "write 0.2 or more"),
        ({"kind": "actual", "budget": 1, "floor": Decimal(1)}, "floor 1 says nothing"),
        ({"floor": Decimal(-1)}, "floor -1 is below 0: write the least spend"),
        ({"window_hours": 0}, "window_hours 0 is not 1 to"),
        ({"cooldown_hours": -1}, "cooldown_hours -1"),
        ({"severity": "loud"}, "severity 'loud' is unknown"),
        ({"basis": "guess"}, "basis 'guess' is unknown"),
        ({"endpoints": ("ep",) * 51}, "51 endpoints are too many"),
        ({"filters": (Filter("team", ("a",)),) * 11}, "11 filters are too many"),
        ({"muted_until": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001 - that is what is refused
    ],
)
def test_what_a_rule_cannot_be_is_said(told, words):
    with pytest.raises(BadRuleError, match=words):
        rule(**told)


@given(st.decimals("0.0001", "1000000", places=4))
def test_numbers_are_read_as_they_are_written(value):
    assert number(written(rule(threshold=str(value)))["threshold"]) == value
    assert number(f" {value * 100:f} %") == value
    assert number(f"{value:,f}") == value


def test_what_is_no_number_is_said():
    with pytest.raises(BadRuleError, match=r"'often' is no number: write 0\.8"):
        number("often")


@given(st.sampled_from(["0.01", "0.05", "0.5", "1", "1.2", "20"]), st.sampled_from(["actual", "forecast", "burn_rate"]))
def test_what_re_arms_is_below_what_clears_and_that_is_not_above_the_threshold(threshold, kind):
    one = rule(kind, threshold, budget=1)
    assert 0 < one.rearmed_below <= one.cleared_below <= one.threshold
    assert one.rearmed_below < one.threshold
