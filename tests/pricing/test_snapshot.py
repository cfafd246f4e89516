"""What was kept of price data is it, digit by digit, and every price of the past that an update tells differently."""

import gzip
import json
import time as clock
from dataclasses import fields, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.pricing.rates import Cell, Entry
from millicent.pricing.snapshot import additions, changes, merged, pack, unpack

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
BUNDLED = tuple(bundled.entries())
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FREE = {"input_mtok": Decimal(0), "output_mtok": Decimal(0)}


def us(*when):
    return (datetime(*when, tzinfo=UTC) - EPOCH) // US


def listing(*prices, variant=(), **shape):
    """The price list of acme/one, with a mapping of prices for each cell."""
    axes = {"dates": (), "clocks": (), "sizes": (), **shape}
    cells = tuple(
        Cell(f"acme/one {at}", {key: Decimal(price) for key, price in told.items()}) for at, told in enumerate(prices)
    )
    return Entry("acme", "one", variant, cells=cells, **axes)


# ---- packed


def test_the_bundled_data_comes_back_as_it_was():
    assert unpack(pack(BUNDLED)) == BUNDLED
    assert pack(BUNDLED) == pack(unpack(pack(BUNDLED)))
    assert len(pack(BUNDLED)) < 200_000


def test_bytes_tell_nothing_of_when_they_were_packed():
    seconds = pack([])[4:8]  # RFC 1952: MTIME
    assert seconds == bytes(4)


def test_every_member_and_every_digit_of_a_price_is_kept():
    full = listing(
        {"input_mtok": "0.0000375", "web_searches_kcount": "10.00"},
        {"input_mtok": "1E-18"},
        variant=("processing=batch", "speed=fast"),
        dates=(us(2026, 7, 1),),
        name="One – “ünö”",
        sources=("https://acme.example/prices",),
        note="per region",
    )
    assert all(getattr(full, field.name) for field in fields(Entry) if field.name not in {"clocks", "sizes"})
    (back,) = unpack(pack([full]))
    assert back == full
    assert [str(price) for cell in back.cells for price in cell.prices.values()] == ["0.0000375", "10.00", "1E-18"]


def test_a_book_of_unpacked_entries_prices_as_the_book_that_was_packed():
    calls = pl.DataFrame(
        [
            {"provider": each.provider, "model": each.model, "started_at": NOW, "input_tokens": 300_001,
             "cache_read_tokens": 17, "output_tokens": 401, "service_tier": tier}
            for each in BUNDLED for tier in (None, "batch", "flex")
        ],
        schema_overrides={"service_tier": pl.String},
    )  # fmt: skip
    kept = PriceBook(bundled.VERSION, unpack(pack(BUNDLED)))
    assert kept.price(calls).equals(PriceBook.bundled().price(calls))


@pytest.mark.parametrize("damage", [b"", b"{}", pack([])[:-9], gzip.compress(b"\xff")])
def test_damaged_bytes_are_refused(damage):
    with pytest.raises(ValueError, match="no packed price data: take them from a backup"):
        unpack(damage)


def test_a_later_format_is_refused():
    with pytest.raises(ValueError, match="format 2, where 1 is read: update Millicent"):
        unpack(gzip.compress(json.dumps({"format": 2, "entries": []}).encode()))


# ---- what differs


def told(each):
    return {name: getattr(each, name) for name in each.__slots__ if getattr(each, name) not in {None, ()}}


def test_a_price_that_is_the_same_is_no_change_and_a_new_model_is_an_addition():
    one, same = listing({"input_mtok": "2.5"}), listing({"input_mtok": "2.50"}, name="One", note="reworded")
    other = replace(one, model="two")
    assert changes([one], [same, other], NOW) == []
    assert additions([one], [same, other, replace(other, variant=("speed=fast",))]) == [("acme", "two")]
    assert changes(BUNDLED, BUNDLED, NOW) == []


def test_a_price_that_changes_from_now_on_does_not_change_the_past():
    old = listing({"input_mtok": "2"})
    new = listing({"input_mtok": "2"}, {"input_mtok": "1"}, dates=(us(2026, 11, 25, 9),))
    assert changes([old], [new], datetime(2026, 11, 25, 9, tzinfo=UTC)) == []
    (one,) = changes([old], [new], datetime(2026, 11, 25, 9, 0, 0, 1, tzinfo=UTC))
    assert told(one) == {
        "provider": "acme", "model": "one", "key": "input_mtok", "old": 2, "new": 1,
        "effective_from": datetime(2026, 11, 25, 9, tzinfo=UTC),
    }  # fmt: skip


def test_a_start_date_that_is_moved_changes_the_days_between():
    old = listing({"input_mtok": "2"}, {"input_mtok": "1"}, dates=(us(2026, 7, 30),))
    new = replace(old, dates=(us(2026, 7, 9),))
    (one,) = changes([old], [new], NOW)
    assert (one.effective_from, one.effective_to) == (
        datetime(2026, 7, 9, tzinfo=UTC),
        datetime(2026, 7, 30, tzinfo=UTC),
    )
    assert (one.old, one.new) == (2, 1)


def test_history_that_an_update_overwrites_is_seen():
    """pydantic/genai-prices#531: a routine update priced three weeks of calls anew."""
    old = listing({"input_mtok": "0.25", "output_mtok": "2"})
    new = listing({"input_mtok": "0.05", "output_mtok": "0.4"})
    assert [(one.key, one.old, one.new, one.effective_from) for one in changes([old], [new], NOW)] == [
        ("input_mtok", Decimal("0.25"), Decimal("0.05"), None),
        ("output_mtok", Decimal(2), Decimal("0.4"), None),
    ]


def test_one_change_covers_neighbouring_dates_times_and_sizes():
    old = listing(*[{"input_mtok": "1"}] * 12, dates=(us(2026, 1, 1),), clocks=(HOUR_US, 2 * HOUR_US), sizes=(200_000,))
    new = listing({"input_mtok": "3"})
    (one,) = changes([old], [new], NOW)
    assert told(one) == {"provider": "acme", "model": "one", "key": "input_mtok", "old": 1, "new": 3}


def test_a_change_at_certain_hours_and_sizes_says_so():
    base, night, large = {"input_mtok": "1"}, {"input_mtok": "0.5"}, {"input_mtok": "2"}
    old = listing(base, large, night, large, base, large, clocks=(HOUR_US, 3 * HOUR_US), sizes=(200_000,))
    new = listing(base, large, base, large, base, large, clocks=(HOUR_US, 3 * HOUR_US), sizes=(200_000,))
    (one,) = changes([old], [new], NOW)
    assert (one.daily_from, one.daily_to, one.above, one.up_to) == (time(1), time(3), None, 200_000)
    (long,) = changes([replace(old, clocks=(HOUR_US, 23 * HOUR_US))], [new], NOW)
    assert (long.daily_from, long.daily_to) == (time(1), time(23))


def test_hours_of_a_day_that_has_not_come_so_far_are_no_past():
    old = listing(*[{"input_mtok": "1"}] * 4, dates=(us(2026, 11, 25),), clocks=(18 * HOUR_US,))
    new = listing(*[{"input_mtok": "1"}] * 3, {"input_mtok": "9"}, dates=(us(2026, 11, 25),), clocks=(18 * HOUR_US,))
    assert changes([old], [new], datetime(2026, 11, 25, 18, tzinfo=UTC)) == []
    assert len(changes([old], [new], datetime(2026, 11, 25, 18, 1, tzinfo=UTC))) == 1


def test_a_stretch_over_midnight_has_the_first_hour_of_the_next_day():
    at_ten = us(2026, 11, 24, 22)
    old = listing(*[{"input_mtok": "1"}] * 4, dates=(at_ten,), clocks=(HOUR_US,))
    new = listing(
        *[{"input_mtok": "1"}] * 2, {"input_mtok": "9"}, {"input_mtok": "1"}, dates=(at_ten,), clocks=(HOUR_US,)
    )
    assert changes([old], [new], datetime(2026, 11, 25, tzinfo=UTC)) == []
    (one,) = changes([old], [new], datetime(2026, 11, 25, 2, tzinfo=UTC))
    assert (one.effective_from, one.daily_from, one.daily_to) == (EPOCH + at_ten * US, time(0), time(1))
    assert changes([old], [new], EPOCH + at_ten * US) == []


def test_a_variant_that_one_side_lacks_is_compared_with_standard_prices():
    standard = listing({"input_mtok": "2"})
    batch = listing({"input_mtok": "1"}, variant=("processing=batch",))
    (lost,) = changes([standard, batch], [standard], NOW)
    assert (lost.variant, lost.old, lost.new) == (("processing=batch",), 1, 2)
    (got,) = changes([standard], [standard, batch], NOW)
    assert (got.variant, got.old, got.new) == (("processing=batch",), 2, 1)


def test_a_context_that_one_side_knows_in_part_is_compared_by_what_it_knows():
    standard, batch, flex, both = (
        listing({"input_mtok": price}, variant=variant)
        for price, variant in [
            ("4", ()),
            ("2", ("processing=batch",)),
            ("3", ("service_tier=flex",)),
            ("1", ("processing=batch", "service_tier=flex")),
        ]
    )
    found = changes([standard, batch], [standard, batch, flex, both], NOW)
    assert [(one.variant, one.old, one.new) for one in found] == [
        (("service_tier=flex",), 4, 3),
        (("processing=batch", "service_tier=flex"), 2, 1),
    ]
    swapped = changes([standard, batch], [standard, flex], NOW)
    assert [(one.variant, one.old, one.new) for one in swapped] == [
        (("processing=batch",), 2, 4),
        (("service_tier=flex",), 4, 3),
        (("processing=batch", "service_tier=flex"), 2, 3),
    ]


def test_a_model_that_is_gone_has_no_price_any_more():
    assert [(one.key, one.old, one.new) for one in changes([listing({"input_mtok": "2"})], [], NOW)] == [
        ("input_mtok", 2, None)
    ]
    assert [(one.key, one.old, one.new) for one in changes([listing({})], [], NOW)] == [
        ("input_mtok", 0, None),
        ("output_mtok", 0, None),
    ]


def test_an_instant_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="without a time zone"):
        changes([], [], datetime(2026, 11, 25))  # noqa: DTZ001


def test_all_models_are_compared_in_two_seconds():
    dearer = [
        replace(
            each,
            cells=tuple(Cell(c.label, {key: price * 2 for key, price in c.prices.items()}) for c in each.cells),
        )
        for each in BUNDLED
    ]
    begun = clock.process_time()
    found = changes(BUNDLED, dearer, NOW)
    assert clock.process_time() - begun < 2
    assert len({(one.provider, one.model) for one in found}) > 2_000


# ---- against brute force


HOURS = st.lists(st.integers(1, 23), max_size=2, unique=True).map(
    lambda hours: tuple(h * HOUR_US for h in sorted(hours))
)
DAYS = st.lists(st.integers(0, 5), max_size=3, unique=True)
SIZES = st.lists(st.sampled_from([10, 20, 30]), max_size=2, unique=True).map(lambda sizes: tuple(sorted(sizes)))
PRICES = st.dictionaries(st.sampled_from(["input_mtok", "output_mtok"]), st.sampled_from("012"), max_size=2)


@st.composite
def listings(draw):
    """A price list over a few days, in which dates need not be midnights."""
    dates = tuple(
        us(2026, 11, 20) + day * DAY_US + draw(st.sampled_from([0, 0, 7 * HOUR_US])) for day in sorted(draw(DAYS))
    )
    clocks, sizes = draw(HOURS), draw(SIZES)
    cells = (len(dates) + 1) * (len(clocks) + 1) * (len(sizes) + 1)
    return listing(*draw(st.lists(PRICES, min_size=cells, max_size=cells)), dates=dates, clocks=clocks, sizes=sizes)


def price_at(entry, key, instant_us, tokens):
    """As the book finds it: by counting boundaries one after another."""
    date = sum(instant_us >= each for each in entry.dates)
    time_of_day = sum(instant_us % DAY_US >= each for each in entry.clocks)
    size = sum(tokens > each for each in entry.sizes)
    at = (date * (len(entry.clocks) + 1) + time_of_day) * (len(entry.sizes) + 1) + size
    return (entry.cells[at].prices or FREE).get(key)


def says(change, instant, tokens):
    begins, ends = change.daily_from or time(), change.daily_to or time()
    return (
        (change.effective_from is None or change.effective_from <= instant)
        and (change.effective_to is None or instant < change.effective_to)
        and begins <= instant.time()
        and (ends == time() or instant.time() < ends)
        and (change.above is None or tokens > change.above)
        and (change.up_to is None or tokens <= change.up_to)
    )


@settings(deadline=None, max_examples=80)
@given(listings(), listings(), st.integers(0, 6 * 24))
def test_at_every_instant_and_size_exactly_one_change_says_what_differs(old, new, hours):
    before = datetime(2026, 11, 19, 12, tzinfo=UTC) + timedelta(hours=hours)
    found = changes([old], [new], before)
    seen = set()
    bounds = {*old.dates, *new.dates, us(2026, 11, 10), (before - EPOCH) // US}
    instants = {bound + days * DAY_US for bound in bounds for days in (-1, 0, 1)}
    instants |= {instant - instant % DAY_US + hour for instant in instants for hour in (0, *old.clocks, *new.clocks)}
    for at in {instant + off for instant in instants for off in (-1, 0, 1)}:
        instant = EPOCH + at * US
        if instant >= before:
            continue
        for tokens in (0, 10, 11, 20, 21, 30, 31):
            for key in ("input_mtok", "output_mtok"):
                here = [one for one in found if one.key == key and says(one, instant, tokens)]
                pair = (price_at(old, key, at, tokens), price_at(new, key, at, tokens))
                assert [(one.old, one.new) for one in here] == ([pair] if pair[0] != pair[1] else [])
                seen.update(here)
    assert seen == set(found)


# ---- merged


def test_held_models_stay_as_they_were_with_their_variants():
    old = [listing({"input_mtok": "2"}), listing({"input_mtok": "1"}, variant=("processing=batch",))]
    new = [replace(old[0], model="two"), listing({"input_mtok": "9"}), replace(old[0], model="three")]
    assert merged(old, new, {("acme", "one")}) == (new[0], *old, new[2])
    assert merged(old, new, set()) == tuple(new)


def test_a_held_model_that_is_gone_is_kept():
    old, two = listing({"input_mtok": "2"}), replace(listing({"input_mtok": "2"}), model="two")
    assert merged([old], [two], {("acme", "one")}) == (two, old)


def test_a_held_model_that_the_installed_data_has_no_more_is_priced():
    gone = replace(listing({"input_mtok": "2"}), provider="openai", model="gpt-retired")
    calls = pl.DataFrame({"provider": ["openai", "openai", "azure"], "model": ["gpt-retired", "gpt-r", "gpt-retired"],
                          "started_at": NOW, "input_tokens": 1_000, "output_tokens": 0})  # fmt: skip
    book = PriceBook("held", merged([gone], BUNDLED, {("openai", "gpt-retired")}))
    assert book.price(calls)["list_cost_usd"].to_list() == [Decimal("0.002"), None, None]


def test_holding_every_model_that_changed_leaves_no_change():
    new = [
        replace(each, cells=tuple(Cell(c.label, {"input_mtok": Decimal(1)}) for c in each.cells)) for each in BUNDLED
    ]
    held = {(one.provider, one.model) for one in changes(BUNDLED, new, NOW)}
    assert changes(BUNDLED, merged(BUNDLED, new, held), NOW) == []


def test_what_was_never_accepted_cannot_be_held():
    with pytest.raises(ValueError, match="acme/one cannot be held"):
        merged([], [listing({})], {("acme", "one")})
