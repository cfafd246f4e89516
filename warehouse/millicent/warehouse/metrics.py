"""The metrics dictionary: every measure the product shows, once, as data.

API, dashboard, exports and docs read this table, so that a number means the same everywhere. A ratio is always
sum over sum, never an average of ratios, and every cost per million names its denominator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["count", "tokens", "usd", "usd_per_mtok", "ratio", "hours", "wh", "g", "ms"]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    `formula` is in words and names of sums. A sum has `sum_of` (what `sums` and `query` sum); a ratio has
    `numerator` and `denominator`, each a measure, and `scale` (1,000,000 for a price per million tokens).
    `better` tells which direction of change is good news. `of_deployments` marks facts of an hour of a deployment,
    which cannot be asked by caller.
    """

    name: str
    label: str
    unit: Unit
    formula: str
    words: str
    sum_of: str | None = None
    numerator: str | None = None
    denominator: str | None = None
    scale: int = 1
    better: Better = "neither"
    of_deployments: bool = False


def _sum(
    name: str, label: str, unit: Unit, words: str, better: Better = "neither", *, of_deployments: bool = False,
) -> Measure:  # fmt: skip
    return Measure(name, label, unit, f"Σ {name}", words, sum_of=name, better=better, of_deployments=of_deployments)


def _ratio(
    name: str, label: str, unit: Unit, numerator: str, denominator: str, words: str,
    *, scale: int = 1, better: Better = "lower",
) -> Measure:  # fmt: skip
    times = f" × {scale:,}" if scale != 1 else ""
    return Measure(name, label, unit, f"Σ {numerator} ÷ Σ {denominator}{times}", words,
                   numerator=numerator, denominator=denominator, scale=scale, better=better)  # fmt: skip


MTOK: Final = 1_000_000

DICTIONARY: Final = {
    measure.name: measure
    for measure in (
        _sum("calls", "Calls", "count", "Physical LLM calls that count."),
        _sum("input_tokens", "Input tokens", "tokens", "Everything sent to a model, cache reads and writes included."),
        _sum("output_tokens", "Output tokens", "tokens", "Everything a model returned, reasoning included."),
        _sum("total_tokens", "Tokens", "tokens", "Input plus output tokens."),
        _sum("priced_tokens", "Priced tokens", "tokens", "Tokens of calls whose cost is known, at least in part."),
        _sum("priced_output_tokens", "Priced output tokens", "tokens",
             "Output tokens of calls whose cost is known, at least in part."),
        _sum("cache_read_tokens", "Cached input", "tokens", "Input tokens served from a cache."),
        _sum("cache_write_tokens", "Cache writes", "tokens", "Input tokens written to a cache."),
        _sum("reasoning_tokens", "Reasoning", "tokens", "Output tokens spent on reasoning."),
        _sum("input_audio_tokens", "Audio in", "tokens", "Input tokens that were audio."),
        _sum("output_audio_tokens", "Audio out", "tokens", "Output tokens that were audio."),
        _sum("input_image_tokens", "Images in", "tokens", "Input tokens that were images."),
        Measure("spend_usd", "Spend", "usd", "depends on the cost basis",
                "What it cost on the chosen basis: list, billed, effective (billed API plus own hardware with idle), "
                "usage (the same without idle) or marginal (billed API plus energy); charges included.",
                sum_of="spend_usd", better="lower"),
        _sum("list_cost_usd", "List cost", "usd", "Tokens at the API list price of their instant.", "lower"),
        _sum("billed_cost_usd", "Billed cost", "usd", "What API providers bill for the calls.", "lower"),
        _sum("hardware_cost_usd", "Own hardware, busy", "usd",
             "Share of own accelerators that calls used: weighted tokens times the rate of their deployment-hour.",
             "lower"),
        _sum("idle_cost_usd", "Idle", "usd", "Own accelerators paid for while no call ran.", "lower"),
        _sum("unavailable_cost_usd", "Unavailable", "usd",
             "Own accelerators paid for while they could not serve: loading, compiling, failure.", "lower"),
        _sum("untracked_cost_usd", "Untracked", "usd",
             "Own accelerators that worked for tokens that we did not see, or whose work nobody observed.", "lower"),
        _sum("charges_usd", "Charges and credits", "usd",
             "What belongs to no call: fees, commitments, discounts by volume, credits, and adjustments of closed "
             "periods; at list on the list basis, as billed on all others.", "lower"),
        _sum("energy_cost_usd", "Energy", "usd", "Electricity of own accelerators, busy and idle.", "lower"),
        _sum("capacity_cost_usd", "Own hardware", "usd",
             "Own accelerators in full: busy, idle, unavailable and untracked.", "lower"),
        _sum("cache_saving_usd", "Cache savings", "usd",
             "List price of cached input had it not been cached, minus what it cost, minus the premium of writing it.",
             "higher"),
        _sum("unpriced_calls", "Unpriced calls", "count", "Billable calls whose price is unknown or partly unknown.",
             "lower"),
        _sum("unattributed_calls", "Unattributed calls", "count", "Calls that carry no team.", "lower"),
        _sum("unattributed_spend_usd", "Unattributed spend", "usd",
             "Spend on calls that carry no team; idle and charges are not in it.", "lower"),
        _sum("attributed_calls", "Attributed calls", "count", "Calls that carry a team.", "higher"),
        _sum("priced_calls", "Priced calls", "count", "Calls whose cost is known in full.", "higher"),
        _sum("error_calls", "Failed calls", "count", "Calls that ended in an error.", "lower"),
        _sum("missing_usage_calls", "Calls without usage", "count", "Calls that reported no token counts.", "lower"),
        _sum("accelerator_hours", "Accelerator-hours", "hours", "Hours of own accelerators, busy and idle.",
             of_deployments=True),
        _sum("energy_wh", "Energy", "wh", "Electricity of own accelerators, overhead of the site included.", "lower",
             of_deployments=True),
        _sum("gco2e_g", "Carbon", "g", "Emissions of that electricity, location-based.", "lower",
             of_deployments=True),
        _ratio("cost_per_mtok_usd", "Cost / 1M tokens", "usd_per_mtok", "spend_usd", "priced_tokens",
               "Spend per million tokens, input plus output, of calls whose cost is known.", scale=MTOK),
        _ratio("cost_per_output_mtok_usd", "Cost / 1M output tokens", "usd_per_mtok", "spend_usd",
               "priced_output_tokens",
               "Spend per million output tokens of calls whose cost is known; all input is carried by the output.",
               scale=MTOK),
        _ratio("cost_per_call_usd", "Cost / call", "usd", "spend_usd", "calls", "Spend per call."),
        _ratio("cache_hit_ratio", "Cache hit", "ratio", "cache_read_tokens", "input_tokens",
               "Share of input tokens served from a cache.", better="higher"),
        _ratio("idle_ratio", "Idle capacity", "ratio", "idle_cost_usd", "capacity_cost_usd",
               "Share of own-hardware cost that no call used."),
        _ratio("priced_ratio", "Priced", "ratio", "priced_calls", "calls",
               "Share of calls whose cost is known in full.", better="higher"),
        _ratio("attributed_ratio", "Attributed", "ratio", "attributed_calls", "calls",
               "Share of calls that carry a team.", better="higher"),
        _ratio("unattributed_spend_share", "Unattributed", "ratio", "unattributed_spend_usd", "spend_usd",
               "Share of spend on calls that carry no team; idle is in the whole, not in the part."),
        _ratio("error_ratio", "Errors", "ratio", "error_calls", "calls", "Share of calls that failed."),
    )
}  # fmt: skip
