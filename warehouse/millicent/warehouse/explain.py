"""Why a call costs what it does, line by line: counting, tokens and rule, price entry or deployment-hour, rounding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import select

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

    The amounts of `list` lines add up to `list_cost_usd`, those of `own hardware` to `effective_cost_usd`. A call that
    is not counted says first why, and which row counts instead.
    """
    derived = [*_counting(call), *_tokens(call), *_list_price(prices, tenant, call)]
    if call["billing"] == "self_hosted":
        return [*derived, *_own_hardware(engine, tenant, call)]
    return [*derived, Line("effective", "billed cost of the API call", _text(call["effective_cost_usd"]), "USD", "")]


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
    for flag in call["usage_flags"]:
        yield Line("tokens", f"flag {flag}: {USAGE_FLAGS.get(flag, 'no words for it')}", "", "", rule)


def _list_price(prices: Prices, tenant: str, call: dict[str, Any]) -> Iterator[Line]:
    present = prices.book(tenant)
    stored = prices.of_version(tenant, call["price_version"]) if call["price_version"] else None
    why = (stored or present).explain(call)
    if why.lines:
        bounds = f"{_day(why.effective_from) or 'the first price'} to {_day(why.effective_to) or 'now'}"
        entry = f"{why.entry}, in force from {bounds}, {why.version}; {' '.join(why.sources)}".rstrip("; ")
        for line in why.lines:
            what = f"{line.quantity:,} {line.kind} × {_text(line.unit_price_usd)} USD ÷ {line.per:,}"
            yield Line("list price", what, _text(line.amount_usd), "USD", entry)
        yield Line("list price", "rounding to 12 decimals, half-even", _text(why.rounding_usd), "USD", "")
    if why.reason:
        yield Line("list price", why.reason, "", "", why.version)
    yield Line("list price", "list cost", _text(call["list_cost_usd"]), "USD", call["price_version"] or "")
    now = why if present.version == why.version else present.explain(call)
    if call["list_cost_usd"] != now.list_cost_usd:
        told = (
            f"the present price book ({now.version}) would say {_text(now.list_cost_usd)}; stored amounts do not move"
        )
        yield Line("list price", told, "", "", call["price_version"] or "")


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
