"""OTLP bytes to one row per span or log record, with the attributes that anybody here reads as typed columns.

Protobuf becomes Arrow in Rust (`ptars`); nested lists are flattened by their offsets; attributes are selected by
dictionary-encoding their keys. Nothing here loops over spans or records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
import polars_hash as plh
import ptars
import pyarrow as pa
import pyarrow.compute as pc

from millicent.collector import otlp_pb2

Kind = Literal["text", "int", "float", "bool", "payload"]
Signal = Literal["traces", "logs"]
RESOURCE: Final = "resource:"
LABEL: Final = "millicent.label."
UNIT: Final = "millicent.usage.units."
PRICE: Final = "millicent.price."
"""Attributes whose names go on: any tag, any billable unit, whatever has a price of its own."""
LONGEST_TEXT: Final = 1024
LONGEST_PAYLOAD: Final = 65_536
"""Of text that holds counters, and is read and dropped."""
_NAMED_BY_PROVIDER: Final = r"^llm\.[^.]+\.(usage|usageMetadata|id|responseId|model|modelVersion|service_tier)$"
"""Attributes with a provider's name in their own are read as `llm.*.usage` and so on."""
_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_DECIMAL: Final = r"^[+-]?[0-9]{1,18}(\.[0-9]{1,18})?$"
_WHOLE_LIMIT: Final = 2.0**53

FIRST_TOKEN_EVENTS: Final = (
    "First Token Stream Event",
    "gen_ai.content.completion.chunk",
    "llm.content.completion.chunk",
    "ai.stream.firstChunk",
)
"""Events on a span at the moment its first token came; of several the first."""
LOG_IDENTITY: Final = (
    "request_id", "gen_ai.response.id", "prompt_id", "session.id", "event.sequence", "model", "duration_ms",
    "input_tokens", "output_tokens", "input_token_count", "output_token_count", "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
)  # fmt: skip
"""Attributes that tell one log record from another of the same name and instant. Ids of records depend on this list."""
_EVENT_NAME: Final = r"^[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+$"

_pool: Final = ptars.HandlerPool([otlp_pb2.DESCRIPTOR])
_spans: Final = _pool.get_for_message(otlp_pb2.ExportTraceServiceRequest.DESCRIPTOR)
_logs: Final = _pool.get_for_message(otlp_pb2.ExportLogsServiceRequest.DESCRIPTOR)


@dataclass(frozen=True, slots=True)
class Decoded:
    """`spans`: one row per span or log record, `record` its request's place in the input.

    `broken`: places that do not decode.
    """

    spans: pl.DataFrame
    broken: tuple[int, ...]


def decode(bodies: Sequence[bytes], wanted: Mapping[str, Kind], signals: Sequence[Signal] = ()) -> Decoded:
    """Flatten OTLP trace and logs requests.

    Args:
        bodies: expanded protobuf `ExportTraceServiceRequest`s or `ExportLogsServiceRequest`s.
        wanted: attribute keys to bring as columns, with their type; `resource:` in front of a key reads it from the
            resource. A value of another type is converted where nothing is lost, else it is null. Of a repeated key the
            first stands.
        signals: what each body is; traces, if left out.

    Returns:
        Columns `record` (UInt32), `signal` (span or log), `trace_id`, `span_id`, `parent_span_id` (Binary), `name`,
        `kind`, `status_code` (Int32), `start_ns`, `end_ns`, `first_token_ns` (UInt64), `trace_state`, `scope`,
        `scope_version`, `labels` (List of struct key, value), the same of other attributes with names of their own
        (`units_told`, `price_told`) where any came, and one column per wanted key that came. Text is cut to
        `LONGEST_TEXT` characters, payloads to `LONGEST_PAYLOAD`. A log record's parent is the span it was written in;
        its own ids are hashes of what it says, so that the same record has the same ids again.
    """
    logs = [at for at, signal in enumerate(signals) if signal == "logs"]
    if not logs:
        return _decode_spans(bodies, wanted)
    spans = [at for at, signal in enumerate(signals) if signal != "logs"]
    parts = (
        (spans, _decode_spans([bodies[at] for at in spans], wanted)),
        (logs, _decode_logs([bodies[at] for at in logs], wanted)),
    )
    placed = (
        part.spans.with_columns(record=pl.Series(places, dtype=pl.UInt32).gather(part.spans["record"]))
        for places, part in parts
    )
    broken = sorted(places[at] for places, part in parts for at in part.broken)
    return Decoded(pl.concat(placed, how="diagonal"), tuple(broken))


def _decode_spans(bodies: Sequence[bytes], wanted: Mapping[str, Kind]) -> Decoded:
    batch, whole, broken = _to_arrow(_spans, bodies)
    tree = _Tree.of(batch, "scope_spans", "spans")
    spans = tree.items
    columns = {
        "record": pa.array(whole[tree.body_of_item]),
        **{name: spans.field(name) for name in ("trace_id", "span_id", "parent_span_id", "kind")},
        "name": _cut(spans.field("name")),
        "trace_state": _cut(spans.field("trace_state")),
        "start_ns": spans.field("start_time_unix_nano"),
        "end_ns": spans.field("end_time_unix_nano"),
        "first_token_ns": _first_token_ns(spans.field("events")),
        "status_code": pc.struct_field(spans.field("status"), "code"),
        **tree.scope_and_resource(wanted),
    }
    attributes = _attributes(spans.field("attributes"))
    columns |= _came(attributes, {key: kind for key, kind in wanted.items() if not key.startswith(RESOURCE)})
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    return Decoded(frame.with_columns(_labels(attributes), *_named(attributes), signal=pl.lit("span")), broken)


def _decode_logs(bodies: Sequence[bytes], wanted: Mapping[str, Kind]) -> Decoded:
    batch, whole, broken = _to_arrow(_logs, bodies)
    tree = _Tree.of(batch, "scope_logs", "log_records")
    logs = tree.items
    attributes = _attributes(logs.field("attributes"))
    identity = _columns(attributes, dict.fromkeys(("event.name", *LOG_IDENTITY), "text"))
    observed = logs.field("observed_time_unix_nano")
    time = pc.if_else(pc.equal(logs.field("time_unix_nano"), 0), observed, logs.field("time_unix_nano"))
    columns = {
        "record": pa.array(whole[tree.body_of_item]),
        "trace_id": logs.field("trace_id"),
        "parent_span_id": logs.field("span_id"),
        "start_ns": time,
        "end_ns": time,
        **tree.scope_and_resource({**wanted, RESOURCE + "service.name": "text"}),
        **_came(attributes, {key: kind for key, kind in wanted.items() if not key.startswith(RESOURCE)}),
    }
    frame = pl.DataFrame(pl.from_arrow(pa.table(columns)))
    body = pc.struct_field(logs.field("body"), "string_value")
    said = pl.DataFrame(pl.from_arrow(pa.table({"event_name": logs.field("event_name"), "body": body, **identity})))
    named = pl.col("body").str.contains(_EVENT_NAME)
    told = pl.when(pl.col("event_name") != "").then("event_name")
    short = pl.col("event.name")
    whole_name = pl.when(named & pl.col("body").str.ends_with(pl.concat_str(pl.lit("."), short))).then("body")
    said = said.with_columns(
        name=pl.coalesce(told, whole_name, short, pl.when(named).then("body")).str.slice(0, LONGEST_TEXT)
    )
    service = RESOURCE + "service.name"
    text = pl.concat_str(
        *(pl.col(one).cast(pl.String).fill_null("") for one in ("start_ns", "name", "body", "place", *LOG_IDENTITY)),
        separator="\0",
    )
    place = frame.select(
        place=pl.concat_str(
            pl.col(service).fill_null("") if service in frame.columns else pl.lit(""),
            pl.col("trace_id").bin.encode("hex"), pl.col("parent_span_id").bin.encode("hex"), separator="\0",
        )
    )  # fmt: skip
    ids = pl.concat([said, frame.select("start_ns"), place], how="horizontal").select(text=text)
    ids = ids.select(
        first=plh.col("text").nchash.xxh3_64(), second=plh.concat_str("text", pl.lit("\0")).nchash.xxh3_64()
    )
    frame = frame.with_columns(
        name=said["name"],
        span_id=pl.Series(pl.from_arrow(_bytes(ids["first"]))),
        trace_id=pl.when(pl.col("trace_id").bin.size() == 16)
        .then("trace_id")
        .otherwise(pl.Series(pl.from_arrow(_bytes(ids["first"], ids["second"])))),
        signal=pl.lit("log"),
    )
    return Decoded(frame.with_columns(_labels(attributes), *_named(attributes)), broken)


def _bytes(*numbers: pl.Series) -> pa.Array:
    """Numbers of eight bytes side by side, big-endian."""
    table = np.ascontiguousarray(np.stack([one.to_numpy() for one in numbers], axis=1).astype(">u8"))
    width = pa.binary(8 * len(numbers))
    return pa.Array.from_buffers(width, len(table), [None, pa.py_buffer(table)]).cast(pa.binary())


class _Tree(NamedTuple):
    """Items (spans, log records) of all bodies, and what they hang on."""

    resources: pa.StructArray
    scope: pa.StructArray
    items: pa.StructArray
    resource_of_item: np.ndarray
    body_of_item: np.ndarray

    @staticmethod
    def of(batch: pa.RecordBatch, scopes_field: str, items_field: str) -> _Tree:
        """Flatten bodies → resources → scopes → items by their offsets."""
        groups = batch.column(0)
        resources = groups.flatten()
        scope_lists = resources.field(scopes_field)
        scopes = scope_lists.flatten()
        item_lists = scopes.field(items_field)
        scope_of_item = _owners(item_lists)
        resource_of_item = _owners(scope_lists)[scope_of_item]
        scope = pc.take(scopes.field("scope"), pa.array(scope_of_item))
        return _Tree(resources, scope, item_lists.flatten(), resource_of_item, _owners(groups)[resource_of_item])

    def scope_and_resource(self, wanted: Mapping[str, Kind]) -> dict[str, pa.Array]:
        """Columns `scope`, `scope_version`, and every wanted attribute of the resource that came."""
        of_resource = _attributes(pc.struct_field(self.resources.field("resource"), "attributes"))
        keys = {key.removeprefix(RESOURCE): kind for key, kind in wanted.items() if key.startswith(RESOURCE)}
        place = pa.array(self.resource_of_item)
        return {
            "scope": _cut(pc.struct_field(self.scope, "name")),
            "scope_version": _cut(pc.struct_field(self.scope, "version")),
            **{RESOURCE + key: pc.take(values, place) for key, values in _came(of_resource, keys).items()},
        }


def _first_token_ns(events: pa.ListArray) -> pa.Array:
    """When the first of `FIRST_TOKEN_EVENTS` came; null where none did."""
    found = np.full(len(events), np.iinfo(np.uint64).max, dtype=np.uint64)
    flat = events.flatten()
    if len(flat):
        which = pc.is_in(flat.field("name"), pa.array(FIRST_TOKEN_EVENTS)).to_numpy(zero_copy_only=False)
        at = flat.field("time_unix_nano").to_numpy(zero_copy_only=False)
        np.minimum.at(found, _owners(events)[which], at[which])
    return pa.array(found, mask=found == np.iinfo(np.uint64).max)


class _Handler(Protocol):
    def list_to_record_batch(self, bodies: list[bytes], /) -> pa.RecordBatch: ...


def _to_arrow(handler: _Handler, bodies: Sequence[bytes]) -> tuple[pa.RecordBatch, np.ndarray, tuple[int, ...]]:
    """All bodies at once; if one is damaged, those that decode alone."""
    try:
        return handler.list_to_record_batch(list(bodies)), np.arange(len(bodies), dtype=np.uint32), ()
    except ValueError:
        whole = [at for at, body in enumerate(bodies) if _decodes(handler, body)]
    broken = tuple(sorted(set(range(len(bodies))) - set(whole)))
    return handler.list_to_record_batch([bodies[at] for at in whole]), np.array(whole, dtype=np.uint32), broken


def _decodes(handler: _Handler, body: bytes) -> bool:
    try:
        handler.list_to_record_batch([body])
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
    keys = pc.replace_substring_regex(encoded.dictionary, _NAMED_BY_PROVIDER, r"llm.*.\1")
    return _Attributes(len(lists), _owners(lists), keys, key, flat.field("value"))


def _columns(attributes: _Attributes, wanted: Mapping[str, Kind]) -> dict[str, pa.Array]:
    """One column per wanted key, as long as there are rows."""
    nothing = {key: pa.nulls(attributes.rows, _TYPES[kind]) for key, kind in wanted.items()}
    return nothing | _came(attributes, wanted)


def _came(attributes: _Attributes, wanted: Mapping[str, Kind]) -> dict[str, pa.Array]:
    """One column per wanted key that came, as long as there are rows."""
    columns: dict[str, pa.Array] = {}
    usual = {kind: pc.struct_field(attributes.values, field) for kind, field in _USUAL.items()}
    for key, places in _places(attributes, list(wanted)):
        place = np.full(attributes.rows, -1)
        place[attributes.owner[places[::-1]]] = places[::-1]  # of a repeated key, the first stands
        taken = pa.array(place, mask=place < 0)
        column = pc.take(usual[wanted[key]], taken)
        if column.null_count > taken.null_count:
            column = _CONVERT[wanted[key]](pc.take(attributes.values, taken))
        columns[key] = _cut(column, _LONGEST[wanted[key]]) if wanted[key] in _LONGEST else column
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
    text = pc.struct_field(values, "string_value")
    digits = pc.if_else(pc.match_substring_regex(text, _DECIMAL), pc.utf8_ltrim(text, "+"), None)
    return pc.coalesce(pc.struct_field(values, "double_value"), whole, pc.cast(digits, pa.float64()))


def _text(values: pa.StructArray) -> pa.Array:
    told = (pc.cast(pc.struct_field(values, field), pa.string()) for field in ("int_value", "bool_value"))
    return pc.coalesce(pc.struct_field(values, "string_value"), *told)


def _bool(values: pa.StructArray) -> pa.Array:
    text = pc.utf8_lower(pc.struct_field(values, "string_value"))
    spelled = pc.if_else(pc.is_in(text, pa.array(["true", "false"])), pc.equal(text, "true"), None)
    return pc.coalesce(pc.struct_field(values, "bool_value"), spelled)


_TYPES: Final = {
    "text": pa.string(), "payload": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()
}  # fmt: skip
_USUAL: Final = {
    "text": "string_value", "payload": "string_value", "int": "int_value", "float": "double_value",
    "bool": "bool_value",
}  # fmt: skip
_CONVERT: Final = {"text": _text, "payload": _text, "int": _int, "float": _float, "bool": _bool}
_LONGEST: Final = {"text": LONGEST_TEXT, "payload": LONGEST_PAYLOAD}


def _cut(text: pa.StringArray, longest: int = LONGEST_TEXT) -> pa.StringArray:
    longest_bytes = pc.max(pc.binary_length(text)).as_py() or 0
    return pc.utf8_slice_codeunits(text, 0, longest) if longest_bytes > longest else text


def _labels(attributes: _Attributes) -> pl.Series:
    """`millicent.label.*` of each span as key and value pairs; null where there is none."""
    pairs = _pairs(attributes, LABEL, "text")
    nothing = pl.Series([None] * attributes.rows, dtype=pl.List(pl.Struct({"key": pl.String, "value": pl.String})))
    return (nothing if pairs is None else pairs).alias("labels")


def _named(attributes: _Attributes) -> list[pl.Series]:
    """The same of units and of what has a price of its own, where any came."""
    told = {"units_told": _pairs(attributes, UNIT, "int"), "price_told": _pairs(attributes, PRICE, "text")}
    return [pairs.alias(name) for name, pairs in told.items() if pairs is not None]


def _pairs(attributes: _Attributes, prefix: str, kind: Literal["text", "int"]) -> pl.Series | None:
    """The attributes that begin with `prefix`, null where a span has none; None where no span has any."""
    is_one = pc.starts_with(attributes.keys, prefix).to_numpy(zero_copy_only=False)
    if not is_one.any():
        return None
    places = np.flatnonzero(is_one[attributes.key])
    names = attributes.keys.take(pa.array(attributes.key[places]))
    values = _CONVERT[kind](attributes.values.take(pa.array(places)))
    grouped = (
        pl.DataFrame(
            {
                "row": attributes.owner[places],
                "key": pl.Series(_cut(pc.utf8_slice_codeunits(names, len(prefix)))),
                "value": pl.Series(_cut(values) if kind == "text" else values),
            }
        )
        .unique(["row", "key"], keep="first", maintain_order=True)
        .group_by("row", maintain_order=True)
        .agg(pairs=pl.struct("key", "value"))
    )
    rows = pl.DataFrame({"row": np.arange(attributes.rows)})
    return rows.join(grouped, on="row", how="left", maintain_order="left")["pairs"]
