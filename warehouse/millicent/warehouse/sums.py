"""What each measure sums over calls: one expression per measure, the same for single calls and for hours of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, FromClause, and_, case, cast, func, literal_column, null, or_
from sqlalchemy.types import BigInteger

from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.record import MONEY, TOKENS
from millicent.warehouse.tables import EXACT, calls, deployment_hours

if TYPE_CHECKING:
    from millicent.warehouse.query import Basis


def weighted_tokens(source: FromClause) -> ColumnElement[Any]:
    """Weighted tokens of a call, or of an hour of alike calls, in thousandths of an uncached input token."""
    c, hours = source.c, deployment_hours.c
    cached = func.coalesce(c.cache_read_tokens, 0)
    return (
        (func.coalesce(c.input_tokens, 0) - cached) * hours.w_input
        + cached * hours.w_cached
        + func.coalesce(c.output_tokens, 0) * hours.w_output
    )


def of_calls(name: str, source: FromClause, basis: Basis) -> ColumnElement[Any]:
    """One sum over calls, per row of `source` (a call, or an hour of alike calls)."""
    c, hours = source.c, deployment_hours.c
    number: ColumnElement[Any] = c.call_count if source is calls else c.calls
    weight = weighted_tokens(source)
    own = c.billing == "self_hosted"
    billed = case((own, literal_column("0")), else_=cast(c.billed_cost_usd, EXACT))
    hardware = cast(weight * hours.rate_usd_per_weight, EXACT)
    energy = cast(weight * hours.energy_rate_usd_per_weight, EXACT)
    spend: dict[Basis, ColumnElement[Any]] = {
        "list": cast(c.list_cost_usd, EXACT),
        "billed": billed,
        "effective": case((own, hardware), else_=billed),
        "usage": case((own, hardware), else_=billed),
        "marginal": case((own, energy), else_=billed),
    }
    total = func.coalesce(c.input_tokens + c.output_tokens, c.input_tokens, c.output_tokens)
    priced = c.price_status == "priced"
    costed = or_(and_(own, hours.rate_usd_per_weight.is_not(None)), and_(~own, c.price_status != "unpriced"))
    known = case((own, hours.rate_usd_per_weight.is_not(None)), else_=or_(priced, c.price_status == "not_billed"))
    if name in TOKENS or name in MONEY:
        return cast(c[name], BigInteger) if name in TOKENS else cast(c[name], EXACT)
    sums: dict[str, ColumnElement[Any]] = {
        "calls": number,
        "total_tokens": total,
        "spend_usd": spend[basis],
        "priced_tokens": case((costed, total)),
        "priced_output_tokens": case((costed, c.output_tokens)),
        "hardware_cost_usd": case((own, hardware)),
        "capacity_cost_usd": case((own, hardware)),
        "energy_cost_usd": case((own, energy)),
        "idle_cost_usd": cast(null(), EXACT),
        "unavailable_cost_usd": cast(null(), EXACT),
        "untracked_cost_usd": cast(null(), EXACT),
        "charges_usd": literal_column("0"),
        "unpriced_calls": case((known, 0), else_=number),
        "priced_calls": case((known, number), else_=0),
        "unattributed_calls": case((c.team.is_(None), number), else_=0),
        "unattributed_spend_usd": case((c.team.is_(None), spend[basis]), else_=literal_column("0")),
        "attributed_calls": case((c.team.is_not(None), number), else_=0),
        "error_calls": case((c.status == "error", number), else_=0),
        "missing_usage_calls": case((c.usage_source == "missing", number), else_=0),
        "accelerator_hours": cast(null(), EXACT),
        "energy_wh": cast(null(), EXACT),
        "gco2e_g": cast(null(), EXACT),
    }
    return cast(sums[name], BigInteger) if DICTIONARY[name].unit in {"count", "tokens"} else sums[name]
