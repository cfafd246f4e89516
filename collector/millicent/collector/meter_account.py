"""Readings of many targets become what meters tell of hours: counted once, whoever restarts when.

An account is told the outcome of each round of looks, all at one instant, and gives what is new by hour together with
the last reading of every counter; both are to be stored at once. An account that is opened on what was stored goes on
from there. Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import polars as pl

from millicent.collector.meter_reading import TOKENS, Counted
from millicent.pricing import meters
from millicent.warehouse.metered import HOURS, KEY, SERIES
from millicent.warehouse.tables import METERED

UNAVAILABLE: Final = "unavailable"
BOARDS: Final = "dcgm"
"""The source of accelerators' energy; Triton has it from there, too."""
ENERGY: Final = "millijoules"
ANSWERS: Final = "answers"
"""A state of engines without a gauge of requests: busy if they served tokens since the last look, else idle."""
UNKNOWN: Final = "unknown"
FORGET: Final = timedelta(hours=1)
"""Processes and accelerators that were not read for so long, while others of the same name were, are gone."""
FALLS: Final = 3
"""So many falls of a counter `WITHIN`, each between two looks that went well, are no restarts of one process."""
WITHIN: Final = timedelta(minutes=10)
OTHERS: Final = "nvml"
"""A source that is pushed to us; whoever takes it in goes on from its readings."""
_MILLISECOND: Final = 1000


class Target(NamedTuple):
    """One thing that is looked at: whose, in what role, and where."""

    tenant: str
    deployment: str
    role: str | None
    url: str


class Outcome(NamedTuple):
    """What a look at a target gave.

    Attributes:
        target: What was looked at.
        state: One of `meters.STATES`, or `ANSWERS`; None where nobody knows, or where states are not its business.
        source: Whose counters were read; None where none were.
        counters: What they say.
        started: When their process began, where it tells.
        complete: Whether nothing of them was left out.
        boards: Whether this is accelerators' energy: it has no states, and goes on while nobody can read it.
        named: What the source is called while it was never read.
    """

    target: Target
    state: str | None = None
    source: str | None = None
    counters: Sequence[Counted] = ()
    started: datetime | None = None
    complete: bool = True
    boards: bool = False
    named: str = "engine"


class _Whose(NamedTuple):
    """Rows of hours belong to it."""

    tenant: str
    deployment: str
    source: str
    role: str | None


class Account:
    """Counters and states of all targets.

    Args:
        series: The last readings that are stored, as `metered.SERIES`.
    """

    def __init__(self, series: pl.DataFrame) -> None:
        self._counters: dict[str, tuple[_Whose, str, str]] = {}
        self._values: dict[str, int] = {}
        self._starts: dict[str, set[datetime | None]] = defaultdict(set)
        self._seen: dict[str, datetime] = {}
        self._of: dict[tuple[Target, str], set[str]] = defaultdict(set)
        self._boards: dict[tuple[str, str], Target] = {}
        self._sources: dict[Target, set[str]] = defaultdict(set)
        self._deployed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._processes: dict[Target, set[datetime | None]] = defaultdict(set)
        self._falls: dict[Target, list[datetime]] = defaultdict(list)
        self._watched: dict[Target, datetime] = {}
        self._read: dict[tuple[Target, str], datetime] = {}
        self._through: dict[tuple[Target, str], datetime] = {}
        self._counted_to: dict[_Whose, datetime] = {}
        self._last: datetime | None = None
        self._states: list[tuple[Target, datetime, str]] = []
        self._named: dict[Target, str] = {}
        self._samples: list[tuple[str, datetime | None, datetime, int]] = []
        self._counted: list[tuple[_Whose, datetime, datetime]] = []
        self._pending = HOURS.to_frame()
        self._touched: set[str] = set()
        self._after = meters.SAMPLES.to_frame()
        self._restore(series)

    def _restore(self, series: pl.DataFrame) -> None:
        rows = []
        for row in series.filter(pl.col("source") != OTHERS).sort("read_at").iter_rows(named=True):
            whose = _Whose(row["tenant"], row["deployment"], row["source"], row["role"])
            target = Target(whose.tenant, whose.deployment, whose.role, row["series"].partition(" ")[0])
            ident = self._ident(whose, row["counter"], row["series"])
            at = row["read_at"]
            self._starts[ident].add(row["started"])
            self._values[ident], self._seen[ident] = row["value"], at
            self._of[target, whose.source].add(ident)
            self._note(target, whose.source)
            self._processes[target].add(row["started"])
            if row["counter"] == ENERGY:
                self._boards[whose.tenant, row["series"].partition(" ")[2]] = target
            self._watched[target] = self._read[target, whose.source] = self._through[target, whose.source] = at
            self._counted_to[whose] = at
            rows.append((ident, row["started"], at, row["value"]))
        self._after = pl.DataFrame(rows, schema=meters.SAMPLES, orient="row")

    def was_read(self, target: Target) -> bool:
        """Whether any counter of a target was ever read."""
        return target in self._sources

    def is_several(self, target: Target) -> bool:
        """Whether a target was found to be several processes that do not tell which of them answers."""
        return len(self._falls[target]) >= FALLS

    def sources(self, target: Target) -> set[str]:
        """Whose counters of the same deployment were ever read."""
        return self._deployed[target[:2]]

    def board_of(self, tenant: str, board: str) -> Target | None:
        """Where an accelerator's energy was read last; None if nowhere."""
        return self._boards.get((tenant, board))

    # ---- being told

    def look(self, at: datetime, outcomes: Sequence[Outcome]) -> None:
        """Take in what a round of looks gave, all at one instant (aware); one that is not after the last is let go."""
        at = at.replace(microsecond=at.microsecond // _MILLISECOND * _MILLISECOND)
        if self._last is not None and at <= self._last:
            return
        for one in outcomes:
            self._take(one, at)
        self._last = at
        self._cover(at, outcomes)

    def _take(self, one: Outcome, at: datetime) -> None:
        self._watched.setdefault(one.target, at)
        self._named[one.target] = one.named
        moved: bool | None = None
        if one.source is not None:
            moved = self._read_counters(one, one.source, at)
        state = one.state
        if state == ANSWERS:
            state = None if moved is None else "busy" if moved else "idle"
        if not one.boards:
            self._states.append((one.target, at, state or UNKNOWN))

    def _read_counters(self, one: Outcome, source: str, at: datetime) -> bool | None:
        """Whether tokens were served since the last look; None where no counter tells."""
        key = (one.target, source)
        whose = _Whose(one.target.tenant, one.target.deployment, source, one.target.role)
        before = self._read.get(key)
        moved: bool | None = None
        found, fell = set(), False
        is_new = one.started is not None and one.started not in self._processes[one.target]
        same = None if one.boards or is_new else before
        self._processes[one.target].add(one.started)
        for counter, series, value in one.counters:
            ident = self._ident(whose, counter, f"{one.target.url} {series}")
            started = self._start(ident, one.started, same)
            if counter in TOKENS:
                moved = bool(moved) or self._values.get(ident, value) != value
            fell |= one.started is None and value < self._values.get(ident, 0)
            if one.boards:
                self._boards[whose.tenant, series] = one.target
                if ident not in self._values:
                    self._counted_to[whose] = at
            self._starts[ident].add(started)
            self._values[ident], self._seen[ident] = value, at
            self._samples.append((ident, started, at, value))
            found.add(ident)
        if fell and not one.boards and before is not None and before == self._last:
            self._falls[one.target] = [*(fall for fall in self._falls[one.target] if at - fall < WITHIN), at]
        gone = {ident for ident in self._of[key] - found if at - self._seen[ident] < FORGET}
        self._of[key] |= found
        if one.complete and not (one.boards and gone):
            if before is None:
                fresh = one.started is not None and one.started >= self._watched[one.target]
                since = self._watched[one.target] if fresh else at
                self._counted_to[whose] = max(since, self._counted_to.get(whose, since))
            self._read[key] = self._through[key] = at
            self._note(one.target, source)
        return moved

    def _note(self, target: Target, source: str) -> None:
        self._sources[target].add(source)
        self._deployed[target[:2]].add(source)

    def _start(self, ident: str, told: datetime | None, before: datetime | None) -> datetime | None:
        """When a counter began: with its process, or, if that was there at the last look and it was not, since then.

        `before`: when that last look was; None where there was none at this process.
        """
        known = self._starts.get(ident)
        if known is None:
            return max(told, before) if told and before else told or before
        if told in known or before is None:
            return told
        return max((start for start in known if start and (told is None or start > told)), default=told)

    def _ident(self, whose: _Whose, counter: str, series: str) -> str:
        ident = "\x1f".join((whose.tenant, whose.deployment, whose.source, whose.role or "", counter, series))
        self._counters[ident] = (whose, counter, series)
        return ident

    def _cover(self, at: datetime, outcomes: Iterable[Outcome]) -> None:
        """Until when all counters of one kind are known: what does not run counts nothing, and the rest was read."""
        through: dict[_Whose, list[datetime]] = defaultdict(list)
        for one in outcomes:
            target = one.target
            for source in self._sources.get(target, ()):
                if one.state == UNAVAILABLE and source != BOARDS:
                    self._through[target, source] = at
                whose = _Whose(target.tenant, target.deployment, source, target.role)
                through[whose].append(self._through[target, source])
        for whose, ends in through.items():
            since, until = self._counted_to[whose], min(ends)
            if until > since:
                self._counted.append((whose, since, until))
                self._counted_to[whose] = until

    # ---- giving

    def take(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What is new since `stored`: hours and last readings, as `metered.HOURS` and `metered.SERIES`."""
        parts = [*self._counted_up(), self._time(), self._coverage()]
        self._pending = _summed([self._pending, *parts])
        mine = self._after.filter(pl.col("series").is_in(list(self._touched)))
        names = self._names(self._touched)
        series = mine.join(names, on="series").rename({"at": "read_at"}).drop("series").rename({"name": "series"})
        return self._pending, series.select(SERIES.names()).cast(SERIES)

    def stored(self) -> None:
        """What `take` gave last is stored."""
        self._pending = HOURS.to_frame()
        self._touched.clear()

    def is_stored(self, series: pl.DataFrame) -> bool:
        """Whether what `take` gave last is among the stored readings `series`."""
        stored = {
            (_Whose(row["tenant"], row["deployment"], row["source"], row["role"]), row["counter"], row["series"]): row
            for row in series.iter_rows(named=True)
        }
        return any(
            (row := stored.get(self._counters[ident])) is not None and row["read_at"] == self._seen[ident]
            for ident in self._touched
        )

    def _counted_up(self) -> Iterator[pl.DataFrame]:
        if not self._samples:
            return
        samples = pl.DataFrame(self._samples, schema=meters.SAMPLES, orient="row")
        self._samples = []
        touched = set(samples["series"].unique())
        names = self._names(touched)
        before = self._after
        rises = pl.concat(list(self._rises(samples.join(names.select("series", "watched"), on="series"))))
        self._after = self._kept(meters.latest(samples, before))
        self._touched |= touched
        told = meters.by_hour(rises).join(names, on="series")
        counters = told.group_by(*KEY, "counter").agg(pl.col("increase").sum())
        yield counters.pivot("counter", index=KEY, values="increase")
        yield told.group_by(KEY).agg(gap_ms=pl.col("gap_us").max() // _MILLISECOND)
        yield self._resets(rises.join(names, on="series"), before)

    def _rises(self, samples: pl.DataFrame) -> Iterator[pl.DataFrame]:
        for (watched,), part in samples.partition_by("watched", as_dict=True).items():
            assert isinstance(watched, datetime)  # noqa: S101 - for the type checker
            after = self._after.join(part.select("series").unique(), on="series", how="semi")
            yield meters.increases(part, after=after, watched_from=watched)

    def _kept(self, after: pl.DataFrame) -> pl.DataFrame:
        """Without processes whose place another one took long ago."""
        newest = pl.col("at").max().over("series")
        kept = after.filter(pl.col("at") >= newest - FORGET)
        for ident, started in after.join(kept, on=after.columns, how="anti").select("series", "started").iter_rows():
            self._starts[ident].discard(started)
        return kept

    def _resets(self, rises: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
        """How often processes began again."""
        known = before.select("series").unique().with_columns(known=pl.lit(value=True))
        again = rises.join(known, on="series", how="left").filter(
            (pl.col("how") == "reset") | ((pl.col("how") == "start") & pl.col("known"))
        )
        hour = pl.col("end").dt.truncate("1h").alias("hour")
        return again.group_by(*(hour if name == "hour" else name for name in KEY)).agg(
            resets=pl.struct("url", "end").n_unique().cast(pl.Int64)
        )

    def _time(self) -> pl.DataFrame:
        if not self._states:
            return HOURS.to_frame()
        whose = {target: _pool(self._owner(target)) for target, _, _ in self._states}
        rows = [("\x1f".join((*whose[target], target.url)), at, state) for target, at, state in self._states]
        held = meters.spans(pl.DataFrame(rows, schema=_STATES, orient="row"))
        last: dict[Target, tuple[Target, datetime, str]] = {target: row for row in self._states for target in [row[0]]}
        self._states = [row for row in last.values() if row[1] == self._last]
        pool = pl.col("series").str.replace(r"\x1f[^\x1f]*$", "").alias("pool")
        told = held.filter(pl.col("state") != UNKNOWN).select(pool, "start", "end", "state")
        return _by_pool(
            told,
            observed_ms=pl.sum_horizontal("busy_us", "idle_us", "unavailable_us"),
            busy_ms=pl.col("busy_us"),
            unavailable_ms=pl.col("unavailable_us"),
        )

    def _coverage(self) -> pl.DataFrame:
        rows = [("\x1f".join(_pool(whose)), since, until, "idle") for whose, since, until in self._counted]
        self._counted = []
        return _by_pool(pl.DataFrame(rows, schema=_TOLD, orient="row"), counted_ms=pl.col("idle_us"))

    def _owner(self, target: Target) -> _Whose:
        """Under which source the time of a target is told: one that was read of its deployment in the same role."""
        of = target[:3]
        read = {source for one, its in self._sources.items() if one[:3] == of for source in its if source != BOARDS}
        return _Whose(target.tenant, target.deployment, min(read, default=self._named[target]), target.role)

    def _names(self, idents: Iterable[str]) -> pl.DataFrame:
        """Whose counter each identity is, where it is read and since when that is looked at."""
        rows = []
        for ident in idents:
            whose, counter, series = self._counters[ident]
            url = series.partition(" ")[0]
            watched = self._watched[Target(whose.tenant, whose.deployment, whose.role, url)]
            rows.append((ident, *whose, counter, series, url, watched))
        return pl.DataFrame(rows, schema=_NAMES, orient="row")


_INSTANT: Final = HOURS["hour"]
_STATES: Final = pl.Schema([("series", pl.String), ("at", _INSTANT), ("state", pl.String)])
_TOLD: Final = pl.Schema([("pool", pl.String), ("start", _INSTANT), ("end", _INSTANT), ("state", pl.String)])
_NAMES: Final = pl.Schema(
    [*((name, pl.String) for name in ("series", *_Whose._fields, "counter", "name", "url")), ("watched", _INSTANT)]
)


def _pool(whose: _Whose) -> tuple[str, str, str, str]:
    return (whose.tenant, whose.deployment, whose.source, whose.role or "")


def _by_pool(told: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    """Time by state and hour, with the pool's text taken apart again; microseconds become milliseconds."""
    parts = pl.col("pool").str.split("\x1f")
    whose = {name: parts.list.get(at) for at, name in enumerate(_Whose._fields)}
    whose["role"] = pl.when(whose["role"] != "").then(whose["role"])
    amounts = {name: amount // _MILLISECOND for name, amount in columns.items()}
    return meters.time_by_hour(told).select(**whose, hour=pl.col("hour"), **amounts)


def _summed(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row for each hour, source and role; what none of them tells is not told."""
    whole = pl.concat([HOURS.to_frame(), *parts], how="diagonal_relaxed").select(HOURS.names()).cast(HOURS)
    sums = [pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in METERED]
    return whole.group_by(KEY).agg(sums).select(HOURS.names()).sort(KEY)
