"""Tagging stored calls again after rules have changed: what would move from whom to whom, then moving it.

It goes day by day (`history`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Final

import polars as pl
from sqlalchemy import select

from millicent.collector import history
from millicent.collector.attribution import RULED, apply_rules, reached
from millicent.collector.batch import Context
from millicent.pricing.profiles import MATH
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import deployment_hours, without_zone

RATES: Final = ("rate_usd_per_weight", "output_rate_usd_per_weight")
"""What a thousandth of weight carries: of input, and of output."""
_CHANGED: Final = (*RULED, "tag_sources", "identity_source", "billing")


@dataclass(frozen=True, slots=True)
class Move:
    """Counted calls that go from one team to another, None standing for no team; the same team where other tags change.

    `spend_usd` is what they cost before: billed, or their share of own hardware without idle; None where unknown.
    """

    before: str | None
    after: str | None
    calls: int
    tokens: int
    spend_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Retagged:
    """`calls`: rows that change or changed, uncounted ones included. `moves`: those that count, most spend first."""

    calls: int
    moves: tuple[Move, ...]


def retag(warehouse: Warehouse, tenant: str, period: Period, *, apply: bool, actor: str) -> Retagged:
    """Tag the calls of a tenant that began in `period` by its rules as they are now.

    Args:
        warehouse: whose calls.
        tenant: whose calls of it.
        period: half-open.
        apply: False only tells what would change.
        actor: who asked, for the audit log.

    Raises:
        ClosedPeriodError: it is to be applied, and the period touches a closed one; nothing has changed then.
        EngineError: a day could not be written; those before it are.
    """
    tagger = _Tagger(warehouse, tenant)
    total, moves = 0, list[Move]()
    for day, changed in history.days(warehouse, tenant, period, tagger.changed, apply=apply):
        total += changed.height
        moves += tagger.moves(changed, day)
    if apply:
        told = {"start": period.start.isoformat(), "end": period.end.isoformat(), "calls": total,
                "rules": [rule.id for _, rule in tagger.rules]}  # fmt: skip
        warehouse.control.note(tenant, actor, "rules.apply", told)
    return Retagged(total, tuple(summed(moves)))


def summed(moves: Iterable[Move]) -> list[Move]:
    """One move for each two teams, most spend first, unknown spend last."""
    sums: dict[tuple[str | None, str | None], Move] = {}
    for one in moves:
        key = one.before, one.after
        was = sums.get(key, Move(*key, 0, 0, None))
        known = [spend for spend in (was.spend_usd, one.spend_usd) if spend is not None]
        sums[key] = Move(
            *key, was.calls + one.calls, was.tokens + one.tokens, sum(known, Decimal(0)) if known else None
        )
    return sorted(sums.values(), key=lambda one: (one.spend_usd is None, -(one.spend_usd or 0), -one.calls))


@dataclass(frozen=True, slots=True)
class Reach:
    """How many stored calls a rule holds for, and for how many it is the one that sets a tag."""

    id: int | None
    position: int | None
    holds: int
    decides: int


def check(warehouse: Warehouse, tenant: str, period: Period) -> list[Reach]:
    """What each rule of a tenant does to its calls that began in `period`, by position; changes nothing."""
    rules = warehouse.control.rules(tenant)
    sums = {rule.id: [0, 0] for _, rule in rules}
    for day in history.steps(period, history.DAY):
        for stored in history.parts(warehouse, tenant, day):
            for rule, holds, decides in reached(stored.filter("counted"), rules):
                sums[rule.id][0] += holds
                sums[rule.id][1] += decides
    return [Reach(rule.id, rule.position, *sums[rule.id]) for _, rule in rules]


class _Tagger:
    """The rules and deployments of one tenant as they are when it is made, and the calls that they change."""

    def __init__(self, warehouse: Warehouse, tenant: str) -> None:
        self._warehouse, self._tenant = warehouse, tenant
        self.rules = warehouse.control.rules(tenant)
        self._deployments = warehouse.control.deployments(tenant)
        self._context = Context(warehouse.prices, self._deployments, lambda keys: pl.Series([False] * keys.height))

    def changed(self, period: Period) -> pl.DataFrame:
        """Calls that read otherwise by the rules, as they would, and `team_now` and so on: as they do."""
        stored = history.parts(self._warehouse, self._tenant, period)
        return pl.concat(
            history.otherwise(now, self._tagged, _CHANGED, ("provider", "billing"), self._context) for now in stored
        )

    def _tagged(self, now: pl.DataFrame) -> pl.DataFrame:
        return apply_rules(now, self.rules, self._deployments)

    def moves(self, changed: pl.DataFrame, period: Period) -> list[Move]:
        """What moves between any two teams; of some teams there may be several."""
        rows = changed.filter("counted").with_columns(hour=pl.col("started_at").dt.truncate("1h"))
        rows = rows.join(
            self._rates(period), left_on=["deployment_now", "hour"], right_on=["deployment", "hour"], how="left"
        )
        own, cached = pl.col("billing_now") == "self_hosted", pl.col("cache_read_tokens").fill_null(0)
        into = (pl.col("input_tokens").fill_null(0) - cached) * pl.col("w_input") + cached * pl.col("w_cached")
        out = pl.col("output_tokens").fill_null(0) * pl.col("w_output")
        billed = pl.when(~own).then("billed_cost_usd_now").cast(pl.Decimal(38, 12))
        sums = rows.group_by("team_now", "team", *RATES).agg(
            calls=pl.col("call_count").sum(),
            tokens=pl.sum_horizontal("input_tokens", "output_tokens").sum(),
            billed=pl.when(billed.count() > 0).then(billed.sum()),
            into=pl.when(own).then(into).sum(),
            out=pl.when(own).then(out).sum(),
        )
        return [
            Move(before, after, calls, tokens, _spend(billed, (into, out), rates))
            for before, after, *rates, calls, tokens, billed, into, out in sums.iter_rows()
        ]

    def _rates(self, period: Period) -> pl.DataFrame:
        c = deployment_hours.c
        told = (c[name] for name in ("deployment", "hour", "w_input", "w_cached", "w_output", *RATES))
        asked = select(*told).where(
            c.tenant == self._tenant,
            c.hour > without_zone(period.start - history.HOUR),
            c.hour < without_zone(period.end),
        )
        return pl.DataFrame(pl.from_arrow(self._warehouse.engine.read(asked)))


def _spend(billed: Decimal | None, weights: tuple[int, int], rates: Sequence[Decimal | None]) -> Decimal | None:
    if None in rates:
        return billed
    with localcontext(MATH):
        hardware = sum(weight * (rate or 0) for weight, rate in zip(weights, rates, strict=True))
        return (billed or Decimal(0)) + hardware
