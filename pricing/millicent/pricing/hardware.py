"""What own hardware costs per hour, in money, energy and carbon, and what of it each token carries.

An hour of a deployment costs `fixed + hosting + energy`. While at least one request runs the hour is busy,
else idle. Busy cost is spread over the tokens served by weight; the rest is idle, a line of its own.

    cost = hourly_cost(Owned(), "H100", 8, region="us-va", busy_seconds=1800)
    served = DEFAULT_WEIGHTS.of(uncached_input=900_000, cached_input=100_000, output=120_000)
    allocate(cost.total_usd, busy_seconds=1800, elapsed_seconds=3600, weight=served)

Amounts are `Decimal` with 24 decimals. Every input keeps its unit, its source and where it came from.
The parts: `profiles` (how it is paid), `hourly` (what an hour costs), `allocation` (what of it tokens carry),
`idle` (who carries the rest), `meters` (what counters of engines and chips tell).
"""

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal, localcontext

from millicent.pricing.allocation import DEFAULT_WEIGHTS, Weights
from millicent.pricing.hourly import SECONDS_PER_HOUR, HourCost, Input, hourly_cost
from millicent.pricing.profiles import (
    MATH,
    MONEY,
    CostProfile,
    Owned,
    Power,
    Preset,
    Profile,
    Rented,
    Reserved,
    Spot,
    annual_capital_usd,
)

__all__ = [
    "DEFAULT_WEIGHTS",
    "CostProfile",
    "HourAllocation",
    "HourCost",
    "Input",
    "Owned",
    "Power",
    "Preset",
    "Profile",
    "Rented",
    "Reserved",
    "Spot",
    "Weights",
    "allocate",
    "annual_capital_usd",
    "hourly_cost",
    "joules_per_token",
    "usd_per_mtok",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HourAllocation:
    """Where an hour's cost went: `busy_usd + idle_usd == total_usd`, to the last digit.

    Attributes:
        rate_usd_per_weight: What a thousandth of an input token carries; 0 without tokens.
        busy_usd: Carried by tokens: rate × weight.
        idle_usd: The rest: no request ran, rounding of the rate, and `untracked_usd`.
        untracked_usd: Part of `idle_usd`: requests ran but we saw no token of theirs.
    """

    total_usd: Decimal
    rate_usd_per_weight: Decimal
    busy_usd: Decimal
    idle_usd: Decimal
    untracked_usd: Decimal


def allocate(
    total_usd: Decimal, *, busy_seconds: Decimal | int, elapsed_seconds: Decimal | int, weight: int
) -> HourAllocation:
    """Spread an hour's cost over the tokens it served.

    Args:
        total_usd: Cost of the elapsed time; more than 24 decimals are rounded half-even.
        busy_seconds: Seconds with at least one request running.
        elapsed_seconds: Seconds of the hour that have passed.
        weight: Weight of all tokens served, from `Weights.of`.

    Raises:
        ValueError: A number is negative, or busy time exceeds elapsed time.
    """
    busy, elapsed = Decimal(busy_seconds), Decimal(elapsed_seconds)
    if total_usd < 0 or weight < 0 or not 0 <= busy <= elapsed:
        raise ValueError(
            f"total_usd {total_usd!r}, weight {weight!r}, busy {busy_seconds!r} of {elapsed_seconds!r} s cannot "
            "be allocated: none is negative, and busy time lies within elapsed time"
        )
    with localcontext(MATH):
        total = total_usd.quantize(MONEY)
        of_busy_time = (total * busy / elapsed).quantize(MONEY) if busy else Decimal(0)
        rate = (of_busy_time / weight).quantize(MONEY, ROUND_DOWN) if weight else Decimal(0)
        return HourAllocation(
            total_usd=total,
            rate_usd_per_weight=rate,
            busy_usd=rate * weight,
            idle_usd=total - rate * weight,
            untracked_usd=Decimal(0) if weight else of_busy_time,
        )


def usd_per_mtok(
    usd_per_hour: Decimal, tokens_per_second: Decimal, *, planned_utilisation: Decimal | int = 1
) -> Decimal:
    """Cost of a million tokens of an accelerator that costs so much per hour and serves so many tokens.

    `usd_per_hour ÷ planned_utilisation × 10^6 ÷ (tokens_per_second × 3600)`. Say which tokens: total, output and input
    throughput give three different prices, and only total throughput, or input and output from separate
    accelerators, add up to the hardware's cost.

    Args:
        usd_per_hour: Of one accelerator, or of all that serve these tokens.
        tokens_per_second: While they serve.
        planned_utilisation: Share of the paid hours in which they serve, for a quote that has idle in its price.
            Leave it at 1 where idle is a line of its own: counting it twice is counting it wrong.

    Raises:
        ValueError: The throughput is not positive, or the utilisation is no share.
    """
    if not 0 < planned_utilisation <= 1:
        raise ValueError(
            f"planned_utilisation {planned_utilisation!r} is no share of the hours: write above 0, up to 1"
        )
    if tokens_per_second <= 0:
        raise ValueError(f"tokens_per_second is {tokens_per_second!r}: without tokens there is no cost per token")
    with localcontext(MATH):
        return usd_per_hour * 1_000_000 / (planned_utilisation * tokens_per_second * SECONDS_PER_HOUR)


def joules_per_token(joules: Decimal, tokens: int) -> Decimal:
    """Energy of a token; its inverse, tokens per joule, is what "tokens per watt" means ((tokens/s) ÷ W).

    Say which tokens (total or output) and which energy: of the chip, of the IT equipment, or at the facility's meter
    as `HourCost.joules` is.

    Raises:
        ValueError: There are no tokens.
    """
    if tokens <= 0:
        raise ValueError(f"tokens is {tokens!r}: without tokens there is no energy per token")
    with localcontext(MATH):
        return joules / tokens
