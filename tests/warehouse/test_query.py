"""Answers are what plain arithmetic over the same calls gives, and nothing of another tenant is ever among them."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from millicent.warehouse import query, record
from millicent.warehouse.metrics import DICTIONARY, WHOLE
from millicent.warehouse.query import ASKABLE, Filter, Period, Query
from millicent.warehouse.record import CHARGE, DETAILS, DIMENSIONS, IDLE
from millicent.warehouse.tables import CHARGED_TO, OF_DEPLOYMENTS

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MS, US = timedelta(hours=1), timedelta(milliseconds=1), timedelta(microseconds=1)
SPAN = 3 * HOUR
PICO = Fraction(1, 10**12)
HOSTILE = (
    "x'; DROP TABLE calls; --",
    "' OR '1'='1",
    '" OR tenant = "rival',
    "%",
    "_",
    "*",
    "$1",
    "\\",
    "null",
    "a\0b",
    "𝕏\u202e\n",
    "NaN",
)
_tenants = (f"tenant-{n}" for n in itertools.count())


# What plain arithmetic says. Amounts are fractions, None is unknown, and a group's sum is unknown when all of it is.


RATES = ("rate_usd", "energy_rate_usd", "joules", "gco2e_g", "gco2e_market_g")
DRAWN = {"energy_usd": "energy_cost_usd", "joules": "energy_joules", "gco2e_g": "gco2e_g",
         "gco2e_market_g": "gco2e_market_g"}  # fmt: skip


def of_call(one: dict, hour: dict | None, basis: str) -> dict:
    own = one["billing"] == "self_hosted"
    read, cached, written = (one[name] or 0 for name in ("input_tokens", "cache_read_tokens", "output_tokens"))
    known_tokens = [n for n in (one["input_tokens"], one["output_tokens"]) if n is not None]
    carried = dict.fromkeys(RATES)
    if own and hour:
        weights = (read - cached) * hour["w_input"] + cached * hour["w_cached"], written * hour["w_output"]
        for what in RATES:
            rate, output = hour[f"{what}_per_weight"], hour[f"output_{what}_per_weight"]
            if rate is not None:
                both = rate, rate if output is None else output
                carried[what] = sum(weight * Fraction(rate) for weight, rate in zip(weights, both, strict=True))
    busy, energy = carried["rate_usd"], carried["energy_rate_usd"]
    billed = Fraction(0) if own else one["billed_cost_usd"]
    known = busy is not None if own else one["price_status"] in {"priced", "not_billed"}
    spend = {
        "list": one["list_cost_usd"],
        "billed": billed,
        "effective": busy if own else billed,
        "usage": busy if own else billed,
        "marginal": energy if own else billed,
    }[basis]
    total = sum(known_tokens) if known_tokens else None
    costed = busy is not None if own else one["price_status"] != "unpriced"
    powered, carbon = (own and hour and hour[name] is not None for name in ("joules", "gco2e_g"))
    return {
        **{name: one[name] for name in record.SUMMED},
        "calls": 1,
        "total_tokens": total,
        "listed_tokens": total if one["price_status"] != "unpriced" else None,
        "listed_output_tokens": one["output_tokens"] if one["price_status"] != "unpriced" else None,
        "own_tokens": total if own else None,
        "own_output_tokens": one["output_tokens"] if own else None,
        "served_tokens": total if own and hour else None,
        "energy_tokens": total if powered else None,
        "energy_output_tokens": one["output_tokens"] if powered else None,
        "carbon_tokens": total if carbon else None,
        "priced_tokens": total if costed else None,
        "priced_output_tokens": one["output_tokens"] if costed else None,
        "hardware_cost_usd": busy,
        "capacity_cost_usd": busy,
        "energy_cost_usd": energy,
        "energy_joules": carried["joules"],
        "energy_wh": None if carried["joules"] is None else carried["joules"] / 3600,
        "gco2e_g": carried["gco2e_g"],
        "gco2e_market_g": carried["gco2e_market_g"],
        "priced_calls": int(known),
        "unpriced_calls": int(not known),
        "attributed_calls": int(one["team"] is not None),
        "unattributed_calls": int(one["team"] is None),
        "unattributed_spend_usd": spend if one["team"] is None else 0,
        "error_calls": int(one["status"] == "error"),
        "missing_usage_calls": int(one["usage_source"] == "missing"),
        "charges_usd": 0,
        "spend_usd": spend,
    }


def of_charge(one: dict, tags: dict, basis: str) -> dict:
    parts = {
        "list": ("list_usd",), "billed": ("billed_usd",), "effective": ("billed_usd", "hardware_usd", "idle_usd"),
        "usage": ("billed_usd", "hardware_usd"), "marginal": ("billed_usd", "energy_usd"),
    }  # fmt: skip
    amount = sum(one[name] or 0 for name in parts[basis])
    unattributed = amount if tags["team"] is None else 0
    return {"charges_usd": amount, "spend_usd": amount, "unattributed_spend_usd": unattributed}


def passed(hour: dict, instant: datetime) -> Fraction:
    """How much of a deployment-hour had passed by then."""
    ran = hour["elapsed_ms"]
    return Fraction(min(max(0, (instant - hour["hour"]) // MS), ran), ran)


def of_hour(kind: str, hour: dict, taken: Fraction, period: Period, basis: str) -> dict:
    share = passed(hour, period.end) - passed(hour, period.start)

    def within(amount):
        return None if amount is None else share * Fraction(amount)

    def drawn(name: str) -> Fraction | None:
        if kind != "idle":
            return hour[f"{kind}_{name}"]
        if hour[name] is None:
            return None
        busy = hour[f"busy_{name}"]
        if busy is None and name == "energy_usd":
            busy = hour["weight"] * (hour["energy_rate_usd_per_weight"] or 0)
        rest = (busy, hour[f"unavailable_{name}"], hour[f"untracked_{name}"])
        return Fraction(hour[name]) - sum(Fraction(part or 0) for part in rest)

    usd = hour[f"{kind}_usd"]
    usd = None if usd is None else share * (Fraction(usd) - taken)
    amounts = {f"{kind}_cost_usd": usd, "capacity_cost_usd": usd, "spend_usd": usd if basis == "effective" else None}
    amounts |= {measure: within(drawn(name)) for name, measure in DRAWN.items()}
    joules = amounts["energy_joules"]
    amounts["energy_wh"] = None if joules is None else joules / 3600
    return amounts | (facts_of(hour, within, period) if kind == "idle" else {})


def facts_of(hour: dict, within, period: Period) -> dict:
    paid, unused = hour["accelerator_ms"], hour["unused_accelerator_ms"] or 0
    busy = hour["busy_accelerator_ms"]
    busy = hour["busy_ms"] * hour["accelerator_count"] if busy is None else busy

    def counted(*amounts: int | None) -> int | None:
        known = [amount for amount in amounts if amount is not None]
        until = (int(passed(hour, instant) * sum(known)) for instant in (period.end, period.start))
        return next(until) - next(until) if known else None

    engine = {"input": hour["engine_input_tokens"], "output": hour["engine_output_tokens"]}
    return {
        "accelerator_hours": within(Fraction(paid, 3_600_000)),
        "allocated_accelerator_hours": within(Fraction(paid - unused, 3_600_000)),
        "serving_accelerator_hours": within(
            Fraction(paid - unused - (hour["unavailable_accelerator_ms"] or 0), 3_600_000)
        ),
        "busy_accelerator_hours": within(Fraction(busy, 3_600_000)),
        "unobserved_accelerator_hours": within(Fraction(hour["unobserved_accelerator_ms"] or 0, 3_600_000)),
        "busy_accelerator_seconds": within(Fraction(busy, 1000)),
        "fixed_cost_usd": within(hour["fixed_usd"]),
        "hosting_cost_usd": within(hour["hosting_usd"]),
        "measured_energy_joules": within(hour["joules"] and hour["joules"] * (hour["energy_source"] == "measured")),
        "engine_tokens": counted(*engine.values()),
        "metered_tokens": counted(*(hour[f"{side}_tokens"] for side, told in engine.items() if told is not None)),
    }


def bucket(instant: datetime, grain: str) -> datetime:
    if grain == "hour":
        return instant.replace(minute=0, second=0, microsecond=0)
    day = instant.replace(hour=0, minute=0, second=0, microsecond=0)
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[grain]


def passes(tags: dict, wanted: Filter) -> bool:
    spelled = {True: "true", False: "false"}
    value = tags[wanted.dimension]
    return (spelled.get(value, value) in wanted.values) != wanted.negated


def expected(universe: "Universe", asked: Query) -> dict[tuple, dict]:
    tenant, hours = universe.tenant, universe.hours
    at = {(h["tenant"], h["deployment"], h["hour"]): h for h in hours}
    facts = []
    for one in universe.calls:
        if one["tenant"] == tenant and one["counted"] and asked.period.start <= one["started_at"] < asked.period.end:
            hour = at.get((tenant, one["deployment"], bucket(one["started_at"], "hour")))
            kind = "hardware" if one["billing"] == "self_hosted" else "api"
            facts.append((one["started_at"], one | {"cost_type": kind}, of_call(one, hour, asked.basis)))
    for hour in hours:
        if hour["tenant"] == tenant and asked.period.start - HOUR < hour["hour"] < asked.period.end:
            facts += [
                (hour["hour"], tags, amounts)
                for tags, amounts in beside_calls(hour, universe.shares, asked.period, asked.basis)
            ]
    for one in universe.charges:
        if one["tenant"] == tenant and asked.period.start <= one["charged_at"] < asked.period.end:
            own = one["type"] == "adjustment"
            tags = dict.fromkeys((*DIMENSIONS, *DETAILS), CHARGE) | {"streaming": None}
            tags |= {name: one[name] for name in CHARGED_TO if own or one[name] is not None}
            tags["cost_type"] = "adjustment" if own else "charge"
            facts.append((one["charged_at"], tags, of_charge(one, tags, asked.basis)))
    groups = defaultdict(list) if asked.dimensions or asked.grain else {(): []}
    for instant, tags, amounts in facts:
        if all(passes(tags, wanted) for wanted in asked.filters):
            time = (bucket(instant, asked.grain),) if asked.grain else ()
            groups[*time, *(tags[name] for name in asked.dimensions)].append(amounts)
    return {key: {name: measured(name, of_group) for name in asked.measures} for key, of_group in groups.items()}


def beside_calls(hour: dict, shares: list[dict], period: Period, basis: str) -> Iterator[tuple[dict, dict]]:
    """What of a deployment-hour no call carries: (what it is tagged with, amounts)."""
    tags = dict.fromkeys((*DIMENSIONS, *DETAILS), IDLE) | {name: hour[name] for name in OF_DEPLOYMENTS}
    tags |= {"billing": "self_hosted", "streaming": None}
    inside = passed(hour, period.end) - passed(hour, period.start)
    for kind in ("idle", "unavailable", "untracked"):
        mine = [one for one in shares if one["kind"] == kind and one["team"] is not None
                and all(one[name] == hour[name] for name in ("tenant", "deployment", "hour"))]  # fmt: skip
        if kind == "idle" or hour[f"{kind}_usd"] or hour[f"{kind}_joules"]:
            taken = sum((Fraction(one["usd"]) for one in mine), Fraction(0))
            yield tags | {"cost_type": kind}, of_hour(kind, hour, taken, period, basis)
        for one in mine:
            usd = inside * Fraction(one["usd"])
            spend = usd if basis == "effective" else None
            amounts = {f"{kind}_cost_usd": usd, "capacity_cost_usd": usd, "spend_usd": spend}
            yield tags | {"cost_type": kind, "team": one["team"]}, amounts


def measured(name: str, group: list[dict]) -> Fraction | None:
    measure = DICTIONARY[name]
    if measure.sum_of:
        known = [Fraction(amounts[name]) for amounts in group if amounts.get(name) is not None]
        return sum(known, Fraction(0)) if known else None
    top, bottom = measured(measure.numerator, group), measured(measure.denominator, group)
    return None if top is None or not bottom else top * measure.scale / bottom


# What is asked, and of which calls.

optional = st.none() | st.sampled_from(("a", "b"))
tokens = st.none() | st.integers(0, 10**9)
usd = st.none() | st.decimals(0, 10**5, places=12)
rates = st.decimals("1e-9", "1e-6", places=24)
some_usd = st.just(Decimal(0)) | st.decimals("0.01", 1000, places=24)
some_ms = st.integers(0, 10**9)
PARTS = tuple(f"{kind}_{name}" for kind in ("busy", "unavailable", "untracked") for name in DRAWN)
USES = ("busy", "unavailable", "unobserved", "unused")
LATER = (
    "unavailable_usd", *PARTS, "gco2e_market_g", *(f"output_{rate}_per_weight" for rate in RATES),
    *(f"{rate}_per_weight" for rate in RATES[2:]),
    *(f"{what}_accelerator_ms" for what in USES),
    "input_tokens", "output_tokens", "engine_input_tokens", "engine_output_tokens", "energy_source",
)  # fmt: skip
"""Columns that rows from before pools, meters and energy by caller do not have."""


@st.composite
def call_facts(draw) -> dict:
    own = draw(st.booleans())
    return {
        "rival": draw(st.integers(0, 3)) == 0,
        "started_at": TEN
        + draw(st.integers(0, SPAN // US - 1) | st.sampled_from((0, HOUR // US, HOUR // US - 1))) * US,
        "billing": "self_hosted" if own else "api",
        "deployment": draw(st.sampled_from((None, "rack-1", "rack-2"))) if own else None,
        **{name: draw(optional) for name in ("model", "user_id")},
        "team": draw(st.none() | st.sampled_from(("search", HOSTILE[0]))),
        "status": draw(st.sampled_from(("ok", "error"))),
        "streaming": draw(st.sampled_from((None, True, False))),
        "usage_source": draw(st.sampled_from(("reported", "missing"))),
        "price_status": draw(st.sampled_from(("priced", "partial", "unpriced", "not_billed"))),
        "counted": draw(st.integers(0, 5)) > 0,
        **{name: draw(tokens) for name in ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")},
        **{name: draw(usd) for name in ("list_cost_usd", "billed_cost_usd", "cache_saving_usd")},
    }


@st.composite
def hour_facts(draw, which: tuple[bool, str, int]) -> dict:
    rival, deployment, hour = which
    known, old, whole = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    weight = draw(st.integers(0, 10**8))
    rated = {f"{side}{rate}_per_weight": draw(rates) if known else None for side in ("", "output_") for rate in RATES}
    spent = weight * (rated["energy_rate_usd_per_weight"] or 0)
    told = {
        "rival": rival, "deployment": deployment, "hour": TEN + hour * HOUR,
        "model": draw(optional), "engine": "vllm", "precision": "fp8", "accelerator": "nvidia-h100-sxm",
        "accelerator_count": 8, "region": None, "environment": "production",
        "elapsed_ms": 3_600_000 if whole else draw(st.integers(1, 3_599_999)),
        "busy_ms": draw(st.integers(0, 3_600_000)), "accelerator_ms": draw(some_ms),
        "fixed_usd": draw(some_usd), "hosting_usd": draw(some_usd), "busy_usd": Decimal(0),
        "energy_usd": spent + draw(st.decimals(0, 100, places=24)),
        **{f"{kind}_usd": draw(some_usd) for kind in ("idle", "unavailable", "untracked")},
        **{name: draw(st.none() | st.decimals(0, 10**9, places=6)) for name in ("joules", "gco2e_g", "gco2e_market_g")},
        **{name: draw(st.none() | some_usd) for name in PARTS},
        "w_input": 1000, "w_cached": draw(st.sampled_from((0, 100))), "w_output": 4000, "weight": Decimal(weight),
        **rated,
        **{f"{what}_accelerator_ms": draw(some_ms) for what in USES},
        **{f"{side}_tokens": draw(st.integers(0, 10**9)) for side in ("input", "output")},
        **{f"engine_{side}_tokens": draw(tokens) for side in ("input", "output")},
        "energy_source": draw(st.sampled_from(("measured", "modelled"))),
        "method": "", "sources": "[]", "declared_from": TEN, "provisional": not whole, "computed_at": TEN,
    }  # fmt: skip
    return told | dict.fromkeys(LATER) if old else told


OF_HARDWARE = ("hardware_usd", "energy_usd", "idle_usd")
SLOTS = list(itertools.product((False, True), ("rack-1", "rack-2"), range(3)))
hours_of_deployments = st.lists(st.sampled_from(SLOTS), unique=True, max_size=5).flatmap(
    lambda slots: st.tuples(*map(hour_facts, slots))
)


@st.composite
def share_facts(draw) -> dict:
    rival, deployment, hour = draw(st.sampled_from(SLOTS))
    return {
        "rival": rival, "deployment": deployment, "hour": TEN + hour * HOUR,
        "kind": draw(st.sampled_from(("idle", "unavailable"))),
        "team": draw(st.sampled_from((None, "search", "ads"))), "usd": draw(st.decimals("0.01", 10, places=24)),
    }  # fmt: skip


@st.composite
def charge_facts(draw) -> dict:
    return {
        "rival": draw(st.booleans()), "charged_at": TEN + draw(st.integers(-1, 3)) * HOUR,
        "type": draw(st.sampled_from(("adjustment", "fee", "commitment", "volume", "credit"))), "name": "contract",
        "period_start": TEN, "period_end": TEN + HOUR, **{name: draw(optional) for name in CHARGED_TO},
        "team": draw(st.none() | st.sampled_from(("search", HOSTILE[0]))),
        "list_usd": draw(st.decimals(-(10**5), 10**5, places=12)),
        "billed_usd": draw(st.decimals(-(10**5), 10**5, places=12)),
        **{name: draw(st.none() | st.decimals(-100, 100, places=24)) for name in OF_HARDWARE},
        "provisional": draw(st.booleans()), "why": "", "computed_at": TEN,
    }  # fmt: skip


@st.composite
def questions(draw) -> Query:
    start, end = sorted(draw(st.lists(st.integers(-1, 4), min_size=2, max_size=2, unique=True)))
    shift = draw(st.sampled_from((timedelta(0), timedelta(0), 30 * timedelta(minutes=1), 754_321 * MS)))
    pool = draw(st.sampled_from((OF_DEPLOYMENTS, ASKABLE, ("team", "model", "streaming", "user_id", "cost_type"))))
    dimensions = draw(st.lists(st.sampled_from(pool), unique=True, max_size=2))
    values = st.none() | st.sampled_from(
        ("a", "b", "search", "rack-1", "api", "hardware", "idle", IDLE, "charge", CHARGE, *HOSTILE[:2])
    )
    filters = [
        Filter(name, tuple(draw(st.lists(yes_or_no if name == "streaming" else values, min_size=1, max_size=2))),
               draw(st.booleans()))
        for name in draw(st.lists(st.sampled_from(pool), max_size=2))
    ]  # fmt: skip
    asked = {*dimensions, *(wanted.dimension for wanted in filters)}
    of_deployments = asked <= {*OF_DEPLOYMENTS, "cost_type"}
    allowed = [name for name, measure in DICTIONARY.items() if of_deployments or not measure.of_deployments]
    return Query(
        measures=tuple(draw(st.lists(st.sampled_from(allowed), min_size=1, max_size=4, unique=True))),
        period=Period(TEN + start * HOUR + shift, TEN + end * HOUR + shift),
        dimensions=tuple(dimensions),
        filters=tuple(filters),
        grain=draw(st.sampled_from((None, "hour", "day", "week", "month"))),
        basis=draw(st.sampled_from(("list", "billed", "effective", "usage", "marginal"))),
    )


yes_or_no = st.sampled_from(("true", "false", None))
universes = st.tuples(
    st.lists(call_facts(), max_size=8), hours_of_deployments, st.lists(charge_facts(), max_size=4),
    st.lists(share_facts(), max_size=4),
)  # fmt: skip


class Universe:
    """Calls, deployment-hours, shares and charges of two tenants, alike in all else, stored in a real engine."""

    def __init__(self, facts, a_call, drawn) -> None:
        self.facts = facts
        self.tenant, rival = next(_tenants), next(_tenants)
        self.calls, self.hours, self.charges, self.shares = (
            [{**one, "tenant": rival if one["rival"] else self.tenant} for one in part] for part in drawn
        )
        for one in (*self.calls, *self.hours, *self.charges, *self.shares):
            del one["rival"]
        self.calls = [a_call(**one) for one in self.calls]
        facts.store(*self.calls)
        if self.charges:
            facts.charge(*self.charges)
        facts.put("deployment_hours", self.hours)
        facts.put("idle_shares", self.shares)

    def answer(self, asked: Query) -> query.Answer:
        return query.run(self.facts.engine, self.tenant, asked)

    def expected(self, asked: Query) -> dict[tuple, dict]:
        return expected(self, asked)


@settings(max_examples=120, deadline=None)
@given(drawn=universes, asked=st.lists(questions(), min_size=3, max_size=3))
def test_an_answer_is_what_plain_arithmetic_over_the_calls_gives(shared_facts, a_call, drawn, asked):
    universe = Universe(shared_facts, a_call, drawn)
    for one in asked:
        answer = universe.answer(one)
        keys = [*(["time"] if one.grain else []), *one.dimensions]
        assert answer.frame.columns == [*keys, *one.measures]
        assert answer.source == ("rollup" if one.period.on_the_hour and not {*one.asked()} & {*DETAILS} else "calls")
        told = {tuple(row[name] for name in keys): row for row in answer.frame.to_dicts()}
        assert len(told) == answer.frame.height
        wanted = universe.expected(one)
        assert told.keys() == wanted.keys()
        for key, amounts in wanted.items():
            for name, amount in amounts.items():
                close = tolerance(name, amount, universe, one)
                assert (told[key][name] is None) == (amount is None), (name, key, told[key][name], amount)
                assert amount is None or abs(Fraction(told[key][name]) - amount) <= close, (
                    name,
                    told[key][name],
                    amount,
                )


CUT = {"hours", "s", "joules", "wh"}
"""Units of sums that are cut at 12 decimals."""


def tolerance(name: str, amount: Fraction | None, universe: Universe, asked: Query) -> Fraction:
    """Sums are exact but where they are cut at 12 decimals, as all are in a split hour; a ratio is rounded there."""
    measure = DICTIONARY[name]
    cut = 2 * (1 + 3 * len(universe.hours) + len(universe.shares)) * PICO
    if measure.sum_of:
        whole = measure.unit in WHOLE or (asked.period.on_the_hour and measure.unit not in CUT)
        return Fraction(0) if whole else cut
    if amount is None:
        return Fraction(0)
    sums = replaced(asked, measures=(measure.denominator,), order=(), limit=None)
    smallest = min(abs(b[measure.denominator]) for b in universe.expected(sums).values() if b[measure.denominator])
    exact = (
        asked.period.on_the_hour and not {DICTIONARY[n].unit for n in (measure.numerator, measure.denominator)} & CUT
    )
    off = Fraction(1, 10**18) + (0 if exact else cut)
    return PICO + off * (measure.scale + abs(amount)) / smallest


@settings(max_examples=60, deadline=None)
@given(drawn=universes, asked=questions())
def test_the_rollup_and_the_raw_calls_say_the_same(shared_facts, a_call, drawn, asked):
    universe = Universe(shared_facts, a_call, drawn)
    if asked.measures and any(DICTIONARY[name].of_deployments for name in asked.measures):
        asked = replaced(asked, measures=("spend_usd", "calls", "energy_cost_usd", "energy_wh", "gco2e_g"))
    everything = Filter("scope", ("no such scope",), negated=True)
    raw = universe.answer(replaced(asked, filters=(*asked.filters, everything)))
    assert raw.source == "calls"
    assert_frame_equal(universe.answer(asked).frame, raw.frame)


@settings(max_examples=60, deadline=None)
@given(drawn=universes, asked=questions())
def test_groups_add_up_to_the_total_to_the_last_digit(shared_facts, a_call, drawn, asked):
    universe = Universe(shared_facts, a_call, drawn)
    sums = tuple(name for name in asked.measures if DICTIONARY[name].sum_of) or ("spend_usd",)
    asked = replaced(asked, measures=sums)
    groups = universe.answer(asked).frame
    total = universe.answer(replaced(asked, dimensions=(), grain=None)).frame.row(0, named=True)
    for name in sums:
        known = [amount for amount in groups[name].to_list() if amount is not None]
        off = abs((total[name] or 0) - sum(known))
        assert (total[name] is None) == (not known)
        assert off == 0 or (DICTIONARY[name].unit in {"joules", "wh"} and off <= len(known) * PICO)


def replaced(asked: Query, **told) -> Query:
    fields = ("measures", "period", "dimensions", "filters", "grain", "basis", "order", "limit")
    return Query(**{name: getattr(asked, name) for name in fields} | told)


# Unknown, idle, identity.


def test_unknown_money_is_null_and_counted_never_zero(facts, a_call):
    facts.store(
        a_call(team="dark", price_status="unpriced", input_tokens=5),
        a_call(team="dark", price_status="unpriced", input_tokens=7),
        a_call(team="free", price_status="priced", billed_cost_usd=Decimal(0), list_cost_usd=Decimal(0)),
        a_call(team="half", price_status="partial", billed_cost_usd=Decimal("0.5")),
        a_call(team="half", price_status="unpriced"),
    )
    rows = facts.ask("spend_usd", "unpriced_calls", "priced_ratio", "cost_per_mtok_usd", dimensions=("team",),
                     order=("team",))  # fmt: skip
    assert [(row["team"], row["spend_usd"], row["unpriced_calls"], row["priced_ratio"]) for row in rows] == [
        ("dark", None, 2, 0),
        ("free", 0, 0, 1),
        ("half", Decimal("0.5"), 2, 0),
    ]
    assert {row["cost_per_mtok_usd"] for row in rows} == {None}


def test_a_call_on_own_hardware_is_unknown_until_its_hour_has_a_rate(facts, a_call):
    facts.store(a_call(billing="self_hosted", deployment="nobody-declared-it", input_tokens=1000))
    (row,) = facts.ask("spend_usd", "hardware_cost_usd", "unpriced_calls", "billed_cost_usd")
    assert row["spend_usd"] is None
    assert row["hardware_cost_usd"] is None
    assert row["unpriced_calls"] == 1
    (row,) = facts.ask("spend_usd", basis="billed")
    assert row["spend_usd"] == 0


def test_a_ratio_is_sum_over_sum_not_an_average_of_ratios(facts, a_call):
    facts.store(
        a_call(input_tokens=1_000_000, output_tokens=0, billed_cost_usd=Decimal(1)),
        a_call(input_tokens=0, output_tokens=10, billed_cost_usd=Decimal(1)),
    )
    (row,) = facts.ask("cost_per_mtok_usd", "cost_per_output_mtok_usd", "cost_per_call_usd")
    assert row["cost_per_mtok_usd"] == Decimal("1.999980000200")
    assert row["cost_per_output_mtok_usd"] == 200_000
    assert row["cost_per_call_usd"] == 1


def test_idle_is_a_row_of_its_own_for_callers_and_part_of_its_deployment(facts, a_call):
    facts.declare("rack", TEN)
    facts.store(a_call(team="search", billing="self_hosted", deployment="rack", model="qwen3-8b",
                       input_tokens=10, output_tokens=5, duration_ms=900_000))  # fmt: skip
    facts.refresh(TEN + HOUR)
    by_team = {row["team"]: row for row in facts.ask("spend_usd", "calls", dimensions=("team",))}
    assert by_team.keys() == {"search", IDLE}
    assert by_team["search"]["calls"] == 1
    assert abs(by_team["search"]["spend_usd"] - 1) < Decimal("1e-15")  # a quarter of two accelerators at 2 USD
    assert sum(row["spend_usd"] for row in by_team.values()) == 4
    (by_deployment,) = facts.ask("spend_usd", dimensions=("deployment",))
    assert by_deployment == {"deployment": "rack", "spend_usd": 4}
    kinds = facts.ask("spend_usd", dimensions=("cost_type",), filters=(Filter("team", (IDLE,)),))
    assert [row["cost_type"] for row in kinds] == ["idle"]
    assert [row["spend_usd"] for row in facts.ask("spend_usd", basis="usage")] == [by_team["search"]["spend_usd"]]


def test_idle_of_a_split_hour_follows_the_clock(facts):
    facts.declare("rack", TEN)
    facts.refresh(TEN + HOUR)
    parts = [
        facts.ask(
            "idle_cost_usd", "accelerator_hours", start=TEN + timedelta(minutes=a), end=TEN + timedelta(minutes=b)
        )
        for a, b in ((-30, 15), (15, 45), (45, 90))
    ]
    assert [part[0]["idle_cost_usd"] for part in parts] == [1, 2, 1]
    assert [part[0]["accelerator_hours"] for part in parts] == [Decimal("0.5"), 1, Decimal("0.5")]


def test_whole_accelerator_hours_are_whole_numbers(facts):
    facts.declare("rack", TEN, accelerator_count=7)
    facts.refresh(TEN + 5 * HOUR)
    (row,) = facts.ask("accelerator_hours", end=TEN + 5 * HOUR)
    assert row["accelerator_hours"] == 35


def test_a_period_off_the_utc_hour_is_asked_of_the_calls(facts, a_call):
    facts.store(*(a_call(started_at=TEN + n * timedelta(minutes=10)) for n in range(12)))
    india = timezone(timedelta(hours=5, minutes=30))
    start = datetime(2026, 3, 4, 16, tzinfo=india)  # 10:30 UTC
    asked = Query(measures=("calls",), period=Period(start, start + HOUR))
    answer = query.run(facts.engine, "acme", asked)
    assert (answer.source, answer.frame["calls"][0]) == ("calls", 6)
    whole = Query(measures=("calls",), period=Period(start - HOUR / 2, start + HOUR / 2))
    answer = query.run(facts.engine, "acme", whole)
    assert (answer.source, answer.frame["calls"][0]) == ("rollup", 6)


# Tenants.

TEXTS = [name for name in ASKABLE if name in record.SCHEMA.names and record.SCHEMA.field(name).type == pa.string()]


@pytest.fixture(scope="module")
def two_tenants(shared_facts, a_call):
    facts = shared_facts
    facts.declare("acme-deployment", TEN)
    facts.declare("rival-deployment", TEN, tenant="rival", model="rival-model", engine="rival-engine",
                  precision="rival-precision", environment="rival-environment", region="us-va")  # fmt: skip
    facts.declare("shared", TEN)
    facts.declare("shared", TEN, tenant="rival", profile={"kind": "rented", "usd_per_hour": "777"})
    for tenant, amount in (("acme", 1), ("rival", 1000)):
        tags = {name: f"{tenant}-{name}" for name in TEXTS if name != "billing"}
        money = {name: Decimal(amount) for name in record.MONEY}
        counts = dict.fromkeys(record.TOKENS, amount)
        facts.store(
            a_call(tenant=tenant, **tags, **money, **counts),
            a_call(tenant=tenant, **(tags | {"deployment": "shared"}), billing="self_hosted", duration_ms=1, **counts),
        )
    facts.refresh(TEN + HOUR)
    return facts


@pytest.mark.parametrize("dimension", ASKABLE)
@pytest.mark.parametrize("filters", [(), (Filter("scope", ("x",), negated=True),)], ids=["rollup", "raw"])
def test_no_value_of_another_tenant_shows_in_any_dimension_or_sum(two_tenants, dimension, filters):
    measures = tuple(name for name, measure in DICTIONARY.items() if not measure.of_deployments)
    rows = two_tenants.ask(*measures, dimensions=(dimension,), filters=filters)
    assert sum(row["calls"] or 0 for row in rows) == 2
    assert sum(row["list_cost_usd"] or 0 for row in rows) == 1
    assert sum(row["capacity_cost_usd"] or 0 for row in rows) == 8
    assert "rival" not in repr(rows)
    assert "acme" not in repr(two_tenants.ask(*measures, dimensions=(dimension,), filters=filters, tenant="rival"))


@pytest.mark.parametrize("dimension", [name for name in ASKABLE if name in TEXTS])
def test_asking_for_another_tenants_value_finds_nothing(two_tenants, dimension):
    for value in (f"rival-{dimension}", *HOSTILE):
        (row,) = two_tenants.ask("calls", "spend_usd", filters=(Filter(dimension, (value,)),))
        assert row == {"calls": None, "spend_usd": None}


@pytest.mark.parametrize("tenant", ["", "ACME", "acme ", "riva", "acme' OR 'a'='a", "%", *HOSTILE])
def test_a_tenant_that_is_not_exactly_ours_sees_nothing(two_tenants, tenant):
    assert two_tenants.ask("calls", "spend_usd", tenant=tenant, dimensions=("team",)) == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_a_value_like_any_other(facts, a_call, text):
    facts.store(a_call(team=text, user_id=text, model=text), a_call(team="calm", user_id="calm", model="calm"))
    for dimension in ("team", "user_id", "model"):
        found = facts.ask("calls", dimensions=(dimension,), filters=(Filter(dimension, (text,)),))
        assert found == [{dimension: text, "calls": 1}]
        others = facts.ask("calls", dimensions=(dimension,), filters=(Filter(dimension, (text,), negated=True),))
        assert others == [{dimension: "calm", "calls": 1}]


# Limit.


@settings(max_examples=40, deadline=None)
@given(drawn=universes, asked=questions(), limit=st.integers(1, 4), data=st.data())
def test_a_limit_gives_the_first_rows_of_the_whole_answer(shared_facts, a_call, drawn, asked, limit, data):
    universe = Universe(shared_facts, a_call, drawn)
    names = [*(["time"] if asked.grain else []), *asked.dimensions, *asked.measures]
    order = data.draw(st.lists(st.sampled_from([*names, *(f"-{name}" for name in names)]), max_size=2))
    whole = universe.answer(replaced(asked, order=tuple(order))).frame
    assert_frame_equal(universe.answer(replaced(asked, order=tuple(order), limit=limit)).frame, whole.head(limit))
