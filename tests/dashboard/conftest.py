"""A warehouse that holds just the calls that a test tells, put there by the ledger itself."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from millicent.warehouse import ledger, record
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.store import Warehouse

CALLS = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).schema
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
KNOWN = {"tenant": DEFAULT_TENANT, "trace_id": bytes(16), "billing": "api", "status": "ok", "signal": "span",
         "dialect": "millicent", "usage_source": "reported", "price_status": "priced", "call_count": 1,
         "counted": True}  # fmt: skip


@pytest.fixture(scope="module")
def warehouse_of(tmp_path_factory) -> Iterator[Callable[..., Warehouse]]:
    """Makes a warehouse of calls; what is not told of a call is unknown, and it began now."""
    opened = []

    def make(*calls: dict[str, Any]) -> Warehouse:
        made = Warehouse.embedded(tmp_path_factory.mktemp("data"))
        opened.append(made)
        now = datetime.now(UTC)
        rows = [{"started_at": now, "received_at": now, **KNOWN, **told} for told in calls]
        frame = pl.DataFrame([{name: row.get(name) for name in CALLS} for row in rows], schema=CALLS)
        batch = ledger.Batch(frame, pl.DataFrame(schema=OUTCOMES), pl.DataFrame())
        ledger.commit(made.engine, batch, "otlp", (0, 1))
        return made

    yield make
    for made in opened:
        made.close()
