"""How accelerators are paid for and powered: what a deployment declares, and the policies behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Literal

MATH = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Enough digits that only a final `quantize` rounds."""

Tier = Literal["hyperscaler", "neocloud", "rental3y"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Accelerators that we bought.

    Attributes:
        capex_usd: Purchase cost per accelerator, its share of host, network and rack included; None takes
            the catalog's typical figure.
        life_years: Years over which it is written off.
        cost_of_capital: Yearly interest, as a fraction.
        residual_usd: Value left at the end of its life, per accelerator.
        maintenance_usd_per_year: Per accelerator.
        hosting_usd_per_kw_month: Space, cooling and racks, per kW of IT power.
        hosting_includes_power: The hosting contract covers electricity; energy is then counted, not charged.
        depreciation: "annuity" charges capital cost evenly; "straight_line" adds interest on the average
            balance to even depreciation, as accounts report it.
    """

    kind: Literal["owned"] = "owned"
    capex_usd: Decimal | None = None
    life_years: Decimal = Decimal(4)
    cost_of_capital: Decimal = Decimal("0.08")
    residual_usd: Decimal = Decimal(0)
    maintenance_usd_per_year: Decimal = Decimal(0)
    hosting_usd_per_kw_month: Decimal = Decimal(110)
    hosting_includes_power: bool = False
    depreciation: Literal["annuity", "straight_line"] = "annuity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rented:
    """Accelerators at a contract price per accelerator and hour."""

    usd_per_hour: Decimal
    kind: Literal["rented"] = "rented"
    includes_power: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The all-in hourly cost of a published survey, electricity included. See `PRESETS`."""

    kind: Literal["preset"] = "preset"
    name: Literal["ix-2025", "ix-2026-07"] = "ix-2026-07"
    tier: Tier = "hyperscaler"


# Discriminated by `kind`: `pydantic.TypeAdapter(CostProfile)` reads one from configuration.
CostProfile = Owned | Rented | Preset


@dataclass(frozen=True, slots=True)
class Survey:
    """A dated survey: when it held, and the catalog columns of its costs and power.

    Utility power is metered before cooling, so PUE is not applied to it again.
    """

    held: str
    columns: str
    kw_column: str
    kw_is_utility: bool


PRESETS: Mapping[str, Survey] = {
    "ix-2025": Survey("Oct 2025 to Jun 2026", "ix_v1", "ix_v1_utility_kw", kw_is_utility=True),
    "ix-2026-07": Survey("from Jul 2026", "ix_v2", "ix_v2_it_kw", kw_is_utility=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How much electricity, at what price and carbon. What is None comes from the catalog.

    Attributes:
        it_kw: Power of the IT equipment per accelerator, host and network share included.
        load_busy: Share of that power drawn while requests run.
        load_idle: Share drawn while none runs.
        pue: Facility power ÷ IT power.
        tariff_usd_per_kwh: Electricity price.
        gco2e_per_kwh: Carbon intensity of the electricity.
    """

    it_kw: Decimal | None = None
    load_busy: Decimal = Decimal("0.7")
    load_idle: Decimal = Decimal("0.15")
    pue: Decimal | None = None
    tariff_usd_per_kwh: Decimal | None = None
    gco2e_per_kwh: Decimal | None = None


def annual_capital_usd(profile: Owned, capex_usd: Decimal) -> Decimal:
    """Yearly capital cost of one accelerator: write-off and interest, by the profile's policy.

    An annuity pays `capex − residual` back in equal yearly amounts with interest. Straight line writes it off
    evenly and adds interest on the average balance.

    Raises:
        ValueError: The life is not positive, or the residual is not within the purchase cost.
    """
    years, interest, residual = profile.life_years, profile.cost_of_capital, profile.residual_usd
    if years <= 0 or interest < 0 or not 0 <= residual <= capex_usd:
        raise ValueError(
            f"life_years {years!r}, cost_of_capital {interest!r}, residual_usd {residual!r} do not describe a "
            f"purchase of {capex_usd!r}: life is positive, interest not negative, residual at most the price"
        )
    with localcontext(MATH):
        written_off = capex_usd - residual
        if profile.depreciation == "straight_line":
            return written_off / years + (capex_usd + residual) / 2 * interest
        if not interest:
            return written_off / years
        return written_off * interest / (1 - (1 + interest) ** -years)
