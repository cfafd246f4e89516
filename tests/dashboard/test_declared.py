"""What `millicent.toml` declares: read, checked, carried out, carried out again, and taken back."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from typer.testing import CliRunner

from millicent.dashboard import cli, declared
from millicent.dashboard.declared import BadDeclarationError
from millicent.dashboard.settings import load, told
from millicent.warehouse import alert_rules, budgets, endpoints
from millicent.warehouse.alert_rules import BadRuleError
from millicent.warehouse.budgets import BadBudgetError, Budget
from millicent.warehouse.control import DECLARED, DEFAULT_TENANT, Control, audit
from millicent.warehouse.endpoints import BadEndpointError
from millicent.warehouse.query import Filter

SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
OTHER = "whsec_" + "enl4d3Z1dHNycXBvbm1sa2ppaGdmZWRjYmFaWVhXVlU="
FILE = """
[[endpoints]]
name = "Finance"
address = "https://hooks.corp.com/millicent/t0ken"
secret_env = "FINANCE_SECRET"
types = ["budget.threshold.crossed", "budget.threshold.cleared"]

[[budgets]]
name = "Completions"
amount = 950.10
parent = "Copilot"
filters = ["feature:completion"]
period = "rolling"
rolling_days = 28

[[budgets]]
name = "Copilot"
amount = "27,500"
currency = "EUR"
time_zone = "Europe/Berlin"
effective_from = 2026-01-01
filters = ["team:copilot,ide", "-environment:staging"]
owner = "Mei"

[[rules]]
name = "Copilot, nearly"
kind = "actual"
budget = "Copilot"
threshold = 0.9
severity = "error"
endpoints = ["Finance"]

[[rules]]
name = "Dear tokens"
kind = "unit_cost"
threshold = "12.50"
filters = ["team:search"]
"""
ENVIRONMENT = {"FINANCE_SECRET": SECRET}


@pytest.fixture
def control(tmp_path):
    made = Control(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def declare(tmp_path, monkeypatch, control):
    """Carries out a file, or tables."""
    monkeypatch.chdir(tmp_path)

    def carry_out(text="", **environment):
        (tmp_path / "millicent.toml").write_text(text)
        found = declared.read(load(data=tmp_path / "data"), control, ENVIRONMENT | environment)
        return declared.carry_out(control, found)

    return carry_out


def held(control):
    return {one.name: one for one in budgets.live(control, DEFAULT_TENANT, budgets.LAST)}


def rules(control):
    return {one.name: one for one in alert_rules.live(control, DEFAULT_TENANT)}


def places(control):
    return {one.name: one for one in endpoints.listed(control, DEFAULT_TENANT)}


def changes(control):
    with control.begin() as connection:
        return connection.execute(select(func.count()).select_from(audit)).scalar_one()


def test_a_file_sets_budgets_rules_and_endpoints_by_their_names(declare, control):
    outcome = declare(FILE)
    assert (outcome.problems, outcome.ended[:0]) == ([], [])
    copilot, completions = held(control)["Copilot"], held(control)["Completions"]
    assert copilot.amount == Decimal(27500)
    assert copilot.effective_from == datetime(2025, 12, 31, 23, tzinfo=UTC), "a day begins in the budget's zone"
    assert copilot.filters == (Filter("team", ("copilot", "ide")), Filter("environment", ("staging",), negated=True))
    assert (completions.amount, completions.rolling_days) == (Decimal("950.1"), 28)
    assert completions.parent == copilot.id, "the whole is set before its part, whatever their order"
    assert {one.author for one in (copilot, completions)} == {DECLARED}
    nearly, dear = rules(control)["Copilot, nearly"], rules(control)["Dear tokens"]
    assert (nearly.budget, nearly.threshold, nearly.severity) == (copilot.id, Decimal("0.9"), "error")
    assert nearly.endpoints == (places(control)["Finance"].id,)
    assert (dear.budget, dear.threshold, dear.filters) == (None, Decimal("12.5"), (Filter("team", ("search",)),))
    finance = endpoints.destination(control, DEFAULT_TENANT, places(control)["Finance"].id, datetime.now(UTC))
    assert (finance.address, finance.secrets) == ("https://hooks.corp.com/millicent/t0ken", (SECRET,))


def test_carrying_out_again_changes_nothing(declare, control):
    declare(FILE)
    before = (held(control), rules(control), places(control), changes(control))
    outcome = declare(FILE)
    assert (outcome.set, outcome.ended, outcome.problems) == ([], [], [])
    assert (held(control), rules(control), places(control), changes(control)) == before


def test_what_changes_is_the_next_version_and_what_is_left_out_ends(declare, control):
    declare(FILE)
    mine = Budget(name="Mine", amount=Decimal(5), effective_from=datetime.now(UTC))
    budgets.put(control, DEFAULT_TENANT, mine, "key 7")
    outcome = declare('[[budgets]]\nname = "Copilot"\namount = 100\n')
    assert set(held(control)) == {"Copilot", "Mine"}
    assert (held(control)["Copilot"].version, held(control)["Copilot"].amount) == (2, 100)
    assert set(outcome.ended) >= {"budget Completions", "rule Copilot, nearly", "rule Dear tokens", "endpoint Finance"}
    assert places(control) == {}
    assert {"Copilot, nearly", "Dear tokens"}.isdisjoint(rules(control))
    declare("")
    assert set(held(control)) == {"Mine"}, "an empty file declares nothing"


def test_without_file_and_tables_what_was_declared_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not declared.speaks(load(data=tmp_path))
    assert declared.speaks(load(data=tmp_path, budgets=[]))
    (tmp_path / "millicent.toml").write_text("")
    assert declared.speaks(load(data=tmp_path))


def test_what_is_declared_is_changed_in_the_file_alone(declare, control):
    declare(FILE)
    copilot, finance = held(control)["Copilot"], places(control)["Finance"]
    nearly = rules(control)["Copilot, nearly"]
    word = "declared in millicent.toml: change it there"
    mine = Budget(name="Copilot", amount=Decimal(1), effective_from=datetime.now(UTC))
    with pytest.raises(BadBudgetError, match=word):
        budgets.put(control, DEFAULT_TENANT, mine, "key 7")
    with pytest.raises(BadBudgetError, match=word):
        budgets.end(control, DEFAULT_TENANT, copilot.id, "key 7")
    with pytest.raises(BadRuleError, match=word):
        alert_rules.end(control, DEFAULT_TENANT, nearly.id, "key 7")
    with pytest.raises(BadEndpointError, match=word):
        endpoints.end(control, DEFAULT_TENANT, finance.id, "key 7")
    with pytest.raises(BadEndpointError, match=word):
        endpoints.rotate(control, DEFAULT_TENANT, finance.id, "key 7")
    until = datetime.now(UTC) + timedelta(hours=1)
    alert_rules.mute(control, DEFAULT_TENANT, nearly.id, until, "key 7")
    endpoints.disable(control, DEFAULT_TENANT, finance.id, "key 7", "maintenance")
    declare(FILE)
    assert rules(control)["Copilot, nearly"].muted_until == until, "who is told for a while is not the file's business"
    assert not places(control)["Finance"].enabled


def test_the_file_takes_over_what_somebody_else_set(declare, control):
    mine = Budget(name="Copilot", amount=Decimal(5), effective_from=datetime.now(UTC))
    first = budgets.put(control, DEFAULT_TENANT, mine, "key 7")
    declare(FILE)
    assert (held(control)["Copilot"].id, held(control)["Copilot"].author) == (first.id, DECLARED)


def test_rules_of_a_budget_in_the_file_take_the_place_of_those_that_it_was_given(declare, control):
    only = '[[budgets]]\nname = "Copilot"\namount = 100\n'
    declare(only)
    about = held(control)["Copilot"].id
    given_rules = {one.name for one in rules(control).values() if one.budget == about}
    assert len(given_rules) > 3
    assert declare(only).set == []
    declare(only + '[[rules]]\nname = "One"\nkind = "actual"\nbudget = "Copilot"\nthreshold = "95%"\n')
    assert {one.name for one in rules(control).values() if one.budget == about} == {"One"}
    declare(only)
    assert {one.name for one in rules(control).values() if one.budget == about} == given_rules
    assert declare(only).set == []


def test_a_secret_comes_from_a_file_and_the_one_before_it_signs_for_a_day_more(declare, control, tmp_path):
    declare(FILE)
    (tmp_path / "secret").write_text(OTHER + "\n")
    declare(FILE.replace('secret_env = "FINANCE_SECRET"', f'secret_file = "{tmp_path / "secret"}"'))
    now, finance = datetime.now(UTC), places(control)["Finance"].id
    assert endpoints.destination(control, DEFAULT_TENANT, finance, now).secrets == (OTHER, SECRET)
    assert endpoints.destination(control, DEFAULT_TENANT, finance, now + timedelta(days=2)).secrets == (OTHER,)


def test_another_kind_is_another_endpoint(declare, control):
    declare(FILE)
    before = places(control)["Finance"].id
    told_now = 'kind = "slack"\naddress = "https://hooks.slack.com/services/T1/B2/c3"'
    outcome = declare(f'[[endpoints]]\nname = "Finance"\n{told_now}\n')
    assert outcome.problems == []
    assert (places(control)["Finance"].kind, places(control)["Finance"].id == before) == ("slack", False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[budgets]]\namount = 5", "[[budgets]] number 1 has no name"),
        ('[[budgets]]\nname = "A"\n', "[[budgets]] 'A': amount is missing"),
        ('[[budgets]]\nname = "A"\namount = -5', "[[budgets]] 'A': amount -5 is not above 0"),
        ('[[budgets]]\nname = "A"\namount = 5\nlimit = 3', "[[budgets]] 'A': field 'limit' is unknown"),
        ('[[budgets]]\nname = "A"\namount = 5\nid = 3', "[[budgets]] 'A': id is given when it is set"),
        ('[[budgets]]\nname = "A"\namount = 5\nparent = 3', "parent '3' is not the name of another budget"),
        ('[[budgets]]\nname = "A"\namount = 5\nparent = "Z"', "[[budgets]] 'A': parent 'Z' is no budget"),
        ('[[budgets]]\nname = "A"\namount = 5\nfilters = ["tem:x"]', "[[budgets]] 'A': unknown filter 'tem'"),
        ('[[budgets]]\nname = "A"\namount = 5\ntime_zone = "Berlin"', "[[budgets]] 'A': time zone 'Berlin' is unknown"),
        ('[[budgets]]\nname = "A"\namount = 5\neffective_from = 2026-01-01T00:00:00', "has no time zone"),
        ('[[budgets]]\nname = "A"\namount = 5\n' * 2, "[[budgets]] 'A' is there twice"),
        ('[[budgets]]\nname = "A"\namount = 5\nparent = "B"\n[[budgets]]\nname = "B"\namount = 5\nparent = "A"',
         "'A', 'B' are parts of each other"),
        ('[[rules]]\nname = "R"\nkind = "actual"\nbudget = "Z"\nthreshold = 1', "[[rules]] 'R': budget 'Z' is none"),
        ('[[rules]]\nname = "R"\nkind = "actual"\nthreshold = 1', "[[rules]] 'R': "),
        ('[[rules]]\nname = "R"\nkind = "sorcery"\nthreshold = 1', "[[rules]] 'R': kind 'sorcery' is unknown"),
        ('[[rules]]\nname = "R"\nkind = "freshness"\nthreshold = true', "threshold 'True' is not a number"),
        ('[[rules]]\nname = "R"\nkind = "freshness"\nthreshold = 2\nendpoints = ["Z"]',
         "[[rules]] 'R': endpoint 'Z' is none"),
        ('[[endpoints]]\nname = "E"', "[[endpoints]] 'E': it has no address"),
        ('[[endpoints]]\nname = "E"\naddress_env = "NOBODY"', "the variable NOBODY is not set"),
        ('[[endpoints]]\nname = "E"\naddress_file = "nowhere"', "nowhere cannot be read (No such file"),
        ('[[endpoints]]\nname = "E"\naddress = "https://a.com/x"\naddress_env = "FINANCE_SECRET"', "are both there"),
        ('[[endpoints]]\nname = "E"\naddress = "https://a.com/x"', "[[endpoints]] 'E': it has no secret"),
        ('[[endpoints]]\nname = "E"\naddress = "https://a.com/x"\nsecret = "hunter2"', "the secret of webhook is not"),
        ('[[endpoints]]\nname = "E"\naddress = "http://a.com/x"\nsecret_env = "FINANCE_SECRET"', "in clear text"),
        ('[[endpoints]]\nname = "E"\naddress = "https://127.0.0.1/"\nsecret_env = "FINANCE_SECRET"', "webhook_allow"),
        ('[[endpoints]]\nname = "E"\naddress = "https://a.com/x"\ntypes = ["budget.*"]', "types has 'budget.*'"),
        ('[[endpoints]]\nname = "E"\nurl = "https://a.com/x"', "field 'url' is unknown"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_with_its_table_and_the_remedy(declare, control, text, problem):
    with pytest.raises(BadDeclarationError) as raised:
        declare(text)
    assert problem in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert held(control) == {}, "nothing is done by halves"


def test_every_problem_is_told_at_once(declare):
    with pytest.raises(BadDeclarationError) as raised:
        declare(
            '[[budgets]]\nname = "A"\n[[rules]]\nname = "R"\nkind = "x"\nthreshold = 1\n[[endpoints]]\nname = "E"\n'
        )
    assert [one.split(":")[0] for one in raised.value.problems] == [
        "[[budgets]] 'A'", "[[rules]] 'R'", "[[endpoints]] 'E'",
    ]  # fmt: skip


def test_a_setting_shows_names_and_nothing_that_may_be_secret(tmp_path):
    shown = {one.name: one.value for one in told(data=tmp_path, endpoints=[{"name": "E", "secret": "hunter2"}])}
    assert (shown["endpoints"], shown["budgets"]) == ("E", "None")


def test_doctor_counts_what_is_declared_and_fails_where_it_cannot_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "millicent.toml").write_text(FILE)
    run = CliRunner()
    well = run.invoke(cli.app, ["doctor", "--data", str(tmp_path / "data")], env={**ENVIRONMENT, "COLUMNS": "200"})
    assert "2 budgets, 2 rules, 1 endpoints" in well.output
    assert well.exit_code == 0
    ill = run.invoke(cli.app, ["doctor", "--data", str(tmp_path / "data")], env={"COLUMNS": "200"})
    assert "the variable FINANCE_SECRET is not set" in ill.output
    assert ill.exit_code == 1


def test_a_start_with_something_declared_that_cannot_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "millicent.toml").write_text(FILE)
    ports = [word for name in ("--port", "--otlp-port", "--grpc-port") for word in (name, "0")]
    refused = CliRunner().invoke(cli.app, ["up", "--data", str(tmp_path / "data"), "--insecure-local", *ports])
    assert refused.exit_code == 1
    assert "FINANCE_SECRET" in refused.output


def test_the_file_of_the_guide_can_be_carried_out(declare, control):
    text = (Path(__file__).parents[2] / "docs/howto/declare-budgets.md").read_text("utf-8")
    declare(text.split("```toml\n")[1].split("```")[0], FINANCE_WEBHOOK_SECRET=SECRET)
    assert (set(held(control)), set(places(control))) == ({"Company", "Search"}, {"Finance"})


NAMES = st.sampled_from(["Company", "Search", "Ads", "a,b", "Ä"])
BUDGETS = st.dictionaries(NAMES, st.tuples(st.integers(1, 3), st.none() | NAMES), max_size=5)


@given(st.lists(BUDGETS, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_whatever_was_declared_before_what_holds_is_what_is_declared_last(tmp_path_factory, files):
    control = Control(tmp_path_factory.mktemp("control"))
    for file in files:
        tables = [
            {"name": name, "amount": amount, **({"parent": whole} if whole in file and whole < name else {})}
            for name, (amount, whole) in file.items()
        ]
        found = declared.read(load(data="unused", budgets=tables), control, {})
        assert declared.carry_out(control, found).problems == []
        now = held(control)
        names = {one.id: one.name for one in now.values()}
        assert {one.name: (one.amount, names.get(one.parent)) for one in now.values()} == {
            one["name"]: (one["amount"], one.get("parent")) for one in tables
        }
        again = declared.carry_out(control, found)
        assert (again.set, again.ended) == ([], [])
    control.close()
