"""The tables, and what kind of schema a connection finds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from director_db.errors import ConfigurationError, SchemaError
from director_db.legacy.old_layout import is_old_layout
from director_db.logs import INFO, log
from director_db.schema_version import SchemaVersion
from director_db_postgres import old_layout, upgrades
from director_db_postgres.driver_log import LOGGER
from director_db_postgres.upgrades import SCHEMA_VERSION

if TYPE_CHECKING:
    from director_db.records import Migration
    from director_db_postgres.connections import Connection
    from director_db_postgres.statements import Statements

# The tables of version 1; new ones are made by the same upgrades as old ones, so that they cannot
# differ.
#
# A message's place is `seq`, taken from its session's `last_seq`. A context's list may be kept item
# by item (`list_key`, `list_len` and director_context_items); all else stays in `context_data`.
# Payloads are TEXT: JSONB loses the order of keys, the type of numbers and U+0000.
CREATE: Final = (
    """
    CREATE TABLE {schema}director_meta (
        key TEXT COLLATE "C" PRIMARY KEY,
        value TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE {schema}director_sessions (
        session_id TEXT COLLATE "C" PRIMARY KEY,
        video_id TEXT COLLATE "C",
        collection_id TEXT COLLATE "C",
        created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL,
        last_seq BIGINT NOT NULL,
        metadata TEXT NOT NULL
    )
    """,
    """
    CREATE INDEX director_sessions_by_activity
        ON {schema}director_sessions (updated_at, created_at, session_id)
    """,
    """
    CREATE INDEX director_sessions_by_collection
        ON {schema}director_sessions (collection_id, updated_at, created_at, session_id)
    """,
    """
    CREATE INDEX director_sessions_by_video
        ON {schema}director_sessions (video_id, updated_at, created_at, session_id)
    """,
    """
    CREATE TABLE {schema}director_conversations (
        session_id TEXT COLLATE "C" NOT NULL
            REFERENCES {schema}director_sessions (session_id) ON DELETE CASCADE,
        conv_id TEXT COLLATE "C",
        msg_id TEXT COLLATE "C" NOT NULL,
        seq BIGINT NOT NULL,
        msg_type TEXT NOT NULL,
        agents TEXT NOT NULL,
        actions TEXT NOT NULL,
        content TEXT NOT NULL,
        status TEXT,
        created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL,
        metadata TEXT NOT NULL,
        PRIMARY KEY (session_id, msg_id),
        UNIQUE (session_id, seq)
    )
    """,
    """
    CREATE TABLE {schema}director_context_messages (
        session_id TEXT COLLATE "C" PRIMARY KEY
            REFERENCES {schema}director_sessions (session_id) ON DELETE CASCADE,
        context_data TEXT NOT NULL,
        list_key TEXT,
        list_len BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        version BIGINT NOT NULL,
        created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL,
        metadata TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE {schema}director_context_items (
        session_id TEXT COLLATE "C" NOT NULL
            REFERENCES {schema}director_context_messages (session_id) ON DELETE CASCADE,
        idx BIGINT NOT NULL,
        item TEXT NOT NULL,
        PRIMARY KEY (session_id, idx)
    )
    """,
    """
    INSERT INTO {schema}director_meta (key, value)
    VALUES ('schema_version', '1')
    """,
)

# One key for all schemas of a database: creating them is rare, and a wait for another one is short.
_LOCK: Final = b"SELECT pg_advisory_xact_lock(7310868735422735730)"

WAIT_FOR_LOCKS: Final = b"SET LOCAL lock_timeout = 0"
"""Others' locks are waited for in the rest of the transaction: this needs what they create."""

_SELECT_SCHEMA: Final = b"""
    SELECT n.nspname::text FROM pg_catalog.pg_namespace n
    WHERE n.nspname = coalesce($1::name, current_schema())
"""

_OURS: Final = {
    "director_sessions",
    "director_conversations",
    "director_context_messages",
    "director_context_items",
}

# Where no schema is named, the table may be another user's, further down the search path.
_NO_RIGHT: Final = "42501"
_NO_TABLE: Final = frozenset({"42P01", "3F000"})
# A column or an operator is missing: the table has our name, but other columns.
_OTHER_TABLE: Final = frozenset({"42703", "42883", "42809"})


def ensure(
    connection: Connection,
    statements: Statements,
    place: str,
    *,
    migrating: bool = False,
    skip_invalid: bool = False,
    until: float | None = None,
) -> Migration | None:
    """Create what is missing and upgrade what is old; one statement where nothing is.

    Sees whether the server is a sharded one, too, and tells the connection.

    Args:
        connection: one in no transaction.
        statements: those of the schema.
        place: the database, for messages.
        migrating: carry the old system's tables over, instead of refusing them.
        skip_invalid: leave rows that break a rule behind, instead of giving up.
        until: when an upgrade stops waiting for the locks of others, on the monotonic clock.

    Returns:
        What was migrated; None where our tables were there already.

    Raises:
        SchemaError: the tables are too new or not ours, or the old system's are there and not to
            be migrated, or cannot be.
        BackendUnavailableError: somebody held tables that have to be upgraded.
    """
    try:
        row = next(iter(connection.run(statements.select_schema_version).rows()), None)
        is_missing = row is None and statements.schema is None
    except psycopg.Error as error:
        if error.sqlstate in _OTHER_TABLE:
            raise _not_ours(place, "a table director_meta with other columns") from error
        elsewhere = statements.schema is None and error.sqlstate == _NO_RIGHT
        if error.sqlstate not in _NO_TABLE and not elsewhere:
            raise
        is_missing = True
    migration = None

    def find() -> int:
        return _version(connection.execute(statements.select_schema_version).fetchone(), place)

    if is_missing:
        # Whatever the server's default is: after the lock, each statement must see the latest.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with connection.transaction():
            connection.execute(WAIT_FOR_LOCKS)
            connection.execute(_LOCK)
            migration = _create(
                connection, statements, place, migrating=migrating, skip_invalid=skip_invalid
            )
        row = connection.execute(statements.select_schema_version).fetchone()
    # Also where another process was faster to create them, which may be of an older release.
    if _version(row, place) < SCHEMA_VERSION:
        until = time.monotonic() + upgrades.PATIENCE if until is None else until
        upgrades.upgrade(connection, statements, place, find, until)
    connection.is_sharded = row is not None and row[1]
    if migration is not None and any(migration):
        text = "%s: migrated %d sessions, %d messages and %d contexts; %d rows were left behind"
        counts = (migration.sessions, migration.messages, migration.contexts)
        log(LOGGER, INFO, text, place, *counts, len(migration.skipped))
    return migration


def _create(
    connection: psycopg.Connection[Any],
    statements: Statements,
    place: str,
    *,
    migrating: bool,
    skip_invalid: bool,
) -> Migration | None:
    """Create everything, unless another process was faster; the lock is held."""
    schema = statements.schema
    if connection.execute(_SELECT_SCHEMA, (schema,)).fetchone() is None:
        if schema is None:
            message = (
                f"{place}: the search path of this user names no schema that exists. "
                "Set POSTGRES_SCHEMA."
            )
            raise ConfigurationError(message)
        # Not before the look: even IF NOT EXISTS asks for the right to create one.
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name).as_bytes(None))
    tables = old_layout.columns_by_table(connection, schema)
    if "director_meta" in tables:
        return None
    taken = sorted(tables.keys() & _OURS)
    if taken:
        raise _not_ours(place, f"a table {taken[0]} but no director_meta")
    if is_old_layout(tables) and not migrating:
        message = (
            f"{place} holds the tables of the system before director-db (sessions, conversations, "
            "context_messages). It was left as it is. Stop the old application, then run: "
            "director-db migrate"
        )
        raise SchemaError(message)
    for statement in CREATE:
        connection.execute(statements.compose(statement))
    for number in upgrades.UPGRADES:
        upgrades.apply(connection, statements, number)
    return old_layout.carry_over(connection, statements, place, tables, skip_invalid=skip_invalid)


def _version(row: tuple[Any, ...] | None, place: str) -> int:
    required, _, reached = row or (None, None, None)
    version = SchemaVersion(required, reached, SCHEMA_VERSION)
    if version.is_too_new:
        message = (
            f"{place} has schema version {required}; this release of director-db-postgres knows "
            f"{SCHEMA_VERSION}. Upgrade director-db-postgres."
        )
        raise SchemaError(message)
    if version.number is None:
        raise _not_ours(place, f"a table director_meta with schema version {required!r}")
    return version.number


def _not_ours(place: str, what: str) -> SchemaError:
    return SchemaError(
        f"{place} has {what}, so it is not director-db's. Choose another schema with "
        "POSTGRES_SCHEMA, or another database."
    )
