"""Calls in plain JSON, for those without OpenTelemetry: each becomes the span that our own SDK would have sent.

`FIELDS` is the whole format. A call is known by its `id`: trace and span id are drawn from it, so that a call that is
sent again is met by the same rule that finds any span twice. Every other promise is kept by what spans go through.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from millicent.collector import otlp_pb2 as otlp
from millicent.collector.limits import Limits, bound_json, decompress
from millicent.collector.otlp_json import parse, said
from millicent.collector.refusals import MalformedError, TooLargeError
from millicent.pricing.units import UNIT

SCOPE: Final = "millicent.calls"  # instrumentation scope of the spans, and its version
VERSION: Final = "1"
LABEL: Final = "millicent.label."
UNITS_TOLD: Final = "millicent.usage.units."
PRICE_TOLD: Final = "millicent.price."
MOST_TOKENS: Final = 1_000_000_000  # as the collector's reading has it, and these two
EARLIEST: Final = datetime(2020, 1, 1, tzinfo=UTC)
AHEAD: Final = timedelta(hours=24)
LONGEST_MS: Final = 24 * 3600 * 1000
MOST_TEXT: Final = 1024  # characters
MOST_ID: Final = 256
MOST_LABELS: Final = 64
MOST_UNITS: Final = 1_000_000_000_000  # as the collector's reading has it
MOST_UNIT_NAMES: Final = 32
CONTEXT_KEYS: Final = ("processing", "route", "search_type", "service_tier", "speed")  # of the price data's variants
MOST_ERRORS: Final = 5  # told of one call
MOST_HINTS: Final = 32  # unknown names of one request that a known one is sought for
OPERATIONS: Final = ("chat", "text_completion", "generate_content", "embeddings")
STATUSES: Final = ("ok", "error", "cancelled")
SOURCES: Final = ("reported", "estimated", "missing")


class Rejected(NamedTuple):
    """A call that is not taken, by its place in the request, and why."""

    place: int
    id: str | None
    error: str

    def told(self) -> dict[str, Any]:
        """As the answer tells it."""
        return {"index": self.place, "id": self.id, "error": self.error}


class Imported(NamedTuple):
    """An export request in protobuf, how many calls it holds, and those that it does not."""

    body: bytes
    calls: int
    rejected: list[Rejected]


class _WrongError(ValueError):
    """What is wrong with one call: field, value, rule and remedy."""


# ---- what a field may hold


class Kind(NamedTuple):
    """What a value must be, in words, and how it is read; reading raises `ValueError` for what it must not be."""

    rule: str
    read: Callable[[Any], Any]


def _text(value: Any) -> str | None:
    if type(value) is not str or len(value) > MOST_TEXT:
        raise ValueError
    return value.strip() or None


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def whole(value: Any) -> int:
        number = int(value) if type(value) is float and value.is_integer() else value
        if type(number) is not int or not least <= number <= most:
            raise ValueError
        return number

    return whole


def _milliseconds(value: Any) -> float:
    if type(value) not in {int, float} or not 0 <= value <= LONGEST_MS:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _one_of(*words: str) -> Kind:
    def one_of(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(f"one of {', '.join(words)}", one_of)


_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _instant(value: Any) -> datetime:
    if type(value) is not str or not _INSTANT.fullmatch(value):
        raise ValueError
    try:
        instant = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError from error
    if instant < EARLIEST:
        raise ValueError
    return instant


def _hex(size: int) -> Kind:
    digits = re.compile(rf"(?!0+$)[0-9a-fA-F]{{{2 * size}}}", re.ASCII)

    def from_hex(value: Any) -> bytes:
        if type(value) is not str or not digits.fullmatch(value):
            raise ValueError
        return bytes.fromhex(value)

    return Kind(f"{2 * size} hex digits, not all zero", from_hex)


def _id(value: Any) -> str:
    text = str(value) if type(value) is int else value
    if type(text) is not str or not 0 < len(text) <= MOST_ID:
        raise ValueError
    return text


def _labels(value: Any) -> dict[str, str]:
    if type(value) is not dict or len(value) > MOST_LABELS:
        raise ValueError
    if not all(type(each) is str and len(name) + len(each) <= MOST_TEXT for name, each in value.items()):
        raise ValueError
    return value


_UNIT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_CONTEXT_VALUE: Final = re.compile(r"[a-z0-9][a-z0-9_./:-]{0,63}", re.ASCII)
UNITS_AS_OTHERS_SAY: Final[Mapping[str, str]] = {
    "web_search": "web_searches", "web_search_requests": "web_searches", "web_search_calls": "web_searches",
    "searches": "web_searches", "search_queries": "web_searches", "num_search_queries": "web_searches",
    "file_search": "storage_searches", "file_searches": "storage_searches", "file_search_calls": "storage_searches",
    "x_searches": "social_searches", "x_search_calls": "social_searches", "social_search": "social_searches",
    "code_interpreter": "code_executions", "code_interpreter_calls": "code_executions",
    "code_execution": "code_executions", "rerank_search": "rerank_searches", "search_units": "rerank_searches",
    "seconds": "audio_seconds", "audio_duration": "audio_seconds", "duration_seconds": "audio_seconds",
    "pages": "input_document_pages", "document_pages": "input_document_pages",
    "pages_processed": "input_document_pages", "characters": "input_characters", "pixels": "input_pixels",
    "messages": "input_text_messages", "request": "requests",
}  # fmt: skip
"""Names of units that other tools use; every other unknown name is kept, and has no price until it is given one."""


def _units(value: Any) -> dict[str, int]:
    if type(value) is not dict or len(value) > MOST_UNIT_NAMES:
        raise ValueError
    counted = dict[str, int]()
    for name, told in value.items():
        number = int(told) if type(told) is float and told.is_integer() else told
        if name in UNITS_AS_OTHERS_SAY:
            raise _WrongError(f"units has {said(name)}: did you mean {UNITS_AS_OTHERS_SAY[name]}?")
        if name not in UNIT and (not _UNIT_NAME.fullmatch(name) or name.endswith("_tokens")):
            rule = "tokens have fields of their own" if name.endswith("_tokens") else "use lower case, digits and _"
            raise _WrongError(f"units has {said(name)}, which is no name of a unit: {rule}")
        if type(number) is not int or not 0 <= number <= MOST_UNITS:
            rule = f"it must be a whole number from 0 to {MOST_UNITS}; round a begun one up"
            raise _WrongError(f"units has {said(told)} for {said(name)}: {rule}")
        counted[name] = number
    return counted


def _context(value: Any) -> dict[str, str]:
    if type(value) is not dict or not all(
        name in CONTEXT_KEYS and type(each) is str and _CONTEXT_VALUE.fullmatch(each.strip().lower())
        for name, each in value.items()
    ):
        raise ValueError
    return {name: each.strip().lower() for name, each in value.items()}


ID: Final = Kind(f"text of 1 to {MOST_ID} characters that no other call has, the same when it is sent again", _id)
INSTANT: Final = Kind(f"RFC 3339 with an offset, from {EARLIEST.year} on, such as 2026-11-23T08:00:00Z", _instant)
MILLISECONDS: Final = Kind("a number of milliseconds, up to a day", _milliseconds)
TEXT: Final = Kind(f"text of at most {MOST_TEXT} characters", _text)
TOKENS: Final = Kind(f"a whole number from 0 to {MOST_TOKENS}, left out where it is unknown", _whole(0, MOST_TOKENS))
COUNT: Final = Kind("a whole number from 1 to 1000000", _whole(1, 1_000_000))
FLAG: Final = Kind("true or false", _flag)
UNITS: Final = Kind(f"an object of at most {MOST_UNIT_NAMES} names of units, each with a whole number", _units)
CONTEXT: Final = Kind(
    f"an object whose names are some of {', '.join(CONTEXT_KEYS)}, each with a word such as batch or fast", _context
)
LABELS: Final = Kind(f"an object of at most {MOST_LABELS} names, each with text", _labels)


# ---- the format


class Field(NamedTuple):
    """A field of a call: what it may hold, and the span attribute that carries it, where that is all it does."""

    name: str
    kind: Kind
    attribute: str | None
    meaning: str


# fmt: off
FIELDS: Final[Mapping[str, Field]] = {field.name: field for field in (
    Field("id", ID, None, "what this call is known by; required"),
    Field("started_at", INSTANT, None, "when it began, RFC 3339; required"),
    Field("duration_ms", MILLISECONDS, None, "how long it took"),
    Field("ttft_ms", MILLISECONDS, None, "time to the first token"),
    Field("operation", _one_of(*OPERATIONS), "gen_ai.operation.name", "chat where it is not told"),
    Field("provider", TEXT, "gen_ai.provider.name", "as OpenTelemetry names it: openai, anthropic, aws.bedrock"),
    Field("model", TEXT, None, "the model; one of these three is required"),
    Field("request_model", TEXT, None, "model asked for"),
    Field("response_model", TEXT, None, "model that answered"),
    Field("response_id", TEXT, "gen_ai.response.id", "the provider's id of its answer"),
    Field("input_tokens", TOKENS, "gen_ai.usage.input_tokens", "everything that went in, caches included"),
    Field("output_tokens", TOKENS, "gen_ai.usage.output_tokens", "everything that came out, reasoning included"),
    Field("cache_read_tokens", TOKENS, "gen_ai.usage.cache_read.input_tokens", "of the input, read from a cache"),
    Field("cache_write_tokens", TOKENS, "gen_ai.usage.cache_write.input_tokens", "of the input, written to a cache"),
    Field("cache_write_5m_tokens", TOKENS, "millicent.usage.cache_write.5m.input_tokens", "of those, for 5 minutes"),
    Field("cache_write_30m_tokens", TOKENS, "millicent.usage.cache_write.30m.input_tokens", "for 30 minutes"),
    Field("cache_write_1h_tokens", TOKENS, "millicent.usage.cache_write.1h.input_tokens", "for an hour"),
    Field("cache_write_12h_tokens", TOKENS, "millicent.usage.cache_write.12h.input_tokens", "for 12 hours"),
    Field("reasoning_tokens", TOKENS, "gen_ai.usage.reasoning.output_tokens", "of the output, spent on reasoning"),
    Field("input_audio_tokens", TOKENS, "gen_ai.usage.audio.input_tokens", "of the input, audio"),
    Field("output_audio_tokens", TOKENS, "gen_ai.usage.audio.output_tokens", "of the output, audio"),
    Field("input_image_tokens", TOKENS, "gen_ai.usage.image.input_tokens", "of the input, images"),
    Field("units", UNITS, None, "what else is billed, by name: web_searches, audio_seconds, input_document_pages, …"),
    Field("price_context", CONTEXT, None, "what was asked for that has a price of its own, such as processing: batch"),
    Field("usage_source", _one_of(*SOURCES), "millicent.usage_source", "who counted the tokens"),
    Field("status", _one_of(*STATUSES), None, "error where an error_type is told, else ok"),
    Field("error_type", TEXT, "error.type", "what failed"),
    Field("streaming", FLAG, "gen_ai.request.stream", "whether the answer was streamed"),
    Field("service_tier", TEXT, "millicent.service_tier", "tier as the provider reported it"),
    Field("endpoint_host", TEXT, None, "host that served it, with its port or without"),
    Field("service", TEXT, None, "the program that called"),
    Field("environment", TEXT, "millicent.environment", "production, staging, …"),
    Field("team", TEXT, "millicent.team", "who pays"),
    Field("project", TEXT, "millicent.project", "for which project"),
    Field("feature", TEXT, "millicent.feature", "for which feature"),
    Field("customer", TEXT, "millicent.customer", "for which customer"),
    Field("user_id", TEXT, "user.id", "the end user"),
    Field("session_id", TEXT, "session.id", "the conversation"),
    Field("labels", LABELS, None, "any other tags, name to text"),
    Field("deployment", TEXT, "millicent.deployment", "which of our own deployments served it"),
    Field("engine", TEXT, "millicent.engine", "vllm, sglang, tensorrt-llm, …"),
    Field("accelerator", TEXT, "millicent.accelerator", "what it ran on"),
    Field("accelerator_count", COUNT, "millicent.accelerator_count", "how many of them"),
    Field("precision", TEXT, "millicent.precision", "bf16, fp8, …"),
    Field("region", TEXT, "millicent.region", "where it ran"),
    Field("trace_id", _hex(16), None, "16 bytes; made from the id where it is not told"),
    Field("span_id", _hex(8), None, "8 bytes; likewise"),
    Field("parent_span_id", _hex(8), None, "8 bytes"),
)}
# fmt: on
REQUIRED: Final = ("id", "started_at")
MODELS: Final = ("model", "request_model", "response_model")
PARTS: Final = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("output_tokens", ("reasoning_tokens",)),
    ("output_tokens", ("output_audio_tokens",)),
)
"""A total and counters that are parts of it."""
BY_TIME: Final = tuple(name for name in FIELDS if name.startswith("cache_write_") and name != "cache_write_tokens")
OTHERS_SAY: Final[Mapping[str, str]] = {
    "prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "cached_tokens": "cache_read_tokens",
    "cache_read_input_tokens": "cache_read_tokens", "cache_creation_input_tokens": "cache_write_tokens",
    "timestamp": "started_at", "time": "started_at", "created_at": "started_at", "latency_ms": "duration_ms",
    "user": "user_id", "session": "session_id", "tags": "labels", "metadata": "labels", "host": "endpoint_host",
}  # fmt: skip
"""Names that other tools use, where the nearest spelling would mislead."""


def read(body: bytes, encoding: str, by_line: bool, tenant: str, received_ns: int, limits: Limits) -> Imported:
    """Turn calls into an export request, leaving out those that are not right.

    Args:
        body: An object, a list of objects, or `{"calls": [...]}`; as received, in its `encoding`.
        encoding: `identity`, `gzip` or `zstd`.
        by_line: One object in each line instead.
        tenant: Whose calls they are: ids are its own.
        received_ns: Unix time, UTC.
        limits: Bytes, `json_values`, and `spans` for the number of calls.

    Raises:
        MalformedError: The body as a whole cannot be read.
        TooLargeError: It is more than one request may hold.
    """
    text = decompress(body, encoding, limits)
    bound_json(text, limits)
    latest = datetime.fromtimestamp(received_ns // 1_000_000_000, UTC) + AHEAD
    groups: dict[str | None, list[otlp.Span]] = {}
    rejected: list[Rejected] = []
    met: dict[str, int] = {}
    hints: dict[str, str] = {}
    for index, told in enumerate(_lines(text, limits) if by_line else _documents(text, limits)):
        try:
            call = _call(told, latest, hints)
            _meet(call["id"], index, met)
        except (_WrongError, MalformedError) as error:
            rejected.append(Rejected(index, _name(told), str(error)))
        else:
            groups.setdefault(call.get("service"), []).append(_span(call, tenant))
    return Imported(_request(groups), sum(map(len, groups.values())), rejected)


def _documents(text: bytes, limits: Limits) -> list[Any]:
    document = parse(text)
    calls = document.get("calls", document) if isinstance(document, dict) else document
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list):
        raise MalformedError(f'the body is {said(document)}: send a call, a list of calls, or {{"calls": [...]}}')
    if len(calls) > limits.spans:
        raise _too_many(limits)
    return calls


def _lines(text: bytes, limits: Limits) -> list[Any]:
    if text.count(b"\n") > limits.spans:
        raise _too_many(limits)
    return [line for line in text.split(b"\n") if line.strip()]


def _too_many(limits: Limits) -> TooLargeError:
    return TooLargeError(f"more than {limits.spans} calls in one request: send fewer at a time")


def _call(told: Any, latest: datetime, hints: dict[str, str]) -> dict[str, Any]:
    """The fields of one call that say something, each as it goes into the span."""
    if isinstance(told, bytes):
        told = parse(told)
    if not isinstance(told, dict):
        raise _WrongError(f"a call is an object, not {said(told)}")
    call: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in told.items():
        field = FIELDS.get(name)
        try:
            if field is None:
                wrong.append(f"{said(name)} is no field of a call{_nearest(name, hints)}")
            elif value is not None and (read := field.kind.read(value)) is not None:
                call[name] = read
        except _WrongError as error:
            wrong.append(str(error))
        except ValueError:
            wrong.append(f"{name} is {said(value)}: it must be {FIELDS[name].kind.rule}")
        if len(wrong) == MOST_ERRORS:
            break
    if wrong or (wrong := [*_rules(call, latest)]):
        raise _WrongError("; ".join(wrong))
    return call


def _meet(name: str, index: int, met: dict[str, int]) -> None:
    first = met.setdefault(name, index)
    if first != index:
        raise _WrongError(f"id {said(name)} came before, at index {first}: give each call one of its own")


def _rules(call: Mapping[str, Any], latest: datetime) -> Iterable[str]:
    """What is wrong with fields that are right one by one."""
    for name in REQUIRED:
        if name not in call:
            yield f"{name} is missing: {FIELDS[name].meaning}"
    if call.get("started_at", latest) > latest:
        yield f"started_at {call['started_at']} is more than a day ahead of the collector's clock: set the sender's"
    if not any(name in call for name in MODELS):
        yield f"no model is told: give {', '.join(MODELS[:-1])} or {MODELS[-1]}"
    if call.get("status") == "ok" and "error_type" in call:
        yield f"error_type {said(call['error_type'])} and status 'ok' exclude each other: leave one of them out"
    counts = {name: value for name, value in call.items() if name.endswith("_tokens")}
    by_time = [counts[name] for name in BY_TIME if name in counts]
    if by_time and sum(by_time) > counts.setdefault("cache_write_tokens", sum(by_time)):
        whole = counts["cache_write_tokens"]
        yield f"{' + '.join(BY_TIME)} is {sum(by_time)}, more than cache_write_tokens {whole}: they are parts of it"
    for total, names in PARTS:
        parts = [(name, counts[name]) for name in names if name in counts]
        size = sum(count for _, count in parts)
        if parts and total not in counts:
            yield f"{total} is missing: {' and '.join(name for name, _ in parts)} is a part of it"
        elif size > counts.get(total, 0):
            yield (
                f"{' + '.join(f'{name} {count}' for name, count in parts)} is more than {total} {counts[total]}: "
                f"{total} is {FIELDS[total].meaning}"
            )


def _nearest(name: str, hints: dict[str, str]) -> str:
    """The known field that an unknown one may stand for. Seeking is slow, so it ends after some names."""
    if name not in hints:
        if len(hints) >= MOST_HINTS:
            return ""
        near = [OTHERS_SAY[name]] if name in OTHERS_SAY else get_close_matches(name[:64].lower(), FIELDS, 1, 0.5)
        hints[name] = f": did you mean {near[0]}?" if near else ": put it into labels"
    return hints[name]


def _name(told: Any) -> str | None:
    """The id of a call that is not right, as far as it can be read."""
    if isinstance(told, bytes):
        with suppress(MalformedError):
            told = parse(told)
    found = told.get("id") if isinstance(told, dict) else None
    return str(found)[:256] if type(found) in (str, int) else None


# ---- writing


def _span(call: Mapping[str, Any], tenant: str) -> otlp.Span:
    made = hashlib.blake2b(f"{tenant}\0{call['id']}".encode(), digest_size=24).digest()
    started_ns = (call["started_at"] - _EPOCH) // _MICROSECOND * 1000
    attributes = {field.attribute: call[name] for name, field in FIELDS.items() if field.attribute and name in call}
    attributes.setdefault("gen_ai.operation.name", OPERATIONS[0])
    told = call.get("model")
    asked = call.get("request_model", told)
    answered = call.get("response_model", told if "request_model" in call else None)
    attributes |= {"gen_ai.request.model": asked, "gen_ai.response.model": answered}
    host, colon, port = call.get("endpoint_host", "").rpartition(":")
    if colon and port.isdecimal() and len(port) <= 5:
        attributes |= {"server.address": host, "server.port": int(port)}
    else:
        attributes["server.address"] = call.get("endpoint_host")
    if "ttft_ms" in call:
        attributes["gen_ai.response.time_to_first_chunk"] = call["ttft_ms"] / 1000
    status = call.get("status", "error" if "error_type" in call else "ok")
    if status == "cancelled":
        attributes["millicent.status"] = status
    for prefix, name in ((LABEL, "labels"), (UNITS_TOLD, "units"), (PRICE_TOLD, "price_context")):
        attributes |= {f"{prefix}{key}": value for key, value in call.get(name, {}).items()}
    return otlp.Span(
        trace_id=call.get("trace_id", made[:16]),
        span_id=call.get("span_id", made[16:]),
        parent_span_id=call.get("parent_span_id", b""),
        name=f"{attributes['gen_ai.operation.name']} {asked or answered}",
        kind=_CLIENT,
        start_time_unix_nano=started_ns,
        end_time_unix_nano=started_ns + round(call["duration_ms"] * 1_000_000) if "duration_ms" in call else 0,
        attributes=[_pair(key, value) for key, value in attributes.items() if value is not None],
        status=otlp.Status(code=_ERROR if status == "error" else 0),
    )


def _pair(key: str, value: Any) -> otlp.KeyValue:
    told: dict[str, Any] = {_KINDS[type(value)]: value}
    return otlp.KeyValue(key=key, value=otlp.AnyValue(**told))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CLIENT: Final = 3
_ERROR: Final = 2
_KINDS: Final = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}


def _request(groups: Mapping[str | None, list[otlp.Span]]) -> bytes:
    """One resource for each service."""
    scope = otlp.InstrumentationScope(name=SCOPE, version=VERSION)
    resources = [
        otlp.ResourceSpans(
            resource=otlp.Resource(attributes=[_pair("service.name", service)] if service else []),
            scope_spans=[otlp.ScopeSpans(scope=scope, spans=spans)],
        )
        for service, spans in groups.items()
    ]
    return otlp.ExportTraceServiceRequest(resource_spans=resources).SerializeToString()
