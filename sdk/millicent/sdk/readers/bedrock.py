"""Amazon Bedrock: Converse, whole and streamed, and the bodies and headers of InvokeModel.

`inputTokens` leaves out both caches, whatever the words of its documentation suggest; `outputTokens` has reasoning
(https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html).
"""

import json
from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Look, Reading, count, items, look_into, text

_CONVERSE: Final = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
_METRICS: Final = ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount")
_HEADERS: Final = tuple(
    f"x-amzn-bedrock-{name}-token-count" for name in ("input", "output", "cache-read-input", "cache-write-input")
)
_TTLS: Final = {"5m": key.CACHE_WRITE_5M, "1h": key.CACHE_WRITE_1H}


def converse(_: Any, look: Look, __: Counts) -> Reading | None:
    """A response, the `metadata` event of a stream, or the usage alone."""
    event = look("metadata")
    inside = look if event is None else look_into(event)
    counted = _usage(look_into(inside("usage")), _CONVERSE)
    if counted is None:
        counted = _usage(look, _CONVERSE)
        return None if counted is None else Reading(counted, provider="aws.bedrock", operation="chat")
    return _told(look, counted, text(look_into(inside("serviceTier")), "type"))


def invoke(_: Any, look: Look, __: Counts) -> Reading | None:
    """The headers of InvokeModel, whose body is still to be read; the metrics that end its stream; a stream at all."""
    metrics = look("amazon-bedrock-invocationMetrics")
    if metrics is not None:
        counted = _usage(look_into(metrics), _METRICS)
        return None if counted is None else Reading(counted, provider="aws.bedrock")
    metadata = look("ResponseMetadata")
    if metadata is None:
        return None
    headers = look_into(look_into(metadata)("HTTPHeaders"))
    counted = _usage(lambda name: _number(headers(name)), _HEADERS)
    if counted is None and look("stream") is None:
        return None
    return _told(look, counted, text(look, "serviceTier"))


def event_of_chunk(look: Look) -> Any:
    """Return the provider's own event in a chunk of InvokeModelWithResponseStream; None where there is none."""
    chunk = look("chunk")
    payload = chunk.get("bytes") if isinstance(chunk, dict) else None
    if not isinstance(payload, bytes) or (b'"usage"' not in payload and b"invocationMetrics" not in payload):
        return None
    try:
        return json.loads(payload)
    except ValueError:
        return None


def _told(look: Look, counted: Counts | None, tier: str | None) -> Reading:
    request_id = text(look_into(look("ResponseMetadata")), "RequestId")
    return Reading(
        counted,
        provider="aws.bedrock",
        operation="chat",
        service_tier=tier,
        request_id=request_id,
        request_attribute=request_id and key.AWS_REQUEST_ID,
    )


def _usage(usage: Look, names: tuple[str, ...]) -> Counts | None:
    fresh, output, read, written = (count(usage(name)) for name in names)
    if fresh is None and output is None:
        return None
    lifetimes: Counts = {}
    for detail in map(look_into, items(usage("cacheDetails"))):
        attribute, tokens = _TTLS.get(text(detail, "ttl") or ""), count(detail("inputTokens"))
        if attribute is not None and tokens is not None:
            lifetimes[attribute] = lifetimes.get(attribute, 0) + tokens
    if written is None and lifetimes:
        written = sum(lifetimes.values())
    sent = None if fresh is None else fresh + (read or 0) + (written or 0)
    told = {key.INPUT: sent, key.OUTPUT: output, key.CACHE_READ: read, key.CACHE_WRITE: written}
    return {attribute: tokens for attribute, tokens in told.items() if tokens is not None} | lifetimes


def _number(header: object) -> int | None:
    return int(header) if isinstance(header, str) and header.isdecimal() and len(header) < 12 else None
