"""The storage operations on contexts, whose lists are kept item by item."""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, cast

from director_db.payload import payload_bytes
from director_db.payload_rules import MAX_PAYLOAD_BYTES
from director_db.rows import (
    NO_CONTEXT,
    Appended,
    SaveOutcome,
    StoredContext,
    whole_context,
)
from director_db.storage import Storage
from director_db_sqlite import sql

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from director_db.rows import ContextAppend, ContextChange, ContextRow
    from director_db_sqlite.database import Database


class SQLiteContexts(Storage):
    """The part of `SQLiteDB` that stores contexts."""

    incremental_contexts = True

    _database: Database

    def _save_context(self, row: ContextRow, *, if_version: int | None) -> SaveOutcome:
        return self._save_context_change(whole_context(row, if_version))

    def _save_context_change(self, change: ContextChange) -> SaveOutcome:
        row, if_version = change.row, change.if_version
        is_whole = len(change.items) == change.list_len

        def save(connection: sqlite3.Connection) -> SaveOutcome:
            found = connection.execute(sql.SELECT_CONTEXT_LIST, (row.session_id,)).fetchone()
            if found is None:
                return SaveOutcome.NO_SESSION
            session_updated_at, version, _, list_len, _ = found
            if if_version not in {None, version or NO_CONTEXT}:
                return SaveOutcome.CONFLICT
            _touch(connection, row.session_id, session_updated_at, row.updated_at)
            connection.execute(
                sql.UPSERT_CONTEXT,
                (
                    row.session_id,
                    row.context,
                    change.list_key,
                    change.list_len,
                    change.total_bytes,
                    row.version,
                    row.created_at,
                    row.updated_at,
                    row.metadata,
                    change.rest_changed,
                    row.created_at_given,
                ),
            )
            if version and list_len > change.list_len:
                connection.execute(sql.DELETE_ITEMS, (row.session_id, change.list_len))
            items: Iterator[tuple[int, str]] = zip(change.indexes, change.items, strict=True)
            if is_whole:
                # To compare a whole list here is faster than a statement for each item.
                stored = connection.execute(sql.SELECT_ITEM_ROWS, (row.session_id,))
                pairs = zip(items, chain(stored, repeat(None)), strict=False)
                items = (item for item, known in pairs if item != known)
            connection.executemany(
                sql.UPSERT_ITEM, [(row.session_id, index, item) for index, item in items]
            )
            return SaveOutcome.SAVED

        size = change.total_bytes
        if not is_whole:
            size = sum(map(payload_bytes, (row.context, *change.items)))
        return self._database.write(save, size + payload_bytes(row.metadata))

    def _append_context(self, append: ContextAppend) -> Appended:
        session_id, items = append.session_id, append.items

        def add(connection: sqlite3.Connection) -> Appended:
            found = connection.execute(sql.SELECT_CONTEXT_LIST, (session_id,)).fetchone()
            if found is None:
                return Appended(SaveOutcome.NO_SESSION)
            session_updated_at, version, list_key, list_len, stored_bytes = found
            if version is None:
                version, list_len, total_bytes = NO_CONTEXT, 0, append.alone_bytes
            else:
                # A comma stands between two items, so that a list's first item comes without.
                total_bytes = stored_bytes + append.added_bytes - (bool(items) and not list_len)
                if list_key != append.list_key or total_bytes > MAX_PAYLOAD_BYTES:
                    return Appended(SaveOutcome.CONFLICT)
            _touch(connection, session_id, session_updated_at, append.updated_at)
            length = list_len + len(items)
            if version != NO_CONTEXT:
                connection.execute(
                    sql.GROW_CONTEXT,
                    (length, total_bytes, append.version, append.updated_at, session_id),
                )
            else:
                connection.execute(
                    sql.UPSERT_CONTEXT,
                    (
                        session_id,
                        append.rest,
                        append.list_key,
                        length,
                        total_bytes,
                        append.version,
                        append.updated_at,
                        append.updated_at,
                        "{}",
                        True,
                        True,
                    ),
                )
            connection.executemany(
                sql.UPSERT_ITEM,
                [(session_id, index, item) for index, item in enumerate(items, list_len)],
            )
            return Appended(SaveOutcome.SAVED, length, version)

        return self._database.write(add, append.added_bytes)

    def _select_context(self, session_id: str) -> StoredContext | None:
        def select(connection: sqlite3.Connection) -> StoredContext | None:
            # One state of both tables. A savepoint, as it can begin anywhere.
            connection.execute("SAVEPOINT context")
            try:
                row = connection.execute(sql.SELECT_CONTEXT, (session_id,)).fetchone()
                if row is None:
                    return None
                stored = StoredContext._make((*row, ()))
                if stored.list_key is None:
                    return stored
                items = connection.execute(sql.SELECT_ITEMS, (session_id,)).fetchall()
                return stored._replace(items=tuple([item for (item,) in items]))
            finally:
                connection.execute("RELEASE context")

        return self._database.read(select)

    def _select_context_version(self, session_id: str) -> int | None:
        def select(connection: sqlite3.Connection) -> int | None:
            found = connection.execute(sql.SELECT_CONTEXT_LIST, (session_id,)).fetchone()
            return None if found is None else cast("int | None", found[1])

        return self._database.read(select)

    def _delete_context(self, session_id: str) -> bool:
        return self._database.write(
            lambda connection: connection.execute(sql.DELETE_CONTEXT, (session_id,)).rowcount > 0, 0
        )


def _touch(connection: sqlite3.Connection, session_id: str, stored: int, updated_at: int) -> None:
    """Move a session's stored time forward, where it is earlier."""
    if updated_at > stored:
        connection.execute(sql.MOVE_SESSION, (updated_at, session_id))
