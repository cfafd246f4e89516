"""The usage rule: from a dialect's counters to tokens in one normal form, for new rows and for stored ones alike.

`told` asks a dialect's tables; `normal_form` makes the numbers keep their promises (parts within totals, nothing
negative) by what they prove of each other, and stores what it had to doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import polars as pl

from millicent.collector.dialects import DIALECTS, RAW, Dialect
from millicent.warehouse import record

MOST_TOKENS: Final = 1_000_000_000
MOST_OF_METRIC: Final = 1_000_000_000_000
"""A data point sums the calls of an interval."""
MOST_UNITS: Final = 1_000_000_000_000
"""Of a billable unit beside tokens: pixels are many."""
CACHE_WRITES_BY_TIME: Final = tuple(
    name for name in record.TOKENS if name.startswith("cache_write_") and name != "cache_write_tokens"
)
CACHES: Final = ("cache_read_tokens", "cache_write_tokens", *CACHE_WRITES_BY_TIME)
FLAGS: Final = frozenset(
    {
        "input_excluded_cache",
        "output_excluded_reasoning",
        "cache_without_input",
        "failed_without_usage",
        "cache_semantics_assumed",
        "output_from_total",
        "totals_disagree",
        "units_not_believed",
    }
    | {flag for dialect in DIALECTS for flag in dialect.flags}
)
"""Doubts that the usage rule stores; any other was stored by somebody else."""
TOLD: Final = ("total", "input_rest", "output_rest", "excludes_cache", "excludes_reasoning", "dialect_flags")
"""What `told` leaves for `normal_form` beside the columns of tokens."""


def told(rows: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """`rows` with what the dialect's tables make of their counters, in the columns of tokens and of `TOLD`.

    Args:
        rows: One dialect's; counters as whole numbers in columns `raw:NAME` where any came, beside the stored columns
            that `Dialect` names, and `units` by names that the dialect does not read, which stay.
        dialect: Whose.
    """
    rows = rows.with_columns(
        pl.lit(None, pl.Int64).alias(name) for name in dialect.rule_roots if name not in rows.columns
    )
    tokens = {name: _first(rows, dialect.usage.get(name, ())) for name in record.TOKENS}
    some = pl.any_horizontal(tokens[name].is_not_null() for name in ("input_tokens", "output_tokens"))
    some &= pl.col("signal") != "metric"  # what a metric leaves out may have no metric at all
    for name in dialect.absent_is_zero:
        tokens[name] = pl.when(some).then(tokens[name].fill_null(0))
    for name, wrong in dialect.unbelievable.items():
        tokens[name] = pl.when(~wrong.fill_null(False)).then(tokens[name])
    excludes = pl.lit(None, pl.Boolean) if dialect.excludes_cache is None else dialect.excludes_cache.fill_null(False)
    flags = [pl.when(when.fill_null(False)).then(pl.lit(flag)) for flag, when in dialect.flags.items()]
    units, odd = _units(rows, dialect)
    if odd is not None:
        flags.append(pl.when(odd).then(pl.lit("units_not_believed")))
    return rows.with_columns(
        **tokens,
        units=units,
        total=_first(rows, dialect.total),
        input_rest=_sum(rows, dialect.input_rest),
        output_rest=_sum(rows, dialect.output_rest),
        excludes_cache=excludes,
        excludes_reasoning=dialect.excludes_reasoning.fill_null(False),
        dialect_flags=pl.concat_list(flags).list.drop_nulls() if flags else pl.lit(None, pl.List(pl.String)),
    )


def _units(rows: pl.DataFrame, dialect: Dialect) -> tuple[pl.Expr, pl.Expr | None]:
    """Other billable units by name, and where some cannot be true; what is told as 0 leaves an empty list."""
    nothing = rows["units"].null_count() == rows.height
    others = pl.lit(None, rows.schema["units"])
    if not nothing:
        left = pl.col("units").list.filter(~pl.element().struct.field("key").is_in(list(dialect.units)))
        others = pl.when(left.list.len() > 0).then(left)
    came = {name: [RAW + key for key in keys if RAW + key in rows.columns] for name, keys in dialect.units.items()}
    came = {name: [key for key in keys if rows[key].null_count() < rows.height] for name, keys in came.items()}
    counts = {name: pl.coalesce(keys) for name, keys in sorted(came.items()) if keys}
    if not counts:
        return others, None
    known = [
        pl.when(count.is_between(1, MOST_UNITS)).then(pl.struct(key=pl.lit(name), value=count))
        for name, count in counts.items()
    ]
    right = {name: count.is_between(0, MOST_UNITS) for name, count in counts.items()}
    odd = pl.any_horizontal((~one).fill_null(False) for one in right.values())
    some = pl.any_horizontal(one.fill_null(False) for one in right.values())
    units = pl.concat_list(known).list.drop_nulls()
    if not nothing:
        by_name = pl.element().sort_by(pl.element().struct.field("key"))
        units = pl.concat_list(units, others.fill_null([])).list.eval(by_name)
    return pl.when(some | others.is_not_null()).then(units), odd


def raw_text(rows: pl.DataFrame) -> pl.Expr:
    """The counters that came, as compact JSON; null where none did."""
    came = sorted(name for name in rows.columns if name.startswith(RAW) and rows[name].null_count() < rows.height)
    if not came:
        return pl.lit(None, pl.String)
    said = [pl.concat_str(pl.lit(f'"{name.removeprefix(RAW)}":'), pl.col(name).cast(pl.String)) for name in came]
    joined = pl.concat_str(said, separator=",", ignore_nulls=True)
    return pl.when(joined != "").then(pl.concat_str(pl.lit("{"), joined, pl.lit("}")))


def from_raw_text(rows: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """`rows` with the counters of `usage_raw` in columns again."""
    keys = pl.Struct(dict.fromkeys(dialect.counters, pl.Int64))
    counters = rows["usage_raw"].str.json_decode(keys).struct.unnest()
    return rows.hstack(counters.rename({name: RAW + name for name in counters.columns}))


def normal_form(rows: pl.DataFrame) -> pl.DataFrame:
    """Tokens that keep their promises, `usage_flags` and `usage_source`; the columns of `TOLD` go away.

    Needs, beside what `told` leaves, `signal`, `status`, `operation`, `provider`, `model`, `told_source` and, where
    there is any, doubt of others in `other_flags`.
    """
    placeholder = (pl.col("input_tokens") == 0) & (pl.col("output_tokens") == 0) & (pl.col("status") != "error")
    said = placeholder.not_().fill_null(value=True) | (pl.col("signal") == "metric")
    rows = rows.with_columns(pl.when(said).then(name).alias(name) for name in record.TOKENS)
    none = pl.col("input_tokens").is_null() & pl.col("output_tokens").is_null()
    by_time = _known_sum(CACHE_WRITES_BY_TIME)
    rows = rows.with_columns(
        failed=(pl.col("status") == "error") & none & pl.col("told_source").ne_missing("missing"),
        cache_write_tokens=pl.max_horizontal("cache_write_tokens", by_time),
    )
    input_ = pl.col("input_tokens") + pl.col("input_rest")
    output = pl.col("output_tokens") + pl.col("output_rest")
    total, reasoning = pl.col("total"), pl.col("reasoning_tokens").fill_null(0)
    cache = pl.col("cache_read_tokens").fill_null(0) + pl.col("cache_write_tokens").fill_null(0)

    proved = (cache > pl.col("input_tokens")) | (
        (cache > 0)
        & (total != input_ + output)
        & _one_of(total, input_ + cache + output, input_ + cache + output + reasoning)
    )
    rows = rows.with_columns(
        proved=proved.fill_null(False),
        cache=cache,
        lost=pl.col("input_tokens").is_null() & (cache > 0) & (pl.col("signal") != "metric"),
    )
    excluded = pl.col("proved") | pl.col("excludes_cache").fill_null(False)
    rows = rows.with_columns(whole_input=pl.when(excluded).then(input_ + cache).otherwise(input_))
    whole = pl.col("whole_input")

    inside = (total == whole + output).fill_null(False)  # gateways that estimate reasoning may come out above it
    beside = ((reasoning > output) & ~inside) | ((reasoning > 0) & (total == whole + output + reasoning))
    rows = rows.with_columns(beside=beside.fill_null(False))
    sum_ = pl.when(pl.col("beside") | pl.col("excludes_reasoning")).then(output + reasoning).otherwise(output)
    google = pl.col("provider").str.starts_with("gcp.") | pl.col("model").str.contains("gemini", literal=True)
    rows = rows.with_columns(whole_output=sum_)
    left = (google & (total > whole + pl.col("whole_output"))).fill_null(False)
    embedded = (pl.col("operation") == "embeddings") & pl.col("input_tokens").is_not_null()
    rows = rows.with_columns(
        left=left,
        whole_output=pl.when(left).then(total - whole)
        .when(embedded & pl.col("output_tokens").is_null()).then(0)
        .otherwise("whole_output"),
    )  # fmt: skip
    summed = pl.col("whole_output")
    agrees = _one_of(total, input_ + output, whole + output, whole + summed)

    read = {name: pl.col(name) for name in record.TOKENS}
    read |= {name: pl.when(~pl.col("lost")).then(name) for name in CACHES}
    read["input_tokens"], read["output_tokens"] = whole, summed
    unbelieved = reasoning > summed
    read["reasoning_tokens"] = pl.when(~unbelieved.fill_null(False)).then("reasoning_tokens")
    flags = {
        "input_excluded_cache": pl.col("proved") & ~pl.col("excludes_cache").fill_null(False),
        "output_excluded_reasoning": pl.col("beside") & ~pl.col("excludes_reasoning"),
        "cache_without_input": pl.col("lost") & ~pl.col("failed"),
        "failed_without_usage": pl.col("failed"),
        "cache_semantics_assumed": pl.col("excludes_cache").is_null()
        & ~pl.col("proved")
        & (cache > 0)
        & (pl.col("signal") != "metric")
        & input_.is_not_null(),
        "output_from_total": pl.col("left"),
        "totals_disagree": (~agrees & (pl.col("output_tokens").is_not_null())) | unbelieved,
    }
    doubts = pl.concat_list(pl.when(when.fill_null(False)).then(pl.lit(flag)) for flag, when in flags.items())
    others = [name for name in ("dialect_flags", "other_flags") if name in rows.columns]
    rows = rows.with_columns(
        **{name: pl.when("failed").then(0).otherwise(tokens) for name, tokens in read.items()},
        usage_flags=pl.concat_list(doubts, *(pl.col(name).fill_null([]) for name in others)).list.drop_nulls(),
    )
    missing = pl.all_horizontal(pl.col(name).is_null() for name in ("input_tokens", "output_tokens", "units"))
    source = pl.when(pl.col("told_source") == "estimated").then(pl.lit("estimated")).otherwise(pl.lit("reported"))
    return rows.with_columns(usage_source=pl.when(missing).then(pl.lit("missing")).otherwise(source)).drop(
        *TOLD, *_STEPS, "told_source", "other_flags", strict=False
    )


_STEPS: Final = ("failed", "proved", "cache", "lost", "whole_input", "beside", "whole_output", "left")


def _one_of(number: pl.Expr, *candidates: pl.Expr) -> pl.Expr:
    return pl.any_horizontal(number == candidate for candidate in candidates)


def _first(rows: pl.DataFrame, keys: Sequence[str]) -> pl.Expr:
    came = [pl.col(RAW + key) for key in keys if RAW + key in rows.columns]
    return pl.coalesce(*came) if came else pl.lit(None, pl.Int64)


def _sum(rows: pl.DataFrame, keys: Sequence[str]) -> pl.Expr:
    came = [pl.col(RAW + key) for key in keys if RAW + key in rows.columns]
    return pl.sum_horizontal(came).fill_null(0) if came else pl.lit(0, pl.Int64)


def _known_sum(names: Iterable[str]) -> pl.Expr:
    """The sum of what is known; null when nothing is."""
    some = tuple(names)
    return pl.when(pl.any_horizontal(pl.col(name).is_not_null() for name in some)).then(pl.sum_horizontal(some))
