"""Between frames and the database: what polars has no type for, and back."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from millicent.warehouse import record

UUIDS: Final = {column.name for column in record.CALLS if column.type == pa.uuid()} | {"series"}


EMPTY: Final = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table()))
"""The record's columns as polars types, no rows."""


def arrow(frame: pl.DataFrame) -> pa.Table:
    """`frame` as the database takes it: 16-byte ids typed as UUID, labels as a map."""
    typed = frame.to_arrow()
    for name in UUIDS & set(typed.column_names):
        at = typed.schema.get_field_index(name)
        ids = typed.column(at).cast(pa.binary(16)).combine_chunks()
        typed = typed.set_column(at, pa.field(name, pa.uuid()), pa.ExtensionArray.from_storage(pa.uuid(), ids))
    if "labels" in typed.column_names:
        at = typed.schema.get_field_index("labels")
        typed = typed.set_column(at, record.SCHEMA.field("labels"), _map(typed.column(at)))
    return typed


def plain(table: pa.Table) -> pl.DataFrame:
    """Rows as the database gives them, with ids as 16 bytes and labels as a list of (key, value)."""
    if "labels" in table.column_names:
        at = table.schema.get_field_index("labels")
        table = table.set_column(at, "labels", _pairs(table.column(at)))
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.with_columns(
        pl.col(name).str.replace_all("-", "", literal=True).str.decode("hex") for name in UUIDS & set(frame.columns)
    )


_PAIR: Final = pa.struct([("key", pa.string()), ("value", pa.string())])


def _map(pairs: pa.ChunkedArray) -> pa.MapArray:
    lists = pairs.combine_chunks().cast(pa.list_(_PAIR))
    flat = lists.flatten()
    return pa.MapArray.from_arrays(lists.offsets, flat.field("key"), flat.field("value"), mask=lists.is_null())


def _pairs(maps: pa.ChunkedArray) -> pa.ListArray:
    whole = maps.combine_chunks()
    entries = pa.StructArray.from_arrays([whole.keys, whole.items], fields=list(_PAIR))
    return pa.ListArray.from_arrays(whole.offsets, entries, mask=whole.is_null())
