"""What token metrics added since the last reading, as rows like spans.

One odometer (resource, scope, metric, attributes, start) is a series. A cumulative point adds what it shows beyond the
last reading of its series; a delta point is a series of its own, read once. So neither the order of requests, nor how
points are split over them, nor their repetition changes what is added up. Points of one collection that differ in token
type alone fold into one row. The row stands for one of them and the others leave as `folded`, so that points in = rows
+ points that left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from millicent.collector.metrics import FAMILIES, FEEDS, INPUT, OF_MODALITY, OPERATIONS, YIELDS
from millicent.collector.points import digest
from millicent.collector.reading import AHEAD, EARLIEST

ONE_COLLECTION: Final = timedelta(seconds=1)
"""Points of one collection are no further apart than this; some SDKs stamp each metric on its own."""
STATE: Final = {
    "tenant": pl.String, "series": pl.Binary, "last_at": pl.Datetime("us", "UTC"),
    "value": pl.Int64, "count": pl.Int64,
}  # fmt: skip
"""What is remembered of a series, `series` being 16 bytes."""
OPERATION: Final = "gen_ai.operation.name"
_SERIES: Final = ("tenant", "series")
_SOURCE: Final = ("tenant", "source")
_FAMILY: Final = ("tenant", "source", "family")
_FOLD: Final = ("tenant", "fold", "collection")
_SAID: Final = tuple(sorted({*FEEDS.values(), *OF_MODALITY.values()}))


@dataclass(frozen=True, slots=True)
class Added:
    """What points added since the last reading.

    Attributes:
        rows: like spans of the same dialects, with `signal` "metric", `name` the family of metrics, `start_ns` and
            `end_ns` the interval, `call_count` how many calls it sums (null when not told), and `point_flags`.
        series: columns of the table of that name; to be stored together with `rows` or not at all.
        left: tenant, received_at, outcome and reason of every point that no row stands for.
        quarantined: as in `Batch`.
    """

    rows: pl.DataFrame
    series: pl.DataFrame
    left: pl.DataFrame
    quarantined: pl.DataFrame


def since_last(points: pl.DataFrame, series: Callable[[pl.DataFrame], pl.DataFrame]) -> Added:
    """Tell what points add to what was read before.

    Args:
        points: as `decode_points` gives them, with `tenant` and `received_at`; other columns go through to the rows.
        series: asked with `tenant` and `series`; answers with the columns of `STATE` for those that are remembered.

    Returns:
        Rows with an attribute column per counter, named as a span of the dialect names it. `trace_id` is the same for
        all rows of one resource, scope and set of attributes; `span_id` is that of the points that made the row.
    """
    points = points.with_columns(end=_instant("end_ns")).with_columns(odd=_odd())
    aside = points.filter(pl.col("odd").is_not_null())
    sound = points.filter(pl.col("odd").is_null())
    families = _families(sound)
    known = series(pl.concat([sound.select(_SERIES), families.select(_SERIES)]).unique()).select(*STATE)

    fresh, repeated = _unread(sound, known)
    flushes = _flushes(fresh, families, known)
    fresh = _differences(fresh, flushes)
    beaten = _beaten(fresh, flushes)
    kept = _collections(fresh.filter(~beaten))
    told = kept.filter("adds")
    rows = _rows(told)
    left = [
        _leaving(aside, "quarantined", pl.col("odd")),
        repeated,
        _leaving(fresh.filter(beaten), "duplicate", pl.lit("better_metric")),
        _leaving(
            kept.filter(~pl.col("adds")), pl.when("again").then(pl.lit("duplicate")).otherwise(pl.lit("not_a_call")),
            pl.when("again").then(pl.lit("same_point")).otherwise(pl.lit("nothing_added")),
        ),
        _leaving(told.filter(~pl.col("first")), "not_a_call", pl.lit("folded")),
    ]  # fmt: skip
    return Added(rows, _read_to(fresh, families, flushes), pl.concat(left), _quarantined(aside))


# ---- differences


def _odd() -> pl.Expr:
    """Why a point is not believed; a clock that is far off would hide every later reading of its series."""
    return (
        pl.when(pl.col("odd").is_not_null()).then("odd")
        .when(pl.col("end") > pl.col("received_at") + AHEAD).then(pl.lit("in_the_future"))
        .when(pl.col("end") < EARLIEST).then(pl.lit("too_long_ago"))
    )  # fmt: skip


def _unread(points: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Points that are news beside what is known of their series, and those that leave."""
    last = known.rename({"last_at": "before", "value": "value_before", "count": "count_before"})
    points = points.join(last, on=_SERIES, how="left", maintain_order="left")
    older = (pl.col("end") < pl.col("before")).fill_null(False)
    same = ((pl.col("end") == pl.col("before")) & (pl.col("value") <= pl.col("value_before"))).fill_null(False)
    points = points.with_columns(older=older)
    news = points.filter(~older & ~same)
    once = pl.struct(*_SERIES, "end", "value", "count").is_first_distinct()
    gone = pl.concat([points.filter(older | same), news.filter(~once)])
    why = pl.when("older").then(pl.lit("older_point")).otherwise(pl.lit("same_point"))
    return news.filter(once).drop("older"), _leaving(gone, "duplicate", why)


def _differences(points: pl.DataFrame, flushes: pl.DataFrame) -> pl.DataFrame:
    """What each point adds (`added`, `calls`) to the one before it in its series, `since` when, and whether `anew`."""
    began = _instant("start_ns")
    believed = pl.when((began >= EARLIEST) & (began <= pl.col("end"))).then(began)
    points = points.sort(*_SERIES, "end", "value", "count").with_columns(
        pl.coalesce(pl.col(name).shift(1).over(_SERIES), before).alias(before)
        for name, before in (("end", "before"), ("value", "value_before"), ("count", "count_before"))
    )
    points = points.with_columns(_flushed_before(points, flushes))
    anew = (pl.col("value") < pl.col("value_before")) | (pl.col("count") < pl.col("count_before"))
    first_seen = pl.when("delta").then(believed).otherwise(pl.max_horizontal(believed, "flushed"))
    points = points.with_columns(anew=anew.fill_null(False), again=pl.col("before").is_not_null())
    return points.with_columns(
        added=_beyond("value"), calls=_beyond("count"), since=pl.coalesce("before", first_seen, "end")
    )


def _beyond(name: str) -> pl.Expr:
    return pl.col(name) - pl.when(~pl.col("anew")).then(f"{name}_before").fill_null(0)


def _read_to(points: pl.DataFrame, families: pl.DataFrame, flushes: pl.DataFrame) -> pl.DataFrame:
    """What to remember of each series that was read, and of each family in each resource and scope."""
    seen_at = points.group_by("tenant").agg(seen_at=pl.col("received_at").max())
    last = points.group_by(_SERIES).agg(
        last_at=pl.col("end").last(), value=pl.col("value").last(), count=pl.col("count").last().fill_null(0)
    )
    flushed = (
        families.join(points, on=_FAMILY, how="semi")
        .join(flushes.group_by(_FAMILY).agg(last_at=pl.col("flushed").max()), on=_FAMILY)
        .select(*_SERIES, "last_at", value=pl.lit(0, pl.Int64), count=pl.lit(0, pl.Int64))
    )
    return pl.concat([last, flushed]).join(seen_at, on="tenant", how="left")


# ---- families in a resource and scope


def _families(points: pl.DataFrame) -> pl.DataFrame:
    """Every family in each resource and scope, and the series under which its last flush is remembered."""
    sources = points.select(_SOURCE).unique().join(pl.DataFrame({"family": [one.id for one in FAMILIES]}), how="cross")
    texts = sources.select(pl.concat_str(pl.col("source").bin.encode("hex"), pl.lit("|"), "family")).to_series()
    return sources.with_columns(digest(texts, 16).alias("series"))


def _flushes(points: pl.DataFrame, families: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """When each family was seen in each resource and scope: the last time before, and all times now."""
    remembered = families.join(known, on=_SERIES).select(*_FAMILY, flushed="last_at")
    return pl.concat([remembered, points.select(*_FAMILY, flushed="end")]).unique().sort("flushed")


def _flushed_before(points: pl.DataFrame, flushes: pl.DataFrame) -> pl.Series:
    """The last flush of its family before each point's own: a series that was not in it has begun since."""
    asked = points.select(*_FAMILY, own=pl.col("end") - ONE_COLLECTION).with_row_index("at").sort("own")
    found = asked.join_asof(
        flushes, left_on="own", right_on="flushed", by=_FAMILY, allow_exact_matches=False, check_sortedness=False
    )
    return found.sort("at")["flushed"]


def _beaten(points: pl.DataFrame, flushes: pl.DataFrame) -> pl.Series:
    """Whether a better family told of a point's resource and scope at any time since the point's last reading."""
    better = pl.DataFrame(YIELDS, schema={"family": pl.String, "better": pl.String}, orient="row")
    until = (
        better.join(flushes, left_on="better", right_on="family").group_by(_FAMILY).agg(until=pl.col("flushed").max())
    )
    found = points.select(*_FAMILY, "since").join(until, on=_FAMILY, how="left", maintain_order="left")
    return found.select((pl.col("until") >= pl.col("since")).fill_null(False)).to_series()


# ---- rows


def _collections(points: pl.DataFrame) -> pl.DataFrame:
    """Which points fold together (`collection`), whether these add anything, and which is the `first` of them."""
    points = points.sort("tenant", "fold", "end", "series")
    apart = (pl.col("end").diff().over("tenant", "fold") > ONE_COLLECTION).fill_null(True)
    points = points.with_columns(apart=apart).with_columns(collection=pl.col("apart").cum_sum().over("tenant", "fold"))
    adds = (pl.col("added") > 0) | (pl.col("calls") > 0).fill_null(False)
    return points.with_columns(adds=adds.any().over(_FOLD), first=pl.int_range(pl.len()).over(_FOLD) == 0)


def _rows(points: pl.DataFrame) -> pl.DataFrame:
    """One row per collection."""
    made_of = pl.concat_str(pl.col("series").bin.encode("hex"), "end_ns", "value", separator="|")
    rows = (
        points.with_columns(made_of=made_of)
        .group_by(_FOLD, maintain_order=True)
        .agg(
            pl.exclude(*_FOLD, *_INNER, *_SAID).first(),
            pl.col("family").first(),
            pl.col("end_ns").max(),
            pl.col("since").min(),
            pl.col("made_of").sort().str.join(),
            pl.col("anew", "cut").any(),
            call_count=_sum("calls", (pl.col("feeds") == INPUT) & pl.col("calls").is_not_null()),
            **_counters(points),
        )
    )
    known = pl.col("family").replace_strict(OPERATIONS, default=None, return_dtype=pl.String)
    operation = pl.coalesce(OPERATION, known) if OPERATION in rows.columns else known
    flags = {"counter_reset": pl.col("anew"), "fraction_cut": pl.col("cut"), "operation_assumed": operation.is_null()}
    raised = pl.concat_list(pl.when(flag).then(pl.lit(name)) for name, flag in flags.items()).list.drop_nulls()
    return (
        rows.with_columns(
            digest(rows["made_of"], 8).alias("span_id"),
            *_zeros(rows),
            point_flags=raised,
            parent_span_id=pl.lit(None, pl.Binary),
            signal=pl.lit("metric"),
            start_ns=pl.col("since").dt.epoch("us").cast(pl.UInt64) * 1000,
            **{OPERATION: operation.fill_null("chat")},
        )
        .rename({"family": "name", "fold": "trace_id"})
        .drop("collection", "since", "made_of", "anew", "cut")
    )


def _counters(points: pl.DataFrame) -> dict[str, pl.Expr]:
    """The sum of what feeds each attribute; null where nothing does."""
    fed = set(points["feeds"].to_list())
    totals = {key: _sum("added", pl.col("feeds") == key) for key in sorted(fed)}
    return totals | {
        key: _sum("added", (pl.col("feeds") == whole) & (pl.col("modality") == modality))
        for (whole, modality), key in OF_MODALITY.items()
        if whole in fed
    }


def _sum(of: str, where: pl.Expr) -> pl.Expr:
    return pl.when(where.any()).then(pl.col(of).filter(where).sum())


def _zeros(rows: pl.DataFrame) -> list[pl.Expr]:
    """The counters that a family leaves out when they are 0."""
    left_out: dict[str, list[str]] = {}
    for family in FAMILIES:
        for key in family.absent_is_zero:
            left_out.setdefault(key, []).append(family.id)
    here = set(rows["family"].to_list())
    told = {key: pl.col(key) if key in rows.columns else pl.lit(None, pl.Int64) for key in left_out}
    return [
        pl.when(pl.col("family").is_in(ids)).then(told[key].fill_null(0)).otherwise(told[key]).alias(key)
        for key, ids in left_out.items()
        if here & set(ids)
    ]


def _leaving(points: pl.DataFrame, outcome: str | pl.Expr, reason: pl.Expr) -> pl.DataFrame:
    told = pl.lit(outcome) if isinstance(outcome, str) else outcome
    return points.select("tenant", "received_at", outcome=told, reason=reason)


def _quarantined(points: pl.DataFrame) -> pl.DataFrame:
    service = "resource:service.name"
    told = pl.concat_str(pl.lit('{"'), "feeds", pl.lit('":"'), "amount", pl.lit('"}'))
    return points.select(
        "tenant", "received_at", reason="odd", detail=pl.format("{} at {}", told, "end"),
        trace_id=pl.col("fold").bin.encode("hex"),
        span_id=pl.lit(None, pl.String),
        scope="scope", service=service if service in points.columns else pl.lit(None, pl.String), usage_raw=told,
    )  # fmt: skip


def _instant(name: str) -> pl.Expr:
    return (pl.col(name) // 1000).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


_INNER: Final = (
    "family", "feeds", "modality", "value", "amount", "count", "cut", "odd", "source", "series", "start_ns", "end_ns",
    "end", "delta", "before", "value_before", "count_before", "flushed", "anew", "again", "added", "calls", "since",
    "apart", "adds", "first", "made_of",
)  # fmt: skip
"""Columns of points that end here; all others go through to the rows."""
