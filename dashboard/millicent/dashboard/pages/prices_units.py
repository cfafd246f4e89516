"""Unit prices as people read them: what a million tokens of each kind costs a call made now, at list and as billed.

They are asked of the price book by pricing a small call, so that what is shown is what calls are priced at.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from millicent.dashboard import format as fmt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from millicent.pricing.book import PriceBook

SAMPLE: Final = 1000
"""Tokens of the call that is priced: few enough for the first tier, and its cost × 1000 is the price per million."""
COUNTS: Final[dict[str, dict[str, int]]] = {
    "input": {"input_tokens": SAMPLE},
    "cache_read": {"input_tokens": SAMPLE, "cache_read_tokens": SAMPLE},
    "cache_write": {"input_tokens": SAMPLE, "cache_write_tokens": SAMPLE},
    "output": {"output_tokens": SAMPLE},
}
KINDS: Final = {"input": "Input", "cache_read": "Cached", "cache_write": "Cache write", "output": "Output"}
_COLUMNS: Final = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which calls a unit price is asked for; None is unknown."""

    provider: str | None
    model: str | None
    endpoint_host: str | None = None
    region: str | None = None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """USD per million tokens by `KINDS`, list and billed; None where the price book has no price."""

    list_usd: dict[str, Decimal | None]
    billed_usd: dict[str, Decimal | None]
    entry: str | None

    @property
    def discounted(self) -> bool:
        """Whether what is billed differs from the list."""
        return any(self.billed_usd[kind] != price for kind, price in self.list_usd.items())


def units(book: PriceBook, asked: Sequence[Asked], at: datetime) -> list[Units]:
    """The unit prices of each, for a call at this instant."""
    if not asked:
        return []
    rows = [
        {
            "provider": one.provider, "model": one.model, "endpoint_host": one.endpoint_host, "region": one.region,
            "service_tier": one.service_tier, "billing": "api", "started_at": at,
            **{name: counts.get(name, 0) for name in _COLUMNS},
        }
        for one in asked
        for counts in COUNTS.values()
    ]  # fmt: skip
    text = dict.fromkeys(("provider", "model", "endpoint_host", "region", "service_tier", "billing"), pl.String())
    schema = {**text, "started_at": pl.Datetime("us", "UTC"), **dict.fromkeys(_COLUMNS, pl.Int64())}
    priced = book.price(pl.DataFrame(rows, schema=schema)).to_dicts()
    width = len(COUNTS)
    return [_units(priced[at_row : at_row + width]) for at_row in range(0, len(priced), width)]


def _units(priced: Sequence[dict[str, Any]]) -> Units:
    told = list(zip(COUNTS, priced, strict=True))
    return Units(
        list_usd={kind: _per_million(row["list_cost_usd"]) for kind, row in told},
        billed_usd={kind: _per_million(row["billed_cost_usd"]) for kind, row in told},
        entry=priced[0]["price_entry"],
    )


def _per_million(usd: Decimal | None) -> Decimal | None:
    return None if usd is None else usd * (1_000_000 // SAMPLE)


def unit(usd: Decimal | None) -> str:
    """A unit price with all its digits, at least two after the point: `$2.50`, `$0.075`."""
    if usd is None:
        return fmt.UNKNOWN
    text = f"{usd:f}"
    whole, _, digits = text.partition(".")
    return f"${int(whole):,}.{digits.rstrip('0').ljust(2, '0')}"
