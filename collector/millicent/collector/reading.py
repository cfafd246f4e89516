"""Which rows are calls, whose way of writing usage they follow, and what their tokens mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
import polars_hash as plh

from millicent.collector import payloads, tokens
from millicent.collector.batch import Batch, Context
from millicent.collector.dialects import (
    ATTRIBUTION,
    DIALECTS,
    IN,
    PROVIDERS,
    RAW,
    STATUS,
    USAGE_SOURCE,
    Dialect,
    roots,
    wanted,
)
from millicent.collector.dialects.dialect import OWN_UNITS
from millicent.collector.dialects.providers import OPERATION_SUFFIX, SERVED_BY
from millicent.collector.tokens import MOST_OF_METRIC, MOST_TOKENS
from millicent.warehouse import record
from millicent.warehouse.frames import EMPTY

EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(hours=24)
LONGEST: Final = timedelta(hours=24)
_ERROR: Final = 2
_LONGEST_NS: Final = LONGEST // timedelta(microseconds=1) * 1000
_CERTAIN: Final = 2.0**56
_LARGEST_POWER: Final = 62
_TAGS: Final = tuple(key for keys in ATTRIBUTION.values() for key in keys)

_TYPES: Final[Mapping[str, type[pl.DataType]]] = {
    "text": pl.String, "payload": pl.String, "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean,
}  # fmt: skip
_ATTRIBUTES: Final = {key: _TYPES[kind] for key, kind in wanted().items()}
_LEFT_OUT: Final[Mapping[str, pl.DataType | type[pl.DataType]]] = {
    "name": pl.String, "scope": pl.String, "scope_version": pl.String, "trace_state": pl.String, "kind": pl.Int32,
    "status_code": pl.Int32, "first_token_ns": pl.UInt64, "call_count": pl.Int64, "point_flags": pl.List(pl.String),
    "units_told": EMPTY.schema["units"], "price_told": EMPTY.schema["labels"],
}  # fmt: skip
"""Columns that a decoded row need not have, beside attributes that nobody sent."""
_FACTS: Final[Mapping[str, type[pl.DataType]]] = {
    "streaming": pl.Boolean, "ttft_s": pl.Float64, "ttft_ms": pl.Float64, "endpoint_port": pl.Int64,
    "lasted_s": pl.Float64,
}  # fmt: skip
"""Types of facts that are not text."""

_BY_ID: Final = {dialect.id: dialect for dialect in DIALECTS}
_OF_SCOPE: Final = {
    pattern: tuple(dialect for dialect in DIALECTS if dialect.scope == pattern)
    for pattern in dict.fromkeys(dialect.scope for dialect in DIALECTS if dialect.scope is not None)
}
_UNIT: Final = r"^[a-z][a-z0-9_]{0,63}$"
_CONTEXT_KEY: Final = r"^[a-z][a-z_]{0,31}$"
_CONTEXT_VALUE: Final = r"^[a-z0-9][a-z0-9_./:-]{0,63}$"
_CONTEXT: Final = r"^[a-z_]+=[a-z0-9_./:-]{1,64}$"
_USUAL_SPEEDS: Final = ("standard", "normal")
_URL: Final = r"^(?:[A-Za-z][A-Za-z0-9+.-]*://)?(?:[^/@]*@)?(\[[^\]]*\]|[^/:?#]+)(?::([0-9]{1,5}))?"


def pick_calls(batch: Batch, _: Context) -> Batch:
    """Let go of rows that are not one physical LLM call: ordinary spans, roll-ups over several calls, other events.

    Spans among them stay in `edges`: calls below inherit their tags.
    """
    spans = _with(batch.spans, _LEFT_OUT)
    if "signal" not in spans.columns:
        spans = spans.with_columns(signal=pl.lit("span"))
    spans = spans.with_columns(dialect=_claimed(spans))
    spans = pl.concat([_worded(part, dialect) for dialect, part in _by_dialect(spans)] or [_worded(spans, None)],
                      how="diagonal")  # fmt: skip
    gone = spans.filter(pl.col("why").is_not_null() & (pl.col("signal") == "span"))
    batch = replace(batch, spans=spans, edges=_edges(gone)).leave(
        pl.col("why").is_not_null(), "not_a_call", pl.col("why")
    )
    return replace(batch, spans=batch.spans.drop("why"))


def read_dialect(batch: Batch, _: Context) -> Batch:
    """Bring each dialect's attributes to the columns of the record, and keep the counters as they came."""
    parts = [_read(part, dialect) for dialect, part in _by_dialect(batch.spans) if dialect is not None]
    return replace(batch, spans=pl.concat(parts or [_read(batch.spans, DIALECTS[0])]))


def normalise_tokens(batch: Batch, _: Context) -> Batch:
    """Make tokens keep their promises (parts within totals, never negative), and mark what cannot be true."""
    return replace(batch, spans=tokens.normal_form(batch.spans.with_columns(odd=_odd())))


def reread(rows: pl.DataFrame) -> pl.DataFrame:
    """Run today's usage rule over stored calls.

    Args:
        rows: Calls in the columns of the record, or at least `usage_raw`, `usage_flags`, `usage_source`, `usage_rule`,
            `dialect`, `provider`, `model`, `scope`, `scope_version`, `operation`, `status`, `streaming`, `signal`,
            `units` and tokens.

    Returns:
        The same rows in the same order with tokens, `usage_rule`, `usage_flags` and `usage_source` as the rule has them
        now. Rows of a dialect that is no more stay as they are.
    """
    placed = rows.with_row_index("place")
    parts = [part if dialect is None else _again(part, dialect) for dialect, part in _by_dialect(placed)]
    return pl.concat(parts or [placed]).sort("place").select(rows.columns)


def _again(rows: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    others = pl.col("usage_flags").list.set_difference(sorted(tokens.FLAGS))
    stored = rows.with_columns(told_source="usage_source", other_flags=others, usage_rule=pl.lit(dialect.rule))
    again = tokens.normal_form(tokens.told(tokens.from_raw_text(stored, dialect), dialect))
    return again.select(pl.col(name).cast(rows.schema[name]) for name in rows.columns)


def _by_dialect(spans: pl.DataFrame) -> Iterator[tuple[Dialect | None, pl.DataFrame]]:
    """Rows of one dialect after the other; None for those of none."""
    ids = spans["dialect"].unique().to_list()
    for id_ in sorted(ids, key=lambda id_: list(_BY_ID).index(id_) if id_ in _BY_ID else len(_BY_ID)):
        yield _BY_ID.get(id_), spans if len(ids) == 1 else spans.filter(pl.col("dialect").eq_missing(pl.lit(id_)))


def _with(spans: pl.DataFrame, columns: Mapping[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    """`spans` with every one of `columns`, null where it was not there."""
    return spans.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in columns.items() if name not in spans.columns
    )


def _with_attributes(spans: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    return _with(spans, {name: _ATTRIBUTES.get(name, pl.String) for name in names if name not in spans.columns})


# ---- which rows are calls


def _claimed(spans: pl.DataFrame) -> pl.Series:
    """The dialect of each row; null for those of none."""
    signals = set(spans["signal"].unique().to_list())
    scope = spans["scope"].fill_null("")
    scopes = pl.DataFrame({"scope": scope.unique()}).with_columns(
        family=pl.coalesce(*(pl.when(pl.col("scope").str.contains(p)).then(pl.lit(p)) for p in _OF_SCOPE))
    )
    known = set(scopes["family"].to_list())
    spans = spans.with_columns(family=scope.replace_strict(scopes["scope"], scopes["family"], return_dtype=pl.String))
    rows = [
        (dialect, (pl.col("family") == family) & dialect.marks)
        for family, dialects in _OF_SCOPE.items()
        if family in known
        for dialect in dialects
    ]
    if None in known or "log" in signals:
        alone = pl.col("family").is_null() | (pl.col("signal") == "log")
        rows += [(dialect, alone & dialect.unscoped) for dialect in DIALECTS if dialect.unscoped is not None]
    rows = [(dialect, when) for dialect, when in rows if signals & set(dialect.signals)]
    spans = _with_attributes(spans, [name for dialect, _ in rows for name in roots(dialect) if IN not in name])
    claims = (
        pl.when(when if signals <= set(dialect.signals) else when & pl.col("signal").is_in(dialect.signals))
        .then(pl.lit(dialect.id))
        for dialect, when in rows
    )  # fmt: skip
    return spans.with_columns(dialect=pl.coalesce(*claims, pl.lit(None, pl.String)))["dialect"]


def _worded(spans: pl.DataFrame, dialect: Dialect | None) -> pl.DataFrame:
    """`spans` of one dialect with `operation`, and `why` for those that are no calls."""
    if dialect is None:
        return spans.with_columns(operation=pl.lit(None, pl.String), why=pl.lit("no_dialect"))
    spans = _with_attributes(spans, [name for name in dialect.roots if IN not in name])
    told = (_first(spans, dialect.facts["operation"]) if dialect.word is None else dialect.word).str.to_lowercase()
    spans = spans.with_columns(word=told)
    word = pl.col("word")
    named = pl.when(word.str.contains(r"^(kind|span):")).then(word).otherwise(
        pl.concat_str(pl.lit(f"{dialect.reason}:"), word.fill_null("none"))
    ).str.slice(0, 50).str.replace_all(r"[^a-z0-9_.:-]", "?")  # fmt: skip
    others = (pl.when(when.fill_null(False)).then(pl.lit(reason)) for reason, when in dialect.not_calls.items())
    operation = word.replace_strict(dialect.calls, default=None, return_dtype=pl.String)
    why = pl.coalesce(pl.when(operation.is_null()).then(named), *others)
    return spans.with_columns(operation=operation, why=why).drop("word")


def _edges(spans: pl.DataFrame) -> pl.DataFrame:
    """What spans that are no calls leave behind: where they stood, when, and their tags as they came."""
    return _with_attributes(spans, _TAGS).select(
        "tenant", "trace_id", "received_at", *_TAGS,
        span_id=_id(pl.col("span_id")),
        parent_span_id=_id(pl.col("parent_span_id")),
        started_at=_instant(pl.col("start_ns")),
        duration_ms=pl.when(pl.col("end_ns") >= pl.col("start_ns")).then(_lasted_ms()),
    )  # fmt: skip


# ---- what they tell


def _read(spans: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """Rows of one dialect in the columns of the record, with what `tokens.normal_form` asks for."""
    spans = _with_attributes(payloads.read(spans, dialect), (*_TAGS, STATUS, USAGE_SOURCE, *dialect.roots))
    facts = {name: _first(spans, keys, _FACTS.get(name, pl.String)) for name, keys in dialect.facts.items()}
    facts |= {name: told.cast(_FACTS.get(name, pl.String)) for name, told in dialect.derived.items()}
    failed = facts.pop("status", pl.lit(None, pl.String)) == "error"
    speed = facts.pop("speed") if any(key in spans.columns for key in dialect.facts["speed"]) else None
    facts.pop("speed", None)
    counters = {RAW + key: _counter(spans, key) for key in dialect.counters if key in spans.columns}
    rows = spans.select(
        "tenant", "key_id", "received_at", "trace_id", "scope", "scope_version", "labels", "dialect", "operation",
        "signal", "start_ns", "end_ns", "first_token_ns", *_TAGS,
        span_id_bytes=pl.col("span_id"),
        span_id=_id(pl.col("span_id")),
        parent_span_id=_id(pl.col("parent_span_id")),
        status=pl.when(pl.col(STATUS) == "cancelled").then(pl.lit("cancelled"))
        .when((pl.col("status_code") == _ERROR) | failed).then(pl.lit("error")).otherwise(pl.lit("ok")),
        call_count=pl.when(pl.col("signal") == "metric").then("call_count").otherwise(1),
        sample_weight=_weight(spans["trace_state"]),
        tag_sources=pl.lit(None, pl.String),
        usage_rule=pl.lit(dialect.rule),
        told_source=pl.col(USAGE_SOURCE),
        point_flags=pl.col("point_flags"),
        units=_other_units(spans),
        price_context=_price_context(spans, speed),
        **counters,
        **{name: told for name, told in facts.items() if name != "operation"},
    )  # fmt: skip
    rows = _answered(_timed(rows), dialect)
    rows = rows.with_columns(
        usage_raw=tokens.raw_text(rows),
        model=pl.coalesce("response_model", "request_model"),
        response_id=plh.col("response_id").nchash.xxh3_64(),
        request_id=plh.col("request_id").nchash.xxh3_64(),
    )
    return tokens.told(rows, dialect).select(_COLUMNS)


_COLUMNS: Final = (
    "tenant", "key_id", "received_at", "trace_id", "span_id", "span_id_bytes", "parent_span_id", "scope",
    "scope_version", "labels", "dialect", "operation", "signal", *_TAGS, "started_at", "duration_ms", "ttft_ms",
    "status", "call_count", "sample_weight", "tag_sources", "provider", "request_model", "response_model", "model",
    "response_id", "request_id", "streaming", "endpoint_host", "endpoint_port", "error_type", "service_tier", "engine",
    "units", "price_context", "usage_rule", "usage_raw", "told_source", "other_flags", *record.TOKENS, *tokens.TOLD,
)  # fmt: skip
"""What a row carries from here."""


def _timed(rows: pl.DataFrame) -> pl.DataFrame:
    """When a call began, how long it took and when its first token came; doubt about its end."""
    if "lasted_s" in rows.columns:  # told at its end
        lasted = pl.when(pl.col("lasted_s").is_between(0, LONGEST.total_seconds())).then("lasted_s")
        rows = rows.with_columns(start_ns=pl.coalesce(pl.col("end_ns") - (lasted * 1e9).cast(pl.UInt64), "start_ns"))
    ended = pl.col("end_ns") > 0
    backwards = ended & (pl.col("end_ns") < pl.col("start_ns"))
    too_long = ended & ~backwards & (pl.col("end_ns") - pl.col("start_ns") > _LONGEST_NS)
    first_token_at = pl.col("first_token_at").str.strip_chars('"').str.to_datetime("%+", time_unit="ns", strict=False)
    after_ns = [pl.col("first_token_ns").cast(pl.Int64, strict=False), first_token_at.dt.epoch("ns")]
    came = [one for one, name in zip(after_ns, ("first_token_ns", "first_token_at"), strict=True)
            if rows[name].null_count() < rows.height]  # fmt: skip
    ttft_ms = pl.coalesce(
        pl.col("ttft_s") * 1000,
        "ttft_ms",
        *((one - pl.col("start_ns").cast(pl.Int64, strict=False)) / 1e6 for one in came),
    ).round()
    return rows.with_columns(
        started_at=_instant(pl.col("start_ns")),
        duration_ms=pl.when(ended & ~backwards & ~too_long).then(_lasted_ms()),
        ttft_ms=pl.when(ttft_ms >= 0).then(ttft_ms.cast(pl.Int64, strict=False)),
        other_flags=pl.concat_list(
            pl.when(backwards).then(pl.lit("ended_before_start")).when(too_long).then(pl.lit("lasted_over_a_day")),
            pl.col("point_flags").fill_null([]),
        ).list.drop_nulls(),
    )  # fmt: skip


def _answered(rows: pl.DataFrame, dialect: Dialect) -> pl.DataFrame:
    """Who answered: provider and engine by one name each, host and port; nobody where a call failed without usage."""
    keys = [RAW + key for name in ("input_tokens", "output_tokens") for key in dialect.usage[name]]
    used = pl.any_horizontal(pl.lit(False), *(pl.col(key).is_not_null() for key in keys if key in rows.columns))
    silent = (pl.col("status") == "error") & pl.col("response_id").is_null() & ~used
    if rows["endpoint_url"].null_count() < rows.height:
        url = pl.col("endpoint_url")
        rows = rows.with_columns(
            endpoint_host=pl.coalesce("endpoint_host", url.str.extract(_URL, 1)),
            endpoint_port=pl.coalesce("endpoint_port", url.str.extract(_URL, 2).cast(pl.Int64, strict=False)),
        )
    each = pl.DataFrame({"told": rows["provider"].unique()}).with_columns(
        name=pl.col("told").str.to_lowercase().str.replace(OPERATION_SUFFIX, "").replace(PROVIDERS)
    )
    each = each.with_columns(engine=pl.col("name").replace_strict(SERVED_BY, default=None, return_dtype=pl.String))
    provider = rows["provider"].replace_strict(each["told"], each["name"], return_dtype=pl.String)
    engine = rows["provider"].replace_strict(each["told"], each["engine"], return_dtype=pl.String)
    return rows.with_columns(
        provider=provider,
        engine=pl.lit(dialect.engine) if dialect.engine else engine,
        request_model=pl.when(silent).then(pl.coalesce("request_model", "response_model")).otherwise("request_model"),
        response_model=pl.when(~silent).then("response_model"),
    )


def _other_units(spans: pl.DataFrame) -> pl.Expr:
    """Units told by names that no price data knows: kept, so that somebody may give them a price."""
    nothing = pl.lit(None, EMPTY.schema["units"])
    if spans["units_told"].null_count() == spans.height:
        return nothing
    name, count = pl.element().struct.field("key"), pl.element().struct.field("value")
    is_other = name.str.contains(_UNIT) & ~name.is_in(list(OWN_UNITS)) & count.is_between(1, tokens.MOST_UNITS)
    others = pl.col("units_told").list.filter(is_other).list.eval(pl.element().sort_by(name))
    return pl.when(others.list.len() > 0).then(others)


def _price_context(spans: pl.DataFrame, speed: pl.Expr | None) -> pl.Expr:
    """What was asked for that has a price of its own, as `key=value`; what is usual says nothing."""
    said = []
    if spans["price_told"].null_count() < spans.height:
        name = pl.element().struct.field("key")
        value = pl.element().struct.field("value").str.strip_chars().str.to_lowercase()
        entry = pl.when(name.str.contains(_CONTEXT_KEY) & value.str.contains(_CONTEXT_VALUE)).then(
            pl.concat_str(name, pl.lit("="), value)
        )
        said.append(pl.col("price_told").list.eval(entry).list.drop_nulls())
    if speed is not None:
        unusual = pl.when(speed.str.to_lowercase().is_in(_USUAL_SPEEDS).not_()).then(
            pl.concat_str(pl.lit("speed="), speed.str.to_lowercase())
        )
        stated = pl.lit(value=False)
        if said:
            stated = said[0].list.eval(pl.element().str.starts_with("speed=")).list.any().fill_null(value=False)
        said.append(pl.concat_list(pl.when(unusual.str.contains(_CONTEXT) & ~stated).then(unusual)).list.drop_nulls())
    if not said:
        return pl.lit(None, pl.String)
    entries = pl.concat_list(*(one.fill_null([]) for one in said)).list.sort()
    return pl.when(entries.list.len() > 0).then(entries.list.join(","))


def _weight(states: pl.Series) -> pl.Expr:
    """How many spans each stands for, by the sampling probability in its trace state; null where none is told."""
    if not (states.str.len_bytes() > 0).any():
        return pl.lit(None, pl.Float64)
    told = pl.col("trace_state").str.extract(r"(?:^|,)\s*ot=([^,]*)", 1)
    rejected = (
        told.str.extract(r"(?:^|;)th:([0-9a-f]{1,14})(?:;|$)", 1).str.pad_end(14, "0")
        .str.to_integer(base=16, dtype=pl.UInt64, strict=False).cast(pl.Float64)
    )  # fmt: skip
    power = told.str.extract(r"(?:^|;)p:([0-9]{1,2})(?:;|$)", 1).cast(pl.Float64, strict=False)
    return pl.coalesce(_CERTAIN / (_CERTAIN - rejected), pl.when(power <= _LARGEST_POWER).then(2.0**power))


def _first(spans: pl.DataFrame, keys: Sequence[str], dtype: type[pl.DataType] = pl.String) -> pl.Expr:
    """The first of `keys` that says something; blank text says nothing."""
    came = [pl.col(key) for key in keys if key in spans.columns]
    if dtype == pl.String:
        came = [pl.when(key.str.strip_chars() != "").then(key.str.strip_chars()) for key in came]
    return pl.coalesce(*came) if came else pl.lit(None, dtype)


def _counter(spans: pl.DataFrame, key: str) -> pl.Expr:
    """A counter as a whole number; null where it is none."""
    if spans.schema[key] != pl.String:
        return pl.col(key)
    number = pl.col(key).cast(pl.Float64, strict=False)
    return pl.when((number == number.floor()) & (number.abs() < 2.0**53)).then(number.cast(pl.Int64, strict=False))


def _id(column: pl.Expr) -> pl.Expr:
    """Eight bytes as a number; null when there are not eight or all are zero."""
    number = column.bin.reinterpret(dtype=pl.UInt64, endianness="big")
    return pl.when((column.bin.size() == 8) & (number != 0)).then(number)


def _instant(nanoseconds: pl.Expr) -> pl.Expr:
    return (nanoseconds // 1000).cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _lasted_ms() -> pl.Expr:
    return (pl.col("end_ns") // 1_000_000).cast(pl.Int64) - (pl.col("start_ns") // 1_000_000).cast(pl.Int64)


def _odd() -> pl.Expr:
    """Why a row cannot be true: reason and detail; null when it can."""
    trace = pl.col("trace_id")
    ids = (trace.bin.size() == 16) & (trace != bytes(16)) & pl.col("span_id").is_not_null()
    started, latest = pl.col("started_at"), pl.col("received_at") + AHEAD
    counts = (*record.TOKENS, "input_rest", "output_rest")
    most = pl.when(pl.col("signal") == "metric").then(MOST_OF_METRIC).otherwise(MOST_TOKENS)
    negative = pl.any_horizontal((pl.col(name) < 0).fill_null(False) for name in counts)
    absurd = pl.any_horizontal((pl.col(name) > most).fill_null(False) for name in counts)
    rules = (
        (~ids, "bad_ids", pl.lit("a trace id has 16 bytes and a span id 8, not all zero")),
        (started > latest, "in_the_future", pl.format("started {}, received {}", started, "received_at")),
        (started < EARLIEST, "too_long_ago", pl.format("started {}, before 2020", started)),
        (negative, "negative_tokens", pl.col("usage_raw")),
        (absurd, "absurd_tokens", pl.col("usage_raw")),
    )
    return pl.coalesce(
        *(
            pl.when(broken).then(pl.struct(reason=pl.lit(reason), detail=detail.cast(pl.String)))
            for broken, reason, detail in rules
        )
    )
