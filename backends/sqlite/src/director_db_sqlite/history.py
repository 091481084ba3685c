"""The storage operations on the history of a session: taking back, rewriting, copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from director_db.storage import Storage
from director_db_sqlite import sql

if TYPE_CHECKING:
    import sqlite3

    from director_db.rows import MessageColumns
    from director_db_sqlite.database import Database


class HistoryStorage(Storage):
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
