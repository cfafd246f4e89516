"""The price book: what calls cost at list prices and after terms, for a batch at once, and why.

book = PriceBook.bundled().with_own(read_toml(text))
priced = book.price(calls)                 # a frame in, a frame of the same height and order out
print(book.explain({"provider": "openai", "model": "gpt-4o", "started_at": now, "input_tokens": 1200}))
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from millicent.pricing import bundled, explanation, listing
from millicent.pricing.entries import BookEntry, digest
from millicent.pricing.explanation import PriceExplanation
from millicent.pricing.layers import Layers, Met, Stack
from millicent.pricing.lists import SELF_HOSTED, Lists, Names
from millicent.pricing.rates import INDEX, PARTS, Bools, Count, Entry, Ints, Units
from millicent.pricing.tables import Rates, Table
from millicent.pricing.usages import LOOKED_UP_BY, checked, one_call, token_counts, unit_counts

PriceStatus = Literal["priced", "partial", "unpriced"]

STATUSES: tuple[PriceStatus, ...] = ("priced", "partial", "unpriced")
USD = pl.Decimal(18, 12)

_REMEMBERED_LOOKUPS = 65_536
_PRICED, _PARTIAL, _UNPRICED = range(3)


class PriceBook:
    """Prices by provider, model, instant, request size and request context. Immutable and safe from any thread.

    Attributes:
        version: The price data it was compiled from, such as "genai-prices 0.2.3", and a digest of own entries that
            can change what a call costs: "genai-prices 0.2.3 + 3f9a12bc".
        own: What the tenant added to the price data.
    """

    def __init__(self, version: str, entries: Sequence[Entry] | Lists, own: Sequence[BookEntry] = ()) -> None:
        per_call = [entry for entry in own if entry.kind != "charge"]
        self.own = tuple(own)
        self.version = f"{version} + {digest(per_call)}" if per_call else version
        self._base_version = version
        self._lists = entries if isinstance(entries, Lists) else Lists(entries)
        self._layers = Layers(self._lists, per_call)
        self._lock = threading.Lock()
        self._merged = Rates(())
        self._places: dict[Met, int] = {}
        self._met_by = lru_cache(maxsize=_REMEMBERED_LOOKUPS)(self._meet)

    @classmethod
    def bundled(cls) -> "PriceBook":
        """The price data that ships with the installed `genai-prices`, compiled once per process."""
        return _bundled()

    def with_own(self, own: Sequence[BookEntry]) -> "PriceBook":
        """The book of the same price data with these own entries instead; what is compiled is shared."""
        return PriceBook(self._base_version, self._lists, own)

    def price(self, usages: pl.DataFrame) -> pl.DataFrame:
        """Price calls.

        Args:
            usages: One row per call. Columns, all but `started_at` optional and nullable: `provider`, `model`,
                `endpoint_host`, `service_tier`, `region`, `billing` (text), `price_context` (text, `key=value` joined
                by commas, in the keys of the price data; goes before what the service tier stands for),
                `started_at` (UTC instant), the token counts named in `rates.KINDS` (integers, inclusive: parts are
                inside the totals) and `units` (list of struct{key, value}: counts of other billable units by the
                keys of `units.UNITS`). Other columns are ignored: cache writes kept for other times than 5 minutes
                or an hour have no price of their own and count as `cache_write_tokens`.

        Returns:
            A frame of the same height and order: `list_cost_usd` and its parts `list_input_usd`,
            `list_cache_read_usd`, `list_cache_write_usd`, `list_output_usd`, `list_units_usd` (other units and fees
            per request), which sum to it to the last digit; `billed_cost_usd`, after terms, 0 on own hardware;
            `cache_saving_usd`, at list; all DECIMAL(18,12), null when unknown; `price_status`, `price_entry`,
            `price_version`.

            *unpriced*: no such model, or it is not billed by what the call reports, or no FX rate is known; all list
            amounts null. *partial*: a total (`input_tokens`, `output_tokens`) that the entry has a price for is
            unknown, a unit has no price, or the counts contradict each other; the amounts hold the known parts, and
            are null where nothing is known.

        Raises:
            ValueError: `started_at` is missing, null or not in UTC, or a count is not an integer.
        """
        calls = checked(usages)
        counts, units = token_counts(calls), unit_counts(calls)
        at = self._located(calls, counts["input_tokens"].values)
        listed = _priced(at.table, at.cell, counts, units)
        billed, billed_unknown = listed.total, listed.nothing_known
        if len(at.terms):
            after = _priced(at.after, at.after_cell, _rows(counts, at.terms), units and units.of(at.terms))
            billed, billed_unknown = billed.copy(), billed_unknown.copy()
            billed[at.terms] = after.total
            billed_unknown[at.terms] |= after.nothing_known | ~at.after_known
        hardware = (calls["billing"] == SELF_HOSTED).fill_null(value=False).to_numpy()
        if hardware.any():
            billed, billed_unknown = np.where(hardware, 0, billed), billed_unknown & ~hardware
        return pl.DataFrame(
            {
                "list_cost_usd": _usd(listed.total, listed.nothing_known),
                **{f"list_{part}_usd": _usd(listed.parts[part], listed.unknown_parts[part]) for part in PARTS},
                "billed_cost_usd": _usd(billed, billed_unknown),
                "cache_saving_usd": _usd(listed.saving, listed.nothing_known),
                "price_status": pl.Series(STATUSES).gather(listed.status),
                "price_entry": at.labels.gather(np.where(listed.status == _UNPRICED, at.no_label, at.cell)),
                "price_version": pl.repeat(self.version, len(calls), dtype=pl.String, eager=True),
            }
        )

    def explain(self, usage: Mapping[str, object]) -> PriceExplanation:
        """Derive the cost of one call line by line.

        Args:
            usage: The columns that `price` takes, for one call; others are ignored. `units` and `price_context` may
                be objects.

        Raises:
            ValueError: As `price`.
        """
        calls = checked(one_call(usage))
        names = Names(*(calls[name][0] for name in LOOKED_UP_BY))
        row = self.price(calls).row(0, named=True)
        return explanation.derive(self.version, names, self._lists, self._stack(names), calls, row)

    def models(self, provider: str | None = None) -> pl.DataFrame:
        """The bundled prices, one row per dated entry, in the order of the price data.

        Args:
            provider: Only price lists of this provider, in any spelling that calls may use; None for all.

        Returns:
            A frame with `provider`, `model`, `name`, `variant`, `effective_from` (UTC instant, null: from the start),
            `daily_from` (UTC), `above_input_tokens`, prices as DECIMAL(38,18) USD (`input_usd_per_mtok`, …,
            `web_searches_usd_per_kcount`, …; null: no price of its own), `source` and `price_entry`.

        Raises:
            ValueError: The price data has no such provider.
        """
        return listing.models(self._lists.rates, provider)

    def history(
        self, provider: str | None, model: str | None, *, endpoint_host: str | None = None, region: str | None = None
    ) -> pl.DataFrame:
        """How the list prices of one model developed, own entries included, for a standard request of small size.

        Returns:
            A frame of consecutive rows, oldest first: `from` and `to` (UTC instants, null: open), `hours` (the daily
            period, where prices vary over the day: its longest), prices as in `models`, `price_entry` and `source`
            (null where there is no price), `kind` ("bundled" or "override"). Empty where nothing is known of it.
        """
        return listing.history(self._stack(Names(provider, model, endpoint_host, region=region)))

    def suggest(self, provider: str | None, model: str | None) -> list[str]:
        """Listed models with names close to one, as "provider/model", best first, those of the provider before."""
        return list(listing.suggest(self._lists.rates, provider, model))

    def problems(self) -> list[str]:
        """What of the own entries cannot work with this price data, and what to do about it."""
        return list(self._layers.problems())

    def _stack(self, names: Names) -> Stack:
        return self._layers.stack(self._layers.meet(names) or Met(self._lists.place(names), (), (), ()))

    def _meet(self, told: tuple[str | None, ...]) -> Met | int:
        """What of the own entries a combination meets, or else the place of its entry in the lists."""
        names = Names._make(told)
        return self._layers.meet(names) or self._lists.place(names)

    def _places_of(self, told: Iterable[tuple[str | None, ...]]) -> list[int]:
        """Where combinations are priced: an entry of the lists, or less than 0 for one of the merged.

        Those that nobody asked for before are compiled together: each compilation lays out all arrays again.
        """
        met = [self._met_by(one) for one in told]
        if self.own and any(isinstance(one, Met) and one not in self._places for one in met):
            with self._lock:
                new = [one for one in dict.fromkeys(met) if isinstance(one, Met) and one not in self._places]
                first = len(self._merged.entries)
                self._merged = Rates([self._layers.stack(one).grid() for one in new], self._merged)
                self._places.update({one: at for at, one in enumerate(new, start=first)})
        return [-self._places[one] if isinstance(one, Met) else one for one in met]

    def _located(self, calls: pl.DataFrame, input_tokens: Ints) -> "_Located":
        """The cells that calls are priced by: as a rule those of the lists, else a table of the cells in use."""
        place = self._placed(calls)
        started_at_us = calls["started_at"].to_physical().to_numpy()
        lists, merged = self._lists.rates, self._merged
        cell = lists.locate(np.maximum(place, 0), started_at_us, input_tokens)
        own = np.flatnonzero(place < 0)
        own_cell = merged.locate(-place[own], started_at_us[own], input_tokens[own])
        terms = np.flatnonzero(merged.terms[own_cell] | ~merged.billed_known[own_cell])
        after = (own[terms], merged.billed, own_cell[terms], merged.billed_known[own_cell[terms]])
        if not len(own):
            return _Located(cell, lists.listed, lists.labels, 0, *after)
        cell[own] = own_cell + len(lists.cells)
        used = np.zeros(len(lists.cells) + len(merged.cells), dtype=np.bool_)
        used[cell] = True
        used[0] = True
        chosen = np.flatnonzero(used)
        of_lists, of_merged = chosen[chosen < len(lists.cells)], chosen[chosen >= len(lists.cells)] - len(lists.cells)
        table = lists.listed.take(of_lists).joined(merged.listed.take(of_merged))
        labels = pl.concat([lists.labels.gather(of_lists), merged.labels.gather(of_merged)])
        return _Located((np.cumsum(used) - 1)[cell], table, labels, 0, *after)

    def _placed(self, calls: pl.DataFrame) -> Ints:
        told = [name for name in LOOKED_UP_BY if calls[name].null_count() < len(calls)]
        if not told:
            return np.full(len(calls), self._places_of([(None,) * len(LOOKED_UP_BY)])[0])
        rows = calls.select(told).with_row_index("_row").group_by(told).agg("_row")
        combinations = rows.with_columns(
            pl.lit(None, pl.String()).alias(name) for name in LOOKED_UP_BY if name not in told
        ).select(LOOKED_UP_BY)
        places = self._places_of(combinations.iter_rows())
        found = np.empty(len(calls), dtype=np.int64)
        found[rows["_row"].explode().to_numpy()] = np.repeat(places, rows["_row"].list.len().to_numpy())
        return found


class _Located(NamedTuple):
    """Where calls are priced: their cells of `table`; those with terms again, at `after_cell` of `after`."""

    cell: Ints
    table: Table
    labels: pl.Series
    no_label: int
    terms: Ints
    after: Table
    after_cell: Ints
    after_known: Bools


class _Priced(NamedTuple):
    """Amounts in pico-dollars and what is known of them, row by row."""

    total: Ints
    parts: Mapping[str, Ints]
    saving: Ints
    status: Ints
    nothing_known: Bools
    unknown_parts: Mapping[str, Bools]


def _priced(table: Table, cell: Ints, counts: Mapping[str, Count], units: Units | None) -> _Priced:
    """Calls with other units apart from those without, which are most."""
    priced = _priced_alike(table, cell, counts, None)
    if units is not None:
        rows = np.flatnonzero(units.told)
        some = _priced_alike(table, cell[rows], _rows(counts, rows), units.of(rows))
        for of_all, of_some in zip(_arrays(priced), _arrays(some), strict=True):
            of_all[rows] = of_some
    return priced


def _arrays(priced: _Priced) -> Iterator[npt.NDArray[Any]]:
    for one in priced:
        if isinstance(one, Mapping):
            yield from one.values()
        else:
            yield one


def _priced_alike(table: Table, cell: Ints, counts: Mapping[str, Count], units: Units | None) -> _Priced:
    billed = table.quantities(cell, counts, units)
    amounts = table.amounts(cell, billed.billed)
    unpriced = ~(table.bills_every_call[cell] | billed.priced_units) | amounts.overflow
    unknown = {part: _unknown_total(table, cell, counts, f"{part}_tokens") for part in ("input", "output")}
    partial = billed.contradictory | billed.unpriced_units | unknown["input"] | unknown["output"]
    nothing_known = unpriced | ((unknown["input"] | unknown["output"]) & (amounts.total == 0))
    unknown_parts = dict.fromkeys(PARTS, nothing_known)
    for part, is_unknown in unknown.items():
        unknown_parts[part] = nothing_known | (is_unknown & (amounts.parts[part] == 0))
    status = np.where(unpriced, _UNPRICED, np.where(partial, _PARTIAL, _PRICED))
    return _Priced(amounts.total, amounts.parts, amounts.saving, status, nothing_known, unknown_parts)


def _unknown_total(table: Table, cell: Ints, counts: Mapping[str, Count], column: str) -> Bools:
    """Where a total is unknown and would have cost something."""
    unknown = counts[column].unknown
    if not unknown.any():
        return unknown
    costs: Bools = (table.exact[INDEX[column]][cell] > 0).astype(np.bool_)
    return unknown & costs


def _rows(counts: Mapping[str, Count], rows: Ints) -> dict[str, Count]:
    return {name: Count(count.values[rows], count.unknown[rows]) for name, count in counts.items()}


def _usd(pico: Ints, null: Bools) -> pl.Series:
    """Pico-dollars as DECIMAL(18,12), which in Arrow's layout of 64 bits they are already."""
    validity = pa.py_buffer(np.packbits(~null, bitorder="little").data) if null.any() else None
    values = pa.py_buffer(np.ascontiguousarray(pico).data)
    array = pa.Array.from_buffers(pa.decimal64(18, 12), len(pico), [validity, values])
    return pl.Series(pl.from_arrow(array), dtype=USD)


@cache
def _bundled() -> PriceBook:
    return PriceBook(bundled.VERSION, tuple(bundled.entries()))
