"""What the example company counts besides calls: tickets that Support AI resolved, and documents that were enriched."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import numpy as np

from millicent.warehouse.units import Units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CENT: Final = Decimal("0.01")
TICKETS, DOCUMENTS = 185, 900
"""Of one customer, and of the company, on a weekday."""
TICKET_USD, DOCUMENT_USD = Decimal("0.25"), Decimal("0.14")


def units(today: date, days: int, weekday: Sequence[float], customers: Sequence[str]) -> Iterator[Units]:
    """Rows of the `days` before `today`; `weekday` tells how busy each is, Monday first."""
    for days_ago in range(days, 0, -1):
        day = today - timedelta(days=days_ago)
        rng = np.random.default_rng((day.toordinal(), 2))
        busy = weekday[day.weekday()] * (1 - 0.0035 * days_ago)
        for customer in customers:
            number = int(TICKETS * busy * rng.normal(1, 0.06))
            yield _row("resolved ticket", day, number, TICKET_USD, feature="triage", customer=customer)
        yield _row("document", day, int(DOCUMENTS * busy * rng.normal(1, 0.05)), DOCUMENT_USD, feature="enrichment")


def _row(unit: str, day: date, number: int, price: Decimal, **told: str) -> Units:
    return Units(
        unit=unit, day=day, quantity=Decimal(number), revenue_usd=(number * price).quantize(CENT), **told,
    )  # fmt: skip
