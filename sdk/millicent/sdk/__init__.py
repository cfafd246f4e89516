"""Tag every LLM call with team, model, accelerator and token counts, over OpenTelemetry."""

from millicent.sdk.attribution import attribution
from millicent.sdk.budget import BudgetExceeded, BudgetGuard
from millicent.sdk.decorator import track_tokens
from millicent.sdk.export import instrument
from millicent.sdk.faults import sdk_stats
from millicent.sdk.processor import TokenSpanProcessor
from millicent.sdk.usage import TokenUsage

__all__ = [
    "BudgetExceeded",
    "BudgetGuard",
    "TokenSpanProcessor",
    "TokenUsage",
    "attribution",
    "instrument",
    "sdk_stats",
    "track_tokens",
]
