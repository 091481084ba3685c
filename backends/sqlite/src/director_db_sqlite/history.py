"""The storage operations on the history of a session: taking back, rewriting, copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from director_db.checks import message_bytes
from director_db.rows import CopyRefusal
from director_db.storage import Storage
from director_db_sqlite import sql
from director_db_sqlite.places import AFTER_ALL, LONG_AGO, take_places

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from director_db.rows import GuardedMessage, MessageColumns, SessionCopy
    from director_db_sqlite.database import Database


class SQLiteHistory(Storage):
    """The part of `SQLiteDB` that takes messages back, and makes new histories of old ones."""

    _database: Database

    def _pop_message(self, session_id: str, conv_id: str | None) -> MessageColumns | None:
        statement, values = sql.POP_MESSAGE, [session_id, session_id]
        if conv_id is not None:
            statement = sql.POP_MESSAGE_OF_CONVERSATION
            values.append(conv_id)

        def pop(connection: sqlite3.Connection) -> MessageColumns | None:
            # All rows: the statement ends with them, and the transaction needs that.
            rows = connection.execute(statement, values).fetchall()
            return cast("MessageColumns", rows[0]) if rows else None

        return self._database.write(pop, 0)

    def _replace_messages(self, session_id: str, rows: Sequence[GuardedMessage]) -> bool:
        latest = max((row.updated_at for row, _, _ in rows), default=LONG_AGO)

        def replace(connection: sqlite3.Connection) -> bool:
            last = take_places(connection, session_id, len(rows), latest)
            if last is None:
                return False
            first = last - len(rows) + 1
            connection.executemany(
                sql.REPLACE_MESSAGE,
                (
                    (session_id, place, *row.columns, revision, row.created_at_given)
                    for place, (row, revision, _) in enumerate(rows, first)
                ),
            )
            connection.execute(sql.DELETE_MESSAGES_UP_TO, (session_id, first - 1))
            return True

        return self._database.write(replace, sum(message_bytes(row) for row, _, _ in rows))

    def _delete_messages_after(self, session_id: str, msg_id: str) -> int | None:
        def delete(connection: sqlite3.Connection) -> int | None:
            found = connection.execute(sql.SELECT_PLACE, (session_id, msg_id)).fetchone()
            if found is None:
                there = connection.execute(sql.SELECT_SESSION, (session_id,)).fetchone()
                return 0 if there is None else None
            return connection.execute(sql.DELETE_MESSAGES_AFTER, (session_id, *found)).rowcount

        return self._database.write(delete, 0)

    def _copy_session(self, copy: SessionCopy) -> int | CopyRefusal:
        session_id, to, until, created_at = copy

        def make(connection: sqlite3.Connection) -> int | CopyRefusal:
            run = connection.execute
            if run(sql.SELECT_SESSION, (session_id,)).fetchone() is None:
                return CopyRefusal.NO_SESSION
            last = AFTER_ALL
            if until is not None:
                found = run(sql.SELECT_PLACE, (session_id, until)).fetchone()
                if found is None:
                    return CopyRefusal.NO_MESSAGE
                last = found[0]
            if not run(sql.COPY_SESSION, (to, created_at, created_at, session_id)).rowcount:
                return CopyRefusal.TAKEN
            before = _allocated(connection)
            messages = run(sql.COPY_MESSAGES, (to, session_id, last)).rowcount
            if until is None:
                run(sql.COPY_CONTEXT, (to, session_id))
                run(sql.COPY_ITEMS, (to, session_id))
            self._database.count_written(_allocated(connection) - before)
            return messages

        return self._database.write(make, 0)


def _allocated(connection: sqlite3.Connection) -> int:
    """Return how many bytes of pages the database uses; what it has just come to use is written."""
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int(pages - free) * int(page_bytes)
