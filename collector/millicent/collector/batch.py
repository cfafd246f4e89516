"""What travels through the pipeline: requests come in, a batch of spans goes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

import polars as pl

from millicent.warehouse import metered
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.evidence import Evidence, Probe, nothing
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.rules import Rule

_NOBODY: Final = EMPTY.select("tenant", "service", "scope", "dialect", "signal")
_NO_SERIES: Final = EMPTY.select(
    "tenant", series="trace_id", last_at="started_at", value="input_tokens", count="call_count"
)
_NO_HOURS: Final = EMPTY.select("tenant", "service", "signal", hour="started_at")


class Prices(Protocol):
    """What the pipeline needs of a price book."""

    def price(self, usages: pl.DataFrame) -> pl.DataFrame:
        """List cost and its parts, billed cost, status, entry and version, one row per usage."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One acknowledged request, as the spool kept it but expanded; `signal` is traces, metrics or logs."""

    body: bytes
    tenant: str
    key_id: str
    received_at: datetime
    signal: str = "traces"


@dataclass(frozen=True, slots=True)
class Context:
    """What the steps look things up in. `seen` tells which keys (columns of `ledger.KEY`) are stored already.

    `deployments` and `rules` come with their tenant, rules by position. `series` answers (tenant, series) with what is
    remembered of them: the columns of that table. `related`, `tellers`, `metrics` and `hours` find what
    is stored of the same calls: see `millicent.warehouse.evidence`. `meters` tells the last readings of meters that are
    stored: see `millicent.warehouse.metered`.
    """

    prices: Prices
    deployments: Sequence[tuple[str, Deployment]]
    seen: Callable[[pl.DataFrame], pl.Series]
    rules: Sequence[tuple[str, Rule]] = ()
    series: Callable[[pl.DataFrame], pl.DataFrame] = lambda _: _NO_SERIES
    related: Callable[[Probe, datetime], Evidence] = nothing
    tellers: Callable[[datetime, datetime], pl.DataFrame] = lambda _, __: _NOBODY
    metrics: Callable[[pl.DataFrame], pl.DataFrame] = lambda _: EMPTY
    hours: Callable[[pl.DataFrame], pl.DataFrame] = lambda _: _NO_HOURS
    meters: Callable[[], pl.DataFrame] = metered.SERIES.to_frame


@dataclass(frozen=True, slots=True)
class Batch:
    """`spans`: rows still on their way. `left`: (tenant, received_at, outcome, reason) of those that went.

    `broken`: places of requests that do not decode, none of whose spans are in either. `edges`: spans that are no calls
    but whose structure and tags others inherit. `current`: stored calls that were decided again, as they read now.
    `revised`: those of them that read otherwise afterwards. `told`: key and own words (`matching.MERGED`) of calls that
    counting changed; at the end, whole rows of the record. `series`: how far metrics are read now. `meter_hours` and
    `meter_series`: energy that was told, as `metered.HOURS`, and how far its counters are read now.
    """

    spans: pl.DataFrame
    left: tuple[pl.DataFrame, ...] = ()
    broken: tuple[int, ...] = ()
    quarantined: pl.DataFrame = field(default_factory=pl.DataFrame)
    edges: pl.DataFrame = field(default_factory=pl.DataFrame)
    current: pl.DataFrame = field(default_factory=EMPTY.clone)
    revised: pl.DataFrame = field(default_factory=EMPTY.clone)
    told: pl.DataFrame = field(default_factory=EMPTY.clone)
    series: pl.DataFrame = field(default_factory=pl.DataFrame)
    meter_hours: pl.DataFrame = field(default_factory=pl.DataFrame)
    meter_series: pl.DataFrame = field(default_factory=pl.DataFrame)

    def leave(self, who: pl.Expr, outcome: str, reason: pl.Expr) -> Batch:
        """Let the spans for which `who` is true go, with an outcome of `ledger.OUTCOMES` and a reason."""
        known = who.fill_null(False)
        going = self.spans.filter(known).select(
            "tenant", "received_at", outcome=pl.lit(outcome), reason=reason.cast(pl.String)
        )
        return replace(self, spans=self.spans.filter(~known), left=(*self.left, going)) if going.height else self


def first(spans: pl.DataFrame, keys: Sequence[str]) -> pl.Expr:
    """The first of `keys` that says something; blank text says nothing."""
    type_ = spans.schema[keys[0]]
    present = [pl.col(key) for key in keys if spans[key].null_count() < spans.height]
    if type_ == pl.String:
        said = (key.str.strip_chars() for key in present)
        present = [pl.when(text != "").then(text) for text in said]
    return pl.coalesce(*present) if present else pl.lit(None, type_)
