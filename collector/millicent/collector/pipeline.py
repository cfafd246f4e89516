"""The life of a span after the spool, as a list. Reading `STEPS` from top to bottom is reading the product.

Every step takes and returns a `Batch`; a span leaves only through `Batch.leave`, with an outcome and a reason, so that
spans in = calls + everything that left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import polars as pl

from millicent.collector.attribution import attribute, match_deployment
from millicent.collector.batch import Batch, Context, Incoming
from millicent.collector.counting import count_once
from millicent.collector.decode import decode
from millicent.collector.dialects import wanted
from millicent.collector.reading import normalise_tokens, pick_calls, read_dialect
from millicent.warehouse import record


def run(incoming: Sequence[Incoming], context: Context) -> Batch:
    """Take requests through every step.

    Returns:
        `spans` in the columns of `record.SCHEMA` (`trace_id` as 16 bytes), all that left, and what was quarantined.
    """
    decoded = decode([one.body for one in incoming], wanted())
    envelope = pl.DataFrame(
        [(at, one.tenant, one.key_id, one.received_at) for at, one in enumerate(incoming)],
        schema={
            "record": pl.UInt32,
            "tenant": pl.String,
            "key_id": pl.String,
            "received_at": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )
    batch = Batch(decoded.spans.join(envelope, on="record", how="left", maintain_order="left"), broken=decoded.broken)
    for step in STEPS:
        batch = step(batch, context)
    return batch


def price(batch: Batch, context: Context) -> Batch:
    """What the API list asks for these tokens at that instant, and what is billed for the call."""
    spans = batch.spans.with_columns(context.prices.price(batch.spans))
    own = pl.col("billing") == "self_hosted"
    unbilled = (pl.col("status") == "error") & (pl.col("input_tokens") == 0) & (pl.col("output_tokens") == 0)
    status = pl.when(own | unbilled).then(pl.lit("not_billed")).otherwise("price_status")
    spans = spans.with_columns(
        price_status=status,
        **{
            name: pl.when(unbilled & pl.col(name).is_not_null()).then(_NOTHING).otherwise(name)
            for name in record.MONEY
            if name in spans.columns
        },
    )
    billed = pl.when(own).then(_NOTHING).otherwise("list_cost_usd")
    return replace(batch, spans=spans.with_columns(billed_cost_usd=billed))


def quarantine(batch: Batch, _: Context) -> Batch:
    """Set aside what cannot be true, with the reason; everything else becomes rows of the record."""
    odd = batch.spans.filter(pl.col("odd").is_not_null())
    aside = odd.select(
        "tenant", "received_at", reason=pl.col("odd").struct["reason"], detail=pl.col("odd").struct["detail"],
        trace_id=pl.col("trace_id").bin.slice(0, 32).bin.encode("hex"),
        span_id=pl.col("span_id_bytes").bin.slice(0, 32).bin.encode("hex"),
        scope=pl.col("scope"), service=pl.col("service"), usage_raw=pl.col("usage_raw"),
    )  # fmt: skip
    batch = batch.leave(pl.col("odd").is_not_null(), "quarantined", pl.col("odd").struct["reason"])
    spans = batch.spans.select(
        pl.col(column.name).cast(_POLARS[column.name]) if column.name in _POLARS else pl.col(column.name)
        for column in record.CALLS
    )
    return replace(batch, spans=spans, quarantined=aside)


STEPS: Final = (
    pick_calls,
    read_dialect,
    normalise_tokens,
    attribute,
    match_deployment,
    count_once,
    price,
    quarantine,
)

EMPTY: Final = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table()))
"""The record's columns as polars types."""
_NOTHING: Final = pl.lit(0, pl.Decimal(18, 12))
_POLARS: Final = {name: dtype for name, dtype in EMPTY.schema.items() if name != "labels"}
