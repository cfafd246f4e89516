"""What the price routes answer, described once: FastAPI writes JSON and OpenAPI from it, the reference its pages.

Amounts are text with every digit, never a binary fraction; None is unknown. Unit prices are USD per million tokens, or
per thousand of any other unit, by the price library's keys (`input_mtok`, `web_searches_kcount`).
"""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

State = Literal["waiting", "running", "done", "failed"]


def plain(amount: Decimal) -> str:
    """All digits, without an exponent and without zeros at the end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


Amount = Annotated[Decimal, PlainSerializer(plain, return_type=str)]
UnitPrices = dict[str, Amount]
Entry = Annotated[
    dict[str, Any], Field(description="as it is written in TOML and JSON, with `id`, `author` and `known_from`")
]


class Answer(BaseModel):
    """Base of all: read from objects, closed."""

    model_config = ConfigDict(from_attributes=True, extra="forbid", frozen=True)


class Price(Answer):
    """One dated price list of a model, or of a variant of it."""

    provider: str | None
    model: str
    name: str | None = Field(description="the model's name for people")
    variant: str | None = Field(description="request context it holds for, `service_tier=flex`; none: standard")
    kind: str = Field(description="bundled or override")
    own_entry: int | None = Field(description="id of our entry, where it is ours")
    effective_from: datetime | None = Field(description="none: since the model's first price")
    effective_to: datetime | None = Field(description="not included; none: open")
    hours: str | None = Field(description="time of day, where prices vary over it")
    above_input_tokens: int | None = Field(description="for requests with more input tokens than this")
    prices: UnitPrices
    source: str | None
    price_entry: str | None = Field(description="as calls priced by it say")


class Prices(Answer):
    """A part of the price book."""

    version: str = Field(description="of the price book that new calls are priced by")
    prices: list[Price]
    left_off: int = Field(description="how many more there are")


class Entries(Answer):
    """Our own entries."""

    version: str
    entries: list[Entry]


class Checked(Answer):
    """What was read, as it would be stored."""

    entries: list[Entry]


class UnitChange(Answer):
    """One unit price that entries change, from an instant on."""

    provider: str | None
    model: str
    endpoint_host: str | None
    region: str | None
    service_tier: str | None
    price: str = Field(description="the price's key")
    per: int = Field(description="tokens or units that it is for")
    effective_from: datetime
    list_before: Amount | None
    list_after: Amount | None
    billed_before: Amount | None
    billed_after: Amount | None


class Diff(Answer):
    """What entries would add and change."""

    version: str = Field(description="the price book they are compared with")
    new: list[Entry]
    present: list[Entry] = Field(description="those that are there already")
    changes: list[UnitChange]
    left_off: int = Field(description="changes beyond those told")


class UnpricedModel(Answer):
    """Calls that have no price, or not all of one."""

    provider: str | None
    model: str | None
    endpoint_host: str | None
    price_status: str
    calls: int
    tokens: int | None
    first_at: datetime
    last_at: datetime
    reason: str
    suggestions: list[str] = Field(description="close names that have a price, best first")


class Unpriced(Answer):
    """Most tokens first."""

    models: list[UnpricedModel]


class PastChange(Answer):
    """A past price that an update tells otherwise."""

    provider: str
    model: str
    variant: list[str]
    key: str
    old: Amount | None
    new: Amount | None
    effective_from: datetime | None
    effective_to: datetime | None
    daily_from: time | None
    daily_to: time | None
    above: int | None
    up_to: int | None


class Model(Answer):
    """A model on a price list."""

    provider: str
    model: str


class Pending(Answer):
    """Newly installed price data that waits for a yes, because it changes past prices."""

    version_from: str
    version_to: str
    changes: list[PastChange]
    additions: list[Model]
    effect_from: datetime | None = Field(description="first stored call that may be priced otherwise; none: no call")


class Update(Answer):
    """Whether new price data waits."""

    version: str = Field(description="of the price book that new calls are priced by")
    pending: Pending | None


class Line(Answer):
    """`quantity × unit_price_usd ÷ per = amount_usd`, exact."""

    kind: str
    part: str
    price_key: str
    quantity: int
    unit_price_usd: Amount
    per: int
    amount_usd: Amount
    how: str = Field(description="how the unit price came about, where it is not as published")


class Derivation(Answer):
    """Where the prices of a usage are from."""

    provider: str | None = Field(description="who serves it, by the price data's id")
    price_list: str | None = Field(description="on whose list the model stands; none: prices of our own")
    model: str | None = Field(description="its name there")
    variant: list[str]
    sources: list[str] = Field(description="pages or contracts that say so")
    note: str | None
    effective_from: datetime | None
    effective_to: datetime | None
    daily_from: time | None
    daily_to: time | None
    above_input_tokens: int | None
    override: Entry | None = Field(description="our entry that the list prices are from")
    terms: list[Entry] = Field(description="terms that the billed cost follows")
    fx: list[Entry] = Field(description="exchange rates used")


class Priced(Answer):
    """What a usage costs, and why. Nothing is stored."""

    price_status: str
    price_entry: str | None
    price_version: str
    list_cost_usd: Amount | None
    list_input_usd: Amount | None
    list_cache_read_usd: Amount | None
    list_cache_write_usd: Amount | None
    list_output_usd: Amount | None
    list_units_usd: Amount | None
    billed_cost_usd: Amount | None
    cache_saving_usd: Amount | None
    reason: str | None = Field(description="why it is partial or unpriced, and what to do")
    lines: list[Line] = Field(description="the list cost: `sum(amount_usd) + rounding_usd = list_cost_usd`")
    rounding_usd: Amount
    billed_lines: list[Line] = Field(description="the billed cost, likewise")
    billed_rounding_usd: Amount
    derivation: Derivation


class Difference(Answer):
    """What the calls of a day, a team and a model cost, before and after."""

    day: date
    team: str | None
    model: str | None
    calls: int
    list_usd_before: Amount | None
    list_usd_after: Amount | None
    billed_usd_before: Amount | None
    billed_usd_after: Amount | None
    closed: bool = Field(description="the day keeps its amounts, and the difference would become a charge")


class Differences(Answer):
    """What repricing would change. Nothing is stored."""

    calls: int = Field(description="how many would change")
    differences: list[Difference]


class Day(Answer):
    """One day that a run has been through."""

    day: datetime
    calls: int
    changed: int
    list_usd_before: Amount | None
    list_usd_after: Amount | None
    billed_usd_before: Amount | None
    billed_usd_after: Amount | None
    adjusted: bool = Field(description="the day is closed: the difference became charges")
    done_at: datetime


class Run(Answer):
    """A repricing, or the undoing of one."""

    id: int
    state: State
    actor: str
    start: datetime
    end: datetime
    filters: list[str]
    version: str = Field(description="price book when it was asked for")
    undo_of: int | None
    created_at: datetime
    finished_at: datetime | None
    error: str | None
    days_total: int
    days_done: int
    calls: int
    changed: int
    list_usd_before: Amount | None
    list_usd_after: Amount | None
    billed_usd_before: Amount | None
    billed_usd_after: Amount | None
    days: list[Day] = Field(description="empty in a list of runs")


class Runs(Answer):
    """Newest first."""

    runs: list[Run]


class ClosedPeriod(Answer):
    """Whole UTC days whose amounts never change again."""

    start: datetime
    end: datetime
    closed_at: datetime
    actor: str


class ClosedPeriods(Answer):
    """Oldest first."""

    periods: list[ClosedPeriod]


class Charge(Answer):
    """An amount that belongs to no call."""

    charged_at: datetime
    type: str
    name: str
    entry: int | None
    run: int | None
    period_start: datetime
    period_end: datetime
    provider: str | None
    model: str | None
    team: str | None
    project: str | None
    feature: str | None
    customer: str | None
    environment: str | None
    service: str | None
    deployment: str | None
    list_usd: Amount
    billed_usd: Amount
    hardware_usd: Amount | None = Field(description="own hardware that is charged, of a call in a closed period")
    energy_usd: Amount | None = Field(description="electricity in it")
    idle_usd: Amount | None = Field(description="what it takes off idle")
    provisional: bool
    why: str


class Charges(Answer):
    """Newest first."""

    charges: list[Charge]
