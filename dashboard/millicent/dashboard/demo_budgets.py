"""The example company's budgets: the whole, its teams, a feature and a customer.

The whole will just be kept. What completion may cost in any four weeks is overrun, since a retry loop shipped.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from millicent.warehouse.alert_rules import Rule
from millicent.warehouse.budgets import Budget
from millicent.warehouse.query import Filter

PER_DAY: Final = 910
"""USD of the whole company a day, own hardware with idle."""
_HALF: Final = Decimal("0.5")
OWNERS: Final = {
    "Code Copilot": (139, "Mei Tanaka"), "Assistants": (142, "Jonas Weber"), "Search": (101, "Priya Nair"),
    "Data Platform": (59, "Elif Kaya"), "Support AI": (64, "Tom Becker"), "Research": (47, "Ana Souza"),
    "Ads Ranking": (40, "Lucas Martin"),
}  # fmt: skip
"""USD of each team a day, own hardware without idle, and who answers for it."""
COMPANY: Final = "Company"
OVERRUN: Final = "Code completion"
WINDOW_DAYS: Final = 28
ACME_PER_DAY: Final = 37
"""USD a day of what one customer asks the assistants."""


def budgets(since: datetime, now: datetime) -> Iterator[Budget]:
    """What holds from `since` on, sized for the month that `now` is in; the company's comes first, as number 1."""
    days = monthrange(now.year, now.month)[1]
    yield Budget(
        name=COMPANY, amount=_round(PER_DAY * days), owner="Dana Okafor, finance", effective_from=since,
        note="Plan 2026, all providers and accelerators",
    )  # fmt: skip
    for team, (per_day, owner) in OWNERS.items():
        yield Budget(
            name=team, amount=_round(per_day * days), filters=(Filter("team", (team,)),), parent=1, owner=owner,
            enforcement="warn" if team == "Research" else "none", effective_from=since,
        )  # fmt: skip
    places = {team: 2 + at for at, team in enumerate(OWNERS)}
    per_day, owner = OWNERS["Code Copilot"]
    yield Budget(
        name=OVERRUN, amount=_round(per_day * WINDOW_DAYS), filters=(Filter("feature", ("completion",)),),
        period="rolling", rolling_days=WINDOW_DAYS, parent=places["Code Copilot"], owner=owner, effective_from=since,
        note="Any four weeks, so that a bad day is not forgotten on the first of the month",
    )  # fmt: skip
    yield Budget(
        name="Chat for Acme", amount=_round(ACME_PER_DAY * days), parent=places["Assistants"], owner="Jonas Weber",
        filters=(Filter("feature", ("chat",)), Filter("customer", ("acme",))), enforcement="block",
        effective_from=since, note="What their contract pays for",
    )  # fmt: skip


def changed(given: Sequence[Rule]) -> Iterator[Rule]:
    """Rules that the company has otherwise than they are given.

    Nobody wants to hear of a half, nor that calls stay away before those of today have been sent.
    """
    for rule in given:
        if rule.kind == "actual" and rule.threshold == _HALF:
            yield replace(rule, ended=True)
        elif rule.kind == "freshness":
            yield replace(rule, floor=Decimal(26))


def _round(usd: int) -> Decimal:
    return Decimal(round(usd, -2))
