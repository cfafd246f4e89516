"""`POST /api/v1/price`: what a usage costs, and why; nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from fastapi import FastAPI
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from millicent.dashboard import access
from millicent.dashboard import price_answers as answers
from millicent.pricing.book import PriceBook
from millicent.pricing.entries import written
from millicent.pricing.rates import KINDS
from millicent.pricing.usages import one_call
from millicent.warehouse import record

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

_MEANINGS: Final = {column.name: column.meaning for column in record.CALLS}
COUNTS: Final = tuple(dict.fromkeys((*record.TOKENS, *(kind.column for kind in KINDS))))
_ENTRIES: Final = ("override", "terms", "fx")


class _Asked(BaseModel):
    """A usage as a call of the record has it."""

    model_config = ConfigDict(extra="forbid")

    provider: str | None = Field(None, description=_MEANINGS["provider"])
    model: str | None = Field(None, description=_MEANINGS["model"])
    endpoint_host: str | None = Field(None, description=_MEANINGS["endpoint_host"])
    region: str | None = Field(None, description=_MEANINGS["region"])
    service_tier: str | None = Field(None, description=_MEANINGS["service_tier"])
    billing: Literal["api", "self_hosted"] | None = Field(None, description=_MEANINGS["billing"])
    price_context: dict[str, str] | None = Field(None, description="what else prices depend on: `speed`, `route`, …")
    units: dict[str, Annotated[int, Field(ge=0)]] | None = Field(None, description="other billable units, by name")
    started_at: AwareDatetime | None = Field(None, description="when the call began; now if left out")
    known_at: AwareDatetime | None = Field(None, description="by the price book as it was known then; now if left out")


_Count = Annotated[int, Field(ge=0)]
_COUNTS: Final[dict[str, Any]] = {
    name: (_Count | None, Field(None, description=_MEANINGS.get(name, f"part of the {name.split('_', 1)[0]} tokens")))
    for name in COUNTS
}
Usage = create_model("Usage", __base__=_Asked, **_COUNTS)


def mount_pricing(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the route below `prefix`."""

    @server.post(f"{prefix}/price", summary="What a usage costs, and why; store nothing")
    def price(usage: Usage) -> answers.Priced:  # type: ignore[valid-type]
        told = cast("_Asked", usage).model_dump(exclude_none=True)
        book = warehouse.prices.book(access.principal().tenant, told.pop("known_at", None))
        return priced(book, told)


def priced(book: PriceBook, told: Mapping[str, Any]) -> answers.Priced:
    """What a usage costs by a book, with its derivation; it began now unless told."""
    usage = {"started_at": datetime.now(UTC), **told}
    row = book.price(one_call(usage)).row(0, named=True)
    why = book.explain(usage)
    origin = {name: getattr(why, name) for name in answers.Derivation.model_fields if name not in _ENTRIES}
    return answers.Priced(
        **row,
        reason=why.reason,
        lines=[answers.Line.model_validate(line) for line in why.lines],
        rounding_usd=why.rounding_usd,
        billed_lines=[answers.Line.model_validate(line) for line in why.billed_lines],
        billed_rounding_usd=why.billed_rounding_usd,
        derivation=answers.Derivation(
            **origin,
            override=written(why.override) if why.override else None,
            terms=[written(term) for term in why.terms],
            fx=[written(rate) for rate in why.fx],
        ),
    )
