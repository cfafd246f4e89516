"""Billable units beside tokens, and what has a price of its own: from every way of telling them to the stored row."""

import itertools
import json
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import select

from millicent.collector.dialects import DIALECTS
from millicent.collector.reading import reread
from millicent.warehouse.frames import plain
from millicent.warehouse.tables import calls, told

WEB = "millicent.usage.units.web_searches"
GENAI = "opentelemetry.instrumentation.genai.anthropic"
USAGE = {"input_tokens": 40, "output_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
TOLD = USAGE | {"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}, "speed": "fast"}
LITELLM = {"prompt_tokens": 40, "completion_tokens": 9, "prompt_tokens_details": {"web_search_requests": 3}}
XAI = {
    "input_tokens": 40,
    "output_tokens": 9,
    "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1, "file_search_calls": 0},
}


def mapped(row):
    return None if row["units"] is None else {pair["key"]: pair["value"] for pair in row["units"]}


@pytest.fixture(scope="module")
def row(otlp, reading):
    """The row of one span with these attributes beside those of a chat, or with these alone."""

    def one(attributes=(), scope="somebody.elses.tracer", *, alone=False, **fields):
        attributes = (dict.fromkeys(otlp.CHAT) if alone else {}) | dict(attributes)
        return reading.told(otlp.request(otlp.span(attributes, **fields), scope=scope)).spans.row(0, named=True)

    return one


# ---- who tells them, and how


@pytest.mark.parametrize("scope", ["millicent.sdk", "somebody.elses.tracer", GENAI, "litellm", "ai", "pydantic-ai"])
def test_our_attributes_are_read_on_any_span(row, scope):
    names = {"litellm": "litellm_request", "ai": "ai.generateText.doGenerate"}
    attributes = {WEB: 2, "millicent.usage.units.audio_seconds": "30", "millicent.price.processing": "batch"}
    got = row(attributes | {"ai.operationId": names.get(scope)}, scope, name=names.get(scope, "chat"))
    assert (mapped(got), got["price_context"]) == ({"audio_seconds": 30, "web_searches": 2}, "processing=batch")
    assert json.loads(got["usage_raw"])[WEB] == 2


@pytest.mark.parametrize(
    ("scope", "name", "attributes", "units", "context"),
    [
        ("logfire.anthropic", "Message", {"gen_ai.operation.name": "chat", "gen_ai.usage.raw": json.dumps(TOLD)},
         {"web_searches": 3}, "speed=fast"),
        ("openinference.instrumentation.anthropic", "Messages",
         {"openinference.span.kind": "LLM", "output.value": json.dumps({"id": "m", "usage": TOLD})},
         {"web_searches": 3}, "speed=fast"),
        ("litellm", "litellm_request", {"metadata.usage_object": str(LITELLM)}, {"web_searches": 3}, None),
        ("litellm", "litellm_request", {"metadata.usage_object": str(TOLD)}, {"web_searches": 3}, "speed=fast"),
        ("litellm", "raw_gen_ai_request", {"llm.anthropic.usage": str(TOLD)}, {"web_searches": 3}, "speed=fast"),
        ("ai", "ai.generateText.doGenerate",
         {"ai.operationId": "ai.generateText.doGenerate",
          "ai.response.providerMetadata": json.dumps({"anthropic": {"usage": TOLD}})},
         {"web_searches": 3}, "speed=fast"),
        ("langfuse-sdk", "answer",
         {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": json.dumps(XAI)},
         {"social_searches": 1, "web_searches": 2}, None),
        ("pydantic-ai", "chat x",
         {"gen_ai.operation.name": "chat", "gen_ai.usage.details.web_search_requests": 4}, {"web_searches": 4}, None),
        (GENAI, "chat x",
         {"gen_ai.operation.name": "chat", "gen_ai.usage.server_tool_use.web_search_requests": 5},
         {"web_searches": 5}, None),
        ("com.anthropic.claude_code.tracing", "claude_code.llm_request",
         {"span.type": "llm_request", "input_tokens": 3, "output_tokens": 9, "speed": "fast"}, None, "speed=fast"),
        ("com.anthropic.claude_code.tracing", "claude_code.llm_request",
         {"span.type": "llm_request", "input_tokens": 3, "output_tokens": 9, "speed": "normal"}, None, None),
    ],
)  # fmt: skip
def test_a_providers_own_count_is_found_where_an_instrumentation_passes_it_on(
    row, scope, name, attributes, units, context
):
    got = row(attributes, scope, alone=True, name=name)
    assert (mapped(got), got["price_context"]) == (units, context)


def test_no_capture_tells_units_that_nobody_counted(captures, reading):
    """They come from instrumentations that pass the provider's object on, in which these are null or none."""
    for file in sorted(captures.glob("*anthropic*.pb")):
        if "metrics" not in file.name:
            for got in reading.told(file.read_bytes()).spans.to_dicts():
                assert (mapped(got) or {}, got["price_context"]) == ({}, None)


# ---- what is unknown, none, odd


@pytest.mark.parametrize(
    ("attributes", "units", "flags"),
    [
        ({}, None, []),
        ({WEB: 0}, {}, []),
        ({WEB: 0, "millicent.usage.units.code_executions": 1}, {"code_executions": 1}, []),
        ({WEB: -1}, None, ["units_not_believed"]),
        ({WEB: 10**12 + 1}, None, ["units_not_believed"]),
        ({WEB: -1, "millicent.usage.units.code_executions": 1}, {"code_executions": 1}, ["units_not_believed"]),
        ({WEB: "many"}, None, []),
        ({WEB: 2.0}, {"web_searches": 2}, []),
        ({WEB: 2.5}, None, []),
        ({"millicent.usage.units.lookups": 2, WEB: 1}, {"lookups": 2, "web_searches": 1}, []),
        ({"millicent.usage.units.lookups": 0}, None, []),
        ({"millicent.usage.units.lookups": -2}, None, []),
        ({"millicent.usage.units.No Unit": 2, "millicent.usage.units.": 3}, None, []),
    ],
)
def test_unknown_is_null_none_is_empty_and_what_cannot_be_true_is_left_out(row, attributes, units, flags):
    got = row(attributes)
    assert (mapped(got), got["usage_flags"]) == (units, flags)


@pytest.mark.parametrize(
    ("attributes", "context"),
    [
        ({"millicent.price.speed": "FAST ", "millicent.price.processing": "batch"}, "processing=batch,speed=fast"),
        ({"millicent.price.route": "mistral/eu"}, "route=mistral/eu"),
        ({"millicent.price.new_of_theirs": "yes"}, "new_of_theirs=yes"),
        ({"millicent.price.route": "a,b=c", "millicent.price.Odd Key": "x", "millicent.price.speed": ""}, None),
        ({"millicent.price.route": "x" * 65}, None),
    ],
)
def test_what_has_a_price_of_its_own_is_one_text(row, attributes, context):
    assert row(attributes)["price_context"] == context


def test_what_is_stated_goes_before_what_the_provider_said(row):
    attributes = {"span.type": "llm_request", "input_tokens": 3, "output_tokens": 9, "speed": "fast"}
    got = row(attributes | {"millicent.price.speed": "slow"}, "com.anthropic.claude_code.tracing", alone=True,
              name="claude_code.llm_request")  # fmt: skip
    assert got["price_context"] == "speed=slow"


def test_spans_that_tell_none_stay_without_beside_those_that_do(otlp, reading):
    other = {"millicent.usage.units.lookups": 7, "millicent.price.speed": "fast"}
    spans = [otlp.span(), otlp.span({WEB: 2} | other), otlp.span(other)]
    rows = reading.told(otlp.request(*spans)).spans
    assert [mapped(got) for got in rows.to_dicts()] == [None, {"lookups": 7, "web_searches": 2}, {"lookups": 7}]
    assert rows["price_context"].to_list() == [None, "speed=fast", "speed=fast"]


def test_a_call_that_is_billed_by_units_alone_is_not_missing_its_usage(row):
    got = row({"millicent.usage.units.input_document_pages": 3, "gen_ai.usage.input_tokens": None,
               "gen_ai.usage.output_tokens": None}, "millicent.sdk")  # fmt: skip
    assert got["usage_source"] == "reported"


# ---- one call told twice, stored, read again


def both_tellings(otlp):
    same = {"gen_ai.response.id": "msg_1"}
    silent = otlp.span(same, started_ns=otlp.NOW_NS)
    tells = otlp.span({**same, WEB: 2, "millicent.usage.units.lookups": 4, "millicent.price.speed": "fast"})
    app = {"resource": {"service.name": "app"}}
    return (
        otlp.request(silent, scope="com.anthropic.sdk.python", **app),
        otlp.request(tells, scope=GENAI, **app),
    )


@pytest.mark.parametrize("order", list(itertools.permutations((0, 1))))
@pytest.mark.parametrize("batches", [1, 2])
def test_what_one_telling_leaves_out_is_learned_from_the_other(otlp, ledger_of, order, batches):
    bodies = [both_tellings(otlp)[at] for at in order]
    tenant = ledger_of.load(bodies) if batches == 1 else ledger_of.load(*([body] for body in bodies))
    ledger_of.assert_rollup_is_raw(tenant)
    (one,) = (each for each in ledger_of.rows(tenant).to_dicts() if each["counted"])
    assert one["scope"] == "com.anthropic.sdk.python"
    assert (mapped(one), one["price_context"]) == ({"lookups": 4, "web_searches": 2}, "speed=fast")
    assert "merged_from_others" in one["usage_flags"]
    kept = plain(ledger_of.engine.read(select(told).where(told.c.tenant == tenant, told.c.span_id == one["span_id"])))
    assert kept["units"].to_list() == [None]  # its own words, from which a later decision starts again
    assert kept["price_context"].to_list() == [None]


CLAUDE = {"gen_ai.provider.name": "anthropic", "gen_ai.request.model": "claude-opus-5",
          "gen_ai.response.model": "claude-opus-5"}  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "units_usd", "status"),
    [
        ({}, Decimal(0), "priced"),
        ({WEB: 0}, Decimal(0), "priced"),
        ({WEB: 3}, Decimal("0.03"), "priced"),
        ({WEB: 3, "millicent.usage.units.lookups": 1}, Decimal("0.03"), "partial"),  # it has a price; we do not know it
        ({WEB: -1}, Decimal(0), "priced"),
    ],
)
def test_units_are_part_of_the_list_cost(otlp, attributes, units_usd, status):
    both = otlp.run(otlp.request(otlp.span(CLAUDE | attributes), otlp.span(CLAUDE))).spans
    one, plain_one = both.to_dicts()
    assert (one["list_units_usd"], one["price_status"]) == (units_usd, status)
    assert one["list_cost_usd"] == plain_one["list_cost_usd"] + units_usd


def test_what_has_a_price_of_its_own_is_priced_so(otlp):
    contexts = ({}, {"millicent.price.speed": "fast"}, {"millicent.price.processing": "batch"})
    costs = otlp.run(otlp.request(*(otlp.span(CLAUDE | one) for one in contexts))).spans["list_cost_usd"]
    assert costs.to_list() == [costs[0], 2 * costs[0], costs[0] / 2]


def test_a_stored_call_that_learns_of_a_search_costs_more(otlp, ledger_of):
    silent = otlp.span(CLAUDE | {"gen_ai.response.id": "msg_1"})
    tells = otlp.span(CLAUDE | {"gen_ai.response.id": "msg_1", WEB: 2})
    app = {"resource": {"service.name": "app"}}
    first = otlp.request(silent, scope="com.anthropic.sdk.python", **app)
    before = ledger_of.rows(ledger_of.load([first])).row(0, named=True)
    second = otlp.request(tells, scope="opentelemetry.instrumentation.anthropic", **app)
    tenant = ledger_of.load([first], [second])
    ledger_of.assert_rollup_is_raw(tenant)
    (after,) = (each for each in ledger_of.rows(tenant).to_dicts() if each["counted"])
    assert after["list_cost_usd"] == before["list_cost_usd"] + Decimal("0.02")
    assert after["list_units_usd"] == after["billed_cost_usd"] - before["billed_cost_usd"] == Decimal("0.02")


def test_units_come_back_from_the_store_as_they_were(otlp, ledger_of):
    spans = [otlp.span(), otlp.span({WEB: 0}), otlp.span({WEB: 2, "millicent.usage.units.lookups": 1})]
    tenant = ledger_of.load([otlp.request(*spans)])
    stored = plain(ledger_of.engine.read(select(calls.c.units).where(calls.c.tenant == tenant)))
    units = sorted((json.dumps(mapped(one)) for one in stored.to_dicts()), key=len)
    assert units == ["{}", "null", '{"lookups": 1, "web_searches": 2}']


def test_reading_again_finds_units_in_the_counters_and_keeps_those_without_a_rule(otlp, reading):
    spans = [otlp.span(), otlp.span({WEB: 0}), otlp.span({WEB: 2, "millicent.usage.units.lookups": 1})]
    right = reading.told(otlp.request(*spans)).spans
    wrong = right.with_columns(
        units=pl.col("units").list.eval(
            pl.element().filter(pl.element().struct.field("key") == "lookups").append(
                pl.struct(key=pl.lit("web_searches"), value=pl.lit(99, pl.Int64))
            )
        )
    )  # fmt: skip
    assert reread(wrong)["units"].to_list() == right["units"].to_list()
    assert reread(right).equals(right)


def test_every_dialect_reads_our_own_units_first():
    for dialect in DIALECTS:
        assert all(keys[0] == f"millicent.usage.units.{name}" for name, keys in dialect.units.items()), dialect.id
