"""How fast stored calls are priced again when every amount changes, beside two other ways in the same run.

    python benchmarks/reprice.py [--calls 10000000] [--days 30] [--reference 300000] [--directory DIR]

A ledger is filled with calls of 20 teams and 5 models over some days. Then every list price is doubled and one run of
`repricing.apply` carries it through day by day, with former amounts kept and sums corrected. References: one bare
`UPDATE` of the same columns, which prices nothing, keeps nothing and corrects no sums; and `ledger.revise`, which
replaces whole calls. At the end every amount must have doubled, and hourly sums and calls must agree.
"""

import argparse
import resource
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from multiprocessing import get_context
from pathlib import Path

import polars as pl
from sqlalchemy import func, select

from millicent.collector import history, pipeline, repricing
from millicent.pricing import bundled
from millicent.warehouse import ledger
from millicent.warehouse.amending import within
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import calls, usage_hourly

TARGET = 500_000
TENANT = "default"
START = datetime(2026, 10, 1, tzinfo=UTC)
MODELS = ("gpt-4o", "gpt-5-mini", "gpt-4.1-mini", "o4-mini", "gpt-4o-mini")
SAME = {"tenant": TENANT, "billing": "api", "status": "ok", "signal": "span", "dialect": "otel_genai",
        "operation": "chat", "provider": "openai", "streaming": False, "environment": "production",
        "usage_source": "reported", "counted": True, "call_count": 1, "received_at": START}  # fmt: skip
AT_ONCE = 250_000
NO_OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
               "spans": pl.Int64}  # fmt: skip


def fill(directory: Path, count: int, days: int) -> None:
    """`count` priced calls, spread evenly over `days`, with their hourly sums."""
    warehouse = Warehouse.embedded(directory)
    step_us = timedelta(days=days) // timedelta(microseconds=1) // count
    at, team = pl.col("at"), pl.col("at") * 7919 % 20
    told = {name: pl.lit(value) for name, value in SAME.items()} | {
        "trace_id": at.cast(pl.String).str.zfill(16).cast(pl.Binary),
        "span_id": at,
        "started_at": pl.lit(START) + (at * step_us).cast(pl.Duration("us")),
        "model": pl.lit(pl.Series(MODELS)).gather(at * 104_729 % len(MODELS)),
        "team": pl.format("team-{}", team),
        "project": pl.format("project-{}", team),
        "service": pl.format("service-{}", team // 2),
        "input_tokens": 500 + at * 31 % 7000,
        "output_tokens": 20 + at * 17 % 900,
        "cache_read_tokens": at * 13 % 400,
    }
    for first in range(0, count, AT_ONCE):
        numbers = pl.DataFrame({"at": pl.int_range(first, min(first + AT_ONCE, count), eager=True)})
        rows = pl.concat([EMPTY, numbers.select(**told)], how="diagonal_relaxed").cast(dict(EMPTY.schema))
        priced = pipeline.price_rows(rows, warehouse.prices).select(EMPTY.columns)
        batch = ledger.Batch(priced, pl.DataFrame(schema=NO_OUTCOMES), pl.DataFrame())
        ledger.commit(warehouse.engine, batch, "otlp", (0, first + 1))
    warehouse.engine.checkpoint()
    warehouse.close()


def double_prices(warehouse: Warehouse, factor: int) -> None:
    """Put in force a list on which everything costs `factor` times as much as on the bundled one."""
    entries = [
        replace(entry, cells=tuple(
            replace(cell, prices={key: price * factor for key, price in cell.prices.items()}) for cell in entry.cells
        ))
        for entry in bundled.entries()
    ]  # fmt: skip
    warehouse.prices = Prices(warehouse.control, f"genai-prices times {factor}", entries)
    warehouse.prices.accept("benchmark")


def spent(warehouse: Warehouse, table: str) -> Decimal:
    """List cost of everything, by the calls or by their hourly sums."""
    column = (calls if table == "calls" else usage_hourly).c.list_cost_usd
    return Decimal(warehouse.engine.read(select(func.sum(column))).column(0)[0].as_py())


def bare_update(warehouse: Warehouse, reference: Period) -> float:
    """Seconds of one statement that changes as many amounts, commit included."""
    amounts = ("list_cost_usd", "list_input_usd", "list_cache_read_usd", "list_output_usd", "billed_cost_usd",
               "cache_saving_usd")  # fmt: skip
    doubled = {name: calls.c[name] * 2 for name in amounts}
    asked = calls.update().values(**doubled, price_version="another").where(*within(TENANT, reference))
    begun = time.perf_counter()
    with warehouse.engine.write() as transaction:
        transaction.execute(asked)
    return time.perf_counter() - begun


def replace_whole(warehouse: Warehouse, reference: Period) -> float:
    """Seconds of pricing calls and replacing their rows, a few hours at a time."""
    begun = time.perf_counter()
    for hours in history.steps(reference, 6 * history.HOUR):
        rows = ledger.calls_between(warehouse.engine, TENANT, hours.start, hours.end)
        ledger.revise(warehouse.engine, pipeline.price_rows(rows, warehouse.prices).select(EMPTY.columns))
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--reference", type=int, default=300_000, help="calls that the references change")
    parser.add_argument("--directory", type=Path, help="kept; a scratch directory if left out")
    options = parser.parse_args()
    with nullcontext(options.directory) if options.directory else tempfile.TemporaryDirectory() as directory:
        filling = get_context("spawn").Process(target=fill, args=(Path(directory), options.calls, options.days))
        filling.start()  # apart, so that its memory is not counted
        filling.join()
        warehouse = Warehouse.embedded(Path(directory))
        period = Period(START, START + timedelta(days=options.days))
        before = spent(warehouse, "calls")
        double_prices(warehouse, 2)
        print(f"filled         {options.calls:12,} calls over {options.days} days, memory {memory_mb():,} MB")

        begun = time.perf_counter()
        changes = sum(one.calls for one in repricing.difference(warehouse, TENANT, period))
        looked_s = time.perf_counter() - begun
        run = warehouse.control.open_repricing(TENANT, period.start, period.end, warehouse.prices.version(TENANT))
        days, begun, cpu = list[float](), time.perf_counter(), time.process_time()
        for _ in repricing.apply(warehouse, run):
            days.append(time.perf_counter() - begun - sum(days))
        applied_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        print(f"dry run        {changes / looked_s:12,.0f} calls/s ({changes:,} would change)")
        print(f"repricing      {options.calls / applied_s:12,.0f} calls/s (goal: {TARGET:,})")
        print(f"               longest day {max(days):.2f} s; {cpu_s / options.calls * 1e6:.1f} CPU s per million")
        print(f"               most memory held {memory_mb():,} MB")
        doubled = spent(warehouse, "calls") == 2 * before
        agree = spent(warehouse, "usage_hourly") == 2 * before
        begun = time.perf_counter()
        again = warehouse.control.open_repricing(TENANT, period.start, period.end, run.version)
        list(repricing.apply(warehouse, again))
        print(f"once more      {options.calls / (time.perf_counter() - begun):12,.0f} calls/s, which changes nothing")
        warehouse.engine.checkpoint()

        share = options.reference / options.calls
        reference = Period(START, START + timedelta(days=options.days) * share)
        print(f"UPDATE alone   {options.reference / bare_update(warehouse, reference):12,.0f} calls/s "
              f"({options.reference:,} calls: no prices, nothing kept, sums wrong)")  # fmt: skip
        print(f"ledger.revise  {options.reference / replace_whole(warehouse, reference):12,.0f} calls/s "
              f"({options.reference:,} calls replaced whole)")  # fmt: skip
        print(f"exact          every amount doubled: {doubled}; hourly sums agree: {agree}")
        warehouse.close()
    return 0 if doubled and agree and options.calls / applied_s >= TARGET else 1


def memory_mb() -> int:
    """Most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
