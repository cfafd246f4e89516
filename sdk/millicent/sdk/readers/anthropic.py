"""Anthropic's messages, whoever serves them: its own API, Bedrock's invoke, Vertex.

The cache counters stand outside `input_tokens`, thinking inside `output_tokens`; every `message_delta` repeats the
counters of the whole message so far (https://docs.anthropic.com/en/api/messages-streaming).
"""

from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Fields, Look, Reading, count, counts, look_into, text

_FIELDS: Final[Fields] = {
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
    "server_tool_use": {"web_search_requests": key.WEB_SEARCHES},  # its fetches of pages cost their tokens alone
}
_IDS: Final = {"msg_bdrk_": "aws.bedrock", "msg_vrtx_": "gcp.vertex_ai", "msg_": "anthropic"}


def messages(_: Any, look: Look, so_far: Counts) -> Reading | None:
    """The message, its `message_start` and `message_delta` events, or its usage alone."""
    event = text(look, "type")
    if event == "message_start":
        look = look_into(look("message"))
    usage = look_into(look("usage"))
    if event not in ("message", "message_start", "message_delta") and not _has_caches(usage):
        return Reading(_usage(look, so_far)) if _has_caches(look) else None
    counted, speed = _usage(usage, so_far), text(usage, "speed")
    speed = None if speed == "standard" else speed
    if event == "message_delta":
        return Reading(counted, speed=speed)
    if event == "message_start" and counted is not None:
        counted.pop(key.OUTPUT, None)  # a placeholder
    model, response_id, request_id = text(look, "model"), text(look, "id"), text(look, "_request_id")
    return Reading(
        counted,
        model,
        response_id,
        _provider(model, response_id),
        "chat",
        text(usage, "service_tier"),
        key.ANTHROPIC_TIER,
        request_id,
        request_id and key.ANTHROPIC_REQUEST_ID,
        speed,
    )


def _usage(usage: Look, so_far: Counts) -> Counts | None:
    """Put the caches into the input; what an event leaves out is as the earlier events told."""
    found = so_far | counts(usage, _FIELDS)
    if key.CACHE_WRITE not in found and (key.CACHE_WRITE_5M in found or key.CACHE_WRITE_1H in found):
        found[key.CACHE_WRITE] = found.get(key.CACHE_WRITE_5M, 0) + found.get(key.CACHE_WRITE_1H, 0)
    fresh = count(usage("input_tokens"))
    if fresh is None and key.INPUT in so_far:
        fresh = max(0, so_far[key.INPUT] - so_far.get(key.CACHE_READ, 0) - so_far.get(key.CACHE_WRITE, 0))
    if fresh is not None:
        found[key.INPUT] = fresh + found.get(key.CACHE_READ, 0) + found.get(key.CACHE_WRITE, 0)
    return found or None


def _has_caches(usage: Look) -> bool:
    return usage("cache_read_input_tokens") is not None or usage("cache_creation_input_tokens") is not None


def _provider(model: str | None, response_id: str | None) -> str | None:
    if model is None or response_id is None or "claude" not in model:
        return None
    return next((provider for prefix, provider in _IDS.items() if response_id.startswith(prefix)), None)
