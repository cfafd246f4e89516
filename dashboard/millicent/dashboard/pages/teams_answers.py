"""What the parts of the Teams page show, each asked for by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import html, no_update

from millicent.dashboard import access, exporting, statements
from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, empty, freshness, icon, kpi, link, pill, popover
from millicent.dashboard.exporting import Choice
from millicent.dashboard.months import Month, open_days, over
from millicent.dashboard.pages import efficiency_preview, teams_tables
from millicent.dashboard.pages.asked_once import KEPT_S, asked_once
from millicent.dashboard.pages.efficiency_policy import in_force
from millicent.dashboard.pages.efficiency_preview import SHARED_S
from millicent.dashboard.pages.teams_closing import closed as closed_words
from millicent.dashboard.pages.teams_closing import form, not_over
from millicent.dashboard.pages.teams_place import Looked
from millicent.dashboard.pages.teams_statement import FILES, charged_nothing, file_address, statement
from millicent.dashboard.reader import Reader
from millicent.dashboard.state import question
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import BadQuery, Filter, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dash.development.base_component import Component

    from millicent.dashboard.state import View
    from millicent.dashboard.statements import Amount, Monthly
    from millicent.warehouse.store import Warehouse

NOTHING: Final = Decimal(0)
LISTED: Final = 13
"""Months that can be gone to."""
CARDS: Final = (
    ("api", "billed_cost_usd", "API calls", ("api",)),
    ("hardware", "hardware_cost_usd", "Own hardware, used", ("hardware",)),
    ("idle", "idle_cost_usd", "Idle share", ("idle", "unavailable", "untracked")),
    ("charge", "charges_usd", "Charges and credits", ("charge", "adjustment")),
)


def view_of(scope: str | None) -> View:
    """The view that the drawer asks for."""
    return Looked.parse(scope).over(datetime.now(UTC))


def headline(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Notice, period, pills, files, cards, the months to go to, and teams to choose from."""
    reader = _reader(warehouse, place)
    if reader is None:
        return [empty("unconnected"), "", pill("No calls yet"), [], [], None, no_update]
    month = place.at(reader.now)
    try:
        whole = _monthly(reader, month)
    except BadQuery as error:
        said = html.P(str(error), className="toast bad", role="alert")
        return [said, month.words, [freshness(reader.fresh, reader.now)], [], [], _months(place, month), no_update]
    words = f"{fmt.span(whole.period.start, whole.period.end)} {fmt.zone()} · fully loaded"
    state = pill("Closed", "good") if whole.closing else pill("Open", "plain")
    pills = [freshness(reader.fresh, reader.now), state]
    choices = {"team": reader.choices("team")}
    clear = place.href(view=place.view.unfiltered()) if place.who else None
    files = _files(reader, place, month)
    if not any(name in whole.teams for name in place.who or whole.teams):
        return [empty("no_rows", clear=clear), words, pills, files, [], _months(place, month), choices]
    return [None, words, pills, files, _cards(reader, place, whole), _months(place, month), choices]


def teams(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Every team with its lines, and how they add up to the month of everybody."""
    reader = _reader(warehouse, place)
    whole = _known(reader, place)
    if reader is None or whole is None or not whole.teams:
        return [None, ""]
    before = _before(reader)
    table = teams_tables.teams(whole, before, place, reader.colours("team"))
    than = reader.window.prior
    words = f"click a team for its statement · Δ against {fmt.span(than.start, than.end, year=False)}" if than else ""
    return [table, words]


def stated(warehouse: Warehouse, place: Looked) -> list[Any]:
    """The statement of whoever is chosen; in the manner of chargeback only of a month that is closed."""
    reader = _reader(warehouse, place)
    whole = _known(reader, place)
    if reader is None or whole is None:
        return [None, "Statement", ""]
    month = place.at(reader.now)
    shown = _once(reader, ("statement", place.who, month), lambda: statements.statement(
        warehouse, reader.tenant, place.who, month, fmt.presented(), reader.now, whole=whole,
    ))  # fmt: skip
    if place.manner == "chargeback" and whole.closing is None:
        last = next((one.month for one in reversed(shown.history) if one.closed), None)
        return [charged_nothing(place, month, last), shown.name, f"{month.words} · nothing is charged yet"]
    said = "final: the month is closed" if whole.closing else "what it would be: the month is open"
    manner = "Chargeback" if whole.closing and place.manner == "chargeback" else "Showback"
    return [statement(shown, place, reader.colours("model")), shown.name, f"{manner}, {month.words} · {said}"]


def months_shown(warehouse: Warehouse, place: Looked) -> list[Any]:
    """The months up to the one shown, as columns that lead to each."""
    reader = _reader(warehouse, place)
    if reader is None or _known(reader, place) is None:
        return [None, ""]
    month = place.at(reader.now)
    newest = max(month, Month.of(reader.now, fmt.presented().zone))
    found = _once(reader, ("history", place.who, newest), lambda: statements.history(
        warehouse, reader.tenant, place.who, newest, fmt.presented()
    ))  # fmt: skip
    ended = [one for one in found if one.kinds]
    words = f"{statements.called(place.who)}, by month · a tick marks closed months" if ended else ""
    return [teams_tables.months(found, place, month), words]


def otherwise(warehouse: Warehouse, place: Looked) -> list[Any]:
    """What teams would carry by other policies; as of some minutes ago, because every hour is shared by itself."""
    reader = _reader(warehouse, place)
    whole = _known(reader, place)
    if reader is None or whole is None:
        return [None, ""]
    policies = [policy for _, policy in warehouse.control.policies(reader.tenant)]
    held = in_force(policies, min(whole.period.end, reader.now))
    everybody = replace(reader, view=reader.view.unfiltered())
    hour = reader.window.period.end
    preview = _once(reader, ("otherwise", whole.month, hour), lambda: efficiency_preview.of(everybody), SHARED_S)
    if not preview.carried:
        return [teams_tables.otherwise({}, whole, held.idle, place), ""]
    covered = f"over {preview.since}" if preview.since else "hour by hour"
    return [teams_tables.otherwise(preview.carried, whole, held.idle, place), f"in force: {held.idle} · {covered}"]


def orphans(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Whose calls carry no team."""
    reader = _reader(warehouse, place)
    whole = _known(reader, place)
    if reader is None or whole is None:
        return [None, ""]
    lost = _orphans(replace(reader, view=reader.view.unfiltered()))
    return [teams_tables.orphans(lost, place, whole), "they are charged to no team; a rule can give them one"]


def closing(warehouse: Warehouse, place: Looked) -> list[Any]:
    """Whether the month is closed, and the form that closes it."""
    reader = _reader(warehouse, place)
    whole = _known(reader, place)
    if reader is None or whole is None:
        return [None, ""]
    month = whole.month
    if whole.closing:
        return [closed_words(whole.closing), f"{month.words} is closed"]
    if not over(whole.period, reader.now):
        last = max(days.end for days in open_days(whole.period, ()))
        return [not_over(month, last, place), f"{month.words} is open"]
    zone = place.view.zone or str(fmt.presented().zone)
    return [form(month, zone, operates=access.principal().operates), f"{month.words} is over and still open"]


def _reader(warehouse: Warehouse, place: Looked) -> Reader | None:
    """The reader of the month; its view is in the currency and time zone in force."""
    reader = Reader.of(warehouse, place.view, declared=True)
    if reader is None:
        return None
    return Reader.of(warehouse, place.over(reader.now), declared=True)


def _once(reader: Reader, what: tuple[Any, ...], ask: Any, kept_s: float = KEPT_S) -> Any:
    """An answer that parts of the page share; not beyond the closing of a month."""
    closed = len(reader.warehouse.control.closed_periods(reader.tenant))
    return asked_once(reader.warehouse, (reader.tenant, "teams", *what, closed, fmt.presented()), ask, kept_s)


def _monthly(reader: Reader, month: Month) -> Monthly:
    shown = fmt.presented()
    found: Monthly = _once(
        reader, ("month", month), lambda: statements.monthly(reader.warehouse, reader.tenant, month, shown)
    )
    return found


def _known(reader: Reader | None, place: Looked) -> Monthly | None:
    """The month of everybody; None where it cannot be told, which the headline says."""
    try:
        return _monthly(reader, place.at(reader.now)) if reader else None
    except BadQuery:
        return None


def _before(reader: Reader) -> dict[str | None, dict[str, Amount]]:
    """By team and cost type, over as much of the month before as of this one; of everybody, nothing if unknown."""
    everybody = replace(reader, view=reader.view.unfiltered())
    found: dict[str | None, dict[str, Amount]] = {}
    frame = _once(
        reader, ("before", reader.window.prior), lambda: everybody.before(("spend_usd",), "team", "cost_type")
    )
    for team, kind, spend in frame.iter_rows() if frame is not None else ():
        found.setdefault(team, {})[kind] = spend
    return found


def _cards(reader: Reader, place: Looked, whole: Monthly) -> list[Component]:
    now, earlier = whole.of(place.who), _before(reader)
    chosen = [parts for name, parts in earlier.items() if not place.who or name in place.who]
    before: dict[str, Amount] = {
        kind: statements.added(parts[kind] for parts in chosen if kind in parts) for kind in statements.KINDS
    }
    total, was = whole.total(place.who), statements.added(before.values())
    nobodys, everybody = whole.total(statements.NOBODY), whole.total()
    share = nobodys / everybody if nobodys is not None and everybody else None
    cards = [_card("spend_usd", statements.called(place.who), total, was)]
    cards += [_card(name, words, _of(now, kinds), _of(before, kinds)) for _, name, words, kinds in CARDS]
    beside = f"{fmt.percent(share)} of everybody's month" if share is not None else ""
    title = "The statement of calls without a team"
    face = link(fmt.usd(nobodys), place.of(None), title=title) if nobodys else fmt.usd(0)
    cards.append(kpi("unattributed_spend_usd", face, change=None, beside=beside, label="Without a team",
                     exact=fmt.usd_exact(nobodys)))  # fmt: skip
    return cards


def _of(kinds: Mapping[str, Amount], names: tuple[str, ...]) -> Amount:
    """The sum of those that there are; 0 where there is none."""
    there = [kinds[name] for name in names if name in kinds and kinds[name] is not None]
    return statements.added(there) if there else NOTHING


def _card(name: str, words: str, now: Amount, was: Amount) -> Component:
    measure = DICTIONARY[name]
    change = fmt.change(now, was, unit="usd", better=measure.better) if was else None
    beside = f"vs {fmt.usd(was)}" if was else "nothing the month before"
    return kpi(name, fmt.usd(now), change=change, beside=beside, label=words, exact=fmt.usd_exact(now))


def _months(place: Looked, month: Month) -> list[Component]:
    """The month before, a list of months, and the month after."""
    present = Month.of(datetime.now(UTC), fmt.presented().zone)
    listed = [present.before(n) for n in range(LISTED)]
    kept = data(keep="as")

    def to(other: Month) -> str:
        return place.href(month=None if other == present else other)

    items = [
        html.Li(link(one.words, to(one), **kept, **(aria(current="true") if one == month else {}))) for one in listed
    ]
    later = month.before(-1)
    before = link("‹", to(month.before()), className="button square", title=month.before().words,
                  **aria(label=f"{month.before().words}, the month before"), **kept)  # fmt: skip
    if later <= present:
        after: Component = link("›", to(later), className="button square", title=later.words,
                                **aria(label=f"{later.words}, the month after"), **kept)  # fmt: skip
    else:
        after = html.Span("›", className="button square off", **aria(hidden="true"))
    face = html.Span([icon("calendar"), month.words], className="button")
    return [
        before,
        popover(face, html.Ul(items), label=f"{month.words}: choose another month", className="months-of"),
        after,
    ]


def _files(reader: Reader, place: Looked, month: Month) -> list[Component]:
    """The menu of files: statements, and the amounts behind them."""
    whole = replace(reader.view, filters=place.view.filters)
    asked = question(whole, month.period(fmt.presented().zone), ("spend_usd",), ("team", "cost_type"))
    name = statements.called(place.who)
    also = [
        Choice(f"{label} statement", f"{name}, {words}", file_address(place, month, form))
        for form, (label, words) in FILES.items()
    ]
    return exporting.menu(asked, "chargeback", also)


def _orphans(reader: Reader) -> list[dict[str, Any]]:
    """Spend and calls that carry no team, by the service that sent them, dearest first."""
    view = reader.view
    asked: Query = question(view, reader.window.period, ("spend_usd", "calls", "unpriced_calls"), ("service", "model"))
    asked = replace(asked, filters=(Filter("team", (None,)),))
    return reader.warehouse.ask(reader.tenant, asked).frame.to_dicts()
