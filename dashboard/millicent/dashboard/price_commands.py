"""`millicent prices`: the price book of a running instance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from millicent.dashboard import filters, price_tables
from millicent.dashboard.reprice_commands import followed, moved, summed
from millicent.dashboard.rule_commands import days, instant
from millicent.dashboard.terminal import (
    URL,
    AsJson,
    Failed,
    OperatorToken,
    Token,
    Url,
    ask,
    err,
    get,
    progress,
    show,
)
from millicent.warehouse.query import Filter

prices = typer.Typer(no_args_is_help=True, help="The price book: list prices, our own entries, what has no price.")

EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Before any call."""
TOML: Final = {"content-type": "application/toml"}

File = Annotated[Path, typer.Argument(help="TOML with tables override, term, fx_rate and charge.")]
Provider = Annotated[str | None, typer.Option(help="Whose list: openai, anthropic, …", show_default="any")]
Prices = Annotated[
    list[str] | None, typer.Option("--price", help="input_mtok=0.5: per million tokens or thousand units (repeat).")
]
Like = Annotated[str | None, typer.Option(help="provider/model: its prices, with all their dates and tiers.")]
Multiply = Annotated[str | None, typer.Option(help="With --like: times this, such as 1.1.")]
Currency = Annotated[str, typer.Option(help="What the prices are in, as ISO writes it.")]
Source = Annotated[str | None, typer.Option(help="The page or contract that says so.")]
Note = Annotated[str, typer.Option(help="Why.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@prices.command("search")
def search_prices(
    text: Annotated[str, typer.Argument(help="Part of a provider/model, such as openai/gpt-5.")],
    provider: Provider = None,
    at: Annotated[datetime | None, typer.Option(help="UTC; as they were then.", show_default="now")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List prices whose provider or model contains a text; USD per million tokens or thousand units."""
    asked = {"text": text, "provider": provider, "at": instant(at), "limit": limit}
    answer = get(url, token, "prices", _told(asked))
    show(price_tables.listed(answer["prices"]), answer, as_json=as_json)
    _left_off(answer)


@prices.command("show")
def show_prices(
    model: Annotated[str, typer.Argument(help="As calls name it, or provider/model.")],
    provider: Provider = None,
    host: Annotated[str | None, typer.Option(help="Host that serves it.")] = None,
    region: Annotated[str | None, typer.Option(help="Where it runs.")] = None,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Every price that a model ever had, with its dates and sources."""
    owner, slash, name = model.partition("/")
    if slash and provider is None:
        provider, model = owner, name
    asked = {"model": model, "provider": provider, "endpoint_host": host, "region": region, "history": True}
    answer = get(url, token, "prices", _told(asked))
    show(price_tables.listed(answer["prices"], dated=True), answer, as_json=as_json)


@prices.command("entries")
def list_entries(
    retired: Annotated[bool, typer.Option("--retired", help="Also those that no longer hold.")] = False,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Our own entries: overrides, terms, exchange rates and charges."""
    answer = get(url, token, "prices/entries", {"retired": retired})
    show(price_tables.entries(answer["entries"]), answer, as_json=as_json)


@prices.command("check")
def check_prices(file: File, as_json: AsJson = False) -> None:
    """Say everything that is wrong with a file of prices; needs no instance and changes nothing."""
    from millicent.dashboard.price_reading import from_toml, possible  # noqa: PLC0415 - loads the price data
    from millicent.pricing.book import PriceBook  # noqa: PLC0415 - likewise
    from millicent.pricing.entries import BadPricesError, written  # noqa: PLC0415 - likewise

    try:
        found = from_toml(_text(file))
        possible(found, PriceBook.bundled())
    except BadPricesError as error:
        raise Failed(*error.problems) from error
    told = [written(one) for one in found]
    show(price_tables.entries(told), {"entries": told}, as_json=as_json)


@prices.command("diff")
def diff_prices(file: File, url: Url = URL, token: Token = None, as_json: AsJson = False) -> None:
    """What a file of prices would add, and which unit prices that would change from when; stores nothing."""
    answer = ask("POST", url, token, "prices/diff", content=_text(file), headers=TOML)
    if as_json:
        show((), answer, as_json=True)
    else:
        _show_diff(answer)


@prices.command("set")
def set_prices(
    file: Annotated[
        Path | None, typer.Option("--file", help="TOML with any number of entries, instead of flags.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="As calls name it; * stands for anything.")] = None,
    provider: Provider = None,
    host: Annotated[str | None, typer.Option(help="Only calls to this host.")] = None,
    region: Annotated[str | None, typer.Option(help="Only calls in this region.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only calls of this service tier.")] = None,
    price: Prices = None,
    above: Annotated[
        list[str] | None, typer.Option(help="200000:input_mtok=1: for requests with more input tokens (repeat).")
    ] = None,
    like: Like = None,
    multiply: Multiply = None,
    currency: Currency = "USD",
    daily_from: Annotated[str | None, typer.Option(help="16:30: only from this time of day on.")] = None,
    daily_to: Annotated[str | None, typer.Option(help="00:30: only up to this time of day.")] = None,
    zone: Annotated[str | None, typer.Option(help="Whose time of day: Europe/Berlin.", show_default="UTC")] = None,
    percent_off: Annotated[str | None, typer.Option(help="A discount on the list price: 12.5.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="With --percent-off: off this price alone, such as output_mtok (repeat).")
    ] = None,
    billed_price: Annotated[
        list[str] | None, typer.Option(help="input_mtok=0.4: what a contract charges instead of the list (repeat).")
    ] = None,
    since: Annotated[datetime | None, typer.Option("--from", help="UTC; it holds from then on.")] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", help="UTC; up to then, not included.", show_default="for ever")
    ] = None,
    source: Source = None,
    note: Note = "",
    yes: Yes = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Add our own prices: an override of the list, a term of a contract, or a file; shows the difference, then asks.

    New calls have the new prices at once. Stored ones keep theirs until `millicent reprice` has run.
    """
    match = {"provider": provider, "model": model, "endpoint_host": host, "region": region, "service_tier": tier}
    common = {**match, "currency": None if currency == "USD" else currency, "effective_from": instant(since),
              "effective_to": instant(until), "source": source, "note": note or None}  # fmt: skip
    term = {"percent_off": percent_off, "keys": key, "prices": _prices(billed_price, "--billed-price")}
    override = {"prices": _prices(price, "--price"), "above": _above(above), "like": like, "multiply": multiply,
                "daily_from": daily_from, "daily_to": daily_to, "zone": zone}  # fmt: skip
    flags = _told({**common, **term, **override})
    if file is not None:
        if flags:
            raise Failed(f"--file and --{next(iter(flags))} were given: put all of it into the file")
        sent: dict[str, Any] = {"content": _text(file), "headers": TOML}
    else:
        if not flags:
            raise Failed("nothing to set: write --model with --price or --like, --percent-off, or --file prices.toml")
        if _told(term) and _told(override):
            raise Failed("an override of the list and a term of a contract are two entries: set them one by one")
        told = {"kind": "term", **term} if _told(term) else {"kind": "override", **override}
        sent = {"json": {"entries": [_told({**common, **told})]}}
    stored = _stored(sent, url, token, yes=yes)
    show(price_tables.entries(stored["entries"]), stored, as_json=as_json)
    if stored["entries"]:
        _say_reprice(min(one["effective_from"] for one in stored["entries"]))


@prices.command("retire")
def retire_entry(
    entry_id: Annotated[int, typer.Argument(help="As `millicent prices entries` prints it.")],
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """End an entry of ours; stored calls keep their prices until `millicent reprice` has run."""
    gone = ask("DELETE", url, token, f"prices/entries/{entry_id}")
    show(price_tables.entries([gone]), gone, as_json=as_json)
    err.print(f"entry {entry_id} is retired", highlight=False)
    _say_reprice(gone["effective_from"])


@prices.command("unpriced")
def list_unpriced(
    start: Annotated[
        datetime | None, typer.Option("--from", help="UTC.", show_default="90 days ago; with --model: ever")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="UTC.", show_default="now")] = None,
    model: Annotated[str | None, typer.Option(help="Price this one, as the list names it.")] = None,
    provider: Provider = None,
    like: Like = None,
    multiply: Multiply = None,
    price: Prices = None,
    currency: Currency = "USD",
    source: Source = None,
    note: Note = "",
    yes: Yes = False,
    url: Url = URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Models whose calls have no price, most tokens first; with --model and --like or --price it is given one.

    The price then holds from the first of these calls on, and they are priced by it: that asks for an operator key.
    """
    first = start or (EVER if model else None)
    found = get(url, token, "prices/unpriced", _told({"start": instant(first), "end": instant(end)}))
    if model is None:
        show(price_tables.unpriced(found["models"]), found, as_json=as_json)
        return
    rows = [row for row in found["models"]
            if row["model"] == model and provider in {None, row["provider"]}]  # fmt: skip
    if not rows:
        raise Failed(f"no calls of {model!r} are without a price: see `millicent prices unpriced`")
    since = min(row["first_at"] for row in rows)
    entry = {
        "kind": "override", "model": model, "provider": provider, "like": like, "multiply": multiply,
        "prices": _prices(price, "--price"), "currency": None if currency == "USD" else currency,
        "effective_from": since, "source": source or (f"the price of {like}" if like else None), "note": note or None,
    }  # fmt: skip
    stored = _stored({"json": {"entries": [_told(entry)]}}, url, token, yes=yes)
    names = _told({"model": model, "provider": provider})
    these = [filters.written(Filter(name, (value,))) for name, value in names.items()]
    run = followed(ask("POST", url, token, "reprice", params={"start": since, "filter": these}), url, token)
    show([{"calls": run["calls"], "changed": run["changed"], "list cost": run["list_usd_after"]}],
         {"entries": stored["entries"], "run": run}, as_json=as_json)  # fmt: skip


@prices.command("update")
def update_prices(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False,
    yes: Yes = False,
    url: Url = URL,
    token: OperatorToken = None,
    as_json: AsJson = False,
) -> None:
    """Price data that came with a new version and waits because it changes past prices: shows them, then asks.

    Stored calls keep their prices until `millicent reprice` has run.
    """
    pending = get(url, token, "prices/update", {})["pending"]
    if pending is None:
        show([], {"pending": None}, as_json=as_json)
        err.print("no price data waits for a yes", highlight=False)
        return
    pending["effect"] = _effects(url, token, pending["effect_from"])
    if dry_run and as_json:
        show((), {"pending": pending}, as_json=True)
        return
    if dry_run or not yes:
        _show_update(pending)
    if dry_run:
        return
    if not yes:
        typer.confirm(f"Take the prices of {pending['version_to']}?", abort=True, err=True)
    taken = ask("POST", url, token, "prices/update")
    show([{"price book": taken["version"]}], taken, as_json=as_json)
    if pending["effect_from"]:
        _say_reprice(pending["effect_from"])


def _stored(sent: dict[str, Any], url: str, token: str | None, *, yes: bool) -> dict[str, Any]:
    """Show what entries change, ask, and add them; answers what was added.

    Raises:
        Failed: they are not entries, or the key may not add any.
        typer.Abort: the answer is no.
    """
    found = ask("POST", url, token, "prices/diff", **sent)
    if not yes or not found["new"]:
        _show_diff(found)
    if not found["new"]:
        err.print("nothing new: all of it is there already", highlight=False)
        return {"entries": [], "version": found["version"]}
    if not yes:
        typer.confirm(f"Add {_counted(found['new'], 'entry', 'entries')}?", abort=True, err=True)
    stored: dict[str, Any] = ask("POST", url, token, "prices/entries", **sent)
    return stored


def _say_reprice(since: str) -> None:
    """How stored calls come to new prices, where any could."""
    if datetime.fromisoformat(since) < datetime.now(UTC):
        err.print(f"stored calls keep their prices; to see what would change: "
                  f"millicent reprice --from {since} --dry-run", highlight=False, soft_wrap=True)  # fmt: skip


def _show_diff(found: dict[str, Any]) -> None:
    for title, entries in (("new", found["new"]), ("already there", found["present"])):
        if entries:
            err.print(title, style="bold")
            show(price_tables.entries(entries), None, as_json=False, to=err)
    if found["changes"]:
        err.print("unit prices in USD, per million tokens or as they are named", style="bold")
        show(price_tables.changes(found["changes"]), None, as_json=False, to=err)
    _left_off(found)


def _show_update(pending: dict[str, Any]) -> None:
    err.print(f"{pending['version_from']} → {pending['version_to']}", highlight=False)
    if pending["changes"]:
        err.print("past prices that differ", style="bold")
        show(price_tables.past_changes(pending["changes"]), None, as_json=False, to=err)
    if pending["additions"]:
        named = ", ".join(f"{one['provider']}/{one['model']}" for one in pending["additions"][:20])
        more = len(pending["additions"]) - 20
        err.print(f"new models: {named}{f' and {more} more' if more > 0 else ''}", highlight=False)
    if pending["effect"]["calls"]:
        err.print("stored calls that would be priced otherwise", style="bold")
        show([moved(one) for one in pending["effect"]["differences"]], None, as_json=False, to=err)
    else:
        err.print("no stored call would be priced otherwise", highlight=False)


def _effects(url: str, token: str | None, since: str | None) -> dict[str, Any]:
    """What repricing every day since then by pending prices would change, by model."""
    periods = days(datetime.fromisoformat(since), datetime.now(UTC)) if since else []
    answers = [ask("GET", url, token, "prices/update/effect", params={"start": start, "end": end})
               for start, end in progress(periods, "days looked at")]  # fmt: skip
    return summed(answers, ("model",))


def _prices(texts: Iterable[str] | None, flag: str) -> dict[str, str] | None:
    found = {}
    for text in texts or ():
        key, mark, price = text.partition("=")
        if not mark:
            raise Failed(f"{flag} {text!r} is not price=amount: write input_mtok=0.5")
        found[key] = price
    return found or None


def _above(texts: Iterable[str] | None) -> list[dict[str, Any]] | None:
    found: dict[int, list[str]] = {}
    for text in texts or ():
        tokens, colon, price = text.partition(":")
        if not colon or not tokens.isdecimal():
            raise Failed(f"--above {text!r} is not tokens:price=amount: write 200000:input_mtok=1")
        found.setdefault(int(tokens), []).append(price)
    return [{"input_tokens": size, "prices": _prices(told, "--above")} for size, told in found.items()] or None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{file} cannot be read: {error}") from error


def _told(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _counted(items: Sequence[Any], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _left_off(answer: dict[str, Any]) -> None:
    if answer["left_off"]:
        err.print(f"and {answer['left_off']:,} more", highlight=False)
