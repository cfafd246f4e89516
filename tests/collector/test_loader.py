"""What was acknowledged is stored once, whatever fails on the way, and the books balance at every moment."""

import asyncio
import json
import random
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from millicent.collector import loader as loader_module
from millicent.collector.loader import SPOOL, Loader
from millicent.collector.spool import Spool, SpoolReader
from millicent.warehouse import ledger, tables
from millicent.warehouse.control import Control
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.engine import EngineError, RowsRefusedError
from millicent.warehouse.prices import Prices
from millicent.warehouse.store import Warehouse

NOW = datetime.now(UTC)
NOW_NS = int(NOW.timestamp() * 10**9)
LONGEST_S = 60


@pytest.fixture
def directory(tmp_path):
    return tmp_path


@pytest.fixture
def spool(directory):
    with Spool(directory / "spool", reserve_bytes=0) as writer:
        yield writer


class Failing:
    """The real engine, with commits that fail as told: before they happen, or after."""

    def __init__(self, engine):
        self._engine = engine
        self.fail = lambda _: None  # called with "before" or "after" each commit of the loader

    def __getattr__(self, name):
        return getattr(self._engine, name)

    @contextmanager
    def write(self):
        touched = []
        with self._engine.write() as transaction:
            yield Noting(transaction, touched)
            if touched:
                self.fail("before")
        if touched:
            self.fail("after")


class Noting:
    """A transaction that notes whether anything was inserted."""

    def __init__(self, transaction, touched):
        self._transaction = transaction
        self._touched = touched

    def __getattr__(self, name):
        return getattr(self._transaction, name)

    def insert(self, table, rows):
        self._touched.append(rows)
        self._transaction.insert(table, rows)


@pytest.fixture
def engine(directory):
    engine = Failing(Embedded(directory))
    yield engine
    engine.close()


@pytest.fixture
def warehouse(directory, engine):
    control = Control(directory)
    yield Warehouse(engine, control, Prices(control))
    control.close()


@pytest.fixture
def loader(warehouse, directory, spool, monkeypatch):
    monkeypatch.setattr(loader_module, "RETRY_S", 0.0)
    return Loader(warehouse, SpoolReader(directory / "spool"))


def append(spool, *bodies, spans=1, **fields):
    async def one_by_one():
        for body in bodies:
            await spool.append(body, tenant="acme", key_id="key-1", spans=spans, **fields)

    asyncio.run(one_by_one())


def requests(otlp, number, spans=1):
    return [otlp.request(*(otlp.span(started_ns=NOW_NS) for _ in range(spans))) for _ in range(number)]


def load(loader):
    """Let the loader run until everything is loaded."""
    stop = threading.Event()
    thread = threading.Thread(target=loader.run, args=(stop,))
    deadline = time.monotonic() + LONGEST_S
    thread.start()
    try:
        while loader.position != loader.spool.end().position:
            assert thread.is_alive()
            assert time.monotonic() < deadline, f"stuck at {loader.position}"
            stop.wait(0.002)
    finally:
        stop.set()
        thread.join()


def stored(engine):
    return sorted(engine.read(select(tables.calls.c.span_id)).column(0).to_pylist())


def spans_in_rollup(engine):
    return engine.read(select(func.sum(tables.usage_hourly.c.calls))).column(0)[0].as_py()


def balanced(balance):
    parts = sum(spans for name, spans in balance.items() if name != "received")
    return balance["received"] == parts


# ---- everything arrives


def test_everything_that_was_acknowledged_is_loaded(otlp, spool, loader, engine):
    append(spool, *requests(otlp, 5, spans=3), spans=3)
    assert loader.balance() == {"received": 15, **dict.fromkeys(ledger.OUTCOMES, 0), "in_spool": 15}
    while loader.step():
        pass
    assert len(stored(engine)) == spans_in_rollup(engine) == 15
    assert loader.position == spool.end().position
    assert loader.balance() == {"received": 15, **dict.fromkeys(ledger.OUTCOMES, 0), "stored": 15, "in_spool": 0}
    assert loader.step() == 0


def test_compressed_requests_are_expanded(otlp, spool, loader, engine):
    import gzip

    append(spool, gzip.compress(requests(otlp, 1)[0]), encoding="gzip")
    loader.step()
    assert len(stored(engine)) == 1


def test_a_large_backlog_is_loaded_in_parts(otlp, spool, loader, engine, monkeypatch):
    monkeypatch.setattr(loader_module, "BATCH_BYTES", 1000)
    append(spool, *requests(otlp, 20))
    steps = 0
    while loader.step():
        steps += 1
        assert balanced(loader.balance())
    assert steps > 3
    assert len(stored(engine)) == 20


def test_a_new_loader_goes_on_where_the_last_one_stopped(otlp, spool, loader, engine, warehouse, directory):
    first = requests(otlp, 2)
    append(spool, *first)
    loader.step()
    append(spool, *first, *requests(otlp, 1))
    again = Loader(warehouse, SpoolReader(directory / "spool"))
    assert again.position == loader.position
    while again.step():
        pass
    assert len(stored(engine)) == 3
    assert again.balance()["duplicate"] == 2


def test_what_is_complete_moves_with_what_is_loaded(otlp, spool, loader, warehouse):
    append(spool, *requests(otlp, 1), received_ns=NOW_NS - 10**9)
    loader.step()
    assert NOW - warehouse.complete_through < timedelta(seconds=1.1)
    before = datetime.now(UTC)
    loader.step()
    assert warehouse.complete_through >= before


def test_outcomes_are_kept_by_tenant_hour_and_reason(otlp, spool, loader, engine):
    mixed = otlp.request(
        otlp.span(started_ns=NOW_NS),
        otlp.span({"gen_ai.operation.name": "execute_tool"}, started_ns=NOW_NS),
        otlp.span({"gen_ai.usage.input_tokens": -1}, started_ns=NOW_NS),
    )
    append(spool, mixed, mixed, spans=3)
    loader.step()
    assert sorted(ledger.reasons(engine)) == [
        ("duplicate", "same_span", 1),
        ("not_a_call", "operation:execute_tool", 2),
        ("quarantined", "negative_tokens", 2),
        ("stored", "call", 1),
    ]
    hours = engine.read(select(tables.outcomes.c.tenant, tables.outcomes.c.hour).distinct()).to_pylist()
    assert [row["tenant"] for row in hours] == ["acme"]


# ---- failures


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_that_fails_neither_loses_nor_doubles(otlp, spool, loader, engine, moment):
    failures = [EngineError("disk")] * 4

    def fail(at):
        if at == moment and failures:
            raise failures.pop()

    engine.fail = fail
    append(spool, *requests(otlp, 4))
    load(loader)
    assert len(stored(engine)) == spans_in_rollup(engine) == 4
    assert loader.balance()["stored"] == 4
    assert balanced(loader.balance())
    assert loader.progress.failures == (4 if moment == "before" else 1)


def test_commits_that_fail_at_random_neither_lose_nor_double(otlp, spool, loader, engine, monkeypatch):
    monkeypatch.setattr(loader_module, "BATCH_BYTES", 1500)
    chance = random.Random(3)

    def fail(_):
        if chance.random() < 0.3:
            raise chance.choice([EngineError("disk"), RuntimeError("bug"), RowsRefusedError("no")])

    engine.fail = fail
    append(spool, *requests(otlp, 30))
    load(loader)
    balance = loader.balance()
    assert balanced(balance)
    assert balance["in_spool"] == 0
    assert len(stored(engine)) == len(set(stored(engine))) == spans_in_rollup(engine) == balance["stored"]
    assert balance["stored"] + balance["quarantined"] == 30


@pytest.mark.parametrize("error", [RowsRefusedError, EngineError, RuntimeError])
def test_a_record_whose_rows_are_refused_is_set_aside_alone(otlp, spool, loader, engine, directory, error):
    bodies = requests(otlp, 5, spans=2)
    poison = otlp.request(otlp.span({"millicent.team": "poison"}, started_ns=NOW_NS))

    original = engine.write

    @contextmanager
    def write():
        with original() as transaction:
            yield transaction
            for rows in transaction._touched:
                if "team" in rows.column_names and "poison" in rows.column("team").to_pylist():
                    raise error("a value that the table cannot hold")

    engine.write = write
    append(spool, *bodies[:3], spans=2)
    append(spool, poison)
    append(spool, *bodies[3:], spans=2)
    load(loader)
    assert len(stored(engine)) == 10
    about, aside = sorted((directory / "spool" / "aside").iterdir(), key=lambda file: file.suffix, reverse=True)
    assert aside.read_bytes() == poison
    told = json.loads(about.read_text())
    assert (told["tenant"], told["key_id"], told["signal"], told["spans"]) == ("acme", "key-1", "traces", 1)
    assert ("quarantined", "unloadable", 1) in ledger.reasons(engine)
    assert loader.balance() == {
        "received": 11, **dict.fromkeys(ledger.OUTCOMES, 0), "stored": 10, "quarantined": 1, "in_spool": 0,
    }  # fmt: skip


def test_a_record_that_does_not_decode_is_counted_and_the_rest_is_loaded(otlp, spool, loader, engine):
    append(spool, requests(otlp, 1)[0], b"\xff\xff not protobuf", requests(otlp, 1)[0])
    loader.step()
    assert len(stored(engine)) == 2
    assert ("quarantined", "undecodable", 1) in ledger.reasons(engine)
    assert balanced(loader.balance())


def test_a_damaged_record_is_set_aside_and_counted(otlp, directory, loader, spool, engine):
    append(spool, *requests(otlp, 3, spans=2), spans=2)
    records, _ = spool.read(loader.position)
    (segment,) = (directory / "spool").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[records[1].position.offset + 60] ^= 1
    segment.write_bytes(data)
    load(loader)
    assert len(stored(engine)) == 4
    assert ("quarantined", "damaged_on_disk", 2) in ledger.reasons(engine)
    assert len(list((directory / "spool" / "damaged").iterdir())) == 1
    assert loader.balance()["quarantined"] == 2
    assert balanced(loader.balance())


def test_nothing_but_damage_is_loaded_too(otlp, directory, loader, spool):
    append(spool, *requests(otlp, 1))
    (segment,) = (directory / "spool").glob("*.segment")
    segment.write_bytes(bytes(segment.stat().st_size))
    load(loader)
    assert loader.balance()["quarantined"] == 1
    assert balanced(loader.balance())


def test_a_warehouse_that_cannot_be_opened_for_a_while_only_delays(otlp, spool, loader, engine):
    failures = [EngineError("locked")] * 3
    reopen = engine.reopen

    def sometimes():
        if failures:
            raise failures.pop()
        reopen()

    engine.reopen = sometimes
    engine.fail = lambda at: fail_while(failures)
    append(spool, *requests(otlp, 2))
    load(loader)
    assert len(stored(engine)) == 2


def fail_while(failures):
    if failures:
        raise EngineError("disk")


# ---- the books


def test_the_books_balance_at_every_moment_while_requests_arrive(otlp, spool, loader, engine, monkeypatch):
    monkeypatch.setattr(loader_module, "BATCH_BYTES", 4000)
    bodies = requests(otlp, 150, spans=2)
    chance = random.Random(5)
    engine.fail = lambda _: fail_while([1] if chance.random() < 0.05 else [])
    stop = threading.Event()
    threads = [
        threading.Thread(target=append, args=(spool, *bodies), kwargs={"spans": 2}),
        threading.Thread(target=loader.run, args=(stop,)),
    ]
    samples = []
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LONGEST_S
    while len(samples) < 200 or samples[-1]["received"] < 300 or samples[-1]["in_spool"]:
        samples.append(loader.balance())
        assert time.monotonic() < deadline, samples[-1]
    stop.set()
    for thread in threads:
        thread.join()
    assert [sample for sample in samples if not balanced(sample)] == []
    assert len({sample["in_spool"] for sample in samples}) > 5
    assert samples[-1]["stored"] == 300 == len(stored(engine))


def test_several_may_ask_for_the_balance_at_once(otlp, spool, loader, monkeypatch):
    monkeypatch.setattr(loader_module, "BATCH_BYTES", 2000)
    append(spool, *requests(otlp, 60))
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            balance = loader.balance()
            if not balanced(balance):
                wrong.append(balance)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    load(loader)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_when_nothing_is_to_do_old_segments_go_and_the_books_still_balance(otlp, directory, warehouse, monkeypatch):
    monkeypatch.setattr(loader_module, "CHECKPOINT_EVERY", timedelta(0))
    monkeypatch.setattr(loader_module, "KEEP", timedelta(seconds=-60))
    with Spool(directory / "spool", segment_bytes=1, reserve_bytes=0) as spool:
        loader = Loader(warehouse, SpoolReader(directory / "spool"))
        append(spool, *requests(otlp, 4))
        while loader.step():
            pass
        assert len(list((directory / "spool").glob("*.segment"))) == 1
        assert loader.balance()["stored"] == 4
        assert balanced(loader.balance())
        append(spool, *requests(otlp, 1))
        loader.step()
        assert loader.balance()["stored"] == 5
    assert ledger.position(warehouse.engine, SPOOL) == tuple(loader.position)
