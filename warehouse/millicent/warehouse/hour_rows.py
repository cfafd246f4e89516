"""One hour of a pool of accelerators, from what is declared and what happened, as rows of the record.

Each deployment on the pool has a row: what its own tokens carry, and its share of what belongs to the pool as a whole,
in proportion to what they carry. In every row `fixed + energy + hosting = busy + idle + unavailable + untracked`, and
the rows of a pool add up to its bill, to the last digit. Nothing here reads or stores anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple

from millicent.pricing.allocation import (
    Allocation,
    Bill,
    EngineTokens,
    PhaseTime,
    Pools,
    Serving,
    Split,
    Weights,
    allocate_hour,
)
from millicent.pricing.hourly import HourCost, hourly_cost
from millicent.pricing.idle import carriers
from millicent.pricing.profiles import MATH, MONEY
from millicent.warehouse import hour_sources
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.happened import HOUR_MS, NO_METERS, Happened, Meters, PoolHour, Time, drawn, passed, total
from millicent.warehouse.ledger import MILLISECOND
from millicent.warehouse.plan import HOUR, Paid, Span

Row = dict[str, Any]
_NOTHING: Final = Decimal(0)
_ONE: Final = Decimal(1)
_METERED: Final = Decimal(1).scaleb(-6)
_THOUSAND: Final = Decimal(1000)
_BESIDE_IDLE: Final = ("busy", "unavailable", "untracked")


def rows(of: PoolHour, happened: Happened, now: datetime) -> tuple[list[Row], list[Row]]:
    """Rows of `deployment_hours`, and of `idle_shares`, for as much of an hour as has passed by `now`."""
    elapsed_ms = min(HOUR, now - of.hour) // MILLISECOND
    if of.span.paid is None:
        hours = [_unused(of, elapsed_ms, now)]
        return hours, _shares(of.span, hours[0], {})
    time = passed(of.span.members[0], happened, elapsed_ms)
    cost, surcharge = _cost(of, of.span.paid, happened, time)
    bill = replace(Bill.of(cost), fixed_usd=cost.fixed_usd + surcharge)
    found = _allocated(of.span, of.span.paid.weights, happened, time, bill)
    parts = _Parts(found, bill, _accelerator_ms(of.span.members[0], time))
    hours, shares = [], []
    for one in of.span.members:
        row = {
            **_declared(of, one, elapsed_ms, now),
            **parts.row(one.name),
            "busy_ms": time.busy,
            "unavailable_ms": time.unavailable,
            "unobserved_ms": time.unobserved,
            **_rates(found, one.name),
            **_tokens(one.name, happened, elapsed_ms),
            "energy_source": cost.energy_source,
            "busy_source": time.source,
            "method": hour_sources.method(found, one.name, of.span, time),
            "sources": hour_sources.told(of.span, one.name, cost, surcharge, happened, time),
        }
        hours.append(row)
        shares += _shares(of.span, row, _carried_by_team(found, one.name, happened))
    return hours, shares


# ---- what it cost, and where it went


def _cost(of: PoolHour, paid: Paid, happened: Happened, time: Time) -> tuple[HourCost, Decimal]:
    """What the pool's hour cost; and what it cost more because the reservation is used up."""
    one = of.span.members[0]
    with localcontext(MATH):
        busy_ms = Decimal(time.accelerator_ms(one)) / one.accelerator_count
        cost = hourly_cost(
            paid.profile,
            one.accelerator,
            one.accelerator_count,
            region=one.region,
            power=paid.power,
            busy_seconds=min(busy_ms, Decimal(time.elapsed)) / _THOUSAND,
            elapsed_seconds=Decimal(time.elapsed) / _THOUSAND,
            measured_joules=drawn(happened, time.elapsed),
            at=of.hour,
        )
        return cost, of.span.surcharge_usd(of.hour, Decimal(time.elapsed) / HOUR_MS)


def _allocated(span: Span, weights: Mapping[str, Weights], happened: Happened, time: Time, bill: Bill) -> Allocation:
    seconds = {
        name: None if ms is None else Decimal(ms) / _THOUSAND
        for name, ms in (("prefill", time.prefill), ("decode", time.decode))
    }
    one = span.members[0]
    pools = None
    if one.prefill_count is not None and one.decode_count is not None:
        pools = Pools(
            prefill=one.prefill_count,
            decode=one.decode_count,
            prefill_busy_seconds=seconds["prefill"],
            decode_busy_seconds=seconds["decode"],
        )
    return allocate_hour(
        bill,
        {name: _serving(name, weights[name], happened, time) for name in span.names},
        elapsed_seconds=Decimal(time.elapsed) / _THOUSAND,
        busy_seconds=Decimal(time.busy) / _THOUSAND,
        unavailable_seconds=Decimal(time.unavailable) / _THOUSAND,
        unobserved_seconds=Decimal(time.unobserved) / _THOUSAND,
        pools=pools,
        cached=span.policy.cached,
    )


def _serving(name: str, weights: Weights, happened: Happened, time: Time) -> Serving:
    _, counted = happened.counted(name, time.elapsed)
    return Serving(
        seen=total(happened.seen.get(name, {}).values()),
        counted=counted,
        phases=_phases(happened.meters.get(name, NO_METERS), time),
        weights=weights,
    )


def _phases(meters: Meters, time: Time) -> PhaseTime | None:
    """What prefill and decode took, of as many requests at once as there were on the mean."""
    told = meters.phases(time.elapsed)
    if told is None or not time.busy:
        return None
    busy = Decimal(time.busy) / _THOUSAND
    with localcontext(MATH):
        prefill, decode = (Decimal(us).scaleb(-6) for us in told)
        return PhaseTime(
            prefill_seconds=prefill,
            decode_seconds=decode,
            prefill_concurrency=max(_ONE, prefill / busy),
            decode_concurrency=max(_ONE, decode / busy),
        )


class _Part(NamedTuple):
    """One deployment's part of an amount."""

    busy: Decimal
    idle: Decimal
    unavailable: Decimal
    untracked: Decimal

    @property
    def whole(self) -> Decimal:
        with localcontext(MATH):
            return self.busy + self.idle + self.unavailable + self.untracked


class _Parts:
    """What of a pool's hour each deployment has: what is its own, and of the rest by what its tokens carry."""

    def __init__(self, found: Allocation, bill: Bill, accelerator_ms: Mapping[str, int]) -> None:
        self._carried = found.usd.carried
        self._usd = self._of(found.usd)
        self._energy = self._of(found.energy_usd)
        self._parts: dict[str, dict[str, _Part] | None] = {"energy_usd": self._energy}
        self._wholes: dict[str, Mapping[str, Any]] = {
            name: {one: int(ms) for one, ms in _over(Decimal(pool_ms), self._carried, _ONE).items()}
            for name, pool_ms in accelerator_ms.items()
        }
        for amount, whole, split in (
            ("joules", bill.joules, found.joules),
            ("gco2e_g", bill.gco2e_g, found.gco2e),
            ("gco2e_market_g", bill.market_gco2e_g, found.market_gco2e),
        ):
            parts = self._parts[amount] = None if split is None else self._of(split)
            if parts is not None and whole is not None:
                used = {one: max(_NOTHING, part.whole) for one, part in parts.items()}
                self._wholes[amount] = _over(whole, used, _METERED)
        with localcontext(MATH):
            beside = {name: max(_NOTHING, self._usd[name].whole - self._energy[name].whole) for name in self._usd}
            self._hosting = _over(bill.hosting_usd, beside)

    def row(self, name: str) -> Row:
        """Money, energy, carbon and accelerator time of a deployment."""
        usd, energy, hosting = self._usd[name], self._energy[name], self._hosting.get(name, _NOTHING)
        with localcontext(MATH):
            told: Row = {
                "fixed_usd": usd.whole - energy.whole - hosting,
                "energy_usd": energy.whole,
                "hosting_usd": hosting,
                "busy_usd": usd.busy,
                "idle_usd": usd.idle,
                "unavailable_usd": usd.unavailable,
                "untracked_usd": usd.untracked,
                "unused_accelerator_ms": 0,
            }
        for amount, parts in self._parts.items():
            if parts is not None:
                told |= {f"{place}_{amount}": getattr(parts[name], place) for place in _BESIDE_IDLE}
        return told | {amount: wholes.get(name, 0) for amount, wholes in self._wholes.items()}

    def _of(self, split: Split) -> dict[str, _Part]:
        with localcontext(MATH):
            nobodys = split.untracked - sum(split.unseen.values(), _NOTHING)
            idle, unavailable, untracked = (
                _over(amount, self._carried) for amount in (split.idle, split.unavailable, nobodys)
            )
            return {
                name: _Part(
                    split.carried[name],
                    idle.get(name, _NOTHING),
                    unavailable.get(name, _NOTHING),
                    split.unseen[name] + untracked.get(name, _NOTHING),
                )
                for name in self._carried
            }


def _over(amount: Decimal, used: Mapping[str, Decimal], quantum: Decimal = MONEY) -> dict[Any, Decimal]:
    """An amount in proportion to what was used, or evenly where nothing was; the sum is the amount."""
    if len(used) == 1:
        return dict.fromkeys(used, amount)
    return carriers(amount, "spread by use" if any(used.values()) else "spread evenly", used=used, quantum=quantum)


# ---- rows


def _declared(of: PoolHour, one: Deployment, elapsed_ms: int, now: datetime) -> Row:
    copied = ("model", "engine", "precision", "accelerator", "accelerator_count", "region", "environment", "owner")
    return {
        **_found_by(of, one.name, elapsed_ms, now),
        **{name: getattr(one, name) for name in copied},
        "declared_from": one.effective_from,
    }


def _found_by(of: PoolHour, name: str, elapsed_ms: int, now: datetime) -> Row:
    return {
        "tenant": of.span.tenant,
        "deployment": name,
        "hour": of.hour,
        "pool": of.span.pool,
        "contract": of.span.contract,
        "policy": of.span.policy.id,
        "computed_from": of.span.digest,
        "elapsed_ms": elapsed_ms,
        "provisional": elapsed_ms < HOUR_MS,
        "computed_at": now,
    }


def _accelerator_ms(one: Deployment, time: Time) -> dict[str, int]:
    """Milliseconds of all accelerators of the pool."""
    count = one.accelerator_count
    return {
        "accelerator_ms": count * time.elapsed,
        "busy_accelerator_ms": time.accelerator_ms(one),
        "unavailable_accelerator_ms": count * time.unavailable,
        "unobserved_accelerator_ms": count * time.unobserved,
    }


def _rates(found: Allocation, name: str) -> Row:
    """What a thousandth of weight carries, in and out; a side that nothing was served on carries nothing."""
    told: Row = {}
    for column, split in (
        ("rate_usd_per_weight", found.usd),
        ("energy_rate_usd_per_weight", found.energy_usd),
        ("joules_per_weight", found.joules),
        ("gco2e_g_per_weight", found.gco2e),
        ("gco2e_market_g_per_weight", found.market_gco2e),
    ):
        into, out = (None, None) if split is None else split.rates[name]
        known = into is not None or out is not None
        told |= {
            column: (into or _NOTHING) if known else None,
            f"output_{column}": (out or _NOTHING) if known else None,
        }
    weights, seen = found.weights[name], found.seen[name]
    return {
        **told,
        "w_input": weights.uncached_input,
        "w_cached": weights.cached_input,
        "w_output": weights.output,
        "weight": Decimal(seen.input + seen.output),
    }


def _tokens(name: str, happened: Happened, elapsed_ms: int) -> Row:
    seen = total(happened.seen.get(name, {}).values())
    counted = happened.counted(name, elapsed_ms)[0] or EngineTokens()
    into = counted.input
    if into is None and counted.uncached_input is not None and counted.cached_input is not None:
        into = counted.uncached_input + counted.cached_input
    return {
        "input_tokens": seen.input,
        "cached_tokens": seen.cached_input,
        "output_tokens": seen.output,
        "engine_input_tokens": into,
        "engine_output_tokens": counted.output,
    }


def _unused(of: PoolHour, elapsed_ms: int, now: datetime) -> Row:
    """Accelerators that are reserved and nobody took: paid, and idle."""
    span = of.span
    with localcontext(MATH):
        cost = (span.unused_usd * elapsed_ms / HOUR_MS).quantize(MONEY)
        unused_ms = int(span.unused * elapsed_ms)
    zero = dict.fromkeys(("energy_usd", "hosting_usd", "busy_usd", "unavailable_usd", "untracked_usd"), _NOTHING)
    energy = dict.fromkeys(("busy_energy_usd", "unavailable_energy_usd", "untracked_energy_usd"), _NOTHING)
    nothing_ran = ("busy_ms", "unavailable_ms", "unobserved_ms", "busy_accelerator_ms", "unavailable_accelerator_ms")
    return {
        **_found_by(of, span.pool, elapsed_ms, now),
        **dict.fromkeys((*nothing_ran, "unobserved_accelerator_ms", "w_input", "w_cached", "w_output"), 0),
        **zero,
        **energy,
        "owner": span.owner,
        "accelerator_count": int(span.unused),
        "accelerator_ms": unused_ms,
        "unused_accelerator_ms": unused_ms,
        "fixed_usd": cost,
        "idle_usd": cost,
        "weight": _NOTHING,
        "method": "reserved, and no deployment took it",
        "sources": hour_sources.unused(span),
        "declared_from": span.start,
    }


# ---- who carries what no call used


def _carried_by_team(found: Allocation, name: str, happened: Happened) -> dict[str, Decimal]:
    """What the calls of each team carry of an hour; calls of no team cannot carry what others left."""
    weights, rates = found.weights[name], found.usd.rates[name]
    with localcontext(MATH):
        return {
            team: weights.weigh(tokens).input * (rates.input or _NOTHING)
            + weights.weigh(tokens).output * (rates.output or _NOTHING)
            for team, tokens in happened.seen.get(name, {}).items()
            if team is not None
        }


def _shares(span: Span, row: Row, used: Mapping[str, Decimal]) -> list[Row]:
    if span.policy.idle == "show":
        return []
    key = {name: row[name] for name in ("tenant", "deployment", "hour")}
    return [
        {**key, "kind": kind, "team": team, "usd": usd}
        for kind in ("idle", "unavailable")
        if row[f"{kind}_usd"]
        for team, usd in carriers(row[f"{kind}_usd"], span.policy.idle, used=used, owner=row["owner"]).items()
    ]
