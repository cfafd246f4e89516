"""A real ledger in a directory of its own, and short ways to put calls and deployments into it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from sqlalchemy.types import BigInteger, Boolean, DateTime, Integer, Numeric, TypeEngine

from millicent.warehouse import capacity, ledger, query, record
from millicent.warehouse.control import Control, Deployment, tenants
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Period, Query
from millicent.warehouse.tables import CHARGED_TO, deployment_hours, metadata

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEMA = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).schema
NOTHING = {name: None for name in SCHEMA}
OUTCOME = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
           "spans": pl.Int64}  # fmt: skip

_spans = itertools.count(1)


def call(**told) -> dict:
    """One call as the pipeline hands it over; what is not told is unknown."""
    at = told.get("started_at", TEN)
    span = next(_spans)
    return {
        **NOTHING, "tenant": "acme", "trace_id": span.to_bytes(16), "span_id": span, "received_at": at,
        "started_at": at, "billing": "api", "status": "ok", "signal": "span", "call_count": 1,
        "dialect": "millicent", "usage_source": "reported",
        "counted": True, "price_status": "priced", **told,
    }  # fmt: skip


def charge(**told) -> dict:
    """One row of `charges`; what is not told is unknown, amounts are 0."""
    return {
        **dict.fromkeys(CHARGED_TO), "tenant": "acme", "charged_at": TEN, "type": "fee", "name": "a fee", "entry": None,
        "run": None, "period_start": TEN, "period_end": TEN + HOUR, "list_usd": Decimal(0), "billed_usd": Decimal(0),
        "provisional": False, "why": "because", "computed_at": TEN, **told,
    }  # fmt: skip


def deployment_hour(**told) -> dict:
    """One row of `deployment_hours`: an idle one, without anything that came later; what is not told is unknown."""
    nothing = Decimal(0)
    return {
        **dict.fromkeys(column.name for column in deployment_hours.c), "tenant": "acme", "deployment": "rack",
        "hour": TEN, "accelerator": "nvidia-h100-sxm", "accelerator_count": 2, "elapsed_ms": 3_600_000, "busy_ms": 0,
        "accelerator_ms": 7_200_000, "fixed_usd": nothing, "energy_usd": nothing, "hosting_usd": nothing,
        "busy_usd": nothing, "idle_usd": nothing, "untracked_usd": nothing, "w_input": 1000, "w_cached": 100,
        "w_output": 4000, "weight": nothing, "method": "told by a test", "sources": "[]", "declared_from": TEN,
        "provisional": False, "computed_at": TEN, **told,
    }  # fmt: skip


def frame(calls: list[dict]) -> pl.DataFrame:
    return pl.DataFrame([{name: one[name] for name in record.SCHEMA.names} for one in calls], schema={
        name: SCHEMA[name] for name in record.SCHEMA.names
    })  # fmt: skip


def batch(calls: list[dict], outcomes: list[tuple] = (), quarantine: pl.DataFrame | None = None) -> ledger.Batch:
    told = pl.DataFrame(list(outcomes), schema=OUTCOME, orient="row")
    return ledger.Batch(frame(calls), told, quarantine if quarantine is not None else pl.DataFrame())


def arrow_type(of: TypeEngine) -> pa.DataType:
    if isinstance(of, Numeric):
        return pa.decimal128(of.precision, of.scale)
    known = {DateTime: record.INSTANT, Boolean: pa.bool_(), BigInteger: pa.int64(), Integer: pa.int32()}
    return known.get(type(of), pa.string())


class Facts:
    """One warehouse directory: `engine` and `control`, and what tests do with them over and over."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = Embedded(directory, threads=2, memory_limit="256MB")
        self.control = Control(directory)
        self.batches = 0
        with self.control._engine.begin() as connection:  # nothing makes tenants yet, but everything keeps them apart
            connection.execute(tenants.insert(), [{"id": name, "name": name} for name in ("acme", "rival")])

    @cached_property
    def prices(self) -> Prices:
        return Prices(self.control)

    def store(self, *calls: dict) -> None:
        """Commit `calls` as one batch."""
        self.batches += 1
        ledger.commit(self.engine, batch(list(calls)), "otlp", (0, self.batches))

    def charge(self, *charges: dict) -> None:
        """Store charges, as `a_charge` makes them."""
        self.put("charges", charges)

    def put(self, table: str, rows: Sequence[dict]) -> None:
        """Insert rows as they are, typed by the columns of `table`; what they do not tell is unknown."""
        if not rows:
            return
        columns = {
            column.name: pa.array([one[column.name] for one in rows], arrow_type(column.type))
            for column in metadata.tables[table].c
            if column.name in rows[0]
        }
        with self.engine.write() as transaction:
            transaction.insert(table, pa.table(columns))

    def declare(self, name: str, since: datetime, tenant: str = "acme", **told) -> Deployment:
        """Declare two rented H100 at 2 USD an hour each, or whatever `told` says instead."""
        settings = {
            "model": "qwen3-8b", "accelerator": "nvidia-h100-sxm", "accelerator_count": 2,
            "profile": {"kind": "rented", "usd_per_hour": "2"}, "effective_from": since,
        }  # fmt: skip
        deployment = Deployment(name=name, **{**settings, **told})
        self.control.declare(deployment, tenant)
        return deployment

    def refresh(self, now: datetime) -> int:
        return capacity.refresh(self.engine, self.control, now)

    def ask(self, *measures: str, start: datetime = TEN, end: datetime = TEN + HOUR, tenant: str = "acme", **told):
        """Rows of the answer, as dictionaries."""
        question = Query(measures=measures, period=Period(start, end), **told)
        return query.run(self.engine, tenant, question).frame.to_dicts()

    def close(self) -> None:
        self.engine.close()
        self.control.close()


@pytest.fixture
def facts(tmp_path) -> Iterator[Facts]:
    opened = Facts(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def a_facts() -> Iterator[Callable[[Path], Facts]]:
    """Opens a directory that is there already."""
    opened: list[Facts] = []

    def open_(directory: Path) -> Facts:
        opened.append(Facts(directory))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def shared_facts(tmp_path_factory) -> Iterator[Facts]:
    """For properties: one directory, and a tenant of its own for every example."""
    opened = Facts(tmp_path_factory.mktemp("shared") / "data")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def a_call() -> Callable[..., dict]:
    return call


@pytest.fixture(scope="session")
def a_charge() -> Callable[..., dict]:
    return charge


@pytest.fixture(scope="session")
def a_deployment_hour() -> Callable[..., dict]:
    return deployment_hour


@pytest.fixture(scope="session")
def as_batch() -> Callable[..., ledger.Batch]:
    return batch


@pytest.fixture(scope="session")
def as_frame() -> Callable[..., pl.DataFrame]:
    return frame
