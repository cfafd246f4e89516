"""What rows of calls can be narrowed and grouped by, and the condition that a filter puts on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
from sqlalchemy import ColumnElement, FromClause, case, or_
from sqlalchemy.types import Boolean

from millicent.warehouse.record import COST_TYPE, DETAILS, DIMENSIONS

if TYPE_CHECKING:
    from millicent.warehouse.query import Filter


def askable(source: FromClause) -> dict[str, ColumnElement[Any]]:
    """Every dimension that can be asked of `calls` or `usage_hourly`, by name."""
    cost_type = case((source.c.billing == "self_hosted", "hardware"), else_="api")
    return {**{name: source.c[name] for name in (*DIMENSIONS, *DETAILS) if name in source.c}, COST_TYPE: cost_type}


def kept(wanted: Filter, column: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that a filter puts on a column."""
    values: list[Any] = [value for value in wanted.values if value is not None]
    if isinstance(column.type, Boolean):
        values = [value == "true" for value in values]
    choices = [column.in_(values)] if values else []
    if None in wanted.values:
        choices.append(column.is_(None))
    kept = or_(*choices)
    if not wanted.negated:
        return kept
    return ~kept if None in wanted.values else or_(~kept, column.is_(None))


def kept_rows(wanted: Filter) -> pl.Expr:
    """The rows of an answer that a filter keeps, of those where the dimension is text."""
    column = pl.col(wanted.dimension)
    named = column.is_in([value for value in wanted.values if value is not None]).fill_null(value=False)
    if None in wanted.values:
        named |= column.is_null()
    return ~named if wanted.negated else named
