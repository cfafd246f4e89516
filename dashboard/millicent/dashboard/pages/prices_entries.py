"""What the tenant adds to the price data, as a list and one by one: overrides, terms, FX rates and charges in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from dash import html

from millicent.dashboard.components import aria, data, popover
from millicent.dashboard.pages.prices_history import section, shelf
from millicent.dashboard.pages.prices_place import Opened
from millicent.dashboard.pages.prices_search import header, opener, provider_words, since_words, source_link
from millicent.dashboard.pages.prices_units import unit
from millicent.pricing.entries import BookEntry, Charge, FxRate, Override, Term

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_place import Place

NAMES: Final[Mapping[str, str]] = {
    "override": "Price", "term": "Discount", "fx_rate": "FX rate", "fee": "Fee", "commitment": "Commitment",
    "volume": "Volume discount", "credit": "Credit",
}  # fmt: skip
PRICED: Final[Mapping[str, str]] = {
    "input_mtok": "input", "cache_read_mtok": "cached", "cache_write_mtok": "cache write", "output_mtok": "output",
}  # fmt: skip
SHOWN_PRICES: Final = 3
_DIRECTIONS: Final = {"_mtok": " per 1M", "_kcount": " per 1,000", "_hours": " per hour"}


def listing(entries: Sequence[BookEntry], place: Place, now: datetime) -> Component:
    """A table of the live entries, newest first; a row opens its entry."""
    if not entries:
        said = "None yet. Prices and discounts that you add here stand beside the price data, with their dates."
        return html.P(said, className="nothing")
    heads = (("What", ""), ("For", "for"), ("Price", "says"), ("Holds", "since"), ("Known from", "known"),
             ("By", "author"), ("Source", "source"))  # fmt: skip
    body = [_row(entry, place, now) for entry in sorted(entries, key=lambda one: -(one.id or 0))]
    table = html.Table(
        [html.Thead(header(heads)), html.Tbody(body)], className="pricelist own", **aria(labelledby="entries-title"),
    )  # fmt: skip
    return html.Div(table, className="scroll")


def entry_drawer(entry: BookEntry, place: Place, now: datetime, *, operates: bool) -> Component:
    """One entry: everything it says, and for operators how to apply it to the past and how to retire it."""
    facts = [
        ("For", scope(entry)),
        ("Price", words(entry)),
        ("Holds from", instant(entry.effective_from)),
        ("Until", instant(entry.effective_to) if entry.effective_to else "open"),
        ("Known from", instant(entry.known_from) if entry.known_from else ""),
        ("By", entry.author),
        ("Source", source_link(entry.source)),
        ("Note", entry.note),
    ]
    told = html.Dl([html.Div([html.Dt(name), html.Dd(fact)]) for name, fact in facts if fact], className="facts single")
    state = html.P(f"Retired at {instant(entry.retired_at)}.", className="banner") if entry.retired_at else None
    parts = [state, told, _prices(entry)]
    if operates and entry.retired_at is None:
        parts.append(_actions(entry, place, now))
    title = f"{name(entry)} {entry.id}"
    return shelf(title, [scope(entry)], [*filter(None, parts)], place)


def name(entry: BookEntry) -> str:
    """What kind of entry it is, as people say it."""
    return NAMES[entry.type] if isinstance(entry, Charge) else NAMES[entry.kind]


def scope(entry: BookEntry) -> str:
    """Which calls an entry is for: `gpt-4o of OpenAI, at api.acme.com, in eu`."""
    if isinstance(entry, FxRate):
        return f"{entry.currency} to USD"
    told = entry.model or "all models"
    if entry.provider:
        told += f" of {provider_words(entry.provider)}"
    if isinstance(entry, Override | Term):
        told += f", at {entry.endpoint_host}" if entry.endpoint_host else ""
        told += f", in {entry.region}" if entry.region else ""
        told += f", {entry.service_tier} tier" if entry.service_tier else ""
    return f"{entry.name}: {told}" if isinstance(entry, Charge) else told


def words(entry: BookEntry) -> str:
    """What an entry says, short: `$2.50 input, $10.00 output`, `12.5% off`, `as openai/gpt-4o × 0.8`."""
    match entry:
        case FxRate():
            return f"1 {entry.currency} = {unit(entry.usd_per_unit)}"
        case Term(percent_off=Decimal() as percent):
            return f"{_plain(percent)}% off" + (f" {', '.join(map(priced, entry.keys))}" if entry.keys else "")
        case Override(like=str() as like):
            return f"as {like}" + (f" × {_plain(entry.multiply)}" if entry.multiply is not None else "")
        case Override() | Term():
            return _unit_prices(entry.prices or {}, entry.currency)
        case Charge(type="volume"):
            return ", ".join(f"{_plain(off)}% above {unit(above)}" for above, off in entry.tiers)
        case _:
            return unit(entry.amount_usd) + {"fee": " a month", "commitment": " a month at least"}.get(entry.type, "")


def priced(key: str) -> str:
    """The price key as people say it: `input`, `web searches`."""
    return PRICED.get(key) or key.rpartition("_")[0].replace("_", " ")


def instant(moment: datetime | None) -> str:
    """`1 Nov 2026`, with the time where it is no midnight, UTC."""
    if moment is None:
        return ""
    at = moment.astimezone(UTC)
    return since_words(at) + ("" if f"{at:%H:%M:%S}" == "00:00:00" else f" {at:%H:%M} UTC")


def _plain(amount: Decimal | None) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _unit_prices(prices: Mapping[str, Decimal], currency: str) -> str:
    told = [f"{_money(price, currency)} {priced(key)}" for key, price in _ordered(prices)]
    left = len(told) - SHOWN_PRICES
    return ", ".join([*told[:SHOWN_PRICES], *([f"{left} more"] if left > 0 else [])])


def _ordered(prices: Mapping[str, Decimal]) -> list[tuple[str, Decimal]]:
    """As one reads them: input first, output last of the usual ones, then what else there is."""
    usual = list(PRICED)
    return sorted(prices.items(), key=lambda one: (usual.index(one[0]) if one[0] in usual else len(usual), one[0]))


def _money(price: Decimal, currency: str) -> str:
    return unit(price) if currency == "USD" else f"{unit(price).removeprefix('$')} {currency}"


def _row(entry: BookEntry, place: Place, now: datetime) -> Component:
    ended = entry.effective_to is not None and entry.effective_to <= now
    to_come = entry.effective_from > now
    until = f" – {instant(entry.effective_to)}" if entry.effective_to else ""
    holds = ["from " if not until else "", instant(entry.effective_from), until]
    state = html.Span("ended" if ended else "to come", className="tag plain") if ended or to_come else None
    return html.Tr(
        [
            html.Th(
                opener([name(entry), html.Small(scope(entry))], place, Opened.of("entry", id=entry.id)), scope="row"
            ),
            html.Td(html.Span(scope(entry), className="name", title=scope(entry)), className="for"),
            html.Td(words(entry), className="says"),
            html.Td([*holds, state], className="since"),
            html.Td(since_words(entry.known_from), className="known", title=instant(entry.known_from)),
            html.Td(entry.author, className="author"),
            html.Td(html.Span(source_link(entry.source), className="name", title=entry.source), className="source"),
        ],
        className="ended" if ended else "",
    )


def _prices(entry: BookEntry) -> Component | None:
    """Every unit price that an entry writes out."""
    if not isinstance(entry, Override | Term) or not entry.prices:
        return None
    tables = [("", entry.prices)]
    if isinstance(entry, Override):
        tables += [(f"above {size:,} input tokens", prices) for size, prices in entry.above]
    rows = [
        html.Tr([html.Th([priced(key).capitalize(), html.Small(when) if when else None], scope="row"),
                 html.Td([_money(price, entry.currency), html.Small(_per(key))])])
        for when, prices in tables
        for key, price in _ordered(prices)
    ]  # fmt: skip
    return section("Unit prices", html.Table(html.Tbody(rows), className="lines"))


def _per(key: str) -> str:
    return next((told for ending, told in _DIRECTIONS.items() if key.endswith(ending)), "")


def _actions(entry: BookEntry, place: Place, now: datetime) -> Component:
    parts = []
    if isinstance(entry, Override | Term | FxRate) and entry.effective_from < now:
        opened = Opened.of("reprice", entry=entry.id)
        parts.append(opener("Price past calls by it", place, opened, className="button"))
    told = (
        "From now on calls are priced without it. Amounts already stored stay as they are until they are priced again, "
        "and the entry is kept on record."
    )
    yes = html.Button("Retire it", type="button", className="button danger",
                      **data(do="retire", told=json.dumps({"id": entry.id})))  # fmt: skip
    parts.append(popover(html.Span("Retire…", className="button"), [html.P(told), yes], className="confirm"))
    return html.Div(parts, className="pager start")
