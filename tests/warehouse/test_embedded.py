"""One process owns the file, nothing in SQL reaches outside it, and errors leave it usable."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, literal, select, text

from millicent.warehouse.embedded import FILE, LOCK, SETTINGS, Embedded, compiled
from millicent.warehouse.engine import EngineError, RowsRefusedError
from millicent.warehouse.tables import outcomes

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)


def told(spans: int = 1, reason: str = "call") -> pa.Table:
    return pa.table({"tenant": ["acme"], "hour": [TEN], "outcome": ["stored"], "reason": [reason], "spans": [spans]})


def put(engine: Embedded, spans: int = 1) -> None:
    with engine.write() as transaction:
        transaction.insert("outcomes", told(spans))


def spans(engine: Embedded) -> int:
    return int(engine.read(select(func.coalesce(func.sum(outcomes.c.spans), 0).label("n"))).to_pylist()[0]["n"])


@pytest.fixture
def engine(tmp_path):
    opened = Embedded(tmp_path, threads=2, memory_limit="256MB")
    yield opened
    opened.close()


def elsewhere(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *map(str, args)], capture_output=True, text=True, check=False)


# One owner.

OPEN = """
import sys
from pathlib import Path
from millicent.warehouse.embedded import Embedded
from millicent.warehouse.engine import EngineError
try:
    Embedded(Path(sys.argv[1])).close()
except EngineError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_second_process_is_refused_with_the_first_ones_id_and_what_to_do(engine, tmp_path):
    second = elsewhere(OPEN, tmp_path)
    assert second.returncode == 1
    assert f"refused: {tmp_path} is in use by process {os.getpid()}" in second.stderr
    assert "--url" in second.stderr
    put(engine)  # and the first one never noticed
    assert spans(engine) == 1


def test_reading_the_files_does_not_lose_the_lock(engine, tmp_path):
    for name in (FILE, LOCK):
        (tmp_path / name).read_bytes()
    assert elsewhere(OPEN, tmp_path).returncode == 1


def test_the_directory_is_free_again_once_closed_and_after_a_crash(tmp_path):
    Embedded(tmp_path).close()
    assert elsewhere(OPEN, tmp_path).returncode == 0
    crashed = elsewhere(OPEN.replace(".close()", "; import os; os._exit(9)"), tmp_path)
    assert crashed.returncode == 9
    assert elsewhere(OPEN, tmp_path).returncode == 0


def test_a_file_that_is_no_database_is_named_and_left_for_another_try(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database " * 1000)
    for _ in range(2):  # the failure keeps no lock
        with pytest.raises(EngineError, match=f"{FILE} cannot be opened"):
            Embedded(tmp_path)
    (tmp_path / FILE).unlink()
    Embedded(tmp_path).close()


def test_a_directory_that_it_makes_is_for_the_owner_alone(tmp_path):
    Embedded(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / LOCK).stat().st_mode & 0o777 == 0o600


# Locked down.


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{secret}'",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM read_json('{secret}')",
        "SELECT * FROM read_parquet('{secret}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM read_csv('https://example.org/x.csv')",
        "SELECT getenv('HOME')",
        "COPY outcomes FROM '{secret}'",
        "COPY outcomes TO '{folder}/out.csv'",
        "COPY (SELECT 1) TO '/dev/stdout'",
        "ATTACH '{folder}/other.db'",
        "ATTACH '{database}' AS again",
        "EXPORT DATABASE '{folder}/export'",
        "IMPORT DATABASE '{folder}'",
        "INSTALL httpfs",
        "FORCE INSTALL spatial FROM community",
        "LOAD httpfs",
        "LOAD '{secret}'",
        "CREATE SECRET (TYPE s3)",
        "CREATE PERSISTENT SECRET p (TYPE http)",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "SET lock_configuration = false",
        "RESET lock_configuration",
        "SET GLOBAL memory_limit = '64GB'",
        "SET SESSION threads = 64",
        "PRAGMA threads = 64",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET extension_directory = '{folder}'",
        "SET temp_directory = '{folder}/spill'",
        "SELECT * FROM local_table",
    ],
)
def test_sql_cannot_leave_the_file_or_loosen_its_settings(engine, tmp_path, sql):
    local_table = pa.table({"leak": [1]})  # noqa: F841 - a name that the database must not find
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text("swordfish\n1\n", "utf-8")
    statement = text(sql.format(secret=outside / "secret.csv", folder=outside, database=tmp_path / FILE))
    with pytest.raises(EngineError) as refused:
        engine.read(statement)
    assert "swordfish" not in str(refused.value)
    with pytest.raises(EngineError), engine.write() as transaction:
        transaction.execute(statement)
    assert [file.name for file in outside.iterdir()] == ["secret.csv"]
    put(engine)
    assert spans(engine) == 1


def test_what_is_switched_off_stays_off_also_after_reopening(engine):
    for _ in range(2):
        for name in [name for name, value in SETTINGS.items() if value == "false"]:
            assert engine.read(text(f"SELECT current_setting('{name}') AS v")).to_pylist() == [{"v": False}], name
        with pytest.raises(EngineError, match="locked"):
            engine.read(text("SET threads = 1"))
        engine.reopen()


# Values.


@given(st.text())
@settings(max_examples=60, deadline=None)
def test_any_text_goes_in_as_a_value_and_comes_back(odd_engine, odd):
    assert odd_engine.read(select(literal(odd).label("same"))).to_pylist() == [{"same": odd}]


@pytest.fixture(scope="module")
def odd_engine(tmp_path_factory):
    opened = Embedded(tmp_path_factory.mktemp("odd"), threads=2, memory_limit="256MB")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "odd", ["'; DROP TABLE outcomes; --", "$1", ":x", "?", "\0", "%(x)s", "{x}", '"', "\\'", "🙂\n"]
)
def test_text_never_becomes_sql(engine, odd):
    statement = select(outcomes.c.spans).where(outcomes.c.reason == odd)
    assert odd not in compiled(statement)[0].replace("$1", "", 1)
    with engine.write() as transaction:
        transaction.insert("outcomes", told(7, odd))
    put(engine, 5)
    assert engine.read(statement).to_pylist() == [{"spans": 7}]


def test_instants_go_in_aware_and_come_back_in_utc(engine):
    put(engine)
    (row,) = engine.read(select(outcomes.c.hour, func.date_trunc("day", outcomes.c.hour).label("day"))).to_pylist()
    assert row == {"hour": TEN, "day": TEN.replace(hour=0)}
    assert row["hour"].utcoffset().total_seconds() == 0


# Transactions.


def test_a_transaction_sees_its_own_changes_and_a_failed_one_leaves_none(engine):
    put(engine)
    total = select(func.sum(outcomes.c.spans).label("n"))
    with pytest.raises(ZeroDivisionError), engine.write() as transaction:
        transaction.insert("outcomes", told(10))
        assert transaction.read(total).to_pylist() == [{"n": 11}]
        raise ZeroDivisionError
    assert spans(engine) == 1


def test_rows_that_do_not_fit_are_refused_as_such_and_a_wrong_statement_is_not(engine):
    with pytest.raises(RowsRefusedError), engine.write() as transaction:
        transaction.insert("outcomes", told().set_column(4, "spans", pa.array([None], pa.int64())))
    with pytest.raises(EngineError) as wrong, engine.write() as transaction:
        transaction.execute(text("DELETE FROM nowhere"))
    assert not isinstance(wrong.value, RowsRefusedError)
    put(engine)
    assert spans(engine) == 1


def in_a_thread(work) -> list:
    """What `work` returned in a thread of its own, within ten seconds."""
    came: list = []
    thread = threading.Thread(target=lambda: came.append(work()), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "still waiting"
    return came


def test_reads_go_on_while_a_write_is_open_and_see_nothing_of_it(engine):
    put(engine)
    with engine.write() as transaction:
        transaction.insert("outcomes", told(10))
        assert in_a_thread(lambda: spans(engine)) == [1]
    assert in_a_thread(lambda: spans(engine)) == [11]


def test_writes_wait_for_each_other(engine):
    began = threading.Event()

    def second():
        began.set()
        put(engine, 10)

    with engine.write() as transaction:
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert began.wait(10)
        transaction.insert("outcomes", told(1))
        assert transaction.read(select(func.count().label("n")).select_from(outcomes)).to_pylist() == [{"n": 1}]
    thread.join(10)
    assert spans(engine) == 11


# After errors.


def test_a_failed_read_spoils_nothing(engine):
    put(engine)
    with pytest.raises(EngineError, match="nowhere"):
        engine.read(text("SELECT * FROM nowhere"))
    assert spans(engine) == 1


def test_it_reopens_under_threads_that_hold_it(engine):
    put(engine)
    read, reopened = threading.Event(), threading.Event()

    def other():
        before = spans(engine)
        read.set()
        assert reopened.wait(10)
        return before, spans(engine)

    came: list = []
    thread = threading.Thread(target=lambda: came.append(other()), daemon=True)
    thread.start()
    assert read.wait(10)
    engine.reopen()
    put(engine)
    reopened.set()
    thread.join(10)
    assert came == [(1, 2)]


DISK_FULL = """
import resource, signal, sys, threading
from pathlib import Path
import pyarrow as pa
from sqlalchemy import func, select
from millicent.warehouse.embedded import FILE, Embedded
from millicent.warehouse.engine import EngineError
from millicent.warehouse.tables import outcomes

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory = Path(sys.argv[1])
engine = Embedded(directory, threads=1)

def put(rows):
    with engine.write() as transaction:
        column = lambda value: [value] * rows
        transaction.insert("outcomes", pa.table({
            "tenant": column("t"), "hour": pa.array(column(0), pa.timestamp("us", "UTC")), "outcome": column("x"),
            "reason": [str(n) * 50 for n in range(rows)], "spans": column(1)}))

def count():
    return engine.read(select(func.count().label("n")).select_from(outcomes)).to_pylist()[0]["n"]

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def fails(work, *args):
    try:
        work(*args)
    except EngineError:
        return True
    return False

put(10)
held, done = threading.Event(), threading.Event()
other = threading.Thread(target=lambda: (count(), held.set(), done.wait()))
other.start()
held.wait()
limit((directory / f"{FILE}.wal").stat().st_size + 100)
print("commit fails:", fails(put, 5000), "and leaves", count())
limit(resource.RLIM_INFINITY)
put(3000)
limit((directory / FILE).stat().st_size)
print("checkpoint fails:", fails(engine.checkpoint))
limit(resource.RLIM_INFINITY)
engine.reopen()
put(1)
print("after reopening:", count())
engine.checkpoint()
done.set()
engine.close()
engine = Embedded(directory)
print("after starting again:", count())
"""


def test_a_full_disk_fails_commits_and_checkpoints_loses_nothing_and_passes(tmp_path):
    done = elsewhere(DISK_FULL, tmp_path)
    assert done.stdout.splitlines() == [
        "commit fails: True and leaves 10",
        "checkpoint fails: True",
        "after reopening: 3011",
        "after starting again: 3011",
    ], done.stderr


# Migrations.


def test_migrations_run_once(tmp_path):
    def applied():
        opened = Embedded(tmp_path, threads=1)
        put(opened)
        rows = opened.read(text("SELECT name, applied_at FROM migrations ORDER BY name")).to_pylist()
        opened.close()
        return rows

    first = applied()
    names = [row["name"] for row in first]
    assert names[0] == "0001_ledger.sql"
    assert names == sorted(file.name for file in (files("millicent.warehouse") / "migrations").iterdir())
    assert applied() == first


def test_facts_tell_what_it_is_and_how_large(engine, tmp_path):
    assert engine.facts()["engine"].startswith("DuckDB 1.5")
    assert engine.facts()["path"] == str(tmp_path / FILE)
    assert engine.facts()["bytes"] == (tmp_path / FILE).stat().st_size > 0


def test_a_statement_is_made_once_by_what_it_is_made_of(engine):
    made = []

    def one(number):
        made.append(number)
        return text("SELECT :number AS number").bindparams(number=number)

    asked = [1, 2, 1, 2]
    found = [engine.read(partial(one, number), ("one", number)).to_pylist() for number in asked]
    assert found == [[{"number": number}] for number in asked]
    assert made == [1, 2]
