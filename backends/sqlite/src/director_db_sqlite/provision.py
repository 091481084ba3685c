"""A new place for a test, and what can go wrong with a SQLite file.

Damage and the like come as another file in the place of the first: whoever writes into one that
SQLite has open would see no effect, as its pages are cached, and would drop its locks.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from director_db.testing import Place, files_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from director_db.testing import Fault

_PAGE: Final = 4096

# In the file's header: above 2, SQLite takes the file for one that it may only read.
_WRITE_VERSION: Final = 18
_READ_ONLY: Final = 3

_LARGEST_FILE: Final = 4 * 1024 * 1024

_NAME: Final = "director.db"


def provision(
    directory: Path, db_type: str = "sqlite", env: Mapping[str, str] | None = None
) -> Place:
    """Provide a file that does not exist yet, in a folder of its own.

    Args:
        directory: an empty folder.
        db_type: the DB type, for a backend that keeps such files as well.
        env: what it takes to open the place besides the path.
    """
    folder = directory / "place"
    folder.mkdir()
    path = folder / _NAME
    faults: dict[str, Fault] = {
        "locked": lambda: _locked(path),
        "read-only": lambda: _replaced(path, _make_read_only),
        "damaged": lambda: _replaced(path, _damage),
        "gone": lambda: _gone(folder),
    }
    with suppress(ImportError):
        import resource  # noqa: F401, PLC0415 - not on every system

        faults["full"] = _full
    return Place(
        db_type,
        {"SQLITE_DB_PATH": path, **(env or {})},
        url=f"{db_type}:///{path}",
        impatient={"operation_timeout": 0.6},
        delete_session_row=lambda session_id: _delete_session_row(path, session_id),
        connections=files_in(folder),
        faults=faults,
        apart=True,
    )


def _delete_session_row(path: Path, session_id: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # It holds for a connection, and is off unless somebody asks for it.
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM director_sessions WHERE session_id = ?", (session_id,))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def _replaced(path: Path, change: Callable[[bytearray], None]) -> Iterator[None]:
    """Let a changed copy stand in the place of the file for a while."""
    good = path.with_name("good.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(good)) as target:
        source.backup(target)
    content = bytearray(good.read_bytes())
    change(content)
    bad = path.with_name("bad.db")
    bad.write_bytes(content)
    _put(bad, path)
    try:
        yield
    finally:
        _put(good, path)


def _put(new: Path, path: Path) -> None:
    # As one restores a backup: the log is of the file before.
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)


def _make_read_only(content: bytearray) -> None:
    content[_WRITE_VERSION] = _READ_ONLY


def _damage(content: bytearray) -> None:
    content[_PAGE:] = b"\xa5" * (len(content) - _PAGE)


@contextmanager
def _gone(folder: Path) -> Iterator[None]:
    aside = folder.with_name(f"{folder.name}.aside")
    folder.rename(aside)
    try:
        yield
    finally:
        aside.rename(folder)


@contextmanager
def _full() -> Iterator[None]:
    """Let no file of this process grow beyond 4 MiB, as a quota does."""
    import resource  # noqa: PLC0415 - not on every system

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
