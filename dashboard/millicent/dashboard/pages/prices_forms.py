"""The forms in the drawer: a price of one's own, a discount. They are read as any entry is, and tell their effect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from dash import dcc, html

from millicent.dashboard.components import aria, data
from millicent.dashboard.pages.prices_entries import priced
from millicent.dashboard.pages.prices_history import shelf
from millicent.dashboard.pages.prices_units import unit
from millicent.pricing.entries import BadPricesError, BookEntry, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_place import Place
    from millicent.dashboard.price_diff import UnitChange
    from millicent.pricing.book import PriceBook

Told = Mapping[str, str]

PRICE_FIELDS: Final = (
    ("input_mtok", "Input"), ("cache_read_mtok", "Cached"), ("cache_write_mtok", "Cache write"),
    ("output_mtok", "Output"),
)  # fmt: skip
SCOPE: Final = ("provider", "model", "endpoint_host")
COMMON: Final = (*SCOPE, "effective_from", "effective_to", "source", "note")
OF_KIND: Final = {"override": ("like", "multiply", "currency"), "term": ("percent_off",)}
LABELS: Final[Mapping[str, str]] = {
    **dict(PRICE_FIELDS), "effective_from": "From", "effective_to": "Until", "percent_off": "Percent off",
    "model": "Model", "provider": "Provider", "endpoint_host": "Endpoint", "source": "Source", "note": "Note",
    "like": "Another model's list", "multiply": "Times", "currency": "Currency",
}  # fmt: skip
"""How the forms call the members of an entry."""
_MEMBER: Final = re.compile("|".join(rf"\b{name}\b" for name in LABELS if "_" in name))
_NEITHER: Final = "an override has prices or like"
MOST_CHANGES: Final = 12
MOST_OFFERED: Final = 200


def add_drawer(place: Place, today: datetime, offered: Iterable[str]) -> Component:
    """The form that is asked for, with what is known of it.

    Args:
        place: what is shown; `place.opened` tells the kind and what the form begins with.
        today: the first day that is offered, unless another was told.
        offered: "provider/model" names to choose from, for `like`.
    """
    told = {"effective_from": f"{today:%Y-%m-%d}", **dict(place.opened.told if place.opened else ())}
    override = told.get("kind") != "term"
    title = "Your own price" if override else "A discount"
    says = (
        "A list price that stands in place of the price data while it holds."
        if override
        else "What you pay less than the list price, per call. List prices stay as they are."
    )
    fields = _price_fields(told, offered) if override else _percent_fields(told)
    save = html.Button("Save", type="submit", className="button primary", **data(do="add"))
    form = html.Form(
        [
            dcc.Input(type="hidden", name="kind", value="override" if override else "term"),
            group("For", [
                entry_field("model", "Model", told, hint="gpt-4o, or acme-*", needed=override),
                entry_field("provider", "Provider", told, hint="empty: any"),
                entry_field("endpoint_host", "Endpoint", told, hint="empty: any"),
            ], "three"),
            *fields,
            group("Holds", [
                entry_field("effective_from", "From", told, shape="date", needed=True),
                entry_field("effective_to", "Until, not included", told, shape="date", hint="empty: open"),
            ]),
            group("On record", [
                entry_field("source", "Source", told, hint="the page or contract that says so", needed=True),
                entry_field("note", "Note", told),
            ]),
            html.Div(id="prices-effect", className="effect", **aria(live="polite")),
            html.Div(save, className="pager"),
            dcc.Store(id="prices-draft", data=told),
        ],
        className="form", **data(draft="prices-draft"),
    )  # fmt: skip
    return shelf(title, says, [form], place)


def entry_of(told: Told) -> BookEntry:
    """The entry that a form holds.

    Raises:
        BadPricesError: naming each member, the value and what it must be.
    """
    kind = told.get("kind", "")
    if kind not in OF_KIND:
        raise BadPricesError([f"kind {kind!r} cannot be added here: open one of the two forms"])
    said: dict[str, Any] = {"kind": kind}
    said |= {name: told[name].strip() for name in (*COMMON, *OF_KIND[kind]) if told.get(name, "").strip()}
    if kind == "override":
        prices = {key: told[key].strip().removeprefix("$") for key, _ in PRICE_FIELDS if told.get(key, "").strip()}
        if prices and "like" in said:
            raise BadPricesError(["Write prices or name another model's list, not both: empty one of them"])
        said |= {"prices": prices} if prices else {}
    elif "percent_off" in said:
        said["percent_off"] = said["percent_off"].removesuffix("%").strip()
    return read(said)


def fitting(book: PriceBook, entry: BookEntry) -> PriceBook:
    """The book with one more entry.

    Raises:
        BadPricesError: it cannot work with the price data, such as prices like those of a model that is not listed.
    """
    after = book.with_own((*book.own, entry))
    if found := [problem for problem in after.problems() if problem not in book.problems()]:
        raise BadPricesError(found)
    return after


def text_of(told: Any) -> dict[str, str]:
    """What a browser sent as a form: names and texts; all else is left out."""
    if not isinstance(told, Mapping):
        return {}
    texts = [(name, value) for name, value in told.items() if isinstance(name, str) and isinstance(value, str)]
    return {name: value.encode("utf-8", "replace").decode() for name, value in texts}


def in_words(problem: str) -> str:
    """A problem as the form calls its fields."""
    if problem.startswith(_NEITHER):
        return "A price is missing: write at least one, or name another model's list"
    first, space, rest = problem.removeprefix("prices.").partition(" ")
    told = LABELS.get(first, first) + space + rest
    return _MEMBER.sub(lambda found: LABELS[found[0]].lower(), told)


def problems(found: Sequence[str]) -> Component:
    """What keeps a form from being saved: what is wrong, and quietly what is only missing yet."""
    items = [html.Li(told, className="" if " is missing" in told else "wrong") for told in map(in_words, found)]
    return html.Div([html.H3("Before it can be saved"), html.Ul(items, className="problems")])


def effect(changes: Sequence[UnitChange], *, past: bool) -> Component:
    """Old and new unit prices, as a table.

    Args:
        changes: from `price_diff.changes`.
        past: the entry holds since before today.
    """
    if not changes:
        return html.P("It changes no price of a model that is on a price list or in use.", className="quiet")
    body = [_change(one) for one in changes[:MOST_CHANGES]]
    left = len(changes) - len(body)
    heads = ("Price per 1M", "List", "You pay")
    table = html.Table([html.Thead(html.Tr([html.Th(head, scope="col") for head in heads])), html.Tbody(body)],
                       className="figures dated")  # fmt: skip
    more = [html.P(f"and {left} more", className="quiet")] if left else []
    kept = "New calls get these prices once it is saved. Calls already stored keep their amounts until repriced."
    return html.Div([html.H3("What it changes"), table, *more, html.P(kept if past else "", className="quiet")])


def _change(one: UnitChange) -> Component:
    model = " · ".join(part for part in (one.model, one.endpoint_host, one.region, one.service_tier) if part)
    what: list[Any] = [priced(one.price).capitalize(), html.Small(model)]
    pairs = ((one.list_before, one.list_after), (one.billed_before, one.billed_after))
    return html.Tr([html.Th(what, scope="row"), *(html.Td(_moved(*pair)) for pair in pairs)])


def _moved(before: Decimal | None, after: Decimal | None) -> Any:
    if before == after:
        return html.Span(unit(after), className="same")
    return [html.Span(unit(before), className="was"), html.Span("→", className="to"), html.B(unit(after))]


def _price_fields(told: Told, offered: Iterable[str]) -> list[Component]:
    names = html.Datalist([html.Option(value=name) for name in list(offered)[:MOST_OFFERED]], id="prices-offered")
    prices = [entry_field(key, words, told, mode="numeric") for key, words in PRICE_FIELDS]
    return [
        group("Price per 1M tokens", [*prices, entry_field("currency", "Currency", told, hint="USD")], "five"),
        group("Or the same as", [
            entry_field("like", "Another model's list", told, hint="openai/gpt-4o", list_="prices-offered"),
            entry_field("multiply", "Times", told, hint="1", mode="numeric"), names,
        ]),
    ]  # fmt: skip


def _percent_fields(told: Told) -> list[Component]:
    return [
        group("Less", [entry_field("percent_off", "Percent off the list price", told, hint="12.5", mode="numeric")])
    ]


def group(title: str, fields: Sequence[Component], columns: str = "") -> Component:
    """Fields that belong together."""
    return html.Fieldset([html.Legend(title), *fields], className=columns)


def entry_field(
    name: str, words: str, told: Told, *, hint: str = "", shape: str = "text", mode: str | None = None,
    needed: bool = False, list_: str | None = None,
) -> Component:  # fmt: skip
    """One field with its words; `hint` stands in it while it is empty."""
    box: Any = dcc.Input
    more = {"inputMode": mode} if mode else {}
    more |= {"list": list_} if list_ else {}
    field = box(name=name, type=shape, value=told.get(name, ""), placeholder=hint, autoComplete="off", **more)
    star = html.Span(" *", title="needed") if needed else None
    return html.Label([html.Span([words, star]), field], className="entry")
