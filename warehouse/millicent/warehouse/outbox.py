"""The outbox: what happened is stored with what made it happen, and sent from here until it has arrived.

`emit` writes an event and one delivery for each endpoint that wants it into the transaction of its caller, so that
either both are there or neither is. Whoever sends takes a delivery with a lease, tells what came of it, or is gone, and
the lease runs out: an event arrives at least once, with the same id and the same bytes each time.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, update

from millicent.warehouse.delivery_tables import attempts, deliveries, endpoints, events

if TYPE_CHECKING:
    from millicent.warehouse.control import Control

TEST: Final = "endpoint.test"
FAILED: Final = "endpoint.failed"
TYPES: Final = (
    "budget.threshold.crossed", "budget.threshold.cleared", "budget.forecast.exceeded", "budget.forecast.cleared",
    "budget.burn_rate.exceeded", "budget.burn_rate.cleared", "cost.anomaly.opened", "cost.anomaly.closed",
    "unit_cost.threshold.crossed", "unit_cost.threshold.cleared", "data.freshness.stale", "data.freshness.recovered",
    "pricing.unpriced_usage.detected", "pricing.unpriced_usage.cleared", FAILED, TEST,
)  # fmt: skip
"""Everything that can happen. `endpoint.failed`: an endpoint is given up on, told to the others."""

State = Literal["pending", "delivered", "dead"]
MOST_BYTES: Final = 20_000
"""Of a body, exclusive."""
LEASE: Final = timedelta(seconds=45)
"""How long whoever took a delivery has it for; longer than any attempt takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. `body` is the JSON `{type, timestamp, data}` whose very bytes are signed and sent."""

    id: str
    tenant: str
    type: str
    occurred_at: datetime
    alert: str | None
    body: str


def emit(
    connection: Connection, tenant: str, type_: str, occurred_at: datetime, data: Mapping[str, Any], *,
    alert: str | None = None, endpoints: Collection[str] = (), silent: bool = False,
) -> str:  # fmt: skip
    """Store that something happened, and that it is to be told; both hold once the transaction commits.

    Args:
        connection: of the transaction that also stores why it happened.
        tenant: whose.
        type_: one of `TYPES`.
        occurred_at: when, aware.
        data: JSON; decimals and instants become text. What would be too long is shortened, and says `shortened`.
        alert: id of the alert that it is about.
        endpoints: ids of those to tell; none: all. Only enabled ones that want the type are.
        silent: keep it, and tell nobody.

    Returns:
        The event's id, `evt_` and 32 hex digits.

    Raises:
        ValueError: the type is unknown, or the data cannot be JSON.
    """
    raise NotImplementedError
