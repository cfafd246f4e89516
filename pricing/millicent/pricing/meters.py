"""What counters of engines and accelerators tell: by how much they rose, and in which hours.

Samples are read now and then from counters that only rise: tokens, request-seconds, millijoules. Every counter is a
`series` of its own (one process, one label set; never a sum over replicas), its values are whole numbers (tokens,
microseconds, millijoules), its instants UTC. A rise is never counted twice and never invented:

- *steady*: it rose between two samples.
- *start*: a process that began while we were reading counts from its beginning.
- *reset*: a value below the one before has begun again from 0; what came between the last sample and the reset is lost.
- *wrap*: as a reset, for counters that go round at a known value: what was missing to it is counted, too.

The first sample of a counter that ran before we looked is where counting begins: it counts nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from millicent.pricing.allocation import EngineTokens
from millicent.pricing.catalog import Engine

LONGEST: Final = timedelta(minutes=5)
"""Between two samples further apart nobody saw what happened when; the rise itself is still right."""

SAMPLES: Final = pl.Schema(
    [
        ("series", pl.String),
        ("started", pl.Datetime("us", "UTC")),  # when the process began; null where it does not tell
        ("at", pl.Datetime("us", "UTC")),
        ("value", pl.Int64),
    ]
)
"""What a sample is."""

STATES: Final = ("busy", "idle", "unavailable")
"""What a pool can be seen in; where replicas differ, the first of these is the pool's."""

_PROCESS: Final = ("series", "started")
_HOUR_US: Final = 3_600_000_000
_WIDE: Final = pl.Int128


def increases(
    samples: pl.DataFrame,
    *,
    after: pl.DataFrame | None = None,
    watched_from: datetime | None = None,
    wraps_at: int | None = None,
    fastest_per_second: int | None = None,
    longest: timedelta = LONGEST,
) -> pl.DataFrame:
    """By how much counters rose from sample to sample.

    Args:
        samples: As `SAMPLES`, in any order; the same sample twice counts once.
        after: What `latest` told of the samples before these; they are not counted again, and older ones that come
            late are let go: their rise is in what was counted over them.
        watched_from: Since when we read; processes that began since then count from their beginning. None is the
            first sample of each series.
        wraps_at: The value that the counter never reaches, because it goes on from 0.
        fastest_per_second: How fast it can rise at most; what a wrap would need more than that is a reset. Goes with
            `wraps_at`.
        longest: The longest time between samples that is no gap.

    Returns:
        `series`, `started`, `start`, `end`, `increase` (Int64, 0 or more), `how` (steady, start, reset, wrap), `gap`:
        one row per sample that has something before it.

    Raises:
        ValueError: `wraps_at` is given without `fastest_per_second`, or a counter is below 0.
    """
    if (wraps_at is None) != (fastest_per_second is None):
        raise ValueError(
            f"wraps_at {wraps_at!r} and fastest_per_second {fastest_per_second!r} go together: a value that fell has "
            "wrapped only if the counter could have risen so fast"
        )
    if samples.select((pl.col("value") < 0).any()).item():
        raise ValueError("a counter is below 0: only counters that rise from 0 can be read")
    rows = _in_order(samples, after)
    first_seen = pl.col("at").min().over("series") if watched_from is None else pl.lit(watched_from)
    before, since = pl.col("value").shift(1).over(_PROCESS), pl.col("at").shift(1).over(_PROCESS)
    begins = before.is_null() & (pl.col("started") >= first_seen)
    fell = pl.col("value") < before
    rise = (pl.col("value") - before).cast(pl.Int64)
    wrapped = pl.lit(value=False)
    if wraps_at is not None and fastest_per_second is not None:
        rise = pl.when(fell).then(rise + wraps_at).otherwise(rise)
        seconds = (pl.col("at") - since).dt.total_microseconds().cast(_WIDE)
        wrapped = fell & (rise.cast(_WIDE) * 1_000_000 <= seconds * fastest_per_second)
    how = (
        pl.when(begins).then(pl.lit("start"))
        .when(before.is_null()).then(None)
        .when(wrapped).then(pl.lit("wrap"))
        .when(fell).then(pl.lit("reset"))
        .otherwise(pl.lit("steady"))
    )  # fmt: skip
    return (
        rows.with_columns(
            how=how,
            start=pl.when(begins).then(pl.min_horizontal("started", "at")).otherwise(since),
            increase=pl.when(begins | (fell & ~wrapped)).then(pl.col("value")).otherwise(rise),
        )
        .filter("new", pl.col("how").is_not_null())
        .select(
            *_PROCESS,
            "start",
            pl.col("at").alias("end"),
            "increase",
            "how",
            gap=pl.col("at") - pl.col("start") > longest,
        )
    )


def latest(samples: pl.DataFrame, after: pl.DataFrame | None = None) -> pl.DataFrame:
    """The last sample of every process, for `increases` to go on from."""
    return _in_order(samples, after).group_by(_PROCESS, maintain_order=True).last().select(SAMPLES.names())


def by_hour(rises: pl.DataFrame) -> pl.DataFrame:
    """Rises in the UTC hours in which they happened, split by time where one goes over the hour.

    Every rise is a whole number in every hour, and its hours add up to it.

    Returns:
        `series`, `hour`, `increase`, `observed_us` (microseconds of the hour between samples), `gap_us` (those of it
        in gaps, in which nobody saw when it happened), in order.
    """
    start, end = pl.col("start").dt.epoch("us"), pl.col("end").dt.epoch("us")
    first, after_last = start // _HOUR_US, -(-end // _HOUR_US)
    pieces = (
        rises.with_columns(start, end)
        .with_columns(hour=pl.int_ranges(first, pl.max_horizontal(after_last, first + 1)))
        .explode("hour")
        .with_columns(
            since=(pl.max_horizontal("start", pl.col("hour") * _HOUR_US) - pl.col("start")).cast(_WIDE),
            until=(pl.min_horizontal("end", (pl.col("hour") + 1) * _HOUR_US) - pl.col("start")).cast(_WIDE),
            lasted=(pl.col("end") - pl.col("start")).cast(_WIDE),
        )
    )
    whole, lasted = pl.col("increase").cast(_WIDE), pl.max_horizontal("lasted", pl.lit(1, _WIDE))
    at_once = pl.col("lasted") == 0
    share = (
        pl.when(at_once).then(whole).otherwise(whole * pl.col("until") // lasted - whole * pl.col("since") // lasted)
    )
    time = (pl.col("until") - pl.col("since")).cast(pl.Int64)
    return (
        pieces.with_columns(share=share.cast(pl.Int64), time=time)
        .group_by("series", "hour")
        .agg(
            increase=pl.col("share").sum(),
            observed_us=pl.col("time").sum(),
            gap_us=pl.col("time").filter("gap").sum(),
        )
        .with_columns(hour=pl.from_epoch(pl.col("hour") * _HOUR_US, "us").dt.replace_time_zone("UTC"))
        .sort("series", "hour")
    )


def spans(states: pl.DataFrame, *, until: datetime | None = None, longest: timedelta = LONGEST) -> pl.DataFrame:
    """How long each state that was read held: until the next reading of its series, and never longer than `longest`.

    Args:
        states: `series`, `at` and `state`, one of `STATES`: a gauge of running requests above 0 is busy, 0 is idle, an
            engine that does not answer or loads is unavailable.
        until: Until when the last reading of each series may hold; None is no time at all.
        longest: After so long without a reading nobody knows.

    Returns:
        `series`, `start`, `end`, `state`.
    """
    after = pl.col("at").shift(-1).over("series")
    return (
        states.select("series", "at", "state")
        .unique(["series", "at"], keep="last")
        .sort("series", "at")
        .with_columns(end=pl.min_horizontal(after.fill_null(until) if until else after, pl.col("at") + longest))
        .filter(after.is_not_null() if until is None else pl.col("end") > pl.col("at"))
        .select("series", pl.col("at").alias("start"), "end", "state")
    )


def time_by_hour(told: pl.DataFrame) -> pl.DataFrame:
    """In what state a pool was, by UTC hour: busy while anything on it is, idle while nothing is and something could.

    Args:
        told: `pool`, `start`, `end`, `state`, as many at once as there are replicas; calls that ran are busy, too.

    Returns:
        `pool`, `hour`, and `busy_us`, `idle_us`, `unavailable_us`, in order. What they are short of the hour nobody
        observed.
    """
    whole = told.select("pool", pl.col("start").dt.epoch("us"), pl.col("end").dt.epoch("us"), "state")
    whole = whole.filter(pl.col("end") > pl.col("start"))
    edges = pl.concat(
        [
            whole.select("pool", at=edge, **{one: (pl.col("state") == one).cast(pl.Int64) * sign for one in STATES})
            for edge, sign in (("start", 1), ("end", -1))
        ]
    )
    hours = (
        whole.select("pool", hour=pl.int_ranges(pl.col("start") // _HOUR_US, -(-pl.col("end") // _HOUR_US)))
        .explode("hour")
        .unique()
        .select("pool", at=pl.col("hour") * _HOUR_US, **{state: pl.lit(0, pl.Int64) for state in STATES})
    )
    at_once = {state: pl.col(state).cum_sum().over("pool") > 0 for state in STATES}
    state = pl.when(at_once["busy"]).then(pl.lit("busy")).when(at_once["idle"]).then(pl.lit("idle"))
    return (
        pl.concat([edges, hours])
        .group_by("pool", "at")
        .agg(pl.col(STATES).sum())
        .sort("pool", "at")
        .with_columns(
            state=state.when(at_once["unavailable"]).then(pl.lit("unavailable")),
            hour=pl.col("at") // _HOUR_US,
            lasted=pl.col("at").shift(-1).over("pool") - pl.col("at"),
        )
        .filter(pl.col("state").is_not_null())
        .group_by("pool", "hour")
        .agg(pl.col("lasted").filter(pl.col("state") == one).sum().alias(f"{one}_us") for one in STATES)
        .with_columns(hour=pl.from_epoch(pl.col("hour") * _HOUR_US, "us").dt.replace_time_zone("UTC"))
        .sort("pool", "hour")
    )


def engine_tokens(engine: Engine, *, prompt: int | None, cached: int | None, generated: int | None) -> EngineTokens:
    """What an engine's counters mean, by what it says of cached tokens.

    vLLM, SGLang and TensorRT-LLM have prefix-cache hits in the prompt counter; llama.cpp has them only in the cached
    one. Where nobody tells, the prompt counter is taken as all that went in, which is never too much.
    """
    if engine.cached_in_prompt is False:
        whole = None if prompt is None or cached is None else prompt + cached
        return EngineTokens(input=whole, uncached_input=prompt, cached_input=cached, output=generated)
    return EngineTokens(input=prompt, cached_input=cached, output=generated)


def _in_order(samples: pl.DataFrame, after: pl.DataFrame | None) -> pl.DataFrame:
    """New samples and what came before them, in the order of each process, with `new`."""
    rows = samples.select(SAMPLES.names()).cast(SAMPLES).with_columns(new=pl.lit(value=True))
    if after is not None:
        before = after.select(SAMPLES.names()).cast(SAMPLES).with_columns(new=pl.lit(value=False))
        counted_to = before.group_by(_PROCESS).agg(counted_to=pl.col("at").max())
        rows = rows.join(counted_to, on=_PROCESS, how="left", nulls_equal=True)
        rows = rows.filter(pl.col("counted_to").is_null() | (pl.col("at") > pl.col("counted_to"))).drop("counted_to")
        rows = pl.concat([before, rows])
    return rows.unique(SAMPLES.names(), keep="any").sort(*_PROCESS, "at", "value")
