"""Declaring deployments: what a declaration changes of those that are there, and whether all of them fit together.

Declarations are taken all or none. One that says what holds already changes nothing, so that a file of them can be
applied again and again. An open-ended one holds until the next of its name, a reserved one until its contract ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, insert, update

from millicent.pricing import catalog
from millicent.pricing.hourly import SECONDS_PER_HOUR, hourly_cost
from millicent.pricing.profiles import PRESETS, Preset, Reserved
from millicent.warehouse import deployments, repricings
from millicent.warehouse.deployments import BadDeploymentsError, Deployment
from millicent.warehouse.record import CHARGE, IDLE

LONGEST: Final = 256
"""Characters of a name."""

FIRST: Final = datetime(2015, 1, 1, tzinfo=UTC)
LAST: Final = datetime(2100, 1, 1, tzinfo=UTC)
MOST_AN_HOUR: Final = 10**12
"""USD, joules or grams that an hour may be."""

Outcome = Literal["added", "replaced", "ended", "unchanged"]
Periods = list[Deployment]
"""Periods of one name, by start; they do not overlap."""

_TEXTS: Final = (
    "name", "model", "accelerator", "engine", "precision", "region", "environment", "pool", "parallelism", "owner",
)  # fmt: skip
_ALIKE: Final = ("accelerator", "accelerator_count", "region", "prefill_count", "decode_count")
_CONTROL: Final = 32


@dataclass(frozen=True, slots=True)
class Declared:
    """A deployment as it is kept, and what the declaration has changed.

    `ended` moved the end of a period that holds, `replaced` took the place of one that began at the same hour.
    """

    deployment: Deployment
    outcome: Outcome


def declare(
    connection: Connection, tenant: str, told: Sequence[Deployment], now: datetime, *, replacing: bool = False,
    dry_run: bool = False,
) -> list[Declared]:  # fmt: skip
    """Keep deployments, all or none; returns what each has become, in the order told.

    Args:
        connection: to the control plane.
        tenant: whose they are.
        told: what is declared.
        now: the present; what begins in this hour or later can be declared again as often as it takes.
        replacing: take the place also of a period that began at the same, earlier hour.
        dry_run: only say what would become of each.

    Raises:
        BadDeploymentsError: naming everything that is wrong with any of them: their hours cannot be costed, periods of
            a name overlap, deployments of a pool or contract are not alike, counters would be counted twice, or a
            closed period would change.
    """
    before: dict[str, Periods] = {}
    for _, one in deployments.stored(connection, tenant):
        before.setdefault(one.name, []).append(one)
    after = {name: list(periods) for name, periods in before.items()}
    problems: dict[str, None] = {}
    declared: dict[int, Declared] = {}
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    for index in sorted(range(len(told)), key=lambda at: told[at].effective_from):
        wrong = [*_texts(told[index]), *_years(told[index]), *uncosted(told[index])]
        if not wrong:
            try:
                one = until_its_contract_ends(told[index])
                periods = after.get(one.name, [])
                after[one.name], declared[index] = _placed(periods, one, None if replacing else this_hour)
            except ValueError as error:
                wrong = [str(error)]
        problems |= dict.fromkeys(f"deployment {told[index].name!r}: {problem}" for problem in wrong)
    changed = {name for name, periods in after.items() if periods != before.get(name)}
    problems |= dict.fromkeys(_clashes(after, changed))
    for name in sorted(changed):
        problems |= dict.fromkeys(_closed(connection, tenant, before.get(name, []), after[name]))
    if problems:
        raise BadDeploymentsError(problems)
    if not dry_run:
        for name in sorted(changed):
            _write(connection, tenant, before.get(name, []), after[name])
    return [declared[index] for index in range(len(told))]


def until_its_contract_ends(one: Deployment) -> Deployment:
    """The same with an end, if it is open-ended and its accelerators are reserved.

    Raises:
        ValueError: it ends after its contract.
    """
    profile = one.cost_profile()
    if not isinstance(profile, Reserved):
        return one
    if one.effective_to is None:
        return replace(one, effective_to=profile.ends)
    if one.effective_from < profile.ends < one.effective_to:
        raise ValueError(
            f"effective_to {one.effective_to.isoformat()} is after contract {one.contract!r} ends: write "
            f"{profile.ends.isoformat()}, and declare how its hours are paid from then on"
        )
    return one


def _placed(periods: Periods, told: Deployment, this_hour: datetime | None) -> tuple[Periods, Declared]:
    """Periods of a name with another declaration; those that begin before `this_hour` are not replaced."""
    start, end = told.effective_from, told.effective_to
    if end is not None and end <= start:
        held = next((one for one in periods if one.effective_to == end and _said(one) == _said(told)), None)
        if held is None:
            raise ValueError(f"it ends at {_text(end)} which is not after {_text(start)}: swap them")
        return periods, Declared(held, "unchanged")
    holding = next((one for one in periods if _holds(one, start)), None)
    following = next((one for one in periods if one.effective_from > start), None)
    if holding is None:
        _fits(told, following)
        return _with(periods, told), Declared(told, "added")
    others = [one for one in periods if one is not holding]
    if _said(holding) == _said(told):
        declared = _continued(holding, told, following)
        return _with(others, declared.deployment), declared
    made = replace(told, effective_to=end or (following.effective_from if following else None))
    if holding.effective_from == start:
        if this_hour is not None and start < this_hour:
            raise ValueError(f"{_overlap(told, holding)}; or replace that one, if it was declared wrongly")
        _fits(made, following)
        return _with(others, made), Declared(made, "replaced")
    if holding.effective_to not in {None, made.effective_to}:
        raise _overlap(told, holding)
    return _with(others, replace(holding, effective_to=start), made), Declared(made, "added")


def _continued(holding: Deployment, told: Deployment, following: Deployment | None) -> Declared:
    """A period that says the same as the one told, perhaps with another end."""
    end, limit = told.effective_to, following.effective_from if following else None
    if end == holding.effective_to or (end is None and holding.effective_to == limit):
        return Declared(holding, "unchanged")
    if end is None:
        raise _overlap(told, holding)
    _fits(told, following)
    return Declared(replace(holding, effective_to=end), "ended")


def _holds(one: Deployment, instant: datetime) -> bool:
    return one.effective_from <= instant and (one.effective_to is None or instant < one.effective_to)


def _with(periods: Iterable[Deployment], *more: Deployment) -> Periods:
    return sorted([*periods, *more], key=lambda one: one.effective_from)


def _fits(told: Deployment, following: Deployment | None) -> None:
    if following and (told.effective_to is None or told.effective_to > following.effective_from):
        raise _overlap(told, following)


def _overlap(told: Deployment, other: Deployment) -> ValueError:
    return ValueError(
        f"its period from {_text(told.effective_from)} to {_text(told.effective_to)} overlaps that from "
        f"{_text(other.effective_from)} to {_text(other.effective_to)}: start after that one, or end before it"
    )


def _text(instant: datetime | None) -> str:
    return "now on" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _said(one: Deployment) -> tuple[Any, ...]:
    """What a declaration says, apart from its period and from how its numbers are written."""
    told = {name: value for name, value in deployments.written(one).items() if name not in _PERIOD}
    typed = (one.cost_profile(), one.electricity(), one.token_weights(), one.contract)
    return (*typed, *(value for name, value in told.items() if name not in {"profile", "power", "weights"}))


_PERIOD: Final = ("effective_from", "effective_to")


# ---- one declaration by itself


def _texts(one: Deployment) -> Iterator[str]:
    for name in _TEXTS:
        value = getattr(one, name)
        if value is not None and not _is_text(value):
            yield f"{name} {value[:40]!r} is not 1 to {LONGEST} characters on one line: correct it, or leave it out"
    for name in deployments.LISTS:
        for value in getattr(one, name):
            if not _is_text(value):
                yield f"{name}: {value[:40]!r} is not 1 to {LONGEST} characters on one line: correct it"
    if one.name in {IDLE, CHARGE}:
        yield f"name {one.name!r} has a meaning of its own in reports: choose another"


def _years(one: Deployment) -> Iterator[str]:
    for name in _PERIOD:
        instant: datetime | None = getattr(one, name)
        if instant is not None and not FIRST <= instant <= LAST:
            yield f"{name} {instant.isoformat()} is not between {FIRST.year} and {LAST.year}: correct the year"


def _is_text(value: str) -> bool:
    return bool(value.strip()) and len(value) <= LONGEST and all(ord(sign) >= _CONTROL for sign in value)


def uncosted(one: Deployment) -> Iterator[str]:
    """Why its hours have no cost, by the catalog in use; nothing where they have."""
    try:
        known = catalog.accelerator(one.accelerator)
        if known.id != one.accelerator:
            yield f"accelerator {one.accelerator!r} is not a catalog id: write {known.id!r}"
        profile, power = one.cost_profile(), one.electricity()
        surveyed = [survey.effective_from for survey in PRESETS.values() if _holds(one, survey.effective_from)]
        for at in (one.effective_from, *(surveyed if isinstance(profile, Preset) else ())):
            for busy in (0, SECONDS_PER_HOUR):
                cost = hourly_cost(profile, known, one.accelerator_count, region=one.region, power=power,
                                   busy_seconds=busy, at=at)  # fmt: skip
                amounts = (cost.total_usd, cost.joules, cost.gco2e_g, cost.market_gco2e_g)
                if any(amount is not None and amount > MOST_AN_HOUR for amount in amounts):
                    yield (
                        f"an hour would be {cost.total_usd:,.0f} USD, {cost.joules or 0:,.0f} J and "
                        f"{cost.gco2e_g or 0:,.0f} gCO2e, which is over {MOST_AN_HOUR:,}: correct its numbers"
                    )
                    return
    except (ValueError, LookupError) as error:
        yield str(error.args[0])
    except ArithmeticError:
        yield "its numbers are too large or too small for an hour to be computed: correct them"


# ---- declarations beside each other


def _clashes(periods: Mapping[str, Periods], changed: set[str]) -> Iterator[str]:
    """What does not fit between deployments of which at least one has changed."""
    every = sorted((one for mine in periods.values() for one in mine), key=_place)
    for one in every:
        if one.name not in changed:
            continue
        for other in every:
            if other.name in changed and _place(other) <= _place(one):
                continue  # each pair once
            if one.contract is not None and one.contract == other.contract:
                yield from _contract_alike(one, other)
            if one.name == other.name or not _meet(one, other):
                continue
            yield from _read_twice(one, other)
            if one.pool is not None and one.pool == other.pool:
                yield from _pool_alike(one, other)
            else:
                yield from _counted_twice(one, other)


def _place(one: Deployment) -> tuple[str, datetime]:
    return one.name, one.effective_from


def _meet(one: Deployment, other: Deployment) -> bool:
    first, second = sorted((one, other), key=lambda each: each.effective_from)
    return first.effective_to is None or second.effective_from < first.effective_to


def _pool_alike(one: Deployment, other: Deployment) -> Iterator[str]:
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in _ALIKE}
    pairs["profile"] = (one.cost_profile(), other.cost_profile())
    pairs["contract"] = (one.contract, other.contract)
    pairs["power"] = (one.electricity(), other.electricity())
    for name, (mine, its) in pairs.items():
        if mine != its:
            shown = (mine, its) if name in _ALIKE else (getattr(one, name), getattr(other, name))
            yield (
                f"deployments {one.name!r} and {other.name!r} share pool {one.pool!r} from "
                f"{_text(max(one.effective_from, other.effective_from))}, with {name} {shown[0]!r} and {shown[1]!r}: a "
                "pool is the same accelerators, so declare all of its deployments alike, together"
            )


def _contract_alike(one: Deployment, other: Deployment) -> Iterator[str]:
    mine, its = one.cost_profile(), other.cost_profile()
    if (mine, one.accelerator) != (its, other.accelerator):
        yield (
            f"deployments {one.name!r} and {other.name!r} are under contract {one.contract!r}, with terms "
            f"{one.accelerator} {one.profile} and {other.accelerator} {other.profile}: a contract has the same terms "
            "for all, so write them alike, or name another contract"
        )


def _counted_twice(one: Deployment, other: Deployment) -> Iterator[str]:
    told = f"deployments {one.name!r} and {other.name!r}"
    if shared := sorted(set(one.gpus) & set(other.gpus)):
        yield (
            f"{told} both have GPU {', '.join(shared)}, and its energy would be counted twice: name it in one, or "
            "declare them as one pool"
        )
    if not one.gpus and not other.gpus and (exporters := sorted(set(one.dcgm) & set(other.dcgm))):
        yield (
            f"{told} both take all GPUs of {', '.join(exporters)}, whose energy would be counted twice: say with gpus "
            "which are whose, or declare them as one pool"
        )


def _read_twice(one: Deployment, other: Deployment) -> Iterator[str]:
    mine, its = ({deployments.url_of(text) for text in each.metrics} for each in (one, other))
    if shared := sorted(mine & its):
        yield (
            f"deployments {one.name!r} and {other.name!r} both read {', '.join(shared)}, whose counters belong to one "
            "engine: name it in one"
        )


# ---- keeping them


def _closed(connection: Connection, tenant: str, before: Periods, after: Periods) -> Iterator[str]:
    for period in repricings.closed(connection, tenant):
        was, becomes = (
            [
                (max(one.effective_from, period.start), min(one.effective_to or period.end, period.end), _said(one))
                for one in periods
                if one.effective_from < period.end and (one.effective_to is None or period.start < one.effective_to)
            ]
            for periods in (before, after)
        )
        if was != becomes:
            name = (after or before)[0].name
            yield (
                f"deployment {name!r}: this would change the period from {period.start:%Y-%m-%d} to "
                f"{period.end:%Y-%m-%d}, which {period.actor} closed: start at {_text(period.end)} or later"
            )


def _write(connection: Connection, tenant: str, before: Periods, after: Periods) -> None:
    old, new = ({one.effective_from: one for one in periods} for periods in (before, after))
    table = deployments.deployments
    for start in old.keys() | new.keys():
        if old.get(start) == new.get(start):
            continue
        name = (old.get(start) or new[start]).name
        here = (table.c.tenant == tenant, table.c.name == name, table.c.effective_from == start)
        if start not in new:
            connection.execute(delete(table).where(*here))
        elif start in old:
            connection.execute(update(table).where(*here).values(**deployments.row(tenant, new[start])))
        else:
            connection.execute(insert(table).values(**deployments.row(tenant, new[start])))
