"""Token metrics, data point by data point: what each says, and which odometer it was read from.

Points become Arrow in Rust and are flattened by their offsets, as spans are; nothing here loops over points.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl
import polars_hash as plh
import ptars
import pyarrow as pa
import pyarrow.compute as pc

from millicent.collector import otlp_pb2
from millicent.collector.decode import (
    RESOURCE,
    Kind,
    _Attributes,
    _attributes,
    _came,
    _columns,
    _labels,
    _owners,
    _to_arrow,
    _Tree,
)
from millicent.collector.metrics import BY, FAMILY_OF, FEEDS, MODALITY

MOST_TOLD: Final = 10**15
"""Tokens or calls that one point may tell of; the sum of a fleet over a year stays far below."""

_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "gauge": (),
    "sum": ("aggregation_temporality", "is_monotonic"),
    "histogram": ("aggregation_temporality",),
    "exponential_histogram": ("aggregation_temporality",),
    "summary": (),
}
_NUMBER: Final = ("as_int", "as_double")
_HISTOGRAM: Final = ("sum", "count")
_ADDING: Final = {"sum": _NUMBER, "histogram": _HISTOGRAM, "exponential_histogram": _HISTOGRAM}
_DELTA: Final = 1
_CUMULATIVE: Final = 2
_OF_POINT: Final = "point:"
_NO_MORE: Final[Mapping[str, Kind]] = {}
_TYPES: Final = tuple(sorted({*BY.values(), MODALITY}))

_handler: Final = ptars.HandlerPool([otlp_pb2.DESCRIPTOR]).get_for_message(
    otlp_pb2.ExportMetricsServiceRequest.DESCRIPTOR
)


@dataclass(frozen=True, slots=True)
class Points:
    """`points`: one row per point that tells of tokens. `unread`: `record` and `reason` of every other point.

    `broken`: places of requests that do not decode, none of whose points are in either. `energy`: one row per point of
    `energy_metrics`, with `record`, the metric (`called`), `as_int`, `as_double`, `start_ns`, `end_ns`, `why` it is no
    counter that only rises, the scope, and the wanted attributes that came.
    """

    points: pl.DataFrame
    unread: pl.DataFrame
    broken: tuple[int, ...]
    energy: pl.DataFrame


def decode_points(
    bodies: Sequence[bytes],
    wanted: Mapping[str, Kind],
    energy_metrics: Collection[str] = (),
    of_energy: Mapping[str, Kind] = _NO_MORE,
) -> Points:
    """Flatten OTLP metrics requests.

    Args:
        bodies: expanded protobuf `ExportMetricsServiceRequest`s.
        wanted: attribute keys of points and resources to bring as columns where they came, as in `decode`.
        energy_metrics: names of metrics that tell of energy.
        of_energy: what is wanted of these, beside `wanted`.

    Returns:
        Points in the columns of `decode` that points have, and: `family`, `feeds` and `modality` as in `metrics`;
        `delta`; `value` and `count` (Int64), the sum of a histogram being its value; `amount`, the value as it came,
        in text; `cut`, whether a fraction was cut off; `odd`, why it cannot be true; and three identities of 16 bytes:
        `source` of resource and scope, `fold` of these, the family and all attributes but the token type, `series` of
        these, the metric, type and start. A delta point is a series of its own.
    """
    batch, whole, broken = _to_arrow(_handler, bodies)
    tree = _Tree.of(batch, "scope_metrics", "metrics")
    every = _groups(tree.items, whole[tree.body_of_item], energy_metrics)
    energy = _energy(tree, every.filter("is_energy"), {**wanted, **of_energy})
    groups = every.filter(~pl.col("is_energy"))
    points, attributes = _flat(tree.items, groups.filter(pl.col("why").is_null()))
    metric = points["metric"].to_numpy()
    of_resource = _attributes(pc.struct_field(tree.resources.field("resource"), "attributes"))
    of_scope = _attributes(pc.struct_field(tree.scope, "attributes"))

    of_metric = tree.scope_and_resource(wanted)
    columns = {key: pc.take(values, pa.array(metric)) for key, values in of_metric.items()}
    columns |= _came(attributes, {key: kind for key, kind in wanted.items() if not key.startswith(RESOURCE)})
    columns |= {_OF_POINT + key: told for key, told in _columns(attributes, dict.fromkeys(_TYPES, "text")).items()}
    frame = points.hstack(pl.DataFrame(pl.from_arrow(pa.table(columns)))).with_columns(
        _labels(attributes),
        of_resource=_identity(_pairs(of_resource), of_resource.rows).gather(tree.resource_of_item[metric]),
        of_scope=_identity(_pairs(of_scope), of_scope.rows).gather(metric),
    )
    told = _identified(_read(frame), _pairs(attributes))
    repeated = groups.filter(pl.col("why").is_not_null()).select(
        pl.col("record", "why").repeat_by("points").list.explode(keep_nulls=False, empty_as_null=False)
    )
    aside = told.filter(pl.col("why").is_not_null()).select("record", "why")
    unread = pl.concat([repeated, aside]).rename({"why": "reason"})
    return Points(told.filter(pl.col("why").is_null()).drop("why"), unread, broken, energy)


def _groups(metrics: pa.StructArray, record: np.ndarray, energy_metrics: Collection[str]) -> pl.DataFrame:
    """Each metric that has points: of which kind, how many, and `why` they are not read; null when they are."""
    parts = []
    for kind, fields in _KINDS.items():
        of_kind = metrics.field(kind)
        columns = {field: pc.struct_field(of_kind, field) for field in fields}
        columns["points"] = pc.list_value_length(pc.struct_field(of_kind, "data_points"))
        frame = pl.DataFrame(pl.from_arrow(pa.table(columns))).with_columns(
            pl.Series("metric", np.arange(len(metrics))),
            pl.Series("record", record, dtype=pl.UInt32),
            pl.Series("called", metrics.field("name"), dtype=pl.String),
            kind=pl.lit(kind),
        )
        parts.append(frame.filter(pl.col("points") > 0))
    odd_kind = (
        pl.when(pl.col("kind").is_in(["gauge", "summary"])).then("kind")
        .when(~pl.col("is_monotonic")).then(pl.lit("not_monotonic"))
        .when(~pl.col("aggregation_temporality").is_in([_DELTA, _CUMULATIVE])).then(pl.lit("no_temporality"))
    )  # fmt: skip
    is_energy = pl.col("called").is_in(list(energy_metrics))
    why = (
        pl.when(is_energy).then(
            pl.when(pl.col("kind") != "sum").then("kind")
            .when(pl.col("aggregation_temporality") == _DELTA).then(pl.lit("delta")).otherwise(odd_kind)
        )
        .when(~pl.col("called").is_in(list(FAMILY_OF))).then(pl.lit("metric:") + _tidy(pl.col("called")))
        .otherwise(pl.lit("metric_kind:") + odd_kind)
    )  # fmt: skip
    return pl.concat(parts, how="diagonal").with_columns(why=why, is_energy=is_energy)


def _energy(tree: _Tree, groups: pl.DataFrame, wanted: Mapping[str, Kind]) -> pl.DataFrame:
    """Points of metrics of energy; what of them is no counter that only rises has no value."""
    if groups.is_empty():
        return pl.DataFrame()
    points, attributes = _flat(tree.items, groups.filter(pl.col("kind") == "sum"))
    why = groups.filter(pl.col("kind") == "sum").select("metric", "why")
    metric = pa.array(points["metric"].to_numpy())
    columns = {key: pc.take(values, metric) for key, values in tree.scope_and_resource(wanted).items()}
    columns |= _came(attributes, {key: kind for key, kind in wanted.items() if not key.startswith(RESOURCE)})
    told = points.hstack(pl.DataFrame(pl.from_arrow(pa.table(columns)))).join(
        why, on="metric", how="left", maintain_order="left"
    )
    others = groups.filter(pl.col("kind") != "sum").select(
        pl.col("record", "called", "why").repeat_by("points").list.explode(keep_nulls=False, empty_as_null=False)
    )
    return pl.concat([told, others], how="diagonal").drop("metric", "delta", "sum", "count", strict=False)


def _flat(metrics: pa.StructArray, groups: pl.DataFrame) -> tuple[pl.DataFrame, _Attributes]:
    """One row per point of `groups`, and the points' attributes."""
    parts, attributes = [], []
    for kind, fields in _ADDING.items():
        of_kind = groups.filter(pl.col("kind") == kind)
        lists = pc.struct_field(metrics.field(kind), "data_points").take(of_kind["metric"].to_arrow())
        flat = lists.flatten()
        columns = {field: flat.field(field) for field in fields}
        columns |= {"start_ns": flat.field("start_time_unix_nano"), "end_ns": flat.field("time_unix_nano")}
        told = of_kind.select("metric", "record", "called", delta=pl.col("aggregation_temporality") == _DELTA)
        parts.append(told[_owners(lists)].hstack(pl.DataFrame(pl.from_arrow(pa.table(columns)))))
        attributes.append(flat.field("attributes"))
    return pl.concat(parts, how="diagonal"), _attributes(pa.concat_arrays(attributes))


def _read(points: pl.DataFrame) -> pl.DataFrame:
    """What each point says, and `why` that is not read; null when it is."""
    family = pl.col("called").replace_strict(FAMILY_OF, return_dtype=pl.String)
    points = points.with_columns(
        family=family,
        by=family.replace_strict(BY, default=None, return_dtype=pl.String),
        modality=pl.col(_OF_POINT + MODALITY),
        double=pl.coalesce("as_double", "sum"),
    )
    token_type = pl.coalesce(
        *(pl.when(pl.col("by") == key).then(pl.col(_OF_POINT + key)) for key in sorted(set(BY.values())))
    )
    said = pl.when(pl.col("by").is_null()).then("called").otherwise(pl.concat_str("called", pl.lit("#"), token_type))
    amount, whole = pl.coalesce(pl.col("as_int").cast(pl.Float64), "double"), pl.col("double").floor()
    return points.with_columns(
        token_type=token_type,
        feeds=said.replace_strict(FEEDS, default=None, return_dtype=pl.String),
        amount=pl.coalesce(pl.col("as_int").cast(pl.String), pl.col("double").cast(pl.String)),
        value=pl.coalesce("as_int", whole.cast(pl.Int64, strict=False)),
        count=pl.col("count").cast(pl.Int64, strict=False),
        cut=(whole != pl.col("double")).fill_null(False),
        odd=pl.when(amount < 0).then(pl.lit("negative_tokens"))
        .when(~amount.is_between(0, MOST_TOLD) | (pl.col("count") > MOST_TOLD).fill_null(False))
        .then(pl.lit("absurd_tokens")),
    ).with_columns(
        why=pl.when(pl.col("feeds").is_null()).then(pl.lit("token_type:") + _tidy(pl.col("token_type")))
        .when(amount.is_null()).then(pl.lit("no_value")),
    )  # fmt: skip


# ---- identities


def _identified(points: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """With the identities of each point in place of what they are made of; `pairs` are its attributes."""
    told = pairs.join(points.select("by").with_row_index("owner"), on="owner", how="left", maintain_order="left")
    others = told.filter(pl.col("key").ne_missing(pl.col("by")) & (pl.col("key") != MODALITY))
    once = pl.when("delta").then(_joined("start_ns", "end_ns")).otherwise(_joined("start_ns"))
    points = (
        points.with_columns(others=_identity(others, points.height), once=once)
        .with_columns(source=_joined("of_resource", "scope", "scope_version", "of_scope"))
        .with_columns(fold=_joined("source", "family", "others"))
        .with_columns(series=_joined("fold", "called", "token_type", "modality", "once"))
    )
    kept = [name for name in points.columns if name not in _RAW and not name.startswith(_OF_POINT)]
    return points.select(kept).with_columns(
        digest(points[name], 16).alias(name) for name in ("source", "fold", "series")
    )


def digest(texts: pl.Series, size: Literal[8, 16]) -> pl.Series:
    """A hash of each text in `size` bytes, the same for as long as rows live."""
    whole = pl.col("of")
    words = [(whole // 2**64).cast(pl.UInt64).alias("high")] * (size == 16) + [(whole % 2**64).cast(pl.UInt64)]
    stored = np.ascontiguousarray(_hashed(texts).to_frame("of").select(words).to_numpy().astype(">u8"))
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(texts), [None, pa.py_buffer(stored)])
    return pl.Series(ids, dtype=pl.Binary)


def _hashed(texts: pl.Series) -> pl.Series:
    return texts.to_frame("text").select(plh.col("text").nchash.xxh3_128()).to_series()


def _identity(pairs: pl.DataFrame, rows: int) -> pl.Series:
    """One text per owner, the same for the same attributes in whatever order they came."""
    joined = pairs.sort("owner", "pair").group_by("owner", maintain_order=True).agg(pl.col("pair").str.join())
    owners = pl.DataFrame({"owner": pl.int_range(rows, dtype=pl.UInt32, eager=True)})
    texts = owners.join(joined, on="owner", how="left", maintain_order="left")["pair"].fill_null("")
    return _hashed(texts).cast(pl.String)


def _pairs(attributes: _Attributes) -> pl.DataFrame:
    """Every attribute: whose (`owner`), its `key`, and a `pair` of key and value; an array is a pair per item."""
    keys = pl.Series(attributes.keys.take(pa.array(attributes.key)), dtype=pl.String)
    lists = pc.struct_field(pc.struct_field(attributes.values, "array_value"), "values")
    of_item = _owners(lists)
    place = np.arange(len(of_item)) - np.searchsorted(of_item, of_item)
    single = {"owner": attributes.owner, "key": keys, "place": np.full(len(keys), -1)}
    items = {"owner": attributes.owner[of_item], "key": keys.gather(of_item), "place": place}
    both = pl.concat(
        pl.DataFrame(told).with_columns(value=_texts(values))
        for told, values in ((single, attributes.values), (items, lists.flatten()))
    )
    return both.select(pl.col("owner").cast(pl.UInt32), "key", pair=_joined("key", "place", "value"))


def _texts(values: pa.StructArray) -> pl.Series:
    """Scalars as text that differs whenever they differ, be it in type alone."""
    fields = {name: pc.struct_field(values, f"{name}_value") for name in ("string", "int", "bool", "double")}
    frame = pl.DataFrame(pl.from_arrow(pa.table(fields))).with_columns(pl.col("double").reinterpret(dtype=pl.Int64))
    return frame.select(pl.coalesce(pl.concat_str(pl.lit(name[0]), name) for name in fields).fill_null("")).to_series()


def _joined(*columns: str) -> pl.Expr:
    """Columns as one text, each behind its length, so that different values never make the same text."""
    texts = [pl.col(column).cast(pl.String).fill_null("") for column in columns]
    return pl.concat_str([part for text in texts for part in (text.str.len_bytes(), pl.lit(":"), text)])


def _tidy(name: pl.Expr) -> pl.Expr:
    return name.fill_null("none").str.to_lowercase().str.slice(0, 40).str.replace_all(r"[^a-z0-9_.:-]", "?")


_RAW: Final = frozenset(
    {*_NUMBER, *_HISTOGRAM, "double", "metric", "called", "by", "token_type", "of_resource", "of_scope"}
    | {"others", "once"}
) - {"count"}  # fmt: skip
