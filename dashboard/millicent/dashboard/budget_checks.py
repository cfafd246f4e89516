"""Whether a call may be made, over HTTP: for our SDK in JSON, for gateways by headers and the status of the answer.

Whoever asks sets money aside, so it takes a key that writes calls, or an operator's: one that only reads must not be
able to use up what others have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request
from pydantic import AwareDatetime, Field
from starlette.responses import JSONResponse, Response

from millicent.dashboard import access
from millicent.dashboard.price_answers import Amount, Answer
from millicent.dashboard.price_usage import Usage
from millicent.warehouse.enforcement import Asked, Decision, Enforcer, Made, Source, Verdict
from millicent.warehouse.query import ASKABLE, BadQuery
from millicent.warehouse.reservations import HOLD, LONGEST_HOLD, MOST_CALLS

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

HEADER: Final = "x-millicent-"
"""What a gateway tells in headers is named by it: `x-millicent-team`, `x-millicent-estimate-usd`."""
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""Envoy asks with the method and the path of the request that it is asked about."""
MOST_USD: Final = Decimal(10**9)
MOST_SETTLED: Final = 1000
_TOLD: Final[tuple[str, ...]] = ("estimate_usd", "input_tokens", "output_tokens", "hold_s", "on_failure", "denied")
_TOKENS: Final[tuple[str, ...]] = ("input_tokens", "output_tokens")
_Text = Annotated[str, Field(max_length=1024)]
_Count = Annotated[int, Field(ge=0, le=10**12)]
_Usd = Annotated[Decimal, Field(ge=0, le=MOST_USD)]


class Settlement(Answer):
    """Calls of a reservation that have ended."""

    id: _Text = Field(description="of the reservation")
    calls: int = Field(1, ge=1, le=MOST_CALLS)
    cost_usd: _Usd | None = Field(None, description="what they cost, all together")
    usage: Usage | None = Field(None, description="else: what one call used, priced by the price book")  # type: ignore[valid-type]
    unused: bool = Field(False, description="they were not made, and nothing is kept for them")


class Check(Answer):
    """Calls that are about to be made."""

    tags: dict[str, _Text] = Field(
        default_factory=dict,
        description="what is known of them, by dimension: `team`, `project`, `feature`, `customer`, `model`, "
        "`provider`, `deployment`, …; a budget whose filters look at what is not told takes it for unknown",
    )
    estimate_usd: _Usd | None = Field(None, description="what each is expected to cost at most")
    input_tokens: _Count | None = Field(
        None, description="else: tokens that each sends at most, priced by the price book"
    )
    output_tokens: _Count | None = Field(None, description="and that it gets back at most")
    calls: int = Field(1, ge=1, le=MOST_CALLS, description="how many; fewer may be granted")
    hold_s: float = Field(
        HOLD.total_seconds(), gt=0, le=LONGEST_HOLD.total_seconds(),
        description="seconds for which money is set aside for them if they are not settled",
    )  # fmt: skip
    on_failure: Literal["open", "closed"] = Field(
        "open", description="closed: deny where it cannot be told what a budget that blocks has left"
    )
    settlements: list[Settlement] = Field(
        default_factory=list,
        max_length=MOST_SETTLED,
        description="calls that have ended, as of `settle`; settled first",
    )


class BudgetAnswer(Answer):
    """A budget that the calls count for, in its currency."""

    id: int
    name: str
    enforcement: Literal["warn", "block"]
    decision: Decision
    currency: str
    spent: Amount | None = Field(description="null where it cannot be told")
    reserved: Amount = Field(description="set aside for other calls, and for those that are not among the facts yet")
    limit: Amount | None = Field(description="with what earlier periods left")
    estimate: Amount | None = Field(description="what each call is expected to cost; null where nobody knows")
    estimate_from: Source
    resets_at: AwareDatetime | None = Field(description="when its next period begins; null for a rolling one")
    as_of: AwareDatetime = Field(description="calls acknowledged before this instant are in `spent`")
    incomplete: list[str] = Field(description="what is missing from `spent`, in words")
    failure: str | None = Field(description="why it cannot be told what is left")


class Checked(Answer):
    """Whether calls may be made; `warn` lets them be made, too."""

    decision: Decision
    reason: str | None
    reservation: str | None = Field(description="id of what is set aside for them; settle it when they have ended")
    calls: int = Field(description="how many may be made; fewer than asked where money is short")
    expires_at: AwareDatetime | None
    budgets: list[BudgetAnswer]
    dimensions: list[str] = Field(description="what budgets look at: calls alike in these are judged alike")


class Settle(Answer):
    """Calls that have ended."""

    settlements: list[Settlement] = Field(max_length=MOST_SETTLED)


class Settled(Answer):
    """What became of it."""

    settled: int
    unknown: list[str] = Field(description="ids of reservations that were settled before, or have expired")


def mount_budget_checks(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes below `prefix`; before those of budgets, whose ids would take their names."""
    path, enforcer = f"{prefix}/budgets", Enforcer(warehouse)

    @server.post(f"{path}/check", summary="Whether calls may be made; set money aside for them")
    def check(told: Check) -> Checked:
        who = access.caller("budgets")
        tokens = {name: n for name in _TOKENS if (n := getattr(told, name)) is not None}
        asked = Asked(
            told=_tags(told.tags),
            estimate_usd=told.estimate_usd,
            tokens=tokens,
            calls=told.calls,
            hold=timedelta(seconds=told.hold_s),
            strict=told.on_failure == "closed",
        )
        if told.settlements:
            enforcer.settle(who.tenant, _made(told.settlements))
        return _checked(enforcer.check(who.tenant, asked))

    @server.post(f"{path}/settle", summary="Tell of calls that have ended")
    def settle(told: Settle) -> Settled:
        who = access.caller("budgets")
        unknown = enforcer.settle(who.tenant, _made(told.settlements))
        return Settled(settled=len(told.settlements) - len(unknown), unknown=unknown)

    @server.get(
        f"{path}/check",
        summary="The same for a gateway: 200, or 403 where a call may not be made",
        response_model=Checked,
        responses={403: {"description": "It may not be made; 429 where `denied=429` was asked for"}},
    )
    def gateway(
        request: Request,
        estimate_usd: Annotated[str | None, Query(description="What the call is expected to cost at most.")] = None,
        input_tokens: Annotated[str | None, Query(description="Else: tokens that it sends at most.")] = None,
        output_tokens: Annotated[str | None, Query(description="And that it gets back at most.")] = None,
        hold_s: Annotated[
            str | None, Query(description="Seconds for which money is set aside for it; 60 if left out.")
        ] = None,
        on_failure: Annotated[
            str | None, Query(description="closed: deny where it cannot be told what a budget has left.")
        ] = None,
        denied: Annotated[str | None, Query(description="403 or 429: the status of a no.")] = None,
    ) -> Response:
        given = (estimate_usd, input_tokens, output_tokens, hold_s, on_failure, denied)
        told = {name: value for name, value in zip(_TOLD, given, strict=True) if value is not None}
        return _for_gateway(enforcer, request, {**dict(request.query_params), **told})

    @server.api_route(f"{path}/check/{{rest:path}}", methods=METHODS, include_in_schema=False)
    def proxied(request: Request, rest: str) -> Response:  # noqa: ARG001 - what the gateway was asked for
        return _for_gateway(enforcer, request, {})


def _for_gateway(enforcer: Enforcer, request: Request, told: Mapping[str, str]) -> Response:
    """Judge one call by what a gateway tells in headers, and in the address, which counts first."""
    who = access.caller("budgets")
    given = {
        **{
            name.removeprefix(HEADER).replace("-", "_"): value
            for name, value in request.headers.items()
            if name.startswith(HEADER)
        },
        **told,
    }
    said = {name: given.pop(name) for name in _TOLD if name in given}
    denied = said.get("denied", "403")
    if denied not in {"403", "429"}:
        raise BadQuery(f"denied {denied[:40]!r} is no status that a gateway passes on: write 403 or 429")
    if (on_failure := said.get("on_failure", "open")) not in {"open", "closed"}:
        raise BadQuery(f"on_failure {on_failure[:40]!r} is neither open nor closed: write one of them")
    tokens = {name: int(_number(name, said[name])) for name in _TOKENS if name in said}
    hold = _number("hold_s", said.get("hold_s", "60"), LONGEST_HOLD.total_seconds())
    asked = Asked(
        told=_tags(given),
        estimate_usd=_number("estimate_usd", said["estimate_usd"]) if "estimate_usd" in said else None,
        tokens=tokens,
        hold=timedelta(seconds=float(hold)),
        strict=on_failure == "closed",
    )
    verdict = enforcer.check(who.tenant, asked)
    headers: dict[str, str] = {"x-millicent-budget": verdict.decision}
    if verdict.reservation:
        headers["x-millicent-reservation"] = verdict.reservation
    if verdict.decision != "deny":
        return JSONResponse(_checked(verdict).model_dump(mode="json"), 200, headers)
    resets = [one.resets_at for one in verdict.budgets if one.decision == "deny" and one.resets_at]
    if denied == "429" and resets:
        headers["retry-after"] = str(max(1, round((min(resets) - datetime.now(UTC)).total_seconds())))
    body = {
        "type": "about:blank", "title": "Over budget", "status": int(denied), "detail": verdict.reason,
        **_checked(verdict).model_dump(mode="json"),
    }  # fmt: skip
    return JSONResponse(body, int(denied), headers, media_type="application/problem+json")


def _checked(verdict: Verdict) -> Checked:
    return Checked(
        decision=verdict.decision,
        reason=verdict.reason,
        reservation=verdict.reservation,
        calls=verdict.calls,
        expires_at=verdict.expires_at,
        budgets=[
            BudgetAnswer(
                id=one.budget.id or 0,
                name=one.budget.name,
                enforcement="block" if one.budget.enforcement == "block" else "warn",
                decision=one.decision,
                currency=one.budget.currency,
                spent=one.spent,
                reserved=one.reserved,
                limit=one.limit,
                estimate=one.each,
                estimate_from=one.source,
                resets_at=one.resets_at,
                as_of=one.as_of,
                incomplete=list(one.incomplete),
                failure=one.failure,
            )
            for one in verdict.budgets
        ],
        dimensions=list(verdict.dimensions),
    )


def _tags(told: Mapping[str, str]) -> dict[str, str]:
    for name in told:
        if name not in ASKABLE:
            raise BadQuery(f"tag {name[:40]!r} is no dimension: choose from {', '.join(sorted(ASKABLE))}")
    return {name: value for name, value in told.items() if value}


def _made(told: Sequence[Settlement]) -> list[Made]:
    return [
        Made(id=one.id, calls=one.calls, cost_usd=one.cost_usd, usage=_used(one.usage), unused=one.unused)
        for one in told
    ]


def _used(usage: Any) -> dict[str, Any] | None:
    return None if usage is None else usage.model_dump(exclude_none=True, exclude={"known_at"})


def _number(name: str, text: str, most: float = 10**9) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number <= Decimal(most):
        raise BadQuery(f"{name} {text[:40]!r} is no number from 0 to {most:,.0f}: write 0.02 or 300")
    return number
