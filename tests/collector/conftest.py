"""Real OTLP requests in a line, and the pipeline with what it looks things up in."""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from sqlalchemy import select

from millicent.collector import pipeline
from millicent.collector.batch import Batch, Context, Incoming
from millicent.collector.decode import decode
from millicent.collector.dialects import wanted
from millicent.collector.reading import normalise_tokens, pick_calls, read_dialect
from millicent.collector.scraping import Scraper
from millicent.pricing.book import PriceBook
from millicent.warehouse import evidence, ledger, record, rollups
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.frames import plain
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import METERED, calls, meter_hours, usage_hourly

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * 10**9
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.response.model": "gpt-4o-2024-08-06",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
}
_numbers = count(1)
_tenants = (f"t{number}" for number in count())
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip


def pairs(attributes):
    kinds = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    return [
        KeyValue(key=key, value=AnyValue(**{kinds[type(it)]: it})) for key, it in attributes.items() if it is not None
    ]


def span(attributes=(), *, span_id=None, started_ns=NOW_NS, lasted_ms=500, error=False, **fields):
    """A chat call of its own with `attributes` added; None takes one away."""
    number = next(_numbers)
    fields.setdefault("end_time_unix_nano", started_ns + lasted_ms * 10**6)
    fields.setdefault("trace_id", number.to_bytes(16, "big"))
    return Span(
        span_id=number.to_bytes(8, "big") if span_id is None else span_id,
        start_time_unix_nano=started_ns,
        attributes=pairs(CHAT | dict(attributes)),
        status=Status(code=2) if error else None,
        **fields,
    )


def request(*spans, scope="millicent.sdk", resource=()):
    """One export of `spans` as bytes."""
    scoped = ScopeSpans(scope=InstrumentationScope(name=scope, version="1.2"), spans=spans)
    group = ResourceSpans(resource=Resource(attributes=pairs(dict(resource))), scope_spans=[scoped])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def run(*bodies, deployments=(), seen=None, tenant="acme", received_at=NOW):
    """The pipeline over `bodies` with the bundled price book; `seen` is what is stored already, by span id."""

    def stored(keys):
        return keys["span_id"].is_in(list(seen or ()))

    context = Context(PriceBook.bundled(), [("acme", one) for one in deployments], stored)
    return pipeline.run([Incoming(body, tenant, "key-1", received_at) for body in bodies], context)


def left(batch):
    """(outcome, reason) of every span that left, sorted."""
    return sorted(row for frame in batch.left for row in frame.select("outcome", "reason").iter_rows())


def alone(body):
    """Every span of a request as a request of its own."""
    whole = ExportTraceServiceRequest.FromString(body)
    for group in whole.resource_spans:
        for scoped in group.scope_spans:
            for span in scoped.spans:
                one = ExportTraceServiceRequest()
                resource = one.resource_spans.add()
                resource.resource.CopyFrom(group.resource)
                part = resource.scope_spans.add()
                part.scope.CopyFrom(scoped.scope)
                part.spans.append(span)
                yield one.SerializeToString()


@pytest.fixture(scope="session")
def otlp():
    """Building requests and taking them through the pipeline."""
    return SimpleNamespace(
        span=span, request=request, run=run, left=left, alone=alone, NOW=NOW, NOW_NS=NOW_NS, CHAT=CHAT
    )


@pytest.fixture(scope="session")
def captures():
    """The folder of OTLP requests as real instrumentations sent them."""
    return Path(__file__).parent.parent / "fixtures" / "otlp"


@pytest.fixture(scope="session")
def stored_rows():
    """Rows of the record, comparable whatever their order."""

    def rows(frame: pl.DataFrame):
        return sorted(frame.to_dicts(), key=lambda row: (row["trace_id"], row["span_id"]))

    return rows


def told(body, signal="traces", received_at=None):
    """What one request tells, row by row, before anybody decides what counts."""
    return steps(decode([body], wanted(), [signal]).spans, received_at)


def steps(rows, received_at=None):
    """Decoded rows through the steps up to the normal form; `received_at` is just after the last, if left out."""
    arrived = received_at or datetime.fromtimestamp((rows["end_ns"].max() or 0) / 1e9, UTC)
    batch = Batch(
        rows.with_columns(
            tenant=pl.lit("acme"), key_id=pl.lit("k"), received_at=pl.lit(arrived).cast(pl.Datetime("us", "UTC"))
        )
    )
    for step in (pick_calls, read_dialect, normalise_tokens):
        batch = step(batch, None)
    return batch


@pytest.fixture(scope="session")
def reading():
    """Requests, and decoded rows, up to the normal form of tokens."""
    return SimpleNamespace(told=told, steps=steps)


@pytest.fixture(scope="module")
def ledger_of(tmp_path_factory, otlp):
    """A real ledger; every use takes a tenant of its own. Bodies are of traces, or (body, signal)."""
    engine = Embedded(tmp_path_factory.mktemp("ledger"), threads=2, memory_limit="256MB")
    book = PriceBook.bundled()
    steps = count(1)

    def load(*batches, tenant=None, deployments=(), received_at=otlp.NOW):
        tenant = tenant or next(_tenants)
        for bodies in batches:
            context = Context(
                book, [(tenant, one) for one in deployments], lambda keys: ledger.seen(engine, keys),
                related=lambda probe, since: evidence.related(engine, probe, since),
                tellers=lambda start, end: evidence.tellers(engine, start, end),
                metrics=lambda asked: evidence.metrics(engine, asked),
                hours=lambda asked: evidence.hours(engine, asked),
                series=lambda asked: ledger.remembered(engine, asked),
            )  # fmt: skip
            told = [body if isinstance(body, tuple) else (body, "traces") for body in bodies]
            arrived = [Incoming(body, tenant, "key-1", received_at, signal) for body, signal in told]
            done = pipeline.run(arrived, context)
            batch = ledger.Batch(done.spans, pl.DataFrame(schema=OUTCOMES), done.quarantined, done.revised, done.told,
                                 done.edges, done.series)  # fmt: skip
            ledger.commit(engine, batch, "otlp", (0, next(steps)))
        return tenant

    def rows(tenant):
        """Stored calls by span id, without what tells of their arrival."""
        stored = plain(engine.read(select(calls).where(calls.c.tenant == tenant)))
        return stored.drop("tenant", "received_at", "labels").sort("started_at", "trace_id", "span_id")

    def assert_rollup_is_raw(tenant):
        kept = pl.DataFrame(pl.from_arrow(engine.read(select(usage_hourly).where(usage_hourly.c.tenant == tenant))))
        raw = rollups.deltas(plain(engine.read(select(calls).where(calls.c.tenant == tenant))))
        key, names = (
            ("hour", *record.DIMENSIONS),
            ("row_count", "calls", "input_tokens", "output_tokens", "list_cost_usd"),
        )
        both = [f.group_by(key).agg(pl.col(name).sum() for name in names) for f in (kept, raw)]
        assert sorted(both[0].rows(), key=str) == sorted(both[1].rows(), key=str)

    yield SimpleNamespace(engine=engine, load=load, rows=rows, assert_rollup_is_raw=assert_rollup_is_raw)
    engine.close()


_TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)


class Scraped:
    """A warehouse, and scrapers that come and go; `now` is what they are told the time is."""

    def __init__(self, directory):
        self.warehouse = Warehouse.embedded(directory, memory_limit="256MB")
        self.now = _TEN
        self.scraper = Scraper(self.warehouse)

    def declare(self, *metrics, name=None, since=_TEN - timedelta(hours=100), **told):
        name = name or f"rack-{next(_numbers)}"
        one = Deployment(
            name=name, model="llama", accelerator="nvidia-h100-sxm", accelerator_count=2, effective_from=since,
            profile={"kind": "rented", "usd_per_hour": "2"}, metrics=tuple(metrics), **told,
        )  # fmt: skip
        self.warehouse.control.declare(one)
        return name

    def look(self, times=1, step=timedelta(seconds=15)):
        for _ in range(times):
            self.scraper.look(self.now)
            self.now += step

    def commit(self):
        self.scraper.commit()

    def kill(self):
        """End it as a crash does: what was not committed is gone."""
        self.scraper = Scraper(self.warehouse)

    def hours(self, deployment=None):
        """What is stored, by hour, source and role; what no row tells is None."""
        rows = self.warehouse.engine.read(select(meter_hours)).to_pylist()
        found = {}
        for row in rows:
            if deployment in {None, row["deployment"]}:
                of = found.setdefault((row["hour"], row["source"], row["role"]), dict.fromkeys(METERED))
                for name in METERED:
                    if row[name] is not None:
                        of[name] = (of[name] or 0) + row[name]
        return found

    def total(self, deployment=None):
        """The same over all hours, sources and roles."""
        whole = dict.fromkeys(METERED)
        for of in self.hours(deployment).values():
            for name, value in of.items():
                whole[name] = whole[name] if value is None else (whole[name] or 0) + value
        return whole


@pytest.fixture
def site(tmp_path):
    """A warehouse and a scraper of what is declared in it, at 10 o'clock."""
    made = Scraped(tmp_path / "data")
    yield made
    made.warehouse.close()
