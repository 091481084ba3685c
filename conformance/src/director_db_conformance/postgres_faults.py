"""What an administrator can do to one database, so that clauses see what becomes of its users."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from director_db_conformance.dsn import parts, replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import LiteralString

    from director_db.testing import Fault
    from director_db_conformance.servers import Database, PostgresServer

_LET_NOBODY_IN: Final = "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS false"
_LET_THEM_IN: Final = "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true"
_MAKE_READ_ONLY: Final = "ALTER DATABASE {database} SET default_transaction_read_only = on"
_MAKE_WRITABLE: Final = "ALTER DATABASE {database} RESET default_transaction_read_only"
_RENAME: Final = "ALTER DATABASE {database} RENAME TO {aside}"
_RENAME_BACK: Final = "ALTER DATABASE {aside} RENAME TO {database}"

_FORBID: Final = "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {owner}"
_ALLOW: Final = "GRANT ALL ON ALL TABLES IN SCHEMA public TO {owner}"
# Readers go on, as beside any writer.
_LOCK: Final = "LOCK TABLE director_sessions IN EXCLUSIVE MODE"
_LOCK_SESSION: Final = "SELECT FROM director_sessions WHERE session_id = %s FOR UPDATE"
_DELETE_SESSION: Final = "DELETE FROM director_sessions WHERE session_id = %s"


def faults_of(
    server: PostgresServer, database: Database, *, pooled: bool = False
) -> dict[str, Fault]:
    """Return what can be brought about in a database, by the names of `FAULTS`.

    Not ``full`` and ``damaged``: the disk is the whole server's, and so are its files. If it is
    `pooled`, neither ``refused`` nor ``gone``: a pooler lets its clients in all the same, and lets
    them wait.
    """
    altered = partial(_altered, server, database)
    inside = partial(_inside, replace(server.dsn, dbname=database.name), _owner(database))
    faults: dict[str, Fault] = {
        "locked": lambda: _locked(database),
        "forbidden": lambda: inside(_FORBID, _ALLOW),
        "read-only": lambda: altered(_MAKE_READ_ONLY, _MAKE_WRITABLE),
    }
    if not pooled:
        faults["refused"] = lambda: altered(_LET_NOBODY_IN, _LET_THEM_IN)
        faults["gone"] = lambda: _gone(altered(_LET_NOBODY_IN, _LET_THEM_IN), server, database)
    return faults


def delete_session_row(database: Database, session_id: str) -> None:
    """Delete a session's row with SQL, as its owner."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(_DELETE_SESSION, (session_id,))


@contextmanager
def lock_session_row(database: Database, session_id: str) -> Iterator[None]:
    """Hold the lock of a session's row, as a transaction that somebody forgot to end."""
    with psycopg.connect(database.dsn) as other:
        other.execute(_LOCK_SESSION, (session_id,))
        yield


@contextmanager
def _altered(
    server: PostgresServer, database: Database, begin: LiteralString, end: LiteralString
) -> Iterator[None]:
    """Alter a database for a while, and end its connections, which know what held before."""

    def alter(statement: LiteralString) -> None:
        _run(server.dsn, statement, database=sql.Identifier(database.name))
        server.end_connections(database)

    alter(begin)
    try:
        yield
    finally:
        alter(end)


@contextmanager
def _inside(
    dsn: str, owner: sql.Identifier, begin: LiteralString, end: LiteralString
) -> Iterator[None]:
    """Change something inside of a database for a while."""
    _run(dsn, begin, owner=owner)
    try:
        yield
    finally:
        _run(dsn, end, owner=owner)


@contextmanager
def _locked(database: Database) -> Iterator[None]:
    with psycopg.connect(database.dsn) as other:
        other.execute(_LOCK)
        yield


@contextmanager
def _gone(
    empty: AbstractContextManager[None], server: PostgresServer, database: Database
) -> Iterator[None]:
    names = {
        "database": sql.Identifier(database.name),
        "aside": sql.Identifier(f"{database.name}_"),
    }
    with empty:
        _run(server.dsn, _RENAME, **names)
        try:
            yield
        finally:
            _run(server.dsn, _RENAME_BACK, **names)


def _run(dsn: str, statements: LiteralString, **names: sql.Identifier) -> None:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        connection.execute(sql.SQL(statements).format(**names))


def _owner(database: Database) -> sql.Identifier:
    return sql.Identifier(parts(database.dsn).get("user", ""))
