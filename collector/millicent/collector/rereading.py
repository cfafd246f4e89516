"""Reading stored calls again after a usage rule was mended: what would change, then changing it.

The rule runs over the counters as they came (`usage_raw`), so no telemetry is needed. It goes day by day (`history`).
Which rows count is left as it was decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import polars as pl

from millicent.collector import history, reading
from millicent.collector.batch import Context
from millicent.warehouse import record
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse

READ: Final = (*record.TOKENS, "units", "usage_rule", "usage_flags", "usage_source")
PRICED_BY: Final = (*record.TOKENS, "units")
_KEPT: Final = tuple(name for name in PRICED_BY if name not in {"input_tokens", "output_tokens"})


@dataclass(frozen=True, slots=True)
class Difference:
    """What another reading makes of the counted calls of a day, a dialect and a model; costs are list prices.

    Sums leave unknowns out, and are None where all are unknown.
    """

    day: date
    dialect: str
    rule: str
    model: str | None
    calls: int
    input_tokens_before: int | None
    input_tokens_after: int | None
    output_tokens_before: int | None
    output_tokens_after: int | None
    list_cost_usd_before: Decimal | None
    list_cost_usd_after: Decimal | None


@dataclass(frozen=True, slots=True)
class Reread:
    """`calls`: rows that change or changed, uncounted ones included."""

    calls: int
    differences: tuple[Difference, ...]


def reread(warehouse: Warehouse, tenant: str, period: Period, *, apply: bool, actor: str) -> Reread:
    """Read the calls of a tenant that began in `period` by the usage rules as they are now.

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
    context = Context(warehouse.prices, (), lambda keys: pl.Series([False] * keys.height))
    total, differences = 0, list[Difference]()

    def changed(day: Period) -> pl.DataFrame:
        stored = history.parts(warehouse, tenant, day)
        return pl.concat(history.otherwise(now, _again, READ, PRICED_BY, context) for now in stored)

    for _, found in history.days(warehouse, tenant, period, changed, apply=apply, own=_again):
        total += found.height
        differences += _differences(found.filter("counted"))
    if apply:
        asked = {"start": period.start.isoformat(), "end": period.end.isoformat(), "calls": total}
        warehouse.control.note(tenant, actor, "reread", asked)
    return Reread(total, tuple(differences))


def _again(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` by today's rules; what they learned from other tellings of their call they keep."""
    after = pl.concat([reading.reread(rows), rows.select(pl.col(_KEPT).name.suffix("_now"))], how="horizontal")
    learned = pl.col("usage_flags").list.contains("merged_from_others")
    return after.with_columns(
        pl.when(learned).then(pl.coalesce(name, f"{name}_now")).otherwise(name).alias(name) for name in _KEPT
    ).select(rows.columns)


def _differences(changed: pl.DataFrame) -> list[Difference]:
    summed = {
        f"{name}_{when}": pl.when(pl.col(column).count() > 0).then(pl.col(column).sum())
        for name in ("input_tokens", "output_tokens", "list_cost_usd")
        for when, column in (("before", f"{name}_now"), ("after", name))
    }
    found = (
        changed.group_by(pl.col("started_at").dt.date().alias("day"), "dialect", "usage_rule", "model")
        .agg(pl.col("call_count").sum().alias("calls"), **summed)
        .sort("day", "dialect", "usage_rule", "model", nulls_last=True)
    )
    return [Difference(**{("rule" if name == "usage_rule" else name): value for name, value in row.items()})
            for row in found.iter_rows(named=True)]  # fmt: skip
