"""Which rows tell of the same call, decided over everything known of them: the order of arrival does not matter.

Evidence, strongest first: the same id of the provider; one span inside another with the same tokens, or one of the two
without any; a stream's own span after the span of its request; another instrumentation of the same service that saw the
same model take and give the same tokens at the same time. Rows of one teller (service, scope, dialect, signal) are
never the same call: two equal calls in parallel are two bills.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import polars as pl

from millicent.collector.attribution import listed, source_of
from millicent.collector.dialects import ENGINES, RANKS, WRAPS
from millicent.warehouse import record
from millicent.warehouse.tables import EDGE_TAGS

TELLER: Final = ("tenant", "service", "scope", "dialect", "signal")
SPAN: Final = ("tenant", "trace_id", "span_id")
WHERE_TAGS: Final = ("deployment", "engine", "accelerator", "accelerator_count", "precision", "region", "environment")
"""Tags of the engine that served a call: a parent's resource says where the parent ran, not where the call did."""
FACTS: Final = (
    "provider", "request_model", "response_model", "streaming", "service_tier", "price_context", "endpoint_host",
    "error_type", "response_id", "request_id", "ttft_ms", "sample_weight",
)  # fmt: skip
PARTS: Final = (*(name for name in record.TOKENS if name not in {"input_tokens", "output_tokens"}), "units")
MERGED: Final = (*EDGE_TAGS, *FACTS, *PARTS, "model", "tag_sources", "identity_source", "usage_flags")
"""What a row that counts may take from the others."""
DEEPEST: Final = 64
TOLERANCE: Final = pl.duration(seconds=1)
SURPLUS: Final = 16
"""Output tokens that OpenLLMetry may count too many on a stream: it adds the placeholder of the first event."""
SURPLUS_OF: Final = ("openllmetry", "openllmetry_old")
CROWD: Final = 64
"""A bucket of more rows is paired in order of time, not each with each."""
STREAM_OF: Final = {"logfire_stream": "logfire"}
"""Dialects whose span tells how a stream ended, and the dialect of the span of its request."""
HALVES: Final = STREAM_OF | {request: stream for stream, request in STREAM_OF.items()}
_MARKS: Final = (
    "at", "teller", "known", "failed", "ended_at", "rank", "wraps", "request_model_family", "response_model_family",
)  # fmt: skip
_WORST: Final = 90
_FAR: Final = 10**13
"""Microseconds, longer than any call."""


def decide(rows: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Decide over all tellings of some calls.

    Args:
        rows: calls in their own words, each once; columns of the record without price.
        edges: spans that are no calls; columns of the table of that name.

    Returns:
        `rows` in another order, with the columns of `MERGED` as they read after merging, and `counted`,
        `not_counted_reason`, `counted_as`, `counted_as_trace_id`.
    """
    rows = rows.sort(*SPAN, "started_at").with_row_index("at").with_columns(_marks())
    above = _above(rows, edges)
    rows = _inherited(rows, edges, above)
    wrapping = _wrapping(rows, above)
    open_ = rows.join(wrapping, on="at", how="anti")
    evidence = [pairs.select("a", "b", "distance") for pairs in _evidence(open_, above)]
    concerned = pl.concat([*(pairs.select(at=end) for pairs in evidence for end in ("a", "b")),
                           *(wrapping.select(at=end) for end in ("at", "inner"))]).unique()  # fmt: skip
    several = rows.join(concerned, on="at", how="semi")
    groups = several.select("at", group="at")
    for pairs in evidence:
        groups = _paired(groups, several, pairs)
    alone = rows.join(concerned, on="at", how="anti").with_columns(
        counted=pl.lit(value=True),
        not_counted_reason=pl.lit(None, pl.String),
        counted_as=pl.lit(None, pl.UInt64),
        counted_as_trace_id=pl.lit(None, pl.Binary),
    )
    return pl.concat([alone, _merged(several, groups, wrapping).select(alone.columns)]).drop(_MARKS)


def _marks() -> list[pl.Expr]:
    """What rows are compared by."""
    none = (pl.col("input_tokens") == 0) & (pl.col("output_tokens") == 0)
    date = r"(?:[-@]\d{8}|-\d{4}-\d{2}-\d{2}|-latest)$"
    family = {
        f"{name}_family": pl.col(name).str.to_lowercase().str.extract(r"([^/]+)$").str.replace(date, "")
        for name in ("request_model", "response_model")
    }
    return [
        pl.concat_str(*(pl.col(name).fill_null("") for name in TELLER), separator="\x1f").alias("teller"),
        (pl.col("input_tokens").is_not_null() | pl.col("output_tokens").is_not_null()).alias("known"),
        ((pl.col("status") == "error") & none.fill_null(value=False)).alias("failed"),
        (pl.col("started_at") + pl.duration(milliseconds=pl.col("duration_ms").fill_null(0))).alias("ended_at"),
        pl.col("dialect").replace_strict(dict(RANKS), default=_WORST, return_dtype=pl.Int64).alias("rank"),
        pl.col("dialect").is_in(list(WRAPS)).alias("wraps"),
        *(expression.alias(name) for name, expression in family.items()),
    ]


# ---- what stands above a row in its trace


def _above(rows: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """For each row, the spans above it in its trace: `at`, `node` (an `at`, or behind them an edge), `depth`."""
    of_rows = rows.select(*SPAN, "parent_span_id", node=pl.col("at").cast(pl.Int64))
    of_edges = edges.with_row_index("edge").select(
        *SPAN, "parent_span_id", node=pl.col("edge").cast(pl.Int64) + rows.height
    )
    nodes = pl.concat([of_rows, of_edges]).unique(SPAN, keep="first", maintain_order=True)
    parents = nodes.join(
        nodes.select(*SPAN, parent="node"), left_on=["tenant", "trace_id", "parent_span_id"], right_on=SPAN
    ).select("node", "parent")
    level = parents.filter(pl.col("node") < rows.height).select(at="node", node="parent")
    levels = []
    for depth in range(1, DEEPEST + 1):
        level = level.filter(pl.col("at") != pl.col("node"))
        if level.is_empty():
            break
        levels.append(level.with_columns(depth=pl.lit(depth)))
        level = level.join(parents, on="node").select("at", node="parent")
    empty = pl.DataFrame(schema={"at": pl.Int64, "node": pl.Int64, "depth": pl.Int32})
    return pl.concat([empty, *levels]).with_columns(pl.col("at").cast(pl.UInt32))


def _inherited(rows: pl.DataFrame, edges: pl.DataFrame, above: pl.DataFrame) -> pl.DataFrame:
    """Tags from above: what a span above says goes before what the row's own resource says."""
    if above.is_empty():
        return rows
    said = pl.concat(
        [
            rows.select("tag_sources", *EDGE_TAGS, node=pl.col("at").cast(pl.Int64)),
            edges.with_row_index("edge").select(
                "tag_sources", *EDGE_TAGS, node=pl.col("edge").cast(pl.Int64) + rows.height
            ),
        ]
    )
    nearest = above.join(said, on="node").sort("at", "depth").group_by("at", maintain_order=True)
    found = nearest.agg(
        *(pl.col(tag).filter(_on_span(tag)).drop_nulls().first().alias(f"{tag}_span") for tag in EDGE_TAGS),
        *(pl.col(tag).filter(~_on_span(tag)).drop_nulls().first().alias(f"{tag}_resource") for tag in EDGE_TAGS),
    )
    rows = rows.join(found, on="at", how="left", maintain_order="left")
    values, sources = {}, {}
    for tag in EDGE_TAGS:
        own, own_resource = pl.when(_on_span(tag)).then(tag), pl.when(~_on_span(tag)).then(tag)
        higher = pl.lit(None) if tag in WHERE_TAGS else pl.col(f"{tag}_resource")
        values[tag] = pl.coalesce(own, f"{tag}_span", own_resource, higher)
        inherited = own.is_null() & (pl.col(f"{tag}_span").is_not_null() | own_resource.is_null())
        sources[tag] = pl.when(inherited).then(pl.lit("inherited")).otherwise(source_of(tag))
    return rows.with_columns(**values, **_sourced(values, sources)).drop(found.columns[1:])


def _on_span(tag: str) -> pl.Expr:
    return source_of(tag).is_null()


def _sourced(values: dict[str, pl.Expr], sources: dict[str, pl.Expr]) -> dict[str, pl.Expr]:
    """`tag_sources` and `identity_source` of tags with these values."""
    return {
        "tag_sources": listed({tag: pl.when(values[tag].is_not_null()).then(sources[tag]) for tag in sorted(values)}),
        "identity_source": pl.when(values["team"].is_not_null()).then(sources["team"].fill_null("span")),
    }


def _wrapping(rows: pl.DataFrame, above: pl.DataFrame) -> pl.DataFrame:
    """Spans around calls that count themselves: `at`, and `inner`, the nearest of those calls."""
    inner = rows.filter("known", ~pl.col("failed")).select("at", "operation", inner_started="started_at")
    outer = rows.filter("wraps").select("operation", node=pl.col("at").cast(pl.Int64), wrapper="at")
    around = above.join(outer, on="node").join(inner, on=["at", "operation"])
    return (
        around.filter(~pl.col("at").is_in(around["wrapper"].implode()))
        .sort("depth", "inner_started", "at")
        .group_by("wrapper", maintain_order=True)
        .agg(inner=pl.col("at").first())
        .rename({"wrapper": "at"})
    )


# ---- pairs of rows that tell of one call


def _evidence(rows: pl.DataFrame, above: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Pairs by strength: `a`, `b`, `distance`."""
    for id_ in ("response_id", "request_id"):
        several = rows.filter(pl.col(id_).is_not_null() & pl.struct("tenant", id_).is_duplicated())
        yield _each_with_each(several, ["tenant", id_])
    yield _nested(rows, above)
    yield _streams(rows)
    yield _same_tokens(rows)


_SHOWN: Final = (
    "at", "teller", "started_at", "ended_at", "input_tokens", "output_tokens", "known", "failed", "dialect",
    "streaming",
    "request_model_family", "response_model_family",
)  # fmt: skip


def _nested(rows: pl.DataFrame, above: pl.DataFrame) -> pl.DataFrame:
    """One span inside another, with the same tokens, or one of them without any."""
    shown = rows.select(*_SHOWN)
    pairs = (
        above.join(shown, on="at")
        .with_columns(node=pl.col("node").cast(pl.UInt32))
        .join(shown, left_on="node", right_on="at", suffix="_b")
    )
    totals = (pl.col(name).eq_missing(pl.col(f"{name}_b")) for name in ("input_tokens", "output_tokens"))
    same = pl.all_horizontal(pl.col("failed") == pl.col("failed_b"), *totals)
    inner_alone = pl.col("known") & ~pl.col("failed") & (~pl.col("known_b") | pl.col("failed_b"))
    outer_alone = ~pl.col("known") & pl.col("known_b") & ~pl.col("failed_b")
    return pairs.filter(same | inner_alone | outer_alone, pl.col("teller") != pl.col("teller_b")).select(
        a="at", b="node", distance=pl.col("depth").cast(pl.Int64)
    )


def _streams(rows: pl.DataFrame) -> pl.DataFrame:
    """The span of a request, and the span that tells how its stream ended."""
    ends = rows.filter(pl.col("dialect").is_in(list(STREAM_OF))).with_columns(
        of=pl.col("dialect").replace_strict(STREAM_OF, default=None, return_dtype=pl.String)
    )
    keys = ["tenant", "service", "scope", "request_model"]
    starts = rows.filter(pl.col("dialect").is_in(list(STREAM_OF.values())), ~pl.col("known"))
    pairs = ends.select(*keys, "of", "at", "started_at").join(
        starts.select(*keys, "dialect", "at", "ended_at"), left_on=[*keys, "of"], right_on=[*keys, "dialect"],
        nulls_equal=True, suffix="_b",
    )  # fmt: skip
    apart = (pl.col("started_at") - pl.col("ended_at")).abs()
    return pairs.filter(apart <= TOLERANCE).select(a="at", b="at_b", distance=apart.dt.total_microseconds())


def _same_tokens(rows: pl.DataFrame) -> pl.DataFrame:
    """Different tellers of one service that saw the same tokens of the same model at the same time."""
    bucket = ["tenant", "service", "input_tokens", "failed"]
    told_by_several = (pl.col("teller").n_unique().over(bucket) > 1) & (pl.col("signal") != "metric")
    several = rows.filter(told_by_several, pl.col("service").is_not_null()).sort(*bucket, "started_at", "at")
    before = pl.col("ended_at").cum_max().shift(1).over(bucket)
    several = several.with_columns(gap=(pl.col("started_at") > before + TOLERANCE).fill_null(value=False))
    several = several.with_columns(crowd_at=pl.col("gap").cast(pl.Int64).cum_sum().over(bucket))
    pairs = _each_with_each(several, [*bucket, "crowd_at"], also=_SHOWN)
    more = pl.col("output_tokens") - pl.col("output_tokens_b")
    surplus = _may_exceed("") & more.is_between(0, SURPLUS) | _may_exceed("_b") & (-more).is_between(0, SURPLUS)
    tokens = pl.col("output_tokens").eq_missing(pl.col("output_tokens_b")) | surplus.fill_null(value=False)
    together = (pl.col("started_at") <= pl.col("ended_at_b") + TOLERANCE) & (
        pl.col("started_at_b") <= pl.col("ended_at") + TOLERANCE
    )
    models = ("request_model_family", "response_model_family")
    same_model = pl.any_horizontal(pl.col(x) == pl.col(f"{y}_b") for x in models for y in models)
    untold = pl.any_horizontal(pl.all_horizontal(pl.col(f"{x}{side}").is_null() for x in models) for side in ("", "_b"))
    return pairs.filter(tokens, together, same_model.fill_null(value=False) | untold).select("a", "b", "distance")


def _may_exceed(side: str) -> pl.Expr:
    return pl.col(f"dialect{side}").is_in(SURPLUS_OF) & pl.col(f"streaming{side}")


def _each_with_each(rows: pl.DataFrame, bucket: Sequence[str], also: Sequence[str] = ()) -> pl.DataFrame:
    """Pairs of different tellers within a bucket, those of the same rank in order of time nearest.

    In a crowd, only those of nearly the same rank.
    """
    shown = list(dict.fromkeys(("at", "teller", "started_at", "ended_at", *also)))
    placed = rows.select(*dict.fromkeys((*bucket, *shown))).with_columns(
        crowd=pl.len().over(bucket),
        place=pl.struct("started_at", "at").rank("ordinal").over([*bucket, "teller"]).cast(pl.Int64),
    )
    few, many = placed.filter(pl.col("crowd") <= CROWD), placed.filter(pl.col("crowd") > CROWD)
    right = [
        few.join(few, on=list(bucket), nulls_equal=True, suffix="_b"),
        *(
            many.join(
                many.with_columns(pl.col("place") + step, beside=pl.col("place")),
                on=[*bucket, "place"],
                nulls_equal=True,
                suffix="_b",
            ).rename({"beside": "place_b"})
            for step in (-2, -1, 0, 1, 2)
        ),
    ]
    pairs = pl.concat(right, how="diagonal").filter(
        pl.col("at") < pl.col("at_b"), pl.col("teller") != pl.col("teller_b")
    )
    apart = (pl.col("started_at") - pl.col("started_at_b")).abs() + (pl.col("ended_at") - pl.col("ended_at_b")).abs()
    ranks = (pl.col("place") - pl.col("place_b")).abs()
    return pairs.with_columns(a="at", b="at_b", distance=ranks * _FAR + apart.dt.total_microseconds())


def _paired(groups: pl.DataFrame, rows: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Join groups pair by pair, nearest first, as long as no teller comes twice in one."""
    tellers = rows.select("at", "teller")
    while True:
        members = groups.join(tellers, on="at").group_by("group").agg("teller")
        open_ = (
            pairs.select("a", "b", "distance")
            .join(groups.select(a="at", one="group"), on="a")
            .join(groups.select(b="at", other="group"), on="b")
            .filter(pl.col("one") != pl.col("other"))
            .select(low=pl.min_horizontal("one", "other"), high=pl.max_horizontal("one", "other"), distance="distance")
            .group_by("low", "high").agg(pl.col("distance").min())
            .join(members.rename({"group": "low", "teller": "tellers"}), on="low")
            .join(members.rename({"group": "high"}), on="high")
            .filter(pl.col("tellers").list.set_intersection("teller").list.len() == 0)
            .sort("distance", "low", "high").with_row_index("order")
            .select("order", "low", "high")
        )  # fmt: skip
        if open_.is_empty():
            return groups
        ends = pl.concat([open_.select("order", group="low"), open_.select("order", group="high")])
        first = ends.group_by("group").agg(first=pl.col("order").min())
        chosen = (
            open_.join(first.rename({"group": "low"}), on="low")
            .join(first.rename({"group": "high", "first": "first_of_high"}), on="high")
            .filter(pl.col("order") == pl.col("first"), pl.col("order") == pl.col("first_of_high"))
        )
        into = chosen.select(group="high", into="low")
        groups = groups.join(into, on="group", how="left").select("at", group=pl.coalesce("into", "group"))


# ---- one row that counts, with what the others know better


def _merged(rows: pl.DataFrame, groups: pl.DataFrame, wrapping: pl.DataFrame) -> pl.DataFrame:
    rows = rows.join(groups, on="at").join(wrapping, on="at", how="left")
    unknown = pl.sum_horizontal(pl.col(name).is_null() for name in PARTS)
    best = rows.filter(pl.col("inner").is_null()).sort(
        "group", pl.col("known").not_(), pl.col("usage_source") == "estimated", "rank", unknown, "started_at", "at"
    )
    heads = best.unique("group", keep="first", maintain_order=True).select("group", head="at")
    rows = rows.join(heads, on="group", how="left")
    of_inner = rows.select(inner="at", head_of_inner="head")
    rows = rows.join(of_inner, on="inner", how="left").with_columns(head=pl.coalesce("head_of_inner", "head"))
    counted = pl.col("head") == pl.col("at")
    about = rows.select(
        head="at", head_trace="trace_id", head_span="span_id", head_response="response_id", head_request="request_id"
    )
    rows = rows.join(about, on="head", how="left", maintain_order="left")
    reason = (
        pl.when(pl.col("inner").is_not_null()).then(pl.lit("wraps_counted_call"))
        .when(pl.col("dialect").is_in(list(ENGINES))).then(pl.lit("engine_of_counted_call"))
        .when(pl.col("response_id") == pl.col("head_response")).then(pl.lit("same_response"))
        .when(pl.col("request_id") == pl.col("head_request")).then(pl.lit("same_request"))
        .when(pl.col("dialect").is_in([*STREAM_OF, *STREAM_OF.values()])).then(pl.lit("stream_of_counted_call"))
        .otherwise(pl.lit("same_call_other_scope"))
    )  # fmt: skip
    rows = rows.with_columns(
        counted=counted,
        not_counted_reason=pl.when(~counted).then(reason),
        counted_as=pl.when(~counted).then("head_span"),
        counted_as_trace_id=pl.when(~counted).then("head_trace"),
    )
    return _completed(rows)


def _completed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that count, with the outermost's tags, the engine's facts, and what else the other tellings know."""
    several = rows.filter(pl.len().over("group") > 1, pl.col("inner").is_null())
    if several.is_empty():
        return rows
    outermost = several.sort("group", "started_at", pl.col("ended_at").dt.epoch("us").neg(), "at")
    richest = several.sort("group", pl.col("head") != pl.col("at"), pl.col("known").not_(), "rank", "at")
    engine_first = pl.col("dialect").is_in(list(ENGINES)).not_()
    innermost = several.sort("group", engine_first, pl.col("head") != pl.col("at"), "at")
    first: dict[str, pl.DataFrame] = {}
    of_engine = (*WHERE_TAGS, "ttft_ms")
    totals = pl.all_horizontal(
        pl.col(name).eq_missing(pl.col(name).first().over("group")) for name in ("input_tokens", "output_tokens")
    )
    first["tags"] = _firsts(outermost, [tag for tag in EDGE_TAGS if tag not in WHERE_TAGS], by_level=True)
    first["where"] = _firsts(innermost, of_engine)
    first["facts"] = _firsts(richest, [name for name in FACTS if name != "ttft_ms"])
    first["parts"] = _firsts(richest.filter(totals), PARTS)
    found = rows.filter("counted").select("at", "group")
    for frame in first.values():
        found = found.join(frame, on="group", how="inner", maintain_order="left")
    found = found.drop("group").rename(lambda name: name if name == "at" else f"{name}_found")
    rows = rows.join(found, on="at", how="left", maintain_order="left")
    values = {name: pl.coalesce(f"{name}_found", name) for name in (*EDGE_TAGS, *FACTS, *PARTS)}
    sources = {
        tag: pl.when(pl.col(f"{tag}_found").ne_missing(pl.col(tag)) & pl.col(f"{tag}_found").is_not_null())
        .then(pl.lit("merged")).otherwise(source_of(tag))
        for tag in EDGE_TAGS
    }  # fmt: skip
    learned = pl.any_horizontal(pl.col(name).is_null() & pl.col(f"{name}_found").is_not_null() for name in PARTS)
    flags = pl.when(learned).then(pl.lit(["merged_from_others"])).otherwise(pl.lit([], pl.List(pl.String)))
    tags = {tag: values[tag] for tag in EDGE_TAGS}
    flags = pl.col("usage_flags").list.concat(flags).list.unique(maintain_order=True)
    rows = rows.with_columns(**values, **_sourced(tags, sources), usage_flags=flags)
    return rows.with_columns(model=pl.coalesce("response_model", "request_model")).drop(found.columns[1:])


def _firsts(rows: pl.DataFrame, names: Sequence[str], *, by_level: bool = False) -> pl.DataFrame:
    """Per group, the first known value of each column; tags of spans before tags of resources, if asked."""
    if by_level:
        found = {
            tag: pl.coalesce(
                pl.col(tag).filter(source_of(tag).fill_null("") != "resource").drop_nulls().first(),
                pl.col(tag).drop_nulls().first(),
            )
            for tag in names
        }
    else:
        found = {name: pl.col(name).drop_nulls().first() for name in names}
    return rows.group_by("group", maintain_order=True).agg(**found)
