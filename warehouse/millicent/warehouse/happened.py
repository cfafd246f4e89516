"""What is known of hours of own hardware: when calls ran, which tokens they had, and what meters told.

One statement per kind of evidence reads all hours of a batch; what comes out is a value per pool and hour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import polars as pl
import pyarrow as pa
from sqlalchemy import BigInteger, ColumnElement, Table, cast, column, func, select, table

from millicent.pricing import catalog
from millicent.pricing.allocation import EngineTokens, Tokens
from millicent.pricing.meters import engine_tokens
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.engine import Transaction
from millicent.warehouse.ledger import LONGEST_CALL, MILLISECOND
from millicent.warehouse.plan import HOUR, Span
from millicent.warehouse.tables import METERED, calls, meter_hours, usage_hourly, without_zone

HOUR_MS: Final = HOUR // MILLISECOND
ENERGY: Final = ("dcgm", "nvml")
"""Meters of accelerators, the one to be believed first; all others are engines."""
LAG_MS: Final = 90_000
"""Meters of the running hour may be so late without anything being unobserved."""
COVERED: Final = Decimal("0.95")
"""Counters that were read across this share of the time tell of all of it."""
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class PoolHour(NamedTuple):
    """An hour of a span; `hour` is aware, UTC."""

    span: Span
    hour: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    """What meters of one deployment told of one hour: `METERED` summed by source and role, None where untold."""

    rows: Mapping[tuple[str, str | None], Mapping[str, int | None]] = field(default_factory=dict)

    def by_role(self, *columns: str, energy: str | None = None) -> dict[str | None, list[_Told]]:
        """What engines (or one meter of energy) tell in any of `columns`, by role."""
        found: dict[str | None, list[_Told]] = defaultdict(list)
        for (source, role), row in self.rows.items():
            asked = source == energy if energy else source not in ENERGY
            if asked and any(row[name] is not None for name in columns):
                found[role].append(_Told(source, row))
        return found

    def counted(self, elapsed_ms: int) -> EngineTokens | None:
        """Tokens by the engine's own counters; None where those do not tell of the elapsed time.

        Where prefill and decode are apart, what goes in is counted by the one and what comes out by the other; unless
        a frontend counts for both.
        """
        found = self.by_role("prompt_tokens", "output_tokens")
        both = found.get(None)
        if both:
            found = {None: both}
        if not _read_through(found, elapsed_ms):
            return None
        into, out = both or found.get("prefill", []), both or found.get("decode", [])
        prompt, cached = _sum(into, "prompt_tokens"), _sum(into, "cached_tokens")
        generated = _sum(out, "output_tokens")
        longest = max(into or out, key=lambda one: (one.row["counted_ms"] or 0, one.source))
        try:
            engine = catalog.engine(longest.source)
        except LookupError:  # the catalog had it when it was read
            return EngineTokens(input=prompt, cached_input=cached, output=generated)
        return engine_tokens(engine, prompt=prompt, cached=cached, generated=generated)

    def phases(self, elapsed_ms: int) -> tuple[int, int] | None:
        """Microseconds of prefill and of decode of all requests; None where they do not tell of the elapsed time."""
        found = self.by_role("prefill_us", "decode_us")
        told = [one for several in found.values() for one in several]
        prefill, decode = _sum(told, "prefill_us"), _sum(told, "decode_us")
        if prefill is None or decode is None or not _read_through(found, elapsed_ms):
            return None
        return prefill, decode

    def joules(self, elapsed_ms: int) -> tuple[int, Decimal] | None:
        """What the accelerators drew by the best meter that tells of the elapsed time, and how good that is."""
        for place, source in enumerate(ENERGY):
            found = self.by_role("millijoules", energy=source)
            if _read_through(found, elapsed_ms):
                drawn = sum(_sum(several, "millijoules") or 0 for several in found.values())
                return place, Decimal(drawn) / 1000
        return None


class _Told(NamedTuple):
    source: str
    row: Mapping[str, int | None]


def _sum(told: Iterable[_Told], column: str) -> int | None:
    known = [value for one in told if (value := one.row[column]) is not None]
    return sum(known) if known else None


def _read_through(found: Mapping[str | None, list[_Told]], elapsed_ms: int) -> bool:
    """Whether counters of every role were read across the elapsed time."""
    counted = [_sum(told, "counted_ms") or 0 for told in found.values()]
    return bool(counted) and 0 < elapsed_ms <= min(counted) / COVERED


NO_METERS: Final = Meters()
NO_TOKENS: Final = Tokens()


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What is known of one hour of a pool. By deployment; what is not there is nothing.

    Attributes:
        busy_ms: With at least one call running, on any of its deployments.
        seen: Tokens of calls, by deployment and team; None is the team of calls without one.
        before: Tokens of calls of the hour before, by deployment.
        meters: What meters told.
        meters_before: What they told of the hour before.
    """

    busy_ms: int = 0
    seen: Mapping[str, Mapping[str | None, Tokens]] = field(default_factory=dict)
    before: Mapping[str, Tokens] = field(default_factory=dict)
    meters: Mapping[str, Meters] = field(default_factory=dict)
    meters_before: Mapping[str, Meters] = field(default_factory=dict)

    def counted(self, name: str, elapsed_ms: int) -> tuple[EngineTokens | None, EngineTokens | None]:
        """Tokens by the engine's own counters, and those of them that are not of calls of the hour before."""
        told = self.meters.get(name, NO_METERS).counted(elapsed_ms)
        before = self.meters_before.get(name, NO_METERS).counted(HOUR_MS)
        if told is None or before is None:
            return told, told
        return told, _without(told, self.before.get(name, NO_TOKENS), before)


def _without(counted: EngineTokens, seen: Tokens, before: EngineTokens) -> EngineTokens:
    """What an engine counted, without what it counted of calls that began in the hour before.

    Those are among the tokens that were seen then, more than it had counted by its end.
    """

    def rest(now: int | None, seen_then: int, then: int | None) -> int | None:
        return now if now is None or then is None else max(0, now - max(0, seen_then - then))

    return EngineTokens(
        input=rest(counted.input, seen.input, before.input),
        uncached_input=rest(counted.uncached_input, seen.uncached_input, before.uncached_input),
        cached_input=rest(counted.cached_input, seen.cached_input, before.cached_input),
        output=rest(counted.output, seen.output, before.output),
    )


def read(transaction: Transaction, hours: Sequence[PoolHour]) -> list[Happened]:
    """What is known of each of `hours`, in their order."""
    if not hours:
        return []
    names = pa.table({"name": sorted({name for span, _ in hours for name in span.names})})
    busy = _busy_ms(transaction, hours, names)
    tokens, meters = _tokens(transaction, hours, names), _meters(transaction, hours, names)
    found = []
    for row, (span, hour) in enumerate(hours):
        now = {name: (span.tenant, name, hour) for name in span.names}
        earlier = {name: (span.tenant, name, hour - HOUR) for name in span.names}
        happened = Happened(
            busy_ms=busy.get(row, 0),
            seen={name: tokens.get(key, {}) for name, key in now.items()},
            before={name: total(tokens.get(key, {}).values()) for name, key in earlier.items()},
            meters={name: meters[key] for name, key in now.items() if key in meters},
            meters_before={name: meters[key] for name, key in earlier.items() if key in meters},
        )
        found.append(happened)
    return found


def total(several: Iterable[Tokens]) -> Tokens:
    """All of them."""
    all_of = list(several)
    return Tokens(
        uncached_input=sum(one.uncached_input for one in all_of),
        cached_input=sum(one.cached_input for one in all_of),
        output=sum(one.output for one in all_of),
    )


_Key = tuple[str, str, datetime]


_NAMES: Final = table("names", column("name"))


def _within(rows: Table, hours: Sequence[PoolHour]) -> list[ColumnElement[bool]]:
    """Rows of those hours and of the one before each."""
    first, last = min(hour for _, hour in hours) - HOUR, max(hour for _, hour in hours)
    return [_named(rows), rows.c.hour >= without_zone(first), rows.c.hour <= without_zone(last)]


def _named(rows: Table) -> ColumnElement[bool]:
    return rows.c.deployment.in_(select(_NAMES.c.name))


def _busy_ms(transaction: Transaction, hours: Sequence[PoolHour], names: pa.Table) -> dict[int, int]:
    """Milliseconds of each hour in which at least one call ran on the pool, by place in `hours`."""
    first, last = min(hour for _, hour in hours), max(hour for _, hour in hours) + HOUR
    lasted = func.least(func.coalesce(calls.c.duration_ms, 0), LONGEST_CALL // MILLISECOND)
    asked = select(
        calls.c.tenant, calls.c.deployment,
        func.epoch_ms(calls.c.started_at).label("start"),
        (func.epoch_ms(calls.c.started_at) + lasted).label("end"),
    ).where(
        calls.c.counted,
        calls.c.signal != "metric",  # an interval of a metric says when it was read, not when anything ran
        _named(calls),
        calls.c.started_at >= without_zone(first - LONGEST_CALL), calls.c.started_at < without_zone(last),
    )  # fmt: skip
    served = pl.LazyFrame(
        [
            (row, span.tenant, name, (hour - _EPOCH) // HOUR)
            for row, (span, hour) in enumerate(hours)
            for name in span.names
        ],
        schema={"row": pl.Int64, "tenant": pl.String, "deployment": pl.String, "hour": pl.Int64},
        orient="row",
    )
    begins, ends = pl.col("start") // HOUR_MS, pl.col("end") // HOUR_MS
    pieces = (
        pl.LazyFrame(pl.from_arrow(transaction.read(asked, names=names)))
        .with_columns(hour=pl.int_ranges(begins, ends + 1))
        .explode("hour")
        .join(served, on=["tenant", "deployment", "hour"])
        .with_columns(
            start=pl.max_horizontal("start", pl.col("hour") * HOUR_MS),
            end=pl.min_horizontal("end", (pl.col("hour") + 1) * HOUR_MS),
        )
        .sort("start")
    )
    covered_to = pl.col("end").cum_max().shift(1).over("row")
    new = pl.col("end") - pl.max_horizontal("start", covered_to.fill_null(0))
    rows = pieces.with_columns(new=new.clip(0)).group_by("row").agg(pl.col("new").sum()).collect()
    return dict(rows.select("row", "new").iter_rows())


def _tokens(
    transaction: Transaction, hours: Sequence[PoolHour], names: pa.Table
) -> dict[_Key, dict[str | None, Tokens]]:
    """Tokens of calls on own hardware by team: weighed as their cost is, so that what they carry adds up."""
    u = usage_hourly.c
    by = (u.tenant, u.deployment, u.hour, u.team)
    counts = (
        cast(func.coalesce(func.sum(count), 0), BigInteger).label(count.name)
        for count in (u.input_tokens, u.cache_read_tokens, u.output_tokens)
    )
    asked = select(*by, *counts).where(u.billing == "self_hosted", *_within(usage_hourly, hours)).group_by(*by)
    found: dict[_Key, dict[str | None, Tokens]] = defaultdict(dict)
    for row in transaction.read(asked, names=names).to_pylist():
        tenant, name, hour, team, read, cached, written = row.values()
        found[tenant, name, hour][team] = Tokens(uncached_input=read - cached, cached_input=cached, output=written)
    return found


def _meters(transaction: Transaction, hours: Sequence[PoolHour], names: pa.Table) -> dict[_Key, Meters]:
    m = meter_hours.c
    by = (m.tenant, m.deployment, m.hour, m.source, m.role)
    sums = (cast(func.sum(m[name]), BigInteger).label(name) for name in METERED)
    asked = select(*by, *sums).where(*_within(meter_hours, hours)).group_by(*by)
    rows: dict[_Key, dict[tuple[str, str | None], dict[str, Any]]] = defaultdict(dict)
    for row in transaction.read(asked, names=names).to_pylist():
        key = (row["tenant"], row["deployment"], row["hour"])
        rows[key][row["source"], row["role"]] = {name: row[name] for name in METERED}
    return {key: Meters(rows=told) for key, told in rows.items()}


# ---- what it says of time and energy


class Time(NamedTuple):
    """Milliseconds of one hour of a pool; of its prefill and decode accelerators where those are apart."""

    elapsed: int
    busy: int
    unavailable: int
    unobserved: int
    prefill: int | None
    decode: int | None
    source: str

    def accelerator_ms(self, one: Deployment) -> int:
        """Milliseconds of its accelerators in which requests ran."""
        if one.prefill_count is None or one.decode_count is None:
            return one.accelerator_count * self.busy
        told = (self.busy if ms is None else ms for ms in (self.prefill, self.decode))
        return sum(count * ms for count, ms in zip((one.prefill_count, one.decode_count), told, strict=True))


def passed(one: Deployment, happened: Happened, elapsed: int) -> Time:
    """By engines' meters where any was read, and never less than calls ran; else by calls alone.

    Nobody saw the time between readings that is missing in an hour, unless reading began in that hour: before, there
    was nothing to miss.
    """
    states = [_states(meters) for meters in happened.meters.values()]
    metered = [of for of in states if any(state.observed for state in of.values())]
    if not metered:
        return Time(elapsed, min(happened.busy_ms, elapsed), 0, 0, None, None, "calls")
    every = [state for of in metered for state in of.values()]
    unavailable = min(elapsed, *(state.unavailable for state in every))
    busy = max(happened.busy_ms, *(state.busy for state in every))
    busy = min(busy, elapsed - unavailable)
    missing = max(0, elapsed - max(state.observed for state in every))
    if not _watched(happened.meters_before) or (elapsed < HOUR_MS and missing <= LAG_MS):
        missing = 0
    unobserved = min(missing, elapsed - unavailable - busy)

    def apart(role: str) -> int | None:
        told = [of[role].busy for of in metered if role in of]
        return min(max(told), elapsed - unavailable - unobserved) if told and one.prefill_count is not None else None

    return Time(elapsed, busy, unavailable, unobserved, apart("prefill"), apart("decode"), "engine")


def _watched(meters: Mapping[str, Meters]) -> bool:
    return any(state.observed for told in meters.values() for state in _states(told).values())


class _State(NamedTuple):
    """Milliseconds that something was seen, ran, or could not run."""

    observed: int
    busy: int
    unavailable: int


def _states(meters: Meters) -> dict[str | None, _State]:
    found = meters.by_role("observed_ms")
    columns = ("observed_ms", "busy_ms", "unavailable_ms")
    return {role: _State(*(_sum(told, name) or 0 for name in columns)) for role, told in found.items()}


def drawn(happened: Happened, elapsed_ms: int) -> Decimal | None:
    """Joules by meters of the accelerators; deployments on a pool meter the same ones."""
    told = [found for meters in happened.meters.values() if (found := meters.joules(elapsed_ms))]
    best = min((place for place, _ in told), default=0)
    return max((joules for place, joules in told if place == best), default=None)
