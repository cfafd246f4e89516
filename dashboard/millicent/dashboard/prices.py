"""The price book over HTTP: what is in it, our own entries, what has no price, and what an update would change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, FastAPI, Query, Request
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException

from millicent.dashboard import access, bodies, price_diff, price_list, price_reading
from millicent.dashboard import price_answers as answers
from millicent.dashboard.repricing import differences
from millicent.pricing.entries import BadPricesError, BookEntry, written
from millicent.warehouse.query import BadQuery, Period
from millicent.warehouse.query import Query as Question
from millicent.warehouse.unpriced import unpriced

if TYPE_CHECKING:
    from millicent.warehouse.store import Warehouse

_FIRST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""Before any call."""
USED_FOR: Final = timedelta(days=90)
"""How far back a model counts as in use."""
_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "JSON, or TOML with tables `[[override]]`, `[[term]]`, `[[fx_rate]]` and `[[charge]]`.",
        "content": {
            "application/json": {"schema": price_reading.schema()},
            "application/toml": {"schema": {"type": "string"}},
        },
    }
}
_START: Final = Query(description="Calls from this instant on; 90 days before `end` if left out.")
_END: Final = Query(description="Up to this instant, not included; now if left out.")


async def _told(request: Request) -> list[BookEntry]:
    """The entries in a body.

    Raises:
        BadPricesError: with everything that is wrong.
        HTTPException: the body is too large, or neither JSON nor TOML.
    """
    is_toml, text = await bodies.told(request, "prices", price_reading.MOST_BYTES, BadPricesError)
    return price_reading.from_toml(text) if is_toml else price_reading.from_json(text)


_Told = Annotated[list[BookEntry], Depends(_told)]


def mount_prices(server: FastAPI, prefix: str, warehouse: Warehouse) -> None:
    """Add the routes below `prefix`; those that change something ask for an operator."""
    _mount_list(server, f"{prefix}/prices", warehouse)
    _mount_entries(server, f"{prefix}/prices", warehouse)
    _mount_update(server, f"{prefix}/prices/update", warehouse)


def _mount_list(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="List prices, with our own")
    def prices(
        text: Annotated[str, Query(description="Part of a provider/model.")] = "",
        provider: Annotated[str | None, Query(description="Whose list, in any spelling.")] = None,
        model: Annotated[str | None, Query(description="As calls name it.")] = None,
        endpoint_host: Annotated[
            str | None, Query(description="With `model` and `history`: host that serves it.")
        ] = None,
        region: Annotated[str | None, Query(description="With `model` and `history`: where it runs.")] = None,
        at: Annotated[AwareDatetime | None, Query(description="The prices that held then; now if left out.")] = None,
        history: Annotated[bool, Query(description="Every dated price instead.")] = False,
        limit: Annotated[int, Query(ge=1, le=10_000, description="How many.")] = 100,
    ) -> answers.Prices:
        book = warehouse.prices.book(access.principal().tenant)
        if history and model is not None:
            found = price_list.dated(book, provider, model, endpoint_host=endpoint_host, region=region)
        else:
            when = None if history else at or datetime.now(UTC)
            try:
                found = price_list.search(book, text, provider=provider, model=model, at=when)
            except ValueError as error:
                raise BadQuery(str(error)) from error
        return answers.Prices(version=book.version, prices=found[:limit], left_off=max(0, len(found) - limit))

    @server.get(f"{path}/unpriced", summary="Models whose calls have no price, or not all of one")
    def without_price(
        start: Annotated[datetime | None, _START] = None, end: Annotated[datetime | None, _END] = None
    ) -> answers.Unpriced:
        until = end or datetime.now(UTC)
        period = Period(start or until - USED_FOR, until)
        found = unpriced(warehouse, access.principal().tenant, period)
        return answers.Unpriced(models=[answers.UnpricedModel.model_validate(one) for one in found])


def _mount_entries(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(f"{path}/entries", summary="Our own entries: overrides, terms, exchange rates and charges")
    def entries(
        retired: Annotated[bool, Query(description="Also those that no longer hold.")] = False,
    ) -> answers.Entries:
        return _entries(warehouse, access.principal().tenant, retired=retired)

    @server.post(
        f"{path}/check", summary="Say everything that is wrong with entries; store nothing", openapi_extra=_BODY
    )
    def check(told: _Told) -> answers.Checked:
        price_reading.possible(told, warehouse.prices.book(access.principal().tenant))
        return answers.Checked(entries=[written(one) for one in told])

    @server.post(f"{path}/diff", summary="What entries would add and change; store nothing", openapi_extra=_BODY)
    def diff(told: _Told) -> answers.Diff:
        return _diff(warehouse, access.principal().tenant, told)

    @server.post(f"{path}/entries", summary="Add entries: all of them or none", status_code=201, openapi_extra=_BODY)
    def add(told: _Told) -> answers.Entries:
        who = access.operator("prices")
        price_reading.possible(told, warehouse.prices.book(who.tenant))
        try:
            stored = warehouse.control.add_prices(told, who.tenant, who.actor)
        except ValueError as error:
            raise BadPricesError([str(error)]) from error
        return answers.Entries(version=warehouse.prices.version(who.tenant), entries=[written(one) for one in stored])

    @server.delete(f"{path}/entries/{{entry_id}}", summary="Retire an entry")
    def retire(entry_id: int) -> answers.Entry:
        who = access.operator("prices")
        gone = [one for _, one in warehouse.control.prices(who.tenant) if one.id == entry_id]
        if not gone or not warehouse.control.retire_price(entry_id, who.tenant, who.actor):
            raise HTTPException(404, f"there is no live entry {entry_id}: see /api/v1/prices/entries")
        return written(gone[0])


def _mount_update(server: FastAPI, path: str, warehouse: Warehouse) -> None:

    @server.get(path, summary="New price data that waits because it changes past prices")
    def update() -> answers.Update:
        return _update(warehouse, access.principal().tenant)

    @server.get(f"{path}/effect", summary="What stored calls would cost by price data that waits; change nothing")
    def effect(
        start: Annotated[datetime, Query(description="Calls that began from this instant on.")],
        end: Annotated[datetime | None, Query(description="Up to this instant, not included; now if left out.")] = None,
    ) -> answers.Differences:
        tenant = access.principal().tenant
        if warehouse.prices.pending() is None:
            return answers.Differences(calls=0, differences=[])
        period = Period(start, end or datetime.now(UTC))
        return differences(warehouse, tenant, period, book=warehouse.prices.proposed(tenant))

    @server.post(path, summary="Take price data that waits")
    def accept() -> answers.Update:
        who = access.operator("prices")
        warehouse.prices.accept(who.actor)
        return _update(warehouse, who.tenant)


def _diff(warehouse: Warehouse, tenant: str, told: Sequence[BookEntry]) -> answers.Diff:
    stored = [one for _, one in warehouse.control.prices(tenant)]
    new, present = price_reading.new_and_present(told, stored)
    before = warehouse.prices.book(tenant)
    after = price_reading.possible(new, before)
    changes = price_diff.changes(before, after, new, _used(warehouse, tenant)) if new else []
    return answers.Diff(
        version=before.version,
        new=[written(one) for one in new],
        present=[written(one) for one in present],
        changes=[answers.UnitChange.model_validate(one) for one in changes[: price_diff.MOST]],
        left_off=max(0, len(changes) - price_diff.MOST),
    )


def _used(warehouse: Warehouse, tenant: str) -> list[tuple[str | None, str | None]]:
    """Providers and models of the calls of late, most tokens first."""
    now = datetime.now(UTC)
    asked = Question(
        measures=("total_tokens",), dimensions=("provider", "model"), period=Period(now - USED_FOR, now),
        order=("-total_tokens",), limit=1000,
    )  # fmt: skip
    return [(row[0], row[1]) for row in warehouse.ask(tenant, asked).frame.select("provider", "model").iter_rows()]


def _entries(warehouse: Warehouse, tenant: str, *, retired: bool = False) -> answers.Entries:
    found = [one for _, one in warehouse.control.prices(tenant, retired=retired)]
    return answers.Entries(version=warehouse.prices.version(tenant), entries=[written(one) for one in found])


def _update(warehouse: Warehouse, tenant: str) -> answers.Update:
    found, version = warehouse.prices.pending(), warehouse.prices.version(tenant)
    if found is None:
        return answers.Update(version=version, pending=None)
    begins = [change.effective_from for change in found.changes]
    pending = answers.Pending(
        version_from=found.version_from,
        version_to=found.version_to,
        changes=[answers.PastChange.model_validate(asdict(one)) for one in found.changes],
        additions=[answers.Model(provider=provider, model=model) for provider, model in found.additions],
        effect_from=_first_call(warehouse, tenant, min(begin or _FIRST for begin in begins)),
    )
    return answers.Update(version=version, pending=pending)


def _first_call(warehouse: Warehouse, tenant: str, since: datetime) -> datetime | None:
    """Beginning of the first UTC day since then with calls; None when there is none."""
    now = datetime.now(UTC)
    if since >= now:
        return None
    asked = Question(measures=("calls",), period=Period(since, now), grain="day", order=("time",), limit=1)
    found = warehouse.ask(tenant, asked).frame["time"]
    return max(found[0], since) if len(found) else None
