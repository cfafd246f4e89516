"""OTLP in JSON, turned into the protobuf that the same request would have been, as far as Millicent reads it.

The schema is `otlp.proto` itself: fields go by their lowerCamelCase name or by their own, unknown ones are passed over.
What OTLP says beyond the JSON form of protobuf is here: ids are hex, and names of enums are met though numbers are
asked for. 64-bit integers come as text or as numbers, whole doubles included.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from millicent.collector.limits import Limits, bound_json, too_many
from millicent.collector.otlp_pb2 import (
    ExportLogsServiceRequest,
    ExportMetricsServiceRequest,
    ExportTraceServiceRequest,
)
from millicent.collector.refusals import MalformedError

REQUESTS: Final[Mapping[str, type[Message]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}

_ENUMS: Final[Mapping[str, tuple[str, ...]]] = {  # field → names, each at its number
    "kind": tuple(f"SPAN_KIND_{k}" for k in ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")),
    "code": ("STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"),
    "aggregation_temporality": tuple(
        f"AGGREGATION_TEMPORALITY_{each}" for each in ("UNSPECIFIED", "DELTA", "CUMULATIVE")
    ),
}

# Where each signal's items are, outermost list first; of metrics, whichever kind of points there is.
_PATHS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "traces": (("resource_spans",), ("scope_spans",), ("spans",)),
    "logs": (("resource_logs",), ("scope_logs",), ("log_records",)),
    "metrics": (
        ("resource_metrics",),
        ("scope_metrics",),
        ("metrics",),
        ("gauge", "sum", "histogram", "exponential_histogram", "summary"),
        ("data_points",),
    ),
}


def transcode(body: bytes, limits: Limits, signal: str) -> bytes:
    """The same export request in protobuf.

    Args:
        body: An export request in JSON, expanded.
        limits: `json_values` applies before anything is parsed, `spans` before anything is converted.
        signal: `traces`, `metrics` or `logs`.

    Raises:
        MalformedError: Not JSON, or not an export request; the message names the field.
        TooLargeError: More values, spans, data points or log records than one request may hold.
    """
    bound_json(body, limits)
    document = parse(body)
    if not isinstance(document, dict):
        raise MalformedError(f"the body is {said(document)}: an OTLP export request is an object")
    request = REQUESTS[signal]
    try:
        _bound_items(document, limits, signal)
        return request(**_message(document, _FIELDS[signal])).SerializeToString()
    except (TypeError, ValueError, AttributeError) as error:
        raise MalformedError(f"the body is not an OTLP export request: {error}") from error


def parse(text: bytes) -> Any:
    """JSON as Python values.

    Raises:
        MalformedError: It is not JSON, or not UTF-8.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"the body is not JSON: {error}") from error


# ---- converting


class _Field(NamedTuple):
    name: str
    repeated: bool
    fields: "_Fields | None"  # of a message
    convert: Callable[[Any], Any] | None  # of a scalar; None takes it as it is, and protobuf checks its type


_Fields = dict[str, _Field]


def _message(told: dict[str, Any], fields: _Fields) -> dict[str, Any]:
    """What protobuf constructs a message from: known fields by their own names, null ones left out."""
    known = {}
    for key, value in told.items():
        field = fields.get(key)
        if field is None or value is None:
            continue
        name, repeated, inner, convert = field
        try:
            if inner is None:
                known[name] = value if convert is None else convert(value)
            elif repeated:
                known[name] = _messages(value, inner)
            else:
                known[name] = _message(value, inner)
        except _UnfitError:
            raise
        except (TypeError, ValueError, AttributeError) as error:
            raise _UnfitError(f"{key} cannot be {said(value)}{_HINTS.get(name, '')}") from error
    return known


class _UnfitError(ValueError):
    """A value that its field cannot have; the message names both."""


_HEX: Final = ": ids are hex digits in OTLP's JSON, not base64"
_HINTS: Final = dict.fromkeys(("trace_id", "span_id", "parent_span_id"), _HEX)


def said(value: Any) -> str:
    """A value as an error tells it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _messages(told: list[Any], fields: _Fields) -> list[Any]:
    """In place, so that no more than one of the two forms of each is in memory."""
    if type(told) is not list:
        raise ValueError(told)
    for at, each in enumerate(told):
        told[at] = _message(each, fields)
    return told


def _integer(value: Any) -> int:
    if type(value) is float and not value.is_integer():
        raise ValueError(value)
    return int(value)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, str) and not math.isfinite(number) and value not in {"NaN", "Infinity", "-Infinity"}:
        raise ValueError(value)
    return number


def _enum(names: tuple[str, ...]) -> Callable[[Any], int]:
    numbers = {name: number for number, name in enumerate(names)}
    return lambda value: numbers[value] if value in numbers else _integer(value)


_INTEGERS: Final = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}


def _fields(message: Any) -> _Fields:
    """The fields of a message's descriptor, by both names that JSON may call them."""
    found: _Fields = {}
    for field in message.fields:
        inner = _fields(field.message_type) if field.message_type else None
        convert: Callable[[Any], Any] | None = None
        if field.name in _ENUMS:
            convert = _enum(_ENUMS[field.name])
        elif field.type in _INTEGERS:
            convert = _integer
        elif field.type == FieldDescriptor.TYPE_DOUBLE:
            convert = _number
        elif field.type == FieldDescriptor.TYPE_BYTES:
            convert = bytes.fromhex
        row = _Field(field.name, field.is_repeated, inner, convert)
        found[field.name] = row
        found[field.json_name] = row
    return found


_FIELDS: Final = {signal: _fields(request.DESCRIPTOR) for signal, request in REQUESTS.items()}


def _bound_items(document: dict[str, Any], limits: Limits, signal: str) -> None:
    level: list[Any] = [document]
    fields = _FIELDS[signal]
    for names in _PATHS[signal]:
        rows = [fields[name] for name in names]
        keys = {key for key, row in fields.items() if row in rows}
        found = [each[key] for each in level if each for key in keys & each.keys() if each[key]]
        level = [item for each in found for item in (each if rows[0].repeated else (each,))]
        if len(level) > limits.spans:
            raise too_many(signal, limits)
        fields = next(iter(row.fields for row in rows if row.fields is not None))
