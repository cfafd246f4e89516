"""The collector's own metrics: a table of what is measured, and the few verbs that measure it.

Label values come from closed lists, never from a request, so the number of series is known before the first one.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST  # of `Telemetry.text`


class Metric(NamedTuple):
    """One row: the unit is the last word of the name, as Prometheus has it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


SYNC_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)

# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("millicent_receiver_requests_total", "counter", ("signal", "status"),
           "Requests answered, by signal and status: a number over HTTP, a word over gRPC"),
    Metric("millicent_receiver_refused_total", "counter", ("signal", "reason"),
           "Requests not taken, by the reason given to the sender"),
    Metric("millicent_receiver_received_bytes_total", "counter", ("signal",),
           "Body bytes read, as they came over the wire"),
    Metric("millicent_receiver_items_total", "counter", ("signal",),
           "Spans, data points and log records acknowledged"),
    Metric("millicent_receiver_rejected_calls_total", "counter", (),
           "Calls in plain JSON that were answered as not right"),
    Metric("millicent_receiver_in_flight_bytes", "gauge", (),
           "Body bytes held by requests that are not answered yet"),
    Metric("millicent_spool_sync_seconds", "histogram", (),
           "Time of one fdatasync, which answers all requests that waited for it", SYNC_SECONDS),
    Metric("millicent_spool_records_total", "counter", (),
           "Records synced to the spool"),
    Metric("millicent_spool_written_bytes_total", "counter", (),
           "Bytes synced to the spool"),
    Metric("millicent_spool_spans", "gauge", (),
           "Spans, data points and log records in all records since the spool began"),
)
# fmt: on


class Telemetry:
    """The metrics of one process, in a registry of their own.

    Args:
        metrics: The rows to register.
    """

    def __init__(self, metrics: tuple[Metric, ...] = METRICS) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for row in metrics:
            if row.kind == "counter":
                self._counters[row.name] = Counter(row.name, row.help, row.labels, registry=self._registry)
            elif row.kind == "gauge":
                self._gauges[row.name] = Gauge(row.name, row.help, row.labels, registry=self._registry)
            else:
                self._histograms[row.name] = Histogram(
                    row.name, row.help, row.labels, buckets=row.buckets, registry=self._registry
                )
        self._series: dict[tuple[str, ...], Counter] = {}  # finding a labelled counter costs more than counting

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Count; labels in the order of the table."""
        series = self._series.get((name, *labels))
        if series is None:
            counter = self._counters[name]
            series = self._series[name, *labels] = counter.labels(*labels) if labels else counter
        series.inc(amount)

    def observe(self, name: str, value: float) -> None:
        """Add one observation to a histogram."""
        self._histograms[name].observe(value)

    def watch(self, name: str, value: Callable[[], float]) -> None:
        """Ask for a gauge's value whenever it is read."""
        self._gauges[name].set_function(value)

    def synced(self, records: int, size: int, seconds: float) -> None:
        """Count one group commit: the spool's `on_commit`."""
        self.observe("millicent_spool_sync_seconds", seconds)
        self.add("millicent_spool_records_total", records)
        self.add("millicent_spool_written_bytes_total", size)

    def text(self) -> bytes:
        """All of it in the Prometheus text format, as `CONTENT_TYPE`."""
        return generate_latest(self._registry)
