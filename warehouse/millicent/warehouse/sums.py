"""What each measure sums over calls: one expression per measure, the same for single calls and for hours of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import ColumnElement, FromClause, and_, case, cast, func, literal_column, null, or_
from sqlalchemy.types import BigInteger

from millicent.warehouse.metrics import DICTIONARY, WHOLE
from millicent.warehouse.record import MONEY, TOKENS
from millicent.warehouse.tables import EXACT, calls, deployment_hours

if TYPE_CHECKING:
    from collections.abc import Callable

    from millicent.warehouse.query import Basis

NOTHING: Final[ColumnElement[Any]] = literal_column("0")

Carried = Literal["rate_usd", "energy_rate_usd", "joules", "gco2e_g", "gco2e_market_g"]
"""What a call carries of its deployment-hour, as the hour's rates are called."""
HARDWARE_PARTS: Final = ("hardware_input_usd", "hardware_cached_usd", "hardware_output_usd")


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
    parts = ((uncached, rate), (cached, rate), (output, of_output))
    return {name: cast(weight * price, EXACT) for name, (weight, price) in zip(HARDWARE_PARTS, parts, strict=True)}


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
    own, weighed = source.c.billing == "self_hosted", of_own(name, source, basis)
    told = _told(name, source, basis)
    return typed(name, told if weighed is None else case((own, weighed), else_=told))


def of_themselves(name: str, source: FromClause, basis: Basis) -> ColumnElement[Any]:
    """The part of a sum that calls tell by themselves; `of_own` of own calls is the rest."""
    told = _told(name, source, basis)
    own = source.c.billing == "self_hosted"
    return told if of_own(name, source, basis) is None else case((own, null()), else_=told)


def of_own(name: str, source: FromClause, basis: Basis) -> ColumnElement[Any] | None:
    """What own calls tell of a sum by their deployment-hour, which is joined to `source`; None where it tells nothing.

    Rows of `source` that have the same deployment-hour, and a team or none alike, may be added up before.
    """
    c, hours = source.c, deployment_hours.c
    known = hours.rate_usd_per_weight.is_not(None)
    spend: dict[Basis, Carried] = {"effective": "rate_usd", "usage": "rate_usd", "marginal": "energy_rate_usd"}
    sums: dict[str, Callable[[], ColumnElement[Any]]] = {
        "served_tokens": lambda: case((hours.hour.is_not(None), _total(source))),
        "energy_tokens": lambda: case((hours.joules.is_not(None), _total(source))),
        "energy_output_tokens": lambda: case((hours.joules.is_not(None), c.output_tokens)),
        "carbon_tokens": lambda: case((hours.gco2e_g.is_not(None), _total(source))),
        "priced_tokens": lambda: case((known, _total(source))),
        "priced_output_tokens": lambda: case((known, c.output_tokens)),
        "hardware_cost_usd": lambda: carried("rate_usd", source),
        "capacity_cost_usd": lambda: carried("rate_usd", source),
        **dict.fromkeys(HARDWARE_PARTS, lambda: carried_parts(source)[name]),
        "energy_cost_usd": lambda: carried("energy_rate_usd", source),
        "energy_joules": lambda: carried("joules", source),
        "gco2e_g": lambda: carried("gco2e_g", source),
        "gco2e_market_g": lambda: carried("gco2e_market_g", source),
        "unpriced_calls": lambda: case((known, 0), else_=_number(source)),
        "priced_calls": lambda: case((known, _number(source)), else_=0),
    }
    if basis in spend:
        sums["spend_usd"] = lambda: carried(spend[basis], source)
        sums["unattributed_spend_usd"] = lambda: case((c.team.is_(None), carried(spend[basis], source)), else_=NOTHING)
    return sums[name]() if name in sums else None


def typed(name: str, amount: ColumnElement[Any]) -> ColumnElement[Any]:
    """As every part of a sum has it."""
    return cast(amount, BigInteger if DICTIONARY[name].unit in WHOLE else EXACT)


def _told(name: str, source: FromClause, basis: Basis) -> ColumnElement[Any]:
    """What calls tell of a sum without any deployment-hour."""
    c = source.c
    own, listed = c.billing == "self_hosted", c.price_status != "unpriced"
    priced = or_(c.price_status == "priced", c.price_status == "not_billed")
    sums: dict[str, Callable[[], ColumnElement[Any]]] = {
        "calls": lambda: _number(source),
        "total_tokens": lambda: _total(source),
        "own_tokens": lambda: case((own, _total(source))),
        "own_output_tokens": lambda: case((own, c.output_tokens)),
        "spend_usd": lambda: c.list_cost_usd if basis == "list" else case((own, NOTHING), else_=c.billed_cost_usd),
        "priced_tokens": lambda: case((and_(~own, listed), _total(source))),
        "priced_output_tokens": lambda: case((and_(~own, listed), c.output_tokens)),
        "listed_tokens": lambda: case((listed, _total(source))),
        "listed_output_tokens": lambda: case((listed, c.output_tokens)),
        "charges_usd": lambda: NOTHING,
        "unpriced_calls": lambda: case((priced, 0), else_=_number(source)),
        "priced_calls": lambda: case((priced, _number(source)), else_=0),
        "unattributed_calls": lambda: case((c.team.is_(None), _number(source)), else_=0),
        "unattributed_spend_usd": lambda: case((c.team.is_(None), sums["spend_usd"]()), else_=NOTHING),
        "attributed_calls": lambda: case((c.team.is_not(None), _number(source)), else_=0),
        "error_calls": lambda: case((c.status == "error", _number(source)), else_=0),
        "missing_usage_calls": lambda: case((c.usage_source == "missing", _number(source)), else_=0),
    }
    if name in TOKENS or name in MONEY:
        return c[name]
    return sums[name]() if name in sums else null()


def _number(source: FromClause) -> ColumnElement[Any]:
    return source.c.call_count if source is calls else source.c.calls


def _total(source: FromClause) -> ColumnElement[Any]:
    c = source.c
    return func.coalesce(c.input_tokens + c.output_tokens, c.input_tokens, c.output_tokens)
