"""What a tenant adds to the bundled price data: overrides, terms, FX rates and charges, each dated and sourced.

An entry is never overwritten: a correction is another entry for the same period, known later. `read` and `written`
are its JSON, `read_toml` reads a file of entries.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final, Literal, get_args

from millicent.pricing import checking
from millicent.pricing.checking import near

EntryKind = Literal["override", "term", "fx_rate", "charge"]
ChargeType = Literal["fee", "commitment", "volume", "credit"]
Prices = Mapping[str, Decimal]
Reader = Callable[[str, Any], Any]

STORED: Final = ("known_from", "author", "id", "retired_at")
"""What an entry gets when it is stored; nobody tells it."""

_LAST: Final = datetime.max.replace(tzinfo=UTC)
_NOT_AMOUNTS: Final = (*STORED, "note", "source")


class BadPricesError(ValueError):
    """Prices that cannot be taken; `problems` names each value, the rule and the remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dated:
    """What every entry says: the half-open period it holds for, and where it comes from.

    Raises:
        BadPricesError: naming every member that is not what it must be.
    """

    effective_from: datetime
    effective_to: datetime | None = None
    source: str
    note: str = ""
    known_from: datetime | None = None
    author: str = ""
    id: int | None = None
    retired_at: datetime | None = None
    kind: ClassVar[EntryKind]

    def __post_init__(self) -> None:
        problems = list(self.problems())
        if problems:
            raise BadPricesError(problems)

    def holds(self, at: datetime) -> bool:
        """Whether an instant is in the entry's period."""
        return self.effective_from <= at and (self.effective_to is None or at < self.effective_to)

    def problems(self) -> Iterator[str]:
        """What is wrong with it."""
        yield from checking.instants("effective_from", self.effective_from, within=True)
        for name in ("effective_to", "known_from", "retired_at"):
            if getattr(self, name) is not None:
                yield from checking.instants(name, getattr(self, name), within=name == "effective_to")
        yield from checking.periods(self.effective_from, self.effective_to)
        yield from checking.sources(self.source)
        yield from checking.texts("note", self.note)
        yield from checking.texts("author", self.author)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matching(_Dated):
    """Which calls an entry is for: None matches any; text is compared in lower case; `model` may hold `*`."""

    provider: str | None = None
    model: str | None = None
    endpoint_host: str | None = None
    region: str | None = None
    service_tier: str | None = None

    def problems(self) -> Iterator[str]:
        yield from _Dated.problems(self)
        for name in ("provider", "model", "endpoint_host", "region", "service_tier"):
            yield from checking.names(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(_Matching):
    """A list price of our own, the whole price list of `model` while it holds.

    Attributes:
        prices: Prices by key as the price data writes them (`input_mtok`, `web_searches_kcount`), in `currency`.
        above: (input tokens, prices) for requests with more input tokens; a key it lacks keeps its price.
        like: "provider/model" whose list holds instead of `prices`, with all its dates, tiers and variants.
        multiply: Times that.
        daily_from: Wall-clock time in `zone` from which it holds each day; later than `daily_to`: past midnight.
        daily_to: Wall-clock time at which it stops.
        zone: IANA name of the zone.
        currency: ISO 4217 code.
    """

    kind: ClassVar[EntryKind] = "override"
    prices: Prices | None = field(default=None, hash=False)
    above: tuple[tuple[int, Prices], ...] = field(default=(), hash=False)
    like: str | None = None
    multiply: Decimal | None = None
    daily_from: time | None = None
    daily_to: time | None = None
    zone: str = "UTC"
    currency: str = "USD"

    def problems(self) -> Iterator[str]:
        yield from _Matching.problems(self)
        if self.model is None:
            yield "model is missing: name the model as calls do, or a pattern such as acme-*"
        if (self.prices is None) == (self.like is None):
            yield 'an override has prices or like: write prices = {input_mtok = "2.5"}, or like = "openai/gpt-4o"'
        if self.prices is not None:
            yield from checking.prices("prices", self.prices)
        if self.like is not None:
            yield from checking.lists("like", self.like)
            if self.above:
                yield "above stands beside like: the other list brings its own, leave it out"
            if self.currency != "USD":
                yield f"currency {self.currency} stands beside like: the other list is in USD, leave it out"
        if self.multiply is not None:
            yield from checking.decimals("multiply", self.multiply, most=Decimal(1000), kept=12)
            if self.like is None:
                yield f"multiply {self.multiply} stands without like: name the list it multiplies, or leave it out"
        yield from checking.sizes(self.above)
        yield from checking.clocks(self.daily_from, self.daily_to, self.zone)
        yield from checking.currencies(self.currency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Term(_Matching):
    """What was negotiated, per call: it changes the billed cost and never the list cost.

    Either `percent_off` of the list price, of all prices or of those in `keys`, or contract `prices` in `currency`.
    For each price key the most specific term that covers it decides; a key that none covers stays at list.
    """

    kind: ClassVar[EntryKind] = "term"
    percent_off: Decimal | None = None
    keys: tuple[str, ...] = ()
    prices: Prices | None = field(default=None, hash=False)
    currency: str = "USD"

    def covers(self, key: str) -> bool:
        """Whether the term says something about this price key."""
        return key in self.prices if self.prices is not None else not self.keys or key in self.keys

    def problems(self) -> Iterator[str]:
        yield from _Matching.problems(self)
        if (self.prices is None) == (self.percent_off is None):
            yield 'a term has percent_off or prices: write percent_off = "12.5", or prices = {input_mtok = "2"}'
        if self.percent_off is not None:
            yield from checking.percents("percent_off", self.percent_off)
        if self.prices is not None:
            yield from checking.prices("prices", self.prices)
            if self.keys:
                yield "keys stand beside prices, which name their keys themselves: leave keys out"
        for key in self.keys:
            yield from checking.price_keys("keys", key)
        yield from checking.currencies(self.currency)
        if self.prices is None and self.currency != "USD":
            yield f"currency {self.currency} stands without prices: a percentage has none, leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class FxRate(_Dated):
    """What one unit of `currency` is in USD, from `effective_from` until the next rate of that currency."""

    kind: ClassVar[EntryKind] = "fx_rate"
    currency: str
    usd_per_unit: Decimal

    def problems(self) -> Iterator[str]:
        yield from _Dated.problems(self)
        yield from checking.currencies(self.currency)
        if self.currency == "USD":
            yield "currency is USD, in which all amounts are kept: name the other currency"
        yield from checking.decimals("usd_per_unit", self.usd_per_unit, most=checking.DEAREST, positive=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge(_Dated):
    """What depends on the order of calls and so is never per call, within a scope of calls.

    Attributes:
        type: "fee" (per month), "commitment" (least billed per month; the shortfall is charged at its end), "volume"
            (discount on the month's billed cost above each tier), "credit" (a total, drawn down day by day).
        provider: Only calls of this provider; None: all. Compared in lower case.
        model: Only calls of this model; may hold `*`.
        amount_usd: Of a fee, commitment or credit.
        tiers: (above_usd, percent_off) of a volume discount, upwards.
    """

    kind: ClassVar[EntryKind] = "charge"
    name: str
    type: ChargeType
    provider: str | None = None
    model: str | None = None
    amount_usd: Decimal | None = None
    tiers: tuple[tuple[Decimal, Decimal], ...] = ()

    def problems(self) -> Iterator[str]:
        yield from _Dated.problems(self)
        for name in ("name", "provider", "model"):
            yield from checking.names(name, getattr(self, name))
        known = get_args(ChargeType)
        if self.type not in known:
            yield f"type {self.type!r} is unknown{near(str(self.type), known)}: write {', '.join(known)}"
        elif self.type == "volume":
            yield from checking.tiers(self.tiers)
            if self.amount_usd is not None:
                yield f"amount_usd {self.amount_usd} stands on a volume discount, which has tiers only: leave it out"
        else:
            if self.amount_usd is None:
                yield f"amount_usd is missing: write the amount of the {self.type}"
            else:
                most = Decimal(10**15)
                yield from checking.decimals("amount_usd", self.amount_usd, most=most, kept=12, positive=True)
            if self.tiers:
                yield f"tiers stand on a {self.type}, and only a volume discount has them: leave them out"
        for name in ("effective_from", "effective_to"):
            yield from checking.beginnings(name, getattr(self, name), of_months=self.type != "credit")


BookEntry = Override | Term | FxRate | Charge

KINDS: Final[Mapping[EntryKind, type[BookEntry]]] = {
    "override": Override, "term": Term, "fx_rate": FxRate, "charge": Charge,
}  # fmt: skip


def rank(entry: BookEntry) -> tuple[bool, datetime, datetime, bool, int]:
    """Of equally specific entries the one of highest rank decides: the last known, then the last to take effect.

    One that is not stored yet counts as known last.
    """
    known = entry.known_from
    return (known is None, known or _LAST, entry.effective_from, entry.id is None, entry.id or 0)


def read(told: Any, *, stored: bool = False) -> BookEntry:
    """An entry from JSON as people write it: `kind` and the members of its class, amounts as text.

    Args:
        told: An object; members that are null count as left out.
        stored: Take what an entry is given when it is stored too.

    Raises:
        BadPricesError: naming each member, the value and what it must be.
    """
    if not isinstance(told, Mapping):
        raise BadPricesError(['a price entry is an object: write {"kind": "override", "model": "acme-7b", ...}'])
    kind, cls = next(((name, cls) for name, cls in KINDS.items() if name == told.get("kind")), (None, None))
    if cls is None:
        raise BadPricesError([f"kind {told.get('kind')!r} is unknown{near(str(told.get('kind')), KINDS)}: {_ONE_OF}"])
    members = {one.name: one for one in fields(cls) if stored or one.name not in STORED}
    problems: list[str] = []
    given: dict[str, Any] = {}
    for name, value in told.items():
        if name == "kind" or value is None or (name in STORED and value == ""):
            continue
        if name in members:
            given[name] = _collected(problems, _READERS.get(name, _text), name, value)
        elif name in STORED:
            problems.append(f"{name} is given when an entry is stored: leave it out")
        else:
            problems.append(f"{kind} has no {name!r}{near(name, members)}: write {', '.join(members)}")
    problems.extend(
        f"{name} is missing: {_REMEDIES[name]}"
        for name, one in members.items()
        if one.default is MISSING and name not in given
    )
    if not problems:
        return cls(**given)
    try:  # what else is wrong, with something right in place of what could not be read
        unread = {name for name, value in given.items() if value is None}
        needed = {name for name, one in members.items() if one.default is MISSING and name not in given}
        cls(**given | {name: _STANDS_IN.get(name) for name in unread | needed})
    except BadPricesError as error:
        problems.extend(error.problems)
    raise BadPricesError(problems)


def written(entry: BookEntry) -> dict[str, Any]:
    """An entry as JSON: amounts as plain text, instants ISO 8601 in UTC, all members of its kind."""
    told = {"kind": entry.kind, **{one.name: _json(getattr(entry, one.name)) for one in fields(entry)}}
    for name, pair in (("above", ("input_tokens", "prices")), ("tiers", ("above_usd", "percent_off"))):
        if name in told:
            told[name] = [{key: _json(value) for key, value in zip(pair, row, strict=True)} for row in told[name]]
    return told


def read_toml(text: str) -> list[BookEntry]:
    """The entries of a file with tables `[[override]]`, `[[term]]`, `[[fx_rate]]` and `[[charge]]`, in that order.

    Raises:
        BadPricesError: naming every problem with its table and number, from 1.
    """
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise BadPricesError([f"the file is not TOML: {error}"]) from error
    problems: list[str] = []
    entries: list[BookEntry] = []
    for name, rows in tables.items():
        if name not in KINDS:
            problems.append(f"[[{name}]] is no table of prices{near(name, KINDS)}: {_ONE_OF}")
        elif not isinstance(rows, list):
            problems.append(f"[{name}] is one table: write [[{name}]], once per entry")
    for kind in KINDS:
        rows = tables.get(kind, [])
        for index, row in enumerate(rows if isinstance(rows, list) else (), start=1):
            try:
                entries.append(read({**row, "kind": kind} if isinstance(row, dict) else row))
            except BadPricesError as error:
                problems.extend(f"[[{kind}]] {index}: {problem}" for problem in error.problems)
    if problems:
        raise BadPricesError(problems)
    return entries


def digest(entries: Iterable[BookEntry]) -> str:
    """Eight hex digits that change whenever a call could get another amount; charges are not per call."""
    ordered = sorted((entry for entry in entries if not isinstance(entry, Charge)), key=rank)
    told = [{name: value for name, value in written(one).items() if name not in _NOT_AMOUNTS} for one in ordered]
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:8]


_ONE_OF: Final = f"write {', '.join(KINDS)}"
_REMEDIES: Final = {
    "effective_from": "write the first instant it holds, such as 2026-01-01T00:00:00Z",
    "source": "name the page, contract or mail that the figures can be checked against",
    "currency": "write a code such as EUR",
    "usd_per_unit": "write what one unit of the currency costs in USD",
    "name": "name the charge as its invoice does",
    "type": f"write {', '.join(get_args(ChargeType))}",
}
_STANDS_IN: Final[Mapping[str, Any]] = {
    "effective_from": datetime(2000, 1, 1, tzinfo=UTC), "source": "?", "name": "?", "type": "fee", "currency": "EUR",
    "usd_per_unit": Decimal(1), "amount_usd": Decimal(1), "percent_off": Decimal(1), "note": "", "zone": "UTC",
    "prices": {"input_mtok": Decimal(1)}, "above": (), "tiers": (), "keys": (),
}  # fmt: skip


def _collected(problems: list[str], reader: Reader, name: str, value: Any) -> Any:
    """What `reader` makes of a value; its problems are kept for later."""
    try:
        return reader(name, value)
    except BadPricesError as error:
        problems.extend(error.problems)
        return None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadPricesError([f"{name} {value!r} is not text: put it in quotes"])
    return value


def _number(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadPricesError([f"{name} {value!r} is not a whole number: write it without quotes or a point"])
    return value


def _prices(name: str, told: Any) -> dict[str, Decimal]:
    if not isinstance(told, Mapping):
        raise BadPricesError([f'{name} {told!r} is no table: write {{"input_mtok": "2.5", "output_mtok": "10"}}'])
    problems: list[str] = []
    prices = {str(key): _collected(problems, _decimal, f"{name}.{key}", value) for key, value in told.items()}
    if problems:
        raise BadPricesError(problems)
    return prices


def _list(name: str, told: Any) -> list[Any]:
    if not isinstance(told, list | tuple):
        raise BadPricesError([f"{name} {told!r} is not a list: write [...]"])
    return list(told)


def _pairs(first: str, read_first: Reader, second: str, read_second: Reader) -> Reader:
    """A reader of a list of tables of two members each."""

    def read_pairs(name: str, told: Any) -> tuple[tuple[Any, Any], ...]:
        rows = _list(name, told)
        for row in rows:
            if not isinstance(row, Mapping) or row.keys() != {first, second}:
                raise BadPricesError([f"{name} {row!r} is no table of {first} and {second}: write both"])
        return tuple(
            (read_first(f"{name}.{first}", row[first]), read_second(f"{name}.{second}", row[second])) for row in rows
        )

    return read_pairs


def _decimal(name: str, value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        raise BadPricesError(
            [f'{name} {value!r} is a binary fraction, which is not exact: write it as text, "{value}"']
        )
    try:
        return Decimal(value) if isinstance(value, str | int) and not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        raise BadPricesError([f'{name} {value!r} is not a number: write digits with a point, such as "2.5"']) from None


def _instant(name: str, value: Any) -> datetime:
    told = value
    try:
        if isinstance(value, str):
            told = date.fromisoformat(value) if len(value) == len("2026-01-01") else datetime.fromisoformat(value)
    except ValueError:
        told = None
    if isinstance(told, date) and not isinstance(told, datetime):
        told = datetime.combine(told, time(), tzinfo=UTC)
    if not isinstance(told, datetime):
        raise BadPricesError(
            [f"{name} {value!r} is no instant: write 2026-01-01T00:00:00Z, or 2026-01-01 for UTC midnight"]
        )
    if told.tzinfo is None:
        raise BadPricesError([f"{name} {value!s} has no time zone: add Z for UTC or an offset"])
    return told.astimezone(UTC)


def _clock(name: str, value: Any) -> time:
    if isinstance(value, time):
        return value
    try:
        return time.fromisoformat(value)
    except (TypeError, ValueError):
        raise BadPricesError([f"{name} {value!r} is no time of day: write 22:00"]) from None


def _json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _json(one) for key, one in sorted(value.items())}
    return list(value) if isinstance(value, tuple) else value


_READERS: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("effective_from", "effective_to", "known_from", "retired_at"), _instant),
    **dict.fromkeys(("multiply", "percent_off", "usd_per_unit", "amount_usd"), _decimal),
    **dict.fromkeys(("daily_from", "daily_to"), _clock),
    "prices": _prices,
    "above": _pairs("input_tokens", _number, "prices", _prices),
    "tiers": _pairs("above_usd", _decimal, "percent_off", _decimal),
    "keys": lambda name, told: tuple(_list(name, told)),
    "id": _number,
}
