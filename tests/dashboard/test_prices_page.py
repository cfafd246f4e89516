"""The Prices page without a screen: its address, what its parts say, and what may be changed through it by whom."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from urllib.parse import parse_qs, urlsplit

import plotly.graph_objects as go
import pytest
from asked_pages import callback, every, words
from hypothesis import given
from hypothesis import strategies as st

from millicent.collector import repricing
from millicent.dashboard.pages.prices_acts import ACTS
from millicent.dashboard.pages.prices_entries import words as entry_words
from millicent.dashboard.pages.prices_forms import entry_of, in_words
from millicent.dashboard.pages.prices_history import figure
from millicent.dashboard.pages.prices_place import Opened, Place
from millicent.dashboard.pages.prices_repricing import Plan
from millicent.dashboard.pages.prices_search import listed, source_link
from millicent.dashboard.pages.prices_units import Asked, unit, units
from millicent.dashboard.state import FILTERS, RANGES, View
from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.pricing.entries import BadPricesError, read
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.prices import Prices
from millicent.warehouse.query import Period
from millicent.warehouse.store import Warehouse
from millicent.warehouse.unpriced import unpriced

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
OPENINGS = ("price", "entry", "add", "reprice", "run")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
openings = st.builds(
    Opened,
    st.sampled_from(OPENINGS),
    st.dictionaries(texts, texts, max_size=4).map(lambda told: tuple(told.items())),
)
places = st.builds(
    Place,
    view=st.builds(
        View,
        range=st.sampled_from(tuple(RANGES)),
        filters=st.fixed_dictionaries(
            {}, optional=dict.fromkeys(FILTERS, st.lists(texts, min_size=1, max_size=3, unique=True).map(tuple))
        ).map(lambda found: tuple((name, found[name]) for name in FILTERS if name in found)),
    ),
    text=st.just("") | texts,
    opened=st.none() | openings,
)


# ---- the address


@given(places)
def test_an_address_is_read_as_it_was_written(place):
    assert Place.parse(place.search()) == place
    assert place.href()


@given(st.text(max_size=300))
def test_any_address_opens(search):
    assert Place.parse(f"?{search}").href()


def test_the_plain_address_is_the_default_and_links_keep_what_is_shown():
    assert Place().search() == ""
    here = Place.parse("?v=1&p=7d&q=gpt&team=Search")
    there = Place.parse(here.opening("price", provider="openai", model="a b/c&d"))
    assert (there.text, there.view.range, there.view.filters) == ("gpt", "7d", (("team", ("Search",)),))
    assert (there.opened["provider"], there.opened["model"]) == ("openai", "a b/c&d")
    assert parse_qs(urlsplit(there.href(opened=None)).query) == {"v": ["1"], "p": ["7d"], "q": ["gpt"],
                                                                 "team": ["Search"]}  # fmt: skip


# ---- prices as people read them


@pytest.mark.parametrize(
    ("price", "text"),
    [("2.5", "$2.50"), ("0.075", "$0.075"), ("0", "$0.00"), ("1234.5", "$1,234.50"), ("1E+1", "$10.00"), (None, "—")],
)
def test_a_unit_price_keeps_its_digits(price, text):
    assert unit(None if price is None else Decimal(price)) == text


def test_unit_prices_are_those_that_calls_are_priced_at():
    book = PriceBook.bundled()
    asked = [Asked("openai", "gpt-4o"), Asked("openai", "no-such-model"), Asked("anthropic", "claude-sonnet-4-5")]
    known, unknown, other = units(book, asked, NOW)
    listing = {(row["provider"], row["model"]): row for row in book.models().iter_rows(named=True)
               if row["variant"] is None and row["above_input_tokens"] is None}  # fmt: skip
    for asked_of, found in ((asked[0], known), (asked[2], other)):
        row = listing[asked_of.provider, asked_of.model]
        for kind in ("input", "cache_read", "output"):
            assert found.list_usd[kind] == row[f"{kind}_usd_per_mtok"]
    assert set(unknown.list_usd.values()) == {None}
    assert not known.discounted


def test_a_search_puts_what_was_named_first_and_needs_every_word():
    book = PriceBook.bundled()
    assert listed(book, "gpt-4o")[0][1] == "gpt-4o"
    assert listed(book, "openai gpt-4o mini")[0] == ("openai", "gpt-4o-mini")
    assert listed(book, "OPENAI/gpt-4o")[0] == ("openai", "gpt-4o")
    assert listed(book, "gpt-4o no-such-word") == []
    assert all("sonnet" in model for _, model in listed(book, "claude sonnet")[:5])


@pytest.mark.parametrize(
    "source", ["javascript:alert(1)", "contract 7", "data:text/html,x", "//evil", "https://a.b <b>", None]
)
def test_only_a_web_page_is_linked(source):
    assert isinstance(source_link(source), str)
    assert source_link("https://www.openai.com/pricing?a=1").href == "https://www.openai.com/pricing?a=1"


def test_the_history_is_drawn_in_steps_with_gaps_and_own_entries_shaded():
    dated = [
        {"from": None, "to": NOW - 90 * DAY, "input": Decimal("2.5"), "cache_read": None, "output": Decimal(10),
         "own": False},
        {"from": NOW - 60 * DAY, "to": None, "input": Decimal(2), "cache_read": Decimal(1), "output": Decimal(8),
         "own": True},
    ]  # fmt: skip
    drawn = figure(dated, NOW)
    go.Figure(drawn)
    assert {trace["name"]: trace["y"] for trace in drawn["data"]}["Input"] == [2.5, 2.5, None, 2.0, 2.0]
    assert drawn["data"][0]["line"]["shape"] == "hv"
    assert [shape["type"] for shape in drawn["layout"]["shapes"]] == ["line", "rect"]
    go.Figure(figure([], NOW))


# ---- forms


FORM = {"kind": "override", "model": "acme-7b", "input_mtok": " $2.50 ", "output_mtok": "10",
        "effective_from": "2026-11-01", "source": "contract 7"}  # fmt: skip


def test_a_form_is_read_as_an_entry():
    entry = entry_of(FORM)
    assert entry.prices == {"input_mtok": Decimal("2.50"), "output_mtok": Decimal(10)}
    assert entry.effective_from == datetime(2026, 11, 1, tzinfo=UTC)
    term = entry_of({"kind": "term", "percent_off": "12.5%", "effective_from": "2026-11-01", "source": "contract"})
    assert term.percent_off == Decimal("12.5")
    like = entry_of({**FORM, "input_mtok": "", "output_mtok": "", "like": "openai/gpt-4o", "multiply": "0.8"})
    assert entry_words(like) == "as openai/gpt-4o × 0.8"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"source": ""}, "Source is missing"),
        ({"input_mtok": "", "output_mtok": ""}, "A price is missing"),
        ({"input_mtok": "cheap"}, "Input 'cheap' is not a number"),
        ({"effective_from": "soon"}, "From 'soon' is no instant"),
        ({"effective_to": "2026-10-01"}, "Until 2026-10-01"),
        ({"like": "openai/gpt-4o"}, "not both"),
        ({"kind": "charge"}, "cannot be added here"),
    ],
)
def test_a_form_that_is_no_entry_says_why_in_its_own_words(changed, says):
    with pytest.raises(BadPricesError) as caught:
        entry_of({**FORM, **changed})
    told = " ".join(map(in_words, caught.value.problems))
    assert says.lower() in told.lower()


@given(st.dictionaries(st.sampled_from([*FORM, "percent_off", "like", "multiply", "currency"]), texts))
def test_any_form_is_an_entry_or_says_why(told):
    with suppress(BadPricesError):
        assert entry_of({**FORM, **told}).source


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"kind": "term", "percent_off": "10"}, "10% off"),
        ({"kind": "term", "percent_off": "7.50", "keys": ["output_mtok"]}, "7.5% off output"),
        ({"kind": "override", "model": "m", "prices": {"output_mtok": "10", "input_mtok": "2.5"}},
         "$2.50 input, $10.00 output"),
        ({"kind": "override", "model": "m", "prices": {"input_mtok": "2"}, "currency": "EUR"}, "2.00 EUR input"),
        ({"kind": "fx_rate", "currency": "EUR", "usd_per_unit": "1.08"}, "1 EUR = $1.08"),
        ({"kind": "charge", "name": "support", "type": "fee", "amount_usd": "500"}, "$500.00 a month"),
        ({"kind": "charge", "name": "v", "type": "volume", "tiers": [{"above_usd": "1000", "percent_off": "5"}]},
         "5% above $1,000.00"),
    ],
)  # fmt: skip
def test_an_entry_is_told_in_a_few_words(told, text):
    assert entry_words(read({"effective_from": "2026-11-01", "source": "contract", **told})) == text


@pytest.mark.parametrize(
    "told",
    [{}, {"start": "2026-11-01"}, {"start": "2026-11-03", "through": "2026-11-01"}, {"start": "x", "through": "y"},
     {"start": "1970-01-01", "through": "2026-11-01"}, {"start": "2026-11-01", "through": "9999-12-31"}],
)  # fmt: skip
def test_a_repricing_of_no_days_is_refused(told):
    with pytest.raises(ValueError, match=r"From|Through"):
        Plan.of(told)


def test_a_repricing_holds_its_last_day_and_is_told_as_it_was_asked():
    told = {"start": "2026-11-01", "through": "2026-11-01", "model": "gpt-4o"}
    plan = Plan.of(told)
    assert plan.period.end - plan.period.start == DAY
    assert plan.told == told


# ---- the callbacks, which anybody may send


CALL = {"provider": "openai", "model": "acme-ft-1", "request_model": "acme-ft-1", "team": "ads",
        "input_tokens": 1_000_000, "output_tokens": 1000, "cache_read_tokens": 0}  # fmt: skip
STORED = (
    {"span_id": 1, "started_at": NOW - 3 * DAY, **CALL},
    {"span_id": 2, "started_at": NOW - timedelta(minutes=5), **CALL},
    {"span_id": 3, "started_at": NOW - timedelta(minutes=5), **CALL, "model": "gpt-4o", "request_model": "gpt-4o"},
)
LIKE = {"provider": "openai", "model": "acme-ft-1", "like": "openai/gpt-4o"}


@pytest.fixture
def warehouse(priced_calls) -> Warehouse:
    return priced_calls(*STORED)


def act(client, do: str, told=None) -> tuple[str, str | None]:
    """What is said after an act, and where it leads."""
    answer = callback(client, "prices-answer", do={"do": do, "told": told or {}, "at": 1})
    return words(answer["prices-answer"]["children"]), answer["prices-changed"]["data"]["go"]


def carry_out(warehouse) -> None:
    """Do the repricings that were asked for, as the product does in a thread of its own."""
    for run in warehouse.control.repricings(DEFAULT_TENANT, unfinished=True):
        assert list(repricing.apply(warehouse, run))


def shown(client, output: str, **told) -> str:
    """The words of an output."""
    name, _, prop = output.partition(".")
    return words(callback(client, output, **told)[name][prop])


PARTS = ("find-body.children", "entries-body.children", "unpriced-body.children", "repricings-body.children",
         "prices-drawer.children")  # fmt: skip
ASKED = ("", "?v=9", "%%%", "x" * 9000, "price?model=", "run?id=-1", "entry?id=x", "add?kind=x", "\ud800",
         "reprice?start=9999-99-99", "price?provider=%00&model=\ud800", 7, None, ["x"])  # fmt: skip


def test_every_part_answers_whatever_is_asked(operator):
    for output, told in product(PARTS, ASKED):
        callback(operator, output, scope=told if isinstance(told, str) else None, text=told, open=told)


SENT = (None, [], "x", 7, {"do": []}, {"kind": 1, "do": "add", "told": [1]}, {"start": "\0"},
        {"do": "undo", "told": {"id": "\u0663"}}, {"do": "retire", "told": {"id": 10**30}},
        {"do": "price_like", "told": {"model": "\ud800", "like": "\ud800"}})  # fmt: skip


def test_every_form_is_read_whatever_is_sent(operator):
    for output, told in product(
        ("prices-effect.children", "prices-difference.children", "prices-answer.children"), SENT
    ):
        callback(operator, output, draft=told, plan=told, do=told)


def test_who_may_only_read_changes_nothing(client, warehouse):
    reader = client("read")
    for do in ACTS:
        said, there = act(reader, do, {**FORM, **LIKE, "id": "1", "start": "2026-11-01", "through": "2026-11-02"})
        assert "may read prices, not change them" in said
        assert there is None
    assert warehouse.control.prices(DEFAULT_TENANT) == []
    assert warehouse.control.repricings(DEFAULT_TENANT) == []


def test_who_may_only_read_is_offered_nothing_to_change(client):
    reader = client("read")
    assert every(callback(reader, "entries-add")["entries-add"]["children"], "href") == []
    for output in ("unpriced-body.children", "repricings-body.children"):
        found = callback(reader, output)
        assert "data-do" not in json.dumps(found)
    assert "An operator can add its price" in shown(reader, "unpriced-body.children", scope="?v=1&p=7d")
    opened = callback(reader, "prices-drawer", open="price?provider=openai&model=gpt-4o")
    assert "Set your own price" not in json.dumps(opened)


def test_what_has_no_price_is_priced_like_another_from_its_first_call_on(operator, warehouse):
    assert "acme-ft-1" in shown(operator, "unpriced-body.children", scope="?v=1&p=7d")
    said, _ = act(operator, "price_like", LIKE)
    assert "acme-ft-1 is priced like openai/gpt-4o" in said
    (entry,) = [one for _, one in warehouse.control.prices(DEFAULT_TENANT)]
    assert (entry.like, entry.model, entry.provider) == ("openai/gpt-4o", "acme-ft-1", "openai")
    assert entry.effective_from == (NOW - 3 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    carry_out(warehouse)
    assert unpriced(warehouse, DEFAULT_TENANT, Period(NOW - 30 * DAY, NOW + DAY)) == []
    assert "All is priced" in shown(operator, "unpriced-body.children", scope="?v=1&p=7d")
    assert "as openai/gpt-4o" in shown(operator, "entries-body.children")

    run = warehouse.control.repricings(DEFAULT_TENANT)[0]
    assert "done" in shown(operator, "repricings-body.children")
    _, there = act(operator, "undo", {"id": run.id})
    carry_out(warehouse)
    assert f"undid {run.id}" in shown(operator, "repricings-body.children")
    assert Place.parse(there).opened["id"] == str(run.id + 1)
    assert "Price these calls" in shown(operator, "unpriced-body.children", scope="?v=1&p=7d")


def test_a_price_like_nothing_is_refused(operator, warehouse):
    for told, says in (
        ({**LIKE, "like": "no/such-model"}, "no/such-model"),
        ({**LIKE, "like": ""}, "names no list"),
        ({**LIKE, "model": "gpt-4o"}, "has no unpriced calls any more"),
        ({}, "has no unpriced calls any more"),
    ):
        said, there = act(operator, "price_like", told)
        assert says in said
        assert there is None
    assert warehouse.control.prices(DEFAULT_TENANT) == []
    assert warehouse.control.repricings(DEFAULT_TENANT) == []


def test_a_form_shows_its_effect_is_saved_and_offers_to_price_the_past(operator, warehouse):
    form = {**FORM, "model": "gpt-4o", "provider": "openai", "input_mtok": "2", "effective_from": "2026-01-01"}
    effect = shown(operator, "prices-effect.children", draft=form)
    assert "Input" in effect
    assert "$2.50 → $2.00" in effect.replace("  ", " ")
    assert warehouse.control.prices(DEFAULT_TENANT) == []
    said, there = act(operator, "add", form)
    assert "gpt-4o of OpenAI, $2.00 input, $10.00 output" in said
    place = Place.parse(there)
    assert place.opened.kind == "reprice"
    plan = callback(operator, "prices-drawer.children", open=place.opened.written)
    assert "Reprice stored calls" in words(plan["prices-drawer"]["children"])
    told = {"start": f"{NOW - 5 * DAY:%Y-%m-%d}", "through": f"{NOW:%Y-%m-%d}", "model": "gpt-4o"}
    difference = shown(operator, "prices-difference.children", plan=told)
    assert "ads" in difference
    assert "Apply to 1 calls" in difference
    assert "your price" in shown(operator, "find-body.children", text="gpt-4o")
    history = shown(operator, "prices-drawer.children", open="price?provider=openai&model=gpt-4o")
    assert "Your price" in history

    said, _ = act(operator, "retire", {"id": "1"})
    assert "is retired" in said
    assert "None yet" in shown(operator, "entries-body.children")
    assert "Retired at" in shown(operator, "prices-drawer.children", open="entry?id=1")
    assert "There is no live entry 1" in act(operator, "retire", {"id": "1"})[0]


def test_a_form_that_cannot_be_saved_is_not(operator, warehouse):
    said, there = act(operator, "add", {**FORM, "source": " "})
    assert "Source is missing" in said
    assert there is None
    assert "Source is missing" in shown(operator, "prices-effect.children", draft={**FORM, "source": " "})
    assert warehouse.control.prices(DEFAULT_TENANT) == []


def test_a_private_model_is_found_by_its_name(operator, warehouse):
    warehouse.control.add_prices([entry_of({**FORM, "provider": "acme"})], DEFAULT_TENANT, "test")
    assert "$2.50" in shown(operator, "find-body.children", text="acme 7b")
    assert "Nothing" not in shown(operator, "prices-drawer.children", open="price?provider=acme&model=acme-7b")


def test_a_history_tells_each_price_once(operator, warehouse):
    term = {"kind": "term", "percent_off": "10", "effective_from": "2026-11-01", "source": "contract"}
    own = {**FORM, "model": "gpt-4o", "provider": "openai", "effective_from": "2026-10-01", "cache_write_mtok": "3"}
    other = {**own, "effective_from": "2026-11-01", "cache_write_mtok": "4"}  # which is not drawn
    entries = [read(term), entry_of({**own, "effective_to": "2026-11-01"}), entry_of(other)]
    warehouse.control.add_prices(entries, DEFAULT_TENANT, "test")
    opened = callback(operator, "prices-drawer.children", open="price?provider=openai&model=gpt-4o")
    told = words(opened["prices-drawer"]["children"])
    assert told.count("1 Oct 2026 in force") == 1
    assert "1 Nov 2026" not in told
    assert "you pay $2.25" in told


def test_an_update_that_changes_the_past_waits_for_a_yes_and_shows_its_effect(client, operator, warehouse):
    dearer = [
        replace(
            one, cells=tuple(replace(cell, prices={**cell.prices, "input_mtok": Decimal(3)}) for cell in one.cells)
        ) if (one.provider, one.model, one.variant) == ("openai", "gpt-4o", ()) else one
        for one in bundled.entries()
    ]  # fmt: skip
    assert "Up to date" in shown(operator, "pricedata-body.children")
    warehouse.prices = Prices(warehouse.control, "genai-prices 9.9.9", dearer)
    told = shown(client("read"), "pricedata-body.children")
    assert "genai-prices 9.9.9 waits : it changes past prices of 1 model" in told
    assert "gpt-4o input" in told
    assert "$2.50 → $3.00" in told
    assert "Take the update" not in told
    assert "Take the update" in shown(operator, "pricedata-body.children")

    plan = {"start": f"{NOW - 5 * DAY:%Y-%m-%d}", "through": f"{NOW:%Y-%m-%d}", "update": "1"}
    effect = shown(operator, "prices-difference.children", plan=plan)
    assert "gpt-4o" in effect
    assert "Apply" not in effect
    before = warehouse.prices.version(DEFAULT_TENANT)
    said, there = act(operator, "accept")
    assert "genai-prices 9.9.9 is in force. Stored amounts stay as they are" in said
    assert Place.parse(there).opened.kind == "reprice"
    assert warehouse.prices.version(DEFAULT_TENANT) == "genai-prices 9.9.9" != before
    assert "Apply to 1 calls" in shown(operator, "prices-difference.children", plan=plan)
    assert act(operator, "accept")[0] == "No update is waiting."
