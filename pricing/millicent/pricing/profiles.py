"""How accelerators are paid for and powered: what a deployment declares, and the policies behind it.

`Owned` and `Preset` know their price from the catalog, `Rented` from a contract. A `Reserved` contract is paid for
whether it is used or not: hours that use it cost its price, and what nobody used is a line of its own
(`reserved_use`). A `Spot` price moves; an hour costs what it was while the hour ran.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from itertools import pairwise
from typing import Literal

MATH = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Enough digits that only a final `quantize` rounds."""

MONEY = Decimal(1).scaleb(-24)
"""Digits that an amount of a deployment-hour keeps."""

_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_UNIT_PRICE = Decimal(1).scaleb(-18)
_NOTHING = Decimal(0)

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
    name: Literal["dated", "ix-2025", "ix-2026-07"] = "ix-2026-07"
    tier: Tier = "hyperscaler"


# Discriminated by `kind`: `pydantic.TypeAdapter(CostProfile)` reads one from configuration.
CostProfile = Owned | Rented | Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Accelerators under a contract that is paid whether they run or not.

    Attributes:
        usd_per_hour: Price per accelerator-hour over the whole term, the part paid upfront included.
        starts: First instant of the term, on a whole UTC hour.
        months: Length of the term in calendar months.
        accelerators: So many are paid every hour; or
        hours_per_month: so many accelerator-hours are paid every UTC calendar month, whenever they are used.
        upfront_share: Share of the term's price that is paid when it starts; the rest is paid month by month.
        cost_of_capital: Yearly interest on what is paid ahead, as a fraction; 0 spreads the payment alone.
        overage_usd_per_hour: Price of an accelerator-hour beyond the commitment; None is the same price.
        includes_power: The price covers electricity.
    """

    usd_per_hour: Decimal
    starts: datetime
    months: int
    accelerators: int | None = None
    hours_per_month: Decimal | None = None
    upfront_share: Decimal = _NOTHING
    cost_of_capital: Decimal = _NOTHING
    overage_usd_per_hour: Decimal | None = None
    kind: Literal["reserved"] = "reserved"
    includes_power: bool = True

    def __post_init__(self) -> None:
        problems = [
            *_not_whole_hours("starts", self.starts),
            *_below_zero(self, "usd_per_hour", "cost_of_capital", "overage_usd_per_hour"),
        ]
        if self.months < 1:
            problems.append(f"months {self.months!r} is no term: write 1 or more")
        if not 0 <= self.upfront_share <= 1:
            problems.append(f"upfront_share {self.upfront_share} is not a share of the price: write 0 to 1")
        committed = self.accelerators if self.hours_per_month is None else self.hours_per_month
        if (self.accelerators is None) == (self.hours_per_month is None) or committed is None or committed <= 0:
            problems.append(
                f"accelerators {self.accelerators!r} and hours_per_month {self.hours_per_month!r} do not say what is "
                "committed: write one of them, above 0"
            )
        elif self.hours_per_month is not None and not problems and self.starts != _month(self.starts):
            problems.append(
                f"starts {self.starts.isoformat()} is not the first of a UTC month, as hours_per_month asks"
            )
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def ends(self) -> datetime:
        """The first instant after the term."""
        return _months_later(self.starts.astimezone(UTC), self.months)

    @property
    def effective_usd_per_hour(self) -> Decimal:
        """What a committed accelerator-hour costs: its price, and interest on what was paid ahead.

        The part paid upfront is an annuity over the term's months: paid `u` at the start and `1 − u` as it goes, an
        hour costs `price × ((1 − u) + u × n × r ÷ (1 − (1 + r)^−n))` with `r = (1 + interest)^(1/12) − 1`. To 18
        decimals.
        """
        if not self.upfront_share or not self.cost_of_capital:
            return self.usd_per_hour
        with localcontext(MATH):
            monthly = (1 + self.cost_of_capital) ** (1 / Decimal(12)) - 1
            dearer = self.months * monthly / (1 - (1 + monthly) ** -self.months)
            share = self.upfront_share
            return (self.usd_per_hour * (1 - share + share * dearer)).quantize(_UNIT_PRICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Accelerators at a price that moves.

    Attributes:
        prices: (from when on, USD per accelerator-hour), upwards; each holds until the next.
        includes_power: The price covers electricity.
    """

    prices: tuple[tuple[datetime, Decimal], ...]
    kind: Literal["spot"] = "spot"
    includes_power: bool = True

    def __post_init__(self) -> None:
        problems = (
            [] if self.prices else ["prices are missing: write (instant, USD per accelerator-hour) at least once"]
        )
        for since, price in self.prices:
            if since.tzinfo is None:
                problems.append(f"prices: {since.isoformat()} has no time zone: add Z for UTC or an offset")
            if price < 0:
                problems.append(f"prices: {price} from {since.isoformat()} is below 0: correct it")
        if not problems and any(later <= earlier for (earlier, _), (later, _) in pairwise(self.prices)):
            problems.append("prices are not in the order of their instants: sort them, one price each")
        if problems:
            raise ValueError("; ".join(problems))


Profile = CostProfile | Reserved | Spot
"""Every way of paying for accelerators."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A dated survey: when it held, and the catalog columns of its costs and power.

    Utility power is metered before cooling, so PUE is not applied to it again.
    """

    held: str
    columns: str
    kw_column: str
    kw_is_utility: bool
    effective_from: datetime


PRESETS: Mapping[str, Survey] = {
    "ix-2025": Survey(
        "Oct 2025 to Jun 2026", "ix_v1", "ix_v1_utility_kw", kw_is_utility=True,
        effective_from=datetime(2025, 10, 1, tzinfo=UTC),
    ),
    "ix-2026-07": Survey(
        "from Jul 2026", "ix_v2", "ix_v2_it_kw", kw_is_utility=False, effective_from=datetime(2026, 7, 1, tzinfo=UTC)
    ),
}  # fmt: skip
"""Surveys by name, oldest first. Each holds until the next; the first also before it was made."""


def survey_name(preset: Preset, at: datetime | None) -> str:
    """The survey of a preset: its own, or for `dated` the one that held at an instant.

    Raises:
        ValueError: The preset is `dated` and no instant is given.
    """
    if preset.name != "dated":
        return preset.name
    if at is None:
        raise ValueError("preset 'dated' depends on the instant, which is missing: give at=, or name one survey")
    name, *later = PRESETS
    for candidate in later:
        if PRESETS[candidate].effective_from <= at:
            name = candidate
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """How much electricity, at what price and carbon. What is None comes from the catalog.

    Attributes:
        it_kw: Power of the IT equipment per accelerator, host and network share included.
        load_busy: Share of that power drawn while requests run.
        load_idle: Share drawn while none runs.
        pue: Facility power ÷ IT power.
        tariff_usd_per_kwh: Electricity price.
        gco2e_per_kwh: Carbon intensity of the electricity where it is drawn (location-based).
        market_gco2e_per_kwh: Carbon intensity of the electricity that was bought (market-based): contracts and
            certificates. Unknown unless declared; the location's is never taken for it.
    """

    it_kw: Decimal | None = None
    load_busy: Decimal = Decimal("0.7")
    load_idle: Decimal = Decimal("0.15")
    pue: Decimal | None = None
    tariff_usd_per_kwh: Decimal | None = None
    gco2e_per_kwh: Decimal | None = None
    market_gco2e_per_kwh: Decimal | None = None


def annual_capital_usd(profile: Owned, capex_usd: Decimal) -> Decimal:
    """Yearly capital cost of one accelerator: write-off and interest, by the profile's policy.

    An annuity pays the purchase back in equal yearly amounts with interest, down to the residual, which is owed until
    the end and pays its interest: `(capex − residual) × i ÷ (1 − (1 + i)^−years) + residual × i`. Straight line writes
    it off evenly and adds interest on the average balance: `(capex − residual) ÷ years + i × (capex + residual) ÷ 2`.
    Both are textbook formulas.

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
        return written_off * interest / (1 - (1 + interest) ** -years) + residual * interest


def spot_usd(profile: Spot, start: datetime, end: datetime) -> Decimal:
    """What one accelerator costs from `start` up to `end`: Σ price × time that it held.

    Raises:
        ValueError: No price is known at `start`.
    """
    instants = [since for since, _ in profile.prices]
    first = bisect_right(instants, start) - 1
    if first < 0:
        raise ValueError(
            f"no spot price is known at {start.isoformat()}, before {instants[0].isoformat()}: add the price that held"
        )
    with localcontext(MATH):
        total = _NOTHING
        for index in range(first, len(instants)):
            held_from = max(start, instants[index])
            held_to = min(end, instants[index + 1]) if index + 1 < len(instants) else end
            if held_to <= held_from:
                break
            total += profile.prices[index][1] * hours_between(held_from, held_to)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedUse:
    """How a reservation was used in one hour, or in one month where it commits to hours per month.

    `used_usd + unused_usd + surcharge_usd` is what the contract costs for the period.

    Attributes:
        start: First instant, UTC.
        end: First instant after it; before the end of the hour or month where that is not over.
        committed_hours: Accelerator-hours that are paid, used or not.
        used_hours: Accelerator-hours that deployments ran.
        used_usd: What those cost at the contract's price: what deployment-hours carry.
        unused_usd: Paid for nothing.
        surcharge_usd: How much dearer the hours beyond the commitment are.
    """

    start: datetime
    end: datetime
    committed_hours: Decimal
    used_hours: Decimal
    used_usd: Decimal
    unused_usd: Decimal
    surcharge_usd: Decimal

    @property
    def total_usd(self) -> Decimal:
        """What the contract costs for the period."""
        with localcontext(MATH):
            return self.used_usd + self.unused_usd + self.surcharge_usd


def reserved_use(
    profile: Reserved, used: Mapping[datetime, Decimal], start: datetime, end: datetime
) -> list[ReservedUse]:
    """What of a reservation was used and what was paid for nothing, hour by hour or month by month.

    Accelerators that are reserved by number can only be used in the hour that they are paid for; hours per month in
    any hour of the month. Outside the term there is nothing.

    Args:
        profile: The contract.
        used: Accelerator-hours that ran under it, by UTC hour.
        start: From when on, by the hour or the month that holds it.
        end: Until when; a part of an hour or month is told for that part.
    """
    since, until = max(start, profile.starts).astimezone(UTC), min(end, profile.ends).astimezone(UTC)
    monthly = profile.hours_per_month
    by_period: dict[datetime, Decimal] = {}
    price = profile.effective_usd_per_hour
    over = price if profile.overage_usd_per_hour is None else profile.overage_usd_per_hour
    found = []
    with localcontext(MATH):
        for hour, hours in used.items():
            period = _whole_hour(hour) if monthly is None else _month(hour)
            by_period[period] = by_period.get(period, _NOTHING) + hours
        for first, after in _periods(since, until, monthly=monthly is not None):
            last = min(after, until)
            share = Decimal((last - first) // _MICROSECOND) / ((after - first) // _MICROSECOND)
            committed = share * (monthly if monthly is not None else profile.accelerators or 0)
            ran = by_period.get(first, _NOTHING)
            found.append(
                ReservedUse(
                    start=first,
                    end=last,
                    committed_hours=committed,
                    used_hours=ran,
                    used_usd=(ran * price).quantize(MONEY),
                    unused_usd=(max(_NOTHING, committed - ran) * price).quantize(MONEY),
                    surcharge_usd=(max(_NOTHING, ran - committed) * (over - price)).quantize(MONEY),
                )
            )
    return found


def hours_between(start: datetime, end: datetime) -> Decimal:
    """Hours from one instant to another, as far as a microsecond tells."""
    with localcontext(MATH):
        return Decimal((end - start) // _MICROSECOND) / (_HOUR // _MICROSECOND)


def _periods(since: datetime, until: datetime, *, monthly: bool) -> Iterator[tuple[datetime, datetime]]:
    """Whole hours or months, the first being that which holds `since`."""
    first = _month(since) if monthly else _whole_hour(since)
    while first < until:
        after = _months_later(first, 1) if monthly else first + _HOUR
        yield first, after
        first = after


def _whole_hour(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _month(instant: datetime) -> datetime:
    return _whole_hour(instant).replace(day=1, hour=0)


def _months_later(instant: datetime, months: int) -> datetime:
    """The same day and time so many months later; the month's last day where it has no such day."""
    index = instant.year * 12 + instant.month - 1 + months
    year, month = divmod(index, 12)
    after = datetime(year + (month == 11), (month + 1) % 12 + 1, 1, tzinfo=UTC)
    return instant.replace(year=year, month=month + 1, day=min(instant.day, (after - timedelta(days=1)).day))


def _not_whole_hours(name: str, instant: datetime) -> Iterator[str]:
    if instant.tzinfo is None:
        yield f"{name} {instant.isoformat()} has no time zone: add Z for UTC or an offset"
    elif instant != _whole_hour(instant):
        yield f"{name} {instant.isoformat()} is not on a whole UTC hour: move it there"


def _below_zero(profile: object, *names: str) -> Iterator[str]:
    for name in names:
        value = getattr(profile, name)
        if value is not None and value < 0:
            yield f"{name} {value} is below 0: correct it"
