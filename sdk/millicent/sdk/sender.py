"""The queue between the app and the collector: bounded, counted, never waited for, safe across fork.

OpenTelemetry's `BatchSpanProcessor` would do, but its flush ignores its timeout, its shutdown may hold the exit
of a process for 30 s when the collector hangs, and what a full queue drops is not counted.
"""

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from opentelemetry.context import attach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from millicent.sdk import faults

DELAY_S: Final = 0.25  # a span waits this long for company, so that it leaves within 500 ms
BATCH_SPANS: Final = 512
QUEUE_SPANS: Final = 8_192  # about 25 MB

_SUPPRESS: Final = "suppress_instrumentation"  # tells HTTP instrumentation that our own requests are no traffic


class Sender(SpanProcessor):
    """Exports ended spans from a thread of its own, started with the first span of each process."""

    def __init__(self, connect: Callable[[], SpanExporter]) -> None:
        """Start nothing yet.

        Args:
            connect: Makes the exporter, in the sending thread; again after a fork, so that no connection is shared
                with the parent process. Its `export` must be bounded in time by itself.
        """
        self._connect = connect
        self._successor: Sender | None = None
        self._is_closed = False
        self._reset()
        if hasattr(os, "register_at_fork"):
            reset = weakref.WeakMethod(self._reset)
            os.register_at_fork(after_in_child=lambda: (again := reset()) and again())

    def _reset(self) -> None:
        """Start empty: after a fork the parent exports what was waiting, and its thread is not ours."""
        self._changed = threading.Condition()
        self._queue: deque[ReadableSpan] = deque()
        self._in_flight = 0
        self._is_urgent = False
        self._thread: threading.Thread | None = None

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop and count it where the queue is full or closed."""
        faults.count("spans_ended")
        self._put(span)

    def _put(self, span: ReadableSpan) -> None:
        if self._successor is not None:
            self._successor._put(span)  # noqa: SLF001  # one of us
            return
        with self._changed:
            if self._is_closed or len(self._queue) >= QUEUE_SPANS:
                faults.count("spans_dropped")
                return
            self._queue.append(span)
            if self._thread is None:
                thread = threading.Thread(name="millicent-sender", target=self._run, daemon=True)
                thread.start()
                self._thread = thread
            if len(self._queue) in (1, BATCH_SPANS):
                self._changed.notify_all()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export everything queued so far, waiting at most `timeout_millis`.

        Returns:
            Whether the queue was emptied in time. `sdk_stats()` tells what became of the spans.
        """
        with self._changed:
            self._is_urgent = bool(self._queue)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not (self._queue or self._in_flight), max(timeout_millis, 0) / 1000)

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        """Flush for at most `timeout_millis`, then drop and count the rest."""
        with self._changed:
            self._is_closed = True
        self.force_flush(timeout_millis)
        with self._changed:
            faults.count("spans_dropped", len(self._queue))
            self._queue.clear()

    def hand_over(self, successor: "Sender") -> None:
        """Pass on what is queued, and what calls under way will still end, without waiting for anything."""
        with self._changed:
            self._successor, self._is_closed = successor, True
            waiting, self._queue = self._queue, deque()
            self._changed.notify_all()
        for span in waiting:
            successor._put(span)  # noqa: SLF001  # one of us

    def _run(self) -> None:
        attach(set_value(_SUPPRESS, value=True))
        exporter: SpanExporter | None = None
        while batch := self._next_batch():
            is_sent = False
            try:
                exporter = exporter or self._connect()
                is_sent = exporter.export(batch) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001  # an exporter that raises has not exported
                faults.note(error)
            faults.count("spans_exported" if is_sent else "spans_failed", len(batch))
            with self._changed:
                self._in_flight = 0
                self._changed.notify_all()
        if exporter is not None:
            exporter.shutdown()

    def _next_batch(self) -> list[ReadableSpan]:
        """Wait for a batch that is full, urgent or `DELAY_S` old. Empty when the sender is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
            self._changed.wait_for(
                lambda: len(self._queue) >= BATCH_SPANS or self._is_urgent or self._is_closed, timeout=DELAY_S
            )
            batch = [self._queue.popleft() for _ in range(min(BATCH_SPANS, len(self._queue)))]
            self._in_flight = len(batch)
            self._is_urgent = self._is_urgent and bool(self._queue)
            return batch
