"""One physical call counts once, however many spans tell of it, and in whatever order they come."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from millicent.collector.batch import Batch, Context
from millicent.warehouse.ledger import KEY


def count_once(batch: Batch, context: Context) -> Batch:
    """Let go of spans that are here already, in this batch or in the ledger."""
    sound = batch.spans.filter(pl.col("odd").is_null()).select("row", *KEY)
    again = pl.struct(KEY).is_first_distinct().not_() | context.seen(sound.select(KEY))
    spans = batch.spans.join(
        sound.select("row", again=again), on="row", how="left", maintain_order="left"
    ).with_columns(
        counted=pl.lit(True),
        not_counted_reason=pl.lit(None, pl.String),
        counted_as=pl.lit(None, pl.UInt64),
        counted_as_trace_id=pl.lit(None, pl.Binary),
    )
    return replace(batch, spans=spans).leave(pl.col("again"), "duplicate", pl.lit("same_span"))
