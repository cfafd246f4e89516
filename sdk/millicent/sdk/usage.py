from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Token counts of one call, in the inclusive normal form.

    `input_tokens` is everything that went in, cache reads and writes included; `output_tokens` everything that
    came out, reasoning included; the other token fields are parts of these two. `units` is what else is billed, by
    the names of the price data: web_searches, audio_seconds, … None means unknown, which is not 0.
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
    units: Mapping[str, int] | None = None
