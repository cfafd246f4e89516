"""Why a call costs what it does, to the last digit, derived from the entries themselves and not from the arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Context, Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from millicent.pricing import bundled
from millicent.pricing.bundled import Found
from millicent.pricing.entries import FxRate, Override, Term
from millicent.pricing.layers import Applied, Stack
from millicent.pricing.listing import clock_at, instant, suggest
from millicent.pricing.lists import SELF_HOSTED, Lists, Names
from millicent.pricing.rates import PARTS, PRICED, UNIT_INDEX, bills_every_call
from millicent.pricing.tables import Quantities, Table
from millicent.pricing.units import REQUESTS, UNIT, Unit
from millicent.pricing.usages import token_counts, unit_counts

_EXACT = Context(prec=100)
_LINE_DIGITS = Decimal("1e-24")


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One product of the derivation: `quantity × unit_price_usd ÷ per = amount_usd`, exact; of seconds to 24 decimals.

    `kind` is a token column of the record or another unit's key, "requests" for a fee per request. `part` is the part
    of the list cost that the line counts in. `how` says how the unit price was computed where it is not as published.
    """

    kind: str
    part: str
    quantity: int
    unit_price_usd: Decimal
    per: int
    amount_usd: Decimal
    price_key: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class PriceExplanation:
    """Why a call costs what it does.

    `sum(line.amount_usd for line in lines) + rounding_usd == list_cost_usd`, exactly, and the same of the billed cost.

    Attributes:
        status: "priced", "partial" (the lines are the known parts) or "unpriced".
        version: The price book that was used.
        entry: The dated price entry, as stored with the call.
        provider: Who served the call, by the price data's id.
        price_list: The provider on whose price list the model stands; None for prices of our own.
        model: The model's id there.
        variant: Request context that the entry holds for, such as "service_tier=flex".
        sources: Pages on which the prices can be read, or the contract they are from.
        note: What the price data, or the override, says about the list.
        effective_from: First instant at which these prices hold (UTC); None: since the model's first price.
        effective_to: First instant at which they no longer hold; None: open.
        daily_from: Time of day from which they hold, in UTC or the override's zone, where prices vary over the day.
        daily_to: Time of day at which they stop.
        above_input_tokens: They hold for requests with more input tokens than this.
        lines: The derivation of the list cost.
        rounding_usd: What rounding the total to 12 decimals (half-even) added.
        list_cost_usd: The amount stored with the call; None when unknown.
        cache_saving_usd: What caching saved against plain input prices; None when unknown.
        reason: Why the call is partial or unpriced, and what to do about it.
        override: The own entry that the list prices are from.
        terms: The terms that the billed cost follows, each once.
        fx: The exchange rates used.
        billed_lines: The derivation of the billed cost; empty on own hardware, where nothing is billed per call.
        billed_rounding_usd: As `rounding_usd`.
        billed_cost_usd: The amount stored with the call; None when unknown.
    """

    status: Literal["priced", "partial", "unpriced"]
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
    override: Override | None = None
    terms: tuple[Term, ...] = ()
    fx: tuple[FxRate, ...] = ()
    billed_lines: tuple[PriceLine, ...] = ()
    billed_rounding_usd: Decimal = Decimal(0)
    billed_cost_usd: Decimal | None = None


def derive(
    version: str, names: Names, lists: Lists, stack: Stack, calls: pl.DataFrame, row: Mapping[str, Any]
) -> PriceExplanation:
    """Explain one call.

    Args:
        version: Of the book.
        names: What the call is looked up by.
        lists: The bundled lists.
        stack: All that concerns these names.
        calls: The call, as `usages.checked` gives it.
        row: What `PriceBook.price` makes of it.
    """
    found = lists.find(*names[:3])
    counts = token_counts(calls)
    applied = stack.at(calls["started_at"][0], int(counts["input_tokens"].values[0]))
    if applied.prices is None:
        reason = applied.reason or _why_not_found(names, found, lists)
        return PriceExplanation(
            row["price_status"], version, reason=reason, provider=found.provider if found else None,
            override=applied.override, billed_cost_usd=row["billed_cost_usd"],
        )  # fmt: skip
    billed = _quantities(applied.prices, applied, calls)
    unpriced = row["price_status"] == "unpriced"
    lines = () if unpriced else _lines("list", applied.prices, billed, applied)
    hardware = names.billing == SELF_HOSTED
    billed_lines: tuple[PriceLine, ...] = ()
    if applied.billed is not None and not hardware and not unpriced:
        billed_lines = _lines("billed", applied.billed, _quantities(applied.billed, applied, calls), applied)
    return PriceExplanation(
        status=row["price_status"],
        version=version,
        entry=applied.label,
        provider=found.provider if found else None,
        **_origin(applied),
        lines=lines,
        rounding_usd=_rounding(row["list_cost_usd"], lines),
        list_cost_usd=row["list_cost_usd"],
        cache_saving_usd=row["cache_saving_usd"],
        reason=_why_incomplete(row["price_status"], applied, billed, calls) or applied.reason,
        override=applied.override,
        terms=tuple({id(term): term for term in applied.terms.values()}.values()),
        fx=tuple(applied.fx.values()),
        billed_lines=billed_lines,
        billed_rounding_usd=Decimal(0) if hardware else _rounding(row["billed_cost_usd"], billed_lines),
        billed_cost_usd=row["billed_cost_usd"],
    )


def _origin(applied: Applied) -> dict[str, Any]:
    """Where the list prices are from, and when they hold."""
    origin: dict[str, Any] = {}
    if applied.listed is not None:
        entry, offset = applied.listed
        (since, until), (clock_from, clock_to), (above, _) = entry.bounds(offset)
        origin = {
            "price_list": entry.provider, "model": entry.model, "variant": entry.variant, "sources": entry.sources,
            "note": entry.note, "effective_from": instant(since), "effective_to": instant(until),
            "daily_from": clock_at(clock_from or 0) if entry.clocks else None,
            "daily_to": clock_at(clock_to or 0) if entry.clocks else None, "above_input_tokens": above,
        }  # fmt: skip
    if (own := applied.override) is None:
        return origin
    ends = [end for end in (own.effective_to, origin.get("effective_to")) if end is not None]
    zone = ZoneInfo(own.zone)
    return {
        **origin,
        "model": origin.get("model") or own.model,
        "sources": (own.source, *origin.get("sources", ())),
        "note": own.note or origin.get("note"),
        "effective_from": max(own.effective_from, origin.get("effective_from") or own.effective_from),
        "effective_to": min(ends, default=None),
        "daily_from": own.daily_from.replace(tzinfo=zone) if own.daily_from else origin.get("daily_from"),
        "daily_to": own.daily_to.replace(tzinfo=zone) if own.daily_to else origin.get("daily_to"),
        "above_input_tokens": origin.get("above_input_tokens") if applied.listed else applied.above,
    }


def _quantities(prices: Mapping[str, Decimal], applied: Applied, calls: pl.DataFrame) -> Quantities:
    table = Table.of([prices], [applied.least_seconds])
    return table.quantities(np.zeros(1, dtype=np.int64), token_counts(calls), unit_counts(calls))


def _lines(which: str, prices: Mapping[str, Decimal], billed: Quantities, applied: Applied) -> tuple[PriceLine, ...]:
    quantities = {index: int(quantity[0]) for index, quantity in billed.billed.items() if quantity[0]}
    if UNIT[REQUESTS].price_key in prices:
        quantities[UNIT_INDEX[REQUESTS]] = 1
    lines = []
    for index, quantity in sorted(quantities.items(), key=lambda one: -one[0]):
        one = PRICED[index]
        price = prices[one.price_key]
        amount = _EXACT.divide(_EXACT.multiply(price, quantity), Decimal(one.per))
        amount = amount if len(amount.as_tuple().digits) < _EXACT.prec else amount.quantize(_LINE_DIGITS)
        how = applied.steps.get((which, one.price_key), "") or applied.steps.get(("list", one.price_key), "")
        name, part = (one.key, PARTS[-1]) if isinstance(one, Unit) else (one.column, one.part)
        lines.append(PriceLine(name, part, quantity, _plain(price), one.per, _plain(amount), one.price_key, how))
    return tuple(sorted(lines, key=lambda line: PARTS.index(line.part)))


def _rounding(cost: Decimal | None, lines: tuple[PriceLine, ...]) -> Decimal:
    exact = Decimal(0)
    for line in lines:
        exact = _EXACT.add(exact, line.amount_usd)
    return Decimal(0) if cost is None else _plain(_EXACT.subtract(cost, exact))


def _plain(amount: Decimal) -> Decimal:
    """Without trailing zeros and without an exponent, as people write it."""
    return Decimal(f"{amount.normalize(_EXACT):f}")


def _why_not_found(names: Names, found: Found | None, lists: Lists) -> str:
    provider, model, host = names[:3]
    if not model:
        return "The call names no model. Record the request or response model on the span."
    if found is not None:
        return (
            f"Model {model!r} is {found.owner}/{found.model}, which this price data does not have. Add a price for it."
        )
    known = bundled.find_provider(provider, host)
    where = f"on the price list of {known!r}" if known else f"for provider {provider!r} at {host!r}"
    close = suggest(lists.rates, provider, model)
    hint = f"Close names: {', '.join(close)}. " if close else ""
    return f"Model {model!r} is not {where}. {hint}Correct the provider or model name, or add a price for it."


def _why_incomplete(status: str, applied: Applied, billed: Quantities, calls: pl.DataFrame) -> str | None:
    if status == "priced":
        return None
    prices = applied.prices or {}
    if status == "unpriced" and not bills_every_call(prices) and not billed.priced_units[0]:
        return f"This model is not billed by tokens but by {', '.join(sorted(prices))}, which the call does not report."
    if status == "unpriced":
        return "The amount does not fit 999,999.999999999999 USD: check the token counts."
    if billed.contradictory[0]:
        return (
            "The counts leave open what is billed: a part exceeds its total, or cached tokens of several "
            "modalities overlap by an unknown count. Remainders are taken as 0; check how usage is reported."
        )
    if billed.unpriced_units[0]:
        told = ", ".join(sorted(one["key"] or "?" for one in calls["units"][0]))
        return f"The call reports units ({told}) of which some have no price here: add them to an override."
    return "A total token count is unknown; the lines are what is known. Report input and output tokens."
