"""A directory that an earlier release made opens in this one, with everything in it and every sum right."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import as_file, files

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from alembic import command
from alembic.config import Config
from polars.testing import assert_frame_equal
from sqlalchemy import create_engine, insert, select, text

from millicent.warehouse import control as control_module
from millicent.warehouse import ledger, record, rollups
from millicent.warehouse.control import Control
from millicent.warehouse.embedded import FILE
from millicent.warehouse.frames import arrow, plain
from millicent.warehouse.query import Filter, Period, Query, run
from millicent.warehouse.tables import usage_hourly

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NEW_IN_0003 = ("price_context", "units", "list_units_usd", "list_units_usd_nulls")


def naive(table: pa.Table) -> pa.Table:
    fields = (field.with_type(pa.timestamp("us")) if field.type == record.INSTANT else field for field in table.schema)
    return table.cast(pa.schema(fields))


@pytest.fixture
def old_store(tmp_path, a_call, as_frame):
    """A directory as the release with two migrations left it, with calls that have a price and calls that have none."""
    calls = as_frame([
        a_call(started_at=TEN, list_cost_usd=Decimal("0.5"), billed_cost_usd=Decimal("0.5")),
        a_call(started_at=TEN + MINUTE, list_cost_usd=Decimal(0), price_status="not_billed"),
        a_call(started_at=TEN + 2 * MINUTE, price_status="unpriced", labels=[{"key": "a", "value": "b"}]),
        a_call(started_at=TEN + 3 * MINUTE, price_status="unpriced"),
        a_call(started_at=TEN + HOUR, list_cost_usd=Decimal("0.25"), team="search"),
        a_call(started_at=TEN + HOUR, price_status="unpriced", counted=False),
    ])  # fmt: skip
    directory = tmp_path / "data"
    directory.mkdir()
    connection = duckdb.connect(str(directory / FILE))
    connection.execute("CREATE TABLE migrations (name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)")
    for name in ("0001_ledger.sql", "0002_counted_once.sql"):
        connection.execute((files("millicent.warehouse") / "migrations" / name).read_text("utf-8"))
        connection.execute("INSERT INTO migrations VALUES (?, now() AT TIME ZONE 'UTC')", [name])
    tables = {"calls": arrow(calls), "told": arrow(calls), "usage_hourly": rollups.deltas(calls).to_arrow()}
    for table, rows in tables.items():
        kept = naive(rows.drop_columns([name for name in NEW_IN_0003 if name in rows.column_names]))
        connection.register("incoming", kept)
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
    connection.close()
    return directory, calls


def test_calls_of_an_earlier_release_get_the_parts_that_they_lack_and_sums_agree(old_store, a_facts, a_call):
    directory, before = old_store
    facts = a_facts(directory)
    after = ledger.calls_between(facts.engine, "acme", TEN, TEN + 2 * HOUR)
    zero = pl.when(pl.col("list_cost_usd").is_not_null()).then(pl.lit(0, pl.Decimal(18, 12)))
    expected = before.with_columns(list_units_usd=zero)
    by = ["started_at", "span_id"]
    assert_frame_equal(after.sort(by), expected.sort(by))
    told = plain(facts.engine.read(select(ledger.told)))
    assert_frame_equal(told.sort(by), expected.sort(by))
    stored = pl.DataFrame(pl.from_arrow(facts.engine.read(select(usage_hourly))))
    folded = rollups.deltas(expected)
    assert_frame_equal(stored.select(sorted(stored.columns)), folded.select(sorted(folded.columns)),
                       check_row_order=False)  # fmt: skip
    for measures in (("spend_usd", "list_cost_usd", "calls"), ("unpriced_calls", "charges_usd")):
        whole = Query(measures=measures, period=Period(TEN, TEN + 2 * HOUR), dimensions=("team",), grain="hour")
        raw = Query(measures=measures, period=Period(TEN, TEN + 2 * HOUR - timedelta(seconds=1)), dimensions=("team",),
                    grain="hour")  # fmt: skip
        assert_frame_equal(run(facts.engine, "acme", whole).frame, run(facts.engine, "acme", raw).frame)


def test_calls_of_an_earlier_release_can_be_changed_beside_new_ones(old_store, a_facts, a_call):
    directory, before = old_store
    facts = a_facts(directory)
    units = [{"key": "web_searches", "value": 3}]
    facts.store(a_call(started_at=TEN, units=units, price_context="speed=fast", list_units_usd=Decimal("0.03")))
    rows = ledger.calls_between(facts.engine, "acme", TEN, TEN + 2 * HOUR)
    (newest,) = rows.filter(pl.col("units").is_not_null()).to_dicts()
    assert (newest["units"], newest["price_context"]) == (units, "speed=fast")
    ledger.revise(facts.engine, rows.filter(pl.col("units").is_null()).with_columns(team=pl.lit("moved")))
    now = ledger.calls_between(facts.engine, "acme", TEN, TEN + 2 * HOUR)
    stored = pl.DataFrame(pl.from_arrow(facts.engine.read(select(usage_hourly))))
    folded = rollups.deltas(now)
    assert_frame_equal(stored.select(sorted(stored.columns)), folded.select(sorted(folded.columns)),
                       check_row_order=False)  # fmt: skip
    assert before.height + 1 == now.height


def test_hours_of_an_earlier_release_cost_as_much_as_before_with_untracked_beside_idle(old_store, a_facts):
    """As the release with three migrations computed it: a quarter busy without a token seen, a quarter with."""
    directory, _ = old_store
    connection = duckdb.connect(str(directory / FILE))
    connection.execute((files("millicent.warehouse") / "migrations" / "0003_price_book.sql").read_text("utf-8"))
    connection.execute("INSERT INTO migrations VALUES ('0003_price_book.sql', now() AT TIME ZONE 'UTC')")
    connection.execute("""
        INSERT INTO deployment_hours BY NAME SELECT
            'acme' AS tenant, 'rack' AS deployment, TIMESTAMP '2026-03-04 10:00' AS hour, 'm' AS model,
            2 AS accelerator_count, 3600000 AS elapsed_ms, 1800000 AS busy_ms, 7200000 AS accelerator_ms,
            4 AS fixed_usd, 0 AS energy_usd, 0 AS hosting_usd, 1 AS busy_usd, 3 AS idle_usd, 1 AS untracked_usd,
            7200 AS joules, 1000 AS w_input, 100 AS w_cached, 4000 AS w_output, 1000 AS weight,
            0.001 AS rate_usd_per_weight, 0 AS energy_rate_usd_per_weight, 'as it was' AS method, '[]' AS sources,
            TIMESTAMP '2026-03-04 10:00' AS declared_from, false AS provisional,
            TIMESTAMP '2026-03-04 11:00' AS computed_at
    """)
    connection.close()
    facts = a_facts(directory)
    facts.declare("rack", TEN)
    facts.control.close_period("acme", TEN.replace(hour=0), TEN.replace(hour=0) + timedelta(days=1))
    facts.refresh(TEN + 2 * HOUR)
    asked = ("idle_cost_usd", "untracked_cost_usd", "capacity_cost_usd", "busy_accelerator_hours", "energy_wh")
    (row,) = facts.ask(*asked, filters=(Filter("deployment", ("rack",)),))
    assert [row[name] for name in asked] == [2, 1, 3, 1, 2]


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_a_control_plane_of_an_earlier_release_keeps_its_keys_and_takes_price_entries(tmp_path, revision):
    directory = tmp_path / "data"
    directory.mkdir()
    engine = create_engine(f"sqlite:///{directory / 'control.db'}")
    with as_file(files("millicent.warehouse") / "control_migrations") as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["engine"] = engine
        command.upgrade(config, revision)
    with engine.begin() as connection:
        connection.execute(insert(control_module.audit).values(
            at=TEN, tenant="default", actor="ann", action="key.create", detail={}))  # fmt: skip
    engine.dispose()
    control = Control(directory)
    assert control.prices() == control.closed_periods("default") == control.repricings() == []
    with control.begin() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0007"
        assert connection.execute(select(control_module.audit.c.actor)).scalar_one() == "ann"
    control.close()
