"""Deployments: which engine serves which model on which accelerators, from when to when, and what its hours cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar, get_args, get_type_hints

from sqlalchemy import JSON, Column, Connection, DateTime, Integer, String, Table, insert, or_, select, update

from millicent.pricing import catalog
from millicent.pricing.hardware import hourly_cost
from millicent.pricing.profiles import CostProfile, Owned, Power, Preset, Rented
from millicent.warehouse.rules import metadata

deployments: Final = Table(
    "deployments", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("name", String, nullable=False), Column("effective_from", DateTime, nullable=False),
    Column("effective_to", DateTime), Column("settings", JSON, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An engine serving a model on accelerators, from one instant to another.

    `profile` is how its hours are paid, `power` what electricity it draws: settings of
    `millicent.pricing.hardware.cost_profile` and `Power`, numbers as text. Both bounds are on a whole UTC hour.
    `endpoints` are hosts ("10.0.3.7", "llm.internal:8000") whose calls belong to it.
    """

    name: str
    model: str
    accelerator: str
    accelerator_count: int
    effective_from: datetime
    effective_to: datetime | None = None
    engine: str | None = None
    precision: str | None = None
    region: str | None = None
    environment: str | None = None
    endpoints: tuple[str, ...] = ()
    profile: dict[str, str]
    power: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for instant in (self.effective_from, self.effective_to):
            if instant is not None and _stored(instant) != _stored(instant).replace(minute=0, second=0, microsecond=0):
                raise ValueError(
                    f"{instant.isoformat()} is not on a whole hour of UTC: deployments change on the hour, "
                    "as their rates do"
                )
        known = catalog.accelerator(self.accelerator)
        if known.id != self.accelerator:
            raise ValueError(f"accelerator {self.accelerator!r} is not a catalog id: write {known.id!r}")
        self.cost_profile()
        self.electricity()

    def cost_profile(self) -> CostProfile:
        """How its hours are paid.

        Raises:
            ValueError: the kind or a setting is unknown, or a number is not one.
        """
        settings = dict(self.profile)
        kind = PROFILES.get(settings.pop("kind", ""))
        if kind is None:
            raise ValueError(f"profile kind {self.profile.get('kind')!r} is unknown: write {', '.join(PROFILES)}")
        return _made(kind, settings)

    def electricity(self) -> Power:
        """What electricity it draws.

        Raises:
            ValueError: a setting is unknown, or not a number.
        """
        return _made(Power, self.power)


PROFILES: Final[dict[str, type[CostProfile]]] = {"owned": Owned, "rented": Rented, "preset": Preset}
_Made = TypeVar("_Made", bound=Owned | Rented | Preset | Power)


def _made(kind: type[_Made], settings: dict[str, str]) -> _Made:
    """`kind` from text, each setting by the type that it declares."""
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, told in settings.items():
        if name not in types or name == "kind":
            known = ", ".join(sorted(types.keys() - {"kind"}))
            raise ValueError(f"{kind.__name__} has no setting {name!r}: write one of {known}")
        values[name] = _typed(name, told, types[name])
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{kind.__name__} lacks a setting: {error}") from error


def _typed(name: str, told: str, of: Any) -> Any:
    choices = get_args(of)
    if Decimal in (of, *choices):
        try:
            number = Decimal(told)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite() or number < 0:
            raise ValueError(f"{name} {told!r} is not a number of 0 or more: write digits, such as 0.08")
        return number
    if of is bool:
        choices = ("true", "false")
    if told not in choices:
        raise ValueError(f"{name} {told!r} is not one of {', '.join(map(str, choices))}")
    return told == "true" if of is bool else told


def store(connection: Connection, tenant: str, deployment: Deployment) -> dict[str, Any]:
    """Add a period; an open one of the same name ends where it starts. Returns what is kept of it, as JSON.

    Raises:
        ValueError: the period is empty, overlaps another of the same name or starts before the open one that it would
            end; or its hours cannot be costed, because a number is neither declared nor in the catalog.
        LookupError: the catalog has no such region.
    """
    start = _stored(deployment.effective_from)
    end = _stored(deployment.effective_to) if deployment.effective_to else None
    if end is not None and end <= start:
        raise ValueError(f"deployment {deployment.name!r} ends at {end} which is not after {start}")
    hourly_cost(
        deployment.cost_profile(), deployment.accelerator, deployment.accelerator_count,
        region=deployment.region, power=deployment.electricity(),
    )  # fmt: skip
    mine = (deployments.c.tenant == tenant) & (deployments.c.name == deployment.name)
    since, until = deployments.c.effective_from, deployments.c.effective_to
    clash = or_(until > start, until.is_(None) & (since >= start))
    if end is not None:
        clash &= since < end
    other = connection.execute(select(since, until).where(mine, clash).order_by(since)).first()
    if other is not None:
        raise ValueError(
            f"deployment {deployment.name!r} from {start} to {end or 'now on'} overlaps its period "
            f"from {other[0]} to {other[1] or 'now on'}: start after that one, or end before it"
        )
    connection.execute(update(deployments).where(mine, until.is_(None), since < start).values(effective_to=start))
    settings = _settings(deployment)
    row = {"tenant": tenant, "name": deployment.name, "effective_from": start, "effective_to": end,
           "settings": settings}  # fmt: skip
    connection.execute(insert(deployments).values(row))
    return settings


def stored(connection: Connection, tenant: str | None) -> list[tuple[str, Deployment]]:
    """(tenant, period) by name and start; all tenants when none is named."""
    asked = select(deployments).order_by(deployments.c.tenant, deployments.c.name, deployments.c.effective_from)
    if tenant is not None:
        asked = asked.where(deployments.c.tenant == tenant)
    return [(row["tenant"], _deployment(dict(row))) for row in connection.execute(asked).mappings()]


def _stored(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone: add Z for UTC or an offset")
    return instant.astimezone(UTC).replace(tzinfo=None)


def _aware(instant: datetime | None) -> Any:
    return instant.replace(tzinfo=UTC) if instant else None


def _settings(deployment: Deployment) -> dict[str, Any]:
    settings = asdict(deployment)
    for name in ("name", "effective_from", "effective_to"):
        del settings[name]
    return settings | {"endpoints": list(deployment.endpoints)}


def _deployment(row: dict[str, Any]) -> Deployment:
    settings = dict(row["settings"])
    settings["endpoints"] = tuple(settings["endpoints"])
    return Deployment(
        name=row["name"],
        effective_from=_aware(row["effective_from"]),
        effective_to=_aware(row["effective_to"]),
        **settings,
    )
