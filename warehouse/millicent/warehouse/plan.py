"""Which accelerators a tenant pays for, hour by hour, as far as it is declared: pools, reservations, policies.

`spans` cuts time where anything declared changes. A span tells everything about its hours that does not depend on what
ran in them, and carries a digest of it: an hour that was computed from the same digest needs no second look until
something happens in it. Moving the end of a span, or what comes after it, leaves its digest as it is.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any, Final, NamedTuple

from millicent.pricing.allocation import Weights
from millicent.pricing.hourly import hourly_cost
from millicent.pricing.idle import carriers
from millicent.pricing.profiles import MATH, MONEY, Power, Profile, Reserved, Spot
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.policies import BUILT_IN, Policy

HOUR: Final = timedelta(hours=1)
_NOTHING: Final = Decimal(0)
_OF_MEMBERS: Final = (
    "name", "model", "engine", "precision", "accelerator", "accelerator_count", "region", "environment", "profile",
    "power", "pool", "prefill_count", "decode_count", "owner", "weights",
)  # fmt: skip
"""What of a deployment its hours depend on."""


class Overage(NamedTuple):
    """A reservation that more runs under than it commits to.

    Attributes:
        usd_per_hour: How much dearer than its price an accelerator-hour beyond the commitment is.
        left: Accelerator-hours of the commitment that are left: in each hour, or over the whole span.
        hourly: Whether they are left in each hour.
        running: Accelerators under it, by pool.
    """

    usd_per_hour: Decimal
    left: Decimal
    hourly: bool
    running: tuple[tuple[str, int], ...]

    def of_hour(self, pool: str, hours_before: int, elapsed_hours: Decimal) -> Decimal:
        """A pool's part of the surcharge in the elapsed part of an hour, so many hours after the span began."""
        in_use = sum(count for _, count in self.running)
        with localcontext(MATH):
            before = _NOTHING if self.hourly else Decimal(in_use * hours_before)
            left = self.left * elapsed_hours if self.hourly else self.left
            beyond = max(_NOTHING, before + in_use * elapsed_hours - max(left, before))
            surcharge = (beyond * self.usd_per_hour).quantize(MONEY)
        return carriers(surcharge, "spread by use", used=dict(self.running))[pool]


class Paid(NamedTuple):
    """What the accelerators of a pool cost and draw, and what tokens weigh, by deployment."""

    profile: Profile
    power: Power
    weights: Mapping[str, Weights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Hours `[start, end)` of a pool of accelerators in which nothing that is declared changes.

    Attributes:
        tenant: Whose they are.
        pool: The pool's name, its only deployment's where it has none, or the reservation's where nobody took them.
        start: First instant, on a whole UTC hour.
        end: First instant after it.
        members: The deployments on it, by name; none where accelerators are reserved and nobody took them.
        policy: Who carries idle cost, and what cached tokens weigh.
        contract: The reservation that pays for them.
        overage: What a reservation costs beyond its commitment; None where that never is.
        unused: Accelerator-hours of each hour that are reserved and nobody took.
        unused_usd: What such an hour costs.
        paid: How its hours are paid, powered and weighed; None where it has no members.
        owner: The team that answers for unused ones: that of all deployments under the reservation, if it is one.
        digest: Of all this but the end, and of the numbers of the catalog that it is costed by.
    """

    tenant: str
    pool: str
    start: datetime
    end: datetime
    members: tuple[Deployment, ...]
    policy: Policy
    contract: str | None = None
    overage: Overage | None = None
    unused: Decimal = _NOTHING
    unused_usd: Decimal = _NOTHING
    owner: str | None = None
    paid: Paid | None = None
    digest: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Each of its hours has a row under each of these names."""
        return tuple(one.name for one in self.members) or (self.pool,)

    def surcharge_usd(self, hour: datetime, elapsed_hours: Decimal) -> Decimal:
        """What an hour costs more because the reservation is used up."""
        if self.overage is None:
            return _NOTHING
        return self.overage.of_hour(_key(self.members[0]), (hour - self.start) // HOUR, elapsed_hours)


class Plan:
    """Spans by the deployments that have rows in them."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
        for span in sorted(spans, key=lambda one: one.start):
            for name in span.names:
                self.spans[span.tenant, name].append(span)

    def at(self, tenant: str, name: str, hour: datetime) -> Span | None:
        """The span that gives a name its row in an hour; None where nothing of that name is declared then."""
        mine = self.spans.get((tenant, name), [])
        found = bisect_right(mine, hour, key=lambda span: span.start)
        return mine[found - 1] if found and hour < mine[found - 1].end else None


def spans(
    declared: Iterable[tuple[str, Deployment]], policies: Iterable[tuple[str, Policy]], until: datetime
) -> Iterator[Span]:
    """What is declared of every tenant's accelerators before `until`.

    Hours that cannot be costed have no span: those beyond the term of a reservation, before the first spot price, or
    with a number that neither the declaration nor the catalog has. What they cost is unknown.

    Args:
        declared: (tenant, deployment period).
        policies: (tenant, policy), by the hour from which each holds.
        until: Spans end there at the latest; whole months before it are settled where a reservation commits by month.
    """
    by_tenant: dict[str, list[Deployment]] = defaultdict(list)
    for tenant, one in declared:
        by_tenant[tenant].append(one)
    told = list(policies)
    for tenant, mine in sorted(by_tenant.items()):
        rules = [BUILT_IN, *(policy for whose, policy in told if whose == tenant)]
        for span in _of_tenant(tenant, mine, rules, until):
            digest = _digest(span)
            if digest is not None:
                yield replace(span, digest=digest)


class _Use(NamedTuple):
    """From when to when which accelerators run under a reservation, and what is left of its commitment.

    That is accelerators, or of a commitment by month the accelerator-hours left at `start`; where those are used up
    within it, they are in its first hour.
    """

    start: datetime
    end: datetime
    running: tuple[tuple[str, int], ...]
    left: Decimal

    @property
    def accelerators(self) -> int:
        return sum(count for _, count in self.running)

    @property
    def beyond(self) -> bool:
        """Whether more runs than is committed."""
        return self.accelerators > self.left


def _of_tenant(tenant: str, declared: Sequence[Deployment], rules: Sequence[Policy], until: datetime) -> Iterator[Span]:
    periods = {index: _period(one, until) for index, one in enumerate(declared)}
    live = [(declared[index], *period) for index, period in periods.items() if period[0] < period[1]]
    pools: dict[str, list[tuple[Deployment, datetime, datetime]]] = defaultdict(list)
    contracts: dict[str, list[tuple[Deployment, datetime, datetime]]] = defaultdict(list)
    for one, start, end in live:
        pools[_key(one)].append((one, start, end))
        if one.contract is not None:
            contracts[one.contract].append((one, start, end))
    uses = {name: list(_uses(periods, until)) for name, periods in contracts.items()}
    for periods_of_pool in pools.values():
        yield from _merged(_of_pool(tenant, periods_of_pool, rules, uses))
    names = {one.name for one in declared}
    for name, used in uses.items():
        own_name = f"{name}, unused" if name in names else name
        under = [one for one, *_ in contracts[name]]
        for span in _merged(_unused(tenant, name, under, used, rules, until)):
            yield replace(span, pool=own_name)


def _of_pool(
    tenant: str,
    periods: Sequence[tuple[Deployment, datetime, datetime]],
    rules: Sequence[Policy],
    uses: Mapping[str, list[_Use]],
) -> Iterator[Span]:
    contracts = {one.contract for one, *_ in periods if one.contract is not None}
    dearer = [use for name in sorted(contracts) for use in uses[name] if use.beyond]
    bounds = {bound for _, *both in periods for bound in both}
    first, last = min(bounds), max(bounds)
    bounds |= {bound for use in dearer for bound in (use.start, use.end) if first < bound < last}
    for start, end in _cut(bounds, rules):
        members = sorted((one for one, since, to in periods if since <= start < to), key=lambda one: one.name)
        if members:
            one = members[0]
            over = [use for use in uses.get(one.contract or "", ()) if use.beyond and use.start <= start < use.end]
            yield Span(
                tenant=tenant, pool=one.pool or one.name, start=start, end=end, members=tuple(members),
                policy=_rule(rules, start), contract=one.contract,
                overage=_overage(_terms(one), over[0], start) if over else None,
                paid=Paid(one.cost_profile(), one.electricity(), {each.name: each.token_weights() for each in members}),
            )  # fmt: skip


def _overage(terms: Reserved, use: _Use, start: datetime) -> Overage | None:
    price, over = terms.effective_usd_per_hour, terms.overage_usd_per_hour
    if over is None or over == price:
        return None
    hourly = terms.hours_per_month is None
    before = 0 if hourly else use.accelerators * ((start - use.start) // HOUR)
    return Overage(over - price, max(_NOTHING, use.left - before), hourly, use.running)


def _unused(
    tenant: str, name: str, under: Sequence[Deployment], used: Sequence[_Use], rules: Sequence[Policy], until: datetime
) -> Iterator[Span]:
    """Hours of a reservation that nobody took: each on its own, or at the end of the month that they were for."""
    terms = _terms(under[0])
    owners = {one.owner for one in under}
    owner = owners.pop() if len(owners) == 1 else None
    price = terms.effective_usd_per_hour

    def span(start: datetime, end: datetime, hours: Decimal) -> Span:
        with localcontext(MATH):
            cost = (hours * price).quantize(MONEY)
        return Span(
            tenant=tenant, pool=name, start=start, end=end, members=(), policy=_rule(rules, start), contract=name,
            unused=hours, unused_usd=cost, owner=owner,
        )  # fmt: skip

    if terms.hours_per_month is None:
        for use in used:
            idle = use.left - use.accelerators
            if idle > 0:
                yield from (span(start, end, idle) for start, end in _cut({use.start, use.end}, rules))
        return
    months: dict[datetime, int] = defaultdict(int)
    for use in used:
        months[_month(use.start)] += use.accelerators * ((use.end - use.start) // HOUR)
    for month, hours in months.items():
        after = _next_month(month)
        if after <= until and hours < terms.hours_per_month:
            yield span(after - HOUR, after, terms.hours_per_month - hours)


def _uses(periods: Sequence[tuple[Deployment, datetime, datetime]], until: datetime) -> Iterator[_Use]:
    """How a reservation is used, from its first deployment on to the end of its term."""
    terms = _terms(periods[0][0])
    first, last = min(start for _, start, _ in periods), min(terms.ends, _whole(until))
    bounds = {bound for _, *both in periods for bound in both} | {first, last}
    month = _next_month(_month(first))
    while terms.hours_per_month is not None and month < last:
        bounds.add(month)
        month = _next_month(month)
    left = _NOTHING
    for start, end in pairwise(sorted(bounds)):
        counts = {_key(one): one.accelerator_count for one, since, to in periods if since <= start < to}
        use = _Use(start, end, tuple(sorted(counts.items())), Decimal(terms.accelerators or 0))
        if terms.hours_per_month is None:
            yield use
            continue
        if start == first or start == _month(start):
            left = terms.hours_per_month
        use, hours = use._replace(left=left), (end - start) // HOUR
        left -= use.accelerators * hours
        if left < 0 and not use.beyond:
            within = int(use.left // use.accelerators)
            at = start + within * HOUR
            yield use._replace(end=at)
            use = use._replace(start=at, left=use.left - within * use.accelerators)
        left = max(_NOTHING, left)
        yield use


def _period(one: Deployment, until: datetime) -> tuple[datetime, datetime]:
    """From when to when the hours of a deployment can be costed."""
    profile, last = one.cost_profile(), _whole(until)
    start, end = one.effective_from, min(one.effective_to or last, last)
    if isinstance(profile, Reserved):
        start, end = max(start, profile.starts), min(end, profile.ends)
    if isinstance(profile, Spot):
        start = max(start, _whole(profile.prices[0][0]))
    return start.astimezone(UTC), end.astimezone(UTC)


def _merged(cuts: Iterable[Span]) -> Iterator[Span]:
    """Spans without cuts at which nothing changes."""
    last: Span | None = None
    for span in cuts:
        steady = span.overage is None or span.overage.hourly
        goes_on = last is not None and steady and last.end == span.start
        if last is not None and goes_on and replace(last, end=span.end) == replace(span, start=last.start):
            last = replace(last, end=span.end)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _cut(bounds: Iterable[datetime], rules: Sequence[Policy]) -> Iterator[tuple[datetime, datetime]]:
    """The time between the first and the last bound, cut at each of them and where another policy begins."""
    inside = sorted(bounds)
    if inside:
        changes = (rule.effective_from.astimezone(UTC) for rule in rules)
        yield from pairwise(sorted({*inside, *(at for at in changes if inside[0] < at < inside[-1])}))


def _rule(rules: Sequence[Policy], at: datetime) -> Policy:
    return rules[bisect_right(rules, at, key=lambda rule: rule.effective_from) - 1]


def _digest(span: Span) -> str | None:
    """Of everything that its hours depend on; None where they cannot be costed."""
    told: dict[str, Any] = {
        "start": span.start.isoformat(), "pool": span.pool, "contract": span.contract, "owner": span.owner,
        "members": [{name: getattr(one, name) for name in _OF_MEMBERS} for one in span.members],
        "since": [one.effective_from.isoformat() for one in span.members],
        "policy": [span.policy.id, span.policy.idle, span.policy.cached],
        "overage": span.overage, "unused": [span.unused, span.unused_usd],
    }  # fmt: skip
    if span.paid is not None:
        one = span.members[0]
        try:
            cost = hourly_cost(
                span.paid.profile, one.accelerator, one.accelerator_count, region=one.region, power=span.paid.power,
                measured_joules=Decimal(1), at=span.start,
            )  # fmt: skip
        except (LookupError, ValueError):
            return None
        told["inputs"] = [(i.name, i.value, i.unit, i.source) for i in cost.inputs]
    return hashlib.sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _key(one: Deployment) -> str:
    """What tells a pool from others, and from a deployment of the same name."""
    return f"deployment {one.name}" if one.pool is None else f"pool {one.pool}"


def _terms(one: Deployment) -> Reserved:
    profile = one.cost_profile()
    if not isinstance(profile, Reserved):
        raise TypeError(f"{one.name!r} is not under a reservation")
    return profile


def _whole(instant: datetime) -> datetime:
    """The whole UTC hour that an instant is on or before."""
    return -(-(instant.astimezone(UTC) - _EPOCH) // HOUR) * HOUR + _EPOCH


def _month(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(month: datetime) -> datetime:
    return (month + timedelta(days=32)).replace(day=1)


_EPOCH: Final = datetime.fromtimestamp(0, UTC)
