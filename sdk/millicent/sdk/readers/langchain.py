"""LangChain's messages, from any provider: totals that include their parts, added up over the chunks of a stream."""

from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.openai import completions
from millicent.sdk.readers.wire import Counts, Fields, Look, Reading, counts, look_into, text

_FIELDS: Final[Fields] = {
    "": {"input_tokens": key.INPUT, "output_tokens": key.OUTPUT},
    "input_token_details": {
        "cache_read": key.CACHE_READ,
        "cache_creation": key.CACHE_WRITE,
        "ephemeral_5m_input_tokens": key.CACHE_WRITE_5M,
        "ephemeral_1h_input_tokens": key.CACHE_WRITE_1H,
        "audio": key.INPUT_AUDIO,
    },
    "output_token_details": {"reasoning": key.REASONING, "audio": key.OUTPUT_AUDIO},
}
_OWN_IDS: Final = ("run-", "lc_run-")  # of LangChain's runs, not of the provider's responses


def langchain(answer: Any, look: Look, so_far: Counts) -> Reading | None:
    """An `AIMessage`, one of its chunks, or its usage alone; older ones have the provider's usage in the metadata."""
    metadata = look("response_metadata")
    if metadata is None:
        return Reading(_usage(look)) if look("input_token_details") is not None else None
    about = look_into(metadata)
    counted = _usage(look_into(look("usage_metadata")))
    if counted is None and (raw := about("token_usage")) is not None:
        told = completions(answer, {"usage": raw}.get, so_far)
        counted = None if told is None else told.usage
    elif counted is not None and text(look, "type") == "AIMessageChunk":
        counted = {name: so_far.get(name, 0) + counted.get(name, 0) for name in so_far | counted}
    own_id = text(look, "id")
    if own_id is not None and own_id.startswith(_OWN_IDS):
        own_id = None
    return Reading(
        counted,
        text(about, "model_name") or text(about, "model"),
        text(about, "id") or own_id,
        operation="chat",
        service_tier=text(about, "service_tier"),
    )


def _usage(usage: Look) -> Counts | None:
    found = counts(usage, _FIELDS)
    by_lifetime = found.get(key.CACHE_WRITE_5M, 0) + found.get(key.CACHE_WRITE_1H, 0)
    if by_lifetime and not found.get(key.CACHE_WRITE):
        found[key.CACHE_WRITE] = by_lifetime  # the total is set to 0 where the lifetimes are told
    return found or None
