"""Between frames and the database: what polars has no type for, and back."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from millicent.warehouse import record

UUIDS: Final = {column.name for column in record.CALLS if column.type == pa.uuid()} | {"series"}
MAPS: Final = {column.name: column.type for column in record.CALLS if pa.types.is_map(column.type)}


EMPTY: Final = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table()))
"""The record's columns as polars types, no rows."""


def arrow(frame: pl.DataFrame) -> pa.Table:
    """`frame` as the database takes it: 16-byte ids typed as UUID, labels and units as maps."""
    typed = frame.to_arrow()
    for name in UUIDS & set(typed.column_names):
        at = typed.schema.get_field_index(name)
        ids = typed.column(at).cast(pa.binary(16)).combine_chunks()
        typed = typed.set_column(at, pa.field(name, pa.uuid()), pa.ExtensionArray.from_storage(pa.uuid(), ids))
    for name in MAPS.keys() & set(typed.column_names):
        at = typed.schema.get_field_index(name)
        typed = typed.set_column(at, record.SCHEMA.field(name), _map(typed.column(at), MAPS[name]))
    return typed


def plain(table: pa.Table) -> pl.DataFrame:
    """Rows as the database gives them, with ids as 16 bytes and maps as lists of (key, value)."""
    for name in MAPS.keys() & set(table.column_names):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, _pairs(table.column(at), MAPS[name]))
    frame = pl.DataFrame(pl.from_arrow(table))
    return frame.with_columns(
        pl.col(name).str.replace_all("-", "", literal=True).str.decode("hex") for name in UUIDS & set(frame.columns)
    )


def _pair(of: pa.MapType) -> pa.StructType:
    return pa.struct([("key", of.key_type), ("value", of.item_type)])


def _map(pairs: pa.ChunkedArray, of: pa.MapType) -> pa.MapArray:
    lists = pairs.combine_chunks().cast(pa.list_(_pair(of)))
    flat = lists.flatten()
    return pa.MapArray.from_arrays(lists.offsets, flat.field("key"), flat.field("value"), mask=lists.is_null())


def _pairs(maps: pa.ChunkedArray, of: pa.MapType) -> pa.ListArray:
    whole = maps.combine_chunks()
    entries = pa.StructArray.from_arrays([whole.keys, whole.items], fields=list(_pair(of)))
    return pa.ListArray.from_arrays(whole.offsets, entries, mask=whole.is_null())
