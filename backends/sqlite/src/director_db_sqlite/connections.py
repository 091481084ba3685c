"""A connection to a SQLite database: its settings, a transaction on it, and its end."""

from __future__ import annotations

import contextlib
import ctypes
import sqlite3
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from director_db.errors import BackendUnavailableError, ConfigurationError
from director_db_sqlite.errors import primary_code, translate
from director_db_sqlite.locks import patiently

if TYPE_CHECKING:
    from collections.abc import Callable

    from director_db.errors import DirectorDBError

    Operation = Callable[[sqlite3.Connection], "T"]

T = TypeVar("T")

MEMORY: Final = ":memory:"

MIN_SQLITE: Final = (3, 37, 0)
"""The oldest SQLite that has all we use: STRICT tables."""

MAX_IDLE_LOG_BYTES: Final = 16 * 1024 * 1024
"""What a log file that grew is cut back to when it starts anew, in bytes."""

LOCK_WAIT: Final = 1.0
"""The longest that SQLite itself waits for a lock, in seconds; then we ask again."""

LONGEST_WAIT: Final = 30.0
"""The longest wait where the caller has not said how patient it is, in seconds."""


def connect(
    path: str, patience: float, *, synchronous: str, writable: bool = True
) -> sqlite3.Connection:
    """Open a connection in autocommit mode that any thread may use.

    With `synchronous` ``full`` a commit is on the disk when it returns; with ``normal`` when the
    log is next moved into the file.

    Raises:
        ConfigurationError: this SQLite is too old.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        wanted = ".".join(map(str, MIN_SQLITE))
        message = (
            f"SQLite {sqlite3.sqlite_version} is too old; director-db needs {wanted} or newer."
        )
        raise ConfigurationError(message)
    # Never creating a file: only `create_file` makes one that nobody else can read.
    connection = sqlite3.connect(
        path if path == MEMORY else f"{Path(path).as_uri()}?mode=rw",
        uri=True,
        timeout=min(LOCK_WAIT, patience),
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        # `synchronous` holds for a connection, not for the file: a build may default to NORMAL.
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_IDLE_LOG_BYTES}")
        if sys.platform == "darwin":
            # There, fsync alone does not reach the disk.
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
        if not writable:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_look(path: str, patience: float) -> sqlite3.Connection:
    """Open a connection to a file that may turn out not to be ours, and change nothing in it.

    Closing any other kind of connection empties a log that a crash has left.
    """
    return sqlite3.connect(
        f"{Path(path).as_uri()}?mode=ro", uri=True, timeout=min(LOCK_WAIT, patience)
    )


def forget(connection: sqlite3.Connection | None) -> None:
    """Keep an inherited connection from ever being closed: this is a forked child.

    Closing would run SQLite's clean-up on files that are in use in the parent, and so would the
    garbage collector, or the interpreter at its end.
    """
    if connection is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def transact(
    connection: sqlite3.Connection, operation: Operation[T], path: str, deadline: float
) -> T:
    """Run an operation in a transaction of its own."""
    try:
        patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline, lambda: path)
        result = operation(connection)
        try:
            # An old file may have no log until it is migrated, and then each of its readers is
            # waited for; the work before that does not count.
            longest = time.monotonic() + LONGEST_WAIT
            patiently(lambda: connection.execute("COMMIT"), longest, lambda: path)
        except sqlite3.Error as error:
            raise failure(error, path, committing=True) from error
    except BaseException:
        roll_back(connection)
        raise
    return result


def failure(cause: Exception, path: str, *, committing: bool) -> DirectorDBError:
    """Return an error for a call whose transaction came to nothing, with its cause.

    A new one for each call: several threads cannot raise one exception.
    """
    if primary_code(cause) == sqlite3.SQLITE_IOERR:
        # The log may hold a commit although its sync failed, and recovery find it.
        message = f"{path}: storing failed ({cause}). Check the disk."
        ours: DirectorDBError = BackendUnavailableError(message, maybe_applied=committing)
    else:
        message = f"{path}: storing failed ({cause!r}). Try again."
        ours = translate(cause, path) or BackendUnavailableError(message, retryable=True)
    ours.__cause__ = cause
    return ours


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction if one is open; a full disk, for one, has ended it already."""
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
