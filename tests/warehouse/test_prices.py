"""The price book of a tenant: what updates of bundled prices may do by themselves, and what waits for a yes."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.pricing.entries import Charge, FxRate, Override, Term
from millicent.pricing.rates import Cell, Entry
from millicent.warehouse import price_data
from millicent.warehouse.control import Control, audit, tenants
from millicent.warehouse.prices import Prices

BUNDLED = tuple(bundled.entries())
OLD, NEW, NEWER = "genai-prices 0.2.3", "genai-prices 0.2.4", "genai-prices 0.2.5"
JULY = datetime(2026, 7, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
FUTURE = datetime.now(UTC) + timedelta(days=3650)
DEAR, OTHER = ("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5")


def with_prices(entries: Iterable[Entry], model: tuple[str, str], factor: int, since: datetime | None = None):
    """`entries` where the standard prices of a model are `factor` times what they were, from `since` on."""
    for entry in entries:
        if (entry.provider, entry.model) != model or entry.variant:
            yield entry
            continue
        dearer = tuple(
            Cell(f"{cell.label} x{factor}", {key: price * factor for key, price in cell.prices.items()})
            for cell in entry.cells
        )
        if since is None:
            yield replace(entry, cells=dearer)
        else:
            last = len(entry.cells) // (len(entry.dates) + 1)
            dates = (*entry.dates, (since - EPOCH) // US)
            yield replace(entry, dates=dates, cells=(*entry.cells, *dearer[-last:]))


def without(entries: Iterable[Entry], model: tuple[str, str]):
    return (entry for entry in entries if (entry.provider, entry.model) != model)


def usage(model: tuple[str, str] = DEAR, at: datetime = JULY, tenant: str = "acme", **told) -> dict:
    return {"tenant": tenant, "provider": model[0], "model": model[1], "started_at": at, "input_tokens": 1000,
            "output_tokens": 100, **told}  # fmt: skip


def frame(*usages: dict) -> pl.DataFrame:
    return pl.DataFrame(list(usages), schema_overrides={"started_at": pl.Datetime("us", "UTC")})


def cost(prices: Prices | PriceBook, *args, **told) -> Decimal | None:
    return prices.price(frame(usage(*args, **told)))["list_cost_usd"][0]


@pytest.fixture
def control(tmp_path):
    opened = Control(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def two_tenants(control):
    with control.begin() as connection:
        connection.execute(tenants.insert(), [{"id": name, "name": name} for name in ("acme", "rival")])


def taken(control) -> list[tuple[str, str | None]]:
    with control.begin() as connection:
        c = price_data.price_updates.c
        return [tuple(row) for row in connection.execute(select(c.version, c.actor).order_by(c.id))]


def test_a_new_installation_prices_by_what_is_bundled(control):
    prices = Prices(control)
    assert prices.pending() is None
    assert prices.accept("ann") is None
    assert prices.version("acme") == prices.base().version == bundled.VERSION
    usages = frame(usage(), usage(OTHER), usage(model=("openai", "no-such-model")))
    assert prices.price(usages).equals(PriceBook.bundled().price(usages))
    assert prices.price(usages.head(0)).equals(PriceBook.bundled().price(usages.head(0)))
    assert taken(control) == [(bundled.VERSION, None)]


def test_a_usage_without_a_tenant_is_not_priced(control):
    prices = Prices(control, OLD, BUNDLED)
    for wrong in (frame(usage()).drop("tenant"), frame(usage(), usage(tenant=None))):
        with pytest.raises(ValueError, match="each tenant has a price book of its own"):
            prices.price(wrong)


# Updates of the bundled prices.


def test_dated_future_changes_and_new_models_are_taken_at_once(control):
    before = Prices(control, OLD, without(BUNDLED, OTHER))
    now = cost(before)
    after = Prices(control, NEW, with_prices(BUNDLED, DEAR, 3, FUTURE))
    assert after.pending() is None
    assert after.version("acme") == NEW
    assert cost(after) == now
    assert (cost(after, at=FUTURE - US), cost(after, at=FUTURE)) == (now, 3 * now)
    assert cost(after, OTHER) == cost(PriceBook.bundled(), OTHER) > 0
    assert taken(control) == [(OLD, None), (NEW, None)]
    with control.begin() as connection:
        told = connection.execute(select(audit.c.action, audit.c.detail)).one()
    assert tuple(told) == ("price.update", {"from": OLD, "to": NEW, "held": []})


def test_an_update_that_would_change_the_past_waits_for_a_yes_and_history_does_not_move(control):
    old = Prices(control, OLD, without(BUNDLED, ("openai", "gpt-4o-mini")))
    before, others = cost(old), cost(old, OTHER)
    update = tuple(with_prices(with_prices(BUNDLED, DEAR, 2), OTHER, 5, FUTURE))
    prices = Prices(control, NEW, update)

    pending = prices.pending()
    assert (pending.version_from, pending.version_to) == (OLD, NEW)
    assert pending.models == (DEAR,)
    assert pending.additions == (("openai", "gpt-4o-mini"),)
    assert all(change.new == 2 * change.old for change in pending.changes if change.old is not None)
    assert prices.version("acme") == f"{NEW}, 1 held at 0.2.3"
    assert cost(prices) == cost(prices, at=datetime.now(UTC)) == before
    assert (cost(prices, OTHER), cost(prices, OTHER, at=FUTURE)) == (others, 5 * others)
    assert cost(prices, ("openai", "gpt-4o-mini")) is not None
    assert cost(prices.proposed("acme")) == 2 * before
    assert cost(prices) == before

    assert prices.accept("ann") == pending
    assert prices.pending() is None
    assert (prices.version("acme"), cost(prices)) == (NEW, 2 * before)
    assert prices.accept("bob") is None
    assert taken(control) == [(OLD, None), (f"{NEW}, 1 held at 0.2.3", None), (NEW, "ann")]
    by_version = {version: cost(prices.of_version("acme", version)) for version, _ in taken(control)}
    assert by_version == {OLD: before, f"{NEW}, 1 held at 0.2.3": before, NEW: 2 * before}


def test_opening_again_takes_nothing_twice_and_keeps_what_is_held(control):
    Prices(control, OLD, BUNDLED)
    update = tuple(with_prices(BUNDLED, DEAR, 2))
    for _ in range(3):
        prices = Prices(control, NEW, update)
        assert prices.version("acme") == f"{NEW}, 1 held at 0.2.3"
        assert prices.pending().models == (DEAR,)
    prices.accept("ann")
    assert Prices(control, NEW, update).pending() is None
    assert [version for version, _ in taken(control)] == [OLD, f"{NEW}, 1 held at 0.2.3", NEW]


def test_models_are_held_over_several_updates_each_at_its_own_version(control):
    old = Prices(control, OLD, BUNDLED)
    before, others = cost(old), cost(old, OTHER)
    Prices(control, NEW, with_prices(BUNDLED, DEAR, 2))
    prices = Prices(control, NEWER, with_prices(with_prices(BUNDLED, DEAR, 3), OTHER, 7))
    assert prices.version("acme") == f"{NEWER}, 1 held at 0.2.3, 1 held at 0.2.4"
    assert set(prices.pending().models) == {DEAR, OTHER}
    assert prices.pending().version_from == OLD
    assert (cost(prices), cost(prices, OTHER)) == (before, others)
    back = Prices(control, OLD, BUNDLED)
    assert (back.pending(), back.version("acme")) == (None, OLD)


def test_a_model_that_an_update_no_longer_has_keeps_its_past_prices(control):
    before = cost(Prices(control, OLD, BUNDLED))
    prices = Prices(control, NEW, without(BUNDLED, DEAR))
    assert cost(prices) == before
    assert {change.new for change in prices.pending().changes} == {None}
    prices.accept("ann")
    assert cost(prices) is None


def test_other_data_under_a_version_that_is_known_gets_a_name_of_its_own(control):
    before = cost(Prices(control, OLD, BUNDLED))
    prices = Prices(control, OLD, with_prices(BUNDLED, DEAR, 2))
    assert prices.pending().models == (DEAR,)
    assert prices.version("acme").startswith(f"{OLD} (")
    prices.accept("ann")
    named = prices.version("acme")
    assert named.startswith(f"{OLD} (")
    assert (cost(prices), cost(prices.of_version("acme", OLD))) == (2 * before, before)
    assert Prices(control, OLD, with_prices(BUNDLED, DEAR, 2)).version("acme") == named


def test_what_one_process_accepts_the_others_price_by(control, tmp_path):
    Prices(control, OLD, BUNDLED)
    update = tuple(with_prices(BUNDLED, DEAR, 2))
    here = Prices(control, NEW, update)
    before = cost(here)
    other = Control(tmp_path / "data")
    Prices(other, NEW, update).accept("ann")
    assert cost(here) == 2 * before
    assert here.version("acme") == NEW
    assert here.pending() is None
    other.close()


def test_what_was_known_then_prices_as_it_did_then(control):
    Prices(control, OLD, BUNDLED)
    first = datetime.now(UTC)
    prices = Prices(control, NEW, with_prices(BUNDLED, DEAR, 2))
    held = datetime.now(UTC)
    prices.accept("ann")
    known = [prices.book("acme", at) for at in (EPOCH, first, held, datetime.now(UTC), None)]
    assert [book.version for book in known] == [OLD, OLD, f"{NEW}, 1 held at 0.2.3", NEW, NEW]
    before = cost(known[0])
    assert [cost(book) for book in known] == [before, before, before, 2 * before, 2 * before]
    with pytest.raises(ValueError, match="has no time zone"):
        prices.book("acme", datetime(2026, 7, 1))  # noqa: DTZ001 - the point of the case


MINI, DATED = ("openai", "gpt-4o-mini"), ("openai", "gpt-4o-2024-11-20")
FOUND = bundled.find


def find_mini(provider, model, host):
    return (
        replace(FOUND(provider, model, host), model="gpt-4o-mini")
        if model == DATED[1]
        else FOUND(provider, model, host)
    )


def test_a_name_that_an_update_takes_for_another_model_keeps_its_price_until_a_yes(control, monkeypatch):
    old = Prices(control, OLD, BUNDLED)
    before, mini = cost(old, DATED), cost(old, MINI)
    assert before == cost(old) != mini
    monkeypatch.setattr(bundled, "find", find_mini)
    for _ in range(2):
        prices = Prices(control, NEW, BUNDLED)
        assert prices.version("acme") == f"{NEW}, 1 name held"
        assert [cost(prices, model) for model in (DATED, DEAR, MINI)] == [before, before, mini]
    assert prices.pending().models == (DEAR,)
    assert {change.key for change in prices.pending().changes} >= {"input_mtok", "output_mtok"}
    assert cost(prices.proposed("acme"), DATED) == mini
    prices.accept("ann")
    assert (prices.version("acme"), prices.pending()) == (NEW, None)
    assert [cost(prices, model) for model in (DATED, DEAR, MINI)] == [mini, before, mini]
    assert cost(prices.of_version("acme", OLD), DATED) == before
    assert cost(prices.of_version("acme", f"{NEW}, 1 name held"), DATED) == before
    assert Prices(control, NEW, BUNDLED).version("acme") == NEW


def test_names_that_nobody_used_or_that_move_to_the_same_prices_hold_nothing_back(control, monkeypatch):
    others = [entry for entry in BUNDLED if (entry.provider, entry.model) != MINI]
    twins = [replace(entry, model=MINI[1]) for entry in others if (entry.provider, entry.model) == DEAR]
    old = Prices(control, OLD, [*others, *twins])
    before = cost(old, DATED)
    monkeypatch.setattr(bundled, "find", find_mini)
    prices = Prices(control, NEW, [*others, *twins])
    assert (prices.version("acme"), cost(prices, DATED)) == (NEW, before)


def test_names_that_nobody_priced_hold_nothing_back(control, monkeypatch):
    old = Prices(control, OLD, BUNDLED)
    assert cost(old) is not None
    monkeypatch.setattr(bundled, "find", find_mini)
    assert Prices(control, NEW, BUNDLED).version("acme") == NEW


factors = st.dictionaries(st.sampled_from((DEAR, OTHER, ("openai", "gpt-4o-mini"))), st.integers(1, 3), max_size=3)
updates = st.lists(st.tuples(factors, factors, st.sampled_from((None, *[DEAR, OTHER]))), min_size=1, max_size=4)
FEW = tuple(e for e in BUNDLED if (e.provider, e.model) in {DEAR, OTHER, ("openai", "gpt-4o-mini")})


@settings(max_examples=60, deadline=None)
@given(updates=updates)
def test_no_update_changes_what_a_past_call_costs_and_each_version_can_be_made_again(tmp_path_factory, updates):
    control = Control(tmp_path_factory.mktemp("updates"))
    days = [datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=97 * n) for n in range(14)]
    past = frame(*(usage(model, at) for at in days for model in ((DEAR, OTHER, ("openai", "gpt-4o-mini")))))
    columns = ["list_cost_usd", "list_input_usd", "list_output_usd", "price_status"]
    prices = Prices(control, "data 0", FEW)
    first = prices.price(past).select(columns)
    seen = {prices.version("acme"): first}
    for number, (past_factors, future_factors, gone) in enumerate(updates, start=1):
        offered: Iterable[Entry] = FEW if gone is None else without(FEW, gone)
        for model, factor in future_factors.items():
            offered = with_prices(offered, model, factor, FUTURE)
        for model, factor in past_factors.items():
            offered = with_prices(offered, model, factor)
        prices = Prices(control, f"data {number}", offered)
        now = prices.price(past)
        assert now.select(columns).equals(first)
        seen[prices.version("acme")] = now
    for version, told in seen.items():
        again = prices.of_version("acme", version).price(past)
        assert again.select(columns).equals(told.select(columns))
        assert again["price_version"].unique().to_list() == [version]
    control.close()


# What tenants add.


def own_entries() -> list:
    return [
        Override(provider="openai", model="gpt-4o", prices={"input_mtok": Decimal(7)}, source="x", effective_from=JULY),
        Term(provider="openai", percent_off=Decimal(10), source="contract", effective_from=JULY),
        FxRate(currency="EUR", usd_per_unit=Decimal("1.1"), source="ECB", effective_from=JULY),
        Override(model="acme-*", prices={"input_mtok": Decimal("0.3"), "output_mtok": Decimal(1)}, currency="EUR",
                 source="y", effective_from=JULY),
        Charge(name="fee", type="fee", amount_usd=Decimal(10), source="z", effective_from=JULY),
    ]  # fmt: skip


def test_tenants_who_pay_the_same_never_see_each_others_entries(control, two_tenants):
    same = Term(provider="openai", percent_off=Decimal(10), effective_from=JULY, source="a contract of one's own")
    numbers = {tenant: control.add_prices([same], tenant)[0].id for tenant in ("acme", "rival")}
    prices = Prices(control)
    assert prices.version("acme") == prices.version("rival")
    priced = prices.price(frame(usage(tenant="rival"), usage(tenant="acme")))
    assert priced["price_entry"].to_list() == [f"openai/gpt-4o term {numbers[who]}" for who in ("rival", "acme")]


def test_each_tenant_is_priced_by_its_own_entries_and_nobody_elses(control, two_tenants):
    prices = Prices(control)
    control.add_prices(own_entries(), "acme")
    control.add_prices([Term(percent_off=Decimal(50), source="c", effective_from=JULY)], "rival")
    rows = [usage(tenant=tenant, at=JULY + n * US) for n in range(20) for tenant in ("rival", "acme", "default")]
    priced = prices.price(frame(*rows))
    for tenant in ("rival", "acme", "default"):
        mine = [row for row in rows if row["tenant"] == tenant]
        alone = prices.book(tenant).price(frame(*mine))
        at = [number for number, row in enumerate(rows) if row["tenant"] == tenant]
        assert priced[at].equals(alone)
    bundled_price = cost(PriceBook.bundled())
    assert priced["list_cost_usd"][:3].to_list() == [bundled_price, Decimal("0.007"), bundled_price]
    assert priced["billed_cost_usd"][:3].to_list() == [bundled_price / 2, Decimal("0.0063"), bundled_price]
    assert len({prices.version(tenant) for tenant in ("rival", "acme", "default")}) == 3
    assert prices.of_version("rival", prices.version("acme")) is None
    assert prices.of_version("default", prices.version("rival")) is None


def test_charges_make_no_version_of_their_own_since_no_call_costs_another_amount(control):
    prices = Prices(control)
    control.add_prices(own_entries()[-1:])
    assert prices.version("default") == bundled.VERSION
    assert prices.book("default") is prices.book("acme")


def test_entries_hold_for_new_calls_as_soon_as_any_process_adds_or_retires_them(control, tmp_path):
    prices = Prices(control)
    before = cost(prices, tenant="default")
    other = Control(tmp_path / "data")
    (kept,) = other.add_prices(own_entries()[:1])
    assert cost(prices, tenant="default") == Decimal("0.007")
    then = datetime.now(UTC)
    other.retire_price(kept.id)
    assert cost(prices, tenant="default") == before
    assert cost(prices.book("default", then)) == Decimal("0.007")
    assert cost(prices.book("default", datetime.now(UTC))) == before
    assert cost(prices.book("default", kept.known_from - US)) == before
    other.close()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4)), st.tuples(st.just("retire"), st.integers(0, 4)),
        st.tuples(st.just("update"), st.integers(1, 3)), st.tuples(st.just("accept"), st.just(0)),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_what_priced_a_call_can_be_made_again_whatever_came_after(tmp_path_factory, steps):
    control = Control(tmp_path_factory.mktemp("again"))
    prices = Prices(control, "data 0", FEW)
    rows = frame(*(usage(model, JULY + n * timedelta(days=9), "default", billing="api")
                   for n in range(-1, 4) for model in (DEAR, OTHER, ("x", "acme-7b"))))  # fmt: skip
    stored, offered = [prices.price(rows)], FEW
    for number, (what, which) in enumerate(steps, start=1):
        if what == "add":
            control.add_prices([own_entries()[which]])
        elif what == "retire":
            control.retire_price(which + 1)
        elif what == "accept":
            prices.accept("ann")
        else:
            offered = tuple(with_prices(offered, OTHER, which))
            prices = Prices(control, f"data {number}", offered)
        stored.append(prices.price(rows))
    fresh = Prices(control, f"data {len(steps) + 1}", with_prices(FEW, DEAR, 9))
    for told in stored:
        book = fresh.of_version("default", told["price_version"][0])
        again = book.price(rows)
        assert again.drop("price_entry").equals(told.drop("price_entry"))
        for row, usage_ in zip(told.to_dicts(), rows.to_dicts(), strict=True):
            why = book.explain(usage_)
            for amount, lines, rounding in (
                (row["list_cost_usd"], why.lines, why.rounding_usd),
                (row["billed_cost_usd"], why.billed_lines, why.billed_rounding_usd),
            ):
                assert amount is None or sum(line.amount_usd for line in lines) + rounding == amount
    control.close()
