"""Attribution rules in the control plane: what may be said, in which order they stand, and that nothing is lost."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from millicent.warehouse import rules
from millicent.warehouse.control import Control, audit, tenants
from millicent.warehouse.rules import Condition, Rule

DAY = datetime(2026, 11, 20, tzinfo=UTC)
CHECKOUT = {"when": [{"field": "service", "is": ["checkout", "cart"]}], "sets": {"team": "Payments"}}


@pytest.fixture
def control(tmp_path):
    opened = Control(tmp_path / "data")
    with opened._engine.begin() as connection:
        connection.execute(tenants.insert(), [{"id": "rival", "name": "rival"}])
    yield opened
    opened.close()


def named(note: str, **told) -> Rule:
    return rules.read({**CHECKOUT, "note": note, **told})


def notes(control: Control, tenant: str = "default") -> list[tuple[int | None, str]]:
    return [(rule.position, rule.note) for _, rule in control.rules(tenant)]


# ---- what may be said


@pytest.mark.parametrize(
    "told",
    [
        CHECKOUT,
        {"when": [{"field": "attribute:http.route", "matches": r"^/v\d+/"}], "sets": {"feature": "api", "team": "Web"}},
        {"when": [{"field": "team", "absent": True}, {"field": "resource:k8s.namespace.name", "is": ["x"]}],
         "sets": {"deployment": "chat-h100"}, "override": True, "note": "since the move", "position": 1,
         "effective_from": "2026-11-01T00:00:00Z", "effective_to": "2026-12-01T01:00:00+01:00"},
    ],
)  # fmt: skip
def test_a_rule_is_stored_and_read_back_as_it_was_told(control, told):
    added = control.add_rule(rules.read(told), actor="ann")
    ((tenant, kept),) = control.rules()
    assert tenant == "default"
    assert rules.written(kept) == rules.written(added)
    again = {name: value for name, value in rules.written(kept).items() if name in {*told, "when", "sets"}}
    ends = {"effective_to": "2026-12-01T00:00:00Z"} if "effective_to" in told else {}
    assert again == {**told, **ends}
    assert (kept.author, kept.id, kept.position) == ("ann", 1, 1)


@pytest.mark.parametrize("value", ["checkout", ["checkout"]])
def test_one_value_may_stand_alone(value):
    rule = rules.read({"when": [{"field": "service", "is": value}], "sets": {"team": "x"}})
    assert rule.when == (Condition("service", "is", ("checkout",)),)


WRONG = [
    ("[]", [], "object"),
    ("no condition", {"when": []}, "`team absent`"),
    ("no tag", {"sets": {}}, "team, project"),
    ("a tag that rules may not set", {"sets": {"user_id": "x"}}, "'user_id'.*team"),
    ("a tag misspelt", {"sets": {"taem": "x"}}, "did you mean 'team'"),
    ("a blank value", {"sets": {"team": " "}}, "blank"),
    ("a number as value", {"sets": {"team": 7}}, "7 is not text"),
    ("a member misspelt", {"overide": True}, "did you mean 'override'"),
    ("a member of another type", {"override": 1}, "true or false"),
    ("true as position", {"position": True}, "whole number"),
    ("position 0", {"position": 0}, "begin at 1"),
    ("what only we give", {"id": 4}, "no 'id'"),
    ("no zone", {"effective_from": "2026-11-01T00:00:00"}, "time zone"),
    ("no instant", {"effective_to": "tomorrow"}, "2026-11-23T08:00:00Z"),
    ("an empty period", {"effective_from": "2026-11-02", "effective_to": "2026-11-02"}, "swap"),
    ("a field misspelt", {"when": [{"field": "servcie", "is": "x"}]}, "did you mean 'service'"),
    ("a column that rules may not look at", {"when": [{"field": "list_cost_usd", "is": "1"}]}, "unknown"),
    ("an attribute without a name", {"when": [{"field": "attribute:", "is": "x"}]}, "attribute:http.route"),
    ("a condition without a field", {"when": [{"is": "x"}]}, "names no field"),
    ("two operators", {"when": [{"field": "service", "is": "x", "matches": "y"}]}, "exactly one"),
    ("no operator", {"when": [{"field": "service"}]}, "exactly one"),
    ("an operator that is none", {"when": [{"field": "service", "like": "x"}]}, "is, matches, absent"),
    ("absent with a value", {"when": [{"field": "service", "absent": False}]}, "write true"),
    ("no values", {"when": [{"field": "service", "is": []}]}, "name 1 to"),
    ("numbers", {"when": [{"field": "service", "is": [1]}]}, "write text"),
    ("two expressions", {"when": [{"field": "service", "matches": ["a", "b"]}]}, r"join them with \|"),
    ("no expression", {"when": [{"field": "service", "matches": "(unclosed"}]}, "unclosed group"),
    ("an expression of another syntax", {"when": [{"field": "service", "matches": "(?=x)"}]}, "RE2"),
    ("too long", {"when": [{"field": "service", "is": "x" * 1025}]}, "1024"),
    ("not text", {"sets": {"team": "\ud800"}}, "surrogates"),
]


@pytest.mark.parametrize(("told", "says"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_cannot_be_a_rule_says_why_and_what_to_write(told, says):
    with pytest.raises(ValueError, match=says):
        rules.read({**CHECKOUT, **told} if isinstance(told, dict) else told)


@pytest.mark.parametrize(
    "key",
    ["gen_ai.input.messages", "gen_ai.prompt.0.content", "input.value", "gen_ai.system_instructions",
     "langfuse.observation.output", "ai.response.text", "traceloop.entity.input", "llm.prompts",
     "gen_ai.tool.call.arguments", "exception.message", "http.request.header.authorization"],
)  # fmt: skip
def test_no_rule_looks_at_what_was_said_or_at_a_secret_since_it_would_be_stored(key):
    with pytest.raises(ValueError, match="neither is ever stored"):
        Condition(f"attribute:{key}", "matches", ("x",))


@pytest.mark.parametrize(
    "key", ["http.route", "k8s.namespace.name", "gen_ai.agent.name", "millicent.label.cost_centre"]
)
def test_a_rule_may_look_at_what_names_an_owner(key):
    assert Condition(f"attribute:{key}", "is", ("x",)).field == f"attribute:{key}"


# ---- their order


def test_rules_stand_in_the_order_they_are_added_or_where_they_are_put(control):
    for note, position in (("a", None), ("b", None), ("c", 1), ("d", 2), ("e", 99)):
        control.add_rule(named(note, position=position))
    assert notes(control) == [(1, "c"), (2, "d"), (3, "a"), (4, "b"), (5, "e")]
    gone = next(rule for _, rule in control.rules() if rule.note == "d")
    assert control.remove_rule(gone.id)
    assert notes(control) == [(1, "c"), (2, "a"), (3, "b"), (4, "e")]


def test_an_id_is_never_given_twice(control):
    first = control.add_rule(named("a"))
    control.remove_rule(first.id)
    assert control.add_rule(named("b")).id > first.id


def test_there_is_a_most_and_it_says_so(control, monkeypatch):
    monkeypatch.setattr(rules, "MOST_RULES", 2)
    for _ in range(2):
        control.add_rule(named("a"))
    with pytest.raises(ValueError, match=r"there are 2 rules.*remove one"):
        control.add_rule(named("a"))
    control.add_rule(named("a"), tenant="rival")


# ---- whose they are


def test_tenants_do_not_touch_each_others_rules(control):
    mine, other = control.add_rule(named("mine")), control.add_rule(named("other"), tenant="rival")
    assert notes(control, "rival") == [(1, "other")]
    assert not control.remove_rule(mine.id, tenant="rival")
    assert not control.remove_rule(99)
    assert [tenant for tenant, _ in control.rules()] == ["default", "rival"]
    assert control.remove_rule(other.id, tenant="rival")
    assert notes(control) == [(1, "mine")]
    with pytest.raises(ValueError, match="tenant 'nobody' is unknown"):
        control.add_rule(named("x"), tenant="nobody")


def test_the_audit_log_keeps_every_rule_whole_with_who_and_when(control):
    before = datetime.now(UTC) - timedelta(seconds=1)
    added = control.add_rule(named("a"), actor="ann")
    control.remove_rule(added.id, actor="bob")
    control.remove_rule(added.id, actor="bob")
    with control._engine.connect() as connection:
        rows = connection.execute(select(audit).order_by(audit.c.id)).mappings().all()
    assert [(row["actor"], row["action"]) for row in rows] == [("ann", "rule.add"), ("bob", "rule.remove")]
    assert rows[0]["detail"] == rows[1]["detail"] == rules.written(added)
    assert all(row["at"] > before for row in rows)


def test_rules_outlive_the_process(control, tmp_path):
    added = control.add_rule(named("kept", effective_from="2026-11-20"))
    again = Control(tmp_path / "data")
    assert again.rules("default") == [("default", added)]
    assert added.effective_from == DAY
    again.close()
