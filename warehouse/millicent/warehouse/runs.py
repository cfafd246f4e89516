"""What repricing has done so far, and which charges there are: amounts beside those of single calls, as rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlalchemy import cast, func, select

from millicent.warehouse.tables import EXACT, charges, repricing_days, without_zone

if TYPE_CHECKING:
    from millicent.warehouse.engine import Engine
    from millicent.warehouse.query import Period

MOST_CHARGES: Final = 10_000


def days(engine: Engine, tenant: str, runs: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """Of each run the days that it has been through, by day; each with calls, how many changed, sums before and after.

    Raises:
        EngineError: they cannot be read.
    """
    c = repricing_days.c
    shown = [column for column in c if column.name != "tenant"]
    asked = select(*shown).where(c.tenant == tenant, c.run.in_(runs)).order_by(c.day)
    found: dict[int, list[dict[str, Any]]] = {run: [] for run in runs}
    for row in engine.read(asked).to_pylist() if runs else ():
        found[row.pop("run")].append(row)
    return found


def charged(engine: Engine, tenant: str, period: Period, types: Collection[str] = ()) -> list[dict[str, Any]]:
    """Charges in whose hour the sums of `period` have them, newest first; `types` keeps only these.

    Raises:
        EngineError: they cannot be read.
    """
    c = charges.c
    shown = [column for column in c if column.name not in {"tenant", "computed_at"}]
    within = [c.tenant == tenant, c.charged_at >= without_zone(period.start), c.charged_at < without_zone(period.end)]
    if types:
        within.append(c.type.in_(types))
    asked = select(*shown).where(*within).order_by(c.charged_at.desc(), c.type, c.name, c.model).limit(MOST_CHARGES)
    rows: list[dict[str, Any]] = engine.read(asked).to_pylist()
    return rows


def taken_back(engine: Engine, tenant: str, period: Period) -> pl.DataFrame:
    """What closed hours took back of calls that came after they were closed, so that their amounts stay.

    Returns:
        `hour`, `team`, `billed_usd`, `hardware_usd`: what is to be added to adjustments and taken from calls, negative
        where calls are more than they were.

    Raises:
        EngineError: they cannot be read.
    """
    c = charges.c
    names = ("billed_usd", "hardware_usd")
    asked = (
        select(c.charged_at.label("hour"), c.team, *(cast(func.sum(c[name]), EXACT).label(name) for name in names))
        .where(
            c.tenant == tenant, c.type == "adjustment", c.charged_at == c.period_start,
            c.charged_at >= without_zone(period.start), c.charged_at < without_zone(period.end),
        )
        .group_by(c.charged_at, c.team)
        .order_by(c.charged_at, c.team)
    )  # fmt: skip
    frame = pl.DataFrame(pl.from_arrow(engine.read(asked)))
    return frame.with_columns(pl.col("hour").dt.replace_time_zone("UTC"))
