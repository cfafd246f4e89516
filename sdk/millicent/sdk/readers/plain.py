"""What an app tells itself: a `TokenUsage`, or anything with its field names."""

from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Fields, Look, Reading, counts, look_into, text

FIELDS: Final[Fields] = {
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


def plain(_: Any, look: Look, __: Counts) -> Reading | None:
    """The usage itself, or something that has it as `usage`."""
    nested = look("usage")
    usage = look if nested is None else look_into(nested)
    if usage("input_tokens") is None and usage("output_tokens") is None:
        return None
    found = counts(usage, FIELDS)
    if not found:
        return None
    return Reading(found) if nested is None else Reading(found, text(look, "model"), text(look, "id"))
