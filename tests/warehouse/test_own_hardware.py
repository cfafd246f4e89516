"""Own hardware conserves: whatever is declared, metered, late or missing, what was paid is carried in full."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.warehouse import metered
from millicent.warehouse.policies import Policy
from millicent.warehouse.query import Filter
from millicent.warehouse.tables import deployment_hours, idle_shares

FIRST = datetime(2026, 3, 28, 21, tzinfo=UTC)  # over the end of a day, of a month and of winter time
HOUR, MINUTE, MS = timedelta(hours=1), timedelta(minutes=1), timedelta(milliseconds=1)
HOUR_MS = HOUR // MS
LONG = 4
ENERGY = {
    "energy_joules": "joules", "gco2e_g": "gco2e_g", "gco2e_market_g": "gco2e_market_g",
    "energy_cost_usd": "energy_usd",
}  # fmt: skip
PARTS = ("busy", "idle", "unavailable", "untracked")
OWN = {"billing": "self_hosted", "price_status": "not_billed", "billed_cost_usd": Decimal(0)}
_windows = itertools.count()


# ---- worlds: what is declared, what ran, what meters told


@dataclass
class World:
    """Everything about a few deployments in a few hours of their own."""

    start: datetime
    declared: dict[str, dict]
    policy: dict
    calls: list[dict] = field(default_factory=list)
    meters: list[dict] = field(default_factory=list)

    @property
    def end(self) -> datetime:
        return self.start + LONG * HOUR


RENTED = {"kind": "rented", "usd_per_hour": "2.017"}
PAID = st.sampled_from(
    [
        RENTED,
        RENTED | {"includes_power": "false"},
        {"kind": "owned", "capex_usd": "24400", "maintenance_usd_per_year": "71"},
        {"kind": "owned", "depreciation": "straight_line", "hosting_includes_power": "true"},
        {"kind": "preset", "name": "dated", "tier": "neocloud"},
    ]
)
tokens = st.integers(0, 10**6) | st.sampled_from((0, 1, 7))
milliseconds = st.integers(0, HOUR_MS) | st.sampled_from((0, HOUR_MS))


@st.composite
def worlds(draw) -> World:
    window = next(_windows)
    start = FIRST + window * 30 * HOUR
    shape = draw(st.sampled_from(["alone", "apart", "pool", "pool apart", "contract", "monthly"]))
    names = [f"w{window}-{letter}" for letter in ("ab" if shape in {"pool", "pool apart", "contract"} else "a")]
    common = {
        "accelerator_count": draw(st.sampled_from([1, 8])), "profile": draw(PAID), "region": "us-va",
        "power": {"tariff_usd_per_kwh": "0.0713", "market_gco2e_per_kwh": "31.7"},
    }  # fmt: skip
    if "apart" in shape:
        common |= {"accelerator_count": 5, "prefill_count": 2, "decode_count": 3}
    if "pool" in shape:
        common["pool"] = f"p{window}"
    if shape in {"contract", "monthly"}:
        common["profile"] = {
            "kind": "reserved", "contract": f"c{window}", "usd_per_hour": "1.9", "months": "1",
            "starts": f"{start.replace(day=1, hour=0):%Y-%m-%dT%H:%MZ}", "upfront_share": "0.4",
            "cost_of_capital": "0.08", "overage_usd_per_hour": draw(st.sampled_from(["2.5", "0.7"])),
            **({"accelerators": "9"} if shape == "contract" else {"hours_per_month": "17.5"}),
        }  # fmt: skip
    declared = {}
    for name in names:
        declared[name] = {
            **common, "model": f"model of {name[-1]}", "engine": "vllm", "effective_to": start + LONG * HOUR,
            "owner": draw(st.sampled_from([None, "search"])),
            "weights": draw(st.sampled_from([{}, {"uncached_input": "333", "output": "2999"}])),
        }  # fmt: skip
    policy = {
        "idle": draw(st.sampled_from(["show", "spread by use", "spread evenly", "charge the owner"])),
        "cached": draw(st.sampled_from(["free", "fraction", "full"])),
    }
    made = World(start, declared, policy)
    for name in draw(st.lists(st.sampled_from(names), max_size=6)):
        read = draw(tokens)
        made.calls.append(
            {
                "deployment": name, "team": draw(st.sampled_from(["search", "ads", "ops", None])),
                "started_at": start + draw(st.integers(0, LONG * HOUR_MS - 1)) * MS,
                "duration_ms": draw(st.none() | st.integers(0, 2 * HOUR_MS)), "input_tokens": read,
                "cache_read_tokens": draw(st.none() | st.integers(0, read)), "output_tokens": draw(tokens),
                "model": declared[name]["model"], **OWN,
            }
        )  # fmt: skip
    for name, hour in draw(
        st.lists(st.tuples(st.sampled_from(names), st.integers(0, LONG - 1)), max_size=5, unique=True)
    ):
        for role in ("prefill", "decode") if "apart" in shape else (None,):
            made.meters.append(draw(readings(name, start + hour * HOUR, role)))
        if draw(st.booleans()):
            energy = {"counted_ms": draw(milliseconds), "millijoules": draw(st.integers(0, 10**10))}
            made.meters.append({"deployment": name, "hour": start + hour * HOUR, "source": "dcgm", **energy})
    return made


@st.composite
def readings(draw, name: str, hour: datetime, role: str | None) -> dict:
    """What an engine tells of an hour: readings may have gaps, come twice, or be of the wrong size."""
    cuts = sorted([draw(milliseconds), draw(milliseconds)])
    told = st.none() | tokens
    return {
        "deployment": name, "hour": hour, "source": "vllm", "role": role,
        "observed_ms": draw(st.sampled_from([cuts[1], HOUR_MS])), "busy_ms": cuts[0],
        "unavailable_ms": cuts[1] - cuts[0], "counted_ms": draw(st.sampled_from([HOUR_MS, HOUR_MS // 2])),
        "prompt_tokens": draw(told), "cached_tokens": draw(told), "output_tokens": draw(told),
        "prefill_us": draw(told), "decode_us": draw(told),
    }  # fmt: skip


def declare(facts, world: World) -> None:
    facts.control.set_policy(Policy(effective_from=world.start, **world.policy), "acme")
    for name, told in world.declared.items():
        facts.declare(name, world.start, **told)


def meter(facts, *rows: dict) -> None:
    if rows:
        columns = {name for row in rows for name in row} | {"role"}
        types = {name: kind for name, kind in metered.HOURS.items() if name in columns}
        hours = pl.DataFrame([{"tenant": "acme", **dict.fromkeys(types), **row} for row in rows],
                             schema={"tenant": pl.String, **types})  # fmt: skip
        metered.add(facts.engine, hours, pl.DataFrame())


def stored(facts, names, table=deployment_hours) -> list[dict]:
    asked = select(table).where(table.c.deployment.in_(names)).order_by(table.c.hour, table.c.deployment)
    return facts.engine.read(asked).to_pylist()


def names_of(world: World) -> list[str]:
    contracts = {told["profile"]["contract"] for told in world.declared.values() if "contract" in told["profile"]}
    return [*world.declared, *contracts]


def bill(rows: list[dict]) -> Decimal:
    return sum((row["fixed_usd"] + row["energy_usd"] + row["hosting_usd"] for row in rows), Decimal(0))


# ---- the properties


questions = st.fixed_dictionaries(
    {
        "grain": st.sampled_from([None, "hour", "day", "week", "month"]),
        "by": st.sampled_from(
            [(), *((name,) for name in ("team", "model", "accelerator", "deployment", "cost_type", "engine"))]
        ),
        "cut": st.sampled_from([90 * MINUTE, 135 * MINUTE, 3 * HOUR + MS, 2 * HOUR]),
    }
)


@settings(max_examples=40, deadline=None)
@given(world=worlds(), asked=questions)
def test_every_hour_closes_and_teams_models_and_deployments_add_up_to_what_was_paid(shared_facts, a_call, world, asked):
    declare(shared_facts, world)
    shared_facts.store(*(a_call(**told) for told in world.calls[1:]))
    meter(shared_facts, *world.meters[1:])
    shared_facts.refresh(world.start + 3 * HOUR + 17 * MINUTE)
    shared_facts.store(*(a_call(**told) for told in world.calls[:1]))  # late
    meter(shared_facts, *world.meters[:1])
    shared_facts.refresh(world.end)
    assert shared_facts.refresh(world.end) == 0
    rows = [row for row in stored(shared_facts, names_of(world)) if row["hour"] < world.end]
    assert len(rows) >= LONG * len(world.declared)
    for row in rows:
        closes(row)
    for hour in {row["hour"] for row in rows}:
        pool_costs_what_it_costs(world, [row for row in rows if row["hour"] == hour and row["model"]])
    answers_add_up(shared_facts, world, rows, asked)
    shares_add_up(shared_facts, world, rows)


def closes(row: dict) -> None:
    assert bill([row]) == sum(row[f"{part}_usd"] for part in PARTS)
    assert min(row[f"{part}_usd"] for part in PARTS) >= 0
    assert not row["provisional"]
    if row["model"] is None:
        return
    for amount in ("energy_usd", "joules", "gco2e_g", "gco2e_market_g"):
        rest = row[amount] - sum(row[f"{place}_{amount}"] for place in ("busy", "unavailable", "untracked"))
        assert rest >= (0 if amount == "energy_usd" else Decimal("-0.000002"))  # idle is what is left
    into, out = row["rate_usd_per_weight"], row["output_rate_usd_per_weight"]
    assert (into is None) == (out is None)
    written = row["output_tokens"] * row["w_output"]
    assert row["busy_usd"] == (row["weight"] - written) * (into or 0) + written * (out or 0)
    assert row["busy_accelerator_ms"] + row["unavailable_accelerator_ms"] <= row["accelerator_ms"] + 2


def pool_costs_what_it_costs(world: World, rows: list[dict]) -> None:
    """The bill by the hour's own evidence, whoever shares it."""
    pools = defaultdict(list)
    for row in rows:
        pools[row["pool"]].append(row)
    for mine in pools.values():
        told = world.declared[mine[0]["deployment"]]
        count = told["accelerator_count"]
        assert sum(row["accelerator_ms"] for row in mine) == count * HOUR_MS
        if told["profile"] is RENTED:
            assert bill(mine) == count * Decimal("2.017")
        for part in ("joules", "gco2e_g"):
            whole = sum(row[part] for row in mine)
            assert whole == whole.quantize(Decimal("0.001"))


def answers_add_up(facts, world: World, rows: list[dict], asked: dict) -> None:
    """As anybody asks: every grain, every dimension, every basis, and bounds that are on no hour."""
    paid = bill(rows)
    everything = {
        "start": world.start, "end": world.end, "filters": (Filter("deployment", tuple(names_of(world))),),
    }  # fmt: skip
    measures = ("capacity_cost_usd", "spend_usd", "hardware_cost_usd", "idle_cost_usd", "unavailable_cost_usd",
                "untracked_cost_usd", *ENERGY)  # fmt: skip
    found = facts.ask(*measures, grain=asked["grain"], dimensions=asked["by"], **everything)
    assert sum(row["capacity_cost_usd"] or 0 for row in found) == paid
    assert sum(row["spend_usd"] or 0 for row in found) == paid
    assert sum(row[name] or 0 for row in found for name in measures[2:6]) == paid
    for name, column in ENERGY.items():
        whole = sum(row[column] or 0 for row in rows)
        assert abs(sum(row[name] or 0 for row in found) - whole) < Decimal("1e-9")
    cut = world.start + asked["cut"]
    halves = [{**everything, "end": cut}, {**everything, "start": cut}]
    found = [row["capacity_cost_usd"] or 0 for half in halves for row in facts.ask("capacity_cost_usd", **half)]
    assert abs(sum(found) - paid) < Decimal("1e-9")


def shares_add_up(facts, world: World, rows: list[dict]) -> None:
    """Where idle is not shown, somebody carries all of it, or it stays a line of its own."""
    shares = [row for row in stored(facts, names_of(world), idle_shares) if row["hour"] < world.end]
    assert bool(shares) <= (world.policy["idle"] != "show")
    for row in rows:
        for kind in ("idle", "unavailable"):
            mine = [one for one in shares if all(one[name] == row[name] for name in ("deployment", "hour"))]
            carried = {one["team"]: one["usd"] for one in mine if one["kind"] == kind}
            if world.policy["idle"] != "show":
                assert sum(carried.values()) == row[f"{kind}_usd"]
            if world.policy["idle"] == "charge the owner":
                assert carried.keys() <= {row["owner"]}
