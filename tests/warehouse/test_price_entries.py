"""Price entries, closed periods and repricings in the control plane: kept for ever, apart by tenant, audited."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.pricing.entries import Charge, FxRate, Override, Term
from millicent.warehouse import price_entries
from millicent.warehouse.control import Control, audit, tenants
from millicent.warehouse.query import Filter

JULY = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OVERRIDE = Override(
    model="acme-7b", prices={"input_mtok": Decimal("1.50"), "output_mtok": Decimal("1E-18")},
    above=((200_000, {"input_mtok": Decimal(3)}),), daily_from=time(22), daily_to=time(6), zone="Europe/Berlin",
    effective_from=JULY, source="contract 4711", note="ours",
)  # fmt: skip
ENTRIES = [
    OVERRIDE,
    Term(provider="openai", percent_off=Decimal("12.5"), effective_from=JULY, source="mail"),
    FxRate(currency="EUR", usd_per_unit=Decimal("1.0842"), effective_from=JULY, source="ECB"),
    Charge(name="volume", type="volume", tiers=((Decimal(10_000), Decimal(5)), (Decimal(50_000), Decimal(8))),
           effective_from=JULY, effective_to=JULY + 31 * DAY, source="contract"),
]  # fmt: skip


@pytest.fixture
def control(tmp_path):
    opened = Control(tmp_path / "data")
    with opened._engine.begin() as connection:
        connection.execute(tenants.insert(), [{"id": name, "name": name} for name in ("acme", "rival")])
    yield opened
    opened.close()


def audited(control):
    with control._engine.connect() as connection:
        asked = select(audit.c.tenant, audit.c.actor, audit.c.action, audit.c.detail).order_by(audit.c.id)
        return [tuple(row) for row in connection.execute(asked)]


def bare(entry):
    return replace(entry, id=None, known_from=None, author="", retired_at=None)


# Price entries.


def test_entries_come_back_as_they_were_told_with_who_added_them_and_since_when_they_are_known(control, tmp_path):
    before = datetime.now(UTC)
    kept = control.add_prices(ENTRIES, "acme", "ann")
    after = datetime.now(UTC)
    assert [bare(one) for one in kept] == ENTRIES
    assert [one.author for one in kept] == ["ann"] * 4
    assert all(before <= one.known_from <= after for one in kept)
    assert [one.id for one in kept] == [1, 2, 3, 4]
    again = Control(tmp_path / "data")
    assert again.prices("acme") == [("acme", one) for one in kept]
    again.close()


def test_what_a_live_entry_says_already_is_not_added_again(control):
    first, second = control.add_prices([OVERRIDE, OVERRIDE], "acme")
    assert first == second
    assert control.add_prices([replace(OVERRIDE, author="bob", id=77)], "acme") == [first]
    assert len(control.prices("acme")) == len(audited(control)) == 1
    (other,) = control.add_prices([replace(OVERRIDE, source="another page")], "acme")
    assert other.id == 2


def test_a_retired_entry_is_listed_as_such_and_may_be_added_anew_under_another_id(control):
    (kept,) = control.add_prices([OVERRIDE], "acme")
    assert control.retire_price(kept.id, "acme", "bob")
    assert not control.retire_price(kept.id, "acme", "bob")
    assert control.prices("acme") == []
    ((_, retired),) = control.prices("acme", retired=True)
    assert retired == replace(kept, retired_at=retired.retired_at)
    assert retired.retired_at >= kept.known_from
    (again,) = control.add_prices([OVERRIDE], "acme")
    assert again.id == kept.id + 1


def test_tenants_never_see_or_retire_each_others_entries(control):
    (mine,) = control.add_prices([OVERRIDE], "acme")
    (theirs,) = control.add_prices([OVERRIDE], "rival")
    assert mine.id != theirs.id
    assert not control.retire_price(theirs.id, "acme")
    assert control.prices("acme") == [("acme", mine)]
    assert control.prices() == [("acme", mine), ("rival", theirs)]


def test_entries_are_added_all_or_none(control, monkeypatch):
    monkeypatch.setattr(price_entries, "MOST_ENTRIES", 3)
    with pytest.raises(ValueError, match="4 price entries, where 3 may be: retire"):
        control.add_prices(ENTRIES, "acme")
    with pytest.raises(ValueError, match="tenant 'nobody' is unknown: write acme, default, rival"):
        control.add_prices(ENTRIES, "nobody")
    assert control.prices() == audited(control) == []
    control.add_prices(ENTRIES[:3], "acme")
    control.add_prices(ENTRIES[:3], "acme")


@given(price=st.decimals(0, 1000, places=18), off=st.decimals("0.000000000001", 100, places=12))
def test_prices_keep_every_digit(tmp_path_factory, price, off):
    control = Control(tmp_path_factory.mktemp("digits"))
    told = [replace(OVERRIDE, prices={"input_mtok": price}), Term(percent_off=off, effective_from=JULY, source="x")]
    control.add_prices(told)
    (_, override), (_, term) = control.prices()
    assert (override.prices["input_mtok"].as_tuple(), term.percent_off.as_tuple()) == (price.as_tuple(), off.as_tuple())
    control.close()


def test_the_stamp_differs_after_every_change_and_only_then(control):
    def stamp():
        with control.begin() as connection:
            return price_entries.stamp(connection)

    seen = [stamp()]
    for change in (
        lambda: control.add_prices([OVERRIDE], "acme"), lambda: control.add_prices([OVERRIDE], "rival"),
        lambda: control.retire_price(1, "acme"), lambda: control.add_prices([OVERRIDE], "acme"),
    ):  # fmt: skip
        change()
        seen.append(stamp())
    assert len(set(seen)) == 5
    control.add_prices([OVERRIDE], "acme")
    assert stamp() == seen[-1]


# Closed periods.


def test_whole_past_days_can_be_closed_once(control):
    closed = control.close_period("acme", JULY, JULY + 31 * DAY, "ann")
    assert (closed.start, closed.end, closed.actor) == (JULY, JULY + 31 * DAY, "ann")
    assert control.closed_periods("acme") == [closed]
    assert control.closed_periods("rival") == []
    with pytest.raises(ValueError, match=r"2026-07-31 to 2026-08-02 overlaps 2026-07-01 to 2026-08-01, closed by ann"):
        control.close_period("acme", JULY + 30 * DAY, JULY + 32 * DAY)
    assert control.close_period("acme", JULY + 31 * DAY, JULY + 32 * DAY).start == JULY + 31 * DAY
    control.close_period("rival", JULY, JULY + DAY)
    assert [row[:3] for row in audited(control)] == [
        ("acme", "ann", "period.close"), ("acme", "operator", "period.close"), ("rival", "operator", "period.close"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (JULY + timedelta(hours=1), JULY + DAY, "is not a midnight of UTC"),
        (JULY, JULY + DAY - timedelta(microseconds=1), "is not a midnight of UTC"),
        (datetime(2026, 7, 1), JULY + DAY, "is not a midnight of UTC"),  # noqa: DTZ001 - the point of the case
        (datetime(2026, 7, 1, tzinfo=timezone(timedelta(hours=2))), JULY + DAY, "is not a midnight of UTC"),
        (JULY, JULY, "is not before end"),
        (JULY + DAY, JULY, "is not before end"),
        (JULY, datetime.combine(date.today() + 3 * DAY, time(), UTC), "only days that are over"),  # noqa: DTZ011 - or later
    ],
)
def test_other_periods_cannot_be_closed(control, start, end, why):
    with pytest.raises(ValueError, match=why):
        control.close_period("acme", start, end)
    assert control.closed_periods("acme") == []


# Repricings.


def test_a_repricing_is_kept_until_it_is_finished_and_audited_at_both_ends(control):
    filters = (Filter("team", ("search", None)), Filter("model", ("gpt-4o",), negated=True))
    run = control.open_repricing("acme", JULY, JULY + DAY, "genai-prices 0.2.3", filters, actor="ann")
    assert (run.id, run.filters, run.finished_at) == (1, filters, None)
    assert control.repricings("acme", unfinished=True) == control.repricings() == [run]
    assert control.repricings("rival") == []
    control.finish_repricing(run.id, calls=10)
    (done,) = control.repricings("acme")
    assert done == replace(run, finished_at=done.finished_at)
    assert done.finished_at >= run.created_at
    assert control.repricings(unfinished=True) == []
    control.finish_repricing(run.id, "too late")
    assert control.repricings("acme") == [done]
    assert [(row[1], row[2]) for row in audited(control)] == [("ann", "reprice.ask"), ("ann", "reprice.done")]
    assert audited(control)[1][3] == {
        "run": 1, "version": "genai-prices 0.2.3", "undo_of": None, "error": None, "calls": 10,
    }  # fmt: skip


def test_a_finished_run_of_the_tenant_can_be_undone_once_unless_undoing_failed(control):
    def undo(tenant, run):
        return control.open_repricing(tenant, JULY, JULY + DAY, "v", undo_of=run)

    run = control.open_repricing("acme", JULY, JULY + DAY, "v")
    with pytest.raises(ValueError, match="repricing 1 is not finished"):
        undo("acme", run.id)
    control.finish_repricing(run.id)
    with pytest.raises(ValueError, match="there is no repricing 1"):
        undo("rival", run.id)
    failed = undo("acme", run.id)
    with pytest.raises(ValueError, match="repricing 1 was undone by run 2"):
        undo("acme", run.id)
    control.finish_repricing(failed.id, "disk full")
    assert control.repricings("acme")[1].error == "disk full"
    assert undo("acme", run.id).undo_of == run.id


def test_an_empty_period_is_not_repriced(control):
    with pytest.raises(ValueError, match="is not before end"):
        control.open_repricing("acme", JULY, JULY, "v")
    assert audited(control) == []
