"""The life of a span after the spool, as a list. Reading `STEPS` from top to bottom is reading the product.

Every step takes and returns a `Batch`; a span leaves only through `Batch.leave`, with an outcome and a reason, so that
spans in = calls + everything that left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import polars as pl

from millicent.collector import energy
from millicent.collector.attribution import attribute, follow_rules, keep_attributes, match_deployment, rule_keys
from millicent.collector.batch import Batch, Context, Incoming, Prices
from millicent.collector.counting import count_once, settle
from millicent.collector.decode import Kind, decode
from millicent.collector.dialects import wanted
from millicent.collector.metering import since_last
from millicent.collector.points import decode_points
from millicent.collector.reading import normalise_tokens, pick_calls, read_dialect
from millicent.warehouse import record
from millicent.warehouse.frames import EMPTY


def run(incoming: Sequence[Incoming], context: Context) -> Batch:
    """Take requests through every step.

    Returns:
        `spans` in the columns of `record.SCHEMA` (`trace_id` as 16 bytes), all that left, and what was quarantined.
    """
    batch = _received(incoming, context)
    for step in STEPS:
        batch = step(batch, context)
    return batch


def _received(incoming: Sequence[Incoming], context: Context) -> Batch:
    """Spans, log records and what metrics added, as rows of one layout, with who sent them."""
    keys: dict[str, Kind] = {**dict.fromkeys(rule_keys(context.rules), "text"), **wanted()}
    told = [at for at, one in enumerate(incoming) if one.signal != "metrics"]
    metered = [at for at, one in enumerate(incoming) if one.signal == "metrics"]
    decoded = decode(
        [incoming[at].body for at in told], keys, ["logs" if incoming[at].signal == "logs" else "traces" for at in told]
    )
    spans = _sent(decoded.spans, told, incoming)
    batch = Batch(spans, broken=tuple(told[at] for at in decoded.broken))
    if metered:
        points = decode_points([incoming[at].body for at in metered], keys, energy.METRICS, energy.WANTED)
        added = since_last(_sent(points.points, metered, incoming), context.series)
        unread = _sent(points.unread, metered, incoming).select(
            "tenant", "received_at", outcome=pl.lit("not_a_call"), reason="reason"
        )
        counted = energy.NOTHING
        if points.energy.height:
            counted = energy.count_energy(_sent(points.energy, metered, incoming), context)
        batch = Batch(
            pl.concat([spans, added.rows], how="diagonal_relaxed"),
            left=(unread, added.left, *((counted.left,) if counted.left.height else ())),
            broken=(*batch.broken, *(metered[at] for at in points.broken)),
            quarantined=added.quarantined,
            series=added.series,
            meter_hours=counted.hours,
            meter_series=counted.series,
        )
    return replace(batch, spans=keep_attributes(batch.spans, context.rules))


def _sent(rows: pl.DataFrame, places: Sequence[int], incoming: Sequence[Incoming]) -> pl.DataFrame:
    """`rows` with the tenant, key and receive time of the request that each came in; `record` becomes its place."""
    senders = pl.DataFrame(
        [(at, place, incoming[place].tenant, incoming[place].key_id, incoming[place].received_at)
         for at, place in enumerate(places)],
        schema={
            "record": pl.UInt32, "place": pl.UInt32, "tenant": pl.String, "key_id": pl.String,
            "received_at": pl.Datetime("us", "UTC"),
        },
        orient="row",
    )  # fmt: skip
    return rows.join(senders, on="record", how="left", maintain_order="left").with_columns(record="place").drop("place")


def price(batch: Batch, context: Context) -> Batch:
    """What the API list asks for these tokens at that instant, and what is billed for the call."""
    return replace(batch, spans=price_rows(batch.spans, context.prices))


def price_rows(rows: pl.DataFrame, prices: Prices) -> pl.DataFrame:
    """`rows`, new or stored, with the columns of `tables.PRICE` as `prices` have them.

    What failed without usage costs nothing; own hardware has a list price, but nobody bills for it.
    """
    rows = rows.with_columns(prices.price(rows))
    own = pl.col("billing") == "self_hosted"
    unbilled = (pl.col("status") == "error") & (pl.col("input_tokens") == 0) & (pl.col("output_tokens") == 0)
    status = pl.when(own | unbilled).then(pl.lit("not_billed")).otherwise("price_status")
    nothing = {
        name: pl.when(unbilled & pl.col(name).is_not_null()).then(_NOTHING).otherwise(name) for name in record.MONEY
    }
    rows = rows.with_columns(price_status=status, **nothing)
    return rows.with_columns(billed_cost_usd=pl.when(own).then(_NOTHING).otherwise("billed_cost_usd"))


def quarantine(batch: Batch, _: Context) -> Batch:
    """Set aside what cannot be true, with the reason; everything else becomes rows of the record."""
    odd = batch.spans.filter(pl.col("odd").is_not_null())
    aside = odd.select(
        "tenant", "received_at", reason=pl.col("odd").struct["reason"], detail=pl.col("odd").struct["detail"],
        trace_id=pl.col("trace_id").bin.slice(0, 32).bin.encode("hex"),
        span_id=pl.col("span_id_bytes").bin.slice(0, 32).bin.encode("hex"),
        scope=pl.col("scope"), service=pl.col("service"), usage_raw=pl.col("usage_raw"),
    )  # fmt: skip
    aside = pl.concat([batch.quarantined, aside], how="diagonal_relaxed") if batch.quarantined.height else aside
    batch = batch.leave(pl.col("odd").is_not_null(), "quarantined", pl.col("odd").struct["reason"])
    spans = batch.spans.select(
        *(pl.col(name).cast(_POLARS[name]) if name in _POLARS else pl.col(name) for name in record.SCHEMA.names),
        "stored",
    )
    return replace(batch, spans=spans, quarantined=aside)


STEPS: Final = (
    pick_calls,
    read_dialect,
    normalise_tokens,
    attribute,
    count_once,
    follow_rules,
    match_deployment,
    price,
    quarantine,
    settle,
)

_NOTHING: Final = pl.lit(0, pl.Decimal(18, 12))
_POLARS: Final = {name: dtype for name, dtype in EMPTY.schema.items() if name not in {"labels", "units"}}
