"""The example company's accelerators: what it owns and rents, what meters told of them, and one bad afternoon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.deployments import Deployment

RESERVED: Final = 7
"""H100s under contract; six of them run something."""
RESERVED_MONTHS: Final = 12
OUTAGE_RACK: Final = "qwen-h100"
OUTAGE_DAYS_AGO: Final = 9
OUTAGE_HOURS: Final = range(13, 18)
UNSEEN: Final = {"oss-b200": 45}
"""Tokens that an engine served and nobody told us of, per thousand that we saw: a nightly job without telemetry."""

HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rack:
    """One deployment of the example company; `counters` and `watts` say what its meters tell.

    `prefill` of its accelerators do nothing else. `watts` are those of one chip while it works and while it rests, as
    its own counter has them.
    """

    name: str
    model: str
    accelerator: str
    count: int
    engine: str
    precision: str
    profile: dict[str, str]
    region: str
    owner: str
    parallelism: str | None = None
    power: dict[str, str] = field(default_factory=dict)
    pool: str | None = None
    prefill: int | None = None
    prefill_per_s: int = 22_000
    weights: dict[str, str] = field(default_factory=dict)
    counters: str | None = None
    watts: tuple[int, int] | None = None


_PRESET: Final = {"kind": "preset", "name": "ix-2026-07", "tier": "neocloud"}
_H100: Final = {"kind": "reserved", "contract": "H100 reservation", "usd_per_hour": "1.89",
                "accelerators": str(RESERVED), "months": str(RESERVED_MONTHS)}  # fmt: skip
_OWNED: Final = {"kind": "owned", "capex_usd": "1999", "life_years": "4", "hosting_usd_per_kw_month": "0"}

RACKS: Final = (
    Rack(name="oss-b200", model="gpt-oss-120b", accelerator="nvidia-b200", count=1, engine="vllm", precision="mxfp4",
         profile=_PRESET, region="us-va", owner="Search", counters="vllm", watts=(720, 180)),
    Rack(name="oss-h100", model="gpt-oss-120b", accelerator="nvidia-h100-sxm", count=1, engine="vllm",
         precision="mxfp4", profile=_H100, region="us-oh", owner="Assistants", counters="vllm", watts=(560, 120)),
    Rack(name="oss-mi355x", model="gpt-oss-120b", accelerator="amd-mi355x", count=1, engine="sglang",
         precision="mxfp4", profile={"kind": "spot"}, region="us-tx", owner="Search", counters="sglang"),
    Rack(name="qwen-h100", model="qwen3-235b", accelerator="nvidia-h100-sxm", count=4, engine="sglang",
         precision="fp8", profile=_H100, region="us-oh", owner="Assistants", parallelism="TP4", counters="sglang",
         watts=(540, 120)),
    Rack(name="qwen-mi355x", model="qwen3-235b", accelerator="amd-mi355x", count=2, engine="sglang", precision="fp8",
         profile=_PRESET, region="us-tx", owner="Ads Ranking", parallelism="TP2", counters="sglang"),
    Rack(name="deepseek-b200", model="deepseek-v3.2", accelerator="nvidia-b200", count=4, engine="tensorrt-llm",
         precision="nvfp4", profile=_PRESET, region="us-va", owner="Code Copilot", parallelism="1P/3D",
         prefill=1, prefill_per_s=1600, counters="tensorrt_llm", watts=(760, 180)),
    Rack(name="gemma-tpu", model="gemma-3-27b", accelerator="google-tpu-v7", count=1, engine="vllm", precision="fp8",
         profile={"kind": "rented", "usd_per_hour": "1.21"}, region="gcp/us-central1", owner="Ads Ranking",
         power={"it_kw": "1.08"}, counters="vllm"),
    Rack(name="gemma-h100", model="gemma-3-27b", accelerator="nvidia-h100-sxm", count=1, engine="vllm",
         precision="fp8", profile=_H100, region="us-oh", owner="Ads Ranking", pool="small models", counters="vllm",
         watts=(430, 120)),
    Rack(name="embed-h100", model="qwen3-embedding-8b", accelerator="nvidia-h100-sxm", count=1, engine="vllm",
         precision="bf16", profile=_H100, region="us-oh", owner="Data Platform", pool="small models",
         weights={"uncached_input": "300", "cached_input": "30", "output": "1200"}, counters="vllm"),
    Rack(name="edge-store", model="qwen3-8b", accelerator="nvidia-jetson-agx-orin-64gb", count=1, engine="llama.cpp",
         precision="int4", profile=_OWNED, region="us", owner="Support AI"),
)  # fmt: skip


def deployments(since: datetime) -> Iterator[Deployment]:
    """What the company declares, from its first day on."""
    for rack in RACKS:
        yield Deployment(
            name=rack.name, model=rack.model, accelerator=rack.accelerator, accelerator_count=rack.count,
            engine=rack.engine, precision=rack.precision, region=rack.region, environment="production",
            profile=_dated(rack.profile, since), power=rack.power, effective_from=since, owner=rack.owner,
            parallelism=rack.parallelism, pool=rack.pool, weights=rack.weights, prefill_count=rack.prefill,
            decode_count=rack.count - rack.prefill if rack.prefill else None,
        )  # fmt: skip


def _dated(profile: dict[str, str], since: datetime) -> dict[str, str]:
    if profile["kind"] == "reserved":
        return {**profile, "starts": since.isoformat()}
    if profile["kind"] == "spot":
        moves = ((0, "1.55"), (13, "1.42"), (29, "1.88"), (44, "1.61"))
        prices = (f"{(since + timedelta(days=days)).isoformat()}={price}" for days, price in moves)
        return {**profile, "prices": " ".join(prices)}
    return profile


def hours_down(deployment: str | None, day: datetime, today: datetime) -> range:
    """Hours of a UTC day in which a deployment served nothing."""
    there = deployment == OUTAGE_RACK and day == today - timedelta(days=OUTAGE_DAYS_AGO)
    return OUTAGE_HOURS if there else range(0)


def metered(calls: pl.DataFrame, day: datetime, today: datetime) -> pl.DataFrame:
    """What meters told of a day that is over, as `meter_hours`; `calls` are the day's, as rows of the record."""
    hours = _served(calls)
    parts = [part for rack in RACKS if rack.counters for part in _of_rack(rack, hours, day, today)]
    return pl.concat(parts, how="diagonal_relaxed").with_columns(
        tenant=pl.lit(DEFAULT_TENANT), read_at=pl.col("hour") + pl.duration(hours=1)
    )


def _of_rack(rack: Rack, hours: pl.DataFrame, day: datetime, today: datetime) -> Iterator[pl.DataFrame]:
    down = pl.col("hour").dt.hour().is_in(list(hours_down(rack.name, day, today)))
    clock = pl.select(
        hour=pl.datetime_range(day, day + timedelta(hours=23), "1h", time_zone="UTC").dt.cast_time_unit("us")
    )
    mine = hours.filter(deployment=rack.name).drop("deployment")
    told = clock.join(mine, on="hour", how="left", maintain_order="left").with_columns(pl.exclude("hour").fill_null(0))
    unseen = 1000 + UNSEEN.get(rack.name, 0)
    engine = told.select(
        "hour",
        deployment=pl.lit(rack.name),
        source=pl.lit(rack.counters),
        observed_ms=pl.lit(HOUR_MS, pl.Int64),
        busy_ms="busy_ms",
        unavailable_ms=pl.when(down).then(HOUR_MS).otherwise(0).cast(pl.Int64),
        counted_ms=pl.lit(HOUR_MS, pl.Int64),
        gap_ms=pl.lit(0, pl.Int64),
        **{name: pl.col(name) * unseen // 1000 for name in ("prompt_tokens", "cached_tokens", "output_tokens")},
        prefill_us="prefill_us",
        decode_us="decode_us",
        requests="requests",
        resets=pl.when(down).then(1).otherwise(0).cast(pl.Int64),
    )
    if rack.prefill:
        yield from _by_role(engine)
    else:
        yield engine
    if rack.watts is not None:
        working, resting = rack.watts
        drawn = (pl.col("busy_ms") * working + (HOUR_MS - pl.col("busy_ms")) * resting) * rack.count
        yield told.select(
            "hour",
            deployment=pl.lit(rack.name),
            source=pl.lit("dcgm"),
            counted_ms=pl.lit(HOUR_MS, pl.Int64),
            gap_ms=pl.lit(0, pl.Int64),
            millijoules=drawn,
            resets=pl.lit(0, pl.Int64),
        )


def _by_role(engine: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Workers that only prefill are busy as long as prefill takes, those that only decode as long as calls run."""
    told = {"prefill": ("prompt_tokens", "cached_tokens", "prefill_us"), "decode": ("output_tokens", "decode_us")}
    for role, names in told.items():
        busy = pl.min_horizontal("busy_ms", pl.col("prefill_us") // 1000) if role == "prefill" else pl.col("busy_ms")
        of_others = {name for told_by in told.values() for name in told_by} - {*names}
        yield engine.with_columns(busy_ms=busy, role=pl.lit(role)).drop(of_others)


def _served(calls: pl.DataFrame) -> pl.DataFrame:
    """By deployment and hour: tokens, requests, request-seconds of each phase, and time in which any request ran."""
    hour = pl.col("started_at").dt.truncate("1h")
    speeds = pl.DataFrame({"deployment": [r.name for r in RACKS], "per_s": [r.prefill_per_s for r in RACKS]})
    prefill = (pl.col("input_tokens") - pl.col("cache_read_tokens")) * 1_000_000 // pl.col("per_s")
    start = (pl.col("started_at") - hour).dt.total_milliseconds()
    rows = (
        calls.join(speeds, on="deployment")
        .sort("started_at")
        .with_columns(hour=hour, start=start, prefill=prefill)
        .with_columns(end=pl.min_horizontal(pl.col("start") + pl.col("duration_ms"), HOUR_MS))
    )
    covered_to = pl.col("end").cum_max().shift(1).over("deployment", "hour").fill_null(0)
    return (
        rows.with_columns(busy=(pl.col("end") - pl.max_horizontal("start", covered_to)).clip(0))
        .group_by("deployment", "hour")
        .agg(
            busy_ms=pl.col("busy").sum(),
            prompt_tokens=pl.col("input_tokens").sum(),
            cached_tokens=pl.col("cache_read_tokens").sum(),
            output_tokens=pl.col("output_tokens").sum(),
            prefill_us=pl.col("prefill").sum(),
            decode_us=(pl.col("duration_ms") * 1000 - pl.col("prefill")).clip(0).sum(),
            requests=pl.len().cast(pl.Int64),
        )
    )
