"""Energy that accelerators used, as their counters that are sent to us tell: by board once, by hour, by deployment.

A point is one reading of one board's counter: `hw.energy` of OpenTelemetry's conventions, as our SDK and others send
it, or what a Collector reads of DCGM. Several may read one board, from several processes or in several ways: every
stretch of time counts once, by whoever's readings came first. A deployment's boards count together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import polars as pl

from millicent.collector.attribution import apply_rules, keep_attributes
from millicent.collector.batch import Context, first
from millicent.collector.decode import RESOURCE, Kind
from millicent.collector.dialects import ATTRIBUTION
from millicent.collector.reading import EARLIEST
from millicent.pricing import meters
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.metered import HOURS, SERIES

SOURCE: Final = "nvml"
"""Under which energy that is sent to us is kept, whoever's library it was read from."""
COUNTER: Final = "millijoules"
THROUGH: Final = "counted"
"""Counters of `metered.SERIES`: readings of each board's counter, and until when its energy is counted."""


class Metric(NamedTuple):
    """A metric that is a board's counter: millijoules in its unit, and which attribute names the board."""

    millijoules: int
    board: tuple[str, ...]


METRICS: Final[Mapping[str, Metric]] = {
    "hw.energy": Metric(1000, ("hw.id",)),
    "gpu.dcgm.energy_consumption": Metric(1000, (f"{RESOURCE}gpu.uuid", "gpu.uuid", "uuid")),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": Metric(1, ("UUID", "gpu_uuid")),
}
TYPE: Final = "hw.type"
HOSTS: Final = (f"{RESOURCE}host.id", f"{RESOURCE}host.name", f"{RESOURCE}k8s.node.name", "Hostname")
WANTED: Final[Mapping[str, Kind]] = dict.fromkeys(
    (TYPE, *HOSTS, *(key for metric in METRICS.values() for key in metric.board)), "text"
)
"""Attributes that are read here, as `decode` wants them."""

AHEAD: Final = timedelta(minutes=10)
"""A clock further ahead of ours would hide all readings that follow."""
FASTEST: Final = 10_000_000
"""Millijoules in a second, ten kilowatts: no board draws more. What rose faster did not rise; a counter that fell to
more than it could have drawn since has not begun again, but was read by two at once."""
AT_ONCE: Final = timedelta(seconds=2)
"""Counters are brought up to date now and then: so much may come at once."""
FORGET: Final = timedelta(hours=1)
"""Processes that were not read for so long, while others of the same board were, are gone."""
MOST: Final = 10**16
_UUID: Final = r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-"
_PROCESS: Final = ("series", "started")
_READING: Final = (*_PROCESS, "at")
_WHOLE: Final = pl.Int128


@dataclass(frozen=True, slots=True)
class Counted:
    """What points tell of energy.

    Attributes:
        hours: As `metered.HOURS`, to be added.
        series: As `metered.SERIES`; to be stored together with `hours` or not at all.
        left: tenant, received_at, outcome and reason of every point.
    """

    hours: pl.DataFrame
    series: pl.DataFrame
    left: pl.DataFrame


NOTHING: Final = Counted(HOURS.to_frame(), SERIES.to_frame(), pl.DataFrame())


def count_energy(points: pl.DataFrame, context: Context) -> Counted:
    """Count the energy of points of `METRICS`.

    Args:
        points: as `Points.energy`, with `tenant`, `key_id` and `received_at`.
        context: `meters` tells the last readings that are stored.
    """
    if points.is_empty():
        return NOTHING
    points = _read(points).with_columns(_deployment(points, context).alias("told"))
    points = points.with_columns(
        why=pl.coalesce("why", pl.when(pl.col("told").is_null()).then(pl.lit("no_deployment")))
    )
    sound = points.filter(pl.col("why").is_null()).with_columns(series=pl.concat_str("tenant", pl.lit("\x1f"), "board"))
    aside = points.filter(pl.col("why").is_not_null())
    left = [_leaving(aside, "not_a_call", pl.concat_str(pl.lit("energy:"), "why"))]
    known = context.meters().filter(pl.col("source") == SOURCE)
    known = known.with_columns(series=pl.concat_str("tenant", pl.lit("\x1f"), "series"))
    known = known.join(sound.select("series").unique(), on="series", how="semi")
    fresh, repeated = _unread(sound, known)
    left += [repeated, _leaving(fresh, "not_a_call", pl.lit("energy"))]
    whose = _whose(fresh, context.deployments)
    fresh = fresh.join(whose, on=["tenant", "told"], maintain_order="left")
    hours, series = _counted(fresh, known)
    return Counted(hours, series, pl.concat(left))


# ---- what each point says


def _read(points: pl.DataFrame) -> pl.DataFrame:
    """Every point's `board`, instant `at`, `value` in millijoules, since when it counts, and `why` it is not read."""
    board = pl.coalesce(
        *(pl.when(pl.col("called") == name).then(_first(points, metric.board)) for name, metric in METRICS.items())
    )
    unit = pl.col("called").replace_strict({name: metric.millijoules for name, metric in METRICS.items()})
    told = pl.coalesce(pl.col("as_int").cast(pl.Float64), "as_double")
    amount = told * unit.cast(pl.Float64)
    whole = pl.coalesce(pl.col("as_int") * unit, amount.round().cast(pl.Int64, strict=False))
    at, since = _instant("end_ns"), _instant("start_ns")
    host = pl.coalesce(_first(points, HOSTS), pl.lit(""))
    return points.with_columns(
        board=pl.when(board.str.contains(_UUID)).then(board).otherwise(pl.concat_str(host, pl.lit("/"), board)),
        at=at,
        started=pl.when((pl.col("start_ns") > 0) & (since <= at)).then(since),
        value=whole,
    ).with_columns(
        why=pl.when(pl.col("why").is_not_null()).then("why")
        .when((pl.col("called") == "hw.energy") & (_first(points, (TYPE,)).ne_missing("gpu"))).then(pl.lit("not_a_gpu"))
        .when(board.is_null()).then(pl.lit("no_id"))
        .when(told.is_null()).then(pl.lit("no_value"))
        .when(~amount.is_between(0, MOST)).then(pl.lit("absurd"))
        .when(at > pl.col("received_at") + AHEAD).then(pl.lit("in_the_future"))
        .when(at < EARLIEST).then(pl.lit("too_long_ago"))
    )  # fmt: skip


def _first(points: pl.DataFrame, keys: Sequence[str]) -> pl.Expr:
    present = [key for key in keys if key in points.columns]
    return first(points, present) if present else pl.lit(None, pl.String)


def _deployment(points: pl.DataFrame, context: Context) -> pl.Series:
    """Which deployment each point is of, by its tag or by the rules, as for a call of the same service."""
    told = {name: _first(points, ATTRIBUTION[name]) for name in ("deployment", "service", "environment", "team")}
    of_attributes = points.with_columns(labels=pl.lit(None, EMPTY.schema["labels"]))
    calls = keep_attributes(of_attributes, context.rules).select(
        "tenant", "key_id", "labels", "scope", "scope_version", started_at=_instant("end_ns"), signal=pl.lit("metric"),
        **told,
    )  # fmt: skip
    if context.rules:
        calls = apply_rules(pl.concat([EMPTY, calls], how="diagonal_relaxed"), context.rules, context.deployments)
    return calls["deployment"]


def _whose(points: pl.DataFrame, deployments: Sequence[tuple[str, Deployment]]) -> pl.DataFrame:
    """Of each deployment that points tell of: which of its pool stands for all, and how many accelerators it has."""
    rows = []
    for tenant, name, at in points.group_by("tenant", "told").agg(pl.col("at").max()).iter_rows():
        here = [one for of, one in deployments if of == tenant and _holds(one, at)]
        mine = next((one for one in here if one.name == name), None)
        pool = [one.name for one in here if mine and mine.pool and one.pool == mine.pool]
        rows.append((tenant, name, min(pool, default=name), mine.accelerator_count if mine else 1))
    schema = {"tenant": pl.String, "told": pl.String, "deployment": pl.String, "accelerators": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _holds(one: Deployment, at: datetime) -> bool:
    return one.effective_from <= at and (one.effective_to is None or at < one.effective_to)


def _unread(points: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Points that are news, and those that leave, having been read or lying under what was."""
    last = _last(known).select(*_PROCESS, before="at", value_before="value")
    points = points.join(last, on=_PROCESS, how="left", nulls_equal=True, maintain_order="left")
    older = (pl.col("at") < pl.col("before")).fill_null(False)
    same = (pl.col("at") == pl.col("before")).fill_null(False) | ~pl.struct(*_READING).is_first_distinct()
    points = points.sort("value", descending=True, maintain_order=True).with_columns(older=older, same=same)
    gone = points.filter(pl.col("older") | pl.col("same"))
    why = pl.when("older").then(pl.lit("older_point")).otherwise(pl.lit("same_point"))
    return points.filter(~pl.col("older"), ~pl.col("same")), _leaving(gone, "duplicate", why)


def _leaving(points: pl.DataFrame, outcome: str, reason: pl.Expr) -> pl.DataFrame:
    return points.select("tenant", "received_at", outcome=pl.lit(outcome), reason=reason)


# ---- counting


def _last(known: pl.DataFrame) -> pl.DataFrame:
    """The last reading of each process that is known, as `meters.SAMPLES`."""
    readings = known.filter(pl.col("counter") == COUNTER).rename({"read_at": "at"}).sort("at")
    return readings.unique(_PROCESS, keep="last").select(meters.SAMPLES.names())


def _counted(fresh: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Hours that new readings add, and the last readings from then on."""
    after = _last(known)
    samples = _without_dips(fresh, after)
    through = known.filter(pl.col("counter") == THROUGH).group_by("series").agg(through=pl.col("read_at").max())
    rises = _once(_believed(meters.increases(samples, after=after)), through)
    rises = rises.join(
        fresh.select(*_PROCESS, "tenant", "deployment", "accelerators", end="at"),
        on=[*_PROCESS, "end"], how="left", nulls_equal=True,
    )  # fmt: skip
    through = (
        pl.concat([through, rises.select("series", through="end")]).group_by("series").agg(pl.col("through").max())
    )
    return _hours(rises), _to_remember(fresh, meters.latest(samples, after), through)


def _without_dips(fresh: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """New readings, none of which is below the one before it but where a counter began again."""
    new, old = pl.lit(value=True), pl.lit(value=False)
    rows = pl.concat([after.with_columns(new=old), fresh.select(meters.SAMPLES.names()).with_columns(new=new)])
    before, since = pl.col("value").shift(1).over(_PROCESS), pl.col("at").shift(1).over(_PROCESS)
    could = (pl.col("at") - since).dt.total_microseconds().cast(_WHOLE) * FASTEST // 1_000_000
    again = ((pl.col("value") < before) & (pl.col("value").cast(_WHOLE) <= could)).fill_null(False)
    rows = rows.sort(*_READING).with_columns(life=again)
    rows = rows.with_columns(life=pl.col("life").cum_sum().over(_PROCESS))
    return rows.with_columns(value=pl.col("value").cum_max().over(*_PROCESS, "life")).filter("new").drop("new", "life")


def _believed(rises: pl.DataFrame) -> pl.DataFrame:
    """Rises, and none where a board would have had to draw more than it can."""
    could = (pl.col("end") - pl.col("start") + AT_ONCE).dt.total_microseconds().cast(_WHOLE) * FASTEST // 1_000_000
    is_true = pl.col("increase").cast(_WHOLE) <= could
    return rises.with_columns(reset=(pl.col("how") == "reset") | ~is_true, is_true=is_true)


def _once(rises: pl.DataFrame, through: pl.DataFrame) -> pl.DataFrame:
    """Of each rise the part that comes after all that was counted of its board before it."""
    rises = rises.filter("is_true").join(through, on="series", how="left").sort("series", "end", "start")
    before = pl.max_horizontal(pl.col("end").cum_max().shift(1).over("series"), "through")
    start, end = pl.col("start").dt.epoch("us").cast(_WHOLE), pl.col("end").dt.epoch("us").cast(_WHOLE)
    since = pl.max_horizontal("start", before)
    return (
        rises.with_columns(since=since)
        .filter(pl.col("since") < pl.col("end"))
        .with_columns(
            increase=(
                pl.col("increase").cast(_WHOLE) * (end - pl.col("since").dt.epoch("us").cast(_WHOLE)) // (end - start)
            ).cast(pl.Int64),
            start="since",
        )
        .drop("since", "through", "is_true")
    )


def _hours(rises: pl.DataFrame) -> pl.DataFrame:
    """Rises by deployment and hour. Time counts as much of it as there were boards of all that it has."""
    whose = ["tenant", "deployment"]
    of_all = rises.group_by(whose).agg(
        boards=pl.max_horizontal(pl.col("accelerators").max(), pl.col("series").n_unique().cast(pl.Int64))
    )
    together = pl.concat_str("tenant", pl.lit("\x1f"), "deployment").alias("series")
    named = rises.select(together, *whose).unique()
    resets = rises.group_by(*whose, hour=pl.col("end").dt.truncate("1h")).agg(
        resets=pl.col("reset").sum().cast(pl.Int64)
    )
    milliseconds = 1000 * pl.col("boards")
    return (
        meters.by_hour(rises.with_columns(together))
        .join(named, on="series")
        .join(of_all, on=whose)
        .join(resets, on=[*whose, "hour"], how="left")
        .select(
            *whose, "hour", source=pl.lit(SOURCE), role=pl.lit(None, pl.String),
            counted_ms=pl.col("observed_us") // milliseconds, gap_ms=pl.col("gap_us") // milliseconds,
            millijoules="increase", resets=pl.col("resets").fill_null(0),
        )
    )  # fmt: skip


def _to_remember(fresh: pl.DataFrame, latest: pl.DataFrame, through: pl.DataFrame) -> pl.DataFrame:
    """The last readings of boards that were read, without processes that are gone, and until when each is counted."""
    latest = latest.filter(pl.col("at") >= pl.col("at").max().over("series") - FORGET)
    readings = latest.select(*_PROCESS, "value", read_at="at", counter=pl.lit(COUNTER))
    counted = through.select(
        "series", started=pl.lit(None, SERIES["started"]), value=pl.lit(0, pl.Int64), read_at="through",
        counter=pl.lit(THROUGH),
    )  # fmt: skip
    whose = fresh.sort("at").unique("series", keep="last").select("series", "tenant", "deployment", "board")
    rows = pl.concat([readings, counted.select(readings.columns)]).join(whose, on="series").drop("series")
    return rows.select(
        *(pl.col(name) for name in ("tenant", "deployment")), source=pl.lit(SOURCE), role=pl.lit(None, pl.String),
        counter="counter", series="board", started="started", read_at="read_at", value="value",
    ).cast(SERIES)  # fmt: skip


def _instant(name: str) -> pl.Expr:
    return (pl.col(name) // 1000).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
