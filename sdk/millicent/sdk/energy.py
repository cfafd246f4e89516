"""Energy: what the counters of the local accelerators show, read now and then and sent as the metric `hw.energy`.

A counter is sent as it is: what it rose by is for the collector to say. So a reading that is lost loses nothing,
several processes that read the same board tell the same counter, and a restart of the app leaves no hole.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from opentelemetry.context import attach, set_value
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from millicent.sdk import attributes, faults
from millicent.sdk.hardware import Board, Library, libraries

EVERY_S: Final = 15.0
UNKNOWN_START: Final = 0  # since when a counter counts: the driver does not tell

_SUPPRESS: Final = "suppress_instrumentation"  # tells HTTP instrumentation that our own requests are no traffic


class EnergyReader:
    """Reads and sends from a thread of its own, in the process that made it alone, until it is stopped.

    Where no accelerator has a counter, the thread ends at once.
    """

    def __init__(self, connect: Callable[[], MetricExporter], resource: Resource, every_s: float = EVERY_S) -> None:
        """Start.

        Args:
            connect: Makes the exporter, in the reading thread. Its `export` must be bounded in time by itself.
            resource: Whose accelerators they are: its `millicent.deployment` is what the energy is counted for.
            every_s: Seconds between readings.
        """
        self._connect = connect
        self._resource = resource
        self._every_s = every_s
        self._changed = threading.Condition()
        self._asked = self._answered = 0
        self._is_stopping = self._is_over = False
        if hasattr(os, "register_at_fork"):
            forget = weakref.WeakMethod(self._forget)
            os.register_at_fork(after_in_child=lambda: (again := forget()) and again())
        threading.Thread(name="millicent-energy", target=self._run, daemon=True).start()

    def _forget(self) -> None:
        """After a fork: the parent reads on, and its thread is not ours."""
        self._changed = threading.Condition()
        self._is_over = True

    def flush(self, timeout_s: float) -> bool:
        """Read and send now; tell whether that was done in time, or there is nothing to read."""
        with self._changed:
            self._asked += 1
            asked = self._asked
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._is_over or self._answered >= asked, max(timeout_s, 0))

    def stop(self) -> None:
        """Have it read and send a last time, without waiting for that. Safe to repeat."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the last reading to be sent, and tell whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over, max(timeout_s, 0))

    def _run(self) -> None:
        attach(set_value(_SUPPRESS, value=True))
        try:
            with faults.noted(), libraries() as opened:
                self._read_on([(one, board) for one in opened for board in one.boards() if _counts(one, board)])
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _read_on(self, boards: list[tuple[Library, Board]]) -> None:
        exporter: MetricExporter | None = None
        is_last = not boards
        while not is_last:
            with self._changed:
                is_last, asked = self._is_stopping, self._asked
            points = [point for library, board in boards for point in _read(library, board)]
            is_sent = False
            with faults.noted():
                exporter = exporter or self._connect()
                is_sent = exporter.export(self._told(points)) is MetricExportResult.SUCCESS
            faults.count("energy_exported" if is_sent else "energy_failed", len(points))
            with self._changed:
                self._answered = asked
                self._changed.notify_all()
                if not is_last:
                    self._changed.wait_for(lambda: self._is_stopping or self._asked > self._answered, self._every_s)
        if exporter is not None:
            exporter.shutdown()

    def _told(self, points: list[NumberDataPoint]) -> MetricsData:
        counter = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        metric = Metric(attributes.ENERGY, "Energy used by the accelerator since its driver was loaded", "J", counter)
        scope = ScopeMetrics(InstrumentationScope(attributes.SCOPE, attributes.VERSION), [metric], "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def _counts(library: Library, board: Board) -> bool:
    """Whether a board has a counter that counts; where a board shows up as two, one of them stands at 0."""
    try:
        return library.millijoules(board) > 0
    except Exception:  # noqa: BLE001  # Not Supported, in each vendor's own way
        return False


def _read(library: Library, board: Board) -> list[NumberDataPoint]:
    """One point, or none where the board does not answer now."""
    try:
        joules = library.millijoules(board) / 1000
    except Exception as error:  # noqa: BLE001  # a board may fall off its bus, and come back
        faults.note(error)
        return []
    about = {
        attributes.HARDWARE_ID: board.id,
        attributes.HARDWARE_TYPE: "gpu",
        attributes.HARDWARE_NAME: board.name,
        attributes.HARDWARE_VENDOR: library.vendor,
    }
    return [NumberDataPoint(about, UNKNOWN_START, time.time_ns(), joules)]
