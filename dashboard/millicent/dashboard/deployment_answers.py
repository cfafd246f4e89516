"""What the routes of deployments, policies and the catalog answer, described once for FastAPI and the reference."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from millicent.dashboard.price_answers import Answer
from millicent.pricing.allocation import CachedPolicy
from millicent.pricing.idle import IdlePolicy


class Deployment(Answer):
    """An engine serving a model on accelerators, as it is declared."""

    name: str
    model: str
    accelerator: str = Field(description="catalog id")
    accelerator_count: int
    effective_from: datetime
    effective_to: datetime | None = Field(description="not included; none: open")
    engine: str | None
    precision: str | None
    region: str | None
    environment: str | None
    endpoints: list[str] = Field(description="host or host:port whose calls belong to it")
    profile: dict[str, str] = Field(description="how its hours are paid")
    power: dict[str, str] = Field(description="what is declared of its electricity")
    pool: str | None = Field(description="deployments of one pool share the same accelerators")
    prefill_count: int | None
    decode_count: int | None
    parallelism: str | None
    owner: str | None = Field(description="team that idle cost is charged to where the policy says so")
    weights: dict[str, str] = Field(description="thousandths of an uncached input token")
    metrics: list[str] = Field(description="URLs of the engine's counters")
    dcgm: list[str] = Field(description="URLs of DCGM exporters")
    gpus: list[str] = Field(description="UUIDs of the exporters' GPUs that are its; none: all")


class Period(Answer):
    """When a declaration holds."""

    effective_from: datetime
    effective_to: datetime | None = Field(description="not included; none: open")


class Discovered(Answer):
    """Calls to hardware of ours that no declaration covers."""

    deployment: str | None = Field(description="the name that they carry")
    endpoint_host: str | None = Field(description="the host they called, where they carry no name")
    model: str | None
    engine: str | None
    precision: str | None
    accelerator: str | None
    accelerator_count: int | None = Field(description="the most that any of them told")
    region: str | None
    environment: str | None
    calls: int
    tokens: int | None
    first_at: datetime
    last_at: datetime
    declared: list[Period] = Field(description="periods of that name, which do not cover these calls")
    missing: list[str] = Field(description="what has to be found out to declare it")


class Deployments(Answer):
    """What is declared, and what should be."""

    deployments: list[Deployment]
    discovered: list[Discovered] = Field(description="most tokens first")


class Declared(Answer):
    """What a declaration has become."""

    outcome: Literal["added", "replaced", "ended", "unchanged"] = Field(
        description="`replaced`: took the place of one from the same hour; `ended`: the end of one that holds has moved"
    )
    deployment: Deployment


class AllDeclared(Answer):
    """In the order told."""

    deployments: list[Declared]


class Hours(Answer):
    """Hours of a deployment, oldest first."""

    hours: list[dict[str, Any]] = Field(
        description="what each cost and where it went, by column; amounts are text, `sources` its inputs"
    )
    left_off: int = Field(description="how many more there are")


class Line(Answer):
    """One step of a derivation."""

    step: str
    what: str
    value: str
    unit: str
    source: str


class Derivation(Answer):
    """Why an hour costs what it does, line by line."""

    deployment: str
    hour: datetime
    lines: list[Line]


class NewPolicy(BaseModel):
    """A policy to be set."""

    model_config = ConfigDict(extra="forbid")

    idle: IdlePolicy = Field("show", description="who carries idle and unavailable cost")
    cached: CachedPolicy = Field("fraction", description="what a token out of the prefix cache weighs")
    effective_from: AwareDatetime | None = Field(
        None, description="first instant, on a whole UTC hour; this hour if left out"
    )
    note: str = Field("", description="why")


class Policy(Answer):
    """Who carries idle cost and what cached tokens weigh, until the next policy."""

    id: int | None = Field(description="none: built in")
    idle: IdlePolicy
    cached: CachedPolicy
    effective_from: datetime
    note: str
    author: str | None
    created_at: datetime | None


class Policies(Answer):
    """By the hour from which each holds; the first is built in."""

    policies: list[Policy]


class Value(Answer):
    """A value of the catalog, and where it was read."""

    value: str | int | list[str]
    source: str | None
    as_of: str | None
    confidence: str | None
    ours: bool = Field(description="from this installation's extension of the catalog")


class Row(Answer):
    """A row of the catalog."""

    id: str
    name: str
    values: dict[str, Value] = Field(description="by column")
    unknown: list[str] = Field(description="columns that nobody has published a value for")


class Rows(Answer):
    """Rows of one table of the catalog."""

    rows: list[Row]
