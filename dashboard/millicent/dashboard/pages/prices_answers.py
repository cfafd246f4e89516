"""What each part of the Prices page answers: asked of the warehouse, drawn by the modules beside this one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.collector import repricing
from millicent.dashboard import access, price_diff
from millicent.dashboard import format as fmt
from millicent.dashboard.components import coverage, pill
from millicent.dashboard.pages import prices_entries, prices_forms, prices_repricing, prices_search, prices_unpriced
from millicent.dashboard.pages.frame import REFRESH_MS
from millicent.dashboard.pages.prices_forms import entry_of, fitting, problems, text_of
from millicent.dashboard.pages.prices_history import gone, price_drawer
from millicent.dashboard.pages.prices_place import Opened, Place
from millicent.dashboard.pages.prices_repricing import PULSE_MS, Plan, Run
from millicent.dashboard.pages.prices_search import opener
from millicent.dashboard.pages.prices_units import Asked, units
from millicent.dashboard.pages.prices_unpriced import Known
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import View
from millicent.pricing.entries import BadPricesError, BookEntry, Override, Term
from millicent.warehouse import runs
from millicent.warehouse.query import Filter, Period, Query
from millicent.warehouse.unpriced import unpriced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dash.development.base_component import Component

    from millicent.pricing.book import PriceBook
    from millicent.warehouse.store import Warehouse
    from millicent.warehouse.unpriced import Unpriced

UNIT: Final = "USD per 1M tokens, as of now"
COUNTED: Final = ("calls", "priced_ratio", "unpriced_calls", "unattributed_calls")
DAY: Final = timedelta(days=1)
MOST_USED: Final = 1000
MOST_OFFERED: Final = 6


def headline(warehouse: Warehouse, place: Place) -> list[Any]:
    """Words, pills, unpriced usage with its words, price data with its words."""
    who, now = _who(), datetime.now(UTC)
    book = warehouse.prices.book(who.tenant)
    listed = prices_search.models(book)
    update = warehouse.prices.pending()
    lists = listed["provider"].n_unique()
    told = prices_unpriced.price_data(
        book.version, listed.height, lists, len(book.own), update, place, operates=who.operates
    )
    about = [told, "an update waits for you" if update else "nothing waits for you"]
    version = pill(["Price book ", html.B(book.version)])
    reader = Reader.of(warehouse, View(range=place.view.range, currency="USD", zone=place.view.zone))
    if reader is None:
        said = prices_unpriced.listing([], Known({}, [], [], {}), place, operates=who.operates)
        return ["No calls yet", [version, _closed(warehouse, who.tenant)], said, "", *about]
    total = reader.over(COUNTED).row(0, named=True)
    period = reader.window.period
    found = unpriced(warehouse, who.tenant, period)
    used = _used(warehouse, who.tenant, place)[:MOST_OFFERED]
    known = _known(book, found, used, _progress(warehouse, who.tenant), now)
    listing = prices_unpriced.listing(found, known, place, operates=who.operates)
    words = f"{fmt.span(period.start, period.end)} {fmt.zone()}"
    calls = fmt.count(sum(one.calls for one in found))
    left = f"{calls} calls whose cost is not known, most tokens first" if found else ""
    return [words, [coverage(total), version, _closed(warehouse, who.tenant)], listing, left, *about]


def found(warehouse: Warehouse, place: Place) -> list[Any]:
    """What is searched, or the models in use, with words on which."""
    who, now = _who(), datetime.now(UTC)
    book = warehouse.prices.book(who.tenant)
    if place.text:
        named = prices_search.listed(book, place.text)
        return [prices_search.results(book, named, place, now), f"{fmt.count(len(named))} found · {UNIT}"]
    if used := _used(warehouse, who.tenant, place):
        return [prices_search.results(book, used, place, now), f"the models you use, most expensive first · {UNIT}"]
    return [prices_search.results(book, prices_search.listed(book, ""), place, now), UNIT]


def entries(warehouse: Warehouse, place: Place) -> list[Any]:
    """The tenant's own entries, and how to add one."""
    who = _who()
    listing = prices_entries.listing([one for _, one in warehouse.control.prices(who.tenant)], place, datetime.now(UTC))
    if not who.operates:
        return [listing, None]
    forms = (("override", "Add a price"), ("term", "Add a discount"))
    return [listing, [opener(words, place, Opened.of("add", kind=kind), className="button") for kind, words in forms]]


def repricings(warehouse: Warehouse, place: Place) -> list[Any]:
    """Past repricings, how to ask for one, and how soon to look again (milliseconds)."""
    who = _who()
    found = _runs(warehouse, who.tenant)
    listing = prices_repricing.runs(found, place, operates=who.operates)
    again = opener("Reprice…", place, Opened.of("reprice"), className="button") if who.operates else None
    return [listing, again, REFRESH_MS if all(run.finished for run in found) else PULSE_MS]


def opened(warehouse: Warehouse, place: Place) -> Component | None:
    """What stands in the drawer."""
    if place.opened is None:
        return None
    return _OPENED[place.opened.kind](warehouse, _who(), place, place.opened, datetime.now(UTC)) or gone(place)


def _price(
    warehouse: Warehouse, who: access.Principal, place: Place, _what: Opened, now: datetime
) -> Component | None:  # fmt: skip
    return price_drawer(warehouse.prices.book(who.tenant), place, now, operates=who.operates)


def _own(warehouse: Warehouse, who: access.Principal, place: Place, what: Opened, now: datetime) -> Component | None:
    entry = _entry(warehouse, who.tenant, what["id"])
    return prices_entries.entry_drawer(entry, place, now, operates=who.operates) if entry else None


def _form(warehouse: Warehouse, who: access.Principal, place: Place, _what: Opened, now: datetime) -> Component | None:
    listed = prices_search.models(warehouse.prices.base()).select("provider", "model")
    used = _used(warehouse, who.tenant, place)
    return prices_forms.add_drawer(place, now, [f"{provider}/{model}" for provider, model in [*used, *listed.rows()]])


def _offer(warehouse: Warehouse, who: access.Principal, place: Place, what: Opened, now: datetime) -> Component | None:
    plan, why = _plan(warehouse, who.tenant, what, now)
    update = what["update"] == "1" and warehouse.prices.pending() is not None
    return prices_repricing.plan_drawer(plan, place, why, update=update)


def _past(warehouse: Warehouse, who: access.Principal, place: Place, what: Opened, _now: datetime) -> Component | None:
    run = _run(warehouse, who.tenant, what)
    return prices_repricing.run_drawer(run, place, operates=who.operates) if run else None


_OPENED: Final = {"price": _price, "entry": _own, "add": _form, "reprice": _offer, "run": _past}


def effect(warehouse: Warehouse, draft: Any) -> Component:
    """What a form's entry would change, or what keeps it from being saved."""
    who = _who()
    book = warehouse.prices.book(who.tenant)
    try:
        entry = entry_of(text_of(draft))
        after = fitting(book, entry)
    except BadPricesError as error:
        return problems(error.problems)
    changes = price_diff.changes(book, after, [entry], _used(warehouse, who.tenant, Place()))
    return prices_forms.effect(changes, past=entry.effective_from < datetime.now(UTC))


def difference(warehouse: Warehouse, told: Any) -> Component:
    """What repricing would change, of the calls that a form asks for."""
    who = _who()
    try:
        plan = Plan.of(text_of(told))
    except ValueError as error:
        return problems([str(error)])
    waiting = text_of(told).get("update") == "1" and warehouse.prices.pending() is not None
    book = warehouse.prices.proposed(who.tenant) if waiting else None
    days = repricing.difference(warehouse, who.tenant, plan.period, plan.filters, book)
    return prices_repricing.difference(days, plan, applies=who.operates and not waiting)


def followed(warehouse: Warehouse, what: Opened | None) -> list[Any]:
    """How far the repricing that is open has come, and whether that is the end."""
    who = _who()
    run = _run(warehouse, who.tenant, what) if what else None
    if run is None:
        return [None, True]
    return [prices_repricing.run_body(run, operates=who.operates), run.finished]


def _who() -> access.Principal:
    try:
        return access.principal()
    except LookupError as error:
        raise PermissionError("this page is asked for outside an authenticated request") from error


def _known(
    book: PriceBook, found: Sequence[Unpriced], used: Sequence[tuple[str | None, str | None]],
    progress: dict[str, str], now: datetime,
) -> Known:  # fmt: skip
    alike = _listed_as(book, used, now) if any(not one.suggestions for one in found) else []
    asked = [Asked(provider, model) for provider, model in prices_unpriced.names(found, alike)]
    costs = zip(asked, units(book, asked, now), strict=True)
    suggested = {f"{one.provider}/{one.model}": priced for one, priced in costs}
    present = units(book, [Asked(one.provider, one.model, one.endpoint_host) for one in found], now)
    return Known(suggested, alike, [one.list_usd["input"] is not None for one in present], progress)


def _listed_as(book: PriceBook, used: Sequence[tuple[str | None, str | None]], now: datetime) -> list[str]:
    """The "provider/model" names by which the price lists have the models in use."""
    whys = [book.explain({"provider": provider, "model": model, "started_at": now}) for provider, model in used]
    return list(dict.fromkeys(f"{why.price_list}/{why.model}" for why in whys if why.price_list))


def _closed(warehouse: Warehouse, tenant: str) -> Component:
    """Through when amounts are closed."""
    periods = warehouse.control.closed_periods(tenant)
    if not periods:
        return pill("No period closed")
    last = max(period.end for period in periods) - DAY
    return pill(["Closed through ", html.B(f"{fmt.day(last)} {last.year}")])


def _used(warehouse: Warehouse, tenant: str, place: Place) -> list[tuple[str | None, str | None]]:
    """Provider and model of the API calls of the period, most spend first."""
    reader = Reader.of(warehouse, View(range=place.view.range, currency="USD", zone=place.view.zone))
    if reader is None:
        return []
    asked = Query(measures=("spend_usd",), dimensions=("provider", "model"), period=reader.window.period, basis="list",
                  filters=(Filter("billing", ("api",)),), order=("-spend_usd",), limit=MOST_USED)  # fmt: skip
    return list(warehouse.ask(tenant, asked).frame.select("provider", "model").iter_rows())


def _entry(warehouse: Warehouse, tenant: str, number: str) -> BookEntry | None:
    every = (one for _, one in warehouse.control.prices(tenant, retired=True))
    return next((one for one in every if str(one.id) == number), None)


def _plan(warehouse: Warehouse, tenant: str, what: Opened, now: datetime) -> tuple[Plan, list[str]]:
    """The repricing that is offered, and why: for an entry the calls that it is about."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    entry = _entry(warehouse, tenant, what["entry"])
    since = _date(what["start"]) or today.replace(day=1)
    told = [("provider", what["provider"] or None), ("model", what["model"] or None)]
    why: list[str] = []
    if entry is not None:
        since = entry.effective_from.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        told = [("provider", entry.provider), ("model", entry.model)] if isinstance(entry, Override | Term) else []
        when = prices_entries.instant(entry.retired_at or entry.effective_from)
        state = f"was retired on {when}" if entry.retired_at else f"holds since {when}"
        words = f"{prices_entries.name(entry)} {entry.id}, {prices_entries.scope(entry)}, {state}."
        why = [words + " These are the calls that it is about."]
    kept = tuple(Filter(name, (value,)) for name, value in told if value and "*" not in value)
    since = max(since, prices_repricing.EARLIEST)
    return Plan(Period(min(since, today), today + DAY), kept), why


def _date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(f"{text}T00:00:00+00:00") if text else None
    except ValueError:
        return None


def _progress(warehouse: Warehouse, tenant: str) -> dict[str, str]:
    """Words on the repricings under way, by the one model that each is for."""
    words = {}
    for run in _runs(warehouse, tenant):
        models = [one.values[0] for one in run.filters if one.dimension == "model" and len(one.values) == 1]
        if not run.finished and models and models[0]:
            words[models[0]] = f"Pricing its calls, {run.days_done} of {run.days_total} days"
    return words


def _run(warehouse: Warehouse, tenant: str, what: Opened) -> Run | None:
    return next((run for run in _runs(warehouse, tenant) if str(run.id) == what["id"]), None)


def _runs(warehouse: Warehouse, tenant: str) -> list[Run]:
    """All repricings with their progress, newest first."""
    asked = warehouse.control.repricings(tenant)[::-1]
    days = runs.days(warehouse.engine, tenant, [run.id for run in asked])
    undone = {run.undo_of: run.id for run in asked if run.undo_of is not None and run.error is None}
    return [Run.of(run, days[run.id], undone.get(run.id)) for run in asked]
