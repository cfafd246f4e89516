"""Which model the names on calls were taken for.

Price data brings prices and rules that find a model by the names on a call. Both change with an update, and either can
change what a call of the past costs. So the names that were priced are kept with what they were taken for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Final

import polars as pl
from sqlalchemy import Column, Connection, String, Table, insert, select

from millicent.pricing import bundled, snapshot
from millicent.pricing.bundled import Found
from millicent.pricing.lists import Lists
from millicent.pricing.rates import Entry
from millicent.pricing.snapshot import PriceChange
from millicent.warehouse.rules import metadata

ASKED: Final = ("provider", "model", "endpoint_host")
MOST_NAMES: Final = 20_000
"""Names kept of one version; those beyond are found anew each time."""

Asked = tuple[str, str, str]
"""Provider, model and host as a call tells them; empty where it does not."""

price_names: Final = Table(
    "price_names", metadata,
    *(Column(name, String, primary_key=True) for name in ("data_version", *ASKED)),
    *(Column(name, String, nullable=False) for name in ("found_provider", "owner", "found_model")),
)  # fmt: skip


def asked_in(usages: pl.DataFrame) -> set[Asked]:
    """The names in a frame of usages, each combination once."""
    told = [pl.col(name) if name in usages.columns else pl.lit(None, pl.String).alias(name) for name in ASKED]
    return set(usages.select(told).unique().fill_null("").iter_rows())


def remember(connection: Connection, data_version: str, found: Mapping[Asked, Found]) -> None:
    """Keep what names are taken for under a version of the data; the first that is told stays."""
    rows = [
        dict(zip(("data_version", *ASKED), (data_version, *asked), strict=True))
        | {"found_provider": one.provider, "owner": one.owner, "found_model": one.model}
        for asked, one in found.items()
    ]
    if rows:
        connection.execute(insert(price_names).prefix_with("OR IGNORE"), rows)


def remembered(connection: Connection, data_version: str) -> dict[Asked, Found]:
    """What names were taken for under a version of the data."""
    c = price_names.c
    rows = connection.execute(select(price_names).where(c.data_version == data_version))
    return {(row.provider, row.model, row.endpoint_host): Found(row.found_provider, row.owner, row.found_model)
            for row in rows}  # fmt: skip


def lists(entries: Iterable[Entry], taken_for: Mapping[Asked, Found]) -> Lists:
    """Price lists on which names are found as `taken_for` says, and others as the installed data does."""
    made = Lists(tuple(entries))
    find = finder(taken_for)
    made.find = lru_cache(maxsize=MOST_NAMES)(find)
    return made


def finder(taken_for: Mapping[Asked, Found]) -> Callable[[str | None, str | None, str | None], Found | None]:
    """As `bundled.find`, where `taken_for` does not say otherwise."""

    def find(provider: str | None, model: str | None, host: str | None) -> Found | None:
        return taken_for.get((provider or "", model or "", host or "")) or bundled.find(provider, model, host)

    return find


def moved(
    taken_for: Mapping[Asked, Found], old: Iterable[Entry], new: Iterable[Entry], before: datetime
) -> Iterator[tuple[Asked, list[PriceChange]]]:
    """Names that the installed data takes for another model, where that changes a price before an instant.

    Args:
        taken_for: what names were taken for so far.
        old: the price data that holds so far; the changes are told of its models.
        new: the price data that is installed.
        before: prices from then on do not matter.
    """
    was, now = _by_model(old), _by_model(new)
    for asked, found in taken_for.items():
        other = bundled.find(*asked)
        if other == found:
            continue
        then = was.get((found.owner, found.model), [])
        later = now.get((other.owner, other.model), []) if other else []
        same = [replace(entry, provider=found.owner, model=found.model) for entry in later]
        if changes := snapshot.changes(then, same, before):
            yield asked, changes


def _by_model(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    models: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        models.setdefault((entry.provider, entry.model), []).append(entry)
    return models
