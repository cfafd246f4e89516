"""The price book: what calls cost at API list prices, for a batch at once, and why.

book = PriceBook.bundled()
priced = book.price(calls)                 # a frame in, a frame of the same height and order out
print(book.explain({"provider": "openai", "model": "gpt-4o", "started_at": now, "input_tokens": 1200}))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from millicent.pricing import bundled
from millicent.pricing.rates import (
    INDEX,
    KINDS,
    MAX_TOKENS,
    PARTS,
    PER_REQUEST_KEY,
    Bools,
    Count,
    Entry,
    Ints,
    Quantities,
    Rates,
)

PriceStatus = Literal["priced", "partial", "unpriced"]

STATUSES: tuple[PriceStatus, ...] = ("priced", "partial", "unpriced")
LOOKED_UP_BY = ("provider", "model", "endpoint_host", "service_tier")
USD = pl.Decimal(18, 12)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REMEMBERED_LOOKUPS = 65_536
_PRICED, _PARTIAL, _UNPRICED = range(3)


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One product of the derivation: `quantity × unit_price_usd ÷ per = amount_usd`, exact.

    `kind` is a token column of the record, or "requests" for a fee per request. `part` is the part of the
    list cost that the line counts in.
    """

    kind: str
    part: str
    quantity: int
    unit_price_usd: Decimal
    per: int
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class PriceExplanation:
    """Why a call costs what it does. `sum(line.amount_usd) + rounding_usd == list_cost_usd`, exactly.

    Attributes:
        status: "priced", "partial" (the lines are the known parts) or "unpriced".
        version: The price data that was used.
        entry: The dated price entry, as stored with the call.
        provider: Who served the call, by the price data's id.
        price_list: The provider on whose price list the model stands.
        model: The model's id there.
        variant: Request context that the entry holds for, such as "service_tier=flex".
        sources: Pages on which the provider publishes these prices.
        note: What the price data says about the list.
        effective_from: First instant at which these prices hold (UTC); None: since the model's first price.
        effective_to: First instant at which they no longer hold; None: open.
        daily_from: Time of day (UTC) from which they hold, where prices vary over the day.
        daily_to: Time of day (UTC) at which they stop.
        above_input_tokens: They hold for requests with more input tokens than this.
        lines: The derivation.
        rounding_usd: What rounding the total to 12 decimals (half-even) added.
        list_cost_usd: The amount stored with the call; None when unknown.
        cache_saving_usd: What caching saved against plain input prices; None when unknown.
        reason: Why the call is partial or unpriced, and what to do about it.
    """

    status: PriceStatus
    version: str
    entry: str | None = None
    provider: str | None = None
    price_list: str | None = None
    model: str | None = None
    variant: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    note: str | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None
    daily_from: time | None = None
    daily_to: time | None = None
    above_input_tokens: int | None = None
    lines: tuple[PriceLine, ...] = ()
    rounding_usd: Decimal = Decimal(0)
    list_cost_usd: Decimal | None = None
    cache_saving_usd: Decimal | None = None
    reason: str | None = None


class PriceBook:
    """API list prices by provider, model, instant, request size and service tier. Immutable and shareable.

    Attributes:
        version: The price data it was compiled from, such as "genai-prices 0.2.3".
    """

    def __init__(self, version: str, entries: Sequence[Entry]) -> None:
        self.version = version
        self._rates = Rates(entries)
        self._index = {(e.provider, e.model, e.variant): i for i, e in enumerate(self._rates.entries)}
        self._entry_of = lru_cache(maxsize=_REMEMBERED_LOOKUPS)(self._look_up)

    @classmethod
    def bundled(cls) -> "PriceBook":
        """The price data that ships with the installed `genai-prices`, compiled once per process."""
        return _bundled()

    def price(self, usages: pl.DataFrame) -> pl.DataFrame:
        """Price calls at API list prices.

        Args:
            usages: One row per call. Columns, all but `started_at` optional and nullable: `provider`,
                `model`, `endpoint_host`, `service_tier` (text), `started_at` (UTC instant) and the token
                counts named in `rates.KINDS` (integers, inclusive: parts are inside the totals). Other
                columns are ignored: cache writes kept for other times than 5 minutes or an hour have no
                price of their own and count as `cache_write_tokens`.

        Returns:
            A frame of the same height and order: `list_cost_usd` and its parts `list_input_usd` (fees per
            request included), `list_cache_read_usd`, `list_cache_write_usd`, `list_output_usd`, which sum
            to it to the last digit; `cache_saving_usd`; all DECIMAL(18,12), null when unknown;
            `price_status`, `price_entry`, `price_version`.

            *unpriced*: no such model, or it is not billed by tokens; all amounts null. *partial*: a total
            (`input_tokens`, `output_tokens`) that the entry has a price for is unknown, or the counts
            contradict each other; the amounts hold the known parts, and are null where nothing is known.

        Raises:
            ValueError: `started_at` is missing, null or not in UTC, or a count is not an integer.
        """
        calls = _checked(usages)
        counts = _counts(calls)
        cell = self._locate(calls, counts)
        billed = self._rates.quantities(cell, counts)
        amounts = self._rates.amounts(cell, billed.tokens)
        unpriced = ~self._rates.bills_tokens[cell] | amounts.overflow
        unknown = {part: self._unknown_total(cell, counts, f"{part}_tokens") for part in ("input", "output")}
        partial = billed.contradictory | unknown["input"] | unknown["output"]
        nothing_known = unpriced | ((unknown["input"] | unknown["output"]) & (amounts.total == 0))

        null = dict.fromkeys(PARTS, nothing_known)
        for part, is_unknown in unknown.items():
            null[part] = nothing_known | (is_unknown & (amounts.parts[part] == 0))
        status = np.where(unpriced, _UNPRICED, np.where(partial, _PARTIAL, _PRICED))
        return pl.DataFrame(
            {
                "list_cost_usd": _usd(amounts.total, nothing_known),
                **{f"list_{part}_usd": _usd(amounts.parts[part], null[part]) for part in PARTS},
                "cache_saving_usd": _usd(amounts.saving, nothing_known),
                "price_status": pl.Series(STATUSES).gather(status),
                "price_entry": self._rates.labels.gather(np.where(unpriced, 0, cell)),
                "price_version": pl.repeat(self.version, len(cell), dtype=pl.String, eager=True),
            }
        )

    def explain(self, usage: Mapping[str, object]) -> PriceExplanation:
        """Derive the list cost of one call line by line.

        Args:
            usage: The columns that `price` takes, for one call; others are ignored.

        Raises:
            ValueError: As `price`.
        """
        calls = _checked(_one_call(usage))
        counts = _counts(calls)
        cell = self._locate(calls, counts)
        billed = self._rates.quantities(cell, counts)
        row = self.price(calls).row(0, named=True)
        status: PriceStatus = row["price_status"]
        provider, model, host, _ = (calls[name][0] for name in LOOKED_UP_BY)
        entry_at = int(np.searchsorted(self._rates.first, cell[0], side="right")) - 1
        if not entry_at:
            return PriceExplanation(status, self.version, reason=_why_not_found(provider, model, host))

        entry = self._rates.entries[entry_at]
        found = bundled.find(provider, model, host)
        (since, until), (clock_from, clock_to), (above, _) = entry.bounds(int(cell[0] - self._rates.first[entry_at]))
        lines = self._lines(int(cell[0]), billed) if status != "unpriced" else ()
        cost: Decimal | None = row["list_cost_usd"]
        return PriceExplanation(
            status=status,
            version=self.version,
            entry=self._rates.cells[cell[0]].label,
            provider=found.provider if found else None,
            price_list=entry.provider,
            model=entry.model,
            variant=entry.variant,
            sources=entry.sources,
            note=entry.note,
            effective_from=_instant(since),
            effective_to=_instant(until),
            daily_from=_clock(clock_from or 0) if entry.clocks else None,
            daily_to=_clock(clock_to or 0) if entry.clocks else None,
            above_input_tokens=above,
            lines=lines,
            rounding_usd=Decimal(0) if cost is None else _plain(cost - sum(line.amount_usd for line in lines)),
            list_cost_usd=cost,
            cache_saving_usd=row["cache_saving_usd"],
            reason=_why_incomplete(status, entry, billed, bool(self._rates.bills_tokens[cell[0]])),
        )

    def models(self, provider: str | None = None) -> pl.DataFrame:
        """The prices in the book, one row per dated entry, in the order of the price data.

        Args:
            provider: Only price lists of this provider, in any spelling that calls may use; None for all.

        Returns:
            A frame with `provider`, `model`, `name`, `variant`, `effective_from` (UTC instant, null: from
            the start), `daily_from` (UTC), `above_input_tokens`, prices as DECIMAL(38,18) USD per million
            tokens (`input_usd_per_mtok`, …; null: no price of its own), `source` and `price_entry`.

        Raises:
            ValueError: The price data has no such provider.
        """
        only = bundled.find_provider(provider) if provider is not None else None
        if provider is not None and only is None:
            names = sorted({entry.provider for entry in self._rates.entries[1:]})
            raise ValueError(f"no price list of provider {provider!r}; there are {', '.join(names)}")
        listing = _listing(self._rates)
        return listing if only is None else listing.filter(pl.col("provider") == only)

    def _look_up(self, provider: str | None, model: str | None, host: str | None, service_tier: str | None) -> int:
        """Index of the entry for a combination; 0 if there is none."""
        found = bundled.find(provider, model, host)
        if found is None:
            return 0
        standard = self._index[found.owner, found.model, ()]
        if found.provider != found.owner:  # variants are what the owner itself offers
            return standard
        context = bundled.tier_context(service_tier)
        variant = tuple(f"{key}={value}" for key, value in sorted(context.items()))
        return self._index.get((found.owner, found.model, variant), standard)

    def _locate(self, calls: pl.DataFrame, counts: Mapping[str, Count]) -> Ints:
        combinations = calls.select(LOOKED_UP_BY).unique()
        indices = [self._entry_of(*combination) for combination in combinations.iter_rows()]
        entry = calls.join(
            combinations.with_columns(_entry=pl.Series(indices, dtype=pl.Int64)),
            on=LOOKED_UP_BY,
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )["_entry"].to_numpy()
        started_at_us = calls["started_at"].to_physical().to_numpy()
        return self._rates.locate(entry, started_at_us, counts["input_tokens"].values)

    def _unknown_total(self, cell: Ints, counts: Mapping[str, Count], column: str) -> Bools:
        """Where a total is unknown and would have cost something."""
        unknown = counts[column].unknown
        if not unknown.any():
            return unknown
        costs: Bools = (self._rates.exact[INDEX[column]][cell] > 0).astype(np.bool_)
        return unknown & costs

    def _lines(self, cell: int, billed: Quantities) -> tuple[PriceLine, ...]:
        lines = []
        for index, quantity in sorted(billed.tokens.items(), reverse=True):
            kind = KINDS[index]
            if quantity[0]:
                unit = self._rates.exact[index][cell]
                lines.append(_line(kind.column, kind.part, int(quantity[0]), unit, 10**6))
        if PER_REQUEST_KEY in self._rates.cells[cell].prices:
            lines.append(_line("requests", "input", 1, self._rates.exact[-1][cell], 10**3))
        return tuple(sorted(lines, key=lambda line: PARTS.index(line.part)))


@cache
def _bundled() -> PriceBook:
    return PriceBook(bundled.VERSION, tuple(bundled.entries()))


_TYPES: dict[str, pl.DataType] = {
    **dict.fromkeys(LOOKED_UP_BY, pl.String()),
    "started_at": pl.Datetime("us", "UTC"),
    **dict.fromkeys(INDEX, pl.Int64()),
}


def _checked(usages: pl.DataFrame) -> pl.DataFrame:
    """The columns that pricing reads, all present, typed and valid."""
    started = usages.schema.get("started_at")
    if not isinstance(started, pl.Datetime) or started.time_zone != "UTC":
        raise ValueError(
            f"started_at is {started!r}, not an instant in UTC: prices have dates; pass Datetime('us', 'UTC')"
        )
    if usages["started_at"].null_count():
        raise ValueError("started_at is null in some rows: prices have dates; set it, or leave the rows out")
    for name in INDEX:
        dtype = usages.schema.get(name)
        if dtype is not None and not (dtype.is_integer() or dtype == pl.Null):
            raise ValueError(f"{name} is {dtype!r}: token counts are integers; cast the column to Int64")
    return usages.select(
        *(
            pl.col(name).cast(dtype, strict=False) if name in usages.columns else pl.lit(None, dtype).alias(name)
            for name, dtype in _TYPES.items()
            if name in usages.columns or name in (*LOOKED_UP_BY, "input_tokens", "output_tokens")
        )
    )


def _one_call(usage: Mapping[str, object]) -> pl.DataFrame:
    """A frame of one row, from values as people and JSON write them."""
    known = {name: value for name, value in usage.items() if name in _TYPES and value is not None}
    started_at = known.get("started_at")
    if not isinstance(started_at, datetime) or started_at.tzinfo is None:
        raise ValueError(f"started_at is {started_at!r}, not an aware datetime: prices have dates; add its zone")
    known["started_at"] = started_at.astimezone(UTC)
    for name in known.keys() & INDEX.keys():
        count = known[name]
        if not isinstance(count, int) or isinstance(count, bool):
            raise ValueError(  # noqa: TRY004 - whatever is wrong with a usage is one error to callers
                f"{name} is {count!r}, not an integer: token counts are whole numbers"
            )
        known[name] = min(count, MAX_TOKENS + 1)
    return pl.DataFrame({name: [value] for name, value in known.items()}, schema={name: _TYPES[name] for name in known})


def _counts(calls: pl.DataFrame) -> dict[str, Count]:
    counts = {}
    for name in INDEX:
        if name in calls.columns:
            values = calls[name].fill_null(-1).to_numpy()
            unknown = (values < 0) | (values > MAX_TOKENS)
            counts[name] = Count(np.where(unknown, 0, values) if unknown.any() else values, unknown)
    return counts


def _usd(pico: Ints, null: Bools) -> pl.Series:
    """Pico-dollars as DECIMAL(18,12), through Arrow's layout of 128-bit integers."""
    words = np.empty((len(pico), 2), dtype=np.int64)
    words[:, 0] = pico
    words[:, 1] = pico >> 63
    validity = pa.py_buffer(np.packbits(~null, bitorder="little").data) if null.any() else None
    array = pa.Array.from_buffers(pa.decimal128(18, 12), len(pico), [validity, pa.py_buffer(words.data)])
    return pl.Series(pl.from_arrow(array), dtype=USD)


def _line(kind: str, part: str, quantity: int, unit_exact: int, per: int) -> PriceLine:
    unit = Decimal(unit_exact).scaleb(-24)
    return PriceLine(kind, part, quantity, _plain(unit * per), per, _plain(unit * quantity))


def _plain(amount: Decimal) -> Decimal:
    """Without trailing zeros and without an exponent, as people write it."""
    return Decimal(f"{amount.normalize():f}")


def _instant(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _clock(us: int) -> time:
    return (_EPOCH + timedelta(microseconds=us)).timetz()


def _why_not_found(provider: str | None, model: str | None, host: str | None) -> str:
    if not model:
        return "The call names no model. Record the request or response model on the span."
    known = bundled.find_provider(provider, host)
    where = f"on the price list of {known!r}" if known else f"for provider {provider!r} at {host!r}"
    close = get_close_matches(model, bundled.model_ids(known), n=3)
    hint = f"Close names: {', '.join(close)}. " if close else ""
    return f"Model {model!r} is not {where}. {hint}Correct the provider or model name, or add a price for it."


def _why_incomplete(status: PriceStatus, entry: Entry, billed: Quantities, bills_tokens: bool) -> str | None:
    if status == "priced":
        return None
    if not bills_tokens:
        units = sorted({key for cell in entry.cells for key in cell.prices})
        return f"This model is not billed by tokens but by {', '.join(units)}, which the call does not report."
    if status == "unpriced":
        return "The amount does not fit 999,999.999999999999 USD: check the token counts."
    if billed.contradictory[0]:
        return (
            "The counts leave open what is billed: a part exceeds its total, or cached tokens of several "
            "modalities overlap by an unknown count. Remainders are taken as 0; check how usage is reported."
        )
    return "A total token count is unknown; the lines are what is known. Report input and output tokens."


def _listing(rates: Rates) -> pl.DataFrame:
    rows = []
    listed = set()
    for entry in rates.entries[1:]:
        for offset, cell in enumerate(entry.cells):
            if cell.label in listed:  # where a variant has standard prices
                continue
            listed.add(cell.label)
            (since, _), (clock, _), (above, _) = entry.bounds(offset)
            prices = [cell.prices.get(kind.price_key) for kind in KINDS]
            head = (entry.provider, entry.model, entry.name, ", ".join(entry.variant) or None)
            when = (_instant(since), _clock(clock or 0) if entry.clocks else None, above)
            rows.append((*head, *when, *prices, next(iter(entry.sources), None), cell.label))
    text = dict.fromkeys(("provider", "model", "name", "variant"), pl.String())
    when_types = {
        "effective_from": pl.Datetime("us", "UTC"),
        "daily_from": pl.Time(),
        "above_input_tokens": pl.Int64(),
    }
    price_names = [f"{kind.price_key.removesuffix('_mtok')}_usd_per_mtok" for kind in KINDS]
    tail = dict.fromkeys(("source", "price_entry"), pl.String())
    price_types = dict.fromkeys(price_names, pl.Decimal(38, 18))
    return pl.DataFrame(rows, schema={**text, **when_types, **price_types, **tail}, orient="row")
