"""What a contract adds to the calls' own cost: fees, volume discounts, prepaid credits and commitments, day by day.

They depend on what else was used in the month or before, so no single call has them. They are computed from what
calls are billed by UTC day, and told by UTC day: signed amounts to 12 decimals whose sums are exact. Months are UTC
calendar months. A closed day keeps what stands on it; what should stand there now comes on an open day.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache
from itertools import chain, takewhile
from typing import Any, Final, NamedTuple

from millicent.pricing import bundled
from millicent.pricing.entries import Charge, ChargeType

ORDER: Final[tuple[ChargeType, ...]] = ("fee", "volume", "credit", "commitment")
"""The order in which charges are settled: a credit pays what discounts leave, a commitment looks at all others."""

_STORED: Final = Decimal("1e-12")
_EXACT: Final = Context(prec=100)
_DAY: Final = timedelta(days=1)
_NOTHING: Final = Decimal(0)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Calls(NamedTuple):
    """The calls of one UTC day, provider and model."""

    day: date
    provider: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Accrual:
    """What a charge comes to on one UTC day.

    Attributes:
        day: The day in whose cost it is.
        amount_usd: USD to 12 decimals: above 0 there is more to pay, below 0 less.
        words: Why, for people.
        charge: The charge.
    """

    day: date
    amount_usd: Decimal
    words: str
    charge: Charge


def accrue(
    charge: Charge,
    billed_by_day: Mapping[date, Decimal],
    through: date,
    kept: Mapping[date, Decimal] | None = None,
) -> list[Accrual]:
    """What one charge comes to, day by day; days on which it comes to nothing are left out.

    A *fee* stands on the first day of each month. A *volume* discount is what the part of the month's billed cost
    above each tier, up to the next one, earns at the tier's percentage: each day has what it adds. A *credit* pays
    each day's billed cost until it is used up. A *commitment* charges on the month's last day, once the month is
    over, what the month's billed cost is short of it.

    Args:
        charge: The charge.
        billed_by_day: USD that the charge is computed on, by UTC day; a day that is not there has 0.
        through: The day it is (UTC): later days are not told of, and the month that it is in is not over.
        kept: Every closed day with what stands on it for this charge, 0 included; it counts, and is not told again.
    """
    with localcontext(_EXACT):
        return [one for one in _RULES[charge.type](charge, billed_by_day, through, kept or {}) if one.amount_usd]


def settle(
    charges: Iterable[Charge],
    billed: Mapping[Calls, Decimal],
    through: date,
    kept: Mapping[Charge, Mapping[date, Decimal]] | None = None,
) -> list[Accrual]:
    """All charges of one tenant, each over the calls of its provider and model, in the order of their days.

    Volume discounts are on what calls are billed. Credits pay what calls are billed less volume discounts, no fees:
    the narrower scope first, then the one that ends sooner. A commitment is the least that a month comes to in its
    scope, with the fees, discounts, credits and narrower commitments of that scope.

    Args:
        charges: Those that hold.
        billed: What calls are billed in USD, from the first day of any charge on.
        through: As in `accrue`.
        kept: As in `accrue`, by charge.
    """
    with localcontext(_EXACT):
        calls = _by_day(billed)
        owed = {day: dict(sums) for day, sums in calls.items()}  # less what discounts and credits take
        added: _Sums = {}  # fees and shortfalls
        accruals = []
        for charge in sorted(charges, key=_turn):
            closed = (kept or {}).get(charge, {})
            on = (calls,) if charge.type == "volume" else (owed, added) if charge.type == "commitment" else (owed,)
            found = accrue(charge, _in_scope(charge, *on), through, closed)
            accruals.extend(found)
            for day, amount in (*closed.items(), *((one.day, one.amount_usd) for one in found)):
                if charge.type in {"volume", "credit"}:
                    _take(owed, charge, day, -amount)
                else:
                    _add(added, charge, day, amount)
    return sorted(accruals, key=lambda one: one.day)


def covers(charge: Charge, provider: str | None, model: str | None) -> bool:
    """Whether calls of a provider and model are in a charge's scope, by the names they told or those of the price data.

    Upper and lower case are the same.
    """
    providers, models = _names(provider, model)
    named = charge.provider is None or charge.provider.lower() in providers
    return named and (charge.model is None or any(_matches(charge.model.lower(), one) for one in models))


def _fee(charge: Charge, _: Mapping[date, Decimal], through: date, kept: Mapping[date, Decimal]) -> Iterator[Accrual]:
    for days in _months(charge, through):
        if open_days := [day for day in days if day not in kept and day <= through]:
            amount = _amount(charge) - _sum(kept, days)
            yield Accrual(open_days[0], amount, f"fee of {days[0]:%Y-%m}", charge)


def _volume(
    charge: Charge, billed: Mapping[date, Decimal], through: date, kept: Mapping[date, Decimal]
) -> Iterator[Accrual]:
    for days in _months(charge, through):
        so_far = told = _NOTHING
        for day in takewhile(lambda day: day <= through, days):
            so_far += billed.get(day, _NOTHING)
            amount = kept[day] if day in kept else -_discount(charge, so_far) - told
            told += amount
            if day not in kept:
                yield Accrual(day, amount, _reached(charge, so_far, day), charge)


def _credit(
    charge: Charge, billed: Mapping[date, Decimal], through: date, kept: Mapping[date, Decimal]
) -> Iterator[Accrual]:
    total = _amount(charge)
    left = total + _sum(kept, kept)
    first, past = _day(charge.effective_from), _day(charge.effective_to)
    for day in sorted(billed):
        if first <= day < past and day <= through and day not in kept:
            drawn = max(_NOTHING, min(left, billed[day]))
            left -= drawn
            yield Accrual(day, -drawn, f"drawn from {total:,.2f} USD, {left:,.2f} left", charge)


def _commitment(
    charge: Charge, billed: Mapping[date, Decimal], through: date, kept: Mapping[date, Decimal]
) -> Iterator[Accrual]:
    least = _amount(charge)
    for days in _months(charge, through):
        open_days = [day for day in days if day not in kept]
        if days[-1] < through and open_days:
            spent = _sum(billed, days)
            amount = max(_NOTHING, least - spent) - _sum(kept, days)
            words = f"{spent:,.2f} of at least {least:,.2f} USD billed in {days[0]:%Y-%m}"
            yield Accrual(open_days[-1], amount, words, charge)


_Rule = Callable[[Charge, Mapping[date, Decimal], date, Mapping[date, Decimal]], Iterator[Accrual]]
_RULES: Final[Mapping[ChargeType, _Rule]] = {
    "fee": _fee, "volume": _volume, "credit": _credit, "commitment": _commitment,
}  # fmt: skip


def _amount(charge: Charge) -> Decimal:
    return charge.amount_usd or _NOTHING


def _discount(charge: Charge, billed: Decimal) -> Decimal:
    """Percent of the slice above each tier, up to the next; rounded half-even to 12 decimals."""
    ends = [*(above for above, _ in charge.tiers[1:]), billed]
    slices = [
        max(_NOTHING, min(billed, end) - above) * percent / 100
        for (above, percent), end in zip(charge.tiers, ends, strict=True)
    ]
    return sum(slices, _NOTHING).quantize(_STORED, ROUND_HALF_EVEN)


def _reached(charge: Charge, billed: Decimal, day: date) -> str:
    tiers = [tier for tier in charge.tiers if tier[0] < billed] or charge.tiers[:1]
    above, percent = tiers[-1]
    return f"{percent.normalize():f} % off above {above:,.2f} USD, {billed:,.2f} billed so far in {day:%Y-%m}"


def _months(charge: Charge, through: date) -> Iterator[list[date]]:
    """The days of each calendar month in which the charge holds and that has begun."""
    first, past = _day(charge.effective_from), _day(charge.effective_to)
    while first < past and first <= through:
        following = (first + 31 * _DAY).replace(day=1)
        yield [first + at * _DAY for at in range((following - first).days)]
        first = following


def _day(instant: datetime | None) -> date:
    return (instant or _NEVER).astimezone(UTC).date()


def _sum(amounts: Mapping[date, Decimal], days: Iterable[date]) -> Decimal:
    return sum((amounts.get(day, _NOTHING) for day in days), _NOTHING)


def _turn(charge: Charge) -> tuple[Any, ...]:
    """Narrower scopes first: a model, models by pattern, a provider, all calls; then what ends sooner."""
    scope = (charge.model is None, "*" in (charge.model or ""), charge.provider is None)
    return ORDER.index(charge.type), *scope, charge.effective_to or _NEVER, charge.effective_from, charge.name


@lru_cache(maxsize=65_536)
def _names(provider: str | None, model: str | None) -> tuple[frozenset[str], frozenset[str]]:
    known, found = bundled.find_provider(provider), bundled.find(provider, model, None)
    providers = {(provider or "").lower(), (known or "").lower()}
    models = {(model or "").lower(), found.model.lower() if found else ""}
    return frozenset(providers), frozenset(models - {""} or {""})


@lru_cache(maxsize=65_536)
def _matches(pattern: str, model: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), model, re.DOTALL) is not None


_Sums = dict[date, dict[tuple[str | None, str | None], Decimal]]


def _by_day(billed: Mapping[Calls, Decimal]) -> _Sums:
    sums: _Sums = {}
    for calls, amount in billed.items():
        sums.setdefault(calls.day, {})[calls.provider, calls.model] = amount
    return sums


def _in_scope(charge: Charge, *parts: _Sums) -> dict[date, Decimal]:
    by_day: dict[date, Decimal] = defaultdict(Decimal)
    for day, sums in chain.from_iterable(part.items() for part in parts):
        by_day[day] += sum((amount for of, amount in sums.items() if covers(charge, *of)), _NOTHING)
    return by_day


def _take(owed: _Sums, charge: Charge, day: date, amount: Decimal) -> None:
    """Take an amount off what the day's calls in scope owe; what is more than all of that stands by itself."""
    sums = owed.setdefault(day, {})
    for of in [of for of in sums if covers(charge, *of)]:
        taken = max(_NOTHING, min(amount, sums[of]))
        sums[of] -= taken
        amount -= taken
    if amount:
        _add(owed, charge, day, -amount)


def _add(sums: _Sums, charge: Charge, day: date, amount: Decimal) -> None:
    of_day = sums.setdefault(day, {})
    of = (charge.provider, charge.model)
    of_day[of] = of_day.get(of, _NOTHING) + amount
