"""What the Prices page changes: each act by its name, checked as any request of the API is, told what came of it.

A callback is an open API: whoever sends one is asked for, and what it sends is read as text from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from millicent.dashboard import access
from millicent.dashboard import format as fmt
from millicent.dashboard.pages.prices_entries import instant, name, scope, words
from millicent.dashboard.pages.prices_forms import entry_of, fitting, in_words, text_of
from millicent.dashboard.pages.prices_repricing import Plan
from millicent.dashboard.pages.prices_unpriced import since
from millicent.pricing.entries import BadPricesError, FxRate, Override, Term, read
from millicent.warehouse.query import BadQuery, Filter, Period
from millicent.warehouse.unpriced import unpriced

if TYPE_CHECKING:
    from millicent.dashboard.pages.prices_place import Place
    from millicent.warehouse.store import Warehouse

LOOKED_BACK: Final = timedelta(days=400)
"""How far back the first unpriced call of a model is looked for."""
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an act: words, whether it was done, and the address to go on to."""

    words: tuple[str, ...]
    done: bool = True
    go: str | None = None


def carry_out(warehouse: Warehouse, act: Any, place: Place) -> Outcome:
    """Do what a browser asks for.

    Args:
        warehouse: whose prices.
        act: as `app.js` sends it: `do` and `told`.
        place: what is shown; where to go on to is within it.
    """
    try:
        who = access.principal()
    except LookupError:
        return Outcome(("Nobody is asking.",), done=False)
    if not who.operates:
        return Outcome((f"{who.actor} may read prices, not change them: ask for an operator's session.",), done=False)
    todo = ACTS.get(str(act.get("do"))) if isinstance(act, Mapping) else None
    if todo is None:
        return Outcome(("There is no such action.",), done=False)
    try:
        return todo(warehouse, who, _told(act.get("told")), place)
    except BadPricesError as error:
        return Outcome(tuple(map(in_words, error.problems)), done=False)
    except (BadQuery, ValueError) as error:
        return Outcome((str(error),), done=False)


def _accept(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    del told
    update = warehouse.prices.pending()
    if update is None:
        return Outcome(("No update is waiting.",), done=False)
    warehouse.prices.accept(who.actor)
    said = f"{update.version_to} is in force. Stored amounts stay as they are until they are priced again."
    return Outcome((said,), go=place.opening("reprice", start=since(update)))


def _price_like(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    """Give a model that has no price those of another, from its first such call on, and price those calls."""
    now = datetime.now(UTC)
    which = tuple(told.get(member) or None for member in ("provider", "model", "endpoint_host"))
    found = unpriced(warehouse, who.tenant, Period(now - LOOKED_BACK, now + DAY))
    row = next((one for one in found if (one.provider, one.model, one.endpoint_host) == which), None)
    if row is None:
        return Outcome((f"{told.get('model') or 'That model'} has no unpriced calls any more.",), done=False)
    provider, model, host = which
    begun = row.first_at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=UTC)
    entry = read({"kind": "override", "provider": provider, "model": model, "endpoint_host": host,
                  "like": told.get("like", ""), "effective_from": begun.isoformat(),
                  "source": f"priced like {told.get('like', '')}, chosen on the Prices page"})  # fmt: skip
    fitting(warehouse.prices.book(who.tenant), entry)
    warehouse.control.add_prices([entry], who.tenant, who.actor)
    kept = tuple(Filter(member, (value,)) for member, value in (("provider", provider), ("model", model)))
    warehouse.control.open_repricing(who.tenant, begun, _tomorrow(now), warehouse.prices.version(who.tenant),
                                     kept, actor=who.actor)  # fmt: skip
    said = f"{model} is priced like {told.get('like')} from {instant(begun)} on."
    return Outcome((said, f"{fmt.count(row.calls)} calls are being priced."), go=place.href(opened=None))


def _add(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    entry = entry_of(told)
    fitting(warehouse.prices.book(who.tenant), entry)
    (stored,) = warehouse.control.add_prices([entry], who.tenant, who.actor)
    said = f"Saved: {scope(stored)}, {words(stored)}. New calls are priced by it."
    kind = "reprice" if stored.effective_from < datetime.now(UTC) else "entry"
    go = place.opening("reprice", entry=stored.id) if kind == "reprice" else place.opening("entry", id=stored.id)
    return Outcome((said,), go=go)


def _retire(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    number = _number(told)
    gone = next((one for _, one in warehouse.control.prices(who.tenant) if one.id == number), None)
    if gone is None or not warehouse.control.retire_price(number, who.tenant, who.actor):
        return Outcome((f"There is no live entry {number}: somebody may have retired it.",), done=False)
    said = f"{name(gone)} {gone.id} is retired. Stored amounts stay until they are priced again."
    applies = isinstance(gone, Override | Term | FxRate) and gone.effective_from < datetime.now(UTC)
    go = place.opening("reprice", entry=gone.id) if applies else place.href(opened=None)
    return Outcome((said,), go=go)


def _reprice(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    plan = Plan.of(told)
    version = warehouse.prices.version(who.tenant)
    bounds = (plan.period.start, plan.period.end)
    run = warehouse.control.open_repricing(who.tenant, *bounds, version, plan.filters, actor=who.actor)
    return Outcome(("Repricing has begun.",), go=place.opening("run", id=run.id))


def _undo(warehouse: Warehouse, who: access.Principal, told: Mapping[str, str], place: Place) -> Outcome:
    number = _number(told)
    run = next((one for one in warehouse.control.repricings(who.tenant) if one.id == number), None)
    if run is None:
        return Outcome((f"There is no repricing {number}.",), done=False)
    undoing = warehouse.control.open_repricing(
        who.tenant, run.start, run.end, run.version, run.filters, actor=who.actor, undo_of=run.id
    )
    return Outcome((f"Repricing {run.id} is being undone.",), go=place.opening("run", id=undoing.id))


Act = Callable[["Warehouse", access.Principal, Mapping[str, str], "Place"], Outcome]
ACTS: Final[Mapping[str, Act]] = {
    "accept": _accept, "price_like": _price_like, "add": _add, "retire": _retire, "reprice": _reprice, "undo": _undo,
}  # fmt: skip


def _told(told: Any) -> dict[str, str]:
    """What was sent along, as texts."""
    known = told if isinstance(told, Mapping) else {}
    return text_of({name: str(value) if type(value) is int else value for name, value in known.items()})


def _number(told: Mapping[str, str]) -> int:
    text = told.get("id", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError(f"id {text!r} is no number: choose from the list")
    return int(text)


def _tomorrow(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
