"""A batch is stored whole or not at all, and where every span went adds up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from millicent.warehouse import ledger
from millicent.warehouse.calls import Search, find
from millicent.warehouse.engine import RowsRefusedError
from millicent.warehouse.tables import metadata

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
TABLES = ("calls", "usage_hourly", "dirty_hours", "loaded", "outcomes", "quarantine")
ASIDE = pl.DataFrame(
    {"tenant": ["acme"], "received_at": [TEN], "reason": ["absurd_tokens"], "detail": ["-1"], "trace_id": ["00"],
     "span_id": ["01"], "scope": [None], "service": [None], "usage_raw": [None]},
    schema_overrides=dict.fromkeys(("scope", "service", "usage_raw"), pl.String),
)  # fmt: skip


def heights(engine) -> dict[str, int]:
    counted = {name: select(func.count().label("n")).select_from(metadata.tables[name]) for name in TABLES}
    return {name: engine.read(asked).to_pylist()[0]["n"] for name, asked in counted.items()}


@pytest.fixture
def whole_batch(a_call, as_batch):
    """Something for every table."""
    calls = [a_call(team="search"), a_call(billing="self_hosted", deployment="rack", input_tokens=1)]
    return as_batch(calls, [("acme", TEN, "stored", "call", 2), ("acme", TEN, "quarantined", "absurd", 1)], ASIDE)


def test_a_commit_stores_rows_sums_outcomes_and_position_together(facts, whole_batch):
    ledger.commit(facts.engine, whole_batch, "otlp", (3, 77))
    assert heights(facts.engine) == {
        "calls": 2, "usage_hourly": 2, "dirty_hours": 1, "loaded": 1, "outcomes": 2, "quarantine": 1
    }  # fmt: skip
    assert ledger.position(facts.engine, "otlp") == (3, 77)


class CutTransaction:
    """The real transaction, until it reaches `table`: there the process might have died."""

    def __init__(self, real, table: str) -> None:
        self._real, self._table = real, table

    def insert(self, table, rows):
        if table == self._table:
            raise KeyboardInterrupt(table)
        self._real.insert(table, rows)

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.mark.parametrize("table", ["calls", "usage_hourly", "dirty_hours", "quarantine", "outcomes"])
def test_an_end_in_the_middle_of_a_commit_leaves_nothing_of_it(facts, whole_batch, a_call, as_batch, table):
    ledger.commit(facts.engine, as_batch([a_call()], [("acme", TEN, "stored", "call", 1)]), "otlp", (0, 10))
    before, balance = heights(facts.engine), ledger.books(facts.engine, "otlp")
    with pytest.raises(KeyboardInterrupt), facts.engine.write() as transaction:
        cut = CutTransaction(transaction, table)
        ledger.store(cut, whole_batch, ledger._advance(cut, "otlp", (0, 20)))
    assert heights(facts.engine) == before
    assert ledger.books(facts.engine, "otlp") == balance
    ledger.commit(facts.engine, whole_batch, "otlp", (0, 20))
    assert heights(facts.engine)["calls"] == 3
    assert ledger.position(facts.engine, "otlp") == (0, 20)


def test_rows_that_cannot_be_held_are_refused_and_nothing_of_their_batch_is_kept(facts, a_call, as_batch):
    bad = as_batch([a_call(), a_call()], [("acme", TEN, "stored", "call", 2)])
    calls = bad.calls.with_columns(status=pl.Series([None, "ok"], dtype=pl.String))
    with pytest.raises(RowsRefusedError, match="status"):
        ledger.commit(facts.engine, ledger.Batch(calls, bad.outcomes, bad.quarantine), "otlp", (0, 1))
    assert set(heights(facts.engine).values()) == {0}
    assert ledger.position(facts.engine, "otlp") == (0, 0)
    facts.store(a_call())
    assert heights(facts.engine)["calls"] == 1


def test_a_commit_survives_a_process_that_never_closes(facts, whole_batch, tmp_path):
    ledger.commit(facts.engine, whole_batch, "otlp", (1, 2))
    for name in ("millicent.duckdb", "millicent.duckdb.wal"):  # what a crash leaves behind
        (tmp_path / name).write_bytes((facts.directory / name).read_bytes())
    with duckdb.connect(str(tmp_path / "millicent.duckdb")) as after:
        assert after.execute("SELECT count(*) FROM calls").fetchone() == (2,)
        assert after.execute("SELECT segment, byte_offset FROM loaded").fetchone() == (1, 2)


def test_every_spool_has_a_position_of_its_own(facts, as_batch):
    assert ledger.position(facts.engine, "otlp") == (0, 0)
    for spool, position in (("otlp", (0, 5)), ("json", (9, 9)), ("otlp", (2, 0)), ("o'tlp", (1, 1))):
        ledger.commit(facts.engine, as_batch([]), spool, position)
    assert [ledger.position(facts.engine, name) for name in ("otlp", "json", "o'tlp", "none")] == [
        (2, 0), (9, 9), (1, 1), (0, 0)
    ]  # fmt: skip


def test_the_books_name_every_outcome_and_add_up_over_batches_and_tenants(facts, as_batch):
    assert ledger.books(facts.engine, "otlp") == (dict.fromkeys(ledger.OUTCOMES, 0), (0, 0))
    told = [
        ("acme", TEN, "stored", "call", 3),
        ("rival", TEN, "stored", "call", 4),
        ("acme", TEN, "duplicate", "same_span", 1),
        ("", TEN, "quarantined", "damaged_on_disk", 2),
    ]
    for offset in (1, 2):
        ledger.commit(facts.engine, as_batch([], told), "otlp", (0, offset))
    outcomes, position = ledger.books(facts.engine, "otlp")
    assert outcomes == {"stored": 14, "duplicate": 2, "not_a_call": 0, "rejected": 0, "quarantined": 4}
    assert position == (0, 2)
    assert ledger.reasons(facts.engine) == [
        ("stored", "call", 14), ("quarantined", "damaged_on_disk", 4), ("duplicate", "same_span", 2)
    ]  # fmt: skip


parts = st.tuples(
    st.sampled_from(("acme", "rival")),
    st.sampled_from((TEN, TEN + timedelta(microseconds=1), TEN - timedelta(days=400))),
    st.sampled_from((bytes(15) + b"\1", b"\xff" * 16, b"\x80" + bytes(15))),
    st.sampled_from((1, 2**63 - 1, 2**63, 2**64 - 1)),
)


@settings(max_examples=60, deadline=None)
@given(stored=st.lists(parts, unique=True, max_size=6), others=st.lists(parts, max_size=6), counted=st.booleans())
def test_seen_finds_exactly_what_is_stored(shared_facts, a_call, as_frame, stored, others, counted):
    def rows(keys):
        return [a_call(**dict(zip(ledger.KEY, (f"{key[0]}-{id(stored)}", *key[1:]), strict=True))) for key in keys]

    asked = [*others, *stored, *others]
    before = ledger.seen(shared_facts.engine, as_frame(rows(asked)))
    known = {key for key, was in zip(asked, before, strict=True) if was}  # of an example before this one
    shared_facts.store(*(row | {"counted": counted} for row in rows(stored)))
    mask = ledger.seen(shared_facts.engine, as_frame(rows(asked)))
    assert mask.to_list() == [key in {*stored, *known} for key in asked]


def test_nothing_asked_is_nothing_seen(facts, as_frame):
    assert ledger.seen(facts.engine, as_frame([])).to_list() == []


@pytest.mark.parametrize("cut", [slice(None), slice(2, 5), slice(4, None)])
def test_labels_ids_and_money_come_back_as_they_were(facts, a_call, as_frame, cut):
    labels = [None, {}, {"a": "1"}, {"ключ": "𝕏", "a": ""}, {"b": "2"}, {"'": '"'}, None]
    calls = [
        a_call(labels=told and [{"key": k, "value": v} for k, v in told.items()] if told is not None else None,
               trace_id=bytes([255 - n] * 16), span_id=2**64 - 1 - n, parent_span_id=2**63 + n,
               started_at=TEN - timedelta(microseconds=n), usage_flags=["x", f"y{n}"] if n % 2 else None,
               list_cost_usd=Decimal("999999.999999999999"), billed_cost_usd=Decimal("1E-12"),
               response_id=2**64 - 1, received_at=TEN + timedelta(microseconds=1))
        for n, told in enumerate(labels)
    ]  # fmt: skip
    sliced = ledger.Batch(as_frame(calls)[cut], pl.DataFrame(), pl.DataFrame())
    outcome = pl.DataFrame({"tenant": ["acme"], "hour": [TEN], "outcome": ["stored"], "reason": ["call"], "spans": [1]})
    ledger.commit(facts.engine, ledger.Batch(sliced.calls, outcome, sliced.quarantine), "otlp", (0, 1))
    found, _ = find(facts.engine, "acme", Search())
    assert len(found) == len(calls[cut])
    for row, told, label in zip(found, calls[cut], labels[cut], strict=True):
        assert row["labels"] == (label or {})
        assert row["usage_flags"] == (told["usage_flags"] or [])
        assert row["trace_id"] == told["trace_id"].hex()
        assert row["span_id"] == f"{told['span_id']:016x}"
        assert row["parent_span_id"] == f"{told['parent_span_id']:016x}"
        for name in ("started_at", "received_at", "list_cost_usd", "billed_cost_usd"):
            assert row[name] == told[name]
        assert row["response_id"] == "ffffffffffffffff"
