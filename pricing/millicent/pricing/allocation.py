"""Where one hour of an accelerator pool went: to the tokens it served, to idle, to outages, to what nobody saw.

    total = busy + idle + unavailable + untracked        to the last digit

Busy time is carried by tokens, by the best evidence of what input and output took of it, best first:

1. **pools**: the accelerators of the prefill pool by input tokens, those of the decode pool by output tokens;
2. **phase time**: what the engine's own counters say that prefill and decode of each deployment took;
3. **weights**: a token weighs so many thousandths of an uncached input token, and all weights cost the same.

Deployments that share a pool share its busy cost once. What the engine counted and we did not see is `untracked`, and
so is time that nobody observed, and busy time without a token. Rates are USD (joules, grams) per thousandth of weight,
rounded down to 24 decimals; what rounding leaves is idle. Without tokens there is no rate, never a division by zero.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal, localcontext
from typing import Literal, NamedTuple

from millicent.pricing.hourly import HourCost
from millicent.pricing.profiles import MATH, MONEY

CachedPolicy = Literal["free", "fraction", "full"]
"""What a prefix-cached token weighs: nothing, its own weight, or as much as an uncached one."""

Method = Literal["pools", "phase time", "weights"]

_NOTHING = Decimal(0)
Seconds = Decimal | int


@dataclass(frozen=True, slots=True)
class Weights:
    """What a token weighs, in thousandths of an uncached input token.

    Where models of different size share accelerators, scale all three of one of them: weights of all deployments in a
    pool are measured against each other.
    """

    uncached_input: int = 1000
    cached_input: int = 100
    output: int = 4000

    def of(self, *, uncached_input: int, cached_input: int, output: int) -> int:
        """The weight of tokens served, in thousandths."""
        return self.uncached_input * uncached_input + self.cached_input * cached_input + self.output * output

    def weigh(self, tokens: "Tokens") -> "Weight":
        """What tokens weigh, apart for what went in and what came out."""
        return Weight(
            self.of(uncached_input=tokens.uncached_input, cached_input=tokens.cached_input, output=0),
            self.of(uncached_input=0, cached_input=0, output=tokens.output),
        )

    def under(self, cached: CachedPolicy) -> "Weights":
        """These weights with cached tokens as a policy has them."""
        by_policy = {"free": 0, "fraction": self.cached_input, "full": self.uncached_input}
        return replace(self, cached_input=by_policy[cached])


DEFAULT_WEIGHTS = Weights()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one deployment in one hour, each in one kind only."""

    uncached_input: int = 0
    cached_input: int = 0
    output: int = 0

    @property
    def input(self) -> int:
        """All that went in."""
        return self.uncached_input + self.cached_input


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTokens:
    """What an engine's own counters rose by in one hour; None where it does not tell.

    Attributes:
        input: All that went in, prefix-cache hits included.
        uncached_input: What of it was computed.
        cached_input: What of it came out of the cache.
        output: What was generated.
    """

    input: int | None = None
    uncached_input: int | None = None
    cached_input: int | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """What prefill and decode took, by an engine's counters.

    Counters of request-seconds run once for every request that is in the phase. Divide them by how many are at once,
    on the mean: else decode, where more requests overlap, is overstated.
    """

    prefill_seconds: Decimal
    decode_seconds: Decimal
    prefill_concurrency: Decimal = Decimal(1)
    decode_concurrency: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What one deployment of the pool served in the hour.

    Attributes:
        seen: Tokens of the calls that we know of.
        counted: What the engine itself counted; None where it is not read.
        phases: What its phases took; None where the engine does not tell.
        weights: What its tokens weigh.
    """

    seen: Tokens
    counted: EngineTokens | None = None
    phases: PhaseTime | None = None
    weights: Weights = DEFAULT_WEIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Accelerators that do prefill only, and those that do decode only.

    Busy seconds of each pool where they are known; None is that of the hour.
    """

    prefill: int
    decode: int
    prefill_busy_seconds: Seconds | None = None
    decode_busy_seconds: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the pool cost in the time that has passed, and what it drew.

    Attributes:
        fixed_usd: Capital, rent or a survey's all-in cost.
        hosting_usd: Space, cooling and racks.
        energy_usd: Electricity, where it is charged on its own.
        joules: Energy at the facility's meter; None when unknown.
        idle_joules: What of it was drawn while no request ran; None splits it by time.
        gco2e_g: Location-based carbon; None when unknown.
        market_gco2e_g: Market-based carbon; None when unknown.
    """

    fixed_usd: Decimal
    hosting_usd: Decimal = _NOTHING
    energy_usd: Decimal = _NOTHING
    joules: Decimal | None = None
    idle_joules: Decimal | None = None
    gco2e_g: Decimal | None = None
    market_gco2e_g: Decimal | None = None

    @classmethod
    def of(cls, cost: HourCost) -> "Bill":
        """The bill of accelerators that `hourly_cost` has costed."""
        return cls(
            fixed_usd=cost.fixed_usd,
            hosting_usd=cost.hosting_usd,
            energy_usd=cost.energy_usd,
            joules=cost.joules,
            idle_joules=cost.idle_joules,
            gco2e_g=cost.gco2e_g,
            market_gco2e_g=cost.market_gco2e_g,
        )


class Rates(NamedTuple):
    """What a thousandth of weight carries; None where no token was served that could carry it."""

    input: Decimal | None
    output: Decimal | None


class Weight(NamedTuple):
    """Weight of tokens, in thousandths of an uncached input token."""

    input: int
    output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Where one amount went: `busy + idle + unavailable + untracked == total`, to the last digit.

    Attributes:
        total: The amount.
        busy: What tokens that we saw carry: Σ rate × weight.
        idle: No request ran; and what rounding leaves.
        unavailable: Loading, compiling, failure.
        untracked: The engine worked for tokens that we did not see, or nobody observed what it did.
        rates: By deployment.
        carried: What the tokens seen of each deployment carry; the sum is `busy`.
        unseen: What of `untracked` the engine's own counters lay to each deployment; the rest is nobody's.
    """

    total: Decimal
    busy: Decimal
    idle: Decimal
    unavailable: Decimal
    untracked: Decimal
    rates: Mapping[str, Rates]
    carried: Mapping[str, Decimal]
    unseen: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Where an hour went, in money, energy and carbon, by one method.

    Attributes:
        method: The evidence that split busy time between input and output.
        usd: The whole cost.
        energy_usd: The electricity in it.
        joules: Energy at the facility's meter.
        gco2e: Location-based carbon, grams.
        market_gco2e: Market-based carbon, grams.
        weights: What tokens of each deployment weigh, under the policy for cached ones.
        seen: Weight of the tokens that we saw.
        untracked: Tokens that only the engine counted.
    """

    method: Method
    usd: Split
    energy_usd: Split
    joules: Split | None
    gco2e: Split | None
    market_gco2e: Split | None
    weights: Mapping[str, Weights]
    seen: Mapping[str, Weight]
    untracked: Mapping[str, Tokens]


def allocate_hour(
    bill: Bill,
    serving: Mapping[str, Serving],
    *,
    elapsed_seconds: Seconds,
    busy_seconds: Seconds,
    unavailable_seconds: Seconds = 0,
    unobserved_seconds: Seconds = 0,
    pools: Pools | None = None,
    cached: CachedPolicy = "fraction",
) -> Allocation:
    """Say where an hour of an accelerator pool went.

    Fixed and hosting cost follow time; electricity and carbon follow the energy that was drawn, so an idle second
    carries less of them than a busy one.

    Args:
        bill: Cost and energy of the elapsed time.
        serving: Every deployment that ran on the pool, by name.
        elapsed_seconds: How much of the hour has passed.
        busy_seconds: With at least one request running.
        unavailable_seconds: Loading, compiling, failure.
        unobserved_seconds: Nobody knows what ran.
        pools: Prefill and decode accelerators, where they are apart.
        cached: What prefix-cached tokens weigh.

    Raises:
        ValueError: Amounts, seconds or counts are negative, or do not fit the elapsed time.
    """
    hour = _Hour(
        Decimal(elapsed_seconds), Decimal(busy_seconds), Decimal(unavailable_seconds), Decimal(unobserved_seconds)
    )
    _check(bill, hour, pools)
    weights = {name: one.weights.under(cached) for name, one in serving.items()}
    untracked = {name: unseen(one.seen, one.counted) for name, one in serving.items()}
    seen = {name: weights[name].weigh(one.seen) for name, one in serving.items()}
    hidden = {name: weights[name].weigh(untracked[name]) for name in serving}
    with localcontext(MATH):
        cut = _cut(hour, serving, {name: _sum(seen[name], hidden[name]) for name in serving}, pools)

        def split(by_time: Decimal, by_energy: Decimal) -> Split:
            return _split(by_time, by_energy, hour, bill, cut, seen, hidden)

        def energy(amount: Decimal | None) -> Split | None:
            return None if amount is None else split(_NOTHING, amount)

        return Allocation(
            method=cut.method,
            usd=split(bill.fixed_usd + bill.hosting_usd, bill.energy_usd),
            energy_usd=split(_NOTHING, bill.energy_usd),
            joules=energy(bill.joules),
            gco2e=energy(bill.gco2e_g),
            market_gco2e=energy(bill.market_gco2e_g),
            weights=weights,
            seen=seen,
            untracked=untracked,
        )


def unseen(seen: Tokens, counted: EngineTokens | None) -> Tokens:
    """Tokens that an engine counted and we did not see.

    Never more input than the engine's own surplus: where calls do not tell which of their tokens were cached, the
    engine's cached ones are among those that we saw. A surplus of unknown kind is as the tokens seen are, and uncached
    where there are none.
    """
    if counted is None:
        return Tokens()
    output = max(0, (counted.output or 0) - seen.output)
    whole, uncached, cached = counted.input, counted.uncached_input, counted.cached_input
    if whole is None and uncached is not None and cached is not None:
        whole = uncached + cached
    if whole is None:
        return Tokens(uncached_input=max(0, (uncached or 0) - seen.uncached_input), output=output)
    surplus = max(0, whole - seen.input)
    if cached is None and uncached is not None:
        cached = max(0, whole - uncached)
    if cached is None:
        of_cache = surplus * seen.cached_input // seen.input if seen.input else 0
    else:
        of_cache = min(surplus, max(0, cached - seen.cached_input))
    return Tokens(uncached_input=surplus - of_cache, cached_input=of_cache, output=output)


class _Hour(NamedTuple):
    elapsed: Decimal
    busy: Decimal
    unavailable: Decimal
    unobserved: Decimal


_Side = Literal["input", "output"]
_SIDES: tuple[_Side, ...] = ("input", "output")


class _Part(NamedTuple):
    """A part of the pool's busy time, and who carries it at one rate."""

    share: Decimal  # of `_Cut.over`
    bearers: tuple[tuple[str, _Side], ...]
    weight: int  # of all tokens that the bearers served


class _Cut(NamedTuple):
    """Busy time, cut up by the best evidence that there is."""

    method: Method
    over: Decimal  # accelerators × elapsed time, in the unit of the shares
    parts: list[_Part]

    @property
    def busy(self) -> Decimal:
        return sum((part.share for part in self.parts), _NOTHING)


def _cut(hour: _Hour, serving: Mapping[str, Serving], served: Mapping[str, Weight], pools: Pools | None) -> _Cut:
    def part(share: Decimal, bearers: Iterable[tuple[str, _Side]]) -> _Part:
        keys = tuple(bearers)
        return _Part(share, keys, sum(getattr(served[name], side) for name, side in keys))

    if pools is not None:
        counts = zip(_SIDES, (pools.prefill, pools.decode), _busy_of(pools, hour), strict=True)
        parts = [part(count * busy, ((name, side) for name in serving)) for side, count, busy in counts]
        return _Cut("pools", hour.elapsed * (pools.prefill + pools.decode), parts)
    phases = {
        (name, side): seconds
        for name, one in serving.items()
        if one.phases is not None
        for side, seconds in zip(_SIDES, _apart(one.phases), strict=True)
        if seconds
    }
    weighty = {(name, side) for name in serving for side in _SIDES if getattr(served[name], side)}
    if phases and weighty == phases.keys():
        parts = [part(hour.busy * seconds, [key]) for key, seconds in phases.items()]
        return _Cut("phase time", hour.elapsed * sum(phases.values()), parts)
    return _Cut("weights", hour.elapsed, [part(hour.busy, ((name, side) for name in serving for side in _SIDES))])


def _busy_of(pools: Pools, hour: _Hour) -> tuple[Decimal, Decimal]:
    told = (pools.prefill_busy_seconds, pools.decode_busy_seconds)
    prefill, decode = (hour.busy if seconds is None else Decimal(seconds) for seconds in told)
    return prefill, decode


def _apart(phases: PhaseTime) -> tuple[Decimal, Decimal]:
    return (
        phases.prefill_seconds / phases.prefill_concurrency,
        phases.decode_seconds / phases.decode_concurrency,
    )


def _split(
    by_time: Decimal,
    by_energy: Decimal,
    hour: _Hour,
    bill: Bill,
    cut: _Cut,
    seen: Mapping[str, Weight],
    hidden: Mapping[str, Weight],
) -> Split:
    total = (by_time + by_energy).quantize(MONEY)
    if not bill.joules or bill.idle_joules is None or not 0 < cut.busy < cut.over:
        by_time, by_energy = by_time + by_energy, _NOTHING  # nothing tells energy from time
    joules, at_rest = bill.joules or Decimal(1), bill.idle_joules or _NOTHING
    rates: dict[tuple[str, str], Decimal] = {}
    untracked = _NOTHING
    for share, bearers, weight in cut.parts:
        cost = by_time * share / (cut.over or 1)
        cost += by_energy * (joules - at_rest) * share / (joules * (cut.busy or 1))
        if weight:
            rates.update(dict.fromkeys(bearers, (cost / weight).quantize(MONEY, ROUND_DOWN)))
        else:
            untracked += cost.quantize(MONEY, ROUND_DOWN)

    def resting(seconds: Decimal) -> Decimal:
        """Time in which nothing ran: its share of time, and of what was drawn while nothing ran."""
        if not seconds:
            return _NOTHING
        drawn = by_energy * at_rest * seconds * cut.over / (joules * hour.elapsed * ((cut.over - cut.busy) or 1))
        return (by_time * seconds / hour.elapsed + drawn).quantize(MONEY, ROUND_DOWN)

    carried = {name: _amount(rates, name, weight) for name, weight in seen.items()}
    only_counted = {name: _amount(rates, name, weight) for name, weight in hidden.items()}
    busy = sum(carried.values(), _NOTHING)
    unavailable = resting(hour.unavailable)
    untracked += sum(only_counted.values(), resting(hour.unobserved))
    return Split(
        total=total,
        busy=busy,
        idle=total - busy - unavailable - untracked,
        unavailable=unavailable,
        untracked=untracked,
        rates={name: Rates(rates.get((name, "input")), rates.get((name, "output"))) for name in seen},
        carried=carried,
        unseen=only_counted,
    )


def _amount(rates: Mapping[tuple[str, str], Decimal], name: str, weight: Weight) -> Decimal:
    return sum((rates.get((name, side), _NOTHING) * getattr(weight, side) for side in _SIDES), _NOTHING)


def _sum(one: Weight, other: Weight) -> Weight:
    return Weight(one.input + other.input, one.output + other.output)


def _check(bill: Bill, hour: _Hour, pools: Pools | None) -> None:
    amounts = {name: getattr(bill, name) for name in Bill.__dataclass_fields__}
    below = [f"{name} {value}" for name, value in amounts.items() if value is not None and value < 0]
    if below or min(hour) < 0:
        raise ValueError(f"{', '.join(below) or hour} cannot be allocated: no amount and no time is negative")
    busy = [hour.busy]
    if pools is not None:
        if min(pools.prefill, pools.decode) < 0 or not pools.prefill + pools.decode:
            raise ValueError(f"{pools} has no accelerators: write how many do prefill and how many decode")
        busy += _busy_of(pools, hour)
    if min(busy) < 0 or max(busy) + hour.unavailable + hour.unobserved > hour.elapsed:
        raise ValueError(
            f"busy {max(busy)} + unavailable {hour.unavailable} + unobserved {hour.unobserved} s do not fit into the "
            f"{hour.elapsed} s that have passed: they never overlap, and what is left is idle"
        )
    if bill.idle_joules is not None and bill.idle_joules > (bill.joules or 0):
        raise ValueError(f"idle_joules {bill.idle_joules} is more than joules {bill.joules}: it is a part of them")
