"""How far numbers can be trusted: who sends, the books, doubts, lateness and what was set aside."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from millicent.warehouse import ledger, quality, record
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = Period(datetime(2026, 3, 10, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))
CALLS = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).schema
ASIDE = {"tenant": pl.String, "received_at": pl.Datetime("us", "UTC"), "reason": pl.String, "detail": pl.String,
         "trace_id": pl.String, "span_id": pl.String, "scope": pl.String, "service": pl.String,
         "usage_raw": pl.String}  # fmt: skip
BOOKS = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
         "spans": pl.Int64}  # fmt: skip


def call(number: int, at: datetime = NOON, **told) -> dict:
    known = {"tenant": "default", "trace_id": number.to_bytes(16), "span_id": number, "billing": "api", "status": "ok",
             "signal": "span", "dialect": "millicent", "usage_source": "reported", "price_status": "priced",
             "call_count": 1, "counted": True, "service": "shop", "received_at": at, "started_at": at,
             "usage_flags": []}  # fmt: skip
    return {name: {**known, **told}.get(name) for name in CALLS}


@pytest.fixture
def engine(tmp_path):
    warehouse = Warehouse.embedded(tmp_path)
    hour = timedelta(hours=1)
    rows = [
        call(1), call(2, NOON + hour, usage_flags=["totals_disagree", "generic_dialect"]),
        call(3, service="desk", dialect="litellm", usage_flags=["totals_disagree"]),
        call(4, received_at=NOON + 5 * hour, duration_ms=60_000),
        call(5, counted=False, usage_flags=["totals_disagree"]), call(6, tenant="rival", service="rival"),
        call(7, DAY.end, usage_flags=["totals_disagree"]),
    ]  # fmt: skip
    books = [
        ("default", NOON, "stored", "call", 5), ("default", NOON, "duplicate", "same_span", 2),
        ("default", NOON - hour, "stored", "call", 1), ("rival", NOON, "stored", "call", 9),
        ("default", DAY.end, "stored", "call", 40),
    ]  # fmt: skip
    aside = [
        ("default", NOON, "negative_tokens", '{"input":-1}', "a", "b", "scope", "shop", "{}"),
        ("default", NOON + hour, "negative_tokens", '{"input":-1}', "a", "b", "scope", "shop", "{}"),
        ("rival", NOON, "bad_ids", "", "a", "b", "scope", "rival", "{}"),
    ]
    batch = ledger.Batch(
        pl.DataFrame(rows, schema=CALLS), pl.DataFrame(books, schema=BOOKS, orient="row"),
        pl.DataFrame(aside, schema=ASIDE, orient="row"),
    )  # fmt: skip
    ledger.commit(warehouse.engine, batch, "otlp", (0, 1))
    yield warehouse.engine
    warehouse.close()


def test_sources_are_who_sent_counted_calls_and_when_last(engine):
    found = quality.heard(engine, "default", DAY)
    told = [(row["service"], row["dialect"], int(row["calls"]), row["last_hour"]) for row in found.to_dicts()]
    assert told == [("shop", "millicent", 3, NOON + timedelta(hours=1)), ("desk", "litellm", 1, NOON)]


def test_books_are_of_the_tenant_and_the_period_alone(engine):
    found = {
        (row["outcome"], row["reason"]): int(row["spans"]) for row in quality.books(engine, "default", DAY).to_dicts()
    }
    assert found == {("stored", "call"): 6, ("duplicate", "same_span"): 2}


def test_doubts_count_calls_by_flag(engine):
    assert quality.doubts(engine, "default", DAY) == [("totals_disagree", 2), ("generic_dialect", 1)]


def test_a_call_is_late_that_came_an_hour_after_its_end(engine):
    late = quality.lateness(engine, "default", DAY)
    assert (late.calls, late.late, late.longest) == (4, 1, timedelta(hours=5) - timedelta(minutes=1))


def test_what_is_set_aside_says_why_and_how_often(engine):
    (one,) = quality.set_aside(engine, "default", DAY)
    assert (one.reason, one.spans, one.last_at) == ("negative_tokens", 2, NOON + timedelta(hours=1))
    assert one.detail == '{"input":-1}'


def test_a_day_without_calls_has_nothing_to_doubt(engine):
    empty = Period(DAY.start - timedelta(days=9), DAY.start - timedelta(days=8))
    assert quality.heard(engine, "default", empty).is_empty()
    assert quality.doubts(engine, "default", empty) == []
    assert quality.lateness(engine, "default", empty) == quality.Lateness(0, 0, None)
