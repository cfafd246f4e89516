"""What is billed by other units than tokens: searches, seconds of audio, pages, and fees per request."""

from typing import Final, NamedTuple

REQUESTS: Final = "requests"


class Unit(NamedTuple):
    """One billable unit: the record's key, the price data's key, units per price, and which units include it."""

    key: str
    price_key: str
    per: int
    within: tuple[str, ...] = ()


# Most specific first: a unit's quantity is its count less the quantities of the priced units inside it.
UNITS: Final = (
    Unit("input_audio_seconds", "input_audio_hours", 3_600, ("audio_seconds",)),
    Unit("output_audio_seconds", "output_audio_hours", 3_600, ("audio_seconds",)),
    Unit("audio_seconds", "audio_hours", 3_600),
    Unit("input_annotated_document_pages", "input_annotated_document_kpages", 1_000, ("input_document_pages",)),
    Unit("input_document_pages", "input_document_kpages", 1_000),
    Unit("input_characters", "input_mchars", 10**6),
    Unit("input_text_messages", "input_text_messages_kcount", 1_000),
    Unit("input_pixels", "input_gpixels", 10**9),
    Unit("rerank_searches", "rerank_searches_kcount", 1_000),
    Unit("web_searches", "web_searches_kcount", 1_000),
    Unit("social_searches", "social_searches_kcount", 1_000),
    Unit("storage_searches", "storage_searches_kcount", 1_000),
    Unit("code_executions", "code_executions_kcount", 1_000),
    Unit(REQUESTS, "requests_kcount", 1_000),
)
UNIT: Final = {unit.key: unit for unit in UNITS}
