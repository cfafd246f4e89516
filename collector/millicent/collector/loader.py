"""From the spool to the ledger: read a run of records, run the pipeline, commit rows and position together.

The loader never decides from memory what is stored: after any failed commit it reopens the database, reads the stored
position and goes on from there. A record that keeps failing is set aside alone, with a reason; the rest goes on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import polars as pl
import structlog
from sqlalchemy.exc import OperationalError

from millicent.collector import limits, pipeline
from millicent.collector.batch import Context, Incoming
from millicent.collector.spool import START, Damaged, Position, Record, SpoolReader
from millicent.warehouse import evidence, late, ledger, metered
from millicent.warehouse.engine import EngineError, RowsRefusedError
from millicent.warehouse.store import Warehouse

SPOOL: Final = "otlp"
BATCH_BYTES: Final = 16 << 20
IDLE_S: Final = 0.05
RETRY_S: Final = 1.0
CHECKPOINT_EVERY: Final = timedelta(minutes=5)
KEEP: Final = timedelta(hours=24)
ATTEMPTS: Final = 3

log = structlog.get_logger("millicent.loader")


@dataclass(slots=True)
class Progress:
    """What the loader has done since it started, for `/metrics`."""

    batches: int = 0
    calls: int = 0
    failures: int = 0
    last_batch_ms: int = 0


class Loader:
    """Tails one spool into one warehouse.

    Args:
        warehouse: the only one that this spool is loaded into; its `complete_through` is moved.
        spool: read without its lock, so the receiver may be another process.
    """

    def __init__(self, warehouse: Warehouse, spool: SpoolReader) -> None:
        self._warehouse = warehouse
        self.spool = spool
        self._position = Position(*ledger.position(warehouse.engine, SPOOL))
        self._attempts = 0
        self._careful_until = START
        self._hopeless = False
        self._checkpointed = datetime.now(UTC)
        self.progress = Progress()
        self.running = False

    @property
    def position(self) -> Position:
        """Everything before it is in the ledger."""
        return self._position

    def balance(self) -> dict[str, int]:
        """Spans received since the beginning, and where each is: the parts add up to `received` at every moment."""
        outcomes, position = ledger.books(self._warehouse.engine, SPOOL)
        while True:
            received = self.spool.total_spans()
            in_spool, _ = self.spool.pending(Position(*position))
            if received == self.spool.total_spans():
                return {"received": received, **outcomes, "in_spool": in_spool}

    def run(self, stop: threading.Event) -> None:
        """Load until told to stop; failures are logged, counted and tried again."""
        self.running = True
        try:
            self._run(stop)
        finally:
            self.running = False

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                loaded = self.step()
            except Exception as error:
                self.progress.failures += 1
                log.exception("load failed", position=tuple(self._position), attempt=self._attempts)
                stop.wait(RETRY_S)
                self._recover(error)
            else:
                if not loaded:
                    stop.wait(IDLE_S)

    def step(self) -> int:
        """Load what is there, up to one batch.

        Returns:
            Records taken; 0 when the spool has no more.

        Raises:
            EngineError: nothing of this batch is known to be stored.
        """
        began, asked_at = time.monotonic(), datetime.now(UTC)
        careful = self._position < self._careful_until
        records, following = self.spool.read(self._position, 1 if careful else BATCH_BYTES)
        if not records and following == self._position:
            self._warehouse.complete_through = asked_at
            self._housekeep(asked_at)
            return 0
        self._attempts += 1
        with self._warehouse.writing:
            batch = self._set_aside(records) if self._hopeless else self._prepare(records)
            with late.heeding(self._warehouse.control, batch.calls, batch.revised) as closed:
                ledger.commit(self._warehouse.engine, batch, SPOOL, following, closed)
        self._attempts, self._hopeless, self._position = 0, False, following
        self._housekeep(asked_at)
        self.progress.batches += 1
        self.progress.calls += batch.calls.height
        self.progress.last_batch_ms = round((time.monotonic() - began) * 1000)
        newest = max((r.received_ns for r in records if isinstance(r, Record)), default=0)
        if newest:
            self._warehouse.complete_through = _instant(newest)
        return max(1, len(records))

    def _prepare(self, records: Sequence[Record | Damaged]) -> ledger.Batch:
        whole = [record for record in records if isinstance(record, Record)]
        incoming = [
            Incoming(
                limits.decompress(record.body, record.encoding, limits.Limits()),
                record.tenant, record.key_id, _instant(record.received_ns), record.signal,
            )
            for record in whole
        ]  # fmt: skip
        engine = self._warehouse.engine
        context = Context(
            prices=self._warehouse.prices,
            deployments=self._warehouse.control.deployments(),
            seen=partial(ledger.seen, engine),
            rules=self._warehouse.control.rules(),
            series=partial(ledger.remembered, engine),
            related=partial(evidence.related, engine),
            tellers=partial(evidence.tellers, engine),
            metrics=partial(evidence.metrics, engine),
            hours=partial(evidence.hours, engine),
            meters=partial(metered.series, engine),
        )
        done = pipeline.run(incoming, context)
        for damaged in (record for record in records if isinstance(record, Damaged)):
            kept = self.spool.set_aside(damaged)
            log.error("damaged spool record set aside", spans=damaged.spans, file=str(kept))
        stored = done.spans.select("tenant", "received_at", outcome=pl.lit("stored"), reason=pl.lit("call"))
        lost = [*_lost([whole[at] for at in done.broken], "undecodable"), *_lost_damaged(records)]
        outcomes = _outcomes(pl.concat([stored, *done.left]).with_columns(spans=pl.lit(1, pl.Int64)), lost)
        expected = sum(record.spans for record in records)
        if expected != (counted := outcomes["spans"].sum()):
            log.error("spans do not balance", expected=expected, counted=counted, position=tuple(self._position))
        return ledger.Batch(
            done.spans, outcomes, done.quarantined, done.revised, done.told, done.edges, done.series,
            done.meter_hours, done.meter_series,
        )  # fmt: skip

    def _set_aside(self, records: Sequence[Record | Damaged]) -> ledger.Batch:
        """Records that no attempt could store: counted as quarantined, their bytes kept where nothing retires them."""
        whole = [record for record in records if isinstance(record, Record)]
        for record in whole:
            folder, name = self.spool.directory / "aside", f"{record.position.segment}-{record.position.offset}"
            folder.mkdir(exist_ok=True)
            file = folder / f"{name}.{record.encoding}"
            file.write_bytes(record.body)
            about = {"tenant": record.tenant, "key_id": record.key_id, "signal": record.signal, "spans": record.spans,
                     "received_at": _instant(record.received_ns).isoformat()}  # fmt: skip
            (folder / f"{name}.json").write_text(json.dumps(about))
            log.error("record set aside", spans=record.spans, file=str(file))
        outcomes = _outcomes(None, [*_lost(whole, "unloadable"), *_lost_damaged(records)])
        return ledger.Batch(pl.DataFrame(), outcomes, pl.DataFrame())

    def _recover(self, error: Exception) -> None:
        """Decide from what is stored. Rows that fail where others can be stored go one record at a time, then aside."""
        try:
            self._warehouse.engine.reopen()
            self._position = Position(*ledger.position(self._warehouse.engine, SPOOL))
            if isinstance(error, EngineError) and not isinstance(error, RowsRefusedError):
                ledger.touch(self._warehouse.engine)
            with self._warehouse.control.closings():
                pass  # it takes changes, too
        except (EngineError, OperationalError):
            log.exception("the warehouse takes nothing now")
            return
        if self._attempts >= ATTEMPTS:
            self._hopeless = self._position < self._careful_until
            self._careful_until = max(self._careful_until, self.spool.read(self._position, BATCH_BYTES)[1])
            self._attempts = 0

    def _housekeep(self, now: datetime) -> None:
        """Every few minutes: make what is loaded part of the database file, then let old segments go."""
        if now - self._checkpointed < CHECKPOINT_EVERY:
            return
        self._warehouse.engine.checkpoint()
        self.spool.retire(self._position, now - KEEP)
        self._checkpointed = now


def _lost(records: Sequence[Record], reason: str) -> list[dict[str, object]]:
    return [
        {"tenant": r.tenant, "received_at": _instant(r.received_ns), "outcome": "quarantined", "reason": reason,
         "spans": r.spans}
        for r in records
    ]  # fmt: skip


def _lost_damaged(records: Sequence[Record | Damaged]) -> list[dict[str, object]]:
    return [
        {"tenant": "", "received_at": datetime.now(UTC), "outcome": "quarantined", "reason": "damaged_on_disk",
         "spans": r.spans}
        for r in records
        if isinstance(r, Damaged)
    ]  # fmt: skip


_LEFT: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "tenant": pl.String, "received_at": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
    "spans": pl.Int64,
}  # fmt: skip


def _outcomes(spans: pl.DataFrame | None, lost: list[dict[str, object]]) -> pl.DataFrame:
    frames = [pl.DataFrame(lost, schema=_LEFT)] + ([spans.select(*_LEFT)] if spans is not None else [])
    return (
        pl.concat(frames)
        .group_by("tenant", pl.col("received_at").dt.truncate("1h").alias("hour"), "outcome", "reason")
        .agg(pl.col("spans").sum())
    )


def _instant(ns: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=ns // 1000)
