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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, NamedTuple, get_args

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

from millicent.warehouse import beside, exchange
from millicent.warehouse.cuts import SLICES, Cuts
from millicent.warehouse.cuts import begins as days_of
from millicent.warehouse.engine import Engine
from millicent.warehouse.exchange import Rate, Span
from millicent.warehouse.metrics import DICTIONARY, WHOLE
from millicent.warehouse.narrowing import askable, kept
from millicent.warehouse.record import COST_TYPE, DETAILS, DIMENSIONS
from millicent.warehouse.sums import of_own, of_themselves, typed
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
_SUMMED_AS: Final = {"energy_wh": "energy_joules"}
TOO_MANY: Final = (
    f"more than {MAX_ROWS:,} rows: ask for fewer dimensions, a coarser grain, or a limit in the order of a sum"
)
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
    (IANA name) begins; hours are those of UTC. `order` names measures, dimensions or `time`, descending with a leading
    `-`. Every name is checked against closed lists.

    Amounts are in `currency` (ISO 4217) by `rates`, which `Warehouse.ask` takes from the price book. In USD they are
    told apart by the place of their rate, a column `rate`, where there are rates.
    """

    measures: tuple[str, ...]
    period: Period
    dimensions: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()
    grain: Grain | None = None
    basis: Basis = "effective"
    currency: str = "USD"
    time_zone: str = "UTC"
    rates: tuple[Rate, ...] = field(default=(), repr=False)
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

    Money and ratios are Decimal, counts and tokens Int64, unknown is null. `source` tells whether single calls were
    read, if only for an hour. `rates` are the exchange rates that amounts were converted by.
    """

    frame: pl.DataFrame
    source: Literal["rollup", "calls"]
    elapsed_ms: int
    rates: tuple[Rate, ...] = ()


def run(engine: Engine, tenant: str, query: Query) -> Answer:
    """Answer `query` for one tenant.

    Raises:
        BadQuery: the answer has more than 100,000 rows, or it is the first of so many in the order of a ratio; or an
            amount has no exchange rate.
        EngineError: the database failed.
    """
    began = time.monotonic()
    cuts, spans = _cuts(query)
    raw = bool(set(query.asked()) & set(DETAILS) or cuts.partial)
    frames = {SLICES.name: cuts.frame()} if cuts.slices else {}
    asked = partial(_statement, tenant, query, cuts)
    frame = pl.DataFrame(pl.from_arrow(engine.read(asked, (tenant, query), **frames)))
    if frame.height > MAX_ROWS * max(1, len(spans)):
        raise BadQuery(TOO_MANY)
    if len(spans) == 1:
        frame = frame.with_columns(pl.lit(spans[0].at, pl.Int32).alias("rate"))
    answer = concluded(frame, query)
    return Answer(answer, "calls" if raw else "rollup", round((time.monotonic() - began) * 1000), rates_of(query))


def rates_of(query: Query) -> tuple[Rate, ...]:
    """The exchange rates by which amounts are told."""
    spans = exchange.spans(query.rates, query.period) if query.currency != "USD" and _amounts(query) else []
    return tuple(query.rates[at] for at in dict.fromkeys(span.at for span in spans) if at is not None)


def _cuts(query: Query) -> tuple[Cuts, list[Span]]:
    """Where the period is cut, and which exchange rates hold when: none unless amounts are asked in a currency."""
    if query.currency != "USD" and _amounts(query) and not query.rates:
        raise BadQuery(f"no exchange rate of {query.currency} is known: {_add_rate(query, query.period.start)}")
    spans = exchange.spans(query.rates, query.period) if query.rates and _amounts(query) else []
    try:
        zoned = query.grain and query.grain != "hour" and query.time_zone != "UTC"
        begins = days_of(query.period, query.grain, zone(query.time_zone)) if query.grain and zoned else ()
        return Cuts.of(query.period, begins, spans), spans
    except ValueError as error:
        raise BadQuery(str(error)) from error


def concluded(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    """The answer of which `frame` has every row in USD, by `rate` where there are rates, with all sums.

    Raises:
        BadQuery: there are too many rows, or an amount has no exchange rate.
    """
    if "rate" in frame.columns and query.currency != "USD":
        frame = _exchanged(frame, query)
    if frame.height > MAX_ROWS and "rate" not in frame.columns:
        raise BadQuery(TOO_MANY)
    return of_sums(frame, query)


def _exchanged(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    """The rows in the currency that is asked for, those of the same keys added up."""
    amounts = _amounts(query)
    lacking = frame.filter(pl.col("rate").is_null())
    if any(lacking[name].fill_null(0).ne(0).any() for name in amounts):
        start = next(span.start for span in exchange.spans(query.rates, query.period) if span.at is None)
        raise BadQuery(
            f"no exchange rate of {query.currency} holds from {start.isoformat()} on, and there are amounts: "
            f"{_add_rate(query, start)}"
        )
    try:
        frame = exchange.converted(frame, amounts, query.rates)
    except exchange.TooLargeError as error:
        raise BadQuery(f"{error} in {query.currency}: ask for a shorter period, or for USD") from error
    return added(frame.drop("rate"), query)


def added(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    """Rows with all that `sums_of` names, those of the same keys added up; unknown where all of them are."""
    keys = _keys(frame, query)
    sums = [pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in sums_of(query)]
    return frame.group_by(keys).agg(sums) if keys else frame.select(sums)


def _amounts(query: Query) -> list[str]:
    """The sums of money among those that are needed."""
    return [name for name in sums_of(query) if DICTIONARY[name].unit == "usd"]


def _add_rate(query: Query, start: datetime) -> str:
    return (
        f'add to the price book an fx_rate with currency = "{query.currency}" and usd_per_unit, effective from '
        f"{start:%Y-%m-%d} or before, or ask for USD"
    )


def _known(what: str, names: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    for name in names:
        if name not in allowed:
            raise BadQuery(f"unknown {what} {name!r}: choose from {', '.join(sorted(allowed))}")


def of_sums(frame: pl.DataFrame, query: Query) -> pl.DataFrame:
    """The answer of which `frame` has every row, with all that `sums_of` names: its measures, in the order asked."""
    frame = frame.with_columns(ratio(name) for name in query.measures if DICTIONARY[name].numerator)
    return _ordered(frame.select(*_keys(frame, query), *dict.fromkeys(query.measures)), query)


def _keys(frame: pl.DataFrame, query: Query) -> list[str]:
    rate = ["rate"] if "rate" in frame.columns else []
    return [*(["time"] if query.grain else []), *rate, *query.dimensions]


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


def _statement(tenant: str, query: Query, cuts: Cuts) -> Select[Any]:
    """One row for each time, exchange rate and values of the dimensions that occur, with the sums."""
    needed = sums_of(query)
    sums = list(dict.fromkeys(_SUMMED_AS.get(name, name) for name in needed))
    layout = _Layout(query, cuts, sums)
    facts = union_all(
        *(rows for read in _sources(tenant, layout) for rows in _of_calls(tenant, layout, read)),
        *(_beside(part, layout) for part in beside.parts(tenant, query.period, cuts, query.basis, sums)),
    ).subquery("facts")
    keys = [facts.c[name] for name in layout.names]
    totals = {name: _summed(facts.c[name]) for name in sums}
    statement = select(*keys, *(_as(name, totals[_SUMMED_AS.get(name, name)]).label(name) for name in needed))
    statement = _grouped(statement, len(keys))
    order, rates = _order(query), cuts.rates
    if query.limit is None or rates or any(name in DICTIONARY and DICTIONARY[name].numerator for name in order):
        return statement.limit(MAX_ROWS * max(1, rates) + 1)
    columns = ((statement.selected_columns[name], down) for name, down in order.items())
    return statement.order_by(*((c.desc() if down else c.asc()).nulls_last() for c, down in columns)).limit(query.limit)


class _Layout(NamedTuple):
    """The columns of facts, whatever they are of: keys first, then sums."""

    query: Query
    cuts: Cuts
    sums: list[str]

    @property
    def names(self) -> list[str]:
        """Of the keys."""
        return [
            *(["time"] if self.query.grain else []),
            *(["rate"] if self.cuts.rates else []),
            *self.query.dimensions,
        ]

    def keys(self, instant: ColumnElement[Any], dimensions: Mapping[str, ColumnElement[Any]]) -> list[Any]:
        """The keys of facts of an instant."""
        told = dict(dimensions)
        if self.query.grain:
            told["time"] = func.date_trunc(literal_column(f"'{self.query.grain}'"), instant)
        if self.cuts.covering:
            told["rate"] = SLICES.c.rate
        if self.cuts.timed:
            told["time"] = SLICES.c.time
        return [told[name].label(name) for name in self.names]


def _summed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    unit = DICTIONARY[column.name].unit
    if unit == "joules":  # terajoules need more digits than 24 decimals leave: whole ones are added apart
        whole = func.trunc(column)
        return cast(func.sum(whole), Numeric(38, 12)) + cast(func.sum(column - whole), Numeric(38, 12))
    return cast(func.sum(column), BigInteger if unit in WHOLE else EXACT)


def _as(name: str, total: ColumnElement[Any]) -> ColumnElement[Any]:
    return beside.share(total * literal_column("0.001"), 1000, JOULES_PER_WH) if name == "energy_wh" else total


class _Read(NamedTuple):
    """Calls, or hours of them, of `source` that are read: `joined` with what tells their time, those `where`."""

    source: FromClause
    joined: FromClause
    where: list[ColumnElement[bool]]

    @property
    def hour(self) -> ColumnElement[Any]:
        """The UTC hour in which they began."""
        c = self.source.c
        return func.date_trunc(literal_column("'hour'"), c.started_at) if self.source is calls else c.hour


def _sources(tenant: str, layout: _Layout) -> Iterator[_Read]:
    """Where calls are read from, and which of them: the rollup where it can tell them, else the calls themselves."""
    query, cuts = layout.query, layout.cuts
    start, end = without_zone(query.period.start), without_zone(query.period.end)
    c, hour = calls.c, usage_hourly.c.hour
    raw = _Read(calls, calls, [c.tenant == tenant, c.started_at >= start, c.started_at < end, c.counted])
    whole = _Read(usage_hourly, usage_hourly, [usage_hourly.c.tenant == tenant, hour >= start, hour < end])
    details = set(query.asked()) & set(DETAILS)
    if not cuts.slices:
        yield raw if details else whole
    elif cuts.covering:
        s = SLICES.c
        inside = and_(s.hour == raw.hour, s.start <= c.started_at, c.started_at < s.stop)
        if details:
            yield raw._replace(joined=calls.join(SLICES, inside))
        else:
            yield whole._replace(joined=usage_hourly.join(SLICES, and_(s.hour == hour, s.whole)))
            if cuts.partial:
                yield raw._replace(joined=calls.join(SLICES, and_(inside, ~s.whole)))
    elif details:
        yield raw
    else:
        edges = [and_(c.started_at >= one.start, c.started_at < one.end) for one in cuts.slices]
        yield whole._replace(where=[*whole.where, hour.not_in([one.hour for one in cuts.slices])])
        yield raw._replace(where=[*raw.where, or_(*edges)])


def _of_calls(tenant: str, layout: _Layout, read: _Read) -> Iterator[Select[Any]]:
    """What calls tell by themselves, and what own calls tell by their deployment-hours."""
    query, source = layout.query, read.source
    columns = askable(source)
    where = [*read.where, *(kept(f, columns[f.dimension]) for f in query.filters)]
    keys = layout.keys(source.c.started_at if source is calls else source.c.hour, columns)
    told = [typed(name, func.sum(of_themselves(name, source, query.basis))).label(name) for name in layout.sums]
    yield _grouped(select(*keys, *told).select_from(read.joined).where(*where), len(keys))
    if any(of_own(name, source, query.basis) is not None for name in layout.sums):
        own = read._replace(where=[*where, source.c.billing == "self_hosted"])
        yield _weighed(tenant, layout, own, keys)


def _weighed(tenant: str, layout: _Layout, read: _Read, keys: list[Any]) -> Select[Any]:
    """What own calls tell by their deployment-hours: their tokens are added up before rates are applied."""
    c, hours = read.source.c, deployment_hours
    alike = {"hour": read.hour, "deployment": c.deployment}
    if "unattributed_spend_usd" in layout.sums:
        alike["team"] = case((c.team.is_not(None), literal_column("''")))
    keys = [*keys, *(one.label(name) for name, one in alike.items() if name not in layout.names)]
    number = c.call_count if read.source is calls else c.calls
    tokens = {"calls": number, **{name: c[name] for name in ("input_tokens", "cache_read_tokens", "output_tokens")}}
    sums = [cast(func.sum(one), BigInteger).label(name) for name, one in tokens.items()]
    own = _grouped(select(*keys, *sums).select_from(read.joined).where(*read.where), len(keys)).subquery("own")
    same_hour = (hours.c.tenant == tenant, hours.c.deployment == own.c.deployment, hours.c.hour == own.c.hour)
    told = {name: of_own(name, own, layout.query.basis) for name in layout.sums}
    return select(
        *(own.c[name] for name in layout.names),
        *(typed(name, null() if amount is None else amount).label(name) for name, amount in told.items()),
    ).select_from(own.outerjoin(hours, and_(*same_hour)))


def _grouped(statement: Select[Any], keys: int) -> Select[Any]:
    """Rows of one layout, by their first columns."""
    return statement.group_by(*(literal_column(str(n + 1)) for n in range(keys)))


def _beside(part: beside.Part, layout: _Layout) -> Select[Any]:
    """Rows that are no calls, in the layout of calls; sums that they are not part of are unknown."""
    keys = layout.keys(cast(part.time, DateTime), part.columns)
    sums = [typed(name, part.amounts.get(name, null())).label(name) for name in layout.sums]
    where = [*part.where, *(kept(f, part.columns[f.dimension]) for f in layout.query.filters)]
    return select(*keys, *sums).select_from(part.source).where(*where)
