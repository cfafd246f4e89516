"""What has no price: by model, most tokens first, with why and whose price might be meant."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest

from millicent.pricing.entries import Override
from millicent.warehouse.query import Period
from millicent.warehouse.unpriced import unpriced

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
DARK = {"provider": "openai", "model": "gpt-4o-minni", "price_status": "unpriced", "input_tokens": 100}


@pytest.fixture
def asked(facts):
    def ask(start: datetime = TEN, end: datetime = TEN + DAY, tenant: str = "acme"):
        return unpriced(SimpleNamespace(engine=facts.engine, prices=facts.prices), tenant, Period(start, end))

    return ask


def test_usage_is_listed_by_model_and_host_most_tokens_first(facts, a_call, asked):
    facts.store(
        a_call(**DARK),
        a_call(**{**DARK, "input_tokens": None, "output_tokens": 7}, started_at=TEN + MINUTE),
        a_call(**DARK, endpoint_host="llm.internal", started_at=TEN + 2 * MINUTE),
        a_call(**{**DARK, "model": "acme-7b", "input_tokens": 5000, "output_tokens": 500}, call_count=20),
        a_call(**{**DARK, "model": None, "input_tokens": None}),
    )
    rows = asked()
    assert [(row.model, row.endpoint_host, row.calls, row.tokens) for row in rows] == [
        ("acme-7b", None, 20, 5500), ("gpt-4o-minni", None, 2, 107), ("gpt-4o-minni", "llm.internal", 1, 100),
        (None, None, 1, None),
    ]  # fmt: skip
    assert (rows[1].first_at, rows[1].last_at) == (TEN, TEN + MINUTE)
    assert rows[1].suggestions[0] == "openai/gpt-4o-mini"
    assert "'gpt-4o-minni'" in rows[1].reason
    assert (rows[3].reason.split(".")[0], rows[3].suggestions) == ("The call names no model", ())


def test_only_api_calls_of_the_tenant_and_period_that_count_and_lack_a_price_are_listed(facts, a_call, asked):
    facts.store(
        a_call(**{**DARK, "price_status": "priced"}),
        a_call(**{**DARK, "price_status": "not_billed"}),
        a_call(**DARK, billing="self_hosted"),
        a_call(**DARK, counted=False),
        a_call(**DARK, tenant="rival"),
        a_call(**DARK, started_at=TEN - MINUTE),
        a_call(**DARK, started_at=TEN + DAY),
    )
    assert asked() == []
    assert [row.calls for row in asked(TEN - MINUTE, TEN)] == [1]
    assert [row.calls for row in asked(tenant="rival")] == [1]


def test_a_partly_priced_call_says_which_part_is_not_known(facts, a_call, asked):
    usage = {"provider": "openai", "model": "gpt-4o", "price_status": "partial", "list_cost_usd": Decimal("0.01")}
    facts.store(
        a_call(**usage, input_tokens=10),
        a_call(**usage, input_tokens=10, output_tokens=1, units=[{"key": "storage_searches", "value": 2}],
               endpoint_host="api.openai.com"),
    )  # fmt: skip
    by_host = {row.endpoint_host: row for row in asked()}
    assert {row.price_status for row in by_host.values()} == {"partial"}
    assert "A total token count is unknown" in by_host[None].reason


def test_what_the_present_book_has_a_price_for_is_to_be_priced_again(facts, a_call, asked):
    facts.store(a_call(**{**DARK, "model": "acme-7b", "output_tokens": 3}))
    assert "Add" in asked()[0].reason or "add" in asked()[0].reason
    facts.control.add_prices([Override(model="acme-7b", like="openai/gpt-4o", source="s", effective_from=TEN)], "acme")
    assert asked()[0].reason.endswith("has its price: price these calls again.")
