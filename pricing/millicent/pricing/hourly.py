"""What accelerators cost in one hour, in money, energy and carbon, and where every number of it came from.

`cost = fixed + hosting + energy`. Energy is what the accelerators' own counters rose by, else modelled from power
ratings and busy time; carbon is that energy times the intensity of the grid.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Literal

from millicent.pricing import catalog
from millicent.pricing.catalog import Accelerator
from millicent.pricing.profiles import (
    MATH,
    MONEY,
    PRESETS,
    Owned,
    Power,
    Preset,
    Profile,
    Rented,
    Reserved,
    Spot,
    annual_capital_usd,
    hours_between,
    spot_usd,
    survey_name,
)

HOURS_PER_YEAR = Decimal(8766)
SECONDS_PER_HOUR = 3600

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
        gco2e_g: Location-based carbon of that energy, by the grid it is drawn from; None when unknown.
        energy_source: Whether the energy was measured or modelled from power ratings.
        idle_joules: What of that energy was drawn while no request ran; None when unknown.
        market_gco2e_g: Market-based carbon, by the electricity that was bought; None unless declared.
        inputs: What went in, for `explain`.
    """

    fixed_usd: Decimal
    hosting_usd: Decimal
    energy_usd: Decimal
    joules: Decimal | None
    gco2e_g: Decimal | None
    energy_source: Literal["measured", "modelled"]
    inputs: tuple[Input, ...]
    idle_joules: Decimal | None = None
    market_gco2e_g: Decimal | None = None

    @property
    def total_usd(self) -> Decimal:
        """The hour's whole cost."""
        with localcontext(MATH):
            return self.fixed_usd + self.hosting_usd + self.energy_usd


def hourly_cost(
    profile: Profile,
    accelerator: str | Accelerator,
    count: int,
    *,
    region: str | None = None,
    power: Power | None = None,
    busy_seconds: Decimal | int = 0,
    elapsed_seconds: Decimal | int = SECONDS_PER_HOUR,
    measured_joules: Decimal | None = None,
    measured_idle_joules: Decimal | None = None,
    at: datetime | None = None,
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
        measured_idle_joules: What of it they rose by while no request ran; None takes idle power for that time, at
            most its share by time.
        at: When the hour begins, for what depends on it: spot prices, the term of a reservation, a dated preset.

    Raises:
        LookupError: The catalog has no such accelerator or region.
        ValueError: A number that the profile needs is neither given nor in the catalog, seconds do not fit an hour,
            or the profile does not hold at that instant.
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
    if measured_joules is not None and measured_idle_joules is not None:
        _within(measured_idle_joules, measured_joules)
    inputs = _Inputs(chip, region, profile, power or Power(), at)
    with localcontext(MATH):
        accelerator_hours = count * elapsed / SECONDS_PER_HOUR
        fixed = inputs.fixed_usd_per_hour(elapsed) * accelerator_hours
        hosting = inputs.hosting_usd_per_hour() * accelerator_hours
        if measured_joules is None:
            joules = inputs.modelled_joules(busy, elapsed - busy, count)
            idle = inputs.idle_joules(elapsed - busy, count)
        else:
            factor = inputs.facility_factor(measured_joules)
            joules = measured_joules * factor
            if measured_idle_joules is None:
                usual, by_time = inputs.idle_joules(elapsed - busy, count), joules * (elapsed - busy) / (elapsed or 1)
                idle = by_time if usual is None else min(usual, by_time)
            else:
                idle = measured_idle_joules * factor
            idle = joules if not busy else idle
        kwh = None if joules is None else joules / _J_PER_KWH
        energy = inputs.energy_usd(kwh)
        carbon, market = inputs.gco2e_per_kwh(), inputs.market_gco2e_per_kwh()
        return HourCost(
            fixed_usd=fixed.quantize(MONEY),
            hosting_usd=hosting.quantize(MONEY),
            energy_usd=energy.quantize(MONEY),
            joules=None if joules is None else joules.quantize(_METER),
            gco2e_g=None if kwh is None or carbon is None else (kwh * carbon).quantize(_METER),
            idle_joules=None if idle is None else idle.quantize(_METER),
            market_gco2e_g=None if kwh is None or market is None else (kwh * market).quantize(_METER),
            energy_source="modelled" if measured_joules is None else "measured",
            inputs=tuple(inputs.seen),
        )


def _within(idle: Decimal, measured: Decimal) -> None:
    if not 0 <= idle <= measured:
        raise ValueError(
            f"measured_idle_joules {idle} is not within measured_joules {measured}: idle energy is a part of it"
        )


_DEFAULT_OWNED = Owned()
_DEFAULT_POWER = Power()


class _Inputs:
    """Finds each number that a cost needs, declared or in the catalog, and keeps what was found."""

    def __init__(
        self, chip: Accelerator, region: str | None, profile: Profile, power: Power, at: datetime | None
    ) -> None:
        self.seen: list[Input] = []
        self._chip = chip
        self._region = None if region is None else catalog.region(region)
        self._profile = profile
        self._power = power
        self._at = at
        self._survey_name = survey_name(profile, at) if isinstance(profile, Preset) else None
        self._survey = None if self._survey_name is None else PRESETS[self._survey_name]
        self._it_kw = self._find_it_kw()
        self._pue = self._find_pue()

    def fixed_usd_per_hour(self, elapsed_seconds: Decimal) -> Decimal:
        """Capital and maintenance, rent, or the survey's cost, per accelerator."""
        profile = self._profile
        if isinstance(profile, Rented):
            return self._take("rent", profile.usd_per_hour, "USD/h", "contract", "declared")
        if isinstance(profile, Reserved):
            at = self._instant("reservation")
            if not profile.starts <= at < profile.ends:
                raise ValueError(
                    f"the reservation holds from {profile.starts.isoformat()} to {profile.ends.isoformat()}, not at "
                    f"{at.isoformat()}: declare how the accelerators are paid then"
                )
            source = f"reservation of {profile.months} months from {profile.starts:%Y-%m-%d}"
            return self._take("rent", profile.effective_usd_per_hour, "USD/h", source, "declared")
        if isinstance(profile, Spot):
            at = self._instant("spot price")
            length = (
                timedelta(seconds=1) if not elapsed_seconds else timedelta(microseconds=int(elapsed_seconds * 10**6))
            )
            price = spot_usd(profile, at, at + length) / hours_between(at, at + length)
            return self._take("rent", price, "USD/h", "spot prices, mean over the hour's time", "declared")
        if isinstance(profile, Preset):
            survey = PRESETS[str(self._survey_name)]
            column = f"{survey.columns}_{profile.tier}_usd_hr"
            source = f"{self._survey_name} ({survey.held}), {profile.tier}"
            return self._published("all-in cost", column, "USD/h", source)
        if profile.capex_usd is not None:
            capex = self._take("capex", profile.capex_usd, "USD", "cost profile", "declared")
        else:
            scope = ", ".join(text for text in self._chip.capex_scope if text.startswith("typical="))
            capex = self._published("capex", "capex_usd_typical", "USD", scope)
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

    def facility_factor(self, measured: Decimal) -> Decimal:
        """From the accelerators' own counters to the facility's meter."""
        self._take("accelerator energy", measured, "J", "energy counters", "measured")
        if self._it_kw is not None and self._chip.tdp_w:
            factor, source = self._it_kw * _W_PER_KW / self._chip.tdp_w, "IT power ÷ chip power"
            self._take("system ÷ chip power", factor, "1", source, "catalog")
        else:
            factor = self._take("system ÷ chip power", self._usual_factor(), "1", _BUILT_IN, "assumed")
        return factor * self._pue

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

    def idle_joules(self, idle_seconds: Decimal, count: int) -> Decimal | None:
        """What is drawn while no request runs, from power ratings; None where no power is known."""
        if self._it_kw is None:
            return None
        return self._it_kw * _W_PER_KW * self._power.load_idle * idle_seconds * count * self._pue

    def energy_usd(self, kwh: Decimal | None) -> Decimal:
        """Electricity, where it is charged on its own."""
        profile = self._profile
        if isinstance(profile, Preset):
            return Decimal(0)
        if profile.hosting_includes_power if isinstance(profile, Owned) else profile.includes_power:
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
        source = f"{region.id}, {region.provenance('gco2e_per_kwh')}"
        return self._take("carbon", region.gco2e_per_kwh, "gCO2e/kWh", source, "catalog")

    def market_gco2e_per_kwh(self) -> Decimal | None:
        """Carbon intensity of the electricity that was bought; None where not declared."""
        if self._power.market_gco2e_per_kwh is None:
            return None
        return self._take("market carbon", self._power.market_gco2e_per_kwh, "gCO2e/kWh", "power settings", "declared")

    def _instant(self, what: str) -> datetime:
        if self._at is None:
            raise ValueError(f"the {what} of {self._chip.name!r} depends on the instant, which is missing: give at=")
        return self._at

    def _tariff(self) -> Decimal:
        region = self._region
        if self._power.tariff_usd_per_kwh is not None:
            return self._take("tariff", self._power.tariff_usd_per_kwh, "USD/kWh", "power settings", "declared")
        if region is None or region.price_usd_per_kwh is None:
            raise self._missing("electricity price", "set tariff_usd_per_kwh, or a region that the catalog has")
        source = f"{region.id}, {region.provenance('price_usd_per_kwh')}"
        return self._take("tariff", region.price_usd_per_kwh, "USD/kWh", source, "catalog")

    def _find_it_kw(self) -> Decimal | None:
        """Power per accelerator: declared, surveyed, of the system, or the chip's times a usual factor."""
        chip = self._chip
        if self._power.it_kw is not None:
            return self._take("power", self._power.it_kw, "kW IT", "power settings", "declared")
        if self._survey is not None and getattr(chip, self._survey.kw_column) is not None:
            unit = "kW utility" if self._survey.kw_is_utility else "kW IT"
            return self._published("power", self._survey.kw_column, unit)
        if chip.system_power_w_per_accelerator is not None:
            kw = chip.system_power_w_per_accelerator / _W_PER_KW
            source = self._shown("system_power_w_per_accelerator", chip.system_power_basis or "")
            return self._take("power", kw, "kW IT", source, "catalog")
        if chip.tdp_w is not None:
            factor = self._take("system ÷ chip power", self._usual_factor(), "1", _BUILT_IN, "assumed")
            chip_kw = self._take("chip power", chip.tdp_w / _W_PER_KW, "kW", self._shown("tdp_w"), "catalog")
            return chip_kw * factor
        return None

    def _find_pue(self) -> Decimal:
        if self._power.pue is not None:
            return self._take("PUE", self._power.pue, "1", "power settings", "declared")
        if self._survey is not None and self._survey.kw_is_utility and self._power.it_kw is None:
            return self._take("PUE", Decimal(1), "1", "utility power includes it", "catalog")
        at_region = catalog.pue(self._region.id) if self._region is not None else None
        if at_region is not None:
            source = f"{at_region.scope}: {at_region.provenance('pue')}"
            return self._take("PUE", at_region.pue, "1", source, "catalog")
        cooling = self._chip.cooling or ""
        typical = next((scope for pattern, scope in _PUE_BY_COOLING if re.search(pattern, cooling)), _PUE_ELSEWHERE)
        row = catalog.pue(typical)
        if row is None:
            raise self._missing("PUE", "set pue")
        return self._take("PUE", row.pue, "1", f"{row.scope}: {row.provenance('pue')}", "assumed")

    def _usual_factor(self) -> Decimal:
        form = self._chip.form or ""
        return DEVICE_POWER_FACTOR if form.startswith(_DEVICE_FORMS) else SERVER_POWER_FACTOR

    def _published(self, name: str, column: str, unit: str, detail: str = "") -> Decimal:
        value: Decimal | None = getattr(self._chip, column)
        if value is None:
            raise self._missing(name, f"nobody has published {column}; declare your own")
        return self._take(name, value, unit, self._shown(column, detail), "catalog")

    def _shown(self, column: str, detail: str = "") -> str:
        """Where a column of the accelerator was read, with its date and confidence."""
        provenance = self._chip.provenance(column)
        return ": ".join(filter(None, (detail, "catalog" if provenance is None else str(provenance))))

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
