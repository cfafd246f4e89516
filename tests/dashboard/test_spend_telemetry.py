"""What Prometheus is told of costs, and the dashboard and rules that are made of it."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import promql_parser
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from millicent.dashboard import spend_telemetry
from millicent.dashboard.spend_telemetry import OTHER, UNKNOWN, Spend
from millicent.warehouse import budgets, ledger
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.frames import plain
from millicent.warehouse.tables import calls

GRAFANA = Path(__file__).parents[2] / "docs/grafana"
HOSTILE = 'a"b\\c\nd {}'


class Scraped:
    """A scraper that never waits, and the books that it scrapes."""

    def __init__(self, warehouse):
        self.warehouse, self.now = warehouse, datetime.now(UTC)
        self.spend = Spend(warehouse, clock=lambda: self.now)
        self.commits = 10

    def add(self, *told):
        self.commits += 1
        one = plain(self.warehouse.engine.read(select(calls).limit(1)))
        rows = [one.with_columns(**self._told(at, more)) for at, more in enumerate(told)]
        outcomes = pl.DataFrame(schema={"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String,
                                        "reason": pl.String, "spans": pl.Int64})  # fmt: skip
        batch = ledger.Batch(pl.concat(rows), outcomes, pl.DataFrame())
        ledger.commit(self.warehouse.engine, batch, "otlp", (0, self.commits))

    def _told(self, at, more):
        span = self.commits * 1000 + at
        return {
            "span_id": pl.lit(span, pl.UInt64), "trace_id": pl.lit(span.to_bytes(16)),
            **{name: pl.lit(value, pl.Decimal(18, 12) if isinstance(value, Decimal) else None)
               for name, value in more.items()},
        }  # fmt: skip

    def revise(self, **told):
        stored = plain(self.warehouse.engine.read(select(calls)))
        ledger.revise(self.warehouse.engine, stored.with_columns(**told))

    def text(self):
        for told in self.spend._of.values():
            if told.read_at is not None:
                told.read_at -= spend_telemetry.KEPT_S
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()

    def collect(self):
        return self.spend.collect(DEFAULT_TENANT)

    def samples(self, name):
        families = text_string_to_metric_families(self.text())
        return {
            tuple(sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    def sum(self, name, **labels):
        return sum(value for told, value in self.samples(name).items() if labels.items() <= dict(told).items())


@pytest.fixture
def scraped(warehouse_of):
    made = warehouse_of({"span_id": 1, "team": "ads", "model": "gpt-5-mini", "input_tokens": 10, "output_tokens": 5,
                         "cache_read_tokens": 4, "billed_cost_usd": Decimal(2)})  # fmt: skip
    return Scraped(made)


@pytest.fixture
def warehouse(scraped):
    return scraped.warehouse


def test_counters_begin_with_the_process_and_follow_the_books(scraped):
    assert scraped.sum("millicent_cost_usd_total") == 0
    scraped.add({"team": "ads", "billed_cost_usd": Decimal(3)}, {"team": "search", "billed_cost_usd": Decimal("0.5")})
    assert scraped.sum("millicent_cost_usd_total", team="ads", cost_type="api") == 3
    assert scraped.sum("millicent_cost_usd_total") == 3.5
    assert scraped.sum("millicent_calls_total") == 2
    assert scraped.sum("millicent_month_cost_usd", team="ads") == 5


def test_each_token_is_told_once(scraped):
    scraped.text()
    scraped.add({})
    kinds = {kind: scraped.sum("millicent_tokens_total", kind=kind) for kind in ("uncached_input", "cached_input")}
    assert kinds == {"uncached_input": 6, "cached_input": 4}
    assert scraped.sum("millicent_tokens_total") == 15


def test_a_counter_never_falls_and_a_gauge_tells_the_correction(scraped):
    scraped.text()
    scraped.add({"billed_cost_usd": Decimal(4)})
    assert scraped.sum("millicent_cost_usd_total") == 4
    scraped.revise(billed_cost_usd=pl.lit(1, pl.Decimal(18, 12)))
    assert scraped.sum("millicent_cost_usd_total") == 4
    assert scraped.sum("millicent_month_cost_usd") == 2
    scraped.add({"billed_cost_usd": Decimal(10)})
    assert scraped.sum("millicent_cost_usd_total") == 10  # 12 in the books less the 2 there were


def test_labels_are_few_and_names_keep_their_place(scraped, monkeypatch):
    monkeypatch.setitem(spend_telemetry.MOST, "team", 2)
    scraped.text()
    scraped.add({"team": "b", "billed_cost_usd": Decimal(1)})
    scraped.add(*({"team": f"team {n}", "billed_cost_usd": Decimal(9)} for n in range(5)))
    scraped.add({"team": None})
    teams = {dict(labels)["team"] for labels in scraped.samples("millicent_cost_usd_total")}
    assert len(teams) == 4
    assert {"ads", OTHER, UNKNOWN} < teams
    assert scraped.sum("millicent_calls_total") == 7


def test_series_are_bounded_whatever_names_calls_carry(scraped, monkeypatch):
    monkeypatch.setattr(spend_telemetry, "MOST_SERIES", 3)
    scraped.text()
    scraped.add(*({"team": f"t{n}", "model": f"m{n}"} for n in range(9)))
    assert len(scraped.samples("millicent_calls_total")) <= 4
    assert scraped.sum("millicent_calls_total") == 9


def test_names_are_text(scraped):
    scraped.text()
    scraped.add({"team": HOSTILE})
    assert scraped.sum("millicent_calls_total", team=HOSTILE) == 1


def test_a_scrape_shortly_after_another_asks_nothing(scraped, monkeypatch):
    list(scraped.collect())
    monkeypatch.setattr(scraped.warehouse, "ask", None)
    told = scraped.spend._of[DEFAULT_TENANT].families
    assert all(one is other for one, other in zip(scraped.collect(), told, strict=True))


def test_budgets_are_told_by_what_they_have_used(scraped):
    since = scraped.now - timedelta(days=60)
    told = budgets.Budget(name="All of it", amount=Decimal(8), effective_from=since)
    budgets.put(scraped.warehouse.control, DEFAULT_TENANT, told, "cfo")
    strange = budgets.Budget(name="No rate", amount=Decimal(8), currency="XTS", effective_from=since)
    budgets.put(scraped.warehouse.control, DEFAULT_TENANT, strange, "cfo")
    found = {dict(labels)["budget"]: value for labels, value in scraped.samples("millicent_budget_ratio").items()}
    assert found == {"All of it": 0.25}


def test_nothing_is_told_to_nobody_and_each_tenant_sees_its_own(scraped):
    assert not any(family.samples for family in scraped.spend.collect(None))
    assert not any(family.samples for family in scraped.spend.collect("rival"))


def test_a_read_key_scrapes_the_costs_of_its_tenant(client):
    assert 'millicent_month_cost_usd{cost_type="api",team="ads"} 2.0' in client("read").get("/metrics").text


# ---- the dashboard and the rules


def exposed():
    """Every series that there is, with the labels that it may have."""
    families = {family.name: family for family in spend_telemetry._families().values()}
    found = {f"{name}_total" if family.type == "counter" else name: set(family._labelnames)
             for name, family in families.items()}  # fmt: skip
    return found | {"millicent_behind_seconds": set(), "millicent_spans_total": {"outcome", "reason"}}


def rules():
    """Name and expression of every rule, in their order."""
    told = (GRAFANA / "rules.yml").read_text("utf-8")
    found = re.findall(r"^ {6}- (record|alert): (\S+)\n {8}expr: (.+)$", told, re.MULTILINE)
    assert len(found) == told.count("- record:") + told.count("- alert:")
    return found


def dashboard():
    return json.loads((GRAFANA / "millicent.json").read_text("utf-8"))


def assert_asks_what_there_is(expression, known):
    """Every selector names a series that is told, and labels that it has; returns the labels of what comes out."""
    selectors = []

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
            inner = getattr(node, name, None)
            for one in inner if isinstance(inner, list) else [inner]:
                if one is not None and not isinstance(one, (str, int, float)):
                    visit(one)

    grouped: set[str] = set()
    visit(promql_parser.parse(expression))
    assert selectors
    for selector in selectors:
        assert selector.name in known, selector.name
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= known[selector.name], (selector.name, asked)
        assert grouped <= known[selector.name], (expression, grouped)
    return grouped


def test_every_rule_asks_what_is_told_or_what_a_rule_before_it_recorded():
    known = exposed()
    for kind, name, expression in rules():
        labels = assert_asks_what_there_is(expression, known)
        if kind == "record":
            assert re.fullmatch(r"(\w+:)?millicent_\w+:\w+", name)
            known[name] = labels or (set() if ":" in expression else labels)
    assert len(known) > len(exposed())


def test_every_panel_asks_what_is_told():
    known = exposed() | {name: set() for kind, name, _ in rules() if kind == "record"}
    told = dashboard()
    variables = {one["name"] for one in told["templating"]["list"]}
    asked = set()
    for panel in told["panels"]:
        assert panel["description"]
        for target in panel["targets"]:
            asked |= set(re.findall(r"\$(\w+)", target["expr"]))
            plain_text = re.sub(r"\$\w+", ".*", target["expr"])
            assert_asks_what_there_is(plain_text, known)
            series = [labels for name, labels in known.items() if name in target["expr"]]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert any(label in labels for labels in series), (panel["title"], label)
    assert asked <= variables


def test_panels_stand_side_by_side_and_every_cost_series_is_shown():
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    text = json.dumps(dashboard())
    assert {name for name in exposed() if name not in text} == {"millicent_calls_total"}
