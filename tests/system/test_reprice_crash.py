"""A repricing that is killed at any moment: each day happened or not at all, and the next process finishes it."""

import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from sqlalchemy import select

from millicent.collector import pipeline, repricing
from millicent.pricing.entries import Override
from millicent.warehouse import ledger, rollups
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.frames import EMPTY, plain
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import PRICE, calls, repriced, repricing_days, usage_hourly

START = datetime(2026, 10, 1, tzinfo=UTC)
DAYS, PER_DAY = 24, 2_000
DAY = timedelta(days=1)
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
CARRY_OUT = """
import pathlib, sys
from millicent.collector import repricing
from millicent.warehouse.store import Warehouse
warehouse = Warehouse.embedded(pathlib.Path(sys.argv[1]), memory_limit="256MB")
for run in warehouse.control.repricings(unfinished=True):
    for day in repricing.apply(warehouse, run):
        print(day.start, flush=True)
"""


def price(warehouse, usd):
    """Say what a million tokens of the model cost, from the beginning; what is said last holds."""
    per = {"input_mtok": Decimal(usd), "output_mtok": 2 * Decimal(usd)}
    told = Override(model="acme-7b", prices=per, effective_from=START - DAY, source="contract")
    warehouse.control.add_prices([told])
    return warehouse.prices.version(DEFAULT_TENANT)


def fill(warehouse):
    at = pl.col("at")
    told = {
        "tenant": pl.lit(DEFAULT_TENANT), "trace_id": at.cast(pl.String).str.zfill(16).cast(pl.Binary), "span_id": at,
        "received_at": pl.lit(START), "started_at": pl.lit(START) + at * (DAY / PER_DAY),
        "team": pl.format("team-{}", at % 7), "counted": at % 11 != 0, "input_tokens": at % 900,
        "output_tokens": at % 90, "provider": pl.lit("acme"), "model": pl.lit("acme-7b"), "billing": pl.lit("api"),
        "status": pl.lit("ok"), "signal": pl.lit("span"), "dialect": pl.lit("millicent"),
        "usage_source": pl.lit("reported"), "call_count": pl.lit(1),
    }  # fmt: skip
    numbers = pl.DataFrame({"at": pl.int_range(DAYS * PER_DAY, eager=True)})
    rows = pl.concat([EMPTY, numbers.select(**told)], how="diagonal_relaxed").cast(dict(EMPTY.schema))
    rows = pipeline.price_rows(rows, warehouse.prices).select(EMPTY.columns)
    ledger.commit(warehouse.engine, ledger.Batch(rows, pl.DataFrame(schema=OUTCOMES), pl.DataFrame()), "otlp", (0, 1))


def rows(warehouse, table):
    return plain(warehouse.engine.read(select(table)))


def assert_every_day_is_whole(warehouse, old, new):
    """Days are all old or all new, in calls, sums, kept amounts and what is noted; returns how many are new."""
    stored = rows(warehouse, calls)
    versions = stored.group_by(day=pl.col("started_at").dt.truncate("1d")).agg(pl.col("price_version").unique())
    changed = {day for day, (version,) in versions.iter_rows() if version == new}
    assert {version for _, (version,) in versions.iter_rows()} <= {old, new}
    assert set(rows(warehouse, repricing_days)["day"]) == changed
    kept = rows(warehouse, repriced)
    assert set(kept["started_at"].dt.truncate("1d")) == changed
    assert set(kept["price_version"]) <= {old}
    sums = [frame.group_by(rollups.KEY).agg(pl.col(rollups.SUMS).sum()).sort(pl.all())
            for frame in (rows(warehouse, usage_hourly), rollups.deltas(stored))]  # fmt: skip
    assert sums[0].equals(sums[1].select(sums[0].columns).cast(sums[0].schema))
    return len(changed)


@pytest.mark.crash
def test_a_repricing_killed_again_and_again_is_finished_once_and_whole(tmp_path):
    chance = random.Random(20261125)
    warehouse = Warehouse.embedded(tmp_path, memory_limit="256MB")
    old = price(warehouse, 1)
    fill(warehouse)
    before = rows(warehouse, calls).sort("started_at")
    new = price(warehouse, 3)
    run = warehouse.control.open_repricing(DEFAULT_TENANT, START, START + DAYS * DAY, new)
    cut_short = 0
    while warehouse.control.repricings(unfinished=True):
        warehouse.close()
        with subprocess.Popen(
            [sys.executable, "-c", CARRY_OUT, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            for _ in range(chance.randint(1, 8)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.1))  # the moment of the kill is what is being drawn, not a condition
            process.kill()
        warehouse = Warehouse.embedded(tmp_path, memory_limit="256MB")
        cut_short += 0 < assert_every_day_is_whole(warehouse, old, new) < DAYS
    assert cut_short > 0
    assert assert_every_day_is_whole(warehouse, old, new) == DAYS
    after = rows(warehouse, calls).sort("started_at")
    assert after.equals(pipeline.price_rows(before.drop(PRICE), warehouse.prices).select(after.columns))

    again = warehouse.control.open_repricing(DEFAULT_TENANT, START, START + DAYS * DAY, new)
    assert len(list(repricing.apply(warehouse, again))) == DAYS
    assert rows(warehouse, repricing_days).filter(run=again.id)["changed"].sum() == 0
    undo = warehouse.control.open_repricing(DEFAULT_TENANT, START, START + DAYS * DAY, new, undo_of=run.id)
    assert len(list(repricing.apply(warehouse, undo))) == DAYS
    back, free = rows(warehouse, calls).sort("started_at"), before["list_cost_usd"] == 0
    assert back.filter(~free).equals(before.filter(~free))
    assert back.drop(PRICE).equals(before.drop(PRICE))
    warehouse.close()
