"""The SQLite backend: the storage operations of the contract, each one transaction."""

from __future__ import annotations

import json
import os
import threading
from operator import itemgetter
from typing import TYPE_CHECKING, Final, cast

from director_db import BaseDB, ConfigurationError
from director_db.checks import message_bytes
from director_db.payload import payload_bytes
from director_db.records import Health
from director_db.rows import UNSET, DeletedComponents, SaveOutcome, SessionRow
from director_db.settings import operation_timeout_of
from director_db_sqlite import health, old_layout, settings, sql
from director_db_sqlite.connections import MEMORY
from director_db_sqlite.contexts import SQLiteContexts
from director_db_sqlite.database import FileDatabase
from director_db_sqlite.errors import translate
from director_db_sqlite.history import SQLiteHistory
from director_db_sqlite.memory import MemoryDatabase
from director_db_sqlite.places import AFTER_ALL, LONG_AGO, take_places
from director_db_sqlite.settings import DEFAULT_PATH, check_path, check_synchronous
from director_db_sqlite.upsert import Upsert

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from director_db.errors import DirectorDBError
    from director_db.records import Migration
    from director_db.rows import (
        Decide,
        GuardedMessage,
        MessageColumns,
        MessageQuery,
        MessageRow,
        SessionChanges,
        SessionQuery,
    )
    from director_db_sqlite.database import Database

# In seconds. A lock of threads takes no infinity, nor a year everywhere.
_LONGEST_WAIT: Final = min(365 * 86_400.0, threading.TIMEOUT_MAX)

_NO_LIMIT: Final = -1
_BEFORE_ALL: Final = -1


class SQLiteDB(SQLiteContexts, SQLiteHistory, BaseDB, db_type="sqlite", contract="1.1"):
    """Stores everything in one SQLite file, or in memory.

    Several processes may use one file. A write is on the disk when it returns (LIF-2).
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] = DEFAULT_PATH,
        *,
        operation_timeout: float = settings.DEFAULT_OPERATION_TIMEOUT,
        synchronous: str = "full",
        directory: str | None = None,
        migrate: bool = False,
    ) -> None:
        """Take the settings; nothing is opened before the first operation.

        Args:
            db_path: the file, which is created if it is missing, but not its folder; ``~`` is the
                home; ``":memory:"`` for a private database that ends with the instance. Without
                any argument, all of them are read from the environment, as `load_db` does.
            operation_timeout: the longest that a call waits for the locks of others, in seconds,
                before `BackendUnavailableError`; 0 for no limit.
            synchronous: ``"full"``: a write that returned survives a power cut; ``"normal"``: it
                survives the death of the process, but a power cut can take the last ones back.
            directory: what a relative `db_path` is relative to; None means the working directory
                at the first operation.
            migrate: whether the first operation carries the tables of the system before director-db
                over, as `migrate()` does, where it would refuse them otherwise.

        Raises:
            ConfigurationError: `db_path` cannot be a file, `operation_timeout` is no number of
                seconds, or `synchronous` is another word.
        """
        given: object = db_path.__fspath__() if isinstance(db_path, os.PathLike) else db_path
        path = check_path(given, "db_path")
        patience = operation_timeout_of(operation_timeout, "operation_timeout")
        self._patience = min(patience, _LONGEST_WAIT)
        self._synchronous = check_synchronous(synchronous, "synchronous")
        self.db_path = path
        self._database: Database = (
            MemoryDatabase(self._patience)
            if path == MEMORY
            else FileDatabase(
                path, directory, self._patience, synchronous=self._synchronous, migrates=migrate
            )
        )

    @classmethod
    def _settings(cls, environ: Mapping[str, str], url: str | None) -> dict[str, Hashable]:
        return settings.read(environ, url)

    @property
    def place(self) -> str:
        """The file's absolute path, or ``":memory:"``."""
        try:
            return self._database.path
        except ConfigurationError:
            return self.db_path  # The working directory is gone; whoever opens the file is told.

    def _check(self) -> Health:
        self._database.check()
        if self.db_path == MEMORY:
            warnings = ["Kept in memory: everything is lost when the process ends."]
        else:
            old_tables = self._database.read(old_layout.tables_with_rows)
            warnings = health.warnings(self.place, self._synchronous, old_tables)
        return Health(str(self.db_type), self.place, health.versions(), warnings)

    def _migrate(self, *, skip_invalid: bool) -> Migration:
        return self._database.migrate(skip_invalid=skip_invalid)

    def _close(self) -> None:
        self._database.close(for_good=self.closed)

    def _prepare_fork(self) -> None:
        # SQLite remembers in the process which locks it holds, and a child inherits that memory but
        # not the locks. So nothing may be open during a fork; both sides open again when they need
        # it. What is in memory has no locks, and would be lost.
        if self.db_path != MEMORY:
            self._database.close()

    def _renew_locks(self) -> None:
        self._database.renew_locks()

    def _abandon(self) -> None:
        self._database.abandon(in_flight=not self._fork_ready)

    def _translate(self, error: Exception) -> DirectorDBError | None:
        return translate(error, self.place)

    # --- Sessions -------------------------------------------------------------------------------

    def _insert_session(self, row: SessionRow) -> bool:
        def insert(connection: sqlite3.Connection) -> bool:
            return connection.execute(sql.INSERT_SESSION, row).rowcount > 0

        return self._database.write(insert, len(row.metadata))

    def _select_session(self, session_id: str) -> SessionRow | None:
        def select(connection: sqlite3.Connection) -> SessionRow | None:
            row = connection.execute(sql.SELECT_SESSION, (session_id,)).fetchone()
            return None if row is None else SessionRow._make(row)

        return self._database.read(select, 1)

    def _select_sessions(self, query: SessionQuery) -> Sequence[SessionRow]:
        statement = sql.select_sessions(
            before=query.before is not None,
            video=query.video_id is not None,
            collection=query.collection_id is not None,
            user=query.user_id is not None,
        )
        parameters: list[str | int] = [*(query.before or ())]
        filters = (query.video_id, query.collection_id, query.user_id)
        parameters += [text for text in filters if text is not None]
        parameters.append(_NO_LIMIT if query.limit is None else query.limit)

        def select(connection: sqlite3.Connection) -> list[SessionRow]:
            return list(map(SessionRow._make, connection.execute(statement, parameters).fetchall()))

        return self._database.read(select, query.limit)

    def _update_session(self, session_id: str, changes: SessionChanges) -> bool:
        size = 0 if changes.metadata is UNSET else payload_bytes(changes.metadata)
        return self._database.write(
            lambda connection: _update_session(connection, session_id, changes), size
        )

    def _change_session(self, session_id: str, decide: Decide) -> SaveOutcome:
        def change(connection: sqlite3.Connection) -> SaveOutcome:
            row = connection.execute(sql.SELECT_SESSION, (session_id,)).fetchone()
            if row is None:
                return SaveOutcome.NO_SESSION
            changes = decide(SessionRow._make(row))
            if changes is None:
                return SaveOutcome.CONFLICT
            _update_session(connection, session_id, changes)
            if changes.metadata is not UNSET:
                self._database.count_written(payload_bytes(changes.metadata))
            return SaveOutcome.SAVED

        return self._database.write(change, 0)

    def _delete_session(self, session_id: str) -> DeletedComponents:
        def delete(connection: sqlite3.Connection) -> DeletedComponents:
            return DeletedComponents(
                conversation=_delete(connection, sql.DELETE_MESSAGES, session_id),
                context=_delete(connection, sql.DELETE_CONTEXT, session_id),
                session=_delete(connection, sql.DELETE_SESSION, session_id),
            )

        return self._database.write(delete, 0)

    # --- Messages -------------------------------------------------------------------------------

    def _upsert_messages(self, session_id: str, rows: Sequence[MessageRow]) -> bool:
        if len(rows) == 1:
            upsert_one = Upsert(session_id, rows[0])
            return self._database.write(upsert_one, upsert_one.size)
        latest = max(row.updated_at for row in rows)

        def upsert(connection: sqlite3.Connection) -> bool:
            last = take_places(connection, session_id, len(rows), latest)
            if last is None:
                return False
            first = last - len(rows) + 1
            connection.executemany(
                sql.UPSERT_MESSAGE,
                ((session_id, place, *row) for place, row in enumerate(rows, first)),
            )
            return True

        return self._database.write(upsert, sum(map(message_bytes, rows)))

    def _upsert_together(
        self, messages: Sequence[tuple[str, MessageRow]]
    ) -> Sequence[bool | Callable[[], bool]]:
        upserts = [Upsert(*each) for each in messages]
        return self._database.write_each([(upsert, upsert.size) for upsert in upserts])

    def _upsert_guarded(
        self, session_id: str, rows: Sequence[GuardedMessage]
    ) -> Sequence[bool] | None:
        def upsert(connection: sqlite3.Connection) -> list[bool] | None:
            last = take_places(connection, session_id, len(rows), LONG_AGO)
            if last is None:
                return None
            answers = []
            for place, (row, revision, if_absent) in enumerate(rows, last - len(rows) + 1):
                values = (*row.columns, revision, row.created_at_given, if_absent)
                written = connection.execute(sql.UPSERT_GUARDED, (session_id, place, *values))
                answers.append(written.rowcount > 0)
            stored = zip(rows, answers, strict=True)
            times = [guarded.row.updated_at for guarded, is_stored in stored if is_stored]
            if times:
                take_places(connection, session_id, 0, max(times))
            return answers

        return self._database.write(upsert, sum(message_bytes(each.row) for each in rows))

    def _select_messages(self, query: MessageQuery) -> Sequence[MessageColumns] | None:
        cursor = query.after if query.before is None else query.before
        forward = query.after is not None or (query.limit is None and query.before is None)
        limit = _NO_LIMIT if query.limit is None else query.limit
        statement = sql.select_messages(
            backward=not forward,
            cursor=cursor is not None,
            conv=query.conv_id is not None,
            kind=query.msg_type is not None,
        )
        place = _BEFORE_ALL if forward else AFTER_ALL
        begin = (place,) if cursor is None else (query.session_id, cursor)
        part = [text for text in (query.conv_id, query.msg_type) if text is not None]
        values = (query.session_id, *begin, *part, limit)

        def select(connection: sqlite3.Connection) -> list[MessageColumns] | None:
            rows = connection.execute(statement, values).fetchall()
            if not rows and cursor is not None:
                # Nothing stands behind the cursor, or there is none.
                found = connection.execute(sql.SELECT_PLACE, (query.session_id, cursor)).fetchone()
                if found is None:
                    there = connection.execute(sql.SELECT_SESSION, (query.session_id,)).fetchone()
                    return [] if there is None else None
            if not forward:
                rows.reverse()
            return rows

        return self._database.read(select, query.limit)

    def _select_first_messages(
        self, session_id: str, limit: int, conv_id: str | None = None, msg_type: str | None = None
    ) -> list[MessageColumns]:
        statement = sql.select_messages(
            backward=False, cursor=False, conv=conv_id is not None, kind=msg_type is not None
        )
        part = [text for text in (conv_id, msg_type) if text is not None]
        values = (session_id, _BEFORE_ALL, *part, limit)
        return self._database.read(
            lambda connection: connection.execute(statement, values).fetchall(), limit
        )

    def _select_messages_by_id(
        self, session_id: str, msg_ids: Sequence[str]
    ) -> list[MessageColumns]:
        # One parameter for all of them, as SQLite has a limit for their number.
        values = (session_id, json.dumps(list(msg_ids), ensure_ascii=False))
        rows = self._database.read(
            lambda connection: connection.execute(sql.SELECT_MESSAGES_BY_ID, values).fetchall(),
            len(msg_ids),
        )
        return [row[:-1] for row in sorted(rows, key=itemgetter(-1))]

    def _select_message(self, session_id: str, msg_id: str) -> MessageColumns | None:
        def select(connection: sqlite3.Connection) -> MessageColumns | None:
            row = connection.execute(sql.SELECT_MESSAGE, (session_id, msg_id)).fetchone()
            return cast("MessageColumns | None", row)

        return self._database.read(select, 1)

    def _delete_message(self, session_id: str, msg_id: str) -> bool:
        return self._database.write(
            lambda connection: _delete(connection, sql.DELETE_MESSAGE, session_id, msg_id), 0
        )

    def _delete_messages(self, session_id: str) -> bool:
        return self._database.write(
            lambda connection: _delete(connection, sql.DELETE_MESSAGES, session_id), 0
        )


def _update_session(
    connection: sqlite3.Connection, session_id: str, changes: SessionChanges
) -> bool:
    parameters: list[str | int | None] = []
    for value in (changes.video_id, changes.collection_id, changes.metadata, changes.user_id):
        parameters += (False, None) if value is UNSET else (True, value)
    parameters += (changes.updated_at, session_id)
    return connection.execute(sql.UPDATE_SESSION, parameters).rowcount > 0


def _delete(connection: sqlite3.Connection, statement: str, *key: str) -> bool:
    return connection.execute(statement, key).rowcount > 0
