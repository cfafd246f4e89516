"""What has no price, or not all of one, and the shortest way to give it one; and whether new price data waits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, icon, link, popover
from millicent.dashboard.listing import Listing
from millicent.dashboard.pages.prices_entries import priced
from millicent.dashboard.pages.prices_place import Opened
from millicent.dashboard.pages.prices_search import header, opener, provider_words, since_words
from millicent.dashboard.pages.prices_units import Units, unit
from millicent.dashboard.state import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_place import Place
    from millicent.pricing.snapshot import PriceChange
    from millicent.warehouse.prices import Update
    from millicent.warehouse.unpriced import Unpriced

MOST: Final = 12
MOST_SUGGESTED: Final = 5
MOST_CHANGES: Final = 4


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the calls without a price.

    Attributes:
        suggested: unit prices of the "provider/model" names that are suggested.
        used: such names of the models in use, for calls of which no name is close.
        present: whether the present price book has a price, for each row.
        progress: words on a repricing under way, by model.
    """

    suggested: Mapping[str, Units]
    used: Sequence[str]
    present: Sequence[bool]
    progress: Mapping[str, str]


def listing(found: Sequence[Unpriced], known: Known, place: Place, *, operates: bool) -> Component:
    """What has no price, most tokens first, each with what can be done.

    Args:
        found: from `warehouse.unpriced`.
        known: what can be done about them.
        place: what is shown; forms open within it.
        operates: whether whoever looks may add prices.
    """
    if not found:
        said = html.P("Every call of this period has a price.")
        return html.Div([icon("check"), html.H3("All is priced"), said], className="allpriced")
    heads = (("Model", ""), ("Calls", "number"), ("Tokens", "number"), ("Seen", ""), ("What to do", ""))
    shown = zip(found[:MOST], known.present, strict=False)
    body = [_row(one, _remedy(one, known, place, present=has, operates=operates)) for one, has in shown]
    left = len(found) - len(body)
    table = html.Table(
        [html.Thead(header(heads)), html.Tbody(body)],
        className="pricelist unpriced",
        **aria(labelledby="unpriced-title"),
    )
    more = html.P(f"and {left} more" if left else "", className="quiet")
    return html.Div([html.Div(table, className="scroll"), more])


def names(found: Sequence[Unpriced], used: Sequence[str]) -> list[tuple[str, str]]:
    """Provider and model of everything that is suggested."""
    told = [name for one in found[:MOST] for name in one.suggestions[:MOST_SUGGESTED]]
    return [(name.partition("/")[0], name.partition("/")[2]) for name in dict.fromkeys([*told, *used])]


def _row(one: Unpriced, remedy: Any) -> Component:
    where = provider_words(one.provider) + (f" at {one.endpoint_host}" if one.endpoint_host else "")
    some = html.Span("partly priced", className="tag") if one.price_status == "partial" else None
    model: list[Any] = [html.Span(one.model or "No model named", className="name", title=one.model), some]
    seen = fmt.span(one.first_at, one.last_at + timedelta(seconds=1), year=False).partition(",")[0]
    return html.Tr(
        [
            html.Th([*model, html.Small(where), html.Small(one.reason, className="reason")], scope="row"),
            html.Td(fmt.count(one.calls), className="number count"),
            html.Td(fmt.tokens(one.tokens), className="number tokens"),
            html.Td(seen, className="seen"),
            html.Td(remedy, className="remedy"),
        ]
    )


def _remedy(one: Unpriced, known: Known, place: Place, *, present: bool, operates: bool) -> Any:
    if under_way := known.progress.get(one.model or ""):
        return html.Span([html.I(className="spinner", **aria(hidden="true")), under_way], className="working")
    if present and one.price_status == "partial":
        there = Listing(view=View(range=place.view.range, filters=(("model", (one.model,)),))).search()
        return link("See these calls", f"/requests{there}", className="button small-text")
    if not operates or one.model is None:
        return html.Small("An operator can add its price." if one.model else "Record the model's name on the span.")
    return _again(one, place) if present else _choices(one, known, place)


def _again(one: Unpriced, place: Place) -> Component:
    again = Opened.of("reprice", provider=one.provider, model=one.model, start=f"{one.first_at:%Y-%m-%d}")
    return opener("Price these calls", place, again, className="button small-text")


def _choices(one: Unpriced, known: Known, place: Place) -> Component:
    told = {"provider": one.provider, "model": one.model, "endpoint_host": one.endpoint_host}
    form = Opened.of("add", kind="override", provider=one.provider, model=one.model,
                         endpoint_host=one.endpoint_host, effective_from=f"{one.first_at:%Y-%m-%d}")  # fmt: skip
    enter = opener("Enter prices", place, form, className="button small-text")
    best = [_like(name, told, known.suggested.get(name), "button primary") for name in one.suggestions[:1]]
    others = one.suggestions[1:MOST_SUGGESTED] if best else known.used
    choices = [html.Li(_like(name, told, known.suggested.get(name), "button")) for name in others]
    if not choices:
        return html.Div([*best, enter], className="remedies")
    words = "Price its calls like another model, from the first one on:"
    if not best:
        words = "No name is close. Price its calls like a model that you use, from the first one on:"
    face = html.Span("Other…" if best else "Price like…", className="button small-text")
    more = popover(face, [html.P(words), html.Ul(choices), enter], className="others")
    return html.Div([*best, more, *([] if best else [enter])], className="remedies")


def _like(name: str, told: dict[str, Any], costs: Units | None, look: str) -> Component:
    face: list[Any] = [html.Span(["Price like ", html.B(name)])]
    if costs is not None:
        face.append(html.Small(f"{unit(costs.list_usd['input'])} in · {unit(costs.list_usd['output'])} out"))
    return html.Button(face, type="button", className=f"{look} like", title="From its first call on; past calls follow",
                       **data(do="price_like", told=json.dumps({**told, "like": name})))  # fmt: skip


def price_data(
    version: str, models: int, lists: int, entries: int, update: Update | None, place: Place, *, operates: bool
) -> Component:
    """Which price data is in force, and what an update that waits would do.

    Args:
        version: of the price book that prices new calls.
        models: how many models it has.
        lists: on how many price lists.
        entries: how many of one's own stand beside them.
        update: what waits, if anything does.
        place: what is shown.
        operates: whether whoever looks may accept it.
    """
    bundled, _, own = version.partition(" + ")
    told = [_fact("In force", bundled), _fact("Models", f"{models:,} on {lists:,} price lists")]
    told += [_fact("Your entries", f"{entries:,} that set a price, named {own} in amounts")] if own else []
    facts = html.Dl(told, className="facts single")
    if update is None:
        said = (
            "Up to date. Prices ship with the product and nothing is fetched. An update that changes past prices waits "
            "here for a yes."
        )
        return html.Div([facts, html.P(said, className="quiet still")])
    return html.Div([facts, _update(update, place, operates=operates)])


def _fact(words: str, value: str) -> Component:
    return html.Div([html.Dt(words), html.Dd(value)])


def _update(update: Update, place: Place, *, operates: bool) -> Component:
    models = list(dict.fromkeys((change.provider, change.model) for change in update.changes))
    head: list[Any] = [
        html.B(f"{update.version_to} waits"),
        f": it changes past prices of {_counted(len(models), 'model')}",
    ]
    added = len(update.additions)
    tail = f" and brings {_counted(added, 'new model')}." if added else "."
    plainest = sorted(update.changes, key=lambda one: (one.above is not None, one.variant, one.daily_from is not None))
    rows = [_changed(change) for change in plainest[:MOST_CHANGES]]
    left = len(update.changes) - len(rows)
    more = html.P(f"and {left} more changes", className="quiet") if left > 0 else None
    parts: list[Any] = [html.P([*head, tail]), html.Table(html.Tbody(rows), className="figures dated"), more]
    first = None
    if operates:
        told = (
            "Calls are priced by the update from now on, also those of past days when they are priced again. Amounts "
            "already stored stay as they are until you reprice them."
        )
        yes = html.Button("Take the update", type="button", className="button primary", **data(do="accept"))
        face = html.Span("Take it…", className="button primary")
        first = popover(face, [html.P(told), yes], className="confirm")
    opened = Opened.of("reprice", update="1", start=since(update))
    effect = opener("See the effect on stored calls", place, opened, className="button")
    parts.append(html.Div([first, effect], className="pager start"))
    return html.Div(parts, className="update")


def since(update: Update) -> str | None:
    """The first day whose prices an update changes; None where it changes a model's first price."""
    starts = [change.effective_from for change in update.changes]
    known = [at for at in starts if at is not None]
    return f"{min(known):%Y-%m-%d}" if known and len(known) == len(starts) else None


def _changed(change: PriceChange) -> Component:
    when = f"from {since_words(change.effective_from)}" if change.effective_from else "from its first price"
    until = f", until {since_words(change.effective_to)}" if change.effective_to else ""
    variant = ", ".join(part.partition("=")[2] for part in change.variant)
    above = f"above {change.above:,} input tokens" if change.above is not None else ""
    what = " · ".join(part for part in (priced(change.key), variant, above, when + until) if part)
    moved = [html.Span(unit(change.old), className="was"), html.Span("→", className="to"), html.B(unit(change.new))]
    return html.Tr([html.Th([change.model, html.Small(what)], scope="row", title=change.provider), html.Td(moved)])


def _counted(number: int, words: str) -> str:
    return f"{number:,} {words}{'' if number == 1 else 's'}"
