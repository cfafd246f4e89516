"""Price calls with the price book and with `genai_prices.calc_price` row by row, side by side.

    python benchmarks/pricing.py [--rows 1000000] [--sample 5000]

Both run on one core in the same process. The sample that the library prices is compared amount by amount.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

os.environ["POLARS_MAX_THREADS"] = "1"  # read when polars is imported; figures are per core

import genai_prices
import numpy as np
import polars as pl
from genai_prices.data import providers

from millicent.pricing.book import PriceBook

REPEATS = 3
UNIT = Decimal("1e-12")
CONTEXTS = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


def random_calls(rows: int, seed: int = 20261021) -> pl.DataFrame:
    """Calls over every provider, model, date and request size of the price data, cache use included."""
    rng = np.random.default_rng(seed)
    offered = [(provider.id, model.id) for provider in providers for model in provider.models]
    drawn = rng.integers(0, len(offered), rows)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    span_us = int(timedelta(days=1100) / timedelta(microseconds=1))
    total = np.exp(rng.uniform(0, np.log(1_000_000), rows)).astype(np.int64)
    read = (total * rng.choice([0, 0, 0.3, 0.9], rows)).astype(np.int64)
    write = ((total - read) * rng.choice([0, 0, 0, 0.5], rows)).astype(np.int64)
    tiers = pl.Series([None, None, None, *CONTEXTS], dtype=pl.String)
    return pl.DataFrame(
        {
            "provider": pl.Series([provider for provider, _ in offered]).gather(drawn),
            "model": pl.Series([model for _, model in offered]).gather(drawn),
            "service_tier": tiers.gather(rng.integers(0, len(tiers), rows)),
            "input_tokens": total,
            "output_tokens": rng.integers(0, 8_000, rows),
            "cache_read_tokens": read,
            "cache_write_tokens": write,
            "cache_write_1h_tokens": write // 3,
        }
    ).with_columns(
        started_at=pl.Series(rng.integers(0, span_us, rows)).cast(pl.Duration("us")) + pl.lit(start),
    )


def library_price(call: dict[str, Any]) -> Decimal | None:
    """The library's total for one call, rounded as stored; None where it has no price."""
    counts = {name: call[name] for name in call if name.endswith("_tokens")}
    try:
        price = genai_prices.calc_price(
            counts,
            call["model"],
            provider_id=call["provider"],
            genai_request_timestamp=call["started_at"],
            price_context=CONTEXTS.get(call["service_tier"]),
        )
    except (LookupError, ValueError):
        return None
    return price.total_price.quantize(UNIT, rounding=ROUND_HALF_EVEN)


def best_of(task: Callable[[], object]) -> float:
    """Seconds of the quickest run."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="calls priced by the book")
    parser.add_argument("--sample", type=int, default=5_000, help="calls of them priced by the library too")
    options = parser.parse_args()

    calls = random_calls(options.rows)
    sample = calls.head(options.sample).to_dicts()
    begun = time.perf_counter()
    book = PriceBook.bundled()
    compiled_s = time.perf_counter() - begun
    begun = time.perf_counter()
    priced = book.price(calls)
    first_s = time.perf_counter() - begun
    ours_per_s = len(calls) / best_of(lambda: book.price(calls))
    library_per_s = len(sample) / best_of(lambda: [library_price(call) for call in sample])

    amounts = priced["list_cost_usd"].head(len(sample)).to_list()
    statuses = priced["price_status"].head(len(sample)).to_list()
    expected = [library_price(call) for call in sample]
    differing = [
        (call, ours, theirs)
        for call, ours, status, theirs in zip(sample, amounts, statuses, expected, strict=True)
        if ours != theirs and not (status == "unpriced" and not theirs)  # billed by other units: null, not 0
    ]
    print(f"price book     {book.version}, compiled in {compiled_s * 1e3:.0f} ms")
    print(f"ours           {ours_per_s:12,.0f} calls/s per core ({len(calls):,} rows; first pass {first_s:.2f} s)")
    print(f"calc_price     {library_per_s:12,.0f} calls/s per core ({len(sample):,} rows, one by one)")
    print(f"ratio          {ours_per_s / library_per_s:12,.0f} ×")
    print(f"status         {dict(priced['price_status'].value_counts().iter_rows())}")
    print(f"equal          {len(sample) - len(differing):,} of {len(sample):,} sampled calls")
    for call, ours, theirs in differing[:5]:
        print(f"  differs: {ours} here, {theirs} there, for {call}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
