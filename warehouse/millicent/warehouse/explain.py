"""Why a call costs what it does, line by line: counting, tokens and rule, price entry or deployment-hour, rounding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import select

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import FxRate, Override, Term
from millicent.pricing.explanation import PriceExplanation, PriceLine
from millicent.pricing.profiles import MATH
from millicent.warehouse.engine import Engine
from millicent.warehouse.prices import Prices
from millicent.warehouse.record import NOT_COUNTED, USAGE_FLAGS
from millicent.warehouse.tables import deployment_hours


@dataclass(frozen=True, slots=True)
class Line:
    """One step of a derivation: what it is, how it was computed, what came out, where its inputs are from."""

    step: str
    what: str
    value: str
    unit: str
    source: str


def lines(engine: Engine, prices: Prices, tenant: str, call: dict[str, Any]) -> list[Line]:
    """The derivation of one call (a row of `calls.find`), in reading order.

    Prices are derived by the very book that the call was priced by. The amounts of `list price` lines add up to
    `list_cost_usd`, those of `billed price` to `billed_cost_usd`, those of `own hardware` to `effective_cost_usd`. A
    call that is not counted says first why, and which row counts instead.
    """
    present = prices.book(tenant)
    book = prices.of_version(tenant, call["price_version"]) if call["price_version"] else None
    why = _derived(book or present, call)
    derived = [*_counting(call), *_tokens(call)]
    if call["price_version"] and book is None:
        told = f"price book {call['price_version']} is not kept: derived by the present one, {present.version}"
        derived.append(Line("list price", told, "", "", ""))
    now = why if present.version == why.version else present.explain(call)
    derived += [*_exchange(why), *_list_price(why, call), *_now(now, call, "list price")]
    if call["billing"] == "self_hosted":
        return [*derived, *_at_a_provider(why, call), *_own_hardware(engine, tenant, call)]
    derived += [*_billed_price(why, call), *_now(now, call, "billed price")]
    return [*derived, Line("effective", "billed cost of the API call", _text(call["effective_cost_usd"]), "USD", "")]


def _derived(book: PriceBook, call: dict[str, Any]) -> PriceExplanation:
    """Why `book` prices the call as it does; where it takes the names for others now, by the entry that was applied."""
    why = book.explain(call)
    provider, slash, model = (call["price_entry"] or "").partition(" ")[0].partition("/")
    if slash and why.entry != call["price_entry"]:
        again = book.explain({**call, "provider": provider, "model": model, "endpoint_host": None})
        if again.entry == call["price_entry"]:
            return again
    return why


def _counting(call: dict[str, Any]) -> Iterator[Line]:
    if call["counted"]:
        return
    reason = call["not_counted_reason"] or "no reason was stored"
    yield Line("counting", f"not counted: {NOT_COUNTED.get(reason, reason)}", "", "", reason)
    if call["counted_as"] is not None:
        counts = f"trace {call['counted_as_trace_id'] or call['trace_id']}, span {call['counted_as']}"
        yield Line("counting", "the row that counts", counts, "", "")
    yield Line("counting", "the amounts below are in no sum", "", "", "")


def _tokens(call: dict[str, Any]) -> Iterator[Line]:
    rule = f"dialect rule {call['usage_rule']}, {call['usage_source']}: {call['usage_raw'] or 'no counters came'}"
    for name, what in (
        ("input_tokens", "input, caches included"),
        ("cache_read_tokens", "of it read from a cache"),
        ("cache_write_tokens", "of it written to a cache"),
        ("output_tokens", "output, reasoning included"),
        ("reasoning_tokens", "of it reasoning"),
    ):
        if call[name] is not None or name in {"input_tokens", "output_tokens"}:
            yield Line("tokens", what, _text(call[name]), "tokens", rule)
    for key, count in call["units"].items():
        yield Line("units", key, _text(count), "", rule)
    if call["price_context"]:
        yield Line("units", f"asked for {call['price_context']}", "", "", rule)
    for flag in call["usage_flags"]:
        yield Line("tokens", f"flag {flag}: {USAGE_FLAGS.get(flag, 'no words for it')}", "", "", rule)


def _list_price(why: PriceExplanation, call: dict[str, Any]) -> Iterator[Line]:
    if why.override is not None:
        yield _own_entry("list price", why.override)
    if why.lines:
        yield from _products("list price", why.lines, _entry(why))
        yield Line("list price", "rounding to 12 decimals, half-even", _text(why.rounding_usd), "USD", "")
    if why.reason:
        yield Line("list price", why.reason, "", "", why.version)
    if call["list_cost_usd"] != why.list_cost_usd and call["price_status"] == "not_billed":
        yield Line("list price", "the call failed without usage, which costs nothing", "", "", "")
    yield Line("list price", "list cost", _text(call["list_cost_usd"]), "USD", call["price_version"] or "")


def _at_a_provider(why: PriceExplanation, call: dict[str, Any]) -> Iterator[Line]:
    if why.list_cost_usd is not None:
        where = why.price_list or why.provider
        at = (
            f"what this would have cost at {where}, as {why.model}" if where else "what this would cost by our own list"
        )
        yield Line("at a provider", at, _text(call["list_cost_usd"]), "USD", _entry(why))


def _billed_price(why: PriceExplanation, call: dict[str, Any]) -> Iterator[Line]:
    """What terms make of the list price; nothing where there are none."""
    if not why.terms:
        return
    for term in why.terms:
        yield _own_entry("billed price", term)
    yield from _products("billed price", why.billed_lines, _entry(why))
    yield Line("billed price", "rounding to 12 decimals, half-even", _text(why.billed_rounding_usd), "USD", "")
    yield Line("billed price", "billed cost", _text(call["billed_cost_usd"]), "USD", call["price_version"] or "")


def _products(step: str, found: Iterable[PriceLine], source: str) -> Iterator[Line]:
    for line in found:
        what = f"{line.quantity:,} {line.kind} × {_text(line.unit_price_usd)} USD ÷ {line.per:,}"
        yield Line(step, f"{what} ({line.how})" if line.how else what, _text(line.amount_usd), "USD", source)


def _entry(why: PriceExplanation) -> str:
    bounds = f"{_day(why.effective_from) or 'the first price'} to {_day(why.effective_to) or 'now'}"
    return f"{why.entry}, in force from {bounds}, {why.version}; {' '.join(why.sources)}".rstrip("; ")


def _own_entry(step: str, entry: Override | Term | FxRate) -> Line:
    who = f"{entry.kind.replace('_', ' ')} {entry.id}, by {entry.author or 'nobody named'}"
    since = f"known from {_day(entry.known_from) or 'now on'}"
    return Line(step, ", ".join((who, since, *([entry.note] if entry.note else []))), "", "", entry.source)


def _exchange(why: PriceExplanation) -> Iterator[Line]:
    for rate in why.fx:
        what = f"1 {rate.currency} from {_day(rate.effective_from)}"
        yield Line("exchange rate", what, _text(rate.usd_per_unit), "USD", rate.source)
        yield _own_entry("exchange rate", rate)


def _now(now: PriceExplanation, call: dict[str, Any], step: str) -> Iterator[Line]:
    """What the present book would say, where that is something else."""
    name = {"list price": "list_cost_usd", "billed price": "billed_cost_usd"}[step]
    amount = getattr(now, name)
    failed = call["price_status"] == "not_billed" and call["billing"] == "api"
    if call[name] != amount and not failed:
        told = f"the present price book ({now.version}) would say {_text(amount)}; stored amounts do not move"
        yield Line(step, told, "", "", call["price_version"] or "")


def _own_hardware(engine: Engine, tenant: str, call: dict[str, Any]) -> Iterator[Line]:
    hour = call["started_at"].replace(minute=0, second=0, microsecond=0, tzinfo=None)
    here = deployment_hours.c
    asked = select(deployment_hours).where(
        here.tenant == tenant, here.deployment == call["deployment"], here.hour == hour
    )
    found = engine.read(asked).to_pylist()
    if not found:
        why = "its deployment-hour has no rate: " + (
            f"declare deployment {call['deployment']!r} with `millicent deployments declare`"
            if call["deployment"]
            else "tag the call with a deployment (millicent.deployment) and declare it"
        )
        yield Line("own hardware", why, "unknown", "USD", "")
        return
    row = found[0]
    with localcontext(MATH):
        total = row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"]
    where = f"{call['deployment']}, {row['accelerator_count']} × {row['accelerator']}, {hour:%Y-%m-%d %H:%M} UTC"
    for told in json.loads(row["sources"]):
        yield Line("inputs of the hour", told["name"], told["value"], told["unit"], told["source"])
    for part in ("fixed", "energy", "hosting"):
        yield Line("deployment-hour", part, _text(row[f"{part}_usd"]), "USD", where)
    so_far = ", so far" if row["provisional"] else ""
    yield Line("deployment-hour", f"cost of the hour{so_far}", _text(total), "USD", "fixed + energy + hosting")
    busy = f"busy {row['busy_ms']:,} of {row['elapsed_ms']:,} ms"
    yield Line("deployment-hour", f"busy cost: {busy}", _text(row["busy_usd"]), "USD", row["method"])
    yield Line("deployment-hour", "idle cost, a line of its own", _text(row["idle_usd"]), "USD", row["method"])
    yield Line("deployment-hour", "weighted tokens served", _text(row["weight"]), "thousandths", row["method"])
    rate = "rate = busy cost ÷ weighted tokens, rounded down to 24 decimals"
    yield Line("deployment-hour", rate, _text(row["rate_usd_per_weight"]), "USD per thousandth", row["method"])
    cached = call["cache_read_tokens"] or 0
    fresh, output = (call["input_tokens"] or 0) - cached, call["output_tokens"] or 0
    weight = fresh * row["w_input"] + cached * row["w_cached"] + output * row["w_output"]
    formula = f"{fresh:,} × {row['w_input']} + {cached:,} × {row['w_cached']} + {output:,} × {row['w_output']}"
    yield Line("own hardware", f"weighted tokens: {formula}", _text(weight), "thousandths", "uncached, cached, output")
    effective = "effective cost = weighted tokens × rate"
    yield Line("own hardware", effective, _text(call["effective_cost_usd"]), "USD", where)


def _text(value: Decimal | int | None) -> str:
    """Digits without exponent or trailing zeros; "unknown" for None."""
    if value is None:
        return "unknown"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _day(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else ""
