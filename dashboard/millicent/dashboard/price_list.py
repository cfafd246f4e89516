"""The price book as a list for people: what holds, with our own prices first, and how a model's prices developed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import polars as pl

from millicent.dashboard import price_answers as answers
from millicent.pricing.book import PriceBook
from millicent.pricing.entries import Override

_BEFORE_ALL: Final = datetime(1970, 1, 1, tzinfo=UTC)
_USD_PER: Final = "_usd_per_"
_OURS: Final = re.compile(r"override (\d+) ")


def search(
    book: PriceBook, text: str, *, provider: str | None = None, model: str | None = None, at: datetime | None = None
) -> list[answers.Price]:
    """List prices whose provider/model contains a text; those that hold at an instant, all dated ones if none is told.

    Raises:
        ValueError: no list is of this provider.
    """
    found = book.models(provider)
    named = pl.concat_str("provider", pl.lit("/"), "model").str.to_lowercase()
    found = found.filter(named.str.contains(text.lower(), literal=True))
    found = found if model is None else found.filter(pl.col("model") == model)
    found = found if at is None else _held(found, at)
    ours = [
        price
        for entry in reversed(book.own)
        if isinstance(entry, Override) and _named(entry, text, provider, model)
        for price in dated(book, entry.provider, entry.model, endpoint_host=entry.endpoint_host, region=entry.region)
        if price.own_entry == entry.id and (at is None or _holds(price, at))
    ]
    return [*ours, *(_listed(row) for row in found.iter_rows(named=True))]


def dated(
    book: PriceBook, provider: str | None, model: str | None, *, endpoint_host: str | None = None,
    region: str | None = None,
) -> list[answers.Price]:  # fmt: skip
    """How the prices of one model developed, oldest first; ours where they hold."""
    found = book.history(provider, model, endpoint_host=endpoint_host, region=region)
    return [_step(row, provider, model or "") for row in found.iter_rows(named=True)]


def _named(entry: Override, text: str, provider: str | None, model: str | None) -> bool:
    said = f"{entry.provider or ''}/{entry.model}".lower()
    return text.lower() in said and provider in {None, entry.provider} and model in {None, entry.model}


def _holds(price: answers.Price, at: datetime) -> bool:
    begun = price.effective_from is None or price.effective_from <= at
    return begun and (price.effective_to is None or at < price.effective_to)


def _held(listed: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Of each list, standard or variant, the prices that held at an instant."""
    since = pl.col("effective_from").fill_null(_BEFORE_ALL)
    begun = listed.filter(since <= at)
    return begun.filter(since == since.max().over("provider", "model", "variant"))


def _listed(row: Mapping[str, Any]) -> answers.Price:
    """A row of `PriceBook.models`."""
    shown = ("provider", "model", "name", "variant", "effective_from", "above_input_tokens", "source", "price_entry")
    clock = row["daily_from"]
    return answers.Price(
        **{name: row[name] for name in shown}, kind="bundled", own_entry=None, effective_to=None,
        hours=f"from {clock:%H:%M} UTC" if clock is not None else None, prices=_unit_prices(row),
    )  # fmt: skip


def _step(row: Mapping[str, Any], provider: str | None, model: str) -> answers.Price:
    """A row of `PriceBook.history`."""
    ours = _OURS.match(row["price_entry"] or "")
    shown = ("kind", "hours", "source", "price_entry")
    return answers.Price(
        **{name: row[name] for name in shown}, provider=provider, model=model, name=None, variant=None,
        own_entry=int(ours[1]) if ours else None, effective_from=row["from"], effective_to=row["to"],
        above_input_tokens=None, prices=_unit_prices(row),
    )  # fmt: skip


def _unit_prices(row: Mapping[str, Any]) -> dict[str, Decimal]:
    told = ((name, price) for name, price in row.items() if _USD_PER in name and price is not None)
    return {name.replace(_USD_PER, "_"): price for name, price in told}
