"""Background work, as a table: what is done, how often, by which function. One thread runs a table, one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from millicent.collector import charging
from millicent.collector.alerts.evaluating import Evaluator
from millicent.warehouse import capacity, evidence, metered, rollups
from millicent.warehouse.store import Warehouse

log = structlog.get_logger("millicent.jobs")


@dataclass(frozen=True, slots=True)
class Job:
    """`run` returns how many things it did; it rests at least `every_s`, and four times as long as it took."""

    name: str
    every_s: float
    run: Callable[[Warehouse, datetime], int]


JOBS: Final = (
    Job("deployment_hours", 1, lambda warehouse, now: capacity.refresh(warehouse.engine, warehouse.control, now)),
    Job("charges", 60, charging.refresh),
    Job("first_answers", 20, lambda warehouse, now: warehouse.prepare(now)),
    Job("forget_evidence", 3600, lambda warehouse, now: evidence.forget(warehouse.engine, now - evidence.KEPT)),
    Job("fold_rollup", 600, lambda warehouse, now: rollups.compact(warehouse.engine, now - timedelta(hours=2))),
    Job("fold_meters", 600, lambda warehouse, now: metered.fold(warehouse.engine, now - timedelta(hours=2))),
)


def alerts(address: str = "") -> tuple[Job, ...]:
    """Judging rules, with links to pages at an address; apart from the others, so that none waits for the other."""
    return (Job("alerts", 5, Evaluator(address).run),)


def run(warehouse: Warehouse, stop: threading.Event, jobs: tuple[Job, ...] = JOBS) -> None:
    """Run every job when it is due until told to stop; a failure is logged and the job tried again at its next turn."""
    due = dict.fromkeys(jobs, 0.0)
    while not stop.is_set():
        job = min(due, key=lambda one: due[one])
        if stop.wait(max(0.0, due[job] - time.monotonic())):
            return
        began = time.monotonic()
        try:
            done = job.run(warehouse, datetime.now(UTC))
        except Exception as error:
            log.exception("job failed", job=job.name, error=repr(error))
            done = 0
        took = time.monotonic() - began
        due[job] = time.monotonic() + max(job.every_s, 4 * took)
        if done:
            log.debug("job done", job=job.name, things=done, took_ms=round(took * 1000))
