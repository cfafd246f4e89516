"""Late calls from the spool to the ledger: whatever comes for a closed day, whenever it is closed, the day stays."""

import asyncio
import random
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from millicent.collector import loader as loader_module
from millicent.collector.loader import Loader
from millicent.collector.spool import Spool, SpoolReader
from millicent.warehouse import capacity
from millicent.warehouse.control import Control
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.frames import plain
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls, charges

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TENANT = "default"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
YESTERDAY = TODAY - DAY
GENAI, OFFICIAL = "opentelemetry.instrumentation.genai.openai", "opentelemetry.instrumentation.openai_v2"
OWN = {"millicent.deployment": "rack", "gen_ai.response.model": "qwen3-8b", "gen_ai.request.model": "qwen3-8b"}


class Interrupted:
    """The real engine; `meanwhile` happens in the middle of its next commit of calls."""

    def __init__(self, engine):
        self._engine = engine
        self.meanwhile = None

    def __getattr__(self, name):
        return getattr(self._engine, name)

    @contextmanager
    def write(self):
        with self._engine.write() as transaction:
            yield transaction
            found = transaction.read(select(calls.c.span_id).limit(1)).num_rows
            if self.meanwhile is not None and found:
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()


class Platform:
    """A warehouse that one spool is loaded into."""

    def __init__(self, directory, otlp):
        self.directory, self._otlp = directory, otlp
        self.engine = Interrupted(Embedded(directory, memory_limit="256MB", threads=2))
        control = Control(directory)
        self.warehouse = Warehouse(self.engine, control, Prices(control))
        self.spool = Spool(directory / "spool", reserve_bytes=0)
        self.loader = Loader(self.warehouse, SpoolReader(directory / "spool"))

    def send(self, *told, scope="millicent.sdk"):
        """Spool (attributes, instant) as one request."""
        spans = [self._otlp.span(words, started_ns=int(at.timestamp() * 1e6) * 1000) for words, at in told]
        body = self._otlp.request(*spans, scope=scope, resource={"service.name": "app"})
        asyncio.run(self.spool.append(body, tenant=TENANT, key_id="key-1", spans=len(spans)))

    def load(self, *told, **more):
        self.send(*told, **more)
        while self.loader.step():
            pass

    def spend(self, start, end, basis="billed", *dimensions, measure="spend_usd"):
        question = Query(measures=(measure,), period=Period(start, end), dimensions=dimensions, basis=basis)
        rows = self.warehouse.ask(TENANT, question).frame.rows()
        return {key: amount for *key_, amount in rows if amount for key in [tuple(key_)]}

    def amounts(self, day=YESTERDAY):
        return {basis: self.spend(day, day + DAY, basis, "team", "service", "model") for basis in (
            "list", "billed", "effective", "usage", "marginal",
        )}  # fmt: skip

    def total(self, basis="billed"):
        return self.spend(TODAY - 30 * DAY, TODAY + 2 * DAY, basis).get((), Decimal(0))

    def rows(self, table):
        return plain(self.engine.read(select(table)))

    def close(self, day=YESTERDAY):
        self.warehouse.close_period(TENANT, day, day + DAY, "cfo")


@pytest.fixture
def platform(tmp_path, otlp):
    opened = Platform(tmp_path, otlp)
    yield opened
    opened.spool.close()
    opened.warehouse.close()


def test_a_late_call_goes_from_the_spool_into_the_closed_day_and_its_cost_into_the_present_hour(platform):
    noon = YESTERDAY + 12 * HOUR
    platform.load(({"millicent.team": "a"}, noon), ({"millicent.team": "a"}, TODAY))
    platform.close()
    before = platform.amounts()
    platform.load(({"millicent.team": "b"}, noon), ({"millicent.team": "a"}, noon), ({"millicent.team": "b"}, TODAY))
    assert platform.amounts() == before
    assert platform.spend(YESTERDAY, TODAY, measure="calls") == {(): 3}
    assert platform.total() == 5 * Decimal("0.0035")
    now = platform.rows(charges).filter(charged_at=platform.rows(charges)["charged_at"].max())
    assert sorted(now.select("team", "service", "billed_usd").rows()) == [
        ("a", "app", Decimal("0.0035")), ("b", "app", Decimal("0.0035")),
    ]  # fmt: skip


def test_a_telling_that_comes_late_takes_the_call_over_and_the_closed_day_stays(platform):
    noon, same = YESTERDAY + 12 * HOUR, {"gen_ai.response.id": "chatcmpl-1"}
    platform.load(({**same, "millicent.team": "a"}, noon), scope=OFFICIAL)
    platform.close()
    before = platform.amounts()
    more = {"gen_ai.usage.cache_read.input_tokens": 400, "gen_ai.usage.output_tokens": 200}
    platform.load(({**same, **more}, noon), scope=GENAI)
    rows = platform.rows(calls)
    assert sorted(rows.select("counted", "scope").rows()) == [(False, OFFICIAL), (True, GENAI)]
    assert platform.amounts() == before
    assert platform.total() == rows.filter("counted")["billed_cost_usd"].sum()
    assert platform.total() != before["billed"].popitem()[1]


@pytest.mark.parametrize(
    "close",
    [
        lambda platform: platform.close(),
        lambda platform: Control(platform.directory).close_period(TENANT, YESTERDAY, TODAY, "another process"),
    ],
)
def test_a_period_is_not_closed_while_calls_of_it_are_being_stored(platform, close):
    closing = threading.Thread(target=close, args=(platform,))

    def meanwhile():
        closing.start()
        closing.join(0.3)
        assert closing.is_alive()
        assert platform.warehouse.control.closed_periods(TENANT) == []

    platform.engine.meanwhile = meanwhile
    platform.load(({"millicent.team": "a"}, YESTERDAY))
    closing.join()
    assert len(platform.warehouse.control.closed_periods(TENANT)) == 1
    assert platform.rows(charges).is_empty()
    before = platform.amounts()
    assert before["billed"]
    platform.load(({"millicent.team": "a"}, YESTERDAY))
    assert platform.amounts() == before
    assert platform.rows(charges).height == 2


def test_late_calls_wait_while_nobody_can_tell_what_is_closed_and_none_is_set_aside(platform, monkeypatch):
    closings, failures = platform.warehouse.control.closings, [OperationalError("BEGIN IMMEDIATE", None, "locked")] * 14

    def locked():
        if failures:
            raise failures.pop()
        return closings()

    monkeypatch.setattr(platform.warehouse.control, "closings", locked)
    monkeypatch.setattr(loader_module, "RETRY_S", 0.0)
    platform.send(({}, YESTERDAY))
    stop = threading.Event()
    loading = threading.Thread(target=platform.loader.run, args=(stop,))
    loading.start()
    while platform.loader.position != platform.spool.end().position:
        stop.wait(0.01)
    stop.set()
    loading.join()
    assert failures == []
    assert platform.rows(calls).height == 1


@pytest.fixture
def rack(platform):
    """Two rented accelerators of 2 USD an hour each, since yesterday."""
    platform.warehouse.control.declare(Deployment(
        name="rack", model="qwen3-8b", accelerator="nvidia-h100-sxm", accelerator_count=2, effective_from=YESTERDAY,
        profile={"kind": "rented", "usd_per_hour": "2"},
    ))  # fmt: skip


@pytest.mark.usefixtures("rack")
def test_hours_of_own_hardware_are_computed_before_they_are_closed_and_never_again(platform):
    noon = YESTERDAY + 12 * HOUR
    platform.load(({**OWN, "millicent.team": "a"}, noon))
    platform.close()
    before, totals = platform.amounts(), (platform.total("effective"), platform.total("usage"))
    assert sum(before["effective"].values()) == 24 * 4
    assert before["usage"].keys() == {("a", "app", "qwen3-8b")}
    platform.load(({**OWN, "millicent.team": "b"}, noon), ({**OWN, "millicent.team": "b"}, noon + HOUR))
    assert platform.amounts() == before
    assert platform.total("effective") == totals[0]
    assert platform.total("usage") == totals[1] + before["usage"]["a", "app", "qwen3-8b"]
    capacity.refresh(platform.engine, platform.warehouse.control, datetime.now(UTC))
    assert platform.amounts() == before


@pytest.mark.usefixtures("rack")
def test_an_hour_that_is_closed_while_hours_are_being_computed_is_left_alone(platform, monkeypatch):
    platform.load(({**OWN, "millicent.team": "a"}, YESTERDAY))
    before, batches = [], capacity._batches

    def after_all_was_read(*told):
        work = list(batches(*told))
        monkeypatch.setattr(capacity, "_batches", batches)
        platform.close()
        before.append(platform.amounts())
        platform.load(({**OWN, "millicent.team": "b"}, YESTERDAY))
        return work

    monkeypatch.setattr(capacity, "_batches", after_all_was_read)
    for _ in range(2):
        capacity.refresh(platform.engine, platform.warehouse.control, datetime.now(UTC))
        assert [platform.amounts()] == before


def test_days_that_are_closed_while_calls_of_them_arrive_stay_and_nothing_is_lost(platform, monkeypatch):
    monkeypatch.setattr(loader_module, "BATCH_BYTES", 4000)
    chance, days = random.Random(7), [TODAY - back * DAY for back in (3, 2, 1)]
    stop = threading.Event()
    loading = threading.Thread(target=platform.loader.run, args=(stop,))
    loading.start()
    before = {}
    for day in days:
        for _ in range(25):
            platform.send(
                *(({"millicent.team": chance.choice("ab")}, chance.choice(days) + timedelta(hours=chance.random() * 24))
                  for _ in range(4))
            )  # fmt: skip
        platform.close(day)
        before[day] = platform.amounts(day)
    while platform.loader.position != platform.spool.end().position:
        stop.wait(0.01)
    stop.set()
    loading.join()
    assert platform.loader.progress.failures == 0
    assert {day: platform.amounts(day) for day in days} == before
    assert platform.rows(charges).height > 0
    assert platform.total() == 300 * Decimal("0.0035") == platform.rows(calls)["billed_cost_usd"].sum()
