"""The tables: created by many at once, and made of the wrong kind."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import psycopg

from director_db_postgres import schema
from director_db_postgres.connections import Connection
from gallery.postgres.broken import BrokenPostgresDB, edit_tables

_SLOW = "SELECT pg_sleep(0.1)"
_KILLED = {"rule": "LIF-4", "level": "durable"}
_FIRST_USE = {"rule": "LIF-4", "level": "concurrent"}


class NoLockForCreating(BrokenPostgresDB, **_FIRST_USE):
    """Two workers look at an empty database, and both create the tables."""

    by = "open_a_new_place_at_once"

    @classmethod
    def break_code(cls):
        schema._LOCK = b"SELECT 1"


class CreatedIfNotThere(BrokenPostgresDB, **_FIRST_USE):
    """IF NOT EXISTS is taken for a lock; two who create one table at once collide all the same."""

    by = "open_a_new_place_at_once"

    @classmethod
    def break_code(cls):
        schema._LOCK = b"SELECT 1"
        edit_tables(
            ("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"),
            ("CREATE INDEX", "CREATE INDEX IF NOT EXISTS"),
            (
                "VALUES ('schema_version', '1')",
                "VALUES ('schema_version', '1') ON CONFLICT DO NOTHING",
            ),
        )


class SnapshotFromBeforeTheLock(BrokenPostgresDB, **_FIRST_USE):
    """Whoever waited for the lock sees the database as it was before the wait."""

    by = "open_a_new_place_at_once"

    @classmethod
    def break_code(cls):
        levels = SimpleNamespace(READ_COMMITTED=psycopg.IsolationLevel.REPEATABLE_READ)
        schema.psycopg = SimpleNamespace(Error=psycopg.Error, IsolationLevel=levels)
        # Long enough for all to be there.
        schema.WAIT_FOR_LOCKS += b"; SELECT pg_sleep(0.3)"


class UnloggedTables(BrokenPostgresDB, rule="LIF-2", level="durable"):
    """UNLOGGED is faster, and empty after a crash of the server."""

    by = "the_server_is_killed"
    own_server = True

    @classmethod
    def break_code(cls):
        edit_tables(("CREATE TABLE", "CREATE UNLOGGED TABLE"))


class ItemsOfNobody(BrokenPostgresDB, rule="DEL-1"):
    """The items of a context stay where it is deleted, as no foreign key takes them along."""

    by = "deletes_the_context"

    @classmethod
    def break_code(cls):
        edit_tables(
            ("REFERENCES {schema}director_context_messages (session_id) ON DELETE CASCADE", "")
        )


@contextlib.contextmanager
def _no_transaction(connection):
    """Keep others away as the transaction would, and commit each statement by itself."""
    try:
        yield
    finally:
        connection.execute("SELECT pg_advisory_unlock_all()")


def _commit_each():
    schema._LOCK = schema._LOCK.replace(b"_xact_", b"_")
    Connection.transaction = _no_transaction


class VersionComesFirst(BrokenPostgresDB, **_KILLED):
    """The version is written before what it speaks of, and a death leaves it alone."""

    by = "killed_in_its_first_use"

    @classmethod
    def break_code(cls):
        _commit_each()
        meta, *tables, version = schema.CREATE
        # On a server that takes its time, so that a death does not come too late for all of them.
        slowly = [statement for table in tables for statement in (_SLOW, table)]
        schema.CREATE = (meta, version, *slowly)


class RelatedInCodeAlone(BrokenPostgresDB, rule="DEL-3"):
    """Tables are related in the code alone, and so is what goes with a session."""

    @classmethod
    def break_code(cls):
        edit_tables(
            ("REFERENCES {schema}director_sessions (session_id) ON DELETE CASCADE", ""),
        )


class ContextIsNobodys(BrokenPostgresDB, rule="DEL-3"):
    """A table that came later has no foreign key."""

    @classmethod
    def break_code(cls):
        edit_tables(
            (
                """session_id TEXT COLLATE "C" PRIMARY KEY
            REFERENCES {schema}director_sessions (session_id) ON DELETE CASCADE""",
                """session_id TEXT COLLATE "C" PRIMARY KEY""",
            ),
        )
