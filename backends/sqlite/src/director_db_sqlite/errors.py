"""SQLite's result codes in terms of our errors; never by the text of a message."""

from __future__ import annotations

import sqlite3
from typing import Final

from director_db.errors import (
    BackendUnavailableError,
    ClosedError,
    DirectorDBError,
    SchemaError,
)

# The low byte of an extended result code is its primary code.
_PRIMARY: Final = 0xFF

# Another connection is in the way for now. PROTOCOL: too many tries to start a read.
WAIT: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})

_UNAVAILABLE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: (
        "it is read-only; give this user the right to write it, the files of its name that end in "
        "-wal and -shm, and its folder"
    ),
    sqlite3.SQLITE_PERM: "this user may not use it; correct its mode or owner",
    sqlite3.SQLITE_AUTH: "this user may not use it; correct its mode or owner",
    sqlite3.SQLITE_CANTOPEN: (
        "it or its log cannot be opened; check that this user may write the file and its folder"
    ),
    sqlite3.SQLITE_IOERR: "reading or writing it failed; check the disk",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a backup, or save what is left with .recover",
    sqlite3.SQLITE_NOMEM: "the memory is full",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_NOLFS: "the file system cannot hold a file of this size",
}
_RETRYABLE: Final = frozenset({*WAIT, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT})


def primary_code(error: Exception) -> int:
    """Return the primary result code of a driver's exception, 0 if it carries none."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def translate(error: Exception, place: str) -> DirectorDBError | None:
    """Return our error for an exception of the driver, None for any other exception."""
    if isinstance(error, OSError):
        message = f"{place} cannot be used: {error.strerror or error}."
        return BackendUnavailableError(message)
    if isinstance(error, sqlite3.ProgrammingError):
        # A signal's handler called close() in the middle of this operation of its own thread.
        return ClosedError(f"{place} was closed during the operation.")
    if isinstance(error, UnicodeDecodeError):
        # A message of SQLite's that quotes the text of a damaged schema.
        return _unavailable(sqlite3.SQLITE_CORRUPT, error, place)
    if not isinstance(error, sqlite3.Error):
        return None
    code = primary_code(error)
    if code == sqlite3.SQLITE_NOTADB:
        return SchemaError(f"{place} is not a SQLite database. Choose another file.")
    if code in WAIT:
        message = (
            f"{place} stayed locked by another connection ({error}). Try again, or raise "
            "SQLITE_OPERATION_TIMEOUT."
        )
        return BackendUnavailableError(message, retryable=True)
    if code in _UNAVAILABLE:
        return _unavailable(code, error, place)
    # What is left says that the tables are not as we made them: a missing table or column, a
    # constraint of somebody else's, text that is not UTF-8.
    return SchemaError(f"{place} is not as director-db made it: {error}.")


def _unavailable(code: int, error: Exception, place: str) -> BackendUnavailableError:
    message = f"{place} cannot be used: {_UNAVAILABLE[code]} ({error})."
    return BackendUnavailableError(message, retryable=code in _RETRYABLE)
