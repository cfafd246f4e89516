"""What a response tells about its cost: one small reader per provider shape, tried in order.

Readers look at shapes and never import a provider's package, so objects, dicts and stream events read alike.
Wire semantics follow the providers' own types: OpenAI counts cached and reasoning tokens inside its totals
(https://platform.openai.com/docs/api-reference), Anthropic counts cache reads and writes outside `input_tokens`
and repeats cumulative counters in every `message_delta` (https://docs.anthropic.com/en/api/messages-streaming).
"""

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from millicent.sdk import attributes as key

MAX_TOKENS: Final = 1_000_000_000
"""No single call comes near this many tokens; a counter above it is a mistake and reads as unknown."""

Counts = dict[str, int]
"""Attribute key → tokens. What is absent is unknown."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Token counts of one call, in the inclusive normal form.

    `input_tokens` is everything that went in, cache reads and writes included; `output_tokens` everything that
    came out, reasoning included; the other fields are parts of these two. None means unknown, which is not 0.
    Return one from a tracked function (itself, or as `usage` of the result) where no provider object tells.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_30m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    cache_write_12h_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None


class Reading(NamedTuple):
    """What one response, or one chunk of a stream, tells. None where it tells nothing."""

    usage: Counts | None = None
    model: str | None = None
    response_id: str | None = None
    provider: str | None = None
    operation: str | None = None
    service_tier: str | None = None
    tier_attribute: str | None = None

    def then(self, later: "Reading") -> "Reading":
        """Return both readings in one; where both know, the later one is right (usage is cumulative)."""
        return Reading._make(old if new is None else new for old, new in zip(self, later, strict=True))


NOTHING: Final = Reading()


def read(answer: object, so_far: Reading = NOTHING) -> Reading:
    """Read a response or a chunk.

    Args:
        answer: Whatever a tracked function returned or yielded.
        so_far: What the earlier chunks of the same stream told.

    Returns:
        `so_far` completed by `answer`; `so_far` itself where no reader recognises it.
    """
    if isinstance(answer, (str, bytes)):
        answer = _event_of_line(answer)
    if answer is None:
        return so_far
    earlier = so_far.usage or {}
    for reader in READERS:
        told = reader(answer, earlier)
        if told is not None:
            return told if so_far is NOTHING else so_far.then(told)
    return so_far


# Where each wire format keeps its counters: part of the usage ("" is the usage itself) → field → attribute key.
Fields = Mapping[str, Mapping[str, str]]

_COMPLETION_FIELDS: Final[Fields] = {
    "": {"prompt_tokens": key.INPUT, "completion_tokens": key.OUTPUT},
    "prompt_tokens_details": {
        "cached_tokens": key.CACHE_READ,
        "cache_write_tokens": key.CACHE_WRITE,
        "audio_tokens": key.INPUT_AUDIO,
        "image_tokens": key.INPUT_IMAGE,
    },
    "completion_tokens_details": {"reasoning_tokens": key.REASONING, "audio_tokens": key.OUTPUT_AUDIO},
}
_RESPONSE_FIELDS: Final[Fields] = {
    "": {"input_tokens": key.INPUT, "output_tokens": key.OUTPUT},
    "input_tokens_details": {"cached_tokens": key.CACHE_READ, "cache_write_tokens": key.CACHE_WRITE},
    "output_tokens_details": {"reasoning_tokens": key.REASONING},
}
_RESPONSE_WRITE_FIELDS: Final[Fields] = {
    "cache_write_tokens_details": {"ttl_30m_tokens": key.CACHE_WRITE_30M, "ttl_12h_tokens": key.CACHE_WRITE_12H},
}
_MESSAGE_FIELDS: Final[Fields] = {
    "": {
        "output_tokens": key.OUTPUT,
        "cache_read_input_tokens": key.CACHE_READ,
        "cache_creation_input_tokens": key.CACHE_WRITE,
    },
    "cache_creation": {
        "ephemeral_5m_input_tokens": key.CACHE_WRITE_5M,
        "ephemeral_1h_input_tokens": key.CACHE_WRITE_1H,
    },
    "output_tokens_details": {"thinking_tokens": key.REASONING},
}
_PLAIN_FIELDS: Final[Fields] = {
    "": {
        "input_tokens": key.INPUT,
        "output_tokens": key.OUTPUT,
        "cache_read_tokens": key.CACHE_READ,
        "cache_write_tokens": key.CACHE_WRITE,
        "cache_write_5m_tokens": key.CACHE_WRITE_5M,
        "cache_write_30m_tokens": key.CACHE_WRITE_30M,
        "cache_write_1h_tokens": key.CACHE_WRITE_1H,
        "cache_write_12h_tokens": key.CACHE_WRITE_12H,
        "reasoning_tokens": key.REASONING,
        "input_audio_tokens": key.INPUT_AUDIO,
        "output_audio_tokens": key.OUTPUT_AUDIO,
        "input_image_tokens": key.INPUT_IMAGE,
    },
}

_OPERATIONS: Final = {
    "chat.completion": "chat",
    "chat.completion.chunk": "chat",
    "text_completion": "text_completion",
    "list": "embeddings",
}


def _openai_completions(answer: Any, _: Counts) -> Reading | None:
    """Chat completions, legacy completions and embeddings; whole, chunk (the last has the usage), or usage alone."""
    usage = _get(answer, "usage")
    is_counted = usage is not None and _get(usage, "prompt_tokens") is not None
    kind = _text(answer, "object")
    operation = None if kind is None else _OPERATIONS.get(kind)
    if not is_counted and (operation is None or operation == "embeddings"):  # a "list" without usage is any list
        return None if _get(answer, "prompt_tokens") is None else Reading(_completion_usage(answer))
    model, response_id = _identity(answer)
    return Reading(
        _completion_usage(usage) if is_counted else None,
        model,
        response_id,
        _openai_provider(answer, model, response_id),
        operation,
        _text(answer, "service_tier"),
        key.OPENAI_TIER,
    )


def _completion_usage(usage: Any) -> Counts | None:
    counts = _counts(usage, _COMPLETION_FIELDS)
    output, reasoning = counts.get(key.OUTPUT), counts.get(key.REASONING)
    if reasoning and output is not None:
        total = _get(usage, "total_tokens")
        if total == counts.get(key.INPUT, 0) + output + reasoning:
            counts[key.OUTPUT] = output + reasoning  # xAI leaves reasoning out; only its total shows it
    return counts or None


def _openai_responses(answer: Any, _: Counts) -> Reading | None:
    """The Responses API: the response, the stream events that carry it, or its usage alone."""
    event = _text(answer, "type")
    if event is not None and event.startswith("response."):
        answer = _get(answer, "response")
    usage = _get(answer, "usage")
    if _text(answer, "object") != "response" and _get(usage, "input_tokens_details") is None:
        return None if _get(answer, "input_tokens_details") is None else Reading(_response_usage(answer))
    model, response_id = _identity(answer)
    return Reading(
        _response_usage(usage),
        model,
        response_id,
        _openai_provider(answer, model, response_id),
        "chat",
        _text(answer, "service_tier"),
        key.OPENAI_TIER,
    )


def _response_usage(usage: Any) -> Counts | None:
    counts = _counts(usage, _RESPONSE_FIELDS)
    if key.CACHE_WRITE in counts:
        counts |= _counts(_get(usage, "input_tokens_details"), _RESPONSE_WRITE_FIELDS)
    return counts or None


def _anthropic_messages(answer: Any, so_far: Counts) -> Reading | None:
    """The Messages API: the message, its `message_start` and `message_delta` events, or its usage alone."""
    event = _text(answer, "type")
    if event == "message_start":
        answer = _get(answer, "message")
    usage = _get(answer, "usage")
    if event not in ("message", "message_start", "message_delta") and not _has_anthropic_caches(usage):
        return Reading(_message_usage(answer, so_far)) if _has_anthropic_caches(answer) else None
    counts = _message_usage(usage, so_far)
    if event == "message_delta":
        return Reading(counts)
    if event == "message_start" and counts is not None:
        counts.pop(key.OUTPUT, None)  # a placeholder
    model, response_id = _identity(answer)
    return Reading(
        counts,
        model,
        response_id,
        _anthropic_provider(model, response_id),
        "chat",
        _text(usage, "service_tier"),
        key.ANTHROPIC_TIER,
    )


def _message_usage(usage: Any, so_far: Counts) -> Counts | None:
    """Normalise Anthropic's counters: caches into the input; what an event leaves out as the earlier events told."""
    counts = so_far | _counts(usage, _MESSAGE_FIELDS)
    if key.CACHE_WRITE not in counts and (key.CACHE_WRITE_5M in counts or key.CACHE_WRITE_1H in counts):
        counts[key.CACHE_WRITE] = counts.get(key.CACHE_WRITE_5M, 0) + counts.get(key.CACHE_WRITE_1H, 0)
    fresh = _count(_get(usage, "input_tokens"))
    if fresh is None and key.INPUT in so_far:
        fresh = max(0, so_far[key.INPUT] - so_far.get(key.CACHE_READ, 0) - so_far.get(key.CACHE_WRITE, 0))
    if fresh is not None:
        counts[key.INPUT] = fresh + counts.get(key.CACHE_READ, 0) + counts.get(key.CACHE_WRITE, 0)
    return counts or None


def _plain(answer: Any, _: Counts) -> Reading | None:
    """A `TokenUsage`, or anything with its field names; itself or under `usage`."""
    nested = _get(answer, "usage")
    usage = answer if nested is None else nested
    if _get(usage, "input_tokens") is None and _get(usage, "output_tokens") is None:
        return None
    counts = _counts(usage, _PLAIN_FIELDS)
    if not counts:
        return None
    return Reading(counts) if nested is None else Reading(counts, *_identity(answer))


READERS: Final[tuple[Callable[[Any, Counts], Reading | None], ...]] = (
    _openai_completions,
    _openai_responses,
    _anthropic_messages,
    _plain,
)
"""Tried in order; the first that recognises the shape is right. A new provider is a new function here."""

_LONGEST_LINE: Final = 1 << 20


def _event_of_line(line: str | bytes) -> Any:
    """Return the event in a raw line of a server-sent event stream, parsed only where it has a usage; else None."""
    text = line if isinstance(line, bytes) else line[:_LONGEST_LINE].encode(errors="replace")
    if not text.startswith(b"data:") or b'"usage"' not in text or len(text) > _LONGEST_LINE:
        return None
    try:
        return json.loads(text[len(b"data:") :])
    except ValueError:
        return None


# Models that only their maker serves under these names and identifiers. Open weights are served by anybody.
_OPENAI_MODELS: Final = ("gpt-3", "gpt-4", "gpt-5", "o1", "o3", "o4", "chatgpt-", "text-embedding-", "ft:gpt-")
_OPENAI_IDS: Final = ("chatcmpl-", "resp_", "cmpl-")
_ANTHROPIC_IDS: Final = {"msg_bdrk_": "aws.bedrock", "msg_vrtx_": "gcp.vertex_ai", "msg_": "anthropic"}


def _openai_provider(answer: Any, model: str | None, response_id: str | None) -> str | None:
    if model is None or not model.startswith(_OPENAI_MODELS):
        return None
    if response_id is not None and not response_id.startswith(_OPENAI_IDS):
        return None
    # Azure serves the same models in the same shape, and adds the verdict of its content filter.
    undeclared = answer if isinstance(answer, dict) else getattr(answer, "model_extra", None)
    is_azure = isinstance(undeclared, dict) and "prompt_filter_results" in undeclared
    return "azure.ai.openai" if is_azure else "openai"


def _anthropic_provider(model: str | None, response_id: str | None) -> str | None:
    if model is None or response_id is None or "claude" not in model:
        return None
    return next((provider for prefix, provider in _ANTHROPIC_IDS.items() if response_id.startswith(prefix)), None)


def _has_anthropic_caches(usage: Any) -> bool:
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return usage is not None and any(_get(usage, name) is not None for name in names)


def _identity(answer: Any) -> tuple[str | None, str | None]:
    return _text(answer, "model"), _text(answer, "id")


def _get(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, dict) else getattr(source, name, None)


def _text(source: Any, name: str) -> str | None:
    value = source.get(name) if isinstance(source, dict) else getattr(source, name, None)
    return value if type(value) is str and value else None


def _counts(usage: Any, fields: Fields) -> Counts:
    counts: Counts = {}
    for part, names in fields.items():
        source = _get(usage, part) if part else usage
        if source is None:
            continue
        is_dict = isinstance(source, dict)
        for name, attribute in names.items():
            value = source.get(name) if is_dict else getattr(source, name, None)
            if value is not None and (tokens := _count(value)) is not None:
                counts[attribute] = tokens
    return counts


def _count(value: Any) -> int | None:
    """Return a token count, or None for what cannot be one: negative, absurd, a bool, not an integer."""
    if type(value) is not int:
        if isinstance(value, bool) or not hasattr(type(value), "__index__"):
            return None
        value = operator.index(value)
    return value if 0 <= value <= MAX_TOKENS else None
