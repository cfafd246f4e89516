"""The seam between the product and a database: run this statement there, commit these rows together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa
from sqlalchemy.sql import Executable

from millicent.warehouse.revisions import Days, Revisions


class EngineError(RuntimeError):
    """The database refused or failed; the message says what to do."""


class RowsRefusedError(EngineError):
    """The database is well; these rows are not what it can hold. Trying them again gives the same answer."""


class Transaction(Protocol):
    """What may happen between begin and commit; all of it or none of it."""

    def insert(self, table: str, rows: pa.Table, *, days: Days | None = None) -> None:
        """Append `rows`, matched to the columns of `table` by name; a missing column becomes NULL.

        `days` are those whose facts change by it, where that is not the days of the rows.
        """

    def execute(self, statement: Executable, *, days: Days | None = None, **frames: pa.Table) -> None:
        """Run one statement that returns nothing; `frames` are tables by name.

        `days` are those whose facts it changes; where it changes facts and does not tell, nothing that was answered is
        taken for still true.
        """

    def read(self, statement: Executable, **frames: pa.Table) -> pa.Table:
        """Run one statement that returns rows, seeing this transaction's own changes; `frames` are tables by name."""

    def before(self, statement: Executable) -> pa.Table:
        """Run one statement that returns rows as they were before this transaction; from one other thread, too."""


class Engine(Protocol):
    """A database that holds the facts.

    Attributes:
        revisions: counts every change that is committed to them.
    """

    revisions: Revisions

    def read(
        self, statement: Executable | Callable[[], Executable], known_as: Hashable | None = None, **frames: pa.Table
    ) -> pa.Table:
        """Run one statement on a consistent snapshot; safe from any thread.

        Columns of type TIMESTAMP come back aware, in UTC.

        Args:
            statement: it, or what makes it.
            known_as: everything that the statement is made of; one that was made not long ago is not made again.
            frames: tables by name, for this statement alone.

        Raises:
            EngineError: the statement failed or ran out of time.
        """

    def write(self) -> AbstractContextManager[Transaction]:
        """The one transaction that may write now; others wait. Commits on leaving, rolls back on an exception.

        Raises:
            EngineError: the commit failed. It may still be durable: call `reopen`, read what is stored, decide from it.
        """

    def reopen(self) -> None:
        """Close and open again, as after an error that left the database unusable."""

    def checkpoint(self) -> None:
        """Make everything committed so far part of the database file itself.

        Raises:
            EngineError: it could not be written; nothing committed is lost. Call `reopen`.
        """

    def close(self) -> None:
        """Close for good."""

    def facts(self) -> dict[str, Any]:
        """Version, size and path, for `doctor` and `/metrics`."""
