"""Why a call costs what it does: by the very book that priced it, to the last digit, whatever has changed since."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from millicent.pricing import bundled
from millicent.pricing.entries import FxRate, Override, Term
from millicent.pricing.rates import Cell
from millicent.warehouse import explain
from millicent.warehouse.calls import Search, find
from millicent.warehouse.prices import Prices
from millicent.warehouse.tables import PRICE

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
GPT = {"provider": "openai", "model": "gpt-4o", "input_tokens": 1234, "output_tokens": 77, "cache_read_tokens": 1000}
ACME = {"provider": "acme", "model": "acme-7b", "input_tokens": 1234, "output_tokens": 77}
OWN = [
    Term(provider="openai", percent_off=Decimal("12.5"), source="contract 4711", note="frame", effective_from=TEN),
    Override(model="acme-7b", prices={"input_mtok": Decimal("0.3"), "output_mtok": Decimal("0.7")}, currency="EUR",
             source="https://acme.example/prices", note="private model", effective_from=TEN),
    FxRate(currency="EUR", usd_per_unit=Decimal("1.0842"), source="ECB", effective_from=TEN),
]  # fmt: skip


@pytest.fixture
def store(facts, a_call):
    """Prices calls as ingest does and stores them; returns each as it is found."""
    spans = itertools.count(1000)

    def put(prices: Prices, *usages: dict, **told) -> list[dict]:
        mine = [a_call(**{"started_at": TEN, "span_id": next(spans), **usage, **told}) for usage in usages]
        frame = pl.DataFrame(
            [{**usage, "tenant": "acme", "started_at": TEN, "billing": one["billing"]} for usage, one in
             zip(usages, mine, strict=True)],
            schema_overrides={"started_at": pl.Datetime("us", "UTC")},
        )  # fmt: skip
        priced = prices.price(frame).select(PRICE).to_dicts()
        mine = [{**one, **amounts} for one, amounts in zip(mine, priced, strict=True)]
        facts.store(*mine)
        found = {row["span_id"]: row for row in found_calls(facts)}
        return [found[f"{one['span_id']:016x}"] for one in mine]

    return put


def a_frame(usage: dict) -> pl.DataFrame:
    return pl.DataFrame([{**usage, "tenant": "acme", "started_at": TEN}],
                        schema_overrides={"started_at": pl.Datetime("us", "UTC")})  # fmt: skip


def found_calls(facts) -> list[dict]:
    return find(facts.engine, "acme", Search())[0]


def told(facts, prices: Prices, row: dict) -> list[explain.Line]:
    return explain.lines(facts.engine, prices, "acme", row)


def amounts(lines: list[explain.Line], step: str) -> dict[str, Decimal]:
    return {line.what: Decimal(line.value) for line in lines if line.step == step and line.value}


def dearer(factor: int):
    for entry in bundled.entries():
        cells = (Cell(cell.label, {key: price * factor for key, price in cell.prices.items()}) for cell in entry.cells)
        yield replace(entry, cells=tuple(cells))


def test_terms_are_derived_beside_the_list_price_with_their_contract(facts, store):
    facts.control.add_prices(OWN, "acme", "ann")
    (row,) = store(facts.prices, GPT)
    lines = told(facts, facts.prices, row)
    listed, billed = amounts(lines, "list price"), amounts(lines, "billed price")
    assert listed.pop("list cost") == row["list_cost_usd"] == sum(listed.values())
    assert billed.pop("billed cost") == row["billed_cost_usd"] == sum(billed.values())
    assert row["billed_cost_usd"] == row["list_cost_usd"] * Decimal("0.875")
    assert amounts(lines, "effective") == {"billed cost of the API call": row["billed_cost_usd"]}
    (term,) = (line for line in lines if line.what.startswith("term 1, by ann, known from "))
    assert term.what.endswith("UTC, frame")
    assert term.source == "contract 4711"


def test_an_override_in_another_currency_names_its_source_and_the_rate_with_its_date(facts, store):
    facts.control.add_prices(OWN, "acme", "ann")
    (row,) = store(facts.prices, ACME)
    assert row["price_status"] == "priced"
    lines = told(facts, facts.prices, row)
    listed = amounts(lines, "list price")
    assert listed.pop("list cost") == row["list_cost_usd"] == sum(listed.values()) == row["billed_cost_usd"]
    (override,) = (line for line in lines if line.what.startswith("override 2, by ann, known from "))
    assert override.source == "https://acme.example/prices"
    assert amounts(lines, "exchange rate") == {"1 EUR from 2026-03-04 10:00 UTC": Decimal("1.0842")}
    assert not amounts(lines, "billed price")


def test_a_stored_amount_is_derived_by_what_priced_it_after_updates_and_other_entries(facts, store):
    facts.control.add_prices(OWN, "acme", "ann")
    first = store(facts.prices, GPT, ACME)
    facts.control.retire_price(1, "acme", "bob")
    facts.control.add_prices(
        [Override(model="acme-7b", prices={"input_mtok": Decimal(9)}, source="s", effective_from=TEN)], "acme"
    )
    later = Prices(facts.control, "genai-prices 99.0.0", dearer(3))
    later.accept("ann")
    second = store(later, GPT, ACME)
    assert [row["price_version"] for row in second] != [row["price_version"] for row in first]
    for row in (*first, *second):
        lines = told(facts, later, row)
        for step, name, column in (("list price", "list cost", "list_cost_usd"),
                                   ("billed price", "billed cost", "billed_cost_usd")):  # fmt: skip
            derived = amounts(lines, step)
            if derived:
                assert derived.pop(name) == row[column] == sum(derived.values())
        says = [line.what for line in lines if "stored amounts do not move" in line.what]
        assert bool(says) == (row in first)
    by_span = {row["span_id"]: row for row in found_calls(facts)}
    assert [by_span[row["span_id"]] for row in first] == first


def test_a_price_book_that_was_never_kept_is_said_to_be_missing(facts, store):
    (row,) = store(facts.prices, GPT)
    lines = told(facts, facts.prices, {**row, "price_version": "genai-prices 0.0.1"})
    assert any("genai-prices 0.0.1 is not kept: derived by the present one" in line.what for line in lines)
    listed = amounts(lines, "list price")
    assert listed.pop("list cost") == row["list_cost_usd"] == sum(listed.values())


def test_names_that_are_taken_for_another_model_now_are_derived_by_the_entry_that_was_applied(facts, store):
    (row,) = store(facts.prices, GPT)
    renamed = {**row, "model": "gpt-4o-as-it-was-called-once", "provider": "some-gateway"}
    listed = amounts(told(facts, facts.prices, renamed), "list price")
    assert listed.pop("list cost") == row["list_cost_usd"] == sum(listed.values())


def test_a_call_on_own_hardware_says_what_it_would_have_cost_at_a_provider(facts, store):
    (row,) = store(facts.prices, GPT, billing="self_hosted", deployment="rack", price_status="not_billed")
    lines = told(facts, facts.prices, row)
    assert amounts(lines, "at a provider") == {"what this would have cost at openai, as gpt-4o": row["list_cost_usd"]}
    assert not [line for line in lines if line.step == "billed price"]
    facts.control.add_prices(
        [Override(model="acme-7b", like="openai/gpt-4o", source="mapping", effective_from=TEN)], "acme"
    )
    (mapped,) = store(facts.prices, ACME, billing="self_hosted")
    lines = told(facts, facts.prices, mapped)
    assert amounts(lines, "at a provider") == {
        "what this would have cost at openai, as gpt-4o": mapped["list_cost_usd"]
    }


def test_other_units_and_what_was_asked_for_are_part_of_the_derivation(facts, store):
    search = {"key": "web_searches", "value": 3}
    usage = {"provider": "anthropic", "model": "claude-sonnet-4-5", "input_tokens": 10, "output_tokens": 1,
             "units": [search]}  # fmt: skip
    (row,) = store(facts.prices, usage, price_context="processing=batch")
    lines = told(facts, facts.prices, row)
    assert {line.what: line.value for line in lines if line.step == "units"} == {
        "web_searches": "3", "asked for processing=batch": "",
    }  # fmt: skip
    listed = amounts(lines, "list price")
    assert any(what.startswith("3 web_searches × ") for what in listed)
    assert row["list_units_usd"] > 0


def test_a_call_that_failed_without_usage_says_that_it_costs_nothing(facts, a_call):
    facts.store(a_call(**{**GPT, "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": None}, status="error",
                       price_status="not_billed", list_cost_usd=Decimal(0), billed_cost_usd=Decimal(0),
                       price_version=facts.prices.version("acme"), price_entry="openai/gpt-4o"))  # fmt: skip
    (row,) = found_calls(facts)
    lines = told(facts, facts.prices, row)
    assert amounts(lines, "list price")["list cost"] == 0
    assert not any("stored amounts do not move" in line.what for line in lines)


def test_unpriced_calls_say_so_once_the_price_is_known(facts, store):
    (row,) = store(facts.prices, ACME)
    assert row["price_status"] == "unpriced"
    facts.control.add_prices(OWN, "acme")
    lines = told(facts, facts.prices, row)
    says = [line.what for line in lines if "stored amounts do not move" in line.what]
    assert len(says) == 2


def test_neither_an_update_that_waits_nor_one_that_was_accepted_moves_a_stored_amount(facts, store):
    def history():
        sums = facts.ask("spend_usd", "list_cost_usd", "billed_cost_usd", dimensions=("model",), basis="billed")
        return found_calls(facts), sums

    store(facts.prices, GPT, {**GPT, "model": "gpt-4o-mini"})
    before, version = history(), facts.prices.version("acme")
    held = Prices(facts.control, "genai-prices 99.0.0", dearer(2))
    assert held.pending().models
    assert history() == before
    amounts_held = held.price(a_frame(GPT))["list_cost_usd"][0]
    assert amounts_held == facts.prices.of_version("acme", version).price(a_frame(GPT))["list_cost_usd"][0]
    held.accept("ann")
    assert history() == before
    assert held.price(a_frame(GPT))["list_cost_usd"][0] == 2 * amounts_held
