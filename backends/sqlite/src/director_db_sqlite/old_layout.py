"""The tables of the system before director-db, in a SQLite file: finding and carrying them over."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from director_db.errors import InvalidRecordError
from director_db.legacy import old_layout
from director_db.legacy.old_layout import CONTEXT_MESSAGES, CONVERSATIONS, OLD_TABLES, SESSIONS
from director_db.payload import payload_bytes
from director_db.records import Migration
from director_db_sqlite import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Sequence

    from director_db.legacy.old_layout import OldTable

_SELECT_TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table'"

_SELECT_COLUMNS: Final = "SELECT name FROM pragma_table_info(?)"

# Two rows of one key are possible only where somebody else made the old tables; the second one is
# refused, as it must not replace the first.
_INSERT_MESSAGE: Final = """
    INSERT INTO director_conversations
        (session_id, seq, conv_id, msg_id, msg_type, agents, actions, content, status,
         created_at, updated_at, metadata)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id, msg_id) DO NOTHING
"""

_INSERT_CONTEXT: Final = """
    INSERT INTO director_context_messages
        (session_id, context_data, list_key, list_len, bytes, version, created_at, updated_at,
         metadata)
    VALUES (?, ?, NULL, 0, ?, ?, ?, ?, ?)
    ON CONFLICT (session_id) DO NOTHING
"""

# Sessions made for orphans have rowids above that of the last session that was carried over.
_SET_TIMES_OF_ORPHANS: Final = """
    UPDATE director_sessions SET
        created_at = (
            SELECT min(created_at) FROM (
                SELECT created_at FROM director_conversations AS messages
                WHERE messages.session_id = director_sessions.session_id
                UNION ALL
                SELECT created_at FROM director_context_messages AS contexts
                WHERE contexts.session_id = director_sessions.session_id
            )
        ),
        updated_at = (
            SELECT max(updated_at) FROM (
                SELECT updated_at FROM director_conversations AS messages
                WHERE messages.session_id = director_sessions.session_id
                UNION ALL
                SELECT updated_at FROM director_context_messages AS contexts
                WHERE contexts.session_id = director_sessions.session_id
            )
        )
    WHERE rowid > ?
"""

# Taking a place must not move the session's own updated_at, which is carried over as it is.
_BEFORE_ALL_TIMES: Final = -(2**63)


def no_migration() -> Migration:
    """Return what is told where there was nothing to carry over."""
    return Migration(sessions=0, messages=0, contexts=0, orphan_sessions=0, skipped=[])


def is_there(connection: sqlite3.Connection) -> bool:
    """Whether the file holds the old system's tables; changes nothing."""
    return old_layout.is_old_layout(_columns(connection))


def tables_with_rows(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the old tables that hold something; changes nothing."""
    return [
        table.name
        for table in old_layout.old_tables(_columns(connection))
        if connection.execute(f"SELECT EXISTS (SELECT 1 FROM {table.name})").fetchone()[0]
    ]


def carry_over(connection: sqlite3.Connection, place: str, *, skip_invalid: bool) -> Migration:
    """Store the rows of the old tables in our empty ones, and rename the old ones.

    Runs inside the caller's transaction, which is to be rolled back on any error. Where there are
    no old tables, nothing happens.

    Args:
        connection: one on which our tables are created and empty.
        place: the file, for messages.
        skip_invalid: leave rows that break a rule behind, instead of giving up.

    Raises:
        SchemaError: some rows break a rule, or the old tables are not as the old system made them.
    """
    found = _columns(connection)
    tables = old_layout.migration_plan(found, place)
    writer = _Writer(connection)
    refusals = []
    with _undecodable_text_as_bytes(connection):
        for table in tables:
            store = writer.operations[table.name]
            # The cursor streams: one row at a time is in memory.
            for rowid, *values in connection.execute(_select_rows(table, found[table.name])):
                try:
                    store(values)
                except InvalidRecordError as error:
                    refusals.append(old_layout.refusal(table, f"rowid {rowid}", error))
    if refusals and not skip_invalid:
        raise old_layout.rows_refused(place, refusals)
    connection.execute(_SET_TIMES_OF_ORPHANS, (writer.last_carried,))
    for table in tables:
        # What the old application still writes must fail and not vanish; the rows stay as a backup.
        connection.execute(f"ALTER TABLE {table.name} RENAME TO {table.backup}")
    return Migration(
        writer.sessions, writer.messages, writer.contexts, writer.orphan_sessions, refusals
    )


class _Writer:
    """Converts and stores old rows one by one, and counts them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self.operations: dict[str, Callable[[Sequence[object]], None]] = {
            SESSIONS.name: self._session,
            CONVERSATIONS.name: self._message,
            CONTEXT_MESSAGES.name: self._context,
        }
        self.sessions = 0
        self.messages = 0
        self.contexts = 0
        self.orphan_sessions = 0
        self.last_carried = 0
        """The rowid of the last session that was carried over."""

    def _session(self, values: Sequence[object]) -> None:
        stored = self._execute(sql.INSERT_SESSION, old_layout.session_from_old(values))
        _require_new(stored, "session_id")
        self.last_carried = stored.lastrowid or 0
        self.sessions += 1

    def _message(self, values: Sequence[object]) -> None:
        session_id, row = old_layout.message_from_old(values)
        place = self._take_place(session_id)
        if place is None:
            self._make_session(session_id, row.created_at, row.updated_at)
            place = self._take_place(session_id)
        stored = self._execute(
            _INSERT_MESSAGE,
            (session_id, place, *row.columns),
        )
        _require_new(stored, "msg_id")
        self.messages += 1

    def _context(self, values: Sequence[object]) -> None:
        row = old_layout.context_from_old(values)
        self._make_session(row.session_id, row.created_at, row.updated_at)
        stored = self._execute(
            _INSERT_CONTEXT,
            (
                row.session_id,
                row.context,
                payload_bytes(row.context),
                row.version,
                row.created_at,
                row.updated_at,
                row.metadata,
            ),
        )
        _require_new(stored, "session_id")
        self.contexts += 1

    def _take_place(self, session_id: str) -> int | None:
        taken = self._execute(sql.TAKE_PLACES, (1, session_id, _BEFORE_ALL_TIMES)).fetchone()
        return None if taken is None else int(taken[0])

    def _make_session(self, session_id: str, created_at: int, updated_at: int) -> None:
        """Make a session for an orphan; one that exists stays as it is."""
        row = old_layout.orphan_session(session_id, created_at, updated_at)
        self.orphan_sessions += self._execute(sql.INSERT_SESSION, row).rowcount


def _require_new(stored: sqlite3.Cursor, column: str) -> None:
    if stored.rowcount == 0:
        raise InvalidRecordError(column, "an earlier row has the same one")


def _columns(connection: sqlite3.Connection) -> dict[str, Collection[str]]:
    """Return the tables by name, with the columns of those that may be the old system's."""
    found: dict[str, Collection[str]] = {
        name: () for (name,) in connection.execute(_SELECT_TABLES).fetchall()
    }
    # Only of those: the columns of a virtual table cannot be read without its extension.
    for table in OLD_TABLES:
        if table.name in found:
            columns = connection.execute(_SELECT_COLUMNS, (table.name,)).fetchall()
            found[table.name] = {name for (name,) in columns}
    return found


def _select_rows(table: OldTable, there: Collection[str]) -> str:
    """Return the statement that reads a table in the order in which its rows were written."""
    columns = ", ".join(name if name in there else "NULL" for name in table.columns)
    return f"SELECT rowid, {columns} FROM {table.name} ORDER BY rowid"


@contextmanager
def _undecodable_text_as_bytes(connection: sqlite3.Connection) -> Iterator[None]:
    """Read text that is not UTF-8 as bytes, which the checks refuse by row and column.

    sqlite3 itself would end the whole statement, and could not be asked for the next row.
    """
    before = connection.text_factory
    connection.text_factory = _text_or_bytes
    try:
        yield
    finally:
        connection.text_factory = before


def _text_or_bytes(encoded: bytes) -> str | bytes:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded
