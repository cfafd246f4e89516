"""A warehouse of just the calls that a test tells, put there by the ledger itself, and the product around it."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
import uvicorn
from asked_pages import callback
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from millicent.collector.loader import Loader
from millicent.collector.repricing import Repricer
from millicent.collector.spool import SpoolReader
from millicent.dashboard import access, serve
from millicent.dashboard import format as fmt
from millicent.dashboard.cli import app as commands
from millicent.warehouse import ledger, record
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.store import Warehouse

CALLS = pl.DataFrame(pl.from_arrow(record.PLAIN.empty_table())).schema
OUTCOMES = {"tenant": pl.String, "hour": pl.Datetime("us", "UTC"), "outcome": pl.String, "reason": pl.String,
            "spans": pl.Int64}  # fmt: skip
KNOWN = {"tenant": DEFAULT_TENANT, "trace_id": bytes(16), "billing": "api", "status": "ok", "signal": "span",
         "dialect": "millicent", "usage_source": "reported", "price_status": "priced", "call_count": 1,
         "counted": True}  # fmt: skip


@pytest.fixture
def asking() -> Iterator[Callable[..., None]]:
    """Says who asks from then on: an operator's session, unless told otherwise."""
    tokens = []

    def as_(actor: str = "session", *, operates: bool = True) -> None:
        tokens.append(access._principal.set(access.Principal(DEFAULT_TENANT, actor, operates=operates)))

    yield as_
    for token in reversed(tokens):
        access._principal.reset(token)
    fmt.present(fmt.Presentation())


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


# ---- calls priced by the product's own book, and everything that changes them


@pytest.fixture
def priced_calls(tmp_path) -> Iterator[Callable[..., Warehouse]]:
    """Makes a warehouse of calls that cost what the price book says."""
    opened = []

    def make(*calls: dict[str, Any]) -> Warehouse:
        made = Warehouse.embedded(tmp_path / "data")
        opened.append(made)
        rows = [
            {"received_at": told["started_at"], **KNOWN, "trace_id": told["span_id"].to_bytes(16), **told}
            for told in calls
        ]
        frame = pl.DataFrame([{name: row.get(name) for name in CALLS} for row in rows], schema=CALLS)
        priced = made.prices.price(frame)
        frame = frame.with_columns(priced[name] for name in priced.columns if name in CALLS)
        ledger.commit(made.engine, ledger.Batch(frame, pl.DataFrame(schema=OUTCOMES), pl.DataFrame()), "otlp", (0, 1))
        return made

    yield make
    for made in opened:
        made.close()


@pytest.fixture
def loader(warehouse, tmp_path) -> Loader:
    return Loader(warehouse, SpoolReader(tmp_path / "spool"))


@pytest.fixture
def client(warehouse, loader) -> Callable[[str], TestClient]:
    """Makes a client with a new key of a scope."""
    server = serve.application(warehouse, loader.spool, loader, insecure_local=False)

    def of(scope: str) -> TestClient:
        headers = {"authorization": f"Bearer {warehouse.control.create_key(scope, scope)}"}
        return TestClient(server, base_url="http://127.0.0.1:8050", headers=headers)

    return of


@pytest.fixture
def operator(client) -> TestClient:
    return client("operator")


@pytest.fixture
def repricer(warehouse) -> Iterator[Repricer]:
    """Carries out what is asked for, as the product does."""
    made, stop = Repricer(warehouse), threading.Event()
    worker = threading.Thread(target=made.run, args=(stop,))
    with capture_logs():  # commands under test print in this process too
        worker.start()
        yield made
        stop.set()
        made.wake()
        worker.join(30)


@pytest.fixture
def run(warehouse, loader) -> Iterator[Callable[..., Any]]:
    """`millicent` with an operator key against the application on a port of its own."""
    server = uvicorn.Server(
        uvicorn.Config(
            serve.application(warehouse, loader.spool, loader, insecure_local=False), port=0, log_level="warning",
            lifespan="off",
        )
    )  # fmt: skip
    started, original = threading.Event(), server.startup

    async def startup(*given, **named):
        await original(*given, **named)
        started.set()

    server.startup = startup
    worker = threading.Thread(target=server.run)
    worker.start()
    assert started.wait(10)
    port = server.servers[0].sockets[0].getsockname()[1]
    key = warehouse.control.create_key("operator", "test")
    environment = {"MILLICENT_URL": f"http://127.0.0.1:{port}", "MILLICENT_TOKEN": key, "COLUMNS": "250"}
    yield lambda *words, **more: CliRunner().invoke(commands, words, env=environment, **more)
    server.should_exit = True
    worker.join(10)


# ---- pages without a screen


@pytest.fixture(scope="module")
def answered() -> Callable[..., str]:
    """What a page's callback answers, as JSON: of which application, an output of it, and its inputs by name."""

    def ask(site: TestClient, output: str, **told: str) -> str:
        return json.dumps({"response": callback(site, output, **told)}, ensure_ascii=False)

    return ask
