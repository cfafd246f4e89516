"""A mended usage rule reaches stored calls: the difference is told first, then rows, sums and costs agree with it."""

from datetime import timedelta
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import select

from millicent.collector import pipeline, rereading
from millicent.collector.batch import Context, Incoming
from millicent.warehouse import evidence, ledger
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.frames import plain
from millicent.warehouse.query import Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls

OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
USD = pl.Decimal(18, 12)
GENAI = "opentelemetry.instrumentation.genai.openai"


@pytest.fixture
def warehouse(tmp_path):
    opened = Warehouse.embedded(tmp_path / "data", memory_limit="256MB")
    yield opened
    opened.close()


@pytest.fixture
def load(otlp, warehouse):
    def load(*bodies):
        context = Context(
            warehouse.prices, [], lambda keys: ledger.seen(warehouse.engine, keys),
            related=lambda probe, since: evidence.related(warehouse.engine, probe, since),
        )  # fmt: skip
        done = pipeline.run([Incoming(body, DEFAULT_TENANT, "key-1", otlp.NOW) for body in bodies], context)
        batch = ledger.Batch(
            done.spans, pl.DataFrame(schema=OUTCOMES), done.quarantined, done.revised, done.told, done.edges
        )
        ledger.commit(warehouse.engine, batch, "otlp", (0, 1))

    return load


@pytest.fixture
def period(otlp):
    return Period(otlp.NOW - timedelta(hours=1), otlp.NOW + timedelta(hours=1))


def misread(warehouse):
    """As an older rule might have read them: input without its cached part, under an older revision."""
    rows = plain(warehouse.engine.read(select(calls)))
    cached = pl.col("cache_read_tokens").fill_null(0)
    wrong = rows.with_columns(
        input_tokens=pl.col("input_tokens") - cached,
        usage_rule=pl.concat_str("dialect", pl.lit("/0")),
        list_cost_usd=pl.when(cached > 0).then(pl.lit(Decimal("0.5"), pl.Decimal(18, 12))).otherwise("list_cost_usd"),
    )
    ledger.revise(warehouse.engine, wrong)
    return rows


def spent(warehouse, period):
    asked = Query(measures=("input_tokens", "list_cost_usd", "calls"), period=period)
    return warehouse.ask(DEFAULT_TENANT, asked).frame.to_dicts()


def test_what_would_change_is_told_and_nothing_changes(otlp, warehouse, load, period):
    load(otlp.request(otlp.span({"gen_ai.usage.cache_read.input_tokens": 400}), scope=GENAI))
    misread(warehouse)
    before = plain(warehouse.engine.read(select(calls)))
    told = rereading.reread(warehouse, DEFAULT_TENANT, period, apply=False, actor="ann")
    assert plain(warehouse.engine.read(select(calls))).equals(before)
    (one,) = told.differences
    assert (told.calls, one.calls, one.dialect, one.model) == (1, 1, "otel_genai", "gpt-4o-2024-08-06")
    assert (one.input_tokens_before, one.input_tokens_after) == (600, 1000)
    assert one.output_tokens_before == one.output_tokens_after == 100
    assert (one.list_cost_usd_before, one.list_cost_usd_after) == (Decimal("0.5"), Decimal("0.003"))


def test_calls_read_again_are_as_if_the_rule_had_always_been_right(otlp, warehouse, load, period):
    load(otlp.request(otlp.span({"gen_ai.usage.cache_read.input_tokens": 400}), otlp.span(), scope=GENAI))
    right = misread(warehouse).sort("span_id")
    assert rereading.reread(warehouse, DEFAULT_TENANT, period, apply=True, actor="ann").calls == 2
    assert plain(warehouse.engine.read(select(calls))).sort("span_id").equals(right)
    assert spent(warehouse, period) == [{"input_tokens": 2000, "list_cost_usd": Decimal("0.0065"), "calls": 2}]
    assert rereading.reread(warehouse, DEFAULT_TENANT, period, apply=True, actor="ann") == rereading.Reread(0, ())


def test_what_a_call_learned_from_another_telling_stays(otlp, warehouse, load, period):
    same = {"gen_ai.response.id": "r-1", "gen_ai.usage.cache_read.input_tokens": 400}
    native = otlp.request(otlp.span({**same, "gen_ai.usage.reasoning.output_tokens": None}))
    rich = otlp.request(otlp.span({**same, "gen_ai.usage.reasoning.output_tokens": 40}), scope=GENAI)
    load(native, rich)
    right = misread(warehouse).sort("span_id")
    assert "merged_from_others" in right.filter("counted")["usage_flags"][0]
    rereading.reread(warehouse, DEFAULT_TENANT, period, apply=True, actor="ann")
    assert plain(warehouse.engine.read(select(calls))).sort("span_id").equals(right)


def test_units_are_read_again_from_the_counters_and_priced_anew(otlp, warehouse, load, period):
    searched = {"gen_ai.usage.server_tool_use.web_search_requests": 3, "millicent.usage.units.lookups": 1}
    load(otlp.request(otlp.span(searched), scope=GENAI))
    right = plain(warehouse.engine.read(select(calls)))
    lookups = pl.element().filter(pl.element().struct.field("key") == "lookups")
    forgotten = right.with_columns(units=pl.col("units").list.eval(lookups), list_units_usd=pl.lit(None, USD))
    ledger.revise(warehouse.engine, forgotten)
    (one,) = rereading.reread(warehouse, DEFAULT_TENANT, period, apply=True, actor="ann").differences
    assert one.calls == 1
    assert plain(warehouse.engine.read(select(calls))).equals(right)


def test_calls_of_another_tenant_or_outside_the_period_stay(otlp, warehouse, load, period):
    load(otlp.request(otlp.span({"gen_ai.usage.cache_read.input_tokens": 400}), scope=GENAI))
    misread(warehouse)
    assert rereading.reread(warehouse, "rival", period, apply=True, actor="ann").calls == 0
    later = Period(period.end, period.end + timedelta(hours=1))
    assert rereading.reread(warehouse, DEFAULT_TENANT, later, apply=True, actor="ann").calls == 0
