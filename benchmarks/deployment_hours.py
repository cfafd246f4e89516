"""How fast deployment-hours are computed, and what it takes to see that none is due, beside their arithmetic alone.

    python benchmarks/deployment_hours.py [--deployments 100] [--days 30] [--calls 200000]

Deployments with calls of three teams over some days are declared at once, half of them two and two on shared
accelerators, and one refresh computes all of their hours. Then refreshes follow as the running product makes them: one
in which nothing has changed, one in which the running hours have gone on for a minute, one after calls came late, and
one after a policy changed a day. Reference: cost and allocation of as many hours, nothing read and nothing stored. At
the end calls and hours must add up to what was paid, to the last digit.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

import polars as pl
from sqlalchemy import func, select

from millicent.pricing.allocation import Bill, Serving, Tokens, allocate_hour
from millicent.pricing.hourly import hourly_cost
from millicent.pricing.profiles import MATH, Owned
from millicent.warehouse import capacity, ledger
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Period, Query
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import deployment_hours

TARGET_PER_S = 1_000
TARGET_IDLE_MS = 150
START = datetime(2026, 10, 1, tzinfo=UTC)
HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
SAME = {"tenant": DEFAULT_TENANT, "billing": "self_hosted", "status": "ok", "signal": "span", "dialect": "millicent",
        "operation": "chat", "provider": "vllm", "streaming": False, "environment": "production", "call_count": 1,
        "usage_source": "reported", "counted": True, "price_status": "not_billed", "billed_cost_usd": Decimal(0),
        "received_at": START}  # fmt: skip
NO_OUTCOMES = pl.Schema(
    [
        ("tenant", pl.String()),
        ("hour", pl.Datetime("us", "UTC")),
        *((name, pl.String()) for name in ("outcome", "reason")),
        ("spans", pl.Int64()),
    ]
)


def declare(warehouse: Warehouse, count: int) -> None:
    warehouse.control.declare_all([
        Deployment(
            name=f"deployment-{number}", model=f"model-{number % 7}", engine="vllm", accelerator="nvidia-h100-sxm",
            accelerator_count=8, effective_from=START, region="us-va", owner=f"team-{number % 3}",
            profile={"kind": "owned", "capex_usd": "24400"}, pool=f"pool-{number // 4}" if number % 4 < 2 else None,
        )
        for number in range(count)
    ])  # fmt: skip


def store(warehouse: Warehouse, batch: int, count: int, deployments: int, first: datetime, lasting: timedelta) -> None:
    """`count` calls spread evenly over deployments, teams and time."""
    at = pl.int_range(count, eager=True).alias("at")
    step_us = lasting // timedelta(microseconds=1) // count
    told = {name: pl.lit(value) for name, value in SAME.items()} | {
        "trace_id": (pl.col("at") + batch * 10**9).cast(pl.String).str.zfill(16).cast(pl.Binary),
        "span_id": pl.col("at"),
        "started_at": pl.lit(first) + (pl.col("at") * step_us).cast(pl.Duration("us")),
        "duration_ms": 1_000 + pl.col("at") * 31 % 60_000,
        "deployment": pl.format("deployment-{}", pl.col("at") * 7919 % deployments),
        "team": pl.format("team-{}", pl.col("at") % 3),
        "input_tokens": 500 + pl.col("at") * 31 % 7000,
        "cache_read_tokens": pl.col("at") * 13 % 400,
        "output_tokens": 20 + pl.col("at") * 17 % 900,
    }
    rows = pl.concat([EMPTY, pl.DataFrame({"at": at}).select(**told)], how="diagonal_relaxed").cast(EMPTY.schema)
    told_of = ledger.Batch(rows.select(EMPTY.columns), pl.DataFrame(schema=NO_OUTCOMES), pl.DataFrame())
    ledger.commit(warehouse.engine, told_of, "otlp", (0, batch))


def arithmetic_alone(hours: int) -> float:
    """Seconds of costing and allocating as many hours."""
    begun = time.perf_counter()
    for number in range(hours):
        busy = Decimal(number % 3600)
        cost = hourly_cost(
            Owned(capex_usd=Decimal(24400)), "nvidia-h100-sxm", 8, region="us-va", busy_seconds=busy, at=START
        )
        served = Serving(seen=Tokens(uncached_input=1000 + number, cached_input=100, output=50))
        allocate_hour(Bill.of(cost), {"one": served}, elapsed_seconds=3600, busy_seconds=busy)
    return time.perf_counter() - begun


def timed(what: Callable[[], int]) -> tuple[int, float]:
    begun = time.perf_counter()
    return what(), time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=100)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--calls", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        warehouse = Warehouse.embedded(Path(directory))
        now = START + options.days * DAY + 5 * MINUTE
        declare(warehouse, options.deployments)
        store(warehouse, 1, options.calls, options.deployments, START, options.days * DAY)

        def refresh(at: datetime) -> tuple[int, float]:
            return timed(lambda: capacity.refresh(warehouse.engine, warehouse.control, at))

        hours, took = refresh(now)
        per_s = hours / took
        print(f"refresh        {per_s:10,.0f} deployment-hours/s ({hours:,} in {took:.1f} s; goal: {TARGET_PER_S:,})")
        none, idle = min(refresh(now) for _ in range(5))
        print(f"nothing due    {idle * 1000:10,.0f} ms (goal: {TARGET_IDLE_MS})")
        running, took_running = refresh(now + MINUTE)
        print(f"a minute later {took_running * 1000:10,.0f} ms ({running:,} running hours)")
        store(warehouse, 2, 1000, options.deployments, START + DAY, HOUR / 2)
        late, took_late = refresh(now + MINUTE)
        print(f"late calls     {took_late * 1000:10,.0f} ms ({late:,} hours)")
        warehouse.control.set_policy(Policy(effective_from=START + (options.days - 1) * DAY, idle="spread by use"))
        again, took_again = refresh(now + MINUTE)
        print(f"another policy {took_again * 1000:10,.0f} ms ({again:,} hours of the last day)")
        alone = arithmetic_alone(min(hours, 10_000))
        print(
            f"arithmetic     {min(hours, 10_000) / alone:10,.0f} hours/s of one deployment (cost and allocation alone)"
        )
        exact = adds_up(warehouse, now)
        print(f"exact          calls and hours add up to what was paid: {exact}")
        warehouse.close()
    return 0 if exact and not none and per_s >= TARGET_PER_S and idle * 1000 <= TARGET_IDLE_MS else 1


def adds_up(warehouse: Warehouse, now: datetime) -> bool:
    c = deployment_hours.c
    paid = warehouse.engine.read(select(func.sum(c.fixed_usd + c.energy_usd + c.hosting_usd))).column(0)[0].as_py()
    asked = Query(measures=("capacity_cost_usd",), period=Period(START, now + HOUR - 5 * MINUTE), dimensions=("team",))
    carried = warehouse.ask(DEFAULT_TENANT, asked).frame["capacity_cost_usd"].to_list()
    with localcontext(MATH):
        return bool(sum(usd for usd in carried if usd is not None) == paid)


if __name__ == "__main__":
    sys.exit(main())
