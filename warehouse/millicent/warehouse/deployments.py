"""Deployments: which engine serves which model on which accelerators, from when to when, and what its hours cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar, get_args, get_type_hints
from urllib.parse import urlsplit

from sqlalchemy import JSON, Column, Connection, Integer, String, Table, select

from millicent.pricing.allocation import Weights
from millicent.pricing.profiles import Owned, Power, Preset, Profile, Rented, Reserved, Spot
from millicent.warehouse.instants import Instant, text_of
from millicent.warehouse.rules import metadata

ROLES: Final = ("prefill", "decode")
HEAVIEST: Final = 10**9
"""The most that a token may weigh."""

LARGEST: Final = 10**12
"""The largest number that a setting may have."""
DECIMALS: Final = 18
LONGEST_TERM: Final = 1200
"""Months of a reservation."""
_DIGITS: Final = 9
_COLUMNS: Final = ("name", "effective_from", "effective_to")
LISTS: Final = ("endpoints", "metrics", "dcgm", "gpus")

deployments: Final = Table(
    "deployments", metadata,
    Column("id", Integer, primary_key=True), Column("tenant", String, nullable=False),
    Column("name", String, nullable=False), Column("effective_from", Instant, nullable=False),
    Column("effective_to", Instant), Column("settings", JSON, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """An engine serving a model on accelerators, from one instant to another.

    `profile` is how its hours are paid, `power` what electricity it draws: settings of
    `millicent.pricing.profiles` and `Power`, numbers and instants as text. Both bounds are on a whole UTC hour.
    `endpoints` are hosts ("10.0.3.7", "llm.internal:8000") whose calls belong to it.

    Attributes:
        pool: Deployments of one pool share the same accelerators.
        prefill_count: How many of the accelerators do prefill only; None where all do both.
        decode_count: How many do decode only.
        parallelism: How the model lies on them, such as "TP8" or "TP4 EP8", as a note.
        owner: The team that idle cost is charged to where the policy says so.
        weights: What a token weighs, in thousandths of an uncached input token, as text: `uncached_input` (1000),
            `cached_input` (100), `output` (4000).
        metrics: URLs of the engine's counters, one a replica; "prefill=URL" and "decode=URL" where those are apart.
        dcgm: URLs of DCGM exporters of its hosts.
        gpus: UUIDs of those of the exporters' GPUs that are its; none are all.

    Raises:
        BadDeploymentsError: naming everything that is wrong with it.
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
    pool: str | None = None
    prefill_count: int | None = None
    decode_count: int | None = None
    parallelism: str | None = None
    owner: str | None = None
    weights: dict[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    dcgm: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [*_bounds(self.effective_from, self.effective_to), *_counts(self), *_urls(self)]
        for read in (self.cost_profile, self.electricity, self.token_weights):
            try:
                read()
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise BadDeploymentsError(problems)

    @property
    def contract(self) -> str | None:
        """The reservation that its hours are taken from; None where there is none."""
        return self.profile.get("contract") if self.profile.get("kind") == "reserved" else None

    def cost_profile(self) -> Profile:
        """How its hours are paid.

        Raises:
            ValueError: the kind or a setting is unknown, or a number is not one.
        """
        settings = dict(self.profile)
        kind = PROFILES.get(settings.pop("kind", ""))
        if kind is None:
            raise ValueError(f"profile kind {self.profile.get('kind')!r} is unknown: write {', '.join(PROFILES)}")
        if kind is Reserved and not settings.pop("contract", "").strip():
            raise ValueError("Reserved lacks contract: name the reservation, the same for all deployments under it")
        made = _made(kind, settings)
        if isinstance(made, Reserved) and made.months > LONGEST_TERM:
            raise ValueError(f"months {made.months} is no term: write at most {LONGEST_TERM}")
        return made

    def electricity(self) -> Power:
        """What electricity it draws.

        Raises:
            ValueError: a setting is unknown, or not a number.
        """
        return _made(Power, self.power)

    def token_weights(self) -> Weights:
        """What its tokens weigh.

        Raises:
            ValueError: a weight is unknown, or not a whole number above 0.
        """
        known = [one.name for one in fields(Weights)]
        for name, told in self.weights.items():
            if name not in known:
                raise ValueError(f"weight {name!r} is unknown: write {', '.join(known)}")
            if not told.isascii() or not told.isdecimal() or not 0 < int(told[:20]) <= HEAVIEST:
                raise ValueError(
                    f"weight {name} {told!r} is not a whole number from 1 to {HEAVIEST:,}: write thousandths of an "
                    "uncached input token, such as 4000"
                )
        return Weights(**{name: int(told) for name, told in self.weights.items()})


PROFILES: Final[dict[str, type[Profile]]] = {
    "owned": Owned, "rented": Rented, "reserved": Reserved, "spot": Spot, "preset": Preset,
}  # fmt: skip
_Made = TypeVar("_Made", bound=Profile | Power)


class BadDeploymentsError(ValueError):
    """Declarations that cannot be taken; `problems` are all that was found, each with value, rule and remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _bounds(start: datetime, end: datetime | None) -> Iterator[str]:
    for instant in (start, end):
        if instant is None:
            continue
        if instant.tzinfo is None:
            yield f"{instant.isoformat()} has no time zone: add Z for UTC or an offset"
        elif instant.astimezone(UTC) != instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0):
            yield (
                f"{instant.isoformat()} is not on a whole hour of UTC: deployments change on the hour, "
                "as their rates do"
            )


def _counts(told: Deployment) -> Iterator[str]:
    prefill, decode = told.prefill_count, told.decode_count
    if told.accelerator_count < 1:
        yield f"accelerator_count {told.accelerator_count} is not a number of accelerators: give 1 or more"
    if (prefill is None) != (decode is None):
        yield (
            f"prefill_count {prefill} and decode_count {decode} do not say how the accelerators are divided: write "
            "both or none"
        )
    elif prefill is None or decode is None:
        return
    elif min(prefill, decode) < 1 or prefill + decode != told.accelerator_count:
        yield (
            f"prefill_count {prefill} and decode_count {decode} are not all of {told.accelerator_count} "
            "accelerators: write counts above 0 that add up to them"
        )


def _urls(told: Deployment) -> Iterator[str]:
    for name, urls in (("metrics", told.metrics), ("dcgm", told.dcgm)):
        for text in urls:
            yield from _url(name, url_of(text) if name == "metrics" else text)
        for url in sorted({url for url in urls if urls.count(url) > 1}):
            yield f"{name} {url!r} is named twice: its counters would be counted twice"
    if told.gpus and not told.dcgm:
        yield f"gpus {', '.join(told.gpus)} are of no exporter: name it with dcgm, or leave them out"


def url_of(metrics: str) -> str:
    """The URL of engine counters, without the role before it."""
    role, mark, rest = metrics.partition("=")
    return rest if mark and role in ROLES else metrics


def _url(name: str, url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        host, _, secret = parts.hostname, parts.port, parts.username or parts.password
    except ValueError:
        host, secret = None, None
    if host is None or parts.scheme not in {"http", "https"}:
        yield f"{name} {url!r} is not the URL of counters: write http://host:8000/metrics"
    elif secret:
        yield f"{name} {url!r} holds a password, which whoever reads deployments would see: let {host} answer without"


_TYPES: Final[Mapping[type, Mapping[str, Any]]] = {kind: get_type_hints(kind) for kind in (*PROFILES.values(), Power)}


def _made(kind: type[_Made], settings: dict[str, str]) -> _Made:
    """`kind` from text, each setting by the type that it declares."""
    types = _TYPES[kind]
    values: dict[str, Any] = {}
    for name, told in settings.items():
        if name not in types or name == "kind":
            known = ", ".join(sorted(types.keys() - {"kind"}))
            raise ValueError(f"{kind.__name__} has no setting {name!r}: write one of {known}")
        values[name] = _typed(name, told, types[name])
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    if lacking := [name for name in needed if name not in values]:
        raise ValueError(f"{kind.__name__} lacks {', '.join(lacking)}: say what the contract says")
    return kind(**values)


def _typed(name: str, told: str, of: Any) -> Any:
    choices = (of, *get_args(of))
    if name == "prices":
        return tuple(_price(text) for text in told.split())
    if Decimal in choices:
        return _number(name, told)
    if datetime in choices:
        return _instant(name, told)
    if bool in choices:
        choices = ("true", "false")
    elif int in choices:
        if not told.isascii() or not told.isdecimal() or len(told) > _DIGITS:
            raise ValueError(f"{name} {told!r} is not a whole number: write digits, such as 12")
        return int(told)
    if told not in choices:
        raise ValueError(f"{name} {told!r} is not one of {', '.join(map(str, get_args(of) or choices))}")
    return told == "true" if of is bool else told


def _price(text: str) -> tuple[datetime, Decimal]:
    since, mark, usd = text.rpartition("=")
    if not mark:
        raise ValueError(f"prices: {text!r} is not instant=price: write 2026-03-01T00:00Z=1.20, with blanks between")
    return _instant("prices", since), _number("prices", usd)


def _number(name: str, told: str) -> Decimal:
    try:
        number = Decimal(told)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ValueError(f"{name} {told[:40]!r} is not a number of 0 or more: write digits, such as 0.08")
    if number > LARGEST or number.as_tuple().exponent < -DECIMALS:  # type: ignore[operator]  # it is finite
        raise ValueError(f"{name} {told[:40]!r} is over {LARGEST:,} or has over {DECIMALS} decimals: correct it")
    return number


def _instant(name: str, told: str) -> datetime:
    """A day's midnight in UTC, or an instant."""
    try:
        day = len(told) == len("2026-03-01")
        found = datetime.fromisoformat(f"{told}T00:00Z" if day else told)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} {told[:40]!r} is no instant with a time zone: write 2026-03-01T00:00Z, or a day")


def stored(connection: Connection, tenant: str | None) -> list[tuple[str, Deployment]]:
    """(tenant, period) by name and start; all tenants when none is named."""
    asked = select(deployments).order_by(deployments.c.tenant, deployments.c.name, deployments.c.effective_from)
    if tenant is not None:
        asked = asked.where(deployments.c.tenant == tenant)
    return [(row["tenant"], _deployment(dict(row))) for row in connection.execute(asked).mappings()]


def row(tenant: str, deployment: Deployment) -> dict[str, Any]:
    """A period as the table keeps it."""
    settings = {name: value for name, value in written(deployment).items() if name not in _COLUMNS}
    bounds = {"effective_from": deployment.effective_from, "effective_to": deployment.effective_to}
    return {"tenant": tenant, "name": deployment.name, **bounds, "settings": settings}


def written(deployment: Deployment) -> dict[str, Any]:
    """A deployment as JSON."""
    told = asdict(deployment)
    told |= {name: list(told[name]) for name in LISTS}
    return told | {name: text_of(told[name]) for name in ("effective_from", "effective_to")}


def _deployment(row: dict[str, Any]) -> Deployment:
    settings = dict(row["settings"])
    settings |= {name: tuple(settings.get(name, ())) for name in LISTS}
    return Deployment(
        name=row["name"],
        effective_from=row["effective_from"],
        effective_to=row["effective_to"],
        **settings,
    )
