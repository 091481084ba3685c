"""A Postgres server that tests use, wherever it comes from."""

from __future__ import annotations

import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Final, LiteralString, NamedTuple, Self

from director_db_conformance.dsn import parts, replace

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    import psycopg

DATABASE_PREFIX: Final = "director_db_test_"

# The server copies the empty template block by block; nothing of template1, which belongs to
# whoever set up the server, gets into a test.
_CREATE_DATABASE: Final = "CREATE DATABASE {name} OWNER {owner} TEMPLATE template0"
# The C locale goes with every encoding.
_ENCODED: Final = " ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C'"
_RENAME_DATABASE: Final = "ALTER DATABASE {old} RENAME TO {name}"
_EMPTY: Final = """
    DO $$
    DECLARE own name;
    BEGIN
        FOR own IN SELECT nspname FROM pg_namespace
            WHERE nspname = 'public' OR oid >= 16384 AND nspname !~ '^pg_'
        LOOP
            EXECUTE format('DROP SCHEMA %I CASCADE', own);
        END LOOP;
    END $$;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC
"""
# Somebody may come back in between, and stay in a transaction.
_LIMIT_LOCK_WAITS: Final = "SET lock_timeout = '5s'"
# What the system itself brings along has lower numbers.
_IS_EMPTY: Final = """
    SELECT datallowconn AND datacl IS NULL AND NOT EXISTS (
        SELECT FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT FROM pg_extension WHERE oid >= 16384
        UNION ALL SELECT FROM pg_largeobject_metadata
        UNION ALL SELECT FROM pg_default_acl
        UNION ALL SELECT FROM pg_db_role_setting WHERE setdatabase = pg_database.oid
    )
    FROM pg_database WHERE datname = current_database()
"""
_DROP_DATABASE: Final = "DROP DATABASE IF EXISTS {name} WITH (FORCE)"
# All at once: a server that waits for one looks ten times a second, and the others go on meanwhile.
_END_CONNECTIONS: Final = """
    SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = %s AND pid <> pg_backend_pid()
"""
_ARE_LEFT: Final = "SELECT FROM pg_stat_activity WHERE datname = %s AND pid = ANY(%s)"
_LONGEST_END: Final = 10.0
_PAUSE: Final = 0.005


class Database(NamedTuple):
    """A database of its own on a server of the tests.

    Attributes:
        name: its name.
        dsn: the URL by which its owner connects; it holds the password.
    """

    name: str
    dsn: str

    def __repr__(self) -> str:
        # Test frameworks show the arguments of what failed, and a server may be somebody's own.
        return f"<Database {self.name}>"

    @property
    def environment(self) -> dict[str, str]:
        """The settings with which director-db opens it."""
        return {"DB_TYPE": "postgres", "POSTGRES_DSN": self.dsn}


class PostgresServer:
    """A running server with an account that may create databases.

    Attributes:
        source: where it comes from, for people.
        version: its version, such as ``15.18``.
        can_restart: whether `stop`, `start`, `restart`, `kill`, `freeze` and `thaw` work.
    """

    can_restart: bool = False

    def __init__(self, source: str, version: str, dsn: str, owner_dsn: str | None = None) -> None:
        """Take a server that runs.

        Args:
            source: where it comes from.
            version: its version.
            dsn: how to connect to it and create databases.
            owner_dsn: how the owner of those databases connects, if it is another account.
        """
        self.source = source
        self.version = version
        self._dsn = dsn
        self._owner_dsn = owner_dsn or dsn
        self._created: set[str] = set()
        self._emptied: list[Database] = []
        self._lock = threading.Lock()
        self._kept: psycopg.Connection | None = None
        self._keeper = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        return f"{self.version} from {self.source}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """The URL of the account that may create databases; it holds the password."""
        return self._dsn

    @property
    def owner_dsn(self) -> str:
        """The URL of the account that owns the databases; it holds the password."""
        return self._owner_dsn

    @property
    def host(self) -> str:
        """Where it listens."""
        return parts(self.dsn).get("host", "localhost")

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(parts(self.dsn).get("port", "5432"))

    def create_database(self, encoding: str | None = None) -> Database:
        """Create an empty database under a name that no other test has.

        Args:
            encoding: as Postgres calls it, such as ``LATIN1``; None for the server's own.
        """
        import psycopg  # noqa: PLC0415 - an extra

        name = f"{DATABASE_PREFIX}{secrets.token_hex(8)}"
        database = Database(name, replace(self._owner_dsn, dbname=name))
        if encoding is None and self._emptied:
            old = self._emptied.pop()
            try:
                self._administer(_RENAME_DATABASE, old=old.name, name=name)
            except psycopg.errors.ObjectInUse:
                # A pooler was still logging in to it, for a client that has gone.
                self.drop_database(old)
            else:
                self._created = self._created - {old.name} | {name}
                return database
        owner = parts(self._owner_dsn).get("user", "")
        if encoding is None:
            self._administer(_CREATE_DATABASE, name=name, owner=owner)
        else:
            statement = f"{_CREATE_DATABASE}{_ENCODED}"
            self._administer(statement, name=name, owner=owner, encoding=encoding)
        self._created.add(name)
        return database

    def drop_database(self, database: Database) -> None:
        """Drop a database, also from under those who use it."""
        self._administer(_DROP_DATABASE, name=database.name)
        self._created.discard(database.name)

    def give_back(self, database: Database) -> None:
        """Drop a database of the server's own encoding, or empty it for whoever needs one next.

        To create one takes the server as long as many a test. It gets another name, and where
        anything is left that an empty one does not have, it is dropped. Of somebody's own server no
        more is asked than to create databases and to drop them.
        """
        import psycopg  # noqa: PLC0415 - an extra

        if not self.can_restart:
            self.drop_database(database)
            return
        try:
            dsn = replace(self.dsn, dbname=database.name)
            with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
                _end_connections(connection, database)
                connection.execute(_LIMIT_LOCK_WAITS)
                connection.execute(_EMPTY)
                is_empty = connection.execute(_IS_EMPTY).fetchone() == (True,)
        except (psycopg.Error, TimeoutError):
            is_empty = False
        if is_empty:
            self._emptied.append(database)
        else:
            self.drop_database(database)

    def cut(self, database: Database) -> None:
        """End every connection to a database, whatever is under way there."""
        self.end_connections(database)

    def end_connections(self, database: Database) -> None:
        """Do as `cut`, in the plainest way, and return when they have ended."""
        self._on_kept(lambda connection: _end_connections(connection, database))

    def stop(self) -> None:
        """Stop it in order: no new connections, transactions in progress rolled back."""
        raise self._immovable()

    def start(self) -> None:
        """Start it again on the same port."""
        raise self._immovable()

    def kill(self) -> None:
        """End all its processes with SIGKILL, as if the machine had crashed."""
        raise self._immovable()

    def freeze(self) -> None:
        """Hold all its processes as they are: it refuses nothing, and answers nothing."""
        raise self._immovable()

    def thaw(self) -> None:
        """Let them go on; nothing happens if they are not held."""
        raise self._immovable()

    def restart(self) -> None:
        """Stop it in order and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Give it up: drop the databases that are left and whatever was made for the tests."""
        for name in list(self._created):
            self.drop_database(Database(name, ""))
        self._hang_up()

    def connect(self) -> psycopg.Connection:
        """Connect as the account that may create databases, in autocommit mode."""
        import psycopg  # noqa: PLC0415 - an extra

        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=10)

    def _administer(self, statement: LiteralString, **names: str) -> None:
        from psycopg import sql  # noqa: PLC0415 - an extra

        identifiers = {key: sql.Identifier(value) for key, value in names.items()}
        complete = sql.SQL(statement).format(**identifiers)
        self._on_kept(lambda connection: connection.execute(complete))

    def _on_kept(self, work: Callable[[psycopg.Connection], object]) -> None:
        """Use a connection that is kept; a new one costs more than most of what is done on it."""
        import psycopg  # noqa: PLC0415 - an extra

        with self._lock:
            if self._kept is not None and self._keeper == os.getpid():
                try:
                    work(self._kept)
                except psycopg.OperationalError:
                    if not self._kept.broken:
                        raise
                else:
                    return
            # The first one, or a restart has ended the last, or that is of who forked this process.
            self._kept, self._keeper = self.connect(), os.getpid()
            work(self._kept)

    def _hang_up(self) -> None:
        """Close the connection that is kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _immovable(self) -> RuntimeError:
        return RuntimeError(
            f"The tests cannot stop or start the server from {self.source}. "
            "Use find_cluster() for one that they can."
        )


def _end_connections(connection: psycopg.Connection, database: Database) -> None:
    """End all others to a database, and return when they have let go of what they held."""
    ended = [pid for pid, _ in connection.execute(_END_CONNECTIONS, (database.name,))]
    deadline = time.monotonic() + _LONGEST_END
    while connection.execute(_ARE_LEFT, (database.name, ended)).fetchone() is not None:
        if time.monotonic() > deadline:
            message = f"Connections to {database.name} did not end within {_LONGEST_END:g} s."
            raise TimeoutError(message)
        time.sleep(_PAUSE)
