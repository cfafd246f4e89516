"""The metrics dictionary: every measure the product shows, once, as data.

API, dashboard, exports and docs read this table, so that a number means the same everywhere. A ratio is always
sum over sum, never an average of ratios, and every cost per million names its denominator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Unit = Literal[
    "count", "tokens", "usd", "usd_per_mtok", "ratio", "hours", "s", "ms", "joules", "wh", "g", "g_per_mtok",
    "tokens_per_joule", "tokens_per_second",
]  # fmt: skip
WHOLE: Final[tuple[Unit, ...]] = ("count", "tokens")
"""Units of what comes in whole numbers."""
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure.

    `formula` is in words and names of sums. A sum has `sum_of` (the measure whose amounts it adds up); a ratio has
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


def _sum(name: str, label: str, unit: Unit, words: str, better: Better = "neither") -> Measure:
    return Measure(name, label, unit, f"Σ {name}", words, sum_of=name, better=better)


def _fact(name: str, label: str, unit: Unit, words: str, better: Better = "neither") -> Measure:
    """A sum over deployment-hours that cannot be split by caller."""
    return replace(_sum(name, label, unit, words, better), of_deployments=True)


def _ratio(
    name: str, label: str, unit: Unit, numerator: str, denominator: str, words: str,
    *, scale: int = 1, better: Better = "lower", of_deployments: bool = False,
) -> Measure:  # fmt: skip
    times = f" × {scale:,}" if scale != 1 else ""
    return Measure(name, label, unit, f"Σ {numerator} ÷ Σ {denominator}{times}", words,
                   numerator=numerator, denominator=denominator, scale=scale, better=better,
                   of_deployments=of_deployments)  # fmt: skip


MTOK: Final = 1_000_000


def named(name: str, currency: str) -> str:
    """What a measure, or its unit, is called where amounts are in that currency: `spend_eur` for `spend_usd`."""
    return "_".join(currency.lower() if word == "usd" else word for word in name.split("_"))


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
        _sum("listed_tokens", "Tokens of known list price", "tokens",
             "Tokens of calls whose API list price is known, at least in part."),
        _sum("listed_output_tokens", "Output tokens of known list price", "tokens",
             "Output tokens of calls whose API list price is known, at least in part."),
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
        _sum("list_input_usd", "List cost, uncached input", "usd",
             "The part of the list cost that is for input neither read from nor written to a cache.", "lower"),
        _sum("list_cache_read_usd", "List cost, cache reads", "usd",
             "The part of the list cost that is for input read from a cache.", "lower"),
        _sum("list_cache_write_usd", "List cost, cache writes", "usd",
             "The part of the list cost that is for input written to a cache.", "lower"),
        _sum("list_output_usd", "List cost, output", "usd", "The part of the list cost that is for output.", "lower"),
        _sum("list_units_usd", "List cost, other units", "usd",
             "The part of the list cost that is for searches, images and other units, and fees per request.", "lower"),
        _sum("own_tokens", "Own-hardware tokens", "tokens", "Input plus output tokens of calls on own hardware."),
        _sum("own_output_tokens", "Own-hardware output", "tokens", "Output tokens of calls on own hardware."),
        _sum("served_tokens", "Served tokens", "tokens",
             "Tokens of calls on own hardware that is declared for the hour in which they began."),
        _sum("energy_tokens", "Tokens of known energy", "tokens",
             "Tokens of calls on own hardware whose deployment-hour tells its energy."),
        _sum("energy_output_tokens", "Output tokens of known energy", "tokens",
             "Output tokens of calls on own hardware whose deployment-hour tells its energy."),
        _sum("carbon_tokens", "Tokens of known carbon", "tokens",
             "Tokens of calls on own hardware whose deployment-hour tells its carbon."),
        _sum("hardware_cost_usd", "Own hardware, busy", "usd",
             "Share of own accelerators that calls used: weighted tokens times the rates of their deployment-hour, "
             "input and output apart.", "lower"),
        _sum("hardware_input_usd", "Own hardware, uncached input", "usd",
             "The part of the busy share of own accelerators that uncached input took, by its weight.", "lower"),
        _sum("hardware_cached_usd", "Own hardware, cached input", "usd",
             "The part of the busy share of own accelerators that cached input took, by its weight.", "lower"),
        _sum("hardware_output_usd", "Own hardware, output", "usd",
             "The part of the busy share of own accelerators that output took, by its weight.", "lower"),
        _sum("idle_cost_usd", "Idle", "usd",
             "Own accelerators paid for while no call ran; with a team where a policy says that it carries it.",
             "lower"),
        _sum("unavailable_cost_usd", "Unavailable", "usd",
             "Own accelerators paid for while they could not serve: loading, compiling, failure.", "lower"),
        _sum("untracked_cost_usd", "Untracked", "usd",
             "Own accelerators that worked for tokens that we did not see, or whose work nobody observed.", "lower"),
        _sum("charges_usd", "Charges and credits", "usd",
             "What belongs to no call: fees, commitments, discounts by volume, credits, and adjustments of closed "
             "periods, own hardware included where the basis has it; at list on the list basis, as billed on all "
             "others.", "lower"),
        _sum("energy_cost_usd", "Electricity", "usd",
             "Electricity of own accelerators that is charged on its own: busy, idle, unavailable and untracked.",
             "lower"),
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
        Measure("energy_joules", "Energy, joules", "joules", "Σ energy_joules",
                "Energy of own accelerators at the meter of the site, hosts and cooling included: measured where a "
                "counter tells, else modelled. Idle has a part of its own.", sum_of="energy_joules", better="lower"),
        Measure("energy_wh", "Energy", "wh", "Σ energy_joules ÷ 3,600", "The same energy in watt-hours.",
                sum_of="energy_joules", better="lower"),
        _sum("gco2e_g", "Carbon", "g",
             "Emissions of that energy, location-based: by the grid that it was drawn from.", "lower"),
        _sum("gco2e_market_g", "Carbon, market-based", "g",
             "Emissions of that energy by the electricity that was bought; unknown unless declared.", "lower"),
        _fact("accelerator_hours", "Accelerator-hours", "hours",
              "Hours of own accelerators that were paid for, whether they worked or not."),
        _fact("allocated_accelerator_hours", "Allocated accelerator-hours", "hours",
              "Hours of own accelerators that a deployment held; what was reserved and not taken is left out."),
        _fact("serving_accelerator_hours", "Serving accelerator-hours", "hours",
              "Hours in which own accelerators could serve: allocated, and not unavailable."),
        _fact("busy_accelerator_hours", "Busy accelerator-hours", "hours",
              "Hours of own accelerators with at least one request running."),
        _fact("unobserved_accelerator_hours", "Unobserved accelerator-hours", "hours",
              "Hours of own accelerators in which nobody saw what ran.", "lower"),
        _fact("busy_accelerator_seconds", "Busy accelerator-seconds", "s",
              "Seconds of own accelerators with at least one request running."),
        _fact("fixed_cost_usd", "Capital or rent", "usd",
              "What own accelerators cost by the hour: capital and maintenance, rent, or a survey's all-in price.",
              "lower"),
        _fact("hosting_cost_usd", "Hosting", "usd", "Space, cooling and racks of owned accelerators.", "lower"),
        _fact("measured_energy_joules", "Measured energy", "joules",
              "What of the energy stands on counters of the accelerators, not on power ratings."),
        _fact("engine_tokens", "Engine tokens", "tokens",
              "Tokens that the engines' own counters told of, in hours that they cover."),
        _fact("metered_tokens", "Tokens seen beside them", "tokens",
              "Tokens of the calls that we know of, in the same hours."),
        _ratio("cost_per_mtok_usd", "Cost / 1M tokens", "usd_per_mtok", "spend_usd", "priced_tokens",
               "Spend per million tokens, input plus output, of calls whose cost is known.", scale=MTOK),
        _ratio("cost_per_output_mtok_usd", "Cost / 1M output tokens", "usd_per_mtok", "spend_usd",
               "priced_output_tokens",
               "Spend per million output tokens of calls whose cost is known; all input is carried by the output.",
               scale=MTOK),
        _ratio("list_cost_per_mtok_usd", "List price / 1M tokens", "usd_per_mtok", "list_cost_usd", "listed_tokens",
               "What calls cost at API list prices, per million tokens, input plus output; for calls on own hardware "
               "what a provider would take.", scale=MTOK),
        _ratio("list_cost_per_output_mtok_usd", "List price / 1M output tokens", "usd_per_mtok", "list_cost_usd",
               "listed_output_tokens",
               "What calls cost at API list prices, per million output tokens; all input is carried by the output.",
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
        _ratio("unavailable_ratio", "Unavailable capacity", "ratio", "unavailable_cost_usd", "capacity_cost_usd",
               "Share of own-hardware cost of accelerators that could not serve."),
        _ratio("untracked_ratio", "Untracked capacity", "ratio", "untracked_cost_usd", "capacity_cost_usd",
               "Share of own-hardware cost of work that no known call explains."),
        _ratio("tokens_per_joule", "Tokens / joule", "tokens_per_joule", "energy_tokens", "energy_joules",
               "Input plus output tokens per joule at the meter of the site, which is tokens per second and watt. "
               "Over everything, idle energy is in it; of one caller, only the energy of its calls.",
               better="higher"),
        _ratio("output_tokens_per_joule", "Output tokens / joule", "tokens_per_joule", "energy_output_tokens",
               "energy_joules",
               "Output tokens per joule at the meter of the site; the energy of input is carried by the output.",
               better="higher"),
        _ratio("gco2e_g_per_mtok", "Carbon / 1M tokens", "g_per_mtok", "gco2e_g", "carbon_tokens",
               "Location-based grams per million tokens, input plus output, of calls whose carbon is known; idle is "
               "in it, and has no tokens.", scale=MTOK),
        _ratio("utilisation_ratio", "Utilisation", "ratio", "busy_accelerator_hours", "accelerator_hours",
               "Share of the accelerator-hours paid for in which at least one request ran.", better="higher",
               of_deployments=True),
        _ratio("coverage_ratio", "Coverage", "ratio", "metered_tokens", "engine_tokens",
               "Share of the tokens that engines counted whose calls we know of.", better="higher",
               of_deployments=True),
        _ratio("measured_energy_ratio", "Measured", "ratio", "measured_energy_joules", "energy_joules",
               "Share of the energy that stands on counters; the rest is modelled from power ratings.",
               better="higher", of_deployments=True),
        _ratio("tokens_per_accelerator_second", "Tokens / s per accelerator", "tokens_per_second", "served_tokens",
               "busy_accelerator_seconds",
               "Input plus output tokens per busy second of an accelerator.", better="higher", of_deployments=True),
        _ratio("accelerator_hour_usd", "Cost / accelerator-hour", "usd", "capacity_cost_usd", "accelerator_hours",
               "What an accelerator-hour cost in full, whether it worked or not.", of_deployments=True),
    )
}  # fmt: skip
