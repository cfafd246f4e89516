"""What own hardware costs per hour, in money, energy and carbon, and what of it each token carries.

An hour of a deployment costs `fixed + hosting + energy`. While at least one request runs the hour is busy,
else idle. Busy cost is spread over the tokens served by weight; the rest is idle, a line of its own.

    cost = hourly_cost(Owned(), "H100", 8, region="us-va", busy_seconds=1800)
    served = DEFAULT_WEIGHTS.of(uncached_input=900_000, cached_input=100_000, output=120_000)
    allocate(cost.total_usd, busy_seconds=1800, elapsed_seconds=3600, weight=served)

Amounts are `Decimal` with 24 decimals. Every input keeps its unit, its source and where it came from.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal, localcontext
from typing import Literal

from millicent.pricing import catalog
from millicent.pricing.catalog import Accelerator
from millicent.pricing.profiles import (
    MATH,
    PRESETS,
    CostProfile,
    Owned,
    Power,
    Preset,
    Rented,
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
    "Rented",
    "Weights",
    "allocate",
    "annual_capital_usd",
    "hourly_cost",
    "usd_per_mtok",
]

HOURS_PER_YEAR = Decimal(8766)
SECONDS_PER_HOUR = 3600
MONEY = Decimal(1).scaleb(-24)

_J_PER_KWH = 3_600_000
_W_PER_KW = 1000
_METER = Decimal("0.001")

Origin = Literal["declared", "measured", "catalog", "assumed"]


# IT power ÷ chip power where only the chip's is known: hosts, network and switches add theirs.
SERVER_POWER_FACTOR = Decimal("1.6")
DEVICE_POWER_FACTOR = Decimal("1.0")
_DEVICE_FORMS = ("SoM", "M.2", "USB", "Device", "System")

_BUILT_IN = "built-in default"

# Typical PUE by what the catalog says of the cooling, tried in this order.
_PUE_BY_COOLING = (
    (r"^passive", "default/edge"),
    (r"^hybrid", "default/ai-hybrid"),
    (r"^air", "default/ai-air"),
    (r"liquid", "default/ai-liquid"),
)
_PUE_ELSEWHERE = "default/industry-average"


@dataclass(frozen=True, slots=True)
class Input:
    """One number that a cost was made from: its value, unit, source, and where it came from."""

    name: str
    value: Decimal
    unit: str
    source: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class HourCost:
    """What a deployment's accelerators cost in one hour, or in the part of it that has passed.

    Attributes:
        fixed_usd: Capital and maintenance, or rent, or the survey's all-in cost.
        hosting_usd: Hosting of owned accelerators.
        energy_usd: Electricity, where it is charged on its own.
        joules: Energy at the facility's meter, cooling included; None when unknown.
        gco2e_g: Location-based carbon of that energy; None when unknown.
        energy_source: Whether the energy was measured or modelled from power ratings.
        inputs: What went in, for `explain`.
    """

    fixed_usd: Decimal
    hosting_usd: Decimal
    energy_usd: Decimal
    joules: Decimal | None
    gco2e_g: Decimal | None
    energy_source: Literal["measured", "modelled"]
    inputs: tuple[Input, ...]

    @property
    def total_usd(self) -> Decimal:
        """The hour's whole cost."""
        with localcontext(MATH):
            return self.fixed_usd + self.hosting_usd + self.energy_usd


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token weighs, in thousandths of an uncached input token."""

    uncached_input: int = 1000
    cached_input: int = 100
    output: int = 4000

    def of(self, *, uncached_input: int, cached_input: int, output: int) -> int:
        """The weight of tokens served, in thousandths."""
        return self.uncached_input * uncached_input + self.cached_input * cached_input + self.output * output


DEFAULT_WEIGHTS = Weights()


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


def hourly_cost(
    profile: CostProfile,
    accelerator: str | Accelerator,
    count: int,
    *,
    region: str | None = None,
    power: Power | None = None,
    busy_seconds: Decimal | int = 0,
    elapsed_seconds: Decimal | int = SECONDS_PER_HOUR,
    measured_joules: Decimal | None = None,
) -> HourCost:
    """What accelerators cost in one hour.

    Args:
        profile: How they are paid for.
        accelerator: A catalog row, or a name that `catalog.accelerator` knows.
        count: How many there are.
        region: Catalog region of the site, for tariff, carbon and PUE that `power` does not give.
        power: Electricity; None takes everything from the catalog.
        busy_seconds: Seconds with at least one request running, for modelled energy.
        elapsed_seconds: How much of the hour has passed; less than 3600 for the current one.
        measured_joules: What the accelerators' own energy counters rose by, all together; hosts, network
            and cooling are added. None models energy from power ratings and busy time.

    Raises:
        LookupError: The catalog has no such accelerator or region.
        ValueError: A number that the profile needs is neither given nor in the catalog, or seconds do not fit
            an hour.
    """
    chip = catalog.accelerator(accelerator) if isinstance(accelerator, str) else accelerator
    busy, elapsed = Decimal(busy_seconds), Decimal(elapsed_seconds)
    if not 0 <= busy <= elapsed <= SECONDS_PER_HOUR:
        raise ValueError(
            f"busy_seconds {busy_seconds!r} and elapsed_seconds {elapsed_seconds!r} are not "
            "0 <= busy <= elapsed <= 3600: give one hour at a time"
        )
    if count < 1:
        raise ValueError(f"count {count!r} is not a number of accelerators: give 1 or more")
    inputs = _Inputs(chip, region, profile, power or Power())
    with localcontext(MATH):
        accelerator_hours = count * elapsed / SECONDS_PER_HOUR
        fixed = inputs.fixed_usd_per_hour() * accelerator_hours
        hosting = inputs.hosting_usd_per_hour() * accelerator_hours
        joules = (
            inputs.modelled_joules(busy, elapsed - busy, count)
            if measured_joules is None
            else inputs.facility_joules(measured_joules)
        )
        kwh = None if joules is None else joules / _J_PER_KWH
        energy = inputs.energy_usd(kwh)
        carbon = inputs.gco2e_per_kwh()
        return HourCost(
            fixed_usd=fixed.quantize(MONEY),
            hosting_usd=hosting.quantize(MONEY),
            energy_usd=energy.quantize(MONEY),
            joules=None if joules is None else joules.quantize(_METER),
            gco2e_g=None if kwh is None or carbon is None else (kwh * carbon).quantize(_METER),
            energy_source="modelled" if measured_joules is None else "measured",
            inputs=tuple(inputs.seen),
        )


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


def usd_per_mtok(usd_per_hour: Decimal, tokens_per_second: Decimal) -> Decimal:
    """Cost of a million tokens of an accelerator that costs so much per hour and serves so many tokens.

    Say which tokens: total, output and input throughput give three different prices, and only total
    throughput, or input and output from separate accelerators, add up to the hardware's cost.

    Raises:
        ValueError: The throughput is not positive.
    """
    if tokens_per_second <= 0:
        raise ValueError(f"tokens_per_second is {tokens_per_second!r}: without tokens there is no cost per token")
    with localcontext(MATH):
        return usd_per_hour * 1_000_000 / (tokens_per_second * SECONDS_PER_HOUR)


_DEFAULT_OWNED = Owned()
_DEFAULT_POWER = Power()


class _Inputs:
    """Finds each number that a cost needs, declared or in the catalog, and keeps what was found."""

    def __init__(self, chip: Accelerator, region: str | None, profile: CostProfile, power: Power) -> None:
        self.seen: list[Input] = []
        self._chip = chip
        self._region = None if region is None else catalog.region(region)
        self._profile = profile
        self._power = power
        self._survey = PRESETS[profile.name] if isinstance(profile, Preset) else None
        self._it_kw = self._find_it_kw()
        self._pue = self._find_pue()

    def fixed_usd_per_hour(self) -> Decimal:
        """Capital and maintenance, rent, or the survey's cost, per accelerator."""
        profile = self._profile
        if isinstance(profile, Rented):
            return self._take("rent", profile.usd_per_hour, "USD/h", "contract", "declared")
        if isinstance(profile, Preset):
            column = f"{PRESETS[profile.name].columns}_{profile.tier}_usd_hr"
            source = f"{profile.name} ({PRESETS[profile.name].held}), {profile.tier}"
            return self._published("all-in cost", column, PRESETS[profile.name].columns, "USD/h", source)
        if profile.capex_usd is not None:
            capex = self._take("capex", profile.capex_usd, "USD", "cost profile", "declared")
        else:
            scope = ", ".join(text for text in self._chip.capex_scope if text.startswith("typical="))
            capex = self._published("capex", "capex_usd_typical", "capex_typical", "USD", scope)
        self._owned("life_years", "years")
        self._owned("cost_of_capital", "per year")
        self._owned("residual_usd", "USD")
        maintenance = self._owned("maintenance_usd_per_year", "USD/year")
        return (annual_capital_usd(profile, capex) + maintenance) / HOURS_PER_YEAR

    def hosting_usd_per_hour(self) -> Decimal:
        """Hosting per accelerator; 0 where rent or the survey includes it."""
        if not isinstance(self._profile, Owned) or not self._profile.hosting_usd_per_kw_month:
            return Decimal(0)
        if self._it_kw is None:
            raise self._missing("power", "hosting is charged by it; set it_kw")
        return self._owned("hosting_usd_per_kw_month", "USD/kW-month") * 12 * self._it_kw / HOURS_PER_YEAR

    def facility_joules(self, measured: Decimal) -> Decimal:
        """From the accelerators' own counters to the facility's meter."""
        self._take("accelerator energy", measured, "J", "energy counters", "measured")
        if self._it_kw is not None and self._chip.tdp_w:
            factor, source = self._it_kw * _W_PER_KW / self._chip.tdp_w, "IT power ÷ chip power"
            self._take("system ÷ chip power", factor, "1", source, "catalog")
        else:
            factor = self._take("system ÷ chip power", self._usual_factor(), "1", _BUILT_IN, "assumed")
        return measured * factor * self._pue

    def modelled_joules(self, busy_seconds: Decimal, other_seconds: Decimal, count: int) -> Decimal | None:
        """From power ratings and time; None where no power is known."""
        if self._it_kw is None:
            return None
        loads = []
        for name in ("load_busy", "load_idle"):
            value, default = getattr(self._power, name), getattr(_DEFAULT_POWER, name)
            loads.append(self._setting(name, value, default, "of IT power"))
        load_seconds = loads[0] * busy_seconds + loads[1] * other_seconds
        return self._it_kw * _W_PER_KW * load_seconds * count * self._pue

    def energy_usd(self, kwh: Decimal | None) -> Decimal:
        """Electricity, where it is charged on its own."""
        profile = self._profile
        if isinstance(profile, Preset):
            return Decimal(0)
        if profile.includes_power if isinstance(profile, Rented) else profile.hosting_includes_power:
            return Decimal(0)
        if kwh is None:
            raise self._missing("power", "electricity is charged by it; set it_kw")
        return kwh * self._tariff()

    def gco2e_per_kwh(self) -> Decimal | None:
        """Location-based carbon intensity; None where neither declared nor in the catalog."""
        region = self._region
        if self._power.gco2e_per_kwh is not None:
            return self._take("carbon", self._power.gco2e_per_kwh, "gCO2e/kWh", "power settings", "declared")
        if region is None or region.gco2e_per_kwh is None:
            return None
        source = f"{region.id}, {region.carbon_basis}, {region.carbon_year}: {region.carbon_source}"
        return self._take("carbon", region.gco2e_per_kwh, "gCO2e/kWh", source, "catalog")

    def _tariff(self) -> Decimal:
        region = self._region
        if self._power.tariff_usd_per_kwh is not None:
            return self._take("tariff", self._power.tariff_usd_per_kwh, "USD/kWh", "power settings", "declared")
        if region is None or region.price_usd_per_kwh is None:
            raise self._missing("electricity price", "set tariff_usd_per_kwh, or a region that the catalog has")
        source = f"{region.id}, {region.price_basis}, {region.price_year}: {region.price_source}"
        return self._take("tariff", region.price_usd_per_kwh, "USD/kWh", source, "catalog")

    def _find_it_kw(self) -> Decimal | None:
        """Power per accelerator: declared, surveyed, of the system, or the chip's times a usual factor."""
        chip = self._chip
        if self._power.it_kw is not None:
            return self._take("power", self._power.it_kw, "kW IT", "power settings", "declared")
        if self._survey is not None and getattr(chip, self._survey.kw_column) is not None:
            unit = "kW utility" if self._survey.kw_is_utility else "kW IT"
            return self._published("power", self._survey.kw_column, self._survey.columns, unit)
        if chip.system_power_w_per_accelerator is not None:
            kw = chip.system_power_w_per_accelerator / _W_PER_KW
            source = f"{chip.system_power_basis}: {chip.source_of('system_power')}"
            return self._take("power", kw, "kW IT", source, "catalog")
        if chip.tdp_w is not None:
            factor = self._take("system ÷ chip power", self._usual_factor(), "1", _BUILT_IN, "assumed")
            chip_kw = self._take("chip power", chip.tdp_w / _W_PER_KW, "kW", chip.source_of("tdp"), "catalog")
            return chip_kw * factor
        return None

    def _find_pue(self) -> Decimal:
        if self._power.pue is not None:
            return self._take("PUE", self._power.pue, "1", "power settings", "declared")
        if self._survey is not None and self._survey.kw_is_utility and self._power.it_kw is None:
            return self._take("PUE", Decimal(1), "1", "utility power includes it", "catalog")
        at_region = catalog.pue(self._region.id) if self._region is not None else None
        if at_region is not None:
            return self._take("PUE", at_region.pue, "1", f"{at_region.scope}: {at_region.source}", "catalog")
        cooling = self._chip.cooling or ""
        typical = next((scope for pattern, scope in _PUE_BY_COOLING if re.search(pattern, cooling)), _PUE_ELSEWHERE)
        row = catalog.pue(typical)
        if row is None:
            raise self._missing("PUE", "set pue")
        return self._take("PUE", row.pue, "1", f"{row.scope}: {row.source}", "assumed")

    def _usual_factor(self) -> Decimal:
        form = self._chip.form or ""
        return DEVICE_POWER_FACTOR if form.startswith(_DEVICE_FORMS) else SERVER_POWER_FACTOR

    def _published(self, name: str, column: str, source_field: str, unit: str, detail: str = "") -> Decimal:
        value: Decimal | None = getattr(self._chip, column)
        if value is None:
            raise self._missing(name, f"nobody has published {column}; declare your own")
        source = ": ".join(text for text in (detail, self._chip.source_of(source_field)) if text)
        return self._take(name, value, unit, source, "catalog")

    def _owned(self, name: str, unit: str) -> Decimal:
        return self._setting(name, getattr(self._profile, name), getattr(_DEFAULT_OWNED, name), unit)

    def _setting(self, name: str, value: Decimal, default: Decimal, unit: str) -> Decimal:
        if value == default:
            return self._take(name, value, unit, _BUILT_IN, "assumed")
        return self._take(name, value, unit, "settings", "declared")

    def _take(self, name: str, value: Decimal, unit: str, source: str, origin: Origin) -> Decimal:
        self.seen.append(Input(name, value, unit, source, origin))
        return value

    def _missing(self, what: str, remedy: str) -> ValueError:
        return ValueError(f"{what} of {self._chip.name!r} is unknown: {remedy}")
