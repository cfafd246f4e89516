"""One physical call counts once, however many spans tell of it, and in whatever order they come.

New rows are decided together with everything stored that may tell of the same calls (`matching` says how), so a
decision is the same as if all had come at once. Stored calls that read otherwise afterwards are revised in the same
transaction that stores the new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from millicent.collector import matching
from millicent.collector.attribution import as_told
from millicent.collector.batch import Batch, Context
from millicent.warehouse import record
from millicent.warehouse.evidence import KEPT, Probe
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.ledger import KEY
from millicent.warehouse.tables import EDGE_TAGS, PRICE, edges

HOPS: Final = 12
"""How far related rows of related rows are followed; those beyond half of it are looked at, not decided again."""
HOUR: Final = timedelta(hours=1)
PRICED_BY: Final = (
    "provider", "request_model", "response_model", "service_tier", "status", "billing", "deployment", "endpoint_host",
    "region", "price_context", "units", *record.TOKENS,
)  # fmt: skip
DECIDED: Final = ("counted", "not_counted_reason", "counted_as", "counted_as_trace_id")
WORDS: Final = tuple(name for name in record.SCHEMA.names if name not in {*PRICE, *DECIDED, "billing"})
_EDGES: Final = EMPTY.select(edges.c.keys())
_BORROWED: Final = "inherited|merged|rule"


def count_once(batch: Batch, context: Context) -> Batch:
    """Let go of spans that are here already, and decide which of the others count.

    Stored calls that are decided again join the batch; `stored` is true in their rows.
    """
    batch = _without_repeats(batch, context)
    one_call = pl.col("odd").is_null() & (pl.col("signal") != "metric")
    calls = batch.spans.filter(one_call)
    known = _gather(calls.select(WORDS), batch.edges.select(_EDGES.columns) if batch.edges.width else _EDGES, context)
    decided = matching.decide(known.rows, known.edges)
    own = known.rows.select(*KEY, *matching.MERGED)
    new = calls.drop(matching.MERGED).join(
        decided.select(*KEY, *matching.MERGED, *DECIDED), on=KEY, how="inner", maintain_order="left"
    )
    again = decided.filter(pl.col("hop") > 0, pl.col("hop") <= known.decided_to).select(*WORDS, *DECIDED)
    others = batch.spans.filter(~one_call).with_columns(_counts())
    spans = pl.concat(
        [new.with_columns(stored=pl.lit(value=False)), others.with_columns(stored=pl.lit(value=False)),
         again.with_columns(stored=pl.lit(value=True))],
        how="diagonal",
    )  # fmt: skip
    return _without_told_metrics(
        replace(
            batch,
            spans=spans,
            edges=batch.edges.join(known.stored_edges, on=matching.SPAN, how="anti") if batch.edges.width else _EDGES,
            current=known.current,
            told=own.join(known.told, on=KEY, how="anti").join(_changed(own, decided), on=KEY, how="semi"),
        ),
        context,
    )


def settle(batch: Batch, _: Context) -> Batch:
    """Part new rows from stored ones, and of these keep only what reads otherwise than before.

    A stored amount stays as it is unless something that it was priced by has changed.
    """
    finished = batch.spans.select(*record.SCHEMA.names, "stored")
    new, again = finished.filter(~pl.col("stored")).drop("stored"), finished.filter("stored").drop("stored")
    now = batch.current.rename(lambda name: name if name in KEY else f"{name}_now")
    both = again.join(now, on=KEY, how="inner")
    same_price = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_now")) for name in PRICED_BY)
    both = both.with_columns(pl.when(same_price).then(f"{name}_now").otherwise(name).alias(name) for name in PRICE)
    compared = [name for name in record.SCHEMA.names if name not in {*KEY, "labels"}]
    otherwise = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_now")) for name in compared)
    revised = both.filter(otherwise).select(record.SCHEMA.names)
    told = pl.concat([new, revised]).drop(matching.MERGED).join(batch.told, on=KEY, how="inner")
    return replace(batch, spans=new, revised=revised, told=told.select(record.SCHEMA.names))


@dataclass(frozen=True, slots=True)
class _Known:
    """New and stored rows in their own words, `hop` telling how they were found (0: new), and the spans around them."""

    rows: pl.DataFrame
    edges: pl.DataFrame
    stored_edges: pl.DataFrame
    current: pl.DataFrame
    told: pl.DataFrame
    decided_to: int


def _without_repeats(batch: Batch, context: Context) -> Batch:
    spans = batch.spans.with_row_index("at")
    sound = spans.filter(pl.col("odd").is_null()).select("at", *KEY)
    again = pl.struct(KEY).is_first_distinct().not_() | context.seen(sound.select(KEY))
    spans = spans.join(sound.select("at", again=again), on="at", how="left", maintain_order="left").drop("at")
    return replace(batch, spans=spans).leave(pl.col("again"), "duplicate", pl.lit("same_span"))


def _counts() -> list[pl.Expr]:
    absent = [pl.lit(None, EMPTY.schema[name]).alias(name) for name in DECIDED if name != "counted"]
    return [pl.lit(value=True).alias("counted"), *absent]


# ---- what is known of the same calls


def _gather(calls: pl.DataFrame, new_edges: pl.DataFrame, context: Context) -> _Known:
    """Follow traces, ids and equal tokens from the new rows to stored ones, from these to others, and so on."""
    rows, around = calls.with_columns(hop=pl.lit(0)), new_edges
    current, told, stored_edges = [EMPTY], [EMPTY], [_EDGES]
    decided_to = HOPS
    fresh, fresh_edges = rows, around
    if not (rows.is_empty() and around.is_empty()):
        received = pl.concat([rows.select("received_at"), around.select("received_at")])
        (since,) = received.select(pl.col("received_at").max() - KEPT).row(0)
        mixed = _told_by_several(rows, around, context)
        for hop in range(1, HOPS + 1):
            found = context.related(_probe(fresh, fresh_edges, mixed), since)
            fresh = found.calls.join(rows, on=KEY, how="anti")
            fresh_edges = found.edges.join(around, on=matching.SPAN, how="anti")
            stored_edges.append(found.edges.select(_EDGES.columns))
            if fresh.is_empty() and fresh_edges.is_empty():
                break
            current.append(fresh)
            told.append(found.told.join(fresh, on=KEY, how="semi"))
            own = pl.concat([told[-1], _unborrowed(fresh).join(told[-1], on=KEY, how="anti")])
            rows = pl.concat([rows, own.select(*WORDS, hop=pl.lit(hop))])
            around = pl.concat([around, fresh_edges.select(_EDGES.columns)])
            fresh = own
        else:
            decided_to = HOPS // 2
    return _Known(rows, around, pl.concat(stored_edges), pl.concat(current), pl.concat(told), decided_to)


def _told_by_several(rows: pl.DataFrame, around: pl.DataFrame, context: Context) -> pl.DataFrame:
    """Services of which more than one teller is known around the time of `rows` and of the spans around them."""
    bounds = _extent(rows, around)
    around_them = context.tellers(bounds[0] - HOUR, bounds[1] + HOUR).select(matching.TELLER)
    tellers = pl.concat([rows.select(matching.TELLER), around_them])
    several = tellers.filter(pl.col("signal") != "metric").unique().group_by("tenant", "service").len()
    return several.filter(pl.col("len") > 1).select("tenant", "service")


def _probe(rows: pl.DataFrame, around: pl.DataFrame, mixed: pl.DataFrame) -> Probe:
    started, ended = pl.col("started_at"), pl.duration(milliseconds=pl.col("duration_ms").fill_null(0))
    start, end = _extent(rows, around)
    extent = {"start": started.min() - matching.TOLERANCE, "end": (started + ended).max() + matching.TOLERANCE}
    several = rows.join(mixed, on=["tenant", "service"], how="semi", nulls_equal=True)
    other_half = pl.col("dialect").replace_strict(matching.HALVES, default=None, return_dtype=pl.String)
    halves = rows.with_columns(dialect=other_half).filter(pl.col("dialect").is_not_null())
    traces = pl.concat([rows.select("tenant", "trace_id"), around.select("tenant", "trace_id")])
    return Probe(
        traces=traces.unique(), responses=rows.select("tenant", "response_id"),
        requests=rows.select("tenant", "request_id"),
        alike=several.group_by("tenant", "service", "input_tokens").agg(**extent),
        streams=halves.group_by("tenant", "service", "scope", "dialect").agg(**extent),
        start=start, end=end,
    )  # fmt: skip


def _extent(rows: pl.DataFrame, around: pl.DataFrame) -> tuple[datetime, datetime]:
    """From the first start to the last end."""
    spans = pl.concat([rows.select("started_at", "duration_ms"), around.select("started_at", "duration_ms")])
    ended = pl.col("started_at") + pl.duration(milliseconds=pl.col("duration_ms").fill_null(0))
    start, end = spans.select(start=pl.col("started_at").min(), end=ended.max()).row(0)
    return start, end


def _unborrowed(stored: pl.DataFrame) -> pl.DataFrame:
    """Stored calls without the tags that were not their own, and with those that a rule had replaced."""
    stored = as_told(stored)
    borrowed = {tag: pl.col("tag_sources").str.contains(rf"(?:^|,){tag}:(?:{_BORROWED})(?:,|$)") for tag in EDGE_TAGS}
    left = pl.col("tag_sources").str.replace_all(rf"[a-z_]+:(?:{_BORROWED})(?:,|$)", "").str.strip_chars(",")
    return stored.with_columns(
        **{tag: pl.when(~was.fill_null(value=False)).then(tag) for tag, was in borrowed.items()},
        tag_sources=pl.when(left != "").then(left),
        identity_source=pl.when(~pl.col("identity_source").is_in(_BORROWED.split("|"))).then("identity_source"),
    )


def _changed(own: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """Keys of calls whose own words are not to be had from how they read now."""
    both = own.join(decided.select(*KEY, *matching.MERGED), on=KEY, suffix="_now")
    replaced = [pl.col(tag).is_not_null() & pl.col(tag).ne_missing(pl.col(f"{tag}_now")) for tag in EDGE_TAGS]
    learned = [pl.col(name).ne_missing(pl.col(f"{name}_now")) for name in (*matching.FACTS, *matching.PARTS)]
    return both.filter(pl.any_horizontal(*replaced, *learned)).select(KEY)


# ---- metrics, where nothing better tells


def _without_told_metrics(batch: Batch, context: Context) -> Batch:
    """Metric rows do not count in hours around which spans or log records of the same service tell of calls."""
    spans = batch.spans
    ended = pl.col("started_at") + pl.duration(milliseconds=pl.col("duration_ms").fill_null(0))
    asked = (
        spans.filter(pl.col("odd").is_null(), ~pl.col("stored"))
        .group_by("tenant", "service")
        .agg(start=pl.col("started_at").min().dt.truncate("1h") - 25 * HOUR, end=ended.max() + 2 * HOUR)
    )
    if asked.is_empty():
        return batch
    stored = context.metrics(asked)
    if stored.is_empty() and not (spans["signal"] == "metric").any():
        return batch
    again = _unborrowed(stored).select(*WORDS, *DECIDED, stored=pl.lit(value=True))
    spans = pl.concat([spans, again], how="diagonal")
    here = spans.filter(pl.col("odd").is_null(), pl.col("signal") != "metric")
    told = pl.concat(
        [here.select("tenant", "service", "signal", hour=pl.col("started_at").dt.truncate("1h")), context.hours(asked)]
    ).unique()
    told = told.group_by("tenant", "service", "hour").agg(spans_tell=(pl.col("signal") == "span").any())
    metric = spans.filter(pl.col("odd").is_null(), pl.col("signal") == "metric").select(*KEY, "service", ended=ended)
    around = pl.datetime_ranges(
        pl.col("started_at").dt.truncate("1h") - HOUR, pl.col("ended").dt.truncate("1h") + HOUR, "1h"
    )
    silenced = (
        metric.with_columns(hour=around)
        .explode("hour")
        .join(told, on=["tenant", "service", "hour"], nulls_equal=True)
        .group_by(KEY)
        .agg(
            by=pl.when(pl.col("spans_tell").any()).then(pl.lit("spans_tell_of_it")).otherwise(pl.lit("logs_tell_of_it"))
        )
    )
    spans = spans.join(silenced, on=KEY, how="left", maintain_order="left").with_columns(
        counted=pl.col("counted") & pl.col("by").is_null(),
        not_counted_reason=pl.coalesce("by", "not_counted_reason"),
    )
    return replace(batch, spans=spans.drop("by"), current=pl.concat([batch.current, stored]))
