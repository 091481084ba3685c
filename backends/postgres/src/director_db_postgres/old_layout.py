"""The tables of the system before director-db, in Postgres: finding and carrying them over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.adapt import Loader

from director_db.errors import InvalidRecordError
from director_db.legacy import old_layout
from director_db.legacy.old_layout import CONTEXT_MESSAGES, CONVERSATIONS, SESSIONS
from director_db.payload import payload_bytes
from director_db.records import Migration
from director_db_postgres.encoding import message_in_ascii, to_ascii

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from psycopg.abc import Buffer

    from director_db.legacy.old_layout import OldTable
    from director_db_postgres.statements import Statements

_SELECT_TABLES: Final = b"""
    SELECT c.relname::text, array_agg(a.attname::text)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE n.nspname = coalesce($1::name, current_schema())
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    GROUP BY c.relname
"""

# Two rows of one key are possible only where somebody else made the old tables; the second one is
# refused, as it must not replace the first.
_INSERT_SESSION: Final = """
    INSERT INTO {schema}director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, last_seq)
    VALUES ($1, $2, $3, $4, $5, $6, 0)
    ON CONFLICT (session_id) DO NOTHING
"""

# Foreign keys are checked at the end of a statement, so that one statement makes both. A session
# that it makes is an orphan's; its `last_seq` says so until the end.
_INSERT_SESSION_OF_ORPHAN: Final = """
    INSERT INTO {schema}director_sessions
        (session_id, video_id, collection_id, created_at, updated_at, metadata, last_seq)
    VALUES ($1, $2, $3, $4, $5, $6, -1)
    ON CONFLICT (session_id) DO NOTHING
    RETURNING session_id
"""

# The place is the message's number among all that are carried over: places need only rise within a
# session. Taking each from its session's `last_seq`, as other writes do, would leave one more dead
# version of that row for every message, and each of them is visited by the next one.
_INSERT_MESSAGE: Final = f"""
    WITH session AS ({_INSERT_SESSION_OF_ORPHAN}),
    message AS (
        INSERT INTO {{schema}}director_conversations
            (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
             created_at, updated_at, metadata)
        VALUES ($1, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        ON CONFLICT (session_id, msg_id) DO NOTHING
        RETURNING msg_id
    )
    SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM message)
"""

_INSERT_CONTEXT: Final = f"""
    WITH session AS ({_INSERT_SESSION_OF_ORPHAN}),
    context AS (
        INSERT INTO {{schema}}director_context_messages
            (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
             metadata)
        VALUES ($1, $7, NULL, 0, $8, $9, $10, $11, $12)
        ON CONFLICT (session_id) DO NOTHING
        RETURNING session_id
    )
    SELECT (SELECT count(*) FROM session), (SELECT count(*) FROM context)
"""

_SET_TIMES_OF_ORPHANS: Final = """
    UPDATE {schema}director_sessions AS session SET (created_at, updated_at) = (
        SELECT min(created_at), max(updated_at) FROM (
            SELECT created_at, updated_at FROM {schema}director_conversations
            WHERE session_id = session.session_id
            UNION ALL
            SELECT created_at, updated_at FROM {schema}director_context_messages
            WHERE session_id = session.session_id
        ) AS parts
    )
    WHERE last_seq < 0
"""

_SET_LAST_PLACES: Final = """
    UPDATE {schema}director_sessions AS session SET last_seq = coalesce((
        SELECT max(seq) FROM {schema}director_conversations WHERE session_id = session.session_id
    ), 0)
"""

# A limit for one operation is none for a migration. Up to the end of the transaction.
_NO_STATEMENT_TIMEOUT: Final = b"SET LOCAL statement_timeout = 0"

# A database without an encoding may hold text that is not UTF-8, at which the server would end the
# whole statement. Without a conversion it hands it over, and the row can be named.
_NO_CONVERSION: Final = b"SET LOCAL client_encoding = 'SQL_ASCII'"

# How many rows are in memory at once; each may hold payloads of many MiB.
_ROWS_AT_ONCE: Final = 10

_TIMES: Final = frozenset({"created_at", "updated_at"})


def columns_by_table(
    connection: psycopg.Connection[Any], schema: str | None
) -> dict[str, Collection[str]]:
    """Return the columns of each table in a schema; None is the first of the search path."""
    return dict(connection.execute(_SELECT_TABLES, (schema,)).fetchall())


def tables_with_rows(connection: psycopg.Connection[Any], statements: Statements) -> list[str]:
    """Return the names of the old tables that hold something; changes nothing.

    Those that this user may not read count as empty: nobody can tell.
    """
    found = []
    for table in old_layout.old_tables(columns_by_table(connection, statements.schema)):
        select = statements.compose(f"SELECT FROM {{schema}}{table.name} LIMIT 1")
        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            if connection.execute(select).rowcount > 0:
                found.append(table.name)
    return found


def carry_over(
    connection: psycopg.Connection[Any],
    statements: Statements,
    place: str,
    found: dict[str, Collection[str]],
    *,
    skip_invalid: bool,
) -> Migration:
    """Store the rows of the old tables in our empty ones, and rename the old ones.

    Runs inside the caller's transaction, which is to be rolled back on any error. Where there are
    no old tables, nothing happens.

    The order of messages is the physical one (``ctid``), as the old application selected them with
    no order of their own, and their times are not reliable. What JSONB lost when it was written,
    such as the order of keys, stays lost.

    Args:
        connection: one on which our tables are created and empty; at the level READ COMMITTED.
        statements: those of the schema.
        place: the database, for messages.
        found: what `columns_by_table` returned.
        skip_invalid: leave rows that break a rule behind, instead of giving up.

    Raises:
        SchemaError: some rows break a rule, or the old tables are not as the old system made them.
    """
    tables = old_layout.migration_plan(found, place)
    if not tables:
        return Migration(0, 0, 0, 0, [])
    names = ", ".join(f"{{schema}}{table.name}" for table in tables)
    # What an old application wrote between our reading and the end would vanish in the backup. The
    # strongest lock, which the renaming takes anyway: going up to it later may end in a deadlock.
    connection.execute(statements.compose(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    connection.execute(_NO_STATEMENT_TIMEOUT)
    if _server_encoding(connection) == b"SQL_ASCII":
        connection.execute(_NO_CONVERSION)
    writer = _Writer(connection, statements)
    refusals = []
    for table in tables:
        store = writer.operations[table.name]
        select = statements.compose(_select_rows(table, found[table.name]))
        with _open_cursor(connection) as cursor:
            for ctid, *values in cursor.execute(select):
                try:
                    store(values)
                except InvalidRecordError as error:
                    refusals.append(old_layout.refusal(table, f"ctid {ctid}", error))
    if refusals and not skip_invalid:
        raise old_layout.rows_refused(place, refusals)
    writer.finish()
    for table in tables:
        # What the old application still writes must fail and not vanish; the rows stay as a backup.
        rename = f"ALTER TABLE {{schema}}{table.name} RENAME TO {table.backup}"
        connection.execute(statements.compose(rename))
    return Migration(
        writer.sessions, writer.messages, writer.contexts, writer.orphan_sessions, refusals
    )


class _Writer:
    """Converts and stores old rows one by one, and counts them."""

    def __init__(self, connection: psycopg.Connection[Any], statements: Statements) -> None:
        self._connection = connection
        self._utf8 = _server_encoding(connection) == b"UTF8"
        self._insert_session = statements.compose(_INSERT_SESSION)
        self._insert_message = statements.compose(_INSERT_MESSAGE)
        self._insert_context = statements.compose(_INSERT_CONTEXT)
        self._last_steps = [
            statements.compose(step) for step in (_SET_TIMES_OF_ORPHANS, _SET_LAST_PLACES)
        ]
        self.operations: dict[str, Callable[[Sequence[object]], None]] = {
            SESSIONS.name: self._session,
            CONVERSATIONS.name: self._message,
            CONTEXT_MESSAGES.name: self._context,
        }
        self.sessions = 0
        self.messages = 0
        self.contexts = 0
        self.orphan_sessions = 0

    def finish(self) -> None:
        """Set what depends on all rows together."""
        for step in self._last_steps:
            self._connection.execute(step)

    def _session(self, values: Sequence[object]) -> None:
        row = old_layout.session_from_old(values)
        # The columns of old; whose it is they do not say.
        stored = row._replace(metadata=self._text(row.metadata))[: len(SESSIONS.columns)]
        cursor = self._connection.execute(self._insert_session, stored, prepare=True)
        _require_new(cursor.rowcount, "session_id")
        self.sessions += 1

    def _message(self, values: Sequence[object]) -> None:
        session_id, row = old_layout.message_from_old(values)
        if not self._utf8:
            row = message_in_ascii(row)
        stored = self._store(
            self._insert_message,
            session_id,
            row.created_at,
            row.updated_at,
            (self.messages + 1, *row.columns),
        )
        _require_new(stored, "msg_id")
        self.messages += 1

    def _context(self, values: Sequence[object]) -> None:
        row = old_layout.context_from_old(values)
        stored = self._store(
            self._insert_context,
            row.session_id,
            row.created_at,
            row.updated_at,
            (
                self._text(row.context),
                payload_bytes(row.context),
                row.version,
                row.created_at,
                row.updated_at,
                self._text(row.metadata),
            ),
        )
        _require_new(stored, "session_id")
        self.contexts += 1

    def _store(
        self,
        statement: bytes,
        session_id: str,
        created_at: int,
        updated_at: int,
        parameters: tuple[object, ...],
    ) -> int:
        """Store a part of a session, which is made if it is missing; how many rows are new."""
        orphan = old_layout.orphan_session(session_id, created_at, updated_at)
        session = orphan[: len(SESSIONS.columns)]
        cursor = self._connection.execute(statement, (*session, *parameters), prepare=True)
        made, stored = cursor.fetchall()[0]
        self.orphan_sessions += made
        return int(stored)

    def _text(self, payload: str) -> str:
        return payload if self._utf8 else to_ascii(payload)


def _server_encoding(connection: psycopg.Connection[Any]) -> bytes | None:
    return connection.pgconn.parameter_status(b"server_encoding")


def _require_new(stored: int, column: str) -> None:
    if stored == 0:
        raise InvalidRecordError(column, "an earlier row has the same one")


def _select_rows(table: OldTable, there: Collection[str]) -> str:
    """Return the statement that reads a table in the order in which its rows lie.

    JSONB, JSON and TEXT all are read as text; the driver would parse the first two by itself.
    """
    columns = [
        "NULL" if name not in there else name if name in _TIMES else f"{name}::text"
        for name in table.columns
    ]
    # With the alias: a bare ctid would be the text in the first column of the result.
    return f"""
        SELECT ctid::text, {", ".join(columns)} FROM {{schema}}{table.name} AS stored
        ORDER BY stored.ctid
    """


def _open_cursor(connection: psycopg.Connection[Any]) -> psycopg.RawServerCursor[tuple[Any, ...]]:
    """Return a cursor on the server: a plain one would load the whole table first."""
    cursor = psycopg.RawServerCursor(connection, "director_old_rows")
    cursor.itersize = _ROWS_AT_ONCE
    cursor.adapters.register_loader("text", _TextOrBytes)
    return cursor


class _TextOrBytes(Loader):
    """Loads text that is not UTF-8 as bytes, which the checks refuse by row and column."""

    def load(self, data: Buffer) -> str | bytes:
        encoded = bytes(data)
        try:
            return encoded.decode()
        except UnicodeDecodeError:
            return encoded
