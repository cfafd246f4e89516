"""How an hour of own hardware was allocated and from what, in words and numbers, for whoever asks why."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

from millicent.pricing.allocation import Allocation
from millicent.pricing.hourly import HourCost
from millicent.warehouse.happened import NO_METERS, Happened, Time
from millicent.warehouse.plan import Span

Line = dict[str, str]
"""`name`, `value`, `unit` and `source` of one number."""


def method(found: Allocation, name: str, span: Span, time: Time) -> str:
    """By what evidence a deployment's hour was allocated, and under which policy."""
    busy = "meters of the engine" if time.source == "engine" else "union of call intervals"
    w = found.weights[name]
    weighed = f"{w.uncached_input} uncached input, {w.cached_input} cached input, {w.output} output"
    told = [
        f"busy = {busy}",
        f"input and output by {found.method}",
        f"weights {weighed}",
        f"cached tokens: {span.policy.cached}",
        f"idle: {span.policy.idle}",
    ]
    if len(span.members) > 1:
        told.append(f"pool {span.pool} is shared by {', '.join(span.names)}")
    return "; ".join(told)


def _line(name: str, value: object, unit: str, source: str) -> Line:
    return {"name": name, "value": str(value), "unit": unit, "source": source}


def told(span: Span, name: str, cost: HourCost, surcharge: Decimal, happened: Happened, time: Time) -> str:
    """Every number that a deployment's hour was made from, as JSON."""
    lines = [_line(i.name, f"{i.value:f}", i.unit, f"{i.origin}: {i.source}") for i in cost.inputs]
    lines.append(_line("energy", cost.energy_source, "", ""))
    if surcharge:
        beyond = f"declared: beyond reservation {span.contract}"
        lines.append(_line("surcharge of the pool", f"{surcharge:f}", "USD", beyond))
    return _json([*lines, *_evidence(span, name, happened, time)])


def unused(span: Span) -> str:
    """What an hour of a reservation costs that nobody took, as JSON."""
    hours = f"declared: {span.unused.normalize():f} accelerator-hours of reservation {span.contract}"
    return _json([_line("unused", f"{span.unused_usd:f}", "USD/h", hours)])


def _json(lines: list[Line]) -> str:
    return json.dumps(lines, ensure_ascii=False)


def _evidence(span: Span, name: str, happened: Happened, time: Time) -> list[Line]:
    """What meters told of the hour, and what was seen of it."""
    meters = happened.meters.get(name, NO_METERS)
    lines = [_line("calls ran", happened.busy_ms, "ms", "union of call intervals" + _together(span))]
    for (source, role), row in meters.rows.items():
        where = f"measured: {source}{f', {role}' if role else ''}"
        read = f"{where}, counters read across {row['counted_ms'] or 0:,} of {time.elapsed:,} ms"
        for column, (what, unit) in _TOLD.items():
            if row[column] is not None:
                lines.append(_line(what, row[column], unit, where if unit == "ms" else read))
    counted, mine = happened.counted(name, time.elapsed)
    for kind in ("input", "output"):
        whole, rest = (getattr(told, kind, None) or 0 for told in (counted, mine))
        if whole != rest:
            what = f"{kind} tokens of calls that began in the hour before, among those counted"
            lines.append(_line(what, whole - rest, "tokens", "seen then, and not yet counted by its end"))
    return lines


def _together(span: Span) -> str:
    return f" on {' and '.join(span.names)}" if len(span.members) > 1 else ""


_TOLD: Final = {
    "observed_ms": ("observed", "ms"),
    "busy_ms": ("busy", "ms"),
    "unavailable_ms": ("unavailable", "ms"),
    "gap_ms": ("between readings too far apart to say when", "ms"),
    "prompt_tokens": ("prompt tokens by the engine's counter", "tokens"),
    "cached_tokens": ("cached tokens by the engine's counter", "tokens"),
    "output_tokens": ("output tokens by the engine's counter", "tokens"),
    "prefill_us": ("prefill of all requests", "µs"),
    "decode_us": ("decode of all requests", "µs"),
    "requests": ("requests", ""),
    "millijoules": ("drawn by the accelerators", "mJ"),
    "resets": ("counters that began anew", ""),
}
"""What meters tell, in words, with units."""
