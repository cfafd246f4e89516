"""Which calls have no price, or not all of one: how many, why, and whose price might be theirs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, func, or_, select

from millicent.warehouse.tables import calls, without_zone

if TYPE_CHECKING:
    from millicent.warehouse.query import Period
    from millicent.warehouse.store import Warehouse

MOST: Final = 200
_BY: Final = ("provider", "model", "endpoint_host", "price_status")


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Counted calls of one provider, model and host whose cost is not known, or only in part.

    `tokens` is what is known of input and output; None when nothing is. `reason` says why, and what to do, by the
    newest of the calls and the present price book. `suggestions` are names ("provider/model") close to it that have
    a price, best first.
    """

    provider: str | None
    model: str | None
    endpoint_host: str | None
    price_status: str
    calls: int
    tokens: int | None
    first_at: datetime
    last_at: datetime
    reason: str
    suggestions: tuple[str, ...]


def unpriced(warehouse: Warehouse, tenant: str, period: Period) -> list[Unpriced]:
    """What a tenant's API calls of a period lack prices for: at most 200 rows, most tokens first.

    Raises:
        EngineError: the database failed.
    """
    c = calls.c
    tokens = func.sum(func.coalesce(c.input_tokens + c.output_tokens, c.input_tokens, c.output_tokens))
    number = func.sum(func.coalesce(c.call_count, 1))
    where = (
        c.tenant == tenant, c.counted, c.billing == "api",
        c.started_at >= without_zone(period.start), c.started_at < without_zone(period.end),
        c.price_status.in_(("unpriced", "partial")),
    )  # fmt: skip
    asked = (
        select(
            *(c[name] for name in _BY), number.label("calls"), tokens.label("tokens"),
            func.min(c.started_at).label("first_at"), func.max(c.started_at).label("last_at"),
            func.max_by(c.span_id, c.started_at).label("newest"),
        )
        .where(*where)
        .group_by(*(c[name] for name in _BY))
        .order_by(tokens.desc().nulls_last(), number.desc(), *(c[name] for name in _BY))
        .limit(MOST)
    )  # fmt: skip
    groups = warehouse.engine.read(asked).to_pylist()
    if not groups:
        return []
    which = (and_(c.started_at == without_zone(one["last_at"]), c.span_id == one["newest"]) for one in groups)
    newest = {
        tuple(row[name] for name in _BY): row
        for row in warehouse.engine.read(select(calls).where(*where, or_(*which))).to_pylist()
    }
    book = warehouse.prices.book(tenant)
    return [
        Unpriced(
            **{name: group[name] for name in _BY},
            calls=int(group["calls"]),
            tokens=None if group["tokens"] is None else int(group["tokens"]),
            first_at=group["first_at"],
            last_at=group["last_at"],
            reason=_reason(book.explain(_usage(newest[tuple(group[name] for name in _BY)]))),
            suggestions=tuple(book.suggest(group["provider"], group["model"])) if group["model"] else (),
        )
        for group in groups
    ]


def _reason(why: Any) -> str:
    if why.status == "priced":
        return f"The present price book ({why.version}) has its price: price these calls again."
    return why.reason or "The price book does not say why."


def _usage(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "units": dict(row["units"] or ())}
