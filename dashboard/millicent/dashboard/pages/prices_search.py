"""Finding a price: the models that one uses, or those that a text names, each with its unit prices as of now."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import html

from millicent.dashboard import format as fmt
from millicent.dashboard.components import aria, data, link
from millicent.dashboard.pages.prices_place import Opened
from millicent.dashboard.pages.prices_units import KINDS, Asked, Units, unit, units
from millicent.dashboard.pages.requests_table import PROVIDERS
from millicent.pricing.entries import Override

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dash.development.base_component import Component

    from millicent.dashboard.pages.prices_place import Place
    from millicent.pricing.book import PriceBook

MOST: Final = 25
OWN: Final = "override "
"""How the name of a price entry begins that is one's own."""
MOST_WORDS: Final = 8
MOST_BOOKS: Final = 8
MAKERS: Final = ("anthropic", "cohere", "deepseek", "google", "mistral", "moonshotai", "openai", "x-ai", "zai")
"""Price lists of those who make models come before those of resellers."""


@lru_cache(maxsize=MOST_BOOKS)
def models(book: PriceBook) -> pl.DataFrame:
    """`provider`, `model` and `name` of everything on the price lists, each once; kept, since books do not change."""
    return book.models().select("provider", "model", "name").unique(["provider", "model"], maintain_order=True)


def listed(book: PriceBook, text: str) -> list[tuple[str | None, str | None]]:
    """(provider, model) of what a text names, best first: every word occurs in provider, model or name."""
    words = text.lower().split()[:MOST_WORDS]
    spelled = pl.concat_str(pl.col("provider").fill_null(""), pl.lit("/"), "model").str.to_lowercase()
    whole = pl.concat_str(spelled, pl.lit(" "), pl.col("name").fill_null("").str.to_lowercase())
    named = pl.col("model").str.to_lowercase()
    sought = " ".join(words)
    own = [(one.provider, one.model) for one in book.own if isinstance(one, Override) and "*" not in (one.model or "")]
    names = dict.fromkeys(("provider", "model"), pl.String())
    found = (
        pl.concat([models(book), pl.DataFrame(own, names, orient="row")], how="diagonal")
        .unique(["provider", "model"], keep="first", maintain_order=True)
        .filter(*(whole.str.contains(word, literal=True) for word in words))
        .with_columns(
            (2 * spelled.eq(sought).cast(pl.Int8) + named.eq(sought).cast(pl.Int8)).alias("same"),
            named.str.starts_with(sought).alias("begins"),
            pl.col("provider").is_in(MAKERS).alias("maker"),
            pl.col("model").str.len_chars().alias("length"),
        )
        .sort("same", "begins", "maker", "length", "model", "provider", descending=[True] * 3 + [False] * 3)
    )  # fmt: skip
    return list(found.select("provider", "model").iter_rows())


def results(book: PriceBook, found: Sequence[tuple[str | None, str | None]], place: Place, now: datetime) -> Component:
    """A table of unit prices, of as many as are shown at once; each row opens the price's history.

    Args:
        book: what prices the tenant's calls.
        found: provider and model, best first.
        place: what is shown; a row opens its price within it.
        now: the instant whose prices are shown.
    """
    if not found:
        rest = ". Try fewer letters, or add a price of your own."
        said: list[Any] = ["No price list has a model like ", html.B(place.text), rest]
        return html.P(said, className="nothing")
    asked = [Asked(provider, model) for provider, model in found[:MOST]]
    priced = units(book, asked, now)
    billed = any(one.discounted for one in priced)
    unit_prices = [(words, f"number {kind}") for kind, words in KINDS.items()]
    unit_prices += [("You pay, input / output", "number pays")] if billed else []
    heads = [("Model", ""), ("Provider", "provider"), *unit_prices, ("Since", "since"), ("Source", "source")]
    body = [_row(book, one, of, place, now, billed=billed) for one, of in zip(asked, priced, strict=True)]
    left = len(found) - len(body)
    table = html.Table(
        [html.Thead(header(heads)), html.Tbody(body)], className="pricelist", **aria(labelledby="find-title")
    )
    more = f"and {left} more: type another word to narrow" if left else ""
    return html.Div([html.Div(table, className="scroll"), html.P(more, className="quiet")])


def header(heads: Sequence[tuple[str, str]]) -> Component:
    """The row of headings: words, and the class of their column."""
    return html.Tr([html.Th(words, scope="col", className=name) for words, name in heads])


def opener(face: Any, place: Place, opened: Opened | None, **props: Any) -> Component:
    """A link that opens the drawer, or closes it, and leaves the rest as it is by then shown."""
    return link(face, place.href(opened=opened), **data(opens=opened.written if opened else ""), **props)


def tag(entry: str | None) -> Component | None:
    """Whose a price is: one's own, or the price data's."""
    if entry is None:
        return None
    own = entry.startswith(OWN)
    return html.Span("your price" if own else "price data", className="tag own" if own else "tag plain")


def provider_words(provider: str | None) -> str:
    """A provider as people call it."""
    return PROVIDERS.get(provider or "", provider or "Unknown")


def source_link(source: str | None) -> Component | str:
    """The page where a price can be read, by its host; text that is not just a web address stays text."""
    if source is None or not source.startswith(("https://", "http://")) or len(source.split()) > 1:
        return source or fmt.UNKNOWN
    host = source.partition("://")[2].partition("/")[0].removeprefix("www.")
    return html.A(host, href=source, target="_blank", rel="noopener noreferrer", title=source, className="outside")


def since_words(since: datetime | None) -> str:
    """From when a price holds."""
    return f"{fmt.day(since)} {since.year}" if since else "first price"


def _row(book: PriceBook, asked: Asked, found: Units, place: Place, now: datetime, *, billed: bool) -> Component:
    opened = Opened.of("price", provider=asked.provider, model=asked.model)
    of_any = asked.provider is None and (found.entry or "").startswith(OWN)
    provider = "any" if of_any else provider_words(asked.provider)
    name = html.Th(
        opener([html.Span(asked.model or "Unknown", className="name"), html.Small(provider)],
               place, opened, title=asked.model),
        scope="row",
    )  # fmt: skip
    why = book.explain({"provider": asked.provider, "model": asked.model, "started_at": now, "input_tokens": 1,
                        "output_tokens": 1, "billing": "api"})  # fmt: skip
    cells: list[Any] = [html.Td(_price(found, kind), className=f"number {kind}") for kind in KINDS]
    if billed:
        pays = [unit(found.billed_usd[kind]) for kind in ("input", "output") if found.list_usd[kind]]
        at_list = "list" if found.entry else fmt.UNKNOWN
        words = " / ".join(pays) if found.discounted else at_list
        cells.append(html.Td(words, className="number pays" if found.discounted else "number pays at-list"))
    sources = why.sources[0] if why.sources else None
    tail = [
        html.Td([since_words(why.effective_from) if found.entry else "no price", tag(found.entry)], className="since"),
        html.Td(html.Span(source_link(sources), className="name", title=sources), className="source"),
    ]
    return html.Tr([name, html.Td(provider, className="provider"), *cells, *tail])


def _price(found: Units, kind: str) -> Any:
    price = found.list_usd[kind]
    if kind.startswith("cache") and price is not None and price == found.list_usd["input"]:
        return html.Span("as input", className="same", title="no price of its own: billed as input")
    if kind == "output" and price == 0 and found.list_usd["input"]:
        return html.Span(fmt.UNKNOWN, title="not billed")
    return unit(price)
