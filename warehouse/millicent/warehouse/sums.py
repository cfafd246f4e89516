"""What each measure sums over calls: one expression per measure, the same for single calls and for hours of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, FromClause, and_, case, cast, func, literal_column, null, or_
from sqlalchemy.types import BigInteger

from millicent.warehouse.metrics import DICTIONARY, WHOLE
from millicent.warehouse.record import MONEY, TOKENS
from millicent.warehouse.tables import EXACT, calls, deployment_hours

if TYPE_CHECKING:
    from millicent.warehouse.query import Basis


Carried = Literal["rate_usd", "energy_rate_usd", "joules", "gco2e_g", "gco2e_market_g"]
"""What a call carries of its deployment-hour, as the hour's rates are called."""


def carried(what: Carried, source: FromClause) -> ColumnElement[Any]:
    """A call's share of its deployment-hour, or that of an hour of alike calls: weight × rate, of input and of output.

    Weight is in thousandths of an uncached input token. Unknown while the hour has no rate; an hour that tells one rate
    alone has it for both.
    """
    uncached, cached, output, rate, of_output = _weighed(what, source)
    return cast((uncached + cached) * rate, EXACT) + cast(output * of_output, EXACT)


def carried_parts(source: FromClause) -> dict[str, ColumnElement[Any]]:
    """The cost that a call carries of its deployment-hour, by what its tokens did; together what `carried` tells."""
    uncached, cached, output, rate, of_output = _weighed("rate_usd", source)
    parts = (("input", uncached, rate), ("cached", cached, rate), ("output", output, of_output))
    return {f"hardware_{name}_usd": cast(weight * price, EXACT) for name, weight, price in parts}


def _weighed(what: Carried, source: FromClause) -> tuple[ColumnElement[Any], ...]:
    """Weights of uncached input, cached input and output, and the rates of input and of output."""
    c, hours = source.c, deployment_hours.c
    cached = func.coalesce(c.cache_read_tokens, 0)
    rate = hours[f"{what}_per_weight"]
    return (
        (func.coalesce(c.input_tokens, 0) - cached) * hours.w_input,
        cached * hours.w_cached,
        func.coalesce(c.output_tokens, 0) * hours.w_output,
        rate,
        func.coalesce(hours[f"output_{what}_per_weight"], rate),
    )


def of_calls(name: str, source: FromClause, basis: Basis) -> ColumnElement[Any]:
    """One sum over calls, per row of `source` (a call, or an hour of alike calls); unknown where calls have no part."""
    c, hours = source.c, deployment_hours.c
    number: ColumnElement[Any] = c.call_count if source is calls else c.calls
    own = c.billing == "self_hosted"
    billed = case((own, literal_column("0")), else_=cast(c.billed_cost_usd, EXACT))
    hardware, energy = carried("rate_usd", source), carried("energy_rate_usd", source)
    joules = case((own, carried("joules", source)))
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
        "own_tokens": case((own, total)),
        "own_output_tokens": case((own, c.output_tokens)),
        "served_tokens": case((and_(own, hours.hour.is_not(None)), total)),
        "energy_tokens": case((and_(own, hours.joules.is_not(None)), total)),
        "energy_output_tokens": case((and_(own, hours.joules.is_not(None)), c.output_tokens)),
        "carbon_tokens": case((and_(own, hours.gco2e_g.is_not(None)), total)),
        "spend_usd": spend[basis],
        "priced_tokens": case((costed, total)),
        "priced_output_tokens": case((costed, c.output_tokens)),
        "listed_tokens": case((c.price_status != "unpriced", total)),
        "listed_output_tokens": case((c.price_status != "unpriced", c.output_tokens)),
        "hardware_cost_usd": case((own, hardware)),
        **{name: case((own, part)) for name, part in carried_parts(source).items()},
        "capacity_cost_usd": case((own, hardware)),
        "energy_cost_usd": case((own, energy)),
        "energy_joules": joules,
        "energy_wh": joules,
        "gco2e_g": case((own, carried("gco2e_g", source))),
        "gco2e_market_g": case((own, carried("gco2e_market_g", source))),
        "charges_usd": literal_column("0"),
        "unpriced_calls": case((known, 0), else_=number),
        "priced_calls": case((known, number), else_=0),
        "unattributed_calls": case((c.team.is_(None), number), else_=0),
        "unattributed_spend_usd": case((c.team.is_(None), spend[basis]), else_=literal_column("0")),
        "attributed_calls": case((c.team.is_not(None), number), else_=0),
        "error_calls": case((c.status == "error", number), else_=0),
        "missing_usage_calls": case((c.usage_source == "missing", number), else_=0),
    }
    return cast(sums.get(name, null()), BigInteger if DICTIONARY[name].unit in WHOLE else EXACT)
