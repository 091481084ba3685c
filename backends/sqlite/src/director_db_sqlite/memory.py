"""A database in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.errors import ClosedError
from director_db.locks import new_lock
from director_db_sqlite import schema
from director_db_sqlite.connections import (
    LOCK_WAIT,
    MEMORY,
    connect,
    forget,
    roll_back,
    transact,
)
from director_db_sqlite.locks import locked
from director_db_sqlite.old_layout import no_migration

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from director_db.records import Migration
    from director_db_sqlite.connections import Operation

T = TypeVar("T")


class MemoryDatabase:
    """A database in memory, private to its instance: one connection under a lock."""

    path: Final = ":memory:"

    def __init__(self, patience: float) -> None:
        """Open nothing yet; calls wait for one another for so many seconds."""
        self._patience = patience
        self._lock = new_lock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    def read(self, operation: Operation[T], most: int | None = None) -> T:  # noqa: ARG002 - no crowd
        """Run an operation that only reads."""
        return self._locked(lambda: operation(self._open()))

    def write(self, operation: Operation[T], size: int) -> T:  # noqa: ARG002 - there is no log
        """Run an operation in a transaction."""

        def write() -> T:
            connection = self._open()
            roll_back(connection)
            return transact(connection, operation, self.path, time.monotonic())

        return self._locked(write)

    def _locked(self, run: Callable[[], T]) -> T:
        return locked(self._lock, run, self.path, time.monotonic() + self._patience)

    def write_each(
        self, operations: Sequence[tuple[Operation[bool], int]]
    ) -> list[bool | Callable[[], bool]]:
        """Run none: there is no commit to share."""
        return [False] * len(operations)

    def count_written(self, size: int) -> None:
        """Do nothing: there is no log."""

    def check(self) -> None:
        """Create the tables if this is the first use."""
        self._locked(self._open)

    def migrate(self, *, skip_invalid: bool) -> Migration:  # noqa: ARG002 - the protocol's
        """Migrate nothing: what is in memory began empty."""
        self.check()
        return no_migration()

    def close(self, *, for_good: bool = False) -> None:
        """Close the connection, and with it lose what it held."""
        self._closed = self._closed or for_good
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def renew_locks(self) -> None:
        """Make the lock anew."""
        self._lock = new_lock()

    def abandon(self, *, in_flight: bool) -> None:  # noqa: ARG002 - memory has no locks
        """Start empty: a forked child shares nothing with its parent."""
        forget(self._connection)
        self._connection = None
        self._lock = new_lock()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self._closed:
                # By a signal's handler, in the middle of an operation.
                message = "This database in memory was closed in the middle of this operation."
                raise ClosedError(message)
            connection = connect(MEMORY, LOCK_WAIT, synchronous="full")
            schema.create(connection)
            self._connection = connection
        return self._connection
