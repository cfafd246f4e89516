"""The warehouse as everybody above it sees it: one object, opened once, asked from any thread."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import polars as pl
from sqlalchemy import select

from millicent.warehouse import beside, calls, capacity, explain, ledger, query
from millicent.warehouse.answers import Answers, Memory
from millicent.warehouse.control import Control, tenants
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.engine import Engine
from millicent.warehouse.explain import Line
from millicent.warehouse.instants import midnight
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Answer, BadQuery, Filter, Period, Query
from millicent.warehouse.reach import Reach
from millicent.warehouse.record import CHARGE, IDLE
from millicent.warehouse.repricings import ClosedPeriod
from millicent.warehouse.tables import deployment_hours, usage_hourly, without_zone
from millicent.warehouse.workspace import preferences, zone

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

MOST_VALUES: Final = 500
BEFOREHAND: Final = timedelta(days=63)
"""How far back pages look at first: four weeks, those before, and what a trend needs."""
MIDDLING, OF_A_CALL = 20_000, 8_000
"""Bytes that are counted for an answer whose size nobody tells, and for a call with all its columns."""


class Warehouse:
    """Facts, control plane and price books of one installation.

    Attributes:
        engine: the facts; written by the loader and the jobs alone.
        control: keys, sessions, deployments, price entries.
        prices: the price books, by tenant.
        writing: held by whoever reads calls to change them, until the change is committed.
        reach: what endpoints of alerts may reach.
        complete_through: every call acknowledged before this instant (UTC) can be asked for; the loader moves it.
    """

    def __init__(self, engine: Engine, control: Control, prices: Prices, reach: Reach | None = None) -> None:
        self.engine = engine
        self.control = control
        self.prices = prices
        self.reach = reach or Reach()
        self.writing = threading.Lock()
        self.complete_through: datetime | None = None
        self._memory = Memory(engine.revisions)
        self._answers = Answers(self._memory, partial(query.run, engine))

    @classmethod
    def embedded(cls, directory: Path, *, memory_limit: str = "1GB", reach: Reach | None = None) -> Warehouse:
        """Open, or make, the warehouse in `directory`; `memory_limit` as DuckDB writes it.

        Raises:
            EngineError: another process owns it.
        """
        engine, control = Embedded(directory, memory_limit=memory_limit), Control(directory)
        return cls(engine, control, Prices(control), reach)

    @property
    def price_version(self) -> str:
        """Version of the bundled prices in force."""
        return self.prices.base().version

    def ask(self, tenant: str, question: Query) -> Answer:
        """Answer a query; see `millicent.warehouse.query.run`. What was answered is remembered while it is true.

        Amounts in another currency than USD are by the rates of the tenant's price book, or those of the question.
        """
        if question.currency != "USD" and not question.rates:
            question = replace(question, rates=self.prices.rates(tenant, question.currency))
        return self._answers.ask(tenant, question)

    def prepare(self, now: datetime) -> int:
        """Have at hand what pages ask first: some weeks, as each workspace looks at them. Tells how many have calls.

        Costs next to nothing while nothing has changed.
        """
        with self.control.begin() as connection:
            found = connection.execute(select(tenants.c.id)).scalars().all()
        asked = [tenant for tenant in found if self.has_calls(tenant)]
        for tenant in asked:
            liked = preferences(self.control, tenant)
            place = zone(liked.time_zone)
            start = midnight((now - BEFOREHAND).astimezone(place).date(), place)
            end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            usual = Query(measures=("spend_usd",), period=Period(start, end), time_zone=liked.time_zone)
            with suppress(BadQuery):  # no rate holds throughout: pages tell USD then
                self.ask(tenant, replace(usual, currency=liked.currency))
        return len(asked)

    def remembered(self, key: Hashable, period: Period, ask: Callable[[], T], size: int = MIDDLING) -> T:
        """What `ask` reads of the facts of a period; see `Memory.once`. Let nobody change the answer.

        Args:
            key: everything else that it depends on, the tenant first.
            period: whose facts it is made of.
            ask: reads.
            size: bytes that the answer takes, about.
        """
        return self._memory.once(key, period, ask, lambda _: size)

    def find(self, tenant: str, search: calls.Search) -> tuple[list[dict[str, Any]], str | None]:
        """Single calls; see `millicent.warehouse.calls.find`. Those of a period are remembered while they are true."""
        if search.period is None:
            return calls.find(self.engine, tenant, search)
        key = (tenant, "calls", replace(search, filters=tuple(search.filters)))
        size = (search.limit + 1) * OF_A_CALL
        rows, following = self.remembered(key, search.period, lambda: calls.find(self.engine, tenant, search), size)
        return [dict(row) for row in rows], following

    def explain(self, tenant: str, call: dict[str, Any]) -> list[Line]:
        """How the amounts of a call came about; see `millicent.warehouse.explain.lines`."""
        return explain.lines(self.engine, self.prices, tenant, call)

    def hours(
        self, tenant: str, period: Period, deployment: str | None = None, columns: tuple[str, ...] = ()
    ) -> pl.DataFrame:
        """Deployment-hours that are in `period`, at least in part, by hour and deployment; columns as they are stored.

        `deployment` keeps those of one deployment, or of one reservation; `columns` are all where none is named.
        """
        c = deployment_hours.c
        begun, ended = without_zone(period.start) - beside.HOUR, without_zone(period.end)
        read: list[Any] = [c[name] for name in columns] or [deployment_hours]
        asked = select(*read).where(c.tenant == tenant, c.hour > begun, c.hour < ended)
        if deployment is not None:
            asked = asked.where(c.deployment == deployment)

        def read_them() -> pl.DataFrame:
            return pl.DataFrame(pl.from_arrow(self.engine.read(asked.order_by(c.hour, c.deployment))))

        key = (tenant, "hours", period, deployment, columns)
        return self._memory.once(key, period, read_them, lambda frame: int(frame.estimated_size())).clone()

    def explain_hour(self, tenant: str, deployment: str, hour: datetime) -> list[Line]:
        """How a deployment-hour came about; see `millicent.warehouse.explain.hour_lines`."""
        return explain.hour_lines(self.engine, tenant, deployment, hour)

    def values(self, tenant: str, dimension: str, period: Period, filters: tuple[Filter, ...] = ()) -> list[str | None]:
        """Values of a dimension over a period, most spend first; None stands for calls where it is unknown."""
        question = Query(
            measures=("spend_usd",), dimensions=(dimension,), period=period, filters=filters, limit=MOST_VALUES
        )
        found = self.ask(tenant, question).frame[dimension].to_list()
        return [value for value in found if value not in {IDLE, CHARGE}]

    def close_period(self, tenant: str, start: datetime, end: datetime, actor: str = "operator") -> ClosedPeriod:
        """Close a period once own hardware is computed as far as calls are stored; see `Control.close_period`.

        A batch or a day that is being written is written first.

        Raises:
            ValueError: the period cannot be closed.
            EngineError: what is outstanding could not be computed; nothing is closed.
        """
        with self.writing:
            capacity.refresh(self.engine, self.control, datetime.now(UTC))
            with self.engine.write():  # no job is in the middle of an hour of it
                return self.control.close_period(tenant, start, end, actor)

    def has_calls(self, tenant: str) -> bool:
        """Whether any call of the tenant was ever stored."""
        one = select(usage_hourly.c.calls).where(usage_hourly.c.tenant == tenant).limit(1)
        return bool(self.engine.read(one).num_rows)

    def freshness(self, tenant: str) -> datetime | None:
        """Instant through which the tenant's calls are complete; None before its first call."""
        return (self.complete_through or datetime.now(UTC)) if self.has_calls(tenant) else None

    def reasons(self) -> list[tuple[str, str, int]]:
        """(outcome, reason, spans) of every span ever received; see `millicent.warehouse.ledger.reasons`."""
        return ledger.reasons(self.engine)

    def close(self) -> None:
        """Close engine and control plane."""
        self.engine.close()
        self.control.close()
