"""What an app tells itself: a `TokenUsage`, or anything with its field names."""

from collections.abc import Mapping
from typing import Any, Final

from millicent.sdk import attributes as key
from millicent.sdk.readers.wire import Counts, Fields, Look, Reading, count, counts, look_into, text
from millicent.sdk.usage import TokenUsage

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


def plain(answer: Any, look: Look, _: Counts) -> Reading | None:
    """The usage itself, or something that has it as `usage`."""
    nested = look("usage")
    usage = look if nested is None else look_into(nested)
    is_ours = isinstance(answer if nested is None else nested, TokenUsage)
    if usage("input_tokens") is None and usage("output_tokens") is None and not is_ours:
        return None
    found = counts(usage, FIELDS) | _units(usage("units"))
    if not found:
        return None
    return Reading(found) if nested is None else Reading(found, text(look, "model"), text(look, "id"))


def _units(told: Any) -> Counts:
    if not isinstance(told, Mapping):
        return {}
    known = {f"{key.UNITS_PREFIX}{name}": count(number) for name, number in told.items() if isinstance(name, str)}
    return {attribute: number for attribute, number in known.items() if number is not None}
