"""What calls cost, for Prometheus: few series, read from the books, and counters that only grow.

A counter begins at 0 with the process, as every counter does, and counts what has been added to the books since. Costs
in the books may fall, too, when a price is corrected or an hour is rated otherwise; a counter then stands still until
they have caught up, because falling would tell Prometheus that everything was spent again. Gauges tell the books
themselves. Whatever has a name beyond the first so many goes under `__other__`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from millicent.warehouse import standings
from millicent.warehouse.query import Period, Query
from millicent.warehouse.standings import Standing
from millicent.warehouse.store import Warehouse

KEPT_S: Final = 15.0
"""How old what is told may be: a scrape costs a few questions, at most so often."""
MOST: Final = {"team": 30, "model": 30, "accelerator": 15, "environment": 8, "cost_type": 10}
"""Names that a label takes; those with most spend come first, then those that come first, and they keep their place."""
MOST_SERIES: Final = 2000
MOST_BUDGETS: Final = 100
OTHER, UNKNOWN = "__other__", "__unknown__"
USES: Final = ("busy", "idle", "unavailable", "untracked")
_KEYS: Final = ("team", "model", "accelerator", "environment", "cost_type")
_SUMS: Final = ("spend_usd", "calls", "unpriced_calls", "input_tokens", "cache_read_tokens", "output_tokens")
_USE_OF: Final = {"busy": "hardware_cost_usd"} | {use: f"{use}_cost_usd" for use in USES[1:]}
_DAY: Final = timedelta(days=1)

Labels = tuple[str, ...]


@dataclass(slots=True)
class _Counter:
    """What is told of series that only grow, and what the books had when they began."""

    base: dict[Labels, Decimal] = field(default_factory=dict)
    told: dict[Labels, Decimal] = field(default_factory=dict)

    def move(self, books: dict[Labels, Decimal], *, first: bool) -> None:
        """Follow the books upwards; `first` takes what they have for the beginning."""
        if first:
            self.base = books
        for labels in self.base.keys() | books.keys():
            grown = books.get(labels, Decimal(0)) - self.base.get(labels, Decimal(0))
            self.told[labels] = max(self.told.get(labels, Decimal(0)), grown)


@dataclass(slots=True)
class _Told:
    """What one tenant's series are, and when they were read."""

    since: datetime
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    series: set[Labels] = field(default_factory=set)
    counters: dict[str, _Counter] = field(default_factory=lambda: defaultdict(_Counter))
    families: list[Metric] = field(default_factory=list)
    read_at: float | None = None
    lock: Lock = field(default_factory=Lock)


class Spend:
    """Costs, tokens, own hardware and budgets of whoever scrapes.

    Args:
        warehouse: what is asked.
        clock: tells the present, in UTC.
    """

    def __init__(self, warehouse: Warehouse, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._warehouse = warehouse
        self._clock = clock
        self._lock = Lock()
        self._of: dict[str, _Told] = {}

    def collect(self, tenant: str | None) -> Iterator[Metric]:
        """All families of a tenant; without one their names alone."""
        if tenant is None:
            yield from _families().values()
            return
        with self._lock:
            told = self._of.setdefault(tenant, _Told(_midnight(self._clock()) - _DAY))
        with told.lock:
            if told.read_at is None or time.monotonic() - told.read_at >= KEPT_S:
                told.families = self._read(tenant, told)
                told.read_at = time.monotonic()
            yield from told.families

    def _read(self, tenant: str, told: _Told) -> list[Metric]:
        now = self._clock()
        hour_ends = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        families = _families()
        self._grow(tenant, told, Period(told.since, hour_ends))
        for name, counter in told.counters.items():
            for labels, value in sorted(counter.told.items()):
                families[name].add_metric(labels, float(value))
        month = Period(_midnight(now).replace(day=1), hour_ends)
        for team, cost_type, usd in self._rows(tenant, ("spend_usd",), ("team", "cost_type"), month, told):
            families["millicent_month_cost_usd"].add_metric((team, cost_type), usd)
        self._own_hardware(tenant, told, Period(hour_ends - _DAY, hour_ends), families)
        for labels, ratio in self._budgets(tenant, now):
            families["millicent_budget_ratio"].add_metric(labels, ratio)
        return list(families.values())

    def _grow(self, tenant: str, told: _Told, period: Period) -> None:
        """Move the counters to what the books have of the days since the process began."""
        books = defaultdict[str, defaultdict[Labels, Decimal]](lambda: defaultdict(Decimal))
        for *keys, usd, calls, unpriced, read, cached, written in self._rows(tenant, _SUMS, _KEYS, period, told):
            labels = self._series(told, tuple(keys))
            called = labels[:4]
            books["millicent_cost_usd"][labels] += Decimal(usd)
            books["millicent_calls"][called] += calls
            books["millicent_unpriced_calls"][called] += unpriced
            kinds = {"uncached_input": read - cached, "cached_input": cached, "output": written}
            for kind, tokens in kinds.items():
                books["millicent_tokens"][*called, kind] += tokens
        first = told.read_at is None
        for name in ("millicent_cost_usd", "millicent_calls", "millicent_unpriced_calls", "millicent_tokens"):
            told.counters[name].move(dict(books[name]), first=first)

    def _series(self, told: _Told, labels: Labels) -> Labels:
        """The labels, if there is still room for them, else those of all others of the same cost type."""
        if labels not in told.series and len(told.series) >= MOST_SERIES:
            return (*[OTHER] * 4, labels[-1])
        told.series.add(labels)
        return labels

    def _own_hardware(self, tenant: str, told: _Told, period: Period, families: dict[str, Any]) -> None:
        by = ("accelerator", "model")
        costs = tuple(_USE_OF.values())
        for accelerator, model, *amounts in self._rows(tenant, costs, by, period, told, hardware=True):
            for use, usd in zip(USES, amounts, strict=True):
                families["millicent_own_hardware_usd"].add_metric((accelerator, model, use), usd)
        hours = ("accelerator_hours", "busy_accelerator_hours")
        for accelerator, model, paid, busy in self._rows(tenant, hours, by, period, told, hardware=True):
            for use, part in (("busy", busy), ("not_busy", paid - busy)):
                families["millicent_own_accelerator_hours"].add_metric((accelerator, model, use), part)

    def _rows(
        self, tenant: str, measures: tuple[str, ...], by: tuple[str, ...], period: Period, told: _Told,
        *, hardware: bool = False,
    ) -> Iterable[tuple[Any, ...]]:  # fmt: skip
        """Labels and sums, most spend first; names beyond the most that a label takes are added up."""
        asked = self._warehouse.ask(tenant, Query(measures=measures, dimensions=by, period=period)).frame
        sums = defaultdict[Labels, list[Any]](lambda: [0] * len(measures))
        for row in asked.iter_rows():
            amounts = row[len(by) :]
            if hardware and not any(amounts):
                continue
            labels = tuple(_named(told, name, value) for name, value in zip(by, row[: len(by)], strict=True))
            sums[labels] = [was + (more or 0) for was, more in zip(sums[labels], amounts, strict=True)]
        return ((*labels, *amounts) for labels, amounts in sums.items())

    def _budgets(self, tenant: str, now: datetime) -> Iterator[tuple[Labels, float]]:
        """How much of each budget its period has used so far."""
        for one in standings.live_standings(self._warehouse, tenant, now)[:MOST_BUDGETS]:
            if isinstance(one, Standing):  # else a rate of its currency is missing
                ratio = float("inf") if one.ratio is None else float(one.ratio)  # earlier periods left nothing of it
                yield (one.budget.name, one.budget.period), ratio


def _families() -> dict[str, Any]:
    called = ("team", "model", "accelerator", "environment")
    use = ("accelerator", "model", "use")
    return {
        "millicent_cost_usd": CounterMetricFamily(
            "millicent_cost_usd",
            "What was spent since the start, billed API and own hardware with idle; corrections downwards are not told",
            labels=(*called, "cost_type"),
        ),
        "millicent_tokens": CounterMetricFamily(
            "millicent_tokens",
            "Tokens since the start; of calls on own hardware and by API, each token once",
            labels=(*called, "kind"),
        ),
        "millicent_calls": CounterMetricFamily("millicent_calls", "Calls that count, since the start", labels=called),
        "millicent_unpriced_calls": CounterMetricFamily(
            "millicent_unpriced_calls",
            "Of those, calls whose price is unknown or partly unknown, so that the cost leaves them out",
            labels=called,
        ),
        "millicent_month_cost_usd": GaugeMetricFamily(
            "millicent_month_cost_usd",
            "Spend of this month so far (UTC), as the books have it now, corrections included",
            labels=("team", "cost_type"),
        ),
        "millicent_own_hardware_usd": GaugeMetricFamily(
            "millicent_own_hardware_usd",
            "What own accelerators cost in the last 24 hours, by what they did; all uses are the whole",
            labels=use,
        ),
        "millicent_own_accelerator_hours": GaugeMetricFamily(
            "millicent_own_accelerator_hours",
            "Hours of own accelerators paid for in the last 24 hours, with a request running (busy) or none (not_busy)",
            labels=use,
        ),
        "millicent_budget_ratio": GaugeMetricFamily(
            "millicent_budget_ratio",
            "Spend over budget in its current period; 1 is all of it",
            labels=("budget", "period"),
        ),
    }


def _named(told: _Told, label: str, value: str | None) -> str:
    """The value as a label's, if the label has still room for it."""
    if value is None:
        return UNKNOWN
    names = told.names[label]
    if value not in names and len(names) >= MOST[label]:
        return OTHER
    names.add(value)
    return value


def _midnight(instant: datetime) -> datetime:
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)
