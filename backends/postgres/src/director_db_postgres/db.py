"""The Postgres backend: the storage operations of the contract, each one round trip."""

from __future__ import annotations

import math
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import psycopg

from director_db import BaseDB
from director_db.errors import BackendUnavailableError, DirectorDBError, InvalidRecordError
from director_db.records import Health, Migration
from director_db.rows import (
    UNSET,
    DeletedComponents,
    SaveOutcome,
    SessionRow,
)
from director_db_postgres import citus, schema, settings
from director_db_postgres.arrays import TextArray
from director_db_postgres.bulk import columns, merge
from director_db_postgres.contexts import PostgresContexts
from director_db_postgres.database import Database
from director_db_postgres.dsn import DSN
from director_db_postgres.encoding import message_in_ascii
from director_db_postgres.errors import as_in_doubt, translate
from director_db_postgres.health import ServerHealth
from director_db_postgres.history import PostgresHistory
from director_db_postgres.sending import unless_impossible
from director_db_postgres.statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from director_db.records import Distribution
    from director_db.rows import (
        Decide,
        GuardedMessage,
        MessageColumns,
        MessageQuery,
        MessageRow,
        SessionChanges,
        SessionQuery,
    )
    from director_db_postgres.connections import Connection
    from director_db_postgres.pipeline import Step

# A probe wants an answer, whatever it is, in seconds.
_HEALTH_PATIENCE: Final = 5.0

_NO_LIMIT: Final = 2**63 - 1


class PostgresDB(PostgresContexts, PostgresHistory, BaseDB, db_type="postgres", contract="1.1"):
    """Stores everything in one schema of a Postgres database.

    Any number of processes and machines may use it. A write is as durable on return as the server's
    ``synchronous_commit`` says (LIF-2). What a lost connection or a failover broke off is tried
    again; an append, a pop, a copy, a replacement or a delete only where it is known not to have
    happened.
    """

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
        self._patience = self._settings_in_use.operation_timeout
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
                connection,
                self._sql,
                self.place,
                migrating=True,
                skip_invalid=skip_invalid,
                until=math.inf,
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
        try:
            found = self._select_session(row.session_id)
        except DirectorDBError as error:
            raise as_in_doubt(error)  # noqa: B904 - it has its cause
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
            parameters = self._new_values(session_id, changes)
            return connection.run_waiting(self._sql.update_session, parameters).count > 0

        return self._database.write(update, session_id)

    def _change_session(self, session_id: str, decide: Decide) -> SaveOutcome:
        limit = self._settings_in_use.operation_timeout
        end = time.monotonic() + limit

        def change(connection: Connection) -> SaveOutcome:
            rows = connection.run(self._sql.select_session, (session_id,)).rows()
            while rows and time.monotonic() < end:
                row = SessionRow._make(rows[0])
                changes = decide(row)
                if changes is None:
                    return SaveOutcome.CONFLICT
                values = self._new_values(session_id, changes)
                read = (row.video_id, row.collection_id, row.metadata, row.user_id)
                # No lock is held while this process thinks, as it may be stopped in the middle. Who
                # comes too late has what is stored with the same answer.
                updated, now_stored = connection.run_together(
                    (self._sql.update_session_read, (*values, *read)),
                    (self._sql.select_session, (session_id,)),
                )
                if updated.count:
                    return SaveOutcome.SAVED
                rows = now_stored.rows()
            if not rows:
                return SaveOutcome.NO_SESSION
            message = f"The session {session_id!r} changed at every try for {limit:g} s."
            raise BackendUnavailableError(message, retryable=True)

        outcome, in_doubt = self._database.write_in_doubt(change, session_id)
        return SaveOutcome.IN_DOUBT if outcome is SaveOutcome.CONFLICT and in_doubt else outcome

    def _new_values(self, session_id: str, changes: SessionChanges) -> list[str | int | None]:
        """Return the parameters of an update of a session."""
        values: list[str | int | None] = [session_id, changes.updated_at]
        for value in (changes.video_id, changes.collection_id):
            values += (False, None) if value is UNSET else (True, value)
        metadata = changes.metadata
        values += (False, None) if metadata is UNSET else (True, self._text(metadata))
        return [*values, *((False, None) if changes.user_id is UNSET else (True, changes.user_id))]

    def _delete_session(self, session_id: str) -> DeletedComponents:
        def delete(connection: Connection) -> DeletedComponents:
            _, deleted = connection.run_together(
                (self._sql.lock_session, (session_id,)),
                (self._sql.delete_session, (session_id,)),
            )
            return DeletedComponents._make(deleted.rows()[0])

        nothing = DeletedComponents(conversation=False, context=False, session=False)
        return unless_impossible(lambda: self._database.write_once(delete, session_id), nothing)

    # --- Messages -------------------------------------------------------------------------------

    def _upsert_messages(self, session_id: str, rows: Sequence[MessageRow]) -> bool:
        upsert = self._upsert(session_id, rows)
        if len(rows) == 1:
            return self._database.write_message(upsert, session_id, rows[0])
        return self._database.write(upsert, session_id)

    def _upsert_together(
        self, messages: Sequence[tuple[str, MessageRow]]
    ) -> Sequence[bool | Callable[[], bool]]:
        return self._database.write_messages(
            [(self._upsert(session_id, (row,)), session_id, row) for session_id, row in messages]
        )

    def _upsert(self, session_id: str, rows: Sequence[MessageRow]) -> Callable[[Connection], bool]:
        """Return what stores messages of one session."""
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
            # One statement looks at the ages of numbers once. Several need the number of their own
            # transaction for it, which the lock gives.
            lock: list[Step] = [(self._sql.lock_session, (session_id,))] if len(writes) > 1 else []
            try:
                written = connection.run_together(*lock, count, *writes)[-len(writes) :]
            except psycopg.errors.ForeignKeyViolation:
                # Something in the database, such as a trigger, deleted the session in our own
                # transaction.
                return False
            return any(answer.count for answer in written)

        return upsert

    def _upsert_guarded(
        self, session_id: str, rows: Sequence[GuardedMessage]
    ) -> Sequence[bool] | None:
        def upsert(connection: Connection) -> list[bool] | None:
            steps: list[Step] = []
            for row, revision, if_absent in rows:
                stored = row if self._database.utf8 else message_in_ascii(row)
                values = (session_id, *stored, revision, if_absent)
                steps += [
                    (self._sql.upsert_guarded, values),
                    (self._sql.count_guarded, (session_id, row.msg_id)),
                ]
            locked, *written = connection.run_together(
                (self._sql.lock_session, (session_id,)), *steps
            )
            return [answer.count > 0 for answer in written[::2]] if locked.count else None

        answers, in_doubt = self._database.write_in_doubt(upsert, session_id)
        if in_doubt and answers is not None and not all(answers):
            # What held it back may be what an earlier try of its own has stored.
            message = (
                f"{self.place}: the connection was lost while messages of session {session_id!r} "
                "were written, and the second try found them guarded. Read them to see whether "
                "they are stored."
            )
            raise BackendUnavailableError(message, maybe_applied=True)
        return answers

    def _select_messages(self, query: MessageQuery) -> Sequence[MessageColumns] | None:
        limit = _NO_LIMIT if query.limit is None else query.limit
        cursor = query.after if query.before is None else query.before
        wanted = [] if query[4:] == (None, None) else [query.conv_id, query.msg_type]
        parameters: list[str | int | None] = [query.session_id, limit]
        if cursor is None:
            backward = query.limit is not None
            whole, part = (
                (self._sql.select_last_messages, self._sql.select_last_of_part)
                if backward
                else (self._sql.select_first_messages, self._sql.select_first_of_part)
            )
        else:
            parameters.insert(1, cursor)
            backward = query.before is not None
            whole, part = (
                (self._sql.select_messages_before, self._sql.select_part_before)
                if backward
                else (self._sql.select_messages_after, self._sql.select_part_after)
            )
        try:
            rows = (
                self._rows(part, [*parameters, *wanted])
                if wanted
                else self._rows(whole, parameters)
            )
        except InvalidRecordError:
            # The server's encoding has no form for one of the ids, or for what the part has.
            if wanted:
                beside = query._replace(limit=1, conv_id=None, msg_type=None)
                return None if self._select_messages(beside) is None else []
            there = cursor is not None and self._select_session(query.session_id) is not None
            return None if there else []
        if cursor is not None and len(rows) == 1 and rows[0][2] is None:
            return None
        if backward:
            rows.reverse()
        return rows

    def _select_first_messages(
        self, session_id: str, limit: int, conv_id: str | None = None, msg_type: str | None = None
    ) -> Sequence[MessageColumns]:
        if conv_id is None and msg_type is None:
            return self._select(self._sql.select_first_messages, (session_id, limit))
        values = (session_id, limit, conv_id, msg_type)
        return self._select(self._sql.select_first_of_part, values)

    def _select_messages_by_id(
        self, session_id: str, msg_ids: Sequence[str]
    ) -> Sequence[MessageColumns]:
        def select(wanted: Sequence[str]) -> list[tuple[Any, ...]]:
            return self._rows(self._sql.select_messages_by_id, (session_id, TextArray(wanted)))

        try:
            rows = select(msg_ids)
        except InvalidRecordError:
            # The server's encoding has no form for one of the ids, and does not say for which.
            there = [
                name
                for name in msg_ids
                if name.isascii() or self._select_message(session_id, name) is not None
            ]
            rows = unless_impossible(lambda: select(there), [])
        return [row[:-1] for row in sorted(rows, key=itemgetter(-1))]

    def _select_message(self, session_id: str, msg_id: str) -> MessageColumns | None:
        return self._select_one(self._sql.select_message, session_id, msg_id)

    def _delete_message(self, session_id: str, msg_id: str) -> bool:
        return self._delete(self._sql.delete_message, session_id, msg_id)

    def _delete_messages(self, session_id: str) -> bool:
        return self._delete(self._sql.delete_messages, session_id)
