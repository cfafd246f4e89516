"""DuckDB in one file, owned by one process."""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import duckdb
import polars as pl
import pyarrow as pa
from duckdb_sqlalchemy import Dialect
from sqlalchemy.sql import ClauseElement, Executable

from millicent.warehouse.engine import EngineError, RowsRefusedError
from millicent.warehouse.revisions import FACTS, Days, Revisions, changed_table, days_of

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler

FILE: Final = "millicent.duckdb"
LOCK: Final = "warehouse.lock"
SETTINGS: Final = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
    "checkpoint_threshold": "256MB",
    "disabled_optimizers": "join_filter_pushdown",  # fails on UUID columns of a registered Arrow table
    "python_enable_replacements": "false",
}
MOST_TEXTS: Final = 500
"""Statements that are kept as text, some 20 KB each."""
DIALECT: Final = Dialect(paramstyle="numeric_dollar")
_PARAMETER: Final = re.compile(r"\$(\d+)")


def compiled(statement: Executable) -> tuple[str, list[Any]]:
    """SQL text with `$1` parameters, and their values in order, each once.

    DuckDB looks for pandas twice for every value that it is given, which takes 0.1 ms where there is none.
    """
    clause = cast("ClauseElement", statement)
    sql = cast("SQLCompiler", clause.compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True}))
    told = [sql.params[name] for name in sql.positiontup or ()]
    alike = [f"{type(value).__name__} {value!r}" for value in told]
    values = dict(zip(alike, told, strict=True))
    place = {name: f"${number}" for number, name in enumerate(values, start=1)}
    return _PARAMETER.sub(lambda found: place[alike[int(found[1]) - 1]], str(sql)), list(values.values())


class Embedded:
    """One DuckDB file behind our own lock.

    The lock is a file of its own because DuckDB's is lost when anything else in the process opens the database file.

    Args:
        directory: where `millicent.duckdb` lives; created if missing.
        memory_limit: as DuckDB writes it, "384MB".
        threads: for one query.

    Raises:
        EngineError: another process owns the directory, or the file cannot be opened.
    """

    def __init__(self, directory: Path, *, memory_limit: str = "1GB", threads: int = os.cpu_count() or 2) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.revisions = Revisions()
        self._path = directory / FILE
        self._config: dict[str, str | bool | int | float | list[str]] = {
            **SETTINGS,
            "memory_limit": memory_limit,
            "threads": str(threads),
        }
        self._lock_file = _exclusive(directory / LOCK)
        self._write_lock = threading.RLock()
        self._texts: OrderedDict[Hashable, tuple[str, list[Any]]] = OrderedDict()
        self._texts_lock = threading.Lock()
        self._local = threading.local()
        self._generation = 0
        try:
            self._open()
            _migrate(self._connection)
        except BaseException:
            os.close(self._lock_file)
            raise

    def _open(self) -> None:
        try:
            self._connection = duckdb.connect(str(self._path), config=self._config)
        except duckdb.Error as error:
            raise EngineError(f"{self._path} cannot be opened: {error}") from error
        self._connection.execute("SET lock_configuration = true")
        self._generation += 1

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if getattr(self._local, "generation", None) != self._generation:
            self._local.cursor = self._connection.cursor()
            self._local.generation = self._generation
        cursor: duckdb.DuckDBPyConnection = self._local.cursor
        return cursor

    def read(
        self, statement: Executable | Callable[[], Executable], known_as: Hashable | None = None, **frames: pa.Table
    ) -> pa.Table:
        asked = self._made(statement, known_as)
        generation = self._generation
        try:
            with _visible(self._cursor(), frames):
                return _answer(self._cursor(), *asked)
        except duckdb.Error as error:
            with self._write_lock:  # a reopening that took the connection away is over now
                if generation == self._generation:
                    raise EngineError(str(error)) from error
        return self.read(statement, known_as, **frames)

    def _made(
        self, statement: Executable | Callable[[], Executable], known_as: Hashable | None
    ) -> tuple[str, list[Any]]:
        """The text of a statement and its values, made once by what it is known as."""
        with self._texts_lock:
            known = self._texts.get(known_as) if known_as is not None else None
            if known is not None:
                self._texts.move_to_end(known_as)
                return known
        made = compiled(statement() if callable(statement) else statement)
        if known_as is not None:
            with self._texts_lock:
                self._texts[known_as] = made
                if len(self._texts) > MOST_TEXTS:
                    self._texts.popitem(last=False)
        return made

    @contextmanager
    def write(self) -> Iterator[EmbeddedTransaction]:
        with self._write_lock:
            cursor = self._cursor()
            try:
                cursor.execute("BEGIN TRANSACTION")
                yield (transaction := EmbeddedTransaction(cursor))
                with self.revisions.changing(transaction.days):
                    cursor.execute("COMMIT")
            except BaseException as error:
                with suppress(duckdb.Error):  # nothing is open any more when the commit itself failed
                    cursor.execute("ROLLBACK")
                if isinstance(error, (duckdb.DataError, duckdb.IntegrityError)):
                    raise RowsRefusedError(str(error)) from error
                if isinstance(error, duckdb.Error):
                    raise EngineError(str(error)) from error
                raise

    def reopen(self) -> None:
        with self._write_lock, self.revisions.changing(None):  # a commit that failed may turn out to be durable
            self._connection.close()
            self._open()

    def checkpoint(self) -> None:
        with self._write_lock:
            try:
                self._cursor().execute("CHECKPOINT")
            except duckdb.Error as error:
                raise EngineError(f"{self._path} cannot be checkpointed: {error}") from error

    def close(self) -> None:
        with self._write_lock:
            self._connection.close()
        os.close(self._lock_file)

    def facts(self) -> dict[str, Any]:
        size = self._path.stat().st_size if self._path.exists() else 0
        return {"engine": f"DuckDB {duckdb.__version__}", "path": str(self._path), "bytes": size}


class EmbeddedTransaction:
    """One open transaction on the writer's cursor.

    Attributes:
        days: UTC days whose facts it changes; None when any may be.
    """

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self.days: set[date] | None = set()
        self._cursor = cursor
        self._beside: duckdb.DuckDBPyConnection | None = None

    def insert(self, table: str, rows: pa.Table, *, days: Days | None = None) -> None:
        if table in FACTS:
            self._change(days_of(pl.Series(rows[FACTS[table]])) if days is None else days)
        with _visible(self._cursor, {"incoming": rows}):
            self._cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608 - table is ours

    def execute(self, statement: Executable, *, days: Days | None = None, **frames: pa.Table) -> None:
        if changed_table(statement) is not None:
            self._change(days)
        with _visible(self._cursor, frames):
            self._cursor.execute(*compiled(statement))

    def read(self, statement: Executable, **frames: pa.Table) -> pa.Table:
        with _visible(self._cursor, frames):
            return _read(self._cursor, statement)

    def before(self, statement: Executable) -> pa.Table:
        if self._beside is None:  # nothing commits beside the one transaction that may write
            self._beside = self._cursor.cursor()
        return _read(self._beside, statement)

    def _change(self, days: Days | None) -> None:
        self.days = None if days is None or self.days is None else self.days | set(days)


@contextmanager
def _visible(cursor: duckdb.DuckDBPyConnection, frames: dict[str, pa.Table]) -> Iterator[None]:
    for name, frame in frames.items():
        cursor.register(name, _naive(frame))
    try:
        yield
    finally:
        for name in frames:
            cursor.unregister(name)


def _read(cursor: duckdb.DuckDBPyConnection, statement: Executable) -> pa.Table:
    return _answer(cursor, *compiled(statement))


def _answer(cursor: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> pa.Table:
    table = cursor.execute(sql, values).to_arrow_table()
    return _retyped(table, pa.timestamp("us"), pa.timestamp("us", "UTC"))


def _naive(table: pa.Table) -> pa.Table:
    """Stored instants carry no zone: the zone of every TIMESTAMP column is UTC by definition."""
    return _retyped(table, pa.timestamp("us", "UTC"), pa.timestamp("us"))


def _retyped(table: pa.Table, old: pa.DataType, new: pa.DataType) -> pa.Table:
    fields = [field.with_type(new) if field.type == old else field for field in table.schema]
    return table.cast(pa.schema(fields)) if any(field.type == old for field in table.schema) else table


def _exclusive(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 20, 0).decode() or "unknown"
        os.close(handle)
        raise EngineError(
            f"{path.parent} is in use by process {holder}: one process owns an embedded warehouse. "
            "Talk to it with --url, stop it, or choose another --data."
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply what is missing, each file in its own transaction with its record."""
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)")
    applied = {name for (name,) in connection.execute("SELECT name FROM migrations").fetchall()}
    folder = files("millicent.warehouse") / "migrations"
    pending = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql") and file.name not in applied)
    for name in pending:
        connection.execute("BEGIN TRANSACTION")
        connection.execute((folder / name).read_text("utf-8"))
        connection.execute("INSERT INTO migrations VALUES (?, now() AT TIME ZONE 'UTC')", [name])
        connection.execute("COMMIT")
    if pending:
        connection.execute("CHECKPOINT")
