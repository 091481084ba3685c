"""The Postgres backend: the storage operations of the contract, each one round trip."""

from __future__ import annotations

import time
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import psycopg

from director_db import BaseDB
from director_db.errors import BackendUnavailableError, DirectorDBError, InvalidRecordError
from director_db.payload import MAX_PAYLOAD_BYTES
from director_db.records import Health, Migration
from director_db.rows import (
    NO_CONTEXT,
    UNSET,
    Appended,
    DeletedComponents,
    SaveOutcome,
    SessionRow,
    StoredContext,
    whole_context,
)
from director_db_postgres import citus, schema, settings
from director_db_postgres.arrays import BigintArray, TextArray
from director_db_postgres.bulk import columns, merge
from director_db_postgres.database import Database
from director_db_postgres.dsn import DSN
from director_db_postgres.encoding import message_in_ascii, to_ascii
from director_db_postgres.errors import translate
from director_db_postgres.health import ServerHealth
from director_db_postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from typing import Any, TypeVar

    from director_db.records import Distribution
    from director_db.rows import (
        ContextAppend,
        ContextChange,
        ContextRow,
        MessageColumns,
        MessageQuery,
        MessageRow,
        SessionChanges,
        SessionQuery,
    )
    from director_db_postgres.connections import Connection
    from director_db_postgres.pipeline import Step

    T = TypeVar("T")

# A probe wants an answer, whatever it is, in seconds.
_HEALTH_PATIENCE: Final = 5.0

_NO_LIMIT: Final = 2**63 - 1

_ANY_VERSION: Final = -1


class PostgresDB(BaseDB, db_type="postgres", contract="1.1"):
    """Stores everything in one schema of a Postgres database.

    Any number of processes and machines may use it. A write is as durable on return as the server's
    ``synchronous_commit`` says (LIF-2). What a lost connection or a failover broke off is tried
    again; a delete only where it is known not to have happened.
    """

    incremental_contexts = True

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        pool_size: int = settings.DEFAULT_POOL_SIZE,
        statement_timeout: float | None = None,
        pooler: bool | None = None,
        retry_deadline: float = settings.DEFAULT_RETRY_DEADLINE,
        operation_timeout: float = settings.DEFAULT_OPERATION_TIMEOUT,
        migrate: bool = False,
    ) -> None:
        """Take the settings; nothing is connected before the first operation.

        Without any argument they are read from the environment, as `load_db` does.

        Args:
            dsn: a URL or connection string as libpq takes it, with any of its parameters. Of
                several hosts, the one that takes writes is used. None takes the server that the
                environment names.
            schema: the schema of our tables, created if it is missing; None means the first in the
                user's search path, usually ``public``.
            pool_size: the most connections that this instance opens.
            statement_timeout: how long one statement may take, in seconds; None means as long as
                the server allows.
            pooler: whether the server is reached through a pooler that gives each transaction
                another connection, such as PgBouncer in transaction mode. None finds out; False
                says that each connection keeps its server, as in PgBouncer's session mode.
            retry_deadline: how long an operation is tried again, and waits for a free connection,
                in seconds, before `BackendUnavailableError`.
            operation_timeout: the longest that one call waits, in seconds: for a connection, for
                the lock of its session, for an answer, and between tries; 0 for no limit. While an
                answer or a payload still moves it is not cut. Telling the server to cancel may
                take two seconds more.
            migrate: whether the first operation carries the tables of the system before director-db
                over, as `migrate()` does, where it would refuse them otherwise.

        Raises:
            ConfigurationError: an argument is malformed, or a statement timeout is asked for
                together with a pooler.
        """
        dsn = settings.dsn_of_environment() if dsn is None else DSN(dsn)
        self._settings_in_use = settings.check(
            dsn,
            schema,
            pool_size,
            statement_timeout,
            pooler=pooler,
            retry_deadline=retry_deadline,
            operation_timeout=operation_timeout,
        )
        self.schema = self._settings_in_use.schema
        self._sql = Statements(self.schema)
        self._database = Database(self._settings_in_use, self._sql, migrates=migrate)

    @classmethod
    def _settings(cls, environ: Mapping[str, str], url: str | None) -> dict[str, Hashable]:
        return settings.from_environment(environ, url)

    @property
    def place(self) -> str:
        """The server, database and schema as a URL, with the password masked."""
        return self._database.place

    def _check(self) -> Health:
        def look(connection: Connection) -> ServerHealth:
            # Once more, as somebody may have dropped the tables since the first operation.
            until = time.monotonic() + _HEALTH_PATIENCE
            schema.ensure(connection, self._sql, self.place, until=until)
            return ServerHealth.look(connection, self._sql)

        found = self._database.read(look, patience=_HEALTH_PATIENCE)
        warnings = found.warnings(found_pooler=self._database.found_pooler)
        return Health(str(self.db_type), self.place, found.versions(), warnings)

    def _migrate(self, *, skip_invalid: bool) -> Migration:
        def migrate(connection: Connection) -> Migration | None:
            return schema.ensure(
                connection, self._sql, self.place, migrating=True, skip_invalid=skip_invalid
            )

        return self._database.administer(migrate) or Migration(0, 0, 0, 0, [])

    def _distribute(self, shards: int | None) -> Distribution:
        def distribute(connection: Connection) -> Distribution:
            citus.require_cluster(connection, self.place)
            schema.ensure(connection, self._sql, self.place)
            return citus.distribute(connection, self.schema, self.place, shards)

        return self._database.administer(distribute)

    def _close(self) -> None:
        self._database.close()

    def _renew_locks(self) -> None:
        self._database.renew_locks()

    def _abandon(self) -> None:
        self._database.abandon()

    def _translate(self, error: Exception) -> DirectorDBError | None:
        return translate(error, self.place)

    # --- Sessions -------------------------------------------------------------------------------

    def _insert_session(self, row: SessionRow) -> bool:
        def insert(connection: Connection) -> bool:
            stored = row._replace(metadata=self._text(row.metadata))
            return connection.run_waiting(self._sql.insert_session, stored).count > 0

        is_new, in_doubt = self._database.write_in_doubt(insert, row.session_id)
        if is_new or not in_doubt:
            return is_new
        # What is there may be what an earlier try of this call has stored.
        found = self._select_session(row.session_id)
        ours = row._replace(metadata=self._text(row.metadata))
        # Others may have been active in it since.
        return found is not None and found._replace(updated_at=ours.updated_at) == ours

    def _select_session(self, session_id: str) -> SessionRow | None:
        row = self._select_one(self._sql.select_session, session_id)
        return None if row is None else SessionRow._make(row)

    def _select_sessions(self, query: SessionQuery) -> Sequence[SessionRow]:
        statement = self._sql.select_sessions(
            before=query.before is not None,
            user=query.user_id is not None,
            video=query.video_id is not None,
            collection=query.collection_id is not None,
        )
        parameters: list[str | int] = [*(query.before or ())]
        filters = (query.user_id, query.video_id, query.collection_id)
        parameters += [text for text in filters if text is not None]
        parameters.append(_NO_LIMIT if query.limit is None else query.limit)
        return list(map(SessionRow._make, self._select(statement, parameters)))

    def _update_session(self, session_id: str, changes: SessionChanges) -> bool:
        def update(connection: Connection) -> bool:
            parameters: list[str | int | None] = [session_id, changes.updated_at]
            for value in (changes.video_id, changes.collection_id):
                parameters += (False, None) if value is UNSET else (True, value)
            metadata = changes.metadata
            parameters += (False, None) if metadata is UNSET else (True, self._text(metadata))
            parameters += (False, None) if changes.user_id is UNSET else (True, changes.user_id)
            return connection.run_waiting(self._sql.update_session, parameters).count > 0

        return self._database.write(update, session_id)

    def _delete_session(self, session_id: str) -> DeletedComponents:
        def delete(connection: Connection) -> DeletedComponents:
            _, deleted = connection.run_together(
                (self._sql.lock_session, (session_id,)),
                (self._sql.delete_session, (session_id,)),
            )
            return DeletedComponents._make(deleted.rows()[0])

        nothing = DeletedComponents(conversation=False, context=False, session=False)
        return _unless_impossible(lambda: self._database.write_once(delete, session_id), nothing)

    # --- Messages -------------------------------------------------------------------------------

    def _upsert_messages(self, session_id: str, rows: Sequence[MessageRow]) -> bool:
        merged = rows if len(rows) == 1 else merge(rows)
        latest = max(row.updated_at for row in rows)

        def upsert(connection: Connection) -> bool:
            stored = merged if self._database.utf8 else list(map(message_in_ascii, merged))
            count: Step = (self._sql.count_messages, (session_id, len(stored), latest))
            writes: list[Step] = [(self._sql.upsert_message, (session_id, *stored[0]))]
            if len(stored) > 1:
                writes = [
                    (self._sql.upsert_messages, (session_id, len(stored), given, *arrays))
                    for given, arrays in columns(stored)
                ]
            try:
                _, *written = connection.run_together(count, *writes)
            except psycopg.errors.ForeignKeyViolation:
                # Something in the database, such as a trigger, deleted the session in our own
                # transaction.
                return False
            return any(answer.count for answer in written)

        if len(rows) == 1:
            return self._database.write_message(upsert, session_id, rows[0])
        return self._database.write(upsert, session_id)

    def _select_messages(self, query: MessageQuery) -> Sequence[MessageColumns] | None:
        limit = _NO_LIMIT if query.limit is None else query.limit
        cursor = query.after if query.before is None else query.before
        parameters: list[str | int] = [query.session_id, limit]
        if cursor is None:
            backward = query.limit is not None
            statement = (
                self._sql.select_last_messages if backward else self._sql.select_first_messages
            )
        else:
            parameters.insert(1, cursor)
            backward = query.before is not None
            statement = (
                self._sql.select_messages_before if backward else self._sql.select_messages_after
            )
        try:
            rows = self._rows(statement, parameters)
        except InvalidRecordError:
            # The server's encoding has no form for one of the ids.
            there = cursor is not None and self._select_session(query.session_id) is not None
            return None if there else []
        if cursor is not None and len(rows) == 1 and rows[0][2] is None:
            return None
        if backward:
            rows.reverse()
        return rows

    def _select_message(self, session_id: str, msg_id: str) -> MessageColumns | None:
        return self._select_one(self._sql.select_message, session_id, msg_id)

    def _delete_message(self, session_id: str, msg_id: str) -> bool:
        return self._delete(self._sql.delete_message, session_id, msg_id)

    def _delete_messages(self, session_id: str) -> bool:
        return self._delete(self._sql.delete_messages, session_id)

    # --- Context --------------------------------------------------------------------------------

    def _save_context(self, row: ContextRow, *, if_version: int | None) -> SaveOutcome:
        return self._save_context_change(whole_context(row, if_version))

    def _save_context_change(self, change: ContextChange) -> SaveOutcome:
        row = change.row

        ours = (row.session_id, row.version)

        def save(connection: Connection) -> SaveOutcome:
            write_items = (
                self._sql.write_items,
                (*ours, BigintArray(change.indexes), TextArray(map(self._text, change.items))),
            )
            locked, _, touched, *_ = connection.run_together(
                (self._sql.lock_session, (row.session_id,)),
                (
                    self._sql.save_context,
                    (
                        row.session_id,
                        _ANY_VERSION if change.if_version is None else change.if_version,
                        self._text(row.context),
                        change.rest_changed,
                        None if change.list_key is None else self._text(change.list_key),
                        change.list_len,
                        change.total_bytes,
                        row.version,
                        row.created_at,
                        row.created_at_given,
                        row.updated_at,
                        self._text(row.metadata),
                    ),
                ),
                (self._sql.touch_session, (*ours, row.updated_at)),
                (self._sql.cut_items, (*ours, change.list_len)),
                *([write_items] if change.items else []),
            )
            if not locked.count:
                return SaveOutcome.NO_SESSION
            # Ours may also have been stored by a try whose answer got lost.
            return SaveOutcome.SAVED if touched.count else SaveOutcome.CONFLICT

        outcome, in_doubt = self._database.write_in_doubt(save, row.session_id)
        # Either we were never applied, or we were and somebody has saved since.
        return SaveOutcome.IN_DOUBT if outcome is SaveOutcome.CONFLICT and in_doubt else outcome

    def _append_context(self, append: ContextAppend) -> Appended:
        session_id = append.session_id

        ours = (session_id, append.version)

        def add(connection: Connection) -> Appended:
            locked, known, added, *_ = connection.run_together(
                (self._sql.lock_session, (session_id,)),
                (self._sql.select_context_version, (session_id,)),
                (
                    self._sql.append_to_context,
                    (
                        session_id,
                        self._text(append.list_key),
                        self._text(append.rest),
                        len(append.items),
                        append.alone_bytes,
                        append.added_bytes,
                        append.version,
                        append.updated_at,
                        MAX_PAYLOAD_BYTES,
                    ),
                ),
                (self._sql.touch_session, (*ours, append.updated_at)),
                (
                    self._sql.append_items,
                    (*ours, len(append.items), TextArray(map(self._text, append.items))),
                ),
            )
            if not locked.count:
                return Appended(SaveOutcome.NO_SESSION)
            if not added.count:
                return Appended(SaveOutcome.CONFLICT)
            ((length,),) = added.rows()
            before = known.rows()
            return Appended(SaveOutcome.SAVED, length, before[0][0] if before else NO_CONTEXT)

        try:
            return self._database.write_once(add, session_id)
        except BackendUnavailableError as error:
            # It may not be sent again, but the version that it stored tells that it was applied.
            length = self._length_at(session_id, append.version) if error.maybe_applied else None
            if length is None:
                raise
            return Appended(SaveOutcome.SAVED, length)

    def _length_at(self, session_id: str, version: int) -> int | None:
        """Return the length of a context's list if that version is stored; None also if unknown."""
        try:
            rows = self._database.read(
                lambda connection: connection.run(
                    self._sql.select_context_length, (session_id, version)
                ).rows(),
                patience=_HEALTH_PATIENCE,  # The call's own time may be up.
            )
        except DirectorDBError:
            # Whatever it is, the caller has to hear that the append may have been applied.
            return None
        return rows[0][0] if rows else None

    def _select_context(self, session_id: str) -> StoredContext | None:
        rows = self._select(self._sql.select_context, (session_id,))
        if not rows:
            return None
        rows.sort(key=itemgetter(0))
        return StoredContext._make((*rows[0][1:], tuple([row[2] for row in rows[1:]])))

    def _delete_context(self, session_id: str) -> bool:
        return self._delete(self._sql.delete_context, session_id)

    # --- Shared by the above --------------------------------------------------------------------

    def _rows(self, statement: bytes, parameters: Sequence[str | int]) -> list[tuple[Any, ...]]:
        return self._database.read(lambda connection: connection.run(statement, parameters).rows())

    def _select(self, statement: bytes, parameters: Sequence[str | int]) -> list[tuple[Any, ...]]:
        return _unless_impossible(lambda: self._rows(statement, parameters), [])

    def _select_one(self, statement: bytes, *key: str) -> tuple[Any, ...] | None:
        rows = self._select(statement, key)
        return rows[0] if rows else None

    def _delete(self, statement: bytes, session_id: str, *key: str) -> bool:
        def delete(connection: Connection) -> bool:
            _, deleted = connection.run_together(
                (self._sql.lock_session, (session_id,)), (statement, (session_id, *key))
            )
            return deleted.count > 0

        return _unless_impossible(
            lambda: self._database.write_once(delete, session_id), otherwise=False
        )

    def _text(self, payload: str) -> str:
        return payload if self._database.utf8 else to_ascii(payload)


def _unless_impossible(attempt: Callable[[], T], otherwise: T) -> T:
    """Return what is not found where the server's encoding has no form for an id (VAL-4)."""
    try:
        return attempt()
    except InvalidRecordError:
        return otherwise
