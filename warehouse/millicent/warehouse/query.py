"""One question, one value, one way to SQL. Nothing else in the product sums facts.

`run(engine, tenant, query)` answers a `Query` from the hourly rollup where it can, from raw calls where it must
(a detail dimension, or bounds that are not on a UTC hour), and never without a tenant. Own hardware joins in by
deployment-hour: a call's share is its weighted tokens times the hour's rates, and what no call carries is `idle`,
`unavailable` or `untracked`, rows of their own whose caller dimensions read `__idle__`, but for the team where a policy
says who carries them. Charges belong to no call either: they count at the beginning of the hour that they are charged
in, and read `__charge__` in what they are not told of.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import polars as pl
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    case,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    union_all,
)  # fmt: skip
from sqlalchemy.types import BigInteger, Boolean, DateTime, Numeric

from millicent.warehouse import beside
from millicent.warehouse.engine import Engine
from millicent.warehouse.metrics import DICTIONARY, WHOLE
from millicent.warehouse.record import COST_TYPE, DETAILS, DIMENSIONS
from millicent.warehouse.sums import of_calls
from millicent.warehouse.tables import EXACT, OF_DEPLOYMENTS, calls, deployment_hours, usage_hourly, without_zone
from millicent.warehouse.workspace import zone

Basis = Literal["list", "billed", "effective", "usage", "marginal"]
Grain = Literal["hour", "day", "week", "month"]

ASKABLE: Final = (*DIMENSIONS, *DETAILS, COST_TYPE)
YES_OR_NO: Final = tuple(name for name in ASKABLE if name in calls.c and isinstance(calls.c[name].type, Boolean))
MAX_ROWS: Final = 100_000
JOULES_PER_WH: Final = 3600
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class BadQuery(ValueError):  # noqa: N818 - it names what the caller did, not what we failed to do
    """A question that cannot be asked; the message names the value, the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open `[start, end)`, both aware instants."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name, instant in (("start", self.start), ("end", self.end)):
            if instant.tzinfo is None:
                raise BadQuery(f"{name} {instant.isoformat()!r} has no time zone: add Z for UTC or an offset")
            if not EARLIEST <= instant <= LATEST:
                raise BadQuery(
                    f"{name} {instant.isoformat()!r} is outside {EARLIEST:%Y} to {LATEST:%Y}: check the year"
                )
        if self.start >= self.end:
            raise BadQuery(f"start {self.start.isoformat()} is not before end {self.end.isoformat()}: swap them")

    @property
    def on_the_hour(self) -> bool:
        """Whether both bounds are on a UTC hour."""
        return all(i.astimezone(UTC).replace(minute=0, second=0, microsecond=0) == i for i in (self.start, self.end))


@dataclass(frozen=True, slots=True)
class Filter:
    """Keep rows whose `dimension` is one of `values` (None stands for unknown); `negated` keeps the others.

    Values are text, "true" and "false" where the dimension is a yes or no.

    Raises:
        BadQuery: the dimension is unknown, or a value cannot be one of its values.
    """

    dimension: str
    values: tuple[str | None, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        _known("filter", (self.dimension,), ASKABLE)
        if not self.values:
            raise BadQuery(f"filter {self.dimension!r} has no values: name at least one, null for unknown")
        for value in self.values:
            if self.dimension in YES_OR_NO and value not in {"true", "false", None}:
                raise BadQuery(f"filter {self.dimension!r} cannot be {value!r}: write true, false or null")
            if not (value or "").isascii() and any("\ud800" <= letter <= "\udfff" for letter in value or ""):
                raise BadQuery(
                    f"filter {self.dimension!r} has {value!r}, which is not text: remove its lone surrogates"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Measures by dimensions over a period.

    `grain` adds a first column `time`: the UTC instant at which each hour, day, week (Monday) or month of `time_zone`
    (IANA name) begins. `currency` (ISO 4217) is that of every amount. `order` names measures, dimensions or `time`,
    descending with a leading `-`. Every name is checked against closed lists.
    """

    measures: tuple[str, ...]
    period: Period
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    grain: Grain | None = None
    basis: Basis = "effective"
    currency: str = "USD"
    time_zone: str = "UTC"
    order: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if not self.measures:
            raise BadQuery("no measures: name at least one, such as spend_usd")
        _known("measure", self.measures, tuple(DICTIONARY))
        _known("dimension", self.dimensions, ASKABLE)
        for name in self.dimensions:
            if self.dimensions.count(name) > 1:
                raise BadQuery(f"dimension {name!r} is named twice: name it once")
        _known("basis", (self.basis,), get_args(Basis))
        if self.grain is not None:
            _known("grain", (self.grain,), get_args(Grain))
        columns = ("time",) if self.grain else ()
        _known(
            "order",
            tuple(o.removeprefix("-") for o in self.order),
            (*columns, *self.dimensions, *self.measures),
        )
        if not _CURRENCY.fullmatch(self.currency):
            raise BadQuery(f"currency {self.currency!r} is not three capital letters: write USD, EUR or another code")
        try:
            zone(self.time_zone)
        except ValueError as error:
            raise BadQuery(str(error)) from error
        for name in self.measures:
            if DICTIONARY[name].of_deployments and (others := set(self.asked()) - set(OF_DEPLOYMENTS) - {COST_TYPE}):
                raise BadQuery(
                    f"{name} is a fact of deployments and cannot be asked by {', '.join(sorted(others))}: "
                    f"use only {', '.join(OF_DEPLOYMENTS)}"
                )
        if self.limit is not None and not 1 <= self.limit <= MAX_ROWS:
            raise BadQuery(f"limit {self.limit} is outside 1 to {MAX_ROWS}: ask for fewer rows, or leave it out")

    def asked(self) -> tuple[str, ...]:
        """Every dimension that is grouped by or filtered on."""
        return (*self.dimensions, *(f.dimension for f in self.filters))


@dataclass(frozen=True, slots=True)
class Answer:
    """`frame`: `time` (if a grain was asked), the dimensions, then the measures.

    Money and ratios are Decimal, counts and tokens Int64, unknown is null. `source` tells what was read.
    """

    frame: pl.DataFrame
    source: Literal["rollup", "calls"]
    elapsed_ms: int


def run(engine: Engine, tenant: str, query: Query) -> Answer:
    """Answer `query` for one tenant.

    Raises:
        BadQuery: the answer has more than 100,000 rows, or it is the first of so many in the order of a ratio.
        EngineError: the database failed.
    """
    began = time.monotonic()
    if query.currency != "USD":
        raise BadQuery(f"currency {query.currency!r} has no exchange rate yet: ask for USD")
    if query.time_zone != "UTC" and query.grain not in {None, "hour"}:
        raise BadQuery(f"{query.grain}s of {query.time_zone} cannot be told yet: ask for hours, or for those of UTC")
    source: Literal["rollup", "calls"] = "rollup"
    if set(query.asked()) & set(DETAILS) or not query.period.on_the_hour:
        source = "calls"
    table = engine.read(_statement(tenant, query, source))
    if table.num_rows > MAX_ROWS:
        raise BadQuery(
            f"more than {MAX_ROWS:,} rows: ask for fewer dimensions, a coarser grain, or a limit in the order of a sum"
        )
    return Answer(of_sums(pl.DataFrame(pl.from_arrow(table)), query), source, round((time.monotonic() - began) * 1000))


def _known(what: str, names: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    for name in names:
        if name not in allowed:
            raise BadQuery(f"unknown {what} {name!r}: choose from {', '.join(sorted(allowed))}")


def of_sums(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    """The answer of which `frame` has every row, with all that `sums_of` names: its measures, in the order asked."""
    frame = frame.with_columns(ratio(name) for name in query.measures if DICTIONARY[name].numerator)
    frame = frame.select(*(["time"] if query.grain else []), *query.dimensions, *dict.fromkeys(query.measures))
    return _ordered(frame, query)


def _ordered(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    by = _order(query)
    frame = frame.sort(list(by), descending=list(by.values()), nulls_last=True)
    return frame.head(query.limit) if query.limit else frame


def _order(query: Query) -> dict[str, bool]:
    """Names to order by, each with whether it descends; every key takes part, so that equal rows keep one order."""
    keys = (*(["time"] if query.grain else []), *query.dimensions)
    asked = query.order or (("time",) if query.grain else (f"-{query.measures[0]}",))
    by: dict[str, bool] = {}
    for name in (*asked, *keys):
        by.setdefault(name.removeprefix("-"), name.startswith("-"))
    return by


def ratio(name: str) -> pl.Expr:
    """A ratio of its sums at 12 decimals; unknown when the denominator is 0 or either side is unknown."""
    measure = DICTIONARY[name]
    top = pl.col(str(measure.numerator)).cast(pl.Decimal(38, 18)) * measure.scale
    bottom = pl.col(str(measure.denominator)).cast(pl.Decimal(38, 18))
    return pl.when(bottom != 0).then(top / bottom).cast(pl.Decimal(38, 12)).alias(name)


def sums_of(query: Query) -> list[str]:
    """The sums that the measures need, each once."""
    needed: dict[str, None] = {}
    for name in query.measures:
        measure = DICTIONARY[name]
        for part in (measure.name,) if measure.sum_of else (str(measure.numerator), str(measure.denominator)):
            needed[part] = None
    return list(needed)


def _statement(tenant: str, query: Query, source: Literal["rollup", "calls"]) -> Select[Any]:
    sums = sums_of(query)
    facts = union_all(
        _of_calls(tenant, query, sums, usage_hourly if source == "rollup" else calls),
        *(_beside(part, query, sums) for part in beside.parts(tenant, query.period, query.basis)),
    ).subquery("facts")
    keys: list[ColumnElement[Any]] = [facts.c[name] for name in query.dimensions]
    if query.grain:
        keys.insert(0, func.date_trunc(literal_column(f"'{query.grain}'"), facts.c.time).label("time"))
    statement = select(*keys, *(_summed(facts.c[name]) for name in sums))
    if keys:
        statement = statement.group_by(*(literal_column(str(n + 1)) for n in range(len(keys))))
    order = _order(query)
    if query.limit is None or any(name in DICTIONARY and DICTIONARY[name].numerator for name in order):
        return statement.limit(MAX_ROWS + 1)
    columns = ((statement.selected_columns[name], down) for name, down in order.items())
    return statement.order_by(*((c.desc() if down else c.asc()).nulls_last() for c, down in columns)).limit(query.limit)


def _summed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    unit = DICTIONARY[column.name].unit
    total: ColumnElement[Any] = cast(func.sum(column), BigInteger if unit in WHOLE else EXACT)
    if unit in {"joules", "wh"}:  # terajoules need more digits than 24 decimals leave: whole ones are added apart
        whole = func.trunc(column)
        total = cast(func.sum(whole), Numeric(38, 12)) + cast(func.sum(column - whole), Numeric(38, 12))
    if unit == "wh":
        total = beside.share(total * literal_column("0.001"), 1000, JOULES_PER_WH)
    return total.label(column.name)


def _of_calls(tenant: str, query: Query, sums: list[str], source: FromClause) -> Select[Any]:
    raw = source is calls
    instant: ColumnElement[datetime] = source.c.started_at if raw else source.c.hour
    hours = deployment_hours
    same_hour = (
        hours.c.tenant == source.c.tenant,
        hours.c.deployment == source.c.deployment,
        hours.c.hour == (func.date_trunc(literal_column("'hour'"), instant) if raw else instant),
    )
    columns = askable(source)
    where = [
        source.c.tenant == tenant,
        instant >= without_zone(query.period.start),
        instant < without_zone(query.period.end),
    ]
    if raw:
        where.append(source.c.counted)
    return (
        select(
            instant.label("time"),
            *(columns[name].label(name) for name in query.dimensions),
            *(of_calls(name, source, query.basis).label(name) for name in sums),
        )
        .select_from(source.outerjoin(hours, and_(*same_hour)))
        .where(*where, *(kept(f, columns[f.dimension]) for f in query.filters))
    )


def askable(source: FromClause) -> dict[str, ColumnElement[Any]]:
    """Every dimension that can be asked of `calls` or `usage_hourly`, by name."""
    cost_type = case((source.c.billing == "self_hosted", "hardware"), else_="api")
    return {**{name: source.c[name] for name in ASKABLE if name in source.c}, COST_TYPE: cost_type}


def _beside(part: beside.Part, query: Query, sums: list[str]) -> Select[Any]:
    """Rows that are no calls, in the layout of calls; sums that they are not part of are unknown."""
    unknown = {name: cast(null(), BigInteger if DICTIONARY[name].unit in WHOLE else EXACT) for name in sums}
    return (
        select(
            cast(part.time, DateTime).label("time"),
            *(part.columns[name].label(name) for name in query.dimensions),
            *(part.amounts.get(name, unknown[name]).label(name) for name in sums),
        )
        .select_from(part.source)
        .where(*part.where, *(kept(f, part.columns[f.dimension]) for f in query.filters))
    )


def kept(wanted: Filter, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that a filter puts on a column."""
    values: list[Any] = [value for value in wanted.values if value is not None]
    if wanted.dimension in YES_OR_NO:
        values = [value == "true" for value in values]
    choices = [column.in_(values)] if values else []
    if None in wanted.values:
        choices.append(column.is_(None))
    kept = or_(*choices)
    if not wanted.negated:
        return kept
    return ~kept if None in wanted.values else or_(~kept, column.is_(None))
