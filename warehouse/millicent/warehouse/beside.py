"""Amounts that no call carries: what of own accelerators was idle, unavailable or untracked, and charges.

Each part of an answer is told as a value: which rows, what they read in every dimension, and what they add to which
sum. `query` puts them beside the calls.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from sqlalchemy import ColumnElement, FromClause, and_, case, cast, func, literal, literal_column, null, or_, select
from sqlalchemy.types import BigInteger, Boolean, Numeric, String, UserDefinedType

from millicent.warehouse.cuts import SLICES
from millicent.warehouse.record import CHARGE, COST_TYPE, DETAILS, DIMENSIONS, IDLE
from millicent.warehouse.tables import (
    CHARGED_TO,
    EXACT,
    OF_DEPLOYMENTS,
    calls,
    charges,
    deployment_hours,
    idle_shares,
    without_zone,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from millicent.warehouse.cuts import Cuts
    from millicent.warehouse.query import Basis, Period

HOUR: Final = timedelta(hours=1)
MS_PER_HOUR: Final = 3_600_000
MS_PER_SECOND: Final = 1000
NOTHING: Final[ColumnElement[Any]] = literal_column("0")
Kind = Literal["idle", "unavailable", "untracked"]
"""What of own accelerators no call carries: nothing ran, nothing could run, or nobody saw what ran."""
SHARED: Final[tuple[Kind, ...]] = ("idle", "unavailable")
"""What a policy may have teams carry."""
_ENERGY: Final = {
    "energy_usd": "energy_cost_usd",
    "joules": "energy_joules",
    "gco2e_g": "gco2e_g",
    "gco2e_market_g": "gco2e_market_g",
}
"""Amounts of an hour that follow the energy drawn, and the measures that sum them."""


class Part(NamedTuple):
    """Rows of an answer that are no calls.

    Attributes:
        source: where they are read from.
        where: which of them.
        time: their instant, or the hour that they are of.
        columns: what they read in every dimension that can be asked.
        amounts: what they add to sums; any other sum is unknown.
    """

    source: FromClause
    where: list[ColumnElement[bool]]
    time: ColumnElement[Any]
    columns: dict[str, ColumnElement[Any]]
    amounts: dict[str, ColumnElement[Any]]


class _Huge(UserDefinedType[int]):
    def get_col_spec(self, **_: object) -> str:
        return "HUGEINT"


def parts(tenant: str, period: Period, cuts: Cuts, basis: Basis, wanted: Collection[str]) -> list[Part]:
    """Everything that stands beside calls in an answer, with what it adds to the sums that are wanted.

    Sources are joined with `SLICES`, those of `cuts`, where there are any.
    """
    asked = _Asked(tenant, period, cuts, basis, wanted)
    return [*(_of_hours(kind, asked) for kind in get_args(Kind)), _of_shares(asked), _of_charges(asked)]


def share(amount: ColumnElement[Any], part: ColumnElement[Any] | int, whole: ColumnElement[Any] | int) -> Any:
    """`amount` × `part` ÷ `whole`, cut at 12 decimals; in integers, because the database divides in floating point."""
    pico = cast(func.trunc(cast(amount, Numeric(38, 12)) * literal_column("1000000000000")), _Huge())
    return cast((pico * part).op("//")(whole), Numeric(26, 0)) * literal_column("0.000000000001")


class _Asked(NamedTuple):
    """What is asked of which deployment-hours."""

    tenant: str
    period: Period
    cuts: Cuts
    basis: Basis
    wanted: Collection[str]

    def inside(self, hours: FromClause) -> list[ColumnElement[bool]]:
        """Hours of the tenant that are in the period, at least in part."""
        begun, ended = without_zone(self.period.start) - HOUR, without_zone(self.period.end)
        return [hours.c.tenant == self.tenant, hours.c.hour > begun, hours.c.hour < ended]

    def sliced(self, source: FromClause) -> FromClause:
        """Deployment-hours, each as often as there are slices of it."""
        if not self.cuts.slices:
            return source
        return source.join(SLICES, SLICES.c.hour == deployment_hours.c.hour, isouter=not self.cuts.covering)

    def within(self, amount: ColumnElement[Any], *, whole: bool = False) -> ColumnElement[Any]:
        """An hour's `amount`, or what of it accrued in the slice, by time; `whole` where it is a number of things.

        What has accrued by an instant is cut at 12 decimals, so slices that follow each other add up to the amount.
        """
        kind = BigInteger() if whole else EXACT
        if not self.cuts.partial:
            return cast(amount, kind)
        c = SLICES.c
        until = [_accrued(amount, at) for at in (c.until, c.since)]
        end, start = (cast(func.trunc(one), kind) for one in until) if whole else until
        return case((c.whole.is_(False), end - start), else_=cast(amount, kind))


def _of_hours(kind: Kind, asked: _Asked) -> Part:
    """What of an hour no call carries and no team does; with `idle` what belongs to the hour itself."""
    c = deployment_hours.c
    source: FromClause = deployment_hours
    usd: ColumnElement[Any] = c[f"{kind}_usd"]
    cost = _cost(kind, asked)
    if kind in SHARED and cost:
        taken = _taken(kind, asked)
        source = deployment_hours.outerjoin(taken, and_(taken.c.deployment == c.deployment, taken.c.hour == c.hour))
        usd = usd - func.coalesce(taken.c.usd, NOTHING)
    where = asked.inside(deployment_hours)
    if kind != "idle":
        where.append(or_(c[f"{kind}_usd"] != NOTHING, c[f"{kind}_joules"] != NOTHING))
    amounts = dict.fromkeys(cost, asked.within(usd))
    amounts |= {to: asked.within(_energy(kind, name)) for name, to in _ENERGY.items() if to in asked.wanted}
    if kind == "idle":
        amounts |= _of_the_hour(asked)
    return Part(asked.sliced(source), where, c.hour, _tags(literal(kind, String())), amounts)


def _of_shares(asked: _Asked) -> Part:
    """What teams carry of it."""
    c, hours = idle_shares.c, deployment_hours.c
    same_hour = and_(hours.tenant == c.tenant, hours.deployment == c.deployment, hours.hour == c.hour)
    where = [*asked.inside(idle_shares), c.kind.in_(SHARED), c.team.is_not(None)]
    amount = asked.within(c.usd)
    amounts: dict[str, ColumnElement[Any]] = {}
    for kind in SHARED:
        amounts |= dict.fromkeys(_cost(kind, asked), amount)
        amounts[f"{kind}_cost_usd"] = case((c.kind == kind, amount))
    columns = _tags(c.kind) | {"team": c.team}
    source = asked.sliced(idle_shares.join(deployment_hours, same_hour))
    return Part(source, where, hours.hour, columns, amounts)


def _cost(kind: Kind, asked: _Asked) -> list[str]:
    """Sums that are wanted and that the cost of unused hardware is a part of."""
    measures = (f"{kind}_cost_usd", "capacity_cost_usd", *(["spend_usd"] if asked.basis == "effective" else []))
    return [name for name in measures if name in asked.wanted]


def _of_charges(asked: _Asked) -> Part:
    """What belongs to no call: adjustments of closed periods, fees, commitments, discounts by volume, credits."""
    c = charges.c
    adjustment = c.type == "adjustment"
    columns = _beside_calls(CHARGE)
    columns |= {name: case((adjustment, c[name]), else_=func.coalesce(c[name], CHARGE)) for name in CHARGED_TO}
    columns[COST_TYPE] = case((adjustment, "adjustment"), else_="charge")
    own: dict[Basis, tuple[ColumnElement[Any], ...]] = {
        "effective": (c.hardware_usd, c.idle_usd), "usage": (c.hardware_usd,), "marginal": (c.energy_usd,),
    }  # fmt: skip
    amount: ColumnElement[Any] = cast(c.list_usd if asked.basis == "list" else c.billed_usd, EXACT)
    for one in own.get(asked.basis, ()):
        amount += func.coalesce(one, NOTHING)
    amounts: dict[str, ColumnElement[Any]] = {
        "charges_usd": amount,
        "spend_usd": amount,
        "unattributed_spend_usd": case((columns["team"].is_(None), amount), else_=NOTHING),
    }
    start, end = without_zone(asked.period.start), without_zone(asked.period.end)
    where = [c.tenant == asked.tenant, c.charged_at >= start, c.charged_at < end]
    source: FromClause = charges
    if asked.cuts.covering:
        s, hour = SLICES.c, func.date_trunc(literal_column("'hour'"), c.charged_at)
        source = charges.join(SLICES, and_(s.hour == hour, s.start <= c.charged_at, c.charged_at < s.stop))
    return Part(source, where, c.charged_at, columns, amounts)


def _energy(kind: Kind, name: str) -> ColumnElement[Any]:
    """Energy, its cost or its carbon that went to `kind`; all that is not known to be something else is idle."""
    c = deployment_hours.c
    if kind != "idle":
        return c[f"{kind}_{name}"]
    busy: list[ColumnElement[Any]] = [c[f"busy_{name}"]]
    if name == "energy_usd":
        busy.append(cast(c.weight * c.energy_rate_usd_per_weight, EXACT))
    known = [
        func.coalesce(*busy, NOTHING),
        *(func.coalesce(c[f"{of}_{name}"], NOTHING) for of in ("unavailable", "untracked")),
    ]
    amount: ColumnElement[Any] = cast(c[name], EXACT)
    for part in known:
        amount = amount - part
    return amount


def _of_the_hour(asked: _Asked) -> dict[str, ColumnElement[Any]]:
    """Facts of a deployment-hour that nothing splits, as far as they are wanted."""
    c = deployment_hours.c
    paid, unused = c.accelerator_ms, func.coalesce(c.unused_accelerator_ms, 0)
    busy = func.coalesce(c.busy_accelerator_ms, c.busy_ms * c.accelerator_count)
    serving = paid - unused - func.coalesce(c.unavailable_accelerator_ms, 0)
    times = {
        "accelerator_hours": paid,
        "allocated_accelerator_hours": paid - unused,
        "serving_accelerator_hours": serving,
        "busy_accelerator_hours": busy,
        "unobserved_accelerator_hours": func.coalesce(c.unobserved_accelerator_ms, 0),
        "busy_accelerator_seconds": busy,
    }
    amounts = {
        "fixed_cost_usd": c.fixed_usd,
        "hosting_cost_usd": c.hosting_usd,
        "measured_energy_joules": case(
            (c.energy_source == "measured", cast(c.joules, EXACT)), else_=c.joules * NOTHING
        ),
    }
    engine = ((c.engine_input_tokens, c.input_tokens), (c.engine_output_tokens, c.output_tokens))
    tokens = {
        "engine_tokens": _both(*(counted for counted, _ in engine)),
        "metered_tokens": _both(*(case((counted.is_not(None), seen)) for counted, seen in engine)),
    }
    per = {name: MS_PER_SECOND if name.endswith("_seconds") else MS_PER_HOUR for name in times}
    return {
        **{name: asked.within(share(ms, 1, per[name])) for name, ms in times.items() if name in asked.wanted},
        **{name: asked.within(amount) for name, amount in amounts.items() if name in asked.wanted},
        **{name: asked.within(amount, whole=True) for name, amount in tokens.items() if name in asked.wanted},
    }


def _both(one: ColumnElement[Any], other: ColumnElement[Any]) -> ColumnElement[Any]:
    """Their sum, or what of it is known."""
    return func.coalesce(one + other, one, other)


def _taken(kind: Kind, asked: _Asked) -> Any:
    """What teams carry of each deployment-hour, all together."""
    c = idle_shares.c
    by = (c.deployment, c.hour)
    where = (*asked.inside(idle_shares), c.kind == kind, c.team.is_not(None))
    return select(*by, func.sum(c.usd).label("usd")).where(*where).group_by(*by).subquery(f"taken_{kind}")


def _tags(kind: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    columns = _beside_calls(IDLE) | {name: deployment_hours.c[name] for name in OF_DEPLOYMENTS}
    return columns | {COST_TYPE: kind, "billing": literal("self_hosted", String())}


def _beside_calls(value: str) -> dict[str, ColumnElement[Any]]:
    """`value` in every dimension of calls that is text."""
    return {
        name: cast(null(), Boolean) if isinstance(calls.c[name].type, Boolean) else literal(value, String())
        for name in (*DIMENSIONS, *DETAILS)
    }


def _accrued(amount: ColumnElement[Any], passed: ColumnElement[Any]) -> ColumnElement[Any]:
    """What of an hour's `amount` has accrued after so many milliseconds of it."""
    elapsed = deployment_hours.c.elapsed_ms
    return case((passed >= elapsed, cast(amount, EXACT)), else_=cast(share(amount, passed, elapsed), EXACT))
