"""Price a million calls with the price book and with `genai_prices.calc_price` one by one, and compare every amount.

    python benchmarks/pricing.py [--rows 1000000] [--sample N] [--own 400]

Calls are drawn over every provider, model, date, request size, service tier and price context of the price data, with
cached tokens and other billable units (searches, pages, seconds, …). Both price them on one core, and seconds are that
core's; each amount must be the library's total, rounded alike. `--sample` lets the library price the first N only. Then
the book prices them with a few hundred overrides and terms of its own. Exits with 1 when an amount differs.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as wall
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import product
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"  # read when polars is imported; figures are per core

import genai_prices
import numpy as np
import polars as pl
from genai_prices.data import providers
from genai_prices.types import ConditionalPrice, ModelInfo, Usage
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from millicent.pricing.book import PriceBook
from millicent.pricing.entries import BookEntry, FxRate, Override, Term
from millicent.pricing.units import REQUESTS, UNITS

REPEATS = 5
CHUNK = 10_000
UNIT = Decimal("1e-12")
TARGET_PER_S, TARGET_RATIO = 1_000_000, 100
START = datetime(2024, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=1100)
UNITS_TYPE = pl.List(pl.Struct({"key": pl.String(), "value": pl.Int64()}))
COUNTED = [unit for unit in UNITS if unit.key != REQUESTS]
OFFERED = [(provider.id, model) for provider in providers for model in provider.models]


def contexts(model: ModelInfo) -> list[dict[str, str]]:
    """Every combination of what the model's variants ask for, and one thing that none asks for."""
    asked: dict[str, list[str]] = {}
    for variant in model.price_variants or ():
        for key, value in variant.when.items():
            asked.setdefault(key, []).append(value)
    combinations = product(*([None, *dict.fromkeys(values)] for values in asked.values()))
    found = [{key: value for key, value in zip(asked, one, strict=True) if value} for one in combinations]
    return [*found, {"service_tier": "flex"}, {"speed": "fast"}]


def billed_by(model: ModelInfo) -> list[tuple[str, int]]:
    """Units beside tokens that the model has a price for on some day, and how many a call may have."""
    dated = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    keys = {key for one in (*dated, *(model.price_variants or ())) for key, price in vars(one.prices).items() if price}
    return [(unit.key, 20 * unit.per // 1000) for unit in COUNTED if unit.price_key in keys]


def random_calls(rows: int, seed: int = 20261125) -> tuple[pl.DataFrame, list[dict[str, str]]]:
    """Calls in the columns that `PriceBook.price` takes, and the price context of each as the library takes it."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(OFFERED), rows)
    offered = [contexts(model) for _, model in OFFERED]
    units = [billed_by(model) for _, model in OFFERED]
    context_of = rng.integers(0, 1 << 30, rows)
    asked = [offered[at][pick % len(offered[at])] for at, pick in zip(drawn.tolist(), context_of.tolist(), strict=True)]
    by_tier = rng.integers(0, 2, rows) > 0  # told as the service tier, as providers report it
    words = {"flex", "priority", "fast", "default"}
    tiers, told = [], []
    for context, tier in zip(asked, by_tier.tolist(), strict=True):
        rest = dict(context)
        as_tier = rest.pop("service_tier") if tier and rest.get("service_tier") in words else None
        if tier and as_tier is None and rest.get("processing") == "batch":
            as_tier = rest.pop("processing")
        tiers.append(as_tier)
        told.append(",".join(f"{key}={value}" for key, value in sorted(rest.items())) or None)
    searched = (rng.integers(0, 2, rows) > 0).tolist()
    amounts = rng.random(rows).tolist()
    pairs = [
        [{"key": key, "value": 1 + int(amount * most)} for key, most in units[at]] if some and units[at] else None
        for at, some, amount in zip(drawn.tolist(), searched, amounts, strict=True)
    ]
    total = np.exp(rng.uniform(0, np.log(1_000_000), rows)).astype(np.int64)
    read = (total * rng.choice([0, 0, 0.3, 0.9], rows)).astype(np.int64)
    write = ((total - read) * rng.choice([0, 0, 0, 0.5], rows)).astype(np.int64)
    output = rng.integers(0, 8_000, rows)
    calls = pl.DataFrame(
        {
            "provider": pl.Series([provider for provider, _ in OFFERED]).gather(drawn),
            "model": pl.Series([model.id for _, model in OFFERED]).gather(drawn),
            "service_tier": pl.Series(tiers, dtype=pl.String),
            "price_context": pl.Series(told, dtype=pl.String),
            "input_tokens": total,
            "output_tokens": output,
            "cache_read_tokens": read,
            "cache_write_tokens": write,
            "cache_write_1h_tokens": write // 3,
            "reasoning_tokens": output // 2,
            "units": pl.Series(pairs, dtype=UNITS_TYPE),
        }
    ).with_columns(
        started_at=pl.Series(rng.integers(0, SPAN // timedelta(microseconds=1), rows)).cast(pl.Duration("us"))
        + pl.lit(START),
    )
    return calls, asked


def usage_of(call: dict[str, Any]) -> Usage:
    """A call as the library takes it."""
    counts = {name: call[name] for name in call if name.endswith("_tokens") and name != "reasoning_tokens"}
    units = {pair["key"]: pair["value"] for pair in call["units"] or ()}
    return Usage(**counts, output_reasoning_tokens=call["reasoning_tokens"], **units)


def library_price(call: dict[str, Any], usage: Usage, context: dict[str, str]) -> Decimal | None:
    """The library's total for one call; None where it has no price."""
    try:
        return genai_prices.calc_price(
            usage,
            call["model"],
            provider_id=call["provider"],
            genai_request_timestamp=call["started_at"],
            price_context=context or None,
        ).total_price
    except (LookupError, ValueError):
        return None


def library_prices(calls: pl.DataFrame, asked: list[dict[str, str]]) -> tuple[list[Decimal | None], float]:
    """The library's totals rounded as stored, and the seconds that it took, without the making of its inputs."""
    totals: list[Decimal | None] = []
    seconds = 0.0
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress("calc_price", *columns, transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(calls))
        for first in range(0, len(calls), CHUNK):
            some = calls.slice(first, CHUNK).to_dicts()
            told = [(call, usage_of(call), context) for call, context in zip(some, asked[first:], strict=False)]
            begun = time.process_time()
            found = [library_price(*one) for one in told]
            seconds += time.process_time() - begun
            totals += [None if one is None else one.quantize(UNIT, rounding=ROUND_HALF_EVEN) for one in found]
            progress.advance(task, len(some))
    return totals, seconds


def own_entries(count: int, seed: int = 7) -> list[BookEntry]:
    """Overrides and terms, half and half: by size, by wall clock, in euros, for a model, for a provider."""
    rng = np.random.default_rng(seed)
    euro: dict[str, Any] = {"currency": "EUR", "source": "ECB"}
    entries: list[BookEntry] = [
        FxRate(**euro, usd_per_unit=Decimal("1.08"), effective_from=START),
        FxRate(**euro, usd_per_unit=Decimal("1.17"), effective_from=START + SPAN / 2),
    ]
    for number, at in enumerate(rng.choice(len(OFFERED), count, replace=False).tolist()):
        provider, model = OFFERED[at]
        since = START + timedelta(days=int(rng.integers(0, 900)))
        held: dict[str, Any] = {"effective_from": since, "source": "contract", "id": number + 1, "provider": provider}
        match number % 8:
            case 0:
                more = {"input_mtok": Decimal("1.5"), "output_mtok": Decimal(6)}
                large = ((200_000, {"input_mtok": Decimal(3)}),)
                entries.append(Override(**held, model=model.id, prices=more, above=large))
            case 1:
                euros = {"input_mtok": Decimal("1.25"), "output_mtok": Decimal(5)}
                entries.append(Override(**held, model=model.id, prices=euros, currency="EUR"))
            case 2:
                entries.append(
                    Override(**held, model=model.id, like="openai/gpt-4o", multiply=Decimal("0.8"),
                             daily_from=wall(22), daily_to=wall(6), zone="Europe/Berlin")
                )  # fmt: skip
            case 3:
                until = since + timedelta(days=90)
                entries.append(Override(**held, effective_to=until, model=model.id, prices={"input_mtok": Decimal(2)}))
            case 4:
                entries.append(Term(**held, model=model.id, percent_off=Decimal("12.5")))
            case 5:
                entries.append(Term(**held, model=model.id, keys=("cache_read_mtok",), percent_off=Decimal(50)))
            case 6:
                entries.append(Term(**held, model=f"{model.id[:4]}*", prices={"output_mtok": Decimal(4)}))
            case 7:
                entries.append(Term(**held, percent_off=Decimal(3)))
    return entries


def best_of(task: Callable[[], object]) -> float:
    """Seconds of the core in the quickest run."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.process_time()
        task()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="calls priced by the book")
    parser.add_argument("--sample", type=int, help="calls of them priced by the library too; all if left out")
    parser.add_argument("--own", type=int, default=400, help="overrides and terms of the second figure")
    options = parser.parse_args()

    calls, asked = random_calls(options.rows)
    begun = time.process_time()
    book = PriceBook.bundled()
    compiled_s = time.process_time() - begun
    begun = time.process_time()
    priced = book.price(calls)
    first_s = time.process_time() - begun
    ours_s = best_of(lambda: book.price(calls))
    contexts_told = calls["price_context"].count() + calls["service_tier"].count()
    print(f"calls          {len(calls):,} of {len(OFFERED):,} models; {contexts_told:,} tiers and price contexts, "
          f"{calls['units'].count():,} with other units")  # fmt: skip
    print(f"price book     {book.version}, compiled in {compiled_s * 1e3:.0f} ms")

    sample = calls.head(options.sample or len(calls))
    expected, library_s = library_prices(sample, asked)
    ours_s = min(ours_s, best_of(lambda: book.price(calls)))  # before and after, as other work on the machine allows
    ours_per_s, library_per_s = len(calls) / ours_s, len(sample) / library_s
    print(f"ours           {ours_per_s:12,.0f} calls/s per core (target {TARGET_PER_S:,}; first pass {first_s:.2f} s)")
    print(f"calc_price     {library_per_s:12,.0f} calls/s per core ({len(sample):,} calls, one by one)")
    print(f"ratio          {ours_per_s / library_per_s:12,.0f} × (target {TARGET_RATIO})")
    print(f"status         {dict(sorted(priced['price_status'].value_counts().iter_rows()))}")

    rows = zip(priced["list_cost_usd"].head(len(sample)), priced["price_status"], expected, strict=False)
    differing = [
        (at, ours, theirs)
        for at, (ours, status, theirs) in enumerate(rows)
        if ours != theirs and not (status == "unpriced" and not theirs)  # billed by what the call has not: null, not 0
    ]
    print(f"equal          {len(sample) - len(differing):,} of {len(sample):,} amounts")
    for at, ours, theirs in differing[:5]:
        print(f"  differs: {ours} here, {theirs} there, for {calls.row(at, named=True)} in {asked[at]}")

    entries = own_entries(options.own)
    begun = time.process_time()
    own = book.with_own(entries)
    overlaid_s = time.process_time() - begun
    begun = time.process_time()
    with_own = own.price(calls)
    own_first_s = time.process_time() - begun
    own_per_s = len(calls) / best_of(lambda: own.price(calls))
    met = with_own["price_entry"].fill_null("") != priced["price_entry"].fill_null("")
    same = with_own.filter(~met)["list_cost_usd"].equals(priced.filter(~met)["list_cost_usd"])
    print(f"own entries    {own_per_s:12,.0f} calls/s per core with {len(entries)} of them, met by {met.sum():,} calls "
          f"(read in {overlaid_s * 1e3:.0f} ms; first pass {own_first_s:.2f} s)")  # fmt: skip
    print(f"others         {'cost what they did' if same else 'DIFFER without an own entry'}")
    return 1 if differing or not same else 0


if __name__ == "__main__":
    sys.exit(main())
