"""OTLP bytes to one row per span, with the attributes that anybody here reads as typed columns.

Protobuf becomes Arrow in Rust (`ptars`); nested lists are flattened by their offsets; attributes are selected by
dictionary-encoding their keys. Nothing here loops over spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl
import ptars
import pyarrow as pa
import pyarrow.compute as pc

from millicent.collector import otlp_pb2

Kind = Literal["text", "int", "float", "bool"]
RESOURCE: Final = "resource:"
LABEL: Final = "millicent.label."
LONGEST_TEXT: Final = 1024
_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_WHOLE_LIMIT: Final = 2.0**53

_handler: Final = ptars.HandlerPool([otlp_pb2.DESCRIPTOR]).get_for_message(
    otlp_pb2.ExportTraceServiceRequest.DESCRIPTOR
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """`spans`: one row per span, `record` its request's place in the input. `broken`: places that do not decode."""

    spans: pl.DataFrame
    broken: tuple[int, ...]


def decode(bodies: Sequence[bytes], wanted: Mapping[str, Kind]) -> Decoded:
    """Flatten OTLP trace requests.

    Args:
        bodies: expanded protobuf `ExportTraceServiceRequest`s.
        wanted: attribute keys to bring as columns, with their type; `resource:` in front of a key reads it from the
            resource. A value of another type is converted where nothing is lost, else it is null. Of a repeated key the
            first stands.

    Returns:
        Columns `record` (UInt32), `trace_id`, `span_id`, `parent_span_id` (Binary), `kind`, `status_code` (Int32),
        `start_ns`, `end_ns` (UInt64), `scope`, `scope_version`, `labels` (List of struct key, value), and one column
        per wanted key, null where absent. Text is cut to `LONGEST_TEXT` characters.
    """
    batch, whole, broken = _to_arrow(bodies)
    resource_spans = batch.column(0)
    resources = resource_spans.flatten()
    scope_spans = resources.field("scope_spans")
    scopes = scope_spans.flatten()
    span_lists = scopes.field("spans")
    spans = span_lists.flatten()

    resource_of_scope = _owners(scope_spans)
    scope_of_span = _owners(span_lists)
    record_of_span = whole[_owners(resource_spans)[resource_of_scope[scope_of_span]]]
    scope = pc.take(scopes.field("scope"), pa.array(scope_of_span))

    columns = {
        "record": pa.array(record_of_span),
        **{name: spans.field(name) for name in ("trace_id", "span_id", "parent_span_id", "kind")},
        "start_ns": spans.field("start_time_unix_nano"),
        "end_ns": spans.field("end_time_unix_nano"),
        "status_code": pc.struct_field(spans.field("status"), "code"),
        "scope": _cut(pc.struct_field(scope, "name")),
        "scope_version": _cut(pc.struct_field(scope, "version")),
    }
    of_span = _attributes(spans.field("attributes"))
    columns |= _columns(of_span, {key: kind for key, kind in wanted.items() if not key.startswith(RESOURCE)})
    of_resource = _attributes(pc.struct_field(resources.field("resource"), "attributes"))
    from_resource = {key.removeprefix(RESOURCE): kind for key, kind in wanted.items() if key.startswith(RESOURCE)}
    resource_of_span = pa.array(resource_of_scope[scope_of_span])
    for key, values in _columns(of_resource, from_resource).items():
        columns[RESOURCE + key] = pc.take(values, resource_of_span)
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    return Decoded(frame.with_columns(_labels(of_span)), broken)


def _to_arrow(bodies: Sequence[bytes]) -> tuple[pa.RecordBatch, np.ndarray, tuple[int, ...]]:
    """All bodies at once; if one is damaged, those that decode alone."""
    try:
        return _handler.list_to_record_batch(list(bodies)), np.arange(len(bodies), dtype=np.uint32), ()
    except ValueError:
        whole = [at for at, body in enumerate(bodies) if _decodes(body)]
    broken = tuple(sorted(set(range(len(bodies))) - set(whole)))
    return _handler.list_to_record_batch([bodies[at] for at in whole]), np.array(whole, dtype=np.uint32), broken


def _decodes(body: bytes) -> bool:
    try:
        _handler.list_to_record_batch([body])
    except ValueError:
        return False
    return True


def _owners(lists: pa.ListArray) -> np.ndarray:
    """For each element of the flattened lists, the row it came from."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lists)), lengths)


class _Attributes(NamedTuple):
    """All attributes of `rows` spans or resources: whose each is, which of the distinct `keys` it has, its value."""

    rows: int
    owner: np.ndarray
    keys: pa.StringArray
    key: np.ndarray
    values: pa.StructArray


def _attributes(lists: pa.ListArray) -> _Attributes:
    flat = lists.flatten()
    encoded = flat.field("key").dictionary_encode()
    key = encoded.indices.to_numpy(zero_copy_only=False)
    return _Attributes(len(lists), _owners(lists), encoded.dictionary, key, flat.field("value"))


def _columns(attributes: _Attributes, wanted: Mapping[str, Kind]) -> dict[str, pa.Array]:
    """One column per wanted key, as long as there are rows."""
    columns: dict[str, pa.Array] = {key: pa.nulls(attributes.rows, _TYPES[kind]) for key, kind in wanted.items()}
    usual = {kind: pc.struct_field(attributes.values, field) for kind, field in _USUAL.items()}
    for key, places in _places(attributes, list(wanted)):
        place = np.full(attributes.rows, -1)
        place[attributes.owner[places[::-1]]] = places[::-1]  # of a repeated key, the first stands
        taken = pa.array(place, mask=place < 0)
        column = pc.take(usual[wanted[key]], taken)
        if column.null_count > taken.null_count:
            column = _CONVERT[wanted[key]](pc.take(attributes.values, taken))
        columns[key] = _cut(column) if wanted[key] == "text" else column
    return columns


def _places(attributes: _Attributes, wanted: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each wanted key that occurs, with the places where it does, in order."""
    known = pc.index_in(attributes.keys, value_set=pa.array(wanted, pa.string())).fill_null(-1)
    which = known.to_numpy(zero_copy_only=False).astype(np.int16)[attributes.key]
    places = np.flatnonzero(which >= 0)
    places = places[np.argsort(which[places], kind="stable")]
    sorted_which = which[places]
    bounds = np.searchsorted(sorted_which, np.arange(len(wanted) + 1))
    for at, key in enumerate(wanted):
        if bounds[at] < bounds[at + 1]:
            yield key, places[bounds[at] : bounds[at + 1]]


def _int(values: pa.StructArray) -> pa.Array:
    text = pc.struct_field(values, "string_value")
    digits = pc.if_else(pc.match_substring_regex(text, _INTEGER), pc.utf8_ltrim(text, "+"), None)
    double = pc.struct_field(values, "double_value")
    is_whole = pc.and_(pc.equal(pc.floor(double), double), pc.less(pc.abs(double), _WHOLE_LIMIT))
    whole = pc.if_else(is_whole, double, None)
    return pc.coalesce(pc.struct_field(values, "int_value"), pc.cast(whole, pa.int64()), pc.cast(digits, pa.int64()))


def _float(values: pa.StructArray) -> pa.Array:
    whole = pc.cast(pc.struct_field(values, "int_value"), pa.float64(), safe=False)
    return pc.coalesce(pc.struct_field(values, "double_value"), whole)


def _text(values: pa.StructArray) -> pa.Array:
    told = (pc.cast(pc.struct_field(values, field), pa.string()) for field in ("int_value", "bool_value"))
    return pc.coalesce(pc.struct_field(values, "string_value"), *told)


def _bool(values: pa.StructArray) -> pa.Array:
    text = pc.utf8_lower(pc.struct_field(values, "string_value"))
    spelled = pc.if_else(pc.is_in(text, pa.array(["true", "false"])), pc.equal(text, "true"), None)
    return pc.coalesce(pc.struct_field(values, "bool_value"), spelled)


_TYPES: Final = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
_USUAL: Final = {"text": "string_value", "int": "int_value", "float": "double_value", "bool": "bool_value"}
_CONVERT: Final = {"text": _text, "int": _int, "float": _float, "bool": _bool}


def _cut(text: pa.StringArray) -> pa.StringArray:
    longest_bytes = pc.max(pc.binary_length(text)).as_py() or 0
    return pc.utf8_slice_codeunits(text, 0, LONGEST_TEXT) if longest_bytes > LONGEST_TEXT else text


def _labels(attributes: _Attributes) -> pl.Series:
    """`millicent.label.*` of each span as key and value pairs; null where there is none."""
    pair = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))
    is_label = pc.starts_with(attributes.keys, LABEL).to_numpy(zero_copy_only=False)
    if not is_label.any():
        return pl.Series("labels", [None] * attributes.rows, dtype=pair)
    places = np.flatnonzero(is_label[attributes.key])
    names = attributes.keys.take(pa.array(attributes.key[places]))
    grouped = (
        pl.DataFrame(
            {
                "row": attributes.owner[places],
                "key": pl.Series(_cut(pc.utf8_slice_codeunits(names, len(LABEL)))),
                "value": pl.Series(_cut(_text(attributes.values.take(pa.array(places))))),
            }
        )
        .unique(["row", "key"], keep="first", maintain_order=True)
        .group_by("row", maintain_order=True)
        .agg(labels=pl.struct("key", "value"))
    )
    rows = pl.DataFrame({"row": np.arange(attributes.rows)})
    return rows.join(grouped, on="row", how="left", maintain_order="left")["labels"].alias("labels").cast(pair)
