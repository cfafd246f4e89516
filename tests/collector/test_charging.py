"""Contracts become charges of their days, follow the calls while days are open, and never change closed ones."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from millicent.collector import charging
from millicent.pricing.charges import Calls, settle
from millicent.pricing.entries import Charge
from millicent.warehouse import ledger
from millicent.warehouse.control import DEFAULT_TENANT, tenants
from millicent.warehouse.frames import EMPTY
from millicent.warehouse.query import Period, Query
from millicent.warehouse.record import CHARGE
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import charges

DAY = timedelta(days=1)
MAY, JUNE, JULY = (datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7))
NOW = datetime(2026, 7, 10, 9, 30, tzinfo=UTC)
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip


class Books:
    """A warehouse with short ways to bill calls and to sign contracts."""

    def __init__(self, directory) -> None:
        self.warehouse, self.calls = Warehouse.embedded(directory, memory_limit="256MB"), 0

    def bill(self, at, usd, tenant=DEFAULT_TENANT, **told):
        """Store a call that is billed `usd`."""
        self.calls += 1
        call = {"tenant": tenant, "trace_id": self.calls.to_bytes(16), "span_id": self.calls, "received_at": at,
                "started_at": at, "billing": "api", "status": "ok", "signal": "span", "dialect": "millicent",
                "usage_source": "reported", "counted": True, "call_count": 1, "price_status": "priced",
                "provider": "openai", "model": "gpt-4o", "billed_cost_usd": Decimal(usd), **told}  # fmt: skip
        rows = pl.DataFrame([dict.fromkeys(EMPTY.columns) | call], schema=EMPTY.schema)
        batch = ledger.Batch(rows, pl.DataFrame(schema=OUTCOMES), pl.DataFrame())
        ledger.commit(self.warehouse.engine, batch, "otlp", (0, self.calls))

    def sign(self, kind, since=JUNE, tenant=DEFAULT_TENANT, **told):
        entry = Charge(name=f"our {kind}", type=kind, effective_from=since, source="contract", **told)
        return self.warehouse.control.add_prices([entry], tenant)[0]

    def refresh(self, now=NOW):
        return charging.refresh(self.warehouse, now)

    def rows(self, tenant=DEFAULT_TENANT):
        found = self.warehouse.engine.read(select(charges).where(charges.c.tenant == tenant)).to_pylist()
        return sorted(found, key=lambda row: (row["charged_at"], row["type"], row["entry"]))

    def amounts(self):
        """(type, day, amount) of every charge."""
        return [(row["type"], row["charged_at"].strftime("%m-%d"), row["billed_usd"]) for row in self.rows()]


@pytest.fixture
def books(tmp_path):
    opened = Books(tmp_path / "data")
    yield opened
    opened.warehouse.close()


def test_each_kind_of_contract_is_charged_on_its_days(books):
    books.bill(JUNE + 3 * DAY, 60)
    books.bill(JUNE + 5 * DAY, 60)
    books.bill(JULY + DAY, 7)
    books.sign("fee", amount_usd=Decimal(20))
    books.sign("volume", tiers=((Decimal(100), Decimal(10)),))
    books.sign("credit", since=JULY, amount_usd=Decimal(5))
    books.sign("commitment", amount_usd=Decimal(200))
    assert books.refresh() == 5
    assert books.amounts() == [
        ("fee", "06-01", 20), ("volume", "06-06", -2), ("commitment", "06-30", 62), ("fee", "07-01", 20),
        ("credit", "07-02", -5),
    ]  # fmt: skip
    assert books.refresh(NOW + timedelta(hours=3)) == 0
    asked = Query(
        measures=("spend_usd", "charges_usd"), dimensions=("cost_type",), period=Period(JUNE, NOW), basis="billed"
    )
    answer = books.warehouse.ask(DEFAULT_TENANT, asked).frame
    assert {row["cost_type"]: row["spend_usd"] for row in answer.to_dicts()} == {"api": 127, "charge": 95}


def test_a_charge_tells_its_month_its_scope_and_why(books):
    books.bill(JULY + DAY, 100, provider="anthropic", model="claude-sonnet-4-5")
    fee = books.sign("fee", since=JULY, amount_usd=Decimal(20), provider="openai", model="gpt-4o*")
    books.sign("credit", since=JULY, amount_usd=Decimal(500), provider="anthropic", model="claude-sonnet-4-5")
    books.refresh()
    first, second = books.rows()
    assert (first["name"], first["entry"], first["period_start"], first["period_end"]) == (
        "our fee", fee.id, JULY, datetime(2026, 8, 1, tzinfo=UTC)
    )  # fmt: skip
    assert (first["provider"], first["model"], first["provisional"], first["list_usd"]) == ("openai", None, True, 0)
    assert (second["model"], second["period_end"] - second["period_start"]) == ("claude-sonnet-4-5", DAY)
    assert second["why"] == "drawn from 500.00 USD, 400.00 left"


def test_charges_of_open_days_follow_calls_that_come_late_and_contracts_that_are_taken_away(books):
    books.bill(JUNE, 50)
    contract = books.sign("credit", amount_usd=Decimal(80))
    books.refresh()
    books.bill(JUNE, 20)
    books.bill(JUNE + DAY, 20)
    assert books.refresh() == 3  # one goes, two come
    assert books.amounts() == [("credit", "06-01", -70), ("credit", "06-02", -10)]
    books.warehouse.control.retire_price(contract.id)
    assert books.refresh() == 2
    assert books.amounts() == []


def test_tenants_have_contracts_of_their_own(books):
    with books.warehouse.control._engine.begin() as connection:
        connection.execute(tenants.insert(), [{"id": "rival", "name": "rival"}])
    books.bill(JUNE, 50)
    books.sign("credit", tenant="rival", amount_usd=Decimal(80))
    books.bill(JUNE, 30, tenant="rival")
    books.refresh()
    assert books.rows() == []
    assert [row["billed_usd"] for row in books.rows("rival")] == [-30]


def test_a_closed_month_keeps_its_charges_and_what_comes_late_is_adjusted_once(books):
    books.bill(JUNE, 50)
    books.sign("credit", amount_usd=Decimal(80))
    books.refresh()
    before = books.rows()
    books.warehouse.control.close_period(DEFAULT_TENANT, JUNE, JULY)
    assert books.refresh() == 0
    books.bill(JUNE + DAY, 20)
    assert books.refresh() == 1
    *kept, late = books.rows()
    assert kept == before
    assert (late["type"], late["billed_usd"], late["charged_at"]) == ("adjustment", -20, NOW.replace(minute=0))
    assert (late["period_start"], late["provider"], late["team"]) == (JUNE, CHARGE, CHARGE)
    assert late["why"] == "2026-06 is closed: our credit comes to -70.00 USD in it, -20.00 to what was charged"
    assert books.refresh(NOW + DAY) == 0


def test_a_contract_signed_for_a_closed_month_is_adjusted_and_taken_away_again(books):
    books.bill(JUNE, 50)
    books.warehouse.control.close_period(DEFAULT_TENANT, MAY, JULY)
    contract = books.sign("fee", amount_usd=Decimal(20))
    books.refresh()
    assert books.amounts() == [("fee", "07-01", 20), ("adjustment", "07-10", 20)]
    books.warehouse.control.retire_price(contract.id)
    books.refresh(NOW + DAY)
    assert books.amounts() == [("adjustment", "07-10", 20), ("adjustment", "07-11", -20)]
    assert books.refresh(NOW + DAY) == 0


def test_in_a_month_closed_in_part_the_difference_comes_on_its_open_days(books):
    books.bill(JULY, 50)
    books.sign("volume", since=JULY, tiers=((Decimal(10), Decimal(50)),))
    books.refresh()
    books.warehouse.control.close_period(DEFAULT_TENANT, JULY, JULY + 2 * DAY)
    books.bill(JULY, 10)
    books.refresh()
    assert books.amounts() == [("volume", "07-01", -20), ("volume", "07-03", -5)]


@settings(max_examples=15)
@given(
    told=st.lists(st.tuples(st.integers(0, 68), st.integers(1, 400)), max_size=12),
    late=st.lists(st.tuples(st.integers(0, 68), st.integers(1, 400)), max_size=6),
    closed=st.sampled_from((0, 3, 30, 45, 60)),
)
def test_whatever_is_closed_between_charges_and_adjustments_come_to_what_the_contracts_say(
    tmp_path_factory, told, late, closed
):
    books = Books(tmp_path_factory.mktemp("books"))
    contracts = [
        books.sign("fee", since=MAY, amount_usd=Decimal(20)),
        books.sign("volume", since=MAY, tiers=((Decimal(100), Decimal(10)), (Decimal(300), Decimal("33.3")))),
        books.sign("commitment", since=MAY, amount_usd=Decimal(500)),
    ]
    for day, cents in told:
        books.bill(MAY + day * DAY, Decimal(cents) / 3 // Decimal("1e-12") * Decimal("1e-12"))
    books.refresh()
    before = [row for row in books.rows() if row["charged_at"] < MAY + closed * DAY]
    if closed:
        books.warehouse.control.close_period(DEFAULT_TENANT, MAY, MAY + closed * DAY)
    for day, cents in late:
        books.bill(MAY + day * DAY, Decimal(cents))
    books.refresh()
    assert all(row in books.rows() for row in before)
    assert books.refresh() == 0
    billed = books.warehouse.ask(DEFAULT_TENANT, Query(
        measures=("billed_cost_usd",), grain="day", period=Period(MAY, NOW), basis="billed"
    )).frame  # fmt: skip
    by_day = {Calls(at.date(), "openai", "gpt-4o"): usd for at, usd in billed.iter_rows() if usd is not None}
    expected = sum((one.amount_usd for one in settle(contracts, by_day, date(2026, 7, 10))), Decimal(0))
    assert sum((row["billed_usd"] for row in books.rows()), Decimal(0)) == expected
    books.warehouse.close()
