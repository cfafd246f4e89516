"""This process's own telemetry in Prometheus text: what is in the books, how far behind, how well, what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from millicent.collector.forwarding import Forwarder
from millicent.collector.loader import Loader
from millicent.collector.scraping import Scraper
from millicent.collector.spool import SpoolReader
from millicent.dashboard import access
from millicent.dashboard.spend_telemetry import Spend
from millicent.warehouse import delivery_log, ledger
from millicent.warehouse.outbox import State
from millicent.warehouse.store import Warehouse

MOST_REASONS: Final = 100


class Telemetry(Collector):
    """Reads everything when it is asked, costs up to 15 s before, so that no figure here can differ from the books."""

    def __init__(
        self, warehouse: Warehouse, spool: SpoolReader, loader: Loader, forwarder: Forwarder | None = None,
        scraper: Scraper | None = None,
    ) -> None:  # fmt: skip
        self._forwarder = forwarder
        self._scraper = scraper
        self._spend = Spend(warehouse)
        self._warehouse = warehouse
        self._spool = spool
        self._loader = loader
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> str:
        """All metrics in the text exposition format."""
        return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        pending_spans, pending_bytes = self._spool.pending(self._loader.position)
        spans = CounterMetricFamily("millicent_spans", "Spans by what became of them", labels=("outcome", "reason"))
        for outcome, reason, count in ledger.reasons(self._warehouse.engine)[:MOST_REASONS]:
            spans.add_metric((outcome, reason), count)
        yield spans
        yield CounterMetricFamily("millicent_spans_received", "Spans acknowledged", self._spool.total_spans())
        yield GaugeMetricFamily("millicent_spool_pending_spans", "Spans acknowledged, not loaded yet", pending_spans)
        yield GaugeMetricFamily("millicent_spool_pending_bytes", "Bytes acknowledged, not loaded yet", pending_bytes)
        progress = self._loader.progress
        yield CounterMetricFamily("millicent_loader_batches", "Batches committed since the start", progress.batches)
        yield CounterMetricFamily("millicent_loader_calls", "Calls stored since the start", progress.calls)
        yield CounterMetricFamily("millicent_loader_failures", "Loads that failed and were repeated", progress.failures)
        yield GaugeMetricFamily(
            "millicent_loader_batch_seconds", "Time of the last batch", progress.last_batch_ms / 1000
        )
        through = self._warehouse.complete_through
        behind = (datetime.now(UTC) - through).total_seconds() if through else 0.0
        yield GaugeMetricFamily("millicent_behind_seconds", "Age of the newest instant that is complete", behind)
        size = self._warehouse.engine.facts()["bytes"]
        yield GaugeMetricFamily("millicent_store_bytes", "Size of the database file", size)
        yield from self._forwarded()
        yield from self._scraped()
        yield from self._delivered()
        yield from self._spend.collect(_tenant())

    def _forwarded(self) -> Iterator[Metric]:
        """What became of spans on their way to another back end; nothing but names where none is set."""
        forwarder = self._forwarder
        sent = CounterMetricFamily("millicent_forwarded_spans", "Spans that the other back end took")
        dropped = CounterMetricFamily(
            "millicent_forward_dropped_spans", "Spans that were not sent on, by reason", labels=("reason",)
        )
        failed = CounterMetricFamily("millicent_forward_failures", "Requests to it that failed, since the start")
        pending = GaugeMetricFamily(
            "millicent_forward_pending_spans", "Spans, data points and log records not looked at for it yet"
        )
        if forwarder is not None:
            sent.add_metric((), forwarder.progress.forwarded)
            for reason, spans in sorted(forwarder.progress.dropped.items()):
                dropped.add_metric((reason,), spans)
            failed.add_metric((), forwarder.failures)
            pending.add_metric((), forwarder.pending())
        yield from (sent, dropped, failed, pending)

    def _scraped(self) -> Iterator[Metric]:
        """How reading the counters of engines and accelerators goes."""
        scrapes = CounterMetricFamily("millicent_scrapes", "Looks at counters of declared deployments, since the start")
        failed = CounterMetricFamily(
            "millicent_scrape_failures", "Looks that told nothing, or not all, by reason", labels=("reason",)
        )
        targets = GaugeMetricFamily(
            "millicent_scrape_targets", "Engines and exporters by how the last look went", labels=("outcome",)
        )
        if self._scraper is not None:
            scrapes.add_metric((), self._scraper.scrapes)
            for reason, count in sorted(self._scraper.failures.items()):
                failed.add_metric((reason,), count)
            for outcome, count in sorted(self._scraper.targets.items()):
                targets.add_metric((outcome,), count)
        yield from (scrapes, failed, targets)

    def _delivered(self) -> Iterator[Metric]:
        """Whether alerts arrive."""
        totals = delivery_log.totals(self._warehouse.control)
        states = GaugeMetricFamily("millicent_alert_deliveries", "Alerts by what became of them", labels=("state",))
        for state in get_args(State):
            states.add_metric((state,), totals.by_state.get(state, 0))
        tried = CounterMetricFamily("millicent_alert_attempts", "Attempts to deliver one", labels=("outcome",))
        for outcome in ("arrived", "failed"):
            tried.add_metric((outcome,), totals.attempts.get(outcome, 0))
        oldest = totals.oldest_pending_at
        age = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        yield from (
            states,
            tried,
            GaugeMetricFamily("millicent_alert_oldest_pending_seconds", "Age of the oldest one that waits", age),
        )


def _tenant() -> str | None:
    """Whoever scrapes; None outside a request."""
    try:
        return access.principal().tenant
    except LookupError:
        return None
