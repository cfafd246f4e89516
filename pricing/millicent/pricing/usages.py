"""Frames of calls, and single calls as people and JSON write them, read into what pricing works on."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import polars as pl

from millicent.pricing.rates import INDEX, MAX_TOKENS, UNIT_INDEX, Count, Ints, Units
from millicent.pricing.units import REQUESTS

LOOKED_UP_BY = ("provider", "model", "endpoint_host", "service_tier", "price_context", "region", "billing")
UNITS_TYPE = pl.List(pl.Struct({"key": pl.String(), "value": pl.Int64()}))

_TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys(LOOKED_UP_BY, pl.String()),
    "started_at": pl.Datetime("us", "UTC"),
    "units": UNITS_TYPE,
    **dict.fromkeys(INDEX, pl.Int64()),
}
_ALWAYS = (*LOOKED_UP_BY, "input_tokens", "output_tokens")


def checked(usages: pl.DataFrame) -> pl.DataFrame:
    """The columns that pricing reads, all present, typed and valid.

    Raises:
        ValueError: `started_at` is missing, null or not in UTC, or a count is not an integer.
    """
    started = usages.schema.get("started_at")
    if not isinstance(started, pl.Datetime) or started.time_zone != "UTC":
        raise ValueError(
            f"started_at is {started!r}, not an instant in UTC: prices have dates; pass Datetime('us', 'UTC')"
        )
    if usages["started_at"].null_count():
        raise ValueError("started_at is null in some rows: prices have dates; set it, or leave the rows out")
    for name in INDEX:
        dtype = usages.schema.get(name)
        if dtype is not None and not (dtype.is_integer() or dtype == pl.Null):
            raise ValueError(f"{name} is {dtype!r}: token counts are integers; cast the column to Int64")
    return usages.select(
        *(
            pl.col(name).cast(dtype, strict=False) if name in usages.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in _TYPES.items()
            if name in usages.columns or name in _ALWAYS
        )
    )


def one_call(usage: Mapping[str, object]) -> pl.DataFrame:
    """A frame of one row. `units` and `price_context` may be objects; other members than columns are ignored.

    Raises:
        ValueError: `started_at` is no aware datetime, or a count is not an integer.
    """
    known = {name: value for name, value in usage.items() if name in _TYPES and value is not None}
    started_at = known.get("started_at")
    if not isinstance(started_at, datetime) or started_at.tzinfo is None:
        raise ValueError(f"started_at is {started_at!r}, not an aware datetime: prices have dates; add its zone")
    known["started_at"] = started_at.astimezone(UTC)
    for name in known.keys() & INDEX.keys():
        known[name] = _count(name, known[name])
    if "units" in known:
        known["units"] = [{"key": key, "value": _count(key, value)} for key, value in _pairs(known["units"])]
    if isinstance(context := known.get("price_context"), Mapping):
        known["price_context"] = ",".join(f"{key}={value}" for key, value in sorted(context.items()))
    return pl.DataFrame({name: [value] for name, value in known.items()}, schema={name: _TYPES[name] for name in known})


def token_counts(calls: pl.DataFrame) -> dict[str, Count]:
    """Token counts by column; what cannot be a count is unknown."""
    return {name: _known(calls[name].fill_null(-1).to_numpy()) for name in INDEX if name in calls.columns}


def unit_counts(calls: pl.DataFrame) -> Units | None:
    """Other units by key; None where no call has any. Every call is one request, so none is told of."""
    if "units" not in calls.columns or not calls["units"].list.len().sum():
        return None
    told = (
        calls.select("units", _row=pl.int_range(pl.len()))
        .filter(pl.col("units").list.len() > 0)
        .explode("units")
        .unnest("units")
        .filter(pl.col("key") != REQUESTS)
    )
    odd = np.zeros(len(calls), dtype=np.bool_)
    counts = {}
    for (key,), rows in told.group_by("key", maintain_order=True):
        values = np.full(len(calls), -1, dtype=np.int64)
        at = rows["_row"].to_numpy()
        values[at] = rows["value"].fill_null(-1).to_numpy()
        count = _known(values)
        odd[at] |= count.unknown[at]
        if key in UNIT_INDEX:
            counts[str(key)] = count
        else:
            odd |= count.values > 0
    return Units(counts, odd)


def _known(values: Ints) -> Count:
    unknown = (values < 0) | (values > MAX_TOKENS)
    return Count(np.where(unknown, 0, values) if unknown.any() else values, unknown)


def _count(name: str, count: object) -> int:
    if not isinstance(count, int) or isinstance(count, bool):
        raise ValueError(  # noqa: TRY004 - whatever is wrong with a usage is one error to callers
            f"{name} is {count!r}, not an integer: token counts are whole numbers"
        )
    return max(-1, min(count, MAX_TOKENS + 1))


def _pairs(units: object) -> Sequence[tuple[str, object]]:
    """(key, value) of units told as an object, or as a list of pairs or of `{"key": …, "value": …}`."""
    if isinstance(units, Mapping):
        return [(str(key), value) for key, value in units.items()]
    if isinstance(units, list | tuple):
        rows = [(row.get("key"), row.get("value")) if isinstance(row, Mapping) else row for row in units]
        if all(isinstance(row, list | tuple) and len(row) == len(("key", "value")) for row in rows):
            return [(str(key), value) for key, value in rows]
    raise ValueError(f'units is {units!r}: write an object, such as {{"web_searches": 2}}')
