"""The file of a database: its creation, and which file a path names now."""

from __future__ import annotations

import os
from typing import Final

from director_db.errors import BackendUnavailableError, ConfigurationError, SchemaError

FileId = tuple[int, int]
"""The device and inode of a file: what stays the same under every name."""

_LOG_SUFFIX: Final = "-wal"


class FileReplacedError(Exception):
    """The file of a transaction was deleted or replaced before its COMMIT; nothing was done."""


def absolute(path: str, directory: str | None) -> str:
    """Return a path made absolute, from the home, a folder or else the working directory."""
    if path.startswith("~"):
        path = os.path.expanduser(path)  # noqa: PTH111 - a name that nobody has is left as it is
    try:
        return os.path.abspath(os.path.join(directory or "", path))  # noqa: PTH100, PTH118
    except OSError as error:
        message = f"The SQLite file {path} is relative, and the working directory is gone: {error}."
        raise ConfigurationError(message) from error


def file_id(path: str) -> FileId | None:
    """Return which file is there now; None if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - at each operation, and several times faster
    except OSError:
        return None
    return status.st_dev, status.st_ino


def log_path(path: str) -> str:
    """Return where SQLite keeps the write-ahead log of the database at `path`."""
    return os.path.realpath(path) + _LOG_SUFFIX  # Beside the file itself, not beside a link to it.


def log_id(path: str) -> FileId | None:
    """Return which file is the write-ahead log of the database at `path` now."""
    return file_id(log_path(path))


def log_bytes(path: str) -> int:
    """Return the length of the write-ahead log of the database at `path`, in bytes."""
    try:
        return os.stat(log_path(path)).st_size  # noqa: PTH116 - as file_id
    except OSError:
        return 0


def refuse_foreign_log(path: str, known: FileId | None) -> None:
    """Refuse a file that was put in the place of another one, whose log is still there.

    SQLite would take that log for the new file's own, and destroy it.
    """
    if known is not None and log_id(path) == known:
        message = (
            f"{path} was replaced while it was in use, and {path}{_LOG_SUFFIX} still belongs to "
            f"the file before it. Stop every process that uses it, delete {path}{_LOG_SUFFIX} and "
            f"{path}-shm, and put the new file there again."
        )
        raise SchemaError(message)


def refuse_log_without_file(path: str) -> None:
    """Refuse to make a new file where a log lies that is not empty.

    SQLite would delete it, and with it what is in no other file: of a young database that is all.
    """
    if log_bytes(path) and file_id(path) is None:  # In this order: others may just create both.
        log = log_path(path)
        message = (
            f"{path} is not there, and its log, {log}, is. If the file was moved, move the log, "
            f"too, or bring the file back; if it was deleted, delete {log} and "
            f"{os.path.realpath(path)}-shm as well."
        )
        raise SchemaError(message)


def create_file(path: str) -> None:
    """Create the file for this user alone; SQLite itself would make it readable for all."""
    # SQLite follows a link to a file that is not there yet.
    path = os.path.realpath(path)
    folder = os.path.dirname(path)  # noqa: PTH120
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises where it may not look
        message = f"There is no folder {folder} to hold {path}. Create it, or set SQLITE_DB_PATH."
        raise ConfigurationError(message)
    try:
        # Unlike open(), this leaves no descriptor whose closing would drop SQLite's locks.
        os.mknod(path, 0o600)
    except FileExistsError:
        pass
    except (AttributeError, OSError):
        # Not every system has it, or grants it to everybody.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            message = f"{path} cannot be created: {error.strerror}."
            raise BackendUnavailableError(message) from error
