"""Why a call, or an hour of own hardware, costs what it does, line by line.

Of a call: counting, tokens and rule, price entry or deployment-hour, rounding. Of a deployment-hour: its inputs with
their sources, what it cost, the evidence, where it went, who carries what no call does, energy and carbon.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, Final

from sqlalchemy import Select, Table, select

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import FxRate, Override, Term
from millicent.pricing.explanation import PriceExplanation, PriceLine
from millicent.pricing.profiles import MATH
from millicent.warehouse.engine import Engine
from millicent.warehouse.prices import Prices
from millicent.warehouse.record import NOT_COUNTED, USAGE_FLAGS
from millicent.warehouse.tables import deployment_hours, idle_shares, without_zone


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
    `list_cost_usd`, those of `billed price` to `billed_cost_usd`, those of `own hardware` in USD to
    `effective_cost_usd`. A call that is not counted says first why, and which row counts instead.
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
    found = _hour(engine, tenant, call["deployment"], call["started_at"])
    if found is None:
        why = "its deployment-hour has no rate: " + (
            f"declare deployment {call['deployment']!r} with `millicent deployments declare`"
            if call["deployment"]
            else "tag the call with a deployment (millicent.deployment) and declare it"
        )
        yield Line("own hardware", why, "unknown", "USD", "")
        return
    row, shares = found
    yield from _of_hour(row, shares)
    yield from _of_call(row, call)


# ---- own hardware


def hour_lines(engine: Engine, tenant: str, deployment: str, hour: datetime) -> list[Line]:
    """The derivation of one deployment-hour, in reading order; nothing where there is no such hour.

    The amounts of each of these steps add up to its last line: `deployment-hour`, `where it went`, `busy`, `idle`,
    `unavailable`, `energy of the hour`, `carbon of the hour` and `carbon, market-based`.

    Args:
        engine: the facts.
        tenant: whose.
        deployment: its name, or that of a reservation.
        hour: any instant in it, aware.
    """
    found = _hour(engine, tenant, deployment, hour)
    return [] if found is None else list(_of_hour(*found))


_Row = dict[str, Any]
KINDS: Final = ("busy", "idle", "unavailable", "untracked")
SIDES: Final = (("input", ""), ("output", "output_"))


def _hour(engine: Engine, tenant: str, deployment: str | None, instant: datetime) -> tuple[_Row, list[_Row]] | None:
    """A row of `deployment_hours`, and who carries what of it."""
    hour = without_zone(instant).replace(minute=0, second=0, microsecond=0)

    def of(rows: Table) -> Select[Any]:
        return select(rows).where(rows.c.tenant == tenant, rows.c.deployment == deployment, rows.c.hour == hour)

    found = engine.read(of(deployment_hours)).to_pylist()
    if not found:
        return None
    shares = engine.read(of(idle_shares).order_by(idle_shares.c.usd.desc(), idle_shares.c.team)).to_pylist()
    return found[0], shares


def _of_hour(row: _Row, shares: Sequence[_Row]) -> Iterator[Line]:
    for told in json.loads(row["sources"]):
        yield Line("inputs of the hour", told["name"], told["value"], told["unit"], told["source"])
    where = _where(row)
    costs = {part: row[f"{part}_usd"] for part in ("fixed", "energy", "hosting")}
    so_far = ", so far" if row["provisional"] else ""
    yield from _adding_up("deployment-hour", costs, (f"cost of the hour{so_far}", "USD"), where)
    yield from _evidence(row)
    went = {_words(kind, row): row[f"{kind}_usd"] for kind in KINDS if row[f"{kind}_usd"] is not None}
    yield from _adding_up("where it went", went, (f"cost of the hour{so_far}", "USD"), row["method"])
    yield from _rates(row)
    for kind in ("idle", "unavailable"):
        carried = [share for share in shares if share["kind"] == kind]
        if carried:
            yield from _carried(row, kind, carried)
    yield from _drawn(row, "energy of the hour", "joules", "J", row["energy_source"] or "modelled")
    yield from _drawn(row, "carbon of the hour", "gco2e_g", "g", "location-based: the grid it was drawn from")
    yield from _drawn(row, "carbon, market-based", "gco2e_market_g", "g", "by the electricity that was bought")


def _where(row: _Row) -> str:
    chips = f"{row['accelerator_count']} × {row['accelerator'] or 'reserved accelerators'}"
    pool = f", pool {row['pool']}" if row["pool"] not in {None, row["deployment"]} else ""
    contract = f", reservation {row['contract']}" if row["contract"] not in {None, row["deployment"]} else ""
    return f"{row['deployment']}, {chips}{pool}{contract}, {row['hour']:%Y-%m-%d %H:%M} UTC"


def _adding_up(step: str, parts: Mapping[str, Decimal], total: tuple[str, str], source: str) -> Iterator[Line]:
    """Amounts, and what they add up to."""
    name, unit = total
    of = " + ".join(_short(what) for what in parts) if len(parts) <= len(KINDS) else "the sum of these"
    for what, amount in parts.items():
        yield Line(step, what, _text(amount), unit, source)
    with localcontext(MATH):
        yield Line(step, name, _text(sum(parts.values(), Decimal(0))), unit, of)


def _short(what: str) -> str:
    return re.split("[:,]", what)[0]


def _words(kind: str, row: _Row) -> str:
    """What a part of the hour is, with the time that it lasted where that is known."""
    elapsed = f"of {row['elapsed_ms']:,} ms"
    if kind == "busy":
        return f"busy: what its calls carry, {row['busy_ms']:,} {elapsed}"
    if kind == "unavailable":
        return f"unavailable: loading, compiling, failure, {row['unavailable_ms'] or 0:,} {elapsed}"
    if kind == "untracked":
        unobserved = row["unobserved_ms"]
        return "untracked: tokens that no known call explains" + (
            f", and {unobserved:,} {elapsed} that nobody observed" if unobserved else ""
        )
    return "idle: no request ran, and what rounding leaves"


def _evidence(row: _Row) -> Iterator[Line]:
    """What the split of the hour stands on."""
    by = {"engine": "the engine's own meters", "calls": "union of call intervals"}.get(
        row["busy_source"] or "calls", ""
    )
    policy = "the built-in policy" if row["policy"] is None else f"policy {row['policy']}"
    since = f", declared from {_day(row['declared_from'])}" if row["declared_from"] else ""
    yield Line("evidence", f"allocated under {policy}", "", "", row["method"])
    yield Line("evidence", f"computed {_day(row['computed_at'])}{since}", "", "", row["computed_from"] or "")
    for what, name, source in (
        ("elapsed", "elapsed_ms", ""),
        ("busy", "busy_ms", by),
        ("unavailable", "unavailable_ms", by),
        ("nobody observed", "unobserved_ms", by),
    ):
        if row[name] or name in {"elapsed_ms", "busy_ms"}:
            yield Line("evidence", what, _text(row[name]), "ms", source)
    for side, _ in SIDES:
        counted, seen = row[f"engine_{side}_tokens"], row[f"{side}_tokens"]
        if seen is not None:
            yield Line("evidence", f"{side} tokens of its calls", _text(seen), "tokens", "calls that began in the hour")
        if counted is not None:
            told = f"{side} tokens by the engine's own counters"
            yield Line("evidence", told, _text(counted), "tokens", "their increase over the hour")


def _rates(row: _Row) -> Iterator[Line]:
    """What a thousandth of weight costs, and what the tokens of the hour so carry: together the busy cost."""
    weighed = f"{row['w_input']} uncached input, {row['w_cached']} cached input, {row['w_output']} output"
    yield Line("busy", "weighted tokens served", _text(row["weight"]), "thousandths", f"weights {weighed}")
    for side, prefix in SIDES:
        rate = "rate of a thousandth of weight, rounded down to 24 decimals"
        yield Line(
            "busy", f"{side}: {rate}", _text(_rate(row, "rate_usd", prefix)), "USD per thousandth", row["method"]
        )
    served = [row[name] for name in ("input_tokens", "cached_tokens", "output_tokens")]
    if row["rate_usd_per_weight"] is None or None in served:
        return
    weights = _weights(row, served[0] - served[1], served[1], served[2])
    with localcontext(MATH):
        parts = {
            f"{side}: {formula} × rate": weight * _rate(row, "rate_usd", prefix)
            for (side, prefix), (formula, weight) in zip(SIDES, weights, strict=True)
        }
    yield from _adding_up("busy", parts, ("busy cost", "USD"), row["method"])


def _rate(row: _Row, what: str, prefix: str) -> Any:
    """A rate of the hour; that of input where output has none of its own."""
    rate = row[f"{prefix}{what}_per_weight"]
    return row[f"{what}_per_weight"] if rate is None else rate


def _weights(row: _Row, fresh: int, cached: int, output: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """How tokens in and out are weighed, and what they weigh in thousandths."""
    return (
        (
            f"({fresh:,} × {row['w_input']} + {cached:,} × {row['w_cached']})",
            fresh * row["w_input"] + cached * row["w_cached"],
        ),
        (f"({output:,} × {row['w_output']})", output * row["w_output"]),
    )


def _carried(row: _Row, kind: str, shares: Sequence[_Row]) -> Iterator[Line]:
    """Who carries what no call did."""
    parts = {f"carried by team {share['team']}": share["usd"] for share in shares if share["team"] is not None}
    with localcontext(MATH):
        rest = (row[f"{kind}_usd"] or Decimal(0)) - sum(parts.values(), Decimal(0))
    if rest:
        parts["nobody could carry it: a line of its own"] = rest
    yield from _adding_up(kind, parts, (f"{kind} cost", "USD"), row["method"])


def _drawn(row: _Row, step: str, name: str, unit: str, source: str) -> Iterator[Line]:
    """Energy or carbon of the hour: what its calls carry of it, and what they do not."""
    if row[name] is None:
        return
    known = {kind: row[f"{kind}_{name}"] or Decimal(0) for kind in KINDS if kind != "idle"}
    with localcontext(MATH):
        idle = row[name] - sum(known.values(), Decimal(0))
    parts = {"busy": known["busy"], "idle": idle, **{kind: known[kind] for kind in ("unavailable", "untracked")}}
    yield from _adding_up(step, {kind: amount for kind, amount in parts.items() if amount}, ("the hour", unit), source)


def _of_call(row: _Row, call: _Row) -> Iterator[Line]:
    """What a call carries of its hour; its parts add up to its effective cost, its energy and its carbon."""
    cached = call["cache_read_tokens"] or 0
    weights = _weights(row, (call["input_tokens"] or 0) - cached, cached, call["output_tokens"] or 0)
    where = _where(row)
    for (side, _), (formula, weight) in zip(SIDES, weights, strict=True):
        kinds = "uncached, cached" if side == "input" else "output"
        yield Line("own hardware", f"{side} weight: {formula.strip('()')}", _text(weight), "thousandths", kinds)
    if row["rate_usd_per_weight"] is None:
        yield Line("own hardware", "effective cost: the hour has no rate", "unknown", "USD", where)
        return
    for step, what, total, unit in (
        ("own hardware", "rate_usd", "effective cost", "USD"),
        ("energy of the call", "joules", "energy", "J"),
        ("carbon of the call", "gco2e_g", "location-based carbon", "g"),
    ):
        if row[f"{what}_per_weight"] is not None:
            with localcontext(MATH):
                parts = {
                    f"{side}: weight × rate of {side}": weight * _rate(row, what, prefix)
                    for (side, prefix), (_, weight) in zip(SIDES, weights, strict=True)
                }
            yield from _adding_up(step, parts, (f"{total} = input + output", unit), where)


def _text(value: Decimal | int | None) -> str:
    """Digits without exponent or trailing zeros; "unknown" for None."""
    if value is None:
        return "unknown"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _day(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else ""
