"""How fast acknowledged calls become priced, durable and queryable, beside a naive decoder in the same run.

    python benchmarks/ingest.py [--spans 200000] [--requests 400] [--directory DIR]

The spool is filled first, in requests of 512 calls. Then one loader takes it to the ledger with its own `step`: read,
decode, every step of the pipeline, one transaction with rows, rollup deltas and position; at the end a query must find
every call. The reference parses the same requests with opentelemetry-proto and walks them into dictionaries: no price,
no duplicate search, no storage.

The last part sends requests over HTTP to a receiver of its own and asks, every few milliseconds, how many calls a query
finds: the time from the acknowledgement of a call to its being found, both clocks on this machine.
"""

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from millicent.collector import otlp_pb2 as otlp
from millicent.collector import pipeline
from millicent.collector.batch import Batch, Context
from millicent.collector.loader import Loader
from millicent.collector.spool import Spool, SpoolReader
from millicent.warehouse import ledger
from millicent.warehouse.query import Period, Query
from millicent.warehouse.store import Warehouse

CALLS = 512
OWN = 0.2  # share of calls on own hardware
TENANT = "default"
MODELS = ("gpt-5-mini", "gpt-4o", "gpt-4.1-mini", "o4-mini", "claude-sonnet-4-5")
TEAMS = ("search", "support", "ads", "risk", "research", "mobile", "payments")
TARGET, LATENCY_TARGET_S = 100_000, 2.0


def request(chance: random.Random) -> bytes:
    """One export of an instrumented service: 512 calls with 15 to 17 attributes each."""
    now = time.time_ns()
    return otlp.ExportTraceServiceRequest(
        resource_spans=[
            otlp.ResourceSpans(
                resource=otlp.Resource(
                    attributes=[text("service.name", "ranker"), text("deployment.environment.name", "prod")]
                ),
                scope_spans=[
                    otlp.ScopeSpans(
                        scope=otlp.InstrumentationScope(name="millicent.sdk", version="0.1.0"),
                        spans=[call(chance, now - chance.randrange(10**12)) for _ in range(CALLS)],
                    )
                ],
            )
        ]
    ).SerializeToString()


def call(chance: random.Random, started_ns: int) -> otlp.Span:
    model = chance.choice(MODELS)
    own = chance.random() < OWN
    team = chance.randrange(len(TEAMS))
    tokens = chance.randrange(200, 8000)
    attributes = [
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "anthropic" if model.startswith("claude") else "openai"),
        text("gen_ai.request.model", model),
        text("gen_ai.response.model", model),
        text("gen_ai.response.id", f"chatcmpl-{chance.getrandbits(116):029x}"),
        text("server.address", "vllm.internal" if own else "api.openai.com"),
        number("server.port", 8000 if own else 443),
        number("gen_ai.usage.input_tokens", tokens),
        number("gen_ai.usage.output_tokens", chance.randrange(20, 900)),
        number("gen_ai.usage.cache_read.input_tokens", tokens // 2),
        number("gen_ai.usage.reasoning.output_tokens", 16),
        text("millicent.usage_source", "reported"),
        text("millicent.team", TEAMS[team]),
        text("millicent.project", f"project-{team}-{chance.randrange(2)}"),
        text("millicent.feature", f"feature-{team}"),
    ]
    if own:
        attributes += [
            text("millicent.deployment", "chat-h100"),
            text("millicent.accelerator", "NVIDIA H100 80GB HBM3"),
        ]
    return otlp.Span(
        trace_id=chance.randbytes(16),
        span_id=chance.randbytes(8),
        parent_span_id=chance.randbytes(8),
        name=f"chat {model}",
        kind=3,
        start_time_unix_nano=started_ns,
        end_time_unix_nano=started_ns + chance.randrange(10**8, 10**10),
        attributes=attributes,
    )


def text(key: str, value: str) -> otlp.KeyValue:
    return otlp.KeyValue(key=key, value=otlp.AnyValue(string_value=value))


def number(key: str, value: int) -> otlp.KeyValue:
    return otlp.KeyValue(key=key, value=otlp.AnyValue(int_value=value))


def naive(bodies: list[bytes]) -> list[dict[str, Any]]:
    """What a collector does that reads spans one by one."""
    rows = []
    for body in bodies:
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {pair.key: value(pair.value) for pair in group.resource.attributes}
            for scoped in group.scope_spans:
                for span in scoped.spans:
                    row = {pair.key: value(pair.value) for pair in span.attributes}
                    row["resource"] = resource
                    row["scope"] = scoped.scope.name
                    row["ids"] = (span.trace_id, span.span_id)
                    row["started_at"] = span.start_time_unix_nano
                    row["ended_at"] = span.end_time_unix_nano
                    rows.append(row)
    return rows


def value(told: Any) -> Any:
    kind = told.WhichOneof("value")
    return getattr(told, kind) if kind else None


# ---- throughput


def fill(directory: Path, bodies: list[bytes]) -> None:
    """Acknowledge every request."""

    async def append() -> None:
        with Spool(directory) as spool:
            await asyncio.gather(*(spool.append(body, tenant=TENANT, key_id="bench", spans=CALLS) for body in bodies))

    asyncio.run(append())


@contextmanager
def timed(spent: dict[str, float], name: str, module: Any, attribute: str) -> Iterator[None]:
    """Add the time inside `module.attribute` to `spent[name]`."""
    original: Callable[..., Any] = getattr(module, attribute)

    def measured(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return original(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begun

    setattr(module, attribute, measured)
    try:
        yield
    finally:
        setattr(module, attribute, original)


def throughput(directory: Path, bodies: list[bytes]) -> None:
    calls = len(bodies) * CALLS
    fill(directory / "spool", bodies)
    warehouse = Warehouse.embedded(directory)
    loader = Loader(warehouse, SpoolReader(directory / "spool"))
    spent: dict[str, float] = {}
    steps = pipeline.STEPS
    begun = time.perf_counter()
    with (
        timed(spent, "decode", pipeline, "decode"),
        timed(spent, "decode and steps", pipeline, "run"),
        timed(spent, "insert, commit", ledger, "commit"),
    ):
        pipeline.STEPS = tuple(in_turn(spent, step) for step in steps)  # type: ignore[misc,assignment] # measured twins
        while loader.step():
            pass
        pipeline.STEPS = steps  # type: ignore[misc] # back
    loaded_s = time.perf_counter() - begun
    found = count(warehouse)
    elapsed_s = time.perf_counter() - begun
    if found != calls:
        raise SystemExit(f"{calls} calls were acknowledged and {found} are found")
    warehouse.close()

    begun = time.perf_counter()
    rows = naive(bodies)
    naive_s = time.perf_counter() - begun
    rate, reference = calls / elapsed_s, len(rows) / naive_s
    print(
        f"{calls:,} calls in requests of {CALLS}, {len(bodies[0]) / CALLS:.0f} bytes a call, {os.cpu_count()} cores\n"
    )
    print(f"spool → ledger, queryable   {rate:11,.0f} calls/s   (target ≥ {TARGET:,})")
    print(f"naive parse and walk        {reference:11,.0f} calls/s   (reference: stores and prices nothing)")
    print(f"ratio                       {rate / reference:11.2f} ×\n")
    spent["steps together"] = spent.pop("decode and steps") - spent["decode"]
    spent["read, outcomes, rest"] = loaded_s - spent["decode"] - spent["steps together"] - spent["insert, commit"]
    for name, seconds in spent.items():
        print(f"  {name:24}  {seconds / calls * 1e6:11.2f} µs/call")


def in_turn(spent: dict[str, float], step: Any) -> Any:
    """`step`, with its time added to `spent`."""

    def measured(batch: Batch, context: Context) -> Batch:
        begun = time.perf_counter()
        done: Batch = step(batch, context)
        spent[f"- {step.__name__}"] = spent.get(f"- {step.__name__}", 0.0) + time.perf_counter() - begun
        return done

    return measured


def count(warehouse: Warehouse) -> int:
    """How many calls a query finds."""
    now = datetime.now(UTC)
    question = Query(measures=("calls",), period=Period(now - timedelta(days=2), now + timedelta(days=1)))
    answer = warehouse.ask(TENANT, question).frame["calls"]
    return int(answer.sum() or 0)


# ---- latency


def latency(directory: Path, bodies: list[bytes]) -> None:
    """Send requests one after the other and print how long each took from acknowledged to found by a query."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    command = [sys.executable, "-m", "millicent.collector", "--data", str(directory), "--port", str(port)]
    receiver = subprocess.Popen([*command, "--insecure-local", "--with-parent"], stdin=subprocess.PIPE)
    warehouse = Warehouse.embedded(directory)
    stop, seen = threading.Event(), list[tuple[int, float]]()
    threads = [
        threading.Thread(target=Loader(warehouse, SpoolReader(directory / "spool")).run, args=(stop,)),
        threading.Thread(target=watch, args=(warehouse, len(bodies) * CALLS, seen)),
    ]
    for thread in threads:
        thread.start()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}",
        headers={"content-type": "application/x-protobuf"},
        transport=httpx.HTTPTransport(retries=10),
    ) as client:
        acknowledged = [send(client, body) for body in bodies]
    threads[1].join()
    stop.set()
    threads[0].join()
    warehouse.close()
    receiver.terminate()
    receiver.wait()
    counts = [number for number, _ in seen]
    late_s = [seen[bisect_left(counts, (at + 1) * CALLS)][1] - told for at, told in enumerate(acknowledged)]
    cuts = statistics.quantiles([max(0.0, one) for one in late_s], n=100)
    rate = len(bodies) * CALLS / (acknowledged[-1] - acknowledged[0])
    print(f"\nover HTTP, {rate:,.0f} calls/s acknowledged on one connection; acknowledged → found by a query")
    print(f"  p50 {cuts[49] * 1000:7.0f} ms")
    print(f"  p99 {cuts[98] * 1000:7.0f} ms   (target ≤ {LATENCY_TARGET_S * 1000:.0f} ms)")


def send(client: httpx.Client, body: bytes) -> float:
    client.post("/v1/traces", content=body).raise_for_status()
    return time.perf_counter()


def watch(warehouse: Warehouse, calls: int, seen: list[tuple[int, float]]) -> None:
    """Note how many calls a query finds, and when, until all are there."""
    found = 0
    while found < calls:
        found = count(warehouse)
        seen.append((found, time.perf_counter()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=200_000, help="calls to load")
    parser.add_argument("--requests", type=int, default=400, help="requests to send over HTTP; 0 leaves that part out")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: the temporary directory")
    told = parser.parse_args()
    chance = random.Random(1)
    bodies = [request(chance) for _ in range(max(1, told.spans // CALLS))]
    with tempfile.TemporaryDirectory(dir=told.directory) as directory:
        throughput(Path(directory), bodies)
    if told.requests:
        with tempfile.TemporaryDirectory(dir=told.directory) as directory:
            latency(Path(directory), [request(chance) for _ in range(told.requests)])


if __name__ == "__main__":
    main()
