"""The bare ``sqlite3`` module on one connection."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from benchmarks.raw.store import columns, encode, now, records
from director_db_sqlite import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

# As much log between checkpoints as our writer lets come together, in SQLite's own automatic way.
_CHECKPOINT_PAGES = 2048

_TOUCH_CONTEXT = """
    UPDATE director_context_messages
    SET list_len = list_len + 1, bytes = bytes + ?, version = ?, updated_at = ?
    WHERE session_id = ? RETURNING list_len
"""
_INSERT_ITEM = "INSERT INTO director_context_items (session_id, idx, item) VALUES (?, ?, ?)"


class RawSQLite:
    """One connection with our pragmas; a caller that needs threads brings a lock."""

    def __init__(self, path: str) -> None:
        """Open a file that has our tables."""
        connection = sqlite3.connect(
            path, timeout=30, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        self.connection = connection

    def upsert(self, session_id: str, message: dict[str, Any]) -> None:
        """Take a place from the session's row, upsert, commit: the statements of our backend."""
        execute = self.connection.execute
        time = now()
        execute("BEGIN IMMEDIATE")
        place = self._take_places(session_id, 1, time)
        execute(sql.UPSERT_MESSAGE, _row(session_id, place, message, time))
        execute("COMMIT")

    def bulk(self, session_id: str, messages: Sequence[dict[str, Any]]) -> None:
        """Do the same for many, with one ``executemany``."""
        execute = self.connection.execute
        time = now()
        execute("BEGIN IMMEDIATE")
        first = self._take_places(session_id, len(messages), time) - len(messages) + 1
        self.connection.executemany(
            sql.UPSERT_MESSAGE,
            [
                _row(session_id, place, message, time)
                for place, message in enumerate(messages, first)
            ],
        )
        execute("COMMIT")

    def read(self, session_id: str) -> list[dict[str, Any]]:
        """Select with our statement, decode, build dicts."""
        statement = sql.select_messages(backward=False, cursor=False, conv=False, kind=False)
        return records(self.connection.execute(statement, (session_id, -1, -1)))

    def append_context(self, session_id: str, item: Any) -> None:
        """Touch the session and the context, insert one row, commit."""
        execute = self.connection.execute
        time, text = now(), encode(item)
        execute("BEGIN IMMEDIATE")
        (updated_at, *_) = execute(sql.SELECT_CONTEXT_LIST, (session_id,)).fetchone()
        if updated_at < time:
            execute(sql.MOVE_SESSION, (time, session_id))
        (length,) = execute(_TOUCH_CONTEXT, (len(text), time, time, session_id)).fetchone()
        execute(_INSERT_ITEM, (session_id, length - 1, text))
        execute("COMMIT")

    def delete_session(self, session_id: str) -> object:
        """Delete the session's row; the cascade takes its parts."""
        return self.connection.execute(sql.DELETE_SESSION, (session_id,))

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _take_places(self, session_id: str, count: int, time: int) -> int:
        execute = self.connection.execute
        taken = execute(sql.TAKE_PLACES, (count, session_id, time)).fetchone()
        if taken is None:
            taken = execute(sql.TAKE_PLACES_LATER, (count, time, session_id)).fetchone()
        return int(taken[0])


def _row(session_id: str, place: int, message: dict[str, Any], time: int) -> tuple[Any, ...]:
    return (
        session_id,
        place,
        *columns(message, time),
        time,
        encode(message["metadata"]),
        False,
    )
