"""Amounts that belong to no call, in answers: a line of their own, in the hour they are charged in."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from millicent.warehouse.query import Filter
from millicent.warehouse.record import CHARGE, IDLE

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_charges_are_rows_of_their_own_and_adjustments_stand_with_what_they_adjust(facts, a_call, a_charge):
    facts.declare("rack", TEN)
    facts.store(a_call(team="search", billed_cost_usd=Decimal(3), list_cost_usd=Decimal(4)))
    facts.refresh(TEN + HOUR)
    facts.charge(
        a_charge(type="fee", name="platform", billed_usd=Decimal(10)),
        a_charge(type="volume", name="volume", provider="openai", billed_usd=Decimal("-0.5")),
        a_charge(type="adjustment", name="repricing 7", team="search", provider="openai", model="gpt-4o",
                 list_usd=Decimal("0.25"), billed_usd=Decimal(-1)),
        a_charge(type="adjustment", name="repricing 7", billed_usd=Decimal("0.125")),
        a_charge(type="fee", name="platform", billed_usd=Decimal(99), tenant="rival"),
    )  # fmt: skip
    by_team = {row["team"]: row["spend_usd"] for row in facts.ask("spend_usd", dimensions=("team",))}
    assert by_team == {"search": 2, IDLE: 4, CHARGE: Decimal("9.5"), None: Decimal("0.125")}
    by_type = {row["cost_type"]: row for row in facts.ask("spend_usd", "charges_usd", dimensions=("cost_type",))}
    assert {name: row["spend_usd"] for name, row in by_type.items()} == {
        "api": 3, "idle": 4, "charge": Decimal("9.5"), "adjustment": Decimal("-0.875"),
    }  # fmt: skip
    assert [by_type[name]["charges_usd"] for name in ("api", "idle", "charge")] == [0, None, Decimal("9.5")]
    volume = facts.ask("spend_usd", dimensions=("provider", "model"), filters=(Filter("provider", ("openai",)),))
    assert {(row["provider"], row["model"]): row["spend_usd"] for row in volume} == {
        ("openai", CHARGE): Decimal("-0.5"), ("openai", "gpt-4o"): -1,
    }  # fmt: skip
    (row,) = facts.ask("spend_usd", "charges_usd", "unattributed_spend_usd", basis="list")
    assert row == {"spend_usd": Decimal("4.25"), "charges_usd": Decimal("0.25"), "unattributed_spend_usd": 0}


def test_a_charge_is_in_the_period_in_which_its_hour_begins(facts, a_charge):
    facts.charge(a_charge(billed_usd=Decimal(1)), a_charge(billed_usd=Decimal(2), charged_at=TEN + HOUR))
    bounds = [TEN - HOUR / 2, TEN, TEN + HOUR / 2, TEN + HOUR, TEN + 3 * HOUR / 2]
    parts = [facts.ask("charges_usd", start=a, end=b) for a, b in itertools.pairwise(bounds)]
    assert [row["charges_usd"] for (row,) in parts] == [None, 1, None, 2]
    hours = facts.ask("spend_usd", start=TEN, end=TEN + 2 * HOUR, grain="hour")
    assert [(row["time"], row["spend_usd"]) for row in hours] == [(TEN, 1), (TEN + HOUR, 2)]
