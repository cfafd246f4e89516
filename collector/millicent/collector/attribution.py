"""Who pays for a call, and which of our deployments served it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import polars as pl

from millicent.collector.batch import Batch, Context, first
from millicent.collector.decode import RESOURCE
from millicent.collector.dialects import ATTRIBUTION
from millicent.pricing import catalog
from millicent.warehouse.control import Deployment

_TAGS: Final = tuple(key for keys in ATTRIBUTION.values() for key in keys)
_OF_DEPLOYMENT: Final = ("engine", "precision", "accelerator", "accelerator_count", "region", "environment")
_DECLARED: Final = ("declared", *(f"declared_{name}" for name in _OF_DEPLOYMENT), "effective_from", "effective_to")


def attribute(batch: Batch, _: Context) -> Batch:
    """Who pays: the nearest tag wins, from the span, then from its resource."""
    on_span = first(batch.spans, tuple(key for key in ATTRIBUTION["team"] if not key.startswith(RESOURCE)))
    anywhere = first(batch.spans, ATTRIBUTION["team"])
    source = pl.when(on_span.is_not_null()).then(pl.lit("span")).when(anywhere.is_not_null()).then(pl.lit("resource"))
    tags = {name: first(batch.spans, keys) for name, keys in ATTRIBUTION.items()}
    tags["accelerator_count"] = tags["accelerator_count"].cast(pl.Int32, strict=False)
    return replace(batch, spans=batch.spans.with_columns(identity_source=source, **tags).drop(_TAGS))


def match_deployment(batch: Batch, context: Context) -> Batch:
    """Which of our deployments served it, by name or by the host that answered; then what it runs on."""
    declared = _periods(context.deployments)
    spans = batch.spans.with_row_index("row").with_columns(pl.col("endpoint_host").str.to_lowercase())
    spans = spans.with_columns(host_and_port=pl.concat_str("endpoint_host", pl.lit(":"), "endpoint_port"))
    by_name = declared.unique(["tenant", "deployment", "effective_from"], maintain_order=True)
    by_host = declared.filter(pl.col("endpoint").is_not_null())
    asked = spans.select("row", "tenant", "deployment", "started_at", "endpoint_host", "host_and_port")
    found = pl.concat(
        asked.join(hosts, left_on=["tenant", key], right_on=["tenant", other], maintain_order="left_right").select(
            "row", "started_at", *_DECLARED
        )
        for key, hosts, other in (
            ("deployment", by_name, "deployment"),
            ("host_and_port", by_host, "endpoint"),
            ("endpoint_host", by_host, "endpoint"),
        )
    ).filter(
        pl.col("started_at") >= pl.col("effective_from"),
        pl.col("effective_to").is_null() | (pl.col("started_at") < pl.col("effective_to")),
    )
    found = found.unique("row", keep="first", maintain_order=True).drop("started_at", "effective_from", "effective_to")
    spans = spans.join(found, on="row", how="left", maintain_order="left").with_columns(
        deployment=pl.coalesce("declared", "deployment"),
        **{name: pl.coalesce(f"declared_{name}", name) for name in _OF_DEPLOYMENT},
    )
    own = pl.any_horizontal(pl.col(name).is_not_null() for name in ("deployment", "accelerator", "engine"))
    billing = pl.when(own).then(pl.lit("self_hosted")).otherwise(pl.lit("api"))
    return replace(batch, spans=spans.with_columns(billing=billing, accelerator=_catalogued(spans["accelerator"])))


def _periods(deployments: Sequence[tuple[str, Deployment]]) -> pl.DataFrame:
    """Declared deployment periods, one row per endpoint."""
    schema = {
        "tenant": pl.String, "deployment": pl.String, "endpoint": pl.String,
        "effective_from": pl.Datetime("us", "UTC"), "effective_to": pl.Datetime("us", "UTC"),
        **{f"declared_{name}": pl.Int32 if name == "accelerator_count" else pl.String for name in _OF_DEPLOYMENT},
    }  # fmt: skip
    rows = [
        {
            "tenant": tenant, "deployment": one.name, "endpoint": endpoint,
            "effective_from": one.effective_from, "effective_to": one.effective_to,
            **{f"declared_{name}": getattr(one, name) for name in _OF_DEPLOYMENT},
        }
        for tenant, one in deployments
        for endpoint in one.endpoints or (None,)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema).with_columns(
        pl.col("endpoint").str.to_lowercase(), declared=pl.col("deployment")
    )


def _catalogued(told: pl.Series) -> pl.Series:
    """Accelerators by their catalog id where the catalog knows them, as told where it does not."""
    known: dict[str, str] = {}
    for name in told.drop_nulls().unique().to_list():
        with suppress(LookupError):
            known[name] = catalog.accelerator(name).id
    return told.replace(known)
